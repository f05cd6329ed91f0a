//! The page readers walk one index, at half a million events: no row is read and thrown away, none is sorted but a page.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use sqlx::PgConnection;

use super::{ask, run, session, try_run};
use crate::world::World;

const EVENTS: i64 = 500_000;
const LIMIT: i64 = 500;
const BY_CATEGORY: &str = "es_events_category_order_idx";
const BY_ORDER: &str = "es_events_order_idx";

/// Plans are those of `auto_explain`, so that nested statements run exactly as they do for everybody.
const EXPLAIN: &str = "load 'auto_explain';
    set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on; set auto_explain.log_buffers = on;
    set auto_explain.log_timing = off; set auto_explain.log_nested_statements = on; set auto_explain.log_format = 'json'";

/// What a call must do: the call, the index it walks, and how many rows may be read and be sorted.
struct Wanted {
    call: String,
    index: &'static str,
    read: i64,
    sorted: i64,
}

/// The calls of readers, daemon and status, from a cursor on.
fn calls(cursor: &str) -> Vec<Wanted> {
    let one = |call: String, index| Wanted { call, index, read: LIMIT, sorted: 0 };
    let several =
        |call: String, k: i64| Wanted { call, index: BY_CATEGORY, read: k * LIMIT, sorted: k * LIMIT };
    let count = |call: String, index| Wanted { call, index, read: EVENTS, sorted: 0 };
    let mut all = Vec::new();
    for bytes in ["null", "10000000"] {
        let tail = format!("{cursor}, {LIMIT}, null, {bytes})");
        all.push(one(format!("es_read_all_after({tail}"), BY_ORDER));
        all.push(one(format!("es_read_category_after('a', {tail}"), BY_CATEGORY));
        all.push(one(format!("es_read_category_after('rare', {tail}"), BY_CATEGORY));
        all.push(several(format!("es_read_category_after(array['rare'], {tail}"), 1));
        all.push(several(format!("es_read_category_after(array['a', 'rare', 'b', 'missing'], {tail}"), 4));
        all.push(one(format!("es_read_after(null, {tail}"), BY_ORDER));
        all.push(one(format!("es_read_after(array['b'], {tail}"), BY_CATEGORY));
        all.push(one(format!("es_extent_after(array['b'], {tail}"), BY_CATEGORY));
        all.push(one(format!("es_extent_after(null, {tail}"), BY_ORDER));
    }
    // It looks again at each event of its sample, from both sides.
    let reach = format!("es_reach_after(array['a'], {cursor}, {}, null, null)", 2 * LIMIT);
    all.push(Wanted { call: reach, index: BY_CATEGORY, read: 2 * (LIMIT + 501), sorted: 0 });
    all.push(Wanted {
        call: format!("es_read_after(array['rare'], {cursor}, 1)"),
        index: BY_CATEGORY,
        read: 1,
        sorted: 0,
    });
    all.push(Wanted {
        call: format!("es_read_after(array['a', 'rare'], {cursor}, 1)"),
        index: BY_CATEGORY,
        read: 2,
        sorted: 2,
    });
    all.push(count(format!("es_count_after(null, {cursor})"), BY_ORDER));
    all.push(count(format!("es_count_after(array['rare'], {cursor})"), BY_CATEGORY));
    all.push(count(format!("es_count_after(array['a', 'rare'], {cursor})"), BY_CATEGORY));
    all
}

/// What handlers see as their page: a large one, and one of a split projection. Both end where the page ends, and not
/// where the log does.
fn pages() -> [Wanted; 3] {
    ["foldd_bulk.batch", "foldd_parking.es_page()", "foldd.es_own_of_page()"].map(|relation| Wanted {
        call: relation.to_owned(),
        index: BY_CATEGORY,
        read: LIMIT,
        sorted: 0,
    })
}

/// The bounds of such a page, as a batch leaves them in the settings of its transaction.
async fn prepare_page(conn: &mut PgConnection, cursor: &str) {
    run(
        conn,
        &format!(
            "select set_config(name, value, false)
             from (values ({cursor})) as bound (stamp, position)
             cross join lateral (values
                 ('categories', '{{a}}'), ('category', 'a'), ('after_transaction_id', bound.stamp),
                 ('after_position', bound.position::text), ('page_events', '{LIMIT}'), ('horizon', es_horizon()::text),
                 ('subscription', ''), ('retry', ''), ('letter', ''), ('partition', '0'), ('partitions', '1'),
                 ('floors', '')) as given (key, value)
             cross join lateral (values ('foldd.' || key)) as named (name)"
        ),
    )
    .await;
}

