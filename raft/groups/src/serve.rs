//! What this node answers when a peer calls.

use crate::{
    node::{Group, Node, PeerView},
    propose::Attempt,
    rpc::{
        AppendAnswer, AppendCall, CompleteAnswer, CompleteCall, ConfirmAnswer, ConfirmCall, EntryCall, Hello, Join,
        Joined, ProposeAnswer, ProposeCall, ReadCall, ReadIndexAnswer, ReadIndexCall, Rejoin, TransferCall, VoteAnswer,
        VoteCall, append_request, code, method, refusal,
    },
    types::{Types, Vote, VoteRecord, decode, encode, log_id, position},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest,
};
use raft_lanes::LaneError;
use raft_placement::MetaCommand;
use raft_types::{
    BlockAddress, BoxFuture, Command, DecodeError, GroupId, Message, ProposeError, ReadError, Refusal, Serve, Stream,
};
use std::{sync::Arc, time::Duration};

/// The server's half of a node.
pub(crate) struct Server {
    node: Arc<Node>,
}

impl Server {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The group that a message is for, if this node still has the raft id that it names.
    fn group(&self, id: GroupId, to: u64) -> Result<Arc<Group>, Refusal> {
        let group = self.node.group(id).ok_or_else(|| refusal(code::NO_GROUP, format!("{id} is not open here")))?;
        if *group.raft.node_id() != to {
            return Err(refusal(code::OTHER_ID, format!("this node is {}, not {to}", group.raft.node_id())));
        }
        Ok(group)
    }

    async fn answer(&self, from: &str, request: Message) -> Result<Message, Refusal> {
        let Message { method, group, head, bodies } = request;
        let (head, bodies) = match method {
            method::HELLO => (encode(&self.hello()), Vec::new()),
            method::JOIN => (encode(&self.join(from, parse("join", &head)?).await?), Vec::new()),
            method::VOTE | method::PRE_VOTE => {
                let call: VoteCall = parse("vote", &head)?;
                (encode(&self.vote(group, call, method == method::PRE_VOTE).await?), Vec::new())
            }
            method::APPEND => {
                let call: AppendCall = parse("append", &head)?;
                (encode(&self.append(group, call, bodies).await?), Vec::new())
            }
            method::TRANSFER => {
                self.transfer(group, parse("transfer", &head)?).await?;
                (Bytes::new(), Vec::new())
            }
            method::PROPOSE => {
                let call: ProposeCall = parse("propose", &head)?;
                (encode(&self.propose(group, call, bodies).await?), Vec::new())
            }
            method::READ_INDEX => {
                let call: ReadIndexCall = parse("read index", &head)?;
                let indexes = self.node.confirmed_indexes(call.groups).await;
                (encode(&ReadIndexAnswer { indexes }), Vec::new())
            }
            method::CONFIRM => {
                let call: ConfirmCall = parse("confirm", &head)?;
                (encode(&ConfirmAnswer { confirmed: self.node.confirm(&call.terms) }), Vec::new())
            }
            method::READ => {
                let call: ReadCall = parse("read", &head)?;
                (Bytes::new(), vec![self.read(group, &call).await?])
            }
            method::REJOIN => (encode(&self.rejoin(from, parse("rejoin", &head)?).await?), Vec::new()),
            method::ENTRY => {
                let call: EntryCall = parse("entry", &head)?;
                self.entry(group, call.index).await?
            }
            method::COMPLETE => {
                let call: CompleteCall = parse("complete", &head)?;
                let own = self.group(group, call.to)?;
                let applied = own.progress.applied();
                (encode(&CompleteAnswer { complete: self.node.is_complete(group).await, applied }), Vec::new())
            }
            method::COPY => {
                let call: CompleteCall = parse("copy", &head)?;
                let own = self.group(group, call.to)?;
                (encode(&self.node.copy_of(&own).await), Vec::new())
            }
            unknown => {
                return Err(refusal(code::MALFORMED, format!("method {unknown} is not known; upgrade this node")));
            }
        };
        Ok(Message { method, group, head, bodies })
    }

    fn hello(&self) -> Hello {
        let identity = self.node.identity.borrow();
        Hello {
            name: identity.name.clone(),
            node_uuid: identity.node_uuid.into_bytes(),
            cluster_id: identity.cluster_id.map(uuid::Uuid::into_bytes),
            id: identity.raft_id,
            declines: self.node.declines(),
            missing: *self.node.missing.lock(),
            retired: self.node.meta.state().retired_disks(),
        }
    }

