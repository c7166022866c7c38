//! The rows of a group from a snapshot, in the place of those that were here: one transaction, so that a reader sees the
//! old ones or the new ones and never both. While it runs the applies of other groups wait: about a second for 20,000
//! instances. Afterwards the group is marked incomplete, because the bodies are pulled later.

use crate::{
    BlockPart,
    apply::write_applied,
    error::{CatalogError, Step},
    export::{Buried, Content, Instance, Kept, Patient, Rejection, Row, Series, Study, Version, rows_of},
    extra, row,
};
use bytes::Bytes;
use raft_types::{Applied, BodyRef, GroupId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::io;

/// Puts the rows of `pieces` in the place of those of `group`.
pub(crate) fn import(
    connection: &mut Connection,
    group: GroupId,
    applied: &Applied,
    pieces: &mut dyn FnMut() -> io::Result<Option<Bytes>>,
) -> Result<(), CatalogError> {
    let transaction = connection.transaction().step("begin an import")?;
    clear(&transaction, group)?;
    extra::set_back(&transaction)?;
    let mut place = Place::default();
    while let Some(piece) = pieces()? {
        for row in rows_of(&piece).map_err(|error| CatalogError::Damaged(error.to_string()))? {
            place.put(&transaction, group, row)?;
        }
    }
    write_applied(&transaction, group, applied)?;
    run(&transaction, "INSERT OR IGNORE INTO incomplete (grp) VALUES (?1)", &[&group.0])?;
    count_totals(&transaction)?;
    transaction.commit().step("commit an import")
}

fn run(transaction: &Transaction<'_>, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<usize, CatalogError> {
    transaction.prepare_cached(sql).step("prepare an import")?.execute(values).step("import")
}

/// Removes every row of `group`.
fn clear(transaction: &Transaction<'_>, group: GroupId) -> Result<(), CatalogError> {
    let series: Vec<i64> = {
        let mut statement = transaction
            .prepare("SELECT e.id FROM series e JOIN study t ON t.id = e.study WHERE t.grp = ?1")
            .step("prepare an import")?;
        let rows = statement.query_map([group.0], |row| row.get(0)).step("look for old rows")?;
        rows.collect::<rusqlite::Result<_>>().step("look for old rows")?
    };
    extra::forget_group(transaction, group, &series)?;
    for series in series {
        let (first, behind) = row::ids_of(series);
        run(transaction, "DELETE FROM version WHERE instance >= ?1 AND instance < ?2", &[&first, &behind])?;
        run(transaction, "DELETE FROM instance WHERE id >= ?1 AND id < ?2", &[&first, &behind])?;
        run(transaction, "DELETE FROM series WHERE id = ?1", &[&series])?;
    }
    run(
        transaction,
        "UPDATE patient SET
             n_studies = n_studies - (SELECT count(*) FROM study t WHERE t.patient = patient.id AND t.grp = ?1),
             n_series = n_series - (SELECT total(t.n_series) FROM study t WHERE t.patient = patient.id AND t.grp = ?1),
             n_instances =
                 n_instances - (SELECT total(t.n_instances) FROM study t WHERE t.patient = patient.id AND t.grp = ?1)
         WHERE id IN (SELECT patient FROM study WHERE grp = ?1)",
        &[&group.0],
    )?;
    run(transaction, "DELETE FROM study WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM patient WHERE n_studies = 0", &[])?;
    run(transaction, "DELETE FROM upload WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM ended_upload WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM tombstone WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM deleted_store WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM record WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM removed_record WHERE grp = ?1", &[&group.0])?;
    run(transaction, "DELETE FROM rejection WHERE grp = ?1", &[&group.0])?;
    Ok(())
}

/// Where the next row belongs: under the ones before it.
#[derive(Default)]
struct Place {
    patient: i64,
    study: i64,
    series: i64,
    instance: i64,
    /// The number of the version that came last; none if the instance itself did.
    version: Option<i64>,
}

impl Place {
    fn put(&mut self, transaction: &Transaction<'_>, group: GroupId, row: Row) -> Result<(), CatalogError> {
        match row {
            Row::Patient(patient) => self.patient = patient_id(transaction, &patient)?,
            Row::Study(study) => {
                put_study(transaction, group, self.patient, &study)?;
                self.study = transaction.last_insert_rowid();
            }
            Row::Series(series) => {
                put_series(transaction, self.study, &series)?;
                self.series = transaction.last_insert_rowid();
            }
            Row::Instance(instance) => {
                self.instance = row::ids_of(self.series).0 + instance.ordinal;
                self.version = None;
                put_instance(transaction, self.instance, &instance)?;
            }
            Row::Version(version) => {
                self.version = Some(version.number);
                put_version(transaction, self.instance, &version)?;
            }
            Row::Canonical(canonical) => match self.version {
                None => {
                    let sql = "UPDATE instance SET canonical = ?2 WHERE id = ?1";
                    run(transaction, sql, &[&self.instance, &canonical])?;
                }
                Some(number) => {
                    let sql = "UPDATE version SET canonical = ?3 WHERE instance = ?1 AND number = ?2";
                    run(transaction, sql, &[&self.instance, &number, &canonical])?;
                }
            },
            Row::Upload(upload) => {
                let sql = "INSERT INTO upload (grp, upload, seq, idx, length) VALUES (?1, ?2, ?3, ?4, ?5)";
                run(transaction, sql, &[&group.0, &upload.upload, &upload.seq, &upload.idx, &upload.length])?;
            }
            Row::EndedUpload { idx, upload } => {
                let sql = "INSERT INTO ended_upload (grp, idx, upload) VALUES (?1, ?2, ?3)";
                run(transaction, sql, &[&group.0, &idx, &upload])?;
            }
            Row::Tombstone(buried) => put_tombstone(transaction, group, &buried)?,
            Row::DeletedStore { idx, digest, received_ms } => {
                let sql = "INSERT INTO deleted_store (grp, idx, digest, received_ms) VALUES (?1, ?2, ?3, ?4)";
                run(transaction, sql, &[&group.0, &idx, &digest, &received_ms])?;
            }
            Row::Record(kept) => put_record(transaction, group, &kept)?,
            Row::RemovedRecord { idx, kind, key, created_ms } => {
                let sql = "INSERT INTO removed_record (grp, idx, kind, key, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
                run(transaction, sql, &[&group.0, &idx, &kind, &key, &created_ms])?;
            }
            Row::Rejection(rejection) => put_rejection(transaction, group, &rejection)?,
        }
        Ok(())
    }
}

fn patient_id(transaction: &Transaction<'_>, patient: &Patient) -> Result<i64, CatalogError> {
    let Patient { pid, issuer, study } = patient;
    let found = transaction
        .prepare_cached("SELECT id FROM patient WHERE pid = ?1 AND issuer = ?2 AND study = ?3")
        .step("prepare an import")?
        .query_row(params![pid, issuer, study], |row| row.get(0))
        .optional()
        .step("look a patient up")?;
    if let Some(id) = found {
        return Ok(id);
    }
    let sql = "INSERT INTO patient (pid, issuer, study, n_studies, n_series, n_instances) VALUES (?1, ?2, ?3, 0, 0, 0)";
    run(transaction, sql, &[pid, issuer, study])?;
    Ok(transaction.last_insert_rowid())
}

fn put_study(transaction: &Transaction<'_>, group: GroupId, patient: i64, study: &Study) -> Result<(), CatalogError> {
    run(
        transaction,
        "INSERT INTO study (uid, grp, patient, pid, name_a, name_i, name_p, birth_date, date, time, several, accession,
         study_id, modalities, n_series, n_instances, bytes, patient_attrs, attrs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        params![
            study.uid,
            group.0,
            patient,
            study.pid,
            study.name_a,
            study.name_i,
            study.name_p,
            study.birth_date,
            study.date,
            study.time,
            study.several,
            study.accession,
            study.study_id,
            study.modalities,
            study.n_series,
            study.n_instances,
            study.bytes,
            study.patient_attrs,
            study.attrs,
        ],
    )?;
    let id = transaction.last_insert_rowid();
    transaction
        .prepare_cached(
            "UPDATE patient SET n_studies = n_studies + 1, n_series = n_series + ?2, n_instances = n_instances + ?3
             WHERE id = ?1",
        )
        .step("prepare an import")?
        .execute(params![patient, study.n_series, study.n_instances])
        .step("count a study")?;
    debug_assert_eq!(id, transaction.last_insert_rowid(), "an update inserts nothing");
    Ok(())
}

fn put_series(transaction: &Transaction<'_>, study: i64, series: &Series) -> Result<(), CatalogError> {
    run(
        transaction,
        "INSERT INTO series (study, uid, modality, number, n_instances, n_ever, attrs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![study, series.uid, series.modality, series.number, series.n_instances, series.n_ever, series.attrs],
    )?;
    Ok(())
}

fn put_instance(transaction: &Transaction<'_>, id: i64, instance: &Instance) -> Result<(), CatalogError> {
    let Content { sop_class, syntax, length, digest, blocks, frames, received_ms, source, header, canonical } =
        &instance.content;
    run(
        transaction,
        "INSERT INTO instance (id, uid, sop_class, syntax, number, length, digest, blocks, frames, n_frames, versions,
         received_ms, source, attrs, header, canonical)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            id,
            instance.uid,
            sop_class,
            syntax,
            instance.number,
            length,
            digest,
            blocks,
            frames,
            instance.n_frames,
            instance.versions,
            received_ms,
            source,
            instance.attrs,
            header,
            canonical
        ],
    )?;
    Ok(())
}

