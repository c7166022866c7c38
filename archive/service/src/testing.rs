//! A log in memory that feeds a real catalogue: for tests of the faces, where replication is not the subject.

use archive_catalog::{Catalog, CatalogOptions};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_types::{
    BlockAddress, BoxFuture, Clock, ClusterStatus, Command, Committed, CommittedEntry, Document, DocumentError,
    Documents, GroupId, GroupStatus, LogPosition, Propose, ProposeError, Proposed, ReadError, StateMachine,
    StoredObject, Verdict, Verified, Versioned,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{Archive, ServiceSettings};

/// How many groups a [`LocalLog`] has.
const GROUPS: u32 = 4;

/// One replica, no disk: proposals are applied at once.
pub struct LocalLog {
    catalog: Arc<Catalog>,
    state: Mutex<BTreeMap<GroupId, Vec<Bytes>>>,
    quorum: AtomicBool,
    knows_groups: AtomicBool,
    aborts: AtomicUsize,
    /// Blocks that a verification finds damaged.
    damaged: Mutex<BTreeSet<BlockAddress>>,
    silent: AtomicBool,
    leads: AtomicBool,
    verified: AtomicUsize,
    together: Mutex<Option<Arc<tokio::sync::Barrier>>>,
}

impl LocalLog {
    /// A log over `catalog`.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            state: Mutex::default(),
            quorum: AtomicBool::new(true),
            knows_groups: AtomicBool::new(true),
            aborts: AtomicUsize::new(0),
            damaged: Mutex::default(),
            silent: AtomicBool::new(false),
            leads: AtomicBool::new(true),
            verified: AtomicUsize::new(0),
            together: Mutex::default(),
        })
    }

    /// Takes the majority away, or gives it back.
    pub fn set_quorum(&self, quorum: bool) {
        self.quorum.store(quorum, Ordering::SeqCst);
    }

    /// Forgets which groups there are, as a node that is just starting, or knows them again.
    pub fn set_knows_groups(&self, known: bool) {
        self.knows_groups.store(known, Ordering::SeqCst);
    }

    /// From now on a verification finds this block damaged on too many disks.
    pub fn damage(&self, address: BlockAddress) {
        self.damaged.lock().insert(address);
    }

    /// Whether too few replicas answer a verification.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// Whether this node leads the groups.
    pub fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::SeqCst);
    }

    /// From now on proposals commit only so many together, as they do behind a disk that is slow; 0: each at once.
    pub fn set_commits_together(&self, count: usize) {
        *self.together.lock() = (count > 0).then(|| Arc::new(tokio::sync::Barrier::new(count)));
    }

    /// How many objects were verified.
    #[must_use]
    pub fn verified(&self) -> usize {
        self.verified.load(Ordering::SeqCst)
    }

    /// How many uploads were given up.
    #[must_use]
    pub fn aborts(&self) -> usize {
        self.aborts.load(Ordering::SeqCst)
    }

    /// How many bodies are held, orphans included.
    #[must_use]
    pub fn bodies(&self) -> usize {
        self.state.lock().values().flatten().filter(|body| !body.is_empty()).count()
    }

    fn apply(&self, group: GroupId, command: Command) -> Result<Proposed, ProposeError> {
        if let Ok(archive_catalog::Command::Abort { uploads }) = Versioned::decode(&command.head) {
            self.aborts.fetch_add(uploads.len(), Ordering::SeqCst);
        }
        let mut state = self.state.lock();
        let log = state.entry(group).or_default();
        let position = LogPosition { term: 1, index: log.len() as u64 };
        let entry = CommittedEntry::Command { head: command.head, body_len: command.body.len() as u64 };
        log.push(command.body);
        let mut outcomes =
            self.catalog.apply(&[Committed { group, position, entry }]).map_err(|_| ProposeError::Unknown { group })?;
        let outcome = outcomes.pop().ok_or(ProposeError::Unknown { group })?;
        Ok(Proposed { address: BlockAddress { group, index: position.index }, position, outcome })
    }
}

