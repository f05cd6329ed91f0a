//! Beside builds: from an append to its effect in a live projection, without builds and while the same daemon builds others
//! from a long log.

use std::time::Duration;

use crate::Extent;
use crate::account::{on_batch, on_event};
use crate::lab::Lab;
use crate::latency::latencies;
use crate::report::{Aim, Figure, quantile};

const EVENTS: i64 = 1_000_000;
const ACCOUNTS: i64 = 20_000;
/// For so long events are appended.
const TIME: Duration = Duration::from_secs(6);
/// So many builds, each of all events, so that there is one as long as events are appended.
const BUILDS: usize = 8;

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("beside-builds: run {run} of {}", extent.runs);
        let database = lab.database(&format!("live_{run}")).await?;
        database.seed("past", extent.events(EVENTS), ACCOUNTS).await?;
        let time = extent.time(TIME);
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
