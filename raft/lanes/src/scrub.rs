//! Scrub: verifies one closed segment past the page cache, in small steps, so that whoever drives it may pause between.
//!
//! ```text
//!   header page ─► footer, trailer ─► batch: header, chain, meta, records, padding ─► its bodies, 64 KiB at a time ─► …
//!                                                                     ─► BLAKE3 over all metas ─► rows point at records
//! ```
//!
//! Every byte of the file is under one of these, padding and unused parts of pages (which must be zero) included, so any
//! flipped bit is found. Nothing is changed: what a finding means is the driver's to decide.

use crate::{
    Lane, LaneError,
    directory::{Directory, FooterGroup},
    format::{BODY_CRC_BYTES, PAGE_BYTES, RecordKind, SegmentHeader, TRAILER_BYTES, Trailer},
    inventory::Located,
    lane::{Close, Rows},
    segment::{Segment, SegmentError},
    survey::{Sound, Survey, Surveyed},
};
use raft_types::GroupId;
use std::{
    collections::{BTreeSet, VecDeque},
    io,
};

/// Findings of one segment that are listed; what is behind them is found again once these are mended.
const FINDINGS_MAX: usize = 65_536;

/// Something that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// The page that opens the segment. Nothing is lost with it.
    Header,
    /// A batch: its header, its place in the chain, a record that is no entry, or what should be zero.
    Batch {
        /// Where it stands in the segment.
        at: u64,
    },
    /// The record of an entry: what the log needs of it, and where its body lies.
    Head {
        /// The group.
        group: GroupId,
        /// The entry.
        index: u64,
    },
    /// A body, or the record of a block.
    Body {
        /// The group.
        group: GroupId,
        /// The entry whose body it is.
        index: u64,
    },
    /// Footer or trailer. Nothing is lost with it: the batches say the same.
    Footer,
}

impl Finding {
    /// What kind it is, for metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Batch { .. } => "batch",
            Self::Head { .. } => "head",
            Self::Body { .. } => "body",
            Self::Footer => "footer",
        }
    }
}

/// What one segment was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Sequence of the segment.
    pub sequence: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// What is damaged, each once.
    pub findings: BTreeSet<Finding>,
}

/// How far a scrub is.
#[derive(Debug)]
pub enum ScrubStep {
    /// So many bytes were read; there is more.
    More(u64),
    /// The segment was read to its end.
    Done(Scrubbed),
}

/// One segment on its way through a scrub.
pub struct Scrub {
    lane: Option<Lane>,
    segment: Segment,
    close: Close,
    sealed: bool,
    survey: Survey,
    bodies: VecDeque<(Sound, u64)>,
    hasher: blake3::Hasher,
    /// The footer's own words, if it is sound.
    footer: Option<(Trailer, Vec<FooterGroup>, u64)>,
    /// Batches that are not whole, and the records found in them.
    torn: Vec<(u64, u64)>,
    salvaged: BTreeSet<u64>,
    begun: bool,
    found: Scrubbed,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("segment", &self.segment.name).finish_non_exhaustive()
    }
}

impl Lane {
    /// A scrub of the segment with this sequence; `None` if it is gone, or still written.
    #[must_use]
    pub fn scrub(&self, sequence: u64) -> Option<Scrub> {
        let state = self.shared.state.lock();
        let held = state.segments.get(&sequence)?;
        let close = held.close?;
        let before = state.segments.range(..sequence).next_back().and_then(|(_, held)| held.close).map(|own| own.last);
        let sealed = matches!(held.rows, Rows::Footer(_));
        let segment = held.segment.clone();
        drop(state);
        Some(Scrub::new(Some(self.clone()), segment, close, sealed, before))
    }
}

impl Scrub {
    pub(crate) fn new(
        lane: Option<Lane>,
        segment: Segment,
        close: Close,
        sealed: bool,
        before: Option<(u64, u32)>,
    ) -> Self {
        let found = Scrubbed { sequence: segment.sequence, ..Scrubbed::default() };
        Self {
            lane,
            survey: Survey::new(segment.clone(), close.end, before, close.last.0),
            segment,
            close,
            sealed,
            bodies: VecDeque::new(),
            hasher: blake3::Hasher::new(),
            footer: None,
            torn: Vec::new(),
            salvaged: BTreeSet::new(),
            begun: false,
            found,
        }
    }

    /// Reads about `bytes_max` bytes on. Blocking.
    pub fn step(&mut self, bytes_max: u64) -> Result<ScrubStep, LaneError> {
        self.step_inner(bytes_max).map_err(|error| LaneError::from(SegmentError::Io(error)))
    }

    /// Reads to the end. Blocking.
    pub fn run(mut self) -> Result<Scrubbed, LaneError> {
        loop {
            if let ScrubStep::Done(found) = self.step(1 << 20)? {
                return Ok(found);
            }
        }
    }

    fn step_inner(&mut self, bytes_max: u64) -> io::Result<ScrubStep> {
        let mut read = 0;
        if !self.begun {
            self.begun = true;
            self.segment.file.forget_cached()?;
            read += self.look_at_header()?;
            read += self.look_at_footer()?;
        }
        while read < bytes_max {
            if let Some((sound, piece)) = self.bodies.pop_front() {
                read += self.look_at_piece(sound, piece)?;
                continue;
            }
            match self.survey.next()? {
                Some(batch) => read += self.look_at_batch(batch)?,
                None => {
                    self.look_at_rows()?;
                    self.segment.file.forget_cached()?;
                    self.found.bytes += read;
                    return Ok(ScrubStep::Done(std::mem::take(&mut self.found)));
                }
            }
        }
        self.found.bytes += read;
        Ok(ScrubStep::More(read))
    }

