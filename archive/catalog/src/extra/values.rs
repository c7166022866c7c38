//! What an index has of a header: a text for each value, such that each pattern that may narrow is a look at texts.
//!
//! | text | of |
//! |---|---|
//! | `tHEAD` | an attribute of text, as compared; also one that came as UN, which is read as text |
//! | `pdoe^john` `pdoe^john=ジョン` | a group of components of a person name, folded; the whole name, where that is another text |
//! | `d20200101` `m101500.000000` | a date, a time in normal form |
//! | `n1.5` | a number |
//! | `?` | something that cannot be told this way: it is looked into by every query |

use super::ExtraIndex;
use crate::witness::{Wanted, read};
use archive_model::{
    Attribute, DataSet, Element, VR, Value,
    charset::split,
    json::tag_key,
    matching::{Moment, comparable, normal, whole_name},
    text::{capped, fold_person_name},
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// What is looked into by every query.
pub(crate) const UNTOLD: &str = "?";
/// Texts of one instance in one index, at most; what has more is `?`.
const TEXTS_MAX: usize = 32;

/// How values of a VR are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Name,
    Date,
    Time,
    Number,
}

pub(super) fn kind(vr: VR) -> Kind {
    match vr {
        VR::PN => Kind::Name,
        VR::DA => Kind::Date,
        VR::TM => Kind::Time,
        VR::IS | VR::DS | VR::US | VR::SS | VR::UL | VR::SL | VR::SV | VR::UV | VR::FL | VR::FD => Kind::Number,
        _ => Kind::Text,
    }
}

pub(super) fn text(vr: VR, value: &str) -> String {
    format!("t{}", capped(&comparable(vr, value)))
}

pub(super) fn number(value: f64) -> Option<String> {
    // Minus zero is found as zero is; what is no number is not found at all.
    let value = if value == 0.0 { 0.0 } else { value };
    (!value.is_nan()).then(|| format!("n{value:?}"))
}

/// The texts of an instance for each index. `json` is its header.
pub(super) fn texts(indexes: &[&ExtraIndex], json: &Bytes) -> Vec<Vec<String>> {
    let Some(header) = excerpt(indexes, json) else { return vec![vec![UNTOLD.to_owned()]; indexes.len()] };
    indexes.iter().map(|index| of_element(index.vr, wanted(index).of(&header).as_ref())).collect()
}

fn wanted(index: &ExtraIndex) -> Wanted {
    let creator = match &index.attribute {
        Attribute::Standard(_) => None,
        Attribute::Private { creator, .. } => Some(creator.clone()),
    };
    Wanted { tag: index.tag(), creator, is_creator: false }
}

fn of_element(vr: VR, element: Option<&Element>) -> Vec<String> {
    let untold = || vec![UNTOLD.to_owned()];
    let Some(element) = element else { return Vec::new() };
    let mut found = BTreeSet::new();
    match &element.value {
        Value::Empty => {}
        Value::Text(values) if element.vr == vr => values.iter().for_each(|value| put(vr, value, &mut found)),
        // It may be text, and it may be a value of `vr`: by which VR it is compared is for the key to say.
        Value::Bytes(bytes) if element.vr == VR::UN => {
            for value in split(&String::from_utf8_lossy(bytes), VR::LO) {
                found.insert(text(VR::LO, &value));
                put(vr, &value, &mut found);
            }
        }
        Value::Integers(values) if element.vr == vr => {
            found.extend(values.iter().filter_map(|value| number(*value as f64)));
        }
        Value::Floats(values) if element.vr == vr => found.extend(values.iter().filter_map(|value| number(*value))),
        Value::Text(_) | Value::Integers(_) | Value::Floats(_) | Value::Items(_) | Value::Tags(_) => return untold(),
        // Neither matched nor returned.
        Value::Bytes(_) | Value::Bulk { .. } => {}
    }
    if found.len() > TEXTS_MAX { untold() } else { found.into_iter().collect() }
}

fn put(vr: VR, value: &str, found: &mut BTreeSet<String>) {
    match kind(vr) {
        Kind::Text => _ = found.insert(text(vr, value)),
        Kind::Name => {
            let name = fold_person_name(value);
            found.extend(name.groups().map(|group| format!("p{group}")));
            found.insert(format!("p{}", whole_name(&name)));
        }
        Kind::Date => found.extend(normal(Moment::Date, value).map(|(first, _)| format!("d{first}"))),
        Kind::Time => found.extend(normal(Moment::Time, value).map(|(first, _)| format!("m{first}"))),
        Kind::Number => found.extend(value.trim().parse::<f64>().ok().and_then(number)),
    }
}

/// The part of a header that indexes read: the rest of it is passed over, which is ten times as fast as to read it.
fn excerpt(indexes: &[&ExtraIndex], json: &Bytes) -> Option<DataSet> {
    let is_wanted = |name: &[u8]| {
        indexes.iter().any(|index| {
            let key = tag_key(index.tag());
            let key = key.as_bytes();
            match index.attribute {
                Attribute::Standard(_) => name == key,
                // Its creators, and what has its number in whatever block.
                Attribute::Private { .. } => {
                    name.len() == 8 && name[..4] == key[..4] && (&name[4..6] == b"00" || name[6..] == key[6..])
                }
            }
        })
    };
    let mut some = vec![b'{'];
    members(json, |name, member| {
        if is_wanted(name) {
            if some.len() > 1 {
                some.push(b',');
            }
            some.extend_from_slice(member);
        }
    })?;
    some.push(b'}');
    read(&some.into()).ok()
}

