//! Which statements cannot tell in what order they meet the events of a page.
//!
//! A sum is the same in any order, and so is every row of `insert … select … from batch … group by …` that is made of sums,
//! counts, least and greatest values of types whose equal values look the same. Such statements may have the page of all
//! that is left as it lies in the table, which is read faster than an index in the order of the log. What is not known to be
//! indifferent is taken to depend on the order: any word, function, type or operator that is not listed here.

use crate::projection::definition::{Body, Definition};
use crate::projection::lexer::{Token, TokenKind, significant, split_tokens, tokens};

/// The columns of `batch`, apart from the two that are JSON.
const COLUMNS: &str =
    "global_position stream_id stream_category stream_version event_type transaction_id event_id created_at";
/// Equal JSON values may look different (`1.0` and `1.00`), so a group or a greatest value could be either: only texts taken out
/// of them count.
const JSON: &str = "data metadata";
const KEYWORDS: &str = "as from where group by having filter distinct case when then else end and or not is in between like null true false";
/// Aggregates that come to the same whatever was first, of numbers with a scale and of spans of time as well.
const SUMS: &str = "sum avg count";
/// Aggregates that are one of their values, and so do where equal values look the same.
const CHOICES: &str = "min max bool_and bool_or every";
const FUNCTIONS: &str =
    "coalesce nullif greatest least lower upper length left right btrim split_part date_trunc md5";
/// Types whose equal values look the same.
const EXACT: &str =
    "bigint int8 int integer int4 smallint int2 text boolean bool date timestamp timestamptz uuid";
/// Words in which a moment may end.
const MOMENTS: &str = "created_at date timestamp timestamptz end";
/// Types whose equal values may look different: harmless inside a sum.
const SCALED: &str = "numeric decimal interval";
const OPERATORS: &str = "+ * / % || = <> != < > <= >= ->> #>> ~ !~";
/// What a projection may create that could take the place of something listed here.
const REDEFINING: &str = "function aggregate operator type domain";

/// Whether each statement of a definition makes the same rows in whatever order it meets the events of a page.
pub(super) fn is_indifferent(definition: &Definition) -> bool {
    let Body::PerBatch(entries) = &definition.body else { return false };
    let tables = definition.tables.as_ref().map_or("", |tables| tables.sql.as_str());
    !redefines(tables) && entries.iter().all(|entry| is_indifferent_statement(&entry.sql))
}

fn redefines(tables: &str) -> bool {
    let Ok(tokens) = tokens(tables) else { return true };
    let Ok(statements) = split_tokens(&tokens) else { return true };
    let redefines = |word: &Token<'_>| word.kind == TokenKind::Word && is_listed(REDEFINING, word.text);
    statements.into_iter().any(|statement| significant(statement).iter().take(4).any(redefines))
}

/// `insert into … select … from batch [where …] [group by …]`, added up, and all of it of listed words. What follows
/// `on conflict` has the rows that came of it, and no events unless it asks for them.
fn is_indifferent_statement(sql: &str) -> bool {
    let Ok(tokens) = tokens(sql) else { return false };
    let tokens = significant(&tokens);
    let [first, second, ..] = tokens.as_slice() else { return false };
    let Some(select) = tokens.iter().position(|token| token.is_word("select")) else { return false };
    if !first.is_word("insert") || !second.is_word("into") || tokens[select - 1].is_symbol("(") {
        return false;
    }
    let conflict = tokens.windows(2).position(|pair| pair[0].is_word("on") && pair[1].is_word("conflict"));
    let (before, conflict) = tokens.split_at(conflict.unwrap_or(tokens.len()));
    let query = before.get(select + 1..).unwrap_or_default();
    !conflict.iter().any(|token| token.is_word("batch"))
        && Query { tokens: query, open: Vec::new(), closed: "", has_source: false, adds_up: false }.admitted()
}

/// A query while it is read from left to right.
struct Query<'t, 'a> {
    tokens: &'t [Token<'a>],
    /// What each open parenthesis belongs to: a function's name, or nothing that counts.
    open: Vec<&'a str>,
    /// What the last closed one belonged to.
    closed: &'a str,
    has_source: bool,
    /// Whether its rows are groups of events, or one row is made of all.
    adds_up: bool,
}

