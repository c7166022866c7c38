//! Bytes of a value to the value: numbers, tags, text.
//!
//! Text in which every byte is ASCII means the same in all character sets and is decoded at once. Other text stays
//! bytes until the data set is complete, because only then its Specific Character Set (0008,0005) is known for sure.

use crate::{
    DataSet, Value,
    charset::{self, Charset},
    tags,
};
use dicom_core::{Tag, VR};

const ESCAPE: u8 = 0x1B;

/// Whether values of this VR are text.
pub(crate) fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT};
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT)
}

/// Bytes of one number of this VR; 0 for all else.
pub(crate) fn number_bytes(vr: VR) -> usize {
    match vr {
        VR::US | VR::SS => 2,
        VR::UL | VR::SL | VR::FL | VR::AT => 4,
        VR::UV | VR::SV | VR::FD => 8,
        _ => 0,
    }
}

/// Bytes of one word of a VR that is an array of words; 1 for all else.
pub(crate) fn word_bytes(vr: VR) -> usize {
    match vr {
        VR::OW => 2,
        VR::OL | VR::OF => 4,
        VR::OV | VR::OD => 8,
        _ => 1,
    }
}

/// Bytes of memory that an element or an item takes, its value apart: 48 or 24, and what allocator and vector add.
pub(crate) const ELEMENT_HEAP_BYTES: u64 = 64;
const _: () = assert!(size_of::<crate::Element>() <= 48 && size_of::<DataSet>() <= 24);

/// About how many bytes of memory a value will take: numbers and short texts take far more than in the data set.
pub(crate) fn heap_bytes(vr: VR, bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    let values = |each_bytes| bytes.iter().filter(|&&byte| byte == b'\\').count() as u64 * each_bytes;
    match number_bytes(vr) as u64 {
        // i128, f64 or a tag.
        1.. => length / number_bytes(vr) as u64 * 16,
        // A String and the least an allocator gives.
        0 if is_text(vr) && !charset::is_single(vr) => length + values(48),
        0 => length,
    }
}

/// The value of a complete element. Text that is not ASCII comes back as bytes, for [`decode_text`].
pub(crate) fn decode(vr: VR, bytes: Vec<u8>, big: bool) -> (Value, Option<&'static str>) {
    if bytes.is_empty() {
        return (Value::Empty, None);
    }
    if is_text(vr) {
        let plain = bytes.iter().all(|&byte| byte < 0x80 && byte != ESCAPE);
        return match String::from_utf8(bytes) {
            Ok(text) if plain => (text_values(vr, &text), None),
            Ok(text) => (Value::Bytes(text.into_bytes().into()), None),
            Err(error) => (Value::Bytes(error.into_bytes().into()), None),
        };
    }
    let size = number_bytes(vr);
    if size == 0 {
        return (Value::Bytes(swapped(bytes, word_bytes(vr), big).into()), None);
    }
    if !bytes.len().is_multiple_of(size) {
        return (Value::Bytes(bytes.into()), Some("length is not a multiple of the VR's"));
    }
    (numbers(vr, &bytes, size, big), None)
}

/// Words of big-endian data sets in the order that all others have.
fn swapped(mut bytes: Vec<u8>, word: usize, big: bool) -> Vec<u8> {
    if big && word > 1 {
        bytes.chunks_exact_mut(word).for_each(<[u8]>::reverse);
    }
    bytes
}

