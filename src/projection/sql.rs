//! Compiles a definition into one PL/pgSQL function: read the page, apply it, move the checkpoint.
//!
//! The user's statements stand in it unmodified. All names of foldd's own begin with `_foldd_`, apart from `event` and
//! `batch`, and a column always wins over a variable, so that no column name can clash.

use std::fmt::Write;

use super::definition::{Body, Categories, Definition};
use super::file::{Entry, OnEntry};

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

/// The function's call, with its nine arguments bound in this order: subscription, fence token, incarnation, cursor
/// (stamp, position), horizon, most events, most bytes, whether the page is large.
pub(crate) fn call(projection_id: &str) -> String {
    format!(
        "select scanned, skipped, transaction_id::text::bigint, global_position, oldest_seconds, failed_position, \
         sqlstate, message, detail, hint, context \
         from foldd.{}($1, $2, $3, $4::xid8, $5, $6::xid8, $7, $8, $9)",
        quote_ident(projection_id)
    )
}

/// Compiles a definition with SQL handlers; `None` for one whose handler is Rust.
pub(crate) fn compile(definition: &Definition, target: &Target<'_>) -> Option<Compiled> {
    let mut source = Source::default();
    source.head(target);
    source.guard(&definition.categories, target);
    let settings = match &definition.body {
        Body::PerEvent(entries) => {
            source.per_event(entries, &definition.categories, target);
            // A plan made while the tables were empty would scan them for ever. Where a scan is the only way, the
            // planner takes it for enormously expensive; compiling it each time would be.
            "set enable_seqscan = off set jit = off"
        }
        Body::PerBatch(entries) => {
            source.per_batch(entries, &definition.categories, target);
            // Tables and pages change their size by orders of magnitude: plan each batch anew.
            "set plan_cache_mode = force_custom_plan"
        }
        Body::Rust => return None,
    };
    source.tail(target);
    let Source { text, lines } = source;
    let quote = dollar_quote(&text);
    let name = quote_ident(target.projection_id);
    let ddl = format!(
        "create or replace function foldd.{name}(\n    \
         _foldd_subscription text, _foldd_fence bigint, _foldd_incarnation uuid,\n    \
         _foldd_from_xid xid8, _foldd_from_position bigint, _foldd_horizon xid8,\n    \
         _foldd_max_events bigint, _foldd_max_bytes bigint, _foldd_bulk boolean) returns foldd.es_outcome\n\
         language plpgsql volatile\nset search_path = pg_catalog\n{settings}\nas {quote}{text}{quote}"
    );
    Some(Compiled { ddl, source: text, lines })
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

/// A function's source while it is written, and the lines that the user's statements have in it.
#[derive(Default)]
struct Source {
    text: String,
    lines: LineMap,
}

impl Source {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A statement of the user's, on lines of its own: it may end in a comment.
    fn statement(&mut self, entry: &Entry) {
        let line = 1 + self.text.matches('\n').count();
        let lines = 1 + entry.sql.matches('\n').count();
        self.lines.spans.push((line_number(line), entry.line, line_number(lines)));
        self.push(&entry.sql);
        self.push(";");
    }

    /// Fence first; then, in a later statement, where the tables are.
    fn head(&mut self, target: &Target<'_>) {
        let store = quote_ident(target.store_schema);
        let extensions: Vec<_> =
            target.extension_schemas.iter().map(|schema| quote_literal(schema)).collect();
        let _ = write!(
            self.text,
            "
#variable_conflict use_column
declare
    event              {store}.es_events;
    _foldd_xid         xid8;
    _foldd_position    bigint;
    _foldd_applied     bigint := 0;
    _foldd_scanned     bigint := 0;
    _foldd_skipped     bigint := 0;
    _foldd_oldest      timestamptz;
    _foldd_at_event    boolean := false;
    _foldd_outcome     foldd.es_outcome;
begin
    perform set_config('search_path', foldd.es_enter(
        _foldd_subscription, _foldd_fence, _foldd_incarnation, {oid},
        array[{extensions}]::text[], _foldd_bulk), true);
",
            oid = target.schema_oid,
            extensions = extensions.join(", "),
        );
    }

    /// Costs nothing until somebody has inserted without es_append, and then a second look at the page.
    fn guard(&mut self, categories: &Categories, target: &Target<'_>) {
        if target.order_guard {
            let store = quote_ident(target.store_schema);
            let categories = array_literal(categories);
            let _ = writeln!(
                self.text,
                "    if {store}.es_has_foreign_writes() then
        perform {store}.es_require_stream_order(
            {categories}, _foldd_from_xid, _foldd_from_position, _foldd_max_events, _foldd_horizon, _foldd_max_bytes);
    end if;"
            );
        }
    }

    fn per_event(&mut self, entries: &[OnEntry], categories: &Categories, target: &Target<'_>) {
        let store = quote_ident(target.store_schema);
        let _ = write!(
            self.text,
            "    begin
        for event in
            select * from {store}.{reader}_foldd_from_xid, _foldd_from_position,
                _foldd_max_events, _foldd_horizon, _foldd_max_bytes)
        loop
            _foldd_at_event := true;
            case event.event_type
",
            reader = reader(categories),
        );
        for entry in entries {
            let types: Vec<_> = entry.types.iter().map(|kind| quote_literal(&kind.name)).collect();
            self.push(&format!("            when {} then", types.join(", ")));
            self.statement(&entry.body);
            self.push("            _foldd_applied := event.global_position;");
        }
        self.push(
            "            else _foldd_skipped := _foldd_skipped + 1;
            end case;
            if _foldd_scanned = 0 then
                _foldd_oldest := event.created_at;
            end if;
            _foldd_scanned := _foldd_scanned + 1;
            _foldd_xid := event.transaction_id;
            _foldd_position := event.global_position;
        end loop;
        _foldd_at_event := false;
        set constraints all immediate;",
        );
        // Past the loop it is a deferred constraint that failed, which cannot say for which event unless there is one.
        self.on_failure(
            "case when _foldd_at_event then event.global_position when _foldd_scanned = 1 then _foldd_position end",
        );
    }

    fn per_batch(&mut self, entries: &[Entry], categories: &Categories, target: &Target<'_>) {
        let store = quote_ident(target.store_schema);
        let given = match categories {
            Categories::All => "''".to_owned(),
            Categories::Listed(_) => format!("({})::text", array_literal(categories)),
        };
        let _ = write!(
            self.text,
            "    perform set_config('foldd.categories', {given}, true),
            set_config('foldd.after_transaction_id', _foldd_from_xid::text, true),
            set_config('foldd.after_position', _foldd_from_position::text, true),
            set_config('foldd.horizon', _foldd_horizon::text, true);
    select page.events, page.oldest, page.transaction_id, page.global_position
    into _foldd_scanned, _foldd_oldest, _foldd_xid, _foldd_position
    from {store}.es_extent_after({categories}, _foldd_from_xid, _foldd_from_position,
                                 _foldd_max_events, _foldd_horizon, _foldd_max_bytes) page;
    if _foldd_scanned > 0 then
    begin
        perform set_config('foldd.page_events', _foldd_scanned::text, true);
",
            categories = array_literal(categories),
        );
        for entry in entries {
            self.statement(entry);
        }
        self.push(
            "        _foldd_applied := _foldd_position;
        set constraints all immediate;",
        );
        self.on_failure("case when _foldd_scanned = 1 then _foldd_position end");
        self.push("    end if;");
    }

    /// One exception block around the page: it keeps the event at hand, for free. What failed is returned instead of
    /// raised; nothing of the page is left and the checkpoint stays. `others` alone would let assertions through.
    fn on_failure(&mut self, failed_position: &str) {
        let _ = write!(
            self.text,
            "    exception when others or assert_failure then
        get stacked diagnostics
            _foldd_outcome.sqlstate = returned_sqlstate, _foldd_outcome.message = message_text,
            _foldd_outcome.detail = pg_exception_detail, _foldd_outcome.hint = pg_exception_hint,
            _foldd_outcome.context = pg_exception_context;
        _foldd_outcome.scanned := _foldd_scanned;
        _foldd_outcome.failed_position := {failed_position};
        return _foldd_outcome;
    end;
"
        );
    }

    fn tail(&mut self, target: &Target<'_>) {
        let store = quote_ident(target.store_schema);
        let _ = write!(
            self.text,
            "    if _foldd_scanned > 0 then
        perform {store}.es_advance(
            _foldd_subscription, _foldd_fence, _foldd_from_xid, _foldd_from_position,
            _foldd_xid, _foldd_position, _foldd_applied);
    end if;
    _foldd_outcome.scanned := _foldd_scanned;
    _foldd_outcome.skipped := _foldd_skipped;
    _foldd_outcome.transaction_id := _foldd_xid;
    _foldd_outcome.global_position := _foldd_position;
    _foldd_outcome.oldest_seconds := extract(epoch from clock_timestamp() - _foldd_oldest);
    return _foldd_outcome;
end
"
        );
    }
}

