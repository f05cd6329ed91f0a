//! A turn that folds one page.

use std::time::Duration;

use tokio::time::Instant;

use super::{Next, Subscription, Terms, Turn, within};
use crate::engine::backlog::View;
use crate::engine::batch::{self, Batch, Bounds, Committed};
use crate::engine::failure::Fault;
use crate::engine::machine::{Input, Phase};
use crate::engine::pace::Grain;
use crate::engine::report;
use crate::ledger::lease;
use crate::ledger::parking::{self, Care};
use crate::ledger::projections::{self, Built};
use crate::store::{self, Link};

/// From this page size on, the planner is told that the page is large.
const BULK_PAGE: i64 = 20_000;
/// So many times `catch_up_batch` is what a batch of a build aims at whose statements have the whole page, where that is
/// faster: nobody reads yet what it writes, and each page writes most rows of the read model again. Event by event a row
/// costs more with every version that the same transaction leaves of it, so there the target stays what it is; and where the
/// horizon cannot be proven, since the readers of the log wait for every open batch.
const BUILD_BATCH: u32 = 15;
/// Such a part of `catch_up_batch` is what a batch of one of several partitions aims at whose statements run event by event.
/// What it leaves of a row cannot be cleared away while a batch of another one is open, and no rate of its own tells.
const SPLIT_BATCH: u32 = 20;
/// So many times `max_page_bytes` a page of a build may have that is never held as a whole.
const UNHELD_BYTES: i64 = 8;
/// The longest that the creation of an index is waited for. Hours of sorting are somebody's billions of rows; more is a
/// connection that died without a word.
const INDEX_DEADLINE: Duration = Duration::from_secs(6 * 60 * 60);

impl Subscription {
    pub(super) async fn fold(&mut self, conn: &mut Link<'_>, view: &View, terms: &Terms) -> Turn {
        let Some(lease) = self.lease else {
            return self.failed(&Fault::Fenced);
        };
        if self.parked.retry_due
            && let Some(turn) = self.retry(conn, &lease, view, terms).await
        {
            return turn;
        }
        // The first page after a takeover goes before the count: a process that is killed again and again while it counts
        // a long backlog would never get on.
        if self.got_on
            && let Err(fault) = self.ensure_counted(conn, view).await
        {
            return self.failed(&fault);
        }
        let letter = self.parked.letter.take();
        let suspected = if letter.is_none() && self.suspects > 0 {
            match self.next_suspect(conn, &lease, view).await {
                Ok(suspected) => suspected,
                Err(fault) => return self.failed(&fault),
            }
        } else {
            None
        };
        let paced = self.paced(view, terms);
        let given = match (&letter, suspected) {
            (_, Some(_)) => Some(1),
            // As large as the page that failed on it.
            (Some((_, page)), None) => Some(*page),
            (None, None) => None,
        };
        let bounds = self.bounds(paced, given, view, terms);
        self.last_page = bounds.max_events;
        let care = match letter {
            Some((letter, _)) => Care::Around(Some(letter)),
            None if self.parked.quarantined => Care::Around(None),
            None => Care::Whole,
        };
        let _floor = match self.step_in(conn, &lease, suspected, terms).await {
            Ok(floor) => floor,
            Err(fault) => return self.failed(&fault),
        };
        let batch = Batch {
            subscription_id: &self.program.subscription_id,
            lease: &lease,
            horizon: view.horizon.clone(),
            bounds,
            care: &care,
        };
        let started = Instant::now();
        match batch::fold(conn, &self.program, &batch).await {
            Ok(committed) => {
                // Pages that are small for a reason of their own measure nothing.
                if matches!(care, Care::Whole | Care::Around(None)) && suspected.is_none() {
                    let full = committed.scanned >= paced;
                    self.pace.committed(committed.scanned, started.elapsed(), full);
                }
                self.committed(conn, &committed, started.elapsed(), view).await
            }
            Err(fault) => self.rolled_back(conn, &fault, started.elapsed()).await,
        }
    }

    async fn rolled_back(&mut self, conn: &mut Link<'_>, fault: &Fault, took: Duration) -> Turn {
        if !fault.is_no_error() {
            self.metrics.batch(fault.outcome(), 0, took);
        }
        // With its version went the function: nobody's mistake, and this one is about to be dismissed.
        let may_be_gone = matches!(fault, Fault::Broken { .. });
        if may_be_gone && !self.is_there(conn).await.unwrap_or(true) {
            return self.failed(&Fault::Fenced);
        }
        self.failed(fault)
    }

