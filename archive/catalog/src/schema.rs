//! The tables. A newer schema is refused; schemas 2 to 5 get what they lack; schema 1 is made anew, and filled from the log
//! again (K-5).
//!
//! `instance.id` is `series << 24 | number in series`: the rows of a series lie side by side, so that its metadata is
//! one sequential read. Texts are stored as they are compared (`archive_model::matching`), attributes as they are
//! returned (`attrs`: postcard of tag and values).

use crate::error::{CatalogError, Step};
use rusqlite::{Connection, config::DbConfig};

/// The schema that this release writes.
const SCHEMA: i64 = 6;

/// Every table of an older schema; their indexes go with them.
const NO_TABLES: &str = "
DROP TABLE IF EXISTS applied; DROP TABLE IF EXISTS totals; DROP TABLE IF EXISTS patient; DROP TABLE IF EXISTS study;
DROP TABLE IF EXISTS series; DROP TABLE IF EXISTS instance; DROP TABLE IF EXISTS version; DROP TABLE IF EXISTS upload;
";

const TABLES: &str = "
CREATE TABLE applied (
    grp INTEGER PRIMARY KEY, term INTEGER NOT NULL, idx INTEGER NOT NULL,
    m_term INTEGER, m_idx INTEGER, membership BLOB);
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 0), patients INTEGER NOT NULL, studies INTEGER NOT NULL, series INTEGER NOT NULL,
    instances INTEGER NOT NULL, bytes INTEGER NOT NULL, versions INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0, 0, 0, 0);
CREATE TABLE patient (
    id INTEGER PRIMARY KEY, pid TEXT NOT NULL, issuer TEXT NOT NULL, study TEXT NOT NULL,
    n_studies INTEGER NOT NULL, n_series INTEGER NOT NULL, n_instances INTEGER NOT NULL, UNIQUE (pid, issuer, study));
CREATE TABLE study (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, grp INTEGER NOT NULL, patient INTEGER NOT NULL,
    pid TEXT, name_a TEXT NOT NULL, name_i TEXT NOT NULL, name_p TEXT NOT NULL, birth_date TEXT NOT NULL,
    date TEXT NOT NULL, time TEXT NOT NULL, several INTEGER NOT NULL, accession TEXT, study_id TEXT,
    modalities TEXT NOT NULL, n_series INTEGER NOT NULL, n_instances INTEGER NOT NULL, bytes INTEGER NOT NULL,
    patient_attrs BLOB NOT NULL, attrs BLOB NOT NULL);
CREATE INDEX study_patient ON study (patient, uid);
CREATE INDEX study_grp ON study (grp, uid);
CREATE INDEX study_date ON study (date DESC, time DESC, uid);
CREATE INDEX study_several ON study (several) WHERE several = 1;
CREATE INDEX study_accession ON study (accession);
CREATE INDEX study_study_id ON study (study_id);
CREATE INDEX study_pid ON study (pid);
CREATE INDEX study_name_a ON study (name_a);
CREATE INDEX study_name_i ON study (name_i) WHERE name_i <> '';
CREATE INDEX study_name_p ON study (name_p) WHERE name_p <> '';
CREATE TABLE series (
    id INTEGER PRIMARY KEY, study INTEGER NOT NULL, uid TEXT NOT NULL, modality TEXT, number INTEGER,
    n_instances INTEGER NOT NULL, n_ever INTEGER NOT NULL, attrs BLOB NOT NULL, UNIQUE (study, uid));
CREATE INDEX series_uid ON series (uid);
CREATE TABLE instance (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL, sop_class TEXT NOT NULL, syntax TEXT NOT NULL, number INTEGER,
    length INTEGER NOT NULL, digest BLOB NOT NULL, blocks BLOB NOT NULL, frames BLOB, n_frames INTEGER NOT NULL,
    versions INTEGER NOT NULL, received_ms INTEGER NOT NULL, source BLOB NOT NULL, attrs BLOB NOT NULL, header BLOB NOT NULL);
CREATE INDEX instance_uid ON instance (uid);
CREATE TABLE version (
    instance INTEGER NOT NULL, number INTEGER NOT NULL, sop_class TEXT NOT NULL, syntax TEXT NOT NULL,
    length INTEGER NOT NULL, digest BLOB NOT NULL, blocks BLOB NOT NULL, frames BLOB, received_ms INTEGER NOT NULL,
    source BLOB NOT NULL, header BLOB NOT NULL, PRIMARY KEY (instance, number)) WITHOUT ROWID;
