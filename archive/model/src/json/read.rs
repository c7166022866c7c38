//! JSON to data sets, as it is read: no tree stands in between, which would take ten times the memory of the JSON.

use super::{DEPTH_MAX, JsonError, key_tag};
use crate::{DataSet, Element, Limits, Tag, VR, Value, xml::Foreign};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::de::{self, DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, error::Category};
use std::{
    cell::{Cell, RefCell},
    fmt,
};

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
    read(bytes, limits, &Reading::of(limits))
}

/// The same of a sender whose bulk values come beside: `offset` of a `Value::Bulk` counts in the list of their places.
///
/// # Errors
/// For JSON that is not JSON, or not data sets; the message says where.
pub fn sent_data_sets_from_json(bytes: &[u8], limits: &Limits) -> Result<(Vec<DataSet>, Vec<Foreign>), JsonError> {
    let reading = Reading { foreign: Some(RefCell::default()), ..Reading::of(limits) };
    let sets = read(bytes, limits, &reading)?;
    Ok((sets, reading.foreign.unwrap_or_default().into_inner()))
}

fn read(bytes: &[u8], limits: &Limits, reading: &Reading) -> Result<Vec<DataSet>, JsonError> {
    if bytes.len() as u64 > limits.header_bytes_max {
        return Err(malformed(None, format!("the JSON is larger than {} bytes", limits.header_bytes_max)));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    // Its limit is 128 levels of JSON, which are 42 of sequences. Ours: data sets count theirs, and nothing else nests.
    json.disable_recursion_limit();
    let sets = json.deserialize_any(Top(reading)).and_then(|sets| json.end().map(|()| sets));
    sets.map_err(|error| match (reading.wrong.take(), error.classify()) {
        (Some(wrong), _) => wrong,
        // Its text would repeat the value that was found.
        (None, Category::Data) => malformed(None, "a data set is a JSON object of attributes, each an object"),
        (None, Category::Io | Category::Syntax | Category::Eof) => malformed(None, format!("not JSON: {error}")),
    })
}

fn malformed(tag: Option<Tag>, why: impl Into<String>) -> JsonError {
    JsonError { tag, why: why.into() }
}

/// What was wrong, beside the error of serde, which has room for a text only.
struct Reading {
    wrong: RefCell<Option<JsonError>>,
    /// Attributes and data sets that may still come: an empty one takes much more memory than its two bytes of JSON.
    left: Cell<u64>,
    /// Places of bulk values that are no places in the body, if they may be such.
    foreign: Option<RefCell<Vec<Foreign>>>,
}

impl Reading {
    fn of(limits: &Limits) -> Self {
        Self { wrong: RefCell::default(), left: Cell::new(limits.elements_max), foreign: None }
    }

    /// One more attribute, or data set.
    fn count<E: de::Error>(&self, tag: Option<Tag>) -> Result<(), E> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(self.wrong(tag, "there are more attributes and data sets than are taken at once")),
        }
    }

    fn wrong<E: de::Error>(&self, tag: Option<Tag>, why: impl Into<String>) -> E {
        self.wrong.replace(Some(malformed(tag, why)));
        E::custom("malformed")
    }
}