    /// The bounds of a page that pays, or of one whose events are `given`.
    ///
    /// The bytes of its events bound what a page takes of memory. Statements that read a large one from the index, as it is
    /// while nothing is to be passed by, hold none of it.
    fn bounds(&self, paced: i64, given: Option<i64>, view: &View, terms: &Terms) -> Bounds {
        let bulk = paced >= BULK_PAGE;
        let is_whole = given.is_none() && !self.is_split && !self.parked.quarantined;
        let one_category = self.categories.as_ref().is_some_and(|all| all.len() == 1);
        let unheld = bulk && is_whole && one_category && self.builds_by_page();
        Bounds {
            max_events: given.unwrap_or_else(|| self.page_of(paced, view)),
            max_bytes: terms.max_page_bytes.saturating_mul(if unheld { UNHELD_BYTES } else { 1 }),
            bulk,
            rest: self.remaining(view).filter(|rest| unheld && (BULK_PAGE..=paced).contains(rest)),
            timeout: terms.batch_timeout,
        }
    }

    /// Whether this is a build whose statements have the whole page.
    fn builds_by_page(&self) -> bool {
        self.building && self.program.body.grain() == Grain::Page
    }

    /// How many events fold fastest in one page, within the time that a batch may take and the speed that a build may have.
    fn paced(&self, view: &View, terms: &Terms) -> i64 {
        let target = if self.phase != Phase::CatchingUp {
            terms.live_batch
        } else if view.is_provable && self.builds_by_page() {
            (terms.catch_up_batch * BUILD_BATCH).min(terms.batch_timeout / 3).max(terms.catch_up_batch)
        } else if self.is_split && self.program.body.grain() == Grain::Event {
            terms.catch_up_batch / SPLIT_BATCH
        } else {
            terms.catch_up_batch
        };
        let paced = self.pace.page(target);
        self.speed_limit().map_or(paced, |most| paced.min(most))
    }

    /// Not more than there is: should the batch run out of time, the halving begins at what it had. What there is of a split
    /// projection are its own events, and the page has others'.
    fn page_of(&self, paced: i64, view: &View) -> i64 {
        let remaining = if self.is_split { None } else { self.remaining(view) };
        remaining.map_or(paced, |remaining| paced.min(remaining.max(1)))
    }

    async fn is_there(&self, conn: &mut Link<'_>) -> Result<bool, Fault> {
        within(self.deadline, lease::is_there(conn, &self.program.subscription_id)).await
    }

    /// Counts the backlog, unless it is known.
    pub(super) async fn ensure_counted(&mut self, conn: &mut Link<'_>, view: &View) -> Result<(), Fault> {
        let Some(lease) = self.lease else { return Ok(()) };
        let known = self.remaining(view);
        let since = self.backlog.and_then(|backlog| backlog.uncounted(view));
        let events = match (known, since) {
            (Some(_), None) => return Ok(()),
            (Some(known), Some(_)) => known + self.count_own(conn, since, view).await?,
            (None, _) => match (self.count_by_streams(conn, view).await?, self.is_split) {
                (Some(events), _) => events,
                (None, true) => self.count_own(conn, None, view).await?,
                (None, false) => {
                    let counting =
                        store::count_after(conn, self.categories.as_deref(), lease.cursor, &view.horizon);
                    within(self.deadline, counting).await?
                }
            },
        };
        self.count(events, view);
        Ok(())
    }

    /// What is left of all the events that it has, where it has gone past them since the start of the log in this tenure.
    async fn count_by_streams(&self, conn: &mut Link<'_>, view: &View) -> Result<Option<i64>, Fault> {
        let Some(before) = self.began else { return Ok(None) };
        let counting = parking::count_own_by_streams(conn, &self.program.subscription_id, &view.horizon);
        Ok(within(self.deadline, counting).await?.map(|all| all - (self.applied - before)))
    }

    async fn count_own(&self, conn: &mut Link<'_>, since: Option<u64>, view: &View) -> Result<i64, Fault> {
        let counting = parking::count_own(conn, &self.program.subscription_id, since, &view.horizon);
        within(self.deadline, counting).await
    }

    /// The batch is in: remember where we are, and say whether there is more.
    async fn committed(
        &mut self,
        conn: &mut Link<'_>,
        committed: &Committed,
        took: Duration,
        view: &View,
    ) -> Turn {
        self.backoff.reset();
        self.trouble = None;
        self.scanned += committed.own;
        self.applied += committed.own;
        self.parked.quarantined = committed.quarantined;
        if let (Some(lease), Some(cursor)) = (&mut self.lease, committed.cursor) {
            lease.cursor = cursor;
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.applied(committed.own);
        }
        tracing::debug!(
            subscription = self.id(),
            page = self.last_page,
            scanned = committed.scanned,
            parked = committed.parked,
            ?took,
            "batch committed"
        );
        report::measure(&self.metrics, self.phase, committed, took);
        self.got_on = true;
        if let Err(fault) = self.cleared(conn, committed.scanned).await {
            return self.failed(&fault);
        }
        let Some(remaining) = self.remaining(view) else {
            if committed.scanned > 0 {
                return self.after(Input::MoreToDo);
            }
            self.count(0, view);
            return self.caught_up(conn, view).await;
        };
        // One partition goes on past the events of the others, so as not to read them again with each of its own.
        let passes_others = self.is_split && committed.scanned >= self.last_page;
        if committed.scanned > 0 && (remaining > 0 || passes_others) {
            let turn = self.after(Input::MoreToDo);
            return self.slowed(turn, committed.own, took);
        }
        if remaining != 0 {
            // An empty page says there is nothing left, whatever the arithmetic believes: count anew next time.
            tracing::warn!(
                subscription = self.id(),
                remaining,
                "the backlog was miscounted and is counted anew"
            );
            self.count_anew();
        }
        self.caught_up(conn, view).await
    }

