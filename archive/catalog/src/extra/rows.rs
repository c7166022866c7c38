//! The rows of indexes: written by applies and by the fill, by one rule.

use super::{
    ExtraIndex,
    values::{UNTOLD, texts},
};
use crate::{
    Catalog, Level,
    error::{CatalogError, Step},
    retrieve::decompressed,
    row::ids_of,
    schema::SERIES_SHIFT,
};
use bytes::Bytes;
use raft_types::GroupId;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;

/// `filled` of an index that has the rows of every instance, and of those that will come.
const EVERYTHING: i64 = i64::MAX;
/// Headers that a step reads at least, however many indexes are filled together.
const HEADERS_OF_MANY: usize = 16;
/// Bytes of compressed headers after which a step reads no more.
const HEADER_BYTES_OF_STEP: usize = 4 << 20;
/// Instances of a step that came, or were replaced, after it had read: their headers are read while the writer is held.
const LATE_OF_STEP: usize = 64;
/// Rows of a removed index that a step takes away, at most.
const ROWS_OF_STEP: i64 = 4096;

/// An index as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    pub(crate) id: i64,
    pub(crate) index: ExtraIndex,
    /// The rows of instances up to this number are there.
    filled: i64,
}

impl Extra {
    ///
    pub(crate) fn is_complete(&self) -> bool {
        self.filled == EVERYTHING
    }
}

/// How far an index is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraState {
    /// Which one.
    pub index: ExtraIndex,
    /// Whether queries use it.
    pub complete: bool,
    /// Instances that have no rows in it yet.
    pub instances_left: u64,
}

/// What a step of the fill did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillStep {
    /// Something: there may be more.
    Done,
    /// Nothing: every index is complete, and nothing of a removed one is left.
    Idle,
}

/// The indexes that are maintained.
pub(crate) fn load(connection: &Connection) -> Result<Vec<Extra>, CatalogError> {
    let mut statement = connection
        .prepare_cached("SELECT id, spec, filled FROM extra_index WHERE spec IS NOT NULL ORDER BY id")
        .step("prepare indexes")?;
    let mut rows = statement.query([]).step("read indexes")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().step("read indexes")? {
        let spec: String = row.get(1).step("read an index")?;
        // What another release has written is dropped by `set_extra`; until then nobody asks it.
        if let Some(index) = ExtraIndex::of_spec(&spec) {
            let (id, filled) = (row.get(0).step("read an index")?, row.get(2).step("read an index")?);
            found.push(Extra { id, index, filled });
        }
    }
    Ok(found)
}

/// Puts an instance into those of `extras` that have come as far, or takes it out.
pub(crate) fn count(
    connection: &Connection,
    extras: &[Extra],
    instance: i64,
    header: &[u8],
    what: Count,
) -> Result<(), CatalogError> {
    let own: Vec<&Extra> = extras.iter().filter(|extra| extra.filled >= instance).collect();
    if own.is_empty() {
        return Ok(());
    }
    write(connection, &own, instance, &texts_of(&own, header), what)
}

/// What becomes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    In,
    Out,
}

/// The texts of an instance; X-5.
fn texts_of(extras: &[&Extra], header: &[u8]) -> Vec<Vec<String>> {
    let indexes: Vec<&ExtraIndex> = extras.iter().map(|extra| &extra.index).collect();
    texts(&indexes, &decompressed(header).unwrap_or_else(|_| Bytes::new()))
}

fn write(
    connection: &Connection,
    extras: &[&Extra],
    instance: i64,
    texts: &[Vec<String>],
    what: Count,
) -> Result<(), CatalogError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql).step("prepare the rows of an index")?.execute(values).step("index an instance")
    };
    for (extra, texts) in extras.iter().zip(texts).filter(|(_, texts)| !texts.is_empty()) {
        let owner = owner_of(connection, extra.index.level, instance)?;
        for text in texts {
            let own: &[&dyn rusqlite::ToSql] = &[&extra.id, &owner, text];
            match what {
                Count::In => {
                    run(
                        "INSERT INTO extra_row (idx, owner, value, n) VALUES (?1, ?2, ?3, 1)
                         ON CONFLICT (idx, owner, value) DO UPDATE SET n = n + 1",
                        own,
                    )?;
                }
                Count::Out => {
                    let one = "UPDATE extra_row SET n = n - 1 WHERE idx = ?1 AND owner = ?2 AND value = ?3";
                    run(one, own)?;
                    run("DELETE FROM extra_row WHERE idx = ?1 AND owner = ?2 AND value = ?3 AND n <= 0", own)?;
                }
            }
        }
    }
    Ok(())
}

