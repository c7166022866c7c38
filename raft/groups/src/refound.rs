//! This folder becomes a cluster of one, under a new cluster id: the end of a restore, and of a recovery after a lost quorum.
//!
//! ```text
//!   marker ─► rows, bodies, log: whatever the caller does ─► each data group ─► meta group ─► identity ─► marker gone
//!
//!   data group   … old entries, all applied │ membership {this node} at last + 1, of a newer term │ vote of that term
//!   meta group   everything truncated       │ membership │ blank │ Bootstrap │ DefineGroups: as many groups, all here
//!                                             │ SetDocument for each document: who may call is not forgotten with the nodes
//! ```
//!
//! - RF-1 While the marker is there the folder is no node's: `serve` refuses it with a sentence.
//! - RF-2 Everything between marker and its removal may be done again from the start.
//! - RF-3 The number of groups stays, so that every study stays in its group; entries stay where they are, so that addresses do.
//! - RF-4 Old nodes are strangers: every frame names the cluster, and this one has a new id.
//!
//! Segments that were written before name the old cluster: `identity.json` lists it as a former one, and the lane takes
//! its segments as well, of this disk only.

use crate::{
    Identity, IdentityError,
    types::{KIND_BLANK, KIND_COMMAND, KIND_MEMBERSHIP, MembershipRecord, VoteRecord, decode, encode},
};
use raft_lanes::{Body, Done, Entry, Lane, LaneError, ThinEntry};
use raft_placement::{MetaCommand, MetaState, Registration};
use raft_types::{
    Applied, Committed, CommittedEntry, DecodeError, Disk, GroupId, KeptDocument, LogPosition, StateMachine,
    StateMachineError, Versioned,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, sync::mpsc};
use uuid::Uuid;

const MARKER: &str = "unfinished.json";
const VERSION: u32 = 1;
/// Bytes of heads that are read at a time.
const READ_BYTES: u64 = 4 << 20;

/// What was begun in a folder and is not done yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    version: u32,
    /// `restore` or `recover`.
    pub what: String,
    /// What it is made from: a backup's id, or the old cluster's.
    pub source: String,
    /// Name of the node that it becomes.
    pub name: String,
    /// The new cluster's id.
    pub cluster_id: Uuid,
    /// Clusters whose segments lie in the folder.
    #[serde(default)]
    pub former_cluster_ids: Vec<Uuid>,
    /// Data groups, where a log that said so may be gone by now; else 0.
    #[serde(default)]
    pub group_count: u32,
    /// Documents of the old cluster, where a log that had them may be gone by now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<KeptDocument>,
}

/// Why a folder did not become a cluster of its own.
#[derive(Debug, thiserror::Error)]
pub enum RefoundError {
    /// Its identity or marker.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its log.
    #[error("the log: {0}")]
    Log(String),
    /// Its rows.
    #[error("the rows: {0}")]
    Rows(String),
    /// What lies there does not go together.
    #[error("{0}")]
    Contradiction(String),
}

impl From<LaneError> for RefoundError {
    fn from(error: LaneError) -> Self {
        Self::Log(error.to_string())
    }
}

impl From<DecodeError> for RefoundError {
    fn from(error: DecodeError) -> Self {
        Self::Log(error.to_string())
    }
}

impl From<StateMachineError> for RefoundError {
    fn from(error: StateMachineError) -> Self {
        Self::Rows(crate::machine::chain(&error))
    }
}

impl Unfinished {
    /// A new piece of work.
    #[must_use]
    pub fn new(what: &str, source: String, name: String, cluster_id: Uuid) -> Self {
        let (what, former_cluster_ids) = (what.into(), Vec::new());
        Self {
            version: VERSION,
            what,
            source,
            name,
            cluster_id,
            former_cluster_ids,
            group_count: 0,
            documents: Vec::new(),
        }
    }

