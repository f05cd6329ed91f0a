//! Loading and saving aggregates.

use super::append::{Columns, append};
use super::read::read_stream;
use super::{EventStore, Link, Result};
use crate::aggregate::{Aggregate, AggregateRoot};
use crate::error::EventStoreError;
use crate::event::{EventData, RecordedEvent};
use crate::stream::{ExpectedVersion, ReadDirection, StreamQuery};

/// So many events of a stream are fetched at a time: bounds the memory of a load, not its length.
const LOAD_PAGE: i64 = 2_000;

impl EventStore {
    /// Loads an aggregate by replaying its whole stream; `None` when the stream does not exist.
    ///
    /// # Errors
    /// [`Deserialization`](EventStoreError::Deserialization) for an event that does not fit `A::Event`,
    /// [`CorruptStream`](EventStoreError::CorruptStream) when versions are missing.
    pub async fn load<A: Aggregate>(&self, id: &str) -> Result<Option<AggregateRoot<A>>> {
        let mut conn = self.link().await?;
        load(&mut conn, id).await
    }

    /// Loads an aggregate, or a new one when the stream does not exist.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_or_default<A: Aggregate>(&self, id: &str) -> Result<AggregateRoot<A>> {
        Ok(self.load(id).await?.unwrap_or_else(|| AggregateRoot::new(id)))
    }

    /// Appends the pending events of a root. Nothing pending is a no-op.
    ///
    /// A root at version 0 must be new in the log, any other exactly where it was loaded. After a failed save the
    /// pending events are still in the root.
    ///
    /// # Errors
    /// [`ConcurrencyConflict`](EventStoreError::ConcurrencyConflict) when somebody else saved first.
    pub async fn save<A: Aggregate>(&self, root: &mut AggregateRoot<A>) -> Result<()> {
        if !root.has_pending() {
            return Ok(());
        }
        let mut conn = self.link().await?;
        save(&mut conn, root).await
    }
}

pub(crate) async fn load<A: Aggregate>(conn: &mut Link<'_>, id: &str) -> Result<Option<AggregateRoot<A>>> {
    let mut root = AggregateRoot::new(id);
    catch_up(conn, &mut root).await?;
    Ok((root.version() > 0).then_some(root))
}

/// Replays what the stream has beyond the root's version, page by page.
pub(crate) async fn catch_up<A: Aggregate>(conn: &mut Link<'_>, root: &mut AggregateRoot<A>) -> Result<()> {
    loop {
        let query = StreamQuery {
            direction: ReadDirection::Forward,
            from_version: Some(root.version() + 1),
            limit: Some(LOAD_PAGE),
        };
        let page = read_stream(&mut *conn, root.stream_id(), query).await?;
        for recorded in &page {
            if recorded.stream_version != root.version() + 1 {
                return Err(EventStoreError::CorruptStream {
                    stream_id: recorded.stream_id.clone(),
                    expected: root.version() + 1,
                    found: recorded.stream_version,
                });
            }
            root.replay(&decode(recorded)?);
        }
        if page.len() < usize::try_from(LOAD_PAGE).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

/// Appends the pending events and, only when that succeeded, takes them out of the root.
pub(crate) async fn save<A: Aggregate>(conn: &mut Link<'_>, root: &mut AggregateRoot<A>) -> Result<()> {
    let stream_id = root.stream_id().to_owned();
    let expected =
        if root.version() == 0 { ExpectedVersion::NoStream } else { ExpectedVersion::Exact(root.version()) };
    let metadata = serde_json::to_value(root.metadata())
        .map_err(|source| EventStoreError::Serialization { stream_id: stream_id.clone(), source })?;
    let columns = Columns::new(&stream_id, root.pending(), Some(&metadata))?;
    let appended = append(conn, &stream_id, Some(A::stream_category()), expected, columns).await?;
    root.saved(appended.version);
    Ok(())
}

fn decode<E: EventData>(recorded: &RecordedEvent) -> Result<E> {
    recorded.decode().map_err(|source| EventStoreError::Deserialization {
        stream_id: recorded.stream_id.clone(),
        global_position: recorded.global_position,
        event_type: recorded.event_type.clone(),
        source,
    })
}
