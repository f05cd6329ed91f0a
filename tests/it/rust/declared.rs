//! Rust projections as they are declared, in code and in the configuration, and the types that events are
//! decoded into.

use foldd::{EventData, Handler, HandlerError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::examples::example;
use crate::world::{Daemon, World};

/// Foreign events, without a tag: what they are is their type's name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Foreign {
    Paid { amount: f64 },
    Whatever(Box<RawValue>),
}

impl<'de> Deserialize<'de> for Foreign {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("the data alone does not say what it is"))
    }
}

impl EventData for Foreign {
    fn event_type(&self) -> &'static str {
        if matches!(self, Self::Paid { .. }) { "Paid" } else { "Whatever" }
    }

    fn decode(event_type: &str, data: &RawValue) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Paid {
            amount: f64,
        }
        match event_type {
            "Paid" => serde_json::from_str(data.get()).map(|Paid { amount }| Self::Paid { amount }),
            _ => Ok(Self::Whatever(data.to_owned())),
        }
    }
}

/// Writes down what it was given.
struct Scribe;

impl Handler for Scribe {
    type Event = Foreign;

    async fn apply(&self, tx: &mut PgConnection, events: &[Received<Foreign>]) -> Result<(), HandlerError> {
        for event in events {
            let (amount, data) = match &event.event {
                Foreign::Paid { amount } => (Some(*amount), None),
                Foreign::Whatever(data) => (None, Some(data.get())),
            };
            sqlx::query("insert into line values ($1, $2, $3, $4::jsonb)")
                .bind(event.recorded.global_position)
                .bind(&event.recorded.event_type)
                .bind(amount)
                .bind(data)
                .execute(&mut *tx)
                .await
                .map_err(|error| HandlerError::from(error).on(&event.recorded))?;
        }
        Ok(())
    }
}

const LINES: &str = "create table line (position bigint primary key, kind text, amount float8, data jsonb)";

#[tokio::test]
async fn events_of_every_shape_are_decoded_as_the_type_decides() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let huge = "-12345678901234567890123456789012345678.5";
    let given =
        [("Paid", "{\"amount\": 12.5, \"more\": 1}"), ("List", "[1, 2]"), ("Number", huge), ("Deep", &deep)];
    for (kind, data) in given {
        world.append("odd-1", kind, data).await;
    }
    let scribe = RustProjection::new("scribe", 1, Scribe).all_categories().tables(LINES);
    let cancel = CancellationToken::new();
    let daemon = foldd::Daemon::new(Registry::new().with(scribe));
    let task = tokio::spawn(daemon.run(world.pool().clone(), cancel.clone()));
    world.caught_up("scribe").await;
    assert_eq!(
        world.value("select kind || amount from scribe.line where amount is not null").await,
        "Paid12.5"
    );
    let exact = "select bool_and(line.data = e.data) || ' ' || count(*) from scribe.line
                 join es_events e on e.global_position = line.position where line.data is not null";
    assert_eq!(world.value(exact).await, "true 3", "what stays raw stays exact");
    // What does not fit the type halts on its event, and says what is wrong with it.
    world.append("odd-1", "Paid", "{\"amount\": 1e400}").await;
    let error = world.halted("scribe").await;
    assert_eq!(
        (&error["event"]["position"], &error["event"]["event_type"]),
        (&5.into(), &"Paid".into()),
        "{error}"
    );
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("cannot be decoded") && message.contains("number out of range"), "{error}");
    cancel.cancel();
    task.await.expect("it does not panic").expect("it ends in peace");
}

/// A daemon with a Rust handler for `balances`.
fn own_daemon(world: &World, verb: &str) -> Daemon {
    world.daemon_of(world.command_of(&example("own_daemon"), &[verb]))
}

