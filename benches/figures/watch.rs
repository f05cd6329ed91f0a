//! When a subscription took its lease, how long its pages took, when it went live: read off the engine's own
//! log, at no cost to what is measured.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The moments of one subscription.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    taken: Option<Instant>,
    live: Option<Instant>,
    /// When the last batch ended.
    batch: Option<Instant>,
    /// Events of the largest page, and the time since the batch before it.
    largest: (i64, Duration),
}

/// How a subscription caught up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaughtUp {
    /// From the lease to being live.
    pub(crate) took: Duration,
    /// Events of its largest page, and how long that alone took.
    pub(crate) largest: (i64, Duration),
}

static SEEN: Mutex<Option<HashMap<String, Moments>>> = Mutex::new(None);
static CHANGED: Notify = Notify::const_new();

/// Begins to watch, and to say on standard error what is being measured.
pub(crate) fn begin() {
    let said = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(EnvFilter::new("error,figures=info"));
    let watched = Watch.with_filter(EnvFilter::new("foldd::engine::run=debug"));
    tracing_subscriber::registry().with(said).with(watched).init();
}

/// Forgets what an earlier daemon did with a subscription.
pub(crate) fn forget(subscription: &str) {
    seen().get_or_insert_default().remove(subscription);
}

/// Waits until a subscription is live.
pub(crate) async fn caught_up(subscription: &str) -> CaughtUp {
    loop {
        let changed = CHANGED.notified();
        let moments = seen().get_or_insert_default().get(subscription).copied().unwrap_or_default();
        if let Moments { taken: Some(taken), live: Some(live), largest, .. } = moments {
            return CaughtUp { took: live - taken, largest };
        }
        changed.await;
    }
}

fn seen() -> MutexGuard<'static, Option<HashMap<String, Moments>>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watch;

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut seen = seen();
        let moments = seen.get_or_insert_default().entry(fields.subscription).or_default();
        let now = Instant::now();
        match (fields.message.as_str(), fields.to.as_str()) {
            ("lease taken", _) => moments.taken = Some(now),
            ("batch committed", _) => {
                if let Some(before) = moments.batch.replace(now).or(moments.taken)
                    && fields.scanned > moments.largest.0
                {
                    moments.largest = (fields.scanned, now - before);
                }
                return;
            }
            ("phase", "live") => moments.live = Some(now),
            _ => return,
        }
        drop(seen);
        CHANGED.notify_waiters();
    }
}

/// The fields of an event that are looked at.
#[derive(Default)]
struct Fields {
    message: String,
    subscription: String,
    to: String,
    scanned: i64,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "subscription" => value.clone_into(&mut self.subscription),
            "to" => value.clone_into(&mut self.to),
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "scanned" {
            self.scanned = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
