//! openraft's log store over one group of a lane.
//!
//! What openraft must be able to rely on, and how the lane gives it:
//! - `save_vote` is answered after the fsync that covers it and every earlier append of the group (trap 1).
//! - `append` returns when the entries are readable; its callback comes after the fsync, in order (traps 2, 3).
//! - `truncate_after` is only submitted: whatever is appended behind it can not be durable before it (trap 6).
//! - a read is complete or an error (trap 4); entries come back thin. What is damaged here is no error while peers have it.

use crate::heads::Heads;
use crate::machine::Progress;
use crate::options::Blocking;
use crate::rpc::EntryRecord;
use crate::types::{
    Body, Entry, LogId, Types, Vote, VoteRecord, blank, decode, encode, from_lane, from_parts, log_id, position,
    to_lane,
};
use openraft::{
    EntryPayload, OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use raft_lanes::{
    Lane, LaneError,
    sabotage::{self, Sabotage},
};
use raft_types::GroupId;
use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};
use tokio::sync::oneshot;

/// Bytes of heads and bodies that one read for replication answers, at most.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Bytes of heads and bodies that go to the lane as one submission, about: what is written as one batch must stay small
/// enough to be believed at a restart.
const APPEND_BYTES: u64 = 8 << 20;

/// Entries on their way to the lane.
#[derive(Default)]
struct Portion {
    entries: Vec<raft_lanes::Entry>,
    bytes: u64,
}

impl Portion {
    fn push(&mut self, entry: raft_lanes::Entry) {
        self.bytes += entry.head.len() as u64 + u64::from(entry.body.len()) + 64; // 64: the record's header
        self.entries.push(entry);
    }
}

/// The log of one group. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    lane: Lane,
    group: GroupId,
    blocking: Blocking,
    sabotage: Option<Sabotage>,
    backing: Option<Backing>,
}

/// What stands behind the log where it is damaged.
#[derive(Clone)]
pub(crate) struct Backing {
    pub(crate) heads: Arc<Heads>,
    /// What the group has applied: its entries are needed by peers only.
    pub(crate) progress: Progress,
}

impl LogStore {
    pub(crate) fn new(
        lane: Lane,
        group: GroupId,
        blocking: Blocking,
        sabotage: Option<Sabotage>,
        backing: Option<Backing>,
    ) -> Self {
        Self { lane, group, blocking, sabotage, backing }
    }

    async fn read(&self, start: u64, end: u64, bytes_max: u64) -> Result<Vec<Entry>, LaneError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let thin = match self.lane.entries_in_memory(self.group, start..end, bytes_max) {
            Some(thin) => thin,
            None => {
                let (lane, group) = (self.lane.clone(), self.group);
                let read = move || lane.entries(group, start..end, bytes_max);
                self.blocking.run(read).await.map_err(|_| LaneError::Stopped)??
            }
        };
        // What cannot be decoded is of a newer release, and no damage: no peer's copy would help.
        thin.into_iter().map(|thin| from_lane(thin).map_err(|error| LaneError::Failed(error.to_string()))).collect()
    }

    /// What stands behind the log, if there is any other node.
    fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref().filter(|backing| !backing.heads.other_names().is_empty())
    }

    /// Like `read`, one entry after the other, with what stands in for the damaged ones. Where nothing does, what was read
    /// before is the answer; if that is nothing, the error.
    async fn read_around(
        &self,
        (start, end): (u64, u64),
        bytes_max: u64,
        backing: &Backing,
        applied_is_blank: bool,
    ) -> Result<Vec<Entry>, LaneError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for index in start..end {
            let entry = match self.read(index, index + 1, 0).await {
                Err(error @ (LaneError::Damaged(_) | LaneError::Io(_))) => {
                    backing.heads.note(self.group, index);
                    match self.stand_in(index, backing, applied_is_blank).await {
                        Some(entry) => entry,
                        None if found.is_empty() => return Err(error),
                        None => break,
                    }
                }
                read => match read?.pop() {
                    Some(entry) => entry,
                    None => break,
                },
            };
            bytes += size_of_entry(&entry);
            if !found.is_empty() && bytes > bytes_max {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }

    /// What stands in for the damaged entry at `index`.
    async fn stand_in(&self, index: u64, backing: &Backing, applied_is_blank: bool) -> Option<Entry> {
        let at = self.lane.position(self.group, index)?;
        if applied_is_blank && backing.progress.applied().is_some_and(|applied| index <= applied.index) {
            return Some(blank(at));
        }
        let (EntryRecord { kind, head, body_len, .. }, _) = backing.heads.of_a_peer(self.group, at).await?;
        from_parts(at, kind, head, Body::InLane { len: body_len }).ok()
    }
}

