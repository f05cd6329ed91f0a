//! Reading: pages, streams, the horizon, lag.

use std::time::Duration;

use foldd::ExpectedVersion::Any;
use foldd::{Cursor, EventStoreError, ReadDirection, StreamQuery};
use sqlx::Connection;

use super::{append_any, credits, imported, places, run, session, settled, whole_log};
use crate::world::World;

#[tokio::test]
async fn a_page_begins_behind_its_cursor_and_ends_at_its_limit() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "a-1", 3).await;
    append_any(&store, "b-1", 2).await;
    let log = whole_log(&world).await;
    assert_eq!(log.len(), 5);
    for (nth, event) in log.iter().enumerate() {
        let after = store.read_all_after(event.cursor(), 100).await.expect("it can be read");
        assert_eq!(places(&after), places(&log[nth + 1..]));
        let two = store.read_all_after(event.cursor(), 2).await.expect("it can be read");
        assert_eq!(places(&two), places(&log[nth + 1..(nth + 3).min(5)]));
    }
    // A cursor between two events, by stamp or by position, and one behind the end.
    let stamp = log[1].transaction_id;
    assert_eq!(store.read_all_after((stamp, 0), 1).await.expect("read")[0].cursor(), log[0].cursor());
    assert_eq!(
        store.read_all_after((stamp - 1, i64::MAX), 1).await.expect("read")[0].cursor(),
        log[0].cursor()
    );
    assert!(store.read_all_after((log[4].transaction_id, i64::MAX), 1).await.expect("read").is_empty());
    assert!(store.read_all_after(Cursor::START, 0).await.expect("read").is_empty());
    store.read_all_after(Cursor::START, -1).await.expect_err("no negative pages");
}

#[tokio::test]
async fn categories_are_read_alone_and_merged() {
    let world = World::new().await;
    let store = world.store();
    let block: Vec<_> = (0..30).map(|nth| imported(&format!("{}-{nth}", ["a", "b", "c"][nth % 3]))).collect();
    store.append_many(&block).await.expect("appended");
    append_any(&store, "b-1", 1).await;
    append_any(&store, "a-1", 1).await;
    let log = whole_log(&world).await;
    for wanted in
        [&["a"][..], &["b"], &["a", "c"], &["c", "b", "a"], &["a", "a"], &["missing", "a"], &["missing"], &[]]
    {
        let names: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let mut expected = log.clone();
        expected.retain(|event| names.contains(&event.stream_category));
        let read = store.read_categories_after(&names, (0, 0), 100).await.expect("it can be read");
        assert_eq!(places(&read), places(&expected), "{wanted:?}");
        let page = store.read_categories_after(&names, (0, 0), 7).await.expect("it can be read");
        assert_eq!(places(&page), places(&expected[..expected.len().min(7)]), "{wanted:?}");
        if let [name] = wanted {
            let read = store.read_category_after(name, (0, 0), 100).await.expect("it can be read");
            assert_eq!(places(&read), places(&expected));
        }
    }
}

#[tokio::test]
async fn an_open_writer_holds_back_what_comes_after_it() {
    let world = World::alone().await;
    let store = world.store();
    append_any(&store, "a-1", 1).await;
    let mut open = world.pool().begin().await.expect("a transaction");
    store.append_in_tx(&mut open, "a-2", "a", Any, &credits(1)).await.expect("appended");
    append_any(&store, "a-3", 1).await;
    append_any(&store, "b-1", 1).await;
    let names = ["a".to_owned(), "b".to_owned()];
    assert_eq!(places(&store.read_all_after((0, 0), 9).await.expect("read")), [("a-1", 1)]);
    assert_eq!(places(&store.read_category_after("a", (0, 0), 9).await.expect("read")), [("a-1", 1)]);
    assert_eq!(places(&store.read_categories_after(&names, (0, 0), 9).await.expect("read")), [("a-1", 1)]);
    assert!(store.read_category_after("b", (0, 0), 9).await.expect("read").is_empty());
    open.commit().await.expect("it commits");
    let all = [("a-1", 1), ("a-2", 1), ("a-3", 1), ("b-1", 1)];
    assert_eq!(places(&store.read_all_after((0, 0), 9).await.expect("read")), all);
    assert_eq!(places(&store.read_category_after("a", (0, 0), 9).await.expect("read")), all[..3]);
    assert_eq!(places(&store.read_categories_after(&names, (0, 0), 9).await.expect("read")), all);
}

