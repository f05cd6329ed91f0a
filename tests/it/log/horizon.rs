//! The proven horizon: who is gone past, and who never.

use sqlx::AssertSqlSafe;

use super::{append_any, ask, run, session};
use crate::world::World;

/// Raises the floor, then proves: two statements, as the watcher does it.
async fn proven(world: &World) -> i64 {
    raise(world).await;
    number(world, "select es_proven_horizon()").await
}

async fn raise(world: &World) {
    world.value("select es_raise_stamp_floor(es_counted(pg_snapshot_xmax(pg_current_snapshot())))").await;
}

async fn number(world: &World, sql: &str) -> i64 {
    world.value(sql).await.parse().unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// How many events a reader gets below the proven horizon, and below the oldest transaction.
async fn readable(world: &World) -> (i64, i64) {
    let horizon = proven(world).await;
    (
        number(world, &format!("select count(*) from es_read_all_after('0', 0, 1000, '{horizon}')")).await,
        number(world, "select count(*) from es_read_all_after('0', 0, 1000)").await,
    )
}

#[tokio::test]
async fn whoever_has_not_appended_is_gone_past() {
    let mut world = World::alone().await;
    world.execute("create table other (n int); insert into other values (1)").await;
    world.server().create_database("elsewhere").await.expect("a database can be made");
    let elsewhere = crate::world::pool(&world.server().url("elsewhere")).await;
    sqlx::raw_sql("create table es_events (n int)").execute(&elsewhere).await.expect("its own business");

    for bystander in [
        "insert into other values (2)",
        "select pg_current_xact_id()",
        "create temp table mine (n int)",
        "select * from other for update",
        "select pg_current_xact_id(); select count(*) from es_events",
        "select pg_current_xact_id(); lock table es_events in row share mode",
        // What a rolled-back savepoint did is gone, its lock too.
        "savepoint s; select es_append('order-gone', null, null, '{A}', array['{}']::jsonb[]); rollback to s",
    ] {
        let (mut conn, _) = session(&world).await;
        run(&mut conn, &format!("begin; {bystander}")).await;
        append_any(&world.store(), "order-1", 1).await;
        let (seen, held) = readable(&world).await;
        assert!(seen > held, "{bystander}: {seen} {held}");
        run(&mut conn, "rollback").await;
    }
    let mut conn = elsewhere.acquire().await.expect("a connection");
    run(&mut conn, "begin; insert into es_events values (1)").await;
    append_any(&world.store(), "order-1", 1).await;
    let (seen, held) = readable(&world).await;
    assert!(seen > held, "a table of the same name in another database is another table");
    run(&mut conn, "prepare transaction 'abroad'").await;
    append_any(&world.store(), "order-1", 1).await;
    let (seen, held) = readable(&world).await;
    assert!(seen > held, "prepared abroad: {seen} {held}");
    run(&mut conn, "rollback prepared 'abroad'").await;
    let (seen, held) = readable(&world).await;
    assert_eq!(seen, held);
}

#[tokio::test]
async fn whoever_has_sworn_not_to_append_is_gone_past_without_raising_the_floor() {
    const SWEAR: &str = "select es_swear_not_to_append()";
    let world = World::alone().await;
    append_any(&world.store(), "order-1", 1).await;
    let (mut sworn, _) = session(&world).await;
    run(&mut sworn, &format!("begin; {SWEAR}; select pg_current_xact_id()")).await;
    append_any(&world.store(), "order-1", 1).await;
    assert_eq!(unraised(&world).await, number(&world, "select count(*) from es_events").await);
    run(&mut sworn, "prepare transaction 'sworn'").await;
    append_any(&world.store(), "order-1", 1).await;
    assert_eq!(unraised(&world).await, number(&world, "select count(*) from es_events").await, "prepared");
    run(&mut sworn, "rollback prepared 'sworn'").await;
    // None that can be relied on: too late, another lock, another log.
    for unsworn in [
        format!("select pg_current_xact_id(); {SWEAR}"),
        format!("select es_append('order-2', null, null, '{{A}}', array['{{}}']::jsonb[]); {SWEAR}"),
        "select pg_advisory_xact_lock(es_oath_class(), 'es_events'::regclass::oid::integer), pg_current_xact_id()"
            .to_owned(),
        "select pg_advisory_xact_lock_shared(es_oath_class(), 1), pg_current_xact_id()".to_owned(),
    ] {
        run(&mut sworn, &format!("begin; {unsworn}")).await;
        let own = ask(&mut sworn, "select es_counted(pg_current_xact_id())").await;
        append_any(&world.store(), "order-1", 1).await;
        assert_eq!(world.value("select es_proven_horizon()").await, own, "{unsworn}");
        run(&mut sworn, "rollback").await;
    }
}

/// How many events a reader gets below the horizon as far as it is proven already.
async fn unraised(world: &World) -> i64 {
    let horizon = number(world, "select es_proven_horizon()").await;
    number(world, &format!("select count(*) from es_read_all_after('0', 0, 1000, '{horizon}')")).await
}

#[tokio::test]
async fn an_oath_is_kept_in_every_way_to_append_and_ends_with_its_transaction() {
    let world = World::new().await;
    append_any(&world.store(), "order-1", 1).await;
    let (mut conn, _) = session(&world).await;
    let append = "select es_append('order-1', null, null, '{A}', array['{}']::jsonb[])";
    for appending in [
        append,
        "select es_append_many(array['order-1'], array['order'], '{A}', array['{}']::jsonb[], array['{}']::jsonb[], array[gen_random_uuid()])",
        "insert into es_events (stream_id, stream_version, event_type, data) values ('order-1', 2, 'A', '{}')",
    ] {
        run(&mut conn, "begin; select es_swear_not_to_append()").await;
        let refused = sqlx::raw_sql(AssertSqlSafe(appending)).execute(&mut conn).await.expect_err(appending);
        let refused = refused.as_database_error().expect("the server refuses");
        assert_eq!(refused.code().as_deref(), Some("ES005"), "{appending}: {refused}");
        run(&mut conn, "rollback").await;
    }
    run(&mut conn, append).await;
    assert_eq!(world.value("select count(*) from es_events").await, "2");
}

#[tokio::test]
async fn whoever_may_have_appended_is_waited_for() {
    let world = World::alone().await;
    append_any(&world.store(), "order-1", 1).await;
    for appender in [
        "select es_append('order-2', null, null, '{A}', array['{}']::jsonb[])",
        "insert into es_streams (stream_id, stream_category, stream_version) values ('raw-1', 'raw', 1);
         insert into es_events (stream_id, stream_version, event_type, data) values ('raw-1', 1, 'A', '{}')",
        "select pg_current_xact_id(); lock table es_events in row exclusive mode",
        "select pg_current_xact_id(); savepoint s; select es_append('order-3', null, null, '{A}', array['{}']::jsonb[])",
    ] {
        let (mut conn, _) = session(&world).await;
        run(&mut conn, &format!("begin; {appender}")).await;
        let own = ask(&mut conn, "select es_counted(pg_current_xact_id())").await;
        append_any(&world.store(), "order-1", 1).await;
        for _ in 0..3 {
            assert_eq!(proven(&world).await.to_string(), own, "{appender}");
        }
        run(&mut conn, "rollback").await;
        let (seen, _) = readable(&world).await;
        assert_eq!(seen, number(&world, "select count(*) from es_events").await, "{appender}");
    }
    // Prepared, it has no pid and keeps its locks.
    let (mut conn, _) = session(&world).await;
    run(&mut conn, "begin; select es_append('order-4', null, null, '{A}', array['{}']::jsonb[])").await;
    let own = ask(&mut conn, "select es_counted(pg_current_xact_id())").await;
    run(&mut conn, "prepare transaction 'appended'").await;
    append_any(&world.store(), "order-1", 1).await;
    assert_eq!(proven(&world).await.to_string(), own);
    run(&mut conn, "commit prepared 'appended'").await;
    let (seen, _) = readable(&world).await;
    assert_eq!(seen, number(&world, "select count(*) from es_events").await);
}

#[tokio::test]
async fn an_event_of_somebody_who_was_gone_past_lies_behind_every_reader() {
    let world = World::alone().await;
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let (mut early, _) = session(&world).await;
        run(&mut early, &format!("begin isolation level {isolation}; select pg_current_xact_id()")).await;
        append_any(&world.store(), "order-1", 1).await;
        let horizon = proven(&world).await;
        run(&mut early, "select es_append('order-2', null, null, '{A}', array['{}']::jsonb[]); commit").await;
        let late = number(
            &world,
            "select max(transaction_id::text::bigint) from es_events where stream_id = 'order-2'",
        )
        .await;
        assert!(late >= horizon, "{isolation}: {late} {horizon}");
    }
    assert!(
        number(&world, "select count(distinct transaction_id) from es_events where stream_id = 'order-2'")
            .await
            == 3
    );
}

