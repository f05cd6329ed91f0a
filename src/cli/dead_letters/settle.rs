//! `foldd dead-letters retry` and `discard`: what an operator decides about parked events.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cli::args::{Chosen, SettleLetters};
use crate::cli::{Failure, connect, print, print_json};
use crate::config::Loaded;
use crate::ledger::dead_letters::{self, Filter, Letter, Selected, Settled};
use crate::ledger::phases::Trouble;
use crate::ledger::wishes;
use crate::store::Link;

/// More streams are counted and not named.
const NAMED: usize = 20;

/// What became of one stream's letters.
#[derive(Debug, Serialize)]
struct StreamOutcome {
    stream_id: String,
    applied: usize,
    failed: Vec<FailedAgain>,
    /// Not applied and not failed: they wait behind one that did.
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct FailedAgain {
    position: i64,
    event_type: String,
    error: Option<Trouble>,
}

/// Marks letters and waits until the daemon has tried them.
pub(super) async fn retry(args: &SettleLetters, loaded: &Loaded) -> Result<(), Failure> {
    let deed = &args.deed;
    let mut conn = connect(loaded).await?;
    let filter = filter(&args.chosen);
    let settled = dead_letters::want_retry(&mut conn, &args.name, &filter, &deed.signature(loaded)).await?;
    let (id, letters) = (&settled.id, &settled.letters);
    let positions: Vec<i64> = letters.iter().map(|letter| letter.position).collect();
    let tried = deed
        .wait_for(async || {
            let waits = dead_letters::is_wanted(&mut conn, id, &positions).await?;
            Ok((!waits).then_some(()))
        })
        .await?;
    let left = dead_letters::still_open(&mut conn, id, &positions).await?;
    let streams = outcomes(letters, &left);
    if deed.json {
        print_json(&serde_json::json!({
            "projection": id, "revision": settled.revision, "selected": letters.len(),
            "done": tried.is_some(), "streams": streams,
        }))?;
    }
    let applied: usize = streams.iter().map(|stream| stream.applied).sum();
    if tried.is_none() {
        let done =
            format!("{applied} of {} events of {id} are applied within {}", letters.len(), deed.patience());
        return Err(Failure::NotMet(format!("{done}; {}", still_to_come(&mut conn, id).await?)));
    }
    if !deed.json {
        print(&render(id, &streams))?;
    }
    let failed: usize = streams.iter().map(|stream| stream.failed.len()).sum();
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} failed again; mend what `foldd dead-letters list {id}` says and retry, or discard them",
        events(failed)
    )))
}

/// Why it has not happened yet.
async fn still_to_come(conn: &mut Link<'_>, id: &str) -> Result<String, Failure> {
    let Some(now) = wishes::standing(conn, id).await? else { return Ok("the projection is gone".to_owned()) };
    Ok(if !now.daemon_runs {
        "no daemon is running: what is left is retried when `foldd run` does".to_owned()
    } else if wishes::stands_still(&now.phase) {
        format!("it is {}: what is left is retried after `foldd resume {id}`", now.phase)
    } else {
        format!("what is left is retried all the same; `foldd dead-letters list {id}` shows it")
    })
}

fn outcomes(selected: &[Selected], left: &[Letter]) -> Vec<StreamOutcome> {
    let attempts: BTreeMap<i64, i32> =
        selected.iter().map(|letter| (letter.position, letter.attempts)).collect();
    let mut streams: BTreeMap<&str, StreamOutcome> = BTreeMap::new();
    for letter in selected {
        let stream = streams.entry(&letter.stream_id).or_insert_with(|| StreamOutcome {
            stream_id: letter.stream_id.clone(),
            applied: 0,
            failed: Vec::new(),
            waiting: 0,
        });
        stream.applied += 1;
    }
    for letter in left {
        let Some(stream) = streams.get_mut(letter.stream_id.as_str()) else { continue };
        stream.applied = stream.applied.saturating_sub(1);
        if attempts.get(&letter.position).is_some_and(|before| letter.attempts > *before) {
            stream.failed.push(FailedAgain {
                position: letter.position,
                event_type: letter.event_type.clone(),
                error: letter.error.clone(),
            });
        } else {
            stream.waiting += 1;
        }
    }
    streams.into_values().collect()
}

fn render(id: &str, streams: &[StreamOutcome]) -> String {
    let mut lines = Vec::new();
    for stream in streams.iter().take(NAMED) {
        let waiting = match stream.waiting {
            0 => String::new(),
            waiting => format!(", {waiting} wait behind"),
        };
        lines.push(format!("{}: {} applied{waiting}", stream.stream_id, stream.applied));
        for failed in &stream.failed {
            let why = failed.error.as_ref().map_or("it does not say why", |error| error.message.as_str());
            lines.push(format!(
                "  '{}' at position {} failed again: {why}",
                failed.event_type, failed.position
            ));
        }
    }
    if streams.len() > NAMED {
        lines.push(format!("… and {} more streams; --json has all", streams.len() - NAMED));
    }
    let applied = streams.iter().map(|stream| stream.applied).sum();
    lines.push(format!("{id} has applied {}", events(applied)));
    lines.join("\n")
}

/// Gives letters up.
pub(super) async fn discard(args: &SettleLetters, loaded: &Loaded) -> Result<(), Failure> {
    let deed = &args.deed;
    let mut conn = connect(loaded).await?;
    let signature = deed.signature(loaded);
    let Settled { id, revision, letters, left_behind } =
        dead_letters::discard(&mut conn, &args.name, &filter(&args.chosen), &signature).await?;
    if deed.json {
        let positions =
            |letters: &[Selected]| letters.iter().map(|letter| letter.position).collect::<Vec<_>>();
        return print_json(&serde_json::json!({
            "projection": id, "revision": revision, "discarded": positions(&letters),
            "left_behind": positions(&left_behind),
        }));
    }
    let mut text = format!(
        "{} of {id} given up; `foldd dead-letters list {id} --state discarded` lists what was, for a while",
        events(letters.len())
    );
    if let Some(first) = left_behind.first() {
        let streams: BTreeSet<&str> = left_behind.iter().map(|letter| letter.stream_id.as_str()).collect();
        let others = match streams.len() - 1 {
            0 => String::new(),
            others => format!(", and so on for {others} streams more"),
        };
        text.push_str(&format!(
            "\nparked still, because they waited behind: {}; `foldd dead-letters retry {id} --stream {}` applies them{others}",
            events(left_behind.len()),
            first.stream_id
        ));
    }
    print(&text)
}

fn filter(chosen: &Chosen) -> Filter {
    let positions = (!chosen.positions.is_empty()).then(|| chosen.positions.clone());
    Filter {
        positions,
        stream: chosen.stream.clone(),
        event_type: chosen.event_type.clone(),
        sqlstate: chosen.sqlstate.clone(),
    }
}

fn events(count: usize) -> String {
    if count == 1 { "1 event".to_owned() } else { format!("{count} events") }
}
