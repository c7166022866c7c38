//! Moving SQLite's write-ahead log into the database, beside a writer that never rests.
//!
//! SQLite begins the file of the log anew only when everything in it has been moved. Beside a busy archive there is always
//! one more transaction, and the file would grow without end: 8 GiB in a minute and a half of small images, all of which the
//! next start has to read. So the bulk is moved beside the writer, and the rest while it stands still, some milliseconds.
//!
//! ```text
//!   passive ─► less than 64 MiB in the file: enough
//!      └─────► passive again until little is left ─► writer held ─► passive: all is moved ─► the next commit begins anew
//! ```
//!
//! A disk may be slower than the writer, for the writer does not sync. So at 128 MiB the writer moves the log itself before it
//! goes on: that, and one transaction, is the bound, whatever the disk does. Only a reader that holds on to an old state can
//! stretch it; the rows of a whole group are one transaction.

use crate::{
    Catalog,
    error::{CatalogError, Step},
};
use rusqlite::Connection;
use std::sync::atomic::Ordering;

/// Bytes of the log from which on it is to begin anew; also what SQLite leaves of the file when it does.
pub(crate) const RESTART_BYTES: u64 = 64 << 20;
/// Bytes that may be left to move while the writer stands still.
const SHORT_BYTES: u64 = 4 << 20;
/// Passes beside the writer before it stands still all the same: it may be as fast as the passes.
const PASSES_MAX: usize = 4;
/// Bytes of the log at which the writer waits until it is moved.
pub(crate) const LIMIT_BYTES: u64 = 128 << 20;
/// What the log may grow by until the writer waits again, when a reader of an old state kept it as it was.
const AGAIN_BYTES: u64 = 32 << 20;
/// Bytes of a page, and of what stands before it in the log.
const FRAME_BYTES: u64 = 8192 + 24;

/// How far a pass came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    log_bytes: u64,
    left_bytes: u64,
}

impl Catalog {
    /// Moves the write-ahead log into the database if it has grown: call now and then, off the applier's thread.
    ///
    /// # Errors
    /// SQLite's.
    pub fn checkpoint(&self) -> Result<(), CatalogError> {
        if let Err(error) = self.ballast.reserve() {
            tracing::debug!(%error, "no space is kept for a full disk"); // a file system that cannot reserve
        }
        if self.wal_bytes() < self.options.checkpoint_bytes {
            return Ok(());
        }
        self.move_log()
    }

    /// Moves the log on the writer's own thread when it has reached its limit: to be called after a transaction, with the
    /// writer's lock free (a checkpoint takes its own lock before the writer's).
    pub(crate) fn wait_for_long_log(&self) {
        let grown = self.wal_bytes();
        if grown < LIMIT_BYTES {
            self.log_limit_bytes.store(LIMIT_BYTES, Ordering::Relaxed);
        } else if grown >= self.log_limit_bytes.load(Ordering::Relaxed) {
            self.log_limit_bytes.store(grown + AGAIN_BYTES, Ordering::Relaxed);
            if let Err(error) = self.move_log() {
                tracing::warn!(%error, "the catalogue's write-ahead log grows: it could not be moved into the database");
            }
        }
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.wal()).map_or(0, |wal| wal.len())
    }

    fn move_log(&self) -> Result<(), CatalogError> {
        let connection = self.checkpointer.lock();
        let mut pass = passive(&connection)?;
        if pass.log_bytes < RESTART_BYTES {
            return Ok(());
        }
        for _ in 1..PASSES_MAX {
            if pass.left_bytes <= SHORT_BYTES {
                break;
            }
            pass = passive(&connection)?;
        }
        let _standing_still = self.writer.lock();
        // A reader of an old state keeps the log as it is: then the next time.
        passive(&connection).map(|_| ())
    }
}

/// Waits for nobody: what a reader still needs stays for the next time.
fn passive(connection: &Connection) -> Result<Pass, CatalogError> {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            let frames = |at| row.get::<_, i64>(at).map(|frames| u64::try_from(frames).unwrap_or(0));
            let (log, moved) = (frames(1)?, frames(2)?);
            Ok(Pass { log_bytes: log * FRAME_BYTES, left_bytes: log.saturating_sub(moved) * FRAME_BYTES })
        })
        .step("checkpoint")
}
