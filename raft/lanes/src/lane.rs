//! The lane as its users see it: submit records, read entries and bodies, ask for the state.

use crate::{
    LaneError, LaneOptions, OpenError, Sabotage, Writer,
    batch::Record,
    directory::{Directory, FooterRows},
    group::{Group, Pending},
    recover,
    segment::{Identity, Segment},
    writer,
};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use raft_types::{Acquire, ByteBudget, Clock, Disk, DiskSpace, GroupId, LogPosition};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

/// Called once, with the result of the `fdatasync` that covers the submission.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub position: LogPosition,
    /// What it is, in the words of the caller.
    pub kind: u8,
    /// Small bytes that every reader of the log gets.
    pub head: Bytes,
    /// Raw bytes that only [`Lane::body`] reads.
    pub body: Body,
}

/// The body of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Its bytes.
    Here(Bytes),
    /// Only its length, in bytes: other replicas keep it, or nobody any more.
    Elided(u32),
}

impl Default for Body {
    /// No body.
    fn default() -> Self {
        Self::Here(Bytes::new())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Here(bytes)
    }
}

impl Body {
    /// Bytes that the entry's body has, here or elsewhere.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an elided body is not empty, and nobody asks")]
    pub fn len(&self) -> u32 {
        match self {
            Self::Here(bytes) => bytes.len() as u32, // a body has at most 1 MiB
            Self::Elided(length) => *length,
        }
    }

    /// Whether the bytes are not here.
    #[must_use]
    pub fn is_elided(&self) -> bool {
        matches!(self, Self::Elided(_))
    }

    /// The bytes that are here: none of an elided body.
    pub(crate) fn here(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        match self {
            Self::Here(bytes) => bytes,
            Self::Elided(_) => &NONE,
        }
    }
}

/// One log entry without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinEntry {
    /// Its place.
    pub position: LogPosition,
    /// What it is, in the words of the caller.
    pub kind: u8,
    /// Small bytes.
    pub head: Bytes,
    /// How many bytes the body has.
    pub body_len: u32,
    /// Whether the entry here is without its body; a block may hold it all the same.
    pub elided: bool,
}

/// The state of one group, with everything that was submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The newest vote.
    pub vote: Option<Bytes>,
    /// The newest committed hint.
    pub committed: Option<LogPosition>,
    /// The newest purged position.
    pub purged: Option<LogPosition>,
    /// The last entry, or the last purged one.
    pub last: Option<LogPosition>,
    /// The first index that [`Lane::entries`] answers.
    pub first: u64,
}

/// A segment that is not written any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its number.
    pub sequence: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// What was found damaged in it when the lane was opened.
    pub damaged: Option<String>,
}

/// How the lane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// Age of the oldest submission that is not durable yet: a hung disk shows here.
    pub oldest_unfinished: Option<Duration>,
    /// Bytes that wait for the writer.
    pub queued_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Space on the file system, as of the last segment change or [`Lane::look_at_space`].
    pub space: DiskSpace,
    /// Bytes that can still be written: free ones and those reserved for the open segment, less what waits.
    pub room_bytes: u64,
    /// The first failure: final.
    pub failed: Option<String>,
}

/// A cheap handle of one lane.
#[derive(Clone)]
pub struct Lane {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("status", &self.status()).finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) wake: Condvar,
    pub(crate) budget: ByteBudget,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Held while a segment is rewritten: one at a time.
    pub(crate) rewriting: Mutex<()>,
    pub(crate) sabotage: Option<Sabotage>,
    stepped: Mutex<Option<writer::LaneWriter>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct State {
    pub(crate) queue: VecDeque<Job>,
    pub(crate) queued_bytes: u64,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) segments: BTreeMap<u64, Held>,
    pub(crate) recent: Recent,
    /// Hints that ride with the next batch and cause none.
    pub(crate) lazy_committed: BTreeMap<GroupId, LogPosition>,
    pub(crate) failed: Option<String>,
    pub(crate) stopping: bool,
    pub(crate) next_ticket: u64,
    /// When the batch in work was taken from the queue.
    pub(crate) busy_since: Option<Duration>,
    pub(crate) space: DiskSpace,
    /// What the open segment still has of the space that was reserved for it.
    pub(crate) reserved_bytes: u64,
    pub(crate) identity: Identity,
    /// Where the log has a hole; none for a whole one.
    pub(crate) suspect: Option<String>,
}

