//! A log with a hole: an unsealed segment in which a batch is bad and later ones are good. What can still be known of it.
//!
//! ```text
//!   good │ good │ bad │ good │ good │ torn tail
//!     ▲             ▲      ▲
//!     │             │      └ what is written behind the hole is the last word on its indexes
//!     │             └ may have held anything: a vote, an entry that was acknowledged, a truncation
//!     └ of what lies before, only what was committed by then is certain: the rest may have been cut in the hole
//! ```
//!
//! So for each group, at the hole, everything behind its newest known *committed* is given up, and what comes behind the hole
//! goes on from there. Between the two, rows are *lost*: they keep their place, and reading one says "damaged". Whoever is a
//! member of a cluster must not go on under the raft id that wrote this log; that is for `raft/groups` to see to.
//!
//! A node without peers never cuts its log, so nothing before the hole is in doubt there, and records of the bad batch whose
//! own checksums hold are kept too.

use crate::{
    batch::{BodyCheck, Placed},
    directory::{Directory, Row},
    format::PAGE_BYTES,
    group::Group,
    lane::Close,
    segment::{Segment, SegmentError},
    survey::{Sound, Survey, Surveyed},
};
use raft_types::GroupId;
use std::collections::BTreeMap;

/// What to do about a log with a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnHole {
    /// Do not open; nothing is changed.
    #[default]
    Refuse,
    /// Open, and say that the lane is suspect: its owner is a member of a cluster, and sees to it that it is taken for a new
    /// one.
    Suspect,
    /// Open, and say so: there is nobody else who could have the log.
    SuspectAlone,
}

/// The directory of a segment with a hole, where it ends, and where the hole is.
pub(crate) struct Patched {
    pub(crate) directory: Directory,
    pub(crate) close: Close,
    pub(crate) hole_at: u64,
}

/// Reads `segment` around its holes. `groups` is what older segments gave; `followed` is what the successor names.
pub(crate) fn read_around(
    segment: &Segment,
    before: Option<(u64, u32)>,
    followed: Option<(u64, u32)>,
    sealed: Option<Close>,
    groups: &BTreeMap<GroupId, Group>,
    on_hole: OnHole,
) -> Result<Patched, SegmentError> {
    let alone = on_hole == OnHole::SuspectAlone;
    let length = segment.file.len()?;
    let (end, newest) = sealed.map_or((length, u64::MAX), |close| (close.end, close.last.0));
    let last = last_whole(segment, before, followed, end, newest, sealed.is_some())?;
    let Some((last_at, own)) = last else { return Err(segment.damaged("no batch of it is whole")) };
    // What the successor names was synced before it: what stands in its place is no torn tail.
    let lacks = followed.filter(|followed| sealed.is_none() && followed.0 > own.0);
    let mut patch = Patch { directory: Directory::default(), groups, alone };
    let (mut hole_at, mut close) = (None, Close { end, last: lacks.unwrap_or(own) });
    let mut survey = Survey::new(segment.clone(), end, before, newest);
    while let Some(batch) = survey.next()? {
        if sealed.is_none() && lacks.is_none() && batch.at > last_at {
            break; // the torn tail
        }
        if batch.meta.is_some() {
            batch.records.iter().filter_map(Sound::placed).for_each(|placed| patch.apply(placed));
        } else {
            hole_at.get_or_insert(batch.at);
            patch.hole(&batch);
        }
        close.end = batch.behind;
    }
    let close = sealed.unwrap_or(close);
    Ok(Patched { directory: patch.directory, close, hole_at: hole_at.unwrap_or(PAGE_BYTES) })
}

/// Where the last batch stands that is whole and durable, its sequence and its CRC.
#[expect(clippy::type_complexity, reason = "one private caller takes it apart at once")]
fn last_whole(
    segment: &Segment,
    before: Option<(u64, u32)>,
    followed: Option<(u64, u32)>,
    end: u64,
    newest: u64,
    sealed: bool,
) -> Result<Option<(u64, (u64, u32))>, SegmentError> {
    let mut survey = Survey::new(segment.clone(), end, before, newest);
    let mut found: Option<(u64, (u64, u32))> = None;
    while let Some(Surveyed { at, header, meta, records, .. }) = survey.next()? {
        let (Some(header), Some(_)) = (header, meta) else { continue };
        let own = (header.sequence, header.meta_crc);
        let proven = sealed || followed.is_some_and(|followed| followed.0 >= own.0);
        let bodies: Vec<BodyCheck> = records
            .iter()
            .filter(|sound| sound.has_body())
            .map(|sound| BodyCheck { at: sound.header.body_at, len: sound.header.body_len, crcs: sound.crcs.clone() })
            .collect();
        // A batch behind it proves that a batch was synced; the last one has to hold by itself (L7).
        if proven || segment.bodies_hold(&bodies)? {
            found = Some((at, own));
        }
    }
    Ok(found)
}

struct Patch<'a> {
    directory: Directory,
    groups: &'a BTreeMap<GroupId, Group>,
    alone: bool,
}

impl Patch<'_> {
    /// Takes in what a hole may have done.
    fn hole(&mut self, batch: &Surveyed) {
        if self.alone {
            return batch.records.iter().filter_map(Sound::placed).for_each(|placed| self.apply(placed));
        }
        let mut known: Vec<GroupId> = self.groups.keys().chain(self.directory.groups.keys()).copied().collect();
        known.sort_unstable();
        known.dedup();
        for group in known {
            let older = self.groups.get(&group);
            let own = self.directory.groups.get(&group);
            let committed = own.and_then(|own| own.committed).max(older.and_then(|own| own.committed));
            let purged = own.and_then(|own| own.purged).max(older.and_then(|own| own.purged));
            let from = committed.max(purged).map_or(0, |certain| certain.index + 1);
            let reaches = own.filter(|own| !own.rows.is_empty()).map(|own| own.first + own.rows.len() as u64);
            let reaches = reaches.or(older.and_then(|own| own.last).map(|last| last.index + 1));
            if reaches.is_some_and(|behind| behind > from) {
                self.directory.apply(&Placed::Truncate { group, from });
            }
        }
    }

    /// Takes in a record, and what must have been between it and the one before.
    fn apply(&mut self, placed: Placed) {
        if let Placed::Entry { group, position, .. } = &placed {
            let own = self.directory.groups.entry(*group).or_default();
            let purged = own.purged.max(self.groups.get(group).and_then(|own| own.purged));
            let older = self.groups.get(group).and_then(|own| own.last).map(|last| (last.index + 1, last.term));
            let reached = match (own.rows.last(), own.cut_from) {
                (Some(row), _) => Some((own.first + own.rows.len() as u64, row.term)),
                (None, Some(from)) => older.map(|(behind, term)| (behind.min(from), term)),
                (None, None) => older,
            };
            let reached = reached.map_or((0, position.term), |reached| reached);
            let from = purged.map_or(reached.0, |purged| reached.0.max(purged.index + 1));
            if from > position.index {
                self.directory.apply(&Placed::Truncate { group: *group, from: position.index });
            } else {
                for index in from..position.index {
                    own.lose(index, reached.1);
                }
            }
        }
        self.directory.apply(&placed);
    }
}

impl crate::directory::GroupDirectory {
    /// Keeps the place of an entry that is lost.
    pub(crate) fn lose(&mut self, index: u64, term: u64) {
        if self.rows.is_empty() {
            self.first = index;
        }
        if self.terms.last().is_none_or(|start| start.term != term) {
            self.terms.push(raft_types::LogPosition { term, index });
        }
        self.rows.push(Row { term, record_at: 0 });
    }
}
