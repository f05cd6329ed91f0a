//! Those who write: `es_append`, a bare INSERT, and others who have nothing to do with the log.

use super::server::{Event, Fault, Mistake, Owner, Plan, State};

/// One step of a transaction, as small as PostgreSQL takes it: others may come between any two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Takes its xid, unless it has one, and is running from now on.
    TakeXid,
    /// Locks its own xid: the row of the lock table by which it can be told from others.
    LockXid,
    /// Takes ROW EXCLUSIVE on es_events.
    LockEvents,
    /// Reads the floor, as es_stamp does.
    ReadFloor,
    /// Takes the oath never to append: another lock.
    Swear,
    /// Locks the stream's row, and waits for whoever has it.
    LockStream(usize),
    /// Draws a position and inserts the stream's next event: es_append.
    Append(usize),
    /// The same by INSERT alone, which knows nothing of the stream's last stamp.
    Insert(usize),
    /// ROLLBACK TO SAVEPOINT, one set before everything but the xid: the rows are void, the locks follow.
    Undo,
    /// Its rows become visible and it is running no longer; its locks are still there.
    Commit,
    /// Its rows are void and it is running no longer.
    Rollback,
    /// Releases es_events.
    UnlockEvents,
    /// Releases the oath.
    UnlockOath,
    /// Releases its xid.
    UnlockXid,
    /// PREPARE TRANSACTION: the lock on its xid goes over to the prepared transaction.
    MoveXid,
    /// And the lock on es_events, sooner or later: they are in different partitions of the lock table.
    MoveEvents,
}

use Op::*;

/// What a transaction does. The steps of one line are taken as one: nobody comes between them.
pub(super) type Program = &'static [&'static [Op]];

const A: usize = 0;
const B: usize = 1;

/// `es_append` alone in its transaction, in the smallest steps.
pub(super) const APPEND: Program = &[
    &[LockEvents],
    &[TakeXid],
    &[LockXid],
    &[ReadFloor],
    &[LockStream(A)],
    &[Append(A)],
    &[Commit],
    &[UnlockEvents],
    &[UnlockXid],
];
/// The same in fewer steps: what is left out changes nothing that others could see.
pub(super) const APPEND_BRIEFLY: Program =
    &[&[LockEvents], &[TakeXid, LockXid], &[ReadFloor], &[LockStream(A), Append(A)], END];
/// The same with a stamp that is computed the other way round.
pub(super) const FLOOR_FIRST: Program =
    &[&[LockEvents], &[ReadFloor], &[TakeXid], &[LockXid], &[LockStream(A), Append(A)], END];
/// It wrote something else first, long ago perhaps.
pub(super) const EARLY: Program =
    &[&[TakeXid], &[LockXid], &[LockEvents], &[ReadFloor], &[LockStream(A), Append(A)], END];
pub(super) const EARLY_BRIEFLY: Program =
    &[&[TakeXid, LockXid], &[LockEvents, ReadFloor], &[LockStream(A), Append(A)], END];
/// The same, to another stream.
pub(super) const EARLY_ASIDE: Program =
    &[&[TakeXid, LockXid], &[LockEvents], &[ReadFloor], &[LockStream(B), Append(B)], END];
/// Those for the great plan, where everybody meets.
pub(super) const APPEND_COARSE: Program =
    &[&[LockEvents, TakeXid, LockXid, ReadFloor], &[LockStream(A), Append(A)], END];
pub(super) const EARLY_COARSE: Program =
    &[&[TakeXid, LockXid], &[LockEvents, ReadFloor], &[LockStream(A), Append(A)], END];
pub(super) const ASIDE_COARSE: Program =
    &[&[TakeXid, LockXid], &[LockEvents, ReadFloor, LockStream(B), Append(B)], END];
/// Two events of one stream in one transaction.
pub(super) const TWICE: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(A), Append(A)],
    &[ReadFloor],
    &[Append(A)],
    END,
];
/// Two streams in one transaction.
pub(super) const BOTH: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(A), Append(A)],
    &[ReadFloor],
    &[LockStream(B), Append(B)],
    END,
];
/// INSERT into es_streams and es_events, into a stream that nobody else writes.
pub(super) const INSERT: Program =
    &[&[TakeXid, LockXid, LockStream(B)], &[LockEvents], &[ReadFloor], &[Insert(B)], END];
