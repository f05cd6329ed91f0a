//! `foldd log`: what operators did, the newest first.

use comfy_table::{Table, presets};

use super::args::Log;
use super::{Failure, connect_to_look, print, print_json};
use crate::config::Loaded;
use crate::ledger::deeds::{self, Entry};

/// Carries the verb out.
pub(crate) async fn run(args: &Log, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect_to_look(loaded).await?;
    let entries = deeds::entries(&mut conn, args.name.as_deref(), args.limit).await?;
    if args.json {
        return print_json(&entries);
    }
    print(&if entries.is_empty() { "no operator did anything yet".to_owned() } else { table(&entries) })
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["REVISION", "AT", "VERB", "PROJECTION", "BY", "WHAT", "WHY"]);
    for entry in entries {
        let who = if entry.who == entry.db_role {
            entry.who.clone()
        } else {
            format!("{} as {}", entry.who, entry.db_role)
        };
        table.add_row([
            entry.revision.to_string(),
            entry.at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            entry.verb.clone(),
            entry.projection.clone(),
            who,
            what(entry),
            entry.why.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// The gist of before and after.
fn what(entry: &Entry) -> String {
    let word = |value: &serde_json::Value, name: &str| {
        value.get(name).map(|found| found.as_str().map_or_else(|| found.to_string(), str::to_owned))
    };
    let step = |name: &str| Some(format!("{} to {}", word(&entry.before, name)?, word(&entry.after, name)?));
    let count = |name: &str| {
        let events = word(&entry.after, name)?;
        Some(if events == "1" { "1 event".to_owned() } else { format!("{events} events") })
    };
    step("phase")
        .or_else(|| step("partitions"))
        .or_else(|| count("retried"))
        .or_else(|| count("discarded"))
        .unwrap_or_default()
}
