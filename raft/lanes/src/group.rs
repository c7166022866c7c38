//! One group as readers see it: what lies in segments, and in front of it the overlay of what is still being written.

use crate::{Body, ThinEntry, directory::FooterGroup, segment::GroupCheckpoint};
use bytes::Bytes;
use raft_types::LogPosition;
use std::collections::BTreeMap;

/// An entry that is readable but not yet durable.
#[derive(Clone)]
pub(crate) struct Pending {
    pub(crate) term: u64,
    pub(crate) kind: u8,
    pub(crate) head: Bytes,
    pub(crate) body: Body,
    /// Which submission it was: a rewritten index has another.
    pub(crate) ticket: u64,
}

impl Pending {
    pub(crate) fn thin(&self, index: u64) -> ThinEntry {
        ThinEntry {
            position: LogPosition { term: self.term, index },
            kind: self.kind,
            head: self.head.clone(),
            body_len: self.body.len(),
            elided: self.body.is_elided(),
        }
    }
}

/// Entries `first..=last` lie in segment `segment`; of blocks it may hold some of these only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) segment: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// One group.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) purged: Option<LogPosition>,
    /// How much of that survives a crash.
    pub(crate) purged_durable: Option<LogPosition>,
    pub(crate) last: Option<LogPosition>,
    /// Ascending, without overlap; only a purge beyond the end leaves a gap.
    pub(crate) runs: Vec<Run>,
    /// Segments with blocks of this group, oldest first, and which indexes those have.
    pub(crate) blocks: Vec<Run>,
    /// A suffix of the log.
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Durable entries still in RAM, because peers and apply ask for them at once.
    pub(crate) recent: BTreeMap<u64, Pending>,
    /// Newest position per term that is held: terms only grow, so this finds the term of any index.
    pub(crate) terms: Vec<LogPosition>,
    pub(crate) waiters: Vec<(u64, crate::Done)>,
}

impl Group {
    /// The first index that a log reader may ask for.
    pub(crate) fn first(&self) -> u64 {
        match self.purged {
            Some(purged) => purged.index + 1,
            None => self.runs.first().map(|run| run.first).or(self.pending.keys().next().copied()).unwrap_or(0),
        }
    }

    /// Newest entry that is durable: everything in front of the overlay.
    pub(crate) fn durable(&self) -> Option<LogPosition> {
        match self.pending.keys().next() {
            None => self.last,
            Some(0) => None,
            Some(first) => self.position(first - 1),
        }
    }

    /// The position of the entry at `index`, if the log has one.
    pub(crate) fn position(&self, index: u64) -> Option<LogPosition> {
        if self.purged.is_some_and(|purged| index < purged.index) {
            return None; // after a snapshot the terms of what it stands for are not known
        }
        if let Some(purged) = self.purged.filter(|purged| purged.index == index) {
            return Some(purged); // compaction may have dropped the entry itself
        }
        if self.last.is_none_or(|last| index > last.index) {
            return None;
        }
        let at = self.terms.partition_point(|start| start.index <= index);
        at.checked_sub(1).map(|at| LogPosition { term: self.terms[at].term, index })
    }

    /// Takes in an entry behind the last.
    pub(crate) fn push(&mut self, position: LogPosition) {
        if self.terms.last().is_none_or(|start| start.term != position.term) {
            self.terms.push(position);
        }
        self.last = Some(position);
    }

    /// Forgets the entries from `from` on, as readers see them.
    pub(crate) fn cut(&mut self, from: u64) {
        self.pending.split_off(&from);
        self.recent.split_off(&from);
        self.terms.retain(|start| start.index < from);
        if self.last.is_some_and(|last| last.index >= from) {
            self.last = match from.checked_sub(1) {
                None => None,
                Some(index) => self
                    .terms
                    .last()
                    .map(|start| LogPosition { term: start.term, index })
                    .or(self.purged.filter(|purged| purged.index == index)),
            };
        }
    }

