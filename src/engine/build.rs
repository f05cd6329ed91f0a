//! Makes a projection's schema, tables and function, and checks every statement before anything is kept.

use serde_json::Value;
use serde_json::value::to_raw_value;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::batch::Program;
use crate::ledger::phases::Trouble;
use crate::ledger::projections::{self, Known, New};
use crate::projection::Projection;
use crate::projection::definition::{Body, Categories, Definition};
use crate::projection::file::Entry;
use crate::projection::lexer::split_statements;
use crate::projection::sql::{EXPLAIN, Target, call, compile, explainer, quote_ident};

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
    /// The handler is Rust, and this program has none of that name.
    #[error("projection {0} declares a Rust handler, and this program has none")]
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
            Self::NoHandler(_) => ("run the binary that registers the handler".to_owned(), None, None),
            Self::Database(_) => {
                ("see whether PostgreSQL is up and what this role may do".to_owned(), None, None)
            }
        };
        let message = match self {
            Self::Statement { message, .. } => message.clone(),
            other => crate::error::chain(other),
        };
        Trouble { message, remedy, sqlstate, place, event: None }
    }
}

/// A projection that can be folded.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) name: String,
    pub(crate) version: i32,
    pub(crate) program: Program,
    /// `None` for all categories.
    pub(crate) categories: Option<Vec<String>>,
    /// Whether it has never been live yet.
    pub(crate) building: bool,
    /// Why what runs is not what the configuration asks for.
    pub(crate) notice: Option<Trouble>,
}

/// Brings the database to what the configuration asks for, as far as that is safe, and says what is to be run.
///
/// One transaction under a lock of the projection's name: several replicas may start at once. A live version whose
/// definition changed goes on as it was, from the stored definition, with a notice; one that was never live is built anew.
pub(crate) async fn prepare(conn: &mut PgConnection, wanted: &Projection) -> Result<Ready, BuildError> {
    let mut tx = conn.begin().await?;
    projections::lock(&mut tx, &wanted.name).await?;
    let known = projections::all(&mut tx, Some(&wanted.name)).await?;
    let store_schema = store_schema(&mut tx).await?;
    let (current, notice) = match choose(wanted, &known)? {
        Choice::Create => (create(&mut tx, wanted, &store_schema).await?, None),
        Choice::Replace(half_built) => {
            discard(&mut tx, half_built, &wanted.name).await?;
            (create(&mut tx, wanted, &store_schema).await?, None)
        }
        Choice::Run(current, notice) => (current, notice),
    };
    let target = Target {
        projection_id: &current.projection_id,
        schema_oid: current.schema_oid,
        store_schema: &store_schema,
        extension_schemas: wanted.settings.extension_schemas.as_deref().unwrap_or_default(),
    };
    let compiled =
        compile(&current.definition, &target).ok_or_else(|| BuildError::NoHandler(wanted.name.clone()))?;
    if function_source(&mut tx, &current.projection_id).await? != Some(compiled.source) {
        sqlx::raw_sql(AssertSqlSafe(compiled.ddl)).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Ready {
        name: wanted.name.clone(),
        version: current.version,
        categories: listed(&current.definition),
        building: current.building,
        notice,
        program: Program {
            call: call(&current.projection_id),
            path: current.definition.path.clone(),
            lines: compiled.lines,
            subscription_id: current.projection_id,
        },
    })
}