#[tokio::test]
async fn the_configuration_says_which_tables_and_categories_a_rust_handler_has() {
    let world = World::new().await;
    world.configure(
        "[projections.balances]\nhandler = \"rust\"\ncategories = [\"purse\"]\ntables = \"\"\"\n\
         -- more than the code has\n\
         create table balance (account text primary key, cents bigint not null check (cents < 900),\n\
         noted timestamptz default now());\ncreate index on balance (cents);\"\"\"",
    );
    let deposited = |cents: i64| format!("{{\"type\": \"Deposited\", \"cents\": {cents}}}");
    world.append("account-1", "Deposited", &deposited(5)).await;
    world.append("purse-1", "Deposited", &deposited(700)).await;
    let daemon = own_daemon(&world, "run");
    world.caught_up("balances").await;
    assert_eq!(
        world.value("select string_agg(account || cents, ',') from balances.balance").await,
        "purse-1700"
    );
    assert_eq!(world.value("select count(*) from pg_indexes where schemaname = 'balances'").await, "2");
    world.append("purse-1", "Deposited", &deposited(700)).await;
    let error = world.halted("balances").await;
    assert_eq!(error["sqlstate"], "23514", "the constraint of the configured table is in force: {error}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

/// A section of the configuration, the exit code of `run`, and what it and `check` say.
const DECLARED_WRONG: [(&str, &str); 7] = [
    (
        "[projections.other]\nhandler = \"rust\"",
        "projections.other: handler = \"rust\", and this program has no handler of that name",
    ),
    (
        "[projections.balances]\nversion = 2",
        "balances: version 2 is configured, this program's handlers are of version 1",
    ),
    (
        "[projections.balances]\nhandler = \"rust\"\ntables = \"create table balance ();\\ncommit\"",
        "projections.balances.tables:2:1: `commit` does not belong under `@tables`",
    ),
    (
        "[projections.balances]\nhandler = \"rust\"\ntables = \"create table b ();\\n drop table b\"",
        "projections.balances.tables:2:2: `drop` does not belong under `@tables`",
    ),
    (
        "[projections.balances]\nhandler = \"rust\"\ntables = \"create table b (n int default 'x)\"",
        "projections.balances.tables:1:31: the text that begins here never ends",
    ),
    (
        "[projections.balances]\nhandler = \"go\"",
        "foldd.toml:5:11: projections.balances.handler = \"go\": unknown word",
    ),
    (
        "[projections.balances]\ntables = \"create table b ()\"",
        "foldd.toml:5:10: projections.balances.tables = …: only Rust",
    ),
];

#[tokio::test]
async fn what_is_declared_wrongly_for_a_rust_handler_is_told_before_anything_is_built() {
    let world = World::new().await;
    for (section, told) in DECLARED_WRONG {
        world.configure(section);
        for verb in ["run", "check"] {
            let (code, said) = own_daemon(&world, verb).ends().await;
            let expected = if verb == "run" || told.starts_with("foldd.toml") { 2 } else { 3 };
            assert_eq!(code, Some(expected), "{verb} {section}: {said}");
            assert!(said.contains(told) && said.contains("; "), "{verb} {section}: {said}");
        }
    }
    // What only PostgreSQL knows is found by check, with the line of the configured text.
    world.configure("[projections.balances]\nhandler = \"rust\"\ntables = \"create table a ();\\ncreate table b (n nothing)\"");
    let (code, said) = own_daemon(&world, "check").ends().await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("projections.balances.tables:2: type \"nothing\" does not exist; "), "{said}");
    assert_eq!(world.value("select count(*) from pg_namespace where nspname = 'balances'").await, "0");
}

#[tokio::test]
async fn a_hosted_daemon_names_everything_that_is_wrong_with_its_projections() {
    let world = World::new().await;
    let scribe = |name| RustProjection::new(name, 1, Scribe).all_categories().tables(LINES);
    let registry = Registry::new()
        .with(scribe("Scribe"))
        .with(scribe("twice"))
        .with(RustProjection::new("homeless", 1, Scribe))
        .with(
            RustProjection::new("commits", 1, Scribe).all_categories().tables("create table a ();\ncommit"),
        );
    let sql = "/* foldd\nversion = 1\nall = true\n*/\n-- @batch\ndelete from t";
    let daemon = foldd::Daemon::new(registry)
        .with_sql("twice", sql)
        .with_sql("broken", &sql.replace("delete", "drop"));
    let error = daemon.run(world.pool().clone(), CancellationToken::new()).await.expect_err("wrong");
    let said = error.to_string();
    for told in [
        "\"Scribe\" cannot name a projection",
        "projection homeless has no `categories`",
        "commits.tables:2:1: `commit` does not belong under `@tables`",
        "broken.sql:6:1: `drop` does not belong in a handler",
        "twice: there are two projections of this name",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_eq!(said.lines().count(), 5, "{said}");
}
