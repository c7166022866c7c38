//! What happens in a run, drawn from its seed.

use parking_lot::Mutex;
use raft_lanes::Sabotage;
use raft_types::Seed;
use rand::{RngCore, SeedableRng};

/// Chance from a seed.
pub struct Chance(Mutex<rand_chacha::ChaCha8Rng>);

impl Chance {
    /// The chance of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed)))
    }

    /// A number below `bound`.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// How much was drawn so far: two runs that differ in any step differ in this sooner or later.
    pub(crate) fn drawn(&self) -> u128 {
        self.0.lock().get_word_pos()
    }
}

impl Seed for Chance {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

/// What a run is made of, beside its seed.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Decides everything: the same seed gives the same run, step by step.
    pub seed: u64,
    /// Faults that are drawn.
    pub faults: usize,
    /// Half of the faults are of this family.
    pub favour: Option<Family>,
    /// A bug on purpose in a node.
    pub sabotage: Option<Sabotage>,
    /// A bug on purpose below the nodes: syncs succeed and make nothing durable.
    pub disks_lie: bool,
}

impl Run {
    /// A run of `seed` without any bug on purpose.
    #[must_use]
    pub fn new(seed: u64, faults: usize) -> Self {
        Self { seed, faults, favour: None, sabotage: None, disks_lie: false }
    }
}

/// A family of faults, and how often it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// [`Fault::Kill`]
    Kill,
    /// [`Fault::KillAll`]
    KillAll,
    /// [`Fault::Restart`]
    Restart,
    /// [`Fault::Isolate`]
    Isolate,
    /// [`Fault::OneWay`]
    OneWay,
    /// [`Fault::Trouble`]
    Trouble,
    /// [`Fault::SlowDisk`]
    SlowDisk,
    /// [`Fault::SyncFails`]
    SyncFails,
    /// [`Fault::SmallDisk`]
    SmallDisk,
    /// [`Fault::Rot`]
    Rot,
    /// [`Fault::Lose`]
    Lose,
    /// [`Fault::LoseRows`]
    LoseRows,
    /// [`Fault::Calm`]
    Calm,
    /// [`Fault::Guest`]
    Guest,
}

/// What may go wrong while a guest is there: no copy is lost for good.
const BESIDE_A_GUEST: [Family; 7] = [
    Family::Kill,
    Family::KillAll,
    Family::Restart,
    Family::Isolate,
    Family::OneWay,
    Family::Trouble,
    Family::SlowDisk,
];

