//! What nodes say to each other: methods, heads and bodies.
//!
//! ```text
//!   head = version 1 | postcard of the struct below        bodies: raw, in the order of the entries that have one
//! ```
//!
//! A message for a group names the raft id it is meant for: a node that came back under another id refuses (trap 14).

use crate::types::{
    Body, Entry, KIND_BLANK, KIND_COMMAND, KIND_MEMBERSHIP, MembershipRecord, Types, VoteRecord, encode,
};
use bytes::Bytes;
use openraft::{EntryPayload, raft::AppendEntriesRequest};
use raft_types::{DecodeError, GroupId, LogPosition, NodeId, Refusal};
use serde::{Deserialize, Serialize};

/// Method numbers. When adding one: at the end, never reuse.
pub(crate) mod method {
    pub(crate) const HELLO: u16 = 1;
    pub(crate) const JOIN: u16 = 2;
    pub(crate) const VOTE: u16 = 3;
    pub(crate) const PRE_VOTE: u16 = 4;
    pub(crate) const APPEND: u16 = 5;
    pub(crate) const APPEND_STREAM: u16 = 6;
    pub(crate) const TRANSFER: u16 = 7;
    pub(crate) const PROPOSE: u16 = 8;
    pub(crate) const READ_INDEX: u16 = 9;
    pub(crate) const CONFIRM: u16 = 10;
    pub(crate) const READ: u16 = 11;
    pub(crate) const ROWS_STREAM: u16 = 12;
    pub(crate) const COMPLETE: u16 = 13;
    pub(crate) const ROWS_PULL: u16 = 14;
    pub(crate) const COPY: u16 = 15;
    pub(crate) const ENTRY: u16 = 16;
    pub(crate) const REJOIN: u16 = 17;
    pub(crate) const VERIFY_STREAM: u16 = 18;
}

/// Codes of refusals.
pub(crate) mod code {
    /// The group is not on this node, or not yet.
    pub(crate) const NO_GROUP: u16 = 1;
    /// The raft id is not that of this node.
    pub(crate) const OTHER_ID: u16 = 2;
    /// Another node leads; the reason is its name, or empty. Nothing was written.
    pub(crate) const NOT_LEADER: u16 = 3;
    /// The entry may or may not be committed.
    pub(crate) const UNKNOWN: u16 = 4;
    /// The bytes were not understood.
    pub(crate) const MALFORMED: u16 = 5;
    /// The group has stopped.
    pub(crate) const STOPPED: u16 = 6;
    /// No such block here.
    pub(crate) const ABSENT: u16 = 7;
    /// The block here is damaged.
    pub(crate) const DAMAGED: u16 = 8;
    /// The meta group refused; the reason says why.
    pub(crate) const REFUSED: u16 = 9;
    /// Too little space on the leader's disk.
    pub(crate) const DISK_FULL: u16 = 10;
}

pub(crate) fn refusal(code: u16, reason: impl ToString) -> Refusal {
    Refusal { code, reason: reason.to_string() }
}

/// Answer to `HELLO`: who is there. Asked again and again while a cluster forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) name: String,
    pub(crate) node_uuid: [u8; 16],
    pub(crate) cluster_id: Option<[u8; 16]>,
    pub(crate) id: Option<NodeId>,
    /// Whether it should be given no leadership: it drains, or its disk is full.
    pub(crate) declines: bool,
    /// Disks that were replaced: whoever has one must not go on with it.
    pub(crate) retired: Vec<[u8; 16]>,
    /// Bytes of bodies that it still pulls from its peers; none when it holds all that its rows name.
    pub(crate) missing: Option<u64>,
}

/// `JOIN`: a blank node asks for its raft id. Answered by whoever can reach the meta leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    pub(crate) registration: raft_placement::Registration,
}

/// `REJOIN`: a node that gave up its raft id asks for another, which gets the places of the old one. Answered as `JOIN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejoin {
    pub(crate) registration: raft_placement::Registration,
    pub(crate) replaces: NodeId,
}

/// Answer to `JOIN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) id: NodeId,
}

