//! What a person should know at once, out of a whole status: what is wrong, what to do, and the verbs that do it.
//!
//! Page, terminal and JSON show the same list, the gravest first. A pure function: it asks nobody.

use schemars::JsonSchema;
use serde::Serialize;

use super::phases::EventRef;
use super::status::{ProjectionStatus, Status};

/// A projection that has had something to do for so long, and does nothing, does not get on, in seconds.
const STUCK: f64 = 30.0;

/// PostgreSQL's code for a lock that somebody else did not give up in time.
const LOCKED: &str = "55P03";

/// How grave it is; the order is that of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gravity {
    /// Nothing gets on until somebody acts.
    Bad,
    /// It gets on with less than everything, or may need somebody.
    Poor,
}

/// One thing that somebody should know.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Concern {
    pub(crate) gravity: Gravity,
    /// `no_daemon`, `halted`, `horizon_held`, `stuck`, `unheld`, `paused`, `backing_off`, `notice`, `waiting`, `dead_letters` or
    /// `tier_0`.
    pub(crate) kind: &'static str,
    /// The projection it is about, `fines@2`; `None` when it is about all.
    pub(crate) projection: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// File and line of the handler, where one failed.
    pub(crate) place: Option<String>,
    /// The event it failed on.
    pub(crate) event: Option<EventRef>,
    /// What to do.
    pub(crate) remedy: String,
    /// The verbs that do it, once what is to be mended is.
    pub(crate) verbs: Vec<&'static str>,
}

/// Everything that somebody should know, the gravest first.
pub(crate) fn concerns(status: &Status) -> Vec<Concern> {
    let mut found = Vec::new();
    if status.replicas.is_empty() && !status.projections.is_empty() {
        found.push(about_all(Gravity::Bad, "no_daemon", "no daemon is running", "start one: `foldd run`"));
    }
    held_horizon(status, &mut found);
    for projection in &status.projections {
        of_projection(projection, status, &mut found);
    }
    if let Some(reason) = &status.store.tier_reason {
        let message =
            format!("every open transaction of the cluster can hold up the readers, because {reason}");
        found.push(about_all(Gravity::Poor, "tier_0", message, "`foldd doctor` says more"));
    }
    found.sort_by_key(|concern| concern.gravity);
    found
}

fn held_horizon(status: &Status, found: &mut Vec<Concern>) {
    if status.store.horizon_age_seconds < 1.0 {
        return;
    }
    for blocker in status.store.blockers.iter().filter(|blocker| blocker.holds) {
        let end = match (&blocker.gid, blocker.pid) {
            (Some(gid), _) => format!(
                "`rollback prepared '{gid}'`, or commit it, in database {}",
                blocker.database.as_deref().unwrap_or("?")
            ),
            (None, Some(pid)) => format!("`select pg_terminate_backend({pid})`"),
            (None, None) => "end its session".to_owned(),
        };
        let remedy = format!(
            "have its owner end it, or {end}; set idle_in_transaction_session_timeout for the role that did it"
        );
        found.push(about_all(
            Gravity::Bad,
            "horizon_held",
            format!("committed events wait for {blocker}"),
            remedy,
        ));
    }
}

