//! Which replica is to hold which subscription: the same answer wherever it is asked.
//!
//! **Promise.** Loads differ by at most one where everybody hosts everything. Nothing moves that need not, and nothing free
//! stays free while somebody who could hold it runs.
//!
//! **How.** There is no leader. Every replica reads the same books and makes the same plan from them: what is free goes,
//! one by one, to the least loaded of those that host it; then, as long as that makes the loads more even, one goes from
//! the most loaded to the least loaded that hosts one of its own. Each replica carries out its own part: it takes what the
//! plan gives it, and gives back what the plan takes from it. Two that read the books at different moments may disagree
//! for a round; the lease decides, and the next round sees what became of it.
//!
//! **Why it comes to rest.** Each move brings two loads closer together that were two or more apart, so none is undone by
//! the next plan.

use std::collections::BTreeSet;

use uuid::Uuid;

/// A replica that runs and is not about to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) id: Uuid,
    /// What it can run.
    pub(crate) hosts: BTreeSet<String>,
    /// What it holds.
    pub(crate) holds: BTreeSet<String>,
}

/// What is to become of the leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Who takes which free subscription.
    pub(crate) takes: Vec<(String, Uuid)>,
    /// Who gives which one back.
    pub(crate) gives: Vec<(String, Uuid)>,
}

/// Makes the plan. `hosts` in the order of their ids, `free` in that of the names.
pub(crate) fn plan(mut hosts: Vec<Host>, free: &[String]) -> Plan {
    let mut plan = Plan::default();
    for subscription in free {
        let least = hosts
            .iter_mut()
            .filter(|host| host.hosts.contains(subscription))
            .min_by_key(|host| (host.holds.len(), host.id));
        if let Some(host) = least {
            host.holds.insert(subscription.clone());
            plan.takes.push((subscription.clone(), host.id));
        }
    }
    while let Some((from, to, subscription)) = best_move(&hosts, free) {
        hosts[from].holds.remove(&subscription);
        plan.gives.push((subscription.clone(), hosts[from].id));
        hosts[to].holds.insert(subscription);
    }
    plan
}

/// The move that evens out most: from whom to whom, and what. What is free is nobody's to give yet.
fn best_move(hosts: &[Host], free: &[String]) -> Option<(usize, usize, String)> {
    let mut by_load: Vec<usize> = (0..hosts.len()).collect();
    by_load.sort_by_key(|index| (hosts[*index].holds.len(), hosts[*index].id));
    for from in by_load.iter().rev() {
        for to in &by_load {
            if hosts[*from].holds.len() < hosts[*to].holds.len() + 2 {
                break;
            }
            let giveable = |subscription: &&String| {
                hosts[*to].hosts.contains(*subscription) && free.binary_search(subscription).is_err()
            };
            if let Some(subscription) = hosts[*from].holds.iter().find(giveable) {
                return Some((*from, *to, subscription.clone()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{any, prop, proptest};
    use uuid::Uuid;

    use super::{Host, plan};

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("p{number:04}@1")).collect()
    }

    fn host(id: u128, hosts: &[String], holds: &[String]) -> Host {
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        Host { id: Uuid::from_u128(id), hosts: set(hosts), holds: set(holds) }
    }

    /// Carries a plan out as the replicas would; returns what is free then.
    fn carry_out(hosts: &mut [Host], free: &[String]) -> (Vec<String>, usize) {
        let plan = plan(hosts.to_vec(), free);
        let mut left: BTreeSet<String> = free.iter().cloned().collect();
        for (subscription, id) in &plan.takes {
            let taker = hosts.iter_mut().find(|host| host.id == *id).expect("it is one of them");
            taker.holds.insert(subscription.clone());
            left.remove(subscription);
        }
        for (subscription, id) in &plan.gives {
            let giver = hosts.iter_mut().find(|host| host.id == *id).expect("it is one of them");
            assert!(giver.holds.remove(subscription), "only what is held is given back");
            left.insert(subscription.clone());
        }
        (left.into_iter().collect(), plan.gives.len())
    }

    #[test]
    fn one_takes_everything_and_a_second_one_gets_half_of_it() {
        let all = names(10);
        let mut hosts = vec![host(1, &all, &[])];
        let (free, moves) = carry_out(&mut hosts, &all);
        assert_eq!((hosts[0].holds.len(), free.len(), moves), (10, 0, 0));
        hosts.push(host(2, &all, &[]));
        let (free, moves) = carry_out(&mut hosts, &[]);
        assert_eq!((free.len(), moves), (5, 5), "no more moves than needed");
        let (free, moves) = carry_out(&mut hosts, &free);
        assert_eq!((hosts[1].holds.len(), free.len(), moves), (5, 0, 0));
    }

    #[test]
    fn what_only_one_hosts_stays_with_it_however_loaded_it_is() {
        let all = names(10);
        let mut hosts = vec![host(1, &all, &all), host(2, &all[..2], &[])];
        let (free, moves) = carry_out(&mut hosts, &[]);
        assert_eq!(moves, 2);
        carry_out(&mut hosts, &free);
        assert_eq!((hosts[0].holds.len(), hosts[1].holds.len()), (8, 2));
        assert_eq!(carry_out(&mut hosts, &[]).1, 0, "and nothing moves to and fro");
    }

    proptest! {
        #[test]
        fn from_any_state_it_comes_to_rest_even_and_with_nothing_free(
            holders in prop::collection::vec(any::<Option<prop::sample::Index>>(), 0..60),
            replicas in 1_usize..6,
        ) {
            let all = names(holders.len());
            let mut hosts: Vec<Host> = (0..replicas).map(|id| host(id as u128, &all, &[])).collect();
            let mut free = Vec::new();
            for (name, holder) in all.iter().zip(&holders) {
                match holder {
                    Some(holder) => drop(hosts[holder.index(replicas)].holds.insert(name.clone())),
                    None => free.push(name.clone()),
                }
            }
            let share = all.len() / replicas;
            let surplus: usize = hosts.iter().map(|host| host.holds.len().saturating_sub(share + 1)).sum();
            let above: usize = hosts.iter().map(|host| host.holds.len().saturating_sub(share)).sum();
            let (mut left, moved) = carry_out(&mut hosts, &free);
            assert!(moved >= surplus.min(moved) && moved <= above, "{moved} moves, {above} are above the share");
            for _ in 0..3 {
                left = carry_out(&mut hosts, &left).0;
            }
            assert!(left.is_empty(), "{left:?} stay free");
            let loads: Vec<usize> = hosts.iter().map(|host| host.holds.len()).collect();
            let (least, most) = (loads.iter().min().copied(), loads.iter().max().copied());
            assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{loads:?}");
            assert_eq!(carry_out(&mut hosts, &[]).1, 0, "at rest");
        }
    }
}
