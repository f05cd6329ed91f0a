//! What figment and serde complain about, in the words of somebody who edits the file.

use figment::error::{Actual, Error, Kind};
use figment::value::Value;

use super::Config;
use super::fault::{Fault, Place, shortened};
use crate::projection::settings::Settings;

/// Turns an error into a fault. `found` is the value the sources gave at the error's path.
pub(super) fn fault(error: &Error, place: Place, found: Option<&Value>) -> Fault {
    let key = error.path.join(".");
    let named = match found.and_then(|found| shown(&error.path, found)) {
        Some(value) if !matches!(error.kind, Kind::UnknownField(..)) => format!("{key} = {value}"),
        // What an unknown key holds may be a misplaced password.
        _ if key.is_empty() => "the file".to_owned(),
        _ => key,
    };
    let example = || example(&error.path);
    let (problem, remedy) = match &error.kind {
        Kind::UnknownField(name, known) => ("unknown key".to_owned(), nearest(name, known, &place)),
        Kind::UnknownVariant(name, known) => {
            ("unknown word".to_owned(), nearest(name, known, &Place::Default))
        }
        Kind::InvalidType(found, expected) => {
            (format!("expected {}, found {}", plain(expected), article(found)), example())
        }
        Kind::InvalidValue(Actual::Unsigned(_) | Actual::Signed(_), _)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_) => ("out of range".to_owned(), example()),
        Kind::InvalidValue(_, expected) | Kind::InvalidLength(_, expected) => {
            (format!("expected {}", plain(expected)), example())
        }
        Kind::Message(message) => (message.clone(), example()),
        Kind::MissingField(name) => (format!("{name} is missing"), format!("add {name} = …")),
        Kind::DuplicateField(name) => (format!("{name} is given twice"), "keep one of them".to_owned()),
        Kind::Unsupported(found) | Kind::UnsupportedKey(found, _) => {
            (format!("{} has no place here", article(found)), example())
        }
    };
    Fault::new(place, named, problem, remedy)
}

/// The word of `known` that was probably meant, else all of them.
pub(super) fn nearest(name: &str, known: &[&str], place: &Place) -> String {
    let closest = known.iter().map(|word| (distance(&name.to_lowercase(), word), *word)).min();
    match closest {
        Some((distance, word)) if distance <= 1.max(word.len() / 3) => match place {
            Place::Variable(variable) => {
                let kept = variable.len().saturating_sub(name.len());
                let table = variable.get(..kept).unwrap_or_default();
                format!("did you mean {table}{}?", word.to_uppercase())
            }
            Place::Default | Place::File(_) | Place::Line(..) => format!("did you mean {word}?"),
        },
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "take it away".to_owned(),
    }
}

/// A value as an error may show it, or `None` if it could be a secret or is a whole table.
fn shown(path: &[String], value: &Value) -> Option<String> {
    let secret = path.iter().any(|key| matches!(key.as_str(), "url" | "token" | "password"));
    match value {
        _ if secret => None,
        Value::String(_, text) => Some(format!("\"{}\"", shortened(text))),
        Value::Char(_, c) => Some(format!("\"{c}\"")),
        Value::Bool(_, value) => Some(value.to_string()),
        Value::Num(_, number) => serde_json::to_string(number).ok(),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

/// How the key at `path` is written when it is right.
fn example(path: &[String]) -> String {
    let key = path.iter().rev().find(|key| key.parse::<usize>().is_err());
    let key = key.map_or("", String::as_str);
    if let Some(takes) = Settings::takes(key).filter(|_| path.len() > 2 && path[0] == "projections") {
        return format!("{key} takes {takes}");
    }
    let known = match key {
        "projection_dirs" => Some("[\"projections\"]".to_owned()),
        "url" => Some("\"postgres://user@host/database\"".to_owned()),
        "token" => {
            Some("\"…\", with 16 characters or more, such as `openssl rand -hex 24` prints".to_owned())
        }
        "token_file" => Some("\"/run/secrets/foldd-token\"".to_owned()),
        "url_file" => Some("\"/run/secrets/database-url\"".to_owned()),
        "data_dir" => Some("\"/var/lib/foldd\"".to_owned()),
        "tables" => Some("\"create table …\"".to_owned()),
        "handler" => Some("\"rust\"".to_owned()),
        _ => default_at(path),
    };
    match known {
        Some(value) => format!("write for example {key} = {value}"),
        None if key.is_empty() => "write [table] and key = value lines".to_owned(),
        None => format!("write a table: [{}], then key = value lines", path.join(".")),
    }
}

/// The default of a plain value, as TOML (which agrees with JSON about numbers and text).
fn default_at(path: &[String]) -> Option<String> {
    let defaults = serde_json::to_value(Config::default()).ok()?;
    let value = path.iter().try_fold(&defaults, |value, key| value.get(key))?;
    (!value.is_object()).then(|| value.to_string())
}

fn plain(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "path string" | "a string" => "text in quotes".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

fn article(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a fraction",
        Actual::Char(_) | Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Unit | Actual::Option => "nothing",
        Actual::Bytes(_)
        | Actual::NewtypeStruct
        | Actual::Enum
        | Actual::UnitVariant
        | Actual::NewtypeVariant
        | Actual::TupleVariant
        | Actual::StructVariant
        | Actual::Other(_) => "something else",
    }
}

/// How many letters to add, drop or change to get from one word to the other. `a` is cut: it may
/// be a key of 10,000 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
