//! Whose turn it is: a fair queue of subscriptions for few workers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::run::{Next, Subscription};

/// The queue of subscriptions `S`. One stands in it at most once, and goes to its end after each turn; so
/// nobody waits longer than one batch of everybody else's.
///
/// A wake-up carries nothing but the fact: one that comes while the subscription has its turn makes it look once more
/// afterwards, so that what happened between its look and its rest is not slept through.
pub(crate) struct Roster<S = Subscription> {
    inner: Mutex<Inner<S>>,
    changed: Notify,
}

struct Inner<S> {
    seats: Vec<Seat<S>>,
    ready: VecDeque<usize>,
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
}

struct Seat<S> {
    subscription: Option<Box<S>>,
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

impl<S> Roster<S> {
    /// Everybody is due at the start.
    pub(crate) fn new(subscriptions: Vec<S>) -> Self {
        let ready = (0..subscriptions.len()).collect();
        let seats = subscriptions
            .into_iter()
            .map(|subscription| Seat { subscription: Some(Box::new(subscription)), state: State::Queued })
            .collect();
        Self { inner: Mutex::new(Inner { seats, ready, resting: BinaryHeap::new() }), changed: Notify::new() }
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
    pub(crate) fn give_back(&self, index: usize, subscription: Box<S>, next: Next) {
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

    /// Puts everybody who is not having a turn to rest for ever, and tells them.
    pub(crate) fn drain(&self, tell: impl Fn(&mut S)) {
        let mut inner = self.lock();
        inner.ready.clear();
        inner.resting.clear();
        for seat in &mut inner.seats {
            if let Some(subscription) = &mut seat.subscription {
                tell(subscription);
                seat.state = State::Done;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Inner<S> {
    /// The next turn, or when somebody's rest is over.
    fn take(&mut self) -> Result<(usize, Box<S>), Option<Instant>> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Next, Roster};

    /// Has the next turn and says who it was.
    async fn turn(roster: &Roster<&'static str>, next: Next) -> &'static str {
        let (index, who) = roster.next().await;
        let name = *who;
        roster.give_back(index, who, next);
        name
    }

    #[tokio::test]
    async fn who_is_far_behind_has_one_turn_between_those_of_who_is_woken() {
        let roster = Roster::new(vec!["far behind", "live"]);
        assert_eq!(turn(&roster, Next::Again).await, "far behind");
        assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
        for _ in 0..3 {
            assert_eq!(
                turn(&roster, Next::Again).await,
                "far behind",
                "it has all turns while nobody else wants one"
            );
        }
        for _ in 0..3 {
            roster.wake([1]);
            // Whoever is in front has one turn more, and no second one.
            assert_eq!(turn(&roster, Next::Again).await, "far behind");
            assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
        }
    }

    #[tokio::test]
    async fn of_many_who_all_want_more_each_has_its_turn_in_each_round() {
        let names = ["a", "b", "c", "d"];
        let roster = Roster::new(names.to_vec());
        for _ in 0..3 {
            for name in names {
                assert_eq!(turn(&roster, Next::Again).await, name);
            }
        }
    }

    #[tokio::test]
    async fn a_wake_up_during_a_turn_gives_another_one_and_one_while_resting_does_not() {
        let roster = Roster::new(vec!["woken", "resting"]);
        let (index, woken) = roster.next().await;
        roster.wake([index]);
        roster.give_back(index, woken, Next::WhenWoken);
        assert_eq!(turn(&roster, Next::After(Duration::from_secs(3600))).await, "resting");
        roster.wake([1]);
        assert_eq!(turn(&roster, Next::WhenWoken).await, "woken");
        assert!(
            tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err(),
            "nobody is due"
        );
    }
}
