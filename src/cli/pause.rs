//! `foldd pause`: a projection stands still until it is resumed.

use super::args::Pause;
use super::{Failure, connect, print, print_json};
use crate::config::Loaded;
use crate::ledger::wishes;

/// Carries the verb out. There is nothing to wait for: from the commit on every batch is refused.
pub(crate) async fn run(args: &Pause, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect(loaded).await?;
    let done = wishes::pause(&mut conn, &args.name, &args.deed.signature(loaded)).await?;
    if args.deed.json {
        return print_json(&serde_json::json!({
            "projection": done.id, "changed": done.changed, "revision": done.revision, "phase": "paused",
        }));
    }
    let id = &done.id;
    print(&if done.changed {
        format!("{id} is paused: no batch of it commits any more; `foldd resume {id}` lets it go on")
    } else {
        format!("{id} was paused already; `foldd log {id}` says by whom, `foldd resume {id}` lets it go on")
    })
}
