//! What a subscription says about itself, to the board and in its metrics.

use std::time::Duration;

use super::backlog::Backlog;
use super::batch::Committed;
use super::machine::Phase;
use crate::cursor::Cursor;
use crate::ledger::phases::Trouble;
use crate::metrics::{BatchOutcome, SubscriptionMetrics};

/// What a subscription says about itself, for the board. Written after each turn.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) phase: Phase,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) held: bool,
    pub(crate) building: bool,
    pub(crate) cursor: Cursor,
    /// Events of its categories scanned since the process started.
    pub(crate) scanned: i64,
    /// How many of its own events it has gone past in all, whoever applied them.
    pub(crate) applied: i64,
    pub(crate) backlog: Option<Backlog>,
}

/// A batch that committed, in numbers.
pub(super) fn measure(metrics: &SubscriptionMetrics, phase: Phase, committed: &Committed, took: Duration) {
    let outcome = if committed.own > 0 { BatchOutcome::Committed } else { BatchOutcome::Empty };
    metrics.batch(outcome, committed.own.unsigned_abs(), took);
    let applied = committed.own - committed.skipped - committed.parked;
    metrics.applied(applied.unsigned_abs(), committed.skipped.unsigned_abs());
    if let Some(cursor) = committed.cursor {
        metrics.position(cursor.global_position);
    }
    if let (Phase::Live, Some(oldest)) = (phase, committed.oldest_seconds) {
        metrics.delivery(oldest, usize::try_from(committed.own).unwrap_or_default());
    }
}
