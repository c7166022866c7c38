//! From one encoding of a data set to another uncompressed one, element by element, while the bytes come.
//!
//! ```text
//!   bytes ─► (inflate) ─► header ─► header in the other encoding
//!                         value  ─► the same bytes; between big and little endian the words are turned
//!                         sequence, item ─► of undefined length: what is inside grows or shrinks
//!                         encapsulated pixel data ─► a header of the native length; whoever drives gives the frames
//! ```
//!
//! Nothing is decoded, so that text of any character set, odd numbers and unknown elements stay what they were. What
//! cannot be told apart for certain is an error, never a guess that leaves under a label it does not deserve.
//!
//! Group lengths are left out: they would be wrong, and are retired (PS3.5 §7.2).
//!
//! Elements of the data set itself may be changed on the way: see `recode/edit.rs`.

mod deflate;
mod edit;

pub use deflate::Deflater;
pub use edit::Edits;

use crate::scanner::{
    Coding, Header, ITEM, ITEM_END, Parsed, SEQUENCE_END, UNDEFINED, dictionary_vr, is_long, is_plausible, is_text,
    number_bytes, parse_header, word_bytes,
};
use crate::{Limits, PixelCoding, Tag, VR, tags, transfer_syntax};
use flate2::{Decompress, FlushDecompress, Status};
use std::collections::VecDeque;

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

/// What can be written.
const TARGETS: [&str; 3] = [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE];

/// Whether what is in `from` can be written in `to`. A list of what is known to be right, not of what is known to be
/// wrong: in a private syntax, in one that is no syntax of files, or where the pixels are elsewhere, the elements may
/// be plain and the pixels something else.
#[must_use]
pub fn can_recode(from: &str, to: &str) -> bool {
    let from = transfer_syntax(from).uid;
    [IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE].contains(&from) && TARGETS.contains(&to)
}

/// Whether what is in `from` can be written in `to` by who has a decoder for its frames. Of videos and of the extensions
/// of JPEG 2000 Part 2 nobody has one.
#[must_use]
pub fn can_decode(from: &str, to: &str) -> bool {
    let from = transfer_syntax(from);
    let coded = match from.pixel {
        PixelCoding::Rle
        | PixelCoding::Jpeg
        | PixelCoding::JpegLs
        | PixelCoding::Htj2k
        | PixelCoding::JpegXl
        | PixelCoding::DeflatedFrame => true,
        PixelCoding::Jpeg2000 => !["1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"].contains(&from.uid),
        PixelCoding::Native => from.encapsulated,
        PixelCoding::NativeSwapped
        | PixelCoding::Jpip
        | PixelCoding::Mpeg2
        | PixelCoding::H264
        | PixelCoding::H265
        | PixelCoding::Unknown => false,
    };
    coded && TARGETS.contains(&to)
}

/// What frames are compressed to, without loss, for who asks for it: RLE, JPEG-LS, HTJ2K with RPCL, HTJ2K. In the order in
/// which one is taken where several are: RLE codes every kind of image, and everybody decodes it.
pub const COMPRESSED: [&str; 4] =
    ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.201"];

/// Whether what is in `from` can be written in `to` by who has an encoder for its frames.
#[must_use]
pub fn can_encode(from: &str, to: &str) -> bool {
    [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE].contains(&transfer_syntax(from).uid) && COMPRESSED.contains(&to)
}

/// What becomes of encapsulated pixel data, once its frames are decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativePixels {
    /// Bytes of all frames, without a pad byte.
    pub length: u32,
    /// Bits Allocated (0028,0100): up to 8 the value is OB, else OW.
    pub allocated: u8,
    /// Photometric Interpretation (0028,0004), where it becomes another.
    pub photometric: Option<&'static str>,
    /// Planar Configuration (0028,0006), where there are several samples.
    pub planar: Option<bool>,
}

/// Bytes that change their order together in Pixel Data of OW: those of a sample, as in real big endian files of 32 bits
/// (PS3.5 §7.3 speaks of binary numbers of several bytes).
#[must_use]
pub fn pixel_word_bytes(allocated: u8) -> usize {
    match allocated {
        32 => 4,
        64 => 8,
        _ => 2,
    }
}