#[tokio::test]
async fn a_writer_in_another_database_holds_the_horizon_and_a_reader_does_not() {
    let world = World::alone().await;
    append_any(&world.store(), "a-1", 1).await;
    let (mut reader, _) = session(&world).await;
    run(&mut reader, "begin isolation level repeatable read; select count(*) from es_events").await;
    append_any(&world.store(), "a-2", 1).await;
    assert_eq!(world.store().read_all_after((0, 0), 9).await.expect("read").len(), 2);
    let elsewhere = world.url().replace(&world.value("select current_database()").await, "postgres");
    let mut other = sqlx::PgConnection::connect(&elsewhere).await.expect("the other database answers");
    run(&mut other, "begin; create temp table t (x int)").await;
    append_any(&world.store(), "a-3", 1).await;
    assert_eq!(world.store().read_all_after((0, 0), 9).await.expect("read").len(), 2);
    run(&mut other, "rollback").await;
    assert_eq!(world.store().read_all_after((0, 0), 9).await.expect("read").len(), 3);
}

#[tokio::test]
async fn a_transaction_does_not_read_its_own_appends_from_the_log() {
    // Its xid is the horizon: a checkpoint behind its own event would skip those of its elders.
    let world = World::alone().await;
    let mut tx = world.pool().begin().await.expect("a transaction");
    world.store().append_in_tx(&mut tx, "a-1", "a", Any, &credits(1)).await.expect("appended");
    let own: i64 = sqlx::query_scalar("select count(*) from es_read_all_after('0', 0, 9)")
        .fetch_one(&mut *tx)
        .await
        .expect("it can be read");
    assert_eq!(own, 0);
    let stream = world.store().read_stream_with(&mut *tx, "a-1", StreamQuery::default()).await.expect("read");
    assert_eq!(places(&stream), [("a-1", 1)], "the stream itself is read as the transaction sees it");
}

#[tokio::test]
async fn a_page_may_be_bounded_in_bytes() {
    let world = World::new().await;
    for nth in 1..=4 {
        world.append(&format!("a-{nth}"), "A", &format!("\"{}\"", "x".repeat(1_000))).await;
    }
    settled(&world).await;
    for (bytes, events) in [("null", "4"), ("100000", "4"), ("2500", "2"), ("1", "1"), ("0", "1")] {
        for source in [
            "es_read_all_after('0', 0, 9",
            "es_read_category_after('a', '0', 0, 9",
            "es_read_category_after(array['a', 'b'], '0', 0, 9",
        ] {
            assert_eq!(
                world.value(&format!("select count(*) from {source}, null, {bytes})")).await,
                events,
                "{source}"
            );
        }
    }
}

#[tokio::test]
async fn the_extent_of_a_page_is_that_of_its_events() {
    let world = World::new().await;
    for nth in 0..6 {
        let block: Vec<_> =
            (0..7).map(|step| imported(&format!("{}-{step}", ["a", "b"][(nth + step) % 2]))).collect();
        world.store().append_many(&block).await.expect("appended");
    }
    settled(&world).await;
    // From every event on, for several categories, lengths and bounds in bytes: what the page has, counted.
    let wrong = "
        select string_agg(format('%s %s %s %s', given.categories, most, bytes, start.global_position), ', ')
        from (values (null::text[]), (array['a']), (array['a', 'b']), (array['missing']), (array['a', 'a']))
             as given (categories)
        cross join (values (0), (1), (5), (100)) lengths (most)
        cross join (values (null), (1), (100), (1000000)) bounds (bytes)
        cross join (select transaction_id, global_position from es_events union all select '0', 0) start
        cross join lateral es_extent_after(given.categories, start.transaction_id, start.global_position, most, null,
                                           bytes) extent
        cross join lateral (
            select count(*) as events, min(created_at) as oldest,
                   max(array[page.transaction_id::text::bigint, page.global_position]) as last
            from es_read_after(given.categories, start.transaction_id, start.global_position, most, null,
                               bytes) page
        ) page
        where (extent.events, extent.oldest, extent.transaction_id, extent.global_position)
              is distinct from (page.events, page.oldest, page.last[1]::text::xid8, page.last[2])";
    assert_eq!(world.value(wrong).await, "", "extents that are not those of their pages");
}

