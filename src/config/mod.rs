//! The configuration: files, then the environment, then what they mean.
//!
//! Promise: whatever is wrong is named with its place (file, line, column, or the variable), its
//! value and a remedy, all faults at once, and no password is ever printed.
//!
//! How a value comes to be:
//!
//! 1. [`load`] reads the files named by `--config`, later ones over earlier ones. A folder stands
//!    for every `*.toml` in it, by name, hidden ones skipped (a mounted ConfigMap is full of them).
//!    Without `--config` it is `./foldd.toml`, else `./config/foldd.toml`, else nothing.
//! 2. The environment goes over the files: `FOLDD__DAEMON__WORKERS=8`. Names with a single
//!    underscore are left alone: Kubernetes injects `FOLDD_PORT` and friends for a Service.
//! 3. `DATABASE_URL` fills in when nothing else named a database.
//! 4. [`check`] looks at ranges and at values that must fit each other.
//!
//! Lists are replaced as a whole by a later source, tables are merged key by key. A relative path
//! is relative to the file that named it, or to the working folder for a variable.
//!
//! Nobody but this module (and `embedded`, to find PostgreSQL) reads the environment.
//! Start reading at [`Config`], then `load.rs`.

mod check;
mod connect;
mod environment;
mod explain;
mod fault;
mod load;
mod locate;
mod overrides;
mod paths;
mod show;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod values;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub(crate) use connect::{connect_options, masked_url};
pub(crate) use environment::Environment;
pub(crate) use fault::{ConfigError, Place};
pub(crate) use load::Loaded;
pub(crate) use overrides::{Handler, ProjectionOverride};

/// Everything that can be configured, with its defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "foldd.toml")]
pub(crate) struct Config {
    /// Folders whose `*.sql` files are projections, relative to the file that names them.
    pub(crate) projection_dirs: Vec<PathBuf>,
    /// Where the event store lives.
    pub(crate) database: Database,
    /// How the daemon works.
    pub(crate) daemon: Daemon,
    /// The HTTP side: metrics, health, status.
    pub(crate) ops: Ops,
    /// What is logged, and how.
    pub(crate) log: Log,
    /// The private PostgreSQL of `run --embedded`.
    pub(crate) embedded: Embedded,
    /// By projection name: overrides of its front matter, or the declaration of a Rust handler.
    pub(crate) projections: BTreeMap<String, ProjectionOverride>,
}

/// Where the event store lives: one of the two, or `DATABASE_URL` in the environment.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Database {
    /// The connection URL, `postgres://user:password@host:5432/database`. Anything but a socket
    /// or a loopback address is reached with `sslmode=verify-full` unless the URL says otherwise.
    #[serde(serialize_with = "values::masked", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) url: Option<SecretString>,
    /// A file that holds the URL; read again for every connection, so that a rotated secret is
    /// picked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url_file: Option<PathBuf>,
}

/// How the daemon works.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Daemon {
    /// Workers, each with one connection to the database (1 to 256).
    pub(crate) workers: usize,
    /// How many builds have a batch at the same time while live projections have work (1 to 256).
    /// Each keeps a core of the database busy. Half of the workers while there is no such work, and
    /// never more.
    pub(crate) builds: usize,
    /// How long a replica that fell silent keeps its projections (1s to 10min, and at least three
    /// times `poll_interval`, because the watcher renews it).
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) lease: Duration,
    /// The longest pause between two looks at an idle log (1ms to 1min).
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) poll_interval: Duration,
    /// Target time of a batch while live (1ms to 10s). Others wait for a worker meanwhile, and
    /// for a batch of a handler in Rust all readers do, so this is short.
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) live_batch: Duration,
    /// Target time of a batch while catching up (from `live_batch` to 1min). While a version
    /// with `@batch` handlers is built, which nobody reads yet, up to fifteen times as long where larger
    /// pages are faster, and at most a third of `batch_timeout`. In each of several partitions
    /// with `@on` handlers a twentieth.
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) catch_up_batch: Duration,
    /// The longest a batch may take, its statement timeout: more than twice `catch_up_batch`, at
    /// most one hour. A batch that reaches it is taken back and tried with half the events.
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) batch_timeout: Duration,
    /// How long a stopping daemon waits for the batches in hand (from `catch_up_batch` to 10min).
    /// Keep the pod's `terminationGracePeriodSeconds` above it.
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) drain_timeout: Duration,
    /// How long dead letters that were discarded are kept before they are forgotten (1h to 10years).
    #[serde(with = "values::duration")]
    #[schemars(with = "String")]
    pub(crate) dead_letter_retention: Duration,
    /// The most events in one batch (1 to 10,000,000).
    pub(crate) max_page_events: u32,
    /// The most bytes of event data in one batch (65,536 to 1,073,741,824). Eight times as many for
    /// large pages of `@batch` handlers of one category while they are built: PostgreSQL reads those
    /// from the index and nobody holds them.
    pub(crate) max_page_bytes: u32,
    /// Whether `run` brings the schema up to date itself or only verifies that it is.
    #[serde(deserialize_with = "values::word")]
    pub(crate) migrate: Migrate,
}

/// What `run` does about the schema before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Migrate {
    /// Bring it up to date; safe from many replicas at once.
    OnStart,
    /// Refuse to start unless it is up to date.
    Verify,
}

/// The HTTP side of the daemon.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ops {
    /// Address and port to listen on.
    #[schemars(with = "String")]
    pub(crate) listen: SocketAddr,
    /// The bearer token of the verbs, and of everything but metrics and health where `listen` is not a loopback address:
    /// 16 characters or more, such as `openssl rand -hex 24` prints. Without one the HTTP side only reads.
    #[serde(serialize_with = "values::hidden", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) token: Option<SecretString>,
    /// A file that holds the token; read again for every request, so that a rotated secret is picked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// The shape of a line: `auto` is `pretty` on a terminal and `json` elsewhere.
    #[serde(deserialize_with = "values::word")]
    pub(crate) format: LogFormat,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`), or filter directives such as
    /// `info,foldd::engine=debug`.
    pub(crate) level: String,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// The private PostgreSQL of `run --embedded`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Embedded {
    /// Where it keeps its data; `--data-dir` goes over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration: the files and folders in `paths` (later ones win), or where they
    /// are by default, then `environment`.
    ///
    /// # Errors
    /// Every fault found, each with its place, its value and its remedy.
    pub(crate) fn load(paths: &[PathBuf], environment: &Environment) -> Result<Loaded, ConfigError> {
        load::load(std::path::Path::new(""), paths, environment)
    }

    /// The JSON Schema of `foldd.toml`, for editors and validators.
    pub(crate) fn schema() -> serde_json::Value {
        schemars::schema_for!(Config).to_value()
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Daemon {
            workers: 4,
            builds: 1,
            lease: Duration::from_secs(10),
            poll_interval: Duration::from_millis(50),
            live_batch: Duration::from_millis(200),
            catch_up_batch: Duration::from_secs(1),
            batch_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(20),
            dead_letter_retention: Duration::from_secs(30 * 24 * 3600),
            max_page_events: 2_000_000,
            max_page_bytes: 64 << 20,
            migrate: Migrate::OnStart,
        }
    }
}

impl Default for Ops {
    fn default() -> Self {
        Ops { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 3653)), token: None, token_file: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
