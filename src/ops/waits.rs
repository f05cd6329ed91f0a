//! Everybody who waits for a projection to reach a place, served by one look at the checkpoints.
//!
//! A thousand waiting clients cost the database what one costs: each look asks once for all places that are not resolved
//! yet and once for all projections concerned. While nobody waits, nothing is asked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::desk::{Desk, Use};
use super::problem::Problem;
use crate::backoff::Backoff;
use crate::cursor::Cursor;
use crate::ledger::reached::{Progress, progress};
use crate::store::{self, Link};

/// The longest that a client may ask to wait.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(600);
/// Between two looks, at least; and at least as long as a look takes, so that half a connection's time is the most.
const PAUSE: Duration = Duration::from_millis(20);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The event at a global position is applied.
    Position(i64),
    /// Everything up to a cursor is applied.
    Cursor(Cursor),
    /// Everything that is there now is applied.
    CaughtUp,
}

struct Waiter {
    name: String,
    until: Until,
    /// Where that is, once it is known.
    target: Option<Cursor>,
    answer: oneshot::Sender<Result<Cursor, Problem>>,
}

/// Everybody who waits.
#[derive(Default)]
pub(crate) struct Waits {
    waiting: Mutex<HashMap<u64, Waiter>>,
    next: AtomicU64,
    came: Notify,
}

/// Forgets a waiter who went away.
struct Place<'w> {
    waits: &'w Waits,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waits.lock().remove(&self.number);
    }
}

/// What one look tells: the head where it is asked for, places by position, and how far projections have come.
type Seen = (Option<Cursor>, HashMap<i64, Cursor>, HashMap<String, Progress>);

async fn ask(
    link: &mut Link<'_>,
    needs_head: bool,
    positions: &[i64],
    names: &[String],
) -> store::Result<Seen> {
    let head = if needs_head { Some(store::head(link).await?) } else { None };
    let found =
        if positions.is_empty() { HashMap::new() } else { store::cursors_of(link, positions).await? };
    Ok((head, found, progress(link, names).await?))
}

impl Waits {
    /// Waits until a projection has reached a place, at most so long. `None` when the time is over.
    pub(super) async fn wait(
        &self,
        name: String,
        until: Until,
        at_most: Duration,
    ) -> Option<Result<Cursor, Problem>> {
        let (answer, answered) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let target = if let Until::Cursor(cursor) = until { Some(cursor) } else { None };
        self.lock().insert(number, Waiter { name, until, target, answer });
        let _place = Place { waits: self, number };
        self.came.notify_one();
        let answered = tokio::time::timeout(at_most.min(MAX_WAIT), answered).await.ok()?;
        Some(answered.unwrap_or(Err(Problem::DRAINING)))
    }

    /// Looks for everybody. Never returns.
    pub(super) async fn keep(&self, desk: &Desk) {
        let mut backoff = Backoff::default();
        loop {
            if self.lock().is_empty() {
                self.came.notified().await;
                continue;
            }
            let began = Instant::now();
            match self.look(desk).await {
                Ok(()) => {
                    backoff.reset();
                    tokio::time::sleep(PAUSE.max(began.elapsed())).await;
                }
                Err(problem) => {
                    tracing::warn!("cannot look for those who wait: {}", problem.message);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    async fn look(&self, desk: &Desk) -> Result<(), Problem> {
        let (mut names, mut positions, mut needs_head) = (HashSet::new(), HashSet::new(), false);
        for waiter in self.lock().values() {
            names.insert(waiter.name.clone());
            match (waiter.target, waiter.until) {
                (None, Until::Position(position)) => drop(positions.insert(position)),
                (None, Until::CaughtUp) => needs_head = true,
                (Some(_), _) | (None, Until::Cursor(_)) => {}
            }
        }
        let (names, positions): (Vec<_>, Vec<_>) =
            (names.into_iter().collect(), positions.into_iter().collect());
        let mut held = desk.take(Use::Waiting).await?;
        let asked = ask(held.link(), needs_head, &positions, &names).await;
        let (head, found, progress) = held.back(asked).await?;
        self.tell(head, &found, &progress, &names);
        Ok(())
    }

    /// Answers whom the look was good for. Who came since is in the next one.
    fn tell(
        &self,
        head: Option<Cursor>,
        found: &HashMap<i64, Cursor>,
        progress: &HashMap<String, Progress>,
        asked: &[String],
    ) {
        let mut waiting = self.lock();
        let mut done = Vec::new();
        for (number, waiter) in waiting.iter_mut() {
            if waiter.target.is_none() {
                waiter.target = match waiter.until {
                    Until::Position(position) => found.get(&position).copied(),
                    Until::Cursor(cursor) => Some(cursor),
                    Until::CaughtUp => head,
                };
            }
            match (progress.get(&waiter.name), waiter.target) {
                (Some(progress), Some(target)) if progress.has_reached(target) => {
                    done.push((*number, Ok(target)));
                }
                (None, _) if asked.contains(&waiter.name) => {
                    done.push((*number, Err(Problem::unknown_projection(&waiter.name))));
                }
                (Some(_) | None, _) => {}
            }
        }
        for (number, answer) in done {
            if let Some(waiter) = waiting.remove(&number) {
                // Whoever went away in the meantime does not hear it.
                let _gone = waiter.answer.send(answer);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
