//! Pixel data as it passes by, and the frame map that is made of it in the end (PS3.5 §8.1.1, §8.2, §A.4).
//!
//! Which fragments make a frame, in this order: the Extended Offset Table; the Basic Offset Table; a video is one
//! stream; as many fragments as frames; one frame; markers of a coded image at the beginning of fragments; RLE and
//! encapsulated native, where each fragment is a frame; else the whole stream as one.

use crate::pixel::{Firsts, Fragment};
use crate::{DataSet, FrameMap, PixelCoding, TransferSyntax, tags};

/// First bytes of a fragment that are looked at for a marker.
const MARKER_BYTES: usize = 4;

/// The fragments of one encapsulated element, while they pass by.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    /// Offset of the first byte of the first item after the Basic Offset Table: what tables count from.
    first_item: Option<u64>,
    table: Table,
    table_done: bool,
    fragments: Vec<Fragment>,
    /// One a fragment: whether it begins with a marker of a coded image.
    starts: Vec<bool>,
    head: Vec<u8>,
}

/// An offset table, while it passes by: little endian numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    numbers: Vec<u64>,
    partial: Vec<u8>,
}

impl Table {
    pub(crate) fn push(&mut self, bytes: &[u8], number_bytes: usize) {
        for &byte in bytes {
            self.partial.push(byte);
            if self.partial.len() == number_bytes {
                let number = self.partial.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
                self.numbers.push(number);
                self.partial.clear();
            }
        }
    }
}

impl Fragments {
    /// An item header was read that ends at `offset`. Returns whether it is the Basic Offset Table.
    pub(crate) fn begin(&mut self, offset: u64, length: u32) -> bool {
        if !self.table_done {
            return true;
        }
        self.first_item.get_or_insert(offset - 8);
        self.fragments.push(Fragment { offset, length });
        self.head.clear();
        false
    }

    /// Bytes of the item begun last.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if self.table_done {
            let more = bytes.len().min(MARKER_BYTES - self.head.len().min(MARKER_BYTES));
            self.head.extend_from_slice(&bytes[..more]);
        } else {
            self.table.push(bytes, 4);
        }
    }

    /// The item begun last is complete.
    pub(crate) fn end(&mut self) {
        if self.table_done {
            // SOI of JPEG and JPEG-LS; SOC and SIZ of JPEG 2000.
            self.starts.push(self.head.starts_with(&[0xFF, 0xD8, 0xFF]) || self.head == [0xFF, 0x4F, 0xFF, 0x51]);
        }
        self.table_done = true;
    }

    pub(crate) fn len(&self) -> u64 {
        self.fragments.len() as u64
    }

    /// The frame map, and what was odd.
    pub(crate) fn map(
        mut self,
        frames: u32,
        syntax: &TransferSyntax,
        extended: Option<(&Table, &Table)>,
    ) -> (Option<FrameMap>, Option<&'static str>) {
        let mut odd = None;
        let firsts = self.by_tables(extended, &mut odd).unwrap_or_else(|| self.by_count(frames, syntax));
        (FrameMap::fragments(self.fragments, firsts), odd)
    }

    fn by_tables(&mut self, extended: Option<(&Table, &Table)>, odd: &mut Option<&'static str>) -> Option<Firsts> {
        if let Some((offsets, lengths)) = extended {
            match self.by_offsets(&offsets.numbers) {
                Some(Firsts::Each) => {
                    self.shorten(&lengths.numbers);
                    return Some(Firsts::Each);
                }
                Some(firsts) => return Some(firsts),
                None => *odd = Some("extended offset table does not fit the fragments, disregarded"),
            }
        }
        if self.table.numbers.is_empty() && self.table.partial.is_empty() {
            return None;
        }
        let offsets = std::mem::take(&mut self.table.numbers);
        let firsts = self.by_offsets(&offsets);
        if firsts.is_none() {
            *odd = Some("basic offset table does not fit the fragments, disregarded");
        }
        firsts
    }

    /// Offsets name item headers, ascend, and begin with the first; anything else is a table not to be trusted.
    fn by_offsets(&self, offsets: &[u64]) -> Option<Firsts> {
        let base = self.first_item?;
        let mut firsts = Vec::new();
        let mut items = self.fragments.iter().zip(0_u32..);
        for &offset in offsets {
            let wanted = base.checked_add(offset)?.checked_add(8)?;
            let (_, at) = items.find(|(fragment, _)| fragment.offset >= wanted).filter(|(f, _)| f.offset == wanted)?;
            firsts.push(at);
        }
        match firsts.first() {
            Some(0) if firsts.len() == self.fragments.len() => Some(Firsts::Each),
            Some(0) => Some(Firsts::At(firsts)),
            _ => None,
        }
    }

    /// Extended Offset Table Lengths leave out the pad byte (PS3.3 §C.7.6.3.1.8).
    fn shorten(&mut self, lengths: &[u64]) {
        if lengths.len() == self.fragments.len() {
            for (fragment, &length) in self.fragments.iter_mut().zip(lengths) {
                if let Ok(length) = u32::try_from(length)
                    && length.checked_add(1) == Some(fragment.length)
                {
                    fragment.length = length;
                }
            }
        }
    }

    fn by_count(&self, frames: u32, syntax: &TransferSyntax) -> Firsts {
        if syntax.pixel.is_video() {
            return Firsts::Whole;
        }
        if self.fragments.len() == frames as usize {
            return Firsts::Each;
        }
        if frames <= 1 {
            return Firsts::Whole;
        }
        let marked: Vec<u32> =
            self.starts.iter().zip(0_u32..).filter(|(starts, _)| **starts).map(|(_, at)| at).collect();
        if marked.len() == frames as usize && marked.first() == Some(&0) {
            return Firsts::At(marked);
        }
        match syntax.pixel {
            PixelCoding::Rle | PixelCoding::Native | PixelCoding::NativeSwapped => Firsts::Each,
            _ => Firsts::Whole,
        }
    }
}

