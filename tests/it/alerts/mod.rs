//! What operators are woken by: a real Prometheus scrapes real daemons that are in every trouble there is an alert for,
//! beside projections that are well, and exactly what should fire does.

mod prometheus;

use std::collections::BTreeSet;
use std::time::Duration;

use prometheus::{Prometheus, shipped};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::fold::TALLY;
use crate::world::{Daemon, World};

/// Divides by what an event says.
const SHARES: &str = "/* foldd\nversion = 1\ncategories = [\"share\"]\n{settings}\n*/\n-- @tables\n\
    create table shares (position bigint primary key, share bigint not null);\n\
    -- @on Placed\ninsert into shares values (event.global_position, 100 / (event.data->>'parts')::bigint);\n";

/// How many events the builds have to fold, at a pace that takes them longer than any alert waits.
const BULK: i64 = 3_000;

const OWNERLESS: &str = "FolddNoLeaseHolder";

/// All that goes wrong at once, and what is told of it.
const TROUBLES: [&str; 7] = [
    OWNERLESS,
    "FolddDeadLetters parked@1",
    "FolddLagGrowing stuck@1",
    "FolddLagOverObjective stuck@1",
    "FolddProjectionHalted halting@1",
    "FolddProjectionStuck stuck@1",
    "FolddRebuildStalled stalled@1.2",
];

fn set(alerts: &[&str]) -> BTreeSet<String> {
    alerts.iter().map(|alert| (*alert).to_owned()).collect()
}

