//! `foldd export`: the log, or a category of it, as the JSON lines that `foldd import` reads.
//!
//! **Promise.** Every event up to the horizon at the start, once, in the order of the log; and imported into an empty
//! database and exported again, the same bytes. A file appears under its name when it is complete, or not at all.
//!
//! **How.** Page after page, each event written as it arrives, payloads as `jsonb` prints them. One task reads, one
//! thread packs and writes; between them wait a few chunks, so memory is bounded whatever the log holds.
//!
//! **What it never does.** It holds no transaction open from page to page: the cursor is all that it carries on. What
//! is committed beyond the horizon is counted and left to the next export, which begins at the cursor this one names.

mod target;

use std::io::{self, Write};

use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::args::Export;
use super::{Failure, connect, print};
use crate::config::Loaded;
use crate::cursor::Cursor;
use crate::event::RecordedEvent;
use crate::store::{self, Horizon, Link};
use target::{Part, Target};

const PAGE_EVENTS: usize = 5_000;
/// Lines are handed over to the writer in chunks of about so many bytes; a longer line is a chunk of its own.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for the writer.
const CHUNKS_AHEAD: usize = 8;

/// One line. The names and their order are what `foldd import` reads.
#[derive(Serialize)]
struct Line<'e> {
    stream_id: &'e str,
    category: &'e str,
    event_type: &'e str,
    data: &'e RawValue,
    metadata: &'e RawValue,
    event_id: Uuid,
}

/// What was read.
struct Read {
    events: u64,
    cursor: Cursor,
}

/// Why reading ended early.
enum Stopped {
    /// The writer has ended, and says why itself.
    ByWriter,
    /// The database, or a person.
    By(Failure),
}

/// Carries the verb out.
pub(crate) async fn run(args: &Export, loaded: &Loaded) -> Result<(), Failure> {
    let target = Target::open(&args.file)?;
    let mut conn = connect(loaded).await?;
    let store::Glance { horizon, head_position, .. } = store::glance(&mut conn).await?;
    let bar = progress(head_position, args.quiet);
    let (parts, ready) = mpsc::channel(CHUNKS_AHEAD);
    let writing = tokio::task::spawn_blocking(move || target.write_all(ready));

    let started = Instant::now();
    let read = tokio::select! {
        read = read(&mut conn, args, &horizon, &parts, &bar) => read,
        _ = tokio::signal::ctrl_c() => Err(Stopped::By(Failure::Failed("interrupted".to_owned()))),
    };
    drop(parts);
    let written = writing.await.map_err(|_| Failure::Failed("the writer ended unexpectedly".to_owned()))?;
    bar.finish_and_clear();
    let read = match (written, read) {
        (_, Err(Stopped::By(failure))) => return Err(failure),
        // Whoever read along has seen enough.
        (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        (Err(error), _) => {
            return Err(Failure::Failed(format!("{}: cannot be written: {error}", args.file.display())));
        }
        (Ok(()), Err(Stopped::ByWriter)) => return Ok(()),
        (Ok(()), Ok(read)) => read,
    };
    if args.quiet {
        return Ok(());
    }
    let withheld: i64 = store::withheld(&mut conn, &horizon).await?.values().sum();
    let seconds = started.elapsed().as_secs_f64();
    let mut text = format!("{} events exported in {seconds:.1} s", read.events);
    text.push_str(&format!(
        " ({:.0}/s), up to cursor {}",
        read.events as f64 / seconds.max(1e-6),
        read.cursor
    ));
    if withheld > 0 {
        text.push_str(&format!(
            "; {withheld} events beyond the horizon are left to the next one, --from {}",
            read.cursor
        ));
    }
    if args.file.as_os_str() == "-" {
        eprintln!("{text}");
        return Ok(());
    }
    print(&text)
}

async fn read(
    conn: &mut Link<'_>,
    args: &Export,
    horizon: &Horizon,
    parts: &mpsc::Sender<Part>,
    bar: &ProgressBar,
) -> Result<Read, Stopped> {
    let categories = args.category.as_ref().map(std::slice::from_ref);
    let mut done = Read { events: 0, cursor: args.from.unwrap_or_default() };
    let mut chunk = Vec::new();
    let limit = i64::try_from(PAGE_EVENTS).unwrap_or(i64::MAX);
    let failed = |error: sqlx::Error| Stopped::By(crate::EventStoreError::from(error).into());
    loop {
        // On a unit the rows come as the server sends them.
        let mut unit = conn.begin().await.map_err(failed)?;
        let mut page = store::stream_page(&mut unit, categories, done.cursor, limit, horizon);
        let mut events = 0;
        while let Some(event) = page.try_next().await.map_err(failed)? {
            append_line(&mut chunk, &event)
                .map_err(|error| Stopped::By(Failure::Failed(format!("cannot write JSON: {error}"))))?;
            done.cursor = event.cursor();
            events += 1;
            if chunk.len() >= CHUNK_BYTES {
                let full = std::mem::take(&mut chunk);
                parts.send(Part::Lines(full)).await.map_err(|_| Stopped::ByWriter)?;
            }
        }
        drop(page);
        unit.commit().await.map_err(failed)?;
        done.events += events as u64;
        bar.set_position(done.cursor.global_position.cast_unsigned());
        bar.set_message(format!("{} events", done.events));
        if events < PAGE_EVENTS {
            break;
        }
    }
    parts.send(Part::Lines(chunk)).await.map_err(|_| Stopped::ByWriter)?;
    parts.send(Part::End).await.map_err(|_| Stopped::ByWriter)?;
    Ok(done)
}

fn append_line(chunk: &mut Vec<u8>, event: &RecordedEvent) -> io::Result<()> {
    let line = Line {
        stream_id: &event.stream_id,
        category: &event.stream_category,
        event_type: &event.event_type,
        data: &event.data,
        metadata: &event.metadata,
        event_id: event.event_id,
    };
    serde_json::to_writer(&mut *chunk, &line)?;
    chunk.write_all(b"\n")
}

/// By position: not exact, since it is not the order, but known without counting the log.
fn progress(head_position: i64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(head_position.max(0).cast_unsigned());
    match ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {elapsed} of about {duration}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
