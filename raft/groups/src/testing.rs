//! A wire in memory that delays, loses and cuts, and a state machine that only remembers: for tests and simulation.

mod journal;

pub use journal::{Journal, Remembered, SPENT};

use parking_lot::Mutex;
use raft_types::{BoxFuture, Class, Message, Seed, Serve, Stream, Wire, WireError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Runs a simulation on this thread with paused time, such that it follows from `seed` step by step: what openraft draws its
/// election time-outs from, and the order in which tokio wakes those who wait for the same.
///
/// # Panics
/// When the operating system has no room for a runtime.
pub fn run_seeded<T>(seed: u64, simulation: impl Future<Output = T>) -> T {
    crate::runtime::seed_chance(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    #[cfg(tokio_unstable)] // from .cargo/config.toml; without it, another run of the seed wakes in another order
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime needs some memory only");
    runtime.block_on(simulation)
}

/// The network between some nodes, as tests want it.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Mutex<Inner>>,
    seed: Arc<dyn Seed>,
}

#[derive(Default)]
struct Inner {
    servers: BTreeMap<String, Arc<dyn Serve>>,
    /// How often each name came up: what an earlier process of that name still says is not heard.
    lives: BTreeMap<String, u64>,
    /// Messages from the first to the second are lost.
    cut: BTreeSet<(String, String)>,
    /// Of a thousand calls, so many are lost, and so many arrive twice.
    trouble: (u64, u64),
    streams: Vec<(String, String, CancellationToken)>,
    delay_max: Duration,
}

impl Hub {
    /// A network whose messages take up to `delay_max`.
    #[must_use]
    pub fn new(seed: Arc<dyn Seed>, delay_max: Duration) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { delay_max, ..Inner::default() })), seed }
    }

    /// The wire of the next process of node `name`; the wire of the one before is dead.
    #[must_use]
    pub fn wire(&self, name: &str) -> Arc<dyn Wire> {
        let mut inner = self.inner.lock();
        let life = inner.lives.entry(name.to_owned()).or_default();
        *life += 1;
        Arc::new(HubWire { hub: self.clone(), name: name.to_owned(), life: *life })
    }

    /// From now on `serve` answers for `name`.
    pub fn up(&self, name: &str, serve: Arc<dyn Serve>) {
        self.inner.lock().servers.insert(name.to_owned(), serve);
    }

    /// `name` answers no more, and all its streams break.
    pub fn down(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.servers.remove(name);
        *inner.lives.entry(name.to_owned()).or_default() += 1;
        inner.streams.retain(|(from, to, broken)| {
            let concerned = from == name || to == name;
            if concerned {
                broken.cancel();
            }
            !concerned
        });
    }

    /// Messages from `from` to `to` are lost, and streams between them break.
    pub fn cut(&self, from: &str, to: &str) {
        let mut inner = self.inner.lock();
        inner.cut.insert((from.to_owned(), to.to_owned()));
        inner.streams.retain(|(a, b, broken)| {
            let concerned = (a == from && b == to) || (a == to && b == from);
            if concerned {
                broken.cancel();
            }
            !concerned
        });
    }

    /// Of a thousand calls, `lost` are lost on the way there or back, and `twice` of the urgent ones arrive twice.
    pub fn trouble(&self, lost: u64, twice: u64) {
        self.inner.lock().trouble = (lost, twice);
    }

    /// Every message arrives again, once.
    pub fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.cut.clear();
        inner.trouble = (0, 0);
    }

    /// Whether the chance that `of` picks of the present trouble strikes now.
    fn strikes(&self, of: impl FnOnce((u64, u64)) -> u64) -> bool {
        let per_mille = of(self.inner.lock().trouble);
        per_mille > 0 && self.seed.next() % 1000 < per_mille
    }

    fn pause(&self) -> Duration {
        let max = u64::try_from(self.inner.lock().delay_max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.seed.next() % (max + 1))
    }

    /// The server of `to`, if a message from `from` arrives there now.
    fn reach(&self, (from, life): (&str, u64), to: &str) -> Result<Arc<dyn Serve>, WireError> {
        if self.strikes(|(lost, _)| lost) {
            return Err(lost(to));
        }
        let inner = self.inner.lock();
        if inner.lives.get(from) != Some(&life) {
            return Err(lost(to)); // the dead say nothing
        }
        if inner.cut.contains(&(from.to_owned(), to.to_owned())) {
            return Err(lost(to));
        }
        inner.servers.get(to).cloned().ok_or_else(|| lost(to))
    }
}

