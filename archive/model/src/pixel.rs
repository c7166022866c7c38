//! Where each frame's bytes lie within the bytes of a data set (PS3.5 §8, §A.4), so that a frame is served by a read.
//!
//! ```text
//!   version 1 = 1
//!   kind 1    = 0 native      offset v | frame_bits v | frames v
//!             = 1 fragments   count v | (gap v | length v) × count | firsts 1
//!                             firsts 0: each fragment is a frame
//!                                    1: all fragments are one frame
//!                                    2: frames v | (fragments of the frame v) × frames
//!   v: unsigned LEB128. gap: from the end of the fragment before, or from 0.
//! ```
//!
//! Invariants
//! - F-1 Ranges are of the bitstream alone: no item header, no delimiter, no offset table.
//! - F-2 Ranges of a frame ascend and do not overlap; all lie within the value of the pixel data element.
//! - F-3 Every frame of `Fragments` has at least one fragment.

use std::ops::Range;

/// Newest version of the encoding.
///
/// When adding one: 1. write its picture above; 2. decode the old one still; 3. keep the old golden test.
const VERSION: u8 = 1;
const NATIVE: u8 = 0;
const FRAGMENTS: u8 = 1;

/// Frames to ranges of bytes. Frames count from 1, as in DICOM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameMap {
    layout: Layout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// Frames of one size behind each other; with Bits Allocated 1 that size need not be whole bytes.
    Native { offset: u64, frame_bits: u64, frames: u32 },
    /// Encapsulated.
    Fragments { fragments: Vec<Fragment>, firsts: Firsts },
}

/// One fragment's bytes, without its item header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// Which fragment each frame begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Firsts {
    Each,
    Whole,
    At(Vec<u32>),
}

/// Why bytes are no frame map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameMapError {
    /// Written by a later release.
    #[error("frame map of version {found}, newer than {VERSION}: read it with the release that wrote it")]
    Newer {
        /// The version found.
        found: u8,
    },
    /// Not a frame map, or a damaged one.
    #[error("frame map is damaged at byte {at}: rebuild it from the data set")]
    Damaged {
        /// Where.
        at: usize,
    },
}

impl FrameMap {
    /// Frames of `frame_bits` behind each other from `offset`.
    pub(crate) fn native(offset: u64, frame_bits: u64, frames: u32) -> Self {
        Self { layout: Layout::Native { offset, frame_bits, frames } }
    }

    /// Frames made of fragments; `None` when there is no fragment.
    pub(crate) fn fragments(fragments: Vec<Fragment>, firsts: Firsts) -> Option<Self> {
        (!fragments.is_empty()).then_some(Self { layout: Layout::Fragments { fragments, firsts } })
    }

    /// How many frames.
    #[must_use]
    pub fn frames(&self) -> u32 {
        match &self.layout {
            Layout::Native { frames, .. } => *frames,
            Layout::Fragments { fragments, firsts: Firsts::Each } => u32::try_from(fragments.len()).unwrap_or(u32::MAX),
            Layout::Fragments { firsts: Firsts::Whole, .. } => 1,
            Layout::Fragments { firsts: Firsts::At(firsts), .. } => u32::try_from(firsts.len()).unwrap_or(u32::MAX),
        }
    }

    /// Bytes of `frame`, counted from 1. `None` when there is no such frame, or when its samples of one bit do not
    /// begin on a byte (PS3.5 §8.1.1): then only the whole value can be served.
    #[must_use]
    pub fn ranges(&self, frame: u32) -> Option<Vec<Range<u64>>> {
        if frame == 0 || frame > self.frames() {
            return None;
        }
        let at = frame as usize - 1;
        match &self.layout {
            Layout::Native { offset, frame_bits, .. } => {
                let start = u128::from(*frame_bits) * at as u128;
                let end = start + u128::from(*frame_bits);
                if !start.is_multiple_of(8) {
                    return None;
                }
                let byte = |bits: u128| u64::try_from(bits.div_ceil(8)).ok()?.checked_add(*offset);
                Some(std::iter::once(byte(start)?..byte(end)?).collect())
            }
            Layout::Fragments { fragments, firsts } => {
                let (start, end) = match firsts {
                    Firsts::Each => (at, at + 1),
                    Firsts::Whole => (0, fragments.len()),
                    Firsts::At(firsts) => {
                        let end = firsts.get(at + 1).map_or(fragments.len(), |&next| next as usize);
                        (firsts[at] as usize, end)
                    }
                };
                let range = |fragment: &Fragment| fragment.offset..fragment.offset + u64::from(fragment.length);
                Some(fragments.get(start..end)?.iter().filter(|f| f.length > 0).map(range).collect())
            }
        }
    }

