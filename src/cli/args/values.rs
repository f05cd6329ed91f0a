//! Values that are checked while the command line is read, so that a wrong one is wrong use.

use std::time::Duration;

use chrono::DateTime;
use serde_json::value::RawValue;

use crate::cli::import::lines::unstorable;
use crate::engine::scratch::aside::Until;
use crate::stream::ExpectedVersion;

/// Longer waits are a typing error, and would overflow clocks.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) => Err("longer than a year".to_owned()),
        Err(error) => Err(format!("{error}; write for example 500ms, 30s or 5min")),
    }
}

pub(super) fn until(text: &str) -> Result<Until, String> {
    if let Ok(position) = text.parse::<i64>() {
        return if position > 0 {
            Ok(Until::Position(position))
        } else {
            Err("positions begin with 1".to_owned())
        };
    }
    DateTime::parse_from_rfc3339(text).map(|time| Until::Time(time.to_utc())).map_err(|error| {
        format!("neither a position nor a time: {error}; write for example 561470 or 2025-03-03T12:00:00Z")
    })
}

pub(super) fn expected(text: &str) -> Result<ExpectedVersion, String> {
    match (text, text.parse::<i64>()) {
        ("any", _) => Ok(ExpectedVersion::Any),
        ("new", _) => Ok(ExpectedVersion::NoStream),
        // Streams begin with version 1: zero would mean new, and is asked for by that name.
        (_, Ok(version)) if version > 0 => Ok(ExpectedVersion::Exact(version)),
        _ => Err("give a version from 1 on, new or any".to_owned()),
    }
}

/// Kept as text, so that numbers wider than 64 bits arrive as they were typed.
pub(super) fn json(text: &str) -> Result<Box<RawValue>, String> {
    let json: Box<RawValue> = serde_json::from_str(text)
        .map_err(|error| format!("not JSON: {error}; text needs its own quotes: '\"text\"'"))?;
    match unstorable(&json) {
        Some(escape) => {
            Err(format!("contains {escape}, which is no character; PostgreSQL cannot store it; remove it"))
        }
        None => Ok(json),
    }
}

pub(super) fn json_object(text: &str) -> Result<Box<RawValue>, String> {
    let json = json(text)?;
    if json.get().starts_with('{') {
        Ok(json)
    } else {
        Err("metadata is a JSON object, such as '{\"actor\": \"ada\"}'".to_owned())
    }
}
