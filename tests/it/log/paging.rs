//! Every event exactly once and in order, whoever writes meanwhile and however large the pages are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldd::ExpectedVersion::{Any, Exact, NoStream};
use foldd::{Cursor, EventStore, EventStoreError, RecordedEvent, StreamQuery};
use proptest::prelude::{ProptestConfig, any, prop};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use uuid::Uuid;

use super::{append_any, assert_ordered, credits, imported, places, run, session, settled, whole_log};
use crate::world::World;

const WRITERS: usize = 8;
const APPENDS: usize = 100;
const STREAMS: usize = 6;

/// Which events a reader wants.
type Categories = Option<&'static [&'static str]>;

async fn page(store: &EventStore, wanted: Categories, after: Cursor, limit: i64) -> Vec<RecordedEvent> {
    let read = match wanted {
        None => store.read_all_after(after, limit).await,
        Some([category]) => store.read_category_after(category, after, limit).await,
        Some(several) => {
            let names: Vec<_> = several.iter().map(|name| (*name).to_owned()).collect();
            store.read_categories_after(&names, after, limit).await
        }
    };
    read.expect("a page can be read")
}

/// Reads to the end of what is there, page by page.
async fn all_pages(
    store: &EventStore,
    wanted: Categories,
    sizes: impl IntoIterator<Item = i64>,
) -> Vec<RecordedEvent> {
    let mut read: Vec<RecordedEvent> = Vec::new();
    for size in sizes {
        let after = read.last().map_or(Cursor::START, RecordedEvent::cursor);
        let page = page(store, wanted, after, size).await;
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    read
}

/// One of the many ways to append, chosen by its number, to one of a few hot streams. Returns how many events were
/// acknowledged. Conflicts and serialization failures are part of the game; everything else is not.
async fn write(world: &World, nth: usize) -> usize {
    let store = world.store();
    let stream = format!("{}-{}", ["a", "b", "c"][nth % 3], nth / 5 % STREAMS);
    let category = &stream[..1];
    let events = credits(1 + nth % 4);
    let done = match nth % 7 {
        0 | 1 => store.append(&stream, category, Any, &events).await,
        2 => {
            let newest = StreamQuery {
                direction: foldd::ReadDirection::Backward,
                limit: Some(1),
                ..StreamQuery::default()
            };
            let last = store.read_stream(&stream, newest).await.expect("it can be read");
            let expected = last.first().map_or(NoStream, |event| Exact(event.stream_version));
            store.append(&stream, category, expected, &events).await
        }
        3 => {
            let mut block: Vec<_> =
                (0..events.len()).map(|more| imported(&format!("a-{}", (nth + more) % STREAMS))).collect();
            block.push(imported("b-1"));
            return store.append_many(&block).await.map_or_else(forgive, |_| block.len());
        }
        4 => {
            // The xid comes first, then others, then a savepoint that is given up.
            let (mut conn, _) = session(world).await;
            run(&mut conn, "begin; select pg_current_xact_id()").await;
            append_any(&store, &stream, 1).await;
            run(
                &mut conn,
                &format!(
                    "savepoint s; select es_append('{stream}', null, null, '{{A}}', '{{1}}'); rollback to s"
                ),
            )
            .await;
            run(
                &mut conn,
                &format!("select es_append('{stream}', null, null, '{{A,B}}', '{{1,2}}'); commit"),
            )
            .await;
            return 3;
        }
        5 => {
            let mut tx = world.pool().begin().await.expect("a transaction");
            sqlx::query("set transaction isolation level repeatable read")
                .execute(&mut *tx)
                .await
                .expect("it is set");
            match store.append_in_tx(&mut tx, &stream, category, Any, &events).await {
                Ok(done) => tx.commit().await.map(|()| done).map_err(EventStoreError::from),
                Err(error) => Err(error),
            }
        }
        _ => {
            // A writer that only knows INSERT, with a stream of its own.
            world
                .execute(&format!(
                    "begin; insert into es_streams (stream_id, stream_category, stream_version) values ('c-raw{nth}', 'c', 1);
                     insert into es_events (stream_id, stream_version, event_type, data) values ('c-raw{nth}', 1, 'A', '1'); commit"
                ))
                .await;
            return 1;
        }
    };
    done.map_or_else(forgive, |_| events.len())
}

fn forgive(error: EventStoreError) -> usize {
    let expected = error.is_retryable() || matches!(error, EventStoreError::ConcurrencyConflict { .. });
    assert!(expected, "a writer failed: {error:?}");
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_all_kinds_of_writers_see_every_event_once_and_in_order() {
    let world = Arc::new(World::alone().await);
    let seed = seed();
    eprintln!("seed {seed}");
    let ended = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [
        (None, 1),
        (None, 1_000),
        (Some(&["a"][..]), 3),
        (Some(&["a", "b", "c"][..]), 17),
        (Some(&["c", "a"][..]), 50),
    ]
    .into_iter()
    .map(|(wanted, size): (Categories, i64)| {
        let (world, ended) = (Arc::clone(&world), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut read: Vec<RecordedEvent> = Vec::new();
            loop {
                // Looked at first: what is committed before the writers' end is read after it.
                let last_look = ended.load(Ordering::SeqCst);
                let after = read.last().map_or(Cursor::START, RecordedEvent::cursor);
                let page = page(&world.store(), wanted, after, size).await;
                if page.is_empty() && last_look {
                    return (wanted, size, read);
                }
                read.extend(page);
            }
        })
    })
    .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut acknowledged = 0;
                for turn in 0..APPENDS {
                    acknowledged +=
                        write(&world, seed.wrapping_add(writer * APPENDS + turn) % 1_000_000).await;
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.expect("a writer ends");
    }
    settled(&world).await;
    ended.store(true, Ordering::SeqCst);

    assert_ordered(&world).await;
    let log = whole_log(&world).await;
    assert_eq!(log.len(), acknowledged, "what was acknowledged is in the log, and nothing else");
    for reader in readers {
        let (wanted, size, read) = reader.await.expect("a reader ends");
        let mut expected = log.clone();
        expected.retain(|event| wanted.is_none_or(|names| names.contains(&event.stream_category.as_str())));
        assert_eq!(places(&read), places(&expected), "{wanted:?} in pages of {size}");
        assert!(read.is_sorted_by_key(RecordedEvent::cursor));
    }
}

/// Which way the writers take is drawn anew each time; it is printed, and may be given.
fn seed() -> usize {
    let given = std::env::var("FOLDD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| usize::from(Uuid::new_v4().as_bytes()[0]))
}

#[tokio::test]
async fn what_is_read_does_not_depend_on_the_size_of_the_pages() {
    let world = World::new().await;
    let store = world.store();
    for round in 0..12_usize {
        let block: Vec<_> = (0..10)
            .map(|nth| imported(&format!("{}-{}", ["a", "b", "c", "d"][(nth * nth + round) % 4], nth % 3)))
            .collect();
        store.append_many(&block).await.expect("appended");
        // A lower stamp behind higher positions: its transaction began before the other's, and wrote after
        // it.
        let (mut early, _) = session(&world).await;
        run(&mut early, "begin; select pg_current_xact_id()").await;
        append_any(&store, "b-1", round % 3 + 1).await;
        run(
            &mut early,
            &format!("select es_append('d-early{round}', null, null, '{{A,B}}', '{{1,2}}'); commit"),
        )
        .await;
    }
    let log = whole_log(&world).await;
    assert!(!log.is_sorted_by_key(|event| event.global_position), "the order is not that of positions");
    let sets: [Categories; 5] =
        [None, Some(&["a"]), Some(&["a", "b"]), Some(&["d", "c", "b", "a"]), Some(&["none", "d"])];
    let mut runner =
        TestRunner::new_with_rng(ProptestConfig::default(), TestRunner::deterministic().new_rng());
    let cases = (prop::collection::vec(1..40_i64, 400), any::<prop::sample::Index>());
    for _ in 0..24 {
        let (sizes, set) = cases.new_tree(&mut runner).expect("a case").current();
        let wanted = sets[set.index(sets.len())];
        let mut expected = log.clone();
        expected.retain(|event| wanted.is_none_or(|names| names.contains(&event.stream_category.as_str())));
        let read = all_pages(&store, wanted, sizes.iter().copied()).await;
        assert_eq!(places(&read), places(&expected), "{wanted:?} in pages of {sizes:?}");
    }
}
