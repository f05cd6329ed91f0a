//! The same transaction around a Rust handler: fence, page, effect, checkpoint, commit, each a statement of its own.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::FutureExt;

use super::batch::{Batch, Committed};
use super::failure::{Fault, HandlerFault};
use super::guard;
use crate::event::RecordedEvent;
use crate::ledger::checkpoint::{self, Step};
use crate::ledger::phases::EventRef;
use crate::projection::handler::{ErasedHandler, HandlerError};
use crate::store::{self, Link};

/// A handler in this process, and where its tables are.
#[derive(Clone)]
pub(crate) struct Hosted {
    pub(crate) handler: Arc<dyn ErasedHandler>,
    /// The schema of its tables, by OID, so that renaming it is harmless.
    pub(crate) schema_oid: u32,
    /// The schema of the log's functions, which the handler's search path does not have.
    pub(crate) store_schema: String,
    /// Schemas that the handler sees beside its own.
    pub(crate) extension_schemas: Vec<String>,
    /// `None` for all categories.
    pub(crate) categories: Option<Vec<String>>,
    /// Whether to halt where a stream's versions do not follow one another.
    pub(crate) order_guard: bool,
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hosted({})", self.schema_oid)
    }
}

/// Folds one page: everything of it, or nothing. Any error rolls back.
pub(crate) async fn fold(
    conn: &mut Link<'_>,
    hosted: &Hosted,
    batch: &Batch<'_>,
) -> Result<Committed, Fault> {
    let driver = |error: sqlx::Error| Fault::of(&error, batch.bounds.max_events);
    let mut tx = conn.begin_for_others().await.map_err(driver)?;
    match apply(&mut tx, hosted, batch).await {
        // A commit whose answer is lost is an unknown outcome, like any other lost answer.
        Ok(committed) => tx.commit().await.map_err(driver).map(|()| committed),
        Err(fault) => match tx.rollback().await {
            Ok(()) => Err(fault),
            Err(error) => Err(Fault::Unknown(crate::error::chain(&error))),
        },
    }
}

async fn apply(tx: &mut Link<'_>, hosted: &Hosted, batch: &Batch<'_>) -> Result<Committed, Fault> {
    let Batch { subscription_id, lease, horizon, bounds } = batch;
    let driver = |error: sqlx::Error| Fault::of(&error, bounds.max_events);
    let entry = checkpoint::Entry {
        subscription_id,
        fence_token: lease.fence_token,
        incarnation: horizon.incarnation(),
        schema_oid: hosted.schema_oid,
        extension_schemas: &hosted.extension_schemas,
    };
    checkpoint::enter(tx, &entry).await.map_err(driver)?;
    let page = store::Page {
        categories: hosted.categories.as_deref(),
        after: lease.cursor,
        max_events: bounds.max_events,
        max_bytes: bounds.max_bytes,
    };
    let page = store::read_page_in(tx, &hosted.store_schema, page, horizon.clone()).await.map_err(driver)?;
    let (Some(first), Some(last)) = (page.first(), page.last()) else {
        return Ok(Committed { scanned: 0, skipped: 0, cursor: None, oldest_seconds: None });
    };
    if hosted.order_guard
        && let Some(broken) = guard::first_break(&page)
    {
        return Err(Fault::OutOfOrder(broken));
    }
    let (cursor, oldest) = (last.cursor(), first.created_at);
    let scanned = i64::try_from(page.len()).unwrap_or(i64::MAX);
    let index = Index::of(&page);
    let handled = AssertUnwindSafe(hosted.handler.decode_and_apply(tx.driver(), page)).catch_unwind().await;
    let skipped = match handled {
        Ok(Ok(skipped)) => skipped,
        Ok(Err(error)) => return Err(index.fault(&error, scanned)),
        Err(panic) => return Err(index.fault(&HandlerError::new(panic_text(&*panic)), scanned)),
    };
    let step = Step { subscription_id, lease, to: cursor };
    match checkpoint::advance(tx, &hosted.store_schema, &step, oldest).await.map_err(driver)? {
        Some(age) => Ok(Committed { scanned, skipped, cursor: Some(cursor), oldest_seconds: Some(age) }),
        None => Err(Fault::Meddling),
    }
}

/// What is kept of a page to name the event that a handler failed on.
struct Index {
    events: Vec<EventRef>,
}

impl Index {
    fn of(page: &[RecordedEvent]) -> Self {
        let named = |event: &RecordedEvent| EventRef {
            position: event.global_position,
            stream_id: event.stream_id.clone(),
            event_type: event.event_type.clone(),
        };
        Self { events: page.iter().map(named).collect() }
    }

    /// A handler's error as a fault: the connection's if that is what failed, else the handler's.
    fn fault(&self, error: &HandlerError, page: i64) -> Fault {
        if let Some(database) = error.database() {
            let fault = Fault::of(database, page);
            if !matches!(fault, Fault::Broken { .. }) {
                return fault;
            }
        }
        let database = error.database().and_then(sqlx::Error::as_database_error);
        let position = error
            .position()
            .or_else(|| self.events.first().filter(|_| page == 1).map(|event| event.position));
        Fault::Handler(HandlerFault {
            sqlstate: database.and_then(|database| database.code()).map(Into::into).unwrap_or_default(),
            message: crate::error::chain(error),
            detail: None,
            hint: None,
            place: None,
            event: self.events.iter().find(|event| Some(event.position) == position).cloned(),
            page,
        })
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the handler panicked: {}", text.unwrap_or("without a message"))
}
