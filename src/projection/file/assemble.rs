//! Puts the sections of a file together and finds what does not fit.

use std::collections::BTreeMap;

use super::cases::Cases;
use super::fault::Fault;
use super::rules::{handler_fault, tables_fault};
use super::sections::{Marker, Section};
use super::{Entry, EventType, Faults, Handlers, OnEntry, TestCase};
use crate::projection::lexer::{Statement, Token, statement_of};
use crate::projection::settings::shortened;

/// What the sections add up to.
pub(super) struct Parts {
    pub(super) tables: Option<Entry>,
    pub(super) handlers: Handlers,
    pub(super) tests: Vec<TestCase>,
}

/// The parts while sections are added.
pub(super) struct Assembly<'f, 'a, 'p> {
    text: &'a str,
    faults: &'f mut Faults<'p>,
    tables: Option<(u32, Option<Entry>)>,
    /// Event types of `@on` lines that still wait for their statement.
    stacked: Vec<(EventType, usize)>,
    types: BTreeMap<&'a str, u32>,
    on: Vec<OnEntry>,
    batch: Vec<Entry>,
    /// The first marker of a handler, and its line.
    mode: Option<(Marker, u32)>,
    is_mixed: bool,
    cases: Cases<'a>,
}

impl<'f, 'a, 'p> Assembly<'f, 'a, 'p> {
    /// Puts the sections together; none when there is no handler. What is wrong goes to `faults`.
    pub(super) fn of(
        text: &'a str,
        sections: &[Section<'_, 'a>],
        faults: &'f mut Faults<'p>,
    ) -> Option<Parts> {
        let mut assembly = Self {
            text,
            faults,
            tables: None,
            stacked: Vec::new(),
            types: BTreeMap::new(),
            on: Vec::new(),
            batch: Vec::new(),
            mode: None,
            is_mixed: false,
            cases: Cases::new(text),
        };
        for section in sections {
            assembly.add(section);
        }
        assembly.finish()
    }

    fn add(&mut self, section: &Section<'_, 'a>) {
        if section.marker != Marker::On {
            self.end_stack();
        }
        if !matches!(section.marker, Marker::Given | Marker::Expect | Marker::Unknown) {
            self.cases.end(self.faults);
        }
        match section.marker {
            Marker::Tables => self.add_tables(section),
            Marker::On => self.add_on(section),
            Marker::Batch => self.add_batch(section),
            Marker::Test => self.cases.begin(section, self.faults),
            Marker::Given => self.cases.given(section, self.faults),
            Marker::Expect => self.cases.expect(section, self.faults),
            Marker::Unknown => {}
        }
    }

    fn finish(mut self) -> Option<Parts> {
        self.end_stack();
        self.cases.end(self.faults);
        let handlers = match self.mode {
            None => {
                self.faults.add(self.text.trim_end().len(), Fault::NoHandler);
                return None;
            }
            Some((Marker::Batch, _)) => Handlers::PerBatch(self.batch),
            Some(_) => Handlers::PerEvent(self.on),
        };
        Some(Parts {
            tables: self.tables.and_then(|(_, entry)| entry),
            handlers,
            tests: self.cases.into_tests(),
        })
    }

    fn add_tables(&mut self, section: &Section<'_, 'a>) {
        self.refuse_argument(section);
        let pieces = self.statements(section);
        for piece in &pieces {
            if let Some((offset, fault)) = tables_fault(piece) {
                self.faults.add(offset, fault);
            }
        }
        if let Some((first, _)) = self.tables {
            self.faults.add(section.offset, Fault::RepeatedTables { first });
            return;
        }
        let entry = pieces.first().zip(pieces.last()).map(|(first, last)| {
            let start = first.first().map_or(0, |token| token.offset);
            let end = last.last().map_or(start, Token::end);
            self.faults.entry(Statement { text: &self.text[start..end], offset: start })
        });
        self.tables = Some((self.line(section.offset), entry));
    }

    fn add_on(&mut self, section: &Section<'_, 'a>) {
        self.choose_mode(section);
        let line = self.line(section.offset);
        let name = section.argument;
        if name.is_empty() {
            self.faults.add(
                section.offset,
                Fault::NoArgument { marker: "on", takes: "an event type", example: "-- @on Order Placed" },
            );
        } else if let Some(first) = self.types.get(name) {
            let fault = Fault::RepeatedType { event_type: shortened(name), first: *first };
            self.faults.add(section.argument_at, fault);
        } else {
            self.types.insert(name, line);
        }
        self.stacked.push((EventType { name: name.to_owned(), line }, section.offset));
        if section.body.iter().any(Token::is_significant) {
            let types =
                std::mem::take(&mut self.stacked).into_iter().map(|(event_type, _)| event_type).collect();
            if let Some(body) = self.handler(section) {
                self.on.push(OnEntry { types, body });
            }
        }
    }

    fn add_batch(&mut self, section: &Section<'_, 'a>) {
        self.choose_mode(section);
        self.refuse_argument(section);
        let body = self.handler(section);
        self.batch.extend(body);
    }

    /// The one statement of a handler; none when it is wrong.
    fn handler(&mut self, section: &Section<'_, 'a>) -> Option<Entry> {
        let pieces = self.statements(section);
        let piece = *pieces.first()?;
        let mut wrong = handler_fault(piece);
        if let Some(second) = pieces.get(1).filter(|_| wrong.is_none()) {
            let statement = statement_of(self.text, second);
            let marker = section.marker.word();
            let remedy = match section.marker {
                Marker::Batch => "give it a `-- @batch` of its own",
                Marker::Tables
                | Marker::On
                | Marker::Test
                | Marker::Given
                | Marker::Expect
                | Marker::Unknown => "join the two with `with … as (…)`",
            };
            // A second statement that belongs nowhere is better named for what it is.
            wrong = handler_fault(second).or_else(|| {
                Some((
                    statement.offset,
                    Fault::SecondStatement { marker, second: shortened(statement.text), remedy },
                ))
            });
        }
        if let Some((offset, fault)) = wrong {
            self.faults.add(offset, fault);
            return None;
        }
        Some(self.faults.entry(statement_of(self.text, piece)))
    }

    /// The statements below a marker that needs one.
    fn statements<'t>(&mut self, section: &Section<'t, 'a>) -> Vec<&'t [Token<'a>]> {
        let pieces = section.statements(self.faults);
        if pieces.as_ref().is_some_and(Vec::is_empty) {
            self.faults.add(section.offset, Fault::NoStatement { marker: section.marker.word() });
        }
        pieces.unwrap_or_default()
    }

    /// `@on` and `@batch` exclude each other; said once.
    fn choose_mode(&mut self, section: &Section<'_, 'a>) {
        let line = self.line(section.offset);
        let (mode, first) = *self.mode.get_or_insert((section.marker, line));
        if mode != section.marker && !self.is_mixed {
            self.is_mixed = true;
            let fault = Fault::Mixed { found: section.marker.word(), other: mode.word(), first };
            self.faults.add(section.offset, fault);
        }
    }

    fn refuse_argument(&mut self, section: &Section<'_, 'a>) {
        if !section.argument.is_empty() {
            let argument = shortened(section.argument);
            self.faults.add(section.argument_at, Fault::Argument { marker: section.marker.word(), argument });
        }
    }

    /// `@on` lines that no statement followed.
    fn end_stack(&mut self) {
        if let Some((_, offset)) = self.stacked.pop() {
            self.stacked.clear();
            self.faults.add(offset, Fault::NoStatement { marker: "on" });
        }
    }

    fn line(&self, offset: usize) -> u32 {
        self.faults.lines.line(offset)
    }
}
