//! The verbs by which operators act on projections, and what every one of them takes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values::duration;

/// What every verb takes that leaves an entry in the log of operators.
#[derive(Debug, Clone, Args)]
pub(crate) struct Deed {
    /// Why, for `foldd log`
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: Option<String>,
    /// Who, for `foldd log` [default: the operating system's user]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Refuse, with exit code 3, unless `revision` in `foldd status --json` still is this
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) if_revision: Option<i64>,
    /// Give up waiting after this time
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd pause`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd pause fines --why 'the tables are moved'
  foldd pause fines@2 --if-revision 17    # exit code 3 if somebody did something since

When it returns, no batch of it commits any more, whichever replica holds it and however often one
restarts. Everything else goes on. It waits for the batch in hand, at most as long as --timeout says.")]
pub(crate) struct Pause {
    /// The projection; its live version unless you name one, as in fines@2
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// `foldd resume`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd resume fines
  foldd resume fines --why 'the missing table is back' --timeout 1min

Ends a pause and a halt: the daemon tries again where it stood. Exit code 1 if it halts again,
3 if no daemon has taken it up when the time runs out; it then does so when one runs.")]
pub(crate) struct Resume {
    /// The projection; its live version unless you name one, as in fines@2
    pub(crate) name: String,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// `foldd log`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd log
  foldd log fines --limit 5
  foldd log --json | jq '.[] | select(.verb == \"discard\")'

The newest entry comes first.")]
pub(crate) struct Log {
    /// A projection, or one version of it, as in fines@2 [default: all]
    pub(crate) name: Option<String>,
    /// How many entries
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) limit: i64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd dead-letters`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadLetters {
    /// List parked events
    List(ListLetters),
    /// Show one parked event: its data, and why it is parked
    Show(ShowLetter),
    /// Apply parked events after all, in the order of their streams
    Retry(SettleLetters),
    /// Give parked events up: they are never applied
    #[command(after_help = "\
Examples:
  foldd dead-letters discard fines 5107 --why 'a test that went to production'
  foldd dead-letters discard fines --stream case-7

What merely waited behind a discarded event stays parked until it is retried. The letters are kept
for daemon.dead_letter_retention and forgotten then; the events stay in the log.")]
    Discard(SettleLetters),
}

/// `foldd dead-letters list`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd dead-letters list
  foldd dead-letters list fines --sqlstate 23505
  foldd dead-letters list fines --state discarded --json | jq '.[].position'")]
pub(crate) struct ListLetters {
    /// A projection; its live version unless you name one, as in fines@2 [default: all]
    pub(crate) name: Option<String>,
    /// Events of this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<String>,
    /// Events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// Events that failed with this error code of PostgreSQL
    #[arg(long, value_name = "CODE")]
    pub(crate) sqlstate: Option<String>,
    /// Whether they wait, or were given up
    #[arg(long, value_enum, default_value = "open")]
    pub(crate) state: LetterState,
    /// How many
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) limit: i64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether dead letters wait, or were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LetterState {
    /// Parked until they are retried or discarded
    Open,
    /// Given up, and kept for a while
    Discarded,
}

/// `foldd dead-letters show`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd dead-letters show fines 5107
  foldd dead-letters show fines 5107 --json | jq .data")]
pub(crate) struct ShowLetter {
    /// The projection; its live version unless you name one, as in fines@2
    pub(crate) name: String,
    /// The event's global position
    pub(crate) position: i64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd dead-letters retry` and `discard`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd dead-letters retry fines 5107
  foldd dead-letters retry fines --stream case-7 --why 'the constraint is gone'
  foldd dead-letters retry fines --all --timeout 10min

The daemon applies them, each stream in its order, and says what became of them. Exit code 1 if any
failed again, 3 if the time runs out first; they are retried all the same.")]
pub(crate) struct SettleLetters {
    /// The projection; its live version unless you name one, as in fines@2
    pub(crate) name: String,
    /// Which of its events.
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// What every such verb takes.
    #[command(flatten)]
    pub(crate) deed: Deed,
}

/// One way of selecting, and no more: two would leave open whether both must hold.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// The events at these global positions
    #[arg(value_name = "POSITION")]
    pub(crate) positions: Vec<i64>,
    /// All of this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<String>,
    /// All of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// All that failed with this error code of PostgreSQL
    #[arg(long, value_name = "CODE")]
    pub(crate) sqlstate: Option<String>,
    /// All
    #[arg(long)]
    pub(crate) all: bool,
}
