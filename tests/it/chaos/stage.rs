//! Who plays: the server, three daemons as processes, a link before each of them and one before the
//! appenders; and how each fault is done to them, and taken back.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::sync::{Mutex, RwLock, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::oracle::{Holding, holdings};
use super::proxy::{Proxy, Weather};
use super::schedule::{Entry, Fault, Lane};
use crate::examples::example;
use crate::world::{Daemon, World};

pub(super) const DAEMONS: usize = 3;
/// One for each daemon, and one for the appenders.
pub(super) const LINKS: usize = DAEMONS + 1;

pub(super) const CONFIGURATIONS: usize = SETTINGS.len();

const PARTITIONS: &str = "FOLDD__PROJECTIONS__PARTED__PARTITIONS";

/// What a daemon is started with, beside what all have in common.
const SETTINGS: [&[(&str, &str)]; 4] = [
    &[("FOLDD__DAEMON__WORKERS", "2")],
    &[("FOLDD__DAEMON__WORKERS", "4"), ("FOLDD__DAEMON__MAX_PAGE_EVENTS", "20"), (PARTITIONS, "3")],
    &[("FOLDD__DAEMON__WORKERS", "1"), ("FOLDD__DAEMON__POLL_INTERVAL", "200ms"), (PARTITIONS, "2")],
    &[("FOLDD__DAEMON__WORKERS", "3"), ("FOLDD__DAEMON__LIVE_BATCH", "50ms"), (PARTITIONS, "4")],
];

/// How many sessions each of them keeps: its workers, the watcher and the clerk.
const SESSIONS: [usize; CONFIGURATIONS] = [4, 6, 3, 5];

/// Whose sessions are not terminated.
const ORACLE: &str = "oracle";

/// More than this no daemon takes that has little to do.
const MEGABYTES: u64 = 100;

/// A daemon's process, and how it was started.
struct Player {
    configuration: usize,
    daemon: Option<Daemon>,
}

pub(super) struct Stage {
    pub(super) world: RwLock<World>,
    /// Around the links.
    direct: String,
    database: String,
    /// The bug that is planted in the daemons.
    mutant: Option<&'static str>,
    players: Vec<Mutex<Player>>,
    links: Vec<Proxy>,
    done: Mutex<BTreeMap<&'static str, u32>>,
    terminated: AtomicU32,
    /// How many daemons there ever were.
    lives: AtomicU32,
    /// The most memory that a daemon was seen with, in megabytes.
    pub(super) largest: AtomicU64,
    /// The longest that a daemon took to end when it was asked to, in milliseconds.
    pub(super) slowest_end: AtomicU64,
    /// What was held by processes that were killed, just before.
    pub(super) bereaved: Mutex<Vec<Holding>>,
}

impl Stage {
    /// Puts everybody in place, and starts the daemons.
    pub(super) async fn set(world: World, mutant: Option<&'static str>) -> Arc<Self> {
        let (folder, port, database) = (
            world.value("select current_setting('unix_socket_directories')").await,
            world.value("select current_setting('port')").await,
            world.value("select current_database()").await,
        );
        let (victims, mut named) = mpsc::unbounded_channel();
        let mut links = Vec::new();
        for _ in 0..LINKS {
            let socket = format!("{folder}/.s.PGSQL.{port}").into();
            links.push(Proxy::before(socket, victims.clone()).await);
        }
        let player = |number| Mutex::new(Player { configuration: number, daemon: None });
        let stage = Arc::new(Self {
            direct: world.url().to_owned(),
            database,
            mutant,
            world: RwLock::new(world),
            players: (0..DAEMONS).map(player).collect(),
            links,
            done: Mutex::default(),
            terminated: AtomicU32::new(0),
            lives: AtomicU32::new(0),
            largest: AtomicU64::new(0),
            slowest_end: AtomicU64::new(0),
            bereaved: Mutex::default(),
        });
        let executioner = Arc::clone(&stage);
        tokio::spawn(async move {
            let mut ready = None;
            while let Some(victim) = named.recv().await {
                executioner.terminate(&mut ready, &format!("pid = {victim}")).await;
            }
        });
        for number in 0..DAEMONS {
            stage.start(number).await;
        }
        stage
    }

    /// What the appenders connect to.
    pub(super) fn front(&self) -> String {
        self.links[DAEMONS].url(&self.database)
    }

    /// A session around the links, which is left alone; `None` while the server is away.
    pub(super) async fn session(&self) -> Option<PgConnection> {
        let options: PgConnectOptions = self.direct.parse().expect("the URL is right");
        options.application_name(ORACLE).connect().await.ok()
    }

