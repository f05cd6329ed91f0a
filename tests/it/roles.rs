//! What each of the roles of `deploy/roles.sql` cannot do. That it is enough for what it should do, every other test shows:
//! daemons and verbs run with it.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::fold::TALLY;
use crate::world::roles::as_role;
use crate::world::{Done, World};

/// A world whose daemon has folded an event and ended.
async fn folded() -> World {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    world
}

/// A session of a role.
async fn session(world: &World, role: &str) -> PgConnection {
    PgConnection::connect(&as_role(world.url(), role)).await.expect("the role may log in")
}

/// Every one of these statements is refused for want of a right.
async fn may_not(world: &World, role: &str, statements: &[&str]) {
    let mut session = session(world, role).await;
    for sql in statements {
        let refused = sqlx::raw_sql(AssertSqlSafe(*sql)).execute(&mut session).await;
        let error = refused.expect_err(&format!("{role} may {sql}"));
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{role}: {sql}: {error}");
    }
}

async fn verb(world: &World, role: &str, args: &[&str]) -> Done {
    let mut command = world.command(args);
    command.env("DATABASE_URL", as_role(world.url(), role));
    let output = tokio::task::spawn_blocking(move || command.output());
    Done::of(output.await.expect("its thread ends").expect("it can be started"))
}

/// The events as they are, of which nobody but a writer may add one.
const EVENTS: [&str; 5] = [
    "update es_events set event_type = 'x'",
    "delete from es_events",
    "truncate es_events",
    "drop table es_events",
    "alter table es_events disable trigger all",
];

#[tokio::test]
async fn a_writer_appends_and_changes_nothing_that_is_there() {
    let world = folded().await;
    may_not(&world, "foldd_append", &EVENTS).await;
    may_not(
        &world,
        "foldd_append",
        &[
            "select * from tally.tally",
            "select * from es_dead_letters",
            "select * from es_operator_log",
            "update es_subscriptions set last_position = 0",
            "delete from es_streams",
            "create table mine (n int)",
            "create schema mine",
            "select es_rebase(false)",
            "select es_raise_stamp_floor('1')",
            "select es_redact('order-1', 'a mistake')",
        ],
    )
    .await;
    let done = verb(&world, "foldd_append", &["append", "order-1", "Placed", "{}"]).await;
    assert_eq!(done.code, 0, "{done:?}");
}

#[tokio::test]
async fn a_daemon_neither_appends_nor_changes_the_log() {
    let world = folded().await;
    may_not(&world, "foldd_daemon", &EVENTS).await;
    may_not(
        &world,
        "foldd_daemon",
        &[
            "insert into es_streams (stream_id, stream_category, stream_version) values ('order-9', 'order', 1)",
            "select es_append('order-1', null, null, array['Placed'], array['{}']::jsonb[])",
            "update es_streams set stream_version = 9",
            "delete from es_snapshots",
            "select es_redact('order-1', 'a mistake')",
            "select es_rebase(false)",
            "insert into es_migrations values (99, 'mine', '')",
            "drop function es_category_of(text)",
            "create table mine (n int)",
            "create role mine",
            "create database mine",
        ],
    )
    .await;
    let done = verb(&world, "foldd_daemon", &["append", "order-1", "Placed", "{}"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("permission denied for table es_") && done.err.contains("grant"), "{done:?}");
}

#[tokio::test]
async fn a_monitor_sees_everything_and_writes_nothing() {
    let world = folded().await;
    may_not(&world, "foldd_monitor", &EVENTS).await;
    may_not(
        &world,
        "foldd_monitor",
        &[
            "select es_append('order-1', null, null, array['Placed'], array['{}']::jsonb[])",
            "select es_raise_stamp_floor('1')",
            "create schema mine",
            "create table mine (n int)",
            "create table foldd.mine (n int)",
            "select es_redact('order-1', 'a mistake')",
            "select es_rebase(false)",
            "drop schema tally cascade",
        ],
    )
    .await;
    // Not a row of any table of the books.
    let mut session = session(&world, "foldd_monitor").await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.relkind = 'r' and c.relname like 'es\\_%' and n.nspname in ('public', 'foldd', 'foldd_parking')
           and (has_table_privilege(c.oid, 'insert, update, delete, truncate, trigger, references'))",
    )
    .fetch_all(&mut session)
    .await
    .expect("the catalogs can be read");
    assert_eq!(tables, Vec::<String>::new());
    for args in [
        &["pause", "tally"][..],
        &["rebuild", "tally"],
        &["retire", "tally"],
        &["dead-letters", "discard", "tally", "--all"],
        &["build", "tally", "--into", "then"],
        &["verify", "tally"],
        &["run"],
        &["append", "order-1", "Placed", "{}"],
    ] {
        let done = verb(&world, "foldd_monitor", args).await;
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert!(done.err.contains("permission denied for"), "{args:?}: {done:?}");
        assert!(
            done.err.contains("have the owner grant") || done.err.contains("grant "),
            "{args:?}: {done:?}"
        );
    }
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["lag"],
        &["log"],
        &["doctor"],
        &["wait", "tally", "--caught-up"],
        &["dead-letters", "list"],
        &["migrate", "--check"],
    ] {
        let done = verb(&world, "foldd_monitor", args).await;
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
    }
}
