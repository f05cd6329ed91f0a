//! What an import shows while it runs: a bar at a terminal, elsewhere a line for each tenth of the input.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::writer::Tally;

/// Of an input without a length, a line at so many events, at twice as many, and so on …
const FIRST_LINE: u64 = 10_000;
/// … and from here on each time that so many more are in.
const LONGEST_GAP: u64 = 1_000_000;

/// The progress of one import, on standard error.
pub(super) struct Shown {
    bar: ProgressBar,
    /// Where nobody watches a bar.
    lines: Option<Lines>,
    started: Instant,
}

/// When the next line is due.
struct Lines {
    total: Option<u64>,
    /// In tenths of the input, or in events.
    next: u64,
}

impl Shown {
    /// Of an input of so many bytes, where that is known.
    pub(super) fn new(total: Option<u64>, quiet: bool) -> Self {
        let is_watched = std::io::stderr().is_terminal();
        let bar = if quiet || !is_watched { ProgressBar::hidden() } else { bar(total) };
        let lines = (!quiet && !is_watched).then(|| Lines::of(total));
        Self { bar, lines, started: Instant::now() }
    }

    /// A block is in, up to this byte of the input.
    pub(super) fn block(&mut self, read: u64, tally: &Tally) {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = tally.appended as f64 / seconds.max(1e-6);
        let done = format!("{} events, {rate:.0}/s", tally.appended);
        if let Some(line) = self.lines.as_mut().and_then(|lines| lines.due(read, tally)) {
            eprintln!("{line}{done}");
        }
        self.bar.set_position(read);
        self.bar.set_message(done);
    }

    /// Does something that may write to standard error itself.
    pub(super) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Since when.
    pub(super) fn started(&self) -> Instant {
        self.started
    }
}

impl Lines {
    fn of(total: Option<u64>) -> Self {
        Self { total, next: if total.is_some() { 1 } else { FIRST_LINE } }
    }

    /// How the line begins that is due, if one is. The end of the input is no line: the summary follows.
    fn due(&mut self, read: u64, tally: &Tally) -> Option<String> {
        let Some(total) = self.total else {
            let passed = tally.appended + tally.there;
            let is_due = passed >= self.next;
            while passed >= self.next {
                self.next += self.next.min(LONGEST_GAP);
            }
            return is_due.then(String::new);
        };
        let tenths = read.saturating_mul(10) / total.max(1);
        if tenths < self.next || tenths >= 10 {
            return None;
        }
        self.next = tenths + 1;
        Some(format!("{tenths}0 % read: "))
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            "{bar:30} {percent:>3} %  {binary_bytes_per_sec}  {msg}  {elapsed} of about {duration}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, Tally};

    fn tally(appended: u64) -> Tally {
        Tally { appended, ..Tally::default() }
    }

    #[test]
    fn each_tenth_of_the_input_is_one_line_at_most_and_the_end_is_none() {
        let mut lines = Lines::of(Some(1_000));
        let due: Vec<_> =
            (0..=1_000).step_by(7).chain([1_000]).filter_map(|read| lines.due(read, &tally(1))).collect();
        let expected: Vec<_> = (1..10).map(|tenth| format!("{tenth}0 % read: ")).collect();
        assert_eq!(due, expected);
        assert_eq!(Lines::of(Some(0)).due(0, &tally(0)), None);
        let mut coarse = Lines::of(Some(10));
        assert_eq!(coarse.due(7, &tally(1)).as_deref(), Some("70 % read: "), "some are passed at once");
        assert_eq!(coarse.due(7, &tally(2)), None);
    }

    #[test]
    fn an_input_without_a_length_is_told_of_ever_more_rarely() {
        let mut lines = Lines::of(None);
        let due: Vec<_> = (0..5_000_000)
            .step_by(1_000)
            .filter(|appended| lines.due(0, &tally(*appended)).is_some())
            .collect();
        assert_eq!(due[..4], [10_000, 20_000, 40_000, 80_000]);
        assert_eq!(due.len(), 11, "{due:?}");
    }
}
