//! Turns that take the lease or give it back.
//!
//! A lease is given back between two batches, never during one: what was applied is committed, nothing is in flight, and
//! the next holder reads the cursor where it stands. Should the answer be lost, nobody guesses, as after a batch: the lease
//! is taken again.

use std::sync::PoisonError;

use super::{Parked, Subscription, Terms, Turn, within};
use crate::cursor::Cursor;
use crate::engine::machine::{Input, Phase};
use crate::ledger::lease;
use crate::metrics::LeaseTransition;
use crate::mutants::planted;
use crate::store::Link;

impl Subscription {
    /// What this turn is about. An operator's word goes before everything, since it may be what others act upon.
    pub(super) fn due(&mut self) -> Input {
        if self.summons.take_recall() {
            self.parked.retry_due = true;
            return Input::Recalled;
        }
        let (called, asked) = (self.summons.take_call(), self.summons.take_ask());
        match self.phase {
            Phase::Standby if called => Input::Called,
            Phase::Standby | Phase::Draining => Input::Woken,
            _ if asked && self.lease.is_some() => Input::AskedBack,
            Phase::BackingOff { .. } => Input::Rested,
            Phase::CatchingUp | Phase::Live | Phase::Halted | Phase::Paused => Input::Woken,
        }
    }

    pub(super) async fn take(&mut self, conn: &mut Link<'_>, terms: &Terms) -> Turn {
        let taken =
            within(terms.batch_timeout, lease::take(conn, &self.program.subscription_id, &terms.replica))
                .await;
        match taken {
            Ok(Some(mut lease)) => {
                if planted("no-cursor-compare") && self.scanned > 0 {
                    lease.cursor = self.report.lock().unwrap_or_else(PoisonError::into_inner).cursor;
                }
                tracing::info!(subscription = self.id(), fence_token = lease.fence_token, cursor = %lease.cursor, "lease taken");
                self.metrics.lease(LeaseTransition::Taken);
                (self.lease, self.backlog, self.trouble, self.got_on) = (Some(lease), None, None, false);
                self.parked = Parked { retry_due: true, ..Parked::default() };
                self.applied = lease.applied_events;
                self.began = (lease.cursor == Cursor::START).then_some(lease.applied_events);
                self.suspect(&lease);
                self.after(Input::Taken)
            }
            Ok(None) => {
                self.lease = None;
                self.after(Input::Occupied)
            }
            Err(fault) => self.failed(&fault),
        }
    }

    /// Gives the lease back, for another replica to take.
    pub(super) async fn release(&mut self, conn: &mut Link<'_>) -> Turn {
        if let Some(lease) = self.lease {
            let releasing = lease::release(conn, &self.program.subscription_id, &lease);
            if let Err(fault) = within(self.deadline, releasing).await {
                return self.failed(&fault);
            }
            tracing::info!(subscription = self.id(), fence_token = lease.fence_token, "lease given back");
            self.lease = None;
            self.metrics.lease(LeaseTransition::Released);
        }
        // What was known of the projection is the next holder's to know.
        (self.backlog, self.trouble, self.suspects) = (None, None, 0);
        self.after(Input::Released)
    }
}
