//! What is shipped for Kubernetes, Prometheus and Grafana agrees with what is exported and written, and the real tools take
//! it. A tool that is not here is skipped, saying so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a tool, if there is one.
fn tool(program: &str, args: &[&str], dir: &Path) -> Option<Output> {
    match Command::new(program).args(args).current_dir(dir).output() {
        Ok(output) => Some(output),
        Err(_) => {
            eprintln!("skipped: there is no {program} here");
            None
        }
    }
}

fn right(output: &Output) {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

/// All words of a text that look like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("foldd_") && word.len() > "foldd_".len())
        .map(|word| {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
            base.filter(|base| base.ends_with("_seconds") || base.ends_with("_events"))
                .unwrap_or(word)
                .to_owned()
        })
        .collect()
}

#[test]
fn what_is_alerted_on_and_drawn_is_exported_and_documented() {
    // The reference is written from the code, and tested for being current.
    let documented = metrics_in(&text("docs/metrics.md"));
    assert!(documented.len() > 20, "the reference is found");
    for path in [
        "deploy/components/rules/rules.yaml",
        "deploy/components/rules/tests.yaml",
        "deploy/components/dashboard/foldd.json",
    ] {
        let unknown: Vec<String> = metrics_in(&text(path)).difference(&documented).cloned().collect();
        assert!(unknown.is_empty(), "{path} names what nobody exports: {unknown:?}");
    }
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
fn every_panel_is_titled_described_and_has_a_unit() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("deploy/components/dashboard/foldd.json")).expect("the dashboard is JSON");
    let mut panels = 0;
    for panel in dashboard["panels"].as_array().expect("it has panels") {
        if panel["type"] == "row" {
            continue;
        }
        panels += 1;
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{panel}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string() || panel["type"] == "table", "{panel}");
    }
    assert!(panels >= 9, "{panels}");
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_and_stay_quiet_as_they_should() {
    let dir = std::env::temp_dir().join(format!("foldd-rules-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder can be made");
    let rules = text("deploy/components/rules/rules.yaml");
    let (_, groups) = rules.split_once("\n  groups:\n").expect("the rules have groups");
    let groups: String =
        groups.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
    std::fs::write(dir.join("groups.yaml"), format!("groups:\n{groups}")).expect("a file can be written");
    std::fs::write(dir.join("tests.yaml"), text("deploy/components/rules/tests.yaml"))
        .expect("a file can be written");
    for args in [["check", "rules", "groups.yaml"], ["test", "rules", "tests.yaml"]] {
        if let Some(output) = tool("promtool", &args, &dir) {
            right(&output);
        }
    }
    std::fs::remove_dir_all(&dir).expect("the folder can be removed");
}

#[test]
fn kustomize_builds_every_overlay() {
    for overlay in ["dev", "production"] {
        let folder = format!("deploy/overlays/{overlay}");
        let Some(output) = tool("kubectl", &["kustomize", &folder], &root()) else { return };
        right(&output);
        let built = String::from_utf8_lossy(&output.stdout);
        for kind in
            ["kind: Deployment", "kind: PodDisruptionBudget", "kind: NetworkPolicy", "kind: ConfigMap"]
        {
            assert!(built.contains(kind), "{overlay} has no {kind}");
        }
        for said in [
            "readOnlyRootFilesystem: true",
            "runAsNonRoot: true",
            "enableServiceLinks: false",
            "maxUnavailable: 0",
        ] {
            assert!(built.contains(said), "{overlay} does not say {said}");
        }
    }
}
