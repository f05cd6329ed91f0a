//! Where pages begin and end makes no difference, nor who folds them.

use std::collections::BTreeMap;

use foldd::{Daemon, EventData, Handler, HandlerError, Received, Registry, RustProjection};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::file;
use crate::world::{Logged, World};

/// What each stream, and the log as a whole, has seen, in order: two read models are the same only if every
/// event was folded once and in its place. Whatever else may be folded can be computed from it.
const TABLE: &str = "create table t (key text primary key, seen text not null, n bigint not null);";
const PER_EVENT: &str = "-- @on Raised
-- @on Doubled
insert into t select key, event.event_type || coalesce(event.data->>'by', '') || ';', 1
from (values (event.stream_id), ('*')) given (key)
on conflict (key) do update set seen = t.seen || excluded.seen, n = t.n + 1;";
const PER_BATCH: &str = "-- @batch
insert into t select key, string_agg(event_type || coalesce(data->>'by', '') || ';', '' order by transaction_id, global_position),
                     count(*)
from batch cross join lateral (values (stream_id), ('*')) given (key)
where event_type in ('Raised', 'Doubled') group by key
on conflict (key) do update set seen = t.seen || excluded.seen, n = t.n + excluded.n;";

/// The same in Rust.
struct Seen;

#[derive(Debug, Serialize, Deserialize)]
struct Change {
    by: Option<u16>,
}

impl EventData for Change {
    fn event_type(&self) -> &'static str {
        if self.by.is_some() { "Raised" } else { "Doubled" }
    }
}

impl Handler for Seen {
    type Event = Change;

    fn event_types(&self) -> Option<&[&str]> {
        Some(&["Raised", "Doubled"])
    }

