//! One transaction that appends, in any of the ways there are, tried again until it gets through.

use std::time::Duration;

use fastrand::Rng;
use foldd::ExpectedVersion::{self, Any, Exact, NoStream};
use foldd::{Event, EventStoreError, ImportEvent};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::log::{Entry, credits, imported, session};
use crate::world::World;

/// By which door the events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// `append`, a statement of its own.
    Append,
    /// `append_many`, a statement of its own.
    Import,
    /// `append_in_tx`.
    InTx,
    /// A `TransactionScope`.
    Scope,
    /// `es_append` from SQL.
    Sql,
    /// `es_append_many` from SQL.
    Block,
    /// `es_append` from SQL, prepared and then committed by somebody else.
    Prepared,
}

const DOORS: [Door; 7] =
    [Door::Append, Door::Import, Door::InTx, Door::Scope, Door::Sql, Door::Block, Door::Prepared];

/// More tries than a conflict on a hot stream ever needs; whoever expects a version may need them.
const TRIES: u32 = 200;

/// What one writer means to do, the same at each try.
#[derive(Debug)]
pub(in crate::log) struct Turn {
    door: Door,
    isolation: &'static str,
    /// Writes to another table first, and so has its xid for so long before it gets to the log.
    early: Option<Duration>,
    /// Appends something after a savepoint and takes it back.
    has_second_thoughts: bool,
    /// Expects the version that it has read before, else any.
    is_exact: bool,
    /// Rolls all of it back in the end.
    gives_up: bool,
    /// One or two streams, in whichever order, and the events for each.
    parts: Vec<(String, Vec<Event<Entry>>)>,
}

impl Turn {
    /// Draws one. The streams are drawn from the first so many of the category `account`.
    pub(in crate::log) fn draw(random: &mut Rng, streams: usize) -> Self {
        let door = DOORS[random.usize(..DOORS.len())];
        let first = random.usize(..streams);
        let mut numbers = vec![first];
        if random.bool() && door != Door::Append {
            numbers.push((first + random.usize(1..streams)) % streams);
        }
        let mut part = |number| (format!("account-{number}"), credits(random.usize(1..4)));
        Self {
            parts: numbers.into_iter().map(&mut part).collect(),
            door,
            isolation: ["read committed", "repeatable read", "serializable"][random.usize(..3)],
            early: random.bool().then(|| Duration::from_millis([0, 0, 5, 40][random.usize(..4)])),
            has_second_thoughts: random.u8(..4) == 0,
            is_exact: random.bool(),
            gives_up: random.u8(..8) == 0,
        }
    }

