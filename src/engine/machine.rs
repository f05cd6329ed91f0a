//! The life of a subscription as a pure function: what happened in, what to do next out.
//!
//! ```text
//!     Called: take, Taken                 ReachedHorizon
//!  ┌─ Standby ───────► CatchingUp ───────────────────────► Live ─┐
//!  │     ▲  ▲              │  ▲ ▲ MoreToDo                   │    │ Woken: fold
//!  │     │  └── Lost ──────┤  │ └────────────────────────────┤    └──► (stays)
//!  │     │                 │  └── Rested (lease kept) ──┐    │
//!  │     └── Rested ───────┴────────► BackingOff ◄──────┴────┘
//!  │        (retake)       │ Failed(Halt)
//!  ├─ Recalled ◄───────────┼────────► Halted
//!  │                       │ Failed(Pause)
//!  ├─ Recalled ◄───────────┴────────► Paused
//!  └──── Drain, from anywhere ──────► Draining
//! ```
//!
//! `Recalled` means that an operator did something: whoever rests, waits, halted or paused looks again at once.
//! `Called` means that the subscription is free and this replica is to have it; `AskedBack` that another one is to have
//! it: whoever holds it releases it and is a standby again.
//!
//! No clock, no connection, no await: everything here can be read and tested as a table.

/// Where a subscription stands. The names are a contract with status, metrics and API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Not held here: another replica holds it, or it has not been taken yet.
    /// Entered at the start, and when the lease is lost or given back. A restart begins here. Left by taking the lease,
    /// when called.
    Standby,
    /// Held, and folding a backlog.
    /// Entered by taking the lease, or when a page came back full. A restart begins at `Standby`.
    CatchingUp,
    /// Held, and everything up to the horizon is applied.
    /// Entered when a page reached the horizon. Left when one no longer does.
    Live,
    /// Held or not, and waiting before the next try.
    /// Entered by a passing fault. A restart tries at once. Left when the wait is over.
    BackingOff {
        /// Whether the lease must be taken again: what the last batch did is unknown.
        retake: bool,
    },
    /// Held, and stopped on an event or a definition that a person must look at.
    /// Entered by a fault that repeats. A restart tries once more, and halts again if nothing changed. Left when an
    /// operator resumes it.
    Halted,
    /// Held, and standing still because an operator wants it to.
    /// Entered when a batch is refused for that. A restart is refused likewise. Left when an operator resumes it.
    Paused,
    /// The process is about to end; no new batch begins.
    /// Entered by SIGTERM. Never left.
    Draining,
}

impl Phase {
    /// As it stands in JSON and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::CatchingUp => "catching_up",
            Self::Live => "live",
            Self::BackingOff { .. } => "backing_off",
            Self::Halted => "halted",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] = [
        Self::Standby,
        Self::CatchingUp,
        Self::Live,
        Self::BackingOff { retake: false },
        Self::Halted,
        Self::Paused,
        Self::Draining,
    ];
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// It is its turn, or somebody woke it.
    Woken,
    /// An operator did something that concerns it.
    Recalled,
    /// The lease is ours.
    Taken,
    /// Somebody else's lease still runs.
    Occupied,
    /// It is free, and this replica is to take it.
    Called,
    /// Another replica is to have it.
    AskedBack,
    /// The lease was given back.
    Released,
    /// A batch committed; the page was full, so there is more.
    MoreToDo,
    /// A batch committed, or found nothing: everything up to the horizon is applied.
    ReachedHorizon,
    /// A batch did not commit.
    Failed(Directive),
    /// The wait is over.
    Rested,
    /// The process is to end.
    Drain,
}

/// What to do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Nothing was applied, and it may work next time.
    Retry,
    /// What was applied is unknown, or somebody else may hold the lease: take it again and read the cursor from it.
    Retake,
    /// Nothing was applied; a smaller page may work, or names the event.
    Shrink,
    /// Nothing was applied; it works when the failing event is parked.
    Park,
    /// Nothing was applied; it works when the events of quarantined streams are passed by.
    PassBy,
    /// An operator wants it to stand still.
    Pause,
    /// It will fail again until a person changes something.
    Halt,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Try to take the lease.
    Take,
    /// Fold the next page.
    Fold,
    /// Do nothing until woken.
    Wait,
    /// Give the lease back.
    Release,
    /// Do nothing until called: growth is the holder's affair.
    StandBy,
    /// Wait as the backoff says, then try again.
    Rest,
    /// Nothing more.
    Stop,
}

