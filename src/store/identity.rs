//! Which events are in the log already, asked by their `event_id`: one index look-up per question.

use std::ops::RangeInclusive;

use uuid::Uuid;

use super::{Link, Result};

/// Where an event of a known id stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) event_id: Uuid,
    pub(crate) stream_id: String,
    pub(crate) stream_version: i64,
    pub(crate) event_type: String,
}

/// Those of these ids that are in the log.
pub(crate) async fn known(conn: &mut Link<'_>, ids: &[Uuid]) -> Result<Vec<Known>> {
    let rows: Vec<(Uuid, String, i64, String)> = sqlx::query_as(
        "select event_id, stream_id, stream_version, event_type from es_events where event_id = any ($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let known = |(event_id, stream_id, stream_version, event_type)| Known {
        event_id,
        stream_id,
        stream_version,
        event_type,
    };
    Ok(rows.into_iter().map(known).collect())
}

/// All ids of the log within a range, in order.
pub(crate) async fn ids_in(conn: &mut Link<'_>, range: RangeInclusive<Uuid>) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select event_id from es_events where event_id between $1 and $2 order by event_id",
    )
    .bind(range.start())
    .bind(range.end())
    .fetch_all(conn)
    .await?)
}

/// The greatest id of the log within a range.
pub(crate) async fn last_id_in(conn: &mut Link<'_>, range: RangeInclusive<Uuid>) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar(
        "select event_id from es_events where event_id between $1 and $2 order by event_id desc limit 1",
    )
    .bind(range.start())
    .bind(range.end())
    .fetch_optional(conn)
    .await?)
}