fn size_of_entry(entry: &Entry) -> u64 {
    match &entry.payload {
        EntryPayload::Normal(block) => block.head.len() as u64 + block.body_len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// Submits to the lane and waits for the fsync.
pub(crate) async fn durably<F>(submit: F) -> Result<(), io::Error>
where
    F: FnOnce(raft_lanes::Done) -> Result<(), LaneError>,
{
    let (done, durable) = oneshot::channel();
    submit(Box::new(move |result| drop(done.send(result)))).map_err(io::Error::other)?;
    durable.await.map_err(|_| io::Error::other("the lane stopped"))?
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        loop {
            // Absent at the edges is allowed: purged before, not yet appended behind.
            let state = self.lane.state(self.group);
            let behind = state.last.map_or(0, |last| last.index + 1);
            let (start, end) = (start.max(state.first), end.min(behind));
            let (backing, error) = match (self.read(start, end, u64::MAX).await, self.backing()) {
                (Err(error @ (LaneError::Damaged(_) | LaneError::Io(_))), Some(backing)) => (backing, error),
                // Purged while it was read: what is left of the range is the answer.
                (Err(LaneError::Absent { .. }), _) if self.lane.state(self.group).first > start => continue,
                (read, _) => return read.map_err(io::Error::other),
            };
            let read = self.read_around((start, end), u64::MAX, backing, true).await;
            if let Ok(entries) = &read
                && entries.len() as u64 == end - start
            {
                return read.map_err(io::Error::other);
            }
            tracing::error!(group = %self.group, %error, "no peer gives what is damaged here of the log: waiting for one");
            if !backing.heads.pause().await {
                return Err(io::Error::other(error));
            }
        }
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let Some(vote) = self.lane.state(self.group).vote else { return Ok(None) };
        let record: VoteRecord = decode("vote", &vote).map_err(io::Error::other)?;
        Ok(Some(record.into()))
    }

    /// From what the lane holds in RAM: the start of a group reads no more entries than it must.
    async fn get_key_log_ids(&mut self, range: std::ops::RangeInclusive<LogId>) -> Result<Vec<LogId>, io::Error> {
        let ends = self.lane.ends_of_terms(self.group, position(range.start())..=position(range.end()));
        Ok(ends.into_iter().map(log_id).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        loop {
            // A leader that was deposed may still be reading for a peer what its successor has truncated: that is no
            // error of the storage. Nothing is left then, and openraft looks who leads before it sends.
            let before = self.lane.state(self.group);
            let end = end.min(before.last.map_or(0, |last| last.index + 1));
            let read = match (self.read(start, end, READ_BYTES_MAX).await, self.backing()) {
                (Err(LaneError::Damaged(_) | LaneError::Io(_)), Some(backing)) => {
                    let read = self.read_around((start, end), READ_BYTES_MAX, backing, false).await;
                    if let Err(error) = &read {
                        tracing::error!(
                            group = %self.group, %error,
                            "a peer lacks what is damaged here of the log, and nobody gives it: it waits"
                        );
                        backing.heads.pause().await;
                        // openraft takes nothing for a heartbeat, looks whether this node still leads, and asks again.
                        return Ok(Vec::new());
                    }
                    read
                }
                (read, _) => read,
            };
            match read {
                Err(_) if self.lane.state(self.group).last != before.last => {}
                // openraft purges nothing that a peer is owed, but what a stream reads that it has given up already, as it
                // does with all of them when the members change. That is no error of the storage either: there is nothing
                // for that stream, which openraft takes for a heartbeat, and looks whether the stream goes on.
                Err(LaneError::Absent { .. }) if start < self.lane.state(self.group).first => return Ok(Vec::new()),
                result => return result.map_err(io::Error::other),
            }
        }
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.lane.state(self.group);
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let record = encode(&VoteRecord::from(vote));
        if sabotage::is(self.sabotage, Sabotage::VoteWithoutBarrier) {
            return self.lane.save_vote(self.group, record, Box::new(|_| {})).map_err(io::Error::other);
        }
        durably(|done| self.lane.save_vote(self.group, record, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(committed) => self.lane.save_committed(self.group, position(&committed)).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let state = self.lane.state(self.group);
        // The hint may have run ahead of the local flush (trap 8): clamp it to what is there.
        Ok(state.committed.filter(|committed| state.last.is_some_and(|last| *committed <= last)).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut portion = Portion::default();
        for entry in entries {
            if portion.bytes >= APPEND_BYTES {
                // The callback of the last portion implies all earlier ones (trap 2).
                let Portion { entries, bytes } = std::mem::take(&mut portion);
                let permit = self.lane.reserve(bytes).await;
                let done = move |_| drop(permit);
                self.lane.append(self.group, entries, Box::new(done)).map_err(io::Error::other)?;
            }
            portion.push(to_lane(entry)?);
        }
        let permit = self.lane.reserve(portion.bytes).await;
        let done = move |result| {
            callback.io_completed(result);
            drop(permit);
        };
        self.lane.append(self.group, portion.entries, Box::new(done)).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let keep = last.map(|last| last.index);
        self.lane.truncate_after(self.group, keep, Box::new(|_| {})).map_err(io::Error::other)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        durably(|done| self.lane.purge(self.group, position(&upto), done)).await
    }
}

/// The position of an entry.
pub(crate) fn entry_position(entry: &Entry) -> raft_types::LogPosition {
    position(&entry.log_id())
}
