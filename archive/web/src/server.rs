//! The listener: connections, their time-outs, and their end.

use crate::{
    assemble::PERMIT_BYTES,
    guard::{Metrics, Readers},
    operations,
    pace::{Deadlines, Pace},
    proxies::Network,
    router::{Parts, Shared, router},
};
use archive_model::AeTitle;
use archive_service::{Archive, RemoteAe};
use axum::{Router, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How a node tells whether it lives and works, and what an operator may order.
pub trait Health: Send + Sync {
    /// Whether the process can go on; if not, it should be restarted.
    fn live(&self) -> bool;
    /// Whether it can answer now.
    ///
    /// # Errors
    /// Why not, and what it waits for.
    fn ready(&self) -> Result<(), String>;
    /// Gives the node of this name up: the next empty disk under it takes its place.
    ///
    /// # Errors
    /// Why it was not done, and what to do.
    fn replace(&self, name: String) -> futures::future::BoxFuture<'_, Result<(), String>>;
    /// Orders a scrub of this node's disk now; answers the number that `scrub_orders_done` of the status reaches when it
    /// has ended.
    fn scrub(&self) -> u64;
    /// Orders a compaction of this node's disk now; answers the number that `compact_orders_done` reaches.
    fn compact(&self) -> u64;
    /// Carries out what an operator orders for the node of this name.
    ///
    /// # Errors
    /// Why it was not done, and what to do.
    fn order(&self, name: String, order: NodeOrder) -> futures::future::BoxFuture<'_, Result<(), String>>;
    /// C-ECHO to `remote`, as `calling`.
    ///
    /// # Errors
    /// Why it was not answered with success.
    fn echo(&self, calling: AeTitle, remote: RemoteAe) -> futures::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { Err(format!("this node cannot call {} as {calling}", remote.title)) })
    }
    /// Begins a backup to the store of this URL, and answers at once.
    ///
    /// # Errors
    /// Why it was not begun.
    fn begin_backup(&self, to: String) -> Result<(), String> {
        Err(format!("this node cannot make a backup to {to}"))
    }
    /// The backup that runs here, or the last one.
    fn backup(&self) -> serde_json::Value {
        serde_json::json!({ "state": "none" })
    }
}

/// What an operator orders for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOrder {
    /// Its copies move to the others.
    Drain {
        /// Fewer copies may be kept from now on, when there are too few others.
        reduce: bool,
    },
    /// It stays after all.
    Undrain,
    /// It keeps nothing any more, and leaves for good.
    Remove,
}

/// Settings of the web face.
#[derive(Debug, Clone)]
pub struct WebSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections at the same time; more wait. Default 1024.
    pub connections_max: usize,
    /// Connections of one address at the same time; more are closed at once. Default 64.
    pub connections_per_peer_max: usize,
    /// DICOMweb requests that run at the same time. Default 256.
    pub requests_max: usize,
    /// Requests for images of one address that are answered at the same time; more wait. Each may hold 3 MiB of the
    /// read budget: with 10 an address has at most half of its 64 MiB. Default 10.
    pub readers_per_peer_max: usize,
    /// Pages that listen to events. Default 64.
    pub listeners_max: usize,
    /// Time for the head of a request, from the opening of the connection on. Default 10 s.
    pub head_timeout: Duration,
    /// Time in which a body must bring something. Default 30 s.
    pub body_timeout: Duration,
    /// Time in which a client must take some of an answer. Default 30 s.
    pub write_timeout: Duration,
    /// Time between two requests of one connection. Default 120 s.
    pub idle_timeout: Duration,
    /// Time for requests in flight at shutdown. Default 20 s.
    pub drain_timeout: Duration,
    /// Parts of one store request. Default 10,000.
    pub parts_max: usize,
    /// Bytes of bulk values that come beside metadata, of all requests; one value has at most half of it. Default 128 MiB.
    pub bulk_held_bytes_max: u64,
    /// Answers of one query. Default 1000; a client pages with `offset`.
    pub query_rows_max: u64,
    /// Origins of viewers on other hosts, such as `https://viewer.example`; `*` is any. Default none.
    pub cors_origins: Vec<String>,
    /// Proxies whose `Forwarded` and `X-Forwarded-*` count. Default this machine.
    pub trusted_proxies: Vec<Network>,
    /// How long a client may use an instance, a frame or a bulk value without asking again. Default 1 hour.
    pub cache_for: Duration,
}

