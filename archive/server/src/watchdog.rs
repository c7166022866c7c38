//! The last watch over the disk: a thread of its own, because a disk that hangs may hold up every other one.
//!
//! The node hands its leaderships over and ends in order when its disk has failed or hangs (`raft/groups`). If even that
//! does not come about, because the async threads wait for the disk too, this thread ends the process: a leader that only
//! sends heartbeats would keep its groups from electing another (trap 17).

use crate::{Failure, serve::EXIT_FAILED};
use raft_lanes::Lane;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tracing::error;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A few seconds after the node itself would have ended.
const HUNG_AFTER: Duration = Duration::from_secs(25);

/// The watch goes on until this is dropped.
pub(crate) struct Watchdog(Arc<AtomicBool>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Begins to watch `lane`.
pub(crate) fn start(lane: Lane) -> Result<Watchdog, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
            let hung = lane.status().oldest_unfinished.filter(|age| *age >= HUNG_AFTER);
            if let Some(age) = hung.filter(|_| !stopped.load(Ordering::Relaxed)) {
                error!(?age, "the disk does not finish a write and the node does not end by itself: ending at once");
                std::process::exit(EXIT_FAILED);
            }
        }
    })?;
    Ok(Watchdog(stop))
}
