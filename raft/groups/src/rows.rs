//! Snapshots: the rows of a group on their way to a replica that cannot catch up by log any more.
//!
//! ```text
//!   leader    StateMachine::export ─ pieces ─► stream of class Read ─► spool file ─► install: import, then purge the log
//!                                                                                     │
//!                                                                       mirror.rs pulls the bodies, outside of it
//! ```
//!
//! The catalogue *is* the snapshot: nothing is built or kept beside it. "The current snapshot" is a moment of it, and the
//! export that follows is of that moment or a later one; the receiver learns which (trap 12: bodies are not in it).
//!
//! | the receiver dies… | what its next start finds |
//! |---|---|
//! | while it spools | a file `incoming-…`, which the start removes |
//! | between import and purge | rows ahead of the log of an incomplete group: openraft purges the log up to them |
//! | after both, before the bodies are here | an incomplete group: the mirror goes on |

use crate::{
    node::Node,
    options::Blocking,
    rpc::{RowsAnswer, RowsCall, RowsPart, code, method, refusal},
    types::{MembershipRecord, StoredMembership, Types, Vote, VoteRecord, decode, encode, log_id},
};
use bytes::Bytes;
use openraft::{SnapshotMeta, alias::SnapshotMetaOf};
use raft_types::{
    Applied, Class, Disk, DiskFile, Exported, GroupId, LogPosition, Message, Refusal, StateMachine, Stream, Wire,
    WireError,
};
use std::{
    io::{self, IoSlice},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// Pieces that wait for the network while the export goes on.
const PIECES_AHEAD: usize = 4;
/// Before a replica is asked again for rows.
const REBUILD_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
/// What spool files are called.
const PREFIX: &str = "incoming-";
/// Rows of so many groups may come in at the same time: each takes room on the disk twice for a while.
pub(crate) const INCOMING_MAX: usize = 2;

/// The rows of a snapshot, from openraft's view.
pub(crate) enum Rows {
    /// In the state machine here: exported while they are sent.
    Here,
    /// Received from the leader.
    Spooled(Spool),
}

/// Received rows, in a file that goes with this value.
pub(crate) struct Spool {
    disk: Arc<dyn Disk>,
    name: String,
    file: Arc<dyn DiskFile>,
    pieces: Vec<(u64, usize)>,
    pub(crate) applied: Applied,
}

impl Spool {
    fn new(disk: Arc<dyn Disk>, group: GroupId, applied: Applied) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{PREFIX}{group}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = disk.create(&name)?;
        Ok(Self { disk, name, file, pieces: Vec::new(), applied })
    }

    fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        let at = self.pieces.last().map_or(0, |(at, length)| at + *length as u64);
        self.file.write_at(at, &[IoSlice::new(piece)])?;
        self.pieces.push((at, piece.len()));
        Ok(())
    }

    /// Puts the rows into `machine`. Blocking.
    pub(crate) fn import(&self, group: GroupId, machine: &dyn StateMachine) -> Result<(), String> {
        let mut pieces = self.pieces.iter();
        let mut next = || -> io::Result<Option<Bytes>> {
            let Some((at, length)) = pieces.next() else { return Ok(None) };
            let mut piece = vec![0; *length];
            if self.file.read_at(*at, &mut piece)? < *length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Some(piece.into()))
        };
        machine.import(group, &self.applied, &mut next).map_err(|error| crate::machine::chain(&error))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove(&self.name) {
            tracing::warn!(file = self.name, %error, "a spool file stays until the next start");
        }
    }
}

/// Removes what a process left that died while rows came in.
pub(crate) fn remove_spools(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.list()?.into_iter().filter(|name| name.starts_with(PREFIX)) {
        disk.remove(&name)?;
    }
    Ok(())
}

/// A moment of the state machine as openraft's description of a snapshot.
pub(crate) fn meta_of(applied: &Applied) -> Result<SnapshotMetaOf<Types>, raft_types::DecodeError> {
    let last_membership = match &applied.membership {
        Some((at, bytes)) => {
            let record: MembershipRecord = decode("membership", bytes)?;
            StoredMembership::new(Some(log_id(*at)), record.try_into()?)
        }
        None => StoredMembership::default(),
    };
    Ok(SnapshotMeta { last_log_id: applied.position.map(log_id), last_membership })
}

/// Sends the rows of `group` to `peer`, which goes by the raft id `to`; answers the peer's vote.
pub(crate) async fn send(
    wire: &dyn Wire,
    machine: Arc<dyn StateMachine>,
    blocking: Blocking,
    group: GroupId,
    (peer, to): (&str, u64),
    vote: VoteRecord,
) -> Result<VoteRecord, WireError> {
    let lost = |why: String| WireError::Unreachable { peer: peer.to_owned(), why };
    let head = encode(&RowsCall { to, vote });
    let first = Message { method: method::ROWS_STREAM, group, head, bodies: Vec::new() };
    let mut stream = wire.open(peer, Class::Read, first).await?;
    send_parts(&mut stream, peer, machine, blocking, group).await?;
    match stream.receive().await? {
        None => Err(lost("the peer took the rows and did not answer".into())),
        Some(answer) => match decode("rows answer", &answer.head).map_err(|error| lost(error.to_string()))? {
            RowsAnswer::Installed { vote } => Ok(vote),
            RowsAnswer::Refused { code, reason } => {
                Err(WireError::Refused { peer: peer.to_owned(), refusal: Refusal { code, reason } })
            }
        },
    }
}

