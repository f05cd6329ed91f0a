//! The life of a version, with a crash at each of its steps: from the first row in the books to the last table that goes.
//!
//! Each step is brought about by an obstacle in the server and seen there, so that nothing depends on how fast anybody is.
//! After each crash the live tables are of one version, and whole.

mod obstacles;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::examples::example;
use crate::world::{Daemon, Done, World};
use obstacles::{Gate, build_around, build_for_handlers, lock, unlock, waits_for_a_lock};

/// Version N counts every event N times, in two tables.
const TALLY: &str = "\
/* foldd
version = {version}
categories = [\"order\"]
partitions = 2
extension_schemas = [\"gate\"]
*/
-- @tables
create table tally (event_type text primary key, n bigint not null);
create table whole (only_row int primary key, n bigint not null);
-- @batch
insert into tally select event_type, count(*) * {version} from batch where pass(global_position) group by 1
on conflict (event_type) do update set n = tally.n + excluded.n;
-- @batch
insert into whole select 1, count(*) * {version} from batch having count(*) > 0
on conflict (only_row) do update set n = whole.n + excluded.n;
";

/// The handler is that of the example; its table has a gate.
const BALANCES: &str = "[projections.balances]
handler = \"rust\"
extension_schemas = [\"gate\"]
tables = \"create table balance (account text primary key, cents bigint not null, passed boolean default pass())\"
";

/// A page has fewer events than there are, so that some are committed before the gate in the middle.
const SMALL_PAGES: &str = "[daemon]\nlease = \"1s\"\nmax_page_events = 40\n";

/// A lock is waited for long enough to be seen: 0.4 times this is what a cut-over waits.
const SERVER: [(&str, &str); 2] = [("deadlock_timeout", "30s"), ("max_prepared_transactions", "8")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    /// `kill -9` of the daemon; another one is started afterwards.
    Daemon,
    /// The same of PostgreSQL, with all that was connected; the daemon stays.
    Server,
}

/// What is folded, and how its next version begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file, whose version is raised.
    Sql,
    /// A handler in the program, which is built anew.
    Rust,
}

struct Life {
    world: World,
    kind: Kind,
    crash: Crash,
    daemon: Option<Daemon>,
    events: i64,
}

impl Life {
    /// A first version that is live, and gates around the next one.
    async fn begin(kind: Kind, crash: Crash) -> Self {
        let world = World::alone_with(&SERVER).await;
        let mut life = Self { world, kind, crash, daemon: None, events: 0 };
        build_for_handlers(&life.world).await;
        life.write(1);
        life.append(300).await;
        let daemon = life.world.daemon_of(life.command(&["run"]));
        life.world.caught_up(life.name()).await;
        life.world.phase(life.name(), "live").await;
        assert_eq!(daemon.stop().await.code(), Some(0));
        build_around(&life.world, life.next()).await;
        life
    }

    fn name(&self) -> &'static str {
        if self.kind == Kind::Sql { "tally" } else { "balances" }
    }

    fn first(&self) -> &'static str {
        if self.kind == Kind::Sql { "tally@1" } else { "balances@1" }
    }

    fn next(&self) -> &'static str {
        if self.kind == Kind::Sql { "tally@2" } else { "balances@1.2" }
    }

    /// A table of the version that is not live, in its schema.
    fn aside(&self, of_next: bool) -> &'static str {
        match (self.kind, of_next) {
            (Kind::Sql, true) => "tally__v2.tally",
            (Kind::Sql, false) => "tally__v1.tally",
            (Kind::Rust, true) => "balances__v1_2.balance",
            (Kind::Rust, false) => "balances__v1.balance",
        }
    }

    fn table(&self) -> &'static str {
        if self.kind == Kind::Sql { "tally.tally" } else { "balances.balance" }
    }

    fn program(&self) -> PathBuf {
        if self.kind == Kind::Sql {
            Path::new(env!("CARGO_BIN_EXE_foldd")).to_owned()
        } else {
            example("own_daemon")
        }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        self.world.command_of(&self.program(), args)
    }

    fn write(&self, version: i32) {
        match self.kind {
            Kind::Sql => {
                self.world.configure(SMALL_PAGES);
                self.world.projection("tally", &TALLY.replace("{version}", &version.to_string()));
            }
            Kind::Rust => self.world.configure(&format!("{SMALL_PAGES}{BALANCES}")),
        }
    }

    async fn append(&mut self, events: i64) {
        let (category, event_type, data) = match self.kind {
            Kind::Sql => ("order", "Placed", json!({})),
            Kind::Rust => ("account", "Deposited", json!({ "type": "Deposited", "cents": 1 })),
        };
        self.world
            .execute(&format!(
                "select es_append('{category}-' || n % 50, null, null, array['{event_type}'], array['{data}'::jsonb])
                 from generate_series(1, {events}) n"
            ))
            .await;
        self.events += events;
    }

    /// Enters a wish, which nobody carries out so soon.
    async fn wish(&self, verb: &str) {
        let mut command = self.command(&[verb, self.name(), "--timeout", "1ms"]);
        let done = tokio::task::spawn_blocking(move || command.output()).await.expect("its thread ends");
        let done = Done::of(done.expect("the program can be started"));
        assert!(done.code == 3 && done.err.contains("is recorded"), "{verb}: {done:?}");
    }

    fn start(&mut self) {
        if self.daemon.is_none() {
            self.daemon = Some(self.world.daemon_of(self.command(&["run"])));
        }
    }

    /// Waits until it has come so far, and crashes there.
    async fn dies_when(&mut self, what: &str, fact: &str) {
        self.world
            .eventually(what, async || self.world.try_value(fact).await.is_ok_and(|fact| fact == "true"))
            .await;
        match self.crash {
            Crash::Daemon => self.daemon.take().expect("it runs").kill(),
            Crash::Server => {
                self.world.server().crash().await.expect("the server can be crashed");
                self.world.server().restart().await.expect("the server starts again");
                self.world
                    .eventually("the server answers", async || self.world.try_value("select 1").await.is_ok())
                    .await;
            }
        }
    }

    async fn dies_at(&mut self, gate: Gate) {
        self.dies_when(&format!("it is at {gate:?}"), &gate.is_reached()).await;
    }

    /// The live tables are of one version and whole; then it goes on.
    async fn goes_on(&mut self) {
        self.is_whole().await;
        self.start();
    }

    async fn is_whole(&self) {
        let name = self.name();
        let live =
            format!("select count(*) from es_projections where projection_name = '{name}' and role = 'live'");
        assert_eq!(self.world.value(&live).await, "1");
        let (seen, expected) = match self.kind {
            Kind::Sql => (
                // One statement, so of one moment.
                "select (select sum(n) from tally.tally) || ' ' || (select n from tally.whole)",
                [1, 2].map(|times| format!("{0} {0}", self.events * times)),
            ),
            Kind::Rust => {
                ("select sum(cents) from balances.balance", [1, 1].map(|_| self.events.to_string()))
            }
        };
        let seen = self.world.value(seen).await;
        assert!(
            expected.contains(&seen),
            "{seen}, not {expected:?}: the live tables are of one version, and whole"
        );
    }

    /// A table of a version that is not live has all events too.
    async fn follows_aside(&self, of_next: bool) {
        let (column, times) = match (self.kind, of_next) {
            (Kind::Sql, true) => ("n", 2),
            (Kind::Sql, false) => ("n", 1),
            (Kind::Rust, _) => ("cents", 1),
        };
        let sum = format!("select sum({column}) from {}", self.aside(of_next));
        let all = (self.events * times).to_string();
        self.world
            .eventually("the version aside follows", async || {
                self.world.try_value(&sum).await.is_ok_and(|sum| sum == all)
            })
            .await;
    }

    fn is(&self, id: &str, role: &str) -> String {
        format!("select exists (select from es_projections where projection_id = '{id}' and role = '{role}')")
    }
}

