//! The verbs that bring events in and out.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::values::{expected, json, json_object};
use crate::cursor::Cursor;
use crate::stream::ExpectedVersion;

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
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) category: Option<String>,
    /// Skip what an earlier run of the same input brought in
    #[arg(long)]
    pub(crate) resume: bool,
    /// What this import is called, for --resume [default: the file's name; of standard input its first line]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
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
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
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
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
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
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stream: String,
    /// The type of the event
    #[arg(value_name = "TYPE", value_parser = NonEmptyStringValueParser::new())]
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
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) category: Option<String>,
    /// The event's own id [default: a new one]
    #[arg(long, value_name = "UUID")]
    pub(crate) event_id: Option<Uuid>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
