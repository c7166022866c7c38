//! What a lane counts. Names carry units; bounds were chosen by hand for one disk.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

/// The metrics of one lane.
#[derive(Debug, Clone)]
pub struct LaneMetrics {
    pub(crate) write_seconds: Histogram,
    pub(crate) fsync_seconds: Histogram,
    pub(crate) batch_bytes: Histogram,
    pub(crate) batch_records: Histogram,
    pub(crate) written_bytes: IntCounter,
    pub(crate) segments_opened: IntCounter,
}

impl LaneMetrics {
    /// Registers them; fails when a lane is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seconds =
            vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0];
        let bytes = vec![4e3, 16e3, 64e3, 256e3, 1e6, 2e6, 4e6, 8e6, 16e6];
        let records = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0];
        let histogram = |name: &str, help: &str, bounds: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            write_seconds: histogram("raft_lanes_write_seconds", "Writing one batch.", seconds.clone())?,
            fsync_seconds: histogram("raft_lanes_fsync_seconds", "One fdatasync, which covers one batch.", seconds)?,
            batch_bytes: histogram("raft_lanes_batch_bytes", "Size of a batch on the disk.", bytes)?,
            batch_records: histogram("raft_lanes_batch_records", "Records in a batch.", records)?,
            written_bytes: counter("raft_lanes_written_bytes_total", "Bytes written to segments.")?,
            segments_opened: counter("raft_lanes_segments_opened_total", "Segments opened for writing.")?,
        })
    }
}
