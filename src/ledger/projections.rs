//! Which projections this database knows (`es_projections`), and their subscriptions' rows.

use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::store::Link;

/// What the creation of an index may sort in, unless the server's `maintenance_work_mem` is larger: 256 MB.
const INDEX_MEMORY_KB: i64 = 256 * 1024;

/// A projection as the database knows it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) version: i32,
    /// 1, and one more whenever the same version is built anew.
    pub(crate) generation: i32,
    /// `fines@1`: the compiled functions, and the beginning of its subscriptions' names.
    pub(crate) projection_id: String,
    /// `live`, `building` or `previous`; `retired` when only its definition is left.
    pub(crate) role: String,
    pub(crate) schema_name: String,
    pub(crate) schema_oid: u32,
    /// It has caught up once.
    pub(crate) is_built: bool,
    /// An operator took it back: it is not built again unasked.
    pub(crate) withdrawn: bool,
    /// An operator wants it built anew.
    pub(crate) to_rebuild: bool,
    /// Another running replica folds it.
    pub(crate) held_elsewhere: bool,
    /// The definition's JSON, which the floor above understands.
    pub(crate) definition: Box<RawValue>,
}

/// A projection to be entered.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: i32,
    pub(crate) generation: i32,
    pub(crate) kind: &'static str,
    pub(crate) schema_name: &'a str,
    pub(crate) schema_oid: u32,
    pub(crate) definition: &'a RawValue,
    /// The definitions of indexes that are created after the load.
    pub(crate) late_indexes: &'a [String],
    /// `None` for all categories.
    pub(crate) categories: Option<&'a [String]>,
}

