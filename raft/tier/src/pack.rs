//! A pack: bodies of one group, and where each lies. Immutable, named by the BLAKE3 of all its bytes.
//!
//! ```text
//!   header    16   magic "TRPK" 4 | version 1 | zero 3 | group 4 | zero 4
//!   bodies         one behind the other
//!   index     16 × count   index 8 | length 4 | crc32c of the body 4        ascending by index
//!   trailer   24   bytes of bodies 8 | count 4 | group 4 | crc32c of index and trailer up to here 4 | magic "TRPE" 4
//! ```
//!
//! Numbers are little-endian. The trailer comes last, so that a pack is written in one go and its index is had by reading
//! its end.

use crate::TierError;
use bytes::{BufMut, Bytes, BytesMut};
use raft_types::{BodyRef, BytePermit, GroupId};

const MAGIC: &[u8; 4] = b"TRPK";
const END_MAGIC: &[u8; 4] = b"TRPE";
const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const ROW_BYTES: usize = 16;
pub(crate) const TRAILER_BYTES: usize = 24;

/// One body of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) body: BodyRef,
    pub(crate) crc: u32,
}

/// A pack that is being filled. It holds the permits of its bytes.
pub(crate) struct Builder {
    group: GroupId,
    parts: Vec<Bytes>,
    rows: Vec<Row>,
    bytes: u64,
    permits: Option<BytePermit>,
}

/// A pack that is full.
pub(crate) struct Sealed {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) digest: blake3::Hash,
    pub(crate) bytes: u64,
    pub(crate) bodies: u64,
    /// Given back when the pack is gone.
    pub(crate) permits: Option<BytePermit>,
}

impl Builder {
    pub(crate) fn new(group: GroupId) -> Self {
        let mut header = BytesMut::with_capacity(HEADER_BYTES);
        header.put_slice(MAGIC);
        header.put_slice(&[VERSION, 0, 0, 0]);
        header.put_u32_le(group.0);
        header.put_u32_le(0);
        Self { group, parts: vec![header.freeze()], rows: Vec::new(), bytes: 0, permits: None }
    }

