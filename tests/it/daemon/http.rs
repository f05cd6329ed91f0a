//! The HTTP port of a running daemon.

use serde_json::Value;

use crate::fold::{IMPATIENT, TALLY};
use crate::world::World;

/// The value of one sample in Prometheus' text format: its line begins with the name and has all of these labels.
fn sample(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = metrics.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn a_daemon_is_alive_ready_and_measured() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.seed("order", 20).await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.phase("tally", "live").await;
    assert_eq!(daemon.get("/livez").await, (200, "ok\n".to_owned()));
    let (code, body) = daemon.get("/readyz").await;
    assert_eq!(code, 200, "{body}");
    let (code, body) = daemon.get("/api/status").await;
    let status: Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!((code, &status["store"]["head_position"]), (200, &Value::from(20)));
    assert_eq!(status["projections"][0]["phase"], "live");
    let of_tally = ["projection=\"tally\"", "version=\"1\"", "partition=\"0\""];
    world
        .eventually("the metrics are up to date", async || {
            let (_, metrics) = daemon.get("/metrics").await;
            let value = |name| sample(&metrics, name, &of_tally);
            value("foldd_lag_events") == Some(0.0)
                && value("foldd_lag_seconds") == Some(0.0)
                && value("foldd_events_applied_total") == Some(20.0)
                && value("foldd_position") == Some(20.0)
                && value("foldd_lease_held") == Some(1.0)
                && sample(&metrics, "foldd_phase", &["projection=\"tally\"", "phase=\"live\""]) == Some(1.0)
                && sample(&metrics, "foldd_phase", &["projection=\"tally\"", "phase=\"halted\""]) == Some(0.0)
                && sample(&metrics, "foldd_head_position", &[]) == Some(20.0)
                && sample(&metrics, "foldd_build_info", &["version="]) == Some(1.0)
        })
        .await;
    assert_eq!(daemon.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn the_lag_metric_is_what_foldd_lag_counts() {
    let world = World::alone().await;
    world.projection("halting", &TALLY.replace("count(*) from batch", "count(*) / 0 from batch"));
    world.seed("order", 30).await;
    let daemon = world.daemon();
    world.halted("halting").await;
    world.seed("order", 11).await;
    world.seed("other", 7).await;
    let done = world.foldd(&["lag", "--json"]).await;
    let counted: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!(counted[0]["lag_events"], 41);
    world
        .eventually("the metric and the status say the same", async || {
            let (_, metrics) = daemon.get("/metrics").await;
            let seconds = sample(&metrics, "foldd_lag_seconds", &["projection=\"halting\""]);
            sample(&metrics, "foldd_lag_events", &["projection=\"halting\""]) == Some(41.0)
                && seconds.is_some_and(|seconds| seconds > 0.0)
                && world.status("halting").await["lag_events"] == 41
        })
        .await;
}

#[tokio::test]
async fn what_is_stuck_when_a_daemon_takes_it_over_is_counted_all_the_same() {
    let world = World::alone().await;
    world.projection("tally", TALLY);
    world.seed("order", 30).await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    // Before the lock, whose transaction would hold the horizon below them, so that the very first page is stuck.
    world.seed("order", 12).await;
    let mut holder = world.pool().begin().await.expect("a transaction begins");
    sqlx::query("lock table tally.tally in access exclusive mode")
        .execute(&mut *holder)
        .await
        .expect("it is free");
    let daemon = world.daemon_with(&IMPATIENT);
    world.phase("tally", "backing_off").await;
    world
        .eventually("its lag is told", async || {
            let (_, metrics) = daemon.get("/metrics").await;
            let seconds = sample(&metrics, "foldd_lag_seconds", &["projection=\"tally\""]);
            sample(&metrics, "foldd_lag_events", &["projection=\"tally\""]) == Some(12.0)
                && seconds.is_some_and(|seconds| seconds > 0.0)
        })
        .await;
    holder.rollback().await.expect("it ends");
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}
