//! The first minute: `foldd demo` without browser, terminal or database.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::world::{PATIENCE, World};

#[tokio::test]
async fn the_demo_shows_projections_and_leaves_nothing_behind() {
    let world = World::bare().await;
    // Somebody else has the port: the demo takes a free one and says which.
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = taken.local_addr().expect("it has an address").port();
    std::fs::write(world.dir().join("foldd.toml"), format!("[ops]\nlisten = \"127.0.0.1:{port}\"\n"))
        .expect("a file can be written");
    let done = world.foldd(&["demo", "--for", "15s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    for part in [
        "http://127.0.0.1:",
        "DATABASE_URL=",
        "couriers live",
        "parcels live",
        "traffic live",
        "each was folded",
    ] {
        assert!(done.out.contains(part), "no {part:?} in {}", done.out);
    }
    assert!(!done.out.contains(&format!(":{port}/")), "{}", done.out);
    let folder =
        done.out.split("host=").nth(1).and_then(|rest| rest.split('\'').next()).expect("a folder is named");
    assert!(!std::path::Path::new(folder).exists(), "{folder} is left");
}

#[tokio::test]
async fn run_without_a_database_says_what_to_do() {
    let world = World::bare().await;
    let mut command = world.command(&["run"]);
    let done =
        tokio::task::spawn_blocking(move || command.env_remove("DATABASE_URL").stdin(Stdio::null()).output());
    let output = tokio::time::timeout(PATIENCE, done)
        .await
        .expect("it ends")
        .expect("its thread ends")
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("DATABASE_URL") && said.contains("--embedded"), "{said}");
}

/// The tool that knows what Prometheus takes, where it is installed.
#[tokio::test]
async fn prometheus_own_checker_takes_the_metrics() {
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    if Command::new(&promtool).arg("--version").output().is_err() {
        eprintln!("skipped: promtool is not installed, and PROMTOOL does not name it");
        return;
    }
    let world = World::new().await;
    world.projection("tally", crate::fold::TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    let (_, metrics) = daemon.get("/metrics").await;
    let path = world.dir().join("metrics.txt");
    std::fs::write(&path, metrics).expect("a file can be written");
    let text = std::fs::File::open(&path).expect("it can be read");
    let checked = Command::new(promtool).args(["check", "metrics"]).stdin(text).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
}
