//! What a projection file may not say, told with place and remedy before anything is built.

use super::{TALLY, file, line_of};
use crate::world::World;

#[tokio::test]
async fn tables_belong_to_the_projections_own_schema() {
    let world = World::new().await.by_superusers("the daemon's role may not touch these tables anyway");
    world.execute("create table public.mine (n bigint)").await;
    for (tables, says) in [
        ("create table public.stray (n bigint);", "public"),
        ("create table own (n bigint); alter table public.mine add column m bigint;", "public"),
        ("create table own (n bigint); create index on public.mine (n);", "public"),
        ("create unlogged table own (n bigint);", "unlogged"),
        ("create table own (n nothing);", "nothing"),
        ("drop table mine;", "drop"),
    ] {
        world.projection("stray", &file(tables, "-- @on A\ninsert into own values (1);"));
        let done = world.foldd(&["check"]).await;
        assert_eq!(done.code, 3, "{tables}: {done:?}");
        assert!(done.err.contains("stray.sql:6"), "{tables}: {}", done.err);
        assert!(done.err.contains(says), "{tables}: {}", done.err);
        assert_eq!(
            world
                .value("select string_agg(relname, ',') from pg_class where relname in ('stray', 'own')")
                .await,
            "",
            "{tables}: checking keeps nothing"
        );
    }
}

#[tokio::test]
async fn a_projection_that_cannot_be_built_halts_alone_with_place_and_remedy() {
    let world = World::new().await;
    let text = file("create table own (n bigint);", "-- @on A\ninsert into own\nvalues (event.nothing);");
    world.projection("wrong", &text);
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    let error = world.halted("wrong").await;
    let place = format!("wrong.sql:{}", line_of(&text, "insert into own"));
    assert!(error["place"].as_str().is_some_and(|text| text.ends_with(&place)), "{error}");
    assert_eq!(error["sqlstate"], "42703", "{error}");
    assert!(error["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    world.caught_up("tally").await;
    assert_eq!(world.value("select count(*) from pg_namespace where nspname = 'wrong'").await, "0");
    assert_eq!(daemon.stop().await.code(), Some(0));
    // Mended, it is built at the next start, and the error is gone.
    world.projection("wrong", &text.replace("event.nothing", "event.global_position"));
    let _daemon = world.daemon();
    world.caught_up("wrong").await;
    world
        .eventually("the error is taken back", async || world.status("wrong").await["error"].is_null())
        .await;
}

#[tokio::test]
async fn a_table_named_batch_cannot_hide_the_page() {
    let world = World::new().await;
    let text = file(
        "create table batch (event_type text);",
        "-- @batch\ninsert into batch select event_type from batch;",
    );
    world.projection("hidden", &text);
    let done = world.foldd(&["check"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("hidden.sql:6") && done.err.contains("batch"), "{}", done.err);
}
