//! A thousand projections on three replicas, a fourth one that joins, and one that is killed.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::Extent;
use crate::lab::{Database, Lab};
use crate::process::{CONNECTIONS, Daemon, queries};
use crate::report::{Aim, Figure};

const PROJECTIONS: i64 = 1_000;
/// What is watched at rest.
const TIME: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(5);
/// Whoever takes longer does not get there.
const PATIENCE: Duration = Duration::from_secs(900);

/// Measures the topic. Once, whatever is asked for: it takes minutes, and counts more than it times.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let settings =
        [("shared_preload_libraries", "pg_stat_statements"), ("max_locks_per_transaction", "1024")];
    let lab = Lab::start(&settings).await.context("replicas needs PostgreSQL's pg_stat_statements")?;
    let database = lab.database("replicas").await?;
    database.execute("create extension pg_stat_statements").await?;
    database.seed("account", 1_000, 100).await?;
    let projections = extent.share(PROJECTIONS).clamp(4, PROJECTIONS);
    let count = |name: &str, unit, value: f64| Figure::new(name, unit, vec![value]);

    let first = Daemon::start(&database, projections)?;
    reached(&database, &first, "select count(*) from es_projections where live_at is not null", projections)
        .await?;
    let others = [first.beside(&database, 2)?, first.beside(&database, 3)?];
    let third = projections / 3;
    reached(&database, &first, &least_held(3), third).await?;
    sleep(SETTLE).await;

    let (before, started) = (queries(&database).await?, Instant::now());
    sleep(extent.time(TIME)).await;
    let rate = (queries(&database).await? - before) as f64 / started.elapsed().as_secs_f64();
    let connections = database.number(CONNECTIONS).await? as f64;
    let mut memory: f64 = 0.0;
    for daemon in [&first].into_iter().chain(&others) {
        memory = memory.max(daemon.memory()?);
    }

    let tokens = "select sum(fence_token)::bigint from es_subscriptions";
    let (held, joined) = (database.number(tokens).await?, Instant::now());
    let fourth = first.beside(&database, 4)?;
    reached(&database, &first, &least_held(4), projections / 4).await?;
    let even = joined.elapsed().as_secs_f64();
    let moves = database.number(tokens).await? - held;

    let killed = Instant::now();
    drop(fourth);
    reached(&database, &first, HELD_BY_THREE, projections).await?;
    let taken_over = killed.elapsed().as_secs_f64();
    database.pool.close().await;
    let of = |what: &str| format!("{projections} projections, {what}");
    Ok(vec![
        count(&of("3 replicas: queries"), "a second", rate),
        count(&of("3 replicas: connections"), "", connections).aim(Aim::Below(18.5)),
        count(&of("3 replicas: memory of the largest"), "MB", memory).aim(Aim::Below(100.0)),
        count(&of("a fourth joins: leases that move"), "", moves as f64)
            .aim(Aim::Below(projections as f64 / 4.0 + 1.0)),
        count(&of("a fourth joins: until all have their share"), "s", even),
        count(&of("one is killed: until all are held again, lease 10 s"), "s", taken_over)
            .aim(Aim::Below(11.0)),
    ])
}

/// What somebody alive holds, once the lease of the fourth is over.
const HELD_BY_THREE: &str = "
    select case when (select count(*) from es_replicas r where r.lease_until > clock_timestamp()) = 3 then count(*) else 0 end
    from es_subscriptions s join es_replicas r on r.replica_id = s.holder where r.lease_until > clock_timestamp()";

/// What the one that holds least has, once there are so many.
fn least_held(replicas: usize) -> String {
    format!(
        "select case when count(*) = {replicas} then min(held) else 0 end from (
             select (select count(*) from es_subscriptions s where s.holder = r.replica_id) as held
             from es_replicas r where r.lease_until > clock_timestamp()) loads"
    )
}

async fn reached(database: &Database, daemon: &Daemon, question: &str, least: i64) -> anyhow::Result<()> {
    let started = Instant::now();
    while database.number(question).await? < least {
        anyhow::ensure!(started.elapsed() < PATIENCE, "{question} never was {least}:\n{}", daemon.log());
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
