//! Where it is measured: a PostgreSQL of its own with fsync on, databases in it, and logs of any length.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use foldd::embedded::{Options, Server};
use foldd::{Cursor, Daemon, EventStore};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tokio_util::sync::CancellationToken;

use crate::account::CHANGES;
use crate::watch::{self, CaughtUp};

/// Events that are appended at once when a log is made. Each such block has one stamp.
const BLOCK: i64 = 1_000;
/// Nothing that is measured takes longer.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// A server.
pub(crate) struct Lab {
    server: Server,
}

impl Lab {
    /// Starts a server as `foldd run --embedded` does, but in a temporary folder. It is gone when this is
    /// dropped.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let server = Server::start(Options { data_dir: None, durable: true, settings }).await?;
        Ok(Self { server })
    }

    /// The server's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.server.socket_dir().join(".s.PGSQL.5432")
    }

    /// A migrated database without events.
    pub(crate) async fn database(&self, name: &str) -> anyhow::Result<Database> {
        self.server.create_database(name).await?;
        let url = self.server.url(name);
        let options: PgConnectOptions = url.parse()?;
        // Without a question to the server each time that a connection is taken: it would be measured with
        // everything.
        let pool =
            PgPoolOptions::new().max_connections(20).test_before_acquire(false).connect_with(options).await?;
        EventStore::new(pool.clone()).migrate().await?;
        Ok(Database { url, pool })
    }
}

/// A database.
#[derive(Clone)]
pub(crate) struct Database {
    /// Where it is.
    pub(crate) url: String,
    /// Connections to it.
    pub(crate) pool: PgPool,
}

impl Database {
    /// The event store in it.
    pub(crate) fn store(&self) -> EventStore {
        EventStore::new(self.pool.clone())
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.with_context(|| sql.to_owned())?;
        Ok(())
    }

    /// One number.
    pub(crate) async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let sql = format!("select coalesce(({sql})::bigint, 0)");
        sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&self.pool).await.context(sql)
    }

    /// Fails unless a projection's balances are the sums of the log.
    pub(crate) async fn check_balances(&self, name: &str, category: &str) -> anyhow::Result<()> {
        let sum = self.number(&format!("select sum(cents) from {name}.balance")).await?;
        let wanted = format!(
            "select sum(sum) from (select {CHANGES} from es_events where stream_category = '{category}' group by 1) given"
        );
        ensure!(sum == self.number(&wanted).await?, "the balances of {name} are wrong");
        Ok(())
    }

    /// The cursor behind the event at a position, in a log made by [`seed`](Self::seed) alone; 0 is the
    /// start.
    pub(crate) async fn cursor_at(&self, position: i64) -> anyhow::Result<Cursor> {
        let sql =
            format!("select transaction_id::text::bigint from es_events where global_position = {position}");
        let stamp = self.number(&sql).await?;
        Ok(Cursor::from((stamp.unsigned_abs(), position)))
    }

    /// Appends so many events of a category, over so many accounts in no order: three deposits to a
    /// withdrawal. Then leaves the server as one that has been up for a while: statistics known, nothing left
    /// to write.
    pub(crate) async fn seed(&self, category: &str, events: i64, accounts: i64) -> anyhow::Result<()> {
        tracing::info!("appending {events} events of category {category}");
        let mut first = 1;
        while first <= events {
            let last = (first + BLOCK - 1).min(events);
            sqlx::query(
                "select es_append_many(array_agg(stream), array_agg($1), array_agg(kind), array_agg(data),
                                       array_agg('{}'::jsonb), array_agg(gen_random_uuid()))
                 from (select $1 || '-' || (hashint8(i) & 2147483647) % $2 as stream, kind,
                              jsonb_build_object('type', kind, 'cents', 100 + i % 900,
                                                 'reference', 'transfer ' || i) as data
                       from generate_series($3, $4) i
                       cross join lateral (values (case i % 4 when 0 then 'Withdrawn'
                                                               else 'Deposited' end)) k (kind)
                       order by i) given",
            )
            .bind(category)
            .bind(accounts)
            .bind(first)
            .bind(last)
            .execute(&self.pool)
            .await?;
            first = last + 1;
        }
        self.execute("vacuum analyze es_events").await?;
        self.execute("vacuum analyze es_streams").await?;
        self.execute("checkpoint").await
    }

    /// Runs a daemon until a subscription is live, and ends it.
    pub(crate) async fn catch_up(&self, daemon: Daemon, subscription: &str) -> anyhow::Result<CaughtUp> {
        self.run_until(daemon, &[subscription.to_owned()], watch::caught_up(subscription)).await
    }

    /// The same with several subscriptions; how long the slowest took.
    pub(crate) async fn catch_up_all(
        &self,
        daemon: Daemon,
        subscriptions: &[String],
    ) -> anyhow::Result<Duration> {
        let all = async {
            let each = subscriptions.iter().map(|subscription| watch::caught_up(subscription));
            futures_util::future::join_all(each).await
        };
        let caught_up = self.run_until(daemon, subscriptions, all).await?;
        Ok(caught_up.iter().map(|one| one.took).max().unwrap_or_default())
    }

    async fn run_until<T>(
        &self,
        daemon: Daemon,
        subscriptions: &[String],
        seen: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        subscriptions.iter().for_each(|subscription| watch::forget(subscription));
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let mut running = tokio::spawn(daemon.run(self.pool.clone(), cancel.clone()));
        let caught_up = tokio::select! {
            caught_up = tokio::time::timeout(PATIENCE, seen) => {
                caught_up.context("it takes too long")?
            }
            ended = &mut running => {
                ended??;
                anyhow::bail!("the daemon ended by itself");
            }
        };
        drop(guard);
        running.await??;
        Ok(caught_up)
    }
}

/// So many a second.
pub(crate) fn rate(number: i64, took: Duration) -> f64 {
    number as f64 / took.as_secs_f64()
}
