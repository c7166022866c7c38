//! Documents of the meta group: opaque bytes under a key, set by compare and set, bounded.
//!
//! ```text
//!   Shelf = [ key → version | bytes ]      by key; the version counts how often it was set, from 1
//! ```
//!
//! Invariants
//! - A version is set by one writer: who names another one than is there changes nothing, and is told what is there.
//! - The same bytes over the same version once more are the same answer: a proposal may be committed twice.
//! - There are at most [`DOCUMENTS_MAX`] keys, and no document is longer than [`DOCUMENT_BYTES_MAX`]: the state is cloned and
//!   kept in memory on every node, and every change stays in a log that is never purged.

use crate::meta::MetaOutcome;
use bytes::Bytes;
use raft_types::Document;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Documents that the cluster keeps, at most.
pub(crate) const DOCUMENTS_MAX: usize = 64;
/// Bytes of a document, at most.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Bytes of a key, at most.
const KEY_BYTES_MAX: usize = 64;

/// All documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shelf(BTreeMap<String, Kept>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u64,
    bytes: Bytes,
}

impl Shelf {
    /// The document under `key`; of version 0 when there is none.
    pub(crate) fn get(&self, key: &str) -> Document {
        self.0.get(key).map_or_else(Document::default, Kept::document)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Document)> {
        self.0.iter().map(|(key, kept)| (key.as_str(), kept.document()))
    }

    pub(crate) fn set(&mut self, key: String, expected: u64, bytes: Bytes) -> Result<MetaOutcome, String> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(format!("the key of a document has 1 to {KEY_BYTES_MAX} bytes"));
        }
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(format!(
                "the document has {} bytes, and {DOCUMENT_BYTES_MAX} is the most that is kept: make it smaller",
                bytes.len()
            ));
        }
        let found = self.0.get(&key);
        let version = found.map_or(0, |kept| kept.version);
        if found.is_some_and(|kept| expected.checked_add(1) == Some(kept.version) && kept.bytes == bytes) {
            return Ok(MetaOutcome::DocumentSet { version }); // repeated
        }
        if version != expected {
            return Ok(MetaOutcome::DocumentChanged { version });
        }
        if found.is_none() && self.0.len() >= DOCUMENTS_MAX {
            return Err(format!("there are {DOCUMENTS_MAX} documents, which is the most that are kept"));
        }
        let version = version.checked_add(1).ok_or("the document was set too often")?;
        // A copy: what came with a frame would keep the whole frame.
        self.0.insert(key, Kept { version, bytes: Bytes::copy_from_slice(&bytes) });
        Ok(MetaOutcome::DocumentSet { version })
    }
}

impl Kept {
    fn document(&self) -> Document {
        Document { version: self.version, bytes: self.bytes.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SET: fn(u64) -> MetaOutcome = |version| MetaOutcome::DocumentSet { version };

    #[test]
    fn only_who_has_seen_the_last_version_sets_the_next() {
        let mut shelf = Shelf::default();
        let mut set =
            |expected, text: &'static str| shelf.set("k".into(), expected, Bytes::from_static(text.as_bytes()));
        assert_eq!(set(0, "a"), Ok(SET(1)));
        assert_eq!(set(0, "b"), Ok(MetaOutcome::DocumentChanged { version: 1 }), "another writer was first");
        assert_eq!(set(0, "a"), Ok(SET(1)), "the same proposal, committed twice");
        assert_eq!(set(1, "b"), Ok(SET(2)));
        assert_eq!(set(0, "a"), Ok(MetaOutcome::DocumentChanged { version: 2 }), "a late copy of the first");
        assert_eq!(set(7, "c"), Ok(MetaOutcome::DocumentChanged { version: 2 }));
        assert_eq!(set(u64::MAX, "c"), Ok(MetaOutcome::DocumentChanged { version: 2 }));
        assert_eq!(shelf.get("k"), Document { version: 2, bytes: Bytes::from_static(b"b") });
        assert_eq!(shelf.get("other"), Document::default());
    }

    #[test]
    fn what_is_beyond_a_bound_is_refused_with_a_sentence_and_changes_nothing() {
        let mut shelf = Shelf::default();
        for number in 0..DOCUMENTS_MAX {
            assert_eq!(shelf.set(number.to_string(), 0, Bytes::new()), Ok(SET(1)));
        }
        let before = shelf.clone();
        let long = Bytes::from(vec![0; DOCUMENT_BYTES_MAX + 1]);
        for (key, expected, bytes) in [
            ("one more", 0, Bytes::new()),
            ("0", 1, long),
            ("", 0, Bytes::new()),
            (&"k".repeat(KEY_BYTES_MAX + 1), 0, Bytes::new()),
        ] {
            assert!(shelf.set(key.to_owned(), expected, bytes).unwrap_err().len() > 20);
        }
        assert_eq!(shelf, before);
        assert_eq!(shelf.set("0".into(), 1, Bytes::from(vec![0; DOCUMENT_BYTES_MAX])), Ok(SET(2)), "at the bound");
    }
}