/// Sends an export as it is made.
async fn send_parts(
    stream: &mut Box<dyn Stream>,
    peer: &str,
    machine: Arc<dyn StateMachine>,
    blocking: Blocking,
    group: GroupId,
) -> Result<(), WireError> {
    let mut exported = export(machine, blocking, group).await;
    let (mut count, mut ended) = (0, false);
    let failed = |why: String| WireError::Unreachable { peer: peer.to_owned(), why };
    while !ended {
        let next = exported.recv().await.unwrap_or_else(|| Err("the export ended before its end".into()));
        let (part, bodies) = match next.map_err(failed)? {
            Some(Exported::At(applied)) => {
                (RowsPart::At { position: applied.position, membership: applied.membership }, Vec::new())
            }
            Some(Exported::Piece(piece)) => {
                count += 1;
                (RowsPart::Piece, vec![piece])
            }
            None => {
                ended = true;
                (RowsPart::End { pieces: count }, Vec::new())
            }
        };
        stream.send(Message { method: method::ROWS_STREAM, group, head: encode(&part), bodies }).await?;
    }
    Ok(())
}

/// Runs the export where it may block; the channel holds it back when the network is slower. `None` is the end: a channel
/// that closes without it lost its export.
pub(crate) async fn export(
    machine: Arc<dyn StateMachine>,
    blocking: Blocking,
    group: GroupId,
) -> mpsc::Receiver<Result<Option<Exported>, String>> {
    let run = move |sink: &mut dyn FnMut(Exported) -> ControlFlow<()>| {
        machine.export(group, sink).map_err(|error| crate::machine::chain(&error))
    };
    match blocking {
        Blocking::Thread => {
            let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
            tokio::task::spawn_blocking(move || {
                let mut send = |next| match sender.blocking_send(Ok(Some(next))) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()), // the stream broke
                };
                let end = run(&mut send).map(|()| None);
                let _ = sender.blocking_send(end); // nobody may be there any more
            });
            receiver
        }
        Blocking::Inline => {
            let mut all = Vec::new();
            let result = run(&mut |next| {
                all.push(Ok(Some(next)));
                ControlFlow::Continue(())
            });
            all.push(result.map(|()| None));
            let (sender, receiver) = mpsc::channel(all.len());
            for next in all {
                // There is a place for each.
                let _ = sender.try_send(next);
            }
            receiver
        }
    }
}

impl Node {
    /// Serves a stream of rows from the leader `from`.
    pub(crate) async fn receive_rows(self: Arc<Self>, from: String, first: Message, mut stream: Box<dyn Stream>) {
        let group = first.group;
        let answer = match self.take_rows(&first, &mut stream).await {
            Ok(vote) => {
                tracing::info!(%group, from, "rows installed from a snapshot");
                RowsAnswer::Installed { vote }
            }
            Err(refusal) => {
                tracing::warn!(%group, from, %refusal, "rows of a snapshot were not installed");
                RowsAnswer::Refused { code: refusal.code, reason: refusal.reason }
            }
        };
        let message = Message { method: method::ROWS_STREAM, group, head: encode(&answer), bodies: Vec::new() };
        if stream.send(message).await.is_err() {
            tracing::debug!(%group, from, "the sender of rows did not wait for the answer");
        }
    }

    async fn take_rows(&self, first: &Message, stream: &mut Box<dyn Stream>) -> Result<VoteRecord, Refusal> {
        let call: RowsCall = decode("rows", &first.head).map_err(|error| refusal(code::MALFORMED, error))?;
        let group = self.group(first.group).ok_or_else(|| refusal(code::NO_GROUP, "the group is not open here"))?;
        if *group.raft.node_id() != call.to {
            return Err(refusal(code::OTHER_ID, format!("this node is {}, not {}", group.raft.node_id(), call.to)));
        }
        let spool = self.spool_rows(group.id, stream).await?;
        self.install_rows(group.id, call.vote, spool).await
    }