    async fn apply(&self, tx: &mut PgConnection, events: &[Received<Change>]) -> Result<(), HandlerError> {
        let mut seen: BTreeMap<&str, (String, i64)> = BTreeMap::new();
        for event in events {
            let by = event.event.by.map(|by| by.to_string()).unwrap_or_default();
            let text = format!("{}{by};", event.recorded.event_type);
            for key in [event.recorded.stream_id.as_str(), "*"] {
                let entry = seen.entry(key).or_default();
                entry.0.push_str(&text);
                entry.1 += 1;
            }
        }
        let (keys, seen): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
        let (seen, n): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
        sqlx::query(
            "insert into t select * from unnest($1::text[], $2::text[], $3::bigint[])
             on conflict (key) do update set seen = t.seen || excluded.seen, n = t.n + excluded.n",
        )
        .bind(keys)
        .bind(seen)
        .bind(n)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// One append: a stream, and what its events are. `None` doubles, 0 is of a type that nobody wants.
#[derive(Debug, Clone)]
struct Append {
    stream: u8,
    events: Vec<Option<u16>>,
}

fn appends() -> impl Strategy<Value = Vec<Append>> {
    let event = proptest::option::of(0..9_u16);
    let append = (0_u8..12, vec(event, 1..25)).prop_map(|(stream, events)| Append { stream, events });
    vec(append, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_page_size_and_any_kind_of_handler_give_the_same_read_model(
        appends in appends(), some in 2..40_u32, late in any::<bool>(),
    ) {
        tokio::runtime::Runtime::new()
            .expect("a runtime starts")
            .block_on(same_however_it_is_folded(&appends, some, late));
    }
}

async fn append(world: &World, append: &Append) {
    let (kinds, data): (Vec<_>, Vec<_>) = append
        .events
        .iter()
        .map(|by| match by {
            None => ("Doubled", "{}".to_owned()),
            Some(0) => ("Noted", "[]".to_owned()),
            Some(by) => ("Raised", format!("{{\"by\": {by}}}")),
        })
        .unzip();
    sqlx::query("select es_append($1, null, null, $2, $3::text[]::jsonb[])")
        .bind(format!("order-{}", append.stream))
        .bind(kinds)
        .bind(data)
        .execute(world.pool())
        .await
        .expect("the events can be appended");
}

/// The rows that the log should give.
fn expected(log: &[Logged]) -> Vec<String> {
    let mut seen: BTreeMap<&str, (String, i64)> = BTreeMap::new();
    for event in log.iter().filter(|event| event.event_type != "Noted") {
        let text = format!(
            "{}{};",
            event.event_type,
            event.data["by"].as_u64().map_or(String::new(), |by| by.to_string())
        );
        for key in [event.stream_id.as_str(), "*"] {
            let entry = seen.entry(key).or_default();
            entry.0.push_str(&text);
            entry.1 += 1;
        }
    }
    let mut rows: Vec<_> = seen.iter().map(|(key, (seen, n))| format!("({key},{seen},{n})")).collect();
    rows.sort();
    rows
}

/// Folds the log in pages of one event, of some, and all at once, three times each: `@on`, `@batch` and Rust.
/// With
/// `late`, the second half comes while they are at work.
async fn same_however_it_is_folded(appends: &[Append], some: u32, late: bool) {
    let world = World::new().await;
    let (early, later) = appends.split_at(if late { appends.len() / 2 } else { appends.len() });
    for events in early {
        append(&world, events).await;
    }
    let sizes = [1, some, 100_000];
    let cancel = CancellationToken::new();
    let mut daemons = Vec::new();
    for size in sizes {
        let rust = RustProjection::new(&format!("rust_{size}"), 1, Seen).categories(&["order"]).tables(TABLE);
        let daemon = Daemon::new(Registry::new().with(rust))
            .with_sql(&format!("on_{size}"), &file(TABLE, PER_EVENT))
            .with_sql(&format!("batch_{size}"), &file(TABLE, PER_BATCH))
            .workers(2)
            .max_page_events(size);
        daemons.push(tokio::spawn(daemon.run(world.pool().clone(), cancel.clone())));
    }
    for events in later {
        append(&world, events).await;
    }
    let mut wrong = Vec::new();
    let expected = expected(&world.log().await);
    for size in sizes {
        for kind in ["on", "batch", "rust"] {
            let name = format!("{kind}_{size}");
            world.caught_up(&name).await;
            let mut rows = world.rows(&format!("{name}.t")).await;
            rows.sort();
            if rows != expected {
                wrong.push((name, rows));
            }
        }
    }
    cancel.cancel();
    for daemon in daemons {
        daemon.await.expect("a daemon does not panic").expect("it ends in peace");
    }
    assert!(wrong.is_empty(), "{wrong:?}\nare not {expected:?}");
}

#[tokio::test]
async fn pages_bounded_in_bytes_still_reach_the_end() {
    let world = World::new().await;
    let tables = "create table t (n bigint generated always as identity, events bigint, last bigint);";
    world.projection(
        "pages",
        &file(
            tables,
            "-- @batch\ninsert into t (events, last) select count(*), max(global_position) from batch;",
        ),
    );
    let single = "create table t (position bigint);";
    world.projection("single", &file(single, "-- @on Big\ninsert into t values (event.global_position);"));
    // Texts that do not compress: 40 kB each, and one larger than a whole page may be.
    for characters in [40_000, 40_000, 40_000, 200_000, 40_000, 40_000, 40_000] {
        let data: String = std::iter::repeat_with(fastrand::alphanumeric).take(characters).collect();
        world.append("order-1", "Big", &format!("{{\"blob\": \"{data}\"}}")).await;
    }
    let _daemon = world.daemon_with(&[("FOLDD__DAEMON__MAX_PAGE_BYTES", "65536")]);
    world.caught_up("pages").await;
    world.caught_up("single").await;
    assert_eq!(world.value("select count(*) || ' ' || count(distinct position) from single.t").await, "7 7");
    assert_eq!(world.value("select sum(events) from pages.t").await, "7");
    assert_eq!(
        world.value("select max(events) from pages.t").await,
        "1",
        "two of these events are more than a page's bytes"
    );
}

#[tokio::test]
async fn who_is_live_stays_so_beside_one_who_is_far_behind() {
    let world = World::new().await;
    // One worker for both, and minutes of work for the one.
    let slow = "-- @on Placed\n-- @on Paid\n-- @on Shipped\n-- @on Noted\n\
                insert into t select event.global_position from pg_sleep(0.02);";
    world.projection("behind", &file("create table t (position bigint not null);", slow));
    world.projection("live", &super::TALLY.replace("\"order\"", "\"news\"").replace("tally", "told"));
    world.seed("order", 20_000).await;
    let daemon =
        world.daemon_with(&[("FOLDD__DAEMON__MAX_PAGE_EVENTS", "1"), ("FOLDD__DAEMON__WORKERS", "1")]);
    world.caught_up("live").await;
    world.phase("live", "live").await;
    let folded = "select count(*) from behind.t";
    world.eventually("the one behind gets on", async || world.value(folded).await != "0").await;
    for n in 1..=8 {
        world.append("news-1", "Placed", "{}").await;
        let told = "select coalesce(sum(n), 0) from live.told";
        world
            .eventually("what comes is folded at once", async || world.value(told).await == n.to_string())
            .await;
    }
    let folded: i64 = world.value(folded).await.parse().expect("a number");
    assert!((8..20_000).contains(&folded), "both get on, and the one is still behind: {folded}");
    assert_eq!(world.status("behind").await["phase"], "catching_up");
    assert_eq!(world.status("live").await["phase"], "live");
    assert_eq!(daemon.stop().await.code(), Some(0));
}
