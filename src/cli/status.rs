//! `foldd status`: what every projection does, how far behind and why; once, as JSON, or live.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::args::Status as Args;
use super::{Failure, connect_to_look, print, print_json};
use crate::config::Loaded;
use crate::ledger::holders::{self, WithoutHolder};
use crate::ledger::status::{self, BuildStatus, LagSource, ProjectionStatus, Status};
use crate::store::Link;

/// How often `--watch` looks.
const REFRESH: Duration = Duration::from_secs(1);

/// Carries the verb out.
pub(crate) async fn run(args: &Args, loaded: &Loaded) -> Result<(), Failure> {
    if args.watch {
        return watch(loaded).await;
    }
    let mut conn = connect_to_look(loaded).await?;
    let status = status::read(&mut conn, LagSource::Counted, None).await?;
    if args.json { print_json(&status) } else { print(&render(&status, &lost(&mut conn, &status).await?)) }
}

/// Repaints until interrupted. A database that goes away is said and looked for again.
async fn watch(loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = None;
    loop {
        if conn.is_none() {
            conn = connect_to_look(loaded).await.map_err(|failure| paint(failure.report().1)).ok();
        }
        if let Some(open) = &mut conn {
            match look(open).await {
                Ok(text) => paint(&text),
                Err(failure) => {
                    paint(failure.report().1);
                    conn = None;
                }
            }
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}

async fn look(conn: &mut Link<'_>) -> Result<String, Failure> {
    let status = status::read(conn, LagSource::Counted, None).await?;
    Ok(render(&status, &lost(conn, &status).await?))
}

/// Whom nobody holds although daemons run.
async fn lost(conn: &mut Link<'_>, status: &Status) -> Result<Vec<WithoutHolder>, Failure> {
    if status.replicas.is_empty() { Ok(Vec::new()) } else { Ok(holders::without_holder(conn, None).await?) }
}

/// Clears a terminal first; elsewhere the pictures follow each other.
fn paint(text: &str) {
    let mut out = std::io::stdout().lock();
    let home = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    // Whoever reads may go away; the next interrupt ends us.
    let _ = writeln!(out, "{home}{}\n", super::harmless(text)).and_then(|()| out.flush());
}

/// `without_holder` are those that should have one; while no daemon runs at all, the last line says it for everybody.
fn render(status: &Status, without_holder: &[WithoutHolder]) -> String {
    let store = &status.store;
    let mut text = format!(
        "log: head at position {}, horizon {} (tier {}{})\n",
        grouped(store.head_position),
        store.horizon,
        store.tier,
        if store.horizon_age_seconds >= 1.0 {
            format!(", held for {}", age(store.horizon_age_seconds))
        } else {
            String::new()
        }
    );
    if status.projections.is_empty() {
        text.push_str(
            "no projections yet: put a file into a folder of projection_dirs and start `foldd run`\n",
        );
    } else {
        text.push_str(&table(&status.projections));
        text.push('\n');
    }
    for projection in &status.projections {
        if let Some(build) = &projection.build {
            text.push_str(&format!("\n{}@{}: {}\n", projection.name, projection.version, progress(build)));
        }
    }
    // Who is not held is told below, with the reason.
    for concern in status.concerns.iter().filter(|concern| concern.kind != "unheld") {
        let subject = concern.projection.as_deref().unwrap_or("the log");
        text.push_str(&format!("\n{subject}: {}\n", concern.message));
        if let Some(event) = &concern.event {
            text.push_str(&format!("  event: {event}\n"));
        }
        if let Some(place) = &concern.place {
            text.push_str(&format!("  place: {place}\n"));
        }
        text.push_str(&format!("  to do: {}\n", concern.remedy));
    }
    for lost in without_holder {
        text.push_str(&format!("\n{}: nobody holds it; {}\n", lost.subscription, lost.reason()));
    }
    match status.replicas.as_slice() {
        [] => text.push_str("no daemon is running\n"),
        replicas => {
            for replica in replicas {
                let draining = if replica.draining { ", draining" } else { "" };
                text.push_str(&format!("replica {} holds {}{draining}\n", replica.host, replica.leases));
            }
        }
    }
    text.trim_end().to_owned()
}

/// How far a build is, and what it waits for.
fn progress(build: &BuildStatus) -> String {
    let share = if build.total > 0 { 100.0 * build.done as f64 / build.total as f64 } else { 100.0 };
    let mut text =
        format!("{} of {} events are built ({share:.0} %)", grouped(build.done), grouped(build.total));
    match (&build.waiting_for, build.eta_seconds) {
        (Some(reason), _) => text.push_str(&format!("; it waits for {reason}")),
        (None, Some(eta)) if eta > 0.0 => text.push_str(&format!("; done in {}", age(eta))),
        (None, _) => {}
    }
    text
}

fn table(projections: &[ProjectionStatus]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let parked = projections.iter().any(|projection| projection.dead_letters > 0);
    let mut header = vec!["PROJECTION", "ROLE", "PHASE", "LAG", "BEHIND", "EVENTS/S", "POSITION"];
    header.extend(parked.then_some("DEAD LETTERS"));
    table.set_header(header);
    for projection in projections {
        let position = projection.partitions.iter().map(|part| part.checkpoint.global_position).min();
        let mut row = vec![
            format!("{}@{}", projection.name, projection.version),
            projection.role.clone(),
            projection.phase.clone(),
            grouped(projection.lag_events),
            age(projection.lag_seconds),
            format!("{:.0}", projection.events_per_second),
            position.map_or_else(|| "-".to_owned(), grouped),
        ];
        row.extend(parked.then(|| grouped(projection.dead_letters)));
        table.add_row(row);
    }
    for column in 3..=7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `561 470`: digits in groups, for people.
fn grouped(number: i64) -> String {
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

fn age(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).as_secs();
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

#[cfg(test)]
mod tests {
    use super::{age, grouped};

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1 000"), (561_470, "561 470"), (-1_000, "-1 000")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn ages_are_short() {
        assert_eq!(age(0.04), "0.0 s");
        assert_eq!(age(75.9), "1m 15s");
    }
}
