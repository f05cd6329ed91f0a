//! The `@test`s of a projection file: given events folded into empty tables, queries, expected rows.
//!
//! Each run of a test is a transaction that is rolled back. Given events are numbered from 1 on, each is a second younger
//! than the one before it, and the session is set to UTC, so that a test says the same everywhere and always.

mod expect;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::AssertSqlSafe;

use expect::{Rows, ask, compare};

use super::{Scratch, ScratchError, begin, listed};
use crate::engine::build::BuildError;
use crate::ledger::phases::Trouble;
use crate::projection::Projection;
use crate::projection::definition::Body;
use crate::projection::file::{Given, TestCase};
use crate::projection::sql::quote_ident;
use crate::store::Link;

/// How the given events of a test come to the handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pages {
    /// All in one page.
    Whole,
    /// One event a page.
    Single,
}

/// Why a test failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Broken {
    /// The file's line that it is about.
    pub(crate) line: u32,
    /// How the events came when it failed.
    pub(crate) pages: Pages,
    /// What happened, in one line.
    pub(crate) message: String,
    /// What to do, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// The rows that were expected and those that came, where rows were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Rows>,
}

/// Runs a test, and returns what is wrong; nothing when it passes.
///
/// Handlers of pages are run twice, with all events in one page and with one event a page: where a page ends is chance,
/// and must make no difference.
pub(crate) async fn run(
    conn: &mut Link<'_>,
    projection: &Projection,
    case: &TestCase,
) -> Result<Vec<Broken>, ScratchError> {
    let mut broken = run_in(conn, projection, case, Pages::Whole).await?;
    if broken.is_empty() && matches!(projection.definition.body, Body::PerBatch(_)) && case.given.len() > 1 {
        broken = run_in(conn, projection, case, Pages::Single).await?;
    }
    Ok(broken)
}

async fn run_in(
    conn: &mut Link<'_>,
    projection: &Projection,
    case: &TestCase,
    pages: Pages,
) -> Result<Vec<Broken>, ScratchError> {
    let mut tx = begin(conn).await?;
    let broken = fold_and_ask(&mut tx, projection, case, pages).await;
    tx.rollback().await?;
    broken
}

async fn fold_and_ask(
    tx: &mut Link<'_>,
    projection: &Projection,
    case: &TestCase,
    pages: Pages,
) -> Result<Vec<Broken>, ScratchError> {
    let schema = format!("foldd_test_{}", std::process::id());
    let scratch = match Scratch::lay(tx, projection, &schema).await {
        Ok(scratch) => scratch,
        Err(ScratchError::Build(BuildError::Statement { place, message, remedy, .. })) => {
            let line = line_of(&place).unwrap_or(case.line);
            return Ok(vec![Broken { line, pages, message, remedy: Some(remedy), rows: None }]);
        }
        Err(error) => return Err(error),
    };
    sqlx::raw_sql(
        "set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres';
         set local bytea_output = 'hex'; set local extra_float_digits = 1; set local xmlbinary = 'base64'",
    )
    .execute(&mut *tx)
    .await?;
    create_page(tx, &scratch).await?;
    scratch.compile(tx).await?;
    for (nth, given) in (1_i64..).zip(&case.given) {
        if let Some(broken) = give(tx, projection, given, nth, pages).await? {
            return Ok(vec![broken]);
        }
    }
    let events = i64::try_from(case.given.len()).unwrap_or(i64::MAX);
    let spans: Vec<(i64, i64)> = match pages {
        Pages::Whole => vec![(1, events)],
        Pages::Single => (1..=events).map(|nth| (nth, nth)).collect(),
    };
    for (first, last) in spans.into_iter().filter(|(first, last)| first <= last) {
        bound(tx, first, last).await?;
        if let Err(error) = scratch.fold(tx, last - first + 1).await {
            return handler_broken(error, case, pages).map(|broken| vec![broken]);
        }
    }
    scratch.enter(tx).await?;
    let mut broken = Vec::new();
    for check in &case.checks {
        match ask(tx, check).await? {
            Ok(rows) => broken.extend(compare(check, rows, pages)),
            // Nothing more can be asked in a transaction that has failed.
            Err((line, message)) => {
                broken.push(Broken { line, pages, message, remedy: None, rows: None });
                break;
            }
        }
    }
    Ok(broken)
}

