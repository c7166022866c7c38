//! Character sets: bytes of text to text and back, as Specific Character Set (0008,0005) says (PS3.5 §6.1.2).
//!
//! ```text
//!   (0008,0005)                      coding
//!   ISO_IR 192 · GB18030 · GBK       stands alone: one encoding, no escapes
//!   all else                         ISO 2022: a set for bytes below 0x80, one for those above, changed by escapes
//!
//!   "\ISO 2022 IR 87"   Yamada= ESC $ B ;3 ED ESC ( B ^ …
//!                       └ IR 6 ┘        山 田          └ IR 6 again
//! ```
//!
//! - The initial sets are back after CR, LF, FF, TAB, after a `\` that separates values, and in PN after `^` and `=`
//!   (PS3.5 §6.1.2.5.3).
//! - The byte 5C separates values only where it is a character of its own: in JIS X 0208 and GB18030 it can be half of
//!   one. Therefore values are split after decoding; no set decodes anything else to `\`. In ISO-IR 13 the byte is
//!   shown as yen and separates all the same; it is read as `\`, and 7E as `~`.
//! - Decoding always succeeds: what is no character becomes U+FFFD. Sets that are not declared are read too if an
//!   escape asks for them; bytes above 0x7F that nothing declares are UTF-8 where they are that, else Latin-1.
//! - What [`Charset::encode`] writes, [`Charset::decode`] reads back equal; all else it refuses.
//! - The set is applied to every VR that is text. The standard has it for SH, LO, UC, ST, LT, UT and PN alone, and
//!   only ASCII in the others, where all sets agree.

mod table;

use dicom_core::VR;
use encoding_rs::{
    DecoderResult, EUC_JP, EUC_KR, EncoderResult, Encoding, GB18030, GBK, SHIFT_JIS, UTF_8 as UTF_8_ENCODING,
};
use table::{Half, Term};

const ESCAPE: u8 = 0x1B;
const UNREADABLE: char = char::REPLACEMENT_CHARACTER;
/// 8: (0008,0005) with more sets than that is met nowhere; one of each script is 4.
const DECLARED_MAX: usize = 8;

/// A set of characters that one half of the byte range can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// No set: read as UTF-8 or Latin-1.
    Nothing,
    Ascii,
    /// ISO-IR 14, the ASCII of JIS X 0201.
    Romaji,
    /// ISO-IR 13, the half-width katakana of JIS X 0201.
    Katakana,
    /// ISO 8859-1, which encoding_rs knows only as windows-1252.
    Latin1,
    /// One byte a character.
    Single(&'static Encoding),
    /// JIS X 0208, two bytes a character, as the next three.
    Kanji,
    /// JIS X 0212.
    KanjiMore,
    /// KS X 1001.
    Hangul,
    /// GB 2312.
    Hanzi,
}

/// How the text of a data set is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset(Coding);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Utf8,
    Gb18030,
    Gbk,
    Iso2022(Sets),
}

/// What ISO 2022 begins with and may change to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sets {
    lower: Set,
    upper: Set,
    /// What bytes above 0x7F are taken for while nothing is designated there: writers forget escapes.
    guess: Set,
    declared: [Set; DECLARED_MAX],
}

impl Default for Charset {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl Charset {
    /// UTF-8, `ISO_IR 192`.
    pub const UTF_8: Self = Self(Coding::Utf8);

    /// The coding that the values of Specific Character Set declare. Unknown words count as absent.
    ///
    /// ```
    /// use archive_model::{VR, charset::Charset};
    /// let charset = Charset::of(&["ISO_IR 100".into()]);
    /// assert_eq!(charset.decode(b"Buc^J\xE9r\xF4me", VR::PN), "Buc^Jérôme");
    /// ```
    #[must_use]
    pub fn of(values: &[String]) -> Self {
        let terms = || values.iter().take(DECLARED_MAX).map(|value| table::term(value));
        let first = terms().next().unwrap_or(Term::Unknown);
        // A set that stands alone is the first value. As another one it is believed only where the first is ASCII.
        let plain = match first {
            Term::Unknown => true,
            Term::Number(row) => row.set == Set::Ascii,
            Term::Utf8 | Term::Gb18030 | Term::Gbk => false,
        };
        for term in terms().take(if plain { DECLARED_MAX } else { 1 }) {
            match term {
                Term::Utf8 => return Self(Coding::Utf8),
                Term::Gb18030 => return Self(Coding::Gb18030),
                Term::Gbk => return Self(Coding::Gbk),
                Term::Number(_) | Term::Unknown => {}
            }
        }
        let mut sets = Sets {
            lower: Set::Ascii,
            upper: Set::Nothing,
            guess: Set::Nothing,
            declared: [Set::Nothing; DECLARED_MAX],
        };
        for (at, term) in terms().enumerate() {
            let Term::Number(row) = term else { continue };
            sets.declared[at] = row.set;
            match row.set {
                // Sets of two bytes are never initial, though some write them as the first value.
                Set::Katakana if at == 0 => (sets.lower, sets.upper) = (Set::Romaji, Set::Katakana),
                Set::Latin1 | Set::Single(_) if at == 0 => sets.upper = row.set,
                Set::Romaji if at == 0 => sets.lower = Set::Romaji,
                _ => {}
            }
            if sets.guess == Set::Nothing {
                sets.guess = match row.set {
                    Set::Nothing | Set::Ascii | Set::Romaji => Set::Nothing,
                    Set::Kanji | Set::KanjiMore | Set::Katakana => Set::Katakana,
                    other @ (Set::Latin1 | Set::Single(_) | Set::Hangul | Set::Hanzi) => other,
                };
            }
        }
        Self(Coding::Iso2022(sets))
    }

