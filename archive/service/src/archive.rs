//! The archive: what the two faces hold. Cheap to clone.

use crate::{
    ClusterStatus, Ingest, InstanceRow, Offer, Peers, Reading, RemoteAe, ServiceSettings, StoreError, Stored,
    availability::Remembered, codec::Codec, indexes::Indexes, memory::IngestMemory, metrics::Metrics, reach::Reach,
    render::Renderings, sends::Senders,
};
use archive_catalog::{Admission, Catalog};
use archive_model::{AeTitle, Limits, Uid};
use raft_types::{ByteBudget, Clock, Documents, Propose};
use std::{ops::Range, sync::Arc};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The use cases over one catalogue and one replicated log.
#[derive(Clone)]
pub struct Archive {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Arc<Catalog>,
    log: Arc<dyn Propose>,
    clock: Arc<dyn Clock>,
    settings: ServiceSettings,
    peers: Arc<Peers>,
    indexes: Indexes,
    remembered: Remembered,
    reach: Reach,
    senders: Senders,
    ingest_memory: IngestMemory,
    read_budget: ByteBudget,
    codec: Codec,
    renderings: Renderings,
    queries: Arc<Semaphore>,
    look_ups: Arc<Semaphore>,
    metrics: Metrics,
    tasks: TaskTracker,
    draining: CancellationToken,
}

