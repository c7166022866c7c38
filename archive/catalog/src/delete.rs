//! Deletes: rows go, a tombstone stays, and a store that was acknowledged before cannot come back by a late copy of it.
//!
//! ```text
//!   Delete{target, grounds} ─► rows of the target go, counts and modalities follow      (one transaction with the position)
//!                              tombstone: what, how much, why, who, when                 (for ever)
//!                              deleted_store: digest and time of receipt of each content (for 65,536 entries)
//! ```
//!
//! - D-1 What was deleted is in no answer any more, on every node that has applied the entry; snapshots carry the tombstones.
//! - D-2 A copy of a store's own proposal that is committed behind the delete changes nothing: the gateway that proposed it
//!   twice was answered before. The same content sent anew, received at another time, is a new store and is kept.
//! - D-3 The bodies are named by no row from then on: compaction gives their space back, once the log needs them no more.

use crate::{
    InstanceHead, Outcome,
    apply::Work,
    command::{Grounds, Target},
    error::{CatalogError, Step},
    extra::{self, Count},
    levels::with_modalities,
    row::{self, ids_of},
    sabotage::{Sabotage, is},
};
use archive_model::{Uid, tags};
use raft_types::GroupId;
use rusqlite::{Connection, OptionalExtension, named_params, params};

/// For how many entries of its group a deleted content is remembered: see `ENDED_UPLOADS_ENTRIES`.
const DELETED_STORES_ENTRIES: u64 = 1 << 16;

/// A delete that took effect.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tombstone {
    /// The study, or whose series or instance it was.
    pub study: Uid,
    /// The series, unless the whole study was deleted.
    pub series: Option<Uid>,
    /// The instance, unless the whole series was deleted.
    pub instance: Option<Uid>,
    /// How many instances went.
    pub instances: u64,
    /// Bytes of their data sets, versions included.
    pub bytes: u64,
    /// Why, in the words of whoever ordered it.
    pub reason: String,
    /// Who ordered it: the address it came from.
    pub source: String,
    /// When it was ordered, by the clock of the node that took the order; informational.
    pub deleted_unix_ms: u64,
}

/// One instance that goes.
struct Doomed {
    id: i64,
    bytes: i64,
    versions: i64,
}

