//! Making a backup: for each group its rows of one moment, then the bodies that these name and no pack holds yet.
//!
//! ```text
//!   rows(group) ─ pieces ─► zstd ─► parts ─► store, checked          previous manifest ─► its packs of the group ─► their indexes
//!                   └─► bodies that they name ─ minus those that packs hold ─► 8 read ahead ─► pack of 64 MiB ─► 2 on their way
//!   all groups done ─► manifest
//! ```
//!
//! What the rows name is taken from the very pieces that are stored, so that rows and bodies belong together (B3). A body
//! that cannot be had may have been deleted meanwhile: the group is begun again with its newer rows.

use crate::{
    ClusterStore, GroupEntry, Manifest, ObjectEntry, PackEntry, Progress, TierError, Totals,
    lease::{Lease, Work},
    pack::{self, Builder, End, Pack, Sealed},
    rows::{PartBuilder, squeeze},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use raft_types::{BlockAddress, BodyRef, BoxFuture, ByteBudget, Clock, Exported, GroupId, KeptDocument, LogPosition};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinSet};
use uuid::Uuid;

/// The rows of one group as they come: the moment, the pieces, and an explicit end.
pub type RowsReceiver = mpsc::Receiver<Result<Option<Exported>, String>>;

/// What is backed up. Made by the node.
pub trait Source: Send + Sync + 'static {
    /// The cluster.
    fn cluster_id(&self) -> Uuid;
    /// Name of the node that works, for people.
    fn node(&self) -> String;
    /// All data groups.
    fn groups(&self) -> Vec<GroupId>;
    /// The rows of a group, of a moment at which everything is applied that was acknowledged before the call. `None` is
    /// their end: a channel that closes without it has lost them.
    fn rows(&self, group: GroupId) -> BoxFuture<'_, Result<RowsReceiver, String>>;
    /// The bodies that the rows in a piece name. Blocking.
    ///
    /// # Errors
    /// When the piece is not understood.
    fn bodies_of(&self, piece: &[u8]) -> Result<Vec<BodyRef>, String>;
    /// What the nodes of the cluster have agreed on beside the images.
    fn documents(&self) -> Vec<KeptDocument> {
        Vec::new()
    }
    /// A whole body, verified.
    fn body(&self, address: BlockAddress, length_bytes: u32) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// Bounds of a job.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Memory for bodies and rows on their way, in bytes. Default 160 MiB.
    pub memory_bytes: u64,
    /// Bodies in a pack, in bytes, about. Default 64 MiB, and less where the memory is.
    pub pack_bytes: u64,
    /// Rows in one object, compressed, in bytes, about. Default 16 MiB.
    pub rows_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { memory_bytes: 160 << 20, pack_bytes: 64 << 20, rows_bytes: 16 << 20 }
    }
}

/// Bodies that are read at the same time.
const READ_AHEAD: usize = 8;
/// Packs that are sent at the same time, beside the one that is filled.
const UPLOADS_MAX: usize = 2;
/// Indexes of packs that are read at the same time.
const INDEXES_AHEAD: usize = 16;
/// Of the end of a pack so much is read at first: the index of 4,000 bodies.
const END_BYTES: u64 = 64 << 10;
/// How often a group is begun anew because a body was deleted meanwhile.
const GROUP_TRIES: u32 = 3;

impl Options {
    /// What is read ahead must find memory while a pack is full and another is on its way, else nothing would move.
    fn pack_bytes(&self) -> u64 {
        let ahead = (READ_AHEAD as u64 + 1) << 20;
        self.pack_bytes.min(self.memory_bytes.saturating_sub(ahead) / 2).max(1)
    }
}

/// Makes a backup of `source` in `store`, and answers its manifest. `nonce` tells it from another that begins in the same
/// millisecond.
///
/// # Errors
/// When the store or the node did not do what was asked of them: then there is no new backup.
pub async fn create(
    source: Arc<dyn Source>,
    store: &ClusterStore,
    options: Options,
    clock: &dyn Clock,
    nonce: u32,
    progress: &Progress,
) -> Result<Manifest, TierError> {
    let started_unix_ms = clock.unix_ms();
    let id = format!("{started_unix_ms}-{nonce:x}");
    let lease = Lease::take(store, Work::Backup, &id).await?;
    let mut job =
        Job { source, store: store.clone(), options, budget: ByteBudget::new(options.memory_bytes), lease, progress };
    let made = job.run(&id, started_unix_ms, clock).await;
    job.lease.release().await;
    made
}

