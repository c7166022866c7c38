//! An instance as retrieval sees it, and the small encodings inside of rows.

use crate::{BlockPart, error::CatalogError, schema::SERIES_SHIFT};
use archive_model::{DataSet, Element, Limits, Tag, Uid, VR, Value, json};
use raft_types::GroupId;
use serde::{Serialize, de::DeserializeOwned};

/// An instance: what it is and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// Local number of the row.
    pub id: i64,
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Transfer syntax of the bytes, as received.
    pub transfer_syntax: String,
    /// Bytes of the data set.
    pub length_bytes: u64,
    /// BLAKE3 of the data set's bytes.
    pub digest: [u8; 32],
    /// The group that holds the blocks.
    pub group: GroupId,
    /// The blocks in order.
    pub blocks: Vec<BlockPart>,
    /// Series Number.
    pub series_number: Option<i64>,
    /// Instance Number.
    pub number: Option<i64>,
    /// Frames; 0 for what has none.
    pub frame_count: u32,
    /// Which content this is; 0 is what the UID answers.
    pub version: u32,
    /// How many other contents are kept under this UID.
    pub versions: u32,
}

/// Attributes of one level: tag and values.
pub(crate) type Attrs = Vec<(u32, Vec<String>)>;

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default() // plain sequences: nothing here can fail to serialise
}

pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, CatalogError> {
    postcard::from_bytes(bytes).map_err(|error| CatalogError::Damaged(format!("{what}: {error}")))
}

/// The numbers of the instances of a series: from the first to before the second.
pub(crate) fn ids_of(series: i64) -> (i64, i64) {
    (series << SERIES_SHIFT, (series + 1) << SERIES_SHIFT)
}

pub(crate) fn uid(text: String) -> Result<Uid, CatalogError> {
    Uid::parse(&text).map_err(|error| CatalogError::Damaged(format!("a stored UID: {error}")))
}

pub(crate) fn digest(bytes: &[u8]) -> Result<[u8; 32], CatalogError> {
    bytes.try_into().map_err(|_| CatalogError::Damaged("a digest has not 32 bytes".into()))
}

/// An attribute of a row as an element.
pub(crate) fn element(tag: Tag, vr: VR, values: &[String]) -> Element {
    let value = if values.is_empty() {
        Value::Empty
    } else {
        match vr {
            VR::SQ => {
                let items = json::data_sets_from_json(values[0].as_bytes(), &Limits::default()).unwrap_or_default();
                Value::Items(items)
            }
            VR::US | VR::SS | VR::UL | VR::SL => {
                Value::Integers(values.iter().filter_map(|value| value.parse().ok()).collect())
            }
            _ => Value::Text(values.to_vec()),
        }
    };
    Element { tag, vr, value }
}

pub(crate) fn tag_of(number: u32) -> Tag {
    Tag((number >> 16) as u16, (number & 0xffff) as u16)
}

pub(crate) fn number_of(tag: Tag) -> u32 {
    u32::from(tag.group()) << 16 | u32::from(tag.element())
}

/// Puts attributes into a data set.
pub(crate) fn put_all(set: &mut DataSet, attrs: &Attrs) {
    for (number, values) in attrs {
        let tag = tag_of(*number);
        if let Some(key) = crate::keys::key_of(tag) {
            set.put(element(tag, key.vr, values));
        }
    }
}
