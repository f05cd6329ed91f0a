//! The same around a handler in Rust.

use foldd::{Daemon, EventData, Handler, HandlerError, OnError, Received, Registry, RustProjection};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{TABLES, append_bad, append_good, applied, letters};
use crate::world::World;

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    amount: u32,
}

impl EventData for Placed {
    fn event_type(&self) -> &'static str {
        "Placed"
    }
}

/// How the handler takes an event whose amount is 13.
#[derive(Debug, Clone, Copy)]
enum Trap {
    Named,
    Unnamed,
    Panic,
    Statement,
    Deferred,
}

struct Audit(Trap);

impl Handler for Audit {
    type Event = Placed;

    async fn apply(&self, tx: &mut PgConnection, events: &[Received<Placed>]) -> Result<(), HandlerError> {
        let mended: bool =
            sqlx::query_scalar("select exists (select from mended)").fetch_one(&mut *tx).await?;
        for event in events {
            let unlucky = event.event.amount == 13 && !mended;
            match self.0 {
                Trap::Named if unlucky => return Err(HandlerError::at(&event.recorded, "unlucky")),
                Trap::Unnamed if unlucky => return Err(HandlerError::new("unlucky")),
                Trap::Panic if unlucky => panic!("unlucky"),
                Trap::Statement if unlucky => {
                    sqlx::query("select 1 / 0").execute(&mut *tx).await?;
                }
                Trap::Deferred if unlucky => {
                    sqlx::query("insert into child values (13)").execute(&mut *tx).await?;
                }
                Trap::Named | Trap::Unnamed | Trap::Panic | Trap::Statement | Trap::Deferred => {}
            }
            sqlx::query("insert into applied (stream_id, version, amount) values ($1, $2, $3)")
                .bind(&event.recorded.stream_id)
                .bind(event.recorded.stream_version)
                .bind(event.event.amount.to_string())
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

struct Running {
    cancel: CancellationToken,
    task: JoinHandle<Result<(), foldd::DaemonError>>,
}

impl Running {
    fn start(world: &World, trap: Trap, on_error: OnError) -> Self {
        let tables = format!(
            "{TABLES} create table parent (id int primary key);
             create table child (id int references parent deferrable initially deferred);"
        );
        let audit = RustProjection::new("audit", 1, Audit(trap))
            .categories(&["order"])
            .tables(&tables)
            .on_error(on_error);
        let cancel = CancellationToken::new();
        let daemon = Daemon::new(Registry::new().with(audit)).workers(2);
        let task = tokio::spawn(daemon.run(world.pool().clone(), cancel.clone()));
        Self { cancel, task }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("the daemon does not panic").expect("the daemon ends in peace");
    }
}

#[tokio::test]
async fn whatever_way_a_handler_fails_its_event_is_parked_and_retried() {
    for trap in [Trap::Named, Trap::Unnamed, Trap::Panic, Trap::Statement, Trap::Deferred] {
        let world = World::new().await;
        for (stream, amount) in
            [("order-1", 1), ("order-2", 2), ("order-1", 13), ("order-1", 3), ("order-2", 4)]
        {
            append_good(&world, stream, amount).await;
        }
        // No u32: it cannot be decoded, and never will be.
        append_bad(&world, "order-3", "22012").await;
        append_good(&world, "order-3", 5).await;
        let daemon = Running::start(&world, trap, OnError::QuarantineStream);
        world.caught_up("audit").await;
        world.phase("audit", "live").await;
        let code = match trap {
            Trap::Statement => " 22012",
            Trap::Deferred => " 23503",
            Trap::Named | Trap::Unnamed | Trap::Panic => "",
        };
        let unlucky = format!("order-1/2 failed{code} 1");
        assert_eq!(
            letters(&world, "audit").await,
            [unlucky.as_str(), "order-1/3 behind 1", "order-3/1 failed 1", "order-3/2 behind 1"],
            "{trap:?}"
        );
        assert_eq!(applied(&world, "audit").await, ["order-1: 1", "order-2: 1 2"], "{trap:?}");
        daemon.stop().await;

        world.execute("insert into audit.mended values (true)").await;
        world.execute("update es_dead_letters set retry_wanted_at = now()").await;
        let daemon = Running::start(&world, trap, OnError::QuarantineStream);
        let left = ["order-3/1 failed 2", "order-3/2 behind 1"];
        world.eventually("the retries are done", async || letters(&world, "audit").await == left).await;
        assert_eq!(applied(&world, "audit").await, ["order-1: 1 2 3", "order-2: 1 2"], "{trap:?}");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn skipping_parks_the_event_alone() {
    let world = World::new().await;
    for (stream, amount) in [("order-1", 1), ("order-1", 13), ("order-1", 3)] {
        append_good(&world, stream, amount).await;
    }
    let daemon = Running::start(&world, Trap::Unnamed, OnError::SkipEvent);
    world.caught_up("audit").await;
    assert_eq!(letters(&world, "audit").await, ["order-1/2 skipped 1"]);
    assert_eq!(applied(&world, "audit").await, ["order-1: 1 3"]);
    append_good(&world, "order-1", 4).await;
    world.caught_up("audit").await;
    assert_eq!(applied(&world, "audit").await, ["order-1: 1 3 4"]);
    daemon.stop().await;
}