    /// Takes the parts of an export into a spool file.
    async fn spool_rows(&self, group: GroupId, stream: &mut Box<dyn Stream>) -> Result<Spool, Refusal> {
        let malformed = |why: &str| refusal(code::MALFORMED, why);
        let Ok(_place) = self.incoming.acquire().await else { return Err(refusal(code::STOPPED, "stopping")) };
        let mut spool = None;
        loop {
            let message = stream.receive().await.map_err(|error| refusal(code::STOPPED, error))?;
            let message = message.ok_or_else(|| malformed("the rows ended before their end"))?;
            match decode("rows", &message.head).map_err(|error| refusal(code::MALFORMED, error))? {
                RowsPart::At { position, membership } => {
                    let disk = Arc::clone(&self.store);
                    let open = move || Spool::new(disk, group, Applied { position, membership });
                    let opened = self.options.blocking().run(open).await.map_err(|_| malformed("stopping"))?;
                    spool = Some(opened.map_err(|error| refusal(code::DISK_FULL, error))?);
                }
                RowsPart::Piece => {
                    let mut own = spool.take().ok_or_else(|| malformed("rows before their moment"))?;
                    let write = move || {
                        for piece in &message.bodies {
                            own.push(piece)?;
                        }
                        Ok::<_, io::Error>(own)
                    };
                    let written = self.options.blocking().run(write).await.map_err(|_| malformed("stopping"))?;
                    spool = Some(written.map_err(|error| refusal(code::DISK_FULL, error))?);
                }
                RowsPart::End { pieces } => {
                    let spool = spool.filter(|spool: &Spool| spool.pieces.len() as u64 == pieces);
                    return spool.ok_or_else(|| malformed("not all rows came"));
                }
            }
        }
    }

    /// Serves a peer that has lost its rows.
    pub(crate) async fn give_rows(self: Arc<Self>, from: String, group: GroupId, mut stream: Box<dyn Stream>) {
        let (machine, blocking) = (Arc::clone(&self.machine), self.options.blocking());
        if let Err(error) = send_parts(&mut stream, &from, machine, blocking, group).await {
            tracing::warn!(%group, from, %error, "rows were not given");
        }
    }

    /// The rows here are older than the log: the catalogue was lost, or its schema is a new one. Rows of any replica that
    /// has applied at least what this log has purged take their place.
    pub(crate) async fn rebuild_rows(&self, group: GroupId, purged: LogPosition) -> Applied {
        loop {
            if let Some(applied) = self.rows_of_a_peer(group, purged).await {
                return applied;
            }
            tokio::time::sleep(REBUILD_PAUSE).await;
        }
    }

    /// Rows of the first peer that has applied at least `least` take the place of those here.
    pub(crate) async fn rows_of_a_peer(&self, group: GroupId, least: LogPosition) -> Option<Applied> {
        let meta = self.meta.state();
        let others = meta.replicas(group).iter().filter(|id| Some(**id) != self.raft_id());
        let copies: Vec<&str> = others.filter_map(|id| meta.name_of(*id)).collect();
        // Everyone has the rows; the copies are asked first.
        let rest = meta.nodes().filter(|(_, node)| !node.retired).map(|(_, node)| node.registration.name.as_str());
        let rest: Vec<&str> = rest.filter(|name| !copies.contains(name)).collect();
        for peer in copies.into_iter().chain(rest).filter(|name| *name != self.name()) {
            match self.pull_rows(group, least, peer).await {
                Ok(applied) => {
                    tracing::warn!(%group, peer, "the rows of a group were rebuilt from a peer");
                    return Some(applied);
                }
                Err(error) => tracing::info!(%group, peer, %error, "rows could not be had"),
            }
        }
        None
    }

    async fn pull_rows(&self, group: GroupId, purged: LogPosition, peer: &str) -> Result<Applied, String> {
        let first = Message { method: method::ROWS_PULL, group, head: Bytes::new(), bodies: Vec::new() };
        let mut stream = self.wire.open(peer, Class::Read, first).await.map_err(|error| error.to_string())?;
        let spool = self.spool_rows(group, &mut stream).await.map_err(|refusal| refusal.reason)?;
        if spool.applied.position.is_none_or(|at| at < purged) {
            return Err(format!("it has applied only up to {:?}", spool.applied.position));
        }
        let (machine, applied) = (Arc::clone(&self.machine), spool.applied.clone());
        let import = move || spool.import(group, &*machine);
        self.options.blocking().run(import).await.map_err(|error| error.to_string())??;
        Ok(applied)
    }

    async fn install_rows(&self, id: GroupId, vote: VoteRecord, spool: Spool) -> Result<VoteRecord, Refusal> {
        let group = self.group(id).ok_or_else(|| refusal(code::NO_GROUP, "the group is not open here"))?;
        let meta = meta_of(&spool.applied).map_err(|error| refusal(code::MALFORMED, error))?;
        let snapshot = openraft::Snapshot { meta, snapshot: Rows::Spooled(spool) };
        // In this order: the mirror must not take the group for complete in between.
        self.installs.fetch_add(1, Ordering::SeqCst);
        let missing = self.missing.lock().unwrap_or(0);
        self.note_missing(Some(missing));
        let installed = group.raft.install_full_snapshot(Vote::from(vote), snapshot).await;
        let answer = installed.map_err(|error| refusal(code::STOPPED, error))?;
        self.installs.fetch_add(1, Ordering::SeqCst);
        self.metrics.installed.inc();
        Ok(VoteRecord::from(&answer.vote))
    }
}
