//! The verbs that fold aside: run the tests of projection files, verify a read model, build one as it was.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::values::until;
use crate::engine::scratch::aside::Until;
use crate::engine::scratch::verify::column_of;

/// `foldd test`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd test
  foldd test parcels traffic
  foldd test --json | jq '.tests[] | select(.passed | not)'

Each @test begins with empty tables; nothing is kept. Without a database URL the tests run in a private
PostgreSQL. Handlers of pages get the given events twice: as one page, and one event a page.
Exit code 3 if a test fails.")]
pub(crate) struct Test {
    /// The projections whose tests are run [default: all]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd verify parcels
  foldd verify parcels --ignore parcel.seen_at --json
  foldd verify parcels --version 2

The log is folded anew, aside, up to the checkpoint of the read model, and compared with it row by row: in
any order, all types, tables without a key too. The projection goes on meanwhile; nothing is kept.
Events that are parked are left out. Exit code 3 if anything differs.")]
pub(crate) struct Verify {
    /// The projection
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Another version than the live one
    #[arg(long)]
    pub(crate) version: Option<i32>,
    /// A column that may differ, such as one with `default now()`; may be repeated
    #[arg(long, value_name = "TABLE.COLUMN", value_parser = column_of)]
    pub(crate) ignore: Vec<(String, String)>,
    /// How many differing rows of each table are shown
    #[arg(long, value_name = "ROWS", default_value_t = 10, value_parser = clap::value_parser!(i64).range(0..=100_000))]
    pub(crate) show: i64,
    /// Show no progress
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd build`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd build parcels --into parcels_now
  foldd build parcels --into parcels_at_noon --until 2025-03-03T12:00:00Z
  foldd build parcels --into parcels_then --until 561470

The read model as it was then, in a schema of its own, which is yours: nobody keeps it fresh, and
`drop schema … cascade` is how it goes. It gets its name when it is complete; interrupted, ask again.")]
pub(crate) struct Build {
    /// The projection: as configured, else as it is live
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// The schema that is created for it
    #[arg(long, value_name = "SCHEMA", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) into: String,
    /// Up to the event at this position, with it; or up to the first event appended after this time, without
    /// it; both in the order of the log [default: all that can be read]
    #[arg(long, value_name = "TIME|POSITION", value_parser = until)]
    pub(crate) until: Option<Until>,
    /// Show no progress
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
