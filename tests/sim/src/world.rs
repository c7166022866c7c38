//! Three nodes, their disks and their wire.

use crate::{
    oracle::{Ended, Held, Write, check},
    plan::{Chance, Fault},
};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_groups::{
    Identity, Node, NodeOptions,
    testing::{Hub, Journal},
};
use raft_lanes::{
    Lane, LaneOptions, Writer,
    crash::{CrashDisk, Faults, Unsynced},
};
use raft_types::{Clock, Command, Disk, GroupId, Propose, ProposeError, Seed, StateMachine};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// The nodes.
pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Data groups of the simulated cluster.
pub const GROUPS: u32 = 3;
/// How long everything may take to be well again once faults have ended (I12 of the design: 10 s; catching up comes on top).
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);

struct Time(Instant);

impl Clock for Time {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

struct Running {
    node: Arc<Node>,
    lane: Lane,
    journal: Arc<Journal>,
    stepper: JoinHandle<()>,
}

/// One node's place: its disk outlives its processes.
struct Place {
    disk: CrashDisk,
    /// The rows that the next process finds.
    journal: Journal,
    running: Option<Running>,
    slow: Arc<AtomicBool>,
}

/// The world of one run.
pub struct World {
    chance: Arc<Chance>,
    clock: Arc<Time>,
    hub: Hub,
    places: Vec<Place>,
    history: Arc<Mutex<Vec<Write>>>,
    story: String,
    next_text: Arc<AtomicU64>,
    disks_lie: bool,
}

/// Options of a run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Decides everything but openraft's own time-outs.
    pub seed: u64,
    /// Faults that are drawn.
    pub faults: usize,
    /// A sabotage: syncs succeed and make nothing durable.
    pub disks_lie: bool,
}

/// Plays one run; answers how many writes were acknowledged.
///
/// # Errors
/// The broken invariant, and the story that led to it.
pub async fn play(run: Run) -> Result<usize, String> {
    let mut world = World::new(run.seed, run.disks_lie);
    let result = world.live(run.faults).await;
    let acknowledged =
        world.history.lock().iter().filter(|write| matches!(write.ended, Ended::Acknowledged(_))).count();
    result
        .map(|()| acknowledged)
        .map_err(|broken| format!("{broken}\n\nREPRODUCE: make sim SEED={}\n\n{}", run.seed, world.story))
}

impl World {
    fn new(seed: u64, disks_lie: bool) -> Self {
        let chance = Arc::new(Chance::new(seed));
        let delay = Duration::from_millis(1 + chance.below(20));
        let hub = Hub::new(Arc::<Chance>::clone(&chance), delay);
        let place = |_| {
            let disk = CrashDisk::new();
            disk.fail(Faults { syncs_lie: disks_lie, ..Faults::default() });
            Place { disk, journal: Journal::default(), running: None, slow: Arc::new(AtomicBool::new(false)) }
        };
        Self {
            chance,
            clock: Arc::new(Time(Instant::now())),
            hub,
            places: (0..NAMES.len()).map(place).collect(),
            history: Arc::new(Mutex::new(Vec::new())),
            story: String::new(),
            next_text: Arc::new(AtomicU64::new(0)),
            disks_lie,
        }
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let at = self.clock.now();
        // Writing to a String cannot fail.
        let _ = writeln!(self.story, "{:8.3} {what}", at.as_secs_f64());
    }

    async fn live(&mut self, faults: usize) -> Result<(), String> {
        for node in 0..NAMES.len() {
            self.start(node).await?;
        }
        self.converge().await?;
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..faults {
            let clients = self.clients(&stop);
            let fault = Fault::draw(&self.chance);
            self.tell(format_args!("{fault:?}"));
            self.suffer(fault).await?;
            stop.store(true, Ordering::SeqCst);
            for client in clients {
                // A client only ever ends by itself; its writes have deadlines.
                client.await.map_err(|error| format!("a client panicked: {error}"))??;
            }
            stop.store(false, Ordering::SeqCst);
        }
        self.hub.heal();
        for node in 0..NAMES.len() {
            self.places[node].slow.store(false, Ordering::SeqCst);
            if self.places[node].running.is_none() {
                self.start(node).await?;
            }
        }
        self.tell(format_args!("faults have ended"));
        self.converge().await?;
        self.verify().await
    }

