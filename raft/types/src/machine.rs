//! What the log feeds: a state machine that is a function of (state, position, command) and nothing else.

use crate::{GroupId, LogPosition};
use bytes::Bytes;
use std::ops::ControlFlow;

/// The replicated state of all data groups of one node.
///
/// `apply` uses no clock, no chance, no local disk state and no map order: two replicas that applied the same
/// entries hold the same rows. A refused command is an [`Outcome`], never an error; an error stops the node.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies committed entries of any groups, in order within each group, in ONE transaction with the applied
    /// positions and memberships. Answers one outcome for each entry, in order. Blocking.
    ///
    /// The caller has made every entry durable in the local lane first. Entries at or below the applied position
    /// of their group are never given again.
    fn apply(&self, batch: &[Committed]) -> Result<Vec<Outcome>, StateMachineError>;

    /// What each group has applied, as found at start. Blocking.
    fn applied(&self) -> Result<Vec<(GroupId, Applied)>, StateMachineError>;

    /// Makes what is applied survive a power loss, and answers how far each group has come with that: the log may be
    /// purged up to there and no further. Blocking.
    fn settle(&self) -> Result<Vec<(GroupId, LogPosition)>, StateMachineError>;

    /// The rows of `group` as of one moment, in pieces of about 1 MiB: first that moment, then the pieces. Two replicas
    /// that have applied the same entries give the same pieces. Ends early when `sink` breaks. Blocking.
    fn export(
        &self,
        group: GroupId,
        sink: &mut dyn FnMut(Exported) -> ControlFlow<()>,
    ) -> Result<(), StateMachineError>;

    /// Puts what [`StateMachine::export`] gave on another replica in the place of the rows of `group`, all or nothing,
    /// and durably. From then on the group is *incomplete*: bodies that its rows name may be missing here. Blocking.
    fn import(
        &self,
        group: GroupId,
        applied: &Applied,
        pieces: &mut dyn FnMut() -> std::io::Result<Option<Bytes>>,
    ) -> Result<(), StateMachineError>;

    /// The bodies that the rows of `group` name, ascending, each once. Blocking.
    fn bodies(&self, group: GroupId) -> Result<Vec<BodyRef>, StateMachineError>;

    /// The bodies that the rows in one piece of an export name, in any order. Blocking.
    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, StateMachineError>;

    /// The groups whose bodies may be missing here. Blocking.
    fn incomplete(&self) -> Result<Vec<GroupId>, StateMachineError>;

    /// Says that bodies of `group` may be missing here. Durable at the latest with the next [`StateMachine::settle`]. Blocking.
    fn set_incomplete(&self, group: GroupId) -> Result<(), StateMachineError>;

    /// Says that every body of `group` is here. Blocking.
    fn set_complete(&self, group: GroupId) -> Result<(), StateMachineError>;
}

/// What an export gives.
#[derive(Debug, Clone)]
pub enum Exported {
    /// The moment of the export; comes first and once.
    At(Applied),
    /// Some rows, in the encoding of the state machine.
    Piece(Bytes),
}

/// A body that rows name: an entry of the group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BodyRef {
    /// Index of the entry.
    pub index: u64,
    /// Bytes of the body.
    pub length_bytes: u32,
}

/// A committed entry of one group.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The group whose log holds it.
    pub group: GroupId,
    /// Its place in that log; with the group it is the address of its body.
    pub position: LogPosition,
    /// What it says.
    pub entry: CommittedEntry,
}

/// What an entry says to the state machine. Bodies are never read here.
#[derive(Clone)]
pub enum CommittedEntry {
    /// A new leader's first entry: only the applied position moves.
    Blank,
    /// A membership, in the encoding of `raft/groups`: kept with the applied position, answered by [`StateMachine::applied`].
    Membership(Bytes),
    /// A command of the archive.
    Command {
        /// The encoded command.
        head: Bytes,
        /// How many bytes the body has.
        body_len: u64,
    },
}

impl std::fmt::Debug for CommittedEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank => f.write_str("Blank"),
            Self::Membership(bytes) => write!(f, "Membership({})", bytes.len()),
            Self::Command { head, body_len } => write!(f, "Command(head {}, body {body_len})", head.len()),
        }
    }
}

/// How far a group's rows have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The newest applied entry; none before the first.
    pub position: Option<LogPosition>,
    /// The newest applied membership and where it stood; opaque to the state machine.
    pub membership: Option<(LogPosition, Bytes)>,
}

/// The state machine's answer to one entry, in its own encoding; empty for `Blank` and `Membership`.
pub type Outcome = Bytes;

/// The state machine cannot go on: the node stops and says why.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct StateMachineError {
    /// What was being done.
    pub step: String,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
