//! A projection split by streams: order along a stream is kept, nothing is lost or doubled, also while the number changes.

use super::file;
use crate::world::World;

/// Each event as it is applied, and sums by kind that partitions meet in.
const TABLES: &str = "create table seen (nth bigint generated always as identity, stream_id text not null,
        version bigint not null, unique (stream_id, version));";
const ON: &str = "-- @on Placed\n-- @on Paid\n-- @on Shipped\n-- @on Noted\ninsert into seen (stream_id, version)\n\
     values (event.stream_id, event.stream_version);";
const BATCH: &str = "-- @batch\ninsert into seen (stream_id, version)\n\
     select stream_id, stream_version from batch order by global_position;";

/// Streams whose events were not applied once each, in their order.
const DIFFERENCES: &str = "
    select count(*) from (
        select stream_id, array_agg(version order by nth) as versions from NAME.seen group by 1) seen
    full join (select stream_id, array_agg(stream_version order by stream_version) as versions
               from es_events where stream_category = 'order' group by 1) logged using (stream_id)
    where seen.versions is distinct from logged.versions";

async fn is_exact(world: &World, name: &str) {
    world.caught_up(name).await;
    assert_eq!(world.value(&DIFFERENCES.replace("NAME", name)).await, "0", "streams of {name} that differ");
}

fn split(world: &World, partitions: &str) {
    let both = format!("[projections.single]\n{partitions}\n[projections.whole]\n{partitions}");
    world.configure(&format!("[daemon]\nlease = \"1s\"\nmax_page_events = 50\n{both}"));
}

#[tokio::test]
async fn any_number_of_partitions_gives_the_same_read_model_and_may_change_at_any_time() {
    let world = World::new().await;
    world.projection("single", &file(TABLES, ON));
    world.projection("whole", &file(TABLES, BATCH));
    world.seed("order", 300).await;
    for partitions in [4, 3, 1, 7, 2] {
        split(&world, &format!("partitions = {partitions}"));
        let daemon = world.daemon();
        // Killed in the middle, so that the next split finds its partitions at different places.
        world.seed("order", 400).await;
        let moved = "select count(*) from es_subscriptions where last_position > 0";
        world.eventually("something is folded", async || world.value(moved).await != "0").await;
        if partitions % 2 == 1 {
            daemon.kill();
            continue;
        }
        for name in ["single", "whole"] {
            is_exact(&world, name).await;
            let status = world.phase(name, "live").await;
            assert_eq!(status["partitions"].as_array().map(Vec::len), Some(partitions), "{status}");
            assert_eq!(status["lag_events"], 0, "{status}");
            assert_eq!(status["role"], "live", "{status}");
        }
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
    split(&world, "partitions = 2");
    let daemon = world.daemon();
    world.seed("order", 200).await;
    for name in ["single", "whole"] {
        is_exact(&world, name).await;
    }
    world
        .eventually("old splits are forgotten", async || {
            world.value("select count(*) from es_subscriptions where floors is not null").await == "0"
        })
        .await;
    for partition in ["0", "1"] {
        let lag =
            format!("foldd_lag_events{{projection=\"single\",version=\"1\",partition=\"{partition}\"}} 0");
        world
            .eventually("each partition exports its own lag", async || {
                daemon.get("/metrics").await.1.contains(&lag)
            })
            .await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn on_a_server_that_hashes_otherwise_a_split_projection_halts() {
    let world = World::new().await;
    world.projection("single", &file(TABLES, ON));
    world.configure("[projections.single]\npartitions = 2");
    world.seed("order", 100).await;
    let daemon = world.daemon();
    is_exact(&world, "single").await;
    let lag = world.store().projection_lag("single@1").await.expect("it is known");
    assert_eq!(lag.events, 0);
    daemon.stop().await;
    world.execute("update es_subscriptions set hash_probe = hash_probe + 1").await;
    let daemon = world.daemon();
    daemon.says("hashes stream ids otherwise").await;
    world.seed("order", 100).await;
    daemon.says("daemon started").await;
    assert_eq!(world.value("select count(*) from single.seen").await, "100");
    daemon.stop().await;
}

#[tokio::test]
async fn a_bad_event_quarantines_its_stream_whatever_the_partitions_become() {
    let world = World::new().await;
    let tables = "create table mended (is_mended boolean);
        create table seen (nth bigint generated always as identity, stream_id text not null, version bigint not null,
                           unique (stream_id, version));
        create function trip(data jsonb) returns bigint language plpgsql as $$
        begin
            if data ? 'fail' and not exists (select from mended) then raise exception 'tripped'; end if;
            return 1;
        end $$;";
    let handler = "-- @on Placed\ninsert into seen (stream_id, version)\n\
        select event.stream_id, event.stream_version * trip(event.data);";
    world.projection("single", &file(tables, handler));
    let config = |partitions| {
        format!("[projections.single]\npartitions = {partitions}\non_error = \"quarantine_stream\"")
    };
    for stream in 0..12 {
        let data = if stream % 5 == 0 { "{\"fail\": true}" } else { "{}" };
        world.append(&format!("order-{stream}"), "Placed", "{}").await;
        world.append(&format!("order-{stream}"), "Placed", data).await;
        world.append(&format!("order-{stream}"), "Placed", "{}").await;
    }
    world.configure(&config(3));
    let daemon = world.daemon();
    world.caught_up("single").await;
    assert_eq!(world.value("select count(*) from single.seen").await, "30");
    assert_eq!(world.phase("single", "live").await["dead_letters"], 6);
    daemon.stop().await;
    world.configure(&config(2));
    let daemon = world.daemon();
    for stream in 0..12 {
        world.append(&format!("order-{stream}"), "Placed", "{}").await;
    }
    world.caught_up("single").await;
    assert_eq!(world.phase("single", "live").await["dead_letters"], 9);
    let paused = world.foldd(&["pause", "single"]).await;
    assert_eq!(paused.code, 0, "{paused:?}");
    assert_eq!(world.status("single").await["phase"], "paused");
    let resumed = world.foldd(&["resume", "single"]).await;
    assert_eq!(resumed.code, 0, "{resumed:?}");
    world.execute("insert into single.mended values (true)").await;
    let retried = world.foldd(&["dead-letters", "retry", "single", "--all"]).await;
    assert_eq!((retried.code, retried.out.contains("has applied 9 events")), (0, true), "{retried:?}");
    is_exact(&world, "single").await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_handler_in_rust_is_split_likewise() {
    let world = World::new().await;
    for number in 0..400 {
        let account = format!("account-{}", number % 23);
        world.append(&account, "Deposited", "{\"type\": \"Deposited\", \"cents\": 7}").await;
    }
    let program = crate::examples::example("own_daemon");
    let balances = "select sum(cents) || ' ' || count(*) from balances.balance";
    for (partitions, more) in [(3, 0), (2, 100), (1, 50)] {
        world.configure(&format!(
            "[daemon]\nmax_page_events = 60\n[projections.balances]\npartitions = {partitions}"
        ));
        let daemon = world.daemon_of(world.command_of(&program, &["run"]));
        for number in 0..more {
            let account = format!("account-{}", number % 23);
            world.append(&account, "Deposited", "{\"type\": \"Deposited\", \"cents\": 7}").await;
        }
        world.caught_up("balances").await;
        let events: i64 = world.value("select count(*) from es_events").await.parse().expect("a number");
        assert_eq!(world.value(balances).await, format!("{} 23", events * 7), "{partitions} partitions");
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}
