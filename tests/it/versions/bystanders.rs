//! Versions of one projection come and go in a running daemon, and all others keep what they hold.

use super::{TALLY, role, tally};
use crate::world::{Daemon, World};

/// The fence token of a subscription that is held.
async fn token(world: &World, id: &str) -> String {
    let sql = format!(
        "select fence_token from es_subscriptions where subscription_id = '{id}' and holder is not null"
    );
    world.try_value(&sql).await.unwrap_or_default()
}

async fn deed(world: &World, args: &[&str]) {
    let done = world.foldd(&[args, &["--timeout", "30s"]].concat()).await;
    assert_eq!(done.code, 0, "{args:?}: {done:?}");
}

async fn held(world: &World, daemon: &Daemon, ids: &[&str]) {
    for id in ids {
        world
            .eventually(&format!("{id} is held: {}", daemon.log()), async || {
                !token(world, id).await.is_empty()
            })
            .await;
    }
}

/// How often the daemon has taken a lease.
fn takings(daemon: &Daemon, id: &str) -> usize {
    let of = |line: &&str| line.contains("lease taken") && line.contains(&format!("\"{id}\""));
    daemon.log().lines().filter(of).count()
}

#[tokio::test]
async fn others_keep_their_lease_while_a_version_begins_ends_or_is_split() {
    let world = World::new().await;
    tally(&world, 1, "cutover = \"manual\"");
    let other = TALLY.replace("{version}", "1").replace("{times}", "1").replace("{settings}", "");
    world.projection("other", &other);
    world.seed("order", 50).await;
    let daemon = world.daemon();
    for name in ["tally", "other"] {
        world.phase(name, "live").await;
    }
    let before = (token(&world, "other@1").await, token(&world, "tally@1").await);

    // Given up, then built and let take over; what it stands beside keeps its lease too.
    deed(&world, &["rebuild", "tally"]).await;
    held(&world, &daemon, &["tally@1.2"]).await;
    deed(&world, &["cancel", "tally"]).await;
    assert_eq!(token(&world, "tally@1.2").await, "");
    deed(&world, &["rebuild", "tally"]).await;
    held(&world, &daemon, &["tally@1.3"]).await;
    deed(&world, &["cutover", "tally"]).await;
    let built = token(&world, "tally@1.3").await;
    assert_eq!((token(&world, "other@1").await, token(&world, "tally@1").await), before);
    deed(&world, &["retire", "tally"]).await;
    world
        .eventually("it runs here no more", async || {
            let (_, metrics) = daemon.get("/metrics").await;
            daemon.log().contains("runs here no more") && metrics.contains("projection=\"other\"")
        })
        .await;
    assert_eq!(token(&world, "tally@1.3").await, built);

    // As another process does that is started with another number of partitions.
    assert_eq!(world.value("select es_repartition('tally@1.3', 3)").await, "true");
    held(&world, &daemon, &["tally@1.3/0", "tally@1.3/1", "tally@1.3/2"]).await;
    world.seed("order", 50).await;
    for name in ["tally", "other"] {
        let sum = format!("select sum(n) from {name}.tally");
        world.eventually("both go on", async || world.value(&sum).await == "100").await;
    }
    assert_eq!(token(&world, "other@1").await, before.0);
    assert_eq!((takings(&daemon, "other@1"), takings(&daemon, "tally@1")), (1, 1), "{}", daemon.log());
    assert!(!daemon.log().contains("draining"), "{}", daemon.log());
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert_eq!(world.value("select count(*) from es_subscriptions where holder is not null").await, "0");
}

#[tokio::test]
async fn a_version_that_begins_elsewhere_is_shared_without_taking_anything_up_anew() {
    let world = World::new().await;
    tally(&world, 1, "");
    world.seed("order", 50).await;
    let old = world.daemon();
    world.phase("tally", "live").await;
    let before = token(&world, "tally@1").await;
    tally(&world, 2, "partitions = 4\ncutover = \"manual\"");
    let new = world.daemon();
    role(&world, 2, "building").await;
    held(&world, &new, &["tally@2/0", "tally@2/1", "tally@2/2", "tally@2/3"]).await;
    // The old one hosts them too by now, so that both have about half of all.
    let loads = "select string_agg(n::text, ',' order by n) from (
                     select (select count(*) from es_subscriptions s where s.holder = r.replica_id) as n from es_replicas r) l";
    world.eventually("they share", async || world.value(loads).await == "2,3").await;
    new.kill();
    world.eventually("the old one takes them over", async || world.value(loads).await.ends_with('5')).await;
    assert_eq!(takings(&old, "tally@1"), 1, "{}", old.log());
    assert_eq!(token(&world, "tally@1").await, before);
    assert_eq!(old.stop().await.code(), Some(0));
}
