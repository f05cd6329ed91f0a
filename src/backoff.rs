//! How long to wait before the next try: doubling, capped, jittered.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(50);
/// No wait is longer. A connection and what runs on it both wait, one after the other, and half a minute after an outage
/// everything is to be as it was.
const CAP: Duration = Duration::from_secs(5);

/// Counts tries and says how long to wait before the next one.
///
/// Full jitter between half and the whole of the step, so that replicas that lost the same server do not all come
/// back in the same instant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The wait before the next try; each call counts one try.
    pub(crate) fn next(&mut self) -> Duration {
        let step = FIRST.saturating_mul(1 << self.tries.min(16)).min(CAP);
        self.tries = self.tries.saturating_add(1);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: the next failure starts over.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, CAP, FIRST};

    #[test]
    fn waits_grow_stay_under_the_cap_and_start_over() {
        let mut backoff = Backoff::default();
        let first = backoff.next();
        assert!(first >= FIRST / 2 && first <= FIRST);
        let waits: Vec<_> = (0..100).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| *wait <= CAP));
        assert!(waits[99] >= CAP / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
