//! What operators do, and that it is written down.
//!
//! What may go wrong here is a batch that commits after a pause, two operators of whom the second undoes what the first
//! one did without having seen it, and a wish that is in force without standing in the log.

mod letters;
mod log;
mod standing;

use serde_json::Value;

use crate::fold::TALLY;
use crate::world::{Daemon, Done, World};

/// A world whose daemon has folded one event into `tally`.
async fn folding() -> (World, Daemon) {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.phase("tally", "live").await;
    (world, daemon)
}

/// As [`folding`], after the daemon has stopped.
async fn folded() -> World {
    let (world, daemon) = folding().await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    world
}

/// What a verb printed with `--json`.
fn json(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

/// Runs a verb that must do what is asked, and returns what it printed.
async fn ok(world: &World, args: &[&str]) -> String {
    let done = world.foldd(args).await;
    assert_eq!(done.code, 0, "{args:?}: {done:?}");
    done.out
}

/// Runs a verb that must refuse, and returns why.
async fn refused(world: &World, code: i32, args: &[&str]) -> String {
    let done = world.foldd(args).await;
    assert_eq!(done.code, code, "{args:?}: {done:?}");
    done.err
}
