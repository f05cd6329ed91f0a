//! A private PostgreSQL server for `--embedded`, the demo and the tests.
//!
//! It listens on one Unix socket in a folder nobody else can enter, on no network port, and lives no longer than its
//! owner. A shell stands between us and the server and reads orders from a pipe that only we hold: a line names a
//! signal to pass on, and the end of the pipe, which `kill -9` of this process brings about too, stops the server and
//! removes what was temporary. The server has a process group of its own, so that Ctrl-C reaches the daemon alone and
//! the daemon can drain before its database goes.
//!
//! PostgreSQL refuses to run as root. Root therefore starts it as the owner of the data, else as `postgres`, else as
//! `nobody`. Nothing is downloaded here: `deploy/setup.sh` does that, and leaves the programs where [`Server::start`]
//! looks for them.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use account::Account;
pub use error::EmbeddedError;
use error::{Result, io_error};
use folder::{PORT, TemporaryFolder, socket_path, url};
use programs::Programs;
use shell::{POLL, Shell, clean_command};

mod account;
mod error;
mod folder;
mod programs;
mod shell;

/// Crash recovery of a kept cluster may take minutes; a server that fails says so at once, whatever this limit.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// A fast shutdown writes one checkpoint; after that the end of the pipe repeats the order.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// How long a start waits for an earlier server on the same data, whose owner was killed, to finish stopping.
const HANDOVER: Duration = Duration::from_secs(5);

/// What kind of server to start. The default is temporary and fast: it forgets everything when it stops.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the cluster here and use it again; made when missing or empty. `None` is a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// Survive a crash of the machine. Without it, data survives only a crash of the server.
    pub durable: bool,
    /// Server settings (`postgresql.conf` names), stronger than ours.
    pub settings: Vec<(String, String)>,
}

/// A running server.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use foldd::embedded::{Options, Server};
///
/// let server = Server::start(Options::default()).await?;
/// server.create_database("app").await?;
/// let pool = sqlx::PgPool::connect(&server.url("app")).await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping it stops the server; [`Server::stop`] does so without blocking a thread.
#[derive(Debug)]
pub struct Server {
    /// Dropped first: it ends the server.
    shell: Option<Shell>,
    programs: Programs,
    account: Option<Account>,
    data: PathBuf,
    command: Vec<String>,
    at_end: &'static str,
    run: TemporaryFolder,
}

impl Server {
    /// Finds PostgreSQL, makes the cluster where there is none, starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// Every [`EmbeddedError`]. What was started or made temporarily until then is gone again.
    pub async fn start(options: Options) -> Result<Server> {
        // The owner of what we create is who we are; nothing stays behind while the programs are looked for.
        let ourselves = Account::owner_of(&TemporaryFolder::new()?.0)?;
        let kept = match &options.data_dir {
            Some(dir) => Some(std::path::absolute(dir).map_err(io_error("resolve", dir))?),
            None => None,
        };
        let major = kept.as_deref().map(major_version_of).transpose()?.flatten();
        let account = Account::for_server(ourselves, kept.as_deref().filter(|_| major.is_some()))?;
        let programs = Programs::find(account, major.as_deref())?;
        if let (Some(dir), Some(major)) = (&kept, &major)
            && major != programs.major()
        {
            return Err(EmbeddedError::OtherVersion(dir.clone(), major.clone(), programs.version));
        }
        let run = TemporaryFolder::new()?;
        account::hand_over(&run.0, account)?;
        let data = kept.unwrap_or_else(|| run.0.join("data"));
        let command = server_command(&programs.bin_dir, &data, &run.0, &options);
        let at_end = if options.data_dir.is_some() { "INT" } else { "QUIT" };
        let mut server = Server { shell: None, programs, account, data, command, at_end, run };
        if major.is_none() {
            server.create_cluster(options.durable).await?;
        }
        let handover = Instant::now() + HANDOVER;
        loop {
            match server.launch().await {
                Err(EmbeddedError::InUse(..)) if Instant::now() < handover => {
                    sleep(Duration::from_millis(100)).await
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    /// Connection URL of a database, for sqlx and psql alike; there is no password.
    pub fn url(&self, database: &str) -> String {
        url(&self.run.0, database)
    }

    /// The folder of the Unix socket; it may serve as `PGHOST`.
    pub fn socket_dir(&self) -> &Path {
        &self.run.0
    }

    /// The folder of `postgres`, and of `psql` where the installation has it.
    pub fn bin_dir(&self) -> &Path {
        &self.programs.bin_dir
    }

    /// The server's version, like `16.4`.
    pub fn version(&self) -> &str {
        &self.programs.version
    }

    /// Creates an empty database.
    ///
    /// # Errors
    /// [`EmbeddedError::Program`], most likely because it exists.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let createdb = self.programs.bin_dir.join("createdb");
        let mut command = clean_command(&createdb, &self.run.0);
        command.arg("--host").arg(&self.run.0).args([
            "--port",
            &PORT.to_string(),
            "--username=postgres",
            "--",
            name,
        ]);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
        let output = output.map_err(io_error("run", &createdb))?;
        if output.status.success() {
            return Ok(());
        }
        Err(EmbeddedError::Program("createdb", tail(&String::from_utf8_lossy(&output.stderr))))
    }

    /// Stops the server, ending its sessions, and removes temporary data.
    ///
    /// # Errors
    /// [`EmbeddedError::Program`] when it does not stop in time; it is told once more then, and not waited for.
    pub async fn stop(mut self) -> Result<()> {
        self.order("INT").await
    }

    /// Ends the server as a crash does: no checkpoint, sessions cut, recovery at the next [`Server::restart`].
    ///
    /// # Errors
    /// [`EmbeddedError::Program`] when its processes do not end in time.
    pub async fn crash(&mut self) -> Result<()> {
        self.order("QUIT").await
    }

    /// Starts the server again, on the same data and socket; stops it first when it runs.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.order("INT").await?;
        self.launch().await
    }

    async fn create_cluster(&mut self, durable: bool) -> Result<()> {
        self.account.map_or(Ok(()), |account| account.reaches(&self.data))?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.data)
            .map_err(io_error("create", &self.data))?;
        account::hand_over(&self.data, self.account)?;
        // macOS learnt the name C.UTF-8 late; there plain C sorts the same way.
        let locale = if cfg!(target_os = "macos") { "C" } else { "C.UTF-8" };
        let initdb = self.programs.bin_dir.join("initdb").display().to_string();
        let mut command =
            vec![initdb, "-D".to_owned(), self.data.display().to_string(), format!("--locale={locale}")];
        command.extend(["--username=postgres", "--auth=trust", "--encoding=UTF8"].map(str::to_owned));
        command.extend((!durable).then(|| "--no-sync".to_owned()));
        let log = self.run.0.join("initdb.log");
        let status = self.shell(&command, &log)?.finished(None).await?;
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        Err(EmbeddedError::Program("initdb", tail(&fs::read_to_string(&log).unwrap_or_default())))
    }

    async fn launch(&mut self) -> Result<()> {
        let pid_file = self.data.join("postmaster.pid");
        let log = self.data.join("server.log");
        // A crashed server leaves a file that already says ready.
        let stale = fs::read_to_string(&pid_file).unwrap_or_default();
        let shell = self.shell(&self.command, &log)?;
        let shell = self.shell.insert(shell);
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let now = fs::read_to_string(&pid_file).unwrap_or_default();
            if now != stale && says_ready(&now) && UnixStream::connect(socket_path(&self.run.0)).await.is_ok()
            {
                let version = &self.programs.version;
                tracing::debug!(version, data = %self.data.display(), "embedded postgresql started");
                return Ok(());
            }
            if shell.ended()?.is_some() || Instant::now() > deadline {
                let output = tail(&fs::read_to_string(&log).unwrap_or_default());
                self.shell = None;
                let locked = output.contains("lock file \"postmaster.pid\" already exists");
                return Err(match now.lines().next() {
                    Some(pid) if locked => EmbeddedError::InUse(self.data.clone(), pid.to_owned()),
                    _ => EmbeddedError::Program("postgres", output),
                });
            }
            sleep(POLL).await;
        }
    }

