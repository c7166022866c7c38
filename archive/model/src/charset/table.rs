//! The sets of characters and how values name them, as tables: PS3.3 §C.12.1.1.2, tables C.12-2 to C.12-5.
//!
//! ```text
//!   Defined Term      set            half    escape
//!   ISO_IR 100        ISO 8859-1     upper   ESC - A
//!   ISO 2022 IR 87    JIS X 0208     lower   ESC $ B      (two bytes a character)
//! ```

use super::Set;
use encoding_rs::{
    ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5, ISO_8859_6, ISO_8859_7, ISO_8859_8, ISO_8859_15, WINDOWS_874,
    WINDOWS_1254,
};

/// Which bytes mean a set: those below 0x80 (G0 in GL) or those from 0x80 (G1 in GR), PS3.5 §6.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Lower,
    Upper,
}

/// A registered set: its ISO-IR number, the half it is used in, and the escape that designates it there.
pub(super) struct Row {
    pub(super) number: &'static str,
    pub(super) set: Set,
    pub(super) half: Half,
    pub(super) escape: &'static [u8],
}

const fn row(number: &'static str, set: Set, half: Half, escape: &'static [u8]) -> Row {
    Row { number, set, half, escape }
}

/// What the standard has. Windows code pages are named where they have the same characters from 0xA0 on; below that
/// the decoder does not ask them.
pub(super) static ROWS: &[Row] = &[
    row("6", Set::Ascii, Half::Lower, b"\x1B(B"),
    row("14", Set::Romaji, Half::Lower, b"\x1B(J"),
    row("13", Set::Katakana, Half::Upper, b"\x1B)I"),
    row("100", Set::Latin1, Half::Upper, b"\x1B-A"),
    row("101", Set::Single(ISO_8859_2), Half::Upper, b"\x1B-B"),
    row("109", Set::Single(ISO_8859_3), Half::Upper, b"\x1B-C"),
    row("110", Set::Single(ISO_8859_4), Half::Upper, b"\x1B-D"),
    row("144", Set::Single(ISO_8859_5), Half::Upper, b"\x1B-L"),
    row("127", Set::Single(ISO_8859_6), Half::Upper, b"\x1B-G"),
    row("126", Set::Single(ISO_8859_7), Half::Upper, b"\x1B-F"),
    row("138", Set::Single(ISO_8859_8), Half::Upper, b"\x1B-H"),
    row("148", Set::Single(WINDOWS_1254), Half::Upper, b"\x1B-M"),
    row("203", Set::Single(ISO_8859_15), Half::Upper, b"\x1B-b"),
    row("166", Set::Single(WINDOWS_874), Half::Upper, b"\x1B-T"),
    row("87", Set::Kanji, Half::Lower, b"\x1B$B"),
    row("159", Set::KanjiMore, Half::Lower, b"\x1B$(D"),
    row("149", Set::Hangul, Half::Upper, b"\x1B$)C"),
    row("58", Set::Hanzi, Half::Upper, b"\x1B$)A"),
];

/// What is met besides: older editions of JIS, half-width katakana below 0x80, other forms of the same designations.
static TOLERATED: &[Row] = &[
    row("", Set::Kanji, Half::Lower, b"\x1B$@"),
    row("", Set::Kanji, Half::Lower, b"\x1B$(B"),
    row("", Set::Kanji, Half::Upper, b"\x1B$)B"),
    row("", Set::KanjiMore, Half::Upper, b"\x1B$)D"),
    row("", Set::Hangul, Half::Lower, b"\x1B$(C"),
    row("", Set::Hanzi, Half::Lower, b"\x1B$(A"),
    row("", Set::Hanzi, Half::Lower, b"\x1B$A"),
    row("", Set::Katakana, Half::Lower, b"\x1B(I"),
];

/// The row with this ISO-IR number.
pub(super) fn numbered(number: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.number == number)
}

/// The row of a set as it is written.
pub(super) fn of(set: Set) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.set == set)
}

/// The designation that `bytes` begin with.
pub(super) fn designation(bytes: &[u8]) -> Option<&'static Row> {
    ROWS.iter().chain(TOLERATED).find(|row| bytes.starts_with(row.escape))
}

/// Length of the escape sequence that `bytes` begin with, by the grammar of ISO 2022, whatever it designates:
/// `ESC | intermediates 20-2F, at least one | final 30-7E`. No registered one has more than three intermediates.
pub(super) fn escape_bytes(bytes: &[u8]) -> Option<usize> {
    let intermediates = bytes.iter().skip(1).take(4).take_while(|byte| (0x20..=0x2F).contains(*byte)).count();
    let last = bytes.get(1 + intermediates)?;
    ((1..=3).contains(&intermediates) && (0x30..=0x7E).contains(last)).then_some(intermediates + 2)
}

/// What a value of (0008,0005) names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Term {
    Utf8,
    Gb18030,
    Gbk,
    Number(&'static Row),
    /// Empty, or a word that no table has.
    Unknown,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.escape == other.escape
    }
}

impl Eq for Row {}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IR {}", self.number)
    }
}

/// Reads a value of (0008,0005). `ISO_IR 100`, `ISO-IR 100`, `ISO 2022 IR 100`, `ISO 2020 IR 100` and `iso_ir100` are
/// all met and say the same.
pub(super) fn term(value: &str) -> Term {
    // No term is longer than 16 characters (CS); what follows cannot make it one.
    let word: String =
        value.chars().take(32).filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_uppercase()).collect();
    match word.as_str() {
        "GB18030" | "GB2312" => return Term::Gb18030,
        "GBK" => return Term::Gbk,
        "UTF8" => return Term::Utf8,
        _ => {}
    }
    let rest = word.strip_prefix("ISO").unwrap_or(&word);
    let rest = rest.strip_prefix("2022").or_else(|| rest.strip_prefix("2020")).unwrap_or(rest);
    match rest.strip_prefix("IR").unwrap_or(rest) {
        "192" => Term::Utf8,
        number => numbered(number).map_or(Term::Unknown, Term::Number),
    }
}
