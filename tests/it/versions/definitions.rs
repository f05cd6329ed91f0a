//! Configurations that disagree with each other or with the database.

use super::{live, role, tally, version};
use crate::world::World;

#[tokio::test]
async fn old_and_new_pods_of_a_roll_build_one_version_together() {
    let world = World::alone().await;
    live(&world, 300).await;
    let old = world.daemon();
    world.phase("tally", "live").await;
    tally(&world, 2, "events_per_second = 300");
    let new = world.daemon();
    role(&world, 2, "building").await;
    // The old pod has the definition from the database and can go on alone, whatever its file says.
    new.kill();
    tally(&world, 1, "");
    role(&world, 2, "live").await;
    assert_eq!(world.rows("tally.whole").await, ["(1,600)"]);
    // One that starts with the old file keeps its hands off, and says what to do.
    old.stop().await;
    let _late = world.daemon();
    world
        .eventually("it says so", async || {
            let error = version(&world, 2).await["error"].clone();
            error["remedy"].as_str().is_some_and(|remedy| remedy.contains("foldd rollback tally"))
        })
        .await;
    assert_eq!(world.rows("tally.whole").await, ["(1,600)"]);
}

#[tokio::test]
async fn of_two_definitions_of_one_version_the_first_is_built_and_the_second_is_told() {
    let world = World::alone().await;
    live(&world, 100).await;
    tally(&world, 2, "events_per_second = 10");
    let _first = world.daemon();
    role(&world, 2, "building").await;
    world
        .eventually("it is held", async || version(&world, 2).await["partitions"][0]["holder"].is_string())
        .await;
    let text = super::TALLY.replace("{version}", "2").replace("{times}", "77").replace("{settings}", "");
    world.projection("tally", &text);
    let second = world.daemon();
    world
        .eventually("the second one says so", async || {
            let log = std::fs::read_to_string(second.log_path()).unwrap_or_default();
            log.contains("another definition") && log.contains("foldd cancel tally")
        })
        .await;
    assert_eq!(version(&world, 2).await["role"], "building");
}

/// What is wrong with a new version: what stands there instead of what, and what somebody is told.
const CANNOT_BE_LAID_OUT: [[&str; 4]; 4] = [
    // The first table is made by then.
    [
        "create table whole (",
        "create table whole (wrong no_such_type, ",
        "no_such_type",
        "name its schema in `extension_schemas`",
    ],
    ["create table whole (", "create table public.whole (", "makes or changes public.", "without a schema"],
    [
        "insert into whole ",
        "insert into neighbour.whole ",
        "neighbour",
        "write only tables of this file's @tables",
    ],
    ["n = whole.n + excluded.n", "n = whole.m + excluded.n", "whole.m", "see the columns under `@tables`"],
];

#[tokio::test]
async fn a_build_that_cannot_be_laid_out_leaves_the_live_version_alone() {
    let world = World::alone().await.by_superusers("the daemon's role may not even touch the neighbour");
    live(&world, 20).await;
    world
        .execute("create schema neighbour; create table neighbour.whole (only_row int primary key, n bigint)")
        .await;
    for (nth, [from, to, message, remedy]) in CANNOT_BE_LAID_OUT.into_iter().enumerate() {
        let wrong = super::TALLY.replace("{version}", "2").replace("{times}", "1").replace("{settings}", "");
        world.projection("tally", &wrong.replace(from, to));
        let plan = world.foldd(&["plan", "--check"]).await;
        assert_eq!(plan.code, 3, "{plan:?}");
        for part in ["refused   tally@2: ", message, remedy, "tally.sql:"] {
            assert!(plan.out.contains(part), "no {part} in {}", plan.out);
        }
        let daemon = world.daemon();
        world
            .eventually("the status names the line", async || {
                let error = version(&world, 2).await["error"].clone();
                let has = |key: &str, part: &str| error[key].as_str().is_some_and(|text| text.contains(part));
                has("place", "tally.sql:") && has("message", message) && has("remedy", remedy)
            })
            .await;
        daemon.says(remedy).await;
        // Everything of the half-made schema is rolled back, and the live one goes on.
        assert_eq!(world.value("select count(*) from pg_namespace where nspname like 'tally%'").await, "1");
        world.append("order-1", "Placed", "{}").await;
        let all = format!("(1,{})", 21 + nth);
        world.eventually("it goes on", async || world.rows("tally.whole").await == [all.as_str()]).await;
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_schema_in_the_way_is_named() {
    let world = World::alone().await;
    live(&world, 20).await;
    world.execute("create schema tally__v2; create table tally__v2.mine ()").await;
    tally(&world, 2, "");
    let _daemon = world.daemon();
    world
        .eventually("it is named", async || {
            let error = version(&world, 2).await["error"].clone();
            error["message"].as_str().is_some_and(|message| message.contains("tally__v2"))
                && error["remedy"].as_str().is_some_and(|remedy| remedy.contains("drop or rename schema"))
        })
        .await;
    world.append("order-1", "Placed", "{}").await;
    world.eventually("the live one goes on", async || world.rows("tally.whole").await == ["(1,21)"]).await;
}

#[tokio::test]
async fn a_handler_that_only_fails_on_old_events_halts_the_build_alone() {
    let world = World::alone().await;
    live(&world, 20).await;
    let text = super::TALLY
        .replace("{version}", "2")
        .replace("{times}", "(1 / min(abs(global_position - 5)))")
        .replace("{settings}", "");
    world.projection("tally", &text);
    let _daemon = world.daemon();
    world.eventually("it halts", async || version(&world, 2).await["phase"] == "halted").await;
    let error = version(&world, 2).await["error"].clone();
    assert_eq!(error["event"]["position"], 5, "{error}");
    assert!(error["place"].as_str().is_some_and(|place| place.contains("tally.sql:")), "{error}");
    assert!(error["remedy"].as_str().is_some_and(|it| it.contains("raise the version")), "{error}");
    world.append("order-1", "Placed", "{}").await;
    world.eventually("the live one goes on", async || world.rows("tally.whole").await == ["(1,21)"]).await;
    assert_eq!(version(&world, 1).await["phase"], "live");
}