struct Job<'a> {
    source: Arc<dyn Source>,
    store: ClusterStore,
    options: Options,
    budget: ByteBudget,
    lease: Lease,
    progress: &'a Progress,
}

/// Why a group was not done.
enum GroupError {
    /// A body that its rows named could not be had: they may have changed.
    Body(TierError),
    Other(TierError),
}

impl From<TierError> for GroupError {
    fn from(error: TierError) -> Self {
        Self::Other(error)
    }
}

impl Job<'_> {
    async fn run(&mut self, id: &str, started_unix_ms: u64, clock: &dyn Clock) -> Result<Manifest, TierError> {
        let groups = self.source.groups();
        if groups.is_empty() {
            return Err(TierError::Source { what: "its groups".into(), why: "the cluster is not formed yet".into() });
        }
        self.progress.set_groups(groups.len() as u64);
        let previous = self.previous().await?;
        let mut entries = Vec::with_capacity(groups.len());
        for group in &groups {
            let before =
                previous.as_ref().and_then(|manifest| manifest.groups.iter().find(|entry| entry.group == *group));
            entries.push(self.group(*group, before).await?);
            self.progress.group_done();
        }
        let totals = Totals {
            bodies: entries.iter().map(|entry| entry.bodies).sum(),
            body_bytes: entries.iter().map(|entry| entry.body_bytes).sum(),
            stored_bytes: entries.iter().flat_map(GroupEntry::objects).map(|(_, bytes)| bytes).sum(),
            sent_bytes: self.progress.view().sent_bytes,
        };
        let manifest = Manifest {
            version: Manifest::VERSION,
            id: id.to_owned(),
            cluster_id: self.source.cluster_id(),
            started_unix_ms,
            finished_unix_ms: clock.unix_ms(),
            node: self.source.node(),
            group_count: u32::try_from(groups.len()).unwrap_or(u32::MAX), // at most 4,096
            groups: entries,
            totals,
            previous: previous.map(|manifest| manifest.id),
            documents: self.source.documents(),
        };
        // Everything that it names is written and checked: now it may exist (B1).
        let bytes = Bytes::from(manifest.encode()?);
        let digest = blake3::hash(&bytes);
        self.store.put(&format!("backups/{id}.json"), std::slice::from_ref(&bytes), digest).await?;
        Ok(manifest)
    }

    /// The newest backup whose manifest is sound.
    async fn previous(&self) -> Result<Option<Manifest>, TierError> {
        for id in self.store.backups().await?.iter().rev() {
            match self.store.manifest(id).await {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(error @ TierError::Damaged { .. }) => {
                    tracing::error!(backup = id, %error, "an older backup is damaged")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn group(&mut self, group: GroupId, before: Option<&GroupEntry>) -> Result<GroupEntry, TierError> {
        let mut number = 1;
        loop {
            match self.try_group(group, before).await {
                Ok(entry) => return Ok(entry),
                Err(GroupError::Body(error)) if number < GROUP_TRIES => {
                    tracing::info!(%group, %error, "a body could not be had; the group is begun again with newer rows");
                    number += 1;
                }
                Err(GroupError::Body(error) | GroupError::Other(error)) => return Err(error),
            }
        }
    }

    async fn try_group(&mut self, group: GroupId, before: Option<&GroupEntry>) -> Result<GroupEntry, GroupError> {
        let (applied, rows, named) = self.rows(group, before).await?;
        let body_bytes = named.iter().map(|body| u64::from(body.length_bytes)).sum();
        let mut entry = GroupEntry { group, applied, rows, packs: Vec::new(), bodies: named.len() as u64, body_bytes };
        let (mut packs, missing) = self.held(group, before, named).await?;
        self.progress.more_bytes(missing.iter().map(|body| u64::from(body.length_bytes)).sum());
        packs.extend(self.pack(group, missing).await?);
        entry.packs = packs;
        Ok(entry)
    }

    /// Stores the rows of a group; answers their moment, their objects, and the bodies that they name.
    async fn rows(
        &mut self,
        group: GroupId,
        before: Option<&GroupEntry>,
    ) -> Result<(Option<LogPosition>, Vec<ObjectEntry>, Vec<BodyRef>), TierError> {
        let failed = |why: String| TierError::Source { what: format!("the rows of {group}"), why };
        let mut exported = self.source.rows(group).await.map_err(failed)?;
        let Some(Some(Exported::At(at))) = exported.recv().await.transpose().map_err(failed)? else {
            return Err(failed("they came without their moment".into()));
        };
        let Some(position) = at.position else { return Ok((None, Vec::new(), Vec::new())) };
        let _permit = self.budget.acquire(self.options.rows_bytes).await;
        let (mut objects, mut named) = (Vec::new(), Vec::new());
        let mut part = PartBuilder::new(group, position, 0);
        loop {
            let next = exported.recv().await.ok_or_else(|| failed("they ended before their end".into()))?;
            let piece = match next.map_err(failed)? {
                Some(Exported::Piece(piece)) => piece,
                Some(Exported::At(_)) => return Err(failed("they came with two moments".into())),
                None => break,
            };
            if part.len() as u64 >= self.options.rows_bytes {
                let next = PartBuilder::new(group, position, objects.len() as u32 + 1);
                let full = std::mem::replace(&mut part, next);
                objects.push(self.put_rows(group, position, objects.len(), full.seal(false), before).await?);
            }
            let (source, length) = (Arc::clone(&self.source), piece.len());
            let work = move || Ok((source.bodies_of(&piece), squeeze(&piece)?));
            let worked: Result<_, TierError> =
                tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))?;
            let (bodies, stored) = worked?;
            named.extend(bodies.map_err(failed)?);
            part.push(length, &stored);
        }
        objects.push(self.put_rows(group, position, objects.len(), part.seal(true), before).await?);
        named.sort_unstable();
        named.dedup();
        Ok((Some(position), objects, named))
    }

    async fn put_rows(
        &mut self,
        group: GroupId,
        at: LogPosition,
        number: usize,
        (bytes, digest): (Bytes, blake3::Hash),
        before: Option<&GroupEntry>,
    ) -> Result<ObjectEntry, TierError> {
        let entry = ObjectEntry { blake3: digest.to_hex().to_string(), bytes: bytes.len() as u64 };
        let object = GroupEntry::rows_object(group, at, number, &entry.blake3);
        let known =
            before.is_some_and(|before| before.objects().any(|(name, bytes)| name == object && bytes == entry.bytes));
        let there = known
            && self
                .store
                .list(&format!("rows/{}", group.0))
                .await?
                .iter()
                .any(|(name, meta)| *name == object && meta.size == entry.bytes);
        if !there {
            self.store.put(&object, std::slice::from_ref(&bytes), digest).await?;
            self.progress.sent(entry.bytes);
        }
        self.lease.renew().await?;
        Ok(entry)
    }

    /// The packs that hold some of `named`, and the bodies that are in none.
    async fn held(
        &self,
        group: GroupId,
        before: Option<&GroupEntry>,
        named: Vec<BodyRef>,
    ) -> Result<(Vec<PackEntry>, Vec<BodyRef>), TierError> {
        let listed = self.store.list(&format!("packs/{}", group.0)).await?;
        let trusted: HashMap<&str, u64> =
            before.iter().flat_map(|before| &before.packs).map(|pack| (pack.blake3.as_str(), pack.bytes)).collect();
        let indexes = stream::iter(listed).map(|(object, meta)| async move {
            let index = read_index(&self.store, group, &object, meta.size).await;
            (object, meta.size, index)
        });
        let mut indexes = indexes.buffered(INDEXES_AHEAD);
        // Trusted ones first: what they hold needs no further look.
        let (mut candidates, mut missing) =
            (Vec::new(), named.into_iter().map(|body| (body.index, body.length_bytes)).collect::<BTreeMap<_, _>>());
        let mut packs = Vec::new();
        while let Some((object, bytes, index)) = indexes.next().await {
            let index = match index {
                Ok(index) => index,
                Err(error @ TierError::Damaged { .. }) => {
                    tracing::error!(pack = object, %error, "a pack is damaged; what it held is sent again");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let blake3 = object.rsplit('/').next().unwrap_or_default().to_owned();
            let entry = PackEntry { blake3, bytes, bodies: index.len() as u64 };
            if trusted.get(entry.blake3.as_str()) == Some(&bytes) {
                take(&mut missing, &index, entry, &mut packs);
            } else {
                candidates.push((object, entry, index));
            }
        }
        for (object, entry, index) in candidates {
            if !index.iter().any(|body| missing.get(&body.index) == Some(&body.length_bytes)) {
                continue;
            }
            // Left by a backup that failed, perhaps before it had checked this pack (B2).
            let sound = match self.store.get_sound(&object, &entry.blake3).await {
                Ok(bytes) => Pack::open(&object, group, bytes).is_ok(),
                Err((TierError::Damaged { .. }, _)) => false,
                Err((error, _)) => return Err(error),
            };
            if sound {
                take(&mut missing, &index, entry, &mut packs);
            } else {
                tracing::warn!(pack = object, "a pack of a failed backup is not used");
            }
        }
        let missing = missing.into_iter().map(|(index, length_bytes)| BodyRef { index, length_bytes }).collect();
        Ok((packs, missing))
    }

    /// Reads bodies and stores them in packs.
    async fn pack(&mut self, group: GroupId, missing: Vec<BodyRef>) -> Result<Vec<PackEntry>, GroupError> {
        let (source, budget) = (Arc::clone(&self.source), self.budget.clone());
        let mut bodies = stream::iter(missing)
            .map(|body| {
                let (source, budget) = (Arc::clone(&source), budget.clone());
                async move {
                    let permit = budget.acquire(u64::from(body.length_bytes)).await;
                    let address = BlockAddress { group, index: body.index };
                    let read = source.body(address, body.length_bytes).await;
                    let whole = read.and_then(|bytes| {
                        let right = bytes.len() == body.length_bytes as usize;
                        if right {
                            Ok(bytes)
                        } else {
                            Err(format!("{} bytes came instead of {}", bytes.len(), body.length_bytes))
                        }
                    });
                    let whole = whole.map_err(|why| TierError::Source { what: format!("body {address}"), why });
                    whole.map(|bytes| (body.index, bytes, permit))
                }
            })
            .buffered(READ_AHEAD);
        let (mut uploads, mut packs) = (JoinSet::new(), Vec::new());
        let mut builder = Builder::new(group);
        while let Some(next) = bodies.next().await {
            let (index, bytes, permit) = next.map_err(GroupError::Body)?;
            self.progress.did_bytes(bytes.len() as u64);
            builder.push(index, bytes, Some(permit));
            if builder.body_bytes() < self.options.pack_bytes() {
                continue;
            }
            while uploads.len() >= UPLOADS_MAX {
                self.uploaded(uploads.join_next().await, &mut packs).await?;
            }
            uploads.spawn(upload(self.store.clone(), group, std::mem::replace(&mut builder, Builder::new(group))));
        }
        if !builder.is_empty() {
            uploads.spawn(upload(self.store.clone(), group, builder));
        }
        while let Some(done) = uploads.join_next().await {
            self.uploaded(Some(done), &mut packs).await?;
        }
        packs.sort_unstable_by(|a: &PackEntry, b| a.blake3.cmp(&b.blake3));
        Ok(packs)
    }

    async fn uploaded(
        &mut self,
        done: Option<Result<Result<PackEntry, TierError>, tokio::task::JoinError>>,
        packs: &mut Vec<PackEntry>,
    ) -> Result<(), TierError> {
        let Some(done) = done else { return Ok(()) };
        let entry = done.map_err(|error| TierError::Source { what: "a pack".into(), why: error.to_string() })??;
        self.progress.sent(entry.bytes);
        packs.push(entry);
        self.lease.renew().await
    }
}

/// Notes that `pack` holds some of what is missing.
fn take(missing: &mut BTreeMap<u64, u32>, index: &[BodyRef], pack: PackEntry, packs: &mut Vec<PackEntry>) {
    let before = missing.len();
    for body in index {
        if missing.get(&body.index) == Some(&body.length_bytes) {
            missing.remove(&body.index);
        }
    }
    if missing.len() < before {
        packs.push(pack);
    }
}

async fn upload(store: ClusterStore, group: GroupId, builder: Builder) -> Result<PackEntry, TierError> {
    let sealed = tokio::task::spawn_blocking(move || builder.seal()).await;
    let sealed = sealed.map_err(|error| TierError::Source { what: "a pack".into(), why: error.to_string() })?;
    let Sealed { parts, digest, bytes, bodies, permits } = sealed;
    let blake3 = digest.to_hex().to_string();
    store.put(&GroupEntry::pack_object(group, &blake3), &parts, digest).await?;
    drop(parts);
    drop(permits);
    Ok(PackEntry { blake3, bytes, bodies })
}

/// What is in a pack, from its end alone.
pub(crate) async fn read_index(
    store: &ClusterStore,
    group: GroupId,
    object: &str,
    total: u64,
) -> Result<Vec<BodyRef>, TierError> {
    let mut wanted = END_BYTES;
    loop {
        let end = store.get_end(object, wanted.min(total)).await?;
        let end = end.ok_or_else(|| TierError::damaged(object, "it is not there"))?;
        match pack::read_end(object, group, total, &end)? {
            End::Rows(rows) => return Ok(rows.into_iter().map(|row| row.body).collect()),
            End::Longer(bytes) if bytes > wanted => wanted = bytes,
            End::Longer(_) => return Err(TierError::damaged(object, "its end is cut off")),
        }
    }
}
