//! Through PgBouncer in transaction mode: each transaction meets another session of the server, nothing that was prepared
//! or set outlasts it, and everything works all the same.

pub(crate) mod bouncer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldd::{
    Daemon, Event, EventData, EventStore, ExpectedVersion, Handler, HandlerError, Received, Registry,
    RustProjection, StreamQuery,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fold::TALLY;
use crate::log::run;
use crate::world::World;
use bouncer::Bouncer;

/// Each event as it is applied, by which session of the server and under which limits.
const AUDIT: &str = "/* foldd\nversion = 1\ncategories = [\"order\"]\n*/\n-- @tables\n\
    create table seen (nth bigint generated always as identity, position bigint not null, pid int not null,\n\
                       limits text not null);\n\
    -- @batch\n\
    insert into seen (position, pid, limits)\n\
    select global_position, pg_backend_pid(),\n\
           concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'),\n\
                     current_setting('idle_in_transaction_session_timeout'))\n\
    from batch order by transaction_id, global_position;\n";

const BATCH_TIMEOUT: (&str, &str) = ("FOLDD__DAEMON__BATCH_TIMEOUT", "7s");
const LEASE: (&str, &str) = ("FOLDD__DAEMON__LEASE", "2s");
/// What these two make of a session.
const LIMITS: &str = "7s 3500ms 1s";
const POOLED: &str = "connected through a transaction pooler";

/// Positions of the audit and of the log that do not agree, one by one.
const DIFFERENCES: &str = "
    select count(*) from (select position, row_number() over (order by nth) as place from audit.seen) seen
    full join (select global_position, row_number() over (order by transaction_id, global_position) as place
               from es_events where stream_category = 'order') logged using (place)
    where position is distinct from global_position";

/// A world whose commands go through a pooler, and the two projections.
async fn furnished(mut world: World, more: &str) -> Option<(World, Bouncer)> {
    let bouncer = Bouncer::before(&mut world, more).await?;
    world.projection("audit", AUDIT);
    world.projection("tally", TALLY);
    Some((world, bouncer))
}

/// Runs a verb that must work, and returns what it prints.
async fn works(world: &World, verb: &[&str]) -> String {
    let done = world.foldd(verb).await;
    assert_eq!(done.code, 0, "{verb:?}: {} {}", done.out, done.err);
    done.out
}

/// Everything that is in the log has been applied, once and in order.
async fn is_exact(world: &World) {
    world.caught_up("audit").await;
    world.caught_up("tally").await;
    assert_eq!(world.value(DIFFERENCES).await, "0", "positions that differ");
    assert_eq!(
        world.value("select sum(n) from tally.tally").await,
        world.value("select count(*) from es_events where stream_category = 'order'").await
    );
}

/// A client of the pooler that appends without a pause, each event until it is known to be in.
struct Load {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<i64>,
}

impl Load {
    fn start(world: &World, stream: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (options, stream) = (options(world), stream.to_owned());
        let task = tokio::spawn(async move {
            let mut conn: Option<PgConnection> = None;
            let (mut acknowledged, mut id) = (0, uuid::Uuid::new_v4());
            while !over.load(Ordering::Relaxed) {
                let appended = match &mut conn {
                    Some(conn) => append(conn, &stream, id).await,
                    None => {
                        conn = options.connect().await.ok();
                        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                        continue;
                    }
                };
                let twice = |error: &sqlx::Error| {
                    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("ES002")
                };
                match appended {
                    Err(error) if !twice(&error) => conn = None,
                    Ok(_) | Err(_) => {
                        acknowledged += 1;
                        id = uuid::Uuid::new_v4();
                    }
                }
            }
            acknowledged
        });
        Self { is_over, task }
    }

    /// How many events were acknowledged.
    async fn stop(self) -> i64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.expect("the load ends")
    }
}

fn options(world: &World) -> PgConnectOptions {
    let options: PgConnectOptions = world.url().parse().expect("the URL is right");
    options.extra_float_digits(None).statement_cache_capacity(0)
}

