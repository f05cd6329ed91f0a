//! Readers under load: two daemons that raise floors at once, and a reader of the library, beside writers
//! of all kinds and transactions that have nothing to do with the log and stay open.
//!
//! Short by default; `FOLDD_STRESS_SECONDS=60` writes for so long at each tier, and lets transactions stay
//! open longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldd::{Cursor, RecordedEvent};
use sqlx::PgConnection;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::attack::{SETTINGS, Turn, assert_kept, seed};
use super::{run, session, whole_log};
use crate::world::World;
use bystanders::Bystanders;

mod bystanders;

const APPENDERS: u64 = 8;
const INSERTERS: u64 = 2;
const STREAMS: usize = 40;

/// Every event as it is applied, in the order in which that happens, into a table that refuses nothing.
const AUDIT: &str = "/* foldd\nversion = 1\ncategories = [\"account\"]\n*/\n-- @tables\n\
    create table seen (nth bigint generated always as identity, stamp xid8, position bigint, stream text,\n\
                       version bigint, event_id uuid);\n\
    -- @on Credited\n\
    insert into seen (stamp, position, stream, version, event_id)\n\
    values (event.transaction_id, event.global_position, event.stream_id, event.stream_version,\n\
            event.event_id);\n";

/// When something came to be known of an event.
type Times = HashMap<Uuid, Instant>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_and_a_reader_deliver_every_event_once_and_in_order_whoever_else_writes() {
    let seed = seed();
    let given = std::env::var("FOLDD_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let load = Duration::from_secs(given.unwrap_or(3));
    for tier in [0, 1] {
        let visible_after = stressed(tier, seed, load).await;
        println!("tier {tier}: {visible_after}");
    }
}

/// One run. Returns how long after its acknowledgement an event was in the read model.
async fn stressed(tier: u8, seed: u64, load: Duration) -> String {
    let mut world = World::alone_with(&SETTINGS).await;
    world.server().create_database("elsewhere").await.expect("a second database");
    let elsewhere = world.server().url("elsewhere");
    world.execute("create table beside (n integer)").await;
    if tier == 0 {
        // Does the same and is not known to: then nothing is proven.
        let foreign =
            "alter table es_events alter column transaction_id set default coalesce(es_stamp(), es_stamp())";
        world.execute(foreign).await;
    }
    world.projection("audit", AUDIT);
    let world = Arc::new(world);
    let daemons = [world.daemon(), world.daemon()];
    world.phase("audit", "live").await;

    let ended = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read(Arc::clone(&world), Arc::clone(&ended)));
    let observer = tokio::spawn(observe(Arc::clone(&world), Arc::clone(&ended)));
    let until = Instant::now() + load;
    let bystanders = Bystanders::start(&world, &elsewhere, seed, until).await;
    let mut writers = JoinSet::new();
    for writer in 0..APPENDERS {
        writers.spawn(append(Arc::clone(&world), fastrand::Rng::with_seed(seed.wrapping_add(writer)), until));
    }
    for writer in 0..INSERTERS {
        writers.spawn(insert(Arc::clone(&world), writer, until));
    }
    let mut acknowledged = Times::new();
    for times in writers.join_all().await {
        acknowledged.extend(times);
    }
    bystanders.join().await;
    world.caught_up("audit").await;

    assert_kept(&world, acknowledged.keys().copied().collect()).await;
    ended.store(true, Ordering::SeqCst);
    let log = whole_log(&world).await;
    let read = reader.await.expect("the reader ends");
    assert!(read.iter().map(RecordedEvent::cursor).eq(log.iter().map(RecordedEvent::cursor)));
    assert_audited(&world, &log).await;
    let floor = world.value("select coalesce(pg_sequence_last_value('es_stamp_floor'::regclass), 0)").await;
    assert_eq!(floor != "0", tier == 1, "whether the floor was raised");
    let seen = observer.await.expect("the observer ends");
    for daemon in daemons {
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
    told(&acknowledged, &seen)
}

/// Appends by any door, with short pauses, and notes when each event was acknowledged.
async fn append(world: Arc<World>, mut random: fastrand::Rng, until: Instant) -> Times {
    let mut acknowledged = Times::new();
    while Instant::now() < until {
        let turn = Turn::draw(&mut random, STREAMS);
        if turn.take(&world).await {
            let now = Instant::now();
            acknowledged.extend(turn.ids().map(|id| (id, now)));
        }
        tokio::time::sleep(Duration::from_millis(random.u64(1..20))).await;
    }
    acknowledged
}

/// Knows nothing but INSERT and UPDATE, has a stream of its own, and takes no xid early.
async fn insert(world: Arc<World>, writer: u64, until: Instant) -> Times {
    let (mut conn, _) = session(&world).await;
    let stream = format!("account-inserted{writer}");
    let mut acknowledged = Times::new();
    for version in 1.. {
        if Instant::now() >= until {
            break;
        }
        let id = Uuid::new_v4();
        let row = if version == 1 {
            format!(
                "insert into es_streams (stream_id, stream_category, stream_version)
                 values ('{stream}', 'account', 1)"
            )
        } else {
            format!("update es_streams set stream_version = {version} where stream_id = '{stream}'")
        };
        let event = format!(
            "insert into es_events (stream_id, stream_version, event_type, data, event_id)
             values ('{stream}', {version}, 'Credited', '{{}}', '{id}')"
        );
        run(&mut conn, &format!("begin; {row}; {event}; commit")).await;
        acknowledged.insert(id, Instant::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acknowledged
}

/// A reader without a daemon, with a cursor of its own.
async fn read(world: Arc<World>, ended: Arc<AtomicBool>) -> Vec<RecordedEvent> {
    let mut read: Vec<RecordedEvent> = Vec::new();
    loop {
        let last_look = ended.load(Ordering::SeqCst);
        let after = read.last().map_or(Cursor::START, RecordedEvent::cursor);
        let page = world.store().read_category_after("account", after, 50).await.expect("a page can be read");
        if page.is_empty() {
            if last_look {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        read.extend(page);
    }
}

/// Looks into the read model, again and again, and notes when each event was first there.
async fn observe(world: Arc<World>, ended: Arc<AtomicBool>) -> Times {
    let (mut conn, _) = session(&world).await;
    let (mut seen, mut last) = (Times::new(), 0);
    loop {
        let last_look = ended.load(Ordering::SeqCst);
        let rows = rows_after(&mut conn, last).await;
        let now = Instant::now();
        last = rows.last().map_or(last, |(nth, _)| *nth);
        seen.extend(rows.into_iter().map(|(_, id)| (id, now)));
        if last_look {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn rows_after(conn: &mut PgConnection, nth: i64) -> Vec<(i64, Uuid)> {
    sqlx::query_as("select nth, event_id from audit.seen where nth > $1 order by nth")
        .bind(nth)
        .fetch_all(conn)
        .await
        .expect("the audit can be read")
}

/// The projection has applied exactly the log, in its order; the checkpoint is behind the last event.
async fn assert_audited(world: &World, log: &[RecordedEvent]) {
    let applied: Vec<(i64, i64, String, i64)> =
        sqlx::query_as("select stamp::text::bigint, position, stream, version from audit.seen order by nth")
            .fetch_all(world.pool())
            .await
            .expect("the audit can be read");
    for (nth, ((stamp, position, stream, version), event)) in applied.iter().zip(log).enumerate() {
        let cursor = Cursor::from((stamp.cast_unsigned(), *position));
        let expected = (event.cursor(), &event.stream_id, event.stream_version);
        assert_eq!((cursor, stream, *version), expected, "the {nth}th event applied");
    }
    assert_eq!(applied.len(), log.len(), "events applied");
    let mut versions = HashMap::new();
    for (.., stream, version) in &applied {
        let last = versions.insert(stream, *version).unwrap_or(0);
        assert_eq!(*version, last + 1, "the next version of {stream}");
    }
    assert_eq!(world.value("select string_agg(s::text, '; ') from es_skipped_events() s").await, "");
    let last = log.last().expect("something was appended");
    // What was applied last need not have the greatest position.
    let exact = format!(
        "select (last_transaction_id, last_position) >= ('{}'::xid8, {position})
                and applied_position between {position} and (select max(position) from audit.seen)
                and es_count_after(categories, last_transaction_id, last_position) = 0
         from es_subscriptions where subscription_id = 'audit@1'",
        last.transaction_id,
        position = last.global_position
    );
    assert_eq!(world.value(&exact).await, "true", "the checkpoint");
}

/// The latencies in a line.
fn told(acknowledged: &Times, seen: &Times) -> String {
    let mut waits: Vec<Duration> =
        acknowledged.iter().map(|(id, at)| seen[id].saturating_duration_since(*at)).collect();
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_millis();
    format!("{} events visible after p50 {} ms, p99 {} ms, max {} ms", waits.len(), at(50), at(99), at(100))
}
