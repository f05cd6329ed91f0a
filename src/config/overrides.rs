//! `[projections.NAME]`: what may be said about one projection outside its file.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values;
use crate::projection::settings::{Cutover, OnError, Settings};

/// Overrides of one projection's front matter, or the declaration of a Rust handler.
///
/// The keys are spelled out instead of flattening [`Settings`], because serde's `flatten` and
/// `deny_unknown_fields` exclude each other, and a misspelled key must be an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProjectionOverride {
    /// `rust`: the code of this projection is linked into the binary.
    #[serde(deserialize_with = "values::optional_word", skip_serializing_if = "Option::is_none")]
    pub(crate) handler: Option<Handler>,
    /// Tables of a Rust projection, as SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tables: Option<String>,
    /// The version of the definition, from 1. Raising it builds the read model anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(crate) version: Option<u32>,
    /// The categories whose events the projection gets. Excludes `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) categories: Option<Vec<String>>,
    /// Whether the projection gets the events of all categories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) all: Option<bool>,
    /// What happens when an event cannot be applied.
    #[serde(deserialize_with = "values::optional_word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("enum" = ["halt", "quarantine_stream", "skip_event"]))]
    pub(crate) on_error: Option<OnError>,
    /// Into how many partitions the streams are split.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) partitions: Option<u16>,
    /// Schemas of extensions whose functions and types the SQL may name without a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extension_schemas: Option<Vec<String>>,
    /// Who decides when a new version takes the place of the old one.
    #[serde(deserialize_with = "values::optional_word", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("enum" = ["automatic", "manual"]))]
    pub(crate) cutover: Option<Cutover>,
    /// How long the old version is kept for a rollback, such as `24h`.
    #[serde(with = "values::optional_duration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) keep_previous: Option<Duration>,
    /// The most events per second that a build may apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(crate) events_per_second: Option<u32>,
    /// With how many quarantined streams the projection halts after all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub(crate) max_quarantined_streams: Option<u32>,
    /// Whether to halt where a stream's versions do not follow one another; true unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_guard: Option<bool>,
}

/// Who applies the events of a projection that has no SQL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handler {
    /// Code linked into the binary.
    Rust,
}

impl ProjectionOverride {
    /// What goes over the front matter.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            version: self.version,
            categories: self.categories.clone(),
            all: self.all,
            on_error: self.on_error,
            partitions: self.partitions,
            extension_schemas: self.extension_schemas.clone(),
            cutover: self.cutover,
            keep_previous: self.keep_previous,
            events_per_second: self.events_per_second,
            max_quarantined_streams: self.max_quarantined_streams,
            order_guard: self.order_guard,
        }
    }
}
