//! The care of the disk: one task that scrubs, mends and compacts, one segment at a time, and what is to be seen of it.
//!
//! ```text
//!   ordered scrub ──┐
//!   routine scrub ──┼─► one segment: read and verify ─ findings ─► mend (scrub.rs)
//!   compaction    ──┘                                              heads and bodies from peers, segment rewritten
//! ```
//!
//! What is kept between two starts is one small file, so that a pass goes on counting its days:
//!
//! ```json
//! { "version": 1, "last_full_ms": 1700000000000, "last_hit_ms": null, "found": 0, "repaired": 0 }
//! ```

use crate::node::Node;
use parking_lot::Mutex;
use raft_lanes::Finding;
use raft_types::{Disk, UpkeepStatus};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

const FILE: &str = "scrub.json";
const VERSION: u32 = 1;
/// After a start the disk is left to those who wait.
const BEGIN_AFTER: Duration = Duration::from_secs(60);
/// At least so often the task looks what there is to do.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How the disk is cared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// In so long everything is scrubbed once.
    pub scrub_pass: Duration,
    /// Bytes a second of a routine scrub, at least and at most; four times as many on the day after damage was found.
    pub scrub_bytes_per_second: (u64, u64),
    /// Between two looks for segments that are worth compacting.
    pub compact_every: Duration,
    /// A segment is compacted when more of it is dead, in percent.
    pub compact_dead_percent: u64,
    /// Bytes a second that a compaction which nobody ordered reads and writes.
    pub compact_bytes_per_second: u64,
}

impl Default for Upkeep {
    /// 14 days; 2 to 50 MB/s; a look every 5 minutes, above 40 % dead, at 50 MB/s.
    fn default() -> Self {
        Self {
            scrub_pass: Duration::from_secs(14 * 24 * 3600),
            scrub_bytes_per_second: (2_000_000, 50_000_000),
            compact_every: Duration::from_secs(300),
            compact_dead_percent: 40,
            compact_bytes_per_second: 50_000_000,
        }
    }
}

/// What outlives the process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    last_full_ms: Option<u64>,
    last_hit_ms: Option<u64>,
    found: u64,
    repaired: u64,
}

/// What the task knows, and what was ordered of it.
pub(crate) struct Care {
    state: Mutex<State>,
    /// Rung when something is ordered.
    bell: Notify,
}

#[derive(Default)]
struct State {
    kept: Kept,
    /// Orders given and orders done; an order that comes while one is done waits for the next.
    scrubs: (u64, u64),
    compactions: (u64, u64),
    scrub: Option<Pass>,
    compacting: bool,
    /// Damage that is there still, by segment.
    left: BTreeMap<u64, BTreeSet<Finding>>,
    reclaimed_bytes: u64,
    rewritten: u64,
    disk_bytes: u64,
    dead_bytes: u64,
}

/// A scrub under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl Care {
    /// As the last process left it.
    pub(crate) fn load(store: &dyn Disk) -> io::Result<Self> {
        let mut kept = Kept { version: VERSION, ..Kept::default() };
        match store.open(FILE) {
            Ok(file) => {
                let mut bytes = vec![0; usize::try_from(file.len()?.min(64 << 10)).unwrap_or(0)];
                let filled = file.read_at(0, &mut bytes)?;
                bytes.truncate(filled);
                match serde_json::from_slice::<Kept>(&bytes) {
                    Ok(found) if found.version <= VERSION => kept = found,
                    // It only counts: damaged or of a newer release, it is begun again.
                    Ok(_) | Err(_) => tracing::warn!("{FILE} cannot be read; the scrub begins a new pass"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { state: Mutex::new(State { kept, ..State::default() }), bell: Notify::new() })
    }

    pub(crate) fn status(&self) -> UpkeepStatus {
        let state = self.state.lock();
        UpkeepStatus {
            scrub_running: state.scrub.is_some(),
            scrub_done_bytes: state.scrub.map_or(0, |pass| pass.done_bytes),
            scrub_total_bytes: state.scrub.map_or(0, |pass| pass.total_bytes),
            scrub_last_full_ms: state.kept.last_full_ms,
            scrub_orders_done: state.scrubs.1,
            damaged_found: state.kept.found,
            damaged_repaired: state.kept.repaired,
            damaged_left: state.left.values().map(|left| left.len() as u64).sum(),
            hole: None,
            compact_running: state.compacting,
            compact_orders_done: state.compactions.1,
            segments_rewritten: state.rewritten,
            reclaimed_bytes: state.reclaimed_bytes,
            disk_bytes: state.disk_bytes,
            dead_bytes: state.dead_bytes,
        }
    }

    /// Whether somebody waits for a scrub.
    pub(crate) fn scrub_is_ordered(&self) -> bool {
        let state = self.state.lock();
        state.scrubs.0 > state.scrubs.1
    }

    /// Waits, but not when something is ordered meanwhile.
    pub(crate) async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.bell.notified() => {}
        }
    }

    pub(crate) fn pass(&self, pass: Option<Pass>) {
        self.state.lock().scrub = pass;
    }

    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(pass) = &mut self.state.lock().scrub {
            pass.done_bytes = (pass.done_bytes + bytes).min(pass.total_bytes);
        }
    }

    /// What is left of the damage of a segment after it was mended.
    pub(crate) fn note(&self, segment: u64, found: u64, repaired: u64, left: BTreeSet<Finding>, now_ms: u64) {
        let mut state = self.state.lock();
        state.kept.found += found;
        state.kept.repaired += repaired;
        state.kept.last_hit_ms = Some(now_ms);
        if left.is_empty() {
            state.left.remove(&segment);
        } else {
            state.left.insert(segment, left);
        }
    }

    /// The segment is sound.
    pub(crate) fn sound(&self, segment: u64) {
        self.state.lock().left.remove(&segment);
    }

    pub(crate) fn rewrote(&self, before: u64, after: u64) {
        let mut state = self.state.lock();
        state.rewritten += 1;
        state.reclaimed_bytes += before.saturating_sub(after);
    }

    pub(crate) fn measured(&self, disk_bytes: u64, dead_bytes: u64) {
        let mut state = self.state.lock();
        (state.disk_bytes, state.dead_bytes) = (disk_bytes, dead_bytes);
    }

    fn hit_today(&self, now_ms: u64) -> bool {
        self.state.lock().kept.last_hit_ms.is_some_and(|at| now_ms.saturating_sub(at) < 24 * 3600 * 1000)
    }
}

