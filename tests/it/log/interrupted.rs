//! Adoption that has to wait, and adoption that is killed.

use std::process::{Child, Stdio};

use super::adopt::{assert_whole, contents, old_append, plain};
use super::{run, session, settled, try_run};
use crate::world::World;

/// Starts an adoption that cannot get past a point, and kills its process there. A backend that is in the middle of a
/// statement then is ended too, or left alone to find out by itself.
async fn interrupt(world: &World, reached: &str, end_backend: bool) {
    let mut command = world.command(&["migrate"]);
    command.env("PGAPPNAME", "adopter").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = command.spawn().expect("it can be started");
    world.eventually(reached, async || world.value(reached).await == "true").await;
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert_eq!(
        world.value("select to_regclass('es_migrations') is null").await,
        "true",
        "it was not finished"
    );
    if end_backend {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
            where pid <> pg_backend_pid() and query like 'create %index concurrently%'";
        world.execute(end).await;
        let gone = "select not exists (select from pg_stat_progress_create_index)";
        world.eventually("the build is gone", async || world.value(gone).await == "true").await;
    }
}

#[tokio::test]
async fn an_adoption_that_was_killed_again_and_again_is_continued() {
    let world = plain().await;
    let before = contents(&world).await;

    // A reader in the middle of its transaction: the events' table cannot be changed yet.
    let (mut reader, _) = session(&world).await;
    run(&mut reader, "begin; select count(*) from es_events").await;
    interrupt(&world, "select exists (select from pg_attribute where attrelid = 'es_streams'::regclass and attname = 'last_transaction_id')", false).await;
    run(&mut reader, "commit").await;

    // An old snapshot: an index waits for it, built and not yet valid. The second backend goes on without its process.
    let (mut frozen, _) = session(&world).await;
    run(&mut frozen, "begin isolation level repeatable read; select 1").await;
    let built =
        "select exists (select from pg_stat_progress_create_index where phase = 'waiting for old snapshots')";
    interrupt(&world, built, true).await;
    assert_eq!(world.value("select count(*) from pg_index where not indisvalid").await, "1");
    interrupt(&world, built, false).await;
    world.execute(&old_append("order-400", 25)).await;
    run(&mut frozen, "commit").await;

    // As if it had been killed in the middle of the backfill, which no lock can be made to wait for.
    world
        .execute("update es_events set stream_category = null, event_id = null where global_position > 10000")
        .await;
    world.execute(&old_append("order-500", 25)).await;

    let done = world.foldd(&["migrate"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_whole(&world).await;
    settled(&world).await;
    assert_eq!(world.store().read_all_after((0, 0), i64::MAX).await.expect("read").len(), 25_002);
    assert_ne!(contents(&world).await, before, "two events came meanwhile");
}

#[tokio::test]
async fn an_adoption_waits_for_a_writer_without_blocking_the_others() {
    let world = plain().await;
    let (mut open, _) = session(&world).await;
    run(&mut open, &format!("begin; {}", old_append("order-1", 25))).await;
    let mut child = world.command(&["migrate"]).stdout(Stdio::null()).spawn().expect("it can be started");
    let waiting =
        "select exists (select from pg_locks where not granted and relation = 'es_streams'::regclass)";
    world.eventually("the adoption is in the queue", async || world.value(waiting).await == "true").await;
    let (mut other, _) = session(&world).await;
    run(&mut other, "set statement_timeout = '10s'").await;
    for version in 25..35 {
        try_run(&mut other, &format!("begin; {}; commit", old_append("order-2", version)))
            .await
            .expect("nobody is blocked for long");
    }
    run(&mut open, "commit").await;
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("joined").expect("it ends");
    assert!(status.success());
    assert_whole(&world).await;
}
