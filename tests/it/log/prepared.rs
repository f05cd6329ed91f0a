//! An appender that is being prepared holds the horizon at every moment, also while its locks change hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{ask, run, session};
use crate::world::World;

/// Makes PREPARE long: the server moves the locks of one partition after the other.
const MANY_LOCKS: &str = "select count(pg_advisory_xact_lock(n)) from generate_series(1, 300) n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appender_holds_the_horizon_while_it_is_being_prepared() {
    let world = Arc::new(World::alone_with(&[("max_prepared_transactions", "4")]).await);
    // The xid of the appender, from before it is prepared until before it ends; 0 in between.
    let open = Arc::new(AtomicU64::new(0));
    let (proofs, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (world, open, proofs, done) =
            (Arc::clone(&world), Arc::clone(&open), Arc::clone(&proofs), Arc::clone(&done));
        tokio::spawn(async move {
            let (mut conn, _) = session(&world).await;
            let mut passed = 0;
            while !done.load(Ordering::SeqCst) {
                let held = open.load(Ordering::SeqCst);
                let horizon: u64 =
                    ask(&mut conn, "select es_proven_horizon()").await.parse().expect("a number");
                if held > 0 && open.load(Ordering::SeqCst) == held {
                    proofs.fetch_add(1, Ordering::SeqCst);
                    passed += u64::from(horizon > held);
                }
            }
            passed
        })
    };
    let (mut conn, _) = session(&world).await;
    for round in 0..100 {
        run(&mut conn, &format!("begin; {MANY_LOCKS}")).await;
        run(&mut conn, "select es_append('account-1', null, null, array['A'], array['1'::jsonb])").await;
        let xid = ask(&mut conn, "select pg_current_xact_id()").await.parse().expect("a number");
        world.value("select es_raise_stamp_floor(pg_snapshot_xmax(pg_current_snapshot()))").await;
        open.store(xid, Ordering::SeqCst);
        let before = proofs.load(Ordering::SeqCst);
        run(&mut conn, &format!("prepare transaction 'round {round}'")).await;
        while proofs.load(Ordering::SeqCst) == before && !watcher.is_finished() {
            tokio::task::yield_now().await;
        }
        open.store(0, Ordering::SeqCst);
        run(&mut conn, &format!("commit prepared 'round {round}'")).await;
    }
    done.store(true, Ordering::SeqCst);
    let passed = watcher.await.expect("the watcher ends");
    assert_eq!(passed, 0, "horizons beyond a transaction that was open and had appended");
}
