//! The DICOM JSON model (PS3.18 Annex F): data sets to JSON and back.
//!
//! ```json
//! { "00100010": { "vr": "PN", "Value": [ { "Alphabetic": "Doe^Jane" } ] }, "7FE00010": { "vr": "OW", "BulkDataURI": "…" } }
//! ```
//!
//! Numbers that a JSON reader would change stay text (DS and IS that are not plain, SV and UV beyond 2^53).

mod read;

use crate::{DataSet, Element, Tag, VR, Value, tags};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Number;
use std::io::{self, Write};

pub(crate) use read::{Item, value_of};
pub use read::{data_sets_from_json, from_json, sent_data_sets_from_json};

/// One step from the root to an element inside of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathStep {
    /// The sequence.
    pub tag: Tag,
    /// The item, counted from 0.
    pub item: usize,
}

/// Levels of sequences that are written and read.
const DEPTH_MAX: usize = 64;
/// Greatest integer that every JSON reader keeps: 2^53.
const EXACT_MAX: i128 = 1 << 53;

/// JSON that is no data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", tag.map(|tag| format!("{}: ", tag_key(tag))).unwrap_or_default())]
pub struct JsonError {
    /// The attribute, if it is known.
    pub tag: Option<Tag>,
    /// What is wrong and what would be right.
    pub why: String,
}

/// Says where the bulk value of an element can be fetched; `None` leaves the value out.
pub type BulkUri<'a> = dyn Fn(&[PathStep], &Element) -> Option<String> + 'a;

/// The JSON of `set`.
#[must_use]
pub fn to_json(set: &DataSet, bulk: &BulkUri<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match write_json(&mut out, set, bulk) {
        Ok(()) => out,
        Err(_) => Vec::new(), // texts and finite numbers into memory cannot fail
    }
}

/// Writes the JSON of `set`, keys in ascending order, as it goes: in memory is no more than the path to an element.
///
/// # Errors
/// Those of `out`.
pub fn write_json(out: &mut dyn Write, set: &DataSet, bulk: &BulkUri<'_>) -> io::Result<()> {
    write_set(out, set, bulk, &mut Vec::new())
}

/// `bulk` for data sets that have no bulk values.
#[must_use]
pub fn no_bulk(_: &[PathStep], _: &Element) -> Option<String> {
    None
}

fn write_set(out: &mut dyn Write, set: &DataSet, bulk: &BulkUri<'_>, path: &mut Vec<PathStep>) -> io::Result<()> {
    out.write_all(b"{")?;
    // Group lengths say nothing about another encoding (PS3.18 F.2.2).
    for (number, element) in set.iter().filter(|element| element.tag.element() != 0).enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(out, "{comma}\"{:04X}{:04X}\":{{", element.tag.group(), element.tag.element())?;
        write_value(out, element, bulk, path)?;
        write!(out, "\"vr\":\"{}\"}}", element.vr)?;
    }
    out.write_all(b"}")
}

/// A tag as a key: eight upper-case hexadecimal digits.
#[must_use]
pub fn tag_key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

/// The tag of such a key.
#[must_use]
pub fn key_tag(key: &str) -> Option<Tag> {
    if key.len() != 8 || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(Tag(u16::from_str_radix(&key[..4], 16).ok()?, u16::from_str_radix(&key[4..], 16).ok()?))
}

