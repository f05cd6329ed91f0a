//! Adopting a store of the plain shape: the three tables as older stores have them, without categories on events.
//!
//! The store stays in use meanwhile. Short transactions add columns; the backfill goes through the log in slices; indexes
//! are built concurrently; only then a last short transaction makes the columns mandatory and applies the other
//! migrations. Interrupted anywhere, the next try continues: every step looks at what is there.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::migrate::{MIGRATIONS, apply_after, ensure_table, record, stay_in_schema};
use super::{Link, Result};
use crate::error::EventStoreError;

/// So many positions are backfilled in one transaction: a fraction of a second.
const SLICE: i64 = 10_000;

/// How often a short step asks for its locks. With the pause and the timeout, it gives up after two minutes.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(100);

/// Everybody else queues behind a step that waits for an exclusive lock, and may hold what the step wants next. It gives
/// up long before PostgreSQL looks for deadlocks (1 s), so that no writer is ever chosen as the victim of one.
const SHORT: &str = "set local lock_timeout = '300ms'";

/// The columns that make a table one of the plain shape, with their types.
const PLAIN: [(&str, &[(&str, &str)]); 3] = [
    (
        "es_streams",
        &[
            ("stream_id", "text"),
            ("stream_category", "text"),
            ("stream_version", "bigint"),
            ("created_at", "timestamp with time zone"),
            ("updated_at", "timestamp with time zone"),
        ],
    ),
    (
        "es_events",
        &[
            ("global_position", "bigint"),
            ("stream_id", "text"),
            ("stream_version", "bigint"),
            ("event_type", "text"),
            ("data", "jsonb"),
            ("metadata", "jsonb"),
            ("transaction_id", "xid8"),
            ("created_at", "timestamp with time zone"),
        ],
    ),
    (
        "es_subscriptions",
        &[
            ("subscription_id", "text"),
            ("last_position", "bigint"),
            ("last_transaction_id", "xid8"),
            ("updated_at", "timestamp with time zone"),
        ],
    ),
];

/// Whether there is a store to adopt. Tables of these names without the plain columns are an error.
pub(crate) async fn is_plain(conn: &mut Link<'_>) -> Result<bool> {
    let mut missing_tables = Vec::new();
    for (table, wanted) in PLAIN {
        let columns: Vec<(String, String)> = sqlx::query_as(
            "select attname::text, format_type(atttypid, null) from pg_attribute
             where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
        )
        .bind(table)
        .fetch_all(&mut *conn)
        .await?;
        if columns.is_empty() {
            missing_tables.push(table);
            continue;
        }
        for (name, kind) in wanted {
            let problem = match columns.iter().find(|(have, _)| have == name) {
                None => format!("has no column {name}"),
                Some((_, have)) if have != kind => format!("its column {name} is {have}, not {kind}"),
                Some(_) => continue,
            };
            return Err(EventStoreError::NotAdoptable { table, problem });
        }
    }
    match (missing_tables.len(), missing_tables.first()) {
        (3, _) => Ok(false),
        (_, None) => Ok(true),
        (_, Some(missing)) => {
            let there = PLAIN.iter().find(|(table, _)| !missing_tables.contains(table));
            Err(EventStoreError::NotAdoptable {
                table: there.map_or("es_events", |(table, _)| table),
                problem: format!("{missing} does not"),
            })
        }
    }
}

/// A store of the plain shape that could be adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlainStore {
    /// The greatest position of its log; 0 while it is empty.
    pub(crate) last_position: i64,
    /// How many checkpoints other programs keep in it.
    pub(crate) checkpoints: i64,
}

/// What there is to adopt; `None` when there is no store at all.
pub(crate) async fn plain_store(conn: &mut Link<'_>) -> Result<Option<PlainStore>> {
    if !is_plain(conn).await? {
        return Ok(None);
    }
    let (last_position, checkpoints) = sqlx::query_as(
        "select (select coalesce(max(global_position), 0) from es_events), (select count(*) from es_subscriptions)",
    )
    .fetch_one(conn)
    .await?;
    Ok(Some(PlainStore { last_position, checkpoints }))
}

