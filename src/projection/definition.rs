//! What a version of a projection *is*: categories, tables and handlers. Two definitions that
//! differ in comments, white space, order of `@on` entries, line numbers or settings are the same.
//!
//! Definitions are stored in the database as JSON, with the original texts, so that any replica
//! can run any version. The identity is not stored: it is computed from the texts, so that it may
//! be spelled otherwise by a later foldd.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use similar::TextDiff;

use crate::projection::file::{Entry, Handlers, OnEntry, ProjectionFile};
use crate::projection::lexer::{Token, canonical, is_spaced, normalise, split_statements, tokens};
use crate::projection::settings::{MissingSetting, Settings};

/// The identity of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// The file that it came from, for messages. Not part of the identity.
    pub path: String,
    /// Whose events it gets.
    pub categories: Categories,
    /// The statements that build its tables, all in one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Entry>,
    /// What is done with events.
    pub body: Body,
}

/// Whose events a projection gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Categories {
    /// Everybody's.
    All,
    /// Those of these categories, sorted, each once.
    Listed(Vec<String>),
}

/// What is done with events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "entries", rename_all = "snake_case")]
pub(crate) enum Body {
    /// `@on` entries: one event at a time.
    PerEvent(Vec<OnEntry>),
    /// `@batch` statements: a page at a time.
    PerBatch(Vec<Entry>),
    /// A handler in the binary, registered under the projection's name and version.
    Rust,
}

impl Body {
    /// Whether its statements are run once a page.
    pub(crate) fn takes_whole_pages(&self) -> bool {
        matches!(self, Self::PerBatch(_))
    }
}

impl Definition {
    /// The definition that a file and the effective settings make: the front matter as the
    /// configuration overrides it.
    ///
    /// # Errors
    /// When the settings name no categories.
    pub(crate) fn of_file(file: &ProjectionFile, effective: &Settings) -> Result<Self, MissingSetting> {
        let body = match &file.handlers {
            Handlers::PerEvent(entries) => Body::PerEvent(entries.clone()),
            Handlers::PerBatch(entries) => Body::PerBatch(entries.clone()),
        };
        let categories = Categories::of(&file.name, effective)?;
        Ok(Self { path: file.path.clone(), categories, tables: file.tables.clone(), body })
    }

    /// The definition of a Rust handler, which the configuration or the code declares. `path` says
    /// where, and the lines of `tables` count from 1.
    ///
    /// # Errors
    /// When the settings name no categories.
    pub(crate) fn of_rust(
        name: &str,
        path: &str,
        effective: &Settings,
        tables: Option<&str>,
    ) -> Result<Self, MissingSetting> {
        let categories = Categories::of(name, effective)?;
        let tables =
            tables.filter(|sql| !normalise(sql).is_empty()).map(|sql| Entry { sql: sql.to_owned(), line: 1 });
        Ok(Self { path: path.to_owned(), categories, tables, body: Body::Rust })
    }

    /// A canonical text: equal for definitions that are the same, different for others.
    pub(crate) fn identity(&self) -> String {
        let mut text = String::new();
        match &self.categories {
            Categories::All => text.push_str("all categories\n"),
            Categories::Listed(names) => {
                text.push_str("categories\n");
                // The list is sorted when it is made, but what was stored may be older.
                for name in names.iter().collect::<BTreeSet<_>>() {
                    text.push_str(&format!("  {name:?}\n"));
                }
            }
        }
        if let Some(tables) = &self.tables {
            text.push_str("\ntables\n");
            text.push_str(&laid_out(&tables.sql));
        }
        match &self.body {
            Body::PerEvent(entries) => {
                for (types, body) in grouped(entries) {
                    text.push_str(&format!("\non {}\n{body}", types.join(", ")));
                }
            }
            Body::PerBatch(entries) => {
                for entry in entries {
                    text.push_str(&format!("\nbatch\n{}", laid_out(&entry.sql)));
                }
            }
            Body::Rust => text.push_str("\nhandler in rust\n"),
        }
        text
    }

    /// Whether the other one is the same version of a projection.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What changed from this definition, the applied one, to the other: a unified diff of the
    /// canonical texts, empty when they are the same.
    pub(crate) fn diff(&self, other: &Self) -> String {
        let (before, after) = (self.identity(), other.identity());
        if before == after {
            return String::new();
        }
        TextDiff::from_lines(&before, &after)
            .unified_diff()
            .context_radius(3)
            .header("applied", &other.path)
            .to_string()
    }

