use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What may come after what in a parcel's stream.
fn may_follow(before: Option<&str>, event_type: &str) -> bool {
    let after: &[&str] = match before {
        None => &["Registered"],
        Some("Registered") => &["Picked Up"],
        Some("Picked Up" | "Departed Depot") => &["Arrived At Depot"],
        Some("Arrived At Depot") => &["Departed Depot", "Out For Delivery"],
        Some("Out For Delivery") => &["Delivered", "Delivery Failed"],
        Some("Delivery Failed") => &["Out For Delivery", "Returned To Sender"],
        Some(_) => &[],
    };
    after.contains(&event_type)
}

fn json_of(raw: &serde_json::value::RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("JSON")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_parcel_and_every_courier_lives_through_a_legal_story(seed: u64) {
        let mut parcels = Parcels::new(seed);
        let (mut last, mut depots, mut on_shift) = (HashMap::new(), HashMap::new(), HashSet::new());
        let mut ids = HashSet::new();
        let mut clock = String::new();
        for event in (0..100).flat_map(|_| parcels.next_events(200)) {
            let (data, kind) = (json_of(&event.data), event.event_type);
            prop_assert!(ids.insert(event.event_id), "event id twice");
            let occurred_at = json_of(&event.metadata)["occurred_at"].as_str().expect("a time").to_owned();
            prop_assert!(clock <= occurred_at, "{occurred_at} after {clock}");
            clock = occurred_at;
            if event.stream_id.starts_with("courier-") {
                let (courier, begins) = (event.stream_id, kind == "Shift Started");
                let was_off = !on_shift.contains(&courier);
                prop_assert_eq!(begins, was_off, "{} of {}", kind, courier);
                if begins { on_shift.insert(courier) } else { on_shift.remove(&courier) };
                continue;
            }
            if let Some(courier) = data["courier"].as_str() {
                prop_assert!(on_shift.contains(courier), "{kind} by {courier}, who is off");
            }
            let before = last.insert(event.stream_id.clone(), kind.clone());
            prop_assert!(may_follow(before.as_deref(), &kind), "{kind} after {before:?}");
            if kind == "Registered" {
                depots.insert(event.stream_id, (Value::Null, data["to"].clone()));
            } else if let Some((depot, destination)) = depots.get_mut(&event.stream_id) {
                if kind == "Arrived At Depot" {
                    *depot = data["depot"].clone();
                } else if kind != "Picked Up" {
                    prop_assert_eq!(&*depot, &data["depot"], "{} elsewhere", kind);
                    prop_assert_eq!(kind == "Departed Depot", depot != destination);
                }
            }
        }
    }

    #[test]
    fn a_seed_tells_one_story_however_it_is_asked_for(
        seed: u64,
        pages in prop::collection::vec(0_usize..300, 1..10),
    ) {
        let (mut paged, mut whole) = (Parcels::new(seed), Parcels::new(seed));
        let all = whole.next_events(pages.iter().sum());
        let in_pages: Vec<_> = pages.iter().flat_map(|page| paged.next_events(*page)).collect();
        prop_assert_eq!(format!("{all:?}"), format!("{in_pages:?}"));
    }
}

#[test]
fn memory_is_bounded_by_the_parcels_under_way() {
    let mut parcels = Parcels::new(1);
    for _ in 0..200 {
        assert_eq!(parcels.next_events(1000).len(), 1000);
        assert!(parcels.agenda.len() <= MAX_PARCELS + COURIERS.len() + 1, "{}", parcels.agenda.len());
    }
}

#[test]
fn the_first_minute_of_a_demo_shows_every_kind_of_event() {
    let events = Parcels::new(3653).next_events(3000);
    let kinds: HashSet<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(kinds.len(), 10, "{kinds:?}");
}

#[test]
fn codes_do_not_repeat() {
    let codes: HashSet<_> = (0..100_000).map(|number| code(u64::MAX / 3 + number)).collect();
    assert_eq!(codes.len(), 100_000);
    assert!(codes.iter().all(|code| code.len() == 6));
}