pub(crate) fn put_version(transaction: &Transaction<'_>, instance: i64, version: &Version) -> Result<(), CatalogError> {
    let Content { sop_class, syntax, length, digest, blocks, frames, received_ms, source, header, canonical } =
        &version.content;
    run(
        transaction,
        "INSERT INTO version (instance, number, sop_class, syntax, length, digest, blocks, frames, received_ms, source,
         header, canonical) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            instance,
            version.number,
            sop_class,
            syntax,
            length,
            digest,
            blocks,
            frames,
            received_ms,
            source,
            header,
            canonical
        ],
    )?;
    Ok(())
}

fn put_tombstone(transaction: &Transaction<'_>, group: GroupId, buried: &Buried) -> Result<(), CatalogError> {
    let Buried { idx, study, series, instance, n_instances, bytes, reason, source, deleted_ms } = buried;
    run(
        transaction,
        "INSERT INTO tombstone (grp, idx, study, series, instance, n_instances, bytes, reason, source, deleted_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![group.0, idx, study, series, instance, n_instances, bytes, reason, source, deleted_ms],
    )?;
    Ok(())
}

fn put_record(transaction: &Transaction<'_>, group: GroupId, kept: &Kept) -> Result<(), CatalogError> {
    let Kept { kind, key, version, before, created_ms, changed_ms, due_ms, body } = kept;
    run(
        transaction,
        "INSERT INTO record (grp, kind, key, version, before, created_ms, changed_ms, due_ms, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![group.0, kind, key, version, before, created_ms, changed_ms, due_ms, body],
    )?;
    Ok(())
}

