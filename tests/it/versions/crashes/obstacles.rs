//! What holds a daemon up at a named step, from within the server: gates in its books and handlers, which a crash of the
//! server leaves closed, and locks of prepared transactions, which it leaves as well.

use crate::world::World;

/// A step at which a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// In the transaction that lays the new version out.
    LaidOut = 1,
    /// Its lease is being taken for the first time.
    Entered = 2,
    /// In the middle of a batch, behind others that are committed.
    Folding = 3,
    /// All is folded and tidied, and being noted as built.
    Built = 4,
    /// Both schemas are renamed, in a transaction that is not committed.
    CutOver = 5,
    /// Likewise, of a rollback.
    RolledBack = 6,
    /// The tables are dropped, in a transaction that is not committed.
    Retired = 7,
}

const ALL: [Gate; 7] = [
    Gate::LaidOut,
    Gate::Entered,
    Gate::Folding,
    Gate::Built,
    Gate::CutOver,
    Gate::RolledBack,
    Gate::Retired,
];

/// Whoever is at a gate holds its lock, shared: it can be seen there.
const AT_GATE: i32 = 4000;

impl Gate {
    /// True when somebody is at it.
    pub(super) fn is_reached(self) -> String {
        format!(
            "select exists (select from pg_locks where locktype = 'advisory' and objid = {} and granted)",
            AT_GATE + self as i32
        )
    }

    pub(super) async fn open(self, world: &World) {
        world.execute(&format!("delete from gate.closed where step = {}", self as i32)).await;
    }
}

/// The function that handlers call. It lets everybody pass who folds a live version.
pub(super) async fn build_for_handlers(world: &World) {
    world
        .execute(&format!(
            "create schema gate; grant usage on schema gate to public;
             create table gate.closed (step integer primary key); grant select on gate.closed to public;
             create function gate.wait(step integer) returns void language plpgsql as $$
             begin
                 if exists (select from gate.closed c where c.step = wait.step) then
                     perform pg_advisory_xact_lock_shared({AT_GATE} + wait.step);
                     while exists (select from gate.closed c where c.step = wait.step) loop
                         perform pg_sleep(0.01);
                     end loop;
                 end if;
             end $$;
             create function gate.pass(event_position bigint default 1000) returns boolean language plpgsql as $$
             begin
                 if event_position > 150 and current_schema() like '%\\_\\_v%' then
                     perform gate.wait({});
                 end if;
                 return true;
             end $$",
            Gate::Folding as i32
        ))
        .await;
}

/// The gates in the books, around the version `next`; closes all there are.
pub(super) async fn build_around(world: &World, next: &str) {
    let [laid_out, entered, _, built, cut_over, rolled_back, retired] = ALL.map(|gate| gate as i32);
    world
        .execute(&format!(
            "create function gate.subscription() returns trigger language plpgsql as $$
             begin
                 perform gate.wait(case tg_op when 'INSERT' then {laid_out} else {entered} end);
                 return new;
             end $$;
             create trigger gate_laid_out before insert on es_subscriptions for each row
             when (new.subscription_id like '{next}%') execute function gate.subscription();
             create trigger gate_entered before update on es_subscriptions for each row
             when (new.subscription_id like '{next}%' and new.holder is distinct from old.holder and new.holder is not null)
             execute function gate.subscription();
             create function gate.projection() returns trigger language plpgsql as $$
             begin
                 if old.built_xid is null and new.built_xid is not null then
                     perform gate.wait({built});
                 elsif new.role = 'live' then
                     perform gate.wait(case old.role when 'building' then {cut_over} else {rolled_back} end);
                 elsif new.role = 'retired' then
                     perform gate.wait({retired});
                 end if;
                 return new;
             end $$;
             create trigger gate_moved before update on es_projections for each row
             when ((new.role, new.built_xid) is distinct from (old.role, old.built_xid)) execute function gate.projection();
             insert into gate.closed select generate_series(1, {})",
            ALL.len()
        ))
        .await;
}

/// A lock that a transaction holds which was prepared: a crash of the server leaves it.
pub(super) async fn lock(world: &World, gid: &str, table: &str, mode: &str) {
    let mut session = world.pool().acquire().await.expect("a connection");
    for statement in [
        "begin".to_owned(),
        format!("lock table {table} in {mode} mode"),
        format!("prepare transaction '{gid}'"),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.as_str()))
            .execute(&mut *session)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

pub(super) async fn unlock(world: &World, gid: &str) {
    world.execute(&format!("rollback prepared '{gid}'")).await;
}

/// True when a session waits for a lock in a statement that has this in its text.
pub(super) fn waits_for_a_lock(statement: &str) -> String {
    format!(
        "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and application_name like 'foldd %'
                          and query ilike '%{statement}%')"
    )
}
