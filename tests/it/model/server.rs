//! What PostgreSQL keeps: who is running, what is locked, what is in the tables. Numbers are small: the
//! first xid is 1.

use super::appender::Program;
use super::watcher::{Round, Watcher};

pub(super) const WRITERS: usize = 4;
pub(super) const WATCHERS: usize = 2;
pub(super) const STREAMS: usize = 2;

/// All that decides what can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) next_xid: u8,
    pub(super) floor: u8,
    /// The rows of `es_streams`, as committed.
    pub(super) streams: [Stream; STREAMS],
    pub(super) writers: [Writer; WRITERS],
    pub(super) watchers: [Watcher; WATCHERS],
}

/// A row of `es_streams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Stream {
    pub(super) version: u8,
    pub(super) last_stamp: u8,
}

/// A row of `es_events`; without a version there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Event {
    pub(super) stamp: u8,
    pub(super) position: u8,
    pub(super) stream: u8,
    pub(super) version: u8,
}

/// Who holds a lock, as the lock table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) enum Owner {
    /// There is no such lock.
    #[default]
    Nobody,
    /// The backend that runs the transaction.
    Backend,
    /// The prepared transaction, which by then belongs to no backend and keeps the virtual id.
    Prepared,
}

/// A transaction that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Writer {
    /// How many of its steps are done.
    pub(super) done: u8,
    /// 0: none yet.
    pub(super) xid: u8,
    /// In the array of running transactions: a snapshot lists its xid and does not see its rows.
    pub(super) running: bool,
    pub(super) committed: bool,
    pub(super) xid_lock: Owner,
    pub(super) events_lock: Owner,
    /// Whether the lock is there that says that it has sworn not to append.
    pub(super) oath: bool,
    /// Which rows of `es_streams` it has locked.
    pub(super) rows: [bool; STREAMS],
    /// The floor, as it read it.
    pub(super) floor: u8,
    pub(super) events: [Event; 2],
}

impl Event {
    pub(super) fn exists(self) -> bool {
        self.version > 0
    }

    /// Its place in the order of the log.
    pub(super) fn cursor(self) -> (u8, u8) {
        (self.stamp, self.position)
    }
}

impl State {
    pub(super) fn new(watchers: [Watcher; WATCHERS]) -> Self {
        Self {
            next_xid: 1,
            floor: 0,
            streams: [Stream::default(); STREAMS],
            writers: [Writer::default(); WRITERS],
            watchers,
        }
    }

    /// The xids that are running; 0 for who has none or has ended.
    pub(super) fn running(&self) -> [u8; WRITERS] {
        self.writers.map(|writer| if writer.running { writer.xid } else { 0 })
    }

    pub(super) fn is_locked(&self, stream: usize) -> bool {
        self.writers.iter().any(|writer| writer.rows[stream])
    }

    /// What a snapshot sees to which these transactions are committed.
    pub(super) fn visible(&self, committed: [bool; WRITERS]) -> impl Iterator<Item = Event> {
        let visible = self.writers.into_iter().zip(committed).filter(|(_, committed)| *committed);
        visible.flat_map(|(writer, _)| writer.events).filter(|event| event.exists())
    }

    pub(super) fn committed(&self) -> [bool; WRITERS] {
        self.writers.map(|writer| writer.committed)
    }

    /// Behind all that was drawn before. Positions are compared within one stamp only, and so counted by
    /// stamp here.
    pub(super) fn next_position(&self, stamp: u8) -> u8 {
        let drawn = self.writers.iter().flat_map(|writer| writer.events).filter(|event| event.stamp == stamp);
        drawn.map(|event| event.position).max().unwrap_or(0) + 1
    }

    /// The same state without what can make no difference any more: events that all readers have passed,
    /// and how far numbers are apart. That one xid or stamp is above another decides everything, and by how
    /// much nothing.
    pub(super) fn in_small_numbers(mut self, readers: usize) -> Self {
        let passed = self.watchers[..readers].iter().map(|watcher| watcher.horizon).min().unwrap_or(0);
        for writer in self.writers.iter_mut().filter(|writer| writer.committed) {
            for event in writer.events.iter_mut().filter(|event| event.stamp < passed) {
                *event = Event::default();
            }
        }
        let mut used = 1_u64;
        self.each_number(|number| used |= 1 << *number);
        let rank = |number: u8| (used & ((1 << number) - 1)).count_ones();
        self.each_number(|number| *number = u8::try_from(rank(*number)).expect("it is below 64"));
        self
    }

    fn each_number(&mut self, mut visit: impl FnMut(&mut u8)) {
        visit(&mut self.next_xid);
        visit(&mut self.floor);
        for stream in &mut self.streams {
            visit(&mut stream.last_stamp);
        }
        for writer in &mut self.writers {
            visit(&mut writer.xid);
            visit(&mut writer.floor);
            for event in &mut writer.events {
                visit(&mut event.stamp);
            }
        }
        for watcher in &mut self.watchers {
            watcher.each_number(&mut visit);
        }
    }
}

/// Somebody's mistake in the protocol, planted to see that it is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The stamp does not heed the stream's last one.
    NoStreamTerm,
    /// The stamp does not heed the floor.
    NoFloorTerm,
    /// The horizon may lie beyond the newest xid that the snapshot knew.
    NoBoundBySnapshot,
    /// Somebody who runs and is not in the lock table is taken for harmless.
    AbsenceIsProof,
    /// A prepared transaction goes by another virtual id than the backend that prepares it: 13.4 and 14.0
    /// did that.
    TwoNames,
    /// Events stamped with the horizon itself are read.
    HorizonIsIncluded,
    /// The horizon goes as far as the floor whoever is running.
    NobodyIsSuspect,
}

/// A broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// An event was committed below a horizon that somebody has read up to.
    Passed,
    /// A committed event was never delivered.
    Lost,
    /// An event was delivered a second time.
    Doubled,
    /// An event was delivered before an earlier version of its stream.
    Inverted,
    /// Nobody can go on.
    Stuck,
}

/// What may happen in one run of the model.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) writers: &'static [Program],
    pub(super) watchers: &'static [Round],
    pub(super) mistake: Option<Mistake>,
}

impl Plan {
    /// The same with a mistake in it.
    pub(super) const fn but(self, mistake: Mistake) -> Self {
        Self { mistake: Some(mistake), ..self }
    }

    pub(super) fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
