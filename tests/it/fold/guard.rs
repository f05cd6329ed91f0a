//! A writer that only inserts, and took its transaction id early, leaves a stream out of order: halt, do not misapply.

use super::{TALLY, file};
use crate::log::{run, session};
use crate::world::World;

/// Two versions of one stream, whose second one is read before the first.
async fn invert(world: &World) {
    world.execute("insert into es_streams (stream_id, stream_category, stream_version) values ('order-raw', 'order', 0)").await;
    let insert = "update es_streams set stream_version = stream_version + 1 where stream_id = 'order-raw';
        insert into es_events (stream_id, stream_version, event_type, data)
        select stream_id, stream_version, 'Noted', '{}' from es_streams where stream_id = 'order-raw'";
    let (mut early, _) = session(world).await;
    run(&mut early, "begin; select pg_current_xact_id()").await;
    world.execute(&format!("begin; {insert}; commit")).await;
    run(&mut early, &format!("{insert}; commit")).await;
    let falls = world
        .value("select string_agg(stream_version::text, ',' order by transaction_id, global_position) from es_events where stream_id = 'order-raw'")
        .await;
    assert_eq!(falls, "2,1");
}

#[tokio::test]
async fn a_stream_out_of_order_halts_whoever_reads_it() {
    let world = World::alone().await;
    world.seed("order", 20).await;
    invert(&world).await;
    world.append("payment-1", "Paid", "{}").await;
    let seen =
        file("create table t (v bigint);", "-- @on Noted\ninsert into t values (event.stream_version);");
    world.projection("seen", &seen);
    world.projection("tally", TALLY);
    world.projection("others", &TALLY.replace("\"order\"", "\"payment\"").replace("tally", "others"));
    let daemon = world.daemon();
    for name in ["seen", "tally"] {
        let error = world.halted(name).await;
        assert_eq!(error["sqlstate"], "FD005", "{error}");
        for word in ["version 1 of stream 'order-raw'", "after version 2"] {
            assert!(error["message"].to_string().contains(word), "{error}");
        }
        assert!(error["remedy"].to_string().contains("order_guard"), "{error}");
    }
    world.caught_up("others").await;
    assert_eq!(daemon.stop().await.code(), Some(0));

    // Whoever says so goes on with the log as it is.
    world.projection("seen", &seen.replace("version = 1", "version = 1\norder_guard = false"));
    let daemon = world.daemon();
    world.caught_up("seen").await;
    let ends = "select string_agg(v::text, ',' order by ctid) ~ '2,1$' from seen.t";
    assert_eq!(world.value(ends).await, "true");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn without_such_writers_nobody_pays_for_the_guard() {
    let world = World::new().await;
    world.seed("order", 20).await;
    world.append("order-1", "Placed", "{}").await;
    assert_eq!(world.value("select es_has_foreign_writes()").await, "false");
    world
        .execute(
            "begin; update es_streams set stream_version = stream_version + 1 where stream_id = 'order-1';
             insert into es_events (stream_id, stream_version, event_type, data)
             select stream_id, stream_version, 'Noted', '{}' from es_streams where stream_id = 'order-1'; commit",
        )
        .await;
    assert_eq!(world.value("select es_has_foreign_writes()").await, "true");
    world.projection("tally", TALLY);
    let _daemon = world.daemon();
    world.caught_up("tally").await;
    assert_eq!(world.value("select sum(n) from tally.tally").await, "22");
}
