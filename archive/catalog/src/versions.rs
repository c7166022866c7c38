//! Other contents under a known UID: told apart by digest and canonical digest, kept, rejected or put in the first one's place, and listed.
//!
//! ```text
//!   instance ── what the UID answers: content number 0          version ── 1, 2, …: each other content that is kept
//!
//!   same digest      ─► Same
//!   same canonical   ─► Alike: the bytes that came first stay
//!   other content    Keep     ─► version n + 1
//!                    Reject   ─► refused; its bodies are named by no row
//!                    Replace  ─► what the UID answered becomes version n + 1, the new content takes its place
//! ```
//!
//! - V-1 A content that is known, as what the UID answers or as a version, is `Same` under every policy and changes nothing:
//!   a late copy of an older store must never undo a newer one.
//! - V-2 No policy removes a content that was acknowledged: versions are only added, and go only with a delete.
//! - V-3 A version keeps its number. Bytes of versions count in the totals and not in the study, before and after a replace.
//! - V-5 A content that differs from a known one in nothing but padding (`CanonicalDigest`) is no other content, under every
//!   policy. What was stored before there were canonical digests has none, nor has what the scanner had to tolerate: such are
//!   told apart by their bytes, and both are kept. A delete remembers the stores that it undoes by digest and time (D-2), not
//!   those that were answered as the same or alike: a late second copy of one of these, after the delete, stores it anew.
//! - V-4 Who has read a row finds frames and header of that very content, also when it was replaced meanwhile: they are
//!   looked up by digest.

use crate::{
    Admission, BlockPart, Catalog, InstanceHead, InstanceRow, OtherContent, Outcome, RefusedWhy, Source, UploadId,
    apply::Work,
    error::{CatalogError, Step},
    extra::{self, Count},
    levels::Levels,
    row::{decode, digest, encode, uid},
    sabotage::{Sabotage, is},
};
use archive_model::{CanonicalDigest, FrameMap, Uid, tags};
use raft_types::GroupId;
use rusqlite::{OptionalExtension, params};

/// The row of a UID that is known.
pub(crate) struct Known {
    id: i64,
    digest: Vec<u8>,
    length_bytes: i64,
    versions: u32,
}

/// An instance that came under a known UID.
pub(crate) struct Again<'a> {
    pub(crate) head: &'a InstanceHead,
    pub(crate) blocks: &'a [BlockPart],
    pub(crate) upload: Option<UploadId>,
    pub(crate) other_content: OtherContent,
    pub(crate) attrs: &'a Levels,
}

/// A content that is kept beside the one that its UID answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The instance with this content: what it is, and where its bytes lie.
    pub row: InstanceRow,
    /// When it was received; informational.
    pub received_unix_ms: u64,
    /// Who sent it.
    pub source: Source,
}

/// Frames of an instance. A frame map that cannot be read serves no frames; the instance is kept all the same.
pub(crate) fn frame_count(head: &InstanceHead) -> u32 {
    frames_in(head.frames.as_deref())
}

fn frames_in(map: Option<&[u8]>) -> u32 {
    map.and_then(|map| FrameMap::decode(map).ok()).map_or(0, |map| map.frames())
}

/// The instance of these UIDs.
pub(crate) const KNOWN: &str =
    "SELECT i.id, i.digest, i.length, i.versions FROM instance i JOIN series e ON e.id = i.id >> 24
     JOIN study t ON t.id = e.study WHERE i.uid = ?1 AND e.uid = ?2 AND t.uid = ?3";

