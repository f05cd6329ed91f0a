//! What foldd promises, as tests on a real PostgreSQL and real processes. A table of contents.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test that meets anything else fails, whatever it is")]

/// The daemon as a process: signals, leases, takeovers, restarts of PostgreSQL, kills, its faces.
mod daemon;
/// The demo, and the first things that people type.
mod demo;
/// Projections: what they fold, what they refuse, what happens when they fail.
mod fold;
/// The event store: appending, order, reading, aggregates, the schema and its adoption.
mod log;
/// Projections in Rust, hosted in this process.
mod rust;
/// The house rules.
mod tidy;
/// The harness.
mod world;
