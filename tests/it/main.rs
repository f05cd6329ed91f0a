//! What foldd promises, as tests on a real PostgreSQL and real processes. A table of contents.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test that meets anything else fails, whatever it is")]

/// What Prometheus says of daemons in trouble.
mod alerts;
/// Faults of every kind on top of each other, and an oracle that counts.
mod chaos;
/// What is folded aside: the tests of files, verify, and read models as they were.
mod checks;
/// What the database may be like, and what foldd says about it.
mod conditions;
/// Mistakes in configuration, files and their names.
mod configured;
/// The daemon as a process: signals, leases, takeovers, restarts of PostgreSQL, kills, its faces.
mod daemon;
/// The demo, and the first things that people type.
mod demo;
/// What is shipped for Kubernetes, Prometheus and Grafana, held to the real tools.
mod deploy;
/// The examples.
mod examples;
/// Export: the log as JSON lines again, to the byte.
mod export;
/// What people and programs meet: verbs over HTTP, waiting, the page in a browser, the terminal.
mod faces;
/// Projections: what they fold, what they refuse, what happens when they fail.
mod fold;
/// Import: resumed, bad lines, beside live appenders.
mod import;
/// The event store: appending, order, reading, aggregates, the schema and its adoption.
mod log;
/// The stamp protocol, every interleaving of it, without a database.
mod model;
/// Events that are unusual or impossible, through every way in.
mod odd_events;
/// Names and ids that are unusual or impossible, likewise.
mod odd_names;
/// What operators do: pause, resume, dead letters, and the log of it.
mod operators;
/// One bad event: parked, retried, or halted on.
mod parking;
/// Everything through a transaction pooler.
mod pooler;
/// A log that came to another cluster: restored, copied, promoted.
mod restore;
/// What each of the roles of the deployment cannot do.
mod roles;
/// Projections in Rust, hosted in this process.
mod rust;
/// The house rules.
mod tidy;
/// The harness.
mod versions;
mod world;