/// Which entries of all groups are still in RAM, oldest first.
#[derive(Default)]
pub(crate) struct Recent {
    budget_bytes: u64,
    bytes: u64,
    order: VecDeque<(GroupId, u64, u64, u64)>,
}

impl Recent {
    /// Keeps a durable entry, and lets the oldest ones go.
    pub(crate) fn keep(&mut self, groups: &mut BTreeMap<GroupId, Group>, group: GroupId, index: u64, entry: Pending) {
        let size = (entry.head.len() + entry.body.here().len() + 128) as u64; // 128: the maps around it
        self.order.push_back((group, index, entry.ticket, size));
        self.bytes += size;
        groups.entry(group).or_default().recent.insert(index, entry);
        while self.bytes > self.budget_bytes {
            let Some((group, index, ticket, size)) = self.order.pop_front() else { break };
            self.bytes -= size;
            if let Some(own) = groups.get_mut(&group)
                && own.recent.get(&index).is_some_and(|entry| entry.ticket == ticket)
            {
                own.recent.remove(&index);
            }
        }
    }
}

/// One submission.
pub(crate) struct Job {
    pub(crate) records: Vec<Record>,
    /// Ticket of each record; 0 for those without overlay.
    pub(crate) tickets: Vec<u64>,
    pub(crate) done: Option<Done>,
    pub(crate) since: Duration,
    /// Whether a new segment is begun for it.
    pub(crate) turn: bool,
}

/// A segment and where its rows are.
pub(crate) struct Held {
    pub(crate) segment: Segment,
    pub(crate) rows: Rows,
    /// Where it ends; none while it is written.
    pub(crate) close: Option<Close>,
    /// What was found damaged at the start: it is to be rewritten.
    pub(crate) damaged: Option<String>,
}

/// Where a segment that is not written any more ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    /// Where its batches end.
    pub(crate) end: u64,
    /// Sequence and CRC of its last batch, as its successor names it.
    pub(crate) last: (u64, u32),
}

pub(crate) enum Rows {
    /// Active, or left unsealed by a crash.
    Ram(Directory),
    Footer(BTreeMap<GroupId, FooterRows>),
}

