//! The watcher: one look per tick for everybody. Moves the horizon, sees which categories grew, wakes who reads them.
//!
//! While the horizon stands still and committed events wait behind it, the watcher proves it further: it raises the
//! floor, looks at who is running, and looks again with a newer snapshot (`store::horizon` says why in this order).

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
            if previous.as_ref() != Some(&seen.horizon) || !seen.withholds {
                moved_at = Instant::now();
            }
            self.daemon.board.see(Sight { horizon: seen.horizon.clone(), stalled: seen.withholds, moved_at });
            let same_life =
                previous.as_ref().is_some_and(|before| before.incarnation() == seen.horizon.incarnation());
            let woken = self.interests.concerned(&seen.growth);
            // Eager while events come in, patient otherwise.
            let patience =
                if seen.withholds { ALERT.min(self.daemon.poll_interval) } else { self.daemon.poll_interval };
            pause = if seen.growth.is_empty() { (pause * 2).min(patience) } else { EAGER };
            self.publish(seen, same_life);
            if same_life {
                self.roster.wake(woken);
            } else {
                self.roster.wake_all();
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks, and where that is not enough proves the horizon further. What was proven before stays proven, in the same
    /// life of the server.
    async fn look(
        &self,
        conn: &mut Link<'_>,
        previous: Option<&Horizon>,
        stall: &mut Stall,
    ) -> store::Result<Observation> {
        let mut seen = store::observe(conn, previous).await?;
        let held = stall.is_due(&seen, Instant::now());
        let is_stale = planted("stale-horizon");
        let previous =
            previous.filter(|before| is_stale || before.incarnation() == seen.horizon.incarnation());
        if let Some(previous) = previous
            && previous.transaction_id() > seen.horizon.transaction_id()
        {
            seen.horizon = previous.clone();
        }
        if held && self.daemon.board.unproven().is_none() {
            let floor = store::raise_floor(conn).await?;
            let proven = store::prove(conn, floor).await?;
            let further = proven.filter(|proven| proven.transaction_id() > seen.horizon.transaction_id());
            stall.raised(further.is_some(), Instant::now());
            if let Some(further) = further {
                let (growth, withholds) =
                    store::uncovered(conn, previous.unwrap_or(&seen.horizon), &further).await?;
                if previous.is_some() {
                    seen.growth = growth;
                }
                seen.withholds = withholds;
                seen.horizon = further;
            }
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
