//! An event that kills the process that applies it.

use std::process::Command;

use foldd::{Daemon, EventData, Handler, HandlerError, OnError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::letters;
use crate::world::{self, World};

#[derive(Debug, Serialize, Deserialize)]
struct Thing {
    amount: i64,
}

impl EventData for Thing {
    fn event_type(&self) -> &'static str {
        "Thing"
    }
}

/// Aborts the process at an event without an amount.
struct Fragile;

impl Handler for Fragile {
    type Event = Thing;

    async fn apply(&self, tx: &mut PgConnection, events: &[Received<Thing>]) -> Result<(), HandlerError> {
        for event in events {
            if event.event.amount == 0 {
                std::process::abort();
            }
            sqlx::query("insert into seen values ($1, $2)")
                .bind(&event.recorded.stream_id)
                .bind(event.event.amount)
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

/// The process that dies: this program once more, started by the tests below.
#[tokio::test]
#[ignore = "a process of its own, which the tests here start"]
async fn a_process_that_dies_of_an_event() {
    let Ok(url) = std::env::var("FRAGILE_DATABASE_URL") else { return };
    let policy = std::env::var("FRAGILE_ON_ERROR").unwrap_or_default();
    let fragile = RustProjection::new("fragile", 1, Fragile)
        .categories(&["thing"])
        .tables("create table seen (stream_id text, amount bigint)")
        .on_error(if policy == "halt" { OnError::Halt } else { OnError::QuarantineStream });
    let sturdy = "/* foldd\nversion = 1\ncategories = [\"thing\"]\n*/\n-- @tables\n\
        create table t (n bigint);\n-- @on Thing\ninsert into t values (1);\n";
    let daemon = Daemon::new(Registry::new().with(fragile))
        .with_sql("sturdy", sturdy)
        .lease(std::time::Duration::from_secs(1));
    let pool = world::pool(&url).await;
    daemon.run(pool, CancellationToken::new()).await.expect("the daemon runs until it dies");
}

fn fragile(world: &World, policy: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .args(["--exact", "parking::crashes::a_process_that_dies_of_an_event", "--ignored"])
        .env("FRAGILE_DATABASE_URL", world.url())
        .env("FRAGILE_ON_ERROR", policy);
    command
}

async fn append(world: &World, stream: &str, amount: i64) {
    world.append(stream, "Thing", &format!("{{\"amount\": {amount}}}")).await;
}

#[tokio::test]
async fn an_event_that_kills_processes_is_found_and_parked() {
    let world = World::new().await;
    world.store().migrate().await.expect("the store can be migrated");
    for amount in 1..=5 {
        append(&world, "thing-1", amount).await;
    }
    append(&world, "thing-2", 0).await;
    append(&world, "thing-2", 7).await;
    append(&world, "thing-1", 6).await;
    let mut deaths = 0;
    let last = loop {
        let mut daemon = world.daemon_of(fragile(&world, "quarantine_stream"));
        let mut ended = false;
        world
            .eventually("it dies, or the event is parked", async || {
                ended = ended || daemon.has_ended().is_some();
                ended || letters(&world, "fragile").await.len() == 2
            })
            .await;
        if !ended {
            break daemon;
        }
        deaths += 1;
        assert!(deaths < 8, "it still dies: {}", daemon.log());
    };
    assert!(deaths >= 5, "it was found before it was noted often enough: {deaths}");
    assert_eq!(letters(&world, "fragile").await, ["thing-2/1 failed 1", "thing-2/2 behind 1"]);
    world
        .eventually("the others go on", async || {
            world.value("select sum(amount) from fragile.seen").await == "21"
        })
        .await;
    world
        .eventually("the neighbour goes on", async || {
            world.value("select count(*) from sturdy.t").await == "8"
        })
        .await;
    last.kill();
}

#[tokio::test]
async fn under_the_policy_to_halt_it_halts_instead_of_dying_for_ever() {
    let world = World::new().await;
    world.store().migrate().await.expect("the store can be migrated");
    append(&world, "thing-1", 1).await;
    append(&world, "thing-2", 0).await;
    let mut deaths = 0;
    let daemon = loop {
        let mut daemon = world.daemon_of(fragile(&world, "halt"));
        let mut ended = false;
        world
            .eventually("it dies, or halts", async || {
                ended = ended || daemon.has_ended().is_some();
                ended || world.status("fragile").await["phase"] == "halted"
            })
            .await;
        if !ended {
            break daemon;
        }
        deaths += 1;
        assert!(deaths < 8, "it still dies: {}", daemon.log());
    };
    let error = world.halted("fragile").await;
    assert_eq!(error["event"]["stream_id"], "thing-2", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("the process died")), "{error}");
    assert_eq!(world.value("select count(*) from fragile.seen").await, "1");
    // Not even a restart dies of it.
    daemon.kill();
    let daemon = world.daemon_of(fragile(&world, "halt"));
    world.halted("fragile").await;
    daemon.kill();
}

#[tokio::test]
async fn who_ends_in_good_order_or_falls_silent_while_idle_suspects_no_event_for_long() {
    let world = World::new().await;
    world.store().migrate().await.expect("the store can be migrated");
    let unclean = "select sum(unclean_takeovers) from es_subscriptions where subscription_id = 'fragile@1'";
    let fence = "select sum(fence_token) from es_subscriptions where subscription_id = 'fragile@1'";
    for lives in 1..=5 {
        let daemon = world.daemon_of(fragile(&world, "halt"));
        world.eventually("it is taken", async || world.value(fence).await == lives.to_string()).await;
        daemon.kill();
    }
    let daemon = world.daemon_of(fragile(&world, "halt"));
    world.eventually("it is suspected", async || world.value(unclean).await == "5").await;
    // What comes now is tried with care, and clears everybody.
    for _ in 0..1_200 {
        append(&world, "thing-1", 1).await;
    }
    let seen = "select count(*) from fragile.seen";
    world.eventually("all are applied", async || world.value(seen).await == "1200").await;
    world.eventually("nobody is suspected", async || world.value(unclean).await == "0").await;
    assert_eq!(world.value("select count(*) from es_dead_letters").await, "0");
    daemon.kill();
}

#[tokio::test]
async fn handlers_in_sql_kill_nobody_and_are_never_suspected() {
    let world = World::new().await;
    world.projection("tally", crate::fold::TALLY);
    let unclean = "select unclean_takeovers from es_subscriptions";
    let lease = [("FOLDD__DAEMON__LEASE", "1s")];
    for _ in 0..3 {
        let daemon = world.daemon_with(&lease);
        daemon.says("lease taken").await;
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
    assert_eq!(world.value(unclean).await, "0", "these ended in good order");
    for _ in 0..4 {
        let daemon = world.daemon_with(&lease);
        daemon.says("lease taken").await;
        daemon.kill();
    }
    let daemon = world.daemon_with(&lease);
    daemon.says("lease taken").await;
    assert_eq!(world.value(unclean).await, "4");
    world.seed("order", 100).await;
    world.caught_up("tally").await;
    assert_eq!(world.value(unclean).await, "0");
    assert!(!daemon.log().contains("one by one"), "{}", daemon.log());
    daemon.stop().await;
}
