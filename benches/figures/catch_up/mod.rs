//! Catch-up: how fast a read model is folded from the start of the log, by the engine as it runs in
//! production.
//!
//! Timed from the lease to the moment when the subscription is live: reading, deciding page sizes, fencing,
//! checkpoints and the count of the backlog included. The result is compared with the sum of the log each
//! time.

pub(crate) mod baselines;

use std::time::Duration;

use foldd::Daemon;

use crate::Extent;
use crate::account::{in_rust, in_sql, on_batch, on_event};
use crate::lab::{Database, Lab, rate};
use crate::report::{Aim, Figure};
use crate::watch::CaughtUp;
use baselines::{Apply, at_once, in_client};

const EVENTS: i64 = 500_000;
const ACCOUNTS: i64 = 20_000;
/// Events on the one hot account.
const HOT_EVENTS: i64 = 100_000;
/// The slowest baseline stops after so long: its rate is the same all along.
const BASELINE_TIME: Duration = Duration::from_secs(20);

/// One sample of everything each run.
#[derive(Default)]
struct Samples {
    event_by_event: Vec<f64>,
    arrays: Vec<f64>,
    at_once: Vec<f64>,
    on: Vec<f64>,
    on_stale: Vec<f64>,
    batch: Vec<f64>,
    batch_far_behind: Vec<f64>,
    rust: Vec<f64>,
    hot_event_by_event: Vec<f64>,
    hot_on: Vec<f64>,
}

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let database = lab.database("catch_up").await?;
    // Built and analysed before there is a single event: the planner takes the table for empty ever after.
    for run in 1..=extent.runs {
        let name = format!("stale_{run}");
        database.catch_up(in_sql(&name, &on_event("account")), &format!("{name}@1")).await?;
        database.execute(&format!("analyze {name}.balance")).await?;
    }
    let (events, hot_events) = (extent.events(EVENTS), extent.events(HOT_EVENTS));
    database.seed("account", events, ACCOUNTS).await?;
    database.seed("hot", hot_events, 1).await?;
    let time = extent.time(BASELINE_TIME);
    let mut samples = Samples::default();
    for run in 1..=extent.runs {
        tracing::info!("catch-up: run {run} of {}", extent.runs);
        let ours = Ours { database: &database, events, category: "account" };
        samples.event_by_event.push(in_client(&database, "account", Apply::EventByEvent, time).await?);
        let name = format!("on_{run}");
        samples.on.push(ours.fold(in_sql(&name, &on_event("account")), &name).await?);
        let name = format!("stale_{run}");
        samples.on_stale.push(ours.fold(in_sql(&name, &on_event("account")), &name).await?);
        samples.arrays.push(in_client(&database, "account", Apply::Arrays, time).await?);
        let name = format!("rust_{run}");
        samples.rust.push(ours.fold(in_rust(&name, "account"), &name).await?);
        samples.at_once.push(at_once(&database, "account", events, "4MB").await?);
        let name = format!("batch_{run}");
        let (whole, largest_page) = ours.fold_in_pages(in_sql(&name, &on_batch("account")), &name).await?;
        samples.batch.push(whole);
        samples.batch_far_behind.push(largest_page);
        let hot = Ours { events: hot_events, category: "hot", ..ours };
        samples.hot_event_by_event.push(in_client(&database, "hot", Apply::EventByEvent, time / 4).await?);
        let name = format!("hot_{run}");
        samples.hot_on.push(hot.fold(in_sql(&name, &on_event("hot")), &name).await?);
    }
    database.pool.close().await;
    Ok(samples.figures())
}

/// The engine, over the events of a category.
#[derive(Clone, Copy)]
struct Ours<'a> {
    database: &'a Database,
    events: i64,
    category: &'a str,
}

impl Ours<'_> {
    /// Lets a daemon catch up with the category, and looks whether the result is right; events a second.
    async fn fold(&self, daemon: Daemon, name: &str) -> anyhow::Result<f64> {
        Ok(self.fold_in_pages(daemon, name).await?.0)
    }

    /// The same; events a second over all, and in the largest page alone.
    async fn fold_in_pages(&self, daemon: Daemon, name: &str) -> anyhow::Result<(f64, f64)> {
        let CaughtUp { took, largest: (page, page_took) } =
            self.database.catch_up(daemon, &format!("{name}@1")).await?;
        self.database.check_balances(name, self.category).await?;
        self.database.execute(&format!("truncate {name}.balance")).await?;
        let (whole, largest_page) = (rate(self.events, took), rate(page, page_took));
        tracing::info!(
            "  {name}: {whole:.0} events/s, its largest page of {page} {largest_page:.0} events/s"
        );
        Ok((whole, largest_page))
    }
}

impl Samples {
    fn figures(self) -> Vec<Figure> {
        let (event_by_event, arrays, limit) =
            ("one statement an event", "one upsert with arrays a page", "one INSERT … SELECT over the log");
        let figure = |what: &str, samples: &[f64]| Figure::new(what, "events/s", samples.to_vec());
        let on = |what: &str, samples: &[f64], baseline: &[f64]| {
            figure(what, samples).times(event_by_event, baseline, Some(Aim::AtLeast(5.0)))
        };
        vec![
            on("`@on`, one upsert an event", &self.on, &self.event_by_event),
            on("`@on`, tables analysed while empty", &self.on_stale, &self.event_by_event),
            on("`@on`, every event on one row", &self.hot_on, &self.hot_event_by_event),
            figure("`@batch`, one upsert a page", &self.batch)
                .times(arrays, &self.arrays, Some(Aim::AtLeast(2.0)))
                .share(limit, &self.at_once, None),
            figure("`@batch`, its largest page: how it goes on while far behind", &self.batch_far_behind)
                .share(limit, &self.at_once, Some(Aim::AtLeast(0.4))),
            figure("Rust handler, one upsert a page", &self.rust).times(
                arrays,
                &self.arrays,
                Some(Aim::AtLeast(1.3)),
            ),
            figure("baseline: one statement an event, pages of 1,000", &self.event_by_event),
            figure("baseline: the same, every event on one row", &self.hot_event_by_event),
            figure("baseline: one upsert with arrays a page of 1,000", &self.arrays),
            figure("limit: one `INSERT … SELECT … GROUP BY` over the log", &self.at_once),
        ]
    }
}