    async fn join(&self, from: &str, call: Join) -> Result<Joined, Refusal> {
        if call.registration.name != from {
            return Err(refusal(code::REFUSED, "a node can only register itself"));
        }
        let Some(cluster_id) = self.node.meta.state().cluster_id() else {
            return Err(refusal(code::NO_GROUP, "the cluster is not formed yet"));
        };
        let registration = call.registration;
        let command = MetaCommand::Register(registration.clone());
        match self.node.propose_to_meta(command).await {
            Ok(id) => Ok(Joined { cluster_id, id }),
            Err(why) => {
                // An empty disk under a known name, asking again and again: after a while it is believed.
                if self.node.has_asked_for_long(&registration)
                    && let Err(error) = self.node.replace(&registration.name).await
                {
                    tracing::warn!(node = registration.name, %error, "the node could not be replaced by itself");
                }
                Err(why.into())
            }
        }
    }

    async fn rejoin(&self, from: &str, call: Rejoin) -> Result<Joined, Refusal> {
        let meta = self.node.meta.state();
        // It gives up itself and nobody else.
        if call.registration.name != from || meta.name_of(call.replaces) != Some(from) {
            return Err(refusal(code::REFUSED, "a node can only replace itself"));
        }
        let Some(cluster_id) = meta.cluster_id() else {
            return Err(refusal(code::NO_GROUP, "the cluster is not formed yet"));
        };
        let command = MetaCommand::Replace { old: call.replaces, new: call.registration };
        let id = self.node.propose_to_meta(command).await.map_err(Refusal::from)?;
        Ok(Joined { cluster_id, id })
    }

    async fn vote(&self, group: GroupId, call: VoteCall, pre: bool) -> Result<VoteAnswer, Refusal> {
        let group = self.group(group, call.to)?;
        let mut request = VoteRequest::new(Vote::from(call.vote), call.last.map(log_id));
        request.leadership_transfer = call.transfer;
        let answer = if pre { group.raft.pre_vote(request).await } else { group.raft.vote(request).await };
        let answer = answer.map_err(|error| refusal(code::STOPPED, error))?;
        Ok(VoteAnswer {
            vote: VoteRecord::from(&answer.vote),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(position),
        })
    }

    async fn append(&self, group: GroupId, call: AppendCall, bodies: Vec<Bytes>) -> Result<AppendAnswer, Refusal> {
        let group = self.group(group, call.to)?;
        if !bodies.is_empty() && self.node.is_at_reserve() {
            return Err(refusal(code::DISK_FULL, "too little room for entries"));
        }
        let previous = call.previous;
        let request = append_request(call, bodies).map_err(|error| refusal(code::MALFORMED, error))?;
        let answer = group.raft.append_entries(request).await.map_err(|error| refusal(code::STOPPED, error))?;
        Ok(match answer {
            AppendEntriesResponse::Success => AppendAnswer::Flushed(None),
            AppendEntriesResponse::PartialSuccess(upto) => AppendAnswer::Partly(upto.as_ref().map(position)),
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict(previous.unwrap_or_default()),
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(VoteRecord::from(&vote)),
        })
    }

