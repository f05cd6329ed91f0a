//! `foldd wait`: read your own writes, or hold a deploy until a projection has caught up.

use std::time::Duration;

use tokio::time::Instant;

use super::args::{Until, Wait};
use super::{Failure, connect_to_look, print, print_json};
use crate::config::Loaded;
use crate::cursor::Cursor;
use crate::ledger::reached::progress;
use crate::store::{self, Link};

/// The pauses between two looks: short at first, since most waits are for a write of a moment ago.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// Carries the verb out.
pub(crate) async fn run(args: &Wait, loaded: &Loaded) -> Result<(), Failure> {
    let started = Instant::now();
    let deadline = started + args.timeout;
    let mut conn = connect_to_look(loaded).await?;
    let until = args.until();
    let waited = tokio::time::timeout_at(deadline, wait(&mut conn, &args.name, until)).await;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let reached = matches!(waited, Ok(Ok(_)));
        let cursor = if let Ok(Ok(cursor)) = &waited { Some(cursor.to_string()) } else { None };
        print_json(&serde_json::json!({ "reached": reached, "cursor": cursor, "waited_seconds": seconds }))?;
    }
    match waited {
        Ok(Ok(_)) if args.json => Ok(()),
        Ok(Ok(cursor)) => print(&format!("{} has reached {cursor} ({seconds:.3} s)", args.name)),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::NotMet(format!(
            "{} did not get there within {}; `foldd status` says what it does",
            args.name,
            humantime::format_duration(args.timeout)
        ))),
    }
}

async fn wait(conn: &mut Link<'_>, name: &str, until: Until) -> Result<Cursor, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut target = match until {
        Until::Cursor(cursor) => Some(cursor),
        Until::CaughtUp => Some(store::head(conn).await?),
        Until::Position(_) => None,
    };
    loop {
        if let (None, Until::Position(position)) = (target, until) {
            // A position that is drawn and not committed yet has no cursor yet.
            target = store::cursors_of(conn, &[position]).await?.remove(&position);
        }
        if let Some(cursor) = target {
            match progress(conn, &[name.to_owned()]).await?.get(name) {
                Some(progress) if progress.has_reached(cursor) => return Ok(cursor),
                Some(_) => {}
                None => {
                    return Err(Failure::Failed(format!(
                        "there is no projection '{name}'; `foldd status` lists them"
                    )));
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
