//! The lane as its users see it: submit records, read entries and bodies, ask for the state.

use crate::{
    LaneMetrics, OpenError,
    batch::Record,
    directory::{Directory, ROW_BYTES},
    group::{Group, Pending},
    recover,
    segment::{Found, Identity, Segment, SegmentError},
    writer,
};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use raft_types::{Acquire, ByteBudget, Clock, Disk, DiskSpace, GroupId, LogPosition};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    ops::Range,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

/// Called once, with the result of the `fdatasync` that covers the submission.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Settings of a lane.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// Whose disk it is.
    pub identity: Identity,
    /// Size at which a segment is sealed, in bytes; the space is reserved beforehand.
    pub segment_bytes: u64,
    /// Bytes that may wait for the writer; see [`Lane::reserve`].
    pub queue_bytes: u64,
    /// Bytes of durable entries that stay in RAM for peers and apply, which ask for the newest at once.
    pub cache_bytes: u64,
    /// Who writes.
    pub writer: Writer,
    /// Where to count.
    pub metrics: Option<LaneMetrics>,
}

impl LaneOptions {
    /// Defaults for `identity`: segments of 1 GiB, queue and cache of 16 MiB, a writer thread.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            segment_bytes: 1 << 30,
            queue_bytes: 16 << 20,
            cache_bytes: 16 << 20,
            writer: Writer::Thread,
            metrics: None,
        }
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A thread of the lane's own.
    Thread,
    /// The owner, by [`Lane::step`]: for simulation and tests.
    Stepped,
}

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
    pub body: Bytes,
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

/// Why the lane did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// A write or `fdatasync` failed before; the process must not go on with this disk.
    #[error("the lane has failed: {0}")]
    Failed(String),
    /// The lane is shut down.
    #[error("the lane is stopped")]
    Stopped,
    /// An append that does not follow the last entry.
    #[error("{group}: entry {found} does not follow the last one, {last:?}")]
    Gap {
        /// The group.
        group: GroupId,
        /// The last index.
        last: Option<u64>,
        /// The index submitted.
        found: u64,
    },
    /// There is no such entry.
    #[error("{group}: no entry {index}")]
    Absent {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
    },
    /// The entry is of another term.
    #[error("{group}: entry {index} is of term {found}")]
    OtherTerm {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
        /// Its term here.
        found: u64,
    },
    /// The range does not lie in the body.
    #[error("{group}: the body of {index} has {length} bytes")]
    OutOfRange {
        /// The group.
        group: GroupId,
        /// The index asked for.
        index: u64,
        /// Bytes of the body.
        length: u32,
    },
    /// The bytes on the disk fail their checksum: fetch them from a peer.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The disk did not answer.
    #[error("reading failed: {0}")]
    Io(String),
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
        let size = (entry.head.len() + entry.body.len() + 128) as u64; // 128: the maps around it
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
}

/// A segment and where its rows are.
pub(crate) struct Held {
    pub(crate) segment: Segment,
    pub(crate) rows: Rows,
}

pub(crate) enum Rows {
    /// Active, or left unsealed by a crash.
    Ram(Directory),
    /// Group → first index and place of its first row.
    Footer(BTreeMap<GroupId, (u64, u64)>),
}

/// Where an entry was found, to be read after the lock is gone.
enum Place {
    Pending(Pending, u64),
    Row { segment: Segment, record_at: u64, term: u64, index: u64 },
    Footer { segment: Segment, row_at: u64, index: u64 },
}

impl Lane {
    /// Opens the lane that lies on `disk`, recovering what a crash left. Reads no bodies but those of the last batch.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: LaneOptions) -> Result<Self, OpenError> {
        let recovered = recover::recover(&*disk, &options.identity)?;
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
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            budget: ByteBudget::new(options.queue_bytes),
            disk,
            clock,
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

    /// The log does not need entries up to `upto` any more. Their blocks stay readable.
    pub fn purge(&self, group: GroupId, upto: LogPosition, done: Done) -> Result<(), LaneError> {
        let mut state = self.shared.usable()?;
        let own = state.groups.entry(group).or_default();
        own.purged = own.purged.max(Some(upto));
        if own.last.is_none_or(|last| last.index < upto.index) {
            own.cut(0);
            own.last = Some(upto);
        }
        self.shared.submit(&mut state, vec![Record::Purge { group, upto }], vec![0], Some(done));
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

    /// The position of the entry at `index`.
    #[must_use]
    pub fn position(&self, group: GroupId, index: u64) -> Option<LogPosition> {
        self.shared.state.lock().groups.get(&group)?.position(index)
    }

    /// The entries of `range`: complete or an error, at least one, and no more than about `bytes_max` of heads and bodies.
    pub fn entries(&self, group: GroupId, range: Range<u64>, bytes_max: u64) -> Result<Vec<ThinEntry>, LaneError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut next = range.start;
        while next < range.end && (found.is_empty() || bytes < bytes_max) {
            let upto = range.end.min(next + 64); // 64: a fair bound for the time under the lock
            let places: Vec<Place> = {
                let state = self.shared.state.lock();
                let own = state.groups.get(&group).ok_or(LaneError::Absent { group, index: next })?;
                if next < own.first() {
                    return Err(LaneError::Absent { group, index: next });
                }
                (next..upto).map(|index| state.place(group, own, index)).collect::<Result<_, _>>()?
            };
            for place in places {
                let thin = place.thin(group)?;
                let size = thin.head.len() as u64 + u64::from(thin.body_len);
                if !found.is_empty() && bytes + size > bytes_max {
                    return Ok(found);
                }
                bytes += size;
                next += 1;
                found.push(thin);
            }
        }
        Ok(found)
    }

