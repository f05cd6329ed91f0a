//! Parked events (`es_dead_letters`), as operators see and settle them. The engine parks and retries.
//!
//! **Promise.** An event is settled in stream order: one of a quarantined stream is retried together with all before it,
//! or after them. What is counted in `es_subscriptions.dead_letters` is what is open.
//!
//! **How.** Both verbs hold the subscription's row, so that no batch is in flight. `want_retry` marks letters and leaves;
//! the holder is recalled and applies them. `discard` gives events up: the letters stay for a while, closed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::deeds;
use super::phases::Trouble;
use super::wishes::{self, Refusal, Signature};
use crate::store::Link;

/// How many letters one call forgets at most.
const FORGOTTEN_AT_ONCE: i64 = 1000;

/// Which letters: those that fit everything that is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) positions: Option<Vec<i64>>,
    pub(crate) stream: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) sqlstate: Option<String>,
}

/// The condition of a [`Filter`] on `d`, whose four values are bound from $2 on.
macro_rules! fits {
    () => {
        "($2::bigint[] is null or d.global_position = any ($2)) and ($3::text is null or d.stream_id = $3)
         and ($4::text is null or d.event_type = $4) and ($5::text is null or d.error ->> 'sqlstate' = $5)"
    };
}

/// Whether letters are open or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Parked until they are retried or discarded.
    Open,
    /// Given up, and kept for a while.
    Discarded,
}

/// One parked event.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Letter {
    /// `fines@2`.
    pub(crate) projection: String,
    pub(crate) position: i64,
    pub(crate) stream_id: String,
    pub(crate) stream_version: i64,
    pub(crate) event_type: String,
    /// `failed`, `behind` or `skipped`.
    pub(crate) reason: String,
    pub(crate) attempts: i32,
    pub(crate) first_failed_at: chrono::DateTime<chrono::Utc>,
    pub(crate) last_failed_at: chrono::DateTime<chrono::Utc>,
    pub(crate) retry_wanted_at: Option<chrono::DateTime<chrono::Utc>>,
    pub(crate) discarded_at: Option<chrono::DateTime<chrono::Utc>>,
    pub(crate) error: Option<Trouble>,
}

/// One parked event with what it says.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Opened {
    #[serde(flatten)]
    pub(crate) letter: Letter,
    #[schemars(with = "serde_json::Value")]
    pub(crate) data: Box<RawValue>,
    #[schemars(with = "serde_json::Value")]
    pub(crate) metadata: Box<RawValue>,
}

/// A letter that an operator selected, as it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) position: i64,
    pub(crate) stream_id: String,
    pub(crate) attempts: i32,
}

/// What a verb did.
#[derive(Debug)]
pub(crate) struct Settled {
    /// `fines@2`.
    pub(crate) id: String,
    pub(crate) revision: i64,
    pub(crate) letters: Vec<Selected>,
    /// Open letters that still wait in streams of which some were discarded.
    pub(crate) left_behind: Vec<Selected>,
}

const LETTER: &str = "select d.projection_id, d.global_position, d.stream_id, d.stream_version, d.event_type, d.reason, \
    d.attempts, d.first_failed_at, d.last_failed_at, d.retry_wanted_at, d.discarded_at, d.error";

fn letter(row: &PgRow) -> sqlx::Result<Letter> {
    Ok(Letter {
        projection: row.try_get("projection_id")?,
        position: row.try_get("global_position")?,
        stream_id: row.try_get("stream_id")?,
        stream_version: row.try_get("stream_version")?,
        event_type: row.try_get("event_type")?,
        reason: row.try_get("reason")?,
        attempts: row.try_get("attempts")?,
        first_failed_at: row.try_get("first_failed_at")?,
        last_failed_at: row.try_get("last_failed_at")?,
        retry_wanted_at: row.try_get("retry_wanted_at")?,
        discarded_at: row.try_get("discarded_at")?,
        error: row.try_get::<Option<Json<Trouble>>, _>("error")?.map(|Json(trouble)| trouble),
    })
}

