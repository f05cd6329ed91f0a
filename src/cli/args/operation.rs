//! The verbs that run foldd: the daemon, the demo, the migrations.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::duration;

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
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
