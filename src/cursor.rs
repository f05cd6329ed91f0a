//! A place in the log: stamp first, then position.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place in the log, between the event it names and the next one.
///
/// Ordered as the log is read: by stamp (`transaction_id`), then by global position. Comparing positions alone
/// is wrong, since a position is drawn before its transaction commits. Printed and parsed as
/// `transaction_id:position`, for example `7421:561470`.
///
/// ```
/// use foldd::Cursor;
///
/// let cursor: Cursor = "7421:561470".parse()?;
/// assert_eq!(cursor, Cursor::from((7421, 561_470)));
/// assert!(cursor > Cursor::from((7420, 999_999)), "the stamp decides first");
/// # Ok::<(), foldd::CursorParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// The stamp of the event this cursor stands behind.
    pub transaction_id: u64,
    /// Its global position.
    pub global_position: i64,
}

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self { transaction_id: 0, global_position: 0 };
}

impl From<(u64, i64)> for Cursor {
    fn from((transaction_id, global_position): (u64, i64)) -> Self {
        Self { transaction_id, global_position }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transaction_id, self.global_position)
    }
}

/// Why a text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a cursor: expected transaction_id:position, such as 7421:561470")]
pub struct CursorParseError(String);

impl FromStr for Cursor {
    type Err = CursorParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(transaction_id, position)| {
            Some(Self {
                transaction_id: transaction_id.parse().ok()?,
                global_position: position.parse().ok()?,
            })
        });
        parsed
            .filter(|cursor| cursor.global_position >= 0)
            .ok_or_else(|| CursorParseError(text.chars().take(60).collect()))
    }
}

/// The JSON form keeps the stamp a string: it is 64 bits wide, and JavaScript's numbers are not.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Cursor")]
struct CursorJson {
    transaction_id: String,
    position: i64,
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CursorJson { transaction_id: self.transaction_id.to_string(), position: self.global_position }
            .serialize(serializer)
    }
}

impl JsonSchema for Cursor {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        CursorJson::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        CursorJson::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = CursorJson::deserialize(deserializer)?;
        format!("{}:{}", json.transaction_id, json.position).parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Cursor;

    #[test]
    fn a_cursor_orders_by_stamp_before_position() {
        assert!(Cursor::from((2, 1)) > Cursor::from((1, 99)));
        assert!(Cursor::from((2, 2)) > Cursor::from((2, 1)));
    }

    #[test]
    fn a_cursor_prints_as_it_parses() {
        let cursor = Cursor::from((u64::MAX, i64::MAX));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn what_is_no_cursor_is_refused_with_its_value() {
        for text in ["", ":", "7", "7:", ":7", "-1:7", "7:-1", "7:7:7", "x:y", "18446744073709551616:0"] {
            let error = text.parse::<Cursor>().expect_err(text);
            assert!(error.to_string().contains(&format!("'{text}'")), "{error}");
        }
    }

    /// Places that are near each other as well as far apart.
    fn cursors() -> impl Strategy<Value = Cursor> {
        let stamp = prop_oneof![0..4_u64, any::<u64>()];
        let position = prop_oneof![0..4_i64, 0..=i64::MAX];
        (stamp, position).prop_map(Cursor::from)
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_stamp_and_position(mut cursors in proptest::collection::vec(cursors(), 0..20)) {
            let mut pairs: Vec<_> =
                cursors.iter().map(|cursor| (cursor.transaction_id, cursor.global_position)).collect();
            cursors.sort();
            pairs.sort_unstable();
            prop_assert!(cursors.iter().all(|cursor| *cursor >= Cursor::START));
            prop_assert_eq!(cursors, pairs.into_iter().map(Cursor::from).collect::<Vec<_>>());
        }

        #[test]
        fn printed_and_parsed_it_is_the_same(cursor in cursors()) {
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            let json = serde_json::to_string(&cursor).expect("it is JSON");
            prop_assert_eq!(serde_json::from_str::<Cursor>(&json).expect("it is a cursor"), cursor);
        }

        #[test]
        fn what_parses_prints_to_the_same_place(text in "[0-9+-]{0,20}:[0-9+-]{0,19}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert!(cursor.global_position >= 0);
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
    }
}
