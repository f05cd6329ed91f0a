//! The tests of a file: `@test`, `@given`, queries and `@expect`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::fault::Fault;
use super::rules::query_fault;
use super::sections::Section;
use super::{Check, ExpectedRow, Faults, Given, TestCase};
use crate::projection::lexer::statement_of;
use crate::projection::settings::shortened;

/// The tests while sections are added.
pub(super) struct Cases<'a> {
    text: &'a str,
    tests: Vec<TestCase>,
    names: BTreeMap<&'a str, u32>,
    /// Where the last test begins, while it has neither a query nor an error in one.
    without_query: Option<usize>,
    /// Whether lines still belong to the last test.
    is_open: bool,
}

impl<'a> Cases<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, tests: Vec::new(), names: BTreeMap::new(), without_query: None, is_open: false }
    }

    /// A `@test`, which later lines belong to.
    pub(super) fn begin(&mut self, section: &Section<'_, 'a>, faults: &mut Faults<'_>) {
        let (name, line) = (section.argument, faults.lines.line(section.offset));
        if name.is_empty() {
            faults.add(
                section.offset,
                Fault::NoArgument { marker: "test", takes: "a name", example: "-- @test a payment counts" },
            );
        } else if let Some(first) = self.names.get(name) {
            faults.add(section.argument_at, Fault::RepeatedTest { name: shortened(name), first: *first });
        } else {
            self.names.insert(name, line);
        }
        self.tests.push(TestCase { name: name.to_owned(), line, given: Vec::new(), checks: Vec::new() });
        self.without_query = Some(section.offset);
        self.is_open = true;
        self.add_queries(section, faults);
    }

    /// A `@given`.
    pub(super) fn given(&mut self, section: &Section<'_, 'a>, faults: &mut Faults<'_>) {
        let given = match given_of(section, faults.lines.line(section.offset)) {
            Ok(given) => Some(given),
            Err((offset, fault)) => {
                faults.add(offset, fault);
                None
            }
        };
        match self.tests.last_mut() {
            Some(test) if self.is_open => {
                if !test.checks.is_empty() {
                    faults.add(section.offset, Fault::LateGiven);
                }
                test.given.extend(given);
                self.add_queries(section, faults);
            }
            _ => faults.add(section.offset, Fault::OutsideTest { marker: "given" }),
        }
    }

    /// An `@expect`.
    pub(super) fn expect(&mut self, section: &Section<'_, 'a>, faults: &mut Faults<'_>) {
        if section.argument.is_empty() {
            let takes = "the columns of a row";
            faults.add(
                section.offset,
                Fault::NoArgument { marker: "expect", takes, example: "-- @expect fine-1 | 30" },
            );
        }
        let row = ExpectedRow { line: faults.lines.line(section.offset), cells: cells_of(section.argument) };
        match self.tests.last_mut() {
            Some(test) if self.is_open => {
                match test.checks.last_mut() {
                    Some(check) => check.expected.push(row),
                    None if self.without_query.is_some() => faults.add(section.offset, Fault::NoQueryBefore),
                    None => {}
                }
                self.add_queries(section, faults);
            }
            _ => faults.add(section.offset, Fault::OutsideTest { marker: "expect" }),
        }
    }

    /// Another section begins, or the file ends.
    pub(super) fn end(&mut self, faults: &mut Faults<'_>) {
        self.is_open = false;
        if let Some(offset) = self.without_query.take() {
            let name = self.tests.last().map(|test| shortened(&test.name)).unwrap_or_default();
            faults.add(offset, Fault::NoQuery { name });
        }
    }

    pub(super) fn into_tests(self) -> Vec<TestCase> {
        self.tests
    }

    /// Adds the queries below a marker to the last test.
    fn add_queries(&mut self, section: &Section<'_, 'a>, faults: &mut Faults<'_>) {
        let Some(pieces) = section.statements(faults) else {
            self.without_query = None;
            return;
        };
        for piece in pieces {
            self.without_query = None;
            if let Some((offset, fault)) = query_fault(piece) {
                faults.add(offset, fault);
            }
            let query = faults.entry(statement_of(self.text, piece));
            if let Some(test) = self.tests.last_mut() {
                test.checks.push(Check { query, expected: Vec::new() });
            }
        }
    }
}

/// The event of a `@given`, or what is wrong with it, and where.
fn given_of(section: &Section<'_, '_>, line: u32) -> Result<Given, (usize, Fault)> {
    let bad = |at: usize, argument: String| (at, Fault::BadGiven { argument });
    let argument = section.argument;
    let mut parts = argument.splitn(3, '|').map(str::trim_start);
    let (Some(stream_id), Some(event_type), Some(json)) = (parts.next(), parts.next(), parts.next()) else {
        let found = if argument.is_empty() { "nothing".to_owned() } else { shortened(argument) };
        return Err(bad(section.offset, found));
    };
    let (stream_id, event_type) = (stream_id.trim_end(), event_type.trim_end());
    if stream_id.is_empty() || event_type.is_empty() || json.is_empty() {
        return Err(bad(section.argument_at, shortened(argument)));
    }
    // Bars inside the data are not ours, so the data ends where its JSON ends.
    let end = section.argument_at + argument.len();
    let (data, rest) = json_of("data", json, end - json.len())?;
    let metadata = match rest.trim_start().strip_prefix('|').map(str::trim_start) {
        None if rest.trim_start().is_empty() => None,
        None => {
            return Err(bad(end - rest.len(), format!("{} behind the data", shortened(rest.trim_start()))));
        }
        Some(metadata) => {
            let (metadata, rest) = json_of("metadata", metadata, end - metadata.len())?;
            if !rest.trim_start().is_empty() {
                return Err(bad(
                    end - rest.len(),
                    format!("{} behind the metadata", shortened(rest.trim_start())),
                ));
            }
            Some(metadata.to_owned())
        }
    };
    Ok(Given {
        line,
        stream_id: stream_id.to_owned(),
        event_type: event_type.to_owned(),
        data: data.to_owned(),
        metadata,
    })
}

/// The columns of an `@expect`: parted by `|`, where `\|` is a `|` of the column.
fn cells_of(argument: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut characters = argument.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = if character == '\\' { characters.next_if_eq(&'|') } else { None };
        if character == '|' {
            cells.push(String::new());
        } else if let Some(cell) = cells.last_mut() {
            cell.push(escaped.unwrap_or(character));
        }
    }
    cells.into_iter().map(|cell| cell.trim().to_owned()).collect()
}

/// The JSON value at the start of a text, and what follows it.
fn json_of<'j>(
    what: &'static str,
    text: &'j str,
    offset: usize,
) -> Result<(&'j str, &'j str), (usize, Fault)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(value)) => Ok((value.get(), &text[values.byte_offset()..])),
        Some(Err(error)) => {
            // The text is one line, so the column, counted in bytes from 1, is the offset.
            let at = offset + error.column().saturating_sub(1).min(text.len());
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            Err((at, Fault::BadJson { what, message }))
        }
        None => Err((offset, Fault::BadJson { what, message: "nothing is there".to_owned() })),
    }
}
