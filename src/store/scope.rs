//! One transaction over several streams: read, decide, write.

use sqlx::PgConnection;

use super::aggregates::{load, save};
use super::append::{Columns, append};
use super::read::RECORDED_IN_SCOPE;
use super::snapshot::load_snapshotted;
use super::{Appended, Link, Result};
use crate::aggregate::{Aggregate, AggregateRoot, Snapshot, stream_id};
use crate::event::{Event, EventData, RecordedEvent};
use crate::stream::ExpectedVersion;

/// A transaction that loads and saves several aggregates together, all or nothing.
///
/// The escape hatch for rules that span streams: check what another stream says, then append, with nobody in between.
/// Most writes do not need it: [`EventStore::save`](super::EventStore::save) checks the version of its own stream in a
/// single statement and locks nothing before it writes.
///
/// **When not to use it.** From the first `save` or `append` on, the scope holds that stream's row and the readers'
/// horizon: other writers of the stream wait for it, and no projection reads past it. Do nothing slow inside, no call
/// to another service, no wait for a person; and keep long scopes away from streams that many write to. To lock streams
/// against deadlocks, take them in one order everywhere, sorted by name for example.
///
/// Dropped without [`commit`](Self::commit), it rolls back.
///
/// ```no_run
/// # #[derive(serde::Serialize, serde::Deserialize)] enum AccountEvent { Deposited(i64), Withdrawn(i64) }
/// # impl foldd::EventData for AccountEvent { fn event_type(&self) -> &'static str { "A" } }
/// # #[derive(Default)] struct Account { cents: i64 }
/// # impl foldd::Aggregate for Account {
/// #     type Event = AccountEvent;
/// #     fn stream_category() -> &'static str { "account" }
/// #     fn apply(&mut self, _: &AccountEvent) {}
/// # }
/// # async fn example(store: foldd::EventStore) -> Result<(), Box<dyn std::error::Error>> {
/// let mut scope = store.begin_transaction().await?;
/// // In one order everywhere, or two transfers lock each other out.
/// let mut from = scope.load_for_update::<Account>("1").await?.ok_or("there is no account 1")?;
/// let mut to = scope.load_for_update::<Account>("2").await?.ok_or("there is no account 2")?;
/// if from.state().cents >= 500 {
///     from.record(AccountEvent::Withdrawn(500));
///     to.record(AccountEvent::Deposited(500));
///     scope.save(&mut from).await?;
///     scope.save(&mut to).await?;
///     println!("{} events", scope.commit().await?.events().len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TransactionScope {
    tx: Link<'static>,
    /// Which versions of which streams were appended: (stream, after, up to).
    written: Vec<(String, i64, i64)>,
    taken: usize,
}

/// What a committed scope appended, in the order of its saves.
#[derive(Debug, Clone, Default)]
pub struct CommittedEvents {
    events: Vec<RecordedEvent>,
}

impl CommittedEvents {
    /// Whether the scope appended nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events, as the log has them.
    #[must_use]
    pub fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// The events, owned.
    #[must_use]
    pub fn into_events(self) -> Vec<RecordedEvent> {
        self.events
    }
}

impl TransactionScope {
    pub(crate) fn new(tx: Link<'static>) -> Self {
        Self { tx, written: Vec::new(), taken: 0 }
    }

    /// Loads an aggregate as the transaction sees it.
    ///
    /// # Errors
    /// As [`EventStore::load`](super::EventStore::load).
    pub async fn load<A: Aggregate>(&mut self, id: &str) -> Result<Option<AggregateRoot<A>>> {
        load(&mut self.tx, id).await
    }

    /// Loads an aggregate, or a new one when its stream does not exist.
    ///
    /// # Errors
    /// As [`EventStore::load`](super::EventStore::load).
    pub async fn load_or_default<A: Aggregate>(&mut self, id: &str) -> Result<AggregateRoot<A>> {
        Ok(self.load(id).await?.unwrap_or_else(|| AggregateRoot::new(id)))
    }

