//! What each policy does with an event that cannot be applied.

use super::{HANDLERS, TABLES, append_bad, append_good, applied, file, letters, settled};
use crate::world::World;

/// Two streams, the first of which breaks off at its second event.
async fn with_one_bad_event(world: &World) {
    for amount in 0..20 {
        append_good(world, "order-2", amount).await;
    }
    append_good(world, "order-1", 1).await;
    append_bad(world, "order-1", "22012").await;
    append_good(world, "order-1", 3).await;
    append_good(world, "order-2", 21).await;
}

fn up_to(stream: &str, versions: impl Iterator<Item = u32>) -> String {
    format!("{stream}: {}", versions.map(|version| version.to_string()).collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn a_quarantined_stream_keeps_its_order_and_the_others_go_on() {
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        with_one_bad_event(&world).await;
        world.projection(name, &file("on_error = \"quarantine_stream\"", TABLES, handlers));
        let daemon = world.daemon();
        let status = settled(&world, name).await;
        assert_eq!(status["error"], serde_json::Value::Null, "{status}");
        assert_eq!(applied(&world, name).await, ["order-1: 1".to_owned(), up_to("order-2", 1..=21)]);
        assert_eq!(letters(&world, name).await, ["order-1/2 failed 22012 1", "order-1/3 behind 1"], "{name}");
        // Later events of that stream wait as well, also after a restart; everybody else's are applied.
        daemon.stop().await;
        let daemon = world.daemon();
        append_good(&world, "order-1", 4).await;
        append_good(&world, "order-2", 22).await;
        settled(&world, name).await;
        assert_eq!(applied(&world, name).await, ["order-1: 1".to_owned(), up_to("order-2", 1..=22)]);
        let parked = letters(&world, name).await;
        assert_eq!(parked.len(), 3, "{parked:?}");

        // Once the cause is gone, they are applied in stream order, and their letters are gone.
        world.execute(&format!("insert into {name}.mended values (true)")).await;
        let done = world.foldd(&["dead-letters", "retry", name, "--stream", "order-1"]).await;
        assert_eq!((done.code, done.out.contains("3 applied")), (0, true), "{done:?}");
        append_good(&world, "order-1", 5).await;
        settled(&world, name).await;
        assert_eq!(letters(&world, name).await, Vec::<String>::new());
        assert_eq!(
            applied(&world, name).await,
            [up_to("order-1", 1..=5), up_to("order-2", 1..=22)],
            "{name}: {}",
            daemon.log()
        );
        assert_eq!(world.value("select count(*) from es_quarantined_streams").await, "0");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_skipped_event_is_parked_alone() {
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        with_one_bad_event(&world).await;
        world.projection(name, &file("on_error = \"skip_event\"", TABLES, handlers));
        let daemon = world.daemon();
        settled(&world, name).await;
        assert_eq!(applied(&world, name).await, ["order-1: 1 3".to_owned(), up_to("order-2", 1..=21)]);
        assert_eq!(letters(&world, name).await, ["order-1/2 skipped 22012 1"]);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn halting_parks_nothing() {
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        with_one_bad_event(&world).await;
        world.projection(name, &file("", TABLES, handlers));
        let daemon = world.daemon();
        let error = world.halted(name).await;
        assert_eq!(error["event"]["stream_id"], "order-1", "{error}");
        assert!(error["remedy"].as_str().is_some_and(|remedy| remedy.contains("foldd resume")), "{error}");
        assert_eq!(letters(&world, name).await, Vec::<String>::new());
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_halted_projection_goes_on_without_a_restart_once_the_cause_is_gone() {
    let world = World::new().await;
    with_one_bad_event(&world).await;
    let (name, handlers) = HANDLERS[1];
    world.projection(name, &file("", TABLES, handlers));
    let daemon = world.daemon();
    world.halted(name).await;
    let again = world.foldd(&["resume", name]).await;
    assert_ne!(again.code, 0, "nothing was mended: {again:?}");
    world.execute(&format!("insert into {name}.mended values (true)")).await;
    let resumed = world.foldd(&["resume", name, "--why", "mended"]).await;
    assert_eq!(resumed.code, 0, "{resumed:?}");
    settled(&world, name).await;
    assert_eq!(applied(&world, name).await, [up_to("order-1", 1..=3), up_to("order-2", 1..=21)]);
    daemon.stop().await;
}

#[tokio::test]
async fn parked_events_outlive_a_kill_in_the_middle_of_their_retry() {
    let world = World::new().await;
    let slow = "create table applied (nth bigint generated always as identity, stream_id text not null,
            version bigint not null, amount text, unique (stream_id, version));
        create table mended (is_mended boolean);
        create function trip(data jsonb) returns text language plpgsql as $$
        begin
            if not exists (select from mended) then raise exception 'tripped'; end if;
            perform pg_sleep(0.01);
            return data->>'amount';
        end $$;";
    let (name, handlers) = HANDLERS[0];
    world.projection(name, &file("on_error = \"quarantine_stream\"", slow, handlers));
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__LEASE", "1s")]);
    for amount in 0..300 {
        append_good(&world, &format!("order-{}", amount % 3), amount).await;
    }
    settled(&world, name).await;
    assert_eq!(letters(&world, name).await.len(), 300);
    world.execute(&format!("insert into {name}.mended values (true)")).await;
    let done = world.foldd(&["dead-letters", "retry", name, "--all", "--timeout", "100ms"]).await;
    assert_eq!(done.code, 3, "it takes longer: {done:?}");
    world.eventually("it is under way", async || letters(&world, name).await.len() < 300).await;
    daemon.kill();
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__LEASE", "1s")]);
    world.eventually("all are applied", async || letters(&world, name).await.is_empty()).await;
    let lines = applied(&world, name).await;
    assert_eq!(lines, [0, 1, 2].map(|stream| up_to(&format!("order-{stream}"), 1..=100)));
    daemon.stop().await;
}

#[tokio::test]
async fn with_too_many_quarantined_streams_it_halts_after_all() {
    for (name, handlers) in HANDLERS {
        let world = World::new().await;
        for stream in ["order-1", "order-2", "order-3", "order-4"] {
            append_good(&world, stream, 1).await;
            append_bad(&world, stream, "23514").await;
        }
        let policy = "on_error = \"quarantine_stream\"\nmax_quarantined_streams = 2";
        world.projection(name, &file(policy, TABLES, handlers));
        let daemon = world.daemon();
        let error = world.halted(name).await;
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("3 streams") && message.contains("max_quarantined_streams is 2"), "{error}");
        assert_eq!(letters(&world, name).await, ["order-1/2 failed 23514 1", "order-2/2 failed 23514 1"]);
        assert_eq!(applied(&world, name).await[..2], ["order-1: 1", "order-2: 1"]);
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_retry_that_fails_again_counts_the_attempt_and_keeps_the_order() {
    let world = World::new().await;
    with_one_bad_event(&world).await;
    let (name, handlers) = HANDLERS[0];
    world.projection(name, &file("on_error = \"quarantine_stream\"", TABLES, handlers));
    let daemon = world.daemon();
    settled(&world, name).await;
    let done = world.foldd(&["dead-letters", "retry", name, "--all"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.out.contains("failed again: tripped over bad"), "{done:?}");
    let again = ["order-1/2 failed 22012 2", "order-1/3 behind 1"];
    assert_eq!(letters(&world, name).await, again);
    world.phase(name, "live").await;
    assert_eq!(
        world.value("select count(*) from es_dead_letters where retry_wanted_at is not null").await,
        "0"
    );
    assert_eq!(applied(&world, name).await[0], "order-1: 1");
    daemon.stop().await;
}
