//! Whether the only scan of a JPEG stream that does not end with EOI is complete: some modalities leave the EOI out, others
//! fill fragments of one size with what was in memory, and such frames are whole; of a stream that was cut off a decoder would
//! fill up the rest in silence.
//!
//! The codes of the scan are counted, nothing is decoded (ISO/IEC 10918-1 F.2.2, H.2):
//!
//! ```text
//!   DCT        MCU = h × v blocks of each component (of a single one: one block); block = DC code, bits, AC codes with bits
//!   lossless   MCU = one sample of each component; sample = code, bits
//!   FF 00 is FF; behind each restart interval the rest of a byte and RSTn; behind the last MCU ones up to a whole byte
//! ```
//!
//! Strict where a pad byte of the fragment could be taken for codes: what fills the last byte is ones (F.1.2.3), and a zero that
//! ends the fragment belongs to no code.

/// Where the scan ends; `None` when it is not complete, or not of a kind that is counted here (progressive, arithmetic coding,
/// several scans).
pub(crate) fn end(stream: &[u8]) -> Option<usize> {
    let mut frame = Frame::default();
    let mut at = 2;
    loop {
        while stream.get(at..at + 2)? == [0xFF, 0xFF] {
            at += 1;
        }
        let [0xFF, marker, l0, l1] = *stream.get(at..)?.first_chunk()? else { return None };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let body = stream.get(at + 4..(at + 2).checked_add(length)?)?;
        at += 2 + length;
        match marker {
            0xC0 | 0xC1 | 0xC3 => frame.begin(marker == 0xC3, body)?,
            0xC4 => frame.tables(body)?,
            0xC2 | 0xC5..=0xCF => return None,
            0xDD => frame.interval = u32::from(u16::from_be_bytes(*body.first_chunk()?)),
            0xDA => return frame.count(body, stream, at),
            _ => {}
        }
    }
}

/// Symbols by code, as DHT lists them: how many there are of each length, and their values in order.
struct Table {
    counts: [u8; 16],
    values: Vec<u8>,
}

#[derive(Default)]
struct Frame {
    lossless: bool,
    rows: u32,
    columns: u32,
    /// Identifier and sampling.
    components: Vec<(u8, u8)>,
    /// By class, then identifier.
    tables: [[Option<Table>; 4]; 2],
    /// MCUs between restarts; 0 for none.
    interval: u32,
}

impl Frame {
    fn begin(&mut self, lossless: bool, body: &[u8]) -> Option<()> {
        let [_, r0, r1, c0, c1, _, components @ ..] = body else { return None };
        self.lossless = lossless;
        self.rows = u32::from(u16::from_be_bytes([*r0, *r1]));
        self.columns = u32::from(u16::from_be_bytes([*c0, *c1]));
        self.components = components.chunks_exact(3).map(|each| (each[0], each[1])).collect();
        Some(())
    }

    fn tables(&mut self, mut body: &[u8]) -> Option<()> {
        while let [place, rest @ ..] = body {
            let counts: [u8; 16] = *rest.first_chunk()?;
            let number = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let values = rest.get(16..16 + number)?.to_vec();
            body = &rest[16 + number..];
            *self.tables.get_mut(usize::from(place >> 4))?.get_mut(usize::from(place & 0x0F))? =
                Some(Table { counts, values });
        }
        Some(())
    }

    /// Of the body of SOS, and what follows from `at`.
    fn count(&self, body: &[u8], stream: &[u8], at: usize) -> Option<usize> {
        let (&number, rest) = body.split_first()?;
        let number = usize::from(number);
        if number == 0 || number != self.components.len() {
            return None;
        }
        // Of each unit of an MCU its tables.
        let mut units = Vec::new();
        let (mut across, mut down) = (1, 1);
        for each in rest.get(..number * 2)?.chunks_exact(2) {
            let (_, sampling) = self.components.iter().find(|(id, _)| *id == each[0])?;
            let (h, v) = (u32::from(sampling >> 4), u32::from(sampling & 0x0F));
            let several = number > 1;
            if several && (!(1..=4).contains(&h) || !(1..=4).contains(&v) || self.lossless && (h, v) != (1, 1)) {
                return None;
            }
            let dc = self.tables[0].get(usize::from(each[1] >> 4))?.as_ref()?;
            let ac = self.tables[1].get(usize::from(each[1] & 0x0F))?.as_ref();
            for _ in 0..if several { h * v } else { 1 } {
                units.push((dc, ac));
            }
            (across, down) = if several { (across.max(h), down.max(v)) } else { (1, 1) };
        }
        let side = if self.lossless { 1 } else { 8 };
        let mcus = self.columns.div_ceil(across * side).checked_mul(self.rows.div_ceil(down * side))?;
        if mcus == 0 {
            return None;
        }
        let mut bits = Bits { stream, at, byte: 0, left: 0 };
        for mcu in 0..mcus {
            if self.interval > 0 && mcu > 0 && mcu.is_multiple_of(self.interval) {
                bits.restart((mcu / self.interval - 1) as u8)?;
            }
            for (dc, ac) in &units {
                match (self.lossless, ac) {
                    (true, _) => bits.sample(dc)?,
                    (false, Some(ac)) => bits.block(dc, ac)?,
                    (false, None) => return None,
                }
            }
        }
        bits.finish()
    }
}

