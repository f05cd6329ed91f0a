//! The oracle: a separate reader, around the links, that knows only PostgreSQL.
//!
//! It computes each read model anew from `es_events` by means of its own, and compares. Order is that of the
//! log, (stamp, position); along a stream it is that of the versions, which does not depend on stamps at all.
//! What leases and cursors did is written down by a trigger on `es_subscriptions`, in the very transactions
//! that moved them: nothing between two looks can be missed; each daemon's sessions carry a mark, so that it
//! knows who did. It only ever names what is wrong; who asks decides what to make of it.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::appenders::Accounts;
use super::projections;
use crate::world::World;

/// What it needs in the database, before anybody else is there.
const SETUP: &str = "
    create schema oracle;
    create function oracle.link(before text, event uuid, version bigint) returns text
        language sql immutable return md5(coalesce(before, '') || event || version);
    create aggregate oracle.chain(uuid, bigint) (sfunc = oracle.link, stype = text);
    create table oracle.journal (
        nth bigint generated always as identity, at timestamptz not null default clock_timestamp(),
        subscription_id text, fence bigint, holder uuid, stamp xid8, position bigint, early boolean,
        daemon text default current_setting('oracle.daemon', true));
    create function oracle.note() returns trigger language plpgsql as $$ begin
        insert into oracle.journal (subscription_id, fence, holder, stamp, position, early) values
            (new.subscription_id, new.fence_token, new.holder, new.last_transaction_id, new.last_position,
             tg_op = 'UPDATE' and new.holder <> old.holder and exists (
                 select from es_replicas r where r.replica_id = old.holder
                   and r.heartbeat_at > clock_timestamp() - interval '1.5 s'));
        return null;
    end $$;
    create trigger oracle after insert or update on es_subscriptions for each row execute function oracle.note();
    create table oracle.replica (replica_id uuid, daemon text default current_setting('oracle.daemon', true));
    create function oracle.meet() returns trigger language plpgsql as $$ begin
        insert into oracle.replica (replica_id) values (new.replica_id);
        return null;
    end $$;
    create trigger oracle after insert on es_replicas for each row execute function oracle.meet()";

