//! At rest: what a daemon costs while nothing happens. The built binary, as a process of its own.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::Extent;
use crate::lab::{Database, Lab};
use crate::process::{CONNECTIONS, Daemon, queries};
use crate::report::{Aim, Figure};

const CASES: [i64; 3] = [1, 100, 1_000];
/// What each run watches.
const TIME: Duration = Duration::from_secs(10);
/// After the last build: checkpoints that are persisted now and then, caches, statistics on their way.
const SETTLE: Duration = Duration::from_secs(5);
/// Building a thousand projections takes no longer.
const PATIENCE: Duration = Duration::from_secs(900);

/// What one run of a case gives.
#[derive(Default)]
struct Samples {
    queries: Vec<f64>,
    connections: Vec<f64>,
    cpu: Vec<f64>,
    memory: Vec<f64>,
}

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let settings =
        [("shared_preload_libraries", "pg_stat_statements"), ("max_locks_per_transaction", "1024")];
    let lab = Lab::start(&settings).await.context("at-rest needs PostgreSQL's pg_stat_statements")?;
    let mut figures = Vec::new();
    let mut one: Option<Samples> = None;
    for full in CASES {
        let projections = extent.share(full).clamp(1, full);
        let database = lab.database(&format!("rest_{full}")).await?;
        database.execute("create extension pg_stat_statements").await?;
        database.seed("account", 1_000, 100).await?;
        let samples = watch(&database, projections, extent).await?;
        database.pool.close().await;
        figures.extend(samples.figures(projections, one.as_ref()));
        one.get_or_insert(samples);
    }
    Ok(figures)
}

impl Samples {
    fn figures(&self, projections: i64, one: Option<&Self>) -> Vec<Figure> {
        let count =
            if projections == 1 { "1 projection".to_owned() } else { format!("{projections} projections") };
        let figure = |what: &str, unit, own: &[f64], of_one: Option<&Vec<f64>>| {
            let figure = Figure::new(format!("{count}: {what}"), unit, own.to_vec());
            match of_one {
                Some(of_one) => figure.times("that of one", of_one, Some(Aim::Below(1.5))),
                None => figure,
            }
        };
        vec![
            figure("queries", "a second", &self.queries, one.map(|one| &one.queries)),
            figure("connections", "", &self.connections, one.map(|one| &one.connections)),
            figure("processor", "% of a core", &self.cpu, None).aim(Aim::Below(2.0)),
            figure("memory", "MB", &self.memory, None).aim(Aim::Below(100.0)),
        ]
    }
}

async fn watch(database: &Database, projections: i64, extent: Extent) -> anyhow::Result<Samples> {
    tracing::info!("at-rest: building, projections: {projections}");
    let daemon = Daemon::start(database, projections)?;
    let started = Instant::now();
    while database.number("select count(*) from es_projections where live_at is not null").await?
        < projections
    {
        anyhow::ensure!(started.elapsed() < PATIENCE, "the projections are not built:\n{}", daemon.log());
        sleep(Duration::from_millis(200)).await;
    }
    sleep(SETTLE).await;
    let mut samples = Samples::default();
    for run in 1..=extent.runs {
        tracing::info!("at-rest: run {run} of {}, projections: {projections}", extent.runs);
        let before = (queries(database).await?, daemon.cpu_seconds()?);
        let started = Instant::now();
        sleep(extent.time(TIME)).await;
        let took = started.elapsed().as_secs_f64();
        let after = (queries(database).await?, daemon.cpu_seconds()?);
        samples.queries.push((after.0 - before.0) as f64 / took);
        samples.cpu.push((after.1 - before.1) / took * 100.0);
        samples.connections.push(database.number(CONNECTIONS).await? as f64);
        samples.memory.push(daemon.memory()?);
    }
    Ok(samples)
}
