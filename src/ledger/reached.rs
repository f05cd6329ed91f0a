//! Whether projections have reached places in the log: what `wait` asks, for one or for a thousand at once.

use std::collections::HashMap;

use crate::cursor::Cursor;
use crate::store::{self, Link};

/// How far one projection has come, every partition of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Events with a lower stamp can be read.
    horizon: u64,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    checkpoint: Cursor,
    /// The first event that it has still to apply, below the horizon.
    next: Option<Cursor>,
}

impl Progress {
    /// Whether everything up to a cursor is in the read model.
    ///
    /// Also when the checkpoint is short of it, but no event of its own lies between and none can appear any more.
    pub(crate) fn has_reached(&self, target: Cursor) -> bool {
        let is_settled = target.transaction_id < self.horizon;
        self.parts.iter().all(|part| {
            target <= part.checkpoint || (is_settled && part.next.is_none_or(|next| target < next))
        })
    }
}

/// A name, stamp and position of its checkpoint, and of the next event where there is one.
type Row = (String, i64, i64, Option<i64>, Option<i64>);

/// How far projections have come, by name: of each its live version, or the newest while none is live. Names that are
/// not in the answer are no projection's. Costs the same statements for any number of names.
pub(crate) async fn progress(
    conn: &mut Link<'_>,
    names: &[String],
) -> store::Result<HashMap<String, Progress>> {
    let horizon = store::glance(conn).await?.horizon.transaction_id();
    let rows: Vec<Row> = sqlx::query_as(
        "select wanted.name, s.last_transaction_id::text::bigint, s.last_position,
                e.transaction_id::text::bigint, e.global_position
         from unnest($1::text[]) as wanted (name)
         cross join lateral (select p.projection_id from es_projections p where p.projection_name = wanted.name and p.role <> 'retired'
                             order by p.role = 'live' desc, p.version desc, p.generation desc limit 1) p
         join es_subscriptions s on s.projection_id = p.projection_id
         left join lateral es_next_own(s.subscription_id, $2::xid8) e on true",
    )
    .bind(names)
    .bind(horizon.to_string())
    .fetch_all(conn)
    .await?;
    let mut progress: HashMap<String, Progress> = HashMap::new();
    let cursor = |stamp: i64, position| Cursor::from((stamp.cast_unsigned(), position));
    for (name, stamp, position, next_stamp, next_position) in rows {
        let next = next_stamp.zip(next_position).map(|(stamp, position)| cursor(stamp, position));
        let part = Part { checkpoint: cursor(stamp, position), next };
        progress.entry(name).or_insert_with(|| Progress { horizon, parts: Vec::new() }).parts.push(part);
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::{Part, Progress};
    use crate::cursor::Cursor;

    #[test]
    fn a_place_is_reached_by_the_checkpoint_or_because_nothing_lies_before_it() {
        let at = |stamp, position| Cursor::from((stamp, position));
        let behind = Part { checkpoint: at(10, 5), next: Some(at(12, 8)) };
        let idle = Part { checkpoint: at(3, 0), next: None };
        let of = |parts: &[Part]| Progress { horizon: 20, parts: parts.to_vec() };
        for (target, reached) in
            [(at(10, 5), true), (at(12, 7), true), (at(12, 8), false), (at(19, 0), false)]
        {
            assert_eq!(of(&[behind]).has_reached(target), reached, "{target}");
            assert_eq!(of(&[behind, idle]).has_reached(target), reached, "{target}");
        }
        for (target, reached) in [(at(19, 99), true), (at(20, 0), false), (at(3, 0), true)] {
            assert_eq!(of(&[idle]).has_reached(target), reached, "{target}");
        }
    }
}