/// Brings a plain store to the current schema. The caller holds the migration lock on another connection.
pub(crate) async fn adopt(conn: &mut Link<'_>) -> Result<()> {
    for step in COLUMNS {
        short(conn, Step::Run(step)).await?;
    }
    short(conn, Step::FillTrigger).await?;
    let since = backfill(conn).await?;
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

    short(conn, Step::Finish { since }).await?;
    Ok(())
}

/// From here on, every new row has a value in every column, whoever writes it. One table a step: while it waits for a
/// lock it holds no other.
const COLUMNS: [&str; 3] = [
    "alter table es_streams
         add column if not exists last_transaction_id xid8 not null default '0',
         alter column created_at set default now(), alter column updated_at set default now()",
    "alter table es_events
         add column if not exists stream_category text,
         add column if not exists event_id uuid,
         alter column event_id set default gen_random_uuid(), alter column metadata set default '{}',
         alter column created_at set default now()",
    "alter table es_subscriptions
         add column if not exists categories text[],
         add column if not exists applied_position bigint not null default 0,
         add column if not exists fence_token bigint not null default 0,
         add column if not exists holder uuid,
         add column if not exists drawn_position bigint,
         alter column last_position set default 0, alter column last_transaction_id set default '0',
         alter column updated_at set default now()",
];

/// The migration that fills in the category of events that are only inserted.
async fn fill_trigger(tx: &mut Link<'_>) -> Result<()> {
    stay_in_schema(tx).await?;
    sqlx::raw_sql(
        "drop trigger if exists es_events_fill_category on es_events; drop function if exists es_fill_category()",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(MIGRATIONS[1].sql)).execute(tx).await?;
    Ok(())
}

/// Fills what plain rows lack, slice by slice, each in a transaction of its own. Writers go on meanwhile, so a pass ends
/// when it finds less than a slice. Returns the xid from which on older writers may have left the last stamp of a stream
/// behind.
async fn backfill(conn: &mut Link<'_>) -> Result<i64> {
    let streams = format!(
        "update es_streams set stream_category = coalesce(stream_category, split_part(stream_id, '-', 1)),
             created_at = coalesce(created_at, now()), updated_at = coalesce(updated_at, now())
         where stream_id in (select stream_id from es_streams
             where stream_category is null or created_at is null or updated_at is null limit {SLICE})"
    );
    while short(conn, Step::Run(&streams)).await? == SLICE.unsigned_abs() {}

    let head: i64 = sqlx::query_scalar("select coalesce(max(global_position), 0) from es_events")
        .fetch_one(&mut *conn)
        .await?;
    let mut from: i64 = sqlx::query_scalar("select coalesce(min(global_position), 0) - 1 from es_events")
        .fetch_one(&mut *conn)
        .await?;
    while from < head {
        let up_to = from + SLICE;
        let slice = format!(
            "update es_events e
             set stream_category = s.stream_category, event_id = coalesce(e.event_id, gen_random_uuid()),
                 metadata = coalesce(e.metadata, '{{}}'), created_at = coalesce(e.created_at, now())
             from es_streams s
             where s.stream_id = e.stream_id and e.global_position > {from} and e.global_position <= {up_to}
               and (e.stream_category is null or e.event_id is null or e.metadata is null or e.created_at is null)"
        );
        short(conn, Step::Run(&slice)).await?;
        from = up_to;
        tracing::info!(done = from.min(head), of = head, "categories backfilled");
    }

    let stamps = format!(
        "update es_streams s set last_transaction_id = newest.transaction_id
         from (select s.stream_id, e.transaction_id from es_streams s
               join es_events e on e.stream_id = s.stream_id and e.stream_version = s.stream_version
               where s.last_transaction_id < e.transaction_id limit {SLICE}) newest
         where s.stream_id = newest.stream_id and s.last_transaction_id < newest.transaction_id"
    );
    let since = sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        .fetch_one(&mut *conn)
        .await?;
    while short(conn, Step::Run(&stamps)).await? == SLICE.unsigned_abs() {}
    Ok(since)
}

