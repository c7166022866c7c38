//! The rows of one group as a snapshot gives them to another replica: logical, versioned, and the same bytes on every
//! replica that has applied the same entries.
//!
//! ```text
//!   piece = version 3 to 5 | postcard([Row])     about 1 MiB; version 1 had no tombstones, 2 no records, 3 no rejections,
//!                                                4 no canonical digests
//!   rows    Study, its Series, the Instances of each by number, the Versions of each ─ by UID ─ then Uploads, Tombstones,
//!           Records, Rejections; behind an Instance or a Version its Canonical, if it has one
//! ```
//!
//! A piece is written in the oldest version that can say what is in it: a node of an older release takes what it knows.
//!
//! Local numbers of rows are not in it: a replica gives its own. The number of an instance within its series is, because
//! it follows from the log.

use crate::{
    error::{CatalogError, Step},
    row,
};
use bytes::Bytes;
use raft_types::{DecodeError, Exported, GroupId};
use rusqlite::{Connection, Row as SqlRow, params};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Bytes of rows of a piece, about.
const PIECE_BYTES: usize = 1 << 20;
const VERSION: u8 = 5;

/// One row. When adding a variant: at the end, and raise `VERSION` when an old node must not meet it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Row {
    Patient(Patient),
    Study(Study),
    Series(Series),
    Instance(Instance),
    Version(Version),
    Upload(Upload),
    EndedUpload {
        idx: i64,
        upload: Vec<u8>,
    },
    Tombstone(Buried),
    DeletedStore {
        idx: i64,
        digest: Vec<u8>,
        received_ms: i64,
    },
    Record(Kept),
    RemovedRecord {
        idx: i64,
        kind: String,
        key: String,
        created_ms: i64,
    },
    Rejection(Rejection),
    /// The canonical digest of the content before it: rule and digest.
    Canonical(Vec<u8>),
}

/// The patient of the study that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Patient {
    pub(crate) pid: String,
    pub(crate) issuer: String,
    pub(crate) study: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Study {
    pub(crate) uid: String,
    pub(crate) pid: Option<String>,
    pub(crate) name_a: String,
    pub(crate) name_i: String,
    pub(crate) name_p: String,
    pub(crate) birth_date: String,
    pub(crate) date: String,
    pub(crate) time: String,
    pub(crate) several: bool,
    pub(crate) accession: Option<String>,
    pub(crate) study_id: Option<String>,
    pub(crate) modalities: String,
    pub(crate) n_series: i64,
    pub(crate) n_instances: i64,
    pub(crate) bytes: i64,
    pub(crate) patient_attrs: Vec<u8>,
    pub(crate) attrs: Vec<u8>,
}

/// A series of the study before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) uid: String,
    pub(crate) modality: Option<String>,
    pub(crate) number: Option<i64>,
    pub(crate) n_instances: i64,
    pub(crate) n_ever: i64,
    pub(crate) attrs: Vec<u8>,
}

/// What an instance and a version of it have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) sop_class: String,
    pub(crate) syntax: String,
    pub(crate) length: i64,
    pub(crate) digest: Vec<u8>,
    pub(crate) blocks: Vec<u8>,
    pub(crate) frames: Option<Vec<u8>>,
    pub(crate) received_ms: i64,
    pub(crate) source: Vec<u8>,
    pub(crate) header: Vec<u8>,
    /// Stands behind it, in a row of its own: older releases do not have it.
    #[serde(skip)]
    pub(crate) canonical: Option<Vec<u8>>,
}

/// An instance of the series before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    /// Its number within the series.
    pub(crate) ordinal: i64,
    pub(crate) uid: String,
    pub(crate) number: Option<i64>,
    pub(crate) n_frames: i64,
    pub(crate) versions: i64,
    pub(crate) attrs: Vec<u8>,
    pub(crate) content: Content,
}

/// Another content of the instance before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) number: i64,
    pub(crate) content: Content,
}

/// A block of an upload that is not committed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) upload: Vec<u8>,
    pub(crate) seq: i64,
    pub(crate) idx: i64,
    pub(crate) length: i64,
}

