//! `foldd resume`: a projection that is paused or halted goes on where it stood.

use std::time::Duration;

use tokio::time::Instant;

use super::args::Resume;
use super::{Failure, connect, print, print_json};
use crate::config::Loaded;
use crate::ledger::wishes::{self, Standing, stands_still};

/// A phase is published once a second. One that is still the old one so long after the lease was taken anew is new.
const SETTLED: Duration = Duration::from_secs(3);

/// Carries the verb out.
pub(crate) async fn run(args: &Resume, loaded: &Loaded) -> Result<(), Failure> {
    let deed = &args.deed;
    let mut conn = connect(loaded).await?;
    let id = wishes::named(&mut conn, &args.name).await?;
    // From before, so that a daemon that is quicker than we are is noticed.
    let fence_token = wishes::standing(&mut conn, &id).await?.map(|before| before.fence_token);
    let done = wishes::resume(&mut conn, &id, &deed.signature(loaded)).await?;
    let (id, mut phase) = (&done.id, done.phase.clone());
    let mut outcome = Ok(());
    let mut text = format!("{id} is neither paused nor halted but {phase}; there is nothing to do");
    if done.changed {
        let mut taken: Option<Instant> = None;
        let mut last = None;
        let seen = deed
            .wait_for(async || {
                last = wishes::standing(&mut conn, id).await?;
                let Some(now) = &last else { return Ok(None) };
                if Some(now.fence_token) != fence_token {
                    taken.get_or_insert_with(Instant::now);
                }
                let moved_on = now.held && !stands_still(&now.phase);
                let stopped_again = taken.is_some_and(|taken| taken.elapsed() >= SETTLED);
                Ok((moved_on || stopped_again).then(|| now.clone()))
            })
            .await?;
        if let Some(now) = seen.as_ref().or(last.as_ref()) {
            phase.clone_from(&now.phase);
        }
        match seen {
            Some(now) if !stands_still(&now.phase) => {
                text = format!("{id} goes on; `foldd status` shows how it does");
            }
            Some(now) => outcome = Err(Failure::Failed(again(id, &now))),
            None => outcome = Err(Failure::NotMet(unseen(id, &deed.patience(), last.as_ref()))),
        }
    }
    if deed.json {
        print_json(&serde_json::json!({
            "projection": id, "changed": done.changed, "revision": done.revision, "phase": phase,
        }))?;
    } else if outcome.is_ok() {
        print(&text)?;
    }
    outcome
}

fn again(id: &str, now: &Standing) -> String {
    match (&*now.phase, &now.message) {
        ("halted", Some(message)) => {
            format!("{id} was resumed and halted again: {message}; `foldd status` says what to do")
        }
        ("halted", None) => format!("{id} was resumed and halted again; `foldd status` says why"),
        (phase, _) => format!("{id} was resumed and is {phase} again; `foldd log {id}` says by whom"),
    }
}

fn unseen(id: &str, patience: &impl std::fmt::Display, last: Option<&Standing>) -> String {
    if last.is_some_and(|last| !last.daemon_runs) {
        return format!("{id} may go on, and no daemon is running; it goes on when `foldd run` does");
    }
    format!(
        "{id} may go on, and did not within {patience}; it does as soon as a daemon takes it up; `foldd status` shows it"
    )
}
