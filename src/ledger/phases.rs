//! What holders publish about their subscriptions (`es_phases`), for whoever asks from elsewhere.

use std::collections::HashMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use crate::store::{Horizon, Link};

/// An event that a message is about. A reference, never its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EventRef {
    /// Its global position.
    pub(crate) position: i64,
    /// Its stream.
    pub(crate) stream_id: String,
    /// Its type.
    pub(crate) event_type: String,
}

impl fmt::Display for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' at position {}, stream {}", self.event_type, self.position, self.stream_id)
    }
}

/// Why a subscription does not move, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Trouble {
    /// What happened.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) remedy: String,
    /// PostgreSQL's code for it, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sqlstate: Option<String>,
    /// File and line of the handler, where one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    /// The event it failed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<EventRef>,
}

/// One line of the board as it is published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Published {
    pub(crate) subscription_id: String,
    pub(crate) phase: &'static str,
    pub(crate) error: Option<Trouble>,
    pub(crate) events_per_second: f64,
    pub(crate) lag_events: i64,
    pub(crate) lag_seconds: f64,
    /// How many events of its categories come in, a second.
    pub(crate) arriving_per_second: f64,
}

/// Publishes all lines that changed, in one statement.
pub(crate) async fn publish(conn: &mut Link<'_>, lines: &[Published]) -> sqlx::Result<()> {
    sqlx::query(
        "insert into es_phases as p
             (subscription_id, phase, error, events_per_second, lag_events, lag_seconds, arriving_per_second)
         select subscription_id, phase, error, events_per_second, lag_events, lag_seconds, arriving_per_second
         from unnest($1::text[], $2::text[], $3::jsonb[], $4::float8[], $5::bigint[], $6::float8[], $7::float8[])
              as given (subscription_id, phase, error, events_per_second, lag_events, lag_seconds, arriving_per_second)
         order by subscription_id
         on conflict (subscription_id) do update
         set phase = excluded.phase, error = excluded.error, events_per_second = excluded.events_per_second,
             lag_events = excluded.lag_events, lag_seconds = excluded.lag_seconds,
             arriving_per_second = excluded.arriving_per_second, changed_at = clock_timestamp()",
    )
    .bind(lines.iter().map(|line| line.subscription_id.as_str()).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.phase).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.error.as_ref().map(Json)).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.events_per_second).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.lag_events).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.lag_seconds).collect::<Vec<_>>())
    .bind(lines.iter().map(|line| line.arriving_per_second).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets lines of projections that were never built and that nobody configures any more.
pub(crate) async fn forget_others(conn: &mut Link<'_>, unbuilt: &[String]) -> sqlx::Result<()> {
    sqlx::query(
        "delete from es_phases p
         where p.subscription_id <> all ($1)
           and not exists (select from es_subscriptions s where s.subscription_id = p.subscription_id)",
    )
    .bind(unbuilt)
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the lines of subscriptions that are gone, and of versions that could not be built and can be now.
pub(crate) async fn forget(conn: &mut Link<'_>, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query(
        "delete from es_phases p
         where p.subscription_id = any ($1)
           and not exists (select from es_subscriptions s where s.subscription_id = p.subscription_id)",
    )
    .bind(ids)
    .execute(conn)
    .await?;
    Ok(())
}

/// How old the next event of each of these subscriptions is, in seconds, by the server's clock.
pub(crate) async fn oldest_ages(
    conn: &mut Link<'_>,
    subscription_ids: &[String],
    horizon: &Horizon,
) -> sqlx::Result<HashMap<String, f64>> {
    let ages: Vec<(String, f64)> = sqlx::query_as(
        "select s.subscription_id, greatest(extract(epoch from clock_timestamp() - e.created_at), 0)::float8
         from es_subscriptions s
         cross join lateral es_next_own(s.subscription_id, $2::xid8) e
         where s.subscription_id = any ($1)",
    )
    .bind(subscription_ids)
    .bind(horizon.transaction_id().to_string())
    .fetch_all(conn)
    .await?;
    Ok(ages.into_iter().collect())
}

/// The server's clock, in seconds since 1970.
pub(crate) async fn server_time(conn: &mut Link<'_>) -> sqlx::Result<f64> {
    sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8").fetch_one(conn).await
}
