//! From an accepted data set to what the log carries of it.

use crate::{InstanceHead, Source, keys::KEYS, row::number_of};
use archive_model::{DataSet, Scanned, Tag, Uid, UidError, Value, json, tags};
use bytes::Bytes;

/// Compression of headers: 1 is four times as fast as 3, for a tenth more bytes.
const ZSTD_LEVEL: i32 = 1;

/// Why a data set has no head.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HeadError {
    /// A UID without which nothing can be found again is missing.
    #[error("{tag} is missing")]
    MissingUid {
        /// Which.
        tag: Tag,
    },
    /// Such a UID is none.
    #[error("{tag}: {why}")]
    BadUid {
        /// Which.
        tag: Tag,
        /// What is wrong.
        #[source]
        why: UidError,
    },
    /// The header could not be compressed.
    #[error("the header could not be compressed: {0}")]
    Compress(String),
}

/// The head of an instance.
///
/// # Errors
/// For a UID that is missing or malformed.
pub fn instance_head(
    scanned: &Scanned,
    transfer_syntax: &str,
    digest: [u8; 32],
    source: Source,
    received_unix_ms: u64,
) -> Result<InstanceHead, HeadError> {
    let uid = |tag| {
        let text = scanned.header.text(tag).filter(|text| !text.is_empty()).ok_or(HeadError::MissingUid { tag })?;
        Uid::parse(text).map_err(|why| HeadError::BadUid { tag, why })
    };
    let place = |_: &[json::PathStep], element: &archive_model::Element| match element.value {
        Value::Bulk { offset, length } => Some(format!("{offset}-{length}")),
        _ => None,
    };
    let header = zstd::bulk::compress(&json::to_json(&scanned.header, &place), ZSTD_LEVEL)
        .map_err(|error| HeadError::Compress(error.to_string()))?;
    Ok(InstanceHead {
        study: uid(tags::STUDY_INSTANCE_UID)?,
        series: uid(tags::SERIES_INSTANCE_UID)?,
        instance: uid(tags::SOP_INSTANCE_UID)?,
        sop_class: uid(tags::SOP_CLASS_UID)?,
        transfer_syntax: transfer_syntax.trim_end_matches(['\0', ' ']).to_owned(),
        length_bytes: scanned.length_bytes,
        digest,
        header: header.into(),
        keys: keys(&scanned.header),
        frames: scanned.frames.as_ref().map(|frames| Bytes::from(frames.encode())),
        source,
        received_unix_ms,
    })
}

/// Values of one key that enter the index, at most.
const VALUES_MAX: usize = 16;
/// Bytes of one value that enters the index, at most: the header keeps the whole.
const VALUE_BYTES_MAX: usize = 1024;

fn keys(header: &DataSet) -> Vec<(u32, Vec<String>)> {
    let mut found: Vec<_> =
        KEYS.iter().filter_map(|key| Some((number_of(key.tag), values(&header.get(key.tag)?.value)))).collect();
    found.sort_unstable_by_key(|(tag, _)| *tag);
    found
}

fn values(value: &Value) -> Vec<String> {
    match value {
        Value::Text(values) if values.iter().all(|value| value.trim().is_empty()) => Vec::new(),
        Value::Text(values) => values.iter().take(VALUES_MAX).map(|value| cut(value)).collect(),
        Value::Integers(values) => values.iter().take(VALUES_MAX).map(ToString::to_string).collect(),
        Value::Floats(values) => values.iter().take(VALUES_MAX).map(ToString::to_string).collect(),
        Value::Items(items) => {
            let items: Vec<_> =
                items.iter().take(VALUES_MAX).map(|item| json::json_value(item, &json::no_bulk)).collect();
            let text = serde_json::Value::from(items).to_string();
            if text.len() > 16 * VALUE_BYTES_MAX { Vec::new() } else { vec![text] }
        }
        Value::Empty | Value::Tags(_) | Value::Bytes(_) | Value::Bulk { .. } => Vec::new(),
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
