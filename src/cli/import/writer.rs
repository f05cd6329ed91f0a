//! Puts blocks into the log: what is missing, in the order of the file, each part in one transaction.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Block;
use super::identity::{ImportName, line_of};
use super::lines::{BadLine, NumberedEvent};
use crate::backoff::Backoff;
use crate::cursor::Cursor;
use crate::error::{self, EventStoreError, chain};
use crate::store::{self, Known, Link};

/// How long a part should take: appenders to the same streams wait for it.
const PART_TIME: Duration = Duration::from_millis(400);
const FIRST_PART: usize = 1_000;
const LARGEST_PART: usize = super::BLOCK_EVENTS;
/// Deadlocks with other writers and the like: how often a part is tried again before that is an error.
const TRIES: u32 = 10;
/// Reasons may quote names of any length.
const LONGEST_REASON: usize = 300;
const RESUME: &str = "--resume skips what is there already";
const CHANGED: &str = "was imported already, with another content";
const OTHER: &str = "put it back as it was, or bring in what is new as another file";

/// What has been done.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) appended: u64,
    /// Lines of an earlier run.
    pub(super) there: u64,
    pub(super) cursor: Option<Cursor>,
}

/// Appends blocks over one connection.
pub(super) struct Writer<'c> {
    conn: &'c mut Link<'static>,
    resume: bool,
    skip_bad: bool,
    /// Whether a block was looked at.
    begun: bool,
    /// How many events the next part has.
    part: usize,
    pub(super) tally: Tally,
}

/// What an error says about the part that was refused.
enum Refusal {
    /// Some of it is in the log.
    There,
    /// One of its lines is bad, or all of it takes too long.
    Line,
    /// It may work the next time.
    Passing,
    /// No line is to blame.
    Other,
}

impl<'c> Writer<'c> {
    pub(super) fn new(conn: &'c mut Link<'static>, resume: bool, skip_bad: bool) -> Self {
        Self { conn, resume, skip_bad, begun: false, part: FIRST_PART, tally: Tally::default() }
    }

    /// Brings in what is missing of a block. Bad lines are added to `bad`; the first ends it, unless they are skipped.
    ///
    /// # Errors
    /// What is no line's fault, and an import that is there already, when it is not resumed.
    pub(super) async fn write(&mut self, block: Block, bad: &mut Vec<BadLine>) -> Result<(), String> {
        *bad = block.bad;
        let mut events: Vec<&NumberedEvent> = block.events.iter().collect();
        if !self.begun && !self.resume {
            self.refuse_second_import(&events).await?;
        }
        self.begun = true;
        if self.resume {
            events = self.missing(events, bad).await.map_err(|error| told(&error))?;
        }
        self.append(events, bad).await
    }

    /// An input that was imported before would be doubled, if its lines had other ids; and be refused line by line.
    async fn refuse_second_import(&mut self, events: &[&NumberedEvent]) -> Result<(), String> {
        let Some(first) = events.first() else { return Ok(()) };
        let derived = events.iter().find(|line| line.derived);
        if let Some(line) = derived {
            let ids = ImportName::in_id(line.event.event_id).everything();
            let last = store::last_id_in(self.conn, ids).await.map_err(|error| told(&error))?;
            if let Some(last) = last {
                return Err(format!(
                    "an import of this name is in the log already, up to line {}; --resume goes on behind what is \
                     there, another --name brings all of it in once more",
                    line_of(last)
                ));
            }
        }
        let known = store::known(self.conn, &[first.event.event_id]).await.map_err(|error| told(&error))?;
        known.first().map_or(Ok(()), |known| Err(format!("line {}: {}; {RESUME}", first.line, place(known))))
    }

