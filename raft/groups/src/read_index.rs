//! Read index (Raft §6.4) for many groups at once: one small exchange per leader, one round at a time.
//!
//! A reader asks the leader of each group for an index, and answers once it has applied that far. The leader answers
//! with what *it* has applied, if it has applied an entry of its own term and a majority confirms, after the question
//! came, that it has not voted in a newer term:
//!
//! - whatever this leader acknowledged it had applied before (`machine.rs` moves the progress before the answers);
//! - whatever earlier leaders acknowledged lies before the first entry of its term, and is applied with it;
//! - a newer leader cannot have acknowledged anything yet: its majority would overlap the one that confirmed.
//!
//! So the exchange is one message per peer *node*, for all groups together, instead of a heartbeat round per group.

use crate::{
    node::{Group, Node, Role},
    rpc::{ConfirmAnswer, ConfirmCall, ReadIndexAnswer, ReadIndexCall, method},
    types::{VoteRecord, decode, encode},
};
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use raft_lanes::Sabotage;
use raft_types::{Class, GroupId, Message, ReadError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};

/// How long a read may wait for leaders and for the local apply.
const READ_INDEX_WITHIN: Duration = Duration::from_secs(5);
/// How long one exchange may take.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(1);
/// Before a group without a leader is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

type Answer = oneshot::Sender<Result<(), ReadError>>;

/// Readers that wait for the next round.
pub(crate) struct ReadIndex {
    waiting: Mutex<Vec<(Vec<GroupId>, Answer)>>,
    wake: Notify,
}

impl ReadIndex {
    pub(crate) fn new() -> Self {
        Self { waiting: Mutex::new(Vec::new()), wake: Notify::new() }
    }
}

impl Node {
    /// Returns once everything committed in `groups` before the call is applied here.
    pub(crate) async fn read_index_of(&self, groups: Vec<GroupId>) -> Result<(), ReadError> {
        if groups.iter().all(|group| self.alone_in(*group)) || self.options.has(Sabotage::ReadIndexAtOnce) {
            return Ok(());
        }
        let (answer, wait) = oneshot::channel();
        self.reading.waiting.lock().push((groups, answer));
        self.reading.wake.notify_one();
        tokio::select! {
            biased;
            answer = wait => answer.map_err(|_| ReadError::Stopped)?,
            () = self.stop.cancelled() => Err(ReadError::Stopped),
        }
    }

    /// Whether this node is the only voter and leads: what was acknowledged was applied here before.
    fn alone_in(&self, group: GroupId) -> bool {
        self.group(group).is_some_and(|own| own.role().voters.len() == 1 && self.own_index(&own).is_some())
    }

    /// The task that runs the rounds: whoever comes during a round is in the next one.
    pub(crate) async fn serve_read_index(self: Arc<Self>) {
        loop {
            let readers = std::mem::take(&mut *self.reading.waiting.lock());
            if readers.is_empty() {
                self.reading.wake.notified().await;
                continue;
            }
            let groups: BTreeSet<GroupId> = readers.iter().flat_map(|(groups, _)| groups.iter().copied()).collect();
            let started = Instant::now();
            let missing = self.round(groups).await;
            self.metrics.read_index_seconds.observe(started.elapsed().as_secs_f64());
            for (groups, answer) in readers {
                let failed = groups.into_iter().find(|group| missing.contains(group));
                // A reader that has given up does not wait for its answer.
                let _ = answer.send(failed.map_or(Ok(()), |group| Err(ReadError::NoQuorum { group })));
            }
        }
    }

