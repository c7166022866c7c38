//! The wire over TCP: one listener, and one connection for each peer and class that this node calls.
//!
//! ```text
//!   node a                                   node b
//!   call(b, Urgent) ══ TCP ═════════════════► serve      votes, heartbeats
//!   call(b, Bulk)   ══ TCP ═════════════════► serve      entries, proposals: 4 MiB here delays nothing above
//!   call(b, Read)   ══ TCP ═════════════════► serve      blocks
//!   serve           ◄═════════════════ TCP ══ call(a, …)  and three more the other way
//! ```
//!
//! Every task belongs to the wire and has ended when [`TcpWire::shutdown`] returns.

use crate::{
    frame::{Frame, FrameError, Kind, class_index},
    hello::{Greeting, Hello, check},
    link::{Link, code, refusal_message},
    metrics::Metrics,
    outbox::write_frame,
    peer::{self, Halves, Peer, State, established, halves},
};
use parking_lot::{Mutex, RwLock};
use raft_types::{BoxFuture, ByteBudget, Class, Message, Refusal, Serve, Stream, Versioned, Wire, WireError};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections that others may hold to this node at one time: 3 classes × 300 nodes.
const ACCEPTED_MAX: usize = 1024;
/// Names that this node remembers; more are refused, so that made-up names take no memory.
const PEERS_MAX: usize = 1024;

/// How a wire is set up.
#[derive(Debug, Clone)]
pub struct WireOptions {
    /// Where to listen, `host:port`; port 0 takes any free one.
    pub listen: String,
    /// Peers by name; `host:port`, looked up at every connect. Others, and other addresses of these, are learnt by
    /// [`TcpWire::set_peers`].
    pub peers: BTreeMap<String, String>,
    /// Memory for received frames that are not consumed yet, of the whole node.
    pub receive_budget_bytes: u64,
    /// Memory for frames that wait to be sent, for each peer.
    pub send_budget_bytes: u64,
    /// What may be under way on one stream.
    pub stream_window_bytes: u64,
    /// How long things may take.
    pub timers: WireTimers,
    /// Where to register `raft_wire_*`.
    pub registry: Option<prometheus::Registry>,
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct WireTimers {
    /// Looking up an address, connecting and greeting.
    pub connect: Duration,
    /// The other end's greeting.
    pub handshake: Duration,
    /// Longest pause between two attempts to connect.
    pub back_off_max: Duration,
    /// Something is said at least this often on each connection.
    pub beat: Duration,
    /// A connection on which nothing is heard for so long is given up; several beats.
    pub silence_max: Duration,
    /// A connection that takes no more bytes for so long is given up; more than `memory_wait`.
    pub write_stall_max: Duration,
    /// How long a received frame may wait for memory.
    pub memory_wait: Duration,
    /// The last resort for a call whose caller set no deadline.
    pub call_deadline: Duration,
}

impl Default for WireTimers {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            handshake: Duration::from_secs(2),
            back_off_max: Duration::from_secs(1),
            beat: Duration::from_millis(500),
            silence_max: Duration::from_secs(5),
            write_stall_max: Duration::from_secs(15),
            memory_wait: Duration::from_secs(10),
            call_deadline: Duration::from_secs(60),
        }
    }
}

impl WireOptions {
    /// The usual budgets and times.
    #[must_use]
    pub fn new(listen: impl Into<String>, peers: BTreeMap<String, String>) -> Self {
        Self {
            listen: listen.into(),
            peers,
            receive_budget_bytes: 256 << 20,
            send_budget_bytes: 64 << 20,
            stream_window_bytes: 4 << 20, // 64 streams × 4 MiB = the receive budget
            timers: WireTimers::default(),
            registry: None,
        }
    }
}

/// Where peers are. Both sources are tried in turn: what was learnt is newer, until a whole cluster moves and is told its new
/// addresses by its operator.
struct Addresses {
    /// From the operator, for the life of the process.
    given: BTreeMap<String, String>,
    /// From the cluster.
    learnt: BTreeMap<String, String>,
}

