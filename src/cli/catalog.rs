//! The projections that the configuration names: files read, parsed, and joined with what overrides them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Failure;
use crate::config::Loaded;
use crate::projection::Projection;
use crate::projection::file::{MAX_FILE_BYTES, ProjectionFile};
use crate::projection::handler::{Registry, RustProjection};
use crate::projection::settings::Settings;

/// Every projection of the configuration, and every one that the program has a Rust handler for.
///
/// # Errors
/// With everything that is wrong in any of them, one line each.
pub(crate) fn projections(loaded: &Loaded, registry: &Registry) -> Result<Vec<Projection>, Failure> {
    let paths = loaded.projection_paths()?;
    let (mut projections, mut faults) = read_all(paths.iter().map(AsRef::as_ref), loaded);
    let mut names: Vec<&str> = paths.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    for (name, versions) in registry.projections() {
        if names.contains(&name) {
            faults
                .push(format!("{name}: there is a Rust handler and a file of this name; rename one of them"));
        }
        match of_rust(name, versions, loaded) {
            Ok(projection) => projections.push(projection),
            Err(mut wrong) => faults.append(&mut wrong),
        }
    }
    names.extend(registry.projections().map(|(name, _)| name));
    faults.extend(without_handler(loaded, registry));
    if let Err(error) = loaded.check_overrides(&names) {
        faults.push(error.to_string());
    }
    all_or_faults(projections, &faults)
}

/// A Rust projection as the configuration overrides it: the version that it asks for, or the newest there is.
fn of_rust(
    name: &str,
    versions: &BTreeMap<u32, RustProjection>,
    loaded: &Loaded,
) -> Result<Projection, Vec<String>> {
    let given = loaded.config.projections.get(name);
    let settings = given.map_or_else(Settings::default, |given| given.settings());
    let chosen = match settings.version {
        Some(version) => versions.get(&version),
        None => versions.values().next_back(),
    };
    let Some(rust) = chosen else {
        let has: Vec<String> = versions.keys().map(ToString::to_string).collect();
        return Err(vec![format!(
            "{name}: version {} is configured, this program's handlers are of version {}; configure one of them, or run \
             the program that has the other",
            settings.version.unwrap_or_default(),
            has.join(", ")
        )]);
    };
    let projection = Projection::of_rust(rust, &settings, given.and_then(|given| given.tables.as_deref()))?;
    Ok(projection.beside(versions.values()))
}

/// Rust projections that the configuration declares and this program does not have.
fn without_handler(loaded: &Loaded, registry: &Registry) -> Vec<String> {
    let known = |name: &str| registry.projections().any(|(known, _)| known == name);
    let declared = loaded.config.projections.iter().filter(|(_, given)| given.handler.is_some());
    declared
        .filter(|(name, _)| !known(name))
        .map(|(name, _)| {
            format!("projections.{name}: handler = \"rust\", and this program has no handler of that name; run the program that registers it")
        })
        .collect()
}

/// The projections of these files alone.
///
/// # Errors
/// With everything that is wrong in any of them, one line each.
pub(crate) fn projections_of<'p>(
    paths: impl Iterator<Item = &'p Path>,
    loaded: &Loaded,
) -> Result<Vec<Projection>, Failure> {
    let (projections, faults) = read_all(paths, loaded);
    all_or_faults(projections, &faults)
}

/// Projections that a program brings along: Rust handlers, and files as (name, text).
///
/// # Errors
/// With everything that is wrong in any of them, one line each.
pub(crate) fn brought_along<'f>(
    registry: &Registry,
    files: impl IntoIterator<Item = (&'f str, &'f str)>,
) -> Result<Vec<Projection>, Vec<String>> {
    let (mut projections, mut faults) = (Vec::new(), Vec::new());
    let rust = registry.projections().filter_map(|(_, versions)| {
        let newest = versions.values().next_back()?;
        let read = Projection::of_rust(newest, &Settings::default(), None);
        Some(read.map(|projection| projection.beside(versions.values())))
    });
    let sql =
        files.into_iter().map(|(name, text)| parse(name, &format!("{name}.sql"), text, &Settings::default()));
    for read in rust.chain(sql) {
        match read {
            Ok(projection) => projections.push(projection),
            Err(mut wrong) => faults.append(&mut wrong),
        }
    }
    let mut names: Vec<&str> = projections.iter().map(|projection| projection.name.as_str()).collect();
    names.sort_unstable();
    for twice in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        faults.push(format!("{}: there are two projections of this name; rename one of them", twice[0]));
    }
    if faults.is_empty() { Ok(projections) } else { Err(faults) }
}

fn all_or_faults(projections: Vec<Projection>, faults: &[String]) -> Result<Vec<Projection>, Failure> {
    if faults.is_empty() { Ok(projections) } else { Err(Failure::Usage(faults.join("\n"))) }
}

fn read_all<'p>(paths: impl Iterator<Item = &'p Path>, loaded: &Loaded) -> (Vec<Projection>, Vec<String>) {
    let (mut projections, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        match read(path, loaded) {
            Ok(projection) => projections.push(projection),
            Err(mut wrong) => faults.append(&mut wrong),
        }
    }
    (projections, faults)
}

fn read(path: &Path, loaded: &Loaded) -> Result<Projection, Vec<String>> {
    let label = path.display().to_string();
    let unreadable = |why: String| vec![format!("{label}: {why}")];
    let size = fs::metadata(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?.len();
    if size > MAX_FILE_BYTES as u64 {
        return Err(unreadable(format!("has {size} bytes; a projection file has at most {MAX_FILE_BYTES}")));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(format!("is not UTF-8 at byte {at}; save it as UTF-8 text"))
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let overrides = loaded.config.projections.get(&*name);
    parse(&name, &label, &text, &overrides.map_or_else(Settings::default, |given| given.settings()))
}

fn parse(name: &str, label: &str, text: &str, overrides: &Settings) -> Result<Projection, Vec<String>> {
    let file = ProjectionFile::parse(name, label, text)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    Projection::of_file(&file, overrides).map_err(|error| vec![format!("{label}: {error}")])
}
