//! Three nodes, and a guest at times, their disks and their wire: how they start, die and become well again.

use crate::{
    client::{Handle, Office, body},
    invariants::serves_again,
    oracle::{Ended, Held, Write, check},
    plan::{Chance, Family, Fault, Run},
    view::NodeView,
    watch::Watch,
};
use raft_groups::{
    Identity, Node, NodeOptions, Retention,
    testing::{Hub, Journal},
};
use raft_lanes::{
    Lane, LaneError, LaneOptions, Writer,
    crash::{CrashDisk, Faults, Unsynced},
};
use raft_types::{Clock, Disk, GroupId, Propose, Seed, StateMachine};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// The nodes.
pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// The place of a node that comes and goes ([`Fault::Guest`]).
pub(crate) const GUEST: usize = 3;
/// All places by name.
pub(crate) const PLACES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Data groups of the simulated cluster.
pub const GROUPS: u32 = 3;
/// How long everything may take to be well again once faults have ended (I12 of the design: 10 s; catching up comes on top).
pub(crate) const CONVERGE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at all nodes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Time(Instant);

impl Clock for Time {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) lane: Lane,
    stepper: JoinHandle<()>,
}

/// One node's place: its disk outlives its processes.
pub(crate) struct Place {
    pub(crate) disk: CrashDisk,
    /// The rows that the next process finds.
    pub(crate) journal: Journal,
    pub(crate) running: Option<Running>,
    pub(crate) slow: Arc<AtomicBool>,
    /// A bit of its log has flipped: it may fail because of that, and is replaced then.
    pub(crate) rotten: bool,
}

/// The world of one run.
pub struct World {
    pub(crate) run: Run,
    pub(crate) chance: Arc<Chance>,
    clock: Arc<Time>,
    pub(crate) hub: Hub,
    pub(crate) places: Vec<Place>,
    pub(crate) office: Office,
    pub(crate) watch: Watch,
    retention: Retention,
    mirror_bytes_per_second: Option<u64>,
    story: String,
}

/// A run that kept all promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Every write, in the order in which they ended.
    pub history: Vec<Write>,
    /// How much was drawn from the seed, by clients, disks, wires and faults.
    pub drawn: u128,
}

impl Played {
    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.history.iter().filter(|write| matches!(write.ended, Ended::Acknowledged(_))).count()
    }
}

/// Plays one run, on `raft_groups::testing::run_seeded`.
///
/// # Errors
/// The broken invariant, and the story that led to it.
pub async fn play(run: Run) -> Result<Played, String> {
    let mut world = World::new(run);
    let result = world.live().await;
    let played = Played { history: world.office.history.lock().clone(), drawn: world.chance.drawn() };
    let views: String = world.views().iter().map(ToString::to_string).collect();
    for (place, name) in world.places.iter_mut().zip(PLACES) {
        if let Some(running) = place.running.take() {
            running.stepper.abort();
        }
        world.hub.down(name); // who answers there holds a wire to the hub: together they would outlive the run
    }
    result.map(|()| played).map_err(|broken| {
        let guest = if run.favour == Some(Family::Guest) { "SIM_GUEST=1 " } else { "" };
        format!("{broken}\n\nREPRODUCE: {guest}make sim SEED={}\n\n{}{views}", run.seed, world.story)
    })
}

impl World {
    fn new(run: Run) -> Self {
        let chance = Arc::new(Chance::new(run.seed));
        let delay = Duration::from_millis(1 + chance.below(20));
        let hub = Hub::new(Arc::<Chance>::clone(&chance), delay);
        // Half of the seeds purge whatever they may, so that only rows and the mirror help who was away.
        let retention = match chance.below(2) {
            0 => Retention::default(),
            _ => Retention {
                every: Duration::from_secs(2),
                keep_bytes: chance.below(40_000),
                keep_for: Duration::from_secs(chance.below(20)),
            },
        };
        let place = |_| Place {
            disk: CrashDisk::new(),
            journal: Journal::default(),
            running: None,
            slow: Arc::new(AtomicBool::new(false)),
            rotten: false,
        };
        let mut world = Self {
            run,
            clock: Arc::new(Time(Instant::now())),
            hub,
            places: (0..PLACES.len()).map(place).collect(),
            office: Office::new(Arc::clone(&chance), GROUPS),
            watch: Watch::default(),
            mirror_bytes_per_second: (chance.below(2) == 0).then(|| 100_000 + chance.below(1_000_000)),
            chance,
            retention,
            story: String::new(),
        };
        for number in 0..PLACES.len() {
            world.places[number].disk.fail(world.sound());
        }
        world.tell(format_args!("{retention:?}"));
        world
    }

    /// A disk without faults but those of the run.
    pub(crate) fn sound(&self) -> Faults {
        Faults { syncs_lie: self.run.disks_lie, ..Faults::default() }
    }