    /// The text of a value field, with its `\` and its padding.
    #[must_use]
    pub fn decode(&self, bytes: &[u8], vr: VR) -> String {
        match self.0 {
            Coding::Utf8 => UTF_8_ENCODING.decode_without_bom_handling(bytes).0.into_owned(),
            Coding::Gb18030 | Coding::Gbk => GB18030.decode_without_bom_handling(bytes).0.into_owned(),
            Coding::Iso2022(sets) => sets.decode(bytes, vr),
        }
    }

    /// The values of a value field, each without its padding.
    #[must_use]
    pub fn split_and_decode(&self, bytes: &[u8], vr: VR) -> Vec<String> {
        split(&self.decode(bytes, vr), vr)
    }

    /// The bytes of one value; `None` if this coding lacks one of its characters. Ends as it began: in the initial
    /// sets, so that a `\` or padding may follow.
    #[must_use]
    pub fn encode(&self, text: &str, vr: VR) -> Option<Vec<u8>> {
        if self.0 == Coding::Utf8 || text.bytes().all(|byte| byte.is_ascii() && byte != ESCAPE) {
            return Some(text.as_bytes().to_vec());
        }
        let bytes = match self.0 {
            Coding::Utf8 => text.as_bytes().to_vec(),
            Coding::Gb18030 => whole(GB18030, text)?,
            // encoding_rs writes the euro sign as 80, which is not GBK.
            Coding::Gbk if text.contains('€') => return None,
            Coding::Gbk => whole(GBK, text)?,
            Coding::Iso2022(sets) => sets.encode(text, vr)?,
        };
        // Tables have characters that are written as another one (the yen sign as 5C).
        (self.decode(&bytes, vr) == text).then_some(bytes)
    }
}

/// Text split into values, each without its padding. Leading spaces have a meaning only in running text (PS3.5 table
/// 6.2-1).
#[must_use]
pub fn split(text: &str, vr: VR) -> Vec<String> {
    let trimmed = |value: &str| {
        let value = value.trim_end_matches(['\0', ' ']);
        let running = is_single(vr) || vr == VR::UC;
        if running { value.to_owned() } else { value.trim_start_matches(' ').to_owned() }
    };
    if is_single(vr) { vec![trimmed(text)] } else { text.split('\\').map(trimmed).collect() }
}

/// Whether `\` does not separate values (PS3.5 §6.2).
#[must_use]
pub fn is_single(vr: VR) -> bool {
    matches!(vr, VR::ST | VR::LT | VR::UT | VR::UR)
}

/// Whether the initial sets are back with this character (PS3.5 §6.1.2.5.3).
fn resets(byte: u8, vr: VR) -> bool {
    match byte {
        b'\r' | b'\n' | b'\t' | 0x0C => true,
        b'\\' => !is_single(vr),
        b'^' | b'=' => vr == VR::PN,
        _ => false,
    }
}

impl Sets {
    fn decode(&self, bytes: &[u8], vr: VR) -> String {
        let mut text = String::with_capacity(bytes.len());
        let (mut lower, mut upper) = (self.lower, self.upper);
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let used = if byte == ESCAPE {
                match (table::designation(rest), table::escape_bytes(rest)) {
                    (Some(row), _) => {
                        match row.half {
                            Half::Lower => lower = row.set,
                            Half::Upper => upper = row.set,
                        }
                        row.escape.len()
                    }
                    (None, length_bytes) => {
                        text.push(if length_bytes.is_some() { UNREADABLE } else { char::from(ESCAPE) });
                        length_bytes.unwrap_or(1)
                    }
                }
            } else if byte >= 0x80 {
                let set = if upper == Set::Nothing { self.guess } else { upper };
                set.read_upper(rest, &mut text)
            } else if let Some((char, used)) = lower.read_pair(rest) {
                text.push(char);
                used
            } else if resets(byte, vr) {
                // Also where no pair begins with it: the escape before it was forgotten.
                (lower, upper) = (self.lower, self.upper);
                text.push(char::from(byte));
                1
            } else {
                lower.read_lower(rest, &mut text)
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        text
    }

    /// `None` if a character is in none of the declared sets.
    fn encode(&self, text: &str, vr: VR) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len() * 2);
        let (mut lower, mut upper) = (self.lower, self.upper);
        for char in text.chars() {
            if let Ok(byte @ ..0x80) = u8::try_from(char) {
                designate(&mut bytes, Half::Lower, &mut lower, self.lower);
                if resets(byte, vr) {
                    designate(&mut bytes, Half::Upper, &mut upper, self.upper);
                    // Where nothing was designated there is no escape to say so; the delimiter does.
                    upper = self.upper;
                }
                bytes.push(byte);
                continue;
            }
            let candidates = [lower, upper].into_iter().chain(self.declared);
            let (set, character) = candidates.into_iter().find_map(|set| Some((set, set.write(char)?)))?;
            let half = table::of(set)?.half;
            designate(&mut bytes, half, if half == Half::Lower { &mut lower } else { &mut upper }, set);
            let low_bit_mask = if half == Half::Lower { 0x7F } else { 0xFF };
            bytes.extend(character.iter().map(|byte| byte & low_bit_mask));
        }
        designate(&mut bytes, Half::Lower, &mut lower, self.lower);
        designate(&mut bytes, Half::Upper, &mut upper, self.upper);
        Some(bytes)
    }
}

