//! What a projection holds equals a fold of the same log that the test computes.

use std::collections::BTreeMap;

use super::file;
use crate::world::{Logged, World};

/// Order matters here: what is shipped is worth nothing from then on, and the last event leaves its name.
const BALANCES: &str = "-- @on Placed
-- @on Paid
insert into balance values (event.stream_id, (event.data->>'amount')::bigint, event.event_type)
on conflict (stream_id) do update set total = balance.total + excluded.total, last = excluded.last;
-- @on Shipped
update balance set total = 0, last = 'Shipped' where stream_id = event.stream_id;
";
const BALANCE: &str =
    "create table balance (stream_id text primary key, total bigint not null, last text not null);";

/// The rows that `BALANCES` should give.
fn balances(log: &[Logged], categories: &[&str]) -> Vec<String> {
    let mut balances: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
    for event in log.iter().filter(|event| categories.contains(&event.stream_category.as_str())) {
        let amount = event.data["amount"].as_i64().expect("each event has an amount");
        match event.event_type.as_str() {
            "Placed" | "Paid" => {
                let balance = balances.entry(&event.stream_id).or_default();
                *balance = (balance.0 + amount, &event.event_type);
            }
            "Shipped" => {
                balances.entry(&event.stream_id).and_modify(|balance| *balance = (0, "Shipped"));
            }
            _ => {}
        }
    }
    let mut rows: Vec<_> =
        balances.iter().map(|(stream, (total, last))| format!("({stream},{total},{last})")).collect();
    rows.sort();
    rows
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

#[tokio::test]
async fn handlers_of_single_events_equal_the_fold_of_their_log() {
    let world = World::new().await;
    world.projection("balances", &file(BALANCE, BALANCES));
    world.seed("order", 400).await;
    world.seed("invoice", 50).await;
    let daemon = world.daemon();
    world.caught_up("balances").await;
    world.seed("order", 300).await;
    world.caught_up("balances").await;
    let expected = balances(&world.log().await, &["order"]);
    assert!(expected.len() > 50);
    assert_eq!(sorted(world.rows("balances.balance").await), expected);
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn several_categories_are_folded_in_one_order_and_the_others_left_out() {
    let world = World::new().await;
    let text = file(BALANCE, BALANCES).replace("[\"order\"]", "[\"order\", \"invoice\"]");
    world.projection("balances", &text);
    for category in ["order", "other", "invoice", "order", "invoice"] {
        world.seed(category, 150).await;
    }
    let _daemon = world.daemon();
    world.caught_up("balances").await;
    let expected = balances(&world.log().await, &["order", "invoice"]);
    assert_eq!(sorted(world.rows("balances.balance").await), expected);
}

#[tokio::test]
async fn all_categories_are_folded_where_the_file_says_so() {
    let world = World::new().await;
    world.projection("balances", &file(BALANCE, BALANCES).replace("categories = [\"order\"]", "all = true"));
    for category in ["order", "other", "invoice"] {
        world.seed(category, 100).await;
    }
    let _daemon = world.daemon();
    world.caught_up("balances").await;
    world.append("new-1", "Placed", "{\"amount\": 7}").await;
    world.caught_up("balances").await;
    let expected = balances(&world.log().await, &["order", "other", "invoice", "new"]);
    assert_eq!(sorted(world.rows("balances.balance").await), expected);
}

#[tokio::test]
async fn event_types_that_no_handler_wants_are_passed_over() {
    let world = World::new().await;
    let text =
        file("create table t (n bigint);", "-- @on Wanted\ninsert into t values (event.global_position);");
    world.projection("wanted", &text);
    world.seed("order", 100).await;
    world.append("order-1", "wanted", "{}").await;
    let _daemon = world.daemon();
    world.caught_up("wanted").await;
    assert_eq!(world.rows("wanted.t").await, Vec::<String>::new());
    world.append("order-1", "Wanted", "{}").await;
    world.caught_up("wanted").await;
    let last = world.log().await.last().map(|event| format!("({})", event.global_position));
    assert_eq!(world.rows("wanted.t").await, Vec::from_iter(last));
}

#[tokio::test]
async fn statements_over_a_page_run_in_order_and_each_sees_the_whole_page() {
    let world = World::new().await;
    let text = file(
        "create table tally (kind text primary key, n bigint not null);
         create table page (first bigint, events bigint, tallied bigint);",
        "-- @batch
         insert into tally select event_type, count(*) from batch group by 1
         on conflict (kind) do update set n = tally.n + excluded.n;
         -- @batch
         insert into page select min(global_position), count(*), (select sum(n) from tally) from batch;
         -- @batch
         insert into page select null, count(a.*), count(*) from batch a join batch b using (global_position);",
    );
    world.projection("tally", &text);
    world.seed("order", 500).await;
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__MAX_PAGE_EVENTS", "70")]);
    world.caught_up("tally").await;
    world.seed("order", 100).await;
    world.caught_up("tally").await;
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for event in world.log().await {
        *expected.entry(event.event_type).or_default() += 1;
    }
    let expected: Vec<_> = expected.iter().map(|(kind, n)| format!("({kind},{n})")).collect();
    assert_eq!(sorted(world.rows("tally.tally").await), expected);
    assert_eq!(
        world
            .value(
                "select count(*) filter (where tallied <> running) || ' wrong of ' || (count(*) >= 9) from (
                 select tallied, sum(events) over (order by first) as running from tally.page where first > 0) p"
            )
            .await,
        "0 wrong of true",
        "the second statement sees what the first one wrote for the same page"
    );
    assert_eq!(
        world
            .value(
                "select sum(events) = 600 and bool_and(events = tallied) from tally.page where first is null"
            )
            .await,
        "true",
        "two references to the page in one statement are the same page"
    );
    assert_eq!(daemon.stop().await.code(), Some(0));
}
