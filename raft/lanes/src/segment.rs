//! One segment file: opening it, scanning what a crash left, and reading verified bytes from it.

use crate::{
    batch::{self, BodyCheck, Placed},
    directory::{Directory, FooterGroup, FooterRows, ROW_BYTES, Row, row},
    format::{
        BODY_CRC_BYTES, BadHeader, BatchHeader, HEADER_BYTES, PAGE_BYTES, RecordHeader, RecordKind, SegmentHeader,
        TRAILER_BYTES, Trailer,
    },
};
use bytes::{Bytes, BytesMut};
use raft_types::{DiskFile, LogPosition};
use serde::{Deserialize, Serialize};
use std::{io, ops::Range, sync::Arc};

/// Whose disk it is. A lane whose files name another node or disk refuses to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Cluster id; zero while the node has not joined one.
    pub cluster_id: [u8; 16],
    /// Node.
    pub node_uuid: [u8; 16],
    /// Disk.
    pub disk_uuid: [u8; 16],
    /// Lane of the disk.
    pub lane: u32,
}

/// The state of one group at the start of a segment, so that any older segment can go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupCheckpoint {
    #[serde(with = "vote_bytes")]
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) purged: Option<LogPosition>,
    /// Newest entry of the older segments: what recovery must have found there.
    pub(crate) last: Option<LogPosition>,
}

impl GroupCheckpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default() // plain numbers and bytes: nothing here can fail to serialise
    }
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

mod vote_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(vote: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        vote.as_deref().serialize(to)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<Vec<u8>>::deserialize(from)?.map(Bytes::from))
    }
}

/// A segment that can be read.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) sequence: u64,
    pub(crate) seed: u32,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// An entry as it lies in a segment, its body not yet read.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) header: RecordHeader,
    pub(crate) head: Bytes,
    pub(crate) crcs: Vec<u32>,
}

