//! Bugs on purpose, one at a time: a harness that is worth its name finds each of them (`tests/sim`).
//!
//! Nothing but a test sets one, and each stands at one place, behind [`is`]. Without the feature `planted-bugs`, which
//! only the simulation asks for, none of them is compiled.

/// A bug that is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A batch is answered when it is written; only the next one syncs it.
    AnswerBeforeFsync,
    /// A failed fsync is taken for a good one.
    FsyncErrorIgnored,
    /// With what an fsync covers, the newest that still waits is answered, before those that wait before it.
    CallbacksOutOfOrder,
    /// Recovery cuts the log at the first bad batch, whatever good ones lie behind it.
    TruncateAtFirstBadBatch,
    /// A vote is answered before it is durable.
    VoteWithoutBarrier,
    /// A follower applies what its own disk may still lose.
    ApplyBeforeDurable,
    /// A read index is answered without asking anyone.
    ReadIndexAtOnce,
    /// A leader that restarts leads on without an election.
    LeaderRestored,
    /// A learner votes as soon as it is there, complete or not.
    VoterBeforeComplete,
    /// A member whose log is gone goes on under its raft id.
    WipedMemberGoesOn,
    /// A rewritten segment takes the old one's place before it is durable and was read back.
    EvictBeforeVerify,
    /// A replica says that it has verified what it did not read.
    VerifiedUnread,
    /// The log is purged beyond what the rows would keep at a power loss.
    PurgeBeforeSettled,
}

/// Whether `planted` is this bug; never, without the feature.
#[must_use]
#[inline]
pub fn is(planted: Option<Sabotage>, this: Sabotage) -> bool {
    cfg!(feature = "planted-bugs") && planted == Some(this)
}
