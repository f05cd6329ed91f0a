//! Whose turn it is: a fair queue of subscriptions for few workers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::run::{Next, Subscription};

/// The queue of subscriptions `S`. One stands in it at most once, and goes to its end after each turn; so
/// nobody waits longer than one batch of everybody else's.
///
/// Live work first: what is being built stands in a queue of its own, which has a turn when nobody stands in the other, and
/// has never more than a share of the workers; a smaller one while the others have work.
///
/// A wake-up carries nothing but the fact: one that comes while the subscription has its turn makes it look once more
/// afterwards, so that what happened between its look and its rest is not slept through. A recall does the same, and also
/// ends a rest: an operator may have removed its reason.
pub(crate) struct Roster<S = Subscription> {
    inner: Mutex<Inner<S>>,
    changed: Notify,
}

struct Inner<S> {
    seats: Vec<Seat<S>>,
    ready: VecDeque<usize>,
    /// Those who come last.
    last: VecDeque<usize>,
    /// How many of them have a turn now, and how many may.
    last_running: usize,
    last_most: LastMost,
    /// When one who does not come last had a turn.
    live_turn: Option<Instant>,
    /// When rests are over. One that was cut short leaves its entry here, which no seat's state agrees with.
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
}

/// How many of those who come last may have a turn at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastMost {
    /// While nobody else wants one.
    pub(crate) alone: usize,
    /// While others had one not long ago.
    pub(crate) beside: usize,
}

/// For so long after a turn others count as having work. A turn of who comes last cannot be cut short.
const AT_WORK: Duration = Duration::from_secs(1);

struct Seat<S> {
    subscription: Option<Box<S>>,
    state: State,
    /// Whether it stood in the last queue when it was given its turn.
    ran_last: bool,
}

/// What has a seat.
pub(crate) trait Seated {
    /// Whether everybody else goes first.
    fn comes_last(&self) -> bool;

    /// Its seat is taken away: there is no such subscription any more.
    fn leave(&mut self);
}

impl Seated for Subscription {
    fn comes_last(&self) -> bool {
        self.is_building()
    }

    fn leave(&mut self) {
        self.drain();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for a wake-up.
    Idle,
    /// Stands in the queue.
    Queued,
    /// Waits for its time.
    Resting(Instant),
    /// Waits for a recall; a wake-up is not for it.
    Aside,
    /// Has its turn.
    Running,
    /// Has its turn, and was woken meanwhile.
    RunningWoken,
    /// Has its turn, and was recalled meanwhile.
    RunningRecalled,
    /// Has its turn, and was dismissed meanwhile.
    RunningDismissed,
    /// Wants nothing any more.
    Done,
}

impl<S: Seated> Roster<S> {
    /// Nobody yet.
    pub(crate) fn new(last_most: LastMost) -> Self {
        let inner = Inner {
            seats: Vec::new(),
            ready: VecDeque::new(),
            last: VecDeque::new(),
            last_running: 0,
            last_most,
            live_turn: None,
            resting: BinaryHeap::new(),
        };
        Self { inner: Mutex::new(inner), changed: Notify::new() }
    }

    /// A seat that nobody sits on yet, for whoever must be known elsewhere before the first turn.
    pub(crate) fn reserve(&self) -> usize {
        let mut inner = self.lock();
        inner.seats.push(Seat { subscription: None, state: State::Done, ran_last: false });
        inner.seats.len() - 1
    }

    /// Takes a reserved seat; who does is due at once.
    pub(crate) fn sit(&self, index: usize, subscription: S) {
        let mut inner = self.lock();
        inner.seats[index].subscription = Some(Box::new(subscription));
        inner.queue(index);
        drop(inner);
        self.changed.notify_one();
    }

    /// Takes a seat away, for ever. Who has a turn has it to its end.
    pub(crate) fn dismiss(&self, index: usize) {
        let mut inner = self.lock();
        inner.ready.retain(|queued| *queued != index);
        inner.last.retain(|queued| *queued != index);
        let seat = &mut inner.seats[index];
        seat.state = match (seat.state, seat.subscription.take()) {
            (State::Running | State::RunningWoken | State::RunningRecalled, None) => State::RunningDismissed,
            (state, None) => state,
            (_, Some(mut subscription)) => {
                subscription.leave();
                State::Done
            }
        };
    }

