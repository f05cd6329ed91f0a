//! The watcher: one look per tick for everybody. Moves the horizon, sees which categories grew, wakes who reads them.
//!
//! A look goes past transactions that have sworn not to append. While the horizon stands still behind others and committed
//! events wait, the watcher raises the floor and looks again (`store::horizon` says why that is enough).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::board::Sight;
use super::clerk;
use super::roster::Roster;
use super::stall::Stall;
use crate::backoff::Backoff;
use crate::engine::backlog::View;
use crate::metrics::{ConnectionRole, StoreMetrics};
use crate::mutants::planted;
use crate::store::{self, Growth, Horizon, Link, Observation};

/// The shortest pause between two looks, while events come in.
const EAGER: Duration = Duration::from_millis(5);
/// The first pause while committed events are waiting behind the horizon: most who append end within a few.
const QUICK: Duration = Duration::from_millis(2);
/// The longest pause while committed events are waiting behind the horizon.
const ALERT: Duration = Duration::from_millis(10);
/// A look that takes longer has failed.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is asked whether the horizon can be proven.
const TIER_CHECK: Duration = Duration::from_secs(60);

/// Who is to be woken when a category grows.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    by_category: HashMap<String, Vec<usize>>,
    in_all: Vec<usize>,
}

impl Interests {
    /// Notes what a subscription reads; `None` is everything.
    pub(crate) fn add(&self, index: usize, categories: Option<&[String]>) {
        let mut seats = self.seats();
        match categories {
            None => seats.in_all.push(index),
            Some(names) => {
                for name in names {
                    seats.by_category.entry(name.clone()).or_default().push(index);
                }
            }
        }
    }

    /// Forgets a subscription.
    pub(crate) fn remove(&self, index: usize) {
        let mut seats = self.seats();
        seats.in_all.retain(|seat| *seat != index);
        seats.by_category.values_mut().for_each(|concerned| concerned.retain(|seat| *seat != index));
    }

