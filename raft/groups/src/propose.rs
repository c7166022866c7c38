//! The archive's view of the log: propose, read index, read a block, on any node.

use crate::{
    node::{Group, Node},
    rpc::{ProposeAnswer, ProposeCall, code, method},
    types::{Answer, Block, Body, Types, decode, encode, position},
};
use bytes::Bytes;
use openraft::{
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use raft_lanes::LaneError;
use raft_types::{
    BlockAddress, BoxFuture, Class, ClusterStatus, Command, GroupId, LogPosition, Message, Propose, ProposeError,
    Proposed, ReadError, StoredObject, Verified, WireError,
};
use std::{
    ops::Range,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// First pause before a proposal is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Last pause: a leader is elected in about two seconds.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// A majority that was not heard of for so long is not counted on: a new leader is elected within it.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(3);

/// What one try came to.
pub(crate) enum Attempt {
    /// Committed and applied.
    Done(LogPosition, Bytes),
    /// Nothing was written: try again.
    Nothing,
    /// It may have been written.
    Unknown,
    /// There is no use in trying again.
    Refused(ProposeError),
}

impl Node {
    async fn propose_until(
        &self,
        group: GroupId,
        command: Command,
        deadline: Duration,
    ) -> Result<Proposed, ProposeError> {
        let (head_bytes, body_bytes) = (command.head.len(), command.body.len());
        if head_bytes > Command::HEAD_BYTES_MAX || body_bytes > Command::BODY_BYTES_MAX {
            return Err(ProposeError::TooLarge { head_bytes, body_bytes });
        }
        let until = tokio::time::Instant::now() + deadline;
        let (mut pause, mut unknown) = (PAUSE_MIN, false);
        loop {
            if self.stopping() {
                return Err(if unknown { ProposeError::Unknown { group } } else { ProposeError::Stopped });
            }
            match self.attempt(group, &command, until).await {
                Attempt::Done(position, outcome) => {
                    self.metrics.proposals.with_label_values(&["committed"]).inc();
                    let address = BlockAddress { group, index: position.index };
                    return Ok(Proposed { address, position, outcome });
                }
                // An earlier try may have been written: whatever stops this one, the outcome stays unknown.
                Attempt::Refused(_) if unknown => {
                    self.metrics.proposals.with_label_values(&["unknown"]).inc();
                    return Err(ProposeError::Unknown { group });
                }
                Attempt::Refused(error) => return Err(error),
                Attempt::Unknown => unknown = true,
                Attempt::Nothing => {}
            }
            if tokio::time::Instant::now() + pause >= until {
                let (result, error) = if unknown {
                    ("unknown", ProposeError::Unknown { group })
                } else {
                    ("no_quorum", ProposeError::NoQuorum { group })
                };
                self.metrics.proposals.with_label_values(&[result]).inc();
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try: here if this node leads, else one hop to the node that does.
    async fn attempt(&self, group: GroupId, command: &Command, until: tokio::time::Instant) -> Attempt {
        let peer = match self.group(group) {
            Some(own) => {
                let role = own.role();
                if role.leads {
                    return self.write(&own, command.clone(), until).await;
                }
                match role.leader.filter(|id| Some(*id) != self.raft_id().map(|id| id.0)) {
                    Some(leader) => self.name_of(&role, leader),
                    None => None,
                }
            }
            None => self.replica_of(group),
        };
        match peer {
            Some(peer) => self.forward(&peer, group, command, until).await,
            None => Attempt::Nothing,
        }
    }

    /// Some node that keeps `group`, when this one does not: it answers, or names the leader.
    fn replica_of(&self, group: GroupId) -> Option<String> {
        let meta = self.meta.state();
        let replicas = meta.replicas(group);
        let own = self.raft_id();
        let candidates: Vec<&str> =
            replicas.iter().filter(|id| Some(**id) != own).filter_map(|id| meta.name_of(*id)).collect();
        let at = usize::try_from(self.seed.next()).unwrap_or(0).checked_rem(candidates.len())?;
        Some(candidates[at].to_owned())
    }

    /// Writes through the own leader.
    pub(crate) async fn write(&self, group: &Group, command: Command, until: tokio::time::Instant) -> Attempt {
        // What brings no body is admitted for longer: deletes make room.
        let too_full = if command.body.is_empty() { self.is_at_reserve() } else { self.is_full() };
        if group.id != GroupId::META && too_full {
            return Attempt::Refused(ProposeError::DiskFull);
        }
        let started = Instant::now();
        let block = Block { head: command.head, body: Body::Here(command.body) };
        match tokio::time::timeout_at(until, group.raft.client_write(block)).await {
            Ok(result) => {
                self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
                self.written(group, result)
            }
            Err(_) => Attempt::Unknown,
        }
    }

    fn written(
        &self,
        group: &Group,
        result: Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>,
    ) -> Attempt {
        match result {
            Ok(ClientWriteResponse { log_id, data: Answer(outcome), .. }) => Attempt::Done(position(&log_id), outcome),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Attempt::Nothing,
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Attempt::Unknown,
            Err(RaftError::APIError(error)) => {
                tracing::warn!(group = %group.id, %error, "a proposal was refused");
                Attempt::Nothing
            }
            // The entry may be on its way to the peers, who go on.
            Err(RaftError::Fatal(error)) if self.stopping() => {
                tracing::debug!(group = %group.id, %error, "a proposal met the stop");
                Attempt::Unknown
            }
            Err(RaftError::Fatal(error)) => {
                self.fail(format!("group {} has stopped: {error}", group.id));
                Attempt::Unknown
            }
        }
    }

    /// Whether a write would find a leader that has its majority: the own one was acknowledged of late, or another
    /// one's node was heard of late.
    pub(crate) fn led_by_a_majority(&self, group: &Group) -> bool {
        let role = group.role();
        if role.leads {
            return role.voters.len() == 1 || role.quorum_age.is_some_and(|age| age < QUORUM_AGE_MAX);
        }
        let Some(leader) = role.leader.and_then(|leader| self.name_of(&role, leader)) else { return false };
        let heard = self.peers.lock().get(&leader).map(|peer| peer.at);
        heard.is_some_and(|at| self.clock.now().saturating_sub(at) < QUORUM_AGE_MAX)
    }

    async fn forward(&self, peer: &str, group: GroupId, command: &Command, until: tokio::time::Instant) -> Attempt {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let call = ProposeCall {
            head: command.head.clone(),
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        let bodies = if command.body.is_empty() { Vec::new() } else { vec![command.body.clone()] };
        let request = Message { method: method::PROPOSE, group, head: encode(&call), bodies };
        self.metrics.forwarded.inc();
        let call = tokio::time::timeout_at(until, self.wire.call(peer, Class::Bulk, request));
        let answered = tokio::select! {
            biased;
            answered = call => answered,
            // The old leader may be cut off, and its connection silent for seconds before that is known.
            () = self.led_by_another(group, peer) => return Attempt::Unknown,
        };
        match answered {
            Ok(Ok(answer)) => match decode::<ProposeAnswer>("propose answer", &answer.head) {
                Ok(answer) => Attempt::Done(answer.position, answer.outcome),
                Err(error) => {
                    tracing::warn!(peer, %error, "an answer was not understood");
                    Attempt::Unknown
                }
            },
            Ok(Err(WireError::Refused { refusal, .. })) => match refusal.code {
                code::NOT_LEADER | code::NO_GROUP => Attempt::Nothing,
                code::DISK_FULL => Attempt::Refused(ProposeError::DiskFull),
                code::UNKNOWN | code::STOPPED => Attempt::Unknown,
                _ => {
                    tracing::warn!(peer, %refusal, "a proposal was refused");
                    Attempt::Nothing
                }
            },
            Ok(Err(WireError::WrongPeer { why, .. })) => {
                tracing::warn!(peer, why, "the leader's address answers as another node");
                Attempt::Nothing
            }
            // The request may have arrived before the connection broke.
            Ok(Err(WireError::Unreachable { .. })) | Err(_) => Attempt::Unknown,
        }
    }

    /// Returns once this node knows that another one than `peer` leads `group`: what was forwarded there may be lost, and
    /// trying again is harmless.
    async fn led_by_another(&self, group: GroupId, peer: &str) {
        let Some(own) = self.group(group) else { return std::future::pending().await };
        // These change with terms, leaders and members only, not with every entry.
        let mut metrics = own.raft.server_metrics();
        let term = metrics.borrow_watched().vote.leader_id().term;
        loop {
            let (now, leader) = {
                let metrics = metrics.borrow_watched();
                (metrics.vote.leader_id().term, metrics.current_leader)
            };
            // An answer that is already on its way comes first: only in a later term there is another leader.
            let leader = leader.filter(|_| now > term).and_then(|id| self.name_of(&own.role(), id));
            if leader.is_some_and(|name| name != peer) {
                return;
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await; // the group is stopping
            }
        }
    }

    /// Bytes of a block that is committed and applied here.
    pub(crate) async fn read_local(&self, address: BlockAddress, range: Range<u64>) -> Result<Bytes, ReadError> {
        let BlockAddress { group, index } = address;
        let here = self.group(group).and_then(|group| group.progress.applied()).is_some_and(|at| at.index >= index);
        if !here {
            return Err(ReadError::Absent { address });
        }
        let (start, end) = (range.start, range.end);
        let term = self.lane.position(group, index).map(|position| position.term);
        let body = match term.and_then(|term| self.lane.body_in_memory(group, index, term)) {
            Some(body) => Ok(body),
            None => {
                let lane = self.lane.clone();
                let read = move || lane.body(group, index, None, start..end);
                match self.options.blocking().run(read).await {
                    Ok(read) => return read.map_err(|error| lane_error(address, range, error)),
                    Err(_) => Err(ReadError::Stopped),
                }
            }
        }?;
        let length = body.len() as u64;
        if start > end || end > length {
            return Err(ReadError::OutOfRange { address, start, end });
        }
        Ok(body.slice(start as usize..end as usize))
    }

    /// Bytes of a body that lies here; 0 for one that does not, or whose head is damaged.
    pub(crate) async fn body_len(&self, address: BlockAddress) -> u64 {
        let lane = self.lane.clone();
        let look = move || lane.body_len(address.group, address.index).unwrap_or(0);
        self.options.blocking().run(look).await.map_or(0, u64::from)
    }

    async fn read_anywhere(&self, address: BlockAddress, range: Range<u64>) -> Result<Bytes, ReadError> {
        let error = match self.read_local(address, range.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error @ (ReadError::OutOfRange { .. } | ReadError::Stopped)) => return Err(error),
            Err(error) => error,
        };
        if let ReadError::Damaged { why, .. } = &error {
            tracing::error!(block = %address, why, "a body here is damaged");
            self.note_damaged(address);
        }
        match self.fetch(address, range).await {
            Some(bytes) => {
                self.metrics.remote_reads.inc();
                Ok(bytes)
            }
            None => Err(error),
        }
    }
}

fn lane_error(address: BlockAddress, range: Range<u64>, error: LaneError) -> ReadError {
    match error {
        LaneError::Absent { .. } | LaneError::Elided { .. } | LaneError::OtherTerm { .. } | LaneError::Gap { .. } => {
            ReadError::Absent { address }
        }
        LaneError::OutOfRange { .. } => ReadError::OutOfRange { address, start: range.start, end: range.end },
        // "Damaged" is never reported as "absent", and a disk that does not answer is not either.
        LaneError::Damaged(why) | LaneError::Io(why) | LaneError::Failed(why) => ReadError::Damaged { address, why },
        LaneError::Stopped => ReadError::Stopped,
    }
}

impl Propose for Node {
    fn propose(
        &self,
        group: GroupId,
        command: Command,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(self.propose_until(group, command, deadline))
    }

    fn read_index(&self, groups: Vec<GroupId>) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(self.read_index_of(groups))
    }

    fn read(&self, address: BlockAddress, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(self.read_anywhere(address, range))
    }

    fn verify(&self, object: StoredObject) -> BoxFuture<'_, Verified> {
        Box::pin(self.verify_everywhere(object))
    }

    fn groups(&self) -> Vec<GroupId> {
        (1..=self.meta.state().group_count()).map(GroupId).collect()
    }

    fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        self.meta.state().group_of(key)
    }

    fn can_commit(&self, group: GroupId) -> bool {
        if self.draining.load(Ordering::Relaxed) || self.stopping() {
            return false;
        }
        match self.group(group) {
            Some(own) => self.led_by_a_majority(&own),
            None => !self.meta.state().replicas(group).is_empty(),
        }
    }

    fn status(&self) -> ClusterStatus {
        self.cluster_status()
    }
}
