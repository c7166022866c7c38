//! A disk that forgets: what was not synced is dropped, torn or reordered by a crash.
//!
//! Every file has *live* bytes, as a running process sees them, and *durable* bytes, as the last sync left them, plus the
//! writes in between. [`CrashDisk::crash`] makes the disk that a machine finds after the power came back: durable bytes
//! and any subset of the unsynced 512-byte sectors; names as of the last sync of the folder, or newer.

use parking_lot::Mutex;
use raft_types::{Disk, DiskFile, DiskSpace, Seed};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    sync::Arc,
};

const SECTOR_BYTES: usize = 512;

/// What a crash does with bytes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All are lost.
    Dropped,
    /// All are there: the kill of a process, not of a machine.
    Kept,
    /// Each sector is there or not, by chance: torn and reordered.
    Torn,
}

/// The disk. Clones share it.
#[derive(Clone, Default)]
pub struct CrashDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<String, Arc<Mutex<Body>>>,
    durable: BTreeMap<String, Arc<Mutex<Body>>>,
    faults: Faults,
    /// A sync has failed since the faults were set.
    sync_failed: bool,
}

/// Failures to come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// So many syncs succeed, the next fails, as do all after it.
    pub syncs_left: Option<u64>,
    /// Only one sync fails: those after it succeed, and what the failed one should have written stays lost.
    pub syncs_recover: bool,
    /// So many writes succeed, the next fails, as do all after it.
    pub writes_left: Option<u64>,
    /// Bytes that all files may reserve together.
    pub capacity_bytes: Option<u64>,
    /// Syncs succeed and make nothing durable: a sabotage that a simulation must notice.
    pub syncs_lie: bool,
}

#[derive(Default, Clone)]
struct Body {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: std::collections::BTreeSet<usize>,
}

impl Body {
    /// Makes what was written since the last sync durable, and nothing else: most of a segment is older.
    fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = (sector * SECTOR_BYTES).min(self.live.len());
            let end = (start + SECTOR_BYTES).min(self.live.len());
            self.durable[start..end].copy_from_slice(&self.live[start..end]);
        }
    }
}

struct CrashFile {
    body: Arc<Mutex<Body>>,
    disk: Arc<Mutex<Inner>>,
}

