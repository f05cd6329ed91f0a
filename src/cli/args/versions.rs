//! The verbs about versions of a projection: what would change, and what is to become of one.

use clap::Args;

use super::Deed;

/// `foldd plan`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd plan
  foldd plan --check         # exit code 3 if starting a daemon would change anything
  foldd plan --json | jq '.[] | select(.action == \"rebuild\") | .changed_columns'

Compares the configuration with what the database has; nothing is changed.")]
pub(crate) struct Plan {
    /// Exit with 3 if anything would change, or the configuration is not in force
    #[arg(long)]
    pub(crate) check: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd rebuild`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd rebuild fines --why 'rows were changed by hand'
  foldd status --watch

Builds the live version anew beside itself, from the definition that the database has, and lets it take
the place of the old one. For a changed definition raise `version` instead; nothing is typed then.")]
pub(crate) struct Rebuild {
    /// The projection
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// `foldd cutover`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd cutover fines
  foldd cutover fines --timeout 10min

For projections with cutover = \"manual\". Waits until the build has caught up, nobody reads with a snapshot
from before its end, and all tables can be locked for a moment; says what it waits for, and goes on trying
after --timeout, exit code 3.")]
pub(crate) struct Cutover {
    /// The projection
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// `foldd rollback`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd rollback fines --why 'amounts are wrong since version 2'

Makes the previous version live again, as fresh as it is: it was kept folded. The version that is taken
back is kept in its place and is not built again unasked; raise `version` when it is mended.")]
pub(crate) struct Rollback {
    /// The projection
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// `foldd cancel`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd cancel fines --why 'the definition is wrong'

Gives up what is being built, and drops its tables. That version is not built again unasked; raise
`version` when it is mended. The live version is not touched.")]
pub(crate) struct Cancel {
    /// The projection
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// `foldd retire`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd retire fines                 # the previous version, before its time
  foldd retire old_report            # all of it, once no configuration has it any more

Drops the tables, checkpoints and parked events of a version. Never drops what something of yours
depends on: that is named, and nothing is dropped.")]
pub(crate) struct Retire {
    /// The projection
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}
