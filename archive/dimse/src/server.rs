//! The listener: connections in, associations out, limits in between.

use crate::{association::Deadlines, delivery::SEND_AHEAD, metrics::Metrics, provider};
use archive_service::{Archive, peers::Peer as Entry};
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

/// Settings of the DIMSE face.
#[derive(Debug, Clone)]
pub struct DimseSettings {
    /// Associations at the same time; more are rejected for now. Default 512.
    pub associations_max: usize,
    /// Associations of one address at the same time. Default 128.
    ///
    /// As many again may be on their way: connections that have not said yet what they want. Those beyond are closed
    /// without a word, so that they take no place from others.
    pub associations_per_peer_max: usize,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Whether a request must be addressed to our AE title. Default true.
    pub check_called_ae: bool,
    /// How long running operations may go on once a stop was asked for. Default 20 s.
    pub drain: Duration,
    /// Sub-operations of a C-MOVE that go to a destination before its answers come, if it agrees to that. Default 8.
    pub send_ahead: u16,
}

impl Default for DimseSettings {
    fn default() -> Self {
        Self {
            associations_max: 512,
            associations_per_peer_max: 128,
            deadlines: Deadlines::default(),
            check_called_ae: true,
            drain: Duration::from_secs(20),
            send_ahead: SEND_AHEAD,
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
    open: Mutex<Open>,
    pub(crate) tasks: TaskTracker,
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
            open: Mutex::new(Open::default()),
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
            provider::serve(task, stream, from, place).await;
        };
        shared.tasks.spawn(served.instrument(tracing::info_span!("association", number)));
    }
}

/// All connections, counted.
#[derive(Debug, Default)]
struct Open {
    by_address: BTreeMap<IpAddr, OpenOf>,
    /// Associations, by the entry of the registry that their callers are under.
    by_entry: BTreeMap<String, usize>,
}

/// Connections of one address.
#[derive(Debug, Clone, Copy, Default)]
struct OpenOf {
    /// Which have not said yet what they want.
    begun: usize,
    /// Associations.
    established: usize,
}

/// A connection that counts while it lives: first among those that have begun, then among the associations. The two are
/// counted apart, so that who only opens connections takes no association from anybody.
pub(crate) struct Place {
    shared: Arc<Shared>,
    from: IpAddr,
    established: bool,
    /// The entry of the registry that it counts under.
    entry: Option<String>,
}

impl Place {
    /// A place among those that have begun; `None` when there is none left, for this address or for all.
    fn take(shared: &Arc<Shared>, from: IpAddr) -> Option<Self> {
        let open = &mut shared.open.lock().by_address;
        let all: usize = open.values().map(|open| open.begun).sum();
        let own = open.get(&from).copied().unwrap_or_default().begun;
        if all >= shared.settings.associations_max || own >= shared.settings.associations_per_peer_max {
            return None;
        }
        open.entry(from).or_default().begun += 1;
        Some(Self { shared: Arc::clone(shared), from, established: false, entry: None })
    }

    /// Takes a place among the associations, and among those of the caller's entry; whether there was one.
    pub(crate) fn establish(&mut self, entry: &Entry) -> bool {
        let mut open = self.shared.open.lock();
        let Open { by_address, by_entry } = &mut *open;
        let all: usize = by_address.values().map(|open| open.established).sum();
        let own = by_address.entry(self.from).or_default();
        let settings = &self.shared.settings;
        if all >= settings.associations_max || own.established >= settings.associations_per_peer_max {
            return false;
        }
        let of_entry = by_entry.get(entry.ae.as_str()).copied().unwrap_or_default();
        if entry.associations_max.is_some_and(|most| of_entry >= usize::try_from(most).unwrap_or(usize::MAX)) {
            return false;
        }
        by_entry.insert(entry.ae.to_string(), of_entry + 1);
        self.entry = Some(entry.ae.to_string());
        own.begun -= 1;
        own.established += 1;
        self.established = true;
        self.shared.metrics.associations.inc();
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        let Open { by_address, by_entry } = &mut *open;
        if let Some(entry) = self.entry.take()
            && let Some(of_entry) = by_entry.get_mut(&entry)
        {
            *of_entry -= 1;
            if *of_entry == 0 {
                by_entry.remove(&entry);
            }
        }
        let Some(own) = by_address.get_mut(&self.from) else { return };
        if self.established {
            own.established -= 1;
            self.shared.metrics.associations.dec();
        } else {
            own.begun -= 1;
        }
        if own.begun + own.established == 0 {
            by_address.remove(&self.from);
        }
    }
}
