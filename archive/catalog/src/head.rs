//! From an accepted data set to what the log carries of it.

use crate::{InstanceHead, Source, keys::KEYS, row::number_of};
use archive_model::{DataSet, Scanned, Tag, Uid, UidError, Value, json, tags};
use bytes::Bytes;
use std::{cell::RefCell, io};
use zstd::bulk::Compressor;

/// Compression of headers: 1 is four times as fast as 3, for a tenth more bytes.
const ZSTD_LEVEL: i32 = 1;
/// JSON up to this size is compressed in a workspace that its thread keeps: some 300 KiB at this size.
const JSON_BYTES_REUSED_MAX: usize = 128 << 10;

/// Bytes of a header's JSON, at most: 4 for each byte that the pre-validator accepts as a header.
pub(crate) const HEADER_JSON_BYTES_MAX: usize = 256 << 20;

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
    /// The header's JSON would be larger than what is read back.
    #[error("the header is larger than {max} bytes as JSON")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
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
    let json = capped_json(&scanned.header, &place, HEADER_JSON_BYTES_MAX);
    let json = json.ok_or(HeadError::TooLarge { max: HEADER_JSON_BYTES_MAX })?;
    let mut header = compressed(&json).map_err(|error| HeadError::Compress(error.to_string()))?;
    // It was made for the worst case, which is as long as the JSON itself.
    header.shrink_to_fit();
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
        canonical: scanned.canonical,
    })
}

thread_local! {
    /// What zstd works in, kept by each thread that makes heads: to make it anew for each small instance took more than to
    /// compress its header.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// `json` as one zstd frame that says how much is in it.
fn compressed(json: &[u8]) -> io::Result<Vec<u8>> {
    // A large header would leave a large workspace with its thread, and there are many that may make one.
    if json.len() > JSON_BYTES_REUSED_MAX {
        return zstd::bulk::compress(json, ZSTD_LEVEL);
    }
    COMPRESSOR.with_borrow_mut(|kept| {
        let mut compressor = match kept.take() {
            Some(compressor) => compressor,
            None => Compressor::new(ZSTD_LEVEL)?,
        };
        // One that failed is not used again.
        let compressed = compressor.compress(json)?;
        *kept = Some(compressor);
        Ok(compressed)
    })
}

/// Values of one key that enter the index, at most.
const VALUES_MAX: usize = 16;
/// Bytes of one value that enters the index, at most: the header keeps the whole.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes of the items of a sequence that enter the index, at most, as JSON.
const ITEMS_BYTES_MAX: usize = 16 * VALUE_BYTES_MAX;

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
            let items = items.iter().take(VALUES_MAX);
            let texts = items.map(|item| capped_json(item, &json::no_bulk, ITEMS_BYTES_MAX));
            let texts =
                texts.map(|text| text.and_then(|text| String::from_utf8(text).ok())).collect::<Option<Vec<_>>>();
            let text = texts.filter(|texts| !texts.is_empty()).map(|texts| format!("[{}]", texts.join(",")));
            text.filter(|text| text.len() <= ITEMS_BYTES_MAX).into_iter().collect()
        }
        Value::Empty | Value::Tags(_) | Value::Bytes(_) | Value::Bulk { .. } => Vec::new(),
    }
}

/// The JSON of `set`, unless it is longer than `max`: then no more than that is made of it.
fn capped_json(set: &DataSet, bulk: &json::BulkUri<'_>, max: usize) -> Option<Vec<u8>> {
    let mut out = Capped { bytes: Vec::new(), max };
    json::write_json(&mut out, set, bulk).ok()?;
    Some(out.bytes)
}

struct Capped {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thread after the other header, small and large: a workspace that is used again may not show what was in it before.
    #[test]
    fn a_workspace_that_is_used_again_gives_the_bytes_of_a_new_one() {
        for round in 0..3_u32 {
            for length in [0, 1, 700, JSON_BYTES_REUSED_MAX, 64, JSON_BYTES_REUSED_MAX + 1, 5_000] {
                let json: Vec<u8> =
                    (0..length as u32).map(|i| (i.wrapping_mul(i / 64 + round) % 61) as u8 + 32).collect();
                let frame = compressed(&json).expect("compressed");
                assert_eq!(frame, zstd::bulk::compress(&json, ZSTD_LEVEL).expect("by a new one"), "{length} bytes");
                assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).ok(), Some(Some(length as u64)));
                assert_eq!(zstd::bulk::decompress(&frame, length).expect("read back"), json);
            }
        }
    }
}
