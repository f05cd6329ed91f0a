//! Credentials: taken from a file that may change, and never repeated to anybody.

use std::path::{Path, PathBuf};

use super::{AUDIT, Load, audit_is_exact, moves_on};
use crate::examples::example;
use crate::fold::TALLY;
use crate::world::{Daemon, World};

const FIRST: &str = "first-canary-of-the-database";
const SECOND: &str = "second-canary-of-the-database";
const TOKEN: &str = "canary-token-of-the-verbs";
/// What an event says.
const PAYLOAD: &str = "canary-of-a-payload";

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

/// Ways in which a statement repeats an event when it fails: a name, its table, and what it does with `mail`.
const INDISCREET: [(&str, &str, &str); 5] = [
    ("cast", "mail bigint", "(event.data->>'mail')::bigint"),
    ("repeated", "mail text unique", "event.data->>'mail'"),
    ("refused", "mail text check (length(mail) < 3)", "event.data->>'mail'"),
    ("raised", "mail text", "refuse(event.data->>'mail')"),
    ("late", "mail text", "event.data->>'mail'"),
];

fn indiscreet(world: &World, on_error: &str) {
    for (name, column, value) in INDISCREET {
        let function = "create function refuse(mail text) returns text language plpgsql as $$ begin
            raise exception '% is refused', mail using hint = mail, detail = mail; end $$;";
        world.projection(
            name,
            &format!(
                "/* foldd\nversion = 1\ncategories = [\"person\"]\non_error = \"{on_error}\"\n*/\n-- @tables\n\
                 create table t ({column});\n{function}\n-- @on Joined\ninsert into t values ({value});\n"
            ),
        );
    }
}

/// Nothing that goes elsewhere than to whoever may read the database has a word of an event.
async fn is_discreet(daemon: &Daemon) {
    for path in ["/metrics", "/livez", "/readyz"] {
        let (_, text) = daemon.get(path).await;
        assert!(!text.contains("canary"), "{path}: {text}");
    }
    let log = daemon.log();
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn no_word_of_an_event_is_logged_whatever_a_statement_says_of_it() {
    for (on_error, phase) in [("halt", "halted"), ("quarantine_stream", "live")] {
        let world = World::new().await;
        indiscreet(&world, on_error);
        let daemon = world.daemon_with(&[("FOLDD__LOG__LEVEL", "debug")]);
        for (name, ..) in INDISCREET {
            world.caught_up(name).await;
        }
        // It speaks up at the commit, when the handler is done.
        world
            .execute("create function late.say() returns trigger language plpgsql as $$ begin
                    raise exception 'it was %', new.mail; end $$;
                 create constraint trigger late after insert on late.t deferrable initially deferred for each row execute function late.say()")
            .await;
        let data = format!("{{\"mail\": \"{PAYLOAD}\"}}");
        for _ in 0..2 {
            world.append("person-1", "Joined", &data).await;
        }
        for (name, ..) in INDISCREET {
            world
                .eventually(&format!("{name} fails"), async || {
                    let status = world.status(name).await;
                    status["phase"] == phase && (status["dead_letters"] != 0 || !status["error"].is_null())
                })
                .await;
        }
        // Who may look into the database is told in full.
        let shown =
            world.foldd(&["status"]).await.out + &world.foldd(&["dead-letters", "list", "--json"]).await.out;
        assert!(shown.matches(PAYLOAD).count() >= INDISCREET.len(), "{shown}");
        if on_error != "halt" {
            world.foldd(&["dead-letters", "retry", "raised", "--all", "--timeout", "10s"]).await;
            daemon.says("the retry failed again").await;
        }
        for condition in
            ["invalid text representation (22P02)", "unique violation (23505)", "raise exception (P0001)"]
        {
            assert!(daemon.log().contains(condition), "{condition}: {}", daemon.log());
        }
        is_discreet(&daemon).await;
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}

#[tokio::test]
async fn no_word_of_an_event_is_logged_when_a_handler_in_rust_fails_or_panics() {
    let mistaken = format!("{{\"type\": \"Deposited\", \"cents\": \"{PAYLOAD}\"}}");
    let greatest = format!("{{\"type\": \"Withdrawn\", \"cents\": {}}}", i64::MIN);
    for (kind, data, says) in [
        ("Deposited", mistaken, "the handler returned an error or panicked"),
        ("Withdrawn", greatest, "panicked at examples/own_daemon.rs"),
    ] {
        let world = World::new().await;
        world.append("account-1", kind, &data).await;
        let mut command = world.command_of(&example("own_daemon"), &["run"]);
        command.env("FOLDD__LOG__LEVEL", "debug");
        let daemon = world.daemon_of(command);
        world.halted("balances").await;
        daemon.says(says).await;
        is_discreet(&daemon).await;
        assert!(!daemon.log().contains(&i64::MIN.to_string()), "{}", daemon.log());
        assert_eq!(daemon.stop().await.code(), Some(0));
    }
}
