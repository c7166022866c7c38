//! The character sets that a library knows: every single-byte one, UTF-8, GB18030, and the common uses of ISO 2022.
//! Private; what reads and writes values goes through here, so that a fuller decoder has one place to come in.

use encoding_rs::{
    EUC_JP, EUC_KR, Encoding, GB18030, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5, ISO_8859_6, ISO_8859_7,
    ISO_8859_8, ISO_8859_15, SHIFT_JIS, UTF_8, WINDOWS_874, WINDOWS_1254,
};

/// What Specific Character Set (0008,0005) says (PS3.3 §C.12.1.1.2).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repertoire {
    /// Nothing: ASCII. Bytes above it are tolerated as UTF-8 where they are that, else as Latin-1.
    Default,
    /// ISO 8859-1, which encoding_rs knows only as windows-1252.
    Latin1,
    One(&'static Encoding),
    /// Escapes to Japanese sets.
    Japanese,
    /// An escape to a set in the upper half: Korean, simplified Chinese.
    Upper(&'static Encoding),
}

impl Repertoire {
    pub(crate) fn of(values: &[String]) -> Self {
        let number = |value: &str| -> String { value.chars().filter(char::is_ascii_digit).collect() };
        let first = values.first().map(|value| value.trim()).unwrap_or_default();
        match first {
            "GB18030" | "GBK" => return Self::One(GB18030),
            _ if values.len() > 1 => {
                let has = |wanted| values.iter().any(|value| number(value.trim_start_matches("ISO 2022")) == wanted);
                if has("87") || has("159") {
                    return Self::Japanese;
                }
                if has("149") {
                    return Self::Upper(EUC_KR);
                }
                if has("58") {
                    return Self::Upper(GB18030);
                }
            }
            _ => {}
        }
        // `ISO_IR 100`, `ISO-IR 100` and `ISO 2022 IR 100` say the same of the initial set.
        let set = number(first.trim_start_matches("ISO 2022").trim_start_matches("ISO 2020"));
        match set.as_str() {
            "100" => Self::Latin1,
            "101" => Self::One(ISO_8859_2),
            "109" => Self::One(ISO_8859_3),
            "110" => Self::One(ISO_8859_4),
            "144" => Self::One(ISO_8859_5),
            "127" => Self::One(ISO_8859_6),
            "126" => Self::One(ISO_8859_7),
            "138" => Self::One(ISO_8859_8),
            "148" => Self::One(WINDOWS_1254),
            "203" => Self::One(ISO_8859_15),
            "166" => Self::One(WINDOWS_874),
            "13" => Self::One(SHIFT_JIS),
            "192" => Self::One(UTF_8),
            "87" | "159" => Self::Japanese,
            "149" => Self::Upper(EUC_KR),
            "58" => Self::Upper(GB18030),
            _ => Self::Default,
        }
    }

    /// The text of a value; what is no character becomes U+FFFD.
    pub(crate) fn decode(self, bytes: &[u8]) -> String {
        match self {
            Self::Default => String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| latin_1(bytes)),
            Self::Latin1 => latin_1(bytes),
            Self::One(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            Self::Japanese => japanese(bytes),
            Self::Upper(encoding) => {
                let mut plain = Vec::with_capacity(bytes.len());
                let mut rest = bytes;
                while let [byte, more @ ..] = rest {
                    match rest {
                        // ESC $ ) x and ESC ) x designate the upper half, ESC ( x the lower one.
                        [0x1B, b'$', b')', _, after @ ..] | [0x1B, b')' | b'(', _, after @ ..] => rest = after,
                        _ => {
                            plain.push(*byte);
                            rest = more;
                        }
                    }
                }
                encoding.decode_without_bom_handling(&plain).0.into_owned()
            }
        }
    }

    /// The bytes of a text, if this repertoire has all its characters. Escapes are not written: `None`.
    pub(crate) fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            _ if text.is_ascii() => Some(text.as_bytes().to_vec()),
            Self::Latin1 => text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect(),
            Self::Default | Self::Japanese | Self::Upper(_) => None,
            // JIS X 0201 is Shift JIS without the characters of two bytes.
            Self::One(encoding) if encoding == SHIFT_JIS => {
                let (bytes, _, unmappable) = encoding.encode(text);
                (!unmappable && bytes.len() == text.chars().count()).then(|| bytes.into_owned())
            }
            Self::One(encoding) => {
                let (bytes, _, unmappable) = encoding.encode(text);
                (!unmappable).then(|| bytes.into_owned())
            }
        }
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// ISO 2022 with Japanese sets: JIS X 0208 (ESC $ B) and JIS X 0212 (ESC $ ( D) are read as EUC-JP has them, all else
/// as Shift JIS, whose single bytes are JIS X 0201.
fn japanese(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut set: Option<u8> = None;
    let mut run = Vec::new();
    let mut rest = bytes;
    let flush = |run: &mut Vec<u8>, set: Option<u8>, text: &mut String| {
        let bytes = std::mem::take(run);
        let decoded = match set {
            Some(b'B' | b'@') => EUC_JP.decode_without_bom_handling(&upper(&bytes, false)).0.into_owned(),
            Some(b'D') => EUC_JP.decode_without_bom_handling(&upper(&bytes, true)).0.into_owned(),
            _ => SHIFT_JIS.decode_without_bom_handling(&bytes).0.into_owned(),
        };
        text.push_str(&decoded);
    };
    while let [byte, more @ ..] = rest {
        let next = match rest {
            [0x1B, b'$', b'(', to, after @ ..] => Some((Some(*to), after)),
            [0x1B, b'$', to @ (b'B' | b'@'), after @ ..] => Some((Some(*to), after)),
            [0x1B, b'(' | b')', _, after @ ..] => Some((None, after)),
            _ => None,
        };
        match next {
            Some((to, after)) => {
                flush(&mut run, set, &mut text);
                set = to;
                rest = after;
            }
            None => {
                // PS3.5 §6.1.2.5.3: the initial set is back after these, said or not.
                if set.is_some() && run.len() % 2 == 0 && matches!(byte, b'^' | b'=' | b'\r' | b'\n' | b'\t' | 0x0C) {
                    let pair = more.first().is_some_and(|next| (0x21..=0x7E).contains(next)) && *byte > 0x20;
                    let closes = more.first().is_none_or(|&next| next == 0x1B) || !pair;
                    if closes {
                        flush(&mut run, set, &mut text);
                        set = None;
                    }
                }
                run.push(*byte);
                rest = more;
            }
        }
    }
    flush(&mut run, set, &mut text);
    text
}

/// Characters of 7-bit bytes as EUC-JP has them.
fn upper(bytes: &[u8], supplementary: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    for pair in bytes.chunks(2) {
        match pair {
            [first @ 0x21..=0x7E, second @ 0x21..=0x7E] => {
                out.extend(supplementary.then_some(0x8F));
                out.extend([first | 0x80, second | 0x80]);
            }
            other => out.extend(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(values: &[&str], bytes: &[u8]) -> String {
        let values: Vec<_> = values.iter().map(|&value| value.to_owned()).collect();
        Repertoire::of(&values).decode(bytes)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // PS3.5 H.3.1 example 1.
        let name = b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B";
        assert_eq!(decoded(&["", "ISO 2022 IR 87"], name), "Yamada^Tarou=山田^太郎=やまだ^たろう");
        // PS3.5 I.2.
        let name = b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF";
        assert_eq!(decoded(&["", "ISO 2022 IR 149"], name), "Hong^Gildong=洪^吉洞=홍^길동");
        assert_eq!(decoded(&["ISO_IR 13"], b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3"), "ﾔﾏﾀﾞ^ﾀﾛｳ");
        assert_eq!(decoded(&["ISO_IR 100"], b"Buc^J\xE9r\xF4me"), "Buc^Jérôme");
        assert_eq!(decoded(&["ISO_IR 144"], b"\xBB\xEE\xDAce"), "Люкce");
        assert_eq!(decoded(&["ISO_IR 192"], "Wang^王".as_bytes()), "Wang^王");
        assert_eq!(decoded(&["GB18030"], b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB"), "Wang^XiaoDong=王^小东");
    }

    #[test]
    fn undeclared_bytes_are_utf_8_or_latin_1() {
        assert_eq!(decoded(&[], "Müller".as_bytes()), "Müller");
        assert_eq!(decoded(&[], b"M\xFCller"), "Müller");
    }

    #[test]
    fn a_text_is_encoded_only_if_every_character_can_be() {
        let encoded = |value: &str, text: &str| Repertoire::of(&[value.to_owned()]).encode(text);
        assert_eq!(encoded("ISO_IR 100", "Jérôme"), Some(b"J\xE9r\xF4me".to_vec()));
        assert_eq!(encoded("ISO_IR 100", "山"), None);
        assert_eq!(encoded("ISO_IR 101", "Łódź"), Some(b"\xA3\xF3d\xBC".to_vec()));
        assert_eq!(encoded("ISO_IR 192", "山"), Some("山".as_bytes().to_vec()));
        assert_eq!(encoded("", "é"), None);
    }
}
