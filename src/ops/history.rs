//! The last hour: where every projection stood, sampled every fifteen seconds, in a ring that is bounded in bytes.
//!
//! Positions and lag are the whole cluster's. Batch times are those of this process, since only who runs a batch times it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::ledger::status::{ProjectionStatus, Status};
use crate::metrics::BatchTimes;

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(15);
/// An hour of them.
const SAMPLES: usize = 240;
/// The most that all samples take, in bytes; with a thousand projections that is half an hour.
const MAX_BYTES: usize = 4 << 20;

/// The ring.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    bytes: usize,
    /// The batches of each version when they were last looked at.
    batches: BTreeMap<String, BatchTimes>,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    head: i64,
    points: BTreeMap<String, Point>,
}

/// Where a projection stood.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    position: i64,
    lag_events: i64,
    events_per_second: f64,
    /// The mean over the batches since the sample before; `None` when this process ran none.
    batch_seconds: Option<f64>,
}

impl History {
    /// Adds a sample. `batches` are those of this process, by version.
    pub(super) fn record(&mut self, status: &Status, batches: BTreeMap<String, BatchTimes>) {
        let before = self.samples.back().map(|sample| &sample.points);
        let head = status.store.head_position;
        let points = status
            .projections
            .iter()
            .map(|projection| {
                let id = id(projection, &status.projections);
                // Batches are counted by version, however often one was built.
                let of = format!("{}@{}", projection.name, projection.version);
                let last = before.and_then(|points| points.get(&id)).map_or(0, |point| point.position);
                let point = Point {
                    position: position(projection, head, last),
                    lag_events: projection.lag_events,
                    events_per_second: projection.events_per_second,
                    batch_seconds: mean_since(self.batches.get(&of), batches.get(&of)),
                };
                (id, point)
            })
            .collect();
        self.batches = batches;
        let sample = Sample { at: Instant::now(), head, points };
        self.bytes += sample.bytes();
        self.samples.push_back(sample);
        while self.samples.len() > SAMPLES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.samples.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// As JSON: `ago_seconds` and `head` of each sample, and the series of each projection beside them, null where it
    /// was not known.
    pub(super) fn render(&self, only: Option<&str>) -> Value {
        let wanted = |id: &str| only.is_none_or(|name| id.split('@').next() == Some(name));
        let mut ids: Vec<&str> =
            self.samples.iter().flat_map(|sample| sample.points.keys()).map(String::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        let series = |id: &str| {
            let of = |value: fn(&Point) -> Value| {
                let points =
                    self.samples.iter().map(|sample| sample.points.get(id).map_or(Value::Null, value));
                points.collect::<Value>()
            };
            json!({
                "position": of(|point| json!(point.position)),
                "lag_events": of(|point| json!(point.lag_events)),
                "events_per_second": of(|point| json!(point.events_per_second)),
                "batch_seconds": of(|point| json!(point.batch_seconds)),
            })
        };
        json!({
            "every_seconds": EVERY.as_secs(),
            "ago_seconds": self.samples.iter().map(|sample| sample.at.elapsed().as_secs()).collect::<Vec<_>>(),
            "head": self.samples.iter().map(|sample| sample.head).collect::<Vec<_>>(),
            "projections": ids.into_iter().filter(|id| wanted(id)).map(|id| (id.to_owned(), series(id)))
                .collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl Sample {
    /// About what it takes, a tree's nodes and the names' own memory included.
    fn bytes(&self) -> usize {
        let names: usize = self.points.keys().map(String::capacity).sum();
        size_of::<Self>() + names + 2 * self.points.len() * (size_of::<Point>() + size_of::<String>())
    }
}

/// `fines@2`; while the same version is also live, the other one of it stands beside it as `fines@2 building`.
fn id(projection: &ProjectionStatus, all: &[ProjectionStatus]) -> String {
    let ProjectionStatus { name, version, role, .. } = projection;
    let is_live = |one: &ProjectionStatus| one.role == "live" && one.name == *name && one.version == *version;
    if role != "live" && all.iter().any(is_live) {
        format!("{name}@{version} {role}")
    } else {
        format!("{name}@{version}")
    }
}

/// Where a projection stands in the log. One with nothing left to apply stands at the head, wherever its last own event
/// was; while events are withheld from it, where it stood before.
fn position(projection: &ProjectionStatus, head: i64, before: i64) -> i64 {
    let checkpoints = projection.partitions.iter().map(|part| part.checkpoint.global_position);
    let checkpoint = checkpoints.min().unwrap_or(0);
    if projection.lag_events == 0 && projection.withheld_events == 0 && !projection.partitions.is_empty() {
        head
    } else {
        checkpoint.max(before)
    }
}

/// The mean of what came between two readings; `None` when nothing did, or the process began anew.
fn mean_since(before: Option<&BatchTimes>, now: Option<&BatchTimes>) -> Option<f64> {
    let (now, before) = (*now?, before.copied().unwrap_or_default());
    let batches = now.batches.checked_sub(before.batches).filter(|batches| *batches > 0)?;
    Some(now.took.saturating_sub(before.took).as_secs_f64() / batches as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{BatchTimes, Duration, History, MAX_BYTES, SAMPLES, mean_since};
    use crate::ledger::status::Status;

    fn status(projections: usize, head: i64) -> Status {
        let names: Vec<String> = (0..projections).map(|number| format!("projection_{number}")).collect();
        let mut status = Status::at_rest(&names.iter().map(String::as_str).collect::<Vec<_>>());
        status.store.head_position = head;
        status
    }

    #[test]
    fn it_keeps_an_hour_and_no_more() {
        let mut history = History::default();
        for head in 0..300 {
            history.record(&status(2, head), BTreeMap::new());
        }
        let json = history.render(Some("projection_1"));
        assert_eq!(json["head"].as_array().map(Vec::len), Some(SAMPLES));
        assert_eq!(json["head"][SAMPLES - 1], 299);
        assert_eq!(json["projections"].as_object().map(serde_json::Map::len), Some(1));
        assert_eq!(json["projections"]["projection_1@1"]["position"].as_array().map(Vec::len), Some(SAMPLES));
    }

    #[test]
    fn its_bytes_are_bounded_whatever_there_is() {
        let mut history = History::default();
        for head in 0..100 {
            history.record(&status(2_000, head), BTreeMap::new());
            assert!(history.bytes <= MAX_BYTES, "{}", history.bytes);
        }
        assert!(history.samples.len() > 5 && history.samples.len() < 100, "{}", history.samples.len());
    }

    #[test]
    fn batch_times_are_the_means_of_what_came_between() {
        let times = |batches, seconds| Some(BatchTimes { batches, took: Duration::from_secs_f64(seconds) });
        assert_eq!(mean_since(times(1, 0.5).as_ref(), times(5, 1.5).as_ref()), Some(0.25));
        assert_eq!(mean_since(None, times(4, 1.0).as_ref()), Some(0.25));
        assert_eq!(mean_since(times(5, 1.5).as_ref(), times(5, 1.5).as_ref()), None);
    }
}
