//! How large the next page is: as large as folds fastest, within the time a batch may take.

use std::time::Duration;

/// The smallest page that is measured for its rate; each further size doubles.
const SMALLEST: i64 = 125;
/// The size to begin with, as a number of doublings.
const FIRST: usize = 3;
/// A larger page must fold so much faster than a smaller one to be worth its size.
const WORTHWHILE: f64 = 1.05;
/// A size that was never tried is tried while the one below it is not much slower than the fastest: where a
/// page costs by the rows that it touches and not by its events, rates stand still for a while, then rise.
const PLATEAU: f64 = 1.25;
/// One batch in so many tries a neighbouring size.
const TRY_EVERY: u32 = 8;

/// What a handler is called for once, and so what a page does to the rows of the read model. As a number: how many doublings
/// are tried at once, while larger pages are still better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// A statement for each event writes a row as often as there are events, in large pages as in small ones. What
    /// the same transaction leaves of a row makes it dearer, and cost rises with the square: a page that finds out
    /// must not be much larger than the best one.
    Event = 1,
    /// A handler in Rust may add up a page, or may not. Where cost rises with the square, the page that finds out
    /// takes 64 times as long as the one before it.
    Handler = 3,
    /// A statement that has the whole page goes to a row once: no square to be afraid of, and each page on the way
    /// up writes most rows again.
    Page = 5,
}

/// Steers the page size of one subscription by what batches measure.
///
/// Keeps the measured rate of each size, goes to the smallest one that is about as fast as the fastest, and tries its
/// neighbours now and then. One hot row makes large pages of single statements slower with the square of their size, so
/// the measure is events a second and not the time of a batch; and since each size remembers its own rate, a noisy moment
/// does not walk it into a corner. No page aims at more time than the target. When a page fails on an event that nobody
/// can name, it is halved, down to one.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Events a second by size, smoothed; 0 where nothing is known.
    rates: Vec<f64>,
    /// The size to use, as a number of doublings.
    at: usize,
    /// The size of the next batch: `at`, or a neighbour on trial.
    next: usize,
    batches: u32,
    most: i64,
    grain: Grain,
    /// While a failing event is hunted: no page is larger.
    hunted: Option<i64>,
}

impl Pace {
    /// `most` bounds every page, in events.
    pub(crate) fn new(most: i64, grain: Grain) -> Self {
        let most = most.max(1);
        let sizes = (0..).take_while(|index| size(*index) <= most).count().max(1);
        let at = FIRST.min(sizes - 1);
        Self { rates: vec![0.0; sizes], at, next: at, batches: 0, most, grain, hunted: None }
    }

    /// The next page, in events, for a batch that may take `target`.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to `most`, which is an i64")]
    pub(crate) fn page(&self, target: Duration) -> i64 {
        let rate = self.rates[self.at];
        let fits = if rate > 0.0 { rate * target.as_secs_f64() } else { size(FIRST) as f64 };
        let next = size(self.next);
        // What does not fit is cut to what does, but only where larger is better.
        let is_near = self.next <= self.at + self.grain as usize;
        let page = if next as f64 <= fits || is_near { next } else { size(self.at) };
        let page = page.min(fits.min(self.most as f64) as i64).clamp(1, self.most);
        self.hunted.map_or(page, |hunted| page.min(hunted))
    }

    /// A batch of `events` committed after `took`; `full` when the page was. A page that was not full measures nothing.
    pub(crate) fn committed(&mut self, events: i64, took: Duration, full: bool) {
        if !full || events < 1 {
            return;
        }
        if let Some(hunted) = self.hunted {
            self.hunted = (hunted < self.most).then_some(hunted.saturating_mul(2));
            return;
        }
        let measured = (0..self.rates.len()).rev().find(|index| size(*index) <= events).unwrap_or(0);
        let rate = events as f64 / took.as_secs_f64().max(1e-6);
        let known = self.rates[measured];
        self.rates[measured] = if known > 0.0 { 0.7 * known + 0.3 * rate } else { rate };
        self.choose();
    }

    /// Halves the page that just failed. `false` when it was a single event already.
    pub(crate) fn shrink(&mut self, failed_page: i64) -> bool {
        self.hunted = Some((failed_page / 2).max(1));
        failed_page > 1
    }

    /// The backlog is gone, and with it the event that was hunted.
    pub(crate) fn idle(&mut self) {
        self.hunted = None;
    }