    pub(crate) fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.story, "{:9.3} s  {what}", self.clock.now().as_secs_f64());
    }

    async fn live(&mut self) -> Result<(), String> {
        for node in 0..NAMES.len() {
            self.start(node).await?;
        }
        self.converge().await?;
        for _ in 0..self.run.faults {
            let fault = Fault::draw(&self.chance, self.run.favour);
            self.tell(format_args!("{fault:?}"));
            let stop = Arc::new(AtomicBool::new(false));
            let clients: Vec<_> = (0..3).map(|_| tokio::spawn(self.office.clone().client(Arc::clone(&stop)))).collect();
            let suffered = self.suffer(fault).await;
            stop.store(true, Ordering::SeqCst);
            for client in clients {
                // A client only ever ends by itself; its writes have deadlines.
                client.await.map_err(|error| format!("a client panicked: {error}"))??;
            }
            suffered?;
            self.replace_rotten().await?;
            self.compare()?;
        }
        self.hub.heal();
        self.tell(format_args!("faults have ended"));
        self.converge().await?;
        self.verify().await
    }

    /// Time passes, under watch.
    pub(crate) async fn pass(&mut self, duration: Duration) -> Result<(), String> {
        let until = Instant::now() + duration;
        loop {
            self.watch.look(&self.views())?;
            self.nobody_failed()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// No process ends by itself but for its own disk.
    fn nobody_failed(&self) -> Result<(), String> {
        for (name, place) in PLACES.iter().zip(&self.places) {
            let Some(running) = place.running.as_ref() else { continue };
            let excused = place.rotten || place.disk.has_failed_a_sync();
            if let Some(why) = running.handle.node.fatal().borrow().as_ref().filter(|_| !excused) {
                return Err(format!("I12: {name} has failed: {why}"));
            }
        }
        Ok(())
    }

    pub(crate) fn views(&self) -> Vec<NodeView> {
        (0..PLACES.len()).filter_map(|number| self.view(number)).collect()
    }

    pub(crate) fn view(&self, number: usize) -> Option<NodeView> {
        let running = self.places[number].running.as_ref()?;
        Some(NodeView::of(PLACES[number], &running.handle.node, &running.lane, &*running.handle.journal))
    }

    fn compare(&mut self) -> Result<(), String> {
        let nodes: Vec<_> = PLACES
            .iter()
            .zip(&self.places)
            .filter_map(|(name, place)| {
                let running = place.running.as_ref()?;
                Some((*name, &running.lane, &*running.handle.journal))
            })
            .collect();
        self.watch.compare(GROUPS, &nodes)
    }

    /// What was acknowledged until now: (group, index, text).
    pub(crate) fn acknowledged(&self) -> Vec<(u32, u64, String)> {
        let history = self.office.history.lock();
        let acknowledged = |write: &Write| match write.ended {
            Ended::Acknowledged(index) => Some((write.group, index, write.text.clone())),
            _ => None,
        };
        history.iter().filter_map(acknowledged).collect()
    }

    pub(crate) async fn start(&mut self, number: usize) -> Result<(), String> {
        let name = PLACES[number];
        let store: Arc<dyn Disk> = Arc::new(self.places[number].disk.clone());
        let identity =
            Identity::load_or_create(&*store, name, &*self.chance).map_err(|error| format!("{name}: {error}"))?;
        let clock: Arc<dyn Clock> = Arc::<Time>::clone(&self.clock);
        let lane_options = LaneOptions {
            segment_bytes: 1 << 20,
            // Little stays in RAM, so that reads meet the disk.
            cache_bytes: 64 << 10,
            writer: Writer::Stepped,
            sabotage: self.run.sabotage,
            ..LaneOptions::new(identity.of_lane())
        };
        let lane = Lane::open(Arc::clone(&store), Arc::clone(&clock), lane_options)
            .map_err(|error| format!("{name}: {error}"))?;
        let raft_id = identity.raft_id;
        // The guest knows one member, and itself.
        let known = if number == GUEST { &[NAMES[1], name][..] } else { &NAMES[..] };
        let peers = known.iter().map(|name| ((*name).to_owned(), format!("{name}:1"))).collect();
        let options = NodeOptions {
            groups: GROUPS,
            inline: true,
            retention: self.retention,
            replace_after: Duration::from_secs(3),
            mirror_bytes_per_second: self.mirror_bytes_per_second,
            sabotage: self.run.sabotage,
            ..NodeOptions::new(identity, peers)
        };
        let journal = Arc::new(std::mem::take(&mut self.places[number].journal));
        let machine: Arc<dyn StateMachine> = Arc::<Journal>::clone(&journal);
        let seed: Arc<dyn Seed> = Arc::<Chance>::clone(&self.chance);
        let node = Node::start(options, lane.clone(), self.hub.wire(name), machine, clock, seed, store).await;
        let node = node.map_err(|error| format!("{name}: {error}"))?;
        if let Some(id) = raft_id {
            self.watch.opens(id.0, GROUPS, &lane)?;
        }
        let (stepping, chance, slow) = (lane.clone(), Arc::clone(&self.chance), Arc::clone(&self.places[number].slow));
        let stepper = tokio::spawn(async move {
            loop {
                let longest_us = if slow.load(Ordering::SeqCst) { 500_000 } else { 8_000 };
                sleep(Duration::from_micros(200 + chance.below(longest_us))).await;
                stepping.step();
            }
        });
        self.hub.up(name, node.serve());
        let handle = Handle { node, journal, dead: Arc::new(AtomicBool::new(false)) };
        self.office.nodes.lock()[number] = Some(handle.clone());
        self.places[number].running = Some(Running { handle, lane, stepper });
        Ok(())
    }

    /// The process dies at once; its disk loses what `unsynced` says.
    pub(crate) fn kill(&mut self, number: usize, unsynced: u64) -> Result<(), String> {
        let view = self.view(number);
        let Some(dead) = self.places[number].running.take() else { return Ok(()) };
        dead.handle.dead.store(true, Ordering::SeqCst);
        self.office.nodes.lock()[number] = None;
        self.hub.down(PLACES[number]);
        let unsynced = match unsynced {
            0 => Unsynced::Dropped,
            1 => Unsynced::Torn,
            _ => Unsynced::Kept,
        };
        let left = self.places[number].disk.crash(unsynced, &*self.chance);
        left.fail(self.sound());
        self.places[number].disk = left;
        self.places[number].journal = dead.handle.journal.survivor(unsynced != Unsynced::Kept);
        dead.stepper.abort();
        let noted = view.map_or(Ok(()), |view| self.watch.dies(&view, &dead.lane));
        // What is still in flight of it goes to a disk that nobody will read, until it has stopped.
        tokio::spawn(async move {
            let stop = dead.handle.node.shutdown();
            let drain = async {
                loop {
                    dead.lane.step();
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { () = stop => {}, () = drain => {} }
        });
        noted
    }

    /// Every node is ready, and takes a write for every group; all agree on leaders and members.
    pub(crate) async fn converge(&mut self) -> Result<(), String> {
        for (number, name) in NAMES.iter().enumerate() {
            let Some(running) = &self.places[number].running else { continue };
            let handle = running.handle.clone();
            let mut ready = handle.node.ready();
            if timeout(CONVERGE_WITHIN, ready.wait_for(|ready| *ready)).await.is_err() {
                return Err(format!("I12: {name} is not ready: {:?}", handle.node.status().phase));
            }
            if let Some(why) = handle.node.fatal().borrow().clone() {
                return Err(format!("I12: {name} has failed: {why}"));
            }
            self.office.write_all(name, &handle, CONVERGE_WITHIN).await?;
        }
        self.settle().await
    }

    /// All agree on leaders and members, and miss nothing.
    async fn settle(&mut self) -> Result<(), String> {
        let until = Instant::now() + CONVERGE_WITHIN;
        while let Err(why) = serves_again::check(&self.views(), NAMES.len(), GROUPS) {
            if Instant::now() > until {
                return Err(why);
            }
            self.pass(LOOK_EVERY).await?;
        }
        Ok(())
    }

    /// All nodes have applied all of it, the oracle is content, and every body is on every disk.
    async fn verify(&mut self) -> Result<(), String> {
        let mut nodes = BTreeMap::new();
        for (number, place) in self.places.iter().enumerate() {
            let Some(running) = &place.running else { continue };
            let groups: Vec<GroupId> = (1..=GROUPS).map(GroupId).collect();
            let read = running.handle.node.read_index(groups).await;
            read.map_err(|error| format!("I12: {}: {error}", NAMES[number]))?;
            nodes.insert(NAMES[number].to_owned(), held(&running.handle.journal));
        }
        // What came last may have come as rows, whose bodies are still on their way.
        self.settle().await?;
        self.compare()?;
        let history = self.office.history.lock().clone();
        check(&history, &nodes)?;
        for number in 0..NAMES.len() {
            self.repair_all(number).await?;
        }
        Ok(())
    }

    /// Reads every acknowledged body from the node's own lane; one that is damaged there must be repaired by that.
    pub(crate) async fn repair_all(&mut self, number: usize) -> Result<(), String> {
        let name = NAMES[number];
        let until = Instant::now() + CONVERGE_WITHIN;
        for (group, index, text) in self.acknowledged() {
            loop {
                let Some(running) = &self.places[number].running else { return Ok(()) };
                let (expected, group) = (body(&text), GroupId(group));
                match running.lane.body(group, index, None, 0..expected.len() as u64) {
                    Ok(bytes) if bytes == expected => break,
                    Ok(_) => return Err(format!("I1: {name} has other bytes for {text} at {group}/{index}")),
                    Err(LaneError::Damaged(_)) if self.places[number].rotten && Instant::now() < until => {
                        // The reader gets it from a peer, and that mends it.
                        let address = raft_types::BlockAddress { group, index };
                        let read = running.handle.node.read(address, 0..expected.len() as u64).await;
                        if read.is_ok_and(|bytes| bytes != expected) {
                            return Err(format!("I1: {name} serves other bytes for {text} at {address}"));
                        }
                    }
                    // Acknowledged by the others just now: this node has it later.
                    Err(LaneError::Absent { .. }) if Instant::now() < until => {}
                    Err(error) => return Err(format!("I1: {name} does not have {text} at {group}/{index}: {error}")),
                }
                if running.handle.node.fatal().borrow().is_some() {
                    return Ok(()); // it is replaced
                }
                self.pass(LOOK_EVERY).await?;
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
