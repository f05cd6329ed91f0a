//! What is shipped for Kubernetes, Prometheus and Grafana agrees with what is exported and written, and the real tools take
//! it. A tool that is not here is skipped, saying so.

/// The dashboard: what it draws, and whether that parses.
mod dashboard;
/// The image: what its layers are built from, what it needs when it runs.
mod image;
/// Kustomize, schemas, linters.
pub(crate) mod manifests;
/// What is documented, exported, alerted on and drawn is the same.
mod metrics;
/// Alerts and the runbook.
mod rules;
/// Finding and running the tools.
mod tools;
/// Old and new replicas at once.
mod upgrade;

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
