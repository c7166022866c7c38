//! Mirroring: the bodies that rows from a snapshot name and that are not here yet, pulled from all replicas at once.
//!
//! ```text
//!   incomplete group ─ bodies that rows name − bodies held here = missing set ─► 8 in flight, replicas in turn ─► lane
//!                                                                     nothing missing ─► complete ─► may become voter
//! ```
//!
//! What is persisted is one flag a group, set in the transaction that imports the rows; the missing set follows from rows
//! and lane at any time, so that there is no second truth about it. Whatever a node already holds is not pulled again.
//!
//! Only copies are completed. A node that has the rows of a group and is no copy of it keeps the flag, if it has it, and
//! pulls nothing; once it is wanted, what it misses is looked for until it votes, flag or not: entries came without bodies.

use crate::{
    node::Node,
    rpc::{ReadCall, method},
    types::encode,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use raft_types::{BlockAddress, BodyRef, Class, GroupId, Message};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Between two looks for incomplete groups.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bodies on their way at the same time: 8 of 1 MiB keep a fast link busy, and stay within the repair budget.
const IN_FLIGHT: usize = 8;
/// Damaged bodies that are remembered; more are found again when they are read or scrubbed.
const DAMAGED_MAX: usize = 65_536;
/// How long one body may take.
const PULL_WITHIN: Duration = Duration::from_secs(20);

impl Node {
    /// Completes incomplete groups, the thinnest first.
    pub(crate) async fn mirror(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.repair_damaged().await;
            let (machine, installs) = (Arc::clone(&self.machine), self.installs.load(Ordering::SeqCst));
            let flagged = match self.options.blocking().run(move || machine.incomplete()).await {
                Ok(Ok(groups)) => groups,
                Ok(Err(error)) => {
                    tracing::warn!(error = crate::machine::chain(&error), "the incomplete groups are not known");
                    continue;
                }
                Err(_) => return,
            };
            let flagged: BTreeSet<GroupId> = flagged.into_iter().filter(|group| self.keeps_bodies(*group)).collect();
            let groups = self.all_groups();
            let coming = groups.iter().map(|group| group.id).filter(|id| {
                *id != GroupId::META && !flagged.contains(id) && self.is_wanted(*id) && !self.votes_in(*id)
            });
            let mut todo = Vec::new();
            for group in coming.chain(flagged.iter().copied()) {
                if let Some(missing) = self.missing_of(group).await
                    && (!missing.is_empty() || flagged.contains(&group))
                {
                    todo.push((bytes_of(&missing), group, missing));
                }
            }
            todo.sort_unstable_by_key(|(bytes, group, _)| (*bytes, *group));
            if !todo.is_empty() {
                self.note_missing(Some(todo.iter().map(|(bytes, ..)| bytes).sum()));
            } else if installs == self.installs.load(Ordering::SeqCst) {
                self.note_missing(None);
            }
            for (bytes, group, missing) in todo {
                if bytes > 0 {
                    tracing::info!(%group, bodies = missing.len(), bytes, "pulling what is missing");
                }
                self.pull_all(group, missing).await;
                if flagged.contains(&group) && self.missing_of(group).await.is_some_and(|left| left.is_empty()) {
                    self.complete(group).await;
                }
            }
        }
    }

    /// The bodies that rows of `group` name and that are not here.
    pub(crate) async fn missing_of(&self, group: GroupId) -> Option<Vec<BodyRef>> {
        let (machine, lane) = (Arc::clone(&self.machine), self.lane.clone());
        let look = move || {
            let named = machine.bodies(group)?;
            Ok(named.into_iter().filter(|body| !lane.holds(group, body.index, body.length_bytes)).collect())
        };
        match self.options.blocking().run(look).await.ok()? {
            Ok(missing) => Some(missing),
            Err(error) => {
                let error: raft_types::StateMachineError = error;
                tracing::warn!(%group, error = crate::machine::chain(&error), "what is missing is not known");
                None
            }
        }
    }

    /// Bytes that some group misses; none when every group is complete. Some, though unknown, from before rows come in.
    pub(crate) fn note_missing(&self, bytes: Option<u64>) {
        *self.missing.lock() = bytes;
        self.metrics.missing_bytes.set(i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX));
    }

    async fn complete(&self, group: GroupId) {
        let machine = Arc::clone(&self.machine);
        match self.options.blocking().run(move || machine.set_complete(group)).await {
            Ok(Ok(())) => tracing::info!(%group, "complete: every body is here"),
            Ok(Err(error)) => {
                tracing::warn!(%group, error = crate::machine::chain(&error), "the group was not marked complete");
            }
            Err(_) => {}
        }
    }

    async fn pull_all(&self, group: GroupId, missing: Vec<BodyRef>) {
        let mut pulls = stream::iter(missing).map(|body| self.pull(group, body)).buffer_unordered(IN_FLIGHT);
        let mut failed = 0u64;
        while let Some(pulled) = pulls.next().await {
            match pulled {
                Some(bytes) => {
                    let left = self.missing.lock().unwrap_or(0).saturating_sub(bytes);
                    self.note_missing(Some(left));
                }
                None => failed += 1,
            }
        }
        if failed > 0 {
            tracing::warn!(%group, failed, "some bodies were to be had from no replica; they are asked for again");
        }
    }

    /// Brings one body here; answers its length.
    async fn pull(&self, group: GroupId, body: BodyRef) -> Option<u64> {
        let length = u64::from(body.length_bytes);
        let _permit = self.repair_budget.acquire(length.max(1)).await;
        self.pace(length).await;
        let bytes = self.fetch(BlockAddress { group, index: body.index }, 0..length).await?;
        self.keep_block(group, body.index, bytes).await.then_some(length)
    }

    /// Waits for this body's turn under the limit that was set.
    async fn pace(&self, length: u64) {
        let Some(per_second) = self.options.mirror_bytes_per_second.filter(|limit| *limit > 0) else { return };
        let takes = Duration::from_secs_f64(length as f64 / per_second as f64);
        let turn = {
            let mut next = self.next_pull.lock();
            let turn = (*next).max(self.clock.now());
            *next = turn + takes;
            turn
        };
        tokio::time::sleep(turn.saturating_sub(self.clock.now())).await;
    }

    /// Bytes of a body from whichever other replica has them; replicas take turns, so that all of them give, and those that
    /// have been silent come last. An end of `u64::MAX` is the end of the body.
    pub(crate) async fn fetch(&self, address: BlockAddress, range: std::ops::Range<u64>) -> Option<Bytes> {
        for peer in &self.holders_of(address) {
            let call = ReadCall { index: address.index, start: range.start, end: range.end };
            let request =
                Message { method: method::READ, group: address.group, head: encode(&call), bodies: Vec::new() };
            let Ok(Ok(mut answer)) =
                tokio::time::timeout(PULL_WITHIN, self.wire.call(peer, Class::Read, request)).await
            else {
                continue; // the next replica may have it
            };
            let bytes = answer.bodies.pop().unwrap_or_default();
            // No body that rows name is empty: nothing means that the peer does not have it either.
            let whole =
                if range.end == u64::MAX { !bytes.is_empty() } else { bytes.len() as u64 == range.end - range.start };
            if whole {
                return Some(bytes);
            }
        }
        None
    }

    /// The other nodes that may have a body: the voters have it; who is wanted as a copy may have it already.
    fn holders_of(&self, address: BlockAddress) -> Vec<String> {
        let (meta, now) = (self.meta.state(), self.clock.now());
        let role = self.group(address.group).map(|group| group.role());
        let mut voters: Vec<String> = role.map(|role| role.voters.into_values().collect()).unwrap_or_default();
        let wanted = meta.replicas(address.group).iter().filter_map(|id| meta.name_of(*id)).map(str::to_owned);
        let turn = usize::try_from(address.index).unwrap_or(0) % voters.len().max(1);
        voters.rotate_left(turn);
        let mut names: Vec<String> = Vec::with_capacity(voters.len() + 1);
        for name in voters.into_iter().chain(wanted).filter(|name| name != self.name() && !name.is_empty()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let peers = self.peers.lock();
        let silent =
            |name: &String| peers.get(name).is_none_or(|peer| now.saturating_sub(peer.at) >= crate::status::DOWN_AFTER);
        names.sort_by_key(silent); // stable
        names
    }

    /// Keeps a body apart from the log, durably.
    pub(crate) async fn keep_block(&self, group: GroupId, index: u64, bytes: Bytes) -> bool {
        let length = bytes.len() as u64;
        let permit = self.lane.reserve(length + 64).await;
        let (done, durable) = tokio::sync::oneshot::channel();
        let submitted = self.lane.append_blocks(
            group,
            vec![(index, bytes)],
            Box::new(move |result| {
                drop(permit);
                let _ = done.send(result.is_ok());
            }),
        );
        let kept = submitted.is_ok() && durable.await.unwrap_or(false);
        if kept {
            self.metrics.pulled_bytes.inc_by(length);
        }
        kept
    }

    /// Remembers that a body here is damaged; the mirror replaces it by a peer's copy.
    pub(crate) fn note_damaged(&self, address: BlockAddress) {
        note(&self.damaged, address);
    }

    /// Whether this node leads with an entry that nobody has committed yet: then no peer can give its body, the group can
    /// not get past it, and only another leader can do without it.
    fn is_stuck_at(&self, BlockAddress { group, index }: BlockAddress) -> bool {
        self.group(group).is_some_and(|own| {
            let applied = own.progress.applied().is_some_and(|applied| applied.index >= index);
            own.leads() && !applied && self.led_by_a_majority(&own)
        })
    }

    /// Replaces damaged copies here by sound ones from peers.
    async fn repair_damaged(&self) {
        let damaged = std::mem::take(&mut *self.damaged.lock());
        let mut repairs = stream::iter(damaged).map(|address| self.repair(address)).buffer_unordered(IN_FLIGHT);
        while let Some(()) = repairs.next().await {}
    }

    async fn repair(&self, address: BlockAddress) {
        let BlockAddress { group, index } = address;
        let _permit = self.repair_budget.acquire(raft_types::Command::BODY_BYTES_MAX as u64).await;
        if !self.keeps_bodies(group) {
            return; // no copy: it is read from those who are
        }
        let repaired = match self.fetch(address, 0..u64::MAX).await {
            Some(bytes) => self.keep_block(group, index, bytes).await,
            None => false,
        };
        if repaired {
            self.metrics.repaired.inc();
            tracing::warn!(block = %address, "a damaged body was replaced by a peer's copy");
        } else {
            tracing::error!(block = %address, "a damaged body here can be had from no peer now");
            if self.is_stuck_at(address) {
                self.fail(format!("{address} is damaged here and committed nowhere: the peers elect another leader"));
            }
        }
    }
}

/// Bodies here that failed their checksum and wait for a peer's copy.
pub(crate) type Damaged = Arc<Mutex<BTreeSet<BlockAddress>>>;

/// Notes a damaged body.
pub(crate) fn note(damaged: &Damaged, address: BlockAddress) {
    let mut damaged = damaged.lock();
    if damaged.len() < DAMAGED_MAX {
        damaged.insert(address);
    }
}

fn bytes_of(missing: &[BodyRef]) -> u64 {
    missing.iter().map(|body| u64::from(body.length_bytes)).sum()
}
