//! The horizon: how far the log can be read without missing anything.
//!
//! **Tier 0** is the oldest transaction that is running, whatever it does. **Tier 1** proves of those that hold it up that
//! they have not appended, and goes past them: at once where they have sworn that they never will, as batches of SQL
//! handlers do, and up to the floor under all stamps otherwise, which [`raise_floor`] raises when that is worth its flush.
//! [`observe`] does both, and a page read takes the [`Horizon`] that it made: so whoever was looked at and has ended since is
//! visible to the read. Why that is enough stands at `es_proven_horizon` in `migrations/0005_read.sql`.

use std::collections::HashMap;

use sqlx::Row;
use uuid::Uuid;

use super::{Link, Result};

/// A proof that nothing below it can still be appended.
///
/// Only looking at the log makes one, and a page read takes a value that exists already: so the proof is older than the
/// read, and whatever ended before the proof is visible to the read. It names the life of the server in which it was
/// seen. After a crash or a promotion, xids that left no trace in the WAL are given out again, and a proof about them is
/// void; a batch refuses it then.
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
    /// Whether there are committed events that readers must not see yet.
    pub(crate) withholds: bool,
    /// The greatest committed global position; 0 in an empty log.
    pub(crate) head_position: i64,
    /// What came below the horizon since the one before; empty at the first look.
    pub(crate) growth: Growth,
}

/// Looks once: how far the log can be read, and what came below the horizon since `previous`. Goes past transactions that
/// have not appended if it `proves` and events wait behind them.
///
/// A previous horizon of an earlier incarnation is worthless, so then nothing is counted and the caller starts over.
pub(crate) async fn observe(
    conn: &mut Link<'_>,
    previous: Option<&Horizon>,
    proves: bool,
) -> Result<Observation> {
    let since = previous.map(|horizon| horizon.transaction_id.to_string());
    let sql = "select horizon::text::bigint, incarnation, head, withholds, category, events from es_look($1::xid8, $2)";
    let mut rows = sqlx::query(sql).bind(since).bind(proves).fetch_all(&mut *conn).await?;
    if rows[0].try_get::<Option<Uuid>, _>(1)?.is_none() {
        sqlx::query("select es_begin_incarnation()").execute(&mut *conn).await?;
        rows = sqlx::query(sql).bind(None::<String>).bind(proves).fetch_all(&mut *conn).await?;
    }
    let first = &rows[0];
    let horizon = Horizon {
        transaction_id: first.try_get::<i64, _>(0)?.cast_unsigned(),
        incarnation: first.try_get(1)?,
    };
    let mut growth = Growth::new();
    if previous.is_some_and(|previous| previous.incarnation == horizon.incarnation) {
        for row in &rows {
            if let Some(category) = row.try_get(4)? {
                growth.insert(category, row.try_get(5)?);
            }
        }
    }
    Ok(Observation { head_position: first.try_get(2)?, withholds: first.try_get(3)?, horizon, growth })
}

/// Raises the stamp floor to the newest transaction that anybody can have: what is proven from now on can reach as far. In a
/// transaction of its own, which commits before this returns.
pub(crate) async fn raise_floor(conn: &mut Link<'_>) -> Result<()> {
    // As text: sqlx would ask for a type that it does not know, between parsing and executing, and behind a pooler those would
    // be two sessions.
    sqlx::query("select es_raise_stamp_floor(es_counted(pg_snapshot_xmax(pg_current_snapshot())))::text")
        .execute(conn)
        .await?;
    Ok(())
}

/// Why this session cannot prove a horizon and has to take the oldest running transaction for it; `None` when it can.
///
/// That is tier 0: always right, and held up by every transaction of the cluster that has an xid.
pub(crate) async fn why_unproven(conn: &mut Link<'_>) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(
        "select coalesce(es_why_unproven(),
                         case when not has_function_privilege('es_raise_stamp_floor(xid8)', 'execute')
                              then format('role %s may not execute es_raise_stamp_floor(xid8)', current_user) end)",
    )
    .fetch_one(conn)
    .await?)
}

/// The same of the daemons that run, for whoever only looks: they prove horizons for everybody, and what the looker may do
/// does not matter.
pub(crate) async fn why_daemons_cannot_prove(conn: &mut Link<'_>) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(
        "select coalesce(es_why_unproven(),
                         (select format('role %s may not execute es_raise_stamp_floor(xid8)', min(a.usename))
                          from pg_stat_activity a
                          where a.datname = current_database() and a.application_name = 'foldd watcher'
                          having bool_and(not has_function_privilege(a.usesysid, 'es_raise_stamp_floor(xid8)', 'execute'))))",
    )
    .fetch_one(conn)
    .await?)
}

/// What one look at the log tells that writes nothing and raises nothing.
#[derive(Debug, Clone)]
pub(crate) struct Glance {
    /// As far as the floor allows that somebody raised before.
    pub(crate) horizon: Horizon,
    /// The greatest committed global position; 0 in an empty log.
    pub(crate) head_position: i64,
    /// Whether there are committed events beyond the horizon.
    pub(crate) withholds: bool,
}

/// Looks without a daemon: for readers without a checkpoint, and for whoever wants to know how things are.
///
/// In a log that no daemon has looked at, the server's life has no name yet; no batch takes such a horizon.
pub(crate) async fn glance(conn: &mut Link<'_>) -> Result<Glance> {
    let (transaction_id, incarnation): (i64, Option<Uuid>) =
        sqlx::query_as("select es_proven_horizon()::text::bigint, es_current_incarnation()")
            .fetch_one(&mut *conn)
            .await?;
    let horizon = Horizon {
        transaction_id: transaction_id.cast_unsigned(),
        incarnation: incarnation.unwrap_or_default(),
    };
    let (head_position, withholds) = sqlx::query_as(
        "select (select coalesce(max(global_position), 0) from es_events),
                coalesce((select e.transaction_id from es_events e
                          order by e.transaction_id desc, e.global_position desc limit 1) >= $1::xid8, false)",
    )
    .bind(horizon.transaction_id.to_string())
    .fetch_one(conn)
    .await?;
    Ok(Glance { horizon, head_position, withholds })
}

/// Committed events that readers must not see yet, by category: those from the horizon on.
pub(crate) async fn withheld(conn: &mut Link<'_>, horizon: &Horizon) -> Result<Growth> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select category, events from es_growth($1::xid8, '18446744073709551615'::xid8)")
            .bind(horizon.transaction_id.to_string())
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().collect())
}
