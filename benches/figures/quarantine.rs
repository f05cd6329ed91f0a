//! Quarantine: how fast the other streams are folded while some are quarantined.
//!
//! The read model of `catch-up`, over the same events, with 0, 1 and 1,000 of 20,000 streams quarantined from the start:
//! their events are parked, a letter each, while everybody else's are applied.

use anyhow::ensure;
use foldd::Daemon;

use crate::Extent;
use crate::account::{in_sql, on_batch, on_event};
use crate::lab::{Database, Lab, rate};
use crate::report::{Aim, Figure};

const EVENTS: i64 = 200_000;
const ACCOUNTS: i64 = 20_000;
/// How many streams are quarantined.
const STREAMS: [i64; 3] = [0, 1, 1_000];

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let database = lab.database("quarantine").await?;
    let events = extent.events(EVENTS);
    // Built while there is nothing to fold, so that streams can be quarantined before their first event.
    let kinds = [("on", on_event("account")), ("batch", on_batch("account"))];
    for run in 1..=extent.runs {
        for (kind, text) in &kinds {
            for streams in STREAMS {
                let name = format!("{kind}_{streams}_{run}");
                database.catch_up(in_sql(&name, text), &format!("{name}@1")).await?;
            }
        }
    }
    database.seed("account", events, ACCOUNTS).await?;
    let mut figures = Vec::new();
    for (kind, text) in &kinds {
        let mut samples = STREAMS.map(|_| Vec::new());
        for run in 1..=extent.runs {
            tracing::info!("quarantine: run {run} of {}, @{kind}", extent.runs);
            for (streams, samples) in STREAMS.into_iter().zip(&mut samples) {
                let name = format!("{kind}_{streams}_{run}");
                samples.push(fold(&database, in_sql(&name, text), &name, streams, events).await?);
            }
        }
        let [none, one, many] = samples;
        let figure = |what: &str, samples: &[f64]| {
            Figure::new(format!("`@{kind}`, {what}"), "events/s", samples.to_vec())
        };
        figures.push(figure("no stream quarantined", &none));
        figures.push(figure("1 stream quarantined", &one).share(
            "none quarantined",
            &none,
            Some(Aim::AtLeast(0.8)),
        ));
        figures.push(figure("1,000 of 20,000 streams quarantined", &many).share(
            "none quarantined",
            &none,
            Some(Aim::AtLeast(0.6)),
        ));
    }
    database.pool.close().await;
    Ok(figures)
}

/// Quarantines so many streams, lets a daemon catch up, and looks whether each event is either applied or parked.
async fn fold(
    database: &Database,
    daemon: Daemon,
    name: &str,
    streams: i64,
    events: i64,
) -> anyhow::Result<f64> {
    database
        .execute(&format!(
            "insert into es_quarantined_streams (subscription_id, stream_id, since_version)
             select '{name}@1', 'account-' || i, 1 from generate_series(0, {streams} - 1) i"
        ))
        .await?;
    let took = database.catch_up(daemon, &format!("{name}@1")).await?.took;
    let parked = database
        .number(&format!("select count(*) from es_dead_letters where subscription_id = '{name}@1'"))
        .await?;
    let wanted = database
        .number(&format!(
            "select count(*) from es_events e where stream_id in
                 (select stream_id from es_quarantined_streams where subscription_id = '{name}@1')"
        ))
        .await?;
    ensure!(parked == wanted, "{name} parked {parked} events instead of {wanted}");
    database.execute(&format!("truncate {name}.balance")).await?;
    tracing::info!("  {name}: {:.0} events/s, {parked} parked", rate(events, took));
    Ok(rate(events, took))
}
