//! The search: depth first, every state once. What lies on the stack is the way to where it is.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::server::{Fault, Plan, State, WATCHERS};
use super::watcher::Watcher;
use super::{appender, watcher};

/// How a plan ended.
pub(super) struct Outcome {
    pub(super) states: usize,
    pub(super) fault: Option<(Fault, String)>,
}

/// Takes every step in every order, until all are taken or a promise is broken.
pub(super) fn explore(plan: &Plan) -> Outcome {
    let start = State::new([Watcher::default(); WATCHERS]);
    let actors = plan.writers.len() + plan.watchers.len();
    let mut seen: HashSet<State, BuildHasherDefault<Quick>> = HashSet::default();
    seen.insert(start);
    let mut way = vec![(start, 0)];
    while let Some((state, actor)) = way.last_mut() {
        if *actor == actors {
            way.pop();
            continue;
        }
        let (from, who) = (*state, *actor);
        *actor += 1;
        match step(plan, &from, who) {
            None => {
                let last = who + 1 == actors && (0..actors).all(|who| step(plan, &from, who).is_none());
                let end = if last { end(plan, &from) } else { Ok(()) };
                if let Err(fault) = end {
                    return Outcome { states: seen.len(), fault: Some((fault, told(plan, &way))) };
                }
            }
            Some(Ok(next)) => {
                let mut next = next.in_small_numbers(plan.watchers.len());
                if plan.watchers.len() > 1 && plan.watchers[0] == plan.watchers[1] {
                    next.watchers.sort_unstable();
                }
                if seen.insert(next) {
                    way.push((next, 0));
                }
            }
            Some(Err(fault)) => {
                return Outcome { states: seen.len(), fault: Some((fault, told(plan, &way))) };
            }
        }
    }
    Outcome { states: seen.len(), fault: None }
}

fn step(plan: &Plan, state: &State, who: usize) -> Option<Result<State, Fault>> {
    match who.checked_sub(plan.writers.len()) {
        None => appender::step(plan, state, who),
        Some(who) => watcher::step(plan, state, who),
    }
}

/// Nobody can go on: everybody must have come to his end.
fn end(plan: &Plan, state: &State) -> Result<(), Fault> {
    let ended = |who: usize| usize::from(state.writers[who].done) == plan.writers[who].len();
    if !(0..plan.writers.len()).all(ended) {
        return Err(Fault::Stuck);
    }
    watcher::finish(plan, state)
}

/// The steps that led here, for people: writers by number, watchers by letter.
fn told(plan: &Plan, way: &[(State, usize)]) -> String {
    let step = |(state, next): &(State, usize)| {
        let who = next - 1;
        let Some(at) = who.checked_sub(plan.writers.len()) else {
            let line = plan.writers[who].get(usize::from(state.writers[who].done))?;
            return Some(format!("{who}{line:?}"));
        };
        let line = plan.watchers[at].get(usize::from(state.watchers[at].done))?;
        Some(format!("{}{line:?}", ["a", "b"][at]))
    };
    way.iter().filter_map(step).collect::<Vec<_>>().join(" ")
}

/// A hash for keys that nobody chose in malice.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn write_isize(&mut self, variant: isize) {
        self.write_u8(u8::try_from(variant).unwrap_or(u8::MAX));
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
