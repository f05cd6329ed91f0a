//! The board: what every subscription of this process does, read by whoever wants to know.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::backlog::View;
use crate::engine::report::Report;
use crate::engine::run::Subscription;
use crate::ledger::phases::{Published, Trouble};
use crate::metrics::SubscriptionMetrics;
use crate::store::{Growth, Horizon};

/// How quickly a shown rate follows the measured one, per publication.
const SMOOTHING: f64 = 0.4;

/// How often a build that takes long says in the log how far it is.
const TOLD: Duration = Duration::from_secs(10);

/// What the watcher saw last.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) horizon: Horizon,
    /// Whether committed events wait behind it.
    pub(crate) stalled: bool,
    /// When the horizon last moved, or withheld nothing.
    pub(crate) moved_at: Instant,
}

impl Sight {
    /// For how long the horizon has stood still while committed events waited behind it.
    pub(crate) fn horizon_age(&self) -> Duration {
        if self.stalled { self.moved_at.elapsed() } else { Duration::ZERO }
    }
}

/// The board of one process.
#[derive(Default)]
pub(crate) struct Board {
    lines: Mutex<Vec<Line>>,
    sight: Mutex<Option<Sight>>,
    unproven: Mutex<Option<Unproven>>,
}

/// Whether the horizon can be proven here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unproven {
    reason: Option<String>,
}

/// One subscription on the board.
struct Line {
    subscription_id: String,
    categories: Option<Vec<String>>,
    /// Why what runs is not what the configuration asks for.
    notice: Option<Trouble>,
    report: Arc<Mutex<Report>>,
    metrics: Arc<SubscriptionMetrics>,
    scanned_before: i64,
    remaining_before: Option<i64>,
    rate: f64,
    arriving: f64,
    oldest_seconds: f64,
    /// When the log last said how far its build is, or when that began.
    told: Option<Instant>,
    published: Option<Published>,
}

/// What to publish about all subscriptions now.
pub(crate) struct Edition {
    /// The lines that changed since they were last published.
    pub(crate) changed: Vec<Published>,
    /// The subscriptions held here that are behind: somebody should ask how old their next event is.
    pub(crate) behind: Vec<String>,
}

impl Board {
    /// Adds a subscription, and what is to be said of it while it has no trouble.
    pub(crate) fn add(&self, subscription: &Subscription, notice: Option<Trouble>) {
        self.lines().push(Line {
            subscription_id: subscription.id().to_owned(),
            categories: subscription.categories().map(<[String]>::to_vec),
            notice,
            report: subscription.report(),
            metrics: subscription.metrics(),
            scanned_before: 0,
            remaining_before: None,
            rate: 0.0,
            arriving: 0.0,
            oldest_seconds: 0.0,
            told: None,
            published: None,
        });
    }

    /// Changes what is to be said of a subscription.
    pub(crate) fn note(&self, id: &str, notice: Option<Trouble>) {
        if let Some(line) = self.lines().iter_mut().find(|line| line.subscription_id == id) {
            line.notice = notice;
        }
    }

    /// Removes a subscription that does not run here any more.
    pub(crate) fn remove(&self, id: &str) {
        self.lines().retain(|line| line.subscription_id != id);
    }

