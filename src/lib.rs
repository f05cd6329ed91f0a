//! An event store on PostgreSQL, and a daemon that keeps read models folded from it.
//!
//! Two halves that can be used apart. [`EventStore`] is a library: append events to streams in one round trip, load
//! aggregates, read the log in an order that is safe to checkpoint. The daemon, `foldd run`, folds that log into *read
//! models*: tables that SQL files describe and that can be dropped and built again at any time.
//!
//! ```no_run
//! use foldd::{Event, EventData, EventStore, ExpectedVersion};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Deposited { cents: i64 }
//!
//! impl EventData for Deposited {
//!     fn event_type(&self) -> &'static str { "Deposited" }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = EventStore::new(sqlx::PgPool::connect("postgres://localhost/app").await?);
//! store.migrate().await?;
//! let event = Event::new(Deposited { cents: 1200 });
//! let appended = store.append("account-7", "account", ExpectedVersion::Any, &[event]).await?;
//! println!("account-7 is at version {}", appended.version);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to begin
//!
//! | to | see |
//! |---|---|
//! | describe what happens | [`EventData`], [`Event`], [`EventMetadata`] |
//! | append to a stream, and notice that somebody else did | [`EventStore::append`], [`ExpectedVersion`] |
//! | keep rules in an object that is folded from its stream | [`Aggregate`], [`AggregateRoot`], [`Snapshot`] |
//! | decide over several streams at once | [`TransactionScope`] |
//! | read the log from a checkpoint on | [`EventStore::read_all_after`], [`Cursor`], [`RecordedEvent`] |
//! | fold read models in Rust | [`Handler`], [`RustProjection`], then [`main_with`] or [`Daemon`] |
//! | have a PostgreSQL for a test | [`embedded::Server`] |
//!
//! Everything that asks the database returns [`EventStoreError`];
//! [`is_retryable`](EventStoreError::is_retryable) tells what passes by itself. Stream versions count from 1,
//! and global positions rise with gaps. Times are the server's.
//!
//! # Reading the code
//!
//! Bottom-up: a file imports only from floors below its own, or from its siblings, and a test holds it to that.
//!
//! | floor | rooms | |
//! |---|---|---|
//! | 0 words | `event` `stream` `cursor` `aggregate` `error` `backoff` `metrics` `mutants` | values and names |
//! | 1 log | `store` | the event store; the SQL behind it is in `migrations/` |
//! | 2 books | `ledger` | leases, checkpoints, and what the daemon writes about itself |
//! | 3 seam | `projection` | what users write, and what it is compiled into |
//! | 4 engine | `engine` | one subscription's life; `engine/batch.rs` is **the** transaction |
//! | 5 beam | `supervisor` | owns every task and connection |
//! | 6 faces | `ops` `cli` `config` `logging` `embedded` `daemon` `hosting` `demo` | what people meet |
//!
//! Begin with `migrations/0003_stamp.sql`, `0005_read.sql` and `0009_fold.sql`, then `engine/mod.rs`.

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
mod hosting;
mod ledger;
mod logging;
mod metrics;
mod mutants;
mod ops;
mod projection;
pub mod store;
mod stream;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

use ledger::versions::Verb as Wish;

pub use aggregate::{Aggregate, AggregateRoot, Snapshot};
pub use cursor::{Cursor, CursorParseError};
#[doc(inline)]
pub use error::EventStoreError;
pub use event::{Event, EventData, EventMetadata, RecordedEvent};
pub use hosting::{Daemon, DaemonError};
#[doc(inline)]
pub use projection::handler::{Handler, HandlerError, Received, Registry, RustProjection};
pub use projection::settings::OnError;
#[doc(inline)]
pub use store::{
    Appended, CommittedEvents, EventStore, Horizon, ImportEvent, Lag, Migrated, TransactionScope,
};
pub use stream::{ExpectedVersion, ReadDirection, StreamQuery};

/// The `foldd` command line, without Rust handlers: parses the arguments of this process, carries them out, and reports
/// what went wrong.
pub fn main() -> ExitCode {
    main_with(Registry::new())
}