/// What an attribute has beside `vr`, with a comma behind it.
fn write_value(out: &mut dyn Write, element: &Element, bulk: &BulkUri<'_>, path: &mut Vec<PathStep>) -> io::Result<()> {
    match &element.value {
        // JSON is UTF-8 whatever the data set was (PS3.18 F.2.1).
        Value::Text(_) if element.tag == tags::SPECIFIC_CHARACTER_SET => out.write_all(br#""Value":["ISO_IR 192"],"#),
        Value::Text(values) => write_values(out, values, |out, text| write_text(out, element.vr, text)),
        Value::Integers(values) => write_values(out, values, |out, value| write_integer(out, *value)),
        Value::Floats(values) => write_values(out, values, |out, value| write_float(out, *value)),
        Value::Tags(values) => write_values(out, values, |out, tag| write!(out, "\"{}\"", tag_key(*tag))),
        Value::Bytes(bytes) => {
            out.write_all(br#""InlineBinary":""#)?;
            // Three bytes make four characters, so that the pieces join without padding.
            bytes.chunks(3 << 10).try_for_each(|piece| out.write_all(BASE64.encode(piece).as_bytes()))?;
            out.write_all(br#"","#)
        }
        Value::Bulk { .. } => match bulk(path, element) {
            Some(uri) => {
                out.write_all(br#""BulkDataURI":"#)?;
                write_string(out, &uri)?;
                out.write_all(b",")
            }
            None => Ok(()),
        },
        Value::Items(items) if path.len() < DEPTH_MAX => {
            path.push(PathStep { tag: element.tag, item: 0 });
            let written = write_values(out, items, |out, item| {
                write_set(out, item, bulk, path)?;
                path.iter_mut().next_back().into_iter().for_each(|step| step.item += 1);
                Ok(())
            });
            path.pop();
            written
        }
        Value::Empty | Value::Items(_) => Ok(()),
    }
}

fn write_values<T>(
    out: &mut dyn Write,
    values: &[T],
    mut write: impl FnMut(&mut dyn Write, &T) -> io::Result<()>,
) -> io::Result<()> {
    for (number, value) in values.iter().enumerate() {
        out.write_all(if number == 0 { br#""Value":["# } else { b"," })?;
        write(out, value)?;
    }
    out.write_all(if values.is_empty() { b"" } else { b"]," })
}

fn write_string(out: &mut dyn Write, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(out, text)?)
}

fn write_text(out: &mut dyn Write, vr: VR, text: &str) -> io::Result<()> {
    match vr {
        _ if text.is_empty() => out.write_all(b"null"),
        VR::PN => {
            out.write_all(b"{")?;
            let names = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.splitn(3, '='));
            for (number, (name, group)) in names.filter(|(_, group)| !group.is_empty()).enumerate() {
                write!(out, "{}\"{name}\":", if number == 0 { "" } else { "," })?;
                write_string(out, group)?;
            }
            out.write_all(b"}")
        }
        VR::IS if text.parse::<i64>().is_ok_and(|value| value.to_string() == text) => out.write_all(text.as_bytes()),
        VR::DS if plain_decimal(text).is_some() => out.write_all(text.as_bytes()),
        _ => write_string(out, text),
    }
}

/// A decimal string as a number, if the number prints as the same text.
fn plain_decimal(text: &str) -> Option<Number> {
    if let Ok(value) = text.parse::<i64>() {
        return (value.to_string() == text).then(|| value.into());
    }
    let value: f64 = text.parse().ok()?;
    let number = Number::from_f64(value)?;
    (number.to_string() == text).then_some(number)
}

fn write_integer(out: &mut dyn Write, value: i128) -> io::Result<()> {
    if value.abs() <= EXACT_MAX { write!(out, "{value}") } else { write!(out, "\"{value}\"") }
}

fn write_float(out: &mut dyn Write, value: f64) -> io::Result<()> {
    match Number::from_f64(value) {
        Some(number) => write!(out, "{number}"),
        None if value.is_nan() => out.write_all(br#""NaN""#),
        None => write!(out, "\"{}Infinity\"", if value > 0.0 { "" } else { "-" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Map, Value as Json};

    fn texts(values: &[&str]) -> Value {
        Value::Text(values.iter().map(|text| (*text).to_owned()).collect())
    }

    fn shown(tag: Tag, vr: VR, value: Value) -> String {
        let set: DataSet = [Element { tag, vr, value }].into_iter().collect();
        String::from_utf8(to_json(&set, &|_, _| Some("x".into()))).expect("UTF-8")
    }

    #[test]
    fn each_kind_of_value_has_its_form() {
        let name = shown(tags::PATIENT_NAME, VR::PN, texts(&["Yamada^Tarou=山田^太郎"]));
        assert_eq!(
            name,
            r#"{"00100010":{"Value":[{"Alphabetic":"Yamada^Tarou","Ideographic":"山田^太郎"}],"vr":"PN"}}"#
        );
        let decimal = shown(tags::SLICE_THICKNESS, VR::DS, texts(&["1.5", "1.50", "7"]));
        assert_eq!(decimal, r#"{"00180050":{"Value":[1.5,"1.50",7],"vr":"DS"}}"#);
        let empty = shown(tags::IMAGE_TYPE, VR::CS, texts(&["A", "", "B"]));
        assert_eq!(empty, r#"{"00080008":{"Value":["A",null,"B"],"vr":"CS"}}"#);
        assert_eq!(shown(tags::ROWS, VR::US, Value::Integers(vec![512])), r#"{"00280010":{"Value":[512],"vr":"US"}}"#);
        let bulk = shown(tags::PIXEL_DATA, VR::OW, Value::Bulk { offset: 1, length: 2 });
        assert_eq!(bulk, r#"{"7FE00010":{"BulkDataURI":"x","vr":"OW"}}"#);
        let inline = shown(tags::PIXEL_DATA, VR::OB, Value::Bytes(Bytes::from_static(b"abc")));
        assert_eq!(inline, r#"{"7FE00010":{"InlineBinary":"YWJj","vr":"OB"}}"#);
        assert_eq!(shown(tags::PATIENT_ID, VR::LO, Value::Empty), r#"{"00100020":{"vr":"LO"}}"#);
        let charset = shown(tags::SPECIFIC_CHARACTER_SET, VR::CS, texts(&["ISO_IR 100"]));
        assert_eq!(charset, r#"{"00080005":{"Value":["ISO_IR 192"],"vr":"CS"}}"#);
    }

    #[test]
    fn what_is_not_a_data_set_is_refused_with_what_is_wrong() {
        let refused = |json: &str| from_json(json.as_bytes(), &Limits::default()).expect_err(json).to_string();
        assert!(refused("{").contains("not JSON"));
        assert!(refused("[1]").contains("something else"));
        assert!(refused(r#"{"xyz":{}}"#).contains("eight hexadecimal digits"));
        assert_eq!(
            refused(r#"{"00280010":{"vr":"US","Value":["x"]}}"#),
            "00280010: a value of US is an integer that fits"
        );
        assert_eq!(refused(r#"{"00280010":{"vr":"XX"}}"#), "00280010: its `vr` is not one of PS3.5");
        for secret in [r#""DOE""#, r#"{"00100010":"DOE"}"#, r#"{"00100010":{"Value":"DOE"}}"#, r#"[["DOE"]]"#] {
            assert!(!refused(secret).contains("DOE"), "a message names no value");
        }
        assert!(refused("{} {}").contains("not JSON"));
        let deep = format!("{}{}", r#"{"00081115":{"vr":"SQ","Value":["#.repeat(100_000), "]}}".repeat(100_000));
        assert!(refused(&deep).contains("64 deep"), "100,000 levels do not exhaust the stack");
        for deep in
            [r#"{"00100010":"#, r#"{"00100010":{"Value":["#, r#"{"00100010":{"x":["#, "[", r#"{"00100010":{"vr":"#]
        {
            assert!(!refused(&deep.repeat(100_000)).is_empty());
        }
        let names = r#"{"00100010":{"Value":["#.to_owned() + &r#"{"Alphabetic":"#.repeat(100_000);
        assert!(!refused(&names).is_empty());
    }

    #[test]
    fn integers_fit_their_vr() {
        for (vr, fit, not) in [
            ("US", "[0,65535]", ["65536", "-1"]),
            ("SS", "[-32768,32767]", ["32768", "-32769"]),
            ("UL", "[4294967295]", ["4294967296", "-1"]),
            ("SL", "[-2147483648,2147483647]", ["2147483648", "-2147483649"]),
            ("UV", "[18446744073709551615]", ["-1", "\"18446744073709551616\""]),
            ("SV", "[-9223372036854775808]", ["9223372036854775808", "\"-9223372036854775809\""]),
        ] {
            let read = |values: &str| {
                let json = format!(r#"{{"00111001":{{"vr":"{vr}","Value":{values}}}}}"#);
                from_json(json.as_bytes(), &Limits::default())
            };
            assert!(read(fit).is_ok(), "{vr} {fit}");
            not.iter().for_each(|number| assert!(read(&format!("[{number}]")).is_err(), "{vr} {number}"));
        }
    }

    #[test]
    fn attributes_and_data_sets_are_counted_however_small_they_are() {
        let limits = Limits { elements_max: 10, ..Limits::default() };
        let sets = |count: usize| data_sets_from_json(format!("[{}]", vec!["{}"; count].join(",")).as_bytes(), &limits);
        assert_eq!(sets(10).map(|sets| sets.len()), Ok(10));
        assert!(sets(11).expect_err("too many").to_string().contains("more attributes and data sets"));
        let items = |count: usize| {
            let json = format!(r#"{{"00081140":{{"vr":"SQ","Value":[{}]}}}}"#, vec!["{}"; count].join(","));
            from_json(json.as_bytes(), &limits)
        };
        assert!(items(3).is_ok() && items(11).is_err());
    }

    /// Put in one by one they would take a quarter of an hour.
    #[test]
    fn attributes_in_any_order_are_read_in_theirs() {
        let json: Vec<String> = (0..300_000_u32).map(|at| format!("\"{:08X}\":{{}}", 0x7000_0000 - at)).collect();
        let set = from_json(format!("{{{}}}", json.join(",")).as_bytes(), &Limits::default()).expect("a data set");
        assert_eq!(set.iter().count(), 300_000);
        assert!(set.iter().is_sorted_by_key(|element| element.tag));
    }

    /// A limit of the JSON reader stopped at 42.
    #[test]
    fn as_many_levels_are_read_as_are_written() {
        let mut set = DataSet::new();
        for _ in 0..DEPTH_MAX {
            let items = Value::Items(vec![set]);
            set = [Element { tag: tags::REQUEST_ATTRIBUTES_SEQUENCE, vr: VR::SQ, value: items }].into_iter().collect();
        }
        assert_eq!(from_json(&to_json(&set, &no_bulk), &Limits::default()), Ok(set));
    }

    fn element() -> impl Strategy<Value = Element> {
        let text = "[A-Za-zäöü山 ]{1,12}"
            .prop_map(|text| text.trim_end().to_owned())
            .prop_filter("not empty", |text| !text.is_empty());
        prop_oneof![
            prop::collection::vec(text.clone(), 1..3).prop_map(|values| (
                tags::IMAGE_COMMENTS,
                VR::LO,
                Value::Text(values)
            )),
            text.prop_map(|value| (tags::PATIENT_NAME, VR::PN, Value::Text(vec![value]))),
            "-?[0-9]{1,6}(\\.[0-9]{1,4})?".prop_map(|value| (tags::SLICE_LOCATION, VR::DS, Value::Text(vec![value]))),
            prop::collection::vec(any::<u16>(), 1..4).prop_map(|values| (
                tags::ROWS,
                VR::US,
                Value::Integers(values.into_iter().map(i128::from).collect())
            )),
            any::<i64>().prop_map(|value| (Tag(0x0009, 0x1001), VR::SV, Value::Integers(vec![i128::from(value)]))),
            prop::collection::vec(any::<u8>(), 1..40).prop_map(|bytes| (
                tags::ICC_PROFILE,
                VR::OB,
                Value::Bytes(bytes.into())
            )),
            Just((tags::PATIENT_ID, VR::LO, Value::Empty)),
        ]
        .prop_map(|(tag, vr, value)| Element { tag, vr, value })
    }

    /// The JSON as a tree: what was written before it was written as it goes.
    fn tree(set: &DataSet, path: &mut Vec<PathStep>) -> Json {
        let uri = |path: &[PathStep]| format!("{}x\"y", path.iter().map(|step| step.item).sum::<usize>());
        let text_value = |vr: VR, text: &str| match vr {
            _ if text.is_empty() => Json::Null,
            VR::PN => {
                let groups = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.splitn(3, '='));
                let groups = groups.filter(|(_, group)| !group.is_empty());
                Json::Object(groups.map(|(name, group)| (name.to_owned(), group.into())).collect())
            }
            VR::IS => match text.parse::<i64>() {
                Ok(value) if value.to_string() == text => value.into(),
                _ => text.into(),
            },
            VR::DS => plain_decimal(text).map_or_else(|| text.into(), Json::Number),
            _ => text.into(),
        };
        let mut map = std::collections::BTreeMap::new();
        for element in set.iter().filter(|element| element.tag.element() != 0) {
            let mut own = std::collections::BTreeMap::from([("vr", Json::from(element.vr.to_string()))]);
            let values: Vec<Json> = match &element.value {
                Value::Text(_) if element.tag == tags::SPECIFIC_CHARACTER_SET => vec!["ISO_IR 192".into()],
                Value::Text(values) => values.iter().map(|text| text_value(element.vr, text)).collect(),
                Value::Integers(values) => values
                    .iter()
                    .map(|value| match i64::try_from(*value) {
                        Ok(small) if value.abs() <= EXACT_MAX => small.into(),
                        _ => value.to_string().into(),
                    })
                    .collect(),
                Value::Floats(values) => values
                    .iter()
                    .map(|value| match Number::from_f64(*value) {
                        Some(number) => number.into(),
                        None if value.is_nan() => "NaN".into(),
                        None => (if *value > 0.0 { "Infinity" } else { "-Infinity" }).into(),
                    })
                    .collect(),
                Value::Tags(values) => values.iter().map(|tag| tag_key(*tag).into()).collect(),
                Value::Bytes(bytes) => {
                    own.insert("InlineBinary", BASE64.encode(bytes).into());
                    Vec::new()
                }
                Value::Bulk { .. } => {
                    own.insert("BulkDataURI", uri(path).into());
                    Vec::new()
                }
                Value::Items(items) if path.len() < DEPTH_MAX => {
                    let mut values = Vec::new();
                    for (item, set) in items.iter().enumerate() {
                        path.push(PathStep { tag: element.tag, item });
                        values.push(tree(set, path));
                        path.pop();
                    }
                    values
                }
                Value::Empty | Value::Items(_) => Vec::new(),
            };
            if !values.is_empty() {
                own.insert("Value", values.into());
            }
            let own: Map<String, Json> = own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            map.insert(tag_key(element.tag), Json::Object(own));
        }
        Json::Object(map.into_iter().collect())
    }

    #[test]
    fn what_is_written_as_it_goes_is_what_a_tree_says() {
        let leaf = |number: u16, vr, value| Element { tag: Tag(0x0011, 0x1000 + number), vr, value };
        let plain: DataSet = [
            leaf(0, VR::UL, Value::Integers(vec![0, -1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i128::MAX])),
            leaf(1, VR::FD, Value::Floats(vec![0.1, -0.0, 1e300, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY])),
            leaf(2, VR::AT, Value::Tags(vec![Tag(0x7FE0, 0x10), Tag(0, 0)])),
            leaf(3, VR::OB, Value::Bytes(Bytes::from((0..7000_u32).map(|byte| byte as u8).collect::<Vec<_>>()))),
            leaf(4, VR::LO, texts(&["a\"b\\c\u{1}\n", "", "é山\u{7f}"])),
            leaf(5, VR::PN, texts(&["", "=山", "A=B=C=D", "==x"])),
            leaf(6, VR::IS, texts(&["1", "+1", "01", "-7", "9223372036854775808"])),
            leaf(7, VR::DS, texts(&["1.5", "1e3", "-0", ".5", "1.0", "100", "nan"])),
            leaf(8, VR::OW, Value::Bulk { offset: 3, length: 4 }),
            leaf(9, VR::SH, Value::Empty),
            Element { tag: Tag(0x0011, 0), vr: VR::UL, value: Value::Integers(vec![7]) },
            Element { tag: tags::SPECIFIC_CHARACTER_SET, vr: VR::CS, value: texts(&["ISO_IR 100"]) },
        ]
        .into_iter()
        .collect();
        let mut set = plain.clone();
        for _ in 0..DEPTH_MAX + 2 {
            let items = Value::Items(vec![DataSet::new(), set, plain.clone()]);
            set = plain.clone();
            set.put(leaf(10, VR::SQ, items));
            set.put(leaf(11, VR::SQ, Value::Items(Vec::new())));
        }
        let uri =
            |path: &[PathStep], _: &Element| Some(format!("{}x\"y", path.iter().map(|step| step.item).sum::<usize>()));
        let written = String::from_utf8(to_json(&set, &uri)).expect("UTF-8");
        let by_tree = tree(&set, &mut Vec::new()).to_string();
        assert!(written == by_tree, "the two forms differ");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(plain in prop::collection::vec(element(), 0..8), inner in prop::collection::vec(element(), 0..4)) {
            let mut set: DataSet = plain.into_iter().collect();
            let item: DataSet = inner.into_iter().collect();
            set.put(Element { tag: tags::REQUEST_ATTRIBUTES_SEQUENCE, vr: VR::SQ, value: Value::Items(vec![item]) });
            let json = to_json(&set, &no_bulk);
            prop_assert_eq!(from_json(&json, &Limits::default()).expect("own JSON"), set);
        }
    }
}
