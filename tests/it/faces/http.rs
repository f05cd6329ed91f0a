//! Verbs and looks over HTTP, with a daemon behind them.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::{TOKEN, done, faced, refused};
use crate::fold::TALLY;
use crate::world::World;

/// A projection that cannot apply one type of event, and parks it.
pub(super) const PICKY: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\non_error = \"quarantine_stream\"\n*/\n\
    -- @tables\ncreate table seen (position bigint primary key, amount int not null);\n\
    -- @on Placed\ninsert into seen values (event.global_position, (event.data ->> 'amount')::int);\n";

#[tokio::test]
async fn a_projection_is_paused_and_resumed_by_whoever_has_the_token() {
    let (world, daemon) = faced().await;
    let paused =
        done(&daemon, "/api/projections/tally/pause", json!({ "by": "day shift", "why": "tables move" }))
            .await;
    assert_eq!((&paused["phase"], &paused["changed"]), (&json!("paused"), &json!(true)), "{paused}");
    world.append("order-1", "Placed", "{}").await;
    world.phase("tally", "paused").await;

    let revision = paused["revision"].as_i64().expect("a revision");
    let stale = json!({ "if_revision": revision - 1 });
    refused(&daemon, "/api/projections/tally/resume", stale, 409, "revision_changed").await;
    let again = done(&daemon, "/api/projections/tally/pause", json!({})).await;
    assert_eq!(again["changed"], false);
    done(&daemon, "/api/projections/tally@1/resume", json!({ "if_revision": revision })).await;
    world.caught_up("tally").await;

    let log = daemon.read("/api/log?projection=tally").await;
    assert_eq!((&log[0]["verb"], &log[0]["who"]), (&json!("resume"), &json!("http")), "{log}");
    assert_eq!((&log[1]["who"], &log[1]["why"]), (&json!("day shift"), &json!("tables move")), "{log}");
    refused(&daemon, "/api/projections/nobody/pause", json!({}), 404, "unknown_projection").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_version_is_built_anew_as_wished_over_http() {
    let (world, daemon) = faced().await;
    refused(&daemon, "/api/projections/tally/cutover", json!({}), 409, "not_selectable").await;
    refused(&daemon, "/api/projections/tally/rollback", json!({}), 409, "not_selectable").await;
    let wished = done(&daemon, "/api/projections/tally/rebuild", json!({ "by": "day shift" })).await;
    assert_eq!(wished["wished"], "rebuild", "{wished}");
    world
        .eventually("the version before is kept", async || {
            let status = daemon.read("/api/status").await;
            let roles = status["projections"].as_array().cloned().unwrap_or_default();
            roles.len() == 2
                && roles.iter().any(|one| one["role"] == "previous")
                && roles.iter().any(|one| one["role"] == "live" && one["phase"] == "live")
        })
        .await;
    done(&daemon, "/api/projections/tally/rollback", json!({})).await;
    let log = daemon.read("/api/log").await;
    assert!(log.to_string().contains("\"rollback\"") && log.to_string().contains("\"day shift\""), "{log}");
}

#[tokio::test]
async fn a_refused_verb_holds_up_nobody() {
    let (world, daemon) = faced().await;
    refused(&daemon, "/api/projections/tally/pause", json!({ "if_revision": 99 }), 409, "revision_changed")
        .await;
    // Whoever left a lock behind would be seen here.
    let held =
        "select count(*) from pg_stat_activity where application_name = 'foldd faces' and state <> 'idle'
                and datname = current_database()";
    world.eventually("no transaction of the faces is open", async || world.value(held).await == "0").await;
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
}

#[tokio::test]
async fn without_a_token_nothing_is_written() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    refused(&daemon, "/api/projections/tally/pause", json!({}), 404, "verbs_off").await;
    assert_eq!(world.value("select count(*) from es_operator_log").await, "0");
}

