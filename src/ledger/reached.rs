//! Whether a projection has reached a place in the log: what `wait` asks.

use crate::cursor::Cursor;
use crate::store::{self, Link};

/// The answer to one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Everything up to the place is in the read model.
    Yes,
    /// Not yet.
    NotYet,
    /// There is no projection of this name.
    Unknown,
}

/// Whether the live version of a projection, or the newest while none is live, has applied everything up to a cursor.
///
/// Also when its checkpoint is short of it, but no event of its categories lies between and none can appear any more.
pub(crate) async fn reached(conn: &mut Link<'_>, name: &str, target: Cursor) -> store::Result<Reached> {
    let horizon = store::glance(conn).await?.horizon;
    let answer: Option<bool> = sqlx::query_scalar(
        "select (select bool_and(
                     (s.last_transaction_id, s.last_position) >= ($2::xid8, $3)
                     or ($4::xid8 > $2::xid8 and not exists (
                         select from es_next_own(s.subscription_id, $4::xid8) e
                         where (e.transaction_id, e.global_position) <= ($2::xid8, $3))))
                 from es_subscriptions s where s.projection_id = p.projection_id)
         from es_projections p
         where p.projection_name = $1 and p.role <> 'retired'
         order by p.role = 'live' desc, p.version desc, p.generation desc limit 1",
    )
    .bind(name)
    .bind(target.transaction_id.to_string())
    .bind(target.global_position)
    .bind(horizon.transaction_id().to_string())
    .fetch_optional(conn)
    .await?;
    Ok(match answer {
        None => Reached::Unknown,
        Some(true) => Reached::Yes,
        Some(false) => Reached::NotYet,
    })
}
