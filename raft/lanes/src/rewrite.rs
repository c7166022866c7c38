//! Writing the new file of a rewrite, and reading it back before the old one goes.
//!
//! ```text
//!   opening: what the segment says of each group ─► one batch
//!   each row that stays, in the order in which it lies ─► records, 4 MiB a batch ─► footer, trailer, header ─► fsync
//! ```

use crate::{
    Body, Finding, Head, Lane, LaneError, RewriteError, Scrub, ScrubStep,
    batch::{self, Record},
    compact::{Fate, Old, failed},
    directory::Directory,
    format::{BODY_CRC_BYTES, PAGE_BYTES, RecordKind, Rewritten, SegmentHeader, TRAILER_BYTES, Trailer, VERSION},
    inventory::Located,
    lane::Close,
    sabotage::{self, Sabotage},
    segment::{GroupCheckpoint, Segment, SegmentError},
    survey::{self, Survey},
};
use bytes::Bytes;
use raft_types::{DiskFile, GroupId, LogPosition};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    sync::Arc,
};

/// Bytes of one batch of a rewritten segment, about.
const BATCH_BYTES: u64 = 4 << 20;
/// Records of one batch of a rewritten segment, at most.
const BATCH_RECORDS_MAX: usize = 4096;
/// The new file while it is written.
pub(crate) struct New {
    pub(crate) file: Arc<dyn DiskFile>,
    seed: u32,
    pub(crate) at: u64,
    sequence: u64,
    crc: u32,
    hasher: blake3::Hasher,
    pub(crate) directory: Directory,
    waiting: Vec<Record>,
    waiting_bytes: u64,
}

impl New {
    fn push(&mut self, record: Record) -> io::Result<()> {
        self.waiting_bytes += record.bytes();
        self.waiting.push(record);
        if self.waiting_bytes >= BATCH_BYTES || self.waiting.len() == BATCH_RECORDS_MAX {
            self.write()?;
        }
        Ok(())
    }

    /// Writes what waits as one batch.
    fn write(&mut self) -> io::Result<()> {
        let records = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let batch = batch::lay_out(&records, self.sequence + 1, self.crc, self.at, self.seed);
        let used = u64::from(batch.header.meta_bytes) + u64::from(batch.header.body_bytes);
        let padding = vec![0; (u64::from(batch.header.total_bytes) - used) as usize];
        let mut parts = vec![IoSlice::new(&batch.meta)];
        parts.extend(batch.bodies.iter().map(|body| IoSlice::new(body)));
        parts.push(IoSlice::new(&padding));
        self.file.write_at(self.at, &parts)?;
        self.hasher.update(&batch.meta);
        for placed in &batch.placed {
            self.directory.apply(placed);
        }
        self.at += u64::from(batch.header.total_bytes);
        (self.sequence, self.crc) = (batch.header.sequence, batch.header.meta_crc);
        Ok(())
    }
}

