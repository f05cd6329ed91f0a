//! Several builds at once: how many may run, how far they are, and what operators do with one of them.

use serde_json::Value;

use crate::world::{Daemon, World};

const COUNT: &str = "\
/* foldd
version = {version}
categories = [\"order\"]
{settings}
extension_schemas = [\"gate\"]
*/
-- @tables
create table whole (only_row int primary key, n bigint not null);
-- @batch
insert into whole select 1, count(*) * {version} from batch where pass() having count(*) > 0
on conflict (only_row) do update set n = whole.n + excluded.n;
";

const NAMES: [&str; 3] = ["ants", "bees", "cats"];

/// Builds wait here for a lock that a test holds.
const GATE: &str = "\
create schema gate; grant usage on schema gate to public;
create function gate.pass() returns boolean language plpgsql as $$
begin
    if current_schema() like '%\\_\\_v%' then
        perform pg_advisory_xact_lock_shared(77);
    end if;
    return true;
end $$";

const AT_GATE: &str =
    "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted";

/// Writes a version of all three, of which the first may be slowed down.
fn write(world: &World, version: u32, ants: &str) {
    for name in NAMES {
        let settings = if name == "ants" { ants } else { "" };
        let text = COUNT.replace("{version}", &version.to_string()).replace("{settings}", settings);
        world.projection(name, &text);
    }
}

/// The status of a version, as the daemon's API has it.
async fn build(daemon: &Daemon, name: &str) -> Value {
    let status = daemon.read("/api/status").await;
    let all = status["projections"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["name"] == name && one["version"] == 2).unwrap_or_default()
}

/// One value of what is exported.
async fn exported(daemon: &Daemon, metric: &str, name: &str) -> Option<f64> {
    let (_, text) = daemon.get("/metrics").await;
    let of = |line: &&str| {
        line.starts_with(&format!("{metric}{{"))
            && line.contains(&format!("projection=\"{name}\""))
            && line.contains("version=\"2\"")
    };
    text.lines().find(of)?.rsplit(' ').next()?.parse().ok()
}

async fn whole(world: &World, name: &str, n: i64) {
    let sql = format!("select n from {name}.whole");
    world
        .eventually(&format!("{name} has {n}"), async || {
            world.try_value(&sql).await.is_ok_and(|found| found == n.to_string())
        })
        .await;
}

async fn ok(world: &World, args: &[&str]) {
    let done = world.foldd(args).await;
    assert_eq!(done.code, 0, "{args:?}: {done:?}");
}

/// Three versions that are live with so many events each, of a daemon that has ended.
async fn three_live(events: i64) -> World {
    let world = World::alone().await;
    world.configure("[daemon]\nworkers = 4\nmax_page_events = 20\n");
    world.execute(GATE).await;
    write(&world, 1, "");
    world.seed("order", events).await;
    let daemon = world.daemon();
    for name in NAMES {
        whole(&world, name, events).await;
        world.phase(name, "live").await;
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
    world
}

#[tokio::test]
async fn three_builds_have_half_of_the_workers_and_live_work_goes_on() {
    let world = three_live(200).await;
    let mut gate = world.pool().acquire().await.expect("a connection");
    sqlx::query("select pg_advisory_lock(77)").execute(&mut *gate).await.expect("it is free");
    write(&world, 2, "events_per_second = 5");
    let daemon = world.daemon();
    world.eventually("two builds are in a batch", async || world.value(AT_GATE).await == "2").await;
    // Live versions have their turns meanwhile, and the third build none.
    world.append("order-1", "Placed", "{}").await;
    for name in NAMES {
        whole(&world, name, 201).await;
    }
    assert_eq!(world.value(AT_GATE).await, "2", "two of four workers");
    sqlx::query("select pg_advisory_unlock(77)").execute(&mut *gate).await.expect("it was held");
    drop(gate);

    // One stands still, one is given up, one goes on; none of it concerns the others.
    ok(&world, &["cancel", "bees", "--timeout", "30s"]).await;
    assert!(build(&daemon, "bees").await["build"].is_null());
    let (ratio, eta) = ("foldd_build_progress_ratio", "foldd_build_eta_seconds");
    world
        .eventually("it is known when the slow one is done", async || {
            exported(&daemon, eta, "ants").await.is_some_and(f64::is_finite)
        })
        .await;
    ok(&world, &["pause", "ants@2", "--timeout", "30s"]).await;
    whole(&world, "cats", 402).await;
    world.eventually("it stands still", async || build(&daemon, "ants").await["phase"] == "paused").await;
    let paused = build(&daemon, "ants").await;
    assert_eq!(paused["role"], "building", "{paused}");
    let stands = paused["build"]["done"].as_i64().expect("it has been counted");
    assert!((1..201).contains(&stands), "{paused}");
    assert_eq!(paused["build"]["total"], 201, "{paused}");
    let is_exported = async |daemon: &Daemon| {
        exported(daemon, ratio, "ants").await.is_some_and(|it| (it - stands as f64 / 201.0).abs() < 1e-6)
    };
    world.eventually("so it is exported", async || is_exported(&daemon).await).await;

    // A build that takes long says so in the log, also while it stands still.
    daemon.says("\"building\"").await;
    let log = daemon.log();
    let line = log.lines().rfind(|line| line.contains("\"message\":\"building\"")).expect("it is there");
    let line: Value = serde_json::from_str(line).expect("the log is JSON");
    assert_eq!(line["subscription"], "ants@2", "{line}");
    assert_eq!((line["done"].as_i64(), line["left"].as_i64()), (Some(stands), Some(201 - stands)), "{line}");

    // How far it is survives the daemon, and a limit is lifted by the next one.
    daemon.stop().await;
    write(&world, 2, "");
    let daemon = world.daemon();
    world.eventually("the next one knows", async || is_exported(&daemon).await).await;
    ok(&world, &["resume", "ants@2"]).await;
    whole(&world, "ants", 402).await;
    assert_eq!(world.value("select n from bees.whole").await, "201", "what was given up is not begun again");
    assert_eq!(daemon.stop().await.code(), Some(0));
}