/// What a short transaction does.
#[derive(Clone, Copy)]
enum Step<'s> {
    Run(&'s str),
    FillTrigger,
    Finish { since: i64 },
}

impl Step<'_> {
    /// Returns how many rows were changed.
    async fn take(self, tx: &mut Link<'_>) -> Result<u64> {
        match self {
            Self::Run(sql) => {
                return Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(tx).await?.rows_affected());
            }
            Self::FillTrigger => fill_trigger(tx).await?,
            Self::Finish { since } => finish(tx, since).await?,
        }
        Ok(0)
    }
}

/// Takes a step in a short transaction, again and again until nobody is in its way.
async fn short(conn: &mut Link<'_>, step: Step<'_>) -> Result<u64> {
    let mut tries = 1;
    loop {
        let mut tx = conn.begin().await?;
        sqlx::query(SHORT).execute(&mut tx).await?;
        match step.take(&mut tx).await {
            Ok(rows) => {
                tx.commit().await?;
                return Ok(rows);
            }
            Err(EventStoreError::Database(sqlx::Error::Database(error)))
                if tries < TRIES && matches!(error.code().as_deref(), Some("55P03" | "40P01")) =>
            {
                tx.rollback().await?;
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// An index that an interrupted build left invalid is dropped and built again.
async fn build_index(conn: &mut Link<'_>, index: &str, definition: &'static str) -> Result<()> {
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
async fn require_values(conn: &mut Link<'_>) -> Result<()> {
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
        short(conn, Step::Run(statement)).await.map_err(|error| {
            let EventStoreError::Database(error) = error else { return error };
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
                _ => EventStoreError::Database(error),
            }
        })?;
    }
    Ok(())
}

/// Makes the columns mandatory and applies the other migrations, while nobody is in the middle of anything. Tables are
/// locked in the order of writers, the stream's row first.
async fn finish(tx: &mut Link<'_>, since: i64) -> Result<()> {
    stay_in_schema(tx).await?;
    sqlx::raw_sql(
        "lock table es_streams, es_events, es_subscriptions in access exclusive mode;
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
         alter table es_streams set (fillfactor = 80);
         update es_subscriptions set last_position = coalesce(last_position, 0),
             last_transaction_id = coalesce(last_transaction_id, '0'), updated_at = coalesce(updated_at, now())
         where last_position is null or last_transaction_id is null or updated_at is null;
         update es_subscriptions set applied_position = last_position where applied_position < last_position;
         alter table es_subscriptions
             alter column last_position set not null, alter column last_transaction_id set not null,
             alter column updated_at set not null;
         alter table es_subscriptions set (fillfactor = 50);",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update es_streams s set last_transaction_id = e.transaction_id from es_events e
         where e.transaction_id >= $1::text::xid8 and e.stream_id = s.stream_id and e.stream_version = s.stream_version
           and s.last_transaction_id < e.transaction_id",
    )
    .bind(since)
    .execute(&mut *tx)
    .await?;
    sqlx::raw_sql(POSITIONS).execute(&mut *tx).await?;
    ensure_table(tx).await?;
    for migration in &MIGRATIONS[..2] {
        record(tx, migration).await?;
    }
    apply_after(tx, 2).await?;
    // What is there was inserted without es_append.
    sqlx::query("select nextval('es_foreign_writes')").execute(tx).await?;
    Ok(())
}

/// Positions come from an identity column, as in a new store: whoever may insert may draw one, and it has cache 1. It
/// continues where the old sequence stands, so that no position is drawn twice, not even one that was rolled back.
const POSITIONS: &str = "do $$
    declare
        next bigint := (select coalesce(max(global_position), 0) + 1 from es_events);
        old  text := pg_get_serial_sequence('es_events', 'global_position');
    begin
        if (select attidentity from pg_attribute where attrelid = 'es_events'::regclass and attname = 'global_position') = '' then
            if old is not null then
                next := greatest(next, nextval(old));
            end if;
            alter table es_events alter column global_position drop default;
            if old is not null then
                execute 'drop sequence ' || old;
            end if;
            execute format('alter table es_events alter column global_position
                add generated by default as identity (start with %s)', next);
        end if;
    end $$";