/// The `foldd` command line for a program with Rust handlers of its own.
///
/// ```no_run
/// # use foldd::{Handler, HandlerError, Received, Registry, RustProjection};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Opened;
/// # impl foldd::EventData for Opened { fn event_type(&self) -> &'static str { "Opened" } }
/// # struct Accounts;
/// # impl Handler for Accounts {
/// #     type Event = Opened;
/// #     async fn apply(&self, _: &mut sqlx::PgConnection, _: &[Received<Opened>]) -> Result<(), HandlerError> { Ok(()) }
/// # }
/// fn main() -> std::process::ExitCode {
///     let accounts = RustProjection::new("accounts", 1, Accounts)
///         .categories(&["account"])
///         .tables("create table account (account_id text primary key)");
///     foldd::main_with(Registry::new().with(accounts))
/// }
/// ```
pub fn main_with(registry: Registry) -> ExitCode {
    let args = cli::args::Cli::parse();
    match start(args, &registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, text) = failure.report();
            eprintln!("foldd: {text}");
            ExitCode::from(code)
        }
    }
}

fn start(args: cli::args::Cli, registry: &Registry) -> Result<(), cli::Failure> {
    use cli::args::Verb;

    let environment = config::Environment::of_process();
    let loaded = config::Config::load(&args.config, &environment)?;
    // They talk to a person; what a daemon logs would be in the way.
    let quiet = matches!(args.verb, Verb::Demo(_) | Verb::Test(_))
        && loaded.place(&["log", "level"]) == config::Place::Default;
    let level = if quiet { "warn" } else { &loaded.config.log.level };
    logging::init(loaded.config.log.format, level, environment.no_color())
        .map_err(|error| cli::Failure::Usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| cli::Failure::Failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(carry_out(args.verb, loaded, registry))
}

async fn carry_out(
    verb: cli::args::Verb,
    loaded: config::Loaded,
    registry: &Registry,
) -> Result<(), cli::Failure> {
    use cli::args::Verb;

    match verb {
        Verb::Run(args) => daemon::run(&args, loaded, registry).await,
        Verb::Demo(args) => demo::run(&args, loaded, registry).await,
        Verb::Migrate(args) => cli::migrate::run(&args, &loaded).await,
        Verb::Check(args) => cli::check::run(&args, &loaded, registry).await,
        Verb::Test(args) => cli::test::run(&args, &loaded, registry).await,
        Verb::Verify(args) => cli::verify::run(&args, &loaded, registry).await,
        Verb::Build(args) => cli::build::run(&args, &loaded, registry).await,
        Verb::Config(args) => cli::configuration::run(&args, &loaded),
        Verb::Import(args) => cli::import::run(&args, &loaded).await,
        Verb::Export(args) => cli::export::run(&args, &loaded).await,
        Verb::Append(args) => cli::append::run(args, &loaded).await,
        Verb::Status(args) => cli::status::run(&args, &loaded).await,
        Verb::Lag(args) => cli::lag::run(&args, &loaded).await,
        Verb::Wait(args) => cli::wait::run(&args, &loaded).await,
        Verb::Plan(args) => cli::plan::run(&args, &loaded, registry).await,
        Verb::Rebuild(args) => cli::versions::run(Wish::Rebuild, &args.name, &args.deed, &loaded).await,
        Verb::Cutover(args) => cli::versions::run(Wish::Cutover, &args.name, &args.deed, &loaded).await,
        Verb::Rollback(args) => cli::versions::run(Wish::Rollback, &args.name, &args.deed, &loaded).await,
        Verb::Cancel(args) => cli::versions::run(Wish::Cancel, &args.name, &args.deed, &loaded).await,
        Verb::Retire(args) => cli::versions::run(Wish::Retire, &args.name, &args.deed, &loaded).await,
        Verb::Pause(args) => cli::pause::run(&args, &loaded).await,
        Verb::Resume(args) => cli::resume::run(&args, &loaded).await,
        Verb::DeadLetters(args) => cli::dead_letters::run(&args, &loaded).await,
        Verb::Log(args) => cli::log::run(&args, &loaded).await,
        Verb::Doctor(args) => cli::doctor::run(&args, &loaded).await,
        Verb::Rebase(args) => cli::rebase::run(&args, &loaded).await,
        Verb::Completions(args) => cli::completions::run(&args),
        Verb::Version(args) => cli::version::run(&args),
    }
}
