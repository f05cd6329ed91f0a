//! The daemon: where configuration, database, supervisor and faces meet.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::cli::args::Run;
use crate::cli::{Failure, catalog};
use crate::config::{self, Loaded, Migrate, connect_options, masked_url};
use crate::embedded::{self, Server};
use crate::engine::run::Terms;
use crate::error::{EventStoreError, chain, with_remedy};
use crate::ledger::lease::Replica;
use crate::metrics;
use crate::ops;
use crate::projection::Projection;
use crate::projection::handler::Registry;
use crate::store::{self, Source};
use crate::supervisor::connector::Connector;
use crate::supervisor::{self, Settings, Supervisor};

/// Where `run --embedded` keeps its data when nobody says otherwise.
const DEFAULT_DATA_DIR: &str = "foldd-data";
/// How often histograms are tidied; they grow for ever otherwise.
const UPKEEP: Duration = Duration::from_secs(5);
/// The exit code after a second signal, as shells give it for an interrupt.
const EXIT_ON_SIGNAL: i32 = 130;

/// What a daemon serves, once everything that can be wrong with the command line has been checked.
pub(crate) struct Plan {
    pub(crate) projections: Vec<Projection>,
    pub(crate) daemon: config::Daemon,
    /// Asked anew for every connection.
    pub(crate) database: Database,
    pub(crate) listener: TcpListener,
    /// What the verbs of the HTTP side want to see.
    pub(crate) token: ops::TokenSource,
    /// Every value that is in force, secrets masked.
    pub(crate) configuration: Arc<Vec<serde_json::Value>>,
}

/// Where the database is.
#[derive(Clone)]
pub(crate) enum Database {
    /// As configured; a file with the address is read again each time.
    Configured(Arc<Loaded>),
    /// A server of our own.
    Own(SecretString),
}

impl Database {
    fn url(&self) -> Result<SecretString, Failure> {
        match self {
            Self::Configured(loaded) => Ok(loaded.database_url()?),
            Self::Own(url) => Ok(url.clone()),
        }
    }

    /// How to connect now.
    pub(crate) fn options(&self) -> Result<PgConnectOptions, Failure> {
        Ok(connect_options(&self.url()?)?)
    }
}

/// `foldd run`.
pub(crate) async fn run(args: &Run, loaded: Loaded, registry: &Registry) -> Result<(), Failure> {
    let loaded = Arc::new(loaded);
    let projections = catalog::projections(&loaded, registry)?;
    if !args.embedded {
        // Refuses, with the remedy, when nothing names a database.
        loaded.database_url()?;
    }
    ops::raise_places();
    // A token that is none is found now, not when somebody needs it.
    loaded.ops_token()?;
    let listener = bind(loaded.config.ops.listen).await?;
    let server = if args.embedded { Some(start_own(args.data_dir.clone(), &loaded).await?) } else { None };
    let database = match &server {
        Some(server) => Database::Own(SecretString::from(server.url("postgres"))),
        None => Database::Configured(Arc::clone(&loaded)),
    };
    let configuration = Arc::new(loaded.show_entries());
    let daemon = loaded.config.daemon.clone();
    let token: ops::TokenSource = Arc::new(move || loaded.ops_token().map_err(|error| error.to_string()));
    let plan = Plan { projections, daemon, database, listener, token, configuration };
    let outcome = serve(plan, CancellationToken::new(), std::future::ready(())).await;
    stop_own(server).await;
    outcome
}

async fn start_own(data_dir: Option<PathBuf>, loaded: &Loaded) -> Result<Server, Failure> {
    let data_dir = data_dir
        .or_else(|| loaded.config.embedded.data_dir.clone())
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    tracing::info!(data_dir = %data_dir.display(), "starting a PostgreSQL of our own");
    let options = embedded::Options { data_dir: Some(data_dir), durable: true, settings: Vec::new() };
    let server = Server::start(options).await.map_err(|error| Failure::Failed(chain(&error)))?;
    tracing::info!("other verbs reach it with DATABASE_URL='{}'", server.url("postgres"));
    Ok(server)
}

pub(crate) async fn stop_own(server: Option<Server>) {
    if let Some(server) = server
        && let Err(error) = server.stop().await
    {
        tracing::warn!("PostgreSQL did not stop cleanly: {}", chain(&error));
    }
}