/// The term of a vote as [`raft_lanes::Lane::state`] answers it.
#[must_use]
pub fn term_of_vote(vote: &[u8]) -> Option<u64> {
    crate::types::decode::<crate::types::VoteRecord>("vote", vote).ok().map(|vote| vote.term)
}

fn lost(peer: &str) -> WireError {
    WireError::Unreachable { peer: peer.to_owned(), why: "the link is cut".into() }
}

struct HubWire {
    hub: Hub,
    name: String,
    life: u64,
}

impl Wire for HubWire {
    fn call(&self, peer: &str, class: Class, request: Message) -> BoxFuture<'_, Result<Message, WireError>> {
        let peer = peer.to_owned();
        Box::pin(async move {
            tokio::time::sleep(self.hub.pause()).await;
            let serve = self.hub.reach((&self.name, self.life), &peer)?;
            let life = self.hub.inner.lock().lives.get(&peer).copied().unwrap_or_default();
            if class == Class::Urgent && self.hub.strikes(|(_, twice)| twice) {
                let (again, pause) = (Arc::clone(&serve).call(self.name.clone(), request.clone()), self.hub.pause());
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    drop(again.await);
                });
            }
            // A served call goes on when the caller gives up.
            let served = tokio::spawn(serve.call(self.name.clone(), request)).await;
            tokio::time::sleep(self.hub.pause()).await;
            self.hub.reach((&peer, life), &self.name)?;
            match served {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refusal)) => Err(WireError::Refused { peer, refusal }),
                Err(_) => Err(lost(&peer)),
            }
        })
    }

    fn open(&self, peer: &str, _class: Class, first: Message) -> BoxFuture<'_, Result<Box<dyn Stream>, WireError>> {
        let peer = peer.to_owned();
        Box::pin(async move {
            tokio::time::sleep(self.hub.pause()).await;
            let serve = self.hub.reach((&self.name, self.life), &peer)?;
            let broken = CancellationToken::new();
            self.hub.inner.lock().streams.push((self.name.clone(), peer.clone(), broken.clone()));
            let ((to_peer, at_peer), (to_us, at_us)) = (mpsc::channel(64), mpsc::channel(64));
            let ours = HubStream::new(&self.hub, &peer, to_peer, at_us, broken.clone());
            let theirs = HubStream::new(&self.hub, &self.name, to_us, at_peer, broken.clone());
            let serving = serve.stream(self.name.clone(), first, Box::new(theirs));
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = broken.cancelled() => {}
                    () = serving => {}
                }
            });
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

struct HubStream {
    hub: Hub,
    peer: String,
    send: Option<mpsc::Sender<(Instant, Message)>>,
    receive: Option<mpsc::Receiver<(Instant, Message)>>,
    broken: CancellationToken,
}

impl HubStream {
    fn new(
        hub: &Hub,
        peer: &str,
        send: mpsc::Sender<(Instant, Message)>,
        receive: mpsc::Receiver<(Instant, Message)>,
        broken: CancellationToken,
    ) -> Self {
        Self { hub: hub.clone(), peer: peer.to_owned(), send: Some(send), receive: Some(receive), broken }
    }
}

impl Stream for HubStream {
    fn send(&mut self, message: Message) -> BoxFuture<'_, Result<(), WireError>> {
        Box::pin(async move {
            let due = Instant::now() + self.hub.pause();
            let send = self.send.as_ref().ok_or_else(|| lost(&self.peer))?;
            tokio::select! {
                biased;
                () = self.broken.cancelled() => Err(lost(&self.peer)),
                sent = send.send((due, message)) => sent.map_err(|_| lost(&self.peer)),
            }
        })
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<Option<Message>, WireError>> {
        Box::pin(async move {
            let receive = self.receive.as_mut().ok_or_else(|| lost(&self.peer))?;
            let arrive = async {
                let (due, message) = receive.recv().await?;
                tokio::time::sleep_until(due).await;
                Some(message)
            };
            tokio::select! {
                biased;
                () = self.broken.cancelled() => Err(lost(&self.peer)),
                message = arrive => Ok(message),
            }
        })
    }

    fn split(self: Box<Self>) -> (Box<dyn Stream>, Box<dyn Stream>) {
        let Self { hub, peer, send, receive, broken } = *self;
        let sending = Self { hub: hub.clone(), peer: peer.clone(), send, receive: None, broken: broken.clone() };
        (Box::new(sending), Box::new(Self { hub, peer, send: None, receive, broken }))
    }
}
