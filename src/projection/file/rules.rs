//! Which statements belong where. What is refused here would break the promise of one
//! transaction, or be misread inside the function that foldd compiles; the rest is left to the
//! database, which knows better.

use super::fault::Fault;
use crate::projection::lexer::{Token, TokenKind, significant};
use crate::projection::settings::shortened;

/// The statements of a handler.
const WRITES: [&str; 4] = ["insert", "update", "delete", "merge"];
/// The statements that ask.
const QUERIES: [&str; 3] = ["select", "values", "table"];
/// What `create` and `alter` may speak of: things that live in the projection's own schema.
const OBJECTS: [&str; 14] = [
    "table",
    "index",
    "type",
    "domain",
    "sequence",
    "view",
    "function",
    "aggregate",
    "trigger",
    "statistics",
    "policy",
    "rule",
    "collation",
    "operator",
];
/// Those of them that a statement could mistake for `event` or `batch`.
const RELATIONS: [&str; 3] = ["table", "view", "sequence"];
/// Names of foldd's own that handlers use.
const RESERVED: [&str; 2] = ["event", "batch"];

/// What is wrong with a handler's statement, and where.
pub(super) fn handler_fault(piece: &[Token<'_>]) -> Option<(usize, Fault)> {
    let tokens = significant(piece);
    let first = tokens.first()?;
    let verb = main_verb(&tokens).unwrap_or(first);
    if !WRITES.iter().any(|write| verb.is_word(write)) {
        let statement = if first.is_word("with") && verb.offset != first.offset {
            format!("`with … {}`", verb.text.to_ascii_lowercase())
        } else {
            name_of(first)
        };
        let remedy = handler_remedy(&verb.text.to_ascii_lowercase());
        return Some((first.offset, Fault::NotForHandler { statement, remedy }));
    }
    handler_word_fault(&tokens)
}

/// What is wrong with a statement under `@tables`, and where.
pub(super) fn tables_fault(piece: &[Token<'_>]) -> Option<(usize, Fault)> {
    let tokens = significant(piece);
    let first = tokens.first()?;
    let refuse = |at: &Token<'_>, statement: String, remedy| {
        Some((at.offset, Fault::NotForTables { statement, remedy }))
    };
    if first.is_word("comment") {
        return None;
    }
    if !first.is_word("create") && !first.is_word("alter") {
        return refuse(first, name_of(first), tables_remedy(&first.text.to_ascii_lowercase()));
    }
    if let Some(unlogged) = tokens.iter().find(|token| token.is_word("unlogged")) {
        let remedy = "a server crash empties such a table while its checkpoint stays; remove the word";
        return refuse(unlogged, "`unlogged`".to_owned(), remedy);
    }
    let is_filler = |token: &Token<'_>| {
        ["or", "replace", "unique", "recursive", "constraint", "materialized", "global", "local"]
            .iter()
            .any(|filler| token.is_word(filler))
    };
    let at = 1 + tokens[1..].iter().take_while(|token| is_filler(token)).count();
    let Some(object) = tokens.get(at) else {
        return refuse(first, name_of(first), "finish the statement");
    };
    if !OBJECTS.iter().any(|known| object.is_word(known)) {
        let statement = format!("`{} {}`", first.text.to_ascii_lowercase(), object.text.to_ascii_lowercase());
        return refuse(
            object,
            statement,
            "only what lives in the projection's own schema is foldd's to build",
        );
    }
    if object.is_word("index") && tokens.get(at + 1).is_some_and(|token| token.is_word("concurrently")) {
        return refuse(
            &tokens[at + 1],
            "`concurrently`".to_owned(),
            "nobody reads the table yet; remove the word",
        );
    }
    if RELATIONS.iter().any(|relation| object.is_word(relation)) {
        reserved_fault(&tokens[at + 1..])
    } else {
        None
    }
}

