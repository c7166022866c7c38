//! Who gets the bodies of a group's entries: its replicas. All other nodes learn its rows, so that every node answers every
//! query; they get each entry with the length of its body only (*elided*), and fetch a body when it is read.
//!
//! ```text
//!   entry ─► voter, or wanted as one        head + body     lane: the whole record
//!         ─► any other learner              head            lane: "a body of N bytes is not here"
//! ```
//!
//! | invariant | kept by |
//! |---|---|
//! | B1: whoever counts for a majority has the bodies of what it counts for | no voter is ever sent an elided entry; see below |
//! | B2: a learner becomes a voter only with every body | it says so of its rows *and* of its log's tail, behind all that this leader sent without bodies |
//! | B3: an elided entry of a voter is one that no row needs | B2; compaction takes the bodies of what was deleted |
//!
//! *B1 across the change.* Before the leader asks a learner whether it is complete, it promises bodies to it ([`Bodies::promise`]):
//! from then on no entry goes there without, whatever the meta group says meanwhile. What was sent without before ends at a
//! known index, and the learner must hold the log up to there when it answers: a message that is still under way then meets
//! entries that are there already and changes nothing. Messages of earlier leaders are refused for their term. The promise
//! is kept until a later membership is in effect in which the peer does not vote. A leader that knows nothing of all this,
//! because it was just elected, finds the peer as a voter in its own log, or asks anew.
//!
//! *An elided entry that this leader itself has* is sent on as it is (B3): no row of the receiver will need it when it has
//! applied what the leader has. So neither compaction nor a former learner ever holds replication up.

