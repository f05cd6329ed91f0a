//! What passes by itself is tried again and never halts.

use sqlx::Connection;

use super::{IMPATIENT, file};
use crate::world::World;

#[tokio::test]
async fn a_lock_on_a_read_model_is_waited_out_and_each_event_counts_once() {
    for (mode, handler) in [
        ("single", "-- @on Placed\nupdate t set n = n + 1;"),
        ("whole", "-- @batch\nupdate t set n = n + (select count(*) from batch);"),
    ] {
        let world = World::alone().await;
        world.projection(mode, &file("create table t (n bigint);", handler));
        let daemon = world.daemon_with(&IMPATIENT);
        world.caught_up(mode).await;
        world.execute(&format!("insert into {mode}.t values (0)")).await;
        let mut other = sqlx::PgConnection::connect(world.url()).await.expect("the database answers");
        let mut tx = other.begin().await.expect("a transaction begins");
        // Nothing is written, so that the horizon stays free and only the row is in the way.
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("lock table {mode}.t in share mode")))
            .execute(&mut *tx)
            .await
            .expect("the table can be locked");
        for _ in 0..30 {
            world.append("order-1", "Placed", "{}").await;
        }
        let status = world.phase(mode, "backing_off").await;
        assert_eq!(status["error"]["sqlstate"], "55P03", "{status}");
        assert!(
            status["error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("again")),
            "{status}"
        );
        tx.commit().await.expect("the other transaction ends");
        world.caught_up(mode).await;
        assert_eq!(world.rows(&format!("{mode}.t")).await, ["(30)"], "{mode}");
        world.phase(mode, "live").await;
        world
            .eventually("the error is taken back", async || world.status(mode).await["error"].is_null())
            .await;
        assert!(!daemon.log().contains("halted"), "{}", daemon.log());
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_serialization_failure_in_a_handler_is_tried_again() {
    let world = World::new().await;
    // Fails until the test puts an end to it, as a deadlock or a serialization failure would.
    let tables = "create table t (n bigint); create table broken (is_broken boolean);
        create function fail() returns bigint language plpgsql as $$
        begin
            if exists (select from broken) then
                raise exception 'could not serialize' using errcode = '40001';
            end if;
            return 1;
        end $$;";
    world.projection("moody", &file(tables, "-- @on Placed\ninsert into t values (fail());"));
    let daemon = world.daemon();
    world.caught_up("moody").await;
    world.execute("insert into moody.broken values (true)").await;
    world.append("order-1", "Placed", "{}").await;
    let status = world.phase("moody", "backing_off").await;
    assert_eq!(status["error"]["sqlstate"], "40001", "{status}");
    world.execute("delete from moody.broken").await;
    world.caught_up("moody").await;
    assert_eq!(world.rows("moody.t").await, ["(1)"]);
    assert!(!daemon.log().contains("halted"), "{}", daemon.log());
}

#[tokio::test]
async fn a_backlog_that_takes_too_long_to_count_halts_nothing() {
    // Other tests' transactions must not hold the horizon: an empty first page has nothing to count.
    let world = World::alone().await;
    world.projection(
        "counts",
        &file("create table t (n bigint);", "-- @on Placed\ninsert into t values (1);"),
    );
    world.append("order-1", "Placed", "{}").await;
    let counter = "alter function es_count_after(text[], xid8, bigint, xid8) rename to";
    world
        .execute(&format!(
            "{counter} counted; create function es_count_after(text[], xid8, bigint, xid8 default null) returns bigint
             language sql begin atomic select length(pg_sleep(3600)::text)::bigint; end"
        ))
        .await;
    let daemon = world.daemon_with(&IMPATIENT);
    daemon.says("trying again").await;
    world
        .execute("drop function es_count_after(text[], xid8, bigint, xid8); alter function counted rename to es_count_after")
        .await;
    world.caught_up("counts").await;
    assert_eq!(world.rows("counts.t").await, ["(1)"]);
    assert!(!daemon.log().contains("halted"), "{}", daemon.log());
}
