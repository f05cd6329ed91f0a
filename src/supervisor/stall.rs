//! When the horizon is worth proving: committed events wait, and the oldest running transaction does not end.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Observation;

/// For so long short transactions are left to end by themselves.
const PATIENCE: Duration = Duration::from_millis(10);
/// At most a hundred raises a second, while that helps: each takes an xid, a little WAL and a flush. What waits meanwhile
/// are the read models of everybody, behind a build of our own as well.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// While raising does not help, because somebody has appended and does not end.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// What is known of the present stall.
pub(crate) struct Stall {
    /// The horizon, and since when nothing but our raises moves it.
    held: (u64, Instant),
    raise_from: Instant,
    pause: Duration,
}

impl Stall {
    pub(crate) fn new(now: Instant) -> Self {
        Self { held: (0, now), raise_from: now, pause: SHORTEST_PAUSE }
    }

    /// Whether to raise the floor now.
    pub(crate) fn is_due(&mut self, seen: &Observation, now: Instant) -> bool {
        // Lower it is only where nothing waits and so nothing was proven.
        if seen.horizon.transaction_id() > self.held.0 {
            self.held = (seen.horizon.transaction_id(), now);
        }
        seen.withholds && now - self.held.1 >= PATIENCE && now >= self.raise_from
    }

    /// Notes that the floor was raised, and where the horizon stood before and stands since.
    pub(crate) fn raised(&mut self, before: u64, since: u64, now: Instant) {
        self.held.0 = since;
        self.pause = if since > before { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        self.raise_from = now + self.pause;
    }
}
