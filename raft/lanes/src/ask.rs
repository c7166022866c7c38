//! What scrub and compaction ask of a lane besides the bytes: where entries lie, what is needed of a segment, what is damaged.

use crate::{
    Lane, LaneError, Spent,
    directory::ROW_BYTES,
    format::RecordKind,
    lane::{Held, Rows},
    segment::read_exact,
};
use raft_types::{GroupId, LogPosition};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// What a record takes besides its body, about: header, head, and its share of tables and padding.
const HEAD_BYTES: u64 = 256;

impl Lane {
    /// Whether some copy of the body at `index` is whole: all of it is read.
    #[must_use]
    pub fn has_whole_body(&self, group: GroupId, index: u64) -> bool {
        self.has_sound_block(group, index, |_| true) || self.has_sound_entry(group, index)
    }

    /// Whether some copy of the body at `index` apart from the log is whole: all of it is read.
    #[must_use]
    pub fn has_whole_block(&self, group: GroupId, index: u64) -> bool {
        self.has_sound_block(group, index, |_| true)
    }

    /// The entries behind `applied` whose heads are damaged.
    #[must_use]
    pub fn damaged_heads(&self, group: GroupId, applied: Option<u64>) -> Vec<u64> {
        let state = self.state(group);
        let Some(last) = state.last.filter(|last| last.index >= state.first) else { return Vec::new() };
        let from = applied.map_or(state.first, |applied| (applied + 1).max(state.first));
        (from..=last.index).filter(|index| self.has_damaged_head(group, *index)).collect()
    }

    /// Whether the head of the entry at `index` is damaged.
    #[must_use]
    pub fn has_damaged_head(&self, group: GroupId, index: u64) -> bool {
        matches!(self.entries(group, index..index + 1, 0), Err(LaneError::Damaged(_)))
    }

    /// The segment in which the entry at `index` lies.
    #[must_use]
    pub fn segment_of(&self, group: GroupId, index: u64) -> Option<u64> {
        Some(self.shared.state.lock().groups.get(&group)?.run(index)?.segment)
    }

    /// The last position of each term in `range`, in order: no entry is read.
    #[must_use]
    pub fn ends_of_terms(&self, group: GroupId, range: RangeInclusive<LogPosition>) -> Vec<LogPosition> {
        let state = self.shared.state.lock();
        let Some(own) = state.groups.get(&group) else { return Vec::new() };
        let starts = own.terms.iter().filter(|start| start.index > range.start().index && *start <= range.end());
        let mut ends: Vec<LogPosition> = starts.filter_map(|start| own.position(start.index - 1)).collect();
        ends.push(*range.end());
        ends
    }

    /// The groups that have entries or blocks in a closed segment.
    #[must_use]
    pub fn groups_of(&self, sequence: u64) -> BTreeSet<GroupId> {
        let state = self.shared.state.lock();
        match state.segments.get(&sequence).map(|held| &held.rows) {
            Some(Rows::Footer(groups)) => {
                groups.iter().filter(|(_, own)| own.rows > 0 || own.blocks > 0).map(|(group, _)| *group).collect()
            }
            Some(Rows::Ram(directory)) => {
                let own = directory.groups.iter().filter(|(_, own)| !own.rows.is_empty() || !own.blocks.is_empty());
                own.map(|(group, _)| *group).collect()
            }
            None => BTreeSet::new(),
        }
    }

    /// How many bytes of each closed segment are needed for `group`: an estimate. `live` are the bodies that its rows name,
    /// ascending, with their lengths; without `spent` all of it is needed. Reads the rows of blocks, and no record.
    #[must_use]
    pub fn needed_bytes(&self, group: GroupId, spent: Option<&Spent>, live: &[(u64, u32)]) -> BTreeMap<u64, u64> {
        let mut needed = BTreeMap::new();
        for closed in self.closed_segments() {
            let Some((rows, blocks, average)) = self.rows_of(group, closed.sequence, closed.bytes) else { continue };
            let length =
                |index: u64| live.binary_search_by_key(&index, |own| own.0).ok().map(|at| u64::from(live[at].1));
            let log_from = match spent {
                Some(spent) if spent.alone => spent.upto + 1,
                Some(spent) => self.state(group).purged.map_or(0, |purged| purged.index.min(spent.upto) + 1),
                None => 0,
            };
            let mut bytes = 0;
            for (current, index) in rows {
                let heads = if spent.is_some_and(|own| own.alone) { HEAD_BYTES } else { 0 };
                bytes += match (index >= log_from, current, length(index)) {
                    (true, ..) => average,
                    (false, true, Some(length)) => length + HEAD_BYTES,
                    (false, ..) => heads,
                };
            }
            for index in blocks {
                bytes += match (spent.is_none_or(|own| index > own.upto), length(index)) {
                    (true, _) => average,
                    (false, Some(length)) => length + HEAD_BYTES,
                    (false, None) => 0,
                };
            }
            needed.insert(closed.sequence, bytes);
        }
        needed
    }

    /// The entries (and whether they answer readers now) and the blocks of `group` in a segment, and the bytes that a
    /// record of the segment takes on average.
    #[expect(clippy::type_complexity, reason = "one private caller takes it apart at once")]
    fn rows_of(&self, group: GroupId, sequence: u64, bytes: u64) -> Option<(Vec<(bool, u64)>, Vec<u64>, u64)> {
        let (segment, known, rows) = {
            let state = self.shared.state.lock();
            let Held { segment, rows, .. } = state.segments.get(&sequence)?;
            let own = state.groups.get(&group)?;
            let is_current = |index| own.run(index).is_some_and(|run| run.segment == sequence);
            match rows {
                Rows::Footer(groups) => {
                    let all: u64 = groups.values().map(|own| u64::from(own.rows) + u64::from(own.blocks)).sum();
                    let own = *groups.get(&group)?;
                    let range = own.first..own.first + u64::from(own.rows);
                    let rows = range.map(|index| (is_current(index), index)).collect();
                    (segment.clone(), Some((own, all)), rows)
                }
                Rows::Ram(directory) => {
                    let located = crate::inventory::rows_in_directory(directory);
                    let average = bytes / (located.len() as u64).max(1);
                    let of = |kind| located.iter().filter(move |row| row.group == group && row.kind == kind);
                    let rows = of(RecordKind::Entry).map(|row| (is_current(row.index), row.index)).collect();
                    let blocks = of(RecordKind::Block).map(|row| row.index).collect();
                    return Some((rows, blocks, average));
                }
            }
        };
        let (own, all) = known?;
        let mut table = vec![0; own.blocks as usize * ROW_BYTES];
        read_exact(&*segment.file, own.blocks_at, &mut table).ok()?;
        let blocks = table.as_chunks::<ROW_BYTES>().0.iter().map(|row| crate::directory::row(*row).term).collect();
        Some((rows, blocks, bytes / all.max(1)))
    }
}
