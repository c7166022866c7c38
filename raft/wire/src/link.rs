//! One established connection: its calls, its streams, its reader and its writer.
//!
//! ```text
//!   caller ─call/open─► table ─► outbox ─► writer ═══ TCP ═══► reader ─► Serve::call / Serve::stream (owned tasks)
//!   caller ◄─ answer ── table ◄───────── reader ◄═══ TCP ═══ writer ◄─ outbox ◄─ answers, data, credit
//! ```
//!
//! Invariants
//! - Only the dialling end opens calls and streams, so that ids never meet.
//! - When a connection ends, every call and stream on it is told; nothing is queued on it any more.
//! - A call that is given up leaves no trace: its entry goes, and the serving end drops its future.

use crate::{
    frame::{self, Frame, FrameError, Kind, Limits, Source},
    hello::{Greeting, Hello, check},
    outbox::Outbox,
    peer::Peer,
    stream::{Core, WireStream},
    tcp::Shared,
};
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use raft_types::{BytePermit, Class, Message, Refusal, Serve, Versioned, WireError};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Refusals that the wire itself gives; codes of served methods lie below.
pub mod code {
    /// The peer serves as many calls or streams of this connection as it may.
    pub const BUSY: u16 = 0xff01;
    /// Head or bodies are larger than a frame may be.
    pub const TOO_LARGE: u16 = 0xff02;
    /// The peer does not take part with this node; the connection is closed.
    pub const WRONG_PEER: u16 = 0xff03;
}

/// Calls and streams served at one time for one connection: 64 groups with room for many callers each.
const SERVED_MAX: usize = 4096;
/// How long streams may take to notice that their connection has ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// One connection, as callers and streams hold it.
pub(crate) struct Link {
    shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    class: Class,
    remote: Mutex<Hello>,
    outbox: Outbox,
    table: Mutex<Table>,
    /// The other end was told that the two do not belong together; its next frame ends the connection.
    estranged: AtomicBool,
    ended: CancellationToken,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    calls: HashMap<u64, oneshot::Sender<Result<Frame, WireError>>>,
    streams: HashMap<u64, Arc<Core>>,
    /// Calls served here.
    served: HashMap<u64, AbortHandle>,
    ended: Option<WireError>,
}

/// A call under way; dropped before its answer, it is given up.
struct Pending<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let given_up = self.link.table.lock().calls.remove(&self.id).is_some();
        if given_up {
            self.link.push(Kind::Cancel, self.id, Message::default(), None);
        }
    }
}

