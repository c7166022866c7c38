//! openraft's types as this crate uses them, and the bytes they become: no openraft type is ever stored or sent as such.
//!
//! ```text
//!   entry in the lane   kind 0 blank | kind 1 command: head, body | kind 2 membership: head = version 1 | postcard
//!   vote in the lane    version 1 | postcard(VoteRecord)
//! ```

use bytes::Bytes;
use openraft::{EntryPayload, Membership, entry::RaftEntry, impls::BasicNode, vote::RaftLeaderId};
use raft_lanes::{Body as LaneBody, Entry as LaneEntry, ThinEntry};
use raft_types::{DecodeError, LogPosition};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

openraft::declare_raft_types!(
    /// The types of every group.
    pub(crate) Types:
        D = Block,
        R = Answer,
        NodeId = u64,
        Node = BasicNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;

/// A command inside of openraft: *thin* once it lies in the lane. `Debug` never prints a body.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) head: Bytes,
    pub(crate) body: Body,
}

/// Where the body of a command is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// On its way into the lane.
    Here(Bytes),
    /// In the lane, under the entry's own position.
    InLane { len: u32 },
    /// Not sent along, and not to be kept: this node learns the rows only (`bodies.rs`).
    Elided { len: u32 },
}

impl Block {
    pub(crate) fn body_len(&self) -> u64 {
        match &self.body {
            Body::Here(bytes) => bytes.len() as u64,
            Body::InLane { len } | Body::Elided { len } => u64::from(*len),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blk({})", self.body_len())
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blk({})", self.body_len())
    }
}

/// The state machine's answer, in its own encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) Bytes);

pub(crate) const KIND_BLANK: u8 = 0;
pub(crate) const KIND_COMMAND: u8 = 1;
pub(crate) const KIND_MEMBERSHIP: u8 = 2;

pub(crate) fn log_id(position: LogPosition) -> LogId {
    // `voted_for` is no part of a committed leader id in the standard mode: one leader per term.
    let leader = openraft::impls::leader_id_std::LeaderId { term: position.term, voted_for: 0 };
    LogId::new(leader.to_committed(), position.index)
}

pub(crate) fn position(log_id: &LogId) -> LogPosition {
    LogPosition { term: log_id.leader_id.term, index: log_id.index }
}

/// A vote as it is stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        let mut vote = Self::new(record.term, record.node);
        vote.committed = record.committed;
        vote
    }
}

/// A membership as it is stored and sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    /// One set of voters, or two while the membership changes.
    pub(crate) configs: Vec<Vec<u64>>,
    /// Raft id → name, learners included.
    pub(crate) nodes: BTreeMap<u64, String>,
}

impl From<&Membership<u64, BasicNode>> for MembershipRecord {
    fn from(membership: &Membership<u64, BasicNode>) -> Self {
        Self {
            configs: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
            nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership<u64, BasicNode> {
    type Error = DecodeError;
    fn try_from(record: MembershipRecord) -> Result<Self, DecodeError> {
        let configs = record.configs.into_iter().map(|set| set.into_iter().collect()).collect();
        let nodes: BTreeMap<u64, BasicNode> =
            record.nodes.into_iter().map(|(id, name)| (id, BasicNode::new(name))).collect();
        Self::new(configs, nodes).map_err(|why| DecodeError::Malformed { what: "membership", why: why.to_string() })
    }
}

const VERSION: u8 = 1;

/// Version 1 | postcard.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut out = vec![VERSION];
    // Only a type that cannot tell its length can fail to serialise, and there is none here.
    out = postcard::to_extend(value, out).unwrap_or_default();
    Bytes::from(out)
}

/// What [`encode`] wrote.
pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|why| DecodeError::Malformed { what, why: why.to_string() })
        }
        Some((found, _)) if *found > VERSION => Err(DecodeError::Newer { what, found: *found, newest: VERSION }),
        _ => Err(DecodeError::Malformed { what, why: "no version".into() }),
    }
}

