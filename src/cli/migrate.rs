//! `foldd migrate`: brings the schema up to date, or says whether it is.

use super::args::Migrate;
use super::{Failure, connect_bare, print};
use crate::config::{Loaded, connect_options};
use crate::store::{Migrated, Source, migrate, require_current};

/// Carries the verb out.
pub(crate) async fn run(args: &Migrate, loaded: &Loaded) -> Result<(), Failure> {
    if args.check {
        let mut conn = connect_bare(loaded).await?;
        return match require_current(&mut conn).await {
            Ok(()) => print("the schema is up to date"),
            Err(error @ crate::EventStoreError::OlderSchema { .. }) => {
                Err(Failure::NotMet(error.to_string()))
            }
            Err(error) => Err(error.into()),
        };
    }
    // Says what cannot be reached, and why.
    connect_bare(loaded).await?.close().await;
    let source = Source::Address(Box::new(connect_options(&loaded.database_url()?)?));
    let Migrated { from, to, adopted } = migrate(&source).await?;
    match (from, adopted) {
        (from, _) if from == to => print(&format!("the schema is up to date (version {to})")),
        (_, true) => print(&format!("adopted the store that was there; the schema is at version {to}")),
        (0, false) => print(&format!("created the schema, version {to}")),
        (from, false) => print(&format!("migrated the schema from version {from} to {to}")),
    }
}
