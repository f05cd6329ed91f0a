//! What logs say of a fault.
//!
//! Logs go where not everybody may read the database, and what a statement says when it fails may quote an event: `Key
//! (mail)=(…) already exists`, `invalid input syntax for type integer: "…"`, whatever the author of a `raise` or of a Rust
//! handler put in, all of it in the language of the server. So a log has the condition by its SQLSTATE, beside the place and
//! the event's position. The words are in `foldd status`, on the page and with the dead letters, for whoever may read there.

use super::Fault;

impl Fault {
    /// What happened, without a word that may come from an event.
    pub(crate) fn gist(&self) -> String {
        match self {
            Self::Handler(fault) => condition(&fault.sqlstate),
            // A deferred trigger of a read model speaks up at the commit, which is foldd's own statement.
            Self::Passing { sqlstate, .. } => condition(sqlstate),
            // Its expression met the rows.
            Self::Unindexed { sqlstate, .. } => condition(sqlstate),
            Self::Broken { sqlstate, message } => match sqlstate.get(..2) {
                Some("22" | "23" | "P0") => condition(sqlstate),
                _ => message.clone(),
            },
            Self::Unknown(_)
            | Self::Fenced
            | Self::CheckpointMoved
            | Self::StaleHorizon
            | Self::Paused
            | Self::Quarantined
            | Self::TooManyParked(_)
            | Self::Crashed(_)
            | Self::TimedOut { .. }
            | Self::Meddling
            | Self::OutOfOrder(_) => self.told().0,
        }
    }
}

/// The name of a condition as Appendix A of PostgreSQL's manual has it; of one that is not listed here, its class.
fn condition(sqlstate: &str) -> String {
    let name = match sqlstate {
        "" => return "the handler returned an error or panicked".to_owned(),
        "22001" => "string data right truncation",
        "22003" => "numeric value out of range",
        "22004" | "22002" => "null value not allowed",
        "22007" => "invalid datetime format",
        "22008" => "datetime field overflow",
        "22012" => "division by zero",
        "22023" => "invalid parameter value",
        "22P02" => "invalid text representation",
        "22P05" => "untranslatable character",
        "23001" => "restrict violation",
        "23502" => "not null violation",
        "23503" => "foreign key violation",
        "23505" => "unique violation",
        "23514" => "check violation",
        "23P01" => "exclusion violation",
        "40001" => "serialization failure",
        "40P01" => "deadlock detected",
        "42501" => "insufficient privilege",
        "42703" => "undefined column",
        "42883" => "undefined function",
        "42P01" => "undefined table",
        "53100" => "disk full",
        "53200" => "out of memory",
        "53300" => "too many connections",
        "54001" => "statement too complex",
        "55006" => "object in use",
        "55P03" => "lock not available",
        "57014" => "query canceled",
        "57P01" => "admin shutdown",
        "57P02" => "crash shutdown",
        "57P03" => "cannot connect now",
        "P0001" => "raise exception",
        "P0002" => "no data found",
        "P0003" => "too many rows",
        "P0004" => "assert failure",
        _ => class(sqlstate),
    };
    format!("{name} ({sqlstate})")
}

fn class(sqlstate: &str) -> &'static str {
    match sqlstate.get(..2) {
        Some("08") => "connection exception",
        Some("0A") => "feature not supported",
        Some("21") => "cardinality violation",
        Some("22") => "data exception",
        Some("23") => "integrity constraint violation",
        Some("25" | "2D" | "3B" | "40") => "transaction rolled back",
        Some("28" | "3D" | "3F" | "42") => "access rule violation or wrong statement",
        Some("53") => "insufficient resources",
        Some("54") => "limit of the program exceeded",
        Some("55") => "object not in the right state",
        Some("57") => "operator intervention",
        Some("58") => "system error",
        Some("P0") => "error of a function",
        Some("XX" | "F0") => "internal error",
        _ => "the statement failed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, HandlerFault};

    #[test]
    fn no_word_of_a_statement_that_failed_is_logged() {
        for sqlstate in ["22P02", "23505", "P0001", "42601", "40001", "XX000", "AB123", ""] {
            let fault = Fault::Handler(HandlerFault {
                sqlstate: sqlstate.to_owned(),
                message: "it says \"canary\"".to_owned(),
                detail: Some("Key (mail)=(canary) already exists.".to_owned()),
                hint: Some("canary".to_owned()),
                place: None,
                event: None,
                page: 1,
            });
            let gist = fault.gist();
            assert!(!gist.contains("canary") && gist.contains(sqlstate) && gist.len() > 10, "{gist}");
        }
        for sqlstate in ["22P02", "23505", "P0001"] {
            let (sqlstate, message) = (sqlstate.to_owned(), "canary".to_owned());
            assert!(
                !Fault::Broken { sqlstate: sqlstate.clone(), message: message.clone() }
                    .gist()
                    .contains("canary")
            );
            assert!(!Fault::Passing { sqlstate, message }.gist().contains("canary"));
        }
    }

    #[test]
    fn what_foldd_itself_found_is_told_in_full() {
        let broken =
            Fault::Broken { sqlstate: "42883".to_owned(), message: "function x() does not exist".to_owned() };
        assert_eq!(broken.gist(), "function x() does not exist");
        assert!(Fault::TooManyParked("events of 9 streams".to_owned()).gist().contains("9 streams"));
    }
}