/// `VOTE` and `PRE_VOTE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteCall {
    pub(crate) to: u64,
    pub(crate) vote: VoteRecord,
    pub(crate) last: Option<LogPosition>,
    pub(crate) transfer: bool,
}

/// Answer to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub(crate) vote: VoteRecord,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogPosition>,
}

/// `APPEND` and each message of an `APPEND_STREAM`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendCall {
    pub(crate) to: u64,
    pub(crate) vote: VoteRecord,
    pub(crate) previous: Option<LogPosition>,
    pub(crate) commit: Option<LogPosition>,
    pub(crate) entries: Vec<EntryRecord>,
}

/// In [`EntryRecord::kind`]: the entry has a body of that length, and it does not come along.
pub(crate) const ELIDED: u8 = 0x80;

/// One entry; its body follows among the bodies if `body_len` is not 0 and the kind is not [`ELIDED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) position: LogPosition,
    pub(crate) kind: u8,
    pub(crate) head: Bytes,
    pub(crate) body_len: u32,
}

/// Answer to an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    /// Durable up to here.
    Flushed(Option<LogPosition>),
    /// Only up to here.
    Partly(Option<LogPosition>),
    /// The log here does not hold this position.
    Conflict(LogPosition),
    /// A newer leader is known.
    HigherVote(VoteRecord),
    /// The group here has stopped.
    Stopped,
}

/// `TRANSFER`: told to every voter, so that all of them let the leader go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferCall {
    pub(crate) to: u64,
    /// Who shall lead: only that node campaigns.
    pub(crate) leader: u64,
    pub(crate) from: VoteRecord,
    pub(crate) last: Option<LogPosition>,
}

/// `PROPOSE`: the command's head; its body is the message's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProposeCall {
    pub(crate) head: Bytes,
    pub(crate) deadline_ms: u64,
}

/// Answer to `PROPOSE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProposeAnswer {
    pub(crate) position: LogPosition,
    pub(crate) outcome: Bytes,
}

/// `READ_INDEX`: for which of these groups do you lead, and up to where must a reader have applied?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadIndexCall {
    pub(crate) groups: Vec<GroupId>,
}

/// Answer: an index for each group that this node leads, confirmed by a majority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadIndexAnswer {
    pub(crate) indexes: Vec<(GroupId, u64)>,
}

/// `CONFIRM`: has this node voted in a newer term than these?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfirmCall {
    pub(crate) terms: Vec<(GroupId, u64)>,
}

/// Answer: the groups for which it has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfirmAnswer {
    pub(crate) confirmed: Vec<GroupId>,
}

/// `READ`: bytes of a committed block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReadCall {
    pub(crate) index: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// `ENTRY`: one entry of the log, for a peer whose own record of it is damaged. Answered with an [`EntryRecord`], and its
/// body if that is there. Of one index and one term there is one entry only (Raft §5.3), committed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryCall {
    pub(crate) index: u64,
}

/// `ROWS_STREAM`, its first message: the rows of a group come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowsCall {
    pub(crate) to: u64,
    pub(crate) vote: VoteRecord,
}

/// Each further message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RowsPart {
    /// The moment of the export.
    At { position: Option<LogPosition>, membership: Option<(LogPosition, Bytes)> },
    /// Rows: the bodies.
    Piece,
    /// All pieces were sent.
    End { pieces: u64 },
}

/// The answer to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RowsAnswer {
    Installed { vote: VoteRecord },
    Refused { code: u16, reason: String },
}

/// `COMPLETE`: do you hold, of the group, every body that your rows name?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompleteCall {
    pub(crate) to: u64,
}

/// Answer, and how far the node has applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompleteAnswer {
    pub(crate) complete: bool,
    pub(crate) applied: Option<LogPosition>,
}

/// `COPY`: are you a full copy of the group? The call is a [`CompleteCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyAnswer {
    /// The node knows that it is wanted as a copy, and holds every body that its rows name, and those of all entries
    /// behind them up to `last`.
    pub(crate) complete: bool,
    pub(crate) applied: Option<LogPosition>,
    /// The end of its log.
    pub(crate) last: Option<LogPosition>,
}

