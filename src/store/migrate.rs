//! The schema: created, upgraded, or adopted from a store of the plain shape.
//!
//! Many processes may migrate at once. One transaction-scoped advisory lock lets a single one work, and it survives
//! neither a crash nor a transaction pooler's change of server. A migration and its line in `es_migrations` commit
//! together.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::health::{require_sound, unseen_schema};
use super::{Link, Result, Source, adopt};
use crate::error::EventStoreError;

/// One step of the schema. Never edited once released: a change is a new step.
pub(crate) struct Migration {
    pub(crate) version: i32,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../migrations/", $name, ".sql")),
        }),*]
    };
}

pub(crate) const MIGRATIONS: &[Migration] = migrations! {
    1 "0001_log"
    2 "0002_category"
    3 "0003_stamp"
    4 "0004_append"
    5 "0005_read"
    6 "0006_immutable"
    7 "0007_snapshots"
    8 "0008_books"
    9 "0009_fold"
    10 "0010_restore"
    11 "0011_dead_letters"
    12 "0012_partitions"
    13 "0013_versions"
};

/// What migrating did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The schema version before; 0 when there was none.
    pub from: i32,
    /// The schema version now.
    pub to: i32,
    /// Whether a store of the plain shape was adopted.
    pub adopted: bool,
}

/// The newest version this program knows.
pub(crate) const KNOWN: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

const LOCK: &str = "select pg_try_advisory_xact_lock(hashtextextended('foldd migrate', 0))";

/// How long to wait before asking for the lock again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Brings the schema up to date, over two links while it adopts a store, else over one.
pub(crate) async fn migrate(source: &Source) -> Result<Migrated> {
    let mut conn = source.link().await?;
    let from = applied_version(&mut conn).await?;
    if from == KNOWN {
        refuse_altered(&mut conn).await?;
        require_sound(&mut conn).await?;
        return Ok(Migrated { from, to: KNOWN, adopted: false });
    }

    // Whoever does not get the lock asks again later, without a transaction in between: an index that is built
    // concurrently waits for every snapshot that is older, and somebody waiting inside `pg_advisory_xact_lock` holds one.
    let mut guard = loop {
        let mut guard = conn.begin().await?;
        if try_lock(&mut guard).await? {
            break guard;
        }
        guard.rollback().await?;
        tokio::time::sleep(LOCK_PAUSE).await;
    };
    let from = applied_version(&mut guard).await?;
    refuse_altered(&mut guard).await?;
    let adopted = from == 0 && adopt::is_plain(&mut guard).await?;
    if adopted {
        tracing::info!("adopting a store of the plain shape");
        adopt::adopt(&mut source.link().await?).await?;
        guard.commit().await?;
    } else {
        apply_after(&mut guard, from).await?;
        guard.commit().await?;
    }
    require_sound(&mut conn).await?;
    if from != KNOWN {
        tracing::info!(from, to = KNOWN, "schema migrated");
    }
    Ok(Migrated { from, to: KNOWN, adopted })
}

/// Asks for the migration lock, which the unit then holds until it ends.
async fn try_lock(guard: &mut Link<'_>) -> Result<bool> {
    let taken = sqlx::query_scalar(LOCK).fetch_one(&mut *guard).await?;
    if taken {
        // It may be idle for as long as the adoption beside it takes.
        sqlx::query("set local idle_in_transaction_session_timeout = 0").execute(guard).await?;
    }
    Ok(taken)
}

/// Fails unless the schema is exactly the one this program needs.
pub(crate) async fn require_current(conn: &mut Link<'_>) -> Result<()> {
    let found = applied_version(conn).await?;
    if found == 0
        && let Some(schema) = unseen_schema(conn).await?
    {
        return Err(EventStoreError::Unsound {
            problem: format!(
                "the store is in schema {schema}, which this role may not use or has not on its search_path"
            ),
            remedy: format!(
                "grant usage on schema {schema} to the role, or alter role … set search_path = {schema}"
            ),
        });
    }
    if found < KNOWN {
        return Err(EventStoreError::OlderSchema { found, needed: KNOWN });
    }
    refuse_altered(conn).await
}

/// The version in the database, 0 for none; an error when it is newer than this program.
pub(crate) async fn applied_version(conn: &mut Link<'_>) -> Result<i32> {
    let exists: bool =
        sqlx::query_scalar("select to_regclass('es_migrations') is not null").fetch_one(&mut *conn).await?;
    if !exists {
        return Ok(0);
    }
    let found: i32 = sqlx::query_scalar("select coalesce(max(version), 0) from es_migrations")
        .fetch_one(&mut *conn)
        .await?;
    if found > KNOWN {
        return Err(EventStoreError::NewerSchema { found, known: KNOWN });
    }
    Ok(found)
}

/// Applies every migration after `from`, in the caller's transaction, into the schema that its search path names first.
///
/// Functions keep the search path they are created under, so it is reduced to that schema here: whatever a caller's
/// path is later, they find foldd's tables and nobody else's.
pub(crate) async fn apply_after(conn: &mut Link<'_>, from: i32) -> Result<()> {
    stay_in_schema(conn).await?;
    ensure_table(conn).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from) {
        sqlx::raw_sql(AssertSqlSafe(migration.sql)).execute(&mut *conn).await?;
        record(conn, migration).await?;
    }
    Ok(())
}

/// Reduces the transaction's search path to the schema that the log is in, or will be.
pub(crate) async fn stay_in_schema(conn: &mut Link<'_>) -> Result<()> {
    sqlx::query(
        "select set_config('search_path', quote_ident(coalesce(
             (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where c.oid = to_regclass('es_events')), current_schema(), 'public')) || ', pg_temp', true)",
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn ensure_table(conn: &mut Link<'_>) -> Result<()> {
    sqlx::query(
        "create table if not exists es_migrations (
             version    integer     not null,
             name       text        not null,
             checksum   text        not null,
             applied_at timestamptz not null default now(),
             constraint es_migrations_pkey primary key (version))",
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn record(conn: &mut Link<'_>, migration: &Migration) -> Result<()> {
    sqlx::query("insert into es_migrations (version, name, checksum) values ($1, $2, md5($3))")
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.sql)
        .execute(conn)
        .await?;
    Ok(())
}

async fn refuse_altered(conn: &mut Link<'_>) -> Result<()> {
    if applied_version(conn).await? == 0 {
        return Ok(());
    }
    let altered: Option<(i32, String)> = sqlx::query_as(
        "select m.version, m.name from es_migrations m
         join unnest($1::int[], $2::text[]) as known (version, sql) using (version)
         where m.checksum <> md5(known.sql) order by m.version limit 1",
    )
    .bind(MIGRATIONS.iter().map(|migration| migration.version).collect::<Vec<_>>())
    .bind(MIGRATIONS.iter().map(|migration| migration.sql).collect::<Vec<_>>())
    .fetch_optional(conn)
    .await?;
    altered.map_or(Ok(()), |(version, name)| Err(EventStoreError::AlteredMigration { version, name }))
}
