//! The shell that stands between us and a PostgreSQL program, and reads orders from a pipe that only we hold.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, thread};

use tokio::time::{Instant, sleep};

use super::account::Account;
use super::error::{Result, io_error};

/// How long `Drop` blocks its thread. The shell finishes the work even when nobody waits any more.
const DROP_DEADLINE: Duration = Duration::from_secs(5);
/// How often a program is looked at that starts or ends.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// Arguments: signal at the end of the pipe, folder to remove then, log file, command. Descriptor 3 is opened
/// first, because a shell gives its background jobs an empty standard input. The reader's exit code tells the
/// end of the pipe (9) from the server's own end (then the reader is killed), after which the owner lives and
/// cleans up itself. The second `rm` is for children of a killed initdb, which may still be writing at the
/// first.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
at_end=$1 folder=$2 log=$3; shift 3
"$@" 3<&- >>"$log" 2>&1 & server=$!
(while read -r signal <&3; do kill -s "$signal" "$server"; done; kill -s "$at_end" "$server"; exit 9) & reader=$!
wait "$server"; code=$?; kill "$reader"; wait "$reader"
[ $? -ne 9 ] || rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }
exit "$code"
"#;

/// A running program and the shell that guards it.
#[derive(Debug)]
pub(super) struct Shell(Child);

impl Shell {
    /// Starts a program, as `account` where we are root, with its output in a log file. When we are gone, it
    /// gets the signal `at_end`, and `folder` is removed.
    pub(super) fn start(
        command: &[String],
        account: Option<Account>,
        at_end: &str,
        folder: &Path,
        log: &Path,
    ) -> Result<Self> {
        let program = Path::new("/bin/sh");
        let mut shell = clean_command(program, folder);
        shell.args(["-c", SCRIPT, "foldd-postgres", at_end]).arg(folder).arg(log).args(command);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(Account { uid, gid }) = account {
            shell.uid(uid).gid(gid);
        }
        shell.spawn().map(Self).map_err(io_error("run", program))
    }

    /// Sends the program a signal; one that has ended already is fine.
    pub(super) fn order(&mut self, signal: &str) {
        if let Some(pipe) = &mut self.0.stdin {
            // A broken pipe means that there is nobody left to stop.
            let _ = writeln!(pipe, "{signal}");
        }
    }

    /// How the program ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().map_err(io_error("wait for", Path::new("/bin/sh")))
    }

    /// Waits for the end; `None` when the program outlives the deadline.
    pub(super) async fn finished(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        loop {
            match self.ended()? {
                Some(status) => return Ok(Some(status)),
                None if deadline.is_some_and(|deadline| Instant::now() > deadline) => return Ok(None),
                None => sleep(POLL).await,
            }
        }
    }
}

impl Drop for Shell {
    /// Closes the pipe, which ends the program, and waits a little. One that has ended already costs nothing.
    #[expect(clippy::disallowed_methods, reason = "drop cannot await, and waits a few seconds at most")]
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let mut left = DROP_DEADLINE;
        while !left.is_zero() && matches!(self.0.try_wait(), Ok(None)) {
            thread::sleep(POLL);
            left = left.saturating_sub(POLL);
        }
    }
}

/// A command that inherits neither our working folder, which may be closed to the account, nor settings for
/// clients.
pub(super) fn clean_command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).process_group(0).stdin(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
    command
}
