//! A state machine and a node that are only remembered, and a store that misbehaves as stores do.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub(crate) mod faulty;

use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory, path::Path};
use parking_lot::Mutex;
use raft_tier::{ClusterStore, Keep, Options, Repository, Source, WriteCheck};
use raft_types::{
    Applied, BlockAddress, BodyRef, BoxFuture, Clock, Committed, Exported, GroupId, LogPosition, Outcome, StateMachine,
    StateMachineError,
};
use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) const CLUSTER: Uuid = Uuid::from_u128(7);
/// Small, so that a test has many packs and parts.
pub(crate) const SMALL: Options = Options { memory_bytes: 12 << 20, pack_bytes: 4_000, rows_bytes: 300 };

/// Rows: which bodies a group names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) applied: Option<LogPosition>,
    pub(crate) bodies: BTreeMap<u64, u32>,
}

/// A state machine whose rows are bodies and nothing else.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) rows: Mutex<BTreeMap<GroupId, Rows>>,
    incomplete: Mutex<Vec<GroupId>>,
}

fn failed(step: &str, source: impl std::error::Error + Send + Sync + 'static) -> StateMachineError {
    StateMachineError { step: step.into(), source: Box::new(source) }
}

impl StateMachine for Shelf {
    fn apply(&self, _: &[Committed]) -> Result<Vec<Outcome>, StateMachineError> {
        unreachable!("nothing is applied here")
    }
    fn applied(&self) -> Result<Vec<(GroupId, Applied)>, StateMachineError> {
        let rows = self.rows.lock();
        Ok(rows.iter().map(|(group, rows)| (*group, Applied { position: rows.applied, membership: None })).collect())
    }
    fn settle(&self) -> Result<Vec<(GroupId, LogPosition)>, StateMachineError> {
        Ok(Vec::new())
    }
    fn export(
        &self,
        group: GroupId,
        sink: &mut dyn FnMut(Exported) -> ControlFlow<()>,
    ) -> Result<(), StateMachineError> {
        let rows = self.rows.lock().get(&group).cloned().unwrap_or_default();
        let mut flow = sink(Exported::At(Applied { position: rows.applied, membership: None }));
        let bodies: Vec<(u64, u32)> = rows.bodies.into_iter().collect();
        for some in bodies.chunks(7) {
            if flow.is_break() {
                break;
            }
            flow = sink(Exported::Piece(postcard::to_allocvec(some).unwrap().into()));
        }
        Ok(())
    }
    fn import(
        &self,
        group: GroupId,
        applied: &Applied,
        pieces: &mut dyn FnMut() -> io::Result<Option<Bytes>>,
    ) -> Result<(), StateMachineError> {
        let mut bodies = BTreeMap::new();
        while let Some(piece) = pieces().map_err(|error| failed("read pieces", error))? {
            let some: Vec<(u64, u32)> = postcard::from_bytes(&piece).map_err(|error| failed("import", error))?;
            bodies.extend(some);
        }
        self.rows.lock().insert(group, Rows { applied: applied.position, bodies });
        self.incomplete.lock().push(group);
        Ok(())
    }
    fn bodies(&self, group: GroupId) -> Result<Vec<BodyRef>, StateMachineError> {
        let rows = self.rows.lock().get(&group).cloned().unwrap_or_default();
        Ok(rows.bodies.into_iter().map(|(index, length_bytes)| BodyRef { index, length_bytes }).collect())
    }
    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, StateMachineError> {
        let some: Vec<(u64, u32)> = postcard::from_bytes(piece).map_err(|error| failed("read a piece", error))?;
        Ok(some.into_iter().map(|(index, length_bytes)| BodyRef { index, length_bytes }).collect())
    }
    fn incomplete(&self) -> Result<Vec<GroupId>, StateMachineError> {
        Ok(self.incomplete.lock().clone())
    }
    fn set_incomplete(&self, group: GroupId) -> Result<(), StateMachineError> {
        self.incomplete.lock().push(group);
        Ok(())
    }
    fn set_complete(&self, group: GroupId) -> Result<(), StateMachineError> {
        self.incomplete.lock().retain(|other| *other != group);
        Ok(())
    }
}

/// Bytes that follow from their address, and that count how many of them are in memory.
struct Counted(Vec<u8>, Arc<AtomicU64>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len() as u64, SeqCst);
    }
}

