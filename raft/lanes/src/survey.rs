//! Reading a segment batch by batch whatever is damaged in it: for scrub, for a rewrite, and where a footer is lost.
//!
//! ```text
//!   batch whole                     every record of it
//!   batch header or meta damaged    the records whose own two checksums hold; behind a bad one, byte by byte to the next
//!   batch header gone               … and the batch ends at the next page that starts a newer batch
//! ```
//!
//! A record has checksums of its own, so a flipped bit costs the one record in which it lies, and none if it lies in a
//! batch header. Nothing is changed here, and nothing that fails a checksum is answered.

use crate::{
    batch::{self, Placed},
    format::{BatchHeader, HEADER_BYTES, META_BYTES_MAX, PAGE_BYTES, RecordHeader, RecordKind},
    segment::{GroupCheckpoint, Segment},
};
use bytes::Bytes;
use std::io;

/// Bytes behind a batch header that is gone which are searched for records, at most: the meta part of any batch but a
/// monstrous one.
const SEARCH_BYTES_MAX: u64 = META_BYTES_MAX as u64;

/// A record whose checksums hold.
#[derive(Debug, Clone)]
pub(crate) struct Sound {
    pub(crate) header: RecordHeader,
    pub(crate) record_at: u64,
    pub(crate) head: Bytes,
    pub(crate) crcs: Vec<u32>,
}

impl Sound {
    /// What the record does to a directory; `None` for a state that does not decode.
    pub(crate) fn placed(&self) -> Option<Placed> {
        let Self { header, record_at, head, .. } = self;
        batch::placed(header, *record_at, head)
    }

    /// Whether a body lies in the segment.
    pub(crate) fn has_body(&self) -> bool {
        self.header.body_len > 0 && !self.header.elided
    }
}

/// One batch, as far as it can be read.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) at: u64,
    /// Where the next one starts.
    pub(crate) behind: u64,
    /// Its header, if that is sound.
    pub(crate) header: Option<BatchHeader>,
    /// Its meta part, if header, chain and meta part are sound: then `records` are all of its records.
    pub(crate) meta: Option<Vec<u8>>,
    pub(crate) records: Vec<Sound>,
}

/// A walk over the batches of a segment.
pub(crate) struct Survey {
    segment: Segment,
    at: u64,
    /// Where the batches end.
    end: u64,
    /// Sequence of the batch before, and its CRC if that is known.
    before: Option<(u64, Option<u32>)>,
    /// Sequence of the last batch, if known: nothing newer is a batch of this segment.
    last: u64,
}

impl Survey {
    /// Over the batches up to `end`; the first one follows `before`, if that is known.
    pub(crate) fn new(segment: Segment, end: u64, before: Option<(u64, u32)>, last: u64) -> Self {
        let before = before.map(|(sequence, crc)| (sequence, Some(crc)));
        Self { segment, at: PAGE_BYTES, end, before, last }
    }

    /// The next batch; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Surveyed>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let header = self.segment.batch_header(at)?.filter(|header| self.may_be_next(header, at));
        let mut found = match header {
            Some(header) => self.with_header(at, header)?,
            None => self.without_header(at)?,
        };
        let (sequence, crc) = match (&found.header, &found.meta) {
            (Some(header), Some(_)) => (Some(header.sequence), Some(header.meta_crc)),
            (Some(header), None) => (Some(header.sequence), None),
            (None, _) => (None, None),
        };
        if let Some(header) = &found.header
            && let Some((before, Some(named))) = self.before
            && (header.sequence != before + 1 || header.previous_crc != named)
        {
            found.meta = None; // it does not follow the one before
        }
        self.before = match sequence {
            Some(sequence) => Some((sequence, crc)),
            None => self.before.map(|(before, _)| (before + 1, None)),
        };
        self.at = found.behind;
        Ok(Some(found))
    }

    /// Whether a sound header at `at` may be that of a batch which comes now.
    fn may_be_next(&self, header: &BatchHeader, at: u64) -> bool {
        self.before.is_none_or(|(before, _)| header.sequence > before)
            && header.sequence <= self.last
            && at + u64::from(header.total_bytes) <= self.end
    }

    fn with_header(&self, at: u64, header: BatchHeader) -> io::Result<Surveyed> {
        let mut meta = vec![0; header.meta_bytes as usize];
        let filled = self.segment.file.read_at(at, &mut meta)?;
        meta.truncate(filled);
        let records = salvage(&meta, at, self.segment.seed);
        let whole = header.covers(&meta, self.segment.seed) && records.len() == header.records as usize;
        let behind = at + u64::from(header.total_bytes);
        Ok(Surveyed { at, behind, header: Some(header), meta: whole.then_some(meta), records })
    }

    fn without_header(&self, at: u64) -> io::Result<Surveyed> {
        let mut behind = at + PAGE_BYTES;
        while behind < self.end {
            if self.segment.batch_header(behind)?.is_some_and(|header| self.may_be_next(&header, behind)) {
                break;
            }
            behind += PAGE_BYTES;
        }
        let behind = behind.min(self.end);
        let mut bytes = vec![0; (behind - at).min(SEARCH_BYTES_MAX) as usize];
        let filled = self.segment.file.read_at(at, &mut bytes)?;
        bytes.truncate(filled);
        let records = salvage(&bytes, at, self.segment.seed);
        Ok(Surveyed { at, behind, header: None, meta: None, records })
    }
}

/// The records in the bytes of a batch at `at`, each with both of its checksums sound. Where the meta part ends follows
/// from the first body.
fn salvage(bytes: &[u8], at: u64, seed: u32) -> Vec<Sound> {
    let mut found: Vec<Sound> = Vec::new();
    let mut next = HEADER_BYTES;
    let mut end = bytes.len();
    while next + HEADER_BYTES <= end {
        let record_at = at + next as u64;
        let sound = RecordHeader::decode(&bytes[next..end], seed).and_then(|header| {
            let rest = bytes.get(next + HEADER_BYTES..next + HEADER_BYTES + header.rest_bytes())?;
            (header.rest_crc == crc32c::crc32c_append(seed, rest)).then(|| {
                let (head, table) = rest.split_at(header.head_len as usize);
                let crcs = if header.elided { Vec::new() } else { batch::crcs(table) };
                Sound { header, record_at, head: Bytes::copy_from_slice(head), crcs }
            })
        });
        match sound {
            Some(sound) => {
                next += HEADER_BYTES + sound.header.rest_bytes();
                if sound.has_body() && sound.header.body_at > record_at {
                    end = end.min((sound.header.body_at - at) as usize);
                }
                found.push(sound);
            }
            None => next += 1,
        }
    }
    found
}

/// The state that a record of kind `State` carries.
pub(crate) fn checkpoint(sound: &Sound) -> Option<GroupCheckpoint> {
    (sound.header.kind == RecordKind::State).then(|| GroupCheckpoint::decode(&sound.head))?
}