/// Every version that the database knows, or those of one name. `me` is this process, if it is a replica.
pub(crate) async fn all(
    conn: &mut Link<'_>,
    name: Option<&str>,
    me: Option<Uuid>,
) -> sqlx::Result<Vec<Known>> {
    let rows = sqlx::query(
        "select p.version, p.generation, p.projection_id, p.role, p.schema_name, p.schema_oid::bigint as schema_oid,
                p.definition, p.built_xid is not null as is_built, p.withdrawn, p.wish is not distinct from 'rebuild' as to_rebuild,
                exists (select from es_subscriptions s join es_replicas r on r.replica_id = s.holder
                        where s.projection_id = p.projection_id and r.lease_until > clock_timestamp()
                          and r.replica_id is distinct from $2) as held_elsewhere
         from es_projections p where $1::text is null or p.projection_name = $1
         order by p.projection_name, p.version, p.generation",
    )
    .bind(name)
    .bind(me)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let Json(definition) = row.try_get("definition")?;
            Ok(Known {
                version: row.try_get("version")?,
                generation: row.try_get("generation")?,
                projection_id: row.try_get("projection_id")?,
                role: row.try_get("role")?,
                schema_name: row.try_get("schema_name")?,
                schema_oid: u32::try_from(row.try_get::<i64, _>("schema_oid")?).unwrap_or_default(),
                definition,
                is_built: row.try_get("is_built")?,
                withdrawn: row.try_get("withdrawn")?,
                to_rebuild: row.try_get("to_rebuild")?,
                held_elsewhere: row.try_get("held_elsewhere")?,
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

/// Whether there is a schema of this name, whoever made it.
pub(crate) async fn schema_exists(conn: &mut Link<'_>, schema: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema)
        .fetch_one(conn)
        .await
}

/// Enters a projection that is to be built, with its subscription at the start of the log. Returns its id.
pub(crate) async fn enter(conn: &mut Link<'_>, new: &New<'_>) -> sqlx::Result<String> {
    let projection_id: String = sqlx::query_scalar(
        "insert into es_projections (projection_name, version, generation, role, kind, schema_name, schema_oid, definition, late_indexes)
         values ($1, $2, $7, 'building', $3, $4, $5::bigint::oid, $6, $8) returning projection_id",
    )
    .bind(new.name)
    .bind(new.version)
    .bind(new.kind)
    .bind(new.schema_name)
    .bind(i64::from(new.schema_oid))
    .bind(Json(new.definition))
    .bind(new.generation)
    .bind(new.late_indexes)
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query("insert into es_subscriptions (subscription_id, categories) values ($1, $2)")
        .bind(&projection_id)
        .bind(new.categories)
        .execute(conn)
        .await?;
    Ok(projection_id)
}

/// Forgets a version that was never live, with its subscriptions.
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

/// Notes what the configuration says of a version's cut-over.
pub(crate) async fn set_terms(
    conn: &mut Link<'_>,
    projection_id: &str,
    cutover: &str,
    keep_previous: Duration,
) -> sqlx::Result<()> {
    sqlx::query(
        "update es_projections set cutover = $2, keep_previous = make_interval(secs => $3)
         where projection_id = $1 and (cutover, keep_previous) is distinct from ($2, make_interval(secs => $3))",
    )
    .bind(projection_id)
    .bind(cutover)
    .bind(keep_previous.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(())
}

/// A version is built beside the live one from now on: running daemons follow this log.
pub(crate) async fn note_build(conn: &mut Link<'_>, projection_id: &str, live: &str) -> sqlx::Result<()> {
    sqlx::query(
        "select foldd.es_note('build', $1, 'foldd', null, jsonb_build_object('live', $2::text),
                              jsonb_build_object('live', $2::text, 'building', $1::text))",
    )
    .bind(projection_id)
    .bind(live)
    .execute(conn)
    .await?;
    Ok(())
}

/// What an operator wanted built anew is.
pub(crate) async fn is_rebuilding(conn: &mut Link<'_>, projection_id: &str) -> sqlx::Result<()> {
    sqlx::query("update es_projections set wish = null, withdrawn = false where projection_id = $1 and wish = 'rebuild'")
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

/// Into how many partitions a projection is split.
pub(crate) async fn partitions(conn: &mut Link<'_>, projection_id: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from es_subscriptions where projection_id = $1")
        .bind(projection_id)
        .fetch_one(conn)
        .await
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

/// What became of a version whose last partition has reached the horizon for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Built {
    /// It is the first one, and live.
    Live,
    /// It waits to take the place of the live one.
    Beside,
    /// It is the last part, and the tables are to be finished first.
    Unfinished,
    /// Other partitions are on their way, or it was built before.
    NotYet,
}

/// A subscription has reached the horizon for the first time, and has finished the tables, if it is the last part.
pub(crate) async fn go_live(
    conn: &mut Link<'_>,
    subscription_id: &str,
    is_finished: bool,
) -> sqlx::Result<Built> {
    let became: Option<String> = sqlx::query_scalar("select es_go_live($1, $2)")
        .bind(subscription_id)
        .bind(is_finished)
        .fetch_one(conn)
        .await?;
    Ok(match became.as_deref() {
        Some("live") => Built::Live,
        Some("built") => Built::Beside,
        Some("unfinished") => Built::Unfinished,
        _ => Built::NotYet,
    })
}

/// Whether the other parts of a version that is being built are all done, so that this one finishes the tables.
pub(crate) async fn is_last_part(conn: &mut Link<'_>, subscription_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select from es_subscriptions s
                        join es_projections p on p.projection_id = s.projection_id and p.role = 'building'
                        where s.subscription_id = $1
                          and not exists (select from es_subscriptions o where o.projection_id = s.projection_id
                                          and o.subscription_id <> s.subscription_id and not o.is_built))",
    )
    .bind(subscription_id)
    .fetch_one(conn)
    .await
}

/// The tables of a version that is being built, as SQL names them; none once it is cancelled.
pub(crate) async fn tables(conn: &mut Link<'_>, projection_id: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select format('%I.%I', n.nspname, c.relname)
         from es_projections p
         join pg_class c on c.relnamespace = p.schema_oid and c.relkind in ('r', 'm') and not c.relispartition
         join pg_namespace n on n.oid = c.relnamespace
         where p.projection_id = $1 and p.role = 'building' order by 1",
    )
    .bind(projection_id)
    .fetch_all(conn)
    .await
}

/// The next index that waits for the load of a version; `None` also once it is cancelled.
pub(crate) async fn next_late_index(
    conn: &mut Link<'_>,
    projection_id: &str,
) -> sqlx::Result<Option<String>> {
    let next: Option<Option<String>> = sqlx::query_scalar(
        "select late_indexes[1] from es_projections where projection_id = $1 and role = 'building'",
    )
    .bind(projection_id)
    .fetch_optional(conn)
    .await?;
    Ok(next.flatten())
}

/// Creates an index that waited for the load and strikes it off the list, in one transaction: after a crash it is on the
/// list or in the table. Does nothing when somebody else has created it meanwhile.
///
/// The row of the version is taken at the end only, since others write it while this takes minutes; so a lock of its own
/// keeps a second holder from creating the same. The server looks by itself whether this process is still there.
pub(crate) async fn create_late_index(
    conn: &mut Link<'_>,
    projection_id: &str,
    definition: &str,
) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql("set local statement_timeout = 0; set local lock_timeout = 0").execute(&mut tx).await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('foldd indexes ' || $1, 0))")
        .bind(projection_id)
        .execute(&mut tx)
        .await?;
    sqlx::query(
        "select set_config('maintenance_work_mem', greatest(setting::bigint, $1) || 'kB', true)
         from pg_settings where name = 'maintenance_work_mem'",
    )
    .bind(INDEX_MEMORY_KB)
    .execute(&mut tx)
    .await?;
    let is_due: bool = sqlx::query_scalar(
        "select exists (select from es_projections
                        where projection_id = $1 and role = 'building' and $2 = any (late_indexes))",
    )
    .bind(projection_id)
    .bind(definition)
    .fetch_one(&mut tx)
    .await?;
    if is_due {
        sqlx::raw_sql(AssertSqlSafe(definition)).execute(&mut tx).await?;
        sqlx::query(
            "update es_projections set late_indexes = array_remove(late_indexes, $2) where projection_id = $1",
        )
        .bind(projection_id)
        .bind(definition)
        .execute(&mut tx)
        .await?;
    }
    tx.commit().await
}

/// Refreshes a table's statistics and its visibility map, so that its first readers have good plans.
pub(crate) async fn tidy(conn: &mut Link<'_>, table: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(format!("vacuum (analyze) {table}"))).execute(conn).await?;
    Ok(())
}

/// Notes what an operator wishes of a version, by the entry of the log that says so.
pub(crate) async fn set_wish(
    conn: &mut Link<'_>,
    projection_id: &str,
    verb: &str,
    revision: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "update es_projections set wish = $2, wish_revision = $3, waiting_for = null where projection_id = $1",
    )
    .bind(projection_id)
    .bind(verb)
    .bind(revision)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what a version waits for.
pub(crate) async fn set_waiting(conn: &mut Link<'_>, projection_id: &str, reason: &str) -> sqlx::Result<()> {
    sqlx::query("update es_projections set waiting_for = $2 where projection_id = $1")
        .bind(projection_id)
        .bind(reason)
        .execute(conn)
        .await?;
    Ok(())
}
