//! Scrub: every closed segment is read and verified in turn, and what is damaged is mended.
//!
//! | found | what is done |
//! |---|---|
//! | body | a sound copy is fetched from a peer and kept as a block; if no row names it any more, it goes |
//! | head of an entry of the log | a peer gives the entry of the same index and term; the body as above |
//! | head of a purged entry | its body as above, if a row names it; the log does not need the head |
//! | header, batch, footer | nothing is lost with them |
//!
//! Then the segment is rewritten from what verifies and what peers gave, and read back. What nobody can give, on a single
//! node above all, stays where it is, is said to be damaged, and is looked for again in the next pass.

use crate::{node::Node, rpc::EntryRecord, types::encode, upkeep::Pass};
use bytes::Bytes;
use raft_lanes::{Finding, Head, LaneError, RewriteError, Rewrote, Scrub, ScrubStep, Scrubbed, Spent, ThinEntry};
use raft_types::{Applied, BlockAddress, GroupId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Bytes that one step of a scrub reads.
const STEP_BYTES: u64 = 1 << 20;
/// Rounds of asking peers for what a segment lacks: the second is for what only the first rewrite could tell.
const ROUNDS: usize = 3;

impl Node {
    /// One pass over all segments; false if it did not come to its end.
    pub(crate) async fn scrub_pass(&self, ordered: bool) -> bool {
        // What is in the open segment is in it too: whatever was written before the order is looked at.
        if ordered && let Err(error) = crate::log_store::durably(|done| self.lane.turn(done)).await {
            tracing::warn!(%error, "the open segment was not ended; it is not scrubbed");
        }
        let segments = self.lane.closed_segments();
        let total_bytes = segments.iter().map(|closed| closed.bytes).sum();
        self.care.pass(Some(Pass { done_bytes: 0, total_bytes }));
        tracing::info!(segments = segments.len(), bytes = total_bytes, ordered, "scrub");
        let mut whole = true;
        for closed in segments {
            if !ordered && self.care.scrub_is_ordered() {
                whole = false; // the ordered one begins at once, and reads everything
                break;
            }
            whole &= self.scrub_segment(closed.sequence, ordered, total_bytes).await;
        }
        self.care.pass(None);
        if whole {
            self.scrubbed_all().await;
        }
        whole
    }

    /// Reads one segment, and mends it; false if it could not be read.
    async fn scrub_segment(&self, sequence: u64, ordered: bool, total_bytes: u64) -> bool {
        let Some(mut scrub) = self.lane.scrub(sequence) else { return true }; // compacted away
        let mut due = self.clock.now();
        let found = loop {
            match self.step(scrub).await {
                Ok((next, ScrubStep::More(bytes))) => {
                    scrub = next;
                    self.care.advance(bytes);
                    self.metrics.scrubbed_bytes.inc_by(bytes);
                    if !ordered && !self.care.scrub_is_ordered() {
                        due += Duration::from_secs_f64(bytes as f64 / self.scrub_rate(total_bytes) as f64);
                        self.care.sleep(due.saturating_sub(self.clock.now())).await;
                    }
                }
                Ok((_, ScrubStep::Done(found))) => break found,
                Err(error) => {
                    tracing::error!(sequence, %error, "a segment could not be scrubbed: look at the disk");
                    return false;
                }
            }
        };
        if found.findings.is_empty() {
            self.care.sound(sequence);
        } else {
            self.mend(found).await;
        }
        true
    }

    async fn step(&self, mut scrub: Scrub) -> Result<(Scrub, ScrubStep), LaneError> {
        let step = move || scrub.step(STEP_BYTES).map(|step| (scrub, step));
        self.options.blocking().run(step).await.map_err(|_| LaneError::Stopped)?
    }

    /// Mends what was found damaged when the lane was opened.
    pub(crate) async fn mend_what_the_start_found(&self) {
        let damaged: Vec<_> =
            self.lane.closed_segments().into_iter().filter_map(|own| Some((own.sequence, own.damaged?))).collect();
        for (sequence, why) in damaged {
            tracing::error!(sequence, why, "the start found damage");
            if let Some(scrub) = self.lane.scrub(sequence)
                && let Ok(Ok(found)) = self.options.blocking().run(move || scrub.run()).await
            {
                let findings =
                    if found.findings.is_empty() { BTreeSet::from([Finding::Footer]) } else { found.findings };
                self.mend(Scrubbed { findings, ..found }).await;
            }
        }
    }

    /// Mends one segment.
    async fn mend(&self, found: Scrubbed) {
        let sequence = found.sequence;
        for finding in &found.findings {
            self.metrics.damaged.with_label_values(&[finding.kind()]).inc();
            tracing::error!(sequence, ?finding, "damaged on the disk");
        }
        let (mut wanted, mut heads) = (found.findings.clone(), BTreeMap::new());
        let mut result = Err(RewriteError::Stopped);
        for _ in 0..ROUNDS {
            let spent = self.spent(wanted.iter().filter_map(group_of).collect()).await;
            for finding in &wanted {
                self.give(finding, &spent, &mut heads).await;
            }
            result = self.rewrite(sequence, spent.clone(), heads.clone(), true).await;
            match &result {
                Err(RewriteError::Lost(lost)) => {
                    wanted.extend(lost.iter().copied());
                    self.purge_what_nobody_has(&wanted, &spent).await;
                }
                Err(RewriteError::Newest(_)) => {
                    if crate::log_store::durably(|done| self.lane.turn(done)).await.is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
        let mut left = match &result {
            Ok(Rewrote { damaged: 0, .. }) => BTreeSet::new(),
            Ok(_) => found.findings.iter().copied().filter(|own| matches!(own, Finding::Body { .. })).collect(),
            Err(_) => wanted.clone(),
        };
        if let (Ok(_), false) = (&result, left.is_empty())
            && let Some(scrub) = self.lane.scrub(sequence)
            && let Ok(Ok(again)) = self.options.blocking().run(move || scrub.run()).await
        {
            left = again.findings;
        }
        let all = wanted.len() as u64;
        let repaired = all - left.iter().filter(|own| wanted.contains(own)).count() as u64;
        self.metrics.repaired.inc_by(repaired);
        match result {
            Ok(_) if left.is_empty() => tracing::warn!(sequence, repaired, "a damaged segment was mended"),
            Ok(_) => tracing::error!(
                sequence,
                repaired,
                left = left.len(),
                "some bodies here are damaged and can be had from nobody now: they stay as they are, and are asked for again"
            ),
            Err(error) => tracing::error!(sequence, left = left.len(), %error, "a damaged segment was not mended"),
        }
        self.care.note(sequence, all, repaired, left, self.clock.unix_ms());
    }

    /// Brings here what mends `finding`: a head into `heads`, a body into the lane.
    async fn give(
        &self,
        finding: &Finding,
        spent: &BTreeMap<GroupId, Spent>,
        heads: &mut BTreeMap<(GroupId, u64), Head>,
    ) {
        let (Finding::Body { group, index } | Finding::Head { group, index }) = *finding else { return };
        let purged = self.lane.state(group).purged.is_some_and(|purged| index <= purged.index);
        if matches!(finding, Finding::Head { .. }) && !purged && !heads.contains_key(&(group, index)) {
            let Some(at) = self.lane.position(group, index) else { return };
            let Some((entry, body)) = self.heads.of_a_peer(group, at).await else { return };
            let EntryRecord { position, kind, head, body_len } = entry;
            let whole = body.filter(|body| body.len() == body_len as usize);
            // A block answers for its index whatever the term: it must be of a committed entry.
            let body = whole.filter(|_| !self.has_applied(group, index));
            let done = body_len == 0 || body.is_some();
            heads.insert((group, index), Head { term: position.term, kind, head, body_len, body });
            if done {
                return;
            }
        }
        let needed = spent.get(&group).is_none_or(|own| index > own.upto || own.live.binary_search(&index).is_ok());
        let has_it = {
            let (lane, is_body) = (self.lane.clone(), matches!(finding, Finding::Body { .. }));
            // An entry whose head is lost to the rewrite may still be found by way of a footer that is damaged itself: the
            // rewrite cannot, and needs the body apart.
            let look =
                move || if is_body { lane.has_whole_body(group, index) } else { lane.has_whole_block(group, index) };
            self.options.blocking().run(look).await.unwrap_or(false)
        };
        if has_it || !(needed || matches!(finding, Finding::Head { .. }) && !purged) {
            return;
        }
        let _permit = self.repair_budget.acquire(raft_types::Command::BODY_BYTES_MAX as u64).await;
        if let Some(bytes) = self.fetch(BlockAddress { group, index }, 0..u64::MAX).await {
            self.keep_block(group, index, bytes).await;
        }
    }

    fn has_applied(&self, group: GroupId, index: u64) -> bool {
        let applied = match self.group(group) {
            Some(own) => own.progress.applied(),
            None => self.applied_at_start.get(&group).and_then(|applied| applied.position),
        };
        applied.is_some_and(|applied| applied.index >= index)
    }

    /// What of the bodies of these groups is needed. First how far each group has come, then what its rows name.
    pub(crate) async fn spent(&self, groups: BTreeSet<GroupId>) -> BTreeMap<GroupId, Spent> {
        let (machine, alone) = (Arc::clone(&self.machine), self.is_alone());
        let look = move || {
            let settled: BTreeMap<_, _> = machine.settle()?.into_iter().collect();
            let mut spent = BTreeMap::new();
            for group in groups {
                let Some(upto) = settled.get(&group).map(|at| at.index) else { continue };
                let live = machine.bodies(group)?.into_iter().map(|body| body.index).collect();
                spent.insert(group, Spent { upto, live, alone });
            }
            Ok::<_, raft_types::StateMachineError>(spent)
        };
        match self.options.blocking().run(look).await {
            Ok(Ok(spent)) => spent,
            Ok(Err(error)) => {
                tracing::warn!(error = crate::machine::chain(&error), "what is needed is not known: all of it is kept");
                BTreeMap::new()
            }
            Err(_) => BTreeMap::new(),
        }
    }

    /// Rewrites a segment; in haste, or at the pace of a compaction that nobody waits for.
    pub(crate) async fn rewrite(
        &self,
        sequence: u64,
        spent: BTreeMap<GroupId, Spent>,
        heads: BTreeMap<(GroupId, u64), Head>,
        hasty: bool,
    ) -> Result<Rewrote, RewriteError> {
        let (lane, stop) = (self.lane.clone(), self.stop.clone());
        let per_second = self.options.upkeep.compact_bytes_per_second.max(1);
        let may_sleep = !hasty && !self.options.inline;
        let clock = Arc::clone(&self.clock);
        let run = move || {
            let mut due = clock.now();
            lane.rewrite(sequence, &spent, &heads, &mut |bytes| {
                if may_sleep {
                    due += Duration::from_secs_f64(bytes as f64 / per_second as f64);
                    std::thread::sleep(due.saturating_sub(clock.now()).min(Duration::from_secs(1)));
                }
                !stop.is_cancelled()
            })
        };
        let rewrote = self.options.blocking().run(run).await.map_err(|_| RewriteError::Stopped)??;
        self.care.rewrote(rewrote.bytes_before, rewrote.bytes_after);
        self.metrics.segments_rewritten.inc();
        self.metrics.reclaimed_bytes.inc_by(rewrote.bytes_before.saturating_sub(rewrote.bytes_after));
        Ok(rewrote)
    }

    /// Before a group is opened: the damaged heads that its start needs can be had from peers. Without peers the group then
    /// says itself what it cannot read. What all peers have purged is in their rows, which take the place of those here.
    pub(crate) async fn past_damage(&self, group: GroupId, mut applied: Applied) -> Applied {
        if self.is_alone() {
            return applied;
        }
        loop {
            let (lane, upto) = (self.lane.clone(), applied.position.map(|applied| applied.index));
            let look = move || lane.damaged_heads(group, upto);
            let mut lost = None;
            for index in self.options.blocking().run(look).await.unwrap_or_default() {
                let Some(at) = self.lane.position(group, index) else { continue };
                if self.heads.of_a_peer(group, at).await.is_none() {
                    lost = Some(at);
                }
            }
            let Some(lost) = lost else { return applied };
            self.set_phase(format!("the log of {group} is damaged at {lost}: waiting for a peer that has it"));
            if group != GroupId::META
                && let Some(rows) = self.rows_of_a_peer(group, lost).await
            {
                applied = rows;
            } else if !self.heads.pause().await {
                return applied;
            }
        }
    }

    /// Mends what readers of the log found damaged.
    pub(crate) async fn mend_what_readers_found(&self) {
        for (sequence, mut findings) in self.heads.take_found() {
            let lane = self.lane.clone();
            // A scrub may have mended it since.
            let still = move || {
                findings.retain(
                    |own| matches!(own, Finding::Head { group, index } if lane.has_damaged_head(*group, *index)),
                );
                findings
            };
            let findings = self.options.blocking().run(still).await.unwrap_or_default();
            if !findings.is_empty() {
                self.mend(Scrubbed { sequence, bytes: 0, findings }).await;
            }
        }
    }

    /// What of the log nobody can give any more, though it is applied here: a log that cannot be read helps no peer, so it
    /// is purged up to there, and who lacks it gets the rows.
    async fn purge_what_nobody_has(&self, lost: &BTreeSet<Finding>, spent: &BTreeMap<GroupId, Spent>) {
        if self.is_alone() {
            return;
        }
        let mut upto = BTreeMap::new();
        for finding in lost {
            let Finding::Head { group, index } = *finding else { continue };
            let (Some(own), Some(at)) = (spent.get(&group), self.lane.position(group, index)) else { continue };
            let is_purged = self.lane.state(group).purged.is_some_and(|purged| index <= purged.index);
            if index <= own.upto && !is_purged && self.heads.of_a_peer(group, at).await.is_none() {
                upto.insert(group, at); // ascending
            }
        }
        for (group, at) in upto {
            if let Some(group) = self.group(group) {
                self.purge(&group, at).await;
            }
        }
    }
}

fn group_of(finding: &Finding) -> Option<GroupId> {
    match finding {
        Finding::Body { group, .. } | Finding::Head { group, .. } => Some(*group),
        Finding::Header | Finding::Batch { .. } | Finding::Footer => None,
    }
}

/// The answer to `ENTRY`.
pub(crate) fn entry_answer(thin: &ThinEntry) -> Bytes {
    let ThinEntry { position, kind, head, body_len, elided: _ } = thin;
    encode(&EntryRecord { position: *position, kind: *kind, head: head.clone(), body_len: *body_len })
}
