//! What the read model costs elsewhere: a statement an event, a statement a page, and one statement for
//! everything.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::Instant;

use crate::account::{AccountEvent, CHANGES};
use crate::lab::{Database, rate};

/// What frameworks take for a page.
const PAGE: i64 = 1_000;

/// How a baseline applies the events of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apply {
    /// One statement an event.
    EventByEvent,
    /// Added up by account, then one statement with arrays.
    Arrays,
}

/// An event as a baseline reads it, no more than it needs: stamp, position, stream, data.
type Row = (i64, i64, String, Json<AccountEvent>);

/// Folds the category from its start in pages of a thousand, each read, applied and checkpointed in one
/// transaction, until it is done or the time is over; events a second. It reads its pages in the best known
/// way, as foldd does.
pub(crate) async fn in_client(
    database: &Database,
    category: &str,
    apply: Apply,
    time: Duration,
) -> anyhow::Result<f64> {
    database
        .execute(
            "drop schema if exists rival cascade; create schema rival;
             create table rival.balance (account text primary key, cents bigint not null);
             create table rival.checkpoint (id int primary key, stamp bigint, position bigint);
             insert into rival.checkpoint values (1, 0, 0)",
        )
        .await?;
    let mut conn = database.pool.acquire().await?;
    let started = Instant::now();
    let mut events = 0;
    while started.elapsed() < time {
        let page = page(&mut conn, category, apply).await?;
        if page == 0 {
            break;
        }
        events += page;
    }
    Ok(rate(events, started.elapsed()))
}

async fn page(conn: &mut PgConnection, category: &str, apply: Apply) -> anyhow::Result<i64> {
    let mut tx = conn.begin().await?;
    let (stamp, position): (i64, i64) =
        sqlx::query_as("select stamp, position from rival.checkpoint where id = 1 for update")
            .fetch_one(&mut *tx)
            .await?;
    let page: Vec<Row> = sqlx::query_as(
        "select transaction_id::text::bigint as stamp, global_position as position, stream_id, data
         from es_events
         where (stream_category, transaction_id, global_position) > ($1, $2::text::xid8, $3)
           and (stream_category, transaction_id) < ($1, pg_snapshot_xmin(pg_current_snapshot()))
         order by stream_category, transaction_id, global_position limit $4",
    )
    .bind(category)
    .bind(stamp.to_string())
    .bind(position)
    .bind(PAGE)
    .fetch_all(&mut *tx)
    .await?;
    let Some((stamp, position, ..)) = page.last() else { return Ok(0) };
    match apply {
        Apply::EventByEvent => event_by_event(&mut tx, &page).await?,
        Apply::Arrays => arrays(&mut tx, &page).await?,
    }
    sqlx::query("update rival.checkpoint set stamp = $1, position = $2 where id = 1")
        .bind(stamp)
        .bind(position)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(i64::try_from(page.len())?)
}

async fn event_by_event(tx: &mut PgConnection, page: &[Row]) -> sqlx::Result<()> {
    for (.., account, event) in page {
        sqlx::query(
            "insert into rival.balance as b values ($1, $2)
             on conflict (account) do update set cents = b.cents + excluded.cents",
        )
        .bind(account)
        .bind(event.change())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn arrays(tx: &mut PgConnection, page: &[Row]) -> sqlx::Result<()> {
    let mut changes: BTreeMap<&str, i64> = BTreeMap::new();
    for (.., account, event) in page {
        *changes.entry(account).or_default() += event.change();
    }
    let (accounts, cents): (Vec<&str>, Vec<i64>) = changes.into_iter().unzip();
    sqlx::query(
        "insert into rival.balance as b select * from unnest($1::text[], $2::bigint[])
         on conflict (account) do update set cents = b.cents + excluded.cents",
    )
    .bind(accounts)
    .bind(cents)
    .execute(tx)
    .await?;
    Ok(())
}

/// The limit: the whole read model by one statement, without order, pages or checkpoint, with so much memory; events a
/// second.
pub(crate) async fn at_once(
    database: &Database,
    category: &str,
    events: i64,
    work_mem: &str,
) -> anyhow::Result<f64> {
    database
        .execute(
            "drop schema if exists rival cascade; create schema rival;
             create table rival.balance (account text primary key, cents bigint not null)",
        )
        .await?;
    let sql = format!(
        "insert into rival.balance select {CHANGES} from es_events
         where stream_category = $1 group by stream_id"
    );
    let mut tx = database.pool.begin().await?;
    sqlx::query("select set_config('work_mem', $1, true)").bind(work_mem).execute(&mut *tx).await?;
    let started = Instant::now();
    sqlx::query(AssertSqlSafe(sql)).bind(category).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(rate(events, started.elapsed()))
}
