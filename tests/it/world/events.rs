//! Many events at once, the log as a test reads it, and what tables hold.

use serde_json::Value;
use sqlx::AssertSqlSafe;

use super::World;

/// An event as a test reads it, to compute what a projection should give.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) global_position: i64,
    pub(crate) stream_id: String,
    pub(crate) stream_category: String,
    pub(crate) event_type: String,
    pub(crate) data: Value,
}

impl World {
    /// Appends many events of one category in one transaction, over 97 streams and four types: `Placed`, `Paid`,
    /// `Shipped` and `Noted`. Each one's `amount` is its number.
    pub(crate) async fn seed(&self, category: &str, events: i64) {
        sqlx::query(
            "select es_append_many(array_agg(stream), array_agg($1), array_agg(kind), array_agg(data),
                                   array_agg('{}'::jsonb), array_agg(gen_random_uuid()))
             from (select $1 || '-' || i * 7919 % 97, (array['Placed', 'Paid', 'Shipped', 'Noted'])[1 + i * i * 31 % 7 % 4],
                          jsonb_build_object('amount', i)
                   from generate_series(1, $2) i) given (stream, kind, data)",
        )
        .bind(category)
        .bind(events)
        .execute(&self.pool)
        .await
        .unwrap_or_else(|error| panic!("seed {category}: {error}"));
    }

    /// The whole log, in the order in which projections read it.
    pub(crate) async fn log(&self) -> Vec<Logged> {
        let rows: Vec<(i64, String, String, String, Value)> = sqlx::query_as(
            "select global_position, stream_id, stream_category, event_type, data
             from es_events order by transaction_id, global_position",
        )
        .fetch_all(&self.pool)
        .await
        .expect("the log can be read");
        let logged = |(global_position, stream_id, stream_category, event_type, data)| Logged {
            global_position,
            stream_id,
            stream_category,
            event_type,
            data,
        };
        rows.into_iter().map(logged).collect()
    }

    /// All rows of a table as PostgreSQL prints them, sorted.
    pub(crate) async fn rows(&self, table: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(format!("select t::text from {table} t order by 1")))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{table}: {error}"))
    }
}
