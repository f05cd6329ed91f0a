//! Every metric there is. No other file names one.
//!
//! A gauge that nobody has set says nothing: it holds NaN, and [`Exporter::render`] leaves such lines out. So a
//! subscription never shows a made-up zero before it was measured, and withdraws what it no longer knows by setting
//! NaN. That is how a replica that loses a lease stops exporting lag: the holder alone does. Counters and histograms
//! stay, since what this process has done remains true; should those go as well, the same filter is the place.
//!
//! Labels are bounded: names and versions of projections, partitions, and the words of `labels`. Never a stream, an event
//! or a message.

mod catalog;
mod labels;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, SharedString, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use catalog::*;
pub(crate) use labels::{BatchOutcome, ConnectionRole, ErrorKind, LeaseTransition};

/// Upper bounds of time buckets, in seconds: from one statement to a delivery in trouble. A live batch may take 0.2.
const SECONDS_BUCKETS: [f64; 14] =
    [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];
/// Upper bounds of page sizes, in events.
const EVENTS_BUCKETS: [f64; 10] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 100_000.0];

/// The phases of a subscription, as status and metrics spell them.
pub(crate) const PHASES: [&str; 7] =
    ["standby", "catching_up", "live", "backing_off", "halted", "paused", "draining"];

/// Installs the recorder of the process and describes every metric. Handles taken before record nothing.
///
/// # Errors
/// A recorder has been installed before.
pub(crate) fn install() -> Result<Exporter, BuildError> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(Exporter::new(handle))
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(BATCH_EVENTS.to_owned()), &EVENTS_BUCKETS)
}

/// Turns what was recorded into Prometheus' text format.
#[derive(Clone)]
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Exporter {
    /// The recorder behind `handle` is the current one.
    fn new(handle: PrometheusHandle) -> Self {
        for Metric { kind, name, unit, help, labels: _ } in METRICS {
            let unit = unit.unwrap_or(Unit::Count);
            match kind {
                Kind::Gauge => metrics::describe_gauge!(*name, unit, *help),
                Kind::Counter => metrics::describe_counter!(*name, unit, *help),
                Kind::Histogram => metrics::describe_histogram!(*name, unit, *help),
            }
        }
        metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let process = metrics_process::Collector::default();
        process.describe();
        Self { handle, process }
    }

    /// Everything that has a value now, process metrics included.
    pub(crate) fn render(&self) -> String {
        self.measure();
        without_unset(&self.handle.render())
    }

    /// Looks at the process and at the runtime that this runs on; outside of one there is nothing to say of it.
    fn measure(&self) {
        self.process.collect();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let seen = runtime.metrics();
        for (name, count) in [
            (RUNTIME_WORKERS, seen.num_workers()),
            (RUNTIME_TASKS, seen.num_alive_tasks()),
            (RUNTIME_QUEUED_TASKS, seen.global_queue_depth()),
        ] {
            metrics::gauge!(name).set(count as f64);
        }
    }

    /// Sorts recorded samples into their buckets. Must run every few seconds: samples that nobody scrapes or sorts
    /// pile up for ever.
    pub(crate) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// One with a recorder of its own, which is the current one only while `record` runs.
    #[cfg(test)]
    pub(crate) fn detached(record: impl FnOnce()) -> Result<Self, BuildError> {
        let recorder = builder()?.build_recorder();
        let handle = recorder.handle();
        Ok(metrics::with_local_recorder(&recorder, || {
            let exporter = Self::new(handle);
            record();
            exporter.measure();
            exporter
        }))
    }
}

