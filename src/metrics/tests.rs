mod reference;

use std::time::Duration;

use super::{
    BatchOutcome, BatchTimes, ConnectionRole, ErrorKind, Exporter, LeaseTransition, METRICS, PHASES,
    StoreMetrics, SubscriptionMetrics, connections,
};

/// Records every metric once, of one subscription that is building.
pub(super) fn record_all() -> SubscriptionMetrics {
    let store = StoreMetrics::new();
    store.polled(561_470);
    store.without_holder(1);
    store.horizon(1, 1.5, [("appender", 0), ("other_database", 1)]);
    connections(ConnectionRole::Worker, 4);
    let fines = SubscriptionMetrics::new("fines@1", 0);
    fines.lease(LeaseTransition::Taken);
    fines.phase("live");
    fines.batch(BatchOutcome::Committed, 250, Duration::from_millis(40));
    fines.applied(250, 7);
    fines.error(ErrorKind::Handler);
    fines.retry();
    fines.lag(3, 0.25);
    fines.withheld(2);
    fines.dead_letters(4);
    fines.position(561_467);
    fines.delivery(0.08, 250);
    fines.progress_now(1_700_000_000.5);
    fines.build(Some((0.5, Some(12.0))));
    fines
}

/// The exporter looks at the runtime it runs on, so that the tests need one.
fn on_a_runtime<T>(run: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built");
    let _entered = runtime.enter();
    run()
}

/// What is exported once this is recorded, and before it is dropped.
fn rendered<T>(record: impl FnOnce() -> T) -> String {
    let mut recorded = None;
    on_a_runtime(|| Exporter::detached(|| recorded = Some(record())).expect("a recorder of its own").render())
}

#[test]
fn every_metric_is_described_and_every_described_one_is_recorded() {
    let text = rendered(record_all);
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{}", metric.name);
        let recorded = text.lines().filter(|line| !line.starts_with('#'));
        assert!(recorded.into_iter().any(|line| line.starts_with(metric.name)), "{}", metric.name);
    }
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in types.filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with("foldd_")) {
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is not described");
    }
}

#[test]
fn one_phase_is_one_and_all_others_are_zero() {
    let text = rendered(|| {
        let fines = SubscriptionMetrics::new("fines@1", 0);
        fines.phase("halted");
        fines
    });
    let phases: Vec<_> = text.lines().filter(|line| line.starts_with("foldd_phase{")).collect();
    assert_eq!(phases.len(), PHASES.len());
    let ones: Vec<_> = phases.iter().filter(|line| line.ends_with(" 1")).collect();
    assert!(matches!(ones[..], [line] if line.contains("phase=\"halted\"")), "{ones:?}");
}

#[test]
fn what_was_never_measured_is_not_exported() {
    let text = rendered(|| SubscriptionMetrics::new("fines@1", 0));
    assert!(text.contains("foldd_events_applied_total{"));
    assert!(!text.contains("foldd_lag_events{"));
    assert!(!text.contains("NaN"));
}

#[test]
fn who_loses_the_lease_exports_no_lag() {
    let text = rendered(|| {
        let fines = SubscriptionMetrics::new("fines@1", 0);
        fines.lease(LeaseTransition::Taken);
        fines.lag(5, 1.0);
        fines.dead_letters(1);
        fines.build(Some((0.5, None)));
        fines.lease(LeaseTransition::Lost);
        fines
    });
    for gone in ["foldd_lag_events{", "foldd_dead_letters{", "foldd_build_progress_ratio{"] {
        assert!(!text.contains(gone), "{gone}");
    }
    assert!(text.contains("foldd_lease_held{projection=\"fines\",version=\"1\",partition=\"0\"} 0"));
}

#[test]
fn what_is_not_run_any_more_has_no_gauges() {
    let text = rendered(|| {
        let fines = SubscriptionMetrics::new("fines@1", 0);
        fines.lease(LeaseTransition::Taken);
        fines.phase("halted");
        fines.lag(5, 1.0);
        fines.progress_now(1.0);
        fines.build(Some((0.5, Some(3.0))));
        drop(fines);
    });
    let gauges: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"))
        .filter(|name| text.contains(&format!("{name}{{projection")))
        .collect();
    assert!(gauges.is_empty(), "{gauges:?}");
    assert!(text.contains("foldd_lease_transitions_total{"), "counters stay");
}

#[test]
fn times_fall_into_buckets() {
    let text = rendered(record_all);
    for name in ["foldd_batch_duration_seconds", "foldd_delivery_seconds", "foldd_batch_events"] {
        assert!(text.contains(&format!("# TYPE {name} histogram")), "{name}");
    }
    assert!(
        text.contains("foldd_delivery_seconds_count{projection=\"fines\",version=\"1\",partition=\"0\"} 250")
    );
}

#[test]
fn batches_are_added_up_by_version_over_partitions_and_builds() {
    on_a_runtime(|| {
        for (id, partition) in [("added@3", 0), ("added@3", 1), ("added@3.2", 0)] {
            let metrics = SubscriptionMetrics::new(id, partition);
            metrics.batch(BatchOutcome::Committed, 5, Duration::from_millis(500));
            metrics.batch(BatchOutcome::Failed, 0, Duration::from_secs(9));
        }
    });
    assert_eq!(
        super::batch_times().get("added@3"),
        Some(&BatchTimes { batches: 3, took: Duration::from_millis(1_500) })
    );
}
