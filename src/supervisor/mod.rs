//! The supervisor: owns every task, the connection budget and the published status.
//!
//! **Promise.** Any number of subscriptions on a fixed number of connections: one watcher, one clerk, W workers. One that
//! fails, hangs or halts holds up no other. PostgreSQL may go away and come back at any moment.
//!
//! **How.** The `watcher` looks at the log once per tick for everybody and wakes who is concerned. The `roster` is a fair
//! queue; the `workers` take turns from it, one batch a turn. The `clerk` publishes the `board` once a second and
//! runs the `errands`: what operators did, and which leases to take and to give back, as the plan of `spread` says; and lets
//! versions take each other's place (`succession`). Watcher
//! and clerk both renew the lease, each on its own connection, so that no slow statement of one of them costs it. Each has
//! an outer loop that reconnects with backoff and an inner session that ends at the first error.
//!
//! **Draining.** Not ready any more; the token is cancelled; no new turn begins; what is not in hand is given back at once,
//! and what is when its batch has committed; past the deadline, batches are cut off and roll back; the last leases are
//! released; everybody ends.
//!
//! **Coming and going.** When a projection was split anew by another process, or a version of it begins or ends, that
//! projection alone is prepared anew (`preparing`), and the `crew` takes in who is new and lets go who is gone; all others keep
//! lease and seat. A cut-over changes nothing here: subscriptions keep their names, and batches find their tables by OID.
//!
//! **What it never does.** Nobody but this folder spawns a task. No wake-up carries data; polling is underneath.

pub(crate) mod board;
mod clerk;
pub(crate) mod connector;
mod crew;
mod errands;
mod preparing;
mod roster;
mod spread;
mod stall;
mod succession;
mod watcher;
mod workers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::run::{Subscription, Terms};
use crate::error::EventStoreError;
use crate::ledger::status::Status;
use crate::metrics::{self, ConnectionRole, StoreMetrics};
use crate::projection::Projection;
use crate::store::Limits;
use board::Board;
use connector::{ConnectError, Connector};
use crew::Crew;
use errands::Errands;
use preparing::{Opened, Preparing};
use roster::{LastMost, Roster};
use watcher::Interests;

/// How often a draining daemon looks whose batch has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What a daemon needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) terms: Terms,
    pub(crate) workers: usize,
    /// How many builds have a batch at the same time while live projections have work.
    pub(crate) builds: usize,
    /// The longest pause between two looks at the log.
    pub(crate) poll_interval: Duration,
    /// How long batches in hand may take to finish when the process is to end.
    pub(crate) drain_timeout: Duration,
    /// How long discarded dead letters are kept.
    pub(crate) dead_letter_retention: Duration,
}

/// Whether this process can do its work, and why not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The schema is the one this program needs.
    pub(crate) migrated: bool,
    /// The clerk has a connection.
    pub(crate) database: bool,
    /// The process is about to end.
    pub(crate) draining: bool,
}

/// What the faces see of a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) readiness: watch::Receiver<Readiness>,
    /// The last status and when it was read; `None` before the first one.
    pub(crate) status: watch::Receiver<Option<(Instant, Arc<Status>)>>,
    /// Notified by whoever looks at the status: it is refreshed only while somebody does.
    pub(crate) wanted: Arc<Notify>,
}

/// Why a daemon ended, other than by request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    /// There is no connection, and waiting will not help.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The log cannot be read without losing events, or the database refused, and waiting will not help.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

impl SupervisorError {
    /// What to do about it, where that is known.
    pub(crate) fn remedy(&self) -> Option<&str> {
        match self {
            Self::Connect(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
        }
    }
}

/// What the tasks of one daemon share.
pub(crate) struct Daemon {
    connector: Connector,
    terms: Terms,
    poll_interval: Duration,
    dead_letter_retention: Duration,
    board: Board,
    /// When the lease was last renewed, by this process's own clock: it may only shorten trust.
    renewed: Mutex<Option<Instant>>,
    readiness: watch::Sender<Readiness>,
    wanted: Arc<Notify>,
    /// What this process can run, once it is prepared.
    hosts: Mutex<Option<Vec<String>>>,
    /// Set when the process begins to leave: what is still in hand, the rest is given back at once.
    leave: Mutex<Option<Vec<String>>>,
    /// Open connections by role.
    open: [AtomicUsize; 4],
}

/// A daemon that has not started yet.
pub(crate) struct Supervisor {
    daemon: Arc<Daemon>,
    workers: usize,
    builds: usize,
    drain_timeout: Duration,
    status: watch::Sender<Option<(Instant, Arc<Status>)>>,
}

impl Supervisor {
    /// A supervisor, and what the faces may see of it.
    pub(crate) fn new(settings: Settings, connector: Connector) -> (Self, Published) {
        let (readiness, readiness_seen) = watch::channel(Readiness::default());
        let (status, status_seen) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        wanted.notify_one();
        let daemon = Arc::new(Daemon {
            connector,
            terms: settings.terms,
            poll_interval: settings.poll_interval,
            dead_letter_retention: settings.dead_letter_retention,
            board: Board::default(),
            renewed: Mutex::new(None),
            readiness,
            wanted: Arc::clone(&wanted),
            hosts: Mutex::default(),
            leave: Mutex::default(),
            open: Default::default(),
        });
        let published = Published { readiness: readiness_seen, status: status_seen, wanted };
        let Settings { workers, builds, drain_timeout, .. } = settings;
        (Self { daemon, workers, builds, drain_timeout, status }, published)
    }

