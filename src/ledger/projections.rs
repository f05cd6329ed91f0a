//! Which projections this database knows (`es_projections`), and their subscriptions' rows.

use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::types::Json;

use crate::store::Link;

/// A projection as the database knows it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) version: i32,
    /// `fines@1`: the compiled functions, and the beginning of its subscriptions' names.
    pub(crate) projection_id: String,
    /// `live`, `building` or `previous`.
    pub(crate) role: String,
    pub(crate) schema_oid: u32,
    /// The definition's JSON, which the floor above understands.
    pub(crate) definition: Box<RawValue>,
}

/// A projection to be entered.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: i32,
    pub(crate) kind: &'static str,
    pub(crate) schema_name: &'a str,
    pub(crate) schema_oid: u32,
    pub(crate) definition: &'a RawValue,
    /// `None` for all categories.
    pub(crate) categories: Option<&'a [String]>,
}

/// Every projection that the database knows, or those of one name.
pub(crate) async fn all(conn: &mut Link<'_>, name: Option<&str>) -> sqlx::Result<Vec<Known>> {
    let rows = sqlx::query(
        "select version, projection_id, role, schema_oid::bigint, definition
         from es_projections where $1::text is null or projection_name = $1
         order by projection_name, version, generation",
    )
    .bind(name)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let Json(definition) = row.try_get(4)?;
            Ok(Known {
                version: row.try_get(0)?,
                projection_id: row.try_get(1)?,
                role: row.try_get(2)?,
                schema_oid: u32::try_from(row.try_get::<i64, _>(3)?).unwrap_or_default(),
                definition,
            })
        })
        .collect()
}

/// Lets one process at a time change what the database knows about a name, until the transaction ends.
pub(crate) async fn lock(conn: &mut Link<'_>, name: &str) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('foldd projection ' || $1, 0))")
        .bind(name)
        .execute(conn)
        .await?;
    Ok(())
}

/// Enters a projection that is to be built, with its subscription at the start of the log. Returns its id.
pub(crate) async fn enter(conn: &mut Link<'_>, new: &New<'_>) -> sqlx::Result<String> {
    let projection_id: String = sqlx::query_scalar(
        "insert into es_projections (projection_name, version, role, kind, schema_name, schema_oid, definition)
         values ($1, $2, 'building', $3, $4, $5::bigint::oid, $6) returning projection_id",
    )
    .bind(new.name)
    .bind(new.version)
    .bind(new.kind)
    .bind(new.schema_name)
    .bind(i64::from(new.schema_oid))
    .bind(Json(new.definition))
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query("insert into es_subscriptions (subscription_id, categories) values ($1, $2)")
        .bind(&projection_id)
        .bind(new.categories)
        .execute(conn)
        .await?;
    Ok(projection_id)
}

/// Forgets a projection that was never live, with its subscription.
pub(crate) async fn forget(conn: &mut Link<'_>, projection_id: &str) -> sqlx::Result<()> {
    sqlx::query("delete from es_projections where projection_id = $1 and role = 'building'")
        .bind(projection_id)
        .execute(&mut *conn)
        .await?;
    sqlx::query("delete from es_subscriptions where projection_id = $1")
        .bind(projection_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// One partition of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// `fines@1`, or `fines@1/3` where it is split.
    pub(crate) subscription_id: String,
    /// Its number, from 0.
    pub(crate) partition: i32,
    /// Whether it sees only its own events of a page: one of several, or not past the floors of an earlier split.
    pub(crate) is_split: bool,
}

/// Splits a projection into so many partitions, or leaves it as it is split, and returns them in order; `None`, and nothing
/// is done, when this server hashes stream ids otherwise than the one where it was split before.
pub(crate) async fn split(
    conn: &mut Link<'_>,
    projection_id: &str,
    partitions: Option<u16>,
) -> sqlx::Result<Option<Vec<Part>>> {
    let moved: bool = sqlx::query_scalar(
        "select exists (select from es_subscriptions s
                        where s.projection_id = $1 and (s.partitions > 1 or s.floors is not null)
                          and s.hash_probe <> es_partition('foldd', 2147483647))",
    )
    .bind(projection_id)
    .fetch_one(&mut *conn)
    .await?;
    if moved {
        return Ok(None);
    }
    if let Some(partitions) = partitions {
        let changed: bool = sqlx::query_scalar("select es_repartition($1, $2)")
            .bind(projection_id)
            .bind(i32::from(partitions))
            .fetch_one(&mut *conn)
            .await?;
        if changed {
            tracing::info!(projection = projection_id, partitions, "split anew");
        }
    }
    let parts: Vec<(String, i32, bool)> = sqlx::query_as(
        "select subscription_id, partition, partitions > 1 or floors is not null
         from es_subscriptions where projection_id = $1 order by partition",
    )
    .bind(projection_id)
    .fetch_all(conn)
    .await?;
    let part = |(subscription_id, partition, is_split)| Part { subscription_id, partition, is_split };
    Ok(Some(parts.into_iter().map(part).collect()))
}

/// A first build has reached the horizon; when all its partitions have, it is the live version. Says whether it is.
pub(crate) async fn go_live(conn: &mut Link<'_>, subscription_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select es_go_live($1)").bind(subscription_id).fetch_one(conn).await
}
