//! A manifest: what belongs to one backup. Written last; a backup exists when its manifest does (B1).
//!
//! ```text
//!   {"blake3":"<64 hex>","manifest":<JSON of version 1>}\n        the digest is that of the JSON, byte for byte
//! ```
//!
//! It is JSON, so that an operator can read it with what is at hand, and checks itself, so that a flipped digit in it is
//! found like one in a pack.

use crate::TierError;
use raft_types::{GroupId, KeptDocument, LogPosition};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const VERSION: u32 = 1;
const OPENS: &[u8] = b"{\"blake3\":\"";
const MIDDLE: &[u8] = b"\",\"manifest\":";
const CLOSES: &[u8] = b"}\n";

/// What belongs to one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub version: u32,
    /// Its name in the store, without `.json`: begins with the milliseconds since 1970 of its start.
    pub id: String,
    /// The cluster that was backed up.
    pub cluster_id: Uuid,
    /// When it was begun. What was acknowledged before is in it.
    pub started_unix_ms: u64,
    /// When it was complete.
    pub finished_unix_ms: u64,
    /// The node that made it.
    pub node: String,
    /// Data groups of the cluster: where a study lives is a function of it.
    pub group_count: u32,
    /// Each data group at one moment of its own.
    pub groups: Vec<GroupEntry>,
    /// Sums.
    pub totals: Totals,
    /// The backup whose packs were used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// What the nodes of the cluster had agreed on beside the images: who may call, and by which rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<KeptDocument>,
}

/// One group of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// The group.
    pub group: GroupId,
    /// What its rows had applied; none before the first entry.
    pub applied: Option<LogPosition>,
    /// Its rows, in order.
    pub rows: Vec<ObjectEntry>,
    /// Packs that hold its bodies.
    pub packs: Vec<PackEntry>,
    /// Bodies that its rows name.
    pub bodies: u64,
    /// Bytes of those.
    pub body_bytes: u64,
}

/// One object with rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// BLAKE3 of all its bytes, in hex.
    pub blake3: String,
    /// Its length.
    pub bytes: u64,
}

/// One pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackEntry {
    /// BLAKE3 of all its bytes, in hex, which is also its name.
    pub blake3: String,
    /// Its length.
    pub bytes: u64,
    /// Bodies in it, also such that no row names any more.
    pub bodies: u64,
}

/// Sums over all groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Bodies that rows name.
    pub bodies: u64,
    /// Bytes of those.
    pub body_bytes: u64,
    /// Bytes of all objects that the backup names.
    pub stored_bytes: u64,
    /// Bytes that were sent for it; the rest was there before.
    pub sent_bytes: u64,
}

impl Manifest {
    /// The version that this release writes.
    pub(crate) const VERSION: u32 = VERSION;

    /// Its bytes in the store.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, TierError> {
        let json = serde_json::to_vec(self)
            .map_err(|error| TierError::Target { step: "write the manifest".into(), why: error.to_string() })?;
        let digest = blake3::hash(&json).to_hex();
        Ok([OPENS, digest.as_bytes(), MIDDLE, &json, CLOSES].concat())
    }

    /// The manifest in `bytes`, checked.
    pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<Self, TierError> {
        let bad = |why: &str| TierError::damaged(object, why);
        let parts = || {
            let rest = bytes.strip_prefix(OPENS)?.strip_suffix(CLOSES)?;
            let (digest, rest) = rest.split_at_checked(64)?;
            Some((std::str::from_utf8(digest).ok()?, rest.strip_prefix(MIDDLE)?))
        };
        let (digest, json) = parts().ok_or_else(|| bad("it is not a manifest of a backup"))?;
        // The version first: a newer form is not damage.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if blake3::hash(json).to_hex().as_str() != digest {
            return Err(bad("its digest is another one"));
        }
        let Version { version } = serde_json::from_slice(json).map_err(|error| bad(&error.to_string()))?;
        if version > VERSION {
            return Err(bad(&format!(
                "its version {version} is newer than {VERSION}, the newest this release reads: upgrade triptych"
            )));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| bad(&error.to_string()))?;
        let digests = manifest.groups.iter().flat_map(|group| {
            group.rows.iter().map(|rows| &rows.blake3).chain(group.packs.iter().map(|pack| &pack.blake3))
        });
        // They become names of objects.
        if digests.into_iter().any(|digest| digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(bad("a digest in it is none"));
        }
        Ok(manifest)
    }
}

