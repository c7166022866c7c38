//! Refusals and failures. Each variant is a different thing to do; the two faces turn them into statuses.

use archive_catalog::CatalogError;
use archive_model::{Invalid, Tag, UidError};
use raft_types::ProposeError;

/// Why an instance was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bytes are not a data set we can read, or break a limit: send a repaired one.
    #[error("the data set cannot be read: {0}")]
    Invalid(#[source] Invalid),
    /// The data set is not what the request said it is.
    #[error("{what} of the data set differs from that of the request")]
    Mismatch {
        /// The attribute that differs.
        what: &'static str,
    },
    /// The instance belongs to another study than the one it was sent to.
    #[error("the instance belongs to another study than the one it was sent to")]
    StudyMismatch,
    /// A UID without which nothing can be found again is missing or malformed.
    #[error("{tag} {why}")]
    BadUid {
        /// Which UID.
        tag: Tag,
        /// `is missing`, or what is wrong with it.
        why: String,
    },
    /// The transfer syntax of the request is no UID: send the object with the one it is in.
    #[error("the transfer syntax {0}")]
    TransferSyntax(#[source] UidError),
    /// No majority: nothing was written. Try again.
    #[error("a majority of the nodes cannot be reached: try again when they are up")]
    NoQuorum,
    /// It may or may not be stored: send it again, which is harmless.
    #[error("the outcome is not known: send the instance again")]
    Unknown,
    /// No memory for it while other stores hold all there is: try again soon.
    #[error("the archive is busy: try again in some seconds")]
    Overloaded,
    /// No space to admit images.
    #[error("the disk is too full to admit images: free some space or add a node")]
    DiskFull,
    /// Another content is stored under its UID, and the policy of its sender is to reject such: send it under a UID of its
    /// own, or have the policy changed.
    #[error("other content is stored under this SOP Instance UID, and its sender's policy is to reject that")]
    OtherContent,
    /// A rejection note names it, and the policy of that note's title is to refuse what comes again: have it restored, or send a
    /// new image under a UID of its own.
    #[error("a rejection note names this instance: it is refused until it is restored")]
    Rejected,
    /// The log refused the command: the reason is the catalogue's.
    #[error("the catalogue refused the instance: {why}")]
    Refused {
        /// What the catalogue said.
        why: String,
    },
    /// This node is shutting down: send to a peer.
    #[error("this node is stopping: send to another")]
    Stopping,
}

impl From<ProposeError> for StoreError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoQuorum { .. } => Self::NoQuorum,
            ProposeError::Unknown { .. } => Self::Unknown,
            // A head that is larger than the log takes: its header is beyond what any modality sends.
            ProposeError::TooLarge { .. } => Self::Refused { why: error.to_string() },
            ProposeError::DiskFull => Self::DiskFull,
            ProposeError::Stopped => Self::Stopping,
        }
    }
}

/// Why a query or a look-up was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query itself is wrong: ask differently.
    #[error("{why}")]
    Invalid {
        /// What is wrong and what would be right.
        why: String,
    },
    /// An answer could be stale, because no majority can be reached.
    #[error("a majority of the nodes cannot be reached: the answer could be stale")]
    NoQuorum,
    /// This node does not know the groups yet: what it has may be half of what there is.
    #[error("this node has just started: try again in some seconds, or ask another")]
    Starting,
    /// The catalogue failed.
    #[error("read the catalogue")]
    Failed(#[source] CatalogError),
    /// This node is shutting down: ask a peer.
    #[error("this node is stopping: ask another")]
    Stopping,
}
