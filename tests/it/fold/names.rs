//! Names clash with nothing, and text is text.

use super::file;
use crate::world::World;

#[tokio::test]
async fn columns_and_tables_may_bear_any_name_that_foldd_uses_inside() {
    let world = World::new().await;
    let tables =
        "create table \"select\" (\"event\" text primary key, batch bigint, n bigint, _foldd_scanned bigint,
            _foldd_position bigint, \"order\" bigint, event_type text, global_position bigint, data jsonb);";
    let insert =
        "insert into \"select\" (\"event\", batch, n, _foldd_scanned, _foldd_position, \"order\", event_type,
            global_position, data)";
    let update = "on conflict (\"event\") do update set batch = \"select\".batch + excluded.batch, n = \"select\".n + 1,
            _foldd_scanned = \"select\"._foldd_scanned + 1, _foldd_position = excluded._foldd_position,
            \"order\" = \"select\".\"order\" + 1, global_position = excluded.global_position";
    world.projection(
        "single",
        &file(
            tables,
            &format!(
                "-- @on Placed\n{insert}\nvalues (event.stream_id, 1, 1, 1, event.global_position, 1, event.event_type,
                 event.global_position, event.data)\n{update};\n\
                 -- @on Paid\nupdate \"select\" set n = n + 1, batch = batch + 1, _foldd_scanned = _foldd_scanned + 1, \"order\" = \"order\" + 1
                 where \"event\" = event.stream_id and _foldd_position < event.global_position;"
            ),
        ),
    );
    world.projection(
        "whole",
        &file(
            tables,
            &format!(
                "-- @batch\n{insert}\nselect stream_id, count(*), count(*), count(*), max(global_position), count(*), min(event_type),
                 max(global_position), '{{}}' from batch group by 1\n{update}, n = \"select\".n + excluded.n;"
            )
            .replace("n = \"select\".n + 1,\n", ""),
        ),
    );
    for kind in ["Placed", "Paid", "Placed"] {
        world.append("order-1", kind, "{}").await;
    }
    let _daemon = world.daemon();
    world.caught_up("single").await;
    world.caught_up("whole").await;
    for schema in ["single", "whole"] {
        let row = format!(
            "select \"event\" || ' ' || batch || ' ' || n || ' ' || global_position from {schema}.\"select\""
        );
        assert_eq!(world.value(&row).await, "order-1 3 3 3", "{schema}");
    }
}

#[tokio::test]
async fn quotes_backslashes_dollars_and_comments_stay_what_they_are() {
    let world = World::new().await;
    let kinds =
        ["It's", "a \"quoted\" one", "back\\slash", "$foldd$ $$ $1", "per cent % -- no comment", "ünïcödé ☃"];
    let on: String = kinds.iter().map(|kind| format!("-- @on {kind}\n")).collect();
    let text = file(
        "create table t (kind text, a text, b text, c text); -- it's a $comment$\n/* ' \" $$ */",
        &format!(
            "{on}insert into t /* it's ; */ values -- a quote ' and a ; and $foldd$\n\
             (event.event_type, 'it''s \\ -- text', $foldd$ $$ ' \\ -- $foldd$, E'\\'\\\\') -- the end is a comment"
        ),
    );
    world.projection("texts", &text);
    for kind in kinds {
        world.append("order-1", kind, "{}").await;
    }
    let _daemon = world.daemon();
    world.caught_up("texts").await;
    let rows: Vec<(String, String, String, String)> = sqlx::query_as("select kind, a, b, c from texts.t")
        .fetch_all(world.pool())
        .await
        .expect("it has rows");
    let expected: Vec<_> = kinds
        .iter()
        .map(|kind| {
            ((*kind).to_owned(), "it's \\ -- text".to_owned(), " $$ ' \\ -- ".to_owned(), "'\\".to_owned())
        })
        .collect();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn what_an_event_says_never_becomes_sql() {
    let world = World::new().await;
    let hostile = r#"'); drop table t; -- $$ $foldd$ "; \\ :event $1 %s"#;
    let data = serde_json::json!({ "name": hostile, hostile: "key" }).to_string();
    let single = "-- @on Named\ninsert into t values (event.stream_id, event.data->>'name');";
    let whole = "-- @batch\ninsert into t select stream_id, data->>'name' from batch;";
    world.projection("single", &file("create table t (stream text, name text);", single));
    world.projection("whole", &file("create table t (stream text, name text);", whole));
    let stream = format!("order-{hostile}");
    world.append(&stream, "Named", &data).await;
    world.append("order-1", "'; drop table t; --", &data).await;
    let _daemon = world.daemon();
    world.caught_up("single").await;
    world.caught_up("whole").await;
    for (schema, rows) in [("single", 1), ("whole", 2)] {
        let sql = format!("select stream, name from {schema}.t order by stream desc");
        let found: Vec<(String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(world.pool())
            .await
            .expect("the table is still there");
        assert_eq!(found.len(), rows, "{schema}");
        assert!(found.contains(&(stream.clone(), hostile.to_owned())), "{schema}: {found:?}");
    }
}

#[tokio::test]
async fn categories_with_quotes_are_read_like_others() {
    let world = World::new().await;
    let kinds = "-- @batch\ninsert into t select stream_category from batch;";
    let text = file("create table t (category text);", kinds)
        .replace("[\"order\"]", r#"["it's", "a\\b", "{x,\"y\"}", "order"]"#);
    world.projection("odd", &text);
    for category in ["it's", "a\\b", "{x,\"y\"}", "order", "x"] {
        world.append(&format!("{category}-1"), "Placed", "{}").await;
    }
    let _daemon = world.daemon();
    world.caught_up("odd").await;
    let mut found: Vec<String> =
        sqlx::query_scalar("select category from odd.t").fetch_all(world.pool()).await.expect("it has rows");
    found.sort();
    assert_eq!(found, ["a\\b", "it's", "order", "{x,\"y\"}"]);
}
