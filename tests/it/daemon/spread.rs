//! Several daemons share the projections evenly, lose a member at any moment, and follow a new split.

use std::time::Instant;

use crate::fold::TALLY;
use crate::world::{Daemon, World};

const LEASE: [(&str, &str); 1] = [("FOLDD__DAEMON__LEASE", "2s")];
const PROJECTIONS: i64 = 12;

/// How many subscriptions each living replica holds, the least first: `4 4 4`.
const LOADS: &str = "
    select string_agg(held::text, ' ' order by held) from (
        select (select count(*) from es_subscriptions s where s.holder = r.replica_id) as held
        from es_replicas r where r.lease_until > clock_timestamp() and not r.draining) loads";

async fn furnished() -> World {
    let world = World::new().await;
    for number in 0..PROJECTIONS {
        world.projection(&format!("tally{number}"), TALLY);
    }
    world.seed("order", 500).await;
    world
}

async fn loads(world: &World, wanted: &str) {
    world.eventually(&format!("the loads are {wanted}"), async || world.value(LOADS).await == wanted).await;
}

/// From now on, who gets which subscription is noted. (A fence token rises as well when a holder takes again what it has.)
async fn note_moves(world: &World) {
    world
        .execute(
            "create table moves (subscription_id text, holder uuid);
             create function note_move() returns trigger language plpgsql security definer as $$
                 begin insert into moves values (new.subscription_id, new.holder); return null; end $$;
             create trigger note_move after update of holder on es_subscriptions for each row
                 when (new.holder is not null and new.holder is distinct from old.holder)
                 execute function note_move();",
        )
        .await;
}

async fn moves(world: &World) -> String {
    world.value("select count(*) from moves").await
}

async fn all_are_exact(world: &World) {
    let events = world.value("select count(*) from es_events").await;
    for number in 0..PROJECTIONS {
        let name = format!("tally{number}");
        world.caught_up(&name).await;
        assert_eq!(world.value(&format!("select sum(n) from {name}.tally")).await, events, "{name}");
    }
}

#[tokio::test]
async fn replicas_share_evenly_and_few_leases_move() {
    // Long enough for no stall of a busy machine to end a lease.
    let lease = [("FOLDD__DAEMON__LEASE", "10s")];
    let world = furnished().await;
    let first = world.daemon_with(&lease);
    loads(&world, "12").await;
    note_moves(&world).await;
    let second = world.daemon_with(&lease);
    loads(&world, "6 6").await;
    assert_eq!(moves(&world).await, "6", "half of them moved, each once");
    let third = world.daemon_with(&lease);
    loads(&world, "4 4 4").await;
    assert_eq!(moves(&world).await, "10", "a third of them moved, each once");
    world.seed("order", 500).await;
    all_are_exact(&world).await;

    // One that leaves in good order is followed at once; one that is killed when its lease is over.
    assert_eq!(third.stop().await.code(), Some(0));
    loads(&world, "6 6").await;
    second.kill();
    let killed = Instant::now();
    loads(&world, "12").await;
    println!("taken over {:.1} s after a kill, the lease being 10 s", killed.elapsed().as_secs_f64());
    world.seed("order", 500).await;
    all_are_exact(&world).await;
    assert_eq!(first.stop().await.code(), Some(0));
}

#[tokio::test]
async fn what_only_one_of_them_knows_has_an_owner_as_well() {
    let world = furnished().await;
    let old = world.daemon_with(&LEASE);
    loads(&world, "12").await;
    // The new configuration has one projection more; the old process does not know it.
    world.projection("newcomer", TALLY);
    let new = world.daemon_with(&LEASE);
    loads(&world, "6 7").await;
    world.caught_up("newcomer").await;
    // Nobody knows it any more.
    new.kill();
    loads(&world, "12").await;
    world
        .eventually("status says that nobody holds it", async || {
            world.foldd(&["status"]).await.out.contains("newcomer@1: nobody holds it; none of the 1 running")
        })
        .await;
    let gauge = "foldd_subscriptions_without_holder 1";
    world.eventually("the metrics say so", async || old.get("/metrics").await.1.contains(gauge)).await;
    all_are_exact(&world).await;
    assert_eq!(old.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_running_daemon_follows_a_new_split() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.seed("order", 500).await;
    world.configure("[projections.tally]\npartitions = 2");
    let old = world.daemon_with(&LEASE);
    world.caught_up("tally").await;
    world.configure("[projections.tally]\npartitions = 5");
    let new: Daemon = world.daemon_with(&LEASE);
    old.says("split anew").await;
    loads(&world, "2 3").await;
    world.seed("order", 500).await;
    world.caught_up("tally").await;
    assert_eq!(world.value("select sum(n) from tally.tally").await, "1000");
    // The one that was started with another number carries on alone.
    assert_eq!(new.stop().await.code(), Some(0));
    loads(&world, "5").await;
    world.seed("order", 500).await;
    world.caught_up("tally").await;
    assert_eq!(world.value("select sum(n) from tally.tally").await, "1500");
    assert_eq!(old.stop().await.code(), Some(0));
}