fn of_projection(projection: &ProjectionStatus, status: &Status, found: &mut Vec<Concern>) {
    let id = format!("{}@{}", projection.name, projection.version);
    let about = |gravity, kind, message: String, remedy: String, verbs: &[&'static str]| Concern {
        gravity,
        kind,
        projection: Some(id.clone()),
        message,
        place: projection.error.as_ref().and_then(|error| error.place.clone()),
        event: projection.error.as_ref().and_then(|error| error.event.clone()),
        remedy,
        verbs: verbs.to_vec(),
    };
    let error = projection.error.as_ref();
    let told = |otherwise: &str| error.map_or_else(|| otherwise.to_owned(), |error| error.message.clone());
    let advised = |otherwise: &str| error.map_or_else(|| otherwise.to_owned(), |error| error.remedy.clone());
    let is_held = projection.partitions.iter().all(|part| {
        part.holder.is_some_and(|holder| status.replicas.iter().any(|replica| replica.id == holder))
    });
    let waits = projection.lag_events > 0 && projection.lag_seconds >= STUCK;
    match projection.phase.as_str() {
        "halted" => found.push(about(
            Gravity::Bad,
            "halted",
            told("it halted, and its holder did not say why"),
            advised("see the daemon's log; then `foldd resume`"),
            // What could not be built has nothing to resume.
            if projection.partitions.is_empty() { &[] } else { &["resume"] },
        )),
        "paused" => found.push(about(
            Gravity::Poor,
            "paused",
            "an operator paused it".to_owned(),
            format!("`foldd log {id}` says who and why; `foldd resume {id}` lets it go on where it stands"),
            &["resume"],
        )),
        "backing_off" => found.push(about(
            if waits { Gravity::Bad } else { Gravity::Poor },
            "backing_off",
            told("something failed that may pass"),
            if error.is_some_and(|error| error.sqlstate.as_deref() == Some(LOCKED)) {
                locked(&projection.name)
            } else {
                advised("it is tried again by itself")
            },
            &["pause"],
        )),
        "standby" if !is_held && projection.role != "previous" && !status.replicas.is_empty() => found.push(about(
            Gravity::Poor,
            "unheld",
            "nobody holds it".to_owned(),
            "for a moment after a daemon was killed this is normal; else see whether any replica has it in its \
             configuration, and its log"
                .to_owned(),
            &[],
        )),
        "live" | "catching_up" if waits && projection.events_per_second == 0.0 => found.push(about(
            Gravity::Bad,
            "stuck",
            format!(
                "it has {} to apply, the oldest for {:.0} s, and does not get on",
                events(projection.lag_events),
                projection.lag_seconds
            ),
            "see what its batch waits for: `select pid, wait_event, pg_blocking_pids(pid), query from pg_stat_activity \
             where application_name like 'foldd worker%'`"
                .to_owned(),
            &["pause"],
        )),
        _ if error.is_some() => {
            found.push(about(Gravity::Poor, "notice", told(""), advised(""), &[]));
        }
        _ => {}
    }
    found.extend(waiting(projection, &id));
    found.extend(parked(projection, &id));
}

fn parked(projection: &ProjectionStatus, id: &str) -> Option<Concern> {
    let are = if projection.dead_letters == 1 { "is" } else { "are" };
    (projection.dead_letters > 0).then(|| Concern {
        gravity: Gravity::Poor,
        kind: "dead_letters",
        projection: Some(id.to_owned()),
        message: format!("{} {are} parked", events(projection.dead_letters)),
        place: None,
        event: None,
        remedy: format!(
            "`foldd dead-letters list {id}` shows them; mend what they say, and retry or discard them"
        ),
        verbs: Vec::new(),
    })
}

/// What a version waits for that does not pass by itself: such a reason has its remedy behind it.
fn waiting(projection: &ProjectionStatus, id: &str) -> Option<Concern> {
    let reason = projection.build.as_ref().map_or(&projection.waiting_for, |build| &build.waiting_for);
    let (reason, remedy) = reason.as_ref()?.split_once("; ")?;
    let what = if projection.role == "building" { "its cut-over" } else { "what becomes of it" };
    Some(Concern {
        gravity: Gravity::Poor,
        kind: "waiting",
        projection: Some(id.to_owned()),
        message: format!("{what} waits for {reason}"),
        place: None,
        event: None,
        remedy: remedy.to_owned(),
        verbs: if remedy.contains("`foldd cutover ") { vec!["cutover"] } else { Vec::new() },
    })
}

/// Who holds the lock is known to the database, and for people to judge.
fn locked(schema: &str) -> String {
    format!(
        "somebody holds a lock on its tables: `select pid, relation::regclass, mode from pg_locks where granted and \
         relation::regclass::text like '{schema}.%'` says who; have them end it, or `select pg_terminate_backend(PID)`; \
         it is tried again by itself"
    )
}