/// What the rows of an instance hang on.
fn owner_of(connection: &Connection, level: Level, instance: i64) -> Result<i64, CatalogError> {
    let series = instance >> SERIES_SHIFT;
    match level {
        Level::Instance => Ok(instance),
        Level::Series => Ok(series),
        Level::Patient | Level::Study => connection
            .prepare_cached("SELECT study FROM series WHERE id = ?1")
            .step("prepare a series")?
            .query_row([series], |row| row.get(0))
            .step("look the study of an instance up"),
    }
}

/// Takes the rows of all instances of a group out, before those go.
pub(crate) fn forget_group(transaction: &Transaction<'_>, group: GroupId, series: &[i64]) -> Result<(), CatalogError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql).step("prepare the rows of an index")?.execute(values).step("clear an index")
    };
    for Extra { id, index, .. } in load(transaction)? {
        match index.level {
            Level::Patient | Level::Study => {
                let sql = "DELETE FROM extra_row WHERE idx = ?1 AND owner IN (SELECT id FROM study WHERE grp = ?2)";
                run(sql, &[&id, &group.0])?;
            }
            Level::Series => {
                for series in series {
                    run("DELETE FROM extra_row WHERE idx = ?1 AND owner = ?2", &[&id, series])?;
                }
            }
            Level::Instance => {
                for (first, behind) in series.iter().map(|series| ids_of(*series)) {
                    let sql = "DELETE FROM extra_row WHERE idx = ?1 AND owner >= ?2 AND owner < ?3";
                    run(sql, &[&id, &first, &behind])?;
                }
            }
        }
    }
    Ok(())
}

/// Series that are inserted from now on have numbers behind all others: the fill goes on before them.
pub(crate) fn set_back(transaction: &Transaction<'_>) -> Result<(), CatalogError> {
    let last: i64 = transaction
        .query_row("SELECT coalesce(max(id), 0) FROM series", [], |row| row.get(0))
        .step("look for the last series")?;
    let before_next = ids_of(last + 1).0 - 1;
    transaction
        .execute("UPDATE extra_index SET filled = min(filled, ?1)", [before_next])
        .step("set an index back")
        .map(|_| ())
}

impl Catalog {
    /// Has exactly these indexes from now on: new ones are empty, and filled by [`Catalog::fill_extra`].
    ///
    /// # Errors
    /// SQLite's.
    pub fn set_extra(&self, wanted: &[ExtraIndex]) -> Result<(), CatalogError> {
        let wanted: Vec<String> = wanted.iter().map(ExtraIndex::spec).collect();
        let mut writer = self.writer.lock();
        let transaction = writer.transaction().step("begin to set indexes")?;
        let list = serde_json::Value::from(wanted.as_slice()).to_string();
        let gone = "UPDATE extra_index SET spec = NULL WHERE spec NOT IN (SELECT value FROM json_each(?1))";
        transaction.execute(gone, [&list]).step("remove an index")?;
        for spec in &wanted {
            let new = "INSERT OR IGNORE INTO extra_index (spec, filled) VALUES (?1, -1)";
            transaction.execute(new, [spec]).step("add an index")?;
        }
        transaction.commit().step("set indexes")
    }

