//! The HTTP face: one port for whoever scrapes, probes, or looks.
//!
//! **Promise.** `/livez` tells whether the process runs, `/readyz` whether it can do its work and if not why, and
//! `/metrics` what it has done; all three answer without asking the database anything, so that a slow database never
//! restarts a healthy process. `/api/status` and the page at `/` show what every projection does.
//!
//! `POST /api/projections/{name}/{verb}` acts on one: with the token, in one transaction, with who and why in the log.
//!
//! **How.** Nothing here waits for or changes anything of the engine: it shows what others put into [`Faces`], and acts
//! through the database like everybody else. Whoever looks at the status leaves a note ([`Faces::wanted`]), and its owner
//! reads it anew. Who watches shares one reading and one text ([`feed`]), who waits shares one look ([`waits`]); what is
//! asked beside that stands in line for three connections, which are there while somebody asks ([`desk`]).
//!
//! **Who may see what.** `/metrics`, `/livez` and `/readyz` are open wherever the port is. The page and `/api` show
//! names, errors and positions: on a loopback address they answer under a name that means this machine, or a web page
//! could point its own name at 127.0.0.1 and read along; on any other address they want the token. Verbs want it
//! everywhere, and do not exist while none is configured ([`door`]).
//!
//! **What it never does.** It holds no connection that does not get on: request heads, answers and idling have their time,
//! bodies their size, and connections their number. It leaves room for scrapes and probes whoever else comes.
//!
//! Where next: [`routes`] for what is answered, [`verbs`] for what can be done, `page/` for the page.

mod connection;
mod desk;
mod door;
mod feed;
mod history;
mod looks;
mod openapi;
mod page;
mod problem;
mod readiness;
mod routes;
#[cfg(test)]
mod tests;
mod verbs;
mod waits;

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::status::Status;
use crate::metrics::Exporter;
use crate::supervisor::connector::Connector;

pub(crate) use connection::raise_places;
pub(crate) use door::TokenSource;
pub(crate) use readiness::{Check, Readiness};

/// How long answers under way may take once the port closes.
const GRACE: Duration = Duration::from_secs(3);

/// What the faces show. Others write it.
#[derive(Clone)]
pub(crate) struct Faces {
    /// What `/metrics` renders.
    pub(crate) metrics: Exporter,
    /// What `/readyz` tells.
    pub(crate) readiness: watch::Receiver<Readiness>,
    /// The last status and when it was read; `None` before the first one.
    pub(crate) status: watch::Receiver<Option<(Instant, Arc<Status>)>>,
    /// Notified for each look at the status. Its owner loops: wait for this, read, publish, rest a second. So the
    /// database is asked once a second at most, and not at all while nobody looks.
    pub(crate) wanted: Arc<Notify>,
    /// What verbs and looks at the books connect with.
    pub(crate) connector: Connector,
    /// The token as it is now.
    pub(crate) token: TokenSource,
    /// Every value that is in force, with where it comes from, secrets masked.
    pub(crate) configuration: Arc<Vec<serde_json::Value>>,
}

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Another process listens there.
    #[error("cannot listen on {address}: another process does already")]
    Taken {
        /// As asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The port or the address is not for this user.
    #[error("cannot listen on {address}: not permitted")]
    Forbidden {
        /// As asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else, such as an address that this machine does not have.
    #[error("cannot listen on {address}")]
    Unusable {
        /// As asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Taken { .. } => {
                "stop the other process, which may be another foldd, or choose another port: ops.listen"
            }
            Self::Forbidden { .. } => "choose a port from 1024 up: ops.listen",
            Self::Unusable { .. } => {
                "choose an address of this machine: ops.listen = \"127.0.0.1:3653\" for this machine only, \
                 \"0.0.0.0:3653\" for metrics and health from anywhere"
            }
        }
    }
}

/// Opens the port. Port 0 is any free one; the listener knows which.
///
/// # Errors
/// The address is taken, not permitted or not of this machine.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::Taken { address, source }
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            BindError::Forbidden { address, source }
        } else {
            BindError::Unusable { address, source }
        }
    })
}

/// Answers on the port until `stop`, and then finishes what it is answering.
///
/// Cancel `stop` last: readiness should turn first, and whoever watches a drain wants to see it.
///
/// # Errors
/// The port is unusable.
pub(crate) async fn serve(listener: TcpListener, faces: Faces, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    // Port 0 is whatever the system gave: nobody would find it otherwise.
    tracing::info!(%address, "listening");
    let door = door::Door::new(address.ip(), Arc::clone(&faces.token));
    if !address.ip().to_canonical().is_loopback() && !door.has_token() {
        tracing::info!(
            %address,
            "page and api stay closed: the address is not a loopback one, and ops.token and ops.token_file are not set"
        );
    }
    let places = connection::places();
    let (desk, waits, feed) = (
        Arc::new(desk::Desk::new(faces.connector.clone())),
        Arc::new(waits::Waits::default()),
        Arc::new(feed::Feed::default()),
    );
    let opened = routes::Opened {
        faces: faces.clone(),
        door,
        desk: Arc::clone(&desk),
        waits: Arc::clone(&waits),
        feed: Arc::clone(&feed),
        room: Semaphore::new(places.saturating_sub(connection::RESERVED + routes::MAX_WATCHERS)),
        watchers: Arc::new(Semaphore::new(routes::MAX_WATCHERS)),
        stop: stop.clone(),
    };
    let service = routes::router(opened).into_make_service_with_connect_info::<connection::Answering>();
    let listener = connection::PatientListener::new(listener, places);
    let answers = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let keeping = async { tokio::join!(feed.keep(&faces), waits.keep(&desk), desk.tidy()) };
    let enough = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = answers.into_future() => served,
        () = enough => Ok(()),
        _ = keeping => Ok(()),
    }
}