/// From a raised version to the day after a rollback.
async fn dies_at_every_step(kind: Kind, crash: Crash) {
    let mut life = Life::begin(kind, crash).await;
    let (first, next) = (life.first(), life.next());
    life.write(2);
    if kind == Kind::Rust {
        life.wish("rebuild").await;
    }
    // For later: what a reader of the live table holds.
    lock(&life.world, "report", life.table(), "access share").await;

    life.start();
    life.dies_at(Gate::LaidOut).await;
    Gate::LaidOut.open(&life.world).await;
    life.goes_on().await;
    life.dies_at(Gate::Entered).await;
    Gate::Entered.open(&life.world).await;
    life.goes_on().await;
    life.dies_at(Gate::Folding).await;
    lock(&life.world, "maintenance", life.aside(true), "share update exclusive").await;
    Gate::Folding.open(&life.world).await;
    life.goes_on().await;
    life.dies_when("its tables are tidied", &waits_for_a_lock("vacuum (analyze)")).await;
    unlock(&life.world, "maintenance").await;
    life.goes_on().await;
    life.dies_at(Gate::Built).await;
    let mut old_snapshot = life.world.pool().begin().await.expect("it answers");
    sqlx::raw_sql("set transaction isolation level repeatable read; select 1")
        .execute(&mut *old_snapshot)
        .await
        .expect("it answers");
    Gate::Built.open(&life.world).await;
    life.goes_on().await;
    let snapshot = format!(
        "select waiting_for like 'the snapshot of pid%' from es_projections where projection_id = '{next}'"
    );
    life.dies_when("it waits for an old snapshot", &snapshot).await;
    drop(old_snapshot);
    life.goes_on().await;
    life.dies_when("it waits for the tables", &waits_for_a_lock("es_take_place")).await;
    unlock(&life.world, "report").await;
    life.goes_on().await;
    life.dies_at(Gate::CutOver).await;
    assert_eq!(life.world.value(&life.is(first, "live")).await, "true", "nothing of it is committed");
    Gate::CutOver.open(&life.world).await;
    life.goes_on().await;
    life.dies_when("it has cut over", &life.is(next, "live")).await;

    life.append(10).await;
    life.start();
    life.world.caught_up(life.name()).await;
    life.follows_aside(false).await;
    life.dies_when("the version before is kept", &life.is(first, "previous")).await;
    life.goes_on().await;

    lock(&life.world, "report", life.table(), "access share").await;
    life.wish("rollback").await;
    life.dies_when("a rollback waits for the tables", &waits_for_a_lock("es_take_place")).await;
    unlock(&life.world, "report").await;
    life.goes_on().await;
    life.dies_at(Gate::RolledBack).await;
    assert_eq!(life.world.value(&life.is(next, "live")).await, "true", "nothing of it is committed");
    Gate::RolledBack.open(&life.world).await;
    life.goes_on().await;
    life.dies_when("it is rolled back", &life.is(first, "live")).await;

    life.append(10).await;
    life.start();
    life.world.caught_up(life.name()).await;
    life.follows_aside(true).await;
    lock(&life.world, "report", life.aside(true), "access share").await;
    life.wish("retire").await;
    life.dies_when("a retirement waits for the tables", &waits_for_a_lock("es_retire")).await;
    unlock(&life.world, "report").await;
    life.goes_on().await;
    life.dies_at(Gate::Retired).await;
    Gate::Retired.open(&life.world).await;
    life.goes_on().await;
    let gone = life.is(next, "retired");
    life.world
        .eventually("it is retired", async || life.world.try_value(&gone).await.is_ok_and(|it| it == "true"))
        .await;
    life.append(10).await;
    life.world.caught_up(life.name()).await;
    life.is_whole().await;
    nothing_is_left(&life).await;
}