impl<'a> Query<'_, 'a> {
    /// Whether all of it comes to the same in any order.
    fn admitted(mut self) -> bool {
        (0..self.tokens.len()).all(|at| self.admits(at))
            && self.has_source
            && self.adds_up
            && self.open.is_empty()
    }

    fn at(&self, at: usize) -> Option<&Token<'a>> {
        self.tokens.get(at)
    }

    fn is_symbol(&self, at: usize, symbol: &str) -> bool {
        self.at(at).is_some_and(|token| token.is_symbol(symbol))
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        self.at(at).is_some_and(|token| token.is_word(word))
    }

    fn is_operator(&self, at: usize, operators: &[&str]) -> bool {
        self.at(at).is_some_and(|token| token.kind == TokenKind::Operator && operators.contains(&token.text))
    }

    fn follows_word(&self, at: usize, word: &str) -> bool {
        at > 0 && self.is_word(at - 1, word)
    }

    fn is_in_a_sum(&self) -> bool {
        self.open.iter().any(|function| is_listed(SUMS, function))
    }

    fn admits(&mut self, at: usize) -> bool {
        let token = self.tokens[at];
        if self.follows_word(at, "as") {
            return self.open.is_empty() && matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
        }
        match token.kind {
            TokenKind::Text => token.text.starts_with(['\'', 'e', 'E']) && !self.may_become_a_float(at),
            TokenKind::Number => {
                token.text.len() < 10 && token.text.bytes().all(|b| b.is_ascii_digit()) || self.is_in_a_sum()
            }
            TokenKind::Operator => self.admits_operator(at),
            TokenKind::Symbol => self.admits_symbol(at),
            TokenKind::Word => self.admits_word(at),
            TokenKind::Whitespace
            | TokenKind::LineComment
            | TokenKind::BlockComment
            | TokenKind::DollarText
            | TokenKind::QuotedName
            | TokenKind::Parameter
            | TokenKind::Semicolon => false,
        }
    }

    fn admits_operator(&self, at: usize) -> bool {
        match self.tokens[at].text {
            "->" => self.ends_in_text(at),
            "-" => self.is_in_a_sum() || at == 0 || !self.may_end_a_time(at - 1),
            operator => is_listed(OPERATORS, operator),
        }
    }

    /// A bare text behind a sign, also in parentheses, is taken for a floating point number.
    fn may_become_a_float(&self, at: usize) -> bool {
        let is_bare = self.open.last().is_some_and(|owner| owner.is_empty());
        at > 0
            && (self.is_operator(at - 1, &["+", "-", "*", "/", "%"])
                || is_bare && self.is_symbol(at - 1, "("))
    }

    /// One time less another is a span of time.
    fn may_end_a_time(&self, at: usize) -> bool {
        let token = self.tokens[at];
        token.kind == TokenKind::Text
            || token.kind == TokenKind::Word && is_listed(MOMENTS, token.text)
            || token.is_symbol(")") && !is_listed(SUMS, self.closed)
    }

    /// `-> 'a'` must go on until a text is taken out.
    fn ends_in_text(&self, at: usize) -> bool {
        let is_key =
            self.at(at + 1).is_some_and(|key| matches!(key.kind, TokenKind::Text | TokenKind::Number));
        is_key && self.is_operator(at + 2, &["->", "->>", "#>>"])
    }

    fn admits_symbol(&mut self, at: usize) -> bool {
        match self.tokens[at].text {
            "(" => {
                // Of equal values, `distinct` keeps the first.
                let word = at.checked_sub(1).map(|before| self.tokens[before]);
                let function =
                    word.filter(|word| word.kind == TokenKind::Word && !self.is_word(at + 1, "distinct"));
                self.open.push(function.map_or("", |word| word.text));
                true
            }
            ")" => {
                let closed = self.open.pop();
                self.closed = closed.unwrap_or_default();
                closed.is_some()
            }
            symbol => [",", ".", "::"].contains(&symbol),
        }
    }

    fn admits_word(&mut self, at: usize) -> bool {
        let word = self.tokens[at].text;
        if at > 0 && self.is_symbol(at - 1, "::") {
            return is_listed(EXACT, word) || is_listed(SCALED, word) && self.is_in_a_sum();
        }
        if self.is_symbol(at + 1, "(") {
            let is_aggregate = is_listed(SUMS, word) || is_listed(CHOICES, word);
            self.adds_up |= is_aggregate;
            if is_aggregate || is_listed(FUNCTIONS, word) {
                return true;
            }
        }
        if is_listed(JSON, word) {
            return self.is_operator(at + 1, &["->", "->>", "#>>"]);
        }
        if word.eq_ignore_ascii_case("batch") {
            return self.is_symbol(at + 1, ".") || self.follows_word(at, "from");
        }
        if word.eq_ignore_ascii_case("from") {
            return self.admits_from(at);
        }
        self.adds_up |= word.eq_ignore_ascii_case("group");
        is_listed(COLUMNS, word) || is_listed(KEYWORDS, word)
    }

    /// `is distinct from`, or the one `from batch` with nothing beside it.
    fn admits_from(&mut self, at: usize) -> bool {
        if self.follows_word(at, "distinct") {
            return true;
        }
        let is_alone = self
            .at(at + 2)
            .is_none_or(|next| ["where", "group", "having"].iter().any(|word| next.is_word(word)));
        let is_source = self.open.is_empty() && !self.has_source && self.is_word(at + 1, "batch") && is_alone;
        self.has_source |= is_source;
        is_source
    }
}

