//! Who keeps a group: the leader brings its members to what the meta group wants, one idempotent step at a time.
//!
//! ```text
//!   joint (a change was cut off) ─► finish it                                                        (trap 18)
//!   wanted, unknown              ─► learner: gets log or rows, pulls bodies
//!   wanted, learner              ─► asked: is every body that you name with you? ─ yes, all of them ─► voters := wanted
//!   voter, not wanted            ─► goes with that same change; if it is this leader, it first hands over
//!   learner, not wanted          ─► removed
//! ```
//!
//! Membership truth is each group's own configuration. Every step is taken again after a crash, because it follows from
//! what is wanted and what is; openraft refuses a second change while one is under way.

use crate::{
    keeper::lag_of,
    node::{Group, Node},
    rpc::{CompleteAnswer, CompleteCall, method},
    types::{Types, decode, encode},
};
use openraft::{ChangeMembers, RaftMetrics, async_runtime::watch::WatchReceiver, impls::BasicNode};
use raft_lanes::Sabotage;
use raft_placement::MetaState;
use raft_types::{Class, GroupId, Message, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Between two looks of a leader at its members.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// At most so many voters in the meta group.
const META_VOTERS_MAX: usize = 5;
/// Entries that a learner may lag and still become a voter.
const LAG_MAX: u64 = 32;
/// How long a learner may take to say whether it is complete.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Entries by which a learner's rows may be behind what the leader has applied when it says that it is complete.
const APPLIED_LAG_MAX: u64 = 1024;

impl Node {
    /// As leader of any group: brings its members to what is wanted. The meta leader also defines the groups once.
    pub(crate) async fn reconcile(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let state = self.meta.state();
            for group in self.all_groups() {
                if group.leads() && !self.stopping() {
                    self.step_membership(&group, &state).await;
                }
            }
            if self.group(GroupId::META).is_some_and(|meta| meta.leads()) {
                self.define_groups(&state).await;
            }
        }
    }

    /// Raft ids of the nodes that should keep `group`.
    fn wanted(&self, group: GroupId, state: &MetaState) -> BTreeSet<u64> {
        if group == GroupId::META {
            let alive = state.nodes().filter(|(_, node)| !node.retired).map(|(id, _)| id.0);
            alive.take(META_VOTERS_MAX).collect()
        } else {
            state.replicas(group).iter().map(|id| id.0).collect()
        }
    }

    /// One step, or none when all is as wanted.
    async fn step_membership(&self, group: &Group, state: &MetaState) {
        let metrics: RaftMetrics<Types> = group.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let wanted = self.wanted(group.id, state);
        if wanted.is_empty() {
            return;
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let known: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
        if membership.get_joint_config().len() > 1 {
            self.change(group, ChangeMembers::AddVoterIds(BTreeSet::new()), "a membership change is finished").await;
        } else if let Some(new) = wanted.difference(&known).next() {
            let Some(name) = state.name_of(NodeId(*new)) else { return };
            let node = BTreeMap::from([(*new, BasicNode::new(name))]);
            self.change(group, ChangeMembers::AddNodes(node), "a replica comes: it learns").await;
        } else if voters != wanted {
            for learner in wanted.difference(&voters) {
                if !self.is_ready(group, &metrics, *learner, state).await {
                    return;
                }
            }
            if wanted.contains(&metrics.id) {
                self.change(group, ChangeMembers::ReplaceAllVoters(wanted), "the voters are as wanted").await;
            } else if let Some(heir) = wanted.intersection(&voters).next() {
                self.hand_over(group, NodeId(*heir)).await;
            }
        } else if known != wanted {
            let gone: BTreeSet<u64> = known.difference(&wanted).copied().collect();
            self.change(group, ChangeMembers::RemoveNodes(gone), "a replica that is not wanted any more is gone").await;
        }
    }

    async fn change(&self, group: &Group, change: ChangeMembers<u64, BasicNode>, what: &str) {
        let changing = group.raft.change_membership(change, false);
        match tokio::time::timeout(Duration::from_secs(5), changing).await {
            Ok(Ok(_)) => tracing::info!(group = %group.id, what, "membership"),
            Ok(Err(error)) => tracing::debug!(group = %group.id, what, %error, "the membership did not change yet"),
            Err(_) => tracing::debug!(group = %group.id, what, "the membership did not change yet"),
        }
    }

    /// Whether the learner has caught up and holds every body: only then it counts as a copy.
    async fn is_ready(&self, group: &Group, metrics: &RaftMetrics<Types>, id: u64, state: &MetaState) -> bool {
        if lag_of(metrics, id).is_none_or(|lag| lag > LAG_MAX) {
            return false;
        }
        if self.options.has(Sabotage::VoterBeforeComplete) {
            return true;
        }
        let Some(peer) = state.name_of(NodeId(id)) else { return false };
        let head = encode(&CompleteCall { to: id });
        let request = Message { method: method::COMPLETE, group: group.id, head, bodies: Vec::new() };
        let asked = tokio::time::timeout(ASK_WITHIN, self.wire.call(peer, Class::Urgent, request)).await;
        let Ok(Ok(answer)) = asked else { return false };
        let Ok(answer) = decode::<CompleteAnswer>("complete", &answer.head) else { return false };
        let ours = group.progress.applied().map_or(0, |applied| applied.index);
        let theirs = answer.applied.map_or(0, |applied| applied.index);
        answer.complete && theirs + APPLIED_LAG_MAX >= ours
    }

    /// Whether this node holds, of `group`, every body that its rows name.
    pub(crate) async fn is_complete(&self, group: GroupId) -> bool {
        if group == GroupId::META {
            return true;
        }
        let machine = Arc::clone(&self.machine);
        let asked = self.options.blocking().run(move || machine.incomplete()).await;
        matches!(asked, Ok(Ok(incomplete)) if !incomplete.contains(&group))
    }
}