impl Propose for LocalLog {
    fn propose(&self, group: GroupId, command: Command, _: Duration) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        Box::pin(async move {
            if !self.quorum.load(Ordering::SeqCst) {
                return Err(ProposeError::NoQuorum { group });
            }
            let together = self.together.lock().clone();
            if let Some(together) = together {
                together.wait().await;
            }
            self.apply(group, command)
        })
    }

    fn read_index(&self, groups: Vec<GroupId>) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            if self.quorum.load(Ordering::SeqCst) {
                Ok(())
            } else {
                Err(ReadError::NoQuorum { group: groups.first().copied().unwrap_or_default() })
            }
        })
    }

    fn read(&self, address: BlockAddress, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        Box::pin(async move {
            let state = self.state.lock();
            let index = usize::try_from(address.index).unwrap_or(usize::MAX);
            let body = state.get(&address.group).and_then(|log| log.get(index)).ok_or(ReadError::Absent { address })?;
            let (start, end) = (range.start, range.end);
            if start > end || end > body.len() as u64 {
                return Err(ReadError::OutOfRange { address, start, end });
            }
            let (start, end) = (usize::try_from(start), usize::try_from(end));
            Ok(body.slice(start.unwrap_or(0)..end.unwrap_or(0)))
        })
    }

    fn verify(&self, object: StoredObject) -> BoxFuture<'_, Verified> {
        Box::pin(async move {
            self.verified.fetch_add(1, Ordering::SeqCst);
            let state = self.state.lock();
            let (mut hasher, mut whole) = (blake3::Hasher::new(), true);
            for part in &object.bodies {
                let index = usize::try_from(part.index).unwrap_or(usize::MAX);
                let body = state.get(&object.group).and_then(|log| log.get(index));
                body.into_iter().for_each(|body| _ = hasher.update(body));
                whole &= !self.damaged.lock().contains(&BlockAddress { group: object.group, index: part.index });
            }
            let verdict = if self.silent.load(Ordering::SeqCst) {
                Verdict::Unknown
            } else if whole && *hasher.finalize().as_bytes() == object.digest {
                Verdict::Quorum
            } else {
                Verdict::Damaged
            };
            let one = |wanted| u32::from(verdict == wanted);
            let (sound, damaged, silent) = (one(Verdict::Quorum), one(Verdict::Damaged), one(Verdict::Unknown));
            Verified { verdict, sound, damaged, silent }
        })
    }

    fn groups(&self) -> Vec<GroupId> {
        (1..=GROUPS).map(GroupId).collect()
    }

    fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        let known = self.knows_groups.load(Ordering::SeqCst);
        known.then(|| GroupId(1 + u32::from(blake3::hash(key).as_bytes()[0]) % GROUPS))
    }

    fn can_commit(&self, _: GroupId) -> bool {
        self.quorum.load(Ordering::SeqCst)
    }

    fn status(&self) -> ClusterStatus {
        let leader = if self.leads.load(Ordering::SeqCst) { "n1" } else { "n2" };
        let led = |id| GroupStatus {
            id,
            leader: Some(leader.into()),
            term: 1,
            voters: vec!["n1".into()],
            voter_ids: Vec::new(),
            learners: Vec::new(),
            last: None,
            committed: None,
            applied: None,
            purged: None,
        };
        ClusterStatus {
            answered_by: "n1".into(),
            phase: "ready".into(),
            ready: true,
            groups: self.groups().into_iter().map(led).collect(),
            ..ClusterStatus::default()
        }
    }
}

/// One of several nodes over one log in memory, for tests of what a peer goes on with: it has a name of its own, leads or not,
/// and may die.
pub struct LocalNode {
    log: Arc<LocalLog>,
    name: &'static str,
    leads: AtomicBool,
    dead: AtomicBool,
}

impl LocalNode {
    /// Whether this node leads the groups.
    pub fn set_leads(&self, leads: bool) {
        self.leads.store(leads, Ordering::SeqCst);
    }

    /// From now on nothing of this node reaches the log.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }
}

impl Propose for LocalNode {
    fn propose(
        &self,
        group: GroupId,
        command: Command,
        within: Duration,
    ) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        match self.dead.load(Ordering::SeqCst) {
            true => Box::pin(async move { Err(ProposeError::NoQuorum { group }) }),
            false => self.log.propose(group, command, within),
        }
    }

    fn read_index(&self, groups: Vec<GroupId>) -> BoxFuture<'_, Result<(), ReadError>> {
        match self.dead.load(Ordering::SeqCst) {
            true => Box::pin(async { Err(ReadError::NoQuorum { group: GroupId::default() }) }),
            false => self.log.read_index(groups),
        }
    }

    fn read(&self, address: BlockAddress, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        self.log.read(address, range)
    }

    fn verify(&self, object: StoredObject) -> BoxFuture<'_, Verified> {
        self.log.verify(object)
    }

    fn groups(&self) -> Vec<GroupId> {
        self.log.groups()
    }

    fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        self.log.group_of(key)
    }

    fn can_commit(&self, group: GroupId) -> bool {
        !self.dead.load(Ordering::SeqCst) && self.log.can_commit(group)
    }

    fn status(&self) -> ClusterStatus {
        let leader = if self.leads.load(Ordering::SeqCst) { self.name } else { "another" };
        let mut status = self.log.status();
        status.groups.iter_mut().for_each(|group| group.leader = Some(leader.into()));
        ClusterStatus { answered_by: self.name.into(), ..status }
    }
}