    /// What lies in the folder.
    ///
    /// # Errors
    /// When the marker cannot be read.
    pub fn load(store: &dyn Disk) -> Result<Option<Self>, IdentityError> {
        let file = match store.open(MARKER) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { step: "open the marker beside", source }),
        };
        let bytes = crate::identity::read_all(&file)
            .map_err(|source| IdentityError::Io { step: "read the marker beside", source })?;
        let found: Self =
            serde_json::from_slice(&bytes).map_err(|error| IdentityError::Malformed(error.to_string()))?;
        if found.version > VERSION {
            return Err(IdentityError::Malformed(format!("version {}, of a newer release", found.version)));
        }
        Ok(Some(found))
    }

    /// Writes it, durably: from now on the folder is no node's (RF-1).
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, store: &dyn Disk) -> Result<(), IdentityError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| IdentityError::Malformed(error.to_string()))?;
        store.replace(MARKER, &bytes).map_err(|source| IdentityError::Io { step: "write the marker beside", source })
    }

    /// Says in one sentence what to do with such a folder.
    #[must_use]
    pub fn advice(&self) -> String {
        format!(
            "a {} of {} was begun in this folder and is not done: run the same `triptych {}` again, it goes on where it was{}",
            self.what,
            self.source,
            self.what,
            if self.what == "restore" { "; or empty the folder" } else { "" }
        )
    }

    /// The folder is node `identity` of the new cluster from now on.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(&self, store: &dyn Disk, mut identity: Identity) -> Result<(), IdentityError> {
        identity.name.clone_from(&self.name);
        identity.cluster_id = Some(self.cluster_id);
        identity.raft_id = Some(MetaState::FOUNDER);
        for former in &self.former_cluster_ids {
            if !identity.former_cluster_ids.contains(former) {
                identity.former_cluster_ids.push(*former);
            }
        }
        identity.save(store)?;
        let gone = store.remove(MARKER).and_then(|()| store.sync_names());
        gone.map_err(|source| IdentityError::Io { step: "remove the marker beside", source })
    }
}

/// Submits to the lane and waits for the fsync. Blocking: for work on a stopped node's folder.
pub(crate) fn wait_for(submit: impl FnOnce(Done) -> Result<(), LaneError>) -> Result<(), RefoundError> {
    let (sender, receiver) = mpsc::channel();
    submit(Box::new(move |result| drop(sender.send(result))))?;
    match receiver.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(RefoundError::Log(error.to_string())),
        Err(_) => Err(RefoundError::Log("the lane stopped".into())),
    }
}

pub(crate) fn applied_of(machine: &dyn StateMachine, group: GroupId) -> Result<Applied, RefoundError> {
    let all = machine.applied()?;
    Ok(all.into_iter().find(|(found, _)| *found == group).map(|(_, applied)| applied).unwrap_or_default())
}

pub(crate) fn vote_of(lane: &Lane, group: GroupId) -> Result<Option<VoteRecord>, RefoundError> {
    Ok(lane.state(group).vote.map(|vote| decode("vote", &vote)).transpose()?)
}

/// What an entry says to a state machine. An unknown kind ends the work: it is never skipped.
pub(crate) fn committed(group: GroupId, thin: ThinEntry) -> Result<Committed, RefoundError> {
    let entry = match thin.kind {
        KIND_BLANK => CommittedEntry::Blank,
        KIND_COMMAND => CommittedEntry::Command { head: thin.head, body_len: u64::from(thin.body_len) },
        KIND_MEMBERSHIP => CommittedEntry::Membership(thin.head),
        found => return Err(DecodeError::Newer { what: "log entry", found, newest: KIND_MEMBERSHIP }.into()),
    };
    Ok(Committed { group, position: thin.position, entry })
}

/// Applies what the log of `group` has behind the rows.
pub(crate) fn apply_log(lane: &Lane, machine: &dyn StateMachine, group: GroupId) -> Result<u64, RefoundError> {
    let Some(last) = lane.state(group).last else { return Ok(0) };
    let mut next = applied_of(machine, group)?.position.map_or(0, |applied| applied.index + 1);
    let mut count = 0;
    while next <= last.index {
        let entries = lane.entries(group, next..last.index + 1, READ_BYTES)?;
        next += entries.len() as u64;
        count += entries.len() as u64;
        let batch: Vec<Committed> = entries.into_iter().map(|thin| committed(group, thin)).collect::<Result<_, _>>()?;
        machine.apply(&batch)?;
    }
    Ok(count)
}