    /// The indexes, and how far this node is with each.
    ///
    /// # Errors
    /// SQLite's.
    pub fn extra(&self) -> Result<Vec<ExtraState>, CatalogError> {
        let reader = self.pool.reader()?;
        let _moment = reader.unchecked_transaction().step("begin to look at indexes")?;
        let left = |extra: &Extra| -> Result<u64, CatalogError> {
            if extra.is_complete() {
                return Ok(0);
            }
            // What series count; only the one in the midst of which the fill stands is counted itself.
            let series = extra.filled >> SERIES_SHIFT;
            reader
                .prepare_cached(
                    "SELECT (SELECT coalesce(sum(n_instances), 0) FROM series WHERE id > ?1)
                     + (SELECT count(*) FROM instance WHERE id > ?2 AND id < ?3)",
                )
                .step("prepare what is left")?
                .query_row([series, extra.filled, ids_of(series).1], |row| row.get::<_, i64>(0))
                .map(i64::unsigned_abs)
                .step("count what is left")
        };
        let state = |extra: Extra| {
            Ok(ExtraState { complete: extra.is_complete(), instances_left: left(&extra)?, index: extra.index })
        };
        load(&reader)?.into_iter().map(state).collect()
    }

    /// Fills indexes with what is stored, or takes rows of removed ones away: one bounded step, some 10 ms of work, of which
    /// the writer is held for about 2. Blocking.
    ///
    /// # Errors
    /// SQLite's.
    pub fn fill_extra(&self) -> Result<FillStep, CatalogError> {
        self.fill(&mut || {})
    }

    /// The same; `between` is called when the step has read, and not yet written.
    ///
    /// # Errors
    /// SQLite's.
    #[cfg(feature = "planted-bugs")]
    pub fn fill_extra_with(&self, between: &mut dyn FnMut()) -> Result<FillStep, CatalogError> {
        self.fill(between)
    }

    fn fill(&self, between: &mut dyn FnMut()) -> Result<FillStep, CatalogError> {
        if self.take_removed_away()? {
            return Ok(FillStep::Done);
        }
        let step = Prepared::read(&*self.pool.reader()?, self.options.fill_headers.max(1))?;
        let Some(step) = step else { return Ok(FillStep::Idle) };
        between();
        {
            let mut writer = self.writer.lock();
            let transaction = writer.transaction().step("begin to fill an index")?;
            step.write(&transaction)?;
            transaction.commit().step("fill an index")?;
        }
        self.wait_for_long_log();
        Ok(FillStep::Done)
    }

    /// Takes some rows of an index away that was removed, if there is one.
    fn take_removed_away(&self) -> Result<bool, CatalogError> {
        let removed = "SELECT id FROM extra_index WHERE spec IS NULL LIMIT 1";
        let find = |connection: &Connection| -> Result<Option<i64>, CatalogError> {
            let mut statement = connection.prepare_cached(removed).step("prepare removed indexes")?;
            statement.query_row([], |row| row.get(0)).optional().step("look for removed indexes")
        };
        if find(&*self.pool.reader()?)?.is_none() {
            return Ok(false);
        }
        {
            let mut writer = self.writer.lock();
            let transaction = writer.transaction().step("begin to take an index away")?;
            if let Some(id) = find(&transaction)? {
                let some = "DELETE FROM extra_row WHERE idx = ?1 AND (owner, value) IN
                            (SELECT owner, value FROM extra_row WHERE idx = ?1 LIMIT ?2)";
                if transaction.execute(some, [id, ROWS_OF_STEP]).step("take an index away")? == 0 {
                    transaction.execute("DELETE FROM extra_index WHERE id = ?1", [id]).step("take an index away")?;
                }
            }
            transaction.commit().step("take an index away")?;
        }
        self.wait_for_long_log();
        Ok(true)
    }
}

/// A step of the fill: what was read, beside the writer.
struct Prepared {
    /// The indexes that are filled the least; they go on together.
    extras: Vec<Extra>,
    from: i64,
    /// How far this step may go: to where others are, which go along from there.
    to: i64,
    /// Whether there was no more of it up to `to`.
    ended: bool,
    read: BTreeMap<i64, (Vec<u8>, Vec<Vec<String>>)>,
}

