//! Projections in Rust: a handler gets a page of typed events and a connection inside the transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::PgConnection;

use crate::event::{EventData, RecordedEvent};
use crate::projection::settings::OnError;

/// Why a handler could not apply a page. `?` makes one of an error of sqlx.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    message: String,
    /// The event that it failed on, when the handler knows.
    position: Option<i64>,
    #[source]
    source: Option<sqlx::Error>,
}

impl HandlerError {
    /// The page as a whole cannot be applied. The page is then halved until the event is found.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), position: None, source: None }
    }

    /// This event cannot be applied.
    pub fn at(event: &RecordedEvent, message: impl Into<String>) -> Self {
        Self { message: message.into(), position: Some(event.global_position), source: None }
    }

    /// Names the event of an error.
    #[must_use]
    pub fn on(self, event: &RecordedEvent) -> Self {
        Self { position: Some(event.global_position), ..self }
    }

    pub(crate) fn position(&self) -> Option<i64> {
        self.position
    }

    pub(crate) fn database(&self) -> Option<&sqlx::Error> {
        self.source.as_ref()
    }
}

impl From<sqlx::Error> for HandlerError {
    fn from(error: sqlx::Error) -> Self {
        Self { message: "a statement of the handler failed".to_owned(), position: None, source: Some(error) }
    }
}

/// One event of a page: as the log has it, and as the handler's type.
#[derive(Debug, Clone)]
pub struct Received<E> {
    /// Stream, version, position, type, metadata, raw data.
    pub recorded: RecordedEvent,
    /// The data.
    pub event: E,
}

/// Folds events into a read model, in Rust.
///
/// `apply` runs inside the transaction that also moves the checkpoint. Whatever it writes through `tx` commits with the
/// checkpoint or not at all; so every event counts once. The search path begins with the projection's own schema: name
/// tables without a schema, and the same code builds every version. It takes `&self`, since memory must not carry what a
/// rollback cannot undo. It must not end the transaction: that halts the projection.
///
/// ```
/// use foldd::{Handler, HandlerError, Received};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Deposited { cents: i64 }
/// # impl foldd::EventData for Deposited { fn event_type(&self) -> &'static str { "Deposited" } }
///
/// struct Balances;
///
/// impl Handler for Balances {
///     type Event = Deposited;
///
///     async fn apply(
///         &self,
///         tx: &mut sqlx::PgConnection,
///         events: &[Received<Deposited>],
///     ) -> Result<(), HandlerError> {
///         let accounts: Vec<&str> = events.iter().map(|event| event.recorded.stream_id.as_str()).collect();
///         let cents: Vec<i64> = events.iter().map(|event| event.event.cents).collect();
///         // One statement a page. An account may occur twice in it, hence the sum.
///         sqlx::query(
///             "insert into balance as b
///              select account, sum(cents) from unnest($1::text[], $2::bigint[]) as given (account, cents) group by account
///              on conflict (account) do update set cents = b.cents + excluded.cents",
///         )
///         .bind(accounts)
///         .bind(cents)
///         .execute(tx)
///         .await?;
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The type that events are decoded into.
    type Event: EventData;

    /// The event types that it wants; `None` for all of its categories. What is not wanted is skipped undecoded, unless
    /// [`refuses_unknown`](Self::refuses_unknown) says otherwise.
    fn event_types(&self) -> Option<&[&str]> {
        None
    }

    /// Whether an event type that [`event_types`](Self::event_types) does not name halts the projection.
    fn refuses_unknown(&self) -> bool {
        false
    }

    /// Applies a page: at least one event, in order.
    ///
    /// # Errors
    /// Whatever makes the page impossible to apply. Errors of the database that pass by themselves (deadlock, lost
    /// connection, lock timeout) are tried again; others halt the projection or park the event, as its
    /// [`OnError`] says.
    fn apply(
        &self,
        tx: &mut PgConnection,
        events: &[Received<Self::Event>],
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// A [`Handler`] whose event type nobody has to know.
pub(crate) trait ErasedHandler: Send + Sync {
    /// Decodes and applies a page; returns how many events were skipped.
    fn decode_and_apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        page: Vec<RecordedEvent>,
    ) -> BoxFuture<'a, Result<i64, HandlerError>>;
}

