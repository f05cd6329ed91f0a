//! The daemon as a process: it folds, stops when asked, and comes back.

use crate::fold::TALLY;
use crate::world::World;

#[tokio::test]
async fn a_daemon_folds_what_is_there_and_what_comes() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.append("order-1", "Placed", "{}").await;
    world.append("order-2", "Shipped", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(
        world.value("select string_agg(event_type || n, ',' order by event_type) from tally.tally").await,
        "Placed2,Shipped1"
    );
    assert_eq!(daemon.stop().await.code(), Some(0));
}