impl Prepared {
    /// Reads the next headers; `None` if no index needs any.
    fn read(connection: &Connection, headers_max: usize) -> Result<Option<Self>, CatalogError> {
        let all = load(connection)?;
        let Some(from) = all.iter().map(|extra| extra.filled).min().filter(|from| *from < EVERYTHING) else {
            return Ok(None);
        };
        let to = all.iter().map(|extra| extra.filled).filter(|filled| *filled > from).min().unwrap_or(EVERYTHING);
        let extras: Vec<Extra> = all.into_iter().filter(|extra| extra.filled == from).collect();
        // The writer is held for each row of each index.
        let headers_max = (headers_max / extras.len().max(1)).max(HEADERS_OF_MANY).min(headers_max);
        let mut step = Self { extras, from, to, ended: true, read: BTreeMap::new() };
        let mut statement = connection
            .prepare_cached("SELECT id, digest, header FROM instance WHERE id > ?1 AND id <= ?2 ORDER BY id")
            .step("prepare headers")?;
        let mut rows = statement.query([from, to]).step("read headers")?;
        let mut bytes = 0;
        while let Some(row) = rows.next().step("read headers")? {
            if step.read.len() == headers_max || bytes > HEADER_BYTES_OF_STEP {
                step.ended = false;
                break;
            }
            let header = row.get_ref(2).step("read a header")?.as_blob().unwrap_or_default(); // what is none is `?`
            bytes += header.len();
            let texts = texts_of(&step.extras.iter().collect::<Vec<_>>(), header);
            let (id, digest) = (row.get(0).step("read a header")?, row.get(1).step("read a header")?);
            step.read.insert(id, (digest, texts));
        }
        Ok(Some(step))
    }

    /// Writes the rows, of what is there by now.
    fn write(self, transaction: &Transaction<'_>) -> Result<(), CatalogError> {
        let Self { from, to, ended, read, .. } = self;
        // One that was removed meanwhile, or set back, is for another step.
        let now = load(transaction)?;
        let extras: Vec<&Extra> = now.iter().filter(|extra| self.extras.contains(extra)).collect();
        if extras.len() != self.extras.len() {
            return Ok(());
        }
        let last = if ended { to } else { read.keys().next_back().copied().unwrap_or(from) };
        let mut statement = transaction
            .prepare_cached("SELECT id, digest FROM instance WHERE id > ?1 AND id <= ?2 ORDER BY id")
            .step("prepare instances")?;
        let mut rows = statement.query([from, last]).step("read instances")?;
        let (mut filled, mut late) = (last, 0);
        while let Some(row) = rows.next().step("read instances")? {
            let (id, digest): (i64, Vec<u8>) = (row.get(0).step("read an id")?, row.get(1).step("read a digest")?);
            match read.get(&id) {
                Some((own, texts)) if *own == digest => write(transaction, &extras, id, texts, Count::In)?,
                // It came since, or was replaced.
                _ if late < LATE_OF_STEP => {
                    late += 1;
                    let header = header_of(transaction, id)?;
                    write(transaction, &extras, id, &texts_of(&extras, &header), Count::In)?;
                }
                _ => {
                    filled = id - 1;
                    break;
                }
            }
        }
        for extra in &extras {
            let moved = "UPDATE extra_index SET filled = ?2 WHERE id = ?1";
            transaction.execute(moved, params![extra.id, filled]).step("move an index on")?;
        }
        Ok(())
    }
}

pub(crate) fn header_of(connection: &Connection, instance: i64) -> Result<Vec<u8>, CatalogError> {
    connection
        .prepare_cached("SELECT header FROM instance WHERE id = ?1")
        .step("prepare a header")?
        .query_row([instance], |row| row.get(0))
        .step("read a header")
}

/// Whether an owner has a text that `admits` likes, or one that must be looked into.
pub(super) fn has(
    connection: &Connection,
    (idx, owner): (i64, i64),
    admits: impl Fn(&str) -> bool,
) -> Result<bool, CatalogError> {
    let mut statement = connection
        .prepare_cached("SELECT value FROM extra_row WHERE idx = ?1 AND owner = ?2")
        .step("prepare the rows of an index")?;
    let mut rows = statement.query([idx, owner]).step("read the rows of an index")?;
    while let Some(row) = rows.next().step("read the rows of an index")? {
        let text: String = row.get(0).step("read a row of an index")?;
        if text == UNTOLD || admits(&text) {
            return Ok(true);
        }
    }
    Ok(false)
}
