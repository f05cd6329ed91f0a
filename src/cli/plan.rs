//! `foldd plan`: what starting a daemon with this configuration would change, and why.

use super::args::Plan;
use super::{Failure, catalog, connect_bare, print, print_json};
use crate::config::Loaded;
use crate::engine::build::foresee::{Foreseen, foresee, of_the_store, others};
use crate::projection::handler::Registry;

/// Carries the verb out.
pub(crate) async fn run(args: &Plan, loaded: &Loaded, registry: &Registry) -> Result<(), Failure> {
    let projections = catalog::projections(loaded, registry)?;
    let mut conn = connect_bare(loaded).await?;
    let mut plan = Vec::new();
    match crate::store::require_current(&mut conn).await {
        Ok(()) => {
            for projection in &projections {
                plan.push(foresee(&mut conn, projection).await?);
            }
            let names: Vec<&str> = projections.iter().map(|projection| projection.name.as_str()).collect();
            plan.extend(others(&mut conn, &names).await?);
        }
        // Adopting, creating and migrating are one step of the start; what follows from it shows afterwards.
        Err(crate::EventStoreError::OlderSchema { found, .. }) => {
            let store = of_the_store(&mut conn, found).await?;
            let is_refused = store.action == "refused";
            plan.push(store);
            plan.extend(projections.iter().filter(|_| !is_refused).map(Foreseen::first));
        }
        Err(error) => return Err(error.into()),
    }
    if args.json {
        print_json(&plan)?;
    } else {
        for line in &plan {
            print(&text(line))?;
        }
        if plan.is_empty() {
            print("no projection is configured, and the database has none")?;
        }
    }
    match plan.iter().filter(|line| line.changes).count() {
        0 => Ok(()),
        _ if !args.check => Ok(()),
        1 => Err(Failure::NotMet("1 thing would change, or cannot be as it is configured".to_owned())),
        many => {
            Err(Failure::NotMet(format!("{many} things would change, or cannot be as they are configured")))
        }
    }
}

/// One line, and what belongs to it below.
fn text(line: &Foreseen) -> String {
    let mut text = format!("{:<9} {}: {}", line.action, line.projection, line.reason);
    let mut add = |label: &str, what: &str| text.push_str(&format!("\n          {label}: {what}"));
    if !line.changed_columns.is_empty() {
        add("columns change", &line.changed_columns.join(", "));
        add(
            "remedy",
            "a prepared `select *` over them fails once after the cut-over; name columns, or retry",
        );
    }
    for dependent in &line.dependents {
        add("stays on the old tables", dependent);
    }
    if let Some(remedy) = &line.remedy {
        add("remedy", remedy);
    }
    if let Some(diff) = &line.diff {
        add("what differs", "");
        for changed in diff.lines() {
            text.push_str(&format!("\n            {changed}"));
        }
    }
    text
}
