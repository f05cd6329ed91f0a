//! What can go wrong in the event store.

use uuid::Uuid;

use crate::stream::ExpectedVersion;

/// The SQLSTATEs that foldd's own functions raise. Public contract: other languages match on them.
pub mod sqlstate {
    /// The stream is not at the expected version.
    pub const CONCURRENCY_CONFLICT: &str = "ES001";
    /// An `event_id` is already in the log.
    pub const DUPLICATE_EVENT: &str = "ES002";
    /// Somebody tried to change or delete events.
    pub const IMMUTABLE: &str = "ES003";
    /// A reader's cursor is ahead of everything that this cluster can have given out.
    pub const CURSOR_AHEAD: &str = "ES004";
    /// A transaction that has sworn not to append, as a projection's statements are run in, tried to.
    pub const SWORN_NOT_TO_APPEND: &str = "ES005";
    /// The lease was lost to a newer fence token.
    pub(crate) const FENCED: &str = "FD001";
    /// The checkpoint is not where its holder left it.
    pub(crate) const CHECKPOINT_MOVED: &str = "FD002";
    /// The horizon was seen in an earlier life of the server.
    pub(crate) const STALE_HORIZON: &str = "FD003";
    /// A stream's versions do not follow one another in the order of the log.
    pub(crate) const OUT_OF_ORDER: &str = "FD005";
    /// An operator paused the subscription.
    pub(crate) const PAUSED: &str = "FD006";
    /// Streams of the subscription are quarantined, and the batch would apply their events.
    pub(crate) const QUARANTINED: &str = "FD007";
    /// More streams would be parked than the projection allows.
    pub(crate) const TOO_MANY_PARKED: &str = "FD008";
}

/// What can go wrong in the event store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventStoreError {
    /// Somebody else appended first, or the stream is missing or there already. Load again and decide anew.
    #[error("stream '{stream_id}' {}, expected {expected}", describe(*.actual))]
    ConcurrencyConflict {
        /// The stream.
        stream_id: String,
        /// What the caller expected.
        expected: ExpectedVersion,
        /// Where the stream stands; `None` when it does not exist.
        actual: Option<i64>,
    },

    /// The event is in the log already: an earlier try got through, or an id was used twice.
    #[error("event_id {event_id} {}", describe_twin(.stored_as.as_ref()))]
    DuplicateEvent {
        /// The repeated id.
        event_id: Uuid,
        /// The stream and version it is stored as; `None` when it was given twice in one append.
        stored_as: Option<(String, i64)>,
    },

    /// A stored event does not fit the type it is read as.
    #[error("event {global_position} of stream '{stream_id}' is no readable '{event_type}'")]
    Deserialization {
        /// The stream.
        stream_id: String,
        /// The event's position.
        global_position: i64,
        /// Its type.
        event_type: String,
        /// What serde says.
        source: serde_json::Error,
    },

    /// An event, its metadata or a snapshot cannot be written as JSON.
    #[error("a value for stream '{stream_id}' cannot be written as JSON")]
    Serialization {
        /// The stream.
        stream_id: String,
        /// What serde says.
        source: serde_json::Error,
    },

    /// A stream's versions are not 1, 2, 3 …: somebody changed the log behind foldd's back.
    #[error("stream '{stream_id}' is corrupt: version {found} stands where {expected} belongs")]
    CorruptStream {
        /// The stream.
        stream_id: String,
        /// The version that should come next.
        expected: i64,
        /// The version that does.
        found: i64,
    },

    /// A subscription that nobody has registered.
    #[error("subscription '{0}' does not exist")]
    UnknownSubscription(String),

    /// The schema in the database is newer than this program.
    #[error("the database has schema version {found}, this foldd knows up to {known}: run a newer foldd")]
    NewerSchema {
        /// What the database has.
        found: i32,
        /// The newest this program knows.
        known: i32,
    },

    /// The schema is older than this program, and migrating was not asked for.
    #[error("the database has schema version {found}, this foldd needs {needed}: run `foldd migrate`")]
    OlderSchema {
        /// What the database has; 0 when it has none.
        found: i32,
        /// What this program needs.
        needed: i32,
    },

    /// A migration that was applied reads differently now.
    #[error("migration {version} ({name}) was applied in another wording than this foldd knows")]
    AlteredMigration {
        /// Its number.
        version: i32,
        /// Its name.
        name: String,
    },

    /// The tables found are neither foldd's nor of the plain shape.
    #[error("{table} exists but {problem}, so it cannot be adopted")]
    NotAdoptable {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        problem: String,
    },

    /// The store is there, but not as it must be: an index is missing, or a sequence draws positions out of order.
    #[error("{problem}: {remedy}")]
    Unsound {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        remedy: String,
    },

    /// The log's stamps are ahead of the cluster's transaction counter, as after a restore into a younger cluster.
    #[error(
        "the log's greatest stamp is {greatest}, but the next transaction of this cluster is {next}: it was restored \
         into a younger cluster, where readers would lose events; stop the daemons and run `foldd rebase`"
    )]
    AheadOfCluster {
        /// The greatest stamp or checkpoint.
        greatest: u64,
        /// The next transaction, as the log counts it.
        next: u64,
    },

    /// Events were appended after a restore and before anybody noticed, below what had been read before.
    #[error(
        "{witness} has passed {events} events unseen, from position {first_position} on: they were appended after a \
         restore and before it was noticed; stop the daemons and run `foldd rebase --repair`"
    )]
    Skipped {
        /// The subscription whose checkpoint is past them, or `the horizon`.
        witness: String,
        /// How many.
        events: i64,
        /// The lowest position among them.
        first_position: i64,
    },

    /// The server is a standby, where nothing can be written and nobody can tell how far the log can be read.
    #[error("the database is in recovery, a standby: connect to the primary, or promote this one")]
    InRecovery,

    /// The database refused or could not be reached.
    #[error("the database reported an error")]
    Database(#[source] sqlx::Error),
}

