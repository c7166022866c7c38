//! Settings of a node's groups.

use crate::{Identity, Retention, Upkeep};
use prometheus::Registry;
use raft_lanes::Sabotage;
use std::{collections::BTreeMap, time::Duration};

/// Settings of a node's groups.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Who the data folder is.
    pub identity: Identity,
    /// Name → address of the peer port of every node, this one included; empty for a single node.
    pub peers: BTreeMap<String, String>,
    /// Data groups of a new cluster; fixed for its life.
    pub groups: u32,
    /// Copies of an image that a new cluster keeps; 1 for a single node.
    pub replication: u32,
    /// Raft's clocks.
    pub timing: Timing,
    /// How much log is kept.
    pub retention: Retention,
    /// How the disk is cared for.
    pub upkeep: Upkeep,
    /// How long an empty disk under the name of a known node asks before it takes that node's place by itself.
    pub replace_after: Duration,
    /// Bodies that a new or returning replica pulls, in bytes a second at most; none for no limit.
    pub mirror_bytes_per_second: Option<u64>,
    /// Do everything on the caller's thread: for simulation, where one seed must give one run.
    pub inline: bool,
    /// Where to count.
    pub registry: Registry,
    /// A bug on purpose, for the simulation; none.
    pub sabotage: Option<Sabotage>,
}

/// Raft's clocks. An election comes after the lease (`election_max`) plus a random time between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Least time of silence before an election.
    pub election_min: Duration,
    /// Most time of silence before an election.
    pub election_max: Duration,
}

impl Default for Timing {
    /// 250 / 500 / 1,000 ms: measured on two busy cores, the first new commit comes 1.3–2.3 s after a leader stops.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1_000),
        }
    }
}

impl NodeOptions {
    /// Defaults: 64 groups, 3 copies (1 for a single node).
    #[must_use]
    pub fn new(identity: Identity, peers: BTreeMap<String, String>) -> Self {
        let replication = if peers.len() > 1 { 3 } else { 1 };
        Self {
            identity,
            peers,
            groups: 64,
            replication,
            timing: Timing::default(),
            retention: Retention::default(),
            upkeep: Upkeep::default(),
            replace_after: Duration::from_secs(600),
            mirror_bytes_per_second: None,
            inline: false,
            registry: Registry::new(),
            sabotage: None,
        }
    }

    /// Whether this bug is planted.
    pub(crate) fn has(&self, this: Sabotage) -> bool {
        raft_lanes::sabotage::is(self.sabotage, this)
    }

    pub(crate) fn blocking(&self) -> Blocking {
        if self.inline { Blocking::Inline } else { Blocking::Thread }
    }

    pub(crate) fn raft_config(&self) -> openraft::Config {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "triptych".into(),
            heartbeat_interval: ms(self.timing.heartbeat),
            election_timeout_min: ms(self.timing.election_min),
            election_timeout_max: ms(self.timing.election_max),
            // 128 entries of up to 1 MiB: what one group may have in flight, next to the limit in bytes of the log store.
            max_payload_entries: 128,
            max_append_entries: Some(128),
            // Small channels: back-pressure reaches the sender instead of a queue.
            api_channel_size: Some(512),
            state_machine_channel_size: Some(64),
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // A snapshot is sent only to who needs purged entries, and purging is ours to order.
            replication_lag_threshold: u64::MAX,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            // A leader that restarts must win an election: replication sends entries before the own disk has them, so
            // after a crash its followers may know more of its last term than it does itself (invariant G1).
            enable_leader_restore: Some(self.has(Sabotage::LeaderRestored)),
            // A follower that has lost what it held is sent it again, and counted (`follower_keeps`): its disk is at fault,
            // not this leader, which must go on.
            allow_log_reversion: Some(true),
            // Writes that become one append, and so one batch of the lane: bounds its meta part.
            api_batch_capacity: 128,
            ..openraft::Config::default()
        }
    }
}

/// Where calls run that may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// On a thread made for that.
    Thread,
    /// Here: simulation.
    Inline,
}

impl Blocking {
    pub(crate) async fn run<T: Send + 'static>(
        self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        match self {
            Self::Thread => tokio::task::spawn_blocking(call).await,
            Self::Inline => Ok(call()),
        }
    }
}
