//! What operators do with versions.

use serde_json::Value;

use super::{live, role, tally, version, waits_for};
use crate::world::World;

#[tokio::test]
async fn a_manual_cut_over_waits_for_its_verb() {
    let world = World::alone().await;
    live(&world, 100).await;
    tally(&world, 2, "cutover = \"manual\"");
    let _daemon = world.daemon();
    world
        .eventually("it is built", async || {
            world
                .value("select built_xid is not null from es_projections where projection_id = 'tally@2'")
                .await
                == "true"
        })
        .await;
    assert_eq!(world.rows("tally.whole").await, ["(1,100)"]);
    waits_for(&world, 2, "somebody to look at it").await;
    let status = world.foldd(&["status"]).await.out;
    assert!(status.contains("to do: `foldd cutover tally` lets it take over"), "{status}");
    let done = world.foldd(&["cutover", "tally", "--why", "looked at it", "--timeout", "30s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(world.rows("tally.whole").await, ["(1,200)"]);
    let log = world.foldd(&["log", "tally", "--json"]).await.out;
    assert!(log.contains("looked at it"), "{log}");
}

#[tokio::test]
async fn a_rollback_gives_the_place_back_and_what_was_taken_back_is_not_built_again() {
    let world = World::alone().await;
    live(&world, 100).await;
    tally(&world, 2, "");
    let daemon = world.daemon();
    role(&world, 2, "live").await;
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    let done = world.foldd(&["rollback", "tally", "--why", "wrong", "--timeout", "30s", "--json"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let said: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!(said["projection"], "tally@1");
    assert_eq!(world.rows("tally.whole").await, ["(1,101)"]);
    role(&world, 2, "previous").await;
    daemon.stop().await;

    // The configuration still asks for it.
    let plan = world.foldd(&["plan", "--check"]).await;
    assert_eq!(plan.code, 3, "{plan:?}");
    assert!(plan.out.contains("took it back"), "{}", plan.out);
    let _daemon = world.daemon();
    world
        .eventually("the status says so", async || {
            let error = version(&world, 1).await["error"].clone();
            error["message"].as_str().is_some_and(|message| message.contains("took it back"))
        })
        .await;
    assert_eq!(version(&world, 1).await["role"], "live");
}

#[tokio::test]
async fn a_build_that_is_cancelled_is_gone_and_not_begun_again() {
    let world = World::alone().await;
    live(&world, 500).await;
    tally(&world, 2, "events_per_second = 10");
    let daemon = world.daemon();
    role(&world, 2, "building").await;
    let done = world.foldd(&["cancel", "tally", "--why", "not yet", "--timeout", "30s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(version(&world, 2).await.is_null());
    assert_eq!(world.value("select count(*) from pg_namespace where nspname = 'tally__v2'").await, "0");
    daemon.says("runs here no more").await;
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    daemon.stop().await;
    let _daemon = world.daemon();
    world.caught_up("tally").await;
    assert!(version(&world, 2).await.is_null());
    assert_eq!(world.rows("tally.whole").await, ["(1,500)"]);
}

#[tokio::test]
async fn a_rebuild_mends_what_was_changed_by_hand() {
    let world = World::alone().await;
    live(&world, 100).await;
    let _daemon = world.daemon();
    world.phase("tally", "live").await;
    world.execute("update tally.whole set n = 7").await;
    let done = world.foldd(&["rebuild", "tally", "--timeout", "30s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    world
        .eventually("a second generation is live", async || {
            world
                .value(
                    "select count(*) from es_projections where projection_id = 'tally@1.2' and role = 'live'",
                )
                .await
                == "1"
        })
        .await;
    assert_eq!(world.rows("tally.whole").await, ["(1,100)"]);
}

#[tokio::test]
async fn what_nobody_configures_is_orphaned_and_goes_only_when_asked() {
    let world = World::alone().await;
    live(&world, 100).await;
    std::fs::remove_file(world.dir().join("projections/tally.sql")).expect("it is there");
    world.projection(
        "other",
        &super::TALLY.replace("{version}", "1").replace("{times}", "1").replace("{settings}", ""),
    );
    let refused = {
        let _running = {
            tally(&world, 1, "");
            world.daemon()
        };
        world.phase("tally", "live").await;
        world.foldd(&["retire", "tally"]).await
    };
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("remove it from the configuration"), "{}", refused.err);
    std::fs::remove_file(world.dir().join("projections/tally.sql")).expect("it is there");
    let plan = world.foldd(&["plan"]).await.out;
    assert!(plan.contains("orphaned") && plan.contains("foldd retire tally"), "{plan}");
    let _daemon = world.daemon();
    world.phase("other", "live").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,100)"]);
    // The killed daemon's lease ends first.
    world
        .eventually("it is retired", async || {
            world.foldd(&["retire", "tally", "--timeout", "5s"]).await.code == 0
        })
        .await;
    assert_eq!(world.value("select count(*) from pg_namespace where nspname = 'tally'").await, "0");
}

#[tokio::test]
async fn a_verb_without_a_daemon_is_recorded_and_says_what_it_waits_for() {
    let world = World::alone().await;
    live(&world, 10).await;
    tally(&world, 2, "");
    let daemon = world.daemon();
    role(&world, 2, "live").await;
    daemon.stop().await;
    let done = world.foldd(&["rollback", "tally", "--timeout", "100ms"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("none is running"), "{}", done.err);
    let nothing = world.foldd(&["cancel", "tally"]).await;
    assert_eq!(nothing.code, 1, "{nothing:?}");
    assert!(nothing.err.contains("no version of it is being built"), "{}", nothing.err);
    let _daemon = world.daemon();
    role(&world, 1, "live").await;
}

#[tokio::test]
async fn a_build_with_events_aside_can_be_looked_at_before_it_takes_over() {
    let world = World::alone().await;
    live(&world, 20).await;
    world.append("order-1", "Cursed", "{}").await;
    let text = "\
/* foldd
version = 2
categories = [\"order\"]
on_error = \"skip_event\"
*/
-- @tables
create table whole (only_row int primary key, n bigint not null);
-- @on Placed
insert into whole values (1, 2) on conflict (only_row) do update set n = whole.n + 2;
-- @on Cursed
insert into whole values (1, 1 / (length(event.stream_id) - length(event.stream_id)));
";
    world.projection("tally", text);
    let _daemon = world.daemon();
    waits_for(&world, 2, "parked").await;
    assert_eq!(version(&world, 2).await["dead_letters"], 1);
    let done =
        world.foldd(&["cutover", "tally", "--why", "that one does not matter", "--timeout", "30s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(world.rows("tally.whole").await, ["(1,40)"]);
}
