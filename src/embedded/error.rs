//! Why a private server is not to be had, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

use super::folder::SOCKET_PATH_LIMIT;

/// Why a private server is not to be had; each text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// None of these folders holds both `initdb` and `postgres`.
    #[error(
        "no PostgreSQL server programs (initdb, postgres) in {0}: run `make setup`, install your distribution's \
         postgresql package, set PG_BIN_DIR to their folder, or give a database URL"
    )]
    NotFound(String),
    /// Root has nobody to start the server as.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd has no user postgres or nobody: \
         add one, or run as another user"
    )]
    NoAccount,
    /// A folder on the way is closed to the user id the server runs as.
    #[error(
        "user id {1}, as whom root starts PostgreSQL, cannot enter {0}: chmod a+x it, or choose a place outside it"
    )]
    Barred(PathBuf, u32),
    /// The socket's path does not fit the system's address structure.
    #[error(
        "the socket path {0} has {1} bytes, the system allows {SOCKET_PATH_LIMIT}: set TMPDIR to a shorter folder"
    )]
    SocketPath(PathBuf, usize),
    /// The data folder holds something that is no cluster.
    #[error(
        "{0} is not empty and holds no PostgreSQL cluster (no PG_VERSION): give an empty or a new folder"
    )]
    Foreign(PathBuf),
    /// Another major version made the cluster: folder, its version, the version of the programs.
    #[error(
        "{0} was made by PostgreSQL {1}, but the programs found are PostgreSQL {2}: install version {1} \
         or set PG_BIN_DIR to it, or move the data over with pg_upgrade"
    )]
    OtherVersion(PathBuf, String, String),
    /// A living server, with this process id, works on the data folder.
    #[error(
        "{0} is in use by a PostgreSQL server with process id {1}: stop that one first, or choose another data folder"
    )]
    InUse(PathBuf, String),
    /// A PostgreSQL program failed, or the server did not come up or go down; the text is what it wrote last.
    #[error("{0} failed: {1}")]
    Program(&'static str, String),
    /// The file system or the process table refused what was tried.
    #[error("cannot {0} {1}")]
    Io(&'static str, PathBuf, #[source] io::Error),
}

pub(super) type Result<T> = std::result::Result<T, EmbeddedError>;

/// Turns a refusal of the system into an error that names what was tried on which path.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_path_buf();
    move |source| EmbeddedError::Io(action, path, source)
}
