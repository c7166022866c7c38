//! One batch: what the writer puts on the disk between two `fdatasync`s.

use crate::{
    Body,
    format::{BODY_CRC_BYTES, BatchHeader, HEADER_BYTES, RecordHeader, RecordKind, crc_table_bytes, whole_pages},
    segment::GroupCheckpoint,
};
use bytes::Bytes;
use raft_types::{GroupId, LogPosition};

/// One record before it is bytes.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    Entry {
        group: GroupId,
        position: LogPosition,
        kind: u8,
        head: Bytes,
        body: Body,
    },
    Vote {
        group: GroupId,
        vote: Bytes,
    },
    Committed {
        group: GroupId,
        position: LogPosition,
    },
    /// Removes every entry from `from` on.
    Truncate {
        group: GroupId,
        from: u64,
    },
    Purge {
        group: GroupId,
        upto: LogPosition,
    },
    State {
        group: GroupId,
        checkpoint: GroupCheckpoint,
    },
    /// The body of a committed entry, apart from the log.
    Block {
        group: GroupId,
        index: u64,
        body: Bytes,
    },
    /// An entry or a block with its body as it lies in another segment, under the CRCs that it had there: what is damaged
    /// stays known as damaged.
    AsItLies {
        kind: RecordKind,
        entry_kind: u8,
        group: GroupId,
        position: LogPosition,
        head: Bytes,
        body: Bytes,
        crcs: Vec<u32>,
    },
}

impl Record {
    /// Bytes that the record takes in a batch, CRC table included.
    pub(crate) fn bytes(&self) -> u64 {
        let rest = match self {
            Self::Entry { head, body, .. } => {
                let body = body.here();
                head.len() + crc_table_bytes(body.len() as u32) + body.len()
            }
            Self::Block { body, .. } => crc_table_bytes(body.len() as u32) + body.len(),
            Self::AsItLies { head, body, crcs, .. } => head.len() + crcs.len() * 4 + body.len(),
            Self::Vote { vote, .. } => vote.len(),
            Self::State { .. } => 256,
            Self::Committed { .. } | Self::Truncate { .. } | Self::Purge { .. } => 0,
        };
        (HEADER_BYTES + rest) as u64
    }
}

/// What a record is, once it lies in a segment: enough to rebuild the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placed {
    Entry { group: GroupId, position: LogPosition, record_at: u64 },
    Vote { group: GroupId, vote: Bytes },
    Committed { group: GroupId, position: LogPosition },
    Truncate { group: GroupId, from: u64 },
    Purge { group: GroupId, upto: LogPosition },
    State { group: GroupId, checkpoint: GroupCheckpoint },
    Block { group: GroupId, index: u64, record_at: u64 },
}

/// A batch ready to be written: the meta part, and the bodies that follow it.
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    pub(crate) meta: Vec<u8>,
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) placed: Vec<Placed>,
}

