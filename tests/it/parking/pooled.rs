//! The same through a transaction pooler, where each statement may meet another session of the server.

use super::{HANDLERS, TABLES, append_bad, append_good, applied, file, letters, settled};
use crate::pooler::bouncer::Bouncer;
use crate::world::World;

#[tokio::test]
async fn events_are_parked_and_retried_through_a_pooler() {
    let mut world = World::alone().await;
    let Some(_bouncer) = Bouncer::before(&mut world, "").await else { return };
    for (name, handlers) in HANDLERS {
        world.projection(name, &file("on_error = \"quarantine_stream\"", TABLES, handlers));
    }
    let daemon = world.daemon();
    for amount in 1..=20 {
        append_good(&world, "order-2", amount).await;
    }
    append_bad(&world, "order-1", "22012").await;
    append_good(&world, "order-1", 2).await;
    for (name, _) in HANDLERS {
        settled(&world, name).await;
        assert_eq!(letters(&world, name).await, ["order-1/1 failed 22012 1", "order-1/2 behind 1"], "{name}");
        let paused = world.foldd(&["pause", name]).await;
        assert_eq!(paused.code, 0, "{paused:?}");
        world.execute(&format!("insert into {name}.mended values (true)")).await;
        let later = world.foldd(&["dead-letters", "retry", name, "--all", "--timeout", "300ms"]).await;
        assert_eq!(later.code, 3, "nothing moves while it is paused: {later:?}");
        assert!(later.err.contains("foldd resume"), "{later:?}");
        let resumed = world.foldd(&["resume", name]).await;
        assert_eq!(resumed.code, 0, "{resumed:?}");
        world.eventually("they are applied", async || letters(&world, name).await.is_empty()).await;
        assert_eq!(applied(&world, name).await[0], "order-1: 1 2", "{name}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}
