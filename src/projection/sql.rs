//! Compiles a definition into PL/pgSQL: read the page, apply it, move the checkpoint.
//!
//! Twice: as the function that runs while nothing is parked, and as the one that passes parked events by or retries
//! them (`migrations/0011_dead_letters.sql`); and a third time, for a copy aside, without lease and checkpoint
//! (`engine/scratch`). The user's statements stand in all of them unmodified. All names of foldd's own
//! begin with `_foldd_`, apart from `event` and `batch`, and a column always wins over a variable, so that no column
//! name can clash.

mod order;
mod source;

use source::Source;

use super::definition::{Body, Definition};
use super::file::Entry;

/// What a compilation needs beside the definition.
#[derive(Debug, Clone)]
pub(crate) struct Target<'a> {
    /// `fines@1`: names the function.
    pub(crate) projection_id: &'a str,
    /// The schema of the tables, by OID, so that renaming it is harmless.
    pub(crate) schema_oid: u32,
    /// The schema of the log's tables and functions.
    pub(crate) store_schema: &'a str,
    /// Schemas that handlers see beside their own.
    pub(crate) extension_schemas: &'a [String],
    /// Whether to halt where a stream's versions do not follow one another.
    pub(crate) order_guard: bool,
}

/// Which of a definition's two functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Every event of the page is applied.
    Plain,
    /// Parked events are passed by, or retried.
    Parking,
    /// The page is whatever `pg_temp.es_page` returns, and there is no checkpoint: for a copy aside.
    Scratch,
}

impl Variant {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Parking, Self::Scratch];

    /// The schema that its functions live in.
    pub(crate) fn schema(self) -> &'static str {
        match self {
            Self::Plain => "foldd",
            Self::Parking => "foldd_parking",
            Self::Scratch => "pg_temp",
        }
    }
}

/// A compiled definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// `create or replace function …`.
    pub(crate) ddl: String,
    /// What stands between the dollar quotes: compared with what the database has.
    pub(crate) source: String,
    /// Which line of the source begins which line of the file.
    pub(crate) lines: LineMap,
}

/// From lines of a function's source to lines of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LineMap {
    /// (first line in the source, first line in the file, number of lines)
    spans: Vec<(u32, u32, u32)>,
}

impl LineMap {
    /// The file's line for a line of the source, if it belongs to a statement of the user's.
    pub(crate) fn file_line(&self, source_line: u32) -> Option<u32> {
        self.spans.iter().find_map(|(source, file, lines)| {
            let into = source_line.checked_sub(*source)?;
            (into < *lines).then(|| file + into)
        })
    }
}

/// The function's call, with its eleven arguments bound in this order: subscription, fence token, incarnation, cursor
/// (stamp, position), horizon, most events, most bytes, whether the page is large, how many events are left where it is to
/// have them all, and what is to be parked or retried.
/// [`Variant::Scratch`] takes one: how many events the page has.
pub(crate) fn call(projection_id: &str, variant: Variant) -> String {
    let arguments = match variant {
        Variant::Plain | Variant::Parking => "$1, $2, $3, $4::xid8, $5, $6::xid8, $7, $8, $9, $10, $11",
        Variant::Scratch => "$1",
    };
    format!(
        "select scanned, skipped, transaction_id::text::bigint as stamp, global_position, oldest_seconds, \
         failed_position, sqlstate, message, detail, hint, context, coalesce(parked, 0) as parked, \
         coalesce(own, 0) as own, \
         coalesce(quarantined, false) as quarantined \
         from {}.{}({arguments})",
        variant.schema(),
        quote_ident(projection_id)
    )
}

