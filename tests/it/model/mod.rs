//! The stamp protocol in every order in which its steps can happen.
//!
//! PostgreSQL is made of few parts here: xids, the array of running transactions, the lock table, the
//! floor, the rows. `appender` has programs of small steps, as the server takes them; `watcher` those of
//! the readers; `explore` lets any of them go first, each time. A *plan* says who takes part. All along it
//! is checked that
//!
//! - no event becomes visible below a horizon that a reader has read up to,
//! - a reader gets every event once, versions 1, 2, 3 … along each stream, in (stamp, position) order,
//! - at the end each reader has got every committed event, and everybody has come to his end.
//!
//! Each mistake that the protocol could contain is planted once, and must be caught.
//!
//! Not in the model: crashes (`log/incarnation` has them), pages that end within a stamp, and the xid of
//! whoever raises the floor, which is harmless and only makes the numbers grow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use appender::*;
use explore::explore;
use server::{Mistake, Plan};
use watcher::*;

/// Those who write.
mod appender;
/// The search.
mod explore;
/// What PostgreSQL keeps.
mod server;
/// Those who read.
mod watcher;

/// What holds.
static SOUND: &[Plan] = &[
    plan(
        "three appenders, an unrelated writer, two watchers",
        &[EARLY_COARSE, APPEND_COARSE, ASIDE_COARSE, UNRELATED_COARSE],
        &[PROVE_COARSE, PROVE_COARSE],
    ),
    plan(
        "two streams, an unrelated writer, two watchers",
        &[ASIDE_COARSE, APPEND_COARSE, UNRELATED_COARSE],
        &[PROVE_BRIEFLY, PROVE_BRIEFLY],
    ),
    plan("one stream, two watchers", &[EARLY_BRIEFLY, APPEND_BRIEFLY], &[PROVE_BRIEFLY, PROVE_BRIEFLY]),
    plan("the smallest steps", &[EARLY_ASIDE, APPEND, UNRELATED], &[PROVE]),
    plan("the smallest steps on one stream", &[EARLY, APPEND], &[PROVE]),
    plan("one who reads the floor before he has an xid", &[FLOOR_FIRST, EARLY, UNRELATED], &[PROVE_BRIEFLY]),
    plan("a bare INSERT", &[INSERT, EARLY, UNRELATED_COARSE], &[PROVE_BRIEFLY]),
    plan("two streams in one transaction", &[BOTH, APPEND_BRIEFLY, ASIDE_COARSE], &[PROVE_COARSE]),
    plan("two events in one transaction", &[TWICE, APPEND_BRIEFLY, UNRELATED_COARSE], &[PROVE_TWICE]),
    plan("a rollback", &[ROLLED_BACK, APPEND_BRIEFLY, EARLY_ASIDE], &[PROVE_BRIEFLY]),
    plan("a savepoint", &[SECOND_TRY, APPEND_BRIEFLY, ASIDE_COARSE], &[PROVE_BRIEFLY]),
    plan("a savepoint, and a second proof", &[SECOND_TRY, EARLY_BRIEFLY], &[PROVE_TWICE]),
    plan("a prepared appender", &[PREPARED, EARLY_ASIDE, UNRELATED_COARSE], &[PROVE]),
    plan(
        "a prepared appender, its locks read the other way",
        &[PREPARED_ASIDE, APPEND_BRIEFLY],
        &[XIDS_FIRST],
    ),
    plan("a reader that relies on another's raise", &[EARLY_BRIEFLY, EARLY_ASIDE], &[RAISE, GLANCE]),
    plan(
        "the lock table before the snapshot, which is allowed",
        &[EARLY_BRIEFLY, EARLY_ASIDE],
        &[RAISE, LOCKS_BEFORE_SNAPSHOT],
    ),
    plan("a watcher in REPEATABLE READ", &[EARLY_BRIEFLY, ASIDE_COARSE], &[RAISE, FROZEN]),
    plan("a batch, and nobody raises the floor", &[BATCH, EARLY_BRIEFLY, APPEND_BRIEFLY], &[GLANCE]),
    plan("a batch, two looks", &[BATCH_COARSE, EARLY_ASIDE, APPEND_BRIEFLY], &[PROVE_TWICE]),
    plan("a batch, two watchers", &[BATCH_COARSE, EARLY_COARSE, ASIDE_COARSE], &[PROVE_COARSE, GLANCE]),
    plan("tier 0", &[EARLY, APPEND, EARLY_ASIDE], &[TIER_0]),
    plan("tier 0 beside tier 1", &[EARLY_BRIEFLY, APPEND_BRIEFLY, EARLY_ASIDE], &[TIER_0, PROVE_COARSE]),
];

