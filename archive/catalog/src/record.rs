//! Records: work that lives in the log. A few bytes under a kind and a key, changed by compare-and-set, the same on every
//! node, in snapshots and backups; whoever leads the record's group works on it, and when that node dies, its peer goes on.
//!
//! ```text
//!   PutRecord{expect: Absent}      ─►  (kind, key): version = index of the entry, body, due         Recorded{version}
//!   PutRecord{expect: Version(v)}  ─►  the same in its place, if v is what is there                 Conflict{current}
//!   RemoveRecord{version: v}       ─►  gone, if v is what is there                                  RecordRemoved
//! ```
//!
//! - R-1 A version is the index of the entry that wrote it: it grows, and names one content for ever, also across a removal.
//! - R-2 Of two writers that expect the same version, one wins; the other is told what is there.
//! - R-3 A copy of a proposal that is committed twice is answered as the first, if its content is still what is there; and
//!   a late copy of a record's first put does not bring it back when it was removed meanwhile: that is remembered for
//!   65,536 entries of the group.
//! - R-4 What is too large is refused, as an outcome: an entry in the log never stops a node.

use crate::{
    Catalog, Expect, Outcome, RecordName, RefusedWhy,
    apply::Work,
    error::{CatalogError, Step},
    sabotage::{Sabotage, is},
};
use bytes::Bytes;
use raft_types::GroupId;
use rusqlite::{OptionalExtension, Row, named_params, params};

/// Bytes of a record's body, at most.
const BODY_BYTES_MAX: usize = 1 << 20;
/// For how many entries of its group a removed record is remembered: see `ENDED_UPLOADS_ENTRIES`.
const REMOVED_ENTRIES: u64 = 1 << 16;
/// Records that one call answers, at most.
const PAGE_MAX: u32 = 1000;
/// Bytes of bodies after which a page is complete.
const PAGE_BYTES: usize = crate::retrieve::PAGE_BYTES;

/// A record as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is known by.
    pub name: RecordName,
    /// The group that it lives in.
    pub group: GroupId,
    /// Its version.
    pub version: u64,
    /// When it was put first, by the clock of the node that did.
    pub created_unix_ms: u64,
    /// When it was put last.
    pub changed_unix_ms: u64,
    /// When work on it is due.
    pub due_unix_ms: Option<u64>,
    /// Its content.
    pub body: Bytes,
}

/// A record on which work is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The group that it lives in.
    pub group: GroupId,
    /// Its key.
    pub key: String,
}

/// A put as `apply` sees it.
pub(crate) struct Put<'a> {
    pub(crate) name: &'a RecordName,
    pub(crate) expect: Expect,
    pub(crate) body: &'a Bytes,
    pub(crate) due_unix_ms: Option<u64>,
    pub(crate) at_unix_ms: u64,
}

/// The record that is there.
struct Held {
    version: u64,
    /// The version that it took the place of; 0 for none.
    before: u64,
    created_ms: i64,
    changed_ms: i64,
    body: Vec<u8>,
}

/// The version before the first. No command of a data group has index 0: the group's membership comes first.
const NONE_BEFORE: u64 = 0;