    /// What was counted is wrong: the next count is of the events themselves.
    fn count_anew(&mut self) {
        (self.backlog, self.began) = (None, None);
    }

    /// The most events a second, where somebody has limited a build.
    fn speed_limit(&self) -> Option<i64> {
        self.events_per_second.filter(|_| self.building).map(i64::from)
    }

    /// A turn that is followed by a rest for as long as a build was faster than it may be.
    fn slowed(&self, turn: Turn, events: i64, took: Duration) -> Turn {
        let Some(most) = self.speed_limit() else { return turn };
        let due = Duration::from_secs_f64(events as f64 / most as f64);
        let rest = due.saturating_sub(took);
        if rest.is_zero() { turn } else { Turn { next: Next::After(rest), ..turn } }
    }

    /// Everything up to the horizon is applied; what is built is looked at once more, since a version that takes over too
    /// early cannot be told from one that is right.
    async fn caught_up(&mut self, conn: &mut Link<'_>, view: &View) -> Turn {
        self.pace.idle();
        if self.building {
            let next = batch::next_event(conn, self.id(), &view.horizon);
            match within(self.deadline, next).await {
                Ok(None) => {}
                Ok(Some(_)) => {
                    self.count_anew();
                    return self.after(Input::MoreToDo);
                }
                Err(fault) => return self.failed(&fault),
            }
            match self.built(conn).await {
                Ok(became) => {
                    match became {
                        Built::Live => {
                            tracing::info!(subscription = self.id(), "first build done, live from now on")
                        }
                        Built::Beside => {
                            tracing::info!(subscription = self.id(), "built, and about to take over")
                        }
                        Built::NotYet | Built::Unfinished => {}
                    }
                    self.building = false;
                }
                Err(fault) => return self.failed(&fault),
            }
        }
        self.after(Input::ReachedHorizon)
    }

    /// Finishes the tables, if this is the last part of them, and notes that this part is built.
    async fn built(&mut self, conn: &mut Link<'_>) -> Result<Built, Fault> {
        let id = &self.program.subscription_id;
        loop {
            let is_last = within(self.deadline, projections::is_last_part(conn, id)).await?;
            if is_last {
                self.create_late_indexes(conn).await?;
                self.tidy(conn).await?;
            }
            match within(self.deadline, projections::go_live(conn, id, is_last)).await? {
                // Another part arrived at the same moment: now this one is the last.
                Built::Unfinished => {}
                became @ (Built::Live | Built::Beside | Built::NotYet) => return Ok(became),
            }
        }
    }

    /// One after the other: millions of rows are sorted for minutes, while the lease is renewed elsewhere and the live
    /// version goes on.
    async fn create_late_indexes(&self, conn: &mut Link<'_>) -> Result<(), Fault> {
        let projection_id = &self.program.projection_id;
        let next = async |conn: &mut Link<'_>| {
            within(self.deadline, projections::next_late_index(conn, projection_id)).await
        };
        while let Some(definition) = next(conn).await? {
            within(self.deadline, projections::set_waiting(conn, projection_id, "its indexes")).await?;
            let started = Instant::now();
            let creating = projections::create_late_index(conn, projection_id, &definition);
            tokio::time::timeout(INDEX_DEADLINE, creating)
                .await
                .map_err(|_| Fault::Unknown("no answer for six hours while an index was created".to_owned()))?
                .map_err(|error| Fault::of_index(&error, &definition))?;
            let seconds = started.elapsed().as_secs_f64();
            tracing::info!(
                projection = projection_id,
                index = definition,
                seconds,
                "index created after the load"
            );
        }
        Ok(())
    }

    async fn tidy(&self, conn: &mut Link<'_>) -> Result<(), Fault> {
        let id = &self.program.projection_id;
        for table in within(self.deadline, projections::tables(conn, id)).await? {
            // Statistics and the visibility map, so that the first readers have good plans. Without them they are right
            // all the same, and autovacuum makes up for it.
            match within(self.deadline, projections::tidy(conn, &table)).await {
                Err(fault @ Fault::Unknown(_)) => return Err(fault),
                Err(fault) => tracing::warn!(table, "not tidied: {}", fault.gist()),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}
