//! What operators did, carried to the subscriptions that it concerns.
//!
//! An entry of their log is no order: it says that something changed in the books, and the next turn reads what. Entries
//! from before the first lease need nothing, since a lease reads everything. The last one seen is remembered across
//! connections, so that none is missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::roster::Roster;
use crate::engine::run::Subscription;
use crate::ledger::wishes;
use crate::store::Link;

/// Who can be recalled, and what was seen.
pub(crate) struct Errands {
    seats: HashMap<String, (usize, Arc<AtomicBool>)>,
    /// The last entry that was seen.
    seen: AtomicI64,
}

impl Errands {
    /// For these subscriptions, which sit in this order, from behind the entry `seen` on.
    pub(crate) fn new(subscriptions: &[Subscription], seen: i64) -> Self {
        let seat = |(index, subscription): (usize, &Subscription)| {
            (subscription.id().to_owned(), (index, subscription.recalled()))
        };
        Self { seats: subscriptions.iter().enumerate().map(seat).collect(), seen: AtomicI64::new(seen) }
    }

    /// Looks for new entries, and recalls the subscriptions that they concern.
    pub(crate) async fn run(&self, conn: &mut Link<'_>, roster: &Roster) -> sqlx::Result<()> {
        for (entry, subscription) in wishes::since(conn, self.seen.load(Ordering::Relaxed)).await? {
            if let Some((index, recalled)) = self.seats.get(&subscription) {
                tracing::info!(subscription, revision = entry, "an operator did something");
                // First the reason, then the turn that looks for it.
                recalled.store(true, Ordering::Relaxed);
                roster.recall(*index);
            }
            self.seen.store(entry, Ordering::Relaxed);
        }
        Ok(())
    }
}
