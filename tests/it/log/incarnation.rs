//! After a crash, xids that left no trace are given out again: what was proven about them is void.

use uuid::Uuid;

use super::{ask, run, session, sqlstate, try_run};
use crate::world::World;

/// A horizon, and the life of the server it was seen in, as the daemon notes them.
async fn note(world: &World) -> (u64, Uuid) {
    world.value("select es_begin_incarnation()").await;
    let horizon = world.value("select es_horizon()").await.parse().expect("a number");
    let incarnation = world.value("select es_current_incarnation()").await.parse().expect("an id");
    (horizon, incarnation)
}

/// What a batch says to a horizon of this life, with a subscription that is its own.
async fn enter(world: &World, incarnation: Uuid) -> Result<(), String> {
    world
        .execute("insert into es_subscriptions (subscription_id, fence_token) values ('s@1', 7) on conflict do nothing")
        .await;
    let (mut conn, _) = session(world).await;
    let sql =
        format!("select foldd.es_enter('s@1', 7, '{incarnation}', 'public'::regnamespace, '{{}}', null)");
    try_run(&mut conn, &sql).await.map_err(|error| sqlstate(&error))
}

#[tokio::test]
async fn a_horizon_of_an_earlier_life_is_refused() {
    // Nobody flushes the WAL by himself for a while, so that the crash comes before it is written.
    let quiet = [
        ("wal_writer_delay", "10s"),
        ("autovacuum", "off"),
        ("bgwriter_delay", "10s"),
        ("checkpoint_timeout", "1h"),
    ];
    let mut world = World::alone_with(&quiet).await;
    world.append("a-1", "A", "1").await;
    let (_, incarnation) = note(&world).await;
    enter(&world, incarnation).await.expect("this is the same life");

    let mut reused = false;
    for _ in 0..5 {
        let (_, incarnation) = note(&world).await;
        enter(&world, incarnation).await.expect("this is the same life");
        world.execute("checkpoint").await;
        let (mut conn, _) = session(&world).await;
        for _ in 0..200 {
            run(&mut conn, "begin; select pg_current_xact_id(); rollback").await;
        }
        let horizon: u64 = ask(&mut conn, "select es_horizon()").await.parse().expect("a number");
        world.server().crash().await.expect("it goes down");
        world.server().restart().await.expect("it comes back");
        let (mut conn, _) = session(&world).await;
        assert_eq!(ask(&mut conn, "select count(*) from es_incarnation").await, "0", "a crash empties it");
        let again: u64 = ask(&mut conn, "select pg_current_xact_id()").await.parse().expect("a number");
        world
            .eventually("the pool has live connections again", async || {
                world.try_value("select 1").await.is_ok()
            })
            .await;
        assert_eq!(
            enter(&world, incarnation).await,
            Err("FD003".to_owned()),
            "nobody has begun a new life yet"
        );
        let (_, next) = note(&world).await;
        assert_ne!(next, incarnation);
        assert_eq!(enter(&world, incarnation).await, Err("FD003".to_owned()), "the old life is over");
        enter(&world, next).await.expect("this is the new one");
        if again < horizon {
            reused = true;
            break;
        }
    }
    assert!(reused, "no xid was given out twice here: the hazard that this guards against did not show");
}

#[tokio::test]
async fn whoever_started_at_another_moment_is_another_server() {
    let mut world = World::alone().await;
    let (horizon, incarnation) = note(&world).await;
    let (again, same) = note(&world).await;
    assert_eq!(same, incarnation, "a name is given once");
    assert!(again >= horizon);
    // A clean restart keeps the row, as a dump carries it elsewhere: the row is not enough.
    world.server().restart().await.expect("it comes back");
    world
        .eventually("the pool has live connections again", async || world.try_value("select 1").await.is_ok())
        .await;
    assert_eq!(world.value("select count(*) from es_incarnation").await, "1");
    assert_eq!(enter(&world, incarnation).await, Err("FD003".to_owned()));
    let (_, next) = note(&world).await;
    assert_ne!(next, incarnation);
    enter(&world, next).await.expect("this is the new one");
}

#[tokio::test]
async fn a_horizon_of_an_earlier_life_is_not_noted_for_a_restore() {
    let world = World::new().await;
    let (horizon, incarnation) = note(&world).await;
    let noted = "select seen_horizon from es_meta";
    let earlier = Uuid::now_v7();
    world.value(&format!("select es_note_horizon('{}', '{earlier}')", horizon + 1_000)).await;
    assert_eq!(world.value(noted).await, "0", "its xids may be given out again");
    world.value(&format!("select es_note_horizon('{horizon}', '{incarnation}')")).await;
    assert_eq!(world.value(noted).await, horizon.to_string());
}

#[tokio::test]
async fn a_stamp_never_falls_along_a_stream_even_when_xids_are_given_out_again() {
    let mut world = World::alone_with(&[("wal_writer_delay", "10s"), ("autovacuum", "off")]).await;
    let (mut conn, _) = session(&world).await;
    for _ in 0..200 {
        run(&mut conn, "begin; select pg_current_xact_id(); rollback").await;
    }
    // The commit that carries the stamp also carries its xid over the crash.
    world.append("a-1", "A", "1").await;
    let stamp: u64 = world
        .value("select max(transaction_id::text::bigint) from es_events")
        .await
        .parse()
        .expect("a number");
    world.server().crash().await.expect("it goes down");
    world.server().restart().await.expect("it comes back");
    world
        .eventually("the pool has live connections again", async || world.try_value("select 1").await.is_ok())
        .await;
    let next: u64 = world.value("select pg_current_xact_id()").await.parse().expect("a number");
    assert!(next > stamp);
    assert_eq!(world.value("select count(*) from es_read_all_after('0', 0, 9)").await, "1");
}
