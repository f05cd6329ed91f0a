//! Adopting a store of the plain shape: the three tables as older stores have them, without categories on events.
//!
//! The store stays in use meanwhile. Short transactions add columns; the backfill goes through the log in slices; indexes
//! are built concurrently; only then a last short transaction makes the columns mandatory and applies the other
//! migrations. Interrupted anywhere, the next try continues: every step looks at what is there.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Result;
use super::migrate::{MIGRATIONS, apply_after, ensure_table, record};
use crate::error::EventStoreError;

/// So many positions are backfilled in one transaction: a fraction of a second.
const SLICE: i64 = 10_000;

/// The columns that make a table one of the plain shape.
const PLAIN: [(&str, &[&str]); 3] = [
    ("es_streams", &["stream_id", "stream_category", "stream_version", "created_at", "updated_at"]),
    (
        "es_events",
        &[
            "global_position",
            "stream_id",
            "stream_version",
            "event_type",
            "data",
            "metadata",
            "transaction_id",
            "created_at",
        ],
    ),
    ("es_subscriptions", &["subscription_id", "last_position", "last_transaction_id", "updated_at"]),
];

/// Whether there is a store to adopt. Tables of these names without the plain columns are an error.
pub(crate) async fn is_plain(conn: &mut PgConnection) -> Result<bool> {
    let mut found = 0;
    for (table, wanted) in PLAIN {
        let columns: Option<Vec<String>> = sqlx::query_scalar(
            "select array_agg(attname::text) from pg_attribute
             where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
             having to_regclass($1) is not null",
        )
        .bind(table)
        .fetch_optional(&mut *conn)
        .await?;
        let Some(columns) = columns else { continue };
        found += 1;
        let missing: Vec<_> =
            wanted.iter().filter(|column| !columns.iter().any(|have| have == *column)).collect();
        if let Some(column) = missing.first() {
            return Err(EventStoreError::NotAdoptable { table, problem: format!("has no column {column}") });
        }
    }
    match found {
        0 => Ok(false),
        3 => Ok(true),
        _ => Err(EventStoreError::NotAdoptable {
            table: "es_events",
            problem: "not all of es_streams, es_events and es_subscriptions are there".to_owned(),
        }),
    }
}

/// Brings a plain store to the current schema. The caller holds the migration lock on another connection.
pub(crate) async fn adopt(conn: &mut PgConnection) -> Result<()> {
    add_columns(conn).await?;
    backfill(conn).await?;
    for (index, definition) in [
        (
            "es_events_event_id_key",
            "create unique index concurrently es_events_event_id_key on es_events (event_id)",
        ),
        (
            "es_events_category_order_idx",
            "create index concurrently es_events_category_order_idx
             on es_events (stream_category, transaction_id, global_position)",
        ),
        (
            "es_events_order_idx",
            "create index concurrently es_events_order_idx on es_events (transaction_id, global_position)",
        ),
    ] {
        build_index(conn, index, definition).await?;
    }
    require_values(conn).await?;

    let mut tx = conn.begin().await?;
    finish(&mut tx).await?;
    apply_after(&mut tx, 2).await?;
    tx.commit().await?;
    Ok(())
}