fn is_listed(list: &str, word: &str) -> bool {
    list.split(' ').any(|listed| listed.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::{is_indifferent_statement, redefines};

    #[test]
    fn sums_are_indifferent() {
        for sql in [
            "insert into t select count(*), 'a' from batch",
            "insert into t select created_at::date, count(*) - sum(-(data->>'n')::int - 1), -1 from batch group by 1",
            "insert into t select 1, max(created_at) from batch having count(*) > 0",
            "insert into t select stream_id, sum((data->>'n')::int) from batch group by stream_id",
            "INSERT INTO s.t (a, \"b\") SELECT event_type, count(*) AS events FROM batch GROUP BY 1
             ON CONFLICT (a) DO UPDATE SET b = t.b + excluded.b, c = array(select x from u limit 1) where t.a <> 'x'",
            "insert into t as u overriding system value select batch.stream_id, max(created_at) -- from other
             from batch where event_type in ('A', 'B') and data->>'x' is distinct from 'y' group by batch.stream_id having count(*) > 2",
            "insert into t select date_trunc('day', created_at)::date, sum(case event_type when 'W' then -1 else 1 end
             * coalesce((data->'a'->0->>'cents')::numeric, 1.5)) from batch group by 1 on conflict do nothing",
            "insert into t select lower(data#>>'{a,b}'), min(global_position), avg((data->>'t')::interval),
             count(distinct stream_id) filter (where metadata->>'a' like 'b%') from batch group by 1",
        ] {
            assert!(is_indifferent_statement(sql), "{sql}");
        }
    }

    #[test]
    fn whatever_might_see_the_order_is_not() {
        for sql in [
            "insert into t select * from batch",
            "insert into t select stream_id, event_type from batch where global_position > 1",
            "insert into t select stream_id, array_agg(event_type) from batch group by 1",
            "insert into t select stream_id, string_agg(event_type, ',') from batch group by 1",
            "insert into t select stream_id, sum((data->>'x')::float8) from batch group by 1",
            "insert into t select stream_id, max((data->>'x')::numeric) from batch group by 1",
            "insert into t select (data->>'x')::numeric, count(*) from batch group by 1",
            "insert into t select stream_id, sum(distinct (data->>'x')::numeric) from batch group by 1",
            "insert into t select stream_id, count(*) from batch group by 1 on conflict (a) do update
             set b = (select event_type from batch limit 1)",
            "insert into t select stream_version * 1.5, count(*) from batch group by 1",
            "insert into t select data->'x', count(*) from batch group by 1",
            "insert into t select (created_at - (data->>'at')::timestamptz) * 2, count(*) from batch group by 1",
            "insert into t select ((data->>'at')::timestamp - (data->>'b')::timestamp) * 2, count(*) from batch group by 1",
            "insert into t select ('2030-01-01' - created_at) * 2, count(*) from batch group by 1",
            "insert into t select (case when true then created_at end - created_at) * 2, count(*) from batch group by 1",
            "insert into t select sum(-'1.5' * stream_version) from batch",
            "insert into t select sum(-('1.5') * stream_version) from batch",
            "insert into t select sum(abs('1.5') * stream_version) from batch",
            "insert into t select max(date_trunc('day', created_at) - created_at) from batch",
            "insert into t select data, count(*) from batch group by 1",
            "insert into t select interval '1 day', count(*) from batch group by 1",
            "insert into t select stream_id, count(*) from batch join u on true group by 1",
            "insert into t select stream_id, count(*) from batch, u group by 1",
            "insert into t select stream_id, count(*) from batch b group by 1",
            "insert into t select stream_id, count(*) from u group by 1",
            "insert into t select stream_id, (select max(x) from batch), count(*) from batch group by 1",
            "insert into t select stream_id, first(data->>'x') from batch group by 1",
            "insert into t select stream_id, nextval('s'), count(*) from batch group by 1",
            "insert into t select stream_id, row_number() over (order by stream_id) from batch group by 1",
            "insert into t select stream_id, count(*) from batch group by 1 limit 5",
            "insert into t select stream_id, count(*) from batch group by 1 union all select stream_id, 1 from batch",
            "insert into t select distinct on (stream_id) stream_id, event_type from batch group by 1, 2",
            "insert into t (select stream_id, count(*) from batch group by 1)",
            "insert into t select stream_id, count(*), now() from batch group by 1",
            "insert into t select stream_id, count(*) from batch group by 1, \"order\"",
            "insert into t select stream_id, max(b'101'), max(array[1]) from batch group by 1",
            "select count(*) from batch",
            "update t set n = n + 1 from batch where t.a = batch.stream_id",
            "with x as (select 1) insert into t select stream_id, count(*) from batch group by 1",
        ] {
            assert!(!is_indifferent_statement(sql), "{sql}");
        }
    }

    #[test]
    fn own_functions_and_types_may_take_the_place_of_known_ones() {
        assert!(redefines(
            "create table t (a int); create or replace function lower(text) returns text as 'x'"
        ));
        assert!(redefines("create aggregate sum (text) (sfunc = textcat, stype = text)"));
        assert!(redefines("create domain text as pg_catalog.numeric"));
        assert!(!redefines("create table t (type text, function text); create index on t (type)"));
    }
}