/// In one message, as whatever goes through a pooler appends.
async fn append(conn: &mut PgConnection, stream: &str, id: uuid::Uuid) -> sqlx::Result<()> {
    let sql = format!(
        "select es_append('{stream}', null, null, array['Placed'], array['{{}}']::jsonb[], null, array['{id}']::uuid[])"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(|_| ())
}

#[tokio::test]
async fn every_verb_works_through_a_transaction_pooler() {
    let Some((world, _bouncer)) = furnished(World::bare_alone().await, "").await else { return };
    assert_eq!(world.foldd(&["migrate", "--check"]).await.code, 3);
    assert!(works(&world, &["migrate"]).await.contains("created the schema"));
    let lines: String = (1..=12_000)
        .map(|n| {
            format!(
                "{{\"stream_id\":\"order-{}\",\"event_type\":\"Placed\",\"data\":{{\"n\":{n}}}}}\n",
                n % 50
            )
        })
        .collect();
    std::fs::write(world.dir().join("in.jsonl"), lines).expect("a file can be written");
    assert!(works(&world, &["import", "in.jsonl"]).await.contains("12000 events imported"));
    assert!(works(&world, &["import", "in.jsonl", "--resume"]).await.contains("12000 were there already"));
    assert!(works(&world, &["check"]).await.contains("tally@1: right"));
    assert!(works(&world, &["test"]).await.contains("no tests"));

    let daemon = world.daemon_with(&[BATCH_TIMEOUT, LEASE]);
    works(&world, &["append", "order-new", "Placed", "{}", "--expected", "new"]).await;
    assert_eq!(world.foldd(&["append", "order-new", "Placed", "{}", "--expected", "7"]).await.code, 1);
    world.eventually("there are projections", async || world.status("audit").await.is_object()).await;
    works(&world, &["wait", "audit", "--position", "12001", "--timeout", "60s"]).await;
    is_exact(&world).await;
    assert!(works(&world, &["lag", "--fail-above", "0"]).await.contains("audit@1: 0 events"));
    let status: Value = serde_json::from_str(&works(&world, &["status", "--json"]).await).expect("JSON");
    assert_eq!((&status["store"]["head_position"], &status["store"]["tier"]), (&12_001.into(), &1.into()));
    assert!(works(&world, &["verify", "tally"]).await.contains("12001 events folded and compared"));
    assert!(works(&world, &["build", "tally", "--into", "aside"]).await.contains("12001 events folded"));
    assert_eq!(world.value("select sum(n) from aside.tally").await, "12001");
    works(&world, &["export", "out.jsonl"]).await;
    let exported = std::fs::read_to_string(world.dir().join("out.jsonl")).expect("it was written");
    assert_eq!(exported.lines().count(), 12_001);
    let examined: Value = serde_json::from_str(&works(&world, &["doctor", "--json"]).await).expect("JSON");
    assert!(
        examined.as_array().is_some_and(|all| all.iter().all(|one| one["health"] != "bad")),
        "{examined}"
    );
    assert_eq!(daemon.stop().await.code(), Some(0));
    assert_eq!(world.value("select count(*) from es_replicas").await, "0", "it has signed off");
    assert!(works(&world, &["rebase"]).await.contains("nothing to do"));

    let log = daemon_log(&world);
    assert_eq!(log.matches(POOLED).count(), 1, "said once: {log}");
    assert_eq!(world.value("select string_agg(distinct limits, ';') from audit.seen").await, LIMITS);
}

/// What the world's daemons have logged.
fn daemon_log(world: &World) -> String {
    let files = std::fs::read_dir(world.dir()).expect("the world has a folder");
    let logs = files.filter_map(|file| file.ok().map(|file| file.path()));
    logs.filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .map(|path| std::fs::read_to_string(path).unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn kills_of_daemon_and_pooler_lose_nothing_and_double_nothing() {
    let Some((world, mut bouncer)) = furnished(World::alone().await, "").await else { return };
    let loads = ["order-1", "order-2", "order-3"].map(|stream| Load::start(&world, stream));
    let first = world.daemon_with(&[BATCH_TIMEOUT, LEASE]);
    let moves_on = async || {
        let seen = async || world.try_value("select count(*) from audit.seen").await.unwrap_or_default();
        let before = seen().await.parse::<i64>().unwrap_or_default();
        world
            .eventually("the audit grows", async || {
                seen().await.parse::<i64>().unwrap_or_default() > before + 20
            })
            .await;
    };
    moves_on().await;
    // A bystander that would hold up whoever cannot prove the horizon.
    let mut bystander = world.pool().acquire().await.expect("a connection");
    run(&mut bystander, "begin; select pg_current_xact_id()").await;
    let second = world.daemon_with(&[BATCH_TIMEOUT, LEASE]);
    second.says("daemon started").await;
    first.kill();
    moves_on().await;
    for _ in 0..3 {
        bouncer.restart().await;
        moves_on().await;
    }
    let mut acknowledged = 0;
    for load in loads {
        acknowledged += load.stop().await;
    }
    is_exact(&world).await;
    run(&mut bystander, "rollback").await;
    let logged: i64 =
        world.value("select count(*) from es_events").await.parse().expect("a count is a number");
    // The last answer of each may be the one that was lost.
    assert!((acknowledged..=acknowledged + 3).contains(&logged), "{acknowledged} of {logged}");
    assert!(second.log().contains("lost its connection"), "the pooler was missed: {}", second.log());
    assert_eq!(second.stop().await.code(), Some(0));
    let sessions: i64 =
        world.value("select count(distinct pid) from audit.seen").await.parse().expect("a count is a number");
    assert!(sessions > 3, "the batches met {sessions} sessions");
}

#[tokio::test]
async fn a_pooler_that_swallows_the_options_is_found_out() {
    let swallows = "ignore_startup_parameters = options";
    let Some((world, bouncer)) = furnished(World::alone().await, swallows).await else { return };
    world.seed("order", 3_000).await;
    let daemon = world.daemon_with(&[BATCH_TIMEOUT, LEASE]);
    is_exact(&world).await;
    world.seed("order", 3_000).await;
    is_exact(&world).await;
    assert_eq!(daemon.log().matches(POOLED).count(), 1, "{}", daemon.log());
    assert!(!bouncer.log().contains("unsupported startup parameter"), "{}", bouncer.log());
    assert_eq!(world.value("select string_agg(distinct limits, ';') from audit.seen").await, LIMITS);
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn without_a_pooler_nothing_is_different() {
    let world = World::new().await;
    world.projection("audit", AUDIT);
    world.seed("order", 100).await;
    let daemon = world.daemon_with(&[BATCH_TIMEOUT, LEASE]);
    world.caught_up("audit").await;
    assert_eq!(world.value("select string_agg(distinct limits, ';') from audit.seen").await, LIMITS);
    assert!(!daemon.log().contains(POOLED), "{}", daemon.log());
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_plain_store_is_adopted_through_a_pooler() {
    let mut world = World::bare_alone().await;
    world.execute(crate::log::PLAIN).await;
    world
        .execute(
            "insert into es_streams (stream_id, stream_version) select 'order-' || n, 20 from generate_series(1, 50) n;
             insert into es_events (stream_id, stream_version, event_type, data)
                 select 'order-' || n, version, 'Placed', '{}'
                 from generate_series(1, 20) version, generate_series(1, 50) n",
        )
        .await;
    let Some(_bouncer) = Bouncer::before(&mut world, "").await else { return };
    assert!(works(&world, &["migrate"]).await.contains("adopted the store"));
    assert!(works(&world, &["migrate"]).await.contains("up to date"));
    world.projection("audit", AUDIT);
    world.projection("tally", TALLY);
    let daemon = world.daemon();
    is_exact(&world).await;
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[derive(Debug, Serialize, Deserialize)]
struct Placed {}

impl EventData for Placed {
    fn event_type(&self) -> &'static str {
        "Placed"
    }
}

#[tokio::test]
async fn the_library_appends_and_reads_through_a_pooler() {
    let mut world = World::bare_alone().await;
    let Some(_bouncer) = Bouncer::before(&mut world, "").await else { return };
    let pool = PgPoolOptions::new().max_connections(6).connect_lazy_with(options(&world));
    let store = EventStore::new(pool).through_pooler();
    store.migrate().await.expect("it can be migrated");
    let writers = ["order-1", "order-2", "order-3", "order-4", "order-5", "order-6"]
        .map(|stream| tokio::spawn(write(store.clone(), stream)));
    for writer in writers {
        writer.await.expect("the writer does not panic");
    }
    let all = store.read_all_after((0, 0), 1_000).await.expect("it can be read");
    assert_eq!(all.len(), 6 * 45);

    // What fails at the commit only was not done, and is not said to be.
    world
        .execute(
            "create function refuse() returns trigger language plpgsql as
                 $$ begin raise exception 'not today' using errcode = '23514'; end $$;
             create constraint trigger late after insert on es_events deferrable initially deferred
                 for each row execute function refuse()",
        )
        .await;
    let refused = store.append("order-1", "order", ExpectedVersion::Any, &[Event::new(Placed {})]).await;
    assert!(refused.is_err_and(|error| foldd::error::chain(&error).contains("not today")));
    assert_eq!(world.value("select count(*) from es_events").await, "270");
}

/// Appends 45 events to a stream, in every way there is, and reads them.
async fn write(store: EventStore, stream: &str) {
    let one = || [Event::new(Placed {})];
    for n in 0..15 {
        let expected = if n == 0 { ExpectedVersion::NoStream } else { ExpectedVersion::Exact(3 * n) };
        store.append(stream, "order", expected, &one()).await.expect("it is appended");
        let mut scope = store.begin_transaction().await.expect("it begins");
        scope
            .append(stream, "order", ExpectedVersion::Exact(3 * n + 1), &one())
            .await
            .expect("it is appended");
        let seen: i64 = sqlx::query_scalar("select stream_version from es_streams where stream_id = $1")
            .bind(stream)
            .fetch_one(scope.tx())
            .await
            .expect("a statement of one's own");
        assert_eq!(seen, 3 * n + 2);
        assert_eq!(scope.commit().await.expect("it commits").events().len(), 1);
        let mut tx = store.pool().begin().await.expect("it begins");
        store
            .append_in_tx(&mut tx, stream, "order", ExpectedVersion::Any, &one())
            .await
            .expect("it is appended");
        tx.commit().await.expect("it commits");
        let read = store.read_stream(stream, StreamQuery::default()).await.expect("it can be read");
        assert_eq!(read.len(), 3 * usize::try_from(n).expect("small") + 3);
    }
}

/// A handler that knows nothing of poolers: what it runs is prepared by name.
struct Naming;

impl Handler for Naming {
    type Event = Placed;

    fn event_types(&self) -> Option<&[&str]> {
        Some(&["Placed"])
    }

    async fn apply(&self, tx: &mut PgConnection, events: &[Received<Placed>]) -> Result<(), HandlerError> {
        for event in events {
            sqlx::query("insert into seen (position) values ($1)")
                .bind(event.recorded.global_position)
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn handlers_in_rust_are_hosted_through_a_pooler() {
    let mut world = World::bare_alone().await;
    let Some(_bouncer) = Bouncer::before(&mut world, "").await else { return };
    let registry =
        ["first", "second", "audit"].into_iter().fold(Registry::new(), |registry, name| {
            registry.with(RustProjection::new(name, 1, Naming).categories(&["order"]).tables(
                "create table seen (nth bigint generated always as identity, position bigint not null)",
            ))
        });
    let pool = PgPoolOptions::new().connect_lazy_with(options(&world));
    let cancel = CancellationToken::new();
    let task = tokio::spawn(Daemon::new(registry).workers(3).run(pool, cancel.clone()));
    world.eventually("the schema is there", async || world.store().stream_exists("x").await.is_ok()).await;
    for n in 0..40 {
        world.append(&format!("order-{}", n % 5), "Placed", "{}").await;
    }
    for name in ["first", "second", "audit"] {
        world.caught_up(name).await;
        assert_eq!(world.value(&format!("select count(*) from {name}.seen")).await, "40");
    }
    assert_eq!(world.value(DIFFERENCES).await, "0");
    cancel.cancel();
    task.await.expect("the daemon does not panic").expect("the daemon ends in peace");
}
