//! Stamps never fall along a stream; the floor never falls at all.

use std::sync::Arc;

use foldd::ExpectedVersion::{Any, Exact};

use super::{append_any, ask, assert_ordered, credits, places, run, session, sqlstate, stuck, whole_log};
use crate::world::World;

/// Appends one event as `es_append` does, and says which stamp it got.
async fn stamp(conn: &mut sqlx::PgConnection, stream: &str, expected: &str) -> u64 {
    let sql = format!(
        "select transaction_id from es_append('{stream}', null, {expected}, array['A'], array['1'::jsonb])"
    );
    ask(conn, &sql).await.parse().expect("a stamp is a number")
}

async fn xid(conn: &mut sqlx::PgConnection) -> u64 {
    ask(conn, "select pg_current_xact_id()").await.parse().expect("an xid is a number")
}

#[tokio::test]
async fn an_early_xid_does_not_sort_its_event_before_the_streams_last_one() {
    for (expected, earlier) in [("null", "null"), ("1", "-1")] {
        let world = World::alone().await;
        let (mut early, _) = session(&world).await;
        let (mut late, _) = session(&world).await;
        run(&mut early, "begin").await;
        let taken = xid(&mut early).await;
        let first = stamp(&mut late, "account-1", earlier).await;
        let second = stamp(&mut early, "account-1", expected).await;
        run(&mut early, "commit").await;
        assert!(taken < first && first <= second, "{taken} {first} {second}");
        assert_eq!(places(&whole_log(&world).await), [("account-1", 1), ("account-1", 2)]);
    }
}

#[tokio::test]
async fn a_block_and_the_library_raise_an_early_stamp_as_well() {
    let world = World::alone().await;
    let store = world.store();
    let mut early = world.pool().begin().await.expect("a transaction");
    let taken = xid(&mut early).await;
    let first = append_any(&store, "account-1", 1).await.cursor;
    append_any(&store, "account-2", 1).await;
    let second =
        store.append_in_tx(&mut early, "account-1", "account", Exact(1), &credits(1)).await.expect("at 1");
    assert!(taken < first.transaction_id && first < second.cursor);
    run(
        &mut early,
        "select es_append_many(array['account-2', 'account-1', 'account-3'], array[null, null, null]::text[],
             array['A', 'A', 'A'], array['1', '1', '1']::jsonb[], array['1', '1', '1']::jsonb[],
             array[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()])",
    )
    .await;
    early.commit().await.expect("it commits");
    assert_ordered(&world).await;
    assert_eq!(whole_log(&world).await.len(), 6);
}

#[tokio::test]
async fn a_writer_who_waited_for_the_stream_stamps_after_the_one_it_waited_for() {
    // The xid is taken before the row's lock: the winner's is the higher one.
    let world = World::alone().await;
    append_any(&world.store(), "account-1", 1).await;
    let (mut waiter, pid) = session(&world).await;
    run(&mut waiter, "begin; select pg_current_xact_id()").await;
    let (mut winner, _) = session(&world).await;
    run(&mut winner, "begin").await;
    let first = stamp(&mut winner, "account-1", "1").await;
    let race = stuck(&world, pid, async move {
        let second = stamp(&mut waiter, "account-1", "null").await;
        run(&mut waiter, "commit").await;
        second
    })
    .await;
    run(&mut winner, "commit").await;
    assert!(race.await.expect("the race ends") >= first);
    assert_ordered(&world).await;
}

#[tokio::test]
async fn savepoints_and_rollbacks_leave_no_stamp_behind() {
    let world = World::alone().await;
    let (mut conn, _) = session(&world).await;
    run(&mut conn, "begin; savepoint a").await;
    let first = stamp(&mut conn, "account-1", "null").await;
    run(&mut conn, "rollback to a; savepoint b").await;
    let second = stamp(&mut conn, "account-1", "-1").await;
    run(&mut conn, "release b").await;
    assert_eq!(
        (first, second),
        (xid(&mut conn).await, xid(&mut conn).await),
        "the xid of the whole transaction"
    );
    run(&mut conn, "commit").await;
    assert_eq!(places(&whole_log(&world).await), [("account-1", 1)]);
}