/// One data set, or some.
struct Top<'a>(&'a Reading);

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Vec<DataSet>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a data set")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<DataSet>, A::Error> {
        Ok(vec![data_set(self.0, map, None, 0)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<DataSet>, A::Error> {
        let mut sets = Vec::new();
        while let Some(item) = list.next_element_seed(ItemSeed { reading: self.0, depth: 0 })? {
            match item {
                Item::Set(set) => sets.push(set),
                Item::Null | Item::Text(_) | Item::Number(_) | Item::Name(_) | Item::Other => {
                    return Err(self.0.wrong(None, "an array of data sets holds something else"));
                }
            }
        }
        Ok(sets)
    }
}

/// The elements of `map`, whose first key may have been read already.
fn data_set<'de, A: MapAccess<'de>>(
    reading: &Reading,
    mut map: A,
    first: Option<String>,
    depth: usize,
) -> Result<DataSet, A::Error> {
    if depth > DEPTH_MAX {
        return Err(reading.wrong(None, "sequences are nested more than 64 deep"));
    }
    reading.count(None)?;
    // What is out of order is put in at once: one by one would take quadratic time.
    let (mut set, mut late, mut last) = (DataSet::new(), Vec::new(), None);
    let mut key = match first {
        Some(first) => Some(first),
        None => map.next_key()?,
    };
    while let Some(text) = key {
        let tag = key_tag(&text)
            .ok_or_else(|| reading.wrong(None, "a key is not a tag of eight hexadecimal digits, such as 00100010"))?;
        reading.count(Some(tag))?;
        let element = map.next_value_seed(AttributeSeed { reading, tag, depth })?;
        if last < Some(tag) {
            last = Some(tag);
            set.put(element);
        } else {
            late.push(element);
        }
        key = map.next_key()?;
    }
    set.merge(late);
    Ok(set)
}

/// An attribute; its values may come before its VR.
struct AttributeSeed<'a> {
    reading: &'a Reading,
    tag: Tag,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for AttributeSeed<'_> {
    type Value = Element;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Element, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AttributeSeed<'_> {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
        let Self { reading, tag, depth } = self;
        let (mut vr, mut value, mut items) = (None, None, None);
        let item = || ItemSeed { reading, depth: depth + 1 };
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), &value) {
                ("Value", _) => items = Some(map.next_value_seed(ItemsSeed { reading, depth: depth + 1 })?),
                ("vr", _) => {
                    let text = map.next_value_seed(item())?.text();
                    let known = text.and_then(|text| text.parse::<VR>().ok());
                    vr = Some(known.ok_or_else(|| reading.wrong(Some(tag), "its `vr` is not one of PS3.5"))?);
                }
                ("InlineBinary", None) => {
                    let text = map.next_value_seed(item())?.text();
                    let bytes = text.and_then(|text| BASE64.decode(text).ok());
                    let bytes = bytes.ok_or_else(|| reading.wrong(Some(tag), "`InlineBinary` is not Base64"))?;
                    value = Some(Value::Bytes(bytes.into()));
                }
                ("BulkDataURI", None) => {
                    let uri = map.next_value_seed(item())?.text();
                    let place = match (&reading.foreign, uri) {
                        (Some(foreign), Some(uri)) => {
                            let mut foreign = foreign.borrow_mut();
                            foreign.push(Foreign(uri));
                            Some(Value::Bulk { offset: foreign.len() as u64 - 1, length: 0 })
                        }
                        (_, uri) => uri.as_deref().and_then(place),
                    };
                    let followed = "a `BulkDataURI` cannot be followed here";
                    value = Some(place.ok_or_else(|| reading.wrong(Some(tag), followed))?);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let vr = vr.unwrap_or_else(|| crate::scanner::dictionary_vr(tag, false));
        let value = match (value, items) {
            (Some(value), _) => value,
            (None, None) => Value::Empty,
            (None, Some(items)) => value_of(vr, items)
                .map_err(|what| reading.wrong::<A::Error>(Some(tag), format!("a value of {vr} is {what}")))?,
        };
        Ok(Element { tag, vr, value })
    }
}

/// Where a bulk value lies: `<offset>-<length>`.
fn place(uri: &str) -> Option<Value> {
    let (offset, length) = uri.split_once('-')?;
    Some(Value::Bulk { offset: offset.parse().ok()?, length: length.parse().ok()? })
}

/// The values of an attribute.
struct ItemsSeed<'a> {
    reading: &'a Reading,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<Item>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Vec<Item>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(ItemSeed { reading: self.reading, depth: self.depth })? {
            items.push(item);
        }
        Ok(items)
    }
}

/// One value. An object says by its first key whether it is a name or a data set.
pub(crate) enum Item {
    Null,
    Text(String),
    Number(Number),
    Name([String; 3]),
    Set(DataSet),
    Other,
}

impl Item {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Number(_) | Self::Name(_) | Self::Set(_) | Self::Other => None,
        }
    }
}

struct ItemSeed<'a> {
    reading: &'a Reading,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ItemSeed<'_> {
    type Value = Item;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Item, D::Error> {
        json.deserialize_any(self)
    }
}

const GROUPS: [&str; 3] = ["Alphabetic", "Ideographic", "Phonetic"];

