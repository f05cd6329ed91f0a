//! Who holds what, and what nobody holds: read by every replica to take its share, and by whoever asks why a projection
//! stands still. Only reads; `lease` writes.
//!
//! A subscription is free when it has no holder, or a holder whose lease has ended. A lease says so by itself: nobody has to
//! notice a death before.

use sqlx::Row;
use uuid::Uuid;

use crate::store::Link;

/// A subscription that nobody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Free {
    pub(crate) subscription_id: String,
    /// Whether somebody should: it is live or being built.
    pub(crate) is_wanted: bool,
}

/// A live replica, and how many subscriptions it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) replica_id: Uuid,
    pub(crate) held: i64,
    /// A digest of what it can run.
    pub(crate) hosts: i64,
}

/// What nobody holds. Two ranges of the index over holders, whatever the number of subscriptions.
pub(crate) async fn free(conn: &mut Link<'_>) -> sqlx::Result<Vec<Free>> {
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "with free as (
             select s.subscription_id, s.projection_id from es_subscriptions s where s.holder is null
             union all
             select s.subscription_id, s.projection_id from es_replicas r join es_subscriptions s on s.holder = r.replica_id
             where r.lease_until <= clock_timestamp())
         select f.subscription_id, coalesce(p.role <> 'previous', true)
         from free f left join es_projections p on p.projection_id = f.projection_id",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(subscription_id, is_wanted)| Free { subscription_id, is_wanted }).collect())
}

/// Every replica that is alive, knows what it can run and is not about to leave, in the order of their ids.
pub(crate) async fn loads(conn: &mut Link<'_>) -> sqlx::Result<Vec<Load>> {
    let rows: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "select r.replica_id, (select count(*) from es_subscriptions s where s.holder = r.replica_id),
                hash_array_extended(r.hosts, 0)
         from es_replicas r
         where r.lease_until > clock_timestamp() and not r.draining and r.hosts is not null
         order by r.replica_id",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(replica_id, held, hosts)| Load { replica_id, held, hosts }).collect())
}

/// What each of these replicas holds, by name.
pub(crate) async fn holdings(conn: &mut Link<'_>, replicas: &[Uuid]) -> sqlx::Result<Vec<(Uuid, String)>> {
    sqlx::query_as(
        "select holder, subscription_id from es_subscriptions where holder = any ($1) order by subscription_id",
    )
    .bind(replicas)
    .fetch_all(conn)
    .await
}

/// What each of these replicas can run, behind its digest.
pub(crate) async fn hosts(
    conn: &mut Link<'_>,
    replicas: &[Uuid],
) -> sqlx::Result<Vec<(Uuid, i64, Vec<String>)>> {
    sqlx::query_as(
        "select replica_id, hash_array_extended(hosts, 0), hosts from es_replicas where replica_id = any ($1) and hosts is not null",
    )
    .bind(replicas)
    .fetch_all(conn)
    .await
}

/// The subscriptions of a projection, in the order of their partitions.
pub(crate) async fn parts(conn: &mut Link<'_>, projection_id: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select subscription_id from es_subscriptions where projection_id = $1 order by partition",
    )
    .bind(projection_id)
    .fetch_all(conn)
    .await
}

/// A projection that has no holder, and who could be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithoutHolder {
    /// `fines@2`.
    pub(crate) subscription: String,
    /// How many running replicas can run it and are not about to leave.
    pub(crate) hosted_by: i64,
    /// How many replicas are running at all.
    pub(crate) running: i64,
}

impl WithoutHolder {
    /// Why that may be, and what to do.
    pub(crate) fn reason(&self) -> String {
        match (self.running, self.hosted_by) {
            (0, _) => "no daemon is running; start one: `foldd run`".to_owned(),
            (running, 0) => format!(
                "none of the {running} running replicas can run it; start one whose configuration has it, and see the \
                 log of those that should"
            ),
            (_, hosts) => format!(
                "{hosts} running replicas can run it and one of them takes it within seconds; if not, their log says why"
            ),
        }
    }
}

/// Projections that are live or being built and that nobody holds.
pub(crate) async fn without_holder(
    conn: &mut Link<'_>,
    only: Option<&str>,
) -> sqlx::Result<Vec<WithoutHolder>> {
    let rows = sqlx::query(
        "select s.subscription_id,
                (select count(*) from es_replicas r where r.lease_until > clock_timestamp() and not r.draining
                   and s.subscription_id = any (r.hosts)) as hosted_by,
                (select count(*) from es_replicas r where r.lease_until > clock_timestamp()) as running
         from es_subscriptions s
         left join es_replicas h on h.replica_id = s.holder
         left join es_projections p on p.projection_id = s.projection_id
         where (h.replica_id is null or h.lease_until <= clock_timestamp())
           and coalesce(p.role <> 'previous', true)
           and ($1::text is null or split_part(s.subscription_id, '@', 1) = $1)
         order by s.subscription_id",
    )
    .bind(only)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(WithoutHolder {
                subscription: row.try_get("subscription_id")?,
                hosted_by: row.try_get("hosted_by")?,
                running: row.try_get("running")?,
            })
        })
        .collect()
}