#[tokio::test]
async fn the_reach_of_a_large_page_is_that_of_its_events() {
    let world = World::new().await;
    // 60 small events to one of 3 kB, in blocks of one stamp, beside another category and a gap in the positions.
    world
        .execute(
            "insert into es_streams (stream_id, stream_category, stream_version)
             values ('a-1', 'a', 0), ('b-1', 'b', 0)",
        )
        .await;
    for block in 0..6 {
        world
            .execute(&format!(
                "insert into es_events (stream_id, stream_category, stream_version, event_type, data)
                 select c || '-1', c, {block} * 1000 + n, 'A',
                        jsonb_build_object('pad', case when n % 61 = 0 then
                            (select string_agg(md5(i::text), '') from generate_series(1, 100) i) else 'x' end)
                 from generate_series(1, 700) n cross join (values ('a'), ('b')) given (c)"
            ))
            .await;
        world.execute("select nextval(pg_get_serial_sequence('es_events', 'global_position'))").await;
    }
    settled(&world).await;
    // Full pages and the last one, from several places on; a bound of bytes that does not matter, and none. What is said of
    // the oldest event is that of the first.
    let wrong = "
        select string_agg(format('%s %s %s %s', given.categories, most, bytes, start.global_position), ', ')
        from (values (null::text[]), (array['a']), (array['a', 'b']), (array['missing'])) as given (categories)
        cross join (values (10), (1000), (1500), (9000)) lengths (most)
        cross join (values (null), (1000000000)) bounds (bytes)
        cross join (select transaction_id, global_position from es_events where global_position % 997 = 1
                    union all select '0', 0) start
        cross join lateral es_reach_after(given.categories, start.transaction_id, start.global_position, most, null,
                                          bytes) reach
        cross join lateral es_extent_after(given.categories, start.transaction_id, start.global_position, most, null,
                                           bytes) extent
        where (reach.events, reach.oldest, reach.transaction_id, reach.global_position)
              is distinct from (extent.events, extent.oldest, extent.transaction_id, extent.global_position)";
    assert_eq!(world.value(wrong).await, "", "reaches that are not the extents");
    // Of everything below a horizon only the two ends are looked at, where bytes do not matter.
    let wrong = "
        select string_agg(format('%s %s %s', horizon, start.global_position, bytes), ', ')
        from (select max(transaction_id) as horizon from es_events union all select es_horizon()) given
        cross join (values (1000000000), (1000)) bounds (bytes)
        cross join (select transaction_id, global_position from es_events where global_position in (1, 1999)
                    union all select '0', 0) start
        cross join lateral es_extent_after(array['a'], start.transaction_id, start.global_position, 9000, horizon,
                                           null) extent
        cross join lateral es_rest_after('a', start.transaction_id, start.global_position, horizon, extent.events,
                                         bytes) rest
        where case bytes when 1000 then rest.transaction_id is not null
              else (rest.oldest, rest.transaction_id, rest.global_position)
                   is distinct from (extent.oldest, extent.transaction_id, extent.global_position) end";
    assert_eq!(world.value(wrong).await, "", "rests that are not the extents");
    // Where the bound may matter, every event is counted.
    let bounded =
        "select string_agg(bytes::text, ', ') from (values (1), (5000), (60000), (100000)) bounds (bytes)
        cross join lateral es_reach_after(array['a'], '0', 0, 4000, null, bytes) reach
        cross join lateral es_extent_after(array['a'], '0', 0, 4000, null, bytes) extent
        where reach is distinct from extent or reach.events = 4000";
    assert_eq!(world.value(bounded).await, "", "bounds that were not kept");
}

