//! One subscription, turn by turn. A turn takes the lease, folds one page or retries parked events, on a connection that
//! a worker lends.

mod page;
mod parked;
mod summons;
mod suspect;
mod tenure;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::RwLock;
use tokio::time::Instant;

use super::backlog::{Backlog, View};
use super::batch::{Body, Program};
use super::build::Ready;
use super::failure::Fault;
use super::machine::{Action, Directive, Input, Phase, step};
use super::pace::Pace;
use super::report::Report;
use crate::backoff::Backoff;
use crate::cursor::Cursor;
use crate::ledger::lease::{Lease, Replica};
use crate::ledger::parking::Letter;
use crate::ledger::phases::Trouble;
use crate::metrics::{LeaseTransition, SubscriptionMetrics};
use crate::store::Link;
pub(crate) use summons::Summons;

/// How long a subscription waits whose lease this process does not trust any more.
const DISTRUST: Duration = Duration::from_millis(100);
/// The largest page of a Rust handler, in events: such a page is held in this process's memory, at half a
/// kilobyte an event beside its data.
const HOSTED_PAGE: i64 = 64_000;

/// What all subscriptions of a process share.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) replica: Replica,
    pub(crate) live_batch: Duration,
    pub(crate) catch_up_batch: Duration,
    pub(crate) batch_timeout: Duration,
    pub(crate) max_page_events: i64,
    pub(crate) max_page_bytes: i64,
    /// Shared by every batch; whoever is suspected of killing processes has it alone.
    pub(crate) floor: RwLock<()>,
}

/// When a subscription wants its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// As soon as the others had theirs.
    Again,
    /// When its categories grow.
    WhenWoken,
    /// When somebody has a reason of another kind; whatever its categories do.
    WhenCalled,
    /// After a while.
    After(Duration),
    /// Never more.
    Never,
}

/// What a turn leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) next: Next,
    /// Whether the connection must be thrown away.
    pub(crate) spoilt: bool,
}

/// One subscription and what this process knows of it.
pub(crate) struct Subscription {
    program: Program,
    categories: Option<Vec<String>>,
    /// Whether it sees only its own events of a page: one partition of several, or not past an earlier split.
    is_split: bool,
    building: bool,
    /// The most events a second that it may fold while it is built.
    events_per_second: Option<u32>,
    phase: Phase,
    lease: Option<Lease>,
    backlog: Option<Backlog>,
    /// Whether a batch has committed since the lease was taken.
    got_on: bool,
    /// No await takes longer.
    deadline: Duration,
    pace: Pace,
    parked: Parked,
    /// How many events are still tried one by one, each alone, because holders died before this one.
    suspects: i64,
    /// How many events the last page had at most.
    last_page: i64,
    backoff: Backoff,
    scanned: i64,
    /// How many of its own events it has gone past in all.
    applied: i64,
    /// What `applied` was when it took the lease at the start of the log; none where it took it elsewhere.
    began: Option<i64>,
    trouble: Option<Trouble>,
    summons: Arc<Summons>,
    report: Arc<Mutex<Report>>,
    metrics: Arc<SubscriptionMetrics>,
}

/// What a subscription knows of events that are parked.
#[derive(Debug, Default)]
struct Parked {
    /// Whether streams are quarantined: their events are passed by. Set right by every batch.
    quarantined: bool,
    /// What the next batch parks, and how many events the batch had that failed on it.
    letter: Option<(Letter, i64)>,
    /// Whether somebody may want events retried.
    retry_due: bool,
    /// How many events a retry has at most.
    retry_page: i64,
}

impl Subscription {
    /// A subscription at the start of its life in this process.
    pub(crate) fn new(ready: Ready, terms: &Terms) -> Self {
        let metrics = Arc::new(SubscriptionMetrics::new(&ready.program.projection_id, ready.part.partition));
        let body = &ready.program.body;
        let most = match body {
            Body::Sql { .. } => terms.max_page_events,
            Body::Rust(_) => terms.max_page_events.min(HOSTED_PAGE),
        };
        let pace = Pace::new(most, body.grain());
        let report = Report {
            phase: Phase::Standby,
            trouble: None,
            held: false,
            building: ready.building,
            cursor: Cursor::START,
            scanned: 0,
            applied: 0,
            backlog: None,
        };
        Self {
            program: ready.program,
            categories: ready.categories,
            is_split: ready.part.is_split,
            building: ready.building,
            events_per_second: ready.events_per_second,
            phase: Phase::Standby,
            lease: None,
            backlog: None,
            got_on: false,
            deadline: terms.batch_timeout,
            pace,
            parked: Parked::default(),
            suspects: 0,
            last_page: 0,
            backoff: Backoff::default(),
            scanned: 0,
            applied: 0,
            began: None,
            trouble: None,
            summons: Arc::default(),
            report: Arc::new(Mutex::new(report)),
            metrics,
        }
    }

    /// Its name in the books.
    pub(crate) fn id(&self) -> &str {
        &self.program.subscription_id
    }

    /// The projection that it is, or is a partition of.
    pub(crate) fn projection_id(&self) -> &str {
        &self.program.projection_id
    }

    /// What it reads; `None` for everything.
    pub(crate) fn categories(&self) -> Option<&[String]> {
        self.categories.as_deref()
    }

    /// Whether it is still to reach the horizon for the first time: live work goes first.
    pub(crate) fn is_building(&self) -> bool {
        self.building
    }

    /// Where it says how it is.
    pub(crate) fn report(&self) -> Arc<Mutex<Report>> {
        Arc::clone(&self.report)
    }

