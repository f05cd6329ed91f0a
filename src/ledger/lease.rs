//! Who runs (`es_replicas`) and who holds what (`es_subscriptions`).

use std::time::Duration;

use sqlx::Row;
use uuid::Uuid;

use crate::cursor::Cursor;
use crate::store::Link;

/// This process, as the other replicas see it.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// Fresh for each process: a restarted process is another holder.
    pub(crate) id: Uuid,
    /// The host's name, for people.
    pub(crate) host: String,
    /// How long what it holds stays its own without a heartbeat.
    pub(crate) lease: Duration,
}

/// The right to fold one subscription: valid while nobody has a newer fence token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) fence_token: i64,
    /// The checkpoint, read in the statement that took the lease.
    pub(crate) cursor: Cursor,
    /// How many of its own events lay behind it then.
    pub(crate) applied_events: i64,
    /// How many holders in a row died, as far as is known, since the checkpoint last moved.
    pub(crate) unclean_takeovers: i32,
    /// The event that a holder fell silent at while it tried it alone.
    pub(crate) crashed_position: Option<i64>,
    /// How many holders in a row fell silent at that very event.
    pub(crate) crashes: i32,
}

/// Whether there is such a subscription at all: its version may have been retired.
pub(crate) async fn is_there(conn: &mut Link<'_>, subscription_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from es_subscriptions where subscription_id = $1)")
        .bind(subscription_id)
        .fetch_one(conn)
        .await
}

/// Registers the replica, with what it can run: nothing yet while `hosts` is `None`. Renews its lease as well.
///
/// Also forgets replicas that ended without a word more than a minute ago and hold nothing any more.
pub(crate) async fn register(
    conn: &mut Link<'_>,
    replica: &Replica,
    hosts: Option<&[String]>,
) -> sqlx::Result<()> {
    sqlx::query(
        "with forgotten as (
             delete from es_replicas r
             where r.lease_until < clock_timestamp() - interval '1 minute' and r.replica_id <> $1
               and not exists (select from es_subscriptions s where s.holder = r.replica_id))
         insert into es_replicas as r (replica_id, host, process_id, version, hosts, lease_until)
         values ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6))
         on conflict (replica_id) do update
         set heartbeat_at = clock_timestamp(), hosts = excluded.hosts, lease_until = excluded.lease_until",
    )
    .bind(replica.id)
    .bind(&replica.host)
    .bind(i32::try_from(std::process::id()).unwrap_or_default())
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(hosts)
    .bind(replica.lease.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(())
}

/// Renews the replica's lease, which renews everything it holds. `false` when others have forgotten it.
///
/// `hosts` is not written: PostgreSQL leaves a long value where it is when the row's other columns change.
pub(crate) async fn heartbeat(conn: &mut Link<'_>, replica: &Replica, draining: bool) -> sqlx::Result<bool> {
    let renewed = sqlx::query(
        "update es_replicas
         set heartbeat_at = clock_timestamp(), draining = $2,
             lease_until = clock_timestamp() + make_interval(secs => $3)
         where replica_id = $1",
    )
    .bind(replica.id)
    .bind(draining)
    .bind(replica.lease.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Says that this replica lives, after it was silent for longer than its lease: what it was trying alone then did not kill
/// it. Returns how many accusations that takes back.
pub(crate) async fn acquit(conn: &mut Link<'_>, replica: &Replica) -> sqlx::Result<u64> {
    let acquitted = sqlx::query(
        "update es_subscriptions
         set crashes = greatest(crashes - 1, 0), accused = null,
             crashed_position = case when crashes > 1 then crashed_position end
         where accused = $1",
    )
    .bind(replica.id)
    .execute(conn)
    .await?;
    Ok(acquitted.rows_affected())
}

/// Takes a subscription that is free, whose holder's lease has ended, or that this replica holds already. `None` while
/// somebody else's lease runs.
///
/// One statement, so it never trusts a cursor read earlier. The expired holder's row is locked: a heartbeat that is
/// just committing is waited for and then seen, where a join or `not exists` would take the lease regardless.
///
/// A holder that fell silent in this same life of the server counts as an unclean takeover, and the event that it had
/// marked as tried alone is what it may have died of. When the server restarted in between, nobody is blamed.
pub(crate) async fn take(
    conn: &mut Link<'_>,
    subscription_id: &str,
    replica: &Replica,
) -> sqlx::Result<Option<Lease>> {
    #[cfg(foldd_mutants)]
    if crate::mutants::planted("takeover-by-an-earlier-read") {
        return take_as_read_earlier(conn, subscription_id, replica).await;
    }
    let row = sqlx::query(
        "with expired as materialized (
             select replica_id from es_replicas
             where replica_id = (select holder from es_subscriptions where subscription_id = $1)
               and lease_until <= clock_timestamp() for update)
         update es_subscriptions
         set holder = $2, fence_token = fence_token + 1, holder_incarnation = es_current_incarnation(),
             unclean_takeovers = unclean_takeovers + case
                 when holder <> $2 and holder_incarnation = es_current_incarnation() then 1 else 0 end,
             crashed_position = case
                 when holder <> $2 and holder_incarnation = es_current_incarnation()
                 then coalesce(attempted_position, crashed_position) else crashed_position end,
             crashes = case
                 when holder <> $2 and holder_incarnation = es_current_incarnation() and attempted_position is not null
                 then case when attempted_position = crashed_position then crashes + 1 else 1 end else crashes end,
             accused = case
                 when holder <> $2 and holder_incarnation = es_current_incarnation() and attempted_position is not null
                 then holder else accused end,
             attempted_position = null
         where subscription_id = $1
           and (holder is null or holder = $2 or holder in (select replica_id from expired))
         returning fence_token, last_transaction_id::text::bigint, last_position, unclean_takeovers, crashed_position,
                   crashes, applied_events",
    )
    .bind(subscription_id)
    .bind(replica.id)
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let stamp: i64 = row.try_get(1)?;
        let cursor = Cursor::from((stamp.cast_unsigned(), row.try_get(2)?));
        Ok(Lease {
            fence_token: row.try_get(0)?,
            cursor,
            unclean_takeovers: row.try_get(3)?,
            crashed_position: row.try_get(4)?,
            crashes: row.try_get(5)?,
            applied_events: row.try_get(6)?,
        })
    })
    .transpose()
}