    /// Sends the server a signal and waits for its end; a server that has ended already is fine.
    async fn order(&mut self, signal: &str) -> Result<()> {
        let Some(shell) = &mut self.shell else {
            return Ok(());
        };
        shell.order(signal);
        if shell.finished(Some(Instant::now() + STOP_DEADLINE)).await?.is_none() {
            let output = format!("still running {STOP_DEADLINE:?} after SIG{signal}");
            return Err(EmbeddedError::Program("postgres", output));
        }
        self.shell = None;
        Ok(())
    }

    fn shell(&self, command: &[String], log: &Path) -> Result<Shell> {
        Shell::start(command, self.account, self.at_end, &self.run.0, log)
    }
}

fn server_command(bin_dir: &Path, data: &Path, run: &Path, options: &Options) -> Vec<String> {
    let mut command =
        vec![bin_dir.join("postgres").display().to_string(), "-D".to_owned(), data.display().to_string()];
    let mut set = |name: &str, value: &str| command.extend(["-c".to_owned(), format!("{name}={value}")]);
    set("listen_addresses", "");
    set("unix_socket_directories", &run.display().to_string());
    set("port", &PORT.to_string());
    set("lc_messages", "C"); // we read its log
    set("shared_buffers", "128MB");
    set("max_connections", "100");
    set("max_prepared_transactions", "10");
    if !options.durable {
        // synchronous_commit stays on: without fsync it costs little, and commits then survive a crash of the server.
        set("fsync", "off");
        set("full_page_writes", "off");
    }
    for (name, value) in &options.settings {
        set(name, value);
    }
    command
}

/// Major version of the cluster in a folder; `None` when the folder is missing or empty.
fn major_version_of(data: &Path) -> Result<Option<String>> {
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) => return Ok(Some(version.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("read", data)(error)),
    }
    match fs::read_dir(data).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(EmbeddedError::Foreign(data.to_path_buf())),
        _ => Ok(None),
    }
}

/// The status is the eighth line of `postmaster.pid`, padded with blanks.
fn says_ready(pid_file: &str) -> bool {
    pid_file.lines().nth(7).is_some_and(|status| status.trim() == "ready")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_status_line_tells_that_a_server_is_ready() {
        let file = |status| format!("77\n/data\n1700000000\n5432\n/run\n\n  123  456\n{status}\n");
        assert!(says_ready(&file("ready   ")));
        assert!(!says_ready(&file("starting")));
        assert!(!says_ready("77\n/data\n"));
    }

    #[test]
    fn a_long_output_is_cut_to_its_end() {
        let text: String = (0..40).map(|line| format!("{line}\n\n")).collect();
        assert!(tail(&text).starts_with("28\n") && tail(&text).ends_with("39"));
    }
}
