//! What one segment holds, per group: kept in RAM while the segment is written, in its footer once it is sealed.
//!
//! A directory is the *net* effect of a segment: `cut_from` first removes what older segments hold from there on, then
//! the rows follow without a gap. Loading the directories in order therefore gives the state that replaying every record
//! in order would give.

use crate::batch::Placed;
use bytes::Bytes;
use raft_types::{GroupId, LogPosition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where one entry lies in its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) term: u64,
    pub(crate) record_at: u64,
}

/// Bytes of a row in a footer.
pub(crate) const ROW_BYTES: usize = 16;

/// What one segment says about one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupDirectory {
    /// Entries of older segments from here on are gone.
    pub(crate) cut_from: Option<u64>,
    /// Index of the first row.
    pub(crate) first: u64,
    pub(crate) rows: Vec<Row>,
    /// Where each term starts among the rows.
    pub(crate) terms: Vec<LogPosition>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) purged: Option<LogPosition>,
    /// Blocks: index and where the record lies.
    pub(crate) blocks: BTreeMap<u64, u64>,
}

impl GroupDirectory {
    fn truncate(&mut self, from: u64) {
        if from <= self.first || self.rows.is_empty() {
            self.rows.clear();
            self.terms.clear();
            self.cut_from = Some(self.cut_from.map_or(from, |cut| cut.min(from)));
        } else {
            self.rows.truncate((from - self.first) as usize);
            self.terms.retain(|start| start.index < from);
        }
    }

    fn push(&mut self, position: LogPosition, record_at: u64) {
        if self.rows.is_empty() {
            self.first = position.index;
        } else if position.index != self.first + self.rows.len() as u64 {
            // Only a purge beyond the end may leave a gap; older rows of this segment stay readable by no one.
            self.rows.clear();
            self.terms.clear();
            self.first = position.index;
        }
        if self.terms.last().is_none_or(|start| start.term != position.term) {
            self.terms.push(position);
        }
        self.rows.push(Row { term: position.term, record_at });
    }
}

/// What one segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) groups: BTreeMap<GroupId, GroupDirectory>,
}

impl Directory {
    /// Takes in one record, in the order of writing.
    pub(crate) fn apply(&mut self, placed: &Placed) {
        match placed {
            Placed::Entry { group, position, record_at } => self.of(*group).push(*position, *record_at),
            Placed::Vote { group, vote } => self.of(*group).vote = Some(vote.clone()),
            Placed::Committed { group, position } => self.of(*group).committed = Some(*position),
            Placed::Truncate { group, from } => self.of(*group).truncate(*from),
            Placed::Purge { group, upto } => self.of(*group).purged = Some(*upto),
            Placed::State { group, checkpoint } => {
                let own = self.of(*group);
                own.vote.clone_from(&checkpoint.vote);
                own.committed = checkpoint.committed;
                own.purged = checkpoint.purged;
            }
            Placed::Block { group, index, record_at } => _ = self.of(*group).blocks.insert(*index, *record_at),
        }
    }

    fn of(&mut self, group: GroupId) -> &mut GroupDirectory {
        self.groups.entry(group).or_default()
    }

    /// Bytes that the footer would take now, at most.
    pub(crate) fn footer_bytes_max(&self) -> u64 {
        let of = |group: &GroupDirectory| {
            160 + ((group.rows.len() + group.blocks.len()) * ROW_BYTES + group.terms.len() * 20) as u64
        };
        self.groups.values().map(of).sum::<u64>() + 64
    }

    /// The groups as a footer lists them.
    pub(crate) fn table(&self) -> Vec<FooterGroup> {
        let mut rows_at = 0u32;
        let mut blocks_at: u32 = self.groups.values().map(|own| (own.rows.len() * ROW_BYTES) as u32).sum();
        let mut table = Vec::with_capacity(self.groups.len());
        for (group, own) in &self.groups {
            table.push(FooterGroup {
                group: *group,
                cut_from: own.cut_from,
                first: own.first,
                rows: own.rows.len() as u32,
                rows_at,
                terms: own.terms.clone(),
                vote: own.vote.as_ref().map(|vote| vote.to_vec()),
                committed: own.committed,
                purged: own.purged,
                blocks: own.blocks.len() as u32,
                blocks_at,
                blocks_first: own.blocks.first_key_value().map_or(0, |(index, _)| *index),
                blocks_last: own.blocks.last_key_value().map_or(0, |(index, _)| *index),
            });
            rows_at += (own.rows.len() * ROW_BYTES) as u32;
            blocks_at += (own.blocks.len() * ROW_BYTES) as u32;
        }
        table
    }

    /// Bytes of the table in the footer.
    pub(crate) fn encode_table_bytes(&self) -> u32 {
        postcard::to_allocvec(&self.table()).unwrap_or_default().len() as u32
    }

