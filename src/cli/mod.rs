//! The command line: every verb but `run` and `demo`, which the daemon's own files have.
//!
//! **Promise.** What goes wrong is said in one text with place, value and remedy, and an exit code that scripts can tell
//! apart: 1 failed, 2 wrong use or configuration, 3 a condition is not met. Results go to standard output, `--json`
//! stands beside every table, and everything else goes to standard error.
//!
//! **How.** `args` is what can be typed. Each verb is one file with one function, `run`. They work through the database,
//! so that they can be typed anywhere.

pub(crate) mod append;
pub(crate) mod args;
mod aside;
pub(crate) mod build;
pub(crate) mod catalog;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod configuration;
pub(crate) mod dead_letters;
mod deed;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod lag;
pub(crate) mod log;
pub(crate) mod migrate;
mod paint;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod rebase;
pub(crate) mod resume;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod versions;
pub(crate) mod wait;

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use secrecy::ExposeSecret;

use crate::config::{ConfigError, Loaded, connect_options, masked_url};
use crate::engine::build::BuildError;
use crate::error::{EventStoreError, chain, told, with_remedy};
use crate::store::Link;

/// A database that does not answer within this time is not there, for somebody who waits at a terminal.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was tried and failed: exit code 1.
    Failed(String),
    /// It was asked wrongly: exit code 2.
    Usage(String),
    /// It was asked whether something is so, and it is not: exit code 3.
    NotMet(String),
}

impl Failure {
    /// The exit code, and what to print.
    pub(crate) fn report(&self) -> (u8, &str) {
        match self {
            Self::Failed(text) => (1, text),
            Self::Usage(text) => (2, text),
            Self::NotMet(text) => (3, text),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<EventStoreError> for Failure {
    fn from(error: EventStoreError) -> Self {
        Self::Failed(with_remedy(chain(&error), error.remedy()))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(told(&error))
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let trouble = error.trouble();
        let place = trouble.place.map_or_else(String::new, |place| format!("{place}: "));
        Self::Failed(format!("{place}{}; {}", trouble.message, trouble.remedy))
    }
}

/// One connection for one verb, to a sound store of the right schema.
async fn connect(loaded: &Loaded) -> Result<Link<'static>, Failure> {
    let mut conn = connect_bare(loaded).await?;
    crate::store::require_current(&mut conn).await?;
    crate::store::require_sound(&mut conn).await?;
    Ok(conn)
}

/// As [`connect`], for verbs that only look: a store that is not sound, or on a standby, can be looked at, and is
/// warned of.
async fn connect_to_look(loaded: &Loaded) -> Result<Link<'static>, Failure> {
    let mut conn = connect_bare(loaded).await?;
    crate::store::require_current(&mut conn).await?;
    match crate::store::require_sound(&mut conn).await {
        Err(
            unsound @ (EventStoreError::Unsound { .. }
            | EventStoreError::AheadOfCluster { .. }
            | EventStoreError::InRecovery),
        ) => eprintln!("foldd: warning: {unsound}"),
        sound => sound?,
    }
    Ok(conn)
}

/// One connection, whatever the schema.
async fn connect_bare(loaded: &Loaded) -> Result<Link<'static>, Failure> {
    let url = loaded.database_url()?;
    let options = connect_options(&url)?;
    let unreachable = |why: &str| {
        let database = masked_url(url.expose_secret());
        Failure::Failed(format!("cannot reach {database}: {why}"))
    };
    tokio::time::timeout(CONNECT_DEADLINE, Link::shared(&options))
        .await
        .map_err(|_| {
            unreachable("no answer within 10 s; is PostgreSQL running there, and is the URL right?")
        })?
        .map_err(|error| unreachable(&told(&error)))
}

/// Prints to standard output. A reader that went away, such as `head`, is no failure. Control characters in what events
/// and errors say are shown, not obeyed.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_as_it_is(&harmless(text))
}

/// As [`print`], for a text in which nothing of events and errors is left that could command a terminal.
fn print_as_it_is(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A text in which no terminal finds a command.
fn harmless(text: &str) -> Cow<'_, str> {
    let commands = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
    if !text.contains(commands) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut shown, char| {
            if commands(char) {
                shown.extend(char.escape_default())
            } else {
                shown.push(char)
            }
            shown
        })
        .into()
}

/// Prints a value as JSON, for people and programs.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn what_an_event_says_commands_no_terminal() {
        assert_eq!(harmless("stream \u{1b}[2Jé\tx\n"), "stream \\u{1b}[2Jé\tx\n");
        assert_eq!(harmless("plain"), "plain");
    }
}
