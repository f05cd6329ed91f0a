//! Reading: streams, pages of the log, and how far a subscription is behind.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgExecutor, Row};

use super::{EventStore, Horizon, Link, Result};
use crate::cursor::Cursor;
use crate::error::EventStoreError;
use crate::event::RecordedEvent;
use crate::stream::{ReadDirection, StreamQuery};

/// The columns of a [`RecordedEvent`], as a row is decoded below. `xid8` has no binary form in the driver.
macro_rules! recorded_event {
    () => {
        "global_position, stream_id, stream_category, stream_version, event_type, data, metadata, \
         transaction_id::text::bigint, event_id, created_at"
    };
}

/// The events of one stream between two versions, the first one excluded.
pub(crate) const RECORDED_IN_SCOPE: &str = concat!(
    "select ",
    recorded_event!(),
    " from es_events where stream_id = $1 and stream_version > $2 and stream_version <= $3 order by stream_version"
);

impl FromRow<'_, PgRow> for RecordedEvent {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let Json(data) = row.try_get(5)?;
        let Json(metadata) = row.try_get(6)?;
        Ok(Self {
            global_position: row.try_get(0)?,
            stream_id: row.try_get(1)?,
            stream_category: row.try_get(2)?,
            stream_version: row.try_get(3)?,
            event_type: row.try_get(4)?,
            data,
            metadata,
            transaction_id: row.try_get::<i64, _>(7)?.cast_unsigned(),
            event_id: row.try_get(8)?,
            created_at: row.try_get(9)?,
        })
    }
}

/// How far a subscription is behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lag {
    /// The events of its categories after its checkpoint and up to the horizon.
    pub events: i64,
    /// How old the first of them is, by the server's clock; zero when there is none.
    pub oldest_age: Duration,
}

impl EventStore {
    /// Reads a stream, or the part of it that `query` names. A missing stream is an empty one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_stream(&self, stream_id: &str, query: StreamQuery) -> Result<Vec<RecordedEvent>> {
        self.read_stream_with(&mut self.link().await?, stream_id, query).await
    }

    /// Reads as [`read_stream`](Self::read_stream) does, on a connection or in a transaction of the caller's.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_stream_with<'c>(
        &self,
        executor: impl PgExecutor<'c>,
        stream_id: &str,
        query: StreamQuery,
    ) -> Result<Vec<RecordedEvent>> {
        read_stream(executor, stream_id, query).await
    }

    /// Whether a stream exists. One round trip, no events.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn stream_exists(&self, stream_id: &str) -> Result<bool> {
        Ok(sqlx::query_scalar("select exists (select from es_streams where stream_id = $1)")
            .bind(stream_id)
            .fetch_one(&mut self.link().await?)
            .await?)
    }

    /// At most `limit` committed events after a cursor, in (stamp, position) order: gapless, and safe to store the last
    /// one's cursor as a checkpoint, since nothing can appear behind it any more. Fewer than `limit` mean
    /// that the rest is not there yet, or not below the horizon.
    ///
    /// ```no_run
    /// # async fn example(store: foldd::EventStore) -> Result<(), foldd::EventStoreError> {
    /// let mut checkpoint = foldd::Cursor::START;
    /// loop {
    ///     let page = store.read_all_after(checkpoint, 1_000).await?;
    ///     let Some(last) = page.last() else { break };
    ///     for event in &page {
    ///         println!("{} {} {}", event.stream_id, event.event_type, event.data);
    ///     }
    ///     // Store it in the transaction that stores what you made of the page.
    ///     checkpoint = last.cursor();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_all_after(&self, after: impl Into<Cursor>, limit: i64) -> Result<Vec<RecordedEvent>> {
        read_page(&mut self.link().await?, None, after.into(), limit).await
    }

    /// As [`read_all_after`](Self::read_all_after), the events of one category.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_category_after(
        &self,
        category: &str,
        after: impl Into<Cursor>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>> {
        read_page(&mut self.link().await?, Some(&[category.to_owned()]), after.into(), limit).await
    }

    /// As [`read_all_after`](Self::read_all_after), the events of several categories, merged in order.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read_categories_after(
        &self,
        categories: &[String],
        after: impl Into<Cursor>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>> {
        read_page(&mut self.link().await?, Some(categories), after.into(), limit).await
    }

    /// How far a projection is behind: exact, of its categories, after its checkpoint, over all its partitions. Its id is
    /// `name@version`, such as `fines@2`; that of a partition `fines@2/0`.
    ///
    /// # Errors
    /// [`UnknownSubscription`](EventStoreError::UnknownSubscription) when there is no such subscription.
    pub async fn projection_lag(&self, subscription_id: &str) -> Result<Lag> {
        let mut conn = self.link().await?;
        let horizon = super::glance(&mut conn).await?.horizon;
        let row: Option<(i64, Option<f64>)> = sqlx::query_as(
            "select sum(case when s.partitions = 1 and s.floors is null
                             then es_count_after(s.categories, s.last_transaction_id, s.last_position, $2::xid8)
                             else es_count_own_after(s.subscription_id, '0', $2::xid8) end)::bigint,
                    max((select extract(epoch from clock_timestamp() - e.created_at)::float8
                         from es_next_own(s.subscription_id, $2::xid8) e))
             from es_subscriptions s where $1 in (s.projection_id, s.subscription_id)
             having count(*) > 0",
        )
        .bind(subscription_id)
        .bind(horizon.transaction_id().to_string())
        .fetch_optional(&mut conn)
        .await?;
        let (events, age) =
            row.ok_or_else(|| EventStoreError::UnknownSubscription(subscription_id.to_owned()))?;
        // A writer's clock_timestamp may be a hair ahead of ours: ages below zero are zero.
        let oldest_age = age.and_then(|age| Duration::try_from_secs_f64(age).ok()).unwrap_or_default();
        Ok(Lag { events, oldest_age })
    }
}

