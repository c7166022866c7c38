//! The words that every crate of `raft/` shares, and the seams through which the world comes in.
//!
//! ```text
//!            Propose                     StateMachine
//!   service ─────────► groups ─────────────────────────► catalog
//!                        │ │
//!                   Disk │ │ Wire          Clock, Seed: time and chance, so that a simulation can own them
//!                        ▼ ▼               Documents: small settings that all nodes share
//!                     lanes wire
//! ```
//!
//! Nothing here knows tokio, openraft, files, sockets or DICOM.

mod budget;
mod disk;
mod documents;
mod id;
mod machine;
mod propose;
mod status;
mod time;
mod wire;

pub use budget::{Acquire, ByteBudget, BytePermit};
pub use disk::{Disk, DiskFile, DiskSpace};
pub use documents::{Document, DocumentError, Documents, KeptDocument};
pub use id::{BlockAddress, GroupId, LogPosition, NodeId};
pub use machine::{Applied, BodyRef, Committed, CommittedEntry, Exported, Outcome, StateMachine, StateMachineError};
pub use propose::{Command, Propose, ProposeError, Proposed, ReadError, StoredObject, Verdict, Verified};
pub use status::{ClusterStatus, GroupStatus, NodeHealth, NodeState, NodeStatus, UpkeepStatus};
pub use time::{Clock, Seed};
pub use wire::{Class, Message, Refusal, Serve, Stream, Wire, WireError};

/// A boxed future, so that the traits here can stand behind `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A type whose bytes are stored or sent: they open with the version that wrote them.
pub trait Versioned: Sized {
    /// The version that [`Versioned::encode`] writes; bytes of every older version still decode.
    const VERSION: u8;
    /// The bytes, version first.
    fn encode(&self) -> bytes::Bytes;
    /// Today's type from the bytes of any version up to [`Versioned::VERSION`].
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Why stored or sent bytes could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release: upgrade this node.
    #[error("{what}: version {found} is newer than {newest}, the newest this release reads; upgrade this node")]
    Newer {
        /// What was being decoded.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The newest version understood.
        newest: u8,
    },
    /// The bytes are not what they should be.
    #[error("{what}: malformed: {why}")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}
