//! Where tables are: in the projection's own schema, wherever that is.

use super::{TALLY, file};
use crate::world::World;

#[tokio::test]
async fn a_table_of_the_same_name_in_public_stays_untouched() {
    let world = World::new().await;
    world.execute("create table public.tally (event_type text primary key, n bigint not null)").await;
    world.execute("insert into public.tally values ('Placed', 1000)").await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let _daemon = world.daemon();
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"]);
    assert_eq!(world.rows("public.tally").await, ["(Placed,1000)"]);
}

#[tokio::test]
async fn a_table_that_only_public_has_is_not_found() {
    let world = World::new().await;
    world.execute("create table public.mine (n bigint)").await;
    world.projection(
        "lost",
        &file("create table own (n bigint);", "-- @on Placed\ninsert into mine values (1);"),
    );
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("lost.sql:8") && done.err.contains("\"mine\" does not exist"), "{}", done.err);
    world.append("order-1", "Placed", "{}").await;
    let _daemon = world.daemon();
    world.halted("lost").await;
    assert_eq!(world.rows("public.mine").await, Vec::<String>::new());
}

#[tokio::test]
async fn renaming_the_schema_under_a_running_daemon_does_not_disturb_it() {
    let world = World::new().await;
    let single = file(
        "create table t (n bigint not null); ",
        "-- @on Placed\ninsert into t values (event.global_position);",
    );
    world.projection("tally", TALLY);
    world.projection("single", &single);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.caught_up("single").await;
    world
        .execute(
            "begin; alter schema tally rename to elsewhere; create schema tally;
             create table tally.tally (like elsewhere.tally including all);
             alter schema single rename to single_elsewhere; create schema single;
             create table single.t (like single_elsewhere.t including all); commit",
        )
        .await;
    for _ in 0..5 {
        world.append("order-1", "Placed", "{}").await;
        world.caught_up("tally").await;
        world.caught_up("single").await;
    }
    assert_eq!(world.rows("elsewhere.tally").await, ["(Placed,6)"]);
    assert_eq!(world.rows("single_elsewhere.t").await.len(), 6);
    for decoy in ["tally.tally", "single.t"] {
        assert_eq!(world.rows(decoy).await, Vec::<String>::new(), "{decoy}");
    }
    // A daemon that starts now finds them by the same way.
    daemon.stop().await;
    let _daemon = world.daemon();
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(world.rows("elsewhere.tally").await, ["(Placed,7)"]);
}

#[tokio::test]
async fn a_rename_behind_the_subscriptions_row_tears_no_page() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.seed("order", 4000).await;
    let _daemon = world.daemon_with(&[("FOLDD__DAEMON__MAX_PAGE_EVENTS", "20")]);
    world
        .eventually("the fold has begun", async || {
            world.try_value("select count(*) > 0 from tally.tally").await.is_ok_and(|begun| begun == "true")
        })
        .await;
    for (from, to) in [("tally", "a"), ("a", "b"), ("b", "c")] {
        world
            .execute(&format!(
                "begin; select 1 from es_subscriptions where subscription_id = 'tally@1' for update;
                 alter schema {from} rename to {to}; create schema {from};
                 create table {from}.tally (like {to}.tally including all); commit"
            ))
            .await;
        if from != "tally" {
            world.execute(&format!("drop table {from}.tally; drop schema {from}")).await;
        }
    }
    world.caught_up("tally").await;
    assert_eq!(world.value("select sum(n) from c.tally").await, "4000");
    assert_eq!(world.rows("tally.tally").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_schema_that_is_not_foldds_is_left_alone_and_named() {
    let world = World::new().await;
    world
        .execute("create schema mine; create table mine.tally (n bigint); insert into mine.tally values (7)")
        .await;
    world.projection("mine", TALLY);
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    let error = world.halted("mine").await;
    assert!(error["message"].as_str().is_some_and(|text| text.contains("schema mine exists")), "{error}");
    assert!(error["remedy"].as_str().is_some_and(|text| text.contains("rename")), "{error}");
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"]);
    assert_eq!(world.rows("mine.tally").await, ["(7)"]);
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.execute("drop schema mine cascade").await;
    let _daemon = world.daemon();
    world.caught_up("mine").await;
    assert_eq!(world.rows("mine.tally").await, ["(Placed,1)"]);
}
