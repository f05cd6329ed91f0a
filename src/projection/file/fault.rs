//! Everything that can be wrong with a projection file, each with the value and the remedy.

use similar::get_close_matches;

use super::name::NameError;
use crate::projection::lexer::LexFault;
use crate::projection::settings::SettingError;

/// A fault of a projection file and its place. Prints as `path:line:column: fault`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}:{column}: {fault}")]
pub(crate) struct FileError {
    /// The file, as the user knows it.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a projection file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("the file has {bytes} bytes; a projection file has at most {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the file has a NUL byte here; save it as UTF-8 text")]
    NulByte,
    #[error("the file is empty; {EXAMPLE}")]
    Empty,

    #[error("the file does not begin with its front matter; {EXAMPLE}")]
    NoFrontMatter,
    #[error("the front matter stands here, and something before it; move it to the top of the file")]
    LateFrontMatter,
    #[error(
        "the front matter that begins here never ends; close it with */ (comments nest: each /* needs its own */)"
    )]
    OpenFrontMatter,
    #[error("the front matter is not TOML: {message}; write `key = value` lines")]
    Toml { message: String },
    #[error("`{key}` is no key of the front matter; {}", closest(.key, &crate::projection::settings::Settings::KEYS, ""))]
    UnknownKey { key: String },
    #[error("`{key}` takes {takes}, and this is not ({message})")]
    BadValue { key: String, takes: &'static str, message: String },
    #[error(transparent)]
    Setting(#[from] SettingError),

    #[error("{0}")]
    Lex(LexFault),
    #[error("`@{marker}` is no marker; {}", closest(.marker, &MARKERS, "@"))]
    UnknownMarker { marker: String },
    #[error(
        "`@{marker}` stands behind something else and would be a mere comment; move it to the start of a line"
    )]
    MarkerInLine { marker: String },
    #[error("`@{marker}` takes nothing after it, and there is {argument}; remove it")]
    Argument { marker: &'static str, argument: String },
    #[error("`@{marker}` takes {takes} on its line, and there is nothing; write `{example}`")]
    NoArgument { marker: &'static str, takes: &'static str, example: &'static str },
    #[error(
        "{sql} stands before the first marker and belongs to nothing; put `-- @tables`, `-- @on TYPE` or `-- @batch` before it"
    )]
    BeforeMarkers { sql: String },

    #[error("`@tables` stands here a second time (first on line {first}); put all tables under one")]
    RepeatedTables { first: u32 },
    #[error(
        "event type {event_type} has a handler already, on line {first}; put both effects into one statement, or remove one"
    )]
    RepeatedType { event_type: String, first: u32 },
    #[error("a test named {name} exists already, on line {first}; rename one")]
    RepeatedTest { name: String, first: u32 },
    #[error(
        "`@{found}` stands in a file that uses `@{other}` (line {first}); a projection uses one of the two"
    )]
    Mixed { found: &'static str, other: &'static str, first: u32 },
    #[error("the file has no handler; add `-- @on TYPE` or `-- @batch` with a statement below it")]
    NoHandler,
    #[error("`@{marker}` has no statement below it; write one, or remove the marker")]
    NoStatement { marker: &'static str },
    #[error("{second} is a second statement below `@{marker}`, which takes one; {remedy}")]
    SecondStatement { marker: &'static str, second: String, remedy: &'static str },

    #[error(
        "{statement} does not belong in a handler: only insert, update, delete and merge belong in a handler; {remedy}"
    )]
    NotForHandler { statement: String, remedy: &'static str },
    #[error("a handler has {word} here; {remedy}")]
    HandlerWord { word: String, remedy: &'static str },
    #[error("{statement} does not belong under `@tables`, which takes create, alter and comment; {remedy}")]
    NotForTables { statement: String, remedy: &'static str },
    #[error(
        "a table, view or sequence named {name} would hide foldd's own relation of that name from the handlers; choose another name"
    )]
    ReservedRelation { name: String },

    #[error("`@{marker}` stands outside of a test; put `-- @test NAME` before it")]
    OutsideTest { marker: &'static str },
    #[error("`@given` stands after a query of its test; put all `@given` lines first")]
    LateGiven,
    #[error(
        "`@given` takes `stream | event type | data`, and after that metadata if wanted; there is {argument}"
    )]
    BadGiven { argument: String },
    #[error("the {what} is not JSON: {message}; write one value, such as {{\"amount\": 30}}")]
    BadJson { what: &'static str, message: String },
    #[error("test {name} has no query; write a select below its `@given` lines, and `-- @expect` below that")]
    NoQuery { name: String },
    #[error("`@expect` stands before any query; put the select that it speaks of before it")]
    NoQueryBefore,
    #[error("{statement} is no query; a test asks with select, with or values")]
    NotAQuery { statement: String },
}

/// The markers, without their `@`.
pub(super) const MARKERS: [&str; 6] = ["tables", "on", "batch", "test", "given", "expect"];

const EXAMPLE: &str =
    "begin with /* foldd, lines such as `version = 1` and `categories = [\"order\"]`, and */";

/// "did you mean" for a word that is like a known one, else the list of the known ones.
fn closest(word: &str, known: &[&str], prefix: &str) -> String {
    /// No known word is longer than half of this; comparing long ones costs for nothing.
    const MAX_COMPARED_BYTES: usize = 60;
    let folded = word.to_ascii_lowercase();
    let close = if word.len() <= MAX_COMPARED_BYTES {
        get_close_matches(folded.as_str(), known, 1, 0.6)
    } else {
        Vec::new()
    };
    match close.first() {
        Some(close) => format!("did you mean `{prefix}{close}`?"),
        None => {
            let known: Vec<String> = known.iter().map(|known| format!("`{prefix}{known}`")).collect();
            format!("there are {}", known.join(", "))
        }
    }
}