impl Link {
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<Peer>, class: Class, remote: Hello) -> Arc<Link> {
        let ended = shared.stopping.child_token();
        let (remote, table) = (Mutex::new(remote), Mutex::new(Table::default()));
        let estranged = AtomicBool::new(false);
        Arc::new(Link { shared, peer, class, remote, outbox: Outbox::default(), table, estranged, ended })
    }

    pub(crate) fn unreachable(&self, why: &str) -> WireError {
        WireError::Unreachable { peer: self.peer.name.clone(), why: why.to_owned() }
    }

    fn refused(&self, code: u16, reason: String) -> WireError {
        WireError::Refused { peer: self.peer.name.clone(), refusal: Refusal { code, reason } }
    }

    pub(crate) fn check_size(&self, message: &Message) -> Result<(), WireError> {
        Limits::FULL.check(message).map_err(|reason| self.refused(code::TOO_LARGE, reason))
    }

    /// Room in the peer's send budget, or the end of the connection.
    pub(crate) async fn admit(&self, bytes: u64) -> Result<BytePermit, WireError> {
        let budget = &self.peer.budgets[frame::class_index(self.class)];
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(self.why_ended()),
            permit = budget.acquire(bytes) => Ok(permit),
        }
    }

    pub(crate) fn push(&self, kind: Kind, id: u64, message: Message, permit: Option<BytePermit>) {
        self.outbox.push(Frame { kind, class: self.class, id, message }, permit);
    }

    pub(crate) fn push_credit(&self, id: u64, bytes: u64) {
        let head = Bytes::copy_from_slice(&bytes.to_le_bytes());
        self.push(Kind::Credit, id, Message { head, ..Message::default() }, None);
    }

    fn push_refusal(&self, id: u64, refusal: &Refusal) {
        self.push(Kind::Refusal, id, refusal_message(refusal), None);
    }

    pub(crate) fn forget_stream(&self, id: u64) {
        self.table.lock().streams.remove(&id);
    }

    fn why_ended(&self) -> WireError {
        self.table.lock().ended.clone().unwrap_or_else(|| self.unreachable("the connection is closing"))
    }

    /// Whether the connection can still be used.
    pub(crate) fn is_up(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Closes the connection and tells everyone on it.
    pub(crate) fn end(&self, error: WireError) {
        let mut table = self.table.lock();
        let error = table.ended.get_or_insert(error).clone();
        let (calls, streams) = (std::mem::take(&mut table.calls), std::mem::take(&mut table.streams));
        drop(table);
        self.outbox.close();
        self.ended.cancel();
        for (_, answer) in calls {
            let _ = answer.send(Err(error.clone())); // nobody waits: then it was given up
        }
        for (_, stream) in streams {
            stream.fail(error.clone());
        }
    }

    /// Holds a changed own hello against what the other end said.
    pub(crate) fn recheck(&self, ours: &Hello) {
        let theirs = self.remote.lock().clone();
        if let Err(why) = check(ours, &theirs, None) {
            self.end(WireError::WrongPeer { peer: self.peer.name.clone(), why });
        }
    }

    /// A unary call. The deadline is the last resort: callers bound their calls themselves.
    pub(crate) async fn call(&self, kind: Kind, request: Message) -> Result<Frame, WireError> {
        self.check_size(&request)?;
        let permit = self.admit(frame::cost(&request)).await?;
        let (answer_to, answer) = oneshot::channel();
        let id = {
            let mut table = self.table.lock();
            if let Some(error) = &table.ended {
                return Err(error.clone());
            }
            table.last_id += 1;
            let id = table.last_id;
            table.calls.insert(id, answer_to);
            id
        };
        let pending = Pending { link: self, id };
        self.push(kind, id, request, Some(permit));
        let deadline = self.shared.timers.call_deadline;
        let answer = match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.why_ended()),
            Err(_) => Err(self.unreachable(&format!("no answer in {} ms", deadline.as_millis()))),
        };
        drop(pending);
        answer
    }

    pub(crate) async fn open(self: &Arc<Self>, first: Message) -> Result<WireStream, WireError> {
        self.check_size(&first)?;
        let permit = self.admit(frame::cost(&first)).await?;
        let core = {
            let mut table = self.table.lock();
            if let Some(error) = &table.ended {
                return Err(error.clone());
            }
            table.last_id += 1;
            let core = Core::new(table.last_id, self.shared.stream_window_bytes);
            let id = table.last_id;
            table.streams.insert(id, Arc::clone(&core));
            self.push(Kind::Open, id, first, Some(permit));
            core
        };
        Ok(WireStream::new(Arc::clone(self), core))
    }

    /// Asks the other end who it is now.
    pub(crate) async fn ask_hello(&self) -> Result<Hello, WireError> {
        let wrong = |why| WireError::WrongPeer { peer: self.peer.name.clone(), why };
        let ours = self.shared.hello();
        let greeting = Greeting { hello: ours.clone(), to: self.peer.name.clone() };
        let asked = self.call(Kind::Hello, Message { head: greeting.encode(), ..Message::default() }).await;
        let answer = match asked {
            Err(WireError::Refused { refusal, .. }) if refusal.code == code::WRONG_PEER => {
                let error = wrong(refusal.reason);
                self.end(error.clone());
                Err(error)
            }
            other => other,
        }?;
        let theirs = Greeting::decode(&answer.message.head).map_err(|error| wrong(error.to_string()))?.hello;
        if let Err(why) = check(&ours, &theirs, self.peer.known.lock().as_ref()) {
            let error = wrong(why);
            self.end(error.clone());
            return Err(error);
        }
        *self.remote.lock() = theirs.clone();
        *self.peer.known.lock() = Some(theirs.clone());
        Ok(theirs)
    }

    /// Carries the connection until it ends; answers why. Everything that ran for it has ended then.
    pub(crate) async fn run<R, W>(
        self: &Arc<Self>,
        mut source: Source<R>,
        mut writer: W,
        serve: Option<Arc<dyn Serve>>,
    ) -> String
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let timers = &self.shared.timers;
        let beat = Frame { kind: Kind::Beat, class: self.class, id: 0, message: Message::default() };
        let sent = |bytes| self.shared.metrics.sent(self.class, bytes);
        let mut tasks = JoinSet::new();
        // Not biased: whoever has much to do must not starve the other.
        let why = tokio::select! {
            () = self.ended.cancelled() => "closed here".to_owned(),
            why = self.read(&mut source, serve.as_ref(), &mut tasks) => why,
            end = self.outbox.write_all(&mut writer, beat, timers.beat, timers.write_stall_max, sent) => match end {
                Ok(()) => "closed here".to_owned(),
                Err(error) => format!("writing: {error}"),
            },
        };
        self.end(self.unreachable(&why));
        let served = std::mem::take(&mut self.table.lock().served);
        served.into_values().for_each(|call| call.abort());
        let streams_end = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, streams_end).await.is_err() {
            tasks.shutdown().await;
        }
        why
    }

    async fn read<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        source: &mut Source<R>,
        serve: Option<&Arc<dyn Serve>>,
        tasks: &mut JoinSet<()>,
    ) -> String {
        loop {
            let frame = match source.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return "the other end closed the connection".to_owned(),
                Err(error) => {
                    if !matches!(error, FrameError::Io(_) | FrameError::Truncated | FrameError::Silent(_)) {
                        self.shared.metrics.damaged();
                    }
                    return error.to_string();
                }
            };
            while tasks.try_join_next().is_some() {} // a panic of a handler was reported by its thread
            if let Err(why) = self.handle(frame, serve, tasks) {
                return why;
            }
        }
    }

    /// What one frame means. An error closes the connection.
    fn handle(
        self: &Arc<Self>,
        frame: Frame,
        serve: Option<&Arc<dyn Serve>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), String> {
        let Frame { kind, id, message, .. } = frame;
        if self.estranged.load(Ordering::Relaxed) {
            return Err("it does not belong to this node's cluster".to_owned());
        }
        let stream = |link: &Link| link.table.lock().streams.get(&id).cloned();
        match kind {
            Kind::Beat => {}
            Kind::Answer | Kind::HelloAnswer => {
                let waiting = self.table.lock().calls.remove(&id);
                if let Some(answer) = waiting {
                    let _ = answer.send(Ok(Frame { message, ..frame })); // given up meanwhile
                }
            }
            Kind::Refusal => {
                let refusal = read_refusal(&message);
                let waiting = self.table.lock().calls.remove(&id);
                let stream = stream(self);
                let error = self.refused(refusal.code, refusal.reason);
                if let Some(stream) = stream {
                    stream.fail(error);
                } else if let Some(answer) = waiting {
                    let _ = answer.send(Err(error));
                }
            }
            Kind::Data => {
                // A stream that is gone was dropped here while this was under way.
                if stream(self).is_some_and(|stream| !stream.data(message)) {
                    return Err("it sent more than its credit on a stream".to_owned());
                }
            }
            Kind::Credit => {
                let bytes = message.head.as_ref().try_into().map(u64::from_le_bytes);
                let bytes = bytes.map_err(|_| "malformed credit".to_owned())?;
                stream(self).iter().for_each(|stream| stream.credit(bytes));
            }
            Kind::Finish => stream(self).iter().for_each(|stream| stream.finish()),
            Kind::Stop => stream(self).iter().for_each(|stream| stream.stop()),
            Kind::Hello => return self.greet_again(id, &message),
            Kind::Cancel => {
                if let Some(call) = self.table.lock().served.remove(&id) {
                    call.abort();
                }
            }
            Kind::Call | Kind::Open => {
                let serve = serve.ok_or_else(|| "it calls over a connection that this node dialled".to_owned())?;
                if tasks.len() >= SERVED_MAX {
                    let reason = format!("{SERVED_MAX} calls and streams are being served");
                    self.push_refusal(id, &Refusal { code: code::BUSY, reason });
                } else if kind == Kind::Call {
                    self.serve_call(id, message, serve, tasks);
                } else {
                    self.serve_stream(id, message, serve, tasks)?;
                }
            }
        }
        Ok(())
    }

    fn serve_call(self: &Arc<Self>, id: u64, request: Message, serve: &Arc<dyn Serve>, tasks: &mut JoinSet<()>) {
        let served = Arc::clone(serve).call(self.peer.name.clone(), request);
        let link = Arc::clone(self);
        let mut table = self.table.lock(); // held while spawning: the task removes what is inserted here
        let task = tasks.spawn(async move {
            let answer = served.await.and_then(|answer| match Limits::FULL.check(&answer) {
                Ok(()) => Ok(answer),
                Err(reason) => Err(Refusal { code: code::TOO_LARGE, reason }),
            });
            let (kind, message) = match answer {
                Ok(answer) => (Kind::Answer, answer),
                Err(refusal) => (Kind::Refusal, refusal_message(&refusal)),
            };
            if let Ok(permit) = link.admit(frame::cost(&message)).await {
                link.push(kind, id, message, Some(permit));
            }
            link.table.lock().served.remove(&id);
        });
        table.served.insert(id, task);
    }

    fn serve_stream(
        self: &Arc<Self>,
        id: u64,
        first: Message,
        serve: &Arc<dyn Serve>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), String> {
        let core = Core::new(id, self.shared.stream_window_bytes);
        if self.table.lock().streams.insert(id, Arc::clone(&core)).is_some() {
            return Err("it opened a stream twice".to_owned());
        }
        let stream = WireStream::new(Arc::clone(self), core);
        tasks.spawn(Arc::clone(serve).stream(self.peer.name.clone(), first, Box::new(stream)));
        Ok(())
    }

    /// The other end says who it is now and asks the same.
    fn greet_again(&self, id: u64, message: &Message) -> Result<(), String> {
        let theirs = Greeting::decode(&message.head).map_err(|error| error.to_string())?.hello;
        let ours = self.shared.hello();
        let checked = check(&ours, &theirs, self.peer.known.lock().as_ref());
        if let Err(reason) = checked {
            self.estranged.store(true, Ordering::Relaxed);
            self.push_refusal(id, &Refusal { code: code::WRONG_PEER, reason });
            return Ok(());
        }
        *self.remote.lock() = theirs.clone();
        *self.peer.known.lock() = Some(theirs);
        let head = Greeting { hello: ours, to: self.peer.name.clone() }.encode();
        self.push(Kind::HelloAnswer, id, Message { head, ..Message::default() }, None);
        Ok(())
    }
}

/// The longest reason that is sent, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// ```text
///   0  2  code    2  …  reason, UTF-8
/// ```
pub(crate) fn refusal_message(refusal: &Refusal) -> Message {
    let mut end = refusal.reason.len().min(REASON_BYTES_MAX);
    while !refusal.reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut head = BytesMut::with_capacity(2 + end);
    head.put_u16_le(refusal.code);
    head.put_slice(&refusal.reason.as_bytes()[..end]);
    Message { head: head.freeze(), ..Message::default() }
}

pub(crate) fn read_refusal(message: &Message) -> Refusal {
    match message.head.split_first_chunk::<2>() {
        None => Refusal { code: 0, reason: String::new() },
        Some((code, reason)) => {
            let reason = String::from_utf8_lossy(&reason[..reason.len().min(REASON_BYTES_MAX)]).into_owned();
            Refusal { code: u16::from_le_bytes(*code), reason }
        }
    }
}