    /// Waits for the next turn. Cancel-safe: a turn is given only when this returns.
    pub(crate) async fn next(&self) -> (usize, Box<S>) {
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = self.changed.notified();
            let due = match self.lock().take() {
                Ok(turn) => return turn,
                Err(due) => due,
            };
            match due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Gives a subscription back after its turn.
    pub(crate) fn give_back(&self, index: usize, mut subscription: Box<S>, next: Next) {
        let mut inner = self.lock();
        inner.last_running -= usize::from(std::mem::take(&mut inner.seats[index].ran_last));
        if inner.seats[index].state == State::RunningDismissed {
            subscription.leave();
            inner.seats[index].state = State::Done;
            drop(inner);
            // A build's place may be free now.
            self.changed.notify_one();
            return;
        }
        let recalled = inner.seats[index].state == State::RunningRecalled;
        let woken = recalled || inner.seats[index].state == State::RunningWoken;
        inner.seats[index].subscription = Some(subscription);
        let state = match next {
            Next::Again => State::Queued,
            Next::WhenWoken if woken => State::Queued,
            Next::WhenWoken => State::Idle,
            Next::After(_) | Next::WhenCalled if recalled => State::Queued,
            Next::WhenCalled => State::Aside,
            Next::After(wait) => State::Resting(Instant::now() + wait),
            Next::Never => State::Done,
        };
        inner.seats[index].state = state;
        match state {
            State::Queued => inner.queue(index),
            State::Resting(due) => inner.resting.push(Reverse((due, index))),
            State::Idle
            | State::Aside
            | State::Running
            | State::RunningWoken
            | State::RunningRecalled
            | State::RunningDismissed
            | State::Done => {}
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self) {
        let seats = self.lock().seats.len();
        self.wake(0..seats);
    }

    /// Wakes subscriptions. One that rests has its reasons and is left alone.
    pub(crate) fn wake(&self, indices: impl IntoIterator<Item = usize>) {
        let mut inner = self.lock();
        let mut woken = 0;
        for index in indices {
            match inner.seats[index].state {
                State::Idle => {
                    inner.queue(index);
                    woken += 1;
                }
                State::Running => inner.seats[index].state = State::RunningWoken,
                State::Queued
                | State::Resting(_)
                | State::Aside
                | State::RunningWoken
                | State::RunningRecalled
                | State::RunningDismissed
                | State::Done => {}
            }
        }
        drop(inner);
        for _ in 0..woken {
            self.changed.notify_one();
        }
    }

    /// Gives a subscription a turn as soon as the others had theirs, also one that rests or stands aside.
    pub(crate) fn recall(&self, index: usize) {
        let mut inner = self.lock();
        match inner.seats[index].state {
            State::Idle | State::Aside | State::Resting(_) => inner.queue(index),
            State::Running | State::RunningWoken => inner.seats[index].state = State::RunningRecalled,
            State::Queued | State::RunningRecalled | State::RunningDismissed | State::Done => return,
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Puts everybody who is not having a turn to rest for ever, and tells them. Returns who is having one.
    pub(crate) fn drain(&self, tell: impl Fn(&mut S)) -> Vec<usize> {
        let mut inner = self.lock();
        inner.ready.clear();
        inner.last.clear();
        inner.resting.clear();
        let mut in_hand = Vec::new();
        for (index, seat) in inner.seats.iter_mut().enumerate() {
            match &mut seat.subscription {
                Some(subscription) => {
                    tell(subscription);
                    seat.state = State::Done;
                }
                None if seat.state == State::Done => {}
                None => in_hand.push(index),
            }
        }
        in_hand
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Seated> Inner<S> {
    fn queue(&mut self, index: usize) {
        self.seats[index].state = State::Queued;
        let comes_last = self.seats[index].subscription.as_ref().is_some_and(|seated| seated.comes_last());
        if comes_last { self.last.push_back(index) } else { self.ready.push_back(index) }
    }

    /// The next turn, or when somebody's rest is over.
    fn take(&mut self) -> Result<(usize, Box<S>), Option<Instant>> {
        let now = Instant::now();
        while let Some(Reverse((due, index))) = self.resting.peek().copied() {
            let rests = self.seats[index].state == State::Resting(due);
            if rests && due > now {
                break;
            }
            self.resting.pop();
            if rests {
                self.queue(index);
            }
        }
        let mut next = self.ready.pop_front();
        // Until then the others count as having work.
        let busy = self.live_turn.map(|turn| turn + AT_WORK).filter(|until| *until > now);
        let is_last = next.is_none() && !self.last.is_empty();
        let most = if busy.is_some() { self.last_most.beside } else { self.last_most.alone };
        if is_last && self.last_running < most {
            next = self.last.pop_front();
        }
        let Some(index) = next else {
            let rested = self.resting.peek().map(|Reverse((due, _))| *due);
            return Err(rested.into_iter().chain(busy.filter(|_| is_last)).min());
        };
        if !is_last {
            self.live_turn = Some(now);
        }
        let seat = &mut self.seats[index];
        seat.state = State::Running;
        seat.ran_last = is_last;
        self.last_running += usize::from(is_last);
        match seat.subscription.take() {
            Some(subscription) => Ok((index, subscription)),
            // Queued means seated; were it ever otherwise, the others still get their turns.
            None => self.take(),
        }
    }
}

#[cfg(test)]
mod tests;
