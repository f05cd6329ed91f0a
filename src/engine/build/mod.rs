//! Decides what is to run, and makes a version's schema, tables and functions when there are none yet.
//!
//! The first version of a projection is built where it will live, a further one in a schema beside it. All versions that
//! are live, being built or kept for a rollback are run, from the definitions that the database has: so any replica can
//! run any of them, whatever its configuration says.

mod begin;
mod decide;
mod error;
pub(crate) mod foresee;
mod late;
mod lay;

use std::time::Duration;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use begin::bring_about;
use decide::{Decision, decide, stored};
pub(crate) use error::BuildError;
pub(super) use lay::lay;

use super::batch::{self, Program};
use super::failure::Policy;
use super::hosted::Hosted;
use super::pace::Grain;
use crate::ledger::phases::Trouble;
use crate::ledger::projections::{self, Known, Part};
use crate::projection::Projection;
use crate::projection::definition::{Categories, Definition};
use crate::projection::settings::Cutover;
use crate::projection::sql::{Target, Variant, call, compile};
use crate::store::Link;

/// How long a previous version is kept unless its settings say otherwise: long enough to notice what is wrong with the
/// new one on the next working day.
const KEEP_PREVIOUS: Duration = Duration::from_secs(24 * 60 * 60);

/// What a process does about the number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// Brings it about.
    AsConfigured,
    /// Takes it as it is.
    AsFound,
}

/// A projection that can be folded.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) part: Part,
    pub(crate) program: Program,
    /// `None` for all categories.
    pub(crate) categories: Option<Vec<String>>,
    /// Whether it is still to reach the horizon for the first time.
    pub(crate) building: bool,
    /// The most events a second that it may fold while it is built.
    pub(crate) events_per_second: Option<u32>,
    /// Why what runs is not what the configuration asks for.
    pub(crate) notice: Option<Trouble>,
}

/// What came of preparing a projection.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// What is to be run: one for each partition of each version.
    pub(crate) ready: Vec<Ready>,
    /// The configured version that cannot be built, and why. What there was before goes on.
    pub(crate) unbuilt: Option<(String, Trouble)>,
    /// Whether the reason may pass, so that it should be tried again.
    pub(crate) may_pass: bool,
}

/// Brings the database to what the configuration asks for, as far as that is safe, and says what is to be run.
///
/// One transaction under a lock of the projection's name: several replicas may start at once. A live version whose
/// definition changed goes on as it was, from the stored definition, with a notice; so it does when the next one cannot be
/// laid out. `me` is this replica, which may replace what it builds itself.
///
/// `split` is what this process does about the number of partitions: bring about its own at its start, and follow the
/// database's whenever another one did so later. So the last one that starts decides, and nobody is left behind.
pub(crate) async fn prepare(
    conn: &mut Link<'_>,
    wanted: &Projection,
    split: Split,
    me: Uuid,
) -> Result<Prepared, BuildError> {
    match attempt(conn, wanted, split, me, true).await {
        Ok(ready) => Ok(Prepared { ready, unbuilt: None, may_pass: false }),
        Err(Refused { error, is_live: true }) if !is_outage(&error) => {
            let ready = attempt(conn, wanted, split, me, false).await.map_err(|refused| refused.error)?;
            let id = format!("{}@{}", wanted.name, wanted.version);
            Ok(Prepared { ready, unbuilt: Some((id, error.trouble())), may_pass: error.may_pass() })
        }
        Err(refused) => Err(refused.error),
    }
}

/// Why nothing could be begun, and whether there is a live version that goes on.
struct Refused {
    error: BuildError,
    is_live: bool,
}

impl<E: Into<BuildError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { error: error.into(), is_live: false }
    }
}

fn is_outage(error: &BuildError) -> bool {
    matches!(error, BuildError::Database(error) if crate::error::is_outage(error))
}

/// Prepares in a transaction of its own, and brings about what is wanted if it `begins`. No part of a transaction: what a
/// statement has touched is told by its xid.
async fn attempt(
    conn: &mut Link<'_>,
    wanted: &Projection,
    split: Split,
    me: Uuid,
    begins: bool,
) -> Result<Vec<Ready>, Refused> {
    let mut tx = conn.begin().await?;
    projections::lock(&mut tx, &wanted.name).await?;
    let known = projections::all(&mut tx, Some(&wanted.name), Some(me)).await?;
    let Decision { step, mut notice } = decide(wanted, &known)?;
    let store_schema = store_schema(&mut tx).await?;
    let is_live = known.iter().any(|known| known.role == "live");
    if begins && let Err(error) = bring_about(&mut tx, wanted, &known, step, &store_schema).await {
        tx.rollback().await?;
        return Err(Refused { error, is_live });
    }
    let mut ready = Vec::new();
    let mut without_handler = None;
    for version in projections::all(&mut tx, Some(&wanted.name), Some(me)).await? {
        if version.role == "retired" {
            continue;
        }
        match run(&mut tx, wanted, &version, split, &store_schema).await {
            Ok(mut parts) => {
                if version.role == "live" || version.role == "building" && !is_live {
                    parts.iter_mut().take(1).for_each(|first| first.notice = notice.take());
                }
                ready.append(&mut parts);
            }
            Err(BuildError::NoHandler(id)) => without_handler = Some(id),
            Err(error) => return Err(error.into()),
        }
    }
    match without_handler {
        Some(id) if ready.is_empty() => return Err(BuildError::NoHandler(id).into()),
        Some(id) => tracing::warn!(
            projection = id,
            remedy = "register the handlers of both versions until the older one is retired",
            "this program has no handler of this version: other replicas must keep it fresh"
        ),
        None => {}
    }
    tx.commit().await?;
    Ok(ready)
}