/// Makes this node the only voter of a data group. Its rows may be ahead of its log (restored), or behind it; afterwards
/// both end with the new membership.
///
/// # Errors
/// When the disk or the rows do not do it.
pub fn refound_group(lane: &Lane, machine: &dyn StateMachine, group: GroupId, name: &str) -> Result<(), RefoundError> {
    let applied = applied_of(machine, group)?.position;
    if let Some(applied) =
        applied.filter(|applied| lane.state(group).last.is_none_or(|last| last.index < applied.index))
    {
        // Restored rows: the log begins behind them.
        wait_for(|done| lane.purge(group, applied, done))?;
    }
    apply_log(lane, machine, group)?;
    let (state, vote) = (lane.state(group), vote_of(lane, group)?);
    let newest = [vote.map(|vote| vote.term), state.last.map(|last| last.term), applied.map(|applied| applied.term)];
    // A newer term than any that was seen: whoever still has entries of the old ones is behind.
    let term = newest.into_iter().flatten().max().unwrap_or(0) + 1;
    let position = LogPosition { term, index: state.last.map_or(0, |last| last.index + 1) };
    let entry = membership(position, name);
    let said = Committed { group, position, entry: CommittedEntry::Membership(entry.head.clone()) };
    found_log(lane, group, vec![entry])?;
    machine.apply(&[said])?;
    Ok(())
}

/// Makes the meta group anew: this node and `groups` data groups, all here, and the documents of the marker.
///
/// # Errors
/// When the disk does not do it.
pub fn refound_meta(lane: &Lane, identity: &Identity, marker: &Unfinished, groups: u32) -> Result<(), RefoundError> {
    let (state, vote) = (lane.state(GroupId::META), vote_of(lane, GroupId::META)?);
    if let Some(purged) = state.purged {
        return Err(RefoundError::Contradiction(format!(
            "the log of the meta group was purged up to {purged}, which never is"
        )));
    }
    let newest = [vote.map(|vote| vote.term), state.last.map(|last| last.term), state.committed.map(|at| at.term)];
    let term = newest.into_iter().flatten().max().unwrap_or(0) + 1;
    if state.last.is_some() {
        wait_for(|done| lane.truncate_after(GroupId::META, None, done))?;
    }
    let founder = Registration {
        name: marker.name.clone(),
        node_uuid: identity.node_uuid.into_bytes(),
        incarnation: identity.incarnation,
        address: String::new(), // told again when the node meets others
    };
    let replicas = (1..=groups).map(|group| (group, vec![MetaState::FOUNDER])).collect();
    let set = |KeptDocument { key, bytes }: &KeptDocument| MetaCommand::SetDocument {
        key: key.clone(),
        expect_version: 0,
        bytes: bytes.clone(),
    };
    let commands = [
        MetaCommand::Bootstrap { cluster_id: marker.cluster_id.into_bytes(), founder },
        MetaCommand::DefineGroups { count: groups, replication: 1, replicas },
    ];
    let at = |index| LogPosition { term, index };
    let blank = Entry { position: at(1), kind: KIND_BLANK, head: bytes::Bytes::new(), body: Body::default() };
    let mut entries = vec![membership(at(0), &marker.name), blank];
    let commands = commands.into_iter().chain(marker.documents.iter().map(set));
    for (number, command) in (2..).zip(commands) {
        entries.push(Entry { position: at(number), kind: KIND_COMMAND, head: command.encode(), body: Body::default() });
    }
    found_log(lane, GroupId::META, entries)
}

fn membership(position: LogPosition, name: &str) -> Entry {
    let id = MetaState::FOUNDER.0;
    let record = MembershipRecord { configs: vec![vec![id]], nodes: BTreeMap::from([(id, name.to_owned())]) };
    Entry { position, kind: KIND_MEMBERSHIP, head: encode(&record), body: Body::default() }
}

/// Appends entries that are committed by being here, and a vote of their term: no older term is ever led again.
fn found_log(lane: &Lane, group: GroupId, entries: Vec<Entry>) -> Result<(), RefoundError> {
    let Some(last) = entries.last().map(|entry| entry.position) else { return Ok(()) };
    wait_for(|done| lane.append(group, entries, done))?;
    lane.save_committed(group, last)?;
    let vote = VoteRecord { term: last.term, node: MetaState::FOUNDER.0, committed: false };
    // The hint of what is committed rides with it.
    wait_for(|done| lane.save_vote(group, encode(&vote), done))
}
