//! What foldd promises, as tests on a real PostgreSQL and real processes. A table of contents.

mod conditions;
mod daemon;
mod export;
mod import;
mod odd_events;
mod tidy;
mod world;
