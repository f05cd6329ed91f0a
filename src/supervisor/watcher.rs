//! The watcher: one look per tick for everybody. Moves the horizon, sees which categories grew, wakes who reads them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::board::Sight;
use super::roster::Roster;
use crate::backoff::Backoff;
use crate::engine::run::View;
use crate::metrics::{ConnectionRole, StoreMetrics};
use crate::store::{self, Growth};

/// The shortest pause between two looks, while events come in.
const EAGER: Duration = Duration::from_millis(5);
/// A look that takes longer has failed.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Who is to be woken when a category grows.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    by_category: HashMap<String, Vec<usize>>,
    in_all: Vec<usize>,
}

impl Interests {
    /// Notes what a subscription reads; `None` is everything.
    pub(crate) fn add(&mut self, index: usize, categories: Option<&[String]>) {
        match categories {
            None => self.in_all.push(index),
            Some(names) => {
                for name in names {
                    self.by_category.entry(name.clone()).or_default().push(index);
                }
            }
        }
    }

    fn concerned(&self, growth: &Growth) -> Vec<usize> {
        if growth.is_empty() {
            return Vec::new();
        }
        let named = growth.keys().filter_map(|category| self.by_category.get(category)).flatten();
        named.chain(&self.in_all).copied().collect()
    }
}

/// Watches until cancelled, over as many connections as it takes.
pub(crate) async fn watch(
    daemon: Arc<Daemon>,
    roster: Arc<Roster>,
    interests: Interests,
    views: watch::Sender<Option<Arc<View>>>,
    cancel: CancellationToken,
) {
    let mut backoff = Backoff::default();
    loop {
        let wait = match daemon.connector.connect("watcher", Some(daemon.limits())).await {
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
    async fn run(&mut self, conn: &mut PgConnection, backoff: &mut Backoff) -> String {
        let metrics = StoreMetrics::new();
        let mut pause = EAGER;
        let mut moved_at = Instant::now();
        loop {
            let previous = self.views.borrow().as_ref().map(|view| view.horizon.clone());
            let looked = tokio::time::timeout(LOOK_DEADLINE, store::observe(conn, previous.as_ref())).await;
            let seen = match looked {
                Ok(Ok(seen)) => seen,
                Ok(Err(error)) => return crate::error::chain(&error),
                Err(_) => return "no answer before the deadline".to_owned(),
            };
            metrics.polled(seen.head_position);
            backoff.reset();
            if previous.as_ref() != Some(&seen.horizon) || seen.horizon.transaction_id() >= seen.newest {
                moved_at = Instant::now();
            }
            self.daemon.board.see(Sight {
                horizon: seen.horizon.clone(),
                stalled: seen.horizon.transaction_id() < seen.newest,
                moved_at,
            });
            let same_life =
                previous.as_ref().is_some_and(|before| before.incarnation() == seen.horizon.incarnation());
            let woken = self.interests.concerned(&seen.growth);
            // Eager while events come in, patient otherwise.
            pause = if seen.growth.is_empty() { (pause * 2).min(self.daemon.poll_interval) } else { EAGER };
            self.publish(seen, same_life);
            if same_life {
                self.roster.wake(woken);
            } else {
                self.roster.wake(0..self.daemon.board.len());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Hands out the greater of the previous and the new horizon: what was proven stays proven, in the same life.
    fn publish(&self, seen: store::Observation, same_life: bool) {
        self.views.send_if_modified(|view| {
            let next = match view.as_deref() {
                Some(before) if same_life => {
                    if seen.growth.is_empty()
                        && seen.horizon.transaction_id() <= before.horizon.transaction_id()
                    {
                        return false;
                    }
                    let mut next = before.clone();
                    if seen.horizon.transaction_id() > next.horizon.transaction_id() {
                        next.horizon = seen.horizon;
                    }
                    for (category, events) in seen.growth {
                        next.grown_total += events;
                        *next.grown.entry(category).or_default() += events;
                    }
                    next
                }
                _ => View { horizon: seen.horizon, grown: Growth::new(), grown_total: 0 },
            };
            *view = Some(Arc::new(next));
            true
        });
    }
}
