//! What operators did, and what daemons began (`es_operator_log`).
//!
//! Entries are written under one lock for all of them, so that their ids commit in order: whoever has seen an id has seen all
//! before it. An entry is no order; it says that something changed in the books.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::types::Json;

use super::wishes::{Refusal, Signature, named};
use crate::store::Link;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Entry {
    pub(crate) revision: i64,
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    pub(crate) verb: String,
    /// `fines@2`.
    pub(crate) projection: String,
    pub(crate) who: String,
    pub(crate) db_role: String,
    pub(crate) why: Option<String>,
    pub(crate) before: Value,
    pub(crate) after: Value,
}

/// Writes down what is done in this unit; returns the revision of what it was done to.
///
/// The lock is the last one taken, and held for as long as a commit takes.
pub(crate) async fn note(
    unit: &mut Link<'_>,
    verb: &str,
    id: &str,
    signature: &Signature<'_>,
    before: Value,
    after: Value,
) -> sqlx::Result<i64> {
    sqlx::query_scalar("select foldd.es_note($1, $2, $3, $4, $5, $6)")
        .bind(verb)
        .bind(id)
        .bind(signature.who)
        .bind(signature.why)
        .bind(Json(before))
        .bind(Json(after))
        .fetch_one(unit)
        .await
}

/// The last entry there is; 0 when there is none.
pub(crate) async fn last(conn: &mut Link<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar("select coalesce(max(entry_id), 0) from es_operator_log").fetch_one(conn).await
}

/// The verb of an entry that no operator wrote: a daemon was started with another number of partitions.
pub(crate) const SPLIT: &str = "split";

/// Likewise: a version is built beside the live one.
pub(crate) const BUILD: &str = "build";

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deed {
    /// The id of its entry.
    pub(crate) revision: i64,
    pub(crate) verb: String,
    /// `fines@2`.
    pub(crate) projection: String,
}

/// What was done after an entry, in order.
pub(crate) async fn since(conn: &mut Link<'_>, entry_id: i64) -> sqlx::Result<Vec<Deed>> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "select entry_id, verb, subscription_id from es_operator_log where entry_id > $1 order by entry_id",
    )
    .bind(entry_id)
    .fetch_all(conn)
    .await?;
    let deed = |(revision, verb, projection)| Deed { revision, verb, projection };
    Ok(rows.into_iter().map(deed).collect())
}

/// The newest entries, about one projection (`fines`, all its versions) or version (`fines@2`), or about all.
pub(crate) async fn entries(
    conn: &mut Link<'_>,
    name: Option<&str>,
    limit: i64,
) -> Result<Vec<Entry>, Refusal> {
    let rows = sqlx::query(
        "select entry_id, at, verb, subscription_id, who, db_role, why, before, after from es_operator_log
         where $1::text is null or $1 in (subscription_id, split_part(subscription_id, '@', 1))
         order by entry_id desc limit $2",
    )
    .bind(name)
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    if let (Some(name), true) = (name, rows.is_empty()) {
        // Nothing was done with it, or there is no such projection.
        named(conn, name).await?;
    }
    let entry = |row: &sqlx::postgres::PgRow| {
        Ok(Entry {
            revision: row.try_get("entry_id")?,
            at: row.try_get("at")?,
            verb: row.try_get("verb")?,
            projection: row.try_get("subscription_id")?,
            who: row.try_get("who")?,
            db_role: row.try_get("db_role")?,
            why: row.try_get("why")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
        })
    };
    Ok(rows.iter().map(entry).collect::<sqlx::Result<_>>()?)
}