    fn concerned(&self, growth: &Growth) -> Vec<usize> {
        if growth.is_empty() {
            return Vec::new();
        }
        let seats = self.seats();
        let named = growth.keys().filter_map(|category| seats.by_category.get(category)).flatten();
        named.chain(&seats.in_all).copied().collect()
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until cancelled, over as many connections as it takes.
pub(crate) async fn watch(
    daemon: Arc<Daemon>,
    roster: Arc<Roster>,
    interests: Arc<Interests>,
    views: watch::Sender<Option<Arc<View>>>,
    cancel: CancellationToken,
) {
    let mut backoff = Backoff::default();
    loop {
        let wait = match daemon.connector.connect("watcher", daemon.limits()).await {
            Ok(mut conn) => {
                daemon.opened(ConnectionRole::Watcher);
                let mut session =
                    Session { daemon: &daemon, roster: &roster, interests: &interests, views: &views };
                let ended = cancel.run_until_cancelled(session.run(&mut conn, &mut backoff)).await;
                daemon.closed(ConnectionRole::Watcher);
                let Some(error) = ended else { return };
                tracing::warn!("the watcher lost its connection: {error}");
                backoff.next()
            }
            Err(error) => {
                tracing::warn!("the watcher cannot connect: {}", crate::error::chain(&error));
                backoff.next()
            }
        };
        if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// One honest session: looks until something fails, and says what.
struct Session<'a> {
    daemon: &'a Daemon,
    roster: &'a Roster,
    interests: &'a Interests,
    views: &'a watch::Sender<Option<Arc<View>>>,
}

impl Session<'_> {
    async fn run(&mut self, conn: &mut Link<'_>, backoff: &mut Backoff) -> String {
        let metrics = StoreMetrics::new();
        let mut pause = EAGER;
        let mut moved_at = Instant::now();
        let mut stall = Stall::new(Instant::now());
        let mut tier_checked: Option<Instant> = None;
        loop {
            if tier_checked.is_none_or(|checked| checked.elapsed() >= TIER_CHECK) {
                match in_time(store::why_unproven(conn)).await {
                    Ok(reason) => self.daemon.board.set_unproven(reason),
                    Err(error) => return error,
                }
                tier_checked = Some(Instant::now());
            }
            match tokio::time::timeout(LOOK_DEADLINE, clerk::beat(conn, self.daemon)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return crate::error::chain(&error),
                Err(_) => return "no answer before the deadline".to_owned(),
            }
            let previous = self.views.borrow().as_ref().map(|view| view.horizon.clone());
            let seen = match in_time(self.look(conn, previous.as_ref(), &mut stall)).await {
                Ok(seen) => seen,
                Err(error) => return error,
            };
            metrics.polled(seen.head_position);
            backoff.reset();
            let moved = previous.as_ref() != Some(&seen.horizon);
            if moved || !seen.withholds {
                moved_at = Instant::now();
            }
            self.daemon.board.see(Sight { horizon: seen.horizon.clone(), stalled: seen.withholds, moved_at });
            let same_life =
                previous.as_ref().is_some_and(|before| before.incarnation() == seen.horizon.incarnation());
            let woken = self.interests.concerned(&seen.growth);
            // Eager while events come in, patient otherwise.
            pause = match (seen.withholds, moved) {
                (true, true) => QUICK,
                (true, false) => (pause * 2).min(ALERT),
                (false, _) if seen.growth.is_empty() => pause * 2,
                (false, _) => EAGER,
            }
            .min(self.daemon.poll_interval);
            self.publish(seen, same_life);
            if same_life {
                self.roster.wake(woken);
            } else {
                self.roster.wake_all();
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks, and where events wait behind somebody for long raises the floor and looks again. What was proven before stays
    /// proven, in the same life of the server.
    async fn look(
        &self,
        conn: &mut Link<'_>,
        previous: Option<&Horizon>,
        stall: &mut Stall,
    ) -> store::Result<Observation> {
        let proves = self.daemon.board.unproven().is_none();
        let mut seen = store::observe(conn, previous, proves).await?;
        if stall.is_due(&seen, Instant::now()) && proves {
            store::raise_floor(conn).await?;
            let before = seen.horizon.transaction_id();
            seen = store::observe(conn, previous, proves).await?;
            stall.raised(before, seen.horizon.transaction_id(), Instant::now());
        }
        let is_stale = planted("stale-horizon");
        let previous =
            previous.filter(|before| is_stale || before.incarnation() == seen.horizon.incarnation());
        if let Some(previous) = previous
            && previous.transaction_id() > seen.horizon.transaction_id()
        {
            seen.horizon = previous.clone();
        }
        Ok(seen)
    }

    /// Hands out what was seen, unless nothing changed.
    fn publish(&self, seen: Observation, same_life: bool) {
        let is_provable = self.daemon.board.unproven().is_none();
        self.views.send_if_modified(|view| {
            let next = match view.as_deref() {
                Some(before) if same_life => {
                    if seen.growth.is_empty()
                        && seen.horizon.transaction_id() <= before.horizon.transaction_id()
                    {
                        return false;
                    }
                    let mut next = before.clone();
                    (next.horizon, next.is_provable) = (seen.horizon, is_provable);
                    for (category, events) in seen.growth {
                        next.grown_total += events;
                        *next.grown.entry(category).or_default() += events;
                    }
                    next
                }
                _ => View { horizon: seen.horizon, is_provable, grown: Growth::new(), grown_total: 0 },
            };
            *view = Some(Arc::new(next));
            true
        });
    }
}

/// The answer, or in words why there is none.
async fn in_time<T>(asking: impl Future<Output = store::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(LOOK_DEADLINE, asking).await {
        Ok(answer) => answer.map_err(|error| crate::error::chain(&error)),
        Err(_) => Err("no answer before the deadline".to_owned()),
    }
}
