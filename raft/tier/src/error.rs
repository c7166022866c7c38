//! Why something with a backup did not work. Each says what to do.

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The address of the store cannot be used.
    #[error("{url}: {why}; say file:///folder or s3://bucket/prefix")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store did not do it, though asked several times.
    #[error("could not {step}: the store answers: {source}")]
    Store {
        /// What was being done.
        step: String,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// The store did not answer in time, though asked several times.
    #[error("could not {step}: the store did not answer in time; try again when it is reachable")]
    TimedOut {
        /// What was being done.
        step: String,
    },
    /// Bytes in the store are not what was written there.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object, or the body.
        object: String,
        /// Which check failed.
        why: String,
    },
    /// There is no such backup.
    #[error("{0}")]
    NoBackup(String),
    /// The node could not give what belongs into the backup.
    #[error("the node could not give {what}: {why}")]
    Source {
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
    /// What was read could not be put into its place.
    #[error("could not {step}: {why}")]
    Target {
        /// What was being done.
        step: String,
        /// Why not.
        why: String,
    },
    /// Somebody else works on these backups.
    #[error("{0}")]
    Busy(String),
}

impl TierError {
    pub(crate) fn damaged(object: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Damaged { object: object.to_string(), why: why.to_string() }
    }
}
