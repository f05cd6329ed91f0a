//! Whether the log's stamps fit the cluster it lives in, and what to do when they do not.
//!
//! Stamps come from the cluster's transaction counter, and a dump carries the stamps but not the counter. Restored into a
//! younger cluster, history would be hidden and new events skipped. So a daemon asks at its start and every minute, and
//! ends rather than lose an event; [`rebase`] repairs it. The argument stands in `migrations/0010_restore.sql`.

use std::time::Duration;

use serde::Serialize;

use super::{Horizon, Link, Result};
use crate::error::EventStoreError;

/// Everybody who appends queues behind a rebase that waits for its lock; it gives up before it is noticed.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '300ms'";
/// How often it asks for the lock again, and for how long it lets the others through in between.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(200);

/// Fails when stamps or checkpoints are ahead of what this cluster counts.
///
/// # Errors
/// [`AheadOfCluster`](EventStoreError::AheadOfCluster).
pub(crate) async fn require_order(conn: &mut Link<'_>) -> Result<()> {
    let order = Order::read(conn).await?;
    if order.is_ahead {
        return Err(EventStoreError::AheadOfCluster {
            greatest: order.greatest_stamp.cast_unsigned(),
            next: order.next_transaction_id.cast_unsigned(),
        });
    }
    Ok(())
}

/// Fails as [`require_order`] does, or when the log came from another cluster and was appended to before anybody looked.
/// Else makes itself at home: notes the cluster, and finds the projections' schemas under their new OIDs.
///
/// # Errors
/// [`AheadOfCluster`](EventStoreError::AheadOfCluster) and [`Skipped`](EventStoreError::Skipped).
pub(crate) async fn settle(conn: &mut Link<'_>) -> Result<()> {
    require_order(conn).await?;
    let home = Home::read(conn).await?;
    if home.moved() {
        if let Some(skipped) = skipped(conn).await?.into_iter().next() {
            return Err(skipped.into());
        }
        tracing::info!(
            from = home.noted_system,
            to = home.system,
            "the log has come to another cluster, whose transaction ids go on from its own: nothing to repair"
        );
    }
    if home.moved() || home.timeline != home.noted_timeline {
        sqlx::query("select es_settle()").execute(conn).await?;
    }
    Ok(())
}

/// Notes how far the log has been read, for the day when it is restored from a dump.
pub(crate) async fn note_horizon(conn: &mut Link<'_>, horizon: &Horizon) -> Result<()> {
    sqlx::query("select es_note_horizon($1::xid8, $2)")
        .bind(horizon.transaction_id().to_string())
        .bind(horizon.incarnation())
        .execute(conn)
        .await?;
    Ok(())
}

/// How the greatest stamp stands to the cluster's counter.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) greatest_stamp: i64,
    pub(super) next_transaction_id: i64,
    pub(super) is_ahead: bool,
}

impl Order {
    pub(super) async fn read(conn: &mut Link<'_>) -> Result<Self> {
        let (greatest_stamp, next_transaction_id, is_ahead) = sqlx::query_as(
            "select greatest_stamp::text::bigint, next_transaction_id::text::bigint, is_ahead from es_order()",
        )
        .fetch_one(conn)
        .await?;
        Ok(Self { greatest_stamp, next_transaction_id, is_ahead })
    }
}

/// Where the log is, and where it was when somebody last looked.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) system: i64,
    pub(super) timeline: i32,
    pub(super) noted_system: i64,
    pub(super) noted_timeline: i32,
}

impl Home {
    pub(super) async fn read(conn: &mut Link<'_>) -> Result<Self> {
        let (system, timeline, noted_system, noted_timeline) = sqlx::query_as(
            "select w.system_identifier, w.timeline, m.system_identifier, m.timeline
             from es_where_we_are() w, es_meta m",
        )
        .fetch_one(conn)
        .await?;
        Ok(Self { system, timeline, noted_system, noted_timeline })
    }