/// Nothing is left of the version that came and went, and what became of it is written down once.
async fn nothing_is_left(life: &Life) {
    let (name, first, next) = (life.name(), life.first(), life.next());
    let left = format!(
        "select concat_ws(' ',
            (select string_agg(nspname, ',') from pg_namespace where nspname like '{name}%'),
            (select count(*) from es_subscriptions where projection_id <> '{first}'),
            (select count(*) from es_phases where subscription_id like '{next}%'),
            (select count(*) from pg_proc where proname = '{next}'),
            (select count(*) from pg_prepared_xacts),
            (select string_agg(verb || ' ' || subscription_id, ', ' order by entry_id) from es_operator_log
             where before ? 'live' and after ? 'live' and not after ? 'building' or after ->> 'role' = 'retired'))"
    );
    assert_eq!(
        life.world.value(&left).await,
        format!("{name} 0 0 0 0 cutover {next}, rollback {first}, retire {next}")
    );
}

#[tokio::test]
async fn a_daemon_that_is_killed_at_any_step_of_a_version_has_done_all_of_it_or_nothing() {
    dies_at_every_step(Kind::Sql, Crash::Daemon).await;
}

#[tokio::test]
async fn a_server_that_is_killed_at_any_step_of_a_version_has_done_all_of_it_or_nothing() {
    dies_at_every_step(Kind::Sql, Crash::Server).await;
}

#[tokio::test]
async fn a_program_with_a_handler_that_is_killed_at_any_step_has_done_all_of_it_or_nothing() {
    dies_at_every_step(Kind::Rust, Crash::Daemon).await;
}
