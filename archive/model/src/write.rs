//! Data sets to bytes: answers, identifiers, command sets, meta headers. Stored instances never pass through here.
//!
//! Lengths are defined and even; values are padded as their VR asks (PS3.5 §6.2: NUL for UI and OB, space for text).
//! Where an element declares Specific Character Set (0008,0005), text is written in it; if one text of the data set
//! cannot be, the whole data set is written in UTF-8 and says so. Iterative: items wait on a stack of their own.

use crate::scanner::{is_long, is_text, number_bytes, word_bytes};
use crate::{
    DataSet, Element, Encoding, Tag, VR, Value,
    charset::{Charset, is_single},
    tags,
};

/// What a short VR's length can say, rounded down to even (PS3.5 §6.2.2).
const SHORT_BYTES_MAX: usize = 65_534;
const UTF_8: &str = "ISO_IR 192";

/// Bytes of `set`. Bulk values have none to write and become empty elements: whoever has the body reads it there.
#[must_use]
pub fn write_data_set(set: &DataSet, encoding: Encoding) -> Vec<u8> {
    if is_writable(set) {
        return Writer { encoding, words: declared(set) }.write(set);
    }
    let mut set = set.clone();
    use_utf_8(&mut set);
    Writer { encoding, words: declared(&set) }.write(&set)
}

/// Bytes of a command set: implicit little endian, with its group length (PS3.7 §6.3.1). Elements outside of group
/// 0000 do not belong there and are left out.
#[must_use]
pub fn write_command_set(set: &DataSet) -> Vec<u8> {
    let rest = set.iter().filter(|element| element.tag.0 == 0 && element.tag.1 != 0).cloned().collect();
    with_group_length(&rest, Tag(0, 0), Encoding::ImplicitLe)
}

/// A group with its length before it.
pub(crate) fn with_group_length(group: &DataSet, length_tag: Tag, encoding: Encoding) -> Vec<u8> {
    let body = write_data_set(group, encoding);
    let length = Value::Integers(vec![body.len() as i128]);
    let head: DataSet = [Element { tag: length_tag, vr: VR::UL, value: length }].into_iter().collect();
    let mut bytes = write_data_set(&head, encoding);
    bytes.extend(body);
    bytes
}

/// Sets the character set of `root` to UTF-8, and lets its items inherit that.
fn use_utf_8(root: &mut DataSet) {
    root.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, UTF_8);
    let mut todo: Vec<&mut DataSet> = vec![root];
    while let Some(set) = todo.pop() {
        for element in set.elements_mut() {
            if let Value::Items(items) = &mut element.value {
                for item in items {
                    item.remove(tags::SPECIFIC_CHARACTER_SET);
                    todo.push(item);
                }
            }
        }
    }
}

/// Whether all text of `root` can be written in the sets that it declares.
fn is_writable(root: &DataSet) -> bool {
    let mut todo = vec![(root, declared(root))];
    while let Some((set, words)) = todo.pop() {
        for element in set {
            match &element.value {
                Value::Text(texts) => {
                    if !texts.iter().all(|text| words.encode(text, element.vr).is_some()) {
                        return false;
                    }
                }
                Value::Items(items) => todo.extend(items.iter().map(|item| (item, inherited(words, item)))),
                Value::Empty
                | Value::Integers(_)
                | Value::Floats(_)
                | Value::Tags(_)
                | Value::Bytes(_)
                | Value::Bulk { .. } => {}
            }
        }
    }
    true
}

/// The character set in force in `item`.
fn inherited(words: Charset, item: &DataSet) -> Charset {
    if item.get(tags::SPECIFIC_CHARACTER_SET).is_some() { declared(item) } else { words }
}

fn declared(set: &DataSet) -> Charset {
    Charset::of(set.texts(tags::SPECIFIC_CHARACTER_SET))
}

struct Writer {
    encoding: Encoding,
    words: Charset,
}

