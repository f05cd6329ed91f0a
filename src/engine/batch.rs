//! THE transaction: fence, page, effect, checkpoint, commit. One statement, one round trip.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};

use super::failure::{Fault, HandlerFault, Policy};
use super::hosted::{self, Hosted};
use super::pace::Grain;
use crate::cursor::Cursor;
use crate::ledger::lease::Lease;
use crate::ledger::parking::{self, Care};
use crate::ledger::phases::EventRef;
use crate::projection::sql::LineMap;
use crate::store::{Horizon, Link};

/// How much longer than the server's statement timeout we wait for its answer: covers a slow network, then gives up.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// A statement that is told to stop stops, unless it catches that as well.
const NO_ANSWER: &str =
    "no answer within daemon.batch_timeout and 5 s; if the handler catches query_canceled, take that out";

/// A projection as a batch needs it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) subscription_id: String,
    /// The name of the compiled functions, which all partitions share.
    pub(crate) projection_id: String,
    /// The file, for messages.
    pub(crate) path: String,
    /// What to do about events that cannot be applied.
    pub(crate) policy: Policy,
    /// Who applies the events.
    pub(crate) body: Body,
}

/// Who applies the events of a page.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Compiled functions in the database: one that applies all of a page, one that parks and retries.
    Sql { plain: Function, parking: Function, grain: Grain },
    /// A handler in this process.
    Rust(Hosted),
}

impl Body {
    /// What its handlers are called for.
    pub(crate) fn grain(&self) -> Grain {
        match self {
            Self::Sql { grain, .. } => *grain,
            Self::Rust(_) => Grain::Handler,
        }
    }
}

/// A compiled function.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    /// Its call.
    pub(crate) call: String,
    /// Where the file's lines are in it.
    pub(crate) lines: LineMap,
}

/// One batch: whose, under which lease, from where and how far. The cursor is the lease's.
#[derive(Debug, Clone)]
pub(crate) struct Batch<'a> {
    pub(crate) subscription_id: &'a str,
    pub(crate) lease: &'a Lease,
    /// Proven before the batch began, as it must be.
    pub(crate) horizon: Horizon,
    pub(crate) bounds: Bounds,
    /// Which events are applied.
    pub(crate) care: &'a Care,
}

/// The bounds of one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_events: i64,
    pub(crate) max_bytes: i64,
    /// Announces a large page to the planner.
    pub(crate) bulk: bool,
    /// How many events are left up to the horizon, where the page is to have them all if their bytes allow.
    pub(crate) rest: Option<i64>,
    /// The server's limit for the statement.
    pub(crate) timeout: Duration,
}

/// A batch that committed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Committed {
    /// Events of its categories that the page had.
    pub(crate) scanned: i64,
    /// Those of them that are its own: all, unless it is one partition of several.
    pub(crate) own: i64,
    /// Those of them that no handler wanted.
    pub(crate) skipped: i64,
    /// Those of them that are parked now.
    pub(crate) parked: i64,
    /// Whether streams are quarantined now.
    pub(crate) quarantined: bool,
    /// The new checkpoint; `None` when there was nothing.
    pub(crate) cursor: Option<Cursor>,
    /// How old the first event was when it was applied, in seconds.
    pub(crate) oldest_seconds: Option<f64>,
}

/// Folds one page, or retries parked events: everything of it, or nothing.
///
/// After an error that leaves the outcome unknown the caller throws the connection away.
pub(crate) async fn fold(
    conn: &mut Link<'_>,
    program: &Program,
    batch: &Batch<'_>,
) -> Result<Committed, Fault> {
    let folding = async {
        match &program.body {
            Body::Sql { plain, parking, .. } => {
                let function = if *batch.care == Care::Whole { plain } else { parking };
                fold_in_sql(conn, program, function, batch).await
            }
            Body::Rust(hosted) => hosted::fold(conn, hosted, &program.policy, batch).await,
        }
    };
    let folded = tokio::time::timeout(batch.bounds.timeout + ANSWER_MARGIN, folding)
        .await
        .map_err(|_| Fault::Unknown(NO_ANSWER.to_owned()))?;
    match folded {
        Err(Fault::TimedOut { page: 1, .. }) => {
            Err(Fault::TimedOut { page: 1, event: tried_event(conn, batch).await })
        }
        other => other,
    }
}

