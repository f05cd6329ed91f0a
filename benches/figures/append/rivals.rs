//! What an append is compared with.

use anyhow::ensure;
use foldd::{Event, EventData};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::Instant;

use crate::lab::Database;

/// Appends as many stores do: a transaction, a statement that moves the stream's version, and one for each
/// event. Into the same tables, whose defaults do the rest. Returns the new version.
pub(super) async fn append<E: EventData>(
    pool: &PgPool,
    stream_id: &str,
    category: &str,
    expected: i64,
    events: &[Event<E>],
) -> anyhow::Result<i64> {
    let version = expected + i64::try_from(events.len())?;
    let mut tx = pool.begin().await?;
    let moved = if expected == 0 {
        sqlx::query(
            "insert into es_streams (stream_id, stream_category, stream_version) values ($1, $2, $3)
             on conflict do nothing",
        )
        .bind(stream_id)
        .bind(category)
        .bind(version)
        .execute(&mut *tx)
        .await?
    } else {
        sqlx::query(
            "update es_streams set stream_version = $1, updated_at = now()
             where stream_id = $2 and stream_version = $3",
        )
        .bind(version)
        .bind(stream_id)
        .bind(expected)
        .execute(&mut *tx)
        .await?
    };
    ensure!(moved.rows_affected() == 1, "stream {stream_id} is not at version {expected}");
    for (event, version) in events.iter().zip(expected + 1..) {
        sqlx::query(
            "insert into es_events (stream_id, stream_category, stream_version, event_type, data, metadata,
                                    event_id)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(stream_id)
        .bind(category)
        .bind(version)
        .bind(event.data.event_type())
        .bind(Json(&event.data))
        .bind(Json(&event.metadata))
        .bind(event.event_id)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(version)
}

/// Appends in the server alone, each in a transaction of its own that nobody waits for, with `es_append` and
/// with a copy of it that has neither stamp nor floor nor lock; microseconds an append, in this order. Small
/// turns, one after the other.
pub(super) async fn cost_of_the_stamp(database: &Database, appends: i64) -> anyhow::Result<(f64, f64)> {
    const TURNS: i64 = 10;

    database.execute("drop schema if exists plain cascade; create schema plain").await?;
    let function: String = sqlx::query_scalar("select pg_get_functiondef('es_append'::regproc)")
        .fetch_one(&database.pool)
        .await?;
    let mut plain = function.clone();
    for (with, without) in [
        ("FUNCTION public.es_append(", "FUNCTION plain.es_append("),
        ("lock table es_events in row exclusive mode;", ""),
        ("greatest(excluded.last_transaction_id, s.last_transaction_id)", "pg_current_xact_id()"),
        ("greatest(es_next_stamp(), s.last_transaction_id)", "pg_current_xact_id()"),
        ("es_next_stamp()", "pg_current_xact_id()"),
    ] {
        ensure!(plain.contains(with), "es_append has changed: there is no {with:?} in it to leave out");
        plain = plain.replace(with, without);
    }
    database.execute(&plain).await?;
    for schema in ["public", "plain"] {
        // A procedure may commit, so a loop in it measures transactions without a client.
        database
            .execute(&format!(
                "create or replace procedure plain.append_to_{schema}(prefix text, appends bigint)
                 language plpgsql as $$
                 begin
                     for i in 1..appends loop
                         perform {schema}.es_append(prefix || i % 500, 'account', null, array['Deposited'],
                                                    array['{{\"cents\": 1200}}']::jsonb[]);
                         commit;
                     end loop;
                 end $$"
            ))
            .await?;
    }
    let mut conn = database.pool.acquire().await?;
    sqlx::raw_sql("set synchronous_commit = off").execute(&mut *conn).await?;
    let mut took = [0.0, 0.0];
    let prefix = uuid::Uuid::now_v7();
    for turn in 0..=TURNS {
        for (nth, schema) in ["public", "plain"].into_iter().enumerate() {
            let each = appends / TURNS;
            let call = format!("call plain.append_to_{schema}('{schema}-{prefix}-', {each})");
            let started = Instant::now();
            sqlx::raw_sql(AssertSqlSafe(call)).execute(&mut *conn).await?;
            // The first turn fills caches.
            if turn > 0 {
                took[nth] += started.elapsed().as_secs_f64() * 1e6 / (each * TURNS) as f64;
            }
        }
    }
    sqlx::raw_sql("reset synchronous_commit").execute(&mut *conn).await?;
    Ok((took[0], took[1]))
}
