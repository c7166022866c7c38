//! Memory for stores: one budget for all, of which one sender gets three quarters at most. So a sender that begins many
//! objects and ends none stops itself, and leaves room for the others.

use parking_lot::Mutex;
use raft_types::{ByteBudget, BytePermit};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// The memory of all stores.
pub(crate) struct IngestMemory {
    all: ByteBudget,
    /// Of each sender that stores something now.
    shares: Mutex<BTreeMap<String, Arc<ByteBudget>>>,
}

/// What one sender may take.
#[derive(Clone)]
pub(crate) struct Share {
    own: Arc<ByteBudget>,
    all: ByteBudget,
}

/// The right to hold some bytes of a store; dropping it gives them back.
pub(crate) struct IngestPermit {
    own: BytePermit,
    all: BytePermit,
}

impl IngestMemory {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { all: ByteBudget::new(bytes), shares: Mutex::default() }
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> u64 {
        self.all.used()
    }

    /// The share of the sender at `address`; all its connections have one.
    pub(crate) fn share(&self, address: &str) -> Share {
        let host =
            address.parse::<SocketAddr>().map_or_else(|_| address.to_owned(), |address| address.ip().to_string());
        let mut shares = self.shares.lock();
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let own = shares.entry(host).or_insert_with(|| Arc::new(ByteBudget::new(self.all.total() / 4 * 3)));
        Share { own: Arc::clone(own), all: self.all.clone() }
    }
}

impl Share {
    /// Waits until `bytes` may be held: for other stores of the sender first, so that who waits for itself stands in
    /// nobody's way.
    pub(crate) async fn acquire(&self, bytes: usize) -> IngestPermit {
        let own = self.own.acquire(bytes as u64).await;
        IngestPermit { own, all: self.all.acquire(bytes as u64).await }
    }
}

impl IngestPermit {
    /// Bytes this permit stands for.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.all.bytes()).unwrap_or(usize::MAX)
    }

    /// Makes `more` part of this one.
    pub(crate) fn absorb(&mut self, more: Self) {
        self.own.absorb(more.own);
        self.all.absorb(more.all);
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.own.shrink(bytes as u64);
        self.all.shrink(bytes as u64);
    }
}
