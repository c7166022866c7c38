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
//! - No snapshot is ever built: the log is not purged yet, so a node that was away catches up by log.

use crate::{
    meta::MetaHolder,
    types::{Answer, LogId, MembershipRecord, StoredMembership, Types, decode, encode, log_id, position},
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
use std::{io, sync::Arc, thread::JoinHandle, time::Instant};
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
}

impl Progress {
    pub(crate) fn new(applied: Option<LogPosition>) -> Self {
        Self { applied: Arc::new(watch::channel(applied).0) }
    }

    pub(crate) fn applied(&self) -> Option<LogPosition> {
        *self.applied.borrow()
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

/// The one applier of a node.
pub(crate) struct Applier {
    machine: Arc<dyn StateMachine>,
    /// Gone once the applier stops.
    queue: Mutex<Option<mpsc::Sender<Chunk>>>,
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
        queue.send(Chunk { entries, answer }).await.map_err(|_| "the applier is stopped")?;
        drop(queue);
        outcomes.await.map_err(|_| "the applier stopped")?
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

fn run(mut chunks: mpsc::Receiver<Chunk>, machine: &dyn StateMachine, seconds: &Histogram) {
    while let Some(first) = chunks.blocking_recv() {
        let mut entries = first.entries;
        let mut answers = vec![(entries.len(), first.answer)];
        while entries.len() < BATCH_ENTRIES_MAX {
            let Ok(next) = chunks.try_recv() else { break };
            answers.push((next.entries.len(), next.answer));
            entries.extend(next.entries);
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
        let membership = match &applied.membership {
            Some((at, bytes)) => {
                let record: MembershipRecord = decode("membership", bytes).map_err(io::Error::other)?;
                let membership = record.try_into().map_err(io::Error::other)?;
                StoredMembership::new(Some(log_id(*at)), membership)
            }
            None => StoredMembership::default(),
        };
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
                EntryPayload::Normal(block) => CommittedEntry::Command { body_len: block.body_len(), head: block.head },
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
    type SnapshotData = ();
    type SnapshotBuilder = NoSnapshot;

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

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<NoSnapshot> {
        None
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshot {
        NoSnapshot
    }

    async fn install_snapshot(
        &mut self,
        _meta: &openraft::alias::SnapshotMetaOf<Types>,
        (): (),
    ) -> Result<(), io::Error> {
        Err(io::Error::other("this release knows no snapshots; the log is complete on every node"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<openraft::alias::SnapshotOf<Types, ()>>, io::Error> {
        Ok(None)
    }
}

/// Snapshots are not built: the log is never purged.
pub(crate) struct NoSnapshot;

impl RaftSnapshotBuilder<Types> for NoSnapshot {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<Types, ()>, io::Error> {
        Err(io::Error::other("this release builds no snapshots; the log is complete on every node"))
    }
}

/// An outcome with nothing to say.
pub(crate) fn nothing() -> Bytes {
    Bytes::new()
}
