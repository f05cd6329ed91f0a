//! Opens connections, each with its role's name and limits. The budget is one watcher, one clerk, W workers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};

/// An attempt that takes longer has failed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Asked anew for every connection, so that rotated credentials are picked up.
type Options = dyn Fn() -> Result<PgConnectOptions, String> + Send + Sync;

/// Opens connections to the database that the configuration names.
#[derive(Clone)]
pub(crate) struct Connector {
    options: Arc<Options>,
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

/// What a connection may take before the server ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) statement: Duration,
    pub(crate) lock: Duration,
    /// Below the lease time: a stopped process must not hold rows or the horizon.
    pub(crate) idle_in_transaction: Duration,
}

/// How often the server looks, while it computes, whether we are still there. A statement that swallows its
/// own timeout ends by nothing else once we have hung up, and would hold the horizon for everybody.
const PRESENCE_CHECK: (&str, &str) = ("client_connection_check_interval", "1s");

impl Connector {
    /// A connector that asks for the options each time.
    pub(crate) fn new(
        options: impl Fn() -> Result<PgConnectOptions, String> + Send + Sync + 'static,
    ) -> Self {
        Self { options: Arc::new(options) }
    }

    /// Opens a connection under the name `foldd <role>`.
    pub(crate) async fn connect(
        &self,
        role: &str,
        limits: Option<Limits>,
    ) -> Result<PgConnection, ConnectError> {
        let mut options =
            (self.options)().map_err(ConnectError::Options)?.application_name(&format!("foldd {role}"));
        if let Some(limits) = limits {
            options = options.options([
                ("statement_timeout", limits.statement.as_millis().to_string()),
                ("lock_timeout", limits.lock.as_millis().to_string()),
                ("idle_in_transaction_session_timeout", limits.idle_in_transaction.as_millis().to_string()),
            ]);
            return match connect(options.clone().options([PRESENCE_CHECK])).await {
                // Some systems that PostgreSQL runs on cannot look.
                Err(ConnectError::Refused(error)) if is_about(&error, PRESENCE_CHECK.0) => {
                    connect(options).await
                }
                connected => connected,
            };
        }
        connect(options).await
    }
}

async fn connect(options: PgConnectOptions) -> Result<PgConnection, ConnectError> {
    tokio::time::timeout(CONNECT_DEADLINE, options.connect())
        .await
        .map_err(|_| ConnectError::Deadline)?
        .map_err(Into::into)
}

fn is_about(error: &sqlx::Error, setting: &str) -> bool {
    error.as_database_error().is_some_and(|error| error.message().contains(setting))
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
