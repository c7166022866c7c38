//! Arguments in, figures out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) struct Args(pub(crate) HashMap<String, Vec<String>>);
impl Args {
    pub(crate) fn get(&self, k: &str, d: &str) -> String {
        self.0.get(k).and_then(|v| v.last()).cloned().unwrap_or_else(|| d.into())
    }
    pub(crate) fn num(&self, k: &str, d: usize) -> usize {
        self.get(k, "").parse().unwrap_or(d)
    }
    pub(crate) fn all(&self, k: &str) -> Vec<String> {
        self.0.get(k).cloned().unwrap_or_default()
    }
}

pub(crate) fn dist(name: &str, v: &mut [f64]) -> String {
    v.sort_by(f64::total_cmp);
    let q = |p: f64| if v.is_empty() { 0.0 } else { v[((v.len() - 1) as f64 * p).round() as usize] * 1e3 };
    let mean = if v.is_empty() { 0.0 } else { v.iter().sum::<f64>() / v.len() as f64 * 1e3 };
    format!(
        "\"{name}\":{{\"n\":{},\"mean\":{mean:.3},\"p50\":{:.3},\"p90\":{:.3},\"p99\":{:.3},\"max\":{:.3}}}",
        v.len(),
        q(0.5),
        q(0.9),
        q(0.99),
        q(1.0)
    )
}
pub(crate) fn cpu_s() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let f: Vec<&str> = s.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    if f.len() < 13 {
        return 0.0;
    }
    (f[11].parse::<f64>().unwrap_or(0.0) + f[12].parse::<f64>().unwrap_or(0.0)) / 100.0
}

/// The guard, whoever panicked before: the figures of the other associations still count.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value, as [`locked`].
pub(crate) fn opened<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The rate of each tenth of a run: whether a server slows down as it fills.
pub(crate) struct Tenths {
    total: usize,
    /// Microseconds from the start until this many tenths were done; 0: not yet.
    at_us: [AtomicU64; 10],
}

impl Tenths {
    pub(crate) fn of(total: usize) -> Self {
        Self { total, at_us: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
    /// The `done`-th operation of the run has ended, so long after its start.
    pub(crate) fn done(&self, done: usize, since: Duration) {
        let tenth = done * 10 / self.total;
        if tenth > (done - 1) * 10 / self.total {
            self.at_us[tenth - 1].store((since.as_micros() as u64).max(1), Relaxed);
        }
    }
    /// Operations a second in each tenth that was done; of a run that was cut short, the tenths before the cut.
    pub(crate) fn rates(&self) -> Vec<f64> {
        let (mut before_us, mut rates) = (0, Vec::new());
        for (i, at) in self.at_us.iter().enumerate() {
            let at_us = at.load(Relaxed);
            if at_us <= before_us {
                break;
            }
            let count = (i + 1) * self.total / 10 - i * self.total / 10;
            rates.push(count as f64 * 1e6 / (at_us - before_us) as f64);
            before_us = at_us;
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred operations, the second fifty at half the speed of the first; then the same cut short in the fourth tenth.
    #[test]
    fn the_rate_of_each_tenth_is_its_own() {
        let rates = |until: usize| {
            let tenths = Tenths::of(100);
            for n in 1..=until {
                tenths.done(n, Duration::from_millis(if n <= 50 { 10 * n } else { 500 + 20 * (n - 50) } as u64));
            }
            tenths.rates().iter().map(|r| r.round() as u64).collect::<Vec<_>>()
        };
        assert_eq!(rates(100), [[100; 5], [50; 5]].concat());
        assert_eq!(rates(35), [100; 3]);
    }
}
