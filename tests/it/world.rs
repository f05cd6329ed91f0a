//! The world of a test: one private PostgreSQL server for all of them, a database for each, daemons as real processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foldd::EventStore;
use foldd::embedded::{Options, Server};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::OnceCell;

mod events;
pub(crate) mod listen;
pub(crate) mod roles;

pub(crate) use events::Logged;

/// Nothing in a test takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static SHARED: OnceCell<Server> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A database of one's own, on the shared server or on a server of one's own.
pub(crate) struct World {
    url: String,
    pool: PgPool,
    dir: PathBuf,
    own: Option<Server>,
    /// Whether commands have the roles of `deploy/roles.sql`; else they are superusers.
    has_roles: bool,
}

impl World {
    /// A migrated database on the shared server. Its horizon is shared too: a test that holds a transaction open for
    /// long takes [`World::alone`].
    pub(crate) async fn new() -> Self {
        Self::bare().await.migrated().await
    }

    /// An empty database on the shared server.
    pub(crate) async fn bare() -> Self {
        let server = SHARED.get_or_init(|| async { start(Vec::new()).await }).await;
        Self::on(server, None).await
    }

    /// A migrated database on a server of one's own, which can be crashed.
    pub(crate) async fn alone() -> Self {
        Self::alone_with(&[]).await
    }

    /// As [`World::alone`], with server settings.
    pub(crate) async fn alone_with(settings: &[(&str, &str)]) -> Self {
        Self::bare_alone_with(settings).await.migrated().await
    }

    /// With the schema, which is the owner's, and the roles for everybody else.
    async fn migrated(mut self) -> Self {
        roles::migrate(&self.url, &self.pool).await;
        self.has_roles = true;
        self
    }

    /// From now on commands are superusers; whoever wants that says why.
    pub(crate) fn by_superusers(mut self, _why: &'static str) -> Self {
        self.has_roles = false;
        self
    }

    /// An empty database on a server of one's own.
    pub(crate) async fn bare_alone() -> Self {
        Self::bare_alone_with(&[]).await
    }

    async fn bare_alone_with(settings: &[(&str, &str)]) -> Self {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let server = start(settings).await;
        let mut world = Self::on(&server, None).await;
        world.own = Some(server);
        world
    }

