//! Arguments in, figures out.

use std::collections::HashMap;
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
    cpu_s_of("self")
}

/// User and system seconds of a process.
pub(crate) fn cpu_s_of(pid: &str) -> f64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
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

/// What each tenth of a run took: whether a server slows down as it fills. Rates depend on what else the machine does, the
/// server's CPU for an operation hardly.
pub(crate) struct Tenths {
    total: usize,
    /// Empty: whose CPU it costs is not known.
    server_pid: String,
    /// When this many tenths were done.
    marks: Mutex<Vec<Mark>>,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    since: Duration,
    server_cpu_s: f64,
}

impl Tenths {
    /// To be made at the start of the run.
    pub(crate) fn of(total: usize, server_pid: String) -> Self {
        let start = Mark { since: Duration::ZERO, server_cpu_s: cpu_s_of(&server_pid) };
        Self { total, server_pid, marks: Mutex::new(vec![start]) }
    }
    /// The `done`-th operation of the run has ended, so long after its start.
    pub(crate) fn done(&self, done: usize, since: Duration) {
        if done * 10 / self.total > (done - 1) * 10 / self.total {
            locked(&self.marks).push(Mark { since, server_cpu_s: cpu_s_of(&self.server_pid) });
        }
    }
    /// `"tenths_inst_s":[…],"tenths_server_cpu_ms":[…]`: operations a second, and CPU of the server for each; of a run that was cut
    /// short, the tenths before the cut.
    pub(crate) fn json(&self) -> String {
        let (marks, each) = (locked(&self.marks), self.total as f64 / 10.0);
        let pairs = || marks.iter().zip(marks.iter().skip(1));
        let rates = pairs().map(|(a, b)| each / (b.since.saturating_sub(a.since).as_secs_f64()).max(1e-6));
        let cpu_ms = pairs().map(|(a, b)| (b.server_cpu_s - a.server_cpu_s) * 1e3 / each);
        format!(
            "\"tenths_inst_s\":{:.1?},\"tenths_server_cpu_ms\":{:.4?}",
            rates.collect::<Vec<_>>(),
            if self.server_pid.is_empty() { Vec::new() } else { cpu_ms.collect::<Vec<_>>() }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred operations, the second fifty at half the speed of the first; then the same cut short in the fourth tenth.
    #[test]
    fn each_tenth_has_its_own_rate() {
        let json = |until: usize| {
            let tenths = Tenths::of(100, String::new());
            for n in 1..=until {
                tenths.done(n, Duration::from_millis(if n <= 50 { 10 * n } else { 500 + 20 * (n - 50) } as u64));
            }
            tenths.json()
        };
        let (fast, slow) = (["100.0"; 5].join(", "), ["50.0"; 5].join(", "));
        assert_eq!(json(100), format!("\"tenths_inst_s\":[{fast}, {slow}],\"tenths_server_cpu_ms\":[]"));
        assert_eq!(json(35), "\"tenths_inst_s\":[100.0, 100.0, 100.0],\"tenths_server_cpu_ms\":[]");
    }

    /// The own process is the server here: what it spends in a tenth is that tenth's.
    #[test]
    fn each_tenth_has_its_own_cpu() {
        let tenths = Tenths::of(10, std::process::id().to_string());
        for n in 1..=10 {
            let until = cpu_s() + if n == 10 { 0.1 } else { 0.0 };
            while cpu_s() < until {}
            tenths.done(n, Duration::from_millis(n as u64));
        }
        let spent: Vec<f64> = locked(&tenths.marks).iter().map(|mark| mark.server_cpu_s).collect();
        assert!(spent[10] - spent[9] > spent[9] - spent[0], "{spent:?}");
    }
}
