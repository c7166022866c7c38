//! The bytes of a segment. All numbers are little-endian; every offset is the last one plus its size.
//!
//! ```text
//! segment   header 4096 | batch | batch | … | footer | trailer 96          each batch and the footer at a multiple of 4096
//!
//! header    magic 8 "TRIPLANE" | version 2 | features 2 | lane 4 | sequence 8 | cluster 16 | node 16 | disk 16
//!           | of a rewritten segment: last_sequence 8 | last_crc 4 | footer_at 8 | crc 4 | zero …
//!           features: 1 rewritten (compacted or repaired; the last batch is named as it was before; since version 3)
//!
//! batch     ┌─ meta, covered by meta_crc ────────────────────────────────┐
//!           │ batch header 64 │ (record header 64 │ head │ crc table) …  │ bodies … │ zero up to 4096
//!           └────────────────────────────────────────────────────────────┘
//!           batch header: magic 4 "TRBA" | version 1 | zero 3 | sequence 8 | previous_crc 4 | records 4 | meta_bytes 4
//!                         | body_bytes 4 | total_bytes 4 | zero 20 | header_crc 4 | meta_crc 4
//!
//! record    kind 1 | entry_kind 1 | flags 2 | group 4 | term 8 | index 8 | head_len 4 | body_len 4 | body_at 8 | zero 16
//!           | rest_crc 4 (head and crc table) | crc 4
//!           crc table: one CRC32C for each 64 KiB of the body; body_at counts from the start of the segment
//!           flags: 1 elided (an entry whose body of body_len bytes is not here: no crc table, body_at 0; since version 3)
//!
//! footer    length of the table 4 | table (postcard) | rows: term 8, record_at 8 | blocks: index 8, record_at 8 (ascending, by group)
//!
//! trailer   magic 4 "TRFT" | version 1 | zero 3 | footer_at 8 | footer_bytes 4 | footer_crc 4 | last_sequence 8 | last_crc 4
//!           | zero 20 | blake3 32 | crc 4 | zero 4
//! ```
//!
//! Every CRC but those of bodies starts from a seed made of disk id, lane and segment sequence: bytes of another disk or of
//! an older life of the file are refused. A batch names its predecessor's sequence and `meta_crc`, across segments too. A
//! batch is written after the previous one was synced, so a good batch proves that all before it were durable.
//!
//! When adding a version: 1. raise `VERSION`; 2. keep decoding every older one; 3. add a golden file in `tests/golden`.

use raft_types::{GroupId, LogPosition};

/// The version that this release writes: 2 has blocks (record kind 7, and their rows in the footer), 3 has elided bodies.
pub const VERSION: u8 = 3;
/// Size of the segment header, and the alignment of batches, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Size of batch and record headers in bytes.
pub const HEADER_BYTES: usize = 64;
/// Size of the trailer in bytes.
pub const TRAILER_BYTES: usize = 96;
/// A body has one CRC for each so many bytes.
pub const BODY_CRC_BYTES: usize = 64 << 10;
/// The greatest meta part of a batch that is believed, in bytes.
pub const META_BYTES_MAX: u32 = 64 << 20;

const SEGMENT_MAGIC: &[u8; 8] = b"TRIPLANE";
const BATCH_MAGIC: &[u8; 4] = b"TRBA";
const TRAILER_MAGIC: &[u8; 4] = b"TRFT";

/// `length` rounded up to whole pages.
#[must_use]
pub fn whole_pages(length: u64) -> u64 {
    length.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

/// Bytes of the CRC table of a body.
#[must_use]
pub fn crc_table_bytes(body_len: u32) -> usize {
    (body_len as usize).div_ceil(BODY_CRC_BYTES) * 4
}

/// The head of a segment: whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Lane of the disk.
    pub lane: u32,
    /// Number of the segment in its lane, from 1.
    pub sequence: u64,
    /// Cluster id; zero while the node has not joined one.
    pub cluster_id: [u8; 16],
    /// Node.
    pub node_uuid: [u8; 16],
    /// Disk.
    pub disk_uuid: [u8; 16],
    /// Set when the segment was rewritten: it stands in the place of another of the same sequence.
    pub rewritten: Option<Rewritten>,
}

