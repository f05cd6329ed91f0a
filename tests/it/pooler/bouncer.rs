//! A real PgBouncer in transaction mode, in front of a world's own server.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::net::UnixStream;

use crate::world::World;

const PORT: u16 = 6432;
/// Few sessions, taken in turn: whoever relies on meeting the same one again is found out.
const SESSIONS: u16 = 3;

/// A running pooler. Dropped, it is killed.
pub(crate) struct Bouncer {
    child: Child,
    program: PathBuf,
    dir: PathBuf,
    account: (u32, u32),
}

impl Bouncer {
    /// Starts one and leads the world's commands through it; the world's own pool stays direct. `None`, said aloud, where
    /// there is no PgBouncer.
    pub(crate) async fn before(world: &mut World, more: &str) -> Option<Self> {
        let Some(program) = find() else {
            eprintln!("skipped: there is no pgbouncer here");
            return None;
        };
        let database = world.value("select current_database()").await;
        let server = world.server().socket_dir().to_path_buf();
        // It refuses root, as PostgreSQL does.
        let owner = std::fs::metadata(&server).expect("the socket's folder");
        let account = (owner.uid(), owner.gid());
        let dir = std::env::temp_dir().join(format!("fb{database}"));
        std::fs::create_dir_all(&dir).expect("a folder can be made");
        chown(&dir, Some(account.0), Some(account.1)).expect("it can be handed over");
        let settings = format!(
            "[databases]\n* = host={} port=5432 user=postgres\n[pgbouncer]\nlisten_port = {PORT}\n\
             unix_socket_dir = {}\nlogfile = {}\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = {SESSIONS}\nserver_round_robin = 1\nserver_login_retry = 1\n{more}\n",
            server.display(),
            dir.display(),
            dir.join("log").display()
        );
        std::fs::write(dir.join("pgbouncer.ini"), settings).expect("a file can be written");
        world.reroute(format!("postgres://postgres@localhost:{PORT}/{database}?host={}", dir.display()));
        let child = launch(&program, &dir, account).await;
        Some(Self { child, program, dir, account })
    }

    /// Kills it, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.child = launch(&self.program, &self.dir, self.account).await;
    }

    /// The folder of its socket, and its port.
    pub(crate) fn socket(&self) -> (String, String) {
        (self.dir.display().to_string(), PORT.to_string())
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn launch(program: &Path, dir: &Path, account: (u32, u32)) -> Child {
    let socket = dir.join(format!(".s.PGSQL.{PORT}"));
    // Of the one before.
    let _ = std::fs::remove_file(&socket);
    let mut command = Command::new(program);
    command.arg("-q").arg(dir.join("pgbouncer.ini")).current_dir(dir).uid(account.0).gid(account.1);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("pgbouncer can be started");
    while UnixStream::connect(&socket).await.is_err() {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            panic!("{status}: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    child
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(known);
    places.find_map(|place| Some(place.join("pgbouncer")).filter(|program| program.is_file()))
}
