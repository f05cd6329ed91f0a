//! Cuts the tokens of a file at its markers.

use super::Faults;
use super::fault::{Fault, MARKERS};
use crate::projection::lexer::{Token, TokenKind, split_tokens};
use crate::projection::settings::shortened;

/// A marker and what stands below it.
pub(super) struct Section<'t, 'a> {
    pub(super) marker: Marker,
    /// What stands behind the marker on its line.
    pub(super) argument: &'a str,
    /// Where the argument begins, in bytes.
    pub(super) argument_at: usize,
    /// Where the marker begins, in bytes.
    pub(super) offset: usize,
    /// The tokens up to the next marker.
    pub(super) body: &'t [Token<'a>],
}

impl<'t, 'a> Section<'t, 'a> {
    /// The statements below the marker; none at all when a parenthesis is wrong.
    pub(super) fn statements(&self, faults: &mut Faults<'_>) -> Option<Vec<&'t [Token<'a>]>> {
        split_tokens(self.body).map_err(|error| faults.add(error.offset, Fault::Lex(error.fault))).ok()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Tables,
    On,
    Batch,
    Test,
    Given,
    Expect,
    /// One that does not exist; kept so that what stands below it is nobody else's.
    Unknown,
}

impl Marker {
    fn of(word: &str) -> Self {
        match word {
            "tables" => Self::Tables,
            "on" => Self::On,
            "batch" => Self::Batch,
            "test" => Self::Test,
            "given" => Self::Given,
            "expect" => Self::Expect,
            _ => Self::Unknown,
        }
    }

    /// The marker without its `@`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::On => "on",
            Self::Batch => "batch",
            Self::Test => "test",
            Self::Given => "given",
            Self::Expect => "expect",
            Self::Unknown => "?",
        }
    }
}

/// The sections, in order. The tokens are those after the front matter.
pub(super) fn cut<'t, 'a>(tokens: &'t [Token<'a>], faults: &mut Faults<'_>) -> Vec<Section<'t, 'a>> {
    let mut sections: Vec<Section<'t, 'a>> = Vec::new();
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        let Some((word, argument)) = marker_of(token) else {
            continue;
        };
        if !begins_its_line(&tokens[..at]) {
            if MARKERS.contains(&word) {
                faults.add(token.offset, Fault::MarkerInLine { marker: word.to_owned() });
            }
            continue;
        }
        close(&mut sections, &tokens[start..at], faults);
        start = at + 1;
        let marker = Marker::of(word);
        if marker == Marker::Unknown {
            let word = shortened(word);
            faults.add(token.offset, Fault::UnknownMarker { marker: word.trim_matches('"').to_owned() });
        }
        let argument_at = token.end() - argument.len();
        sections.push(Section {
            marker,
            argument: argument.trim_end(),
            argument_at,
            offset: token.offset,
            body: &[],
        });
    }
    close(&mut sections, &tokens[start..], faults);
    sections
}

/// The marker's word and the rest of its line, when a token is a comment of that form.
fn marker_of<'a>(token: &Token<'a>) -> Option<(&'a str, &'a str)> {
    if token.kind != TokenKind::LineComment {
        return None;
    }
    let rest = token.text.strip_prefix("--")?.trim_start().strip_prefix('@')?;
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    Some((&rest[..end], rest[end..].trim_start()))
}

/// Whether nothing but white space stands between the last line end and what follows the tokens.
/// A front matter that ended on this line counts as nothing.
fn begins_its_line(before: &[Token<'_>]) -> bool {
    match before.last() {
        None => true,
        Some(last) => {
            last.kind == TokenKind::Whitespace && (before.len() == 1 || last.text.contains(['\n', '\r']))
        }
    }
}

/// Gives the tokens to the section that they stand below.
fn close<'t, 'a>(sections: &mut [Section<'t, 'a>], body: &'t [Token<'a>], faults: &mut Faults<'_>) {
    match sections.last_mut() {
        Some(section) => section.body = body,
        None => {
            if let Some(first) = body.iter().find(|token| token.is_significant()) {
                faults.add(first.offset, Fault::BeforeMarkers { sql: shortened(first.text) });
            }
        }
    }
}