fn put_rejection(transaction: &Transaction<'_>, group: GroupId, rejection: &Rejection) -> Result<(), CatalogError> {
    let Rejection { study, series, instance, state, sop_class, bytes, rejected_ms, note, facts, blocks, content } =
        rejection;
    run(
        transaction,
        "INSERT INTO rejection (grp, study, series, instance, state, sop_class, bytes, rejected_ms, note, facts, blocks, content)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![group.0, study, series, instance, state, sop_class, bytes, rejected_ms, note, facts, blocks, content],
    )?;
    Ok(())
}

/// Counts the whole archive anew.
fn count_totals(transaction: &Transaction<'_>) -> Result<(), CatalogError> {
    run(
        transaction,
        "UPDATE totals SET
             patients = (SELECT count(*) FROM patient), studies = (SELECT count(*) FROM study),
             series = (SELECT count(*) FROM series), instances = (SELECT coalesce(sum(n_instances), 0) FROM study),
             versions = (SELECT count(*) FROM version),
             bytes = (SELECT coalesce(sum(bytes), 0) FROM study) + (SELECT coalesce(sum(length), 0) FROM version)
         WHERE id = 0",
        &[],
    )?;
    Ok(())
}

/// The bodies that rows of `group` name, ascending, each once.
pub(crate) fn bodies(connection: &Connection, group: GroupId) -> Result<Vec<BodyRef>, CatalogError> {
    // One moment for all of it: between two, an upload may become an instance, and its bodies would be named by neither.
    let _moment = connection.unchecked_transaction().step("begin to look for bodies")?;
    let mut found = Vec::new();
    for sql in [
        "SELECT i.blocks FROM study t JOIN series e ON e.study = t.id
         JOIN instance i ON i.id >= e.id << 24 AND i.id < (e.id + 1) << 24 WHERE t.grp = ?1",
        "SELECT v.blocks FROM study t JOIN series e ON e.study = t.id
         JOIN version v ON v.instance >= e.id << 24 AND v.instance < (e.id + 1) << 24 WHERE t.grp = ?1",
        "SELECT blocks FROM rejection WHERE grp = ?1 AND content IS NOT NULL",
    ] {
        let mut statement = connection.prepare_cached(sql).step("prepare bodies")?;
        let mut rows = statement.query([group.0]).step("look for bodies")?;
        while let Some(row) = rows.next().step("look for bodies")? {
            let blocks: Vec<u8> = row.get(0).step("look for bodies")?;
            let blocks: Vec<BlockPart> = row::decode("the blocks of an instance", &blocks)?;
            found.extend(blocks.iter().map(|part| BodyRef { index: part.index, length_bytes: part.length_bytes }));
        }
    }
    let mut statement =
        connection.prepare_cached("SELECT idx, length FROM upload WHERE grp = ?1").step("prepare bodies")?;
    let held = |row: &rusqlite::Row<'_>| {
        Ok(BodyRef { index: row.get::<_, i64>(0)?.cast_unsigned(), length_bytes: row.get(1)? })
    };
    let rows = statement.query_map([group.0], held).step("look for bodies")?;
    found.extend(rows.collect::<rusqlite::Result<Vec<_>>>().step("look for bodies")?);
    found.retain(|body| body.length_bytes > 0);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
