//! A read model as it was at some moment, in a schema of its own, to keep.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::room::finish;
use super::span::Span;
use super::verify::projection_of;
use super::{OnProgress, Scratch, ScratchError, begin, listed};
use crate::cursor::Cursor;
use crate::ledger::projections;
use crate::projection::Projection;
use crate::projection::sql::{quote_ident, quote_literal};
use crate::store::{self, Horizon, Link};

/// The longest name of a schema, in bytes: NAMEDATALEN less its end.
const LONGEST_NAME: usize = 63;

/// Up to where the log is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The horizon at the start.
    Now,
    /// In the order of the log, up to the event at this position and with it.
    Position(i64),
    /// In the order of the log, up to the first event that was appended later than this and without it.
    Time(DateTime<Utc>),
}

/// What is to be built, and where.
pub(crate) struct Order<'a> {
    pub(crate) name: &'a str,
    /// What the configuration says of it; else the live version is built.
    pub(crate) configured: Option<&'a Projection>,
    pub(crate) schema: &'a str,
    pub(crate) until: Until,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) version: i32,
    pub(crate) events: i64,
    /// The last event of the log that is in it.
    pub(crate) cursor: Cursor,
}

/// Builds in the schema that was claimed, which gets its name when all is done.
pub(crate) async fn build(
    conn: &mut Link<'_>,
    order: &Order<'_>,
    horizon: &Horizon,
    schema: &str,
    total: &dyn Fn(i64),
    progress: OnProgress<'_>,
) -> Result<Built, ScratchError> {
    refuse_name(order.schema)?;
    let mut tx = begin(conn).await?;
    refuse_taken(&mut tx, order.schema).await?;
    let known = projections::all(&mut tx, Some(order.name), None).await?;
    let live = known.iter().find(|known| known.role == "live");
    let wanted = match (order.configured, live) {
        (Some(configured), _) => configured.clone(),
        (None, Some(live)) => projection_of(live, order.name, None)?,
        (None, None) => {
            return Err(ScratchError::refused(
                format!("there is no projection {}: neither configured nor live", order.name),
                "see projection_dirs in foldd.toml, and `foldd status` for what the database has",
            ));
        }
    };
    let cursor = resolve(&mut tx, order.until, horizon).await?;
    let scratch = Scratch::lay(&mut tx, &wanted, schema).await?;
    total(scratch.count_to(&mut tx, listed(&wanted.definition), cursor).await?);
    finish(tx).await?;
    // What the live version has parked under the same number is parked here too.
    let parked = live.filter(|live| live.version == wanted.version).map(|live| live.projection_id.as_str());
    let span =
        Span { categories: listed(&wanted.definition), after: Cursor::START, to: cursor, condition: None };
    let events = scratch.fold_committed(conn, span, parked, progress).await?;
    let mut tx = conn.begin().await?;
    refuse_taken(&mut tx, order.schema).await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "alter schema {} rename to {into}; comment on schema {into} is {}",
        quote_ident(schema),
        quote_literal(&format!("{}@{} up to cursor {cursor}, by foldd build", wanted.name, wanted.version)),
        into = quote_ident(order.schema),
    )))
    .execute(&mut tx)
    .await?;
    tx.commit().await?;
    Ok(Built { version: wanted.version, events, cursor })
}

/// Names that PostgreSQL refuses or cuts off, and those that foldd gives and clears away itself: told before anything is folded.
fn refuse_name(schema: &str) -> Result<(), ScratchError> {
    let whose = if schema.starts_with("pg_") {
        "PostgreSQL keeps schema names that begin with pg_ for itself"
    } else if schema == "foldd" || schema.starts_with("foldd_") {
        "foldd keeps schema names that begin with foldd for itself"
    } else if schema.len() > LONGEST_NAME {
        "PostgreSQL cuts names off after 63 bytes"
    } else {
        return Ok(());
    };
    Err(ScratchError::refused(format!("schema {schema} cannot be built: {whose}"), "name another schema"))
}

async fn refuse_taken(tx: &mut Link<'_>, schema: &str) -> Result<(), ScratchError> {
    let found: Option<(Option<String>, i64)> = sqlx::query_as(
        "select obj_description(n.oid, 'pg_namespace'), (select count(*) from pg_class c where c.relnamespace = n.oid)
         from pg_namespace n where n.nspname = $1",
    )
    .bind(schema)
    .fetch_optional(tx)
    .await?;
    let Some((comment, relations)) = found else { return Ok(()) };
    let ours = comment.filter(|comment| comment.ends_with(", by foldd build"));
    let (whose, remedy) = match ours {
        Some(ours) => (
            format!("exists already: it holds {ours}"),
            format!(
                "drop schema {} cascade, if nobody needs it any more, or name another",
                quote_ident(schema)
            ),
        ),
        None => (
            format!("exists already and is not of foldd build; it has {relations} tables and the like"),
            "name a schema that does not exist".to_owned(),
        ),
    };
    Err(ScratchError::refused(format!("schema {schema} {whose}"), remedy))
}

/// What has not happened yet cannot be folded up to: the same words would give another read model later.
async fn refuse_future(tx: &mut Link<'_>, time: DateTime<Utc>) -> Result<(), ScratchError> {
    let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(tx).await?;
    if time <= now {
        return Ok(());
    }
    Err(ScratchError::refused(
        format!("{} lies in the future: the server has {}", time.to_rfc3339(), now.to_rfc3339()),
        "name a time that is past, or leave --until out for everything up to now",
    ))
}

/// The last event that is folded.
async fn resolve(tx: &mut Link<'_>, until: Until, horizon: &Horizon) -> Result<Cursor, ScratchError> {
    let before: Cursor = match until {
        Until::Now => (horizon.transaction_id(), 0).into(),
        Until::Position(position) => {
            let found = store::cursors_of(tx, &[position])
                .await
                .map(|mut found| found.remove(&position))
                .map_err(|error| {
                    ScratchError::refused(error.to_string(), error.remedy().unwrap_or("try again").to_owned())
                })?;
            let Some(found) = found else {
                let head = store::head(tx).await.map_or(0, |head| head.global_position);
                return Err(ScratchError::refused(
                    format!("there is no event at position {position} yet; the log ends at {head}"),
                    "name a position up to there, or leave --until out",
                ));
            };
            if found.transaction_id >= horizon.transaction_id() {
                return Err(ScratchError::refused(
                    format!("position {position} lies beyond the horizon, below which the log is complete"),
                    "try again in a moment; `foldd status` names who holds the horizon up",
                ));
            }
            return Ok(found);
        }
        Until::Time(time) => {
            refuse_future(tx, time).await?;
            let first: Option<(i64, i64)> = sqlx::query_as(
                "select transaction_id::text::bigint, global_position from es_events
                 where created_at > $1 and transaction_id < $2::xid8
                 order by transaction_id, global_position limit 1",
            )
            .bind(time)
            .bind(horizon.transaction_id().to_string())
            .fetch_optional(&mut *tx)
            .await?;
            first.map_or((horizon.transaction_id(), 0).into(), |(stamp, position)| {
                (stamp.cast_unsigned(), position).into()
            })
        }
    };
    let last: Option<(i64, i64)> = sqlx::query_as(
        "select transaction_id::text::bigint, global_position from es_events
         where (transaction_id, global_position) < ($1::xid8, $2)
         order by transaction_id desc, global_position desc limit 1",
    )
    .bind(before.transaction_id.to_string())
    .bind(before.global_position)
    .fetch_optional(tx)
    .await?;
    Ok(last.map_or(Cursor::START, |(stamp, position)| Cursor::from((stamp.cast_unsigned(), position))))
}