pub(crate) async fn read_stream<'c>(
    executor: impl PgExecutor<'c>,
    stream_id: &str,
    query: StreamQuery,
) -> Result<Vec<RecordedEvent>> {
    let forward = concat!(
        "select ",
        recorded_event!(),
        " from es_events
         where stream_id = $1 and stream_version >= coalesce($2, 1) order by stream_version limit $3"
    );
    let backward = concat!(
        "select ",
        recorded_event!(),
        " from es_events
         where stream_id = $1 and stream_version <= coalesce($2, 9223372036854775807)
         order by stream_version desc limit $3"
    );
    let sql = match query.direction {
        ReadDirection::Forward => forward,
        ReadDirection::Backward => backward,
    };
    Ok(sqlx::query_as(sql)
        .bind(stream_id)
        .bind(query.from_version)
        .bind(query.limit)
        .fetch_all(executor)
        .await?)
}

/// One page of the log. `categories` of `None` is all of them; a horizon of `None` is tier 0 of this very statement.
pub(crate) async fn read_page<'c>(
    executor: impl PgExecutor<'c>,
    categories: Option<&[String]>,
    after: Cursor,
    limit: i64,
) -> Result<Vec<RecordedEvent>> {
    let one = concat!(
        "select ",
        recorded_event!(),
        " from es_read_category_after(($1::text[])[1], $2::xid8, $3, $4)"
    );
    let any = concat!("select ", recorded_event!(), " from es_read_after($1, $2::xid8, $3, $4)");
    Ok(sqlx::query_as(if categories.is_some_and(|names| names.len() == 1) { one } else { any })
        .bind(categories)
        .bind(after.transaction_id.to_string())
        .bind(after.global_position)
        .bind(limit)
        .fetch_all(executor)
        .await?)
}

/// The bounds of a page that is read for a handler.
pub(crate) struct Page<'a> {
    /// `None` for all categories.
    pub(crate) categories: Option<&'a [String]>,
    pub(crate) after: Cursor,
    pub(crate) max_events: i64,
    pub(crate) max_bytes: i64,
}

