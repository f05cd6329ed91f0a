//! `foldd dead-letters`: events that are parked instead of applied. List them, look at one, settle them.

mod settle;

use comfy_table::{CellAlignment, Table, presets};

use super::args::{DeadLetters, LetterState, ListLetters, ShowLetter};
use super::{Failure, connect_to_look, print, print_json};
use crate::config::Loaded;
use crate::ledger::dead_letters::{self, Filter, Letter, Opened, State};

/// Longer messages are cut in the table.
const MESSAGE: usize = 60;

/// Carries the verb out.
pub(crate) async fn run(args: &DeadLetters, loaded: &Loaded) -> Result<(), Failure> {
    match args {
        DeadLetters::List(args) => list(args, loaded).await,
        DeadLetters::Show(args) => show(args, loaded).await,
        DeadLetters::Retry(args) => settle::retry(args, loaded).await,
        DeadLetters::Discard(args) => settle::discard(args, loaded).await,
    }
}

async fn list(args: &ListLetters, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect_to_look(loaded).await?;
    let filter = Filter {
        positions: None,
        stream: args.stream.clone(),
        event_type: args.event_type.clone(),
        sqlstate: args.sqlstate.clone(),
    };
    let state = match args.state {
        LetterState::Open => State::Open,
        LetterState::Discarded => State::Discarded,
    };
    let (letters, there_are) =
        dead_letters::list(&mut conn, args.name.as_deref(), &filter, state, args.limit).await?;
    if args.json {
        return print_json(&letters);
    }
    let Some(first) = letters.first() else {
        return print(match state {
            State::Open => "no such event is parked",
            State::Discarded => "no such event was given up, or its letter is forgotten by now",
        });
    };
    let mut text = table(&letters);
    let shown = i64::try_from(letters.len()).unwrap_or(i64::MAX);
    if there_are > shown {
        text.push_str(&format!("\n… and {} more; --limit shows more", there_are - shown));
    }
    let (id, position) = (&first.projection, first.position);
    text.push_str(&format!("\n\n`foldd dead-letters show {id} {position}` shows one"));
    if state == State::Open {
        text.push_str(", `retry` applies them after all, `discard` gives them up");
    }
    print(&text)
}

fn table(letters: &[Letter]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["PROJECTION", "POSITION", "STREAM", "TYPE", "REASON", "TRIES", "SINCE", "ERROR"]);
    for letter in letters {
        let reason = match letter.retry_wanted_at {
            Some(_) => format!("{}, to be retried", letter.reason),
            None => letter.reason.clone(),
        };
        table.add_row([
            letter.projection.clone(),
            letter.position.to_string(),
            format!("{} at version {}", letter.stream_id, letter.stream_version),
            letter.event_type.clone(),
            reason,
            letter.attempts.to_string(),
            letter.first_failed_at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            error(letter),
        ]);
    }
    for column in [1, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Code and message on one line.
fn error(letter: &Letter) -> String {
    let Some(trouble) = &letter.error else { return "-".to_owned() };
    let code = trouble.sqlstate.as_ref().map(|code| format!("{code}: ")).unwrap_or_default();
    let line = trouble.message.lines().next().unwrap_or_default();
    let mut text: String = line.chars().take(MESSAGE).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    code + &text
}

async fn show(args: &ShowLetter, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect_to_look(loaded).await?;
    let opened = dead_letters::show(&mut conn, &args.name, args.position).await?;
    if args.json { print_json(&opened) } else { print(&render(&opened)) }
}

fn render(opened: &Opened) -> String {
    let Opened { letter, data, metadata } = opened;
    let mut text = format!(
        "{}: '{}' at position {}, stream {} at version {}\n",
        letter.projection, letter.event_type, letter.position, letter.stream_id, letter.stream_version
    );
    let reason = match letter.reason.as_str() {
        "failed" => "it could not be applied, and later events of its stream wait for it",
        "behind" => "it waits for an earlier event of its stream",
        "skipped" => "it could not be applied, and later events of its stream were",
        other => other,
    };
    text.push_str(&format!(
        "  parked: since {}, tries: {}; {reason}\n",
        letter.first_failed_at, letter.attempts
    ));
    for (what, at) in [("to be retried since", letter.retry_wanted_at), ("discarded", letter.discarded_at)] {
        if let Some(at) = at {
            text.push_str(&format!("  {what}: {at}\n"));
        }
    }
    if let Some(trouble) = &letter.error {
        let code = trouble.sqlstate.as_ref().map(|code| format!("{code}: ")).unwrap_or_default();
        text.push_str(&format!("  error: {code}{}\n", trouble.message));
        if let Some(place) = &trouble.place {
            text.push_str(&format!("  place: {place}\n"));
        }
        text.push_str(&format!("  to do: {}\n", trouble.remedy));
    }
    text.push_str(&format!("  data: {data}\n  metadata: {metadata}"));
    if letter.discarded_at.is_none() {
        let (id, stream) = (&letter.projection, &letter.stream_id);
        text.push_str(&format!(
            "\n\n`foldd dead-letters retry {id} --stream {stream}` applies all of its stream after all, `discard` gives up"
        ));
    }
    text
}