/// The first letters of one projection or of all, in the order of the log, and how many there are.
pub(crate) async fn list(
    conn: &mut Link<'_>,
    name: Option<&str>,
    filter: &Filter,
    state: State,
    limit: i64,
) -> Result<(Vec<Letter>, i64), Refusal> {
    let id = match name {
        Some(name) => Some(wishes::named(conn, name).await?),
        None => None,
    };
    let sql = format!(
        "{LETTER}, count(*) over () as there_are from es_dead_letters d
         where ($1::text is null or d.projection_id = $1) and {} and (d.discarded_at is null) = $6
         order by d.projection_id, d.global_position limit $7",
        fits!()
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .bind(&filter.positions)
        .bind(&filter.stream)
        .bind(&filter.event_type)
        .bind(&filter.sqlstate)
        .bind(state == State::Open)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    let there_are = rows.first().map_or(Ok(0), |row| row.try_get("there_are"))?;
    Ok((rows.iter().map(letter).collect::<sqlx::Result<_>>()?, there_are))
}

/// One letter with its event's data.
pub(crate) async fn show(conn: &mut Link<'_>, name: &str, position: i64) -> Result<Opened, Refusal> {
    let id = wishes::named(conn, name).await?;
    let sql = format!(
        "{LETTER}, e.data, e.metadata from es_dead_letters d join es_events e using (global_position)
         where d.projection_id = $1 and d.global_position = $2"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&id).bind(position).fetch_optional(conn).await?;
    let Some(row) = row else {
        return Err(Refusal::Selection(format!(
            "no event of {id} is parked at position {position}; `foldd dead-letters list {id}` shows those that are"
        )));
    };
    let (Json(data), Json(metadata)) = (row.try_get("data")?, row.try_get("metadata")?);
    Ok(Opened { letter: letter(&row)?, data, metadata })
}

/// Has letters retried, in stream order, by whoever holds the subscription. They are marked, and nothing else.
pub(crate) async fn want_retry(
    conn: &mut Link<'_>,
    name: &str,
    filter: &Filter,
    signature: &Signature<'_>,
) -> Result<Settled, Refusal> {
    let mut unit = conn.begin().await?;
    let subject = wishes::lock(&mut unit, name, signature).await?;
    let mark = concat!(
        "update es_dead_letters d set retry_wanted_at = clock_timestamp()
         where d.projection_id = $1 and d.discarded_at is null and ",
        fits!(),
        " returning d.global_position, d.stream_id, d.attempts"
    );
    let letters = select(&mut unit, mark, &subject.id, filter).await?;
    let forgotten: Option<(String, i64)> = sqlx::query_as(
        "select d.stream_id, d.global_position
         from es_dead_letters d
         join es_quarantined_streams q on q.subscription_id = d.subscription_id and q.stream_id = d.stream_id
         where d.projection_id = $1 and d.discarded_at is null and d.retry_wanted_at is null
           and exists (select from es_dead_letters later
                       where later.subscription_id = d.subscription_id and later.stream_id = d.stream_id
                         and later.stream_version > d.stream_version
                         and later.discarded_at is null and later.retry_wanted_at is not null)
         order by d.stream_id, d.stream_version limit 1",
    )
    .bind(&subject.id)
    .fetch_optional(&mut unit)
    .await?;
    if let Some((stream, position)) = forgotten {
        return Err(Refusal::Selection(format!(
            "stream {stream} is quarantined, and its event at position {position} comes before those selected; nothing was \
             done; retry them in order: `foldd dead-letters retry {} --stream {stream}`",
            subject.id
        )));
    }
    let before = json!({ "open": open(&mut unit, &subject.id).await? });
    let after = json!({ "retried": letters.len(), "positions": first(&letters) });
    let revision = deeds::note(&mut unit, "retry", &subject.id, signature, before, after).await?;
    unit.commit().await?;
    Ok(Settled { id: subject.id, revision, letters, left_behind: Vec::new() })
}

/// Gives events up for good: they are never applied, and their letters are kept for a while.
pub(crate) async fn discard(
    conn: &mut Link<'_>,
    name: &str,
    filter: &Filter,
    signature: &Signature<'_>,
) -> Result<Settled, Refusal> {
    let mut unit = conn.begin().await?;
    let subject = wishes::lock(&mut unit, name, signature).await?;
    let before = open(&mut unit, &subject.id).await?;
    let close = concat!(
        "update es_dead_letters d set discarded_at = clock_timestamp(), retry_wanted_at = null
         where d.projection_id = $1 and d.discarded_at is null and ",
        fits!(),
        " returning d.global_position, d.stream_id, d.attempts"
    );
    let letters = select(&mut unit, close, &subject.id, filter).await?;
    let gone = i64::try_from(letters.len()).unwrap_or(i64::MAX);
    sqlx::query(
        "update es_subscriptions s
         set dead_letters = (select count(*) from es_dead_letters d
                             where d.subscription_id = s.subscription_id and d.discarded_at is null)
         where s.projection_id = $1 and s.dead_letters > 0",
    )
    .bind(&subject.id)
    .execute(&mut unit)
    .await?;
    let streams: BTreeSet<&str> = letters.iter().map(|letter| letter.stream_id.as_str()).collect();
    let streams: Vec<&str> = streams.into_iter().collect();
    sqlx::query(
        "delete from es_quarantined_streams q
         where split_part(q.subscription_id, '/', 1) = $1 and q.stream_id = any ($2)
           and not exists (select from es_dead_letters d
                           where d.subscription_id = q.subscription_id and d.stream_id = q.stream_id
                             and d.discarded_at is null)",
    )
    .bind(&subject.id)
    .bind(&streams)
    .execute(&mut unit)
    .await?;
    let left: Vec<(i64, String, i32)> = sqlx::query_as(
        "select global_position, stream_id, attempts from es_dead_letters
         where projection_id = $1 and stream_id = any ($2) and discarded_at is null and reason = 'behind'
           and retry_wanted_at is null
         order by stream_id, stream_version",
    )
    .bind(&subject.id)
    .bind(&streams)
    .fetch_all(&mut unit)
    .await?;
    let after = json!({ "open": before - gone, "discarded": gone, "positions": first(&letters) });
    let revision =
        deeds::note(&mut unit, "discard", &subject.id, signature, json!({ "open": before }), after).await?;
    unit.commit().await?;
    Ok(Settled { id: subject.id, revision, letters, left_behind: left.into_iter().map(selected).collect() })
}

/// Changes the letters of a filter. Those that were named one by one must all be there.
async fn select(
    unit: &mut Link<'_>,
    sql: &'static str,
    id: &str,
    filter: &Filter,
) -> Result<Vec<Selected>, Refusal> {
    let rows: Vec<(i64, String, i32)> = sqlx::query_as(sql)
        .bind(id)
        .bind(&filter.positions)
        .bind(&filter.stream)
        .bind(&filter.event_type)
        .bind(&filter.sqlstate)
        .fetch_all(unit)
        .await?;
    let mut letters: Vec<_> = rows.into_iter().map(selected).collect();
    letters.sort_by_key(|letter| letter.position);
    let is_there = |position: &i64| letters.binary_search_by_key(position, |letter| letter.position).is_ok();
    let named = filter.positions.iter().flatten();
    let missing: Vec<_> =
        named.filter(|position| !is_there(position)).map(|position| format!("position {position}")).collect();
    if letters.is_empty() || !missing.is_empty() {
        let which =
            if missing.is_empty() { String::new() } else { format!(" is at {}", missing.join(" or ")) };
        return Err(Refusal::Selection(format!(
            "no open dead letter of {id}{}; nothing was done; `foldd dead-letters list {id}` shows them",
            if which.is_empty() { " is like that".to_owned() } else { which }
        )));
    }
    Ok(letters)
}

fn selected((position, stream_id, attempts): (i64, String, i32)) -> Selected {
    Selected { position, stream_id, attempts }
}

/// The first positions, for the log: it is no place for a million.
fn first(letters: &[Selected]) -> Vec<i64> {
    letters.iter().map(|letter| letter.position).take(100).collect()
}

async fn open(unit: &mut Link<'_>, id: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar("select sum(dead_letters)::bigint from es_subscriptions where projection_id = $1")
        .bind(id)
        .fetch_one(unit)
        .await
}

/// Whether any of these letters still waits for its retry.
pub(crate) async fn is_wanted(conn: &mut Link<'_>, id: &str, positions: &[i64]) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select from es_dead_letters
                        where projection_id = $1 and retry_wanted_at is not null and discarded_at is null
                          and global_position = any ($2))",
    )
    .bind(id)
    .bind(positions)
    .fetch_one(conn)
    .await
}