/// Questions whose right answer is 0, with what it means if not. `L` is the log of the category in its order. A new split
/// starts at the least checkpoint of the old one, so cursors of `parted` may fall; its floors are what keeps it right.
const FACTS: [(&str, &str); 23] = [
    ("lost", "select count(*) from L where not exists (select from audit.seen s where s.event_id = L.event_id)"),
    ("made up", "select count(*) from audit.seen s where not exists (select from L where s.event_id = L.event_id)"),
    ("doubled", "select count(*) - count(distinct event_id) from audit.seen"),
    ("reordered", "select count(*) from (select (stamp, position) < lag((stamp, position)) over (order by nth) as falls
                   from audit.seen) walked where falls"),
    ("reordered along a stream", "select count(*) from (
        select version <> 1 + lag(version, 1, 0) over (partition by stream order by nth) as jumps
        from audit.seen) walked where jumps"),
    ("versions that are not 1, 2, 3 …", "select count(*) from (
        select stream_version <> row_number() over (partition by stream_id order by transaction_id, global_position)
               as jumps from es_events) walked where jumps"),
    ("streams with another chain", "select count(*) from
        (select stream_id, oracle.chain(event_id, stream_version order by stream_version) as hash
         from L group by 1) expected
        full join chains.chain c on c.stream = expected.stream_id where c.hash is distinct from expected.hash"),
    ("another chain over the category", "select count(*) from
        (select oracle.chain(event_id, stream_version order by transaction_id, global_position) as hash from L) expected
        where hash is distinct from (select hash from whole.chain)"),
    ("other sums", "select count(*) from
        (select stream_id, event_type, count(*) as n, sum((data->>'cents')::bigint) as cents from L group by 1, 2) expected
        full join sums.sum s on s.stream = expected.stream_id and s.event_type = expected.event_type
        where (s.n, s.cents) is distinct from (expected.n, expected.cents)"),
    ("miscounted by counter", "select (select count(*) from es_events) - coalesce((select n from counter.counter), 0)"),
    ("lost by parted",
     "select count(*) from L where not exists (select from parted.seen s where s.event_id = L.event_id)"),
    ("made up by parted",
     "select count(*) from parted.seen s where not exists (select from L where s.event_id = L.event_id)"),
    ("doubled by parted", "select count(*) - count(distinct event_id) from parted.seen"),
    ("reordered along a stream by parted", "select count(*) from (
        select version <> 1 + lag(version, 1, 0) over (partition by stream order by nth) as jumps
        from parted.seen) walked where jumps"),
    ("miscounted by slow", "select (select count(*) from L where event_type = 'Withdrawn')
                                   - coalesce((select n from slow.counter), 0)"),
    ("other balances of the Rust handler", "select count(*) from
        (select stream_id, sum((data->>'cents')::bigint * case event_type when 'Deposited' then 1 else -1 end) as cents
         from L where event_type <> 'Cursed' group by 1) expected
        full join balances.balance b on b.account = expected.stream_id where b.cents is distinct from expected.cents"),
    ("miscounted by failing, before it halted", "select
        (select count(*) from L join es_subscriptions s on s.subscription_id = 'failing@1'
         and (L.transaction_id, L.global_position) <= (s.last_transaction_id, s.last_position))
        - coalesce((select n from failing.counter), 0)"),
    ("cursed events that failing has passed", "select count(*) from L join es_subscriptions s
        on s.subscription_id = 'failing@1' and L.event_type = 'Cursed'
        and (L.transaction_id, L.global_position) <= (s.last_transaction_id, s.last_position)"),
    ("fence tokens that fell, or stayed for another holder", "select count(*) from (
        select fence < lag(fence) over told or (holder <> lag(holder) over told and fence <= lag(fence) over told) as falls
        from oracle.journal where holder is not null window told as (partition by subscription_id order by nth)
        ) walked where falls"),
    ("leases taken from somebody who had just been heard of", "select count(*) from oracle.journal where early"),
    ("cursors that fell", "select count(*) from (
        select (stamp, position) < lag((stamp, position)) over (partition by subscription_id order by nth) as falls
        from oracle.journal where subscription_id not like 'parted@%') walked where falls"),
    ("checkpoints that moved with a token of another", "select count(*) from (
        select (stamp, position) <> lag((stamp, position)) over told and fence <> lag(fence) over told as moves
        from oracle.journal where subscription_id not like 'parted@%'
        window told as (partition by subscription_id order by nth)) walked where moves"),
    ("checkpoints that somebody moved who did not hold them", "select count(*) from (
        select *, (stamp, position) <> lag((stamp, position)) over (partition by subscription_id order by nth) as moves
        from oracle.journal) walked
        where moves and holder is not null and not exists (
            select from oracle.replica r where r.replica_id = walked.holder and r.daemon = walked.daemon)"),
];

const LOG: &str = "with L as (select * from es_events where stream_category = 'account') ";

/// What is not as it should be while all is well, and soon again after all faults have ended.
const UNREST: &str = "
    select format('%s lags', s.subscription_id) from es_subscriptions s
    where s.subscription_id <> 'failing@1' and exists (
        select from es_events e where (s.categories is null or e.stream_category = any (s.categories))
        and (e.transaction_id, e.global_position) > (s.last_transaction_id, s.last_position))
    union all
    select format('%s is held by nobody', s.subscription_id) from es_subscriptions s
    where not exists (select from es_replicas r where r.replica_id = s.holder and r.lease_until > clock_timestamp())
    union all
    select format('session %s has not ended its transaction', pid) from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and backend_xid is not null
      and application_name not like 'foldd %'
    union all
    select 'failing is not halted'
    where not exists (select from es_phases where subscription_id = 'failing@1' and phase = 'halted')";

/// What somebody held at a moment: the subscription, the fence token, the server's time.
pub(super) type Holding = (String, i64, String);

pub(super) async fn prepare(world: &World) {
    world.execute(SETUP).await;
}

/// What the replica of this process holds now. A partition may be gone before somebody takes it over.
pub(super) async fn holdings(session: &mut PgConnection, process: u32) -> sqlx::Result<Vec<Holding>> {
    sqlx::query_as(
        "select s.subscription_id, s.fence_token, clock_timestamp()::text
         from es_subscriptions s join es_replicas r on r.replica_id = s.holder
         where r.process_id = $1 and s.subscription_id not like 'parted@%'",
    )
    .bind(i32::try_from(process).unwrap_or_default())
    .fetch_all(session)
    .await
}

/// What is left to do before all is quiet.
pub(super) async fn unrest(session: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(UNREST).fetch_all(session).await
}

/// In one snapshot, at any moment: has the audit exactly as many events as the log has up to its cursor? Returns by how
/// many it differs.
pub(super) async fn drift(session: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select (select count(*) from audit.seen) - (
             select count(*) from es_events e join es_subscriptions s on s.subscription_id = 'audit@1'
             where e.stream_category = 'account'
               and (e.transaction_id, e.global_position) <= (s.last_transaction_id, s.last_position))",
    )
    .fetch_one(session)
    .await
}

/// What is wrong already while events are still to be applied: what will never be right any more.
#[cfg(foldd_mutants)]
pub(super) async fn already(session: &mut PgConnection) -> sqlx::Result<Option<String>> {
    for (meaning, question) in FACTS {
        let lasts =
            ["doubled", "reordered", "made up", "fence tokens", "leases", "cursors that", "checkpoints that"];
        if lasts.iter().any(|start| meaning.starts_with(start)) {
            let wrong: i64 = sqlx::query_scalar(AssertSqlSafe(format!("{LOG}{question}")))
                .fetch_one(&mut *session)
                .await?;
            if wrong > 0 {
                return Ok(Some(format!("{wrong} {meaning}")));
            }
        }
    }
    Ok(None)
}

/// All that is wrong once everything is applied. Nothing, if all is well.
pub(super) async fn harm(session: &mut PgConnection, accounts: &Accounts) -> Vec<String> {
    let mut harm = Vec::new();
    for (meaning, question) in FACTS {
        let question = format!("{LOG}{question}");
        let wrong: sqlx::Result<i64> =
            sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut *session).await;
        let wrong = wrong.unwrap_or_else(|error| panic!("{meaning}: {error}"));
        if wrong != 0 {
            harm.push(format!("{wrong} {meaning}"));
        }
    }
    let logged: Vec<Uuid> = sqlx::query_scalar("select event_id from es_events")
        .fetch_all(&mut *session)
        .await
        .expect("the log can be read");
    harm.extend(settle(accounts, &logged.into_iter().collect()));
    // A split is whole when it has all its partitions, and they agree on how many there are.
    let whole = "select projection_id from es_subscriptions group by 1
                 having count(*) = max(partitions) and min(partitions) = max(partitions)
                    and max(partition) = max(partitions) - 1 order by 1";
    let subscriptions: Vec<String> =
        sqlx::query_scalar(whole).fetch_all(session).await.expect("the books can be read");
    let mut expected: Vec<String> = projections::names().map(|name| format!("{name}@1")).collect();
    expected.sort();
    if subscriptions != expected {
        harm.push(format!("whole projections {subscriptions:?}"));
    }
    harm
}

/// Compares what the appenders were told with what is in the log.
fn settle(accounts: &Accounts, logged: &HashSet<Uuid>) -> Vec<String> {
    let missing = accounts.acknowledged.iter().filter(|id| !logged.contains(id)).count();
    let present = accounts.refused.iter().filter(|id| logged.contains(id)).count();
    let there = |ids: &&Vec<Uuid>| ids.iter().filter(|id| logged.contains(id)).count();
    let torn = accounts.unknown.iter().filter(|ids| ![0, ids.len()].contains(&there(ids))).count();
    let told = accounts.acknowledged.len() + accounts.unknown.iter().map(|ids| there(&ids)).sum::<usize>();
    let foreign = logged.len().abs_diff(told - missing + present);
    [
        (missing, "acknowledged and not in the log"),
        (present, "refused and in the log"),
        (torn, "appends in the log by half"),
        (foreign, "in the log that nobody appended"),
    ]
    .into_iter()
    .filter(|(wrong, _)| *wrong > 0)
    .map(|(wrong, meaning)| format!("{wrong} {meaning}"))
    .collect()
}

/// How long each subscription of a killed process was without a holder, in rising order.
pub(super) async fn takeovers(session: &mut PgConnection, bereaved: &[Holding]) -> Vec<Duration> {
    let mut waits = Vec::new();
    for (subscription_id, fence_token, at) in bereaved {
        let seconds: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from min(at) - $3::timestamptz)::float8 from oracle.journal
             where subscription_id = $1 and fence > $2 and holder is not null",
        )
        .bind(subscription_id)
        .bind(fence_token)
        .bind(at)
        .fetch_one(&mut *session)
        .await
        .expect("the journal can be read");
        waits.extend(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))));
    }
    waits.sort_unstable();
    waits
}