impl Addresses {
    fn of(&self, peer: &str) -> Vec<&String> {
        let mut known: Vec<&String> = self.learnt.get(peer).into_iter().chain(self.given.get(peer)).collect();
        known.dedup();
        known
    }
}

/// What every connection of this node shares.
pub(crate) struct Shared {
    hello: RwLock<Hello>,
    addresses: RwLock<Addresses>,
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    links: Mutex<Vec<Weak<Link>>>,
    send_budget_bytes: u64,
    pub(crate) receive_budget: ByteBudget,
    pub(crate) stream_window_bytes: u64,
    pub(crate) timers: WireTimers,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
    pub(crate) stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn hello(&self) -> Hello {
        self.hello.read().clone()
    }

    /// Where to look for `peer` at the attempt with this number.
    pub(crate) fn address_of(&self, peer: &str, attempt: u32) -> Option<String> {
        let addresses = self.addresses.read();
        let known = addresses.of(peer);
        let turn = (attempt as usize).checked_rem(known.len())?;
        known.get(turn).map(|address| (*address).clone())
    }

    pub(crate) fn knows(&self, peer: &str) -> bool {
        !self.addresses.read().of(peer).is_empty()
    }

    /// Remembers the link, so that a changed hello reaches it.
    pub(crate) fn links_opened(&self, link: &Arc<Link>) {
        let mut links = self.links.lock();
        links.retain(|link| link.upgrade().is_some_and(|link| link.is_up()));
        links.push(Arc::downgrade(link));
        drop(links);
        link.recheck(&self.hello()); // it may have changed during the handshake
    }

    fn peer(&self, name: &str) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(name) {
            return Some(Arc::clone(peer));
        }
        if peers.len() >= PEERS_MAX {
            return None;
        }
        let peer = Peer::new(name.to_owned(), self.send_budget_bytes);
        peers.insert(name.to_owned(), Arc::clone(&peer));
        Some(peer)
    }
}

/// The network between nodes over TCP.
pub struct TcpWire {
    shared: Arc<Shared>,
    local_address: SocketAddr,
}

