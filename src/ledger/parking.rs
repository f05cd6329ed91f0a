//! What a batch does with events that are parked: passes them by, parks one more, or applies them after all.
//!
//! The rules stand in `migrations/0011_dead_letters.sql`; this is how a batch asks for them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::types::Json;

use super::lease::Lease;
use super::phases::Trouble;
use crate::cursor::Cursor;
use crate::store::{Horizon, Link, Page};

/// Which events a batch applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Care {
    /// A page, whole. Refused while streams are quarantined.
    Whole,
    /// A page without what is parked: the events of quarantined streams, and from now on this one.
    Around(Option<Letter>),
    /// Instead of a page the parked events of this stream that somebody wants retried.
    Retry(String),
}

/// An event to be parked, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Letter {
    /// Its global position.
    pub(crate) position: i64,
    /// Whether every later event of its stream is parked as well.
    pub(crate) quarantine: bool,
    /// With events of more streams parked, the batch is refused.
    pub(crate) most_streams: u32,
    /// What happened.
    pub(crate) error: Trouble,
}

/// A [`Care`] as the database's functions take it.
#[derive(Debug, Serialize)]
pub(crate) struct Slip<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    letter: Option<&'a Letter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<&'a str>,
    guard: bool,
}

impl Care {
    /// What the compiled function is told; `None` for a whole page. `guard` has it look at the order of streams.
    pub(crate) fn slip(&self, guard: bool) -> Option<Json<Slip<'_>>> {
        let (letter, retry) = match self {
            Self::Whole => return None,
            Self::Around(letter) => (letter.as_ref(), None),
            Self::Retry(stream_id) => (None, Some(stream_id.as_str())),
        };
        Some(Json(Slip { letter, retry, guard }))
    }
}

/// A page from which the parked events have been taken.
pub(crate) struct Sorted {
    /// How many events it had.
    pub(crate) scanned: i64,
    /// How many of them are the subscription's own.
    pub(crate) own: i64,
    /// How many of those are parked.
    pub(crate) parked: i64,
    /// Where it ends; where it began, in a retry.
    pub(crate) to: Option<Cursor>,
    /// When its oldest event was appended.
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// Parks what is to be parked of a page; the rest is there for [`read_rest`](crate::store::read_rest).
pub(crate) async fn set_aside(
    tx: &mut Link<'_>,
    subscription_id: &str,
    page: Page<'_>,
    horizon: &Horizon,
    slip: &Json<Slip<'_>>,
) -> sqlx::Result<Sorted> {
    let (scanned, own, parked, stamp, position, oldest): (
        Option<i64>,
        i64,
        i64,
        Option<i64>,
        Option<i64>,
        _,
    ) = sqlx::query_as(
        "select scanned, own, parked, transaction_id::text::bigint, global_position, oldest
             from foldd.es_set_aside($1, $2, $3::xid8, $4, $5, $6::xid8, $7, $8)",
    )
    .bind(subscription_id)
    .bind(page.categories)
    .bind(page.after.transaction_id.to_string())
    .bind(page.after.global_position)
    .bind(page.max_events)
    .bind(horizon.transaction_id().to_string())
    .bind(page.max_bytes)
    .bind(slip)
    .fetch_one(tx)
    .await?;
    let to = stamp.zip(position).map(|(stamp, position)| Cursor::from((stamp.cast_unsigned(), position)));
    Ok(Sorted { scanned: scanned.unwrap_or_default(), own, parked, to, oldest })
}

/// What was retried is applied: its letters go. Returns whether events must still be passed by.
pub(crate) async fn set_right(
    tx: &mut Link<'_>,
    subscription_id: &str,
    slip: &Json<Slip<'_>>,
    applied: i64,
) -> sqlx::Result<bool> {
    sqlx::query_scalar("select foldd.es_set_right($1, $2, $3)")
        .bind(subscription_id)
        .bind(slip)
        .bind(applied)
        .fetch_one(tx)
        .await
}

/// How many events one partition of several is still to apply, of those that came since a horizon; `None` for all.
pub(crate) async fn count_own(
    conn: &mut Link<'_>,
    subscription_id: &str,
    since: Option<u64>,
    horizon: &Horizon,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("select es_count_own_after($1, $2::xid8, $3::xid8)")
        .bind(subscription_id)
        .bind(since.unwrap_or_default().to_string())
        .bind(horizon.transaction_id().to_string())
        .fetch_one(conn)
        .await
}

/// How many events a subscription has below a horizon in all, where that is cheaper to know than what is left of them.
pub(crate) async fn count_own_by_streams(
    conn: &mut Link<'_>,
    subscription_id: &str,
    horizon: &Horizon,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("select es_count_own_by_streams($1, $2::xid8)")
        .bind(subscription_id)
        .bind(horizon.transaction_id().to_string())
        .fetch_one(conn)
        .await
}

/// A parked event that somebody wants retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stream_id: String,
    pub(crate) position: i64,
}

/// The first event of the stream whose retry was asked for first; `None` when nobody wants any.
pub(crate) async fn next_wanted(conn: &mut Link<'_>, subscription_id: &str) -> sqlx::Result<Option<Wanted>> {
    let wanted: Option<(String, i64)> = sqlx::query_as(
        "select d.stream_id, d.global_position from es_dead_letters d
         where d.subscription_id = $1 and d.retry_wanted_at is not null and d.discarded_at is null
         order by d.retry_wanted_at, d.stream_id, d.stream_version limit 1",
    )
    .bind(subscription_id)
    .fetch_optional(conn)
    .await?;
    Ok(wanted.map(|(stream_id, position)| Wanted { stream_id, position }))
}

/// Notes on which event a retry failed; `None` is the first one wanted. It and what comes after it in its stream stay
/// parked.
pub(crate) async fn retry_failed(
    conn: &mut Link<'_>,
    subscription_id: &str,
    lease: &Lease,
    stream_id: &str,
    position: Option<i64>,
    trouble: &Trouble,
) -> sqlx::Result<()> {
    sqlx::query("select foldd.es_retry_failed($1, $2, $3, $4, $5)")
        .bind(subscription_id)
        .bind(lease.fence_token)
        .bind(stream_id)
        .bind(position)
        .bind(Json(trouble))
        .execute(conn)
        .await?;
    Ok(())
}
