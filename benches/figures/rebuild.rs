//! Rebuild: how fast a read model is built from the whole log, with few rows and with many, and what that costs the
//! projections that are live beside it.
//!
//! The limit is one statement over the whole log, with as much memory for sorting and hashing as foldd gives a large
//! page: no order, no pages, no checkpoint.

use std::time::Duration;

use foldd::{Daemon, Registry};

use crate::Extent;
use crate::account::{on_batch, on_event};
use crate::catch_up::baselines::{Apply, at_once, in_client};
use crate::lab::{Database, Lab, rate};
use crate::latency::latencies;
use crate::report::{Aim, Figure, quantile};

const EVENTS: i64 = 1_000_000;
/// Rows of the read model, and which share of the limit is aimed at.
const GROUPS: [(i64, f64); 2] = [(1_000, 0.6), (100_000, 0.5)];
/// The baseline stops after so long: its rate is the same all along.
const BASELINE_TIME: Duration = Duration::from_secs(10);
/// For so long events are appended beside a build.
const LIVE_TIME: Duration = Duration::from_secs(6);
/// So many builds, each of all events, so that there is one as long as events are appended.
const BUILDS: usize = 8;

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let database = lab.database("rebuild").await?;
    let mut figures = Vec::new();
    for (groups, aim) in GROUPS {
        figures.extend(build(&database, groups, aim, extent).await?);
    }
    figures.extend(live_beside_builds(&lab, extent).await?);
    database.pool.close().await;
    Ok(figures)
}

/// Whole builds of a log of so many accounts.
async fn build(database: &Database, groups: i64, aim: f64, extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let category = format!("of{groups}");
    let events = extent.events(EVENTS);
    database.seed(&category, events, groups).await?;
    let (mut limit, mut client) = (Vec::new(), Vec::new());
    let (mut batch, mut on, mut split) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("rebuild: run {run} of {}, {groups} groups", extent.runs);
        limit.push(at_once(database, &category, events, "64MB").await?);
        let ours = Ours { database, category: &category, events };
        batch.push(ours.fold(&format!("batch_{groups}_{run}"), &on_batch(&category), 1).await?);
        on.push(ours.fold(&format!("on_{groups}_{run}"), &on_event(&category), 1).await?);
        split.push(ours.fold(&format!("split_{groups}_{run}"), &on_event(&category), 2).await?);
        client.push(in_client(database, &category, Apply::EventByEvent, extent.time(BASELINE_TIME)).await?);
    }
    let figure = |what: &str, samples: &[f64]| {
        Figure::new(format!("{what}, {groups} rows"), "events/s", samples.to_vec())
    };
    Ok(vec![
        figure("`@batch`", &batch).share("the limit", &limit, Some(Aim::AtLeast(aim))),
        figure("`@on`", &on).times("one upsert an event from a client", &client, Some(Aim::AtLeast(5.0))),
        figure("`@on` in two partitions", &split).times("one partition", &on, Some(Aim::AtLeast(1.7))),
        figure("limit: one `INSERT … SELECT … GROUP BY`", &limit),
        figure("baseline: one upsert an event from a client", &client),
    ])
}

#[derive(Clone, Copy)]
struct Ours<'a> {
    database: &'a Database,
    category: &'a str,
    events: i64,
}

impl Ours<'_> {
    /// Builds a projection in so many partitions, and looks whether it is right; events a second.
    async fn fold(self, name: &str, text: &str, partitions: usize) -> anyhow::Result<f64> {
        let text = text.replacen("version = 1\n", &format!("version = 1\npartitions = {partitions}\n"), 1);
        let subscriptions: Vec<String> = match partitions {
            1 => vec![format!("{name}@1")],
            _ => (0..partitions).map(|partition| format!("{name}@1/{partition}")).collect(),
        };
        let daemon = Daemon::new(Registry::new()).with_sql(name, &text);
        let took = self.database.catch_up_all(daemon, &subscriptions).await?;
        self.database.check_balances(name, self.category).await?;
        self.database.execute(&format!("truncate {name}.balance")).await?;
        tracing::info!("  {name}: {:.0} events/s", rate(self.events, took));
        Ok(rate(self.events, took))
    }
}

/// From append to visible in a live projection, without builds and beside them, in one process.
async fn live_beside_builds(lab: &Lab, extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("rebuild: run {run} of {}, live beside builds", extent.runs);
        let database = lab.database(&format!("live_{run}")).await?;
        database.seed("past", extent.events(EVENTS), 20_000).await?;
        let time = extent.time(LIVE_TIME);
        alone.push(quantile(&latencies(&database, 1, time, &[]).await?, 0.99));
        let builds: Vec<(String, String)> = (0..BUILDS)
            .map(|number| {
                let text = if number % 2 == 0 { on_batch("past") } else { on_event("past") };
                (format!("build_{number}"), text)
            })
            .collect();
        beside.push(quantile(&latencies(&database, 1, time, &builds).await?, 0.99));
        database.pool.close().await;
    }
    Ok(vec![
        Figure::new("live, 99 of 100, no build", "ms", alone.clone()),
        Figure::new("live, 99 of 100, beside builds", "ms", beside).times(
            "no build",
            &alone,
            Some(Aim::Below(1.5)),
        ),
    ])
}
