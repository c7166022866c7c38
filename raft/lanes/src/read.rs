//! Reading from a lane: where an entry or a block lies, and its verified bytes.
//!
//! ```text
//!   (group, index) ─► overlay in RAM ─► blocks, newest segment first ─► run ─► row ─► pread ─► verify
//! ```
//!
//! A *block* is the body of a committed entry that lies here apart from the log: pulled from a peer, or moved by
//! compaction. It comes before the run, because it is also how a damaged entry is repaired.

use crate::{
    Body, Lane, LaneError, ThinEntry,
    directory::{FooterRows, ROW_BYTES},
    format::RecordKind,
    group::{Group, Pending},
    lane::{Rows, State},
    segment::{Found, Segment, SegmentError},
};
use bytes::Bytes;
use raft_types::{GroupId, LogPosition};
use std::ops::Range;

/// Where an entry was found, to be read after the lock is gone.
enum Place {
    Pending(Pending, u64),
    Row { segment: Segment, record_at: u64, term: u64, index: u64 },
    Footer { segment: Segment, row_at: u64, index: u64 },
}

impl Lane {
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
            let size = entry.head.len() as u64 + u64::from(entry.body.len());
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
        match &entry.body {
            Body::Here(body) if entry.term == term => Some(body.clone()),
            _ => None,
        }
    }

    /// Bytes `range` of the body at `index`, verified; of that `term` only, if one is given. Of several copies the first
    /// sound one answers.
    pub fn body(&self, group: GroupId, index: u64, term: Option<u64>, range: Range<u64>) -> Result<Bytes, LaneError> {
        let copies = match self.copies(group, index)? {
            Copies::InRam(found, body) => {
                is_of_term(group, index, term, found)?;
                let range = within(group, index, &range, body.len() as u64)?;
                return Ok(body.slice(range.start as usize..range.end as usize));
            }
            Copies::OnDisk(copies) => copies,
        };
        let mut worst = LaneError::Absent { group, index };
        for copy in copies {
            let read = copy.found(group, index).and_then(|found| {
                let Some((segment, found)) = found else { return Ok(None) };
                if found.header.kind == RecordKind::Entry {
                    is_of_term(group, index, term, found.header.position.term)?;
                }
                if found.header.elided {
                    return Err(LaneError::Elided { group, index });
                }
                let range = within(group, index, &range, u64::from(found.header.body_len))?;
                Ok(Some(segment.body(&found, range)?))
            });
            match read {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(error @ (LaneError::Damaged(_) | LaneError::Io(_))) => worst = error,
                Err(LaneError::Elided { .. }) => worst = worst.or_elided(group, index),
                Err(error) => return Err(error),
            }
        }
        Err(worst)
    }

    /// The whole body at `index` as the disk has it, whatever memory knows: the pages of it that are cached are forgotten
    /// before. Of several copies the first sound one answers; `Absent` while it was not written yet.
    pub fn body_on_disk(&self, group: GroupId, index: u64) -> Result<Bytes, LaneError> {
        let copies: Vec<Copy> = {
            let state = self.shared.state.lock();
            let own = state.groups.get(&group).ok_or(LaneError::Absent { group, index })?;
            let covering = own.blocks.iter().rev().filter(|run| (run.first..=run.last).contains(&index));
            let blocks = covering.filter_map(|run| state.block(group, run.segment, index));
            blocks.chain(state.place_on_disk(group, own, index).ok().map(Copy::Entry)).collect()
        };
        let mut worst = LaneError::Absent { group, index };
        for copy in copies {
            let read = copy.found(group, index).and_then(|found| {
                let Some((segment, found)) = found else { return Ok(None) };
                if found.header.elided {
                    return Err(LaneError::Elided { group, index });
                }
                let length = u64::from(found.header.body_len);
                segment.file.forget_cached_part(found.header.body_at, length).map_err(SegmentError::Io)?;
                Ok(Some(segment.body(&found, 0..length)?))
            });
            match read {
                Ok(Some(body)) => return Ok(body),
                Ok(None) => {}
                Err(error @ (LaneError::Damaged(_) | LaneError::Io(_))) => worst = error,
                Err(LaneError::Elided { .. }) => worst = worst.or_elided(group, index),
                Err(error) => return Err(error),
            }
        }
        Err(worst)
    }

    /// Bytes of the body at `index`, if it is here.
    pub fn body_len(&self, group: GroupId, index: u64) -> Result<u32, LaneError> {
        let copies = match self.copies(group, index)? {
            Copies::InRam(_, body) => return Ok(body.len() as u32),
            Copies::OnDisk(copies) => copies,
        };
        let mut worst = LaneError::Absent { group, index };
        for copy in copies {
            match copy.found(group, index) {
                Ok(Some((_, found))) if found.header.elided => worst = worst.or_elided(group, index),
                Ok(Some((_, found))) => return Ok(found.header.body_len),
                Ok(None) => {}
                Err(LaneError::Elided { .. }) => worst = worst.or_elided(group, index),
                Err(error) => worst = error,
            }
        }
        Err(worst)
    }

    /// Whether a body of `length` bytes lies here at `index`, as far as its head tells: the body is not read.
    pub fn holds(&self, group: GroupId, index: u64, length: u32) -> bool {
        self.body_len(group, index) == Ok(length)
    }

    /// Whether a block of `index` in one of these segments is whole: all of it is read.
    pub(crate) fn has_sound_block(&self, group: GroupId, index: u64, in_segment: impl Fn(u64) -> bool) -> bool {
        let copies: Vec<Copy> = {
            let state = self.shared.state.lock();
            let Some(own) = state.groups.get(&group) else { return false };
            let covering = own.blocks.iter().rev().filter(|run| (run.first..=run.last).contains(&index));
            let wanted = covering.filter(|run| in_segment(run.segment));
            wanted.filter_map(|run| state.block(group, run.segment, index)).collect()
        };
        copies.into_iter().any(|copy| copy.holds_whole(group, index))
    }

    /// Whether the entry itself is here with its whole body: all of it is read.
    pub(crate) fn has_sound_entry(&self, group: GroupId, index: u64) -> bool {
        let place = {
            let state = self.shared.state.lock();
            state.groups.get(&group).and_then(|own| state.place_on_disk(group, own, index).ok())
        };
        place.is_some_and(|place| Copy::Entry(place).holds_whole(group, index))
    }

    /// Where copies of a body lie: the blocks newest first, then the entry itself.
    fn copies(&self, group: GroupId, index: u64) -> Result<Copies, LaneError> {
        let state = self.shared.state.lock();
        let own = state.groups.get(&group).ok_or(LaneError::Absent { group, index })?;
        if let Some(pending) = own.pending.get(&index).or_else(|| own.recent.get(&index))
            && let Body::Here(body) = &pending.body
        {
            return Ok(Copies::InRam(pending.term, body.clone()));
        }
        let covering = own.blocks.iter().rev().filter(|run| (run.first..=run.last).contains(&index));
        let mut copies: Vec<Copy> = covering.filter_map(|run| state.block(group, run.segment, index)).collect();
        copies.extend(state.place(group, own, index).ok().map(Copy::Entry));
        Ok(Copies::OnDisk(copies))
    }
}

