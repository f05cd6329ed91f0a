//! A copy of a read model, folded aside: to test it, to compare it, or to keep it as it was.
//!
//! **Promise.** What is folded here is what the daemon would have folded: the statements of the definition, unmodified, in
//! the same compilation, or the same Rust handler. What is interrupted leaves nothing behind; what is killed leaves a
//! schema that the next one drops.
//!
//! **How.** A test is one transaction that is rolled back. The log is folded page by page into a schema that `room` names
//! and clears away, or that gets its name at last. A page is what the function `pg_temp.es_page` returns, which `span` makes for a stretch of the log and
//! `cases` for the `@given` events of a test. When little is left, `verify` folds that and reads checkpoint, parked events and tables in one REPEATABLE READ
//! snapshot, so that they belong together, and has `compare` look for rows that differ. `aside` builds what is kept.
//!
//! **What it never does.** It takes no lease, moves no checkpoint, and writes to no table but its own.
//!
//! **What it costs.** Each page is a transaction of half a second; vacuum and a cut-over wait for the one that compares.

pub(crate) mod aside;
pub(crate) mod cases;
mod compare;
pub(crate) mod room;
mod span;
mod undetermined;
pub(crate) mod verify;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::FutureExt;
use sqlx::{AssertSqlSafe, Row};

use super::batch::{Function, Outcome, event_ref, place};
use super::build::{BuildError, lay, store_schema};
use super::failure::Fault;
use super::hosted::{Index, panic_text};
use super::machine::Directive;
use crate::ledger::phases::Trouble;
use crate::projection::Projection;
use crate::projection::definition::{Categories, Definition};
use crate::projection::handler::{ErasedHandler, HandlerError};
use crate::projection::sql::{Target, Variant, call, compile, quote_ident};
use crate::store::{self, Link};

/// Set for the transaction: gone if a handler ended it.
const MARK: &str = "foldd.scratch";

/// Why a copy could not be folded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScratchError {
    /// Its tables or statements do not fit the database.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A page could not be applied.
    #[error("{}", .0.trouble("", Directive::Retry).message)]
    Handler(Box<Fault>),
    /// A handler ended the transaction.
    #[error("the handler committed or rolled back the transaction that it runs in")]
    Meddling,
    /// What was asked for is not to be had.
    #[error("{message}")]
    Refused { message: String, remedy: String },
    /// The database refused or could not be reached.
    #[error("the database reported an error")]
    Database(#[from] sqlx::Error),
}

impl ScratchError {
    pub(crate) fn refused(message: String, remedy: impl Into<String>) -> Self {
        Self::Refused { message, remedy: remedy.into() }
    }

    /// What happened and what to do, for a person.
    pub(crate) fn trouble(&self) -> Trouble {
        let plain = |message: String, remedy: String| Trouble {
            message,
            remedy,
            sqlstate: None,
            place: None,
            event: None,
        };
        match self {
            Self::Build(error) => error.trouble(),
            // Nothing runs on, so there is nothing to resume.
            Self::Handler(fault) => fault.trouble("", Directive::Retry),
            Self::Meddling => {
                plain(self.to_string(), "take begin, commit and rollback out of the handler".to_owned())
            }
            Self::Refused { message, remedy } => plain(message.clone(), remedy.clone()),
            Self::Database(error) => Trouble {
                sqlstate: error.as_database_error().and_then(|error| error.code()).map(Into::into),
                ..plain(
                    crate::error::chain(error),
                    crate::error::remedy(error)
                        .unwrap_or("see whether PostgreSQL is up and what this role may do")
                        .to_owned(),
                )
            },
        }
    }
}

/// Told how many more events a long fold has passed.
pub(crate) type OnProgress<'p> = &'p mut dyn FnMut(i64);

/// A copy that is being folded, in the transaction that created it.
pub(crate) struct Scratch {
    /// Its schema, by name and by OID.
    schema: String,
    schema_oid: u32,
    store_schema: String,
    /// `fines@2`, for messages.
    projection_id: String,
    path: String,
    /// What handlers see, in this order.
    search_path: String,
    /// Makes the compiled function, in pg_temp; empty for a Rust handler.
    ddl: String,
    body: Body,
}

enum Body {
    Sql(Function),
    Rust(Arc<dyn ErasedHandler>),
}

