//! Waiting over HTTP, one and a thousand.

use std::time::Instant;

use serde_json::Value;
use tokio::task::JoinSet;

use super::faced;
use crate::world::listen::send;

async fn wait(address: &str, query: &str) -> (u16, Value) {
    let path = format!("/api/projections/tally/wait?{query}");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = send(address, request.as_bytes()).await;
    (answer.code, serde_json::from_str(&answer.body).unwrap_or_default())
}

#[tokio::test]
async fn a_wait_ends_when_the_event_is_applied_and_says_where() {
    let (world, daemon) = faced().await;
    let address = daemon.address().await;
    let (code, answer) = wait(&address, "caught_up=true").await;
    assert_eq!((code, &answer["reached"]), (200, &Value::Bool(true)), "{answer}");
    let cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    assert_eq!(wait(&address, &format!("cursor={cursor}")).await.0, 200);
    assert_eq!(wait(&address, "position=1").await.1["cursor"], cursor);

    let append = async {
        world.append("order-1", "Placed", "{}").await;
    };
    let (second, ()) = tokio::join!(wait(&address, "position=2&timeout=60s"), append);
    assert_eq!(second.0, 200, "{}", second.1);
    let not_there = wait(&address, "position=99&timeout=50ms").await;
    assert_eq!((not_there.0, &not_there.1["error"]["code"]), (409, &"not_reached".into()));
    for wrong in [
        "",
        "position=1&caught_up=true",
        "position=-1",
        "cursor=7",
        "timeout=1h&position=1",
        "position=x",
        "x=1",
    ] {
        let (code, answer) = wait(&address, wrong).await;
        assert_eq!((code, &answer["error"]["code"]), (400, &"bad_request".into()), "{wrong}: {answer}");
    }
    let nobody = daemon.get("/api/projections/nobody/wait?position=1").await;
    assert_eq!(nobody.0, 404, "{}", nobody.1);
}

#[tokio::test]
async fn an_event_of_somebody_else_is_reached_without_being_applied() {
    let (world, daemon) = faced().await;
    world.append("parcel-1", "Sent", "{}").await;
    let (code, answer) = wait(&daemon.address().await, "position=2&timeout=60s").await;
    assert_eq!(code, 200, "{answer}");
}

/// Rises with every transaction in this database.
const COMMITS: &str =
    "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";

#[tokio::test]
async fn a_thousand_who_wait_cost_one_connection_and_one_look() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    if maximum.is_some_and(|files| files < 4096) {
        eprintln!("skipped: this user may not open 4096 files");
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("what is allowed can be set");
    let (world, daemon) = faced().await;
    let address = daemon.address().await;
    let before: u64 = world.value(COMMITS).await.parse().expect("a number");
    let began = Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..1000 {
        let address = address.clone();
        waiting.spawn(async move { wait(&address, "position=3&timeout=10min").await });
    }
    // The port takes them all: there is still an answer for whoever scrapes and probes.
    assert_eq!(daemon.get("/livez").await.0, 200);
    let sessions = "select count(*) from pg_stat_activity
                    where application_name = 'foldd faces' and datname = current_database()";
    world.eventually("somebody looks for them", async || world.value(sessions).await == "1").await;
    world.append("order-1", "Placed", "{}").await;
    world.append("order-1", "Placed", "{}").await;
    while let Some(answer) = waiting.join_next().await {
        let (code, answer) = answer.expect("no panic");
        assert_eq!(code, 200, "{answer}");
    }
    let took = began.elapsed().as_secs_f64();
    let commits = world.value(COMMITS).await.parse::<u64>().expect("a number") - before;
    // A look is four statements at most and there are fifty a second at most; the daemon itself and this test have less
    // than two hundred. A statement for each who waits would be fifty thousand a second.
    assert!((commits as f64) < 400.0 * took + 1000.0, "{commits} transactions in {took} s");
}
