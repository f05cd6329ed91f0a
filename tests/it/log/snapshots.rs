//! Snapshots: a shortcut that may be absent, old or wrong.

use foldd::AggregateRoot;

use super::aggregates::{Account, record};
use super::{append_any, whole_log};
use crate::world::World;

/// Version of the stored snapshot; nothing when there is none.
async fn stored(world: &World) -> String {
    world.value("select stream_version from es_snapshots where stream_id = 'account-1'").await
}

/// Rewrites the stored snapshot so that using it would show.
async fn mark(world: &World) {
    world.execute("update es_snapshots set state = jsonb_set(state, '{cents}', '1000000')").await;
}

async fn load(world: &World) -> AggregateRoot<Account> {
    world.store().load_snapshotted::<Account>("1").await.expect("it loads").expect("it exists")
}

#[tokio::test]
async fn a_snapshot_is_written_when_a_multiple_of_the_frequency_is_crossed() {
    let world = World::new().await;
    let store = world.store();
    let mut root = store.load_or_default_snapshotted::<Account>("1").await.expect("a new one");
    for (events, expected) in
        [(9, ""), (1, "10"), (9, "10"), (5, "24"), (0, "24"), (5, "24"), (1, "30"), (25, "55")]
    {
        record(&mut root, events);
        store.save_snapshotting(&mut root).await.expect("it is saved");
        assert_eq!(stored(&world).await, expected, "at version {}", root.version());
    }
    assert_eq!(whole_log(&world).await.len(), 55, "snapshots never appear in the log");
    assert_eq!(world.value("select count(*) from es_snapshots").await, "1", "only the latest is kept");
}

#[tokio::test]
async fn a_load_replays_only_what_came_after_the_snapshot() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 12).await;
    store.save_snapshot(&load(&world).await).await.expect("it is written");
    append_any(&store, "account-1", 3).await;
    mark(&world).await;
    let root = load(&world).await;
    assert_eq!((root.version(), root.state().entries, root.state().cents), (15, 15, 1_000_003));
    // The plain load never looks at it.
    let plain = store.load::<Account>("1").await.expect("it loads").expect("it exists");
    assert_eq!(plain.state().cents, 15);
}

#[tokio::test]
async fn a_snapshot_that_cannot_serve_means_a_full_replay() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 12).await;
    store.save_snapshot(&load(&world).await).await.expect("it is written");
    mark(&world).await;
    assert_eq!(load(&world).await.state().cents, 1_000_000, "it serves as long as nothing is wrong with it");
    for spoiled in [
        "set snapshot_version = 1",
        "set snapshot_version = 3",
        "set snapshot_version = 2, state = '[]'",
        "set state = '{\"cents\": \"many\"}'",
        "set state = '{\"cents\": 1000000, \"entries\": 12, \"closed\": false}', stream_version = 13",
    ] {
        world.execute(&format!("update es_snapshots {spoiled}")).await;
        let root = load(&world).await;
        assert_eq!((root.version(), root.state().cents), (12, 12), "{spoiled}");
    }
    world.execute("delete from es_snapshots").await;
    assert_eq!(load(&world).await.version(), 12);
    assert!(store.load_snapshotted::<Account>("2").await.expect("it can be asked").is_none());
}

#[tokio::test]
async fn an_older_snapshot_does_not_replace_a_newer_one() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 3).await;
    let old = load(&world).await;
    append_any(&store, "account-1", 1).await;
    store.save_snapshot(&load(&world).await).await.expect("it is written");
    store.save_snapshot(&old).await.expect("it is passed over");
    assert_eq!(stored(&world).await, "4");
    // Of an older program, while a newer one runs beside it.
    world.execute("update es_snapshots set snapshot_version = 3, stream_version = 2").await;
    store.save_snapshot(&load(&world).await).await.expect("it is passed over");
    assert_eq!(stored(&world).await, "2");
}

#[tokio::test]
async fn a_snapshot_from_a_lost_future_is_replaced() {
    // As after a restore of an older log: left alone, it would serve again once the stream has grown past it.
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 3).await;
    store.save_snapshot(&load(&world).await).await.expect("it is written");
    world.execute("update es_snapshots set stream_version = 5").await;
    mark(&world).await;
    store.save_snapshot(&load(&world).await).await.expect("it is written");
    assert_eq!(stored(&world).await, "3");
    append_any(&store, "account-1", 3).await;
    assert_eq!(load(&world).await.state().cents, 6);
}

#[tokio::test]
async fn events_are_saved_even_when_the_snapshot_cannot_be() {
    let world = World::new().await;
    let store = world.store();
    world.execute("alter table es_snapshots add constraint full_disk check (false)").await;
    let mut root = AggregateRoot::<Account>::new("1");
    record(&mut root, 10);
    store.save_snapshotting(&mut root).await.expect("the events are what counts");
    assert_eq!((root.version(), root.has_pending()), (10, false));
    assert_eq!(load(&world).await.version(), 10);
}

#[tokio::test]
#[should_panic(expected = "would hold events not yet saved")]
async fn a_root_with_pending_events_is_no_snapshot() {
    let world = World::new().await;
    let mut root = AggregateRoot::<Account>::new("1");
    record(&mut root, 1);
    let _ = world.store().save_snapshot(&root).await;
}
