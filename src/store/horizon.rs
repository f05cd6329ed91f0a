//! The horizon: how far the log can be read without missing anything.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use super::Result;

/// A proof that no transaction below it is still running.
///
/// Only the watcher's look at the log makes one, and a page read takes it by reference to a value that exists already: so the proof is
/// older than the read, and whatever ended before the proof is visible to the read. It names the life of the server
/// in which it was seen. After a crash or a promotion, xids that left no trace in the WAL are given out again, and a
/// proof about them is void; a batch refuses it then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    transaction_id: u64,
    incarnation: Uuid,
}

impl Horizon {
    /// Events with a lower stamp can be read.
    #[must_use]
    pub fn transaction_id(&self) -> u64 {
        self.transaction_id
    }

    /// The life of the server it was seen in.
    pub(crate) fn incarnation(&self) -> Uuid {
        self.incarnation
    }
}

/// By how many events each category grew between two observations.
pub(crate) type Growth = HashMap<String, i64>;

/// What one look at the log tells.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) horizon: Horizon,
    /// The oldest xid not yet given out, as the statement saw it. The horizon stands still behind it.
    pub(crate) newest: u64,
    /// The greatest committed global position; 0 in an empty log.
    pub(crate) head_position: i64,
    /// What came below the horizon since the one before; empty at the first look.
    pub(crate) growth: Growth,
}

/// Looks once: the tier-0 horizon, and what it uncovered since `previous`.
///
/// A previous horizon of an earlier incarnation is worthless, so then nothing is counted and the caller starts over.
pub(crate) async fn observe(conn: &mut PgConnection, previous: Option<&Horizon>) -> Result<Observation> {
    let since = previous.map(|horizon| horizon.transaction_id.to_string());
    let sql = "
        with seen as materialized (
            select es_horizon() as horizon, pg_snapshot_xmax(pg_current_snapshot()) as newest,
                   (select incarnation from es_incarnation) as incarnation,
                   (select coalesce(max(global_position), 0) from es_events) as head
        )
        select seen.horizon::text::bigint, seen.newest::text::bigint, seen.incarnation, seen.head, grown.category,
               grown.events
        from seen left join lateral es_growth($1::xid8, seen.horizon) grown on $1 is not null";
    let mut rows = sqlx::query(sql).bind(since.as_deref()).fetch_all(&mut *conn).await?;
    if rows[0].try_get::<Option<Uuid>, _>(2)?.is_none() {
        sqlx::query("insert into es_incarnation default values on conflict do nothing")
            .execute(&mut *conn)
            .await?;
        rows = sqlx::query(sql).bind(None::<String>).fetch_all(&mut *conn).await?;
    }
    let first = &rows[0];
    let horizon = Horizon {
        transaction_id: first.try_get::<i64, _>(0)?.cast_unsigned(),
        incarnation: first.try_get(2)?,
    };
    let mut growth = Growth::new();
    if previous.is_some_and(|previous| previous.incarnation == horizon.incarnation) {
        for row in &rows {
            if let Some(category) = row.try_get(4)? {
                growth.insert(category, row.try_get(5)?);
            }
        }
    }
    Ok(Observation {
        newest: first.try_get::<i64, _>(1)?.cast_unsigned(),
        head_position: first.try_get(3)?,
        horizon,
        growth,
    })
}

/// Looks once and writes nothing: the tier-0 horizon and the greatest committed position, for a reader without a checkpoint.
///
/// In a log that no daemon has looked at, the server's life has no name yet; no batch takes such a horizon.
pub(crate) async fn glance(conn: &mut PgConnection) -> Result<(Horizon, i64)> {
    let (horizon, incarnation, head): (i64, Option<Uuid>, i64) = sqlx::query_as(
        "select es_horizon()::text::bigint, (select incarnation from es_incarnation),
                (select coalesce(max(global_position), 0) from es_events)",
    )
    .fetch_one(conn)
    .await?;
    let incarnation = incarnation.unwrap_or_default();
    Ok((Horizon { transaction_id: horizon.cast_unsigned(), incarnation }, head))
}