/// What does not, each for one reason.
static PLANTED: &[Plan] = &[
    plan("the stamp does not heed the stream's last one", &[EARLY, APPEND], &[TIER_0])
        .but(Mistake::NoStreamTerm),
    plan("the stamp does not heed the floor", &[EARLY, APPEND], &[PROVE]).but(Mistake::NoFloorTerm),
    plan("the floor is read before the lock is held", &[FLOOR_BEFORE_LOCK, APPEND], &[PROVE]),
    plan("the lock is released before the commit", &[UNLOCKED_EARLY, APPEND], &[PROVE]),
    plan("the data is older than the scan", &[EARLY, APPEND], &[STALE_DATA]),
    plan("the floor is not raised", &[EARLY, APPEND], &[NEVER_RAISED]),
    plan("the floor is raised after the scan", &[EARLY, APPEND], &[RAISED_LATE]),
    plan("the floor is compared and set in two steps", &[EARLY, APPEND], &[PROVE, RAISE_TORN]),
    plan("the lock table is read before the floor", &[EARLY, APPEND], &[LOCKS_BEFORE_FLOOR, RAISE]),
    plan("the lock on es_events is not looked at", &[EARLY, APPEND], &[PROVE]).but(Mistake::NobodyIsSuspect),
    plan("an xid that is not in the lock table is harmless", &[FLOOR_FIRST, APPEND], &[PROVE])
        .but(Mistake::AbsenceIsProof),
    plan("a prepared transaction has two names", &[PREPARED, APPEND], &[PROVE]).but(Mistake::TwoNames),
    plan("it has two names, the other way", &[PREPARED_ASIDE, APPEND], &[PROVE]).but(Mistake::TwoNames),
    plan("what is stamped with the horizon is read", &[EARLY, APPEND], &[PROVE])
        .but(Mistake::HorizonIsIncluded),
    plan("an oath is broken", &[FORSWORN, APPEND], &[GLANCE]),
    plan("an oath is taken after an append", &[SWORN_LATE, APPEND], &[GLANCE]),
    plan("an oath is taken behind a savepoint", &[SWORN_FOR_A_WHILE, APPEND], &[GLANCE]),
    plan("the horizon lies in the snapshot's future", &[EARLY, APPEND], &[FROZEN])
        .but(Mistake::NoBoundBySnapshot),
];

const fn plan(name: &'static str, writers: &'static [Program], watchers: &'static [Round]) -> Plan {
    Plan { name, writers, watchers, mistake: None }
}

#[test]
fn no_order_of_steps_loses_doubles_or_inverts_an_event() {
    let (next, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(plan) = SOUND.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = explore(plan);
            if let Some((fault, way)) = outcome.fault {
                panic!("{}: {fault:?} after {way}", plan.name);
            }
            println!("{:9} states  {}", outcome.states, plan.name);
            states.fetch_add(outcome.states, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    println!("{:9} states  in all", states.load(Ordering::Relaxed));
    assert!(states.load(Ordering::Relaxed) > 1_000_000, "the search is not cut short");
}

#[test]
fn every_planted_mistake_is_caught() {
    for plan in PLANTED {
        let outcome = explore(plan);
        let (fault, way) = outcome.fault.unwrap_or_else(|| panic!("nobody noticed that {}", plan.name));
        println!("{fault:?}: {}, after {way}", plan.name);
    }
}
