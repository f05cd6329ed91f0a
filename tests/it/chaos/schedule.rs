//! What goes wrong when: a pure function of a seed and a length.
//!
//! A schedule is made of lanes, one for each thing that can be hurt: a daemon's process, a link between a
//! client and the server, the server. Within a lane faults never overlap, so each can be ended before the
//! next begins; lanes know nothing of each other, so all of them overlap with all others sooner or later. A
//! lane deals its faults from a deck that is shuffled when it is empty: every kind comes up, in any order. A
//! longer schedule begins as a shorter one does.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::stage::{CONFIGURATIONS, DAEMONS, LINKS};

/// How long a replica that fell silent keeps what it holds.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// What is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lane {
    /// A daemon's process.
    Daemon(usize),
    /// What lies between a daemon and the server, or, for the last one, between the appenders and it.
    Link(usize),
    /// PostgreSQL.
    Server,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    /// SIGKILL; started again afterwards.
    Kill,
    /// SIGSTOP for less than the lease, then SIGCONT.
    Freeze,
    /// SIGSTOP for longer than the lease.
    FreezeBeyondLease,
    /// SIGTERM; started again under another configuration.
    Roll { configuration: usize },
    /// Everything takes longer by so much, either way.
    Slow { milliseconds: u64 },
    /// What the client says does not arrive, until it ends.
    DeafServer,
    /// What the server says does not arrive, until it ends.
    DeafClient,
    /// All connections are reset.
    Reset,
    /// So many commits reach the server, and their answers nobody.
    LoseAnswers { commits: u32 },
    /// So many sessions are terminated while they commit.
    TerminateAtCommit { commits: u32 },
    /// The server stops as in a crash, and starts again.
    Crash,
    /// Some sessions are terminated, whatever they do.
    Terminate { one_in: u32 },
    /// Nobody gets at any checkpoint.
    LockTable,
    /// Nobody gets past the checkpoints' rows.
    LockRows,
}

impl Fault {
    /// Its kind, for the figures.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Freeze => "SIGSTOP below the lease",
            Self::FreezeBeyondLease => "SIGSTOP above the lease",
            Self::Roll { .. } => "SIGTERM and another configuration",
            Self::Slow { .. } => "latency",
            Self::DeafServer => "blackhole to the server",
            Self::DeafClient => "blackhole to the client",
            Self::Reset => "RST",
            Self::LoseAnswers { .. } => "cut between commit and answer",
            Self::TerminateAtCommit { .. } => "terminated at commit",
            Self::Crash => "immediate stop of PostgreSQL",
            Self::Terminate { .. } => "terminated at random",
            Self::LockTable => "lock on es_subscriptions",
            Self::LockRows => "lock on its rows",
        }
    }

    /// How long it lasts, in milliseconds: at least, and below.
    fn lasts(self) -> (u64, u64) {
        match self {
            Self::Kill => (20, 800),
            Self::Freeze => (200, 1_400),
            Self::FreezeBeyondLease => (2_300, 4_000),
            Self::Roll { .. } => (20, 100),
            Self::Slow { .. } => (400, 1_800),
            Self::DeafServer | Self::DeafClient => (200, 2_600),
            Self::Reset | Self::Terminate { .. } => (1, 2),
            Self::LoseAnswers { .. } | Self::TerminateAtCommit { .. } => (500, 1_500),
            Self::Crash => (20, 600),
            Self::LockTable | Self::LockRows => (200, 1_800),
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// From the beginning on.
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) lane: Lane,
    pub(super) fault: Fault,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:8.3} s  {lasts:6.3} s  {:?}  {:?}", self.lane, self.fault)
    }
}

/// All faults of a run, by their time.
pub(super) fn schedule(seed: u64, length: Duration) -> Vec<Entry> {
    let lanes = (0..DAEMONS).map(Lane::Daemon).chain((0..LINKS).map(Lane::Link)).chain([Lane::Server]);
    let mut all: Vec<Entry> = lanes
        .zip(1..)
        .flat_map(|(lane, number)| {
            fill(lane, Rng::with_seed(seed.wrapping_mul(31).wrapping_add(number)), length)
        })
        .collect();
    all.sort_by_key(|entry| (entry.at, entry.lane));
    all
}

