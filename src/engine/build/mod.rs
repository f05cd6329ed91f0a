//! Decides what is to run, and makes a projection's schema, tables and function when there is none yet.

mod lay;

use serde_json::value::to_raw_value;
use sqlx::AssertSqlSafe;

use lay::lay;

use super::batch::{self, Program};
use super::failure::Policy;
use super::hosted::Hosted;
use crate::ledger::phases::Trouble;
use crate::ledger::projections::{self, Known, New, Part};
use crate::projection::Projection;
use crate::projection::definition::{Body, Categories, Definition};
use crate::projection::sql::{Target, Variant, call, compile, quote_ident};
use crate::store::Link;

/// Why a projection cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// A statement does not fit the database.
    #[error("{place}: {message}")]
    Statement { place: String, message: String, remedy: String, sqlstate: Option<String> },
    /// There is a schema of the projection's name that foldd did not make.
    #[error("schema {0} exists already and is not foldd's")]
    SchemaTaken(String),
    /// A stored definition is not readable by this program.
    #[error("the stored definition of {0} is not readable by this foldd")]
    UnreadableDefinition(String, #[source] serde_json::Error),
    /// The streams of a split projection would go to other partitions than before.
    #[error("{0} was split into partitions on a server that hashes stream ids otherwise")]
    OtherHash(String),
    /// The handler is Rust, and this program has none of that name.
    #[error("{0} has a Rust handler, and this program does not have it")]
    NoHandler(String),
    /// The database refused or could not be reached.
    #[error("the database reported an error")]
    Database(#[from] sqlx::Error),
}

impl BuildError {
    /// What happened and what to do, for a person.
    pub(crate) fn trouble(&self) -> Trouble {
        let (remedy, sqlstate, place) = match self {
            Self::Statement { place, remedy, sqlstate, .. } => {
                (remedy.clone(), sqlstate.clone(), Some(place.clone()))
            }
            Self::SchemaTaken(name) => (
                format!("rename the projection's file, or drop or rename schema {name} if nobody needs it"),
                None,
                None,
            ),
            Self::UnreadableDefinition(..) => {
                ("run the foldd version that wrote it, or a newer one".to_owned(), None, None)
            }
            Self::OtherHash(_) => (
                "its partitions stand at different places that mean nothing here: build it anew, or go back to a server of \
                 that version"
                    .to_owned(),
                None,
                None,
            ),
            Self::NoHandler(_) => ("run the binary that registers the handler".to_owned(), None, None),
            Self::Database(error) => {
                let unknown = "see whether PostgreSQL is up and what this role may do";
                let sqlstate = error.as_database_error().and_then(|error| error.code()).map(Into::into);
                (crate::error::remedy(error).unwrap_or(unknown).to_owned(), sqlstate, None)
            }
        };
        let message = match self {
            Self::Statement { message, .. } => message.clone(),
            Self::SchemaTaken(_)
            | Self::UnreadableDefinition(..)
            | Self::OtherHash(_)
            | Self::NoHandler(_)
            | Self::Database(_) => crate::error::chain(self),
        };
        Trouble { message, remedy, sqlstate, place, event: None }
    }
}

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
    pub(crate) name: String,
    pub(crate) version: i32,
    pub(crate) part: Part,
    pub(crate) program: Program,
    /// `None` for all categories.
    pub(crate) categories: Option<Vec<String>>,
    /// Whether it has never been live yet.
    pub(crate) building: bool,
    /// Why what runs is not what the configuration asks for.
    pub(crate) notice: Option<Trouble>,
}

/// Brings the database to what the configuration asks for, as far as that is safe, and says what is to be run: one for
/// each partition.
///
/// One transaction under a lock of the projection's name: several replicas may start at once. A live version whose
/// definition changed goes on as it was, from the stored definition, with a notice; one that was never live is built anew.
///
/// `split` is what this process does about the number of partitions: bring about its own at its start, and follow the
/// database's whenever another one did so later. So the last one that starts decides, and nobody is left behind.
pub(crate) async fn prepare(
    conn: &mut Link<'_>,
    wanted: &Projection,
    split: Split,
) -> Result<Vec<Ready>, BuildError> {
    let mut tx = conn.begin().await?;
    projections::lock(&mut tx, &wanted.name).await?;
    let known = projections::all(&mut tx, Some(&wanted.name)).await?;
    let store_schema = store_schema(&mut tx).await?;
    let (current, notice) = match choose(wanted, &known)? {
        Choice::Create => (Box::new(create(&mut tx, wanted, &store_schema).await?), None),
        Choice::Replace(half_built) => {
            discard(&mut tx, half_built, &wanted.name).await?;
            (Box::new(create(&mut tx, wanted, &store_schema).await?), None)
        }
        Choice::Run(current, notice) => (current, notice),
    };
    let body = body(&mut tx, wanted, &current, store_schema).await?;
    let partitions = (split == Split::AsConfigured).then(|| wanted.settings.partitions.unwrap_or(1));
    let parts = projections::split(&mut tx, &current.projection_id, partitions)
        .await?
        .ok_or_else(|| BuildError::OtherHash(current.projection_id.clone()))?;
    tx.commit().await?;
    let ready = |part: Part| Ready {
        name: wanted.name.clone(),
        version: current.version,
        categories: listed(&current.definition),
        building: current.building,
        notice: notice.clone(),
        program: Program {
            path: current.definition.path.clone(),
            subscription_id: part.subscription_id.clone(),
            projection_id: current.projection_id.clone(),
            policy: Policy::of(&wanted.settings),
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
        return Ok(batch::Body::Sql { plain, parking });
    }
    let handler = wanted.handler.clone().filter(|_| wanted.version == current.version);
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
    let known = projections::all(&mut tx, Some(&wanted.name)).await?;
    tx.rollback().await?;
    if let Choice::Run(_, Some(notice)) = choose(wanted, &known)? {
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
    building: bool,
}

enum Choice<'k> {
    Create,
    Replace(&'k Known),
    Run(Box<Current>, Option<Trouble>),
}

fn choose<'k>(wanted: &Projection, known: &'k [Known]) -> Result<Choice<'k>, BuildError> {
    let Some(standing) = known.iter().find(|known| known.role == "live").or(known.last()) else {
        return Ok(Choice::Create);
    };
    let stored: Definition = serde_json::from_str(standing.definition.get())
        .map_err(|source| BuildError::UnreadableDefinition(standing.projection_id.clone(), source))?;
    let same = standing.version == wanted.version && stored.same_as(&wanted.definition);
    if standing.role == "building" && !same {
        return Ok(Choice::Replace(standing));
    }
    let notice = (!same).then(|| disagreement(wanted, standing, &stored));
    // The definition that runs is the stored one; when it is the same, the file's lines are the better reference.
    let definition = if same { wanted.definition.clone() } else { stored };
    let current = Current {
        projection_id: standing.projection_id.clone(),
        version: standing.version,
        schema_oid: standing.schema_oid,
        definition,
        building: standing.role == "building",
    };
    Ok(Choice::Run(Box::new(current), notice))
}

