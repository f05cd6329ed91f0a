//! What is read beside the status: one projection, its definition and its last hour; dead letters; the log of operators;
//! the configuration; and the wait.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::desk::Use;
use super::problem::Problem;
use super::routes::{Open, Param, fresh_status};
use super::verbs::without_nul;
use super::waits::{MAX_WAIT, Until};
use crate::ledger::dead_letters::{self, Filter, State as LetterState};
use crate::ledger::{deeds, projections};

/// Rows that one answer has at most.
const MAX_ROWS: i64 = 1000;

/// Everything about one projection: its versions as the status has them, what each of them is, and the last hour.
pub(super) async fn projection(
    State(open): State<Open>,
    name: Param<Path<String>>,
) -> Result<Response, Problem> {
    let Param(Path(name)) = name;
    without_nul(&name)?;
    let (_, status) = fresh_status(&open).await?;
    let versions: Vec<_> = status.projections.iter().filter(|one| one.name == name).collect();
    if versions.is_empty() {
        return Err(Problem::unknown_projection(&name));
    }
    let mut held = open.desk.take(Use::Looking).await?;
    let known = projections::all(held.link(), Some(&name), None).await;
    let known = held.back(known).await?;
    let definitions: Vec<_> = known
        .iter()
        .map(|known| {
            json!({ "id": known.projection_id, "version": known.version, "role": known.role,
                    "definition": known.definition })
        })
        .collect();
    let body = json!({
        "name": name, "versions": versions, "definitions": definitions, "history": open.feed.history(Some(&name)),
    });
    Ok(Json(body).into_response())
}

/// The last hour of every projection.
pub(super) async fn history(State(open): State<Open>) -> Json<Value> {
    Json(open.feed.history(None))
}

/// What to wait for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    /// Until the event at this global position is applied.
    position: Option<i64>,
    /// Until everything up to this cursor is applied, `transaction_id:position`.
    cursor: Option<String>,
    /// Until everything that is there when the wait begins is applied: `true`.
    caught_up: Option<bool>,
    /// How long, as in `5s` or `2min`; 30 s unless said, 10 min at most.
    timeout: Option<String>,
}

/// Waits until a projection has reached a place.
pub(super) async fn wait(
    State(open): State<Open>,
    name: Param<Path<String>>,
    query: Param<Query<WaitQuery>>,
) -> Result<Json<Value>, Problem> {
    let (Param(Path(name)), Param(Query(query))) = (name, query);
    without_nul(&name)?;
    let until = query.until()?;
    let at_most = query.at_most()?;
    let _room = open.room.try_acquire().map_err(|_| Problem::TOO_MANY)?;
    let began = Instant::now();
    let waited = tokio::select! {
        waited = open.waits.wait(name.clone(), until, at_most) => waited,
        () = open.stop.cancelled() => Some(Err(Problem::DRAINING)),
    };
    let Some(reached) = waited else {
        return Err(Problem::new(
            axum::http::StatusCode::CONFLICT,
            "not_reached",
            format!("{name} did not get there within {}", humantime::format_duration(at_most)),
            "/api/status says what it does and why; wait longer with timeout=…",
        ));
    };
    let cursor = reached?.to_string();
    Ok(Json(json!({ "reached": true, "cursor": cursor, "waited_seconds": began.elapsed().as_secs_f64() })))
}

impl WaitQuery {
    fn until(&self) -> Result<Until, Problem> {
        match (self.position, &self.cursor, self.caught_up) {
            (Some(position), None, None) if position >= 0 => Ok(Until::Position(position)),
            (Some(position), None, None) => {
                Err(Problem::bad(format!("position={position} is below 0"), "positions count from 1"))
            }
            (None, Some(cursor), None) => cursor.parse().map(Until::Cursor).map_err(|error| {
                Problem::bad(
                    format!("{error}"),
                    "send the cursor as append returned it, position after the colon",
                )
            }),
            (None, None, Some(true)) => Ok(Until::CaughtUp),
            _ => Err(Problem::bad(
                "a wait is for one thing",
                "give one of position=561470, cursor=7421:561470, caught_up=true",
            )),
        }
    }

