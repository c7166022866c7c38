//! One node: its groups, and the tasks around them.
//!
//! ```text
//!   start ─► life: join or resume ─► meta group ─► data groups as the meta group says ─► ready
//!              │
//!              ├─ reconcile   leaders: members as wanted
//!              ├─ place       the meta leader: the table of groups, as nodes come and go
//!              ├─ mirror      bodies that rows from a snapshot name, pulled from peers
//!              ├─ retain      what of the log is kept
//!              ├─ care        scrub, mending and compaction of the disk
//!              ├─ keeper      leaders back to where they are preferred; hung disk; failed group
//!              └─ reader      read index, one round at a time
//! ```

use crate::{
    bodies::Bodies,
    catch_up::CatchUp,
    heads::Heads,
    identity::Identity,
    machine::{Applier, GroupMachine, Progress, Sink},
    meta::MetaHolder,
    metrics::Metrics,
    options::NodeOptions,
    read_index::ReadIndex,
    serve::Server,
    transport::Network,
    types::Types,
};
use openraft::{Instant as _, Raft, async_runtime::watch::WatchReceiver};
use parking_lot::{Mutex, RwLock};
use raft_lanes::{Lane, Sabotage};
use raft_types::{Applied, ByteBudget, Clock, Disk, GroupId, NodeId, Seed, Serve, StateMachine, Wire};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a node does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log of a member is gone as a whole: under its raft id it would have forgotten its votes and what it acknowledged.
    #[error(
        "the log of this node is gone, but identity.json says that it is member {0} of a cluster: restore log/ from a copy of \
         the same time, or move the data folder away and let the node be replaced"
    )]
    LogGone(NodeId),
    /// The catalogue did not answer, or is ahead of the log.
    #[error("{0}")]
    Catalogue(String),
    /// A group could not be opened.
    #[error("group {group} could not start: {why}")]
    Group {
        /// The group.
        group: GroupId,
        /// Why.
        why: String,
    },
    /// A thread or a metric could not be made.
    #[error("could not start the node: {0}")]
    Other(String),
}

/// One group on this node.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) raft: Raft<Types, GroupMachine>,
    pub(crate) progress: Progress,
    pub(crate) bodies: Arc<Bodies>,
}

/// What a leader says of its group, without asking its core.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub(crate) term: u64,
    pub(crate) leads: bool,
    /// Raft id of the leader, if one is known.
    pub(crate) leader: Option<u64>,
    /// Raft id → name of the voters.
    pub(crate) voters: BTreeMap<u64, String>,
    /// Names of the learners.
    pub(crate) learners: Vec<String>,
    /// The sets of voters that must each agree: one, or two while the membership changes (Raft §6).
    pub(crate) configs: Vec<BTreeSet<u64>>,
    /// As leader: how long ago a majority acknowledged it.
    pub(crate) quorum_age: Option<Duration>,
}

impl Group {
    pub(crate) fn role(&self) -> Role {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters = membership
            .voter_ids()
            .map(|id| (id, membership.get_node(&id).map_or_else(String::new, |node| node.addr.clone())))
            .collect();
        Role {
            term: metrics.current_term,
            leads: metrics.state == openraft::ServerState::Leader,
            leader: metrics.current_leader,
            voters,
            learners: membership
                .learner_ids()
                .map(|id| membership.get_node(&id).map_or_else(String::new, |node| node.addr.clone()))
                .collect(),
            configs: membership.get_joint_config().clone(),
            quorum_age: metrics.last_quorum_acked.as_ref().map(|at| at.elapsed()),
        }
    }

    /// Raft ids of all members, learners included.
    pub(crate) fn members(&self) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, _)| *id).collect()
    }

    /// Whether this node leads, in the words of the newest metrics.
    pub(crate) fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == openraft::ServerState::Leader
    }
}

/// What is known of a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerView {
    /// When it was last heard from.
    pub(crate) at: Duration,
    /// Whether it wants no leadership.
    pub(crate) declines: bool,
    /// Bytes of bodies that it still pulls; none when it is complete.
    pub(crate) missing: Option<u64>,
}

/// Bodies that are pulled or repaired at one time, in bytes.
const REPAIR_BYTES_MAX: u64 = 64 << 20;

