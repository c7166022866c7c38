//! The one writer of a lane: drain the queue, write one batch, one `fdatasync`, then the callbacks in queue order.
//!
//! There is no timer: while one `fdatasync` runs, the next batch gathers. A segment is sealed when the next batch and
//! the footer would not fit any more.

use crate::{
    batch::{self, Placed, Record},
    directory::{Directory, FooterRows},
    format::{META_BYTES_MAX, PAGE_BYTES, SegmentHeader, TRAILER_BYTES, Trailer, VERSION, whole_pages},
    group::Group,
    lane::{Close, Done, Held, Job, Rows, Shared},
    metrics::LaneMetrics,
    options::LaneOptions,
    sabotage::{self, Sabotage},
    segment::{self, Segment},
};
use raft_types::GroupId;
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    sync::Arc,
    time::Instant,
};

/// Bytes of one batch, at most (one job may be larger): the queue's own bound.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Records of one batch, at most: bounds the meta part.
const BATCH_RECORDS_MAX: usize = 4096;

/// What the next batch must name, and the next segment's number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Next {
    pub(crate) last_batch: u64,
    pub(crate) last_crc: u32,
    pub(crate) segment: u64,
}

pub(crate) struct LaneWriter {
    shared: Arc<Shared>,
    segment_bytes: u64,
    metrics: Option<LaneMetrics>,
    next: Next,
    active: Option<Active>,
    /// Each group as the disk knows it, in the order of writing: readers may be ahead.
    written: BTreeMap<GroupId, Group>,
    /// A purge beyond the end leaves a gap, and a directory has none: the next entries go to a new segment.
    gap: bool,
    callbacks: Vec<(Done, io::Result<()>)>,
    sabotage: Option<Sabotage>,
}

struct Active {
    segment: Segment,
    at: u64,
    reserved: u64,
    hasher: blake3::Hasher,
}

