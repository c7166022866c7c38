//! Arguments in, figures out.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
