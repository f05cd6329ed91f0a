//! What operators and scripts ask: `wait`, `lag`, `status`.

use serde_json::Value;

use crate::fold::TALLY;
use crate::world::World;

#[tokio::test]
async fn wait_ends_with_zero_when_it_is_so_and_with_three_when_time_runs_out() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    let appended = world.foldd(&["append", "order-1", "Placed", "{}", "--json"]).await;
    let appended: Value = serde_json::from_str(&appended.out).expect("it is JSON");
    let cursor = appended["cursor"].as_str().expect("it has a cursor").to_owned();
    let position = appended["position"].to_string();
    for until in [vec!["--position", &position], vec!["--cursor", &cursor], vec!["--caught-up"]] {
        let done = world.foldd(&[&["wait", "tally"], until.as_slice()].concat()).await;
        assert_eq!(done.code, 0, "{until:?}: {done:?}");
    }
    assert_eq!(world.rows("tally.tally").await, ["(Placed,1)"], "what was waited for is there");
    // An event of somebody else's category is passed without being applied.
    let other = world.foldd(&["append", "other-1", "Placed", "{}", "--json"]).await;
    let other: Value = serde_json::from_str(&other.out).expect("it is JSON");
    let done = world.foldd(&["wait", "tally", "--position", &other["position"].to_string()]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let never = world.foldd(&["wait", "tally", "--position", "1000000", "--timeout", "200ms"]).await;
    assert_eq!(never.code, 3, "{never:?}");
    let unknown = world.foldd(&["wait", "nobody", "--caught-up", "--timeout", "30s"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    daemon.stop().await;
    let after = world.foldd(&["append", "order-1", "Placed", "{}", "--json"]).await;
    let after: Value = serde_json::from_str(&after.out).expect("it is JSON");
    let (cursor, position) =
        (after["cursor"].as_str().expect("it has a cursor"), after["position"].to_string());
    for until in [vec!["--position", &position], vec!["--cursor", cursor], vec!["--caught-up"]] {
        let done = world.foldd(&[&["wait", "tally", "--timeout", "200ms"], until.as_slice()].concat()).await;
        assert_eq!(done.code, 3, "nobody folds: {until:?}: {done:?}");
    }
}

#[tokio::test]
async fn lag_counts_exactly_and_fails_above_a_limit() {
    // Alone: lag counts up to the horizon, which others would hold.
    let world = World::alone().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    daemon.stop().await;
    world.seed("order", 12).await;
    world.seed("other", 5).await;
    let done = world.foldd(&["lag", "--json"]).await;
    let lag: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((done.code, &lag[0]["lag_events"]), (0, &Value::from(12)), "{lag}");
    assert!(lag[0]["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{lag}");
    for (limit, code) in [("11", 3), ("12", 0), ("0", 3)] {
        let done = world.foldd(&["lag", "tally", "--fail-above", limit]).await;
        assert_eq!(done.code, code, "{limit}: {done:?}");
    }
    assert_eq!(world.foldd(&["lag", "nobody"]).await.code, 1);
    let _daemon = world.daemon();
    world.caught_up("tally").await;
    assert_eq!(world.foldd(&["lag", "--fail-above", "0"]).await.code, 0);
}

/// The names of a JSON object's fields, sorted.
fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Compares with the contract, whose names are written here in the order in which it has them.
fn assert_fields(object: &Value, contract: &str) {
    let mut expected: Vec<_> = contract.split(' ').collect();
    expected.sort_unstable();
    assert_eq!(fields(object), expected, "{object}");
}

#[tokio::test]
async fn status_has_the_fields_of_the_contract_and_no_others() {
    let world = World::alone().await;
    world.projection("tally", TALLY);
    world.projection("halting", &TALLY.replace("count(*) from batch", "count(*) / 0 from batch"));
    let daemon = world.daemon();
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("tally").await;
    world.append("order-1", "Placed", "{}").await;
    world.halted("halting").await;
    world.phase("tally", "live").await;
    // Somebody holds the horizon for longer than a moment.
    let mut blocker = world.pool().begin().await.expect("a transaction begins");
    sqlx::query("select pg_current_xact_id()").execute(&mut *blocker).await.expect("it gets an xid");
    world
        .eventually("the blocker is named", async || {
            let done = world.foldd(&["status", "--json"]).await;
            serde_json::from_str::<Value>(&done.out).is_ok_and(|status| {
                status["store"]["blockers"].as_array().is_some_and(|blockers| !blockers.is_empty())
            })
        })
        .await;
    let done = world.foldd(&["status", "--json"]).await;
    let (_, served) = daemon.get("/api/status").await;
    for text in [done.out, served] {
        let status: Value = serde_json::from_str(&text).expect("it is JSON");
        assert_fields(&status, "concerns store projections replicas");
        assert_fields(&status["concerns"][0], "event gravity kind message place projection remedy verbs");
        assert_fields(
            &status["store"],
            "head_position horizon horizon_age_seconds tier tier_reason blockers",
        );
        assert!(status["store"]["horizon"].is_string());
        let blocker = fields(&status["store"]["blockers"][0]);
        for name in "cause pid gid database user application state age_seconds holds".split(' ') {
            assert!(blocker.contains(&name), "no {name} in {status}");
        }
        let projections = status["projections"].as_array().expect("a list");
        assert_eq!(projections.len(), 2);
        for projection in projections {
            assert_fields(
                projection,
                "name version role phase lag_events lag_seconds withheld_events events_per_second dead_letters \
                 revision error build partitions",
            );
            assert_fields(&projection["partitions"][0], "partition holder checkpoint");
            assert_fields(&projection["partitions"][0]["checkpoint"], "transaction_id position");
            assert!(projection["partitions"][0]["checkpoint"]["transaction_id"].is_string());
        }
        assert_fields(&projections[0]["build"], "done total events_per_second eta_seconds waiting_for");
        assert_eq!(
            (&projections[0]["name"], &projections[0]["role"]),
            (&"halting".into(), &"building".into())
        );
        assert_eq!((&projections[1]["name"], &projections[1]["role"]), (&"tally".into(), &"live".into()));
        assert!(projections[1]["build"].is_null());
        assert_fields(&status["replicas"][0], "id host started_at heartbeat_at leases draining");
        assert_eq!(status["replicas"][0]["leases"], 2);
    }
}
