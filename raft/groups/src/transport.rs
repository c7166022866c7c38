//! openraft's network over the wire: votes and heartbeats on their own connection, appended entries as a pipelined stream.
//!
//! A failure of the transport is `Unreachable`, never a synthetic answer: an unreachable peer grants nothing (trap 15).
//! Bodies are fetched from the lane when a message is about to be sent, so a slow peer is served from the disk and
//! never pinned in RAM.

use crate::{
    bodies::Bodies,
    catch_up::{self, CatchUp, Held},
    mirror::{self, Damaged},
    options::Blocking,
    rows::{self, Rows},
    rpc::{AppendAnswer, AppendCall, TransferCall, VoteAnswer, VoteCall, append_call, method},
    types::{Body, Types, Vote, VoteRecord, decode, encode, log_id, position},
};
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    impls::BasicNode,
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use raft_lanes::{Lane, LaneError};
use raft_types::{
    BlockAddress, ByteBudget, BytePermit, Class, DecodeError, GroupId, LogPosition, Message, StateMachine, Wire,
    WireError,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

type Error = RPCError<Types>;

/// Makes the connections of one group.
pub(crate) struct Network {
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) lane: Lane,
    pub(crate) group: GroupId,
    pub(crate) blocking: Blocking,
    pub(crate) machine: Arc<dyn StateMachine>,
    pub(crate) damaged: Damaged,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) catch_up: Arc<CatchUp>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        self.connection(target, node, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Connection {
        self.connection(target, node, Purpose::Heartbeats)
    }
}

impl Network {
    fn connection(&self, target: u64, node: &BasicNode, purpose: Purpose) -> Connection {
        Connection {
            wire: Arc::clone(&self.wire),
            group: self.group,
            blocking: self.blocking,
            to: target,
            peer: node.addr.clone(),
            purpose,
            machine: Arc::clone(&self.machine),
            source: Source {
                lane: self.lane.clone(),
                group: self.group,
                blocking: self.blocking,
                damaged: Damaged::clone(&self.damaged),
                bodies: Arc::clone(&self.bodies),
                budget: self.catch_up.of(&node.addr),
            },
        }
    }
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Entries with their bodies, as a stream.
    Entries,
    /// Signs of life: single calls of the urgent class, which no body may delay (trap 19).
    Heartbeats,
}

/// One group's connection to one peer.
pub(crate) struct Connection {
    wire: Arc<dyn Wire>,
    group: GroupId,
    blocking: Blocking,
    to: u64,
    peer: String,
    purpose: Purpose,
    machine: Arc<dyn StateMachine>,
    source: Source,
}

fn unreachable(why: impl ToString) -> Error {
    RPCError::Unreachable(Unreachable::from_string(why))
}

fn wire_error(error: &WireError) -> Error {
    match error {
        // The peer is there and says no, for now: try again soon.
        WireError::Refused { .. } => RPCError::Network(NetworkError::from_string(error)),
        WireError::Unreachable { .. } | WireError::WrongPeer { .. } => unreachable(error),
    }
}

fn malformed(error: &DecodeError) -> Error {
    RPCError::Network(NetworkError::from_string(error))
}