/// Half a million events in 100 transactions, as imports and busy writers make them. Rare ones are one in a thousand.
async fn fill(world: &World) {
    world
        .execute(
            "insert into es_streams (stream_id, stream_category, stream_version)
             select c || '-' || n, c, 0 from generate_series(0, 999) n, unnest(array['a', 'b', 'rare']) c",
        )
        .await;
    let block = EVENTS / 100;
    for nth in 0..100 {
        world
            .execute(&format!(
                "insert into es_events (stream_id, stream_category, stream_version, event_type, data, transaction_id)
                 select c || '-' || n % 1000, c, n, 'A', '{{\"some\": \"payload\"}}', xid
                 from (select n, case when n % 1000 = 0 then 'rare' when n % 3 = 0 then 'b' else 'a' end as c,
                              pg_current_xact_id() as xid
                       from generate_series({nth}::bigint * {block} + 1, ({nth}::bigint + 1) * {block}) n) given"
            ))
            .await;
    }
    assert_eq!(world.value("select count(*) from es_events").await, EVENTS.to_string());
}

/// The log of the server, read from where it was before.
struct Explained {
    log: PathBuf,
}

impl Explained {
    /// Runs a call to its end and returns the plans of every statement in it that touched the log.
    async fn plans(&self, conn: &mut PgConnection, call: &str) -> Vec<Value> {
        let before = fs::read_to_string(&self.log).expect("the server has a log").len();
        run(conn, &format!("select count(*) from {call}")).await;
        let text = fs::read_to_string(&self.log).expect("the server has a log").split_off(before);
        let mut plans = Vec::new();
        for entry in text.split("LOG:  duration:").skip(1) {
            let json: String = entry
                .lines()
                .skip(1)
                .take_while(|line| line.starts_with('\t'))
                .collect::<Vec<_>>()
                .join("\n");
            let plan: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
            if nodes(&plan["Plan"]).iter().any(|node| node["Relation Name"] == "es_events") {
                plans.push(plan["Plan"].clone());
            }
        }
        assert!(!plans.is_empty(), "{call} was not explained: {text}");
        plans
    }
}

/// A plan's nodes, itself included.
fn nodes(plan: &Value) -> Vec<&Value> {
    let below = plan["Plans"].as_array().map(Vec::as_slice).unwrap_or_default();
    std::iter::once(plan).chain(below.iter().flat_map(nodes)).collect()
}

/// Rows that came out of a node, over all its loops.
fn rows(node: &Value) -> i64 {
    node["Actual Rows"].as_i64().unwrap_or_default() * node["Actual Loops"].as_i64().unwrap_or_default()
}

fn check(wanted: &Wanted, plan: &Value, when: &str) {
    let said = || format!("{when}: {}\n{plan:#}", wanted.call);
    let mut read = 0;
    for node in nodes(plan) {
        for waste in
            ["Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter"]
        {
            assert_eq!(node[waste].as_i64().unwrap_or_default(), 0, "{waste}: {}", said());
        }
        if node["Node Type"] == "Sort" || node["Node Type"] == "Incremental Sort" {
            let input: i64 = node["Plans"].as_array().expect("a sort has an input").iter().map(rows).sum();
            let of_events = nodes(node).iter().any(|below| below["Relation Name"] == "es_events");
            assert!(!of_events || input <= wanted.sorted, "{input} rows sorted: {}", said());
        }
        if node["Relation Name"] == "es_events" {
            assert!(node["Node Type"].as_str().is_some_and(|kind| kind.starts_with("Index")), "{}", said());
            assert_eq!(node["Index Name"], wanted.index, "{}", said());
            assert!(node["Filter"].is_null(), "{}", said());
            let bounds = node["Index Cond"].as_str().unwrap_or_default();
            assert!(bounds.contains('>') && bounds.contains('<'), "bounded on one side only: {}", said());
            read += rows(node);
        }
    }
    assert!(read <= wanted.read, "{read} rows read: {}", said());
}

