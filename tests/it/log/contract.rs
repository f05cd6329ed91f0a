//! Appending from any language: `es_append` as plain SQL.

use std::fs;

use foldd::ExpectedVersion::Any;
use serde_json::Value;
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, Connection};

use super::{ask, credits, places, run, session, sqlstate, try_run, whole_log};
use crate::world::World;

/// The error of a statement that must fail: its SQLSTATE, message and detail.
async fn refused(world: &World, sql: &str) -> (String, String, Value) {
    let error = sqlx::raw_sql(AssertSqlSafe(sql)).execute(world.pool()).await.expect_err(sql);
    let database = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .unwrap_or_else(|| panic!("{sql}: {error}"));
    let detail = database.detail().and_then(|detail| serde_json::from_str(detail).ok()).unwrap_or_default();
    (database.code().to_owned(), database.message().to_owned(), detail)
}

#[tokio::test]
async fn es_append_answers_with_version_stamp_and_position() {
    let world = World::new().await;
    let (mut conn, _) = session(&world).await;
    run(&mut conn, "begin").await;
    let xid = ask(&mut conn, "select pg_current_xact_id()").await;
    let sql = "select (a.version, a.transaction_id, a.global_position)
        from es_append('account-1', 'account', -1, array['A', 'B'], array['1', '{}']::jsonb[]) a";
    assert_eq!(ask(&mut conn, sql).await, format!("(2,{xid},2)"));
    let empty = "select (a.version, a.transaction_id, a.global_position)
        from es_append('account-1', null, 2, '{}', '{}') a";
    assert_eq!(ask(&mut conn, empty).await, format!("(2,{xid},2)"));
    run(&mut conn, "commit").await;
    assert_eq!(world.value(&empty.replace("account-1", "x-1").replace('2', "null")).await, "(0,,)");
    let stored =
        "select string_agg(event_type || data || metadata, ' ' order by global_position) from es_events";
    assert_eq!(world.value(stored).await, "A1{} B{}{}");
}

#[tokio::test]
async fn a_conflict_has_a_sqlstate_and_its_facts() {
    let world = World::new().await;
    world.append("account-1", "Credited", "{}").await;
    let (code, message, detail) =
        refused(&world, "select es_append('account-1', null, 7, array['A'], array['1'::jsonb])").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("ES001", "stream 'account-1' is at version 1, expected version 7")
    );
    assert_eq!(detail, serde_json::json!({"stream_id": "account-1", "expected": 7, "actual": 1}));
    let (code, message, detail) =
        refused(&world, "select es_append('account-2', null, 0, array['A'], array['1'::jsonb])").await;
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("ES001", "stream 'account-2' does not exist, expected version 0")
    );
    assert_eq!(detail["actual"], Value::Null);
}

