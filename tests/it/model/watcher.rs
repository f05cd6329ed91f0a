//! Those who read: raise the floor, prove a horizon, read up to it, keep a checkpoint. Each has all of that
//! of its own.

use super::server::{Event, Fault, Mistake, Owner, Plan, STREAMS, State, WRITERS};

/// One step of a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Asks for the newest xid that anybody can have.
    AskXmax,
    /// Raises the floor to it, under a lock: compared and set as one. Takes an xid.
    Raise,
    /// Planted: compares …
    Compare,
    /// … and sets, with time between.
    Set,
    /// `es_proven_horizon`: the floor, as it stands now.
    ReadFloor,
    /// The snapshot: who is running.
    Snapshot,
    /// The lock table, first part: who holds es_events.
    ScanEvents,
    /// The lock table, second part, not in the same moment: which xids are there, and whose oaths.
    ScanXids,
    /// The horizon that follows from all this.
    Prove,
    /// The data up to the horizon, with a snapshot of this moment.
    Read,
    /// The data up to the tier-0 horizon: one snapshot for both.
    ReadTier0,
    /// Planted: the snapshot of the data, taken now and used by the next read.
    OldData,
}

use Look::*;

/// What a watcher does. The steps of one line are taken as one: nobody comes between them.
pub(super) type Round = &'static [&'static [Look]];

/// `es_raise_stamp_floor`, `es_proven_horizon`, and a page, in the smallest steps.
pub(super) const PROVE: Round =
    &[&[AskXmax], &[Raise], &[ReadFloor], &[Snapshot], &[ScanEvents], &[ScanXids, Prove], &[Read]];
/// The same in fewer steps.
pub(super) const PROVE_BRIEFLY: Round =
    &[&[AskXmax], &[Raise], &[ReadFloor, Snapshot], &[ScanEvents, ScanXids, Prove], &[Read]];
/// For the great plan, where everybody meets.
pub(super) const PROVE_COARSE: Round =
    &[&[AskXmax, Raise], &[ReadFloor, Snapshot, ScanEvents, ScanXids, Prove], &[Read]];
/// Twice: what was proven once stays proven.
pub(super) const PROVE_TWICE: Round = &[
    &[AskXmax, Raise],
    &[ReadFloor, Snapshot],
    &[ScanEvents, ScanXids, Prove],
    &[Read],
    &[AskXmax, Raise],
    &[ReadFloor, Snapshot],
    &[ScanEvents, ScanXids, Prove],
    &[Read],
];
/// One who raises nothing and proves as far as others have raised: `status`, `doctor`.
pub(super) const GLANCE: Round = &[&[ReadFloor], &[Snapshot], &[ScanEvents], &[ScanXids, Prove], &[Read]];
/// In REPEATABLE READ: the snapshot is older than all the rest, and the data is as old.
pub(super) const FROZEN: Round =
    &[&[Snapshot, OldData], &[AskXmax, Raise], &[ReadFloor], &[ScanEvents], &[ScanXids, Prove], &[Read]];
/// The two parts of the lock table the other way round.
pub(super) const XIDS_FIRST: Round =
    &[&[AskXmax], &[Raise], &[ReadFloor], &[Snapshot], &[ScanXids], &[ScanEvents, Prove], &[Read]];
/// The lock table before the snapshot, but after the floor.
pub(super) const LOCKS_BEFORE_SNAPSHOT: Round =
    &[&[AskXmax, Raise], &[ReadFloor], &[ScanEvents], &[ScanXids], &[Snapshot, Prove], &[Read]];
/// A reader without a watcher: tier 0, time and again.
pub(super) const TIER_0: Round = &[&[ReadTier0], &[ReadTier0], &[ReadTier0]];
/// One who raises the floor and reads nothing.
pub(super) const RAISE: Round = &[&[AskXmax], &[Raise]];

/// Planted: the data was read before anybody was looked at.
pub(super) const STALE_DATA: Round =
    &[&[AskXmax, Raise], &[ReadFloor, Snapshot, OldData], &[ScanEvents, ScanXids, Prove], &[Read]];
/// Planted: the floor is taken to be where it would be, had it been raised.
pub(super) const NEVER_RAISED: Round = &[&[AskXmax], &[Snapshot], &[ScanEvents, ScanXids, Prove], &[Read]];
/// Planted: the floor is raised after the scan.
pub(super) const RAISED_LATE: Round =
    &[&[Snapshot], &[ScanEvents, ScanXids], &[AskXmax, Raise, ReadFloor, Prove], &[Read]];
/// Planted: the lock table before the floor, which somebody else raises meanwhile.
pub(super) const LOCKS_BEFORE_FLOOR: Round =
    &[&[AskXmax, Raise], &[ScanEvents, ScanXids], &[ReadFloor], &[Snapshot, Prove], &[Read]];
/// Planted: compared and set in two steps.
pub(super) const RAISE_TORN: Round = &[&[AskXmax], &[Compare], &[Set]];

/// A watcher and its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Watcher {
    /// How many of its steps are done.
    pub(super) done: u8,
    /// What it has seen since its last read.
    pub(super) evidence: Evidence,
    /// The greatest horizon it has read up to, and its checkpoint: what has a lower stamp it will never see
    /// again.
    pub(super) horizon: u8,
    /// How many events of each stream it has read: exactly the first so many.
    pub(super) versions: [u8; STREAMS],
}

/// What a proof rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Evidence {
    floor: u8,
    xmax: u8,
    running: [u8; WRITERS],
    xid_locks: [Owner; WRITERS],
    oaths: [bool; WRITERS],
    events_locks: [Owner; WRITERS],
    /// Whose rows the read is going to see, where that was settled before.
    data: Option<[bool; WRITERS]>,
    /// What it proves; nothing else is kept then.
    horizon: u8,
}