fn describe(actual: Option<i64>) -> String {
    actual.map_or_else(|| "does not exist".to_owned(), |version| format!("is at version {version}"))
}

fn describe_twin(stored_as: Option<&(String, i64)>) -> String {
    stored_as.map_or_else(
        || "is given twice in one append".to_owned(),
        |(stream_id, version)| format!("is already in the log, as version {version} of stream '{stream_id}'"),
    )
}

impl EventStoreError {
    /// Whether the same call may succeed when it is simply repeated: connection lost, deadlock, serialization
    /// failure, lock timeout, server starting or stopping.
    ///
    /// A conflict is not retryable: the decision has to be made anew. After a lost connection the outcome of a write
    /// is unknown; repeating an append is safe, since its `event_id`s are refused the second time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Database(error) => is_transient(error),
            Self::InRecovery => true,
            Self::ConcurrencyConflict { .. }
            | Self::DuplicateEvent { .. }
            | Self::Deserialization { .. }
            | Self::Serialization { .. }
            | Self::CorruptStream { .. }
            | Self::UnknownSubscription(_)
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::AlteredMigration { .. }
            | Self::NotAdoptable { .. }
            | Self::AheadOfCluster { .. }
            | Self::Skipped { .. }
            | Self::Unsound { .. } => false,
        }
    }

    /// The SQLSTATE, when the database reported one.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        Some(self.driver()?.as_database_error()?.code()?.into_owned())
    }

    /// What to do about it, where the error's own text does not say it.
    pub(crate) fn remedy(&self) -> Option<&str> {
        if let Self::DuplicateEvent { .. } = self {
            return Some("if that is this event, all is well; another event needs an id of its own");
        }
        if let Self::ConcurrencyConflict { .. } = self {
            return Some("read the stream and decide anew");
        }
        if let Self::NotAdoptable { .. } = self {
            return Some("rename the tables that are there, or give foldd a database or a schema of its own");
        }
        remedy(self.driver()?)
    }

    /// The database's own words, or the error's.
    pub(crate) fn message(&self) -> String {
        let database = self.driver().and_then(sqlx::Error::as_database_error);
        database.map_or_else(|| self.to_string(), |database| database.message().to_owned())
    }

    fn driver(&self) -> Option<&sqlx::Error> {
        if let Self::Database(error) = self { Some(error) } else { None }
    }
}

/// Whether an error of the database passes by itself. Classes of Appendix A of PostgreSQL's manual.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the driver's errors are its own affair, and may become more"
)]
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
            true
        }
        // The driver met bytes it did not expect: a connection cut in the middle of an answer.
        sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_transient_state(&code)),
        _ => false,
    }
}

/// Whether an error is the connection's or the whole server's, so that whatever is asked next fails as well.
pub(crate) fn is_outage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().map(|database| database.code().unwrap_or_default());
    is_transient(error) && code.is_none_or(|code| matches!(code.get(..2), Some("08" | "57" | "25")))
}

