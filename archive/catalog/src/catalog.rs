//! The catalogue of one node: one writer, some readers.

use crate::{
    Tombstone, UploadId, apply,
    ballast::Ballast,
    checkpoint::LIMIT_BYTES,
    delete,
    error::{CatalogError, Step},
    export, import,
    pool::Pool,
    sabotage::Sabotage,
    schema,
};
use archive_model::Uid;
use bytes::Bytes;
use parking_lot::Mutex;
use raft_types::{
    Applied, BodyRef, Committed, Exported, GroupId, LogPosition, Outcome, StateMachine, StateMachineError,
};
use rusqlite::Connection;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

/// Settings of the catalogue.
#[derive(Debug, Clone)]
pub struct CatalogOptions {
    /// Connections that read at the same time; more wait. Default 8.
    pub readers_max: usize,
    /// Size of the write-ahead log at which [`Catalog::checkpoint`] moves it into the database. Default 8 MiB.
    pub checkpoint_bytes: u64,
    /// Headers that one query may look into to match what the index does not know: about 0.2 ms each.
    /// Default 50,000.
    pub query_headers_max: u64,
    /// Stored headers that one step of the fill of an index reads. Default 256: some 10 ms.
    pub fill_headers: usize,
    /// A bug on purpose, for tests; none in service.
    pub sabotage: Option<Sabotage>,
}

impl Default for CatalogOptions {
    fn default() -> Self {
        Self { readers_max: 8, checkpoint_bytes: 8 << 20, query_headers_max: 50_000, fill_headers: 256, sabotage: None }
    }
}

/// How much is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Patients, by id and issuer.
    pub patients: u64,
    /// Studies.
    pub studies: u64,
    /// Series.
    pub series: u64,
    /// Instances.
    pub instances: u64,
    /// Bytes of all data sets, versions included.
    pub bytes: u64,
    /// Other contents kept under a known UID.
    pub versions: u64,
}

/// The catalogue.
pub struct Catalog {
    path: PathBuf,
    pub(crate) writer: Mutex<Connection>,
    /// Checkpoints run beside the writer.
    pub(crate) checkpointer: Mutex<Connection>,
    /// Bytes of the write-ahead log at which the writer next waits until it is moved.
    pub(crate) log_limit_bytes: AtomicU64,
    pub(crate) pool: Pool,
    pub(crate) ballast: Ballast,
    pub(crate) options: CatalogOptions,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Opens the catalogue in `folder`, or makes it.
    ///
    /// # Errors
    /// When the folder cannot be used, or was written by a newer release.
    pub fn open(folder: &Path, options: CatalogOptions) -> Result<Self, CatalogError> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("catalog.sqlite");
        let writer = Connection::open(&path).step("open the catalogue")?;
        schema::open_writer(&writer)?;
        writer.set_prepared_statement_cache_capacity(64);
        let checkpointer = Connection::open(&path).step("open the catalogue")?;
        checkpointer
            .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;")
            .step("set up checkpoints")?;
        Ok(Self {
            pool: Pool::new(&path, options.readers_max),
            writer: Mutex::new(writer),
            checkpointer: Mutex::new(checkpointer),
            log_limit_bytes: AtomicU64::new(LIMIT_BYTES),
            path,
            ballast: Ballast::of(folder),
            options,
        })
    }

    /// How much is held.
    ///
    /// # Errors
    /// SQLite's.
    pub fn totals(&self) -> Result<Totals, CatalogError> {
        let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(|value| u64::try_from(value).unwrap_or(0));
        self.pool
            .reader()?
            .prepare_cached("SELECT patients, studies, series, instances, bytes, versions FROM totals")
            .step("prepare totals")?
            .query_row([], |row| {
                Ok(Totals {
                    patients: number(row, 0)?,
                    studies: number(row, 1)?,
                    series: number(row, 2)?,
                    instances: number(row, 3)?,
                    bytes: number(row, 4)?,
                    versions: number(row, 5)?,
                })
            })
            .step("read totals")
    }

    /// Uploads that are neither committed nor given up, with the index of the newest block of each.
    ///
    /// # Errors
    /// SQLite's.
    pub fn uploads(&self) -> Result<Vec<(GroupId, UploadId, u64)>, CatalogError> {
        let reader = self.pool.reader()?;
        let mut statement = reader
            .prepare_cached("SELECT grp, upload, max(idx) FROM upload GROUP BY grp, upload")
            .step("prepare uploads")?;
        let take = |row: &rusqlite::Row<'_>| {
            Ok((GroupId(row.get(0)?), UploadId(row.get(1)?), row.get::<_, i64>(2)?.cast_unsigned()))
        };
        let rows = statement.query_map([], take).step("read uploads")?;
        rows.collect::<rusqlite::Result<_>>().step("read uploads")
    }

    /// What was deleted lately, newest first: of one study or of all.
    ///
    /// # Errors
    /// SQLite's.
    pub fn tombstones(&self, study: Option<&Uid>, limit: u32) -> Result<Vec<Tombstone>, CatalogError> {
        delete::tombstones(&*self.pool.reader()?, study, limit)
    }
}