impl Connection {
    async fn call(&self, class: Class, request: Message, within: Duration) -> Result<Message, Error> {
        match tokio::time::timeout(within, self.wire.call(&self.peer, class, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(wire_error(&error)),
            Err(_) => Err(unreachable(format!("{} did not answer within {within:?}", self.peer))),
        }
    }

    fn message(&self, method: u16, head: Bytes, bodies: Vec<Bytes>) -> Message {
        Message { method, group: self.group, head, bodies }
    }

    async fn ask_vote(
        &self,
        method: u16,
        rpc: VoteRequest<Types>,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, Error> {
        let call = VoteCall {
            to: self.to,
            vote: VoteRecord::from(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(position),
            transfer: rpc.leadership_transfer,
        };
        let request = self.message(method, encode(&call), Vec::new());
        let answer = self.call(Class::Urgent, request, option.soft_ttl()).await?;
        let answer: VoteAnswer = decode("vote answer", &answer.head).map_err(|error| malformed(&error))?;
        Ok(VoteResponse::new(Vote::from(answer.vote), answer.last.map(log_id), answer.granted))
    }
}

/// Where the bodies of messages come from.
#[derive(Clone)]
struct Source {
    lane: Lane,
    group: GroupId,
    blocking: Blocking,
    damaged: Damaged,
    bodies: Arc<Bodies>,
    /// Bytes that may be read for the peer and not be answered yet.
    budget: ByteBudget,
}

/// An append that can be sent.
struct Append {
    call: AppendCall,
    bodies: Vec<Bytes>,
    /// Of what was read from the disk for it; held until it is answered.
    permit: Option<BytePermit>,
}

impl Source {
    /// The head and the bodies of an append to the node `to`, which may have to go without bodies.
    async fn append(&self, to: u64, request: &AppendEntriesRequest<Types>) -> Result<Append, String> {
        let (mut call, places) = append_call(to, request);
        let (found, permit) = if !places.is_empty() && self.bodies.go_without(to, call.vote.term, call.last()) {
            (vec![None; places.len()], None)
        } else {
            let permit = self.permit_for(&places).await;
            (self.fetch(places).await?, permit)
        };
        let bodies = call.with_bodies(found);
        Ok(Append { call, bodies, permit })
    }

    /// The right to read from the disk what is not in memory, if anything.
    async fn permit_for(&self, places: &[(LogPosition, Body)]) -> Option<BytePermit> {
        let on_disk = places.iter().filter_map(|(at, body)| match body {
            Body::InLane { len } if self.lane.body_in_memory(self.group, at.index, at.term).is_none() => {
                Some(u64::from(*len))
            }
            _ => None,
        });
        let bytes: u64 = on_disk.sum();
        if bytes == 0 { None } else { catch_up::turn(&self.budget, bytes).await }
    }

    /// Bodies, in order: from RAM, or from the lane on a thread that may block; none for one that is not kept here any
    /// more, because no row needs it. One that is damaged is noted.
    async fn fetch(&self, places: Vec<(LogPosition, Body)>) -> Result<Vec<Option<Bytes>>, String> {
        let group = self.group;
        let mut bodies = Vec::with_capacity(places.len());
        for (at, body) in places {
            let len = match body {
                Body::Here(bytes) => {
                    bodies.push(Some(bytes));
                    continue;
                }
                Body::Elided { .. } => {
                    bodies.push(None);
                    continue;
                }
                Body::InLane { len } => len,
            };
            if let Some(bytes) = self.lane.body_in_memory(group, at.index, at.term) {
                bodies.push(Some(bytes));
                continue;
            }
            let lane = self.lane.clone();
            let read = move || lane.body(group, at.index, Some(at.term), 0..u64::from(len));
            bodies.push(match self.blocking.run(read).await.map_err(|error| error.to_string())? {
                Ok(bytes) => Some(bytes),
                Err(LaneError::Elided { .. }) => None,
                Err(error) => {
                    if matches!(error, LaneError::Damaged(_) | LaneError::Io(_)) {
                        mirror::note(&self.damaged, BlockAddress { group, index: at.index });
                    }
                    return Err(error.to_string());
                }
            });
        }
        Ok(bodies)
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = Rows;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Error> {
        let class = if rpc.entries.is_empty() { Class::Urgent } else { Class::Bulk };
        let Append { call, bodies, permit: _held } = self.source.append(self.to, &rpc).await.map_err(unreachable)?;
        let request = self.message(method::APPEND, encode(&call), bodies);
        let answer = self.call(class, request, option.soft_ttl()).await?;
        match decode("append answer", &answer.head).map_err(|error| malformed(&error))? {
            AppendAnswer::Flushed(_) => Ok(AppendEntriesResponse::Success),
            AppendAnswer::Partly(upto) => Ok(AppendEntriesResponse::PartialSuccess(upto.map(log_id))),
            AppendAnswer::Conflict(_) => Ok(AppendEntriesResponse::Conflict),
            AppendAnswer::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
            AppendAnswer::Stopped => Err(unreachable("the group has stopped there")),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Error>>, Error>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.purpose == Purpose::Heartbeats {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // openraft's back-off is in the making of a request. A stream that cannot be opened before one was taken is tried
            // again at once: a peer that is down would cost a processor, and the writes of the others three times their time.
            let mut input = input;
            let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
            let input = stream::iter([request]).chain(input);
            let first = self.message(method::APPEND_STREAM, Bytes::new(), Vec::new());
            let open = self.wire.open(&self.peer, Class::Bulk, first);
            let stream = match tokio::time::timeout(option.soft_ttl().max(Duration::from_secs(1)), open).await {
                Ok(stream) => stream.map_err(|error| wire_error(&error))?,
                Err(_) => return Err(unreachable(format!("{} did not open a stream", self.peer))),
            };
            let (mut send, receive) = stream.split();
            let (source, group, to) = (self.source.clone(), self.group, self.to);
            let (held, ended) = (Held::default(), Arc::new(AtomicBool::new(false)));
            let (owed, nothing_more) = (held.clone(), Arc::clone(&ended));
            let sender = tokio::spawn(async move {
                let mut input = input;
                loop {
                    let Some(request) = input.next().await else {
                        nothing_more.store(true, Ordering::SeqCst);
                        break;
                    };
                    let Append { call, bodies, permit } = match source.append(to, &request).await {
                        Ok(append) => append,
                        Err(why) => {
                            tracing::warn!(%group, why, "a body for a peer could not be read");
                            break;
                        }
                    };
                    owed.push(permit);
                    let message = Message { method: method::APPEND_STREAM, group, head: encode(&call), bodies };
                    if send.send(message).await.is_err() {
                        break;
                    }
                }
                // Dropping the sending half tells the peer that no more comes.
            });
            let answers = Answers { receive: Some(receive), held, ended, _sender: AbortOnDrop(sender) };
            Ok(stream::unfold(answers, Answers::next).boxed())
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, Error> {
        self.ask_vote(method::VOTE, rpc, &option).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, Error> {
        self.ask_vote(method::PRE_VOTE, rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        _moment: openraft::alias::SnapshotOf<Types, Rows>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        // The rows of now, at or behind that moment: the receiver learns which.
        let (machine, record) = (Arc::clone(&self.machine), VoteRecord::from(&vote));
        let sending = rows::send(&*self.wire, machine, self.blocking, self.group, (&self.peer, self.to), record);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(Vote::from(vote))),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::from_string(error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Error> {
        let call = TransferCall {
            to: self.to,
            leader: *request.to_node_id(),
            from: VoteRecord::from(request.from_leader()),
            last: request.last_log_id().map(position),
        };
        let request = self.message(method::TRANSFER, encode(&call), Vec::new());
        self.call(Class::Urgent, request, option.soft_ttl()).await?;
        Ok(Ok(()))
    }
}

/// The answers of one append stream, and the task that feeds it.
struct Answers {
    /// Gone after the last answer.
    receive: Option<Box<dyn raft_types::Stream>>,
    /// Requests that are owed an answer.
    held: Held,
    /// openraft has nothing more to send: with no answer owed, an end is an end.
    ended: Arc<AtomicBool>,
    _sender: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answers {
    async fn next(mut self) -> Option<(Result<StreamAppendResult<Types>, Error>, Self)> {
        let receive = self.receive.as_mut()?;
        let answer = match receive.receive().await {
            Ok(Some(message)) => decode("append answer", &message.head).map_err(|error| malformed(&error)),
            Ok(None) if self.ended.load(Ordering::SeqCst) && self.held.len() == 0 => {
                self.receive = None;
                return None;
            }
            // Without an error openraft would go on with the last order of its core, though that may have failed, and the
            // core may have purged what it names and decided on a snapshot: reading what is purged ends the group.
            Ok(None) => Err(unreachable("the peer takes no entries now")),
            Err(error) => Err(wire_error(&error)),
        };
        let result = match answer {
            Ok(AppendAnswer::Flushed(upto) | AppendAnswer::Partly(upto)) => Ok(Ok(upto.map(log_id))),
            Ok(AppendAnswer::Conflict(at)) => Ok(Err(StreamAppendError::Conflict(log_id(at)))),
            Ok(AppendAnswer::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(vote.into()))),
            Ok(AppendAnswer::Stopped) => Err(unreachable("the group has stopped there")),
            Err(error) => Err(error),
        };
        match result {
            Ok(Ok(_)) => self.held.pop(),
            _ => {
                self.receive = None;
                self.held.clear();
            }
        }
        Some((result, self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that the peer has ended.
    struct Ended;

    impl raft_types::Stream for Ended {
        fn send(&mut self, _: Message) -> BoxFuture<'_, Result<(), WireError>> {
            Box::pin(async { Ok(()) })
        }
        fn receive(&mut self) -> BoxFuture<'_, Result<Option<Message>, WireError>> {
            Box::pin(async { Ok(None) })
        }
        fn split(self: Box<Self>) -> (Box<dyn raft_types::Stream>, Box<dyn raft_types::Stream>) {
            (Box::new(Self), self)
        }
    }

    #[tokio::test]
    async fn an_append_stream_that_ends_with_answers_owed_is_an_error_and_ends_then() {
        let answers = |ended, owed| {
            let held = Held::default();
            (0..owed).for_each(|_| held.push(None));
            Answers {
                receive: Some(Box::new(Ended)),
                held,
                ended: Arc::new(AtomicBool::new(ended)),
                _sender: AbortOnDrop(tokio::spawn(async {})),
            }
        };
        assert!(answers(true, 0).next().await.is_none());
        for (ended, owed) in [(false, 0), (true, 1), (false, 1)] {
            let (answer, rest) = answers(ended, owed).next().await.expect("an error");
            assert!(matches!(answer, Err(RPCError::Unreachable(_))), "{answer:?}");
            assert!(rest.next().await.is_none());
        }
    }
}