/// Why bytes of a segment were not answered.
#[derive(Debug)]
pub(crate) enum SegmentError {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for SegmentError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The name of the segment with this sequence.
pub(crate) fn name(sequence: u64) -> String {
    format!("segment-{sequence:016x}.lane")
}

/// The sequence in a segment's name.
pub(crate) fn sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".lane")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Segment {
    /// The verified header of a file; `Ok(Err)` says what is wrong with it.
    pub(crate) fn header(file: &dyn DiskFile) -> io::Result<Result<SegmentHeader, BadHeader>> {
        let mut page = vec![0; PAGE_BYTES as usize];
        read_exact(file, 0, &mut page)?;
        Ok(SegmentHeader::decode(&page))
    }

    /// The trailer and the groups of a sealed segment; `None` if it was never sealed.
    pub(crate) fn footer(&self) -> Result<Option<(Trailer, Vec<FooterGroup>, u64)>, SegmentError> {
        let length = self.file.len()?;
        if length < PAGE_BYTES + TRAILER_BYTES as u64 {
            return Ok(None);
        }
        let mut last = [0; TRAILER_BYTES];
        read_exact(&*self.file, length - TRAILER_BYTES as u64, &mut last)?;
        let Some(trailer) = Trailer::decode(&last, self.seed) else { return Ok(None) };
        if trailer.footer_at + u64::from(trailer.footer_bytes) + TRAILER_BYTES as u64 != length {
            return Err(self.damaged("the trailer names a footer outside of the file"));
        }
        let mut footer = vec![0; trailer.footer_bytes as usize];
        read_exact(&*self.file, trailer.footer_at, &mut footer)?;
        if trailer.footer_crc != crc32c::crc32c_append(self.seed, &footer) {
            return Err(self.damaged("the footer fails its checksum"));
        }
        let (groups, rows_at) =
            Directory::decode(&footer, trailer.version).ok_or_else(|| self.damaged("the footer contradicts itself"))?;
        Ok(Some((trailer, groups, trailer.footer_at + rows_at)))
    }

    /// The row at `at` of a sealed segment.
    pub(crate) fn row(&self, at: u64) -> Result<Row, SegmentError> {
        let mut bytes = [0; ROW_BYTES];
        read_exact(&*self.file, at, &mut bytes)?;
        Ok(row(bytes))
    }

    /// Where the block `index` lies, by binary search in the rows of a sealed segment.
    pub(crate) fn block_at(&self, rows: &FooterRows, index: u64) -> Result<Option<u64>, SegmentError> {
        let (mut low, mut high) = (0, u64::from(rows.blocks));
        while low < high {
            let middle = (low + high) / 2;
            // The row of a block has its index where the row of an entry has its term.
            let Row { term: found, record_at } = self.row(rows.blocks_at + middle * ROW_BYTES as u64)?;
            match found.cmp(&index) {
                std::cmp::Ordering::Equal => return Ok(Some(record_at)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// The batch header at `at`, if a sound one stands there.
    pub(crate) fn batch_header(&self, at: u64) -> io::Result<Option<BatchHeader>> {
        let mut bytes = [0; HEADER_BYTES];
        let filled = self.file.read_at(at, &mut bytes)?;
        Ok((filled == HEADER_BYTES).then(|| BatchHeader::decode(&bytes, self.seed)).flatten())
    }

    /// The whole batch at `at` but its bodies; `None` if its meta part is torn.
    #[expect(clippy::type_complexity, reason = "one private caller takes it apart at once")]
    pub(crate) fn batch(
        &self,
        at: u64,
        header: &BatchHeader,
    ) -> io::Result<Option<(Vec<u8>, Vec<Placed>, Vec<BodyCheck>)>> {
        if at + u64::from(header.meta_bytes) > self.file.len()? {
            return Ok(None);
        }
        let mut meta = vec![0; header.meta_bytes as usize];
        read_exact(&*self.file, at, &mut meta)?;
        if !header.covers(&meta, self.seed) {
            return Ok(None);
        }
        Ok(batch::take_apart(header, &meta, at, self.seed).map(|(placed, bodies)| (meta, placed, bodies)))
    }

    /// Whether all these bodies are whole.
    pub(crate) fn bodies_hold(&self, bodies: &[BodyCheck]) -> io::Result<bool> {
        let mut piece = vec![0; BODY_CRC_BYTES];
        for body in bodies {
            let mut left = body.len as usize;
            for (number, crc) in body.crcs.iter().enumerate() {
                let piece = &mut piece[..left.min(BODY_CRC_BYTES)];
                let filled = self.file.read_at(body.at + (number * BODY_CRC_BYTES) as u64, piece)?;
                if filled < piece.len() || crc32c::crc32c(piece) != *crc {
                    return Ok(false);
                }
                left -= piece.len();
            }
        }
        Ok(true)
    }

    /// The entry whose record header stands at `record_at`.
    pub(crate) fn entry(&self, record_at: u64) -> Result<Found, SegmentError> {
        // Most heads fit behind the header in one read.
        let mut bytes = BytesMut::zeroed(HEADER_BYTES + 4096);
        let filled = self.file.read_at(record_at, &mut bytes)?;
        let header = bytes
            .get(..filled)
            .and_then(|bytes| RecordHeader::decode(bytes, self.seed))
            .filter(|header| matches!(header.kind, RecordKind::Entry | RecordKind::Block))
            .ok_or_else(|| self.damaged(&format!("the record at {record_at} fails its checksum")))?;
        let whole = HEADER_BYTES + header.rest_bytes();
        if whole > filled {
            bytes.resize(whole, 0);
            read_exact(&*self.file, record_at, &mut bytes)?;
        }
        bytes.truncate(whole);
        let mut bytes = bytes.freeze();
        let rest = bytes.split_off(HEADER_BYTES);
        if header.rest_crc != crc32c::crc32c_append(self.seed, &rest) {
            return Err(self.damaged(&format!("the head at {record_at} fails its checksum")));
        }
        let crcs = batch::crcs(&rest[header.head_len as usize..]);
        Ok(Found { header, head: rest.slice(..header.head_len as usize), crcs })
    }

    /// Bytes `range` of the body of `found`, verified.
    pub(crate) fn body(&self, found: &Found, range: Range<u64>) -> Result<Bytes, SegmentError> {
        let piece_bytes = BODY_CRC_BYTES as u64;
        let first = range.start / piece_bytes;
        let end = (range.end.div_ceil(piece_bytes) * piece_bytes).min(u64::from(found.header.body_len));
        let start = first * piece_bytes;
        let mut bytes = BytesMut::zeroed((end - start) as usize);
        read_exact(&*self.file, found.header.body_at + start, &mut bytes)?;
        for (piece, crc) in bytes.chunks(BODY_CRC_BYTES).zip(&found.crcs[first as usize..]) {
            if crc32c::crc32c(piece) != *crc {
                let position = found.header.position;
                return Err(self.damaged(&format!("the body of {}/{position} fails its checksum", found.header.group)));
            }
        }
        Ok(bytes.freeze().slice((range.start - start) as usize..(range.end - start) as usize))
    }

    pub(crate) fn damaged(&self, what: &str) -> SegmentError {
        SegmentError::Damaged(format!("{}: {what}", self.name))
    }
}

/// What a scan of an unsealed segment found.
pub(crate) struct Scan {
    pub(crate) directory: Directory,
    /// Sequence and CRC of the last good batch, if there is one.
    pub(crate) last: Option<(u64, u32)>,
    /// Where the first bad batch stands, if a good one stands behind it: damage, not a torn tail.
    pub(crate) rot_at: Option<u64>,
    /// Where bytes other than zero end: behind it lies only space that was reserved.
    pub(crate) written_to: u64,
    /// Checkpoints of the first batch.
    pub(crate) checkpoints: Vec<(raft_types::GroupId, GroupCheckpoint)>,
    /// Where the good batches end.
    pub(crate) end: u64,
}

/// Reads the metas of all batches, from the first one, which must follow `previous` if that is known. `followed` is the
/// batch that the next segment names as its predecessor.
pub(crate) fn scan(
    segment: &Segment,
    previous: Option<(u64, u32)>,
    followed: Option<(u64, u32)>,
) -> Result<Scan, SegmentError> {
    segment.file.forget_cached()?;
    let mut found = Scan {
        directory: Directory::default(),
        last: None,
        rot_at: None,
        written_to: 0,
        checkpoints: Vec::new(),
        end: 0,
    };
    let (mut at, mut expected) = (PAGE_BYTES, previous);
    loop {
        let next = good_batch(segment, at, expected)?;
        let Some((header, placed, bodies)) = next else { break };
        let behind = at + u64::from(header.total_bytes);
        // A good batch behind this one proves that this one was synced; without one its bodies must be looked at (L7).
        let own = (header.sequence, header.meta_crc);
        let proven = followed.is_some_and(|followed| followed.0 >= own.0)
            || segment.batch_header(behind)?.is_some_and(|next| next.sequence == own.0 + 1);
        if !proven && !segment.bodies_hold(&bodies)? {
            break;
        }
        for placed in &placed {
            if let Placed::State { group, checkpoint } = placed {
                found.checkpoints.push((*group, checkpoint.clone()));
            }
            found.directory.apply(placed);
        }
        found.last = Some(own);
        expected = found.last;
        at = behind;
    }
    let (good, written_to) = look_behind(segment, at, expected)?;
    found.end = at;
    found.rot_at = good.then_some(at);
    found.written_to = written_to.max(at);
    Ok(found)
}

#[expect(clippy::type_complexity, reason = "one private caller takes it apart at once")]
fn good_batch(
    segment: &Segment,
    at: u64,
    expected: Option<(u64, u32)>,
) -> Result<Option<(BatchHeader, Vec<Placed>, Vec<BodyCheck>)>, SegmentError> {
    let Some(header) = segment.batch_header(at)? else { return Ok(None) };
    if expected.is_some_and(|(sequence, crc)| header.sequence != sequence + 1 || header.previous_crc != crc) {
        return Ok(None);
    }
    Ok(segment.batch(at, &header)?.map(|(_, placed, bodies)| (header, placed, bodies)))
}

/// Whether a whole batch that is newer than the one expected stands anywhere behind `at`, and where the written pages end.
fn look_behind(segment: &Segment, at: u64, expected: Option<(u64, u32)>) -> Result<(bool, u64), SegmentError> {
    let oldest = expected.map_or(0, |(sequence, _)| sequence) + 1;
    let end = segment.file.len()?;
    let mut window = vec![0; 1 << 20];
    let (mut window_at, mut written_to) = (at, at);
    while window_at < end {
        let filled = segment.file.read_at(window_at, &mut window)?;
        if filled == 0 {
            break;
        }
        for (number, page) in window[..filled].chunks(PAGE_BYTES as usize).enumerate() {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let page_at = window_at + number as u64 * PAGE_BYTES;
            written_to = page_at + PAGE_BYTES;
            let header = page.get(..HEADER_BYTES).and_then(|bytes| BatchHeader::decode(bytes, segment.seed));
            if let Some(header) = header
                && page_at > at
                && header.sequence > oldest
                && segment.batch(page_at, &header)?.is_some()
            {
                return Ok((true, written_to));
            }
        }
        window_at += filled as u64;
    }
    Ok((false, written_to.min(end)))
}

/// Fills `buffer` or fails.
pub(crate) fn read_exact(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let filled = file.read_at(offset, buffer)?;
    if filled == buffer.len() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("only {filled} of {} bytes at {offset}", buffer.len())))
}
