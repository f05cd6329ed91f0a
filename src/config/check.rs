//! Ranges, and values that must fit each other.

use std::fmt::Display;
use std::time::Duration;

use humantime::format_duration;
use secrecy::ExposeSecret;

use super::fault::{Fault, Place, shortened};
use super::load::{Loaded, Origins};
use super::overrides::ProjectionOverride;
use super::{Config, ConfigError, Handler, connect, explain, token};
use crate::projection::file::validate_name;

/// Everything that is wrong with well-formed values.
pub(super) fn faults(config: &Config, origins: &Origins) -> Vec<Fault> {
    let mut checks = Checks { origins, faults: Vec::new() };
    checks.database(config);
    checks.daemon(config);
    checks.ops(config);
    checks.log(config);
    for (name, projection) in &config.projections {
        checks.projection(name, projection);
    }
    checks.faults
}

impl Loaded {
    /// Refuses `[projections.NAME]` tables that belong to no projection. `known` are the names
    /// of all SQL files and of all handlers linked in.
    ///
    /// # Errors
    /// One fault for each such table.
    pub(crate) fn check_overrides(&self, known: &[&str]) -> Result<(), ConfigError> {
        let unclaimed = self.config.projections.iter().filter(|(name, projection)| {
            !known.contains(&name.as_str()) && projection.handler != Some(Handler::Rust)
        });
        let faults: Vec<_> = unclaimed
            .map(|(name, _)| {
                let place = self.origins.place_of_name(&["projections", name]);
                let remedy = match explain::nearest(name, known, &Place::Default) {
                    guess if guess.ends_with('?') => guess,
                    _ => format!("add {name}.sql to one of projection_dirs, or handler = \"rust\" here"),
                };
                Fault::new(place, format!("projections.{name}"), "no projection has this name", remedy)
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }
}

/// As durations count years, 365.25 days long.
const TEN_YEARS: Duration = Duration::from_secs(315_576_000);

struct Checks<'a> {
    origins: &'a Origins,
    faults: Vec<Fault>,
}

impl Checks<'_> {
    fn database(&mut self, config: &Config) {
        if let Some(url) = &config.database.url {
            let place = self.origins.place(&["database", "url"]);
            self.faults.extend(connect::url_fault(url.expose_secret(), place));
        }
    }

    fn daemon(&mut self, config: &Config) {
        let daemon = &config.daemon;
        let hour = Duration::from_secs(3600);
        let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
        self.range("workers", daemon.workers, 1, 256, "");
        self.range("builds", daemon.builds, 1, 256, "");
        self.range("max_page_events", daemon.max_page_events, 1, 10_000_000, "");
        self.range("max_page_bytes", daemon.max_page_bytes, 64 << 10, 1 << 30, " bytes");
        self.duration("lease", daemon.lease, second, 600 * second, "");
        self.duration("poll_interval", daemon.poll_interval, millisecond, 60 * second, "");
        self.duration("live_batch", daemon.live_batch, millisecond, 10 * second, "");
        self.duration("catch_up_batch", daemon.catch_up_batch, daemon.live_batch, 60 * second, "live_batch");
        self.duration(
            "drain_timeout",
            daemon.drain_timeout,
            daemon.catch_up_batch,
            600 * second,
            "catch_up_batch",
        );
        let retention = daemon.dead_letter_retention;
        self.duration("dead_letter_retention", retention, hour, TEN_YEARS, "");
        let twice = daemon.catch_up_batch.saturating_mul(2) + millisecond;
        self.duration("batch_timeout", daemon.batch_timeout, twice, hour, "more than twice catch_up_batch");
        let thrice = daemon.poll_interval.saturating_mul(3);
        if daemon.lease < thrice {
            self.fault(
                &["daemon", "lease"],
                format_duration(daemon.lease),
                "shorter than three times poll_interval, so it would run out between two renewals",
                format!("raise it to at least {}, or lower poll_interval", format_duration(thrice)),
            );
        }
    }

    fn ops(&mut self, config: &Config) {
        if let Some(token) = &config.ops.token {
            let place = self.origins.place(&["ops", "token"]);
            self.faults.extend(token::fault(token.expose_secret(), "ops.token", place));
        }
    }

    fn log(&mut self, config: &Config) {
        let level = &config.log.level;
        let filter = tracing_subscriber::EnvFilter::builder().parse(level);
        let problem = match filter {
            Err(error) => format!("not a filter: {}", shortened(&error.to_string())),
            Ok(_) if level.trim().is_empty() => "empty, which would log nothing".to_owned(),
            // A filter takes any word for the name of a module, and a misspelled level would
            // silence everything else.
            Ok(_) => match misspelled_level(level) {
                Some(word) => format!("{} is no level", shortened(word)),
                None => return,
            },
        };
        let remedy =
            "write error, warn, info, debug, trace or off, or directives such as info,foldd::engine=debug";
        self.fault(&["log", "level"], format!("\"{level}\""), problem, remedy);
    }

    fn projection(&mut self, name: &str, projection: &ProjectionOverride) {
        if let Err(error) = validate_name(name) {
            let remedy = match &error.suggestion {
                Some(name) => format!("call it {name}"),
                None => "use a to z, 0 to 9 and _, and begin with a letter".to_owned(),
            };
            self.faults.push(Fault::new(
                self.origins.place_of_name(&["projections", name]),
                format!("projections.{name:?}"),
                format!("not a projection name, it {}", error.rule),
                remedy,
            ));
        }
        for wrong in projection.settings().faults() {
            self.fault(&["projections", name, wrong.key], wrong.value, "out of range", wrong.remedy);
        }
        if projection.tables.is_some() && projection.handler.is_none() {
            let remedy = "add handler = \"rust\", or write the tables under @tables in the SQL file";
            self.fault(
                &["projections", name, "tables"],
                "…",
                "only Rust handlers have their tables here",
                remedy,
            );
        }
    }

    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: T, least: T, most: T, unit: &str) {
        if value < least || value > most {
            let remedy = format!("give {least} to {most}{unit}");
            self.fault(&["daemon", key], value, "out of range", remedy);
        }
    }

    /// `why` says which other value set the lower limit.
    fn duration(&mut self, key: &str, value: Duration, least: Duration, most: Duration, why: &str) {
        if value < least || value > most {
            let because = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let (least, most) = (format_duration(least), format_duration(most));
            let remedy = format!("give {least}{because} to {most}");
            self.fault(&["daemon", key], format_duration(value), "out of range", remedy);
        }
    }

    fn fault(
        &mut self,
        key: &[&str],
        value: impl Display,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let named = format!("{} = {value}", key.join("."));
        self.faults.push(Fault::new(self.origins.place(key), named, problem, remedy));
    }
}

/// A bare word that is no level. It could name another crate, for which `name=trace` is the clearer
/// spelling.
fn misspelled_level(level: &str) -> Option<&str> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    level.split(',').map(str::trim).find(|word| {
        let bare = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
        let number = word.len() == 1 && matches!(word.as_bytes(), [b'0'..=b'5']);
        bare && !number && *word != "foldd" && !LEVELS.contains(&word.to_lowercase().as_str())
    })
}
