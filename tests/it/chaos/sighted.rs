//! The oracle is shown every kind of harm, one at a time, and must name it. An oracle that cannot fail proves
//! nothing.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::oracle::{drift, harm, unrest};
use super::{Accounts, world};
use crate::examples::example;
use crate::world::World;

/// What is done to a world in which all is well, and a word of what the oracle must say about it.
const HARMS: [(&str, &str); 26] = [
    ("delete from audit.seen where nth = (select min(nth) from audit.seen)", "1 lost"),
    ("delete from audit.seen where nth = (select max(nth) from audit.seen)", "1 lost"),
    (
        "insert into audit.seen (event_id, stream, version, stamp, position)
         select event_id, stream, version, stamp, position from audit.seen limit 1",
        "1 doubled",
    ),
    (
        "insert into audit.seen (event_id, stream, version, stamp, position)
         select gen_random_uuid(), stream, version + 1, stamp, position from audit.seen order by nth desc limit 1",
        "1 made up",
    ),
    // Two neighbours of different streams change places: only the order of the category shows it.
    (
        "with pair as (select a.nth as one, b.nth as other from audit.seen a join audit.seen b on b.nth = a.nth + 1
                       where a.stream <> b.stream order by 1 limit 1)
         update audit.seen s set (event_id, stream, version, stamp, position) =
             (select t.event_id, t.stream, t.version, t.stamp, t.position from audit.seen t
              where t.nth = case s.nth when one then other else one end)
         from pair where s.nth in (one, other)",
        "1 reordered",
    ),
    ("update audit.seen set version = version + 1 where nth = 3", "reordered along a stream"),
    (
        "insert into es_events (stream_id, stream_version, event_type, data) values ('account-1', 99, 'Deposited', '{}')",
        "versions that are not 1, 2, 3",
    ),
    ("update chains.chain set hash = md5(hash) where stream = 'account-1'", "1 streams with another chain"),
    ("delete from chains.chain where stream = 'account-1'", "1 streams with another chain"),
    ("update whole.chain set hash = md5(hash)", "another chain over the category"),
    ("update sums.sum set n = n + 1, cents = cents + 5 where stream = 'account-1'", "other sums"),
    ("update counter.counter set n = n + 1", "-1 miscounted by counter"),
    ("delete from parted.seen where nth = (select min(nth) from parted.seen)", "1 lost by parted"),
    ("insert into parted.seen (event_id, stream, version) select event_id, stream, version from parted.seen limit 1",
     "1 doubled by parted"),
    ("insert into parted.seen (event_id, stream, version) values (gen_random_uuid(), 'account-1', 1)",
     "1 made up by parted"),
    ("update parted.seen set version = version + 1 where nth = 3", "reordered along a stream by parted"),
    ("update slow.counter set n = n - 1", "1 miscounted by slow"),
    ("update balances.balance set cents = cents + 1 where account = 'account-1'", "1 other balances"),
    ("update failing.counter set n = n + 1", "miscounted by failing"),
    (
        "update es_subscriptions s set (last_transaction_id, last_position) =
             (select last_transaction_id, last_position from es_subscriptions where subscription_id = 'audit@1')
         where subscription_id = 'failing@1'",
        "cursed events that failing has passed",
    ),
    (
        "insert into es_replicas (replica_id, host, process_id, version, lease_until)
         values ('00000000-0000-0000-0000-000000000001', '', 1, '', now());
         update es_subscriptions set holder = '00000000-0000-0000-0000-000000000001' where subscription_id = 'audit@1'",
        "1 fence tokens that fell, or stayed for another holder",
    ),
    (
        "insert into es_replicas (replica_id, host, process_id, version, lease_until)
         values ('00000000-0000-0000-0000-000000000001', '', 1, '', now()),
                ('00000000-0000-0000-0000-000000000002', '', 1, '', now());
         update es_subscriptions set holder = '00000000-0000-0000-0000-000000000001', fence_token = fence_token + 1
         where subscription_id = 'audit@1';
         update es_subscriptions set holder = '00000000-0000-0000-0000-000000000002', fence_token = fence_token + 1
         where subscription_id = 'audit@1'",
        "1 leases taken from somebody who had just been heard of",
    ),
    (
        "update es_subscriptions set last_position = last_position - 1 where subscription_id = 'audit@1'",
        "1 cursors that fell",
    ),
    (
        "update es_subscriptions set last_position = last_position + 1, fence_token = fence_token + 1
         where subscription_id = 'audit@1'",
        "1 checkpoints that moved with a token of another",
    ),
    (
        "insert into es_replicas (replica_id, host, process_id, version, lease_until)
         values ('00000000-0000-0000-0000-000000000001', '', 1, '', now());
         update es_subscriptions set holder = '00000000-0000-0000-0000-000000000001', fence_token = fence_token + 1
         where subscription_id = 'audit@1';
         set local oracle.daemon = 'another';
         update es_subscriptions set last_position = last_position + 1 where subscription_id = 'audit@1'",
        "1 checkpoints that somebody moved who did not hold them",
    ),
    ("delete from es_subscriptions where subscription_id = 'audit@1'", "whole projections ["),
];

