//! One instance on its way in: pieces are pre-validated, cut into blocks, hashed, and proposed.
//!
//! ```text
//!   push ──► scanner (refuse early) ──► block being filled (≤ 1 MiB, under a permit that grows with it)
//!                                          │ full, and more is coming: the instance is large
//!                                          ▼
//!                                  Block{upload, seq} proposed by a task of its own, ≤ 4 in flight
//!   finish ─► UIDs agree? ─► InstanceHead ─► small: PutSmall with the one block
//!                                            large: last Block, all answered, then Commit
//! ```
//!
//! Crash points: before `PutSmall` or `Commit` is committed nothing is visible; blocks of an upload that was never
//! committed are orphans, forgotten by `Abort`, which the drop of an unfinished upload proposes.
//!
//! Memory (`memory.rs`) cannot be waited for in a circle:
//! - a block in flight belongs to a task that needs nothing of us, and gives its permit back with the answer;
//! - the first block asks for a little and grows with its bytes; a block that cannot grow is proposed as it is;
//! - each later block asks for all it can need at once, when the block before it has been handed over, and for as
//!   little as the first if that much does not come free.

use crate::{
    Archive, StoreError,
    memory::{IngestPermit, Share},
    rejection::{Note, note_of},
};
use archive_catalog::{
    Admission, BlockPart, Command, HeadError, InstanceHead, OtherContent, Outcome, RefusedWhy, Source, UploadId,
    instance_head,
};
use archive_model::{Scanned, Scanner, Uid, tags, transfer_syntax};
use bytes::Bytes;
use raft_types::{GroupId, Versioned};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Bytes of a full block.
const BLOCK_BYTES: usize = raft_types::Command::BODY_BYTES_MAX;

/// What a store takes for its first bytes: 512 senders that say no more (the associations of a node) take 32 MiB.
const FIRST_BYTES: usize = 64 << 10;

/// How long a block waits for as much memory as it can use before it does with less. Blocks in flight give theirs back within
/// milliseconds; a second means that those who hold memory wait too.
const GROW_WAIT: Duration = Duration::from_secs(1);

/// Headers from this size on are made into JSON and compressed beside the async threads: 64 KiB take about 1 ms.
const HEADER_BYTES_INLINE: u64 = 64 << 10;

/// What a sender says about an instance before its bytes arrive.
#[derive(Debug, Clone)]
pub struct Offer {
    /// SOP class of the request; must agree with the data set.
    pub sop_class: Option<Uid>,
    /// SOP instance of the request; must agree with the data set.
    pub instance: Option<Uid>,
    /// The study it is sent to (`POST /studies/{uid}`); must agree with the data set.
    pub study: Option<Uid>,
    /// Transfer syntax of the bytes: a UID, also one that is not known here.
    pub transfer_syntax: String,
    /// Who sends it.
    pub source: Source,
}

/// Proof that an instance is durable on a majority, committed, applied and visible on every node.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// Whether it was new, there already, or another content under a known UID.
    pub admission: Admission,
    /// How many oddities of encoding the pre-validator tolerated.
    pub warnings: usize,
}

/// A block that was proposed: its sequence number, and where it lies.
type Placed = Result<(u32, BlockPart), StoreError>;

/// An instance on its way in. Dropping it before [`Ingest::finish`] leaves nothing visible.
pub struct Ingest {
    archive: Archive,
    offer: Offer,
    scanner: Scanner,
    hasher: blake3::Hasher,
    block: Vec<u8>,
    memory: Share,
    permit: Option<IngestPermit>,
    length_bytes: u64,
    large: Option<Large>,
    validating: Duration,
    opened: Instant,
}

/// What only an instance of several blocks has.
struct Large {
    upload: UploadId,
    group: GroupId,
    blocks_proposed: u32,
    /// Aborted with this instance, should it end before they do.
    placing: JoinSet<Placed>,
    placed: Vec<(u32, BlockPart)>,
    orphans: Orphans,
}