/// What is wrong with a test's query, and where.
pub(super) fn query_fault(piece: &[Token<'_>]) -> Option<(usize, Fault)> {
    let tokens = significant(piece);
    let first = tokens.first()?;
    let verb = main_verb(&tokens).unwrap_or(first);
    if QUERIES.iter().any(|query| verb.is_word(query)) || first.is_symbol("(") {
        return None;
    }
    Some((first.offset, Fault::NotAQuery { statement: name_of(first) }))
}

/// Words that PL/pgSQL, into which handlers are compiled, would take for its own.
fn handler_word_fault(tokens: &[Token<'_>]) -> Option<(usize, Fault)> {
    let mut depth = 0_usize;
    let mut previous = *tokens.first()?;
    for token in tokens {
        let is_label = previous.is_word("as") || previous.is_symbol(".");
        let remedy = if token.is_symbol("(") {
            depth += 1;
            None
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
            None
        } else if token.kind == TokenKind::Parameter {
            Some("handlers have no parameters; take values from `event` or `batch`")
        } else if token.is_word("returning") && depth == 0 && !is_label {
            Some("nobody would read the rows; remove it")
        } else if token.is_word("into")
            && !is_label
            && !previous.is_word("insert")
            && !previous.is_word("merge")
        {
            Some("select into does not belong in a handler; write insert into … select")
        } else {
            None
        };
        if let Some(remedy) = remedy {
            return Some((token.offset, Fault::HandlerWord { word: name_of(token), remedy }));
        }
        previous = *token;
    }
    None
}

/// Refuses the names of foldd's own relations. The first tokens are those after the object's kind.
fn reserved_fault(tokens: &[Token<'_>]) -> Option<(usize, Fault)> {
    let is_filler = |token: &&Token<'_>| ["if", "not", "exists"].iter().any(|filler| token.is_word(filler));
    let mut rest = &tokens[tokens.iter().take_while(is_filler).count()..];
    while rest.get(1).is_some_and(|token| token.is_symbol(".")) {
        rest = &rest[2..];
    }
    let name = rest.first()?;
    let folded = if name.kind == TokenKind::QuotedName {
        name.text.trim_matches('"').to_owned()
    } else {
        name.text.to_ascii_lowercase()
    };
    RESERVED
        .contains(&folded.as_str())
        .then(|| (name.offset, Fault::ReservedRelation { name: shortened(&folded) }))
}

/// The verb of a statement. Behind `with`, that is the first one outside of parentheses that does
/// not name one of its queries.
fn main_verb<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t Token<'a>> {
    let first = tokens.first()?;
    if !first.is_word("with") {
        return Some(first);
    }
    let mut depth = 0_usize;
    let mut previous = first;
    for token in &tokens[1..] {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && WRITES.iter().chain(&QUERIES).any(|verb| token.is_word(verb)) {
            let is_name =
                previous.is_word("with") || previous.is_word("recursive") || previous.is_symbol(",");
            if !is_name {
                return Some(token);
            }
        }
        previous = token;
    }
    None
}

/// How a message names a statement or a word.
fn name_of(token: &Token<'_>) -> String {
    if token.kind == TokenKind::Word && token.text.len() <= 30 {
        format!("`{}`", token.text.to_ascii_lowercase())
    } else {
        shortened(token.text)
    }
}

fn handler_remedy(verb: &str) -> &'static str {
    match verb {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" | "prepare" => {
            "foldd commits the effect together with the checkpoint, so remove it"
        }
        "create" | "alter" | "drop" | "comment" => "what builds the tables belongs under `@tables`",
        "truncate" => "write `delete from` instead",
        "select" | "values" | "table" | "with" => {
            "let the statement write what it asks for: insert into … select"
        }
        "copy" => "write insert into … select instead",
        "notify" | "listen" | "unlisten" => "who waits for a read model uses `foldd wait`, so remove it",
        "do" | "call" | "execute" => "write the effect as a statement of its own",
        "lock" => "no one else writes these tables, so remove it",
        "set" | "reset" => "set it for the role that foldd uses, so remove it here",
        "grant" | "revoke" => "grant by hand; foldd carries grants over to new versions",
        _ => "write one of these",
    }
}

fn tables_remedy(verb: &str) -> &'static str {
    match verb {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" | "prepare" => {
            "foldd builds the tables in one transaction of its own, so remove it"
        }
        "drop" | "truncate" => {
            "foldd builds into an empty schema and drops old versions itself, so remove it"
        }
        "insert" | "update" | "delete" | "merge" | "copy" => "rows come from events, through a handler",
        "grant" | "revoke" => "grant by hand; foldd carries grants over to new versions",
        "set" | "reset" => "set it for the role that foldd uses, so remove it here",
        _ => "remove it",
    }
}
