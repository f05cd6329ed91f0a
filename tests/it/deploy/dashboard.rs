//! The dashboard: every panel is drawn for somebody who has not seen it before, and Prometheus understands what it asks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::text;
use super::tools::{Folder, right, tool};

const PATH: &str = "deploy/components/dashboard/foldd.json";

/// Every panel, under the row that it stands in.
fn panels() -> Vec<(String, Value)> {
    let dashboard: Value = serde_json::from_str(&text(PATH)).expect("the dashboard is JSON");
    let mut row = String::new();
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().expect("it has panels") {
        if panel["type"] == "row" {
            row = panel["title"].as_str().expect("a row has a title").to_owned();
        } else {
            panels.push((row.clone(), panel.clone()));
        }
    }
    panels
}

/// What a panel asks Prometheus.
fn expressions(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().expect("a panel asks something");
    targets.iter().map(|target| target["expr"].as_str().expect("in PromQL")).collect()
}

#[test]
fn every_panel_is_titled_described_has_a_unit_and_a_place_of_its_own() {
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for (_, panel) in panels() {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{panel}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
        assert!(!expressions(&panel).is_empty(), "{panel}");
        assert!(ids.insert(panel["id"].as_u64().expect("it has an id")), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("it has a place");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "it covers another: {panel}");
            }
        }
    }
}

#[test]
fn the_rows_answer_what_an_operator_asks() {
    let panels = panels();
    for (row, metrics) in [
        ("Overview", &["foldd_build_info", "foldd_phase", "foldd_dead_letters"][..]),
        ("Lag", &["foldd_lag_seconds", "foldd_lag_events", "foldd_build_progress_ratio"]),
        (
            "Throughput",
            &["foldd_events_applied_total", "foldd_head_position", "foldd_delivery_seconds_bucket"],
        ),
        ("Batches", &["foldd_batch_duration_seconds_bucket", "foldd_batches_total"]),
        ("Failures", &["foldd_errors_total", "foldd_retries_total", "foldd_dead_letters"]),
        ("Leases and replicas", &["foldd_lease_held", "foldd_lease_transitions_total", "foldd_build_info"]),
        (
            "Horizon and blockers",
            &["foldd_horizon_age_seconds", "foldd_horizon_blockers", "foldd_withheld_events"],
        ),
        ("Database", &["foldd_connections", "foldd_polls_total", "foldd_errors_total"]),
        ("Process", &["process_cpu_seconds_total", "process_resident_memory_bytes", "foldd_runtime_tasks"]),
    ] {
        let here = panels.iter().filter(|(of, _)| of == row);
        let asked: String = here.flat_map(|(_, panel)| expressions(panel)).collect();
        for metric in metrics {
            assert!(asked.contains(metric), "{row} does not draw {metric}");
        }
    }
}

#[test]
fn prometheus_understands_every_expression() {
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let mut number = 0;
    for (_, panel) in panels() {
        for expression in expressions(&panel) {
            // As Grafana fills them in.
            let expression = ["namespace", "job", "projection"]
                .iter()
                .fold(expression.replace("$__rate_interval", "5m"), |text, variable| {
                    text.replace(&format!("${variable}"), ".*")
                });
            assert!(!expression.contains('$'), "nobody fills in a variable of {expression}");
            let expression = Value::from(expression);
            rules.push_str(&format!("      - record: panel_{number}\n        expr: {expression}\n"));
            number += 1;
        }
    }
    let folder = Folder::new("dashboard");
    folder.write("rules.yaml", &rules);
    if let Some(output) = tool("promtool", &["check", "rules", "rules.yaml"], folder.path()) {
        right(&output);
        let said = super::tools::said(&output);
        assert!(said.contains(&format!("{number} rules found")), "{said}");
    }
}
