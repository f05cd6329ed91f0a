//! The examples do what they say.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::world::World;

/// Cargo builds the examples beside this test's own folder: all of them for `cargo test`, none for a single
/// test.
pub(crate) fn example(name: &str) -> PathBuf {
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
    let daemon = world.daemon_of(world.command_of(&example("own_daemon"), &["run"]));
    world.append("account-7", "Deposited", r#"{"type": "Deposited", "cents": 1200}"#).await;
    world.append("account-7", "Withdrawn", r#"{"type": "Withdrawn", "cents": 500}"#).await;
    world.caught_up("balances").await;
    assert_eq!(world.value("select cents from balances.balance where account = 'account-7'").await, "700");
    assert_eq!(daemon.stop().await.code(), Some(0));
}
