//! What the use cases count and time.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Seconds. 0.5 ms is a small instance on an idle machine, 10 s the proposal's deadline.
const STAGE_BOUNDS_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The instruments of this crate; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) receive: Histogram,
    pub(crate) validate: Histogram,
    pub(crate) propose: Histogram,
    pub(crate) stored: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) stored_bytes: IntCounterVec,
    pub(crate) deleted: IntCounter,
    pub(crate) rejected: IntCounterVec,
    pub(crate) notifications: IntCounterVec,
    pub(crate) commitments: IntCounterVec,
    pub(crate) commitment_reports: IntCounterVec,
    pub(crate) commitments_waiting: IntGauge,
    pub(crate) sends: IntCounterVec,
    pub(crate) sends_running: IntGauge,
    pub(crate) sends_waiting: IntGauge,
    pub(crate) sends_failed: IntGauge,
    pub(crate) ingest_bytes: IntGauge,
    pub(crate) read_bytes: IntGauge,
    pub(crate) codec_frames: IntCounterVec,
    pub(crate) codec_seconds: Histogram,
    pub(crate) renderings: IntCounterVec,
    pub(crate) codec_workers: IntCounter,
}

impl Metrics {
    /// Registers the instruments; a second archive in one registry (tests) shares nothing and is not exported.
    pub(crate) fn new(registry: &Registry) -> Self {
        let stages = HistogramVec::new(
            HistogramOpts::new("archive_service_store_seconds", "Seconds a store spends in each stage.")
                .buckets(STAGE_BOUNDS_SECONDS.to_vec()),
            &["stage"],
        );
        let stages = stages.unwrap_or_else(|error| unreachable!("literal metric options: {error}"));
        let counter = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &[label])
                .unwrap_or_else(|error| unreachable!("literal metric options: {error}"))
        };
        let gauge = |name: &str, help: &str| {
            IntGauge::new(name, help).unwrap_or_else(|error| unreachable!("literal metric options: {error}"))
        };
        let codec_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "archive_service_codec_seconds",
                "Seconds a frame took to be decoded, waiting included.",
            )
            .buckets(STAGE_BOUNDS_SECONDS.to_vec()),
        );
        let metrics = Self {
            receive: stages.with_label_values(&["receive"]),
            validate: stages.with_label_values(&["validate"]),
            propose: stages.with_label_values(&["propose"]),
            stored: counter("archive_service_stored_total", "Instances stored, by what they were.", "admission"),
            refused: counter("archive_service_refused_total", "Instances refused, by reason.", "reason"),
            stored_bytes: counter("archive_service_stored_bytes_total", "Bytes of stored instances.", "protocol"),
            deleted: IntCounter::new("archive_service_deleted_total", "Instances deleted by orders to this node.")
                .unwrap_or_else(|error| unreachable!("literal metric options: {error}")),
            rejected: counter(
                "archive_service_rejected_total",
                "Instances on which rejection notes took effect by this node, by what became of them.",
                "state",
            ),
            notifications: counter(
                "archive_service_notifications_total",
                "Notifications of availability, by what became of the attempt.",
                "result",
            ),
            commitments: counter(
                "archive_service_commitments_total",
                "Transactions of storage commitment that were worked out on this node, by result.",
                "result",
            ),
            commitment_reports: counter(
                "archive_service_commitment_reports_total",
                "Reports of storage commitment, by what became of the attempt.",
                "result",
            ),
            commitments_waiting: gauge(
                "archive_service_commitments_waiting",
                "Transactions in groups that this node leads whose result or report is to come; up to 1000 are counted.",
            ),
            sends: counter(
                "archive_service_sends_total",
                "Jobs that send instances elsewhere, by what became of them on this node.",
                "result",
            ),
            sends_running: gauge("archive_service_sends_running", "Jobs that this node works on, C-MOVEs among them."),
            sends_waiting: gauge(
                "archive_service_sends_waiting",
                "Jobs in groups that this node leads that wait for an attempt.",
            ),
            sends_failed: gauge(
                "archive_service_sends_failed",
                "Jobs in groups that this node leads that were given up in the last days.",
            ),
            ingest_bytes: gauge("archive_service_ingest_bytes", "Bytes that stores hold now."),
            read_bytes: gauge("archive_service_read_bytes", "Bytes that reads hold now."),
            codec_frames: counter("archive_service_codec_frames_total", "Frames decoded, or not: why.", "outcome"),
            renderings: counter(
                "archive_service_renderings_total",
                "Pictures asked for, by what became of them: kept ones are answered from memory.",
                "outcome",
            ),
            codec_seconds: codec_seconds.unwrap_or_else(|error| unreachable!("literal metric options: {error}")),
            codec_workers: IntCounter::new("archive_service_codec_workers_total", "Codec workers started.")
                .unwrap_or_else(|error| unreachable!("literal metric options: {error}")),
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 20] = [
            Box::new(stages),
            Box::new(metrics.stored.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.stored_bytes.clone()),
            Box::new(metrics.deleted.clone()),
            Box::new(metrics.rejected.clone()),
            Box::new(metrics.notifications.clone()),
            Box::new(metrics.commitments.clone()),
            Box::new(metrics.commitment_reports.clone()),
            Box::new(metrics.commitments_waiting.clone()),
            Box::new(metrics.sends.clone()),
            Box::new(metrics.sends_running.clone()),
            Box::new(metrics.sends_waiting.clone()),
            Box::new(metrics.sends_failed.clone()),
            Box::new(metrics.ingest_bytes.clone()),
            Box::new(metrics.read_bytes.clone()),
            Box::new(metrics.codec_frames.clone()),
            Box::new(metrics.codec_seconds.clone()),
            Box::new(metrics.codec_workers.clone()),
            Box::new(metrics.renderings.clone()),
        ];
        for collector in collectors {
            if let Err(error) = registry.register(collector) {
                tracing::warn!(%error, "metric not registered");
            }
        }
        metrics
    }
}
