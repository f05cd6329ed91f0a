//! The feed: the status as text, made once a second for everybody who watches, and a sample of it for the history.
//!
//! While nobody watches, the status is read for the history alone, every fifteen seconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Faces;
use super::history::{EVERY, History};

/// How long after its last reading a status is out of date, and watchers are told so.
const STALE: Duration = Duration::from_secs(4);
/// How often it is looked whether that is so.
const ROUND: Duration = Duration::from_secs(1);

/// What watchers are told: the name of a server-sent event, and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Telling {
    pub(super) event: &'static str,
    pub(super) data: String,
}

/// The feed.
pub(crate) struct Feed {
    told: watch::Sender<Option<Arc<Telling>>>,
    history: Mutex<History>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { told: watch::Sender::new(None), history: Mutex::default() }
    }
}

impl Feed {
    /// From now on, whatever is told. The first is what was told last, if it is new.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Telling>>> {
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
                        let metrics = faces.metrics.render();
                        self.history.lock().unwrap_or_else(PoisonError::into_inner).record(&status, &metrics);
                    }
                    if is_watched {
                        let readiness = faces.readiness.borrow().clone();
                        let data = json!({ "readiness": readiness, "status": &*status }).to_string();
                        self.told.send_replace(Some(Arc::new(Telling { event: "status", data })));
                    }
                }
                _ = round.tick() => {
                    let age = seen.borrow().as_ref().map(|(at, _)| at.elapsed());
                    if is_watched && age.is_none_or(|age| age > STALE) {
                        let readiness = faces.readiness.borrow().clone();
                        let age = age.map(|age| age.as_secs_f64());
                        let data = json!({ "readiness": readiness, "age_seconds": age }).to_string();
                        self.told.send_replace(Some(Arc::new(Telling { event: "stale", data })));
                    }
                }
            }
        }
    }
}