impl Work<'_> {
    pub(crate) fn delete(
        &mut self,
        group: GroupId,
        index: u64,
        target: &Target,
        grounds: &Grounds,
    ) -> Result<Outcome, CatalogError> {
        // What is hidden goes too: to delete a study is to keep nothing of it.
        let hidden = self.delete_hidden(group, index, target)?;
        let shown = self.take_out(group, target, Some(index))?;
        let (instances, bytes) = (hidden.0 + shown.0, hidden.1 + shown.1);
        if instances == 0 {
            return Ok(Outcome::NOTHING_DELETED);
        }
        self.bury(group, index, target, grounds, instances, bytes)?;
        Ok(Outcome::Deleted { instances: instances.unsigned_abs(), bytes: bytes.unsigned_abs() })
    }

    /// Takes the rows of the target out, with their versions, and counts; answers how many instances and bytes. With
    /// `deleted_by`, the index of the entry, their stores do not come back (D-2); without it they are kept elsewhere.
    pub(crate) fn take_out(
        &mut self,
        group: GroupId,
        target: &Target,
        deleted_by: Option<u64>,
    ) -> Result<(i64, i64), CatalogError> {
        let Some((study, patient)) = self.study_of(group, target)? else { return Ok((0, 0)) };
        let (mut instances, mut bytes) = (0, 0);
        for series in self.series_of(study, target)? {
            let doomed = self.doomed(series, target)?;
            for one in &doomed {
                bytes += one.bytes + self.remove(group, deleted_by, one)?;
            }
            let gone = doomed.len() as i64;
            instances += gone;
            let own_bytes: i64 = doomed.iter().map(|one| one.bytes).sum();
            self.run("UPDATE series SET n_instances = n_instances - ?2 WHERE id = ?1", &[&series, &gone])?;
            self.run(
                "UPDATE study SET n_instances = n_instances - ?2, bytes = bytes - ?3 WHERE id = ?1",
                &[&study, &gone, &own_bytes],
            )?;
            self.run("UPDATE patient SET n_instances = n_instances - ?2 WHERE id = ?1", &[&patient, &gone])?;
            if self.run("DELETE FROM series WHERE id = ?1 AND n_instances = 0", &[&series])? > 0 {
                self.run("UPDATE study SET n_series = n_series - 1 WHERE id = ?1", &[&study])?;
                self.run("UPDATE patient SET n_series = n_series - 1 WHERE id = ?1", &[&patient])?;
                self.totals.series -= 1;
            }
        }
        if instances == 0 {
            return Ok((0, 0));
        }
        self.recount_modalities(study)?;
        if self.run("DELETE FROM study WHERE id = ?1 AND n_series = 0", &[&study])? > 0 {
            self.totals.studies -= 1;
            self.run("UPDATE patient SET n_studies = n_studies - 1 WHERE id = ?1", &[&patient])?;
            if self.run("DELETE FROM patient WHERE id = ?1 AND n_studies = 0", &[&patient])? > 0 {
                self.totals.patients -= 1;
            }
        }
        self.totals.instances -= instances;
        self.totals.bytes -= bytes;
        Ok((instances, bytes))
    }

    pub(crate) fn run(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<usize, CatalogError> {
        self.transaction.prepare_cached(sql).step("prepare a delete")?.execute(values).step("delete")
    }

    /// Row and patient of the target's study.
    fn study_of(&self, group: GroupId, target: &Target) -> Result<Option<(i64, i64)>, CatalogError> {
        self.transaction
            .prepare_cached("SELECT id, patient FROM study WHERE uid = ?1 AND grp = ?2")
            .step("prepare a delete")?
            .query_row(params![target.study.as_str(), group.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .step("look a study up")
    }

    /// The series that the target touches, by UID.
    fn series_of(&self, study: i64, target: &Target) -> Result<Vec<i64>, CatalogError> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT id FROM series WHERE study = ?1 AND (?2 IS NULL OR uid = ?2) ORDER BY uid")
            .step("prepare a delete")?;
        let only = target.series.as_ref().map(Uid::as_str);
        let rows = statement.query_map(params![study, only], |row| row.get(0)).step("look for series")?;
        rows.collect::<rusqlite::Result<_>>().step("look for series")
    }

    fn doomed(&self, series: i64, target: &Target) -> Result<Vec<Doomed>, CatalogError> {
        let (first, behind) = ids_of(series);
        let mut statement = self
            .transaction
            .prepare_cached(
                "SELECT id, length, versions FROM instance WHERE id >= ?1 AND id < ?2 AND (?3 IS NULL OR uid = ?3)",
            )
            .step("prepare a delete")?;
        let only = target.instance.as_ref().map(Uid::as_str);
        let take = |row: &rusqlite::Row<'_>| Ok(Doomed { id: row.get(0)?, bytes: row.get(1)?, versions: row.get(2)? });
        let rows = statement.query_map(params![first, behind, only], take).step("look for instances")?;
        rows.collect::<rusqlite::Result<_>>().step("look for instances")
    }

    /// Removes one instance with its versions; answers the bytes of the versions.
    fn remove(&mut self, group: GroupId, deleted_by: Option<u64>, one: &Doomed) -> Result<i64, CatalogError> {
        let remember = |from: &str| {
            let Some(index) = deleted_by else { return Ok(0) };
            let sql = format!(
                "INSERT OR REPLACE INTO deleted_store (grp, digest, received_ms, idx)
                 SELECT ?1, digest, received_ms, ?2 FROM {from} = ?3"
            );
            self.run(&sql, &[&group.0, &(index as i64), &one.id])
        };
        remember("instance WHERE id")?;
        let mut version_bytes = 0;
        if one.versions > 0 {
            remember("version WHERE instance")?;
            version_bytes = self
                .transaction
                .prepare_cached("SELECT coalesce(sum(length), 0) FROM version WHERE instance = ?1")
                .step("prepare a delete")?
                .query_row([one.id], |row| row.get(0))
                .step("measure versions")?;
            self.run("DELETE FROM version WHERE instance = ?1", &[&one.id])?;
            self.totals.versions -= one.versions;
        }
        if !self.extras.is_empty() {
            let header = extra::header_of(self.transaction, one.id)?;
            extra::count(self.transaction, self.extras, one.id, &header, Count::Out)?;
        }
        self.run("DELETE FROM instance WHERE id = ?1", &[&one.id])?;
        Ok(version_bytes)
    }

    /// `ModalitiesInStudy` follows the series that are left.
    fn recount_modalities(&self, study: i64) -> Result<(), CatalogError> {
        let mut modalities = String::new();
        let mut statement =
            self.transaction.prepare_cached("SELECT attrs FROM series WHERE study = ?1").step("prepare modalities")?;
        let mut rows = statement.query([study]).step("read modalities")?;
        while let Some(row) = rows.next().step("read modalities")? {
            let attrs: Vec<u8> = row.get(0).step("read modalities")?;
            let attrs: row::Attrs = row::decode("the attributes of a series", &attrs)?;
            let own = attrs.iter().find(|(tag, _)| *tag == row::number_of(tags::MODALITY));
            modalities = with_modalities(&modalities, own.map_or(&[], |(_, values)| values));
        }
        self.run("UPDATE study SET modalities = ?2 WHERE id = ?1", &[&study, &modalities])?;
        Ok(())
    }

    fn bury(
        &self,
        group: GroupId,
        index: u64,
        target: &Target,
        grounds: &Grounds,
        instances: i64,
        bytes: i64,
    ) -> Result<(), CatalogError> {
        self.transaction
            .prepare_cached(
                "INSERT INTO tombstone (grp, idx, study, series, instance, n_instances, bytes, reason, source, deleted_ms)
                 VALUES (:grp, :idx, :study, :series, :instance, :n_instances, :bytes, :reason, :source, :deleted_ms)",
            )
            .step("prepare a tombstone")?
            .execute(named_params! {
                ":grp": group.0,
                ":idx": index as i64,
                ":study": target.study.as_str(),
                ":series": target.series.as_ref().map(Uid::as_str),
                ":instance": target.instance.as_ref().map(Uid::as_str),
                ":n_instances": instances,
                ":bytes": bytes,
                ":reason": grounds.reason,
                ":source": grounds.source,
                ":deleted_ms": grounds.deleted_unix_ms as i64,
            })
            .step("write a tombstone")?;
        self.forget_deleted_stores(group, index)
    }

    /// By the log's own count, so that every node forgets the same.
    pub(crate) fn forget_deleted_stores(&self, group: GroupId, index: u64) -> Result<(), CatalogError> {
        let oldest = index.saturating_sub(DELETED_STORES_ENTRIES) as i64;
        self.run("DELETE FROM deleted_store WHERE grp = ?1 AND idx < ?2", &[&group.0, &oldest])?;
        Ok(())
    }

    /// Whether this is a copy of a store whose instance was deleted meanwhile (D-2).
    pub(crate) fn was_deleted(&self, group: GroupId, head: &InstanceHead) -> Result<bool, CatalogError> {
        if is(self.planted, Sabotage::DeletedComesBack) {
            return Ok(false);
        }
        self.transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM deleted_store WHERE grp = ?1 AND digest = ?2 AND received_ms = ?3)",
            )
            .step("prepare a deleted store")?
            .query_row(params![group.0, head.digest, head.received_unix_ms as i64], |row| row.get(0))
            .step("look a deleted store up")
    }
}

/// The newest `limit` tombstones, of one study or of all.
pub(crate) fn tombstones(
    connection: &Connection,
    study: Option<&Uid>,
    limit: u32,
) -> Result<Vec<Tombstone>, CatalogError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT study, series, instance, n_instances, bytes, reason, source, deleted_ms FROM tombstone
             WHERE ?1 IS NULL OR study = ?1 ORDER BY deleted_ms DESC, grp, idx DESC LIMIT ?2",
        )
        .step("prepare tombstones")?;
    let mut rows = statement.query(params![study.map(Uid::as_str), limit]).step("read tombstones")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().step("read tombstones")? {
        let text = |at| row.get::<_, Option<String>>(at).step("read a tombstone");
        let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs).step("read a tombstone");
        found.push(Tombstone {
            study: row::uid(text(0)?.unwrap_or_default())?,
            series: text(1)?.map(row::uid).transpose()?,
            instance: text(2)?.map(row::uid).transpose()?,
            instances: number(3)?,
            bytes: number(4)?,
            reason: text(5)?.unwrap_or_default(),
            source: text(6)?.unwrap_or_default(),
            deleted_unix_ms: number(7)?,
        });
    }
    Ok(found)
}
