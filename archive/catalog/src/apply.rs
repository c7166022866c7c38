//! Applying committed entries: what the log says becomes rows, in one transaction for all groups of a batch.

use crate::{
    Admission, BlockPart, Command, InstanceHead, OtherContent, Outcome, RefusedWhy, UploadId,
    error::{CatalogError, Step},
    extra::{self, Count, Extra},
    levels::{Levels, with_modalities},
    record::Put,
    row::encode,
    sabotage::{Sabotage, is},
    schema::SERIES_SHIFT,
    versions::{Again, frame_count},
};
use archive_model::{
    CanonicalDigest, VR,
    matching::{comparable, normal_date, normal_time},
    tags,
    text::fold_person_name,
};
use bytes::Bytes;
use raft_types::{Applied, Committed, CommittedEntry, GroupId, LogPosition, Versioned};
use rusqlite::{Connection, OptionalExtension, Transaction, named_params, params};
use std::collections::BTreeMap;

/// For how many entries of its group an upload that ended is remembered. A block that is still on its way then was
/// proposed at most some ten seconds before (`propose_deadline`), and no group commits 6,000 entries a second.
const ENDED_UPLOADS_ENTRIES: u64 = 1 << 16;

/// Applies a batch; answers one encoded outcome for each entry.
pub(crate) fn apply(
    connection: &mut Connection,
    batch: &[Committed],
    planted: Option<Sabotage>,
) -> Result<Vec<Bytes>, CatalogError> {
    let transaction = connection.transaction().step("begin a batch")?;
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut progress: BTreeMap<GroupId, Applied> = BTreeMap::new();
    {
        let extras = extra::load(&transaction)?;
        let mut work = Work { transaction: &transaction, totals: Deltas::default(), extras: &extras, planted };
        for Committed { group, position, entry } in batch {
            let own = match progress.get_mut(group) {
                Some(own) => own,
                None => progress.entry(*group).or_insert(read_applied(&transaction, *group)?),
            };
            if own.position >= Some(*position) && !is(planted, Sabotage::AppliedTwice) {
                // Given again after all: it has taken effect, and its answer is not waited for any more.
                outcomes.push(Outcome::Nothing.encode());
                continue;
            }
            outcomes.push(match entry {
                CommittedEntry::Blank => Bytes::new(),
                CommittedEntry::Membership(record) => {
                    own.membership = Some((*position, record.clone()));
                    Bytes::new()
                }
                CommittedEntry::Command { head, body_len } => {
                    let command = Command::decode(head).map_err(|error| CatalogError::Damaged(error.to_string()))?;
                    work.command(*group, *position, *body_len, command)?.encode()
                }
            });
            own.position = Some(*position);
        }
        work.totals.write(&transaction)?;
    }
    for (group, own) in &progress {
        write_applied(&transaction, *group, own)?;
    }
    transaction.commit().step("commit a batch")?;
    Ok(outcomes)
}

/// What the whole archive gained or lost in a batch.
#[derive(Default)]
pub(crate) struct Deltas {
    pub(crate) patients: i64,
    pub(crate) studies: i64,
    pub(crate) series: i64,
    pub(crate) instances: i64,
    pub(crate) bytes: i64,
    pub(crate) versions: i64,
}

impl Deltas {
    fn write(&self, transaction: &Transaction<'_>) -> Result<(), CatalogError> {
        transaction
            .prepare_cached(
                "UPDATE totals SET patients = patients + ?1, studies = studies + ?2, series = series + ?3,
                 instances = instances + ?4, bytes = bytes + ?5, versions = versions + ?6 WHERE id = 0",
            )
            .step("prepare totals")?
            .execute(params![self.patients, self.studies, self.series, self.instances, self.bytes, self.versions])
            .step("count totals")?;
        Ok(())
    }
}

pub(crate) struct Work<'a> {
    pub(crate) transaction: &'a Transaction<'a>,
    pub(crate) totals: Deltas,
    /// The indexes that an operator has added.
    pub(crate) extras: &'a [Extra],
    pub(crate) planted: Option<Sabotage>,
}

/// A study's row and its patient's.
struct StudyId {
    id: i64,
    patient: i64,
}