/// `VERIFY_STREAM`, its first message: read these bodies from your own disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifyCall {
    /// Index and length of each body, in order.
    pub(crate) bodies: Vec<(u64, u32)>,
    /// BLAKE3 of all of them in order.
    pub(crate) digest: [u8; 32],
}

/// Each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VerifyPart {
    /// It waits for its turn, or has read some more: it goes on.
    Working,
    /// Every byte is here.
    Sound,
    /// Some byte is another one, or cannot be read.
    Damaged,
    /// Some body is not here.
    Absent,
}

/// The head of an append, and the places of the bodies that are still in the lane.
pub(crate) fn append_call(to: u64, request: &AppendEntriesRequest<Types>) -> (AppendCall, Vec<(LogPosition, Body)>) {
    let mut entries = Vec::with_capacity(request.entries.len());
    let mut bodies = Vec::new();
    for entry in &request.entries {
        let position = crate::log_store::entry_position(entry);
        let (kind, head, body_len) = match &entry.payload {
            EntryPayload::Blank => (KIND_BLANK, Bytes::new(), 0),
            EntryPayload::Membership(membership) => (KIND_MEMBERSHIP, encode(&MembershipRecord::from(membership)), 0),
            EntryPayload::Normal(block) => (KIND_COMMAND, block.head.clone(), block.body_len() as u32),
        };
        if let EntryPayload::Normal(block) = &entry.payload
            && body_len > 0
        {
            bodies.push((position, block.body.clone()));
        }
        entries.push(EntryRecord { position, kind, head, body_len });
    }
    let call = AppendCall {
        to,
        vote: VoteRecord::from(&request.vote),
        previous: request.prev_log_id.as_ref().map(crate::types::position),
        commit: request.leader_commit.as_ref().map(crate::types::position),
        entries,
    };
    (call, bodies)
}

impl AppendCall {
    /// Puts the bodies that were found beside the call; those that were not are elided.
    pub(crate) fn with_bodies(&mut self, found: Vec<Option<Bytes>>) -> Vec<Bytes> {
        let with_body = self.entries.iter_mut().filter(|entry| entry.body_len > 0);
        let mut bodies = Vec::with_capacity(found.len());
        for (entry, body) in with_body.zip(found) {
            match body {
                Some(body) => bodies.push(body),
                None => entry.kind |= ELIDED,
            }
        }
        bodies
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.position.index)
    }
}

