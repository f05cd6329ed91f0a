//! `foldd migrate`: brings the schema up to date, or says whether it is.

use serde_json::json;

use super::args::Migrate;
use super::{Failure, connect_bare, print, print_json};
use crate::config::{Loaded, connect_options};
use crate::store::{Migrated, SCHEMA_VERSION, Source, migrate, require_current};

/// Carries the verb out.
pub(crate) async fn run(args: &Migrate, loaded: &Loaded) -> Result<(), Failure> {
    if args.check {
        let mut conn = connect_bare(loaded).await?;
        let current = require_current(&mut conn).await;
        let is_current = current.is_ok();
        let outcome = match current {
            Err(error @ crate::EventStoreError::OlderSchema { .. }) => {
                Err(Failure::NotMet(error.to_string()))
            }
            current => current.map_err(Failure::from),
        };
        if args.json && !matches!(outcome, Err(Failure::Failed(_))) {
            print_json(&json!({ "up_to_date": is_current, "schema": SCHEMA_VERSION }))?;
        } else if is_current {
            print("the schema is up to date")?;
        }
        return outcome;
    }
    // Says what cannot be reached, and why.
    connect_bare(loaded).await?.close().await;
    let source = Source::Address(Box::new(connect_options(&loaded.database_url()?)?));
    let Migrated { from, to, adopted } = migrate(&source).await?;
    if args.json {
        return print_json(&json!({ "from": from, "to": to, "adopted": adopted }));
    }
    match (from, adopted) {
        (from, _) if from == to => print(&format!("the schema is up to date (version {to})")),
        (_, true) => print(&format!("adopted the store that was there; the schema is at version {to}")),
        (0, false) => print(&format!("created the schema, version {to}")),
        (from, false) => print(&format!("migrated the schema from version {from} to {to}")),
    }
}
