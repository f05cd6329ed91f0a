//! The engine: one subscription's life.
//!
//! **Promise.** The read model is always the fold of the log up to the checkpoint: no event lost, none twice, none out of
//! order, whatever is killed and whenever.
//!
//! **How.** `machine` says what comes next, as a pure function. `batch` is the transaction: check the fence, read a page
//! below the horizon, apply it, move the checkpoint by compare-and-set, commit; `hosted` is the same around a
//! Rust handler. `guard` refuses a page whose streams are out of order. `pace` sizes the page, `backlog` knows
//! how many events remain, `failure` turns what went wrong into what to do, and into what a person should do.
//! `build` makes a projection's tables and functions. `run` joins them into turns: one turn is one batch, so
//! that many subscriptions share few connections fairly; `run::parked` parks and retries what cannot be applied,
//! `run::suspect` finds what kills processes; `report` is what they say. `scratch` folds aside: a copy to compare, to
//! keep, or to test.
//!
//! **Why nothing is lost or doubled.** Effect, checkpoint and fence stand or fall in one commit. A crash before it leaves
//! nothing; a crash after it leaves all of it. When the answer to the commit is lost, nobody guesses: the connection is
//! closed, the lease is taken again with a higher token, and the cursor comes back from that very statement. If the lost
//! commit is still under way then, it fails on the token; if it got through, the cursor says so. The page stays below a
//! horizon that was proven before the page was read, in the same life of the server.
//!
//! **What it never does.** It starts no task and owns no connection; a worker lends it one for a turn.

pub(crate) mod backlog;
pub(crate) mod batch;
pub(crate) mod build;
pub(crate) mod failure;
mod guard;
mod hosted;
pub(crate) mod machine;
pub(crate) mod pace;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod scratch;
