//! Pages: what reading the log costs, against the form of the question that does not scale, and against no
//! decoding.

use futures_util::TryStreamExt;
use sqlx::postgres::PgPoolCopyExt;
use tokio::time::Instant;

use foldd::{Cursor, RecordedEvent};

use crate::Extent;
use crate::lab::{Database, Lab, rate};
use crate::report::{Aim, Figure};

const EVENTS: i64 = 800_000;
const ACCOUNTS: i64 = 20_000;
/// Events a page.
const PAGE: i64 = 1_000;
/// So many pages are read in both ways, back from the end of the log. What the slow way costs grows along the
/// log, so over all of it the mean is half of that.
const SAMPLED: i64 = 10;

/// The cursor compared column by column, and the category by a join: correct, and what many stores do.
const JOINED_OR: &str = "
    select e.global_position, e.stream_id, s.stream_category, e.stream_version, e.event_type, e.data,
           e.metadata, e.transaction_id::text::bigint, e.event_id, e.created_at
    from es_events e join es_streams s on s.stream_id = e.stream_id
    where s.stream_category = $1
      and ((e.transaction_id = $2::text::xid8 and e.global_position > $3)
           or e.transaction_id > $2::text::xid8)
      and e.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
    order by e.transaction_id, e.global_position limit $4";

/// The whole category as the driver's server sends it, in order, in the form that costs least to read.
const COPY: &str = "
    copy (select global_position, stream_id, stream_category, stream_version, event_type, data, metadata,
                 transaction_id, event_id, created_at
          from es_events where stream_category = 'account'
          order by stream_category, transaction_id, global_position)
    to stdout (format binary)";

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let lab = Lab::start(&[]).await?;
    let database = lab.database("pages").await?;
    let events = extent.events(EVENTS);
    database.seed("account", events, ACCOUNTS).await?;
    let (mut ours, mut joined, mut decoded, mut copied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=extent.runs {
        tracing::info!("pages: run {run} of {}", extent.runs);
        let (mut fast, mut slow) = (0.0, 0.0);
        for nth in 1..=SAMPLED {
            let position = (events - PAGE * nth).max(0);
            let (one, other) = same_page_twice(&database, position).await?;
            fast += one;
            slow += other;
        }
        ours.push(fast / SAMPLED as f64);
        joined.push(slow / SAMPLED as f64);
        copied.push(copy(&database, events).await?);
        decoded.push(whole(&database, events).await?);
    }
    database.pool.close().await;
    Ok(vec![
        Figure::new("pages of 1,000 at the end of the log, decoded", "ms a page", ours.clone()),
        Figure::new("baseline: category by a join, cursor with `or`", "ms a page", joined).times(
            "as long as ours",
            &ours,
            Some(Aim::AtLeast(50.0)),
        ),
        Figure::new("the whole category in pages of 1,000, decoded", "events/s", decoded).share(
            "binary COPY",
            &copied,
            Some(Aim::AtLeast(0.5)),
        ),
        Figure::new("limit: binary COPY, thrown away undecoded", "events/s", copied),
    ])
}

/// The same page in both ways, in milliseconds; ours first.
async fn same_page_twice(database: &Database, position: i64) -> anyhow::Result<(f64, f64)> {
    let cursor = database.cursor_at(position).await?;
    let started = Instant::now();
    let page = database.store().read_category_after("account", cursor, PAGE).await?;
    let ours = started.elapsed().as_secs_f64() * 1e3;
    let started = Instant::now();
    let other: Vec<RecordedEvent> = sqlx::query_as(JOINED_OR)
        .bind("account")
        .bind(cursor.transaction_id.to_string())
        .bind(cursor.global_position)
        .bind(PAGE)
        .fetch_all(&database.pool)
        .await?;
    let theirs = started.elapsed().as_secs_f64() * 1e3;
    let last = |page: &[RecordedEvent]| page.last().map(RecordedEvent::cursor);
    anyhow::ensure!(last(&page) == last(&other) && page.len() == other.len(), "the two pages differ");
    Ok((ours, theirs))
}

async fn whole(database: &Database, events: i64) -> anyhow::Result<f64> {
    let store = database.store();
    let (mut cursor, mut read) = (Cursor::START, 0);
    let started = Instant::now();
    loop {
        let page = store.read_category_after("account", cursor, PAGE).await?;
        let Some(last) = page.last() else { break };
        cursor = last.cursor();
        read += page.len();
    }
    let took = started.elapsed();
    anyhow::ensure!(i64::try_from(read)? == events, "{read} events were read of {events}");
    Ok(rate(events, took))
}

async fn copy(database: &Database, events: i64) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut bytes = 0;
    let mut chunks = database.pool.copy_out_raw(COPY).await?;
    while let Some(chunk) = chunks.try_next().await? {
        bytes += chunk.len();
    }
    let took = started.elapsed();
    anyhow::ensure!(bytes > 0, "nothing was copied");
    Ok(rate(events, took))
}
