//! Machines and rows that are lost for good. Before the next fault the node is whole again: two copies must never go.

use crate::{
    client::Handle,
    invariants::clean_voter,
    world::{GROUPS, NAMES, World},
};
use raft_groups::testing::Journal;
use raft_lanes::{Lane, Sabotage, crash::CrashDisk};
use raft_types::{Disk, DiskFile, GroupId, Propose, StateMachine};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How long a node may take to be a voter everywhere, with everything.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);
/// Between two looks at a node that comes: short, so that the moment at which it becomes a voter is seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl World {
    pub(super) async fn suffer_loss(&mut self, node: usize, seconds: u64) -> Result<(), String> {
        self.kill(node, 0)?;
        self.replace(node, seconds).await
    }

    pub(super) async fn suffer_loss_of_rows(&mut self, node: usize) -> Result<(), String> {
        self.kill(node, 0)?;
        self.places[node].journal = Journal::default();
        self.start(node).await?;
        self.until_whole(node, false).await
    }

    /// An empty machine takes the place of one that is down.
    pub(super) async fn replace(&mut self, node: usize, seconds: u64) -> Result<(), String> {
        let old = std::mem::replace(&mut self.places[node].disk, CrashDisk::new());
        self.places[node].disk.fail(self.sound());
        self.places[node].journal = Journal::default();
        self.places[node].rotten = false;
        copy_identity(&old, &self.places[node].disk);
        if self.run.sabotage != Some(Sabotage::WipedMemberGoesOn) {
            // First only the log is gone: under its raft id the node has forgotten what it said, and must not start.
            match self.start(node).await {
                Err(why) if why.contains("the log of this node is gone") => {}
                Err(why) => return Err(why),
                Ok(()) => return Err(format!("I10: {} goes on under its raft id without its log", NAMES[node])),
            }
            self.places[node].disk = CrashDisk::new();
            self.places[node].disk.fail(self.sound());
        }
        self.pass(Duration::from_secs(seconds)).await?;
        self.start(node).await?;
        self.until_whole(node, true).await
    }

    /// A node that could not live with the rot in its log is replaced.
    pub(crate) async fn replace_rotten(&mut self) -> Result<(), String> {
        for (node, name) in NAMES.iter().enumerate() {
            if self.places[node].rotten && self.has_failed(node) {
                self.tell(format_args!("{name} is replaced for its rot"));
                self.kill(node, 0)?;
                self.replace(node, 1).await?;
            }
        }
        Ok(())
    }

    fn has_failed(&self, node: usize) -> bool {
        self.places[node].running.as_ref().is_some_and(|running| running.handle.node.fatal().borrow().is_some())
    }

    fn running(&self, node: usize) -> Option<(Handle, Lane)> {
        self.places[node].running.as_ref().map(|running| (running.handle.clone(), running.lane.clone()))
    }

    pub(super) async fn until_ready_or_failed(&mut self, node: usize) -> Result<(), String> {
        let until = Instant::now() + WHOLE_WITHIN;
        while let Some((handle, _)) = self.running(node) {
            if *handle.node.ready().borrow() || self.has_failed(node) {
                break;
            }
            if Instant::now() > until {
                return Err(format!("I12: {} is not ready: {:?}", NAMES[node], handle.node.status().phase));
            }
            self.pass(Duration::from_millis(200)).await?;
        }
        Ok(())
    }

    /// The node is a voter of every group, the only one of its name, and every body that was acknowledged is on its disk.
    ///
    /// `as_learner`: it comes under a new raft id, and may vote only once it is a copy. One that fell back keeps its vote.
    async fn until_whole(&mut self, node: usize, as_learner: bool) -> Result<(), String> {
        let until = Instant::now() + WHOLE_WITHIN;
        let mut votes_in = BTreeSet::new();
        loop {
            self.pass(LOOK_EVERY).await?;
            let Some((handle, lane)) = self.running(node) else { return Ok(()) };
            let id = handle.node.identity().borrow().raft_id.map(|id| id.0);
            for group in 1..=GROUPS {
                let leader = self.views().into_iter().find(|view| view.leads(group));
                let own = leader.as_ref().and_then(|leader| leader.groups.get(&group));
                let Some(own) = own.filter(|own| own.learners == 0 && own.voters.len() == NAMES.len()) else {
                    continue;
                };
                if id.is_some_and(|id| own.voters.contains(&id)) && votes_in.insert(group) {
                    let ends = |at: Option<raft_types::LogPosition>| at.map_or(0, |at| at.index);
                    let lag = ends(own.last).saturating_sub(ends(lane.state(GroupId(group)).last));
                    let incomplete = handle.journal.incomplete().unwrap_or_default().contains(&GroupId(group));
                    if as_learner {
                        clean_voter::check(
                            NAMES[node],
                            group,
                            missing(&handle.journal, &lane, group),
                            incomplete,
                            lag,
                        )?;
                    }
                }
            }
            let complete = handle.journal.incomplete().unwrap_or_default().is_empty();
            if votes_in.len() == GROUPS as usize && complete && *handle.node.ready().borrow() {
                break;
            }
            if let Some(why) = handle.node.fatal().borrow().clone() {
                return Err(format!("I12: {} has failed: {why}", NAMES[node]));
            }
            if Instant::now() > until {
                return Err(format!("I12: {} is not whole", NAMES[node]));
            }
        }
        let Some((handle, lane)) = self.running(node) else { return Ok(()) };
        let groups: Vec<GroupId> = (1..=GROUPS).map(GroupId).collect();
        while handle.node.read_index(groups.clone()).await.is_err() {
            if Instant::now() > until {
                return Err(format!("I12: {} answers no read index", NAMES[node]));
            }
        }
        let lacks: usize = (1..=GROUPS).map(|group| missing(&handle.journal, &lane, group)).sum();
        if lacks > 0 {
            return Err(format!("I1: {} says that it is complete, and lacks {lacks} bodies", NAMES[node]));
        }
        Ok(())
    }
}

/// Bodies that rows name and that are not in the lane.
pub(super) fn missing(journal: &Journal, lane: &Lane, group: u32) -> usize {
    let named = journal.bodies(GroupId(group)).unwrap_or_default();
    named.iter().filter(|body| !lane.holds(GroupId(group), body.index, body.length_bytes)).count()
}

fn copy_identity(from: &dyn Disk, to: &dyn Disk) {
    let Ok(file) = from.open("identity.json") else { return };
    let mut bytes = vec![0; usize::try_from(file.len().unwrap_or(0)).unwrap_or(0)];
    if DiskFile::read_at(&*file, 0, &mut bytes).is_ok() {
        // A disk in memory without faults takes it.
        let _ = to.replace("identity.json", &bytes);
    }
}
