//! Taking over a store of the plain shape while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldd::ExpectedVersion::Exact;
use foldd::{EventStore, EventStoreError};

use super::{append_any, assert_ordered, credits, run, session, whole_log};
use crate::world::{World, pool};

pub(crate) const PLAIN: &str = "
    create table es_streams (stream_id text primary key, stream_category text, stream_version bigint,
        created_at timestamptz, updated_at timestamptz);
    create table es_events (global_position bigserial primary key, stream_id text references es_streams,
        stream_version bigint, event_type text, data jsonb, metadata jsonb default '{}',
        transaction_id xid8 default pg_current_xact_id(), created_at timestamptz default now(),
        unique (stream_id, stream_version));
    create table es_subscriptions (subscription_id text primary key, last_position bigint default 0,
        last_transaction_id xid8 default '0', updated_at timestamptz);";

/// Streams of every kind that older writers left: with a category and without, with times and without.
const FILL: &str = "
    insert into es_streams (stream_id, stream_category, stream_version, created_at, updated_at)
        select 'order-' || n, 'order', 25, now(), now() from generate_series(1, 500) n;
    insert into es_streams (stream_id, stream_version) select 'stock-' || n, 25 from generate_series(1, 500) n;
    insert into es_streams (stream_id, stream_category, stream_version) values ('empty-1', 'empty', 0);
    insert into es_events (stream_id, stream_version, event_type, data, metadata)
        select kind || n, version, 'Old', jsonb_build_object('n', n), case when n % 7 = 0 then null else '{\"a\": 1}'::jsonb end
        from generate_series(1, 25) version, generate_series(1, 500) n, (values ('order-'), ('stock-')) kinds (kind)
        order by version, n;
    insert into es_subscriptions (subscription_id, last_position, last_transaction_id)
        select 'orders', global_position, transaction_id from es_events where global_position = 12000;
    insert into es_subscriptions (subscription_id) values ('idle');";

/// What an older writer does: it knows nothing but its own columns.
pub(super) fn old_append(stream: &str, version: i64) -> String {
    let next = version + 1;
    let row = if version == 0 {
        format!(
            "insert into es_streams (stream_id, stream_category, stream_version) values ('{stream}', split_part('{stream}', '-', 1), 1)"
        )
    } else {
        format!(
            "update es_streams set stream_version = {next} where stream_id = '{stream}' and stream_version = {version}"
        )
    };
    format!(
        "{row}; insert into es_events (stream_id, stream_version, event_type, data) values ('{stream}', {next}, 'Old', '{{}}')"
    )
}

/// Everything about the tables that a program can notice.
const CATALOG: &str = "
    with facts as (
        select format('column %s.%s %s not null %s default %s identity %s%s', c.relname, a.attname,
                      format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                      a.attidentity, a.attgenerated) as fact
        from pg_class c join pg_attribute a on a.attrelid = c.oid left join pg_attrdef d on (d.adrelid, d.adnum) = (c.oid, a.attnum)
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
        union all
        select format('relation %s %s %s %s', relname, relkind, relpersistence, reloptions) from pg_class
        where relnamespace = 'public'::regnamespace
        union all
        select 'index ' || indexdef from pg_indexes where schemaname = 'public'
        union all
        select format('constraint %s %s %s %s', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid))
        from pg_constraint where connamespace = 'public'::regnamespace
        union all
        select 'trigger ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
        union all
        select 'function ' || pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
        union all
        select format('sequence %s %s %s', sequencename, cache_size, increment_by) from pg_sequences
    )
    select string_agg(fact, E'\\n' order by fact) from facts";

/// A plain store with 25,000 events of 1,000 streams.
pub(super) async fn plain() -> World {
    let world = World::bare_alone().await;
    world.execute(PLAIN).await;
    world.execute(FILL).await;
    world
}

