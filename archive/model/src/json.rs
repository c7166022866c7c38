//! The DICOM JSON model (PS3.18 Annex F): data sets to JSON and back.
//!
//! ```json
//! { "00100010": { "vr": "PN", "Value": [ { "Alphabetic": "Doe^Jane" } ] }, "7FE00010": { "vr": "OW", "BulkDataURI": "…" } }
//! ```
//!
//! Numbers that a JSON reader would change stay text (DS and IS that are not plain, SV and UV beyond 2^53).

use crate::{DataSet, Element, Limits, Tag, VR, Value, tags};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Number, Value as Json};

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
    serde_json::to_vec(&json_value(set, bulk)).unwrap_or_default() // a tree of texts and finite numbers cannot fail
}

/// The JSON of `set` as a tree.
#[must_use]
pub fn json_value(set: &DataSet, bulk: &BulkUri<'_>) -> Json {
    Json::Object(object(set, bulk, &mut Vec::new()))
}

/// `bulk` for data sets that have no bulk values.
#[must_use]
pub fn no_bulk(_: &[PathStep], _: &Element) -> Option<String> {
    None
}

fn object(set: &DataSet, bulk: &BulkUri<'_>, path: &mut Vec<PathStep>) -> Map<String, Json> {
    let mut map = Map::new();
    for element in set {
        // Group lengths say nothing about another encoding (PS3.18 F.2.2).
        if element.tag.element() == 0 {
            continue;
        }
        map.insert(tag_key(element.tag), attribute(element, bulk, path));
    }
    map
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

fn attribute(element: &Element, bulk: &BulkUri<'_>, path: &mut Vec<PathStep>) -> Json {
    let mut map = Map::new();
    map.insert("vr".into(), element.vr.to_string().into());
    let values: Vec<Json> = match &element.value {
        Value::Empty => Vec::new(),
        // JSON is UTF-8 whatever the data set was (PS3.18 F.2.1).
        Value::Text(_) if element.tag == tags::SPECIFIC_CHARACTER_SET => vec!["ISO_IR 192".into()],
        Value::Text(values) => values.iter().map(|text| text_value(element.vr, text)).collect(),
        Value::Integers(values) => values.iter().map(|value| integer(*value)).collect(),
        Value::Floats(values) => values.iter().map(|value| float(*value)).collect(),
        Value::Tags(values) => values.iter().map(|tag| tag_key(*tag).into()).collect(),
        Value::Bytes(bytes) => {
            map.insert("InlineBinary".into(), BASE64.encode(bytes).into());
            Vec::new()
        }
        Value::Bulk { .. } => {
            if let Some(uri) = bulk(path, element) {
                map.insert("BulkDataURI".into(), uri.into());
            }
            Vec::new()
        }
        Value::Items(items) if path.len() < DEPTH_MAX => {
            let mut values = Vec::with_capacity(items.len());
            for (number, item) in items.iter().enumerate() {
                path.push(PathStep { tag: element.tag, item: number });
                values.push(Json::Object(object(item, bulk, path)));
                path.pop();
            }
            values
        }
        Value::Items(_) => Vec::new(),
    };
    if !values.is_empty() {
        map.insert("Value".into(), values.into());
    }
    Json::Object(map)
}

fn text_value(vr: VR, text: &str) -> Json {
    match vr {
        _ if text.is_empty() => Json::Null,
        VR::PN => {
            let mut map = Map::new();
            let names = ["Alphabetic", "Ideographic", "Phonetic"];
            for (name, group) in names.into_iter().zip(text.splitn(3, '=')) {
                if !group.is_empty() {
                    map.insert(name.into(), group.into());
                }
            }
            Json::Object(map)
        }
        VR::IS => {
            text.parse::<i64>().ok().filter(|value| value.to_string() == text).map_or_else(|| text.into(), Json::from)
        }
        VR::DS => plain_decimal(text).map_or_else(|| text.into(), Json::Number),
        _ => text.into(),
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

fn integer(value: i128) -> Json {
    match i64::try_from(value) {
        Ok(small) if i128::from(small).abs() <= EXACT_MAX => small.into(),
        _ => value.to_string().into(),
    }
}

fn float(value: f64) -> Json {
    match Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None => (if value > 0.0 { "Infinity" } else { "-Infinity" }).into(),
    }
}

/// The data set of a JSON object, or of an array with one.
///
/// # Errors
/// For JSON that is not JSON, or not a data set; the message says where.
pub fn from_json(bytes: &[u8], limits: &Limits) -> Result<DataSet, JsonError> {
    let mut sets = data_sets_from_json(bytes, limits)?;
    match sets.len() {
        1 => Ok(sets.swap_remove(0)),
        count => Err(malformed(None, format!("one data set was expected, not {count}"))),
    }
}

/// The data sets of a JSON array, or the one of an object.
///
/// # Errors
/// For JSON that is not JSON, or not data sets; the message says where.
pub fn data_sets_from_json(bytes: &[u8], limits: &Limits) -> Result<Vec<DataSet>, JsonError> {
    if bytes.len() as u64 > limits.header_bytes_max {
        return Err(malformed(None, format!("the JSON is larger than {} bytes", limits.header_bytes_max)));
    }
    // serde_json itself refuses more than 128 levels, so that no input can exhaust the stack.
    let json: Json = serde_json::from_slice(bytes).map_err(|error| malformed(None, format!("not JSON: {error}")))?;
    match json {
        Json::Object(map) => Ok(vec![data_set(&map, 0)?]),
        Json::Array(sets) => sets
            .iter()
            .map(|set| match set {
                Json::Object(map) => data_set(map, 0),
                _ => Err(malformed(None, "an array of data sets holds something else")),
            })
            .collect(),
        _ => Err(malformed(None, "a data set is a JSON object")),
    }
}

fn malformed(tag: Option<Tag>, why: impl Into<String>) -> JsonError {
    JsonError { tag, why: why.into() }
}

fn data_set(map: &Map<String, Json>, depth: usize) -> Result<DataSet, JsonError> {
    if depth > DEPTH_MAX {
        return Err(malformed(None, "sequences are nested more than 64 deep"));
    }
    let mut set = DataSet::new();
    for (key, attribute) in map {
        let tag = key_tag(key)
            .ok_or_else(|| malformed(None, "a key is not a tag of eight hexadecimal digits, such as 00100010"))?;
        let Json::Object(attribute) = attribute else {
            return Err(malformed(Some(tag), "an attribute is a JSON object with `vr`"));
        };
        set.put(element(tag, attribute, depth)?);
    }
    Ok(set)
}

fn element(tag: Tag, attribute: &Map<String, Json>, depth: usize) -> Result<Element, JsonError> {
    let vr = match attribute.get("vr").and_then(Json::as_str) {
        Some(text) => text.parse::<VR>().map_err(|_| malformed(Some(tag), "its `vr` is not one of PS3.5"))?,
        None => crate::scanner::dictionary_vr(tag, false),
    };
    if let Some(inline) = attribute.get("InlineBinary") {
        let text = inline.as_str().ok_or_else(|| malformed(Some(tag), "`InlineBinary` is a text"))?;
        let bytes = BASE64.decode(text).map_err(|_| malformed(Some(tag), "`InlineBinary` is not Base64"))?;
        return Ok(Element { tag, vr, value: Value::Bytes(bytes.into()) });
    }
    if let Some(uri) = attribute.get("BulkDataURI").and_then(Json::as_str) {
        let place = uri.split_once('-').and_then(|(offset, length)| Some((offset.parse().ok()?, length.parse().ok()?)));
        let (offset, length) = place.ok_or_else(|| malformed(Some(tag), "a `BulkDataURI` cannot be followed here"))?;
        return Ok(Element { tag, vr, value: Value::Bulk { offset, length } });
    }
    let values = match attribute.get("Value") {
        None => return Ok(Element { tag, vr, value: Value::Empty }),
        Some(Json::Array(values)) => values,
        Some(_) => return Err(malformed(Some(tag), "`Value` is an array")),
    };
    let value = value(tag, vr, values, depth)?;
    Ok(Element { tag, vr, value })
}

fn value(tag: Tag, vr: VR, values: &[Json], depth: usize) -> Result<Value, JsonError> {
    let wrong = |what: &str| malformed(Some(tag), format!("a value of {vr} is {what}"));
    if values.is_empty() {
        return Ok(Value::Empty);
    }
    Ok(match vr {
        VR::SQ => {
            let item = |value: &Json| match value {
                Json::Object(map) => data_set(map, depth + 1),
                Json::Null => Ok(DataSet::new()),
                _ => Err(wrong("a JSON object")),
            };
            Value::Items(values.iter().map(item).collect::<Result<_, _>>()?)
        }
        VR::US | VR::SS | VR::UL | VR::SL | VR::SV | VR::UV => {
            let number = |value: &Json| match value {
                Json::Number(number) => number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)),
                Json::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let numbers = values.iter().map(|value| number(value).ok_or_else(|| wrong("an integer")));
            Value::Integers(numbers.collect::<Result<_, _>>()?)
        }
        VR::FL | VR::FD => {
            let number = |value: &Json| match value {
                Json::Number(number) => number.as_f64(),
                Json::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let numbers = values.iter().map(|value| number(value).ok_or_else(|| wrong("a number")));
            Value::Floats(numbers.collect::<Result<_, _>>()?)
        }
        VR::AT => {
            let tag = |value: &Json| value.as_str().and_then(key_tag).ok_or_else(|| wrong("eight hexadecimal digits"));
            Value::Tags(values.iter().map(tag).collect::<Result<_, _>>()?)
        }
        _ => {
            let texts = values.iter().map(|value| text_of(vr, value).ok_or_else(|| wrong("a text")));
            let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
            if texts.iter().all(String::is_empty) && texts.len() == 1 { Value::Empty } else { Value::Text(texts) }
        }
    })
}

fn text_of(vr: VR, value: &Json) -> Option<String> {
    match value {
        Json::Null => Some(String::new()),
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Object(name) if vr == VR::PN => {
            let group = |key: &str| name.get(key).and_then(Json::as_str).unwrap_or_default();
            let whole = format!("{}={}={}", group("Alphabetic"), group("Ideographic"), group("Phonetic"));
            Some(whole.trim_end_matches('=').to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

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
        assert!(refused(r#"{"00280010":{"vr":"US","Value":["x"]}}"#).contains("an integer"));
        let deep = format!("{}{}", r#"{"00081115":{"vr":"SQ","Value":["#.repeat(100_000), "]}}".repeat(100_000));
        assert!(refused(&deep).contains("not JSON"), "100,000 levels do not exhaust the stack");
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
