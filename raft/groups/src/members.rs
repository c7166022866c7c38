//! Who keeps a group: the leader brings its members to what the meta group wants, one idempotent step at a time.
//!
//! ```text
//!   joint (a change was cut off)      ─► finish it                                                        (trap 18)
//!   node of the cluster, unknown      ─► learner: gets log or rows; bodies only if it is wanted as a copy (bodies.rs)
//!   wanted, learner                   ─► asked: is every body with you? ─ yes, all of them ─► voters := wanted
//!   voter, not wanted                 ─► learner, with that same change; if it is this leader, it first hands over
//!   node that was replaced or removed ─► removed
//! ```
//!
//! *Rows everywhere.* Every node of the cluster is a member of every group, so that it answers every query from its own
//! rows; only the wanted ones vote and keep bodies.
//!
//! Membership truth is each group's own configuration. Every step is taken again after a crash, because it follows from
//! what is wanted and what is; each says on which membership it is based, and openraft refuses it when another came between.

use crate::{
    keeper::lag_of,
    node::{Group, Node},
    rpc::{CompleteCall, CopyAnswer, method},
    types::{Types, decode, encode},
};
use openraft::{ChangeMembers, RaftMetrics, async_runtime::watch::WatchReceiver, impls::BasicNode, raft::Precondition};
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
/// Entries that a learner may lag and still become a voter.
const LAG_MAX: u64 = 32;
/// How long a learner may take to say whether it is complete: it may have to look at many rows.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// Entries by which a learner's rows may be behind what the leader has applied when it says that it is complete.
const APPLIED_LAG_MAX: u64 = 1024;