/// One page below a proven horizon, wherever the connection's search path points.
///
/// The horizon is consumed: it was proven before this statement begins, and only so is the page gapless.
pub(crate) async fn read_page_in(
    conn: &mut Link<'_>,
    store_schema: &str,
    page: Page<'_>,
    horizon: Horizon,
) -> sqlx::Result<Vec<RecordedEvent>> {
    let one = page.categories.is_some_and(|names| names.len() == 1);
    let reader = if one { "es_read_category_after(($1::text[])[1]" } else { "es_read_after($1" };
    let sql = format!(
        "select {} from \"{}\".{reader}, $2::xid8, $3, $4, $5::xid8, $6)",
        recorded_event!(),
        store_schema.replace('"', "\"\"")
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(page.categories)
        .bind(page.after.transaction_id.to_string())
        .bind(page.after.global_position)
        .bind(page.max_events)
        .bind(horizon.transaction_id().to_string())
        .bind(page.max_bytes)
        .fetch_all(conn)
        .await
}

/// What is left of a page from which the parked events have been taken, in this transaction.
pub(crate) async fn read_rest(conn: &mut Link<'_>) -> sqlx::Result<Vec<RecordedEvent>> {
    sqlx::query_as(concat!("select ", recorded_event!(), " from foldd_parking.es_page()"))
        .fetch_all(conn)
        .await
}

/// The page that a copy aside is folded from, in this transaction.
pub(crate) async fn read_scratch(conn: &mut Link<'_>) -> sqlx::Result<Vec<RecordedEvent>> {
    sqlx::query_as(concat!("select ", recorded_event!(), " from pg_temp.es_page()")).fetch_all(conn).await
}

/// One page of the log, event by event as they arrive: whatever their sizes, one is held at a time.
pub(crate) fn stream_page<'c>(
    conn: &'c mut Link<'_>,
    categories: Option<&'c [String]>,
    after: Cursor,
    limit: i64,
    horizon: &Horizon,
) -> BoxStream<'c, sqlx::Result<RecordedEvent>> {
    let sql = concat!("select ", recorded_event!(), " from es_read_after($1, $2::xid8, $3, $4, $5::xid8)");
    sqlx::query_as(sql)
        .bind(categories)
        .bind(after.transaction_id.to_string())
        .bind(after.global_position)
        .bind(limit)
        .bind(horizon.transaction_id().to_string())
        .fetch(conn)
}

/// How many events of these categories (`None`: all) lie after a cursor and below a horizon.
pub(crate) async fn count_after(
    conn: &mut Link<'_>,
    categories: Option<&[String]>,
    after: Cursor,
    horizon: &Horizon,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("select es_count_after($1, $2::xid8, $3, $4::xid8)")
        .bind(categories)
        .bind(after.transaction_id.to_string())
        .bind(after.global_position)
        .bind(horizon.transaction_id().to_string())
        .fetch_one(conn)
        .await
}

/// Behind the last committed event, readable already or not; the start of an empty log.
pub(crate) async fn head(conn: &mut Link<'_>) -> Result<Cursor> {
    let last: Option<(i64, i64)> = sqlx::query_as(
        "select transaction_id::text::bigint, global_position from es_events
         order by transaction_id desc, global_position desc limit 1",
    )
    .fetch_optional(conn)
    .await?;
    Ok(last.map_or(Cursor::START, |(stamp, position)| Cursor::from((stamp.cast_unsigned(), position))))
}

/// The cursors of the events at these positions; those that have none yet are left out.
///
/// A position that was drawn and rolled back never gets an event: once there are higher ones and nothing is running
/// that could still fill it, the event before it stands for it.
pub(crate) async fn cursors_of(conn: &mut Link<'_>, positions: &[i64]) -> Result<HashMap<i64, Cursor>> {
    let found: Vec<(i64, i64, i64)> = sqlx::query_as(
        "select wanted.position, e.transaction_id::text::bigint, e.global_position
         from unnest($1::bigint[]) as wanted (position)
         cross join lateral (
             select transaction_id, global_position from es_events
             where global_position <= wanted.position
               and (exists (select from es_events where global_position = wanted.position)
                    or (exists (select from es_events where global_position > wanted.position)
                        and es_horizon() = es_counted(pg_snapshot_xmax(pg_current_snapshot()))))
             order by global_position desc limit 1) e",
    )
    .bind(positions)
    .fetch_all(conn)
    .await?;
    let cursor = |(wanted, stamp, position): (i64, i64, i64)| {
        (wanted, Cursor::from((stamp.cast_unsigned(), position)))
    };
    Ok(found.into_iter().map(cursor).collect())
}