/// What a rewritten segment keeps of the one whose place it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    /// Sequence of the last batch of the segment before it was rewritten: what its successor names.
    pub last_sequence: u64,
    /// `meta_crc` of that batch.
    pub last_crc: u32,
    /// Where the batches of this file end.
    pub footer_at: u64,
}

/// Bit of the features of a segment: it was rewritten.
const REWRITTEN: u16 = 1;

/// What is wrong with a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// All zero: the crash came before the header was durable; nothing in the segment can be either.
    #[error("the header is empty")]
    Empty,
    /// Not a segment, or damaged.
    #[error("the header is not that of a segment, or is damaged")]
    Damaged,
    /// Written by a newer release.
    #[error("written by a newer release (segment version {0}); upgrade this node")]
    Newer(u16),
}

impl SegmentHeader {
    /// The page that opens the segment.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES as usize);
        page.extend_from_slice(SEGMENT_MAGIC);
        page.extend_from_slice(&u16::from(VERSION).to_le_bytes());
        page.extend_from_slice(&if self.rewritten.is_some() { REWRITTEN } else { 0 }.to_le_bytes());
        page.extend_from_slice(&self.lane.to_le_bytes());
        page.extend_from_slice(&self.sequence.to_le_bytes());
        page.extend_from_slice(&self.cluster_id);
        page.extend_from_slice(&self.node_uuid);
        page.extend_from_slice(&self.disk_uuid);
        if let Some(Rewritten { last_sequence, last_crc, footer_at }) = self.rewritten {
            page.extend_from_slice(&last_sequence.to_le_bytes());
            page.extend_from_slice(&last_crc.to_le_bytes());
            page.extend_from_slice(&footer_at.to_le_bytes());
        }
        let crc = crc32c::crc32c(&page);
        page.extend_from_slice(&crc.to_le_bytes());
        page.resize(PAGE_BYTES as usize, 0);
        page
    }

    /// The header in the first page of a file.
    pub fn decode(page: &[u8]) -> Result<Self, BadHeader> {
        let mut read = Reader(page);
        if page.iter().all(|byte| *byte == 0) {
            return Err(BadHeader::Empty);
        }
        let damaged = BadHeader::Damaged;
        if read.array::<8>() != Some(*SEGMENT_MAGIC) {
            return Err(damaged);
        }
        let version = read.u16().ok_or(damaged)?;
        if version > u16::from(VERSION) {
            return Err(if flipped_version(page) { damaged } else { BadHeader::Newer(version) });
        }
        let features = read.u16().ok_or(damaged)?;
        let mut header = Self {
            lane: read.u32().ok_or(damaged)?,
            sequence: read.u64().ok_or(damaged)?,
            cluster_id: read.array().ok_or(damaged)?,
            node_uuid: read.array().ok_or(damaged)?,
            disk_uuid: read.array().ok_or(damaged)?,
            rewritten: None,
        };
        if features & REWRITTEN != 0 {
            header.rewritten = Some(Rewritten {
                last_sequence: read.u64().ok_or(damaged)?,
                last_crc: read.u32().ok_or(damaged)?,
                footer_at: read.u64().ok_or(damaged)?,
            });
        }
        let covered = page.len() - read.0.len();
        if read.u32() != Some(crc32c::crc32c(&page[..covered])) {
            return Err(damaged);
        }
        if features & !REWRITTEN != 0 {
            return Err(BadHeader::Newer(version)); // what a later feature means is not known here
        }
        Ok(header)
    }

    /// Bytes of the header that a checksum covers, its own included; the rest of the page is zero.
    #[must_use]
    pub fn bytes(&self) -> usize {
        if self.rewritten.is_some() { 96 } else { 76 }
    }

    /// Where the CRCs of this segment start from.
    #[must_use]
    pub fn seed(&self) -> u32 {
        let seed = crc32c::crc32c(&self.disk_uuid);
        let seed = crc32c::crc32c_append(seed, &self.lane.to_le_bytes());
        crc32c::crc32c_append(seed, &self.sequence.to_le_bytes())
    }
}