/// Compiles one variant of a definition with SQL handlers; `None` for one whose handler is Rust.
pub(crate) fn compile(definition: &Definition, target: &Target<'_>, variant: Variant) -> Option<Compiled> {
    let mut source = Source::new(target, definition, variant);
    source.head();
    source.guard();
    let settings = match &definition.body {
        Body::PerEvent(entries) => {
            source.per_event(entries);
            // A plan made while the tables were empty would scan them for ever. Where a scan is the only way, the
            // planner takes it for enormously expensive; compiling it each time would be.
            "set enable_seqscan = off set jit = off"
        }
        Body::PerBatch(entries) => {
            source.per_batch(entries);
            // Tables and pages change their size by orders of magnitude: plan each batch anew. No batch lasts long enough
            // to be worth compiling each time.
            "set plan_cache_mode = force_custom_plan set jit = off"
        }
        Body::Rust => return None,
    };
    let (source, lines) = source.finish();
    let quote = dollar_quote(&source);
    let (schema, name) = (variant.schema(), quote_ident(target.projection_id));
    let parameters = match variant {
        Variant::Plain | Variant::Parking => {
            "_foldd_subscription text, _foldd_fence bigint, _foldd_incarnation uuid,\n    \
             _foldd_from_xid xid8, _foldd_from_position bigint, _foldd_horizon xid8,\n    \
             _foldd_max_events bigint, _foldd_max_bytes bigint, _foldd_bulk boolean, _foldd_rest bigint, _foldd_care jsonb"
        }
        Variant::Scratch => "_foldd_max_events bigint",
    };
    let ddl = format!(
        "create or replace function {schema}.{name}(\n    {parameters})\n    \
         returns foldd.es_outcome\n\
         language plpgsql volatile\nset search_path = pg_catalog\n{settings}\nas {quote}{source}{quote}"
    );
    Some(Compiled { ddl, source, lines })
}

/// A function that returns the plan of one statement, in exactly the surroundings in which it will run.
///
/// `EXPLAIN` inside PL/pgSQL resolves variables as the statement itself would, plans it, and runs nothing.
pub(crate) fn explainer(name: &str, entry: &Entry, per_event: bool, store_schema: &str) -> String {
    let event = if per_event {
        format!("    event {}.es_events;\n", quote_ident(store_schema))
    } else {
        String::new()
    };
    let text = format!(
        "\n#variable_conflict use_column\ndeclare\n{event}    _foldd_plan json;\nbegin\n    \
         for _foldd_plan in {EXPLAIN}{}\n    loop\n        return next _foldd_plan;\n    end loop;\nend\n",
        entry.sql
    );
    let quote = dollar_quote(&text);
    format!("create function {name}() returns setof json language plpgsql as {quote}{text}{quote}")
}

/// What stands before the user's statement in an [`explainer`]: error positions count from its first character.
pub(crate) const EXPLAIN: &str = "explain (verbose, format json) ";

/// A name as SQL text, always quoted.
pub(crate) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL text, safe under either setting of `standard_conforming_strings`.
pub(crate) fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A dollar quote that does not occur in the text.
fn dollar_quote(text: &str) -> String {
    let mut tag = "$foldd$".to_owned();
    for number in 1.. {
        if !text.contains(&tag) {
            break;
        }
        tag = format!("$foldd{number}$");
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::{Target, Variant, compile, quote_ident, quote_literal};
    use crate::projection::definition::Definition;
    use crate::projection::file::ProjectionFile;

    const FILE: &str = "/* foldd\nversion = 1\ncategories = [\"fine\"]\n*/\n-- @tables\ncreate table t (n int);\n\
                        -- @on A's\n-- @on B\ninsert into t\nvalues (1);\n-- @on C\ndelete from t; -- all of $foldd$\n";

    fn compiled(text: &str, variant: Variant) -> super::Compiled {
        let file = ProjectionFile::parse("t", "t.sql", text).expect("the file is right");
        let definition = Definition::of_file(&file, &file.settings).expect("it names categories");
        let target = Target {
            projection_id: "t@1",
            schema_oid: 7,
            store_schema: "public",
            extension_schemas: &[],
            order_guard: true,
        };
        compile(&definition, &target, variant).expect("it is SQL")
    }

    #[test]
    fn each_line_of_a_statement_knows_its_line_in_the_file() {
        for variant in Variant::ALL {
            let compiled = compiled(FILE, variant);
            for (wanted, file_line) in [("insert into t", 9), ("values (1)", 10), ("delete from t", 12)] {
                let line =
                    1 + compiled.source.lines().position(|line| line.starts_with(wanted)).expect(wanted);
                assert_eq!(
                    compiled.lines.file_line(u32::try_from(line).expect("small")),
                    Some(file_line),
                    "{wanted}, {variant:?}"
                );
            }
            assert_eq!(compiled.lines.file_line(1), None);
        }
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert!(compiled(FILE, Variant::Plain).source.contains("when 'A''s', 'B' then"));
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("a'\\b"), "E'a''\\\\b'");
    }
}