/// Number of Frames (0028,0008); 1 where it is absent or nonsense. It needs no limit: no memory is taken by it.
pub(crate) fn frame_count(header: &DataSet) -> u32 {
    let count = header.integer(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    u32::try_from(count).ok().filter(|&count| count > 0).unwrap_or(1)
}

/// The frame map of native pixel data, and what was odd. Arithmetic in u128: no product of the header's numbers
/// overflows it (rows and columns at most 2^64 as UV: checked).
pub(crate) fn native_map(
    header: &DataSet,
    frames: u32,
    offset: u64,
    length: u64,
) -> (Option<FrameMap>, Option<&'static str>) {
    let number = |tag| header.integer(tag).and_then(|number| u128::try_from(number).ok());
    let bits = number(tags::BITS_ALLOCATED);
    let (Some(rows), Some(columns), Some(bits)) = (number(tags::ROWS), number(tags::COLUMNS), bits) else {
        return (None, Some("rows, columns or bits allocated are missing: no frames"));
    };
    let samples = number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let product = |numbers: [u128; 4]| numbers.into_iter().try_fold(1_u128, u128::checked_mul);
    let whole = u128::from(length) * 8;
    let fits = |frame_bits: u128| frame_bits.checked_mul(u128::from(frames)).is_some_and(|all| all <= whole);
    let Some(mut frame_bits) = product([rows, columns, samples, bits]).filter(|&bits| bits > 0) else {
        return (None, Some("rows, columns, samples or bits are impossible: no frames"));
    };
    // Two chroma samples for every two pixels (PS3.3 §C.7.6.3.1.2): a third less than the samples say.
    let halved = header.text(tags::PHOTOMETRIC_INTERPRETATION).is_some_and(|text| text.ends_with("_422"));
    if halved && samples == 3 && !fits(frame_bits) && fits(frame_bits / 3 * 2) {
        frame_bits = frame_bits / 3 * 2;
    }
    let (Ok(stride), true) = (u64::try_from(frame_bits), frame_bits <= whole) else {
        return (None, Some("pixel data is shorter than a frame: no frames"));
    };
    let complete = u32::try_from(whole / frame_bits).unwrap_or(u32::MAX);
    let odd = (complete < frames).then_some("pixel data is shorter than its frames");
    (Some(FrameMap::native(offset, stride, frames.min(complete))), odd)
}
