//! Who is at the other end. The first frame of each connection, in both directions; asked again by `hello_of`.
//!
//! ```text
//!   head of Hello and HelloAnswer = version 1 | postcard { hello, to }      `to`: the name the dialler meant
//! ```
//!
//! Both ends check. A mismatch is answered with a refusal that says what differs, and the connection is closed:
//! nodes of two clusters, a node under another name at a reused address, and an older copy of a disk never talk.

use bytes::Bytes;
use raft_types::{DecodeError, Versioned};
use serde::{Deserialize, Serialize};

/// A node as it presents itself to its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it belongs to, once it knows.
    pub cluster_id: Option<[u8; 16]>,
    /// Its name from `--name`.
    pub name: String,
    /// Made with its data folder; all zeros while that was not read yet.
    pub node_uuid: [u8; 16],
    /// Starts of that data folder, counted.
    pub incarnation: u64,
    /// It has no data yet.
    pub blank: bool,
    /// The oldest and the newest version of the protocol that it speaks.
    pub wire_versions: (u8, u8),
}

impl Hello {
    /// The versions of the protocol that this release speaks.
    pub const WIRE_VERSIONS: (u8, u8) = (1, 1);
}

/// What travels: the hello and whom it is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) hello: Hello,
    pub(crate) to: String,
}

impl Versioned for Greeting {
    const VERSION: u8 = 1;

    fn encode(&self) -> Bytes {
        // Writing to a growing vector cannot fail; were it to, the empty answer does not decode.
        postcard::to_extend(self, vec![Self::VERSION]).unwrap_or_default().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "hello";
        match bytes.split_first() {
            Some((&Self::VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|error| DecodeError::Malformed { what, why: error.to_string() })
            }
            Some((&found, _)) if found > Self::VERSION => {
                Err(DecodeError::Newer { what, found, newest: Self::VERSION })
            }
            _ => Err(DecodeError::Malformed { what, why: "no version".to_owned() }),
        }
    }
}

/// Whether the two may talk; if not, what differs. `before` is what was last known of the other.
pub(crate) fn check(ours: &Hello, theirs: &Hello, before: Option<&Hello>) -> Result<(), String> {
    let (oldest, newest) =
        (ours.wire_versions.0.max(theirs.wire_versions.0), ours.wire_versions.1.min(theirs.wire_versions.1));
    if oldest > newest {
        let (ours, theirs) = (ours.wire_versions, theirs.wire_versions);
        return Err(format!("no common protocol version: {ours:?} here, {theirs:?} there; upgrade the older one"));
    }
    if let (Some(our_id), Some(their_id)) = (ours.cluster_id, theirs.cluster_id)
        && our_id != their_id
    {
        return Err(format!("another cluster: {} here, {} there", hex(&our_id), hex(&their_id)));
    }
    if theirs.name == ours.name {
        return Err(format!("two nodes are named {}", ours.name));
    }
    let disk_known = theirs.node_uuid != [0; 16]; // all zeros: its identity was not read yet
    if disk_known && theirs.node_uuid == ours.node_uuid {
        return Err(format!("{} runs on a copy of this node's disk", theirs.name));
    }
    if let Some(before) = before.filter(|before| disk_known && before.node_uuid == theirs.node_uuid)
        && theirs.incarnation < before.incarnation
    {
        let (now, before) = (theirs.incarnation, before.incarnation);
        return Err(format!("{} runs on an older copy of its disk: start {now} after start {before}", theirs.name));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: &str, disk: u8, cluster: Option<u8>) -> Hello {
        Hello {
            cluster_id: cluster.map(|id| [id; 16]),
            name: name.into(),
            node_uuid: [disk; 16],
            incarnation: 5,
            blank: cluster.is_none(),
            wire_versions: (1, 1),
        }
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let greeting = Greeting { hello: hello("a", 0x11, Some(0x22)), to: "b".into() };
        let golden = format!("0101{}0161{}0500010101{}", "22".repeat(16), "11".repeat(16), "62");
        assert_eq!(hex(&greeting.encode()), golden);
        assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        assert!(matches!(Greeting::decode(&[2]), Err(DecodeError::Newer { .. })));
        assert!(Greeting::decode(&[]).is_err());
    }

    #[test]
    fn only_nodes_that_belong_together_talk() {
        let ours = hello("a", 1, Some(1));
        let newer = Hello { wire_versions: (2, 3), ..hello("b", 2, Some(1)) };
        let rows = [
            (hello("b", 2, Some(1)), None, ""),
            (hello("b", 2, None), None, ""),
            (hello("b", 2, Some(2)), None, "another cluster"),
            (hello("a", 2, Some(1)), None, "two nodes are named"),
            (hello("b", 1, Some(1)), None, "copy of this node's disk"),
            (newer, None, "no common protocol version"),
            (hello("b", 2, Some(1)), Some(6), "older copy of its disk"),
            (hello("b", 2, Some(1)), Some(5), ""),
        ];
        for (theirs, incarnation, why) in rows {
            let before = incarnation.map(|incarnation| Hello { incarnation, ..theirs.clone() });
            match check(&ours, &theirs, before.as_ref()) {
                Ok(()) => assert_eq!(why, "", "{theirs:?}"),
                Err(reason) => assert!(!why.is_empty() && reason.contains(why), "{reason}"),
            }
        }
    }
}
