//! Pause and resume.

use std::time::Duration;

use super::{folded, folding, json, ok, refused};
use crate::fold::TALLY;
use crate::world::World;

const TALLIED: &str = "select coalesce(sum(n), 0) from tally.tally";

#[tokio::test]
async fn who_is_paused_folds_nothing_more_and_others_go_on() {
    let (world, daemon) = folding().await;
    world.projection("other", TALLY);
    daemon.stop().await;
    let daemon = world.daemon();
    world.caught_up("other").await;
    let said = ok(&world, &["pause", "tally"]).await;
    assert!(said.contains("tally@1 is paused") && said.contains("`foldd resume tally@1`"), "{said}");
    assert_eq!(world.status("tally").await["phase"], "paused", "at once");
    world.append("order-1", "Placed", "{}").await;
    world.caught_up("other").await;
    let waited = world.foldd(&["wait", "tally", "--caught-up", "--timeout", "300ms"]).await;
    assert_eq!(waited.code, 3, "{waited:?}");
    assert_eq!(world.value(TALLIED).await, "1");
    daemon.stop().await;
    let daemon = world.daemon();
    world
        .eventually("the new daemon holds it", async || {
            !world.status("tally").await["partitions"][0]["holder"].is_null()
        })
        .await;
    world.append("order-2", "Placed", "{}").await;
    world.caught_up("other").await;
    assert_eq!(world.value(TALLIED).await, "1", "a restart does not end a pause");
    assert_eq!(world.status("tally").await["phase"], "paused");
    let said = ok(&world, &["resume", "tally"]).await;
    assert!(said.contains("tally@1 goes on"), "{said}");
    world.caught_up("tally").await;
    assert_eq!(world.value(TALLIED).await, "3", "from where it stood, each once");
    world.phase("tally", "live").await;
    daemon.stop().await;
}

