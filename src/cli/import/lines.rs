//! Reads events for `foldd import`: JSON lines from a file, a gzipped file or standard input. Blocking, and
//! without knowledge of the database. Payloads are checked and passed on as they are written, so that numbers
//! and depths which only `jsonb` can hold arrive unharmed.

mod diagnosis;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::identity::ImportName;
use crate::store::ImportEvent;
pub(crate) use diagnosis::unstorable;
use diagnosis::{Complaint, complaint, refused, unreadable};

/// The longest line, in bytes. A longer one is skipped without being held in memory.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// A line's memory is given back when it was larger than this.
const KEPT_BYTES: usize = 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The events of an input, line by line. Goes on behind a bad line, ends behind an unreadable input.
pub(crate) struct LineReader {
    input: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    line: u64,
    category: Option<String>,
    name: Option<ImportName>,
    no_metadata: Box<RawValue>,
    progress: Progress,
    is_over: bool,
}

/// An event and where it was read.
#[derive(Debug, Clone)]
pub(crate) struct NumberedEvent {
    /// The number of its line, from 1.
    pub(crate) line: u64,
    pub(crate) event: ImportEvent,
    /// Whether the line has no id of its own, and got one from its place and content.
    pub(crate) derived: bool,
}

/// A line that is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("line {line}: {reason}; {remedy}")]
pub(crate) struct BadLine {
    /// Its number, from 1.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) remedy: String,
    /// Whether nothing behind it can be read either.
    #[serde(skip)]
    pub(crate) ends: bool,
}

/// How far a reader has come, for whoever draws it meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    read: Arc<AtomicU64>,
    total: Option<u64>,
}

/// Counts what is read from an input.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    stream_id: String,
    category: Option<String>,
    event_type: String,
    data: Box<RawValue>,
    metadata: Option<Box<RawValue>>,
    event_id: Option<Uuid>,
}

impl LineReader {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::new(io::stdin(), None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Self::new(file, metadata.is_file().then_some(metadata.len()))
    }

    /// Reads from anywhere. Whether the input is gzipped is told by its first two bytes, not by its name.
    pub(crate) fn new(input: impl Read + Send + 'static, total_bytes: Option<u64>) -> io::Result<Self> {
        let progress = Progress { read: Arc::default(), total: total_bytes };
        let counted = Counted { input, read: Arc::clone(&progress.read) };
        let mut input = BufReader::with_capacity(READ_BYTES, counted);
        let mut magic = Vec::new();
        input.by_ref().take(2).read_to_end(&mut magic)?;
        let is_gzip = magic == GZIP_MAGIC;
        let whole = Cursor::new(magic).chain(input);
        let input: Box<dyn BufRead + Send> = if is_gzip {
            Box::new(BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        let no_metadata = RawValue::from_string("{}".to_owned())?;
        Ok(Self {
            input,
            buffer: Vec::new(),
            line: 0,
            category: None,
            name: None,
            no_metadata,
            progress,
            is_over: false,
        })
    }

    /// Gives events that name no category this one.
    pub(crate) fn with_category(self, category: Option<String>) -> Self {
        Self { category, ..self }
    }

    /// Names the import, for the ids of lines without one. Otherwise its first line does.
    pub(crate) fn with_name(self, name: Option<&str>) -> Self {
        Self { name: name.map(ImportName::of), ..self }
    }

    /// Bytes read, kept up to date while this reads on.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Brings the next line into the buffer. False at the end of the input.
    fn fill(&mut self) -> Result<bool, Complaint> {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        self.line += 1;
        let mut limited = self.input.by_ref().take(MAX_LINE_BYTES + 1);
        let read = limited.read_until(b'\n', &mut self.buffer);
        let cut = limited.limit() == 0 && !self.buffer.ends_with(b"\n");
        let read = if cut { self.input.skip_until(b'\n') } else { read };
        let read = read.map_err(|error| {
            self.is_over = true;
            complaint(format!("the input cannot be read any further: {error}"), "is it damaged or cut off?")
        })?;
        if cut {
            let reason = format!("longer than {} MiB", MAX_LINE_BYTES >> 20);
            return Err(complaint(reason, "keep such a payload elsewhere and name it in the event"));
        }
        if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(read > 0)
    }

    /// The next event, `None` at the end.
    fn next_event(&mut self) -> Result<Option<NumberedEvent>, Complaint> {
        while self.fill()? {
            if !self.buffer.trim_ascii().is_empty() {
                return self.event().map(Some);
            }
        }
        Ok(None)
    }

    /// The event in the buffer.
    fn event(&mut self) -> Result<NumberedEvent, Complaint> {
        let text = std::str::from_utf8(&self.buffer).map_err(|error| {
            complaint(format!("byte {} is no UTF-8", error.valid_up_to() + 1), "save the file as UTF-8")
        })?;
        // serde would take a list for a struct, field by field.
        if text.trim_start().starts_with('[') {
            return Err(complaint(
                "a list is no event",
                "write each event on a line of its own, without the list",
            ));
        }
        let line: Line = serde_json::from_str(text).map_err(|error| unreadable(text, &error))?;
        let content = text.trim_ascii();
        let derived = line.event_id.is_none();
        let name = *self.name.get_or_insert_with(|| ImportName::of(content));
        let event_id =
            line.event_id.unwrap_or_else(|| name.id(self.line, self.category.as_deref(), content.as_bytes()));
        let event = ImportEvent {
            stream_id: line.stream_id,
            category: line.category.or_else(|| self.category.clone()),
            event_type: line.event_type,
            data: line.data,
            metadata: line.metadata.unwrap_or_else(|| self.no_metadata.clone()),
            event_id,
        };
        refused(&event).map_or(Ok(NumberedEvent { line: self.line, event, derived }), Err)
    }
}

impl Iterator for LineReader {
    type Item = Result<NumberedEvent, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_event();
        self.is_over |= matches!(next, Ok(None));
        next.map_err(|(reason, remedy)| BadLine { line: self.line, reason, remedy, ends: self.is_over })
            .transpose()
    }
}

impl Progress {
    /// Bytes taken from the input, as they lie in the file: compressed ones of a gzipped file.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The size of the input, where it has one.
    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(into)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
