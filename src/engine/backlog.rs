//! How far behind a subscription is, without counting at every look: counted once, then kept by arithmetic.

use uuid::Uuid;

use crate::store::{Growth, Horizon};

/// The log as the watcher last saw it: how far it can be read, and how much came since the watcher began.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) horizon: Horizon,
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
}

impl Backlog {
    /// What was just counted, at most up to the view's horizon.
    pub(super) fn counted(events: i64, view: &View, categories: Option<&[String]>) -> Self {
        Self { incarnation: view.horizon.incarnation(), base: events - view.grown_in(categories) }
    }

    /// These events are applied.
    pub(super) fn applied(&mut self, events: i64) {
        self.base -= events;
    }

    /// Events after the checkpoint and below the view's horizon; `None` when the server restarted since.
    pub(crate) fn remaining(self, view: &View, categories: Option<&[String]>) -> Option<i64> {
        (self.incarnation == view.horizon.incarnation()).then(|| self.base + view.grown_in(categories))
    }
}