/// Families by weight; a guest comes only to runs that favour him, so that the other runs stay what they are.
#[rustfmt::skip]
const FAMILIES: [(Family, u64); 13] = [
    (Family::Kill, 4),
    (Family::KillAll, 2),
    (Family::Restart, 3),
    (Family::Isolate, 3),
    (Family::OneWay, 2),
    (Family::Trouble, 2),
    (Family::SlowDisk, 2),
    (Family::SyncFails, 2),
    (Family::SmallDisk, 1),
    (Family::Rot, 1),
    (Family::Lose, 1),
    (Family::LoseRows, 1),
    (Family::Calm, 1),
];

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A node dies and stays down for some seconds.
    Kill {
        /// Which.
        node: usize,
        /// What its disk keeps of unsynced bytes: 0 nothing, 1 some sectors, 2 all.
        unsynced: u64,
        /// Seconds until it starts again.
        seconds: u64,
    },
    /// All nodes die at once.
    KillAll {
        /// As above, for all.
        unsynced: u64,
    },
    /// A node whose disk is slow dies and starts again at once: before anybody noticed.
    Restart {
        /// Which.
        node: usize,
        /// As above.
        unsynced: u64,
        /// How long its disk is slow before.
        slow_ms: u64,
        /// A node that dies first, so that the other one dies while it elects.
        during_election_of: Option<usize>,
    },
    /// A node is cut off from both others.
    Isolate {
        /// Which.
        node: usize,
        /// Seconds.
        seconds: u64,
    },
    /// Messages from one node to another are lost; the other way they arrive.
    OneWay {
        /// From.
        from: usize,
        /// To.
        to: usize,
        /// Seconds.
        seconds: u64,
    },
    /// Some messages are lost, some arrive twice.
    Trouble {
        /// So many of a thousand are lost.
        lost: u64,
        /// So many of a thousand urgent ones arrive twice.
        twice: u64,
        /// Seconds.
        seconds: u64,
    },
    /// A node's disk takes up to half a second for an fsync.
    SlowDisk {
        /// Which.
        node: usize,
        /// Seconds.
        seconds: u64,
    },
    /// An fsync fails, once; the process is ended for it, and the next one starts.
    SyncFails {
        /// Which.
        node: usize,
        /// So many more succeed.
        after: u64,
        /// As above.
        unsynced: u64,
    },
    /// A node's disk is full, and has room again.
    SmallDisk {
        /// Which.
        node: usize,
        /// Room that is left, in bytes.
        room: u64,
        /// Seconds.
        seconds: u64,
    },
    /// A bit of a node's log flips while the node is down.
    Rot {
        /// Which.
        node: usize,
        /// In the head of a batch, or anywhere.
        head: bool,
    },
    /// A machine is lost: an empty one under its name replaces it.
    Lose {
        /// Which.
        node: usize,
        /// Seconds until the empty one starts.
        seconds: u64,
    },
    /// A node's rows are lost, and its log is not.
    LoseRows {
        /// Which.
        node: usize,
    },
    /// Nothing for some seconds.
    Calm {
        /// Seconds.
        seconds: u64,
    },
    /// A fourth node joins, takes its share of the copies, gives them back and is removed.
    Guest {
        /// Seconds after its start until something goes wrong.
        seconds: u64,
        /// What goes wrong while it is there.
        beside: Family,
        /// Whether the guest dies, too; its disk keeps what `Kill` says.
        dies: Option<u64>,
        /// Whether it may take all its copies before it is drained.
        stays: bool,
    },
}

impl Fault {
    /// The next fault.
    #[must_use]
    pub fn draw(chance: &Chance, favour: Option<Family>) -> Self {
        let family = match favour {
            Some(family) if chance.below(2) == 0 => family,
            _ => {
                let mut at = chance.below(FAMILIES.iter().map(|(_, weight)| weight).sum());
                let found = FAMILIES.iter().find(|(_, weight)| match at.checked_sub(*weight) {
                    Some(left) => {
                        at = left;
                        false
                    }
                    None => true,
                });
                found.map_or(Family::Calm, |(family, _)| *family)
            }
        };
        Self::of(family, chance)
    }

    /// A fault of this family.
    pub(crate) fn of(family: Family, chance: &Chance) -> Self {
        let node = chance.below(3) as usize;
        let other = (node + 1 + chance.below(2) as usize) % 3;
        let (unsynced, seconds) = (chance.below(3), 1 + chance.below(6));
        match family {
            Family::Kill => Self::Kill { node, unsynced, seconds },
            Family::KillAll => Self::KillAll { unsynced },
            Family::Restart => Self::Restart {
                node,
                unsynced,
                slow_ms: 500 + chance.below(2_500),
                during_election_of: (chance.below(2) == 0).then_some(other),
            },
            Family::Isolate => Self::Isolate { node, seconds },
            Family::OneWay => Self::OneWay { from: node, to: other, seconds },
            Family::Trouble => Self::Trouble { lost: chance.below(200), twice: chance.below(300), seconds },
            Family::SlowDisk => Self::SlowDisk { node, seconds },
            Family::SyncFails => Self::SyncFails { node, after: chance.below(40), unsynced: chance.below(2) },
            Family::SmallDisk => Self::SmallDisk { node, room: (4 + chance.below(56)) << 20, seconds },
            Family::Rot => Self::Rot { node, head: chance.below(2) == 0 },
            Family::Lose => Self::Lose { node, seconds },
            Family::LoseRows => Self::LoseRows { node },
            Family::Calm => Self::Calm { seconds },
            Family::Guest => Self::Guest {
                seconds,
                beside: BESIDE_A_GUEST[chance.below(BESIDE_A_GUEST.len() as u64) as usize],
                dies: (chance.below(2) == 0).then_some(unsynced),
                stays: chance.below(3) > 0,
            },
        }
    }
}
