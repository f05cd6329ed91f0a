//! `foldd doctor`: everything that order rests on, one line each, and what to do where something is wrong.

use comfy_table::{Table, presets};

use super::args::Doctor;
use super::{Failure, connect_bare, print, print_json};
use crate::config::Loaded;
use crate::store::{self, Finding, Health};

/// Carries the verb out.
pub(crate) async fn run(args: &Doctor, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect_bare(loaded).await?;
    store::require_current(&mut conn).await?;
    let findings = store::examine(&mut conn).await?;
    if args.json {
        print_json(&findings)?;
    } else {
        print(&render(&findings))?;
    }
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| finding.health == Health::Bad)
        .map(|finding| finding.check)
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(Failure::NotMet(format!("to be repaired: {}", bad.join(", ")))) }
}

fn render(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for finding in findings {
        let health = match finding.health {
            Health::Good => "good",
            Health::Poor => "POOR",
            Health::Bad => "BAD",
        };
        let text = match &finding.remedy {
            Some(remedy) => format!("{}\nto do: {remedy}", finding.finding),
            None => finding.finding.clone(),
        };
        table.add_row([health, finding.check, &text]);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
