//! A version is its definition: the same while only its looks change, refused with the diff when it does.

use super::{TALLY, line_of};
use crate::world::World;

#[tokio::test]
async fn check_says_what_is_right_and_where_it_is_not() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("tally@1: right"), "{}", done.out);
    let wrong = TALLY.replace("excluded.n", "excluded.nothing");
    world.projection("tally", &wrong);
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    let place = format!("projections/tally.sql:{}", line_of(&wrong, "excluded.nothing"));
    assert!(done.err.contains(&place), "no {place} in {}", done.err);
    assert!(done.err.contains("excluded.nothing"), "{}", done.err);
}

#[tokio::test]
async fn a_changed_definition_of_a_live_version_is_refused_with_the_diff_and_the_old_one_goes_on() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.phase("tally", "live").await;
    daemon.stop().await;

    world.projection("tally", &TALLY.replace("tally.n + excluded.n", "tally.n + 1000"));
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    for part in
        ["tally.sql", "changed", "-", "tally.n + excluded.n", "+", "tally.n + 1000", "raise `version`"]
    {
        assert!(done.err.contains(part), "no {part:?} in {}", done.err);
    }
    let daemon = world.daemon();
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,2)"], "the stored definition is in force");
    world
        .eventually("the status has the diff", async || {
            let error = &world.status("tally").await["error"];
            let text = error["message"].as_str().unwrap_or_default();
            text.contains("tally.n + 1000")
                && error["remedy"].as_str().is_some_and(|remedy| remedy.contains("version"))
        })
        .await;
    world.phase("tally", "live").await;
    daemon.stop().await;

    // Taken back, all is well.
    world.projection("tally", TALLY);
    assert_eq!(world.foldd(&["check"]).await.code, 0);
    let _daemon = world.daemon();
    world.caught_up("tally").await;
    world
        .eventually("the error is taken back", async || world.status("tally").await["error"].is_null())
        .await;
}

#[tokio::test]
async fn comments_and_white_space_are_no_change() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.phase("tally", "live").await;
    daemon.stop().await;
    let text = TALLY
        .replace("-- @batch\n", "-- a comment\n-- @batch\n\n  /* another */ ")
        .replace("insert into tally select", "INSERT  INTO tally -- one more\n   select");
    world.projection("tally", &text);
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let _daemon = world.daemon();
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    let status = world.status("tally").await;
    assert!(status["error"].is_null(), "{status}");
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"]);
}

#[tokio::test]
async fn a_definition_that_was_never_live_is_replaced_by_the_next() {
    // Other tests' transactions must not hold the horizon: an empty first page makes a projection live.
    let world = World::alone().await;
    let halting = TALLY.replace("count(*) from batch", "count(*) / (count(*) - 1) from batch");
    world.projection("tally", &halting);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    assert_eq!(world.halted("tally").await["sqlstate"], "22012");
    daemon.stop().await;
    world.projection("tally", TALLY);
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let _daemon = world.daemon();
    world.caught_up("tally").await;
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"]);
    world.phase("tally", "live").await;
    let status = world.status("tally").await;
    assert!(status["error"].is_null(), "{status}");
    assert_eq!(status["role"], "live");
}

#[tokio::test]
async fn a_broken_file_keeps_the_daemon_from_starting() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.projection("broken", &TALLY.replace("-- @batch\n", "-- @batch\n(("));
    let done = world.foldd(&["run"]).await;
    assert_eq!(done.code, 2, "{done:?}");
    let line = line_of(TALLY, "insert into");
    assert!(done.err.contains(&format!("projections/broken.sql:{line}:2: ")), "{}", done.err);
    assert!(!done.err.contains("tally.sql"), "{}", done.err);
}
