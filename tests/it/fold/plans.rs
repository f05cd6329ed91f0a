//! How statements are planned and pages sized: evidence without a clock where there is one.

use std::time::Duration;

use super::file;
use crate::world::World;

#[tokio::test]
async fn tables_that_were_analysed_while_empty_are_still_found_by_index() {
    let world = World::new().await;
    let text = file(
        "create table t (stream text primary key, n bigint not null);",
        "-- @on Placed\ninsert into t values (event.stream_id, 1) on conflict do nothing;\n\
         -- @on Paid\nupdate t set n = n + 1 where stream = event.stream_id;",
    );
    world.projection("counts", &text);
    let daemon = world.daemon();
    world.caught_up("counts").await;
    world.execute("analyze counts.t; analyze es_events").await;
    world
        .execute(
            "select es_append('order-' || i, null, null, array['Placed', 'Paid'], array['{}', '{}']::jsonb[])
             from generate_series(1, 3000) i",
        )
        .await;
    world.caught_up("counts").await;
    // A session hands its statistics in at the latest when it ends.
    daemon.stop().await;
    assert_eq!(world.value("select count(*) || ' ' || sum(n) from counts.t").await, "3000 6000");
    world
        .eventually("the statistics are there", async || {
            world.value("select n_tup_ins >= 3000 from pg_stat_user_tables where schemaname = 'counts'").await
                == "true"
        })
        .await;
    // Before the counting above there was no look at the whole table; it adds 3000 itself.
    let read: i64 = world
        .value("select seq_tup_read from pg_stat_user_tables where schemaname = 'counts'")
        .await
        .parse()
        .expect("a number");
    assert!(read <= 10_000, "{read} rows were read in sequential scans, for 3000 updates by key");
}

#[tokio::test]
async fn one_hot_row_is_folded_in_pages_that_stay_small() {
    let world = World::new().await;
    // The transaction is the page: the second row of each upsert says how many events it had.
    let text = file(
        "create table hot (id int primary key, n bigint not null); create table page (xid xid8 primary key, n bigint not null);",
        "-- @on Hit\nwith hit as (insert into hot values (1, 1) on conflict (id) do update set n = hot.n + 1)\n\
         insert into page values (pg_current_xact_id(), 1) on conflict (xid) do update set n = page.n + 1;",
    );
    world.projection("hot", &text);
    for _ in 0..20 {
        world
            .execute("select es_append('order-1', null, null, array_agg('Hit'::text), array_agg('{}'::jsonb)) from generate_series(1, 1000)")
            .await;
    }
    let started = tokio::time::Instant::now();
    let _daemon = world.daemon();
    world.caught_up("hot").await;
    let took = started.elapsed();
    assert_eq!(world.value("select n from hot.hot").await, "20000");
    let largest: i64 = world.value("select max(n) from hot.page").await.parse().expect("a number");
    assert!(largest <= 8_000, "a page had {largest} events of one row");
    assert!(took < Duration::from_secs(45), "20,000 events took {took:?}");
}
