//! The examples do what they say.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::world::World;

/// Cargo builds the examples beside this test's own folder.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its path");
    let target = test.parent().and_then(|deps| deps.parent()).expect("it lies in a target folder");
    target.join("examples").join(name)
}

#[test]
fn the_examples_that_end_end_well() {
    for (name, says) in
        [("aggregates", "a refused one: account-2 has 750"), ("in_a_service", "ada has placed 2")]
    {
        let output = Command::new(example(name))
            .stdin(Stdio::null())
            .output()
            .expect("the example is built: cargo build --examples");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(says), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_binary_of_ones_own_has_the_whole_command_line_and_folds_in_rust() {
    let world = World::new().await;
    world.configure("");
    let mut daemon = Command::new(example("own_daemon"))
        .arg("run")
        .current_dir(world.dir())
        .env("DATABASE_URL", world.url())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the example is built: cargo build --examples");
    world.append("account-7", "Deposited", r#"{"type": "Deposited", "cents": 1200}"#).await;
    world.append("account-7", "Withdrawn", r#"{"type": "Withdrawn", "cents": 500}"#).await;
    world.caught_up("balances").await;
    assert_eq!(world.value("select cents from balances.balance where account = 'account-7'").await, "700");
    daemon.kill().expect("it can be killed");
    daemon.wait().expect("it ends");
}
