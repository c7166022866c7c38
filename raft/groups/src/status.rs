//! The cluster as this node sees it.

use crate::{keeper::lag_of, node::Node, types::position};
use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use raft_placement::MetaState;
use raft_types::{ClusterStatus, GroupId, GroupStatus, NodeHealth, NodeId, NodeState, NodeStatus, UpkeepStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A peer that was not heard from for so long is called down.
pub(crate) const DOWN_AFTER: Duration = Duration::from_secs(3);

impl Node {
    pub(crate) fn cluster_status(&self) -> ClusterStatus {
        let meta = self.meta.state();
        let now = self.clock.now();
        let seen = self.peers.lock().clone();
        let (mut groups, mut leads, mut lags) =
            (Vec::new(), BTreeMap::<String, u32>::new(), BTreeMap::<u64, u64>::new());
        let mut seats = Seats::default();
        for group in self.all_groups() {
            let role = group.role();
            let leader = role.leader.and_then(|leader| self.name_of(&role, leader));
            let wanted: BTreeSet<u64> = match group.id {
                GroupId::META => meta.meta_voters().iter().map(|id| id.0).collect(),
                id => meta.replicas(id).iter().map(|id| id.0).collect(),
            };
            seats.count(group.id, &role.configs, &wanted, &group.members());
            // The table is changed some groups at a time: what it does not say yet is to come.
            let is_short = group.id != GroupId::META && wanted.len() != meta.replication() as usize;
            seats.moving += u32::from(is_short && role.configs == [wanted]);
            if let Some(leader) = &leader {
                *leads.entry(leader.clone()).or_default() += 1;
            }
            let metrics = group.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state == ServerState::Leader {
                for voter in role.voters.keys().filter(|id| **id != metrics.id) {
                    let lag = lag_of(&metrics, *voter).unwrap_or_else(|| metrics.last_log_index.unwrap_or(0));
                    let worst = lags.entry(*voter).or_default();
                    *worst = lag.max(*worst);
                }
            }
            groups.push(GroupStatus {
                id: group.id,
                leader,
                term: role.term,
                voters: role.voters.values().cloned().collect(),
                voter_ids: role.voters.keys().map(|id| NodeId(*id)).collect(),
                learners: role.learners.clone(),
                last: self.lane.state(group.id).last,
                committed: metrics.local_committed.as_ref().map(position),
                applied: group.progress.applied(),
                purged: self.lane.state(group.id).purged,
            });
        }
        let mut names: BTreeMap<String, (Option<NodeId>, String)> =
            self.options.peers.iter().map(|(name, address)| (name.clone(), (None, address.clone()))).collect();
        for (_, gone) in meta.nodes().filter(|(_, node)| node.retired) {
            names.remove(&gone.registration.name); // but for a newer node of that name
        }
        names.entry(self.name().to_owned()).or_default().0 = self.raft_id();
        for (id, node) in meta.nodes().filter(|(_, node)| !node.retired) {
            let known = names.entry(node.registration.name.clone()).or_default();
            known.0 = Some(id);
            if known.1.is_empty() {
                known.1.clone_from(&node.registration.address);
            }
        }
        let nodes: Vec<NodeStatus> = names
            .into_iter()
            .map(|(name, (id, peer_address))| {
                let age = if name == self.name() {
                    Some(Duration::ZERO)
                } else {
                    seen.get(&name).map(|peer| now.saturating_sub(peer.at))
                };
                let missing_bytes = if name == self.name() {
                    *self.missing.lock()
                } else {
                    seen.get(&name).and_then(|peer| peer.missing)
                };
                let seat = id.map(|id| seats.of(id)).unwrap_or_default();
                NodeStatus {
                    missing_bytes,
                    state: state_of(&meta, id, seat, seats.groups),
                    copies: seat.copies,
                    copies_wanted: id.map_or(0, |id| meta.copies_of(id) as u32),
                    health: match age {
                        None => NodeHealth::Unknown,
                        Some(age) if age < DOWN_AFTER => NodeHealth::Up,
                        Some(_) => NodeHealth::Down,
                    },
                    leads: leads.get(&name).copied().unwrap_or(0),
                    lag_entries: id.and_then(|id| lags.get(&id.0)).copied().unwrap_or(0),
                    last_contact_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                    name,
                    id,
                    peer_address,
                }
            })
            .collect();
        let up: BTreeSet<u64> = nodes
            .iter()
            .filter(|node| node.health == NodeHealth::Up)
            .filter_map(|node| node.id.map(|id| id.0))
            .collect();
        let survives_failures = survives(&seats.configs, &up);
        ClusterStatus {
            cluster_id: self.identity.borrow().cluster_id.map(|id| id.to_string()),
            answered_by: self.name().to_owned(),
            phase: self.phase.lock().clone(),
            ready: *self.ready().borrow(),
            nodes,
            groups,
            survives_failures,
            replication_factor: meta.replication(),
            upkeep: UpkeepStatus { hole: self.lane.suspect(), ..self.care.status() },
            moving_groups: seats.moving,
        }
    }
}

/// Where a node sits, counted over all groups.
#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    copies: u32,
    votes: u32,
    member_of: u32,
}