fn numbers(vr: VR, bytes: &[u8], size: usize, big: bool) -> Value {
    let words = bytes.chunks_exact(size).map(|chunk| {
        let fold = |word, &byte: &u8| word << 8 | u64::from(byte);
        if big { chunk.iter().fold(0, fold) } else { chunk.iter().rev().fold(0, fold) }
    });
    match vr {
        VR::SS => Value::Integers(words.map(|word| i128::from(word as u16 as i16)).collect()),
        VR::SL => Value::Integers(words.map(|word| i128::from(word as u32 as i32)).collect()),
        VR::SV => Value::Integers(words.map(|word| i128::from(word as i64)).collect()),
        VR::FL => Value::Floats(words.map(|word| f64::from(f32::from_bits(word as u32))).collect()),
        VR::FD => Value::Floats(words.map(f64::from_bits).collect()),
        VR::AT => {
            // Two words of 2 bytes: the group first in either byte order.
            let tag = |word: u64| {
                if big { Tag((word >> 16) as u16, word as u16) } else { Tag(word as u16, (word >> 16) as u16) }
            };
            Value::Tags(words.map(tag).collect())
        }
        _ => Value::Integers(words.map(i128::from).collect()),
    }
}

/// Text split into values, each without its padding.
pub(crate) fn text_values(vr: VR, text: &str) -> Value {
    let values = charset::split(text, vr);
    match values.as_slice() {
        [only] if only.is_empty() => Value::Empty,
        _ => Value::Text(values),
    }
}

/// Decodes the text that is still bytes, each data set with its own character set or that of what encloses it
/// (PS3.5 §6.1.2.3). Iterative: depth is the sender's choice.
pub(crate) fn decode_text(root: &mut DataSet) {
    let mut todo = vec![(root, Charset::default())];
    while let Some((set, inherited)) = todo.pop() {
        let charset = match set.get(tags::SPECIFIC_CHARACTER_SET) {
            Some(_) => Charset::of(set.texts(tags::SPECIFIC_CHARACTER_SET)),
            None => inherited,
        };
        for element in set.elements_mut() {
            let text = match &element.value {
                Value::Bytes(bytes) if is_text(element.vr) => {
                    Some(text_values(element.vr, &charset.decode(bytes, element.vr)))
                }
                _ => None,
            };
            if let Some(text) = text {
                element.value = text;
            } else if let Value::Items(items) = &mut element.value {
                todo.extend(items.iter_mut().map(|item| (item, charset)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn text(vr: VR, bytes: &[u8]) -> Vec<String> {
        match decode(vr, bytes.to_vec(), false).0 {
            Value::Text(values) => values,
            _ => Vec::new(),
        }
    }

    #[test]
    fn values_lose_their_padding_and_running_text_keeps_its_indent() {
        assert_eq!(text(VR::LO, b" A \\ B\\"), ["A", "B", ""]);
        assert_eq!(text(VR::UI, b"1.2.3\0"), ["1.2.3"]);
        assert_eq!(text(VR::LT, b"  a\\b \0"), ["  a\\b"]);
        assert_eq!(decode(VR::LO, b"    ".to_vec(), false).0, Value::Empty);
    }

    #[test]
    fn numbers_are_read_in_either_byte_order() {
        let value = |vr, bytes: &[u8], big| decode(vr, bytes.to_vec(), big).0;
        assert_eq!(value(VR::US, &[1, 0, 0xFF, 0xFF], false), Value::Integers(vec![1, 65_535]));
        assert_eq!(value(VR::SS, &[0xFF, 0xFE], true), Value::Integers(vec![-2]));
        assert_eq!(value(VR::SV, &[0xFF; 8], false), Value::Integers(vec![-1]));
        assert_eq!(value(VR::UV, &[0xFF; 8], true), Value::Integers(vec![i128::from(u64::MAX)]));
        assert_eq!(value(VR::FL, &1.5_f32.to_be_bytes(), true), Value::Floats(vec![1.5]));
        assert_eq!(value(VR::AT, &[0x10, 0, 0x20, 0], false), Value::Tags(vec![Tag(0x10, 0x20)]));
        assert_eq!(value(VR::AT, &[0, 0x10, 0, 0x20], true), Value::Tags(vec![Tag(0x10, 0x20)]));
        assert_eq!(value(VR::OW, &[1, 2, 3, 4], true), Value::Bytes(Bytes::from_static(&[2, 1, 4, 3])));
        assert_eq!(value(VR::US, &[1], false), Value::Bytes(Bytes::from_static(&[1])));
    }
}