/// A node. Cheap to clone through its `Arc`.
pub struct Node {
    pub(crate) options: NodeOptions,
    pub(crate) lane: Lane,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: Arc<dyn Seed>,
    pub(crate) store: Arc<dyn Disk>,
    pub(crate) identity: watch::Sender<Identity>,
    pub(crate) groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    pub(crate) meta: Arc<MetaHolder>,
    pub(crate) metrics: Metrics,
    pub(crate) phase: Mutex<String>,
    pub(crate) reading: ReadIndex,
    pub(crate) disk_full: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) peers: Mutex<BTreeMap<String, PeerView>>,
    pub(crate) machine: Arc<dyn StateMachine>,
    /// Places for rows that come in.
    pub(crate) incoming: Semaphore,
    /// Memory for bodies that are pulled.
    pub(crate) repair_budget: ByteBudget,
    /// What is read for peers that lag.
    pub(crate) catch_up: Arc<CatchUp>,
    pub(crate) next_pull: Mutex<Duration>,
    /// Turns of those who verify objects on this disk.
    pub(crate) verifying: Semaphore,
    /// Installs of rows, begun and ended: changed means that a look for incomplete groups is not to be trusted.
    pub(crate) installs: AtomicU64,
    /// Bytes of bodies that are still pulled from peers.
    pub(crate) missing: Mutex<Option<u64>>,
    /// Empty disks that ask to join under a known name: name → disk, and since when.
    pub(crate) asking: Mutex<BTreeMap<String, ([u8; 16], Duration)>>,
    /// Bodies here that failed their checksum and wait for a peer's copy.
    pub(crate) damaged: crate::mirror::Damaged,
    /// Where heads of the log are had that are damaged here.
    pub(crate) heads: Arc<Heads>,
    /// Scrub and compaction: what is ordered, and what is known.
    pub(crate) care: crate::upkeep::Care,
    /// Segments whose compaction gave little, and when.
    pub(crate) tried: Mutex<BTreeMap<u64, Duration>>,
    /// Where the members of the cluster are, as they registered.
    pub(crate) addresses: watch::Sender<BTreeMap<String, String>>,
    /// Whether the meta group's documents are those of now, and not of the last time this node ran.
    pub(crate) knows_documents: AtomicBool,
    applier: Arc<Applier>,
    pub(crate) applied_at_start: BTreeMap<GroupId, Applied>,
    ready: watch::Sender<bool>,
    fatal: watch::Sender<Option<String>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Node {
    /// Starts the node and returns; it joins its cluster in the background, for as long as that takes.
    ///
    /// `machine` holds the rows, `lane` the log, `store` the folder of `identity.json`.
    pub async fn start(
        options: NodeOptions,
        lane: Lane,
        wire: Arc<dyn Wire>,
        machine: Arc<dyn StateMachine>,
        clock: Arc<dyn Clock>,
        seed: Arc<dyn Seed>,
        store: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, StartError> {
        if let Some(id) = options.identity.raft_id.filter(|_| options.identity.is_member())
            && lane.status().segments == 0
            && !options.has(Sabotage::WipedMemberGoesOn)
        {
            return Err(StartError::LogGone(id));
        }
        if let Some(why) = lane.suspect() {
            if options.identity.is_member() && options.peers.len() > 1 {
                return Err(StartError::Other(format!(
                    "{why}: under its raft id the node might contradict what it said; its identity must be settled first"
                )));
            }
            tracing::error!(why, "the log of this node is damaged: what verifies is served");
        }
        let metrics = Metrics::register(&options.registry).map_err(|error| StartError::Other(error.to_string()))?;
        let applied = {
            let machine = Arc::clone(&machine);
            let ask = options.blocking().run(move || machine.applied()).await;
            let answer = ask.map_err(|error| StartError::Other(error.to_string()))?;
            answer.map_err(|error| StartError::Catalogue(crate::machine::chain(&error)))?
        };
        let applied_at_start: BTreeMap<GroupId, Applied> = applied.into_iter().collect();
        let (incomplete, care) = {
            let (machine, store) = (Arc::clone(&machine), Arc::clone(&store));
            let look = move || {
                crate::rows::remove_spools(&*store).map_err(|error| format!("remove old spool files: {error}"))?;
                let care = crate::upkeep::Care::load(&*store).map_err(|error| format!("read scrub.json: {error}"))?;
                let incomplete = machine.incomplete().map_err(|error| crate::machine::chain(&error))?;
                Ok::<_, String>((incomplete, care))
            };
            let answer = options.blocking().run(look).await.map_err(|error| StartError::Other(error.to_string()))?;
            answer.map_err(StartError::Catalogue)?
        };
        for (group, applied) in &applied_at_start {
            let last = lane.state(*group).last;
            // A log that had a hole is given up before any group is opened.
            if options.identity.replaces.is_some() || lane.suspect().is_some() {
                continue;
            }
            // Apply waits for the log to be durable, so this can only be a log of another time (trap 10), or a death
            // between the import of rows and the purge of the log, which openraft makes up for.
            if incomplete.contains(group) {
                continue;
            }
            if applied.position.is_some_and(|applied| last.is_none_or(|last| last.index < applied.index)) {
                return Err(StartError::Catalogue(format!(
                    "the catalogue has applied {group} up to {:?}, but the log ends at {last:?}: the log has lost what this \
                     node acknowledged, so it may not go on under its name; in a cluster let the node be replaced, else \
                     restore log/ from a copy of the same time",
                    applied.position
                )));
            }
        }
        let applier = Applier::start(Arc::clone(&machine), options.inline, metrics.apply_seconds.clone())
            .map_err(|error| StartError::Other(error.to_string()))?;
        let (meta, stop) = (MetaHolder::new(), CancellationToken::new());
        let heads = Heads::new(
            lane.clone(),
            Arc::clone(&wire),
            Arc::clone(&meta),
            options.identity.name.clone(),
            options.peers.keys().cloned().collect(),
            stop.clone(),
        );
        let node = Arc::new(Self {
            lane,
            wire,
            clock,
            seed,
            store,
            identity: watch::channel(options.identity.clone()).0,
            groups: RwLock::new(BTreeMap::new()),
            meta,
            metrics,
            phase: Mutex::new("starting".into()),
            reading: ReadIndex::new(),
            disk_full: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            peers: Mutex::new(BTreeMap::new()),
            machine,
            incoming: Semaphore::new(crate::rows::INCOMING_MAX),
            repair_budget: ByteBudget::new(REPAIR_BYTES_MAX),
            catch_up: Arc::default(),
            next_pull: Mutex::new(Duration::ZERO),
            verifying: Semaphore::new(crate::verify::AT_ONCE),
            installs: AtomicU64::new(0),
            missing: Mutex::new((!incomplete.is_empty()).then_some(0)),
            asking: Mutex::new(BTreeMap::new()),
            damaged: crate::mirror::Damaged::default(),
            heads,
            care,
            tried: Mutex::new(BTreeMap::new()),
            addresses: watch::channel(BTreeMap::new()).0,
            knows_documents: AtomicBool::new(false),
            applier,
            applied_at_start,
            ready: watch::channel(false).0,
            fatal: watch::channel(None).0,
            stop,
            tasks: TaskTracker::new(),
            options,
        });
        node.spawn(Self::life);
        node.spawn(Self::reconcile);
        node.spawn(Self::place);
        node.spawn(Self::keep);
        node.spawn(Self::serve_read_index);
        node.spawn(Self::mirror);
        node.spawn(Self::retain);
        node.spawn(Self::care);
        Ok(node)
    }

    /// Runs `task` until the node stops; the node waits for it then.
    pub(crate) fn spawn<F>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        let task = task(Arc::clone(self));
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// What the wire calls when a peer calls.
    #[must_use]
    pub fn serve(self: &Arc<Self>) -> Arc<dyn Serve> {
        Arc::new(Server::new(Arc::clone(self)))
    }

    /// True once the node has joined and caught up, false again while it drains.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Set when a disk or a group has failed: the process must end, its peers go on.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// The identity, as it is completed by joining.
    #[must_use]
    pub fn identity(&self) -> watch::Receiver<Identity> {
        self.identity.subscribe()
    }

    /// Names and addresses of the members of the cluster, this one included, as they registered last; empty until that is
    /// known. The wire is to follow it.
    #[must_use]
    pub fn addresses(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.addresses.subscribe()
    }

    /// Whether this node leads the meta group: what one node only should do, this one does.
    #[must_use]
    pub fn is_meta_leader(&self) -> bool {
        self.group(GroupId::META).is_some_and(|meta| self.led_by_a_majority(&meta))
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }

    pub(crate) fn fail(&self, why: String) {
        self.fatal.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                tracing::error!(why, "this node has failed");
                *known = Some(why);
            }
            first
        });
    }

    pub(crate) fn set_phase(&self, phase: impl Into<String>) {
        let phase = phase.into();
        let mut known = self.phase.lock();
        if *known != phase {
            tracing::info!(phase, "phase");
            *known = phase;
        }
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<Group>> {
        self.groups.read().get(&id).cloned()
    }

    pub(crate) fn all_groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().cloned().collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.options.identity.name
    }

    pub(crate) fn raft_id(&self) -> Option<NodeId> {
        self.identity.borrow().raft_id
    }

    /// Whether no other node belongs to the cluster, or is to form it.
    pub(crate) fn is_alone(&self) -> bool {
        let others = self.meta.state().nodes().filter(|(_, node)| !node.retired).count();
        self.options.peers.len() <= 1 && others <= 1
    }

    /// The other nodes, as the operator and the cluster name them.
    pub(crate) fn other_names(&self) -> BTreeSet<String> {
        self.heads.other_names()
    }

    /// Whether this node should hold the bodies of `group`: it is wanted as a copy, or votes.
    pub(crate) fn keeps_bodies(&self, group: GroupId) -> bool {
        let Some(own) = self.raft_id() else { return false };
        self.meta.state().replicas(group).contains(&own) || self.votes_in(group)
    }

    /// Whether this node votes in `group`, as far as it knows.
    pub(crate) fn votes_in(&self, group: GroupId) -> bool {
        let own = self.raft_id();
        self.group(group).is_some_and(|group| group.role().voters.keys().any(|id| own == Some(NodeId(*id))))
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Name of the node with this raft id, from the meta group or the group's own membership.
    pub(crate) fn name_of(&self, role: &Role, id: u64) -> Option<String> {
        if let Some(name) = role.voters.get(&id).filter(|name| !name.is_empty()) {
            return Some(name.clone());
        }
        self.meta.state().name_of(NodeId(id)).map(str::to_owned)
    }

    /// Opens one group of this node.
    pub(crate) async fn open_group(&self, id: GroupId, raft_id: NodeId) -> Result<Arc<Group>, StartError> {
        if let Some(group) = self.group(id) {
            return Ok(group);
        }
        let failed = |why: String| StartError::Group { group: id, why };
        let sink = if id == GroupId::META {
            Sink::Meta(Arc::clone(&self.meta))
        } else {
            Sink::Data(Arc::clone(&self.applier))
        };
        let applied = if id == GroupId::META {
            Applied::default() // rebuilt from its log
        } else {
            let applied = self.applied_at_start.get(&id).cloned().unwrap_or_default();
            match self.lane.state(id).purged {
                Some(purged) if applied.position < Some(purged) => {
                    if self.is_alone() {
                        let why = format!(
                            "the catalogue is older than the log, which begins behind {purged}: restore catalog/ from a \
                             copy of the same time"
                        );
                        return Err(failed(why));
                    }
                    self.set_phase(format!("rebuilding the rows of {id} from a peer"));
                    self.rebuild_rows(id, purged).await
                }
                _ => applied,
            }
        };
        let applied = self.past_damage(id, applied).await;
        let progress = Progress::new(applied.position);
        let waits_for = (!self.options.has(Sabotage::ApplyBeforeDurable)).then(|| self.lane.clone());
        let machine = GroupMachine::new(id, waits_for, sink, progress.clone(), &applied)
            .map_err(|error| failed(error.to_string()))?;
        let blocking = self.options.blocking();
        let (wire, machine_here) = (Arc::clone(&self.wire), Arc::clone(&self.machine));
        let damaged = crate::mirror::Damaged::clone(&self.damaged);
        let bodies = Bodies::new(id, Arc::clone(&self.meta));
        let network = Network {
            wire,
            lane: self.lane.clone(),
            group: id,
            blocking,
            machine: machine_here,
            damaged,
            bodies: Arc::clone(&bodies),
            catch_up: Arc::clone(&self.catch_up),
        };
        let backing = crate::log_store::Backing { heads: Arc::clone(&self.heads), progress: progress.clone() };
        let log =
            crate::log_store::LogStore::new(self.lane.clone(), id, blocking, self.options.sabotage, Some(backing));
        let config = self.options.raft_config().validate().map_err(|error| failed(error.to_string()))?;
        let raft = Raft::new(raft_id.0, Arc::new(config), network, log, machine)
            .await
            .map_err(|error| failed(error.to_string()))?;
        bodies.watch(raft.metrics());
        let group = Arc::new(Group { id, raft, progress, bodies });
        self.groups.write().insert(id, Arc::clone(&group));
        self.metrics.hosted.set(self.groups.read().len() as i64);
        Ok(group)
    }

    /// Hands every leadership to a peer, and is not ready any more: before a planned stop.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.set_ready(false);
        self.set_phase("stopping");
        self.hand_over_all().await;
    }

    /// Stops: tasks, groups, applier; the lane and the rows are the owner's to close, in this order (trap 20).
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let groups: Vec<_> = std::mem::take(&mut *self.groups.write()).into_values().collect();
        let stopping = groups.iter().map(|group| group.raft.shutdown());
        for result in futures::future::join_all(stopping).await {
            if let Err(error) = result {
                tracing::warn!(%error, "a group did not stop in order");
            }
        }
        let applier = Arc::clone(&self.applier);
        if self.options.blocking().run(move || applier.shutdown()).await.is_err() {
            tracing::warn!("the applier did not stop in order");
        }
    }
}