/// Who sits where.
#[derive(Default)]
struct Seats {
    by_id: BTreeMap<u64, Seat>,
    configs: Vec<Vec<BTreeSet<u64>>>,
    groups: u32,
    moving: u32,
}

impl Seats {
    fn count(&mut self, group: GroupId, configs: &[BTreeSet<u64>], wanted: &BTreeSet<u64>, members: &BTreeSet<u64>) {
        let voters: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        for id in members.union(&voters) {
            let seat = self.by_id.entry(*id).or_default();
            seat.member_of += 1;
            seat.votes += u32::from(voters.contains(id));
            seat.copies += u32::from(voters.contains(id) && group != GroupId::META);
        }
        self.moving += u32::from(configs.len() != 1 || configs[0] != *wanted);
        self.groups += 1;
        self.configs.push(configs.to_vec());
    }

    fn of(&self, id: NodeId) -> Seat {
        self.by_id.get(&id.0).copied().unwrap_or_default()
    }
}

fn state_of(meta: &MetaState, id: Option<NodeId>, seat: Seat, groups: u32) -> NodeState {
    let Some((id, node)) = id.and_then(|id| Some((id, meta.node(id)?))) else { return NodeState::Joining };
    if node.condemned {
        NodeState::Condemned
    } else if node.draining && seat.votes == 0 && meta.copies_of(id) == 0 {
        NodeState::Drained
    } else if node.draining {
        NodeState::Draining
    } else if seat.member_of < groups {
        NodeState::Joining
    } else {
        NodeState::Member
    }
}

/// How many more nodes may fail, whichever they are, before some group, the meta group included, loses its majority. Voters
/// are the real ones; while they change there are two sets of them, and both must agree (Raft §6).
fn survives(groups: &[Vec<BTreeSet<u64>>], up: &BTreeSet<u64>) -> u32 {
    let spare = |voters: &BTreeSet<u64>| voters.intersection(up).count().saturating_sub(voters.len() / 2 + 1);
    let of_group = |configs: &Vec<BTreeSet<u64>>| configs.iter().map(spare).min().unwrap_or(0);
    u32::try_from(groups.iter().map(of_group).min().unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_survive_one_failure_and_two_of_three_survive_none() {
        let of = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let three = vec![of(&[1, 2, 3])];
        assert_eq!(survives(&[three.clone(), three.clone()], &of(&[1, 2, 3])), 1);
        assert_eq!(survives(&[three.clone(), three.clone()], &of(&[1, 2])), 0);
        assert_eq!(survives(&[vec![of(&[1])], three.clone()], &of(&[1, 2, 3])), 0, "the meta group is a group");
        let five = vec![of(&[1, 2, 3, 4, 5])];
        let elsewhere = vec![of(&[3, 4, 5])];
        assert_eq!(survives(&[five.clone(), three.clone(), elsewhere], &of(&[1, 2, 3, 4, 5])), 1, "copies decide");
        let changing = vec![of(&[1, 2, 3]), of(&[1, 2])];
        assert_eq!(survives(&[five, changing], &of(&[1, 2, 3, 4, 5])), 0, "both sets must agree");
        assert_eq!(survives(&[three, Vec::new()], &of(&[1, 2, 3])), 0, "a group of which nothing is known");
    }
}