/// Writes the escape to `set`, if another one is in force.
fn designate(bytes: &mut Vec<u8>, half: Half, current: &mut Set, set: Set) {
    if *current == set {
        return;
    }
    if let Some(row) = table::of(set).filter(|row| row.half == half) {
        bytes.extend(row.escape);
        *current = set;
    }
}

impl Set {
    /// The character of two bytes that `rest` begins with, below 0x80.
    fn read_pair(self, rest: &[u8]) -> Option<(char, usize)> {
        match rest {
            [first @ 0x21..=0x7E, second @ 0x21..=0x7E, ..] => Some((self.pair(first | 0x80, second | 0x80)?, 2)),
            _ => None,
        }
    }

    /// Reads one byte below 0x80 that is no character of two.
    fn read_lower(self, rest: &[u8], text: &mut String) -> usize {
        let byte = rest.first().copied().unwrap_or_default();
        let pairs = matches!(self, Self::Kanji | Self::KanjiMore | Self::Hangul | Self::Hanzi);
        match (byte, self) {
            (0x21..=0x5F, Self::Katakana) => {
                text.push(one(SHIFT_JIS, &[byte | 0x80]).unwrap_or(UNREADABLE));
                1
            }
            (0x21..=0x7E, _) if pairs => {
                text.push(UNREADABLE);
                // Both halves of a pair that means nothing: half a step would misread all that follows.
                if matches!(rest.get(1), Some(0x21..=0x7E)) { 2 } else { 1 }
            }
            _ => {
                text.push(char::from(byte));
                1
            }
        }
    }

    /// Reads characters from 0x80 up. Returns how many bytes: at least one.
    fn read_upper(self, rest: &[u8], text: &mut String) -> usize {
        let first = rest.first().copied().unwrap_or_default();
        match self {
            Self::Nothing => {
                let high = run(rest, 0x80);
                match std::str::from_utf8(high) {
                    Ok(utf_8) => text.push_str(utf_8),
                    Err(_) => text.extend(high.iter().map(|&byte| char::from(byte))),
                }
                high.len().max(1)
            }
            Self::Single(encoding) if first >= 0xA0 => {
                let high = run(rest, 0xA0);
                text.push_str(&encoding.decode_without_bom_handling(high).0);
                high.len().max(1)
            }
            // 80-9F are control characters in all of ISO 8859 (PS3.5 §6.1.2.1).
            Self::Latin1 | Self::Single(_) => {
                text.push(char::from(first));
                1
            }
            Self::Katakana => {
                // Shift JIS is often declared as ISO_IR 13; it uses the bytes that JIS X 0201 leaves free.
                let pair = rest.get(..2).filter(|_| !(0xA0..=0xDF).contains(&first));
                match pair.and_then(|pair| one(SHIFT_JIS, pair)) {
                    Some(char) => {
                        text.push(char);
                        2
                    }
                    None => {
                        let single = one(SHIFT_JIS, &[first]).filter(|_| (0xA1..=0xDF).contains(&first));
                        text.push(single.unwrap_or(UNREADABLE));
                        1
                    }
                }
            }
            Self::Kanji | Self::KanjiMore | Self::Hangul | Self::Hanzi => {
                // Windows code page 949 is declared as ISO-IR 149; its further syllables end in ASCII letters.
                let char = match rest.get(1) {
                    Some(&second) if second >= 0x80 => self.pair(first, second),
                    Some(&second) if second.is_ascii_alphabetic() && self == Self::Hangul => self.pair(first, second),
                    _ => None,
                };
                text.push(char.unwrap_or(UNREADABLE));
                if char.is_some() { 2 } else { 1 }
            }
            Self::Ascii | Self::Romaji => {
                text.push(UNREADABLE);
                1
            }
        }
    }