impl WebSettings {
    /// All defaults.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            connections_max: 1024,
            connections_per_peer_max: 64,
            requests_max: 256,
            readers_per_peer_max: 10,
            listeners_max: 64,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(20),
            parts_max: 10_000,
            bulk_held_bytes_max: 128 << 20,
            query_rows_max: 1000,
            cors_origins: Vec::new(),
            trusted_proxies: Network::loopback(),
            cache_for: Duration::from_secs(3600),
        }
    }
}

/// The address of the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The web face while it runs.
#[derive(Debug)]
pub struct Web {
    local_address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Web {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be listened to.
    pub async fn start(
        archive: Archive,
        settings: WebSettings,
        health: Arc<dyn Health>,
        registry: prometheus::Registry,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        Self::start_on(listener, archive, settings, health, registry)
    }

    /// Serves what a listener takes that is open already.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start_on(
        listener: TcpListener,
        archive: Archive,
        settings: WebSettings,
        health: Arc<dyn Health>,
        registry: prometheus::Registry,
    ) -> io::Result<Self> {
        let local_address = listener.local_addr()?;
        let (news, shared) = share(archive, settings, health, registry);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(operations::tell_news(shared.clone(), news, stop.clone()));
        tasks.spawn(accept(listener, shared, stop.clone()));
        Ok(Self { local_address, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Takes no more connections, lets requests in flight end, and returns when all has ended.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What requests share, and who tells them news.
pub(crate) fn share(
    archive: Archive,
    settings: WebSettings,
    health: Arc<dyn Health>,
    registry: prometheus::Registry,
) -> (watch::Sender<Arc<str>>, Shared) {
    let (tell, news) = watch::channel(Arc::from(""));
    let shared = Shared::new(Parts {
        archive,
        metrics: Metrics::new(&registry),
        requests: Arc::new(Semaphore::new(settings.requests_max)),
        readers: Readers::new(settings.readers_per_peer_max),
        listeners: Arc::new(Semaphore::new(settings.listeners_max)),
        bulk_held: Arc::new(Semaphore::new(
            usize::try_from(settings.bulk_held_bytes_max / PERMIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS),
        )),
        settings,
        health,
        registry,
        news,
    });
    (tell, shared)
}

async fn accept(listener: TcpListener, shared: Shared, stop: CancellationToken) {
    let settings = shared.settings.clone();
    let refused = shared.metrics.refused.clone();
    let stalled = shared.metrics.stalled.clone();
    let router = router(shared);
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let peers = Arc::new(Mutex::new(BTreeMap::new()));
    let deadlines =
        Deadlines { head: settings.head_timeout, write: settings.write_timeout, idle: settings.idle_timeout };
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.head_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(settings.body_timeout));
    loop {
        let next = async {
            // At the cap, connections wait in the kernel's queue.
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let Some(Some((accepted, place))) = stop.run_until_cancelled(next).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let Some(own) = OfPeer::take(&peers, peer.ip(), settings.connections_per_peer_max) else {
                    refused.inc();
                    tracing::debug!(%peer, "connection refused: this address has too many");
                    continue;
                };
                let pace = Pace::new();
                let connection = graceful.watch(serve(&builder, router.clone(), stream, peer, pace.clone()));
                let stalled = stalled.clone();
                connections.spawn(async move {
                    let _held = (place, own);
                    tokio::select! {
                        biased;
                        ended = connection => {
                            if let Err(error) = ended {
                                tracing::debug!(%error, "connection ended");
                            }
                        }
                        why = pace.stalled(deadlines) => {
                            stalled.inc();
                            tracing::info!(%peer, why, "connection closed");
                        }
                    }
                });
            }
            Err(error) => {
                // Out of descriptors: others close, and then there are some again.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(settings.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::info!(connections = connections.len(), "requests in flight were cut off");
    }
    connections.shutdown().await;
}

/// A connection that counts for its address while it lives.
struct OfPeer {
    peers: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl OfPeer {
    fn take(peers: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, address: IpAddr, most: usize) -> Option<Self> {
        let mut open = peers.lock();
        let own = open.entry(address).or_default();
        if *own >= most {
            return None;
        }
        *own += 1;
        Some(Self { peers: Arc::clone(peers), address })
    }
}

impl Drop for OfPeer {
    fn drop(&mut self) {
        let mut open = self.peers.lock();
        if let Some(own) = open.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.address);
            }
        }
    }
}

fn serve(
    builder: &Builder<TokioExecutor>,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    pace: Pace,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static
{
    // Heads are small and answers are written in large pieces.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let service = tower::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(peer));
        let running = pace.request();
        let answering = router.clone().oneshot(request);
        async move { answering.await.map(|response| running.answer(response)) }
    });
    builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned()
}
