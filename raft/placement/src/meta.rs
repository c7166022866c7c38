//! The meta group's state machine: which nodes there are and which of them keep which group.
//!
//! ```text
//!   command  = version 1 | postcard(MetaCommand)      Bootstrap, Register, DefineGroups, Replace, Condemn, Drain, Undrain, Remove
//!   outcome  = version 1 | postcard(MetaOutcome)
//!   state    = version 1 | postcard(MetaState)
//! ```
//!
//! Invariants
//! - A raft id is the log index of the entry that registered the node, the founder's is 1; no id is ever used twice.
//! - One disk (`node_uuid`) has one id; a node that lost its disk is another node under the same name and comes in
//!   only when the lost one keeps nothing any more, or by `Replace`.
//! - The number of data groups never changes: a study's group is a function of it.
//! - A node that drains is offered no copy; it is removed only when it keeps none, and then it is retired for ever.
//! - The number of copies falls only by a `Drain` that says so; there is always one node that neither drains nor is given up.
//! - `apply` is a function of state, index and command. Whatever it does not like is `Refused`, and changes nothing.

use raft_types::{DecodeError, GroupId, NodeId, Versioned};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};

/// At most so many voters in the meta group: more would only make each decision slower.
const META_VOTERS_MAX: usize = 5;

/// A node as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Name from `--name`: a label that a replaced disk may take over.
    pub name: String,
    /// Made with the data folder, lost with it.
    pub node_uuid: [u8; 16],
    /// Starts of this data folder, counted.
    pub incarnation: u64,
    /// Address of the peer port, `host:port`; a stable name, never looked up here.
    pub address: String,
}

/// What the meta group agrees on. When adding a variant: 1. at the end, 2. golden bytes below, 3. feature level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// The first command of a cluster.
    Bootstrap {
        /// The new cluster's id.
        cluster_id: [u8; 16],
        /// The node that initialised; it gets raft id 1.
        founder: Registration,
    },
    /// A node asks for its raft id. Repeating it is harmless and refreshes address and incarnation.
    Register(Registration),
    /// Which nodes keep which group. The first names every data group, later ones may name only some.
    DefineGroups {
        /// Number of data groups; fixed by the first such command.
        count: u32,
        /// Copies of each group that the cluster aims at.
        replication: u32,
        /// Group number (0 is the meta group) and its replicas, the preferred leader first.
        replicas: Vec<(u32, Vec<NodeId>)>,
    },
    /// A lost disk is replaced: the new node gets an id of its own and the places of the old one.
    Replace {
        /// The node that is gone for good.
        old: NodeId,
        /// The node that takes its places.
        new: Registration,
    },
    /// A node is given up: the next empty disk under its name takes its places, as by `Replace`.
    Condemn {
        /// Its name.
        name: String,
    },
    /// A node gives its copies to the others, so that it may go.
    Drain {
        /// Its name.
        name: String,
        /// Whether fewer copies may be kept when there are too few other nodes.
        reduce: bool,
    },
    /// A node that drains, or has drained, stays after all.
    Undrain {
        /// Its name.
        name: String,
    },
    /// A node that keeps nothing any more leaves for good: its raft id is never used again.
    Remove {
        /// Its name.
        name: String,
    },
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaOutcome {
    /// The cluster exists; its founder has raft id 1.
    Bootstrapped {
        /// The cluster's id.
        cluster_id: [u8; 16],
    },
    /// The node has this raft id.
    Registered {
        /// The raft id.
        id: NodeId,
    },
    /// The groups are as defined.
    Defined,
    /// Nothing changed; the sentence says why and what to do.
    Refused {
        /// For people.
        why: String,
    },
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaNode {
    /// Name, disk, incarnation and address, as last registered.
    pub registration: Registration,
    /// Replaced by a newer node: keeps nothing, comes back never.
    pub retired: bool,
    /// Given up: the next empty disk under its name replaces it.
    pub condemned: bool,
    /// It gives its copies away, or has done so: it gets no new ones.
    pub draining: bool,
}

impl MetaNode {
    fn new(registration: Registration) -> Self {
        Self { registration, retired: false, condemned: false, draining: false }
    }

    /// Whether it may keep copies for long: it is neither retired, nor given up, nor does it drain.
    #[must_use]
    pub fn stays(&self) -> bool {
        !self.retired && !self.condemned && !self.draining
    }
}

/// Where a group lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlacement {
    /// The nodes that keep a copy, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Whether these are not the nodes any more with which the group began: then nobody may initialise it.
    pub moved: bool,
}