impl Work<'_> {
    fn command(
        &mut self,
        group: GroupId,
        position: LogPosition,
        body_len: u64,
        command: Command,
    ) -> Result<Outcome, CatalogError> {
        match command {
            Command::PutSmall { head } => self.put_small(group, position.index, body_len, &head, OtherContent::Keep),
            Command::PutSmallUnder { head, other_content } => {
                self.put_small(group, position.index, body_len, &head, other_content)
            }
            Command::Block { upload, seq } => self.hold(group, upload, seq, position.index, body_len),
            Command::Commit { upload, head, blocks } => {
                self.commit(group, position.index, upload, &head, &blocks, OtherContent::Keep)
            }
            Command::CommitUnder { upload, head, blocks, other_content } => {
                self.commit(group, position.index, upload, &head, &blocks, other_content)
            }
            Command::Abort { uploads } => {
                for upload in uploads {
                    self.end_upload(group, upload, position.index)?;
                }
                Ok(Outcome::Aborted)
            }
            Command::Noop => Ok(Outcome::Nothing),
            Command::Delete { target, grounds } => self.delete(group, position.index, &target, &grounds),
            Command::PutRecord { name, expect, body, due_unix_ms, at_unix_ms } => {
                let put = Put { name: &name, expect, body: &body, due_unix_ms, at_unix_ms };
                self.put_record(group, position.index, &put)
            }
            Command::RemoveRecord { name, version } => self.remove_record(group, position.index, &name, version),
            Command::Reject { rejection, study, named } => {
                self.reject(group, position.index, &rejection, &study, &named)
            }
            Command::Restore { target } => self.restore(group, &target),
            Command::PutSmallCanonical { head, other_content, canonical } => {
                let head = InstanceHead { canonical: Some(canonical), ..head };
                self.put_small(group, position.index, body_len, &head, other_content)
            }
            Command::CommitCanonical { upload, head, blocks, other_content, canonical } => {
                let head = InstanceHead { canonical: Some(canonical), ..head };
                self.commit(group, position.index, upload, &head, &blocks, other_content)
            }
        }
    }

    fn put_small(
        &mut self,
        group: GroupId,
        index: u64,
        body_len: u64,
        head: &InstanceHead,
        other_content: OtherContent,
    ) -> Result<Outcome, CatalogError> {
        if head.length_bytes != body_len {
            return Ok(Outcome::Refused(RefusedWhy::LengthMismatch));
        }
        let length_bytes = u32::try_from(body_len).unwrap_or(u32::MAX);
        self.admit(group, head, &[BlockPart { index, length_bytes }], None, other_content)
    }

    fn commit(
        &mut self,
        group: GroupId,
        index: u64,
        upload: UploadId,
        head: &InstanceHead,
        blocks: &[BlockPart],
        other_content: OtherContent,
    ) -> Result<Outcome, CatalogError> {
        let length: u64 = blocks.iter().map(|block| u64::from(block.length_bytes)).sum();
        let outcome = if length == head.length_bytes {
            self.admit(group, head, blocks, Some(upload), other_content)?
        } else {
            Outcome::Refused(RefusedWhy::LengthMismatch)
        };
        self.end_upload(group, upload, index)?;
        Ok(outcome)
    }

    /// A block of an upload: the first one under a number counts, so that a retry is harmless.
    fn hold(
        &self,
        group: GroupId,
        upload: UploadId,
        seq: u32,
        index: u64,
        length: u64,
    ) -> Result<Outcome, CatalogError> {
        let held: Option<i64> = self
            .transaction
            .prepare_cached("SELECT idx FROM upload WHERE grp = ?1 AND upload = ?2 AND seq = ?3")
            .step("prepare a block")?
            .query_row(params![group.0, upload.0, seq], |row| row.get(0))
            .optional()
            .step("look for a block")?;
        if let Some(index) = held {
            return Ok(Outcome::Held { index: index as u64 });
        }
        // A copy of a block may be committed behind the end of its upload: nothing would ever name or forget its row.
        let ended = self
            .transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM ended_upload WHERE grp = ?1 AND upload = ?2)")
            .step("prepare an upload")?
            .query_row(params![group.0, upload.0], |row| row.get(0))
            .step("look for the end of an upload")?;
        if ended {
            return Ok(Outcome::Refused(RefusedWhy::BlockMissing));
        }
        self.transaction
            .prepare_cached("INSERT INTO upload (grp, upload, seq, idx, length) VALUES (?1, ?2, ?3, ?4, ?5)")
            .step("prepare a block")?
            .execute(params![group.0, upload.0, seq, index as i64, length as i64])
            .step("hold a block")?;
        Ok(Outcome::Held { index })
    }

    /// Forgets the blocks of an upload, and remembers for a while that it is over.
    fn end_upload(&self, group: GroupId, upload: UploadId, index: u64) -> Result<(), CatalogError> {
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), CatalogError> {
            self.transaction.prepare_cached(sql).step("prepare an upload")?.execute(values).step("end an upload")?;
            Ok(())
        };
        run("DELETE FROM upload WHERE grp = ?1 AND upload = ?2", &[&group.0, &upload.0])?;
        let known = index as i64;
        run(
            "INSERT OR IGNORE INTO ended_upload (grp, idx, upload) VALUES (?1, ?2, ?3)",
            &[&group.0, &known, &upload.0],
        )?;
        // By the log's own count, so that every node forgets the same.
        let oldest = index.saturating_sub(ENDED_UPLOADS_ENTRIES) as i64;
        run("DELETE FROM ended_upload WHERE grp = ?1 AND idx < ?2", &[&group.0, &oldest])
    }

    /// Whether all blocks of a commit are held under the numbers and indexes that it names.
    pub(crate) fn holds(&self, group: GroupId, upload: UploadId, blocks: &[BlockPart]) -> Result<bool, CatalogError> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT idx, length FROM upload WHERE grp = ?1 AND upload = ?2 ORDER BY seq")
            .step("prepare an upload")?;
        let rows = statement
            .query_map(params![group.0, upload.0], |row| {
                Ok(BlockPart { index: row.get::<_, i64>(0)? as u64, length_bytes: row.get(1)? })
            })
            .step("read an upload")?;
        let held = rows.collect::<rusqlite::Result<Vec<_>>>().step("read an upload")?;
        Ok(held == blocks)
    }

    /// An instance, unless a rejection note names it: then as that says.
    fn admit(
        &mut self,
        group: GroupId,
        head: &InstanceHead,
        blocks: &[BlockPart],
        upload: Option<UploadId>,
        other_content: OtherContent,
    ) -> Result<Outcome, CatalogError> {
        match self.rejected(group, head)? {
            None => self.admit_accepted(group, head, blocks, upload, other_content),
            Some(rejected) => self.admit_rejected(group, rejected, head, blocks, upload, other_content),
        }
    }

    /// An instance: new, the same again, or another content under a known UID.
    pub(crate) fn admit_accepted(
        &mut self,
        group: GroupId,
        head: &InstanceHead,
        blocks: &[BlockPart],
        upload: Option<UploadId>,
        other_content: OtherContent,
    ) -> Result<Outcome, CatalogError> {
        let attrs = Levels::of(head);
        if let Some(known) = self.known(head)?.filter(|_| !is(self.planted, Sabotage::NoDuplicateCheck)) {
            return self.admit_again(group, &known, Again { head, blocks, upload, other_content, attrs: &attrs });
        }
        if self.was_deleted(group, head)? {
            return Ok(Outcome::Refused(RefusedWhy::Deleted));
        }
        if let Some(upload) = upload
            && !self.holds(group, upload, blocks)?
        {
            return Ok(Outcome::Refused(RefusedWhy::BlockMissing));
        }
        if self.is_full(head)? {
            return Ok(Outcome::Refused(RefusedWhy::SeriesFull));
        }
        self.insert(group, head, blocks, &attrs)?;
        Ok(Outcome::Stored(Admission::New))
    }

    /// Inserts the row of a new instance, counted; answers its number.
    pub(crate) fn insert(
        &mut self,
        group: GroupId,
        head: &InstanceHead,
        blocks: &[BlockPart],
        attrs: &Levels,
    ) -> Result<i64, CatalogError> {
        let study = self.study(group, head, attrs)?;
        let (series, ordinal) = self.series(&study, head, attrs)?;
        let id = series << SERIES_SHIFT | ordinal;
        let frames = head.frames.as_deref();
        self.transaction
            .prepare_cached(
                "INSERT INTO instance (id, uid, sop_class, syntax, number, length, digest, blocks, frames, n_frames,
                 versions, received_ms, source, attrs, header, canonical)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?12, ?13, ?14, ?15)",
            )
            .step("prepare an instance")?
            .execute(params![
                id,
                head.instance.as_str(),
                head.sop_class.as_str(),
                head.transfer_syntax,
                attrs.number(tags::INSTANCE_NUMBER),
                head.length_bytes as i64,
                head.digest,
                encode(&blocks),
                frames,
                frame_count(head),
                head.received_unix_ms as i64,
                encode(&head.source),
                encode(&attrs.instance),
                &head.header[..],
                head.canonical.map(CanonicalDigest::to_bytes),
            ])
            .step("insert an instance")?;
        extra::count(self.transaction, self.extras, id, &head.header, Count::In)?;
        self.count(&study, series, head)?;
        Ok(id)
    }

    /// Counts and modalities, in the same transaction as the instance (K-3).
    fn count(&mut self, study: &StudyId, series: i64, head: &InstanceHead) -> Result<(), CatalogError> {
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), CatalogError> {
            self.transaction.prepare_cached(sql).step("prepare counts")?.execute(values).step("count")?;
            Ok(())
        };
        run("UPDATE series SET n_instances = n_instances + 1, n_ever = n_ever + 1 WHERE id = ?1", &[&series])?;
        let bytes = head.length_bytes as i64;
        run("UPDATE study SET n_instances = n_instances + 1, bytes = bytes + ?2 WHERE id = ?1", &[&study.id, &bytes])?;
        run("UPDATE patient SET n_instances = n_instances + 1 WHERE id = ?1", &[&study.patient])?;
        self.totals.instances += 1;
        self.totals.bytes += bytes;
        Ok(())
    }

    /// Whether the series of a new instance has no number left for it: asked before anything is written.
    pub(crate) fn is_full(&self, head: &InstanceHead) -> Result<bool, CatalogError> {
        let ever: Option<i64> = self
            .transaction
            .prepare_cached(
                "SELECT e.n_ever FROM series e JOIN study t ON t.id = e.study WHERE e.uid = ?1 AND t.uid = ?2",
            )
            .step("prepare a series")?
            .query_row(params![head.series.as_str(), head.study.as_str()], |row| row.get(0))
            .optional()
            .step("look a series up")?;
        Ok(ever.is_some_and(|ever| ever >= 1 << SERIES_SHIFT))
    }

    fn study(&mut self, group: GroupId, head: &InstanceHead, attrs: &Levels) -> Result<StudyId, CatalogError> {
        let found = self
            .transaction
            .prepare_cached("SELECT id, patient FROM study WHERE uid = ?1")
            .step("prepare a study")?
            .query_row([head.study.as_str()], |row| Ok(StudyId { id: row.get(0)?, patient: row.get(1)? }))
            .optional()
            .step("look a study up")?;
        if let Some(found) = found {
            return Ok(found);
        }
        let patient = self.patient(head, attrs)?;
        let name = fold_person_name(attrs.first(tags::PATIENT_NAME));
        let date = normal_date(attrs.first(tags::STUDY_DATE)).unwrap_or_default();
        let time = normal_time(attrs.first(tags::STUDY_TIME)).unwrap_or_default();
        self.transaction
            .prepare_cached(
                "INSERT INTO study (uid, grp, patient, pid, name_a, name_i, name_p, birth_date, date, time, several,
                 accession, study_id, modalities, n_series, n_instances, bytes, patient_attrs, attrs)
                 VALUES (:uid, :grp, :patient, :pid, :name_a, :name_i, :name_p, :birth_date, :date, :time, :several,
                 :accession, :study_id, '', 0, 0, 0, :patient_attrs, :attrs)",
            )
            .step("prepare a study")?
            .execute(named_params! {
                ":uid": head.study.as_str(),
                ":grp": group.0,
                ":patient": patient,
                ":pid": attrs.column(tags::PATIENT_ID, VR::LO),
                ":name_a": name.alphabetic,
                ":name_i": name.ideographic,
                ":name_p": name.phonetic,
                ":birth_date": normal_date(attrs.first(tags::PATIENT_BIRTH_DATE)).unwrap_or_default(),
                ":date": date,
                ":time": time,
                ":several": attrs.several(),
                ":accession": attrs.column(tags::ACCESSION_NUMBER, VR::SH),
                ":study_id": attrs.column(tags::STUDY_ID, VR::SH),
                ":patient_attrs": encode(&attrs.patient),
                ":attrs": encode(&attrs.study),
            })
            .step("insert a study")?;
        let id = self.transaction.last_insert_rowid();
        self.transaction
            .prepare_cached("UPDATE patient SET n_studies = n_studies + 1 WHERE id = ?1")
            .step("prepare a patient")?
            .execute([patient])
            .step("count a study")?;
        self.totals.studies += 1;
        Ok(StudyId { id, patient })
    }

    /// The patient of a new study. Without an ID nothing says that two studies are of one patient: then each has its own.
    fn patient(&mut self, head: &InstanceHead, attrs: &Levels) -> Result<i64, CatalogError> {
        let pid = comparable(VR::LO, attrs.first(tags::PATIENT_ID));
        let study = if pid.is_empty() { head.study.as_str() } else { "" };
        let issuer = comparable(VR::LO, attrs.first(tags::ISSUER_OF_PATIENT_ID));
        let found: Option<i64> = self
            .transaction
            .prepare_cached("SELECT id FROM patient WHERE pid = ?1 AND issuer = ?2 AND study = ?3")
            .step("prepare a patient")?
            .query_row(params![pid, issuer, study], |row| row.get(0))
            .optional()
            .step("look a patient up")?;
        if let Some(id) = found {
            return Ok(id);
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO patient (pid, issuer, study, n_studies, n_series, n_instances)
                 VALUES (?1, ?2, ?3, 0, 0, 0)",
            )
            .step("prepare a patient")?
            .execute(params![pid, issuer, study])
            .step("insert a patient")?;
        self.totals.patients += 1;
        Ok(self.transaction.last_insert_rowid())
    }

    /// The series and the number of the next instance in it.
    fn series(&mut self, study: &StudyId, head: &InstanceHead, attrs: &Levels) -> Result<(i64, i64), CatalogError> {
        let found: Option<(i64, i64)> = self
            .transaction
            .prepare_cached("SELECT id, n_ever FROM series WHERE study = ?1 AND uid = ?2")
            .step("prepare a series")?
            .query_row(params![study.id, head.series.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .step("look a series up")?;
        if let Some(found) = found {
            return Ok(found);
        }
        let modality = attrs.column(tags::MODALITY, VR::CS);
        self.transaction
            .prepare_cached(
                "INSERT INTO series (study, uid, modality, number, n_instances, n_ever, attrs)
                 VALUES (?1, ?2, ?3, ?4, 0, 0, ?5)",
            )
            .step("prepare a series")?
            .execute(params![
                study.id,
                head.series.as_str(),
                modality,
                attrs.number(tags::SERIES_NUMBER),
                encode(&attrs.series)
            ])
            .step("insert a series")?;
        let id = self.transaction.last_insert_rowid();
        let modalities: String = self
            .transaction
            .prepare_cached("SELECT modalities FROM study WHERE id = ?1")
            .step("prepare modalities")?
            .query_row([study.id], |row| row.get(0))
            .step("read modalities")?;
        let modalities = with_modalities(&modalities, attrs.values(tags::MODALITY));
        self.transaction
            .prepare_cached("UPDATE study SET n_series = n_series + 1, modalities = ?2 WHERE id = ?1")
            .step("prepare a study")?
            .execute(params![study.id, modalities])
            .step("count a series")?;
        self.transaction
            .prepare_cached("UPDATE patient SET n_series = n_series + 1 WHERE id = ?1")
            .step("prepare a patient")?
            .execute([study.patient])
            .step("count a series")?;
        self.totals.series += 1;
        Ok((id, 0))
    }
}

pub(crate) fn read_applied(connection: &Connection, group: GroupId) -> Result<Applied, CatalogError> {
    let found = connection
        .prepare_cached("SELECT term, idx, m_term, m_idx, membership FROM applied WHERE grp = ?1")
        .step("prepare a position")?
        .query_row([group.0], applied_of)
        .optional()
        .step("read a position")?;
    Ok(found.unwrap_or_default())
}

fn applied_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Applied> {
    let position = |term: i64, index: i64| LogPosition { term: term as u64, index: index as u64 };
    let membership: (Option<i64>, Option<i64>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?, row.get(4)?);
    Ok(Applied {
        position: Some(position(row.get(0)?, row.get(1)?)),
        membership: match membership {
            (Some(term), Some(index), Some(record)) => Some((position(term, index), record.into())),
            _ => None,
        },
    })
}

pub(crate) fn write_applied(connection: &Connection, group: GroupId, applied: &Applied) -> Result<(), CatalogError> {
    let Some(position) = applied.position else { return Ok(()) };
    let membership = applied.membership.as_ref();
    connection
        .prepare_cached("INSERT OR REPLACE INTO applied (grp, term, idx, m_term, m_idx, membership) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .step("prepare a position")?
        .execute(params![
            group.0,
            position.term as i64,
            position.index as i64,
            membership.map(|(at, _)| at.term as i64),
            membership.map(|(at, _)| at.index as i64),
            membership.map(|(_, record)| &record[..]),
        ])
        .step("write a position")?;
    Ok(())
}

/// The positions of all groups.
pub(crate) fn all_applied(connection: &Connection) -> Result<Vec<(GroupId, Applied)>, CatalogError> {
    let mut statement = connection
        .prepare("SELECT term, idx, m_term, m_idx, membership, grp FROM applied ORDER BY grp")
        .step("prepare positions")?;
    let rows = statement.query_map([], |row| Ok((GroupId(row.get(5)?), applied_of(row)?))).step("read positions")?;
    rows.collect::<rusqlite::Result<_>>().step("read positions")
}
