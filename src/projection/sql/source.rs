//! The text of a compiled projection, while it is written.

use std::fmt::Write;

use super::order::is_indifferent;
use super::{LineMap, Target, Variant, quote_ident, quote_literal};
use crate::projection::definition::{Categories, Definition};
use crate::projection::file::{Entry, OnEntry};

/// A function's source, and the lines that the user's statements have in it.
pub(super) struct Source<'a> {
    text: String,
    lines: LineMap,
    target: &'a Target<'a>,
    categories: &'a Categories,
    variant: Variant,
    /// The schema of the log, quoted.
    store: String,
    /// Whether the statements make the same of a page in any order.
    is_indifferent: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(target: &'a Target<'a>, definition: &'a Definition, variant: Variant) -> Self {
        Self {
            text: String::new(),
            lines: LineMap::default(),
            target,
            categories: &definition.categories,
            variant,
            store: quote_ident(target.store_schema),
            // Functions of other schemas could bear the names of known ones.
            is_indifferent: target.extension_schemas.is_empty() && is_indifferent(definition),
        }
    }

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
    pub(super) fn head(&mut self) {
        let enter = match self.variant {
            Variant::Plain => self.enter("case when _foldd_bulk then 'foldd_bulk' end"),
            Variant::Parking => self.enter("'foldd_parking'"),
            Variant::Scratch => self.enter_scratch(),
        };
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
    _foldd_parked      bigint := 0;
    _foldd_own         bigint;
    _foldd_seen        bigint := 0;
    _foldd_single        bigint;
    _foldd_oldest      timestamptz;
    _foldd_at_event    boolean := false;
    _foldd_begun       boolean := false;
    _foldd_outcome     foldd.es_outcome;
begin
{enter}",
            store = self.store,
        );
    }

    fn only_category(&self) -> Option<&'a str> {
        match self.categories {
            Categories::Listed(names) if names.len() == 1 => names.first().map(String::as_str),
            Categories::Listed(_) | Categories::All => None,
        }
    }

    fn enter(&self, batches: &str) -> String {
        let extensions: Vec<_> =
            self.target.extension_schemas.iter().map(|schema| quote_literal(schema)).collect();
        format!(
            "    perform {store}.es_swear_not_to_append();
    perform set_config('search_path', foldd.es_enter(
        _foldd_subscription, _foldd_fence, _foldd_incarnation, {oid},
        array[{extensions}]::text[], {batches}), true);
",
            store = self.store,
            oid = self.target.schema_oid,
            extensions = extensions.join(", "),
        )
    }

    /// Nobody else knows the tables: there is no fence to check, only the path to set. `batch` is the one of pg_temp.
    fn enter_scratch(&self) -> String {
        let extensions: String =
            self.target.extension_schemas.iter().map(|schema| format!(", {}", quote_ident(schema))).collect();
        format!(
            "    perform {store}.es_swear_not_to_append();
    perform set_config('search_path', quote_ident(n.nspname) || {rest}, true)
    from pg_namespace n where n.oid = {oid};
",
            store = self.store,
            rest = quote_literal(&format!(", pg_temp, foldd{extensions}, pg_catalog")),
            oid = self.target.schema_oid,
        )
    }

    /// Costs nothing until somebody has inserted without es_append, and then a second look at the page. Where events
    /// are parked, es_set_aside does it.
    pub(super) fn guard(&mut self) {
        if self.target.order_guard && self.variant == Variant::Plain {
            let _ = writeln!(
                self.text,
                "    if {store}.es_has_foreign_writes() then
        perform {store}.es_require_stream_order(
            {categories}, _foldd_from_xid, _foldd_from_position, _foldd_max_events, _foldd_horizon, _foldd_max_bytes);
    end if;",
                store = self.store,
                categories = array_literal(self.categories),
            );
        }
    }

    pub(super) fn per_event(&mut self, entries: &[OnEntry]) {
        self.push("    begin");
        match self.variant {
            Variant::Plain => {
                let _ = writeln!(
                    self.text,
                    "        _foldd_begun := true;
        for event in
            select * from {}.{}_foldd_from_xid, _foldd_from_position,
                _foldd_max_events, _foldd_horizon, _foldd_max_bytes)",
                    self.store,
                    reader(self.categories),
                );
            }
            Variant::Parking => {
                self.set_aside(false);
                self.push("        for event in select * from foldd_parking.es_page()");
            }
            Variant::Scratch => {
                self.push(
                    "        _foldd_begun := true;\n        for event in select * from pg_temp.es_page()",
                );
            }
        }
        self.push(
            "        loop
            _foldd_at_event := true;
            case event.event_type",
        );
        for entry in entries {
            let types: Vec<_> = entry.types.iter().map(|kind| quote_literal(&kind.name)).collect();
            self.push(&format!("            when {} then", types.join(", ")));
            self.statement(&entry.body);
            self.push("            _foldd_applied := event.global_position;");
        }
        self.push(
            "            else _foldd_skipped := _foldd_skipped + 1;
            end case;",
        );
        if self.variant == Variant::Parking {
            self.push("            _foldd_seen := _foldd_seen + 1;");
        } else {
            self.push(
                "            if _foldd_scanned = 0 then
                _foldd_oldest := event.created_at;
            end if;
            _foldd_scanned := _foldd_scanned + 1;
            _foldd_xid := event.transaction_id;
            _foldd_position := event.global_position;",
            );
        }
        self.push(
            "        end loop;
        _foldd_at_event := false;",
        );
        self.push(match self.variant {
            Variant::Parking => {
                "        if _foldd_own is null then
            _foldd_own := _foldd_seen;
            _foldd_single := case when _foldd_seen = 1 then event.global_position end;
        end if;"
            }
            Variant::Plain | Variant::Scratch => {
                "        _foldd_single := case when _foldd_scanned = 1 then _foldd_position end;"
            }
        });
        self.end_of_page();
    }

    pub(super) fn per_batch(&mut self, entries: &[Entry]) {
        match self.variant {
            Variant::Plain => self.extent(),
            Variant::Parking => {
                self.push("    begin");
                self.set_aside(true);
                self.push("    if _foldd_own > _foldd_parked then");
            }
            Variant::Scratch => self.push(
                "    _foldd_scanned := _foldd_max_events;
    if _foldd_scanned > 0 then
    begin
        if _foldd_scanned = 1 then
            select page.global_position into _foldd_single from pg_temp.es_page() page;
        end if;
        _foldd_begun := true;",
            ),
        }
        for entry in entries {
            self.statement(entry);
        }
        self.push("        _foldd_applied := _foldd_position;");
        if self.variant == Variant::Parking {
            self.push("    end if;");
        }
        self.end_of_page();
        if self.variant != Variant::Parking {
            self.push("    end if;");
        }
    }

    /// How far a whole page goes, and its bounds for the relation `batch`.
    fn extent(&mut self) {
        let categories = array_literal(self.categories);
        let given = match self.categories {
            Categories::All => "''".to_owned(),
            Categories::Listed(_) => format!("({categories})::text"),
        };
        let _ = write!(
            self.text,
            "    if _foldd_bulk then
        perform foldd.es_make_room(_foldd_max_bytes);
    end if;
    perform set_config('foldd.categories', {given}, true),
            set_config('foldd.category', {category}, true),
            set_config('foldd.after_transaction_id', _foldd_from_xid::text, true),
            set_config('foldd.after_position', _foldd_from_position::text, true),
            set_config('foldd.horizon', _foldd_horizon::text, true),
            set_config('foldd.page_events', '{all}', true);
{rest}    if _foldd_xid is null then
        select page.events, page.oldest, page.transaction_id, page.global_position,
               case when page.events = 1 then page.global_position end
        into _foldd_scanned, _foldd_oldest, _foldd_xid, _foldd_position, _foldd_single
        from {store}.es_reach_after({categories}, _foldd_from_xid, _foldd_from_position,
                                    _foldd_max_events, _foldd_horizon, _foldd_max_bytes) page;
        perform set_config('foldd.page_events', _foldd_scanned::text, true);
    end if;
    if _foldd_scanned > 0 then
    begin
        _foldd_begun := true;
",
            store = self.store,
            category = quote_literal(self.only_category().unwrap_or_default()),
            rest = self.only_category().map_or_else(String::new, |category| self.rest(category)),
            all = i64::MAX,
        );
    }

    /// A page of all that is left of one category, where it may be that.
    fn rest(&self, category: &str) -> String {
        format!(
            "    if _foldd_rest is not null then
        select page.oldest, page.transaction_id, page.global_position into _foldd_oldest, _foldd_xid, _foldd_position
        from {store}.es_rest_after({category}, _foldd_from_xid, _foldd_from_position, _foldd_horizon,
                                   _foldd_rest, _foldd_max_bytes) page;
        if _foldd_xid is not null then
            _foldd_scanned := _foldd_rest;
{unordered}        end if;
    end if;
",
            store = self.store,
            category = quote_literal(category),
            unordered = if self.is_indifferent { self.unordered() } else { String::new() },
        )
    }

    /// Where such a page is most of the log, its statements find it as it lies in the table.
    fn unordered(&self) -> String {
        format!(
            "            perform set_config('foldd.last_transaction_id', _foldd_xid::text, true),
                    set_config('foldd.last_position', _foldd_position::text, true),
                    set_config('search_path', replace(current_setting('search_path'),
                                                      ', foldd_bulk,', ', foldd_unordered,'), true)
            from pg_class where oid = {log}::regclass and reltuples between 1 and _foldd_rest * 2;
",
            log = quote_literal(&format!("{}.es_events", self.store)),
        )
    }

    /// Parks what is to be parked of the page, before anything else of it is applied. Whoever meets the events one by one
    /// counts its own as they come.
    fn set_aside(&mut self, counts_own: bool) {
        let _ = writeln!(
            self.text,
            "        select page.scanned, page.oldest, page.transaction_id, page.global_position, page.parked, page.single, page.own
        into _foldd_scanned, _foldd_oldest, _foldd_xid, _foldd_position, _foldd_parked, _foldd_single, _foldd_own
        from foldd.es_set_aside(
            _foldd_subscription, {}, _foldd_from_xid, _foldd_from_position,
            _foldd_max_events, _foldd_horizon, _foldd_max_bytes, _foldd_care, {counts_own}) page;
        _foldd_begun := true;",
            array_literal(self.categories),
        );
    }

    /// One exception block around the page: it keeps the event at hand, for free. What failed is returned instead of
    /// raised; nothing of the page is left and the checkpoint stays. `others` alone would let assertions through. Past
    /// the loop it is a deferred constraint that failed, which cannot say for which event unless there is one.
    fn end_of_page(&mut self) {
        self.push("        set constraints all immediate;");
        if self.variant == Variant::Parking {
            self.push(
                "        _foldd_outcome.quarantined := foldd.es_set_right(
            _foldd_subscription, _foldd_care, _foldd_scanned);",
            );
        }
        self.push(
            "    exception when others or assert_failure then
        if not _foldd_begun then
            raise;
        end if;
        get stacked diagnostics
            _foldd_outcome.sqlstate = returned_sqlstate, _foldd_outcome.message = message_text,
            _foldd_outcome.detail = pg_exception_detail, _foldd_outcome.hint = pg_exception_hint,
            _foldd_outcome.context = pg_exception_context;
        _foldd_outcome.scanned := _foldd_scanned;
        _foldd_outcome.failed_position := case when _foldd_at_event then event.global_position else _foldd_single end;
        return _foldd_outcome;
    end;",
        );
    }

    /// The checkpoint, and what came of the page.
    pub(super) fn finish(mut self) -> (String, LineMap) {
        if self.variant != Variant::Scratch {
            let _ = write!(
                self.text,
                "    if _foldd_scanned > 0 then
        perform {store}.es_advance(
            _foldd_subscription, _foldd_fence, _foldd_from_xid, _foldd_from_position,
            _foldd_xid, _foldd_position, _foldd_applied, coalesce(_foldd_own, _foldd_scanned));
    end if;
",
                store = self.store,
            );
        }
        self.text.push_str(
            "    _foldd_outcome.scanned := _foldd_scanned;
    _foldd_outcome.skipped := _foldd_skipped;
    _foldd_outcome.parked := _foldd_parked;
    _foldd_outcome.own := coalesce(_foldd_own, _foldd_scanned);
    _foldd_outcome.transaction_id := _foldd_xid;
    _foldd_outcome.global_position := _foldd_position;
    _foldd_outcome.oldest_seconds := extract(epoch from clock_timestamp() - _foldd_oldest);
    return _foldd_outcome;
end
",
        );
        (self.text, self.lines)
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

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
