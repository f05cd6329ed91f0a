//! Readers during a cut-over: no error, no mixture, no empty table, nothing that was seen is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{live, role, tally};
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_in_a_loop_sees_one_version_whole_and_never_less_than_before() {
    let world = Arc::new(World::alone().await);
    live(&world, 2000).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut loops = Vec::new();
    for question in [
        // Two tables in one statement, in either order.
        "select t.n::bigint, w.n::bigint from (select sum(n) as n from tally.tally) t, tally.whole w",
        "select w.n::bigint, t.n::bigint from tally.whole w, (select sum(n) as n from tally.tally) t",
        // A point read.
        "select n, n from tally.whole where only_row = 1",
    ] {
        let (world, over) = (Arc::clone(&world), Arc::clone(&over));
        loops.push(tokio::spawn(async move {
            let (mut least, mut reads) = (0, 0);
            while !over.load(Ordering::SeqCst) {
                let (one, other): (i64, i64) =
                    sqlx::query_as(question).fetch_one(world.pool()).await.expect("no read fails");
                assert_eq!(one, other, "a mixture of versions");
                assert!(one >= least, "{one} after {least}: what was seen is gone");
                (least, reads) = (one, reads + 1);
            }
            reads
        }));
    }
    let appending = {
        let (world, over) = (Arc::clone(&world), Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                world.append("order-1", "Placed", "{}").await;
            }
        })
    };
    let _daemon = world.daemon();
    for version in 2..=4 {
        drop(_daemon_of(&world, version).await);
    }
    over.store(true, Ordering::SeqCst);
    appending.await.expect("appends go through");
    for reads in loops {
        assert!(reads.await.expect("no reader sees anything wrong") > 100);
    }
}

/// Raises the version under another daemon that joins, as a roll does, and waits until it is live.
async fn _daemon_of(world: &World, version: u32) -> crate::world::Daemon {
    tally(world, version, "");
    let daemon = world.daemon();
    role(world, version, "live").await;
    daemon
}