fn about_all(
    gravity: Gravity,
    kind: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Concern {
    Concern {
        gravity,
        kind,
        projection: None,
        message: message.into(),
        place: None,
        event: None,
        remedy: remedy.into(),
        verbs: Vec::new(),
    }
}

fn events(count: i64) -> String {
    if count == 1 { "1 event".to_owned() } else { format!("{count} events") }
}

#[cfg(test)]
mod tests {
    use super::{Concern, Gravity, concerns};
    use crate::ledger::phases::Trouble;
    use crate::ledger::status::{ProjectionStatus, Status};
    use crate::store::{Blocker, BlockerCause};

    fn of(change: impl FnOnce(&mut ProjectionStatus)) -> Vec<Concern> {
        let mut status = Status::at_rest(&["fines"]);
        change(&mut status.projections[0]);
        concerns(&status)
    }

    fn kinds(found: &[Concern]) -> Vec<&str> {
        found.iter().map(|concern| concern.kind).collect()
    }

    #[test]
    fn a_log_at_rest_concerns_nobody() {
        assert!(concerns(&Status::at_rest(&["fines", "sales"])).is_empty());
    }

    #[test]
    fn a_halt_is_told_with_its_remedy_and_the_verb() {
        let found = of(|fines| {
            fines.phase = "halted".to_owned();
            fines.dead_letters = 1;
            fines.error = Some(Trouble {
                message: "division by zero".to_owned(),
                remedy: "mend the statement".to_owned(),
                sqlstate: None,
                place: Some("fines.sql:7".to_owned()),
                event: None,
            });
        });
        assert_eq!(kinds(&found), ["halted", "dead_letters"]);
        assert_eq!((&*found[0].message, &*found[0].remedy), ("division by zero", "mend the statement"));
        assert_eq!((found[0].gravity, &*found[0].verbs), (Gravity::Bad, &["resume"][..]));
        assert_eq!(found[0].place.as_deref(), Some("fines.sql:7"));
        assert_eq!((&*found[1].message, &found[1].place), ("1 event is parked", &None));
    }

    #[test]
    fn a_lock_is_told_with_how_to_find_who_has_it() {
        let found = of(|fines| {
            fines.phase = "backing_off".to_owned();
            fines.error = Some(Trouble {
                message: "canceling statement due to lock timeout".to_owned(),
                remedy: "it is tried again by itself".to_owned(),
                sqlstate: Some("55P03".to_owned()),
                place: None,
                event: None,
            });
        });
        assert_eq!((kinds(&found), found[0].gravity), (vec!["backing_off"], Gravity::Poor));
        assert!(
            found[0].remedy.contains("pg_locks") && found[0].remedy.contains("'fines.%'"),
            "{}",
            found[0].remedy
        );
    }

    #[test]
    fn who_does_not_get_on_is_told_and_who_merely_lags_is_not() {
        let lagging = |seconds, rate| {
            kinds(&of(|fines| {
                fines.lag_events = 9;
                fines.lag_seconds = seconds;
                fines.events_per_second = rate;
            }))
            .join(" ")
        };
        assert_eq!(lagging(5.0, 0.0), "");
        assert_eq!(lagging(500.0, 12.0), "");
        assert_eq!(lagging(500.0, 0.0), "stuck");
    }

    #[test]
    fn what_waits_for_somebody_is_told_with_what_to_do_and_what_passes_is_not() {
        let waiting = |reason: &str| {
            of(|fines| {
                fines.role = "previous".to_owned();
                fines.waiting_for = Some(reason.to_owned());
            })
        };
        assert!(waiting("another process works on the versions of fines").is_empty());
        let found = waiting("a lock that pid 77 holds; have its owner end it");
        assert_eq!((kinds(&found), &*found[0].remedy), (vec!["waiting"], "have its owner end it"));
        assert_eq!(found[0].message, "what becomes of it waits for a lock that pid 77 holds");
        let found = waiting("somebody to look at it; `foldd cutover fines` lets it take over");
        assert_eq!(found[0].verbs, ["cutover"]);
    }

    #[test]
    fn whoever_holds_the_horizon_is_told_with_how_to_end_it() {
        let mut status = Status::at_rest(&["fines"]);
        status.store.horizon_age_seconds = 12.0;
        status.store.blockers = vec![Blocker {
            cause: BlockerCause::OtherDatabase,
            pid: Some(77),
            gid: None,
            database: Some("crm".to_owned()),
            user: None,
            application: None,
            state: None,
            wait_event: None,
            age_seconds: Some(12.0),
            holds: true,
        }];
        let found = concerns(&status);
        assert_eq!(kinds(&found), ["horizon_held"]);
        assert!(
            found[0].message.contains("database crm") && found[0].remedy.contains("pg_terminate_backend(77)")
        );
    }

    #[test]
    fn without_a_daemon_that_is_the_first_thing_and_nobody_is_called_unheld() {
        let mut status = Status::at_rest(&["fines"]);
        status.replicas.clear();
        status.projections[0].phase = "standby".to_owned();
        assert_eq!(kinds(&concerns(&status)), ["no_daemon"]);
    }
}
