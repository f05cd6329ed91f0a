//! The event store, held to its contract. A table of contents, and the words that its chapters share.

/// Taking over a store of the plain shape while it is in use.
mod adopt;
/// Aggregates: what a root loads, keeps and saves.
mod aggregates;
/// Appending through the library: expectations, versions, cursors, identities.
mod append;
/// The order inside a stream, attacked from all sides at once.
mod attack;
/// Appending from any language: refusals and their SQLSTATEs, privileges, round trips.
mod contract;
/// The proven horizon: who is gone past, and who never.
mod horizon;
/// Events never change; the one exception is on record.
mod immutable;
/// After a crash, xids are given out again, and an old horizon is refused.
mod incarnation;
/// Adoption that has to wait, and adoption that is killed.
mod interrupted;
/// The schema: created once by many, refused when it is not ours.
mod migrate;
/// Every event exactly once and in order, whoever writes meanwhile.
mod paging;
/// The page readers walk one index, at half a million events.
mod plans;
/// Transactions that are prepared: what their locks prove.
mod prepared;
/// Two writers, one stream: one wins, the other learns why.
mod races;
/// Reading: pages, streams, the horizon, lag.
mod reads;
/// Several streams in one transaction.
mod scope;
/// Snapshots: a shortcut that may be absent, old or wrong.
mod snapshots;
/// Stamps never fall along a stream; the floor never falls at all.
mod stamps;
/// Readers under load, and how soon they see what was acknowledged.
mod stress;
/// Writers that know nothing but INSERT.
mod writers;

pub(crate) use adopt::PLAIN;
use std::future::Future;

use foldd::{Event, EventData, EventStore, EventStoreError, ImportEvent, RecordedEvent};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::World;

/// The events of these tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum Entry {
    Credited { cents: i64 },
    Closed,
}

impl EventData for Entry {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Credited { .. } => "Credited",
            Self::Closed => "Closed",
        }
    }
}

/// So many events, worth one cent each.
fn credits(n: usize) -> Vec<Event<Entry>> {
    (0..n).map(|_| Event::new(Entry::Credited { cents: 1 })).collect()
}

/// An event for the bulk append.
fn imported(stream_id: &str) -> ImportEvent {
    ImportEvent {
        stream_id: stream_id.to_owned(),
        category: None,
        event_type: "Credited".to_owned(),
        data: raw("{\"cents\": 1}"),
        metadata: raw("{}"),
        event_id: Uuid::now_v7(),
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("a literal of this test is JSON")
}

/// A connection of one's own, and the process id of its backend.
pub(crate) async fn session(world: &World) -> (PgConnection, i32) {
    let mut conn = PgConnection::connect(world.url()).await.expect("the database answers");
    let pid = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut conn).await.expect("it has a pid");
    (conn, pid)
}

pub(crate) async fn run(conn: &mut PgConnection, sql: &str) {
    try_run(conn, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn try_run(conn: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(drop)
}

/// One value, as text.
pub(crate) async fn ask(conn: &mut PgConnection, sql: &str) -> String {
    let text = format!("select coalesce((({sql})::text), '')");
    sqlx::query_scalar(AssertSqlSafe(text))
        .fetch_one(conn)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Waits until a backend waits for somebody's lock.
async fn waits(world: &World, pid: i32) {
    let blocked = format!("select cardinality(pg_blocking_pids({pid})) > 0");
    world.eventually("the other session has to wait", async || world.value(&blocked).await == "true").await;
}

/// Begins something that is going to wait for a lock, and comes back once it does.
async fn stuck<T: Send + 'static>(
    world: &World,
    pid: i32,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let task = tokio::spawn(work);
    waits(world, pid).await;
    task
}

/// The SQLSTATE of an error of the database.
fn sqlstate(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}

/// The SQLSTATE beneath an error of the store.
fn store_sqlstate(error: &EventStoreError) -> String {
    if let EventStoreError::Database(error) = error { sqlstate(error) } else { String::new() }
}

/// (stream, version) of each event.
fn places(events: &[RecordedEvent]) -> Vec<(&str, i64)> {
    events.iter().map(|event| (event.stream_id.as_str(), event.stream_version)).collect()
}

/// All of the log, once nobody who could still write below it is running.
async fn whole_log(world: &World) -> Vec<RecordedEvent> {
    settled(world).await;
    world.store().read_all_after((0, 0), i64::MAX).await.expect("the log can be read")
}

/// Waits until readers may see every committed event: other tests share the server's horizon.
async fn settled(world: &World) {
    let withheld = "select not exists (select from es_events where transaction_id >= es_horizon())";
    world.eventually("the horizon passes every event", async || world.value(withheld).await == "true").await;
}

/// The log has no gap and no fall: versions are 1, 2, 3 … in every stream, in the order of reading.
async fn assert_ordered(world: &World) {
    let wrong = "select string_agg(format('%s %s', stream_id, stream_version), ', ') from (
        select *, row_number() over (partition by stream_id order by transaction_id, global_position) as place
        from es_events) ordered where place <> stream_version";
    assert_eq!(world.value(wrong).await, "", "events that are read out of their stream's order");
    let headless = "select string_agg(stream_id, ', ') from es_streams s
        where stream_version <> (select count(*) from es_events e where e.stream_id = s.stream_id)";
    assert_eq!(world.value(headless).await, "", "streams whose version is not the number of their events");
}

/// What a conflict says: the stream, what was expected, where it is.
fn conflict(error: EventStoreError) -> (String, foldd::ExpectedVersion, Option<i64>) {
    let EventStoreError::ConcurrencyConflict { stream_id, expected, actual } = error else {
        panic!("no conflict: {error:?}")
    };
    (stream_id, expected, actual)
}

async fn append_any(store: &EventStore, stream_id: &str, n: usize) -> foldd::Appended {
    let category = stream_id.split('-').next().unwrap_or(stream_id);
    store
        .append(stream_id, category, foldd::ExpectedVersion::Any, &credits(n))
        .await
        .unwrap_or_else(|error| panic!("append to {stream_id}: {error}"))
}
