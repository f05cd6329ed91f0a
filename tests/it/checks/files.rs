//! `foldd test`: what passes, what fails and where, and that nothing is left behind.

use std::path::Path;

use serde_json::Value;

use super::traces;
use crate::world::World;

const TALLY: &str = "/* foldd
version = 1
categories = [\"order\"]
*/
-- @tables
create table tally (event_type text primary key, n bigint not null, amount numeric, seen timestamptz);
-- @batch
insert into tally
select event_type, count(*), sum((data->>'amount')::numeric), max(created_at) from batch group by 1
on conflict (event_type) do update
set n = tally.n + excluded.n, amount = tally.amount + excluded.amount, seen = excluded.seen;

-- @test events are counted
-- @given order-1 | Placed | {\"amount\": 1.50}
-- @given order-2 | Placed | {\"amount\": 2}
-- @given order-1 | Paid   | {}
select event_type, n, amount from tally;
-- @expect Placed | 2 | 3.50
-- @expect Paid   | 1 |
select sum(n), count(*) filter (where amount is null) from tally;
-- @expect 3 | 1

-- @test each begins with empty tables, and events have times that never change
-- @given order-1 | Placed | {\"amount\": 1}
select n, seen from tally;
-- @expect 1 | 2000-01-01 00:00:01+00
";

const LEDGER: &str = "/* foldd
version = 1
categories = [\"order\"]
*/
-- @tables
create table entry (stream_id text, version bigint, cents bigint, primary key (stream_id, version));
-- @on Placed
-- @on Paid
insert into entry values (event.stream_id, event.stream_version, (event.data->>'cents')::bigint);

-- @test entries are numbered
-- @given order-1 | Placed | {\"cents\": 5}
-- @given order-1 | Paid   | {\"cents\": 7}
-- @given order-1 | Sent   | {}
-- @given order-2 | Placed | {\"cents\": 9}
select stream_id, version, cents from entry order by stream_id, version desc;
-- @expect order-1 | 2 | 7
-- @expect order-1 | 1 | 5
-- @expect order-2 | 1 | 9
";

fn line_of(text: &str, part: &str) -> usize {
    1 + text.lines().position(|line| line.contains(part)).expect("the text stands in the file")
}

#[tokio::test]
async fn tests_pass_in_the_given_database_and_leave_nothing() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.projection("ledger", LEDGER);
    // A stream of a test's name: neither its events nor its version play a part.
    world.append("order-1", "Placed", "{\"cents\": 1000}").await;
    let before = traces(&world).await;
    let done = world.foldd(&["test"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("3 tests passed"), "{}", done.out);
    assert!(done.err.is_empty(), "{}", done.err);
    assert_eq!(traces(&world).await, before);
    let done = world.foldd(&["test", "ledger", "--json"]).await;
    let report: Value = serde_json::from_str(&done.out).expect("it is JSON");
    assert_eq!((report["passed"].as_i64(), report["failed"].as_i64()), (Some(1), Some(0)), "{report}");
    assert_eq!(report["tests"][0]["projection"], "ledger");
    assert_eq!(report["tests"][0]["test"], "entries are numbered");
}

#[tokio::test]
async fn the_sample_projections_pass_in_a_private_postgresql() {
    let world = World::bare().await;
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut command = world.command(&["test", "--config", &config.to_string_lossy()]);
    command.env_remove("DATABASE_URL");
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("it ends").expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    for name in ["couriers", "parcels", "traffic"] {
        assert!(out.contains(&format!("ok     {name}: ")), "{out}");
    }
    assert!(err.contains("private PostgreSQL"), "{err}");
}

#[tokio::test]
async fn a_failed_expectation_is_shown_with_its_line_and_the_difference() {
    let world = World::new().await;
    let wrong = LEDGER.replace("-- @expect order-1 | 1 | 5", "-- @expect order-1 | 1 | 6");
    world.projection("ledger", &wrong);
    let before = traces(&world).await;
    let done = world.foldd(&["test"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("1 of 1 test failed"), "{}", done.err);
    let place = format!("projections/ledger.sql:{}: ", line_of(&wrong, "order-1 | 1 | 6"));
    for part in [&place, "- order-1 | 1 | 6", "+ order-1 | 1 | 5", "  order-1 | 2 | 7"] {
        assert!(done.out.contains(part), "no {part:?} in {}", done.out);
    }
    assert_eq!(traces(&world).await, before);
    let done = world.foldd(&["test", "--json"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    let report: Value = serde_json::from_str(&done.out).expect("it is JSON");
    let failure = &report["tests"][0]["failures"][0];
    assert_eq!(failure["line"], line_of(&wrong, "order-1 | 1 | 6"), "{report}");
    assert_eq!(failure["rows"]["expected"][1], serde_json::json!(["order-1", "1", "6"]));
    assert_eq!(failure["rows"]["actual"][1], serde_json::json!(["order-1", "1", "5"]));
}

#[tokio::test]
async fn order_counts_where_the_query_has_one_and_only_there() {
    let world = World::new().await;
    let swapped = LEDGER.replace("version desc", "version");
    world.projection("ledger", &swapped);
    assert_eq!(world.foldd(&["test"]).await.code, 3);
    world.projection("ledger", &swapped.replace(" order by stream_id, version;", ";"));
    let done = world.foldd(&["test"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    // A row too few is a failure in any order, and so are rows where none are expected.
    world.projection("ledger", &LEDGER.replace("-- @expect order-2 | 1 | 9\n", ""));
    let done = world.foldd(&["test"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.out.contains("gives 3 rows, expected 2 rows"), "{}", done.out);
}

#[tokio::test]
async fn a_handler_that_depends_on_where_a_page_ends_fails() {
    let world = World::new().await;
    let wrong = TALLY.replace("n = tally.n + excluded.n", "n = excluded.n");
    world.projection("tally", &wrong);
    let done = world.foldd(&["test"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.out.contains("with one event a page"), "{}", done.out);
    assert!(done.out.contains("+ Placed | 1 | 3.50"), "{}", done.out);
}

#[tokio::test]
async fn errors_of_handlers_queries_tables_and_given_events_have_their_lines() {
    let world = World::new().await;
    let cases = [
        ("{\"cents\": 7}", "{\"cents\": \"seven\"}", "insert into entry", "invalid input syntax"),
        ("{\"cents\": 7}", "{\"cents\": \"\\\\u0000\"}", "@given order-1 | Paid", "cannot be stored"),
        ("@given order-2", "@given parcel-2", "@given parcel-2", "category parcel"),
        ("select stream_id, version", "select stream_id, colour", "select stream_id", "\"colour\""),
        ("cents bigint,", "cents bigger,", "create table", "\"bigger\""),
    ];
    for (from, to, at, says) in cases {
        let text = LEDGER.replace(from, &to.replace("\\\\", "\\"));
        world.projection("ledger", &text);
        let done = world.foldd(&["test"]).await;
        assert_eq!(done.code, 3, "{done:?}");
        let place = format!("projections/ledger.sql:{}: ", line_of(&text, at));
        assert!(done.out.contains(&place), "no {place} in {}", done.out);
        assert!(done.out.contains(says), "no {says} in {}", done.out);
    }
    // What cannot be read is wrong use, as everywhere.
    world.projection("ledger", &LEDGER.replace("-- @test", "-- @tset"));
    let done = world.foldd(&["test"]).await;
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("did you mean `@test`"), "{}", done.err);
    world.projection("ledger", LEDGER);
    let done = world.foldd(&["test", "leger"]).await;
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("leger") && done.err.contains("ledger"), "{}", done.err);
}