    /// The character of two bytes from 0x80 up.
    fn pair(self, first: u8, second: u8) -> Option<char> {
        match self {
            // 8E and 8F shift to other sets in EUC.
            Self::Kanji if first >= 0xA1 => one(EUC_JP, &[first, second]),
            Self::KanjiMore => one(EUC_JP, &[0x8F, first, second]),
            Self::Hangul => one(EUC_KR, &[first, second]),
            Self::Hanzi => one(GBK, &[first, second]),
            _ => None,
        }
    }

    /// The bytes of a character that is not ASCII, from 0x80 up.
    fn write(self, char: char) -> Option<Written> {
        let written = match self {
            Self::Latin1 => Written::of(&[u8::try_from(u32::from(char)).ok()?]),
            Self::Single(encoding) => written(encoding, char)?,
            Self::Katakana => written(SHIFT_JIS, char)?,
            Self::Kanji => written(EUC_JP, char)?,
            Self::Hangul => written(EUC_KR, char)?,
            Self::Hanzi => written(GBK, char)?,
            // encoding_rs reads JIS X 0212 but does not write it.
            Self::Nothing | Self::Ascii | Self::Romaji | Self::KanjiMore => return None,
        };
        // The tables of encoding_rs are wider than the sets of the standard; others could not read what is beyond.
        let is_in_set = match (self, written.iter().as_slice()) {
            (Self::Latin1 | Self::Single(_), [byte]) => *byte >= 0xA0,
            (Self::Katakana, [byte]) => (0xA1..=0xDF).contains(byte),
            (Self::Kanji, [first, second]) => {
                // Row 13 and rows after 84 are NEC's and IBM's.
                (0xA1..=0xF4).contains(first) && *first != 0xAD && *second >= 0xA1
            }
            (Self::Hangul, [first, second]) => (0xA1..=0xFD).contains(first) && *second >= 0xA1,
            (Self::Hanzi, [first, second]) => matches!(first, 0xA1..=0xA9 | 0xB0..=0xF7) && *second >= 0xA1,
            _ => false,
        };
        is_in_set.then_some(written)
    }
}

/// The front of `bytes` that is not below `least`.
fn run(bytes: &[u8], least: u8) -> &[u8] {
    let length = bytes.iter().position(|&byte| byte < least).unwrap_or(bytes.len());
    bytes.get(..length).unwrap_or_default()
}

/// The one character that `bytes` are.
fn one(encoding: &'static Encoding, bytes: &[u8]) -> Option<char> {
    // 32: what encoding_rs asks to have free for 3 bytes.
    let mut buffer = [0_u8; 32];
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let (result, _, length) = decoder.decode_to_utf8_without_replacement(bytes, &mut buffer, true);
    if result != DecoderResult::InputEmpty {
        return None;
    }
    let mut chars = std::str::from_utf8(buffer.get(..length)?).ok()?.chars();
    let char = chars.next()?;
    chars.next().is_none().then_some(char)
}

/// The bytes of one character.
#[derive(Debug, Clone, Copy)]
struct Written {
    bytes: [u8; 32],
    length: usize,
}

impl Written {
    fn of(from: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Self { bytes, length: from.len().min(32) }
    }

    fn iter(&self) -> std::slice::Iter<'_, u8> {
        self.bytes.get(..self.length).unwrap_or_default().iter()
    }
}

fn written(encoding: &'static Encoding, char: char) -> Option<Written> {
    let mut utf_8 = [0; 4];
    let mut bytes = [0; 32];
    let mut encoder = encoding.new_encoder();
    let (result, _, length) =
        encoder.encode_from_utf8_without_replacement(char.encode_utf8(&mut utf_8), &mut bytes, true);
    (result == EncoderResult::InputEmpty).then_some(Written { bytes, length })
}

fn whole(encoding: &'static Encoding, text: &str) -> Option<Vec<u8>> {
    let (bytes, _, unmappable) = encoding.encode(text);
    (!unmappable).then(|| bytes.into_owned())
}

#[cfg(test)]
mod tests;
