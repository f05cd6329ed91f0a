//! What foldd promises, as tests on a real PostgreSQL and real processes. A table of contents.

/// The daemon as a process: signals, leases, takeovers, restarts of PostgreSQL, kills, its faces.
mod daemon;
/// Projections: what they fold, what they refuse, what happens when they fail.
mod fold;
mod world;
