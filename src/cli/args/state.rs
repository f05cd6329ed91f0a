//! The verbs that say how far projections are.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::values::duration;
use crate::cursor::Cursor;

/// `foldd status`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd status
  foldd status --watch
  foldd status --json | jq '.projections[] | {name, phase, lag_events}'
  foldd status --json | jq '.concerns[] | {projection, message, remedy}'

The first line is the verdict; below the table stands what concerns somebody, with what to do. Colours
only on a terminal, and not where NO_COLOR is set.")]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long, conflicts_with = "watch")]
    pub(crate) json: bool,
    /// Keep showing it until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `foldd lag`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd lag
  foldd lag fines --fail-above 1000    # exit code 3 if it is further behind")]
pub(crate) struct Lag {
    /// A projection [default: all]
    pub(crate) name: Option<String>,
    /// Exit with 3 if any is more than this many events behind
    #[arg(long, value_name = "EVENTS")]
    pub(crate) fail_above: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd wait`
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("until").required(true).args(["position", "cursor", "caught_up"]))]
#[command(after_help = "\
Examples:
  foldd wait fines --position 561470
  foldd wait fines --cursor 7421:561470 --timeout 5s
  foldd wait fines --caught-up --timeout 10min    # a gate before a deploy

Exit code 3 if the time runs out first.")]
pub(crate) struct Wait {
    /// The projection
    pub(crate) name: String,
    /// Until it has applied the event at this global position
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) position: Option<i64>,
    /// Until it has applied everything up to this cursor, transaction_id:position
    #[arg(long)]
    pub(crate) cursor: Option<Cursor>,
    /// Until it has applied everything that is there when the wait begins
    #[arg(long)]
    pub(crate) caught_up: bool,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `foldd wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The event at a global position is applied.
    Position(i64),
    /// Everything up to a cursor is applied.
    Cursor(Cursor),
    /// Everything that is there now is applied.
    CaughtUp,
}

impl Wait {
    /// The one of the three that was given; clap has seen to it that exactly one was.
    pub(crate) fn until(&self) -> Until {
        match (self.position, self.cursor) {
            (Some(position), _) => Until::Position(position),
            (None, Some(cursor)) => Until::Cursor(cursor),
            (None, None) => Until::CaughtUp,
        }
    }
}

/// `foldd completions`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd completions bash > ~/.local/share/bash-completion/completions/foldd
  foldd completions zsh > ~/.zfunc/_foldd          # a folder of your $fpath
  foldd completions fish > ~/.config/fish/completions/foldd.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `foldd version`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd version
  foldd version --json | jq -r .version")]
pub(crate) struct Version {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
