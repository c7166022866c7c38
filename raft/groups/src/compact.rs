//! Compaction: closed segments of which much is dead are rewritten without it.
//!
//! Dead is a body that no row names: of a repeated image, an aborted upload, a delete. Nothing leaves a segment but what
//! is settled, so that no power loss brings back a row whose body is gone; and nothing leaves the log of a cluster before it
//! is purged, because a peer may ask for it.

use crate::node::Node;
use raft_lanes::Spent;
use raft_types::GroupId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// When the disk is full or an operator has ordered it, so much dead is worth a rewrite, in percent.
const HASTY_DEAD_PERCENT: u64 = 10;
/// Less dead than this is left alone, whatever its share.
const DEAD_BYTES_MIN: u64 = 256 << 10;
/// A segment that gave little is not tried again for so long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// A segment that is worth a rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Worth {
    sequence: u64,
    bytes: u64,
    dead_bytes: u64,
}

impl Node {
    /// One look at all segments, and the rewrite of those that are worth it; the most worthwhile first.
    pub(crate) async fn compact(&self, ordered: bool) {
        let full = self.is_full();
        let percent = if ordered || full { HASTY_DEAD_PERCENT } else { self.options.upkeep.compact_dead_percent };
        let Some(found) = self.measure().await else { return };
        let disk_bytes = found.iter().map(|own| own.bytes).sum();
        let dead_bytes: u64 = found.iter().map(|own| own.dead_bytes).sum();
        self.care.measured(disk_bytes, dead_bytes);
        self.metrics.dead_bytes.set(i64::try_from(dead_bytes).unwrap_or(i64::MAX));
        let now = self.clock.now();
        let mut worth: Vec<Worth> = {
            let tried = self.tried.lock();
            let rests = |own: &Worth| {
                tried.get(&own.sequence).is_some_and(|at| now.saturating_sub(*at) < TRY_AGAIN_AFTER) && !ordered
            };
            found.into_iter().filter(|own| is_worth(own, percent) && !rests(own)).collect()
        };
        worth.sort_by_key(|own| std::cmp::Reverse(own.dead_bytes));
        for Worth { sequence, bytes, dead_bytes } in worth {
            if self.care.scrub_is_ordered() {
                return; // somebody waits for it; this is looked at again
            }
            let spent = self.spent(self.lane.groups_of(sequence)).await;
            match self.rewrite(sequence, spent, BTreeMap::new(), ordered || full).await {
                Ok(rewrote) => {
                    let reclaimed = rewrote.bytes_before.saturating_sub(rewrote.bytes_after);
                    tracing::info!(sequence, bytes, estimated = dead_bytes, reclaimed, "a segment was compacted");
                    if reclaimed * 10 < bytes {
                        self.tried.lock().insert(sequence, now);
                    }
                }
                Err(error) => {
                    tracing::warn!(sequence, %error, "a segment was not compacted");
                    self.tried.lock().insert(sequence, now);
                }
            }
        }
    }

    /// How much of each segment is dead: an estimate from what rows name.
    async fn measure(&self) -> Option<Vec<Worth>> {
        let (machine, lane, alone) = (Arc::clone(&self.machine), self.lane.clone(), self.is_alone());
        let look = move || {
            // In this order: what a row names later than `settle` is no business of this look.
            let settled: BTreeMap<GroupId, u64> =
                machine.settle()?.into_iter().map(|(group, at)| (group, at.index)).collect();
            let closed = lane.closed_segments();
            let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
            let groups: BTreeSet<GroupId> = closed.iter().flat_map(|own| lane.groups_of(own.sequence)).collect();
            for group in groups {
                let upto = settled.get(&group).copied();
                let live: Vec<(u64, u32)> = match upto {
                    Some(_) => machine.bodies(group)?.into_iter().map(|own| (own.index, own.length_bytes)).collect(),
                    None => Vec::new(),
                };
                let indexes = live.iter().map(|(index, _)| *index).collect();
                let spent = upto.map(|upto| Spent { upto, live: indexes, alone });
                for (sequence, bytes) in lane.needed_bytes(group, spent.as_ref(), &live) {
                    *needed.entry(sequence).or_default() += bytes;
                }
            }
            let worth = |own: raft_lanes::ClosedSegment| {
                let needed = needed.get(&own.sequence).copied().unwrap_or(0);
                Worth { sequence: own.sequence, bytes: own.bytes, dead_bytes: own.bytes.saturating_sub(needed) }
            };
            Ok::<_, raft_types::StateMachineError>(closed.into_iter().map(worth).collect())
        };
        match self.options.blocking().run(look).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::warn!(error = crate::machine::chain(&error), "what is dead is not known");
                None
            }
            Err(_) => None,
        }
    }
}

fn is_worth(own: &Worth, percent: u64) -> bool {
    own.dead_bytes >= DEAD_BYTES_MIN && own.dead_bytes * 100 > own.bytes * percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_worth_a_rewrite_above_the_share_and_not_for_a_few_bytes() {
        let worth = |bytes, dead_bytes| is_worth(&Worth { sequence: 1, bytes, dead_bytes }, 40);
        assert!(worth(10 << 20, 5 << 20));
        assert!(!worth(10 << 20, 4 << 20));
        assert!(!worth(100 << 10, 90 << 10));
    }
}