    async fn on(server: &Server, own: Option<Server>) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}", std::process::id());
        server.create_database(&name).await.expect("a database can be created");
        let url = server.url(&name);
        let dir = std::env::temp_dir().join(format!("foldd-test-{name}"));
        std::fs::create_dir_all(dir.join("projections")).expect("a folder can be made");
        let pool = pool(&url).await;
        Self { url, pool, dir, own, has_roles: false }
    }

    /// The server of this world's own.
    pub(crate) fn server(&mut self) -> &mut Server {
        self.own.as_mut().expect("only a world alone has a server of its own")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Lets commands and daemons go another way; the pool stays as it is.
    pub(crate) fn reroute(&mut self, url: String) {
        self.url = url;
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A folder of the test's own, with an empty `projections` in it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn store(&self) -> EventStore {
        EventStore::new(self.pool.clone())
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// One value, as text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        self.try_value(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) async fn try_value(&self, sql: &str) -> sqlx::Result<String> {
        let sql = format!("select coalesce((({sql})::text), '')");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await
    }

    /// Appends one event through the SQL contract.
    pub(crate) async fn append(&self, stream_id: &str, event_type: &str, data: &str) {
        sqlx::query("select es_append($1, null, null, array[$2], array[$3::jsonb])")
            .bind(stream_id)
            .bind(event_type)
            .bind(data)
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("append to {stream_id}: {error}"));
    }

    /// Writes a projection file.
    pub(crate) fn projection(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join("projections").join(format!("{name}.sql")), text)
            .expect("a file can be written");
    }

    /// Writes `foldd.toml`: the projections of this world, a free port, and whatever else.
    pub(crate) fn configure(&self, more: &str) {
        let text = format!("projection_dirs = [\"projections\"]\n[ops]\nlisten = \"127.0.0.1:0\"\n{more}\n");
        std::fs::write(self.dir.join("foldd.toml"), text).expect("a file can be written");
    }

    /// The command, not started: with this world's database and configuration and nobody else's.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_foldd")), args)
    }

    /// As [`World::command`], of a program with handlers of its own.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let url =
            if self.has_roles { roles::as_role(&self.url, roles::role_of(args)) } else { self.url.clone() };
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.dir).env("DATABASE_URL", url).env("FOLDD__LOG__FORMAT", "json");
        if !self.dir.join("foldd.toml").exists() {
            self.configure("");
        }
        command
    }

    /// Runs a verb to its end.
    pub(crate) async fn foldd(&self, args: &[&str]) -> Done {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output())
            .await
            .expect("the command's thread ends")
            .expect("the binary can be started");
        Done::of(output)
    }

    /// Starts the daemon.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    /// Starts the daemon with variables in its environment.
    pub(crate) fn daemon_with(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(&["run"]);
        command.envs(variables.iter().copied());
        self.daemon_of(command)
    }

    /// Starts a daemon by its command, whose output goes to a file.
    pub(crate) fn daemon_of(&self, mut command: Command) -> Daemon {
        let log = self.dir.join(format!("daemon-{}.log", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&log).expect("a log file can be made");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Daemon { child: command.spawn().expect("the program can be started"), log }
    }

    /// Waits until a projection has applied everything that is committed now.
    pub(crate) async fn caught_up(&self, name: &str) {
        let (started, mut said) = (Instant::now(), String::new());
        while started.elapsed() < PATIENCE {
            let done = self.foldd(&["wait", name, "--caught-up", "--timeout", "60s"]).await;
            if done.code == 0 {
                return;
            }
            said = done.err;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} never caught up: {said}");
    }

    /// The status of one projection, as `status --json` has it; null when there is none.
    pub(crate) async fn status(&self, name: &str) -> Value {
        let done = self.foldd(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&done.out).unwrap_or_default();
        let mut projections = status["projections"].as_array().cloned().unwrap_or_default();
        projections.retain(|projection| projection["name"] == name);
        projections.pop().unwrap_or_default()
    }

    /// Waits for a projection to be in a phase, and returns its status.
    pub(crate) async fn phase(&self, name: &str, phase: &str) -> Value {
        let mut last = Value::Null;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            last = self.status(name).await;
            if last["phase"] == phase {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} never was {phase}: {last}");
    }

    /// Waits for a projection to halt, and returns the error that it gives.
    pub(crate) async fn halted(&self, name: &str) -> Value {
        self.phase(name, "halted").await["error"].clone()
    }

    /// Waits for a fact.
    pub(crate) async fn eventually(&self, what: &str, mut fact: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if fact().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never came true: {what}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Kept for whoever looks into a failure.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

async fn start(settings: Vec<(String, String)>) -> Server {
    let more = [("max_connections", "200"), ("max_locks_per_transaction", "256")];
    let settings =
        more.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(settings).collect();
    Server::start(Options { data_dir: None, durable: false, settings }).await.expect("PostgreSQL starts")
}

pub(crate) async fn pool(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("the URL is right");
    PgPoolOptions::new().max_connections(10).connect_with(options).await.expect("the database answers")
}

/// What a verb left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A daemon process. Dropped, it is killed.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the daemon can be killed");
        self.child.wait().expect("the daemon ends");
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.expect("kill can be run").success(), "the daemon takes signal {name}");
    }

    /// How it has ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the daemon can be waited for")
    }

    /// Waits for the daemon to end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        self.end().await
    }

    /// Waits for the end of what should end by itself: its exit code, and what it said.
    pub(crate) async fn ends(mut self) -> (Option<i32>, String) {
        (self.end().await.code(), self.log())
    }

    async fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("the daemon can be waited for") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the daemon never ended:\n{}", self.log());
    }

    /// Asks it to end, and waits.
    pub(crate) async fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Where its log is.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The events of a real log, when they are at hand: `../shared/data`, beside the checkout.
pub(crate) fn real_log() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/traffic-fines.jsonl.gz");
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: the real event log is not beside the checkout");
    None
}
