//! Settings of a lane.

use crate::{LaneMetrics, OnHole, Sabotage, segment::Identity};

/// Settings of a lane.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// Whose disk it is.
    pub identity: Identity,
    /// Names that the node had before: its older segments carry them.
    pub former_node_uuids: Vec<[u8; 16]>,
    /// What to do when the log is damaged in the middle.
    pub on_hole: OnHole,
    /// Clusters that this disk was part of before: their older segments are its own as well.
    pub former_cluster_ids: Vec<[u8; 16]>,
    /// Size at which a segment is sealed, in bytes; the space is reserved beforehand.
    pub segment_bytes: u64,
    /// Bytes that may wait for the writer; see [`Lane::reserve`].
    pub queue_bytes: u64,
    /// Bytes of durable entries that stay in RAM for peers and apply, which ask for the newest at once.
    pub cache_bytes: u64,
    /// Who writes.
    pub writer: Writer,
    /// Where to count.
    pub metrics: Option<LaneMetrics>,
    /// A bug on purpose, for the simulation; none.
    pub sabotage: Option<Sabotage>,
}

impl LaneOptions {
    /// Defaults for `identity`: segments of 1 GiB, queue and cache of 16 MiB, a writer thread.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            former_node_uuids: Vec::new(),
            on_hole: OnHole::Refuse,
            former_cluster_ids: Vec::new(),
            segment_bytes: 1 << 30,
            queue_bytes: 16 << 20,
            cache_bytes: 16 << 20,
            writer: Writer::Thread,
            metrics: None,
            sabotage: None,
        }
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A thread of the lane's own.
    Thread,
    /// The owner, by [`Lane::step`]: for simulation and tests.
    Stepped,
}
