//! An event that cannot be applied halts its projection alone, is named, and leaves nothing behind.

use serde_json::Value;

use super::{IMPATIENT, TALLY, file, line_of};
use crate::world::World;

/// Two hundred good events, one whose amount is no number, ten good ones. Returns the bad one's position.
async fn with_a_bad_event(world: &World) -> i64 {
    world.seed("order", 200).await;
    world.append("order-bad", "Paid", "{\"amount\": \"twelve\"}").await;
    world.seed("order", 10).await;
    let found = world.log().await.into_iter().find(|event| event.stream_id == "order-bad");
    found.expect("it was appended").global_position
}

fn assert_names(error: &Value, position: i64) {
    assert_eq!(error["event"]["position"], position, "{error}");
    assert_eq!(error["event"]["stream_id"], "order-bad", "{error}");
    assert_eq!(error["event"]["event_type"], "Paid", "{error}");
    assert!(error["remedy"].as_str().is_some_and(|remedy| remedy.len() > 20), "{error}");
}

#[tokio::test]
async fn the_event_that_a_handler_fails_on_is_named_and_nothing_of_its_page_is_kept() {
    // Alone: a horizon that somebody else holds would cut the page in two.
    let world = World::alone().await;
    let position = with_a_bad_event(&world).await;
    let text = file(
        "create table t (n bigint);",
        "-- @on Placed\ninsert into t\nvalues (1);\n-- @on Paid\ninsert into t\nvalues (\n  (event.data->>'amount')::bigint);",
    );
    world.projection("bad", &text);
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    let error = world.halted("bad").await;
    assert_names(&error, position);
    assert_eq!(error["sqlstate"], "22P02");
    let place = error["place"].as_str().expect("it has a place");
    let line = line_of(&text, "values (\n".trim_end()) - 1;
    let lines = [line, line + 1, line + 2, line + 3].map(|line| format!("bad.sql:{line}"));
    assert!(lines.iter().any(|line| place.ends_with(line)), "{place} is not one of {lines:?}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("twelve")), "{error}");
    let status = world.status("bad").await;
    assert_eq!(status["partitions"][0]["checkpoint"]["position"], 0, "{status}");
    assert_eq!(world.rows("bad.t").await, Vec::<String>::new());
    // The neighbour neither stops nor waits, also for what comes now.
    world.append("order-1", "Placed", "{\"amount\": 1}").await;
    world.caught_up("tally").await;
    assert_eq!(world.value("select sum(n) from tally.tally").await, "212");
    // The board is published once a second.
    world.phase("tally", "live").await;
    assert_eq!(world.status("bad").await["phase"], "halted");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn statements_that_append_halt_under_every_policy_and_append_nothing() {
    let world = World::new().await;
    world.seed("order", 5).await;
    world.execute("grant insert, update on es_streams, es_events to public").await;
    for (name, kind) in [("eachly", "-- @on Placed\n-- @on Paid\n-- @on Noted"), ("wholly", "-- @batch")] {
        let handler = format!(
            "{kind}\ninsert into t select version from public.es_append('order-again', null, null, array['Noted'], array['{{}}']::jsonb[]);"
        );
        let text = file("create table t (n int);", &handler);
        world.projection(name, &text.replace("version = 1", "version = 1\non_error = \"skip_event\""));
    }
    let _daemon = world.daemon();
    for name in ["eachly", "wholly"] {
        let error = world.halted(name).await;
        assert_eq!(error["sqlstate"], "ES005", "{error}");
        assert!(error["remedy"].as_str().is_some_and(|remedy| remedy.contains("in a service")), "{error}");
    }
    assert_eq!(world.value("select count(*) from es_events where stream_id = 'order-again'").await, "0");
}

#[tokio::test]
async fn the_event_that_a_statement_over_a_page_fails_on_is_found_by_halving() {
    let world = World::new().await;
    let position = with_a_bad_event(&world).await;
    let text = file(
        "create table t (position bigint primary key, n bigint);",
        "-- @batch\ninsert into t (position)\nselect global_position from batch;\n-- @batch\nupdate t set n = (data->>'amount')::bigint\n\
         from batch where t.position = batch.global_position;",
    );
    world.projection("bad", &text);
    let _daemon = world.daemon();
    let error = world.halted("bad").await;
    assert_names(&error, position);
    assert_eq!(error["sqlstate"], "22P02");
    let place = format!("bad.sql:{}", line_of(&text, "update t set"));
    assert!(error["place"].as_str().is_some_and(|text| text.ends_with(&place)), "{error}");
    let status = world.status("bad").await;
    let checkpoint =
        status["partitions"][0]["checkpoint"]["position"].as_i64().expect("there is a checkpoint");
    assert_eq!(checkpoint, position - 1, "everything before the event is applied");
    assert_eq!(
        world.value("select count(*) || ' ' || count(n) || ' ' || max(position) from bad.t").await,
        format!("200 200 {checkpoint}")
    );
}

/// The second event of the same amount breaks a constraint that is checked at the end of the transaction.
const DEFERRED: &str =
    "create table t (amount bigint, constraint once unique (amount) deferrable initially deferred);";

async fn with_an_amount_twice(world: &World) -> i64 {
    for amount in 1..40 {
        world.append("order-1", "Paid", &format!("{{\"amount\": {amount}}}")).await;
    }
    world.append("order-bad", "Paid", "{\"amount\": 17}").await;
    world.append("order-1", "Paid", "{\"amount\": 40}").await;
    40
}

#[tokio::test]
async fn a_deferred_constraint_names_the_event_that_breaks_it() {
    for (mode, handler) in [
        ("single", "-- @on Paid\ninsert into t values ((event.data->>'amount')::bigint);"),
        ("whole", "-- @batch\ninsert into t select (data->>'amount')::bigint from batch;"),
    ] {
        let world = World::new().await;
        let position = with_an_amount_twice(&world).await;
        world.projection(mode, &file(DEFERRED, handler));
        let _daemon = world.daemon();
        let error = world.halted(mode).await;
        assert_names(&error, position);
        assert_eq!(error["sqlstate"], "23505", "{mode}");
        assert_eq!(world.value(&format!("select count(*) from {mode}.t")).await, "39", "{mode}");
        let status = world.status(mode).await;
        assert_eq!(status["partitions"][0]["checkpoint"]["position"], 39, "{mode}");
    }
}

#[tokio::test]
async fn a_deferred_constraint_that_holds_at_the_end_of_a_page_does_not_disturb() {
    let world = World::new().await;
    let handlers = "-- @on Paid\ninsert into t values ((event.data->>'amount')::bigint);\n\
                    -- @on Moved\nupdate t set amount = amount + 1;";
    world.projection("moved", &file(DEFERRED, handlers));
    for kind in ["Paid", "Moved", "Paid", "Moved"] {
        world.append("order-1", kind, "{\"amount\": 1}").await;
    }
    let _daemon = world.daemon();
    world.caught_up("moved").await;
    assert_eq!(world.rows("moved.t").await, ["(2)", "(3)"]);
}

#[tokio::test]
async fn a_handler_that_never_ends_is_cut_off_halved_and_halted_with_a_remedy() {
    let endless =
        "create function endless() returns bigint language plpgsql as $$begin loop end loop; end$$;";
    for (mode, tables, handler) in [
        ("endless", endless, "-- @on Paid\ninsert into t values (endless());"),
        (
            "asleep",
            "",
            "-- @batch\ninsert into t select case when event_type = 'Paid' then length(pg_sleep(3600)::text) end from batch;",
        ),
    ] {
        let world = World::new().await;
        world.projection(mode, &file(&format!("create table t (n bigint); {tables}"), handler));
        world.projection("tally", TALLY);
        for kind in ["Placed", "Placed", "Placed", "Paid", "Placed"] {
            world.append("order-1", kind, "{}").await;
        }
        let daemon = world.daemon_with(&IMPATIENT);
        let error = world.halted(mode).await;
        assert!(
            error["remedy"].as_str().is_some_and(|remedy| remedy.contains("daemon.batch_timeout")),
            "{error}"
        );
        assert!(daemon.log().contains("halving the page"), "{mode}: {}", daemon.log());
        let status = world.status(mode).await;
        assert_eq!(
            status["partitions"][0]["checkpoint"]["position"], 3,
            "what came before is applied: {status}"
        );
        assert_eq!(error["event"]["position"], 4, "{mode}: {error}");
        world.caught_up("tally").await;
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_handler_that_swallows_its_timeout_leaves_no_session_behind_and_holds_up_nobody() {
    let world = World::alone().await;
    let stubborn = "create table t (n bigint);
        create function stubborn() returns bigint language plpgsql as $$
        begin
            loop
                begin
                    perform pg_sleep(0.1);
                exception when query_canceled then null;
                end;
            end loop;
        end $$;";
    world.projection("stubborn", &file(stubborn, "-- @on Paid\ninsert into t values (stubborn());"));
    world.projection("tally", TALLY);
    world.append("order-1", "Paid", "{}").await;
    let hurried = [&IMPATIENT[..], &[("FOLDD__DAEMON__DRAIN_TIMEOUT", "500ms")]].concat();
    let daemon = world.daemon_with(&hurried);
    daemon.says("if the handler catches query_canceled, take that out").await;
    world
        .eventually("the status says so too", async || {
            let error = &world.status("stubborn").await["error"];
            error["message"].as_str().is_some_and(|text| text.contains("query_canceled"))
        })
        .await;
    // What runs on would hold the horizon, and so everybody else, for ever.
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    let sessions = "select count(*) from pg_stat_activity where application_name like 'foldd %'";
    world.eventually("every session ends", async || world.value(sessions).await == "0").await;
    assert_eq!(world.rows("stubborn.t").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_assertion_that_fails_names_its_event_like_any_other_error() {
    let world = World::new().await;
    let tables = "create table t (n bigint);
        create function only_small(n bigint) returns bigint language plpgsql as $$
        begin
            assert n < 10, 'too large';
            return n;
        end $$;";
    let handler = "-- @on Paid\ninsert into t values (only_small((event.data->>'amount')::bigint));";
    world.projection("asserting", &file(tables, handler));
    world.append("order-1", "Paid", "{\"amount\": 1}").await;
    world.append("order-bad", "Paid", "{\"amount\": 10}").await;
    let _daemon = world.daemon();
    let error = world.halted("asserting").await;
    assert_names(&error, 2);
    assert_eq!((&error["sqlstate"], &error["message"]), (&"P0004".into(), &"too large".into()));
}

#[tokio::test]
async fn a_halted_projection_goes_on_after_a_restart_when_the_cause_is_gone() {
    let world = World::new().await;
    let text = file(
        "create table t (n bigint primary key);",
        "-- @on Placed\ninsert into t values ((event.data->>'amount')::bigint);",
    );
    world.projection("bad", &text);
    world.append("order-1", "Placed", "{\"amount\": 1}").await;
    let daemon = world.daemon();
    world.caught_up("bad").await;
    world.execute("insert into bad.t values (2)").await;
    world.append("order-1", "Placed", "{\"amount\": 2}").await;
    assert_eq!(world.halted("bad").await["sqlstate"], "23505");
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert_eq!(world.status("bad").await["phase"], "halted", "it still says so while no daemon runs");
    let daemon = world.daemon();
    world.halted("bad").await;
    daemon.stop().await;
    world.execute("delete from bad.t where n = 2").await;
    let _daemon = world.daemon();
    world.caught_up("bad").await;
    assert_eq!(world.rows("bad.t").await, ["(1)", "(2)"]);
    world.eventually("the error is taken back", async || world.status("bad").await["error"].is_null()).await;
}