impl Node {
    /// As leader of any group: brings its members to what is wanted.
    pub(crate) async fn reconcile(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let state = self.meta.state();
            for group in self.all_groups() {
                if group.leads() && !self.stopping() {
                    self.step_membership(&group, &state).await;
                }
            }
        }
    }

    /// One step, or none when all is as wanted.
    async fn step_membership(&self, group: &Group, state: &MetaState) {
        let metrics: RaftMetrics<Types> = group.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let wanted: BTreeSet<u64> = match group.id {
            GroupId::META => state.meta_voters().iter().map(|id| id.0).collect(),
            id => state.replicas(id).iter().map(|id| id.0).collect(),
        };
        if wanted.is_empty() {
            return;
        }
        let alive: BTreeMap<u64, BasicNode> = state
            .nodes()
            .filter(|(_, node)| !node.retired)
            .map(|(id, node)| (id.0, BasicNode::new(&node.registration.name)))
            .collect();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let known: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
        let is_joint = membership.get_joint_config().len() > 1;
        if !is_joint {
            group.bodies.settle(metrics.membership_config.log_id().as_ref().map(|at| at.index), &voters);
        }
        let new: BTreeMap<u64, BasicNode> = alive.iter().filter(|(id, _)| !known.contains(id)).map(of_pair).collect();
        let gone: BTreeSet<u64> = known.iter().copied().filter(|id| !alive.contains_key(id)).collect();
        let change = if is_joint {
            (ChangeMembers::AddVoterIds(BTreeSet::new()), "a membership change is finished")
        } else if !new.is_empty() {
            (ChangeMembers::AddNodes(new), "a node comes: it learns")
        } else if voters != wanted {
            for learner in wanted.difference(&voters) {
                if !self.is_ready(group, &metrics, *learner, state).await {
                    return;
                }
            }
            if wanted.contains(&metrics.id) {
                (ChangeMembers::ReplaceAllVoters(wanted), "the voters are as wanted")
            } else if let Some(heir) = wanted.intersection(&voters).next() {
                return self.hand_over(group, NodeId(*heir)).await;
            } else {
                // Nobody else could lead yet: the last voter goes when another has come.
                let both = wanted.iter().copied().chain([metrics.id]).collect();
                (ChangeMembers::ReplaceAllVoters(both), "a voter comes before the last one goes")
            }
        } else if !gone.is_empty() {
            (ChangeMembers::RemoveNodes(gone), "a node that is no member any more is gone")
        } else {
            return;
        };
        self.change(group, &metrics, change).await;
    }

    /// Changes the membership if it is still the one of `metrics`. Who votes no more goes on learning.
    async fn change(
        &self,
        group: &Group,
        metrics: &RaftMetrics<Types>,
        (change, what): (ChangeMembers<u64, BasicNode>, &str),
    ) {
        let last_membership_log_id = *metrics.membership_config.log_id();
        let base = [Precondition::LastMembershipLogId { last_membership_log_id }];
        let changing = group.raft.change_membership_if(change, true, base);
        match tokio::time::timeout(Duration::from_secs(5), changing).await {
            Ok(Ok(_)) => tracing::info!(group = %group.id, what, "membership"),
            Ok(Err(error)) => tracing::debug!(group = %group.id, what, %error, "the membership did not change yet"),
            Err(_) => tracing::debug!(group = %group.id, what, "the membership did not change yet"),
        }
    }

    /// Whether the learner has caught up and holds every body: only then it counts as a copy (B2).
    async fn is_ready(&self, group: &Group, metrics: &RaftMetrics<Types>, id: u64, state: &MetaState) -> bool {
        // First: what is sent from here on is whole.
        let without = group.bodies.promise(
            id,
            metrics.current_term,
            metrics.membership_config.log_id().as_ref().map(|at| at.index),
        );
        if lag_of(metrics, id).is_none_or(|lag| lag > LAG_MAX) {
            return false;
        }
        if self.options.has(Sabotage::VoterBeforeComplete) {
            return true;
        }
        let Some(peer) = state.name_of(NodeId(id)) else { return false };
        let head = encode(&CompleteCall { to: id });
        let request = Message { method: method::COPY, group: group.id, head, bodies: Vec::new() };
        let asked = tokio::time::timeout(ASK_WITHIN, self.wire.call(peer, Class::Urgent, request)).await;
        let Ok(Ok(answer)) = asked else { return false };
        let Ok(answer) = decode::<CopyAnswer>("copy", &answer.head) else { return false };
        let ours = group.progress.applied().map_or(0, |applied| applied.index);
        let theirs = answer.applied.map_or(0, |applied| applied.index);
        answer.complete && theirs + APPLIED_LAG_MAX >= ours && answer.last.map_or(0, |last| last.index) >= without
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

    /// What this node says when it is asked whether it is a full copy of `group`. In this order: the end of the log, what is
    /// behind the rows, the rows. What is applied meanwhile moves from the one to the other and is looked at in both.
    pub(crate) async fn copy_of(&self, group: &Group) -> CopyAnswer {
        let last = self.lane.state(group.id).last;
        let applied = group.progress.applied();
        let complete = group.id == GroupId::META
            || (self.is_wanted(group.id)
                && self.is_complete(group.id).await
                && self.tail_is_whole(group.id, applied.map_or(0, |at| at.index + 1)).await
                && self.missing_of(group.id).await.is_some_and(|missing| missing.is_empty()));
        CopyAnswer { complete, applied, last }
    }

    /// Whether this node should be a copy of `group`, as far as it knows.
    pub(crate) fn is_wanted(&self, group: GroupId) -> bool {
        self.raft_id().is_some_and(|own| self.meta.state().replicas(group).contains(&own))
    }

    /// Whether every entry from `start` on has its body here.
    async fn tail_is_whole(&self, group: GroupId, start: u64) -> bool {
        let lane = self.lane.clone();
        let look = move || {
            let state = lane.state(group);
            let end = state.last.map_or(0, |last| last.index + 1);
            let start = start.max(state.first);
            if start >= end {
                return true;
            }
            let Ok(entries) = lane.entries(group, start..end, u64::MAX) else { return false };
            entries.iter().all(|entry| !entry.elided || lane.holds(group, entry.position.index, entry.body_len))
        };
        self.options.blocking().run(look).await.unwrap_or(false)
    }
}

fn of_pair((id, node): (&u64, &BasicNode)) -> (u64, BasicNode) {
    (*id, node.clone())
}
