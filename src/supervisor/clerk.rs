//! The clerk: keeps the books on one connection. Prepares projections, renews the lease, publishes the board.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::board::Unprepared;
use crate::backoff::Backoff;
use crate::engine::backlog::View;
use crate::engine::build::{BuildError, Ready, prepare};
use crate::error::{chain, told, with_remedy};
use crate::ledger::status::{LagSource, Status};
use crate::ledger::{lease, phases, status};
use crate::metrics::{ConnectionRole, StoreMetrics};
use crate::projection::Projection;
use crate::store::{self, BlockerCause};

/// How often the board is published.
const EDITION: Duration = Duration::from_secs(1);
/// From this horizon age on, blockers are named.
const BLOCKED: Duration = Duration::from_secs(1);
/// An edition that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Connects, registers this replica and prepares every projection; tries until it is done or cancelled.
///
/// Returns the connection to go on with, what can run, and what cannot.
pub(crate) async fn open(
    daemon: &Daemon,
    projections: &[Projection],
) -> Result<(PgConnection, Vec<Ready>, Vec<Unprepared>), super::SupervisorError> {
    let mut backoff = Backoff::default();
    loop {
        let error = match daemon.connector.connect("clerk", Some(daemon.limits())).await {
            Ok(mut conn) => match prepare_all(&mut conn, daemon, projections).await {
                Ok((ready, unprepared)) => return Ok((conn, ready, unprepared)),
                Err(error) if crate::error::is_transient(&error) => told(&error),
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

async fn prepare_all(
    conn: &mut PgConnection,
    daemon: &Daemon,
    projections: &[Projection],
) -> sqlx::Result<(Vec<Ready>, Vec<Unprepared>)> {
    beat(conn, daemon, false).await?;
    let (mut ready, mut unprepared) = (Vec::new(), Vec::new());
    for projection in projections {
        match prepare(conn, projection).await {
            Ok(prepared) => {
                if let Some(notice) = &prepared.notice {
                    tracing::warn!(
                        projection = projection.name,
                        remedy = notice.remedy,
                        "{}",
                        notice.message
                    );
                }
                ready.push(prepared);
            }
            Err(BuildError::Database(error)) if crate::error::is_transient(&error) => return Err(error),
            Err(error) => {
                let trouble = error.trouble();
                tracing::error!(
                    projection = projection.name,
                    place = trouble.place,
                    remedy = trouble.remedy,
                    "cannot be built: {}",
                    trouble.message
                );
                let projection_id = format!("{}@{}", projection.name, projection.version);
                unprepared.push(Unprepared { projection_id, trouble });
            }
        }
        beat(conn, daemon, false).await?;
    }
    let known: Vec<&str> = unprepared.iter().map(|line| line.projection_id.as_str()).collect();
    phases::forget_others(conn, &known).await?;
    Ok((ready, unprepared))
}

/// Renews the lease when a third of it has passed. Trust is counted from before the question was sent.
async fn beat(conn: &mut PgConnection, daemon: &Daemon, draining: bool) -> sqlx::Result<()> {
    if !draining && daemon.renewed_within(daemon.terms.replica.lease / 3) {
        return Ok(());
    }
    let asked = Instant::now();
    lease::heartbeat(conn, &daemon.terms.replica, draining).await?;
    daemon.trust_from(asked);
    Ok(())
}

/// What the clerk works with beside its connection.
pub(crate) struct Desk {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) unprepared: Vec<Unprepared>,
    pub(crate) metrics: StoreMetrics,
    pub(crate) views: watch::Receiver<Option<Arc<View>>>,
    pub(crate) status: watch::Sender<Option<(Instant, Arc<Status>)>>,
    /// Cancelled when the workers are done: the last thing is to sign off.
    pub(crate) close: CancellationToken,
    /// Cancelled when draining begins.
    pub(crate) drain: CancellationToken,
}

/// Keeps the books until closed, then gives every lease back and signs off.
pub(crate) async fn keep(desk: Desk, mut conn: PgConnection) {
    let mut backoff = Backoff::default();
    loop {
        desk.daemon.opened(ConnectionRole::Leases);
        desk.daemon.readiness(|readiness| readiness.database = true);
        desk.daemon.board.forget_published();
        let ended = desk.close.run_until_cancelled(session(&desk, &mut conn, &mut backoff)).await;
        desk.daemon.closed(ConnectionRole::Leases);
        let Some(error) = ended else {
            sign_off(&desk, conn).await;
            return;
        };
        desk.daemon.readiness(|readiness| readiness.database = false);
        tracing::warn!("the clerk lost its connection: {error}");
        conn = loop {
            let wait = tokio::time::sleep(backoff.next());
            if desk.close.run_until_cancelled(wait).await.is_none() {
                return;
            }
            match desk.daemon.connector.connect("clerk", Some(desk.daemon.limits())).await {
                Ok(conn) => break conn,
                Err(error) => {
                    tracing::warn!("the clerk cannot connect: {}", with_remedy(chain(&error), error.remedy()))
                }
            }
        };
    }
}

/// One honest session: an edition a second and a heartbeat in time, until something fails.
async fn session(desk: &Desk, conn: &mut PgConnection, backoff: &mut Backoff) -> String {
    let mut last = Instant::now();
    let unprepared: Vec<_> = desk.unprepared.iter().map(Unprepared::published).collect();
    if !unprepared.is_empty()
        && let Err(error) = phases::publish(conn, &unprepared).await
    {
        return chain(&error);
    }
    loop {
        let interval = last.elapsed();
        last = Instant::now();
        match tokio::time::timeout(DEADLINE, edition(desk, conn, interval)).await {
            Ok(Ok(())) => backoff.reset(),
            Ok(Err(error)) => return chain(&error),
            Err(_) => return "no answer before the deadline".to_owned(),
        }
        tokio::time::sleep(EDITION.min(desk.daemon.terms.replica.lease / 4)).await;
    }
}

async fn edition(desk: &Desk, conn: &mut PgConnection, interval: Duration) -> store::Result<()> {
    let daemon = &desk.daemon;
    beat(conn, daemon, desk.drain.is_cancelled()).await?;
    let sight = daemon.board.sight();
    let withheld = match &sight {
        Some(sight) if sight.stalled => store::withheld(conn, &sight.horizon).await?,
        _ => HashMap::new(),
    };
    if let Some(sight) = &sight {
        count_blockers(conn, sight.horizon_age(), &desk.metrics).await?;
    }
    let now = phases::server_time(conn).await?;
    let view = desk.views.borrow().clone();
    let edition = daemon.board.edition(view.as_deref(), &withheld, interval, now);
    if edition.behind.is_empty() {
        daemon.board.age(&HashMap::new());
    } else {
        daemon.board.age(&phases::oldest_ages(conn, &edition.behind).await?);
    }
    if !edition.changed.is_empty() {
        phases::publish(conn, &edition.changed).await?;
    }
    let is_wanted = tokio::time::timeout(Duration::ZERO, daemon.wanted.notified()).await.is_ok();
    if is_wanted {
        let status = status::read(conn, LagSource::Published, None).await?;
        desk.status.send_replace(Some((Instant::now(), Arc::new(status))));
    }
    Ok(())
}

/// Counts blockers by cause, once they matter.
async fn count_blockers(conn: &mut PgConnection, age: Duration, metrics: &StoreMetrics) -> store::Result<()> {
    let blockers =
        if age >= BLOCKED { store::blockers(conn, BLOCKED.as_secs_f64()).await? } else { Vec::new() };
    let by_cause = BlockerCause::ALL
        .map(|cause| (cause.as_str(), blockers.iter().filter(|blocker| blocker.cause == cause).count()));
    metrics.horizon(age.as_secs_f64(), by_cause);
    Ok(())
}

/// Gives every lease back, so that the next process takes over at once.
async fn sign_off(desk: &Desk, mut conn: PgConnection) {
    let releasing = lease::release_all(&mut conn, &desk.daemon.terms.replica);
    match tokio::time::timeout(Duration::from_secs(5), releasing).await {
        Ok(Ok(())) => tracing::info!("leases released"),
        Ok(Err(error)) => tracing::warn!("leases not released, they end by themselves: {}", chain(&error)),
        Err(_) => tracing::warn!("leases not released in time, they end by themselves"),
    }
    let _ = conn.close().await;
}
