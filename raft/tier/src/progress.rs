//! How far a job is: counters that the job moves and anybody reads.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of a running job.
#[derive(Debug, Default)]
pub struct Progress {
    groups: AtomicU64,
    groups_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
    sent_bytes: AtomicU64,
}

/// What [`Progress`] says at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// Groups in all.
    pub groups: u64,
    /// Groups that are done.
    pub groups_done: u64,
    /// Bytes to be read, as far as known: grows with each group.
    pub bytes: u64,
    /// Bytes that were read.
    pub bytes_done: u64,
    /// Bytes that were sent to the store.
    pub sent_bytes: u64,
}

impl Progress {
    /// The counters now.
    #[must_use]
    pub fn view(&self) -> ProgressView {
        ProgressView {
            groups: self.groups.load(Relaxed),
            groups_done: self.groups_done.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            bytes_done: self.bytes_done.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    /// So many groups in all.
    pub fn set_groups(&self, groups: u64) {
        self.groups.store(groups, Relaxed);
    }

    /// One group more is done.
    pub fn group_done(&self) {
        self.groups_done.fetch_add(1, Relaxed);
    }

    pub(crate) fn more_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn did_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }
}