impl GroupPlacement {
    /// The node that should lead when it can.
    #[must_use]
    pub fn preferred(&self) -> Option<NodeId> {
        self.replicas.first().copied()
    }
}

/// The state that the meta group replicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaState {
    cluster_id: Option<[u8; 16]>,
    nodes: BTreeMap<NodeId, MetaNode>,
    group_count: u32,
    replication: u32,
    groups: BTreeMap<GroupId, GroupPlacement>,
}

impl MetaState {
    /// The founder's raft id; log index 1 is never the index of a `Register`.
    pub const FOUNDER: NodeId = NodeId(1);

    /// Applies the command of the committed entry at `index`.
    pub fn apply(&mut self, index: u64, command: MetaCommand) -> MetaOutcome {
        let outcome = match command {
            MetaCommand::Bootstrap { cluster_id, founder } => self.bootstrap(cluster_id, founder),
            MetaCommand::Register(registration) => self.register(index, registration),
            MetaCommand::DefineGroups { count, replication, replicas } => self.define(count, replication, replicas),
            MetaCommand::Replace { old, new } => self.replace(index, old, new),
            MetaCommand::Condemn { name } => self.condemn(&name),
            MetaCommand::Drain { name, reduce } => self.drain(&name, reduce),
            MetaCommand::Undrain { name } => self.undrain(&name),
            MetaCommand::Remove { name } => self.remove(&name),
        };
        outcome.unwrap_or_else(|why| MetaOutcome::Refused { why })
    }

    fn bootstrap(&mut self, cluster_id: [u8; 16], founder: Registration) -> Result<MetaOutcome, String> {
        match self.cluster_id {
            None => {
                self.nodes.insert(Self::FOUNDER, MetaNode::new(founder));
                self.groups.insert(GroupId::META, GroupPlacement { replicas: vec![Self::FOUNDER], moved: false });
                self.cluster_id = Some(cluster_id);
            }
            Some(ours) if ours == cluster_id => {}
            Some(_) => return Err("this cluster has an id already: it is given once".to_owned()),
        }
        Ok(MetaOutcome::Bootstrapped { cluster_id })
    }

    fn register(&mut self, index: u64, registration: Registration) -> Result<MetaOutcome, String> {
        if let Some(id) = self.known_disk(&registration)? {
            // Its disk is there after all.
            if let Some(node) = self.nodes.get_mut(&id) {
                node.condemned = false;
            }
            return Ok(MetaOutcome::Registered { id });
        }
        let namesake = self.node_named(&registration.name).map(|(id, _)| id);
        if let Some(old) = namesake.filter(|old| self.nodes.get(old).is_some_and(|node| node.condemned)) {
            return self.replace(index, old, registration);
        }
        if let Some(old) = namesake.filter(|old| self.is_replica(*old)) {
            return Err(format!(
                "node {} is known with another disk (raft id {old}) that still keeps copies: \
                 if that disk is lost, replace the node; if not, start it with its own data folder",
                registration.name
            ));
        }
        let id = self.admit(index, registration)?;
        if let Some(old) = namesake {
            self.retire(old);
        }
        Ok(MetaOutcome::Registered { id })
    }

    fn replace(&mut self, index: u64, old: NodeId, new: Registration) -> Result<MetaOutcome, String> {
        if let Some(id) = self.known_disk(&new)? {
            let done = id != old && self.nodes.get(&old).is_some_and(|node| node.retired);
            return if done {
                Ok(MetaOutcome::Registered { id }) // repeated
            } else {
                Err(format!(
                    "node {} (raft id {id}) is a member already: only a new node can replace another",
                    new.name
                ))
            };
        }
        match self.nodes.get(&old) {
            None => return Err(format!("there is no node with raft id {old}")),
            Some(node) if node.retired => return Err(format!("raft id {old} was replaced before")),
            Some(_) => {}
        }
        if let Some((id, _)) = self.node_named(&new.name).filter(|(id, _)| *id != old) {
            return Err(format!("the name {} belongs to raft id {id}, which is not the node to be replaced", new.name));
        }
        let id = self.admit(index, new)?;
        for placement in self.groups.values_mut() {
            for replica in placement.replicas.iter_mut().filter(|replica| **replica == old) {
                *replica = id;
                placement.moved = true;
            }
        }
        self.retire(old);
        Ok(MetaOutcome::Registered { id })
    }

