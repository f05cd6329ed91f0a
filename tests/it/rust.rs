//! Projections in Rust: the same promises as for SQL, around a handler in this process.

/// What is declared in code and configuration, and what events are decoded into.
mod declared;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use foldd::{Daemon, EventData, Handler, HandlerError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::World;

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
        let daemon = Daemon::new(Registry::new().with(audit)).workers(2);
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
