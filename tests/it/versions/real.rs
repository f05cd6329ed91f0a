//! The real log, rebuilt while people read and write. Skipped where the log is absent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::world::{World, real_log};

/// What a fine stands at, one row each, and the number of events by type.
const FINES: &str = "\
/* foldd
version = {version}
categories = [\"fine\"]
partitions = 2
*/
-- @tables
create table fine (fine_id text primary key, paid numeric not null default 0, events bigint not null{more});
create table kind (event_type text primary key, events bigint not null);
-- @batch
insert into fine (fine_id, paid, events)
select stream_id, coalesce(sum((data->>'paymentAmount')::numeric) filter (where event_type = 'Payment'), 0), count(*)
from batch group by 1
on conflict (fine_id) do update set paid = fine.paid + excluded.paid, events = fine.events + excluded.events;
-- @batch
insert into kind select event_type, count(*) from batch group by 1
on conflict (event_type) do update set events = kind.events + excluded.events;
";

/// Both tables from the log itself.
const TRUTH: &str = "\
    select (select count(*) from (
        (select fine_id, paid, events from fines.fine except all
         select stream_id, coalesce(sum((data->>'paymentAmount')::numeric) filter (where event_type = 'Payment'), 0), count(*)
         from es_events where stream_category = 'fine' group by 1)
        union all
        (select event_type, 0, events from fines.kind except all
         select event_type, 0, count(*) from es_events where stream_category = 'fine' group by 1)) wrong)";

/// Whoever waits longer has found something.
const BUILD_PATIENCE: Duration = Duration::from_secs(300);

fn write(world: &World, version: u32, more: &str) {
    world.projection("fines", &FINES.replace("{version}", &version.to_string()).replace("{more}", more));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_log_is_rebuilt_while_people_read_and_write() {
    let Some(log) = real_log() else { return };
    let world = Arc::new(World::alone().await);
    let log = log.to_str().expect("the path is text").to_owned();
    let imported = world.foldd(&["import", &log]).await;
    assert_eq!(imported.code, 0, "{imported:?}");
    write(&world, 1, "");
    let old = world.daemon();
    world.phase("fines", "live").await;

    let over = Arc::new(AtomicBool::new(false));
    let mut people = Vec::new();
    for question in [
        "select events::bigint, events::bigint from fines.fine where fine_id = 'fine-A1'",
        "select f.n::bigint, k.n::bigint from (select sum(events) as n from fines.fine) f, (select sum(events) as n from fines.kind) k",
    ] {
        let (world, over) = (Arc::clone(&world), Arc::clone(&over));
        people.push(tokio::spawn(async move {
            let (mut least, mut reads) = (0, 0_u32);
            while !over.load(Ordering::SeqCst) {
                let read: Option<(i64, i64)> =
                    sqlx::query_as(question).fetch_optional(world.pool()).await.expect("no read fails");
                let (one, other) = read.expect("no table is empty");
                assert_eq!(one, other, "a mixture of two moments");
                assert!(one >= least, "{one} after {least}");
                (least, reads) = (one, reads + 1);
            }
            reads
        }));
    }
    let (appending, until) = (Arc::clone(&world), Arc::clone(&over));
    let appended = tokio::spawn(async move {
        let mut appended = 0_u32;
        while !until.load(Ordering::SeqCst) {
            appending.append("fine-A1", "Payment", "{\"paymentAmount\": 1.5}").await;
            appended += 1;
        }
        appended
    });

    let raised = Instant::now();
    write(&world, 2, ", note text");
    let new = world.daemon();
    old.stop().await;
    world.eventually("the build is laid out", async || count(&world, "fines@2").await == "1").await;
    // Opened in the middle, and held until everything else is ready.
    let mut report = world.pool().begin().await.expect("it answers");
    sqlx::raw_sql("set transaction isolation level repeatable read; set local application_name = 'report'")
        .execute(&mut *report)
        .await
        .expect("it answers");
    let seen: i64 = sqlx::query_scalar("select sum(events)::bigint from fines.fine")
        .fetch_one(&mut *report)
        .await
        .expect("it reads");
    assert!(seen >= 561_470, "{seen}");
    // However long that takes beside everything else that this machine does.
    let waiting = "select coalesce(waiting_for, '') from es_projections where projection_id = 'fines@2'";
    while !world.value(waiting).await.contains("report") {
        assert!(raised.elapsed() < BUILD_PATIENCE, "{}", world.foldd(&["status"]).await.out);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let built = raised.elapsed();
    let again: i64 = sqlx::query_scalar("select sum(events)::bigint from fines.fine")
        .fetch_one(&mut *report)
        .await
        .expect("it reads");
    assert_eq!(again, seen, "a snapshot stays what it is");
    drop(report);
    let released = Instant::now();
    world.eventually("the new version is live", async || live(&world).await == "fines@2").await;
    let cut_over = released.elapsed();
    over.store(true, Ordering::SeqCst);
    let appended = appended.await.expect("appends go through");
    let mut reads = Vec::new();
    for reader in people {
        reads.push(reader.await.expect("no reader sees anything wrong"));
    }
    assert!(reads.iter().all(|reads| *reads > 0));
    world.caught_up("fines").await;
    assert_eq!(world.value(TRUTH).await, "0", "the read model is the fold of the log");
    assert_eq!(world.value("select sum(paid) >= 3601464.53 from fines.fine").await, "true");
    println!(
        "561,470 events rebuilt in {:.1} s beside {appended} appends and {reads:?} reads; taken over {:.2} s after the last old snapshot",
        built.as_secs_f64(),
        cut_over.as_secs_f64()
    );
    new.stop().await;
}

async fn count(world: &World, id: &str) -> String {
    world.value(&format!("select count(*) from es_projections where projection_id = '{id}'")).await
}

async fn live(world: &World) -> String {
    world
        .value("select projection_id from es_projections where projection_name = 'fines' and role = 'live'")
        .await
}