    fn condemn(&mut self, name: &str) -> Result<MetaOutcome, String> {
        let id = self.node_named(name).map(|(id, _)| id).ok_or_else(|| format!("there is no node called {name}"))?;
        let alive = self.nodes.iter().filter(|(other, node)| **other != id && !node.retired && !node.condemned).count();
        if alive == 0 {
            return Err(format!("{name} is the last node that is not given up: its data would be lost"));
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.condemned = true;
        }
        Ok(MetaOutcome::Registered { id })
    }

    fn drain(&mut self, name: &str, reduce: bool) -> Result<MetaOutcome, String> {
        let id = self.id_named(name)?;
        if self.group_count == 0 {
            return Err("the cluster is not formed yet: there is nothing to move".to_owned());
        }
        let left = self.nodes.iter().filter(|(other, node)| **other != id && node.stays()).count();
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        if left == 0 {
            return Err(format!(
                "{name} is the last node that stays: its data would have no place; start another node first"
            ));
        }
        if left < self.replication && !reduce {
            return Err(format!(
                "{} copies of every image are kept, and without {name} only {left} nodes would stay: start another node \
                 first, or drain with --reduce to keep {left} from now on",
                self.replication
            ));
        }
        self.replication = self.replication.min(left);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.draining = true;
        }
        self.lead_meta_elsewhere(id);
        Ok(MetaOutcome::Registered { id })
    }

    fn undrain(&mut self, name: &str) -> Result<MetaOutcome, String> {
        let id = self.id_named(name)?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.draining = false;
        }
        Ok(MetaOutcome::Registered { id })
    }

    fn remove(&mut self, name: &str) -> Result<MetaOutcome, String> {
        let Ok(id) = self.id_named(name) else {
            // Repeated: whoever had the name last is gone already.
            let gone = self.nodes.iter().rev().find(|(_, node)| node.registration.name == name);
            return match gone {
                Some((id, _)) => Ok(MetaOutcome::Registered { id: *id }),
                None => Err(format!("there is no node called {name}")),
            };
        };
        let Some(node) = self.nodes.get(&id) else { return Err(format!("there is no node called {name}")) };
        if !node.draining && !node.condemned {
            return Err(format!("{name} is in use: drain it first with `triptych node drain {name} --wait`"));
        }
        let copies = self.copies_of(id);
        if copies > 0 {
            return Err(format!(
                "{name} still keeps copies of {copies} groups: wait until it is drained (`triptych node drain {name} --wait`)"
            ));
        }
        if !self.nodes.iter().any(|(other, node)| *other != id && node.stays()) {
            return Err(format!("{name} is the last node: there is no cluster without it"));
        }
        self.retire(id);
        self.lead_meta_elsewhere(id);
        Ok(MetaOutcome::Registered { id })
    }

    fn id_named(&self, name: &str) -> Result<NodeId, String> {
        self.node_named(name).map(|(id, _)| id).ok_or_else(|| format!("there is no node called {name}"))
    }

    /// The meta group is no group whose copies are moved: all nodes have it. Only who leads it best is said here.
    fn lead_meta_elsewhere(&mut self, gone: NodeId) {
        let heir = self.nodes.iter().find(|(id, node)| **id != gone && node.stays()).map(|(id, _)| *id);
        if let (Some(meta), Some(heir)) = (self.groups.get_mut(&GroupId::META), heir)
            && meta.replicas.contains(&gone)
        {
            *meta = GroupPlacement { replicas: vec![heir], moved: true };
        }
    }

    /// The id of a disk that was registered before, its address and incarnation refreshed.
    fn known_disk(&mut self, registration: &Registration) -> Result<Option<NodeId>, String> {
        let known = self.nodes.iter_mut().find(|(_, node)| node.registration.node_uuid == registration.node_uuid);
        let Some((id, node)) = known else { return Ok(None) };
        if node.retired {
            return Err(format!(
                "this disk was node {id}, which has been replaced or removed: start with an empty data folder"
            ));
        }
        if node.registration.name != registration.name {
            return Err(format!(
                "this disk belongs to node {}, not to {}: one disk has one name, and a copied disk is no node",
                node.registration.name, registration.name
            ));
        }
        if registration.incarnation >= node.registration.incarnation {
            node.registration = registration.clone();
        }

        Ok(Some(*id))
    }

    fn admit(&mut self, index: u64, registration: Registration) -> Result<NodeId, String> {
        if self.cluster_id.is_none() {
            return Err("the cluster has no id yet: the founder comes first".to_owned());
        }
        if registration.name.is_empty() {
            return Err("a node needs a name".to_owned());
        }
        let id = NodeId(index);
        if index <= Self::FOUNDER.0 || self.nodes.contains_key(&id) {
            return Err(format!("raft id {id} is taken: ask again"));
        }
        self.nodes.insert(id, MetaNode::new(registration));
        Ok(id)
    }

    fn retire(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.retired = true;
        }
    }

    fn define(
        &mut self,
        count: u32,
        replication: u32,
        replicas: Vec<(u32, Vec<NodeId>)>,
    ) -> Result<MetaOutcome, String> {
        if count == 0 || count > u32::from(crate::SLOTS) {
            return Err(format!("{count} groups: there are 1 to {}", crate::SLOTS));
        }
        if self.group_count != 0 && self.group_count != count {
            let held = self.group_count;
            return Err(format!("the cluster has {held} groups: the number is fixed when the cluster is formed"));
        }
        if replication == 0 {
            return Err("a group needs at least one copy".to_owned());
        }
        let mut placed = BTreeMap::new();
        for (group, replicas) in replicas {
            let distinct: BTreeSet<NodeId> = replicas.iter().copied().collect();
            if group > count {
                return Err(format!("there is no group {group}"));
            }
            if replicas.is_empty() || distinct.len() != replicas.len() {
                return Err(format!("group {group} needs at least one replica, and each only once"));
            }
            if let Some(stranger) = distinct.iter().find(|id| self.node(**id).is_none()) {
                return Err(format!("group {group}: there is no node with raft id {stranger}"));
            }
            let moved = self.group_count > 0;
            if placed.insert(GroupId(group), GroupPlacement { replicas, moved }).is_some() {
                return Err(format!("group {group} is named twice"));
            }
        }
        let missing = (1..=count).find(|group| !placed.contains_key(&GroupId(*group)));
        if let Some(missing) = missing.filter(|_| self.group_count == 0) {
            return Err(format!("group {missing} has no replicas"));
        }
        self.groups.extend(placed);
        self.group_count = count;
        self.replication = replication;
        Ok(MetaOutcome::Defined)
    }

    /// The cluster's id, once it was bootstrapped.
    #[must_use]
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.cluster_id
    }

    /// All nodes ever, by raft id, retired ones included.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &MetaNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// The disks that were replaced: they must not come back.
    #[must_use]
    pub fn retired_disks(&self) -> Vec<[u8; 16]> {
        self.nodes.values().filter(|node| node.retired).map(|node| node.registration.node_uuid).collect()
    }

    /// The node with this raft id, unless it was retired.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&MetaNode> {
        self.nodes.get(&id).filter(|node| !node.retired)
    }

    /// The node of this name that is not retired.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<(NodeId, &MetaNode)> {
        self.nodes().find(|(_, node)| !node.retired && node.registration.name == name)
    }

    /// The name of a raft id, retired or not.
    #[must_use]
    pub fn name_of(&self, id: NodeId) -> Option<&str> {
        self.nodes.get(&id).map(|node| node.registration.name.as_str())
    }

    /// Number of data groups; 0 before they are defined.
    #[must_use]
    pub fn group_count(&self) -> u32 {
        self.group_count
    }

    /// Copies of each group that the cluster aims at; 0 before groups are defined.
    #[must_use]
    pub fn replication(&self) -> u32 {
        self.replication
    }

    /// All groups with their replicas, the meta group first.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<GroupId, GroupPlacement> {
        &self.groups
    }

    /// The nodes that keep `group`, the preferred leader first.
    #[must_use]
    pub fn replicas(&self, group: GroupId) -> &[NodeId] {
        self.groups.get(&group).map_or(&[], |placement| placement.replicas.as_slice())
    }

    /// The preferred leader of each group.
    #[must_use]
    pub fn preferred(&self) -> BTreeMap<GroupId, NodeId> {
        self.groups.iter().filter_map(|(group, placement)| Some((*group, placement.preferred()?))).collect()
    }

    /// Whether the node keeps any group.
    #[must_use]
    pub fn is_replica(&self, id: NodeId) -> bool {
        self.groups.values().any(|placement| placement.replicas.contains(&id))
    }

    /// Of how many data groups the node should keep a copy.
    #[must_use]
    pub fn copies_of(&self, id: NodeId) -> usize {
        let data = self.groups.iter().filter(|(group, _)| **group != GroupId::META);
        data.filter(|(_, placement)| placement.replicas.contains(&id)).count()
    }

    /// The nodes that should vote in the meta group: of those that do not drain the first, at most five and an odd number, so
    /// that each of them is worth a failure. The others learn.
    #[must_use]
    pub fn meta_voters(&self) -> BTreeSet<NodeId> {
        let alive = |draining: bool| {
            let nodes = self.nodes.iter().filter(move |(_, node)| !node.retired && (draining || !node.draining));
            nodes.map(|(id, _)| *id)
        };
        let mut ids: Vec<NodeId> = alive(false).collect();
        if ids.is_empty() {
            ids = alive(true).collect();
        }
        ids.truncate(META_VOTERS_MAX);
        if ids.len().is_multiple_of(2) {
            ids.pop();
        }
        ids.into_iter().collect()
    }

    /// Names and addresses of the nodes that are not retired, as they registered last.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, String> {
        let known = self.nodes.values().filter(|node| !node.retired && !node.registration.address.is_empty());
        known.map(|node| (node.registration.name.clone(), node.registration.address.clone())).collect()
    }

    /// The group that owns `key`; none before groups are defined.
    #[must_use]
    pub fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        (self.group_count > 0).then(|| crate::group_of(crate::slot(key), self.group_count))
    }
}