CREATE TABLE upload (
    grp INTEGER NOT NULL, upload BLOB NOT NULL, seq INTEGER NOT NULL, idx INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (grp, upload, seq)) WITHOUT ROWID;
CREATE TABLE ended_upload (
    grp INTEGER NOT NULL, idx INTEGER NOT NULL, upload BLOB NOT NULL, PRIMARY KEY (grp, upload)) WITHOUT ROWID;
CREATE INDEX ended_upload_idx ON ended_upload (grp, idx);
CREATE TABLE incomplete (grp INTEGER PRIMARY KEY);
";

/// What schema 3 has beyond schema 2.
const DELETES: &str = "
CREATE TABLE tombstone (
    grp INTEGER NOT NULL, idx INTEGER NOT NULL, study TEXT NOT NULL, series TEXT, instance TEXT,
    n_instances INTEGER NOT NULL, bytes INTEGER NOT NULL, reason TEXT NOT NULL, source TEXT NOT NULL,
    deleted_ms INTEGER NOT NULL, PRIMARY KEY (grp, idx)) WITHOUT ROWID;
CREATE INDEX tombstone_study ON tombstone (study);
CREATE INDEX tombstone_deleted ON tombstone (deleted_ms);
CREATE TABLE deleted_store (
    grp INTEGER NOT NULL, digest BLOB NOT NULL, received_ms INTEGER NOT NULL, idx INTEGER NOT NULL,
    PRIMARY KEY (grp, digest, received_ms)) WITHOUT ROWID;
CREATE INDEX deleted_store_idx ON deleted_store (grp, idx);
";

/// What schema 4 has beyond schema 3.
const RECORDS: &str = "
CREATE TABLE record (
    grp INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, before INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, due_ms INTEGER, body BLOB NOT NULL,
    PRIMARY KEY (grp, kind, key));
CREATE INDEX record_kind ON record (kind, key, grp);
CREATE INDEX record_due ON record (kind, due_ms) WHERE due_ms IS NOT NULL;
CREATE TABLE removed_record (
    grp INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, created_ms INTEGER NOT NULL, idx INTEGER NOT NULL,
    PRIMARY KEY (grp, kind, key, created_ms)) WITHOUT ROWID;
CREATE INDEX removed_record_idx ON removed_record (grp, idx);
";

/// What schema 5 has beyond schema 4. `state`, `facts` and `content` are those of `reject.rs`; `blocks` are those of all that
/// `content` keeps.
const REJECTIONS: &str = "
CREATE TABLE rejection (
    grp INTEGER NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL, instance TEXT NOT NULL, state INTEGER NOT NULL,
    sop_class TEXT NOT NULL, bytes INTEGER NOT NULL, rejected_ms INTEGER NOT NULL, note TEXT NOT NULL, facts BLOB NOT NULL, blocks BLOB NOT NULL,
    content BLOB, PRIMARY KEY (grp, study, series, instance));
CREATE INDEX rejection_study ON rejection (study);
CREATE INDEX rejection_rejected ON rejection (rejected_ms);
";

/// What schema 6 has beyond schema 5. Rule and digest of a content without its padding, NULL in rows of before; and indexes
/// of one's own (`extra.rs`): an older release must not open it, as it would not keep these rows.
const SIX: &str = "
ALTER TABLE instance ADD COLUMN canonical BLOB;
ALTER TABLE version ADD COLUMN canonical BLOB;
CREATE TABLE extra_index (id INTEGER PRIMARY KEY, spec TEXT UNIQUE, filled INTEGER NOT NULL);
CREATE TABLE extra_row (
    idx INTEGER NOT NULL, owner INTEGER NOT NULL, value TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (idx, owner, value)) WITHOUT ROWID;
CREATE INDEX extra_row_value ON extra_row (idx, value, owner);
";

/// Instances of one series, at most: bits of `instance.id`.
pub(crate) const SERIES_SHIFT: u32 = 24;