/// Those of these letters that are still open.
pub(crate) async fn still_open(
    conn: &mut Link<'_>,
    id: &str,
    positions: &[i64],
) -> sqlx::Result<Vec<Letter>> {
    let sql = format!(
        "{LETTER} from es_dead_letters d
         where d.projection_id = $1 and d.global_position = any ($2) and d.discarded_at is null
         order by d.stream_id, d.stream_version"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).bind(positions).fetch_all(conn).await?;
    rows.iter().map(letter).collect()
}

/// How many events are parked of each subscription that a replica holds; those without any are left out.
pub(crate) async fn held_by(
    conn: &mut Link<'_>,
    replica_id: uuid::Uuid,
) -> sqlx::Result<HashMap<String, i64>> {
    let counts: Vec<(String, i64)> = sqlx::query_as(
        "select subscription_id, dead_letters from es_subscriptions where holder = $1 and dead_letters > 0",
    )
    .bind(replica_id)
    .fetch_all(conn)
    .await?;
    Ok(counts.into_iter().collect())
}

/// Forgets letters that were discarded longer ago than this, a thousand at most. Returns how many.
pub(crate) async fn forget_discarded(conn: &mut Link<'_>, older_than: Duration) -> sqlx::Result<u64> {
    let deleted = sqlx::query(
        "delete from es_dead_letters d
         using (select subscription_id, global_position from es_dead_letters
                where discarded_at < clock_timestamp() - make_interval(secs => $1)
                order by discarded_at limit $2 for update skip locked) old
         where d.subscription_id = old.subscription_id and d.global_position = old.global_position",
    )
    .bind(older_than.as_secs_f64())
    .bind(FORGOTTEN_AT_ONCE)
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected())
}