#[tokio::test]
async fn no_stamp_is_below_the_floor() {
    let world = World::alone().await;
    let (mut early, _) = session(&world).await;
    run(&mut early, "begin isolation level repeatable read; select pg_current_xact_id()").await;
    for _ in 0..3 {
        world.value("select pg_current_xact_id()").await;
    }
    let floor: u64 = world
        .value("select es_raise_stamp_floor(pg_snapshot_xmax(pg_current_snapshot()))")
        .await
        .parse()
        .expect("a number");
    assert!(xid(&mut early).await < floor);
    // The floor is seen at once, frozen snapshot or not, through es_append and through a bare INSERT.
    assert_eq!(stamp(&mut early, "account-1", "-1").await, floor);
    run(
        &mut early,
        "insert into es_streams (stream_id, stream_category, stream_version) values ('account-2', 'account', 1);
         insert into es_events (stream_id, stream_version, event_type, data) values ('account-2', 1, 'A', '1')",
    )
    .await;
    run(&mut early, "commit").await;
    let stamps = world.value("select string_agg(transaction_id::text, ',') from es_events").await;
    assert_eq!(stamps, format!("{floor},{floor}"));
}

#[tokio::test]
async fn a_prepared_insert_asks_for_the_floor_every_time() {
    let world = World::alone().await;
    let (mut conn, _) = session(&world).await;
    run(
        &mut conn,
        "insert into es_streams (stream_id, stream_category, stream_version) values ('account-1', 'account', 0);
         set plan_cache_mode = force_generic_plan;
         prepare raw as insert into es_events (stream_id, stream_version, event_type, data)
             values ('account-1', $1, 'A', '1');
         execute raw (1)",
    )
    .await;
    run(&mut conn, "begin; select pg_current_xact_id()").await;
    let floor: u64 = world
        .value("select es_raise_stamp_floor(pg_snapshot_xmax(pg_current_snapshot()))")
        .await
        .parse()
        .expect("a number");
    run(&mut conn, "execute raw (2); commit").await;
    let stamp = world.value("select max(transaction_id::text::bigint) from es_events").await;
    assert_eq!(stamp, floor.to_string());
}

#[tokio::test]
async fn the_floor_is_never_raised_beyond_the_newest_transaction() {
    let world = World::new().await;
    for beyond in [
        "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 100000)::text::xid8",
        "'18446744073709551615'::xid8",
    ] {
        let error =
            world.try_value(&format!("select es_raise_stamp_floor({beyond})")).await.expect_err("too far");
        assert_eq!(sqlstate(&error), "22023", "{error}");
    }
    assert_eq!(world.value("select es_raise_stamp_floor('0')").await, "0");
    world.append("account-1", "A", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_floor_never_falls_when_many_raise_it_at_once() {
    let world = Arc::new(World::new().await);
    let raisers: Vec<_> = (0..6)
        .map(|nth| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let (mut conn, _) = session(&world).await;
                let mut highest = 0;
                for round in 0..80_u64 {
                    // Some ask for a floor that is long past.
                    let back = (nth * 7 + round) % 40;
                    let asked = format!("greatest(0, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - {back})::text::xid8");
                    let raised = ask(&mut conn, &format!("select es_raise_stamp_floor({asked})")).await;
                    let seen = ask(&mut conn, "select last_value from es_stamp_floor").await;
                    let [raised, seen] = [raised, seen].map(|text| text.parse::<u64>().expect("a number"));
                    assert!(raised >= highest, "the floor fell from {highest} to {raised}");
                    assert!(seen >= raised, "the floor fell from {raised} to {seen}");
                    highest = seen;
                }
            })
        })
        .collect();
    for raiser in raisers {
        raiser.await.expect("no raiser saw the floor fall");
    }
}

#[tokio::test]
async fn whoever_waits_to_raise_the_floor_compares_afterwards() {
    let world = World::alone().await;
    let (mut first, _) = session(&world).await;
    run(&mut first, "begin; select pg_advisory_xact_lock(hashtextextended('foldd stamp floor', 0))").await;
    let (mut second, pid) = session(&world).await;
    // It asks for more than the floor is now and for less than what it will be.
    let race =
        stuck(&world, pid, async move { ask(&mut second, "select es_raise_stamp_floor('3')").await }).await;
    let set = ask(&mut first, "select es_raise_stamp_floor(pg_current_xact_id())").await;
    run(&mut first, "commit").await;
    assert_eq!(race.await.expect("the race ends"), set);
    assert_eq!(world.value("select last_value from es_stamp_floor").await, set);
}

#[tokio::test]
async fn positions_rise_along_a_stream_within_one_stamp() {
    let world = World::new().await;
    let store = world.store();
    let mut tx = world.pool().begin().await.expect("a transaction");
    for _ in 0..5 {
        store.append_in_tx(&mut tx, "account-1", "account", Any, &credits(3)).await.expect("appended");
        store.append_in_tx(&mut tx, "account-2", "account", Any, &credits(3)).await.expect("appended");
    }
    tx.commit().await.expect("it commits");
    assert_ordered(&world).await;
    assert_eq!(world.value("select count(distinct transaction_id) from es_events").await, "1");
}