    async fn transfer(&self, group: GroupId, call: TransferCall) -> Result<(), Refusal> {
        let group = self.group(group, call.to)?;
        let request = TransferLeaderRequest::new(Vote::from(call.from), call.leader, call.last.map(log_id));
        match group.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(refusal(code::REFUSED, error)),
            Err(error) => Err(refusal(code::STOPPED, error)),
        }
    }

    async fn propose(
        &self,
        group: GroupId,
        call: ProposeCall,
        mut bodies: Vec<Bytes>,
    ) -> Result<ProposeAnswer, Refusal> {
        let Some(own) = self.node.group(group) else {
            return Err(refusal(code::NO_GROUP, format!("{group} is not open here")));
        };
        if !own.leads() {
            return Err(refusal(code::NOT_LEADER, "another node leads"));
        }
        let until = tokio::time::Instant::now() + Duration::from_millis(call.deadline_ms);
        let command = Command { head: call.head, body: bodies.pop().unwrap_or_default() };
        match self.node.write(&own, command, until).await {
            Attempt::Done(position, outcome) => Ok(ProposeAnswer { position, outcome }),
            Attempt::Nothing => Err(refusal(code::NOT_LEADER, "another node leads")),
            Attempt::Unknown => Err(refusal(code::UNKNOWN, "the outcome is not known")),
            Attempt::Refused(ProposeError::DiskFull) => Err(refusal(code::DISK_FULL, ProposeError::DiskFull)),
            Attempt::Refused(error) => Err(refusal(code::STOPPED, error)),
        }
    }

    async fn entry(&self, group: GroupId, index: u64) -> Result<(Bytes, Vec<Bytes>), Refusal> {
        let lane = self.node.lane.clone();
        let look = move || {
            let thin = lane.entries(group, index..index + 1, 0)?.pop().ok_or(LaneError::Absent { group, index })?;
            let body = match lane.body(group, index, Some(thin.position.term), 0..u64::from(thin.body_len)) {
                Ok(body) if !body.is_empty() => vec![body],
                _ => Vec::new(), // the head alone is asked for by this name; the body may be had elsewhere
            };
            Ok::<_, LaneError>((crate::scrub::entry_answer(&thin), body))
        };
        let looked = self.node.options.blocking().run(look).await.map_err(|_| refusal(code::STOPPED, "stopping"))?;
        looked.map_err(|error| match error {
            LaneError::Damaged(why) => refusal(code::DAMAGED, why),
            error => refusal(code::ABSENT, error),
        })
    }

    async fn read(&self, group: GroupId, call: &ReadCall) -> Result<Bytes, Refusal> {
        let address = BlockAddress { group, index: call.index };
        let end = match call.end {
            u64::MAX => self.node.body_len(address).await,
            end => end,
        };
        self.node.read_local(address, call.start..end).await.map_err(|error| match error {
            ReadError::Damaged { why, .. } => refusal(code::DAMAGED, why),
            error => refusal(code::ABSENT, error),
        })
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(what: &'static str, head: &'a [u8]) -> Result<T, Refusal> {
    decode(what, head).map_err(|error: DecodeError| refusal(code::MALFORMED, error))
}

impl Serve for Server {
    fn call(self: Arc<Self>, from: String, request: Message) -> BoxFuture<'static, Result<Message, Refusal>> {
        let heard = PeerView { at: self.node.clock.now(), declines: false, missing: None };
        self.node.peers.lock().entry(from.clone()).or_insert(heard).at = heard.at;
        Box::pin(async move { self.answer(&from, request).await })
    }

    fn stream(self: Arc<Self>, from: String, first: Message, stream: Box<dyn Stream>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if first.method == method::ROWS_STREAM {
                return Arc::clone(&self.node).receive_rows(from, first, stream).await;
            }
            if first.method == method::ROWS_PULL {
                return Arc::clone(&self.node).give_rows(from, first.group, stream).await;
            }
            if first.method == method::VERIFY_STREAM {
                return self.node.serve_verify(from, first, stream).await;
            }
            if first.method != method::APPEND_STREAM {
                tracing::warn!(from, method = first.method, "a stream of an unknown kind was refused");
                return;
            }
            let Some(group) = self.node.group(first.group) else { return };
            let (mut send, receive) = stream.split();
            let node = Arc::clone(&self.node);
            let requests = Requests { receive, raft_id: *group.raft.node_id(), from: from.clone(), node };
            let mut answers = Box::pin(group.raft.stream_append(stream::unfold(requests, Requests::next).boxed()));
            while let Some(answer) = answers.next().await {
                let (answer, last) = match answer {
                    Ok(answer) => stream_answer(answer),
                    Err(_) => (AppendAnswer::Stopped, true),
                };
                let message = Message {
                    method: method::APPEND_STREAM,
                    group: first.group,
                    head: encode(&answer),
                    bodies: Vec::new(),
                };
                if send.send(message).await.is_err() || last {
                    return;
                }
            }
        })
    }
}

fn stream_answer(answer: StreamAppendResult<Types>) -> (AppendAnswer, bool) {
    match answer {
        Ok(upto) => (AppendAnswer::Flushed(upto.as_ref().map(position)), false),
        Err(StreamAppendError::Conflict(at)) => (AppendAnswer::Conflict(position(&at)), true),
        Err(StreamAppendError::HigherVote(vote)) => (AppendAnswer::HigherVote(VoteRecord::from(&vote)), true),
    }
}

/// The requests of one append stream.
struct Requests {
    receive: Box<dyn Stream>,
    raft_id: u64,
    from: String,
    node: Arc<Node>,
}

impl Requests {
    async fn next(mut self) -> Option<(AppendEntriesRequest<Types>, Self)> {
        let message = self.receive.receive().await.ok()??;
        if !message.bodies.is_empty() && self.node.is_at_reserve() {
            // The leader goes on with the others, and comes back; votes and rows still find room here.
            tracing::debug!(from = self.from, "too little room for entries");
            return None;
        }
        let request = decode::<AppendCall>("append", &message.head).and_then(|call| {
            if call.to == self.raft_id { append_request(call, message.bodies) } else { Err(other_id()) }
        });
        match request {
            Ok(request) => Some((request, self)),
            Err(error) => {
                tracing::warn!(from = self.from, %error, "an append stream ended");
                None
            }
        }
    }
}

fn other_id() -> DecodeError {
    DecodeError::Malformed { what: "append", why: "it is meant for another raft id".into() }
}