#[tokio::test]
async fn every_page_is_a_walk_along_one_index() {
    let settings = [
        ("autovacuum", "off"),
        ("log_line_prefix", ""),
        ("shared_buffers", "512MB"),
        ("checkpoint_timeout", "1h"),
    ];
    let mut world = World::alone_with(&settings).await;
    let (mut early, _) = session(&world).await;
    if try_run(&mut early, "load 'auto_explain'").await.is_err() {
        eprintln!("skipped: this PostgreSQL comes without auto_explain");
        return;
    }
    let explained = Explained { log: world.server().socket_dir().join("data/server.log") };
    world.execute("analyze es_events; analyze es_streams").await;
    // A session whose plans were made while the log was empty: seven calls are enough to settle for a generic one.
    let start = "'0', 0";
    for _ in 0..7 {
        for wanted in calls(start) {
            run(&mut early, &format!("select count(*) from {}", wanted.call)).await;
        }
        run(&mut early, "select count(*) from es_growth('0', es_horizon())").await;
    }
    run(&mut early, EXPLAIN).await;
    fill(&world).await;

    for when in ["planned while empty", "analysed while empty", "analysed"] {
        if when == "analysed" {
            world.execute("analyze es_events; analyze es_streams").await;
        }
        let mut fresh = session(&world).await.0;
        run(&mut fresh, EXPLAIN).await;
        let conn = if when == "planned while empty" { &mut early } else { &mut fresh };
        for place in [1, EVENTS / 2, EVENTS - 2 * LIMIT] {
            let cursor = ask(conn, &format!("select quote_literal(transaction_id::text) || ', ' || global_position from es_events where global_position = {place}")).await;
            for wanted in calls(&cursor) {
                for plan in explained.plans(conn, &wanted.call).await {
                    check(&wanted, &plan, when);
                }
            }
            prepare_page(conn, &cursor).await;
            for wanted in pages() {
                for plan in explained.plans(conn, &wanted.call).await {
                    check(&wanted, &plan, when);
                }
            }
        }
        let since = ask(conn, "select transaction_id from es_events where global_position = 490000").await;
        let growth = Wanted {
            call: format!("es_growth('{since}', es_horizon())"),
            index: BY_ORDER,
            read: EVENTS / 20,
            sorted: 0,
        };
        for plan in explained.plans(conn, &growth.call).await {
            check(&growth, &plan, when);
        }
    }
    page_cost_is_flat(&world, &explained).await;
    nothing_above_the_horizon_is_touched(&world, &explained).await;
}

/// A long transaction holds the horizon while hundreds of thousands of events are committed above it: what a reader finds
/// below, and whether it finds anything, costs as much as it finds.
async fn nothing_above_the_horizon_is_touched(world: &World, explained: &Explained) {
    let (mut conn, _) = session(world).await;
    run(&mut conn, EXPLAIN).await;
    let cursor = format!(
        "select quote_literal(transaction_id::text) || ', ' || global_position from es_events
         where transaction_id < (select transaction_id from es_events where global_position = {EVENTS} / 5)
           and stream_category = 'a'
         order by transaction_id desc, global_position desc limit 1"
    );
    let cursor = ask(&mut conn, &cursor).await;
    let horizon =
        ask(&mut conn, &format!("select transaction_id from es_events where global_position = {EVENTS} / 5"))
            .await;
    for call in [
        format!("es_read_category_after('a', {cursor}, {LIMIT}, '{horizon}')"),
        format!("es_read_category_after('a', {cursor}, {LIMIT}, '{horizon}', 1000000)"),
        format!("es_read_category_after(array['a', 'b'], {cursor}, {LIMIT}, '{horizon}')"),
        format!("es_read_category_after(array['a', 'b'], {cursor}, {LIMIT}, '{horizon}', 1000000)"),
        format!("es_read_all_after({cursor}, 1, '{horizon}')"),
        format!("es_extent_after(array['a'], {cursor}, {LIMIT}, '{horizon}', null)"),
        format!("es_reach_after(array['a'], {cursor}, 2000, '{horizon}', null)"),
        format!("es_rest_after('a', {cursor}, '{horizon}', 1, 1000000000)"),
        format!("es_count_after(array['a'], {cursor}, '{horizon}')"),
    ] {
        for plan in explained.plans(&mut conn, &call).await {
            if nodes(&plan).iter().any(|node| node["Node Type"] == "Sample Scan") {
                continue;
            }
            let touched = blocks(&plan);
            assert!(touched <= 40, "{touched} blocks: {call}\n{plan:#}");
        }
    }
}

/// Blocks that a plan touched.
fn blocks(plan: &Value) -> i64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().filter_map(|name| plan[name].as_i64()).sum()
}

/// A page costs the same wherever it is. The rare category is spread over the whole heap, so each of its events is a
/// block of its own.
async fn page_cost_is_flat(world: &World, explained: &Explained) {
    let (mut conn, _) = session(world).await;
    run(&mut conn, EXPLAIN).await;
    for (source, limit) in [
        ("es_read_all_after(", LIMIT),
        ("es_read_category_after('a', ", LIMIT),
        ("es_read_category_after('rare', ", 50),
        ("es_read_category_after(array['a', 'b', 'rare'], ", 50),
    ] {
        let mut costs = Vec::new();
        for percent in [0, 50, 89] {
            let cursor = ask(&mut conn, &format!("select quote_literal(transaction_id::text) || ', ' || global_position from es_events where global_position = greatest(1, {EVENTS} * {percent} / 100)")).await;
            let plans = explained.plans(&mut conn, &format!("{source}{cursor}, {limit})")).await;
            let plan = plans.first().expect("the page was explained");
            costs.push(blocks(plan));
        }
        let (least, most) = (costs.iter().min().expect("three"), costs.iter().max().expect("three"));
        assert!(
            *most <= least + least / 2 + 8,
            "{source}: {costs:?} blocks at the beginning, middle and end"
        );
        assert!(*most <= 4 * limit + 20, "{source}: {costs:?} blocks for {limit} events");
    }
}
