//! Rewriting a closed segment: compaction, and the mending of what scrub found.
//!
//! ```text
//!   segment-N.lane ─ what is still needed, in the order in which it lies ─► segment-N.lane.new
//!        header, metas and bodies written ─► fsync ─► read back and verified, past the page cache
//!        ─► rename over segment-N.lane ─► fsync of the folder ─► readers get the new one; who reads the old one goes on
//! ```
//!
//! | the machine stops… | the next start finds |
//! |---|---|
//! | before the rename | the old segment, whole; the `.new` file is removed |
//! | between rename and fsync of the folder | one or the other: both are whole and say the same |
//! | after it | the new one |
//!
//! What is kept of an entry (*purged*: at or below the group's durable purge; *spent*: applied, and named by no row):
//!
//! | entry | head | body |
//! |---|---|---|
//! | of the log | stays | stays; of a single node, whose log is never purged, it goes when it is spent |
//! | cut by a later truncation | stays | goes |
//! | purged | goes, but for the last one of each group, which says where the group ended here | becomes a block, or goes when it is spent |
//! | damaged, with a sound block elsewhere | as above | goes: the block answers |
//! | damaged, with no other copy | as above | stays as it lies, and stays damaged |
//!
//! Invariants
//! - **C1** A rewrite changes neither what the log says nor what any read of a needed body answers.
//! - **C2** The old file goes only after the new one was read back whole.
//! - **C3** The new segment keeps sequence, first and last batch as the neighbours name them: the chain between segments holds.
//! - **C4** A head that is needed and cannot be read is never left out: the rewrite is refused until a peer has given it.
//! - **C5** Only a segment with a successor is rewritten: votes and positions stand in the successor's first batch too.

use crate::{
    Finding, Lane,
    directory::FooterRows,
    format::RecordKind,
    group::Group,
    inventory::{Inventory, Located},
    lane::{Close, Held, Rows},
    rewrite::{New, verify},
    sabotage::{self, Sabotage},
    segment::{self, Segment, SegmentError},
};
use bytes::Bytes;
use raft_types::GroupId;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

/// What a file is called until it takes a segment's place.
const SUFFIX: &str = ".new";

/// What of one group's bodies is still needed. Whoever makes this reads `upto` first and `live` afterwards: a body at or
/// below `upto` that no row names then is named never again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// Entries up to this index are applied, and their rows survive a power loss.
    pub upto: u64,
    /// The indexes up to there whose bodies rows name, ascending.
    pub live: Vec<u64>,
    /// Whether bodies of entries that are not purged go too: on a single node, where no peer asks for them.
    pub alone: bool,
}

impl Spent {
    fn is_live(&self, index: u64) -> bool {
        self.live.binary_search(&index).is_ok()
    }
}

/// The head of an entry, as a peer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Term of the entry.
    pub term: u64,
    /// What kind of entry, in the words of whoever appended it.
    pub kind: u8,
    /// The head.
    pub head: Bytes,
    /// Bytes of the body, which is kept apart as a block, unless it is here.
    pub body_len: u32,
    /// The body of an entry that may not be committed yet, and so must not be kept as a block.
    pub body: Option<Bytes>,
}

/// Why a segment was not rewritten; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// There is no closed segment of this sequence.
    #[error("segment {0} is not there, or still written")]
    Gone(u64),
    /// It is the newest: see [`Lane::turn`].
    #[error("segment {0} is the newest one")]
    Newest(u64),
    /// Records that are needed cannot be read: a peer must give them first.
    #[error("{} records that are needed are damaged", .0.len())]
    Lost(Vec<Finding>),
    /// Whoever paces the rewrite has stopped it.
    #[error("stopped")]
    Stopped,
    /// The new file was not what was written.
    #[error("the rewritten segment did not read back: {0}")]
    NotVerified(String),
    /// The disk did not do it.
    #[error("could not {step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What a rewrite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrote {
    /// Bytes of the segment before.
    pub bytes_before: u64,
    /// Bytes of it now; 0 when it is gone.
    pub bytes_after: u64,
    /// Bodies that are damaged here and stay so: no sound copy is here.
    pub damaged: u64,
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Whole,
    /// It stays; its body goes if it is damaged, for no row needs it.
    WholeOrHead,
    /// The head stays, the body goes.
    Head,
    /// The body becomes a block, the head goes.
    Block,
    /// The head stays without the body, which becomes a block.
    HeadAndBlock,
    Gone,
}

/// A segment as it is when its rewrite begins.
pub(crate) struct Old {
    pub(crate) segment: Segment,
    pub(crate) close: Close,
    pub(crate) before: Option<(u64, u32)>,
    pub(crate) oldest: bool,
    pub(crate) inventory: Inventory,
    /// Rows that answer readers now: those of others are cut.
    pub(crate) current: BTreeSet<(GroupId, u64)>,
    pub(crate) purged: BTreeMap<GroupId, u64>,
    pub(crate) bytes: u64,
}

