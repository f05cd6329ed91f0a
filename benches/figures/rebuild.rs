//! Rebuild: how fast a read model is built from the whole log, with few rows and with many.
//!
//! The limit is one statement over the whole log, with as much memory for sorting and hashing as foldd gives a large
//! page: no order, no pages, no checkpoint.

use std::time::Duration;

use foldd::{Daemon, Registry};

use crate::Extent;
use crate::account::{on_batch, on_event};
use crate::catch_up::baselines::{Apply, at_once, in_client};
use crate::lab::{Database, Lab, rate};
use crate::report::{Aim, Figure};

const EVENTS: i64 = 1_000_000;
/// Rows of the read model, and which share of the limit is aimed at.
const GROUPS: [(i64, f64); 2] = [(1_000, 0.6), (100_000, 0.5)];
/// The baseline stops after so long: its rate is the same all along.
const BASELINE_TIME: Duration = Duration::from_secs(10);

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let database = lab.database("rebuild").await?;
    let mut figures = Vec::new();
    for (groups, aim) in GROUPS {
        figures.extend(build(&database, groups, aim, extent).await?);
    }
    database.pool.close().await;
    Ok(figures)
}

/// Whole builds of a log of so many accounts.
async fn build(database: &Database, groups: i64, aim: f64, extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let category = format!("of{groups}");
    let events = extent.events(EVENTS);
    database.seed(&category, events, groups).await?;
    let (mut limit, mut client) = (Vec::new(), Vec::new());
    let (mut batch, mut on, mut split, mut both) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("rebuild: run {run} of {}, {groups} groups", extent.runs);
        limit.push(at_once(database, &category, events, "64MB").await?);
        let ours = Ours { database, category: &category, events };
        batch.push(ours.fold(&format!("batch_{groups}_{run}"), &on_batch(&category), 1).await?);
        on.push(ours.fold(&format!("on_{groups}_{run}"), &on_event(&category), 1).await?);
        split.push(ours.fold(&format!("split_{groups}_{run}"), &on_event(&category), 2).await?);
        both.push(ours.fold_two(&format!("both_{groups}_{run}"), &on_event(&category)).await?);
        client.push(in_client(database, &category, Apply::EventByEvent, extent.time(BASELINE_TIME)).await?);
    }
    let figure = |what: &str, samples: &[f64]| {
        Figure::new(format!("{what}, {groups} rows"), "events/s", samples.to_vec())
    };
    Ok(vec![
        figure("`@batch`", &batch).share("the limit", &limit, Some(Aim::AtLeast(aim))),
        figure("`@on`", &on).times("one upsert an event from a client", &client, Some(Aim::AtLeast(5.0))),
        figure("`@on` in two partitions", &split).times("one partition", &on, Some(Aim::AtLeast(1.7))),
        figure("`@on`, two projections at once: what a second core gives", &both).times(
            "one projection",
            &on,
            None,
        ),
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
        self.measure(&[name], &text, &subscriptions).await
    }

    /// Builds two projections at the same time that have nothing to do with each other; events a second of both together.
    async fn fold_two(self, name: &str, text: &str) -> anyhow::Result<f64> {
        let names = [format!("{name}_a"), format!("{name}_b")];
        let subscriptions = names.each_ref().map(|name| format!("{name}@1"));
        Ok(2.0 * self.measure(&names.each_ref().map(String::as_str), text, &subscriptions).await?)
    }

    /// Builds projections of these names; events a second of the slowest.
    async fn measure(self, names: &[&str], text: &str, subscriptions: &[String]) -> anyhow::Result<f64> {
        let daemon =
            names.iter().fold(Daemon::new(Registry::new()), |daemon, name| daemon.with_sql(name, text));
        let took = self.database.catch_up_all(daemon, subscriptions).await?;
        for name in names {
            self.database.check_balances(name, self.category).await?;
            self.database.execute(&format!("truncate {name}.balance")).await?;
        }
        tracing::info!("  {}: {:.0} events/s", names.join(", "), rate(self.events, took));
        Ok(rate(self.events, took))
    }
}
