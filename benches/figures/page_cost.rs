//! Page cost: the same page, in logs of very different length.

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
        logs.push(Log { database, events, samples: Vec::new() });
    }
    let mut random = fastrand::Rng::with_seed(1);
    for run in 1..=extent.runs {
        tracing::info!("page-cost: run {run} of {}", extent.runs);
        let mut pages = vec![Vec::new(); logs.len()];
        for _ in 0..PAGES {
            for (log, pages) in logs.iter().zip(&mut pages) {
                let cursor = log.database.cursor_at(random.i64(0..=log.events - PAGE)).await?;
                pages.push(read(&log.database, cursor).await?);
            }
        }
        for (log, pages) in logs.iter_mut().zip(&pages) {
            log.samples.push(median(pages));
        }
    }
    let mut figures = Vec::new();
    let shortest = logs[0].samples.clone();
    for log in logs {
        log.database.pool.close().await;
        let figure = Figure::new(
            format!("a page of 1,000 out of {} events", crate::report::grouped(log.events)),
            "ms",
            log.samples,
        );
        figures.push(if log.events == LOGS[0].0 {
            figure
        } else {
            figure.times("that of 10,000", &shortest, Some(Aim::Below(1.5)))
        });
    }
    Ok(figures)
}

/// Reads a page and decodes it, in milliseconds.
async fn read(database: &Database, cursor: Cursor) -> anyhow::Result<f64> {
    let started = Instant::now();
    let page = database.store().read_category_after("account", cursor, PAGE).await?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(i64::try_from(page.len())? == PAGE, "the page is not full");
    Ok(took)
}