fn encode<T: Versioned + Serialize>(value: &T) -> bytes::Bytes {
    // Writing to a growing vector cannot fail; were it to, the empty answer does not decode.
    postcard::to_extend(value, vec![T::VERSION]).unwrap_or_default().into()
}

fn decode<T: Versioned + DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let malformed = |why: &str| DecodeError::Malformed { what, why: why.to_owned() };
    match bytes.split_first() {
        None => Err(malformed("no bytes")),
        Some((&found, _)) if found > T::VERSION => Err(DecodeError::Newer { what, found, newest: T::VERSION }),
        Some((0, _)) => Err(malformed("there is no version 0")),
        Some((_, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(malformed("bytes are left over")),
            Err(error) => Err(malformed(&error.to_string())),
        },
    }
}

macro_rules! versioned {
    ($($kind:ty => $what:literal),*) => {$(
        impl Versioned for $kind {
            const VERSION: u8 = 1;
            fn encode(&self) -> bytes::Bytes {
                encode(self)
            }
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode($what, bytes)
            }
        }
    )*};
}

versioned!(MetaCommand => "meta command", MetaOutcome => "meta outcome", MetaState => "meta state");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, disk: u8, incarnation: u64) -> Registration {
        Registration { name: name.into(), node_uuid: [disk; 16], incarnation, address: format!("{name}:7100") }
    }

    fn formed() -> MetaState {
        let mut state = MetaState::default();
        state.apply(2, MetaCommand::Bootstrap { cluster_id: [9; 16], founder: node("a", 1, 1) });
        state.apply(5, MetaCommand::Register(node("b", 2, 1)));
        state.apply(7, MetaCommand::Register(node("c", 3, 1)));
        let replicas = crate::spread(&[NodeId(1), NodeId(5), NodeId(7)], 3, 8);
        assert_eq!(
            state.apply(8, MetaCommand::DefineGroups { count: 8, replication: 3, replicas }),
            MetaOutcome::Defined
        );
        state
    }

    fn refused(outcome: &MetaOutcome) -> bool {
        matches!(outcome, MetaOutcome::Refused { .. })
    }

    #[test]
    fn the_founder_has_id_1_and_others_the_index_of_their_entry() {
        let state = formed();
        let ids: Vec<_> = state.nodes().map(|(id, node)| (id.0, node.registration.name.clone())).collect();
        assert_eq!(ids, [(1, "a".to_owned()), (5, "b".to_owned()), (7, "c".to_owned())]);
        assert_eq!(state.replicas(GroupId(8)).len(), 3);
        assert_eq!(state.group_of(b"1.2.3"), Some(crate::group_of(crate::slot(b"1.2.3"), 8)));
    }

    #[test]
    fn registering_the_same_disk_again_answers_the_same_id_and_refreshes_the_address() {
        let mut state = formed();
        let moved = Registration { address: "elsewhere:1".into(), ..node("b", 2, 4) };
        assert_eq!(state.apply(20, MetaCommand::Register(moved)), MetaOutcome::Registered { id: NodeId(5) });
        assert_eq!(state.node(NodeId(5)).unwrap().registration.address, "elsewhere:1");
        state.apply(21, MetaCommand::Register(node("b", 2, 3)));
        assert_eq!(state.node(NodeId(5)).unwrap().registration.incarnation, 4, "an older start does not overwrite");
    }

    #[test]
    fn a_lost_disk_does_not_come_back_under_its_name_while_the_old_one_counts_as_a_copy() {
        let mut state = formed();
        let before = state.clone();
        let outcome = state.apply(20, MetaCommand::Register(node("b", 22, 1)));
        assert!(matches!(&outcome, MetaOutcome::Refused { why } if why.contains("replace the node")), "{outcome:?}");
        assert_eq!(state, before);
    }

    #[test]
    fn a_replacement_takes_all_places_under_a_new_id_and_the_old_disk_stays_out() {
        let mut state = formed();
        let replace = MetaCommand::Replace { old: NodeId(5), new: node("b", 22, 1) };
        assert_eq!(state.apply(30, replace.clone()), MetaOutcome::Registered { id: NodeId(30) });
        assert_eq!(state.apply(31, replace), MetaOutcome::Registered { id: NodeId(30) }, "repeated");
        assert!(!state.is_replica(NodeId(5)) && state.replicas(GroupId(1)).contains(&NodeId(30)));
        assert!(refused(&state.apply(32, MetaCommand::Register(node("b", 2, 9)))));
        assert_eq!(state.node_named("b").unwrap().0, NodeId(30));
    }

    #[test]
    fn a_node_that_is_given_up_is_replaced_by_the_next_empty_disk_of_its_name() {
        let mut state = formed();
        assert!(refused(&state.apply(19, MetaCommand::Condemn { name: "nobody".into() })));
        let given_up = MetaCommand::Condemn { name: "b".into() };
        assert_eq!(state.apply(20, given_up.clone()), MetaOutcome::Registered { id: NodeId(5) });
        // The old disk comes back in time: nothing is given up any more.
        state.apply(21, MetaCommand::Register(node("b", 2, 9)));
        assert!(refused(&state.apply(22, MetaCommand::Register(node("b", 22, 1)))));
        state.apply(23, given_up);
        assert_eq!(
            state.apply(24, MetaCommand::Register(node("b", 22, 1))),
            MetaOutcome::Registered { id: NodeId(24) }
        );
        assert!(!state.is_replica(NodeId(5)) && state.groups()[&GroupId(3)].moved);
        // Never the last one.
        state.apply(25, MetaCommand::Condemn { name: "a".into() });
        state.apply(26, MetaCommand::Condemn { name: "b".into() });
        assert!(refused(&state.apply(27, MetaCommand::Condemn { name: "c".into() })));
    }

    #[test]
    fn a_node_that_keeps_nothing_may_come_back_with_an_empty_disk() {
        let mut state = formed();
        state.apply(10, MetaCommand::Register(node("d", 4, 1)));
        assert_eq!(
            state.apply(11, MetaCommand::Register(node("d", 44, 1))),
            MetaOutcome::Registered { id: NodeId(11) }
        );
        assert!(state.node(NodeId(10)).is_none());
    }

    #[test]
    fn a_node_that_drains_leaves_only_when_it_keeps_nothing_and_never_comes_back() {
        let mut state = formed();
        let drain = |name: &str, reduce| MetaCommand::Drain { name: name.into(), reduce };
        let remove = |name: &str| MetaCommand::Remove { name: name.into() };
        let before = state.clone();
        let outcome = state.apply(20, drain("c", false));
        assert!(matches!(&outcome, MetaOutcome::Refused { why } if why.contains("--reduce")), "{outcome:?}");
        assert!(refused(&state.apply(21, remove("c"))), "it is in use");
        assert_eq!(state, before);
        state.apply(22, MetaCommand::Register(node("d", 4, 1)));
        assert_eq!(state.apply(23, drain("c", false)), MetaOutcome::Registered { id: NodeId(7) });
        assert!(refused(&state.apply(24, remove("c"))), "its copies have not moved yet");
        let replicas = (1..=8).map(|group| (group, vec![NodeId(1), NodeId(5), NodeId(22)])).collect();
        state.apply(25, MetaCommand::DefineGroups { count: 8, replication: 3, replicas });
        assert_eq!(state.apply(26, remove("c")), MetaOutcome::Registered { id: NodeId(7) });
        assert_eq!(state.apply(27, remove("c")), MetaOutcome::Registered { id: NodeId(7) }, "repeated");
        assert!(refused(&state.apply(28, MetaCommand::Register(node("c", 3, 9)))), "its disk stays out");
        assert_eq!(
            state.apply(29, MetaCommand::Register(node("c", 33, 1))),
            MetaOutcome::Registered { id: NodeId(29) }
        );
        assert!(state.retired_disks().contains(&[3; 16]));
    }

    #[test]
    fn copies_are_reduced_only_when_that_is_said_and_the_last_node_never_drains() {
        let mut state = formed();
        let mut drain = |name: &str, reduce| state.apply(20, MetaCommand::Drain { name: name.into(), reduce });
        assert!(!refused(&drain("a", true)));
        assert!(refused(&drain("b", false)));
        assert!(!refused(&drain("b", true)));
        assert!(refused(&drain("c", true)));
        assert_eq!((state.replication(), state.meta_voters()), (1, [NodeId(7)].into()));
        assert_eq!(state.replicas(GroupId::META), [NodeId(7)], "the founder gives the meta group away, too");
        state.apply(21, MetaCommand::Undrain { name: "b".into() });
        assert!(!refused(&state.apply(22, MetaCommand::Drain { name: "c".into(), reduce: false })));
    }

    #[test]
    fn the_meta_group_has_an_odd_number_of_voters_and_at_most_five() {
        let mut state = MetaState::default();
        state.apply(2, MetaCommand::Bootstrap { cluster_id: [9; 16], founder: node("n0", 1, 1) });
        let voters: Vec<usize> = (1..8)
            .map(|number| {
                let count = state.meta_voters().len();
                let next = number as u8;
                state.apply(number + 2, MetaCommand::Register(node(&format!("n{next}"), next + 1, 1)));
                count
            })
            .collect();
        assert_eq!(voters, [1, 1, 3, 3, 5, 5, 5]);
    }

    #[test]
    fn one_disk_under_two_names_is_refused() {
        let mut state = formed();
        assert!(refused(&state.apply(10, MetaCommand::Register(node("copy", 2, 1)))));
    }

    #[test]
    fn a_cluster_is_bootstrapped_once() {
        let mut state = formed();
        let again = |id: u8| MetaCommand::Bootstrap { cluster_id: [id; 16], founder: node("a", 1, 1) };
        assert_eq!(state.apply(10, again(9)), MetaOutcome::Bootstrapped { cluster_id: [9; 16] });
        assert!(refused(&state.apply(11, again(8))));
        assert!(refused(&MetaState::default().apply(3, MetaCommand::Register(node("b", 2, 1)))));
    }

    #[test]
    fn the_number_of_groups_never_changes_and_replicas_must_be_known() {
        let mut state = formed();
        let mut define =
            |count, replicas| refused(&state.apply(40, MetaCommand::DefineGroups { count, replication: 3, replicas }));
        assert!(define(9, vec![]));
        assert!(define(8, vec![(1, vec![NodeId(99)])]));
        assert!(define(8, vec![(1, vec![NodeId(1), NodeId(1)])]));
        assert!(define(8, vec![(1, vec![])]));
        assert!(define(8, vec![(9, vec![NodeId(1)])]));
        assert!(!define(8, vec![(1, vec![NodeId(5), NodeId(1)])]), "some groups may move later");
        assert_eq!(state.groups()[&GroupId(1)].preferred(), Some(NodeId(5)));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let founder =
            Registration { name: "a-0".into(), node_uuid: [0x11; 16], incarnation: 300, address: "a-0:7100".into() };
        let register = MetaCommand::Register(founder.clone());
        let uuid = "11".repeat(16);
        let (cluster, node) = ("22".repeat(16), format!("03612d30{uuid}ac0208612d303a37313030"));
        let golden = [
            (
                MetaCommand::Bootstrap { cluster_id: [0x22; 16], founder: founder.clone() },
                format!("0100{cluster}{node}"),
            ),
            (register, format!("0101{node}")),
            (
                MetaCommand::DefineGroups {
                    count: 64,
                    replication: 3,
                    replicas: vec![(1, vec![NodeId(1), NodeId(200)])],
                },
                "0102400301010201c801".to_owned(),
            ),
            (MetaCommand::Replace { old: NodeId(7), new: founder }, format!("010307{node}")),
            (MetaCommand::Condemn { name: "a-0".into() }, "010403612d30".into()),
            (MetaCommand::Drain { name: "a-0".into(), reduce: true }, "010503612d3001".into()),
            (MetaCommand::Undrain { name: "a-0".into() }, "010603612d30".into()),
            (MetaCommand::Remove { name: "a-0".into() }, "010703612d30".into()),
        ];
        for (command, bytes) in golden {
            assert_eq!(hex(&command.encode()), bytes);
            assert_eq!(MetaCommand::decode(&command.encode()).unwrap(), command);
        }
        let outcomes = [
            (MetaOutcome::Bootstrapped { cluster_id: [0x22; 16] }, format!("0100{cluster}")),
            (MetaOutcome::Registered { id: NodeId(200) }, "0101c801".into()),
            (MetaOutcome::Defined, "0102".into()),
            (MetaOutcome::Refused { why: "no".into() }, "0103026e6f".into()),
        ];
        for (outcome, bytes) in outcomes {
            assert_eq!(hex(&outcome.encode()), bytes);
        }
        let state = formed();
        assert_eq!(MetaState::decode(&state.encode()).unwrap(), state);
    }

    #[test]
    fn bytes_of_a_newer_release_ask_for_an_upgrade() {
        assert!(matches!(MetaCommand::decode(&[2, 0]), Err(DecodeError::Newer { found: 2, newest: 1, .. })));
        assert!(matches!(MetaCommand::decode(&[]), Err(DecodeError::Malformed { .. })));
        assert!(matches!(MetaCommand::decode(&[0, 1]), Err(DecodeError::Malformed { .. })));
        assert!(matches!(MetaOutcome::decode(&[1, 2, 0]), Err(DecodeError::Malformed { .. })));
    }

    fn any_command() -> impl Strategy<Value = MetaCommand> {
        let node = || (0..5_u8, 0..8_u8).prop_map(|(name, disk)| node(&format!("n{name}"), disk, 1));
        let replicas =
            proptest::collection::vec((0..4_u32, proptest::collection::vec((0..40_u64).prop_map(NodeId), 0..4)), 0..4);
        prop_oneof![
            1 => (0..2_u8, node()).prop_map(|(id, founder)| MetaCommand::Bootstrap { cluster_id: [id; 16], founder }),
            4 => node().prop_map(MetaCommand::Register),
            1 => (2..4_u32, replicas)
                .prop_map(|(count, replicas)| MetaCommand::DefineGroups { count, replication: 3, replicas }),
            1 => ((0..40_u64).prop_map(NodeId), node()).prop_map(|(old, new)| MetaCommand::Replace { old, new }),
            1 => (0..5_u8).prop_map(|name| MetaCommand::Condemn { name: format!("n{name}") }),
            1 => (0..5_u8, any::<bool>())
                .prop_map(|(name, reduce)| MetaCommand::Drain { name: format!("n{name}"), reduce }),
            1 => (0..5_u8).prop_map(|name| MetaCommand::Undrain { name: format!("n{name}") }),
            1 => (0..5_u8).prop_map(|name| MetaCommand::Remove { name: format!("n{name}") }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_applied_ids_are_never_reused_and_replicas_are_living_nodes(
            commands in proptest::collection::vec(any_command(), 0..40)
        ) {
            let mut state = MetaState::default();
            let mut disks: BTreeMap<NodeId, [u8; 16]> = BTreeMap::new();
            for (index, command) in commands.into_iter().enumerate() {
                let before = state.clone();
                if refused(&state.apply(index as u64, command)) {
                    prop_assert_eq!(&state, &before);
                }
                for (id, node) in state.nodes() {
                    let disk = *disks.entry(id).or_insert(node.registration.node_uuid);
                    prop_assert_eq!(disk, node.registration.node_uuid);
                }
                let living: Vec<_> = state.nodes().filter(|(_, node)| !node.retired).collect();
                let names: BTreeSet<_> = living.iter().map(|(_, node)| &node.registration.name).collect();
                prop_assert_eq!(names.len(), living.len(), "a name has one living node");
                for placement in state.groups().values() {
                    prop_assert!(placement.replicas.iter().all(|id| state.node(*id).is_some()));
                }
                if state.cluster_id().is_some() {
                    prop_assert!(state.meta_voters().len() % 2 == 1);
                }
            }
            prop_assert_eq!(MetaState::decode(&state.encode()).unwrap(), state);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MetaCommand::decode(&bytes);
            let _ = MetaState::decode(&bytes);
            let _ = MetaOutcome::decode(&bytes);
        }
    }
}
