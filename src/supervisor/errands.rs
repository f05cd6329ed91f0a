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

use super::roster::Roster;
use super::spread::{self, Host};
use crate::engine::run::{Subscription, Summons};
use crate::ledger::versions::Verb;
use crate::ledger::{holders, wishes};
use crate::store::Link;

/// What is free for longer is taken by whoever can run it, whatever its load.
const OVERDUE: Duration = Duration::from_secs(2);
/// How often it is asked whether the loads are even.
const EVEN_OUT: Duration = Duration::from_secs(1);

/// Who can be called, and what was seen.
pub(crate) struct Errands {
    replica_id: Uuid,
    /// By name: the seat of each subscription.
    seats: HashMap<String, (usize, Arc<Summons>)>,
    /// By projection: its subscriptions.
    parts: HashMap<String, Vec<String>>,
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
    /// What each replica can run, which never changes.
    hosts: HashMap<Uuid, BTreeSet<String>>,
}

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// A projection that runs here was split anew, or has one more version: its subscriptions are others now.
    pub(crate) is_outdated: bool,
    /// How many subscriptions nobody has held for too long.
    pub(crate) without_holder: usize,
}

impl Errands {
    /// For these subscriptions, which sit in this order, and the configured `names`, from behind the entry `seen` on.
    pub(crate) fn new(
        replica_id: Uuid,
        subscriptions: &[Subscription],
        names: impl Iterator<Item = String>,
        seen: i64,
    ) -> Self {
        let mut parts: HashMap<String, Vec<String>> = HashMap::new();
        let mut seats = HashMap::new();
        for (index, subscription) in subscriptions.iter().enumerate() {
            let id = subscription.id().to_owned();
            parts.entry(subscription.projection_id().to_owned()).or_default().push(id.clone());
            seats.insert(id, (index, subscription.summons()));
        }
        Self { replica_id, seats, parts, names: names.collect(), seen: AtomicI64::new(seen) }
    }

    /// Looks at everything once.
    pub(crate) async fn run(
        &self,
        conn: &mut Link<'_>,
        roster: &Roster,
        rounds: &mut Rounds,
        lease: Duration,
    ) -> sqlx::Result<Looked> {
        let is_outdated = self.follow_operators(conn, roster).await?;
        let without_holder = self.share(conn, roster, rounds, lease).await?;
        Ok(Looked { is_outdated, without_holder })
    }

    /// Looks for new entries, and recalls the subscriptions that they concern. Says whether there are others now.
    async fn follow_operators(&self, conn: &mut Link<'_>, roster: &Roster) -> sqlx::Result<bool> {
        let mut is_outdated = false;
        for entry in wishes::since(conn, self.seen.load(Ordering::Relaxed)).await? {
            let concerned = self.parts.get(&entry.projection);
            if let (Some(parts), wishes::SPLIT) = (concerned, entry.verb.as_str()) {
                is_outdated |= *parts != holders::parts(conn, &entry.projection).await?;
            }
            let is_ours = self.names.contains(name_of(&entry.projection));
            is_outdated |= match entry.verb.as_str() {
                wishes::BUILD => is_ours && concerned.is_none(),
                verb if verb == Verb::Rebuild.as_str() => is_ours,
                // A wish is entered first, and its end later.
                verb if verb == Verb::Cancel.as_str() || verb == Verb::Retire.as_str() => {
                    concerned.is_some() && holders::parts(conn, &entry.projection).await?.is_empty()
                }
                _ => false,
            };
            for id in concerned.into_iter().flatten() {
                tracing::info!(
                    subscription = id,
                    revision = entry.revision,
                    verb = entry.verb,
                    "an operator did something"
                );
                self.summon(roster, id, Summons::recall);
            }
            self.seen.store(entry.revision, Ordering::Relaxed);
        }
        Ok(is_outdated)
    }

    /// Takes and gives back this replica's part of the plan. Returns how many of all subscriptions are overdue.
    async fn share(
        &self,
        conn: &mut Link<'_>,
        roster: &Roster,
        rounds: &mut Rounds,
        lease: Duration,
    ) -> sqlx::Result<usize> {
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
            .filter(|name| self.seats.contains_key(name))
            .collect();
        free.sort_unstable();
        for name in free.iter().filter(|name| age(name) > OVERDUE) {
            self.summon(roster, name, Summons::call);
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
        let replicas: Vec<Uuid> = loads.iter().map(|load| load.replica_id).collect();
        let hosts = self.hosts(conn, &replicas, rounds).await?;
        let plan = spread::plan(hosts, &free);
        for (name, _) in plan.takes.iter().filter(|(_, taker)| *taker == self.replica_id) {
            self.summon(roster, name, Summons::call);
        }
        for (name, _) in plan.gives.iter().filter(|(_, giver)| *giver == self.replica_id) {
            self.summon(roster, name, Summons::ask_back);
        }
        Ok(without_holder)
    }

    /// What each of these replicas can run and holds, in the order of their ids.
    async fn hosts(
        &self,
        conn: &mut Link<'_>,
        replicas: &[Uuid],
        rounds: &mut Rounds,
    ) -> sqlx::Result<Vec<Host>> {
        rounds.hosts.retain(|replica, _| replicas.contains(replica));
        let unknown: Vec<Uuid> =
            replicas.iter().copied().filter(|replica| !rounds.hosts.contains_key(replica)).collect();
        if !unknown.is_empty() {
            let found = holders::hosts(conn, &unknown).await?;
            rounds
                .hosts
                .extend(found.into_iter().map(|(replica, hosts)| (replica, hosts.into_iter().collect())));
        }
        let mut holds: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
        for (holder, name) in holders::holdings(conn, replicas).await? {
            holds.entry(holder).or_default().insert(name);
        }
        let host = |id: &Uuid| Host {
            id: *id,
            hosts: rounds.hosts.get(id).cloned().unwrap_or_default(),
            holds: holds.get(id).cloned().unwrap_or_default(),
        };
        Ok(replicas.iter().map(host).collect())
    }

    /// First the reason, then the turn that looks for it.
    fn summon(&self, roster: &Roster, name: &str, reason: impl Fn(&Summons)) {
        if let Some((index, summons)) = self.seats.get(name) {
            reason(summons);
            roster.recall(*index);
        }
    }
}

/// `fines` of `fines@2`.
fn name_of(id: &str) -> &str {
    id.split('@').next().unwrap_or(id)
}