impl CrashDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk after a crash now; this one goes on as if nothing had happened.
    #[must_use]
    pub fn crash(&self, unsynced: Unsynced, seed: &dyn Seed) -> Self {
        let inner = self.inner.lock();
        let names = if unsynced == Unsynced::Dropped || (unsynced == Unsynced::Torn && seed.next().is_multiple_of(2)) {
            &inner.durable
        } else {
            &inner.live
        };
        let mut after = BTreeMap::new();
        for (name, body) in names {
            let body = body.lock();
            let mut bytes = body.durable.clone();
            if unsynced != Unsynced::Dropped
                && bytes.len() < body.live.len()
                && (unsynced == Unsynced::Kept || seed.next().is_multiple_of(2))
            {
                bytes.resize(body.live.len(), 0);
            }
            for sector in &body.dirty {
                if unsynced == Unsynced::Dropped || (unsynced == Unsynced::Torn && seed.next().is_multiple_of(2)) {
                    continue;
                }
                let start = (sector * SECTOR_BYTES).min(bytes.len()).min(body.live.len());
                let end = (start + SECTOR_BYTES).min(bytes.len()).min(body.live.len());
                bytes[start..end].copy_from_slice(&body.live[start..end]);
            }
            if unsynced == Unsynced::Kept {
                bytes.clone_from(&body.live);
            }
            let body = Body { live: bytes.clone(), durable: bytes, dirty: Default::default() };
            after.insert(name.clone(), Arc::new(Mutex::new(body)));
        }
        let inner = Inner { durable: after.clone(), live: after, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Failures from now on.
    pub fn fail(&self, faults: Faults) {
        let mut inner = self.inner.lock();
        inner.faults = faults;
        inner.sync_failed = false;
    }

    /// Whether a sync has failed since [`CrashDisk::fail`].
    #[must_use]
    pub fn has_failed_a_sync(&self) -> bool {
        self.inner.lock().sync_failed
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.inner.lock().used_bytes()
    }

    /// Flips bits of a file, as rot does: both in what is read and in what is durable.
    pub fn rot(&self, name: &str, offset: u64, mask: u8) {
        let inner = self.inner.lock();
        if let Some(body) = inner.live.get(name) {
            let mut body = body.lock();
            let at = offset as usize;
            if at < body.live.len() {
                body.live[at] ^= mask;
            }
            if at < body.durable.len() {
                body.durable[at] ^= mask;
            }
        }
    }
}

impl Disk for CrashDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner.lock();
        if inner.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let body = Arc::new(Mutex::new(Body::default()));
        inner.live.insert(name.to_owned(), Arc::clone(&body));
        Ok(Arc::new(CrashFile { body, disk: Arc::clone(&self.inner) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.lock();
        let body = inner.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(CrashFile { body: Arc::clone(body), disk: Arc::clone(&self.inner) }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner.lock().live.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.lock().live.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.faults.take_write()?;
        inner.take_sync()?;
        let body = Body { live: contents.to_vec(), durable: contents.to_vec(), dirty: Default::default() };
        let body = Arc::new(Mutex::new(body));
        inner.live.insert(name.to_owned(), Arc::clone(&body));
        inner.durable.insert(name.to_owned(), body);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.faults.take_write()?;
        let body = inner.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.live.insert(to.to_owned(), body);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.take_sync()?;
        inner.durable = inner.live.clone();
        Ok(())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let inner = self.inner.lock();
        let total_bytes = inner.faults.capacity_bytes.unwrap_or(1 << 40);
        Ok(DiskSpace { free_bytes: total_bytes.saturating_sub(inner.used_bytes()), total_bytes })
    }
}

impl Inner {
    fn used_bytes(&self) -> u64 {
        self.live.values().map(|body| body.lock().live.len() as u64).sum()
    }

    fn take_sync(&mut self) -> io::Result<()> {
        let taken = take(&mut self.faults.syncs_left, "injected: fsync failed");
        if taken.is_err() {
            self.sync_failed = true;
            if self.faults.syncs_recover {
                self.faults.syncs_left = None;
            }
        }
        taken
    }
}

impl Faults {
    fn take_write(&mut self) -> io::Result<()> {
        take(&mut self.writes_left, "injected: write failed")
    }
}

fn take(left: &mut Option<u64>, why: &str) -> io::Result<()> {
    match left {
        Some(0) => Err(io::Error::other(why.to_owned())),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let body = self.body.lock();
        let start = (offset as usize).min(body.live.len());
        let count = buffer.len().min(body.live.len() - start);
        buffer[..count].copy_from_slice(&body.live[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.disk.lock().faults.take_write()?;
        let mut body = self.body.lock();
        let mut at = offset as usize;
        for part in parts {
            let end = at + part.len();
            if body.live.len() < end {
                body.live.resize(end, 0);
            }
            body.live[at..end].copy_from_slice(part);
            if !part.is_empty() {
                body.dirty.extend(at / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
            }
            at = end;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (taken, lies) = {
            let mut disk = self.disk.lock();
            (disk.take_sync(), disk.faults.syncs_lie)
        };
        let mut body = self.body.lock();
        if taken.is_err() {
            // A failed sync turns pages clean without writing them: the next one would succeed and prove nothing.
            body.dirty.clear();
        } else if !lies {
            body.sync();
        }
        taken
    }

    fn allocate(&self, length_bytes: u64) -> io::Result<()> {
        let inner = self.disk.lock();
        let over = |capacity| inner.used_bytes() + length_bytes > capacity;
        if inner.faults.capacity_bytes.is_some_and(over) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        drop(inner);
        self.set_len(length_bytes)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        let mut body = self.body.lock();
        body.live.resize(length_bytes as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.body.lock().live.len() as u64)
    }
}