/// Checks a projection against the database as it is, in a schema that is rolled back: nothing is kept.
///
/// Also says when a live version has another definition under the same number.
pub(crate) async fn check(conn: &mut PgConnection, wanted: &Projection) -> Result<(), BuildError> {
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
    Run(Current, Option<Trouble>),
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
    Ok(Choice::Run(
        Current {
            projection_id: standing.projection_id.clone(),
            version: standing.version,
            schema_oid: standing.schema_oid,
            definition,
            building: standing.role == "building",
        },
        notice,
    ))
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
async fn create(
    tx: &mut PgConnection,
    wanted: &Projection,
    store_schema: &str,
) -> Result<Current, BuildError> {
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
async fn discard(tx: &mut PgConnection, half_built: &Known, name: &str) -> Result<(), BuildError> {
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

/// Creates schema and tables, and has PostgreSQL plan every statement there. Returns the schema's OID.
async fn lay(
    tx: &mut PgConnection,
    wanted: &Projection,
    schema: &str,
    store_schema: &str,
) -> Result<u32, BuildError> {
    let taken: bool = sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *tx)
        .await?;
    if taken {
        return Err(BuildError::SchemaTaken(schema.to_owned()));
    }
    sqlx::raw_sql(AssertSqlSafe(format!("create schema {}", quote_ident(schema)))).execute(&mut *tx).await?;
    let extensions = wanted.settings.extension_schemas.as_deref().unwrap_or_default();
    let path: Vec<_> = std::iter::once(quote_ident(schema))
        .chain(["foldd".to_owned()])
        .chain(extensions.iter().map(|extension| quote_ident(extension)))
        .chain(["pg_catalog".to_owned(), "pg_temp".to_owned()])
        .collect();
    let before: String =
        sqlx::query_scalar("select current_setting('search_path')").fetch_one(&mut *tx).await?;
    set_path(tx, &path.join(", ")).await?;
    let definition = &wanted.definition;
    if let Some(tables) = &definition.tables {
        create_tables(tx, definition, tables, schema).await?;
    }
    match &definition.body {
        Body::PerEvent(entries) => {
            for entry in entries {
                explain(tx, definition, &entry.body, true, schema, store_schema).await?;
            }
        }
        Body::PerBatch(entries) => {
            for entry in entries {
                explain(tx, definition, entry, false, schema, store_schema).await?;
            }
        }
        Body::Rust => {}
    }
    set_path(tx, &before).await?;
    let oid: i64 = sqlx::query_scalar("select oid::bigint from pg_namespace where nspname = $1")
        .bind(schema)
        .fetch_one(tx)
        .await?;
    Ok(u32::try_from(oid).unwrap_or_default())
}

async fn create_tables(
    tx: &mut PgConnection,
    definition: &Definition,
    tables: &Entry,
    schema: &str,
) -> Result<(), BuildError> {
    let statements = split_statements(&tables.sql).unwrap_or_default();
    for statement in statements {
        let lines_before = tables.sql[..statement.offset].matches('\n').count();
        let line = tables.line + u32::try_from(lines_before).unwrap_or_default();
        let entry = Entry { sql: statement.text.to_owned(), line };
        sqlx::raw_sql(AssertSqlSafe(entry.sql.as_str()))
            .execute(&mut *tx)
            .await
            .map_err(|error| statement_error(error, definition, &entry, 0))?;
        if let Some(stranger) = touched_elsewhere(tx, schema).await? {
            return Err(BuildError::Statement {
                place: format!("{}:{}", definition.path, entry.line),
                message: format!(
                    "the statement makes or changes {stranger}, which is not in the projection's own schema"
                ),
                remedy: "name things without a schema; a rebuild could not undo anything else".to_owned(),
                sqlstate: None,
            });
        }
    }
    Ok(())
}

/// What this transaction has made or changed outside of the projection's schema: catalog rows carry its xid.
async fn touched_elsewhere(tx: &mut PgConnection, schema: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select n.nspname || '.' || touched.name
         from (select relnamespace, relname from pg_class where xmin = pg_current_xact_id()::xid
               union all select typnamespace, typname from pg_type where xmin = pg_current_xact_id()::xid
               union all select pronamespace, proname from pg_proc where xmin = pg_current_xact_id()::xid
               union all select c.relnamespace, c.relname
               from pg_trigger t join pg_class c on c.oid = t.tgrelid
               where t.xmin = pg_current_xact_id()::xid) touched (namespace, name)
         join pg_namespace n on n.oid = touched.namespace
         where n.nspname not in ($1, 'pg_toast') limit 1",
    )
    .bind(schema)
    .fetch_optional(tx)
    .await
}

/// Plans one statement where it will run, and refuses it when it writes elsewhere or returns rows.
async fn explain(
    tx: &mut PgConnection,
    definition: &Definition,
    entry: &Entry,
    per_event: bool,
    schema: &str,
    store_schema: &str,
) -> Result<(), BuildError> {
    let function = explainer("pg_temp.es_check", entry, per_event, store_schema);
    let offset = function.find(&entry.sql).unwrap_or_default();
    let fault = |error, offset| statement_error(error, definition, entry, offset);
    sqlx::raw_sql(AssertSqlSafe(function.as_str()))
        .execute(&mut *tx)
        .await
        .map_err(|error| fault(error, offset))?;
    if !per_event {
        // The view reads its bounds from the transaction's settings.
        sqlx::query(
            "select set_config('foldd.categories', '', true), set_config('foldd.after_transaction_id', '0', true),
                    set_config('foldd.after_position', '0', true), set_config('foldd.page_events', '0', true),
                    set_config('foldd.horizon', '0', true)",
        )
        .execute(&mut *tx)
        .await?;
    }
    let plan: Value = sqlx::query("select pg_temp.es_check()")
        .fetch_one(&mut *tx)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|error| fault(error, EXPLAIN.len()))?;
    sqlx::raw_sql("drop function pg_temp.es_check()").execute(&mut *tx).await?;
    refuse_plan(&plan, schema).map_or(Ok(()), |(message, remedy)| {
        let place = format!("{}:{}", definition.path, entry.line);
        Err(BuildError::Statement { place, message, remedy, sqlstate: None })
    })
}

