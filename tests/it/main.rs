//! What foldd promises, as tests on a real PostgreSQL and real processes. A table of contents.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test that meets anything else fails, whatever it is")]

/// Conditions of the database, each named with its remedy.
mod conditions;
/// The daemon as a process: signals, leases, takeovers, restarts of PostgreSQL, kills, its faces.
mod daemon;
/// The demo, and the first things that people type.
mod demo;
/// The log as lines, and the same lines in again.
mod export;
/// Projections: what they fold, what they refuse, what happens when they fail.
mod fold;
/// Lines into the log, whatever interrupts it.
mod import;
/// The event store: appending, order, reading, aggregates, the schema and its adoption.
mod log;
/// Events that nobody expects, by every way in.
mod odd_events;
/// Projections in Rust, hosted in this process.
mod rust;
/// The house rules.
mod tidy;
/// The harness.
mod world;