impl Work<'_> {
    pub(crate) fn known(&self, head: &InstanceHead) -> Result<Option<Known>, CatalogError> {
        self.transaction
            .prepare_cached(KNOWN)
            .step("prepare a look-up")?
            .query_row(params![head.instance.as_str(), head.series.as_str(), head.study.as_str()], |row| {
                Ok(Known { id: row.get(0)?, digest: row.get(1)?, length_bytes: row.get(2)?, versions: row.get(3)? })
            })
            .optional()
            .step("look an instance up")
    }

    pub(crate) fn admit_again(
        &mut self,
        group: GroupId,
        known: &Known,
        again: Again<'_>,
    ) -> Result<Outcome, CatalogError> {
        let Again { head, blocks, upload, other_content, .. } = again;
        if digest(&known.digest)? == head.digest {
            return Ok(Outcome::Stored(Admission::Same));
        }
        let kept: Option<u32> = self
            .transaction
            .prepare_cached("SELECT number FROM version WHERE instance = ?1 AND digest = ?2")
            .step("prepare a version")?
            .query_row(params![known.id, head.digest], |row| row.get(0))
            .optional()
            .step("look a version up")?;
        if kept.is_some() {
            return Ok(Outcome::Stored(Admission::Same));
        }
        if self.is_alike(known, head)? {
            return Ok(Outcome::Stored(Admission::Alike));
        }
        if self.was_deleted(group, head)? {
            return Ok(Outcome::Refused(RefusedWhy::Deleted));
        }
        if other_content == OtherContent::Reject {
            return Ok(Outcome::Refused(RefusedWhy::OtherContent));
        }
        if let Some(upload) = upload
            && !self.holds(group, upload, blocks)?
        {
            return Ok(Outcome::Refused(RefusedWhy::BlockMissing));
        }
        let number = known.versions + 1;
        if is(self.planted, Sabotage::VersionReplaces) {
            let replace = "UPDATE instance SET digest = ?2 WHERE id = ?1";
            self.transaction.execute(replace, params![known.id, head.digest]).step("replace")?;
            return Ok(Outcome::Stored(Admission::Version { number }));
        }
        let admission = if other_content == OtherContent::Replace {
            self.replace(known, number, &again)?;
            Admission::Replaced { number }
        } else {
            self.keep_beside(known, number, head, blocks)?;
            Admission::Version { number }
        };
        self.totals.versions += 1;
        self.totals.bytes += head.length_bytes as i64;
        Ok(Outcome::Stored(admission))
    }

    /// V-5.
    fn is_alike(&self, known: &Known, head: &InstanceHead) -> Result<bool, CatalogError> {
        let Some(canonical) = head.canonical else { return Ok(false) };
        if is(self.planted, Sabotage::PaddingIsContent) {
            return Ok(false);
        }
        self.transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM instance WHERE id = ?1 AND canonical = ?2
                 UNION ALL SELECT 1 FROM version WHERE instance = ?1 AND canonical = ?2)",
            )
            .step("prepare a comparison")?
            .query_row(params![known.id, canonical.to_bytes()], |row| row.get(0))
            .step("compare contents")
    }

    fn keep_beside(
        &self,
        known: &Known,
        number: u32,
        head: &InstanceHead,
        blocks: &[BlockPart],
    ) -> Result<(), CatalogError> {
        self.transaction
            .prepare_cached(
                "INSERT INTO version (instance, number, sop_class, syntax, length, digest, blocks, frames, received_ms,
                 source, header, canonical) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )
            .step("prepare a version")?
            .execute(params![
                known.id,
                number,
                head.sop_class.as_str(),
                head.transfer_syntax,
                head.length_bytes as i64,
                head.digest,
                encode(&blocks),
                head.frames.as_deref(),
                head.received_unix_ms as i64,
                encode(&head.source),
                &head.header[..],
                head.canonical.map(CanonicalDigest::to_bytes),
            ])
            .step("insert a version")?;
        self.transaction
            .prepare_cached("UPDATE instance SET versions = ?2 WHERE id = ?1")
            .step("prepare a version")?
            .execute(params![known.id, number])
            .step("count a version")?;
        Ok(())
    }

    /// What the UID answers becomes version `number`, and the new content takes its place.
    fn replace(&self, known: &Known, number: u32, again: &Again<'_>) -> Result<(), CatalogError> {
        let Again { head, blocks, attrs, .. } = again;
        if !self.extras.is_empty() {
            let header = extra::header_of(self.transaction, known.id)?;
            extra::count(self.transaction, self.extras, known.id, &header, Count::Out)?;
            extra::count(self.transaction, self.extras, known.id, &head.header, Count::In)?;
        }
        if !is(self.planted, Sabotage::ReplacedIsLost) {
            self.transaction
                .prepare_cached(
                    "INSERT INTO version (instance, number, sop_class, syntax, length, digest, blocks, frames, received_ms,
                     source, header, canonical) SELECT id, ?2, sop_class, syntax, length, digest, blocks, frames, received_ms,
                     source, header, canonical FROM instance WHERE id = ?1",
                )
                .step("prepare a version")?
                .execute(params![known.id, number])
                .step("set a content aside")?;
        }
        self.transaction
            .prepare_cached(
                "UPDATE instance SET sop_class = ?2, syntax = ?3, number = ?4, length = ?5, digest = ?6, blocks = ?7,
                 frames = ?8, n_frames = ?9, versions = ?10, received_ms = ?11, source = ?12, attrs = ?13, header = ?14,
                 canonical = ?15 WHERE id = ?1",
            )
            .step("prepare an instance")?
            .execute(params![
                known.id,
                head.sop_class.as_str(),
                head.transfer_syntax,
                attrs.number(tags::INSTANCE_NUMBER),
                head.length_bytes as i64,
                head.digest,
                encode(blocks),
                head.frames.as_deref(),
                frame_count(head),
                number,
                head.received_unix_ms as i64,
                encode(&head.source),
                encode(&attrs.instance),
                &head.header[..],
                head.canonical.map(CanonicalDigest::to_bytes),
            ])
            .step("replace a content")?;
        // A study counts what its UIDs answer.
        self.transaction
            .prepare_cached(
                "UPDATE study SET bytes = bytes + ?2 WHERE id = (SELECT study FROM series WHERE id = ?1 >> 24)",
            )
            .step("prepare counts")?
            .execute(params![known.id, head.length_bytes as i64 - known.length_bytes])
            .step("count bytes")?;
        Ok(())
    }
}

