//! The reader's guard: along a stream, versions come one after the other, whoever wrote them.

use std::collections::HashMap;

use crate::event::RecordedEvent;

/// The first event of a page whose stream was last at another version than the one before its own, in words. The same
/// words as `es_require_stream_order` has for handlers in SQL.
pub(crate) fn first_break(page: &[RecordedEvent]) -> Option<String> {
    let mut versions: HashMap<&str, i64> = HashMap::new();
    page.iter().find_map(|event| {
        let before = versions.insert(&event.stream_id, event.stream_version)?;
        (before != event.stream_version - 1).then(|| {
            format!(
                "version {} of stream '{}' comes after version {before}, at position {}: a writer inserted it without \
                 es_append",
                event.stream_version, event.stream_id, event.global_position
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::first_break;
    use crate::event::RecordedEvent;

    fn page(versions: &[(&str, i64)]) -> Vec<RecordedEvent> {
        let event = |(position, (stream_id, stream_version)): (i64, &(&str, i64))| RecordedEvent {
            global_position: position,
            stream_id: (*stream_id).to_owned(),
            stream_category: "a".to_owned(),
            stream_version: *stream_version,
            event_type: "A".to_owned(),
            data: serde_json::value::RawValue::NULL.to_owned(),
            metadata: serde_json::value::RawValue::NULL.to_owned(),
            transaction_id: 7,
            event_id: uuid::Uuid::nil(),
            created_at: chrono::DateTime::UNIX_EPOCH,
        };
        (1..).zip(versions).map(event).collect()
    }

    #[test]
    fn versions_follow_one_another_from_wherever_the_page_begins() {
        assert_eq!(first_break(&page(&[("a-1", 7), ("a-2", 1), ("a-1", 8), ("a-2", 2)])), None);
    }

    #[test]
    fn the_first_break_is_named() {
        for wrong in [[("a-1", 2), ("a-2", 1), ("a-1", 1)], [("a-1", 1), ("a-2", 1), ("a-1", 3)]] {
            let broken = first_break(&page(&wrong)).expect("it is broken");
            assert!(broken.contains("stream 'a-1'") && broken.contains("position 3"), "{broken}");
        }
    }
}
