//! Writers that know nothing but INSERT: a stream's row and its events in one transaction.

use foldd::ExpectedVersion::Exact;

use super::{ask, assert_ordered, credits, places, run, session, settled, sqlstate, try_run, whole_log};
use crate::world::World;

const CREATE: &str =
    "insert into es_streams (stream_id, stream_category, stream_version) values ('parcel-1', 'parcel', 2);
    insert into es_events (stream_id, stream_version, event_type, data)
    values ('parcel-1', 1, 'Sent', '{}'), ('parcel-1', 2, 'Delivered', '{}')";

#[tokio::test]
async fn a_bare_insert_gets_category_stamp_and_identity() {
    let world = World::new().await;
    let (mut conn, _) = session(&world).await;
    run(&mut conn, &format!("begin; {CREATE}")).await;
    let xid = ask(&mut conn, "select pg_current_xact_id()").await;
    run(&mut conn, "commit").await;
    let log = whole_log(&world).await;
    assert_eq!(places(&log), [("parcel-1", 1), ("parcel-1", 2)]);
    for event in &log {
        assert_eq!(
            (event.stream_category.as_str(), event.transaction_id.to_string()),
            ("parcel", xid.clone())
        );
        assert_eq!(event.metadata.get(), "{}");
    }
    assert_ne!(log[0].event_id, log[1].event_id);
    let read = world.store().read_category_after("parcel", (0, 0), 10).await.expect("it can be read");
    assert_eq!(places(&read), places(&log));
}

#[tokio::test]
async fn inserts_and_appends_continue_each_other() {
    let world = World::new().await;
    world.execute(&format!("begin; {CREATE}; commit")).await;
    world.store().append("parcel-1", "parcel", Exact(2), &credits(1)).await.expect("it is at 2");
    world
        .execute(
            "begin; update es_streams set stream_version = 4 where stream_id = 'parcel-1' and stream_version = 3;
             insert into es_events (stream_id, stream_version, event_type, data) values ('parcel-1', 4, 'A', '{}'); commit",
        )
        .await;
    world.store().append("parcel-1", "parcel", Exact(4), &credits(1)).await.expect("it is at 4");
    assert_ordered(&world).await;
    assert_eq!(whole_log(&world).await.len(), 5);
}

#[tokio::test]
async fn one_statement_may_write_stream_and_event() {
    let world = World::new().await;
    let upsert = "with grown as (
            insert into es_streams as s (stream_id, stream_category, stream_version) values ('parcel-1', 'parcel', 1)
            on conflict (stream_id) do update set stream_version = s.stream_version + 1
            returning stream_id, stream_category, stream_version)
        insert into es_events (stream_id, stream_category, stream_version, event_type, data)
        select stream_id, stream_category, stream_version, 'A', '{}' from grown";
    for _ in 0..3 {
        world.execute(upsert).await;
    }
    assert_eq!(places(&whole_log(&world).await), [("parcel-1", 1), ("parcel-1", 2), ("parcel-1", 3)]);
}

#[tokio::test]
async fn copy_fills_in_the_category_too() {
    let world = World::new().await;
    world.execute("insert into es_streams (stream_id, stream_category, stream_version) values ('parcel-1', 'parcel', 2)").await;
    let mut conn = world.pool().acquire().await.expect("a connection");
    let mut copy = conn
        .copy_in_raw("copy es_events (stream_id, stream_version, event_type, data) from stdin")
        .await
        .expect("copy begins");
    copy.send("parcel-1\t1\tA\t{}\nparcel-1\t2\tA\t{}\n".as_bytes()).await.expect("rows are taken");
    assert_eq!(copy.finish().await.expect("copy ends"), 2);
    drop(conn);
    let read = world.value("select string_agg(stream_category, ',') from es_events").await;
    assert_eq!(read, "parcel,parcel");
    settled(&world).await;
}

#[tokio::test]
async fn an_event_without_its_stream_is_refused_with_the_remedy() {
    let world = World::new().await;
    let (mut conn, _) = session(&world).await;
    let orphan =
        "insert into es_events (stream_id, stream_version, event_type, data) values ('x-1', 1, 'A', '1')";
    let error = try_run(&mut conn, orphan).await.expect_err("it has no stream");
    assert_eq!(sqlstate(&error), "23503");
    assert!(error.to_string().contains("insert it in the same transaction, before its events"), "{error}");
}

#[tokio::test]
async fn two_inserts_of_one_version_cannot_both_be() {
    let world = World::new().await;
    world.execute(&format!("begin; {CREATE}; commit")).await;
    let (mut conn, _) = session(&world).await;
    let again = "insert into es_events (stream_id, stream_version, event_type, data) values ('parcel-1', 2, 'A', '1')";
    assert_eq!(sqlstate(&try_run(&mut conn, again).await.expect_err("version 2 is there")), "23505");
}
