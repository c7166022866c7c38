//! Small replicated documents: settings that every node must agree on, whose meaning only their owner knows.

use crate::BoxFuture;
use bytes::Bytes;

/// A document as it is known: its bytes, and how often it has been set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// 0 for one that was never set.
    pub version: u64,
    /// What its owner wrote; empty for one that was never set.
    pub bytes: Bytes,
}

/// Documents that a majority keeps, the same on every node, found again after every restart.
pub trait Documents: Send + Sync + 'static {
    /// The document under `key`, once this node knows it and its version is not `seen`: with `None` at once when it is known.
    ///
    /// Until this node has learnt what was set before it started, nobody is answered: an old answer, or none, could be a
    /// wrong one. Waits for ever when nothing changes, also while the node stops.
    fn next<'a>(&'a self, key: &'a str, seen: Option<u64>) -> BoxFuture<'a, Document>;

    /// Sets the document if its version is still `expected`; answers the new version, which this node knows by then.
    /// Setting the same bytes again over the same version is the same answer.
    ///
    /// # Errors
    /// See [`DocumentError`].
    fn put<'a>(&'a self, key: &'a str, expected: u64, bytes: Bytes) -> BoxFuture<'a, Result<u64, DocumentError>>;
}

/// Why a document was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Somebody else was first: read it again, and decide anew.
    #[error("the document was changed meanwhile, it is at version {version} now: look at it and try again")]
    Changed {
        /// Its version now.
        version: u64,
    },
    /// It breaks a bound; the sentence says which.
    #[error("{0}")]
    Refused(String),
    /// No majority decided in time: it may or may not be set. Try again.
    #[error("the cluster did not decide: {0}; look at it again when a majority of the nodes is up")]
    Undecided(String),
}