/// An entry for the lane. The body of a thin entry is not here any more, so it cannot be appended again.
pub(crate) fn to_lane(entry: Entry) -> Result<LaneEntry, std::io::Error> {
    let position = position(&entry.log_id);
    Ok(match entry.payload {
        EntryPayload::Blank => LaneEntry { position, kind: KIND_BLANK, head: Bytes::new(), body: LaneBody::default() },
        EntryPayload::Normal(Block { head, body: Body::Here(body) }) => {
            LaneEntry { position, kind: KIND_COMMAND, head, body: body.into() }
        }
        EntryPayload::Normal(Block { head, body: Body::Elided { len } }) => {
            LaneEntry { position, kind: KIND_COMMAND, head, body: LaneBody::Elided(len) }
        }
        EntryPayload::Normal(Block { head, body: Body::InLane { len: 0 } }) => {
            LaneEntry { position, kind: KIND_COMMAND, head, body: LaneBody::default() }
        }
        EntryPayload::Normal(Block { body: Body::InLane { .. }, .. }) => {
            return Err(std::io::Error::other(format!("entry {position} is thin: its body is already in a lane")));
        }
        EntryPayload::Membership(membership) => {
            let head = encode(&MembershipRecord::from(&membership));
            LaneEntry { position, kind: KIND_MEMBERSHIP, head, body: LaneBody::default() }
        }
    })
}

/// An entry of the lane, thin. An unknown kind stops the group: it is never skipped.
pub(crate) fn from_lane(thin: ThinEntry) -> Result<Entry, DecodeError> {
    from_parts(thin.position, thin.kind, thin.head, Body::InLane { len: thin.body_len })
}

/// An entry that does nothing, at a place.
pub(crate) fn blank(position: LogPosition) -> Entry {
    <Entry as RaftEntry>::new(log_id(position), EntryPayload::Blank)
}

/// An entry from its parts.
pub(crate) fn from_parts(position: LogPosition, kind: u8, head: Bytes, body: Body) -> Result<Entry, DecodeError> {
    let payload = match kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_COMMAND => EntryPayload::Normal(Block { head, body }),
        KIND_MEMBERSHIP => EntryPayload::Membership(decode::<MembershipRecord>("membership", &head)?.try_into()?),
        found => return Err(DecodeError::Newer { what: "log entry", found, newest: KIND_MEMBERSHIP }),
    };
    Ok(<Entry as RaftEntry>::new(log_id(position), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_of_entry_is_an_error_that_says_upgrade() {
        let error = from_parts(LogPosition { term: 1, index: 1 }, 9, Bytes::new(), Body::InLane { len: 0 });
        let error = error.expect_err("kind 9 is not known").to_string();
        assert!(error.contains("upgrade this node"), "{error}");
    }

    #[test]
    fn a_membership_and_a_vote_read_back() {
        let nodes = BTreeMap::from([(1, "n1".to_owned()), (7, "n2".to_owned())]);
        let record = MembershipRecord { configs: vec![vec![1, 7]], nodes };
        let entry =
            from_parts(LogPosition { term: 2, index: 3 }, KIND_MEMBERSHIP, encode(&record), Body::InLane { len: 0 });
        let EntryPayload::Membership(membership) = entry.expect("own bytes").payload else { panic!("a membership") };
        assert_eq!(MembershipRecord::from(&membership), record);
        let vote = VoteRecord { term: 5, node: 7, committed: true };
        assert_eq!(VoteRecord::from(&Vote::from(vote)), vote);
    }

    #[test]
    fn the_stored_bytes_of_votes_and_memberships_are_those_of_version_1() {
        let nodes = BTreeMap::from([(1, "n1".to_owned())]);
        assert_eq!(encode(&MembershipRecord { configs: vec![vec![1]], nodes })[..], [1, 1, 1, 1, 1, 1, 2, b'n', b'1']);
        assert_eq!(encode(&VoteRecord { term: 300, node: 2, committed: true })[..], [1, 0xac, 2, 2, 1]);
    }

    #[test]
    fn the_debug_form_of_a_command_prints_no_bytes() {
        let block = Block { head: Bytes::from_static(b"secret"), body: Body::Here(Bytes::from_static(b"secret")) };
        assert_eq!(format!("{block:?}"), "Blk(6)");
    }
}