#[tokio::test]
async fn no_batch_commits_after_a_pause_has_returned() {
    let (world, daemon) = folding().await;
    for round in 0..3 {
        world.seed("order", 3_000).await;
        let paused = ok(&world, &["pause", "tally"]).await;
        let stood = world.value(TALLIED).await;
        world.seed("order", 10).await;
        let waited = world.foldd(&["wait", "tally", "--caught-up", "--timeout", "500ms"]).await;
        assert_eq!(waited.code, 3, "{round}: {paused} {waited:?}");
        assert_eq!(world.value(TALLIED).await, stood, "{round}");
        ok(&world, &["resume", "tally"]).await;
        world.caught_up("tally").await;
        assert_eq!(world.value(TALLIED).await, (1 + (round + 1) * 3_010).to_string());
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_follows_within_a_second() {
    let (world, daemon) = folding().await;
    ok(&world, &["pause", "tally"]).await;
    world.append("order-1", "Placed", "{}").await;
    // The recall that follows the pause has been answered; from now on nothing but the next one gives a turn.
    world
        .eventually("the daemon was told", async || daemon.log().contains("an operator did something"))
        .await;
    let started = std::time::Instant::now();
    ok(&world, &["resume", "tally"]).await;
    world.eventually("it is applied", async || world.value(TALLIED).await == "2").await;
    // A second is the promise; a busy machine may take longer, and nobody else would wake it.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    daemon.stop().await;
}

#[tokio::test]
async fn who_halted_goes_on_when_resumed_and_says_so_when_it_halts_again() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.execute("alter table tally.tally add constraint small check (n < 2)").await;
    world.append("order-1", "Placed", "{}").await;
    world.append("order-1", "Placed", "{}").await;
    let halted = world.halted("tally").await;
    assert_eq!(halted["sqlstate"], "23514", "{halted}");
    let again = refused(&world, 1, &["resume", "tally"]).await;
    assert!(again.contains("halted again") && again.contains("small"), "{again}");
    world.execute("alter table tally.tally drop constraint small").await;
    world
        .execute(
            "update es_subscriptions set unclean_takeovers = 3, attempted_position = 7, crashed_position = 7",
        )
        .await;
    ok(&world, &["resume", "tally@1", "--why", "the constraint is gone"]).await;
    world.caught_up("tally").await;
    assert_eq!(world.value(TALLIED).await, "2");
    assert_eq!(
        world.value("select unclean_takeovers || ',' || num_nulls(attempted_position, crashed_position) from es_subscriptions").await,
        "0,2"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn asking_twice_does_it_once() {
    let (world, daemon) = folding().await;
    let nothing = ok(&world, &["resume", "tally"]).await;
    assert!(nothing.contains("nothing to do"), "{nothing}");
    let first = json(&world.foldd(&["pause", "tally", "--json"]).await);
    let second = json(&world.foldd(&["pause", "tally", "--json"]).await);
    assert_eq!((first["changed"].as_bool(), second["changed"].as_bool()), (Some(true), Some(false)));
    assert_eq!(first["revision"], second["revision"]);
    let said = ok(&world, &["pause", "tally"]).await;
    assert!(said.contains("paused already"), "{said}");
    ok(&world, &["resume", "tally"]).await;
    let nothing = json(&world.foldd(&["resume", "tally", "--json"]).await);
    assert_eq!(nothing["changed"], false, "{nothing}");
    assert_eq!(
        world.value("select string_agg(verb, ',' order by entry_id) from es_operator_log").await,
        "pause,resume"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn without_a_daemon_a_resume_says_that_it_is_still_to_come() {
    let world = folded().await;
    ok(&world, &["pause", "tally"]).await;
    let told = refused(&world, 3, &["resume", "tally", "--timeout", "300ms"]).await;
    assert!(told.contains("no daemon is running"), "{told}");
    assert_eq!(world.value("select paused from es_subscriptions").await, "false", "it is done all the same");
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    daemon.stop().await;
}

#[tokio::test]
async fn who_has_not_seen_what_another_did_is_refused() {
    let world = folded().await;
    assert_eq!(world.status("tally").await["revision"], 0);
    let paused = json(&world.foldd(&["pause", "tally", "--if-revision", "0", "--json"]).await);
    let revision = paused["revision"].to_string();
    assert_eq!(world.status("tally").await["revision"], paused["revision"]);
    for verb in ["pause", "resume"] {
        let told = refused(&world, 3, &[verb, "tally", "--if-revision", "0"]).await;
        for part in [&format!("revision {revision}"), "not at 0", "`foldd log tally@1`"] {
            assert!(told.contains(part), "no {part} in {told}");
        }
    }
    let told = refused(&world, 3, &["resume", "tally", "--if-revision", &revision, "--timeout", "1ms"]).await;
    assert!(told.contains("no daemon is running"), "{told}");
    assert_eq!(world.value("select paused from es_subscriptions").await, "false");
}

#[tokio::test]
async fn of_two_operators_who_saw_the_same_one_is_refused() {
    let world = folded().await;
    let pause = ["pause", "tally", "--if-revision", "0"];
    let (one, two) = tokio::join!(world.foldd(&pause), world.foldd(&pause));
    let mut codes = [one.code, two.code];
    codes.sort_unstable();
    assert_eq!(codes, [0, 3], "{one:?} {two:?}");
    assert_eq!(world.value("select count(*) from es_operator_log").await, "1");
}

#[tokio::test]
async fn a_batch_in_hand_is_waited_for_and_not_for_ever() {
    let world = folded().await;
    let mut batch = world.pool().begin().await.expect("a transaction begins");
    sqlx::query("select from es_subscriptions for key share")
        .execute(&mut *batch)
        .await
        .expect("as es_enter does");
    let told = refused(&world, 3, &["pause", "tally", "--timeout", "200ms"]).await;
    assert!(
        told.contains("a batch of tally@1") && told.contains("200ms") && told.contains("--timeout"),
        "{told}"
    );
    let waiting = async {
        world
            .eventually("the pause waits", async || {
                world.value("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").await == "1"
            })
            .await;
        batch.commit().await.expect("it commits");
    };
    let (done, ()) = tokio::join!(world.foldd(&["pause", "tally"]), waiting);
    assert_eq!(done.code, 0, "{done:?}");
}

#[tokio::test]
async fn a_wish_is_not_missed_by_a_daemon_that_has_lost_its_connection() {
    let (world, daemon) = folding().await;
    ok(&world, &["pause", "tally"]).await;
    world
        .eventually("the daemon was told", async || daemon.log().contains("an operator did something"))
        .await;
    world.append("order-1", "Placed", "{}").await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name = 'foldd clerk'";
    assert_eq!(world.value(cut).await, "true");
    ok(&world, &["resume", "tally"]).await;
    world.caught_up("tally").await;
    assert!(daemon.log().contains("the clerk lost its connection"), "{}", daemon.log());
    daemon.stop().await;
}

#[tokio::test]
async fn who_could_not_be_built_is_no_stranger() {
    let world = World::new().await;
    world.projection("tally", &TALLY.replace("n bigint not", "n bigintt not"));
    let daemon = world.daemon();
    world.halted("tally").await;
    let told = refused(&world, 1, &["resume", "tally"]).await;
    assert!(told.contains("could not be built") && told.contains("bigintt"), "{told}");
    daemon.stop().await;
}

#[tokio::test]
async fn who_is_unknown_is_told_who_is_known() {
    let world = World::new().await;
    let told = refused(&world, 1, &["pause", "tally"]).await;
    assert!(told.contains("there is no projection 'tally'") && told.contains("none yet"), "{told}");
    let world = folded().await;
    for name in ["tallies", "tally@2", ""] {
        for verb in ["pause", "resume"] {
            let told = refused(&world, 1, &[verb, name]).await;
            assert!(told.contains(&format!("'{name}'")) && told.contains("tally@1"), "{told}");
        }
    }
}