/// What a delete left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Buried {
    pub(crate) idx: i64,
    pub(crate) study: String,
    pub(crate) series: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) n_instances: i64,
    pub(crate) bytes: i64,
    pub(crate) reason: String,
    pub(crate) source: String,
    pub(crate) deleted_ms: i64,
}

/// A record (`record.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) kind: String,
    pub(crate) key: String,
    pub(crate) version: i64,
    pub(crate) before: i64,
    pub(crate) created_ms: i64,
    pub(crate) changed_ms: i64,
    pub(crate) due_ms: Option<i64>,
    pub(crate) body: Vec<u8>,
}

/// What a rejection note did to an instance (`reject.rs`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) study: String,
    pub(crate) series: String,
    pub(crate) instance: String,
    pub(crate) state: i64,
    pub(crate) sop_class: String,
    pub(crate) bytes: i64,
    pub(crate) rejected_ms: i64,
    pub(crate) note: String,
    pub(crate) facts: Vec<u8>,
    pub(crate) blocks: Vec<u8>,
    pub(crate) content: Option<Vec<u8>>,
}

impl Row {
    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        let content = |content: &Content| content.header.len() + content.blocks.len() + 256;
        match self {
            Self::Study(study) => study.patient_attrs.len() + study.attrs.len() + 512,
            Self::Series(series) => series.attrs.len() + 128,
            Self::Instance(instance) => content(&instance.content) + instance.attrs.len() + 128,
            Self::Version(version) => content(&version.content),
            Self::Tombstone(buried) => buried.reason.len() + 256,
            Self::Record(kept) => kept.body.len() + kept.key.len() + 64,
            Self::RemovedRecord { key, .. } => key.len() + 64,
            Self::Rejection(one) => one.content.as_ref().map_or(0, Vec::len) + one.blocks.len() + one.facts.len() + 512,
            Self::Patient(_)
            | Self::Upload(_)
            | Self::EndedUpload { .. }
            | Self::DeletedStore { .. }
            | Self::Canonical(_) => 64,
        }
    }

    /// The oldest version of a piece that can say it.
    fn version(&self) -> u8 {
        match self {
            Self::Canonical(_) => 5,
            // A hidden instance of version 2 has a canonical digest.
            Self::Rejection(one) if one.content.as_ref().is_some_and(|content| content.first() > Some(&1)) => 5,
            Self::Rejection(_) => 4,
            Self::Patient(_)
            | Self::Study(_)
            | Self::Series(_)
            | Self::Instance(_)
            | Self::Version(_)
            | Self::Upload(_)
            | Self::EndedUpload { .. }
            | Self::Tombstone(_)
            | Self::DeletedStore { .. }
            | Self::Record(_)
            | Self::RemovedRecord { .. } => 3,
        }
    }
}

/// The rows of a piece.
pub(crate) fn rows_of(piece: &[u8]) -> Result<Vec<Row>, DecodeError> {
    let what = "rows of a snapshot";
    match piece.split_first() {
        Some((1..=VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|error| DecodeError::Malformed { what, why: error.to_string() })
        }
        Some((found, _)) if *found > VERSION => Err(DecodeError::Newer { what, found: *found, newest: VERSION }),
        _ => Err(DecodeError::Malformed { what, why: "no version".into() }),
    }
}

/// Gathers rows to pieces.
struct Pieces<'a> {
    rows: Vec<Row>,
    bytes: usize,
    sink: &'a mut dyn FnMut(Exported) -> ControlFlow<()>,
}

