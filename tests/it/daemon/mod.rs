//! The daemon as a process: it folds, stops when asked, and comes back.
//!
//! What may go wrong here is an event applied twice or not at all. `AUDIT` would show either: it writes down each event
//! as it comes, into a table that refuses nothing.

mod answers;
mod hostage;
mod http;
mod kill;
mod outages;
mod secrets;
mod signals;
mod spread;
mod startup;
mod takeover;
mod verbs;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::fold::TALLY;
use crate::world::World;

/// Every event, in the order in which it was applied.
const AUDIT: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n\
    create table seen (nth bigint generated always as identity, position bigint not null);\n\
    -- @on Placed\n-- @on Paid\n-- @on Shipped\n-- @on Noted\n\
    insert into seen (position) values (event.global_position);\n";

/// Waits until everything is applied, and proves that each event was, once and in order.
async fn audit_is_exact(world: &World) {
    world.caught_up("audit").await;
    let seen: Vec<i64> = sqlx::query_scalar("select position from audit.seen order by nth")
        .fetch_all(world.pool())
        .await
        .expect("the audit can be read");
    let mut log = world.log().await;
    log.retain(|event| event.stream_id.starts_with("order-"));
    let log: Vec<i64> = log.iter().map(|event| event.global_position).collect();
    let first_difference = seen.iter().zip(&log).position(|(seen, logged)| seen != logged);
    assert_eq!(first_difference, None, "{} seen, {} in the log", seen.len(), log.len());
    assert_eq!(seen.len(), log.len());
}

/// How many events the audit has.
async fn audited(world: &World) -> i64 {
    let counted = world.try_value("select count(*) from audit.seen").await;
    counted.ok().and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// Waits until the audit has at least so many more events than it has now.
async fn moves_on(world: &World, events: i64) {
    let before = audited(world).await;
    world.eventually("the audit grows", async || audited(world).await >= before + events).await;
}

/// Appends without a pause until it is stopped, whatever happens to the server.
struct Load {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    fn start(world: &World) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, pool) = (Arc::clone(&is_over), world.pool().clone());
        let task = tokio::spawn(async move {
            for number in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let appended = sqlx::query(
                    "select es_append('order-' || $1 % 17, null, null, array['Placed', 'Paid', 'Noted'],
                                      array['{}', '{}', '{}']::jsonb[])",
                )
                .bind(number.cast_signed())
                .execute(&pool)
                .await;
                let pause = if appended.is_ok() { 1 } else { 20 };
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
        Self { is_over, task }
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("the load ends");
    }
}

#[tokio::test]
async fn a_daemon_folds_what_is_there_and_what_comes() {
    let world = World::new().await;
    world.projection("tally", TALLY);
    world.append("order-1", "Placed", "{}").await;
    let daemon = world.daemon();
    world.caught_up("tally").await;
    world.append("order-1", "Placed", "{}").await;
    world.append("order-2", "Shipped", "{}").await;
    world.caught_up("tally").await;
    assert_eq!(
        world.value("select string_agg(event_type || n, ',' order by event_type) from tally.tally").await,
        "Placed2,Shipped1"
    );
    assert_eq!(daemon.stop().await.code(), Some(0));
}