impl Work<'_> {
    pub(crate) fn put_record(&self, group: GroupId, index: u64, put: &Put<'_>) -> Result<Outcome, CatalogError> {
        if !put.name.fits() || put.body.len() > BODY_BYTES_MAX {
            return Ok(Outcome::Refused(RefusedWhy::RecordTooLarge));
        }
        let held = self.held_record(group, put.name)?;
        let before = match put.expect {
            Expect::Absent => NONE_BEFORE,
            Expect::Version(version) => version,
        };
        let at_ms = put.at_unix_ms.cast_signed();
        let created_ms = match (&held, put.expect) {
            (None, Expect::Absent) if self.was_removed(group, put.name, at_ms)? => {
                return Ok(Outcome::Conflict { current: None });
            }
            (None, Expect::Absent) => at_ms,
            (Some(held), Expect::Version(version)) if version == held.version => held.created_ms,
            (Some(held), _) if is(self.planted, Sabotage::ExpectIgnored) => held.created_ms,
            // This very proposal, committed twice.
            (Some(held), _) if held.before == before && held.changed_ms == at_ms && held.body == put.body[..] => {
                return Ok(Outcome::Recorded { version: held.version });
            }
            (held, _) => return Ok(Outcome::Conflict { current: held.as_ref().map(|held| held.version) }),
        };
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO record (grp, kind, key, version, before, created_ms, changed_ms, due_ms, body)
                 VALUES (:grp, :kind, :key, :version, :before, :created_ms, :changed_ms, :due_ms, :body)",
            )
            .step("prepare a record")?
            .execute(named_params! {
                ":grp": group.0,
                ":kind": put.name.kind,
                ":key": put.name.key,
                ":version": index.cast_signed(),
                ":before": before.cast_signed(),
                ":created_ms": created_ms,
                ":changed_ms": at_ms,
                ":due_ms": put.due_unix_ms.map(u64::cast_signed),
                ":body": &put.body[..],
            })
            .step("write a record")?;
        Ok(Outcome::Recorded { version: index })
    }

    pub(crate) fn remove_record(
        &self,
        group: GroupId,
        index: u64,
        name: &RecordName,
        version: u64,
    ) -> Result<Outcome, CatalogError> {
        let Some(held) = self.held_record(group, name)? else { return Ok(Outcome::Conflict { current: None }) };
        if held.version != version {
            return Ok(Outcome::Conflict { current: Some(held.version) });
        }
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), CatalogError> {
            self.transaction.prepare_cached(sql).step("prepare a record")?.execute(values).step("remove a record")?;
            Ok(())
        };
        run("DELETE FROM record WHERE grp = ?1 AND kind = ?2 AND key = ?3", &[&group.0, &name.kind, &name.key])?;
        run(
            "INSERT OR REPLACE INTO removed_record (grp, kind, key, created_ms, idx) VALUES (?1, ?2, ?3, ?4, ?5)",
            &[&group.0, &name.kind, &name.key, &held.created_ms, &index.cast_signed()],
        )?;
        // By the log's own count, so that every node forgets the same.
        let oldest = index.saturating_sub(REMOVED_ENTRIES).cast_signed();
        run("DELETE FROM removed_record WHERE grp = ?1 AND idx < ?2", &[&group.0, &oldest])?;
        Ok(Outcome::RecordRemoved)
    }

    fn held_record(&self, group: GroupId, name: &RecordName) -> Result<Option<Held>, CatalogError> {
        self.transaction
            .prepare_cached(
                "SELECT version, before, created_ms, changed_ms, body FROM record
                 WHERE grp = ?1 AND kind = ?2 AND key = ?3",
            )
            .step("prepare a record")?
            .query_row(params![group.0, name.kind, name.key], |row| {
                Ok(Held {
                    version: row.get::<_, i64>(0)?.cast_unsigned(),
                    before: row.get::<_, i64>(1)?.cast_unsigned(),
                    created_ms: row.get(2)?,
                    changed_ms: row.get(3)?,
                    body: row.get(4)?,
                })
            })
            .optional()
            .step("look a record up")
    }

    /// Whether a record of that name that was put first at `created_ms` was removed of late (R-3).
    fn was_removed(&self, group: GroupId, name: &RecordName, created_ms: i64) -> Result<bool, CatalogError> {
        if is(self.planted, Sabotage::RemovedRecordComesBack) {
            return Ok(false);
        }
        self.transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM removed_record WHERE grp = ?1 AND kind = ?2 AND key = ?3 AND created_ms = ?4)",
            )
            .step("prepare a removed record")?
            .query_row(params![group.0, name.kind, name.key, created_ms], |row| row.get(0))
            .step("look a removed record up")
    }
}

