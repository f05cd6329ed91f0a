//! The projection files that the configuration names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::fault::{ConfigError, Fault, Place};
use super::load::Loaded;
use super::locate;

impl Loaded {
    /// The `*.sql` files of all `projection_dirs`, by name of the projection.
    ///
    /// # Errors
    /// A folder that cannot be read, named with the file that named it, or one projection in two
    /// folders, named with both.
    pub(crate) fn projection_paths(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut faults = Vec::new();
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (index, dir) in self.config.projection_dirs.iter().enumerate() {
            let place = self.place(&["projection_dirs", &index.to_string()]);
            let files = match locate::folder(dir, "sql") {
                Ok(files) => files,
                Err(fault) => {
                    // The fault's own place is the folder; a missing one is mended where it is named.
                    faults.push(named_by(fault, place));
                    continue;
                }
            };
            for file in files {
                let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                if let Some(other) = found.get(&name) {
                    faults.push(Fault::new(
                        place.clone(),
                        file.display().to_string(),
                        format!("the projection {name} is already in {}", other.display()),
                        "rename or take away one of the two files",
                    ));
                } else {
                    found.insert(name, file);
                }
            }
        }
        if faults.is_empty() { Ok(found.into_values().collect()) } else { Err(ConfigError { faults }) }
    }
}

fn named_by(fault: Fault, place: Place) -> Fault {
    Fault { place, value: format!("projection_dirs: {}", fault.value), ..fault }
}