#[tokio::test]
async fn a_rotated_token_counts_at_once() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let file = world.dir().join("token");
    std::fs::write(&file, "the-first-token-of-two\n").expect("a file can be written");
    world.configure("token_file = \"token\"");
    let daemon = world.daemon();
    world.caught_up("tally").await;
    let pause = async |token: &str| daemon.post("/api/projections/tally/pause", token, &json!({})).await;
    assert_eq!(pause("the-first-token-of-two").await.0, 200);
    std::fs::write(&file, "the-second-token-of-two").expect("a file can be written");
    assert_eq!(pause("the-first-token-of-two").await.1["error"]["code"], "wrong_token");
    assert_eq!(pause("the-second-token-of-two").await.0, 200);
    std::fs::write(&file, "").expect("a file can be written");
    assert_eq!(pause("").await.1["error"]["code"], "token_unreadable");
    let configuration = daemon.get("/api/config").await.1;
    assert!(!configuration.contains("-token-of-two"), "{configuration}");
    assert!(!daemon.log().contains("-token-of-two"), "{}", daemon.log());
}

#[tokio::test]
async fn parked_events_are_listed_shown_retried_and_discarded() {
    let world = World::new().await;
    world.configure(&format!("token = \"{TOKEN}\""));
    world.projection("picky", PICKY);
    for (stream, data) in [
        ("order-1", "{\"amount\": 1}"),
        ("order-2", "{\"amount\": \"<b>many</b>\"}"),
        ("order-2", "{\"amount\": 2}"),
    ] {
        world.append(stream, "Placed", data).await;
    }
    let daemon = world.daemon();
    world
        .eventually("two are parked", async || daemon.read("/api/dead-letters").await["there_are"] == 2)
        .await;
    let listed = daemon.read("/api/dead-letters?projection=picky&stream=order-2&limit=1").await;
    assert_eq!(
        (&listed["there_are"], &listed["letters"][0]["reason"]),
        (&json!(2), &json!("failed")),
        "{listed}"
    );
    let position = listed["letters"][0]["position"].as_i64().expect("a position");
    let shown = daemon.read(&format!("/api/projections/picky/dead-letters/{position}")).await;
    assert_eq!(shown["data"]["amount"], "<b>many</b>", "{shown}");

    let retry = "/api/projections/picky/retry";
    refused(&daemon, retry, json!({ "positions": [position + 1] }), 409, "not_selectable").await;
    refused(&daemon, retry, json!({ "all": true, "stream": "order-2" }), 400, "bad_request").await;
    let discarded = done(
        &daemon,
        "/api/projections/picky/discard",
        json!({ "positions": [position], "by": "day shift" }),
    )
    .await;
    assert_eq!(discarded["discarded"], json!([position]), "{discarded}");
    done(&daemon, retry, json!({ "stream": "order-2" })).await;
    world
        .eventually("the other one is applied", async || {
            daemon.read("/api/dead-letters").await["there_are"] == 0
        })
        .await;
    assert_eq!(world.value("select sum(amount) from picky.seen").await, "3");
    assert_eq!(daemon.read("/api/dead-letters?state=discarded").await["there_are"], 1);
}

#[tokio::test]
async fn one_projection_has_its_definition_and_its_last_hour() {
    let (_world, daemon) = faced().await;
    let one = daemon.read("/api/projections/tally").await;
    assert_eq!((&one["name"], &one["versions"][0]["phase"]), (&json!("tally"), &json!("live")), "{one}");
    let definition = one["definitions"][0]["definition"].to_string();
    assert!(definition.contains("tally.sql"), "{one}");
    let series = &one["history"]["projections"]["tally@1"];
    for name in ["position", "lag_events", "events_per_second", "batch_seconds"] {
        assert!(series[name].is_array(), "{name}: {one}");
    }
    assert_eq!(daemon.get("/api/projections/nobody").await.0, 404);
    let values = daemon.read("/api/config").await;
    assert_eq!(values["verbs"], true);
    assert!(!values.to_string().contains(TOKEN));
    assert!(values.to_string().contains("daemon.workers"));
}

#[tokio::test]
async fn a_stream_tells_what_happens_and_ends_with_the_daemon() {
    let (world, daemon) = faced().await;
    let address = daemon.address().await;
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("the port is open");
    let request = format!("GET /api/stream HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut lines = BufReader::new(stream).lines();
    world.append("order-9", "Placed", "{}").await;
    let is_news = |line: &str| line.starts_with("data: ") && line.contains("\"head_position\":2");
    loop {
        let line = lines.next_line().await.expect("it can be read").expect("it does not end");
        if is_news(&line) {
            break;
        }
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
    while let Ok(Some(_)) = lines.next_line().await {}
}
