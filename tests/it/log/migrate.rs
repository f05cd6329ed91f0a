//! The schema: created once by many, refused when it is not ours.

use foldd::{EventStore, EventStoreError};

use super::{append_any, settled};
use crate::world::{World, pool};

#[tokio::test]
async fn migrating_again_does_nothing() {
    let world = World::new().await;
    append_any(&world.store(), "a-1", 1).await;
    let catalog =
        "select string_agg(oid::text || relname, ',' order by oid) from pg_class where relname like 'es\\_%'";
    let before = world.value(catalog).await;
    let migrated = world.store().migrate().await.expect("nothing to do");
    assert_eq!((migrated.from, migrated.adopted), (migrated.to, false));
    assert_eq!(world.value(catalog).await, before);
    settled(&world).await;
    assert_eq!(world.store().read_all_after((0, 0), 9).await.expect("it can be read").len(), 1);
}

#[tokio::test]
async fn eight_processes_create_the_schema_once() {
    let world = World::bare().await;
    let runs = std::array::from_fn::<_, 8, _>(|_| world.foldd(&["migrate"]));
    let [a, b, c, d, e, f, g, h] = runs;
    let done: [crate::world::Done; 8] = tokio::join!(a, b, c, d, e, f, g, h).into();
    for one in &done {
        assert_eq!(one.code, 0, "{one:?}");
    }
    assert!(done.iter().any(|one| one.out.contains("created the schema")), "{done:?}");
    let applied = "select count(*) = max(version) and count(*) = count(distinct version) from es_migrations";
    assert_eq!(world.value(applied).await, "true");
    append_any(&world.store(), "a-1", 1).await;
}

#[tokio::test]
async fn many_tasks_of_one_small_pool_migrate_at_once() {
    let world = World::bare().await;
    let small = sqlx::postgres::PgPoolOptions::new()
        .max_connections(2)
        .connect(world.url())
        .await
        .expect("the database answers");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = EventStore::new(small.clone());
            tokio::spawn(async move { store.migrate().await })
        })
        .collect();
    for task in tasks {
        task.await.expect("it ends").expect("it is migrated");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let world = World::new().await;
    world.execute("insert into es_migrations (version, name, checksum) values (10000, 'future', '')").await;
    let error = world.store().migrate().await.expect_err("it is newer");
    assert!(
        matches!(error, EventStoreError::NewerSchema { found: 10_000, known } if known < 10_000),
        "{error:?}"
    );
    let done = world.foldd(&["migrate"]).await;
    assert_ne!(done.code, 0);
    assert!(done.err.contains("run a newer foldd"), "{done:?}");
}

#[tokio::test]
async fn a_migration_that_was_altered_is_refused() {
    let world = World::new().await;
    world.execute("update es_migrations set checksum = md5('something else') where version = 4").await;
    let error = world.store().migrate().await.expect_err("it reads differently");
    assert!(
        matches!(&error, EventStoreError::AlteredMigration { version: 4, name } if name == "0004_append"),
        "{error:?}"
    );
    assert!(world.foldd(&["migrate", "--check"]).await.err.contains("migration 4 (0004_append)"));
}

#[tokio::test]
async fn an_older_schema_is_continued_where_it_ends() {
    let world = World::bare().await;
    // What an older foldd left: the first migrations, by their own words.
    let first = ["0001_log", "0002_category", "0003_stamp", "0004_append"];
    let mut sql =
        "create table es_migrations (version integer not null, name text not null, checksum text not null,
        applied_at timestamptz not null default now(), constraint es_migrations_pkey primary key (version));"
            .to_owned();
    for (version, name) in (1..).zip(first) {
        let path = format!("{}/migrations/{name}.sql", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("a migration can be read");
        sql.push_str(&text);
        sql.push_str(&format!(
            "\ninsert into es_migrations (version, name, checksum) values ({version}, '{name}', md5($m${text}$m$));"
        ));
    }
    world.execute(&sql).await;
    append_any(&world.store(), "a-1", 2).await;
    assert_eq!(world.foldd(&["migrate", "--check"]).await.code, 3);
    let migrated = world.store().migrate().await.expect("it goes on");
    assert_eq!((migrated.from, migrated.adopted), (4, false));
    settled(&world).await;
    assert_eq!(world.store().read_all_after((0, 0), 9).await.expect("it can be read").len(), 2);
}

#[tokio::test]
async fn check_says_by_its_exit_code_whether_there_is_something_to_do() {
    let world = World::bare().await;
    let before = world.foldd(&["migrate", "--check"]).await;
    assert_eq!(before.code, 3, "{before:?}");
    assert!(before.err.contains("foldd migrate"), "{before:?}");
    assert_eq!(
        world.value("select count(*) from pg_class where relname like 'es\\_%'").await,
        "0",
        "it only looks"
    );
    assert_eq!(world.foldd(&["migrate"]).await.code, 0);
    let after = world.foldd(&["migrate", "--check"]).await;
    assert_eq!((after.code, after.out.trim()), (0, "the schema is up to date"));
    world.execute("delete from es_migrations where version > 5").await;
    assert_eq!(world.foldd(&["migrate", "--check"]).await.code, 3);
}

#[tokio::test]
async fn the_store_may_live_in_a_schema_of_its_own() {
    let world = World::bare().await;
    world.execute("create schema shop").await;
    let url = format!("{}&options=-csearch_path%3Dshop", world.url());
    let store = EventStore::new(pool(&url).await);
    store.migrate().await.expect("it is created there");
    append_any(&store, "a-1", 2).await;
    assert_eq!(world.value("select count(*) from shop.es_events").await, "2");
    assert_eq!(world.value("select to_regclass('public.es_events') is null").await, "true");
    // Called by its whole name under any search path, a function finds its own tables.
    world.execute("select shop.es_append('a-1', null, 2, array['A'], array['1'::jsonb])").await;
    world.execute("insert into shop.es_events (stream_id, stream_version, event_type, data) values ('a-1', 4, 'A', '1')").await;
    world.execute("update shop.es_streams set stream_version = 4").await;
    let read = "select count(*) from shop.es_read_all_after('0', 0, 9, '18446744073709551615')";
    assert_eq!(world.value(read).await, "4");
    assert_eq!(world.value("select shop.es_redact('a-1', 'r')").await, "4");
}