/// Committed events that readers must not see yet, by category: those from the horizon on.
pub(crate) async fn withheld(conn: &mut PgConnection, horizon: &Horizon) -> Result<Growth> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select category, events from es_growth($1::xid8, '18446744073709551615'::xid8)")
            .bind(horizon.transaction_id.to_string())
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().collect())
}

/// Why a transaction holds the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockerCause {
    /// It has appended and not ended.
    Appender,
    /// It writes something else in this database.
    Bystander,
    /// It writes in another database of the cluster.
    OtherDatabase,
    /// It is prepared and waits for `COMMIT PREPARED`.
    Prepared,
    /// Its commit waits for a standby.
    Syncrep,
    /// It is a batch of a foldd worker.
    OwnWorker,
}

impl BlockerCause {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Appender,
        Self::Bystander,
        Self::OtherDatabase,
        Self::Prepared,
        Self::Syncrep,
        Self::OwnWorker,
    ];

    /// As it stands in JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Appender => "appender",
            Self::Bystander => "bystander",
            Self::OtherDatabase => "other_database",
            Self::Prepared => "prepared",
            Self::Syncrep => "syncrep",
            Self::OwnWorker => "own_worker",
        }
    }
}

/// A transaction that holds the horizon. Never its query text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blocker {
    /// Why it matters.
    pub cause: BlockerCause,
    /// The backend's process id; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The global identifier of a prepared transaction.
    pub gid: Option<String>,
    /// The database it works in.
    pub database: Option<String>,
    /// The role.
    pub user: Option<String>,
    /// The application's name for itself.
    pub application: Option<String>,
    /// `active`, `idle in transaction` … `None` when this role may not see it.
    pub state: Option<String>,
    /// What it waits for.
    pub wait_event: Option<String>,
    /// How long its transaction has been open, in seconds.
    pub age_seconds: Option<f64>,
}

/// Names everybody who has held an xid for at least `min_age_seconds`, oldest first.
///
/// `state` and age of other roles' sessions are null without `pg_read_all_stats`.
pub(crate) async fn blockers(conn: &mut PgConnection, min_age_seconds: f64) -> Result<Vec<Blocker>> {
    let sql = "
        with writers as (
            select pid, null::text as gid, datname::text as database, usename::text as username, application_name,
                   state, wait_event, extract(epoch from clock_timestamp() - xact_start)::float8 as age
            from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
            union all
            select null, gid, database::text, owner::text, null, 'prepared', null,
                   extract(epoch from clock_timestamp() - prepared)::float8
            from pg_prepared_xacts
        )
        select pid, gid, database, username, application_name, state, wait_event, greatest(age, 0) as age,
               gid is not null as prepared, database is distinct from current_database() as elsewhere,
               exists (select from pg_locks l
                       where l.pid = writers.pid and l.locktype = 'relation' and l.granted
                         and l.relation = 'es_events'::regclass
                         and l.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock',
                                        'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) as appends
        from writers where coalesce(age, $1) >= $1
        order by age desc nulls last";
    Ok(sqlx::query_as(sql).bind(min_age_seconds).fetch_all(conn).await?)
}

impl FromRow<'_, sqlx::postgres::PgRow> for Blocker {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        let application: Option<String> = row.try_get("application_name")?;
        let wait_event: Option<String> = row.try_get("wait_event")?;
        let cause = if row.try_get("prepared")? {
            BlockerCause::Prepared
        } else if row.try_get("elsewhere")? {
            BlockerCause::OtherDatabase
        } else if application.as_deref().is_some_and(|name| name.starts_with("foldd worker")) {
            BlockerCause::OwnWorker
        } else if wait_event.as_deref() == Some("SyncRep") {
            BlockerCause::Syncrep
        } else if row.try_get("appends")? {
            BlockerCause::Appender
        } else {
            BlockerCause::Bystander
        };
        Ok(Self {
            cause,
            pid: row.try_get("pid")?,
            gid: row.try_get("gid")?,
            database: row.try_get("database")?,
            user: row.try_get("username")?,
            application: application.filter(|name| !name.is_empty()),
            state: row.try_get("state")?,
            wait_event,
            age_seconds: row.try_get("age")?,
        })
    }
}