impl TcpWire {
    /// Listens, and connects to peers when they are first called.
    ///
    /// # Errors
    /// The address cannot be listened on, or the registry has such metrics already.
    pub async fn start(options: WireOptions, hello: Hello, serve: Arc<dyn Serve>) -> io::Result<Arc<TcpWire>> {
        let listener = TcpListener::bind(&options.listen).await?;
        let local_address = listener.local_addr()?;
        let metrics = Metrics::new(options.registry.as_ref()).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            hello: RwLock::new(hello),
            addresses: RwLock::new(Addresses { given: options.peers, learnt: BTreeMap::new() }),
            peers: Mutex::new(HashMap::new()),
            links: Mutex::new(Vec::new()),
            send_budget_bytes: options.send_budget_bytes,
            receive_budget: ByteBudget::new(options.receive_budget_bytes),
            stream_window_bytes: options.stream_window_bytes.max(1),
            timers: options.timers,
            metrics: Arc::new(metrics),
            started: Instant::now(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(listen(Arc::clone(&shared), listener, serve));
        Ok(Arc::new(TcpWire { shared, local_address }))
    }

    /// Presents this node differently from now on: it learnt its cluster, or has data now. Connections to nodes that do
    /// not fit any more are closed.
    pub fn set_hello(&self, hello: Hello) {
        *self.shared.hello.write() = hello.clone();
        let links: Vec<_> = self.shared.links.lock().iter().filter_map(Weak::upgrade).collect();
        links.iter().for_each(|link| link.recheck(&hello));
    }

    /// The address of a peer as its operator says it, new or changed; used at the next connect.
    pub fn set_peer(&self, name: &str, address: &str) {
        self.shared.addresses.write().given.insert(name.to_owned(), address.to_owned());
    }

    /// The members of the cluster and their addresses as the cluster knows them now; used at the next connect. One that
    /// was a member and is none any more is not called again, wherever it was first heard of.
    pub fn set_peers(&self, members: BTreeMap<String, String>) {
        let mut addresses = self.shared.addresses.write();
        let gone: Vec<String> = addresses.learnt.keys().filter(|name| !members.contains_key(*name)).cloned().collect();
        addresses.learnt = members;
        for name in &gone {
            addresses.given.remove(name);
        }
        drop(addresses);
        let mut peers = self.shared.peers.lock();
        for name in gone {
            if let Some(peer) = peers.remove(&name) {
                peer.gone.cancel();
            }
        }
    }

    /// Asks `peer` who it is now.
    ///
    /// # Errors
    /// It cannot be reached, or is not the node that was meant.
    pub async fn hello_of(&self, peer: &str) -> Result<Hello, WireError> {
        self.link(peer, Class::Urgent).await?.ask_hello().await
    }

    /// How long ago anything arrived from `peer`; none if never.
    #[must_use]
    pub fn last_contact(&self, peer: &str) -> Option<Duration> {
        let peer = self.shared.peers.lock().get(peer).cloned();
        peer.and_then(|peer| peer.last_contact(self.shared.started.elapsed()))
    }

    /// Where this node listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Bytes of received frames that are not consumed yet.
    #[must_use]
    pub fn receive_used_bytes(&self) -> u64 {
        self.shared.receive_budget.used()
    }

    /// Bytes of frames that wait to be sent to `peer`.
    #[must_use]
    pub fn send_used_bytes(&self, peer: &str) -> u64 {
        let peer = self.shared.peers.lock().get(peer).cloned();
        peer.map_or(0, |peer| peer.budgets.iter().map(ByteBudget::used).sum())
    }

    /// Closes all connections and waits until every task has ended.
    pub async fn shutdown(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// The connection to `peer`; waits only while it is first being made.
    async fn link(&self, name: &str, class: Class) -> Result<Arc<Link>, WireError> {
        let unreachable = |why: &str| WireError::Unreachable { peer: name.to_owned(), why: why.to_owned() };
        if self.shared.stopping.is_cancelled() {
            return Err(unreachable("this node is stopping"));
        }
        if !self.shared.knows(name) {
            return Err(unreachable("its address is not known"));
        }
        let peer = self.shared.peer(name).ok_or_else(|| unreachable("too many peers"))?;
        let mut state = self.dialer(&peer, class);
        loop {
            match &*state.borrow_and_update() {
                State::Up(link) if link.is_up() => return Ok(Arc::clone(link)),
                State::Up(_) | State::Connecting => {}
                State::Down(error) => return Err(error.clone()),
            }
            if state.changed().await.is_err() {
                return Err(unreachable("this node is stopping"));
            }
        }
    }

    fn dialer(&self, peer: &Arc<Peer>, class: Class) -> watch::Receiver<State> {
        let mut dialer = peer.dialers[class_index(class)].lock();
        if let Some(state) = &*dialer {
            return state.clone();
        }
        let (sender, receiver) = watch::channel(State::Connecting);
        self.shared.tasks.spawn(peer::dial(Arc::clone(&self.shared), Arc::clone(peer), class, sender));
        *dialer = Some(receiver.clone());
        receiver
    }
}

impl Drop for TcpWire {
    fn drop(&mut self) {
        self.shared.stopping.cancel(); // without shutdown the tasks still end, only nobody waits for them
    }
}

impl Wire for TcpWire {
    fn call(&self, peer: &str, class: Class, request: Message) -> BoxFuture<'_, Result<Message, WireError>> {
        let peer = peer.to_owned();
        Box::pin(async move { Ok(self.link(&peer, class).await?.call(Kind::Call, request).await?.message) })
    }

    fn open(&self, peer: &str, class: Class, first: Message) -> BoxFuture<'_, Result<Box<dyn Stream>, WireError>> {
        let peer = peer.to_owned();
        Box::pin(async move {
            let stream: Box<dyn Stream> = Box::new(self.link(&peer, class).await?.open(first).await?);
            Ok(stream)
        })
    }
}

