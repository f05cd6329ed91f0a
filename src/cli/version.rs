//! `foldd version`.

use super::args::Version;
use super::{Failure, print, print_json};

/// Carries the verb out.
pub(crate) fn run(args: &Version) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        print_json(&serde_json::json!({ "version": version, "schema": crate::store::SCHEMA_VERSION }))
    } else {
        print(&format!("foldd {version} (schema {})", crate::store::SCHEMA_VERSION))
    }
}