fn fill(lane: Lane, mut random: Rng, length: Duration) -> Vec<Entry> {
    let (mut entries, mut deck, mut at) = (Vec::new(), Vec::new(), Duration::ZERO);
    loop {
        if deck.is_empty() {
            deck = deal(lane, &mut random);
            random.shuffle(&mut deck);
        }
        let Some(fault) = deck.pop() else { return entries };
        let (least, below) = fault.lasts();
        let lasts = Duration::from_millis(random.u64(least..below));
        at += Duration::from_millis(random.u64(pause(lane)));
        if at + lasts > length {
            return entries;
        }
        entries.push(Entry { at, lasts, lane, fault });
        at += lasts;
    }
}

/// How long a lane is left in peace before each of its faults, in milliseconds.
fn pause(lane: Lane) -> std::ops::Range<u64> {
    match lane {
        Lane::Daemon(_) => 800..3_200,
        Lane::Link(_) => 400..2_400,
        Lane::Server => 500..2_800,
    }
}

fn deal(lane: Lane, random: &mut Rng) -> Vec<Fault> {
    let commits = random.u32(1..4);
    match lane {
        Lane::Daemon(_) => {
            let configuration = random.usize(..CONFIGURATIONS);
            vec![
                Fault::Kill,
                Fault::Kill,
                Fault::Freeze,
                Fault::FreezeBeyondLease,
                Fault::Roll { configuration },
            ]
        }
        Lane::Link(_) => vec![
            Fault::Slow { milliseconds: random.u64(2..60) },
            Fault::DeafServer,
            Fault::DeafClient,
            Fault::Reset,
            Fault::LoseAnswers { commits },
            Fault::LoseAnswers { commits: 1 },
            Fault::TerminateAtCommit { commits },
        ],
        Lane::Server => {
            let terminate = Fault::Terminate { one_in: random.u32(1..4) };
            vec![Fault::Crash, terminate, terminate, Fault::LockTable, Fault::LockRows]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_seed_gives_one_schedule_and_a_longer_one_begins_like_it() {
        for seed in 0..200 {
            let short = schedule(seed, MINUTE);
            assert_eq!(short, schedule(seed, MINUTE));
            let long = schedule(seed, MINUTE * 2);
            // What would not have ended in the short one is left out there, and all of its lane behind it.
            assert!(short.iter().all(|entry| long.contains(entry)), "seed {seed}");
        }
        assert_ne!(schedule(1, MINUTE), schedule(2, MINUTE));
    }

    #[test]
    fn a_minute_has_a_hundred_faults_and_every_kind() {
        for seed in 0..200 {
            let all = schedule(seed, MINUTE);
            assert!(all.len() >= 100, "seed {seed}: {}", all.len());
            let kinds: BTreeSet<&str> = all.iter().map(|entry| entry.fault.kind()).collect();
            assert_eq!(kinds.len(), 14, "seed {seed}: {kinds:?}");
        }
    }

    #[test]
    fn each_fault_ends_before_the_next_of_its_lane_and_before_the_end() {
        for seed in 0..200 {
            let mut ends: BTreeMap<Lane, Duration> = BTreeMap::new();
            for entry in schedule(seed, MINUTE) {
                let end = entry.at + entry.lasts;
                assert!(end <= MINUTE, "seed {seed}: {entry}");
                let before = ends.insert(entry.lane, end).unwrap_or_default();
                assert!(before <= entry.at, "seed {seed}: {entry}");
            }
        }
    }

    #[test]
    fn a_freeze_stays_on_its_side_of_the_lease() {
        for entry in (0..200).flat_map(|seed| schedule(seed, MINUTE)) {
            match entry.fault {
                Fault::Freeze => assert!(entry.lasts < LEASE),
                Fault::FreezeBeyondLease => assert!(entry.lasts > LEASE),
                _ => {}
            }
        }
    }
}
