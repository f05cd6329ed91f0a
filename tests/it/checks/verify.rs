//! `foldd verify`: what it finds, what it leaves out, and that it disturbs nobody.

use serde_json::Value;

use super::traces;
use crate::world::{Done, World};

/// One table with a key, and one without that has columns of types that know no equality.
const AUDIT: &str = "/* foldd
version = 1
categories = [\"order\"]
*/
-- @tables
create table entry (stream_id text, version bigint, cents numeric, primary key (stream_id, version));
create table odd (place point, doc json, markup xml, flags bit varying, many int[], at timestamptz, none text,
                  seen_at timestamptz default clock_timestamp(), nth bigserial);
-- @batch
insert into entry select stream_id, stream_version, (data->>'cents')::numeric from batch;
-- @batch
insert into odd (place, doc, markup, flags, many, at)
select point(1, 2), '{\"b\": 1, \"a\" : 2}', '<a/>', b'101', array[1, null], created_at
from batch where event_type = 'Odd';
";

const IGNORED: [&str; 4] = ["--ignore", "odd.seen_at", "--ignore", "odd.nth"];

async fn verify(world: &World, more: &[&str]) -> (Done, Value) {
    let args = [&["verify", "audit", "--json"], &IGNORED[..], more].concat();
    let done = world.foldd(&args).await;
    let report = serde_json::from_str(&done.out).unwrap_or_default();
    (done, report)
}

async fn fill(world: &World) {
    world
        .execute(
            "select es_append('order-' || s, null, null, array_agg(case when n % 5 = 0 then 'Odd' else 'Even' end order by n),
                              array_agg(jsonb_build_object('cents', n) order by n))
             from generate_series(1, 40) s, generate_series(1, 50) n group by s",
        )
        .await;
}

