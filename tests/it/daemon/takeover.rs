//! One holder at a time, by the database's clock, whatever the others believe.

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::world::World;

const LEASE: (&str, &str) = ("FOLDD__DAEMON__LEASE", "2s");

async fn holder(world: &World) -> String {
    world.value("select holder from es_subscriptions where subscription_id = 'audit@1'").await
}

async fn fence(world: &World) -> i64 {
    let token =
        world.value("select fence_token from es_subscriptions where subscription_id = 'audit@1'").await;
    token.parse().expect("a number")
}

#[tokio::test]
async fn after_a_kill_the_next_process_waits_for_the_lease_and_holds_a_newer_token() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    let load = Load::start(&world);
    let daemon = world.daemon_with(&[LEASE]);
    moves_on(&world, 50).await;
    daemon.kill();
    let (dead, token) = (holder(&world).await, fence(&world).await);
    assert!(!dead.is_empty(), "nobody gave the lease back");
    let next = world.daemon_with(&[LEASE]);
    world
        .eventually("somebody else takes over", async || {
            // One look: were it taken early, the old lease would still run.
            let seen = world
                .value(&format!(
                    "select (s.holder <> '{dead}') || ' ' || (r.lease_until > clock_timestamp())
                     from es_subscriptions s, es_replicas r
                     where s.subscription_id = 'audit@1' and r.replica_id = '{dead}'"
                ))
                .await;
            assert_ne!(seen, "true true", "the lease was taken while it ran");
            seen == "true false"
        })
        .await;
    assert!(fence(&world).await > token);
    load.stop().await;
    audit_is_exact(&world).await;
    assert_eq!(next.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_daemon_stands_by_while_the_first_one_renews() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    let load = Load::start(&world);
    let first = world.daemon_with(&[LEASE]);
    moves_on(&world, 50).await;
    let (held_by, token) = (holder(&world).await, fence(&world).await);
    let second = world.daemon_with(&[LEASE]);
    let renewed = format!(
        "select count(*) = 2 and bool_and(heartbeat_at > started_at + interval '5 seconds') from es_replicas
         where exists (select from es_replicas where replica_id = '{held_by}')"
    );
    world
        .eventually("both have lived for more than two leases", async || {
            world.value(&renewed).await == "true"
        })
        .await;
    assert_eq!((holder(&world).await, fence(&world).await), (held_by, token));
    // A clean end hands over.
    assert_eq!(first.stop().await.code(), Some(0));
    world.eventually("the second takes over", async || fence(&world).await > token).await;
    moves_on(&world, 50).await;
    load.stop().await;
    audit_is_exact(&world).await;
    assert_eq!(second.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_daemon_that_was_stopped_for_longer_than_its_lease_is_fenced() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    world.seed("order", 300).await;
    let load = Load::start(&world);
    let lease = [("FOLDD__DAEMON__LEASE", "1s"), ("FOLDD__DAEMON__MAX_PAGE_EVENTS", "10")];
    let first = world.daemon_with(&lease);
    moves_on(&world, 50).await;
    let held_by = holder(&world).await;
    first.signal("STOP");
    let second = world.daemon_with(&lease);
    world.eventually("the second takes over", async || holder(&world).await != held_by).await;
    moves_on(&world, 200).await;
    first.signal("CONT");
    first.says("another replica took the lease").await;
    moves_on(&world, 200).await;
    assert_ne!(holder(&world).await, held_by);
    // And back again: the one that was fenced is as good as new.
    second.kill();
    world.eventually("the first takes over again", async || holder(&world).await == held_by).await;
    moves_on(&world, 100).await;
    load.stop().await;
    audit_is_exact(&world).await;
    assert_eq!(first.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_status_that_takes_longer_than_the_lease_costs_no_lease() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    let load = Load::start(&world);
    let lease = [("FOLDD__DAEMON__LEASE", "1s")];
    let first = world.daemon_with(&lease);
    moves_on(&world, 50).await;
    let second = world.daemon_with(&lease);
    world
        .eventually("both are there", async || world.value("select count(*) from es_replicas").await == "2")
        .await;
    let (held_by, token) = (holder(&world).await, fence(&world).await);
    // Whoever publishes how things are waits here, on the connection that keeps the books.
    let mut slow = world.pool().begin().await.expect("it answers");
    sqlx::raw_sql("lock table es_phases in access exclusive mode")
        .execute(&mut *slow)
        .await
        .expect("it is locked");
    let began = world.value("select clock_timestamp()").await;
    world
        .eventually("four leases have passed, and batches went on", async || {
            world.value(&format!("select clock_timestamp() > '{began}'::timestamptz + interval '4 s'")).await
                == "true"
        })
        .await;
    moves_on(&world, 20).await;
    assert_eq!((holder(&world).await, fence(&world).await), (held_by, token));
    slow.rollback().await.expect("it answers");
    load.stop().await;
    audit_is_exact(&world).await;
    assert_eq!(first.stop().await.code(), Some(0));
    assert_eq!(second.stop().await.code(), Some(0));
}
