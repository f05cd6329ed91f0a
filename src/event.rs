//! Events: as an application writes them, and as the log keeps them.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::cursor::Cursor;

/// What an application's event type must offer to be stored.
///
/// The stored `data` is serde's output as it is. A type that reads foreign data, or data without a tag, overrides
/// [`decode`](EventData::decode).
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// #[serde(tag = "type", content = "data")]
/// enum AccountEvent { Opened { owner: String }, Deposited { cents: i64 } }
///
/// impl foldd::EventData for AccountEvent {
///     fn event_type(&self) -> &'static str {
///         match self {
///             Self::Opened { .. } => "Account Opened",
///             Self::Deposited { .. } => "Money Deposited",
///         }
///     }
/// }
/// ```
pub trait EventData: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which the event is stored, and by which projections select it.
    fn event_type(&self) -> &'static str;

    /// Reads an event back from its stored name and data.
    ///
    /// # Errors
    /// What serde says about data that does not fit the type.
    fn decode(event_type: &str, data: &RawValue) -> Result<Self, serde_json::Error> {
        let _ = event_type;
        serde_json::from_str(data.get())
    }
}

/// Where an event comes from. Stored as the event's `metadata`; absent fields are left out. A root puts it on
/// each of its events, see [`AggregateRoot::with_metadata`](crate::AggregateRoot::with_metadata).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMetadata {
    /// Joins everything that one request or process caused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event or command that caused this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Who acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// An event to append.
///
/// ```
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Deposited { cents: i64 }
/// use foldd::Event;
/// use serde_json::json;
///
/// let event = Event::with_metadata(Deposited { cents: 1200 }, json!({"actor": "ada"}));
/// // The id is drawn here and not by the database: to append this very event again is refused, and so
/// // a lost answer does no harm.
/// assert_eq!(event.event_id.get_version_num(), 7);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Event<E> {
    /// What happened.
    pub data: E,
    /// Any JSON object beside it.
    pub metadata: serde_json::Value,
    /// Its identity: appending the same id again is refused, which makes a retry after a lost answer safe.
    pub event_id: Uuid,
}

impl<E> Event<E> {
    /// An event with empty metadata and a new id.
    pub fn new(data: E) -> Self {
        Self { data, metadata: serde_json::Value::Object(serde_json::Map::new()), event_id: Uuid::now_v7() }
    }

    /// An event with metadata, and a new id.
    pub fn with_metadata(data: E, metadata: serde_json::Value) -> Self {
        Self { metadata, ..Self::new(data) }
    }

    /// The same event under an id of the caller's.
    #[must_use]
    pub fn with_id(self, event_id: Uuid) -> Self {
        Self { event_id, ..self }
    }
}

/// An event as the log keeps it.
#[derive(Debug, Clone)]
pub struct RecordedEvent {
    /// Unique and rising along a stream; gaps are normal.
    pub global_position: i64,
    /// The stream it belongs to.
    pub stream_id: String,
    /// The stream's category.
    pub stream_category: String,
    /// Its place in the stream: 1, 2, 3 …
    pub stream_version: i64,
    /// The name of the event's type.
    pub event_type: String,
    /// The payload, exactly as `jsonb` prints it. Kept raw, since `jsonb` holds numbers and depths that
    /// `serde_json::Value` does not.
    pub data: Box<RawValue>,
    /// The metadata, raw as well.
    pub metadata: Box<RawValue>,
    /// The stamp: the log is read in (stamp, position) order.
    pub transaction_id: u64,
    /// The event's identity.
    pub event_id: Uuid,
    /// When its transaction began, by the server's clock. Never order by it.
    pub created_at: DateTime<Utc>,
}

impl RecordedEvent {
    /// The cursor behind this event: reading after it continues with the next one.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::from((self.transaction_id, self.global_position))
    }

    /// The payload as an event type.
    ///
    /// # Errors
    /// What [`EventData::decode`] says.
    pub fn decode<E: EventData>(&self) -> Result<E, serde_json::Error> {
        E::decode(&self.event_type, &self.data)
    }
}