    /// Takes a body in; bodies come in ascending order.
    pub(crate) fn push(&mut self, index: u64, body: Bytes, permit: Option<BytePermit>) {
        debug_assert!(self.rows.last().is_none_or(|row| row.body.index < index), "bodies come in ascending order");
        let length_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX); // at most 1 MiB
        self.rows.push(Row { body: BodyRef { index, length_bytes }, crc: crc32c::crc32c(&body) });
        self.bytes += body.len() as u64;
        self.parts.push(body);
        match (&mut self.permits, permit) {
            (Some(held), Some(more)) => held.absorb(more),
            (None, more) => self.permits = more,
            (Some(_), None) => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds index and trailer. Takes as long as hashing 64 MiB does: not for an async thread.
    pub(crate) fn seal(mut self) -> Sealed {
        let mut end = BytesMut::with_capacity(self.rows.len() * ROW_BYTES + TRAILER_BYTES);
        for row in &self.rows {
            end.put_u64_le(row.body.index);
            end.put_u32_le(row.body.length_bytes);
            end.put_u32_le(row.crc);
        }
        end.put_u64_le(self.bytes);
        end.put_u32_le(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        end.put_u32_le(self.group.0);
        let crc = crc32c::crc32c(&end);
        end.put_u32_le(crc);
        end.put_slice(END_MAGIC);
        self.parts.push(end.freeze());
        let mut hasher = blake3::Hasher::new();
        for part in &self.parts {
            hasher.update(part);
        }
        let bytes = self.parts.iter().map(|part| part.len() as u64).sum();
        let bodies = self.rows.len() as u64;
        Sealed { parts: self.parts, digest: hasher.finalize(), bytes, bodies, permits: self.permits }
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    take(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    take(bytes, at).map(u64::from_le_bytes)
}

/// What the end of a pack says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its index.
    Rows(Vec<Row>),
    /// The index is so long: read that many bytes of the end.
    Longer(u64),
}

/// Reads the index from `end`, the last bytes of a pack that has `total` bytes.
pub(crate) fn read_end(name: &str, group: GroupId, total: u64, end: &[u8]) -> Result<End, TierError> {
    let bad = |why: &str| TierError::damaged(name, why);
    let trailer_at = end.len().checked_sub(TRAILER_BYTES).ok_or_else(|| bad("it is too short to be a pack"))?;
    let read = || {
        let bodies = u64_at(end, trailer_at)?;
        let count = u32_at(end, trailer_at + 8)? as usize;
        Some((bodies, count, u32_at(end, trailer_at + 12)?, u32_at(end, trailer_at + 16)?))
    };
    let (bodies, count, of_group, crc) = read().ok_or_else(|| bad("it is too short to be a pack"))?;
    if end.get(trailer_at + 20..) != Some(END_MAGIC.as_slice()) {
        return Err(bad("it does not end as a pack does"));
    }
    let index_bytes = count * ROW_BYTES;
    let expected = (HEADER_BYTES + index_bytes + TRAILER_BYTES) as u64;
    if bodies.checked_add(expected) != Some(total) {
        return Err(bad("its length is not that of its bodies and index"));
    }
    let Some(index_at) = trailer_at.checked_sub(index_bytes) else {
        return Ok(End::Longer((index_bytes + TRAILER_BYTES) as u64));
    };
    if crc32c::crc32c(&end[index_at..trailer_at + 16]) != crc {
        return Err(bad("its index fails its checksum"));
    }
    if of_group != group.0 {
        return Err(bad("it is a pack of another group"));
    }
    let row = |at: usize| {
        let body = BodyRef { index: u64_at(end, at)?, length_bytes: u32_at(end, at + 8)? };
        Some(Row { body, crc: u32_at(end, at + 12)? })
    };
    let rows: Option<Vec<Row>> = (0..count).map(|number| row(index_at + number * ROW_BYTES)).collect();
    let rows = rows.ok_or_else(|| bad("its index is cut off"))?;
    let sum: u64 = rows.iter().map(|row| u64::from(row.body.length_bytes)).sum();
    if sum != bodies || rows.windows(2).any(|pair| pair[0].body.index >= pair[1].body.index) {
        return Err(bad("its index contradicts itself"));
    }
    Ok(End::Rows(rows))
}

/// A whole pack in memory.
#[derive(Debug)]
pub(crate) struct Pack {
    rows: Vec<Row>,
    bytes: Bytes,
}

impl Pack {
    /// The pack in `bytes`, whose digest the caller has compared, or is about to doubt.
    pub(crate) fn open(name: &str, group: GroupId, bytes: Bytes) -> Result<Self, TierError> {
        let version = bytes.get(4).copied().unwrap_or(0);
        if bytes.get(..4) != Some(MAGIC.as_slice()) || version == 0 {
            return Err(TierError::damaged(name, "it does not begin as a pack does"));
        }
        if version > VERSION {
            let why = format!(
                "its version {version} is newer than {VERSION}, the newest this release reads: upgrade triptych"
            );
            return Err(TierError::damaged(name, why));
        }
        match read_end(name, group, bytes.len() as u64, &bytes)? {
            End::Rows(rows) => Ok(Self { rows, bytes }),
            End::Longer(_) => Err(TierError::damaged(name, "its index is longer than the pack")),
        }
    }

    /// The bodies, each with whether it is sound.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = (BodyRef, Bytes, bool)> {
        let mut at = HEADER_BYTES;
        self.rows.iter().map(move |row| {
            let body = self.bytes.slice(at..at + row.body.length_bytes as usize);
            at += body.len();
            let sound = crc32c::crc32c(&body) == row.crc;
            (row.body, body, sound)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(bodies: &[(u64, &[u8])]) -> Bytes {
        let mut builder = Builder::new(GroupId(3));
        for (index, body) in bodies {
            builder.push(*index, Bytes::copy_from_slice(body), None);
        }
        let sealed = builder.seal();
        let bytes = Bytes::from(sealed.parts.concat());
        assert_eq!((sealed.bytes, sealed.digest), (bytes.len() as u64, blake3::hash(&bytes)));
        bytes
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let bytes = pack(&[(7, b"abc"), (300, b"de")]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = [
            "5452504b",
            "01000000",
            "03000000",
            "00000000",
            "6162636465",
            "0700000000000000",
            "03000000",
            "b73f4b36",
            "2c01000000000000",
            "02000000",
            "76b4406b",
            "0500000000000000",
            "02000000",
            "03000000",
            "b0d7f083",
            "54525045",
        ]
        .concat();
        assert_eq!(hex, golden);
    }

    #[test]
    fn a_pack_reads_back_and_its_end_alone_tells_what_is_in_it() {
        let bytes = pack(&[(1, b"one"), (5, b"five")]);
        let opened = Pack::open("p", GroupId(3), bytes.clone()).expect("own bytes");
        let bodies: Vec<_> = opened.bodies().map(|(body, bytes, sound)| (body.index, bytes, sound)).collect();
        assert_eq!(bodies, [(1, Bytes::from_static(b"one"), true), (5, Bytes::from_static(b"five"), true)]);
        let total = bytes.len() as u64;
        let short = &bytes[bytes.len() - TRAILER_BYTES - 3..];
        assert_eq!(read_end("p", GroupId(3), total, short).expect("a trailer"), End::Longer(56));
        assert!(
            matches!(read_end("p", GroupId(3), total, &bytes[bytes.len() - 56..]), Ok(End::Rows(rows)) if rows.len() == 2)
        );
        assert!(Pack::open("p", GroupId(4), bytes).is_err(), "of another group");
    }

    /// B4, at each byte: no flip yields a body that is called sound and is not.
    #[test]
    fn a_flipped_byte_gives_no_wrong_body() {
        let bytes = pack(&[(1, b"one"), (5, b"five")]);
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x10;
            let Ok(opened) = Pack::open("p", GroupId(3), flipped.into()) else { continue };
            for (body, bytes, sound) in opened.bodies() {
                let wanted: &[u8] = if body.index == 1 { b"one" } else { b"five" };
                assert!(!sound || bytes == wanted, "byte {at}");
            }
        }
        for length in 0..bytes.len() {
            assert!(Pack::open("p", GroupId(3), bytes.slice(..length)).is_err(), "cut at {length}");
        }
    }
}
