//! A connection to the database, used in the same way whether it is direct or goes through a transaction pooler.
//!
//! **Promise.** A statement on a link is a transaction of its own with the limits that the link was opened with, unless
//! it is part of a unit that was begun. What it returns is handed out after its commit was acknowledged.
//!
//! **How.** A direct connection got its limits when it was opened, commits by itself and keeps what it prepared: a link
//! adds nothing to it. A transaction pooler hands out another session of the server for each transaction. It refuses or
//! ignores limits at the opening; and the driver prepares in one message and executes in the next, which may meet two
//! sessions. So a pooled link begins a transaction around each statement, sets the limits with the `begin`, prepares
//! without a name, so that nobody else's statement is met, and commits. `execute` is that part.
//!
//! **What it costs.** A direct link nothing; a pooled one two round trips more for each unit, and one more for each
//! statement.
//!
//! **What it never does.** It repeats nothing. An answer that is lost at the commit is an error like any lost answer.

mod execute;

use std::io;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Row, Transaction};
use uuid::Uuid;

/// A setting that only an opening of ours gives a session: who finds it there is alone with the session.
const MARK: &str = "foldd.link";

const BEGIN: &str = "begin";

/// How often the server looks, while it computes, whether we are still there. A statement that swallows its own timeout
/// ends by nothing else once we have hung up, and would hold the horizon for everybody. A pooler is always there.
const PRESENCE_CHECK: (&str, &str) = ("client_connection_check_interval", "1s");

/// An attempt to connect that takes longer has failed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Forgets the statements that clients of the driver have left in a session of the server under the names that it gives.
/// They are of no use to anybody: who prepared them cannot know when it meets this session again.
const SWEEP: &str = r"; do $$ declare left_behind text; begin
    for left_behind in select name from pg_catalog.pg_prepared_statements where name like 'sqlx\_s\_%' loop
        execute pg_catalog.format('deallocate %I', left_behind);
    end loop;
end $$";

/// What a session may take before the server ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) statement: Duration,
    pub(crate) lock: Duration,
    /// Below the lease time: a stopped process must not hold rows or the horizon.
    pub(crate) idle_in_transaction: Duration,
}

impl Limits {
    /// As PostgreSQL's settings, in milliseconds.
    fn settings(self) -> [(&'static str, String); 3] {
        [
            ("statement_timeout", self.statement),
            ("lock_timeout", self.lock),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction),
        ]
        .map(|(name, limit)| (name, limit.as_millis().to_string()))
    }
}

/// A connection, or a unit that was begun on one.
#[derive(Debug)]
pub(crate) struct Link<'c> {
    held: Held<'c>,
    /// How a unit begins where a pooler stands between; `None` on a direct connection.
    begin: Option<String>,
}

#[derive(Debug)]
enum Held<'c> {
    Own(PgConnection),
    Pool(PoolConnection<Postgres>),
    Unit(Transaction<'c, Postgres>),
    /// A transaction that somebody else began and will end.
    Part(&'c mut PgConnection),
}

impl Link<'static> {
    /// Connects with these limits, and finds out whether a pooler stands between: it refuses options at the opening, or
    /// the session does not have them.
    pub(crate) async fn open(options: &PgConnectOptions, limits: Limits) -> sqlx::Result<Self> {
        let mark = Uuid::new_v4().to_string();
        let limited = options.clone().options(limits.settings()).options([(MARK, mark.as_str())]);
        let mut opened = limited.clone().options([PRESENCE_CHECK]).connect().await;
        // Some systems that PostgreSQL runs on cannot look.
        if opened.as_ref().is_err_and(|error| is_about(error, PRESENCE_CHECK.0)) {
            opened = limited.connect().await;
        }
        match opened {
            Ok(mut conn) => {
                let ask = format!("select current_setting('{MARK}', true) = '{mark}'");
                let alone = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_one(&mut conn).await?;
                if alone.try_get::<Option<bool>, _>(0)? == Some(true) {
                    return Ok(Self::direct(conn));
                }
                conn.close().await?;
            }
            Err(error) if refuses_options(&error) => {}
            Err(error) => return Err(error),
        }
        Self::pooled(options, Some(limits)).await
    }

    /// Connects without limits, for whoever does not care for a round trip: works as through a pooler in any case.
    pub(crate) async fn shared(options: &PgConnectOptions) -> sqlx::Result<Self> {
        Self::pooled(options, None).await
    }

    async fn pooled(options: &PgConnectOptions, limits: Option<Limits>) -> sqlx::Result<Self> {
        let settings = limits.map(Limits::settings).into_iter().flatten();
        let begin = settings
            .fold(BEGIN.to_owned(), |begin, (name, value)| format!("{begin}; set local {name} = {value}"));
        let conn = options.clone().statement_cache_capacity(0).connect().await?;
        Ok(Self { held: Held::Own(conn), begin: Some(begin) })
    }

    /// A connection that is known to be direct.
    pub(crate) fn direct(conn: PgConnection) -> Self {
        Self { held: Held::Own(conn), begin: None }
    }

    /// A connection of somebody's pool, who says whether a pooler stands between.
    pub(crate) async fn lent(pool: &PgPool, pooled: bool) -> sqlx::Result<Self> {
        Ok(Self { held: Held::Pool(pool.acquire().await?), begin: pooled.then(|| BEGIN.to_owned()) })
    }

    /// A unit on a connection of somebody's pool, with their own statements in it.
    pub(crate) async fn unit_of(pool: &PgPool, pooled: bool) -> sqlx::Result<Self> {
        let first = if pooled { format!("{BEGIN}{SWEEP}") } else { BEGIN.to_owned() };
        let unit = pool.begin_with(AssertSqlSafe(first)).await?;
        Ok(Self { held: Held::Unit(unit), begin: pooled.then(|| BEGIN.to_owned()) })
    }

    /// Says goodbye to the server.
    pub(crate) async fn close(self) {
        if let Held::Own(conn) = self.held {
            // Gone either way.
            let _ = conn.close().await;
        }
    }
}