impl LaneWriter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: &LaneOptions,
        next: Next,
        written: BTreeMap<GroupId, Group>,
    ) -> Self {
        Self {
            shared,
            segment_bytes: options.segment_bytes,
            metrics: options.metrics.clone(),
            next,
            active: None,
            written,
            gap: false,
            callbacks: Vec::new(),
            sabotage: options.sabotage,
        }
    }

    /// The thread: until the lane is stopped and the queue is empty, or the disk has failed.
    pub(crate) fn run(&mut self) {
        loop {
            {
                let mut state = self.shared.state.lock();
                while state.queue.is_empty() {
                    if state.stopping {
                        return;
                    }
                    self.shared.wake.wait(&mut state);
                }
            }
            self.step();
        }
    }

    /// Writes one batch; false if nothing waits.
    pub(crate) fn step(&mut self) -> bool {
        let jobs = self.take();
        if jobs.is_empty() {
            return false;
        }
        let failed = self.shared.state.lock().failed.clone();
        let result = match failed {
            Some(why) => Err(io::Error::other(why)),
            None => self.write(&jobs),
        };
        self.complete(jobs, result);
        if sabotage::is(self.sabotage, Sabotage::CallbacksOutOfOrder) {
            let newest = self.shared.state.lock().queue.back_mut().and_then(|job| job.done.take());
            self.callbacks.extend(newest.map(|done| (done, Ok(()))));
        }
        for (done, result) in self.callbacks.drain(..) {
            done(result);
        }
        true
    }

    fn take(&mut self) -> VecDeque<Job> {
        let mut state = self.shared.state.lock();
        let (mut jobs, mut bytes, mut records) = (VecDeque::new(), 0, 0);
        while let Some(job) = state.queue.front() {
            let size: u64 = job.records.iter().map(Record::bytes).sum();
            if !jobs.is_empty() && (bytes + size > BATCH_BYTES_MAX || records + job.records.len() > BATCH_RECORDS_MAX) {
                break;
            }
            bytes += size;
            records += job.records.len();
            let purges = job.records.iter().any(|record| matches!(record, Record::Purge { .. }));
            state.queued_bytes -= size;
            jobs.extend(state.queue.pop_front());
            if purges {
                break;
            }
        }
        // Not when the oldest job was submitted: a slow disk with a queue before it is no hung one.
        state.busy_since = (!jobs.is_empty()).then(|| self.shared.clock.now());
        if !jobs.is_empty() {
            let hints = std::mem::take(&mut state.lazy_committed);
            let records: Vec<Record> =
                hints.into_iter().map(|(group, position)| Record::Committed { group, position }).collect();
            let tickets = vec![0; records.len()];
            let since = self.shared.clock.now();
            // Behind the entries of this batch. A hint whose entries are still in the queue may be durable before them:
            // whoever reads it clamps it to what the log holds (trap 8).
            jobs.push_back(Job { records, tickets, done: None, since, turn: false });
        }
        jobs
    }

    fn write(&mut self, jobs: &VecDeque<Job>) -> io::Result<()> {
        let records: Vec<Record> = jobs.iter().flat_map(|job| job.records.iter().cloned()).collect();
        let turn = jobs.iter().any(|job| job.turn);
        if records.is_empty() && self.active.is_some() && !turn {
            return Ok(()); // asked only that a segment be there
        }
        let bytes = whole_pages(records.iter().map(Record::bytes).sum::<u64>() + 64);
        let room = bytes + (records.len() * 64) as u64 + PAGE_BYTES; // 64: a row and its share of the table
        if self.gap || turn || !self.fits(room) {
            self.roll(room)?;
        }
        let late = sabotage::is(self.sabotage, Sabotage::AnswerBeforeFsync);
        if late {
            self.sync()?;
        }
        let placed = self.write_batch(&records)?;
        if !late {
            self.sync()?;
        }
        let tickets = jobs.iter().flat_map(|job| job.tickets.iter().copied());
        self.publish(&placed, tickets);
        Ok(())
    }

    fn fits(&self, room: u64) -> bool {
        let Some(active) = &self.active else { return false };
        let state = self.shared.state.lock();
        let footer = match state.segments.get(&active.segment.sequence).map(|held| &held.rows) {
            Some(Rows::Ram(directory)) => directory.footer_bytes_max(),
            _ => 0,
        };
        active.at + room + whole_pages(footer) + TRAILER_BYTES as u64 <= active.reserved
    }

    /// Lays out and writes one batch; not yet synced, not yet visible.
    fn write_batch(&mut self, records: &[Record]) -> io::Result<Vec<Placed>> {
        let Some(active) = &mut self.active else { return Err(io::Error::other("no segment is open")) };
        let batch =
            batch::lay_out(records, self.next.last_batch + 1, self.next.last_crc, active.at, active.segment.seed);
        if batch.header.meta_bytes > META_BYTES_MAX {
            // Recovery would not believe it: better no answer than one that a restart takes back.
            return Err(io::Error::other(format!("a batch with {} bytes of heads", batch.header.meta_bytes)));
        }
        let started = Instant::now();
        let used = u64::from(batch.header.meta_bytes) + u64::from(batch.header.body_bytes);
        let zero = [0; PAGE_BYTES as usize];
        let padding = (u64::from(batch.header.total_bytes) - used) as usize;
        let mut parts = Vec::with_capacity(batch.bodies.len() + 2);
        parts.push(IoSlice::new(&batch.meta));
        parts.extend(batch.bodies.iter().map(|body| IoSlice::new(body)));
        if padding > 0 {
            parts.push(IoSlice::new(&zero[..padding]));
        }
        active.segment.file.write_at(active.at, &parts)?;
        active.hasher.update(&batch.meta);
        active.at += u64::from(batch.header.total_bytes);
        let left_bytes = active.reserved.saturating_sub(active.at);
        self.next.last_batch = batch.header.sequence;
        self.next.last_crc = batch.header.meta_crc;
        if let Some(metrics) = &self.metrics {
            metrics.write_seconds.observe(started.elapsed().as_secs_f64());
            metrics.batch_bytes.observe(f64::from(batch.header.total_bytes));
            metrics.batch_records.observe(f64::from(batch.header.records));
            metrics.written_bytes.inc_by(u64::from(batch.header.total_bytes));
        }
        self.shared.state.lock().reserved_bytes = left_bytes;
        Ok(batch.placed)
    }

    fn sync(&self) -> io::Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let started = Instant::now();
        match active.segment.file.sync() {
            Err(_) if sabotage::is(self.sabotage, Sabotage::FsyncErrorIgnored) => {}
            synced => synced?,
        }
        if let Some(metrics) = &self.metrics {
            metrics.fsync_seconds.observe(started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Makes a durable batch visible as such: rows into the directory, entries out of the overlay.
    fn publish(&mut self, placed: &[Placed], tickets: impl Iterator<Item = u64>) {
        let Some(active) = &self.active else { return };
        let sequence = active.segment.sequence;
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        for (placed, ticket) in placed.iter().zip(tickets.chain(std::iter::repeat(0))) {
            if let Some(Held { rows: Rows::Ram(directory), .. }) = state.segments.get_mut(&sequence) {
                directory.apply(placed);
            }
            match placed {
                Placed::Entry { group, position, .. } => {
                    self.written.entry(*group).or_default().push(*position);
                    let own = state.groups.entry(*group).or_default();
                    own.placed(sequence, position.index);
                    if own.pending.get(&position.index).is_some_and(|pending| pending.ticket == ticket)
                        && let Some(entry) = own.pending.remove(&position.index)
                    {
                        state.recent.keep(&mut state.groups, *group, position.index, entry);
                    }
                }
                Placed::Truncate { group, from } => {
                    state.groups.entry(*group).or_default().cut_runs(*from);
                    self.written.entry(*group).or_default().cut(*from);
                }
                Placed::Vote { group, vote } => self.written.entry(*group).or_default().vote = Some(vote.clone()),
                Placed::Committed { group, position } => {
                    self.written.entry(*group).or_default().committed = Some(*position);
                }
                Placed::Purge { group, upto } => {
                    let written = self.written.entry(*group).or_default();
                    written.purged = Some(*upto);
                    let own = state.groups.entry(*group).or_default();
                    own.purged_durable = own.purged_durable.max(Some(*upto));
                    if written.last.is_none_or(|last| last.index < upto.index) {
                        written.cut(0);
                        written.last = Some(*upto);
                        self.gap = true;
                    }
                }
                Placed::Block { group, index, .. } => {
                    state.groups.entry(*group).or_default().placed_block(sequence, *index);
                }
                Placed::State { .. } => {}
            }
        }
    }

    fn complete(&mut self, jobs: VecDeque<Job>, result: io::Result<()>) {
        let mut state = self.shared.state.lock();
        state.busy_since = None;
        let why = match result {
            Ok(()) => None,
            Err(error) => Some(state.failed.get_or_insert_with(|| error.to_string()).clone()),
        };
        let answer = |why: &Option<String>| match why {
            None => Ok(()),
            Some(why) => Err(io::Error::other(why.clone())),
        };
        for job in jobs {
            self.callbacks.extend(job.done.map(|done| (done, answer(&why))));
        }
        for own in state.groups.values_mut() {
            let (ready, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut own.waiters)
                .into_iter()
                .partition(|(index, _)| why.is_some() || own.is_durable(*index) == Some(true));
            own.waiters = wait;
            self.callbacks.extend(ready.into_iter().map(|(_, then)| (then, answer(&why))));
        }
        if why.is_some() {
            let rest: Vec<Job> = state.queue.drain(..).collect();
            state.queued_bytes = 0;
            for job in rest {
                self.callbacks.extend(job.done.map(|done| (done, answer(&why))));
            }
        }
    }

    /// Seals the active segment and opens the next one, with room for at least `room` bytes.
    fn roll(&mut self, room: u64) -> io::Result<()> {
        self.seal()?;
        let disk = Arc::clone(&self.shared.disk);
        let (header, sequence) = {
            let identity = self.shared.state.lock().identity;
            let sequence = self.next.segment;
            let header = SegmentHeader {
                lane: identity.lane,
                sequence,
                cluster_id: identity.cluster_id,
                node_uuid: identity.node_uuid,
                disk_uuid: identity.disk_uuid,
                rewritten: None,
            };
            (header, sequence)
        };
        let name = segment::name(sequence);
        let file = disk.create(&name)?;
        // Checkpoint and both footers are bounded by the groups; 1 KiB each is far more than they need.
        let least = PAGE_BYTES * 4 + room + self.written.len() as u64 * 1024;
        let reserved = reserve(&*file, self.segment_bytes.max(least), least)?;
        self.shared.state.lock().space = disk.space()?;
        file.write_at(0, &[IoSlice::new(&header.encode())])?;
        let segment = Segment { name, sequence, seed: header.seed(), file };
        self.next.segment += 1;
        self.gap = false;
        self.active =
            Some(Active { segment: segment.clone(), at: PAGE_BYTES, reserved, hasher: blake3::Hasher::new() });
        let checkpoint: Vec<Record> = self
            .written
            .iter()
            .map(|(group, own)| Record::State { group: *group, checkpoint: own.checkpoint() })
            .collect();
        let placed = self.write_batch(&checkpoint)?;
        self.sync()?;
        disk.sync_names()?;
        let held = Held { segment, rows: Rows::Ram(Directory::default()), close: None, damaged: None };
        self.shared.state.lock().segments.insert(sequence, held);
        self.publish(&placed, std::iter::empty());
        if let Some(metrics) = &self.metrics {
            metrics.segments_opened.inc();
        }
        Ok(())
    }

    /// Writes footer and trailer, and gives back the reserved space behind them.
    fn seal(&mut self) -> io::Result<()> {
        let Some(active) = self.active.take() else { return Ok(()) };
        let (footer, table) = {
            let state = self.shared.state.lock();
            match state.segments.get(&active.segment.sequence).map(|held| &held.rows) {
                Some(Rows::Ram(directory)) => (directory.encode(), directory.table()),
                _ => return Ok(()),
            }
        };
        let seed = active.segment.seed;
        let trailer = Trailer {
            footer_at: active.at,
            footer_bytes: footer.len() as u32,
            footer_crc: crc32c::crc32c_append(seed, &footer),
            last_sequence: self.next.last_batch,
            last_crc: self.next.last_crc,
            blake3: *active.hasher.finalize().as_bytes(),
            version: VERSION,
        };
        let file = &active.segment.file;
        file.write_at(active.at, &[IoSlice::new(&footer), IoSlice::new(&trailer.encode(seed))])?;
        file.set_len(active.at + (footer.len() + TRAILER_BYTES) as u64)?;
        file.sync()?;
        let table_bytes = u32::from_le_bytes([footer[0], footer[1], footer[2], footer[3]]);
        let rows_at = active.at + 4 + u64::from(table_bytes);
        let rows = table.iter().map(|own| (own.group, FooterRows::of(own, rows_at))).collect();
        if let Some(held) = self.shared.state.lock().segments.get_mut(&active.segment.sequence) {
            held.rows = Rows::Footer(rows);
            held.close = Some(Close { end: active.at, last: (self.next.last_batch, self.next.last_crc) });
        }
        Ok(())
    }
}

impl Drop for LaneWriter {
    /// A clean end seals, so that the next start reads a footer instead of scanning.
    fn drop(&mut self) {
        if self.shared.state.lock().failed.is_none()
            && let Err(error) = self.seal()
        {
            tracing::warn!(%error, "sealing the last segment failed; the next start scans it");
        }
    }
}

/// Reserves `wish` bytes, or as much as there is, but not less than `least`.
fn reserve(file: &dyn raft_types::DiskFile, wish: u64, least: u64) -> io::Result<u64> {
    let mut bytes = wish;
    loop {
        match file.allocate(bytes) {
            Ok(()) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::StorageFull && bytes > least => bytes = (bytes / 4).max(least),
            Err(error) => return Err(error),
        }
    }
}
