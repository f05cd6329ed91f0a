//! The event store: a log in PostgreSQL, written in one round trip and read in one order.
//!
//! **Promise.** What was acknowledged is in the log, once, in version order along its stream; a reader that stores its
//! cursor and comes back sees every committed event exactly once, in (stamp, position) order, whoever else is writing.
//!
//! **How.** Every event carries a stamp, which is at least its writer's xid. Readers stay below the horizon, under which
//! nothing can still be appended; so nothing can appear behind a cursor. Stamps never fall along a stream, since the
//! last one is kept in the stream's row and written under its lock. All of that happens in SQL functions (`migrations/`),
//! so that every language appends and reads alike.
//!
//! **What it never does.** It does not know subscriptions, leases or projections; it starts no task; it reads no clock.
//!
//! **Where next.** `append` writes, `read` reads, `horizon` says how far and `blockers` who is in the way, `scope` joins
//! several streams in one transaction, `snapshot` shortens loading, `migrate` sets up the schema or adopts a plain one,
//! `order` notices and repairs what a restore does to stamps, `doctor` examines all of it.
//! `link` is what the daemon and the command line connect with.

mod adopt;
mod aggregates;
mod append;
mod blockers;
mod doctor;
mod health;
mod horizon;
mod identity;
mod link;
mod migrate;
mod order;
mod read;
mod scope;
mod snapshot;

use sqlx::PgPool;

pub(crate) use adopt::plain_store;
pub use append::{Appended, ImportEvent};
pub(crate) use append::{Columns, append, append_many};
pub(crate) use blockers::blockers;
pub use blockers::{Blocker, BlockerCause};
pub(crate) use doctor::{Finding, Health, examine};
pub(crate) use health::require_sound;
pub use horizon::Horizon;
pub(crate) use horizon::{
    Glance, Growth, Observation, glance, observe, raise_floor, why_daemons_cannot_prove, why_unproven,
    withheld,
};
pub(crate) use identity::{Known, ids_in, known, last_id_in};
pub(crate) use link::{Limits, Link, Source};
pub use migrate::Migrated;
pub(crate) use migrate::{KNOWN as SCHEMA_VERSION, migrate, require_current};
pub(crate) use order::{Rebase, note_horizon, plan_rebase, rebase, settle};
pub use read::Lag;
pub(crate) use read::{
    Page, count_after, cursors_of, head, read_page_in, read_rest, read_scratch, stream_page,
};
pub use scope::{CommittedEvents, TransactionScope};

/// The result of everything the event store does.
pub type Result<T, E = crate::error::EventStoreError> = std::result::Result<T, E>;

/// The event store, over a pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventStore {
    pool: PgPool,
    pooled: bool,
}

impl EventStore {
    /// An event store over this pool. Nothing is asked of the database yet; see [`migrate`](Self::migrate).
    ///
    /// Where the pool's connections go through a transaction pooler, say so with
    /// [`through_pooler`](Self::through_pooler).
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, pooled: false }
    }

    /// For a pool whose connections go through a transaction pooler, such as PgBouncer with `pool_mode = transaction`.
    ///
    /// Each call is then one explicit transaction, two round trips longer, and prepares nothing by name. For statements
    /// of your own, in a [`TransactionScope`] and elsewhere, give the pool `statement_cache_capacity(0)`, keep them in
    /// transactions and mark them `persistent(false)`; in a scope that mark is not needed. PgBouncer also wants
    /// `extra_float_digits(None)`.
    ///
    /// ```no_run
    /// # async fn example(options: sqlx::postgres::PgConnectOptions) {
    /// let options = options.statement_cache_capacity(0).extra_float_digits(None);
    /// let pool = sqlx::PgPool::connect_lazy_with(options);
    /// let store = foldd::EventStore::new(pool).through_pooler();
    /// # }
    /// ```
    #[must_use]
    pub fn through_pooler(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// A connection of the pool, for one call.
    async fn link(&self) -> Result<Link<'static>> {
        Ok(Link::lent(&self.pool, self.pooled).await?)
    }

    /// The pool it works with.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Brings the schema up to date: creates it, upgrades it, or adopts a store of the plain shape.
    ///
    /// Safe from many processes at once, idempotent, and cheap when there is nothing to do. Adopting needs two
    /// connections of the pool.
    ///
    /// # Errors
    /// [`NewerSchema`](crate::EventStoreError::NewerSchema) when the database is ahead of this program, and
    /// [`NotAdoptable`](crate::EventStoreError::NotAdoptable) when its tables are neither foldd's nor plain.
    pub async fn migrate(&self) -> Result<Migrated> {
        migrate(&Source::Pool(self.pool.clone(), self.pooled)).await
    }

    /// Begins a transaction over several streams. See [`TransactionScope`] for when not to.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn begin_transaction(&self) -> Result<TransactionScope> {
        Ok(TransactionScope::new(Link::unit_of(&self.pool, self.pooled).await?))
    }
}
