//! The real disk: one folder of files, locked against a second process.

use raft_types::{Disk, DiskFile, DiskSpace};
use rustix::fs::{Advice, FallocateFlags, FlockOperation};
use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A folder as a [`Disk`].
#[derive(Debug)]
pub struct FolderDisk {
    folder: PathBuf,
    names: File,
    _lock: File,
}

impl FolderDisk {
    /// Opens `folder`, making it if needed, and locks it; fails with `WouldBlock` while another process holds it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("LOCK"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let names = File::open(folder)?;
        if let Some(parent) = folder.parent() {
            let here = Path::new(".");
            File::open(if parent.as_os_str().is_empty() { here } else { parent })?.sync_all()?;
        }
        Ok(Self { folder: folder.to_path_buf(), names, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Disk for FolderDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.folder.join(name))?;
        Ok(Arc::new(FolderFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        Ok(Arc::new(FolderFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let beside = self.folder.join(format!("{name}.new"));
        let mut file = File::create(&beside)?;
        file.write_all(contents)?;
        file.sync_all()?;
        std::fs::rename(&beside, self.folder.join(name))?;
        self.sync_names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.names.sync_all()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let space = rustix::fs::fstatvfs(&self.names)?;
        Ok(DiskSpace {
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        })
    }
}

struct FolderFile(File);

impl DiskFile for FolderFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, mut offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        // 512: safely below IOV_MAX (1024 on Linux).
        for parts in parts.chunks(512) {
            let mut parts = parts.to_vec();
            let mut left = &mut parts[..];
            while !left.is_empty() {
                let written = match rustix::io::pwritev(&self.0, left, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                offset += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, length_bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length_bytes) {
            // A file system without reservation: the length alone still keeps positions right.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(length_bytes),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(()),
        }
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.0.set_len(length_bytes)
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }

    fn forget_cached_part(&self, offset: u64, length_bytes: u64) -> io::Result<()> {
        match std::num::NonZeroU64::new(length_bytes) {
            Some(length) => Ok(rustix::fs::fadvise(&self.0, offset, Some(length), Advice::DontNeed)?),
            None => Ok(()), // no length would mean: up to the end
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_of_the_folder_is_told_so() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let held = FolderDisk::open(folder.path()).expect("free");
        let second = FolderDisk::open(folder.path()).expect_err("locked");
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        FolderDisk::open(folder.path()).expect("free again");
    }

    #[test]
    fn many_parts_land_one_behind_the_other() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let disk = FolderDisk::open(folder.path()).expect("free");
        let file = disk.create("a").expect("new");
        let pieces: Vec<[u8; 3]> = (0..1_500u32).map(|n| [n as u8, 1, 2]).collect();
        let parts: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_at(5, &parts).expect("written");
        let mut back = vec![0; 4_500];
        assert_eq!(file.read_at(5, &mut back).expect("read"), 4_500);
        assert_eq!(back, pieces.concat());
        assert_eq!(disk.list().expect("list"), ["LOCK", "a"]);
    }
}