/// Whether the page is a header of a known version but for the bits of its version: damage, not a newer release.
fn flipped_version(page: &[u8]) -> bool {
    let stored = |at: usize| Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?));
    (1..=u16::from(VERSION)).any(|version| {
        [72, 92].into_iter().any(|covered| {
            let Some(mut bytes) = page.get(..covered).map(<[u8]>::to_vec) else { return false };
            bytes[8..10].copy_from_slice(&version.to_le_bytes());
            stored(covered) == Some(crc32c::crc32c(&bytes))
        })
    })
}

/// The head of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Number of the batch in its lane, from 1.
    pub sequence: u64,
    /// `meta_crc` of the batch before.
    pub previous_crc: u32,
    /// Number of records.
    pub records: u32,
    /// Bytes of header, record headers, heads and CRC tables.
    pub meta_bytes: u32,
    /// Bytes of all bodies.
    pub body_bytes: u32,
    /// Bytes of the batch on the disk.
    pub total_bytes: u32,
    /// CRC of the meta part: what the next batch names.
    pub meta_crc: u32,
}

impl BatchHeader {
    /// Writes the header into the first 64 bytes of `meta`, with both CRCs; answers `meta_crc`.
    pub fn seal(&self, meta: &mut [u8], seed: u32) -> u32 {
        let mut head = Vec::with_capacity(HEADER_BYTES);
        head.extend_from_slice(BATCH_MAGIC);
        head.extend_from_slice(&[VERSION, 0, 0, 0]);
        head.extend_from_slice(&self.sequence.to_le_bytes());
        head.extend_from_slice(&self.previous_crc.to_le_bytes());
        head.extend_from_slice(&self.records.to_le_bytes());
        head.extend_from_slice(&self.meta_bytes.to_le_bytes());
        head.extend_from_slice(&self.body_bytes.to_le_bytes());
        head.extend_from_slice(&self.total_bytes.to_le_bytes());
        head.resize(56, 0);
        let header_crc = crc32c::crc32c_append(seed, &head);
        head.extend_from_slice(&header_crc.to_le_bytes());
        let meta_crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &head), &meta[HEADER_BYTES..]);
        head.extend_from_slice(&meta_crc.to_le_bytes());
        meta[..HEADER_BYTES].copy_from_slice(&head);
        meta_crc
    }

    /// The header at the start of `bytes`, if its own CRC holds.
    #[must_use]
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let mut read = Reader(bytes);
        if read.array::<4>()? != *BATCH_MAGIC || read.array::<4>()?[0] > VERSION {
            return None;
        }
        let header = Self {
            sequence: read.u64()?,
            previous_crc: read.u32()?,
            records: read.u32()?,
            meta_bytes: read.u32()?,
            body_bytes: read.u32()?,
            total_bytes: read.u32()?,
            meta_crc: u32::from_le_bytes(bytes.get(60..64)?.try_into().ok()?),
        };
        let header_crc = u32::from_le_bytes(bytes.get(56..60)?.try_into().ok()?);
        let sound = header_crc == crc32c::crc32c_append(seed, &bytes[..56])
            && header.meta_bytes <= META_BYTES_MAX
            && u64::from(header.total_bytes)
                == whole_pages(u64::from(header.meta_bytes) + u64::from(header.body_bytes));
        sound.then_some(header)
    }

    /// Whether `meta`, the first `meta_bytes` of the batch, is whole.
    #[must_use]
    pub fn covers(&self, meta: &[u8], seed: u32) -> bool {
        meta.len() == self.meta_bytes as usize
            && meta.len() >= HEADER_BYTES
            && self.meta_crc == crc32c::crc32c_append(crc32c::crc32c_append(seed, &meta[..60]), &meta[HEADER_BYTES..])
    }
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A log entry: head and body.
    Entry = 1,
    /// The group's vote: head.
    Vote = 2,
    /// The newest committed position: a hint.
    Committed = 3,
    /// Entries behind `index` are gone; `term` 1 says that all are.
    Truncate = 4,
    /// Entries up to `index` are not needed by the log any more; their blocks live on.
    Purge = 5,
    /// The state of one group at the start of a segment: head.
    State = 6,
    /// The body of the committed entry `index`, apart from the log; `term` is 0. Since version 2.
    Block = 7,
}

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record says.
    pub kind: RecordKind,
    /// What kind of entry, in the words of whoever appended it.
    pub entry_kind: u8,
    /// The group.
    pub group: GroupId,
    /// Position of the entry, or of what the kind says.
    pub position: LogPosition,
    /// Bytes of the head.
    pub head_len: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// Where the body starts in the segment.
    pub body_at: u64,
    /// CRC of head and CRC table.
    pub rest_crc: u32,
    /// The body is not here: there is neither CRC table nor body, and `body_at` is 0.
    pub elided: bool,
}

