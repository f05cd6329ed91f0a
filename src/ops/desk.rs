//! The desk: the few connections that the faces use, opened when somebody asks and closed when nobody does.
//!
//! One to look, one to act, one for everybody who waits. Whoever finds one in use stands in line: a client that floods the
//! port costs the database one statement at a time, and the daemon's own connections nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::problem::Problem;
use crate::error::{chain, with_remedy};
use crate::metrics::{self, ConnectionRole};
use crate::store::{Limits, Link};
use crate::supervisor::connector::Connector;

/// A connection that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// How often idle ones are looked for.
const ROUND: Duration = Duration::from_secs(20);
/// How long a verb waits for the batch in hand.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Below the time that an answer may take, so that the reason comes from the database.
const LIMITS: Limits = Limits {
    statement: Duration::from_secs(8),
    lock: Duration::from_secs(8),
    idle_in_transaction: Duration::from_secs(5),
};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Dead letters, the log, definitions.
    Looking,
    /// Verbs.
    Acting,
    /// The shared look of all who wait.
    Waiting,
}

/// The connections.
pub(crate) struct Desk {
    connector: Connector,
    links: [Mutex<Option<Kept>>; 3],
    open: AtomicUsize,
}

struct Kept {
    link: Link<'static>,
    used: Instant,
}

/// Ends the unit of a refused verb now: dropped, it would hold its locks until the connection's next use.
async fn settle(link: &mut Link<'static>) -> sqlx::Result<()> {
    link.begin().await?.rollback().await
}

/// Counts an open connection for as long as it is.
struct Counted<'d>(&'d Desk);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        metrics::connections(ConnectionRole::Faces, self.0.open.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// A connection in use.
pub(super) struct Held<'d> {
    place: MutexGuard<'d, Option<Kept>>,
    link: Link<'static>,
    counted: Counted<'d>,
}

impl Held<'_> {
    pub(super) fn link(&mut self) -> &mut Link<'static> {
        &mut self.link
    }

    /// Gives it back. One on which the database failed is closed.
    pub(super) async fn back<T, E: Into<Problem>>(mut self, done: Result<T, E>) -> Result<T, Problem> {
        let done = done.map_err(Into::into);
        if let Err(problem) = &done
            && (problem.status == StatusCode::SERVICE_UNAVAILABLE || settle(&mut self.link).await.is_err())
        {
            return done;
        }
        let Held { mut place, link, counted } = self;
        std::mem::forget(counted);
        *place = Some(Kept { link, used: Instant::now() });
        done
    }
}

impl Desk {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, links: Default::default(), open: AtomicUsize::new(0) }
    }

    /// A connection, as soon as nobody else uses it. To be given [`back`](Held::back) with what came of it; one whose user
    /// went away in the middle is closed.
    pub(super) async fn take(&self, what: Use) -> Result<Held<'_>, Problem> {
        let mut place = self.links[what as usize].lock().await;
        if let Some(Kept { link, .. }) = place.take() {
            return Ok(Held { place, link, counted: Counted(self) });
        }
        let link = self.connector.connect("faces", LIMITS).await.map_err(|error| {
            let message = with_remedy(chain(&error), error.remedy());
            tracing::warn!("the faces have no connection: {message}");
            Problem::NO_DATABASE
        })?;
        metrics::connections(ConnectionRole::Faces, self.open.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Held { place, link, counted: Counted(self) })
    }

    /// Closes what nobody uses. Never returns.
    pub(super) async fn tidy(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            for place in &self.links {
                let Ok(mut place) = place.try_lock() else { continue };
                if let Some(kept) = place.take_if(|kept| kept.used.elapsed() >= IDLE) {
                    let _counted = Counted(self);
                    kept.link.close().await;
                }
            }
        }
    }
}
