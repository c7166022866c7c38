//! The real world behind the seams: the machine's clocks and its chance.

use raft_types::{Clock, Seed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clocks.
pub(crate) struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The kernel's chance.
pub(crate) struct SystemSeed;

impl Seed for SystemSeed {
    fn next(&self) -> u64 {
        uuid::Uuid::new_v4().as_u64_pair().0
    }
}