struct Bits<'a> {
    stream: &'a [u8],
    /// The next byte.
    at: usize,
    byte: u8,
    /// Bits of `byte` that were not taken.
    left: u8,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = *self.stream.get(self.at)?;
            self.at += 1;
            if self.byte == 0xFF {
                // A marker ends the codes.
                self.stream.get(self.at).filter(|&&stuffed| stuffed == 0)?;
                self.at += 1;
            }
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    fn skip(&mut self, count: u8) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(|_| ()))
    }

    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &count in &table.counts {
            code = code << 1 | self.bit()?;
            let count = u32::from(count);
            if code < first + count {
                return table.values.get((index + code - first) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
        }
        None
    }

    fn sample(&mut self, table: &Table) -> Option<()> {
        match self.symbol(table)? {
            16 => Some(()),
            bits @ 0..=15 => self.skip(bits),
            _ => None,
        }
    }

    fn block(&mut self, dc: &Table, ac: &Table) -> Option<()> {
        let bits = self.symbol(dc).filter(|bits| *bits <= 15)?;
        self.skip(bits)?;
        let mut coefficient = 1;
        while coefficient < 64 {
            let symbol = self.symbol(ac)?;
            match (symbol >> 4, symbol & 0x0F) {
                (15, 0) => coefficient += 16,
                (_, 0) => return Some(()),
                (run, bits) => {
                    coefficient += 1 + run;
                    self.skip(bits)?;
                }
            }
        }
        (coefficient == 64).then_some(())
    }

    fn restart(&mut self, number: u8) -> Option<()> {
        self.left = 0;
        while self.stream.get(self.at..self.at + 2)? == [0xFF, 0xFF] {
            self.at += 1;
        }
        let expected = [0xFF, 0xD0 + number % 8];
        self.at += 2;
        (self.stream.get(self.at - 2..self.at)? == expected).then_some(())
    }

    /// The end: EOI is there, whatever is behind it, or nothing but padding is.
    fn finish(&self) -> Option<usize> {
        let behind = &self.stream[self.at..];
        if behind.starts_with(b"\xFF\xD9") {
            return Some(self.at);
        }
        let mask = ((1_u16 << self.left) - 1) as u8;
        let filled = self.byte & mask == mask;
        let ends_in_zero = self.byte == 0 && behind.is_empty();
        let padding = behind.iter().all(|byte| matches!(byte, 0 | 0xFF | b' '));
        (filled && !ends_in_zero && padding).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

    fn noise(count: u32) -> Vec<u8> {
        (0..count).map(|at| (at.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
    }

    /// Of every kind that is counted: without EOI the scan ends at its end, and each shorter stream is not complete.
    #[test]
    fn a_scan_is_complete_when_every_block_is_there_and_only_then() {
        for (format, samples, subsampling) in [
            (PixelFormat::Grayscale, 1, Subsampling::S444),
            (PixelFormat::Rgb, 3, Subsampling::S444),
            (PixelFormat::Rgb, 3, Subsampling::S422),
            (PixelFormat::Rgb, 3, Subsampling::S420),
        ] {
            let coded = compress(&noise(33 * 21 * samples), 33, 21, format, 90, subsampling).unwrap();
            let open = coded.strip_suffix(b"\xFF\xD9").unwrap();
            assert_eq!(end(open), Some(open.len()), "{subsampling:?}");
            assert_eq!(end(&[open, b"\0"].concat()), Some(open.len()), "padded");
            assert_eq!(end(&[open, b"\x55\x55"].concat()), None, "something behind it");
            assert_eq!(end(&[&coded[..], b"\x55\xFF\xD8"].concat()), Some(open.len()), "something behind its EOI");
            for cut in 0..open.len() {
                assert_eq!(end(&open[..cut]), None, "{cut} of {}", open.len());
                assert_eq!(end(&[&open[..cut], b"\0"].concat()), None, "{cut} of {}, padded", open.len());
            }
        }
    }

    /// Two samples of 8 bits, by a code of one bit: 0 for no difference. Codes that end with a byte have no ones behind them.
    #[test]
    fn lossless_samples_are_counted() {
        let stream = |columns: u8, codes: &[u8]| {
            let head = b"\xFF\xD8\xFF\xC3\0\x0B\x08\0\x01\0".as_slice();
            let table =
                b"\x01\x01\x11\0\xFF\xC4\0\x14\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xFF\xDA\0\x08\x01\x01\0\x01\0\0";
            [head, &[columns], table, codes].concat()
        };
        let whole = stream(2, &[0x3F]);
        assert_eq!(end(&whole), Some(whole.len()));
        assert_eq!(end(&stream(9, &[0x3F])), None, "too few");
        assert_eq!(end(&stream(2, &[0x00])), None, "a pad byte");
        assert_eq!(end(&stream(2, &[])), None, "nothing");
        assert_eq!(end(&stream(8, &[0x00, 0x00])), Some(whole.len()), "the second is padding");
    }
}