    /// Does all that is planned, and comes back when the last fault has ended.
    pub(super) async fn play(self: &Arc<Self>, plan: Vec<Entry>) {
        let begun = Instant::now();
        let mut lanes: BTreeMap<Lane, Vec<Entry>> = BTreeMap::new();
        for entry in plan {
            lanes.entry(entry.lane).or_default().push(entry);
        }
        let lanes = lanes.into_values().map(|entries| {
            let stage = Arc::clone(self);
            tokio::spawn(async move {
                for entry in entries {
                    sleep_until(begun + entry.at).await;
                    let is_done = match entry.lane {
                        Lane::Daemon(number) => stage.strike(number, entry).await,
                        Lane::Link(number) => disturb(&stage.links[number], entry).await,
                        Lane::Server => stage.shake(entry).await,
                    };
                    let mut done = stage.done.lock().await;
                    *done.entry(entry.fault.kind()).or_default() += u32::from(is_done);
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.expect("a lane ends");
        }
    }

    /// How many faults of each kind there were.
    pub(super) async fn done(&self) -> BTreeMap<&'static str, u32> {
        self.done.lock().await.clone()
    }

    /// How many answers to commits got lost, and how many sessions were terminated.
    pub(super) fn casualties(&self) -> (u32, u32) {
        (self.links.iter().map(Proxy::lost).sum(), self.terminated.load(Ordering::SeqCst))
    }

    /// What is wrong with the daemons' processes now: ended, too many or too few connections, too much memory.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, player) in self.players.iter().enumerate() {
            let mut player = player.lock().await;
            let sessions = SESSIONS[player.configuration];
            let Some(daemon) = &mut player.daemon else { continue };
            if let Some(status) = daemon.has_ended() {
                complaints.push(format!("daemon {number} has ended by itself: {status}"));
            }
            let open = self.links[number].open();
            if open != sessions {
                complaints.push(format!("daemon {number} has {open} connections, not {sessions}"));
            }
            let megabytes = resident_megabytes(daemon.pid()).unwrap_or_default();
            self.largest.fetch_max(megabytes, Ordering::SeqCst);
            if megabytes > MEGABYTES {
                complaints.push(format!("daemon {number} takes {megabytes} MB"));
            }
        }
        complaints
    }

    /// What daemons have said when they panicked, all that ever were.
    pub(super) async fn panics(&self) -> Vec<String> {
        let world = self.world.read().await;
        let files = std::fs::read_dir(world.dir()).expect("the folder can be read");
        let logs = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
        logs.flat_map(|log| {
            log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Where everybody stands, for whoever wonders why there is no peace: the books, and the ends of the daemons' logs.
    pub(super) async fn last_words(&self, session: &mut PgConnection) -> String {
        let books = "
            select format('%s %s %s token %s %s:%s', s.subscription_id, ph.phase, left(s.holder::text, 8), s.fence_token,
                          s.last_transaction_id, s.last_position) || coalesce(' ' || (ph.error ->> 'message'), '')
            from es_subscriptions s left join es_phases ph using (subscription_id)
            union all
            select format('replica %s process %s lease %s', left(replica_id::text, 8), process_id, lease_until) from es_replicas
            union all
            select format('session %s %s %s %s', pid, application_name, state, left(query, 100)) from pg_stat_activity
            where application_name like 'foldd %' order by 1";
        let mut words: Vec<String> = sqlx::query_scalar(books).fetch_all(session).await.unwrap_or_default();
        for (number, player) in self.players.iter().enumerate() {
            if let Some(daemon) = &player.lock().await.daemon {
                let log = std::fs::read_to_string(daemon.log_path()).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                words.push(format!("daemon {number}, process {}:", daemon.pid()));
                words.extend(lines[lines.len().saturating_sub(60)..].iter().map(|line| (*line).to_owned()));
            }
        }
        words.join("\n")
    }

    /// Asks all daemons to end. Returns how they did.
    pub(super) async fn leave(&self) -> Vec<ExitStatus> {
        let mut statuses = Vec::new();
        for player in &self.players {
            if let Some(daemon) = player.lock().await.daemon.take() {
                statuses.push(daemon.stop().await);
            }
        }
        statuses
    }

    /// The first and second daemon have a Rust handler beside the SQL files; the third is the binary as it is.
    async fn start(&self, number: usize) {
        let mut player = self.players[number].lock().await;
        let world = self.world.read().await;
        // Another mark for each life; the oracle asks who moved what.
        let life = self.lives.fetch_add(1, Ordering::SeqCst);
        let url = format!("{}&options=-c%20oracle.daemon%3D{life}", self.links[number].url(&self.database));
        let mut command = match number {
            0 | 1 => world.command_of(&example("own_daemon"), &["run"]),
            _ => world.command(&["run"]),
        };
        if let Some(mutant) = self.mutant {
            command.env("FOLDD_MUTANT", mutant);
        }
        command.env("DATABASE_URL", url).envs(SETTINGS[player.configuration].iter().copied());
        player.daemon = Some(world.daemon_of(command));
    }

    /// A fault of a daemon's process.
    async fn strike(&self, number: usize, entry: Entry) -> bool {
        let player = &self.players[number];
        match entry.fault {
            Fault::Kill => {
                let Some(daemon) = player.lock().await.daemon.take() else { return false };
                let held = match self.session().await {
                    Some(mut session) => holdings(&mut session, daemon.pid()).await.unwrap_or_default(),
                    None => Vec::new(),
                };
                daemon.kill();
                self.bereaved.lock().await.extend(held);
                sleep(entry.lasts).await;
                self.start(number).await;
            }
            Fault::Freeze | Fault::FreezeBeyondLease => {
                let player = player.lock().await;
                let Some(daemon) = &player.daemon else { return false };
                daemon.signal("STOP");
                sleep(entry.lasts).await;
                daemon.signal("CONT");
            }
            Fault::Roll { configuration } => {
                let Some(daemon) = player.lock().await.daemon.take() else { return false };
                let (log, asked) = (daemon.log_path(), Instant::now());
                let status = daemon.stop().await;
                let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.slowest_end.fetch_max(took, Ordering::SeqCst);
                // Asked before it knew what that means, it ends as any process does.
                let is_fair = status.code() == Some(0) || status.code().is_none();
                assert!(is_fair, "daemon {number}: {status}: {}", log.display());
                sleep(entry.lasts).await;
                player.lock().await.configuration = configuration;
                self.start(number).await;
            }
            other => unreachable!("{other:?} is not done to a process"),
        }
        true
    }

    /// A fault of the server.
    async fn shake(&self, entry: Entry) -> bool {
        match entry.fault {
            Fault::Crash => {
                let mut world = self.world.write().await;
                world.server().crash().await.expect("the server can be crashed");
                sleep(entry.lasts).await;
                world.server().restart().await.expect("the server starts again");
                true
            }
            Fault::Terminate { one_in } => {
                let which = format!("backend_type = 'client backend' and random() < 1.0 / {one_in}");
                self.terminate(&mut None, &which).await
            }
            Fault::LockTable => self.hold("lock table es_subscriptions", entry.lasts).await,
            Fault::LockRows => self.hold("select from es_subscriptions for update", entry.lasts).await,
            other => unreachable!("{other:?} is not done to the server"),
        }
    }

    /// Terminates the sessions that are so; not whoever looks on, who goes around the links and says so.
    async fn terminate(&self, ready: &mut Option<PgConnection>, which: &str) -> bool {
        if ready.is_none() {
            *ready = self.session().await;
        }
        let Some(session) = ready else { return false };
        let count = format!(
            "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and application_name <> '{ORACLE}' and {which}"
        );
        let terminated: sqlx::Result<i64> =
            sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *session).await;
        let Ok(terminated) = terminated else {
            *ready = None;
            return false;
        };
        self.terminated.fetch_add(u32::try_from(terminated).unwrap_or_default(), Ordering::SeqCst);
        terminated > 0
    }

    async fn hold(&self, lock: &'static str, lasts: Duration) -> bool {
        let Some(mut session) = self.session().await else { return false };
        let begun = sqlx::raw_sql(AssertSqlSafe(format!("begin; {lock}")));
        if begun.execute(&mut session).await.is_err() {
            return false;
        }
        sleep(lasts).await;
        sqlx::raw_sql("rollback").execute(&mut session).await.is_ok()
    }
}

/// A fault of a link. An ambush that nobody walked into was none.
async fn disturb(link: &Proxy, entry: Entry) -> bool {
    let mut waited_for = 0;
    match entry.fault {
        Fault::Slow { milliseconds } => {
            link.change(|weather| weather.delay = Duration::from_millis(milliseconds));
        }
        Fault::DeafServer => link.change(|weather| weather.is_server_deaf = true),
        Fault::DeafClient => link.change(|weather| weather.is_client_deaf = true),
        Fault::Reset => link.change(|weather| weather.resets += 1),
        Fault::LoseAnswers { commits } => waited_for = commits + link.lose_answers(commits),
        Fault::TerminateAtCommit { commits } => waited_for = commits + link.terminate(commits),
        other => unreachable!("{other:?} is not done to a link"),
    }
    sleep(entry.lasts).await;
    let left = link.lose_answers(0) + link.terminate(0);
    link.change(|weather| *weather = Weather { resets: weather.resets, ..Weather::default() });
    waited_for == 0 || left < waited_for
}

/// What a process has in memory, where that can be read.
fn resident_megabytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024)
}
