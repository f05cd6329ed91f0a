//! `foldd import`: JSON lines into the log, in blocks of a fraction of a second each.
//!
//! **Promise.** An import that ended anywhere, by `kill -9` too, and is run again with `--resume` leaves the log as one
//! undisturbed run would have: nothing lost, nothing doubled, each stream in the order of the file.
//!
//! **How.** One thread reads and parses, the other appends. A block is one statement and one transaction. Every line has
//! an id that a second run gives it again: its own `event_id`, or one made from the import's name, the line's number and
//! its content (`identity`). With `--resume`, each block first asks the log which of its ids are there, and appends the
//! others.
//!
//! **Why nothing is lost or doubled.** Blocks commit one after the other, and nothing is reported that is not
//! committed. A line that is in the log is found by its id, one that is not is appended. The question and the append
//! are two statements, and the backend of a killed run may still commit between them. Then the unique index on
//! `event_id` refuses the block, which waits for that commit first, and the block is asked about anew. So the answer of a
//! commit is never needed, and may be lost. Order holds as well, even when two runs of the same file are at work: every
//! block begins with the first line that is missing, so of two blocks in flight both have that line, and one of them
//! is refused as a whole.
//!
//! **Bad lines.** Those that are no event are seen while reading, and those that only PostgreSQL refuses by halving
//! their block down to them; everything before is in. Then the import ends, or goes on with `--skip-bad`.
//!
//! **What it never does.** It compares no payloads: a line of another content has another id. A line with an id of
//! its own is the same event when stream and type are the same.

mod complaints;
mod identity;
pub(crate) mod lines;
mod shown;
mod writer;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

use super::args::Import;
use super::{Failure, connect, print, print_json};
use crate::config::Loaded;
use complaints::Complaints;
use lines::{BadLine, LineReader, NumberedEvent};
use shown::Shown;
use writer::{Tally, Writer};

/// A block that is parsed together ends at so many events …
const BLOCK_EVENTS: usize = 10_000;
/// … or so many bytes of data, whichever comes first: bounded memory.
const BLOCK_BYTES: usize = 16 << 20;
/// Parsed blocks that may wait for the database.
const BLOCKS_AHEAD: usize = 2;

/// Consecutive lines.
#[derive(Default)]
struct Block {
    events: Vec<NumberedEvent>,
    /// Those that cannot be imported.
    bad: Vec<BadLine>,
    /// Where they end, in bytes of the input.
    end: u64,
}

/// Carries the verb out.
pub(crate) async fn run(args: &Import, loaded: &Loaded) -> Result<(), Failure> {
    let mut complaints = Complaints::open(args.report.as_deref())?;
    let mut conn = connect(loaded).await?;
    let name = args.name.clone().or_else(|| name_of(&args.file));
    let reader = open(&args.file)?.with_category(args.category.clone()).with_name(name.as_deref());
    let mut shown = Shown::new(reader.progress().total(), args.quiet);
    let (blocks, mut ready) = mpsc::channel(BLOCKS_AHEAD);
    let skip_bad = args.skip_bad;
    let reading = tokio::task::spawn_blocking(move || read(reader, skip_bad, &blocks));

    let mut writer = Writer::new(&mut conn, args.resume, skip_bad);
    let mut outcome = Ok(());
    while let Some(block) = ready.recv().await {
        let (mut bad, end) = (Vec::new(), block.end);
        outcome = writer.write(block, &mut bad).await;
        outcome = outcome.and(shown.aside(|| complaints.about(bad, skip_bad)));
        if outcome.is_err() {
            break;
        }
        shown.block(end, &writer.tally);
    }
    drop(ready);
    shown.end();
    if reading.await.is_err() {
        return Err(Failure::Failed("the reader ended unexpectedly".to_owned()));
    }
    complaints.close(&mut outcome);
    let done = Done::of(&writer.tally, complaints.count(), shown.started().elapsed());
    match outcome {
        Ok(()) if args.json => print_json(&done),
        Ok(()) => print(&done.to_string()),
        Err(problem) => Err(Failure::Failed(format!("{problem}\n{done} before that; they stay"))),
    }
}

/// What an import did. The names are the contract of `--json`.
#[derive(Serialize)]
struct Done {
    imported: u64,
    already_there: u64,
    bad_lines: u64,
    /// Behind the last event that was imported, `transaction_id:position`.
    cursor: Option<String>,
    seconds: f64,
    events_per_second: f64,
}

impl Done {
    fn of(tally: &Tally, bad_lines: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        Self {
            imported: tally.appended,
            already_there: tally.there,
            bad_lines,
            cursor: tally.cursor.map(|cursor| cursor.to_string()),
            seconds,
            events_per_second: tally.appended as f64 / seconds.max(1e-6),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events imported", self.imported)?;
        if let Some(cursor) = &self.cursor {
            write!(f, " in {:.1} s ({:.0}/s), up to cursor {cursor}", self.seconds, self.events_per_second)?;
        }
        if self.already_there > 0 {
            write!(f, "; {} were there already", self.already_there)?;
        }
        if self.bad_lines > 0 {
            write!(f, "; {} bad lines skipped", self.bad_lines)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<LineReader, Failure> {
    let unreadable = |why: &str| Failure::Usage(format!("{}: cannot be read: {why}", path.display()));
    if path.is_dir() {
        return Err(unreadable("it is a folder; name a file in it"));
    }
    LineReader::open(path).map_err(|error| unreadable(&error.to_string()))
}

/// What an import is called when nobody names it: as its file, packed or not. Standard input is called by its first line.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    (name != "-").then(|| name.strip_suffix(".gz").unwrap_or(&name).to_owned())
}

/// Parses until the input ends, a line is bad and none may be, or nobody wants more.
fn read(mut reader: LineReader, skip_bad: bool, blocks: &mpsc::Sender<Block>) {
    let input = reader.progress();
    let mut block = Block::default();
    let mut bytes = 0;
    loop {
        let next = reader.next();
        let ended = match next {
            Some(Ok(read)) => {
                bytes += read.event.data.get().len() + read.event.metadata.get().len();
                block.events.push(read);
                false
            }
            Some(Err(bad)) => {
                let ended = bad.ends || !skip_bad;
                block.bad.push(bad);
                ended
            }
            None => true,
        };
        if !ended && block.events.len() + block.bad.len() < BLOCK_EVENTS && bytes < BLOCK_BYTES {
            continue;
        }
        bytes = 0;
        block.end = input.read();
        if blocks.blocking_send(std::mem::take(&mut block)).is_err() || ended {
            return;
        }
    }
}