impl Pieces<'_> {
    fn push(&mut self, row: Row) -> ControlFlow<()> {
        self.bytes += row.bytes();
        self.rows.push(row);
        if self.bytes >= PIECE_BYTES { self.send() } else { ControlFlow::Continue(()) }
    }

    fn send(&mut self) -> ControlFlow<()> {
        if self.rows.is_empty() {
            return ControlFlow::Continue(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let version = rows.iter().map(Row::version).max().unwrap_or(VERSION);
        // Plain values: nothing here can fail to serialise.
        let piece: Bytes = postcard::to_extend(&rows, vec![version]).unwrap_or_default().into();
        (self.sink)(Exported::Piece(piece))
    }
}

/// Exports `group` from one read transaction of `connection`.
pub(crate) fn export(
    connection: &Connection,
    group: GroupId,
    sink: &mut dyn FnMut(Exported) -> ControlFlow<()>,
) -> Result<(), CatalogError> {
    // Unchecked: it only reads, and it is the one transaction of a borrowed reader.
    let transaction = connection.unchecked_transaction().step("begin an export")?;
    let applied = crate::apply::read_applied(&transaction, group)?;
    if sink(Exported::At(applied)).is_break() {
        return Ok(());
    }
    let mut pieces = Pieces { rows: Vec::new(), bytes: 0, sink };
    for walk in [studies, uploads, deletes, records, rejections] {
        if walk(&transaction, group, &mut pieces)?.is_break() {
            return Ok(());
        }
    }
    let _ = pieces.send();
    Ok(())
}

/// `?` for a walk that the sink may end.
macro_rules! go_on {
    ($flow:expr) => {
        if $flow.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    };
}

fn studies(connection: &Connection, group: GroupId, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let mut studies = connection
        .prepare(
            "SELECT t.id, t.uid, t.pid, t.name_a, t.name_i, t.name_p, t.birth_date, t.date, t.time, t.several,
             t.accession, t.study_id, t.modalities, t.n_series, t.n_instances, t.bytes, t.patient_attrs, t.attrs,
             p.pid, p.issuer, p.study
             FROM study t JOIN patient p ON p.id = t.patient WHERE t.grp = ?1 ORDER BY t.uid",
        )
        .step("prepare an export")?;
    let mut rows = studies.query([group.0]).step("export studies")?;
    while let Some(row) = rows.next().step("export studies")? {
        let (id, patient, study) = study(row).step("export a study")?;
        go_on!(pieces.push(Row::Patient(patient)));
        go_on!(pieces.push(Row::Study(study)));
        go_on!(series(connection, id, pieces)?);
    }
    Ok(ControlFlow::Continue(()))
}

fn study(row: &SqlRow<'_>) -> rusqlite::Result<(i64, Patient, Study)> {
    let study = Study {
        uid: row.get(1)?,
        pid: row.get(2)?,
        name_a: row.get(3)?,
        name_i: row.get(4)?,
        name_p: row.get(5)?,
        birth_date: row.get(6)?,
        date: row.get(7)?,
        time: row.get(8)?,
        several: row.get(9)?,
        accession: row.get(10)?,
        study_id: row.get(11)?,
        modalities: row.get(12)?,
        n_series: row.get(13)?,
        n_instances: row.get(14)?,
        bytes: row.get(15)?,
        patient_attrs: row.get(16)?,
        attrs: row.get(17)?,
    };
    Ok((row.get(0)?, Patient { pid: row.get(18)?, issuer: row.get(19)?, study: row.get(20)? }, study))
}

fn series(connection: &Connection, study: i64, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let mut series = connection
        .prepare_cached(
            "SELECT id, uid, modality, number, n_instances, n_ever, attrs FROM series WHERE study = ?1 ORDER BY uid",
        )
        .step("prepare an export")?;
    let mut rows = series.query([study]).step("export series")?;
    while let Some(row) = rows.next().step("export series")? {
        let take = |row: &SqlRow<'_>| -> rusqlite::Result<(i64, Series)> {
            let series = Series {
                uid: row.get(1)?,
                modality: row.get(2)?,
                number: row.get(3)?,
                n_instances: row.get(4)?,
                n_ever: row.get(5)?,
                attrs: row.get(6)?,
            };
            Ok((row.get(0)?, series))
        };
        let (id, series) = take(row).step("export a series")?;
        go_on!(pieces.push(Row::Series(series)));
        go_on!(instances(connection, id, pieces)?);
    }
    Ok(ControlFlow::Continue(()))
}

pub(crate) const CONTENT: &str =
    "sop_class, syntax, length, digest, blocks, frames, received_ms, source, header, canonical";