/// It appends and thinks better of it.
pub(super) const ROLLED_BACK: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(A), Append(A)],
    &[Rollback],
    &[UnlockEvents, UnlockXid],
];
/// It appends, returns to a savepoint, and appends again.
pub(super) const SECOND_TRY: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(A), Append(A)],
    &[Undo],
    &[UnlockEvents],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(A), Append(A)],
    END,
];
/// It appends and is prepared; its locks move in one order …
pub(super) const PREPARED: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(A), Append(A)],
    &[MoveXid],
    &[MoveEvents],
    &[Commit],
    &[UnlockEvents, UnlockXid],
];
/// … or in the other.
pub(super) const PREPARED_ASIDE: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents],
    &[ReadFloor],
    &[LockStream(B), Append(B)],
    &[MoveEvents],
    &[MoveXid],
    &[Commit],
    &[UnlockEvents, UnlockXid],
];
/// It writes elsewhere.
pub(super) const UNRELATED: Program = &[&[TakeXid], &[LockXid], &[Commit], &[UnlockXid]];
pub(super) const UNRELATED_COARSE: Program = &[&[TakeXid, LockXid], &[Commit, UnlockXid]];
/// A batch of SQL handlers: it swears and writes elsewhere.
pub(super) const BATCH: Program = &[&[Swear], &[TakeXid], &[LockXid], &[Commit], &[UnlockOath], &[UnlockXid]];
pub(super) const BATCH_COARSE: Program = &[&[Swear, TakeXid, LockXid], &[Commit, UnlockOath, UnlockXid]];
/// Planted: swears when it has appended. Its lock on es_events may be younger than the first part of the scan, and the
/// oath older than the second.
pub(super) const SWORN_LATE: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents, ReadFloor],
    &[LockStream(B), Append(B)],
    &[Swear],
    &[Commit, UnlockEvents, UnlockOath, UnlockXid],
];
/// Planted: swears behind a savepoint, and returns to it.
pub(super) const SWORN_FOR_A_WHILE: Program = &[
    &[Swear],
    &[TakeXid, LockXid],
    &[UnlockOath],
    &[LockEvents, ReadFloor],
    &[LockStream(B), Append(B)],
    &[Commit, UnlockEvents, UnlockXid],
];
/// Planted: swears and appends all the same.
pub(super) const FORSWORN: Program = &[
    &[TakeXid, LockXid, Swear],
    &[LockEvents, ReadFloor],
    &[LockStream(B), Append(B)],
    &[Commit, UnlockEvents, UnlockOath, UnlockXid],
];
/// Planted: reads the floor before it holds its lock on es_events.
pub(super) const FLOOR_BEFORE_LOCK: Program =
    &[&[TakeXid, LockXid], &[ReadFloor], &[LockEvents], &[LockStream(B), Append(B)], END];
/// Planted: releases its lock on es_events before it commits.
pub(super) const UNLOCKED_EARLY: Program = &[
    &[TakeXid, LockXid],
    &[LockEvents, ReadFloor],
    &[LockStream(B), Append(B)],
    &[UnlockEvents],
    &[Commit, UnlockXid],
];

/// The commit, and the locks are gone with it.
const END: &[Op] = &[Commit, UnlockEvents, UnlockXid];

/// Takes the next line of one writer's program. `None` while it has to wait, or when it is done.
pub(super) fn step(plan: &Plan, state: &State, who: usize) -> Option<Result<State, Fault>> {
    let line = *plan.writers[who].get(usize::from(state.writers[who].done))?;
    let mut next = *state;
    next.writers[who].done += 1;
    for op in line {
        if let LockStream(stream) = op
            && next.is_locked(*stream)
        {
            return None;
        }
        if let Err(fault) = take(plan, &mut next, who, *op) {
            return Some(Err(fault));
        }
    }
    Some(Ok(next))
}

fn take(plan: &Plan, state: &mut State, who: usize, op: Op) -> Result<(), Fault> {
    let writer = &mut state.writers[who];
    match op {
        TakeXid if writer.xid == 0 => {
            (writer.xid, writer.running) = (state.next_xid, true);
            state.next_xid += 1;
        }
        TakeXid => {}
        LockXid => writer.xid_lock = Owner::Backend,
        LockEvents => writer.events_lock = Owner::Backend,
        ReadFloor => writer.floor = state.floor,
        Swear => writer.oath = true,
        LockStream(stream) => writer.rows[stream] = true,
        Append(stream) | Insert(stream) => insert(plan, state, who, stream, op),
        Undo => (writer.events, writer.rows) = Default::default(),
        Rollback => {
            (writer.events, writer.rows) = Default::default();
            (writer.running, writer.xid) = (false, 0);
        }
        Commit => commit(state, who)?,
        UnlockEvents => writer.events_lock = Owner::Nobody,
        UnlockOath => writer.oath = false,
        UnlockXid => writer.xid_lock = Owner::Nobody,
        MoveXid => writer.xid_lock = Owner::Prepared,
        MoveEvents => writer.events_lock = Owner::Prepared,
    }
    Ok(())
}

/// The row and its stamp. The stream's row is locked, so nobody else gives out its next version.
fn insert(plan: &Plan, state: &mut State, who: usize, stream: usize, op: Op) {
    let writer = &mut state.writers[who];
    let own = writer.events.iter().filter(|event| event.exists() && usize::from(event.stream) == stream);
    let own = own.map(|event| (event.version, event.stamp)).max();
    let committed = (state.streams[stream].version, state.streams[stream].last_stamp);
    let (version, last_stamp) = own.unwrap_or(committed);
    let mut stamp = writer.xid;
    if !plan.has(Mistake::NoFloorTerm) {
        stamp = stamp.max(writer.floor);
    }
    if op == Append(stream) && !plan.has(Mistake::NoStreamTerm) {
        stamp = stamp.max(last_stamp);
    }
    let event = Event {
        stamp,
        position: state.next_position(stamp),
        stream: u8::try_from(stream).expect("there are two"),
        version: version + 1,
    };
    let writer = &mut state.writers[who];
    let free = writer.events.iter().position(|event| !event.exists()).expect("no program appends more");
    writer.events[free] = event;
    writer.floor = 0;
}

/// From now on every new snapshot sees its rows. No reader may have gone past them.
fn commit(state: &mut State, who: usize) -> Result<(), Fault> {
    let writer = &mut state.writers[who];
    (writer.committed, writer.rows) = (true, Default::default());
    (writer.running, writer.xid) = (false, 0);
    for event in writer.events.into_iter().filter(|event| event.exists()) {
        if state.watchers.iter().any(|watcher| event.stamp < watcher.horizon) {
            return Err(Fault::Passed);
        }
        let stream = &mut state.streams[usize::from(event.stream)];
        (stream.version, stream.last_stamp) = (event.version, event.stamp);
    }
    Ok(())
}
