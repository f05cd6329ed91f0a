//! Lays a projection out: its schema, its tables, and PostgreSQL's opinion of every statement.

use serde_json::Value;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Row};

use super::BuildError;
use crate::projection::Projection;
use crate::projection::definition::{Body, Definition};
use crate::projection::file::Entry;
use crate::projection::lexer::split_statements;
use crate::projection::sql::{EXPLAIN, explainer, quote_ident};
use crate::store::Link;

/// What was laid out.
pub(in crate::engine) struct Laid {
    /// The OID of its schema.
    pub(in crate::engine) schema_oid: u32,
    /// How PostgreSQL would run the statements; none of a Rust handler, whose statements nobody knows.
    pub(super) plans: Vec<Value>,
}

/// Creates schema and tables, and has PostgreSQL plan every statement there.
pub(in crate::engine) async fn lay(
    tx: &mut Link<'_>,
    wanted: &Projection,
    schema: &str,
    store_schema: &str,
) -> Result<Laid, BuildError> {
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
    let mut plans = Vec::new();
    match &definition.body {
        Body::PerEvent(entries) => {
            for entry in entries {
                plans.push(explain(tx, definition, &entry.body, true, schema, store_schema).await?);
            }
        }
        Body::PerBatch(entries) => {
            for entry in entries {
                plans.push(explain(tx, definition, entry, false, schema, store_schema).await?);
            }
        }
        Body::Rust => {}
    }
    set_path(tx, &before).await?;
    let oid: i64 = sqlx::query_scalar("select oid::bigint from pg_namespace where nspname = $1")
        .bind(schema)
        .fetch_one(tx)
        .await?;
    Ok(Laid { schema_oid: u32::try_from(oid).unwrap_or_default(), plans })
}

async fn create_tables(
    tx: &mut Link<'_>,
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
async fn touched_elsewhere(tx: &mut Link<'_>, schema: &str) -> sqlx::Result<Option<String>> {
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

/// Plans one statement where it will run, and refuses it when it writes elsewhere or returns rows. Returns its plans.
async fn explain(
    tx: &mut Link<'_>,
    definition: &Definition,
    entry: &Entry,
    per_event: bool,
    schema: &str,
    store_schema: &str,
) -> Result<Value, BuildError> {
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
    match refuse_plans(&plan, schema, per_event) {
        None => Ok(plan),
        Some((message, remedy)) => {
            let place = format!("{}:{}", definition.path, entry.line);
            Err(BuildError::Statement { place, message, remedy: remedy.to_owned(), sqlstate: None })
        }
    }
}

/// What is wrong, and what to do.
type Refusal = (String, &'static str);

/// What the plans of a statement must not do. There is more than one where a rule of the table adds
/// statements.
fn refuse_plans(plans: &Value, schema: &str, per_event: bool) -> Option<Refusal> {
    let plans = plans.as_array().map(Vec::as_slice).unwrap_or_default();
    if plans.is_empty() {
        let remedy = "a rule of its table takes its place; remove the rule";
        return Some(("the statement does nothing".to_owned(), remedy));
    }
    plans.iter().find_map(|plan| refuse_plan(&plan["Plan"], schema, per_event))
}

/// What a plan must not do: write other tables, return rows, or read the page where single events are
/// handled.
fn refuse_plan(top: &Value, schema: &str, per_event: bool) -> Option<Refusal> {
    if top["Node Type"] != "ModifyTable" {
        return Some((
            "the statement writes nothing at its top level".to_owned(),
            "make it an insert, update, delete or merge",
        ));
    }
    if top["Output"].as_array().is_some_and(|output| !output.is_empty()) {
        return Some(("the statement returns rows, and nobody takes them".to_owned(), "remove `returning`"));
    }
    if let Some(table) = foreign_target(top, schema) {
        return Some((
            format!("the statement writes {table}, which is not the projection's own"),
            "write only tables of this file's @tables; a rebuild could not undo anything else",
        ));
    }
    (per_event && reads_page(top)).then(|| {
        (
            "the statement reads `batch`, which is there for `@batch` alone".to_owned(),
            "read the columns of `event`, or make it a `-- @batch` statement",
        )
    })
}

fn foreign_target(node: &Value, schema: &str) -> Option<String> {
    if node["Node Type"] == "ModifyTable" && node["Schema"] != schema {
        let name = |key: &str| node[key].as_str().unwrap_or("?").to_owned();
        return Some(format!("{}.{}", name("Schema"), name("Relation Name")));
    }
    children(node).find_map(|child| foreign_target(child, schema))
}

fn reads_page(node: &Value) -> bool {
    let is_page = node["Function Name"] == "es_page"
        && node["Schema"].as_str().is_some_and(|schema| schema.starts_with("foldd"));
    is_page || children(node).any(reads_page)
}

pub(super) fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
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
    let remedy = remedy(database).to_owned();
    BuildError::Statement { place, message, remedy, sqlstate: Some(database.code().to_owned()) }
}

/// What to do about a statement that PostgreSQL refuses. Its own hints speak of what foldd does not let
/// anybody do.
fn remedy(error: &PgDatabaseError) -> &str {
    match error.code() {
        "42P01" | "3F000" => {
            "create the table under `@tables`; those of others, and of schema public, are not seen from here"
        }
        "42703" => "see the columns under `@tables`; `event` and `batch` have those of es_events",
        "42883" | "42704" => {
            "create it under `@tables`, or name its schema in `extension_schemas`; else see the types of the arguments"
        }
        "42P07" | "42710" | "42723" => "create it once, under a name of its own",
        "42501" => "have the database's owner grant this role what is named here",
        "55000" if error.message().contains("view \"batch\"") => {
            "`batch` is the page of events and is only read; write to a table of this file's `@tables`"
        }
        _ => error.hint().unwrap_or("mend the statement; `foldd check` tries it without building anything"),
    }
}

pub(super) async fn set_path(tx: &mut Link<'_>, path: &str) -> sqlx::Result<()> {
    sqlx::query("select set_config('search_path', $1, true)").bind(path).execute(tx).await?;
    Ok(())
}
