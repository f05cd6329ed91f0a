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
/// Live work first: what is being built stands in a queue of its own, which has a turn when nobody stands in the other, and
/// has never more than a share of the workers.
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
    last_most: usize,
    /// When rests are over. One that was cut short leaves its entry here, which no seat's state agrees with.
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
}

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
}

impl Seated for Subscription {
    fn comes_last(&self) -> bool {
        self.is_building()
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
    /// Wants nothing any more.
    Done,
}

impl<S: Seated> Roster<S> {
    /// Everybody is due at the start. At most `last_most` of those who come last have a turn at the same time.
    pub(crate) fn new(subscriptions: Vec<S>, last_most: usize) -> Self {
        let seat = |subscription| Seat {
            subscription: Some(Box::new(subscription)),
            state: State::Idle,
            ran_last: false,
        };
        let mut inner = Inner {
            seats: subscriptions.into_iter().map(seat).collect(),
            ready: VecDeque::new(),
            last: VecDeque::new(),
            last_running: 0,
            last_most,
            resting: BinaryHeap::new(),
        };
        for index in 0..inner.seats.len() {
            inner.queue(index);
        }
        Self { inner: Mutex::new(inner), changed: Notify::new() }
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
        let recalled = inner.seats[index].state == State::RunningRecalled;
        let woken = recalled || inner.seats[index].state == State::RunningWoken;
        inner.last_running -= usize::from(std::mem::take(&mut inner.seats[index].ran_last));
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
            | State::Done => {}
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
                    inner.queue(index);
                    woken += 1;
                }
                State::Running => inner.seats[index].state = State::RunningWoken,
                State::Queued
                | State::Resting(_)
                | State::Aside
                | State::RunningWoken
                | State::RunningRecalled
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
            State::Queued | State::RunningRecalled | State::Done => return,
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
        let is_last = next.is_none() && self.last_running < self.last_most && !self.last.is_empty();
        if is_last {
            next = self.last.pop_front();
        }
        let Some(index) = next else {
            return Err(self.resting.peek().map(|Reverse((due, _))| *due));
        };
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
mod tests {
    use std::time::Duration;

    use super::{Next, Roster, Seated};

    impl Seated for &'static str {
        fn comes_last(&self) -> bool {
            self.starts_with("build")
        }
    }

    /// Has the next turn and says who it was.
    async fn turn(roster: &Roster<&'static str>, next: Next) -> &'static str {
        let (index, who) = roster.next().await;
        let name = *who;
        roster.give_back(index, who, next);
        name
    }

    #[tokio::test]
    async fn who_is_far_behind_has_one_turn_between_those_of_who_is_woken() {
        let roster = Roster::new(vec!["far behind", "live"], 1);
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
    async fn what_is_built_has_a_turn_when_nobody_else_wants_one_and_never_all_workers() {
        let roster = Roster::new(vec!["build one", "build two", "live"], 1);
        assert_eq!(turn(&roster, Next::Again).await, "live");
        assert_eq!(turn(&roster, Next::WhenWoken).await, "live");
        let (index, build) = roster.next().await;
        assert_eq!(*build, "build one");
        let waits = tokio::time::timeout(Duration::from_millis(1), roster.next()).await;
        assert!(waits.is_err(), "one build at a time");
        roster.wake([2]);
        assert_eq!(turn(&roster, Next::WhenWoken).await, "live", "there is a worker left for it");
        roster.give_back(index, build, Next::Again);
        assert_eq!(turn(&roster, Next::WhenWoken).await, "build two");
        assert_eq!(turn(&roster, Next::WhenWoken).await, "build one");
    }

    #[tokio::test]
    async fn of_many_who_all_want_more_each_has_its_turn_in_each_round() {
        let names = ["a", "b", "c", "d"];
        let roster = Roster::new(names.to_vec(), 1);
        for _ in 0..3 {
            for name in names {
                assert_eq!(turn(&roster, Next::Again).await, name);
            }
        }
    }

    #[tokio::test]
    async fn a_wake_up_during_a_turn_gives_another_one_and_one_while_resting_does_not() {
        let roster = Roster::new(vec!["woken", "resting"], 1);
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
    #[tokio::test]
    async fn a_recall_ends_a_rest_and_what_is_left_of_it_gives_no_turn() {
        let roster = Roster::new(vec!["resting"], 1);
        let rest = Duration::from_millis(50);
        assert_eq!(turn(&roster, Next::After(rest)).await, "resting");
        roster.recall(0);
        roster.recall(0);
        let recalled = tokio::time::timeout(rest / 2, turn(&roster, Next::WhenWoken)).await;
        assert_eq!(recalled, Ok("resting"));
        assert!(
            tokio::time::timeout(rest * 2, roster.next()).await.is_err(),
            "neither the second recall nor the end of the old rest is a turn"
        );
        roster.wake([0]);
        assert_eq!(turn(&roster, Next::WhenWoken).await, "resting");
    }

    #[tokio::test]
    async fn a_later_rest_is_not_ended_by_what_is_left_of_an_earlier_one() {
        let roster = Roster::new(vec!["resting"], 1);
        turn(&roster, Next::After(Duration::from_millis(20))).await;
        roster.recall(0);
        turn(&roster, Next::After(Duration::from_secs(3600))).await;
        assert!(tokio::time::timeout(Duration::from_millis(60), roster.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_recall_during_a_turn_gives_another_one_whatever_the_turn_wants() {
        for next in [Next::Again, Next::WhenWoken, Next::WhenCalled, Next::After(Duration::from_secs(3600))] {
            let roster = Roster::new(vec!["recalled"], 1);
            let (index, recalled) = roster.next().await;
            roster.wake([index]);
            roster.recall(index);
            roster.wake([index]);
            roster.give_back(index, recalled, next);
            assert_eq!(turn(&roster, Next::WhenWoken).await, "recalled");
            assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
        }
    }

    #[tokio::test]
    async fn who_stands_aside_has_no_turn_when_woken_and_one_when_recalled() {
        let roster = Roster::new(vec!["aside"], 1);
        turn(&roster, Next::WhenCalled).await;
        roster.wake([0]);
        assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
        roster.recall(0);
        assert_eq!(turn(&roster, Next::WhenCalled).await, "aside");
    }

    #[tokio::test]
    async fn a_recall_wakes_who_waits_for_a_turn_and_nobody_who_is_done() {
        let roster = std::sync::Arc::new(Roster::new(vec!["idle"], 1));
        turn(&roster, Next::WhenWoken).await;
        let waiting = async { turn(&roster, Next::Never).await };
        let recalling = async {
            tokio::task::yield_now().await;
            roster.recall(0);
        };
        let (who, ()) = tokio::join!(waiting, recalling);
        assert_eq!(who, "idle");
        roster.recall(0);
        assert!(tokio::time::timeout(Duration::from_millis(1), roster.next()).await.is_err());
    }
}
