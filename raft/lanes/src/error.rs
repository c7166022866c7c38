//! Why a lane did not do what it was asked.

use crate::segment::SegmentError;
use raft_types::GroupId;

/// Why the lane did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// A write or `fdatasync` failed before; the process must not go on with this disk.
    #[error("the lane has failed: {0}")]
    Failed(String),
    /// The lane is shut down.
    #[error("the lane is stopped")]
    Stopped,
    /// An append that does not follow the last entry.
    #[error("{group}: entry {found} does not follow the last one, {last:?}")]
    Gap {
        /// The group.
        group: GroupId,
        /// The last index.
        last: Option<u64>,
        /// The index submitted.
        found: u64,
    },
    /// There is no such entry.
    #[error("{group}: no entry {index}")]
    Absent {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
    },
    /// The entry is of another term.
    #[error("{group}: entry {index} is of term {found}")]
    OtherTerm {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
        /// Its term here.
        found: u64,
    },
    /// Only the length of the body is here: other replicas keep it, or nobody any more.
    #[error("{group}: the body of {index} is not kept here")]
    Elided {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
    },
    /// The range does not lie in the body.
    #[error("{group}: the body of {index} has {length} bytes")]
    OutOfRange {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
        /// Bytes of the body.
        length: u32,
    },
    /// The bytes on the disk fail their checksum: fetch them from a peer.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The disk did not answer.
    #[error("reading failed: {0}")]
    Io(String),
}

impl LaneError {
    /// Of two reasons why no copy answered, the one to tell: damage is worth more than that a body is kept elsewhere.
    pub(crate) fn or_elided(self, group: GroupId, index: u64) -> Self {
        match self {
            Self::Absent { .. } => Self::Elided { group, index },
            other => other,
        }
    }
}

impl From<SegmentError> for LaneError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Io(error) => Self::Io(error.to_string()),
            SegmentError::Damaged(what) => Self::Damaged(what),
        }
    }
}