/// The page reader of these categories, and the beginning of its arguments. The one for any categories would
/// pass every event on once more.
fn reader(categories: &Categories) -> String {
    match categories {
        Categories::All => "es_read_all_after(".to_owned(),
        Categories::Listed(names) => match names.as_slice() {
            [one] => format!("es_read_category_after({}, ", quote_literal(one)),
            _ => format!("es_read_category_after({}, ", array_literal(categories)),
        },
    }
}

/// `array['a', 'b']::text[]`, or null for all categories.
fn array_literal(categories: &Categories) -> String {
    match categories {
        Categories::All => "null::text[]".to_owned(),
        Categories::Listed(names) => {
            let names: Vec<_> = names.iter().map(|name| quote_literal(name)).collect();
            format!("array[{}]::text[]", names.join(", "))
        }
    }
}

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

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Target, compile, quote_ident, quote_literal};
    use crate::projection::definition::Definition;
    use crate::projection::file::ProjectionFile;

    const FILE: &str = "/* foldd\nversion = 1\ncategories = [\"fine\"]\n*/\n-- @tables\ncreate table t (n int);\n\
                        -- @on A's\n-- @on B\ninsert into t\nvalues (1);\n-- @on C\ndelete from t; -- all of $foldd$\n";

    fn compiled(text: &str) -> super::Compiled {
        let file = ProjectionFile::parse("t", "t.sql", text).expect("the file is right");
        let definition = Definition::of_file(&file, &file.settings).expect("it names categories");
        let target = Target {
            projection_id: "t@1",
            schema_oid: 7,
            store_schema: "public",
            extension_schemas: &[],
            order_guard: true,
        };
        compile(&definition, &target).expect("it is SQL")
    }

    #[test]
    fn each_line_of_a_statement_knows_its_line_in_the_file() {
        let compiled = compiled(FILE);
        for (wanted, file_line) in [("insert into t", 9), ("values (1)", 10), ("delete from t", 12)] {
            let line = 1 + compiled.source.lines().position(|line| line.starts_with(wanted)).expect(wanted);
            assert_eq!(
                compiled.lines.file_line(u32::try_from(line).expect("small")),
                Some(file_line),
                "{wanted}"
            );
        }
        assert_eq!(compiled.lines.file_line(1), None);
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert!(compiled(FILE).source.contains("when 'A''s', 'B' then"));
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("a'\\b"), "E'a''\\\\b'");
    }
}
