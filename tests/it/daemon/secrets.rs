//! Credentials: taken from a file that may change, and never repeated to anybody.

use std::path::{Path, PathBuf};

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::fold::TALLY;
use crate::world::World;

const FIRST: &str = "first-canary-of-the-database";
const SECOND: &str = "second-canary-of-the-database";
const TOKEN: &str = "canary-token-of-the-verbs";

/// A server that asks the role `rotated` for its password, and the file that tells the daemon which one.
async fn with_a_password() -> (World, PathBuf) {
    let world = World::alone().await;
    let rules = world.value("select current_setting('hba_file')").await;
    let trusting = std::fs::read_to_string(&rules).expect("the rules can be read");
    std::fs::write(&rules, format!("local all rotated scram-sha-256\n{trusting}"))
        .expect("the rules can be written");
    world.execute(&format!("create role rotated superuser login password '{FIRST}'")).await;
    world.execute("select pg_reload_conf()").await;
    let address = world.dir().join("address");
    tell(&world, &address, FIRST);
    (world, address)
}

/// Replaces the file at one stroke, as a mounted Secret is.
fn tell(world: &World, address: &Path, password: &str) {
    let url = world.url().replacen("postgres://postgres@", &format!("postgres://rotated:{password}@"), 1);
    let draft = address.with_extension("new");
    std::fs::write(&draft, url).expect("a file can be written");
    std::fs::rename(&draft, address).expect("it can be put in place");
}

async fn end_its_sessions(world: &World) {
    world.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rotated'").await;
}

#[tokio::test]
async fn a_rotated_password_is_taken_up_without_a_restart() {
    let (world, address) = with_a_password().await;
    world.projection("audit", AUDIT);
    let mut command = world.command(&["run"]);
    command.env_remove("DATABASE_URL").env("FOLDD__DATABASE__URL_FILE", &address);
    let load = Load::start(&world);
    let daemon = world.daemon_of(command);
    moves_on(&world, 20).await;

    // The database first, and the file a while later: meanwhile it waits, and neither ends nor repeats the password.
    world.execute(&format!("alter role rotated password '{SECOND}'")).await;
    end_its_sessions(&world).await;
    daemon.says("password authentication failed").await;
    world.eventually("it is not ready", async || daemon.get("/readyz").await.0 == 503).await;
    tell(&world, &address, SECOND);
    moves_on(&world, 20).await;
    world.eventually("it is ready", async || daemon.get("/readyz").await.0 == 200).await;

    load.stop().await;
    audit_is_exact(&world).await;
    let log = daemon.log();
    assert!(!log.contains(FIRST) && !log.contains(SECOND), "{log}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn no_secret_is_in_logs_metrics_status_page_or_errors() {
    let (world, address) = with_a_password().await;
    world.projection("tally", TALLY);
    world.projection("wrong", &TALLY.replace("count(*)", "count(*) / 0"));
    let url = std::fs::read_to_string(&address).expect("the file can be read");
    let mut command = world.command(&["run"]);
    command.env("DATABASE_URL", &url).env("FOLDD__OPS__TOKEN", TOKEN).env("FOLDD__LOG__LEVEL", "debug");
    world.seed("order", 50).await;
    let daemon = world.daemon_of(command);
    daemon.says("division by zero").await;
    world.caught_up("tally").await;
    end_its_sessions(&world).await;
    daemon.says("lost its connection").await;
    world.eventually("it is ready", async || daemon.get("/readyz").await.0 == 200).await;

    let mut told = Vec::new();
    for path in
        ["/", "/metrics", "/livez", "/readyz", "/api/status", "/api/config", "/api/log", "/api/openapi.json"]
    {
        told.push((path.to_owned(), daemon.get(path).await.1));
    }
    let nothing = serde_json::json!({});
    let wrong = daemon.post("/api/projections/tally/pause", "canary-of-somebody-else", &nothing).await;
    told.push(("a refused token".to_owned(), wrong.1.to_string()));
    // Every verb that connects, where it can and where nobody listens.
    let nowhere = format!("postgres://rotated:{FIRST}@127.0.0.1:1/nowhere");
    for url in [&url, &nowhere] {
        for args in
            [&["status"][..], &["config", "show"], &["config", "show", "--json"], &["check"], &["doctor"]]
        {
            let mut command = world.command(args);
            command.env("DATABASE_URL", url).env("FOLDD__OPS__TOKEN", TOKEN);
            let done = tokio::task::spawn_blocking(move || command.output())
                .await
                .expect("its thread ends")
                .expect("it can be started");
            told.push((
                format!("{args:?}"),
                String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr),
            ));
        }
    }
    told.push(("the log".to_owned(), daemon.log()));
    for (place, text) in told {
        assert!(!text.is_empty(), "{place} says nothing");
        assert!(!text.contains("canary"), "{place}: {text}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}