    fn at_most(&self) -> Result<Duration, Problem> {
        let Some(text) = &self.timeout else { return Ok(Duration::from_secs(30)) };
        let parsed = humantime::parse_duration(text).map_err(|error| {
            let shown: String = text.chars().take(40).collect();
            Problem::bad(format!("timeout={shown} is no time: {error}"), "write 5s, 200ms or 2min")
        })?;
        if parsed > MAX_WAIT {
            let message = format!("timeout={} is longer than 10 min", humantime::format_duration(parsed));
            return Err(Problem::bad(message, "wait for 10 min, and again"));
        }
        Ok(parsed)
    }
}

/// Which dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LettersQuery {
    /// Those of one projection, `fines` or `fines@2`.
    projection: Option<String>,
    /// Events of this stream.
    stream: Option<String>,
    /// Events of this type.
    event_type: Option<String>,
    /// Events that failed with this error code of PostgreSQL.
    sqlstate: Option<String>,
    /// `open`, which is the default, or `discarded`.
    state: Option<Letters>,
    /// How many, 1 to 1000; 100 unless said.
    limit: Option<i64>,
}

/// Whether dead letters wait, or were given up.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Letters {
    /// Parked until they are retried or discarded.
    Open,
    /// Given up, and kept for a while.
    Discarded,
}

/// Parked events, and how many there are.
pub(super) async fn letters(
    State(open): State<Open>,
    query: Param<Query<LettersQuery>>,
) -> Result<Json<Value>, Problem> {
    let Param(Query(query)) = query;
    let texts = [&query.projection, &query.stream, &query.event_type, &query.sqlstate];
    texts.into_iter().flatten().try_for_each(|text| without_nul(text))?;
    let limit = rows(query.limit, 100)?;
    let state = match query.state {
        Some(Letters::Discarded) => LetterState::Discarded,
        Some(Letters::Open) | None => LetterState::Open,
    };
    let (projection, filter) = (
        query.projection,
        Filter {
            positions: None,
            stream: query.stream,
            event_type: query.event_type,
            sqlstate: query.sqlstate,
        },
    );
    let mut held = open.desk.take(Use::Looking).await?;
    let listed = dead_letters::list(held.link(), projection.as_deref(), &filter, state, limit).await;
    let (letters, there_are) = held.back(listed).await?;
    Ok(Json(json!({ "there_are": there_are, "letters": letters })))
}

/// One parked event with its data.
pub(super) async fn letter(
    State(open): State<Open>,
    path: Param<Path<(String, i64)>>,
) -> Result<Response, Problem> {
    let Param(Path((name, position))) = path;
    without_nul(&name)?;
    let mut held = open.desk.take(Use::Looking).await?;
    let opened = dead_letters::show(held.link(), &name, position).await;
    let opened = held.back(opened).await?;
    Ok(Json(opened).into_response())
}

/// Which entries of the log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    /// About one projection, `fines`, or one version, `fines@2`.
    projection: Option<String>,
    /// How many, 1 to 1000; 50 unless said.
    limit: Option<i64>,
}

/// What operators did, the newest first.
pub(super) async fn log(
    State(open): State<Open>,
    query: Param<Query<LogQuery>>,
) -> Result<Response, Problem> {
    let Param(Query(query)) = query;
    query.projection.iter().try_for_each(|name| without_nul(name))?;
    let limit = rows(query.limit, 50)?;
    let name = query.projection.as_deref();
    let mut held = open.desk.take(Use::Looking).await?;
    let entries = deeds::entries(held.link(), name, limit).await;
    let entries = held.back(entries).await?;
    Ok(Json(entries).into_response())
}

/// What is in force, each value with where it comes from; secrets are masked.
pub(super) async fn configuration(State(open): State<Open>) -> Json<Value> {
    Json(json!({ "verbs": open.door.has_token(), "values": &*open.faces.configuration }))
}

fn rows(limit: Option<i64>, otherwise: i64) -> Result<i64, Problem> {
    match limit.unwrap_or(otherwise) {
        limit @ 1..=MAX_ROWS => Ok(limit),
        limit => Err(Problem::bad(format!("limit={limit} is out of range"), "give 1 to 1000")),
    }
}