impl Ingest {
    pub(crate) fn new(archive: Archive, offer: Offer) -> Self {
        let mut scanner = Scanner::new(&transfer_syntax(&offer.transfer_syntax), &archive.settings().limits);
        if archive.settings().compare_padding {
            scanner = scanner.comparing(&offer.transfer_syntax);
        }
        let memory = archive.ingest_memory().share(&offer.source.peer);
        Self {
            archive,
            offer,
            scanner,
            memory,
            hasher: blake3::Hasher::new(),
            block: Vec::new(),
            permit: None,
            length_bytes: 0,
            large: None,
            validating: Duration::ZERO,
            opened: Instant::now(),
        }
    }

    /// The next bytes of the data set. Waits when memory or the log is behind: that is the sender's back-pressure.
    ///
    /// # Errors
    /// As soon as the bytes cannot become an instance; the rest need not be sent.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let result = self.take(piece).await;
        result.inspect_err(|error| self.archive.count_refusal(error))
    }

    async fn take(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let started = Instant::now();
        self.scanner.push(&piece).map_err(StoreError::Invalid)?;
        self.validating += started.elapsed();
        self.length_bytes += piece.len() as u64;
        let mut rest = &piece[..];
        while !rest.is_empty() {
            if self.block.len() == BLOCK_BYTES {
                self.send_block().await?;
            }
            self.make_room(rest.len()).await?;
            let cut = rest.len().min(BLOCK_BYTES - self.block.len());
            self.block.extend_from_slice(&rest[..cut]);
            rest = &rest[cut..];
        }
        Ok(())
    }

    /// Room for at least one byte more in the block, for all that is `coming` if memory allows. A block that cannot grow
    /// is sent as it is, and another one begun.
    async fn make_room(&mut self, coming: usize) -> Result<(), StoreError> {
        loop {
            let wanted = (self.block.len() + coming).min(BLOCK_BYTES);
            let held = match &self.permit {
                Some(permit) => permit.bytes(),
                None => self.begin_block(wanted).await,
            };
            if wanted <= held || self.grow(wanted.max(2 * held).min(BLOCK_BYTES) - held).await? {
                return Ok(());
            }
            self.send_block().await?;
        }
    }

    /// A permit and a buffer for a block, before its first byte is kept; answers for how many bytes.
    async fn begin_block(&mut self, wanted: usize) -> usize {
        // A second block says that the object is large: its blocks are whole, and grow in no steps.
        let bytes = if self.large.is_some() { BLOCK_BYTES } else { wanted.max(FIRST_BYTES) };
        let (bytes, permit) = match tokio::time::timeout(GROW_WAIT, self.memory.acquire(bytes)).await {
            Ok(permit) => (bytes, permit),
            Err(_) => (FIRST_BYTES, self.memory.acquire(FIRST_BYTES).await),
        };
        self.permit = Some(permit);
        self.block.reserve_exact(bytes);
        bytes
    }

    /// Makes the block larger; `false` when it must be sent first, because memory is short.
    async fn grow(&mut self, more: usize) -> Result<bool, StoreError> {
        match tokio::time::timeout(GROW_WAIT, self.memory.acquire(more)).await {
            Ok(more_bytes) => {
                if let Some(permit) = self.permit.as_mut() {
                    permit.absorb(more_bytes);
                }
                self.block.reserve_exact(self.block.capacity() + more - self.block.len());
                Ok(true)
            }
            Err(_) if self.large.is_some() || self.study().is_some() => Ok(false),
            // It cannot be sent, for its group is not known yet. To go on waiting would hold what others wait for.
            Err(_) => Err(StoreError::Overloaded),
        }
    }

    /// The study, if it has arrived.
    fn study(&self) -> Option<Uid> {
        self.scanner.so_far().text(tags::STUDY_INSTANCE_UID).and_then(|text| Uid::parse(text).ok())
    }

    /// The filled block, and the permit that its bytes need until the log has answered.
    fn seal_block(&mut self) -> (Bytes, Option<IngestPermit>) {
        let mut block = std::mem::take(&mut self.block);
        self.hasher.update(&block);
        let mut permit = self.permit.take();
        // The log may keep it for a while, and counts what is in it, not what it could hold.
        if block.capacity() > block.len() + block.len() / 4 {
            block.shrink_to_fit();
        }
        if let Some(permit) = &mut permit {
            permit.shrink(block.capacity());
        }
        (block.into(), permit)
    }

    /// Proposes the filled block, waiting for a place among those in flight.
    async fn send_block(&mut self) -> Result<(), StoreError> {
        if self.large.is_none() {
            // The study says which group takes the blocks, so a large object must name it within its first block. What
            // stands before it are groups 0008 to 0018 without bulk: a few KiB, in what modalities send. To hold more
            // until it comes would let every sender hold more.
            let study = self.study().ok_or_else(|| StoreError::BadUid {
                tag: tags::STUDY_INSTANCE_UID,
                why: "is missing or malformed in the first 1 MiB, where an object of more than 1 MiB must name it"
                    .into(),
            })?;
            self.large = Some(Large::new(&self.archive, &study)?);
        }
        let (body, permit) = self.seal_block();
        let blocks_max = self.archive.settings().blocks_in_flight_max.max(1);
        let Some(large) = self.large.as_mut() else { return Err(StoreError::Unknown) };
        large.wait_for(blocks_max - 1).await?;
        large.propose(&self.archive, body, permit);
        Ok(())
    }

    /// The data set is complete: commits it and waits for the proof.
    ///
    /// # Errors
    /// See [`StoreError`]. After `Unknown` the instance may be stored; sending it again is harmless.
    pub async fn finish(mut self) -> Result<Stored, StoreError> {
        let archive = self.archive.clone();
        let protocol = self.offer.source.protocol.name();
        let result = self.commit().await;
        match &result {
            Ok(stored) => archive.count_stored(stored, protocol, self.length_bytes),
            Err(error) => archive.count_refusal(error),
        }
        result
    }

    async fn commit(&mut self) -> Result<Stored, StoreError> {
        let metrics = self.archive.metrics().clone();
        metrics.receive.observe(self.opened.elapsed().saturating_sub(self.validating).as_secs_f64());
        let started = Instant::now();
        let (body, permit) = self.seal_block();
        let empty = Scanner::new(&transfer_syntax(&self.offer.transfer_syntax), &self.archive.settings().limits);
        let scanner = std::mem::replace(&mut self.scanner, empty);
        let (offer, digest) = (self.offer.clone(), *self.hasher.finalize().as_bytes());
        let now = self.archive.clock().unix_ms();
        let (head, warnings, note) = if scanner.header_bytes() < HEADER_BYTES_INLINE {
            accept(scanner, offer, digest, now)?
        } else {
            let accepting = tokio::task::spawn_blocking(move || accept(scanner, offer, digest, now));
            accepting.await.map_err(|_| StoreError::Stopping)??
        };
        metrics.validate.observe((self.validating + started.elapsed()).as_secs_f64());

        // The policy of this moment travels with the instance: what is applied is the same on every node.
        let other_content = self.archive.peers().other_content(&self.offer.source);
        let started = Instant::now();
        let names = (head.study.clone(), head.series.clone(), head.instance.clone(), head.sop_class.clone());
        // What a rejection note is to do is recorded before it is stored (N-1).
        let rejecting = match note {
            Some(note) => self.archive.begin_rejection(&head, note, &self.offer.source).await?,
            None => None,
        };
        let outcome = match self.large.take() {
            None => {
                let outcome = put_small(&self.archive, head, body, other_content).await?;
                drop(permit);
                outcome
            }
            Some(large) => large.commit(&self.archive, head, body, permit, other_content).await?,
        };
        metrics.propose.observe(started.elapsed().as_secs_f64());
        match outcome {
            Outcome::Stored(admission) => {
                // The record that tells of it, before success is (A-1).
                if let Err(error) = self.archive.study_changed(&names.0, false).await {
                    tracing::info!(study = %names.0, %error, "an instance is stored, and its notification not recorded");
                    return Err(StoreError::Unknown);
                }
                if let Some(rejecting) = rejecting {
                    self.archive.finish_rejection(rejecting).await;
                }
                Ok(Stored {
                    study: names.0,
                    series: names.1,
                    instance: names.2,
                    sop_class: names.3,
                    admission,
                    warnings,
                })
            }
            Outcome::Refused(RefusedWhy::OtherContent) => Err(StoreError::OtherContent),
            Outcome::Refused(RefusedWhy::Rejected) => Err(StoreError::Rejected),
            Outcome::Refused(why) => Err(StoreError::Refused { why: format!("{why:?}") }),
            Outcome::Held { .. }
            | Outcome::Aborted
            | Outcome::Nothing
            | Outcome::Deleted { .. }
            | Outcome::Recorded { .. }
            | Outcome::Conflict { .. }
            | Outcome::RecordRemoved
            | Outcome::Rejected { .. }
            | Outcome::Restored { .. } => Err(StoreError::Refused { why: "the log answered another question".into() }),
        }
    }
}

