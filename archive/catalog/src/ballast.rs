//! Space that is kept for the day on which the disk is full: the log goes on applying what was committed before, and a
//! catalogue that cannot write would end its node, which then could not heal by itself when there is room again.
//!
//! ```text
//!   room ─► catalog/ballast is reserved ─► SQLite says "full" ─► the ballast goes, the batch is applied again ─► room ─► …
//! ```

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Bytes of the ballast: some ten thousand rows, more than is committed before leaders stop to admit.
const BALLAST_BYTES: u64 = 32 << 20;
/// Free space, in ballasts, without which none is reserved: it is not to make the disk full itself.
const ROOM_BALLASTS: u64 = 8;

/// The reserved file.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// The ballast of the catalogue in `folder`.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { path: folder.join("ballast") }
    }

    /// Reserves it, if it is not there and there is room.
    pub(crate) fn reserve(&self) -> io::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let space = statvfs(folder)?;
        if space.f_bavail * space.f_frsize < BALLAST_BYTES * ROOM_BALLASTS {
            return Ok(());
        }
        let file = File::create(&self.path)?;
        let reserved = fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES);
        if reserved.is_err() {
            std::fs::remove_file(&self.path)?;
        }
        Ok(reserved?)
    }

    /// Gives it up; whether there was one.
    pub(crate) fn drop_it(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_its_space_and_gives_it_back_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let ballast = Ballast::of(folder.path());
        assert!(!ballast.drop_it(), "there is none yet");
        ballast.reserve().expect("room");
        ballast.reserve().expect("it is there already");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&ballast.path).expect("a file"));
        assert!(blocks * 512 >= BALLAST_BYTES, "{blocks} blocks: reserved, not only promised");
        assert!(ballast.drop_it());
        assert!(!ballast.drop_it());
    }
}