#[tokio::test]
async fn a_stream_is_read_from_either_end() {
    let world = World::new().await;
    let store = world.store();
    append_any(&store, "a-1", 5).await;
    append_any(&store, "a-2", 1).await;
    let (forward, backward) = (ReadDirection::Forward, ReadDirection::Backward);
    for (direction, from_version, limit, expected) in [
        (forward, None, None, &[1, 2, 3, 4, 5][..]),
        (forward, Some(3), None, &[3, 4, 5]),
        (forward, Some(3), Some(2), &[3, 4]),
        (forward, None, Some(2), &[1, 2]),
        (forward, Some(6), None, &[]),
        (forward, Some(-9), Some(1), &[1]),
        (backward, None, None, &[5, 4, 3, 2, 1]),
        (backward, Some(3), None, &[3, 2, 1]),
        (backward, Some(3), Some(2), &[3, 2]),
        (backward, Some(99), Some(1), &[5]),
        (backward, None, Some(0), &[]),
        (backward, Some(0), None, &[]),
    ] {
        let query = StreamQuery { direction, from_version, limit };
        let read = store.read_stream("a-1", query).await.expect("it can be read");
        let versions: Vec<_> = read.iter().map(|event| event.stream_version).collect();
        assert_eq!(versions, expected, "{query:?}");
    }
    assert!(store.read_stream("a-9", StreamQuery::default()).await.expect("read").is_empty());
    assert!(
        store.stream_exists("a-1").await.expect("asked") && !store.stream_exists("a-9").await.expect("asked")
    );
}

#[tokio::test]
async fn lag_counts_what_a_subscription_has_before_it() {
    let world = World::alone().await;
    let store = world.store();
    world
        .execute(
            "insert into es_subscriptions (subscription_id, categories)
             values ('all', null), ('one', '{a}'), ('two', '{a,c}'), ('same', '{a,a}'), ('none', '{}')",
        )
        .await;
    append_any(&store, "a-1", 3).await;
    append_any(&store, "b-1", 4).await;
    append_any(&store, "c-1", 5).await;
    for (subscription, events) in [("all", 12), ("one", 3), ("two", 8), ("same", 3), ("none", 0)] {
        let lag = store.projection_lag(subscription).await.expect("it is known");
        assert_eq!(lag.events, events, "{subscription}");
        assert_eq!(lag.oldest_age > Duration::ZERO, events > 0, "{subscription}: {lag:?}");
    }
    let two = store.read_category_after("a", (0, 0), 2).await.expect("read")[1].cursor();
    world
        .execute(&format!(
            "update es_subscriptions set last_transaction_id = '{}', last_position = {}",
            two.transaction_id, two.global_position
        ))
        .await;
    for (subscription, events) in [("all", 10), ("one", 1), ("two", 6)] {
        assert_eq!(
            store.projection_lag(subscription).await.expect("it is known").events,
            events,
            "{subscription}"
        );
    }
    // What readers may not see yet is no lag.
    let (mut open, _) = session(&world).await;
    run(&mut open, "begin; select pg_current_xact_id()").await;
    append_any(&store, "a-1", 1).await;
    assert_eq!(store.projection_lag("one").await.expect("it is known").events, 1);
    run(&mut open, "rollback").await;
    assert_eq!(store.projection_lag("one").await.expect("it is known").events, 2);

    let error = store.projection_lag("nobody").await.expect_err("unknown");
    assert!(matches!(&error, EventStoreError::UnknownSubscription(name) if name == "nobody"), "{error:?}");
}

#[tokio::test]
async fn the_age_of_lag_is_that_of_its_first_event() {
    let world = World::new().await;
    world.execute("insert into es_subscriptions (subscription_id, categories) values ('one', '{a}')").await;
    append_any(&world.store(), "a-1", 1).await;
    world
        .execute(
            "insert into es_streams (stream_id, stream_category, stream_version) values ('a-2', 'a', 1);
             insert into es_events (stream_id, stream_version, event_type, data, created_at)
             values ('a-2', 1, 'A', '1', now() - interval '1 hour')",
        )
        .await;
    settled(&world).await;
    let lag = world.store().projection_lag("one").await.expect("it is known");
    assert_eq!(lag.events, 2);
    assert!(lag.oldest_age < Duration::from_secs(600), "{lag:?}");
    world
        .execute(
            "update es_subscriptions set last_transaction_id = transaction_id, last_position = global_position
             from es_events where stream_id = 'a-1'",
        )
        .await;
    let lag = world.store().projection_lag("one").await.expect("it is known");
    assert_eq!(lag.events, 1);
    assert!(lag.oldest_age >= Duration::from_secs(3600), "{lag:?}");
}
