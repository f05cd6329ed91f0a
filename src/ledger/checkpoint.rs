//! Entering a batch and moving its checkpoint, for handlers that are not compiled into the database.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::lease::Lease;
use crate::cursor::Cursor;
use crate::store::Link;

/// The mark of a batch in its transaction's settings: gone if a handler ended the transaction.
const MARK: &str = "foldd.batch";

/// What a batch must show to begin.
pub(crate) struct Entry<'a> {
    pub(crate) subscription_id: &'a str,
    pub(crate) fence_token: i64,
    pub(crate) incarnation: Uuid,
    pub(crate) schema_oid: u32,
    pub(crate) extension_schemas: &'a [String],
    /// Whether the batch passes parked events by; refused otherwise while streams are quarantined.
    pub(crate) parking: bool,
}

/// One move of a checkpoint.
pub(crate) struct Step<'a> {
    pub(crate) subscription_id: &'a str,
    /// The fence token, and where the checkpoint stands.
    pub(crate) lease: &'a Lease,
    pub(crate) to: Cursor,
    /// How many of its own events lie between.
    pub(crate) own: i64,
}

/// Checks fence and horizon, then puts the projection's schema at the head of the search path: the first statement of
/// a batch.
pub(crate) async fn enter(tx: &mut Link<'_>, entry: &Entry<'_>) -> sqlx::Result<()> {
    sqlx::query(
        "select set_config('search_path', foldd.es_enter($1, $2, $3, $4::bigint::oid, $5,
                                                    case when $7 then 'foldd_parking' end), true),
                set_config($6, $1, true)",
    )
    .bind(entry.subscription_id)
    .bind(entry.fence_token)
    .bind(entry.incarnation)
    .bind(i64::from(entry.schema_oid))
    .bind(entry.extension_schemas)
    .bind(MARK)
    .bind(entry.parking)
    .execute(tx)
    .await?;
    Ok(())
}

/// Has deferred constraints checked now: at the commit nobody could say any more that a handler's statement failed.
pub(crate) async fn check_deferred(tx: &mut Link<'_>) -> sqlx::Result<()> {
    sqlx::raw_sql("set constraints all immediate").execute(tx).await?;
    Ok(())
}

/// Moves the checkpoint by compare-and-set: the last statement of a batch.
///
/// Returns how old `oldest` is by the server's clock, in seconds; `None`, and nothing is moved, when the handler has
/// ended the transaction.
pub(crate) async fn advance(
    tx: &mut Link<'_>,
    store_schema: &str,
    step: &Step<'_>,
    oldest: Option<DateTime<Utc>>,
) -> sqlx::Result<Option<f64>> {
    let schema = store_schema.replace('"', "\"\"");
    sqlx::query_scalar(AssertSqlSafe(format!(
        "select case when current_setting($8, true) = $1
                     then (select extract(epoch from clock_timestamp() - $7)::float8
                           from \"{schema}\".es_advance($1, $2, $3::xid8, $4, $5::xid8, $6, $6, $9)) end"
    )))
    .bind(step.subscription_id)
    .bind(step.lease.fence_token)
    .bind(step.lease.cursor.transaction_id.to_string())
    .bind(step.lease.cursor.global_position)
    .bind(step.to.transaction_id.to_string())
    .bind(step.to.global_position)
    .bind(oldest)
    .bind(MARK)
    .bind(step.own)
    .fetch_one(tx)
    .await
}

/// The bug that `make mutants` calls `checkpoint-outside-the-transaction`.
#[cfg(foldd_mutants)]
pub(crate) async fn commit_too_early(tx: &mut Link<'_>, entry: &Entry<'_>) -> sqlx::Result<()> {
    sqlx::raw_sql("commit; select pg_sleep(0.2); begin").execute(tx.driver()).await?;
    enter(tx, entry).await
}
