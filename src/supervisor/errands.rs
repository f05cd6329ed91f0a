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
    /// By projection: the seats of its partitions.
    seats: HashMap<String, Vec<(usize, Arc<AtomicBool>)>>,
    /// The last entry that was seen.
    seen: AtomicI64,
}

impl Errands {
    /// For these subscriptions, which sit in this order, from behind the entry `seen` on.
    pub(crate) fn new(subscriptions: &[Subscription], seen: i64) -> Self {
        let mut seats: HashMap<String, Vec<_>> = HashMap::new();
        for (index, subscription) in subscriptions.iter().enumerate() {
            let partitions = seats.entry(subscription.projection_id().to_owned()).or_default();
            partitions.push((index, subscription.recalled()));
        }
        Self { seats, seen: AtomicI64::new(seen) }
    }

    /// Looks for new entries, and recalls the subscriptions that they concern.
    pub(crate) async fn run(&self, conn: &mut Link<'_>, roster: &Roster) -> sqlx::Result<()> {
        for (entry, projection) in wishes::since(conn, self.seen.load(Ordering::Relaxed)).await? {
            for (index, recalled) in self.seats.get(&projection).into_iter().flatten() {
                tracing::info!(projection, revision = entry, "an operator did something");
                // First the reason, then the turn that looks for it.
                recalled.store(true, Ordering::Relaxed);
                roster.recall(*index);
            }
            self.seen.store(entry, Ordering::Relaxed);
        }
        Ok(())
    }
}
