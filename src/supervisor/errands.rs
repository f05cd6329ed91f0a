//! What happens in the books and concerns a subscription, carried to it: what operators did, what is free, what another
//! replica is to have.
//!
//! An entry of the operators' log is no order: it says that something changed in the books, and the next turn reads what.
//! Entries from before the first lease need nothing, since a lease reads everything. The last one seen is remembered across
//! connections, so that none is missed.
//!
//! One look serves all standbys: what is free stands in an index, and nobody asks for his own lease to be free. What the
//! plan of [`spread`] gives this replica is called; what stays free for longer than [`OVERDUE`] is called whatever the plan
//! says, so that no disagreement leaves a projection without an owner.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::crew::{Crew, name_of};
use super::preparing::Preparing;
use super::spread::{self, Host};
use crate::engine::run::Summons;
use crate::ledger::deeds;
use crate::ledger::holders::{self, Load};
use crate::ledger::versions::Verb;
use crate::store::Link;

/// What is free for longer is taken by whoever can run it, whatever its load.
const OVERDUE: Duration = Duration::from_secs(2);
/// How often it is asked whether the loads are even.
const EVEN_OUT: Duration = Duration::from_secs(1);

/// Who can be called, and what was seen.
pub(crate) struct Errands {
    replica_id: Uuid,
    crew: Arc<Crew>,
    /// The projections that are configured here, whether they run or not.
    names: HashSet<String>,
    /// The last entry that was seen.
    seen: AtomicI64,
}

/// What one session remembers between its looks.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    free_since: HashMap<String, Instant>,
    evened_out: Option<Instant>,
    /// What each replica can run, and the digest of that.
    hosts: HashMap<Uuid, (i64, BTreeSet<String>)>,
}

impl Errands {
    /// For a crew and the configured `names`, from behind the entry `seen` on.
    pub(crate) fn new(
        replica_id: Uuid,
        crew: Arc<Crew>,
        names: impl Iterator<Item = String>,
        seen: i64,
    ) -> Self {
        Self { replica_id, crew, names: names.collect(), seen: AtomicI64::new(seen) }
    }

    /// Looks at everything once. Has projections prepared anew of which other subscriptions are to run here now: they were split
    /// anew, or have a version more or less. Returns how many subscriptions nobody has held for too long.
    pub(crate) async fn run(
        &self,
        conn: &mut Link<'_>,
        preparing: &Preparing,
        rounds: &mut Rounds,
        lease: Duration,
    ) -> sqlx::Result<usize> {
        self.follow_operators(conn, preparing).await?;
        self.share(conn, rounds, lease).await
    }

    /// Looks for new entries, and recalls the subscriptions that they concern.
    async fn follow_operators(&self, conn: &mut Link<'_>, preparing: &Preparing) -> sqlx::Result<()> {
        for entry in deeds::since(conn, self.seen.load(Ordering::Relaxed)).await? {
            let concerned = self.crew.parts(&entry.projection);
            let name = name_of(&entry.projection);
            let is_ours = self.names.contains(name);
            let is_outdated = match entry.verb.as_str() {
                deeds::SPLIT if !concerned.is_empty() => {
                    let mut parts = holders::parts(conn, &entry.projection).await?;
                    parts.sort_unstable();
                    concerned != parts
                }
                deeds::BUILD => is_ours && concerned.is_empty(),
                verb if verb == Verb::Rebuild.as_str() => is_ours,
                // A wish is entered first, and its end later.
                verb if verb == Verb::Cancel.as_str() || verb == Verb::Retire.as_str() => {
                    !concerned.is_empty() && holders::parts(conn, &entry.projection).await?.is_empty()
                }
                _ => false,
            };
            if is_outdated {
                preparing.outdated(name);
            }
            // What is gone has nothing to look for.
            let is_gone = is_outdated && entry.verb != Verb::Rebuild.as_str();
            for id in concerned.iter().filter(|_| !is_gone) {
                tracing::info!(
                    subscription = id,
                    revision = entry.revision,
                    verb = entry.verb,
                    "an operator did something"
                );
                self.crew.summon(id, Summons::recall);
            }
            self.seen.store(entry.revision, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes and gives back this replica's part of the plan. Returns how many of all subscriptions are overdue.
    async fn share(&self, conn: &mut Link<'_>, rounds: &mut Rounds, lease: Duration) -> sqlx::Result<usize> {
        let found = holders::free(conn).await?;
        let now = Instant::now();
        let names: HashSet<&str> = found.iter().map(|free| free.subscription_id.as_str()).collect();
        rounds.free_since.retain(|name, _| names.contains(name.as_str()));
        for name in &names {
            rounds.free_since.entry((*name).to_owned()).or_insert(now);
        }
        let age = |name: &str| rounds.free_since.get(name).map_or(Duration::ZERO, |since| now - *since);
        let overdue =
            found.iter().filter(|free| free.is_wanted && age(&free.subscription_id) > lease + OVERDUE);
        let without_holder = overdue.count();
        let mut free: Vec<String> = found
            .iter()
            .map(|free| free.subscription_id.clone())
            .filter(|name| self.crew.has(name))
            .collect();
        free.sort_unstable();
        for name in free.iter().filter(|name| age(name) > OVERDUE) {
            self.crew.summon(name, Summons::call);
        }
        let due = rounds.evened_out.is_none_or(|evened_out| evened_out.elapsed() >= EVEN_OUT);
        if free.is_empty() && !due {
            return Ok(without_holder);
        }
        rounds.evened_out = Some(now);
        let loads = holders::loads(conn).await?;
        let most = loads.iter().map(|load| load.held).max().unwrap_or(0);
        let least = loads.iter().map(|load| load.held).min().unwrap_or(0);
        if free.is_empty() && most < least + 2 {
            return Ok(without_holder);
        }
        let hosts = self.hosts(conn, &loads, rounds).await?;
        let plan = spread::plan(hosts, &free);
        for (name, _) in plan.takes.iter().filter(|(_, taker)| *taker == self.replica_id) {
            self.crew.summon(name, Summons::call);
        }
        for (name, _) in plan.gives.iter().filter(|(_, giver)| *giver == self.replica_id) {
            self.crew.summon(name, Summons::ask_back);
        }
        Ok(without_holder)
    }

    /// What each of these replicas can run and holds, in the order of their ids.
    async fn hosts(
        &self,
        conn: &mut Link<'_>,
        loads: &[Load],
        rounds: &mut Rounds,
    ) -> sqlx::Result<Vec<Host>> {
        let known =
            |load: &Load| rounds.hosts.get(&load.replica_id).is_some_and(|(digest, _)| *digest == load.hosts);
        let unknown: Vec<Uuid> =
            loads.iter().filter(|load| !known(load)).map(|load| load.replica_id).collect();
        rounds.hosts.retain(|replica, _| loads.iter().any(|load| load.replica_id == *replica));
        if !unknown.is_empty() {
            for (replica, digest, hosts) in holders::hosts(conn, &unknown).await? {
                rounds.hosts.insert(replica, (digest, hosts.into_iter().collect()));
            }
        }
        let replicas: Vec<Uuid> = loads.iter().map(|load| load.replica_id).collect();
        let mut holds: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
        for (holder, name) in holders::holdings(conn, &replicas).await? {
            holds.entry(holder).or_default().insert(name);
        }
        let host = |id: &Uuid| Host {
            id: *id,
            hosts: rounds.hosts.get(id).map(|(_, hosts)| hosts.clone()).unwrap_or_default(),
            holds: holds.get(id).cloned().unwrap_or_default(),
        };
        Ok(replicas.iter().map(host).collect())
    }
}
