//! What is to run here, brought about in the database: everything at the start, and later one projection at a time, when
//! somebody began a version of it, ended one or split it anew. All others work on meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::board::Unprepared;
use super::clerk::beat;
use super::crew::Crew;
use super::{Daemon, SupervisorError};
use crate::backoff::Backoff;
use crate::engine::build::{BuildError, Prepared, Split, prepare};
use crate::error::{chain, with_remedy};
use crate::ledger::phases::Trouble;
use crate::ledger::{deeds, lease, phases};
use crate::projection::Projection;
use crate::store::{self, Link};

/// How often it is tried again to lay out what failed for a reason that may pass, such as a full disk.
const AGAIN: Duration = Duration::from_secs(5);

/// What a daemon begins with.
pub(super) struct Opened {
    /// The connection to go on with.
    pub(super) conn: Link<'static>,
    /// The last thing that an operator did before any lease was taken.
    pub(super) last_entry: i64,
}

/// The configured projections, which of them cannot be prepared, and which are to be prepared anew.
pub(super) struct Preparing {
    projections: Vec<Projection>,
    /// By the projection's name.
    unprepared: Mutex<BTreeMap<String, Unprepared>>,
    due: Mutex<BTreeMap<String, Due>>,
    /// Whose published lines are to be forgotten: they may have been published once more after their end.
    gone: Mutex<Vec<String>>,
}

/// A projection that is to be prepared anew.
#[derive(Debug, Clone, Copy)]
struct Due {
    split: Split,
    at: Instant,
}

impl Preparing {
    /// Of nothing yet.
    pub(super) fn new(projections: &[Projection]) -> Self {
        Self {
            projections: projections.to_vec(),
            unprepared: Mutex::default(),
            due: Mutex::default(),
            gone: Mutex::default(),
        }
    }

    /// Connects, registers this replica and prepares every projection; tries until it is done or cancelled.
    pub(super) async fn open(&self, daemon: &Daemon, crew: &Crew) -> Result<Opened, SupervisorError> {
        let mut backoff = Backoff::default();
        loop {
            let error = match daemon.connector.connect("clerk", daemon.limits()).await {
                Ok(mut conn) => match self.all(&mut conn, daemon, crew).await {
                    Ok(last_entry) => return Ok(Opened { conn, last_entry }),
                    Err(error) if error.is_retryable() => with_remedy(chain(&error), error.remedy()),
                    Err(error) => return Err(error.into()),
                },
                Err(error) if error.may_pass() => with_remedy(chain(&error), error.remedy()),
                Err(error) => return Err(error.into()),
            };
            let wait = backoff.next();
            tracing::warn!(retry_in = ?wait, "cannot open the books: {error}");
            tokio::time::sleep(wait).await;
        }
    }

    async fn all(&self, conn: &mut Link<'_>, daemon: &Daemon, crew: &Crew) -> store::Result<i64> {
        store::settle(conn).await?;
        // From before the first is prepared: what somebody does meanwhile is followed, and what this process does is known.
        let last_entry = deeds::last(conn).await?;
        beat(conn, daemon).await?;
        for projection in &self.projections {
            self.one(conn, daemon, crew, projection, Split::AsConfigured).await?;
            beat(conn, daemon).await?;
        }
        let unbuilt: Vec<String> =
            self.unprepared().values().map(|line| line.projection_id.clone()).collect();
        phases::forget_others(conn, &unbuilt).await?;
        self.made_known(conn, daemon, crew).await?;
        Ok(last_entry)
    }

    /// Has a projection prepared anew.
    pub(super) fn outdated(&self, name: &str) {
        let mut due = self.due();
        // What this process was to bring about at its start, it still is.
        let split = due.get(name).map_or(Split::AsFound, |due| due.split);
        due.insert(name.to_owned(), Due { split, at: Instant::now() });
    }

