//! `foldd check`: validates configuration and projection files against the database, building nothing.

use std::path::PathBuf;

use super::args::Check;
use super::{Failure, catalog, connect, print, print_json};
use crate::config::Loaded;
use crate::engine::build::check;
use crate::ledger::phases::Trouble;
use crate::projection::Projection;
use crate::projection::handler::Registry;

/// Carries the verb out.
pub(crate) async fn run(args: &Check, loaded: &Loaded, registry: &Registry) -> Result<(), Failure> {
    let projections = if args.files.is_empty() {
        catalog::projections(loaded, registry)
    } else {
        catalog::projections_of(args.files.iter().map(PathBuf::as_path), loaded)
    };
    // Whatever is wrong with a projection is what was asked: the same exit code, wherever it is found.
    let projections = projections.map_err(|failure| Failure::NotMet(failure.report().1.to_owned()))?;
    if projections.is_empty() {
        return Err(Failure::Usage(
            "no projection files: name the folder that has them as projection_dirs in foldd.toml".to_owned(),
        ));
    }
    let mut verdicts = Vec::new();
    if loaded.has_database() {
        let mut conn = connect(loaded).await?;
        for projection in &projections {
            verdicts.push(check(&mut conn, projection).await.err().map(|error| error.trouble()));
        }
    }
    let wrong: Vec<String> = projections
        .iter()
        .zip(&verdicts)
        .filter_map(|(projection, trouble)| Some(text(trouble.as_ref()?, &projection.name)))
        .collect();
    if args.json {
        let planned = !verdicts.is_empty();
        let lines: Vec<_> = projections
            .iter()
            .zip(verdicts.into_iter().chain(std::iter::repeat(None)))
            .map(|(projection, error)| {
                serde_json::json!({
                    "name": projection.name, "version": projection.version, "planned": planned, "error": error,
                })
            })
            .collect();
        print_json(&lines)?;
    } else if verdicts.is_empty() {
        print(&format!(
            "{} parsed; name a database, and each statement is planned there too",
            count(&projections)
        ))?;
    } else {
        for (projection, _) in projections.iter().zip(&verdicts).filter(|(_, trouble)| trouble.is_none()) {
            let summary = projection.definition.summary();
            print(&format!("{}@{}: right, {summary}", projection.name, projection.version))?;
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::NotMet(wrong.join("\n"))) }
}

/// A trouble as one text: place, message, remedy.
pub(super) fn text(trouble: &Trouble, name: &str) -> String {
    let place = trouble.place.as_deref().unwrap_or(name);
    let (message, remedy) = (trouble.message.trim_end(), &trouble.remedy);
    // A diff has lines of its own, and so has what follows it.
    let between = if message.contains('\n') { "\nto do: " } else { "; " };
    format!("{place}: {message}{between}{remedy}")
}

fn count(projections: &[Projection]) -> String {
    match projections.len() {
        1 => "1 projection".to_owned(),
        many => format!("{many} projections"),
    }
}
