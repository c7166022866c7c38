//! Who this data folder is: `identity.json`, written before the first vote and never changed but to be completed.
//!
//! ```json
//! { "version": 1, "name": "n1", "node_uuid": "…", "disk_uuid": "…", "cluster_id": "…", "raft_id": 1, "incarnation": 3 }
//! ```
//!
//! A node whose log had a hole has given up its raft id (`suspect.rs`); until it has another one, the file says which it
//! replaces, and for good, under which node uuids older segments were written (version 2):
//!
//! ```json
//! { "version": 2, …, "node_uuid": "new", "replaces": 3, "former": ["old"] }
//! ```
//!
//! `cluster_id` and `raft_id` are absent until the node has joined a cluster. The folder of another node, or one of a
//! newer release, is refused with a sentence that says what to do.

use raft_types::{Disk, DiskFile, NodeId, Seed};
use serde::{Deserialize, Serialize};
use std::{io, sync::Arc};
use uuid::Uuid;

const FILE: &str = "identity.json";
const VERSION: u32 = 2;

/// Who a data folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    version: u32,
    /// Name from `--name`.
    pub name: String,
    /// Made with the folder, lost with it.
    pub node_uuid: Uuid,
    /// Names the disk in its own files.
    pub disk_uuid: Uuid,
    /// The cluster, once joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Uuid>,
    /// The raft id in that cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<NodeId>,
    /// Starts of this folder, counted.
    pub incarnation: u64,
    /// The raft id that this node gave up, until it has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<NodeId>,
    /// Its node uuids before that: older segments carry them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Uuid>,
    /// Clusters that this folder was part of before it was made a cluster of its own; see `refound.rs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_cluster_ids: Vec<Uuid>,
}

/// Why the folder has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The disk did not answer.
    #[error("could not {step} identity.json: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not what this release writes.
    #[error(
        "identity.json cannot be read ({0}): restore it from a copy, or move the data folder away and let the node be replaced"
    )]
    Malformed(String),
    /// The folder is that of another node.
    #[error(
        "the data folder belongs to node {found}, this is {own}: start with `--name {found}`, or with the folder of {own}"
    )]
    OtherName {
        /// The name in the file.
        found: String,
        /// The name of this node.
        own: String,
    },
    /// The folder holds data, but no identity.
    #[error(
        "the data folder holds segments but no identity.json: restore the file from a copy, or move the folder away and let the node be replaced"
    )]
    Lost,
}

impl Identity {
    /// The identity of a folder whose node does not run; none for a folder that has none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(store: &dyn Disk) -> Result<Option<Self>, IdentityError> {
        let file = match store.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { step: "open", source }),
        };
        let bytes = read_all(&file).map_err(|source| IdentityError::Io { step: "read", source })?;
        let found: Self =
            serde_json::from_slice(&bytes).map_err(|error| IdentityError::Malformed(error.to_string()))?;
        if found.version > VERSION {
            return Err(IdentityError::Malformed(format!("version {}, of a newer release", found.version)));
        }
        Ok(Some(found))
    }

    /// The identity of `store` for the node `name`: read and counted up, or made for an empty folder.
    pub fn load_or_create(store: &dyn Disk, name: &str, seed: &dyn Seed) -> Result<Self, IdentityError> {
        let identity = match Self::load(store)? {
            Some(mut found) => {
                if found.name != name {
                    return Err(IdentityError::OtherName { found: found.name, own: name.into() });
                }
                found.incarnation += 1;
                found
            }
            None => Self {
                version: 1,
                name: name.into(),
                node_uuid: random(seed),
                disk_uuid: random(seed),
                cluster_id: None,
                raft_id: None,
                incarnation: 1,
                replaces: None,
                former: Vec::new(),
                former_cluster_ids: Vec::new(),
            },
        };
        identity.save(store)?;
        Ok(identity)
    }

    /// Writes the file, durably.
    pub fn save(&self, store: &dyn Disk) -> Result<(), IdentityError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| IdentityError::Malformed(error.to_string()))?;
        bytes.push(b'\n');
        store.replace(FILE, &bytes).map_err(|source| IdentityError::Io { step: "write", source })
    }

    /// Whether the node belongs to a cluster.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.cluster_id.is_some() && self.raft_id.is_some()
    }

    /// The same folder as another member: it will never act under its old raft id again.
    pub(crate) fn given_up(mut self, node_uuid: Uuid) -> Self {
        self.version = VERSION;
        self.replaces = self.raft_id.take().or(self.replaces);
        self.former.push(std::mem::replace(&mut self.node_uuid, node_uuid));
        self
    }

    /// The node uuids that older segments of the log may carry.
    #[must_use]
    pub fn former_uuids(&self) -> Vec<[u8; 16]> {
        self.former.iter().map(|uuid| uuid.into_bytes()).collect()
    }

    /// The clusters whose older segments may lie in the log.
    #[must_use]
    pub fn former_of_lane(&self) -> Vec<[u8; 16]> {
        self.former_cluster_ids.iter().map(|id| id.into_bytes()).collect()
    }

    /// The identity that the segments of the log carry.
    #[must_use]
    pub fn of_lane(&self) -> raft_lanes::Identity {
        raft_lanes::Identity {
            cluster_id: self.cluster_id.map_or([0; 16], Uuid::into_bytes),
            node_uuid: self.node_uuid.into_bytes(),
            disk_uuid: self.disk_uuid.into_bytes(),
            lane: 0,
        }
    }
}

/// A random id (RFC 9562, version 4) from our own seam.
pub(crate) fn random(seed: &dyn Seed) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.next().to_le_bytes());
    bytes[8..].copy_from_slice(&seed.next().to_le_bytes());
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

pub(crate) fn read_all(file: &Arc<dyn DiskFile>) -> io::Result<Vec<u8>> {
    // 64 KiB: a hundred times what the file ever holds.
    let mut bytes = vec![0; usize::try_from(file.len()?.min(64 << 10)).unwrap_or(0)];
    let filled = file.read_at(0, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_lanes::crash::CrashDisk;

    struct Fixed;
    impl Seed for Fixed {
        fn next(&self) -> u64 {
            42
        }
    }

    #[test]
    fn an_identity_stays_and_counts_its_starts() {
        let disk = CrashDisk::new();
        let mut first = Identity::load_or_create(&disk, "n1", &Fixed).expect("new");
        assert!(!first.is_member());
        first.cluster_id = Some(Uuid::from_u128(7));
        first.raft_id = Some(NodeId(1));
        first.save(&disk).expect("saved");
        let second = Identity::load_or_create(&disk, "n1", &Fixed).expect("known");
        assert_eq!(second, Identity { incarnation: 2, ..first });
    }

    #[test]
    fn the_folder_of_another_node_is_refused_with_what_to_do() {
        let disk = CrashDisk::new();
        Identity::load_or_create(&disk, "n1", &Fixed).expect("new");
        let error = Identity::load_or_create(&disk, "n2", &Fixed).expect_err("n1's");
        assert!(error.to_string().contains("--name n1"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_identity_is_not_overwritten() {
        let disk = CrashDisk::new();
        disk.replace(FILE, b"{").expect("written");
        assert!(matches!(Identity::load_or_create(&disk, "n1", &Fixed), Err(IdentityError::Malformed(_))));
        assert_eq!(read_all(&disk.open(FILE).expect("there")).expect("read"), b"{");
    }
}
