//! What can go wrong with a batch. What to do about it is `directive`, what to tell a person `remedy`, what to log
//! `gist`: each is one exhaustive function.

mod directive;
mod gist;
mod remedy;

pub(crate) use directive::Policy;

use crate::error::{is_transient, sqlstate};
use crate::ledger::phases::EventRef;
use crate::metrics::{BatchOutcome, ErrorKind};

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
    /// An operator paused the subscription.
    Paused,
    /// Streams are quarantined, and the batch would have applied their events.
    Quarantined,
    /// Parking one more event would park more streams than is allowed.
    TooManyParked(String),
    /// Processes died while they tried this event alone.
    Crashed(EventRef),
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
    /// An index that waited for the load does not fit the rows that are there.
    Unindexed { sqlstate: String, message: String },
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
            sqlstate::PAUSED => Self::Paused,
            sqlstate::QUARANTINED => Self::Quarantined,
            sqlstate::TOO_MANY_PARKED => Self::TooManyParked(message),
            sqlstate::OUT_OF_ORDER => Self::OutOfOrder(message),
            "57014" => Self::TimedOut { page, event: None },
            // The session is gone, perhaps while it committed.
            "57P01" | "57P02" | "57P03" | "25P03" | "25P04" => Self::Unknown(message),
            _ if code.starts_with("08") => Self::Unknown(message),
            _ if is_transient(error) => Self::Passing { sqlstate: code, message },
            _ => Self::Broken { sqlstate: code, message },
        }
    }

    /// What an error of creating an index after the load says.
    pub(crate) fn of_index(error: &sqlx::Error, definition: &str) -> Self {
        let fault = Self::of(error, 1);
        if let Self::Broken { sqlstate, message } = fault {
            return Self::Unindexed { sqlstate, message: format!("{message}, by `{definition}`") };
        }
        if matches!(fault, Self::TimedOut { .. }) { Self::slow(error) } else { fault }
    }

    /// A statement of foldd's own that ran out of time, outside of any batch: the server is busy.
    pub(crate) fn slow(error: &sqlx::Error) -> Self {
        let database = error.as_database_error();
        Self::Passing {
            sqlstate: database.and_then(|error| error.code()).unwrap_or_default().into_owned(),
            message: database.map_or_else(|| error.to_string(), |error| error.message().to_owned()),
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
            | Self::Paused
            | Self::Quarantined
            | Self::TooManyParked(_)
            | Self::Crashed(_)
            | Self::Meddling
            | Self::OutOfOrder(_)
            | Self::Broken { .. }
            | Self::Unindexed { .. } => 1,
        }
    }

    /// The event that it is about, where that is known.
    pub(crate) fn event(&self) -> Option<&EventRef> {
        match self {
            Self::Handler(fault) => fault.event.as_ref(),
            Self::TimedOut { event, .. } => event.as_ref(),
            Self::Crashed(event) => Some(event),
            Self::Unknown(_)
            | Self::Passing { .. }
            | Self::Fenced
            | Self::CheckpointMoved
            | Self::StaleHorizon
            | Self::Paused
            | Self::Quarantined
            | Self::TooManyParked(_)
            | Self::Meddling
            | Self::OutOfOrder(_)
            | Self::Broken { .. }
            | Self::Unindexed { .. } => None,
        }
    }

    /// Whether it is nobody's fault: the batch only has to run in another way, or not now.
    pub(crate) fn is_no_error(&self) -> bool {
        matches!(self, Self::Paused | Self::Quarantined)
    }

    /// Under which kind it is counted.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown(_) | Self::StaleHorizon => ErrorKind::Connection,
            Self::Passing { .. } => ErrorKind::Conflict,
            Self::Fenced | Self::CheckpointMoved | Self::Paused | Self::Quarantined => ErrorKind::Lease,
            Self::TimedOut { .. } => ErrorKind::Timeout,
            Self::Handler(_) | Self::Meddling | Self::TooManyParked(_) | Self::Crashed(_) => {
                ErrorKind::Handler
            }
            Self::OutOfOrder(_) => ErrorKind::Order,
            Self::Broken { .. } | Self::Unindexed { .. } => ErrorKind::Definition,
        }
    }

    /// How the batch is counted.
    pub(crate) fn outcome(&self) -> BatchOutcome {
        match self {
            Self::Unknown(_) => BatchOutcome::Unknown,
            Self::Fenced | Self::CheckpointMoved => BatchOutcome::Fenced,
            Self::Passing { .. }
            | Self::StaleHorizon
            | Self::Paused
            | Self::Quarantined
            | Self::TooManyParked(_)
            | Self::Crashed(_)
            | Self::TimedOut { .. }
            | Self::Handler(_)
            | Self::Meddling
            | Self::OutOfOrder(_)
            | Self::Broken { .. }
            | Self::Unindexed { .. } => BatchOutcome::Failed,
        }
    }
}
