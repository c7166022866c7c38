//! From a data folder to a ready node: join or resume, the meta group, the data groups.
//!
//! | the process dies… | the next start |
//! |---|---|
//! | before `identity.json` has a cluster id | is blank again; nobody counted on it, or `JOIN` gives the same raft id again (same uuid) |
//! | after the founder's identity is written, before the meta group is initialised | initialises it then: identity 1 with an empty log |
//! | with a hole in its log | see `suspect.rs` |
//! | after that, before `Bootstrap` is committed | proposes it again; it is idempotent |
//! | between two data groups | goes on with the table of groups that the meta group holds |

use crate::{
    identity::random,
    node::{Node, PeerView},
    replace::ReplaceError,
    rpc::{Hello, Join, Joined, Rejoin, method},
    types::{decode, encode},
};
use bytes::Bytes;
use futures::future::join_all;
use openraft::impls::BasicNode;
use raft_placement::{Decision, MetaCommand, MetaState, Own, Registration, Seen, Situation, decide};
use raft_types::{Class, Command, GroupId, Message, NodeId, Propose, Versioned};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

/// Between two looks at the peers while a cluster forms.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one peer may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(1);
/// Between two lines that say who is missing.
const SAY_EVERY: Duration = Duration::from_secs(30);

impl Node {
    /// The life of the node up to ready, and the data groups that come later.
    pub(crate) async fn life(self: Arc<Self>) {
        let id = self.join().await;
        if let Err(error) = self.open_group(GroupId::META, id).await {
            return self.fail(error.to_string());
        }
        if id == MetaState::FOUNDER {
            self.found().await;
        }
        self.spawn(|node| node.register());
        self.spawn(|node| node.follow_members(id));
        let mut meta = self.meta.watch();
        let mut said_ready = false;
        loop {
            let state = meta.borrow_and_update().clone();
            if let Err(error) = self.open_data_groups(&state, id).await {
                return self.fail(error.to_string());
            }
            if !said_ready && state.group_count() > 0 {
                self.set_phase("catching up");
                self.caught_up().await;
                self.set_phase("ready");
                self.set_ready(true);
                said_ready = true;
            }
            if meta.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells the wire who the members are, and ends this node when it is none of them any more. A task of its own: opening
    /// groups and catching up may have to wait for members whose addresses only a newer state of the meta group says.
    async fn follow_members(self: Arc<Self>, id: NodeId) {
        let mut meta = self.meta.watch();
        loop {
            let state = meta.borrow_and_update().clone();
            if let Some(why) = self.may_not_go_on(&state, id) {
                return self.fail(why);
            }
            self.addresses.send_if_modified(|known| {
                let members = state.addresses();
                let changed = *known != members;
                *known = members;
                changed
            });
            if meta.changed().await.is_err() {
                return;
            }
        }
    }

    /// Why this node may not take part any more, if the meta group says so.
    fn may_not_go_on(&self, state: &MetaState, id: NodeId) -> Option<String> {
        if state.cluster_id().is_some() && state.name_of(id).is_some() && state.node(id).is_none() {
            return Some(self.member_no_more());
        }
        let others: Vec<&str> = state
            .nodes()
            .filter(|(other, node)| !node.retired && *other != id)
            .map(|(_, node)| node.registration.name.as_str())
            .collect();
        (self.options.peers.len() <= 1 && !others.is_empty()).then(|| {
            format!(
                "this node forms a cluster with {}: start it with --peers, which names this node and at least one of them",
                others.join(", ")
            )
        })
    }

    /// What is said when the cluster goes on without this node, whether its own rows tell it or a peer does.
    fn member_no_more(&self) -> String {
        format!(
            "{} was removed from the cluster, or its disk was replaced by a newer node: move the data folder away, it is \
             not needed any more; to join again, start with an empty one",
            self.name()
        )
    }

    /// Tells the cluster where this node is, at each start: it may have moved, or have been alone before.
    async fn register(self: Arc<Self>) {
        let own = self.registration();
        if own.address.is_empty() {
            return;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let state = self.meta.state();
            let Some(id) = self.raft_id() else { continue };
            if state.cluster_id().is_none() {
                continue;
            }
            if state.node(id).is_some_and(|node| node.registration == own) {
                return;
            }
            match self.propose_to_meta(MetaCommand::Register(own.clone())).await {
                Ok(_) => return,
                Err(ReplaceError::Refused(why)) => return self.fail(why),
                Err(error @ ReplaceError::Undecided(_)) => {
                    tracing::debug!(%error, "the cluster does not know yet where this node is");
                }
            }
        }
    }

    /// The raft id of this node: from its identity, or by founding or joining a cluster.
    async fn join(&self) -> NodeId {
        if let Some(id) = self.identity.borrow().raft_id.filter(|_| self.identity.borrow().is_member()) {
            return id; // whether it was replaced meanwhile, the peers say when they are asked how they are
        }
        if self.identity.borrow().replaces.is_some()
            && let Err(error) = self.give_up_log().await
        {
            self.fail(format!("the log has a hole, and could not be brought in order: {error}"));
            std::future::pending::<()>().await;
        }
        let mut said = None;
        let mut before = BTreeMap::new();
        loop {
            let situation = self.situation(std::mem::take(&mut before)).await;
            match decide(&situation) {
                // It belongs to a cluster, and only lost its raft id.
                Decision::Initialise if self.identity.borrow().replaces.is_some() => {
                    self.set_phase("waiting: for a member of the cluster, to join it again");
                }
                Decision::Initialise => {
                    let cluster_id = random(&*self.seed);
                    if self.become_member(cluster_id, MetaState::FOUNDER).await {
                        return MetaState::FOUNDER;
                    }
                }
                Decision::Join { cluster_id } => match self.ask_to_join(&situation, cluster_id).await {
                    Ok(id) if self.become_member(Uuid::from_bytes(cluster_id), id).await => return id,
                    Ok(_) => {}
                    Err(why) => self.set_phase(format!("joining: {why}")),
                },
                Decision::WaitFor(reasons) => {
                    let reasons = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    let now = self.clock.now();
                    if said.is_none_or(|(at, _)| now.saturating_sub(at) >= SAY_EVERY)
                        || said.as_ref().is_some_and(|(_, old): &(Duration, usize)| *old != reasons.len())
                    {
                        tracing::info!(reasons, "waiting to form the cluster");
                        said = Some((now, reasons.len()));
                    }
                    *self.phase.lock() = format!("waiting: {reasons}");
                }
                Decision::Resume => self.set_phase("resuming"),
                Decision::Refuse(why) => self.set_phase(format!("refused: {why}")),
            }
            before = situation.peers;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What the own disk and the peers say now; the latter said `before` at the last look.
    async fn situation(&self, before: BTreeMap<String, Seen>) -> Situation {
        let own = match self.identity.borrow().cluster_id.filter(|_| self.identity.borrow().is_member()) {
            Some(id) => Own::Member { cluster_id: id.into_bytes(), removed: false },
            None => Own::Blank,
        };
        let others: Vec<&String> = self.options.peers.keys().filter(|name| *name != self.name()).collect();
        let answers = join_all(others.iter().map(|peer| self.hello_of(peer))).await;
        let peers: BTreeMap<String, Seen> = others
            .into_iter()
            .zip(answers)
            .map(|(name, hello)| {
                let seen = match hello {
                    None => Seen::Silent,
                    Some(Hello { cluster_id: None, node_uuid, .. }) => Seen::Blank { node_uuid },
                    Some(Hello { cluster_id: Some(cluster_id), .. }) => Seen::Member { cluster_id },
                };
                (name.clone(), seen)
            })
            .collect();
        Situation {
            name: self.name().into(),
            own,
            expected: self.options.peers.keys().cloned().collect(),
            peers,
            before,
            single_allowed: true,
        }
    }

    pub(crate) async fn hello_of(&self, peer: &str) -> Option<Hello> {
        let request = Message { method: method::HELLO, group: GroupId::META, head: Bytes::new(), bodies: Vec::new() };
        let answer =
            tokio::time::timeout(HELLO_WITHIN, self.wire.call(peer, Class::Urgent, request)).await.ok()?.ok()?;
        let hello: Hello = decode("hello", &answer.head).ok()?;
        let view = PeerView { at: self.clock.now(), declines: hello.declines, missing: hello.missing };
        self.peers.lock().insert(peer.to_owned(), view);
        let own = self.identity.borrow().node_uuid.into_bytes();
        if hello.retired.contains(&own) {
            tracing::warn!(peer, "a peer says that this node is a member no more");
            self.fail(self.member_no_more());
        }
        Some(hello)
    }

    async fn ask_to_join(&self, situation: &Situation, cluster_id: [u8; 16]) -> Result<NodeId, String> {
        let registration = self.registration();
        let (known, replaces) = {
            let identity = self.identity.borrow();
            (identity.cluster_id.map(Uuid::into_bytes), identity.replaces)
        };
        if replaces.is_some() && known != Some(cluster_id) {
            return Err("the peers belong to another cluster than this data folder: look at --peers".into());
        }
        let (method, head) = match replaces {
            None => (method::JOIN, encode(&Join { registration })),
            Some(replaces) => (method::REJOIN, encode(&Rejoin { registration, replaces })),
        };
        let mut why = String::from("no member answers");
        for (peer, seen) in &situation.peers {
            if *seen != (Seen::Member { cluster_id }) {
                continue;
            }
            let request = Message { method, group: GroupId::META, head: head.clone(), bodies: Vec::new() };
            match tokio::time::timeout(Duration::from_secs(10), self.wire.call(peer, Class::Bulk, request)).await {
                Ok(Ok(answer)) => {
                    let joined: Joined = decode("joined", &answer.head).map_err(|error| error.to_string())?;
                    if joined.cluster_id == cluster_id {
                        return Ok(joined.id);
                    }
                    why = format!("{peer} belongs to another cluster by now");
                }
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = format!("{peer} did not answer"),
            }
        }
        Err(why)
    }

    pub(crate) fn registration(&self) -> Registration {
        let identity = self.identity.borrow();
        Registration {
            name: identity.name.clone(),
            node_uuid: identity.node_uuid.into_bytes(),
            incarnation: identity.incarnation,
            address: self.options.peers.get(&identity.name).cloned().unwrap_or_default(),
        }
    }

    /// Writes the identity, durably, before the first vote under it; before that, a first segment, so that a member whose
    /// log is gone as a whole is known for what it is.
    async fn become_member(&self, cluster_id: Uuid, id: NodeId) -> bool {
        let mut identity = self.identity.borrow().clone();
        identity.cluster_id = Some(cluster_id);
        identity.raft_id = Some(id);
        identity.replaces = None;
        self.lane.set_cluster_id(cluster_id.into_bytes());
        if let Err(error) = crate::log_store::durably(|done| self.lane.found(done)).await {
            self.fail(format!("the first segment of the log could not be written: {error}"));
            return false;
        }
        let (store, saved) = (Arc::clone(&self.store), identity.clone());
        match self.options.blocking().run(move || saved.save(&*store)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.fail(error.to_string());
                return false;
            }
            Err(_) => return false,
        }
        tracing::info!(%cluster_id, raft_id = %id, "member of the cluster");
        self.identity.send_replace(identity);
        true
    }

    /// The founder's part: a meta group of one, and the first command in it.
    async fn found(&self) {
        let Some(meta) = self.group(GroupId::META) else { return };
        let empty = self.lane.state(GroupId::META);
        if empty.vote.is_none() && empty.last.is_none() {
            let members = BTreeMap::from([(MetaState::FOUNDER.0, BasicNode::new(self.name()))]);
            if let Err(error) = meta.raft.initialize(members).await {
                return self.fail(format!("the meta group could not be initialised: {error}"));
            }
        }
        let Some(cluster_id) = self.identity.borrow().cluster_id else { return };
        let command = MetaCommand::Bootstrap { cluster_id: cluster_id.into_bytes(), founder: self.registration() };
        while self.meta.state().cluster_id().is_none() {
            let command = Command { head: command.encode(), body: Bytes::new() };
            if let Err(error) = self.propose(GroupId::META, command, Duration::from_secs(5)).await {
                // A founder that comes back to a grown meta group waits for its majority here.
                tracing::debug!(%error, "the cluster is not bootstrapped yet");
            }
        }
    }

    /// Opens all groups, since every node has the rows of all; the preferred node initialises a new one.
    async fn open_data_groups(&self, state: &MetaState, id: NodeId) -> Result<(), crate::StartError> {
        for (group_id, placement) in state.groups() {
            if *group_id == GroupId::META || self.group(*group_id).is_some() {
                continue;
            }
            let known = self.lane.state(*group_id);
            let group = self.open_group(*group_id, id).await?;
            let new = known.vote.is_none() && known.last.is_none();
            if new && placement.preferred() == Some(id) && !placement.moved {
                let members: BTreeMap<u64, BasicNode> = placement
                    .replicas
                    .iter()
                    .map(|id| (id.0, BasicNode::new(state.name_of(*id).unwrap_or_default())))
                    .collect();
                if let Err(error) = group.raft.initialize(members).await {
                    return Err(crate::StartError::Group { group: *group_id, why: error.to_string() });
                }
            } else if placement.replicas == [id] && group.raft.trigger().elect(false).await.is_err() {
                tracing::debug!(%group_id, "the only voter waits for its time-out"); // alone: nobody to wait for otherwise
            }
        }
        Ok(())
    }

    /// Returns once every group here has a leader, and what it had committed by then is applied.
    async fn caught_up(&self) {
        for group in self.all_groups() {
            loop {
                if self.stopping() {
                    return;
                }
                if self.read_index(vec![group.id]).await.is_ok() {
                    break;
                }
            }
        }
    }
}
