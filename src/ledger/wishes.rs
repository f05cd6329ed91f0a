//! Which projections stand still because operators wish so (`es_subscriptions.paused`); `deeds` has what they did.
//!
//! **Promise.** A wish is in force when its verb returns: no batch of a paused projection commits afterwards, whoever holds
//! it. It stands in the log with who, why, before and after, or it did not happen.
//!
//! **How.** The rows of all its partitions are locked first, which waits for the batch in hand. What the operator had seen is
//! compared then: the id of the subscription's last log entry, its revision. The entry is written last.
//!
//! **What it never does.** It wakes nobody. The daemon asks [`deeds::since`].

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;

use super::deeds;
use crate::store::Link;

/// Who acts, and on what grounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature<'a> {
    pub(crate) who: &'a str,
    pub(crate) why: Option<&'a str>,
    /// The revision that the operator has seen; `None` for any.
    pub(crate) if_revision: Option<i64>,
    /// How long a batch in hand is waited for.
    pub(crate) patience: Duration,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No projection is called that.
    #[error("there is no projection '{name}'; {known}")]
    Unknown { name: String, known: String },
    /// Somebody did something since the operator looked.
    #[error(
        "{id} is at revision {revision}, not at {expected}: somebody did something since you looked; nothing was done; \
         `foldd log {id}` shows it"
    )]
    Changed { id: String, expected: i64, revision: i64 },
    /// A batch holds the subscription's row.
    #[error(
        "a batch of {id} has been in hand for more than {}; nothing was done; try again with a longer --timeout",
        humantime::format_duration(*.patience)
    )]
    Busy { id: String, patience: Duration },
    /// What was selected is not there, or must not be touched alone.
    #[error("{0}")]
    Selection(String),
    /// The database refused.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A projection whose subscriptions' rows are locked until the unit ends: no batch of it is in flight.
#[derive(Debug)]
pub(crate) struct Subject {
    /// `fines@2`.
    pub(crate) id: String,
    pub(crate) revision: i64,
    pub(crate) phase: String,
    pub(crate) paused: bool,
}

impl Subject {
    fn state(&self) -> Value {
        json!({ "phase": self.phase, "paused": self.paused })
    }
}

/// What a verb left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// `fines@2`.
    pub(crate) id: String,
    /// Whether there was anything to do.
    pub(crate) changed: bool,
    pub(crate) revision: i64,
    /// Where it stood before.
    pub(crate) phase: String,
}

/// Where a subscription stands, for whoever waits for a wish to be seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    /// As its holder published it, or `paused`.
    pub(crate) phase: String,
    /// What is wrong with it, as published.
    pub(crate) message: Option<String>,
    /// Whether a running daemon holds it.
    pub(crate) held: bool,
    /// Rises whenever it is taken.
    pub(crate) fence_token: i64,
    /// Whether any daemon is running.
    pub(crate) daemon_runs: bool,
}

/// Lets a projection stand still. When this returns, no batch of it commits any more.
pub(crate) async fn pause(
    conn: &mut Link<'_>,
    name: &str,
    signature: &Signature<'_>,
) -> Result<Done, Refusal> {
    let mut unit = conn.begin().await?;
    let subject = lock(&mut unit, name, signature).await?;
    if subject.paused {
        return unchanged(unit, subject).await;
    }
    sqlx::query("update es_subscriptions set paused = true where projection_id = $1")
        .bind(&subject.id)
        .execute(&mut unit)
        .await?;
    let after = json!({ "phase": "paused", "paused": true });
    changed(unit, "pause", subject, signature, after).await
}

/// Lets a projection that is paused or halted go on, with a clean slate.
pub(crate) async fn resume(
    conn: &mut Link<'_>,
    name: &str,
    signature: &Signature<'_>,
) -> Result<Done, Refusal> {
    let mut unit = conn.begin().await?;
    let subject = lock(&mut unit, name, signature).await?;
    if !stands_still(&subject.phase) {
        return unchanged(unit, subject).await;
    }
    sqlx::query(
        "update es_subscriptions
         set paused = false, unclean_takeovers = 0, attempted_position = null, crashed_position = null, crashes = 0
         where projection_id = $1",
    )
    .bind(&subject.id)
    .execute(&mut unit)
    .await?;
    // Its holder takes the lease anew, and reads everything from the books.
    let after = json!({ "phase": "standby", "paused": false });
    changed(unit, "resume", subject, signature, after).await
}

/// Whether a projection in this phase waits for an operator.
pub(crate) fn stands_still(phase: &str) -> bool {
    matches!(phase, "paused" | "halted")
}

async fn unchanged(unit: Link<'_>, subject: Subject) -> Result<Done, Refusal> {
    unit.rollback().await?;
    Ok(Done { id: subject.id, changed: false, revision: subject.revision, phase: subject.phase })
}

