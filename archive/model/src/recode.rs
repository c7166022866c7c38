//! From one uncompressed encoding of a data set to another, element by element, while the bytes come.
//!
//! ```text
//!   bytes ─► (inflate) ─► header ─► header in the other encoding
//!                         value  ─► the same bytes; from big endian the words are turned
//!                         sequence, item ─► of undefined length: what is inside grows or shrinks
//! ```
//!
//! Nothing is decoded, so that text of any character set, odd numbers and unknown elements stay what they were. What
//! cannot be told apart for certain is an error, never a guess that leaves under a label it does not deserve.
//!
//! Group lengths are left out: they would be wrong, and are retired (PS3.5 §7.2).

use crate::scanner::{
    Coding, Header, ITEM, ITEM_END, Parsed, SEQUENCE_END, UNDEFINED, dictionary_vr, is_long, is_plausible, is_text,
    number_bytes, parse_header, word_bytes,
};
use crate::{Encoding, Limits, Tag, VR, tags, transfer_syntax};
use flate2::{Decompress, FlushDecompress, Status};

/// Implicit VR Little Endian: every peer knows it (PS3.5 §10.1).
pub const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
/// Explicit VR Little Endian: what the web takes by default (PS3.18 §8.7.3).
pub const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
/// Deflated Explicit VR Little Endian.
pub const DEFLATED_LE: &str = "1.2.840.10008.1.2.1.99";
/// Explicit VR Big Endian, retired.
pub const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";

const WINDOW_BYTES: usize = 32 << 10;
/// What a length of 2 bytes can say, rounded down to even.
const SHORT_BYTES_MAX: u32 = 65_534;

/// Whether what is in `from` can be written in `to`. A list of what is known to be right, not of what is known to be
/// wrong: in a private syntax, in one that is no syntax of files, or where the pixels are elsewhere, the elements may
/// be plain and the pixels something else.
#[must_use]
pub fn can_recode(from: &str, to: &str) -> bool {
    let from = transfer_syntax(from).uid;
    [IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE].contains(&from) && [IMPLICIT_LE, EXPLICIT_LE].contains(&to)
}

/// Why a data set cannot be written in another encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{tag:?} at byte {offset}: {why}")]
pub struct RecodeError {
    /// The last element that was begun.
    pub tag: Option<Tag>,
    /// The byte of the data set, inflated.
    pub offset: u64,
    /// What stands in the way.
    pub why: &'static str,
}

/// Recodes one data set, in pieces of any size.
#[derive(Debug)]
pub struct Recoder {
    explicit: bool,
    inflate: Option<(Decompress, bool)>,
    levels: Vec<Level>,
    levels_max: usize,
    position: u64,
    state: State,
    held: [u8; 12],
    held_bytes: usize,
    last: Option<Tag>,
    /// The value before had an odd length.
    odd: bool,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    /// Where it ends; `None` when a delimiter ends it.
    end: Option<u64>,
    coding: Coding,
    sequence: bool,
    /// Pixel Representation (0028,0103) is not 0.
    signed: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Value { tag: Tag, left: u32, word: Word, pad: Option<u8> },
    Dropped { left: u32 },
}

/// A word that is being turned.
#[derive(Debug, Clone, Copy)]
struct Word {
    bytes: [u8; 8],
    held: usize,
    size: usize,
}

impl Recoder {
    /// From `from` to `to`; `None` where [`can_recode`] says no.
    #[must_use]
    pub fn new(from: &str, to: &str, limits: &Limits) -> Option<Self> {
        if !can_recode(from, to) {
            return None;
        }
        let from = transfer_syntax(from);
        let coding = Coding::of(from.encoding);
        Some(Self {
            explicit: transfer_syntax(to).encoding == Encoding::ExplicitLe,
            inflate: from.deflated.then(|| (Decompress::new(false), false)),
            levels: vec![Level { end: None, coding, sequence: false, signed: false }],
            levels_max: limits.depth_max.saturating_mul(2).saturating_add(1),
            position: 0,
            state: State::Header,
            held: [0; 12],
            held_bytes: 0,
            last: None,
            odd: false,
        })
    }

