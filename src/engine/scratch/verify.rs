//! Is the read model what the log gives? Folds the log anew up to the checkpoint, and compares.

use std::collections::HashSet;

use serde_json::Value;
use sqlx::Row;
use sqlx::types::Json;

use super::compare::compare;
pub(crate) use super::compare::{Compared, column_of};
use super::room::finish;
use super::span::Span;
pub(crate) use super::undetermined::Undetermined;
use super::{OnProgress, Scratch, ScratchError, begin, listed};
use crate::cursor::Cursor;
use crate::engine::build::BuildError;
use crate::ledger::projections::{self, Known};
use crate::projection::Projection;
use crate::projection::definition::Definition;
use crate::projection::settings::Settings;
use crate::store::Link;

/// What is to be verified.
pub(crate) struct Question<'a> {
    pub(crate) name: &'a str,
    /// `None` for the live version.
    pub(crate) version: Option<i32>,
    /// What the configuration says of it, if it does.
    pub(crate) configured: Option<&'a Projection>,
    /// Columns that may differ, as (table, column).
    pub(crate) ignored: &'a [(String, String)],
    /// How many differences of each table are told.
    pub(crate) shown: i64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) version: i32,
    /// Where each partition stood, in their order.
    pub(crate) checkpoints: Vec<Cursor>,
    /// How many events were folded, those that are parked left out.
    pub(crate) events: i64,
    /// How many are parked.
    pub(crate) parked: i64,
    pub(crate) tables: Vec<Compared>,
}

/// With fewer events left than this, they are folded in the transaction that compares.
const FEW: i64 = 5_000;

/// Folds into the schema that was claimed, and compares. `total` is told how many events there are.
pub(crate) async fn verify(
    conn: &mut Link<'_>,
    question: &Question<'_>,
    schema: &str,
    total: &dyn Fn(i64),
    progress: OnProgress<'_>,
) -> Result<Verified, ScratchError> {
    let mut tx = begin(conn).await?;
    let known = projections::all(&mut tx, Some(question.name), None).await?;
    let standing = choose(question, &known)?;
    let id = standing.projection_id.as_str();
    let wanted = projection_of(standing, question.name, question.configured)?;
    let scratch = Scratch::lay(&mut tx, &wanted, schema).await?;
    let categories = listed(&wanted.definition);
    let parked_before = parked_positions(&mut tx, id).await?;
    let mut all_have = lowest(&standings(&mut tx, id).await?);
    total(scratch.count_to(&mut tx, categories, all_have).await?);
    finish(tx).await?;
    let (mut after, mut events) = (Cursor::START, 0);
    while all_have > after {
        let span = Span { categories, after, to: all_have, condition: None };
        let folded = scratch.fold_committed(conn, span, Some(id), progress).await?;
        after = all_have;
        events += folded;
        if folded < FEW {
            break;
        }
        all_have = lowest(&standings(conn, id).await?);
    }

    let mut tx = begin(conn).await?;
    let standings = standings(&mut tx, id).await?;
    let parked_now = parked_positions(&mut tx, id).await?;
    if standings.is_empty() || parked_before.iter().any(|position| !parked_now.contains(position)) {
        return Err(ScratchError::refused(
            format!("{id} was retired, or parked events of it were settled, while it was verified"),
            "verify it again",
        ));
    }
    let parked = leave_out_parked(&mut tx, id).await?;
    let mut conditions: Vec<String> = parked.condition().into_iter().collect();
    if standings.len() > 1 || standings.iter().any(|standing| standing.floors.is_some()) {
        conditions.push(partitions(&mut tx, &scratch, &standings).await?);
    }
    scratch.compile(&mut tx).await?;
    let span = Span {
        categories,
        after,
        to: standings.iter().map(Standing::furthest).max().unwrap_or_default(),
        condition: (!conditions.is_empty()).then(|| conditions.join(" and ")),
    };
    events += scratch.fold_span(&mut tx, &span, &mut scratch.pace(), None, progress).await?.folded;
    let tables =
        compare(&mut tx, standing.schema_oid, scratch.schema_oid, question.ignored, question.shown).await?;
    tx.rollback().await?;
    Ok(Verified {
        version: standing.version,
        checkpoints: standings.iter().map(|standing| standing.checkpoint).collect(),
        events,
        parked: parked.events,
        tables,
    })
}

/// What every partition has applied.
fn lowest(standings: &[Standing]) -> Cursor {
    standings.iter().map(|standing| standing.checkpoint).min().unwrap_or_default()
}

async fn parked_positions(tx: &mut Link<'_>, projection_id: &str) -> Result<HashSet<i64>, ScratchError> {
    let positions: Vec<i64> =
        sqlx::query_scalar("select d.global_position from es_dead_letters d where d.projection_id = $1")
            .bind(projection_id)
            .fetch_all(tx)
            .await?;
    Ok(positions.into_iter().collect())
}

/// The version that is asked for, or the live one.
fn choose<'k>(question: &Question<'_>, known: &'k [Known]) -> Result<&'k Known, ScratchError> {
    let name = question.name;
    let found = match question.version {
        Some(version) => known.iter().rev().find(|known| known.version == version),
        None => known.iter().find(|known| known.role == "live"),
    };
    match (found, question.version) {
        (Some(found), _) if found.role != "building" || found.is_built => Ok(found),
        (Some(found), _) => Err(ScratchError::refused(
            format!("{} is still being built: it has not seen all events yet", found.projection_id),
            "verify it when it is built, before its cut-over where that is manual; `foldd status --watch` shows how far it is",
        )),
        (None, Some(version)) => {
            let there: Vec<&str> = known.iter().map(|known| known.projection_id.as_str()).collect();
            let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            Err(ScratchError::refused(
                format!("this database has no version {version} of {name}, but {there}"),
                "`foldd status` shows what there is",
            ))
        }
        (None, None) if known.is_empty() => Err(ScratchError::refused(
            format!("this database has no projection {name}"),
            "is it the right database, and has the daemon run? `foldd status` shows what there is",
        )),
        (None, None) => Err(ScratchError::refused(
            format!("no version of {name} is live yet"),
            format!("`foldd wait {name} --caught-up` waits for that"),
        )),
    }
}

