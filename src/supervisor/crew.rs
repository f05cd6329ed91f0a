//! The crew: every subscription that runs here, under its seat, and how more come and others go while the rest works on.
//!
//! A subscription is known to the roster (its turns), to the watcher's interests (its wake-ups), to the board (its line) and to
//! the errands (its summons). All four are told here and nowhere else, and before its first turn, so that none is missed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Daemon;
use super::roster::Roster;
use super::watcher::Interests;
use crate::engine::build::Ready;
use crate::engine::run::{Subscription, Summons};

/// Who runs here.
pub(crate) struct Crew {
    daemon: Arc<Daemon>,
    roster: Arc<Roster>,
    interests: Arc<Interests>,
    /// By name.
    members: Mutex<HashMap<String, Member>>,
}

/// A subscription, as others reach it.
struct Member {
    index: usize,
    projection_id: String,
    summons: Arc<Summons>,
}

impl Crew {
    /// Nobody yet.
    pub(crate) fn new(daemon: Arc<Daemon>, roster: Arc<Roster>, interests: Arc<Interests>) -> Self {
        Self { daemon, roster, interests, members: Mutex::default() }
    }

    /// Takes up what was prepared of a projection: who is new gets a seat, who is there already keeps it and works on, who
    /// is not there any more loses it. Returns who that is.
    pub(crate) fn take_up(&self, name: &str, prepared: Vec<Ready>) -> Vec<String> {
        let wanted: BTreeSet<String> =
            prepared.iter().map(|ready| ready.program.subscription_id.clone()).collect();
        let gone: Vec<String> = self
            .members()
            .iter()
            .filter(|(id, member)| name_of(&member.projection_id) == name && !wanted.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.dismiss(id);
        }
        for ready in prepared {
            self.admit(ready);
        }
        gone
    }

    fn admit(&self, mut ready: Ready) {
        let notice = ready.notice.take();
        if self.members().contains_key(&ready.program.subscription_id) {
            self.daemon.board.note(&ready.program.subscription_id, notice);
            return;
        }
        let subscription = Subscription::new(ready, &self.daemon.terms);
        let index = self.roster.reserve();
        self.interests.add(index, subscription.categories());
        self.daemon.board.add(&subscription, notice);
        let member = Member {
            index,
            projection_id: subscription.projection_id().to_owned(),
            summons: subscription.summons(),
        };
        self.members().insert(subscription.id().to_owned(), member);
        self.roster.sit(index, subscription);
    }

    fn dismiss(&self, id: &str) {
        let Some(member) = self.members().remove(id) else { return };
        self.interests.remove(member.index);
        self.roster.dismiss(member.index);
        self.daemon.board.remove(id);
        tracing::info!(subscription = id, "runs here no more");
    }

    /// Whether a subscription runs here.
    pub(super) fn has(&self, id: &str) -> bool {
        self.members().contains_key(id)
    }

    /// The names of everybody, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.members().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The subscriptions of a version, sorted; none where it does not run here.
    pub(super) fn parts(&self, projection_id: &str) -> Vec<String> {
        let members = self.members();
        let parts = members.iter().filter(|(_, member)| member.projection_id == projection_id);
        let mut parts: Vec<String> = parts.map(|(id, _)| id.clone()).collect();
        parts.sort_unstable();
        parts
    }

    /// Those who sit on these seats.
    pub(super) fn on(&self, seats: &[usize]) -> Vec<String> {
        let members = self.members();
        members.iter().filter(|(_, member)| seats.contains(&member.index)).map(|(id, _)| id.clone()).collect()
    }

    /// First the reason, then the turn that looks for it.
    pub(super) fn summon(&self, id: &str, reason: impl Fn(&Summons)) {
        if let Some(member) = self.members().get(id) {
            reason(&member.summons);
            self.roster.recall(member.index);
        }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `fines` of `fines@2`.
pub(super) fn name_of(id: &str) -> &str {
    id.split('@').next().unwrap_or(id)
}
