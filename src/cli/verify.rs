//! `foldd verify NAME`: is the read model what the log gives?

use serde::Serialize;

use super::args::Verify;
use super::aside::{Bar, configured, in_a_room};
use super::{Failure, print, print_json};
use crate::config::Loaded;
use crate::engine::scratch::verify::{Compared, Question, Undetermined, Verified, verify};
use crate::projection::handler::Registry;

/// `verify --json`
#[derive(Serialize)]
struct Shown<'a> {
    projection: &'a str,
    version: i32,
    drift: bool,
    checkpoints: Vec<String>,
    events: i64,
    parked_events: i64,
    seconds: f64,
    tables: &'a [Compared],
}

/// Carries the verb out.
pub(crate) async fn run(args: &Verify, loaded: &Loaded, registry: &Registry) -> Result<(), Failure> {
    let configured = configured(loaded, registry, &args.name)?;
    let question = Question {
        name: &args.name,
        version: args.version,
        configured: configured.as_ref(),
        ignored: &args.ignore,
        shown: args.show,
    };
    let bar = Bar::new(args.quiet);
    let verified = in_a_room(loaded, &args.name, async |conn, schema| {
        let mut passed = |events| bar.passed(events);
        verify(conn, &question, schema, &|events| bar.total(events), &mut passed).await
    })
    .await;
    let seconds = bar.end();
    let verified = verified?;
    let differing = verified.tables.iter().filter(|table| table.differs()).count();
    if args.json {
        print_json(&Shown {
            projection: &args.name,
            version: verified.version,
            drift: differing > 0,
            checkpoints: verified.checkpoints.iter().map(ToString::to_string).collect(),
            events: verified.events,
            parked_events: verified.parked,
            seconds,
            tables: &verified.tables,
        })?;
    } else {
        print(&table_of(args, &verified, seconds))?;
    }
    if differing == 0 {
        return Ok(());
    }
    Err(Failure::NotMet(format!(
        "{}@{} is not what the log gives: {differing} of {} tables differ; if nobody may have changed them by hand, see \
         whether the handlers depend on anything but their events, then build it anew",
        args.name,
        verified.version,
        verified.tables.len()
    )))
}

fn table_of(args: &Verify, verified: &Verified, seconds: f64) -> String {
    let mut text = String::new();
    for table in &verified.tables {
        text.push_str(&one(table));
    }
    let checkpoints: Vec<String> = verified.checkpoints.iter().map(ToString::to_string).collect();
    let parked = match verified.parked {
        0 => String::new(),
        parked => format!(", {parked} parked ones left out"),
    };
    text.push_str(&format!(
        "{}@{} up to checkpoint {}: {} events folded and compared in {seconds:.1} s{parked}",
        args.name,
        verified.version,
        checkpoints.join(", "),
        verified.events
    ));
    text
}

/// Columns that events do not determine, and how to leave them out.
fn left_out(table: &str, beyond: &Undetermined) -> String {
    let ignore: Vec<String> =
        beyond.columns.iter().map(|column| format!("--ignore {table}.{column}")).collect();
    let rest = match (beyond.missing_rows, beyond.unexpected_rows) {
        (0, 0) => "all rows agree".to_owned(),
        (missing, unexpected) => format!("{missing} missing and {unexpected} unexpected rows remain"),
    };
    format!(
        "  not from the events, it seems: {}; left out, {rest}: {}\n",
        beyond.columns.join(", "),
        ignore.join(" ")
    )
}

fn one(table: &Compared) -> String {
    let name = &table.table;
    if !table.exists {
        return format!("{name}: is missing; the log gives {} rows\n", table.folded_rows);
    }
    let mut text = if table.differs() {
        format!(
            "{name}: {} rows, the log gives {}: {} missing, {} unexpected\n",
            table.live_rows, table.folded_rows, table.missing_rows, table.unexpected_rows
        )
    } else {
        format!("{name}: {} rows, all as the log gives them\n", table.live_rows)
    };
    if !table.ignored.is_empty() {
        text.push_str(&format!("  not compared: {}\n", table.ignored.join(", ")));
    }
    for (columns, what) in [
        (&table.columns_missing, "columns of the definition that the table does not have"),
        (&table.columns_unexpected, "columns that the definition does not have"),
    ] {
        if !columns.is_empty() {
            text.push_str(&format!("  {what}: {}\n", columns.join(", ")));
        }
    }
    if !table.differences.is_empty() {
        text.push_str(&format!(
            "  ({})    - only in the log, + only in the table\n",
            table.columns.join(",")
        ));
    }
    for difference in &table.differences {
        let sign = if difference.only_in == "log" { '-' } else { '+' };
        let times =
            if difference.times > 1 { format!("  ({} times)", difference.times) } else { String::new() };
        text.push_str(&format!("  {sign} {}{times}\n", difference.row));
    }
    if let Some(beyond) = &table.undetermined {
        text.push_str(&left_out(name, beyond));
    }
    let more = table.missing_rows.saturating_add(table.unexpected_rows)
        - table.differences.iter().map(|difference| difference.times).sum::<i64>();
    if more > 0 {
        text.push_str(&format!("  … and {more} more; --show ROWS shows them\n"));
    }
    text
}