impl Scratch {
    /// Creates schema and tables.
    pub(crate) async fn lay(
        tx: &mut Link<'_>,
        wanted: &Projection,
        schema: &str,
    ) -> Result<Self, ScratchError> {
        let store_schema = store_schema(tx).await?;
        let schema_oid = lay(tx, wanted, schema, &store_schema).await?.schema_oid;
        let projection_id = format!("{}@{}", wanted.name, wanted.version);
        let extension_schemas = wanted.settings.extension_schemas.clone().unwrap_or_default();
        let target = Target {
            projection_id: &projection_id,
            schema_oid,
            store_schema: &store_schema,
            extension_schemas: &extension_schemas,
            order_guard: false,
        };
        let mut ddl = String::new();
        let body = match compile(&wanted.definition, &target, Variant::Scratch) {
            Some(compiled) => {
                ddl = compiled.ddl;
                let call = call(&projection_id, Variant::Scratch);
                Body::Sql(Function { call, lines: compiled.lines })
            }
            None => Body::Rust(
                wanted
                    .handlers
                    .get(&wanted.version)
                    .cloned()
                    .ok_or_else(|| BuildError::NoHandler(projection_id.clone()))?,
            ),
        };
        let search_path: Vec<String> = [quote_ident(schema), "foldd".to_owned()]
            .into_iter()
            .chain(extension_schemas.iter().map(|extension| quote_ident(extension)))
            .chain(["pg_catalog".to_owned(), "pg_temp".to_owned()])
            .collect();
        Ok(Self {
            ddl,
            schema: schema.to_owned(),
            schema_oid,
            store_schema,
            projection_id,
            path: wanted.definition.path.clone(),
            search_path: search_path.join(", "),
            body,
        })
    }

    /// Makes the handlers ready in a transaction: once in each that folds.
    pub(crate) async fn compile(&self, tx: &mut Link<'_>) -> Result<(), ScratchError> {
        sqlx::raw_sql(AssertSqlSafe(self.ddl.as_str())).execute(&mut *tx).await?;
        sqlx::query("select set_config($1, '1', true)").bind(MARK).execute(tx).await?;
        Ok(())
    }

    /// Applies the page that `pg_temp.es_page` returns now, of so many events.
    pub(crate) async fn fold(&self, tx: &mut Link<'_>, events: i64) -> Result<(), ScratchError> {
        match &self.body {
            Body::Sql(function) => {
                let row = sqlx::query(AssertSqlSafe(function.call.as_str()))
                    .bind(events)
                    .fetch_one(&mut *tx)
                    .await?;
                let Outcome::Failed { position, context, mut fault } = Outcome::of(&row)? else {
                    return Ok(());
                };
                fault.page = events;
                fault.place = place(&self.projection_id, &self.path, &function.lines, &context);
                if let Some(position) = position {
                    fault.event = event_ref(tx, position).await;
                }
                Err(ScratchError::Handler(Box::new(Fault::Handler(fault))))
            }
            Body::Rust(handler) => self.host(tx, handler.as_ref(), events).await,
        }
    }

    async fn host(
        &self,
        tx: &mut Link<'_>,
        handler: &dyn ErasedHandler,
        events: i64,
    ) -> Result<(), ScratchError> {
        let page = store::read_scratch(tx).await?;
        let index = Index::of(&page);
        let fault = |error: &HandlerError| ScratchError::Handler(Box::new(index.fault(error, events)));
        let before = self.enter(tx).await?;
        match AssertUnwindSafe(handler.decode_and_apply(tx.driver(), page)).catch_unwind().await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(fault(&error)),
            Err(panic) => return Err(fault(&HandlerError::new(panic_text(&*panic)))),
        }
        let mark: Option<String> =
            sqlx::query_scalar("select current_setting($1, true)").bind(MARK).fetch_one(&mut *tx).await?;
        if mark.as_deref() != Some("1") {
            // What it committed is there for everybody to see.
            let drop = format!("drop schema if exists {} cascade", quote_ident(&self.schema));
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *tx).await?;
            return Err(ScratchError::Meddling);
        }
        sqlx::raw_sql("set constraints all immediate")
            .execute(&mut *tx)
            .await
            .map_err(|error| fault(&HandlerError::from(error)))?;
        self.leave(tx, &before).await
    }

    /// Puts the copy's schema at the head of the search path; returns the path that was there.
    async fn enter(&self, tx: &mut Link<'_>) -> Result<String, ScratchError> {
        let row = sqlx::query("select current_setting('search_path'), set_config('search_path', $1, true)")
            .bind(&self.search_path)
            .fetch_one(tx)
            .await?;
        Ok(row.try_get(0)?)
    }

    async fn leave(&self, tx: &mut Link<'_>, before: &str) -> Result<(), ScratchError> {
        sqlx::query("select set_config('search_path', $1, true)").bind(before).execute(tx).await?;
        Ok(())
    }
}

/// Begins a transaction with one snapshot from its first look to its end.
async fn begin<'l>(conn: &'l mut Link<'_>) -> sqlx::Result<Link<'l>> {
    let mut tx = conn.begin_snapshot().await?;
    // A policy would hide rows without a word. And where the server can look whether we are still there, it does.
    sqlx::raw_sql(
        "set local row_security = off;
         select set_config('client_connection_check_interval', '1s', true) from pg_settings
         where name = 'client_connection_check_interval' and version() like '%linux%'",
    )
    .execute(&mut tx)
    .await?;
    Ok(tx)
}

fn listed(definition: &Definition) -> Option<&[String]> {
    match &definition.categories {
        Categories::All => None,
        Categories::Listed(names) => Some(names),
    }
}