use crate::{meta::MetaHolder, types::Types};
use openraft::{RaftMetrics, alias::WatchReceiverOf, async_runtime::watch::WatchReceiver};
use parking_lot::Mutex;
use raft_types::{GroupId, NodeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// Who gets bodies of one group from this node, if it leads.
pub(crate) struct Bodies {
    group: GroupId,
    meta: Arc<MetaHolder>,
    /// The group's membership, once its core runs.
    metrics: OnceLock<WatchReceiverOf<Types, RaftMetrics<Types>>>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// Who was promised bodies, and under which membership (its index).
    promised: BTreeMap<u64, Option<u64>>,
    /// The last index that each peer was sent without its body, in which term: messages of earlier terms are refused.
    without: BTreeMap<u64, (u64, u64)>,
}

impl Bodies {
    pub(crate) fn new(group: GroupId, meta: Arc<MetaHolder>) -> Arc<Self> {
        Arc::new(Self { group, meta, metrics: OnceLock::new(), ledger: Mutex::default() })
    }

    /// The group's core runs, and says who votes.
    pub(crate) fn watch(&self, metrics: WatchReceiverOf<Types, RaftMetrics<Types>>) {
        // A group is opened once.
        let _ = self.metrics.set(metrics);
    }

    /// Whether entries up to `last` go to the node `to` without their bodies, from the leader of `term`. Asked for each
    /// message, and noted.
    pub(crate) fn go_without(&self, to: u64, term: u64, last: u64) -> bool {
        if self.group == GroupId::META || self.meta.state().replicas(self.group).contains(&NodeId(to)) {
            return false;
        }
        let votes = |metrics: &WatchReceiverOf<Types, RaftMetrics<Types>>| {
            metrics.borrow_watched().membership_config.membership().voter_ids().any(|id| id == to)
        };
        if self.metrics.get().is_none_or(votes) {
            return false;
        }
        let mut ledger = self.ledger.lock();
        if ledger.promised.contains_key(&to) {
            return false;
        }
        // The term comes first: what a leader of this node's own past sent does not count any more.
        let without = ledger.without.entry(to).or_default();
        *without = (term, last).max(*without);
        true
    }

    /// From now on `to` gets every body; answers the last index that it was sent without in `term`, in which this node leads.
    /// `membership` is the index of the membership in effect.
    pub(crate) fn promise(&self, to: u64, term: u64, membership: Option<u64>) -> u64 {
        let mut ledger = self.ledger.lock();
        ledger.promised.insert(to, membership);
        ledger.without.get(&to).filter(|(sent_in, _)| *sent_in >= term).map_or(0, |(_, last)| *last)
    }

    /// A membership is in effect in which only `voters` vote: promises to others, made under an earlier one, have ended.
    pub(crate) fn settle(&self, membership: Option<u64>, voters: &std::collections::BTreeSet<u64>) {
        self.ledger.lock().promised.retain(|to, under| voters.contains(to) || *under >= membership);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Block, Body};
    use openraft::{Membership, RaftMetrics};
    use raft_placement::{MetaCommand, Registration};
    use raft_types::{Committed, CommittedEntry, LogPosition, Versioned};
    use std::collections::BTreeSet;

    fn registration(name: &str, disk: u8) -> Registration {
        Registration { name: name.into(), node_uuid: [disk; 16], incarnation: 1, address: String::new() }
    }

    fn apply(meta: &MetaHolder, index: u64, command: &MetaCommand) {
        let entry = CommittedEntry::Command { head: command.encode(), body_len: 0 };
        let position = LogPosition { term: 1, index };
        meta.apply(&[Committed { group: GroupId::META, position, entry }]).expect("applies");
    }

    fn define(meta: &MetaHolder, index: u64, replicas: &[u64]) {
        let replicas = vec![(1, replicas.iter().map(|id| NodeId(*id)).collect())];
        apply(meta, index, &MetaCommand::DefineGroups { count: 1, replication: 1, replicas });
    }

    fn of(voters: &[u64]) -> RaftMetrics<Types> {
        let mut metrics = RaftMetrics::<Types>::new_initial(1);
        let nodes: BTreeMap<u64, openraft::impls::BasicNode> = (1..=4).map(|id| (id, Default::default())).collect();
        let membership = Membership::new(vec![voters.iter().copied().collect::<BTreeSet<_>>()], nodes).expect("sound");
        metrics.membership_config = Arc::new(crate::types::StoredMembership::new(None, membership));
        metrics
    }

    #[tokio::test]
    async fn only_a_learner_that_nobody_wants_as_a_copy_goes_without_bodies_and_a_promise_is_kept() {
        use openraft::async_runtime::watch::{Watch, WatchSender};
        let meta = MetaHolder::new();
        apply(&meta, 2, &MetaCommand::Bootstrap { cluster_id: [1; 16], founder: registration("n1", 1) });
        for (index, name) in [(3, "n2"), (4, "n3")] {
            apply(&meta, index, &MetaCommand::Register(registration(name, index as u8)));
        }
        define(&meta, 5, &[1]);
        let bodies = Bodies::new(GroupId(1), Arc::clone(&meta));
        assert!(!bodies.go_without(3, 5, 9), "before the voters are known everybody may be one");
        let (sender, receiver) = openraft::alias::WatchOf::<Types>::channel(of(&[1]));
        bodies.watch(receiver);
        assert!(bodies.go_without(3, 5, 9) && bodies.go_without(3, 5, 7));
        define(&meta, 6, &[1, 3]);
        assert!(!bodies.go_without(3, 5, 10), "wanted as a copy");
        assert!(bodies.go_without(4, 5, 10));
        assert_eq!(bodies.promise(3, 5, Some(20)), 9);
        assert_eq!(bodies.promise(3, 6, Some(20)), 0, "what was sent in an earlier term is refused now");
        // The meta group changes its mind while the change of voters is under way: the promise stands.
        define(&meta, 7, &[1]);
        assert!(!bodies.go_without(3, 5, 11));
        bodies.settle(Some(20), &[1].into());
        assert!(!bodies.go_without(3, 5, 11), "the membership in effect is the old one still");
        sender.send(of(&[1, 3])).expect("heard");
        bodies.settle(Some(21), &[1, 3].into());
        assert!(!bodies.go_without(3, 5, 12), "a voter");
        sender.send(of(&[1])).expect("heard");
        assert!(!bodies.go_without(3, 5, 13), "a voter no more, but promised");
        bodies.settle(Some(22), &[1].into());
        assert!(bodies.go_without(3, 5, 14));
        assert!(!Bodies::new(GroupId::META, meta).go_without(3, 5, 1), "the meta group has no bodies to save");
        let elided = Block { head: bytes::Bytes::new(), body: Body::Elided { len: 7 } };
        assert_eq!(elided.body_len(), 7);
    }
}
