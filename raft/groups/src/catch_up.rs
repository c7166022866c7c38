//! What a leader reads from its disk for a peer that lags, bounded: bytes that are read and not yet answered.
//!
//! Without a bound all groups at once push what a returning node lacks: its disk takes batches that make everybody's
//! `fdatasync` wait, and stores that need it, or share its disk, stand in line. Two batches on their way keep it busy.
//!
//! Entries that are still in memory are not counted: they are the ingest itself.

use parking_lot::Mutex;
use raft_types::{ByteBudget, BytePermit};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Bytes on their way to one peer, at most: two answers of the log store.
const IN_FLIGHT_BYTES: u64 = 8 << 20;
/// How long a group waits for its turn: then it goes on beyond the bound, because no group may hang on what another one of
/// the same peer is owed.
const TURN_WITHIN: Duration = Duration::from_secs(1);

/// A budget for each peer, by name; shared by all groups of a node.
#[derive(Default)]
pub(crate) struct CatchUp {
    peers: Mutex<BTreeMap<String, ByteBudget>>,
}

impl CatchUp {
    /// The budget of a peer.
    pub(crate) fn of(&self, peer: &str) -> ByteBudget {
        let mut peers = self.peers.lock();
        peers.entry(peer.to_owned()).or_insert_with(|| ByteBudget::new(IN_FLIGHT_BYTES)).clone()
    }
}

/// The right to read `bytes` for the peer of this budget; none when others kept it to themselves for too long.
pub(crate) async fn turn(budget: &ByteBudget, bytes: u64) -> Option<BytePermit> {
    tokio::time::timeout(TURN_WITHIN, budget.acquire(bytes)).await.ok()
}

/// What the requests of one stream hold until they are answered, in their order.
#[derive(Default, Clone)]
pub(crate) struct Held {
    permits: Arc<Mutex<VecDeque<Option<BytePermit>>>>,
}

impl Held {
    /// One more request, before it is sent.
    pub(crate) fn push(&self, permit: Option<BytePermit>) {
        self.permits.lock().push_back(permit);
    }

    /// The oldest request was answered.
    pub(crate) fn pop(&self) {
        let oldest = self.permits.lock().pop_front();
        drop(oldest); // wakes others: not under the lock
    }

    /// The stream is over: nothing of it is on its way any more.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.permits.lock());
        drop(all);
    }

    /// Requests that are owed an answer.
    pub(crate) fn len(&self) -> usize {
        self.permits.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_one_budget_and_answers_give_it_back_in_order() {
        let catch_up = CatchUp::default();
        let (budget, held) = (catch_up.of("n2"), Held::default());
        held.push(None);
        held.push(budget.try_acquire(IN_FLIGHT_BYTES));
        assert!(catch_up.of("n2").try_acquire(1).is_none(), "one budget for all groups");
        assert!(catch_up.of("n3").try_acquire(1).is_some(), "and one for each peer");
        held.pop();
        assert!(budget.try_acquire(1).is_none(), "that answer was to a request from memory");
        held.pop();
        assert_eq!((budget.used(), held.len()), (0, 0));
    }

    #[test]
    fn a_stream_that_ends_gives_everything_back() {
        let budget = CatchUp::default().of("n2");
        let held = Held::default();
        held.push(budget.try_acquire(100));
        held.clear();
        assert_eq!(budget.used(), 0);
        held.push(budget.try_acquire(100));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_group_hangs_on_what_another_one_is_owed() {
        let budget = CatchUp::default().of("n2");
        let kept = budget.try_acquire(IN_FLIGHT_BYTES);
        assert!(turn(&budget, 1).await.is_none(), "beyond the bound, but on its way");
        drop(kept);
        assert!(turn(&budget, 1).await.is_some());
    }
}
