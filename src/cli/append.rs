//! `foldd append`: one event from the command line.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::args::Append;
use super::{Failure, connect, print, print_json};
use crate::config::Loaded;
use crate::store::{self, Columns};

/// Carries the verb out.
pub(crate) async fn run(args: Append, loaded: &Loaded) -> Result<(), Failure> {
    let metadata = match args.metadata {
        Some(given) => given,
        None => RawValue::from_string("{}".to_owned()).map_err(|error| Failure::Failed(error.to_string()))?,
    };
    let event_id = args.event_id.unwrap_or_else(Uuid::now_v7);
    let mut conn = connect(loaded).await?;
    let columns = Columns::one(&args.event_type, args.data, metadata, event_id);
    let appended =
        store::append(&mut conn, &args.stream, args.category.as_deref(), args.expected, columns).await?;
    if args.json {
        print_json(&serde_json::json!({
            "stream_id": args.stream,
            "version": appended.version,
            "cursor": appended.cursor.to_string(),
            "position": appended.cursor.global_position,
            "event_id": event_id,
        }))
    } else {
        print(&format!("{} is at version {}, cursor {}", args.stream, appended.version, appended.cursor))
    }
}
