//! Time and chance as seams.

use std::time::Duration;

/// Time. Order never comes from here: order is the log index.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since some fixed moment.
    fn now(&self) -> Duration;
    /// Wall time in milliseconds since 1970; informational only.
    fn unix_ms(&self) -> u64;
}

/// Chance.
pub trait Seed: Send + Sync + 'static {
    /// 64 random bits.
    fn next(&self) -> u64;
}