/// From this transaction on, every new event has its category and id, whoever writes it.
async fn add_columns(conn: &mut PgConnection) -> Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql(
        "set local lock_timeout = '5s';
         alter table es_streams add column if not exists last_transaction_id xid8 not null default '0';
         alter table es_events add column if not exists stream_category text;
         alter table es_events add column if not exists event_id uuid;
         alter table es_events alter column event_id set default gen_random_uuid();
         alter table es_subscriptions add column if not exists categories text[];
         alter table es_subscriptions add column if not exists applied_position bigint not null default 0;
         alter table es_subscriptions add column if not exists fence_token bigint not null default 0;
         alter table es_subscriptions add column if not exists holder uuid;
         drop trigger if exists es_events_fill_category on es_events;
         drop function if exists es_fill_category();",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query("select set_config('search_path', quote_ident(n.nspname) || ', pg_temp', true)
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'es_events'::regclass")
        .execute(&mut *tx)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(MIGRATIONS[1].sql)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Fills categories, ids and last stamps, slice by slice, each in a transaction of its own.
async fn backfill(conn: &mut PgConnection) -> Result<()> {
    sqlx::query(
        "update es_streams set stream_category = split_part(stream_id, '-', 1) where stream_category is null",
    )
    .execute(&mut *conn)
    .await?;
    let head: i64 = sqlx::query_scalar("select coalesce(max(global_position), 0) from es_events")
        .fetch_one(&mut *conn)
        .await?;
    let mut from = 0;
    while from < head {
        sqlx::query(
            "update es_events e set stream_category = s.stream_category, event_id = coalesce(e.event_id, gen_random_uuid())
             from es_streams s
             where s.stream_id = e.stream_id and e.global_position > $1 and e.global_position <= $2
               and (e.stream_category is null or e.event_id is null)",
        )
        .bind(from)
        .bind(from + SLICE)
        .execute(&mut *conn)
        .await?;
        from += SLICE;
        tracing::info!(done = from.min(head), of = head, "categories backfilled");
    }
    loop {
        let touched = sqlx::query(
            "update es_streams s set last_transaction_id = newest.transaction_id
             from (select s.stream_id, e.transaction_id from es_streams s
                   join es_events e on e.stream_id = s.stream_id and e.stream_version = s.stream_version
                   where s.last_transaction_id < e.transaction_id limit $1) newest
             where s.stream_id = newest.stream_id and s.last_transaction_id < newest.transaction_id",
        )
        .bind(SLICE)
        .execute(&mut *conn)
        .await?;
        if touched.rows_affected() == 0 {
            return Ok(());
        }
    }
}

/// An index that an interrupted build left invalid is dropped and built again.
async fn build_index(conn: &mut PgConnection, index: &str, definition: &'static str) -> Result<()> {
    let valid: Option<bool> =
        sqlx::query_scalar("select indisvalid from pg_index where indexrelid = to_regclass($1)")
            .bind(index)
            .fetch_optional(&mut *conn)
            .await?;
    if valid == Some(false) {
        sqlx::raw_sql(AssertSqlSafe(format!("drop index concurrently {index}"))).execute(&mut *conn).await?;
    }
    if valid != Some(true) {
        tracing::info!(index, "building concurrently");
        sqlx::raw_sql(definition).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Proves, beside running writers, that the columns can be made mandatory; the final step then need not scan.
async fn require_values(conn: &mut PgConnection) -> Result<()> {
    let statements = [
        "alter table es_events drop constraint if exists es_events_whole",
        "alter table es_events add constraint es_events_whole check (
             stream_id is not null and stream_category is not null and stream_version is not null
             and event_type is not null and data is not null and metadata is not null
             and transaction_id is not null and event_id is not null and created_at is not null) not valid",
        "alter table es_events validate constraint es_events_whole",
        "alter table es_streams drop constraint if exists es_streams_whole",
        "alter table es_streams add constraint es_streams_whole check (
             stream_category is not null and stream_version is not null
             and created_at is not null and updated_at is not null) not valid",
        "alter table es_streams validate constraint es_streams_whole",
    ];
    for statement in statements {
        sqlx::raw_sql(statement).execute(&mut *conn).await.map_err(|error| {
            match error.as_database_error().and_then(|database| database.constraint()) {
                Some("es_events_whole") => EventStoreError::NotAdoptable {
                    table: "es_events",
                    problem: "has rows with nulls, or events of streams that are not in es_streams"
                        .to_owned(),
                },
                Some("es_streams_whole") => EventStoreError::NotAdoptable {
                    table: "es_streams",
                    problem: "has rows with nulls".to_owned(),
                },
                _ => error.into(),
            }
        })?;
    }
    Ok(())
}

async fn finish(tx: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql(
        "set local lock_timeout = '5s';
         alter table es_events
             alter column stream_id set not null, alter column stream_category set not null,
             alter column stream_version set not null, alter column event_type set not null,
             alter column data set not null, alter column metadata set not null,
             alter column transaction_id set not null, alter column event_id set not null,
             alter column created_at set not null;
         alter table es_events drop constraint es_events_whole;
         alter table es_streams
             alter column stream_category set not null, alter column stream_version set not null,
             alter column created_at set not null, alter column updated_at set not null;
         alter table es_streams drop constraint es_streams_whole;
         update es_subscriptions set last_position = coalesce(last_position, 0),
             last_transaction_id = coalesce(last_transaction_id, '0'), updated_at = coalesce(updated_at, now())
         where last_position is null or last_transaction_id is null or updated_at is null;
         update es_subscriptions set applied_position = last_position where applied_position < last_position;
         alter table es_subscriptions
             alter column last_position set not null, alter column last_transaction_id set not null,
             alter column updated_at set not null, alter column updated_at set default now();",
    )
    .execute(&mut *tx)
    .await?;
    ensure_table(tx).await?;
    for migration in &MIGRATIONS[..2] {
        record(tx, migration).await?;
    }
    Ok(())
}
