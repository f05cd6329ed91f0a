//! The HTTP face: one port for whoever scrapes, probes, or looks.
//!
//! **Promise.** `/livez` tells whether the process runs, `/readyz` whether it can do its work and if not why, and
//! `/metrics` what it has done; all three answer without asking the database anything, so that a slow database never
//! restarts a healthy process. `/api/status` and the page at `/` show what every projection does.
//!
//! **How.** Nothing here reads, waits for or changes anything of the engine: it shows what others put into [`Faces`].
//! Whoever looks at the status leaves a note ([`Faces::wanted`]), and its owner reads it anew; while nobody looks,
//! nothing is read.
//!
//! **Who may see what.** `/metrics`, `/livez` and `/readyz` are open wherever the port is. The page and `/api` show
//! names, errors and positions: they answer on a loopback address only, and there only under a name that means this
//! machine, or a web page could point its own name at 127.0.0.1 and read along. On any other address they answer 403,
//! for as long as there is no token to ask for.
//!
//! **What it never does.** It takes no request that writes. It holds no connection that does not get on: request
//! heads, answers and idling have their time, bodies their size, and connections their number.
//!
//! Where next: [`routes`] for what is answered, [`connection`] for patience with clients, `page.html` for the page.

mod connection;
mod readiness;
mod routes;
#[cfg(test)]
mod tests;

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::status::Status;
use crate::metrics::Exporter;

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
    if !address.ip().to_canonical().is_loopback() {
        tracing::info!(%address, "page and api stay closed: the address is not a loopback one");
    }
    let service =
        routes::router(faces, address.ip()).into_make_service_with_connect_info::<connection::Answering>();
    let listener = connection::PatientListener::new(listener);
    let answers = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let enough = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = answers.into_future() => served,
        () = enough => Ok(()),
    }
}