#[tokio::test]
async fn a_row_that_somebody_changed_is_found_whatever_its_types_and_keys() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    fill(&world).await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    let before = traces(&world).await;
    let (done, report) = verify(&world, &[]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!((report["drift"].as_bool(), report["events"].as_i64()), (Some(false), Some(2000)), "{report}");
    assert_eq!(report["tables"][0]["live_rows"], 2000, "{report}");
    assert_eq!(report["tables"][1]["live_rows"], 400, "{report}");
    assert_eq!(report["tables"][1]["ignored"], serde_json::json!(["seen_at", "nth"]), "{report}");
    assert_eq!(traces(&world).await, before);

    world.execute("update audit.entry set cents = 7.50 where stream_id = 'order-3' and version = 9").await;
    world.execute("insert into audit.odd select * from audit.odd limit 1").await;
    world.execute("delete from audit.entry where stream_id = 'order-9'").await;
    let (done, report) = verify(&world, &["--show", "3"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("audit@1") && done.err.contains("2 of 2 tables differ"), "{}", done.err);
    let entry = &report["tables"][0];
    assert_eq!(
        (entry["missing_rows"].as_i64(), entry["unexpected_rows"].as_i64()),
        (Some(51), Some(1)),
        "{entry}"
    );
    assert_eq!(entry["differences"].as_array().map(Vec::len), Some(3), "{entry}");
    assert_eq!(
        entry["differences"][1],
        serde_json::json!({"only_in": "log", "times": 1, "row": "(order-3,9,9)"}),
        "{entry}"
    );
    assert_eq!(entry["differences"][0]["row"], "(order-3,9,7.50)", "{entry}");
    let odd = &report["tables"][1];
    assert_eq!((odd["missing_rows"].as_i64(), odd["unexpected_rows"].as_i64()), (Some(0), Some(1)), "{odd}");

    let done = world.foldd(&[&["verify", "audit", "--show", "3"], &IGNORED[..]].concat()).await;
    assert_eq!(done.code, 3, "{done:?}");
    for part in ["- (order-3,9,9)", "+ (order-3,9,7.50)", "51 missing, 1 unexpected", "… and 49 more"] {
        assert!(done.out.contains(part), "no {part:?} in {}", done.out);
    }
    assert_eq!(traces(&world).await, before);
    daemon.stop().await;
}

#[tokio::test]
async fn what_may_differ_is_named_and_a_wrong_name_is_refused() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    fill(&world).await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    let done = world.foldd(&["verify", "audit"]).await;
    assert_eq!(done.code, 3, "clock_timestamp() gives another time: {done:?}");
    let (done, _) = verify(&world, &["--ignore", "odd.colour"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("odd.colour") && done.err.contains("seen_at"), "{}", done.err);
    world
        .execute("alter table audit.entry add column note text; alter table audit.entry drop column cents")
        .await;
    let (done, report) = verify(&world, &[]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert_eq!(report["tables"][0]["columns_missing"], serde_json::json!(["cents"]), "{report}");
    assert_eq!(report["tables"][0]["columns_unexpected"], serde_json::json!(["note"]), "{report}");
    world.execute("drop table audit.odd").await;
    let (done, report) = verify(&world, &[]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert_eq!(report["tables"][1]["exists"], false, "{report}");
    daemon.stop().await;
}

#[tokio::test]
async fn it_compares_with_one_moment_while_the_projection_goes_on() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    fill(&world).await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    let append = async {
        for n in 0..60 {
            world.append(&format!("order-{n}"), "Even", "{\"cents\": 1}").await;
        }
    };
    let look = async {
        for _ in 0..5 {
            let (done, report) = verify(&world, &[]).await;
            assert_eq!(done.code, 0, "{done:?}");
            assert_eq!(report["tables"][0]["live_rows"], report["events"], "{report}");
        }
    };
    tokio::join!(append, look);
    world.caught_up("audit").await;
    let (done, report) = verify(&world, &[]).await;
    assert_eq!((done.code, report["events"].as_i64()), (0, Some(2060)), "{done:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn partitions_are_compared_each_up_to_its_own_checkpoint() {
    let world = World::new().await;
    world.projection("audit", &AUDIT.replace("version = 1", "version = 1\npartitions = 3"));
    fill(&world).await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    // One partition stands still while the others go on.
    daemon.stop().await;
    world.execute("update es_subscriptions set paused = true where subscription_id = 'audit@1/1'").await;
    let daemon = world.daemon();
    fill(&world).await;
    world
        .eventually("the other two have their events", async || {
            world.value("select count(*) from audit.entry").await
                == world
                    .value("select count(*) from es_events where stream_version <= 50 or es_partition(stream_id, 3) <> 1")
                    .await
        })
        .await;
    let (done, report) = verify(&world, &[]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(report["checkpoints"].as_array().map(Vec::len), Some(3), "{report}");
    assert_eq!(report["events"], report["tables"][0]["live_rows"], "{report}");
    assert_ne!(report["events"], 4000, "{report}");
    // Split anew while they stand apart, events beyond the new checkpoints are applied already.
    daemon.stop().await;
    world.execute("select es_repartition('audit@1', 2)").await;
    assert_ne!(world.value("select count(*) from es_subscriptions where floors is not null").await, "0");
    let (done, report) = verify(&world, &[]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(report["events"], report["tables"][0]["live_rows"], "{report}");
}

#[tokio::test]
async fn parked_events_are_left_out() {
    let world = World::new().await;
    world.projection("audit", &AUDIT.replace("version = 1", "version = 1\non_error = \"quarantine_stream\""));
    fill(&world).await;
    world.append("order-7", "Even", "{\"cents\": \"seven\"}").await;
    world.append("order-7", "Even", "{\"cents\": 8}").await;
    world.append("order-8", "Even", "{\"cents\": 9}").await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    let (done, report) = verify(&world, &[]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        (report["events"].as_i64(), report["parked_events"].as_i64()),
        (Some(2001), Some(2)),
        "{report}"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn what_cannot_be_verified_is_said_with_what_there_is() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    let done = world.foldd(&["verify", "audit"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("no projection audit"), "{}", done.err);
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    let done = world.foldd(&["verify", "audit", "--version", "3"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("no version 3 of audit, but audit@1"), "{}", done.err);
    daemon.stop().await;
    // A projection that is not configured any more is verified by the definition in the database.
    std::fs::remove_file(world.dir().join("projections/audit.sql")).expect("the file is there");
    let (done, _) = verify(&world, &[]).await;
    assert_eq!(done.code, 0, "{done:?}");
}

#[tokio::test]
async fn nobody_waits_for_a_verification() {
    // A transaction is held open: the horizon of others must not feel it.
    let world = World::alone().await;
    world
        .execute(
            "create schema gate; grant usage on schema gate to public; create function gate.pass() returns boolean language plpgsql as $$ begin
                 if current_schema() like 'foldd_scratch%' then perform pg_advisory_xact_lock_shared(77); end if;
                 return true; end $$",
        )
        .await;
    let text = AUDIT
        .replace("version = 1", "version = 1\nextension_schemas = [\"gate\"]")
        .replace("::numeric from batch", "::numeric from batch where pass()");
    world.projection("audit", &text);
    fill(&world).await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    let mut holder = world.pool().acquire().await.expect("a connection");
    sqlx::query("select pg_advisory_lock(77)").execute(&mut *holder).await.expect("the lock is free");
    let verifying = verify(&world, &[]);
    let meanwhile = async {
        let waiting =
            "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted";
        world.eventually("it folds", async || world.value(waiting).await == "1").await;
        world.append("order-1", "Even", "{\"cents\": 1}").await;
        world.caught_up("audit").await;
        assert_eq!(world.value("select count(*) from audit.entry").await, "2001", "the projection goes on");
        assert_eq!(world.value(waiting).await, "1", "and the verification is still under way");
        sqlx::query("select pg_advisory_unlock(77)").execute(&mut *holder).await.expect("it was held");
    };
    let ((done, report), ()) = tokio::join!(verifying, meanwhile);
    assert_eq!((done.code, report["events"].as_i64()), (0, Some(2001)), "{done:?}");
    daemon.stop().await;
}

/// Every kind of value that is printed otherwise than it is written, twice each.
const ZOO: &str = "/* foldd
version = 1
categories = [\"order\"]
*/
-- @tables
create type colour as enum ('red', 'green');
create type pair as (a int, b text);
create type nested as (p pair, q numeric[]);
create table animal (
    id bigint generated always as identity, doc json, docb jsonb, many int[], grid text[][], f float8, n numeric, raw bytea,
    r int4range, mr int4multirange, c colour, o nested, iv interval, doubled numeric generated always as (n * 2) stored,
    made timestamptz default now(), asked timestamptz, lot uuid, \"odd \"\"name\" text);
create table parted (k text, n bigint) partition by list (k);
create table parted_a partition of parted for values in ('a');
create table parted_rest partition of parted default;
create table bag (w text, n int);
-- @batch
insert into animal (doc, docb, many, grid, f, n, raw, r, mr, c, o, iv, asked, lot, \"odd \"\"name\")
select '{\"b\": 1, \"a\":2}', data, array[1, null], array[['a', 'b'], ['c', null]], 'NaN', 2.50, '\\x00ff', '[1,3)',
       '{[1,3),[5,7)}', 'green', row(row(1, 'x,\"y')::pair, array[1.10, null])::nested, '1 mon 2 days', clock_timestamp(),
       gen_random_uuid(), e'tab\\tand \"quote\"'
from batch;
-- @batch
insert into parted select case when global_position % 2 = 0 then 'a' else 'b' end, global_position from batch;
-- @batch
insert into bag select 'x', 1 from batch;
";

/// What differs in the tables of the zoo: missing and unexpected rows, and the columns that events do not determine, with what
/// is left without them.
fn differing(report: &Value) -> Vec<String> {
    let tables = report["tables"].as_array().cloned().unwrap_or_default();
    let line = |table: &Value| {
        let beyond = &table["undetermined"];
        let text = format!("{} {} {}", table["table"], table["missing_rows"], table["unexpected_rows"]);
        if beyond.is_null() {
            return text;
        }
        format!(
            "{text} but for {}: {} {}",
            beyond["columns"], beyond["missing_rows"], beyond["unexpected_rows"]
        )
    };
    tables.iter().map(|table| line(table).replace('"', "")).collect()
}

#[tokio::test]
async fn values_of_every_kind_agree_and_columns_that_no_fold_gives_twice_are_named() {
    let world = World::new().await;
    world.projection("zoo", ZOO);
    world.seed("order", 6).await;
    let daemon = world.daemon();
    world.caught_up("zoo").await;
    world.phase("zoo", "live").await;
    let verify = async |more: &[&str]| {
        let done = world.foldd(&[&["verify", "zoo", "--json"], more].concat()).await;
        let report: Value =
            serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        (differing(&report), done.code)
    };
    let (found, code) = verify(&[]).await;
    assert_eq!(code, 3);
    assert_eq!(found, ["animal 6 6 but for [made,asked,lot]: 0 0", "bag 0 0", "parted 0 0"]);
    let shown = world.foldd(&["verify", "zoo"]).await.out;
    let hint = "made, asked, lot; left out, all rows agree: --ignore animal.made --ignore animal.asked --ignore animal.lot";
    assert!(shown.contains(hint), "{shown}");
    let by_chance = ["--ignore", "animal.made", "--ignore", "animal.asked", "--ignore", "animal.lot"];
    assert_eq!(verify(&by_chance).await.1, 0);

    // Scale counts, so does how often a row is there, and which partition has it does not.
    world
        .execute("update zoo.animal set n = 2.5 where id = 3; update zoo.parted set n = -1 where n = 4")
        .await;
    world.execute("delete from zoo.bag where ctid in (select ctid from zoo.bag limit 2)").await;
    let (found, code) = verify(&[]).await;
    assert_eq!(code, 3);
    assert_eq!(found, ["animal 6 6 but for [made,asked,lot]: 1 1", "bag 2 0", "parted 1 1"]);
    // Numbers that all differ are nobody's clock. Serial ones are as good as it, where rows came in another order.
    let but_id = "doc, docb, many, grid, f, n, raw, r, mr, c, o, iv, made, asked, lot, \"odd \"\"name\"";
    world
        .execute(&format!(
            "update zoo.parted set n = n + 1000;
             create table copied as select * from zoo.animal; truncate zoo.animal;
             insert into zoo.animal (id, {but_id}) overriding system value select 7 - id, {but_id} from copied"
        ))
        .await;
    let (found, _) = verify(&by_chance).await;
    assert_eq!(found, ["animal 6 6 but for [id]: 1 1", "bag 2 0", "parted 6 6"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_version_that_is_built_is_verified_before_its_cut_over_and_not_before_it_is_built() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    fill(&world).await;
    let daemon = world.daemon();
    world.caught_up("audit").await;
    world.phase("audit", "live").await;
    daemon.stop().await;
    let next = |speed: &str| {
        AUDIT
            .replace("version = 1", &format!("version = 2\ncutover = \"manual\"{speed}"))
            .replace("text, version", "text not null, version")
    };
    world.projection("audit", &next("\nevents_per_second = 20"));
    let slow = world.daemon();
    let building = "select count(*) from es_projections where projection_id = 'audit@2'";
    world.eventually("it is being built", async || world.value(building).await == "1").await;
    let (done, _) = verify(&world, &["--version", "2"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("audit@2 is still being built"), "{}", done.err);
    assert!(done.err.contains("`foldd status --watch`"), "{}", done.err);
    slow.stop().await;
    world.projection("audit", &next(""));
    let daemon = world.daemon();
    let built = format!("{building} and built_xid is not null");
    world.eventually("it is built", async || world.value(&built).await == "1").await;
    let (done, report) = verify(&world, &["--version", "2"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!((report["version"].as_i64(), report["events"].as_i64()), (Some(2), Some(2000)), "{report}");
    world.execute("update audit__v2.entry set cents = 0 where stream_id = 'order-3'").await;
    assert_eq!(verify(&world, &["--version", "2"]).await.0.code, 3);
    assert_eq!(verify(&world, &[]).await.0.code, 0, "the live one is another");
    daemon.stop().await;
}