/// Documents in memory, known at once; several archives may share them.
#[derive(Default)]
pub struct LocalDocuments {
    held: Mutex<BTreeMap<String, Document>>,
    changed: tokio::sync::Notify,
}

impl LocalDocuments {
    /// None is set.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl Documents for LocalDocuments {
    fn next<'a>(&'a self, key: &'a str, seen: Option<u64>) -> BoxFuture<'a, Document> {
        Box::pin(async move {
            loop {
                // Before the look: a change behind it is heard of.
                let changed = self.changed.notified();
                let document = self.held.lock().get(key).cloned().unwrap_or_default();
                if seen != Some(document.version) {
                    return document;
                }
                changed.await;
            }
        })
    }

    fn put<'a>(&'a self, key: &'a str, expected: u64, bytes: Bytes) -> BoxFuture<'a, Result<u64, DocumentError>> {
        Box::pin(async move {
            let mut held = self.held.lock();
            let document = held.entry(key.to_owned()).or_default();
            if document.version != expected {
                return Err(DocumentError::Changed { version: document.version });
            }
            if bytes.len() > 256 << 10 {
                return Err(DocumentError::Refused("the document is too large".into()));
            }
            *document = Document { version: expected + 1, bytes };
            self.changed.notify_waiters();
            Ok(expected + 1)
        })
    }
}

/// A clock that stands still.
pub struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// An archive over a catalogue in `folder` and a log in memory.
///
/// # Panics
/// When the catalogue cannot be opened.
#[must_use]
pub fn archive(folder: &Path, settings: ServiceSettings) -> (Archive, Arc<LocalLog>) {
    let (archive, log) = archive_with(folder, settings, LocalDocuments::new());
    archive.peers().learn(&Document::default());
    archive.index_list().learn(&Document::default());
    (archive, log)
}

/// The same by the clock `clock`.
///
/// # Panics
/// When the catalogue cannot be opened.
#[must_use]
pub fn archive_at(folder: &Path, settings: ServiceSettings, clock: Arc<dyn Clock>) -> (Archive, Arc<LocalLog>) {
    let (archive, log) = archive_of(folder, settings, LocalDocuments::new(), clock);
    archive.peers().learn(&Document::default());
    archive.index_list().learn(&Document::default());
    (archive, log)
}

/// An archive that is node `name` over the log and the rows of another one, with the same settings and clock; it leads nothing.
#[must_use]
pub fn archive_beside(archive: &Archive, log: &Arc<LocalLog>, name: &'static str) -> (Archive, Arc<LocalNode>) {
    let node = LocalNode { log: Arc::clone(log), name, leads: AtomicBool::new(false), dead: AtomicBool::new(false) };
    let node = Arc::new(node);
    let propose: Arc<dyn Propose> = Arc::<LocalNode>::clone(&node);
    (archive.over(propose, LocalDocuments::new()), node)
}

/// A clock that goes with the time of tokio, which a test may stop and move.
pub struct TestClock(tokio::time::Instant);

impl TestClock {
    /// One that begins now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// The same with these documents, of which it knows nothing before [`crate::Peers::follow`] runs.
///
/// # Panics
/// When the catalogue cannot be opened.
#[must_use]
pub fn archive_with(
    folder: &Path,
    settings: ServiceSettings,
    documents: Arc<LocalDocuments>,
) -> (Archive, Arc<LocalLog>) {
    archive_of(folder, settings, documents, Arc::new(StoppedClock))
}

fn archive_of(
    folder: &Path,
    settings: ServiceSettings,
    documents: Arc<LocalDocuments>,
    clock: Arc<dyn Clock>,
) -> (Archive, Arc<LocalLog>) {
    let catalog = Catalog::open(folder, CatalogOptions::default());
    let catalog = Arc::new(catalog.unwrap_or_else(|error| panic!("open a catalogue for a test: {error}")));
    let log = LocalLog::new(Arc::clone(&catalog));
    let propose: Arc<dyn Propose> = Arc::<LocalLog>::clone(&log);
    let registry = prometheus::Registry::new();
    (Archive::new(catalog, propose, documents, clock, settings, &registry), log)
}
