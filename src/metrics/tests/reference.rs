//! The reference page `docs/metrics.md`, written from the table of metrics. A test keeps it current;
//! `FOLDD_WRITE_DOCS=1 cargo test --lib reference` writes it anew, as `make docs` does.

use std::fmt::Write as _;

use metrics::Unit;

use super::super::{
    BatchOutcome, ConnectionRole, EVENTS_BUCKETS, ErrorKind, Kind, LeaseTransition, METRICS, Metric, PHASES,
    SECONDS_BUCKETS,
};
use super::{record_all, rendered};
use crate::config::tests::holds_or_writes;
use crate::store::BlockerCause;

const HEAD: &str = "# Metrics\n\n\
    Written from the code by `make docs`; a test keeps it current. Everything is served at `/metrics`.\n\n\
    `projection`, `version` and `partition` name a subscription; a version that `foldd rebuild` builds anew is `2.2`, then \
    `2.3`, beside the `2` that is live meanwhile; a projection that is not split has the one partition 0. \
    No label ever holds a stream, an event or a message. A gauge without a value has no line: lag, position, dead letters and \
    the progress of a build are exported by the replica that holds the subscription, and by no other, from the moment they \
    were measured until the lease ends.\n\n";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| metric | kind | unit | labels | what it says |\n|---|---|---|---|---|\n");
    for metric in METRICS {
        row(&mut page, metric);
    }
    page.push_str("\n## What labels may say\n\n| label | words |\n|---|---|\n");
    let causes = BlockerCause::ALL.map(BlockerCause::as_str);
    for (label, words) in [
        ("phase", &PHASES[..]),
        ("outcome", &BatchOutcome::WORDS[..]),
        ("kind", &ErrorKind::WORDS[..]),
        ("to", &LeaseTransition::WORDS[..]),
        ("role", &ConnectionRole::WORDS[..]),
        ("cause", &causes[..]),
    ] {
        writeln!(page, "| `{label}` | {} |", quoted(words)).expect("text takes text");
    }
    page.push_str("\n## Buckets\n\n");
    writeln!(
        page,
        "Histograms in seconds: {}.\n\n`foldd_batch_events`: {}.",
        listed(&SECONDS_BUCKETS),
        listed(&EVENTS_BUCKETS)
    )
    .expect("text takes text");
    page.push_str(
        "\n## The process\n\nAs the operating system counts; on Linux all of them.\n\n| metric | kind | what it says |\n|---|---|---|\n",
    );
    let text = rendered(record_all);
    for (name, help) in text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("process_"))
        .collect::<std::collections::BTreeMap<_, _>>()
    {
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        writeln!(page, "| `{name}` | {} | {help} |", kind.unwrap_or("untyped")).expect("text takes text");
    }
    page
}

fn row(page: &mut String, metric: &Metric) {
    let kind = match metric.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    let unit = match metric.unit {
        Some(Unit::Seconds) => "seconds",
        Some(_) => "count",
        None => "",
    };
    writeln!(page, "| `{}` | {kind} | {unit} | {} | {} |", metric.name, quoted(metric.labels), metric.help)
        .expect("text takes text");
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ")
}

fn listed(bounds: &[f64]) -> String {
    bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_reference_of_metrics_is_current() {
    holds_or_writes("docs/metrics.md", &page());
}

#[test]
fn what_is_exported_has_the_labels_that_the_reference_says() {
    let text = rendered(record_all);
    for metric in METRICS {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| {
                let rest = line.strip_prefix(metric.name).unwrap_or_default();
                rest.starts_with(['{', ' ']) || ["_bucket{", "_sum{"].iter().any(|end| rest.starts_with(end))
            })
            .collect();
        for line in &lines {
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
            let named: Vec<&str> = labels
                .map_or("", |(labels, _)| labels)
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(label, _)| label)
                .filter(|label| *label != "le")
                .collect();
            assert_eq!(named, metric.labels, "{line}");
        }
    }
}
