//! What of a study is available, and what is not any more: for those who are told (PS3.4 Annex R).

use crate::{
    Catalog,
    error::{CatalogError, Step},
    row,
};
use archive_model::Uid;
use rusqlite::params;

/// An instance of a study, and whether it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// Whether it answers; what does not was rejected.
    pub online: bool,
}

impl Catalog {
    /// The instances of a study by series and UID: those that answer, and those that a rejection note has hidden or deleted.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn availability(&self, study: &Uid) -> Result<Vec<Availability>, CatalogError> {
        let reader = self.pool.reader()?;
        let mut statement = reader
            .prepare_cached(
                "SELECT e.uid, i.sop_class, i.uid, 1 FROM study t JOIN series e ON e.study = t.id
                 JOIN instance i ON i.id >= e.id << 24 AND i.id < (e.id + 1) << 24 WHERE t.uid = ?1
                 UNION ALL
                 SELECT series, sop_class, instance, 0 FROM rejection
                 WHERE study = ?1 AND state IN (1, 2) AND sop_class <> '' ORDER BY 1, 3",
            )
            .step("prepare availability")?;
        let mut rows = statement.query(params![study.as_str()]).step("read availability")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().step("read availability")? {
            let uid = |at| row::uid(row.get::<_, String>(at).step("read availability")?);
            found.push(Availability {
                series: uid(0)?,
                sop_class: uid(1)?,
                instance: uid(2)?,
                online: row.get(3).step("read availability")?,
            });
        }
        Ok(found)
    }

    /// When the newest instance of a study that answers was received, by the clock of the node that took it; none when there is
    /// none.
    ///
    /// # Errors
    /// SQLite's.
    pub fn last_received_unix_ms(&self, study: &Uid) -> Result<Option<u64>, CatalogError> {
        let reader = self.pool.reader()?;
        let newest: Option<i64> = reader
            .prepare_cached(
                "SELECT max(i.received_ms) FROM study t JOIN series e ON e.study = t.id
                 JOIN instance i ON i.id >= e.id << 24 AND i.id < (e.id + 1) << 24 WHERE t.uid = ?1",
            )
            .step("prepare the newest instance")?
            .query_row([study.as_str()], |row| row.get(0))
            .step("look for the newest instance")?;
        Ok(newest.map(i64::unsigned_abs))
    }
}
