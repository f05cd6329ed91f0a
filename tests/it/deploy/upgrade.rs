//! An older foldd meets a newer schema, as it does while pods are replaced one after the other.

use crate::fold::TALLY;
use crate::world::World;

const COUNTED: &str = "select coalesce(sum(n), 0) from tally.tally";

#[tokio::test]
async fn a_running_daemon_goes_on_under_a_newer_schema_and_one_that_starts_refuses() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.seed("order", 20).await;
    world.caught_up("tally").await;
    world
        .execute("insert into es_migrations (version, name, checksum) select max(version) + 1, 'later', 'x' from es_migrations")
        .await;
    world.seed("order", 5).await;
    world.eventually("it folds on", async || world.value(COUNTED).await == "25").await;
    world
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name in ('foldd watcher', 'foldd clerk', 'foldd worker')",
        )
        .await;
    world.seed("order", 5).await;
    world.eventually("it folds on with new connections", async || world.value(COUNTED).await == "30").await;
    world.eventually("it is ready", async || daemon.get("/readyz").await.0 == 200).await;
    for verb in [&["run"][..], &["status"], &["migrate"], &["append", "order-1", "Noted", "{}"]] {
        let done = world.foldd(verb).await;
        assert!(done.code == 1 && done.err.contains("run a newer foldd"), "{verb:?}: {done:?}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}
