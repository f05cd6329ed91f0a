//! Opens connections, each with its role's name and limits. The budget is one watcher, one clerk, W workers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::store::{Limits, Link};

/// An attempt that takes longer has failed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Asked anew for every connection, so that rotated credentials are picked up.
type Options = dyn Fn() -> Result<PgConnectOptions, String> + Send + Sync;

/// Opens connections to the database that the configuration names.
#[derive(Clone)]
pub(crate) struct Connector {
    options: Arc<Options>,
    /// Whether it was said that there is a pooler.
    told: Arc<AtomicBool>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The configuration gives no usable address.
    #[error("{0}")]
    Options(String),
    /// The server did not answer in time.
    #[error("no connection within {} s", CONNECT_DEADLINE.as_secs())]
    Deadline,
    /// The server refused.
    #[error("cannot connect")]
    Refused(#[from] sqlx::Error),
}

impl ConnectError {
    /// What to do about it, where that is known.
    pub(crate) fn remedy(&self) -> Option<&str> {
        match self {
            Self::Options(_) | Self::Deadline => None,
            Self::Refused(error) => crate::error::remedy(error),
        }
    }

    /// Whether waiting may help: not with a wrong password, a missing database or an unusable address.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Options(_) => false,
            Self::Deadline => true,
            Self::Refused(error) => crate::error::is_transient(error),
        }
    }
}

impl Connector {
    /// A connector that asks for the options each time.
    pub(crate) fn new(
        options: impl Fn() -> Result<PgConnectOptions, String> + Send + Sync + 'static,
    ) -> Self {
        Self { options: Arc::new(options), told: Arc::default() }
    }

    /// Opens a connection under the name `foldd <role>`.
    pub(crate) async fn connect(&self, role: &str, limits: Limits) -> Result<Link<'static>, ConnectError> {
        let options =
            (self.options)().map_err(ConnectError::Options)?.application_name(&format!("foldd {role}"));
        let link = tokio::time::timeout(CONNECT_DEADLINE, Link::open(&options, limits))
            .await
            .map_err(|_| ConnectError::Deadline)??;
        if link.is_pooled() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "connected through a transaction pooler: each unit of work sets its limits itself and prepares nothing \
                 by name"
            );
        }
        Ok(link)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