/// One step of a subscription's life.
pub(crate) fn step(phase: Phase, input: Input) -> (Phase, Action) {
    match (phase, input) {
        (Phase::Draining, _) | (_, Input::Drain) => (Phase::Draining, Action::Stop),

        // A wake says that there is work, not whose it is.
        (Phase::Standby, Input::Woken | Input::Rested | Input::AskedBack) => {
            (Phase::Standby, Action::StandBy)
        }
        (Phase::Standby, Input::Called) => (Phase::Standby, Action::Take),
        (Phase::CatchingUp | Phase::Live, Input::Woken | Input::Rested) => (phase, Action::Fold),
        (Phase::BackingOff { retake: true }, Input::Rested) => (Phase::Standby, Action::Take),
        (Phase::BackingOff { retake: false }, Input::Rested) => (Phase::CatchingUp, Action::Fold),
        // A wake does not shorten a wait: the fault that caused it has not passed.
        (Phase::BackingOff { .. }, Input::Woken)
        | (Phase::Halted | Phase::Paused, Input::Woken | Input::Rested | Input::Called) => {
            (phase, Action::Wait)
        }
        // Who holds it, or takes it again anyhow, needs no call.
        (Phase::CatchingUp | Phase::Live, Input::Called) => (phase, Action::Fold),
        (Phase::BackingOff { .. }, Input::Called) => (phase, Action::Rest),

        // What is not known to be held cannot be given back.
        (Phase::BackingOff { retake: true }, Input::AskedBack) => (Phase::Standby, Action::StandBy),
        (
            Phase::CatchingUp
            | Phase::Live
            | Phase::BackingOff { retake: false }
            | Phase::Halted
            | Phase::Paused,
            Input::AskedBack,
        ) => (phase, Action::Release),
        (_, Input::Released | Input::Occupied) => (Phase::Standby, Action::StandBy),

        (Phase::CatchingUp | Phase::Live, Input::Recalled) => (phase, Action::Fold),
        (Phase::BackingOff { retake: false }, Input::Recalled) => (Phase::CatchingUp, Action::Fold),
        // What is known of the lease may be what the operator changed: read it anew.
        (
            Phase::Standby | Phase::BackingOff { retake: true } | Phase::Halted | Phase::Paused,
            Input::Recalled,
        ) => (Phase::Standby, Action::Take),

        (_, Input::Taken) => (Phase::CatchingUp, Action::Fold),
        (_, Input::MoreToDo) => (Phase::CatchingUp, Action::Fold),
        (_, Input::ReachedHorizon) => (Phase::Live, Action::Wait),

        (_, Input::Failed(Directive::Retry)) => (Phase::BackingOff { retake: false }, Action::Rest),
        (_, Input::Failed(Directive::Retake)) => (Phase::BackingOff { retake: true }, Action::Rest),
        (_, Input::Failed(Directive::Shrink | Directive::Park | Directive::PassBy)) => (phase, Action::Fold),
        (_, Input::Failed(Directive::Pause)) => (Phase::Paused, Action::Wait),
        (_, Input::Failed(Directive::Halt)) => (Phase::Halted, Action::Wait),
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Directive, Input, Phase, step};

    const INPUTS: [Input; 18] = [
        Input::Woken,
        Input::Recalled,
        Input::Taken,
        Input::Occupied,
        Input::Called,
        Input::AskedBack,
        Input::Released,
        Input::MoreToDo,
        Input::ReachedHorizon,
        Input::Failed(Directive::Retry),
        Input::Failed(Directive::Retake),
        Input::Failed(Directive::Shrink),
        Input::Failed(Directive::Park),
        Input::Failed(Directive::PassBy),
        Input::Failed(Directive::Pause),
        Input::Failed(Directive::Halt),
        Input::Rested,
        Input::Drain,
    ];

    #[test]
    fn draining_begins_nothing_any_more() {
        for phase in Phase::ALL {
            assert_eq!(step(phase, Input::Drain), (Phase::Draining, Action::Stop));
        }
        for input in INPUTS {
            assert_eq!(step(Phase::Draining, input), (Phase::Draining, Action::Stop));
        }
    }

    #[test]
    fn an_unknown_outcome_never_folds_before_the_lease_is_taken_again() {
        for phase in [Phase::CatchingUp, Phase::Live] {
            let (phase, action) = step(phase, Input::Failed(Directive::Retake));
            assert_eq!(action, Action::Rest);
            let (_, action) = step(phase, Input::Rested);
            assert_eq!(action, Action::Take);
        }
    }

    #[test]
    fn a_wake_neither_ends_a_halt_nor_shortens_a_wait() {
        let waiting = [
            Phase::Halted,
            Phase::Paused,
            Phase::BackingOff { retake: false },
            Phase::BackingOff { retake: true },
        ];
        for phase in waiting {
            assert_eq!(step(phase, Input::Woken), (phase, Action::Wait));
        }
    }

    #[test]
    fn an_operator_ends_every_wait() {
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Draining) {
            let (_, action) = step(phase, Input::Recalled);
            assert!(matches!(action, Action::Take | Action::Fold), "{phase:?}");
        }
    }

    #[test]
    fn a_standby_takes_only_what_it_is_called_to() {
        for input in [Input::Woken, Input::Rested, Input::Occupied, Input::AskedBack] {
            assert_eq!(step(Phase::Standby, input), (Phase::Standby, Action::StandBy));
        }
        assert_eq!(step(Phase::Standby, Input::Called), (Phase::Standby, Action::Take));
    }

    #[test]
    fn what_is_held_is_given_back_from_wherever_it_stands() {
        let held = [
            Phase::CatchingUp,
            Phase::Live,
            Phase::BackingOff { retake: false },
            Phase::Halted,
            Phase::Paused,
        ];
        for phase in held {
            assert_eq!(step(phase, Input::AskedBack), (phase, Action::Release));
            assert_eq!(step(phase, Input::Released), (Phase::Standby, Action::StandBy));
        }
        // A release whose answer was lost is no release: the lease is taken again, and then everything is known.
        let (phase, _) = step(Phase::Live, Input::Failed(Directive::Retake));
        assert_eq!(step(phase, Input::Rested), (Phase::Standby, Action::Take));
    }

    #[test]
    fn the_way_from_start_to_live() {
        let (phase, action) = step(Phase::Standby, Input::Called);
        assert_eq!((phase, action), (Phase::Standby, Action::Take));
        let (phase, action) = step(phase, Input::Taken);
        assert_eq!((phase, action), (Phase::CatchingUp, Action::Fold));
        let (phase, action) = step(phase, Input::MoreToDo);
        assert_eq!((phase, action), (Phase::CatchingUp, Action::Fold));
        assert_eq!(step(phase, Input::ReachedHorizon), (Phase::Live, Action::Wait));
    }
}
