//! One peer: what is known of it, and for each class the task that keeps a connection to it.
//!
//! ```text
//!            ┌──────── failed ◄────────┐
//!            ▼                         │
//!          Down ── back-off ≤ 1 s ── connecting ──► Up ── broke ──► Connecting (one attempt at once)
//! ```
//!
//! Callers wait only for the first attempt, and for the one after a connection broke; while a peer is Down they are told
//! at once, so that nothing queues up for a dead peer. The address is looked up at every attempt, for ever.

use crate::{
    frame::{Frame, FrameError, Kind, Limits, Source},
    hello::{Greeting, Hello, check},
    link::{Link, read_refusal},
    outbox::write_frame,
    tcp::Shared,
};
use parking_lot::Mutex;
use raft_types::{ByteBudget, Class, Message, Versioned, WireError};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::BufReader,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What all connections with one peer share.
pub(crate) struct Peer {
    pub(crate) name: String,
    /// Send budgets by class: a full bulk budget delays no vote.
    pub(crate) budgets: [ByteBudget; 3],
    /// Its newest hello.
    pub(crate) known: Mutex<Option<Hello>>,
    /// Milliseconds since the wire started, plus one; 0 is never.
    contact: AtomicU64,
    pub(crate) dialers: [Mutex<Option<watch::Receiver<State>>>; 3],
    /// It is no member any more: nobody dials it.
    pub(crate) gone: CancellationToken,
}

/// What a dialler's connection is doing.
#[derive(Clone)]
pub(crate) enum State {
    Connecting,
    Up(Arc<Link>),
    Down(WireError),
}

impl Peer {
    pub(crate) fn new(name: String, send_budget_bytes: u64) -> Arc<Peer> {
        // Votes and heartbeats are small: an eighth is plenty; bodies are appended and read in equal shares.
        let shares = [send_budget_bytes / 8, send_budget_bytes / 2, send_budget_bytes * 3 / 8];
        Arc::new(Peer {
            name,
            budgets: shares.map(ByteBudget::new),
            known: Mutex::new(None),
            contact: AtomicU64::new(0),
            dialers: [const { Mutex::new(None) }; 3],
            gone: CancellationToken::new(),
        })
    }

