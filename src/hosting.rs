//! The daemon inside a service: the same supervisor, without command line, configuration files and HTTP.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::cli::catalog;
use crate::config;
use crate::daemon::settings;
use crate::error::EventStoreError;
use crate::projection::handler::Registry;
use crate::store::{Source, migrate};
use crate::supervisor::Supervisor;
use crate::supervisor::connector::Connector;

/// The daemon, for a service that hosts it itself.
///
/// Runs until its token is cancelled, then drains: batches in hand commit or roll back, leases are given back. Opens
/// connections of its own with the pool's options, two and one per worker; so it never waits for the service's requests,
/// nor they for it. Records metrics with whatever recorder the service has installed.
///
/// ```no_run
/// # async fn example(pool: sqlx::PgPool, registry: foldd::Registry) -> Result<(), foldd::DaemonError> {
/// let cancel = tokio_util::sync::CancellationToken::new();
/// let daemon = foldd::Daemon::new(registry).workers(2);
/// tokio::spawn(daemon.run(pool.clone(), cancel.clone()));
/// // serve requests, and at the end:
/// cancel.cancel();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Daemon {
    registry: Registry,
    files: Vec<(String, String)>,
    settings: config::Daemon,
}

/// Why a hosted daemon ended, other than by request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Projections are wrong: one line for each fault, with its place and what to do.
    #[error("{}", .0.join("\n"))]
    Projections(Vec<String>),
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date")]
    Schema(#[from] EventStoreError),
    /// The database refused, and waiting will not help.
    #[error("the database cannot be used: {0}")]
    Database(String),
}

impl Daemon {
    /// A daemon for these Rust projections.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, files: Vec::new(), settings: config::Daemon::default() }
    }

    /// Adds an SQL projection: its name, and the text of its file.
    #[must_use]
    pub fn with_sql(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// How many batches run at once, each on a connection of its own; 4 unless said otherwise, at least 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers.max(1);
        self
    }

    /// How long this process keeps its subscriptions after it fell silent; 10 s unless said otherwise, at least 1 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// How many events a page has at most; 2,000,000 unless said otherwise, at least 1. A Rust handler gets a
    /// page whole, so this bounds its memory. Pages begin small and grow only while that is faster.
    #[must_use]
    pub fn max_page_events(mut self, events: u32) -> Self {
        self.settings.max_page_events = events.max(1);
        self
    }

    /// Brings the schema up to date, then folds until cancelled.
    ///
    /// # Errors
    /// At the start only: when a projection is wrong or the database cannot be used. Once it runs, it reconnects by itself.
    pub async fn run(self, pool: PgPool, cancel: CancellationToken) -> Result<(), DaemonError> {
        let files = self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let projections = catalog::brought_along(&self.registry, files).map_err(DaemonError::Projections)?;
        migrate(&Source::Address(Box::new((*pool.connect_options()).clone()))).await?;
        let connector = Connector::new(move || Ok((*pool.connect_options()).clone()));
        let (supervisor, _published) = Supervisor::new(settings(&self.settings), connector);
        supervisor.migrated();
        supervisor
            .run(&projections, cancel)
            .await
            .map_err(|error| DaemonError::Database(crate::error::chain(&error)))
    }
}