    /// Clients for the nodes that run now: each writes, and reads back what it wrote at some other node.
    fn clients(&self, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Result<(), String>>> {
        let nodes: Vec<(Arc<Node>, Arc<Journal>)> = self
            .places
            .iter()
            .filter_map(|place| place.running.as_ref())
            .map(|running| (Arc::clone(&running.node), Arc::clone(&running.journal)))
            .collect();
        let client = |_| {
            let (stop, nodes) = (Arc::clone(stop), nodes.clone());
            let (chance, history, texts) =
                (Arc::clone(&self.chance), Arc::clone(&self.history), Arc::clone(&self.next_text));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) && !nodes.is_empty() {
                    let group = 1 + chance.below(u64::from(GROUPS)) as u32;
                    let text = format!("w{}", texts.fetch_add(1, Ordering::SeqCst));
                    let (node, _) = &nodes[chance.below(nodes.len() as u64) as usize];
                    let ended = write(node, group, &text).await;
                    history.lock().push(Write { group, text: text.clone(), ended });
                    if let Ended::Acknowledged(index) = ended {
                        let (other, journal) = &nodes[chance.below(nodes.len() as u64) as usize];
                        read_back(other, journal, group, index, &text).await?;
                    }
                    sleep(Duration::from_millis(chance.below(200))).await;
                }
                Ok(())
            })
        };
        (0..3).map(client).collect()
    }

    async fn suffer(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill { node, unsynced, seconds } => {
                self.kill(node, unsynced);
                sleep(Duration::from_secs(seconds)).await;
                self.start(node).await?;
                sleep(Duration::from_secs(2)).await;
            }
            Fault::KillAll { unsynced } => {
                for node in 0..NAMES.len() {
                    self.kill(node, unsynced);
                }
                sleep(Duration::from_secs(1)).await;
                for node in 0..NAMES.len() {
                    self.start(node).await?;
                }
                sleep(Duration::from_secs(4)).await;
            }
            Fault::Isolate { node, seconds } => {
                for other in (0..NAMES.len()).filter(|other| *other != node) {
                    self.hub.cut(NAMES[node], NAMES[other]);
                    self.hub.cut(NAMES[other], NAMES[node]);
                }
                sleep(Duration::from_secs(seconds)).await;
                self.hub.heal();
            }
            Fault::OneWay { from, to, seconds } => {
                self.hub.cut(NAMES[from], NAMES[to]);
                sleep(Duration::from_secs(seconds)).await;
                self.hub.heal();
            }
            Fault::SlowDisk { node, seconds } => {
                self.places[node].slow.store(true, Ordering::SeqCst);
                sleep(Duration::from_secs(seconds)).await;
                self.places[node].slow.store(false, Ordering::SeqCst);
            }
            Fault::Calm { seconds } => sleep(Duration::from_secs(seconds)).await,
        }
        Ok(())
    }

    async fn start(&mut self, number: usize) -> Result<(), String> {
        let name = NAMES[number];
        let disk = self.places[number].disk.clone();
        let store: Arc<dyn Disk> = Arc::new(disk);
        let identity =
            Identity::load_or_create(&*store, name, &*self.chance).map_err(|error| format!("{name}: {error}"))?;
        let clock: Arc<dyn Clock> = Arc::<Time>::clone(&self.clock);
        let options =
            LaneOptions { segment_bytes: 1 << 20, writer: Writer::Stepped, ..LaneOptions::new(identity.of_lane()) };
        let lane =
            Lane::open(Arc::clone(&store), Arc::clone(&clock), options).map_err(|error| format!("{name}: {error}"))?;
        let (stepping, chance, slow) = (lane.clone(), Arc::clone(&self.chance), Arc::clone(&self.places[number].slow));
        let stepper = tokio::spawn(async move {
            loop {
                let longest_us = if slow.load(Ordering::SeqCst) { 500_000 } else { 8_000 };
                sleep(Duration::from_micros(200 + chance.below(longest_us))).await;
                stepping.step();
            }
        });
        let peers = NAMES.iter().map(|name| ((*name).to_owned(), format!("{name}:1"))).collect();
        let options = NodeOptions { groups: GROUPS, inline: true, ..NodeOptions::new(identity, peers) };
        let journal = Arc::new(std::mem::take(&mut self.places[number].journal));
        let machine: Arc<dyn StateMachine> = Arc::<Journal>::clone(&journal);
        let seed: Arc<dyn Seed> = Arc::<Chance>::clone(&self.chance);
        let node = Node::start(options, lane.clone(), self.hub.wire(name), machine, clock, seed, store).await;
        let node = node.map_err(|error| format!("{name}: {error}"))?;
        self.hub.up(name, node.serve());
        self.places[number].running = Some(Running { node, lane, journal, stepper });
        Ok(())
    }

    /// The process dies at once; its disk loses what `unsynced` says.
    fn kill(&mut self, number: usize, unsynced: u64) {
        let Some(dead) = self.places[number].running.take() else { return };
        self.hub.down(NAMES[number]);
        let unsynced = match unsynced {
            0 => Unsynced::Dropped,
            1 => Unsynced::Torn,
            _ => Unsynced::Kept,
        };
        let left = self.places[number].disk.crash(unsynced, &*self.chance);
        left.fail(Faults { syncs_lie: self.disks_lie, ..Faults::default() });
        self.places[number].disk = left;
        self.places[number].journal = dead.journal.survivor(unsynced != Unsynced::Kept);
        dead.stepper.abort();
        // What is still in flight of it goes to a disk that nobody will read, until it has stopped.
        tokio::spawn(async move {
            let stop = dead.node.shutdown();
            let drain = async {
                loop {
                    dead.lane.step();
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { () = stop => {}, () = drain => {} }
        });
    }

    /// Every node is ready, and takes a write for every group.
    async fn converge(&self) -> Result<(), String> {
        for (number, place) in self.places.iter().enumerate() {
            let Some(running) = &place.running else { continue };
            let mut ready = running.node.ready();
            if timeout(CONVERGE_WITHIN, ready.wait_for(|ready| *ready)).await.is_err() {
                return Err(format!("I12: {} is not ready: {:?}", NAMES[number], running.node.status().phase));
            }
            if let Some(why) = running.node.fatal().borrow().clone() {
                return Err(format!("I12: {} has failed: {why}", NAMES[number]));
            }
            for group in 1..=GROUPS {
                let text = format!("w{}", self.next_text.fetch_add(1, Ordering::SeqCst));
                let until = Instant::now() + CONVERGE_WITHIN;
                loop {
                    let ended = write(&running.node, group, &text).await;
                    self.history.lock().push(Write { group, text: text.clone(), ended });
                    match ended {
                        Ended::Acknowledged(_) => break,
                        _ if Instant::now() > until => {
                            return Err(format!("I12: {} takes no write for g{group}: {ended:?}", NAMES[number]));
                        }
                        // The same text again: whatever came of the first try, it is the same write to the oracle.
                        _ => {
                            self.history.lock().pop();
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// All nodes have applied all of it, and the oracle is content.
    async fn verify(&mut self) -> Result<(), String> {
        let mut nodes = BTreeMap::new();
        for (number, place) in self.places.iter().enumerate() {
            let Some(running) = &place.running else { continue };
            let groups: Vec<GroupId> = (1..=GROUPS).map(GroupId).collect();
            running.node.read_index(groups).await.map_err(|error| format!("I12: {}: {error}", NAMES[number]))?;
            nodes.insert(NAMES[number].to_owned(), held(&running.journal));
        }
        let history = self.history.lock().clone();
        check(&history, &nodes)?;
        self.verify_blocks(&history).await
    }

    /// The bytes of every acknowledged block, on every node.
    async fn verify_blocks(&self, history: &[Write]) -> Result<(), String> {
        for (number, place) in self.places.iter().enumerate() {
            let Some(running) = &place.running else { continue };
            for write in history {
                let Ended::Acknowledged(index) = write.ended else { continue };
                let address = raft_types::BlockAddress { group: GroupId(write.group), index };
                let body = body(&write.text);
                let read = running.node.read(address, 0..body.len() as u64).await;
                match read {
                    Ok(bytes) if bytes == body => {}
                    Ok(_) => return Err(format!("I1: {} serves other bytes for {}", NAMES[number], write.text)),
                    Err(error) => return Err(format!("I1: {} does not serve {}: {error}", NAMES[number], write.text)),
                }
            }
        }
        Ok(())
    }
}

fn held(journal: &Journal) -> Held {
    let commands = |group: u32| {
        let commands = journal.commands(GroupId(group));
        let told = |head: &[u8]| String::from_utf8_lossy(head).into_owned();
        commands.into_iter().map(|command| (command.position.index, told(&command.head))).collect()
    };
    (1..=GROUPS).map(|group| (group, commands(group))).collect()
}

/// The bytes of a block follow from its text.
fn body(text: &str) -> Bytes {
    let length = 1_000 + text.len() * 700;
    text.bytes().cycle().take(length).collect::<Vec<u8>>().into()
}

async fn write(node: &Node, group: u32, text: &str) -> Ended {
    let command = Command { head: Bytes::from(text.to_owned()), body: body(text) };
    match node.propose(GroupId(group), command, Duration::from_secs(4)).await {
        Ok(proposed) => Ended::Acknowledged(proposed.address.index),
        Err(ProposeError::NoQuorum { .. } | ProposeError::DiskFull | ProposeError::TooLarge { .. }) => Ended::Refused,
        Err(ProposeError::Unknown { .. } | ProposeError::Stopped) => Ended::Unknown,
    }
}

/// I4: after the acknowledgement a read index at any node that answers finds it.
async fn read_back(node: &Node, journal: &Journal, group: u32, index: u64, text: &str) -> Result<(), String> {
    if node.read_index(vec![GroupId(group)]).await.is_err() {
        return Ok(()); // a node without a majority says so instead of answering
    }
    let commands = journal.commands(GroupId(group));
    let found = commands.iter().any(|command| command.position.index == index && command.head == text.as_bytes());
    if found {
        Ok(())
    } else {
        Err(format!("I4: {text} at {group}/{index} was acknowledged and is not seen elsewhere"))
    }
}
