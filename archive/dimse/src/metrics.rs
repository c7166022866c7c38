//! What the DIMSE face counts.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) associations: IntGauge,
    pub(crate) accepted: IntCounter,
    pub(crate) rejected: IntCounterVec,
    pub(crate) ended: IntCounterVec,
    pub(crate) responses: IntCounterVec,
    pub(crate) answer_seconds: Histogram,
    pub(crate) operation_seconds: HistogramVec,
    pub(crate) suboperations: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labelled = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let seconds = vec![0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0];
        let answer = HistogramOpts::new("archive_dimse_answer_seconds", "Writing one response.").buckets(seconds);
        let bounds = vec![0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];
        let operation = HistogramOpts::new(
            "archive_dimse_operation_seconds",
            "From the command set of a request to its final response written.",
        );
        let operation = HistogramVec::new(operation.buckets(bounds), &["service"])?;
        Ok(Self {
            associations: keep(registry, IntGauge::new("archive_dimse_associations", "Associations that are open.")?)?,
            accepted: keep(registry, IntCounter::new("archive_dimse_accepted_total", "Associations accepted.")?)?,
            rejected: keep(registry, labelled("archive_dimse_rejected_total", "Associations rejected.", &["reason"])?)?,
            ended: keep(registry, labelled("archive_dimse_ended_total", "Associations by how they ended.", &["how"])?)?,
            responses: keep(
                registry,
                labelled("archive_dimse_responses_total", "Responses by service and status.", &["service", "status"])?,
            )?,
            answer_seconds: keep(registry, Histogram::with_opts(answer)?)?,
            operation_seconds: keep(registry, operation)?,
            suboperations: keep(
                registry,
                labelled("archive_dimse_suboperations_total", "C-STORE sub-operations.", &["result"])?,
            )?,
        })
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
