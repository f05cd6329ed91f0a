//! `foldd plan`: each thing that it foresees, and that it changes nothing itself.

use serde_json::Value;

use super::{TALLY, live, role, tally};
use crate::examples::example;
use crate::world::World;

/// What plan says, one `action what` each, and how `--check` takes it.
async fn plan(world: &World) -> (Vec<String>, Value, i32) {
    let before = world.value(SCHEMAS).await;
    let done = world.foldd(&["plan", "--json", "--check"]).await;
    let plan: Value = serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    assert_eq!(world.value(SCHEMAS).await, before, "nothing is kept");
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = plan.as_array().cloned().unwrap_or_default();
    let named =
        lines.iter().map(|line| format!("{} {}", text(line, "action"), text(line, "projection"))).collect();
    (named, plan, done.code)
}

const SCHEMAS: &str =
    "select string_agg(nspname, ',' order by nspname) from pg_namespace where nspname !~ '^pg_'";

fn text(version: u32) -> String {
    TALLY.replace("{version}", &version.to_string()).replace("{times}", "1").replace("{settings}", "")
}

#[tokio::test]
async fn the_event_store_is_created_adopted_or_refused_before_anything_else() {
    let world = World::bare().await;
    tally(&world, 1, "");
    let (named, _, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["create the event store".to_owned(), "create tally@1".to_owned()], 3));
    world.execute(crate::log::PLAIN).await;
    world
        .execute(
            "insert into es_streams (stream_id, stream_category, stream_version) values ('order-1', 'order', 1);
             insert into es_events (stream_id, stream_version, event_type, data) values ('order-1', 1, 'Placed', '{}');
             insert into es_subscriptions (subscription_id) values ('tally'), ('other')",
        )
        .await;
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["adopt the event store".to_owned(), "create tally@1".to_owned()], 3));
    let reason = told[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("up to position 1") && reason.contains("2 checkpoints"), "{reason}");
    assert_eq!(world.value("select to_regclass('es_migrations') is null").await, "true");
    world.execute("alter table es_events drop column data").await;
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["refused the event store".to_owned()], 3));
    assert!(told[0]["reason"].as_str().is_some_and(|it| it.contains("no column data")), "{told}");
    assert!(told[0]["remedy"].as_str().is_some_and(|it| it.contains("of its own")), "{told}");
}

#[tokio::test]
async fn what_could_not_be_laid_out_is_refused_for_the_first_version_too() {
    let world = World::new().await;
    tally(&world, 1, "");
    assert_eq!(plan(&world).await.0, ["create tally@1"]);
    world.execute("create schema tally").await;
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["refused tally@1".to_owned()], 3));
    assert!(told[0]["reason"].as_str().is_some_and(|it| it.contains("schema tally exists")), "{told}");
    assert!(told[0]["remedy"].as_str().is_some_and(|it| it.contains("drop or rename")), "{told}");
    world.execute("drop schema tally").await;
    world.projection("tally", &text(1).replace("n bigint not null)", "n bigint not null, no no_such_type)"));
    let (named, told, _) = plan(&world).await;
    assert_eq!(named, ["refused tally@1"]);
    assert!(told[0]["reason"].as_str().is_some_and(|it| it.contains("tally.sql:")), "{told}");
}

