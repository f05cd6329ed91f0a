//! `foldd import`: JSON lines into the log, in blocks of a fraction of a second each.
//!
//! One thread reads and parses, the other appends; each block is one statement and one transaction, so that what was
//! said to be in is in, and appenders beside it wait for no more than a block.

pub(crate) mod lines;

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::args::Import;
use super::{Failure, connect, print};
use crate::config::Loaded;
use crate::cursor::Cursor;
use crate::error::EventStoreError;
use crate::store::{self, ImportEvent};
use lines::{BadLine, LineReader, Progress};

/// A block ends at so many events …
const BLOCK_EVENTS: usize = 10_000;
/// … or so many bytes of data, whichever comes first: well under a second of work, and bounded memory.
const BLOCK_BYTES: usize = 16 << 20;
/// Parsed blocks that may wait for the database.
const BLOCKS_AHEAD: usize = 2;

/// Events of consecutive lines, and what ended them.
#[derive(Default)]
struct Block {
    events: Vec<ImportEvent>,
    /// The line of each event.
    lines: Vec<u64>,
    /// The line that cannot be imported, right after these events.
    bad: Option<BadLine>,
}

/// What has been imported.
#[derive(Default)]
struct Tally {
    events: u64,
    cursor: Option<Cursor>,
}

/// Carries the verb out.
pub(crate) async fn run(args: &Import, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect(loaded).await?;
    let reader = open(&args.file)?.with_category(args.category.clone());
    let input = reader.progress();
    let bar = progress(&input, args.quiet);
    let (blocks, mut ready) = mpsc::channel(BLOCKS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(reader, &blocks));

    let started = Instant::now();
    let mut tally = Tally::default();
    let mut outcome = Ok(());
    while let Some(block) = ready.recv().await {
        outcome = append(&mut conn, block, &mut tally).await;
        bar.set_position(input.read());
        bar.set_message(format!("{} events", tally.events));
        if outcome.is_err() {
            break;
        }
    }
    drop(ready);
    bar.finish_and_clear();
    if reading.await.is_err() {
        return Err(Failure::Failed("the reader ended unexpectedly".to_owned()));
    }
    let done = summary(&tally, started.elapsed());
    match outcome {
        Ok(()) => print(&done),
        Err(problem) => Err(Failure::Failed(format!("{problem}\n{done} before that; they stay"))),
    }
}

fn open(path: &Path) -> Result<LineReader, Failure> {
    LineReader::open(path)
        .map_err(|error| Failure::Usage(format!("{}: cannot be read: {error}", path.display())))
}

/// Parses until the input ends, a line is bad, or nobody wants more.
fn read(mut reader: LineReader, blocks: &mpsc::Sender<Block>) {
    let mut block = Block::default();
    let mut bytes = 0;
    loop {
        let next = reader.next();
        let ended = !matches!(next, Some(Ok(_)));
        match next {
            Some(Ok(event)) => {
                bytes += event.data.get().len() + event.metadata.get().len();
                block.events.push(event);
                block.lines.push(reader.line());
            }
            Some(Err(bad)) => block.bad = Some(bad),
            None if block.events.is_empty() => return,
            None => {}
        }
        if !ended && block.events.len() < BLOCK_EVENTS && bytes < BLOCK_BYTES {
            continue;
        }
        bytes = 0;
        if blocks.blocking_send(std::mem::take(&mut block)).is_err() || ended {
            return;
        }
    }
}

async fn append(conn: &mut PgConnection, block: Block, tally: &mut Tally) -> Result<(), String> {
    if !block.events.is_empty() {
        let cursor =
            store::append_many(conn, &block.events).await.map_err(|error| name_line(&error, &block))?;
        tally.cursor = cursor.or(tally.cursor);
        tally.events += block.events.len() as u64;
    }
    block.bad.map_or(Ok(()), |bad| Err(bad.to_string()))
}

/// The error, with the line where it is known, else with the lines of the block that was refused as a whole.
fn name_line(error: &EventStoreError, block: &Block) -> String {
    let text = crate::error::chain(error);
    let line = if let EventStoreError::DuplicateEvent { event_id, .. } = error {
        let index = block.events.iter().position(|event| event.event_id == *event_id);
        index.and_then(|index| block.lines.get(index))
    } else {
        None
    };
    match (line, block.lines.first(), block.lines.last()) {
        (Some(line), ..) => format!("line {line}: {text}"),
        (None, Some(first), Some(last)) => format!("lines {first} to {last}: {text}"),
        _ => text,
    }
}

fn progress(input: &Progress, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let (bar, template) = match input.total() {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {percent:>3} %  {binary_bytes_per_sec}  {msg}  {elapsed} of about {duration}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(tally: &Tally, took: Duration) -> String {
    let rate = tally.events as f64 / took.as_secs_f64().max(1e-6);
    match tally.cursor {
        None => "0 events imported".to_owned(),
        Some(cursor) => {
            format!(
                "{} events imported in {:.1} s ({rate:.0}/s), up to cursor {cursor}",
                tally.events,
                took.as_secs_f64()
            )
        }
    }
}
