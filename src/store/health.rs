//! Whether the store is as its migrations left it. A hand on the tables may have been faster than foldd.
//!
//! One question to the catalogs, asked at every start and before every verb; milliseconds at any size of the log.

use super::order::require_order;
use super::{Link, Result};
use crate::error::EventStoreError;

/// The indexes of `es_events` that appending and reading rest on: columns, name, whether it is unique.
const INDEXES: [(&str, &str, bool); 5] = [
    ("global_position", "es_events_pkey", true),
    ("stream_id, stream_version", "es_events_stream_id_stream_version_key", true),
    ("event_id", "es_events_event_id_key", true),
    ("stream_category, transaction_id, global_position", "es_events_category_order_idx", false),
    ("transaction_id, global_position", "es_events_order_idx", false),
];

/// Fails when the server is a standby, an index is missing, positions are drawn out of order, or stamps are ahead of
/// the cluster.
///
/// # Errors
/// [`InRecovery`](EventStoreError::InRecovery), [`Unsound`](EventStoreError::Unsound) and
/// [`AheadOfCluster`](EventStoreError::AheadOfCluster).
pub(crate) async fn require_sound(conn: &mut Link<'_>) -> Result<()> {
    if sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut *conn).await? {
        return Err(EventStoreError::InRecovery);
    }
    if let Some((problem, remedy)) = unsound(conn).await? {
        return Err(EventStoreError::Unsound { problem, remedy });
    }
    require_order(conn).await
}

/// What is wrong with indexes and the sequence of positions, and what to do about it.
///
/// An index is known by its columns, whatever its name. One that is being built, or whose building failed, does not count.
pub(super) async fn unsound(conn: &mut Link<'_>) -> Result<Option<(String, String)>> {
    let (sequence, cache, indexes): (Option<String>, Option<i64>, Vec<String>) = sqlx::query_as(
        "select seqrelid::regclass::text, seqcache,
                    array(select case when i.indisunique then 'unique ' else '' end
                                 || (select string_agg(a.attname, ', ' order by key.nth)
                                     from unnest(i.indkey) with ordinality key (attnum, nth)
                                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = key.attnum)
                          from pg_index i
                          where i.indrelid = 'es_events'::regclass and i.indisvalid and i.indpred is null
                            and i.indexprs is null)
             from (select pg_get_serial_sequence('es_events', 'global_position')::regclass) as drawn (oid)
             left join pg_sequence on seqrelid = drawn.oid",
    )
    .fetch_one(conn)
    .await?;
    for (columns, name, unique) in INDEXES {
        let is_it = |found: &String| match found.strip_prefix("unique ") {
            Some(found) => found == columns,
            None => !unique && found == columns,
        };
        if !indexes.iter().any(is_it) {
            let kind = if unique { "unique index" } else { "index" };
            return Ok(Some((
                format!("index {name} of es_events is missing or invalid"),
                format!(
                    "drop what is left of it, then create {kind} concurrently {name} on es_events ({columns})"
                ),
            )));
        }
    }
    Ok(match (sequence, cache) {
        (Some(sequence), Some(cache)) if cache > 1 => Some((
            format!(
                "sequence {sequence} has a cache of {cache}, so sessions draw global positions out of order"
            ),
            format!("alter sequence {sequence} cache 1, then let every session that appends reconnect"),
        )),
        _ => None,
    })
}

/// The schema that has a store which this session does not see.
pub(super) async fn unseen_schema(conn: &mut Link<'_>) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(
        "select quote_ident(n.nspname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.relname = 'es_migrations' and c.relkind = 'r' and not pg_table_is_visible(c.oid)
         order by 1 limit 1",
    )
    .fetch_optional(conn)
    .await?)
}