/// The end of the data set: what the log carries of it, how many oddities were tolerated, and the rejection note that it may be. Takes time with the header.
fn accept(
    scanner: Scanner,
    offer: Offer,
    digest: [u8; 32],
    now_unix_ms: u64,
) -> Result<(InstanceHead, usize, Option<Note>), StoreError> {
    let scanned = scanner.finish().map_err(StoreError::Invalid)?;
    agrees(&offer, &scanned)?;
    let head = instance_head(&scanned, &offer.transfer_syntax, digest, offer.source, now_unix_ms);
    let head = head.map_err(|error| match error {
        HeadError::MissingUid { tag } => StoreError::BadUid { tag, why: "is missing".into() },
        HeadError::BadUid { tag, why } => StoreError::BadUid { tag, why: why.to_string() },
        HeadError::TooLarge { .. } | HeadError::Compress(_) => StoreError::Refused { why: error.to_string() },
    })?;
    Ok((head, scanned.warnings.len(), note_of(&scanned.header)))
}

/// The data set must be what the request said (PS3.4 B.2.3: A900), and findable.
fn agrees(offer: &Offer, scanned: &Scanned) -> Result<(), StoreError> {
    let uid = |tag| {
        let text = scanned.header.text(tag).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| StoreError::BadUid { tag, why: "is missing".into() })?;
        Uid::parse(text).map_err(|error| StoreError::BadUid { tag, why: error.to_string() })
    };
    let (class, instance) = (uid(tags::SOP_CLASS_UID)?, uid(tags::SOP_INSTANCE_UID)?);
    let (study, _) = (uid(tags::STUDY_INSTANCE_UID)?, uid(tags::SERIES_INSTANCE_UID)?);
    if offer.sop_class.as_ref().is_some_and(|offered| *offered != class) {
        return Err(StoreError::Mismatch { what: "SOP Class UID (0008,0016)" });
    }
    if offer.instance.as_ref().is_some_and(|offered| *offered != instance) {
        return Err(StoreError::Mismatch { what: "SOP Instance UID (0008,0018)" });
    }
    if offer.study.as_ref().is_some_and(|offered| *offered != study) {
        return Err(StoreError::StudyMismatch);
    }
    Ok(())
}

