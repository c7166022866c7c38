//! The network between nodes as a seam: unary calls and ordered streams, each with a priority class.

use crate::{BoxFuture, GroupId};
use bytes::Bytes;
use std::sync::Arc;

/// Which connection a message takes. A 4 MiB body must never delay a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Votes, heartbeats, read index: small and never behind bodies.
    Urgent,
    /// Appended entries and forwarded proposals.
    Bulk,
    /// Blocks that are read or repaired.
    Read,
}

/// One message: what it is, for which group, a small head and raw bodies.
#[derive(Clone, Default)]
pub struct Message {
    /// The method, numbered by the crate that serves it.
    pub method: u16,
    /// The group it concerns.
    pub group: GroupId,
    /// Encoded by the crate that serves the method; at most 8 MiB.
    pub head: Bytes,
    /// Raw bodies; at most 8 MiB together.
    pub bodies: Vec<Bytes>,
}

impl Message {
    /// Bytes of all bodies.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Message(method {}, {}, head {}, bodies {} B)",
            self.method,
            self.group,
            self.head.len(),
            self.body_bytes()
        )
    }
}

/// The network as a caller sees it. Peers are named; addresses are looked up at every connect.
pub trait Wire: Send + Sync + 'static {
    /// Sends `request` to `peer` and waits for its answer. Callers bound it with a deadline of their own; dropping
    /// the future gives up the call.
    fn call(&self, peer: &str, class: Class, request: Message) -> BoxFuture<'_, Result<Message, WireError>>;

    /// Opens an ordered stream to `peer`; `first` tells the server what it is for.
    fn open(&self, peer: &str, class: Class, first: Message) -> BoxFuture<'_, Result<Box<dyn Stream>, WireError>>;
}

/// One end of an ordered stream. Sending is bounded by credits; dropping it closes both directions.
pub trait Stream: Send + 'static {
    /// Sends the next message, waiting for credit.
    fn send(&mut self, message: Message) -> BoxFuture<'_, Result<(), WireError>>;
    /// The next message of the other end; `None` once it has closed in order.
    fn receive(&mut self) -> BoxFuture<'_, Result<Option<Message>, WireError>>;
    /// Splits the stream, so that one task sends while another receives.
    fn split(self: Box<Self>) -> (Box<dyn Stream>, Box<dyn Stream>);
}

/// The network as a server sees it.
pub trait Serve: Send + Sync + 'static {
    /// Answers a call of node `from`.
    fn call(self: Arc<Self>, from: String, request: Message) -> BoxFuture<'static, Result<Message, Refusal>>;
    /// Serves a stream of node `from` until either end closes it; `first` is what `Wire::open` was given.
    fn stream(self: Arc<Self>, from: String, first: Message, stream: Box<dyn Stream>) -> BoxFuture<'static, ()>;
}

/// A served refusal: the peer understood and says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// A number that the caller's crate understands.
    pub code: u16,
    /// The reason, for people.
    pub reason: String,
}

/// Why a message did not arrive, or its answer did not come back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WireError {
    /// The peer was not reached, or the connection broke. Whether a sent request took effect is unknown.
    #[error("peer {peer} is unreachable: {why}")]
    Unreachable {
        /// Name of the peer.
        peer: String,
        /// What failed.
        why: String,
    },
    /// The node at that address is not the one that was meant: another cluster, name or incarnation.
    #[error("peer {peer} is not the node that was meant: {why}")]
    WrongPeer {
        /// Name of the peer.
        peer: String,
        /// What differs.
        why: String,
    },
    /// The peer answered no.
    #[error("peer {peer} refused: {refusal}")]
    Refused {
        /// Name of the peer.
        peer: String,
        /// What it said.
        refusal: Refusal,
    },
}
