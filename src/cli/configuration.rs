//! `foldd config`: what is in force and where it comes from, and the schema of the file.

use super::args::{Config as Args, ConfigShow};
use super::{Failure, print, print_json};
use crate::config::{Config, Loaded};

/// Carries the verb out.
pub(crate) fn run(args: &Args, loaded: &Loaded) -> Result<(), Failure> {
    match args {
        Args::Show(ConfigShow { json: true }) => print_json(&loaded.show_json()),
        Args::Show(ConfigShow { json: false }) => print(loaded.show_toml().trim_end()),
        Args::Schema => print_json(&Config::schema()),
    }
}
