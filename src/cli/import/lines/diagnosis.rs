//! What is wrong with a line, and what to do about it.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use similar::get_close_matches;

use crate::projection::settings::shortened;
use crate::store::ImportEvent;

const KEYS: [&str; 6] = ["stream_id", "category", "event_type", "data", "metadata", "event_id"];
const UNSTORABLE: &str = "PostgreSQL cannot store it; remove it";
const EXAMPLE: &str = r#"write {"stream_id":"account-1","event_type":"Opened","data":{}}"#;
/// Comparing a longer word with the keys costs for nothing.
const MAX_COMPARED_BYTES: usize = 60;

/// Reason and remedy.
pub(super) type Complaint = (String, String);

pub(super) fn complaint(reason: impl Into<String>, remedy: impl Into<String>) -> Complaint {
    (reason.into(), remedy.into())
}

/// Why serde refuses a line. Slow and thorough: only bad lines come here.
pub(super) fn unreadable(text: &str, error: &serde_json::Error) -> Complaint {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    if error.is_eof() {
        return complaint(format!("cut off ({message})"), "put each event on one line of its own");
    }
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) else {
        return complaint(format!("no JSON object: {message}, column {}", error.column()), EXAMPLE);
    };
    if let Some(key) = members.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let word = if key.len() <= MAX_COMPARED_BYTES { key } else { "" };
        let closest = get_close_matches(word, &KEYS, 1, 0.6);
        let remedy = match closest.first() {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("there are {}; what belongs to the event goes into `data`", KEYS.join(", ")),
        };
        return complaint(format!("unknown key {}", shortened(key)), remedy);
    }
    let required = ["stream_id", "event_type", "data"];
    if let Some(key) = required.into_iter().find(|key| !members.contains_key(*key)) {
        return complaint(format!("`{key}` is missing"), EXAMPLE);
    }
    let is_text = |key: &str, value: &str| {
        let may_be_null = !required.contains(&key);
        value.starts_with('"') || matches!(key, "data" | "metadata") || (may_be_null && value == "null")
    };
    let not_text = members.iter().find(|(key, value)| !is_text(key, value.get()));
    if let Some((key, value)) = not_text {
        complaint(format!("`{key}` is {}, which is no text", shortened(value.get())), EXAMPLE)
    } else if message.starts_with("duplicate") {
        complaint(message, "keep one of the two")
    } else {
        complaint(format!("`event_id` is no UUID: {message}"), "leave it out, and the event gets a new one")
    }
}

/// Why the database would refuse an event, said here because here the line is known.
pub(super) fn refused(event: &ImportEvent) -> Option<Complaint> {
    let texts = [
        ("stream_id", Some(&event.stream_id)),
        ("category", event.category.as_ref()),
        ("event_type", Some(&event.event_type)),
    ];
    for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text?))) {
        if text.is_empty() {
            return Some(complaint(format!("`{key}` is empty"), "give it a name"));
        }
        if text.contains('\0') {
            return Some(complaint(format!("`{key}` contains \\u0000"), UNSTORABLE));
        }
    }
    if event.category.is_none() && event.stream_id.find('-').unwrap_or(0) == 0 {
        let reason = format!("stream {} has no category in its name", shortened(&event.stream_id));
        return Some(complaint(reason, "name it category-id, or add \"category\""));
    }
    if !event.metadata.get().starts_with('{') {
        let reason = format!("`metadata` is {}, which is no object", shortened(event.metadata.get()));
        return Some(complaint(reason, "write for example \"metadata\":{\"actor\":\"ada\"}"));
    }
    let (key, escape) = unstorable(&event.data)
        .map(|escape| ("data", escape))
        .or_else(|| Some(("metadata", unstorable(&event.metadata)?)))?;
    Some(complaint(format!("`{key}` contains {escape}, which is no character"), UNSTORABLE))
}

/// The first escape that is JSON but nothing for `jsonb`: the character 0, or half of a surrogate pair.
pub(crate) fn unstorable(json: &RawValue) -> Option<&str> {
    let mut rest = json.get();
    if !rest.contains("\\u") {
        return None;
    }
    let code_unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        let length = match code_unit(escape) {
            None => 2,
            Some(0 | 0xdc00..=0xdfff) => return escape.get(..6),
            Some(0xd800..=0xdbff) => match code_unit(&escape[6..]) {
                Some(0xdc00..=0xdfff) => 12,
                Some(_) | None => return escape.get(..6),
            },
            Some(_) => 6,
        };
        rest = &escape[length..];
    }
    None
}