pub(crate) fn content(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Content> {
    Ok(Content {
        sop_class: row.get(at)?,
        syntax: row.get(at + 1)?,
        length: row.get(at + 2)?,
        digest: row.get(at + 3)?,
        blocks: row.get(at + 4)?,
        frames: row.get(at + 5)?,
        received_ms: row.get(at + 6)?,
        source: row.get(at + 7)?,
        header: row.get(at + 8)?,
        canonical: row.get(at + 9)?,
    })
}

fn instances(connection: &Connection, series: i64, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let (first, behind) = row::ids_of(series);
    let mut instances = connection
        .prepare_cached(&format!(
            "SELECT id, uid, number, n_frames, versions, attrs, {CONTENT} FROM instance
             WHERE id >= ?1 AND id < ?2 ORDER BY id"
        ))
        .step("prepare an export")?;
    let mut rows = instances.query([first, behind]).step("export instances")?;
    while let Some(row) = rows.next().step("export instances")? {
        let take = |row: &SqlRow<'_>| -> rusqlite::Result<(i64, Instance)> {
            let id: i64 = row.get(0)?;
            let instance = Instance {
                ordinal: id - first,
                uid: row.get(1)?,
                number: row.get(2)?,
                n_frames: row.get(3)?,
                versions: row.get(4)?,
                attrs: row.get(5)?,
                content: content(row, 6)?,
            };
            Ok((id, instance))
        };
        let (id, instance) = take(row).step("export an instance")?;
        let (versions, canonical) = (instance.versions, instance.content.canonical.clone());
        go_on!(pieces.push(Row::Instance(instance)));
        if let Some(canonical) = canonical {
            go_on!(pieces.push(Row::Canonical(canonical)));
        }
        if versions > 0 {
            go_on!(other_contents(connection, id, pieces)?);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn other_contents(connection: &Connection, id: i64, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let mut versions = connection
        .prepare_cached(&format!("SELECT number, {CONTENT} FROM version WHERE instance = ?1 ORDER BY number"))
        .step("prepare an export")?;
    let mut rows = versions.query([id]).step("export versions")?;
    while let Some(row) = rows.next().step("export versions")? {
        let take = |row: &SqlRow<'_>| Ok(Version { number: row.get(0)?, content: content(row, 1)? });
        let version = take(row).step("export a version")?;
        let canonical = version.content.canonical.clone();
        go_on!(pieces.push(Row::Version(version)));
        if let Some(canonical) = canonical {
            go_on!(pieces.push(Row::Canonical(canonical)));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn uploads(connection: &Connection, group: GroupId, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let mut uploads = connection
        .prepare("SELECT upload, seq, idx, length FROM upload WHERE grp = ?1 ORDER BY upload, seq")
        .step("prepare an export")?;
    let mut rows = uploads.query(params![group.0]).step("export uploads")?;
    while let Some(row) = rows.next().step("export uploads")? {
        let take = |row: &SqlRow<'_>| {
            Ok(Upload { upload: row.get(0)?, seq: row.get(1)?, idx: row.get(2)?, length: row.get(3)? })
        };
        go_on!(pieces.push(Row::Upload(take(row).step("export an upload")?)));
    }
    let mut ended = connection
        .prepare("SELECT idx, upload FROM ended_upload WHERE grp = ?1 ORDER BY upload")
        .step("prepare an export")?;
    let mut rows = ended.query(params![group.0]).step("export uploads")?;
    while let Some(row) = rows.next().step("export uploads")? {
        let take = |row: &SqlRow<'_>| Ok(Row::EndedUpload { idx: row.get(0)?, upload: row.get(1)? });
        go_on!(pieces.push(take(row).step("export an upload")?));
    }
    Ok(ControlFlow::Continue(()))
}

fn deletes(connection: &Connection, group: GroupId, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let mut tombstones = connection
        .prepare(
            "SELECT idx, study, series, instance, n_instances, bytes, reason, source, deleted_ms FROM tombstone
             WHERE grp = ?1 ORDER BY idx",
        )
        .step("prepare an export")?;
    let mut rows = tombstones.query(params![group.0]).step("export tombstones")?;
    while let Some(row) = rows.next().step("export tombstones")? {
        let take = |row: &SqlRow<'_>| {
            Ok(Row::Tombstone(Buried {
                idx: row.get(0)?,
                study: row.get(1)?,
                series: row.get(2)?,
                instance: row.get(3)?,
                n_instances: row.get(4)?,
                bytes: row.get(5)?,
                reason: row.get(6)?,
                source: row.get(7)?,
                deleted_ms: row.get(8)?,
            }))
        };
        go_on!(pieces.push(take(row).step("export a tombstone")?));
    }
    let mut stores = connection
        .prepare("SELECT idx, digest, received_ms FROM deleted_store WHERE grp = ?1 ORDER BY digest, received_ms")
        .step("prepare an export")?;
    let mut rows = stores.query(params![group.0]).step("export deleted stores")?;
    while let Some(row) = rows.next().step("export deleted stores")? {
        let take = |row: &SqlRow<'_>| {
            Ok(Row::DeletedStore { idx: row.get(0)?, digest: row.get(1)?, received_ms: row.get(2)? })
        };
        go_on!(pieces.push(take(row).step("export a deleted store")?));
    }
    Ok(ControlFlow::Continue(()))
}

fn records(connection: &Connection, group: GroupId, pieces: &mut Pieces<'_>) -> Result<ControlFlow<()>, CatalogError> {
    let mut records = connection
        .prepare(
            "SELECT kind, key, version, before, created_ms, changed_ms, due_ms, body FROM record WHERE grp = ?1
             ORDER BY kind, key",
        )
        .step("prepare an export")?;
    let mut rows = records.query([group.0]).step("export records")?;
    while let Some(row) = rows.next().step("export records")? {
        let take = |row: &SqlRow<'_>| {
            Ok(Row::Record(Kept {
                kind: row.get(0)?,
                key: row.get(1)?,
                version: row.get(2)?,
                before: row.get(3)?,
                created_ms: row.get(4)?,
                changed_ms: row.get(5)?,
                due_ms: row.get(6)?,
                body: row.get(7)?,
            }))
        };
        go_on!(pieces.push(take(row).step("export a record")?));
    }
    let mut removed = connection
        .prepare("SELECT idx, kind, key, created_ms FROM removed_record WHERE grp = ?1 ORDER BY kind, key, created_ms")
        .step("prepare an export")?;
    let mut rows = removed.query([group.0]).step("export removed records")?;
    while let Some(row) = rows.next().step("export removed records")? {
        let take = |row: &SqlRow<'_>| {
            let (idx, kind, key, created_ms) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Row::RemovedRecord { idx, kind, key, created_ms })
        };
        go_on!(pieces.push(take(row).step("export a removed record")?));
    }
    Ok(ControlFlow::Continue(()))
}

fn rejections(
    connection: &Connection,
    group: GroupId,
    pieces: &mut Pieces<'_>,
) -> Result<ControlFlow<()>, CatalogError> {
    let mut rejections = connection
        .prepare(
            "SELECT study, series, instance, state, sop_class, bytes, rejected_ms, note, facts, blocks, content
             FROM rejection
             WHERE grp = ?1 ORDER BY study, series, instance",
        )
        .step("prepare an export")?;
    let mut rows = rejections.query([group.0]).step("export rejections")?;
    while let Some(row) = rows.next().step("export rejections")? {
        let take = |row: &SqlRow<'_>| {
            Ok(Row::Rejection(Rejection {
                study: row.get(0)?,
                series: row.get(1)?,
                instance: row.get(2)?,
                state: row.get(3)?,
                sop_class: row.get(4)?,
                bytes: row.get(5)?,
                rejected_ms: row.get(6)?,
                note: row.get(7)?,
                facts: row.get(8)?,
                blocks: row.get(9)?,
                content: row.get(10)?,
            }))
        };
        go_on!(pieces.push(take(row).step("export a rejection")?));
    }
    Ok(ControlFlow::Continue(()))
}
