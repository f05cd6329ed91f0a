//! Several streams in one transaction.

use foldd::ExpectedVersion::{Any, NoStream};
use foldd::{AggregateRoot, EventStoreError};

use super::aggregates::{Account, record};
use super::{append_any, credits, places, run, session, store_sqlstate, stuck, whole_log};
use crate::world::World;

#[tokio::test]
async fn a_scope_commits_all_of_it_and_returns_what_it_appended() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 2).await;
    let mut scope = store.begin_transaction().await.expect("it begins");
    let mut one = scope.load::<Account>("1").await.expect("it loads").expect("it exists");
    let mut two = scope.load_or_default::<Account>("2").await.expect("a new one");
    assert!(scope.load::<Account>("2").await.expect("it can be asked").is_none());
    record(&mut one, 1);
    record(&mut two, 2);
    scope.save(&mut two).await.expect("it is new");
    scope.save(&mut one).await.expect("it is at 2");
    scope.save(&mut one).await.expect("nothing pending, nothing to do");
    scope.append("audit-1", "audit", NoStream, &credits(1)).await.expect("it is new");
    scope.append("audit-1", "audit", Any, &credits(0)).await.expect("nothing to do");
    sqlx::query("create table beside as select 7 as x")
        .execute(scope.tx())
        .await
        .expect("the caller's own SQL");
    assert_eq!(scope.load::<Account>("2").await.expect("it loads").expect("its own writes").version(), 2);
    assert!(!store.stream_exists("account-2").await.expect("asked"), "nobody else sees it before the commit");
    let committed = scope.commit().await.expect("it commits");
    assert!(!committed.is_empty());
    let expected = [("account-2", 1), ("account-2", 2), ("account-1", 3), ("audit-1", 1)];
    assert_eq!(places(committed.events()), expected);
    let log = whole_log(&world).await;
    assert_eq!(places(&log)[2..], expected);
    for (event, stored) in committed.into_events().iter().zip(&log[2..]) {
        assert_eq!(
            (event.cursor(), event.event_id, event.data.get()),
            (stored.cursor(), stored.event_id, stored.data.get())
        );
    }
    assert_eq!(world.value("select x from beside").await, "7");
}

#[tokio::test]
async fn events_that_were_taken_are_not_returned_again() {
    let world = World::new().await;
    let mut scope = world.store().begin_transaction().await.expect("it begins");
    assert!(scope.take_committed_events().await.expect("none yet").is_empty());
    scope.append("a-1", "a", Any, &credits(2)).await.expect("appended");
    assert_eq!(places(scope.take_committed_events().await.expect("two").events()), [("a-1", 1), ("a-1", 2)]);
    scope.append("a-1", "a", Any, &credits(1)).await.expect("appended");
    assert_eq!(places(scope.commit().await.expect("it commits").events()), [("a-1", 3)]);
    let empty = world.store().begin_transaction().await.expect("it begins");
    assert!(empty.commit().await.expect("it commits").is_empty());
}

#[tokio::test]
async fn a_scope_that_is_rolled_back_or_dropped_leaves_nothing() {
    let world = World::new().await;
    let store = world.store();
    for rollback in [true, false] {
        let mut scope = store.begin_transaction().await.expect("it begins");
        let mut root = scope.load_or_default::<Account>("1").await.expect("a new one");
        record(&mut root, 3);
        scope.save(&mut root).await.expect("it is new");
        if rollback {
            scope.rollback().await.expect("it rolls back");
        } else {
            drop(scope);
        }
        let free = "select count(*) = 0 from pg_locks l join pg_class c on c.oid = l.relation
            where c.relname = 'es_streams' and l.mode = 'RowExclusiveLock'
              and l.database = (select oid from pg_database where datname = current_database())";
        world.eventually("the scope lets go of its locks", async || world.value(free).await == "true").await;
        assert!(!store.stream_exists("account-1").await.expect("it can be asked"));
    }
    append_any(&store, "account-1", 1).await;
    assert_eq!(places(&whole_log(&world).await), [("account-1", 1)]);
}

#[tokio::test]
async fn a_failed_save_keeps_the_events_and_ends_the_scope() {
    let world = World::new().await;
    let store = world.store();
    let mut late = AggregateRoot::<Account>::new("1");
    record(&mut late, 1);
    append_any(&store, "account-1", 1).await;
    let mut scope = store.begin_transaction().await.expect("it begins");
    scope.append("a-1", "a", Any, &credits(1)).await.expect("appended");
    let error = scope.save(&mut late).await.expect_err("it is not new");
    assert!(matches!(error, EventStoreError::ConcurrencyConflict { actual: Some(1), .. }), "{error:?}");
    assert!(late.has_pending());
    scope.load::<Account>("1").await.expect_err("the transaction is aborted");
    scope.commit().await.expect_err("nothing is committed");
    assert!(!store.stream_exists("a-1").await.expect("it can be asked"));
}

