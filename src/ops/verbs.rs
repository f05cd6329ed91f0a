//! The verbs: one table. A new verb is one line in it, and one function.

use std::future::Future;
use std::pin::Pin;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::desk::PATIENCE;
use super::problem::Problem;
use crate::ledger::dead_letters::{self, Filter, Selected};
use crate::ledger::versions;
use crate::ledger::wishes::{self, Done, Refusal, Signature};
use crate::store::Link;

/// What a verb returns while it works.
type Work<'a> = Pin<Box<dyn Future<Output = Result<Value, Refusal>> + Send + 'a>>;

/// One verb.
pub(super) struct Verb {
    /// As it stands in the path, and in the log of operators.
    pub(super) name: &'static str,
    /// What it does, for the OpenAPI document.
    pub(super) does: &'static str,
    /// Whether it acts on parked events, and so must be told on which.
    pub(super) selects: bool,
    run: for<'a> fn(&'a mut Link<'static>, &'a str, &'a Order) -> Work<'a>,
}

/// All of them.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "pause",
        does: "Let a projection stand still: from the answer on no batch of it commits",
        selects: false,
        run: |link, name, order| {
            Box::pin(async {
                wishes::pause(link, name, &order.signature()).await.map(|done| told(&done, "paused"))
            })
        },
    },
    Verb {
        name: "resume",
        does: "Let a projection that is paused or halted go on where it stood",
        selects: false,
        run: |link, name, order| {
            Box::pin(async {
                let done = wishes::resume(link, name, &order.signature()).await?;
                let phase = if done.changed { "standby" } else { &done.phase };
                Ok(told(&done, phase))
            })
        },
    },
    Verb {
        name: "rebuild",
        does: "Build the live version anew beside itself, and let it take its own place",
        selects: false,
        run: |link, name, order| wish(link, versions::Verb::Rebuild, name, order),
    },
    Verb {
        name: "cutover",
        does: "Let the version that is built take the place of the live one, as soon as it can",
        selects: false,
        run: |link, name, order| wish(link, versions::Verb::Cutover, name, order),
    },
    Verb {
        name: "rollback",
        does: "Make the previous version live again",
        selects: false,
        run: |link, name, order| wish(link, versions::Verb::Rollback, name, order),
    },
    Verb {
        name: "cancel",
        does: "Give up what is being built, and drop its tables",
        selects: false,
        run: |link, name, order| wish(link, versions::Verb::Cancel, name, order),
    },
    Verb {
        name: "retire",
        does: "Drop a version that is not live, or a projection that nobody configures",
        selects: false,
        run: |link, name, order| wish(link, versions::Verb::Retire, name, order),
    },
    Verb {
        name: "retry",
        does: "Apply parked events after all, in the order of their streams; the daemon does so in a moment",
        selects: true,
        run: |link, name, order| {
            Box::pin(async {
                let settled =
                    dead_letters::want_retry(link, name, &order.filter(), &order.signature()).await?;
                let selected = positions(&settled.letters);
                Ok(json!({ "projection": settled.id, "revision": settled.revision, "selected": selected }))
            })
        },
    },
    Verb {
        name: "discard",
        does: "Give parked events up: they are never applied",
        selects: true,
        run: |link, name, order| {
            Box::pin(async {
                let settled = dead_letters::discard(link, name, &order.filter(), &order.signature()).await?;
                Ok(json!({
                    "projection": settled.id, "revision": settled.revision,
                    "discarded": positions(&settled.letters), "left_behind": positions(&settled.left_behind),
                }))
            })
        },
    },
];

/// The body of a verb.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Order {
    /// Who, for the log of operators; `http` unless said.
    by: Option<String>,
    /// Why, for the log of operators.
    why: Option<String>,
    /// Refuse with `revision_changed` unless `revision` in the status still is this.
    if_revision: Option<i64>,
    /// `retry` and `discard`: the events at these global positions.
    positions: Option<Vec<i64>>,
    /// `retry` and `discard`: all of this stream.
    stream: Option<String>,
    /// `retry` and `discard`: all of this type.
    event_type: Option<String>,
    /// `retry` and `discard`: all that failed with this error code of PostgreSQL.
    sqlstate: Option<String>,
    /// `retry` and `discard`: all.
    all: bool,
}

/// The verb of this name.
pub(super) fn verb(name: &str) -> Result<&'static Verb, Problem> {
    VERBS.iter().find(|verb| verb.name == name).ok_or(Problem::UNKNOWN_VERB)
}

impl Verb {
    /// Carries it out.
    pub(super) fn run<'a>(&self, link: &'a mut Link<'static>, name: &'a str, order: &'a Order) -> Work<'a> {
        (self.run)(link, name, order)
    }
}

impl Order {
    /// What a body says, and whether it fits the verb. An empty body says nothing.
    pub(super) fn parse(body: &[u8], verb: &Verb) -> Result<Self, Problem> {
        let order: Self = if body.trim_ascii().is_empty() {
            Self::default()
        } else {
            serde_json::from_slice(body).map_err(|error| {
                Problem::bad(
                    format!("the body is not what {} takes: {error}", verb.name),
                    "send a JSON object; /api/openapi.json describes it",
                )
            })?
        };
        let texts =
            [&order.by, &order.why, &order.stream, &order.event_type, &order.sqlstate].into_iter().flatten();
        for text in texts {
            without_nul(text)?;
        }
        let ways = [
            order.positions.is_some(),
            order.stream.is_some(),
            order.event_type.is_some(),
            order.sqlstate.is_some(),
            order.all,
        ];
        match (verb.selects, ways.iter().filter(|way| **way).count()) {
            (true, 1) | (false, 0) => Ok(order),
            (true, given) => Err(Problem::bad(
                format!("{} is told {given} ways of selecting events, and takes one", verb.name),
                "give one of positions, stream, event_type, sqlstate, or \"all\": true",
            )),
            (false, _) => Err(Problem::bad(
                format!("{} acts on the whole projection, and events are selected", verb.name),
                "leave out positions, stream, event_type, sqlstate and all",
            )),
        }
    }

    fn signature(&self) -> Signature<'_> {
        Signature {
            who: self.by.as_deref().filter(|by| !by.trim().is_empty()).unwrap_or("http"),
            why: self.why.as_deref().filter(|why| !why.trim().is_empty()),
            if_revision: self.if_revision,
            patience: PATIENCE,
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            positions: self.positions.clone(),
            stream: self.stream.clone(),
            event_type: self.event_type.clone(),
            sqlstate: self.sqlstate.clone(),
        }
    }
}

/// PostgreSQL's texts hold every character but this one.
pub(super) fn without_nul(text: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        return Err(Problem::bad("a text holds the character NUL", "leave it out"));
    }
    Ok(())
}

/// Enters a wish about versions, which a daemon carries out; the status says what it waits for.
fn wish<'a>(link: &'a mut Link<'static>, verb: versions::Verb, name: &'a str, order: &'a Order) -> Work<'a> {
    Box::pin(async move {
        let wished = versions::wish(link, verb, name, &order.signature()).await?;
        Ok(json!({ "projection": wished.id, "revision": wished.revision, "wished": verb.as_str() }))
    })
}

fn told(done: &Done, phase: &str) -> Value {
    json!({ "projection": done.id, "changed": done.changed, "revision": done.revision, "phase": phase })
}

fn positions(letters: &[Selected]) -> Vec<i64> {
    letters.iter().map(|letter| letter.position).collect()
}
