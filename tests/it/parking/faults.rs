//! Which faults are an event's, which are nobody's, and which are the projection's.

use super::{HANDLERS, TABLES, append_bad, append_good, applied, file, letters, settled};
use crate::world::World;

const QUARANTINE: &str = "on_error = \"quarantine_stream\"";

#[tokio::test]
async fn what_is_about_the_event_is_parked_whatever_its_class() {
    let codes = ["21000", "22012", "22P02", "23502", "23505", "38000", "44000", "54001", "P0001", "U0815"];
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        for code in codes {
            append_bad(&world, &format!("order-{code}"), code).await;
        }
        append_good(&world, "order-good", 1).await;
        world.projection(name, &file(QUARANTINE, TABLES, handlers));
        let daemon = world.daemon();
        settled(&world, name).await;
        let expected: Vec<String> =
            codes.iter().map(|code| format!("order-{code}/1 failed {code} 1")).collect();
        assert_eq!(letters(&world, name).await, expected, "{name}");
        assert_eq!(applied(&world, name).await, ["order-good: 1"]);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn what_is_about_the_projection_or_the_server_halts_and_parks_nothing() {
    for code in ["0A000", "25001", "42703", "42501", "58030", "XX001"] {
        let world = World::new().await;
        append_good(&world, "order-good", 1).await;
        append_bad(&world, "order-1", code).await;
        let (name, handlers) = HANDLERS[0];
        world.projection(name, &file(QUARANTINE, TABLES, handlers));
        let daemon = world.daemon();
        let error = world.halted(name).await;
        assert_eq!(error["sqlstate"], code, "{error}");
        assert_eq!(letters(&world, name).await, Vec::<String>::new());
        daemon.stop().await;
    }
}

#[tokio::test]
async fn what_passes_is_never_parked() {
    for code in ["40001", "40P01", "55P03", "53100", "53200"] {
        let world = World::new().await;
        append_bad(&world, "order-1", code).await;
        let (name, handlers) = HANDLERS[0];
        world.projection(name, &file(QUARANTINE, TABLES, handlers));
        let daemon = world.daemon();
        let status = world.phase(name, "backing_off").await;
        assert_eq!(status["error"]["sqlstate"], code, "{status}");
        world.execute(&format!("insert into {name}.mended values (true)")).await;
        settled(&world, name).await;
        assert_eq!(applied(&world, name).await, ["order-1: 1"]);
        assert_eq!(letters(&world, name).await, Vec::<String>::new());
        daemon.stop().await;
    }
}

#[tokio::test]
async fn an_event_that_breaks_a_deferred_constraint_is_found_and_parked() {
    let tables = "create table applied (nth bigint generated always as identity, stream_id text not null,
            version bigint not null, amount text, unique (amount) deferrable initially deferred);
        create function trip(data jsonb) returns text language sql return data->>'amount';";
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        for (stream, amount) in
            [("order-1", 1), ("order-2", 2), ("order-3", 1), ("order-3", 3), ("order-4", 4)]
        {
            append_good(&world, stream, amount).await;
        }
        world.projection(name, &file(QUARANTINE, tables, handlers));
        let daemon = world.daemon();
        settled(&world, name).await;
        assert_eq!(letters(&world, name).await, ["order-3/1 failed 23505 1", "order-3/2 behind 1"], "{name}");
        assert_eq!(applied(&world, name).await, ["order-1: 1", "order-2: 1", "order-4: 1"]);
        daemon.stop().await;
    }
}

/// Bounds under which a batch may take 0.6 s.
const IMPATIENT: [(&str, &str); 3] = [
    ("FOLDD__DAEMON__LIVE_BATCH", "50ms"),
    ("FOLDD__DAEMON__CATCH_UP_BATCH", "100ms"),
    ("FOLDD__DAEMON__BATCH_TIMEOUT", "600ms"),
];

const SLEEPY: &str = "create table applied (nth bigint generated always as identity, stream_id text not null,
        version bigint not null, amount text);
    create function trip(data jsonb) returns text language plpgsql as $$
    begin
        if data ? 'fail' then perform pg_sleep(3600); end if;
        return data->>'amount';
    end $$;";

#[tokio::test]
async fn an_event_that_takes_too_long_alone_is_parked() {
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        append_good(&world, "order-2", 1).await;
        append_bad(&world, "order-1", "sleep").await;
        append_good(&world, "order-1", 2).await;
        append_good(&world, "order-2", 2).await;
        world.projection(name, &file(QUARANTINE, SLEEPY, handlers));
        let daemon = world.daemon_with(&IMPATIENT);
        settled(&world, name).await;
        assert_eq!(letters(&world, name).await, ["order-1/1 failed 1", "order-1/2 behind 1"], "{name}");
        assert_eq!(applied(&world, name).await, ["order-2: 1 2"]);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_session_that_is_killed_parks_nothing() {
    let world = World::new().await;
    append_bad(&world, "order-1", "sleep").await;
    let (name, handlers) = HANDLERS[0];
    world.projection(name, &file(QUARANTINE, SLEEPY, handlers));
    let daemon = world.daemon();
    let sleeping = "from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    for _ in 0..3 {
        let kill = format!("select count(pg_terminate_backend(pid)) {sleeping}");
        world.eventually("a batch is killed", async || world.value(&kill).await == "1").await;
    }
    daemon.says("trying again").await;
    assert_eq!(letters(&world, name).await, Vec::<String>::new());
    daemon.kill();
}

#[tokio::test]
async fn a_server_that_crashes_under_a_batch_parks_nothing_and_blames_nobody() {
    let mut world = World::alone().await;
    let (name, handlers) = HANDLERS[0];
    world.projection(name, &file(QUARANTINE, SLEEPY, handlers));
    append_bad(&world, "order-1", "sleep").await;
    let daemon = world.daemon();
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    for _ in 0..2 {
        world
            .eventually("a batch runs", async || world.try_value(sleeping).await.is_ok_and(|n| n == "1"))
            .await;
        world.server().crash().await.expect("it goes down");
        world.server().restart().await.expect("it comes back");
    }
    world
        .eventually("a batch runs again", async || world.try_value(sleeping).await.is_ok_and(|n| n == "1"))
        .await;
    assert_eq!(letters(&world, name).await, Vec::<String>::new());
    assert_eq!(world.value("select unclean_takeovers from es_subscriptions").await, "0");
    daemon.kill();
}
