//! The state of a cluster as one node sees it: what the page, the CLI and scripts read.

use crate::{GroupId, LogPosition, NodeId};
use serde::{Deserialize, Serialize};

/// The cluster as one node sees it. `serde` names are the JSON of `triptych cluster status --json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Cluster id, once formed.
    pub cluster_id: Option<String>,
    /// Name of the node that answers.
    pub answered_by: String,
    /// What the node is doing: `starting`, `waiting for …`, `ready`, `stopping`.
    pub phase: String,
    /// Whether it is ready to commit: joined, caught up once, not draining.
    pub ready: bool,
    /// All nodes of the cluster, by name.
    pub nodes: Vec<NodeStatus>,
    /// All groups held here, by id, the meta group first.
    pub groups: Vec<GroupStatus>,
    /// How many more nodes may fail before some group loses its majority.
    pub survives_failures: u32,
    /// How many copies of an image the cluster keeps.
    pub replication_factor: u32,
    /// How the disk of the node that answers is cared for.
    #[serde(default)]
    pub upkeep: UpkeepStatus,
    /// Groups whose voters are not yet those that they should have, or are too few or too many; the meta group included.
    #[serde(default)]
    pub moving_groups: u32,
}

/// Scrub and compaction on one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct UpkeepStatus {
    /// Whether a pass of the scrub is under way.
    pub scrub_running: bool,
    /// Bytes that this pass has read.
    pub scrub_done_bytes: u64,
    /// Bytes that it will read.
    pub scrub_total_bytes: u64,
    /// When the last pass over everything ended: milliseconds since 1970; none if there was none.
    pub scrub_last_full_ms: Option<u64>,
    /// Ordered passes that have ended since the start.
    pub scrub_orders_done: u64,
    /// Damaged places found so far.
    pub damaged_found: u64,
    /// Of these, mended.
    pub damaged_repaired: u64,
    /// Damaged places that nobody could mend; they are asked for again.
    pub damaged_left: u64,
    /// Where the log had a hole when the node was started; none for a whole one.
    pub hole: Option<String>,
    /// Whether a compaction is under way.
    pub compact_running: bool,
    /// Ordered compactions that have ended since the start.
    pub compact_orders_done: u64,
    /// Segments rewritten since the start.
    pub segments_rewritten: u64,
    /// Bytes that this gave back.
    pub reclaimed_bytes: u64,
    /// Bytes of all segments that are not written any more, at the last look.
    pub disk_bytes: u64,
    /// Of these, about so many are needed by nobody.
    pub dead_bytes: u64,
}

/// One node as seen from the node that answers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct NodeStatus {
    /// Name from `--name`.
    pub name: String,
    /// Raft id, once registered.
    pub id: Option<NodeId>,
    /// Address of its peer port.
    pub peer_address: String,
    /// Whether it answers.
    pub health: NodeHealth,
    /// Groups it leads.
    pub leads: u32,
    /// Greatest number of entries by which it lags in a group that the answering node leads.
    pub lag_entries: u64,
    /// Milliseconds since it was last heard from; none if never.
    pub last_contact_ms: Option<u64>,
    /// Bytes of images that it still pulls from its peers; none when it holds all that it should.
    #[serde(default)]
    pub missing_bytes: Option<u64>,
    /// What the cluster has decided about it.
    #[serde(default)]
    pub state: NodeState,
    /// Data groups of which it is a full copy: it votes in them.
    #[serde(default)]
    pub copies: u32,
    /// Data groups of which it should be a copy.
    #[serde(default)]
    pub copies_wanted: u32,
}

/// What a cluster has decided about a node; whether it answers is its [`NodeHealth`].
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It keeps its share of the copies.
    #[default]
    Member,
    /// Named by its peers or registered, but not in every group yet.
    Joining,
    /// Its copies move to other nodes.
    Draining,
    /// It keeps nothing any more and may be removed.
    Drained,
    /// Given up: the next empty disk under its name takes its place.
    Condemned,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NodeHealth {
    /// It is the node that answers, or was heard from in the last seconds.
    Up,
    /// It was not heard from for some seconds.
    Down,
    /// Not heard from yet.
    Unknown,
}

/// One group as seen from the node that answers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub id: GroupId,
    /// Name of its leader; none while there is none.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// Names of its voters.
    pub voters: Vec<String>,
    /// Raft ids of its voters, in the same order.
    #[serde(default)]
    pub voter_ids: Vec<NodeId>,
    /// Names of its learners: replicas that are still being brought up.
    #[serde(default)]
    pub learners: Vec<String>,
    /// Newest entry of the local log.
    pub last: Option<LogPosition>,
    /// Newest committed entry known here.
    pub committed: Option<LogPosition>,
    /// Newest entry applied here.
    pub applied: Option<LogPosition>,
    /// Newest entry that the log here has let go of.
    #[serde(default)]
    pub purged: Option<LogPosition>,
}