#[tokio::test]
async fn what_is_under_way_and_what_is_left_is_foreseen() {
    let world = World::alone().await;
    live(&world, 300).await;
    let (named, _, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["nothing tally@1".to_owned()], 0));
    tally(&world, 1, "partitions = 3");
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["split tally@1".to_owned()], 3));
    assert!(told[0]["reason"].as_str().is_some_and(|it| it.contains("it has 1 and is to have 3")), "{told}");
    world.execute("create schema tally__v2").await;
    tally(&world, 2, "");
    assert_eq!(plan(&world).await.0, ["refused tally@2"]);
    world.execute("drop schema tally__v2").await;

    tally(&world, 2, "events_per_second = 50\ncutover = \"manual\"");
    let daemon = world.daemon();
    role(&world, 2, "building").await;
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["cutover tally@2".to_owned()], 3));
    assert!(told[0]["reason"].as_str().is_some_and(|it| it.contains("`foldd cutover tally`")), "{told}");
    let done = world.foldd(&["plan"]).await;
    assert!(done.code == 0 && done.out.contains("cutover   tally@2: it is being built"), "{done:?}");
    // Nobody configures it any more, in the middle of its build.
    std::fs::remove_file(world.dir().join("projections/tally.sql")).expect("it is there");
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["orphaned tally@1".to_owned(), "orphaned tally@2".to_owned()], 0));
    assert!(told[0]["remedy"].as_str().is_some_and(|it| it.contains("`foldd retire tally`")), "{told}");
    assert!(told[1]["remedy"].as_str().is_some_and(|it| it.contains("`foldd cancel tally`")), "{told}");
    tally(&world, 2, "");
    daemon.stop().await;
    let _daemon = world.daemon();
    role(&world, 2, "live").await;
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["nothing tally@2".to_owned(), "retire tally@1".to_owned()], 0));
    assert!(
        told[1]["reason"].as_str().is_some_and(|it| it.contains("kept for a rollback until 2")),
        "{told}"
    );
    let done = world.foldd(&["rebuild", "tally", "--timeout", "30s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
}

#[tokio::test]
async fn a_live_version_without_a_handler_is_named_when_another_one_would_take_its_place() {
    let world = World::new().await;
    let daemon = world.daemon_of(world.command_of(&example("own_daemon"), &["run"]));
    world.caught_up("balances").await;
    world.phase("balances", "live").await;
    daemon.stop().await;
    // From a handler in the program to a file, run by a program without the handler.
    world.projection("balances", &text(2));
    let (named, told, code) = plan(&world).await;
    assert_eq!((named, code), (vec!["rebuild balances@2".to_owned()], 3));
    let remedy = told[0]["remedy"].as_str().unwrap_or_default();
    assert!(remedy.contains("no handler of balances@1") && remedy.contains("register it"), "{remedy}");
    let gone = told[0]["changed_columns"].as_array().cloned().unwrap_or_default();
    assert!(gone.contains(&Value::from("balance.cents is gone")), "{told}");
}

#[tokio::test]
async fn plan_says_what_would_change_and_why() {
    let world = World::alone().await;
    tally(&world, 1, "");
    let plan = world.foldd(&["plan", "--check"]).await;
    assert_eq!(plan.code, 3, "{plan:?}");
    assert!(plan.out.contains("create    tally@1"), "{}", plan.out);
    live(&world, 10).await;
    let plan = world.foldd(&["plan", "--check"]).await;
    assert_eq!(plan.code, 0, "{plan:?}");
    let text = TALLY.replace("{version}", "2").replace("{times}", "1").replace("{settings}", "").replace(
        "create table tally (event_type text primary key, n bigint not null)",
        "create table tally (event_type varchar primary key, n bigint)",
    );
    world.projection("tally", &text);
    let plan = world.foldd(&["plan", "--json"]).await;
    assert_eq!(plan.code, 0, "{plan:?}");
    let plan: serde_json::Value = serde_json::from_str(&plan.out).expect("it is JSON");
    let line = &plan[0];
    assert_eq!((&line["action"], &line["projection"]), (&"rebuild".into(), &"tally@2".into()), "{line}");
    assert!(line["changed_columns"][0].as_str().is_some_and(|it| it.contains("tally.event_type")), "{line}");
    assert!(line["diff"].as_str().is_some_and(|diff| diff.contains("varchar")), "{line}");
    assert_eq!(
        world
            .value(
                "select count(*) from pg_namespace where nspname like '%tally%' or nspname like 'foldd_plan%'"
            )
            .await,
        "1"
    );
}
