//! The keys of a projection's front matter, which configuration may override one by one.
//!
//! Every key is optional here: what the file leaves out the configuration may supply. Whether
//! enough has been said is asked of the two together.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest version: it lives in an `integer` column and in schema names.
pub(crate) const MAX_VERSION: u32 = i32::MAX.unsigned_abs();

/// The most partitions: each costs a row, a lease and a share of the connections.
pub(crate) const MAX_PARTITIONS: u16 = 1024;

/// The longest time that a previous version may be kept: ten years, far inside what the
/// database's timestamps can hold.
pub(crate) const MAX_KEEP_PREVIOUS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What may be said about a projection beside its SQL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The version of the definition, from 1. Raising it builds the read model anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The categories whose events the projection gets. Excludes `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
    /// Whether the projection gets the events of all categories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// What happens when an event cannot be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Into how many partitions the streams are split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u16>,
    /// Schemas of extensions whose functions and types the SQL may name without a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_schemas: Option<Vec<String>>,
    /// Who decides when a new version takes the place of the old one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// How long the old version is kept for a rollback, such as `"24h"`.
    #[serde(skip_serializing_if = "Option::is_none", with = "humantime_serde::option")]
    pub keep_previous: Option<Duration>,
    /// The most events per second that a build may apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u32>,
    /// With how many quarantined streams the projection halts after all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_quarantined_streams: Option<u32>,
    /// Whether to halt where a stream's versions do not follow one another, as writers can leave it that insert
    /// without `es_append`; true unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_guard: Option<bool>,
}

/// What happens when an event cannot be applied and trying again would not help.
///
/// Faults that pass by themselves are tried again and never get here; faults that any other event would meet as well
/// (a missing table, a missing right, a sick server) halt the projection under every policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// This projection stops; nothing is skipped. `halt` in a file.
    #[default]
    Halt,
    /// The event and every later one of its stream are parked, in order; other streams go on. `quarantine_stream`.
    QuarantineStream,
    /// The event alone is parked; later ones of its stream are applied without it. `skip_event`.
    SkipEvent,
}

/// Who decides when a new version takes the place of the old one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cutover {
    /// The daemon, as soon as the build has caught up.
    #[default]
    Automatic,
    /// An operator, with `foldd cutover`.
    Manual,
}

/// A setting whose type is right and whose value is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}; {remedy}")]
pub(crate) struct SettingError {
    /// The key.
    pub key: &'static str,
    /// The value as TOML would spell it, shortened.
    pub value: String,
    /// What to write instead.
    pub remedy: &'static str,
}

/// A setting that neither the file nor the configuration has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("projection {projection} has no `{key}`, neither in its file nor in the configuration; {remedy}")]
pub(crate) struct MissingSetting {
    /// The projection.
    pub projection: String,
    /// The key.
    pub key: &'static str,
    /// What to write.
    pub remedy: &'static str,
}

impl Settings {
    /// Every key, in the order in which documentation lists them.
    pub(crate) const KEYS: [&'static str; 11] = [
        "version",
        "categories",
        "all",
        "on_error",
        "partitions",
        "extension_schemas",
        "cutover",
        "keep_previous",
        "events_per_second",
        "max_quarantined_streams",
        "order_guard",
    ];

    /// What a key takes, in a form that completes "`key` takes …".
    pub(crate) fn takes(key: &str) -> Option<&'static str> {
        Some(match key {
            "version" => "a whole number from 1 to 2147483647",
            "categories" => r#"a list of names, such as ["order", "payment"]"#,
            "all" | "order_guard" => "true or false",
            "on_error" => r#""halt", "quarantine_stream" or "skip_event""#,
            "partitions" => "a whole number from 1 to 1024",
            "extension_schemas" => r#"a list of schema names, such as ["extensions"]"#,
            "cutover" => r#""automatic" or "manual""#,
            "keep_previous" => r#"a duration in quotes of at most ten years, such as "24h" or "7days""#,
            "events_per_second" | "max_quarantined_streams" => "a whole number from 1 to 4294967295",
            _ => return None,
        })
    }

    /// These settings with every key replaced that `other` sets. `categories` and `all` exclude
    /// each other, so setting one of them takes the other back.
    #[must_use]
    pub(crate) fn overridden_by(&self, other: &Self) -> Self {
        let has_choice = other.categories.is_some() || other.all == Some(true);
        let (categories, all) = if has_choice {
            (other.categories.clone(), other.all)
        } else {
            (self.categories.clone(), other.all.or(self.all))
        };
        Self {
            version: other.version.or(self.version),
            categories,
            all,
            on_error: other.on_error.or(self.on_error),
            partitions: other.partitions.or(self.partitions),
            extension_schemas: other.extension_schemas.clone().or_else(|| self.extension_schemas.clone()),
            cutover: other.cutover.or(self.cutover),
            keep_previous: other.keep_previous.or(self.keep_previous),
            events_per_second: other.events_per_second.or(self.events_per_second),
            max_quarantined_streams: other.max_quarantined_streams.or(self.max_quarantined_streams),
            order_guard: other.order_guard.or(self.order_guard),
        }
    }

    /// The version, of settings that should be complete.
    ///
    /// # Errors
    /// When none is set.
    pub(crate) fn required_version(&self, projection: &str) -> Result<u32, MissingSetting> {
        self.version.ok_or_else(|| MissingSetting {
            projection: projection.to_owned(),
            key: "version",
            remedy: "begin with `version = 1`",
        })
    }

    /// Everything that is wrong with the values, key by key. What is missing is not wrong here.
    pub(crate) fn faults(&self) -> Vec<SettingError> {
        let mut faults = Vec::new();
        if self.version.is_some_and(|version| version == 0 || version > MAX_VERSION) {
            faults.push(fault("version", &self.version, "write a whole number from 1 to 2147483647"));
        }
        if let Some(categories) = &self.categories {
            if self.all == Some(true) {
                faults.push(SettingError {
                    key: "all",
                    value: "true beside a list of `categories`".to_owned(),
                    remedy: "keep one of the two",
                });
            }
            if categories.is_empty() {
                faults.push(fault(
                    "categories",
                    &self.categories,
                    "name at least one, or write `all = true`",
                ));
            }
            faults.extend(name_fault("categories", categories));
        }
        if let Some(schemas) = &self.extension_schemas {
            faults.extend(name_fault("extension_schemas", schemas));
        }
        if self.partitions.is_some_and(|count| count == 0 || count > MAX_PARTITIONS) {
            faults.push(fault("partitions", &self.partitions, "write a whole number from 1 to 1024"));
        }
        if self.keep_previous.is_some_and(|time| time > MAX_KEEP_PREVIOUS) {
            faults.push(fault(
                "keep_previous",
                &self.keep_previous,
                "write at most ten years, `\"10years\"`",
            ));
        }
        if self.events_per_second == Some(0) {
            faults.push(fault(
                "events_per_second",
                &self.events_per_second,
                "leave it out for no limit; `foldd pause` stops a build",
            ));
        }
        if self.max_quarantined_streams == Some(0) {
            faults.push(fault(
                "max_quarantined_streams",
                &self.max_quarantined_streams,
                "to stop at the first, write `on_error = \"halt\"`",
            ));
        }
        faults
    }
}