#[tokio::test]
async fn a_scope_whose_failure_was_overlooked_does_not_commit() {
    let world = World::new().await;
    let mut scope = world.store().begin_transaction().await.expect("it begins");
    scope.append("a-1", "a", Any, &credits(1)).await.expect("appended");
    assert_eq!(scope.take_committed_events().await.expect("one").events().len(), 1);
    sqlx::query("select 1 / 0").execute(scope.tx()).await.expect_err("the caller's own mistake");
    scope.commit().await.expect_err("PostgreSQL rolls back and calls it a success");
    assert!(!world.store().stream_exists("a-1").await.expect("it can be asked"));
}

#[tokio::test]
async fn a_locked_stream_waits_for_the_scope() {
    let world = World::alone().await;
    let store = world.store();
    append_any(&store, "account-1", 1).await;
    let mut scope = store.begin_transaction().await.expect("it begins");
    let mut root = scope.load_for_update::<Account>("1").await.expect("it loads").expect("it exists");
    assert_eq!(root.version(), 1);
    // A lock timeout says so at once, and may be retried.
    let mut hasty = store.begin_transaction().await.expect("it begins");
    sqlx::query("set local lock_timeout = '20ms'").execute(hasty.tx()).await.expect("it is set");
    let error = hasty.append("account-1", "account", Any, &credits(1)).await.expect_err("it is locked");
    assert_eq!(store_sqlstate(&error), "55P03");
    assert!(error.is_retryable());
    drop(hasty);
    // Other streams are free, reading is free.
    append_any(&store, "account-2", 1).await;
    assert_eq!(store.load::<Account>("1").await.expect("it loads").expect("it exists").version(), 1);

    let (mut other, pid) = session(&world).await;
    let race = stuck(&world, pid, async move {
        run(&mut other, "select es_append('account-1', null, null, array['Credited'], array['1'::jsonb])")
            .await;
    })
    .await;
    record(&mut root, 1);
    scope.save(&mut root).await.expect("nobody was faster");
    scope.commit().await.expect("it commits");
    race.await.expect("the other one goes on");
    let log = whole_log(&world).await;
    assert_eq!(log.iter().filter(|event| event.stream_id == "account-1").count(), 3);
}

#[tokio::test]
async fn a_scope_locks_and_loads_with_and_without_snapshots() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "account-1", 12).await;
    let root = store.load_or_default_snapshotted::<Account>("1").await.expect("it loads");
    store.save_snapshot(&root).await.expect("it is written");
    let mut scope = store.begin_transaction().await.expect("it begins");
    assert!(scope.load_for_update::<Account>("9").await.expect("nothing to lock").is_none());
    assert_eq!(scope.load_or_default_for_update::<Account>("9").await.expect("a new one").version(), 0);
    assert_eq!(scope.load_or_default_for_update::<Account>("1").await.expect("it loads").version(), 12);
    let snapshotted = scope.load_snapshotted::<Account>("1").await.expect("it loads").expect("it exists");
    assert_eq!((snapshotted.version(), snapshotted.state().entries), (12, 12));
    assert!(scope.load_snapshotted::<Account>("9").await.expect("it can be asked").is_none());
    scope.rollback().await.expect("it rolls back");
}

#[tokio::test]
async fn deadlocks_and_serialization_failures_may_be_retried() {
    let world = World::alone().await;
    let store = world.store();
    append_any(&store, "a-1", 1).await;
    append_any(&store, "a-2", 1).await;
    let (mut one, mut two) = (
        store.begin_transaction().await.expect("it begins"),
        store.begin_transaction().await.expect("it begins"),
    );
    one.append("a-1", "a", Any, &credits(1)).await.expect("appended");
    two.append("a-2", "a", Any, &credits(1)).await.expect("appended");
    let (events, more) = (credits(1), credits(1));
    let (left, right) = tokio::join!(one.append("a-2", "a", Any, &events), async {
        let done = two.append("a-1", "a", Any, &more).await;
        if done.is_ok() {
            two.commit().await.expect("it commits");
        }
        done
    });
    let loser = left.and(right).expect_err("one of them loses");
    assert_eq!(store_sqlstate(&loser), "40P01");
    assert!(loser.is_retryable());
    drop(one);

    let mut frozen = store.begin_transaction().await.expect("it begins");
    sqlx::query("set transaction isolation level serializable")
        .execute(frozen.tx())
        .await
        .expect("it is set");
    frozen.load::<Account>("1").await.expect("the snapshot is taken");
    append_any(&store, "a-1", 1).await;
    let error = frozen.append("a-1", "a", Any, &credits(1)).await.expect_err("it was overtaken");
    assert_eq!(store_sqlstate(&error), "40001");
    assert!(error.is_retryable());
}
