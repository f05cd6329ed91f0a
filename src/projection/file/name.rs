//! What a projection may be called.

use crate::projection::settings::shortened;

/// The longest name, in bytes: with `__v` and ten digits of version it stays below the 63 bytes
/// of a PostgreSQL name.
pub(crate) const MAX_NAME_BYTES: usize = 40;

/// Schemas that are PostgreSQL's or foldd's own.
const TAKEN: [&str; 6] =
    ["public", "foldd", "foldd_bulk", "foldd_unordered", "foldd_parking", "information_schema"];

/// A name that no projection can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot name a projection: it {rule}; {}", shortened(.name), remedy(.suggestion.as_deref()))]
pub(crate) struct NameError {
    /// The name.
    pub name: String,
    /// The rule that it breaks.
    pub rule: NameRule,
    /// A name that is like it and would do.
    pub suggestion: Option<String>,
}

/// What is asked of a projection's name, which is its schema's name too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameRule {
    /// It has something in it.
    #[error("is empty")]
    Empty,
    /// It is `[a-z][a-z0-9_]*`, so that it never needs quotes.
    #[error("has other characters than a to z, 0 to 9 and _, or does not begin with a letter")]
    Characters,
    /// It leaves room for the version.
    #[error("is longer than {MAX_NAME_BYTES} bytes")]
    Length,
    /// Two underscores part name and version in a schema's name.
    #[error("has two underscores in a row, which part name and version in schema names")]
    DoubleUnderscore,
    /// It is not a schema that exists already.
    #[error("is the name of a schema of PostgreSQL or foldd")]
    Taken,
    /// PostgreSQL keeps `pg_` for itself.
    #[error("begins with pg_, which PostgreSQL keeps for itself")]
    Prefix,
}

/// Checks a projection's name.
///
/// # Errors
/// With the first rule that the name breaks, and a name that would do where one can be derived.
pub(crate) fn validate_name(name: &str) -> Result<(), NameError> {
    match broken_rule(name) {
        None => Ok(()),
        Some(rule) => Err(NameError { name: name.to_owned(), rule, suggestion: suggestion(name) }),
    }
}

fn broken_rule(name: &str) -> Option<NameRule> {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let first = name.bytes().next();
    if first.is_none() {
        Some(NameRule::Empty)
    } else if name.len() > MAX_NAME_BYTES {
        Some(NameRule::Length)
    } else if !first.is_some_and(|b| b.is_ascii_lowercase()) || !name.bytes().all(is_part) {
        Some(NameRule::Characters)
    } else if name.contains("__") {
        Some(NameRule::DoubleUnderscore)
    } else if TAKEN.contains(&name) {
        Some(NameRule::Taken)
    } else if name.starts_with("pg_") {
        Some(NameRule::Prefix)
    } else {
        None
    }
}

/// The name in lower case with single underscores for everything that may not stand there, cut to
/// length. Of a name that is mostly foreign characters too little would be left to suggest.
fn suggestion(name: &str) -> Option<String> {
    let mut derived = String::new();
    for character in name.chars().take(MAX_NAME_BYTES) {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_lowercase() || (character.is_ascii_digit() && !derived.is_empty()) {
            derived.push(character);
        } else if !derived.is_empty() && !derived.ends_with('_') {
            derived.push('_');
        }
    }
    let derived = derived.trim_end_matches('_');
    let derived = derived.strip_prefix("pg_").unwrap_or(derived);
    let is_like = derived.len() * 2 >= name.chars().take(MAX_NAME_BYTES).count();
    (is_like && broken_rule(derived).is_none()).then(|| derived.to_owned())
}

fn remedy(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("call it {name:?}"),
        None => "choose another, such as \"orders\" or \"fines_by_month\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass() {
        for name in ["a", "fines", "fines_2", "select", &"a".repeat(40)] {
            assert_eq!(validate_name(name), Ok(()));
        }
    }

    #[test]
    fn bad_names_are_shown_with_their_rule_and_one_that_would_do() {
        let cases = [
            ("", NameRule::Empty, None),
            ("Fines", NameRule::Characters, Some("fines")),
            ("2fines", NameRule::Characters, Some("fines")),
            ("_fines", NameRule::Characters, Some("fines")),
            ("fines by-month.v2", NameRule::Characters, Some("fines_by_month_v2")),
            ("fi\"nes\n", NameRule::Characters, Some("fi_nes")),
            ("💥💥💥", NameRule::Characters, None),
            ("fines__v2", NameRule::DoubleUnderscore, Some("fines_v2")),
            ("public", NameRule::Taken, None),
            ("foldd_bulk", NameRule::Taken, None),
            ("pg_fines", NameRule::Prefix, Some("fines")),
        ];
        for (name, rule, suggestion) in cases {
            let suggestion = suggestion.map(str::to_owned);
            assert_eq!(validate_name(name), Err(NameError { name: name.to_owned(), rule, suggestion }));
        }
    }

    #[test]
    fn a_long_name_is_shortened_in_the_message() {
        let error = validate_name(&"x".repeat(10_000)).expect_err("too long");
        assert_eq!(error.suggestion, Some("x".repeat(40)));
        let message = error.to_string();
        assert!(message.len() < 250, "{message}");
        assert!(
            message.contains("…\" cannot name a projection: it is longer than 40 bytes; call it \"xxx"),
            "{message}"
        );
    }
}
