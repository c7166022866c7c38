//! What the groups of a node count.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// The metrics of one node.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) commit_seconds: Histogram,
    pub(crate) apply_seconds: Histogram,
    pub(crate) read_index_seconds: Histogram,
    pub(crate) forwarded: IntCounter,
    pub(crate) proposals: IntCounterVec,
    pub(crate) remote_reads: IntCounter,
    pub(crate) leads: IntGauge,
    pub(crate) hosted: IntGauge,
    pub(crate) transfers: IntCounter,
    pub(crate) installed: IntCounter,
    pub(crate) purged: IntCounter,
    pub(crate) missing_bytes: IntGauge,
    pub(crate) pulled_bytes: IntCounter,
    pub(crate) repaired: IntCounter,
    pub(crate) scrubbed_bytes: IntCounter,
    pub(crate) damaged: IntCounterVec,
    pub(crate) verified: IntCounterVec,
    pub(crate) segments_rewritten: IntCounter,
    pub(crate) reclaimed_bytes: IntCounter,
    pub(crate) dead_bytes: IntGauge,
    pub(crate) violations: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seconds =
            vec![0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
        let histogram = |name: &str, help: &str| {
            keep(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(seconds.clone()))?)
        };
        Ok(Self {
            commit_seconds: histogram("raft_groups_commit_seconds", "From proposal to applied, on the leader.")?,
            apply_seconds: histogram("raft_groups_apply_seconds", "One transaction of the state machine.")?,
            read_index_seconds: histogram(
                "raft_groups_read_index_seconds",
                "One read index over all groups asked for.",
            )?,
            forwarded: keep(
                registry,
                IntCounter::new("raft_groups_forwarded_total", "Proposals sent to another node.")?,
            )?,
            proposals: keep(
                registry,
                IntCounterVec::new(Opts::new("raft_groups_proposals_total", "Proposals by result."), &["result"])?,
            )?,
            remote_reads: keep(
                registry,
                IntCounter::new("raft_groups_remote_reads_total", "Blocks read from a peer.")?,
            )?,
            leads: keep(registry, IntGauge::new("raft_groups_leads", "Groups that this node leads.")?)?,
            hosted: keep(registry, IntGauge::new("raft_groups_hosted", "Groups that this node keeps.")?)?,
            transfers: keep(registry, IntCounter::new("raft_groups_transfers_total", "Leaderships handed over.")?)?,
            purged: keep(registry, IntCounter::new("raft_groups_purged_total", "Times that old log was let go of.")?)?,
            installed: keep(
                registry,
                IntCounter::new("raft_groups_snapshots_installed_total", "Groups whose rows came from a leader.")?,
            )?,
            missing_bytes: keep(
                registry,
                IntGauge::new("raft_groups_missing_bytes", "Bodies that are still pulled from peers, in bytes.")?,
            )?,
            pulled_bytes: keep(
                registry,
                IntCounter::new("raft_groups_pulled_bytes_total", "Bodies pulled from peers, in bytes.")?,
            )?,
            repaired: keep(
                registry,
                IntCounter::new("raft_groups_repaired_total", "Damaged places that were mended.")?,
            )?,
            scrubbed_bytes: keep(
                registry,
                IntCounter::new("raft_groups_scrubbed_bytes_total", "Bytes of the log read and verified by scrub.")?,
            )?,
            verified: keep(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "raft_groups_verified_total",
                        "Objects that were read from this disk on demand, by result.",
                    ),
                    &["result"],
                )?,
            )?,
            damaged: keep(
                registry,
                IntCounterVec::new(
                    Opts::new("raft_groups_damaged_total", "Damaged places that scrub or a start found, by kind."),
                    &["kind"],
                )?,
            )?,
            segments_rewritten: keep(
                registry,
                IntCounter::new("raft_groups_segments_rewritten_total", "Segments compacted or mended.")?,
            )?,
            reclaimed_bytes: keep(
                registry,
                IntCounter::new("raft_groups_reclaimed_bytes_total", "Bytes of the disk that compaction gave back.")?,
            )?,
            dead_bytes: keep(
                registry,
                IntGauge::new("raft_groups_dead_bytes", "Bytes of closed segments that nobody needs, about.")?,
            )?,
            violations: {
                let help = "Invariants of the groups found broken by this node, which checks itself every second.";
                let options = Opts::new("raft_groups_invariant_violations_total", help);
                let violations = keep(registry, IntCounterVec::new(options, &["invariant"])?)?;
                // There from the start, so that an alert on it means what it says.
                for invariant in ["bounds", "follower_keeps", "never_back", "one_leader", "terms_grow"] {
                    violations.with_label_values(&[invariant]).inc_by(0);
                }
                violations
            },
        })
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
