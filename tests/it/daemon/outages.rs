//! PostgreSQL goes away and comes back; the daemon stays, and nothing is applied twice.

use std::time::Duration;

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::fold::TALLY;
use crate::world::World;

#[tokio::test]
async fn a_restart_of_postgresql_under_load_is_survived() {
    let mut world = World::alone().await;
    world.projection("audit", AUDIT);
    world.projection("tally", TALLY);
    let load = Load::start(&world);
    let daemon = world.daemon();
    for is_crash in [false, true, false, true] {
        moves_on(&world, 100).await;
        if is_crash {
            world.server().crash().await.expect("the server can be crashed");
        }
        world.server().restart().await.expect("the server starts again");
        world.eventually("the server answers", async || world.try_value("select 1").await.is_ok()).await;
        moves_on(&world, 100).await;
    }
    load.stop().await;
    audit_is_exact(&world).await;
    world.caught_up("tally").await;
    let counts =
        world.value("select (select sum(n) from tally.tally) = (select count(*) from es_events)").await;
    assert_eq!(counts, "true");
    let (code, body) = daemon.get("/readyz").await;
    assert_eq!(code, 200, "{body}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn ready_turns_false_while_the_database_is_away_and_live_does_not() {
    let mut world = World::alone().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.server().crash().await.expect("the server can be crashed");
    world.eventually("it is not ready", async || daemon.get("/readyz").await.0 == 503).await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    assert!(daemon.get("/readyz").await.1.contains("database"));
    world.server().restart().await.expect("the server starts again");
    world.eventually("it is ready", async || daemon.get("/readyz").await.0 == 200).await;
}

#[tokio::test]
async fn a_daemon_ends_when_asked_while_the_database_is_away() {
    let mut world = World::alone().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.server().crash().await.expect("the server can be crashed");
    daemon.says("lost its connection").await;
    let started = tokio::time::Instant::now();
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn sessions_that_are_terminated_again_and_again_change_nothing() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    let load = Load::start(&world);
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__MAX_PAGE_EVENTS", "20")]);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..12 {
        moves_on(&world, 10).await;
        tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
        world
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where application_name like 'foldd %' and datname = current_database()",
            )
            .await;
    }
    moves_on(&world, 10).await;
    load.stop().await;
    audit_is_exact(&world).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}
