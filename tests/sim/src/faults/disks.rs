//! Disks that are slow, fail an fsync, are full, or rot.

use crate::{
    invariants::sync_error_is_final,
    world::{NAMES, World},
};
use raft_lanes::crash::Faults;
use raft_types::{Disk, DiskFile};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::Instant;

/// How long a sync may be waited for that is going to fail: heartbeats alone write hints.
const FAILS_WITHIN: Duration = Duration::from_secs(20);
/// How long a node may take to say that it has failed; it looks once a second.
const REPORTS_WITHIN: Duration = Duration::from_secs(4);
/// How long writes may be refused around a disk that is full: it looks once a second and hands its leaderships over.
const GOES_ON_WITHIN: Duration = Duration::from_secs(20);
/// Pages of a segment; batches begin on one.
const PAGE_BYTES: u64 = 4096;

impl World {
    pub(super) async fn suffer_slow_disk(&mut self, node: usize, seconds: u64) -> Result<(), String> {
        self.places[node].slow.store(true, Ordering::SeqCst);
        self.pass(Duration::from_secs(seconds)).await?;
        self.places[node].slow.store(false, Ordering::SeqCst);
        Ok(())
    }

    pub(super) async fn suffer_failing_sync(&mut self, node: usize, after: u64, unsynced: u64) -> Result<(), String> {
        let disk = self.places[node].disk.clone();
        disk.fail(Faults { syncs_left: Some(after), syncs_recover: true, ..self.sound() });
        let until = Instant::now() + FAILS_WITHIN;
        while !disk.has_failed_a_sync() && Instant::now() < until {
            self.pass(Duration::from_millis(100)).await?;
        }
        let until = Instant::now() + REPORTS_WITHIN;
        let mut fatal = self.places[node].running.as_ref().map(|running| running.handle.node.fatal());
        let mut reported = || fatal.as_mut().is_some_and(|fatal| fatal.borrow_and_update().is_some());
        while !reported() && Instant::now() < until {
            self.pass(Duration::from_millis(100)).await?;
        }
        sync_error_is_final::check(NAMES[node], disk.has_failed_a_sync(), reported())?;
        self.kill(node, unsynced)?;
        self.start(node).await?;
        self.pass(Duration::from_secs(2)).await
    }

    pub(super) async fn suffer_small_disk(&mut self, node: usize, room: u64, seconds: u64) -> Result<(), String> {
        let disk = self.places[node].disk.clone();
        disk.fail(Faults { capacity_bytes: Some(disk.used_bytes() + room), ..self.sound() });
        self.pass(Duration::from_secs(2)).await?;
        for other in (0..NAMES.len()).filter(|other| *other != node) {
            self.takes_writes(other, "while another's disk is full").await?;
        }
        self.pass(Duration::from_secs(seconds)).await?;
        disk.fail(self.sound());
        self.pass(Duration::from_secs(2)).await?;
        self.takes_writes(node, "though its disk has room again").await
    }

    async fn takes_writes(&mut self, node: usize, when: &str) -> Result<(), String> {
        let Some(handle) = self.places[node].running.as_ref().map(|running| running.handle.clone()) else {
            return Ok(());
        };
        let written = self.office.write_all(NAMES[node], &handle, GOES_ON_WITHIN).await;
        written.map_err(|why| format!("{why}, {when}"))
    }

    /// A bit flips in what lies before the last batch of some segment: of that one nobody can tell rot from a torn write.
    pub(super) async fn suffer_rot(&mut self, node: usize, head: bool) -> Result<(), String> {
        self.kill(node, 0)?;
        if let Some((name, at)) = self.draw_place_to_rot(node, head) {
            self.tell(format_args!("a bit flips in {name} at {at}"));
            self.places[node].disk.rot(&name, at, 1 << self.chance.below(8));
            self.places[node].rotten = true;
        }
        self.pass(Duration::from_secs(1)).await?;
        match self.start(node).await {
            Ok(()) => {
                self.pass(Duration::from_secs(2)).await?;
                self.until_ready_or_failed(node).await?;
                self.repair_all(node).await
            }
            Err(why) if why.contains("the log is damaged") => {
                self.tell(format_args!("{why}"));
                self.replace(node, 1).await
            }
            Err(why) => Err(why),
        }
    }

    fn draw_place_to_rot(&self, node: usize, head: bool) -> Option<(String, u64)> {
        let disk = &self.places[node].disk;
        let segments: Vec<String> =
            disk.list().ok()?.into_iter().filter(|name| batches(disk, name).len() > 2).collect();
        let name = segments.get(self.chance.below(segments.len() as u64) as usize)?.clone();
        let batches = batches(disk, &name);
        let (first, last) = (batches[1], *batches.last()?);
        let at = if head {
            let middle = &batches[1..batches.len() - 1];
            middle[self.chance.below(middle.len() as u64) as usize] + self.chance.below(64)
        } else {
            first + self.chance.below(last - first)
        };
        Some((name, at))
    }
}

/// Where batches begin in a file.
fn batches(disk: &dyn Disk, name: &str) -> Vec<u64> {
    let Ok(file) = disk.open(name) else { return Vec::new() };
    let mut magic = [0; 4];
    let begins = |at: &u64| matches!(DiskFile::read_at(&*file, *at, &mut magic), Ok(4)) && magic == *b"TRBA";
    (PAGE_BYTES..file.len().unwrap_or(0)).step_by(PAGE_BYTES as usize).filter(begins).collect()
}
