//! At rest: what a daemon costs while nothing happens. The built binary, as a process of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::lab::{Database, Lab};
use crate::report::{Aim, Figure};
use crate::{Extent, account};

const CASES: [i64; 3] = [1, 100, 1_000];
/// What each run watches.
const TIME: Duration = Duration::from_secs(10);
/// After the last build: checkpoints that are persisted now and then, caches, statistics on their way.
const SETTLE: Duration = Duration::from_secs(5);
/// Building a thousand projections takes no longer.
const PATIENCE: Duration = Duration::from_secs(900);
/// Ticks a second in `/proc/PID/stat`, on every Linux.
const TICKS: f64 = 100.0;

/// What one run of a case gives.
#[derive(Default)]
struct Samples {
    queries: Vec<f64>,
    connections: Vec<f64>,
    cpu: Vec<f64>,
    memory: Vec<f64>,
}

/// Measures the topic.
pub(crate) async fn measure(extent: Extent) -> anyhow::Result<Vec<Figure>> {
    let settings =
        [("shared_preload_libraries", "pg_stat_statements"), ("max_locks_per_transaction", "1024")];
    let lab = Lab::start(&settings).await.context("at-rest needs PostgreSQL's pg_stat_statements")?;
    let mut figures = Vec::new();
    let mut one: Option<Samples> = None;
    for full in CASES {
        let projections = extent.share(full).clamp(1, full);
        let database = lab.database(&format!("rest_{full}")).await?;
        database.execute("create extension pg_stat_statements").await?;
        database.seed("account", 1_000, 100).await?;
        let samples = watch(&database, projections, extent).await?;
        database.pool.close().await;
        figures.extend(samples.figures(projections, one.as_ref()));
        one.get_or_insert(samples);
    }
    Ok(figures)
}

impl Samples {
    fn figures(&self, projections: i64, one: Option<&Self>) -> Vec<Figure> {
        let count =
            if projections == 1 { "1 projection".to_owned() } else { format!("{projections} projections") };
        let figure = |what: &str, unit, own: &[f64], of_one: Option<&Vec<f64>>| {
            let figure = Figure::new(format!("{count}: {what}"), unit, own.to_vec());
            match of_one {
                Some(of_one) => figure.times("that of one", of_one, Some(Aim::Below(1.5))),
                None => figure,
            }
        };
        vec![
            figure("queries", "a second", &self.queries, one.map(|one| &one.queries)),
            figure("connections", "", &self.connections, one.map(|one| &one.connections)),
            figure("processor", "% of a core", &self.cpu, None).aim(Aim::Below(2.0)),
            figure("memory", "MB", &self.memory, None).aim(Aim::Below(100.0)),
        ]
    }
}

async fn watch(database: &Database, projections: i64, extent: Extent) -> anyhow::Result<Samples> {
    tracing::info!("at-rest: building, projections: {projections}");
    let daemon = Daemon::start(database, projections)?;
    let started = Instant::now();
    while database.number("select count(*) from es_projections where live_at is not null").await?
        < projections
    {
        anyhow::ensure!(started.elapsed() < PATIENCE, "the projections are not built:\n{}", daemon.log());
        sleep(Duration::from_millis(200)).await;
    }
    sleep(SETTLE).await;
    let mut samples = Samples::default();
    for run in 1..=extent.runs {
        tracing::info!("at-rest: run {run} of {}, projections: {projections}", extent.runs);
        let before = (queries(database).await?, daemon.cpu_seconds()?);
        let started = Instant::now();
        sleep(extent.time(TIME)).await;
        let took = started.elapsed().as_secs_f64();
        let after = (queries(database).await?, daemon.cpu_seconds()?);
        samples.queries.push((after.0 - before.0) as f64 / took);
        samples.cpu.push((after.1 - before.1) / took * 100.0);
        samples.connections.push(database.number(CONNECTIONS).await? as f64);
        samples.memory.push(daemon.memory()?);
    }
    Ok(samples)
}

const CONNECTIONS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'foldd%'";

/// Statements of this database so far, without our own.
async fn queries(database: &Database) -> anyhow::Result<i64> {
    database
        .number(
            "select sum(s.calls) from pg_stat_statements s join pg_database d on d.oid = s.dbid
             where d.datname = current_database() and s.query not like '%pg_stat_%'",
        )
        .await
}

/// A daemon process in a folder of its own. Dropped, it is killed.
struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    fn start(database: &Database, projections: i64) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("foldd-figures-{}-{projections}", std::process::id()));
        std::fs::create_dir_all(dir.join("projections"))?;
        for number in 1..=projections {
            let file = dir.join("projections").join(format!("rest_{number}.sql"));
            std::fs::write(file, account::on_event("account"))?;
        }
        let configuration = "projection_dirs = [\"projections\"]\n[ops]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(dir.join("foldd.toml"), configuration)?;
        let child = Command::new(env!("CARGO_BIN_EXE_foldd"))
            .arg("run")
            .current_dir(&dir)
            .env("DATABASE_URL", &database.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log"))?)
            .spawn()?;
        Ok(Self { child, dir })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Seconds of processor time so far: its own and the kernel's for it.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        // The name, in parentheses, may hold blanks; after it come state, ten numbers, and the two we want.
        let (_, numbers) = stat.rsplit_once(')').context("no process name")?;
        let ticks: f64 =
            numbers.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    }

    /// Resident memory, in megabytes.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("{path}; the daemon says:\n{}", self.log()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
