//! The daemon as a process: it folds, stops when asked, and comes back.

use crate::world::World;

const TALLY: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n\
    create table tally (event_type text primary key, n bigint not null);\n-- @batch\n\
    insert into tally select event_type, count(*) from batch group by 1\n\
    on conflict (event_type) do update set n = tally.n + excluded.n;\n";

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
