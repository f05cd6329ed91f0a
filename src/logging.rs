//! Logs: one subscriber for the process, on standard error, so that what a verb prints stays clean.

use std::any::Any;
use std::io::IsTerminal;
use std::panic;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogFormat;

/// What libraries say below this is of no use to an operator: sqlx logs every statement. Directives
/// of one's own for the same target replace these.
const QUIET: &str = "sqlx=warn,hyper=warn";

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggingError {
    /// The level is neither a level nor filter directives.
    #[error(
        "log.level = {level:?} is not a filter; write a level, or directives such as info,foldd::engine=debug"
    )]
    Filter {
        /// As configured.
        level: String,
        /// What the parser says.
        source: ParseError,
    },
    /// Somebody else has installed a subscriber.
    #[error("a log subscriber is installed already; begin logging once, or leave it to the host program")]
    Installed(#[source] TryInitError),
}

/// Begins logging: `level` and above, in this `format`. Colours only on a terminal, and never when
/// `no_color` asks for none.
///
/// # Errors
/// The level cannot be read, or logging has begun before.
pub(crate) fn init(format: LogFormat, level: &str, no_color: bool) -> Result<(), LoggingError> {
    let terminal = std::io::stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter(level)?);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let installed = if is_pretty(format, terminal) {
        registry.with(layer.with_ansi(terminal && !no_color)).try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()
    };
    installed.map_err(LoggingError::Installed)?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic is logged like everything else: where, and what its author wrote down. What was put together at run time may
/// quote an event that a handler did not expect; `foldd status` has that, if it was a handler.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map_or_else(String::new, ToString::to_string);
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace =
        (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        backtrace,
        "panicked at {place}: {}",
        literal(info.payload()).unwrap_or("its words are not logged")
    );
}

/// The words of a panic, if they are the same whatever happens.
fn literal(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

fn is_pretty(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    }
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(format!("{QUIET},{level}"))
        .map_err(|source| LoggingError::Filter { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::{LogFormat, filter, is_pretty, literal};

    #[test]
    fn auto_is_pretty_only_on_a_terminal() {
        let cases = [
            (LogFormat::Auto, true, true),
            (LogFormat::Auto, false, false),
            (LogFormat::Json, true, false),
            (LogFormat::Pretty, false, true),
        ];
        for (format, terminal, pretty) in cases {
            assert_eq!(is_pretty(format, terminal), pretty, "{format:?}, terminal {terminal}");
        }
    }

    #[test]
    fn statements_are_quiet_unless_asked_for() {
        let shown = |level: &str| filter(level).expect(level).to_string();
        assert!(shown("debug").contains("sqlx=warn"));
        assert!(shown("info,sqlx=debug").contains("sqlx=debug"));
        assert!(!shown("info,sqlx=debug").contains("sqlx=warn"));
    }

    #[test]
    fn a_panic_says_what_its_author_wrote_and_not_what_it_was_given() {
        let caught = |panics: fn()| std::panic::catch_unwind(panics).expect_err("it panics");
        assert_eq!(literal(&*caught(|| panic!("no such account"))), Some("no such account"));
        let given = std::hint::black_box("canary");
        let caught = std::panic::catch_unwind(|| panic!("no account {given}")).expect_err("it panics");
        assert_eq!(literal(&*caught), None);
    }

    #[test]
    fn a_bad_level_is_an_error_with_value_and_remedy() {
        let error = filter("foldd=loud").expect_err("no level").to_string();
        assert!(error.contains("foldd=loud") && error.contains("write a level"), "{error}");
    }
}
