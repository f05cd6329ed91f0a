//! A parcel carrier that never closes: the endless event stream of `foldd demo`.
//!
//! What will happen next stands in one agenda, ordered by simulated time. A parcel travels inside its
//! entry: whoever takes it off the agenda moves it one step and puts it back, or drops it when it has
//! come to its end. So memory is bounded by the parcels under way, and one seed tells one story.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json, value::to_raw_value};

use crate::store::ImportEvent;

/// 2025-03-03T06:00:00Z, a Monday. Simulated seconds count from the epoch, like this.
const OPENING: i64 = 1_740_981_600;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// New parcels are turned away while so many are under way.
const MAX_PARCELS: usize = 400;
const MAX_ATTEMPTS: u32 = 3;

const DEPOTS: [&str; 8] = ["Porto", "Madrid", "Bilbao", "Lyon", "Basel", "Milan", "Ghent", "Bremen"];
/// Parcels between two depots change trucks here, unless it is one of the two: Lyon.
const HUB: usize = 3;
/// The courier at place N drives for depot N modulo the number of depots.
const COURIERS: [&str; 24] = [
    "amira", "bruno", "chloe", "dario", "elif", "femke", "goran", "hanna", "idris", "joana", "kofi", "lena",
    "mateo", "noor", "oskar", "paula", "quinn", "rosa", "samir", "tilda", "umar", "vera", "wim", "yara",
];
const SENDERS: [&str; 5] = ["Teapot & Sons", "Second Chapter", "Velo Nord", "Casa Lume", "Moss Records"];
const REFUSED: &str = "refused by the recipient";

/// The simulation. Events come in the order of their `occurred_at`, which their metadata has.
pub(crate) struct Parcels {
    rng: fastrand::Rng,
    /// By simulated second; a random number keeps apart what is due in the same one.
    agenda: BTreeMap<(i64, u64), Turn>,
    /// When the shift of each courier ends, of those who have one now.
    shifts: [Option<i64>; COURIERS.len()],
    /// The number of the next parcel; it starts anywhere, so that two runs on one store seldom meet.
    next_parcel: u64,
}

/// What is due: a new parcel, the begin or the end of a courier's shift, a parcel's next step.
enum Turn {
    Registration,
    Shift(usize),
    Parcel(Parcel),
}

struct Parcel {
    stream_id: String,
    destination: usize,
    attempts: u32,
    next: Step,
}

/// What happens to a parcel next. Depots and couriers are places in the arrays above.
enum Step {
    PickUp { origin: usize },
    Arrive { depot: usize },
    Depart { depot: usize },
    LoadOut,
    Attempt { courier: usize, in_time: bool },
    Return { reason: &'static str },
}

impl Parcels {
    /// Opens the carrier: the same seed gives the same events for ever.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let next_parcel = rng.u64(..);
        let mut parcels = Self { rng, agenda: BTreeMap::new(), shifts: [None; COURIERS.len()], next_parcel };
        parcels.put(OPENING, 0..1, Turn::Registration);
        for courier in 0..COURIERS.len() {
            // One courier of each depot begins at once, the others during the day.
            let wait = if courier < DEPOTS.len() { 0..1 } else { HOUR..12 * HOUR };
            parcels.put(OPENING, wait, Turn::Shift(courier));
        }
        parcels
    }

    /// The next events, exactly so many.
    pub(crate) fn next_events(&mut self, count: usize) -> Vec<ImportEvent> {
        std::iter::repeat_with(|| self.turn()).flatten().take(count).collect()
    }

    fn turn(&mut self) -> Option<ImportEvent> {
        let ((at, _), turn) = self.agenda.pop_first()?;
        match turn {
            Turn::Registration => self.register(at),
            Turn::Shift(courier) => Some(self.shift(at, courier)),
            Turn::Parcel(parcel) => self.step(at, parcel),
        }
    }

    fn register(&mut self, at: i64) -> Option<ImportEvent> {
        self.put(at, 10..8 * MINUTE, Turn::Registration);
        if self.agenda.len() > MAX_PARCELS + COURIERS.len() {
            return None;
        }
        let origin = self.rng.usize(..DEPOTS.len());
        let destination = if self.rng.u32(..3) == 0 { origin } else { self.rng.usize(..DEPOTS.len()) };
        let (service, hours) = if self.rng.u32(..4) == 0 { ("express", 8) } else { ("standard", 12) };
        let stream_id = format!("parcel-{}", code(self.next_parcel));
        self.next_parcel = self.next_parcel.wrapping_add(1);
        let data = json!({
            "sender": self.any(&SENDERS),
            "from": DEPOTS[origin],
            "to": DEPOTS[destination],
            "service": service,
            "weight_grams": 50 + 10 * self.rng.u32(..40) * self.rng.u32(1..30),
            "promised_at": timestamp(at + hours * HOUR),
        });
        let event = self.event(at, &stream_id, "Registered", data);
        let parcel = Parcel { stream_id, destination, attempts: 0, next: Step::PickUp { origin } };
        self.put(at, 5 * MINUTE..40 * MINUTE, Turn::Parcel(parcel));
        Some(event)
    }

    fn shift(&mut self, at: i64, courier: usize) -> ImportEvent {
        let begins = self.shifts[courier].is_none();
        let lasts = if begins { 6 * HOUR..9 * HOUR } else { 7 * HOUR..12 * HOUR };
        let until = self.put(at, lasts, Turn::Shift(courier));
        self.shifts[courier] = begins.then_some(until);
        let event_type = if begins { "Shift Started" } else { "Shift Ended" };
        let vehicle = ["van", "cargo bike", "electric van"][courier % 3];
        let data = json!({"depot": DEPOTS[courier % DEPOTS.len()], "vehicle": vehicle});
        self.event(at, &courier_stream(courier), event_type, data)
    }

