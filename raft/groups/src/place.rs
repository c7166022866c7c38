//! Where copies should be: the meta leader keeps the table of groups, as nodes come, drain and go.
//!
//! ```text
//!   nodes of the meta group, who is up ─┐
//!   table of groups ────────────────────┼─► next_move, until enough are under way ─► DefineGroups ─► members.rs of each leader
//!   voters that each group really has ──┘                                                               │
//!        ▲───────────────────────────────────────── voters are as wanted ◄──────────────────────────────┘
//! ```
//!
//! Nothing is remembered between two looks: what is under way is what the voters of a group and the table disagree in. A new
//! meta leader therefore goes on where the one before stopped, and a plan that is lost is made again.

use crate::{
    node::{Group, Node},
    replace::ReplaceError,
    status::DOWN_AFTER,
};
use bytes::Bytes;
use raft_placement::{Busy, Candidate, MetaCommand, MetaState, even_leaders, next_move, spread, target_replication};
use raft_types::{Command, GroupId, NodeId, Propose, Versioned};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Between two looks of the meta leader.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Groups that change at the same time: each may bring rows and bodies to a node, and ingest goes on beside it.
const IN_FLIGHT: usize = 4;

impl Node {
    /// As meta leader: defines the groups once, and moves copies from then on.
    pub(crate) async fn place(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.group(GroupId::META).is_some_and(|meta| meta.leads()) || self.stopping() {
                continue;
            }
            let state = self.meta.state();
            let command = if state.group_count() == 0 { self.first_table(&state) } else { self.next_table(&state) };
            let Some(command) = command else { continue };
            let command = Command { head: command.encode(), body: Bytes::new() };
            match self.propose(GroupId::META, command, Duration::from_secs(5)).await {
                Ok(_) => tracing::info!(nodes = state.nodes().count(), "the table of groups has changed"),
                Err(error) => tracing::debug!(%error, "the table of groups has not changed yet"),
            }
        }
    }

    /// Once all expected nodes are there.
    fn first_table(&self, state: &MetaState) -> Option<MetaCommand> {
        state.cluster_id()?;
        let nodes: Vec<NodeId> = state.nodes().filter(|(_, node)| !node.retired).map(|(id, _)| id).collect();
        if nodes.len() < self.options.peers.len().max(1) {
            return None; // no write is acknowledged before all expected nodes were there once
        }
        let replication = self.options.replication.min(u32::try_from(nodes.len()).unwrap_or(u32::MAX));
        let replicas = spread(&nodes, replication, self.options.groups);
        Some(MetaCommand::DefineGroups { count: self.options.groups, replication, replicas })
    }

    /// The next moves, if any.
    fn next_table(&self, state: &MetaState) -> Option<MetaCommand> {
        let nodes = self.candidates(state);
        let stay = state.nodes().filter(|(_, node)| node.stays()).count();
        let replication = target_replication(state.replication(), stay);
        let data = state.groups().iter().filter(|(group, _)| **group != GroupId::META);
        let mut table: BTreeMap<GroupId, Vec<NodeId>> =
            data.map(|(group, placement)| (*group, placement.replicas.clone())).collect();
        let mut busy = self.busy(&table);
        let mut changed = BTreeMap::new();
        // Each turn makes one more group busy, or plans a busy one anew.
        for _ in 0..2 * table.len() {
            let may_start = busy.len() < IN_FLIGHT;
            let Some((group, replicas)) = next_move(&table, &nodes, replication, &busy, may_start) else { break };
            let before = table.insert(group, replicas.clone()).unwrap_or_default();
            busy.entry(group).or_insert_with(|| before.into_iter().collect());
            changed.insert(group, replicas);
        }
        // Who leads best is only a word: it needs no waiting, but it is said when the copies have come to rest, or when the
        // node that should lead has to go.
        let leaves = |replicas: &Vec<NodeId>| {
            replicas.first().is_some_and(|id| !nodes.iter().any(|node| node.id == *id && node.keeps))
        };
        if (busy.is_empty() && changed.is_empty()) || table.values().any(leaves) {
            changed.extend(even_leaders(&table, &nodes));
        }
        if changed.is_empty() && replication == state.replication() {
            return None;
        }
        let replicas = changed.into_iter().map(|(group, replicas)| (group.0, replicas)).collect();
        Some(MetaCommand::DefineGroups { count: state.group_count(), replication, replicas })
    }

    fn candidates(&self, state: &MetaState) -> Vec<Candidate> {
        let now = self.clock.now();
        let peers = self.peers.lock();
        let is_up = |name: &str| {
            name == self.name() || peers.get(name).is_some_and(|peer| now.saturating_sub(peer.at) < DOWN_AFTER)
        };
        state
            .nodes()
            .filter(|(_, node)| !node.retired)
            .map(|(id, node)| Candidate {
                id,
                keeps: !node.draining,
                takes: node.stays() && is_up(&node.registration.name),
            })
            .collect()
    }

    /// The groups whose voters are not those of the table, as far as this node sees.
    fn busy(&self, table: &BTreeMap<GroupId, Vec<NodeId>>) -> Busy {
        let mut busy = Busy::new();
        for (group, replicas) in table {
            let configs = self.group(*group).map(|group| group.role().configs).unwrap_or_default();
            let wanted: BTreeSet<u64> = replicas.iter().map(|id| id.0).collect();
            if configs.len() != 1 || configs[0] != wanted {
                let mut voters: BTreeSet<NodeId> = configs.iter().flatten().map(|id| NodeId(*id)).collect();
                if voters.is_empty() {
                    voters.extend(replicas); // nothing is known of it yet: let it be
                }
                busy.insert(*group, voters);
            }
        }
        busy
    }

    /// Moves the copies of the node of this name elsewhere, so that it may be removed. With too few others it is refused,
    /// unless `reduce` allows to keep fewer copies from now on.
    ///
    /// # Errors
    /// When there is no such node, too few others, or when the cluster cannot decide.
    pub async fn drain_node(&self, name: &str, reduce: bool) -> Result<(), ReplaceError> {
        let id = self.propose_to_meta(MetaCommand::Drain { name: name.to_owned(), reduce }).await?;
        tracing::info!(node = name, raft_id = %id, reduce, "draining: its copies move to the others");
        Ok(())
    }

    /// Takes [`Node::drain_node`] back: the node is given its share of the copies again.
    ///
    /// # Errors
    /// When there is no such node, or when the cluster cannot decide.
    pub async fn undrain_node(&self, name: &str) -> Result<(), ReplaceError> {
        let id = self.propose_to_meta(MetaCommand::Undrain { name: name.to_owned() }).await?;
        tracing::info!(node = name, raft_id = %id, "not draining any more");
        Ok(())
    }

    /// Removes a node that keeps no copy any more. Its raft id is never used again, and its process ends.
    ///
    /// # Errors
    /// When it still keeps copies or votes, when it was neither drained nor given up, or when the cluster cannot decide.
    pub async fn remove_node(&self, name: &str) -> Result<(), ReplaceError> {
        let groups: Vec<GroupId> = self.all_groups().iter().map(|group| group.id).collect();
        // What the voters are is known here once everything is applied that was committed before.
        self.read_index(groups).await.map_err(|error| ReplaceError::Undecided(error.to_string()))?;
        let meta = self.meta.state();
        if let Some((id, _)) = meta.node_named(name) {
            let votes = |group: &&Arc<Group>| group.role().voters.contains_key(&id.0);
            let voting = self.all_groups().iter().filter(votes).count();
            if voting > 0 && meta.copies_of(id) == 0 {
                return Err(ReplaceError::Refused(format!(
                    "{name} is still a voter of {voting} groups that are being handed over: wait until it is drained \
                     (`triptych node drain {name} --wait`)"
                )));
            }
        }
        let id = self.propose_to_meta(MetaCommand::Remove { name: name.to_owned() }).await?;
        tracing::warn!(node = name, raft_id = %id, "removed from the cluster");
        Ok(())
    }
}