async fn changed(
    mut unit: Link<'_>,
    verb: &str,
    subject: Subject,
    signature: &Signature<'_>,
    after: Value,
) -> Result<Done, Refusal> {
    let revision = deeds::note(&mut unit, verb, &subject.id, signature, subject.state(), after).await?;
    unit.commit().await?;
    Ok(Done { id: subject.id, changed: true, revision, phase: subject.phase })
}

/// Locks the subscriptions that a name stands for, until the unit ends: the live version of a projection, or the newest
/// while none is live; or the version that is named, `fines@2`.
pub(crate) async fn lock(
    unit: &mut Link<'_>,
    name: &str,
    signature: &Signature<'_>,
) -> Result<Subject, Refusal> {
    let id = named(unit, name).await?;
    let patience = signature.patience;
    let locking = async {
        sqlx::query("select set_config('lock_timeout', $1, true)")
            .bind(patience.as_millis().max(1).to_string())
            .execute(&mut *unit)
            .await?;
        sqlx::query(
            "select from es_subscriptions where projection_id = $1 order by subscription_id for update",
        )
        .bind(&id)
        .execute(&mut *unit)
        .await
    };
    match locking.await {
        Err(error) if is_lock_timeout(&error) => return Err(Refusal::Busy { id, patience }),
        locked => locked?,
    };
    // A statement of its own: its snapshot is newer than the lock.
    let row = sqlx::query(
        "select bool_or(s.paused) as paused,
                coalesce((select max(l.entry_id) from es_operator_log l where l.subscription_id = $1), 0) as revision,
                (array_agg(ph.phase order by ph.phase = 'halted' desc, s.partition))[1] as phase
         from es_subscriptions s
         cross join lateral es_shown_phase(s.subscription_id) as ph (phase)
         where s.projection_id = $1
         having count(*) > 0",
    )
    .bind(&id)
    .fetch_optional(&mut *unit)
    .await?;
    let Some(row) = row else { return Err(unknown(unit, name).await?) };
    let (paused, revision, phase) = (row.try_get("paused")?, row.try_get("revision")?, row.try_get("phase")?);
    match signature.if_revision {
        Some(expected) if expected != revision => Err(Refusal::Changed { id, expected, revision }),
        _ => Ok(Subject { id, revision, phase, paused }),
    }
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("55P03")
}

/// The subscription that a name stands for.
pub(crate) async fn named(conn: &mut Link<'_>, name: &str) -> Result<String, Refusal> {
    let found: Option<String> = sqlx::query_scalar(
        "select p.projection_id from es_projections p
         where split_part($1, '/', 1) in (p.projection_name, p.projection_name || '@' || p.version, p.projection_id)
           and p.role <> 'retired'
         order by p.role = 'live' desc, p.version desc, p.generation desc limit 1",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await?;
    match found {
        Some(id) => Ok(id),
        None => Err(unknown(conn, name).await?),
    }
}

pub(crate) async fn unknown(conn: &mut Link<'_>, name: &str) -> sqlx::Result<Refusal> {
    let unbuilt: Option<String> = sqlx::query_scalar(
        "select coalesce(ph.error ->> 'message', 'the daemon''s log says why') from es_phases ph
         where $1 in (ph.subscription_id, split_part(ph.subscription_id, '@', 1))
           and not exists (select from es_subscriptions s where s.subscription_id = ph.subscription_id) limit 1",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(message) = unbuilt {
        let known = format!("it could not be built: {message}; mend that, and start the daemon again");
        return Ok(Refusal::Unknown { name: name.to_owned(), known });
    }
    let ids: Vec<String> = sqlx::query_scalar(
        "select projection_id from es_projections where role <> 'retired' order by projection_name, version, generation",
    )
    .fetch_all(conn)
    .await?;
    let known = if ids.is_empty() {
        "there are none yet: `foldd run` enters them".to_owned()
    } else {
        format!("these are: {}", ids.join(", "))
    };
    Ok(Refusal::Unknown { name: name.to_owned(), known })
}

/// Where a subscription stands now; `None` when it is gone.
pub(crate) async fn standing(conn: &mut Link<'_>, id: &str) -> sqlx::Result<Option<Standing>> {
    let row = sqlx::query(
        "select (array_agg(case when s.paused then 'paused' else coalesce(ph.phase, 'standby') end
                           order by ph.phase = 'halted' desc nulls last, s.partition))[1] as phase,
                max(ph.error ->> 'message') as message,
                bool_and(coalesce(r.lease_until > clock_timestamp(), false)) as held,
                sum(s.fence_token)::bigint as fence_token,
                exists (select from es_replicas where lease_until > clock_timestamp()) as daemon_runs
         from es_subscriptions s
         left join es_phases ph on ph.subscription_id = s.subscription_id
         left join es_replicas r on r.replica_id = s.holder
         where s.projection_id = $1
         having count(*) > 0",
    )
    .bind(id)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Standing {
            phase: row.try_get("phase")?,
            message: row.try_get("message")?,
            held: row.try_get("held")?,
            fence_token: row.try_get("fence_token")?,
            daemon_runs: row.try_get("daemon_runs")?,
        })
    })
    .transpose()
}
