//! The archive's view of the replicated log: propose a command, read an address, know that one is up to date.

use crate::{BlockAddress, BodyRef, BoxFuture, ClusterStatus, GroupId, LogPosition};
use bytes::Bytes;
use std::{ops::Range, time::Duration};

/// The replicated log as the archive sees it, on any node of the cluster.
pub trait Propose: Send + Sync + 'static {
    /// Proposes `command` to `group` and waits until it is durable on a majority, committed and applied.
    /// Finds the leader, forwards the body once, and retries through leader changes until `deadline` has passed.
    fn propose(
        &self,
        group: GroupId,
        command: Command,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Proposed, ProposeError>>;

    /// Read index (Raft §6.4): returns once everything that was committed in `groups` before the call is applied here.
    fn read_index(&self, groups: Vec<GroupId>) -> BoxFuture<'_, Result<(), ReadError>>;

    /// Bytes `range` of the body at `address`, verified: from the local lane, else from a peer.
    fn read(&self, address: BlockAddress, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ReadError>>;

    /// Has every replica of an object read it from its own disk now, without help of its peers, and compare its digest.
    /// Returns as soon as the verdict is certain. Take a read index before: only then a replica that is asked is one.
    fn verify(&self, object: StoredObject) -> BoxFuture<'_, Verified>;

    /// The data groups, in order; a study's group is a function of its UID and this list's length.
    fn groups(&self) -> Vec<GroupId>;

    /// Which data group owns `key` (the Study Instance UID); none before this node has learnt the table: then nobody can
    /// propose by a guess, which a moment later might be committed in the wrong group.
    fn group_of(&self, key: &[u8]) -> Option<GroupId>;

    /// Whether a write can be expected to succeed now: the node has joined and `group` has a reachable leader.
    fn can_commit(&self, group: GroupId) -> bool;

    /// Nodes, groups, leaders and lag as this node sees them.
    fn status(&self) -> ClusterStatus;
}

/// Some bytes as the log holds them: bodies of one group, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The group.
    pub group: GroupId,
    /// The bodies in order.
    pub bodies: Vec<BodyRef>,
    /// BLAKE3 of all of them in order.
    pub digest: [u8; 32],
}

/// What the replicas of an object found on their disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// What follows from it.
    pub verdict: Verdict,
    /// Replicas that hold every byte.
    pub sound: u32,
    /// Replicas whose copy is damaged; it will be repaired.
    pub damaged: u32,
    /// Replicas that did not answer, or do not hold all of it yet, or were not waited for.
    pub silent: u32,
}

/// Whether an object is safe. Each variant is a different thing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A majority of every set of voters holds every byte.
    Quorum,
    /// So many copies are damaged that no majority holds it, whatever the others would say.
    Damaged,
    /// Too few have answered: ask again.
    Unknown,
}

/// A command of the archive: a small head that apply reads, and a raw body that only readers of the block read.
#[derive(Clone, Default)]
pub struct Command {
    /// Encoded command; at most 4 MiB.
    pub head: Bytes,
    /// Raw bytes; at most 1 MiB. Copies may outlive the answer (a cache of the log keeps them): whoever made it holds its
    /// byte permit beside it, until the answer, and never inside.
    pub body: Bytes,
}

impl Command {
    /// The largest head, in bytes.
    pub const HEAD_BYTES_MAX: usize = 4 << 20;
    /// The largest body, in bytes.
    pub const BODY_BYTES_MAX: usize = 1 << 20;
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command(head {}, body {})", self.head.len(), self.body.len())
    }
}

/// Proof that a command is durable on a majority, committed and applied on the leader.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// Where its body lies.
    pub address: BlockAddress,
    /// Its place in the log.
    pub position: LogPosition,
    /// The state machine's answer.
    pub outcome: Bytes,
}

/// Why a proposal has no proof. Each variant is a different thing to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written: no leader could be reached in time. Ask the sender to try again.
    #[error("group {group} has no reachable leader: a majority of its nodes must be up")]
    NoQuorum {
        /// The group.
        group: GroupId,
    },
    /// It may or may not be written: read the row to find out, or repeat the command (commands are idempotent).
    #[error("group {group} did not answer in time: the outcome is not known")]
    Unknown {
        /// The group.
        group: GroupId,
    },
    /// Head or body is larger than [`Command`] allows.
    #[error("the command is too large: head {head_bytes} B, body {body_bytes} B")]
    TooLarge {
        /// Bytes of the head.
        head_bytes: usize,
        /// Bytes of the body.
        body_bytes: usize,
    },
    /// The disk of the leader is too full to admit images.
    #[error("the disk is too full to admit more: free some space or add a node")]
    DiskFull,
    /// This node is shutting down.
    #[error("this node is stopping")]
    Stopped,
}

/// Why a read was not served. "Damaged" is never reported as "absent".
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// No majority answered the read index in time.
    #[error("group {group} has no reachable leader: the answer could be stale")]
    NoQuorum {
        /// The group.
        group: GroupId,
    },
    /// No reachable replica holds this block.
    #[error("block {address} is held by no reachable replica")]
    Absent {
        /// The block.
        address: BlockAddress,
    },
    /// Every reachable copy failed its checksum.
    #[error("block {address} is damaged: {why}")]
    Damaged {
        /// The block.
        address: BlockAddress,
        /// Which check failed.
        why: String,
    },
    /// The range does not lie in the block.
    #[error("block {address} has no bytes {start}..{end}")]
    OutOfRange {
        /// The block.
        address: BlockAddress,
        /// First byte asked for.
        start: u64,
        /// One behind the last byte asked for.
        end: u64,
    },
    /// This node is shutting down.
    #[error("this node is stopping")]
    Stopped,
}