    /// One line: how it handles events, whose, and into how many statements' tables.
    pub(crate) fn summary(&self) -> String {
        let statements = self.tables.as_ref().and_then(|tables| split_statements(&tables.sql).ok());
        let tables = match statements.map_or(0, |statements| statements.len()) {
            0 => String::new(),
            count => format!(", {}", counted(count, "statement", "for tables")),
        };
        format!("{}, {}{tables}", self.body, self.categories)
    }
}

impl Categories {
    /// The categories that settings choose.
    ///
    /// # Errors
    /// When they name none and do not say `all = true`.
    pub(crate) fn of(projection: &str, effective: &Settings) -> Result<Self, MissingSetting> {
        if effective.all == Some(true) {
            return Ok(Self::All);
        }
        match &effective.categories {
            Some(names) if !names.is_empty() => {
                let sorted: BTreeSet<&String> = names.iter().collect();
                Ok(Self::Listed(sorted.into_iter().cloned().collect()))
            }
            Some(_) | None => Err(MissingSetting {
                projection: projection.to_owned(),
                key: "categories",
                remedy: "name them, as in `categories = [\"order\"]`, or write `all = true`",
            }),
        }
    }
}

impl fmt::Display for Categories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all categories"),
            Self::Listed(names) if names.len() == 1 => write!(f, "category {}", names.join(", ")),
            Self::Listed(names) => write!(f, "categories {}", names.join(", ")),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerEvent(entries) => {
                let types = entries.iter().map(|entry| entry.types.len()).sum();
                write!(f, "{}", counted(types, "event type", "handled one event at a time"))
            }
            Self::PerBatch(entries) => write!(f, "{}", counted(entries.len(), "statement", "for each batch")),
            Self::Rust => f.write_str("handler in rust"),
        }
    }
}

/// Bodies with the event types that they handle. Neither the order of entries nor whether equal
/// bodies are stacked makes a difference, since one event meets one body.
fn grouped(entries: &[OnEntry]) -> Vec<(Vec<String>, String)> {
    let mut types_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in entries {
        let types = types_of.entry(laid_out(&entry.body.sql)).or_default();
        types.extend(entry.types.iter().map(|event_type| format!("{:?}", event_type.name)));
    }
    let mut groups: Vec<(Vec<String>, String)> =
        types_of.into_iter().map(|(body, types)| (types.into_iter().collect(), body)).collect();
    groups.sort();
    groups
}

/// The statements of a text in normal form, broken into lines so that a diff shows what changed
/// and not a page-long line. A text that is not closed somewhere stays as it is.
fn laid_out(sql: &str) -> String {
    match split_statements(sql) {
        Ok(statements) => {
            statements.iter().map(|statement| format!("  {};\n", broken_into_lines(statement.text))).collect()
        }
        Err(_) => format!("  {}\n", normalise(sql)),
    }
}

fn broken_into_lines(statement: &str) -> String {
    let tokens = tokens(statement).unwrap_or_default();
    let mut depth = 0_usize;
    let mut text = String::new();
    let mut previous: Option<&Token<'_>> = None;
    // Columns of a table stand in parentheses, those of other statements mostly do not.
    let mut comma_depth = 0;
    for token in tokens.iter().filter(|token| token.is_significant()) {
        match previous {
            None => comma_depth = usize::from(token.is_word("create")),
            Some(before) if breaks(before, token, depth, comma_depth) => text.push_str("\n    "),
            Some(before) if is_spaced(before, token) => text.push(' '),
            Some(_) => {}
        }
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        }
        text.push_str(&canonical(token));
        previous = Some(token);
    }
    text
}

/// Whether a new line begins between two tokens: after commas, and before clauses.
fn breaks(before: &Token<'_>, token: &Token<'_>, depth: usize, comma_depth: usize) -> bool {
    const CLAUSES: [&str; 12] = [
        "values", "select", "from", "where", "group", "having", "order", "on", "set", "union", "using",
        "when",
    ];
    (before.is_symbol(",") && depth <= comma_depth)
        || (depth == 0 && !before.is_symbol(".") && CLAUSES.iter().any(|clause| token.is_word(clause)))
}

fn counted(count: usize, what: &str, rest: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural} {rest}")
}