/// Drops the lines of gauges that hold NaN, and the blank ones between families.
fn without_unset(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in
        text.lines().filter(|line| !line.is_empty() && (line.starts_with('#') || !line.ends_with(" NaN")))
    {
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// A gauge without a value yet.
fn unset(name: &'static str, labels: Vec<Label>) -> Gauge {
    let gauge = metrics::gauge!(name, labels);
    gauge.set(f64::NAN);
    gauge
}

/// The number of connections of this role that are open now.
pub(crate) fn connections(role: ConnectionRole, open: usize) {
    metrics::gauge!(CONNECTIONS, "role" => ConnectionRole::WORDS[role as usize]).set(open as f64);
}

/// The metrics of the log. The watcher has them.
pub(crate) struct StoreMetrics {
    head_position: Gauge,
    horizon_age: Gauge,
    horizon_tier: Gauge,
    without_holder: Gauge,
    polls: Counter,
}

impl StoreMetrics {
    /// Registers them.
    pub(crate) fn new() -> Self {
        Self {
            head_position: unset(HEAD_POSITION, vec![]),
            horizon_age: unset(HORIZON_AGE_SECONDS, vec![]),
            horizon_tier: unset(HORIZON_TIER, vec![]),
            without_holder: unset(SUBSCRIPTIONS_WITHOUT_HOLDER, vec![]),
            polls: metrics::counter!(POLLS_TOTAL),
        }
    }

    /// The watcher looked at the log once more, and saw its head here.
    pub(crate) fn polled(&self, head_position: i64) {
        self.polls.increment(1);
        self.head_position.set(head_position as f64);
    }

    /// How many subscriptions nobody holds who should.
    pub(crate) fn without_holder(&self, subscriptions: usize) {
        self.without_holder.set(subscriptions as f64);
    }

    /// Which tier is in force, for how long events have been withheld, and by how many of each cause; name all causes, most
    /// of them with 0.
    pub(crate) fn horizon(
        &self,
        tier: u8,
        age_seconds: f64,
        blockers: impl IntoIterator<Item = (&'static str, usize)>,
    ) {
        self.horizon_tier.set(f64::from(tier));
        self.horizon_age.set(age_seconds);
        for (cause, count) in blockers {
            metrics::gauge!(HORIZON_BLOCKERS, "cause" => cause).set(count as f64);
        }
    }
}

/// How many batches applied events, and how long they took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BatchTimes {
    pub(crate) batches: u64,
    pub(crate) took: Duration,
}

/// The same while it is added up.
#[derive(Debug, Default)]
struct BatchTally {
    batches: AtomicU64,
    nanoseconds: AtomicU64,
}

/// By version, `fines@2`, all partitions together: what the exported histograms have as well, without rendering every series
/// of a thousand projections to read it.
static BATCH_TALLIES: Mutex<BTreeMap<String, Arc<BatchTally>>> = Mutex::new(BTreeMap::new());

/// The batches of this process, since it began.
pub(crate) fn batch_times() -> BTreeMap<String, BatchTimes> {
    let tallies = BATCH_TALLIES.lock().unwrap_or_else(PoisonError::into_inner);
    let times = |tally: &BatchTally| BatchTimes {
        batches: tally.batches.load(Ordering::Relaxed),
        took: Duration::from_nanos(tally.nanoseconds.load(Ordering::Relaxed)),
    };
    tallies.iter().map(|(version, tally)| (version.clone(), times(tally))).collect()
}

/// The metrics of one subscription, registered once, so that recording is an atomic operation and no look-up.
pub(crate) struct SubscriptionMetrics {
    /// Of the version, however often it was built.
    tally: Arc<BatchTally>,
    lag_events: Gauge,
    lag_seconds: Gauge,
    withheld: Gauge,
    dead_letters: Gauge,
    position: Gauge,
    phases: [Gauge; PHASES.len()],
    lease_held: Gauge,
    build_progress: Gauge,
    build_eta: Gauge,
    last_progress: Gauge,
    applied: Counter,
    skipped: Counter,
    batches: [Counter; BatchOutcome::WORDS.len()],
    errors: [Counter; ErrorKind::WORDS.len()],
    retries: Counter,
    transitions: [Counter; LeaseTransition::WORDS.len()],
    batch_duration: Histogram,
    batch_events: Histogram,
    delivery: Histogram,
}

impl SubscriptionMetrics {
    /// Registers them: counters at 0, gauges without a value. The id is `fines@2`, or `fines@2.3` of a version that was
    /// built anew: while it is built the one before is live, and neither may write over the other's series.
    pub(crate) fn new(projection_id: &str, partition: i32) -> Self {
        let (projection, version) = projection_id.split_once('@').unwrap_or((projection_id, ""));
        let labels = vec![
            Label::new("projection", SharedString::from(projection.to_owned())),
            Label::new("version", SharedString::from(version.to_owned())),
            Label::new("partition", partition.to_string()),
        ];
        let and = |label: &'static str, word: &'static str| {
            labels.iter().cloned().chain([Label::from_static_parts(label, word)]).collect::<Vec<_>>()
        };
        let number = version.split('.').next().unwrap_or_default();
        let mut tallies = BATCH_TALLIES.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = Arc::clone(tallies.entry(format!("{projection}@{number}")).or_default());
        drop(tallies);
        Self {
            tally,
            lag_events: unset(LAG_EVENTS, labels.clone()),
            lag_seconds: unset(LAG_SECONDS, labels.clone()),
            withheld: unset(WITHHELD_EVENTS, labels.clone()),
            dead_letters: unset(DEAD_LETTERS, labels.clone()),
            position: unset(POSITION, labels.clone()),
            phases: PHASES.map(|phase| unset(PHASE, and("phase", phase))),
            lease_held: unset(LEASE_HELD, labels.clone()),
            build_progress: unset(BUILD_PROGRESS_RATIO, labels.clone()),
            build_eta: unset(BUILD_ETA_SECONDS, labels.clone()),
            last_progress: unset(LAST_PROGRESS_TIMESTAMP_SECONDS, labels.clone()),
            applied: metrics::counter!(EVENTS_APPLIED_TOTAL, labels.clone()),
            skipped: metrics::counter!(EVENTS_SKIPPED_TOTAL, labels.clone()),
            batches: BatchOutcome::WORDS.map(|word| metrics::counter!(BATCHES_TOTAL, and("outcome", word))),
            errors: ErrorKind::WORDS.map(|word| metrics::counter!(ERRORS_TOTAL, and("kind", word))),
            retries: metrics::counter!(RETRIES_TOTAL, labels.clone()),
            transitions: LeaseTransition::WORDS
                .map(|word| metrics::counter!(LEASE_TRANSITIONS_TOTAL, and("to", word))),
            batch_duration: metrics::histogram!(BATCH_DURATION_SECONDS, labels.clone()),
            batch_events: metrics::histogram!(BATCH_EVENTS, labels.clone()),
            delivery: metrics::histogram!(DELIVERY_SECONDS, labels),
        }
    }

    /// A batch of `events` ended like this. Size and time are kept of those that applied some: empty pages would
    /// drown them, and failed ones measure a timeout.
    pub(crate) fn batch(&self, outcome: BatchOutcome, events: u64, took: Duration) {
        self.batches[outcome as usize].increment(1);
        if outcome == BatchOutcome::Committed {
            self.batch_events.record(events as f64);
            self.batch_duration.record(took);
            let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.tally.batches.fetch_add(1, Ordering::Relaxed);
            self.tally.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    /// A committed batch handed `events` to the handler, and passed over `skipped`.
    pub(crate) fn applied(&self, events: u64, skipped: u64) {
        self.applied.increment(events);
        self.skipped.increment(skipped);
    }

    /// One fault.
    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors[kind as usize].increment(1);
    }

    /// A batch is tried again.
    pub(crate) fn retry(&self) {
        self.retries.increment(1);
    }

    /// How far behind the horizon it is.
    pub(crate) fn lag(&self, events: i64, seconds: f64) {
        self.lag_events.set(events as f64);
        self.lag_seconds.set(seconds);
    }

    /// How many committed events of its categories are beyond the horizon.
    pub(crate) fn withheld(&self, events: i64) {
        self.withheld.set(events as f64);
    }

    /// How many of its events are parked.
    pub(crate) fn dead_letters(&self, events: i64) {
        self.dead_letters.set(events as f64);
    }

    /// The last event applied.
    pub(crate) fn position(&self, position: i64) {
        self.position.set(position as f64);
    }

    /// Seconds from append to applied of `events` events. Only while live: a backlog would report its age.
    pub(crate) fn delivery(&self, seconds: f64, events: usize) {
        self.delivery.record_many(seconds, events);
    }

    /// The checkpoint moved, or nothing was left to do, at this Unix time by the database's clock.
    pub(crate) fn progress_now(&self, unix_seconds: f64) {
        self.last_progress.set(unix_seconds);
    }

    /// It is in this phase, one of [`PHASES`].
    pub(crate) fn phase(&self, phase: &'static str) {
        debug_assert!(PHASES.contains(&phase), "'{phase}' is no phase");
        for (gauge, name) in self.phases.iter().zip(PHASES) {
            gauge.set(f64::from(u8::from(name == phase)));
        }
    }

    /// Whether this replica holds the lease.
    pub(crate) fn held(&self, held: bool) {
        self.lease_held.set(f64::from(u8::from(held)));
    }

    /// What became of the lease. Whoever does not hold it knows nothing of lag, dead letters, position and build any more.
    pub(crate) fn lease(&self, to: LeaseTransition) {
        self.transitions[to as usize].increment(1);
        let held = to == LeaseTransition::Taken;
        self.held(held);
        if !held {
            let counts = [&self.lag_events, &self.withheld, &self.dead_letters];
            let others = [&self.lag_seconds, &self.position, &self.last_progress];
            counts.into_iter().chain(others).for_each(|gauge| gauge.set(f64::NAN));
            self.build(None);
        }
    }

    /// How much of a build is done, from 0 to 1, and in how many seconds the rest will be, where that can be told;
    /// `None` when nothing is being built.
    pub(crate) fn build(&self, progress: Option<(f64, Option<f64>)>) {
        let (ratio, eta) = progress.unwrap_or((f64::NAN, None));
        self.build_progress.set(ratio);
        self.build_eta.set(eta.unwrap_or(f64::NAN));
    }
}

/// What this process runs no more has no gauges. Else those of a build that is cancelled, or of a version that is retired,
/// would say for ever what they said last, and alerts with them.
impl Drop for SubscriptionMetrics {
    fn drop(&mut self) {
        let counts = [&self.lag_events, &self.withheld, &self.dead_letters, &self.lease_held];
        let others = [&self.lag_seconds, &self.position, &self.last_progress];
        let gauges = counts.into_iter().chain(others).chain(&self.phases);
        gauges.for_each(|gauge| gauge.set(f64::NAN));
        self.build(None);
    }
}
