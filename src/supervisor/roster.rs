//! Whose turn it is: a fair queue of subscriptions for few workers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::run::{Next, Subscription};

/// The queue. A subscription stands in it at most once, and goes to its end after each turn; so nobody waits longer than
/// one batch of everybody else's.
///
/// A wake-up carries nothing but the fact: one that comes while the subscription has its turn makes it look once more
/// afterwards, so that what happened between its look and its rest is not slept through.
pub(crate) struct Roster {
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    seats: Vec<Seat>,
    ready: VecDeque<usize>,
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
}

struct Seat {
    subscription: Option<Box<Subscription>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for a wake-up.
    Idle,
    /// Stands in the queue.
    Queued,
    /// Waits for its time.
    Resting,
    /// Has its turn.
    Running,
    /// Has its turn, and was woken meanwhile.
    RunningWoken,
    /// Wants nothing any more.
    Done,
}

impl Roster {
    /// Everybody is due at the start.
    pub(crate) fn new(subscriptions: Vec<Subscription>) -> Self {
        let ready = (0..subscriptions.len()).collect();
        let seats = subscriptions
            .into_iter()
            .map(|subscription| Seat { subscription: Some(Box::new(subscription)), state: State::Queued })
            .collect();
        Self { inner: Mutex::new(Inner { seats, ready, resting: BinaryHeap::new() }), changed: Notify::new() }
    }

    /// Waits for the next turn. Cancel-safe: a turn is given only when this returns.
    pub(crate) async fn next(&self) -> (usize, Box<Subscription>) {
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
    pub(crate) fn give_back(&self, index: usize, subscription: Box<Subscription>, next: Next) {
        let mut inner = self.lock();
        let woken = inner.seats[index].state == State::RunningWoken;
        inner.seats[index].subscription = Some(subscription);
        let state = match next {
            Next::Again => State::Queued,
            Next::WhenWoken if woken => State::Queued,
            Next::WhenWoken => State::Idle,
            Next::After(_) => State::Resting,
            Next::Never => State::Done,
        };
        inner.seats[index].state = state;
        match (state, next) {
            (State::Queued, _) => inner.ready.push_back(index),
            (State::Resting, Next::After(wait)) => {
                inner.resting.push(Reverse((Instant::now() + wait, index)))
            }
            _ => {}
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Wakes subscriptions. One that rests has its reasons and is left alone.
    pub(crate) fn wake(&self, indices: impl IntoIterator<Item = usize>) {
        let mut inner = self.lock();
        let mut woken = 0;
        for index in indices {
            match inner.seats[index].state {
                State::Idle => {
                    inner.seats[index].state = State::Queued;
                    inner.ready.push_back(index);
                    woken += 1;
                }
                State::Running => inner.seats[index].state = State::RunningWoken,
                State::Queued | State::Resting | State::RunningWoken | State::Done => {}
            }
        }
        drop(inner);
        for _ in 0..woken {
            self.changed.notify_one();
        }
    }

    /// Puts everybody who is not having a turn to rest for ever.
    pub(crate) fn drain(&self) {
        let mut inner = self.lock();
        inner.ready.clear();
        inner.resting.clear();
        for seat in &mut inner.seats {
            if let Some(subscription) = &mut seat.subscription {
                subscription.drain();
                seat.state = State::Done;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The next turn, or when somebody's rest is over.
    fn take(&mut self) -> Result<(usize, Box<Subscription>), Option<Instant>> {
        let now = Instant::now();
        while let Some(Reverse((due, index))) = self.resting.peek().copied() {
            if due > now {
                break;
            }
            self.resting.pop();
            self.seats[index].state = State::Queued;
            self.ready.push_back(index);
        }
        let Some(index) = self.ready.pop_front() else {
            return Err(self.resting.peek().map(|Reverse((due, _))| *due));
        };
        let seat = &mut self.seats[index];
        seat.state = State::Running;
        match seat.subscription.take() {
            Some(subscription) => Ok((index, subscription)),
            // Queued means seated; were it ever otherwise, the others still get their turns.
            None => self.take(),
        }
    }
}
