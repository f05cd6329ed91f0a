//! Appending: one round trip against one statement an event, and what order costs.

mod rivals;

use std::time::Duration;

use foldd::{Event, EventStore, ExpectedVersion};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Extent;
use crate::account::AccountEvent;
use crate::lab::{Database, Lab, rate};
use crate::report::{Aim, Figure};

/// Writers beside each other, events an append, and the aim.
const CASES: [(u32, u32, f64); 4] = [(1, 1, 1.5), (1, 10, 5.0), (16, 1, 1.5), (16, 10, 5.0)];
/// How long each is measured.
const TIME: Duration = Duration::from_secs(4);
/// After so many appends a writer begins a new stream.
const STREAM: i64 = 20;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// [`EventStore::append`].
    Ours,
    /// A transaction with a statement for the stream and one for each event.
    EventByEvent,
}

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let database = lab.database("append").await?;
    let time = extent.time(TIME);
    let mut samples = vec![(Vec::new(), Vec::new()); CASES.len()];
    let (mut stamped, mut plain) = (Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("append: run {run} of {}", extent.runs);
        for ((writers, events, _), (ours, theirs)) in CASES.into_iter().zip(&mut samples) {
            theirs.push(write(&database, Way::EventByEvent, writers, events, time).await?);
            ours.push(write(&database, Way::Ours, writers, events, time).await?);
        }
        let (with, without) = rivals::cost_of_the_stamp(&database, extent.events(20_000)).await?;
        stamped.push(with);
        plain.push(without);
    }
    database.pool.close().await;
    let mut figures = Vec::new();
    for ((writers, events, aim), (ours, theirs)) in CASES.into_iter().zip(samples) {
        let case = format!(
            "{}, {}",
            if writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") },
            if events == 1 { "1 event an append".to_owned() } else { format!("{events} events an append") },
        );
        figures.push(Figure::new(&case, "events/s", ours).times(
            "one statement an event",
            &theirs,
            Some(Aim::AtLeast(aim)),
        ));
        figures.push(Figure::new(format!("baseline: {case}"), "events/s", theirs));
    }
    figures.push(Figure::new("`es_append` in the server, 1 event", "µs", stamped).times(
        "the same without stamp, floor and lock",
        &plain,
        Some(Aim::Below(1.1)),
    ));
    figures.push(Figure::new("baseline: the same without stamp, floor and lock", "µs", plain));
    Ok(figures)
}

/// Lets writers append for a while, each to streams of its own; events a second, all together.
async fn write(
    database: &Database,
    way: Way,
    writers: u32,
    events: u32,
    time: Duration,
) -> anyhow::Result<f64> {
    // Everybody has a connection before the clock starts.
    let mut warm = Vec::new();
    for _ in 0..writers {
        warm.push(database.pool.acquire().await?);
    }
    drop(warm);
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        tasks.spawn(writer(database.store(), way, events, started + time));
    }
    let mut written = 0;
    while let Some(done) = tasks.join_next().await {
        written += done??;
    }
    Ok(rate(written, started.elapsed()))
}

/// Appends until the time is over; how many events.
async fn writer(store: EventStore, way: Way, events: u32, until: Instant) -> anyhow::Result<i64> {
    let mut written = 0;
    while Instant::now() < until {
        let stream_id = format!("account-{}", Uuid::now_v7());
        let mut version = 0;
        for nth in 0..STREAM {
            let deposited =
                || AccountEvent::Deposited { cents: nth, reference: format!("transfer {version}") };
            let batch: Vec<_> = (0..events).map(|_| Event::new(deposited())).collect();
            version = match way {
                Way::Ours => {
                    let expected = if version == 0 {
                        ExpectedVersion::NoStream
                    } else {
                        ExpectedVersion::Exact(version)
                    };
                    store.append(&stream_id, "account", expected, &batch).await?.version
                }
                Way::EventByEvent => {
                    rivals::append(store.pool(), &stream_id, "account", version, &batch).await?
                }
            };
            written += i64::from(events);
        }
    }
    Ok(written)
}
