//! Page cost: the same page, in logs of very different length; and a look that finds nothing, with all of the log above
//! the horizon, as behind a transaction that began before it.

use foldd::Cursor;
use tokio::time::Instant;

use crate::Extent;
use crate::lab::{Database, Lab};
use crate::report::{Aim, Figure, median};

/// The lengths of the logs, in events, and whether only `--huge` asks for them.
const LOGS: [(i64, bool); 3] = [(10_000, false), (1_000_000, false), (10_000_000, true)];
const ACCOUNTS: i64 = 20_000;
/// Events a page.
const PAGE: i64 = 1_000;
/// Pages that are read of each log a run.
const PAGES: u32 = 100;

struct Log {
    database: Database,
    events: i64,
    samples: Vec<f64>,
    /// The same of looks that find nothing.
    looks: Vec<f64>,
}

/// Measures the topic. Pages begin anywhere in the log, and those of the logs take turns.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let mut logs = Vec::new();
    for (nth, (full, huge)) in LOGS.into_iter().enumerate() {
        if huge && !extent.huge {
            continue;
        }
        // The shortest log is what the others are compared with, whatever the scale.
        let events = if nth == 0 { full } else { extent.events(full).max(2 * LOGS[0].0) };
        let database = lab.database(&format!("log_{nth}")).await?;
        database.seed("account", events, ACCOUNTS).await?;
        logs.push(Log { database, events, samples: Vec::new(), looks: Vec::new() });
    }
    let mut random = fastrand::Rng::with_seed(1);
    for run in 1..=extent.runs {
        tracing::info!("page-cost: run {run} of {}", extent.runs);
        let mut pages = vec![Vec::new(); logs.len()];
        let mut looks = pages.clone();
        for _ in 0..PAGES {
            for (nth, log) in logs.iter().enumerate() {
                let cursor = log.database.cursor_at(random.i64(0..=log.events - PAGE)).await?;
                pages[nth].push(read(&log.database, cursor).await?);
                looks[nth].push(look(&log.database).await?);
            }
        }
        for (nth, log) in logs.iter_mut().enumerate() {
            log.samples.push(median(&pages[nth]));
            log.looks.push(median(&looks[nth]));
        }
    }
    let mut figures = Vec::new();
    let (pages, looks) = (logs[0].samples.clone(), logs[0].looks.clone());
    for log in logs {
        log.database.pool.close().await;
        let events = crate::report::grouped(log.events);
        let compared = |what: &str, samples: Vec<f64>, shortest: &[f64]| {
            let figure = Figure::new(format!("{what} {events} events"), "ms", samples);
            if log.events == LOGS[0].0 {
                figure
            } else {
                figure.times("that of 10,000", shortest, Some(Aim::Below(1.5)))
            }
        };
        figures.push(compared("a page of 1,000 out of", log.samples, &pages));
        figures.push(compared("a look that finds nothing, beneath", log.looks, &looks));
    }
    Ok(figures)
}

/// A page with all of the log above its horizon, in milliseconds.
async fn look(database: &Database) -> anyhow::Result<f64> {
    let started = Instant::now();
    let found: i64 =
        sqlx::query_scalar("select count(*) from es_read_category_after('account', '0', 0, $1, '1')")
            .bind(PAGE)
            .fetch_one(&database.pool)
            .await?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(found == 0, "{found} events below the first");
    Ok(took)
}

/// Reads a page and decodes it, in milliseconds.
async fn read(database: &Database, cursor: Cursor) -> anyhow::Result<f64> {
    let started = Instant::now();
    let page = database.store().read_category_after("account", cursor, PAGE).await?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(i64::try_from(page.len())? == PAGE, "the page is not full");
    Ok(took)
}