/// A version as the database has it, with the handler and the settings of the configuration.
pub(super) fn projection_of(
    standing: &Known,
    name: &str,
    configured: Option<&Projection>,
) -> Result<Projection, ScratchError> {
    let stored: Definition = serde_json::from_str(standing.definition.get())
        .map_err(|source| BuildError::UnreadableDefinition(standing.projection_id.clone(), source))?;
    let same_version = configured.filter(|configured| configured.version == standing.version);
    // Where it is the same, the file's lines are the better reference.
    let definition = same_version
        .map(|configured| &configured.definition)
        .filter(|definition| definition.same_as(&stored))
        .cloned()
        .unwrap_or(stored);
    Ok(Projection {
        name: name.to_owned(),
        version: standing.version,
        settings: configured.map_or_else(Settings::default, |configured| configured.settings.clone()),
        definition,
        tests: Vec::new(),
        handlers: configured.map(|configured| configured.handlers.clone()).unwrap_or_default(),
    })
}

/// Where a partition stands, and which events it has beyond that from an earlier split.
struct Standing {
    partition: i32,
    checkpoint: Cursor,
    floors: Option<Value>,
    highest_floor: Cursor,
}

impl Standing {
    fn furthest(&self) -> Cursor {
        self.checkpoint.max(self.highest_floor)
    }
}

async fn standings(tx: &mut Link<'_>, projection_id: &str) -> Result<Vec<Standing>, ScratchError> {
    let rows = sqlx::query(
        "select s.partition, s.last_transaction_id::text::bigint, s.last_position, s.floors,
                coalesce(floor.stamp, 0), coalesce(floor.position, 0)
         from es_subscriptions s
         left join lateral (
             select (c.cursor ->> 0)::bigint as stamp, (c.cursor ->> 1)::bigint as position
             from jsonb_array_elements(s.floors) f (floor)
             cross join lateral jsonb_array_elements(f.floor -> 'cursors') c (cursor)
             order by 1 desc, 2 desc limit 1) floor on true
         where s.projection_id = $1 order by s.partition",
    )
    .bind(projection_id)
    .fetch_all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let cursor = |at: usize| -> sqlx::Result<Cursor> {
                Ok(Cursor::from((row.try_get::<i64, _>(at)?.cast_unsigned(), row.try_get::<i64, _>(at + 1)?)))
            };
            Ok(Standing {
                partition: row.try_get(0)?,
                checkpoint: cursor(1)?,
                floors: row.try_get::<Option<Json<Value>>, _>(3)?.map(|Json(floors)| floors),
                highest_floor: cursor(4)?,
            })
        })
        .collect()
}

/// Parked events, in `pg_temp.foldd_parked`.
pub(super) struct LeftOut {
    events: i64,
}

impl LeftOut {
    /// The condition that leaves them out, where there are any.
    pub(super) fn condition(&self) -> Option<String> {
        (self.events > 0).then(|| {
            "not exists (select from pg_temp.foldd_parked p where p.global_position = e.global_position)"
                .to_owned()
        })
    }
}

/// Puts the parked events of a projection aside.
pub(super) async fn leave_out_parked(
    tx: &mut Link<'_>,
    projection_id: &str,
) -> Result<LeftOut, ScratchError> {
    sqlx::raw_sql("create temp table foldd_parked (global_position bigint primary key) on commit drop")
        .execute(&mut *tx)
        .await?;
    let parked = sqlx::query(
        "insert into pg_temp.foldd_parked
         select distinct d.global_position from es_dead_letters d where d.projection_id = $1",
    )
    .bind(projection_id)
    .execute(tx)
    .await?
    .rows_affected();
    Ok(LeftOut { events: i64::try_from(parked).unwrap_or(i64::MAX) })
}

/// The condition that picks the events which the partitions have applied: those up to the checkpoint of their own, and
/// those that an earlier split had applied already.
async fn partitions(
    tx: &mut Link<'_>,
    scratch: &Scratch,
    standings: &[Standing],
) -> Result<String, ScratchError> {
    sqlx::raw_sql(
        "create temp table foldd_stands (partition integer, stamp xid8, position bigint, floors jsonb) on commit drop",
    )
    .execute(&mut *tx)
    .await?;
    for standing in standings {
        sqlx::query("insert into pg_temp.foldd_stands values ($1, $2::xid8, $3, $4)")
            .bind(standing.partition)
            .bind(standing.checkpoint.transaction_id.to_string())
            .bind(standing.checkpoint.global_position)
            .bind(standing.floors.as_ref().map(Json))
            .execute(&mut *tx)
            .await?;
    }
    let store = crate::projection::sql::quote_ident(&scratch.store_schema);
    Ok(format!(
        "exists (select from pg_temp.foldd_stands s
                 where s.partition = {store}.es_partition(e.stream_id, {})
                   and ((e.transaction_id, e.global_position) <= (s.stamp, s.position)
                        or s.floors is not null and not {store}.es_is_past_floors(
                            s.floors, e.stream_id, e.transaction_id, e.global_position)))",
        standings.len()
    ))
}
