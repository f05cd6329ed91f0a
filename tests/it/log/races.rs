//! Two writers, one stream: one wins, the other learns why. Every interleaving is forced, none is hoped for.

use foldd::ExpectedVersion::{self, Any, Exact, NoStream};
use foldd::{Event, EventStoreError};
use sqlx::{AssertSqlSafe, PgPool};

use super::{
    Entry, append_any, ask, assert_ordered, conflict, credits, imported, places, run, session, stuck,
    whole_log,
};
use crate::world::World;

/// How a race ended for the one who came second.
async fn second(
    world: &World,
    isolation: &str,
    expected: ExpectedVersion,
    commit: bool,
    events: Vec<Event<Entry>>,
) -> Result<foldd::Appended, EventStoreError> {
    let (mut first, _) = session(world).await;
    let number = match expected {
        Any => "null".to_owned(),
        NoStream => "-1".to_owned(),
        Exact(version) => version.to_string(),
    };
    run(&mut first, "begin").await;
    let id = events[0].event_id;
    run(
        &mut first,
        &format!("select es_append('account-1', 'account', {number}, array['First'], array['1'::jsonb])"),
    )
    .await;

    let pool: PgPool = world.pool().clone();
    let store = world.store();
    let mut tx = pool.begin().await.expect("a transaction");
    sqlx::query(AssertSqlSafe(format!("set transaction isolation level {isolation}")))
        .execute(&mut *tx)
        .await
        .expect("set");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *tx).await.expect("a pid");
    let race = stuck(world, pid, async move {
        let done = store.append_in_tx(&mut tx, "account-1", "account", expected, &events).await;
        if done.is_ok() {
            tx.commit().await.expect("it commits");
        }
        done
    });
    let race = race.await;
    run(&mut first, if commit { "commit" } else { "rollback" }).await;
    let done = race.await.expect("the race ends");
    let stored = ask(&mut first, &format!("select count(*) from es_events where event_id = '{id}'")).await;
    assert_eq!(stored, if done.is_ok() { "1" } else { "0" }, "an acknowledged event is in the log, once");
    assert_ordered(world).await;
    done
}

#[tokio::test]
async fn of_two_writers_the_second_conflicts_with_the_actual_version() {
    for (before, expected) in [(0, NoStream), (2, Exact(2))] {
        let world = World::alone().await;
        if before > 0 {
            append_any(&world.store(), "account-1", before).await;
        }
        let error =
            second(&world, "read committed", expected, true, credits(1)).await.expect_err("it came second");
        let version = i64::try_from(before).expect("small") + 1;
        assert_eq!(conflict(error), ("account-1".to_owned(), expected, Some(version)));
    }
}

#[tokio::test]
async fn the_second_writer_gets_through_when_the_first_gives_up() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let world = World::alone().await;
        for (expected, version) in [(NoStream, 1), (Exact(1), 2), (Any, 3)] {
            let done =
                second(&world, isolation, expected, false, credits(1)).await.expect("the first is gone");
            assert_eq!(done.version, version, "{isolation} {expected}");
        }
    }
}

#[tokio::test]
async fn whoever_expects_nothing_continues_after_the_first() {
    let world = World::alone().await;
    for version in [2, 4] {
        let done =
            second(&world, "read committed", Any, true, credits(1)).await.expect("any version will do");
        assert_eq!(done.version, version);
    }
}

