//! Aggregates: what a root loads, keeps and saves.

use foldd::ExpectedVersion::{Exact, NoStream};
use foldd::{Aggregate, AggregateRoot, Event, EventMetadata, EventStoreError, Snapshot, StreamQuery};
use serde::{Deserialize, Serialize};

use super::{Entry, append_any, conflict, credits, whole_log};
use crate::world::World;

/// A sum of money, and how many events made it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) cents: i64,
    pub(super) entries: i64,
    pub(super) closed: bool,
}

impl Aggregate for Account {
    type Event = Entry;

    fn stream_category() -> &'static str {
        "account"
    }

    fn apply(&mut self, event: &Entry) {
        self.entries += 1;
        match event {
            Entry::Credited { cents } => self.cents += cents,
            Entry::Closed => self.closed = true,
        }
    }
}

impl Snapshot for Account {
    const SNAPSHOT_VERSION: i32 = 2;
    const SNAPSHOT_FREQUENCY: i64 = 10;
}

/// Records credits of one cent.
pub(super) fn record(root: &mut AggregateRoot<Account>, times: usize) {
    for _ in 0..times {
        root.record(Entry::Credited { cents: 1 });
    }
}

#[tokio::test]
async fn a_root_is_saved_and_loaded() {
    let world = World::new().await;
    let store = world.store();
    assert!(store.load::<Account>("1").await.expect("it can be asked").is_none());
    let mut root = store.load_or_default::<Account>("1").await.expect("a new one");
    assert_eq!((root.version(), root.stream_id(), root.has_pending()), (0, "account-1", false));
    record(&mut root, 2);
    root.record(Entry::Closed);
    assert_eq!((root.version(), root.state().entries, root.has_pending()), (0, 3, true));
    store.save(&mut root).await.expect("it is new");
    assert_eq!((root.version(), root.has_pending()), (3, false));
    let loaded = store.load::<Account>("1").await.expect("it loads").expect("it exists");
    assert_eq!((loaded.state(), loaded.version()), (root.state(), 3));
    record(&mut root, 1);
    store.save(&mut root).await.expect("it is where it was");
    assert_eq!(store.load_or_default::<Account>("1").await.expect("it loads").version(), 4);
}

#[tokio::test]
async fn saving_nothing_does_nothing() {
    let world = World::new().await;
    let store = world.store();
    let mut root = AggregateRoot::<Account>::new("1");
    store.save(&mut root).await.expect("nothing to do");
    assert!(!store.stream_exists("account-1").await.expect("it can be asked"));
    record(&mut root, 1);
    assert_eq!(root.take_pending().len(), 1);
    assert!(!root.has_pending());
    store.save(&mut root).await.expect("nothing to do");
    assert!(!store.stream_exists("account-1").await.expect("it can be asked"));
}

#[tokio::test]
async fn a_root_that_came_second_keeps_its_events() {
    let world = World::new().await;
    let store = world.store();
    let (mut first, mut second) = (AggregateRoot::<Account>::new("1"), AggregateRoot::<Account>::new("1"));
    record(&mut first, 2);
    record(&mut second, 3);
    store.save(&mut first).await.expect("it is new");
    for _ in 0..2 {
        let error = store.save(&mut second).await.expect_err("it is not new any more");
        assert_eq!(conflict(error), ("account-1".to_owned(), NoStream, Some(2)));
        assert_eq!((second.version(), second.has_pending(), second.state().entries), (0, true, 3));
    }
    // Decided anew: the same events on a fresh root, under the same ids.
    let mut fresh = store.load::<Account>("1").await.expect("it loads").expect("it exists");
    let pending = second.take_pending();
    pending.iter().for_each(|event| fresh.record(event.data));
    record(&mut first, 1);
    store.save(&mut first).await.expect("it is at 2");
    let error = store.save(&mut fresh).await.expect_err("it came second again");
    assert_eq!(conflict(error), ("account-1".to_owned(), Exact(2), Some(3)));
    assert!(fresh.has_pending());
}

