//! The verbs that care for the log: examine its order, repair it after a restore.

use clap::Args;

/// `foldd doctor`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd doctor
  foldd doctor --json | jq '.[] | select(.health != \"good\")'

Exit code 3 if something is bad: events are lost, or held up until somebody acts. What is merely poor
is printed and passes. Walks the whole stream index once: a second for half a million events.")]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd rebase`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd rebase --dry-run
  foldd rebase
  foldd rebase --repair    # events were appended after the restore already

Stop the daemons first. No event and no checkpoint is rewritten; writers may go on. With nothing to
repair it does nothing.")]
pub(crate) struct Rebase {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stamp anew what was appended between the restore and now, to come after everything else
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
