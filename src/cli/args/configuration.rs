//! The verbs that look at what is configured, and run nothing.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `foldd check`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd check
  foldd check config/projections/fines.sql
  foldd check --json | jq '.[] | select(.error) | .error.place'

Every statement is planned in a scratch schema that is rolled back. Exit code 3 if one is wrong.")]
pub(crate) struct Check {
    /// Projection files [default: all in projection_dirs]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd config`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Config {
    /// Print the effective configuration and where each value comes from, passwords masked
    Show(ConfigShow),
    /// Print the JSON Schema of foldd.toml
    #[command(after_help = "\
Example:
  foldd config schema > foldd.schema.json    # then, as the first line of foldd.toml:
  #:schema ./foldd.schema.json")]
    Schema,
}

/// `foldd config show`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd config show
  FOLDD__DAEMON__WORKERS=8 foldd --config prod.toml config show --json")]
pub(crate) struct ConfigShow {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
