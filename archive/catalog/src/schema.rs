//! The tables. A newer schema is refused; an older one would be migrated here.
//!
//! `instance.id` is `series << 24 | number in series`: the rows of a series lie side by side, so that its metadata is
//! one sequential read. Texts are stored as they are compared (`archive_model::matching`), attributes as they are
//! returned (`attrs`: postcard of tag and values).

use crate::error::{CatalogError, Step};
use rusqlite::Connection;

/// The schema that this release writes.
const SCHEMA: i64 = 1;

const TABLES: &str = "
CREATE TABLE applied (
    grp INTEGER PRIMARY KEY, term INTEGER NOT NULL, idx INTEGER NOT NULL,
    m_term INTEGER, m_idx INTEGER, membership BLOB);
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 0), patients INTEGER NOT NULL, studies INTEGER NOT NULL, series INTEGER NOT NULL,
    instances INTEGER NOT NULL, bytes INTEGER NOT NULL, versions INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0, 0, 0, 0);
CREATE TABLE patient (
    id INTEGER PRIMARY KEY, pid TEXT NOT NULL, issuer TEXT NOT NULL,
    n_studies INTEGER NOT NULL, n_series INTEGER NOT NULL, n_instances INTEGER NOT NULL, UNIQUE (pid, issuer));
CREATE TABLE study (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, grp INTEGER NOT NULL, patient INTEGER NOT NULL,
    pid TEXT, name_a TEXT NOT NULL, name_i TEXT NOT NULL, name_p TEXT NOT NULL, birth_date TEXT NOT NULL,
    date TEXT NOT NULL, time TEXT NOT NULL, accession TEXT, study_id TEXT,
    modalities TEXT NOT NULL, n_series INTEGER NOT NULL, n_instances INTEGER NOT NULL, bytes INTEGER NOT NULL,
    patient_attrs BLOB NOT NULL, attrs BLOB NOT NULL);
CREATE INDEX study_patient ON study (patient, uid);
CREATE INDEX study_date ON study (date DESC, time DESC, uid);
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
";

/// Instances of one series, at most: bits of `instance.id`.
pub(crate) const SERIES_SHIFT: u32 = 24;

/// Prepares a connection that writes, making the tables of a new file.
pub(crate) fn open_writer(connection: &Connection) -> Result<(), CatalogError> {
    connection
        .execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY;",
        )
        .step("set up the catalogue")?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).step("read the schema")?;
    match found {
        0 => connection
            .execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"))
            .step("make the tables"),
        SCHEMA => Ok(()),
        newer => Err(CatalogError::Newer { found: newer, newest: SCHEMA }),
    }
}

/// Prepares a connection that only reads.
pub(crate) fn open_reader(connection: &Connection) -> Result<(), CatalogError> {
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY;")
        .step("set up a reader")
}
