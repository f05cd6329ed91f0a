//! What makes a line the same line when an import is run again: an id that says import, line number and content.
//!
//! It is a UUID of version 8. From the left: 48 bits of the import's name, 42 bits of the line number, 32 bits of the
//! content; names and contents as SHA-1. So the ids of one import lie side by side in the index, in the order of their
//! lines: the database inserts them at one place, finds the last one with one look-up, and those of a block in one
//! short walk. A line that changed since keeps its place and shows by its last 32 bits.

use std::ops::RangeInclusive;

use uuid::{Builder, Uuid};

const LINE_BITS: u32 = 42;
const CONTENT_BITS: u32 = 32;
/// Of line and content, in the upper part beside the version's four bits.
const UPPER_BITS: u32 = 12;
const LOWER_BITS: u32 = LINE_BITS + CONTENT_BITS - UPPER_BITS;

/// The name of an import, as its ids carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImportName([u8; 6]);

impl ImportName {
    /// The name that a person gave, or a file has.
    pub(crate) fn of(name: &str) -> Self {
        let mut digest = [0; 6];
        digest.copy_from_slice(&sha1(name.as_bytes())[..6]);
        Self(digest)
    }

    /// The name in an id that [`id`](Self::id) made.
    pub(crate) fn in_id(id: Uuid) -> Self {
        let mut name = [0; 6];
        name.copy_from_slice(&id.as_bytes()[..6]);
        Self(name)
    }

    /// The id of a line; `category` is what the command line gives to events without one.
    pub(crate) fn id(self, line: u64, category: Option<&str>, content: &[u8]) -> Uuid {
        let digest = match category {
            None => sha1(content),
            Some(category) => sha1(&[category.as_bytes(), b"\n", content].concat()),
        };
        let [a, b, c, d, ..] = digest;
        self.place(line, u32::from_be_bytes([a, b, c, d]))
    }

    /// The ids of these lines, whatever is in them.
    pub(crate) fn range(self, lines: RangeInclusive<u64>) -> RangeInclusive<Uuid> {
        self.place(*lines.start(), 0)..=self.place(*lines.end(), u32::MAX)
    }

    /// The ids of all lines.
    pub(crate) fn everything(self) -> RangeInclusive<Uuid> {
        self.range(0..=(1 << LINE_BITS) - 1)
    }

    fn place(self, line: u64, content: u32) -> Uuid {
        let number = (u128::from(line) << CONTENT_BITS) | u128::from(content);
        let upper = (number >> LOWER_BITS) & ((1 << UPPER_BITS) - 1);
        let lower = number & ((1 << LOWER_BITS) - 1);
        let mut bytes = ((upper << 64) | lower).to_be_bytes();
        bytes[..6].copy_from_slice(&self.0);
        // Sets version and variant, which the layout leaves out.
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// The line number in an id that [`ImportName::id`] made.
pub(crate) fn line_of(id: Uuid) -> u64 {
    let number = id.as_u128();
    let upper = (number >> 64) & ((1 << UPPER_BITS) - 1);
    let lower = number & ((1 << LOWER_BITS) - 1);
    u64::try_from(((upper << LOWER_BITS) | lower) >> CONTENT_BITS).unwrap_or_default()
}

/// By way of version 5, which is SHA-1 with four bits and then two overwritten behind the first six bytes.
fn sha1(content: &[u8]) -> [u8; 16] {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, content).into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ImportName, line_of};

    proptest! {
        #[test]
        fn ids_are_ordered_as_lines_and_tell_their_line(
            line in 1_u64..1 << 41, more in 1_u64..1 << 40, content: Vec<u8>, other: Vec<u8>
        ) {
            let name = ImportName::of("events");
            let (first, second) = (name.id(line, None, &content), name.id(line + more, None, &other));
            prop_assert!(first < second);
            prop_assert_eq!(line_of(first), line);
            prop_assert_eq!(line_of(second), line + more);
            prop_assert_eq!(ImportName::in_id(first), name);
            prop_assert!(name.range(line..=line).contains(&first) && !name.range(line..=line).contains(&second));
            prop_assert!(name.everything().contains(&second));
            prop_assert_eq!(first.get_version_num(), 8);
        }
    }

    #[test]
    fn name_line_content_and_category_each_make_another_id() {
        let id =
            |name, line, category, content: &str| ImportName::of(name).id(line, category, content.as_bytes());
        let one = id("a", 1, None, "x");
        assert_eq!(one, id("a", 1, None, "x"));
        for other in
            [id("b", 1, None, "x"), id("a", 2, None, "x"), id("a", 1, None, "y"), id("a", 1, Some("c"), "x")]
        {
            assert_ne!(one, other);
        }
    }
}
