//! What a node does without being asked: leaders where they are preferred, and the watch over disk, groups and peers.

use crate::{
    invariants::OwnWatch,
    node::{Group, Node},
    types::Types,
};
use futures::future::join_all;
use openraft::{Instant, RaftMetrics, async_runtime::watch::WatchReceiver};
use raft_placement::rebalance;
use raft_types::{GroupId, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Between two looks at disk, groups and leaders.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Looks between two steps towards the preferred leaders: a hand-over has long ended by then.
const BALANCE_EVERY_LOOKS: u64 = 2;
/// A disk that does not finish a batch for so long loses its leaderships (trap 17).
const DISK_SLOW_AFTER: Duration = Duration::from_secs(5);
/// … and for so long ends the process.
const DISK_HUNG_AFTER: Duration = Duration::from_secs(20);
/// Entries that a peer may lag and still be given a leadership.
const TRANSFER_LAG_MAX: u64 = 32;
/// Free bytes without which nothing is admitted, however small the disk is: what may be under way at one time.
const ADMIT_BYTES_MIN: u64 = 64 << 20;
/// How long openraft's core may take to hear of a hand-over: it may itself wait for the disk.
const TRIGGER_WITHIN: Duration = Duration::from_secs(2);
/// How long a planned stop waits for its leaderships to go.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);

impl Node {
    /// Looks after disk, groups and leaders.
    pub(crate) async fn keep(self: Arc<Self>) {
        let (mut looks, mut watch) = (0u64, OwnWatch::default());
        loop {
            tokio::time::sleep(KEEP_EVERY).await;
            looks += 1;
            self.look_at_disk().await;
            self.look_at_groups();
            let machine = Arc::clone(&self.machine);
            if let Ok(Ok(incomplete)) = self.options.blocking().run(move || machine.incomplete()).await {
                self.watch_invariants(&mut watch, &incomplete);
            }
            self.look_at_peers().await;
            if looks.is_multiple_of(BALANCE_EVERY_LOOKS) {
                if self.is_leaving() {
                    self.hand_over_once().await; // leaders go before copies do
                } else if !self.declines() {
                    self.balance().await;
                }
            }
        }
    }

    async fn look_at_disk(&self) {
        let status = self.lane.status();
        if let Some(why) = status.failed {
            return self.fail(format!("the disk has failed: {why}"));
        }
        match status.oldest_unfinished {
            Some(age) if age >= DISK_HUNG_AFTER => {
                return self.fail(format!("the disk has not finished a write for {age:?}"));
            }
            Some(age) if age >= DISK_SLOW_AFTER => {
                tracing::warn!(?age, "the disk does not finish a write; handing over leaderships");
                self.hand_over_once().await;
            }
            _ => {}
        }
        let lane = self.lane.clone();
        let Ok(space) = self.options.blocking().run(move || lane.look_at_space()).await else { return };
        if let Err(error) = space {
            tracing::warn!(%error, "the free space is not known");
        }
        let full = self.is_full();
        let room_bytes = self.lane.status().room_bytes;
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!(room_bytes, "the disk is too full to admit images; reads go on, leaders go elsewhere");
            } else {
                tracing::info!(room_bytes, "the disk has room again; images are admitted");
            }
        }
        if full {
            self.hand_over_once().await;
        }
    }

    /// Whether there is too little room to admit images: 5 % is kept for what must be written all the same.
    pub(crate) fn is_full(&self) -> bool {
        let status = self.lane.status();
        status.room_bytes < (status.space.total_bytes / 20).clamp(ADMIT_BYTES_MIN, 8 << 30)
    }

    /// Whether there is too little room even for a leader's entries: 2 % is kept for votes, rows and snapshots. A
    /// follower then says that it cannot be reached; the others are the majority.
    pub(crate) fn is_at_reserve(&self) -> bool {
        let status = self.lane.status();
        status.room_bytes < (status.space.total_bytes / 50).clamp(ADMIT_BYTES_MIN / 2, 4 << 30)
    }

    fn look_at_groups(&self) {
        let mut leads = 0;
        for group in self.all_groups() {
            let metrics = group.raft.metrics();
            let metrics = metrics.borrow_watched();
            if let Err(error) = &metrics.running_state
                && !self.stopping()
            {
                self.fail(format!("group {} has stopped: {error}", group.id));
            }
            leads += i64::from(metrics.state == openraft::ServerState::Leader);
        }
        self.metrics.leads.set(leads);
    }

    /// Whether this node should be given no leadership.
    pub(crate) fn declines(&self) -> bool {
        self.draining.load(Ordering::Relaxed) || self.disk_full.load(Ordering::Relaxed) || self.is_leaving()
    }

    /// Whether the cluster was told to drain this node.
    fn is_leaving(&self) -> bool {
        let meta = self.meta.state();
        self.raft_id().and_then(|id| meta.node(id)).is_some_and(|node| node.draining)
    }

    /// Keeps the table of who answers fresh, also between peers that share no traffic.
    async fn look_at_peers(&self) {
        join_all(self.other_names().iter().map(|peer| self.hello_of(peer))).await;
    }

    /// One step towards the preferred leaders.
    async fn balance(&self) {
        let state = self.meta.state();
        let Some(own) = self.raft_id() else { return };
        let mut leaders = BTreeMap::new();
        let mut alive: Option<BTreeSet<NodeId>> = None;
        let mut ready: BTreeMap<GroupId, BTreeSet<NodeId>> = BTreeMap::new();
        for group in self.all_groups() {
            let metrics: RaftMetrics<Types> = group.raft.metrics().borrow_watched().clone();
            leaders.insert(group.id, metrics.current_leader.map(NodeId));
            if metrics.state == openraft::ServerState::Leader {
                let near = self.heirs(&metrics);
                alive = Some(alive.map_or_else(|| near.clone(), |alive| alive.union(&near).copied().collect()));
                ready.insert(group.id, near);
            }
        }
        let mut alive = alive.unwrap_or_default();
        alive.insert(own);
        for (group, from, to) in rebalance(&leaders, &state.preferred(), &alive) {
            if from != own || !ready.get(&group).is_some_and(|near| near.contains(&to)) {
                continue;
            }
            if let Some(group) = self.group(group) {
                self.hand_over(&group, to).await;
            }
        }
    }

    pub(crate) async fn hand_over(&self, group: &Group, to: NodeId) {
        self.metrics.transfers.inc();
        tracing::debug!(group = %group.id, to = %to, "handing over the leadership");
        match tokio::time::timeout(TRIGGER_WITHIN, group.raft.trigger().transfer_leader(to.0)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(group = %group.id, %error, "the leadership was not handed over"),
            Err(_) => tracing::warn!(group = %group.id, "the group does not take the order to hand over"),
        }
    }

    /// Gives every leadership to some peer that is near; answers how many there were.
    async fn hand_over_once(&self) -> usize {
        let led: Vec<_> = self.all_groups().into_iter().filter(|group| group.leads()).collect();
        let orders = led.iter().enumerate().filter_map(|(turn, group)| {
            let metrics: RaftMetrics<Types> = group.raft.metrics().borrow_watched().clone();
            let near: Vec<NodeId> = self.heirs(&metrics).into_iter().collect();
            let to = near[turn.checked_rem(near.len())?];
            Some(self.hand_over(group, to))
        });
        join_all(orders).await;
        led.len()
    }

    /// The other voters that could lead at once, and would.
    fn heirs(&self, metrics: &RaftMetrics<Types>) -> BTreeSet<NodeId> {
        let state = self.meta.state();
        let peers = self.peers.lock();
        let declines =
            |id: &NodeId| state.name_of(*id).and_then(|name| peers.get(name)).is_some_and(|peer| peer.declines);
        caught_up(metrics).into_iter().filter(|id| !declines(id)).collect()
    }

    /// Gives every leadership to some peer that is near, and waits until they are gone.
    pub(crate) async fn hand_over_all(&self) {
        if self.is_alone() {
            return;
        }
        let until = tokio::time::Instant::now() + HAND_OVER_WITHIN;
        loop {
            let led = self.hand_over_once().await;
            if led == 0 {
                return;
            }
            if tokio::time::Instant::now() >= until {
                tracing::warn!(groups = led, "stopping while still leading; the peers will elect");
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// By how many entries a peer lags behind this leader.
pub(crate) fn lag_of(metrics: &RaftMetrics<Types>, id: u64) -> Option<u64> {
    let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?.index;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
}

/// The other voters that could lead at once.
fn caught_up(metrics: &RaftMetrics<Types>) -> BTreeSet<NodeId> {
    let membership = metrics.membership_config.membership();
    membership
        .voter_ids()
        .filter(|id| {
            *id != metrics.id && lag_of(metrics, *id).is_some_and(|lag| lag <= TRANSFER_LAG_MAX) && heard(metrics, *id)
        })
        .map(NodeId)
        .collect()
}

/// Whether the peer acknowledged a heartbeat in the last two seconds: replication alone may be old.
fn heard(metrics: &RaftMetrics<Types>, id: u64) -> bool {
    metrics
        .heartbeat
        .as_ref()
        .and_then(|heartbeats| heartbeats.get(&id))
        .and_then(Option::as_ref)
        .is_some_and(|at| at.elapsed() < Duration::from_secs(2))
}