impl Watcher {
    pub(super) fn each_number(&mut self, visit: &mut impl FnMut(&mut u8)) {
        let Self { evidence, horizon, .. } = self;
        visit(horizon);
        visit(&mut evidence.floor);
        visit(&mut evidence.xmax);
        visit(&mut evidence.horizon);
        evidence.running.iter_mut().for_each(visit);
    }
}

/// Takes the next line of one watcher's round. `None` when it is done.
pub(super) fn step(plan: &Plan, state: &State, who: usize) -> Option<Result<State, Fault>> {
    let line = *plan.watchers[who].get(usize::from(state.watchers[who].done))?;
    let mut next = *state;
    next.watchers[who].done += 1;
    for look in line {
        if let Err(fault) = take(plan, &mut next, who, *look) {
            return Some(Err(fault));
        }
    }
    Some(Ok(next))
}

fn take(plan: &Plan, state: &mut State, who: usize, look: Look) -> Result<(), Fault> {
    let mut seen = state.watchers[who].evidence;
    match look {
        AskXmax => seen.floor = state.next_xid,
        Raise => {
            state.floor = state.floor.max(seen.floor);
            state.next_xid += 1;
        }
        Compare if seen.floor > state.floor => {}
        Compare => seen.floor = 0,
        Set if seen.floor == 0 => {}
        Set => {
            state.floor = seen.floor;
            state.next_xid += 1;
        }
        ReadFloor => seen.floor = state.floor,
        Snapshot => {
            (seen.running, seen.xmax) = (state.running(), state.next_xid);
        }
        ScanEvents => seen.events_locks = state.writers.map(|writer| writer.events_lock),
        ScanXids => {
            seen.xid_locks = state.writers.map(|writer| writer.xid_lock);
            seen.oaths = state.writers.map(|writer| writer.oath);
        }
        OldData => seen.data = Some(state.committed()),
        Prove => {
            let horizon = prove(plan, &seen);
            seen = Evidence { horizon, data: seen.data, ..Evidence::default() };
        }
        Read => return read(plan, state, who, seen.horizon),
        ReadTier0 => return read(plan, state, who, xmin(state.running(), state.next_xid)),
    }
    state.watchers[who].evidence = seen;
    Ok(())
}

/// `es_proven_horizon`: greatest(xmin, least(xmax, every xid that has not sworn), least(floor, xmax, every xid without
/// proof)).
fn prove(plan: &Plan, seen: &Evidence) -> u8 {
    let (mut proven, mut sworn) = (seen.floor, seen.xmax);
    if !plan.has(Mistake::NoBoundBySnapshot) {
        proven = proven.min(seen.xmax);
    }
    for (who, xid) in seen.running.into_iter().enumerate().filter(|(_, xid)| *xid > 0) {
        let harmless = is_harmless(plan, seen.xid_locks[who], seen.events_locks[who]);
        if !harmless {
            proven = proven.min(xid);
        }
        if !(harmless && seen.oaths[who]) {
            sworn = sworn.min(xid);
        }
    }
    proven.max(sworn).max(xmin(seen.running, seen.xmax))
}

fn xmin(running: [u8; WRITERS], xmax: u8) -> u8 {
    running.into_iter().filter(|xid| *xid > 0).min().unwrap_or(xmax)
}

/// Whether the two locks prove that their transaction has not appended: its xid is there, and nothing else
/// of its.
fn is_harmless(plan: &Plan, xid: Owner, events: Owner) -> bool {
    match (xid, events) {
        _ if plan.has(Mistake::NobodyIsSuspect) => true,
        (Owner::Nobody, _) => plan.has(Mistake::AbsenceIsProof),
        (_, Owner::Nobody) => true,
        (xid, events) => xid != events && plan.has(Mistake::TwoNames),
    }
}

/// A page: everything between the checkpoint and the horizon, in order.
fn read(plan: &Plan, state: &mut State, who: usize, horizon: u8) -> Result<(), Fault> {
    let Watcher { evidence, horizon: checkpoint, mut versions, done } = state.watchers[who];
    let horizon = horizon.max(checkpoint);
    let is_below = |event: &Event| {
        event.stamp < horizon || plan.has(Mistake::HorizonIsIncluded) && event.stamp == horizon
    };
    let is_due = |event: &Event| event.stamp >= checkpoint && is_below(event);
    let mut page: Vec<Event> =
        state.visible(evidence.data.unwrap_or(state.committed())).filter(is_due).collect();
    page.sort_by_key(|event| event.cursor());
    for event in page {
        let read = &mut versions[usize::from(event.stream)];
        if event.version <= *read {
            return Err(Fault::Doubled);
        }
        if event.version != *read + 1 {
            return Err(Fault::Inverted);
        }
        *read = event.version;
    }
    let unread = |event: Event| event.version > versions[usize::from(event.stream)];
    if state.visible(state.committed()).filter(is_due).any(unread) {
        return Err(Fault::Lost);
    }
    state.watchers[who] = Watcher { evidence: Evidence::default(), horizon, versions, done };
    Ok(())
}

/// Everybody has ended: one more page, and each reader has read everything, once and in order.
pub(super) fn finish(plan: &Plan, state: &State) -> Result<(), Fault> {
    for who in 0..plan.watchers.len() {
        let mut end = *state;
        read(plan, &mut end, who, state.next_xid)?;
        let read = end.watchers[who].versions;
        if (0..STREAMS).any(|stream| read[stream] != state.streams[stream].version) {
            return Err(Fault::Lost);
        }
    }
    Ok(())
}