    /// Where others say what its next turn is about.
    pub(crate) fn summons(&self) -> Arc<Summons> {
        Arc::clone(&self.summons)
    }

    /// Its metrics' handles.
    pub(crate) fn metrics(&self) -> Arc<SubscriptionMetrics> {
        Arc::clone(&self.metrics)
    }

    /// No new batch begins any more; the lease is given back with all others.
    pub(crate) fn drain(&mut self) {
        if self.lease.take().is_some() {
            self.metrics.lease(LeaseTransition::Released);
        }
        self.enter(Input::Drain);
        self.publish();
    }

    /// One turn: takes the lease, or folds one page. `trusted_until` is when this process stops trusting its leases.
    pub(crate) async fn turn(
        &mut self,
        conn: &mut Link<'_>,
        view: &View,
        terms: &Terms,
        trusted_until: Instant,
    ) -> Turn {
        let due = self.due();
        let turn = match self.enter(due) {
            Action::Fold if Instant::now() >= trusted_until => {
                Turn { next: Next::After(DISTRUST), spoilt: false }
            }
            Action::Take => self.take(conn, terms).await,
            Action::Release => self.release(conn).await,
            Action::Fold => self.fold(conn, view, terms).await,
            other @ (Action::Wait | Action::StandBy | Action::Rest | Action::Stop) => {
                Turn { next: self.next(other), spoilt: false }
            }
        };
        let stands = matches!(self.phase, Phase::Halted | Phase::Paused | Phase::BackingOff { .. });
        if stands && !turn.spoilt {
            // It does not get on, and how far behind it is must be known all the same, or no alert would ever tell of one
            // that was stuck before this process began. Best effort: asked again at the next turn.
            let _ = self.ensure_counted(conn, view).await;
        }
        self.publish();
        turn
    }

    fn failed(&mut self, fault: &Fault) -> Turn {
        let directive = fault.directive(&self.program.policy);
        let trouble = fault.trouble(self.projection_id(), directive);
        if !fault.is_no_error() {
            self.metrics.error(fault.kind());
        }
        match directive {
            Directive::Halt => {
                tracing::error!(
                    subscription = self.id(),
                    place = trouble.place,
                    event = trouble.event.as_ref().map(tracing::field::display),
                    sqlstate = trouble.sqlstate,
                    remedy = trouble.remedy,
                    "halted: {}",
                    fault.gist()
                );
            }
            Directive::Shrink => {
                let page = fault.page();
                self.pace.shrink(page);
                tracing::warn!(subscription = self.id(), page, "halving the page: {}", fault.gist());
            }
            Directive::Park => self.park(fault, &trouble),
            Directive::PassBy => self.parked.quarantined = true,
            Directive::Pause => tracing::info!(subscription = self.id(), "paused by an operator"),
            Directive::Retry | Directive::Retake => {
                self.metrics.retry();
                tracing::warn!(subscription = self.id(), "trying again: {}", fault.gist());
            }
        }
        // A take that failed loses nothing: only what was held is counted as lost.
        if directive == Directive::Retake && self.lease.take().is_some() {
            self.metrics.lease(LeaseTransition::Lost);
        }
        if !matches!(directive, Directive::Park | Directive::PassBy) {
            self.trouble = Some(trouble);
        }
        let turn = self.after(Input::Failed(directive));
        Turn { spoilt: matches!(fault, Fault::Unknown(_)), ..turn }
    }

    fn count(&mut self, events: i64, view: &View) {
        self.backlog = Some(if self.is_split {
            Backlog::counted_own(events, view)
        } else {
            Backlog::counted(events, view, self.categories.as_deref())
        });
    }

    fn remaining(&self, view: &View) -> Option<i64> {
        self.backlog.and_then(|backlog| backlog.remaining(view, self.categories.as_deref()))
    }

    fn enter(&mut self, input: Input) -> Action {
        let (phase, action) = step(self.phase, input);
        if phase != self.phase {
            tracing::debug!(
                subscription = self.id(),
                from = self.phase.as_str(),
                to = phase.as_str(),
                "phase"
            );
        }
        self.phase = phase;
        action
    }

    fn after(&mut self, input: Input) -> Turn {
        let action = self.enter(input);
        Turn { next: self.next(action), spoilt: false }
    }

    fn next(&mut self, action: Action) -> Next {
        match action {
            Action::Take | Action::Fold | Action::Release => Next::Again,
            Action::Wait => Next::WhenWoken,
            Action::StandBy => Next::WhenCalled,
            Action::Rest => Next::After(self.backoff.next()),
            Action::Stop => Next::Never,
        }
    }

    fn publish(&self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        *report = Report {
            phase: self.phase,
            trouble: self.trouble.clone(),
            held: self.lease.is_some(),
            building: self.building,
            cursor: self.lease.map_or(report.cursor, |lease| lease.cursor),
            scanned: self.scanned,
            applied: self.applied,
            backlog: self.backlog,
        };
    }
}

/// Bounds an await; what misses the deadline leaves the outcome unknown and the connection spoilt.
async fn within<T>(deadline: Duration, work: impl Future<Output = sqlx::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            // Cut off by the statement timeout, no event is to blame, so it must not halt.
            let fault = Fault::of(&error, 1);
            Err(if matches!(fault, Fault::TimedOut { .. }) { Fault::slow(&error) } else { fault })
        }
        Err(_) => Err(Fault::Unknown("no answer before the deadline".to_owned())),
    }
}