/// Lays `records` out as the batch `sequence` at `at` of a segment whose CRCs start from `seed`.
pub(crate) fn lay_out(records: &[Record], sequence: u64, previous_crc: u32, at: u64, seed: u32) -> Batch {
    let meta_len: usize = HEADER_BYTES
        + records
            .iter()
            .map(|record| match record {
                Record::Entry { head, body, .. } => {
                    HEADER_BYTES + head.len() + crc_table_bytes(body.here().len() as u32)
                }
                Record::Block { body, .. } => HEADER_BYTES + crc_table_bytes(body.len() as u32),
                Record::AsItLies { head, crcs, .. } => HEADER_BYTES + head.len() + crcs.len() * 4,
                Record::Vote { vote, .. } => HEADER_BYTES + vote.len(),
                Record::State { checkpoint, .. } => HEADER_BYTES + checkpoint.encode().len(),
                Record::Committed { .. } | Record::Truncate { .. } | Record::Purge { .. } => HEADER_BYTES,
            })
            .sum::<usize>();
    let mut meta = Vec::with_capacity(meta_len);
    meta.resize(HEADER_BYTES, 0);
    let (mut bodies, mut placed) = (Vec::new(), Vec::with_capacity(records.len()));
    let bodies_at = at + meta_len as u64;
    let mut body_at = bodies_at;
    for record in records {
        let record_at = at + meta.len() as u64;
        let mut put = |kind, entry_kind, group, position, head: &[u8], whole: &Body| {
            let body = whole.here();
            let mut rest = Vec::with_capacity(head.len() + crc_table_bytes(body.len() as u32));
            rest.extend_from_slice(head);
            match record {
                Record::AsItLies { crcs, .. } => crcs.iter().for_each(|crc| rest.extend_from_slice(&crc.to_le_bytes())),
                _ => {
                    for piece in body.chunks(BODY_CRC_BYTES) {
                        rest.extend_from_slice(&crc32c::crc32c(piece).to_le_bytes());
                    }
                }
            }
            let header = RecordHeader {
                kind,
                entry_kind,
                group,
                position,
                head_len: head.len() as u32,
                body_len: whole.len(),
                body_at: if whole.is_elided() { 0 } else { body_at },
                rest_crc: crc32c::crc32c_append(seed, &rest),
                elided: whole.is_elided(),
            };
            meta.extend_from_slice(&header.encode(seed));
            meta.extend_from_slice(&rest);
            if !body.is_empty() {
                body_at += body.len() as u64;
                bodies.push(body.clone());
            }
        };
        let none = Body::default();
        let at_index = |index| LogPosition { term: 0, index };
        placed.push(match record {
            Record::Entry { group, position, kind, head, body } => {
                put(RecordKind::Entry, *kind, *group, *position, head, body);
                Placed::Entry { group: *group, position: *position, record_at }
            }
            Record::Block { group, index, body } => {
                put(RecordKind::Block, 0, *group, at_index(*index), &[], &Body::Here(body.clone()));
                Placed::Block { group: *group, index: *index, record_at }
            }
            Record::AsItLies { kind, entry_kind, group, position, head, body, crcs: _ } => {
                put(*kind, *entry_kind, *group, *position, head, &Body::Here(body.clone()));
                match kind {
                    RecordKind::Block => Placed::Block { group: *group, index: position.index, record_at },
                    _ => Placed::Entry { group: *group, position: *position, record_at },
                }
            }
            Record::Vote { group, vote } => {
                put(RecordKind::Vote, 0, *group, at_index(0), vote, &none);
                Placed::Vote { group: *group, vote: vote.clone() }
            }
            Record::Committed { group, position } => {
                put(RecordKind::Committed, 0, *group, *position, &[], &none);
                Placed::Committed { group: *group, position: *position }
            }
            Record::Truncate { group, from } => {
                put(RecordKind::Truncate, 0, *group, at_index(*from), &[], &none);
                Placed::Truncate { group: *group, from: *from }
            }
            Record::Purge { group, upto } => {
                put(RecordKind::Purge, 0, *group, *upto, &[], &none);
                Placed::Purge { group: *group, upto: *upto }
            }
            Record::State { group, checkpoint } => {
                put(RecordKind::State, 0, *group, at_index(0), &checkpoint.encode(), &none);
                Placed::State { group: *group, checkpoint: checkpoint.clone() }
            }
        });
    }
    debug_assert_eq!(meta.len(), meta_len, "the layout was computed for another meta part");
    let body_bytes = body_at - bodies_at;
    let mut header = BatchHeader {
        sequence,
        previous_crc,
        records: records.len() as u32,
        meta_bytes: meta_len as u32,
        body_bytes: body_bytes as u32,
        total_bytes: whole_pages(body_at - at) as u32,
        meta_crc: 0,
    };
    header.meta_crc = header.seal(&mut meta, seed);
    Batch { header, meta, bodies, placed }
}

/// One body of a batch and the CRCs that it must have.
pub(crate) struct BodyCheck {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) crcs: Vec<u32>,
}

/// Reads the records of a batch from its verified meta part; `None` if they contradict each other.
pub(crate) fn take_apart(
    header: &BatchHeader,
    meta: &[u8],
    at: u64,
    seed: u32,
) -> Option<(Vec<Placed>, Vec<BodyCheck>)> {
    let mut rest = meta.get(HEADER_BYTES..)?;
    let (mut placed, mut bodies) = (Vec::new(), Vec::new());
    for _ in 0..header.records {
        let record_at = at + (meta.len() - rest.len()) as u64;
        let record = RecordHeader::decode(rest, seed)?;
        rest = &rest[HEADER_BYTES..];
        let (own, behind) = rest.split_at_checked(record.rest_bytes())?;
        rest = behind;
        if record.rest_crc != crc32c::crc32c_append(seed, own) {
            return None;
        }
        let (head, table) = own.split_at(record.head_len as usize);
        placed.push(self::placed(&record, record_at, head)?);
        if record.body_len > 0 && !record.elided {
            bodies.push(BodyCheck { at: record.body_at, len: record.body_len, crcs: crcs(table) });
        }
    }
    rest.is_empty().then_some((placed, bodies))
}

/// What a record at `record_at` with this head does to a directory; `None` for a state that does not decode.
pub(crate) fn placed(record: &RecordHeader, record_at: u64, head: &[u8]) -> Option<Placed> {
    let group = record.group;
    Some(match record.kind {
        RecordKind::Entry => Placed::Entry { group, position: record.position, record_at },
        RecordKind::Block => Placed::Block { group, index: record.position.index, record_at },
        RecordKind::Vote => Placed::Vote { group, vote: Bytes::copy_from_slice(head) },
        RecordKind::Committed => Placed::Committed { group, position: record.position },
        RecordKind::Truncate => Placed::Truncate { group, from: record.position.index },
        RecordKind::Purge => Placed::Purge { group, upto: record.position },
        RecordKind::State => Placed::State { group, checkpoint: GroupCheckpoint::decode(head)? },
    })
}

/// The numbers of a CRC table.
pub(crate) fn crcs(table: &[u8]) -> Vec<u32> {
    table.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
