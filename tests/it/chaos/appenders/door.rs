//! The doors of the store, through a link that may be hurt. A connection that has failed once is not used
//! again.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use foldd::{EventData, EventStore, EventStoreError, ExpectedVersion};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::time::sleep;

use super::{DEADLINE, Draft, Kind};
use crate::chaos::stage::Stage;

type Result<T> = std::result::Result<T, EventStoreError>;

/// How an attempt ended that nothing happened to.
#[derive(Debug)]
pub(super) enum Ending {
    Committed,
    RolledBack,
}

pub(super) struct Door {
    kind: Kind,
    stage: Arc<Stage>,
    pool: Option<PgPool>,
    session: Option<PgConnection>,
    /// How often it has failed.
    life: u32,
}

impl Door {
    pub(super) fn new(kind: Kind, stage: Arc<Stage>) -> Self {
        Self { kind, stage, pool: None, session: None, life: 0 }
    }

    /// Throws the connection away: what it still does is unknown.
    pub(super) fn slam(&mut self) {
        (self.pool, self.session) = (None, None);
        self.life += 1;
    }

    pub(super) async fn attempt(&mut self, draft: &Draft, random: &mut Rng) -> Result<Ending> {
        let (stream, events) = &draft.parts[0];
        match self.kind {
            Kind::Single => {
                let call = self.call(draft);
                sqlx::raw_sql(AssertSqlSafe(call)).execute(self.session().await?).await?;
            }
            Kind::Block => {
                self.store().append_many(&draft.block()).await?;
            }
            Kind::Expected => {
                let store = self.store();
                let version = store
                    .append(stream, "account", ExpectedVersion::Any, &[] as &[foldd::Event<super::Drafted>])
                    .await?
                    .version;
                let old = i64::from(version > 1 && random.u32(..6) == 0);
                let expected = if version == 0 {
                    ExpectedVersion::NoStream
                } else {
                    ExpectedVersion::Exact(version - old)
                };
                store.append(stream, "account", expected, events).await?;
            }
            Kind::Late => {
                let early = "begin; select pg_current_xact_id()";
                sqlx::raw_sql(early).execute(self.session().await?).await?;
                sleep(Duration::from_millis(random.u64(50..1_500))).await;
                let call = self.call(draft);
                let session = self.session().await?;
                finish(session, &call, "commit").await?;
            }
            Kind::Lingering => {
                let store = self.store();
                let mut scope = store.begin_transaction().await?;
                for (stream, events) in &draft.parts {
                    scope.append(stream, "account", ExpectedVersion::Any, events).await?;
                }
                sleep(Duration::from_millis(random.u64(5..400))).await;
                scope.commit().await?;
            }
            Kind::Regretful => {
                let call = format!("begin; {}", self.call(draft));
                finish(self.session().await?, &call, "rollback").await?;
                return Ok(Ending::RolledBack);
            }
            Kind::Plain => self.insert(draft).await?,
            Kind::Import => self.import(draft).await?,
        }
        Ok(Ending::Committed)
    }

    /// `es_append` as anybody may call it.
    fn call(&self, draft: &Draft) -> String {
        let (stream, events) = &draft.parts[0];
        let list = |each: &dyn Fn(&foldd::Event<super::Drafted>) -> String| {
            events.iter().map(|event| format!("'{}'", each(event))).collect::<Vec<_>>().join(", ")
        };
        format!(
            "select es_append('{stream}', null, null, array[{}], array[{}]::jsonb[], null, array[{}]::uuid[])",
            list(&|event| event.data.event_type().to_owned()),
            list(&|event| json!(event.data).to_string()),
            list(&|event| event.event_id.to_string()),
        )
    }

    /// Without `es_append`: the row of the stream, then the events. A stream whose last append may still be under way is
    /// left for a new one: two at once could come out of order, as the README says of such writers.
    async fn insert(&mut self, draft: &Draft) -> Result<()> {
        let (stream, events) = (format!("account-plain{}", self.life), &draft.parts[0].1);
        let mut statements = vec![format!(
            "begin; insert into es_streams as s (stream_id, stream_category, stream_version)
             values ('{stream}', 'account', {n})
             on conflict (stream_id) do update set stream_version = s.stream_version + {n}",
            n = events.len()
        )];
        for (event, left) in events.iter().zip((0..events.len()).rev()) {
            let (kind, data, id) = (event.data.event_type(), json!(event.data), event.event_id);
            statements.push(format!(
                "insert into es_events (stream_id, stream_version, event_type, data, event_id)
                 select '{stream}', stream_version - {left}, '{kind}', '{data}', '{id}'
                 from es_streams where stream_id = '{stream}'"
            ));
        }
        finish(self.session().await?, &statements.join("; "), "commit").await
    }

    /// The command itself. It ends well only when all lines are in.
    async fn import(&mut self, draft: &Draft) -> Result<()> {
        let name = format!("chaos-{}.jsonl", draft.number);
        let mut command = {
            let world = self.stage.world.read().await;
            let path = world.dir().join(&name);
            if !path.exists() {
                std::fs::write(&path, draft.lines()).expect("a file can be written");
            }
            let mut command = world.command(&["import", &name, "--resume", "--quiet"]);
            command.env("DATABASE_URL", self.stage.front());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            tokio::process::Command::from(command)
        };
        let status = command.kill_on_drop(true).status().await.expect("the binary can be started");
        if status.success() { Ok(()) } else { Err(sqlx::Error::WorkerCrashed.into()) }
    }

    /// Connects where that is still to be done. Who cannot has not appended anything.
    pub(super) async fn open(&mut self) -> Result<()> {
        match self.kind {
            Kind::Block | Kind::Expected | Kind::Lingering => {
                self.store();
                if let Some(pool) = &self.pool {
                    pool.acquire().await?;
                }
            }
            Kind::Single | Kind::Late | Kind::Regretful | Kind::Plain => {
                self.session().await?;
            }
            Kind::Import => {}
        }
        Ok(())
    }

    async fn session(&mut self) -> sqlx::Result<&mut PgConnection> {
        if self.session.is_none() {
            let opened = PgConnection::connect(&self.stage.front()).await?;
            self.session = Some(opened);
        }
        self.session.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// The library, with a connection of its own.
    fn store(&mut self) -> EventStore {
        let pool = self.pool.get_or_insert_with(|| {
            let options = self.stage.front().parse().expect("the URL is right");
            PgPoolOptions::new().max_connections(1).acquire_timeout(DEADLINE).connect_lazy_with(options)
        });
        EventStore::new(pool.clone())
    }
}

/// The last statements of a transaction. One that failed is ended, so that the session can be used again.
async fn finish(session: &mut PgConnection, statements: &str, end: &str) -> Result<()> {
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *session).await {
        if error.as_database_error().is_some() {
            sqlx::raw_sql("rollback").execute(session).await?;
        }
        return Err(error.into());
    }
    sqlx::raw_sql(AssertSqlSafe(end)).execute(session).await?;
    Ok(())
}
