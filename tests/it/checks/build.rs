//! `foldd build NAME --into SCHEMA`: the read model as it was, kept.

use serde_json::Value;

use super::traces;
use crate::world::World;

const TALLY: &str = "/* foldd
version = 1
categories = [\"order\"]
*/
-- @tables
create table tally (stream_id text primary key, n bigint not null);
-- @on Placed
insert into tally values (event.stream_id, 1)
on conflict (stream_id) do update set n = tally.n + 1;
";

/// Waits until everything committed can be read: other tests share the server, and so the horizon.
async fn readable(world: &World) {
    let sql = "select es_horizon() > (select max(transaction_id) from es_events)";
    world.eventually("the horizon passes the log", async || world.value(sql).await == "true").await;
}

async fn counted(world: &World, schema: &str) -> String {
    world
        .value(&format!(
            "select string_agg(stream_id || '=' || n, ' ' order by stream_id) from {schema}.tally"
        ))
        .await
}

#[tokio::test]
async fn a_read_model_is_built_as_it_was_at_a_position_a_time_and_now() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    for n in 1..=6 {
        world.append(&format!("order-{}", n % 2), "Placed", "{}").await;
        world.append("fine-1", "Placed", "{}").await;
    }
    readable(&world).await;
    let position = world
        .value(
            "select max(global_position) from es_events where stream_id = 'order-0' and stream_version = 2",
        )
        .await;
    let done = world.foldd(&["build", "tally", "--into", "then", "--until", &position, "--json"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let report: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((report["events"].as_i64(), report["schema"].as_str()), (Some(4), Some("then")), "{report}");
    assert!(
        report["cursor"].as_str().is_some_and(|cursor| cursor.ends_with(&format!(":{position}"))),
        "{report}"
    );
    assert_eq!(counted(&world, "\"then\"").await, "order-0=2 order-1=2");

    // The time of an event is in, what was appended later is not.
    let time = world
        .value(&format!("select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from es_events where global_position = {position}"))
        .await;
    let done = world.foldd(&["build", "tally", "--into", "at_noon", "--until", &time]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(counted(&world, "at_noon").await, "order-0=2 order-1=2");

    let done = world.foldd(&["build", "tally", "--into", "now"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("tally@1 up to cursor") && done.out.contains("6 events"), "{}", done.out);
    assert_eq!(counted(&world, "now").await, "order-0=3 order-1=3");
    let done = world.foldd(&["build", "tally", "--into", "before", "--until", "2000-01-01T00:00:00Z"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(counted(&world, "before").await, "");
    // It is nobody's: the daemon knows of no projection.
    assert_eq!(world.value("select count(*) from es_projections").await, "0");
    assert_eq!(
        world.value("select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname ~ '^pg_temp'").await,
        "0"
    );
}

#[tokio::test]
async fn a_schema_that_exists_is_left_alone() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.execute("create schema theirs; create table theirs.t (n int)").await;
    let done = world.foldd(&["build", "tally", "--into", "theirs"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("schema theirs exists already and is not of foldd build"), "{}", done.err);
    assert_eq!(world.foldd(&["build", "tally", "--into", "ours"]).await.code, 0);
    let done = world.foldd(&["build", "tally", "--into", "ours"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.err.contains("it holds tally@1 up to cursor") && done.err.contains("drop schema"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn what_fails_half_way_leaves_nothing() {
    let world = World::new().await;
    world.projection(
        "tally",
        &TALLY.replace("event.stream_id, 1)", "event.stream_id, (event.data->>'n')::int)"),
    );
    world.append("order-1", "Placed", "{\"n\": 1}").await;
    world.append("order-2", "Placed", "{\"n\": \"two\"}").await;
    readable(&world).await;
    let before = traces(&world).await;
    let done = world.foldd(&["build", "tally", "--into", "half"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("projections/tally.sql:8: ") && done.err.contains("two"), "{}", done.err);
    assert_eq!(traces(&world).await, before);
    for (until, says) in [
        ("999999", "no event at position 999999"),
        ("0", "positions begin with 1"),
        ("yesterday", "neither a position nor a time"),
        ("2999-01-01T00:00:00Z", "lies in the future"),
    ] {
        let done = world.foldd(&["build", "tally", "--into", "half", "--until", until]).await;
        assert_ne!(done.code, 0, "{done:?}");
        assert!(done.err.contains(says), "no {says} in {}", done.err);
    }
    let long = "s".repeat(64);
    for schema in ["pg_half", "foldd_scratch_0123456789ab", "foldd", &long] {
        let done = world.foldd(&["build", "tally", "--into", schema]).await;
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.err.contains("cannot be built") && done.err.contains("name another"), "{}", done.err);
    }
    let done = world.foldd(&["build", "nothing", "--into", "half"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("no projection nothing"), "{}", done.err);
    assert_eq!(traces(&world).await, before);
}

#[tokio::test]
async fn an_interrupted_build_leaves_nothing_and_a_killed_one_is_cleared_away() {
    let world = World::new().await;
    // Holds the build up at its first event, until the lock is given back.
    world.execute("create schema gate; grant usage on schema gate to public; create function gate.wait() returns int language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(77); return 1; end $$").await;
    let text = TALLY
        .replace("categories = ", "extension_schemas = [\"gate\"]\ncategories = ")
        .replace("event.stream_id, 1)", "event.stream_id, wait())");
    world.projection("tally", &text);
    world.append("order-1", "Placed", "{}").await;
    readable(&world).await;
    let before = traces(&world).await;
    for signal in ["INT", "KILL"] {
        let mut holder = world.pool().acquire().await.expect("a connection");
        sqlx::query("select pg_advisory_lock(77)").execute(&mut *holder).await.expect("the lock is free");
        let process = world.daemon_of(world.command(&["build", "tally", "--into", "half"]));
        let waiting =
            "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted
                       and database = (select oid from pg_database where datname = current_database())";
        world.eventually("the build is at its event", async || world.value(waiting).await == "1").await;
        process.signal(signal);
        let (code, log) = process.ends().await;
        if signal == "INT" {
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("interrupted; nothing is left behind"), "{log}");
        }
        sqlx::query("select pg_advisory_unlock(77)").execute(&mut *holder).await.expect("it was held");
        drop(holder);
        if signal == "KILL" {
            assert_ne!(traces(&world).await, before, "what was killed leaves a schema");
            // Not while the server has not noticed; then the next one clears it away.
            world
                .eventually("the next one drops it", async || {
                    world.foldd(&["build", "tally", "--into", "half", "--until", "999999"]).await;
                    traces(&world).await == before
                })
                .await;
        }
        assert_eq!(traces(&world).await, before, "{signal}");
    }
    let done = world.foldd(&["build", "tally", "--into", "half"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(counted(&world, "half").await, "order-1=1");
}