/// The given events as a table, and the page as a stretch of it.
async fn create_page(tx: &mut Link<'_>, scratch: &Scratch) -> Result<(), ScratchError> {
    let store = quote_ident(&scratch.store_schema);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create temp table foldd_given (like {store}.es_events) on commit drop;
         create function pg_temp.es_page() returns setof {store}.es_events
         language plpgsql stable rows 1000 set search_path = pg_catalog as $$
         begin
             return query select * from pg_temp.foldd_given g
             where g.global_position between current_setting('foldd.first')::bigint
                                         and current_setting('foldd.last')::bigint
             order by g.transaction_id, g.global_position;
         end
         $$;
         create view pg_temp.batch as select * from pg_temp.es_page()"
    )))
    .execute(tx)
    .await?;
    Ok(())
}

async fn bound(tx: &mut Link<'_>, first: i64, last: i64) -> Result<(), ScratchError> {
    sqlx::query("select set_config('foldd.first', $1, true), set_config('foldd.last', $2, true)")
        .bind(first.to_string())
        .bind(last.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

/// Enters a given event, or says what is wrong with it.
async fn give(
    tx: &mut Link<'_>,
    projection: &Projection,
    given: &Given,
    nth: i64,
    pages: Pages,
) -> Result<Option<Broken>, ScratchError> {
    let broken = |message: String, remedy: Option<String>| Broken {
        line: given.line,
        pages,
        message,
        remedy,
        rows: None,
    };
    let category = given.stream_id.split('-').next().unwrap_or_default();
    let wanted = listed(&projection.definition);
    if wanted.is_some_and(|names| !names.iter().any(|name| name == category)) {
        return Ok(Some(broken(
            format!(
                "stream {} is of category {category}, which the projection does not read: it reads {}",
                given.stream_id, projection.definition.categories
            ),
            Some("begin the stream's id with a category that it reads".to_owned()),
        )));
    }
    let epoch: DateTime<Utc> = DateTime::UNIX_EPOCH;
    let entered = sqlx::query(
        "insert into pg_temp.foldd_given
         select $1, $2, $3, 1 + (select count(*) from pg_temp.foldd_given g where g.stream_id = $2), $4, $5::jsonb,
                $6::jsonb, $1::text::xid8, pg_catalog.gen_random_uuid(),
                $7 + interval '30 years' + $1 * interval '1 second'",
    )
    .bind(nth)
    .bind(&given.stream_id)
    .bind(category)
    .bind(&given.event_type)
    .bind(&given.data)
    .bind(given.metadata.as_deref().unwrap_or("{}"))
    .bind(epoch)
    .execute(&mut *tx)
    .await;
    match entered {
        Ok(_) => Ok(None),
        Err(error) if error.as_database_error().is_some() && !crate::error::is_transient(&error) => {
            let remedy = crate::error::remedy(&error).map(ToOwned::to_owned);
            Ok(Some(broken(format!("the event cannot be stored: {}", crate::error::chain(&error)), remedy)))
        }
        Err(error) => Err(error.into()),
    }
}

/// A handler's error as a test's, placed in the file; any other error stays what it is.
fn handler_broken(error: ScratchError, case: &TestCase, pages: Pages) -> Result<Broken, ScratchError> {
    let ScratchError::Handler(fault) = &error else { return Err(error) };
    let Trouble { message, remedy, place, .. } = error.trouble();
    let given = fault
        .event()
        .and_then(|event| usize::try_from(event.position).ok()?.checked_sub(1))
        .and_then(|nth| case.given.get(nth));
    let line = place.as_deref().and_then(line_of).or(given.map(|given| given.line)).unwrap_or(case.line);
    let message = match given {
        Some(given) => {
            format!("{message}, on {} of {} (line {})", given.event_type, given.stream_id, given.line)
        }
        None => message,
    };
    Ok(Broken { line, pages, message, remedy: Some(remedy).filter(|remedy| !remedy.is_empty()), rows: None })
}

/// The line of `file.sql:12`.
fn line_of(place: &str) -> Option<u32> {
    place.rsplit(':').next()?.parse().ok()
}
