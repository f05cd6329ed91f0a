//! What went wrong, what to do about it, and what to tell a person: each one exhaustive function.

use crate::error::{is_transient, is_transient_state, sqlstate};
use crate::ledger::phases::{EventRef, Trouble};
use crate::metrics::{BatchOutcome, ErrorKind};

use super::machine::Directive;

/// Why a batch did not commit.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection failed or missed its deadline: whether the batch committed is unknown.
    Unknown(String),
    /// The server refused for a passing reason and rolled back: deadlock, lock timeout, shutting down.
    Passing { sqlstate: String, message: String },
    /// Somebody holds a newer fence token.
    Fenced,
    /// The checkpoint is not where it was: an earlier commit whose answer was lost got through.
    CheckpointMoved,
    /// The horizon was seen before the server restarted.
    StaleHorizon,
    /// The batch ran longer than it may; the event, when there was only one.
    TimedOut { page: i64, event: Option<EventRef> },
    /// A handler's statement failed.
    Handler(HandlerFault),
    /// A handler ended the transaction that was not its own.
    Meddling,
    /// A stream's versions do not follow one another in the page.
    OutOfOrder(String),
    /// The compiled function, its tables or foldd's own schema are not as they should be.
    Broken { sqlstate: String, message: String },
}

/// A handler's statement that failed.
#[derive(Debug, Clone)]
pub(crate) struct HandlerFault {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// File and line.
    pub(crate) place: Option<String>,
    /// The event, when it is known.
    pub(crate) event: Option<EventRef>,
    /// How many events the page had.
    pub(crate) page: i64,
}

impl Fault {
    /// What an error of the driver says about the batch's statement.
    pub(crate) fn of(error: &sqlx::Error, page: i64) -> Self {
        let Some(database) = error.as_database_error() else {
            return Self::Unknown(crate::error::chain(error));
        };
        let code = database.code().unwrap_or_default().into_owned();
        let message = database.message().to_owned();
        match code.as_str() {
            sqlstate::FENCED => Self::Fenced,
            sqlstate::CHECKPOINT_MOVED => Self::CheckpointMoved,
            sqlstate::STALE_HORIZON => Self::StaleHorizon,
            sqlstate::OUT_OF_ORDER => Self::OutOfOrder(message),
            "57014" => Self::TimedOut { page, event: None },
            // The session is gone, perhaps while it committed.
            "57P01" | "57P02" | "57P03" | "25P03" | "25P04" => Self::Unknown(message),
            _ if code.starts_with("08") => Self::Unknown(message),
            _ if is_transient(error) => Self::Passing { sqlstate: code, message },
            _ => Self::Broken { sqlstate: code, message },
        }
    }

    /// A statement of foldd's own that ran out of time, outside of any batch: the server is busy.
    pub(crate) fn slow(error: &sqlx::Error) -> Self {
        let database = error.as_database_error();
        Self::Passing {
            sqlstate: database.and_then(|error| error.code()).unwrap_or_default().into_owned(),
            message: database.map_or_else(|| error.to_string(), |error| error.message().to_owned()),
        }
    }

    /// What to do.
    pub(crate) fn directive(&self) -> Directive {
        match self {
            Self::Unknown(_) | Self::Fenced | Self::CheckpointMoved => Directive::Retake,
            Self::Passing { .. } | Self::StaleHorizon => Directive::Retry,
            Self::TimedOut { page, .. } if *page > 1 => Directive::Shrink,
            Self::TimedOut { .. } | Self::Broken { .. } | Self::Meddling | Self::OutOfOrder(_) => {
                Directive::Halt
            }
            Self::Handler(fault) if is_transient_state(&fault.sqlstate) => Directive::Retry,
            Self::Handler(fault) if fault.event.is_none() && fault.page > 1 => Directive::Shrink,
            Self::Handler(_) => Directive::Halt,
        }
    }

    /// How many events the page had that is to be halved.
    pub(crate) fn page(&self) -> i64 {
        match self {
            Self::Handler(fault) => fault.page,
            Self::TimedOut { page, .. } => *page,
            Self::Unknown(_)
            | Self::Passing { .. }
            | Self::Fenced
            | Self::CheckpointMoved
            | Self::StaleHorizon
            | Self::Meddling
            | Self::OutOfOrder(_)
            | Self::Broken { .. } => 1,
        }
    }