#[tokio::test]
async fn an_old_snapshot_proves_no_more_than_it_saw() {
    let world = World::alone().await;
    let (mut old, _) = session(&world).await;
    run(&mut old, "begin isolation level repeatable read; select count(*) from es_events").await;
    let bound: i64 =
        ask(&mut old, "select pg_snapshot_xmax(pg_current_snapshot())").await.parse().expect("a number");
    append_any(&world.store(), "order-1", 1).await;
    raise(&world).await;
    let proven: i64 = ask(&mut old, "select es_proven_horizon()").await.parse().expect("a number");
    assert!(proven <= bound, "{proven} {bound}");
}

#[tokio::test]
async fn a_cursor_of_another_cluster_is_an_error_and_not_silence() {
    let world = World::new().await;
    append_any(&world.store(), "order-1", 1).await;
    let newest: u64 =
        world.value("select pg_snapshot_xmax(pg_current_snapshot())").await.parse().expect("a number");
    let near = world.store().read_all_after((newest, 0), 10).await.expect("it is not ahead");
    assert!(near.is_empty());
    for error in [
        world.store().read_all_after((newest + 100_000, 7), 10).await.expect_err("it is ahead"),
        world.store().read_category_after("order", (newest + 100_000, 7), 10).await.expect_err("it is ahead"),
    ] {
        assert_eq!(super::store_sqlstate(&error), foldd::error::sqlstate::CURSOR_AHEAD, "{error:?}");
    }
}

#[tokio::test]
async fn without_its_own_default_the_log_proves_nothing_and_says_why() {
    let world = World::alone().await;
    assert_eq!(world.value("select es_why_unproven()").await, "");
    world.execute("alter table es_events alter column transaction_id set default pg_current_xact_id()").await;
    assert!(world.value("select es_why_unproven()").await.contains("pg_current_xact_id()"));
    let (mut conn, _) = session(&world).await;
    run(&mut conn, "begin; select pg_current_xact_id()").await;
    let own = ask(&mut conn, "select pg_current_xact_id()").await;
    append_any(&world.store(), "order-1", 1).await;
    assert_eq!(proven(&world).await.to_string(), own);
}
