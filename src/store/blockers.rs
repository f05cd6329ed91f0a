//! Who holds the horizon: named, so that nobody has to search at night.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{FromRow, Row};

use super::{Link, Result};

/// What kind of transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
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

/// A transaction that has an xid and is open. Never its query text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
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
    /// Whether readers wait for it. Where the horizon is proven, only for those who may have appended.
    pub holds: bool,
}

/// For people: who it is, in one line.
impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.gid, self.pid) {
            (Some(gid), _) => write!(f, "prepared transaction '{gid}'")?,
            (None, Some(pid)) => write!(f, "pid {pid}")?,
            (None, None) => f.write_str("an unknown session")?,
        }
        write!(f, " ({}", self.cause.as_str())?;
        let parts = [
            ("database", &self.database),
            ("user", &self.user),
            ("application", &self.application),
            ("state", &self.state),
            ("waits for", &self.wait_event),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        match self.age_seconds {
            Some(age) => write!(f, ", open for {age:.1} s)"),
            None => f.write_str(", its age needs pg_read_all_stats)"),
        }
    }
}

/// Names everybody who has had an xid for at least `min_age_seconds`: who holds the horizon first, then the oldest.
///
/// `state` and age of other roles' sessions are null without `pg_read_all_stats`.
pub(crate) async fn blockers(conn: &mut Link<'_>, min_age_seconds: f64, tier: u8) -> Result<Vec<Blocker>> {
    let sql = "
        with writers as (
            select pid, null::text as gid, backend_xid as xid, datname::text as database, usename::text as username,
                   application_name, state, wait_event,
                   extract(epoch from clock_timestamp() - xact_start)::float8 as age
            from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
            union all
            select null, gid, transaction, database::text, owner::text, null, 'prepared', null,
                   extract(epoch from clock_timestamp() - prepared)::float8
            from pg_prepared_xacts
        ), locked as materialized (
            select locktype, database, relation, transactionid, virtualtransaction, mode from pg_locks where granted
        ), appending as (
            select own.transactionid from locked own join locked l using (virtualtransaction)
            where own.locktype = 'transactionid' and own.mode = 'ExclusiveLock'
              and es_may_append(l.locktype, l.database, l.relation, l.mode,
                                (select d.oid from pg_database d where d.datname = current_database()))
        )
        select pid, gid, database, username, application_name, state, wait_event, greatest(age, 0) as age,
               gid is not null as prepared, database is distinct from current_database() as elsewhere,
               xid in (select transactionid from appending) as appends,
               $2 = 0 or xid in (select transactionid from appending) as holds
        from writers where coalesce(age, $1) >= $1
        order by holds desc, age desc nulls last";
    Ok(sqlx::query_as(sql).bind(min_age_seconds).bind(i32::from(tier)).fetch_all(conn).await?)
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
            holds: row.try_get("holds")?,
        })
    }
}
