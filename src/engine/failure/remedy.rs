//! What happened and what to do, for a person: in status, page, log and dead letters.

use super::directive::{Blame, blame};
use super::{Fault, HandlerFault};
use crate::engine::machine::Directive;
use crate::error::sqlstate;
use crate::ledger::phases::Trouble;

impl Fault {
    /// What happened to the subscription, what is being done about it, and what is left for a person to do.
    pub(crate) fn trouble(&self, subscription_id: &str, directive: Directive) -> Trouble {
        let (message, to_do) = self.told();
        let remedy = match directive {
            Directive::Halt => format!("{to_do}; once the cause is gone, `foldd resume {subscription_id}`"),
            Directive::Park => {
                format!("{to_do}; once the cause is gone, `foldd dead-letters retry {subscription_id} --all`")
            }
            Directive::Pause => format!("`foldd resume {subscription_id}` lets it go on"),
            Directive::Retry | Directive::Retake | Directive::Shrink | Directive::PassBy => to_do.to_owned(),
        };
        let (sqlstate, place) = match self {
            Self::Handler(fault) => {
                (Some(fault.sqlstate.clone()).filter(|code| !code.is_empty()), fault.place.clone())
            }
            Self::Passing { sqlstate, .. }
            | Self::Broken { sqlstate, .. }
            | Self::Unindexed { sqlstate, .. } => (Some(sqlstate.clone()), None),
            Self::OutOfOrder(_) => (Some(sqlstate::OUT_OF_ORDER.to_owned()), None),
            Self::Unknown(_)
            | Self::Fenced
            | Self::CheckpointMoved
            | Self::StaleHorizon
            | Self::Paused
            | Self::Quarantined
            | Self::TooManyParked(_)
            | Self::Crashed(_)
            | Self::TimedOut { .. }
            | Self::Meddling => (None, None),
        };
        Trouble { message, remedy, sqlstate, place, event: self.event().cloned() }
    }

    pub(super) fn told(&self) -> (String, &'static str) {
        match self {
            Self::Unknown(message) => (
                format!("the connection failed: {message}"),
                "it is tried again; see whether PostgreSQL is up",
            ),
            Self::Passing { sqlstate, message } => (message.clone(), passing_remedy(sqlstate)),
            Self::Fenced => ("another replica took the lease".to_owned(), "nothing: this one stands by"),
            Self::CheckpointMoved => {
                ("a commit got through whose answer was lost".to_owned(), "nothing: it goes on from there")
            }
            Self::StaleHorizon => ("PostgreSQL was restarted".to_owned(), "nothing: it goes on in a moment"),
            Self::Paused => ("an operator paused it".to_owned(), ""),
            Self::Quarantined => {
                ("streams are quarantined".to_owned(), "nothing: their events are passed by")
            }
            Self::TooManyParked(message) => (
                message.clone(),
                "see `foldd dead-letters list`, mend the handler or what is wrong with the events, or raise \
                 max_quarantined_streams",
            ),
            Self::Crashed(_) => (
                "the process died each time it applied this event".to_owned(),
                "see the logs of the processes that ended, for an abort or the memory limit; mend the handler",
            ),
            Self::TimedOut { page, .. } if *page > 1 => {
                (format!("a batch of {page} events took too long"), "it is tried again with smaller batches")
            }
            Self::TimedOut { .. } => (
                "folding a single event takes longer than daemon.batch_timeout".to_owned(),
                "look for an endless loop, a missing index or a lock held by another session; raise \
                 daemon.batch_timeout or mend the handler",
            ),
            Self::Handler(fault) => (fault.text(), handler_remedy(&fault.sqlstate)),
            Self::Meddling => (
                "the handler committed or rolled back the batch's transaction".to_owned(),
                "take begin, commit and rollback out of the handler; what it committed itself stays, so build the \
                 projection anew",
            ),
            Self::OutOfOrder(message) => (
                message.clone(),
                "let every writer append by es_append; to go on with the log as it is, set `order_guard = false` for \
                 this projection and restart",
            ),
            Self::Unindexed { message, .. } => (
                format!("an index does not fit the rows of the read model: {message}"),
                "mend the index under `@tables`, or what the handler writes, and raise the version",
            ),
            Self::Broken { message, .. } => {
                (message.clone(), "run `foldd check`; if the tables were changed by hand, put them back")
            }
        }
    }
}

impl HandlerFault {
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        text
    }
}

/// What to do about what passes: nothing, unless the server has run out of something.
fn passing_remedy(code: &str) -> &'static str {
    match code {
        "53100" => {
            "free some space on the server's disk, or move tables to a larger tablespace; it is tried again by itself"
        }
        "53200" => "the server is out of memory, see its log; it is tried again by itself",
        "53300" => "raise max_connections or close what is idle; it is tried again by itself",
        "53400" => {
            "raise the limit that it names for this role, such as temp_file_limit; it is tried again by itself"
        }
        _ => "it is tried again by itself",
    }
}

/// What to do about a handler's statement that failed, by the class of its SQLSTATE.
fn handler_remedy(code: &str) -> &'static str {
    match (blame(code), code.get(..2)) {
        (Blame::Nobody, _) => passing_remedy(code),
        (_, Some("22")) => {
            "the event's data does not fit the statement: make the handler accept it and raise the version"
        }
        (_, Some("23")) if code == "23502" => {
            "the statement has no value for a column that needs one: see what it takes from the event and what it looks up"
        }
        (_, Some("23")) => {
            "a constraint of the read model refuses the event: make the statement an upsert or loosen the constraint, \
             and raise the version"
        }
        (_, Some("42")) => {
            "the statement does not fit its tables: run `foldd check`, mend the file and raise the version"
        }
        (_, Some("2D")) => {
            "foldd commits the effect together with the checkpoint: take commit and rollback out of the functions that \
             the statement calls, and raise the version"
        }
        _ if code == sqlstate::SWORN_NOT_TO_APPEND => {
            "append in a service, or in a handler in Rust; take it out of the file and raise the version"
        }
        (_, Some("54")) => {
            "the event brings the statement to a limit of PostgreSQL: mend the handler and raise the version"
        }
        (_, Some("58" | "XX" | "F0")) => {
            "the server is not well, see its log: repair the disk or the index that it names"
        }
        _ => "mend the handler and raise the version",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, HandlerFault};
    use crate::engine::machine::Directive;

    #[test]
    fn what_the_server_has_run_out_of_is_named_wherever_it_was_missed() {
        let fault = Fault::Passing { sqlstate: "53100".to_owned(), message: "no space left".to_owned() };
        let remedy = fault.trouble("a@1", Directive::Retry).remedy;
        assert_eq!(remedy, super::handler_remedy("53100"));
        assert!(remedy.contains("free some space") && remedy.contains("tried again"), "{remedy}");
    }

    #[test]
    fn every_fault_says_what_to_do_and_what_to_type() {
        for state in ["22P02", "23505", "42703", "40001", "P0001", "XX000", ""] {
            let fault = Fault::Handler(HandlerFault {
                sqlstate: state.to_owned(),
                message: "it failed".to_owned(),
                detail: None,
                hint: None,
                place: None,
                event: None,
                page: 1,
            });
            assert!(!fault.trouble("a@1", Directive::Retry).remedy.is_empty());
            assert!(fault.trouble("a@1", Directive::Halt).remedy.contains("`foldd resume a@1`"));
            assert!(fault.trouble("a@1", Directive::Park).remedy.contains("`foldd dead-letters retry a@1"));
        }
    }
}
