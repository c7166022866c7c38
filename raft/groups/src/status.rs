//! The cluster as this node sees it.

use crate::{keeper::lag_of, node::Node, types::position};
use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use raft_types::{ClusterStatus, GroupStatus, NodeHealth, NodeId, NodeStatus};
use std::{collections::BTreeMap, time::Duration};

/// A peer that was not heard from for so long is called down.
const DOWN_AFTER: Duration = Duration::from_secs(3);

impl Node {
    pub(crate) fn cluster_status(&self) -> ClusterStatus {
        let meta = self.meta.state();
        let now = self.clock.now();
        let seen = self.peers.lock().clone();
        let (mut groups, mut leads, mut lags) =
            (Vec::new(), BTreeMap::<String, u32>::new(), BTreeMap::<u64, u64>::new());
        for group in self.all_groups() {
            let role = group.role();
            let leader = role.leader.and_then(|leader| self.name_of(&role, leader));
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
                NodeStatus {
                    missing_bytes,
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
        let survives_failures = survives(&groups, &nodes);
        ClusterStatus {
            cluster_id: self.identity.borrow().cluster_id.map(|id| id.to_string()),
            answered_by: self.name().to_owned(),
            phase: self.phase.lock().clone(),
            ready: *self.ready().borrow(),
            nodes,
            groups,
            survives_failures,
            replication_factor: meta.replication(),
            upkeep: self.care.status(),
        }
    }
}

/// How many more nodes may fail, whichever they are, before some group, the meta group included, loses its majority.
fn survives(groups: &[GroupStatus], nodes: &[NodeStatus]) -> u32 {
    let up = |name: &String| nodes.iter().any(|node| node.name == *name && node.health == NodeHealth::Up);
    let spare = |group: &GroupStatus| {
        let alive = group.voters.iter().filter(|name| up(name)).count();
        alive.saturating_sub(group.voters.len() / 2 + 1)
    };
    u32::try_from(groups.iter().map(spare).min().unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_types::GroupId;

    fn node(name: &str, health: NodeHealth) -> NodeStatus {
        NodeStatus {
            name: name.into(),
            id: None,
            peer_address: String::new(),
            health,
            leads: 0,
            lag_entries: 0,
            last_contact_ms: None,
            missing_bytes: None,
        }
    }

    fn group(id: u32, voters: &[&str]) -> GroupStatus {
        GroupStatus {
            id: GroupId(id),
            leader: None,
            term: 0,
            voters: voters.iter().map(|name| (*name).to_owned()).collect(),
            voter_ids: Vec::new(),
            learners: Vec::new(),
            last: None,
            committed: None,
            applied: None,
            purged: None,
        }
    }

    #[test]
    fn three_nodes_survive_one_failure_and_two_of_three_survive_none() {
        let groups = [group(0, &["a", "b", "c"]), group(1, &["a", "b", "c"])];
        let all = ["a", "b", "c"].map(|name| node(name, NodeHealth::Up));
        assert_eq!(survives(&groups, &all), 1);
        let two = [node("a", NodeHealth::Up), node("b", NodeHealth::Up), node("c", NodeHealth::Down)];
        assert_eq!(survives(&groups, &two), 0);
        assert_eq!(survives(&[group(0, &["a"]), group(1, &["a"])], &all[..1]), 0);
        let meta_alone = [group(0, &["a"]), group(1, &["a", "b", "c"])];
        assert_eq!(survives(&meta_alone, &all), 0, "the meta group is a group");
    }
}