impl Lane {
    /// Opens the lane that lies on `disk`, recovering what a crash left. Reads no bodies but those of the last batch.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: LaneOptions) -> Result<Self, OpenError> {
        let recovered = recover::recover(&*disk, &options)?;
        let space = disk.space().map_err(|source| OpenError::Io { step: "ask for free space".into(), source })?;
        let state = State {
            queue: VecDeque::new(),
            queued_bytes: 0,
            groups: recovered.groups,
            segments: recovered.segments,
            recent: Recent { budget_bytes: options.cache_bytes, ..Recent::default() },
            lazy_committed: BTreeMap::new(),
            failed: None,
            stopping: false,
            next_ticket: 1,
            busy_since: None,
            space,
            reserved_bytes: 0,
            identity: options.identity,
            suspect: recovered.suspect,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            budget: ByteBudget::new(options.queue_bytes),
            disk,
            clock,
            rewriting: Mutex::new(()),
            sabotage: options.sabotage,
            stepped: Mutex::new(None),
            thread: Mutex::new(None),
        });
        let mut writer = writer::LaneWriter::new(Arc::clone(&shared), &options, recovered.next, recovered.written);
        match options.writer {
            Writer::Stepped => *shared.stepped.lock() = Some(writer),
            Writer::Thread => {
                let thread = std::thread::Builder::new()
                    .name(format!("lane-{}", options.identity.lane))
                    .spawn(move || writer.run())
                    .map_err(|source| OpenError::Io { step: "start the writer thread".into(), source })?;
                *shared.thread.lock() = Some(thread);
            }
        }
        Ok(Self { shared })
    }

    /// Whether the log had a hole when it was opened, and where: it may have lost what the node acknowledged, or a vote.
    #[must_use]
    pub fn suspect(&self) -> Option<String> {
        self.shared.state.lock().suspect.clone()
    }

    /// The node id that later segments carry, once the node was given a new one.
    pub fn set_node_uuid(&self, node_uuid: [u8; 16]) {
        self.shared.state.lock().identity.node_uuid = node_uuid;
    }

    /// The cluster id that later segments carry, once the node has joined.
    pub fn set_cluster_id(&self, cluster_id: [u8; 16]) {
        self.shared.state.lock().identity.cluster_id = cluster_id;
    }

    /// Makes sure that a segment is there; `done` is called when it is durable. A node that belongs to a cluster always
    /// has one, so that a log that is lost as a whole is noticed.
    pub fn found(&self, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        self.shared.submit(&mut state, Vec::new(), Vec::new(), Some(done));
        Ok(())
    }

    /// Ends the open segment and begins the next one, so that everything up to now can be scrubbed and rewritten; `done` is
    /// called when that is durable.
    pub fn turn(&self, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        self.shared.submit(&mut state, Vec::new(), Vec::new(), Some(done));
        if let Some(job) = state.queue.back_mut() {
            job.turn = true;
        }
        Ok(())
    }

    /// The segments that are not written any more, oldest first.
    #[must_use]
    pub fn closed_segments(&self) -> Vec<ClosedSegment> {
        let state = self.shared.state.lock();
        let closed = state.segments.iter().filter_map(|(sequence, held)| {
            let bytes = held.segment.file.len().unwrap_or(held.close?.end);
            Some(ClosedSegment { sequence: *sequence, bytes, damaged: held.damaged.clone() })
        });
        closed.collect()
    }

    /// Back-pressure: wait for a permit of `bytes` before [`Lane::append`] and hold it until `done` is called.
    pub fn reserve(&self, bytes: u64) -> Acquire {
        self.shared.budget.acquire(bytes)
    }

    /// Appends entries behind the last. They are readable when this returns, durable when `done` is called.
    pub fn append(&self, group: GroupId, entries: Vec<Entry>, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        let state = &mut *state;
        let own = state.groups.entry(group).or_default();
        let mut last = own.last.map(|last| last.index);
        for entry in &entries {
            if last.is_some_and(|last| entry.position.index != last + 1) {
                return Err(LaneError::Gap { group, last, found: entry.position.index });
            }
            last = Some(entry.position.index);
        }
        let (mut records, mut tickets) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        for Entry { position, kind, head, body } in entries {
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            own.push(position);
            let pending = Pending { term: position.term, kind, head: head.clone(), body: body.clone(), ticket };
            own.pending.insert(position.index, pending);
            records.push(Record::Entry { group, position, kind, head, body });
            tickets.push(ticket);
        }
        self.shared.submit(state, records, tickets, Some(done));
        Ok(())
    }

    /// Saves a vote; `done` also means that every earlier append of the group is durable.
    pub fn save_vote(&self, group: GroupId, vote: Bytes, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        state.groups.entry(group).or_default().vote = Some(vote.clone());
        self.shared.submit(&mut state, vec![Record::Vote { group, vote }], vec![0], Some(done));
        Ok(())
    }

    /// Keeps a hint of what is committed; it rides with the next batch.
    pub fn save_committed(&self, group: GroupId, position: LogPosition) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        state.groups.entry(group).or_default().committed = Some(position);
        state.lazy_committed.insert(group, position);
        Ok(())
    }

    /// Removes every entry behind `keep`; all of them for `None`.
    pub fn truncate_after(&self, group: GroupId, keep: Option<u64>, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        let from = keep.map_or(0, |keep| keep + 1);
        let own = state.groups.entry(group).or_default();
        own.cut(from);
        let (gone, stay) = std::mem::take(&mut own.waiters).into_iter().partition(|(index, _)| *index >= from);
        own.waiters = stay;
        self.shared.submit(&mut state, vec![Record::Truncate { group, from }], vec![0], Some(done));
        drop(state);
        let gone: Vec<(u64, Done)> = gone;
        for (_, then) in gone {
            then(Err(io::Error::other("the entry was truncated")));
        }
        Ok(())
    }

    /// The log does not need entries up to `upto` any more. Their bodies stay readable.
    ///
    /// Beyond the end, after a snapshot: what this log had behind its committed part may never have been committed at
    /// all, so it goes first. An address must not answer with the bytes of an entry that lost (L4).
    pub fn purge(&self, group: GroupId, upto: LogPosition, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        let own = state.groups.entry(group).or_default();
        let sure = own.committed.max(own.purged);
        own.purged = own.purged.max(Some(upto));
        let mut records = Vec::with_capacity(2);
        if own.last.is_none_or(|last| last.index < upto.index) {
            let from = sure.map_or(0, |sure| sure.index + 1);
            if own.last.is_some_and(|last| last.index >= from) {
                records.push(Record::Truncate { group, from });
            }
            own.cut(0);
            own.last = Some(upto);
        }
        records.push(Record::Purge { group, upto });
        let tickets = vec![0; records.len()];
        self.shared.submit(&mut state, records, tickets, Some(done));
        Ok(())
    }

    /// Keeps bodies of committed entries apart from the log: pulled from a peer, or moved out of an old segment. They
    /// can be read once `done` says that they are durable.
    pub fn append_blocks(&self, group: GroupId, blocks: Vec<(u64, Bytes)>, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        let records: Vec<_> = blocks.into_iter().map(|(index, body)| Record::Block { group, index, body }).collect();
        let tickets = vec![0; records.len()];
        self.shared.submit(&mut state, records, tickets, Some(done));
        Ok(())
    }

    /// The state of `group`, with everything submitted.
    #[must_use]
    pub fn state(&self, group: GroupId) -> GroupState {
        let state = self.shared.state.lock();
        let Some(own) = state.groups.get(&group) else { return GroupState::default() };
        GroupState {
            vote: own.vote.clone(),
            committed: own.committed,
            purged: own.purged,
            last: own.last,
            first: own.first(),
        }
    }

    /// The groups that ever wrote here.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.state.lock().groups.keys().copied().collect()
    }

    /// The newest entry that is durable with all before it.
    #[must_use]
    pub fn durable(&self, group: GroupId) -> Option<LogPosition> {
        self.shared.state.lock().groups.get(&group)?.durable()
    }

    /// Calls `then` once `index` is durable: at once if it is, with an error if it is truncated.
    pub fn on_durable(&self, group: GroupId, index: u64, then: Done) {
        let answer = {
            let mut state = self.shared.state.lock();
            if let Some(why) = &state.failed {
                Err(io::Error::other(why.clone()))
            } else {
                let own = state.groups.entry(group).or_default();
                match own.is_durable(index) {
                    Some(true) => Ok(()),
                    Some(false) => {
                        own.waiters.push((index, then));
                        return;
                    }
                    None => Err(io::Error::other(LaneError::Absent { group, index })),
                }
            }
        };
        then(answer);
    }

    /// How the lane is.
    #[must_use]
    pub fn status(&self) -> LaneStatus {
        let now = self.shared.clock.now();
        let state = self.shared.state.lock();
        let oldest = state.busy_since.or(state.queue.front().map(|job| job.since));
        LaneStatus {
            oldest_unfinished: oldest.map(|since| now.saturating_sub(since)),
            queued_bytes: state.queued_bytes,
            segments: state.segments.len(),
            space: state.space,
            room_bytes: (state.space.free_bytes + state.reserved_bytes).saturating_sub(state.queued_bytes),
            failed: state.failed.clone(),
        }
    }

    /// Asks the file system for its space, for [`LaneStatus::space`].
    pub fn look_at_space(&self) -> io::Result<DiskSpace> {
        let space = self.shared.disk.space()?;
        self.shared.state.lock().space = space;
        Ok(space)
    }

    /// [`Writer::Stepped`]: writes and syncs one batch and completes its callbacks; false if nothing waits.
    pub fn step(&self) -> bool {
        // The writer is taken out, so that a callback may submit again.
        let Some(mut writer) = self.shared.stepped.lock().take() else { return false };
        let worked = writer.step();
        *self.shared.stepped.lock() = Some(writer);
        worked
    }

    /// Writes what waits, syncs, and ends the writer.
    pub fn shutdown(&self) {
        {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            self.shared.wake.notify_all();
        }
        while self.step() {}
        self.shared.stepped.lock().take();
        let thread = self.shared.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the lane's writer thread panicked");
        }
    }
}

impl Shared {
    fn usable(&self) -> Result<parking_lot::MutexGuard<'_, State>, LaneError> {
        let state = self.state.lock();
        match &state.failed {
            Some(why) => Err(LaneError::Failed(why.clone())),
            None if state.stopping => Err(LaneError::Stopped),
            None => Ok(state),
        }
    }

    fn submit(&self, state: &mut State, records: Vec<Record>, tickets: Vec<u64>, done: Option<Done>) {
        state.queued_bytes += records.iter().map(Record::bytes).sum::<u64>();
        state.queue.push_back(Job { records, tickets, done, since: self.clock.now(), turn: false });
        self.wake.notify_one();
    }
}