async fn put_small(
    archive: &Archive,
    head: InstanceHead,
    body: Bytes,
    other_content: OtherContent,
) -> Result<Outcome, StoreError> {
    let group = archive.group_of(&head.study)?;
    archive.propose(group, &Command::put_small(head, other_content), body).await.map(|(outcome, _)| outcome)
}

impl Large {
    fn new(archive: &Archive, study: &Uid) -> Result<Self, StoreError> {
        let group = archive.group_of(study)?;
        let upload = UploadId(*uuid::Uuid::new_v4().as_bytes());
        let orphans = Orphans { archive: Some(archive.clone()), group, upload };
        Ok(Self { upload, group, blocks_proposed: 0, placing: JoinSet::new(), placed: Vec::new(), orphans })
    }

    /// Waits until at most `in_flight` blocks are unanswered.
    async fn wait_for(&mut self, in_flight: usize) -> Result<(), StoreError> {
        while self.placing.len() > in_flight {
            if let Some(placed) = self.placing.join_next().await {
                // A task that panicked, or whose runtime ends: its block may be anywhere.
                self.placed.push(placed.unwrap_or(Err(StoreError::Unknown))?);
            }
        }
        Ok(())
    }

    /// Starts the proposal of a block: it goes on while its sender waits for memory, and while we wait for its sender.
    fn propose(&mut self, archive: &Archive, body: Bytes, permit: Option<IngestPermit>) {
        let (seq, group, upload) = (self.blocks_proposed, self.group, self.upload);
        self.blocks_proposed += 1;
        let own = archive.clone();
        self.placing.spawn(archive.tasks().track_future(async move {
            let length_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
            let answer = own.propose(group, &Command::Block { upload, seq }, body).await;
            drop(permit);
            match answer? {
                // The catalogue says which copy it holds: after a retry that may be an earlier one.
                (Outcome::Held { index }, _) => Ok((seq, BlockPart { index, length_bytes })),
                (other, _) => Err(StoreError::Refused { why: format!("{other:?}") }),
            }
        }));
    }

