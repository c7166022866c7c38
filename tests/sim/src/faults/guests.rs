//! A node that comes and goes: copies move to it and back while other things go wrong.

use crate::{
    client::Handle,
    faults::losses::missing,
    invariants::clean_voter,
    plan::{Family, Fault},
    world::{GROUPS, GUEST, PLACES, World},
};
use raft_groups::testing::Journal;
use raft_lanes::crash::CrashDisk;
use raft_types::{ClusterStatus, GroupId, NodeState, Propose, StateMachine};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;

/// How long copies may take to come to rest once nothing goes wrong any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(240);
/// Between two looks: short, so that the moment at which a node becomes a voter is seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl World {
    pub(super) async fn suffer_guest(
        &mut self,
        seconds: u64,
        beside: Family,
        dies: Option<u64>,
        stays: bool,
    ) -> Result<(), String> {
        self.start(GUEST).await?;
        self.pass(Duration::from_secs(seconds)).await?;
        let fault = Fault::of(beside, &self.chance);
        self.tell(format_args!("beside the guest: {fault:?}"));
        Box::pin(self.suffer(fault)).await?;
        self.hub.heal();
        if let Some(unsynced) = dies {
            self.kill(GUEST, unsynced)?;
            self.pass(Duration::from_secs(1)).await?;
            self.start(GUEST).await?;
        }
        // It may have come too late to be known.
        self.until("the guest is a member", |status| {
            status.nodes.iter().any(|node| node.name == PLACES[GUEST] && node.state == NodeState::Member)
        })
        .await?;
        if stays {
            self.until("four nodes keep their share", |status| {
                let copies: Vec<u32> = status.nodes.iter().map(|node| node.copies).collect();
                let even = copies.iter().max().unwrap_or(&0) - copies.iter().min().unwrap_or(&0) <= 1;
                status.nodes.len() == PLACES.len() && even && status.moving_groups == 0
            })
            .await?;
        }
        self.order(async |handle| handle.node.drain_node(PLACES[GUEST], false).await.map_err(|e| e.to_string())).await?;
        self.until("the guest is drained", |status| {
            status.nodes.iter().any(|node| node.name == PLACES[GUEST] && node.state == NodeState::Drained)
        })
        .await?;
        self.order(async |handle| handle.node.remove_node(PLACES[GUEST]).await.map_err(|e| e.to_string())).await?;
        // It is told, and goes; its disk is thrown away.
        self.kill(GUEST, 2)?;
        self.places[GUEST].disk = CrashDisk::new();
        self.places[GUEST].disk.fail(self.sound());
        self.places[GUEST].journal = Journal::default();
        self.until("three nodes keep everything", |status| {
            status.nodes.len() == PLACES.len() - 1 && status.moving_groups == 0
        })
        .await
    }

    /// Gives an order to members in turn until one has carried it out.
    async fn order(&mut self, give: impl AsyncFn(Handle) -> Result<(), String>) -> Result<(), String> {
        let until = Instant::now() + SETTLES_WITHIN;
        for turn in 0.. {
            let place = turn % GUEST;
            if let Some(running) = &self.places[place].running {
                match give(running.handle.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(why) if Instant::now() > until => return Err(format!("I12: {}: {why}", PLACES[place])),
                    Err(_) => {}
                }
            }
            self.look_at_copies(LOOK_EVERY).await?;
        }
        Ok(())
    }

    /// Every member says so.
    async fn until(&mut self, what: &str, holds: impl Fn(&ClusterStatus) -> bool) -> Result<(), String> {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            let running = self.places[..GUEST].iter().filter_map(|place| place.running.as_ref());
            let told: Vec<ClusterStatus> = running.map(|running| running.handle.node.status()).collect();
            if told.iter().all(&holds) {
                return Ok(());
            }
            if Instant::now() > until {
                let first = told.first().map(|status| format!("{:#?}", status.nodes)).unwrap_or_default();
                return Err(format!("I12: not yet: {what}\n{first}"));
            }
            self.look_at_copies(LOOK_EVERY).await?;
        }
    }

    /// I10: whoever votes in a group, as its leader sees it, has every body that its rows name, unless it has fallen back
    /// and says so.
    async fn look_at_copies(&mut self, duration: Duration) -> Result<(), String> {
        self.pass(duration).await?;
        for group in 1..=GROUPS {
            let leader = self.views().into_iter().find(|view| view.leads(group));
            let Some(voters) = leader.and_then(|leader| leader.groups.get(&group).map(|own| own.voters.clone())) else {
                continue;
            };
            let voters: BTreeSet<u64> = voters.into_iter().collect();
            for (name, place) in PLACES.iter().zip(&self.places).filter(|(_, place)| !place.rotten) {
                let Some(running) = &place.running else { continue };
                let id = running.handle.node.identity().borrow().raft_id;
                let incomplete = running.handle.journal.incomplete().unwrap_or_default().contains(&GroupId(group));
                if id.is_some_and(|id| voters.contains(&id.0)) && !incomplete {
                    let lacks = missing(&running.handle.journal, &running.lane, group);
                    clean_voter::check(name, group, lacks, false, 0)?;
                }
            }
        }
        Ok(())
    }
}