    /// Notes what the watcher saw.
    pub(crate) fn see(&self, sight: Sight) {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) = Some(sight);
    }

    /// What the watcher saw last.
    pub(crate) fn sight(&self) -> Option<Sight> {
        self.sight.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why the horizon cannot be proven here, or that it can, and says it once.
    pub(crate) fn set_unproven(&self, reason: Option<String>) {
        let mut known = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Unproven { reason };
        if known.as_ref() != Some(&now) {
            match (&now.reason, &*known) {
                (Some(reason), _) => tracing::warn!(
                    remedy = "see `foldd doctor`",
                    "tier 0: every open transaction of the cluster holds up the readers, because {reason}"
                ),
                (None, Some(_)) => tracing::info!("tier 1 again: only who has appended holds up the readers"),
                (None, None) => {}
            }
            *known = Some(now);
        }
    }

    /// Why the horizon cannot be proven here; `None` when it can.
    pub(crate) fn unproven(&self) -> Option<String> {
        let known = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().and_then(|known| known.reason.clone())
    }

    /// Notes how old the next event of each lagging subscription is; the others have none.
    pub(crate) fn age(&self, oldest: &HashMap<String, f64>) {
        for line in self.lines().iter_mut() {
            line.oldest_seconds = oldest.get(&line.subscription_id).copied().unwrap_or(0.0);
        }
    }

    /// Notes how many events are parked of each subscription; the others have none.
    pub(crate) fn count_letters(&self, letters: &HashMap<String, i64>) {
        for line in self.lines().iter() {
            if line.report.lock().unwrap_or_else(PoisonError::into_inner).held {
                line.metrics.dead_letters(letters.get(&line.subscription_id).copied().unwrap_or(0));
            }
        }
    }

    /// Forgets what was published: the next edition has everything.
    pub(crate) fn forget_published(&self) {
        for line in self.lines().iter_mut() {
            line.published = None;
        }
    }

    /// Measures every line over the last `interval`, sets its metrics, and says what changed.
    ///
    /// `withheld` are the committed events beyond the horizon, by category; `now` is the server's clock.
    pub(crate) fn edition(
        &self,
        view: Option<&View>,
        withheld: &Growth,
        interval: Duration,
        now: f64,
    ) -> Edition {
        let mut edition = Edition { changed: Vec::new(), behind: Vec::new() };
        for line in self.lines().iter_mut() {
            let report = line.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let progress = report.scanned - line.scanned_before;
            line.scanned_before = report.scanned;
            let seconds = interval.as_secs_f64().max(1e-3);
            line.rate = smoothed(line.rate, progress as f64 / seconds);
            let remaining = view
                .zip(report.backlog)
                .and_then(|(view, backlog)| backlog.remaining(view, line.categories.as_deref()))
                .map(|remaining| remaining.max(0));
            // What came in is what is left, less what was left before, and what was folded.
            let arrived = remaining.zip(line.remaining_before).map(|(now, before)| now - before + progress);
            line.arriving = smoothed(line.arriving, arrived.unwrap_or(0).max(0) as f64 / seconds);
            line.remaining_before = remaining;
            if report.held && remaining != Some(0) {
                edition.behind.push(line.subscription_id.clone());
            } else {
                line.oldest_seconds = 0.0;
            }
            line.measure(&report, remaining, withheld, (progress > 0 || remaining == Some(0)).then_some(now));
            line.tell(&report, remaining);
            let published = Published {
                subscription_id: line.subscription_id.clone(),
                phase: report.phase.as_str(),
                error: report.trouble.or_else(|| line.notice.clone()),
                events_per_second: line.rate,
                // Not counted yet: what was published before is the better guess.
                lag_events: remaining
                    .unwrap_or_else(|| line.published.as_ref().map_or(0, |before| before.lag_events)),
                lag_seconds: line.oldest_seconds,
                // Only of a build it matters, and a line that changes is a line to write.
                arriving_per_second: if report.building { line.arriving } else { 0.0 },
            };
            // A standby has nothing to say about what somebody else holds.
            if (report.held || published.error.is_some()) && line.published.as_ref() != Some(&published) {
                line.published = Some(published.clone());
                edition.changed.push(published);
            }
        }
        edition
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A shown rate that follows the measured one.
fn smoothed(shown: f64, measured: f64) -> f64 {
    let next = if shown == 0.0 { measured } else { shown + SMOOTHING * (measured - shown) };
    if next < 0.05 { 0.0 } else { next }
}

impl Line {
    /// Says now and then how far a build is.
    fn tell(&mut self, report: &Report, remaining: Option<i64>) {
        let Some(left) = remaining.filter(|left| *left > 0 && report.held && report.building) else {
            self.told = None;
            return;
        };
        if self.told.get_or_insert_with(Instant::now).elapsed() < TOLD {
            return;
        }
        self.told = Some(Instant::now());
        tracing::info!(
            subscription = self.subscription_id,
            done = report.applied,
            left,
            events_per_second = self.rate.round(),
            eta_seconds = self.eta(left).map(f64::round),
            phase = report.phase.as_str(),
            "building"
        );
    }

    /// When a build is done, if it goes on as it does and events go on to come.
    fn eta(&self, left: i64) -> Option<f64> {
        let nearer = self.rate - self.arriving;
        (nearer > 0.0).then(|| left as f64 / nearer)
    }

    fn measure(
        &self,
        report: &Report,
        remaining: Option<i64>,
        withheld: &Growth,
        progressed_at: Option<f64>,
    ) {
        let beyond = match &self.categories {
            None => withheld.values().sum(),
            Some(names) => names.iter().filter_map(|name| withheld.get(name)).sum(),
        };
        self.metrics.phase(report.phase.as_str());
        // Said each time: whoever was dismissed with a batch in hand and then taken up again clears it when that ends.
        self.metrics.held(report.held);
        if !report.held {
            return;
        }
        self.metrics.withheld(beyond);
        if let Some(now) = progressed_at {
            self.metrics.progress_now(now);
        }
        let Some(remaining) = remaining else { return };
        self.metrics.lag(remaining, self.oldest_seconds);
        let total = report.applied + remaining;
        let build = report.building.then(|| {
            let ratio = if total > 0 { report.applied as f64 / total as f64 } else { 1.0 };
            (ratio, self.eta(remaining))
        });
        self.metrics.build(build);
    }
}

/// A projection that could not be prepared: it stands on the board without a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Unprepared {
    pub(crate) projection_id: String,
    pub(crate) trouble: Trouble,
}

impl Unprepared {
    /// Its line.
    pub(crate) fn published(&self) -> Published {
        Published {
            subscription_id: self.projection_id.clone(),
            phase: "halted",
            error: Some(self.trouble.clone()),
            events_per_second: 0.0,
            lag_events: 0,
            lag_seconds: 0.0,
            arriving_per_second: 0.0,
        }
    }
}
