//! Alerts and recording rules: Prometheus reads them, they fire and stay quiet as they should, each leads to the runbook.

use std::collections::BTreeSet;

use super::text;
use super::tools::{Folder, right, tool};

/// The rule file that is in the `PrometheusRule`.
fn groups() -> String {
    let rules = text("deploy/components/rules/rules.yaml");
    let (_, groups) = rules.split_once("\n  groups:\n").expect("the rules have groups");
    let groups: String =
        groups.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
    format!("groups:\n{groups}")
}

#[test]
fn every_alert_leads_to_a_section_of_the_runbook() {
    let runbook = text("docs/runbook.md");
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("###"))
        .map(|title| match title.split_once("name=\"").and_then(|(_, rest)| rest.split_once('"')) {
            Some((name, _)) => name.to_owned(),
            None => title.trim().to_lowercase().replace(',', "").replace(' ', "-"),
        })
        .collect();
    let rules = text("deploy/components/rules/rules.yaml");
    let alerts = rules.matches("- alert:").count();
    let links: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: docs/runbook.md#")).collect();
    assert!(alerts >= 9, "{alerts}");
    assert_eq!(links.len(), alerts, "each alert has its section");
    for link in links {
        assert!(anchors.contains(link), "there is no section {link}: {anchors:?}");
    }
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_and_stay_quiet_as_they_should() {
    let folder = Folder::new("rules");
    folder.write("groups.yaml", &groups());
    folder.write("tests.yaml", &text("deploy/components/rules/tests.yaml"));
    for args in [["check", "rules", "groups.yaml"], ["test", "rules", "tests.yaml"]] {
        if let Some(output) = tool("promtool", &args, folder.path()) {
            right(&output);
        }
    }
}
