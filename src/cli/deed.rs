//! What the verbs of operators share: who acts, how long is waited, and what a refusal says.

use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use super::args::Deed;
use crate::config::Loaded;
use crate::error::told;
use crate::ledger::wishes::{Refusal, Signature};

/// Between two looks at what a daemon has made of it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Deed {
    /// Who signs.
    pub(super) fn signature<'a>(&'a self, loaded: &'a Loaded) -> Signature<'a> {
        Signature {
            who: self.by.as_deref().unwrap_or(&loaded.user),
            why: self.why.as_deref(),
            if_revision: self.if_revision,
            patience: self.timeout,
        }
    }

    /// Waits until a look finds something; `None` when the time runs out first.
    pub(super) async fn wait_for<T>(
        &self,
        mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(found) = look().await? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN.min(deadline - Instant::now())).await;
        }
    }

    /// How long that was, for people.
    pub(super) fn patience(&self) -> impl std::fmt::Display + use<> {
        humantime::format_duration(self.timeout)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::Changed { .. } | Refusal::Busy { .. } => Self::NotMet(refusal.to_string()),
            Refusal::Unknown { .. } | Refusal::Selection(_) => Self::Failed(refusal.to_string()),
            Refusal::Database(error) => Self::Failed(told(error)),
        }
    }
}
