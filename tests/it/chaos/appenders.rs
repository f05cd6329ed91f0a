//! Eight appenders, each by another door, and what they were told.
//!
//! An append is *acknowledged* when somebody said so: its own answer, or ES002 at a later try with the same
//! event ids, which says that an earlier one got through. It is *refused* when the server said so at the
//! first try, or when nobody ever asked for a commit. All else is *unknown*: the answer got lost. Then either
//! all of it is in the log or nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use foldd::EventStoreError;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::stage::Stage;
use door::{Door, Ending};
pub(super) use draft::{Draft, Drafted};

mod door;
mod draft;

/// An answer that takes longer is not waited for.
const DEADLINE: Duration = Duration::from_secs(4);
/// More tries than any outage takes.
const TRIES: u32 = 200;

/// By which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `es_append`, one stream, any version; tried until it is known.
    Single,
    /// `es_append_many`, several streams; likewise.
    Block,
    /// `EventStore::append` with an expected version, sometimes an old one.
    Expected,
    /// A transaction that has its id long before it appends.
    Late,
    /// A transaction that appends to two streams through the library, and takes its time with the commit.
    Lingering,
    /// One that appends and rolls back.
    Regretful,
    /// Nothing but INSERT and UPDATE, into streams of its own.
    Plain,
    /// `foldd import` of a file; again with `--resume` until it is in.
    Import,
}

pub(super) const KINDS: [Kind; 8] = [
    Kind::Single,
    Kind::Block,
    Kind::Expected,
    Kind::Late,
    Kind::Lingering,
    Kind::Regretful,
    Kind::Plain,
    Kind::Import,
];

impl Kind {
    /// Whether a lost answer is asked for again.
    fn insists(self) -> bool {
        matches!(self, Self::Single | Self::Block | Self::Import)
    }
}

/// What appenders were told.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) acknowledged: Vec<Uuid>,
    pub(super) refused: Vec<Uuid>,
    /// Append by append.
    pub(super) unknown: Vec<Vec<Uuid>>,
}

impl Accounts {
    fn add(&mut self, verdict: Verdict, ids: Vec<Uuid>) {
        match verdict {
            Verdict::Acknowledged => self.acknowledged.extend(ids),
            Verdict::Refused => self.refused.extend(ids),
            Verdict::Unknown => self.unknown.push(ids),
        }
    }

    /// A line about it.
    pub(super) fn told(&self) -> String {
        let (acknowledged, refused) = (self.acknowledged.len(), self.refused.len());
        format!(
            "{acknowledged} events acknowledged, {refused} refused, {} appends unknown",
            self.unknown.len()
        )
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.acknowledged.extend(other.acknowledged);
        self.refused.extend(other.refused);
        self.unknown.extend(other.unknown);
        self
    }
}

enum Verdict {
    Acknowledged,
    Refused,
    Unknown,
}

/// All of them at work.
pub(super) struct Appenders {
    over: Arc<AtomicBool>,
    all: JoinSet<(Kind, Accounts)>,
}

impl Appenders {
    pub(super) fn start(stage: &Arc<Stage>, seed: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut all = JoinSet::new();
        for (kind, number) in KINDS.into_iter().zip(1_u64..) {
            let random = Rng::with_seed(seed.wrapping_mul(37).wrapping_add(number));
            all.spawn(work(kind, Arc::clone(stage), random, Arc::clone(&over)));
        }
        Self { over, all }
    }

    /// Lets each finish what it has in hand.
    pub(super) async fn stop(self) -> Vec<(Kind, Accounts)> {
        self.over.store(true, Ordering::SeqCst);
        self.all.join_all().await
    }
}

async fn work(kind: Kind, stage: Arc<Stage>, mut random: Rng, over: Arc<AtomicBool>) -> (Kind, Accounts) {
    // What is appended does not depend on what becomes of it.
    let mut drafts = random.fork();
    let mut door = Door::new(kind, Arc::clone(&stage));
    let mut accounts = Accounts::default();
    for number in 0_u32.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let draft = Draft::draw(kind, number, &mut drafts);
        let verdict = append(kind, &mut door, &draft, &mut random).await;
        accounts.add(verdict, draft.ids());
        sleep(Duration::from_millis(random.u64(5..60))).await;
    }
    (kind, accounts)
}

/// Appends a draft, and finds out what became of it as well as that can be.
async fn append(kind: Kind, door: &mut Door, draft: &Draft, random: &mut Rng) -> Verdict {
    let mut in_doubt = false;
    for _ in 0..TRIES {
        if timeout(DEADLINE, door.open()).await.is_ok_and(|opened| opened.is_ok()) {
            match timeout(DEADLINE, door.attempt(draft, random)).await {
                Ok(Ok(Ending::Committed)) | Ok(Err(EventStoreError::DuplicateEvent { .. })) => {
                    return Verdict::Acknowledged;
                }
                Ok(Ok(Ending::RolledBack)) => return Verdict::Refused,
                Ok(Err(error)) if is_refusal(&error) => {
                    if !kind.insists() {
                        return Verdict::Refused;
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    door.slam();
                    // Who never asks for the commit knows that there was none.
                    if kind == Kind::Regretful {
                        return Verdict::Refused;
                    }
                    in_doubt = true;
                    if !kind.insists() {
                        return Verdict::Unknown;
                    }
                }
            }
        } else {
            door.slam();
        }
        sleep(Duration::from_millis(random.u64(20..100))).await;
    }
    if in_doubt { Verdict::Unknown } else { Verdict::Refused }
}

/// Whether the server has said no, and is there: conflicts, deadlocks, locks that were not to be had.
fn is_refusal(error: &EventStoreError) -> bool {
    match error {
        EventStoreError::ConcurrencyConflict { .. } => true,
        EventStoreError::Database(error) => {
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
            code.starts_with("40") || code == "55P03"
        }
        _ => false,
    }
}
