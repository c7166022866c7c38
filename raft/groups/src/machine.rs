//! openraft's state machine over the archive's: every group hands its committed entries to one applier of the node,
//! which applies what has gathered from all groups in one transaction.
//!
//! ```text
//!   group 1 ─ committed entries ─ durable here? ─┐
//!   group 2 ─ …                                  ├─► applier: one StateMachine::apply for all ─► answers
//!   group n ─ …                                  ┘
//! ```
//!
//! - Apply waits until the lane has the entries durable: on a follower `committed` may run ahead (trap 9).
//! - Every responder is answered; a refused command is an outcome, an error stops the node (trap 11).
//! - A snapshot is a moment of the rows themselves; see `rows.rs`. Installing one is in order with what is applied.

use crate::{
    meta::MetaHolder,
    rows::{Rows, Spool, meta_of},
    types::{Answer, LogId, MembershipRecord, StoredMembership, Types, encode, log_id, position},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use prometheus::Histogram;
use raft_lanes::Lane;
use raft_types::{Applied, Committed, CommittedEntry, GroupId, LogPosition, Outcome, StateMachine, StateMachineError};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Entries that one group hands over at a time: bounds what waits in RAM.
const CHUNK_ENTRIES: usize = 128;
/// Entries of one transaction, at most.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Chunks that may wait for the applier: each group has at most one on its way.
const QUEUE_CHUNKS: usize = 128;

/// How far one group has applied here; waiters watch it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    applied: Arc<watch::Sender<Option<LogPosition>>>,
    /// Heads and bodies applied since the start, in bytes.
    bytes: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn new(applied: Option<LogPosition>) -> Self {
        Self { applied: Arc::new(watch::channel(applied).0), bytes: Arc::default() }
    }

    pub(crate) fn applied(&self) -> Option<LogPosition> {
        *self.applied.borrow()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn reach(&self, position: LogPosition) {
        self.applied.send_replace(Some(position));
    }

    /// Returns once `index` is applied here.
    pub(crate) async fn until(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`, so this cannot end early.
        let _ = applied.wait_for(|applied| applied.is_some_and(|applied| applied.index >= index)).await;
    }
}

struct Chunk {
    entries: Vec<Committed>,
    answer: oneshot::Sender<Result<Vec<Outcome>, String>>,
}

/// What the applier does, in the order of its queue.
enum Work {
    Apply(Chunk),
    Install { group: GroupId, spool: Spool, answer: oneshot::Sender<Result<(), String>> },
}

/// The one applier of a node.
pub(crate) struct Applier {
    machine: Arc<dyn StateMachine>,
    /// Gone once the applier stops.
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    /// Apply where the call is made: simulation, where no second thread may be.
    inline: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Applier {
    pub(crate) fn start(machine: Arc<dyn StateMachine>, inline: bool, seconds: Histogram) -> io::Result<Arc<Self>> {
        let (queue, chunks) = mpsc::channel(QUEUE_CHUNKS);
        let thread = if inline {
            None
        } else {
            let machine = Arc::clone(&machine);
            let run = move || run(chunks, &*machine, &seconds);
            Some(std::thread::Builder::new().name("applier".into()).spawn(run)?)
        };
        let queue = Mutex::new((!inline).then_some(queue));
        Ok(Arc::new(Self { machine, queue, inline, thread: Mutex::new(thread) }))
    }

    async fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Outcome>, String> {
        if self.inline {
            return self.machine.apply(&entries).map_err(|error| chain(&error));
        }
        let (answer, outcomes) = oneshot::channel();
        let queue = self.queue.lock().clone().ok_or("the applier is stopped")?;
        queue.send(Work::Apply(Chunk { entries, answer })).await.map_err(|_| "the applier is stopped")?;
        drop(queue);
        outcomes.await.map_err(|_| "the applier stopped")?
    }

    async fn install(&self, group: GroupId, spool: Spool) -> Result<(), String> {
        if self.inline {
            return spool.import(group, &*self.machine);
        }
        let (answer, installed) = oneshot::channel();
        let queue = self.queue.lock().clone().ok_or("the applier is stopped")?;
        queue.send(Work::Install { group, spool, answer }).await.map_err(|_| "the applier is stopped")?;
        drop(queue);
        installed.await.map_err(|_| "the applier stopped")?
    }

    /// Lets what was handed over be applied, and ends the thread.
    pub(crate) fn shutdown(&self) {
        drop(self.queue.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the applier panicked");
        }
    }
}

fn run(mut queue: mpsc::Receiver<Work>, machine: &dyn StateMachine, seconds: &Histogram) {
    let mut put_back = None;
    while let Some(work) = put_back.take().or_else(|| queue.blocking_recv()) {
        let first = match work {
            Work::Apply(chunk) => chunk,
            Work::Install { group, spool, answer } => {
                // A group that is shut down does not wait for its answer.
                let _ = answer.send(spool.import(group, machine));
                continue;
            }
        };
        let mut entries = first.entries;
        let mut answers = vec![(entries.len(), first.answer)];
        while entries.len() < BATCH_ENTRIES_MAX {
            match queue.try_recv() {
                Ok(Work::Apply(next)) => {
                    answers.push((next.entries.len(), next.answer));
                    entries.extend(next.entries);
                }
                Ok(install) => {
                    put_back = Some(install);
                    break;
                }
                Err(_) => break,
            }
        }
        let started = Instant::now();
        match machine.apply(&entries) {
            Ok(outcomes) => {
                seconds.observe(started.elapsed().as_secs_f64());
                let mut outcomes = outcomes.into_iter();
                for (count, answer) in answers {
                    // A group that is shut down does not wait for its answer.
                    let _ = answer.send(Ok(outcomes.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                let why = chain(&error);
                for (_, answer) in answers {
                    let _ = answer.send(Err(why.clone()));
                }
            }
        }
    }
}

/// The error with its causes, as one line.
pub(crate) fn chain(error: &StateMachineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Where a group's committed entries go.
#[derive(Clone)]
pub(crate) enum Sink {
    /// The archive's state machine.
    Data(Arc<Applier>),
    /// The meta group's, in RAM: rebuilt from the log at each start.
    Meta(Arc<MetaHolder>),
}

/// The state machine of one group.
pub(crate) struct GroupMachine {
    group: GroupId,
    /// None: entries come from elsewhere and there is nothing to wait for (openraft's suite).
    lane: Option<Lane>,
    sink: Sink,
    progress: Progress,
    last: Option<LogPosition>,
    membership: StoredMembership,
}

impl GroupMachine {
    /// `applied` is what the state machine said at start.
    pub(crate) fn new(
        group: GroupId,
        lane: Option<Lane>,
        sink: Sink,
        progress: Progress,
        applied: &Applied,
    ) -> Result<Self, io::Error> {
        let membership = meta_of(applied).map_err(io::Error::other)?.last_membership;
        Ok(Self { group, lane, sink, progress, last: applied.position, membership })
    }

    async fn durable(&self, index: u64) -> Result<(), io::Error> {
        let Some(lane) = &self.lane else { return Ok(()) };
        let (done, durable) = oneshot::channel();
        lane.on_durable(self.group, index, Box::new(move |result| drop(done.send(result))));
        durable.await.map_err(|_| io::Error::other("the lane stopped"))?
    }

    async fn apply_chunk(&mut self, chunk: Vec<EntryResponder<Types>>) -> Result<(), io::Error> {
        let Some((last, _)) = chunk.last() else { return Ok(()) };
        let last = position(&last.log_id());
        self.durable(last.index).await?;
        let mut entries = Vec::with_capacity(chunk.len());
        let mut responders = Vec::with_capacity(chunk.len());
        for (entry, responder) in chunk {
            let at = entry.log_id();
            let said = match entry.payload {
                EntryPayload::Blank => CommittedEntry::Blank,
                EntryPayload::Normal(block) => {
                    let body_len = block.body_len();
                    self.progress.bytes.fetch_add(block.head.len() as u64 + body_len, Ordering::Relaxed);
                    CommittedEntry::Command { body_len, head: block.head }
                }
                EntryPayload::Membership(membership) => {
                    let record = encode(&MembershipRecord::from(&membership));
                    self.membership = StoredMembership::new(Some(at), membership);
                    CommittedEntry::Membership(record)
                }
            };
            entries.push(Committed { group: self.group, position: position(&at), entry: said });
            responders.push(responder);
        }
        let outcomes = match &self.sink {
            Sink::Data(applier) => applier.apply(entries).await.map_err(io::Error::other)?,
            Sink::Meta(meta) => meta.apply(&entries).map_err(io::Error::other)?,
        };
        if outcomes.len() != responders.len() {
            return Err(io::Error::other("the state machine answered another number of entries than it was given"));
        }
        self.last = Some(last);
        // Before the answers: whoever saw an answer must find it applied (read index relies on it).
        self.progress.reach(last);
        for (responder, outcome) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(Answer(outcome));
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<Types> for GroupMachine {
    type SnapshotData = Rows;
    type SnapshotBuilder = Moment;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last.map(log_id), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunk = Vec::new();
        while let Some(entry) = entries.next().await {
            chunk.push(entry?);
            if chunk.len() == CHUNK_ENTRIES {
                self.apply_chunk(std::mem::take(&mut chunk)).await?;
            }
        }
        self.apply_chunk(chunk).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Moment> {
        Some(self.moment())
    }

    async fn get_snapshot_builder(&mut self) -> Moment {
        self.moment()
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::alias::SnapshotMetaOf<Types>,
        rows: Rows,
    ) -> Result<(), io::Error> {
        match (rows, &self.sink) {
            (Rows::Spooled(spool), Sink::Data(applier)) => {
                applier.install(self.group, spool).await.map_err(io::Error::other)?;
            }
            (Rows::Here, _) => return Err(io::Error::other("a snapshot without its rows")),
            (Rows::Spooled(_), Sink::Meta(_)) => {
                return Err(io::Error::other("the meta group is rebuilt from its log and has no snapshots"));
            }
        }
        self.last = meta.last_log_id.as_ref().map(position);
        self.membership = meta.last_membership.clone();
        if let Some(last) = self.last {
            self.progress.reach(last);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<openraft::alias::SnapshotOf<Types, Rows>>, io::Error> {
        // The meta group's log is never purged, so nobody needs a snapshot of it.
        let has = self.last.is_some() && matches!(self.sink, Sink::Data(_));
        Ok(has.then(|| self.moment().snapshot()))
    }
}

impl GroupMachine {
    fn moment(&self) -> Moment {
        Moment { last: self.last, membership: self.membership.clone() }
    }
}

/// A moment of the rows, which is all that a snapshot is here.
pub(crate) struct Moment {
    last: Option<LogPosition>,
    membership: StoredMembership,
}

impl Moment {
    fn snapshot(self) -> openraft::alias::SnapshotOf<Types, Rows> {
        let meta = openraft::SnapshotMeta { last_log_id: self.last.map(log_id), last_membership: self.membership };
        openraft::Snapshot { meta, snapshot: Rows::Here }
    }
}

impl RaftSnapshotBuilder<Types> for Moment {
    type SnapshotData = Rows;

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<Types, Rows>, io::Error> {
        Ok(Self { last: self.last, membership: self.membership.clone() }.snapshot())
    }
}

/// An outcome with nothing to say.
pub(crate) fn nothing() -> Bytes {
    Bytes::new()
}