    /// Takes the next bytes and appends what they become to `out`.
    ///
    /// # Errors
    /// When something cannot be written in the other encoding for certain.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), RecodeError> {
        let Some((mut stream, mut ended)) = self.inflate.take() else { return self.feed(piece, out) };
        let mut rest = piece;
        let mut window = vec![0; WINDOW_BYTES];
        // Behind the end of the stream is a pad byte, or what some writers leave there.
        while !ended {
            let (taken_before, given_before) = (stream.total_in(), stream.total_out());
            let status = stream.decompress(rest, &mut window, FlushDecompress::None);
            let status = status.map_err(|_| self.error("the deflated data set is damaged"))?;
            let given = (stream.total_out() - given_before) as usize;
            rest = &rest[(stream.total_in() - taken_before) as usize..];
            self.feed(&window[..given], out)?;
            ended = status == Status::StreamEnd;
            if rest.is_empty() && given < WINDOW_BYTES {
                break;
            }
        }
        self.inflate = Some((stream, ended));
        Ok(())
    }

    /// The data set is complete.
    ///
    /// # Errors
    /// When it is not.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        self.settle(out)?;
        let whole = self.inflate.as_ref().is_none_or(|(_, ended)| *ended);
        if !whole || self.levels.len() != 1 || self.held_bytes > 0 || !matches!(self.state, State::Header) {
            return Err(self.error("the data set ends inside of an element"));
        }
        Ok(())
    }

    fn error(&self, why: &'static str) -> RecodeError {
        RecodeError { tag: self.last, offset: self.position, why }
    }

    fn level(&self) -> Level {
        // The level of the data set itself is never closed.
        *self.levels.last().unwrap_or(&Level { end: None, coding: Coding::IMPLICIT, sequence: false, signed: false })
    }

    fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), RecodeError> {
        loop {
            self.settle(out)?;
            if piece.is_empty() {
                return Ok(());
            }
            let taken = match self.state {
                State::Dropped { left } => {
                    let count = piece.len().min(left as usize);
                    self.state = State::Dropped { left: left - count as u32 };
                    count
                }
                State::Value { tag, left, mut word, pad } => {
                    let count = piece.len().min(left as usize);
                    if tag == tags::PIXEL_REPRESENTATION
                        && let Some(level) = self.levels.last_mut()
                    {
                        level.signed |= piece[..count].iter().any(|&byte| byte != 0);
                    }
                    word.put(&piece[..count], out);
                    self.state = State::Value { tag, left: left - count as u32, word, pad };
                    count
                }
                State::Header => self.header(piece, out)?,
            };
            self.position += taken as u64;
            piece = &piece[taken..];
        }
    }

    /// Ends the value that is complete, and every level that ends here.
    fn settle(&mut self, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        match self.state {
            State::Value { left: 0, pad, .. } => {
                out.extend(pad);
                self.state = State::Header;
            }
            State::Dropped { left: 0 } => self.state = State::Header,
            State::Value { .. } | State::Dropped { .. } | State::Header => {}
        }
        if !matches!(self.state, State::Header) || self.held_bytes > 0 {
            return Ok(());
        }
        while let Some(end) = self.level().end {
            if self.position > end {
                return Err(self.error("a length reaches beyond what encloses it"));
            }
            if self.position < end {
                break;
            }
            self.close(out);
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let delimiter = if self.level().sequence { SEQUENCE_END } else { ITEM_END };
        self.levels.pop();
        put(out, delimiter, None, 0);
        self.odd = false;
    }

    /// A delimiter ends what has no length of its own; elsewhere it is disregarded, as the scanner does.
    fn delimited(&mut self, out: &mut Vec<u8>) {
        if self.level().end.is_none() && self.levels.len() > 1 {
            self.close(out);
        }
    }

    /// Gathers a header, and acts on it when it is whole. Answers how many bytes were taken.
    fn header(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<usize, RecodeError> {
        let Level { coding, end, .. } = self.level();
        if self.odd && self.held_bytes == 0 && end.is_some_and(|end| end == self.position + 1) {
            self.odd = false;
            return Ok(1);
        }
        let need = if self.held_bytes < 8 { 8 } else { 12 };
        let taken = piece.len().min(need - self.held_bytes);
        self.held[self.held_bytes..self.held_bytes + taken].copy_from_slice(&piece[..taken]);
        self.held_bytes += taken;
        if self.held_bytes < need {
            return Ok(taken);
        }
        // After an odd value some writers pad and some do not: told apart as the scanner does.
        if self.odd && self.held_bytes == 8 {
            self.odd = false;
            let after = self.last.unwrap_or(Tag(0, 0));
            let shifted = matches!(self.held[0], 0 | b' ')
                && !is_plausible(&self.held[..8], coding, after)
                && is_plausible(&self.held[1..8], coding, after);
            if shifted {
                self.held.copy_within(1..8, 0);
                self.held_bytes = 7;
                return Ok(taken);
            }
        }
        if let Parsed::Complete(header) = parse_header(&self.held[..self.held_bytes], coding) {
            self.held_bytes = 0;
            self.odd = false;
            self.element(header, self.position + taken as u64, out)?;
        }
        Ok(taken)
    }

    fn element(&mut self, header: Header, begins: u64, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        let level = self.level();
        match (header.tag, level.sequence) {
            (ITEM, true) => return self.open(header, begins, Level { sequence: false, ..level }, out),
            (SEQUENCE_END, true) | (ITEM_END, false) => {
                self.delimited(out);
                return Ok(());
            }
            (SEQUENCE_END, false) => {
                self.delimited(out);
                // The delimiter of the item was left out.
                if self.level().sequence {
                    self.delimited(out);
                }
                return Ok(());
            }
            (ITEM, false) | (_, true) => return Err(self.error("items and elements are out of order")),
            (_, false) => {}
        }
        let Header { tag, length, vr: written, .. } = header;
        self.last = Some(tag);
        if tag.1 == 0 && length != UNDEFINED {
            self.state = State::Dropped { left: length };
            return Ok(());
        }
        if written.is_none() && level.coding.big {
            return Err(self.error("without a VR the words of a big endian value are unknown"));
        }
        let vr = written.unwrap_or_else(|| dictionary_vr(tag, level.signed));
        if length == UNDEFINED || vr == VR::SQ {
            // PS3.5 §6.2.2: UN of undefined length is a sequence in implicit little endian, whatever surrounds it.
            let coding = if written == Some(VR::UN) { Coding::IMPLICIT } else { level.coding };
            let pixels = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA].contains(&tag);
            if pixels || (vr != VR::SQ && (vr != VR::UN && (written.is_some() || word_bytes(vr) > 1 || vr == VR::OB))) {
                return Err(self.error("its pixel data is encapsulated"));
            }
            return self.open(header, begins, Level { sequence: true, coding, ..level }, out);
        }
        let size = match vr {
            _ if !level.coding.big => 1,
            // Two numbers of 2 bytes.
            VR::AT => 2,
            vr => number_bytes(vr).max(word_bytes(vr)),
        };
        if !(length as usize).is_multiple_of(size) {
            return Err(self.error("the length is no multiple of the words of its VR"));
        }
        self.odd = length % 2 == 1;
        let pad = self.odd.then_some(if is_text(vr) && vr != VR::UI { b' ' } else { 0 });
        let vr = if length > SHORT_BYTES_MAX && !is_long(vr) { VR::UN } else { vr };
        put(out, tag, self.explicit.then_some(vr), length + u32::from(self.odd));
        self.state = State::Value { tag, left: length, word: Word { bytes: [0; 8], held: 0, size }, pad };
        Ok(())
    }

    fn open(&mut self, header: Header, begins: u64, level: Level, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        if self.levels.len() > self.levels_max {
            return Err(self.error("is nested too deeply"));
        }
        let end = (header.length != UNDEFINED).then(|| begins + u64::from(header.length));
        self.levels.push(Level { end, ..level });
        put(out, header.tag, (self.explicit && level.sequence).then_some(VR::SQ), UNDEFINED);
        Ok(())
    }
}