/// What must be the same before and after.
pub(super) async fn contents(world: &World) -> String {
    world
        .value(
            "select concat((select md5(string_agg(format('%s %s %s %s %s %s', global_position, stream_id, stream_version,
                        data, coalesce(metadata, '{}'), transaction_id), ',' order by global_position)) from es_events),
                (select md5(string_agg(stream_id || stream_version, ',' order by stream_id)) from es_streams),
                (select string_agg(format('%s %s %s', subscription_id, last_position, last_transaction_id), ','
                    order by subscription_id) from es_subscriptions))",
        )
        .await
}

pub(super) async fn assert_whole(world: &World) {
    let fresh = World::new().await;
    let (adopted, fresh) = (world.value(CATALOG).await, fresh.value(CATALOG).await);
    for line in adopted.lines().filter(|line| !fresh.lines().any(|other| other == *line)) {
        eprintln!("only adopted: {line}");
    }
    for line in fresh.lines().filter(|line| !adopted.lines().any(|other| other == *line)) {
        eprintln!("only fresh:   {line}");
    }
    assert!(adopted == fresh, "an adopted store is the same as a new one");
    assert_ordered(world).await;
    let unfilled = "select count(*) from es_events e join es_streams s using (stream_id)
        where e.stream_category <> s.stream_category or s.last_transaction_id < e.transaction_id";
    assert_eq!(world.value(unfilled).await, "0");
}