/// A text cut to a length that fits an error message, quoted and with control characters escaped.
pub(crate) fn shortened(text: &str) -> String {
    const MAX_CHARACTERS: usize = 60;
    let mut kept: String = text.chars().take(MAX_CHARACTERS).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    format!("{kept:?}")
}

/// The first name of a list that no category and no schema can have, or that stands there twice.
fn name_fault(key: &'static str, names: &[String]) -> Option<SettingError> {
    let mut seen = BTreeSet::new();
    names.iter().find_map(|name| {
        let (what, remedy) = if name.trim().is_empty() {
            ("an empty name", "remove it")
        } else if name.trim() != name {
            ("a name with white space around it", "remove the white space")
        } else if name.contains('\0') {
            ("a name with a NUL character", "remove the character")
        } else if !seen.insert(name) {
            ("twice the same name", "remove one of the two")
        } else {
            return None;
        };
        let value = format!("a list with {what}, {}", shortened(name));
        Some(SettingError { key, value, remedy })
    })
}

fn fault<T: std::fmt::Debug>(key: &'static str, value: &Option<T>, remedy: &'static str) -> SettingError {
    let value = value.as_ref().map_or_else(|| "absent".to_owned(), |value| format!("{value:?}"));
    SettingError { key, value, remedy }
}