fn failed(step: &str) -> impl FnOnce(CatalogError) -> StateMachineError {
    let step = step.to_owned();
    move |error| StateMachineError { step, source: Box::new(error) }
}

impl Catalog {
    /// Positions that survive a power loss from now on.
    fn make_safe(&self) -> Result<Vec<(GroupId, Applied)>, CatalogError> {
        // What is committed by now is in the file of the write-ahead log, or already in the database, which SQLite syncs
        // before it begins that file anew.
        let applied = apply::all_applied(&*self.pool.reader()?)?;
        for file in [self.wal(), self.path.clone()] {
            match std::fs::File::open(&file) {
                Ok(file) => file.sync_data()?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(applied)
    }

    pub(crate) fn query_headers_max(&self) -> u64 {
        self.options.query_headers_max
    }

    pub(crate) fn wal(&self) -> PathBuf {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        wal.into()
    }
}

impl StateMachine for Catalog {
    fn apply(&self, batch: &[Committed]) -> Result<Vec<Outcome>, StateMachineError> {
        let apply = || apply::apply(&mut self.writer.lock(), batch, self.options.sabotage);
        let applied = match apply() {
            // The transaction was rolled back: nothing of the batch is there.
            Err(error) if error.is_full() && self.ballast.drop_it() => {
                tracing::warn!("the disk is full: the catalogue goes on with the space it had reserved");
                apply()
            }
            applied => applied,
        };
        let outcomes = applied.map_err(failed("apply to the catalogue"))?;
        self.wait_for_long_log();
        Ok(outcomes)
    }

    fn applied(&self) -> Result<Vec<(GroupId, Applied)>, StateMachineError> {
        apply::all_applied(&self.writer.lock()).map_err(failed("read the applied positions"))
    }

    fn settle(&self) -> Result<Vec<(GroupId, LogPosition)>, StateMachineError> {
        let applied = self.make_safe().map_err(failed("sync the catalogue"))?;
        Ok(applied.into_iter().filter_map(|(group, applied)| Some((group, applied.position?))).collect())
    }

    fn export(
        &self,
        group: GroupId,
        sink: &mut dyn FnMut(Exported) -> ControlFlow<()>,
    ) -> Result<(), StateMachineError> {
        let reader = self.pool.reader().map_err(failed("export the rows of a group"))?;
        export::export(&reader, group, sink).map_err(failed("export the rows of a group"))
    }

    fn import(
        &self,
        group: GroupId,
        applied: &Applied,
        pieces: &mut dyn FnMut() -> std::io::Result<Option<Bytes>>,
    ) -> Result<(), StateMachineError> {
        let imported = import::import(&mut self.writer.lock(), group, applied, pieces);
        self.wait_for_long_log();
        imported
            // The log is purged up to these rows next: they must not be lost with the power.
            .and_then(|()| self.make_safe())
            .map(|_| ())
            .map_err(failed("import the rows of a group"))
    }

    fn bodies(&self, group: GroupId) -> Result<Vec<BodyRef>, StateMachineError> {
        let bodies = || import::bodies(&*self.pool.reader()?, group);
        bodies().map_err(failed("list the bodies of a group"))
    }

    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, StateMachineError> {
        crate::named::bodies_of(piece).map_err(failed("list the bodies that exported rows name"))
    }

    fn incomplete(&self) -> Result<Vec<GroupId>, StateMachineError> {
        let incomplete = || {
            let reader = self.pool.reader()?;
            let mut statement =
                reader.prepare_cached("SELECT grp FROM incomplete ORDER BY grp").step("prepare incomplete groups")?;
            let rows = statement.query_map([], |row| Ok(GroupId(row.get(0)?))).step("read incomplete groups")?;
            rows.collect::<rusqlite::Result<_>>().step("read incomplete groups")
        };
        incomplete().map_err(failed("read which groups are incomplete"))
    }

    fn set_incomplete(&self, group: GroupId) -> Result<(), StateMachineError> {
        let set = || {
            let writer = self.writer.lock();
            let mark = "INSERT OR IGNORE INTO incomplete (grp) VALUES (?1)";
            writer.execute(mark, [group.0]).step("mark a group incomplete").map(|_| ())
        };
        set().map_err(failed("mark a group incomplete"))
    }

    fn set_complete(&self, group: GroupId) -> Result<(), StateMachineError> {
        let set = || {
            let writer = self.writer.lock();
            writer.execute("DELETE FROM incomplete WHERE grp = ?1", [group.0]).step("mark a group complete").map(|_| ())
        };
        set().map_err(failed("mark a group complete"))
    }
}
