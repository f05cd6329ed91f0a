//! What every projection does, how far it is behind and why: the answer of `status` and `/api/status`.
//!
//! The field names are a contract with scripts and dashboards. `read` gets it from the books.

mod read;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::concerns::Concern;
use super::phases::Trouble;
use crate::cursor::Cursor;
use crate::store::Blocker;
pub(crate) use read::read;

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
    /// What its cut-over, or its end, waits for; `build` has it too.
    #[serde(skip)]
    pub(crate) waiting_for: Option<String>,
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
            waiting_for: None,
            partitions: vec![PartitionStatus {
                partition: 0,
                holder: Some(holder),
                checkpoint: Cursor::START,
            }],
        }
    }
}