/// Six projections that will be in trouble or be built anew, and two that are well.
async fn furnished(world: &World) {
    world.projection("well", TALLY);
    world.projection("split", &TALLY.replace("version = 1", "version = 1\npartitions = 3"));
    world.projection("stuck", TALLY);
    world.projection("orphan", TALLY);
    world.projection("halting", &SHARES.replace("{settings}", ""));
    world.projection("parked", &SHARES.replace("{settings}", "on_error = \"quarantine_stream\""));
    for (name, pace) in [("rebuilt", 150), ("stalled", 50)] {
        let settings = format!("version = 1\nevents_per_second = {pace}");
        let text = TALLY.replace("\"order\"", "\"bulk\"").replace("version = 1", &settings);
        world.projection(name, &text);
    }
    world.append("share-1", "Placed", r#"{"parts": 4}"#).await;
    world.seed("order", 200).await;
}

fn daemon(world: &World) -> Daemon {
    world.daemon_with(&[
        ("FOLDD__DAEMON__LEASE", "3s"),
        ("FOLDD__DAEMON__CATCH_UP_BATCH", "500ms"),
        ("FOLDD__DAEMON__BATCH_TIMEOUT", "4s"),
    ])
}

/// Waits until exactly this fires, while a little comes in all the time, as everywhere.
async fn fires(world: &World, prometheus: &Prometheus<'_>, wanted: &BTreeSet<String>) {
    let mut firing = BTreeSet::new();
    for _ in 0..400 {
        firing = prometheus.firing().await;
        if firing == *wanted {
            return;
        }
        world.seed("order", 5).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never was exactly {wanted:?}, but {firing:?}");
}

/// Each subscription's lag is exported by the replica that holds it, and by no other.
async fn holders_export(world: &World, prometheus: &Prometheus<'_>) {
    let mut said = String::new();
    for _ in 0..200 {
        let held = "select string_agg(subscription_id, ' ' order by subscription_id) from es_subscriptions
                    where holder is not null";
        let held = world.value(held).await;
        let exported = prometheus
            .subscriptions(
                "foldd_lag_events and on (instance, projection, version, partition) (foldd_lease_held == 1)",
            )
            .await;
        let strangers = prometheus.subscriptions("foldd_lag_events unless on (instance, projection, version, partition) (foldd_lease_held == 1)").await;
        if exported == held && strangers.is_empty() {
            return;
        }
        said = format!("held {held}\nexported {exported}\nby others {strangers}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("they never agreed:\n{said}");
}

/// No rule is refused, or meets series that it cannot work with.
async fn every_rule_evaluates(prometheus: &Prometheus<'_>) {
    let rules = prometheus.rules().await;
    assert_eq!(rules.len(), shipped("rules/rules.yaml").matches("expr:").count());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

/// Evaluates what every panel of the dashboard draws: what has nothing to draw just now.
async fn empty_panels(prometheus: &Prometheus<'_>) -> BTreeSet<String> {
    let dashboard: Value =
        serde_json::from_str(&shipped("dashboard/foldd.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets: Vec<&Value> =
        panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten()).collect();
    assert!(targets.len() > 25, "{}", targets.len());
    let mut empty = BTreeSet::new();
    for target in targets {
        let mut expression = target["expr"].as_str().expect("it has an expression").to_owned();
        for (variable, value) in
            [("$namespace", ".*"), ("$job", ".*"), ("$projection", ".*"), ("$__rate_interval", "10s")]
        {
            expression = expression.replace(variable, value);
        }
        assert!(!expression.contains('$'), "{expression}");
        if prometheus.query(&expression).await.is_empty() {
            empty.insert(expression);
        }
    }
    empty
}

/// Locks tables, and so holds up whoever writes to them, until the connection is closed.
async fn lock(world: &World, tables: &str) -> PgConnection {
    let mut holder = PgConnection::connect(world.url()).await.expect("the database answers");
    let sql = format!("begin; lock table {tables} in access exclusive mode");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut holder).await.expect("the tables can be locked");
    holder
}

/// Two builds begin, of which one is stalled; a live projection is stuck, one halts, one parks an event.
async fn make_trouble(world: &World) -> PgConnection {
    world.seed("bulk", BULK).await;
    world.caught_up("rebuilt").await;
    world.caught_up("stalled").await;
    for name in ["rebuilt", "stalled"] {
        let done = world.foldd(&["rebuild", name, "--timeout", "30s"]).await;
        assert_eq!(done.code, 0, "{done:?}");
    }
    world
        .eventually("the build has tables", async || {
            world.value("select to_regclass('stalled__v1_2.tally') is not null").await == "true"
        })
        .await;
    let held = lock(world, "stuck.tally, stalled__v1_2.tally").await;
    world.append("share-2", "Placed", r#"{"parts": 0}"#).await;
    world.seed("order", 1_100).await;
    held
}

/// What an operator does about those that are not mended by themselves.
async fn mend(world: &World) {
    world.append("share-3", "Placed", r#"{"parts": 5}"#).await;
    for args in [
        &["pause", "halting"][..],
        &["cancel", "stalled@1.2"],
        &["dead-letters", "discard", "parked", "--all"],
    ] {
        let done = world.foldd(args).await;
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
    }
}

#[tokio::test]
async fn a_real_prometheus_fires_exactly_the_alerts_that_are_due() {
    let world = World::alone().await;
    furnished(&world).await;
    let leaving = daemon(&world);
    for name in ["well", "split", "stuck", "orphan", "halting", "parked", "rebuilt", "stalled"] {
        world.caught_up(name).await;
    }
    let Some(prometheus) = Prometheus::start(&world).await else { return };
    let orphan = world.dir().join("projections/orphan.sql");
    std::fs::remove_file(&orphan).expect("it is there");
    let (one, two) = (daemon(&world), daemon(&world));
    prometheus.scrape(&[&leaving, &one, &two]).await;
    holders_export(&world, &prometheus).await;

    // A replica is drained, which is no trouble, and nobody else has one of its projections, which is.
    world.seed("order", 50).await;
    assert_eq!(leaving.stop().await.code(), Some(0));
    prometheus.scrape(&[&one, &two]).await;
    fires(&world, &prometheus, &set(&[OWNERLESS])).await;
    holders_export(&world, &prometheus).await;

    let held = make_trouble(&world).await;
    let mut never_drawn = BTreeSet::new();
    world
        .eventually("the builds are drawn", async || {
            never_drawn = empty_panels(&prometheus).await;
            !never_drawn.iter().any(|expression| expression.contains("foldd_build_"))
        })
        .await;
    fires(&world, &prometheus, &set(&TROUBLES)).await;
    let empty = empty_panels(&prometheus).await;
    never_drawn.retain(|expression| empty.contains(expression));
    assert!(never_drawn.is_empty(), "nothing is ever drawn by {never_drawn:#?}");
    every_rule_evaluates(&prometheus).await;

    // All is mended; the build that nobody held up takes over.
    held.close().await.expect("the connection closes");
    mend(&world).await;
    world.projection("orphan", TALLY);
    let three = daemon(&world);
    prometheus.scrape(&[&one, &two, &three]).await;
    fires(&world, &prometheus, &set(&[])).await;
    holders_export(&world, &prometheus).await;
    world
        .eventually("the build has taken over", async || {
            world.value("select role from es_projections where projection_id = 'rebuilt@1.2'").await == "live"
        })
        .await;

    // Somebody appends and does not end: that is told, and nothing that waits behind him.
    let mut appender = world.pool().begin().await.expect("a transaction begins");
    sqlx::query("select es_append('order-1', null, null, array['Placed'], array['{}']::jsonb[])")
        .execute(&mut *appender)
        .await
        .expect("it appends");
    fires(&world, &prometheus, &set(&["FolddHorizonStale"])).await;
    appender.rollback().await.expect("it ends");
    fires(&world, &prometheus, &set(&[])).await;

    for daemon in [one, two, three] {
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
    fires(&world, &prometheus, &set(&["FolddAbsent"])).await;
    let mut ever = set(&TROUBLES);
    ever.extend(set(&["FolddHorizonStale", "FolddAbsent"]));
    assert_eq!(prometheus.fired().await, ever, "what has fired at any time");
}
