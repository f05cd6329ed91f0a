//! `foldd migrate`: brings the schema up to date, or says whether it is.

use secrecy::ExposeSecret;
use sqlx::postgres::PgPoolOptions;

use super::args::Migrate;
use super::{CONNECT_DEADLINE, Failure, connect_bare, print};
use crate::config::{Loaded, connect_options, masked_url};
use crate::error::told;
use crate::store::{EventStore, Migrated, require_current};

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
    // A pool would say of a server that has no connection left only that it timed out.
    drop(connect_bare(loaded).await?);
    let url = loaded.database_url()?;
    // Adopting a store takes two connections.
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(CONNECT_DEADLINE)
        .connect_with(connect_options(&url)?)
        .await
        .map_err(|error| {
            Failure::Failed(format!("cannot reach {}: {}", masked_url(url.expose_secret()), told(&error)))
        })?;
    let Migrated { from, to, adopted } = EventStore::new(pool).migrate().await?;
    match (from, adopted) {
        (from, _) if from == to => print(&format!("the schema is up to date (version {to})")),
        (_, true) => print(&format!("adopted the store that was there; the schema is at version {to}")),
        (0, false) => print(&format!("created the schema, version {to}")),
        (from, false) => print(&format!("migrated the schema from version {from} to {to}")),
    }
}