async fn listen(shared: Arc<Shared>, listener: TcpListener, serve: Arc<dyn Serve>) {
    let places = Arc::new(Semaphore::new(ACCEPTED_MAX));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, or a connection that went away: neither is worth stopping for.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (task_shared, serve) = (Arc::clone(&shared), Arc::clone(&serve));
        shared.tasks.spawn(async move {
            accept(task_shared, stream, serve).await;
            drop(place);
        });
    }
}

async fn accept(shared: Arc<Shared>, stream: TcpStream, serve: Arc<dyn Serve>) {
    let from = stream.peer_addr();
    let mut halves = halves(&shared, stream, None);
    let greeted = tokio::time::timeout(shared.timers.handshake, greet(&shared, &mut halves));
    let greeted = tokio::select! {
        biased;
        () = shared.stopping.cancelled() => return,
        greeted = greeted => greeted,
    };
    let link = match greeted {
        Ok(Ok(link)) => link,
        Ok(Err(why)) => {
            shared.metrics.refused();
            tracing::warn!(?from, why, "connection refused");
            return;
        }
        Err(_) => {
            shared.metrics.refused();
            tracing::info!(?from, "connection without a greeting");
            return;
        }
    };
    shared.links_opened(&link);
    let why = link.run(halves.source, halves.writer, Some(serve)).await;
    tracing::debug!(peer = link.peer.name, why, "served connection ended");
}

/// The serving end's half of the handshake.
async fn greet(shared: &Arc<Shared>, halves: &mut Halves) -> Result<Arc<Link>, String> {
    let hello = match halves.source.next().await {
        Ok(Some(frame)) if frame.kind == Kind::Hello => frame,
        Ok(Some(_)) => return Err("it does not greet".to_owned()),
        Ok(None) => return Err("it said nothing".to_owned()),
        Err(error) => {
            if !matches!(error, FrameError::Io(_) | FrameError::Truncated) {
                shared.metrics.damaged();
            }
            return Err(error.to_string());
        }
    };
    let ours = shared.hello();
    let admitted = admit(shared, &ours, &hello);
    let (kind, message) = match &admitted {
        Ok((_, theirs)) => {
            let head = Greeting { hello: ours, to: theirs.name.clone() }.encode();
            (Kind::HelloAnswer, Message { head, ..Message::default() })
        }
        Err(reason) => (Kind::Refusal, refusal_message(&Refusal { code: code::WRONG_PEER, reason: reason.clone() })),
    };
    let answer = Frame { kind, class: hello.class, id: hello.id, message };
    let written = write_frame(&mut halves.writer, &answer, shared.timers.handshake).await;
    let (peer, theirs) = admitted?;
    written.map_err(|error| error.to_string())?;
    *peer.known.lock() = Some(theirs.clone());
    established(shared, halves, &peer, hello.class);
    Ok(Link::new(Arc::clone(shared), peer, hello.class, theirs))
}

/// Whether the greeting node may connect.
fn admit(shared: &Shared, ours: &Hello, frame: &Frame) -> Result<(Arc<Peer>, Hello), String> {
    let Greeting { hello: theirs, to } = Greeting::decode(&frame.message.head).map_err(|error| error.to_string())?;
    if to != ours.name {
        return Err(format!("this is {}, not {to}", ours.name));
    }
    // While nobody knows a cluster, a node outside the list must not take part in forming one.
    if ours.blank && theirs.blank && !shared.knows(&theirs.name) {
        return Err(format!("{} is not in the peer list of {}", theirs.name, ours.name));
    }
    let peer = shared.peer(&theirs.name).ok_or("too many peers")?;
    let before = peer.known.lock().clone();
    check(ours, &theirs, before.as_ref())?;
    Ok((peer, theirs))
}
