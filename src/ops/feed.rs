//! The feed: the status as text, made once a second for everybody who watches, and a sample of it for the history.
//!
//! While nobody watches, the status is read for the history alone, every fifteen seconds.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Faces;
use super::history::{EVERY, History};
use crate::metrics::batch_times;

/// How long after its last reading a status is out of date, and watchers are told so.
const STALE: Duration = Duration::from_secs(4);
/// How often it is looked whether that is so.
const ROUND: Duration = Duration::from_secs(1);

/// One server-sent event, made once for everybody.
fn event(name: &str, data: &serde_json::Value) -> Bytes {
    // JSON of one line: no line of it can be taken for another field.
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// The feed.
pub(crate) struct Feed {
    told: watch::Sender<Option<Bytes>>,
    history: Mutex<History>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { told: watch::Sender::new(None), history: Mutex::default() }
    }
}

impl Feed {
    /// From now on, whatever is told. The first is what was told last, if it is new.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Bytes>> {
        self.told.subscribe()
    }

    /// The last hour, of one projection or of all.
    pub(super) fn history(&self, only: Option<&str>) -> serde_json::Value {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).render(only)
    }

    /// Tells and samples. Never returns.
    pub(super) async fn keep(&self, faces: &Faces) {
        let mut seen = faces.status.clone();
        let mut sample_at = Instant::now();
        let mut round = tokio::time::interval(ROUND);
        loop {
            let is_watched = self.told.receiver_count() > 0;
            if is_watched || Instant::now() >= sample_at {
                faces.wanted.notify_one();
            }
            tokio::select! {
                changed = seen.changed() => {
                    if changed.is_err() {
                        // The supervisor is gone, and the port follows.
                        return std::future::pending().await;
                    }
                    let Some((_, status)) = seen.borrow_and_update().clone() else { continue };
                    if Instant::now() >= sample_at {
                        sample_at = Instant::now() + EVERY;
                        let batches = batch_times();
                        self.history.lock().unwrap_or_else(PoisonError::into_inner).record(&status, batches);
                    }
                    if is_watched {
                        let readiness = faces.readiness.borrow().clone();
                        let told = event("status", &json!({ "readiness": readiness, "status": &*status }));
                        self.told.send_replace(Some(told));
                    }
                }
                _ = round.tick() => {
                    let age = seen.borrow().as_ref().map(|(at, _)| at.elapsed());
                    if is_watched && age.is_none_or(|age| age > STALE) {
                        let readiness = faces.readiness.borrow().clone();
                        let age = age.map(|age| age.as_secs_f64());
                        let told = event("stale", &json!({ "readiness": readiness, "age_seconds": age }));
                        self.told.send_replace(Some(told));
                    } else if !is_watched {
                        // Who comes next is told nothing old.
                        self.told.send_replace(None);
                    }
                }
            }
        }
    }
}