/// One call of the compiled function: it does all five, and returns how far it came or which event failed.
async fn fold_in_sql(
    conn: &mut Link<'_>,
    program: &Program,
    function: &Function,
    batch: &Batch<'_>,
) -> Result<Committed, Fault> {
    let Batch { subscription_id, lease, horizon, bounds, care } = batch;
    let row = sqlx::query(AssertSqlSafe(function.call.as_str()))
        .bind(subscription_id)
        .bind(lease.fence_token)
        .bind(horizon.incarnation())
        .bind(lease.cursor.transaction_id.to_string())
        .bind(lease.cursor.global_position)
        .bind(horizon.transaction_id().to_string())
        .bind(bounds.max_events)
        .bind(bounds.max_bytes)
        .bind(bounds.bulk)
        .bind(bounds.rest)
        .bind(care.slip(program.policy.order_guard))
        .fetch_one(&mut *conn)
        .await
        .map_err(|error| Fault::of(&error, bounds.max_events))?;
    match Outcome::of(&row).map_err(|error| Fault::of(&error, bounds.max_events))? {
        Outcome::Committed(committed) => Ok(committed),
        Outcome::Failed { position, context, mut fault } => {
            fault.page = fault.page.max(1);
            fault.place = place(&program.projection_id, &program.path, &function.lines, &context);
            if let Some(position) = position {
                fault.event = event_ref(conn, position).await;
            }
            Err(Fault::Handler(fault))
        }
    }
}

/// What a compiled function says.
pub(super) enum Outcome {
    Committed(Committed),
    Failed { position: Option<i64>, context: String, fault: HandlerFault },
}

impl Outcome {
    pub(super) fn of(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        let scanned: i64 = row.try_get::<Option<_>, _>("scanned")?.unwrap_or_default();
        if let Some(sqlstate) = row.try_get("sqlstate")? {
            let text = |column: &str| row.try_get::<Option<String>, _>(column);
            return Ok(Self::Failed {
                position: row.try_get("failed_position")?,
                context: text("context")?.unwrap_or_default(),
                fault: HandlerFault {
                    sqlstate,
                    message: text("message")?.unwrap_or_default(),
                    detail: text("detail")?.filter(|text| !text.is_empty()),
                    hint: text("hint")?.filter(|text| !text.is_empty()),
                    place: None,
                    event: None,
                    page: scanned,
                },
            });
        }
        let stamp: Option<i64> = row.try_get("stamp")?;
        let position: Option<i64> = row.try_get("global_position")?;
        Ok(Self::Committed(Committed {
            scanned,
            skipped: row.try_get::<Option<_>, _>("skipped")?.unwrap_or_default(),
            parked: row.try_get("parked")?,
            own: row.try_get("own")?,
            quarantined: row.try_get("quarantined")?,
            cursor: stamp
                .zip(position)
                .map(|(stamp, position)| Cursor::from((stamp.cast_unsigned(), position))),
            oldest_seconds: row.try_get("oldest_seconds")?,
        }))
    }
}

/// The line of the file, from PostgreSQL's account of where it was: `… line 31 at SQL statement`.
pub(super) fn place(projection_id: &str, path: &str, lines: &LineMap, context: &str) -> Option<String> {
    let function = format!("\"{projection_id}\"(");
    let frame = context.lines().find(|line| line.contains(&function))?;
    let number = frame.split(" line ").nth(1)?.split_whitespace().next()?;
    let line = lines.file_line(number.parse().ok()?)?;
    Some(format!("{path}:{line}"))
}

/// Best effort: without an answer the fault is reported with the position's event unnamed.
pub(crate) async fn event_ref(conn: &mut Link<'_>, position: i64) -> Option<EventRef> {
    let named = sqlx::query_as("select stream_id, event_type from es_events where global_position = $1")
        .bind(position)
        .fetch_one(conn);
    let (stream_id, event_type) =
        tokio::time::timeout(ANSWER_MARGIN, named).await.ok()?.ok().unwrap_or_default();
    Some(EventRef { position, stream_id, event_type })
}

/// What a page of one that was cut off was about. Best effort, too.
async fn tried_event(conn: &mut Link<'_>, batch: &Batch<'_>) -> Option<EventRef> {
    let asked = async {
        match batch.care {
            Care::Whole | Care::Around(_) => next_event(conn, batch.subscription_id, &batch.horizon).await,
            Care::Retry(_) => match parking::next_wanted(conn, batch.subscription_id).await? {
                Some(wanted) => Ok(event_ref(conn, wanted.position).await),
                None => Ok(None),
            },
        }
    };
    tokio::time::timeout(ANSWER_MARGIN, asked).await.ok()?.ok()?
}

/// The event behind the checkpoint and below the horizon, if there is one.
pub(crate) async fn next_event(
    conn: &mut Link<'_>,
    subscription_id: &str,
    horizon: &Horizon,
) -> sqlx::Result<Option<EventRef>> {
    let next: Option<(i64, String, String)> = sqlx::query_as(
        "select e.global_position, e.stream_id, e.event_type from es_next_own($1, $2::xid8) e",
    )
    .bind(subscription_id)
    .bind(horizon.transaction_id().to_string())
    .fetch_optional(conn)
    .await?;
    Ok(next.map(|(position, stream_id, event_type)| EventRef { position, stream_id, event_type }))
}
