//! Uploads whose gateway died: blocks of a large object that nobody goes on with. Their leader forgets them after a day,
//! so that compaction can give their space back.
//!
//! A living upload is never taken for one: a sender that makes progress at 9,600 bit/s fills a block in 15 minutes, and one
//! that makes none is cut off sooner. If it happened all the same, the store would be refused, and nothing lost.

use crate::Archive;
use archive_catalog::{Command, UploadId};
use bytes::Bytes;
use raft_types::GroupId;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How long an upload may get no new block.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Uploads that one command forgets, at most.
const AT_ONCE: usize = 1000;

/// The newest block of an upload, and since when it is that.
type Seen = BTreeMap<(GroupId, UploadId), (u64, Instant)>;

impl Archive {
    /// Forgets orphans, for as long as it is polled: one task of the node.
    pub async fn forget_orphans(self) {
        let mut seen = Seen::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (group, uploads) in self.orphans(&mut seen).await {
                let count = uploads.len();
                match self.propose(group, &Command::Abort { uploads }, Bytes::new()).await {
                    Ok(_) => tracing::info!(%group, count, "uploads that nobody went on with are forgotten"),
                    Err(error) => tracing::info!(%group, %error, "orphans are not forgotten yet"),
                }
            }
        }
    }

    /// The orphans of the groups that this node leads.
    async fn orphans(&self, seen: &mut Seen) -> BTreeMap<GroupId, Vec<UploadId>> {
        let catalog = Arc::clone(self.catalog());
        let Ok(uploads) = self.look_up(move || catalog.uploads()).await else { return BTreeMap::new() };
        let status = self.log().status();
        let leads = |group: GroupId| {
            let own = status.groups.iter().find(|own| own.id == group);
            own.is_some_and(|own| own.leader.as_ref() == Some(&status.answered_by))
        };
        let now = Instant::now();
        let before = std::mem::take(seen);
        let mut orphans: BTreeMap<GroupId, Vec<UploadId>> = BTreeMap::new();
        for (group, upload, newest) in uploads {
            let known = before.get(&(group, upload)).filter(|(index, _)| *index == newest);
            let since = known.map_or(now, |(_, since)| *since);
            seen.insert((group, upload), (newest, since));
            if now - since >= FORGOTTEN_AFTER && leads(group) {
                let own = orphans.entry(group).or_default();
                if own.len() < AT_ONCE {
                    own.push(upload);
                }
            }
        }
        orphans
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{ServiceSettings, testing::archive};

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn only_uploads_without_a_new_block_for_a_day_are_orphans() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, _log) = archive(folder.path(), ServiceSettings::default());
        let group = GroupId(1);
        let (dead, alive) = (UploadId([1; 16]), UploadId([2; 16]));
        let block = async |upload, seq| {
            archive.propose(group, &Command::Block { upload, seq }, Bytes::from_static(b"block")).await.unwrap();
        };
        block(dead, 0).await;
        block(alive, 0).await;
        let mut seen = Seen::new();
        assert!(archive.orphans(&mut seen).await.is_empty(), "nobody knows how old they are");
        tokio::time::advance(23 * HOUR).await;
        block(alive, 1).await;
        assert!(archive.orphans(&mut seen).await.is_empty());
        tokio::time::advance(2 * HOUR).await;
        assert_eq!(archive.orphans(&mut seen).await, BTreeMap::from([(group, vec![dead])]));
        archive.propose(group, &Command::Abort { uploads: vec![dead] }, Bytes::new()).await.unwrap();
        assert!(archive.orphans(&mut seen).await.is_empty(), "it is forgotten");
        assert_eq!(seen.len(), 1, "and so is its age");
    }
}
