//! How much log is kept: the newest part, by bytes and by age; the rest is purged once the rows that it made are safe.
//!
//! A purged entry is one that no replica can catch up with by log any more; it gets the rows by a snapshot and the bodies
//! by the mirror. Its body stays where it is (trap 7). Purging never goes beyond what [`StateMachine::settle`] made safe
//! against a power loss (trap 10).
//!
//! [`StateMachine::settle`]: raft_types::StateMachine::settle

use crate::node::{Group, Node};
use openraft::async_runtime::watch::WatchReceiver;
use raft_lanes::Sabotage;
use raft_types::{GroupId, LogPosition, StateMachine, StateMachineError};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// How much log every group keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Between two looks.
    pub every: Duration,
    /// Heads and bodies of one group that are kept at least, in bytes.
    pub keep_bytes: u64,
    /// Entries younger than this are kept, unless there are more bytes of them.
    pub keep_for: Duration,
}

impl Default for Retention {
    /// A look every 30 s; 256 MiB or a day: a node that comes back after less catches up by log.
    fn default() -> Self {
        Self { every: Duration::from_secs(30), keep_bytes: 256 << 20, keep_for: Duration::from_secs(24 * 3600) }
    }
}

/// How far a group had applied at some moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    position: LogPosition,
    bytes: u64,
}

/// Samples of one group that are remembered; beyond it every second one goes, so that they reach as far back.
const SAMPLES_MAX: usize = 512;
/// How long a snapshot, which is a moment and nothing else, may take to be noted.
const NOTED_WITHIN: Duration = Duration::from_secs(5);

impl Node {
    /// Purges what need not be kept.
    pub(crate) async fn retain(self: Arc<Self>) {
        let mut history: BTreeMap<GroupId, VecDeque<Sample>> = BTreeMap::new();
        loop {
            tokio::time::sleep(self.options.retention.every).await;
            if self.is_alone() {
                // Nobody could give the rows back if they were lost: the log stays whole.
                continue;
            }
            let machine = Arc::clone(&self.machine);
            let hasty = self.options.has(Sabotage::PurgeBeforeSettled);
            let settle = move || if hasty { applied_of(&*machine) } else { machine.settle() };
            let settled = match self.options.blocking().run(settle).await {
                Ok(Ok(settled)) => settled.into_iter().collect::<BTreeMap<_, _>>(),
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = crate::machine::chain(&error),
                        "the rows were not made safe; no log is purged"
                    );
                    continue;
                }
                Err(_) => return,
            };
            for group in self.all_groups() {
                let (Some(settled), Some(position)) = (settled.get(&group.id), group.progress.applied()) else {
                    continue;
                };
                let samples = history.entry(group.id).or_default();
                remember(samples, Sample { at: self.clock.now(), position, bytes: group.progress.bytes() });
                let Some(upto) = purgeable(samples, self.options.retention) else { continue };
                let upto = upto.min(*settled);
                if self.lane.state(group.id).purged.is_none_or(|purged| purged < upto) {
                    self.purge(&group, upto).await;
                }
            }
        }
    }

    pub(crate) async fn purge(&self, group: &Group, upto: LogPosition) {
        let mut metrics = group.raft.metrics();
        if group.raft.trigger().snapshot().await.is_err() {
            return; // the group is stopping
        }
        let noted = async {
            loop {
                let reached = metrics.borrow_watched().snapshot.as_ref().is_some_and(|at| at.index >= upto.index);
                if reached || metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(NOTED_WITHIN, noted).await.is_err() {
            return; // tried again at the next look
        }
        match group.raft.trigger().purge_log(upto.index).await {
            Ok(()) => self.metrics.purged.inc(),
            Err(error) => tracing::debug!(group = %group.id, %error, "the log was not purged"),
        }
    }
}

/// What is applied, safe or not: for a bug on purpose.
fn applied_of(machine: &dyn StateMachine) -> Result<Vec<(GroupId, LogPosition)>, StateMachineError> {
    let applied = machine.applied()?;
    Ok(applied.into_iter().filter_map(|(group, applied)| Some((group, applied.position?))).collect())
}

fn remember(samples: &mut VecDeque<Sample>, sample: Sample) {
    samples.push_back(sample);
    if samples.len() > SAMPLES_MAX {
        let mut number = 0;
        samples.retain(|_| {
            number += 1;
            number % 2 == 1 // the oldest stays
        });
    }
}

/// Up to where the log is old enough, or long enough behind.
fn purgeable(samples: &mut VecDeque<Sample>, keep: Retention) -> Option<LogPosition> {
    let newest = *samples.back()?;
    let mut upto = None;
    while let Some(oldest) = samples.front().copied() {
        let old = newest.at.saturating_sub(oldest.at) >= keep.keep_for;
        if !old && newest.bytes.saturating_sub(oldest.bytes) < keep.keep_bytes {
            break;
        }
        upto = Some(oldest.position);
        samples.pop_front();
    }
    upto
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day of looks every 30 s is more samples than are remembered.
    #[test]
    fn log_is_purged_at_its_age_however_many_looks_that_is() {
        let keep = Retention::default();
        let (mut samples, mut purged) = (VecDeque::new(), None);
        for look in 0..4_000_u64 {
            let at = Duration::from_secs(30 * look);
            remember(&mut samples, Sample { at, position: LogPosition { term: 1, index: look }, bytes: look });
            if let Some(upto) = purgeable(&mut samples, keep) {
                let age = at - Duration::from_secs(30 * upto.index);
                assert!(age >= keep.keep_for && age < keep.keep_for * 2, "{age:?}");
                purged = Some(upto);
            }
        }
        assert!(purged.is_some(), "33 hours of looks and nothing is a day old");
        assert!(samples.len() <= SAMPLES_MAX);
    }

    #[test]
    fn more_bytes_than_are_kept_are_purged_before_their_age() {
        let keep = Retention { keep_bytes: 100, ..Retention::default() };
        let mut samples = VecDeque::new();
        let sample = |index, bytes| Sample { at: Duration::ZERO, position: LogPosition { term: 1, index }, bytes };
        remember(&mut samples, sample(1, 0));
        remember(&mut samples, sample(2, 60));
        assert_eq!(purgeable(&mut samples, keep), None);
        remember(&mut samples, sample(3, 130));
        assert_eq!(purgeable(&mut samples, keep), Some(LogPosition { term: 1, index: 1 }));
    }
}
