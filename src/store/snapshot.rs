//! Snapshots: the latest state of an aggregate, so that loading replays only what came after.

use serde_json::value::RawValue;
use sqlx::types::Json;

use super::aggregates::catch_up;
use super::{EventStore, Link, Result};
use crate::aggregate::{AggregateRoot, Snapshot, stream_id};
use crate::error::EventStoreError;

impl EventStore {
    /// Loads an aggregate from its snapshot and the events after it; `None` when the stream does not exist.
    ///
    /// A snapshot that is absent, of another version, ahead of the stream or undecodable means a full replay.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_snapshotted<A: Snapshot>(&self, id: &str) -> Result<Option<AggregateRoot<A>>> {
        let mut conn = self.link().await?;
        load_snapshotted(&mut conn, id).await
    }

    /// As [`load_snapshotted`](Self::load_snapshotted), or a new aggregate when the stream does not exist.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_or_default_snapshotted<A: Snapshot>(&self, id: &str) -> Result<AggregateRoot<A>> {
        Ok(self.load_snapshotted(id).await?.unwrap_or_else(|| AggregateRoot::new(id)))
    }

    /// Saves as [`save`](Self::save) does, and writes a snapshot when a multiple of
    /// [`SNAPSHOT_FREQUENCY`](Snapshot::SNAPSHOT_FREQUENCY) was crossed.
    ///
    /// # Errors
    /// As [`save`](Self::save). The events are saved even if the snapshot then cannot be: it is only a shortcut, and a
    /// warning is logged.
    pub async fn save_snapshotting<A: Snapshot>(&self, root: &mut AggregateRoot<A>) -> Result<()> {
        let before = root.version();
        self.save(root).await?;
        let frequency = A::SNAPSHOT_FREQUENCY.max(1);
        if before / frequency < root.version() / frequency
            && let Err(error) = self.save_snapshot(root).await
        {
            tracing::warn!(
                stream_id = root.stream_id(),
                error = %error,
                sqlstate = error.sqlstate(),
                "snapshot not written"
            );
        }
        Ok(())
    }

    /// Writes a snapshot of a root without pending events. An older snapshot never replaces a newer one, unless that one
    /// is ahead of its stream: it is of a history that was lost, and would serve again once the stream has grown past it.
    ///
    /// # Errors
    /// [`Serialization`](EventStoreError::Serialization) when the state cannot be written as JSON.
    ///
    /// # Panics
    /// When the root has pending events: its state is ahead of the log.
    pub async fn save_snapshot<A: Snapshot>(&self, root: &AggregateRoot<A>) -> Result<()> {
        assert!(
            !root.has_pending(),
            "a snapshot of stream '{}' would hold events not yet saved",
            root.stream_id()
        );
        let state = serde_json::value::to_raw_value(root.state()).map_err(|source| {
            EventStoreError::Serialization { stream_id: root.stream_id().to_owned(), source }
        })?;
        sqlx::query(
            "insert into es_snapshots as s (stream_id, stream_version, snapshot_version, state) values ($1, $2, $3, $4)
             on conflict (stream_id) do update
             set stream_version = excluded.stream_version, snapshot_version = excluded.snapshot_version,
                 state = excluded.state, created_at = now()
             where (excluded.snapshot_version, excluded.stream_version) >= (s.snapshot_version, s.stream_version)
                or s.stream_version > (select stream_version from es_streams where stream_id = $1)",
        )
        .bind(root.stream_id())
        .bind(root.version())
        .bind(A::SNAPSHOT_VERSION)
        .bind(Json(state))
        .execute(&mut self.link().await?)
        .await?;
        Ok(())
    }
}

pub(crate) async fn load_snapshotted<A: Snapshot>(
    conn: &mut Link<'_>,
    id: &str,
) -> Result<Option<AggregateRoot<A>>> {
    // The join drops a snapshot that is ahead of its stream, as after a restore of an older log.
    let stored: Option<(i64, Json<Box<RawValue>>)> = sqlx::query_as(
        "select p.stream_version, p.state from es_snapshots p join es_streams s using (stream_id)
         where p.stream_id = $1 and p.snapshot_version = $2 and p.stream_version <= s.stream_version",
    )
    .bind(stream_id::<A>(id))
    .bind(A::SNAPSHOT_VERSION)
    .fetch_optional(&mut *conn)
    .await?;
    let mut root = stored
        .and_then(|(version, state)| {
            let state = serde_json::from_str(state.0.get()).ok()?;
            Some(AggregateRoot::from_snapshot(id, state, version))
        })
        .unwrap_or_else(|| AggregateRoot::new(id));
    catch_up(conn, &mut root).await?;
    Ok((root.version() > 0).then_some(root))
}
