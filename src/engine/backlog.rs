//! How far behind a subscription is, without counting at every look: counted once, then kept by arithmetic.

use uuid::Uuid;

use crate::store::{Growth, Horizon};

/// The log as the watcher last saw it: how far it can be read, and how much came since the watcher began.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) horizon: Horizon,
    /// Whether the horizon passes open transactions that have not appended, those of batches among them.
    pub(crate) is_provable: bool,
    /// Events by category that came below the horizon since the watcher began, in this life of the server.
    pub(crate) grown: Growth,
    /// All of them.
    pub(crate) grown_total: i64,
}

impl View {
    fn grown_in(&self, categories: Option<&[String]>) -> i64 {
        categories
            .map_or(self.grown_total, |names| names.iter().filter_map(|name| self.grown.get(name)).sum())
    }
}

/// How far behind, by arithmetic: counted once after a takeover, then kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    incarnation: Uuid,
    /// Events after the checkpoint, less what the view said had grown when they were counted.
    base: i64,
    /// For one partition of several, whose share of what grows nobody tells: up to which horizon `base` counts.
    counted_to: Option<u64>,
}

impl Backlog {
    /// What was just counted, at most up to the view's horizon.
    pub(super) fn counted(events: i64, view: &View, categories: Option<&[String]>) -> Self {
        let base = events - view.grown_in(categories);
        Self { incarnation: view.horizon.incarnation(), base, counted_to: None }
    }

    /// What was just counted of one partition, up to the view's horizon.
    pub(super) fn counted_own(events: i64, view: &View) -> Self {
        let counted_to = Some(view.horizon.transaction_id());
        Self { incarnation: view.horizon.incarnation(), base: events, counted_to }
    }

    /// From which stamp on the events of one partition are still to be counted, to know what the view knows.
    pub(super) fn uncounted(self, view: &View) -> Option<u64> {
        self.counted_to.filter(|counted| *counted < view.horizon.transaction_id())
    }

    /// These events are applied.
    pub(super) fn applied(&mut self, events: i64) {
        self.base -= events;
    }

    /// Events after the checkpoint and below the view's horizon; `None` when the server restarted since.
    pub(crate) fn remaining(self, view: &View, categories: Option<&[String]>) -> Option<i64> {
        let grown = || if self.counted_to.is_some() { 0 } else { view.grown_in(categories) };
        (self.incarnation == view.horizon.incarnation()).then(|| self.base + grown())
    }
}
