//! What to move next when nodes come and go: pure functions of the table of groups, the nodes and what is under way.
//!
//! ```text
//!   a copy on a node that may not keep it      ─► to the node with the fewest, or dropped if there are enough      (drain)
//!   fewer copies than wanted                   ─► all that lack are added at once: never an even number on the way (growth)
//!   more copies than wanted                    ─► one is dropped, of a node that is down or given up first         (reduce)
//!   one node has two copies more than another  ─► one moves                                                       (balance)
//! ```
//!
//! Invariants (kept by the property tests below)
//! - Steps end, and then no copy is on a node that may not keep it, counts differ by at most one, leaderships too.
//! - A step takes at most one of the copies that a group has, and none from a group that is still busy with the one
//!   before: only a copy that was never finished is planned anew, when its node has to go.
//! - A step never takes a copy without putting another in its place, unless there are enough.
//! - Nothing moves that need not: a node that comes gets its share and not one more, a node that goes gives what it has.

use crate::spread::even;
use raft_types::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Copies that a cluster of three or more nodes keeps.
const REPLICATION: u32 = 3;

/// A node as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its raft id.
    pub id: NodeId,
    /// It may keep the copies that it has: it does not drain.
    pub keeps: bool,
    /// It may get new ones: it keeps, is up, and was not given up.
    pub takes: bool,
}

/// Groups whose voters are not yet those of the table, with the voters that they have.
pub type Busy = BTreeMap<GroupId, BTreeSet<NodeId>>;

/// Which nodes keep which data group, the preferred leader first.
type Table = BTreeMap<GroupId, Vec<NodeId>>;

/// The copies to aim at, when `now` are kept and `stay` nodes may keep some.
///
/// One node that grows keeps one copy until there are three: with two, either of them would stop the cluster, and it would
/// stop when the second was started by mistake. Fewer are kept only by order.
#[must_use]
pub fn target_replication(now: u32, stay: usize) -> u32 {
    if stay >= REPLICATION as usize { now.max(REPLICATION) } else { now }
}

/// The next change of one group, or none when nothing needs to change, or can now. `may_start` allows to begin with a group
/// that is not busy.
#[must_use]
pub fn next_move(
    table: &Table,
    nodes: &[Candidate],
    replication: u32,
    busy: &Busy,
    may_start: bool,
) -> Option<(GroupId, Vec<NodeId>)> {
    let view = View::new(table, nodes, busy, may_start, usize::try_from(replication.max(1)).unwrap_or(usize::MAX));
    view.leave().or_else(|| view.add()).or_else(|| view.drop_one()).or_else(|| view.balance())
}

/// The groups whose preferred leader should be another of their replicas, with the new order of these: leaderships differ
/// by at most one afterwards as far as the copies allow it, and none is preferred on a node that may not keep copies.
#[must_use]
pub fn even_leaders(table: &Table, nodes: &[Candidate]) -> Vec<(GroupId, Vec<NodeId>)> {
    let keepers: Vec<NodeId> = nodes.iter().filter(|node| node.keeps).map(|node| node.id).collect();
    let place = |id: &NodeId| keepers.iter().position(|keeper| keeper == id);
    let led: Vec<(&GroupId, &Vec<NodeId>, Vec<usize>)> = table
        .iter()
        .map(|(group, replicas)| (group, replicas, replicas.iter().filter_map(place).collect::<Vec<_>>()))
        .filter(|(.., places)| !places.is_empty())
        .collect();
    let places: Vec<Vec<usize>> = led.iter().map(|(.., places)| places.clone()).collect();
    let now: Vec<Option<usize>> = led.iter().map(|(_, replicas, _)| replicas.first().and_then(place)).collect();
    let leaders = even(keepers.len(), &places, &now);
    led.into_iter()
        .zip(leaders)
        .filter_map(|((group, replicas, _), leader)| {
            let leader = keepers[leader];
            let mut ordered = replicas.clone();
            ordered.sort_by_key(|id| *id != leader); // stable: the others keep their order
            (ordered != *replicas).then_some((*group, ordered))
        })
        .collect()
}

struct View<'a> {
    table: &'a Table,
    busy: &'a Busy,
    may_start: bool,
    replication: usize,
    nodes: BTreeMap<NodeId, Candidate>,
    held: BTreeMap<NodeId, usize>,
}