    /// Those that are not in the log. One that is, but as something else, is bad.
    async fn missing<'e>(
        &mut self,
        events: Vec<&'e NumberedEvent>,
        bad: &mut Vec<BadLine>,
    ) -> store::Result<Vec<&'e NumberedEvent>> {
        let own: Vec<Uuid> =
            events.iter().filter(|line| !line.derived).map(|line| line.event.event_id).collect();
        let mut known: HashMap<Uuid, Known> = HashMap::new();
        if !own.is_empty() {
            known.extend(
                store::known(self.conn, &own).await?.into_iter().map(|known| (known.event_id, known)),
            );
        }
        let mut derived = events.iter().filter(|line| line.derived);
        let mut imported: HashMap<u64, Uuid> = HashMap::new();
        if let Some(first) = derived.next() {
            let last = derived.next_back().unwrap_or(first);
            let ids = ImportName::in_id(first.event.event_id).range(first.line..=last.line);
            imported.extend(store::ids_in(self.conn, ids).await?.into_iter().map(|id| (line_of(id), id)));
        }
        let mut missing = Vec::new();
        for line in events {
            let event = &line.event;
            let twin = match (line.derived, imported.get(&line.line), known.get(&event.event_id)) {
                (true, None, _) | (false, _, None) => None,
                (true, Some(id), _) => Some((*id == event.event_id, CHANGED.to_owned())),
                (false, _, Some(known)) => Some((
                    known.stream_id == event.stream_id && known.event_type == event.event_type,
                    place(known),
                )),
            };
            match twin {
                Some((true, _)) => self.tally.there += 1,
                Some((false, reason)) => bad.push(bad_line(line, reason, OTHER)),
                None => {
                    // The same id may come again in this very block.
                    known.insert(
                        event.event_id,
                        Known {
                            event_id: event.event_id,
                            stream_id: event.stream_id.clone(),
                            stream_version: 0,
                            event_type: event.event_type.clone(),
                        },
                    );
                    missing.push(line);
                }
            }
        }
        Ok(missing)
    }

    /// Appends in parts of about the right time, in order. Unless bad lines are skipped, what stands behind one stays out.
    async fn append(&mut self, events: Vec<&NumberedEvent>, bad: &mut Vec<BadLine>) -> Result<(), String> {
        // The next part is the last one.
        let mut todo = vec![events];
        let (mut backoff, mut tries) = (Backoff::default(), 0);
        while let Some(mut part) = todo.pop() {
            if let Some(end) = bad.iter().map(|bad| bad.line).min().filter(|_| !self.skip_bad) {
                part.retain(|line| line.line < end);
            }
            if part.len() > self.part {
                todo.push(part.split_off(self.part));
            }
            let asked = Instant::now();
            let error = match store::append_many(&mut *self.conn, part.iter().map(|line| &line.event)).await {
                Ok(cursor) => {
                    self.committed(part.len(), cursor, asked.elapsed());
                    tries = 0;
                    continue;
                }
                Err(error) => error,
            };
            match refusal(&error) {
                Refusal::Passing if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(backoff.next()).await;
                    todo.push(part);
                }
                Refusal::Passing | Refusal::Other => return Err(told_of(&error, &part)),
                Refusal::There | Refusal::Line => todo.extend(self.refused(part, &error, bad).await?),
            }
        }
        Ok(())
    }

    /// What is left to do of a part that was refused because of a line: the last piece first.
    async fn refused<'e>(
        &mut self,
        mut part: Vec<&'e NumberedEvent>,
        error: &EventStoreError,
        bad: &mut Vec<BadLine>,
    ) -> Result<Vec<Vec<&'e NumberedEvent>>, String> {
        if self.resume && matches!(refusal(error), Refusal::There) {
            // An earlier run, or its backend that outlived it, was faster than the question.
            let asked = part.len();
            part = self.missing(part, bad).await.map_err(|error| told(&error))?;
            if part.len() < asked {
                return Ok(vec![part]);
            }
        }
        if part.len() > 1 {
            let second = part.split_off(part.len() / 2);
            return Ok(vec![second, part]);
        }
        let (reason, remedy) = reason_of(error);
        bad.extend(part.first().map(|line| bad_line(line, reason, remedy)));
        Ok(Vec::new())
    }

    /// Counts a part, and makes the next one as large as fits into the time.
    fn committed(&mut self, events: usize, cursor: Option<Cursor>, took: Duration) {
        self.tally.appended += events as u64;
        self.tally.cursor = cursor.or(self.tally.cursor);
        if took > PART_TIME && events > 1 {
            self.part = (events / 2).max(1);
        } else if took < PART_TIME / 2 && events >= self.part {
            self.part = (self.part * 2).min(LARGEST_PART);
        }
    }
}

fn refusal(error: &EventStoreError) -> Refusal {
    match (error, error.sqlstate()) {
        (EventStoreError::DuplicateEvent { .. }, _) => Refusal::There,
        // A role's statement_timeout is a reason for smaller parts too.
        (_, Some(code)) if error::is_about_data(&code) || code == "57014" => Refusal::Line,
        (_, Some(code)) if code.starts_with("40") || code == "55P03" => Refusal::Passing,
        _ => Refusal::Other,
    }
}

/// Why one event is refused, and what to do.
fn reason_of(error: &EventStoreError) -> (String, &str) {
    if matches!(error, EventStoreError::DuplicateEvent { .. }) {
        return (error.to_string(), RESUME);
    }
    (error.message(), error.remedy().unwrap_or("mend the line"))
}

fn bad_line(line: &NumberedEvent, reason: String, remedy: &str) -> BadLine {
    BadLine { line: line.line, reason: shortened(reason), remedy: remedy.to_owned(), ends: false }
}

fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_REASON) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn place(known: &Known) -> String {
    let Known { event_id, stream_id, stream_version, event_type } = known;
    if *stream_version == 0 {
        return format!("event_id {event_id} is given to another event of this input");
    }
    format!(
        "event_id {event_id} is in the log already, as '{event_type}', version {stream_version} of stream '{stream_id}'"
    )
}

fn told(error: &EventStoreError) -> String {
    let remedy = error.remedy().unwrap_or("then run it again with --resume");
    format!("{}; {remedy}", chain(error))
}

fn told_of(error: &EventStoreError, part: &[&NumberedEvent]) -> String {
    match (part.first(), part.last()) {
        (Some(first), Some(last)) => format!("lines {} to {}: {}", first.line, last.line, told(error)),
        _ => told(error),
    }
}
