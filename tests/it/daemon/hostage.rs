//! Nobody's hostage: what an open transaction does to the readers, and who is named for it.

use serde_json::Value;

use crate::fold::TALLY;
use crate::log::{run, session};
use crate::world::{Daemon, World};

async fn status(world: &World) -> Value {
    serde_json::from_str(&world.foldd(&["status", "--json"]).await.out).unwrap_or_default()
}

/// The one that readers wait for, once it is known.
async fn holder(world: &World) -> Value {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = status(world).await;
        let holders = last["store"]["blockers"].as_array().cloned().unwrap_or_default();
        if let Some(holder) = holders.iter().find(|blocker| blocker["holds"] == true) {
            return holder.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("nobody is named: {last}");
}

async fn counted(daemon: &Daemon, line: &str) -> bool {
    daemon.get("/metrics").await.1.lines().any(|metric| metric == line)
}

#[tokio::test]
async fn a_transaction_that_has_not_appended_holds_up_nobody() {
    let mut world = World::alone().await;
    world.server().create_database("elsewhere").await.expect("a database can be made");
    let elsewhere = crate::world::pool(&world.server().url("elsewhere")).await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.seed("order", 10).await;
    world.caught_up("tally").await;

    let mut abroad = elsewhere.acquire().await.expect("a connection");
    run(&mut abroad, "begin; create table mine (n int)").await;
    let (mut here, pid) = session(&world).await;
    run(&mut here, "set application_name = 'night job'; begin; create table other (n int)").await;
    let (mut prepared, _) = session(&world).await;
    run(&mut prepared, "begin; select pg_current_xact_id(); prepare transaction 'forgotten'").await;
    for _ in 0..5 {
        world.seed("order", 10).await;
        // They are all still open.
        world.caught_up("tally").await;
    }
    assert_eq!(world.value("select sum(n) from tally.tally").await, "60");
    world
        .eventually("the bystanders are listed, and hold nothing", async || {
            let status = status(&world).await;
            let listed = status["store"]["blockers"].as_array().cloned().unwrap_or_default();
            listed.len() == 3 && listed.iter().all(|blocker| blocker["holds"] == false)
        })
        .await;
    let status = status(&world).await;
    assert_eq!((&status["store"]["tier"], &status["store"]["horizon_age_seconds"]), (&1.into(), &0.0.into()));
    let named =
        status["store"]["blockers"].as_array().and_then(|all| all.iter().find(|one| one["pid"] == pid));
    let named = named.unwrap_or_else(|| panic!("{status}"));
    assert_eq!(
        (&named["cause"], &named["application"]),
        (&"bystander".into(), &"night job".into()),
        "{named}"
    );
    assert!(counted(&daemon, "foldd_horizon_tier 1").await);
    assert!(!daemon.log().contains("committed events wait for"), "{}", daemon.log());
    run(&mut here, "rollback").await;
    run(&mut abroad, "rollback").await;
    world.execute("rollback prepared 'forgotten'").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn who_has_appended_and_does_not_end_is_named_everywhere() {
    let world = World::alone().await;
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    world.seed("order", 10).await;
    world.caught_up("tally").await;

    let (mut slow, pid) = session(&world).await;
    run(&mut slow, "set application_name = 'checkout'").await;
    run(&mut slow, "begin; select es_append('order-slow', null, null, '{Noted}', array['{}']::jsonb[])")
        .await;
    world.seed("order", 7).await;
    let named = holder(&world).await;
    assert_eq!((&named["pid"], &named["cause"]), (&pid.into(), &"appender".into()), "{named}");
    assert_eq!((&named["application"], &named["state"]), (&"checkout".into(), &"idle in transaction".into()));
    daemon.says(&format!("committed events wait for pid {pid} (appender")).await;
    world
        .eventually("the metrics count it", async || {
            counted(&daemon, "foldd_horizon_blockers{cause=\"appender\"} 1").await
        })
        .await;
    let tally = world.status("tally").await;
    assert_eq!((&tally["withheld_events"], &tally["lag_events"]), (&7.into(), &0.into()), "apart from lag");
    let doctor = world.foldd(&["doctor"]).await;
    assert!(doctor.code == 0 && doctor.out.contains(&format!("pid {pid}")), "{doctor:?}");
    run(&mut slow, "prepare transaction 'checkout-7'").await;
    world
        .eventually("prepared, it is named by its gid", async || holder(&world).await["gid"] == "checkout-7")
        .await;
    assert_eq!(holder(&world).await["cause"], "prepared");
    world.execute("commit prepared 'checkout-7'").await;
    world.caught_up("tally").await;
    assert_eq!(world.value("select sum(n) from tally.tally").await, "18");
    world
        .eventually("the metrics forget it", async || {
            counted(&daemon, "foldd_horizon_blockers{cause=\"prepared\"} 0").await
        })
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_role_that_may_not_raise_the_floor_stays_at_tier_0_and_says_so_once() {
    let world = World::alone().await;
    world.execute("create role humble login; grant pg_read_all_data, pg_write_all_data to humble").await;
    world.execute("grant create on database postgres to humble; grant usage, create on schema foldd, foldd_parking, public to humble").await;
    let database = world.value("select current_database()").await;
    world.execute(&format!("grant create on database \"{database}\" to humble")).await;
    world.projection("tally", TALLY);
    world.configure("[daemon]\nmigrate = \"verify\"");
    let url = world.url().replace("postgres://postgres@", "postgres://humble@");
    let mut command = world.command(&["run"]);
    command.env("DATABASE_URL", &url);
    let daemon = world.daemon_of(command);
    world.seed("order", 10).await;
    world.caught_up("tally").await;
    daemon.says("role humble may not execute es_raise_stamp_floor").await;
    assert_eq!(daemon.log().matches("tier 0").count(), 1, "{}", daemon.log());
    world.eventually("the metrics say it", async || counted(&daemon, "foldd_horizon_tier 0").await).await;
    // Somebody who did not append holds it now, and is named.
    let (mut here, pid) = session(&world).await;
    run(&mut here, "begin; select pg_current_xact_id()").await;
    world.seed("order", 5).await;
    daemon.says(&format!("committed events wait for pid {pid} (bystander")).await;
    run(&mut here, "rollback").await;
    world.caught_up("tally").await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_long_batch_of_one_projection_holds_up_no_other() {
    let world = World::alone().await;
    let slow = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\ncreate table t (n bigint);\n\
        -- @batch\ninsert into t select count(*) from batch;\n-- @batch\ninsert into t select 0 from pg_sleep(600);\n";
    world.projection("slow", slow);
    world.projection("tally", TALLY);
    let daemon = world.daemon_with(&[("FOLDD__DAEMON__BATCH_TIMEOUT", "1h")]);
    world.seed("order", 10).await;
    let asleep = "select exists (select from pg_stat_activity
        where wait_event = 'PgSleep' and backend_xid is not null and application_name like 'foldd worker%')";
    world.eventually("the batch sleeps, with an xid", async || world.value(asleep).await == "true").await;
    let sworn = "select count(*) from pg_locks l join pg_stat_activity a using (pid)
        where a.wait_event = 'PgSleep' and es_is_oath(l.locktype, l.database, l.classid, l.objid, l.objsubid, l.mode, a.datid)";
    assert_eq!(world.value(sworn).await, "1", "it has sworn, so that nobody raises the floor for it");
    for _ in 0..3 {
        world.seed("order", 10).await;
        world.caught_up("tally").await;
    }
    assert_eq!(world.value("select sum(n) from tally.tally").await, "40");
    assert_eq!(world.value(asleep).await, "true", "it never ended meanwhile");
    daemon.kill();
}