impl Node {
    /// Orders a scrub of this node's disk; answers the number that `scrub_orders_done` reaches when it has ended.
    pub fn order_scrub(&self) -> u64 {
        let order = {
            let mut state = self.care.state.lock();
            state.scrubs.0 += 1;
            state.scrubs.0
        };
        self.care.bell.notify_one();
        order
    }

    /// Orders a look for dead bytes now, also where they are few; answers the number that `compact_orders_done` reaches.
    pub fn order_compaction(&self) -> u64 {
        let order = {
            let mut state = self.care.state.lock();
            state.compactions.0 += 1;
            state.compactions.0
        };
        self.care.bell.notify_one();
        order
    }

    /// Scrubs, mends and compacts.
    pub(crate) async fn care(self: Arc<Self>) {
        let started = self.clock.now();
        let mut compacted_at = started;
        // What was found at the start is mended first: a second fault in the same place may cost more.
        if self.identity.borrow().replaces.is_none() {
            self.mend_what_the_start_found().await; // else it is done before the node joins again
        }
        loop {
            self.mend_what_readers_found().await;
            let (scrub_orders, compact_orders) = {
                let state = self.care.state.lock();
                (state.scrubs, state.compactions)
            };
            let now = self.clock.now();
            let ordered = compact_orders.0 > compact_orders.1;
            if scrub_orders.0 > scrub_orders.1 {
                if self.scrub_pass(true).await {
                    self.care.state.lock().scrubs.1 = scrub_orders.0;
                }
                compacted_at = Duration::ZERO; // it knows now what is sound
            } else if *self.ready().borrow()
                && (ordered || now.saturating_sub(compacted_at) >= self.options.upkeep.compact_every)
            {
                self.care.state.lock().compacting = true;
                self.compact(ordered).await;
                let mut state = self.care.state.lock();
                state.compacting = false;
                state.compactions.1 = compact_orders.0;
                compacted_at = now;
            } else if now.saturating_sub(started) >= BEGIN_AFTER && self.scrub_is_due() {
                self.scrub_pass(false).await;
            }
            let waits = {
                let (state, ready) = (self.care.state.lock(), *self.ready().borrow());
                state.scrubs.0 > state.scrubs.1 || (ready && state.compactions.0 > state.compactions.1)
            };
            if !waits {
                self.care.sleep(LOOK_EVERY.min(self.options.upkeep.compact_every)).await;
            }
        }
    }

    fn scrub_is_due(&self) -> bool {
        let pass_ms = u64::try_from(self.options.upkeep.scrub_pass.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.clock.unix_ms();
        let last = self.care.state.lock().kept.last_full_ms;
        // A clock that went back: the pass is due.
        last.is_none_or(|last| last > now_ms || now_ms - last >= pass_ms)
    }

    /// Bytes a second of a routine scrub over `total` bytes.
    pub(crate) fn scrub_rate(&self, total: u64) -> u64 {
        let (least, most) = self.options.upkeep.scrub_bytes_per_second;
        let even = total / self.options.upkeep.scrub_pass.as_secs().max(1);
        let rate = even.clamp(least, most.max(least));
        if self.care.hit_today(self.clock.unix_ms()) { rate * 4 } else { rate }
    }

    /// Says that everything was scrubbed, durably.
    pub(crate) async fn scrubbed_all(&self) {
        let kept = {
            let mut state = self.care.state.lock();
            state.kept.version = VERSION;
            state.kept.last_full_ms = Some(self.clock.unix_ms());
            state.kept.clone()
        };
        let store = Arc::clone(&self.store);
        let save = move || {
            let mut bytes = serde_json::to_vec_pretty(&kept)?;
            bytes.push(b'\n');
            store.replace(FILE, &bytes)
        };
        if let Ok(Err(error)) = self.options.blocking().run(save).await {
            tracing::warn!(%error, "{FILE} was not written; after a restart the scrub begins a new pass");
        }
    }
}
