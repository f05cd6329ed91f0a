//! The order inside a stream, attacked from all sides at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

pub(super) use turn::Turn;

use super::{ask, assert_ordered, session, whole_log};
use crate::world::World;

mod turn;

const WRITERS: u64 = 8;
const TURNS: usize = 50;
/// So few that every transaction meets others.
const STREAMS: usize = 3;

/// Deadlocks and conflicts are meant to happen; they are resolved soon.
pub(super) const SETTINGS: [(&str, &str); 2] =
    [("max_prepared_transactions", "20"), ("deadlock_timeout", "20ms")];

/// What is drawn is drawn anew each time; it is printed, and may be given.
pub(super) fn seed() -> u64 {
    let given = std::env::var("FOLDD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("FOLDD_TEST_SEED={seed}");
    seed
}

/// The log has these events, each once, and no others.
pub(super) async fn assert_kept(world: &World, mut acknowledged: Vec<Uuid>) {
    let mut kept: Vec<Uuid> = whole_log(world).await.iter().map(|event| event.event_id).collect();
    kept.sort_unstable();
    acknowledged.sort_unstable();
    let differing = kept.iter().zip(&acknowledged).find(|(kept, acknowledged)| kept != acknowledged);
    assert_eq!(
        (differing, kept.len()),
        (None, acknowledged.len()),
        "what was acknowledged, and nothing else"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_writer_of_any_kind_breaks_the_order_of_a_stream() {
    let seed = seed();
    let world = Arc::new(World::alone_with(&SETTINGS).await);
    world.execute("create table beside (n integer)").await;
    let ended = Arc::new(AtomicBool::new(false));
    let raisers: Vec<_> = (0..2)
        .map(|_| {
            let (world, ended) = (Arc::clone(&world), Arc::clone(&ended));
            tokio::spawn(async move {
                let (mut conn, _) = session(&world).await;
                while !ended.load(Ordering::Relaxed) {
                    ask(&mut conn, "select es_raise_stamp_floor(pg_snapshot_xmax(pg_current_snapshot()))")
                        .await;
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(writer));
                let mut acknowledged = Vec::new();
                for _ in 0..TURNS {
                    let turn = Turn::draw(&mut random, STREAMS);
                    if turn.take(&world).await {
                        acknowledged.extend(turn.ids());
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer ends"));
    }
    ended.store(true, Ordering::Relaxed);
    for raiser in raisers {
        raiser.await.expect("a raiser ends");
    }
    assert_ordered(&world).await;
    let falls = "select count(*) from (
        select transaction_id < lag(transaction_id)
                   over (partition by stream_id order by stream_version) as falls
        from es_events) walked where falls";
    assert_eq!(world.value(falls).await, "0", "stamps that fall along a stream");
    assert_kept(&world, acknowledged).await;
}