    /// Like [`Lane::entries`], if that needs no disk: `None` sends the caller to a thread that may block.
    #[must_use]
    pub fn entries_in_memory(&self, group: GroupId, range: Range<u64>, bytes_max: u64) -> Option<Vec<ThinEntry>> {
        let state = self.shared.state.lock();
        let own = state.groups.get(&group)?;
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in range {
            let entry = own.pending.get(&index).or_else(|| own.recent.get(&index))?;
            let size = (entry.head.len() + entry.body.len()) as u64;
            if !found.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            found.push(entry.thin(index));
        }
        (own.last.is_some()).then_some(found)
    }

    /// The whole body at `index` of `term`, if that needs no disk.
    #[must_use]
    pub fn body_in_memory(&self, group: GroupId, index: u64, term: u64) -> Option<Bytes> {
        let state = self.shared.state.lock();
        let own = state.groups.get(&group)?;
        let entry = own.pending.get(&index).or_else(|| own.recent.get(&index))?;
        (entry.term == term).then(|| entry.body.clone())
    }

    /// Bytes `range` of the body at `index`, verified; of that `term` only, if one is given.
    pub fn body(&self, group: GroupId, index: u64, term: Option<u64>, range: Range<u64>) -> Result<Bytes, LaneError> {
        let place = self.place(group, index)?;
        let outside = |length| Err(LaneError::OutOfRange { group, index, length });
        let check = |found: u64| match term {
            Some(term) if term != found => Err(LaneError::OtherTerm { group, index, found }),
            _ => Ok(()),
        };
        match place {
            Place::Pending(pending, _) => {
                check(pending.term)?;
                if range.start > range.end || range.end > pending.body.len() as u64 {
                    return outside(pending.body.len() as u32);
                }
                Ok(pending.body.slice(range.start as usize..range.end as usize))
            }
            place => {
                let (segment, found) = place.found(group)?;
                check(found.header.position.term)?;
                if range.start > range.end || range.end > u64::from(found.header.body_len) {
                    return outside(found.header.body_len);
                }
                segment.body(&found, range).map_err(LaneError::from)
            }
        }
    }

    /// Bytes of the body at `index`.
    pub fn body_len(&self, group: GroupId, index: u64) -> Result<u32, LaneError> {
        Ok(self.place(group, index)?.thin(group)?.body_len)
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

    fn place(&self, group: GroupId, index: u64) -> Result<Place, LaneError> {
        let state = self.shared.state.lock();
        let own = state.groups.get(&group).ok_or(LaneError::Absent { group, index })?;
        state.place(group, own, index)
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
        state.queue.push_back(Job { records, tickets, done, since: self.clock.now() });
        self.wake.notify_one();
    }
}

impl State {
    fn place(&self, group: GroupId, own: &Group, index: u64) -> Result<Place, LaneError> {
        let absent = LaneError::Absent { group, index };
        if own.last.is_none_or(|last| index > last.index) {
            return Err(absent);
        }
        if let Some(pending) = own.pending.get(&index).or_else(|| own.recent.get(&index)) {
            return Ok(Place::Pending(pending.clone(), index));
        }
        let run = own.run(index).ok_or_else(|| absent.clone())?;
        let held = self.segments.get(&run.segment).ok_or_else(|| absent.clone())?;
        let segment = held.segment.clone();
        match &held.rows {
            Rows::Ram(directory) => {
                let rows = directory.groups.get(&group).ok_or_else(|| absent.clone())?;
                let row = index.checked_sub(rows.first).and_then(|at| rows.rows.get(at as usize)).ok_or(absent)?;
                Ok(Place::Row { segment, record_at: row.record_at, term: row.term, index })
            }
            Rows::Footer(groups) => {
                let (first, rows_at) = groups.get(&group).ok_or_else(|| absent.clone())?;
                let at = index.checked_sub(*first).ok_or(absent)?;
                Ok(Place::Footer { segment, row_at: rows_at + at * ROW_BYTES as u64, index })
            }
        }
    }
}

impl Place {
    fn found(self, group: GroupId) -> Result<(Segment, Found), LaneError> {
        let (segment, record_at, term, index) = match self {
            Self::Row { segment, record_at, term, index } => (segment, record_at, term, index),
            Self::Footer { segment, row_at, index } => {
                let row = segment.row(row_at)?;
                (segment, row.record_at, row.term, index)
            }
            Self::Pending(_, index) => return Err(LaneError::Absent { group, index }),
        };
        let found = segment.entry(record_at)?;
        if found.header.group != group || found.header.position != (LogPosition { term, index }) {
            return Err(segment.damaged(&format!("the record at {record_at} is not {group}/{index}@{term}")).into());
        }
        Ok((segment, found))
    }

    fn thin(self, group: GroupId) -> Result<ThinEntry, LaneError> {
        if let Self::Pending(pending, index) = self {
            return Ok(pending.thin(index));
        }
        let (_, found) = self.found(group)?;
        Ok(ThinEntry {
            position: found.header.position,
            kind: found.header.entry_kind,
            head: found.head,
            body_len: found.header.body_len,
        })
    }
}

impl From<SegmentError> for LaneError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Io(error) => Self::Io(error.to_string()),
            SegmentError::Damaged(what) => Self::Damaged(what),
        }
    }
}
