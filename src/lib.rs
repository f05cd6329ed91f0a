//! An event store on PostgreSQL, and a daemon that keeps read models folded from it.

mod aggregate;
mod backoff;
mod cli;
mod config;
mod cursor;
mod daemon;
mod demo;
pub mod embedded;
mod engine;
pub mod error;
mod event;
mod ledger;
mod logging;
mod metrics;
mod ops;
pub mod projection;
pub mod store;
mod stream;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

pub use aggregate::{Aggregate, AggregateRoot, Snapshot};
pub use cursor::{Cursor, CursorParseError};
pub use error::EventStoreError;
pub use event::{Event, EventData, EventMetadata, RecordedEvent};
pub use store::{Appended, CommittedEvents, EventStore, Horizon, ImportEvent, Lag, TransactionScope};
pub use stream::{ExpectedVersion, ReadDirection, StreamQuery};

/// The `foldd` command line: parses the arguments of this process, carries them out, and reports what went wrong.
pub fn main() -> ExitCode {
    let args = cli::args::Cli::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, text) = failure.report();
            eprintln!("foldd: {text}");
            ExitCode::from(code)
        }
    }
}

fn start(args: cli::args::Cli) -> Result<(), cli::Failure> {
    use cli::args::Verb;

    let environment = config::Environment::of_process();
    let loaded = config::Config::load(&args.config, &environment)?;
    // The demo talks to a person; what a daemon logs would be in the way.
    let quiet =
        matches!(args.verb, Verb::Demo(_)) && loaded.place(&["log", "level"]) == config::Place::Default;
    let level = if quiet { "warn" } else { &loaded.config.log.level };
    logging::init(loaded.config.log.format, level, environment.no_color())
        .map_err(|error| cli::Failure::Usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| cli::Failure::Failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        match args.verb {
            Verb::Run(args) => daemon::run(&args, loaded).await,
            Verb::Demo(args) => demo::run(&args, loaded).await,
            verb => cli::run(verb, &loaded).await,
        }
    })
}
