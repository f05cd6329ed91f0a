//! Chaos: three daemons, eight appenders, and faults of every kind on top of each other.
//!
//! **What is shown.** Whatever fails and whenever: what was acknowledged is in the log, what was refused is
//! not; every projection is the fold of the log, with nothing lost, doubled or reordered; no fence token and
//! no cursor ever falls; and when the faults end, so do their traces.
//!
//! **How.** `schedule` turns a seed into a plan of faults. `stage` has the players: a PostgreSQL of its own,
//! real daemons, and a `proxy` before each of them that can be deaf, slow, cut, or cut in the very moment
//! between a commit and its answer. `appenders` write by every door there is and keep exact accounts of what
//! they were told. `projections` are nine read models, each touchy about something else. `oracle` goes
//! around all of it and computes everything anew from the log.
//!
//! **What repeats and what does not.** A seed gives the same faults at the same moments, and to each appender
//! the same appends in the same order; what meets what is up to the machine. `FOLDD_TEST_SEED` replays a
//! plan, `FOLDD_CHAOS_SECONDS` says how long one is, and `make chaos` sets both.
//!
//! **A roll** of configuration is a restart under other settings: workers, pages, polling, and the number of
//! partitions of `parted`, so that old and new configuration run side by side and split it in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};

use crate::world::World;
use appenders::{Accounts, Appenders, Kind};
use schedule::{LEASE, schedule};
use stage::Stage;

mod appenders;
#[cfg(foldd_mutants)]
mod mutants;
mod oracle;
mod projections;
mod proxy;
mod schedule;
mod sighted;
mod stage;

/// How soon after the last fault nothing may be left of any of them.
const CALM: Duration = Duration::from_secs(30);

fn given(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|given| given.parse().ok())
}

/// A world with the projections in it, and the oracle.
async fn world() -> World {
    let world = World::alone_with(&[("deadlock_timeout", "100ms")]).await;
    oracle::prepare(&world).await;
    projections::write(&world);
    let lease = LEASE.as_secs();
    world.configure(&format!(
        "[daemon]\nlease = \"{lease}s\"\nbatch_timeout = \"5s\"\ndrain_timeout = \"3s\"\nmax_page_events = 500\n"
    ));
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered() {
    let seed = given("FOLDD_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let length = Duration::from_secs(given("FOLDD_CHAOS_SECONDS").unwrap_or(60));
    let plan = schedule(seed, length);
    println!("FOLDD_TEST_SEED={seed} FOLDD_CHAOS_SECONDS={}", length.as_secs());
    plan.iter().for_each(|entry| println!("{entry}"));
    let planned = plan.len();

    let stage = Stage::set(world().await, None).await;
    stage.world.read().await.phase("balances", "live").await;
    let over = Arc::new(AtomicBool::new(false));
    let witness = tokio::spawn(watch(Arc::clone(&stage), Arc::clone(&over)));
    let appenders = Appenders::start(&stage, seed);
    stage.play(plan).await;
    let ended = Instant::now();
    let mut accounts = Accounts::default();
    for (kind, told) in appenders.stop().await {
        println!("{kind:?}: {}", told.told());
        let got_through = if kind == Kind::Regretful { &told.refused } else { &told.acknowledged };
        assert!(!got_through.is_empty(), "{kind:?} never got through");
        accounts = accounts.merge(told);
    }
    let unrest = unrest(&stage).await;
    println!("calm {:.1} s after the last fault", ended.elapsed().as_secs_f64());
    over.store(true, Ordering::SeqCst);
    let (looks, seen) = witness.await.expect("the witness ends");

    let mut session = stage.session().await.expect("the server is there");
    let mut harm = oracle::harm(&mut session, &accounts).await;
    harm.extend(seen);
    if !unrest.is_empty() {
        println!("{}", stage.last_words(&mut session).await);
    }
    harm.extend(unrest);
    tell(&stage, &accounts, &mut session, looks).await;
    assert_eq!(harm, Vec::<String>::new(), "replay with the seed above");
    println!("0 lost, 0 doubled, 0 reordered");
    let done: u32 = stage.done().await.values().sum();
    // What came while the server was down met nobody.
    assert!(done as usize >= planned * 3 / 4, "only {done} of {planned} faults took effect");
    assert!(length.as_secs() < 60 || done >= 100, "only {done} faults");
    for status in stage.leave().await {
        assert_eq!(status.code(), Some(0), "a daemon's end");
    }
    assert_eq!(stage.panics().await, Vec::<String>::new());
}

/// Waits until nothing is left of any fault. Returns what still is when that takes too long.
async fn unrest(stage: &Stage) -> Vec<String> {
    let begun = Instant::now();
    let mut session = stage.session().await.expect("the server is there");
    loop {
        let mut unrest = oracle::unrest(&mut session).await.expect("the books can be read");
        unrest.extend(stage.complaints().await);
        if unrest.is_empty() || begun.elapsed() > CALM {
            return unrest;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Looks on all the time: the read model is the fold of the log up to its cursor, at any moment. Returns how often it
/// could look, and the first time that it was not so.
async fn watch(stage: Arc<Stage>, over: Arc<AtomicBool>) -> (u32, Option<String>) {
    let (mut looks, mut seen, begun) = (0, None, Instant::now());
    while !over.load(Ordering::SeqCst) {
        if let Some(mut session) = stage.session().await
            && let Ok(drift) = oracle::drift(&mut session).await
        {
            looks += 1;
            if drift != 0 && seen.is_none() {
                let at = begun.elapsed().as_secs_f64();
                seen = Some(format!(
                    "{drift} more in the audit than in the log up to its cursor, after {at:.1} s"
                ));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
    (looks, seen)
}

/// The figures.
async fn tell(stage: &Stage, accounts: &Accounts, session: &mut PgConnection, looks: u32) {
    for (kind, times) in stage.done().await {
        println!("{times:5} × {kind}");
    }
    let (lost, terminated) = stage.casualties();
    let count =
        "select format('%s events in %s streams, %s moves of checkpoints', (select count(*) from es_events),
                 (select count(*) from es_streams), (select count(*) from oracle.journal))";
    let events: String =
        sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *session).await.expect("it answers");
    let splits: i64 = sqlx::query_scalar("select count(*) from es_operator_log where verb = 'split'")
        .fetch_one(&mut *session)
        .await
        .expect("it answers");
    println!("{splits} times split into another number of partitions");
    let slowest = stage.slowest_end.load(Ordering::SeqCst);
    println!(
        "{lost} answers to commits lost, {terminated} sessions terminated; SIGTERM took {slowest} ms at most"
    );
    let largest = stage.largest.load(Ordering::SeqCst);
    println!("{events}; looked at {looks} times meanwhile; no daemon above {largest} MB");
    println!("{}", accounts.told());
    let waits = oracle::takeovers(session, &stage.bereaved.lock().await).await;
    if let Some(longest) = waits.last() {
        let at = |share: usize| waits[(waits.len() - 1) * share / 100].as_secs_f64();
        let (median, most, longest) = (at(50), at(99), longest.as_secs_f64());
        println!(
            "{} takeovers after a kill: p50 {median:.2} s, p99 {most:.2} s, longest {longest:.2} s",
            waits.len()
        );
    }
}