impl Word {
    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.size <= 1 {
            out.extend_from_slice(bytes);
            return;
        }
        for &byte in bytes {
            self.bytes[self.held] = byte;
            self.held += 1;
            if self.held == self.size {
                out.extend(self.bytes[..self.size].iter().rev());
                self.held = 0;
            }
        }
    }
}

/// A header in little endian.
fn put(out: &mut Vec<u8>, Tag(group, element): Tag, vr: Option<VR>, length: u32) {
    out.extend(group.to_le_bytes());
    out.extend(element.to_le_bytes());
    match vr {
        None => out.extend(length.to_le_bytes()),
        Some(vr) => {
            out.extend(vr.to_bytes());
            match u16::try_from(length) {
                Ok(length) if !is_long(vr) => out.extend(length.to_le_bytes()),
                _ => {
                    out.extend([0, 0]);
                    out.extend(length.to_le_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{DataSet, Element, TRANSFER_SYNTAXES, Value, read_data_set, write_data_set};
    use proptest::prelude::*;
    use std::io::Write;

    fn recode(bytes: &[u8], from: &str, to: &str, step: usize) -> Result<Vec<u8>, RecodeError> {
        let mut recoder = Recoder::new(from, to, &Limits::default()).unwrap();
        let mut out = Vec::new();
        for piece in bytes.chunks(step.max(1)) {
            recoder.push(piece, &mut out)?;
        }
        recoder.finish(&mut out)?;
        Ok(out)
    }

    fn sample() -> DataSet {
        let mut item = DataSet::new();
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3");
        let mut set = DataSet::new();
        set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
        set.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2.3");
        set.put_text(tags::PATIENT_NAME, VR::PN, "Müller^Jörg");
        set.put(Element { tag: tags::REFERENCED_IMAGE_SEQUENCE, vr: VR::SQ, value: Value::Items(vec![item; 2]) });
        set.put(Element { tag: tags::ROWS, vr: VR::US, value: Value::Integers(vec![0x0102]) });
        set.put(Element { tag: tags::PIXEL_REPRESENTATION, vr: VR::US, value: Value::Integers(vec![1]) });
        set.put(Element { tag: tags::SMALLEST_IMAGE_PIXEL_VALUE, vr: VR::SS, value: Value::Integers(vec![-2]) });
        set.put(Element {
            tag: tags::FRAME_INCREMENT_POINTER,
            vr: VR::AT,
            value: Value::Tags(vec![Tag(0x18, 0x1063)]),
        });
        set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(vec![1, 0, 2, 0].into()) });
        set
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        let mut out = encoder.finish().unwrap();
        if out.len() % 2 == 1 {
            out.push(0);
        }
        out
    }

    #[test]
    fn every_plain_encoding_becomes_every_other_with_the_same_values() {
        let set = sample();
        let explicit = write_data_set(&set, Encoding::ExplicitLe);
        let sources = [
            (IMPLICIT_LE, write_data_set(&set, Encoding::ImplicitLe)),
            (EXPLICIT_LE, explicit.clone()),
            (EXPLICIT_BE, write_data_set(&set, Encoding::ExplicitBe)),
            (DEFLATED_LE, deflated(&explicit)),
        ];
        for (from, bytes) in sources {
            for to in [IMPLICIT_LE, EXPLICIT_LE] {
                let whole = recode(&bytes, from, to, usize::MAX).unwrap();
                assert_eq!(
                    read_data_set(&whole, &transfer_syntax(to), &Limits::default()).unwrap(),
                    set,
                    "{from} {to}"
                );
                for step in [1, 3, 7, 64] {
                    assert!(recode(&bytes, from, to, step).unwrap() == whole, "{from} {to} {step}");
                }
            }
        }
    }

    #[test]
    fn only_plain_syntaxes_are_recoded() {
        let plain = [IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE];
        for row in TRANSFER_SYNTAXES {
            assert_eq!(can_recode(row.uid, EXPLICIT_LE), plain.contains(&row.uid), "{}", row.name);
            assert_eq!(can_recode(EXPLICIT_LE, row.uid), plain[..2].contains(&row.uid), "{}", row.name);
        }
        assert!(!can_recode("1.2.276.0.7230010.3.1.99", EXPLICIT_LE), "not in the table");
    }

    #[test]
    fn values_that_no_reader_understands_stay_as_they_are() {
        // Bytes that are no text of any set, a number with a comma, a private element, and a length beyond 16 bits.
        let mut implicit =
            b"\x10\0\x10\0\x04\0\0\0\xFF\xFE\x81\x1B\x18\0\x50\0\x04\0\0\0 1,5\x29\0\x10\x10\x04\0\0\0\x01\xFF\x02\x03"
                .to_vec();
        implicit.extend(b"\x40\0\x04\xA3\x70\x11\x01\0");
        implicit.extend(vec![b'x'; 0x11170]);
        let explicit = recode(&implicit, IMPLICIT_LE, EXPLICIT_LE, 1000).unwrap();
        assert!(explicit.starts_with(b"\x10\0\x10\0PN\x04\0\xFF\xFE\x81\x1B\x18\0\x50\0DS\x04\0 1,5\x29\0\x10\x10UN\0\0\x04\0\0\0\x01\xFF\x02\x03"));
        assert_eq!(recode(&explicit, EXPLICIT_LE, IMPLICIT_LE, 999), Ok(implicit));
    }

    #[test]
    fn group_lengths_go_and_odd_values_are_padded() {
        let bytes = b"\x08\0\0\0\x04\0\0\0\x0E\0\0\0\x08\0\x60\0\x01\0\0\0M\x10\0\x20\0\x02\0\0\0ID";
        let expected = b"\x08\0\x60\0CS\x02\0M \x10\0\x20\0LO\x02\0ID";
        assert_eq!(recode(bytes, IMPLICIT_LE, EXPLICIT_LE, 5).unwrap(), expected);
    }

    #[test]
    fn what_the_scanner_tolerates_is_tolerated() {
        let padded = b"\x08\0\x60\0\x01\0\0\0M \x10\0\x20\0\x02\0\0\0ID";
        let expected = b"\x08\0\x60\0CS\x02\0M \x10\0\x20\0LO\x02\0ID";
        for step in [1, 5, 99] {
            assert_eq!(recode(padded, IMPLICIT_LE, EXPLICIT_LE, step).unwrap(), expected);
        }
        // A delimiter in an item with a length, and an item without its delimiter.
        let known =
            b"\x08\0\x40\x11\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\x08\0\0\0\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
        let open = b"\x08\0\x40\x11\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\xFE\xFF\xDD\xE0\0\0\0\0";
        let both = b"\x08\0\x40\x11SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
        assert_eq!(recode(known, IMPLICIT_LE, EXPLICIT_LE, 99).unwrap(), both);
        assert_eq!(recode(open, IMPLICIT_LE, EXPLICIT_LE, 99).unwrap(), both);
    }

    #[test]
    fn what_is_not_what_its_syntax_says_is_an_error() {
        let fragments = b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
        assert_eq!(recode(fragments, EXPLICIT_LE, IMPLICIT_LE, 99).unwrap_err().why, "its pixel data is encapsulated");
        let implicit = b"\xE0\x7F\x10\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0";
        assert!(recode(implicit, IMPLICIT_LE, EXPLICIT_LE, 99).is_err());
        assert!(recode(b"\x28\0\x10\0US\x02\0", EXPLICIT_LE, IMPLICIT_LE, 99).is_err(), "cut off");
        assert!(recode(b"\0\x28\0\x10US\0\x03abc", EXPLICIT_BE, EXPLICIT_LE, 99).is_err(), "half a word");
    }

    #[test]
    fn an_unknown_sequence_is_written_as_one() {
        let bytes = b"\x29\0\x10\x10UN\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\x0A\0\0\0\x08\0\x60\0\x02\0\0\0MR\xFE\xFF\xDD\xE0\0\0\0\0";
        let expected = b"\x29\0\x10\x10SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\x08\0\x60\0CS\x02\0MR\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
        assert_eq!(recode(bytes, EXPLICIT_LE, EXPLICIT_LE, 99).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..50) {
            for from in [IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE] {
                let _ = recode(&bytes, from, EXPLICIT_LE, step);
            }
        }
    }
}