#[tokio::test]
async fn a_root_survives_the_loss_of_its_database() {
    let mut world = World::alone().await;
    let store = world.store();
    let mut root = AggregateRoot::<Account>::new("1");
    record(&mut root, 2);
    // The statement got through, the answer did not: the retry is told so instead of appending twice.
    let events: Vec<_> = root.take_pending();
    store.append("account-1", "account", NoStream, &events).await.expect("it gets through");
    let again = store.append("account-1", "account", NoStream, &events).await.expect_err("it is there");
    assert!(matches!(again, EventStoreError::DuplicateEvent { .. }) && !again.is_retryable());

    let mut root = store.load::<Account>("1").await.expect("it loads").expect("it exists");
    record(&mut root, 1);
    world.server().crash().await.expect("the server goes down");
    let error = store.save(&mut root).await.expect_err("nobody answers");
    assert!(error.is_retryable(), "{error:?}");
    assert!(root.has_pending());
    world.server().restart().await.expect("it comes back");
    world
        .eventually("the pool has live connections again", async || store.stream_exists("x").await.is_ok())
        .await;
    store.save(&mut root).await.expect("the same call succeeds");
    assert_eq!(root.version(), 3);
}

#[tokio::test]
async fn every_event_carries_the_roots_metadata() {
    let world = World::new().await;
    let store = world.store();
    let metadata = EventMetadata {
        correlation_id: Some("request 7".to_owned()),
        causation_id: None,
        actor: Some("ada".to_owned()),
    };
    let mut root = AggregateRoot::<Account>::new("1").with_metadata(metadata.clone());
    assert_eq!(root.metadata(), &metadata);
    record(&mut root, 2);
    store.save(&mut root).await.expect("it is new");
    record(&mut root, 1);
    store.save(&mut root).await.expect("it is at 2");
    for event in whole_log(&world).await {
        assert_eq!(
            serde_json::from_str::<EventMetadata>(event.metadata.get()).expect("it is metadata"),
            metadata
        );
        assert!(!event.metadata.get().contains("causation"), "absent fields are left out");
    }
}

#[tokio::test]
async fn a_stream_longer_than_a_page_loads_whole() {
    let world = World::new().await;
    let store = world.store();
    // Whole pages exactly, one less and one more.
    for (id, events) in [("1", 5_000), ("2", 2_000), ("3", 4_001), ("4", 1_999)] {
        append_any(&store, &format!("account-{id}"), events).await;
        let root = store.load::<Account>(id).await.expect("it loads").expect("it exists");
        let events = i64::try_from(events).expect("small");
        assert_eq!((root.version(), root.state().entries, root.state().cents), (events, events, events));
    }
    let all = store.read_stream("account-1", StreamQuery::default()).await.expect("it can be read");
    assert_eq!(all.len(), 5_000);
}

#[tokio::test]
async fn a_stream_with_a_hole_is_corrupt() {
    for (hole, expected, found) in [(1, 1, 2), (3, 3, 4)] {
        let world = World::new().await;
        append_any(&world.store(), "account-1", 5).await;
        world
            .execute(&format!(
                "alter table es_events disable trigger user; delete from es_events where stream_version = {hole}"
            ))
            .await;
        let error = world.store().load::<Account>("1").await.expect_err("a version is missing");
        assert!(
            matches!(&error, EventStoreError::CorruptStream { stream_id, expected: e, found: f }
                if stream_id == "account-1" && (*e, *f) == (expected, found)),
            "{error:?}"
        );
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn an_event_that_does_not_decode_is_named_with_its_place() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "other-1", 1).await;
    store.append("account-1", "account", NoStream, &credits(1)).await.expect("new");
    world.append("account-1", "Vanished", "{\"type\": \"Vanished\"}").await;
    let place =
        store.read_stream("account-1", StreamQuery::default()).await.expect("raw reading never decodes");
    let error = store.load::<Account>("1").await.expect_err("no such variant");
    let EventStoreError::Deserialization { stream_id, global_position, event_type, source } = error else {
        panic!("{error:?}")
    };
    assert_eq!((stream_id.as_str(), event_type.as_str()), ("account-1", "Vanished"));
    assert_eq!(global_position, place[1].global_position);
    assert!(source.to_string().contains("Vanished"), "{source}");
}

#[test]
fn a_root_is_hydrated_from_events_and_from_a_snapshot() {
    let history = [Entry::Credited { cents: 5 }, Entry::Credited { cents: 2 }, Entry::Closed];
    let root = AggregateRoot::<Account>::hydrate("1", &history);
    assert_eq!((root.version(), root.has_pending()), (3, false));
    let expected = Account { cents: 7, entries: 3, closed: true };
    assert_eq!(root.state(), &expected);
    let root = AggregateRoot::from_snapshot("1", expected.clone(), 3);
    assert_eq!((root.version(), root.stream_id(), root.state()), (3, "account-1", &expected));
    assert_ne!(Event::new(Entry::Closed).event_id, Event::new(Entry::Closed).event_id);
}
