//! What foldd promises, as tests on a real PostgreSQL and real processes. A table of contents.

/// The daemon as a process.
mod daemon;
/// The event store: appending, order, reading, aggregates, the schema and its adoption.
mod log;
/// The house rules.
mod tidy;
/// The harness.
mod world;