    fn note(&mut self, finding: Finding) {
        if self.found.findings.len() < FINDINGS_MAX {
            self.found.findings.insert(finding);
        }
    }

    fn look_at_header(&mut self) -> io::Result<u64> {
        let mut page = vec![0; PAGE_BYTES as usize];
        let filled = self.segment.file.read_at(0, &mut page)?;
        let sound = filled == page.len()
            && SegmentHeader::decode(&page).is_ok_and(|header| {
                header.seed() == self.segment.seed
                    && header.sequence == self.segment.sequence
                    && header.rewritten.is_none_or(|own| own.footer_at == self.close.end)
                    && page[header.bytes()..].iter().all(|byte| *byte == 0)
            });
        if !sound {
            self.note(Finding::Header);
        }
        Ok(PAGE_BYTES)
    }

    fn look_at_footer(&mut self) -> io::Result<u64> {
        if !self.sealed {
            return Ok(0);
        }
        let footer = match self.segment.footer() {
            Ok(footer) => footer,
            Err(SegmentError::Io(error)) => return Err(error),
            Err(SegmentError::Damaged(_)) => None,
        };
        let sound = footer.filter(|(trailer, ..)| {
            trailer.footer_at == self.close.end && (trailer.last_sequence, trailer.last_crc) == self.close.last
        });
        let length = self.segment.file.len()?;
        let mut tail = [1; 4];
        let tail_read = self.segment.file.read_at(length.saturating_sub(4), &mut tail)?;
        let Some((trailer, groups, rows_at)) = sound.filter(|_| tail_read == 4 && tail == [0; 4]) else {
            self.note(Finding::Footer);
            return Ok(PAGE_BYTES);
        };
        let bytes = u64::from(trailer.footer_bytes) + TRAILER_BYTES as u64;
        self.footer = Some((trailer, groups, rows_at));
        Ok(bytes)
    }

    fn look_at_batch(&mut self, batch: Surveyed) -> io::Result<u64> {
        let Surveyed { at, behind, header, meta, records } = batch;
        let mut read = 0;
        match (&header, &meta) {
            (Some(header), Some(meta)) => {
                read += meta.len() as u64;
                self.hasher.update(meta);
                let used = at + u64::from(header.meta_bytes) + u64::from(header.body_bytes);
                let mut padding = vec![0; (behind - used) as usize];
                let filled = self.segment.file.read_at(used, &mut padding)?;
                read += filled as u64;
                if filled < padding.len() || padding.iter().any(|byte| *byte != 0) {
                    self.note(Finding::Batch { at });
                }
            }
            _ => {
                read += behind - at;
                self.note(Finding::Batch { at });
                self.torn.push((at, behind));
                self.salvaged.extend(records.iter().map(|sound| sound.record_at));
            }
        }
        self.bodies.extend(records.into_iter().filter(Sound::has_body).map(|sound| (sound, 0)));
        Ok(read.max(1))
    }

    /// Verifies one piece of a body, and puts the rest of it back in front.
    fn look_at_piece(&mut self, sound: Sound, piece: u64) -> io::Result<u64> {
        let start = piece * BODY_CRC_BYTES as u64;
        let length = (u64::from(sound.header.body_len) - start).min(BODY_CRC_BYTES as u64);
        let mut bytes = vec![0; length as usize];
        let filled = self.segment.file.read_at(sound.header.body_at + start, &mut bytes)?;
        let holds = filled == bytes.len() && sound.crcs.get(piece as usize) == Some(&crc32c::crc32c(&bytes));
        if !holds {
            self.note(Finding::Body { group: sound.header.group, index: sound.header.position.index });
        } else if start + length < u64::from(sound.header.body_len) {
            self.bodies.push_front((sound, piece + 1));
        }
        Ok(length)
    }

    /// At the end: the hash of all metas, and whether every row points at a record that is there.
    fn look_at_rows(&mut self) -> io::Result<()> {
        if self.torn.is_empty() {
            if let Some((trailer, ..)) = &self.footer
                && trailer.blake3 != *self.hasher.finalize().as_bytes()
            {
                self.note(Finding::Footer);
            }
            return Ok(());
        }
        let rows = match &self.footer {
            Some((_, groups, rows_at)) => crate::inventory::rows_in_footer(&self.segment, groups, *rows_at)?,
            None => self.rows_in_ram(),
        };
        let lost: Vec<Located> = rows
            .into_iter()
            .filter(|row| {
                self.torn.iter().any(|(at, behind)| (*at..*behind).contains(&row.record_at))
                    && !self.salvaged.contains(&row.record_at)
            })
            .collect();
        for row in lost {
            let Located { group, index, .. } = row;
            self.note(match row.kind {
                RecordKind::Block => Finding::Body { group, index },
                _ => Finding::Head { group, index },
            });
        }
        Ok(())
    }

    /// The rows of a segment without a footer. Where a footer is damaged besides, the lost heads are those that a rewrite
    /// misses.
    fn rows_in_ram(&self) -> Vec<Located> {
        let Some(lane) = &self.lane else { return Vec::new() };
        let directory = {
            let state = lane.shared.state.lock();
            match state.segments.get(&self.segment.sequence).map(|held| &held.rows) {
                Some(Rows::Ram(directory)) => directory.clone(),
                _ => Directory::default(),
            }
        };
        crate::inventory::rows_in_directory(&directory)
    }
}
