//! `foldd build NAME --into SCHEMA`: the read model as it was, in a schema of its own.

use serde::Serialize;

use super::args::Build;
use super::aside::{Bar, configured, in_a_room};
use super::{Failure, connect, print, print_json};
use crate::config::Loaded;
use crate::engine::scratch::aside::{Order, Until, build};
use crate::projection::handler::Registry;
use crate::store;

/// `build --json`
#[derive(Serialize)]
struct Shown<'a> {
    projection: &'a str,
    version: i32,
    schema: &'a str,
    cursor: String,
    events: i64,
    seconds: f64,
}

/// Carries the verb out.
pub(crate) async fn run(args: &Build, loaded: &Loaded, registry: &Registry) -> Result<(), Failure> {
    let configured = configured(loaded, registry, &args.name)?;
    let order = Order {
        name: &args.name,
        configured: configured.as_ref(),
        schema: &args.into,
        until: args.until.unwrap_or(Until::Now),
    };
    let bar = Bar::new(args.quiet);
    let horizon = store::glance(&mut connect(loaded).await?).await?.horizon;
    let built = in_a_room(loaded, &args.name, async |conn, schema| {
        let mut passed = |events| bar.passed(events);
        build(conn, &order, &horizon, schema, &|events| bar.total(events), &mut passed).await
    })
    .await;
    let seconds = bar.end();
    let built = built?;
    if args.json {
        return print_json(&Shown {
            projection: &args.name,
            version: built.version,
            schema: &args.into,
            cursor: built.cursor.to_string(),
            events: built.events,
            seconds,
        });
    }
    print(&format!(
        "{}@{} up to cursor {} is in schema {}: {} events folded in {seconds:.1} s",
        args.name, built.version, built.cursor, args.into, built.events
    ))
}
