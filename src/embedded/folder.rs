//! The private folder of a server: its socket, its temporary data, and the URL that leads there.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::error::{EmbeddedError, Result, io_error};

pub(super) const PORT: u16 = 5432;
/// Bytes of a socket's path that fit the system's address structure, which has one more for the closing zero.
pub(super) const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The private folder of the socket and of temporary data. The supervisor removes it when we cannot.
#[derive(Debug)]
pub(super) struct TemporaryFolder(pub(super) PathBuf);

impl TemporaryFolder {
    pub(super) fn new() -> Result<TemporaryFolder> {
        loop {
            let name: String = (0..8).map(|_| fastrand::alphanumeric().to_ascii_lowercase()).collect();
            let path = env::temp_dir().join(format!("foldd-{name}"));
            let socket = socket_path(&path);
            if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
                let length = socket.as_os_str().len();
                return Err(EmbeddedError::SocketPath(socket, length));
            }
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create", &path)(error)),
                Ok(()) => return Ok(TemporaryFolder(path)),
            }
        }
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn socket_path(run: &Path) -> PathBuf {
    run.join(format!(".s.PGSQL.{PORT}"))
}

/// The host part is there for parsers that insist on one; a `host` parameter that begins with a slash
/// outranks it.
pub(super) fn url(run: &Path, database: &str) -> String {
    let host = percent_encode(&run.to_string_lossy());
    format!("postgres://postgres@localhost:{PORT}/{}?host={host}", percent_encode(database))
}

/// Leaves slashes alone: both places that it is used for may hold them, and people read these URLs.
fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_odd_names_apart_from_its_own_signs() {
        assert_eq!(
            url(Path::new("/tmp/a b"), "x/y?z"),
            "postgres://postgres@localhost:5432/x/y%3Fz?host=/tmp/a%20b"
        );
    }
}
