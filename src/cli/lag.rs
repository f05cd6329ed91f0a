//! `foldd lag`: how far behind, exactly, and a gate for scripts.

use super::args::Lag;
use super::{Failure, connect_to_look, print, print_json};
use crate::config::Loaded;
use crate::ledger::status::{self, LagSource, ProjectionStatus};

/// Carries the verb out.
pub(crate) async fn run(args: &Lag, loaded: &Loaded) -> Result<(), Failure> {
    let mut conn = connect_to_look(loaded).await?;
    let status = status::read(&mut conn, LagSource::Counted, args.name.as_deref()).await?;
    if let (Some(name), true) = (&args.name, status.projections.is_empty()) {
        return Err(Failure::Failed(format!("there is no projection '{name}'; `foldd status` lists them")));
    }
    if args.json {
        let lines: Vec<_> = status.projections.iter().map(json).collect();
        print_json(&lines)?;
    } else {
        for projection in &status.projections {
            print(&format!(
                "{}@{}: {} events, {:.1} s",
                projection.name, projection.version, projection.lag_events, projection.lag_seconds
            ))?;
        }
    }
    let Some(limit) = args.fail_above else { return Ok(()) };
    let behind: Vec<_> = status
        .projections
        .iter()
        .filter(|projection| projection.lag_events.unsigned_abs() > limit)
        .map(|projection| {
            format!("{}@{} is {} events behind", projection.name, projection.version, projection.lag_events)
        })
        .collect();
    if behind.is_empty() {
        Ok(())
    } else {
        Err(Failure::NotMet(format!("{}, more than {limit}", behind.join(", "))))
    }
}

fn json(projection: &ProjectionStatus) -> serde_json::Value {
    serde_json::json!({
        "name": projection.name,
        "version": projection.version,
        "lag_events": projection.lag_events,
        "lag_seconds": projection.lag_seconds,
        "withheld_events": projection.withheld_events,
    })
}