impl GroupEntry {
    /// Where part `number` of its rows lies, below the cluster's folder.
    pub(crate) fn rows_object(group: GroupId, at: LogPosition, number: usize, blake3: &str) -> String {
        format!("rows/{}/{}-{}-{number}-{blake3}", group.0, at.term, at.index)
    }

    /// Where a pack lies, below the cluster's folder.
    pub(crate) fn pack_object(group: GroupId, blake3: &str) -> String {
        format!("packs/{}/{blake3}", group.0)
    }

    /// Every object that it names, with its length.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (String, u64)> {
        let at = self.applied.unwrap_or_default();
        let rows = self.rows.iter().enumerate();
        let rows =
            rows.map(move |(number, rows)| (Self::rows_object(self.group, at, number, &rows.blake3), rows.bytes));
        let packs = self.packs.iter().map(|pack| (Self::pack_object(self.group, &pack.blake3), pack.bytes));
        rows.chain(packs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let group = GroupEntry {
            group: GroupId(1),
            applied: Some(LogPosition { term: 2, index: 9 }),
            rows: vec![ObjectEntry { blake3: "a".repeat(64), bytes: 40 }],
            packs: vec![PackEntry { blake3: "b".repeat(64), bytes: 90, bodies: 2 }],
            bodies: 1,
            body_bytes: 30,
        };
        Manifest {
            version: 1,
            id: "1764115200000-1f".into(),
            cluster_id: Uuid::from_u128(7),
            started_unix_ms: 1_764_115_200_000,
            finished_unix_ms: 1_764_115_200_500,
            node: "n1".into(),
            group_count: 64,
            groups: vec![group],
            totals: Totals { bodies: 1, body_bytes: 30, stored_bytes: 130, sent_bytes: 0 },
            previous: None,
            documents: Vec::new(),
        }
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let json = format!(
            "{{\"version\":1,\"id\":\"1764115200000-1f\",\"cluster_id\":\"00000000-0000-0000-0000-000000000007\",\
             \"started_unix_ms\":1764115200000,\"finished_unix_ms\":1764115200500,\"node\":\"n1\",\"group_count\":64,\
             \"groups\":[{{\"group\":1,\"applied\":{{\"term\":2,\"index\":9}},\"rows\":[{{\"blake3\":\"{}\",\"bytes\":40}}],\
             \"packs\":[{{\"blake3\":\"{}\",\"bytes\":90,\"bodies\":2}}],\"bodies\":1,\"body_bytes\":30}}],\
             \"totals\":{{\"bodies\":1,\"body_bytes\":30,\"stored_bytes\":130,\"sent_bytes\":0}}}}",
            "a".repeat(64),
            "b".repeat(64)
        );
        let golden = format!("{{\"blake3\":\"{}\",\"manifest\":{json}}}\n", blake3::hash(json.as_bytes()).to_hex());
        assert_eq!(String::from_utf8(manifest().encode().expect("plain")).expect("text"), golden);
        assert_eq!(Manifest::decode("m", golden.as_bytes()).expect("own bytes"), manifest());
        let documents = vec![KeptDocument { key: "k".into(), bytes: vec![0xab].into() }];
        let with = Manifest { documents, ..manifest() };
        let bytes = with.encode().expect("plain");
        assert!(bytes.ends_with(b"\"documents\":[{\"key\":\"k\",\"bytes\":\"ab\"}]}}\n"));
        assert_eq!(Manifest::decode("m", &bytes).expect("own bytes"), with);
        let objects: Vec<_> = manifest().groups[0].objects().collect();
        assert_eq!(objects[0], (format!("rows/1/2-9-0-{}", "a".repeat(64)), 40));
        assert_eq!(objects[1], (format!("packs/1/{}", "b".repeat(64)), 90));
    }

    /// B4.
    #[test]
    fn no_flipped_byte_is_believed() {
        let bytes = manifest().encode().expect("plain");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Manifest::decode("m", &flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_manifest_asks_for_an_upgrade() {
        let bytes = Manifest { version: 2, ..manifest() }.encode().expect("plain");
        let error = Manifest::decode("m", &bytes).expect_err("newer").to_string();
        assert!(error.contains("upgrade triptych"), "{error}");
    }
}
