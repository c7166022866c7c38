//! Small replicated documents: settings that every node must agree on, whose meaning only their owner knows.

use crate::BoxFuture;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A document as it is known: its bytes, and how often it has been set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// 0 for one that was never set.
    pub version: u64,
    /// What its owner wrote; empty for one that was never set.
    pub bytes: Bytes,
}

/// A document as a backup and a recovery keep it, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDocument {
    /// Its key.
    pub key: String,
    /// What its owner wrote.
    #[serde(with = "hex")]
    pub bytes: Bytes,
}

/// Bytes as a text that survives JSON: two digits each.
mod hex {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        let text: String = bytes.iter().flat_map(|byte| [digits(byte >> 4), digits(byte & 15)]).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Bytes::from).ok_or_else(|| D::Error::custom("bytes are two hexadecimal digits each"))
    }
}

/// Documents that a majority keeps, the same on every node, found again after every restart.
pub trait Documents: Send + Sync + 'static {
    /// The document under `key`, once this node knows it and its version is not `seen`: with `None` at once when it is known.
    ///
    /// Until this node has learnt what was set before it started, nobody is answered: an old answer, or none, could be a
    /// wrong one. Waits for ever when nothing changes, also while the node stops.
    fn next<'a>(&'a self, key: &'a str, seen: Option<u64>) -> BoxFuture<'a, Document>;

    /// Sets the document if its version is still `expected`; answers the new version, which this node knows by then.
    /// Setting the same bytes again over the same version is the same answer.
    ///
    /// # Errors
    /// See [`DocumentError`].
    fn put<'a>(&'a self, key: &'a str, expected: u64, bytes: Bytes) -> BoxFuture<'a, Result<u64, DocumentError>>;
}

/// Why a document was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Somebody else was first: read it again, and decide anew.
    #[error("the document was changed meanwhile, it is at version {version} now: look at it and try again")]
    Changed {
        /// Its version now.
        version: u64,
    },
    /// It breaks a bound; the sentence says which.
    #[error("{0}")]
    Refused(String),
    /// No majority decided in time: it may or may not be set. Try again.
    #[error("the cluster did not decide: {0}; look at it again when a majority of the nodes is up")]
    Undecided(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kept_document_comes_back_from_its_text() {
        let kept = KeptDocument { key: "k".into(), bytes: Bytes::from_static(&[0, 0x7f, 0xa5, 0xff]) };
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(text, "{\"key\":\"k\",\"bytes\":\"007fa5ff\"}");
        assert_eq!(serde_json::from_str::<KeptDocument>(&text).unwrap(), kept);
        for bad in ["0", "0g", "00f", "é"] {
            let text = format!("{{\"key\":\"k\",\"bytes\":\"{bad}\"}}");
            assert!(serde_json::from_str::<KeptDocument>(&text).is_err(), "{bad}");
        }
    }
}
