//! The table of projections, and how numbers and ages are written in it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::ledger::status::{ProjectionStatus, Status};

/// The last lags of each projection, by its id; what has none draws none.
pub(super) type Trends = HashMap<String, VecDeque<i64>>;

/// How many of them are drawn.
pub(super) const TREND: usize = 20;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The lines of the table, the head first; the projections' lines follow in the order of the status.
pub(super) fn lines(status: &Status, trends: Option<&Trends>) -> Vec<String> {
    let parked = status.projections.iter().any(|projection| projection.dead_letters > 0);
    let mut header =
        vec!["PROJECTION", "ROLE", "PHASE", "LAG", "BEHIND", "EVENTS/S", "TO GO", "POSITION", "HELD BY"];
    let numbers = 3..=7;
    header.extend(trends.is_some().then_some("LAG, LATELY"));
    header.extend(parked.then_some("DEAD LETTERS"));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for projection in &status.projections {
        let position = projection.partitions.iter().map(|part| part.checkpoint.global_position).min();
        let mut row = vec![
            id(projection),
            projection.role.clone(),
            projection.phase.clone(),
            grouped(projection.lag_events),
            age(projection.lag_seconds),
            format!("{:.0}", projection.events_per_second),
            to_go(projection),
            position.map_or_else(|| "-".to_owned(), grouped),
            holders(projection, status),
        ];
        row.extend(trends.map(|trends| trends.get(&id(projection)).map_or_else(String::new, trend)));
        row.extend(parked.then(|| grouped(projection.dead_letters)));
        table.add_row(row);
    }
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// `fines@2`
pub(super) fn id(projection: &ProjectionStatus) -> String {
    format!("{}@{}", projection.name, projection.version)
}

/// When it will have caught up, at the rate of now.
fn to_go(projection: &ProjectionStatus) -> String {
    let built = projection.build.as_ref().and_then(|build| build.eta_seconds);
    let left = projection.lag_events as f64;
    let rate = projection.events_per_second;
    match built.or_else(|| (left > 0.0 && rate > 0.0).then(|| left / rate)) {
        Some(eta) if left > 0.0 => age(eta),
        _ => "-".to_owned(),
    }
}

/// The hosts of the replicas that hold its partitions, each once.
fn holders(projection: &ProjectionStatus, status: &Status) -> String {
    let held = projection.partitions.iter().filter_map(|part| part.holder);
    let mut hosts: Vec<&str> = held
        .filter_map(|holder| status.replicas.iter().find(|replica| replica.id == holder))
        .map(|replica| replica.host.as_str())
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    if hosts.is_empty() { "-".to_owned() } else { hosts.join(", ") }
}

/// A line of bars, as high as the greatest of them.
fn trend(lags: &VecDeque<i64>) -> String {
    let most = lags.iter().copied().max().unwrap_or(0).max(1);
    let bar = |lag: &i64| {
        let step = usize::try_from(lag.clamp(&0, &most) * 7 / most).unwrap_or(0);
        BARS[step.min(BARS.len() - 1)]
    };
    lags.iter().map(bar).collect()
}

/// `561 470`: digits in groups, for people.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

pub(super) fn age(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

#[cfg(test)]
mod tests {
    use super::{age, grouped, trend};

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1 000"), (561_470, "561 470"), (-1_000, "-1 000")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_trend_is_as_high_as_its_greatest() {
        assert_eq!(trend(&[0, 7, 14].into()), "▁▄█");
        assert_eq!(trend(&[0, 0].into()), "▁▁");
        assert_eq!(trend(&[i64::MAX / 8, 0].into()), "█▁");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(age(0.04), "0.0 s");
        assert_eq!(age(75.9), "1m 15s");
    }
}