    /// Prepares what is due. What is not done when this fails stays due.
    pub(super) async fn pursue(&self, conn: &mut Link<'_>, daemon: &Daemon, crew: &Crew) -> sqlx::Result<()> {
        let now = Instant::now();
        let due: Vec<(String, Due)> = self
            .due()
            .iter()
            .filter(|(_, due)| due.at <= now)
            .map(|(name, due)| (name.clone(), *due))
            .collect();
        for (name, due) in &due {
            match self.projections.iter().find(|projection| projection.name == *name) {
                Some(projection) => self.one(conn, daemon, crew, projection, due.split).await?,
                None => drop(self.due().remove(name)),
            }
        }
        if due.is_empty() { Ok(()) } else { self.made_known(conn, daemon, crew).await }
    }

    /// Prepares one projection and takes up what it has.
    ///
    /// # Errors
    /// When the connection or the server fails; what the server refuses for a while is tried again later.
    async fn one(
        &self,
        conn: &mut Link<'_>,
        daemon: &Daemon,
        crew: &Crew,
        projection: &Projection,
        split: Split,
    ) -> sqlx::Result<()> {
        let name = &projection.name;
        let id = format!("{name}@{}", projection.version);
        let prepared = match prepare(conn, projection, split, daemon.terms.replica.id).await {
            Ok(prepared) => prepared,
            Err(BuildError::Database(error)) if crate::error::is_outage(&error) => return Err(error),
            Err(error) => {
                let may_pass = error.may_pass();
                Prepared { ready: Vec::new(), unbuilt: Some((id, error.trouble())), may_pass }
            }
        };
        if let Some(notice) = prepared.ready.iter().find_map(|ready| ready.notice.as_ref()) {
            tracing::warn!(projection = name, remedy = notice.remedy, "{}", notice.message);
        }
        let line = prepared.unbuilt.map(|(projection_id, trouble)| Unprepared { projection_id, trouble });
        let mut gone: Vec<String> = self.tell(name, line).into_iter().collect();
        // What could not even be looked at goes on as it was.
        if !prepared.ready.is_empty() || !prepared.may_pass {
            gone.append(&mut crew.take_up(name, prepared.ready));
        }
        self.gone().append(&mut gone);
        if prepared.may_pass {
            self.due().insert(name.clone(), Due { split, at: Instant::now() + AGAIN });
        } else {
            self.due().remove(name);
        }
        Ok(())
    }

    /// Notes what cannot be built, and says so once. Returns what can be now.
    fn tell(&self, name: &str, line: Option<Unprepared>) -> Option<String> {
        let mut unprepared = self.unprepared();
        let Some(line) = line else {
            return unprepared.remove(name).map(|mended| mended.projection_id);
        };
        let Trouble { message, remedy, place, .. } = &line.trouble;
        if unprepared.get(name).is_none_or(|before| before.trouble.message != *message) {
            tracing::error!(projection = line.projection_id, place, remedy, "cannot be built: {message}");
        }
        unprepared.insert(name.to_owned(), line);
        None
    }

    /// Publishes what runs here, and what cannot.
    async fn made_known(&self, conn: &mut Link<'_>, daemon: &Daemon, crew: &Crew) -> sqlx::Result<()> {
        let gone = self.gone().clone();
        phases::forget(conn, &gone).await?;
        self.gone().clear();
        self.publish(conn).await?;
        let hosts = crew.names();
        daemon.set_hosts(&hosts);
        lease::register(conn, &daemon.terms.replica, Some(&hosts)).await
    }

    /// Publishes what cannot be built.
    pub(super) async fn publish(&self, conn: &mut Link<'_>) -> sqlx::Result<()> {
        let lines: Vec<_> = self.unprepared().values().map(Unprepared::published).collect();
        if lines.is_empty() { Ok(()) } else { phases::publish(conn, &lines).await }
    }

    /// How many projections cannot be built.
    pub(super) fn failures(&self) -> usize {
        self.unprepared().len()
    }

    fn unprepared(&self) -> MutexGuard<'_, BTreeMap<String, Unprepared>> {
        self.unprepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> MutexGuard<'_, Vec<String>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> MutexGuard<'_, BTreeMap<String, Due>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