#[tokio::test]
async fn in_a_frozen_snapshot_the_second_writer_is_told_to_retry() {
    for isolation in ["repeatable read", "serializable"] {
        let world = World::alone().await;
        for expected in [NoStream, Exact(1), Any] {
            let error =
                second(&world, isolation, expected, true, credits(1)).await.expect_err("it came second");
            assert!(error.is_retryable(), "{isolation} {expected}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_retry_that_overtakes_its_first_try_learns_that_it_got_through() {
    // The answer was lost and the first try is still committing when the second begins.
    for (before, expected) in [(0, NoStream), (1, Exact(1)), (1, Any)] {
        let world = World::alone().await;
        if before > 0 {
            append_any(&world.store(), "account-1", before).await;
        }
        let store = world.store();
        let events = credits(2);
        let mut first = world.pool().begin().await.expect("a transaction");
        store
            .append_in_tx(&mut first, "account-1", "account", expected, &events)
            .await
            .expect("the first try");
        let mut retry = world.pool().begin().await.expect("a transaction");
        let pid: i32 =
            sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *retry).await.expect("a pid");
        let again = events.clone();
        let race = stuck(&world, pid, async move {
            store.append_in_tx(&mut retry, "account-1", "account", expected, &again).await
        })
        .await;
        first.commit().await.expect("the first try gets through after all");
        let error = race.await.expect("the race ends").expect_err("it is in the log");
        assert!(
            matches!(&error, EventStoreError::DuplicateEvent { event_id, stored_as: Some((stream, _)) }
                if *event_id == events[0].event_id && stream == "account-1"),
            "{expected}: {error:?}"
        );
        assert_eq!(whole_log(&world).await.len(), before + 2);
    }
}

#[tokio::test]
async fn an_event_id_that_another_stream_is_just_taking_is_refused() {
    for commit in [true, false] {
        let world = World::alone().await;
        let store = world.store();
        let events = credits(1);
        let mut first = world.pool().begin().await.expect("a transaction");
        store.append_in_tx(&mut first, "account-1", "account", Any, &events).await.expect("it is new");
        let mut other = world.pool().begin().await.expect("a transaction");
        let pid: i32 =
            sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *other).await.expect("a pid");
        let again = [credits(1), events.clone(), credits(1)].concat();
        let race = stuck(&world, pid, async move {
            let done = store.append_in_tx(&mut other, "account-2", "account", Any, &again).await;
            if done.is_ok() {
                other.commit().await.expect("it commits");
            }
            done
        })
        .await;
        if commit {
            first.commit().await.expect("it commits");
        } else {
            first.rollback().await.expect("it rolls back");
        }
        match race.await.expect("the race ends") {
            Ok(done) => assert!(!commit && done.version == 3),
            Err(EventStoreError::DuplicateEvent { event_id, stored_as }) => {
                assert!(commit);
                assert_eq!((event_id, stored_as), (events[0].event_id, Some(("account-1".to_owned(), 1))));
            }
            Err(other) => panic!("{other:?}"),
        }
        assert_ordered(&world).await;
    }
}

#[tokio::test]
async fn a_block_waits_for_the_streams_it_shares_and_goes_on_after_them() {
    let world = World::alone().await;
    let store = world.store();
    append_any(&store, "account-1", 1).await;
    let (mut first, _) = session(&world).await;
    run(&mut first, "begin").await;
    // One stream of the block is there already, the other one is just being created.
    run(&mut first, "select es_append('account-1', null, 1, array['First'], array['1'::jsonb])").await;
    run(&mut first, "select es_append('account-2', null, -1, array['First'], array['1'::jsonb])").await;
    let block = ["account-3", "account-2", "account-1", "account-2"].map(imported);
    let mut conn = world.pool().begin().await.expect("a transaction");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *conn).await.expect("a pid");
    conn.rollback().await.expect("it rolls back");
    let racing = store.clone();
    let race = tokio::spawn(async move { racing.append_many(&block).await });
    let blocked = "select count(*) > 0 from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0";
    world.eventually("the block has to wait", async || world.value(blocked).await == "true").await;
    run(&mut first, "commit").await;
    let cursor = race.await.expect("the race ends").expect("it is appended").expect("it has a cursor");
    let log = whole_log(&world).await;
    assert_eq!(
        places(&log)[3..],
        [("account-3", 1), ("account-2", 2), ("account-1", 3), ("account-2", 3)],
        "backend {pid}"
    );
    assert_eq!(cursor, log[6].cursor());
}

#[tokio::test]
async fn a_block_ends_at_the_cursor_that_is_read_last() {
    // The block has its stamp when a stream of it, with a later stamp, commits.
    let world = World::alone().await;
    let store = world.store();
    append_any(&store, "account-1", 1).await;
    let (mut gate, _) = session(&world).await;
    run(&mut gate, "begin").await;
    let (mut block, pid) = session(&world).await;
    run(&mut block, "begin; select pg_current_xact_id()").await;
    run(&mut gate, "select es_append('account-2', null, -1, array['First'], array['1'::jsonb])").await;
    let race = stuck(&world, pid, async move {
        let sql = "select (m.transaction_id, m.global_position) from es_append_many(
            array['account-2', 'account-3'], array[null, null]::text[], array['A', 'A'], array['1', '1']::jsonb[],
            array['{}', '{}']::jsonb[], array[gen_random_uuid(), gen_random_uuid()]) m";
        let answer = ask(&mut block, sql).await;
        run(&mut block, "commit").await;
        answer
    })
    .await;
    run(&mut gate, "commit").await;
    let answer = race.await.expect("the race ends");
    let log = whole_log(&world).await;
    let last = log.last().expect("the log has events").cursor();
    assert_eq!(places(&log).last(), Some(&("account-2", 2)), "the raised stamp is read last");
    assert_eq!(answer, format!("({},{})", last.transaction_id, last.global_position));
    assert_ordered(&world).await;
}