    pub(crate) fn heard(&self, since_start: Duration) {
        let now = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.contact.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn last_contact(&self, since_start: Duration) -> Option<Duration> {
        let heard = self.contact.load(Ordering::Relaxed).checked_sub(1)?;
        Some(since_start.saturating_sub(Duration::from_millis(heard)))
    }
}

/// The two halves of a connection after its handshake.
pub(crate) struct Halves {
    pub(crate) source: Source<BufReader<OwnedReadHalf>>,
    pub(crate) writer: OwnedWriteHalf,
}

/// Reads from `stream` with the limits of a handshake; [`established`] lifts them.
pub(crate) fn halves(shared: &Shared, stream: TcpStream, class: Option<Class>) -> Halves {
    let _ = stream.set_nodelay(true); // slower, not wrong, without
    let (reader, writer) = stream.into_split();
    let metrics = Arc::clone(&shared.metrics);
    let source = Source {
        reader: BufReader::with_capacity(64 << 10, reader),
        limits: Limits::HANDSHAKE,
        budget: shared.receive_budget.clone(),
        memory_wait: shared.timers.memory_wait,
        silence_max: shared.timers.handshake,
        heard: Box::new(move |bytes| metrics.received(class, bytes)),
    };
    Halves { source, writer }
}

/// From now on frames are full-sized, and each arrival is a contact with `peer`.
pub(crate) fn established(shared: &Arc<Shared>, halves: &mut Halves, peer: &Arc<Peer>, class: Class) {
    let (heard_by, contact) = (Arc::clone(shared), Arc::clone(peer));
    peer.heard(shared.started.elapsed());
    halves.source.limits = Limits::FULL;
    halves.source.silence_max = shared.timers.silence_max;
    halves.source.heard = Box::new(move |bytes| {
        heard_by.metrics.received(Some(class), bytes);
        contact.heard(heard_by.started.elapsed());
    });
}

/// Keeps one connection to `peer` until the wire stops.
pub(crate) async fn dial(shared: Arc<Shared>, peer: Arc<Peer>, class: Class, state: watch::Sender<State>) {
    let why = tokio::select! {
        biased;
        () = peer.gone.cancelled() => "it is no member of the cluster any more",
        () = keep(&shared, &peer, class, &state) => "this node is stopping",
    };
    if let State::Up(link) = &*state.borrow() {
        link.end(unreachable(&peer, why.to_owned()));
    }
    // Also lets go of the last connection, which holds `shared`, which holds the peer, which holds this state.
    state.send_replace(State::Down(unreachable(&peer, why.to_owned())));
}

async fn keep(shared: &Arc<Shared>, peer: &Arc<Peer>, class: Class, state: &watch::Sender<State>) {
    let mut failures = 0_u32;
    loop {
        let attempt = tokio::time::timeout(shared.timers.connect, connect(shared, peer, class, failures));
        let attempt = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            attempt = attempt => attempt,
        };
        let attempt = attempt.unwrap_or_else(|_| Err(unreachable(peer, "no connection in time".to_owned())));
        match attempt {
            Ok((link, halves)) => {
                tracing::info!(peer = peer.name, ?class, "connected");
                let since = Instant::now();
                shared.links_opened(&link);
                state.send_replace(State::Up(Arc::clone(&link)));
                let why = link.run(halves.source, halves.writer, None).await;
                if shared.stopping.is_cancelled() {
                    return;
                }
                tracing::info!(peer = peer.name, ?class, why, "connection ended");
                shared.metrics.broke();
                if since.elapsed() > shared.timers.back_off_max {
                    failures = 0;
                    state.send_replace(State::Connecting);
                    continue;
                }
                failures += 1; // accepted and closed at once is no success
                state.send_replace(State::Down(unreachable(peer, why)));
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(peer = peer.name, ?class, %error, "cannot connect; trying on");
                }
                failures = failures.saturating_add(1);
                state.send_replace(State::Down(error));
            }
        }
        let ceiling = shared.timers.back_off_max.min(Duration::from_millis(20) * 2_u32.pow(failures.min(10)));
        let wait = ceiling.mul_f64(rand::random_range(0.5..=1.0)); // jitter: not all peers at the same moment
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn unreachable(peer: &Peer, why: String) -> WireError {
    WireError::Unreachable { peer: peer.name.clone(), why }
}

async fn connect(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    class: Class,
    failures: u32,
) -> Result<(Arc<Link>, Halves), WireError> {
    let Some(address) = shared.address_of(&peer.name, failures) else {
        return Err(unreachable(peer, "its address is not known".to_owned()));
    };
    let stream = TcpStream::connect(&address).await;
    let stream = stream.map_err(|error| unreachable(peer, format!("connecting to {address}: {error}")))?;
    let mut halves = halves(shared, stream, Some(class));
    let ours = shared.hello();
    let head = Greeting { hello: ours.clone(), to: peer.name.clone() }.encode();
    let hello = Frame { kind: Kind::Hello, class, id: 0, message: Message { head, ..Message::default() } };
    let written = write_frame(&mut halves.writer, &hello, shared.timers.handshake).await;
    written.map_err(|error| unreachable(peer, format!("greeting {address}: {error}")))?;
    let wrong = |why| WireError::WrongPeer { peer: peer.name.clone(), why };
    let answer = match halves.source.next().await {
        Ok(Some(answer)) => answer,
        Ok(None) => return Err(unreachable(peer, format!("{address} closed the connection"))),
        Err(error @ (FrameError::NotOurs | FrameError::Version(_))) => return Err(wrong(error.to_string())),
        Err(error) => return Err(unreachable(peer, format!("greeting {address}: {error}"))),
    };
    let theirs = match answer.kind {
        Kind::HelloAnswer => Greeting::decode(&answer.message.head).map_err(|error| wrong(error.to_string()))?.hello,
        Kind::Refusal => return Err(wrong(read_refusal(&answer.message).reason)),
        _ => return Err(wrong("it does not answer a greeting".to_owned())),
    };
    if theirs.name != peer.name {
        return Err(wrong(format!("{address} is {}", theirs.name)));
    }
    check(&ours, &theirs, peer.known.lock().as_ref()).map_err(wrong)?;
    *peer.known.lock() = Some(theirs.clone());
    established(shared, &mut halves, peer, class);
    Ok((Link::new(Arc::clone(shared), Arc::clone(peer), class, theirs), halves))
}