    /// The footer: length of the table 4 | table (postcard) | rows | blocks.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let table = self.table();
        let rows_at: usize = self.groups.values().map(|own| (own.rows.len() + own.blocks.len()) * ROW_BYTES).sum();
        let table = postcard::to_allocvec(&table).unwrap_or_default(); // only an over-long sequence can fail, and these have lengths
        let mut out = Vec::with_capacity(4 + table.len() + rows_at);
        out.extend_from_slice(&(table.len() as u32).to_le_bytes());
        out.extend_from_slice(&table);
        for row in self.groups.values().flat_map(|own| &own.rows) {
            out.extend_from_slice(&row.term.to_le_bytes());
            out.extend_from_slice(&row.record_at.to_le_bytes());
        }
        for (index, record_at) in self.groups.values().flat_map(|own| &own.blocks) {
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&record_at.to_le_bytes());
        }
        out
    }

    /// The groups of a footer of `version`, and where its rows start, counted from the footer.
    pub(crate) fn decode(footer: &[u8], version: u8) -> Option<(Vec<FooterGroup>, u64)> {
        let (length, rest) = footer.split_first_chunk::<4>()?;
        let table = rest.get(..u32::from_le_bytes(*length) as usize)?;
        let groups: Vec<FooterGroup> = match version {
            1 => postcard::from_bytes::<Vec<FooterGroupV1>>(table).ok()?.into_iter().map(Into::into).collect(),
            _ => postcard::from_bytes(table).ok()?,
        };
        let rows_at = 4 + table.len();
        let of = |group: &FooterGroup| (u64::from(group.rows) + u64::from(group.blocks)) * ROW_BYTES as u64;
        let rows: u64 = groups.iter().map(of).sum();
        (rows == (footer.len() - rows_at) as u64).then_some((groups, rows_at as u64))
    }
}

/// One group in a footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FooterGroup {
    pub(crate) group: GroupId,
    pub(crate) cut_from: Option<u64>,
    pub(crate) first: u64,
    pub(crate) rows: u32,
    /// Counted from the first row of the footer.
    pub(crate) rows_at: u32,
    /// Where each term starts among the rows.
    pub(crate) terms: Vec<LogPosition>,
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) purged: Option<LogPosition>,
    /// Blocks, the first and the last index among them, and where their rows start, counted from the first row.
    pub(crate) blocks: u32,
    pub(crate) blocks_at: u32,
    pub(crate) blocks_first: u64,
    pub(crate) blocks_last: u64,
}

/// One group in a footer of version 1, which knew no blocks.
#[derive(Deserialize)]
struct FooterGroupV1 {
    group: GroupId,
    cut_from: Option<u64>,
    first: u64,
    rows: u32,
    rows_at: u32,
    terms: Vec<LogPosition>,
    vote: Option<Vec<u8>>,
    committed: Option<LogPosition>,
    purged: Option<LogPosition>,
}

impl From<FooterGroupV1> for FooterGroup {
    fn from(old: FooterGroupV1) -> Self {
        Self {
            group: old.group,
            cut_from: old.cut_from,
            first: old.first,
            rows: old.rows,
            rows_at: old.rows_at,
            terms: old.terms,
            vote: old.vote,
            committed: old.committed,
            purged: old.purged,
            blocks: 0,
            blocks_at: 0,
            blocks_first: 0,
            blocks_last: 0,
        }
    }
}

/// Where one group's rows lie in a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FooterRows {
    /// Index of the first row, and where it lies in the file.
    pub(crate) first: u64,
    pub(crate) rows_at: u64,
    /// Number of rows, and from where on entries of older segments are gone: what is left to know if the footer rots.
    pub(crate) rows: u32,
    pub(crate) cut_from: Option<u64>,
    /// Number of blocks, and where the first of their rows lies in the file.
    pub(crate) blocks: u32,
    pub(crate) blocks_at: u64,
}

impl FooterRows {
    /// The rows of `own`, in a file whose first row of all lies at `rows_at`.
    pub(crate) fn of(own: &FooterGroup, rows_at: u64) -> Self {
        Self {
            first: own.first,
            rows_at: rows_at + u64::from(own.rows_at),
            rows: own.rows,
            cut_from: own.cut_from,
            blocks: own.blocks,
            blocks_at: rows_at + u64::from(own.blocks_at),
        }
    }
}

/// The row in 16 bytes of a footer.
pub(crate) fn row(bytes: [u8; ROW_BYTES]) -> Row {
    let half = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    Row { term: half(0), record_at: half(8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn entry(term: u64, index: u64) -> Placed {
        Placed::Entry { group: GROUP, position: LogPosition { term, index }, record_at: term * 1_000 + index }
    }

    #[test]
    fn the_net_effect_of_truncations_is_one_cut_and_one_run() {
        let mut directory = Directory::default();
        for placed in [entry(1, 10), entry(1, 11), Placed::Truncate { group: GROUP, from: 11 }, entry(2, 11)] {
            directory.apply(&placed);
        }
        let own = &directory.groups[&GROUP];
        assert_eq!((own.cut_from, own.first, own.rows.len()), (None, 10, 2));
        for placed in [Placed::Truncate { group: GROUP, from: 7 }, entry(3, 7)] {
            directory.apply(&placed);
        }
        let own = &directory.groups[&GROUP];
        assert_eq!((own.cut_from, own.first, own.rows.len()), (Some(7), 7, 1));
    }

    #[test]
    fn a_footer_reads_back() {
        let mut directory = Directory::default();
        for placed in [entry(1, 4), entry(1, 5), Placed::Vote { group: GroupId(9), vote: Bytes::from_static(b"v") }] {
            directory.apply(&placed);
        }
        let footer = directory.encode();
        assert!(footer.len() as u64 <= directory.footer_bytes_max());
        let (groups, rows_at) = Directory::decode(&footer, 2).expect("own bytes");
        assert_eq!((groups[0].first, groups[0].rows, groups[1].rows), (4, 2, 0));
        let at = rows_at as usize + ROW_BYTES;
        assert_eq!(row(footer[at..at + ROW_BYTES].try_into().expect("16")), Row { term: 1, record_at: 1_005 });
        assert!(Directory::decode(&footer[..footer.len() - 1], 2).is_none());
    }
}
