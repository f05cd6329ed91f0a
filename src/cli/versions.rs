//! `foldd rebuild`, `cutover`, `rollback`, `cancel` and `retire`: wishes about versions, which a daemon carries out.

use super::args::Deed;
use super::{Failure, connect, print, print_json};
use crate::config::Loaded;
use crate::ledger::versions::{self, Standing, Verb};

/// Enters the wish and waits for a daemon to carry it out.
pub(crate) async fn run(verb: Verb, name: &str, deed: &Deed, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect(loaded).await?;
    let wished = versions::wish(&mut conn, verb, name, &deed.signature(loaded)).await?;
    let mut last = None;
    let done = deed
        .wait_for(async || {
            last = versions::standing(&mut conn, &wished.id).await?;
            Ok(last.as_ref().is_none_or(|standing| !standing.open).then_some(()))
        })
        .await?
        .is_some();
    let waiting_for = last.as_ref().filter(|_| !done).map(waits);
    if deed.json {
        print_json(&serde_json::json!({
            "projection": wished.id, "verb": verb.as_str(), "revision": wished.revision, "done": done,
            "waiting_for": waiting_for,
        }))?;
    }
    match waiting_for {
        Some(reason) => Err(Failure::NotMet(format!(
            "{} of {} is recorded and goes on being tried; it waits for {reason}",
            verb.as_str(),
            wished.id
        ))),
        None if deed.json => Ok(()),
        None => print(&told(verb, &wished.id)),
    }
}

fn waits(standing: &Standing) -> String {
    match &standing.waiting_for {
        _ if !standing.daemon_runs => "a daemon: none is running; start one with `foldd run`".to_owned(),
        Some(reason) => reason.clone(),
        None => "a daemon to take it up; `foldd status` shows which are running".to_owned(),
    }
}

fn told(verb: Verb, id: &str) -> String {
    match verb {
        Verb::Rebuild => {
            format!("{id} is built anew beside itself; `foldd status --watch` shows how far it is")
        }
        Verb::Cutover | Verb::Rollback => {
            format!("{id} is live; the version before is kept beside it for a rollback")
        }
        Verb::Cancel => format!("the build of {id} is given up, and its tables are dropped"),
        Verb::Retire => format!("{id} is retired: its tables and checkpoints are dropped"),
    }
}
