//! The same transaction around a Rust handler: fence, page, effect, checkpoint, commit, each a statement of its own.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::FutureExt;
use sqlx::types::Json;

use super::batch::{Batch, Committed};
use super::failure::{Fault, HandlerFault, Policy};
use super::guard;
use crate::event::RecordedEvent;
use crate::ledger::checkpoint::{self, Step};
use crate::ledger::parking::{self, Care, Slip, Sorted};
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
    policy: &Policy,
    batch: &Batch<'_>,
) -> Result<Committed, Fault> {
    let driver = |error: sqlx::Error| Fault::of(&error, batch.bounds.max_events);
    let mut tx = conn.begin_for_others().await.map_err(driver)?;
    match apply(&mut tx, hosted, policy, batch).await {
        // A commit whose answer is lost is an unknown outcome, like any other lost answer.
        Ok(committed) => tx.commit().await.map_err(driver).map(|()| committed),
        Err(fault) => match tx.rollback().await {
            Ok(()) => Err(fault),
            Err(error) => Err(Fault::Unknown(crate::error::chain(&error))),
        },
    }
}

async fn apply(
    tx: &mut Link<'_>,
    hosted: &Hosted,
    policy: &Policy,
    batch: &Batch<'_>,
) -> Result<Committed, Fault> {
    let Batch { subscription_id, lease, horizon, bounds, care } = batch;
    let driver = |error: sqlx::Error| Fault::of(&error, bounds.max_events);
    let entry = checkpoint::Entry {
        subscription_id,
        fence_token: lease.fence_token,
        incarnation: horizon.incarnation(),
        schema_oid: hosted.schema_oid,
        extension_schemas: &hosted.extension_schemas,
        parking: **care != Care::Whole,
    };
    checkpoint::enter(tx, &entry).await.map_err(driver)?;
    let slip = care.slip(policy.order_guard);
    let (page, sorted) = read(tx, hosted, policy, batch, slip.as_ref()).await?;
    let Some(to) = sorted.to.filter(|_| sorted.scanned > 0) else {
        return Ok(Committed {
            scanned: 0,
            own: 0,
            skipped: 0,
            parked: 0,
            quarantined: slip.is_some(),
            cursor: None,
            oldest_seconds: None,
        });
    };
    let index = Index::of(&page);
    let left = sorted.own - sorted.parked;
    let mut skipped = 0;
    if !page.is_empty() {
        let handled =
            AssertUnwindSafe(hosted.handler.decode_and_apply(tx.driver(), page)).catch_unwind().await;
        skipped = match handled {
            Ok(Ok(skipped)) => skipped,
            Ok(Err(error)) => return Err(index.fault(&error, left)),
            Err(panic) => return Err(index.fault(&HandlerError::new(panic_text(&*panic)), left)),
        };
        checkpoint::check_deferred(tx)
            .await
            .map_err(|error| index.fault(&HandlerError::from(error), left))?;
    }
    let quarantined = match &slip {
        None => false,
        Some(slip) => parking::set_right(tx, subscription_id, slip, sorted.scanned).await.map_err(driver)?,
    };
    #[cfg(foldd_mutants)]
    if crate::mutants::planted("checkpoint-outside-the-transaction") {
        checkpoint::commit_too_early(tx, &entry).await.map_err(driver)?;
    }
    let step = Step { subscription_id, lease, to, own: sorted.own };
    let advanced = checkpoint::advance(tx, &hosted.store_schema, &step, sorted.oldest).await;
    let Some(age) = advanced.map_err(driver)? else { return Err(Fault::Meddling) };
    Ok(Committed {
        scanned: sorted.scanned,
        own: sorted.own,
        skipped,
        parked: sorted.parked,
        quarantined,
        cursor: Some(to),
        oldest_seconds: Some(age),
    })
}

/// The events that are to be applied, and what is known of the page that they are of.
async fn read(
    tx: &mut Link<'_>,
    hosted: &Hosted,
    policy: &Policy,
    batch: &Batch<'_>,
    slip: Option<&Json<Slip<'_>>>,
) -> Result<(Vec<RecordedEvent>, Sorted), Fault> {
    let Batch { subscription_id, lease, horizon, bounds, .. } = batch;
    let driver = |error: sqlx::Error| Fault::of(&error, bounds.max_events);
    let page = store::Page {
        categories: hosted.categories.as_deref(),
        after: lease.cursor,
        max_events: bounds.max_events,
        max_bytes: bounds.max_bytes,
    };
    if let Some(slip) = slip {
        let sorted = parking::set_aside(tx, subscription_id, page, horizon, slip).await.map_err(driver)?;
        let left =
            if sorted.own > sorted.parked { store::read_rest(tx).await.map_err(driver)? } else { Vec::new() };
        return Ok((left, sorted));
    }
    let page = store::read_page_in(tx, &hosted.store_schema, page, horizon.clone()).await.map_err(driver)?;
    if policy.order_guard
        && let Some(broken) = guard::first_break(&page)
    {
        return Err(Fault::OutOfOrder(broken));
    }
    let scanned = i64::try_from(page.len()).unwrap_or(i64::MAX);
    let sorted = Sorted {
        scanned,
        own: scanned,
        parked: 0,
        to: page.last().map(RecordedEvent::cursor),
        oldest: page.first().map(|event| event.created_at),
    };
    Ok((page, sorted))
}

/// What is kept of a page to name the event that a handler failed on.
pub(super) struct Index {
    events: Vec<EventRef>,
}

impl Index {
    pub(super) fn of(page: &[RecordedEvent]) -> Self {
        let named = |event: &RecordedEvent| EventRef {
            position: event.global_position,
            stream_id: event.stream_id.clone(),
            event_type: event.event_type.clone(),
        };
        Self { events: page.iter().map(named).collect() }
    }

    /// A handler's error as a fault: the connection's if that is what failed, else the handler's.
    pub(super) fn fault(&self, error: &HandlerError, page: i64) -> Fault {
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

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the handler panicked: {}", text.unwrap_or("without a message"))
}