    /// Brings all `groups` up to their leaders; answers those for which that failed.
    async fn round(&self, groups: BTreeSet<GroupId>) -> BTreeSet<GroupId> {
        let until = tokio::time::Instant::now() + READ_INDEX_WITHIN;
        let mut missing = groups;
        loop {
            let indexes = self.indexes(&missing).await;
            for (group, index) in indexes {
                let applied = match self.group(group) {
                    Some(own) => tokio::time::timeout_at(until, own.progress.until(index)).await.is_ok(),
                    None => true, // no replica here: its rows are the leader's to answer
                };
                if applied {
                    missing.remove(&group);
                }
            }
            if missing.is_empty() || tokio::time::Instant::now() + PAUSE >= until {
                return missing;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks each leader once.
    async fn indexes(&self, groups: &BTreeSet<GroupId>) -> Vec<(GroupId, u64)> {
        let (mut own, mut remote) = (Vec::new(), BTreeMap::<String, Vec<GroupId>>::new());
        for id in groups {
            let Some(group) = self.group(*id) else { continue };
            let role = group.role();
            if role.leads {
                own.push(*id);
            } else if let Some(peer) = role.leader.and_then(|leader| self.name_of(&role, leader)) {
                remote.entry(peer).or_default().push(*id);
            }
        }
        let remote = remote.into_iter().map(|(peer, groups)| async move {
            let head = encode(&ReadIndexCall { groups });
            let request = Message { method: method::READ_INDEX, group: GroupId::META, head, bodies: Vec::new() };
            let answer = tokio::time::timeout(EXCHANGE_WITHIN, self.wire.call(&peer, Class::Urgent, request)).await;
            match answer {
                Ok(Ok(answer)) => {
                    decode::<ReadIndexAnswer>("read index", &answer.head).map_or(Vec::new(), |answer| answer.indexes)
                }
                Ok(Err(_)) | Err(_) => Vec::new(),
            }
        });
        let (own, remote) = futures::join!(self.confirmed_indexes(own), futures::future::join_all(remote));
        own.into_iter().chain(remote.into_iter().flatten()).collect()
    }

    /// The index that a reader of `group` must reach, and the term in which this node may say so.
    fn own_index(&self, group: &Group) -> Option<(u64, u64)> {
        let role = group.role();
        let applied = group.progress.applied()?;
        (role.leads && applied.term == role.term).then_some((applied.index, role.term))
    }

    /// As leader: the indexes of those of `groups` for which a majority confirms the leadership, asked after this call.
    pub(crate) async fn confirmed_indexes(&self, groups: Vec<GroupId>) -> Vec<(GroupId, u64)> {
        let mut claims = BTreeMap::new();
        let mut peers: BTreeMap<String, Vec<(GroupId, u64)>> = BTreeMap::new();
        for id in groups {
            let Some(group) = self.group(id) else { continue };
            let Some((index, term)) = self.own_index(&group) else { continue };
            let role = group.role();
            let own = *group.raft.node_id();
            for name in role.voters.iter().filter(|(voter, _)| **voter != own).map(|(_, name)| name) {
                peers.entry(name.clone()).or_default().push((id, term));
            }
            claims.insert(id, Claim { index, role, confirmed: BTreeSet::from([own]) });
        }
        let mut answers: FuturesUnordered<_> = peers
            .into_iter()
            .map(|(peer, terms)| async move {
                let head = encode(&ConfirmCall { terms });
                let request = Message { method: method::CONFIRM, group: GroupId::META, head, bodies: Vec::new() };
                let answer = tokio::time::timeout(EXCHANGE_WITHIN, self.wire.call(&peer, Class::Urgent, request)).await;
                let answer = answer.ok()?.ok()?;
                Some((peer, decode::<ConfirmAnswer>("confirm", &answer.head).ok()?))
            })
            .collect();
        while claims.values().any(|claim| !claim.holds()) {
            let Some(answer) = answers.next().await else { break };
            let Some((peer, answer)) = answer else { continue };
            for group in answer.confirmed {
                if let Some(claim) = claims.get_mut(&group) {
                    claim.confirm(&peer);
                }
            }
        }
        claims.into_iter().filter(|(_, claim)| claim.holds()).map(|(group, claim)| (group, claim.index)).collect()
    }

    /// As voter: the groups in which this node has not voted in a newer term than the claimed one.
    pub(crate) fn confirm(&self, terms: &[(GroupId, u64)]) -> Vec<GroupId> {
        let holds = |(group, term): &&(GroupId, u64)| {
            self.group(*group).is_some()
                && match self.lane.state(*group).vote {
                    Some(vote) => decode::<VoteRecord>("vote", &vote).is_ok_and(|vote| vote.term <= *term),
                    None => true,
                }
        };
        terms.iter().filter(holds).map(|(group, _)| *group).collect()
    }
}

/// A leader's claim that it still leads, and who has confirmed it.
struct Claim {
    index: u64,
    role: Role,
    confirmed: BTreeSet<u64>,
}

impl Claim {
    fn confirm(&mut self, peer: &str) {
        let ids = self.role.voters.iter().filter(|(_, name)| *name == peer).map(|(id, _)| *id);
        self.confirmed.extend(ids);
    }

    /// Whether a majority of every set of voters has confirmed: while the membership changes there are two.
    fn holds(&self) -> bool {
        let majority = |config: &BTreeSet<u64>| config.intersection(&self.confirmed).count() > config.len() / 2;
        self.role.configs.iter().all(majority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_membership_changes_both_sets_must_confirm() {
        let voters = (1..=5).map(|id| (id, format!("n{id}"))).collect();
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 3, 4, 5])];
        let learners = Vec::new();
        let role = Role { term: 1, leads: true, leader: Some(3), voters, learners, configs, quorum_age: None };
        let mut claim = Claim { index: 7, role, confirmed: BTreeSet::from([3]) };
        claim.confirm("n4");
        claim.confirm("n5");
        assert!(!claim.holds(), "three of five, but one of the old three");
        claim.confirm("n1");
        assert!(claim.holds());
    }
}