    /// Forgets what segments hold from `from` on.
    pub(crate) fn cut_runs(&mut self, from: u64) {
        while let Some(run) = self.runs.last_mut() {
            if run.first >= from {
                self.runs.pop();
            } else {
                run.last = run.last.min(from - 1);
                break;
            }
        }
    }

    /// Takes in that `index` now lies in `segment`.
    pub(crate) fn placed(&mut self, segment: u64, index: u64) {
        match self.runs.last_mut() {
            Some(run) if run.segment == segment && run.last + 1 == index => run.last = index,
            _ => self.runs.push(Run { segment, first: index, last: index }),
        }
    }

    /// Takes in that the block `index` now lies in `segment`.
    pub(crate) fn placed_block(&mut self, segment: u64, index: u64) {
        match self.blocks.last_mut() {
            Some(run) if run.segment == segment => {
                run.first = run.first.min(index);
                run.last = run.last.max(index);
            }
            _ => self.blocks.push(Run { segment, first: index, last: index }),
        }
    }

    /// Takes in that `segment` was rewritten: which entries and which blocks it has now.
    pub(crate) fn rewritten(&mut self, segment: u64, rows: Option<(u64, u64)>, blocks: Option<(u64, u64)>) {
        self.runs.retain_mut(|run| {
            if run.segment != segment {
                return true;
            }
            let Some((first, last)) = rows else { return false };
            (run.first, run.last) = (run.first.max(first), run.last.min(last));
            run.first <= run.last
        });
        self.blocks.retain(|run| run.segment != segment);
        if let Some((first, last)) = blocks {
            let at = self.blocks.partition_point(|run| run.segment < segment);
            self.blocks.insert(at, Run { segment, first, last });
        }
    }

    /// Takes in what a segment says when the lane opens.
    pub(crate) fn load(&mut self, segment: u64, own: &FooterGroup) {
        if let Some(from) = own.cut_from {
            self.cut(from);
            self.cut_runs(from);
        }
        if own.rows > 0 {
            self.runs.push(Run { segment, first: own.first, last: own.first + u64::from(own.rows) - 1 });
            for start in &own.terms {
                if self.terms.last().is_none_or(|last| last.term != start.term) {
                    self.terms.push(*start);
                }
            }
            let term = own.terms.last().map_or(0, |start| start.term);
            self.last = Some(LogPosition { term, index: own.first + u64::from(own.rows) - 1 });
        }
        if own.blocks > 0 {
            self.blocks.push(Run { segment, first: own.blocks_first, last: own.blocks_last });
        }
        if let Some(vote) = &own.vote {
            self.vote = Some(Bytes::copy_from_slice(vote));
        }
        self.committed = own.committed.or(self.committed);
        self.purged = own.purged.or(self.purged);
        self.purged_durable = self.purged;
        if let Some(purged) = self.purged
            && self.last.is_none_or(|last| last.index < purged.index)
        {
            self.last = Some(purged);
        }
    }

    /// What a new segment says about the group.
    pub(crate) fn checkpoint(&self) -> GroupCheckpoint {
        GroupCheckpoint { vote: self.vote.clone(), committed: self.committed, purged: self.purged, last: self.last }
    }

    /// The group as the disk knows it: without overlay, runs and waiters.
    pub(crate) fn written(&self) -> Self {
        Self {
            vote: self.vote.clone(),
            committed: self.committed,
            purged: self.purged,
            last: self.last,
            terms: self.terms.clone(),
            ..Self::default()
        }
    }

    /// The run that holds `index`.
    pub(crate) fn run(&self, index: u64) -> Option<Run> {
        let at = self.runs.partition_point(|run| run.first <= index);
        self.runs.get(at.checked_sub(1)?).copied().filter(|run| index <= run.last)
    }

    /// Whether everything up to `index` is durable; `None` if there is no such entry any more.
    pub(crate) fn is_durable(&self, index: u64) -> Option<bool> {
        if self.last.is_none_or(|last| index > last.index) {
            return None;
        }
        Some(self.pending.keys().next().is_none_or(|first| *first > index))
    }
}
