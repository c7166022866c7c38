//! Replicas and leaders, spread evenly.
//!
//! Invariants: over all nodes the number of copies differs by at most one, and so does the number of preferred
//! leaderships. Both are functions of the arguments alone.

use raft_types::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The replicas of data groups 1…=`groups` on `nodes`, the preferred leader first; fewer copies than `replication`
/// when there are fewer nodes. Ready for [`crate::MetaCommand::DefineGroups`]; empty without nodes.
#[must_use]
pub fn spread(nodes: &[NodeId], replication: u32, groups: u32) -> Vec<(u32, Vec<NodeId>)> {
    let nodes: Vec<NodeId> = nodes.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let copies = usize::try_from(replication.max(1)).unwrap_or(usize::MAX).min(nodes.len());
    let replicas = replicas(nodes.len(), copies, groups as usize);
    let leaders = leaders(nodes.len(), &replicas);
    let placed = replicas.into_iter().zip(leaders).zip(1..);
    placed
        .map(|((mut replicas, leader), group)| {
            replicas.sort_by_key(|replica| (*replica != leader, *replica));
            (group, replicas.into_iter().map(|replica| nodes[replica]).collect())
        })
        .collect()
}

/// Always takes the nodes with the fewest copies: the counts never differ by more than one. Among equals it prefers
/// those that share the fewest groups with the ones taken, so that a dead node's load falls on many.
fn replicas(nodes: usize, copies: usize, groups: usize) -> Vec<Vec<usize>> {
    let mut held = vec![0_u32; nodes];
    let mut together = vec![vec![0_u32; nodes]; nodes];
    let mut all = Vec::with_capacity(groups);
    for _ in 0..groups {
        let mut taken: Vec<usize> = Vec::with_capacity(copies);
        while taken.len() < copies {
            let shared = |node: usize| taken.iter().map(|other| together[node][*other]).sum::<u32>();
            let free = (0..nodes).filter(|node| !taken.contains(node));
            let Some(next) = free.min_by_key(|node| (held[*node], shared(*node), *node)) else { break };
            taken.push(next);
        }
        for node in &taken {
            held[*node] += 1;
            for other in taken.iter().filter(|other| *other != node) {
                together[*node][*other] += 1;
            }
        }
        all.push(taken);
    }
    all
}

/// One leader for each group from among its replicas. Starts greedily, then passes leaderships along the shortest chain
/// from a node with too many to one with too few. While counts differ by two such a chain exists: giving each replica
/// an equal fraction is even to within one, and a flow with whole capacities has a whole solution.
fn leaders(nodes: usize, replicas: &[Vec<usize>]) -> Vec<usize> {
    even(nodes, replicas, &vec![None; replicas.len()])
}

/// The same, beginning with leaders that are there already: no more of them change than must.
pub(crate) fn even(nodes: usize, replicas: &[Vec<usize>], now: &[Option<usize>]) -> Vec<usize> {
    let mut led = vec![0_u32; nodes];
    now.iter().flatten().for_each(|leader| led[*leader] += 1);
    let mut leaders = Vec::with_capacity(replicas.len());
    for (group, now) in replicas.iter().zip(now) {
        leaders.push(now.unwrap_or_else(|| {
            let leader = group.iter().copied().min_by_key(|node| (led[*node], *node)).unwrap_or(0);
            led[leader] += 1;
            leader
        }));
    }
    // Every pass lowers the sum of squares, so that this ends; the bound is for the reader.
    for _ in 0..replicas.len() * nodes.max(1) {
        if !pass_along(&mut led, &mut leaders, replicas) {
            break;
        }
    }
    leaders
}

fn pass_along(led: &mut [u32], leaders: &mut [usize], replicas: &[Vec<usize>]) -> bool {
    let mut sources: Vec<usize> = (0..led.len()).collect();
    sources.sort_by_key(|node| (std::cmp::Reverse(led[*node]), *node));
    for source in sources {
        let mut came_by: BTreeMap<usize, (usize, usize)> = BTreeMap::new(); // node → (node before, group passed)
        let mut queue = VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            if led[node] + 2 <= led[source] {
                let mut at = node;
                while let Some((before, group)) = came_by.get(&at).copied() {
                    leaders[group] = at;
                    at = before;
                }
                led[node] += 1;
                led[source] -= 1;
                return true;
            }
            for (group, _) in leaders.iter().enumerate().filter(|(_, leader)| **leader == node) {
                for next in replicas[group].iter().copied().filter(|next| *next != source) {
                    came_by.entry(next).or_insert_with(|| {
                        queue.push_back(next);
                        (node, group)
                    });
                }
            }
        }
    }
    false
}

