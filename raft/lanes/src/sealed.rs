//! A segment that was sealed, and whose footer, trailer or header does not hold any more: where it ends, and its directory
//! again from its batches.
//!
//! That it was sealed matters: all of it was durable then, so no batch of it is a torn one, and nothing of it may be cut.
//! Any one of these tells it: a sound trailer, a header that says "rewritten", or a footer that reads as one.

use crate::{
    batch::Placed,
    directory::Directory,
    format::{HEADER_BYTES, PAGE_BYTES, TRAILER_BYTES, Trailer},
    lane::Close,
    segment::{GroupCheckpoint, Segment, SegmentError, read_exact},
    survey::{Sound, Survey},
};
use raft_types::GroupId;
use std::io;

/// Where the batches of `segment` end, if it was sealed once. `followed` is what its successor names as the last batch.
pub(crate) fn once(segment: &Segment, followed: Option<(u64, u32)>) -> io::Result<Option<Close>> {
    let length = segment.file.len()?;
    if length < PAGE_BYTES + TRAILER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; TRAILER_BYTES];
    read_exact(&*segment.file, length - TRAILER_BYTES as u64, &mut bytes)?;
    if let Some(trailer) = Trailer::decode(&bytes, segment.seed) {
        let last = (trailer.last_sequence, trailer.last_crc);
        return Ok(Some(Close { end: trailer.footer_at, last }));
    }
    if let Ok(header) = Segment::header(&*segment.file)?
        && let Some(own) = header.rewritten
    {
        return Ok(Some(Close { end: own.footer_at, last: (own.last_sequence, own.last_crc) }));
    }
    let Some(end) = footer_at(segment, length)? else { return Ok(None) };
    if let Some(last) = followed {
        return Ok(Some(Close { end, last }));
    }
    // Nobody names its last batch: then it is the last one that stands there.
    let mut survey = Survey::new(segment.clone(), end, None, u64::MAX);
    let mut last = None;
    while let Some(batch) = survey.next()? {
        last = batch.header.map(|header| (header.sequence, header.meta_crc)).or(last);
    }
    Ok(last.map(|last| Close { end, last }))
}

/// Bytes of a footer that is looked for without its trailer.
const FOOTER_BYTES_MAX: u64 = 16 << 20;

/// The page from which on the rest of the file reads as a footer, without the trailer, which does not hold.
fn footer_at(segment: &Segment, length: u64) -> io::Result<Option<u64>> {
    // A footer has 16 bytes a row: 16 MiB are a million entries. The last batch ends the search.
    let behind = length - TRAILER_BYTES as u64;
    let first = (behind.saturating_sub(FOOTER_BYTES_MAX).div_ceil(PAGE_BYTES) * PAGE_BYTES).max(PAGE_BYTES);
    if behind <= first {
        return Ok(None);
    }
    let mut tail = vec![0; (behind - first) as usize];
    read_exact(&*segment.file, first, &mut tail)?;
    let mut at = behind / PAGE_BYTES * PAGE_BYTES;
    while at >= first {
        let footer = &tail[(at - first) as usize..];
        // Behind a crash the rest is reserved space: megabytes of zeros, which are neither.
        let page = &footer[..footer.len().min(PAGE_BYTES as usize)];
        if page.iter().any(|byte| *byte != 0) {
            let reads = |version| Directory::decode(footer, version).is_some_and(|(groups, _)| !groups.is_empty());
            if footer.len() > 4 && [3, 1].into_iter().any(reads) {
                return Ok(Some(at));
            }
            if footer.len() >= HEADER_BYTES && segment.batch_header(at)?.is_some() {
                return Ok(None);
            }
        }
        at -= PAGE_BYTES;
    }
    Ok(None)
}

/// The directory of a sealed segment and the states that open it, from its batches. Where records of entries are damaged
/// too, their rows keep their places, if it is certain of which term they are; reading one says "damaged".
pub(crate) fn rebuild(
    segment: &Segment,
    close: &Close,
    before: Option<(u64, u32)>,
) -> Result<(Directory, Vec<(GroupId, GroupCheckpoint)>), SegmentError> {
    segment.file.forget_cached()?;
    let mut survey = Survey::new(segment.clone(), close.end, before, close.last.0);
    let (mut directory, mut checkpoints) = (Directory::default(), Vec::new());
    while let Some(batch) = survey.next()? {
        if batch.meta.is_none() {
            // With the footer gone nothing else says what this batch held.
            return Err(segment.damaged(&format!("its footer and the batch at {} are damaged", batch.at)));
        }
        for placed in batch.records.iter().filter_map(Sound::placed) {
            if let Placed::State { group, checkpoint } = &placed {
                checkpoints.push((*group, checkpoint.clone()));
            }
            directory.apply(&placed);
        }
    }
    Ok((directory, checkpoints))
}