#[tokio::test]
async fn an_adopted_store_is_the_same_as_a_new_one_and_keeps_everything() {
    let world = plain().await;
    let before = contents(&world).await;
    let done = world.foldd(&["migrate"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("adopted the store that was there"), "{done:?}");
    assert_eq!(contents(&world).await, before);
    assert_whole(&world).await;
    let applied = "select applied_position || ' ' || fence_token from es_subscriptions where subscription_id = 'orders'";
    assert_eq!(world.value(applied).await, "12000 0");

    // Old readers' checkpoints, new appends and new streams: one log, in order.
    let store = world.store();
    assert_eq!(store.projection_lag("orders").await.expect("it is known").events, 25_000 - 12_000);
    store.append("order-1", "order", Exact(25), &credits(1)).await.expect("it is at 25");
    append_any(&store, "stock-7", 1).await;
    append_any(&store, "order-new", 1).await;
    world.execute(&old_append("order-2", 25)).await;
    world.append("empty-1", "First", "1").await;
    assert_ordered(&world).await;
    let positions = world.value("select string_agg(global_position::text, ',' order by global_position) from es_events where global_position > 25000").await;
    assert_eq!(positions, "25001,25002,25003,25004,25005", "the sequence goes on");
    let log = whole_log(&world).await;
    assert_eq!(log.len(), 25_005);
    assert!(log.is_sorted_by_key(|event| event.cursor()));
    let stocks = store.read_category_after("stock", (0, 0), i64::MAX).await.expect("read");
    assert_eq!(stocks.len(), 12_501);
    assert!(!store.migrate().await.expect("nothing to do").adopted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_writers_go_on_while_their_store_is_adopted() {
    let world = Arc::new(plain().await);
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (world, ended) = (Arc::clone(&world), Arc::clone(&ended));
            tokio::spawn(async move {
                let (mut conn, _) = session(&world).await;
                let mut appended = 0;
                while !ended.load(Ordering::SeqCst) {
                    // Two streams in one transaction, in any order, one of them new.
                    let (new, old) = (format!("new-{writer}-{appended}"), format!("order-{}", writer + 1));
                    let mut both = [old_append(&new, 0), old_append(&old, 25 + appended)];
                    if appended % 2 == 0 {
                        both.reverse();
                    }
                    run(&mut conn, &format!("begin; {}; {}; commit", both[0], both[1])).await;
                    appended += 1;
                }
                appended
            })
        })
        .collect();
    let done = world.foldd(&["migrate"]).await;
    ended.store(true, Ordering::SeqCst);
    let mut appended = 0;
    for writer in writers {
        appended += writer.await.expect("no writer is ever refused");
    }
    assert_eq!(done.code, 0, "{done:?}");
    assert!(appended > 0);
    assert_ordered(&world).await;
    assert_eq!(whole_log(&world).await.len(), 25_000 + 2 * usize::try_from(appended).expect("not negative"));
}

#[tokio::test]
async fn many_processes_adopt_a_store_once() {
    let world = plain().await;
    let before = contents(&world).await;
    let [a, b, c, d, e, f, g, h] = std::array::from_fn::<_, 8, _>(|_| world.foldd(&["migrate"]));
    let done: [crate::world::Done; 8] = tokio::join!(a, b, c, d, e, f, g, h).into();
    assert!(done.iter().all(|one| one.code == 0), "{done:?}");
    assert_eq!(done.iter().filter(|one| one.out.contains("adopted")).count(), 1, "{done:?}");
    assert_eq!(contents(&world).await, before);
    assert_whole(&world).await;
}

#[tokio::test]
async fn a_store_in_another_schema_is_adopted_where_it_is() {
    let world = World::bare_alone().await;
    world.execute("create schema shop; create schema postgres").await;
    // The second schema of the search path has the tables; the first one, named as the user, is empty.
    let url = format!("{}&options=-csearch_path%3Dpostgres,shop", world.url());
    let store = EventStore::new(pool(&url).await);
    for sql in [PLAIN, FILL] {
        world.execute(&format!("set search_path = shop; {sql} set search_path = public")).await;
    }
    assert!(store.migrate().await.expect("it is adopted").adopted);
    assert!(!store.migrate().await.expect("nothing to do").adopted);
    append_any(&store, "order-1", 1).await;
    let elsewhere = "select string_agg(relname, ',') from pg_class
        where relnamespace in ('postgres'::regnamespace, 'public'::regnamespace)";
    assert_eq!(world.value(elsewhere).await, "");
    assert_eq!(world.value("select count(*) from shop.es_read_all_after('0', 0, 30000)").await, "25001");
}

#[tokio::test]
async fn what_is_only_half_plain_is_refused_and_left_alone() {
    for (spoil, table, problem) in [
        ("drop table es_subscriptions", "es_streams", "es_subscriptions does not"),
        ("alter table es_events drop column event_type", "es_events", "has no column event_type"),
        (
            "alter table es_events alter column data type json",
            "es_events",
            "its column data is json, not jsonb",
        ),
        (
            "alter table es_subscriptions drop column last_position",
            "es_subscriptions",
            "has no column last_position",
        ),
        (
            "drop table es_events; drop table es_streams; create table es_streams (x int)",
            "es_streams",
            "has no column stream_id",
        ),
    ] {
        let world = World::bare().await;
        world.execute(PLAIN).await;
        world.execute(spoil).await;
        let catalog = world.value(CATALOG).await;
        let error = world.store().migrate().await.expect_err(spoil);
        assert!(
            matches!(&error, EventStoreError::NotAdoptable { table: t, problem: p } if *t == table && p == problem),
            "{spoil}: {error:?}"
        );
        assert_eq!(world.value(CATALOG).await, catalog);
        let done = world.foldd(&["migrate"]).await;
        assert!(done.code == 1 && done.err.contains(problem), "{done:?}");
    }
}

#[tokio::test]
async fn rows_that_make_no_sense_are_refused_by_name() {
    for (spoil, table) in [
        ("update es_events set event_type = null where global_position = 7", "es_events"),
        ("update es_events set stream_id = null where global_position = 7", "es_events"),
        ("update es_streams set stream_version = null where stream_id = 'order-1'", "es_streams"),
    ] {
        let world = World::bare_alone().await;
        world.execute(PLAIN).await;
        world.execute(FILL).await;
        world.execute(spoil).await;
        let error = world.store().migrate().await.expect_err(spoil);
        assert!(
            matches!(&error, EventStoreError::NotAdoptable { table: t, .. } if *t == table),
            "{spoil}: {error:?}"
        );
        // Repaired, the next try goes on.
        world.execute("delete from es_events where event_type is null or stream_id is null").await;
        world.execute("update es_streams set stream_version = 25 where stream_version is null").await;
        assert!(world.store().migrate().await.expect("it is repaired").adopted);
    }
}
