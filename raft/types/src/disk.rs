//! The disk as a seam: one folder of flat files. The real one is files; the simulated one forgets what was not synced.

use std::{io, io::IoSlice, sync::Arc};

/// One data folder. Blocking: callers own a thread.
pub trait Disk: Send + Sync + 'static {
    /// A new empty file; fails with `AlreadyExists`. The name is durable only after [`Disk::sync_names`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// All file names of the folder, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Forgets a file. Durable only after [`Disk::sync_names`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Replaces a small file as a whole, durably: write beside, fsync, rename, fsync folder.
    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()>;
    /// Gives a file the name of another, which goes. Whoever has that one open goes on reading it. Durable only after
    /// [`Disk::sync_names`]; until then a crash leaves one or the other.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable (fsync of the folder).
    fn sync_names(&self) -> io::Result<()>;
    /// Free and total bytes of the file system.
    fn space(&self) -> io::Result<DiskSpace>;
}

/// Free and total bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// One open file. Positions are explicit, so that readers need no lock.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all parts one behind the other at `offset`.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;
    /// Makes everything written so far durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Reserves space up to `length_bytes`, so that a full disk shows here and not at a write. Bytes read as zero.
    fn allocate(&self, length_bytes: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, length_bytes: u64) -> io::Result<()>;
    /// Forgets clean pages that are held in memory, so that the next read is of the disk itself: after a failed sync the
    /// pages in memory look written and are not.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
    /// The same for a part of the file.
    fn forget_cached_part(&self, offset: u64, length_bytes: u64) -> io::Result<()> {
        let _ = (offset, length_bytes);
        Ok(())
    }
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
