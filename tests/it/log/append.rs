//! Appending through the library.

use foldd::ExpectedVersion::{Any, Exact, NoStream};
use foldd::{Cursor, Event, EventStoreError, StreamQuery};
use serde_json::json;
use uuid::Uuid;

use super::{Entry, append_any, conflict, credits, imported, places, raw, store_sqlstate, whole_log};
use crate::world::World;

#[tokio::test]
async fn an_append_creates_a_stream_and_continues_it() {
    let world = World::new().await;
    let store = world.store();
    let first = store.append("account-1", "account", NoStream, &credits(3)).await.expect("it is new");
    assert_eq!(first.version, 3);
    let second = store.append("account-1", "account", Exact(3), &credits(2)).await.expect("it is at 3");
    assert_eq!(second.version, 5);
    assert!(second.cursor > first.cursor);
    let log = whole_log(&world).await;
    assert_eq!(places(&log), (1..=5).map(|version| ("account-1", version)).collect::<Vec<_>>());
    assert_eq!((log[2].cursor(), log[4].cursor()), (first.cursor, second.cursor));
}

#[tokio::test]
async fn an_event_is_stored_as_it_was_given() {
    let world = World::new().await;
    let id = Uuid::now_v7();
    let metadata = json!({"correlation_id": "c", "deep": [1, {"a": null}]});
    let event = Event::with_metadata(Entry::Credited { cents: i64::MAX }, metadata.clone()).with_id(id);
    world
        .store()
        .append("account-1", "account", NoStream, &[event, Event::new(Entry::Closed)])
        .await
        .expect("new");
    let log = whole_log(&world).await;
    assert_eq!(log[0].event_type, "Credited");
    assert_eq!(log[0].stream_category, "account");
    assert_eq!(log[0].event_id, id);
    assert_eq!(log[0].decode::<Entry>().expect("it decodes"), Entry::Credited { cents: i64::MAX });
    assert_eq!(serde_json::from_str::<serde_json::Value>(log[0].metadata.get()).expect("JSON"), metadata);
    assert_eq!(log[1].metadata.get(), "{}");
    assert_eq!(log[1].decode::<Entry>().expect("it decodes"), Entry::Closed);
}

#[tokio::test]
async fn what_a_stream_is_expected_to_be_is_checked() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 2).await;
    for (stream, expected, actual) in [
        ("account-1", NoStream, Some(2)),
        ("account-1", Exact(0), Some(2)),
        ("account-1", Exact(1), Some(2)),
        ("account-1", Exact(3), Some(2)),
        ("account-1", Exact(-1), Some(2)),
        ("account-2", Exact(0), None),
        ("account-2", Exact(1), None),
        ("account-2", Exact(-1), None),
    ] {
        for events in [credits(1), credits(0)] {
            let error =
                store.append(stream, "account", expected, &events).await.expect_err("it is elsewhere");
            assert!(!error.is_retryable());
            let (named, said, found) = conflict(error);
            assert_eq!((named.as_str(), found), (stream, actual), "{expected}");
            assert!(
                said == expected || expected == Exact(-1) && said == Exact(0),
                "{expected} became {said}"
            );
        }
    }
    assert_eq!(whole_log(&world).await.len(), 2, "nothing was appended");
    assert!(!store.stream_exists("account-2").await.expect("it can be asked"), "no stream was left behind");
}

#[tokio::test]
async fn no_events_return_where_the_stream_stands() {
    let world = World::new().await;
    let store = world.store();
    let none: [Event<Entry>; 0] = [];
    for expected in [Any, NoStream] {
        let nowhere = store.append("account-1", "account", expected, &none).await.expect("as expected");
        assert_eq!((nowhere.version, nowhere.cursor), (0, Cursor::START));
    }
    assert!(!store.stream_exists("account-1").await.expect("it can be asked"));
    let at = append_any(&store, "account-1", 2).await;
    for expected in [Any, Exact(2)] {
        assert_eq!(store.append("account-1", "account", expected, &none).await.expect("as expected"), at);
    }
}

#[tokio::test]
async fn an_event_id_gets_into_the_log_once() {
    let world = World::new().await;
    let store = world.store();
    let first = credits(2);
    store.append("account-1", "account", NoStream, &first).await.expect("new");
    // The retry after a lost answer, and the same event elsewhere beside fresh ones.
    let [fresh, other] = [credits(1), credits(1)].map(|mut events| events.remove(0));
    let mixed = [fresh, first[1].clone(), other];
    for (stream, expected, events, repeated) in [
        ("account-1", NoStream, &first[..], 0),
        ("account-1", Exact(0), &first[..], 0),
        ("account-1", Any, &first[..], 0),
        ("account-1", Exact(2), &first[1..], 1),
        ("account-2", NoStream, &mixed[..], 1),
        ("account-2", Any, &mixed[..], 1),
    ] {
        let error = store.append(stream, "account", expected, events).await.expect_err("it is there already");
        let EventStoreError::DuplicateEvent { event_id, stored_as } = error else { panic!("{error:?}") };
        assert_eq!(event_id, first[repeated].event_id);
        assert_eq!(stored_as, Some(("account-1".to_owned(), i64::try_from(repeated).expect("small") + 1)));
    }
    let event = Event::new(Entry::Closed);
    let twice = [event.clone(), Event::new(Entry::Closed), event.clone()];
    let error = store.append("account-3", "account", Any, &twice).await.expect_err("given twice");
    assert!(
        matches!(error, EventStoreError::DuplicateEvent { event_id, stored_as: None } if event_id == event.event_id)
    );
    assert_eq!(whole_log(&world).await.len(), 2);
    assert!(!store.stream_exists("account-2").await.expect("it can be asked"));
}

