//! One and three nodes over disks that forget and a wire that loses: what is acknowledged stays, whatever stops.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use bytes::Bytes;
use parking_lot::Mutex;
use raft_groups::{
    Identity, Node, NodeOptions, Retention,
    testing::{Hub, Journal},
};
use raft_lanes::{
    Lane, LaneOptions, Writer,
    crash::{CrashDisk, Unsynced},
};
use raft_types::{Clock, Command, Disk, GroupId, NodeHealth, Propose, ProposeError, Seed, StateMachine};
use rand::{RngCore, SeedableRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

struct Chance(Mutex<rand_chacha::ChaCha8Rng>);
impl Seed for Chance {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

struct Time(Instant);
impl Clock for Time {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const SOON: Duration = Duration::from_secs(20);

/// One running node, and the disk it would leave behind.
struct Running {
    node: Arc<Node>,
    lane: Lane,
    disk: CrashDisk,
    journal: Arc<Journal>,
    stepper: JoinHandle<()>,
}

/// What a process leaves behind.
#[derive(Default)]
struct Left {
    disk: CrashDisk,
    journal: Journal,
}

struct World {
    retention: Retention,
    replace_after: Duration,
    seed: Arc<Chance>,
    clock: Arc<Time>,
    hub: Hub,
    names: Vec<&'static str>,
    running: BTreeMap<&'static str, Running>,
}

impl World {
    fn new(seed: u64, names: &[&'static str]) -> Self {
        let seed = Arc::new(Chance(Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed))));
        let hub = Hub::new(Arc::<Chance>::clone(&seed), Duration::from_millis(5));
        let clock = Arc::new(Time(Instant::now()));
        let (retention, replace_after) = (Retention::default(), Duration::from_secs(600));
        Self { retention, replace_after, seed, clock, hub, names: names.to_vec(), running: BTreeMap::new() }
    }

    async fn start(&mut self, name: &'static str, left: Left) {
        let Left { disk, journal } = left;
        let store: Arc<dyn Disk> = Arc::new(disk.clone());
        let identity = Identity::load_or_create(&*store, name, &*self.seed).expect("own folder");
        let clock: Arc<dyn Clock> = Arc::<Time>::clone(&self.clock);
        let lane_options =
            LaneOptions { segment_bytes: 1 << 20, writer: Writer::Stepped, ..LaneOptions::new(identity.of_lane()) };
        let lane = Lane::open(Arc::clone(&store), Arc::clone(&clock), lane_options).expect("recovers");
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
        let (retention, replace_after) = (self.retention, self.replace_after);
        let options =
            NodeOptions { groups: 4, inline: true, retention, replace_after, ..NodeOptions::new(identity, peers) };
        let journal = Arc::new(journal);
        let machine: Arc<dyn StateMachine> = Arc::<Journal>::clone(&journal);
        let seed: Arc<dyn Seed> = Arc::<Chance>::clone(&self.seed);
        let node = Node::start(options, lane.clone(), self.hub.wire(name), machine, clock, seed, store);
        let node = node.await.expect("starts");
        self.hub.up(name, node.serve());
        self.running.insert(name, Running { node, lane, disk, journal, stepper });
    }

    async fn start_all(&mut self) {
        for name in self.names.clone() {
            self.start(name, Left::default()).await;
        }
        for name in self.names.clone() {
            self.until_ready(name).await;
        }
    }

    async fn until_ready(&self, name: &str) {
        let mut ready = self.running[name].node.ready();
        let waited = tokio::time::timeout(Duration::from_secs(60), ready.wait_for(|ready| *ready)).await;
        assert!(waited.is_ok(), "{name} is not ready: {:#?}", self.running[name].node.status());
    }

    /// The node dies at once; answers what its next start finds.
    async fn kill(&mut self, name: &str, unsynced: Unsynced) -> Left {
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
    async fn stop(&mut self, name: &str) -> Left {
        let Running { node, lane, disk, journal, stepper } = self.running.remove(name).expect("running");
        node.shutdown().await;
        self.hub.down(name);
        stepper.abort();
        lane.shutdown();
        let left = Left { disk: disk.crash(Unsynced::Dropped, &*self.seed), journal: journal.survivor(false) };
        drop((node, lane));
        left
    }

    fn node(&self, name: &str) -> &Arc<Node> {
        &self.running[name].node
    }

    async fn write(&self, name: &str, group: u32, text: &str) -> Result<u64, ProposeError> {
        let command = Command { head: Bytes::from(text.to_owned()), body: Bytes::from(vec![text.len() as u8; 5_000]) };
        let proposed = self.node(name).propose(GroupId(group), command, SOON).await?;
        assert_eq!(proposed.outcome, text, "the answer is that of the own command");
        Ok(proposed.address.index)
    }

    /// Everything of `written` is applied on `name`, once each, and its blocks are readable there.
    async fn holds(&self, name: &str, written: &[(u32, u64, String)]) {
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

    fn leader(&self, group: u32) -> Option<String> {
        let status = self.running.values().next()?.node.status();
        status.groups.iter().find(|status| status.id == GroupId(group))?.leader.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_node_keeps_what_it_acknowledged_across_kills() {
    let mut world = World::new(1, &["n1"]);
    world.start_all().await;
    let mut written = Vec::new();
    for (life, unsynced) in [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept].into_iter().enumerate() {
        for number in 0..20u32 {
            let (group, text) = (number % 4 + 1, format!("{life}-{number}"));
            written.push((group, world.write("n1", group, &text).await.expect("a majority of one"), text));
        }
        let disk = world.kill("n1", unsynced).await;
        world.start("n1", disk).await;
        world.until_ready("n1").await;
        world.holds("n1", &written).await;
    }
    assert_eq!(world.node("n1").status().replication_factor, 1);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_form_one_cluster_and_each_takes_writes_for_every_group() {
    let mut world = World::new(2, &NAMES);
    world.start_all().await;
    let mut written = Vec::new();
    for (turn, name) in NAMES.iter().cycle().take(12).enumerate() {
        let (group, text) = (turn as u32 % 4 + 1, format!("w{turn}"));
        written.push((group, world.write(name, group, &text).await.expect("all are up"), text));
    }
    for name in NAMES {
        world.holds(name, &written).await;
        let status = world.node(name).status();
        assert_eq!((status.survives_failures, status.replication_factor), (1, 3), "{name}");
        assert!(status.nodes.iter().all(|node| node.health == NodeHealth::Up), "{status:#?}");
    }
    let ids: Vec<_> = world.node("n1").status().nodes.iter().map(|node| node.id.expect("registered").0).collect();
    assert_eq!(ids[0], 1);
    assert!(ids[1] > 1 && ids[2] > 1 && ids[1] != ids[2], "raft ids are meta log indices: {ids:?}");
}

#[tokio::test(start_paused = true)]
async fn writes_go_on_without_a_killed_leader_and_it_catches_up_when_it_is_back() {
    for seed in 3..8 {
        let mut world = World::new(seed, &NAMES);
        world.start_all().await;
        let mut written = Vec::new();
        for round in 0..3u32 {
            let group = round % 4 + 1;
            let victim = world.leader(group).expect("led");
            let victim = *NAMES.iter().find(|name| **name == victim).expect("one of ours");
            let disk = world.kill(victim, [Unsynced::Dropped, Unsynced::Torn][round as usize % 2]).await;
            let survivor = *NAMES.iter().find(|name| **name != victim).expect("two are left");
            let began = Instant::now();
            for number in 0..4u32 {
                let (group, text) = (number + 1, format!("{seed}-{round}-{number}"));
                written.push((group, world.write(survivor, group, &text).await.expect("two of three are up"), text));
            }
            assert!(began.elapsed() < Duration::from_secs(8), "the gap was {:?}", began.elapsed());
            world.start(victim, disk).await;
            world.until_ready(victim).await;
            for name in NAMES {
                world.holds(name, &written).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_serves_no_stale_read_and_acknowledges_nothing() {
    let mut world = World::new(9, &NAMES);
    world.start_all().await;
    world.write("n1", 1, "before").await.expect("all are up");
    let alone = world.leader(1).expect("led");
    for other in NAMES.iter().filter(|name| **name != alone) {
        world.hub.cut(&alone, other);
        world.hub.cut(other, &alone);
    }
    let (read, write) =
        tokio::join!(world.node(&alone).read_index(vec![GroupId(1)]), world.write(&alone, 1, "cut off"));
    assert!(read.is_err(), "a read index without a majority");
    assert!(write.is_err(), "an acknowledgement without a majority");
    let other = *NAMES.iter().find(|name| **name != alone).expect("two");
    world.write(other, 1, "majority").await.expect("two of three");
    world.hub.heal();
    let index = world.write(&alone, 1, "after").await.expect("healed");
    for name in NAMES {
        world.holds(name, &[(1, index, "after".to_owned())]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_node_initialises_while_one_expected_peer_is_silent() {
    let mut world = World::new(10, &NAMES);
    world.start("n1", Left::default()).await;
    world.start("n2", Left::default()).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    for name in ["n1", "n2"] {
        let status = world.node(name).status();
        assert!(status.cluster_id.is_none() && !status.ready, "{status:#?}");
        assert!(status.phase.contains("n3"), "it says who is missing: {}", status.phase);
    }
    world.start("n3", Left::default()).await;
    for name in NAMES {
        world.until_ready(name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_leads_nothing_and_the_others_go_on_at_once() {
    let mut world = World::new(11, &NAMES);
    world.start_all().await;
    world.node("n2").drain().await;
    let status = world.node("n2").status();
    assert!(!status.ready);
    let leads = world.node("n1").status().groups.iter().filter(|group| group.leader.as_deref() == Some("n2")).count();
    assert_eq!(leads, 0);
    for group in 1..=4 {
        world.write("n1", group, "drained").await.expect("led by another");
    }
}

/// Waits for a condition of the nodes.
async fn until(what: &str, world: &World, holds: impl Fn(&World) -> bool) {
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
const KEEP_NOTHING: Retention = Retention { every: Duration::from_secs(2), keep_bytes: 0, keep_for: Duration::ZERO };

fn is_purged(world: &World, name: &str, group: u32, index: u64) -> bool {
    world.running[name].lane.state(GroupId(group)).purged.is_some_and(|purged| purged.index >= index)
}

async fn write_some(world: &World, name: &str, tag: &str, written: &mut Vec<(u32, u64, String)>) {
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

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_after_the_log_was_purged_gets_rows_by_snapshot_and_pulls_what_it_misses() {
    for unsynced in [Unsynced::Kept, Unsynced::Dropped] {
        let mut world = World::new(21, &NAMES);
        world.retention = KEEP_NOTHING;
        world.start_all().await;
        let mut written = Vec::new();
        write_some(&world, "n1", "before", &mut written).await;
        let left = world.kill("n3", unsynced).await;
        write_some(&world, "n1", "while away", &mut written).await;
        let last = written.clone();
        until("the log is purged", &world, |world| {
            last.iter().all(|(group, index, _)| {
                is_purged(world, "n1", *group, *index) && is_purged(world, "n2", *group, *index)
            })
        })
        .await;
        world.start("n3", left).await;
        world.until_ready("n3").await;
        until("n3 misses nothing", &world, |world| {
            let incomplete = world.running["n3"].journal.incomplete().expect("in memory");
            incomplete.is_empty() && world.running["n3"].journal.commands(GroupId(1)).len() >= 12
        })
        .await;
        // The others stop: what n3 serves now lies on its own disk.
        world.holds("n3", &written).await;
        for (group, index, text) in &written {
            let body = world.running["n3"].lane.body(GroupId(*group), *index, None, 0..5_000).expect("here");
            assert_eq!(body[0], text.len() as u8);
        }
        // And it counts: with it, one of the others may go.
        world.kill("n2", Unsynced::Dropped).await;
        write_some(&world, "n3", "after", &mut written).await;
        world.holds("n3", &written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_disk_replaces_a_lost_one_and_becomes_a_voter_only_with_every_body() {
    for (seed, by_itself) in [(31, false), (32, true)] {
        let mut world = World::new(seed, &NAMES);
        world.retention = KEEP_NOTHING;
        world.replace_after = Duration::from_secs(if by_itself { 20 } else { 100_000 });
        world.start_all().await;
        let mut written = Vec::new();
        write_some(&world, "n1", "before", &mut written).await;
        let last = written.clone();
        until("the log is purged", &world, |world| {
            last.iter().all(|(group, index, _)| is_purged(world, "n1", *group, *index))
        })
        .await;
        let old_id = world.node("n1").status().nodes[1].id;
        let old = world.kill("n2", Unsynced::Kept).await;
        world.start("n2", Left::default()).await;
        if !by_itself {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(!world.node("n2").status().ready, "nobody has given the old disk up");
            world.node("n3").replace("n2").await.expect("a majority is up");
        }
        world.until_ready("n2").await;
        let is_member = |world: &World| {
            let groups = world.node("n1").status().groups;
            let journal = &world.running["n2"].journal;
            let id = world.node("n2").status().nodes[1].id;
            let is_voter = |group: &raft_types::GroupStatus| {
                group.leader.is_some() && group.voter_ids.contains(&id.expect("registered"))
            };
            id.is_some()
                && id != old_id
                && groups.iter().all(is_voter)
                && journal.incomplete().expect("in memory").is_empty()
        };
        // Writes go on all the while, whoever is asked.
        for round in 0.. {
            assert!(round < 200, "n2 is not a voter everywhere: {:#?}", world.node("n1").status());
            write_some(&world, NAMES[round % 3], &format!("meanwhile {round}"), &mut written).await;
            if is_member(&world) {
                break;
            }
        }
        write_some(&world, "n2", "after", &mut written).await;
        world.holds("n2", &written).await;
        // A voter that holds everything: n1 may go for good.
        world.kill("n1", Unsynced::Dropped).await;
        write_some(&world, "n2", "without n1", &mut written).await;
        for (group, index, _) in &written {
            world.running["n2"].lane.body(GroupId(*group), *index, None, 0..5_000).expect("every body is on its disk");
        }
        // The old disk turns up again: it is told that it was replaced, and goes.
        world.kill("n2", Unsynced::Kept).await;
        world.start("n2", old).await;
        let mut fatal = world.node("n2").fatal();
        let told = tokio::time::timeout(Duration::from_secs(60), fatal.wait_for(Option::is_some)).await;
        let why = told.expect("it is told").expect("the node lives").clone().expect("some");
        assert!(why.contains("was replaced"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_rows_gets_them_from_a_peer_and_pulls_no_body_again() {
    let mut world = World::new(41, &NAMES);
    world.retention = KEEP_NOTHING;
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    let last = written.clone();
    until("the log is purged", &world, |world| {
        last.iter().all(|(group, index, _)| is_purged(world, "n3", *group, *index))
    })
    .await;
    let left = world.kill("n3", Unsynced::Dropped).await;
    world.start("n3", Left { journal: Journal::default(), ..left }).await;
    world.until_ready("n3").await;
    world.holds("n3", &written).await;
    until("n3 is complete", &world, |world| world.running["n3"].journal.incomplete().expect("in memory").is_empty())
        .await;
    write_some(&world, "n3", "after", &mut written).await;
    world.holds("n3", &written).await;
}

/// Flips `count` random bits of the segments on a disk.
fn rot(world: &World, disk: &CrashDisk, count: u32) {
    let names: Vec<_> = disk.list().expect("names").into_iter().filter(|name| name.ends_with(".lane")).collect();
    let lengths: Vec<u64> = names.iter().map(|name| disk.open(name).expect("there").len().expect("length")).collect();
    for _ in 0..count {
        let mut at = world.seed.next() % lengths.iter().sum::<u64>();
        let which = lengths.iter().position(|length| at.checked_sub(*length).map(|rest| at = rest).is_none());
        disk.rot(&names[which.expect("within")], at, 1 << (world.seed.next() % 8));
    }
}

async fn scrub(world: &World, name: &str) -> raft_types::UpkeepStatus {
    let order = world.node(name).order_scrub();
    until("the scrub ends", world, |world| world.node(name).status().upkeep.scrub_orders_done >= order).await;
    world.node(name).status().upkeep
}

fn on_its_own_disk(world: &World, name: &str, written: &[(u32, u64, String)]) {
    for (group, index, text) in written {
        let body = world.running[name].lane.body(GroupId(*group), *index, None, 0..5_000);
        assert_eq!(body.expect("every body is on its disk")[..], [text.len() as u8; 5_000], "{group}/{index}");
    }
}

/// With the log kept and with all of it purged; while the node runs, and while it is stopped.
#[tokio::test(start_paused = true)]
async fn a_thousand_flipped_bits_on_one_of_three_nodes_are_mended_by_one_scrub() {
    for (seed, retention, running) in [
        (51, Retention::default(), true),
        (52, KEEP_NOTHING, true),
        (53, Retention::default(), false),
        (54, KEEP_NOTHING, false),
    ] {
        let mut world = World::new(seed, &NAMES);
        world.retention = retention;
        world.start_all().await;
        let mut written = Vec::new();
        for round in 0..8 {
            write_some(&world, "n1", &format!("before {round}"), &mut written).await;
        }
        world.holds("n2", &written).await;
        if retention == KEEP_NOTHING {
            let last = written.clone();
            until("the log is purged", &world, |world| {
                last.iter().all(|(group, index, _)| is_purged(world, "n2", *group, *index))
            })
            .await;
        }
        if running {
            rot(&world, &world.running["n2"].disk.clone(), 1_000);
        } else {
            let left = world.stop("n2").await;
            rot(&world, &left.disk, 40);
            world.start("n2", left).await;
            world.until_ready("n2").await;
        }
        // Served all the while, by peers where the own copy is damaged.
        world.holds("n2", &written).await;
        let first = scrub(&world, "n2").await;
        assert!(first.damaged_found > 20, "seed {seed}: {first:?}");
        assert_eq!(
            (first.damaged_left, first.damaged_found - first.damaged_repaired),
            (0, 0),
            "seed {seed}: {first:?}"
        );
        let second = scrub(&world, "n2").await;
        assert_eq!(second.damaged_found, first.damaged_found, "seed {seed}: the second scrub finds nothing");
        on_its_own_disk(&world, "n2", &written);
        // A power cut later all is there, and the node still counts.
        let left = world.kill("n2", Unsynced::Dropped).await;
        world.start("n2", left).await;
        world.until_ready("n2").await;
        on_its_own_disk(&world, "n2", &written);
        world.kill("n1", Unsynced::Dropped).await;
        write_some(&world, "n2", "after", &mut written).await;
        world.holds("n2", &written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_on_a_single_node_is_said_and_never_dropped() {
    let mut world = World::new(55, &["n1"]);
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    assert_eq!(scrub(&world, "n1").await.damaged_found, 0);
    let disk = world.running["n1"].disk.clone();
    let whole = vec![written[0].2.len() as u8; 5_000];
    for name in disk.list().expect("names").into_iter().filter(|name| name.ends_with(".lane")) {
        let file = disk.open(&name).expect("there");
        let mut bytes = vec![0; file.len().expect("length") as usize];
        file.read_at(0, &mut bytes).expect("read");
        if let Some(at) = bytes.windows(5_000).position(|window| window == whole) {
            disk.rot(&name, at as u64 + 2_500, 1);
            break;
        }
    }
    for _ in 0..2 {
        let found = scrub(&world, "n1").await;
        assert_eq!((found.damaged_left, found.damaged_repaired), (1, 0), "{found:?}");
    }
    let left = world.stop("n1").await;
    world.start("n1", left).await;
    world.until_ready("n1").await;
    assert_eq!(scrub(&world, "n1").await.damaged_left, 1, "after a restart too");
    let lane = &world.running["n1"].lane;
    let damaged: Vec<_> =
        written.iter().map(|(group, index, _)| lane.body(GroupId(*group), *index, None, 0..5_000)).collect();
    let errors: Vec<_> = damaged.iter().filter_map(|read| read.as_ref().err()).collect();
    assert!(matches!(errors[..], [raft_lanes::LaneError::Damaged(_)]), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_row_names_gives_its_space_back_and_the_rest_stays() {
    for (seed, names) in [(61, &NAMES[..]), (62, &["n1"])] {
        let mut world = World::new(seed, names);
        world.retention = KEEP_NOTHING;
        world.start_all().await;
        let (mut written, mut spent) = (Vec::new(), Vec::new());
        for round in 0..20 {
            write_some(&world, "n1", &format!("spent {round}"), &mut spent).await;
            if round % 4 == 0 {
                write_some(&world, "n1", &format!("kept {round}"), &mut written).await;
            }
        }
        world.holds(names[names.len() - 1], &written).await;
        let all = written.clone();
        until("the log is purged", &world, |world| {
            names.len() == 1
                || names.iter().all(|name| all.iter().all(|(group, index, _)| is_purged(world, name, *group, *index)))
        })
        .await;
        for name in names.iter().copied() {
            scrub(&world, name).await; // ends the open segment
            let used = world.running[name].disk.used_bytes();
            let order = world.node(name).order_compaction();
            until("the compaction ends", &world, |world| world.node(name).status().upkeep.compact_orders_done >= order)
                .await;
            let status = world.node(name).status().upkeep;
            let left = world.running[name].disk.used_bytes();
            assert!(
                status.reclaimed_bytes > 1_000_000 && left + 1_000_000 < used,
                "{name}: {used} → {left}, {status:?}"
            );
            on_its_own_disk(&world, name, &written);
            assert_eq!(scrub(&world, name).await.damaged_found, 0);
            let dead = world.kill(name, Unsynced::Dropped).await;
            world.start(name, dead).await;
            world.until_ready(name).await;
            on_its_own_disk(&world, name, &written);
            world.holds(name, &written).await;
            write_some(&world, name, "after", &mut written).await;
        }
    }
}