fn is_of_term(group: GroupId, index: u64, wanted: Option<u64>, found: u64) -> Result<(), LaneError> {
    match wanted {
        Some(term) if term != found => Err(LaneError::OtherTerm { group, index, found }),
        _ => Ok(()),
    }
}

fn within(group: GroupId, index: u64, range: &Range<u64>, length: u64) -> Result<Range<u64>, LaneError> {
    if range.start > range.end || range.end > length {
        return Err(LaneError::OutOfRange { group, index, length: length as u32 });
    }
    Ok(range.clone())
}

/// Copies of one body.
enum Copies {
    /// Its term, and the body.
    InRam(u64, Bytes),
    OnDisk(Vec<Copy>),
}

/// One copy of a body, or where one may be.
enum Copy {
    /// The entry of the log.
    Entry(Place),
    /// A block in a segment that is open, or was left so by a crash.
    Block { segment: Segment, record_at: u64 },
    /// A sealed segment that has blocks around this index.
    Search { segment: Segment, rows: FooterRows },
}

impl Copy {
    fn holds_whole(self, group: GroupId, index: u64) -> bool {
        let Ok(Some((segment, found))) = self.found(group, index) else { return false };
        !found.header.elided && segment.body(&found, 0..u64::from(found.header.body_len)).is_ok()
    }

    fn found(self, group: GroupId, index: u64) -> Result<Option<(Segment, Found)>, LaneError> {
        let (segment, record_at) = match self {
            Self::Entry(place) => return place.found(group).map(Some),
            Self::Block { segment, record_at } => (segment, record_at),
            Self::Search { segment, rows } => match segment.block_at(&rows, index)? {
                Some(record_at) => (segment, record_at),
                None => return Ok(None),
            },
        };
        let found = segment.entry(record_at)?;
        if (found.header.kind, found.header.group, found.header.position.index) != (RecordKind::Block, group, index) {
            return Err(segment.damaged(&format!("the record at {record_at} is not block {group}/{index}")).into());
        }
        Ok(Some((segment, found)))
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
        self.place_on_disk(group, own, index)
    }

    fn place_on_disk(&self, group: GroupId, own: &Group, index: u64) -> Result<Place, LaneError> {
        let absent = LaneError::Absent { group, index };
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
                let rows = groups.get(&group).ok_or_else(|| absent.clone())?;
                let at = index.checked_sub(rows.first).ok_or(absent)?;
                Ok(Place::Footer { segment, row_at: rows.rows_at + at * ROW_BYTES as u64, index })
            }
        }
    }

    /// Where `segment` may have the block `index`.
    fn block(&self, group: GroupId, segment: u64, index: u64) -> Option<Copy> {
        let held = self.segments.get(&segment)?;
        let segment = held.segment.clone();
        match &held.rows {
            Rows::Ram(directory) => {
                let record_at = *directory.groups.get(&group)?.blocks.get(&index)?;
                Some(Copy::Block { segment, record_at })
            }
            Rows::Footer(groups) => Some(Copy::Search { segment, rows: *groups.get(&group)? }),
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
            // Whole ones were answered from RAM.
            Self::Pending(_, index) => return Err(LaneError::Elided { group, index }),
        };
        let found = segment.entry(record_at)?;
        let header = &found.header;
        if (header.kind, header.group, header.position) != (RecordKind::Entry, group, LogPosition { term, index }) {
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
            elided: found.header.elided,
        })
    }
}
