//! What goes wrong, one family a file. Each fault ends by itself, and leaves three running nodes.

mod disks;
mod guests;
mod losses;
mod processes;
mod wires;

use crate::{plan::Fault, world::World};
use std::time::Duration;

impl World {
    /// Makes `fault` happen, and waits until it is over.
    pub(crate) async fn suffer(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill { node, unsynced, seconds } => self.suffer_kill(node, unsynced, seconds).await,
            Fault::KillAll { unsynced } => self.suffer_kill_all(unsynced).await,
            Fault::Restart { node, unsynced, slow_ms, during_election_of } => {
                self.suffer_restart(node, unsynced, slow_ms, during_election_of).await
            }
            Fault::Isolate { node, seconds } => self.suffer_isolation(node, seconds).await,
            Fault::OneWay { from, to, seconds } => self.suffer_one_way(from, to, seconds).await,
            Fault::Trouble { lost, twice, seconds } => self.suffer_trouble(lost, twice, seconds).await,
            Fault::SlowDisk { node, seconds } => self.suffer_slow_disk(node, seconds).await,
            Fault::SyncFails { node, after, unsynced } => self.suffer_failing_sync(node, after, unsynced).await,
            Fault::SmallDisk { node, room, seconds } => self.suffer_small_disk(node, room, seconds).await,
            Fault::Rot { node, head } => self.suffer_rot(node, head).await,
            Fault::Lose { node, seconds } => self.suffer_loss(node, seconds).await,
            Fault::LoseRows { node } => self.suffer_loss_of_rows(node).await,
            Fault::Guest { seconds, beside, dies, stays } => self.suffer_guest(seconds, beside, dies, stays).await,
            Fault::Calm { seconds } => self.pass(Duration::from_secs(seconds)).await,
        }
    }
}
