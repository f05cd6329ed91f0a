//! It ends when it is asked to, and leaves nothing behind.

use std::time::Duration;

use tokio::time::Instant;

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::world::World;

/// A handler that is in hand for nearly a minute.
const SLOW: &str = "/* foldd\nversion = 1\ncategories = [\"slow\"]\n*/\n-- @tables\ncreate table t (n text);\n\
    -- @on Placed\ninsert into t values (pg_sleep(50)::text);\n";

async fn nothing_is_held(world: &World) {
    assert_eq!(
        world
            .value("select count(*) || ' ' || (select count(*) from es_replicas) from es_subscriptions where holder is not null")
            .await,
        "0 0",
        "leases are given back and the replica has signed off"
    );
}

#[tokio::test]
async fn a_signal_under_load_ends_it_cleanly_and_nothing_is_lost() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    world.seed("order", 500).await;
    let load = Load::start(&world);
    for signal in ["TERM", "INT"] {
        // A lease that was not given back would be waited for longer than any test waits.
        let daemon = world.daemon_with(&[("FOLDD__DAEMON__LEASE", "10min")]);
        moves_on(&world, 200).await;
        daemon.signal(signal);
        assert_eq!(daemon.ended().await.code(), Some(0), "{signal}");
        nothing_is_held(&world).await;
    }
    load.stop().await;
    let daemon = world.daemon();
    audit_is_exact(&world).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_batch_that_outlasts_the_drain_is_cut_off() {
    let world = World::alone().await;
    world.projection("slow", SLOW);
    world.append("slow-1", "Placed", "{}").await;
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__DRAIN_TIMEOUT", "1s")]);
    in_hand(&world).await;
    let started = Instant::now();
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    nothing_is_held(&world).await;
    assert_eq!(world.rows("slow.t").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::alone().await;
    world.projection("slow", SLOW);
    world.append("slow-1", "Placed", "{}").await;
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__DRAIN_TIMEOUT", "60s")]);
    in_hand(&world).await;
    daemon.signal("TERM");
    daemon.says("draining").await;
    let started = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
}

async fn in_hand(world: &World) {
    world
        .eventually("the batch is in hand", async || {
            world.value("select count(*) from pg_stat_activity where wait_event = 'PgSleep'").await == "1"
        })
        .await;
}
