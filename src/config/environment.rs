//! The environment, read once and in one place.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;

use super::fault::{Fault, Place};

/// Our variables begin with this. One underscore would collide with what Kubernetes injects for a
/// Service named foldd.
const PREFIX: &str = "FOLDD__";

/// Variables that are not ours and mean something to us.
const OF_OTHERS: [&str; 5] = ["DATABASE_URL", "NO_COLOR", "TERM", "USER", "LOGNAME"];

/// The variables of a process that mean something to foldd.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: Vec<(String, OsString)>,
}

/// One `FOLDD__…` variable.
pub(super) struct Variable {
    /// As it is spelled in the environment.
    pub(super) name: String,
    /// The key it sets, from the outermost table inwards.
    pub(super) path: Vec<String>,
    pub(super) value: String,
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// Whether colours are unwanted (<https://no-color.org>: set and not empty).
    pub(crate) fn no_color(&self) -> bool {
        self.get("NO_COLOR").is_some_and(|value| !value.is_empty())
    }

    /// Whether the terminal says that it understands no commands.
    pub(super) fn is_dumb(&self) -> bool {
        self.get("TERM").is_some_and(|value| value == "dumb")
    }

    /// The operating system's user, as it tells processes. In a container it does not: then the user's number.
    pub(super) fn user(&self) -> String {
        let told = ["USER", "LOGNAME"].into_iter().filter_map(|name| self.get(name)?.to_str());
        told.into_iter().find(|name| !name.is_empty()).map_or_else(number_of_user, str::to_owned)
    }

    /// `DATABASE_URL`, unless it is unset or empty.
    pub(super) fn database_url(&self) -> Option<Result<Variable, Fault>> {
        let value = self.get("DATABASE_URL").filter(|value| !value.is_empty())?;
        let path = vec!["database".to_owned(), "url".to_owned()];
        Some(variable("DATABASE_URL", path, value))
    }

    /// The `FOLDD__…` variables by name, or what is wrong with them.
    pub(super) fn keys(&self) -> Vec<Result<Variable, Fault>> {
        let mut seen: Vec<(&str, Vec<String>)> = Vec::new();
        let mut keys = Vec::new();
        for (name, value) in &self.variables {
            let Some(path) = key_path(name) else { continue };
            keys.push(match seen.iter().find(|(_, other)| *other == path) {
                Some((other, _)) => Err(Fault::new(
                    Place::Variable(name.clone()),
                    name.clone(),
                    format!("the same key as {other}, in another case"),
                    "keep one of the two",
                )),
                None => variable(name, path.clone(), value),
            });
            seen.push((name, path));
        }
        keys
    }

    fn get(&self, name: &str) -> Option<&OsString> {
        let found = self.variables.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value)
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    /// Keeps what concerns foldd, sorted by name; names that are not UTF-8 do not.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut variables: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
            .filter(|(name, _)| key_path(name).is_some() || OF_OTHERS.contains(&name.as_str()))
            .collect();
        variables.sort();
        Environment { variables }
    }
}

fn number_of_user() -> String {
    let owned = std::fs::metadata("/proc/self").map(|process| process.uid());
    owned.map_or_else(|_| "unknown".to_owned(), |number| format!("user {number}"))
}

fn key_path(name: &str) -> Option<Vec<String>> {
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then(|| rest.to_lowercase().split("__").map(str::to_owned).collect())
}

fn variable(name: &str, path: Vec<String>, value: &OsString) -> Result<Variable, Fault> {
    match value.to_str() {
        Some(value) => Ok(Variable { name: name.to_owned(), path, value: value.to_owned() }),
        // The value is not shown: it may be a secret, and it cannot be printed as it is.
        None => Err(Fault::new(
            Place::Variable(name.to_owned()),
            name,
            "the value is not UTF-8",
            "set it to plain text",
        )),
    }
}