    /// Moves a parcel one step, and back onto the agenda unless that was its last one.
    fn step(&mut self, at: i64, mut parcel: Parcel) -> Option<ImportEvent> {
        let home = DEPOTS[parcel.destination];
        let (event_type, data, wait) = match parcel.next {
            Step::PickUp { origin } => {
                parcel.next = Step::Arrive { depot: origin };
                let place = self.any(&["locker", "parcel shop", "front desk", "doorstep"]);
                ("Picked Up", json!({"place": place}), 15 * MINUTE..45 * MINUTE)
            }
            Step::Arrive { depot } => {
                let is_home = depot == parcel.destination;
                parcel.next = if is_home { Step::LoadOut } else { Step::Depart { depot } };
                ("Arrived At Depot", json!({"depot": DEPOTS[depot]}), 10 * MINUTE..HOUR)
            }
            Step::Depart { depot } => {
                let next = if depot == HUB { parcel.destination } else { HUB };
                parcel.next = Step::Arrive { depot: next };
                let data = json!({"depot": DEPOTS[depot], "next": DEPOTS[next]});
                ("Departed Depot", data, 40 * MINUTE..2 * HOUR)
            }
            Step::LoadOut => {
                let Some((courier, ends)) = self.courier_of(at, parcel.destination) else {
                    // Nobody is there to take it along, so nothing happens yet.
                    self.put(at, 15 * MINUTE..30 * MINUTE, Turn::Parcel(parcel));
                    return None;
                };
                let drive = self.rng.i64(10 * MINUTE..100 * MINUTE);
                // What is still on board shortly before the shift ends is brought back.
                let wait = drive.min(ends - MINUTE - at);
                parcel.attempts += 1;
                parcel.next = Step::Attempt { courier, in_time: wait == drive };
                let data = json!({"depot": home, "courier": courier_stream(courier)});
                ("Out For Delivery", data, wait..wait + 1)
            }
            Step::Attempt { courier, in_time } => {
                let Some(reason) = self.failure(in_time) else {
                    let receiver = self.any(&["recipient", "recipient", "neighbour", "front desk"]);
                    let courier = courier_stream(courier);
                    let data = json!({"depot": home, "courier": courier, "received_by": receiver});
                    return Some(self.event(at, &parcel.stream_id, "Delivered", data));
                };
                let gives_up = reason == REFUSED || parcel.attempts == MAX_ATTEMPTS;
                parcel.next = if gives_up { Step::Return { reason } } else { Step::LoadOut };
                let (courier, attempt) = (courier_stream(courier), parcel.attempts);
                let data = json!({"depot": home, "courier": courier, "attempt": attempt, "reason": reason});
                ("Delivery Failed", data, 2 * HOUR..4 * HOUR)
            }
            Step::Return { reason } => {
                let data = json!({"depot": home, "attempts": parcel.attempts, "reason": reason});
                return Some(self.event(at, &parcel.stream_id, "Returned To Sender", data));
            }
        };
        let event = self.event(at, &parcel.stream_id, event_type, data);
        self.put(at, wait, Turn::Parcel(parcel));
        Some(event)
    }

    /// A courier of the depot with at least three quarters of an hour left, and when the shift ends.
    fn courier_of(&mut self, at: i64, depot: usize) -> Option<(usize, i64)> {
        let crew = (depot..COURIERS.len()).step_by(DEPOTS.len());
        let shifts = crew.filter_map(|courier| Some((courier, self.shifts[courier]?)));
        let ready: Vec<_> = shifts.filter(|(_, ends)| *ends >= at + 45 * MINUTE).collect();
        self.rng.choice(ready)
    }

    fn failure(&mut self, in_time: bool) -> Option<&'static str> {
        match self.rng.u32(..100) {
            _ if !in_time => Some("the courier ran out of time"),
            0..=1 => Some(REFUSED),
            2..=16 => Some(self.any(&["nobody at home", "no such address", "door code missing"])),
            _ => None,
        }
    }

    fn any(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.rng.usize(..choices.len())]
    }

    /// Puts something on the agenda, so long after `at`. Returns when that is.
    fn put(&mut self, at: i64, wait: Range<i64>, turn: Turn) -> i64 {
        let due = at + self.rng.i64(wait);
        self.agenda.insert((due, self.rng.u64(..)), turn);
        due
    }

    fn event(&mut self, at: i64, stream_id: &str, event_type: &str, data: Value) -> ImportEvent {
        let raw = |value: Value| to_raw_value(&value).expect("a JSON value can be written as JSON");
        ImportEvent {
            stream_id: stream_id.to_owned(),
            category: None,
            event_type: event_type.to_owned(),
            data: raw(data),
            metadata: raw(json!({"occurred_at": timestamp(at)})),
            event_id: uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid(),
        }
    }
}

fn courier_stream(courier: usize) -> String {
    format!("courier-{}", COURIERS[courier])
}

fn timestamp(at: i64) -> String {
    DateTime::from_timestamp(at, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Six characters for a number, as on a label: none that look alike, no words. There are 300 million.
fn code(number: u64) -> String {
    const ALPHABET: &str = "23456789BCDFGHJKMNPQRTVWXZ";
    const CODES: u64 = 26_u64.pow(6);
    // The factor shares none with the number of codes, so the product visits all of them.
    let scattered = number % CODES * 190_913_777 % CODES;
    let digits = (0..6).map(|place| scattered / 26_u64.pow(place) % 26);
    digits.filter_map(|digit| ALPHABET.chars().nth(usize::try_from(digit).ok()?)).collect()
}

#[cfg(test)]
mod tests;