/// What a plan must not do: write other tables, or return rows. `None` when it is right.
fn refuse_plan(plan: &Value, schema: &str) -> Option<(String, String)> {
    let top = &plan[0]["Plan"];
    if top["Node Type"] != "ModifyTable" {
        return Some((
            "the statement writes nothing at its top level".to_owned(),
            "make it an insert, update, delete or merge".to_owned(),
        ));
    }
    if top["Output"].as_array().is_some_and(|output| !output.is_empty()) {
        return Some((
            "the statement returns rows, and nobody takes them".to_owned(),
            "remove `returning`".to_owned(),
        ));
    }
    foreign_target(top, schema).map(|table| {
        (
            format!("the statement writes {table}, which is not the projection's own"),
            "write only tables of this file's @tables; a rebuild could not undo anything else".to_owned(),
        )
    })
}

fn foreign_target(node: &Value, schema: &str) -> Option<String> {
    if node["Node Type"] == "ModifyTable" && node["Schema"] != schema {
        let name = |key: &str| node[key].as_str().unwrap_or("?").to_owned();
        return Some(format!("{}.{}", name("Schema"), name("Relation Name")));
    }
    node["Plans"].as_array()?.iter().find_map(|child| foreign_target(child, schema))
}

/// Places an error of a statement in its file. `offset` is where the statement begins in the text that was sent.
fn statement_error(error: sqlx::Error, definition: &Definition, entry: &Entry, offset: usize) -> BuildError {
    let Some(database) =
        error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        return BuildError::Database(error);
    };
    if crate::error::is_transient(&error) {
        return BuildError::Database(error);
    }
    let position = match database.position() {
        Some(PgErrorPosition::Original(position)) => position,
        Some(PgErrorPosition::Internal { position, .. }) => position,
        None => 1 + offset,
    };
    // Positions count characters; all that stands before the statement is ASCII.
    let into = position.saturating_sub(1 + offset);
    let line = entry.sql.chars().take(into).filter(|char| *char == '\n').count();
    let place = format!("{}:{}", definition.path, entry.line + u32::try_from(line).unwrap_or_default());
    let mut message = database.message().to_owned();
    if let Some(detail) = database.detail() {
        message = format!("{message}; {detail}");
    }
    let remedy = database.hint().map_or_else(
        || "mend the statement; `foldd check` tries it without building anything".to_owned(),
        str::to_owned,
    );
    BuildError::Statement { place, message, remedy, sqlstate: Some(database.code().to_owned()) }
}

fn listed(definition: &Definition) -> Option<Vec<String>> {
    match &definition.categories {
        Categories::All => None,
        Categories::Listed(names) => Some(names.clone()),
    }
}

async fn set_path(tx: &mut PgConnection, path: &str) -> sqlx::Result<()> {
    sqlx::query("select set_config('search_path', $1, true)").bind(path).execute(tx).await?;
    Ok(())
}

async fn store_schema(tx: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar(
        "select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.oid = 'es_events'::regclass",
    )
    .fetch_one(tx)
    .await
}

async fn function_source(tx: &mut PgConnection, projection_id: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = 'foldd' and p.proname = $1",
    )
    .bind(projection_id)
    .fetch_optional(tx)
    .await
}