    /// The events that it is about.
    pub(in crate::log) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.parts.iter().flat_map(|(_, events)| events).map(|event| event.event_id)
    }

    /// Does it. Says whether its events were acknowledged; if not, none of them may be in the log.
    pub(in crate::log) async fn take(&self, world: &World) -> bool {
        for _ in 0..TRIES {
            match self.attempt(world).await {
                Ok(acknowledged) => return acknowledged,
                Err(error) => {
                    let is_fair =
                        error.is_retryable() || matches!(error, EventStoreError::ConcurrencyConflict { .. });
                    assert!(is_fair, "{self:?}: {error:?}");
                }
            }
        }
        false
    }

    async fn attempt(&self, world: &World) -> Result<bool, EventStoreError> {
        let mut parts = Vec::new();
        for (stream, events) in &self.parts {
            parts.push((stream.as_str(), self.expected(world, stream).await?, events.as_slice()));
        }
        let store = world.store();
        match self.door {
            Door::Append => {
                let (stream, expected, events) = parts[0];
                store.append(stream, "account", expected, events).await?;
                Ok(true)
            }
            Door::Import => {
                store.append_many(&self.block()).await?;
                Ok(true)
            }
            Door::InTx => {
                let mut tx = world.pool().begin().await?;
                self.begin(&mut tx).await?;
                for (stream, expected, events) in parts {
                    store.append_in_tx(&mut tx, stream, "account", expected, events).await?;
                }
                if self.gives_up {
                    tx.rollback().await?
                } else {
                    tx.commit().await?
                }
                Ok(!self.gives_up)
            }
            Door::Scope => {
                let mut scope = store.begin_transaction().await?;
                self.begin(scope.tx()).await?;
                for (stream, expected, events) in parts {
                    scope.append(stream, "account", expected, events).await?;
                }
                if self.gives_up {
                    scope.rollback().await?;
                } else {
                    let committed = scope.commit().await?.into_events();
                    assert!(committed.iter().map(|event| event.event_id).eq(self.ids()), "{self:?}");
                }
                Ok(!self.gives_up)
            }
            Door::Sql | Door::Block => {
                let mut tx = world.pool().begin().await?;
                self.begin(&mut tx).await?;
                if self.door == Door::Block {
                    self.append_block(&mut tx).await?
                } else {
                    append_all(&mut tx, &parts).await?
                }
                if self.gives_up {
                    tx.rollback().await?
                } else {
                    tx.commit().await?
                }
                Ok(!self.gives_up)
            }
            Door::Prepared => {
                let (mut conn, _) = session(world).await;
                execute(&mut conn, "begin").await?;
                self.begin(&mut conn).await?;
                append_all(&mut conn, &parts).await?;
                let name = Uuid::new_v4();
                execute(&mut conn, &format!("prepare transaction '{name}'")).await?;
                drop(conn);
                let end = if self.gives_up { "rollback" } else { "commit" };
                execute(&mut *world.pool().acquire().await?, &format!("{end} prepared '{name}'")).await?;
                Ok(!self.gives_up)
            }
        }
    }

    /// What comes before the events.
    async fn begin(&self, conn: &mut PgConnection) -> Result<(), EventStoreError> {
        execute(conn, &format!("set transaction isolation level {}", self.isolation)).await?;
        if let Some(early) = self.early {
            execute(conn, "insert into beside values (1)").await?;
            tokio::time::sleep(early).await;
        }
        if self.has_second_thoughts {
            let (stream, _) = &self.parts[0];
            execute(conn, "savepoint s").await?;
            append_all(conn, &[(stream, Any, &credits(2))]).await?;
            execute(conn, "rollback to s").await?;
        }
        Ok(())
    }

    async fn expected(&self, world: &World, stream: &str) -> Result<ExpectedVersion, EventStoreError> {
        if !self.is_exact {
            return Ok(Any);
        }
        let version: Option<i64> =
            sqlx::query_scalar("select stream_version from es_streams where stream_id = $1")
                .bind(stream)
                .fetch_optional(world.pool())
                .await?;
        Ok(version.map_or(NoStream, Exact))
    }

    fn block(&self) -> Vec<ImportEvent> {
        let events =
            self.parts.iter().flat_map(|(stream, events)| events.iter().map(move |event| (stream, event)));
        events.map(|(stream, event)| ImportEvent { event_id: event.event_id, ..imported(stream) }).collect()
    }

    async fn append_block(&self, conn: &mut PgConnection) -> Result<(), EventStoreError> {
        let block = self.block();
        sqlx::query(
            "select es_append_many($1, array_fill(null::text, array[n]),
                                   array_fill('Credited'::text, array[n]),
                                   array_fill('{}'::jsonb, array[n]), array_fill('{}'::jsonb, array[n]), $2)
             from cardinality($1) n",
        )
        .bind(block.iter().map(|event| event.stream_id.as_str()).collect::<Vec<_>>())
        .bind(block.iter().map(|event| event.event_id).collect::<Vec<_>>())
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// `es_append` for each stream, as any language calls it.
async fn append_all(
    conn: &mut PgConnection,
    parts: &[(&str, ExpectedVersion, &[Event<Entry>])],
) -> Result<(), EventStoreError> {
    for (stream, expected, events) in parts {
        let expected = match expected {
            Any => None,
            NoStream => Some(-1),
            Exact(version) => Some(*version),
        };
        sqlx::query("select es_append($1, 'account', $2, $3, $4, null, $5)")
            .bind(stream)
            .bind(expected)
            .bind(vec!["Credited"; events.len()])
            .bind(vec![Json(Value::Null); events.len()])
            .bind(events.iter().map(|event| event.event_id).collect::<Vec<_>>())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn execute(conn: &mut PgConnection, sql: &str) -> Result<(), EventStoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}
