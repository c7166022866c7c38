//! Wires that are cut, one way or both, and wires that lose and repeat.

use crate::world::{NAMES, World};
use std::time::Duration;

impl World {
    pub(super) async fn suffer_isolation(&mut self, node: usize, seconds: u64) -> Result<(), String> {
        for other in (0..NAMES.len()).filter(|other| *other != node) {
            self.hub.cut(NAMES[node], NAMES[other]);
            self.hub.cut(NAMES[other], NAMES[node]);
        }
        self.pass(Duration::from_secs(seconds)).await?;
        self.hub.heal();
        Ok(())
    }

    pub(super) async fn suffer_one_way(&mut self, from: usize, to: usize, seconds: u64) -> Result<(), String> {
        self.hub.cut(NAMES[from], NAMES[to]);
        self.pass(Duration::from_secs(seconds)).await?;
        self.hub.heal();
        Ok(())
    }

    pub(super) async fn suffer_trouble(&mut self, lost: u64, twice: u64, seconds: u64) -> Result<(), String> {
        self.hub.trouble(lost, twice);
        self.pass(Duration::from_secs(seconds)).await?;
        self.hub.heal();
        Ok(())
    }
}