impl Lane {
    pub(crate) fn write_new(
        &self,
        old: &Old,
        fates: &[(Located, Fate)],
        heads: &BTreeMap<(GroupId, u64), Head>,
        file: Arc<dyn DiskFile>,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(SegmentHeader, New, u64), RewriteError> {
        let mut first = Survey::new(old.segment.clone(), old.close.end, old.before, old.close.last.0);
        let first = first.next().map_err(failed("read the segment"))?;
        let (sequence, crc) = old.before.unwrap_or_else(|| {
            let header = first.as_ref().and_then(|first| first.header);
            header.map_or((0, 0), |header| (header.sequence - 1, header.previous_crc))
        });
        let mut new = New {
            file,
            seed: old.segment.seed,
            at: PAGE_BYTES,
            sequence,
            crc,
            hasher: blake3::Hasher::new(),
            directory: Directory::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        };
        let write = || failed("write the new file");
        let states = first.iter().flat_map(|first| &first.records);
        let states = states.filter_map(|sound| Some((sound.header.group, survey::checkpoint(sound)?.last))).collect();
        for record in opening(old, &states) {
            new.push(record).map_err(write())?;
        }
        new.write().map_err(write())?;
        let (mut damaged, mut lost) = (0, Vec::new());
        for (row, fate) in fates {
            let moved = match self.moved(old, row, *fate, heads)? {
                Moved::Lost(finding) => {
                    lost.push(finding);
                    continue;
                }
                Moved::Records { records, is_damaged } => {
                    damaged += u64::from(is_damaged);
                    records
                }
            };
            if !lost.is_empty() {
                continue; // only to learn what else is lost
            }
            for record in moved {
                let bytes = record.bytes();
                new.push(record).map_err(write())?;
                if !pace(bytes * 2) {
                    return Err(RewriteError::Stopped);
                }
            }
        }
        if !lost.is_empty() {
            return Err(RewriteError::Lost(lost));
        }
        if !new.waiting.is_empty() {
            new.write().map_err(write())?;
        }
        let header = self.finish(old, &mut new)?;
        Ok((header, new, damaged))
    }

    /// Footer, trailer and header; then all of it is made durable.
    fn finish(&self, old: &Old, new: &mut New) -> Result<SegmentHeader, RewriteError> {
        let identity = self.shared.state.lock().identity;
        let header = SegmentHeader {
            lane: identity.lane,
            sequence: old.segment.sequence,
            cluster_id: identity.cluster_id,
            node_uuid: identity.node_uuid,
            disk_uuid: identity.disk_uuid,
            rewritten: Some(Rewritten {
                last_sequence: old.close.last.0,
                last_crc: old.close.last.1,
                footer_at: new.at,
            }),
        };
        let footer = new.directory.encode();
        let trailer = Trailer {
            footer_at: new.at,
            footer_bytes: footer.len() as u32,
            footer_crc: crc32c::crc32c_append(new.seed, &footer),
            last_sequence: old.close.last.0,
            last_crc: old.close.last.1,
            blake3: *new.hasher.finalize().as_bytes(),
            version: VERSION,
        };
        let write = || failed("write the new file");
        new.file.write_at(new.at, &[IoSlice::new(&footer), IoSlice::new(&trailer.encode(new.seed))]).map_err(write())?;
        new.file.set_len(new.at + (footer.len() + TRAILER_BYTES) as u64).map_err(write())?;
        new.file.write_at(0, &[IoSlice::new(&header.encode())]).map_err(write())?;
        if !sabotage::is(self.shared.sabotage, Sabotage::EvictBeforeVerify) {
            new.file.sync().map_err(failed("sync the new file"))?;
        }
        Ok(header)
    }

    /// The records that stand for a row in the new segment.
    fn moved(
        &self,
        old: &Old,
        row: &Located,
        fate: Fate,
        heads: &BTreeMap<(GroupId, u64), Head>,
    ) -> Result<Moved, RewriteError> {
        let Located { kind, group, index, term, record_at } = *row;
        let none = Ok(Moved::Records { records: Vec::new(), is_damaged: false });
        if fate == Fate::Gone {
            return none;
        }
        let found = match old.segment.entry(record_at) {
            Ok(found) => Some(found).filter(|found| {
                let header = &found.header;
                (header.kind, header.group, header.position) == (kind, group, LogPosition { term, index })
            }),
            Err(SegmentError::Io(error)) => return Err(failed("read the segment")(error)),
            Err(SegmentError::Damaged(_)) => None,
        };
        let position = LogPosition { term, index };
        let head_alone = |kind, head: &Bytes, body_len| Record::Entry {
            group,
            position,
            kind,
            head: head.clone(),
            body: if body_len == 0 { Body::default() } else { Body::Elided(body_len) },
        };
        let Some(found) = found else {
            if kind == RecordKind::Block {
                let elsewhere = self.has_sound_block(group, index, |at| at != old.segment.sequence)
                    || self.has_sound_entry(group, index);
                return if elsewhere { none } else { Ok(Moved::Lost(Finding::Body { group, index })) };
            }
            let block_needed = matches!(fate, Fate::Whole | Fate::Block | Fate::HeadAndBlock);
            let has_block = || self.has_sound_block(group, index, |_| true);
            let lost = || Ok(Moved::Lost(Finding::Head { group, index }));
            let given = heads.get(&(group, index)).filter(|own| own.term == term);
            let record = match (fate, given) {
                (Fate::Block, _) => return if has_block() { none } else { lost() },
                (Fate::Whole | Fate::WholeOrHead, Some(Head { body: Some(body), kind, head, .. })) => {
                    Record::Entry { group, position, kind: *kind, head: head.clone(), body: body.clone().into() }
                }
                (_, Some(given)) => {
                    if block_needed && given.body_len > 0 && !has_block() {
                        return lost();
                    }
                    head_alone(given.kind, &given.head, given.body_len)
                }
                // Of a purged entry only the position counts, and of one that was cut later not even that.
                (Fate::Head, None)
                    if old.purged.get(&group).is_some_and(|purged| index <= *purged)
                        || !old.current.contains(&(group, index)) =>
                {
                    head_alone(0, &Bytes::new(), 0)
                }
                _ => return lost(),
            };
            return Ok(Moved::Records { records: vec![record], is_damaged: false });
        };
        let header = found.header;
        let (body_len, stays) = (header.body_len, matches!(fate, Fate::Whole | Fate::WholeOrHead));
        let mut records = Vec::with_capacity(2);
        if matches!(fate, Fate::Head | Fate::HeadAndBlock) {
            records.push(head_alone(header.entry_kind, &found.head, body_len));
        }
        if fate == Fate::Head || body_len == 0 || header.elided {
            if records.is_empty() && kind == RecordKind::Entry && stays {
                records.push(head_alone(header.entry_kind, &found.head, body_len));
            }
            return Ok(Moved::Records { records, is_damaged: false });
        }
        let mut body = vec![0; body_len as usize];
        let filled = old.segment.file.read_at(header.body_at, &mut body).map_err(failed("read the segment"))?;
        let crcs_hold = body.chunks(BODY_CRC_BYTES).map(crc32c::crc32c).eq(found.crcs.iter().copied());
        let is_damaged = filled < body.len() || !crcs_hold;
        if is_damaged {
            let elsewhere = match kind {
                RecordKind::Block => {
                    self.has_sound_block(group, index, |at| at != old.segment.sequence)
                        || self.has_sound_entry(group, index)
                }
                _ => self.has_sound_block(group, index, |_| true),
            };
            if elsewhere || fate == Fate::WholeOrHead {
                if kind == RecordKind::Entry && stays {
                    records.push(head_alone(header.entry_kind, &found.head, body_len));
                }
                return Ok(Moved::Records { records, is_damaged: false });
            }
        }
        let as_block = matches!(fate, Fate::Block | Fate::HeadAndBlock);
        records.push(Record::AsItLies {
            kind: if as_block { RecordKind::Block } else { kind },
            entry_kind: if as_block { 0 } else { header.entry_kind },
            group,
            position: if as_block { LogPosition { term: 0, index } } else { position },
            head: if as_block { Bytes::new() } else { found.head },
            body: body.into(),
            crcs: found.crcs,
        });
        Ok(Moved::Records { records, is_damaged })
    }
}

/// What a row became.
enum Moved {
    Records { records: Vec<Record>, is_damaged: bool },
    Lost(Finding),
}

/// What the segment says of each group, as its first records: where the group ended before, and the net of all that
/// follows. A group whose opening state cannot be read says no more than is known.
fn opening(old: &Old, states: &BTreeMap<GroupId, Option<LogPosition>>) -> Vec<Record> {
    let mut records = Vec::new();
    for (group, net) in &old.inventory.nets {
        let group = *group;
        match states.get(&group) {
            Some(last) => {
                let (vote, committed, purged) = (net.vote.clone(), net.committed, net.purged);
                records.push(Record::State {
                    group,
                    checkpoint: GroupCheckpoint { vote, committed, purged, last: *last },
                });
            }
            None => {
                records.extend(net.vote.clone().map(|vote| Record::Vote { group, vote }));
                records.extend(net.committed.map(|position| Record::Committed { group, position }));
                records.extend(net.purged.map(|upto| Record::Purge { group, upto }));
            }
        }
        records.extend(net.cut_from.map(|from| Record::Truncate { group, from }));
    }
    records
}

/// C2: reads the new file back, past the page cache, before the old one goes.
pub(crate) fn verify(
    old: &Old,
    header: &SegmentHeader,
    new: &New,
    damaged: u64,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<(), RewriteError> {
    let segment = Segment { file: Arc::clone(&new.file), seed: header.seed(), ..old.segment.clone() };
    let close = Close { end: new.at, last: old.close.last };
    let before = old.before;
    let mut scrub = Scrub::new(None, segment, close, true, before);
    let found = loop {
        match scrub.step(1 << 20) {
            Ok(ScrubStep::More(bytes)) => {
                if !pace(bytes) {
                    return Err(RewriteError::Stopped);
                }
            }
            Ok(ScrubStep::Done(found)) => break found,
            Err(LaneError::Io(why)) => return Err(RewriteError::NotVerified(why)),
            Err(error) => return Err(RewriteError::NotVerified(error.to_string())),
        }
    };
    let (bodies, others): (Vec<Finding>, Vec<Finding>) =
        found.findings.into_iter().partition(|finding| matches!(finding, Finding::Body { .. }));
    if !others.is_empty() || bodies.len() as u64 > damaged {
        return Err(RewriteError::NotVerified(format!("{others:?}, and {} bodies", bodies.len())));
    }
    Ok(())
}
