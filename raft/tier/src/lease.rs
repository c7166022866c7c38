//! Who works on the backups of a cluster now: a small object that is written again while the work goes on.
//!
//! A backup relies on packs that were there when it looked; a prune removes packs that no manifest names. Each writes its
//! own lock first and looks for the other's then: of two that begin together at least one sees the other and gives way
//! (object stores answer a list with what was written before it). A lock that nobody renewed for an hour is of somebody
//! who died. Hours are counted between times that the store itself gives, so no clock of ours counts.

use crate::{ClusterStore, TierError};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// Between two renewals.
const RENEW_EVERY: Duration = Duration::from_secs(300);
/// A lock that is so much older than our own is forgotten.
const STALE_AFTER_MS: i64 = 3_600_000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Backup,
    Prune,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
        }
    }

    /// Any number of backups go together; a prune goes with nothing.
    fn minds(self, other: Self) -> bool {
        self == Self::Prune || other == Self::Prune
    }
}

pub(crate) struct Lease {
    cluster: ClusterStore,
    object: String,
    renewed: Instant,
}

impl Lease {
    /// Says that this work begins; `id` is unique.
    pub(crate) async fn take(cluster: &ClusterStore, work: Work, id: &str) -> Result<Self, TierError> {
        let mut own =
            Self { cluster: cluster.clone(), object: format!("locks/{}-{id}", work.name()), renewed: Instant::now() };
        own.write().await?;
        let listed = cluster.list("locks").await?;
        let now = listed.iter().find(|(name, _)| *name == own.object).map(|(_, meta)| meta.last_modified);
        for (name, meta) in listed {
            let stale = now.is_some_and(|now| (now - meta.last_modified).num_milliseconds() > STALE_AFTER_MS);
            let other = [Work::Backup, Work::Prune]
                .into_iter()
                .find(|other| name.starts_with(&format!("locks/{}-", other.name())));
            let Some(other) = other.filter(|other| name != own.object && !stale && work.minds(*other)) else {
                continue;
            };
            own.release().await;
            return Err(TierError::Busy(format!(
                "a {} of this cluster is at work in this store ({name}): wait until it has ended; if its process died, \
                 its lock is ignored an hour after its last sign of life",
                other.name()
            )));
        }
        Ok(own)
    }

    async fn write(&mut self) -> Result<(), TierError> {
        let says = Bytes::from_static(b"at work\n");
        self.cluster.put(&self.object, std::slice::from_ref(&says), blake3::hash(&says)).await?;
        self.renewed = Instant::now();
        Ok(())
    }

    /// Says that the work goes on: called between its steps.
    pub(crate) async fn renew(&mut self) -> Result<(), TierError> {
        if self.renewed.elapsed() < RENEW_EVERY { Ok(()) } else { self.write().await }
    }

    /// Says that the work has ended.
    pub(crate) async fn release(self) {
        if let Err(error) = self.cluster.remove(std::slice::from_ref(&self.object)).await {
            tracing::warn!(lock = self.object, %error, "a lock was not removed; it is ignored after an hour");
        }
    }
}
