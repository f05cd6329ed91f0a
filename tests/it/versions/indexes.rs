//! Indexes that no handler needs are created after the load; the others, and what decides, are there from the start.

use sqlx::{Postgres, Transaction};

use super::{live, role, version, waits_for};
use crate::world::{Daemon, World};

/// The update looks for streams, and nothing for the rest.
const INDEXED: &str = "\
/* foldd
version = 2
categories = [\"order\"]
{settings}
*/
-- @tables
create table whole (only_row int primary key, n bigint not null);
create table streams (stream text not null, times int not null);
create table orders (place bigint not null unique, \"At Last\" text, kind text);
create index streams_stream on streams (stream);
create index \"Late, one\" on orders (\"At Last\" desc, place) where kind <> 'none';
create index orders_two on orders ({expression}) with (fillfactor = 80);
-- @batch
insert into streams select distinct stream_id, 0 from batch;
-- @batch
update streams set times = times + 1 from batch where batch.stream_id = streams.stream;
-- @batch
insert into orders select global_position, event_type, event_type from batch;
-- @batch
insert into whole select 1, count(*) * 2 from batch having count(*) > 0
on conflict (only_row) do update set n = whole.n + excluded.n;
";

/// The indexes that are there and valid, without their schema.
const THERE: &str = "select string_agg(replace(pg_get_indexdef(i.indexrelid), n.nspname || '.', ''), E'\\n' order by c.relname)
     from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
     join pg_class t on t.oid = i.indrelid where i.indisvalid and t.relname in ('orders', 'streams')";

const AT_FIRST: &str = "\
CREATE UNIQUE INDEX orders_place_key ON orders USING btree (place)
CREATE INDEX streams_stream ON streams USING btree (stream)";

const AT_LAST: &str = "\
CREATE INDEX \"Late, one\" ON orders USING btree (\"At Last\" DESC, place) WHERE (kind <> 'none'::text)
CREATE UNIQUE INDEX orders_place_key ON orders USING btree (place)
CREATE INDEX orders_two ON orders USING btree (lower(kind)) WITH (fillfactor='80')
CREATE INDEX streams_stream ON streams USING btree (stream)";

const LEFT: &str = "select cardinality(late_indexes) from es_projections where projection_id = 'tally@2'";

fn text(expression: &str, settings: &str) -> String {
    INDEXED.replace("{expression}", expression).replace("{settings}", settings)
}

/// A row of the table can be read, and no index created.
const LOCKED_TABLE: &str = "lock table tally__v2.orders in row exclusive mode";
/// No part of the version can be noted as built.
const LOCKED_VERSION: &str = "select from es_projections where projection_id = 'tally@2' for no key update";

/// A daemon that builds the second version, at so many events a second, and has laid out its tables.
async fn building(world: &World, per_second: u32) -> Daemon {
    live(world, 200).await;
    world.projection("tally", &text("lower(kind)", &format!("events_per_second = {per_second}")));
    let daemon = world.daemon();
    world
        .eventually("the tables are there", async || {
            world.value("select to_regclass('tally__v2.orders') is not null").await == "true"
        })
        .await;
    daemon
}

/// Holds a lock until it is dropped.
async fn hold(world: &World, lock: &'static str) -> Transaction<'static, Postgres> {
    let mut holder = world.pool().begin().await.expect("it answers");
    sqlx::raw_sql(lock).execute(&mut *holder).await.expect("what is locked is there");
    holder
}

#[tokio::test]
async fn an_index_that_no_handler_needs_is_created_after_the_load_whatever_is_killed() {
    let world = World::alone().await;
    // So slow that the load cannot end before the table is locked.
    let daemon = building(&world, 25).await;
    let holder = hold(&world, LOCKED_TABLE).await;
    assert_eq!(world.value(THERE).await, AT_FIRST);
    waits_for(&world, 2, "its indexes").await;
    assert_eq!(world.value(THERE).await, AT_FIRST);
    assert_eq!(world.value(LEFT).await, "2");
    // The live one goes on meanwhile.
    world.append("order-1", "Placed", "{}").await;
    world.eventually("it is fresh", async || world.rows("tally.whole").await == ["(1,201)"]).await;
    daemon.kill();
    let daemon = world.daemon();
    waits_for(&world, 2, "its indexes").await;
    drop(holder);
    role(&world, 2, "live").await;
    assert_eq!(world.value(&format!("{THERE} and n.nspname = 'tally'")).await, AT_LAST);
    assert_eq!(world.value(LEFT).await, "0");
    assert_eq!(world.rows("tally.whole").await, ["(1,402)"]);
    daemon.says("index created after the load").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn an_index_that_does_not_fit_the_rows_stops_the_build_and_nothing_else() {
    let world = World::alone().await;
    live(&world, 50).await;
    world.projection("tally", &text("(1 / (place - 7))", ""));
    let daemon = world.daemon();
    world.eventually("it halts", async || version(&world, 2).await["phase"] == "halted").await;
    let error = version(&world, 2).await["error"].clone();
    assert_eq!(error["sqlstate"], "22012", "{error}");
    let said = error["message"].as_str().unwrap_or_default();
    assert!(said.contains("division by zero") && said.contains("orders_two"), "{error}");
    assert!(error["remedy"].as_str().is_some_and(|remedy| remedy.contains("mend the index")), "{error}");
    world.append("order-1", "Placed", "{}").await;
    world.eventually("the live one goes on", async || world.rows("tally.whole").await == ["(1,51)"]).await;
    assert_eq!(version(&world, 1).await["role"], "live");
    assert_eq!(world.value(LEFT).await, "1");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn of_two_parts_that_arrive_at_once_the_second_one_finishes_the_tables() {
    let world = World::alone_with(&[("deadlock_timeout", "30s"), ("autovacuum", "off")]).await;
    live(&world, 60).await;
    // No index waits: the statistics have to be thought of by themselves.
    let settings = "cutover = \"manual\"\npartitions = 2\nevents_per_second = 20";
    super::tally(&world, 2, settings);
    let daemon = world.daemon();
    world
        .eventually("the second version is entered", async || {
            world.value("select count(*) from es_subscriptions where projection_id = 'tally@2'").await == "2"
        })
        .await;
    let holder = hold(&world, LOCKED_VERSION).await;
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%es_go_live%'";
    world.eventually("both have arrived", async || world.value(waiting).await == "2").await;
    drop(holder);
    waits_for(&world, 2, "cutover").await;
    let tidied = "select string_agg(relname, ' ' order by relname) from pg_stat_user_tables
                  where schemaname = 'tally__v2' and vacuum_count > 0 and analyze_count > 0";
    world.eventually("the tables are tidied", async || world.value(tidied).await == "tally whole").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_version_that_is_given_up_while_its_indexes_are_created_is_asked_for_no_more() {
    let world = World::alone().await;
    let daemon = building(&world, 50).await;
    let holder = hold(&world, LOCKED_TABLE).await;
    waits_for(&world, 2, "its indexes").await;
    // What a retirement does first; its tables are locked by whoever creates the first index.
    world.execute("update es_projections set role = 'retired' where projection_id = 'tally@2'").await;
    drop(holder);
    world.eventually("the first one is there", async || world.value(LEFT).await == "1").await;
    daemon.signal("TERM");
    let (code, said) = daemon.ends().await;
    assert_eq!(code, Some(0));
    assert!(!said.contains("still in hand"), "somebody goes on with the second one:\n{said}");
}

/// Whether an index of the second version waits, by the tables and a statement more.
async fn waits(world: &World, tables: &str, statement: &str) -> bool {
    let text = super::TALLY
        .replace("{version}", "2")
        .replace("{times}", "2")
        .replace("{settings}", "cutover = \"manual\"\nevents_per_second = 1")
        .replace("-- @tables\n", &format!("-- @tables\n{tables}\n"));
    world.projection("tally", &format!("{text}-- @batch\n{statement};\n"));
    let daemon = world.daemon();
    world
        .eventually("the second version is entered", async || {
            world.value("select count(*) from es_projections where projection_id = 'tally@2'").await == "1"
        })
        .await;
    let waits = world.value(LEFT).await != "0";
    let there = "select to_regclass('tally__v2.looked') is not null";
    assert_eq!(world.value(there).await, (!waits).to_string(), "on the list or in the table: {tables}");
    let done = world.foldd(&["cancel", "tally@2", "--timeout", "30s"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(daemon.stop().await.code(), Some(0));
    world.execute("delete from es_projections where projection_id like 'tally@2%'").await;
    waits
}

#[tokio::test]
async fn what_a_statement_may_need_and_what_decides_does_not_wait() {
    let world = World::alone().await;
    live(&world, 20).await;
    let insert = "insert into extra (id, kind) select global_position, event_type from batch";
    let table = "create table extra (id bigint primary key, kind text, parent bigint);";
    for (what, tables, statement, expected) in [
        ("nobody looks for it", "create index looked on extra (kind);", insert, true),
        (
            "a condition names its column",
            "create index looked on extra (kind);",
            "delete from extra where kind = 'None'",
            false,
        ),
        (
            "its table is searched, and it has a condition",
            "create index looked on extra (kind) where kind > 'a';",
            "delete from extra where parent = 7",
            false,
        ),
        (
            "its column is a foreign key",
            "alter table extra add foreign key (parent) references extra on delete cascade;
          create index looked on extra (parent);",
            insert,
            false,
        ),
        ("it is unique", "create unique index looked on extra (kind, id);", insert, false),
        (
            "there is a function",
            "create function one() returns int language sql as 'select 1';
          create index looked on extra (kind);",
            insert,
            false,
        ),
    ] {
        assert_eq!(waits(&world, &format!("{table}\n{tables}"), statement).await, expected, "{what}");
    }
}