    /// Where a native frame lies, to the bit: its bytes, the bit of the first byte it begins with (0 is the lowest, which
    /// comes first: PS3.5 §8.1.1), and how many bits it has. `None` for no such frame, and for encapsulated ones.
    #[must_use]
    pub fn bits(&self, frame: u32) -> Option<(Range<u64>, u8, u64)> {
        let Layout::Native { offset, frame_bits, frames } = &self.layout else { return None };
        if frame == 0 || frame > *frames {
            return None;
        }
        let start = u128::from(*frame_bits) * (u128::from(frame) - 1);
        let byte = |bits: u128| u64::try_from(bits).ok()?.checked_add(*offset);
        let bytes = byte(start / 8)?..byte((start + u128::from(*frame_bits)).div_ceil(8))?;
        Some((bytes, (start % 8) as u8, *frame_bits))
    }

    /// Versioned bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match &self.layout {
            Layout::Native { offset, frame_bits, frames } => {
                out.push(NATIVE);
                [*offset, *frame_bits, u64::from(*frames)].into_iter().for_each(|number| put_number(&mut out, number));
            }
            Layout::Fragments { fragments, firsts } => {
                out.push(FRAGMENTS);
                put_number(&mut out, fragments.len() as u64);
                let mut end = 0;
                for fragment in fragments {
                    put_number(&mut out, fragment.offset - end);
                    put_number(&mut out, u64::from(fragment.length));
                    end = fragment.offset + u64::from(fragment.length);
                }
                match firsts {
                    Firsts::Each => out.push(0),
                    Firsts::Whole => out.push(1),
                    Firsts::At(firsts) => {
                        out.push(2);
                        put_number(&mut out, firsts.len() as u64);
                        let total = u32::try_from(fragments.len()).unwrap_or(u32::MAX);
                        let ends = firsts.iter().copied().skip(1).chain([total]);
                        firsts.iter().zip(ends).for_each(|(start, end)| put_number(&mut out, u64::from(end - start)));
                    }
                }
            }
        }
        out
    }

    /// Reads what [`FrameMap::encode`] wrote, in this release or an earlier one.
    ///
    /// # Errors
    /// See [`FrameMapError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameMapError> {
        let mut reader = Reader { bytes, at: 0 };
        match reader.byte()? {
            VERSION => {}
            found if found > VERSION => return Err(FrameMapError::Newer { found }),
            _ => return Err(FrameMapError::Damaged { at: 0 }),
        }
        let map = match reader.byte()? {
            NATIVE => {
                let (offset, frame_bits) = (reader.number()?, reader.number()?);
                Self::native(offset, frame_bits, reader.small()?)
            }
            FRAGMENTS => reader.fragments()?,
            _ => return Err(FrameMapError::Damaged { at: 1 }),
        };
        if reader.at == bytes.len() { Ok(map) } else { Err(FrameMapError::Damaged { at: reader.at }) }
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn damaged(&self) -> FrameMapError {
        FrameMapError::Damaged { at: self.at }
    }

    fn byte(&mut self) -> Result<u8, FrameMapError> {
        let byte = *self.bytes.get(self.at).ok_or(self.damaged())?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, FrameMapError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7F);
            if part << shift >> shift != part {
                return Err(self.damaged());
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    fn small(&mut self) -> Result<u32, FrameMapError> {
        u32::try_from(self.number()?).map_err(|_| self.damaged())
    }

    /// A count of things that take at least one byte each: never more than there are bytes.
    fn count(&mut self) -> Result<usize, FrameMapError> {
        let count = self.small()? as usize;
        if count <= self.bytes.len() - self.at { Ok(count) } else { Err(self.damaged()) }
    }

    fn fragments(&mut self) -> Result<FrameMap, FrameMapError> {
        let count = self.count()?;
        let mut fragments = Vec::with_capacity(count);
        let mut end = 0_u64;
        for _ in 0..count {
            let offset = end.checked_add(self.number()?).ok_or(self.damaged())?;
            let length = self.small()?;
            end = offset.checked_add(u64::from(length)).ok_or(self.damaged())?;
            fragments.push(Fragment { offset, length });
        }
        let firsts = match self.byte()? {
            0 => Firsts::Each,
            1 => Firsts::Whole,
            2 => {
                let frames = self.count()?;
                let mut firsts = Vec::with_capacity(frames);
                let mut next = 0_u32;
                for _ in 0..frames {
                    firsts.push(next);
                    let of_frame = self.small()?;
                    next = next.checked_add(of_frame).filter(|_| of_frame > 0).ok_or(self.damaged())?;
                }
                if next as usize != count {
                    return Err(self.damaged());
                }
                Firsts::At(firsts)
            }
            _ => return Err(self.damaged()),
        };
        FrameMap::fragments(fragments, firsts).ok_or(self.damaged())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use super::*;
    use proptest::prelude::*;

    fn fragment(offset: u64, length: u32) -> Fragment {
        Fragment { offset, length }
    }

    #[test]
    fn native_frames_lie_behind_each_other() {
        let map = FrameMap::native(1000, 512 * 512 * 16, 3);
        assert_eq!(map.frames(), 3);
        assert_eq!(map.ranges(2).unwrap(), [1000 + 524_288..1000 + 1_048_576]);
        assert_eq!((map.ranges(0), map.ranges(4)), (None, None));
    }

    #[test]
    fn a_frame_of_single_bits_has_bytes_only_where_it_begins_on_one() {
        let map = FrameMap::native(10, 12, 3);
        assert_eq!(map.ranges(1).unwrap(), [10..12]);
        assert_eq!(map.ranges(2), None);
        assert_eq!(map.ranges(3).unwrap(), [13..15]);
    }

    #[test]
    fn a_frame_may_span_fragments() {
        let fragments = vec![fragment(8, 10), fragment(26, 4), fragment(38, 0), fragment(46, 2)];
        let map = FrameMap::fragments(fragments, Firsts::At(vec![0, 2])).unwrap();
        assert_eq!(map.ranges(1).unwrap(), [8..18, 26..30]);
        assert_eq!(map.ranges(2).unwrap(), std::iter::once(46..48).collect::<Vec<_>>());
    }

    #[test]
    fn version_1_bytes_are_these_and_stay_readable() {
        let native = FrameMap::native(300, 1 << 20, 2);
        let golden_native = [1, 0, 0xAC, 0x02, 0x80, 0x80, 0x40, 2];
        let split = FrameMap::fragments(vec![fragment(16, 200), fragment(224, 4)], Firsts::Whole).unwrap();
        let golden_split = [1, 1, 2, 16, 0xC8, 0x01, 8, 4, 1];
        let each = FrameMap::fragments(vec![fragment(16, 6), fragment(30, 4)], Firsts::Each).unwrap();
        let golden_each = [1, 1, 2, 16, 6, 8, 4, 0];
        let three = vec![fragment(16, 6), fragment(30, 4), fragment(42, 2)];
        let at = FrameMap::fragments(three, Firsts::At(vec![0, 2])).unwrap();
        let golden_at = [1, 1, 3, 16, 6, 8, 4, 8, 2, 2, 2, 2, 1];
        for (map, golden) in
            [(native, &golden_native[..]), (split, &golden_split), (each, &golden_each), (at, &golden_at)]
        {
            assert_eq!(map.encode(), golden);
            assert_eq!(FrameMap::decode(golden), Ok(map));
        }
    }

    #[test]
    fn damaged_and_newer_bytes_are_told_apart() {
        assert_eq!(FrameMap::decode(&[2, 0]), Err(FrameMapError::Newer { found: 2 }));
        assert!(matches!(FrameMap::decode(&[]), Err(FrameMapError::Damaged { at: 0 })));
        // Declares 2^28 fragments in no bytes: refused before anything is allocated.
        assert!(FrameMap::decode(&[1, 1, 0x80, 0x80, 0x80, 0x80, 1]).is_err());
        // A frame without a fragment, and trailing bytes.
        assert!(FrameMap::decode(&[1, 1, 1, 16, 6, 2, 2, 0, 1]).is_err());
        assert!(FrameMap::decode(&[1, 0, 1, 8, 1, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_map_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(map) = FrameMap::decode(&bytes) {
                let _ = map.ranges(1);
                let _ = map.ranges(map.frames());
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(gaps in proptest::collection::vec((0_u64..1 << 40, any::<u32>(), any::<bool>()), 1..40)) {
            let (mut end, mut fragments, mut firsts) = (0, Vec::new(), vec![0]);
            for (at, (gap, length, first)) in gaps.into_iter().enumerate() {
                fragments.push(fragment(end + gap, length));
                end += gap + u64::from(length);
                if first && at > 0 {
                    firsts.push(at as u32);
                }
            }
            let map = FrameMap::fragments(fragments, Firsts::At(firsts)).unwrap();
            prop_assert_eq!(FrameMap::decode(&map.encode()), Ok(map));
        }
    }
}