    async fn commit(
        mut self,
        archive: &Archive,
        head: InstanceHead,
        last: Bytes,
        permit: Option<IngestPermit>,
        other_content: OtherContent,
    ) -> Result<Outcome, StoreError> {
        if archive.group_of(&head.study)? != self.group {
            return Err(StoreError::Mismatch { what: "Study Instance UID (0020,000D)" });
        }
        if !last.is_empty() {
            self.propose(archive, last, permit);
        }
        self.wait_for(0).await?;
        self.placed.sort_unstable_by_key(|(seq, _)| *seq);
        let blocks = self.placed.drain(..).map(|(_, part)| part).collect();
        let command = Command::commit(self.upload, head, blocks, other_content);
        let (outcome, _) = archive.propose(self.group, &command, Bytes::new()).await?;
        self.orphans.archive = None;
        Ok(outcome)
    }
}

/// Tells the log to forget an upload's blocks, unless it was committed.
struct Orphans {
    archive: Option<Archive>,
    group: GroupId,
    upload: UploadId,
}

impl Drop for Orphans {
    fn drop(&mut self) {
        let Some(archive) = self.archive.take() else { return };
        let (group, upload) = (self.group, self.upload);
        let tasks = archive.tasks().clone();
        // Best effort: if it is lost, the leader forgets them a day later (`orphans.rs`).
        tasks.spawn(async move {
            if let Err(error) = archive.propose(group, &Command::Abort { uploads: vec![upload] }, Bytes::new()).await {
                tracing::info!(%group, %error, "abort of an unfinished upload not recorded");
            }
        });
    }
}

impl Archive {
    /// The group that a study lives in; without the table of groups nothing can be written.
    pub(crate) fn group_of(&self, study: &Uid) -> Result<GroupId, StoreError> {
        self.log().group_of(study.as_str().as_bytes()).ok_or(StoreError::NoQuorum)
    }

    /// Proposes `command` and decodes what the catalogue answered.
    pub(crate) async fn propose(
        &self,
        group: GroupId,
        command: &Command,
        body: Bytes,
    ) -> Result<(Outcome, raft_types::Proposed), StoreError> {
        let entry = raft_types::Command { head: command.encode(), body };
        let log = Arc::clone(self.log());
        let proposed = log.propose(group, entry, self.settings().propose_deadline).await?;
        let outcome = Outcome::decode(&proposed.outcome)
            .map_err(|error| StoreError::Refused { why: format!("answer of the catalogue: {error}") })?;
        Ok((outcome, proposed))
    }
}
