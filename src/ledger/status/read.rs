//! Reads the status out of the books.

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::{BuildStatus, LagSource, PartitionStatus, ProjectionStatus, ReplicaStatus, Status, StoreStatus};
use crate::cursor::Cursor;
use crate::ledger::concerns::concerns;
use crate::ledger::phases::Trouble;
use crate::store::{self, Glance, Horizon, Link};

/// Transactions that have been open for less are nobody's trouble yet, in seconds.
const BLOCKER_MIN_AGE: f64 = 1.0;

/// Reads the status as the database has it. Projections are those whose name is in `only`, or all.
pub(crate) async fn read(conn: &mut Link<'_>, lag: LagSource, only: Option<&str>) -> store::Result<Status> {
    let glance = store::glance(conn).await?;
    let mut status = Status {
        concerns: Vec::new(),
        store: read_store(conn, &glance).await?,
        projections: read_projections(conn, lag, only, &glance.horizon).await?,
        replicas: read_replicas(conn).await?,
    };
    status.concerns = concerns(&status);
    Ok(status)
}

async fn read_store(conn: &mut Link<'_>, glance: &Glance) -> store::Result<StoreStatus> {
    let unproven = store::why_daemons_cannot_prove(conn).await?;
    let tier = u8::from(unproven.is_none());
    let blockers = store::blockers(conn, BLOCKER_MIN_AGE, tier).await?;
    let held = blockers.iter().filter(|blocker| blocker.holds && glance.withholds);
    Ok(StoreStatus {
        head_position: glance.head_position,
        horizon: glance.horizon.transaction_id().to_string(),
        horizon_age_seconds: held.filter_map(|blocker| blocker.age_seconds).fold(0.0, f64::max),
        tier,
        tier_reason: unproven,
        blockers,
    })
}

async fn read_projections(
    conn: &mut Link<'_>,
    lag: LagSource,
    only: Option<&str>,
    horizon: &Horizon,
) -> store::Result<Vec<ProjectionStatus>> {
    // A phase is only as true as its publisher is alive: without a holder a projection stands by, unless it halted.
    // Whoever is paused is so at once, whatever the holder published last.
    let rows = sqlx::query(
        "select p.projection_name, p.version, p.role, s.holder, s.last_transaction_id::text::bigint as stamp,
                s.last_position,
                s.partition, s.dead_letters,
                coalesce((select max(l.entry_id) from es_operator_log l
                          where l.subscription_id = s.projection_id), 0) as revision,
                es_shown_phase(s.subscription_id) as phase,
                ph.error,
                case when r.lease_until > clock_timestamp() then coalesce(ph.events_per_second, 0) else 0 end as rate,
                case when not $1 then coalesce(ph.lag_events, 0)
                     when s.partitions = 1 and s.floors is null
                     then es_count_after(s.categories, s.last_transaction_id, s.last_position, $3::xid8)
                     else es_count_own_after(s.subscription_id, '0', $3::xid8) end as lag_events,
                case when $1 then (
                         select extract(epoch from clock_timestamp() - e.created_at)::float8
                         from es_next_own(s.subscription_id, $3::xid8) e)
                     else ph.lag_seconds end as lag_seconds,
                case when s.partition = 0 then es_count_after(
                    s.categories, greatest(s.last_transaction_id, $3::xid8), 0, '18446744073709551615'::xid8)
                    else 0 end as withheld,
                s.applied_events,
                case when r.lease_until > clock_timestamp() then coalesce(ph.arriving_per_second, 0) else 0 end as arriving,
                case when p.role = 'building' and p.built_xid is not null and p.cutover = 'manual' and p.wish is null
                     then format('somebody to look at it; `foldd cutover %s` lets it take over', p.projection_name)
                     else p.waiting_for end as waiting_for
         from es_projections p
         join es_subscriptions s on s.projection_id = p.projection_id
         left join es_phases ph on ph.subscription_id = s.subscription_id
         left join es_replicas r on r.replica_id = s.holder
         where $2::text is null or p.projection_name = $2
         order by p.projection_name, p.version, p.generation, s.partition",
    )
    .bind(lag == LagSource::Counted)
    .bind(only)
    .bind(horizon.transaction_id().to_string())
    .fetch_all(&mut *conn)
    .await?;
    let mut projections: Vec<ProjectionStatus> = Vec::new();
    for row in &rows {
        let one = projection(row)?;
        match projections.last_mut() {
            Some(last) if one.partitions.iter().all(|part| part.partition > 0) => last.absorb(one),
            _ => projections.push(one),
        }
    }
    projections.extend(read_unbuilt(conn, only).await?);
    Ok(projections)
}

