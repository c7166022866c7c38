//! Processes that die: one, all, or one that is back before anybody noticed.

use crate::world::{NAMES, World};
use std::{sync::atomic::Ordering, time::Duration};

impl World {
    pub(super) async fn suffer_kill(&mut self, node: usize, unsynced: u64, seconds: u64) -> Result<(), String> {
        self.kill(node, unsynced)?;
        self.pass(Duration::from_secs(seconds)).await?;
        self.start(node).await?;
        self.pass(Duration::from_secs(2)).await
    }

    pub(super) async fn suffer_kill_all(&mut self, unsynced: u64) -> Result<(), String> {
        for node in 0..NAMES.len() {
            self.kill(node, unsynced)?;
        }
        self.pass(Duration::from_secs(1)).await?;
        for node in 0..NAMES.len() {
            self.start(node).await?;
        }
        self.pass(Duration::from_secs(4)).await
    }

    pub(super) async fn suffer_restart(
        &mut self,
        node: usize,
        unsynced: u64,
        slow_ms: u64,
        during_election_of: Option<usize>,
    ) -> Result<(), String> {
        self.places[node].slow.store(true, Ordering::SeqCst);
        if let Some(other) = during_election_of {
            self.kill(other, unsynced)?;
        }
        self.pass(Duration::from_millis(slow_ms)).await?;
        self.kill(node, unsynced)?;
        self.places[node].slow.store(false, Ordering::SeqCst);
        self.start(node).await?;
        if let Some(other) = during_election_of {
            self.start(other).await?;
        }
        self.pass(Duration::from_secs(3)).await
    }
}
