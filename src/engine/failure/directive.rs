//! What to do about a fault, under a projection's policy.

use super::Fault;
use crate::engine::machine::Directive;
use crate::error::is_transient_state;
use crate::error::sqlstate::SWORN_NOT_TO_APPEND;
use crate::mutants::planted;
use crate::projection::settings::{OnError, Settings};

/// With so many quarantined streams a projection halts, unless its settings say otherwise: one bad event stays one, a
/// bad handler is noticed.
const MOST_STREAMS: u32 = 100;

/// What a projection's settings say about events that cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) on_error: OnError,
    /// With events of more streams parked, it halts.
    pub(crate) most_streams: u32,
    /// Whether it halts where a stream's versions do not follow one another.
    pub(crate) order_guard: bool,
}

impl Policy {
    /// The policy of these settings.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            on_error: if planted("poison-skipped") {
                OnError::SkipEvent
            } else {
                settings.on_error.unwrap_or_default()
            },
            most_streams: settings.max_quarantined_streams.unwrap_or(MOST_STREAMS),
            order_guard: settings.order_guard.unwrap_or(true),
        }
    }
}

/// Who is to blame for a statement that failed, by the class of its SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Nobody: it passes.
    Nobody,
    /// The event, which the handler does not know how to apply: the others may be fine.
    Event,
    /// The projection or the server: it would be the same with any other event, so parking this one heals nothing.
    Projection,
}

/// Classes after which every event would fail: the statement does not fit its tables or its rights (42, 3D, 3F, 28), it
/// meddles with transactions and cursors (0A, 24, 25, 26, 2D, 34, 3B), or the server is sick (58, F0, HV, XX, 72).
const PROJECTION: [&str; 16] =
    ["0A", "24", "25", "26", "28", "2D", "34", "3B", "3D", "3F", "42", "58", "72", "F0", "HV", "XX"];

/// See [`Blame`]. What a handler in Rust reports by itself has no SQLSTATE and is about the event.
pub(crate) fn blame(sqlstate: &str) -> Blame {
    if is_transient_state(sqlstate) {
        Blame::Nobody
    } else if sqlstate == SWORN_NOT_TO_APPEND
        || sqlstate.get(..2).is_some_and(|class| PROJECTION.contains(&class))
    {
        Blame::Projection
    } else {
        Blame::Event
    }
}

impl Fault {
    /// What to do. Passing faults never count; what may be one event's fault is narrowed down to it; only then the policy
    /// is asked.
    pub(crate) fn directive(&self, policy: &Policy) -> Directive {
        match self {
            Self::Unknown(_) if planted("retry-after-unknown-commit") => Directive::Retry,
            Self::Unknown(_) | Self::Fenced | Self::CheckpointMoved => Directive::Retake,
            Self::Passing { .. } | Self::StaleHorizon => Directive::Retry,
            Self::Paused => Directive::Pause,
            Self::Quarantined => Directive::PassBy,
            Self::TimedOut { page, .. } if *page > 1 => Directive::Shrink,
            Self::Handler(fault) if blame(&fault.sqlstate) == Blame::Nobody => Directive::Retry,
            Self::Handler(fault) if fault.event.is_none() && fault.page > 1 => Directive::Shrink,
            Self::Handler(_) | Self::TimedOut { .. } | Self::Crashed(_) => {
                match (policy.on_error, self.is_of_one_event()) {
                    (OnError::Halt, _) | (_, false) => Directive::Halt,
                    (OnError::QuarantineStream | OnError::SkipEvent, true) => Directive::Park,
                }
            }
            Self::TooManyParked(_)
            | Self::Broken { .. }
            | Self::Unindexed { .. }
            | Self::Meddling
            | Self::OutOfOrder(_) => Directive::Halt,
        }
    }

    /// Whether one event is to blame, and it is known which.
    pub(crate) fn is_of_one_event(&self) -> bool {
        let by_event = match self {
            Self::Handler(fault) => blame(&fault.sqlstate) == Blame::Event,
            Self::TimedOut { .. } | Self::Crashed(_) => true,
            Self::Unknown(_)
            | Self::Passing { .. }
            | Self::Fenced
            | Self::CheckpointMoved
            | Self::StaleHorizon
            | Self::Paused
            | Self::Quarantined
            | Self::TooManyParked(_)
            | Self::Meddling
            | Self::OutOfOrder(_)
            | Self::Broken { .. }
            | Self::Unindexed { .. } => false,
        };
        by_event && self.event().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, HandlerFault};
    use super::{Blame, Policy, blame};
    use crate::engine::machine::Directive;
    use crate::ledger::phases::EventRef;
    use crate::projection::settings::{OnError, Settings};