/// One step towards the preferred leaders: which leaderships to hand over now, as (group, from, to). A node gives and
/// takes at most one leadership a step, so that hand-overs never storm; ask again when they are done.
#[must_use]
pub fn rebalance(
    leaders: &BTreeMap<GroupId, Option<NodeId>>,
    preferred: &BTreeMap<GroupId, NodeId>,
    alive: &BTreeSet<NodeId>,
) -> Vec<(GroupId, NodeId, NodeId)> {
    let (mut giving, mut taking) = (BTreeSet::new(), BTreeSet::new());
    let mut step = Vec::new();
    for (group, leader) in leaders {
        let (Some(from), Some(to)) = (*leader, preferred.get(group).copied()) else { continue };
        let wanted = from != to && alive.contains(&to) && alive.contains(&from);
        if wanted && !giving.contains(&from) && !taking.contains(&to) {
            giving.insert(from);
            taking.insert(to);
            step.push((*group, from, to));
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u64) -> Vec<NodeId> {
        (0..count).map(|node| NodeId(1 + node * 7)).collect()
    }

    fn uneven(counts: &BTreeMap<NodeId, u32>) -> u32 {
        counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
    }

    #[test]
    fn copies_and_leaderships_differ_by_at_most_one() {
        for count in 1..=17 {
            let nodes = ids(count);
            for replication in [1, 2, 3, 5] {
                for groups in [1, 3, 64, 100] {
                    let mut held: BTreeMap<_, _> = nodes.iter().map(|node| (*node, 0)).collect();
                    let mut led = held.clone();
                    for (number, (group, replicas)) in (1..).zip(spread(&nodes, replication, groups)) {
                        assert_eq!(group, number);
                        assert_eq!(replicas.len(), (replication as usize).min(nodes.len()));
                        assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replicas.len());
                        replicas.iter().for_each(|node| *held.entry(*node).or_default() += 1);
                        *led.entry(replicas[0]).or_default() += 1;
                    }
                    assert!(
                        uneven(&held) <= 1 && uneven(&led) <= 1,
                        "{count} {replication} {groups}: {held:?} {led:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_order_in_which_nodes_are_named_does_not_matter() {
        let mut nodes = ids(5);
        let plan = spread(&nodes, 3, 64);
        nodes.reverse();
        assert_eq!(spread(&nodes, 3, 64), plan);
        assert!(spread(&[], 3, 64).is_empty());
    }

    #[test]
    fn a_dead_node_of_five_leaves_its_leaderships_to_more_nodes_than_one_group_has() {
        let nodes = ids(5);
        let heirs: BTreeSet<_> = spread(&nodes, 3, 64)
            .into_iter()
            .filter(|(_, replicas)| replicas[0] == nodes[0])
            .flat_map(|(_, replicas)| replicas.into_iter().skip(1))
            .collect();
        assert!(heirs.len() > 2, "{heirs:?}");
    }

    #[test]
    fn leaderships_come_home_step_by_step_and_only_to_living_nodes() {
        let nodes = ids(3);
        let preferred: BTreeMap<_, _> =
            spread(&nodes, 3, 64).into_iter().map(|(group, replicas)| (GroupId(group), replicas[0])).collect();
        let mut leaders: BTreeMap<_, _> = preferred.keys().map(|group| (*group, Some(nodes[0]))).collect();
        leaders.insert(GroupId(1), None);
        let alive: BTreeSet<_> = [nodes[0], nodes[1]].into();
        for _ in 0..64 {
            let step = rebalance(&leaders, &preferred, &alive);
            assert!(step.len() <= 1, "one giver, one hand-over: {step:?}");
            for (group, from, to) in step {
                assert_eq!((leaders[&group], to), (Some(from), nodes[1]));
                leaders.insert(group, Some(to));
            }
        }
        assert!(rebalance(&leaders, &preferred, &alive).is_empty());
        assert_eq!(leaders[&GroupId(1)], None, "a group without a leader elects one itself");
        assert!(leaders.values().all(|leader| *leader != Some(nodes[2])), "the dead node gets nothing");
    }
}
