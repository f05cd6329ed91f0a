//! What a caller says about one stream when it reads or appends.

use std::fmt;

/// What the caller believes about a stream, checked in the append's own statement.
///
/// ```no_run
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Closed;
/// # impl foldd::EventData for Closed { fn event_type(&self) -> &'static str { "Closed" } }
/// use foldd::{Event, EventStoreError, ExpectedVersion};
///
/// # async fn example(store: foldd::EventStore) -> Result<(), EventStoreError> {
/// // Decided on what was read up to version 3: not valid any more when somebody else was faster.
/// let closed = [Event::new(Closed)];
/// match store.append("account-7", "account", ExpectedVersion::Exact(3), &closed).await {
///     Err(EventStoreError::ConcurrencyConflict { actual, .. }) => println!("it is at {actual:?}: read and decide anew"),
///     appended => println!("it is at version {}", appended?.version),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// The stream does not exist yet.
    NoStream,
    /// The stream is at exactly this version. `Exact(0)` never holds: creating a stream is [`NoStream`](Self::NoStream).
    Exact(i64),
    /// Whatever it is: creates the stream or continues it.
    Any,
}

impl ExpectedVersion {
    /// As `es_append` takes it: null for any, -1 for no stream. No stream is at 0 or below, and -1 must not be taken
    /// for [`NoStream`](Self::NoStream).
    pub(crate) fn as_sql(self) -> Option<i64> {
        match self {
            Self::NoStream => Some(-1),
            Self::Exact(version) => Some(version.max(0)),
            Self::Any => None,
        }
    }

    /// As `es_append` reports it.
    pub(crate) fn from_sql(version: Option<i64>) -> Self {
        match version {
            None => Self::Any,
            Some(-1) => Self::NoStream,
            Some(version) => Self::Exact(version),
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStream => f.write_str("no stream"),
            Self::Exact(version) => write!(f, "version {version}"),
            Self::Any => f.write_str("any version"),
        }
    }
}

/// Which way to read a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadDirection {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// Which events of a stream to read. The default is all of them, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamQuery {
    /// Which way.
    pub direction: ReadDirection,
    /// The first version to return, inclusive; `None` begins at the end that the direction starts from.
    pub from_version: Option<i64>,
    /// At most so many events; `None` for no bound.
    pub limit: Option<i64>,
}