/// Elements that only encapsulated pixel data has (PS3.5 §A.4): offsets, lengths, and the length of all.
const OF_FRAGMENTS: [Tag; 3] = [Tag(0x7FE0, 0x0001), Tag(0x7FE0, 0x0002), Tag(0x7FE0, 0x0003)];

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
    to: Coding,
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
    /// What the pixel data becomes, while it has not come.
    native: Option<NativePixels>,
    /// The pixel data becomes fragments, while it has not come.
    coded: bool,
    /// Elements of the data set itself that become others, or are left out, in order of their tags, and which they all are.
    changes: VecDeque<(Tag, VR, Option<Vec<u8>>)>,
    changed: Vec<Tag>,
    /// What is inside of a sequence that is left out is written nowhere.
    dropping: bool,
    /// An item that is to be written behind those of a sequence of the data set itself, as the target has it.
    append: Option<(Tag, Vec<u8>)>,
    /// The sequence that it belongs to is open.
    appending: bool,
    /// From the pixel data on the bytes stay what they are.
    patching: bool,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    /// Where it ends; `None` when a delimiter ends it.
    end: Option<u64>,
    coding: Coding,
    sequence: bool,
    /// Pixel Representation (0028,0103) is not 0.
    signed: bool,
    /// Bits Allocated (0028,0100); all its bits are in one of its two bytes.
    allocated: u8,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Value {
        tag: Tag,
        left: u32,
        word: Word,
        pad: Option<u8>,
    },
    Dropped {
        left: u32,
    },
    /// The frames are to be given.
    Frames {
        left: u32,
        word: Word,
        pad: Option<u8>,
    },
    /// The fragments are to be given; of the native value, where it begins and its length.
    Fragments {
        begins: u64,
        length: u32,
    },
    /// Items of fragments are passed over, by whose headers, or passed on where nothing is recoded; `left` of the one that is
    /// being passed.
    Items {
        left: u32,
    },
    /// All that comes is passed on.
    Rest,
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
        can_recode(from, to).then(|| Self::of(from, to, limits))
    }

    /// From `from` to `to`, where the frames are decoded by somebody else: then `pixels` says what they become. Without it
    /// the data set is one that has no pixel data. `None` where [`can_decode`] says no.
    #[must_use]
    pub fn decoding(from: &str, to: &str, pixels: Option<NativePixels>, limits: &Limits) -> Option<Self> {
        let mut recoder = can_decode(from, to).then(|| Self::of(from, to, limits))?;
        if let Some(pixels) = pixels {
            recoder.change(pixels.photometric, pixels.planar);
            recoder.native = Some(pixels);
        }
        Some(recoder)
    }

    /// From `from` to `to`, where the frames are encoded by somebody else, and Photometric Interpretation and Planar
    /// Configuration may become others. `None` where [`can_encode`] says no.
    #[must_use]
    pub fn encoding(
        from: &str,
        to: &str,
        photometric: Option<&'static str>,
        planar: Option<bool>,
        limits: &Limits,
    ) -> Option<Self> {
        let mut recoder = can_encode(from, to).then(|| Self::of(from, to, limits))?;
        recoder.change(photometric, planar);
        recoder.coded = true;
        Some(recoder)
    }

    fn change(&mut self, photometric: Option<&'static str>, planar: Option<bool>) {
        let photometric = photometric.map(|term| {
            let mut value = term.as_bytes().to_vec();
            value.extend((value.len() % 2 == 1).then_some(b' '));
            (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, value)
        });
        let planar = planar.map(|planar| (tags::PLANAR_CONFIGURATION, VR::US, vec![u8::from(planar), 0]));
        self.changes = photometric.into_iter().chain(planar).map(|(tag, vr, value)| (tag, vr, Some(value))).collect();
        self.changed = self.changes.iter().map(|(tag, ..)| *tag).collect();
    }

    fn of(from: &str, to: &str, limits: &Limits) -> Self {
        let from = transfer_syntax(from);
        let coding = Coding::of(from.encoding);
        Self {
            to: Coding::of(transfer_syntax(to).encoding),
            inflate: from.deflated.then(|| (Decompress::new(false), false)),
            levels: vec![Level { end: None, coding, sequence: false, signed: false, allocated: 0 }],
            levels_max: limits.depth_max.saturating_mul(2).saturating_add(1),
            position: 0,
            state: State::Header,
            held: [0; 12],
            held_bytes: 0,
            last: None,
            odd: false,
            native: None,
            coded: false,
            changes: VecDeque::new(),
            changed: Vec::new(),
            dropping: false,
            append: None,
            appending: false,
            patching: false,
        }
    }

    /// Whether the header of the pixel data was written and the frames are to be given next, by [`Recoder::frame`] or
    /// [`Recoder::fragment`]. What was pushed after that header is disregarded: go on with the bytes from where
    /// [`Recoder::resume`] says.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        matches!(self.state, State::Frames { .. } | State::Fragments { .. })
    }

    /// Of native pixel data that becomes fragments, where its value lies.
    #[must_use]
    pub fn native_value(&self) -> Option<std::ops::Range<u64>> {
        match self.state {
            State::Fragments { begins, length } => Some(begins..begins + u64::from(length)),
            _ => None,
        }
    }

    /// Takes a fragment: first of all the Basic Offset Table, then the frames.
    ///
    /// # Errors
    /// When nobody asked for fragments, or it is larger than one can be.
    pub fn fragment(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), RecodeError> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length < UNDEFINED - 1);
        let (State::Fragments { .. }, Some(length)) = (self.state, length) else {
            return Err(self.error("a fragment where none can be"));
        };
        self.put(out, ITEM, None, length + length % 2);
        out.extend_from_slice(bytes);
        out.extend((length % 2 == 1).then_some(0));
        Ok(())
    }

    /// Takes bytes of native frames, little endian.
    ///
    /// # Errors
    /// When they are more than was said, or nobody asked for them.
    pub fn frame(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), RecodeError> {
        let State::Frames { left, mut word, pad } = self.state else {
            return Err(self.error("frames where none were asked for"));
        };
        let rest = u32::try_from(bytes.len()).ok().and_then(|count| left.checked_sub(count));
        let left = rest.ok_or_else(|| self.error("more frames than the pixel data has"))?;
        word.put(bytes, out);
        self.state = State::Frames { left, word, pad };
        Ok(())
    }

    /// As if all frames had been given: for a trial that only wants to know what is before and behind them.
    pub fn pass_frames(&mut self) {
        if let State::Frames { left, .. } = &mut self.state {
            *left = 0;
        }
    }

    /// All frames were given; what is pushed next are the bytes of the data set from `position`, where the header of an
    /// item or the delimiter of the pixel data stands; where fragments were given, the end of [`Recoder::native_value`].
    ///
    /// # Errors
    /// When frames are missing.
    pub fn resume(&mut self, position: u64, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        if let State::Fragments { length, .. } = self.state {
            self.put(out, SEQUENCE_END, None, 0);
            self.state = State::Header;
            self.odd = length % 2 == 1;
            self.position = position;
            return Ok(());
        }
        let State::Frames { left: 0, pad, .. } = self.state else {
            return Err(self.error("fewer frames than the pixel data has"));
        };
        out.extend(pad);
        self.state = State::Items { left: 0 };
        self.position = position;
        Ok(())
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
        if self.native.is_some() || self.coded {
            return Err(self.error("the data set has no pixel data"));
        }
        let whole = self.inflate.as_ref().is_none_or(|(_, ended)| *ended);
        let between = matches!(self.state, State::Header | State::Rest);
        if !whole || self.levels.len() != 1 || self.held_bytes > 0 || !between {
            return Err(self.error("the data set ends inside of an element"));
        }
        self.insert(None, out);
        self.all_edited()
    }

    fn error(&self, why: &'static str) -> RecodeError {
        RecodeError { tag: self.last, offset: self.position, why }
    }

    fn level(&self) -> Level {
        // The level of the data set itself is never closed.
        *self.levels.last().unwrap_or(&Level {
            end: None,
            coding: Coding::IMPLICIT,
            sequence: false,
            signed: false,
            allocated: 0,
        })
    }

    fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), RecodeError> {
        loop {
            self.settle(out)?;
            if piece.is_empty() || self.wants_frames() {
                return Ok(());
            }
            let taken = match self.state {
                State::Frames { .. } | State::Fragments { .. } => 0,
                State::Items { left: 0 } => self.header(piece, out)?,
                State::Items { left } => {
                    let count = piece.len().min(left as usize);
                    if self.patching && !self.dropping {
                        out.extend_from_slice(&piece[..count]);
                    }
                    self.state = State::Items { left: left - count as u32 };
                    count
                }
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
                    if tag == tags::BITS_ALLOCATED
                        && let Some(level) = self.levels.last_mut()
                    {
                        level.allocated |= piece[..count].iter().fold(0, |bits, byte| bits | byte);
                    }
                    if !self.dropping {
                        word.put(&piece[..count], out);
                    }
                    self.state = State::Value { tag, left: left - count as u32, word, pad };
                    count
                }
                State::Rest => {
                    out.extend_from_slice(piece);
                    piece.len()
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
                out.extend(pad.filter(|_| !self.dropping));
                self.state = State::Header;
            }
            State::Dropped { left: 0 } => self.state = State::Header,
            State::Value { .. }
            | State::Dropped { .. }
            | State::Header
            | State::Frames { .. }
            | State::Fragments { .. }
            | State::Items { .. }
            | State::Rest => {}
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
        if self.levels.len() == 1 && std::mem::take(&mut self.appending) {
            out.extend(self.append.take().map(|(_, item)| item).unwrap_or_default());
        }
        self.put(out, delimiter, None, 0);
        self.odd = false;
        if self.levels.len() == 1 {
            self.dropping = false;
        }
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
            let header_bytes = std::mem::take(&mut self.held_bytes);
            self.odd = false;
            if self.passes(header.tag) {
                self.insert(Some(header.tag), out);
                self.all_edited()?;
                out.extend_from_slice(&self.held[..header_bytes]);
                self.state = State::Rest;
                return Ok(taken);
            }
            self.element(header, self.position + taken as u64, out)?;
        }
        Ok(taken)
    }

    fn element(&mut self, header: Header, begins: u64, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        if matches!(self.state, State::Items { .. }) {
            self.state = match header {
                Header { tag: ITEM, length, .. } if length != UNDEFINED => State::Items { left: length },
                Header { tag: SEQUENCE_END, .. } => State::Header,
                _ => return Err(self.error("the fragments are out of order")),
            };
            if self.patching {
                self.put(out, header.tag, None, header.length);
            }
            return Ok(());
        }
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
        if self.levels.len() == 1 && self.replaced(tag, length, out) {
            return Ok(());
        }
        if written.is_none() && level.coding.big {
            return Err(self.error("without a VR the words of a big endian value are unknown"));
        }
        let vr = written.unwrap_or_else(|| dictionary_vr(tag, level.signed));
        if length == UNDEFINED || vr == VR::SQ {
            // PS3.5 §6.2.2: UN of undefined length is a sequence in implicit little endian, whatever surrounds it.
            let coding = if written == Some(VR::UN) { Coding::IMPLICIT } else { level.coding };
            if tag == tags::PIXEL_DATA
                && self.levels.len() == 1
                && let Some(pixels) = self.native.take()
            {
                self.begin_frames(&pixels, out);
                return Ok(());
            }
            let pixels = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA].contains(&tag);
            // Of an icon: that of the data set itself is passed on with all behind it.
            if pixels && self.patching && self.levels.len() > 1 && written.is_some_and(|vr| vr != VR::SQ) {
                self.put(out, tag, written, UNDEFINED);
                self.state = State::Items { left: 0 };
                return Ok(());
            }
            if pixels || (vr != VR::SQ && (vr != VR::UN && (written.is_some() || word_bytes(vr) > 1 || vr == VR::OB))) {
                return Err(self.error("its pixel data is encapsulated"));
            }
            self.dropping |= self.levels.len() == 1 && self.changed.contains(&tag);
            return self.open(header, begins, Level { sequence: true, coding, ..level }, out);
        }
        if tag == tags::PIXEL_DATA && self.levels.len() == 1 && std::mem::take(&mut self.coded) {
            self.put(out, tag, Some(VR::OB), UNDEFINED);
            self.state = State::Fragments { begins, length };
            return Ok(());
        }
        let size = match vr {
            _ if level.coding.big == self.to.big => 1,
            // Two numbers of 2 bytes.
            VR::AT => 2,
            VR::OW if tag == tags::PIXEL_DATA => pixel_word_bytes(level.allocated),
            vr => number_bytes(vr).max(word_bytes(vr)),
        };
        if !(length as usize).is_multiple_of(size) {
            return Err(self.error("the length is no multiple of the words of its VR"));
        }
        self.odd = length % 2 == 1;
        let pad = self.odd.then_some(if is_text(vr) && vr != VR::UI { b' ' } else { 0 });
        let vr = if length > SHORT_BYTES_MAX && !is_long(vr) { VR::UN } else { vr };
        self.put(out, tag, Some(vr), length + u32::from(self.odd));
        self.state = State::Value { tag, left: length, word: Word::of(size), pad };
        Ok(())
    }

    fn open(&mut self, header: Header, begins: u64, level: Level, out: &mut Vec<u8>) -> Result<(), RecodeError> {
        if self.levels.len() > self.levels_max {
            return Err(self.error("is nested too deeply"));
        }
        let end = (header.length != UNDEFINED).then(|| begins + u64::from(header.length));
        if self.levels.len() == 1 {
            self.appending = self.append.as_ref().is_some_and(|(tag, _)| *tag == header.tag);
        }
        self.levels.push(Level { end, ..level });
        self.put(out, header.tag, level.sequence.then_some(VR::SQ), UNDEFINED);
        Ok(())
    }

    /// Writes the elements that become others before `tag`, or in its place. Whether `tag` is one whose own value goes.
    fn replaced(&mut self, tag: Tag, length: u32, out: &mut Vec<u8>) -> bool {
        self.insert(Some(tag), out);
        let goes = self.changed.contains(&tag) || (self.coded || self.native.is_some()) && OF_FRAGMENTS.contains(&tag);
        if goes && length != UNDEFINED {
            self.state = State::Dropped { left: length };
            self.odd = length % 2 == 1;
        }
        goes && length != UNDEFINED
    }

    /// Writes the elements that are changed or new and stand before `tag` or in its place; without it, all of them.
    fn insert(&mut self, tag: Option<Tag>, out: &mut Vec<u8>) {
        while let Some((changed, vr, value)) =
            self.changes.pop_front_if(|(changed, ..)| tag.is_none_or(|tag| *changed <= tag))
        {
            let Some(value) = value else { continue };
            self.put(out, changed, Some(vr), value.len() as u32);
            Word::of(if self.to.big { number_bytes(vr) } else { 1 }).put(&value, out);
        }
    }

    fn begin_frames(&mut self, pixels: &NativePixels, out: &mut Vec<u8>) {
        let NativePixels { length, allocated, .. } = *pixels;
        let (vr, size) = if allocated <= 8 { (VR::OB, 1) } else { (VR::OW, pixel_word_bytes(allocated)) };
        let pad = (length % 2 == 1).then_some(0);
        self.put(out, tags::PIXEL_DATA, Some(vr), length + length % 2);
        self.state = State::Frames { left: length, word: Word::of(if self.to.big { size } else { 1 }), pad };
    }

    /// A header as the target has it.
    fn put(&self, out: &mut Vec<u8>, Tag(group, element): Tag, vr: Option<VR>, length: u32) {
        if self.dropping {
            return;
        }
        let big = self.to.big;
        let short = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let long = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        out.extend(short(group));
        out.extend(short(element));
        match vr.filter(|_| self.to.explicit) {
            None => out.extend(long(length)),
            Some(vr) => {
                out.extend(vr.to_bytes());
                match u16::try_from(length) {
                    Ok(length) if !is_long(vr) => out.extend(short(length)),
                    _ => {
                        out.extend([0, 0]);
                        out.extend(long(length));
                    }
                }
            }
        }
    }
}

impl Word {
    fn of(size: usize) -> Self {
        Self { bytes: [0; 8], held: 0, size }
    }

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

#[cfg(test)]
mod tests;
