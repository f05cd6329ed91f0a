//! What every projection does, how far it is behind and why: the answer of `status` and `/api/status`.
//!
//! The field names are a contract with scripts and dashboards.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::concerns::{Concern, concerns};
use super::phases::Trouble;
use crate::cursor::Cursor;
use crate::store::{self, Blocker, Glance, Horizon, Link};

/// Transactions that have been open for less are nobody's trouble yet, in seconds.
const BLOCKER_MIN_AGE: f64 = 1.0;

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Status {
    /// What somebody should know at once, the gravest first.
    pub(crate) concerns: Vec<Concern>,
    /// The log.
    pub(crate) store: StoreStatus,
    /// Every version of every projection.
    pub(crate) projections: Vec<ProjectionStatus>,
    /// Every replica that is running or whose lease has not ended.
    pub(crate) replicas: Vec<ReplicaStatus>,
}

/// The log: how long it is, and how far it can be read.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct StoreStatus {
    /// The greatest committed global position.
    pub(crate) head_position: i64,
    /// Readers stay below this stamp.
    pub(crate) horizon: String,
    /// For how long the oldest transaction that withholds committed events has been open, in seconds; 0 when none are.
    pub(crate) horizon_age_seconds: f64,
    /// Which horizon is in force; 0 is the oldest running transaction, 1 goes past those that have not appended.
    pub(crate) tier: u8,
    /// Why it is tier 0.
    pub(crate) tier_reason: Option<String>,
    /// Who has had an xid for more than a second; `holds` says of which ones readers wait for.
    pub(crate) blockers: Vec<Blocker>,
}

/// One version of a projection.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ProjectionStatus {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: i32,
    /// `live`, `building` or `previous`.
    pub(crate) role: String,
    /// `standby`, `catching_up`, `live`, `backing_off`, `halted`, `paused` or `draining`.
    pub(crate) phase: String,
    /// Events of its categories after the checkpoint, up to the horizon.
    pub(crate) lag_events: i64,
    /// How old the first of them is.
    pub(crate) lag_seconds: f64,
    /// Committed events of its categories that are still beyond the horizon.
    pub(crate) withheld_events: i64,
    /// How fast it has been folding lately.
    pub(crate) events_per_second: f64,
    /// How many events are parked.
    pub(crate) dead_letters: i64,
    /// The last entry of the operators' log about it; 0 when there is none. `--if-revision` compares it.
    pub(crate) revision: i64,
    /// Why it does not move.
    pub(crate) error: Option<Trouble>,
    /// How far a build has come.
    pub(crate) build: Option<BuildStatus>,
    /// Where each part stands.
    pub(crate) partitions: Vec<PartitionStatus>,
}

/// How far a build has come.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct BuildStatus {
    /// Events folded.
    pub(crate) done: i64,
    /// Events to fold in all.
    pub(crate) total: i64,
    /// How fast, lately.
    pub(crate) events_per_second: f64,
    /// When it will be done at that rate; `None` while there is none.
    pub(crate) eta_seconds: Option<f64>,
    /// What it waits for, when it waits.
    pub(crate) waiting_for: Option<String>,
    /// How many events come in meanwhile, a second.
    #[serde(skip)]
    arriving: f64,
}

/// One part of a projection, with a checkpoint of its own.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct PartitionStatus {
    /// Its number, from 0.
    pub(crate) partition: i32,
    /// The replica that holds it.
    pub(crate) holder: Option<Uuid>,
    /// How far it has come.
    pub(crate) checkpoint: Cursor,
}

/// One running process.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ReplicaStatus {
    /// Its identity, new with every start.
    pub(crate) id: Uuid,
    /// The host's name.
    pub(crate) host: String,
    /// When it started, by the database's clock.
    pub(crate) started_at: chrono::DateTime<chrono::Utc>,
    /// When it was last heard of.
    pub(crate) heartbeat_at: chrono::DateTime<chrono::Utc>,
    /// How many subscriptions it holds.
    pub(crate) leases: i64,
    /// Whether it is about to leave.
    pub(crate) draining: bool,
}

/// Where the lag comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LagSource {
    /// Counted now, exactly; costs a walk over the backlog.
    Counted,
    /// As the holders last published it, at most about a second ago.
    Published,
}

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
                p.waiting_for
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

/// In which order the phases of partitions stand for the whole: the one that a person must see comes first.
const GRAVEST: [&str; 7] = ["halted", "paused", "backing_off", "standby", "draining", "catching_up", "live"];

impl ProjectionStatus {
    /// Adds a further partition.
    fn absorb(&mut self, part: Self) {
        let gravity = |phase: &str| GRAVEST.iter().position(|known| *known == phase);
        if gravity(&part.phase) < gravity(&self.phase) {
            self.phase = part.phase;
        }
        self.lag_events += part.lag_events;
        self.lag_seconds = self.lag_seconds.max(part.lag_seconds);
        self.events_per_second += part.events_per_second;
        self.dead_letters += part.dead_letters;
        self.error = self.error.take().or(part.error);
        if let (Some(build), Some(part)) = (&mut self.build, &part.build) {
            build.add(part);
        }
        self.partitions.extend(part.partitions);
    }
}

impl BuildStatus {
    fn add(&mut self, part: &Self) {
        self.done += part.done;
        self.total += part.total;
        self.arriving += part.arriving;
        self.events_per_second += part.events_per_second;
        self.estimate();
    }

    /// When it will be done if both rates stay, and what it waits for while they never meet.
    fn estimate(&mut self) {
        let (left, nearer) = (self.total - self.done, self.events_per_second - self.arriving);
        self.eta_seconds = match left {
            0 => Some(0.0),
            _ if nearer > 0.0 => Some(left as f64 / nearer),
            _ => None,
        };
        if left > 0 && self.events_per_second > 0.0 && nearer <= 0.0 {
            self.waiting_for = Some(format!(
                "more speed: {:.0} events/s arrive and {:.0} are folded; see `events_per_second`, `partitions` and `@batch`",
                self.arriving, self.events_per_second
            ));
        }
    }
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
        waiting_for,
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

#[cfg(test)]
impl Status {
    /// One replica, and live projections with nothing to do.
    pub(crate) fn at_rest(names: &[&str]) -> Self {
        let replica = Uuid::new_v4();
        Self {
            concerns: Vec::new(),
            store: StoreStatus {
                head_position: 561_470,
                horizon: "1234".to_owned(),
                horizon_age_seconds: 0.0,
                tier: 1,
                tier_reason: None,
                blockers: Vec::new(),
            },
            projections: names.iter().map(|name| ProjectionStatus::at_rest(name, replica)).collect(),
            replicas: vec![ReplicaStatus {
                id: replica,
                host: "here".to_owned(),
                started_at: chrono::DateTime::UNIX_EPOCH,
                heartbeat_at: chrono::DateTime::UNIX_EPOCH,
                leases: 1,
                draining: false,
            }],
        }
    }
}

#[cfg(test)]
impl ProjectionStatus {
    fn at_rest(name: &str, holder: Uuid) -> Self {
        Self {
            name: name.to_owned(),
            version: 1,
            role: "live".to_owned(),
            phase: "live".to_owned(),
            lag_events: 0,
            lag_seconds: 0.0,
            withheld_events: 0,
            events_per_second: 0.0,
            dead_letters: 0,
            revision: 0,
            error: None,
            build: None,
            partitions: vec![PartitionStatus {
                partition: 0,
                holder: Some(holder),
                checkpoint: Cursor::START,
            }],
        }
    }
}
