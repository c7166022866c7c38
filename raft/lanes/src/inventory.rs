//! What a closed segment holds: its entries, its blocks, and what it says of each group, from the footer, from RAM, or,
//! where the footer is damaged, from the records themselves.

use crate::{
    batch::Placed,
    directory::{Directory, FooterGroup, FooterRows, ROW_BYTES, row},
    format::RecordKind,
    group::Group,
    segment::{Segment, read_exact},
    survey::Survey,
};
use bytes::Bytes;
use raft_types::{GroupId, LogPosition};
use std::{collections::BTreeMap, io};

/// Rows read from a footer at a time.
const ROWS_AT_ONCE: usize = 4096;

/// One entry or block, and where its record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    /// `Entry` or `Block`.
    pub(crate) kind: RecordKind,
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    /// 0 for blocks.
    pub(crate) term: u64,
    /// 0 when the record is lost.
    pub(crate) record_at: u64,
}

/// What a segment says of one group besides its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Net {
    pub(crate) cut_from: Option<u64>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) purged: Option<LogPosition>,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) rows: Vec<Located>,
    pub(crate) nets: BTreeMap<GroupId, Net>,
}

impl Inventory {
    pub(crate) fn of_directory(directory: &Directory) -> Self {
        let net = |table: &FooterGroup| Net {
            cut_from: table.cut_from,
            vote: table.vote.clone().map(Bytes::from),
            committed: table.committed,
            purged: table.purged,
        };
        let nets = directory.table().iter().map(|own| (own.group, net(own))).collect();
        Self { rows: rows_in_directory(directory), nets }
    }

    pub(crate) fn of_footer(segment: &Segment, groups: &[FooterGroup], rows_at: u64) -> io::Result<Self> {
        let nets = groups.iter().map(|own| {
            let vote = own.vote.clone().map(Bytes::from);
            (own.group, Net { cut_from: own.cut_from, vote, committed: own.committed, purged: own.purged })
        });
        Ok(Self { nets: nets.collect(), rows: rows_in_footer(segment, groups, rows_at)? })
    }

    /// From the records, where the footer cannot be read any more. What the footer said is known in part: how many rows each
    /// group has, and from where older ones are gone. A row whose record is damaged keeps its place, with `record_at` 0.
    pub(crate) fn of_records(
        segment: &Segment,
        end: u64,
        last: u64,
        known: &BTreeMap<GroupId, FooterRows>,
        groups: &BTreeMap<GroupId, Group>,
    ) -> io::Result<Self> {
        let mut survey = Survey::new(segment.clone(), end, None, last);
        let mut nets: BTreeMap<GroupId, Net> = BTreeMap::new();
        let mut entries: BTreeMap<GroupId, BTreeMap<u64, (u64, u64)>> = BTreeMap::new();
        let mut blocks: BTreeMap<(GroupId, u64), u64> = BTreeMap::new();
        while let Some(batch) = survey.next()? {
            for placed in batch.records.iter().filter_map(crate::survey::Sound::placed) {
                match placed {
                    Placed::Entry { group, position, record_at } => {
                        let own = entries.entry(group).or_default();
                        own.split_off(&position.index); // an entry again at an index: what was behind is cut
                        own.insert(position.index, (position.term, record_at));
                    }
                    Placed::Block { group, index, record_at } => _ = blocks.insert((group, index), record_at),
                    Placed::Vote { group, vote } => nets.entry(group).or_default().vote = Some(vote),
                    Placed::Committed { group, position } => {
                        nets.entry(group).or_default().committed = Some(position);
                    }
                    Placed::Purge { group, upto } => nets.entry(group).or_default().purged = Some(upto),
                    Placed::State { group, checkpoint } => {
                        let own = nets.entry(group).or_default();
                        (own.vote, own.committed, own.purged) =
                            (checkpoint.vote, checkpoint.committed, checkpoint.purged);
                    }
                    Placed::Truncate { .. } => {} // known, and the rows tell
                }
            }
        }
        let mut rows = Vec::new();
        for (group, known) in known {
            nets.entry(*group).or_default().cut_from = known.cut_from;
            let (own, now) = (entries.get(group), groups.get(group));
            for index in known.first..known.first + u64::from(known.rows) {
                let found = own.and_then(|own| own.get(&index)).copied();
                let position = now.and_then(|now| now.position(index));
                let is_here = now.and_then(|now| now.run(index)).is_some_and(|run| run.segment == segment.sequence);
                // One that was cut may be sound where the one that took its index is not.
                let was_cut = |term| is_here && position.is_some_and(|position| position.term != term);
                let found = found.filter(|(term, _)| !was_cut(*term));
                let (term, record_at) = found.unwrap_or((position.map_or(0, |position| position.term), 0));
                rows.push(Located { kind: RecordKind::Entry, group: *group, index, term, record_at });
            }
        }
        rows.extend(blocks.into_iter().map(|((group, index), record_at)| Located {
            kind: RecordKind::Block,
            group,
            index,
            term: 0,
            record_at,
        }));
        Ok(Self { rows, nets })
    }
}

pub(crate) fn rows_in_directory(directory: &Directory) -> Vec<Located> {
    let mut rows = Vec::new();
    for (group, own) in &directory.groups {
        rows.extend(own.rows.iter().enumerate().map(|(number, row)| Located {
            kind: RecordKind::Entry,
            group: *group,
            index: own.first + number as u64,
            term: row.term,
            record_at: row.record_at,
        }));
        rows.extend(own.blocks.iter().map(|(index, record_at)| Located {
            kind: RecordKind::Block,
            group: *group,
            index: *index,
            term: 0,
            record_at: *record_at,
        }));
    }
    rows
}

pub(crate) fn rows_in_footer(segment: &Segment, groups: &[FooterGroup], rows_at: u64) -> io::Result<Vec<Located>> {
    let mut rows = Vec::new();
    for own in groups {
        for (count, from, kind) in
            [(own.rows, own.rows_at, RecordKind::Entry), (own.blocks, own.blocks_at, RecordKind::Block)]
        {
            let mut done = 0;
            while done < count as usize {
                let some = (count as usize - done).min(ROWS_AT_ONCE);
                let mut bytes = vec![0; some * ROW_BYTES];
                read_exact(&*segment.file, rows_at + u64::from(from) + (done * ROW_BYTES) as u64, &mut bytes)?;
                for (number, sixteen) in bytes.as_chunks::<ROW_BYTES>().0.iter().enumerate() {
                    let row = row(*sixteen);
                    let (index, term) = match kind {
                        RecordKind::Block => (row.term, 0),
                        _ => (own.first + (done + number) as u64, row.term),
                    };
                    rows.push(Located { kind, group: own.group, index, term, record_at: row.record_at });
                }
                done += some;
            }
        }
    }
    Ok(rows)
}
