//! The meta group's state machine: which nodes there are and which of them keep which group.
//!
//! ```text
//!   command  = version 1 | postcard(MetaCommand)      Bootstrap, Register, DefineGroups, Replace, Condemn, Drain, Undrain, Remove
//!            | version 2 | postcard(MetaCommand)      SetDocument
//!   outcome  = version 1 | postcard(MetaOutcome)      2 for those of documents
//!   state    = version 2 | postcard(MetaState)        1 had no documents
//! ```
//!
//! A command is written in the oldest version that can say it: nodes of a release before documents go on until somebody
//! sets one, and then say that they must be upgraded, instead of going on without it.
//!
//! Invariants
//! - A raft id is the log index of the entry that registered the node, the founder's is 1; no id is ever used twice.
//! - One disk (`node_uuid`) has one id; a node that lost its disk is another node under the same name and comes in
//!   only when the lost one keeps nothing any more, or by `Replace`.
//! - The number of data groups never changes: a study's group is a function of it.
//! - A node that drains is offered no copy; it is removed only when it keeps none, and then it is retired for ever.
//! - The number of copies falls only by a `Drain` that says so; there is always one node that neither drains nor is given up.
//! - A document is opaque here. Its version is how often it was set, and only who names the version that is there sets the
//!   next (`documents.rs`).
//! - `apply` is a function of state, index and command. Whatever it does not like is `Refused`, and changes nothing.

use crate::documents::Shelf;
use bytes::Bytes;
use raft_types::{DecodeError, Document, GroupId, NodeId, Versioned};
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
    /// Sets a document, if it is still at the version that whoever changed it has seen.
    SetDocument {
        /// Its name.
        key: String,
        /// The version that it is to replace; 0 for one that is not there.
        expect_version: u64,
        /// What it says from now on.
        bytes: Bytes,
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
    /// The document is set.
    DocumentSet {
        /// Its version now.
        version: u64,
    },
    /// Nothing changed: the document is at another version than was expected.
    DocumentChanged {
        /// Its version.
        version: u64,
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
    documents: Shelf,
}

/// The state as version 1 had it.
#[derive(Deserialize)]
struct MetaStateV1 {
    cluster_id: Option<[u8; 16]>,
    nodes: BTreeMap<NodeId, MetaNode>,
    group_count: u32,
    replication: u32,
    groups: BTreeMap<GroupId, GroupPlacement>,
}

impl From<MetaStateV1> for MetaState {
    fn from(old: MetaStateV1) -> Self {
        let MetaStateV1 { cluster_id, nodes, group_count, replication, groups } = old;
        Self { cluster_id, nodes, group_count, replication, groups, documents: Shelf::default() }
    }
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
            MetaCommand::SetDocument { key, expect_version, bytes } => self.documents.set(key, expect_version, bytes),
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

    /// The document under `key`; of version 0 when it was never set.
    #[must_use]
    pub fn document(&self, key: &str) -> Document {
        self.documents.get(key)
    }

    /// All documents, by key.
    pub fn documents(&self) -> impl Iterator<Item = (&str, Document)> {
        self.documents.iter()
    }

    /// The group that owns `key`; none before groups are defined.
    #[must_use]
    pub fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        (self.group_count > 0).then(|| crate::group_of(crate::slot(key), self.group_count))
    }
}

fn encode<T: Serialize>(version: u8, value: &T) -> Bytes {
    // Writing to a growing vector cannot fail; were it to, the empty answer does not decode.
    postcard::to_extend(value, vec![version]).unwrap_or_default().into()
}

/// The version of `bytes`, and what follows it.
fn opened<'a>(what: &'static str, bytes: &'a [u8], newest: u8) -> Result<(u8, &'a [u8]), DecodeError> {
    match bytes.split_first() {
        None => Err(malformed(what, "no bytes")),
        Some((&found, _)) if found > newest => Err(DecodeError::Newer { what, found, newest }),
        Some((0, _)) => Err(malformed(what, "there is no version 0")),
        Some((found, rest)) => Ok((*found, rest)),
    }
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(malformed(what, "bytes are left over")),
        Err(error) => Err(malformed(what, &error.to_string())),
    }
}

fn malformed(what: &'static str, why: &str) -> DecodeError {
    DecodeError::Malformed { what, why: why.to_owned() }
}

impl Versioned for MetaCommand {
    const VERSION: u8 = 2;
    /// The oldest version that can say it.
    fn encode(&self) -> Bytes {
        encode(if matches!(self, Self::SetDocument { .. }) { 2 } else { 1 }, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        // The variants of version 1 are the first of version 2.
        opened("meta command", bytes, Self::VERSION).and_then(|(_, rest)| decode("meta command", rest))
    }
}

impl Versioned for MetaOutcome {
    const VERSION: u8 = 2;
    /// The oldest version that can say it.
    fn encode(&self) -> Bytes {
        let documents = matches!(self, Self::DocumentSet { .. } | Self::DocumentChanged { .. });
        encode(if documents { 2 } else { 1 }, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        opened("meta outcome", bytes, Self::VERSION).and_then(|(_, rest)| decode("meta outcome", rest))
    }
}

impl Versioned for MetaState {
    const VERSION: u8 = 2;
    fn encode(&self) -> Bytes {
        encode(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match opened("meta state", bytes, Self::VERSION)? {
            (1, rest) => decode::<MetaStateV1>("meta state", rest).map(Self::from),
            (_, rest) => decode("meta state", rest),
        }
    }
}

#[cfg(test)]
mod tests;