/// Whether an SQLSTATE names a passing condition.
///
/// 08 connection, 40 rollback (serialization, deadlock), 53 resources, 55P03 lock timeout, 55006 object in use,
/// 57P01 to 57P05 server stopping, starting, session ended, 25006 read-only after a failover.
pub(crate) fn is_transient_state(code: &str) -> bool {
    matches!(code.get(..2), Some("08" | "40" | "53"))
        || matches!(code, "55P03" | "55006" | "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "25P03")
}

/// Whether an SQLSTATE blames what was sent: data (22), constraints (23), limits such as depth or index size (54).
pub(crate) fn is_about_data(code: &str) -> bool {
    matches!(code.get(..2), Some("22" | "23" | "54"))
}

/// What a person does about an error of the database, where that is not plain from its text: in our words,
/// else in those of the server's hint.
pub(crate) fn remedy(error: &sqlx::Error) -> Option<&str> {
    let Some(database) = error.as_database_error() else {
        let unreachable =
            matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_));
        return unreachable.then_some("is PostgreSQL running there, and is the URL right?");
    };
    let code = database.code()?;
    Some(match code.as_ref() {
        "22003" => "write the number smaller, or as text",
        "22P02" | "22P05" => "PostgreSQL cannot store it; remove it",
        "54000" if database.message().contains("index") => {
            "shorten stream_id and category, together below 2,600 bytes"
        }
        "54001" => "nest the data less deeply, or raise max_stack_depth",
        "54000" => "make the event smaller",
        "42501" => "have the owner grant this role what is named here, or connect as the owner",
        "25006" => {
            "name the primary in the URL, or see why the database is read-only (default_transaction_read_only)"
        }
        "42P01" | "42703" | "42883" => {
            "is this the right database, and its schema on the search_path? `foldd migrate` sets it up"
        }
        "3D000" => "create it with createdb, or correct the URL",
        "42P05" | "26000" => {
            "a transaction pooler stands between; see EventStore::through_pooler, or connect past it"
        }
        "28000" | "28P01" => "correct user and password in the URL, or see pg_hba.conf",
        "53300" => {
            "raise max_connections, close what is idle, or lower daemon.workers: a daemon takes workers + 2"
        }
        "53100" => "free some space on the server's disk",
        "53200" => "the server is out of memory; see its log",
        sqlstate::CURSOR_AHEAD => {
            "was the log restored, or is the cursor another log's? `foldd doctor` knows"
        }
        "57P01" | "57P02" | "57P03" => "the server is starting or stopping; try again in a moment",
        "57014" => "raise statement_timeout for this role",
        "55P03" => "another session holds the lock; `foldd status` and pg_stat_activity name it",
        _ if code.starts_with("08") => "is PostgreSQL running there, and is the URL right?",
        _ => return database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.hint(),
    })
}

/// What `es_append` and its siblings put into DETAIL.
#[derive(serde::Deserialize)]
struct Facts {
    stream_id: Option<String>,
    expected: Option<i64>,
    actual: Option<i64>,
    event_id: Option<Uuid>,
    stream_version: Option<i64>,
}

impl From<sqlx::Error> for EventStoreError {
    fn from(error: sqlx::Error) -> Self {
        let facts = || -> Option<Facts> {
            let database =
                error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
            serde_json::from_str(database.detail()?).ok()
        };
        let code = error.as_database_error().and_then(|database| database.code()).unwrap_or_default();
        match (code.as_ref(), facts()) {
            (
                sqlstate::CONCURRENCY_CONFLICT,
                Some(Facts { stream_id: Some(stream_id), expected, actual, .. }),
            ) => {
                let expected = ExpectedVersion::from_sql(expected);
                Self::ConcurrencyConflict { stream_id, expected, actual }
            }
            (
                sqlstate::DUPLICATE_EVENT,
                Some(Facts { event_id: Some(event_id), stream_id, stream_version, .. }),
            ) => Self::DuplicateEvent { event_id, stored_as: stream_id.zip(stream_version) },
            _ => Self::Database(error),
        }
    }
}

/// An error of the database in one line, and what to do about it.
pub(crate) fn told(error: &sqlx::Error) -> String {
    with_remedy(chain(error), remedy(error))
}

/// A text and what to do, where that is known.
pub(crate) fn with_remedy(text: String, remedy: Option<&str>) -> String {
    remedy.map_or(text.clone(), |remedy| format!("{text}; {remedy}"))
}

/// An error and everything beneath it, in one line: `outer: middle: inner`.
///
/// Of an error that the database reported, its message: the driver's text adds a line of the server's own source code,
/// which reads like one of the user's.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        let words = database.map_or_else(|| error.to_string(), |database| database.message().to_owned());
        if text.is_empty() {
            text = words;
        } else if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = if database.is_some() { None } else { error.source() };
    }
    text
}
