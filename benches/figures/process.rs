//! The built binary as a process, and what it costs.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::account;
use crate::lab::Database;

/// Ticks a second in `/proc/PID/stat`, on every Linux.
const TICKS: f64 = 100.0;
/// The log of the first daemon of a folder.
const FIRST: &str = "log";

/// The sessions of all daemons in a database.
pub(crate) const CONNECTIONS: &str = "
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'foldd%'";

/// Statements of this database so far, without our own.
pub(crate) async fn queries(database: &Database) -> anyhow::Result<i64> {
    database
        .number(
            "select sum(s.calls) from pg_stat_statements s join pg_database d on d.oid = s.dbid
             where d.datname = current_database() and s.query not like '%pg_stat_%'",
        )
        .await
}

/// A daemon process in a folder of its own. Dropped, it is killed.
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
    /// Its log's name; the first of a folder removes it.
    log: String,
}

impl Daemon {
    /// Starts the first one, with so many projections.
    pub(crate) fn start(database: &Database, projections: i64) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("foldd-figures-{}-{projections}", std::process::id()));
        std::fs::create_dir_all(dir.join("projections"))?;
        for number in 1..=projections {
            let file = dir.join("projections").join(format!("rest_{number}.sql"));
            std::fs::write(file, account::on_event("account"))?;
        }
        let configuration = "projection_dirs = [\"projections\"]\n[ops]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(dir.join("foldd.toml"), configuration)?;
        Self::spawn(database, dir, FIRST.to_owned())
    }

    /// Starts one more with the same configuration.
    pub(crate) fn beside(&self, database: &Database, number: usize) -> anyhow::Result<Self> {
        Self::spawn(database, self.dir.clone(), format!("log-{number}"))
    }

    fn spawn(database: &Database, dir: PathBuf, log: String) -> anyhow::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_foldd"))
            .arg("run")
            .current_dir(&dir)
            .env("DATABASE_URL", &database.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join(&log))?)
            .spawn()?;
        Ok(Self { child, dir, log })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join(&self.log)).unwrap_or_default()
    }

    /// Seconds of processor time so far: its own and the kernel's for it.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        // The name, in parentheses, may hold blanks; after it come state, ten numbers, and the two we want.
        let (_, numbers) = stat.rsplit_once(')').context("no process name")?;
        let ticks: f64 =
            numbers.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    }

    /// Resident memory, in megabytes.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
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
        if self.log == FIRST {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
