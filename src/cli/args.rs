//! What can be typed: the command line as types, and nothing else. Each verb is one struct in the module of
//! its group, and one file beside this one.

mod care;
mod checks;
mod configuration;
mod events;
mod operation;
mod operators;
mod state;
#[cfg(test)]
mod tests;
mod values;
mod versions;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use care::{Doctor, Rebase};
pub(crate) use checks::{Build, Test, Verify};
pub(crate) use configuration::{Check, Config, ConfigShow};
pub(crate) use events::{Append, Export, Import};
pub(crate) use operation::{Demo, Migrate, Run};
pub(crate) use operators::{
    Chosen, DeadLetters, Deed, LetterState, ListLetters, Log, Pause, Resume, SettleLetters, ShowLetter,
};
pub(crate) use state::{Completions, Lag, Status, Until, Version, Wait};
pub(crate) use versions::{Cancel, Cutover, Plan, Rebuild, Retire, Rollback};

/// An event store on PostgreSQL, and a daemon that keeps read models folded from it
#[derive(Debug, Clone, Parser)]
#[command(name = "foldd", version, propagate_version = false, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes:
  0  done
  1  failed
  2  wrong use or configuration
  3  condition not met (wait, check, test, verify, doctor, plan --check, migrate --check,
     lag --fail-above, --if-revision,
     or a daemon has not followed in time)

The database is named by url or url_file in foldd.toml, by FOLDD__DATABASE__URL, or by DATABASE_URL;
never on the command line, where every user of the machine could read it.

Try it without any of that:
  foldd demo")]
pub(crate) struct Cli {
    /// A configuration file, or a folder of *.toml files; may be repeated, later ones win
    /// [default: ./foldd.toml, else ./config/foldd.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Vec<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon: keep every projection folded
    Run(Run),
    /// See it work: a PostgreSQL of its own, sample projections, a live event stream
    Demo(Demo),
    /// Bring the event store's schema up to date
    Migrate(Migrate),
    /// Check projection files against a database, without changing anything
    Check(Check),
    /// Show what would change with this configuration, and why
    Plan(Plan),
    /// Run the tests that stand in projection files
    Test(Test),
    /// Look at the configuration
    #[command(subcommand)]
    Config(Config),
    /// Bring events in, as JSON lines
    Import(Import),
    /// Write events out, as the same JSON lines
    Export(Export),
    /// Append one event
    Append(Append),
    /// Show what every projection does
    Status(Status),
    /// Show how far projections are behind, and why
    Lag(Lag),
    /// Wait until a projection has applied an event
    Wait(Wait),
    /// Let a projection stand still
    Pause(Pause),
    /// Let a projection that is paused or halted go on
    Resume(Resume),
    /// Build the live version of a projection anew, beside itself
    Rebuild(Rebuild),
    /// Let a version that is built take the place of the live one
    Cutover(Cutover),
    /// Make the previous version live again
    Rollback(Rollback),
    /// Give up what is being built
    Cancel(Cancel),
    /// Drop a version that is not live, or a projection that nobody configures
    Retire(Retire),
    /// Fold the log anew, aside, and compare the read model with that
    Verify(Verify),
    /// Build a read model as it was, in a schema of its own
    Build(Build),
    /// Look after events that are parked instead of applied
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Show what operators did
    Log(Log),
    /// Examine everything that the order of the log rests on
    Doctor(Doctor),
    /// After a restore into a younger cluster: let the log count on from its greatest stamp
    Rebase(Rebase),
    /// Print a shell's completions
    Completions(Completions),
    /// Show the version of foldd
    Version(Version),
}
