//! The clerk: keeps the books on one connection. Renews the lease, publishes the board, runs errands for operators, has
//! projections prepared anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::crew::Crew;
use super::errands::{Errands, Rounds};
use super::preparing::Preparing;
use super::succession;
use crate::backoff::Backoff;
use crate::engine::backlog::View;
use crate::error::{EventStoreError, chain, with_remedy};
use crate::ledger::status::{LagSource, Status};
use crate::ledger::{dead_letters, lease, phases, status};
use crate::metrics::{ConnectionRole, StoreMetrics};
use crate::store::{self, BlockerCause, Link};

/// How often the board is published.
const EDITION: Duration = Duration::from_secs(1);
/// How often it is asked what operators did.
const ERRAND: Duration = Duration::from_millis(250);
/// From this horizon age on, blockers are named.
const BLOCKED: Duration = Duration::from_secs(1);
/// How often it is asked whether the log's stamps still fit the cluster, and noted how far the log was read.
const EXAMINATION: Duration = Duration::from_secs(60);
/// An edition that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Renews the lease when a third of it has passed. Trust is counted from before the question was sent.
///
/// Watcher and clerk both do so, each on its own connection: a statement that keeps one of them costs no lease.
pub(crate) async fn beat(conn: &mut Link<'_>, daemon: &Daemon) -> sqlx::Result<()> {
    if daemon.renewed_within(daemon.terms.replica.lease / 3) {
        return Ok(());
    }
    let asked = Instant::now();
    if !lease::heartbeat(conn, &daemon.terms.replica, daemon.is_draining()).await? {
        // Forgotten meanwhile, or never entered. What it held is free, and the fence keeps the batches apart.
        lease::register(conn, &daemon.terms.replica, daemon.hosts().as_deref()).await?;
    }
    if !daemon.renewed_within(daemon.terms.replica.lease)
        && lease::acquit(conn, &daemon.terms.replica).await? > 0
    {
        tracing::info!("somebody took this process for dead of an event; it was only cut off");
    }
    daemon.trust_from(asked);
    Ok(())
}

/// What the clerk works with beside its connection.
pub(crate) struct Desk {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) preparing: Arc<Preparing>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) errands: Errands,
    pub(crate) metrics: StoreMetrics,
    pub(crate) views: watch::Receiver<Option<Arc<View>>>,
    pub(crate) status: watch::Sender<Option<(Instant, Arc<Status>)>>,
    /// Cancelled when the workers are done: the last thing is to sign off.
    pub(crate) close: CancellationToken,
    /// Told when going on would lose events: the daemon ends.
    pub(crate) alarm: mpsc::Sender<EventStoreError>,
}

/// Keeps the books until closed, then gives every lease back and signs off.
pub(crate) async fn keep(desk: Desk, mut conn: Link<'static>) {
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
            match desk.daemon.connector.connect("clerk", desk.daemon.limits()).await {
                Ok(conn) => break conn,
                Err(error) => {
                    tracing::warn!("the clerk cannot connect: {}", with_remedy(chain(&error), error.remedy()))
                }
            }
        };
    }
}

/// One honest session: an edition a second and a heartbeat in time, until something fails.
async fn session(desk: &Desk, conn: &mut Link<'_>, backoff: &mut Backoff) -> String {
    let mut last = Instant::now();
    if let Err(error) = desk.preparing.publish(conn).await {
        return chain(&error);
    }
    let mut named = HashSet::new();
    let mut examined: Option<Instant> = None;
    let mut rounds = Rounds::default();
    loop {
        let interval = last.elapsed();
        last = Instant::now();
        if examined.is_none_or(|examined| examined.elapsed() >= EXAMINATION) {
            match tokio::time::timeout(DEADLINE, examine(desk, conn)).await {
                Ok(Ok(noted)) => examined = noted.then(Instant::now),
                Ok(Err(error)) => return chain(&error),
                Err(_) => return "no answer before the deadline".to_owned(),
            }
        }
        match tokio::time::timeout(DEADLINE, edition(desk, conn, interval, &mut named)).await {
            Ok(Ok(())) => backoff.reset(),
            Ok(Err(error)) => return chain(&error),
            Err(_) => return "no answer before the deadline".to_owned(),
        }
        let next = Instant::now() + EDITION.min(desk.daemon.terms.replica.lease / 4);
        loop {
            match tokio::time::timeout(DEADLINE, errand(desk, conn, &mut rounds)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return chain(&error),
                Err(_) => return "no answer before the deadline".to_owned(),
            }
            if Instant::now() >= next {
                break;
            }
            tokio::time::sleep(ERRAND.min(next - Instant::now())).await;
        }
    }
}

