//! The tools that `deploy/setup.sh validators` fetched, else those of the machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Where `deploy/setup.sh` puts them: root's place, and everybody else's.
fn fetched() -> impl Iterator<Item = PathBuf> {
    let in_home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let homes = [Some(PathBuf::from("/var/cache")), in_home];
    homes.into_iter().flatten().map(|home| home.join("foldd/validators/bin"))
}

/// A program that was fetched.
fn find(program: &str) -> Option<PathBuf> {
    fetched().map(|folder| folder.join(program)).find(|path| path.exists())
}

/// Runs a tool, if there is one.
pub(super) fn tool(program: &str, args: &[&str], dir: &Path) -> Option<Output> {
    fed(&find(program).unwrap_or_else(|| program.into()), args, dir, "")
}

/// Runs a Python program with the modules that were fetched, if they are here; it reads `input`.
pub(super) fn python(program: &str, args: &[&str], input: &str) -> Option<Output> {
    let Some(python) = find("python3") else {
        eprintln!("skipped: `deploy/setup.sh validators` has not been here");
        return None;
    };
    let args: Vec<&str> = ["-c", program].into_iter().chain(args.iter().copied()).collect();
    fed(&python, &args, &super::root(), input)
}

fn fed(program: &Path, args: &[&str], dir: &Path, input: &str) -> Option<Output> {
    let started = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no {} here", program.display());
            return None;
        }
        Err(error) => panic!("{}: {error}", program.display()),
    };
    // What does not read its input may have ended before it was written.
    let _ = child.stdin.take().expect("it has an input").write_all(input.as_bytes());
    Some(child.wait_with_output().expect("it ends"))
}

/// Everything that it printed.
pub(super) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// It found nothing wrong.
pub(super) fn right(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

/// A folder for the time of a test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("foldd-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and the folders above it.
    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder can be made");
        std::fs::write(path, text).expect("a file can be written");
    }

    /// Copies a file or a whole folder of the repository to the same place in this one.
    pub(super) fn copy(&self, name: &str) {
        let from = super::root().join(name);
        if from.is_dir() {
            for entry in std::fs::read_dir(&from).expect("a folder can be read") {
                let entry = entry.expect("a folder can be read").file_name();
                self.copy(&format!("{name}/{}", entry.to_str().expect("our names are text")));
            }
        } else {
            self.write(name, &super::text(name));
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Kept for whoever looks into a failure.
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