fn disagreement(wanted: &Projection, live: &Known, stored: &Definition) -> Trouble {
    let (message, remedy) = match wanted.version.cmp(&live.version) {
        std::cmp::Ordering::Equal => (
            format!(
                "the definition of version {} changed; the one applied stays in force\n{}",
                live.version,
                stored.diff(&wanted.definition)
            ),
            "raise `version`, or take the change back",
        ),
        std::cmp::Ordering::Greater => (
            format!(
                "version {} is configured, version {} is live and stays in force",
                wanted.version, live.version
            ),
            "this release builds first versions only; keep the live version in the file for now",
        ),
        std::cmp::Ordering::Less => (
            format!("version {} is configured, but version {} is live already", wanted.version, live.version),
            "versions only rise: write the live version or a higher one",
        ),
    };
    Trouble {
        message,
        remedy: remedy.to_owned(),
        sqlstate: None,
        place: Some(wanted.definition.path.clone()),
        event: None,
    }
}

/// Lays out the projection under its own name and enters it as being built.
async fn create(tx: &mut Link<'_>, wanted: &Projection, store_schema: &str) -> Result<Current, BuildError> {
    let schema_oid = lay(tx, wanted, &wanted.name, store_schema).await?;
    let definition = to_raw_value(&wanted.definition)
        .map_err(|source| BuildError::UnreadableDefinition(wanted.name.clone(), source))?;
    let categories = listed(&wanted.definition);
    let new = New {
        name: &wanted.name,
        version: wanted.version,
        kind: if wanted.definition.body == Body::Rust { "rust" } else { "sql" },
        schema_name: &wanted.name,
        schema_oid,
        definition: &definition,
        categories: categories.as_deref(),
    };
    let projection_id = projections::enter(tx, &new).await?;
    Ok(Current {
        projection_id,
        version: wanted.version,
        schema_oid,
        definition: wanted.definition.clone(),
        building: true,
    })
}

/// Drops what was never live. Refused when something of somebody else's hangs on its tables.
async fn discard(tx: &mut Link<'_>, half_built: &Known, name: &str) -> Result<(), BuildError> {
    let dependent: Option<String> = sqlx::query_scalar(
        "select distinct v.oid::regclass::text from pg_class t
         join pg_depend d on d.refobjid = t.oid and d.refclassid = 'pg_class'::regclass
         join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
         join pg_class v on v.oid = r.ev_class and v.relnamespace <> t.relnamespace
         where t.relnamespace = $1::bigint::oid limit 1",
    )
    .bind(i64::from(half_built.schema_oid))
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(view) = dependent {
        return Err(BuildError::Statement {
            place: format!("schema {name}"),
            message: format!("the half-built tables cannot be replaced: {view} depends on them"),
            remedy: format!("drop {view} and create it again once the projection is live"),
            sqlstate: None,
        });
    }
    let schema: Option<String> =
        sqlx::query_scalar("select nspname::text from pg_namespace where oid = $1::bigint::oid")
            .bind(i64::from(half_built.schema_oid))
            .fetch_optional(&mut *tx)
            .await?;
    if let Some(schema) = schema {
        sqlx::raw_sql(AssertSqlSafe(format!("drop schema {} cascade", quote_ident(&schema))))
            .execute(&mut *tx)
            .await?;
    }
    Ok(projections::forget(tx, &half_built.projection_id).await?)
}

fn listed(definition: &Definition) -> Option<Vec<String>> {
    match &definition.categories {
        Categories::All => None,
        Categories::Listed(names) => Some(names.clone()),
    }
}

async fn store_schema(tx: &mut Link<'_>) -> sqlx::Result<String> {
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
