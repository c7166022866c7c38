//! The listener: connections in, associations out, limits in between.

use crate::{association::Deadlines, metrics::Metrics, provider};
use archive_service::Archive;
use parking_lot::Mutex;
use prometheus::Registry;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// Connections beyond the limit that are told so; those beyond are closed without a word.
const TOLD_MAX: usize = 64;

/// Deadlines of associations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For A-ASSOCIATE-RQ to come whole (ARTIM). Default 30 s.
    pub artim: Duration,
    /// For 1 KiB to arrive inside of a message, and for the peer to take bytes. Default 30 s.
    pub progress: Duration,
    /// Between two messages. Default 300 s.
    pub idle: Duration,
}

impl Timeouts {
    pub(crate) fn deadlines(self) -> Deadlines {
        Deadlines { artim: self.artim, progress: self.progress, idle: self.idle }
    }
}

/// Settings of the DIMSE face.
#[derive(Debug, Clone)]
pub struct DimseSettings {
    /// Associations at the same time; more are rejected for now. Default 512.
    pub associations_max: usize,
    /// Associations of one address at the same time. Default 128.
    pub associations_per_peer_max: usize,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Whether a request must be addressed to our AE title. Default true.
    pub check_called_ae: bool,
    /// How long running operations may go on once a stop was asked for. Default 20 s.
    pub drain: Duration,
}

impl Default for DimseSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            associations_max: 512,
            associations_per_peer_max: 128,
            timeouts: Timeouts { artim: seconds(30), progress: seconds(30), idle: seconds(300) },
            check_called_ae: true,
            drain: seconds(20),
        }
    }
}

/// What all associations share.
pub(crate) struct Shared {
    pub(crate) archive: Archive,
    pub(crate) settings: DimseSettings,
    pub(crate) metrics: Metrics,
    /// A stop was asked for: no new associations, hang up between two messages.
    pub(crate) stopping: CancellationToken,
    /// The grace of running operations is over.
    pub(crate) deadline: CancellationToken,
    open: Mutex<BTreeMap<IpAddr, usize>>,
    tasks: TaskTracker,
}

/// The running listener.
pub struct DimseServer {
    shared: Arc<Shared>,
    local_address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl DimseServer {
    /// Serves `archive` on `listener`.
    ///
    /// # Errors
    /// When the listener has no address, or a metric is registered already.
    pub fn start(
        listener: TcpListener,
        archive: Archive,
        settings: DimseSettings,
        registry: &Registry,
    ) -> io::Result<Self> {
        let local_address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            archive,
            settings,
            metrics: Metrics::register(registry).map_err(io::Error::other)?,
            stopping: CancellationToken::new(),
            deadline: CancellationToken::new(),
            open: Mutex::new(BTreeMap::new()),
            tasks: TaskTracker::new(),
        });
        let accepting = tokio::spawn(accept(Arc::clone(&shared), listener));
        Ok(Self { shared, local_address, accepting: Mutex::new(Some(accepting)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Accepts nothing more, lets running operations end within the grace, then cuts them off.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting
            && accepting.await.is_err()
        {
            tracing::warn!("the DIMSE listener did not stop in order");
        }
        self.shared.tasks.close();
        if timeout(self.shared.settings.drain, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(associations = self.shared.tasks.len(), "operations are cut off");
            self.shared.deadline.cancel();
            self.shared.tasks.wait().await;
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: associations that end will free some.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = Place::take(&shared, from.ip()) else {
            shared.metrics.rejected.with_label_values(&["flood"]).inc();
            continue;
        };
        let task = Arc::clone(&shared);
        number += 1;
        let served = async move {
            let full = place.full;
            provider::serve(task, stream, from.to_string(), full).await;
            drop(place);
        };
        shared.tasks.spawn(served.instrument(tracing::info_span!("association", number)));
    }
}

/// A connection that counts while it lives.
struct Place {
    shared: Arc<Shared>,
    from: IpAddr,
    full: bool,
}

impl Place {
    fn take(shared: &Arc<Shared>, from: IpAddr) -> Option<Self> {
        let mut open = shared.open.lock();
        let all: usize = open.values().sum();
        let own = open.get(&from).copied().unwrap_or(0);
        let settings = &shared.settings;
        if all >= settings.associations_max + TOLD_MAX {
            return None;
        }
        let full = all >= settings.associations_max || own >= settings.associations_per_peer_max;
        *open.entry(from).or_default() += 1;
        shared.metrics.associations.inc();
        Some(Self { shared: Arc::clone(shared), from, full })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        if let Some(own) = open.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.from);
            }
        }
        self.shared.metrics.associations.dec();
    }
}