pub(crate) fn failed(step: &'static str) -> impl FnOnce(io::Error) -> RewriteError {
    move |source| RewriteError::Io { step, source }
}

impl Lane {
    /// Rewrites the closed segment `sequence`: without what is spent, and with what was damaged mended by `heads` and by
    /// sound copies that lie elsewhere on this disk. `pace` is called with the bytes moved, and stops the rewrite by
    /// answering false. Blocking; one at a time.
    pub fn rewrite(
        &self,
        sequence: u64,
        spent: &BTreeMap<GroupId, Spent>,
        heads: &BTreeMap<(GroupId, u64), Head>,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Rewrote, RewriteError> {
        let _one_at_a_time = self.shared.rewriting.lock();
        let old = self.old(sequence)?;
        let fates = self.fates(&old, spent);
        if old.oldest && self.is_needless(&old, &fates) {
            return self.remove(&old);
        }
        let disk = Arc::clone(&self.shared.disk);
        let name = format!("{}{SUFFIX}", old.segment.name);
        if disk.open(&name).is_ok() {
            disk.remove(&name).map_err(failed("remove an old file"))?; // of a rewrite that failed
        }
        let file = disk.create(&name).map_err(failed("create the new file"))?;
        let written = self.write_new(&old, &fates, heads, file, pace).and_then(|(header, new, damaged)| {
            if !sabotage::is(self.shared.sabotage, Sabotage::EvictBeforeVerify) {
                verify(&old, &header, &new, damaged, pace)?;
            }
            Ok((new, damaged))
        });
        let (new, damaged) = match written {
            Ok(written) => written,
            Err(error) => {
                if let Err(error) = disk.remove(&name) {
                    tracing::warn!(name, %error, "the file of a rewrite that failed stays until the next start");
                }
                return Err(error);
            }
        };
        disk.rename(&name, &old.segment.name).map_err(failed("put the new file in its place"))?;
        if let Err(source) = disk.sync_names() {
            // What the folder says now is not known: as after any failed sync, nothing is promised from here on.
            self.shared.state.lock().failed.get_or_insert_with(|| format!("sync of the folder: {source}"));
            return Err(RewriteError::Io { step: "sync the folder", source });
        }
        let bytes_after = new.file.len().map_err(failed("measure the new file"))?;
        self.swap(&old, new);
        Ok(Rewrote { bytes_before: old.bytes, bytes_after, damaged })
    }

    fn old(&self, sequence: u64) -> Result<Old, RewriteError> {
        let mut known: Option<BTreeMap<GroupId, FooterRows>> = None;
        let mut inventory = Inventory::default();
        let (segment, close, before, oldest) = {
            let state = self.shared.state.lock();
            let held = state.segments.get(&sequence).ok_or(RewriteError::Gone(sequence))?;
            let close = held.close.ok_or(RewriteError::Gone(sequence))?;
            if state.segments.range(sequence + 1..).next().is_none() {
                return Err(RewriteError::Newest(sequence)); // C5
            }
            match &held.rows {
                Rows::Ram(directory) => inventory = Inventory::of_directory(directory),
                Rows::Footer(rows) => known = Some(rows.clone()),
            }
            let before = state.segments.range(..sequence).next_back();
            let oldest = before.is_none();
            (held.segment.clone(), close, before.and_then(|(_, held)| held.close).map(|own| own.last), oldest)
        };
        let read = failed("read the segment");
        if let Some(known) = known {
            let footer = match segment.footer() {
                Ok(footer) => footer,
                Err(SegmentError::Io(error)) => return Err(read(error)),
                Err(SegmentError::Damaged(_)) => None,
            };
            inventory = match footer {
                Some((_, groups, rows_at)) => Inventory::of_footer(&segment, &groups, rows_at),
                None => {
                    let groups = {
                        let state = self.shared.state.lock();
                        let written = |own: &Group| Group { runs: own.runs.clone(), ..own.written() };
                        state.groups.iter().map(|(group, own)| (*group, written(own))).collect()
                    };
                    Inventory::of_records(&segment, close.end, close.last.0, &known, &groups)
                }
            }
            .map_err(read)?;
        }
        let bytes = segment.file.len().map_err(failed("measure the segment"))?;
        let state = self.shared.state.lock();
        let is_current = |row: &&Located| {
            row.kind == RecordKind::Entry
                && state
                    .groups
                    .get(&row.group)
                    .and_then(|own| own.run(row.index))
                    .is_some_and(|run| run.segment == sequence)
        };
        let current = inventory.rows.iter().filter(is_current).map(|row| (row.group, row.index)).collect();
        let purged = state.groups.iter().filter_map(|(group, own)| Some((*group, own.purged_durable?.index))).collect();
        Ok(Old { segment, close, before, oldest, inventory, current, purged, bytes })
    }

    /// What becomes of each row, in the order in which they lie.
    fn fates(&self, old: &Old, spent: &BTreeMap<GroupId, Spent>) -> Vec<(Located, Fate)> {
        let mut last: BTreeMap<GroupId, u64> = BTreeMap::new();
        for row in old.inventory.rows.iter().filter(|row| row.kind == RecordKind::Entry) {
            last.insert(row.group, row.index);
        }
        let mut fates: Vec<(Located, Fate)> = Vec::with_capacity(old.inventory.rows.len());
        for row in &old.inventory.rows {
            let own = spent.get(&row.group).filter(|own| row.index <= own.upto);
            let fate = match row.kind {
                RecordKind::Block => {
                    let superseded = || self.has_sound_block(row.group, row.index, |at| at > old.segment.sequence);
                    match own {
                        Some(own) if !own.is_live(row.index) => Fate::Gone,
                        _ if superseded() => Fate::Gone,
                        _ => Fate::Whole,
                    }
                }
                _ => {
                    let current = old.current.contains(&(row.group, row.index));
                    let is_last = last.get(&row.group) == Some(&row.index);
                    let purged = old.purged.get(&row.group).is_some_and(|purged| row.index <= *purged);
                    match own {
                        Some(own) if purged => {
                            let needed = current
                                && own.is_live(row.index)
                                && !self.has_sound_block(row.group, row.index, |_| true);
                            match (needed, is_last) {
                                (true, true) => Fate::HeadAndBlock,
                                (true, false) => Fate::Block,
                                (false, true) => Fate::Head,
                                (false, false) => Fate::Gone,
                            }
                        }
                        _ if !current => Fate::Head,
                        Some(own) if own.alone && !own.is_live(row.index) => Fate::Head,
                        Some(own) if !own.is_live(row.index) => Fate::WholeOrHead,
                        _ => Fate::Whole,
                    }
                }
            };
            fates.push((*row, fate));
        }
        // As they lie, and each group's entries in their order also where a record is lost and its place with it.
        let mut reached: BTreeMap<GroupId, u64> = BTreeMap::new();
        fates.sort_by_cached_key(|(row, _)| match row.kind {
            RecordKind::Block => (row.record_at, 0),
            _ => {
                let at = reached.entry(row.group).or_default();
                *at = row.record_at.max(*at);
                (*at, row.index)
            }
        });
        fates
    }

    /// Whether nothing of the segment is needed: no body, and no head that the log may still ask for.
    fn is_needless(&self, old: &Old, fates: &[(Located, Fate)]) -> bool {
        fates.iter().all(|(row, fate)| match fate {
            Fate::Gone => true,
            Fate::Head => old.purged.get(&row.group).is_some_and(|purged| row.index <= *purged),
            Fate::Whole | Fate::WholeOrHead | Fate::Block | Fate::HeadAndBlock => false,
        })
    }

    /// Removes the oldest segment. Its successor's first batch says all that is left of it.
    fn remove(&self, old: &Old) -> Result<Rewrote, RewriteError> {
        let disk = &self.shared.disk;
        disk.remove(&old.segment.name).map_err(failed("remove the segment"))?;
        if let Err(source) = disk.sync_names() {
            self.shared.state.lock().failed.get_or_insert_with(|| format!("sync of the folder: {source}"));
            return Err(RewriteError::Io { step: "sync the folder", source });
        }
        let mut state = self.shared.state.lock();
        state.segments.remove(&old.segment.sequence);
        for own in state.groups.values_mut() {
            own.rewritten(old.segment.sequence, None, None);
        }
        Ok(Rewrote { bytes_before: old.bytes, bytes_after: 0, damaged: 0 })
    }

    /// Makes readers see the new segment.
    fn swap(&self, old: &Old, new: New) {
        let sequence = old.segment.sequence;
        let table = new.directory.table();
        let footer_table = u64::from(new.directory.encode_table_bytes());
        let rows_at = new.at + 4 + footer_table;
        let rows: BTreeMap<GroupId, FooterRows> =
            table.iter().map(|own| (own.group, FooterRows::of(own, rows_at))).collect();
        let segment = Segment { file: new.file, ..old.segment.clone() };
        let close = Some(Close { end: new.at, last: old.close.last });
        let mut state = self.shared.state.lock();
        let held = Held { segment, rows: Rows::Footer(rows), close, damaged: None };
        state.segments.insert(sequence, held);
        for (group, own) in &mut state.groups {
            let table = table.iter().find(|table| table.group == *group);
            let rows = table
                .filter(|table| table.rows > 0)
                .map(|table| (table.first, table.first + u64::from(table.rows) - 1));
            let blocks = table.filter(|table| table.blocks > 0).map(|table| (table.blocks_first, table.blocks_last));
            own.rewritten(sequence, rows, blocks);
        }
    }
}

/// Removes what a rewrite left that did not come to its end.
pub(crate) fn remove_unfinished(disk: &dyn raft_types::Disk) -> io::Result<()> {
    for name in disk.list()? {
        if name.strip_suffix(SUFFIX).is_some_and(|name| segment::sequence(name).is_some()) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}
