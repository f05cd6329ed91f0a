//! What can be typed: the command line as types, and nothing else. Each verb is one struct here and
//! one file beside this one.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::import::lines::unstorable;
use crate::cursor::Cursor;
use crate::stream::ExpectedVersion;

/// Longer waits are a typing error, and would overflow clocks.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// An event store on PostgreSQL, and a daemon that keeps read models folded from it
#[derive(Debug, Clone, Parser)]
#[command(name = "foldd", version, propagate_version = false, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes:
  0  done
  1  failed
  2  wrong use or configuration
  3  condition not met (wait, check, migrate --check, lag --fail-above)

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
    /// Show the version of foldd
    Version(Version),
}

/// `foldd run`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  DATABASE_URL=postgres://app@localhost/app foldd run
  foldd --config /etc/foldd run
  foldd run --embedded --data-dir ./data

Migrates first, unless daemon.migrate = \"verify\". SIGTERM or Ctrl-C finishes the batches in hand;
a second one stops at once.")]
pub(crate) struct Run {
    /// Start a private PostgreSQL for the daemon's lifetime
    #[arg(long)]
    pub(crate) embedded: bool,
    /// Where the private PostgreSQL keeps its data [default: embedded.data_dir]
    #[arg(long, value_name = "DIR", requires = "embedded")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `foldd demo`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd demo
  foldd demo --for 30s
  foldd demo --listen 127.0.0.1:8080

Ctrl-C ends it and leaves nothing behind.")]
pub(crate) struct Demo {
    /// End by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Where to serve the page and the metrics [default: ops.listen, or a free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `foldd migrate`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd migrate
  foldd migrate --check    # exit code 3 if something is to be done

Safe from many replicas at once. A store of the plain shape is adopted, its events stay as they are.")]
pub(crate) struct Migrate {
    /// Only say what is to be done
    #[arg(long)]
    pub(crate) check: bool,
}

/// `foldd check`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd check
  foldd check config/projections/fines.sql

Every statement is planned in a scratch schema that is rolled back. Exit code 3 if one is wrong.")]
pub(crate) struct Check {
    /// Projection files [default: all in projection_dirs]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
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

/// `foldd import`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd import events.jsonl.gz
  zcat events.jsonl.gz | foldd import -
  foldd import events.jsonl --resume      # goes on where an earlier run ended, doubles nothing
  foldd import events.jsonl --skip-bad --report bad.jsonl

One event a line:
  {\"stream_id\":\"account-1\",\"event_type\":\"Opened\",\"data\":{\"owner\":\"Ada\"}}
and optionally \"category\" (else the stream id up to its first dash), \"metadata\", \"event_id\".

A line without event_id gets one from the import's name, its number and its content, so that it is known
again. With --skip-bad the exit code is 0 whatever was skipped; the summary says how many.")]
pub(crate) struct Import {
    /// JSON lines, also gzipped; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// The category of events that name none
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) category: Option<String>,
    /// Skip what an earlier run of the same input brought in
    #[arg(long)]
    pub(crate) resume: bool,
    /// What this import is called, for --resume [default: the file's name; of standard input its first line]
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) name: Option<String>,
    /// Go on behind lines that cannot be imported
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Write every skipped line's number, reason and remedy into this file, as JSON lines
    #[arg(long, value_name = "FILE", requires = "skip_bad")]
    pub(crate) report: Option<PathBuf>,
    /// Show no progress
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// `foldd export`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd export events.jsonl.gz
  foldd export --category account | jq .data
  foldd export --from 7421:561470 more.jsonl    # what came since; each export says its last cursor

The lines are those that `foldd import` reads, in the order of the log, up to the horizon at the start.
A file appears under its name when it is complete.")]
pub(crate) struct Export {
    /// Where to; gzipped when its name ends in .gz; - is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// The events of this category only
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) category: Option<String>,
    /// Begin behind this cursor, transaction_id:position
    #[arg(long, value_name = "CURSOR")]
    pub(crate) from: Option<Cursor>,
    /// Show no progress and no summary
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// `foldd append`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd append account-1 Opened '{\"owner\": \"Ada\"}' --expected new
  foldd append account-1 Deposited '{\"amount\": 12}' --expected 1
  foldd append account-1 Deposited '{\"amount\": 12}' --event-id 0192f0c1-7a4e-7c55-9d0a-3f2f6b8e1c11

With an event id a repeated call is refused instead of appending twice.")]
pub(crate) struct Append {
    /// The stream, category-id
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) stream: String,
    /// The type of the event
    #[arg(value_name = "TYPE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) event_type: String,
    /// The event, as JSON
    #[arg(value_parser = json, allow_hyphen_values = true)]
    pub(crate) data: Box<RawValue>,
    /// Metadata, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub(crate) metadata: Option<Box<RawValue>>,
    /// The version the stream has now: a number, new (it does not exist), or any
    #[arg(long, value_name = "VERSION", default_value = "any", value_parser = expected)]
    pub(crate) expected: ExpectedVersion,
    /// The category [default: the stream up to its first dash]
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) category: Option<String>,
    /// The event's own id [default: a new one]
    #[arg(long, value_name = "UUID")]
    pub(crate) event_id: Option<Uuid>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `foldd status`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  foldd status
  foldd status --watch
  foldd status --json | jq '.projections[] | {name, phase, lag_events}'")]
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

/// `foldd version`
#[derive(Debug, Clone, Args)]
pub(crate) struct Version {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
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

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a year".to_owned()),
        Err(error) => Err(format!("{error}; write for example 500ms, 30s or 5min")),
    }
}

fn expected(text: &str) -> Result<ExpectedVersion, String> {
    match (text, text.parse::<i64>()) {
        ("any", _) => Ok(ExpectedVersion::Any),
        ("new", _) => Ok(ExpectedVersion::NoStream),
        // Streams begin with version 1: zero would mean new, and is asked for by that name.
        (_, Ok(version)) if version > 0 => Ok(ExpectedVersion::Exact(version)),
        _ => Err("give a version from 1 on, new or any".to_owned()),
    }
}

/// Kept as text, so that numbers wider than 64 bits arrive as they were typed.
fn json(text: &str) -> Result<Box<RawValue>, String> {
    let json: Box<RawValue> = serde_json::from_str(text)
        .map_err(|error| format!("not JSON: {error}; text needs its own quotes: '\"text\"'"))?;
    match unstorable(&json) {
        Some(escape) => {
            Err(format!("contains {escape}, which is no character; PostgreSQL cannot store it; remove it"))
        }
        None => Ok(json),
    }
}

fn json_object(text: &str) -> Result<Box<RawValue>, String> {
    let json = json(text)?;
    if json.get().starts_with('{') {
        Ok(json)
    } else {
        Err("metadata is a JSON object, such as '{\"actor\": \"ada\"}'".to_owned())
    }
}