    /// Locks the stream's row, then loads: nobody appends to the stream until the scope ends.
    ///
    /// A stream that does not exist has no row to lock; two scopes may then both try to create it, and the second
    /// save conflicts.
    ///
    /// # Errors
    /// As [`EventStore::load`](super::EventStore::load).
    pub async fn load_for_update<A: Aggregate>(&mut self, id: &str) -> Result<Option<AggregateRoot<A>>> {
        sqlx::query("select from es_streams where stream_id = $1 for update")
            .bind(stream_id::<A>(id))
            .execute(&mut self.tx)
            .await?;
        self.load(id).await
    }

    /// As [`load_for_update`](Self::load_for_update), or a new aggregate when its stream does not exist.
    ///
    /// # Errors
    /// As [`EventStore::load`](super::EventStore::load).
    pub async fn load_or_default_for_update<A: Aggregate>(&mut self, id: &str) -> Result<AggregateRoot<A>> {
        Ok(self.load_for_update(id).await?.unwrap_or_else(|| AggregateRoot::new(id)))
    }

    /// Loads an aggregate from its snapshot and the events after it.
    ///
    /// # Errors
    /// As [`EventStore::load`](super::EventStore::load).
    pub async fn load_snapshotted<A: Snapshot>(&mut self, id: &str) -> Result<Option<AggregateRoot<A>>> {
        load_snapshotted(&mut self.tx, id).await
    }

    /// Appends the pending events of a root. Nothing pending is a no-op; after a failed save they are still there.
    ///
    /// The root counts them as saved from now on. If the scope rolls back, load it again.
    ///
    /// # Errors
    /// As [`EventStore::save`](super::EventStore::save). The transaction is aborted then.
    pub async fn save<A: Aggregate>(&mut self, root: &mut AggregateRoot<A>) -> Result<()> {
        if root.has_pending() {
            let before = root.version();
            save(&mut self.tx, root).await?;
            self.written.push((root.stream_id().to_owned(), before, root.version()));
        }
        Ok(())
    }

    /// Appends events to a stream.
    ///
    /// # Errors
    /// As [`EventStore::append`](super::EventStore::append). The transaction is aborted then.
    pub async fn append<E: EventData>(
        &mut self,
        stream_id: &str,
        category: &str,
        expected: ExpectedVersion,
        events: &[Event<E>],
    ) -> Result<Appended> {
        let columns = Columns::new(stream_id, events, None)?;
        let appended = append(&mut self.tx, stream_id, Some(category), expected, columns).await?;
        if let Ok(count @ 1..) = i64::try_from(events.len()) {
            self.written.push((stream_id.to_owned(), appended.version - count, appended.version));
        }
        Ok(appended)
    }

    /// The connection, for the caller's own SQL in the same transaction.
    pub fn tx(&mut self) -> &mut PgConnection {
        self.tx.driver()
    }

    /// What was appended since the last call, as the log will have it if the scope commits.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn take_committed_events(&mut self) -> Result<CommittedEvents> {
        let mut events = Vec::new();
        for (stream_id, after, up_to) in &self.written[self.taken..] {
            let page: Vec<RecordedEvent> = sqlx::query_as(RECORDED_IN_SCOPE)
                .bind(stream_id)
                .bind(after)
                .bind(up_to)
                .fetch_all(&mut self.tx)
                .await?;
            events.extend(page);
        }
        self.taken = self.written.len();
        Ok(CommittedEvents { events })
    }

    /// Commits, and returns what was appended and not taken before.
    ///
    /// # Errors
    /// When a statement failed before, whatever the caller made of it; when the commit fails, or its answer is lost: the outcome is unknown then, and a repeated append of the same
    /// events is refused if the first got through.
    pub async fn commit(mut self) -> Result<CommittedEvents> {
        if self.taken == self.written.len() {
            // An aborted transaction answers COMMIT with a rollback that looks like success; any statement tells.
            sqlx::query("select").execute(&mut self.tx).await?;
        }
        let events = self.take_committed_events().await?;
        self.tx.commit().await?;
        Ok(events)
    }

    /// Rolls everything back.
    ///
    /// # Errors
    /// When the connection is lost; the server rolls back by itself then.
    pub async fn rollback(self) -> Result<()> {
        Ok(self.tx.rollback().await?)
    }
}