/// A log that is folded completely, and whom its events belong to.
async fn at_peace(world: &World) -> Accounts {
    for number in 0..60 {
        let data = format!("{{\"type\": \"Deposited\", \"cents\": {number}}}");
        world.append(&format!("account-{}", number % 7), "Deposited", &data).await;
        world.append("account-1", "Withdrawn", "{\"type\": \"Withdrawn\", \"cents\": 1}").await;
    }
    let mut command = world.command_of(&example("own_daemon"), &["run"]);
    let mark = if world.url().contains('?') { '&' } else { '?' };
    command.env("DATABASE_URL", format!("{}{mark}options=-c%20oracle.daemon%3Done", world.url()));
    let daemon = world.daemon_of(command);
    // Only once all is folded: it stands right before the curse.
    for name in super::projections::names() {
        world.caught_up(name).await;
    }
    world.append("account-1", "Cursed", "{\"cents\": 0}").await;
    world.phase("failing", "halted").await;
    let mut session = PgConnection::connect(world.url()).await.expect("the server is there");
    world
        .eventually("all is quiet", async || {
            let mut session = PgConnection::connect(world.url()).await.expect("the server is there");
            unrest(&mut session).await.expect("it answers").is_empty()
        })
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    let events = sqlx::query_scalar("select event_id from es_events order by global_position");
    let acknowledged: Vec<Uuid> = events.fetch_all(&mut session).await.expect("the log can be read");
    Accounts { acknowledged, ..Accounts::default() }
}

#[tokio::test]
async fn the_oracle_sees_every_kind_of_harm() {
    let world = world().await;
    let mut accounts = at_peace(&world).await;
    let mut session = PgConnection::connect(world.url()).await.expect("the server is there");
    assert_eq!(harm(&mut session, &accounts).await, Vec::<String>::new());
    assert_eq!(drift(&mut session).await.expect("it answers"), 0);
    for (done, seen) in HARMS {
        let mut tx = session.begin().await.expect("it answers");
        sqlx::raw_sql(AssertSqlSafe(done))
            .execute(&mut *tx)
            .await
            .unwrap_or_else(|error| panic!("{done}: {error}"));
        let said = harm(&mut tx, &accounts).await;
        assert!(said.iter().any(|line| line.contains(seen)), "{done}: {said:?}");
        if ["delete from audit", "insert into audit"].iter().any(|start| done.starts_with(start)) {
            assert_ne!(drift(&mut tx).await.expect("it answers"), 0, "{done}");
        }
        tx.rollback().await.expect("it answers");
    }

    // What appenders were told, and the log.
    accounts.unknown.push(vec![Uuid::new_v4(), Uuid::new_v4()]);
    assert_eq!(harm(&mut session, &accounts).await, Vec::<String>::new(), "an append that never got through");
    let known = accounts.acknowledged.pop().expect("there are events");
    assert_eq!(harm(&mut session, &accounts).await, ["1 in the log that nobody appended"]);
    accounts.unknown.push(vec![known]);
    assert_eq!(harm(&mut session, &accounts).await, Vec::<String>::new(), "one that did");
    accounts.unknown[1].push(Uuid::new_v4());
    assert_eq!(harm(&mut session, &accounts).await, ["1 appends in the log by half"]);
    accounts.unknown[1] = vec![known];
    accounts.acknowledged.push(Uuid::new_v4());
    assert_eq!(harm(&mut session, &accounts).await, ["1 acknowledged and not in the log"]);
    accounts.acknowledged.pop();
    accounts.refused.push(accounts.acknowledged.pop().expect("there are events"));
    assert_eq!(harm(&mut session, &accounts).await, ["1 refused and in the log"]);
}
