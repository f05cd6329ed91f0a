//! Where pages begin and end makes no difference.

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, proptest};

use super::file;
use crate::world::World;

/// Order matters: what a stream has is doubled by the one event type and raised by the other.
const PER_EVENT: &str = "-- @on Raised
insert into t values (event.stream_id, (event.data->>'by')::numeric, 1)
on conflict (stream) do update set v = (t.v + excluded.v) % 1000007, n = t.n + 1;
-- @on Doubled
update t set v = v * 2 % 1000007, n = n + 1 where stream = event.stream_id;";
/// A sum does not mind the order, so it is what a set-based fold can keep.
const PER_BATCH: &str = "-- @batch
insert into t select stream_id, sum(coalesce((data->>'by')::numeric, 0)), count(*) from batch group by 1
on conflict (stream) do update set v = t.v + excluded.v, n = t.n + excluded.n;";
const TABLE: &str = "create table t (stream text primary key, v numeric not null, n bigint not null);";

#[derive(Debug, Clone)]
struct Append {
    stream: u8,
    events: Vec<Option<u16>>,
}

fn appends() -> impl Strategy<Value = Vec<Append>> {
    let append =
        (0_u8..12, vec(any::<Option<u16>>(), 1..25)).prop_map(|(stream, events)| Append { stream, events });
    vec(append, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_page_size_gives_the_same_read_model(appends in appends()) {
        tokio::runtime::Runtime::new().expect("a runtime starts").block_on(same_at_every_page_size(&appends));
    }
}

async fn same_at_every_page_size(appends: &[Append]) {
    let world = World::new().await;
    for append in appends {
        let (kinds, data): (Vec<_>, Vec<_>) = append
            .events
            .iter()
            .map(|by| by.map_or(("Doubled", "{}".to_owned()), |by| ("Raised", format!("{{\"by\": {by}}}"))))
            .unzip();
        sqlx::query("select es_append($1, null, null, $2, $3::text[]::jsonb[])")
            .bind(format!("order-{}", append.stream))
            .bind(kinds)
            .bind(data)
            .execute(world.pool())
            .await
            .expect("the events can be appended");
    }
    let mut read_models = Vec::new();
    for size in ["1", "7", "1000"] {
        let (single, whole) = (format!("single_{size}"), format!("whole_{size}"));
        world.projection(&single, &file(TABLE, PER_EVENT));
        world.projection(&whole, &file(TABLE, PER_BATCH));
        let daemon = world.daemon_with(&[("FOLDD__DAEMON__MAX_PAGE_EVENTS", size)]);
        world.caught_up(&single).await;
        world.caught_up(&whole).await;
        daemon.stop().await;
        read_models.push((world.rows(&format!("{single}.t")).await, world.rows(&format!("{whole}.t")).await));
    }
    let events: usize = appends.iter().map(|append| append.events.len()).sum();
    assert_eq!(world.value("select sum(n) from whole_1.t").await, events.to_string());
    assert_eq!(read_models[0], read_models[1]);
    assert_eq!(read_models[0], read_models[2]);
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