/// Bit of the flags of a record: its body is not here.
const ELIDED: u16 = 1;

impl RecordHeader {
    /// The 64 bytes.
    #[must_use]
    pub fn encode(&self, seed: u32) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0] = self.kind as u8;
        out[1] = self.entry_kind;
        out[2..4].copy_from_slice(&if self.elided { ELIDED } else { 0 }.to_le_bytes());
        out[4..8].copy_from_slice(&self.group.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.position.term.to_le_bytes());
        out[16..24].copy_from_slice(&self.position.index.to_le_bytes());
        out[24..28].copy_from_slice(&self.head_len.to_le_bytes());
        out[28..32].copy_from_slice(&self.body_len.to_le_bytes());
        out[32..40].copy_from_slice(&self.body_at.to_le_bytes());
        out[56..60].copy_from_slice(&self.rest_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header in `bytes`, if its CRC holds.
    #[must_use]
    pub fn decode(bytes: &[u8], seed: u32) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if u32::from_le_bytes(bytes[60..].try_into().ok()?) != crc32c::crc32c_append(seed, &bytes[..60]) {
            return None;
        }
        let kind = match bytes[0] {
            1 => RecordKind::Entry,
            2 => RecordKind::Vote,
            3 => RecordKind::Committed,
            4 => RecordKind::Truncate,
            5 => RecordKind::Purge,
            6 => RecordKind::State,
            7 => RecordKind::Block,
            _ => return None,
        };
        let mut read = Reader(&bytes[2..]);
        let flags = read.u16()?;
        if flags & !ELIDED != 0 {
            return None; // what a flag of a later version means is not known here
        }
        Some(Self {
            kind,
            entry_kind: bytes[1],
            elided: flags & ELIDED != 0,
            group: GroupId(read.u32()?),
            position: LogPosition { term: read.u64()?, index: read.u64()? },
            head_len: read.u32()?,
            body_len: read.u32()?,
            body_at: read.u64()?,
            rest_crc: u32::from_le_bytes(bytes[56..60].try_into().ok()?),
        })
    }

    /// Bytes of head and CRC table, which follow the header.
    #[must_use]
    pub fn rest_bytes(&self) -> usize {
        self.head_len as usize + if self.elided { 0 } else { crc_table_bytes(self.body_len) }
    }
}

/// The end of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer starts.
    pub footer_at: u64,
    /// Bytes of the footer.
    pub footer_bytes: u32,
    /// CRC of the footer.
    pub footer_crc: u32,
    /// Sequence of the last batch.
    pub last_sequence: u64,
    /// `meta_crc` of the last batch.
    pub last_crc: u32,
    /// BLAKE3 over the meta parts of all batches, and so over the CRC of every body.
    pub blake3: [u8; 32],
    /// The version of the footer.
    pub version: u8,
}