pub(crate) fn content(address: BlockAddress, length: u32) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&address.group.0.to_le_bytes()).update(&address.index.to_le_bytes());
    let mut bytes = vec![0; length as usize];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A node with a [`Shelf`].
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) shelf: Shelf,
    pub(crate) groups: u32,
    pub(crate) held_bytes: Arc<AtomicU64>,
    pub(crate) held_bytes_max: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// A body that is gone, and goes from the rows when it is asked for.
    pub(crate) vanishes: Mutex<Option<BlockAddress>>,
    /// Rows end without their end.
    pub(crate) rows_break: AtomicBool,
}

impl Fake {
    pub(crate) fn new(groups: u32) -> Arc<Self> {
        Arc::new(Self { groups, ..Self::default() })
    }

    /// Puts a body into the rows of a group.
    pub(crate) fn put(&self, group: u32, length: u32) -> u64 {
        let mut all = self.shelf.rows.lock();
        let rows = all.entry(GroupId(group)).or_default();
        let index = rows.applied.map_or(0, |applied| applied.index + 1);
        rows.applied = Some(LogPosition { term: 1, index });
        rows.bodies.insert(index, length);
        index
    }

    pub(crate) fn delete(&self, group: u32, index: u64) {
        let mut all = self.shelf.rows.lock();
        let rows = all.entry(GroupId(group)).or_default();
        if rows.bodies.remove(&index).is_some()
            && let Some(applied) = &mut rows.applied
        {
            applied.index += 1;
        }
    }
}

impl Source for Fake {
    fn cluster_id(&self) -> Uuid {
        CLUSTER
    }
    fn node(&self) -> String {
        "n1".into()
    }
    fn groups(&self) -> Vec<GroupId> {
        (1..=self.groups).map(GroupId).collect()
    }
    fn rows(&self, group: GroupId) -> BoxFuture<'_, Result<mpsc::Receiver<Result<Option<Exported>, String>>, String>> {
        let mut all = Vec::new();
        self.shelf
            .export(group, &mut |next| {
                all.push(Ok(Some(next)));
                ControlFlow::Continue(())
            })
            .unwrap();
        if !self.rows_break.load(SeqCst) {
            all.push(Ok(None));
        }
        let (sender, receiver) = mpsc::channel(all.len());
        for next in all {
            sender.try_send(next).unwrap();
        }
        Box::pin(async move { Ok(receiver) })
    }
    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, String> {
        self.shelf.bodies_of(piece).map_err(|error| error.to_string())
    }
    fn body(&self, address: BlockAddress, length: u32) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            self.reads.fetch_add(1, SeqCst);
            if self.vanishes.lock().take_if(|gone| *gone == address).is_some() {
                self.delete(address.group.0, address.index);
                return Err("held by no reachable replica".into());
            }
            let now = self.held_bytes.fetch_add(u64::from(length), SeqCst) + u64::from(length);
            self.held_bytes_max.fetch_max(now, SeqCst);
            Ok(Bytes::from_owner(Counted(content(address, length), Arc::clone(&self.held_bytes))))
        })
    }
}

/// A clock that moves a second with each look.
#[derive(Default)]
pub(crate) struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn unix_ms(&self) -> u64 {
        1_764_115_200_000 + 1000 * self.0.fetch_add(1, SeqCst)
    }
}

/// Where a restore puts bodies; may fail after some.
#[derive(Default)]
pub(crate) struct Box2 {
    pub(crate) held: Mutex<BTreeMap<(GroupId, u64), Bytes>>,
    pub(crate) fails_after: AtomicU64,
}

impl Box2 {
    pub(crate) fn new(fails_after: u64) -> Arc<Self> {
        Arc::new(Self { fails_after: AtomicU64::new(fails_after), ..Self::default() })
    }
}

impl Keep for Box2 {
    fn holds(&self, group: GroupId, body: BodyRef) -> bool {
        self.held.lock().get(&(group, body.index)).is_some_and(|held| held.len() == body.length_bytes as usize)
    }
    fn keep(&self, group: GroupId, bodies: Vec<(u64, Bytes)>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if self.fails_after.load(SeqCst) == 0 {
                return Err("the disk is full".into());
            }
            self.fails_after.fetch_sub(1, SeqCst);
            let mut held = self.held.lock();
            held.extend(bodies.into_iter().map(|(index, body)| ((group, index), Bytes::copy_from_slice(&body))));
            Ok(())
        })
    }
}

pub(crate) fn over(store: Arc<dyn ObjectStore>) -> ClusterStore {
    Repository::over(store, Path::from("some/prefix"), WriteCheck::ReadBack, "memory://").cluster(CLUSTER)
}

pub(crate) fn memory() -> (Arc<InMemory>, ClusterStore) {
    let memory = Arc::new(InMemory::new());
    let store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&memory);
    (memory, over(store))
}
