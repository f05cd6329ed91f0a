//! What is to be appended: drawn once, the same at each try.

use fastrand::Rng;
use foldd::{Event, EventData, ImportEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::to_raw_value;
use uuid::Uuid;

use super::Kind;

/// So few that appenders meet.
const STREAMS: usize = 24;
/// The append that brings the first event that nobody can apply to `failing`.
const FIRST_CURSE: u32 = 60;

/// The events, as the example daemon reads them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(in crate::chaos) enum Drafted {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
    Cursed { cents: i64 },
}

impl EventData for Drafted {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Deposited { .. } => "Deposited",
            Self::Withdrawn { .. } => "Withdrawn",
            Self::Cursed { .. } => "Cursed",
        }
    }
}

/// One append.
#[derive(Debug)]
pub(in crate::chaos) struct Draft {
    pub(super) number: u32,
    /// Streams and their events; only some doors take more than one.
    pub(super) parts: Vec<(String, Vec<Event<Drafted>>)>,
}

impl Draft {
    pub(super) fn draw(kind: Kind, number: u32, random: &mut Rng) -> Self {
        let (streams, most) = match kind {
            Kind::Block => (1..6, 3),
            Kind::Lingering => (2..3, 2),
            Kind::Import => (20..60, 4),
            _ => (1..2, 4),
        };
        let mut names: Vec<String> = (0..random.usize(streams)).map(|_| stream(kind, random)).collect();
        // In one order everywhere, or they lock each other out all the time.
        names.sort();
        names.dedup();
        let mut parts: Vec<(String, Vec<Event<Drafted>>)> = names
            .into_iter()
            .map(|name| (name, (0..random.usize(1..=most)).map(|_| Event::new(event(random))).collect()))
            .collect();
        if kind == Kind::Single && (number == FIRST_CURSE || number > FIRST_CURSE && random.u32(..300) == 0) {
            parts[0].1.push(Event::new(Drafted::Cursed { cents: 0 }));
        }
        Self { number, parts }
    }

    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.parts.iter().flat_map(|(_, events)| events).map(|event| event.event_id).collect()
    }

    /// As a block.
    pub(super) fn block(&self) -> Vec<ImportEvent> {
        self.each(|stream, event| ImportEvent {
            stream_id: stream.to_owned(),
            category: None,
            event_type: event.data.event_type().to_owned(),
            data: to_raw_value(&event.data).expect("it is JSON"),
            metadata: to_raw_value(&json!({})).expect("it is JSON"),
            event_id: event.event_id,
        })
    }

    /// As lines of a file.
    pub(super) fn lines(&self) -> String {
        self.each(|stream, event| {
            let (kind, data, id) = (event.data.event_type(), &event.data, event.event_id);
            format!("{}\n", json!({ "stream_id": stream, "event_type": kind, "data": data, "event_id": id }))
        })
        .concat()
    }

    fn each<T>(&self, shape: impl Fn(&str, &Event<Drafted>) -> T) -> Vec<T> {
        let events =
            self.parts.iter().flat_map(|(stream, events)| events.iter().map(move |event| (stream, event)));
        events.map(|(stream, event)| shape(stream, event)).collect()
    }
}

/// Blocks go beyond the category as well: only `counter` reads that.
fn stream(kind: Kind, random: &mut Rng) -> String {
    if kind == Kind::Block && random.u32(..4) == 0 {
        return format!("parcel-{}", random.usize(..3));
    }
    format!("account-{}", random.usize(..STREAMS))
}

fn event(random: &mut Rng) -> Drafted {
    let cents = random.i64(1..10_000);
    if random.u32(..3) == 0 { Drafted::Withdrawn { cents } } else { Drafted::Deposited { cents } }
}