    fn choose(&mut self) {
        let fastest = self.rates.iter().copied().fold(0.0, f64::max);
        let about = |rate: &f64| *rate * WORTHWHILE >= fastest && *rate > 0.0;
        self.at = self.rates.iter().position(about).unwrap_or(self.at);
        self.batches = self.batches.wrapping_add(1);
        let larger = (self.at + 1).min(self.rates.len() - 1);
        let tried = self.rates.iter().rposition(|rate| *rate > 0.0).unwrap_or(self.at);
        self.next = if tried + 1 < self.rates.len() && self.rates[tried] * PLATEAU >= fastest {
            (tried + self.grain as usize).min(self.rates.len() - 1)
        } else if !self.batches.is_multiple_of(TRY_EVERY) {
            self.at
        } else if (self.batches / TRY_EVERY).is_multiple_of(2) {
            self.at.saturating_sub(1)
        } else {
            larger
        };
    }
}

/// The page after so many doublings, in events.
fn size(doublings: usize) -> i64 {
    SMALLEST
        .saturating_mul(1_i64.checked_shl(u32::try_from(doublings).unwrap_or(62).min(62)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Duration, Grain, Pace};

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs batches against a cost model and returns the page the pace ends at.
    fn settle(pace: &mut Pace, target: Duration, mut cost: impl FnMut(f64) -> f64) -> i64 {
        for _ in 0..200 {
            let page = pace.page(target);
            pace.committed(page, Duration::from_secs_f64(cost(page as f64)), true);
        }
        pace.page(target)
    }

    #[test]
    fn pages_grow_while_larger_ones_are_faster() {
        let page = settle(&mut Pace::new(400_000, Grain::Handler), SECOND, |n| 0.002 + n / 500_000.0);
        assert!(page > 5_000, "a fixed cost of 2 ms is worth larger pages than {page}");
    }

    #[test]
    fn a_plateau_does_not_hide_what_comes_behind_it() {
        // An upsert a page: its rows are the events, until they are all the 20,000 accounts.
        let rows = |n: f64| 20_000.0 * (1.0 - (-n / 20_000.0).exp());
        let page = settle(&mut Pace::new(400_000, Grain::Handler), SECOND, |n| {
            n / 1_000_000.0 + rows(n) / 250_000.0
        });
        assert!(page > 200_000, "{page} events still touch most accounts each time");
    }

    #[test]
    fn whole_pages_reach_a_backlog_of_a_million_in_three() {
        let rows = |n: f64| 100_000.0 * (1.0 - (-n / 100_000.0).exp());
        let (mut pace, mut folded, mut pages) = (Pace::new(2_000_000, Grain::Page), 0, 0);
        while folded < 1_000_000 {
            let page = pace.page(15 * SECOND).min(1_000_000 - folded);
            let cost = 0.01 + page as f64 / 1_000_000.0 + rows(page as f64) / 75_000.0;
            pace.committed(page, Duration::from_secs_f64(cost), true);
            (folded, pages) = (folded + page, pages + 1);
        }
        assert_eq!(pages, 3, "each page more writes most of the 100,000 rows again");
    }

    #[test]
    fn pages_stay_small_where_the_cost_is_quadratic() {
        let cost = |n: f64| 0.001 + n / 100_000.0 + n * n / 2e8;
        let page = settle(&mut Pace::new(400_000, Grain::Handler), SECOND, cost);
        assert!(page < 6_000, "one hot row makes a page of {page} slow");
        let (mut pace, mut largest) = (Pace::new(400_000, Grain::Event), 0.0_f64);
        settle(&mut pace, SECOND, |n| {
            largest = largest.max(n);
            cost(n)
        });
        assert!(largest <= 16_000.0, "a page of {largest} was not needed to find out");
    }

    #[test]
    fn a_batch_aims_at_its_target_time() {
        let target = Duration::from_millis(200);
        let page = settle(&mut Pace::new(400_000, Grain::Handler), target, |n| 0.002 + n / 100_000.0);
        assert!(page <= 22_000, "{page} events take longer than the target");
    }

    #[test]
    fn a_failing_page_is_halved_down_to_one_event_and_grows_again() {
        let mut pace = Pace::new(400_000, Grain::Handler);
        let mut halvings = 0;
        while pace.shrink(pace.page(SECOND)) {
            halvings += 1;
            assert!(halvings < 64);
        }
        assert_eq!(pace.page(SECOND), 1);
        for _ in 0..40 {
            pace.committed(pace.page(SECOND), Duration::from_millis(5), true);
        }
        assert!(pace.page(SECOND) > 100);
    }

    #[test]
    fn a_noisy_machine_does_not_walk_the_page_into_a_corner() {
        let mut pace = Pace::new(400_000, Grain::Handler);
        let mut noise = fastrand::Rng::with_seed(7);
        let page = settle(&mut pace, SECOND, |n| (0.003 + n / 500_000.0) * (1.0 + 9.0 * noise.f64().powi(8)));
        assert!(page >= 2_000, "{page}");
    }

    #[test]
    fn no_page_is_larger_than_the_most() {
        assert_eq!(Pace::new(10, Grain::Handler).page(SECOND), 10);
        assert_eq!(Pace::new(0, Grain::Handler).page(SECOND), 1);
    }
}