/// What cannot wait for the next edition: the lease, what operators did, what is free or another's to have.
async fn errand(desk: &Desk, conn: &mut Link<'_>, rounds: &mut Rounds) -> sqlx::Result<()> {
    let daemon = &desk.daemon;
    beat(conn, daemon).await?;
    if let Some(in_hand) = daemon.take_leave() {
        let given = lease::leave(conn, &daemon.terms.replica, &in_hand).await?;
        tracing::info!(leases = given, in_hand = in_hand.len(), "leases given back");
    }
    if daemon.is_draining() {
        return Ok(());
    }
    let lease = daemon.terms.replica.lease;
    let without_holder = desk.errands.run(conn, &desk.preparing, rounds, lease).await?;
    desk.metrics.without_holder(without_holder);
    desk.preparing.pursue(conn, daemon, &desk.crew).await
}

/// Forgets what was discarded long ago. Asks whether the stamps still fit the cluster, and sounds the alarm if not;
/// notes how far the log was read, once the watcher knows.
async fn examine(desk: &Desk, conn: &mut Link<'_>) -> store::Result<bool> {
    let forgotten = dead_letters::forget_discarded(conn, desk.daemon.dead_letter_retention).await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "forgot dead letters that were discarded long ago");
    }
    match store::settle(conn).await {
        Err(lossy @ (EventStoreError::AheadOfCluster { .. } | EventStoreError::Skipped { .. })) => {
            // Where nobody listens any more, the daemon is ending already.
            let _ = desk.alarm.send(lossy).await;
            return Ok(true);
        }
        settled => settled?,
    }
    let Some(sight) = desk.daemon.board.sight() else { return Ok(false) };
    store::note_horizon(conn, &sight.horizon).await?;
    Ok(true)
}

async fn edition(
    desk: &Desk,
    conn: &mut Link<'_>,
    interval: Duration,
    named: &mut HashSet<(Option<i32>, Option<String>)>,
) -> store::Result<()> {
    let daemon = &desk.daemon;
    let sight = daemon.board.sight();
    let withheld = match &sight {
        Some(sight) if sight.stalled => store::withheld(conn, &sight.horizon).await?,
        _ => HashMap::new(),
    };
    if let Some(sight) = &sight {
        name_blockers(desk, conn, sight.horizon_age(), named).await?;
    }
    daemon.board.count_letters(&dead_letters::held_by(conn, daemon.terms.replica.id).await?);
    let now = phases::server_time(conn).await?;
    let view = desk.views.borrow().clone();
    let edition = daemon.board.edition(view.as_deref(), &withheld, interval, now);
    let ages = match &sight {
        Some(sight) if !edition.behind.is_empty() => {
            phases::oldest_ages(conn, &edition.behind, &sight.horizon).await?
        }
        _ => HashMap::new(),
    };
    daemon.board.age(&ages);
    succession::pursue(conn, daemon.terms.replica.id).await?;
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

/// Counts who holds the horizon, by cause, and says of each who it is: once, when it begins to matter.
async fn name_blockers(
    desk: &Desk,
    conn: &mut Link<'_>,
    age: Duration,
    named: &mut HashSet<(Option<i32>, Option<String>)>,
) -> store::Result<()> {
    let mut blockers = Vec::new();
    let unproven = desk.daemon.board.unproven();
    let tier = u8::from(unproven.is_none());
    if age >= BLOCKED {
        blockers = store::blockers(conn, BLOCKED.as_secs_f64(), tier).await?;
        blockers.retain(|blocker| blocker.holds);
    }
    let still: HashSet<_> = blockers.iter().map(|blocker| (blocker.pid, blocker.gid.clone())).collect();
    for blocker in &blockers {
        if named.insert((blocker.pid, blocker.gid.clone())) {
            tracing::warn!(
                remedy = "end it, and set idle_in_transaction_session_timeout for writers' roles",
                "committed events wait for {blocker}"
            );
        }
    }
    named.retain(|holder| still.contains(holder));
    let by_cause = BlockerCause::ALL
        .map(|cause| (cause.as_str(), blockers.iter().filter(|blocker| blocker.cause == cause).count()));
    desk.metrics.horizon(tier, age.as_secs_f64(), by_cause);
    Ok(())
}

/// Gives every lease back, so that the next process takes over at once.
async fn sign_off(desk: &Desk, mut conn: Link<'static>) {
    let releasing = lease::release_all(&mut conn, &desk.daemon.terms.replica);
    match tokio::time::timeout(Duration::from_secs(5), releasing).await {
        Ok(Ok(())) => tracing::info!("leases released"),
        Ok(Err(error)) => tracing::warn!("leases not released, they end by themselves: {}", chain(&error)),
        Err(_) => tracing::warn!("leases not released in time, they end by themselves"),
    }
    conn.close().await;
}
