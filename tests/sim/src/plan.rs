//! What happens in a run, drawn from its seed.

use parking_lot::Mutex;
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
}

impl Seed for Chance {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

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
    /// A node's disk takes up to half a second for an fsync.
    SlowDisk {
        /// Which.
        node: usize,
        /// Seconds.
        seconds: u64,
    },
    /// Nothing for some seconds.
    Calm {
        /// Seconds.
        seconds: u64,
    },
}

impl Fault {
    /// The next fault.
    #[must_use]
    pub fn draw(chance: &Chance) -> Self {
        let node = chance.below(3) as usize;
        let seconds = 1 + chance.below(6);
        match chance.below(10) {
            0..=3 => Self::Kill { node, unsynced: chance.below(3), seconds },
            4 => Self::KillAll { unsynced: chance.below(3) },
            5 | 6 => Self::Isolate { node, seconds },
            7 => Self::OneWay { from: node, to: (node + 1 + chance.below(2) as usize) % 3, seconds },
            8 => Self::SlowDisk { node, seconds },
            _ => Self::Calm { seconds },
        }
    }
}
