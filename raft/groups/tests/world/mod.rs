//! Nodes over disks that forget and a wire that loses, as the tests of this crate want them.
#![allow(clippy::expect_used, clippy::unwrap_used)]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use bytes::Bytes;
use parking_lot::Mutex;
use raft_groups::{
    Identity, Node, NodeOptions, Retention,
    testing::{Hub, Journal},
};
use raft_lanes::{
    Lane, LaneOptions, OnHole, Sabotage, Writer,
    crash::{CrashDisk, Unsynced},
};
use raft_types::{Clock, Command, Disk, GroupId, Propose, ProposeError, Seed, StateMachine};
use rand::{RngCore, SeedableRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

pub struct Chance(Mutex<rand_chacha::ChaCha8Rng>);
impl Seed for Chance {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

pub struct Time(Instant);
impl Clock for Time {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];
pub const SOON: Duration = Duration::from_secs(20);

/// One running node, and the disk it would leave behind.
pub struct Running {
    pub node: Arc<Node>,
    pub lane: Lane,
    pub disk: CrashDisk,
    pub journal: Arc<Journal>,
    pub stepper: JoinHandle<()>,
}

/// What a process leaves behind.
#[derive(Default)]
pub struct Left {
    pub disk: CrashDisk,
    pub journal: Journal,
}

pub struct World {
    pub retention: Retention,
    pub replace_after: Duration,
    pub sabotage: Option<Sabotage>,
    pub seed: Arc<Chance>,
    pub clock: Arc<Time>,
    pub hub: Hub,
    pub names: Vec<&'static str>,
    pub running: BTreeMap<&'static str, Running>,
}

impl World {
    pub fn new(seed: u64, names: &[&'static str]) -> Self {
        let seed = Arc::new(Chance(Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed))));
        let hub = Hub::new(Arc::<Chance>::clone(&seed), Duration::from_millis(5));
        let clock = Arc::new(Time(Instant::now()));
        let (retention, replace_after) = (Retention::default(), Duration::from_secs(600));
        Self {
            retention,
            replace_after,
            sabotage: None,
            seed,
            clock,
            hub,
            names: names.to_vec(),
            running: BTreeMap::new(),
        }
    }

    pub async fn start(&mut self, name: &'static str, left: Left) {
        let Left { disk, journal } = left;
        let store: Arc<dyn Disk> = Arc::new(disk.clone());
        let identity = Identity::load_or_create(&*store, name, &*self.seed).expect("own folder");
        let clock: Arc<dyn Clock> = Arc::<Time>::clone(&self.clock);
        let lane_options = LaneOptions {
            segment_bytes: 1 << 20,
            writer: Writer::Stepped,
            former_node_uuids: identity.former_uuids(),
            on_hole: if self.names.len() > 1 { OnHole::Suspect } else { OnHole::SuspectAlone },
            ..LaneOptions::new(identity.of_lane())
        };
        let lane = Lane::open(Arc::clone(&store), Arc::clone(&clock), lane_options).expect("recovers");
        let identity = match self.names.len() {
            1 => identity,
            _ => identity.settled_with(&lane, &*store, &*self.seed).expect("written"),
        };
        let stepping = lane.clone();
        let seed = Arc::clone(&self.seed);
        let stepper = tokio::spawn(async move {
            loop {
                // An fsync takes up to 10 ms.
                tokio::time::sleep(Duration::from_micros(100 + seed.next() % 10_000)).await;
                stepping.step();
            }
        });
        let peers = match self.names.len() {
            1 => BTreeMap::new(),
            _ => self.names.iter().map(|name| ((*name).to_owned(), format!("{name}:1"))).collect(),
        };
        let (retention, replace_after, sabotage) = (self.retention, self.replace_after, self.sabotage);
        let options = NodeOptions {
            groups: 4,
            inline: true,
            retention,
            replace_after,
            sabotage,
            ..NodeOptions::new(identity, peers)
        };
        let journal = Arc::new(journal);
        let machine: Arc<dyn StateMachine> = Arc::<Journal>::clone(&journal);
        let seed: Arc<dyn Seed> = Arc::<Chance>::clone(&self.seed);
        let node = Node::start(options, lane.clone(), self.hub.wire(name), machine, clock, seed, store);
        let node = node.await.expect("starts");
        self.hub.up(name, node.serve());
        self.running.insert(name, Running { node, lane, disk, journal, stepper });
    }

    pub async fn start_all(&mut self) {
        for name in self.names.clone() {
            self.start(name, Left::default()).await;
        }
        for name in self.names.clone() {
            self.until_ready(name).await;
        }
    }

    pub async fn until_ready(&self, name: &str) {
        let mut ready = self.running[name].node.ready();
        let waited = tokio::time::timeout(Duration::from_secs(60), ready.wait_for(|ready| *ready)).await;
        let node = &self.running[name].node;
        assert!(waited.is_ok(), "{name} is not ready: {:?}: {:#?}", *node.fatal().borrow(), node.status());
    }

    /// The node dies at once; answers what its next start finds.
    pub async fn kill(&mut self, name: &str, unsynced: Unsynced) -> Left {
        let dead = self.running.remove(name).expect("running");
        self.hub.down(name);
        let journal = dead.journal.survivor(unsynced != Unsynced::Kept);
        let left = Left { disk: dead.disk.crash(unsynced, &*self.seed), journal };
        dead.stepper.abort();
        let zombie = dead.lane.clone();
        // What it still does goes to a disk that nobody will ever read.
        tokio::spawn(async move {
            let stop = dead.node.shutdown();
            let drain = async {
                loop {
                    zombie.step();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { () = stop => {}, () = drain => {} }
        });
        left
    }

    /// The node ends in order; answers what its next start finds.
    pub async fn stop(&mut self, name: &str) -> Left {
        let Running { node, lane, disk, journal, stepper } = self.running.remove(name).expect("running");
        node.shutdown().await;
        self.hub.down(name);
        stepper.abort();
        lane.shutdown();
        let left = Left { disk: disk.crash(Unsynced::Dropped, &*self.seed), journal: journal.survivor(false) };
        drop((node, lane));
        left
    }

    pub fn node(&self, name: &str) -> &Arc<Node> {
        &self.running[name].node
    }

    pub async fn write(&self, name: &str, group: u32, text: &str) -> Result<u64, ProposeError> {
        let command = Command { head: Bytes::from(text.to_owned()), body: Bytes::from(vec![text.len() as u8; 5_000]) };
        let proposed = self.node(name).propose(GroupId(group), command, SOON).await?;
        assert_eq!(proposed.outcome, text, "the answer is that of the own command");
        Ok(proposed.address.index)
    }

    /// Everything of `written` is applied on `name`, once each, and its blocks are readable there.
    pub async fn holds(&self, name: &str, written: &[(u32, u64, String)]) {
        let node = self.node(name);
        node.read_index(node.groups()).await.expect("a majority is up");
        for (group, index, text) in written {
            let commands = self.running[name].journal.commands(GroupId(*group));
            let found: Vec<u64> = commands
                .iter()
                .filter(|command| command.head == text.as_bytes())
                .map(|command| command.position.index)
                .collect();
            assert!(found.contains(index), "{name}: {text} was acknowledged at {group}/{index}, found at {found:?}");
            let address = raft_types::BlockAddress { group: GroupId(*group), index: *index };
            let block = node.read(address, 10..20).await.expect("the block is there");
            assert_eq!(block[..], [text.len() as u8; 10]);
        }
    }

    pub fn leader(&self, group: u32) -> Option<String> {
        let status = self.running.values().next()?.node.status();
        status.groups.iter().find(|status| status.id == GroupId(group))?.leader.clone()
    }
}

/// Waits for a condition of the nodes.
pub async fn until(what: &str, world: &World, holds: impl Fn(&World) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(120), async {
        while !holds(world) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    if waited.await.is_err() {
        let status: Vec<_> = world.running.values().map(|running| running.node.status()).collect();
        panic!("{what}: not within two minutes: {status:#?}");
    }
}

/// Purges whatever is applied, so that only a snapshot helps.
pub const KEEP_NOTHING: Retention =
    Retention { every: Duration::from_secs(2), keep_bytes: 0, keep_for: Duration::ZERO };

pub fn is_purged(world: &World, name: &str, group: u32, index: u64) -> bool {
    world.running[name].lane.state(GroupId(group)).purged.is_some_and(|purged| purged.index >= index)
}

pub async fn write_some(world: &World, name: &str, tag: &str, written: &mut Vec<(u32, u64, String)>) {
    for number in 0..24u32 {
        let (group, text) = (number % 4 + 1, format!("{tag}-{number}"));
        let index = match world.write(name, group, &text).await {
            Ok(index) => index,
            Err(error) => {
                let status: Vec<_> = world.running.values().map(|running| running.node.status()).collect();
                panic!("{text}: {error}: {status:#?}");
            }
        };
        written.push((group, index, text));
    }
}