    /// Whether this is another cluster.
    pub(super) fn moved(&self) -> bool {
        self.system != self.noted_system
    }
}

/// Events that somebody's checkpoint has passed unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// The subscription, or `the horizon`.
    pub(crate) witness: String,
    /// How many.
    pub(crate) events: i64,
    /// The lowest position among them.
    pub(crate) first_position: i64,
}

impl From<Skipped> for EventStoreError {
    fn from(skipped: Skipped) -> Self {
        let Skipped { witness, events, first_position } = skipped;
        Self::Skipped { witness, events, first_position }
    }
}

/// All of them: an index walk from each checkpoint's time to the end of the log.
pub(crate) async fn skipped(conn: &mut Link<'_>) -> Result<Vec<Skipped>> {
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("select witness, events, first_position from es_skipped_events() order by 1")
            .fetch_all(conn)
            .await?;
    let skipped = |(witness, events, first_position)| Skipped { witness, events, first_position };
    Ok(rows.into_iter().map(skipped).collect())
}

/// What a rebase did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rebase {
    /// Whether there is anything to do.
    pub(crate) needed: bool,
    /// Whether it was done.
    pub(crate) done: bool,
    /// The greatest stamp or checkpoint.
    pub(crate) greatest_stamp: i64,
    /// The next transaction, as the log counted it before.
    pub(crate) next_transaction_id: i64,
    /// What was added to the cluster's own count before.
    pub(crate) old_offset: i64,
    /// What is added from now on.
    pub(crate) new_offset: i64,
    /// Events that checkpoints had passed unseen and that were stamped anew, with later versions of their streams.
    pub(crate) restamped: i64,
    /// Events that checkpoints have passed unseen and that wait for a repair.
    pub(crate) skipped: Vec<Skipped>,
}

/// What a rebase would do. Changes nothing.
pub(crate) async fn plan_rebase(conn: &mut Link<'_>) -> Result<Rebase> {
    let order = Order::read(conn).await?;
    let old_offset: i64 =
        sqlx::query_scalar("select es_counted('0')::text::bigint").fetch_one(&mut *conn).await?;
    let behind = (order.greatest_stamp + 1 - order.next_transaction_id).max(0);
    let skipped = skipped(conn).await?;
    Ok(Rebase {
        needed: order.is_ahead || !skipped.is_empty(),
        done: false,
        greatest_stamp: order.greatest_stamp,
        next_transaction_id: order.next_transaction_id,
        old_offset,
        new_offset: old_offset + behind,
        restamped: 0,
        skipped,
    })
}

/// Makes the log count on from above its greatest stamp, in one short transaction. `repair` also stamps anew what was
/// appended since the restore.
///
/// # Errors
/// [`Skipped`](EventStoreError::Skipped) when there is something to repair and `repair` was not said.
pub(crate) async fn rebase(conn: &mut Link<'_>, repair: bool) -> Result<Rebase> {
    let plan = plan_rebase(conn).await?;
    if !plan.needed {
        settle(conn).await?;
        return Ok(plan);
    }
    if let Some(skipped) = plan.skipped.first()
        && !repair
    {
        return Err(skipped.clone().into());
    }
    let mut tries = 1;
    loop {
        let mut tx = conn.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut tx).await?;
        let done: sqlx::Result<(i64, i64, i64)> =
            sqlx::query_as("select old_offset, new_offset, restamped from es_rebase($1)")
                .bind(repair)
                .fetch_one(&mut tx)
                .await;
        match done {
            Ok((old_offset, new_offset, restamped)) => {
                tx.commit().await?;
                return Ok(Rebase {
                    done: true,
                    old_offset,
                    new_offset,
                    restamped,
                    skipped: Vec::new(),
                    ..plan
                });
            }
            Err(error) if tries < TRIES && is_lock_timeout(&error) => {
                tx.rollback().await?;
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}
