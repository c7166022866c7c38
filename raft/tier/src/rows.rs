//! The rows of a group at one moment, in objects of some MiB that go together by number.
//!
//! ```text
//!   header   32   magic "TRRW" 4 | version 1 | last part 1 | zero 2 | group 4 | part 4 | term 8 | index 8
//!   pieces        stored length 4 | raw length 4 | zstd of one piece of the state machine's export
//! ```
//!
//! Numbers are little-endian. The same rows give the same bytes (zstd of one release), so that rows that did not change
//! are not sent again. Whole objects are checked by the digest in the manifest before a piece is looked at.

use crate::TierError;
use bytes::{BufMut, Bytes, BytesMut};
use raft_types::{GroupId, LogPosition};

const MAGIC: &[u8; 4] = b"TRRW";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;
/// zstd's own default: fast enough to stay ahead of the export.
const LEVEL: i32 = 3;
/// No piece is larger than this, about 1 MiB by contract: bounds what a damaged length may ask for.
const PIECE_BYTES_MAX: usize = 256 << 20;

/// One object that is being filled.
pub(crate) struct PartBuilder {
    bytes: BytesMut,
}

impl PartBuilder {
    pub(crate) fn new(group: GroupId, at: LogPosition, part: u32) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_slice(MAGIC);
        bytes.put_slice(&[VERSION, 0, 0, 0]);
        bytes.put_u32_le(group.0);
        bytes.put_u32_le(part);
        bytes.put_u64_le(at.term);
        bytes.put_u64_le(at.index);
        Self { bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes a piece that was [`squeeze`]d.
    pub(crate) fn push(&mut self, raw_length: usize, stored: &[u8]) {
        self.bytes.put_u32_le(u32::try_from(stored.len()).unwrap_or(u32::MAX)); // pieces are of about 1 MiB
        self.bytes.put_u32_le(u32::try_from(raw_length).unwrap_or(u32::MAX));
        self.bytes.put_slice(stored);
    }

    pub(crate) fn seal(mut self, last: bool) -> (Bytes, blake3::Hash) {
        self.bytes[5] = u8::from(last);
        let bytes = self.bytes.freeze();
        let digest = blake3::hash(&bytes);
        (bytes, digest)
    }
}

/// zstd of one piece.
pub(crate) fn squeeze(piece: &[u8]) -> Result<Vec<u8>, TierError> {
    zstd::bulk::compress(piece, LEVEL)
        .map_err(|error| TierError::Source { what: "rows".into(), why: format!("compress: {error}") })
}

/// A whole part in memory, whose digest was compared.
pub(crate) struct Part {
    name: String,
    bytes: Bytes,
    at: usize,
}

impl Part {
    /// The part in `bytes`, if it is the one that is wanted here.
    pub(crate) fn open(
        name: &str,
        bytes: Bytes,
        (group, at, part, last): (GroupId, LogPosition, u32, bool),
    ) -> Result<Self, TierError> {
        let bad = |why: String| TierError::damaged(name, why);
        if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
            return Err(bad("it does not begin as rows do".into()));
        }
        if bytes[4] != VERSION {
            return Err(bad(format!(
                "its version {} is not {VERSION}, the newest this release reads: upgrade triptych",
                bytes[4]
            )));
        }
        let wanted = PartBuilder::new(group, at, part).bytes;
        if bytes[8..HEADER_BYTES] != wanted[8..HEADER_BYTES] || bytes[5] != u8::from(last) {
            return Err(bad("it holds rows of another group, moment or part".into()));
        }
        Ok(Self { name: name.to_owned(), bytes, at: HEADER_BYTES })
    }

    /// The next piece.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Bytes>, TierError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let bad = |why: &str| TierError::damaged(&self.name, why);
        let number = |at: usize| {
            let bytes: [u8; 4] = self.bytes.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes) as usize)
        };
        let lengths = number(self.at).zip(number(self.at + 4)).ok_or_else(|| bad("a piece is cut off"))?;
        let start = self.at + 8;
        let stored = self.bytes.get(start..start + lengths.0).ok_or_else(|| bad("a piece is cut off"))?;
        if lengths.1 > PIECE_BYTES_MAX {
            return Err(bad("a piece is too large"));
        }
        let piece = zstd::bulk::decompress(stored, lengths.1).map_err(|error| bad(&format!("a piece: {error}")))?;
        if piece.len() != lengths.1 {
            return Err(bad("a piece is shorter than it says"));
        }
        self.at = start + lengths.0;
        Ok(Some(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: LogPosition = LogPosition { term: 2, index: 77 };

    fn part(pieces: &[&[u8]]) -> Bytes {
        let mut builder = PartBuilder::new(GroupId(3), AT, 1);
        for piece in pieces {
            builder.push(piece.len(), &squeeze(piece).expect("compressed"));
        }
        builder.seal(true).0
    }

    #[test]
    fn the_header_of_version_1_never_changes_and_pieces_read_back() {
        let bytes = part(&[b"first", b"second"]);
        let golden = *b"TRRW\x01\x01\0\0\x03\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x4d\0\0\0\0\0\0\0";
        assert_eq!(bytes[..32], golden);
        let mut opened = Part::open("r", bytes, (GroupId(3), AT, 1, true)).expect("own bytes");
        assert_eq!(opened.next_piece().expect("sound").as_deref(), Some(&b"first"[..]));
        assert_eq!(opened.next_piece().expect("sound").as_deref(), Some(&b"second"[..]));
        assert_eq!(opened.next_piece().expect("sound"), None);
    }

    /// A piece as zstd wrote it in November 2026: every later release must read it.
    #[test]
    fn stored_pieces_of_version_1_are_read_for_ever() {
        let mut builder = PartBuilder::new(GroupId(3), AT, 1);
        builder.push(5, &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x05, 0x29, 0x00, 0x00, b'f', b'i', b'r', b's', b't']);
        let mut opened = Part::open("r", builder.seal(true).0, (GroupId(3), AT, 1, true)).expect("own bytes");
        assert_eq!(opened.next_piece().expect("sound").as_deref(), Some(&b"first"[..]));
    }

    #[test]
    fn parts_that_are_not_the_wanted_one_and_cut_ones_are_refused() {
        let bytes = part(&[b"first"]);
        for wanted in [
            (GroupId(4), AT, 1, true),
            (GroupId(3), LogPosition { term: 2, index: 78 }, 1, true),
            (GroupId(3), AT, 2, true),
            (GroupId(3), AT, 1, false),
        ] {
            assert!(Part::open("r", bytes.clone(), wanted).is_err(), "{wanted:?}");
        }
        for length in 0..bytes.len() {
            let cut = Part::open("r", bytes.slice(..length), (GroupId(3), AT, 1, true));
            assert!(length == HEADER_BYTES || cut.and_then(|mut part| part.next_piece()).is_err(), "{length}");
        }
    }
}
