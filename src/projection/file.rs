//! A projection file: front matter, then sections that begin with markers (`-- @tables`, `-- @on`,
//! `-- @batch`, `-- @test`). [`ProjectionFile::parse`] cuts a text into them and says everything
//! that is wrong with it at once. What only the database can know is left to `foldd check`.

mod assemble;
mod cases;
mod fault;
mod front_matter;
mod name;
mod rules;
mod sections;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::projection::lexer::{LexFault, Lines, Statement, split_tokens, tokens};
use crate::projection::settings::Settings;

use assemble::Assembly;
pub(crate) use fault::{Fault, FileError};
pub(crate) use name::validate_name;

/// The largest file: it becomes one function in the database and one value in a ConfigMap, which
/// takes no more than this.
pub(crate) const MAX_FILE_BYTES: usize = 1024 * 1024;

/// A projection as a file describes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProjectionFile {
    /// The projection's name, which is the file's without `.sql`.
    pub name: String,
    /// The file, as the user knows it.
    pub path: String,
    /// The front matter.
    pub settings: Settings,
    /// The statements that build the read model's tables, all in one text.
    pub tables: Option<Entry>,
    /// What is done with events.
    pub handlers: Handlers,
    /// The `@test`s, in order.
    pub tests: Vec<TestCase>,
}

/// SQL text and where it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The text as it stands there, without the comments around it and, where it is a single
    /// statement, without its semicolon.
    pub sql: String,
    /// The file's line on which the text begins, so that the text's line N is the file's line
    /// `line + N - 1`.
    pub line: u32,
}

/// What is done with events: one by one, or a page at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// `@on` entries, in order; no event type stands in two of them.
    PerEvent(Vec<OnEntry>),
    /// `@batch` statements, in the order in which they run.
    PerBatch(Vec<Entry>),
}

/// A statement and the event types that it handles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OnEntry {
    /// The stacked `@on` lines, at least one.
    pub types: Vec<EventType>,
    /// The statement.
    pub body: Entry,
}

/// An event type and the line of its `@on`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventType {
    /// The type, as events carry it.
    pub name: String,
    /// The line of the marker.
    pub line: u32,
}

/// A `@test`: events, and queries with the rows that they should give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestCase {
    /// What the test says of itself.
    pub name: String,
    /// The line of the marker.
    pub line: u32,
    /// The events, in order of appending.
    pub given: Vec<Given>,
    /// The queries, at least one.
    pub checks: Vec<Check>,
}

/// A `@given`: one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// The line of the marker.
    pub line: u32,
    /// The stream.
    pub stream_id: String,
    /// The event's type.
    pub event_type: String,
    /// The event's data, one JSON value as written.
    pub data: String,
    /// The event's metadata, one JSON value as written.
    pub metadata: Option<String>,
}

/// A query of a test, and its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The query.
    pub query: Entry,
    /// The rows in order. None means that the query should give none.
    pub expected: Vec<ExpectedRow>,
}

/// An `@expect`: one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedRow {
    /// The line of the marker.
    pub line: u32,
    /// The columns as PostgreSQL prints them, without white space around them. `\|` in the file
    /// is a `|` here.
    pub cells: Vec<String>,
}

impl ProjectionFile {
    /// Reads a file's text. `path` is the label that errors carry; nothing is opened.
    ///
    /// # Errors
    /// With everything that is wrong, in the order of the file; one error alone where the text
    /// cannot be cut into tokens.
    pub(crate) fn parse(name: &str, path: &str, text: &str) -> Result<Self, Vec<FileError>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut faults = Faults::new(path, text);
        if let Err(error) = validate_name(name) {
            faults.add(0, Fault::Name(error));
        }
        if let Some((offset, fault)) = unreadable(text) {
            faults.add(offset, fault);
            return Err(faults.errors);
        }
        let tokens = match tokens(text) {
            Ok(tokens) => tokens,
            Err(error) => {
                faults.add(error.offset, lexical(text, error.offset, error.fault));
                return Err(faults.errors);
            }
        };
        let (settings, from) = match front_matter::read(&tokens) {
            Ok(read) => read,
            Err(wrong) => {
                wrong.into_iter().for_each(|(offset, fault)| faults.add(offset, fault));
                (Settings::default(), 0)
            }
        };
        let sections = sections::cut(&tokens[from..], &mut faults);
        let parts = Assembly::of(text, &sections, &mut faults);
        match parts {
            Some(parts) if faults.errors.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: path.to_owned(),
                settings,
                tables: parts.tables,
                handlers: parts.handlers,
                tests: parts.tests,
            }),
            _ => Err(faults.in_order()),
        }
    }
}

/// Everything that is wrong with a text that builds tables outside of a file, for a Rust handler. `path` is
/// the label that errors carry.
pub(crate) fn faults_of_tables(path: &str, sql: &str) -> Vec<FileError> {
    let mut faults = Faults::new(path, sql);
    if let Some(offset) = sql.find('\0') {
        faults.add(offset, Fault::NulByte);
        return faults.errors;
    }
    match tokens(sql) {
        Err(error) => faults.add(error.offset, Fault::Lex(error.fault)),
        Ok(tokens) => match split_tokens(&tokens) {
            Err(error) => faults.add(error.offset, Fault::Lex(error.fault)),
            Ok(pieces) => {
                for (offset, fault) in pieces.into_iter().filter_map(rules::tables_fault) {
                    faults.add(offset, fault);
                }
            }
        },
    }
    faults.in_order()
}

/// The faults found so far.
struct Faults<'a> {
    path: &'a str,
    lines: Lines<'a>,
    errors: Vec<FileError>,
}

impl<'a> Faults<'a> {
    /// Nobody reads more than this; a file of another kind would have thousands.
    const MAX: usize = 50;

    fn new(path: &'a str, text: &'a str) -> Self {
        Self { path, lines: Lines::of(text), errors: Vec::new() }
    }

    fn add(&mut self, offset: usize, fault: Fault) {
        if self.errors.len() < Self::MAX {
            let place = self.lines.place(offset);
            self.errors.push(FileError {
                path: self.path.to_owned(),
                line: place.line,
                column: place.column,
                fault,
            });
        }
    }

    fn entry(&self, statement: Statement<'_>) -> Entry {
        Entry { sql: statement.text.to_owned(), line: self.lines.line(statement.offset) }
    }

    fn in_order(mut self) -> Vec<FileError> {
        self.errors.sort_by_key(|error| (error.line, error.column));
        self.errors
    }
}

/// What makes a text unfit to be looked at any further.
fn unreadable(text: &str) -> Option<(usize, Fault)> {
    if text.len() > MAX_FILE_BYTES {
        Some((0, Fault::TooLarge { bytes: text.len(), limit: MAX_FILE_BYTES }))
    } else if let Some(offset) = text.find('\0') {
        Some((offset, Fault::NulByte))
    } else if text.trim().is_empty() {
        Some((0, Fault::Empty))
    } else {
        None
    }
}

/// A comment that never ends is most often the front matter.
fn lexical(text: &str, offset: usize, fault: LexFault) -> Fault {
    let is_front =
        text[offset..].strip_prefix("/*").is_some_and(|rest| rest.trim_start().starts_with("foldd"));
    if fault == LexFault::OpenComment && is_front { Fault::OpenFrontMatter } else { Fault::Lex(fault) }
}
