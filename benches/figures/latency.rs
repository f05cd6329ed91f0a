//! Latency: from the answer to an append until a read model shows it.
//!
//! Writers append at a steady rate, whether or not earlier appends have been answered in time. An observer on
//! a connection of its own asks the read models about every millisecond for what is new; the moment at which
//! its answer is here counts as the moment of being visible, so the pause and the way of the answer are in
//! the figure. With many projections the observer looks at five of them, evenly spread: looking at all would
//! be most of the load. Daemon, writers and observer share a process and its clock.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use foldd::{Daemon, Event, EventStore, ExpectedVersion, Registry};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use crate::account::AccountEvent;
use crate::lab::{Database, Lab};
use crate::report::{Aim, Figure, quantile};
use crate::{Extent, watch};

/// Projections.
const CASES: [usize; 2] = [1, 50];
/// Events a second, one an append.
const RATE: u32 = 500;
/// They share the rate.
const WRITERS: u32 = 10;
const TIME: Duration = Duration::from_secs(15);
/// What is appended in the beginning only warms up.
const WARM_UP: Duration = Duration::from_secs(1);
/// The observer's pause.
const PAUSE: Duration = Duration::from_millis(1);
/// So many projections are observed.
const OBSERVED: usize = 5;
/// What is not visible after so long never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// Position of an event, and when something happened to it.
type Moments = Vec<(i64, Instant)>;

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[("max_locks_per_transaction", "256")]).await?;
    let mut figures = Vec::new();
    for projections in CASES {
        let (mut middle, mut tail) = (Vec::new(), Vec::new());
        for run in 1..=extent.runs {
            tracing::info!("latency: run {run} of {}, projections: {projections}", extent.runs);
            let database = lab.database(&format!("latency_{projections}_{run}")).await?;
            let latencies = latencies(&database, projections, extent.time(TIME), &[]).await?;
            middle.push(quantile(&latencies, 0.5));
            tail.push(quantile(&latencies, 0.99));
            database.pool.close().await;
        }
        let count =
            if projections == 1 { "1 projection".into() } else { format!("{projections} projections") };
        figures.push(Figure::new(format!("{count}, median"), "ms", middle).aim(Aim::Below(15.0)));
        figures.push(Figure::new(format!("{count}, 99 of 100"), "ms", tail).aim(Aim::Below(50.0)));
    }
    Ok(figures)
}

fn name(number: usize) -> String {
    format!("seen_{number}")
}

/// Writes down every event, in the order in which it was applied.
fn projection() -> String {
    "/* foldd\nversion = 1\ncategories = [\"account\"]\n*/\n-- @tables\n\
     create table seen (n bigint generated always as identity primary key, position bigint not null);\n\
     -- @on Deposited\ninsert into seen (position) values (event.global_position);\n"
        .to_owned()
}

/// Milliseconds of each event in each observed projection, while the same daemon builds others: name and text.
pub(crate) async fn latencies(
    database: &Database,
    projections: usize,
    time: Duration,
    builds: &[(String, String)],
) -> anyhow::Result<Vec<f64>> {
    let mut daemon = Daemon::new(Registry::new());
    for (name, text) in builds {
        daemon = daemon.with_sql(name, text);
    }
    for number in 0..projections {
        watch::forget(&format!("{}@1", name(number)));
        daemon = daemon.with_sql(&name(number), &projection());
    }
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let running = tokio::spawn(daemon.run(database.pool.clone(), cancel.clone()));
    for number in 0..projections {
        watch::caught_up(&format!("{}@1", name(number))).await;
    }

    let observed = OBSERVED.min(projections);
    let observed: Vec<usize> = (0..observed).map(|nth| nth * projections / observed).collect();
    let written = CancellationToken::new();
    let conn = database.pool.acquire().await?.detach();
    let watching = tokio::spawn(observe(conn, observed, written.clone()));
    let acknowledged = append(&database.store(), time).await?;
    // The observer stops when it has seen the last one everywhere.
    database
        .execute("select es_append('account-last', null, null, array['Deposited'], array['{}']::jsonb[])")
        .await?;
    written.cancel();
    let seen =
        tokio::time::timeout(PATIENCE, watching).await.context("events were not visible in time")???;
    cancel.cancel();
    running.await??;

    let mut latencies = Vec::new();
    for moments in seen {
        let moments: HashMap<i64, Instant> = moments.into_iter().collect();
        for (position, acknowledged) in &acknowledged {
            let visible = moments.get(position).context("an event is missing in a read model")?;
            latencies.push(visible.saturating_duration_since(*acknowledged).as_secs_f64() * 1e3);
        }
    }
    Ok(latencies)
}

/// Appends at the rate, and says when each event was acknowledged.
async fn append(store: &EventStore, time: Duration) -> anyhow::Result<Moments> {
    let start = Instant::now();
    let period = Duration::from_secs(1) * WRITERS / RATE;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut moments = Vec::new();
            let mut due = interval_at(start + period * writer / WRITERS, period);
            while start.elapsed() < WARM_UP + time {
                due.tick().await;
                let stream_id = format!("account-{}", fastrand::u32(0..20_000));
                let event = AccountEvent::Deposited { cents: 1200, reference: "transfer".to_owned() };
                let appended =
                    store.append(&stream_id, "account", ExpectedVersion::Any, &[Event::new(event)]).await?;
                let answered = Instant::now();
                if answered - start > WARM_UP {
                    moments.push((appended.cursor.global_position, answered));
                }
            }
            anyhow::Ok(moments)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = writers.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

/// Looks at these projections again and again, until everything is written and nothing new has come for a
/// while.
async fn observe(
    mut conn: PgConnection,
    projections: Vec<usize>,
    written: CancellationToken,
) -> anyhow::Result<Vec<Moments>> {
    /// The appends are over long before as many empty answers have come.
    const ENOUGH: u32 = 500;

    let mut seen = vec![Moments::new(); projections.len()];
    let mut last = vec![0_i64; projections.len()];
    let mut empty = 0;
    while !written.is_cancelled() || empty < ENOUGH {
        empty += 1;
        for ((number, last), seen) in projections.iter().zip(&mut last).zip(&mut seen) {
            let sql = format!("select n, position from {}.seen where n > $1 order by n", name(*number));
            let rows: Vec<(i64, i64)> =
                sqlx::query_as(AssertSqlSafe(sql)).bind(*last).fetch_all(&mut conn).await?;
            let now = Instant::now();
            if let Some((n, _)) = rows.last() {
                *last = *n;
                empty = 0;
            }
            seen.extend(rows.into_iter().map(|(_, position)| (position, now)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(seen)
}
