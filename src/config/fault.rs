//! What is wrong, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// All faults of a configuration, at least one, in the order of their places.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct ConfigError {
    /// One for each thing to mend.
    pub(crate) faults: Vec<Fault>,
}

/// One fault. Never holds a secret.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// Where the value was given.
    pub(crate) place: Place,
    /// The value, with its key where it has one: `daemon.workers = 0`.
    pub(crate) value: String,
    /// What is wrong with it.
    pub(crate) problem: String,
    /// What to do instead.
    pub(crate) remedy: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Nowhere: the built-in default.
    Default,
    /// A file, as it was named on the command line, as a whole.
    File(PathBuf),
    /// A line and a column in a file, both from 1, columns in characters.
    Line(PathBuf, usize, usize),
    /// A variable in the environment.
    Variable(String),
}

/// How much of a key and its value an error repeats: room for most paths.
const NAMED_CHARS: usize = 200;

/// How much of a value alone.
const VALUE_CHARS: usize = 60;

impl Fault {
    /// A fault at `place`.
    pub(crate) fn new(
        place: Place,
        value: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Fault {
            place,
            value: cut(&value.into(), NAMED_CHARS),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { place, value, problem, remedy } = self;
        write!(f, "{place}: {value}: {problem}; {remedy}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => write!(f, "default"),
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Line(path, line, column) => write!(f, "{}:{line}:{column}", path.display()),
            Place::Variable(name) => write!(f, "{name}"),
        }
    }
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        ConfigError { faults: vec![fault] }
    }
}

/// The beginning of a value.
pub(super) fn shortened(value: &str) -> String {
    cut(value, VALUE_CHARS)
}

/// The first characters, control characters escaped: an error must not redraw the terminal or run
/// to 10,000 characters.
fn cut(value: &str, chars: usize) -> String {
    let mut shown = String::new();
    for c in value.chars().take(chars) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if value.chars().nth(chars).is_some() {
        shown.push('…');
    }
    shown
}