#[tokio::test]
async fn a_stream_keeps_its_category() {
    let world = World::new().await;
    let store = world.store();
    store
        .append("ledger", "account", NoStream, &credits(1))
        .await
        .expect("a name without a dash, and a category");
    for expected in [Any, Exact(1)] {
        let error =
            store.append("ledger", "other", expected, &credits(1)).await.expect_err("another category");
        assert_eq!(store_sqlstate(&error), "22023");
        assert!(
            foldd::error::chain(&error).contains("belongs to category 'account', not 'other'"),
            "{error:?}"
        );
    }
    store.append("ledger", "account", Exact(1), &credits(1)).await.expect("its own category");
    store.append_many(&[imported("ledger")]).await.expect("its own category, not named");
    assert!(whole_log(&world).await.iter().all(|event| event.stream_category == "account"));
}

#[tokio::test]
async fn an_append_in_a_transaction_ends_with_it() {
    let world = World::new().await;
    let store = world.store();
    let mut tx = world.pool().begin().await.expect("a transaction");
    let one = store.append_in_tx(&mut tx, "account-1", "account", NoStream, &credits(1)).await.expect("new");
    let two =
        store.append_in_tx(&mut tx, "account-1", "account", Exact(1), &credits(1)).await.expect("continued");
    assert_eq!(one.cursor.transaction_id, two.cursor.transaction_id);
    assert!(!store.stream_exists("account-1").await.expect("it can be asked"), "nobody else sees it yet");
    tx.rollback().await.expect("it rolls back");
    assert!(!store.stream_exists("account-1").await.expect("it can be asked"));
    let mut tx = world.pool().begin().await.expect("a transaction");
    store.append_in_tx(&mut tx, "account-1", "account", NoStream, &credits(1)).await.expect("still new");
    tx.commit().await.expect("it commits");
    assert_eq!(places(&whole_log(&world).await), [("account-1", 1)]);
}

#[tokio::test]
async fn a_thousand_events_are_one_append() {
    let world = World::new().await;
    let events: Vec<_> = (0..1_000).map(|cents| Event::new(Entry::Credited { cents })).collect();
    let done = world.store().append("account-1", "account", NoStream, &events).await.expect("new");
    assert_eq!(done.version, 1_000);
    let read = world.store().read_stream("account-1", StreamQuery::default()).await.expect("it is read");
    for (nth, event) in (0..).zip(&read) {
        assert_eq!(event.decode::<Entry>().expect("it decodes"), Entry::Credited { cents: nth });
    }
    assert!(read.is_sorted_by_key(|event| event.cursor()));
}

#[tokio::test]
async fn a_block_of_many_streams_keeps_the_order_given() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "order-2", 1).await;
    let block: Vec<_> =
        ["order-3", "order-1", "order-2", "order-1", "stock-9", "order-3"].map(imported).into();
    let cursor = store.append_many(&block).await.expect("it is appended").expect("a cursor");
    let log = whole_log(&world).await;
    assert_eq!(
        places(&log)[1..],
        [("order-3", 1), ("order-1", 1), ("order-2", 2), ("order-1", 2), ("stock-9", 1), ("order-3", 2)]
    );
    assert_eq!(cursor, log[6].cursor());
    assert_eq!(log[5].stream_category, "stock");
    assert_eq!(store.append_many(&[]).await.expect("nothing to do"), None);
}

#[tokio::test]
async fn a_block_with_one_wrong_event_is_refused_whole() {
    let world = World::new().await;
    let store = world.store();
    let seen = imported("order-1");
    store.append_many(std::slice::from_ref(&seen)).await.expect("new");

    let error =
        store.append_many(&[imported("order-0"), seen.clone()]).await.expect_err("one is there already");
    let EventStoreError::DuplicateEvent { event_id, stored_as } = error else { panic!("{error:?}") };
    assert_eq!((event_id, stored_as), (seen.event_id, Some(("order-1".to_owned(), 1))));

    let twin = imported("order-2");
    let error =
        store.append_many(&[twin.clone(), imported("order-3"), twin.clone()]).await.expect_err("given twice");
    let EventStoreError::DuplicateEvent { event_id, stored_as } = error else { panic!("{error:?}") };
    assert_eq!((event_id, stored_as), (twin.event_id, None));

    for wrong in [
        foldd::ImportEvent { category: Some("stock".to_owned()), ..imported("order-1") },
        imported("nodash"),
        foldd::ImportEvent { data: raw("\"\\u0000\""), ..imported("order-4") },
    ] {
        store.append_many(&[imported("order-5"), wrong]).await.expect_err("it is refused");
    }
    assert_eq!(places(&whole_log(&world).await), [("order-1", 1)]);
    assert_eq!(world.value("select string_agg(stream_id, ',') from es_streams").await, "order-1");
}