impl<'c> Link<'c> {
    /// A part of somebody's transaction.
    pub(crate) fn part(transaction: &'c mut PgConnection, pooled: bool) -> Self {
        Self { held: Held::Part(transaction), begin: pooled.then(|| BEGIN.to_owned()) }
    }

    /// Whether a pooler stands between, or may.
    pub(crate) fn is_pooled(&self) -> bool {
        self.begin.is_some()
    }

    /// Begins a unit: everything on it is one transaction. Dropped, it rolls back before the connection's next use.
    pub(crate) async fn begin(&mut self) -> sqlx::Result<Link<'_>> {
        self.begin_and("").await
    }

    /// As [`begin`](Self::begin), for statements of others on the [`driver`](Self::driver)'s connection, which are
    /// prepared by name.
    pub(crate) async fn begin_for_others(&mut self) -> sqlx::Result<Link<'_>> {
        self.begin_and(SWEEP).await
    }

    /// As [`begin_for_others`](Self::begin_for_others), with one snapshot from the first look to the end.
    pub(crate) async fn begin_snapshot(&mut self) -> sqlx::Result<Link<'_>> {
        let isolated = "; set transaction isolation level repeatable read";
        let begin = self.begin.clone();
        let first = match &begin {
            Some(begin) => format!("{begin}{isolated}{SWEEP}"),
            None => format!("{BEGIN}{isolated}"),
        };
        let unit = self.driver().begin_with(AssertSqlSafe(first)).await?;
        Ok(Link { held: Held::Unit(unit), begin })
    }

    async fn begin_and(&mut self, more: &str) -> sqlx::Result<Link<'_>> {
        let begin = self.begin.clone();
        let first = begin.as_ref().filter(|_| !self.is_unit()).map(|begin| format!("{begin}{more}"));
        let conn = self.driver();
        let unit = match first {
            Some(first) => conn.begin_with(AssertSqlSafe(first)).await?,
            None => conn.begin().await?,
        };
        Ok(Link { held: Held::Unit(unit), begin })
    }

    /// Commits a unit. After an error the outcome is unknown, unless the server says which.
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        match self.held {
            Held::Unit(unit) => unit.commit().await,
            Held::Own(_) | Held::Pool(_) | Held::Part(_) => Ok(()),
        }
    }

    /// Rolls a unit back, now.
    pub(crate) async fn rollback(self) -> sqlx::Result<()> {
        match self.held {
            Held::Unit(unit) => unit.rollback().await,
            Held::Own(_) | Held::Pool(_) | Held::Part(_) => Ok(()),
        }
    }

    /// The driver's connection, for statements of others inside a unit.
    pub(crate) fn driver(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Own(conn) => conn,
            Held::Pool(conn) => conn,
            Held::Unit(unit) => unit,
            Held::Part(conn) => conn,
        }
    }

    fn is_unit(&self) -> bool {
        matches!(self.held, Held::Unit(_) | Held::Part(_))
    }
}

/// Where links come from that are needed for a moment.
pub(crate) enum Source {
    /// Somebody's pool, and whether a pooler stands behind it.
    Pool(PgPool, bool),
    /// An address, perhaps of a pooler.
    Address(Box<PgConnectOptions>),
}

impl Source {
    /// One more link.
    pub(crate) async fn link(&self) -> sqlx::Result<Link<'static>> {
        match self {
            Self::Pool(pool, pooled) => Link::lent(pool, *pooled).await,
            Self::Address(options) => tokio::time::timeout(CONNECT_DEADLINE, Link::shared(options))
                .await
                .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()))),
        }
    }
}

fn is_about(error: &sqlx::Error, setting: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains(setting))
}

/// Whether a pooler refused what only a session of the server can have.
fn refuses_options(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("08P01") && error.message().contains("unsupported startup parameter")
    })
}