impl<H: Handler> ErasedHandler for H {
    fn decode_and_apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        page: Vec<RecordedEvent>,
    ) -> BoxFuture<'a, Result<i64, HandlerError>> {
        async move {
            let mut events = Vec::with_capacity(page.len());
            let mut skipped = 0;
            for recorded in page {
                if self.event_types().is_some_and(|types| !types.contains(&recorded.event_type.as_str())) {
                    if self.refuses_unknown() {
                        let kind = &recorded.event_type;
                        return Err(HandlerError::at(
                            &recorded,
                            format!("event type '{kind}' is unknown to the handler"),
                        ));
                    }
                    skipped += 1;
                    continue;
                }
                let event = recorded.decode().map_err(|error| {
                    HandlerError::at(&recorded, format!("the data cannot be decoded: {error}"))
                })?;
                events.push(Received { recorded, event });
            }
            if !events.is_empty() {
                Handler::apply(self, tx, &events).await?;
            }
            Ok(skipped)
        }
        .boxed()
    }
}

/// A Rust projection, as it is registered: a handler under a name and a version.
///
/// The name is the schema's, `[a-z][a-z0-9_]*` and at most 40 bytes; the version counts from 1. Raise it when
/// the tables or what the handler makes of events change. `[projections.NAME]` in `foldd.toml` may say
/// otherwise of everything but the version: `categories`, `tables`, `on_error` and the rest.
#[derive(Clone)]
pub struct RustProjection {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) categories: Option<Vec<String>>,
    pub(crate) all: bool,
    pub(crate) tables: Option<String>,
    pub(crate) on_error: Option<OnError>,
    pub(crate) handler: Arc<dyn ErasedHandler>,
}

impl RustProjection {
    /// A handler for this version of this projection. Categories and tables may be given here or in the configuration,
    /// which wins.
    pub fn new<H: Handler>(name: &str, version: u32, handler: H) -> Self {
        let handler = Arc::new(handler);
        Self {
            name: name.to_owned(),
            version,
            categories: None,
            all: false,
            tables: None,
            on_error: None,
            handler,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Reads these categories.
    #[must_use]
    pub fn categories(self, categories: &[&str]) -> Self {
        Self {
            categories: Some(categories.iter().map(|name| (*name).to_owned()).collect()),
            all: false,
            ..self
        }
    }

    /// Reads every category.
    #[must_use]
    pub fn all_categories(self) -> Self {
        Self { categories: None, all: true, ..self }
    }

    /// What happens when an event cannot be applied; [`OnError::Halt`] unless said otherwise here or in the
    /// configuration, which wins.
    #[must_use]
    pub fn on_error(self, on_error: OnError) -> Self {
        Self { on_error: Some(on_error), ..self }
    }

    /// The statements that create its tables, in its own schema.
    #[must_use]
    pub fn tables(self, sql: &str) -> Self {
        Self { tables: Some(sql.to_owned()), ..self }
    }
}

/// The Rust projections of a program, by name and version. `foldd` itself has none; a program with handlers passes its
/// own to [`main_with`](crate::main_with) or to a [`Daemon`](crate::Daemon).
///
/// Of several versions of one name the newest is wanted, unless the configuration says which. Keep the handler of the
/// version that is live while a newer one is built: without it nobody keeps the live one fresh.
#[derive(Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<String, BTreeMap<u32, RustProjection>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a projection. One of the same name and version is replaced.
    #[must_use]
    pub fn with(mut self, projection: RustProjection) -> Self {
        self.by_name.entry(projection.name.clone()).or_default().insert(projection.version, projection);
        self
    }

    /// All of them, in the order of their names: the versions of each, by number.
    pub(crate) fn projections(&self) -> impl Iterator<Item = (&str, &BTreeMap<u32, RustProjection>)> {
        self.by_name.iter().map(|(name, versions)| (name.as_str(), versions))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}