    fn event() -> EventRef {
        EventRef { position: 7, stream_id: "a-1".to_owned(), event_type: "A".to_owned() }
    }

    fn handler(sqlstate: &str, named: bool, page: i64) -> Fault {
        Fault::Handler(HandlerFault {
            sqlstate: sqlstate.to_owned(),
            message: "it failed".to_owned(),
            detail: None,
            hint: None,
            place: None,
            event: named.then(event),
            page,
        })
    }

    fn policy(on_error: OnError) -> Policy {
        Policy::of(&Settings { on_error: Some(on_error), ..Settings::default() })
    }

    #[test]
    fn what_passes_is_retried_whatever_the_policy() {
        for on_error in [OnError::Halt, OnError::QuarantineStream, OnError::SkipEvent] {
            for (fault, directive) in [
                (handler("40P01", true, 10), Directive::Retry),
                (handler("55P03", false, 10), Directive::Retry),
                (handler("53100", true, 1), Directive::Retry),
                (handler("23505", false, 10), Directive::Shrink),
                (Fault::TimedOut { page: 2, event: None }, Directive::Shrink),
                (Fault::Unknown(String::new()), Directive::Retake),
                (Fault::CheckpointMoved, Directive::Retake),
                (Fault::StaleHorizon, Directive::Retry),
                (Fault::Paused, Directive::Pause),
                (Fault::Quarantined, Directive::PassBy),
            ] {
                assert_eq!(fault.directive(&policy(on_error)), directive, "{on_error:?} {fault:?}");
            }
        }
    }

    #[test]
    fn an_event_that_is_to_blame_is_parked_where_the_policy_says_so() {
        let faults = || {
            [
                handler("22P02", true, 10),
                handler("23505", true, 1),
                handler("P0001", true, 10),
                handler("", true, 10),
                Fault::TimedOut { page: 1, event: Some(event()) },
                Fault::Crashed(event()),
            ]
        };
        for fault in faults() {
            assert_eq!(fault.directive(&policy(OnError::Halt)), Directive::Halt, "{fault:?}");
            for on_error in [OnError::QuarantineStream, OnError::SkipEvent] {
                assert_eq!(fault.directive(&policy(on_error)), Directive::Park, "{fault:?}");
            }
        }
    }

    #[test]
    fn what_no_event_is_to_blame_for_halts_under_any_policy() {
        for fault in [
            handler("42703", true, 1),
            handler("42501", true, 1),
            handler("XX001", true, 1),
            handler("22P02", false, 1),
            Fault::TimedOut { page: 1, event: None },
            Fault::TooManyParked(String::new()),
            Fault::Meddling,
            Fault::OutOfOrder(String::new()),
        ] {
            assert_eq!(fault.directive(&policy(OnError::QuarantineStream)), Directive::Halt, "{fault:?}");
        }
    }

    #[test]
    fn every_class_of_sqlstate_has_somebody_to_blame() {
        for (class, to_blame) in [
            ("08006", Blame::Nobody),
            ("40001", Blame::Nobody),
            ("53200", Blame::Nobody),
            ("57P01", Blame::Nobody),
            ("20000", Blame::Event),
            ("21000", Blame::Event),
            ("22012", Blame::Event),
            ("23514", Blame::Event),
            ("2F005", Blame::Event),
            ("38000", Blame::Event),
            ("44000", Blame::Event),
            ("54001", Blame::Event),
            ("P0002", Blame::Event),
            ("U0001", Blame::Event),
            ("0A000", Blame::Projection),
            ("25001", Blame::Projection),
            ("2D000", Blame::Projection),
            ("42P01", Blame::Projection),
            ("58030", Blame::Projection),
            ("ES005", Blame::Projection),
            ("XX002", Blame::Projection),
        ] {
            assert_eq!(blame(class), to_blame, "{class}");
        }
    }
}
