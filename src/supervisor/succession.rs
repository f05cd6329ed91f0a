//! Versions that are to take another's place, or to go: tried once a second, by the replica that folds them.
//!
//! A try either does all of it in one transaction, or nothing and says what it waits for; so it matters little who tries
//! and how often, and a replica that dies in the middle has changed nothing. What nobody folds is tried by everybody.

use uuid::Uuid;

use crate::ledger::projections;
use crate::ledger::versions::{self, Due};
use crate::store::Link;

/// Tries everything that is due once.
pub(crate) async fn pursue(conn: &mut Link<'_>, me: Uuid) -> sqlx::Result<()> {
    for due in versions::due(conn).await? {
        if due.holder.is_some_and(|holder| holder != me) {
            continue;
        }
        let Due { projection_id, verb, who, .. } = &due;
        match versions::carry_out(conn, &due).await? {
            None => tracing::info!(projection = projection_id, verb, by = who, "done"),
            Some(reason) => {
                if due.waiting_for.as_deref().map(without_numbers) != Some(without_numbers(&reason)) {
                    tracing::info!(projection = projection_id, verb, "waits for {reason}");
                }
                if due.waiting_for.as_deref() != Some(&*reason) {
                    projections::set_waiting(conn, projection_id, &reason).await?;
                }
            }
        }
    }
    Ok(())
}

/// A reason as it is compared before it is logged once more: ages in it grow.
fn without_numbers(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_ascii_digit()).collect()
}