/// Prepares a connection that writes, making the tables of a new file.
pub(crate) fn open_writer(connection: &Connection) -> Result<(), CatalogError> {
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY;
             PRAGMA journal_size_limit = {};",
            crate::checkpoint::RESTART_BYTES
        ))
        .step("set up the catalogue")?;
    plan_once(connection)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).step("read the schema")?;
    match found {
        SCHEMA => Ok(()),
        5 => add(connection, &[SIX]).step("add canonical digests and indexes"),
        4 => add(connection, &[REJECTIONS, SIX]).step("add the table of rejections"),
        3 => add(connection, &[RECORDS, REJECTIONS, SIX]).step("add the tables of records"),
        2 => add(connection, &[DELETES, RECORDS, REJECTIONS, SIX]).step("add the tables of deletes and records"),
        // With the tables go the applied positions: the log is applied from its beginning.
        0..2 => add(connection, &[NO_TABLES, TABLES, DELETES, RECORDS, REJECTIONS, SIX]).step("make the tables"),
        newer => Err(CatalogError::Newer { found: newer, newest: SCHEMA }),
    }
}

/// No plan of ours depends on the values that are asked for: partial indexes are named by literals, and nothing is LIKE. SQLite
/// thinks that some might, and would plan two look-ups anew for each instance, a fifth of what applying costs.
fn plan_once(connection: &Connection) -> Result<(), CatalogError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).step("set up plans").map(|_| ())
}

/// Brings an older schema to this one.
fn add(connection: &Connection, lacking: &[&str]) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("BEGIN; {} PRAGMA user_version = {SCHEMA}; COMMIT;", lacking.concat()))
}

/// Prepares a connection that only reads.
pub(crate) fn open_reader(connection: &Connection) -> Result<(), CatalogError> {
    plan_once(connection)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY;")
        .step("set up a reader")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;

    #[test]
    fn what_is_asked_for_each_instance_is_planned_once() {
        let connection = Connection::open_in_memory().expect("memory");
        open_writer(&connection).expect("tables");
        for uid in ["1.2", "1.3", "1.4"] {
            let mut known = connection.prepare_cached(crate::versions::KNOWN).expect("a statement");
            assert!(!known.exists([uid, uid, uid]).expect("a look-up"));
            assert_eq!(known.get_status(StatementStatus::RePrepare), 0);
        }
    }

    /// Schema 1 had no place for patients without an ID, nor for uploads that ended.
    #[test]
    fn an_older_catalogue_is_made_anew_and_a_newer_one_refused() {
        let connection = Connection::open_in_memory().expect("memory");
        let old = "CREATE TABLE applied (grp INTEGER PRIMARY KEY); INSERT INTO applied VALUES (1);
            CREATE TABLE patient (id INTEGER PRIMARY KEY, pid TEXT); PRAGMA user_version = 1;";
        connection.execute_batch(old).expect("an old catalogue");
        open_writer(&connection).expect("made anew");
        let applied: i64 = connection.query_row("SELECT count(*) FROM applied", [], |row| row.get(0)).expect("a table");
        assert_eq!(applied, 0, "the log is applied from its beginning");
        open_writer(&connection).expect("opened again");
        connection.execute_batch("PRAGMA user_version = 99").expect("a newer catalogue");
        assert!(matches!(open_writer(&connection), Err(CatalogError::Newer { found: 99, newest: SCHEMA })));
    }

    /// Its log may be purged: its rows must stay.
    #[test]
    fn a_catalogue_of_an_older_schema_gets_what_it_lacks_and_keeps_its_rows() {
        let olds = [
            (TABLES.to_owned(), 2),
            (format!("{TABLES} {DELETES}"), 3),
            (format!("{TABLES} {DELETES} {RECORDS}"), 4),
            (format!("{TABLES} {DELETES} {RECORDS} {REJECTIONS}"), 5),
        ];
        for (tables, version) in olds {
            let connection = Connection::open_in_memory().expect("memory");
            connection.execute_batch(&format!("{tables} PRAGMA user_version = {version};")).expect("an old schema");
            connection.execute("INSERT INTO applied (grp, term, idx) VALUES (1, 2, 3)", []).expect("a position");
            open_writer(&connection).expect("opened");
            let count = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).expect("a table") };
            assert_eq!(count("SELECT idx FROM applied"), 3);
            assert_eq!(count("SELECT count(*) FROM tombstone") + count("SELECT count(*) FROM deleted_store"), 0);
            assert_eq!(count("SELECT count(*) FROM record") + count("SELECT count(*) FROM removed_record"), 0);
            assert_eq!(count("SELECT count(*) FROM rejection"), 0);
            assert_eq!(
                count("SELECT count(canonical) FROM instance") + count("SELECT count(canonical) FROM version"),
                0
            );
            assert_eq!(count("SELECT count(*) FROM extra_index") + count("SELECT count(*) FROM extra_row"), 0);
            assert_eq!(count("PRAGMA user_version"), SCHEMA);
        }
    }
}
