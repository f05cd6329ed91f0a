//! The list of metrics: what each is called, its labels, its unit, and what it says.

use metrics::Unit;

/// The labels of what is measured of each subscription, and of what is split further by a word.
const OWN: &[&str] = &["projection", "version", "partition"];
const OWN_AND_PHASE: &[&str] = &["projection", "version", "partition", "phase"];
const OWN_AND_OUTCOME: &[&str] = &["projection", "version", "partition", "outcome"];
const OWN_AND_KIND: &[&str] = &["projection", "version", "partition", "kind"];
const OWN_AND_TO: &[&str] = &["projection", "version", "partition", "to"];

/// What a metric is, for its description and for the reference.
pub(super) struct Metric {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    /// Read by the reference and its tests: what is exported has exactly these.
    #[cfg_attr(not(test), allow(dead_code, reason = "the reference is written by a test"))]
    pub(super) labels: &'static [&'static str],
    pub(super) unit: Option<Unit>,
    pub(super) help: &'static str,
}

/// How a metric moves.
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// Declares each metric in one place: the constant that names it, and its entry in `METRICS`.
macro_rules! declare_metrics {
    ($($kind:ident $constant:ident = $name:literal, $labels:expr, $unit:expr, $help:literal;)+) => {
        $(pub(super) const $constant: &str = $name;)+
        pub(super) const METRICS: &[Metric] =
            &[$(Metric { kind: Kind::$kind, name: $constant, labels: $labels, unit: $unit, help: $help }),+];
    };
}

declare_metrics! {
    Gauge LAG_EVENTS = "foldd_lag_events", OWN, Some(Unit::Count),
        "Events of its categories after the checkpoint, up to the horizon.";
    Gauge LAG_SECONDS = "foldd_lag_seconds", OWN, Some(Unit::Seconds),
        "Age of the oldest event up to the horizon that is not applied yet.";
    Gauge WITHHELD_EVENTS = "foldd_withheld_events", OWN, Some(Unit::Count),
        "Committed events of its categories that are still beyond the horizon.";
    Gauge DEAD_LETTERS = "foldd_dead_letters", OWN, Some(Unit::Count),
        "Events that are parked instead of applied.";
    Gauge POSITION = "foldd_position", OWN, None,
        "Global position of the last event applied.";
    Gauge HEAD_POSITION = "foldd_head_position", &[], None,
        "Greatest committed global position of the log.";
    Gauge HORIZON_AGE_SECONDS = "foldd_horizon_age_seconds", &[], Some(Unit::Seconds),
        "For how long the horizon has stood still while committed events waited behind it.";
    Gauge HORIZON_TIER = "foldd_horizon_tier", &[], None,
        "1 where readers go past transactions that have not appended, 0 where every open one holds them up.";
    Gauge HORIZON_BLOCKERS = "foldd_horizon_blockers", &["cause"], Some(Unit::Count),
        "Transactions that hold the horizon, by cause.";
    Gauge PHASE = "foldd_phase", OWN_AND_PHASE, None,
        "1 for the phase the subscription is in, 0 for the others.";
    Gauge LEASE_HELD = "foldd_lease_held", OWN, None,
        "1 while this replica holds the subscription.";
    Gauge BUILD_PROGRESS_RATIO = "foldd_build_progress_ratio", OWN, None,
        "Share of its events that a build has folded, from 0 to 1.";
    Gauge BUILD_ETA_SECONDS = "foldd_build_eta_seconds", OWN, Some(Unit::Seconds),
        "Time until a build is done, at its present rate.";
    Gauge LAST_PROGRESS_TIMESTAMP_SECONDS = "foldd_last_progress_timestamp_seconds", OWN, Some(Unit::Seconds),
        "When the checkpoint last moved, or nothing was left to do: Unix time by the database's clock.";
    Gauge CONNECTIONS = "foldd_connections", &["role"], Some(Unit::Count),
        "Open database connections, by what they are for.";
    Gauge SUBSCRIPTIONS_WITHOUT_HOLDER = "foldd_subscriptions_without_holder", &[], Some(Unit::Count),
        "Subscriptions of live and building projections that no running replica has held for longer than it should take.";
    Gauge BUILD_INFO = "foldd_build_info", &["version"], None,
        "Always 1; the version of foldd is its label.";
    Gauge RUNTIME_WORKERS = "foldd_runtime_workers", &[], Some(Unit::Count),
        "Threads that the runtime runs tasks on.";
    Gauge RUNTIME_TASKS = "foldd_runtime_tasks", &[], Some(Unit::Count),
        "Tasks of the runtime that have not ended.";
    Gauge RUNTIME_QUEUED_TASKS = "foldd_runtime_queued_tasks", &[], Some(Unit::Count),
        "Tasks that wait for a thread of the runtime; more than a few for long mean that the process has too little processor.";
    Counter EVENTS_APPLIED_TOTAL = "foldd_events_applied_total", OWN, Some(Unit::Count),
        "Events handed to the handler, in batches that committed.";
    Counter EVENTS_SKIPPED_TOTAL = "foldd_events_skipped_total", OWN, Some(Unit::Count),
        "Events passed over because no handler wants their type.";
    Counter BATCHES_TOTAL = "foldd_batches_total", OWN_AND_OUTCOME, Some(Unit::Count),
        "Batches, by how they ended.";
    Counter ERRORS_TOTAL = "foldd_errors_total", OWN_AND_KIND, Some(Unit::Count),
        "Faults, by kind.";
    Counter RETRIES_TOTAL = "foldd_retries_total", OWN, Some(Unit::Count),
        "Batches tried again after a fault.";
    Counter LEASE_TRANSITIONS_TOTAL = "foldd_lease_transitions_total", OWN_AND_TO, Some(Unit::Count),
        "Leases taken, lost and released.";
    Counter POLLS_TOTAL = "foldd_polls_total", &[], Some(Unit::Count),
        "How often the watcher has looked at the log.";
    Histogram BATCH_DURATION_SECONDS = "foldd_batch_duration_seconds", OWN, Some(Unit::Seconds),
        "How long a batch that applied events took, commit included.";
    Histogram BATCH_EVENTS = "foldd_batch_events", OWN, Some(Unit::Count),
        "How many events a batch held that applied any.";
    Histogram DELIVERY_SECONDS = "foldd_delivery_seconds", OWN, Some(Unit::Seconds),
        "From append to applied, while live.";
}