impl Catalog {
    /// Who sent the very content of `row`; `None` when it is gone.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn source(&self, row: &InstanceRow) -> Result<Option<Source>, CatalogError> {
        let source: Option<Vec<u8>> = self
            .pool
            .reader()?
            .prepare_cached(
                "SELECT source FROM instance WHERE id = ?1 AND digest = ?2
                 UNION ALL SELECT source FROM version WHERE instance = ?1 AND digest = ?2 LIMIT 1",
            )
            .step("prepare a source")?
            .query_row(params![row.id, row.digest], |row| row.get(0))
            .optional()
            .step("read a source")?;
        source.map(|source| decode("the source of an instance", &source)).transpose()
    }

    /// The contents of a study that are kept beside those that its UIDs answer: by series, instance and number, at most
    /// `limit` of them; with `only` that number of one instance.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn versions(&self, study: &Uid, only: Option<(&Uid, u32)>, limit: u32) -> Result<Vec<Version>, CatalogError> {
        let reader = self.pool.reader()?;
        let mut statement = reader
            .prepare_cached(
                "SELECT i.id, e.uid, i.uid, v.sop_class, v.syntax, v.length, v.digest, t.grp, v.blocks, e.number, i.number,
                 v.frames, v.number, i.versions, v.received_ms, v.source
                 FROM study t JOIN series e ON e.study = t.id
                 JOIN instance i ON i.id >= e.id << 24 AND i.id < (e.id + 1) << 24 AND i.versions > 0
                 JOIN version v ON v.instance = i.id
                 WHERE t.uid = ?1 AND (?3 IS NULL OR (i.uid = ?3 AND v.number = ?4)) ORDER BY e.uid, i.uid, v.number LIMIT ?2",
            )
            .step("prepare versions")?;
        let (instance, number) = only.unzip();
        let values = params![study.as_str(), limit, instance.map(Uid::as_str), number];
        let mut rows = statement.query(values).step("read versions")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().step("read versions")? {
            let text = |at| row.get::<_, String>(at).step("read a version");
            let blob = |at| row.get::<_, Vec<u8>>(at).step("read a version");
            let frames: Option<Vec<u8>> = row.get(11).step("read a version")?;
            found.push(Version {
                row: InstanceRow {
                    id: row.get(0).step("read a version")?,
                    study: study.clone(),
                    series: uid(text(1)?)?,
                    instance: uid(text(2)?)?,
                    sop_class: uid(text(3)?)?,
                    transfer_syntax: text(4)?,
                    length_bytes: row.get::<_, i64>(5).step("read a version")?.unsigned_abs(),
                    digest: digest(&blob(6)?)?,
                    group: GroupId(row.get(7).step("read a version")?),
                    blocks: decode("the blocks of a version", &blob(8)?)?,
                    series_number: row.get(9).step("read a version")?,
                    number: row.get(10).step("read a version")?,
                    frame_count: frames_in(frames.as_deref()),
                    version: row.get(12).step("read a version")?,
                    versions: row.get(13).step("read a version")?,
                },
                received_unix_ms: row.get::<_, i64>(14).step("read a version")?.unsigned_abs(),
                source: decode("the source of a version", &blob(15)?)?,
            });
        }
        Ok(found)
    }
}
