//! What people and programs meet: verbs over HTTP, waiting, the page in a browser, the terminal.
//!
//! What may go wrong here is a write without the token, an answer that is a server's error for what a client sent, a client
//! that holds up the projections, and a text from an event that does something instead of being shown.

mod browser;
mod fuzz;
mod http;
mod page;
mod terminal;
mod trial;
mod waits;

use serde_json::{Value, json};

use crate::fold::TALLY;
use crate::world::{Daemon, World};

/// The token of every daemon here.
const TOKEN: &str = "correct-horse-battery-staple";

/// A world whose daemon has folded one event into `tally`, and takes verbs.
async fn faced() -> (World, Daemon) {
    let world = World::new().await;
    world.configure(&format!("token = \"{TOKEN}\""));
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.phase("tally", "live").await;
    (world, daemon)
}

/// Carries out a verb that must succeed.
async fn done(daemon: &Daemon, path: &str, body: Value) -> Value {
    let (code, answer) = daemon.post(path, TOKEN, &body).await;
    assert_eq!(code, 200, "{path}: {answer}");
    answer
}

/// Asks for a verb that must be refused.
async fn refused(daemon: &Daemon, path: &str, body: Value, code: u16, name: &str) {
    let (answered, answer) = daemon.post(path, TOKEN, &body).await;
    assert_eq!((answered, &answer["error"]["code"]), (code, &json!(name)), "{path}: {answer}");
    assert!(answer["error"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{answer}");
}
