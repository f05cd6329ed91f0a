//! Aggregates: state folded from one stream, and the events that are still to be saved.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{Event, EventData, EventMetadata};

/// State that is folded from the events of one stream.
///
/// ```
/// use foldd::{Aggregate, AggregateRoot, EventData};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(tag = "type")]
/// enum AccountEvent { Deposited { cents: i64 }, Withdrawn { cents: i64 } }
///
/// impl EventData for AccountEvent {
///     fn event_type(&self) -> &'static str {
///         match self {
///             Self::Deposited { .. } => "Deposited",
///             Self::Withdrawn { .. } => "Withdrawn",
///         }
///     }
/// }
///
/// #[derive(Default)]
/// struct Account { cents: i64 }
///
/// impl Aggregate for Account {
///     type Event = AccountEvent;
///
///     fn stream_category() -> &'static str {
///         "account"
///     }
///
///     fn apply(&mut self, event: &AccountEvent) {
///         match event {
///             AccountEvent::Deposited { cents } => self.cents += cents,
///             AccountEvent::Withdrawn { cents } => self.cents -= cents,
///         }
///     }
/// }
///
/// let mut account = AggregateRoot::<Account>::new("7");
/// account.record(AccountEvent::Deposited { cents: 1200 });
/// account.record(AccountEvent::Withdrawn { cents: 500 });
/// assert_eq!((account.stream_id(), account.state().cents), ("account-7", 700));
/// // Nothing is in the log before `EventStore::save`.
/// assert_eq!((account.version(), account.has_pending()), (0, true));
/// ```
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The events it is made of.
    type Event: EventData;

    /// The category of its streams: the stream of aggregate `7` of category `account` is `account-7`.
    fn stream_category() -> &'static str;

    /// Folds one event in. Cannot fail: what is in the log has happened.
    fn apply(&mut self, event: &Self::Event);
}

/// An aggregate whose state may be stored as a shortcut for loading it.
///
/// Snapshots are disposable: one that is absent, of another [`SNAPSHOT_VERSION`](Self::SNAPSHOT_VERSION), or does
/// not decode means a full replay.
pub trait Snapshot: Aggregate + Serialize + DeserializeOwned {
    /// Raise it whenever the state's shape or meaning changes.
    const SNAPSHOT_VERSION: i32;
    /// A snapshot is written when a save crosses a multiple of so many events.
    const SNAPSHOT_FREQUENCY: i64;
}

/// An aggregate with its place in the log and the events not yet saved.
#[derive(Debug)]
pub struct AggregateRoot<A: Aggregate> {
    state: A,
    version: i64,
    stream_id: String,
    pending: Vec<Event<A::Event>>,
    metadata: EventMetadata,
}

impl<A: Aggregate> AggregateRoot<A> {
    /// A new aggregate: no events, version 0. `id` is what follows the category in the stream's name.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self::from_snapshot(id, A::default(), 0)
    }

    /// An aggregate folded from its whole history.
    pub fn hydrate<'e>(id: &str, events: impl IntoIterator<Item = &'e A::Event>) -> Self {
        let mut root = Self::new(id);
        for event in events {
            root.replay(event);
        }
        root
    }

    /// An aggregate whose first `version` events are already folded into `state`.
    #[must_use]
    pub fn from_snapshot(id: &str, state: A, version: i64) -> Self {
        let stream_id = stream_id::<A>(id);
        Self { state, version, stream_id, pending: Vec::new(), metadata: EventMetadata::default() }
    }

    /// Says where all events of this root come from.
    #[must_use]
    pub fn with_metadata(mut self, metadata: EventMetadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Folds an event in and keeps it to be saved.
    pub fn record(&mut self, event: A::Event) {
        self.state.apply(&event);
        self.pending.push(Event::new(event));
    }

    /// The state, pending events included.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The version in the log: pending events do not count.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The stream it is stored in.
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// What every event of this root is stored with.
    pub fn metadata(&self) -> &EventMetadata {
        &self.metadata
    }

    /// Whether a save would append anything.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives the pending events away: a later save appends nothing. The state keeps their effect.
    pub fn take_pending(&mut self) -> Vec<Event<A::Event>> {
        std::mem::take(&mut self.pending)
    }

    pub(crate) fn pending(&self) -> &[Event<A::Event>] {
        &self.pending
    }

    /// Folds an event of the log in.
    pub(crate) fn replay(&mut self, event: &A::Event) {
        self.state.apply(event);
        self.version += 1;
    }

    /// The pending events are in the log now.
    pub(crate) fn saved(&mut self, version: i64) {
        self.pending.clear();
        self.version = version;
    }
}

/// The stream of an aggregate.
pub(crate) fn stream_id<A: Aggregate>(id: &str) -> String {
    format!("{}-{id}", A::stream_category())
}
