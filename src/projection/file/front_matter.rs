//! The first comment of a projection file: `/* foldd`, TOML, `*/`.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::fault::Fault;
use crate::projection::lexer::{Token, TokenKind};
use crate::projection::settings::{Settings, shortened};

/// The front matter and the number of tokens up to its end, or what is wrong with it, with the
/// byte offset of each fault.
pub(super) fn read(tokens: &[Token<'_>]) -> Result<(Settings, usize), Vec<(usize, Fault)>> {
    let first = tokens.iter().position(|token| token.kind != TokenKind::Whitespace);
    let Some((at, toml)) = first.and_then(|at| Some((at, toml_of(&tokens[at])?))) else {
        let late = tokens.iter().find(|token| toml_of(token).is_some());
        return Err(vec![match late {
            Some(token) => (token.offset, Fault::LateFrontMatter),
            None => (first.map_or(0, |at| tokens[at].offset), Fault::NoFrontMatter),
        }]);
    };
    // The text ends before the `*/`.
    let base = tokens[at].end() - 2 - toml.len();
    let settings = settings_of(toml).map_err(|faults| {
        faults.into_iter().map(|(offset, fault)| (base + offset, fault)).collect::<Vec<_>>()
    })?;
    Ok((settings, at + 1))
}

/// The TOML in a token that is a front matter.
fn toml_of<'a>(token: &Token<'a>) -> Option<&'a str> {
    if token.kind != TokenKind::BlockComment {
        return None;
    }
    let inside = token.text.strip_prefix("/*")?.strip_suffix("*/")?;
    let toml = inside.trim_start().strip_prefix("foldd")?;
    (toml.is_empty() || toml.starts_with(char::is_whitespace)).then_some(toml)
}

/// Reads key by key, so that all wrong keys and values are found at once.
fn settings_of(toml: &str) -> Result<Settings, Vec<(usize, Fault)>> {
    let table = DeTable::parse(toml).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        vec![(offset, Fault::Toml { message: error.message().replace('\n', ", ") })]
    })?;
    let mut places = Vec::new();
    let mut faults = Vec::new();
    let mut sound = DeTable::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        let value_at = value.span().start;
        let Some(takes) = Settings::takes(name) else {
            let quoted = shortened(name);
            let fault = Fault::UnknownKey { key: quoted.trim_matches('"').to_owned() };
            faults.push((key.span().start, fault));
            continue;
        };
        places.push((name.to_owned(), value_at));
        let alone: DeTable<'_> = std::iter::once((key.clone(), value.clone())).collect();
        match deserialized(alone) {
            Ok(_) => {
                sound.insert(key.clone(), value.clone());
            }
            Err(message) => {
                let fault = Fault::BadValue { key: name.to_owned(), takes, message };
                faults.push((value_at, fault));
            }
        }
    }
    let settings = deserialized(sound).map_err(|message| vec![(0, Fault::Toml { message })])?;
    let at = |key: &str| places.iter().find(|(name, _)| name == key).map_or(0, |(_, at)| *at);
    faults.extend(settings.faults().into_iter().map(|error| (at(error.key), Fault::Setting(error))));
    faults.sort_by_key(|(offset, _)| *offset);
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

fn deserialized(table: DeTable<'_>) -> Result<Settings, String> {
    Settings::deserialize(Deserializer::from(Spanned::new(0..0, table)))
        .map_err(|error| error.message().replace('\n', ", "))
}
