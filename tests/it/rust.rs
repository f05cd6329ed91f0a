//! Projections in Rust: the same promises as for SQL, around a handler in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use foldd::{EventData, Handler, HandlerError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::examples::example;
use crate::world::{Daemon, World};

#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    n: i64,
}

impl EventData for Counted {
    fn event_type(&self) -> &'static str {
        "Counted"
    }
}

/// What the handler does with an event whose number is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    Refuse,
    RefuseUnnamed,
    Panic,
    Commit,
    BadStatement,
}

/// Writes one row an event, so that doubles would show.
struct Audit {
    trap: Trap,
    refuses_unknown: bool,
    calls: Arc<AtomicI64>,
}

impl Handler for Audit {
    type Event = Counted;

    fn event_types(&self) -> Option<&[&str]> {
        Some(&["Counted"])
    }

    fn refuses_unknown(&self) -> bool {
        self.refuses_unknown
    }

    async fn apply(&self, tx: &mut PgConnection, events: &[Received<Counted>]) -> Result<(), HandlerError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        for event in events {
            sqlx::query("insert into seen values ($1, $2)")
                .bind(event.recorded.global_position)
                .bind(event.event.n)
                .execute(&mut *tx)
                .await?;
            if event.event.n < 0 {
                match self.trap {
                    Trap::Refuse => return Err(HandlerError::at(&event.recorded, "negative")),
                    Trap::RefuseUnnamed => return Err(HandlerError::new("negative")),
                    Trap::Panic => panic!("negative"),
                    Trap::Commit => {
                        sqlx::raw_sql("commit").execute(&mut *tx).await?;
                    }
                    Trap::BadStatement => {
                        sqlx::query("insert into seen values (1 / 0, 0)").execute(&mut *tx).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Hosted {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), foldd::DaemonError>>,
    calls: Arc<AtomicI64>,
}

impl Hosted {
    fn start(world: &World, trap: Trap, refuses_unknown: bool) -> Self {
        let calls = Arc::new(AtomicI64::new(0));
        let handler = Audit { trap, refuses_unknown, calls: Arc::clone(&calls) };
        let audit = RustProjection::new("audit", 1, handler)
            .categories(&["thing"])
            .tables("create table seen (position bigint not null, n bigint not null)");
        let cancel = CancellationToken::new();
        let daemon = foldd::Daemon::new(Registry::new().with(audit)).workers(2);
        let task = tokio::spawn(daemon.run(world.pool().clone(), cancel.clone()));
        Self { cancel, task, calls }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("the daemon does not panic").expect("the daemon ends in peace");
    }
}

async fn count(world: &World, stream: &str, n: i64) {
    world.append(stream, "Counted", &format!("{{\"n\": {n}}}")).await;
}

#[tokio::test]
async fn a_rust_handler_sees_every_event_once_and_in_order() {
    let world = World::new().await;
    for n in 0..300 {
        count(&world, &format!("thing-{}", n % 7), n).await;
    }
    world.append("thing-1", "Unknown", "[]").await;
    let hosted = Hosted::start(&world, Trap::Refuse, false);
    world.caught_up("audit").await;
    for n in 300..320 {
        count(&world, "thing-1", n).await;
    }
    world.caught_up("audit").await;
    let seen = world.value("select string_agg(n::text, ',' order by position) from audit.seen").await;
    assert_eq!(seen, (0..320).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    assert!(
        hosted.calls.load(Ordering::Relaxed) >= 2,
        "the backlog and what came later are pages of their own"
    );
    hosted.stop().await;
    assert_eq!(world.value("select count(*) from es_replicas").await, "0", "the lease was given back");
}

/// The handler fails on the third of five events: nothing of the page that had it is kept, the event is named, and what
/// stood before it is there once the page was halved.
async fn halts_on_the_third_event(trap: Trap) {
    let world = World::new().await;
    for n in [1, 2, -3, 4, 5] {
        count(&world, "thing-1", n).await;
    }
    let hosted = Hosted::start(&world, trap, false);
    let status = world.phase("audit", "halted").await;
    assert_eq!(status["error"]["event"]["stream_id"], "thing-1", "{trap:?}: {status}");
    assert_eq!(status["error"]["event"]["position"], 3, "{trap:?}: {status}");
    let message = status["error"]["message"].as_str().unwrap_or_default();
    let expected = if trap == Trap::BadStatement { "division by zero" } else { "negative" };
    assert!(message.contains(expected), "{trap:?}: {message}");
    let checkpoint = status["partitions"][0]["checkpoint"]["position"].clone();
    let seen = world.value("select coalesce(max(position), 0) from audit.seen").await;
    assert_eq!(checkpoint.to_string(), seen, "{trap:?}: the read model stands at the checkpoint");
    hosted.stop().await;
}

#[tokio::test]
async fn an_event_that_the_handler_refuses_by_name_halts_on_it() {
    halts_on_the_third_event(Trap::Refuse).await;
}

#[tokio::test]
async fn an_event_that_nobody_names_is_found_by_halving() {
    halts_on_the_third_event(Trap::RefuseUnnamed).await;
}

#[tokio::test]
async fn a_panic_halts_on_the_event_and_not_the_process() {
    halts_on_the_third_event(Trap::Panic).await;
}

#[tokio::test]
async fn a_failing_statement_halts_on_the_event() {
    halts_on_the_third_event(Trap::BadStatement).await;
}

#[tokio::test]
async fn a_handler_that_ends_the_transaction_halts_and_the_checkpoint_stays() {
    let world = World::new().await;
    count(&world, "thing-1", -1).await;
    let hosted = Hosted::start(&world, Trap::Commit, false);
    let status = world.phase("audit", "halted").await;
    let message = status["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("committed or rolled back"), "{status}");
    assert_eq!(status["partitions"][0]["checkpoint"]["position"], 0);
    hosted.stop().await;
}

#[tokio::test]
async fn data_that_does_not_decode_halts_on_its_event() {
    let world = World::new().await;
    count(&world, "thing-1", 1).await;
    world.append("thing-1", "Counted", "{\"n\": \"one\"}").await;
    let hosted = Hosted::start(&world, Trap::Refuse, false);
    let status = world.phase("audit", "halted").await;
    assert_eq!(status["error"]["event"]["position"], 2, "{status}");
    hosted.stop().await;
}

#[tokio::test]
async fn an_unknown_event_type_is_refused_where_that_is_asked_for() {
    let world = World::new().await;
    world.append("thing-1", "Unheard Of", "{}").await;
    let hosted = Hosted::start(&world, Trap::Refuse, true);
    let status = world.phase("audit", "halted").await;
    assert!(status["error"]["message"].as_str().unwrap_or_default().contains("Unheard Of"), "{status}");
    hosted.stop().await;
}

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
         -- more than the code has\ncreate table balance (account text primary key, cents bigint not null check (cents < 900),\n\
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
        "balances: version 2 is configured, this program's handler is version 1",
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