const COLUMNS: &str = "kind, key, grp, version, created_ms, changed_ms, due_ms, body FROM record";

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
    Ok(Record {
        name: RecordName { kind: row.get(0)?, key: row.get(1)? },
        group: GroupId(row.get(2)?),
        version: number(3)?,
        created_unix_ms: number(4)?,
        changed_unix_ms: number(5)?,
        due_unix_ms: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
        body: row.get::<_, Vec<u8>>(7)?.into(),
    })
}

impl Catalog {
    /// The record of that name in `group`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn record(&self, group: GroupId, name: &RecordName) -> Result<Option<Record>, CatalogError> {
        self.pool
            .reader()?
            .prepare_cached(&format!("SELECT {COLUMNS} WHERE grp = ?1 AND kind = ?2 AND key = ?3"))
            .step("prepare a record")?
            .query_row(params![group.0, name.kind, name.key], record)
            .optional()
            .step("read a record")
    }

    /// Records of a kind by key, those behind `after`: at most `limit`, and at least one if there is one, until about 4 MiB.
    /// Ask again behind the last for more.
    ///
    /// # Errors
    /// SQLite's.
    pub fn records(&self, kind: &str, after: &str, limit: u32) -> Result<Vec<Record>, CatalogError> {
        let reader = self.pool.reader()?;
        let mut statement = reader
            .prepare_cached(&format!("SELECT {COLUMNS} WHERE kind = ?1 AND key > ?2 ORDER BY key, grp LIMIT ?3"))
            .step("prepare records")?;
        let mut rows = statement.query(params![kind, after, limit.min(PAGE_MAX)]).step("read records")?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = rows.next().step("read records")?
        {
            let found = record(row).step("read a record")?;
            bytes += found.body.len();
            page.push(found);
        }
        Ok(page)
    }

    /// Records of a kind in `groups` on which work is due at `now_unix_ms`, the longest due first; at most `limit`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn due_records(
        &self,
        kind: &str,
        groups: &[GroupId],
        now_unix_ms: u64,
        limit: u32,
    ) -> Result<Vec<Due>, CatalogError> {
        let reader = self.pool.reader()?;
        let mut statement = reader
            .prepare_cached(
                "SELECT grp, key FROM record WHERE kind = ?1 AND due_ms <= ?2
                 AND grp IN (SELECT value FROM json_each(?3)) ORDER BY due_ms, grp, key LIMIT ?4",
            )
            .step("prepare due records")?;
        let groups = serde_json::Value::from(groups.iter().map(|group| group.0).collect::<Vec<_>>()).to_string();
        let take = |row: &Row<'_>| Ok(Due { group: GroupId(row.get(0)?), key: row.get(1)? });
        let rows = statement
            .query_map(params![kind, now_unix_ms.cast_signed(), groups, limit.min(PAGE_MAX)], take)
            .step("read due records")?;
        rows.collect::<rusqlite::Result<_>>().step("read due records")
    }

    /// How many records of a kind work is ever due on, and the bytes of their bodies.
    ///
    /// # Errors
    /// SQLite's.
    pub fn working_records(&self, kind: &str) -> Result<(u64, u64), CatalogError> {
        self.pool
            .reader()?
            .prepare_cached(
                "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM record WHERE kind = ?1 AND due_ms IS NOT NULL",
            )
            .step("prepare a count of records")?
            .query_row(params![kind], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .map(|(count, bytes)| (count.cast_unsigned(), bytes.cast_unsigned()))
            .step("count records")
    }

    /// Whether work is due on any record of a kind, whoever leads its group.
    ///
    /// # Errors
    /// SQLite's.
    pub fn has_due_records(&self, kind: &str, now_unix_ms: u64) -> Result<bool, CatalogError> {
        self.pool
            .reader()?
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM record WHERE kind = ?1 AND due_ms <= ?2)")
            .step("prepare due records")?
            .query_row(params![kind, now_unix_ms.cast_signed()], |row| row.get(0))
            .step("look for due records")
    }
}