/// Calls `each` with name and text of every member of a JSON object; `None` for what is no object as `to_json` writes one.
fn members(json: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Option<()> {
    let mut at = 1;
    if json.first()? != &b'{' {
        return None;
    }
    if json.get(at)? == &b'}' {
        return (json.len() == 2).then_some(());
    }
    loop {
        let begin = at;
        if json.get(at)? != &b'"' {
            return None;
        }
        at = behind_text(json, at)?;
        let name = json.get(begin + 1..at - 1)?;
        if json.get(at)? != &b':' {
            return None;
        }
        let mut depth = 0_u32;
        loop {
            at += 1;
            match json.get(at)? {
                b'"' => at = behind_text(json, at)? - 1,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                b',' | b'}' if depth == 0 => break,
                _ => {}
            }
        }
        each(name, &json[begin..at]);
        if json[at] == b'}' {
            return (at + 1 == json.len()).then_some(());
        }
        at += 1;
    }
}

/// Behind the text that begins at `at`.
fn behind_text(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match json.get(at)? {
            b'\\' => at += 1,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use archive_model::{Tag, json, tags};

    fn element(tag: Tag, vr: VR, value: Value) -> Element {
        Element { tag, vr, value }
    }

    fn text_of(tag: Tag, vr: VR, values: &[&str]) -> Element {
        element(tag, vr, Value::Text(values.iter().map(|value| (*value).to_owned()).collect()))
    }

    fn texts_of(attribute: &str, vr: VR, elements: &[Element]) -> String {
        let set: DataSet = elements.iter().cloned().collect();
        let index = ExtraIndex { attribute: attribute.parse().expect("known"), vr, level: Level::Study };
        texts(&[&index], &json::to_json(&set, &json::no_bulk).into()).remove(0).join(" ")
    }

    #[test]
    fn each_kind_of_value_has_the_text_that_patterns_are_compared_with() {
        let hard = text_of(tags::PATIENT_COMMENTS, VR::LT, &["a \"quoted\\ } ] { text, \u{1}"]);
        let nested: DataSet = [text_of(tags::KVP, VR::DS, &["7"])].into_iter().collect();
        let nested = element(tags::REFERENCED_STUDY_SEQUENCE, VR::SQ, Value::Items(vec![nested]));
        let around = |own: Element| vec![hard.clone(), nested.clone(), own];
        let kvp = |value| around(element(tags::KVP, VR::DS, value));
        assert_eq!(texts_of("KVP", VR::DS, &kvp(Value::Text(vec!["120 ".into(), "1e2".into()]))), "n100.0 n120.0");
        assert_eq!(texts_of("KVP", VR::DS, &kvp(Value::Empty)), "");
        assert_eq!(texts_of("KVP", VR::DS, &[hard.clone(), nested.clone()]), "", "in an item it is another one");
        assert_eq!(texts_of("KVP", VR::DS, &around(text_of(tags::KVP, VR::LO, &["120"]))), "?", "another VR");
        assert_eq!(texts_of("KVP", VR::DS, &kvp(Value::Text((0..40).map(|kv| kv.to_string()).collect()))), "?", "many");
        let number = around(element(tags::SMALLEST_IMAGE_PIXEL_VALUE, VR::US, Value::Integers(vec![0, 7])));
        assert_eq!(texts_of("SmallestImagePixelValue", VR::US, &number), "n0.0 n7.0");
        let name = around(text_of(tags::RESPONSIBLE_PERSON, VR::PN, &["Müller^Jörg=山田"]));
        assert_eq!(texts_of("ResponsiblePerson", VR::PN, &name), "pmuller^jorg pmuller^jorg=山田 p山田");
        let date = around(text_of(tags::DATE_OF_SECONDARY_CAPTURE, VR::DA, &["2020.01.02", "soon"]));
        assert_eq!(texts_of("DateOfSecondaryCapture", VR::DA, &date), "d20200102");
        let comments = [element(tags::IMAGE_COMMENTS, VR::LT, Value::Text(vec![" ﬁne ".into()]))];
        assert_eq!(texts_of("ImageComments", VR::LT, &comments), "t fine");
    }

    #[test]
    fn a_private_attribute_is_where_its_creator_has_its_block() {
        let creator = |block, name: &str| text_of(Tag(0x0009, block), VR::LO, &[name]);
        let bytes = |tag, value: &'static [u8]| element(tag, VR::UN, Value::Bytes(Bytes::from_static(value)));
        let set = [
            creator(0x10, "OTHER"),
            creator(0x11, "ACME 1.0 "),
            bytes(Tag(0x0009, 0x1001), b"not this"),
            bytes(Tag(0x0009, 0x1101), b" 7\\Head "),
        ];
        assert_eq!(texts_of("(0009,\"ACME 1.0\",01)", VR::LO, &set), "t7 tHead");
        assert_eq!(texts_of("(0009,\"ACME 1.0\",01)", VR::IS, &set), "n7.0 t7 tHead");
        assert_eq!(texts_of("(0009,\"ACME 2.0\",01)", VR::LO, &set), "");
    }

    #[test]
    fn what_is_no_header_is_looked_into() {
        for json in [&b""[..], b"{", b"[]", b"{\"00180060\":", b"{\"00180060\":{}", b"{\"00180060\":7}", b"{} "] {
            let index = ExtraIndex { attribute: "KVP".parse().expect("known"), vr: VR::DS, level: Level::Study };
            assert_eq!(texts(&[&index], &Bytes::copy_from_slice(json)), [[UNTOLD]], "{}", json.escape_ascii());
        }
    }
}