fn projection(row: &PgRow) -> sqlx::Result<ProjectionStatus> {
    let lag_events: i64 = row.try_get("lag_events")?;
    let events_per_second: f64 = row.try_get("rate")?;
    let role: String = row.try_get("role")?;
    let waiting_for: Option<String> = row.try_get("waiting_for")?;
    let done: i64 = row.try_get("applied_events")?;
    let mut build = (role == "building").then_some(BuildStatus {
        done,
        total: done + lag_events,
        events_per_second,
        eta_seconds: None,
        waiting_for: waiting_for.clone(),
        arriving: row.try_get("arriving")?,
    });
    if let Some(build) = &mut build {
        build.estimate();
    }
    let stamp: i64 = row.try_get("stamp")?;
    Ok(ProjectionStatus {
        name: row.try_get("projection_name")?,
        version: row.try_get("version")?,
        role,
        phase: row.try_get("phase")?,
        lag_events,
        lag_seconds: row.try_get::<Option<f64>, _>("lag_seconds")?.unwrap_or(0.0).max(0.0),
        withheld_events: row.try_get("withheld")?,
        events_per_second,
        dead_letters: row.try_get("dead_letters")?,
        revision: row.try_get("revision")?,
        error: row.try_get::<Option<Json<Trouble>>, _>("error")?.map(|Json(trouble)| trouble),
        build,
        waiting_for,
        partitions: vec![PartitionStatus {
            partition: row.try_get("partition")?,
            holder: row.try_get("holder")?,
            checkpoint: Cursor::from((stamp.cast_unsigned(), row.try_get("last_position")?)),
        }],
    })
}

/// Projections that could not be built: they have a published line and no subscription.
async fn read_unbuilt(conn: &mut Link<'_>, only: Option<&str>) -> sqlx::Result<Vec<ProjectionStatus>> {
    let rows: Vec<(String, i32, String, Option<Json<Trouble>>)> = sqlx::query_as(
        "select split_part(ph.subscription_id, '@', 1), split_part(ph.subscription_id, '@', 2)::int, ph.phase, ph.error
         from es_phases ph
         where not exists (select from es_subscriptions s where s.subscription_id = ph.subscription_id)
           and ($1::text is null or split_part(ph.subscription_id, '@', 1) = $1)
         order by 1, 2",
    )
    .bind(only)
    .fetch_all(conn)
    .await?;
    let unbuilt =
        |(name, version, phase, error): (String, i32, String, Option<Json<Trouble>>)| ProjectionStatus {
            name,
            version,
            role: "building".to_owned(),
            phase,
            lag_events: 0,
            lag_seconds: 0.0,
            withheld_events: 0,
            events_per_second: 0.0,
            dead_letters: 0,
            revision: 0,
            error: error.map(|Json(trouble)| trouble),
            build: None,
            waiting_for: None,
            partitions: Vec::new(),
        };
    Ok(rows.into_iter().map(unbuilt).collect())
}

async fn read_replicas(conn: &mut Link<'_>) -> store::Result<Vec<ReplicaStatus>> {
    let rows = sqlx::query(
        "select r.replica_id, r.host, r.started_at, r.heartbeat_at, r.draining,
                (select count(*) from es_subscriptions s where s.holder = r.replica_id) as leases
         from es_replicas r where r.lease_until > clock_timestamp() order by r.started_at",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ReplicaStatus {
                id: row.try_get(0)?,
                host: row.try_get(1)?,
                started_at: row.try_get(2)?,
                heartbeat_at: row.try_get(3)?,
                leases: row.try_get(5)?,
                draining: row.try_get(4)?,
            })
        })
        .collect::<sqlx::Result<_>>()
        .map_err(Into::into)
}
