//! The daemon is killed twenty times at random in the middle of a fold, and PostgreSQL three times.

use std::time::Duration;

use super::{AUDIT, audit_is_exact};
use crate::fold::TALLY;
use crate::world::{World, real_log};

const KILLS: u32 = 20;
const CRASHES: u32 = 3;

/// The types of the real log and how many events it has of each, by its own metadata.
const REAL_COUNTS: &str = "Add penalty 79860,Appeal to Judge 555,Create Fine 150370,\
    Insert Date Appeal to Prefecture 4188,Insert Fine Notification 79860,Notify Result Appeal to Offender 896,\
    Payment 77601,Receive Result Appeal from Prefecture 999,Send Appeal to Prefecture 4141,\
    Send Fine 103987,Send for Credit Collection 59013";

const PAID: &str = "/* foldd\nversion = 1\ncategories = [\"fine\"]\n*/\n-- @tables\n\
    create table paid (id int primary key, total numeric not null);\n-- @on Payment\n\
    insert into paid values (1, (event.data->>'paymentAmount')::numeric)\n\
    on conflict (id) do update set total = paid.total + excluded.total;\n";

/// Kills daemons in the middle of what they fold, and the server now and then. `pages` keeps the fold long.
async fn kill_again_and_again(world: &mut World, projection: &str, pages: &str) {
    let seed = std::env::var("FOLDD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("FOLDD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let checkpoint = format!(
        "select fence_token || ':' || last_position from es_subscriptions where subscription_id = '{projection}@1'"
    );
    let parts = |text: &str| -> (i64, i64) {
        let (fence, position) = text.split_once(':').unwrap_or(("0", "0"));
        (fence.parse().unwrap_or_default(), position.parse().unwrap_or_default())
    };
    let head: i64 =
        world.value("select max(global_position) from es_events").await.parse().expect("a number");
    let (mut in_the_middle, mut crashes) = (0, 0);
    for number in 0..KILLS {
        let (fence, before) = parts(&world.try_value(&checkpoint).await.unwrap_or_default());
        let daemon =
            world.daemon_with(&[("FOLDD__DAEMON__LEASE", "1s"), ("FOLDD__DAEMON__MAX_PAGE_EVENTS", pages)]);
        world
            .eventually("the lease is taken", async || {
                parts(&world.try_value(&checkpoint).await.unwrap_or_default()).0 > fence
            })
            .await;
        // Every other daemon dies while it folds; the rest at any moment, such as while they count their backlog.
        if number % 2 == 0 {
            world
                .eventually("the fold is under way", async || {
                    // On a fast machine the fold may be over before the last kills; enough must meet it all the same.
                    before == head
                        || parts(&world.try_value(&checkpoint).await.unwrap_or_default()).1 > before
                })
                .await;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..400))).await;
        let crash_is_due = number >= (crashes + 1) * KILLS / (CRASHES + 1);
        if crash_is_due {
            crashes += 1;
            world.server().crash().await.expect("the server can be crashed");
            world.server().restart().await.expect("the server starts again");
            world.eventually("the server answers", async || world.try_value("select 1").await.is_ok()).await;
            tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
        }
        daemon.kill();
        let (_, after) = parts(&world.value(&checkpoint).await);
        assert!(after >= before, "a checkpoint never goes back");
        in_the_middle += u32::from(after > before && after < head);
    }
    assert_eq!(crashes, CRASHES);
    assert!(in_the_middle >= KILLS / 4, "only {in_the_middle} of {KILLS} kills met a fold under way");
}

#[tokio::test]
async fn twenty_kills_and_three_crashes_change_nothing() {
    let mut world = World::alone().await;
    world.projection("audit", AUDIT);
    world.projection("tally", TALLY);
    for _ in 0..20 {
        world.seed("order", 3000).await;
    }
    kill_again_and_again(&mut world, "audit", "5").await;
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__LEASE", "1s")]);
    audit_is_exact(&world).await;
    world.caught_up("tally").await;
    let expected = world
        .value("select string_agg(event_type || n, ',' order by event_type) from (select event_type, count(*) n from es_events group by 1) t")
        .await;
    let tally =
        world.value("select string_agg(event_type || n, ',' order by event_type) from tally.tally").await;
    assert_eq!(tally, expected);
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn the_real_log_is_folded_exactly_through_twenty_kills_and_three_crashes() {
    let Some(log) = real_log() else { return };
    let mut world = World::alone().await;
    let started = tokio::time::Instant::now();
    let imported = world.foldd(&["import", &log.display().to_string(), "--quiet"]).await;
    assert_eq!(imported.code, 0, "{imported:?}");
    println!("imported in {:?}", started.elapsed());
    world.projection("tally", &TALLY.replace("\"order\"", "\"fine\""));
    world.projection("paid", PAID);
    kill_again_and_again(&mut world, "paid", "60").await;
    println!("killed enough after {:?}", started.elapsed());
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__LEASE", "1s")]);
    world.caught_up("tally").await;
    world.caught_up("paid").await;
    println!("done after {:?}", started.elapsed());
    let tally =
        world.value("select string_agg(event_type || ' ' || n, ',' order by event_type collate \"C\") from tally.tally").await;
    assert_eq!(tally, REAL_COUNTS);
    assert_eq!(world.value("select total from paid.paid").await, "3601464.53");
    assert_eq!(daemon.stop().await.code(), Some(0));
}
