//! Planted bugs, each of which the harness must see: a harness that cannot fail proves nothing.
//!
//! A bug stands in the daemon's code (`src/mutants.rs`) or in a function of the database, which is edited here, or in both:
//! fence token and cursor are two locks on one door, and some bugs show only when the other one is open as well. `make
//! mutants` builds and runs all of them, `ONLY=…` one.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use super::appenders::{Accounts, Appenders};
use super::oracle;
use super::schedule::{Lane, schedule};
use super::stage::Stage;
use super::{CALM, given, unrest, world};
use crate::world::World;

/// A bug is given so long to show itself.
const LENGTH: Duration = Duration::from_secs(40);

/// An edit of a function in the database: which, what is replaced, by what.
type Edit = (&'static str, &'static str, &'static str);

struct Mutant {
    name: &'static str,
    edits: &'static [Edit],
    /// Beside the edits.
    sql: &'static str,
    /// Which faults there are: a process that is killed hides what is wrong with its connections.
    lanes: fn(Lane) -> bool,
    /// A scene of its own, for what chaos meets too seldom. Says what is wrong.
    scene: Option<Scene>,
}

/// What is set up by hand.
#[derive(Clone, Copy)]
enum Scene {
    /// Two transactions with one stamp, of which the later one commits first.
    OneStamp,
    /// A batch that comes with the horizon of a server's earlier life.
    EarlierLife,
}

const ADVANCE: &str = "es_advance(text, bigint, xid8, bigint, xid8, bigint, bigint, bigint)";
const READ: &str = "es_read_category_after(text, xid8, bigint, bigint, xid8, bigint)";
const ENTER: &str = "foldd.es_enter(text, bigint, uuid, oid, text[], text)";

/// Opens the second lock.
const NO_COMPARE: Edit = (
    ADVANCE,
    "
      and s.last_transaction_id = es_advance.old_transaction_id
      and s.last_position = es_advance.old_position
      and (es_advance.new_transaction_id, es_advance.new_position)
            >= (es_advance.old_transaction_id, es_advance.old_position)",
    "",
);

const fn in_code(name: &'static str) -> Mutant {
    in_database(name, &[])
}

const fn in_database(name: &'static str, edits: &'static [Edit]) -> Mutant {
    Mutant { name, edits, sql: "", lanes: |_| true, scene: None }
}

const MUTANTS: [Mutant; 15] = [
    in_database(
        "no-token",
        &[
            (ENTER, " and s.fence_token = es_enter.fence_token", ""),
            (ADVANCE, "\n      and s.fence_token = es_advance.fence_token", ""),
            NO_COMPARE,
        ],
    ),
    in_database("no-cursor-compare", &[NO_COMPARE]),
    in_database("takeover-by-an-earlier-read", &[NO_COMPARE]),
    in_database("retry-after-unknown-commit", &[NO_COMPARE]),
    in_code("checkpoint-outside-the-transaction"),
    Mutant { lanes: |lane| matches!(lane, Lane::Link(_)), ..in_code("connection-reused-after-cancel") },
    in_code("poison-skipped"),
    Mutant {
        scene: Some(Scene::EarlierLife),
        ..in_database(
            "stale-horizon",
            &[(ENTER, "es_current_incarnation() is distinct from es_enter.incarnation", "false")],
        )
    },
    Mutant {
        scene: Some(Scene::OneStamp),
        ..in_database(
            "horizon-inclusive",
            &[(
                READ,
                "e.transaction_id < es_read_category_after.horizon",
                "e.transaction_id <= es_read_category_after.horizon",
            )],
        )
    },
    Mutant {
        sql: "create function oracle.horizon_after_data() returns xid8 language plpgsql volatile as
              $$ begin perform pg_sleep(0.06); return es_horizon(); end $$",
        ..in_database(
            "horizon-after-data",
            &[(
                READ,
                "coalesce(es_read_category_after.horizon, es_horizon_after(es_read_category_after.after_transaction_id))",
                "oracle.horizon_after_data()",
            )],
        )
    },
    in_database("horizon-ignores-who-runs", &[("es_horizon()", "pg_snapshot_xmin", "pg_snapshot_xmax")]),
    in_database(
        "page-end-off-by-one",
        &[(
            ADVANCE,
            "last_position = es_advance.new_position,",
            "last_position = es_advance.new_position + 1,",
        )],
    ),
    Mutant {
        sql: "create function oracle.not_raised() returns trigger language plpgsql as
              $$ begin new.fence_token := old.fence_token; return new; end $$;
              create trigger not_raised before update on es_subscriptions for each row
              when (new.holder is distinct from old.holder) execute function oracle.not_raised()",
        ..in_code("token-not-raised")
    },
    Mutant {
        // Every other daemon's clock is behind by more than the lease.
        sql: "create function oracle.local_clock() returns trigger language plpgsql as
              $$ begin
                  if current_setting('oracle.daemon', true)::integer % 2 = 1 then
                      new.lease_until := new.lease_until - interval '3 s';
                  end if;
                  return new;
              end $$;
              create trigger local_clock before insert or update on es_replicas for each row
              execute function oracle.local_clock()",
        ..in_code("lease-by-local-clock")
    },
    in_database(
        "no-floors",
        &[("es_repartition(text, integer)", "split.floors, split.is_built", "null::jsonb, split.is_built")],
    ),
];

/// How a bug was seen, or that it was not.
struct Verdict {
    name: &'static str,
    seen: Option<String>,
    took: Duration,
}

#[test]
fn every_planted_bug_is_seen() {
    let seed = given("FOLDD_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let only = std::env::var("FOLDD_ONLY").ok().filter(|only| !only.is_empty());
    let chosen: Vec<&Mutant> =
        MUTANTS.iter().filter(|mutant| only.as_ref().is_none_or(|only| only == mutant.name)).collect();
    assert!(!chosen.is_empty(), "there is no mutant of that name");
    let none = in_code("none");
    // The scenes as well are quiet where nothing is planted.
    let quiet =
        [Scene::OneStamp, Scene::EarlierLife].map(|scene| Mutant { scene: Some(scene), ..in_code("none") });
    let mut verdicts = Vec::new();
    for mutant in chosen.into_iter().chain(&quiet).chain([&none]) {
        // A runtime of its own: with it everything of this run ends, whatever state it is in.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let begun = Instant::now();
        let seen = runtime.block_on(seen(mutant, seed));
        runtime.shutdown_timeout(Duration::from_secs(5));
        println!(
            "{:36} {:4.0} s  {}",
            mutant.name,
            begun.elapsed().as_secs_f64(),
            seen.as_deref().unwrap_or("not seen")
        );
        verdicts.push(Verdict { name: mutant.name, seen, took: begun.elapsed() });
    }
    println!("\nseed {seed}\n| planted bug | seen by | after |\n|---|---|---:|");
    for Verdict { name, seen, took } in &verdicts {
        println!("| {name} | {} | {:.0} s |", seen.as_deref().unwrap_or("-"), took.as_secs_f64());
    }
    let survivors: Vec<&str> =
        verdicts.iter().filter(|it| it.name != "none" && it.seen.is_none()).map(|it| it.name).collect();
    assert_eq!(survivors, Vec::<&str>::new(), "planted bugs that nobody saw");
    let without: Vec<&String> =
        verdicts.iter().filter(|it| it.name == "none").filter_map(|it| it.seen.as_ref()).collect();
    assert_eq!(without, Vec::<&String>::new(), "without a bug nothing is seen");
}

/// One run with a bug: the first thing that is wrong.
async fn seen(mutant: &Mutant, seed: u64) -> Option<String> {
    let mut world = world().await;
    // The store is migrated already; the daemons find it as it is left here.
    for (function, from, to) in mutant.edits {
        let source: String = sqlx::query_scalar(AssertSqlSafe(format!(
            "select pg_get_functiondef('{function}'::regprocedure)"
        )))
        .fetch_one(world.pool())
        .await
        .expect("there is such a function");
        assert!(source.contains(from), "{}: {function} has no {from:?} in it:\n{source}", mutant.name);
        world.execute(&source.replace(from, to)).await;
    }
    if !mutant.sql.is_empty() {
        world.execute(mutant.sql).await;
    }
    match mutant.scene {
        Some(Scene::OneStamp) => return one_stamp(&world).await,
        Some(Scene::EarlierLife) => return earlier_life(&mut world).await,
        None => {}
    }
    let stage = Stage::set(world, Some(mutant.name)).await;
    let appenders = Appenders::start(&stage, seed);
    let mut playing = tokio::spawn({
        let stage = Arc::clone(&stage);
        let plan = schedule(seed, LENGTH).into_iter().filter(|entry| (mutant.lanes)(entry.lane)).collect();
        async move { stage.play(plan).await }
    });
    loop {
        tokio::select! {
            _ = &mut playing => break,
            () = sleep(Duration::from_millis(500)) => {}
        }
        if let Some(mut session) = stage.session().await
            && let Ok(Some(harm)) = oracle::already(&mut session).await
        {
            return Some(harm);
        }
    }
    let mut accounts = Accounts::default();
    for (_, told) in appenders.stop().await {
        accounts = accounts.merge(told);
    }
    let left = unrest(&stage).await;
    let mut session = stage.session().await.expect("the server is there");
    oracle::harm(&mut session, &accounts)
        .await
        .into_iter()
        .next()
        .or_else(|| left.first().map(|left| format!("{left}, {} s after the last fault", CALM.as_secs())))
}

/// One transaction has its id, another takes the next one, and the floor is raised to that: both stamp alike. The one that
/// has drawn the later position commits first. Whoever reads it now has passed the other.
async fn one_stamp(world: &World) -> Option<String> {
    const APPEND: &str =
        "select es_append($1, 'account', null, array['Deposited'], array['{\"cents\": 1}'::jsonb])";
    let mut older = world.pool().begin().await.expect("it answers");
    sqlx::query("select pg_current_xact_id()").execute(&mut *older).await.expect("it answers");
    let mut newer = world.pool().begin().await.expect("it answers");
    let stamp: String = sqlx::query_scalar("select es_counted(pg_current_xact_id())::text")
        .fetch_one(&mut *newer)
        .await
        .expect("it answers");
    world.execute(&format!("select es_raise_stamp_floor('{stamp}'::xid8)")).await;
    sqlx::query(APPEND).bind("account-newer").execute(&mut *newer).await.expect("it appends");
    sqlx::query(APPEND).bind("account-older").execute(&mut *older).await.expect("it appends");
    older.commit().await.expect("it commits");
    let page = |after: (String, i64)| async move {
        sqlx::query_as::<_, (String, i64)>(
            "select transaction_id::text, global_position
             from es_read_category_after('account', $1::xid8, $2, 10, es_proven_horizon())",
        )
        .bind(after.0)
        .bind(after.1)
        .fetch_all(world.pool())
        .await
        .expect("it reads")
    };
    let first = page(("0".to_owned(), 0)).await;
    newer.commit().await.expect("it commits");
    let rest = page(first.last().cloned().unwrap_or(("0".to_owned(), 0))).await;
    let read = first.len() + rest.len();
    (read != 2).then(|| format!("{} lost: another with its stamp was read before", 2 - read))
}

/// A daemon has seen a horizon, the server crashes and begins to count anew, and the batch comes late.
async fn earlier_life(world: &mut World) -> Option<String> {
    world
        .execute(
            "select es_begin_incarnation(); insert into es_subscriptions (subscription_id) values ('late@1')",
        )
        .await;
    let before = world.value("select es_current_incarnation()").await;
    let enter = format!(
        "select foldd.es_enter('late@1', (select fence_token from es_subscriptions where subscription_id = 'late@1'), \
         '{before}', 'oracle'::regnamespace, '{{}}', null)"
    );
    if let Err(error) = world.try_value(&enter).await {
        return Some(format!("refused in its own life: {error}"));
    }
    world.server().crash().await.expect("the server can be crashed");
    world.server().restart().await.expect("the server starts again");
    world.execute("select es_begin_incarnation()").await;
    world
        .try_value(&enter)
        .await
        .is_ok()
        .then(|| "a horizon of the server's earlier life was accepted".to_owned())
}