/// The bug that `make mutants` calls `takeover-by-an-earlier-read`: whether it is free and where it stands is read first, and the
/// lease taken afterwards.
#[cfg(foldd_mutants)]
async fn take_as_read_earlier(
    conn: &mut Link<'_>,
    subscription_id: &str,
    replica: &Replica,
) -> sqlx::Result<Option<Lease>> {
    let (stamp, position, is_free): (i64, i64, bool) = sqlx::query_as(
        "select last_transaction_id::text::bigint, last_position, s.holder is null or s.holder = $2 or not exists (
             select from es_replicas r where r.replica_id = s.holder and r.lease_until > clock_timestamp())
         from es_subscriptions s where subscription_id = $1",
    )
    .bind(subscription_id)
    .bind(replica.id)
    .fetch_one(&mut *conn)
    .await?;
    if !is_free {
        return Ok(None);
    }
    let fence_token = sqlx::query_scalar(
        "update es_subscriptions set holder = $2, fence_token = fence_token + 1 from (select pg_sleep(0.5)) later
         where subscription_id = $1 returning fence_token",
    )
    .bind(subscription_id)
    .bind(replica.id)
    .fetch_one(conn)
    .await?;
    let cursor = Cursor::from((stamp.cast_unsigned(), position));
    Ok(Some(Lease {
        fence_token,
        cursor,
        applied_events: 0,
        unclean_takeovers: 0,
        crashed_position: None,
        crashes: 0,
    }))
}

/// Notes, before it is tried alone, which event it is: should the process die of it, the next holder knows. `false`
/// when the lease is lost.
pub(crate) async fn mark_attempt(
    conn: &mut Link<'_>,
    subscription_id: &str,
    lease: &Lease,
    position: i64,
) -> sqlx::Result<bool> {
    let marked = sqlx::query(
        "update es_subscriptions set attempted_position = $3 where subscription_id = $1 and fence_token = $2",
    )
    .bind(subscription_id)
    .bind(lease.fence_token)
    .bind(position)
    .execute(conn)
    .await?;
    Ok(marked.rows_affected() == 1)
}

/// The events that were tried one by one went well: nobody is suspected any more.
pub(crate) async fn clear_suspicion(
    conn: &mut Link<'_>,
    subscription_id: &str,
    lease: &Lease,
) -> sqlx::Result<()> {
    sqlx::query(
        "update es_subscriptions set attempted_position = null, unclean_takeovers = 0
         where subscription_id = $1 and fence_token = $2",
    )
    .bind(subscription_id)
    .bind(lease.fence_token)
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives one subscription back: whoever is to have it takes it at once. Nothing happens where the lease is lost already.
pub(crate) async fn release(conn: &mut Link<'_>, subscription_id: &str, lease: &Lease) -> sqlx::Result<()> {
    sqlx::query(
        "update es_subscriptions set holder = null, attempted_position = null
         where subscription_id = $1 and fence_token = $2",
    )
    .bind(subscription_id)
    .bind(lease.fence_token)
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives back everything but what is still in hand, and says that this replica is leaving, at one stroke: nobody who sees
/// the one without the other would leave the free ones to it.
pub(crate) async fn leave(conn: &mut Link<'_>, replica: &Replica, in_hand: &[String]) -> sqlx::Result<u64> {
    let given = sqlx::query(
        "with leaving as (update es_replicas set draining = true where replica_id = $1)
         update es_subscriptions set holder = null, attempted_position = null
         where holder = $1 and subscription_id <> all ($2)",
    )
    .bind(replica.id)
    .bind(in_hand)
    .execute(conn)
    .await?;
    Ok(given.rows_affected())
}

/// Gives everything back and signs off: the next replica takes over at once.
///
/// Two statements, subscriptions first: their rows refer to the replica's.
pub(crate) async fn release_all(conn: &mut Link<'_>, replica: &Replica) -> sqlx::Result<()> {
    leave(&mut *conn, replica, &[]).await?;
    sqlx::query("delete from es_replicas where replica_id = $1").bind(replica.id).execute(conn).await?;
    Ok(())
}