/// The request that [`append_call`] made, with the bodies that came along.
pub(crate) fn append_request(call: AppendCall, bodies: Vec<Bytes>) -> Result<AppendEntriesRequest<Types>, DecodeError> {
    let malformed = |why: &str| DecodeError::Malformed { what: "append", why: why.into() };
    let mut bodies = bodies.into_iter();
    let entries = call
        .entries
        .into_iter()
        .map(|entry| {
            if entry.kind & ELIDED != 0 {
                let body = Body::Elided { len: entry.body_len };
                return crate::types::from_parts(entry.position, entry.kind & !ELIDED, entry.head, body);
            }
            let body = if entry.body_len == 0 {
                Bytes::new()
            } else {
                bodies.next().ok_or_else(|| malformed("a body is missing"))?
            };
            if body.len() != entry.body_len as usize {
                return Err(malformed("a body has another length than its entry says"));
            }
            crate::types::from_parts(entry.position, entry.kind, entry.head, Body::Here(body))
        })
        .collect::<Result<Vec<Entry>, DecodeError>>()?;
    Ok(AppendEntriesRequest {
        vote: call.vote.into(),
        prev_log_id: call.previous.map(crate::types::log_id),
        leader_commit: call.commit.map(crate::types::log_id),
        entries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::decode;

    fn hex<T: Serialize>(value: &T) -> String {
        encode(value).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_entry_that_is_sent_without_its_body_says_how_long_that_is() {
        let at = |index| LogPosition { term: 3, index };
        let vote = VoteRecord { term: 5, node: 2, committed: true };
        let entry = |index, body_len| EntryRecord { position: at(index), kind: 1, head: Bytes::new(), body_len };
        let entries = vec![entry(1, 0), entry(2, 128), entry(3, 1)];
        let mut call = AppendCall { to: 7, vote, previous: None, commit: None, entries };
        let bodies = call.with_bodies(vec![None, Some(Bytes::from_static(b"b"))]);
        assert_eq!(hex(&call), "0107050201000003030101000003028100800103030100".to_owned() + "01");
        let request = append_request(call, bodies).expect("its own words");
        let bodies: Vec<Body> = request
            .entries
            .into_iter()
            .filter_map(|entry| match entry.payload {
                EntryPayload::Normal(block) => Some(block.body),
                _ => None,
            })
            .collect();
        let here = |bytes: &'static [u8]| Body::Here(Bytes::from_static(bytes));
        assert!(bodies == [here(b""), Body::Elided { len: 128 }, here(b"b")]);
    }

    /// What nodes of one release say to those of the next: changed bytes need a new version and both read.
    #[test]
    fn the_bytes_of_messages_are_those_of_version_1() {
        let at = LogPosition { term: 3, index: 300 };
        let vote = VoteRecord { term: 5, node: 2, committed: true };
        let hello = Hello {
            name: "n1".into(),
            node_uuid: [0x11; 16],
            cluster_id: Some([0x22; 16]),
            id: Some(NodeId(7)),
            declines: true,
            retired: vec![[0x33; 16]],
            missing: Some(9),
        };
        let (ones, twos, threes) = ("11".repeat(16), "22".repeat(16), "33".repeat(16));
        assert_eq!(hex(&hello), format!("01026e31{ones}01{twos}01070101{threes}0109"));
        assert_eq!(hex(&VoteCall { to: 7, vote, last: Some(at), transfer: true }), "01070502010103ac0201");
        assert_eq!(hex(&VoteAnswer { vote, granted: true, last: None }), "010502010100");
        let entry = EntryRecord { position: at, kind: 1, head: Bytes::from_static(b"h"), body_len: 128 };
        let append = AppendCall { to: 7, vote, previous: None, commit: Some(at), entries: vec![entry] };
        assert_eq!(hex(&append), "0107050201000103ac020103ac020101688001");
        assert_eq!(hex(&AppendAnswer::Flushed(Some(at))), "01000103ac02");
        assert_eq!(hex(&TransferCall { to: 7, leader: 8, from: vote, last: None }), "01070805020100");
        assert_eq!(hex(&ProposeCall { head: Bytes::from_static(b"c"), deadline_ms: 1 }), "01016301");
        assert_eq!(hex(&ReadCall { index: 1, start: 2, end: 3 }), "01010203");
        assert_eq!(hex(&EntryCall { index: 300 }), "01ac02");
        let entry = EntryRecord { position: at, kind: 1, head: Bytes::from_static(b"h"), body_len: 128 };
        assert_eq!(hex(&entry), "0103ac020101688001");
        assert_eq!(hex(&RowsCall { to: 7, vote }), "0107050201");
        assert_eq!(hex(&RowsPart::At { position: Some(at), membership: None }), "01000103ac0200");
        assert_eq!(hex(&RowsPart::End { pieces: 4 }), "010204");
        assert_eq!(hex(&RowsAnswer::Installed { vote }), "0100050201");
        assert_eq!(hex(&CompleteAnswer { complete: true, applied: Some(at) }), "01010103ac02");
        assert_eq!(hex(&CopyAnswer { complete: true, applied: None, last: Some(at) }), "0101000103ac02");
        let verify = VerifyCall { bodies: vec![(300, 128)], digest: [0x44; 32] };
        assert_eq!(hex(&verify), format!("0101ac028001{}", "44".repeat(32)));
        let parts = [VerifyPart::Working, VerifyPart::Sound, VerifyPart::Damaged, VerifyPart::Absent];
        assert_eq!(parts.map(|part| hex(&part)), ["0100", "0101", "0102", "0103"]);
        assert_eq!(decode::<Hello>("hello", &encode(&hello)), Ok(hello));
    }
}