    /// Under which kind it is counted.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) | Self::StaleHorizon => ErrorKind::Connection,
            Self::Passing { .. } => ErrorKind::Conflict,
            Self::Fenced | Self::CheckpointMoved => ErrorKind::Lease,
            Self::TimedOut { .. } => ErrorKind::Timeout,
            Self::Handler(_) | Self::Meddling => ErrorKind::Handler,
            Self::OutOfOrder(_) => ErrorKind::Order,
            Self::Broken { .. } => ErrorKind::Definition,
        }
    }

    /// How the batch is counted.
    pub(crate) fn outcome(&self) -> BatchOutcome {
        match self {
            Self::Unknown(_) => BatchOutcome::Unknown,
            Self::Fenced | Self::CheckpointMoved => BatchOutcome::Fenced,
            Self::Passing { .. }
            | Self::StaleHorizon
            | Self::TimedOut { .. }
            | Self::Handler(_)
            | Self::Meddling
            | Self::OutOfOrder(_)
            | Self::Broken { .. } => BatchOutcome::Failed,
        }
    }

    /// What happened and what to do, for a person.
    pub(crate) fn trouble(&self) -> Trouble {
        let (message, remedy) = match self {
            Self::Unknown(message) => (
                format!("the connection failed: {message}"),
                "it is tried again; see whether PostgreSQL is up",
            ),
            Self::Passing { message, .. } => (message.clone(), "it is tried again by itself"),
            Self::Fenced => ("another replica took the lease".to_owned(), "nothing: this one stands by"),
            Self::CheckpointMoved => {
                ("a commit got through whose answer was lost".to_owned(), "nothing: it goes on from there")
            }
            Self::StaleHorizon => ("PostgreSQL was restarted".to_owned(), "nothing: it goes on in a moment"),
            Self::TimedOut { page, .. } if *page > 1 => {
                (format!("a batch of {page} events took too long"), "it is tried again with smaller batches")
            }
            Self::TimedOut { .. } => (
                "folding a single event takes longer than daemon.batch_timeout".to_owned(),
                "look for an endless loop, a missing index or a lock held by another session; then raise \
                 daemon.batch_timeout or mend the handler and restart",
            ),
            Self::Handler(fault) => (fault.text(), handler_remedy(&fault.sqlstate)),
            Self::Meddling => (
                "the handler committed or rolled back the batch's transaction".to_owned(),
                "take begin, commit and rollback out of the handler; what it committed itself stays, so build the \
                 projection anew",
            ),
            Self::OutOfOrder(message) => (
                message.clone(),
                "let every writer append by es_append; to go on with the log as it is, set `order_guard = false` for \
                 this projection and restart",
            ),
            Self::Broken { message, .. } => (
                message.clone(),
                "run `foldd check`; if the tables were changed by hand, put them back, then restart",
            ),
        };
        let (sqlstate, place, event) = match self {
            Self::Handler(fault) => (Some(fault.sqlstate.clone()), fault.place.clone(), fault.event.clone()),
            Self::Passing { sqlstate, .. } | Self::Broken { sqlstate, .. } => {
                (Some(sqlstate.clone()), None, None)
            }
            Self::TimedOut { event, .. } => (None, None, event.clone()),
            Self::OutOfOrder(_) => (Some(sqlstate::OUT_OF_ORDER.to_owned()), None, None),
            Self::Unknown(_) | Self::Fenced | Self::CheckpointMoved | Self::StaleHorizon | Self::Meddling => {
                (None, None, None)
            }
        };
        Trouble { message, remedy: remedy.to_owned(), sqlstate, place, event }
    }
}

impl HandlerFault {
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        text
    }
}

/// What to do about a statement that failed, by the class of its SQLSTATE.
fn handler_remedy(code: &str) -> &'static str {
    match code.get(..2) {
        Some("22") => {
            "the event's data does not fit the statement: make the handler accept it and raise the version"
        }
        Some("23") => {
            "a constraint of the read model refuses the event: make the statement an upsert or loosen the constraint, \
             and raise the version"
        }
        Some("42") => {
            "the statement does not fit its tables: run `foldd check`, mend the file and raise the version"
        }
        Some("2D") => {
            "foldd commits the effect together with the checkpoint: take commit and rollback out of the functions that \
             the statement calls, and raise the version"
        }
        Some("54") => {
            "the event brings the statement to a limit of PostgreSQL: mend the handler and raise the version"
        }
        Some("40" | "53" | "55" | "57" | "08") => "it is tried again by itself",
        _ => "mend the handler and raise the version",
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, HandlerFault};
    use crate::engine::machine::Directive;
    use crate::ledger::phases::EventRef;

    fn handler(sqlstate: &str, named: bool, page: i64) -> Fault {
        let event =
            named.then(|| EventRef { position: 7, stream_id: "a-1".to_owned(), event_type: "A".to_owned() });
        Fault::Handler(HandlerFault {
            sqlstate: sqlstate.to_owned(),
            message: "it failed".to_owned(),
            detail: None,
            hint: None,
            place: None,
            event,
            page,
        })
    }

    #[test]
    fn what_passes_is_retried_and_what_does_not_is_halted_on_its_event() {
        for (fault, directive) in [
            (handler("40P01", true, 10), Directive::Retry),
            (handler("55P03", false, 10), Directive::Retry),
            (handler("22P02", true, 10), Directive::Halt),
            (handler("23505", false, 10), Directive::Shrink),
            (handler("23505", false, 1), Directive::Halt),
            (Fault::TimedOut { page: 2, event: None }, Directive::Shrink),
            (Fault::TimedOut { page: 1, event: None }, Directive::Halt),
            (Fault::Unknown(String::new()), Directive::Retake),
            (Fault::CheckpointMoved, Directive::Retake),
            (Fault::StaleHorizon, Directive::Retry),
        ] {
            assert_eq!(fault.directive(), directive, "{fault:?}");
        }
    }

    #[test]
    fn every_fault_has_a_remedy() {
        for state in ["22P02", "23505", "42703", "40001", "P0001", "XX000", ""] {
            assert!(!handler(state, true, 1).trouble().remedy.is_empty());
        }
    }
}
