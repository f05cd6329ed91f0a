//! A stretch of the log, from its start on, folded page by page.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use super::{Body, OnProgress, Scratch, ScratchError};
use crate::cursor::Cursor;
use crate::engine::pace::Pace;
use crate::projection::sql::{quote_ident, quote_literal};
use crate::store::Link;

/// What a page may take: progress is shown so often, and an interrupt heard.
const PAGE_TIME: Duration = Duration::from_millis(500);
/// The largest page, in events and in bytes of their data.
const MOST_EVENTS: i64 = 400_000;
const MOST_BYTES: i64 = 64 << 20;
/// A Rust handler's page is held in this process's memory.
const MOST_HOSTED: i64 = 64_000;
/// From this page size on, the planner is told that the page is large.
const BULK_PAGE: i64 = 20_000;

/// Which events are folded.
pub(super) struct Span<'a> {
    /// `None` for all categories.
    pub(super) categories: Option<&'a [String]>,
    /// Nothing up to here is folded.
    pub(super) after: Cursor,
    /// Nothing behind it is folded.
    pub(super) to: Cursor,
    /// A further condition on the event `e`, as SQL; `None` when every event up to there is folded.
    pub(super) condition: Option<String>,
}

/// How far a fold has come.
pub(super) struct Reached {
    pub(super) folded: i64,
    pub(super) after: Cursor,
    /// Whether the stretch is done.
    pub(super) end: bool,
}

impl Scratch {
    /// Folds the stretch, or so many pages of it.
    pub(super) async fn fold_span(
        &self,
        tx: &mut Link<'_>,
        span: &Span<'_>,
        pace: &mut Pace,
        mut pages: Option<u32>,
        progress: OnProgress<'_>,
    ) -> Result<Reached, ScratchError> {
        let store = quote_ident(&self.store_schema);
        // The first stamp that no event of the stretch has.
        let horizon = match span.to.global_position {
            0 => span.to.transaction_id,
            _ => span.to.transaction_id.saturating_add(1),
        };
        self.create_page(tx, &store, span, horizon).await?;
        let (mut after, mut folded, mut bulk) = (span.after, 0, false);
        while after < span.to && pages != Some(0) {
            pages = pages.map(|pages| pages - 1);
            let most = pace.page(PAGE_TIME);
            if most >= BULK_PAGE && !bulk {
                sqlx::raw_sql("alter function pg_temp.es_page() rows 200000").execute(&mut *tx).await?;
                bulk = true;
            }
            let started = Instant::now();
            let Some((events, to)) = self.extent(tx, span, after, most, horizon).await? else {
                after = span.to;
                break;
            };
            let kept = if span.condition.is_none() && to <= span.to {
                events
            } else {
                sqlx::query_scalar("select count(*) from pg_temp.es_page()").fetch_one(&mut *tx).await?
            };
            if kept > 0 {
                self.fold(tx, kept).await?;
            }
            pace.committed(events, started.elapsed(), events >= most);
            after = to;
            folded += kept;
            progress(events);
        }
        Ok(Reached { folded, after, end: after >= span.to })
    }

    /// The largest page.
    pub(super) fn most_events(&self) -> i64 {
        match self.body {
            Body::Sql(_) => MOST_EVENTS,
            Body::Rust(_) => MOST_HOSTED,
        }
    }

    /// How many events of these categories lie up to a cursor, or a little behind it.
    pub(super) async fn count_to(
        &self,
        tx: &mut Link<'_>,
        categories: Option<&[String]>,
        to: Cursor,
    ) -> Result<i64, ScratchError> {
        Ok(sqlx::query_scalar(AssertSqlSafe(format!(
            "select {}.es_count_after($1, '0', 0, $2::xid8)",
            quote_ident(&self.store_schema)
        )))
        .bind(categories)
        .bind(to.transaction_id.saturating_add(1).to_string())
        .fetch_one(tx)
        .await?)
    }

    /// `pg_temp.es_page` and `pg_temp.batch`, whose bounds come from settings that the planner cannot see.
    async fn create_page(
        &self,
        tx: &mut Link<'_>,
        store: &str,
        span: &Span<'_>,
        horizon: u64,
    ) -> Result<(), ScratchError> {
        let categories = match span.categories {
            None => "null".to_owned(),
            Some(names) => {
                let names: Vec<String> = names.iter().map(|name| quote_literal(name)).collect();
                format!("array[{}]::text[]", names.join(", "))
            }
        };
        let condition =
            span.condition.as_ref().map(|condition| format!(" and ({condition})")).unwrap_or_default();
        let body = format!(
            "begin
    return query select e.* from {store}.es_read_after(
        {categories}, current_setting('foldd.after_transaction_id')::xid8,
        current_setting('foldd.after_position')::bigint, current_setting('foldd.page_events')::bigint,
        '{horizon}'::xid8) e
    where (e.transaction_id, e.global_position) <= ('{}'::xid8, {}){condition};
end",
            span.to.transaction_id, span.to.global_position
        );
        // Categories are anybody's text, so no fixed dollar quote would do.
        sqlx::raw_sql(AssertSqlSafe(format!(
            "create function pg_temp.es_page() returns setof {store}.es_events
             language plpgsql stable rows 1000 set search_path = pg_catalog as {};
             create view pg_temp.batch as select * from pg_temp.es_page()",
            quote_literal(&body)
        )))
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Sets the bounds of the page that begins behind a cursor, and says how many events it has and where it ends; `None`
    /// behind the last one.
    async fn extent(
        &self,
        tx: &mut Link<'_>,
        span: &Span<'_>,
        after: Cursor,
        most: i64,
        horizon: u64,
    ) -> Result<Option<(i64, Cursor)>, ScratchError> {
        let (events, stamp, position): (Option<i64>, Option<i64>, Option<i64>) =
            sqlx::query_as(AssertSqlSafe(format!(
                "select page.events, page.transaction_id::text::bigint, page.global_position
                 from {}.es_extent_after($1, $2::xid8, $3, $4, $5::xid8, $6) page
                 cross join lateral (select set_config('foldd.page_events', coalesce(page.events, 0)::text, true),
                     set_config('foldd.after_transaction_id', $2, true),
                     set_config('foldd.after_position', $3::text, true)) as bounds",
                quote_ident(&self.store_schema)
            )))
            .bind(span.categories)
            .bind(after.transaction_id.to_string())
            .bind(after.global_position)
            .bind(most)
            .bind(horizon.to_string())
            .bind(MOST_BYTES)
            .fetch_one(tx)
            .await?;
        let to = stamp.zip(position).map(|(stamp, position)| Cursor::from((stamp.cast_unsigned(), position)));
        Ok(events.filter(|events| *events > 0).zip(to))
    }
}
