//! Entries of the log whose heads are damaged here: a peer's entry of the same index and term stands in, for there is only
//! one such entry (Raft §5.3).
//!
//! | who reads | a damaged head |
//! |---|---|
//! | replication, apply, the start, of what is not applied | is had from a peer; without one replication waits, the rest waits and says so |
//! | the start, of what is applied | is a blank: only the position counts, for what it did is in the rows |
//!
//! Nothing that was read so is kept: the segment is noted, and mended at the next look ([`crate::scrub`]).

use crate::{
    meta::MetaHolder,
    rpc::{EntryCall, EntryRecord, method},
    types::{decode, encode},
};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_lanes::{Finding, Lane};
use raft_types::{Class, GroupId, LogPosition, Message, Wire};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long one peer may take to give an entry.
const ENTRY_WITHIN: Duration = Duration::from_secs(5);
/// Before peers are asked again for what none of them gave.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Segments whose damaged heads are remembered; more are found again when they are read or scrubbed.
const SEGMENTS_MAX: usize = 1024;
/// Damaged heads that are remembered of one segment.
const HEADS_MAX: usize = 1024;

/// Where heads are had that are damaged here.
pub(crate) struct Heads {
    lane: Lane,
    wire: Arc<dyn Wire>,
    meta: Arc<MetaHolder>,
    own_name: String,
    configured: BTreeSet<String>,
    /// What was found since the last look, by segment.
    found: Mutex<BTreeMap<u64, BTreeSet<Finding>>>,
    stop: CancellationToken,
}

impl Heads {
    pub(crate) fn new(
        lane: Lane,
        wire: Arc<dyn Wire>,
        meta: Arc<MetaHolder>,
        own_name: String,
        configured: BTreeSet<String>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { lane, wire, meta, own_name, configured, found: Mutex::default(), stop })
    }

    /// The other nodes, as the operator and the cluster name them.
    pub(crate) fn other_names(&self) -> BTreeSet<String> {
        let meta = self.meta.state();
        let members = meta.nodes().filter(|(_, node)| !node.retired).map(|(_, node)| node.registration.name.clone());
        let mut names: BTreeSet<String> = members.chain(self.configured.iter().cloned()).collect();
        names.remove(&self.own_name);
        names
    }

    /// The entry at `position` from a peer, and its body if the peer has that too.
    pub(crate) async fn of_a_peer(
        &self,
        group: GroupId,
        position: LogPosition,
    ) -> Option<(EntryRecord, Option<Bytes>)> {
        let head = encode(&EntryCall { index: position.index });
        for peer in self.other_names() {
            let request = Message { method: method::ENTRY, group, head: head.clone(), bodies: Vec::new() };
            let asked = tokio::time::timeout(ENTRY_WITHIN, self.wire.call(&peer, Class::Read, request)).await;
            let Ok(Ok(mut answer)) = asked else { continue };
            if let Ok(entry) = decode::<EntryRecord>("entry", &answer.head)
                && entry.position == position
            {
                return Some((entry, answer.bodies.pop()));
            }
        }
        None
    }

    /// Notes a damaged head: its segment is mended soon.
    pub(crate) fn note(&self, group: GroupId, index: u64) {
        let Some(sequence) = self.lane.segment_of(group, index) else { return };
        let mut found = self.found.lock();
        if found.len() < SEGMENTS_MAX || found.contains_key(&sequence) {
            let heads = found.entry(sequence).or_default();
            if heads.len() < HEADS_MAX {
                heads.insert(Finding::Head { group, index });
            }
        }
    }

    /// What was noted since this was asked last.
    pub(crate) fn take_found(&self) -> BTreeMap<u64, BTreeSet<Finding>> {
        std::mem::take(&mut *self.found.lock())
    }

    /// Waits before peers are asked again; false when the node stops.
    pub(crate) async fn pause(&self) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(AGAIN_AFTER) => true,
        }
    }
}