impl<'de> Visitor<'de> for ItemSeed<'_> {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Item, E> {
        Ok(Item::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Item, E> {
        Ok(Item::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Item, E> {
        Ok(Item::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Item, E> {
        Ok(Number::from_f64(number).map_or(Item::Null, Item::Number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Item, A::Error> {
        Err(self.reading.wrong(None, "an array of values holds an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let Some(first) = map.next_key::<String>()? else {
            self.reading.count(None)?;
            return Ok(Item::Set(DataSet::new()));
        };
        if !GROUPS.contains(&first.as_str()) {
            return data_set(self.reading, map, Some(first), self.depth).map(Item::Set);
        }
        // One more than data sets: names stand in them. A name in a name is none, but it is read to its end.
        if self.depth > DEPTH_MAX + 1 {
            return Err(self.reading.wrong(None, "sequences are nested more than 64 deep"));
        }
        let mut name = [const { String::new() }; 3];
        let mut key = Some(first);
        while let Some(group) = key {
            let text = map.next_value_seed(Self { reading: self.reading, depth: self.depth + 1 })?.text();
            for (own, _) in name.iter_mut().zip(GROUPS).filter(|(_, known)| *known == group) {
                *own = text.clone().unwrap_or_default();
            }
            key = map.next_key()?;
        }
        Ok(Item::Name(name))
    }
}

/// The value of a VR, or what each value must be.
pub(crate) fn value_of(vr: VR, items: Vec<Item>) -> Result<Value, &'static str> {
    if items.is_empty() {
        return Ok(Value::Empty);
    }
    fn each<T>(items: Vec<Item>, what: &'static str, of: impl Fn(Item) -> Option<T>) -> Result<Vec<T>, &'static str> {
        items.into_iter().map(|item| of(item).ok_or(what)).collect()
    }
    Ok(match vr {
        VR::SQ => Value::Items(each(items, "a JSON object", |item| match item {
            Item::Set(set) => Some(set),
            Item::Null => Some(DataSet::new()),
            Item::Text(_) | Item::Number(_) | Item::Name(_) | Item::Other => None,
        })?),
        VR::US | VR::SS | VR::UL | VR::SL | VR::SV | VR::UV => {
            let range = range_of(vr);
            let number = |item| match item {
                Item::Number(number) => number.as_i128(),
                Item::Text(text) => text.trim().parse().ok(),
                Item::Null | Item::Name(_) | Item::Set(_) | Item::Other => None,
            };
            let fits = |item| number(item).filter(|number| range.contains(number));
            Value::Integers(each(items, "an integer that fits", fits)?)
        }
        VR::FL | VR::FD => Value::Floats(each(items, "a number", |item| match item {
            Item::Number(number) => number.as_f64(),
            Item::Text(text) => text.trim().parse().ok(),
            Item::Null | Item::Name(_) | Item::Set(_) | Item::Other => None,
        })?),
        VR::AT => Value::Tags(each(items, "eight hexadecimal digits", |item| key_tag(&item.text()?))?),
        _ => {
            let texts = each(items, "a text", |item| text_of(vr, item))?;
            if texts.len() == 1 && texts[0].is_empty() { Value::Empty } else { Value::Text(texts) }
        }
    })
}

/// What a VR of integers can say (PS3.5 table 6.2-1).
fn range_of(vr: VR) -> std::ops::RangeInclusive<i128> {
    match vr {
        VR::US => 0..=u16::MAX.into(),
        VR::SS => i16::MIN.into()..=i16::MAX.into(),
        VR::UL => 0..=u32::MAX.into(),
        VR::SL => i32::MIN.into()..=i32::MAX.into(),
        VR::UV => 0..=u64::MAX.into(),
        _ => i64::MIN.into()..=i64::MAX.into(),
    }
}

fn text_of(vr: VR, item: Item) -> Option<String> {
    match item {
        Item::Null => Some(String::new()),
        Item::Text(text) => Some(text),
        Item::Number(number) => Some(number.to_string()),
        Item::Name(groups) if vr == VR::PN => Some(groups.join("=").trim_end_matches('=').to_owned()),
        // A name without groups looks like a data set without elements.
        Item::Set(set) if vr == VR::PN && set.is_empty() => Some(String::new()),
        Item::Name(_) | Item::Set(_) | Item::Other => None,
    }
}
