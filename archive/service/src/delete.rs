//! Deletes: ordered by a study, a series or an instance, decided by the log, remembered by a tombstone.

use crate::{Archive, QueryError, StoreError};
use archive_catalog::{Command, Grounds, Outcome, Target, Tombstone};
use archive_model::Uid;
use bytes::Bytes;
use std::sync::Arc;

/// Bytes of a reason that are kept; people write a sentence.
const REASON_BYTES_MAX: usize = 1024;

/// What a delete did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Instances that went; 0 when nothing of that name was there.
    pub instances: u64,
    /// Bytes of their data sets.
    pub bytes: u64,
}

impl Archive {
    /// Deletes `target` on every node. When this returns, no query answers with it any more; a replica that lags may still
    /// serve a read of an instance by its UID until it has applied the order, some milliseconds later.
    ///
    /// # Errors
    /// Like a store: without a majority nothing is deleted; `Unknown` may or may not be, and to repeat it is harmless.
    pub async fn delete(&self, target: Target, reason: &str, source: &str) -> Result<Deleted, StoreError> {
        let group = self.group_of(&target.study)?;
        let mut reason = reason.trim().to_owned();
        if reason.len() > REASON_BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        }
        let grounds = Grounds { reason, source: source.to_owned(), deleted_unix_ms: self.clock().unix_ms() };
        let command = Command::Delete { target: target.clone(), grounds };
        match self.propose(group, &command, Bytes::new()).await?.0 {
            Outcome::Deleted { instances, bytes } => {
                self.metrics().deleted.inc_by(instances);
                if instances > 0 {
                    let Target { study, series, instance } = &target;
                    let (series, instance) = (series.as_ref().map(Uid::as_str), instance.as_ref().map(Uid::as_str));
                    tracing::warn!(%study, series, instance, instances, bytes, source, "deleted");
                }
                Ok(Deleted { instances, bytes })
            }
            other => Err(StoreError::Refused { why: format!("{other:?}") }),
        }
    }

    /// What was deleted lately, newest first: of one study or of all. As far as this node has applied.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn tombstones(&self, study: Option<Uid>, limit: u32) -> Result<Vec<Tombstone>, QueryError> {
        let catalog = Arc::clone(self.catalog());
        self.look_up(move || catalog.tombstones(study.as_ref(), limit)).await
    }
}
