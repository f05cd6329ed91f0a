//! Appending: one round trip against one statement an event, and what order costs.

mod network;
mod rivals;

use std::time::Duration;

use foldd::{Event, EventStore, ExpectedVersion};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Extent;
use crate::account::AccountEvent;
use crate::lab::{Lab, rate};
use crate::report::{Aim, Figure, median};

/// What is measured: the aims are for one event and for ten.
const CASES: [Case; 6] = [
    Case { writers: 1, events: 1, far: false, aim: 1.5 },
    Case { writers: 1, events: 10, far: false, aim: 5.0 },
    Case { writers: 16, events: 1, far: false, aim: 1.5 },
    Case { writers: 16, events: 10, far: false, aim: 5.0 },
    Case { writers: 16, events: 1, far: true, aim: 1.5 },
    Case { writers: 16, events: 10, far: true, aim: 5.0 },
];
/// How long each is measured.
const TIME: Duration = Duration::from_secs(4);
/// After so many appends a writer begins a new stream.
const STREAM: i64 = 20;

/// Writers beside each other, events an append.
#[derive(Debug, Clone, Copy)]
struct Case {
    writers: u32,
    events: u32,
    /// Whether there is a network in between, as there mostly is; else a socket of the same machine.
    far: bool,
    /// How many times one statement an event.
    aim: f64,
}

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
    let far = network::pool(lab.socket(), "append").await?;
    let time = extent.time(TIME);
    let mut samples = vec![(Vec::new(), Vec::new()); CASES.len()];
    let (mut stamped, mut plain, mut round_trips) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("append: run {run} of {}", extent.runs);
        for (case, (ours, theirs)) in CASES.into_iter().zip(&mut samples) {
            let pool = if case.far { &far } else { &database.pool };
            theirs.push(write(pool, Way::EventByEvent, case, time).await?);
            ours.push(write(pool, Way::Ours, case, time).await?);
        }
        round_trips.push(round_trip(&far).await?);
        let (with, without) = rivals::cost_of_the_stamp(&database, extent.events(20_000)).await?;
        stamped.push(with);
        plain.push(without);
    }
    far.close().await;
    database.pool.close().await;
    let mut figures = Vec::new();
    for (case, (ours, theirs)) in CASES.into_iter().zip(samples) {
        let aim = Some(Aim::AtLeast(case.aim));
        let figure = Figure::new(case.name(), "events/s", ours);
        figures.push(figure.times("one statement an event", &theirs, aim));
        figures.push(Figure::new(format!("baseline: {}", case.name()), "events/s", theirs));
    }
    figures.push(Figure::new("a round trip through that network", "ms", round_trips));
    figures.push(Figure::new("`es_append` in the server, 1 event", "µs", stamped).times(
        "the same without stamp, floor and lock",
        &plain,
        Some(Aim::Below(1.1)),
    ));
    figures.push(Figure::new("baseline: the same without stamp, floor and lock", "µs", plain));
    Ok(figures)
}

impl Case {
    fn name(self) -> String {
        let writers =
            if self.writers == 1 { "1 writer".to_owned() } else { format!("{} writers", self.writers) };
        let events = if self.events == 1 { "1 event".to_owned() } else { format!("{} events", self.events) };
        format!("{writers}, {events} an append{}", if self.far { ", over a network" } else { "" })
    }
}

/// Lets writers append for a while, each to streams of its own; events a second, all together.
async fn write(pool: &PgPool, way: Way, case: Case, time: Duration) -> anyhow::Result<f64> {
    // Everybody has a connection before the clock starts.
    let mut warm = Vec::new();
    for _ in 0..case.writers {
        warm.push(pool.acquire().await?);
    }
    drop(warm);
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..case.writers {
        tasks.spawn(writer(EventStore::new(pool.clone()), way, case.events, started + time));
    }
    let mut written = 0;
    while let Some(done) = tasks.join_next().await {
        written += done??;
    }
    Ok(rate(written, started.elapsed()))
}

/// What the shortest question takes, in milliseconds.
async fn round_trip(pool: &PgPool) -> anyhow::Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        sqlx::query("select 1").execute(pool).await?;
        samples.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&samples))
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
