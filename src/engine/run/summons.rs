//! What others want of a subscription's next turn.
//!
//! A summons is no order and carries nothing: it says which question the turn asks the books. So it may come twice, late,
//! or when its reason is gone, and nothing is wrong.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set by whoever has a reason, read by the next turn.
#[derive(Debug, Default)]
pub(crate) struct Summons {
    recalled: AtomicBool,
    called: AtomicBool,
    asked_back: AtomicBool,
}

impl Summons {
    /// An operator did something that concerns it.
    pub(crate) fn recall(&self) {
        self.recalled.store(true, Ordering::Relaxed);
    }

    /// It is free, and this replica is to take it.
    pub(crate) fn call(&self) {
        self.called.store(true, Ordering::Relaxed);
    }

    /// Another replica is to have it.
    pub(crate) fn ask_back(&self) {
        self.asked_back.store(true, Ordering::Relaxed);
    }

    /// Whether an operator did something; asked once.
    pub(super) fn take_recall(&self) -> bool {
        self.recalled.swap(false, Ordering::Relaxed)
    }

    /// Whether it was called; asked once.
    pub(super) fn take_call(&self) -> bool {
        self.called.swap(false, Ordering::Relaxed)
    }

    /// Whether it was asked back; asked once.
    pub(super) fn take_ask(&self) -> bool {
        self.asked_back.swap(false, Ordering::Relaxed)
    }
}
