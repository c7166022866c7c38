//! Bytes of an instance as a stream of pieces: read ahead by one block, each piece within the read budget.

use archive_catalog::InstanceRow;
use bytes::Bytes;
use raft_types::{BlockAddress, ByteBudget, BytePermit, Propose, ReadError};
use std::{collections::VecDeque, ops::Range, sync::Arc};
use tokio_util::task::AbortOnDropHandle;

/// The bytes of one instance, or of a part of it, in order.
pub struct Reading {
    log: Arc<dyn Propose>,
    budget: ByteBudget,
    todo: VecDeque<(BlockAddress, Range<u64>)>,
    /// The block that is being read: the next one while this one is sent. One, so that nobody waits for memory with a later
    /// block in hand.
    running: Option<AbortOnDropHandle<Result<Bytes, ReadError>>>,
    length_bytes: u64,
}

impl Reading {
    /// Bytes `range` of the instance `row`; a range beyond its end is cut.
    pub(crate) fn of(log: Arc<dyn Propose>, budget: ByteBudget, row: &InstanceRow, range: Range<u64>) -> Self {
        let range = range.start.min(row.length_bytes)..range.end.min(row.length_bytes);
        let mut todo = VecDeque::new();
        let mut start = 0;
        for part in &row.blocks {
            let end = start + u64::from(part.length_bytes);
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                todo.push_back((BlockAddress { group: row.group, index: part.index }, from - start..to - start));
            }
            start = end;
        }
        Self { log, budget, todo, running: None, length_bytes: range.end.saturating_sub(range.start) }
    }

    /// How many bytes this reading yields in all.
    #[must_use]
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The next piece, at most 1 MiB; `None` after the last. After an error the reading is over.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        self.begin();
        // A task that is gone was stopped with the runtime.
        let next = self.running.take()?.await.unwrap_or(Err(ReadError::Stopped));
        match &next {
            Ok(_) => self.begin(),
            Err(_) => self.todo.clear(),
        }
        Some(next)
    }

    /// Begins to read the next block, for when it is asked for.
    pub fn begin(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some((address, range)) = self.todo.pop_front() else { return };
        let (log, budget) = (Arc::clone(&self.log), self.budget.clone());
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let permit = budget.acquire(range.end - range.start).await;
            let bytes = log.read(address, range).await?;
            Ok(Bytes::from_owner(Held { bytes, _permit: permit }))
        })));
    }

    /// All bytes at once, for parts that are known to be small (a frame).
    ///
    /// # Errors
    /// The first read that failed.
    pub async fn collect(mut self) -> Result<Bytes, ReadError> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next().await {
            pieces.push(piece?);
        }
        Ok(match pieces.len() {
            1 => pieces.swap_remove(0),
            _ => pieces.concat().into(),
        })
    }
}

/// Bytes with the permit under which they are held.
struct Held {
    bytes: Bytes,
    _permit: BytePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}