impl Archive {
    /// Wires the use cases; nothing runs yet. Nobody is admitted before [`Peers::follow`] does.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        log: Arc<dyn Propose>,
        documents: Arc<dyn Documents>,
        clock: Arc<dyn Clock>,
        settings: ServiceSettings,
        registry: &prometheus::Registry,
    ) -> Self {
        let metrics = Metrics::new(registry);
        let inner = Inner {
            catalog,
            log,
            clock,
            ingest_memory: IngestMemory::new(settings.ingest_bytes_max.max(ServiceSettings::INGEST_BYTES_MIN)),
            read_budget: ByteBudget::new(settings.read_bytes_max),
            queries: Arc::new(Semaphore::new(settings.queries_max.max(1))),
            look_ups: Arc::new(Semaphore::new(settings.queries_max.max(1))),
            indexes: Indexes::new(Arc::clone(&documents)),
            peers: Arc::new(Peers::new(documents, settings.remotes.clone())),
            remembered: Remembered::default(),
            reach: Reach::default(),
            senders: Senders::default(),
            codec: Codec::new(settings.codec.clone(), metrics.clone()),
            renderings: Renderings::new(settings.codec.workers),
            settings,
            metrics,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Another node over the same rows.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn over(&self, log: Arc<dyn Propose>, documents: Arc<dyn Documents>) -> Self {
        let Inner { catalog, clock, settings, .. } = &*self.inner;
        let registry = prometheus::Registry::new();
        let made = Self::new(Arc::clone(catalog), log, documents, Arc::clone(clock), settings.clone(), &registry);
        made.peers().learn(&raft_types::Document::default());
        made
    }

    /// Begins to store an instance.
    ///
    /// # Errors
    /// `Stopping` while this node drains; `TransferSyntax` when the offer's is no UID.
    pub async fn store(&self, offer: Offer) -> Result<Ingest, StoreError> {
        self.begin(offer).inspect_err(|error| self.count_refusal(error))
    }

    fn begin(&self, mut offer: Offer) -> Result<Ingest, StoreError> {
        if self.inner.draining.is_cancelled() {
            return Err(StoreError::Stopping);
        }
        // It is kept as it comes and stands in headers of answers later: nothing but a UID may get that far.
        let syntax = Uid::parse(&offer.transfer_syntax).map_err(StoreError::TransferSyntax)?;
        offer.transfer_syntax = syntax.as_str().to_owned();
        Ok(Ingest::new(self.clone(), offer))
    }

    /// Bytes `range` of an instance, piece by piece.
    #[must_use]
    pub fn read(&self, row: &InstanceRow, range: Range<u64>) -> Reading {
        self.inner.metrics.read_bytes.set(gauge(self.inner.read_budget.used()));
        Reading::of(Arc::clone(&self.inner.log), self.inner.read_budget.clone(), row, range)
    }

    /// Nodes, groups and leaders as this node sees them.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        self.inner.log.status()
    }

    /// Whether a store can be expected to succeed now: what an association is told at its beginning.
    ///
    /// # Errors
    /// `Stopping`, or `NoQuorum` when no group can commit.
    pub fn admits(&self) -> Result<(), StoreError> {
        if self.inner.draining.is_cancelled() {
            return Err(StoreError::Stopping);
        }
        let groups = self.inner.log.groups();
        if groups.iter().any(|group| self.inner.log.can_commit(*group)) { Ok(()) } else { Err(StoreError::NoQuorum) }
    }

    /// Our AE title.
    #[must_use]
    pub fn ae_title(&self) -> &AeTitle {
        &self.inner.settings.ae_title
    }

    /// Who may call, who is called, and by which rules.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.inner.peers
    }

    /// The application that images may be moved to under the title `ae`.
    #[must_use]
    pub fn remote(&self, ae: &str) -> Option<RemoteAe> {
        self.inner.peers.destination(ae).map(|destination| destination.remote)
    }

    /// Limits of the pre-validator.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.settings.limits
    }

    /// From now on new stores are refused, and background work ends; stores that have begun go on.
    pub fn drain(&self) {
        self.inner.draining.cancel();
    }

    /// Waits for the queries and aborts that are still running. Call when both faces have stopped.
    pub async fn shutdown(&self) {
        self.drain();
        self.inner.senders.let_go().await;
        self.inner.queries.close();
        self.inner.look_ups.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.codec.close();
    }

    pub(crate) fn index_list(&self) -> &Indexes {
        &self.inner.indexes
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.inner.catalog
    }

    pub(crate) fn log(&self) -> &Arc<dyn Propose> {
        &self.inner.log
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    pub(crate) fn settings(&self) -> &ServiceSettings {
        &self.inner.settings
    }

    pub(crate) fn ingest_memory(&self) -> &IngestMemory {
        &self.inner.ingest_memory
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.inner.reach
    }

    pub(crate) fn remembered(&self) -> &Remembered {
        &self.inner.remembered
    }

    pub(crate) fn senders(&self) -> &Senders {
        &self.inner.senders
    }

    pub(crate) fn codec(&self) -> &Codec {
        &self.inner.codec
    }

    pub(crate) fn renderings(&self) -> &Renderings {
        &self.inner.renderings
    }

    pub(crate) fn queries(&self) -> &Arc<Semaphore> {
        &self.inner.queries
    }

    pub(crate) fn look_ups(&self) -> &Arc<Semaphore> {
        &self.inner.look_ups
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Cancelled once this node drains.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    pub(crate) fn count_stored(&self, stored: &Stored, protocol: &str, length_bytes: u64) {
        let metrics = &self.inner.metrics;
        let admission = match stored.admission {
            Admission::New => "new",
            Admission::Same => "same",
            Admission::Alike => "alike",
            Admission::Version { .. } => "version",
            Admission::Replaced { .. } => "replaced",
        };
        metrics.stored.with_label_values(&[admission]).inc();
        metrics.stored_bytes.with_label_values(&[protocol]).inc_by(length_bytes);
        metrics.ingest_bytes.set(gauge(self.inner.ingest_memory.used()));
        match stored.admission {
            Admission::New | Admission::Same => {}
            Admission::Alike => tracing::info!(study = %stored.study, instance = %stored.instance,
                "the content of a known UID in another padding: what came first stays"),
            Admission::Version { number } => tracing::warn!(study = %stored.study, instance = %stored.instance, number,
                "other content under a known UID: kept as a version"),
            Admission::Replaced { number } => {
                tracing::warn!(study = %stored.study, instance = %stored.instance, number,
                "other content under a known UID: it answers now, and the one before is kept as a version")
            }
        }
    }

    pub(crate) fn count_refusal(&self, error: &StoreError) {
        let reason = match error {
            StoreError::Invalid(_) => "invalid",
            StoreError::Mismatch { .. } | StoreError::StudyMismatch => "mismatch",
            StoreError::BadUid { .. } => "uid",
            StoreError::TransferSyntax(_) => "syntax",
            StoreError::NoQuorum => "no_quorum",
            StoreError::Unknown => "unknown",
            StoreError::Overloaded => "overloaded",
            StoreError::DiskFull => "disk_full",
            StoreError::OtherContent => "other_content",
            StoreError::Rejected => "rejected",
            StoreError::Refused { .. } => "refused",
            StoreError::Stopping => "stopping",
        };
        self.inner.metrics.refused.with_label_values(&[reason]).inc();
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
