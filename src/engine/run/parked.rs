//! Events that are parked: how one gets there, and the turn that retries them.
//!
//! A page that fails on an event is folded once more up to that event, which is parked in the same transaction: what
//! stands before it is known to be good, so two tries are enough whatever comes behind it. A retry is a batch as well,
//! under the same fence: the letters go in the transaction that applies their events, so each counts once.

use tokio::time::Instant;

use super::suspect::died_of;
use super::{Subscription, Terms, Turn, within};
use crate::engine::backlog::View;
use crate::engine::batch::{self, Batch, Bounds};
use crate::engine::failure::Fault;
use crate::engine::machine::{Directive, Input, Phase};
use crate::engine::report;
use crate::ledger::lease::Lease;
use crate::ledger::parking::{self, Care, Letter, Wanted};
use crate::ledger::phases::Trouble;
use crate::projection::settings::OnError;
use crate::store::Link;

/// How many parked events of a stream are retried in one batch, at most.
const RETRY_PAGE: i64 = 1_000;

impl Subscription {
    /// The next batch parks the event that this fault is about.
    pub(super) fn park(&mut self, fault: &Fault, trouble: &Trouble) {
        let Some(event) = fault.event() else { return };
        let quarantine = self.program.policy.on_error == OnError::QuarantineStream;
        tracing::warn!(
            subscription = self.id(),
            place = trouble.place,
            event = %event,
            sqlstate = trouble.sqlstate,
            remedy = trouble.remedy,
            "{}: {}",
            if quarantine { "parked, and its stream is quarantined" } else { "parked" },
            fault.gist()
        );
        let letter = Letter {
            position: event.position,
            quarantine,
            most_streams: self.program.policy.most_streams,
            error: trouble.clone(),
        };
        self.parked.letter = Some((letter, self.last_page));
    }

    /// Retries what somebody wants retried, one stream a turn; `None` when nobody wants anything.
    pub(super) async fn retry(
        &mut self,
        conn: &mut Link<'_>,
        lease: &Lease,
        view: &View,
        terms: &Terms,
    ) -> Option<Turn> {
        let asked = within(self.deadline, parking::next_wanted(conn, &self.program.subscription_id)).await;
        let wanted = match asked {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                self.parked.retry_due = false;
                return None;
            }
            Err(fault) => return Some(self.failed(&fault)),
        };
        if self.parked.retry_page == 0 {
            self.parked.retry_page = RETRY_PAGE;
        }
        let suspected = (self.suspects > 0).then_some(wanted.position);
        if suspected.is_some_and(|position| died_of(lease, position)) {
            let fault = match batch::event_ref(conn, wanted.position).await {
                Some(event) => Fault::Crashed(event),
                None => Fault::Unknown("the event cannot be read".to_owned()),
            };
            return Some(self.retry_failed(conn, lease, &wanted, &fault).await);
        }
        let _floor = match self.step_in(conn, lease, suspected, terms).await {
            Ok(floor) => floor,
            Err(fault) => return Some(self.failed(&fault)),
        };
        let care = Care::Retry(wanted.stream_id.clone());
        let batch = Batch {
            subscription_id: &self.program.subscription_id,
            lease,
            horizon: view.horizon.clone(),
            bounds: Bounds {
                max_events: if suspected.is_some() { 1 } else { self.parked.retry_page },
                max_bytes: terms.max_page_bytes,
                bulk: false,
                rest: None,
                timeout: terms.batch_timeout,
            },
            care: &care,
        };
        let started = Instant::now();
        Some(match batch::fold(conn, &self.program, &batch).await {
            Ok(committed) => {
                tracing::info!(
                    subscription = self.id(),
                    stream = wanted.stream_id,
                    events = committed.scanned,
                    "retried"
                );
                self.backoff.reset();
                self.parked.retry_page = RETRY_PAGE;
                self.parked.quarantined = committed.quarantined;
                report::measure(&self.metrics, Phase::CatchingUp, &committed, started.elapsed());
                match self.cleared(conn, committed.scanned).await {
                    Ok(()) => self.after(Input::MoreToDo),
                    Err(fault) => self.failed(&fault),
                }
            }
            Err(fault) => {
                self.metrics.batch(fault.outcome(), 0, started.elapsed());
                self.retry_failed(conn, lease, &wanted, &fault).await
            }
        })
    }

    /// A retry did not work: what is to blame stays parked, with what comes after it in its stream. The projection goes
    /// on, whatever its policy says: it has passed these events by already.
    async fn retry_failed(
        &mut self,
        conn: &mut Link<'_>,
        lease: &Lease,
        wanted: &Wanted,
        fault: &Fault,
    ) -> Turn {
        match fault.directive(&self.program.policy) {
            Directive::Shrink => {
                self.parked.retry_page = (fault.page() / 2).max(1);
                return self.after(Input::Failed(Directive::Shrink));
            }
            Directive::Park | Directive::Halt if fault.is_of_one_event() => {}
            Directive::Park
            | Directive::Halt
            | Directive::Retry
            | Directive::Retake
            | Directive::PassBy
            | Directive::Pause => return self.failed(fault),
        }
        self.metrics.error(fault.kind());
        let trouble = fault.trouble(self.projection_id(), Directive::Park);
        tracing::warn!(
            subscription = self.id(),
            stream = wanted.stream_id,
            event = fault.event().map(tracing::field::display),
            remedy = trouble.remedy,
            "the retry failed again: {}",
            fault.gist()
        );
        let position = fault.event().map(|event| event.position);
        let noting = parking::retry_failed(
            conn,
            &self.program.subscription_id,
            lease,
            &wanted.stream_id,
            position,
            &trouble,
        );
        match within(self.deadline, noting).await {
            Ok(()) => self.after(Input::Failed(Directive::Park)),
            Err(fault) => self.failed(&fault),
        }
    }
}
