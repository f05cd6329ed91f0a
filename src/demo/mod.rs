//! `foldd demo`: everything at once, on a PostgreSQL of its own that is gone afterwards.
//!
//! A parcel carrier's events are appended, a backlog first and then as they happen, and the sample projections of
//! `config/projections` are folded from them by the same daemon that `foldd run` starts.

mod parcels;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cli::args::Demo;
use crate::cli::{Failure, catalog, print};
use crate::config::{Loaded, connect_options};
use crate::daemon::{Database, Plan, bind, serve, stop_own};
use crate::embedded::{Options, Server};
use crate::error::chain;
use crate::ledger::status::{self, LagSource, Status};
use crate::projection::handler::Registry;
use crate::store::{Link, append_many};
use parcels::Parcels;

/// Events that are there before anybody looks: enough to see projections catch up.
const BACKLOG: usize = 50_000;
/// Events of one append of the backlog.
const BLOCK: usize = 5_000;
/// Events a second, once the backlog is in.
const RATE: f64 = 60.0;
/// How often events are appended, and how often a line is printed.
const BEAT: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(2);

/// The sample projections, for a demo without a checkout.
const SAMPLES: [(&str, &str); 3] = [
    ("couriers", include_str!("../../config/projections/couriers.sql")),
    ("parcels", include_str!("../../config/projections/parcels.sql")),
    ("traffic", include_str!("../../config/projections/traffic.sql")),
];

/// Runs until interrupted, or for the time asked for.
pub(crate) async fn run(args: &Demo, loaded: Loaded, registry: &Registry) -> Result<(), Failure> {
    let projections = match catalog::projections(&loaded, registry)? {
        none if none.is_empty() => catalog::brought_along(&Registry::new(), SAMPLES)
            .map_err(|faults| Failure::Usage(faults.join("\n")))?,
        configured => configured,
    };
    let listener = listen(args.listen, loaded.config.ops.listen).await?;
    let address =
        listener.local_addr().map_err(|error| Failure::Failed(format!("the port is gone: {error}")))?;
    let server = Server::start(Options::default()).await.map_err(|error| Failure::Failed(chain(&error)))?;
    let url = server.url("postgres");
    let names: Vec<_> = projections.iter().map(|projection| projection.name.clone()).collect();
    let token = match loaded.ops_token()? {
        Some(token) => token,
        None => SecretString::from(Uuid::new_v4().simple().to_string()),
    };
    print(&welcome(address, &url, &names, token.expose_secret()))?;
    let shown = token.clone();

    let cancel = CancellationToken::new();
    let plan = Plan {
        projections,
        daemon: loaded.config.daemon.clone(),
        database: Database::Own(SecretString::from(url.clone())),
        listener,
        token: Arc::new(move || Ok(Some(shown.clone()))),
        configuration: Arc::new(loaded.show_entries()),
    };
    let mut seen = None;
    let beside = async {
        let stream = stream_events(&url, &mut seen);
        let outcome = match args.duration {
            Some(duration) => tokio::time::timeout(duration, stream).await.unwrap_or(Ok(())),
            None => stream.await,
        };
        if let Err(failure) = outcome {
            tracing::error!("the event stream ended: {}", failure.report().1);
        }
        cancel.cancel();
    };
    let outcome = serve(plan, cancel.clone(), beside).await;
    stop_own(Some(server)).await;
    if let Some(status) = seen {
        print(&farewell(&status))?;
    }
    outcome
}

/// The address asked for, or the configured one; when that is taken, any free port of the same address.
async fn listen(asked: Option<SocketAddr>, configured: SocketAddr) -> Result<TcpListener, Failure> {
    match (asked, bind(configured).await) {
        (Some(asked), free) => {
            drop(free);
            bind(asked).await
        }
        (None, Ok(listener)) => Ok(listener),
        (None, Err(_)) => bind(SocketAddr::new(configured.ip(), 0)).await,
    }
}

/// Appends the backlog, then a live stream, and prints a line now and then.
async fn stream_events(url: &str, seen: &mut Option<Status>) -> Result<(), Failure> {
    let mut conn = connect(url).await?;
    let mut parcels = Parcels::new(fastrand::u64(..));
    for _ in 0..BACKLOG / BLOCK {
        append_many(&mut conn, &parcels.next_events(BLOCK)).await?;
    }
    let mut owed = 0.0;
    let mut last = Instant::now();
    let mut next_line = last;
    loop {
        tokio::time::sleep(BEAT).await;
        // Business comes in waves, so that the page has something to draw.
        let now = Instant::now();
        owed += now.duration_since(last).as_secs_f64() * RATE * 2.0 * fastrand::f64();
        last = now;
        let due = owed.trunc();
        owed -= due;
        if now >= next_line {
            next_line = now + LINE;
            let status = status::read(&mut conn, LagSource::Counted, None).await?;
            print(&line(&status))?;
            *seen = Some(status);
        }
        append_many(&mut conn, &parcels.next_events(whole(due))).await?;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number of events")]
fn whole(due: f64) -> usize {
    due.max(0.0) as usize
}

async fn connect(url: &str) -> Result<Link<'static>, Failure> {
    let options = connect_options(&SecretString::from(url))?.application_name("foldd demo");
    Ok(Link::direct(options.connect().await?))
}

fn welcome(address: SocketAddr, url: &str, names: &[String], token: &str) -> String {
    let look = if names.iter().any(|name| name == "traffic") {
        "traffic.event_type order by events"
    } else {
        "es_events"
    };
    format!(
        "
  foldd demo: a parcel carrier's events, folded into {names}

  look     http://{address}/            the projections, live
           http://{address}/metrics     what Prometheus scrapes
  act      the page asks for the token:  {token}
  type     export DATABASE_URL='{url}'
           foldd status --watch               (this binary: {binary})
           foldd append parcel-mine Admired '{{}}'
           psql \"$DATABASE_URL\" -c 'select * from {look}'
  change   config/projections/*.sql, then `foldd check`; README.md has the first steps
  end      Ctrl-C, and nothing is left
",
        names = names.join(", "),
        binary =
            std::env::current_exe().map_or_else(|_| "foldd".to_owned(), |path| path.display().to_string()),
    )
}

fn line(status: &Status) -> String {
    let projections: Vec<_> = status
        .projections
        .iter()
        .map(|projection| {
            let lag = match projection.lag_events {
                0 => String::new(),
                behind => format!(", {behind} behind"),
            };
            format!("{} {}{lag}", projection.name, projection.phase)
        })
        .collect();
    format!("  {} events   {}", status.store.head_position, projections.join("   "))
}

fn farewell(status: &Status) -> String {
    let folded: Vec<_> = status
        .projections
        .iter()
        .map(|projection| {
            let position = projection.partitions.first().map_or(0, |part| part.checkpoint.global_position);
            format!("    {}@{}: applied up to position {position}", projection.name, projection.version)
        })
        .collect();
    format!(
        "\n  the log had {} events; each was folded once into each read model that wants it\n{}\n  next: README.md, \
         or `foldd run --embedded` to keep the data",
        status.store.head_position,
        folded.join("\n")
    )
}