/// What is still to be written: elements, or the end of something whose length is to be filled in.
enum Todo<'a> {
    Elements(std::slice::Iter<'a, Element>, Charset),
    Items(std::slice::Iter<'a, DataSet>, Charset),
    /// The 4 bytes of a length, which counts from behind them.
    Length(usize),
}

impl Writer {
    fn write(self, set: &DataSet) -> Vec<u8> {
        let mut out = Vec::new();
        let mut todo = vec![Todo::Elements(set.iter(), self.words)];
        while let Some(next) = todo.pop() {
            match next {
                Todo::Length(at) => {
                    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX - 1);
                    out[at..at + 4].copy_from_slice(&self.u32(length));
                }
                Todo::Items(mut items, words) => {
                    let Some(item) = items.next() else { continue };
                    let inherited = inherited(words, item);
                    todo.push(Todo::Items(items, words));
                    self.header(&mut out, Tag(0xFFFE, 0xE000), None, 0);
                    todo.push(Todo::Length(out.len() - 4));
                    todo.push(Todo::Elements(item.iter(), inherited));
                }
                Todo::Elements(mut elements, words) => {
                    let Some(element) = elements.next() else { continue };
                    todo.push(Todo::Elements(elements, words));
                    if let Value::Items(items) = &element.value {
                        self.header(&mut out, element.tag, Some(VR::SQ), 0);
                        todo.push(Todo::Length(out.len() - 4));
                        todo.push(Todo::Items(items.iter(), words));
                    } else {
                        self.element(&mut out, element, words);
                    }
                }
            }
        }
        out
    }

    fn element(&self, out: &mut Vec<u8>, element: &Element, words: Charset) {
        let Element { tag, vr, value } = element;
        let mut vr = *vr;
        let bytes = self.value(vr, value, words);
        if bytes.len() > SHORT_BYTES_MAX && !is_long(vr) && self.encoding != Encoding::ImplicitLe {
            vr = VR::UN;
        }
        self.header(out, *tag, Some(vr), u32::try_from(bytes.len()).unwrap_or(u32::MAX - 1));
        out.extend(bytes);
    }

    fn header(&self, out: &mut Vec<u8>, Tag(group, element): Tag, vr: Option<VR>, length: u32) {
        out.extend(self.u16(group));
        out.extend(self.u16(element));
        match vr.filter(|_| self.encoding != Encoding::ImplicitLe) {
            Some(vr) => {
                out.extend(vr.to_bytes());
                if is_long(vr) {
                    out.extend([0, 0]);
                    out.extend(self.u32(length));
                } else {
                    out.extend(self.u16(u16::try_from(length).unwrap_or(u16::MAX - 1)));
                }
            }
            None => out.extend(self.u32(length)),
        }
    }

    /// The bytes of a value, padded to even length.
    fn value(&self, vr: VR, value: &Value, words: Charset) -> Vec<u8> {
        let mut bytes = match value {
            // Items are written by the loop.
            Value::Empty | Value::Bulk { .. } | Value::Items(_) => Vec::new(),
            Value::Text(texts) => self.text(vr, texts, words),
            Value::Integers(numbers) if is_text(vr) => {
                self.text(vr, &numbers.iter().map(ToString::to_string).collect::<Vec<_>>(), words)
            }
            Value::Floats(numbers) if is_text(vr) => {
                self.text(vr, &numbers.iter().map(ToString::to_string).collect::<Vec<_>>(), words)
            }
            Value::Integers(numbers) => numbers.iter().flat_map(|&number| self.integer(vr, number)).collect(),
            Value::Floats(numbers) if vr == VR::FL => {
                numbers.iter().flat_map(|&number| self.word(u64::from((number as f32).to_bits()), 4)).collect()
            }
            Value::Floats(numbers) => numbers.iter().flat_map(|&number| self.word(number.to_bits(), 8)).collect(),
            Value::Tags(tags) => {
                tags.iter().flat_map(|&Tag(group, element)| [self.u16(group), self.u16(element)].concat()).collect()
            }
            Value::Bytes(bytes) => {
                let mut bytes = bytes.to_vec();
                if self.encoding == Encoding::ExplicitBe && word_bytes(vr) > 1 {
                    bytes.chunks_exact_mut(word_bytes(vr)).for_each(<[u8]>::reverse);
                }
                bytes
            }
        };
        if !bytes.len().is_multiple_of(2) {
            bytes.push(if is_text(vr) && vr != VR::UI { b' ' } else { 0 });
        }
        bytes
    }

    fn text(&self, vr: VR, texts: &[String], words: Charset) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            if at > 0 && !is_single(vr) {
                bytes.push(b'\\');
            }
            match words.encode(text, vr) {
                Some(encoded) => bytes.extend(encoded),
                // Not reached: write_data_set has made sure. Were it, UTF-8 is what most readers guess.
                None => bytes.extend(text.as_bytes()),
            }
        }
        bytes
    }

    fn integer(&self, vr: VR, number: i128) -> Vec<u8> {
        // Two's complement of the VR's width: what does not fit was no value of that VR.
        self.word(number as u64, number_bytes(vr).max(2))
    }

    fn word(&self, word: u64, bytes: usize) -> Vec<u8> {
        if self.encoding == Encoding::ExplicitBe {
            word.to_be_bytes()[8 - bytes..].to_vec()
        } else {
            word.to_le_bytes()[..bytes].to_vec()
        }
    }

    fn u16(&self, number: u16) -> [u8; 2] {
        if self.encoding == Encoding::ExplicitBe { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(&self, number: u32) -> [u8; 4] {
        if self.encoding == Encoding::ExplicitBe { number.to_be_bytes() } else { number.to_le_bytes() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Limits, read_command_set, read_data_set, transfer_syntax};
    use bytes::Bytes;

    fn one(tag: Tag, vr: VR, value: Value) -> DataSet {
        [Element { tag, vr, value }].into_iter().collect()
    }

    fn text(value: &str) -> Value {
        Value::Text(vec![value.into()])
    }

    #[test]
    fn values_are_padded_as_their_vr_asks() {
        let written = |vr, value| write_data_set(&one(Tag(0x11, 0x1001), vr, value), Encoding::ExplicitLe);
        assert_eq!(written(VR::UI, text("1.2")), b"\x11\0\x01\x10UI\x04\x001.2\0");
        assert_eq!(written(VR::LO, text("abc")), b"\x11\0\x01\x10LO\x04\0abc ");
        assert_eq!(written(VR::IS, Value::Integers(vec![-1, 20])), b"\x11\0\x01\x10IS\x06\0-1\\20 ");
        let odd = Value::Bytes(Bytes::from_static(b"abc"));
        assert_eq!(written(VR::OB, odd), b"\x11\0\x01\x10OB\0\0\x04\0\0\0abc\0");
        assert_eq!(written(VR::DA, Value::Empty), b"\x11\0\x01\x10DA\0\0");
    }

    #[test]
    fn sequences_have_defined_lengths() {
        let item = one(Tag(0x8, 0x1155), VR::UI, text("1.2"));
        let bytes = write_data_set(&one(Tag(0x8, 0x1140), VR::SQ, Value::Items(vec![item])), Encoding::ImplicitLe);
        assert_eq!(bytes, b"\x08\0\x40\x11\x14\0\0\0\xFE\xFF\0\xE0\x0C\0\0\0\x08\0\x55\x11\x04\0\0\x001.2\0");
    }

    #[test]
    fn a_value_too_long_for_its_vr_becomes_unknown_and_is_read_back() {
        let long = one(Tag(0x18, 0x9810), VR::DS, Value::Text(vec!["1.25".into(); 20_000]));
        let bytes = write_data_set(&long, Encoding::ExplicitLe);
        assert_eq!(&bytes[4..6], b"UN");
        assert_eq!(&write_data_set(&long, Encoding::ImplicitLe)[4..8], &100_000_u32.to_le_bytes());
        let standard = one(Tag(0x10, 0x4000), VR::LT, text(&"x".repeat(70_000)));
        let bytes = write_data_set(&standard, Encoding::ExplicitLe);
        let read = read_data_set(&bytes, &transfer_syntax("1.2.840.10008.1.2.1"), &Limits::default());
        assert_eq!(read, Ok(standard));
    }

    #[test]
    fn text_that_its_character_set_lacks_is_written_in_utf_8_and_says_so() {
        let mut set = one(tags::PATIENT_NAME, VR::PN, text("Müller^山田"));
        set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
        let item = one(tags::SPECIFIC_CHARACTER_SET, VR::CS, text("ISO_IR 100"));
        set.put(Element { tag: Tag(0x8, 0x1140), vr: VR::SQ, value: Value::Items(vec![item]) });
        let bytes = write_data_set(&set, Encoding::ExplicitLe);
        assert!(bytes.windows(14).any(|window| window == "Müller^山田".as_bytes()));
        let read = read_data_set(&bytes, &transfer_syntax("1.2.840.10008.1.2.1"), &Limits::default()).unwrap();
        assert_eq!(read.text(tags::SPECIFIC_CHARACTER_SET), Some("ISO_IR 192"));
        assert!(read.items(Tag(0x8, 0x1140))[0].is_empty());
    }

    #[test]
    fn a_command_set_has_its_group_length_and_nothing_foreign() {
        let mut command = one(Tag(0, 0x100), VR::US, Value::Integers(vec![0x30]));
        command.put_text(Tag(0, 0x2), VR::UI, "1.2.840.10008.1.1");
        command.put_text(tags::PATIENT_ID, VR::LO, "ID");
        let bytes = write_command_set(&command);
        assert_eq!(&bytes[..12], b"\0\0\0\0\x04\0\0\0\x24\0\0\0");
        assert_eq!(bytes.len(), 12 + 36);
        let read = read_command_set(&bytes, &Limits::default()).unwrap();
        assert_eq!(read.integer(Tag(0, 0)), Some(36));
        assert_eq!(read.text(Tag(0, 0x2)), Some("1.2.840.10008.1.1"));
        assert_eq!(read.get(tags::PATIENT_ID), None);
    }
}