impl<'a> View<'a> {
    fn new(table: &'a Table, nodes: &[Candidate], busy: &'a Busy, may_start: bool, replication: usize) -> Self {
        let mut held: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
        table.values().flatten().for_each(|id| *held.entry(*id).or_default() += 1);
        Self { table, busy, may_start, replication, nodes: nodes.iter().map(|node| (node.id, *node)).collect(), held }
    }

    fn keeps(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.keeps)
    }

    fn takes(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.takes)
    }

    fn held(&self, id: NodeId) -> usize {
        self.held.get(&id).copied().unwrap_or(0)
    }

    /// Groups that may begin to change.
    fn idle(&self) -> impl Iterator<Item = (&'a GroupId, &'a Vec<NodeId>)> {
        let (busy, may_start) = (self.busy, self.may_start);
        self.table.iter().filter(move |(group, _)| may_start && !busy.contains_key(group))
    }

    /// In how many groups the node is beside one of `others`: fewer means that a dead node's load falls on many.
    fn shared(&self, id: NodeId, others: &[NodeId]) -> usize {
        let groups = self.table.values().filter(|replicas| replicas.contains(&id));
        groups.map(|replicas| replicas.iter().filter(|other| others.contains(other)).count()).sum()
    }

    /// Nodes that could take a copy of a group with these replicas, the best first.
    fn takers(&self, replicas: &[NodeId]) -> Vec<NodeId> {
        let mut free: Vec<NodeId> =
            self.nodes.values().filter(|node| node.takes && !replicas.contains(&node.id)).map(|node| node.id).collect();
        free.sort_by_cached_key(|id| (self.held(*id), self.shared(*id, replicas), *id));
        free
    }

    fn leave(&self) -> Option<(GroupId, Vec<NodeId>)> {
        self.table.iter().find_map(|(group, replicas)| {
            let may_go = |id: &&NodeId| match self.busy.get(group) {
                _ if self.keeps(**id) => false,
                Some(voters) => !voters.contains(*id), // it never became a copy: planned anew
                None => self.may_start,
            };
            let gone = replicas.iter().find(may_go)?;
            let stay: Vec<NodeId> = replicas.iter().copied().filter(|id| id != gone).collect();
            if stay.len() >= self.replication {
                return Some((*group, stay));
            }
            let heir = self.takers(replicas).into_iter().next()?;
            Some((*group, replicas.iter().map(|id| if id == gone { heir } else { *id }).collect()))
        })
    }

    fn add(&self) -> Option<(GroupId, Vec<NodeId>)> {
        self.idle().filter(|(_, replicas)| replicas.len() < self.replication).find_map(|(group, replicas)| {
            let mut more = replicas.clone();
            while more.len() < self.replication {
                more.push(self.takers(&more).into_iter().next()?);
            }
            Some((*group, more))
        })
    }

    fn drop_one(&self) -> Option<(GroupId, Vec<NodeId>)> {
        let (group, replicas) = self.idle().find(|(_, replicas)| replicas.len() > self.replication)?;
        // The last one in the order: not the preferred leader, if there is a choice.
        let (at, _) = replicas.iter().enumerate().max_by_key(|(at, id)| (!self.takes(**id), self.held(**id), *at))?;
        let stay = replicas.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, id)| *id).collect();
        Some((*group, stay))
    }

    /// A single copy is not balanced: that would only let each node that dies take some images with it.
    fn balance(&self) -> Option<(GroupId, Vec<NodeId>)> {
        if self.replication < 2 {
            return None;
        }
        let mut sources: Vec<NodeId> = self.nodes.values().filter(|node| node.keeps).map(|node| node.id).collect();
        sources.sort_by_key(|id| (std::cmp::Reverse(self.held(*id)), *id));
        let mut targets: Vec<NodeId> = self.nodes.values().filter(|node| node.takes).map(|node| node.id).collect();
        targets.sort_by_key(|id| (self.held(*id), *id));
        let pairs = sources.iter().flat_map(|source| targets.iter().map(move |target| (*source, *target)));
        let pairs = pairs.filter(|(source, target)| self.held(*source) >= self.held(*target) + 2);
        pairs.into_iter().find_map(|(source, target)| {
            let movable = self.idle().filter(|(_, own)| own.contains(&source) && !own.contains(&target));
            // A leader stays, if it can; and the newcomer shares with as many others as there are.
            let best =
                movable.min_by_key(|(group, own)| (own.first() == Some(&source), self.shared(target, own), **group));
            best.map(|(group, own)| (*group, own.iter().map(|id| if *id == source { target } else { *id }).collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(id: u64) -> Candidate {
        Candidate { id: NodeId(id), keeps: true, takes: true }
    }

    fn table(nodes: &[u64], replication: u32, groups: u32) -> Table {
        let nodes: Vec<NodeId> = nodes.iter().map(|id| NodeId(*id)).collect();
        crate::spread(&nodes, replication, groups).into_iter().map(|(group, own)| (GroupId(group), own)).collect()
    }

    fn counts(table: &Table, nodes: &[Candidate], of: impl Fn(&[NodeId], NodeId) -> bool) -> (usize, usize) {
        let count = |node: &Candidate| table.values().filter(|own| of(own, node.id)).count();
        let counts: Vec<usize> = nodes.iter().filter(|node| node.keeps).map(count).collect();
        (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0))
    }

    /// Plays the plan to its end with `in_flight` groups at a time; answers how many copies moved. Checks each step.
    fn settle(table: &mut Table, nodes: &[Candidate], replication: u32, in_flight: usize) -> usize {
        let (mut busy, mut moved) = (Busy::new(), 0);
        for _ in 0..10_000 {
            match next_move(table, nodes, replication, &busy, busy.len() < in_flight) {
                Some((group, own)) => {
                    let before = table.insert(group, own.clone()).expect("a known group");
                    assert!(busy.insert(group, before.iter().copied().collect()).is_none(), "{group} was busy");
                    let lost = before.iter().filter(|id| !own.contains(id)).count();
                    let came: Vec<_> = own.iter().filter(|id| !before.contains(id)).collect();
                    assert!(lost <= 1, "{before:?} → {own:?}");
                    assert!(lost == 0 || came.len() == 1 || own.len() >= replication as usize, "{before:?} → {own:?}");
                    assert!(came.iter().all(|id| nodes.iter().any(|node| node.id == **id && node.takes)));
                    assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), own.len());
                    moved += came.len();
                }
                // Some change ends, whichever.
                None if !busy.is_empty() => drop(busy.pop_first()),
                None => {
                    for (group, own) in even_leaders(table, nodes) {
                        table.insert(group, own);
                    }
                    assert!(even_leaders(table, nodes).is_empty(), "leaders come to rest at once");
                    return moved;
                }
            }
        }
        panic!("the plan does not end: {table:?} {nodes:?}");
    }

    #[test]
    fn one_node_becomes_three_becomes_five_becomes_three_becomes_one() {
        let mut now = table(&[1], 1, 64);
        let one_and_two = [node(1), node(2)];
        assert_eq!(target_replication(1, 2), 1);
        assert_eq!(settle(&mut now, &one_and_two, 1, 4), 0, "a second node alone changes nothing");
        let three = [node(1), node(2), node(3)];
        let replication = target_replication(1, 3);
        assert_eq!(settle(&mut now, &three, replication, 4), 128, "each group gets two more copies");
        assert_eq!(counts(&now, &three, |own, id| own.first() == Some(&id)), (21, 22));
        let five = [node(1), node(2), node(3), node(4), node(5)];
        // 192 copies on five nodes: the new ones have 38 or 39 each.
        let moved = settle(&mut now, &five, 3, 4);
        assert!((76..=78).contains(&moved), "{moved} copies moved");
        assert_eq!(counts(&now, &five, |own, id| own.contains(&id)), (38, 39));
        assert_eq!(counts(&now, &five, |own, id| own.first() == Some(&id)), (12, 13));
        let leaving = |five: &[Candidate; 5], gone: &[usize]| {
            let mut left = *five;
            for at in gone {
                (left[*at].keeps, left[*at].takes) = (false, false);
            }
            left
        };
        let moved = settle(&mut now, &leaving(&five, &[4]), 3, 4);
        assert!((38..=40).contains(&moved), "{moved} copies moved: those of the node that goes, and one to be even");
        settle(&mut now, &leaving(&five, &[3, 4]), 3, 4);
        assert!(now.values().all(|own| own.iter().all(|id| id.0 <= 3) && own.len() == 3));
        assert_eq!(settle(&mut now, &leaving(&five, &[2, 3, 4]), 2, 4), 0, "copies are only dropped");
        settle(&mut now, &leaving(&five, &[1, 2, 3, 4]), 1, 4);
        assert!(now.values().all(|own| *own == [NodeId(1)]));
    }

    #[test]
    fn the_only_copy_of_a_drained_node_moves_to_another_before_it_goes() {
        let mut now = table(&[1], 1, 8);
        let nodes = [Candidate { keeps: false, takes: false, ..node(1) }, node(2)];
        assert_eq!(settle(&mut now, &nodes, 1, 4), 8);
        assert!(now.values().all(|own| *own == [NodeId(2)]));
    }

    #[test]
    fn a_copy_that_was_never_finished_is_planned_anew_when_its_node_goes() {
        let now = Table::from([(GroupId(1), vec![NodeId(1), NodeId(2), NodeId(4)])]);
        let busy = Busy::from([(GroupId(1), [NodeId(1), NodeId(2), NodeId(3)].into())]);
        let gone = Candidate { keeps: false, takes: false, ..node(4) };
        let down = Candidate { keeps: true, takes: false, ..node(3) };
        let nodes = [node(1), node(2), down, gone, node(5)];
        let (_, own) = next_move(&now, &nodes, 3, &busy, false).expect("planned anew");
        assert_eq!(own, [NodeId(1), NodeId(2), NodeId(5)]);
        // But a voter waits until the change that is under way has ended.
        let busy = Busy::from([(GroupId(1), [NodeId(1), NodeId(4), NodeId(3)].into())]);
        assert_eq!(next_move(&now, &nodes, 3, &busy, true), None);
    }

    #[test]
    fn nothing_goes_to_a_node_that_is_down_and_nothing_leaves_it_by_itself() {
        let mut now = table(&[1, 2, 3], 3, 16);
        let down = Candidate { keeps: true, takes: false, ..node(4) };
        assert_eq!(settle(&mut now, &[node(1), node(2), node(3), down], 3, 4), 0);
        let mut with_four = table(&[1, 2, 3, 4], 3, 16);
        assert_eq!(settle(&mut with_four, &[node(1), node(2), node(3), down], 3, 4), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn whoever_comes_and_goes_the_plan_ends_even_and_moves_no_more_than_it_must(
            groups in 1..40_u32,
            start in 1..7_u64,
            in_flight in 1..6_usize,
            turns in proptest::collection::vec((0..8_u64, 0..3_u8), 1..6),
        ) {
            let first: Vec<u64> = (1..=start).collect();
            let mut replication = 3.min(start as u32);
            let mut now = table(&first, replication, groups);
            let mut nodes: Vec<Candidate> = first.iter().map(|id| node(*id)).collect();
            for (id, what) in turns {
                let before = nodes.clone();
                match nodes.iter_mut().find(|node| node.id == NodeId(id + 1)) {
                    None => nodes.push(node(id + 1)),
                    Some(own) => {
                        own.keeps = what == 0;
                        own.takes = what == 0;
                    }
                }
                let stay = nodes.iter().filter(|node| node.keeps).count();
                if stay < replication as usize {
                    nodes = before; // such a drain is refused
                    continue;
                }
                replication = target_replication(replication, stay);
                let old = now.clone();
                let moved = settle(&mut now, &nodes, replication, in_flight);
                prop_assert!(now.values().all(|own| own.len() == replication as usize));
                let keeps = |id: &NodeId| nodes.iter().any(|node| node.id == *id && node.keeps);
                prop_assert!(now.values().flatten().all(keeps));
                if replication > 1 {
                    let (least, most) = counts(&now, &nodes, |own, id| own.contains(&id));
                    prop_assert!(most - least <= 1, "{least} to {most}");
                }
                // What had to move: copies of nodes that go, copies that lacked, and what a newcomer is due.
                let leaving = old.values().flatten().filter(|id| !keeps(id)).count();
                let lacking = old.values().map(|own| (replication as usize).saturating_sub(own.len())).sum::<usize>();
                let share = (groups as usize * replication as usize).div_ceil(stay);
                prop_assert!(moved <= leaving + lacking + share + stay, "{moved} moved of {leaving} + {lacking} + {share}");
            }
        }
    }
}
