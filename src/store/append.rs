//! Appending: one statement, whatever the number of events.

use serde_json::value::{RawValue, to_raw_value};
use sqlx::types::Json;
use sqlx::{PgExecutor, Postgres, Row, Transaction};
use uuid::Uuid;

use super::{EventStore, Link, Result};
use crate::cursor::Cursor;
use crate::error::EventStoreError;
use crate::event::{Event, EventData};
use crate::stream::ExpectedVersion;

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The version of the stream now.
    pub version: i64,
    /// Behind the last event appended, or behind the stream's last one when nothing was. A projection whose checkpoint
    /// has reached it has seen the append.
    pub cursor: Cursor,
}

/// One event of many streams, for [`EventStore::append_many`]: data passes through as it is.
#[derive(Debug, Clone)]
pub struct ImportEvent {
    /// The stream; created when it does not exist.
    pub stream_id: String,
    /// Its category; `None` for the stream's own, or its name up to the first dash.
    pub category: Option<String>,
    /// The event's type.
    pub event_type: String,
    /// The payload.
    pub data: Box<RawValue>,
    /// The metadata: a JSON object, `{}` for none.
    pub metadata: Box<RawValue>,
    /// Its identity.
    pub event_id: Uuid,
}

impl EventStore {
    /// Appends events to a stream in one round trip.
    ///
    /// `category` names the category when the stream is new; an existing stream must be of that category.
    /// Without events nothing is written: the answer is where the stream stands, after `expected` was checked.
    ///
    /// # Errors
    /// [`ConcurrencyConflict`](EventStoreError::ConcurrencyConflict) when the stream is not at the expected version,
    /// [`DuplicateEvent`](EventStoreError::DuplicateEvent) when one of the events is in the log already.
    pub async fn append<E: EventData>(
        &self,
        stream_id: &str,
        category: &str,
        expected: ExpectedVersion,
        events: &[Event<E>],
    ) -> Result<Appended> {
        let columns = Columns::new(stream_id, events, None)?;
        append(&mut self.link().await?, stream_id, Some(category), expected, columns).await
    }

    /// Appends as [`append`](Self::append) does, as part of the caller's transaction.
    ///
    /// The transaction then holds the stream's row until it ends, and the readers' horizon with it: keep it short.
    ///
    /// # Errors
    /// As [`append`](Self::append). The transaction is aborted then; roll it back.
    pub async fn append_in_tx<E: EventData>(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        stream_id: &str,
        category: &str,
        expected: ExpectedVersion,
        events: &[Event<E>],
    ) -> Result<Appended> {
        let columns = Columns::new(stream_id, events, None)?;
        append(&mut Link::part(tx, self.pooled), stream_id, Some(category), expected, columns).await
    }

    /// Appends events of many streams in the order given, each stream at whatever version it has, in one statement and
    /// one transaction: for imports. Returns the cursor behind the last one, or `None` for no events.
    ///
    /// # Errors
    /// [`DuplicateEvent`](EventStoreError::DuplicateEvent) when one of them is in the log already; nothing is appended then.
    pub async fn append_many(&self, events: &[ImportEvent]) -> Result<Option<Cursor>> {
        append_many(&mut self.link().await?, events).await
    }
}

/// The events of one append, as the columns that `es_append` takes.
pub(crate) struct Columns<'e> {
    types: Vec<&'e str>,
    data: Vec<Json<Box<RawValue>>>,
    metadata: Vec<Json<Box<RawValue>>>,
    ids: Vec<Uuid>,
}

impl<'e> Columns<'e> {
    /// `metadata`, when given, replaces that of every event.
    pub(crate) fn new<E: EventData>(
        stream_id: &str,
        events: &'e [Event<E>],
        metadata: Option<&'e serde_json::Value>,
    ) -> Result<Self> {
        let raw = |json: serde_json::Result<Vec<Json<Box<RawValue>>>>| {
            json.map_err(|source| EventStoreError::Serialization { stream_id: stream_id.to_owned(), source })
        };
        let metadata = events.iter().map(|event| metadata.unwrap_or(&event.metadata));
        Ok(Self {
            types: events.iter().map(|event| event.data.event_type()).collect(),
            data: raw(events.iter().map(|event| to_raw_value(&event.data).map(Json)).collect())?,
            metadata: raw(metadata.map(|metadata| to_raw_value(metadata).map(Json)).collect())?,
            ids: events.iter().map(|event| event.event_id).collect(),
        })
    }

    /// One event whose data and metadata pass through as they are.
    pub(crate) fn one(
        event_type: &'e str,
        data: Box<RawValue>,
        metadata: Box<RawValue>,
        event_id: Uuid,
    ) -> Self {
        Self {
            types: vec![event_type],
            data: vec![Json(data)],
            metadata: vec![Json(metadata)],
            ids: vec![event_id],
        }
    }
}

pub(crate) async fn append<'c>(
    executor: impl PgExecutor<'c>,
    stream_id: &str,
    category: Option<&str>,
    expected: ExpectedVersion,
    columns: Columns<'_>,
) -> Result<Appended> {
    let row = sqlx::query(
        "select version, transaction_id::text::bigint, global_position from es_append($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(stream_id)
    .bind(category)
    .bind(expected.as_sql())
    .bind(columns.types)
    .bind(columns.data)
    .bind(columns.metadata)
    .bind(columns.ids)
    .fetch_one(executor)
    .await?;
    let stamp: Option<i64> = row.try_get(1)?;
    let position: Option<i64> = row.try_get(2)?;
    let cursor = Cursor::from((stamp.unwrap_or_default().cast_unsigned(), position.unwrap_or_default()));
    Ok(Appended { version: row.try_get(0)?, cursor })
}

pub(crate) async fn append_many<'c, 'e>(
    executor: impl PgExecutor<'c>,
    events: impl IntoIterator<Item = &'e ImportEvent, IntoIter: Clone>,
) -> Result<Option<Cursor>> {
    let events = events.into_iter();
    if events.clone().next().is_none() {
        return Ok(None);
    }
    fn column<'e, T>(
        events: &(impl Iterator<Item = &'e ImportEvent> + Clone),
        field: impl Fn(&'e ImportEvent) -> T,
    ) -> Vec<T> {
        events.clone().map(field).collect()
    }
    let row = sqlx::query(
        "select transaction_id::text::bigint, global_position from es_append_many($1, $2, $3, $4, $5, $6)",
    )
    .bind(column(&events, |event| event.stream_id.as_str()))
    .bind(column(&events, |event| event.category.as_deref()))
    .bind(column(&events, |event| event.event_type.as_str()))
    .bind(column(&events, |event| Json(&*event.data)))
    .bind(column(&events, |event| Json(&*event.metadata)))
    .bind(column(&events, |event| event.event_id))
    .fetch_one(executor)
    .await?;
    let stamp: i64 = row.try_get(0)?;
    Ok(Some(Cursor { transaction_id: stamp.cast_unsigned(), global_position: row.try_get(1)? }))
}
