//! The books: what the daemon writes about itself, in tables beside the log.
//!
//! **Promise.** At any moment each subscription has at most one holder whose batches can commit, and its checkpoint
//! says exactly what has been applied.
//!
//! **How.** Holder, fence token and cursor stand in one row. Taking a lease raises the token; every batch checks the
//! token first and moves the checkpoint last, by compare-and-set on token **and** old cursor, in the transaction that
//! applied the events. A holder that was replaced cannot commit; a commit whose answer was lost cannot be repeated.
//! Leases end by the database's clock and are renewed together, by one row per replica.
//!
//! **What it never does.** No table has two owner files; no function here waits, retries or decides.

pub(crate) mod checkpoint;
pub(crate) mod concerns;
pub(crate) mod dead_letters;
pub(crate) mod deeds;
pub(crate) mod holders;
pub(crate) mod lease;
pub(crate) mod parking;
pub(crate) mod phases;
pub(crate) mod projections;
pub(crate) mod reached;
pub(crate) mod status;
pub(crate) mod versions;
pub(crate) mod wishes;
