//! `foldd rebase`: after a restore into a younger cluster, the log counts on from its greatest stamp.

use super::args::Rebase as Args;
use super::{Failure, connect_bare, print, print_json};
use crate::config::Loaded;
use crate::store::{self, Rebase};

/// Carries the verb out.
pub(crate) async fn run(args: &Args, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect_bare(loaded).await?;
    store::require_current(&mut conn).await?;
    let outcome = if args.dry_run {
        store::plan_rebase(&mut conn).await?
    } else {
        store::rebase(&mut conn, args.repair).await?
    };
    if args.json { print_json(&outcome) } else { print(&render(&outcome)) }
}

fn render(outcome: &Rebase) -> String {
    let mut text = format!(
        "the greatest stamp is {}, the next transaction was {}\n",
        outcome.greatest_stamp, outcome.next_transaction_id
    );
    if !outcome.needed {
        text.push_str("nothing to do: new events come after all others");
        return text;
    }
    for skipped in &outcome.skipped {
        text.push_str(&format!(
            "{} has passed {} events unseen, from position {} on: they need --repair\n",
            skipped.witness, skipped.events, skipped.first_position
        ));
    }
    let verb = if outcome.done { "now counts" } else { "would count" };
    text.push_str(&format!(
        "the log {verb} transactions as the cluster does, plus {} (before: plus {})",
        outcome.new_offset, outcome.old_offset
    ));
    if outcome.done {
        text.push_str(&format!("\n{} events were stamped anew; start the daemons again", outcome.restamped));
    }
    text
}