impl Trailer {
    /// The 96 bytes.
    #[must_use]
    pub fn encode(&self, seed: u32) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..4].copy_from_slice(TRAILER_MAGIC);
        out[4] = self.version;
        out[8..16].copy_from_slice(&self.footer_at.to_le_bytes());
        out[16..20].copy_from_slice(&self.footer_bytes.to_le_bytes());
        out[20..24].copy_from_slice(&self.footer_crc.to_le_bytes());
        out[24..32].copy_from_slice(&self.last_sequence.to_le_bytes());
        out[32..36].copy_from_slice(&self.last_crc.to_le_bytes());
        out[56..88].copy_from_slice(&self.blake3);
        let crc = crc32c::crc32c_append(seed, &out[..88]);
        out[88..92].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The trailer in `bytes`, if it is one.
    #[must_use]
    pub fn decode(bytes: &[u8; TRAILER_BYTES], seed: u32) -> Option<Self> {
        let crc = u32::from_le_bytes(bytes[88..92].try_into().ok()?);
        if bytes[..4] != *TRAILER_MAGIC || bytes[4] > VERSION || crc != crc32c::crc32c_append(seed, &bytes[..88]) {
            return None;
        }
        let mut read = Reader(&bytes[8..]);
        Some(Self {
            footer_at: read.u64()?,
            footer_bytes: read.u32()?,
            footer_crc: read.u32()?,
            last_sequence: read.u64()?,
            last_crc: read.u32()?,
            blake3: bytes[56..88].try_into().ok()?,
            version: bytes[4],
        })
    }
}

/// Takes numbers from the front of a slice; `None` when it is too short.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        lane: 3,
        sequence: 7,
        cluster_id: [1; 16],
        node_uuid: [2; 16],
        disk_uuid: [4; 16],
        rewritten: None,
    };

    #[test]
    fn a_segment_header_reads_back_and_refuses_any_flipped_bit() {
        let page = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(HEADER));
        for bit in 0..76 * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(BadHeader::Empty));
        let rewritten = Some(Rewritten { last_sequence: 9, last_crc: 8, footer_at: 8192 });
        let again = SegmentHeader { rewritten, ..HEADER };
        let page = again.encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(again));
        assert_eq!(again.seed(), HEADER.seed());
        for bit in 0..again.bytes() * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_header_of_another_disk_is_refused() {
        let record = RecordHeader {
            kind: RecordKind::Entry,
            entry_kind: 9,
            group: GroupId(64),
            position: LogPosition { term: 5, index: 6 },
            head_len: 7,
            body_len: 200_000,
            body_at: 4096,
            rest_crc: 11,
            elided: false,
        };
        let bytes = record.encode(HEADER.seed());
        assert_eq!(RecordHeader::decode(&bytes, HEADER.seed()), Some(record));
        let other = SegmentHeader { disk_uuid: [5; 16], ..HEADER };
        assert_eq!(RecordHeader::decode(&bytes, other.seed()), None);
        assert_eq!(record.rest_bytes(), 7 + 4 * 4);
        let elided = RecordHeader { elided: true, body_at: 0, ..record };
        let bytes = elided.encode(HEADER.seed());
        assert_eq!(RecordHeader::decode(&bytes, HEADER.seed()), Some(elided));
        assert_eq!(elided.rest_bytes(), 7);
    }

    #[test]
    fn a_trailer_reads_back() {
        let trailer = Trailer {
            footer_at: 8192,
            footer_bytes: 100,
            footer_crc: 1,
            last_sequence: 2,
            last_crc: 3,
            blake3: [9; 32],
            version: VERSION,
        };
        let bytes = trailer.encode(1);
        assert_eq!(Trailer::decode(&bytes, 1), Some(trailer));
        assert_eq!(Trailer::decode(&bytes, 2), None);
    }
}