/// One version as it is run, a line for each partition.
async fn run(
    tx: &mut Link<'_>,
    wanted: &Projection,
    known: &Known,
    split: Split,
    store_schema: &str,
) -> Result<Vec<Ready>, BuildError> {
    let applied = stored(known)?;
    let is_wanted = known.version == wanted.version && applied.same_as(&wanted.definition);
    // When it is the same, the file's lines are the better reference.
    let definition = if is_wanted { wanted.definition.clone() } else { applied };
    let current = Current {
        projection_id: known.projection_id.clone(),
        version: known.version,
        schema_oid: known.schema_oid,
        definition,
    };
    let body = body(tx, wanted, &current, store_schema.to_owned()).await?;
    let settings = &wanted.settings;
    if is_wanted {
        let cutover = match settings.cutover.unwrap_or_default() {
            Cutover::Automatic => "automatic",
            Cutover::Manual => "manual",
        };
        let keep = settings.keep_previous.unwrap_or(KEEP_PREVIOUS);
        projections::set_terms(tx, &current.projection_id, cutover, keep).await?;
    }
    let partitions = (split == Split::AsConfigured && is_wanted).then(|| settings.partitions.unwrap_or(1));
    let parts = projections::split(tx, &current.projection_id, partitions)
        .await?
        .ok_or_else(|| BuildError::OtherHash(current.projection_id.clone()))?;
    let ready = |part: Part| Ready {
        categories: listed(&current.definition),
        building: known.role == "building",
        events_per_second: settings.events_per_second,
        notice: None,
        program: Program {
            path: current.definition.path.clone(),
            subscription_id: part.subscription_id.clone(),
            projection_id: current.projection_id.clone(),
            policy: Policy::of(settings),
            body: body.clone(),
        },
        part,
    };
    Ok(parts.into_iter().map(ready).collect())
}

/// Who applies the events: the compiled function, made or mended here, or the handler of this program.
async fn body(
    tx: &mut Link<'_>,
    wanted: &Projection,
    current: &Current,
    store_schema: String,
) -> Result<batch::Body, BuildError> {
    let extension_schemas = wanted.settings.extension_schemas.clone().unwrap_or_default();
    let target = Target {
        projection_id: &current.projection_id,
        schema_oid: current.schema_oid,
        store_schema: &store_schema,
        extension_schemas: &extension_schemas,
        order_guard: Policy::of(&wanted.settings).order_guard,
    };
    if let (Some(plain), Some(parking)) = (
        function(tx, current, &target, Variant::Plain).await?,
        function(tx, current, &target, Variant::Parking).await?,
    ) {
        let grain = if current.definition.body.takes_whole_pages() { Grain::Page } else { Grain::Event };
        return Ok(batch::Body::Sql { plain, parking, grain });
    }
    let handler = wanted.handlers.get(&current.version).cloned();
    Ok(batch::Body::Rust(Hosted {
        handler: handler.ok_or_else(|| BuildError::NoHandler(current.projection_id.clone()))?,
        schema_oid: current.schema_oid,
        categories: listed(&current.definition),
        store_schema,
        extension_schemas,
    }))
}

/// One of the two compiled functions, made or mended where the database has another; `None` for a Rust handler.
async fn function(
    tx: &mut Link<'_>,
    current: &Current,
    target: &Target<'_>,
    variant: Variant,
) -> Result<Option<batch::Function>, BuildError> {
    let Some(compiled) = compile(&current.definition, target, variant) else { return Ok(None) };
    if function_source(tx, &current.projection_id, variant).await? != Some(compiled.source) {
        sqlx::raw_sql(AssertSqlSafe(compiled.ddl)).execute(tx).await?;
    }
    Ok(Some(batch::Function { call: call(&current.projection_id, variant), lines: compiled.lines }))
}

/// Checks a projection against the database as it is, in a schema that is rolled back: nothing is kept.
///
/// Also says when a live version has another definition under the same number.
pub(crate) async fn check(conn: &mut Link<'_>, wanted: &Projection) -> Result<(), BuildError> {
    let mut tx = conn.begin().await?;
    let store_schema = store_schema(&mut tx).await?;
    let scratch = format!("foldd_check_{}", std::process::id());
    lay(&mut tx, wanted, &scratch, &store_schema).await?;
    let known = projections::all(&mut tx, Some(&wanted.name), None).await?;
    tx.rollback().await?;
    if let Some(notice) = decide(wanted, &known)?.notice {
        return Err(BuildError::Statement {
            place: wanted.definition.path.clone(),
            message: notice.message,
            remedy: notice.remedy,
            sqlstate: None,
        });
    }
    Ok(())
}

/// A version that is to run.
struct Current {
    projection_id: String,
    version: i32,
    schema_oid: u32,
    definition: Definition,
}

fn listed(definition: &Definition) -> Option<Vec<String>> {
    match &definition.categories {
        Categories::All => None,
        Categories::Listed(names) => Some(names.clone()),
    }
}

pub(super) async fn store_schema(tx: &mut Link<'_>) -> sqlx::Result<String> {
    sqlx::query_scalar(
        "select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.oid = 'es_events'::regclass",
    )
    .fetch_one(tx)
    .await
}

async fn function_source(
    tx: &mut Link<'_>,
    projection_id: &str,
    variant: Variant,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = $2 and p.proname = $1",
    )
    .bind(projection_id)
    .bind(variant.schema())
    .fetch_optional(tx)
    .await
}