/// Runs supervisor and faces until a signal comes or `cancel` is cancelled, then drains. `beside` runs along once the
/// schema is there, and is dropped when draining begins.
pub(crate) async fn serve(
    plan: Plan,
    cancel: CancellationToken,
    beside: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let exporter = metrics::install().map_err(|error| Failure::Failed(chain(&error)))?;
    let (supervisor, published) = Supervisor::new(settings(&plan.daemon), connector(&plan.database));
    let faces_end = CancellationToken::new();
    let (readiness, readiness_seen) = watch::channel(ops::Readiness::default());
    let faces = ops::Faces {
        connector: connector(&plan.database),
        token: plan.token,
        configuration: plan.configuration,
        metrics: exporter.clone(),
        readiness: readiness_seen,
        status: published.status,
        wanted: published.wanted,
    };
    let faces = async {
        if let Err(error) = ops::serve(plan.listener, faces, faces_end.clone()).await {
            tracing::error!("the HTTP port failed: {error}");
        }
    };
    let reporting = report_readiness(published.readiness, readiness);
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            exporter.run_upkeep();
        }
    };
    let working = async {
        let _end = faces_end.clone().drop_guard();
        let Some(migrated) = cancel.run_until_cancelled(migrate(&plan.database, plan.daemon.migrate)).await
        else {
            return Ok(());
        };
        migrated?;
        supervisor.migrated();
        let running = async {
            let outcome = supervisor.run(&plan.projections, cancel.clone()).await;
            cancel.cancel();
            outcome
        };
        let beside = cancel.run_until_cancelled(beside);
        let (outcome, _) = tokio::join!(running, beside);
        outcome.map_err(|error| Failure::Failed(with_remedy(chain(&error), error.remedy())))
    };
    tokio::select! {
        (outcome, ()) = async { tokio::join!(working, faces) } => outcome,
        () = async { tokio::join!(upkeep, reporting); } => Ok(()),
        failed = on_signals(&cancel) => Err(failed),
    }
}

/// Opens the port that the configuration names.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    ops::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("{}; {}", chain(&error), error.remedy())))
}

/// Tells the faces what the supervisor says, in their words. Never returns.
async fn report_readiness(
    mut told: watch::Receiver<supervisor::Readiness>,
    readiness: watch::Sender<ops::Readiness>,
) {
    loop {
        let now = *told.borrow_and_update();
        let failed =
            |reason: &str, remedy: &str| ops::Check::Failed { reason: reason.into(), remedy: remedy.into() };
        readiness.send_replace(ops::Readiness {
            configuration: ops::Check::Passed,
            migrations: if now.migrated {
                ops::Check::Passed
            } else {
                failed("the schema is not up to date yet", "see the log; `foldd migrate` does it by hand")
            },
            database: if now.database {
                ops::Check::Passed
            } else {
                failed("there is no connection", "see whether PostgreSQL is up; it is tried again by itself")
            },
            draining: now.draining,
        });
        if told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The first signal drains, the second one ends the process at once. Returns only when signals cannot be heard.
async fn on_signals(cancel: &CancellationToken) -> Failure {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                return Failure::Failed(format!("cannot listen for signals: {error}"));
            }
        };
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if cancel.is_cancelled() {
            std::process::exit(EXIT_ON_SIGNAL);
        }
        cancel.cancel();
    }
}

/// Brings the schema up to date, or waits until it can: a database that is not there yet is no reason to end.
async fn migrate(database: &Database, how: Migrate) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    loop {
        let error = match migrate_once(database, how).await? {
            Ok(()) => return Ok(()),
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error.into()),
        };
        let wait = backoff.next();
        let url = masked_url(database.url()?.expose_secret());
        tracing::warn!(database = url, retry_in = ?wait, "the database is not ready: {}", with_remedy(chain(&error), error.remedy()));
        tokio::time::sleep(wait).await;
    }
}

async fn migrate_once(database: &Database, how: Migrate) -> Result<Result<(), EventStoreError>, Failure> {
    let options = database.options()?.application_name("foldd migrate");
    let source = Source::Address(Box::new(options));
    Ok(match how {
        Migrate::OnStart => store::migrate(&source).await.map(|_| ()),
        Migrate::Verify => verify(&source).await,
    })
}

async fn verify(source: &Source) -> store::Result<()> {
    let mut conn = source.link().await?;
    store::require_current(&mut conn).await?;
    store::require_sound(&mut conn).await
}

fn connector(database: &Database) -> Connector {
    let database = database.clone();
    Connector::new(move || database.options().map_err(|failure| failure.report().1.to_owned()))
}

/// The daemon's section of the configuration, as the supervisor takes it.
pub(crate) fn settings(daemon: &config::Daemon) -> Settings {
    Settings {
        terms: Terms {
            replica: Replica { id: Uuid::new_v4(), host: host_name(), lease: daemon.lease },
            live_batch: daemon.live_batch,
            catch_up_batch: daemon.catch_up_batch,
            batch_timeout: daemon.batch_timeout,
            max_page_events: i64::from(daemon.max_page_events),
            max_page_bytes: i64::from(daemon.max_page_bytes),
            floor: tokio::sync::RwLock::default(),
        },
        workers: daemon.workers,
        builds: daemon.builds,
        poll_interval: daemon.poll_interval,
        drain_timeout: daemon.drain_timeout,
        dead_letter_retention: daemon.dead_letter_retention,
    }
}

/// The host's name, for people; in Kubernetes it is the pod's.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
