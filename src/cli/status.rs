//! `foldd status`: what every projection does, how far behind and why; once, as JSON, or live.

mod table;
mod watch;

use super::args::Status as Args;
use super::paint::{Line, Paint, Tone};
use super::{Failure, connect_to_look, print_json};
use crate::config::Loaded;
use crate::ledger::concerns::Gravity;
use crate::ledger::holders::{self, WithoutHolder};
use crate::ledger::status::{self, BuildStatus, LagSource, Status};
use crate::store::Link;
use table::{Trends, age, grouped};

/// Carries the verb out.
pub(crate) async fn run(args: &Args, loaded: &Loaded) -> Result<(), Failure> {
    let paint = Paint::for_output(loaded);
    if args.watch {
        return watch::watch(loaded, paint).await;
    }
    let mut conn = connect_to_look(loaded).await?;
    let status = status::read(&mut conn, LagSource::Counted, None).await?;
    if args.json {
        return print_json(&status);
    }
    let lost = lost(&mut conn, &status).await?;
    paint.print(&picture(&status, &lost, None))
}

/// Whom nobody holds although daemons run.
async fn lost(conn: &mut Link<'_>, status: &Status) -> Result<Vec<WithoutHolder>, Failure> {
    if status.replicas.is_empty() { Ok(Vec::new()) } else { Ok(holders::without_holder(conn, None).await?) }
}

/// The whole picture: a verdict, the log, every projection, what concerns somebody, every replica.
///
/// `without_holder` are those that should have one; while no daemon runs at all, a concern says it for everybody.
fn picture(status: &Status, without_holder: &[WithoutHolder], trends: Option<&Trends>) -> Vec<Line> {
    let store = &status.store;
    let held = if store.horizon_age_seconds >= 1.0 {
        format!(", held for {}", age(store.horizon_age_seconds))
    } else {
        String::new()
    };
    let head = grouped(store.head_position);
    let mut lines = vec![
        verdict(status, without_holder.len()),
        Line::new(
            Tone::Plain,
            format!("log: head at position {head}, horizon {} (tier {}{held})", store.horizon, store.tier),
        ),
    ];
    if status.projections.is_empty() {
        let text = "no projections yet: put a file into a folder of projection_dirs and start `foldd run`";
        lines.push(Line::new(Tone::Plain, text));
    }
    let mut table = table::lines(status, trends).into_iter();
    if !status.projections.is_empty() {
        let head = table.next().unwrap_or_default();
        let at = head.find("PHASE").unwrap_or(0);
        lines.push(Line::new(Tone::Soft, head));
        lines.extend(table.zip(&status.projections).map(|(text, projection)| Line {
            part: Some((at, projection.phase.len(), tone(&projection.phase))),
            ..Line::new(Tone::Plain, text)
        }));
    }
    for projection in &status.projections {
        if let Some(build) = &projection.build {
            let text = format!("{}: {}", table::id(projection), progress(build));
            lines.extend([Line::new(Tone::Plain, ""), Line::new(Tone::Plain, text)]);
        }
    }
    // Who is not held is told below, with the reason.
    for concern in status.concerns.iter().filter(|concern| concern.kind != "unheld") {
        let subject = concern.projection.as_deref().unwrap_or("the log");
        let tone = match concern.gravity {
            Gravity::Bad => Tone::Bad,
            Gravity::Poor => Tone::Poor,
        };
        lines.push(Line::new(Tone::Plain, ""));
        let heading = format!("{subject}: {}", concern.message);
        lines.push(Line { part: Some((0, subject.len(), tone)), ..Line::new(Tone::Plain, heading) });
        if let Some(event) = &concern.event {
            lines.push(Line::new(Tone::Plain, format!("  event: {event}")));
        }
        if let Some(place) = &concern.place {
            lines.push(Line::new(Tone::Plain, format!("  place: {place}")));
        }
        lines.push(Line::new(Tone::Plain, format!("  to do: {}", concern.remedy)));
    }
    for lost in without_holder {
        let heading = format!("{}: nobody holds it; {}", lost.subscription, lost.reason());
        lines.push(Line::new(Tone::Plain, ""));
        lines.push(Line {
            part: Some((0, lost.subscription.len(), Tone::Poor)),
            ..Line::new(Tone::Plain, heading)
        });
    }
    if !status.replicas.is_empty() {
        lines.push(Line::new(Tone::Plain, ""));
    }
    for replica in &status.replicas {
        let draining = if replica.draining { ", draining" } else { "" };
        let text = format!("replica {} holds {}{draining}", replica.host, replica.leases);
        lines.push(Line::new(Tone::Soft, text));
    }
    lines
}

/// How far a build is, and what it waits for.
fn progress(build: &BuildStatus) -> String {
    let share = if build.total > 0 { 100.0 * build.done as f64 / build.total as f64 } else { 100.0 };
    let mut text =
        format!("{} of {} events are built ({share:.0} %)", grouped(build.done), grouped(build.total));
    match (&build.waiting_for, build.eta_seconds) {
        // What to do about it stands below.
        (Some(reason), _) => {
            let what = reason.split_once("; ").map_or(reason.as_str(), |(what, _)| what);
            text.push_str(&format!("; it waits for {what}"));
        }
        (None, Some(eta)) if eta > 0.0 => text.push_str(&format!("; done in {}", age(eta))),
        (None, _) => {}
    }
    text
}

fn verdict(status: &Status, without_holder: usize) -> Line {
    let bad = status.concerns.iter().filter(|concern| concern.gravity == Gravity::Bad).count();
    let poor =
        status.concerns.iter().filter(|concern| concern.kind != "unheld").count() - bad + without_holder;
    match (bad, poor) {
        (0, 0) => Line::new(Tone::Good, "● all is well"),
        (0, 1) => Line::new(Tone::Poor, "▲ 1 thing to look at, the rest is well"),
        (0, poor) => Line::new(Tone::Poor, format!("▲ {poor} things to look at, the rest is well")),
        (1, _) => Line::new(Tone::Bad, "◆ 1 thing needs you now"),
        (bad, _) => Line::new(Tone::Bad, format!("◆ {bad} things need you now")),
    }
}

fn tone(phase: &str) -> Tone {
    match phase {
        "live" => Tone::Good,
        "halted" => Tone::Bad,
        "paused" | "backing_off" => Tone::Poor,
        _ => Tone::Plain,
    }
}
