//! Begins a version: lays it out and enters it in the books, in place of what it replaces.

use serde_json::value::to_raw_value;

use super::decide::{Step, stored};
use super::error::{BuildError, in_the_way};
use super::lay::lay;
use super::{late, listed};
use crate::ledger::projections::{self, Known, New};
use crate::projection::Projection;
use crate::projection::definition::Body;
use crate::store::Link;

/// Does what was decided.
pub(super) async fn bring_about(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    step: Step<'_>,
    store_schema: &str,
) -> Result<(), BuildError> {
    let live = match step {
        Step::Nothing => return begin_anew(tx, wanted, known, store_schema).await,
        Step::First => None,
        Step::Instead(discarded) => {
            discard(tx, discarded).await?;
            None
        }
        Step::Beside(live) => Some(live),
        Step::BesideInstead { live, discarded } => {
            discard(tx, discarded).await?;
            Some(live)
        }
    };
    begin(tx, wanted, known, live, store_schema).await
}

/// Builds a version anew where an operator wishes that: from the definition that the database has.
async fn begin_anew(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    store_schema: &str,
) -> Result<(), BuildError> {
    let live = known.iter().find(|known| known.role == "live");
    let Some(live) =
        live.filter(|live| live.to_rebuild && !known.iter().any(|known| known.role == "building"))
    else {
        return Ok(());
    };
    let same = Projection { version: live.version, definition: stored(live)?, ..wanted.clone() };
    begin(tx, &same, known, Some(live), store_schema).await
}

/// The generation of a version that is to be begun, and its schema: that of the projection's name when it is the first one,
/// else one aside.
pub(super) async fn home(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    is_first: bool,
) -> sqlx::Result<(i32, String)> {
    let earlier =
        known.iter().filter(|known| known.version == wanted.version).map(|known| known.generation).max();
    let generation = earlier.unwrap_or(0) + 1;
    if is_first {
        return Ok((generation, wanted.name.clone()));
    }
    let aside = sqlx::query_scalar("select es_schema_aside($1, $2, $3)")
        .bind(&wanted.name)
        .bind(wanted.version)
        .bind(generation)
        .fetch_one(tx)
        .await?;
    Ok((generation, aside))
}

/// Lays a version out and enters it as being built: under the projection's name when it is the first one, else beside the
/// live one.
async fn begin(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &[Known],
    live: Option<&Known>,
    store_schema: &str,
) -> Result<(), BuildError> {
    let (generation, schema) = home(tx, wanted, known, live.is_none()).await?;
    let laid = lay(tx, wanted, &schema, store_schema).await?;
    let late_indexes = late::put_off(tx, wanted, &schema, &laid).await?;
    let definition = to_raw_value(&wanted.definition)
        .map_err(|source| BuildError::UnreadableDefinition(wanted.name.clone(), source))?;
    let categories = listed(&wanted.definition);
    let new = New {
        name: &wanted.name,
        version: wanted.version,
        generation,
        kind: if wanted.definition.body == Body::Rust { "rust" } else { "sql" },
        schema_name: &schema,
        schema_oid: laid.schema_oid,
        definition: &definition,
        late_indexes: &late_indexes,
        categories: categories.as_deref(),
    };
    let projection_id = projections::enter(tx, &new).await?;
    for wished in known.iter().filter(|known| known.to_rebuild) {
        projections::is_rebuilding(tx, &wished.projection_id).await?;
    }
    if let Some(live) = live {
        projections::note_build(tx, &projection_id, &live.projection_id).await?;
        tracing::info!(
            projection = projection_id,
            schema,
            live = live.projection_id,
            "building beside the live version"
        );
    }
    Ok(())
}

/// Drops what was never live. Refused when something of somebody else's hangs on its tables.
async fn discard(tx: &mut Link<'_>, half_built: &Known) -> Result<(), BuildError> {
    sqlx::query("select foldd.es_drop_schema($1::bigint::oid)")
        .bind(i64::from(half_built.schema_oid))
        .execute(&mut *tx)
        .await
        .map_err(|error| in_the_way(error, half_built))?;
    Ok(projections::forget(tx, &half_built.projection_id).await?)
}