#[tokio::test]
async fn a_repeated_event_id_has_a_sqlstate_and_its_facts() {
    let world = World::new().await;
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let again = format!(
        "select es_append('account-1', null, -1, array['A'], array['1'::jsonb], null, array['{id}']::uuid[])"
    );
    world.execute(&again).await;
    let (code, message, detail) = refused(&world, &again).await;
    assert_eq!(code, "ES002");
    assert_eq!(message, format!("event_id {id} is already in the log, as version 1 of stream 'account-1'"));
    assert_eq!(detail, serde_json::json!({"event_id": id, "stream_id": "account-1", "stream_version": 1}));
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused() {
    let world = World::new().await;
    for (arguments, code) in [
        ("'a-1', null, null, array['A'], '{}'::jsonb[]", "2202E"),
        ("'a-1', null, null, '{}', array['1'::jsonb]", "2202E"),
        ("'a-1', null, null, array['A'], array['1'::jsonb], '{}'", "2202E"),
        ("'a-1', null, null, array['A'], array['1'::jsonb], null, '{}'", "2202E"),
        ("'a-1', null, null, array[null], array['1'::jsonb]", "22004"),
        ("'a-1', null, null, array['A'], array[null::jsonb]", "22004"),
        ("'a-1', null, null, array['A'], array['1'::jsonb], array[null::jsonb]", "22004"),
        ("'a-1', null, null, array['A'], array['1'::jsonb], null, array[null::uuid]", "22004"),
        ("'a-1', null, null, null, null", "22004"),
        ("'a-1', null, null, array['A'], null", "22004"),
        ("'a-1', null, null, null, array['1'::jsonb]", "22004"),
        ("null, 'a', null, array['A'], array['1'::jsonb]", "22023"),
        ("'', 'a', null, array['A'], array['1'::jsonb]", "22023"),
        ("'nodash', null, null, array['A'], array['1'::jsonb]", "22023"),
        ("'-1', null, -1, array['A'], array['1'::jsonb]", "22023"),
        ("'a-1', null, 1, array['A'], array['1'::jsonb]", "ES001"),
        ("'a-1', null, -2, array['A'], array['1'::jsonb]", "ES001"),
    ] {
        let (found, message, _) = refused(&world, &format!("select es_append({arguments})")).await;
        assert_eq!(found, code, "{arguments}: {message}");
    }
    assert_eq!(
        world.value("select (select count(*) from es_events) + (select count(*) from es_streams)").await,
        "0"
    );
}

#[tokio::test]
async fn the_category_is_what_stands_before_the_first_dash() {
    let world = World::new().await;
    world.append("parcel-7-b", "A", "1").await;
    world.execute("select es_append('single', 'given', null, array['A'], array['1'::jsonb])").await;
    world.execute("select es_append('a-given', 'other', -1, array['A'], array['1'::jsonb])").await;
    // The stream has its category now, so it need not be named again, whatever is expected.
    world.execute("select es_append('single', null, null, array['A'], array['1'::jsonb])").await;
    world.execute("select es_append('single', null, 2, array['A'], array['1'::jsonb])").await;
    let categories = "select string_agg(distinct stream_id || '=' || stream_category, ' ' ) from es_events";
    assert_eq!(world.value(categories).await, "a-given=other parcel-7-b=parcel single=given");
    assert_eq!(
        world.value(&categories.replace("es_events", "es_streams")).await,
        world.value(categories).await
    );
}

#[tokio::test]
async fn payloads_that_only_jsonb_holds_pass_through() {
    let world = World::new().await;
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    for data in ["null", "1e400", "\"\"", "[]", deep.as_str()] {
        world.append("a-1", "A", data).await;
    }
    let log = whole_log(&world).await;
    assert_eq!(log[0].data.get(), "null");
    assert_eq!(log[1].data.get().len(), 401);
    assert_eq!(log[4].data.get().len(), 1_001);
}

#[tokio::test]
async fn a_role_that_may_only_read_and_insert_can_append() {
    let world = World::new().await;
    let role = world.value("select 'writer_' || current_database()").await;
    world
        .execute(&format!(
            "create role {role}; grant select, insert, update on es_streams to {role};
             grant select, insert on es_events to {role};"
        ))
        .await;
    let (mut conn, _) = session(&world).await;
    run(&mut conn, &format!("set role {role}")).await;
    run(&mut conn, "select es_append('a-1', null, -1, array['A'], array['1'::jsonb])").await;
    run(&mut conn, "select es_append('a-1', null, 1, array['A'], array['1'::jsonb])").await;
    run(&mut conn, "select es_append('a-1', null, null, array['A'], array['1'::jsonb])").await;
    let raised = try_run(&mut conn, "select es_raise_stamp_floor('3')").await.expect_err("not its business");
    assert_eq!(sqlstate(&raised), "42501");
    // A search path of the caller's own, with tables of the same names, changes nothing.
    run(&mut conn, "create temp table es_events (x int); create temp table es_streams (x int)").await;
    run(&mut conn, "select public.es_append('a-1', null, 3, array['A'], array['1'::jsonb])").await;
    conn.close().await.expect("it closes");
    world.execute(&format!("drop owned by {role}; drop role {role}")).await;
    assert_eq!(places(&whole_log(&world).await), [("a-1", 1), ("a-1", 2), ("a-1", 3), ("a-1", 4)]);
}

#[tokio::test]
async fn an_append_is_one_statement_whatever_its_size() {
    let mut world = World::alone_with(&[("log_statement", "all"), ("log_line_prefix", "")]).await;
    let store = world.store();
    let log = world.server().socket_dir().join("data/server.log");
    // Statements are prepared at their first use on a connection.
    let mut tx = world.pool().begin().await.expect("a transaction");
    store.append_in_tx(&mut tx, "a-1", "a", Any, &credits(1)).await.expect("appended");
    let before = fs::read_to_string(&log).expect("the server has a log").len();
    store.append_in_tx(&mut tx, "a-1", "a", Any, &credits(500)).await.expect("appended");
    let text = fs::read_to_string(&log).expect("the server has a log").split_off(before);
    tx.commit().await.expect("it commits");
    let statements: Vec<_> = text.lines().filter(|line| line.contains("LOG:  ")).collect();
    assert_eq!(statements.len(), 1, "{statements:?}");
    assert!(statements[0].contains("es_append("), "{statements:?}");

    // On the pool there is no BEGIN or COMMIT around it either.
    store.append("a-1", "a", Any, &credits(1)).await.expect("appended");
    let before = fs::read_to_string(&log).expect("the server has a log").len();
    store.append("a-1", "a", Any, &credits(500)).await.expect("appended");
    let text = fs::read_to_string(&log).expect("the server has a log").split_off(before);
    let statements: Vec<_> = text.lines().filter(|line| line.contains("LOG:  ")).collect();
    assert_eq!(statements.len(), 1, "{statements:?}");
}