    /// Says that the schema is as it must be.
    pub(crate) fn migrated(&self) {
        self.daemon.readiness(|readiness| readiness.migrated = true);
    }

    /// Runs until cancelled, then drains.
    ///
    /// # Errors
    /// At the start, when the database cannot be used, and waiting will not help. Later only when going on would lose
    /// events: the log was restored into a younger cluster.
    pub(crate) async fn run(
        self,
        projections: &[Projection],
        cancel: CancellationToken,
    ) -> Result<(), SupervisorError> {
        let daemon = &self.daemon;
        // Builds have at most half of the workers, and only what live projections leave.
        let alone = (self.workers / 2).max(1);
        let roster = Arc::new(Roster::new(LastMost { alone, beside: self.builds.min(alone) }));
        let interests = Arc::new(Interests::default());
        let crew = Arc::new(Crew::new(Arc::clone(daemon), Arc::clone(&roster), Arc::clone(&interests)));
        let preparing = Arc::new(Preparing::new(projections));
        let opened = cancel.run_until_cancelled(preparing.open(daemon, &crew)).await;
        let Some(opened) = opened else { return Ok(()) };
        let Opened { conn, last_entry } = opened?;
        tracing::info!(
            projections = crew.names().len(),
            unprepared = preparing.failures(),
            workers = self.workers,
            "daemon started"
        );
        let names = projections.iter().map(|projection| projection.name.clone());
        let errands = Errands::new(daemon.terms.replica.id, Arc::clone(&crew), names, last_entry);
        let (views, views_seen) = watch::channel(None);
        let (books, workers) = (TaskTracker::new(), TaskTracker::new());
        let close = CancellationToken::new();
        books.spawn(watcher::watch(Arc::clone(daemon), Arc::clone(&roster), interests, views, close.clone()));
        let drain = cancel.child_token();
        let (alarm, mut alarms) = mpsc::channel(1);
        let desk = clerk::Desk {
            daemon: Arc::clone(daemon),
            preparing,
            crew: Arc::clone(&crew),
            errands,
            metrics: StoreMetrics::new(),
            views: views_seen.clone(),
            status: self.status.clone(),
            close: close.clone(),
            alarm,
        };
        books.spawn(clerk::keep(desk, conn));
        let mut hands = Vec::new();
        for _ in 0..self.workers {
            let work =
                workers::work(Arc::clone(daemon), Arc::clone(&roster), views_seen.clone(), drain.clone());
            hands.push(workers.spawn(work).abort_handle());
        }
        workers.close();
        books.close();

        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            error = alarms.recv() => error.map_or(Ok(()), |error| Err(error.into())),
        };
        tracing::info!("draining");
        // Not ready before the first lease goes.
        daemon.readiness(|readiness| readiness.draining = true);
        drain.cancel();
        let drained = daemon.drained(&roster, &crew, &workers);
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            tracing::warn!(after = ?self.drain_timeout, "batches still in hand are cut off and roll back");
            hands.iter().for_each(tokio::task::AbortHandle::abort);
            workers.wait().await;
        }
        close.cancel();
        books.wait().await;
        ended
    }
}

impl Daemon {
    /// The limits of every session: below the lease time, so that a stopped process holds nothing for longer.
    fn limits(&self) -> Limits {
        let terms = &self.terms;
        Limits {
            statement: terms.batch_timeout,
            lock: terms.batch_timeout / 2,
            idle_in_transaction: terms.replica.lease / 2,
        }
    }

    /// Until when this process may believe that it holds what it took.
    fn trusted_until(&self) -> Instant {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.map_or_else(Instant::now, |renewed| renewed + self.terms.replica.lease)
    }

    fn trust_from(&self, asked: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    fn renewed_within(&self, age: Duration) -> bool {
        self.renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|renewed| renewed.elapsed() < age)
    }

    fn opened(&self, role: ConnectionRole) {
        metrics::connections(role, self.open[role as usize].fetch_add(1, Ordering::Relaxed) + 1);
    }

    fn closed(&self, role: ConnectionRole) {
        metrics::connections(role, self.open[role as usize].fetch_sub(1, Ordering::Relaxed) - 1);
    }

    fn hosts(&self) -> Option<Vec<String>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_hosts(&self, hosts: &[String]) {
        *self.hosts.lock().unwrap_or_else(PoisonError::into_inner) = Some(hosts.to_vec());
    }

    fn is_draining(&self) -> bool {
        self.readiness.borrow().draining
    }

    /// Waits until no batch is in hand any more. What is not is given back at once, and what is when its batch has ended, not
    /// with the last of all.
    async fn drained(&self, roster: &Roster, crew: &Crew, workers: &TaskTracker) {
        let mut in_hand = roster.drain(Subscription::drain);
        self.leave(crew.on(&in_hand));
        while tokio::time::timeout(DRAIN_LOOK, workers.wait()).await.is_err() {
            let still = roster.drain(Subscription::drain);
            if still.len() < in_hand.len() {
                self.leave(crew.on(&still));
                in_hand = still;
            }
        }
    }

    /// Has everything given back at once that is not in hand.
    fn leave(&self, in_hand: Vec<String>) {
        *self.leave.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_hand);
    }

    fn take_leave(&self) -> Option<Vec<String>> {
        self.leave.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn readiness(&self, change: impl FnOnce(&mut Readiness)) {
        self.readiness.send_modify(change);
    }
}
