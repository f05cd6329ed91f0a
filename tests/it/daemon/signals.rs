//! It ends when it is asked to, and leaves nothing behind.

use std::time::Duration;

use tokio::time::Instant;

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::deploy::manifests::value_of;
use crate::world::World;

/// A handler that is in hand for nearly a minute.
const SLOW: &str = "/* foldd\nversion = 1\ncategories = [\"slow\"]\n*/\n-- @tables\ncreate table t (n text);\n\
    -- @on Placed\ninsert into t values (pg_sleep(50)::text);\n";

/// A handler that is in hand until somebody gives up a lock.
const HELD_UP: &str = "/* foldd\nversion = 1\ncategories = [\"slow\"]\n*/\n-- @tables\ncreate table t (n text);\n\
    -- @on Placed\ninsert into t values (pg_advisory_xact_lock_shared(45)::text);\n";

/// How many leases and replicas there are.
const HELD: &str = "select count(*) || ' ' || (select count(*) from es_replicas) from es_subscriptions where holder is not null";

async fn nothing_is_held(world: &World) {
    assert_eq!(world.value(HELD).await, "0 0", "leases are given back and the replica has signed off");
}

/// How long Kubernetes waits from SIGTERM to SIGKILL.
fn grace() -> Duration {
    let deployment = include_str!("../../../deploy/base/deployment.yaml");
    let grace = value_of(deployment, "terminationGracePeriodSeconds").expect("it is said");
    Duration::from_secs(grace.parse().expect("it is a number"))
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
async fn it_is_not_ready_before_the_first_lease_goes_and_gone_within_the_grace_period() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    world.projection("slow", HELD_UP);
    let mut holder = world.pool().begin().await.expect("it answers");
    sqlx::raw_sql("select pg_advisory_xact_lock(45)").execute(&mut *holder).await.expect("it answers");
    let load = Load::start(&world);
    let daemon = world.daemon();
    moves_on(&world, 200).await;
    world.append("slow-1", "Placed", "{}").await;
    world
        .eventually("a batch is in hand", async || {
            let waits =
                "select count(*) from pg_locks where locktype = 'advisory' and objid = 45 and not granted
                         and database = (select oid from pg_database where datname = current_database())";
            world.value(waits).await == "1"
        })
        .await;
    assert_eq!((daemon.get("/readyz").await.0, world.value(HELD).await.as_str()), (200, "2 1"));

    let asked = Instant::now();
    daemon.signal("TERM");
    world
        .eventually("the lease that is not in hand goes", async || {
            let (code, answer) = daemon.get("/readyz").await;
            let held = world.value(HELD).await;
            assert!(code == 503 || held == "2 1", "a lease went before it said {code}: {answer}");
            // No probe of a draining process may have it killed.
            assert_eq!(daemon.get("/livez").await.0, 200);
            held == "1 1"
        })
        .await;
    let (code, answer) = daemon.get("/readyz").await;
    assert!(code == 503 && answer.contains("\"draining\""), "{code}: {answer}");
    drop(holder);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(asked.elapsed() < grace(), "it took {:?}", asked.elapsed());
    nothing_is_held(&world).await;
    assert_eq!(world.value("select count(*) from slow.t").await, "1", "what was in hand is committed");

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
