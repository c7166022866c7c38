//! A lost quorum: what is left of a cluster, on the data folders of stopped nodes, becomes a cluster of one.
//!
//! ```text
//!   survivors' folders ─► plan: of each group the longest log (Raft §5.4.1: by term, then index); ties to the own folder
//!        own folder    ─► its log becomes that log ─► all of it is applied ─► bodies that others have ─► refound.rs
//! ```
//!
//! What was acknowledged lies on a majority of a group's voters. If the survivors are fewer than that, no one can know what
//! the lost ones had beyond: the plan says so. Entries at the end of the longest log that were never known to be committed
//! are kept: an answer to them may have left, or may not, so they *may appear*.
//!
//! - RC-1 Other folders are only read: their disk is [`Frozen`].
//! - RC-2 A body is taken from another folder only where that folder knows its entry to be committed, or where the terms of
//!   both logs are the same at this index (Raft §5.3): a lost leader's entry never stands in for it.
//! - RC-3 Every step may be done again: what decides is always what the own folder holds by then.

use crate::{
    Identity,
    refound::{RefoundError, Unfinished, applied_of, apply_log, vote_of, wait_for},
};
use raft_lanes::{Body, Entry, Lane, LaneError};
use raft_placement::{MetaCommand, MetaState};
use raft_types::{
    BodyRef, Disk, DiskFile, DiskSpace, Exported, GroupId, KeptDocument, LogPosition, StateMachine, Versioned,
};
use serde::Serialize;
use std::{io, io::IoSlice, ops::ControlFlow, sync::Arc};

/// Bytes of heads and bodies that are read or written at a time.
const PORTION_BYTES: u64 = 4 << 20;

/// One folder of a stopped node.
pub struct Survivor {
    /// Where it is, for people.
    pub folder: String,
    /// Whose it is.
    pub identity: Identity,
    /// Its log.
    pub lane: Lane,
    /// Its rows.
    pub machine: Arc<dyn StateMachine>,
}

/// What a folder has of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The folder.
    pub folder: String,
    /// The end of its log or of its rows, whichever is further.
    pub last: Option<LogPosition>,
    /// The newest entry that is known there to be committed.
    pub committed: Option<LogPosition>,
    /// The newest entry that its rows have.
    pub applied: Option<LogPosition>,
    /// The newest term that it has heard of: newer than its last entry, and a leader began of which it has nothing.
    pub term: u64,
}

/// Bodies, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Bodies {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Bodies {
    fn add(&mut self, body: BodyRef) {
        self.count += 1;
        self.bytes += u64::from(body.length_bytes);
    }
}

/// What would be done with one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupId,
    /// Each folder, the own one first.
    pub held: Vec<Held>,
    /// Which of them has the longest log.
    pub best: usize,
    /// Entries that nobody here knows to be committed, and that are kept: they may appear.
    pub may_appear: u64,
    /// Whether some folder has heard of a leader of whom no entry is left.
    pub newer_leader: bool,
    /// Bodies that the own rows name, that are not in the own folder, and that another one has.
    pub to_copy: Bodies,
    /// Bodies that no folder has.
    pub lost: Bodies,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Nodes of the old cluster, as the meta group's log names them.
    pub nodes: Vec<String>,
    /// Those of them whose folders are not here.
    pub absent: Vec<String>,
    /// Data groups.
    pub group_count: u32,
    /// Each data group.
    pub groups: Vec<GroupPlan>,
    /// What the old cluster had agreed on beside the images.
    #[serde(skip)]
    pub documents: Vec<KeptDocument>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// Groups that this node has now.
    pub groups: u64,
    /// Entries that came from other folders.
    pub entries: u64,
    /// Entries that were applied.
    pub applied: u64,
    /// Bodies that came from other folders.
    pub copied: Bodies,
    /// Bodies that no folder has, by address.
    pub lost: Vec<String>,
}

/// The longest meta log as a state.
fn meta_of(survivors: &[&Survivor]) -> Result<MetaState, RefoundError> {
    let best = survivors.iter().rev().max_by_key(|survivor| survivor.lane.state(GroupId::META).last);
    let mut state = MetaState::default();
    let Some((lane, last)) = best.and_then(|best| Some((&best.lane, best.lane.state(GroupId::META).last?))) else {
        return Ok(state);
    };
    let mut next = 0;
    while next <= last.index {
        for thin in lane.entries(GroupId::META, next..last.index + 1, PORTION_BYTES)? {
            next = thin.position.index + 1;
            if thin.kind == crate::types::KIND_COMMAND {
                state.apply(thin.position.index, MetaCommand::decode(&thin.head)?);
            }
        }
    }
    Ok(state)
}

fn held(survivor: &Survivor, group: GroupId) -> Result<Held, RefoundError> {
    let state = survivor.lane.state(group);
    let applied = applied_of(&*survivor.machine, group)?.position;
    let hint = state.committed.filter(|committed| state.last.is_some_and(|last| *committed <= last));
    let last = state.last.max(applied);
    let vote = vote_of(&survivor.lane, group)?.map_or(0, |vote| vote.term);
    let term = vote.max(last.map_or(0, |last| last.term));
    Ok(Held { folder: survivor.folder.clone(), last, committed: hint.max(applied), applied, term })
}

/// What is there, and what would be done. Changes nothing. `begun` is what was begun in the own folder before: then the meta
/// group's log may be half gone.
///
/// # Errors
/// When a folder cannot be read, or the folders are of different clusters.
pub fn plan(own: &Survivor, others: &[Survivor], begun: Option<&Unfinished>) -> Result<Plan, RefoundError> {
    let all: Vec<&Survivor> = std::iter::once(own).chain(others).collect();
    let meta = meta_of(&all)?;
    let group_count = meta.group_count().max(begun.map_or(0, |begun| begun.group_count));
    if group_count == 0 {
        return Err(RefoundError::Contradiction(
            "the meta group's log names no groups: this cluster never acknowledged anything, so start with an empty folder".into(),
        ));
    }
    let mut groups = Vec::new();
    for group in (1..=group_count).map(GroupId) {
        let held: Vec<Held> = all.iter().map(|survivor| held(survivor, group)).collect::<Result<_, _>>()?;
        let best = best_of(&held);
        let last = held[best].last;
        let committed = held.iter().filter_map(|held| held.committed).max();
        let may_appear = last.map_or(0, |last| last.index + 1)
            - committed.map_or(0, |at| at.index + 1).min(last.map_or(0, |last| last.index + 1));
        let newer_leader = held.iter().any(|held| held.term > last.map_or(0, |last| last.term));
        let (mut to_copy, mut lost) = (Bodies::default(), Bodies::default());
        for body in own.machine.bodies(group)? {
            if own.lane.holds(group, body.index, body.length_bytes) {
                continue;
            }
            let elsewhere = others.iter().any(|other| other.lane.holds(group, body.index, body.length_bytes));
            if elsewhere { to_copy.add(body) } else { lost.add(body) }
        }
        groups.push(GroupPlan { group, held, best, may_appear, newer_leader, to_copy, lost });
    }
    let nodes: Vec<String> =
        meta.nodes().filter(|(_, node)| !node.retired).map(|(_, node)| node.registration.name.clone()).collect();
    let here: Vec<&String> = all.iter().map(|survivor| &survivor.identity.name).collect();
    let absent = nodes.iter().filter(|name| !here.contains(name)).cloned().collect();
    // What was begun before has noted them: the log that had them may be gone.
    let documents = begun.map_or_else(|| crate::documents::kept(&meta), |begun| begun.documents.clone());
    Ok(Plan { nodes, absent, group_count, groups, documents })
}

/// The longest log; of equal ones the first, which is the own.
fn best_of(held: &[Held]) -> usize {
    let mut best = 0;
    for (number, held_here) in held.iter().enumerate() {
        if held_here.last > held[best].last {
            best = number;
        }
    }
    best
}

/// Makes the own folder's data groups what the plan says, up to the new membership, which `refound_group` gives them.
/// `step` hears of each group that is done.
///
/// # Errors
/// When a folder does not do its part. It may be tried again.
pub fn recover(
    own: &Survivor,
    others: &[Survivor],
    plan: &Plan,
    step: &mut dyn FnMut(u64),
) -> Result<Recovered, RefoundError> {
    let mut done = Recovered::default();
    for group in plan.groups.iter().map(|plan| plan.group) {
        // Looked at again: what was done before a crash counts (RC-3).
        let all = std::iter::once(own).chain(others);
        let held: Vec<Held> = all.map(|survivor| held(survivor, group)).collect::<Result<_, _>>()?;
        rows_behind(own, others, group, &held)?;
        let applied = applied_of(&*own.machine, group)?.position;
        if let Some(applied) = applied.filter(|at| own.lane.state(group).last.is_none_or(|last| last.index < at.index))
        {
            wait_for(|done| own.lane.purge(group, applied, done))?; // rows of a snapshot: the log begins behind them
        }
        if let Some(best) = best_of(&held).checked_sub(1) {
            done.entries += follow(own, &others[best], group)?;
        }
        done.applied += apply_log(&own.lane, &*own.machine, group)?;
        copy_bodies(own, others, group, &mut done)?;
        done.groups += 1;
        step(done.groups);
    }
    own.machine.settle()?;
    Ok(done)
}

/// The own rows may be older than the own log begins (a lost catalogue): another folder's take their place.
fn rows_behind(own: &Survivor, others: &[Survivor], group: GroupId, held: &[Held]) -> Result<(), RefoundError> {
    let Some(purged) = own.lane.state(group).purged.filter(|purged| held[0].applied < Some(*purged)) else {
        return Ok(());
    };
    let donor = others
        .iter()
        .zip(&held[1..])
        .filter(|(_, held)| held.applied >= Some(purged))
        .max_by_key(|(_, held)| held.applied);
    let Some((donor, _)) = donor else {
        return Err(RefoundError::Contradiction(format!(
            "the log of {group} begins behind {purged}, and no folder has rows that reach so far: name more folders with --also"
        )));
    };
    import_rows(own, donor, group).map(drop)
}

/// Takes the rows of another folder; answers their position.
fn import_rows(own: &Survivor, donor: &Survivor, group: GroupId) -> Result<Option<LogPosition>, RefoundError> {
    // Between two threads, so that no more than a few pieces are in RAM.
    let (sender, receiver) = std::sync::mpsc::sync_channel(4);
    let machine = Arc::clone(&donor.machine);
    std::thread::scope(|scope| {
        let exporting = scope.spawn(move || {
            let mut send = |next| match sender.send(Some(next)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()), // the import has failed, and says why
            };
            let exported = machine.export(group, &mut send);
            if exported.is_ok() {
                let _ = sender.send(None); // the end: without it the import takes nothing
            }
            exported
        });
        let Ok(Some(Exported::At(mut applied))) = receiver.recv() else {
            return Err(RefoundError::Rows(format!("{} gives no rows of {group}", donor.folder)));
        };
        applied.membership = None; // that of this node comes last
        let mut pieces = || match receiver.recv() {
            Ok(Some(Exported::Piece(piece))) => Ok(Some(piece)),
            Ok(Some(Exported::At(_))) => Err(io::Error::other("rows with two moments")),
            Ok(None) => Ok(None),
            Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let imported = own.machine.import(group, &applied, &mut pieces);
        drop(receiver);
        match exporting.join() {
            Ok(exported) => exported?,
            Err(_) => return Err(RefoundError::Rows("the export panicked".into())),
        }
        imported?;
        Ok(applied.position)
    })
}

/// Makes the own log of `group` that of `other`, which is longer. Answers how many entries came.
fn follow(own: &Survivor, other: &Survivor, group: GroupId) -> Result<u64, RefoundError> {
    let (theirs, applied) = (other.lane.state(group), applied_of(&*own.machine, group)?.position);
    let begins = theirs.purged.map_or(0, |purged| purged.index + 1);
    let mut keep = match applied {
        // Their log reaches back to our rows: up to these both are the same, because both are committed.
        applied if applied.map_or(0, |applied| applied.index + 1) >= begins => applied,
        // It does not: their rows take the place of ours.
        _ => {
            let tail = applied.map(|applied| applied.index);
            if own.lane.state(group).last.map(|last| last.index) > tail {
                wait_for(|done| own.lane.truncate_after(group, tail, done))?;
            }
            let at = import_rows(own, other, group)?;
            let at = at.ok_or_else(|| {
                RefoundError::Contradiction(format!("{} has a log of {group} and no rows", other.folder))
            })?;
            wait_for(|done| own.lane.purge(group, at, done))?;
            Some(at)
        }
    };
    if let (Some(at), Some(theirs)) = (keep, keep.and_then(|at| other.lane.position(group, at.index)))
        && theirs != at
    {
        return Err(RefoundError::Contradiction(format!(
            "{} and {} disagree about the committed entry {} of {group}: they are not of the same cluster, or one was copied",
            own.folder, other.folder, at.index
        )));
    }
    // What our log has behind the rows stays as far as theirs has the same.
    let shorter = own.lane.state(group).last.min_by_index(theirs.last);
    let mut index = keep.map_or(0, |keep| keep.index + 1);
    while shorter.is_some_and(|shorter| index <= shorter) {
        match (own.lane.position(group, index), other.lane.position(group, index)) {
            (Some(ours), Some(theirs)) if ours == theirs => keep = Some(ours),
            _ => break,
        }
        index += 1;
    }
    let upto = keep.map(|keep| keep.index);
    if own.lane.state(group).last.map(|last| last.index) > upto {
        wait_for(|done| own.lane.truncate_after(group, upto, done))?;
    }
    let Some(last) = theirs.last else { return Ok(0) };
    let (mut next, mut count) = (upto.map_or(0, |upto| upto + 1), 0);
    while next <= last.index {
        let mut entries = Vec::new();
        for thin in other.lane.entries(group, next..last.index + 1, PORTION_BYTES)? {
            next = thin.position.index + 1;
            // A body that is not there, or damaged there, may be in a third folder; else its absence is told at the end.
            let body = match other.lane.body(
                group,
                thin.position.index,
                Some(thin.position.term),
                0..u64::from(thin.body_len),
            ) {
                Ok(bytes) => Body::Here(bytes),
                Err(LaneError::Io(why) | LaneError::Failed(why)) => return Err(RefoundError::Log(why)),
                Err(_) => Body::Elided(thin.body_len),
            };
            entries.push(Entry { position: thin.position, kind: thin.kind, head: thin.head, body });
        }
        count += entries.len() as u64;
        wait_for(|done| own.lane.append(group, entries, done))?;
    }
    Ok(count)
}

/// The smaller of two ends of logs.
trait MinByIndex {
    fn min_by_index(self, other: Self) -> Option<u64>;
}

impl MinByIndex for Option<LogPosition> {
    fn min_by_index(self, other: Self) -> Option<u64> {
        self.zip(other).map(|(one, other)| one.index.min(other.index))
    }
}

/// Brings bodies that the rows name and that are not here from folders that have them.
fn copy_bodies(own: &Survivor, others: &[Survivor], group: GroupId, done: &mut Recovered) -> Result<(), RefoundError> {
    let known: Vec<Option<LogPosition>> =
        others.iter().map(|other| held(other, group).map(|held| held.committed)).collect::<Result<_, _>>()?;
    let (mut portion, mut bytes, mut lost) = (Vec::new(), 0, 0);
    for body in own.machine.bodies(group)? {
        let BodyRef { index, length_bytes } = body;
        if own.lane.holds(group, index, length_bytes) {
            continue;
        }
        let found = others.iter().zip(&known).find_map(|(other, committed)| {
            let sure = committed.is_some_and(|committed| index <= committed.index);
            let same =
                own.lane.position(group, index).is_some_and(|ours| other.lane.position(group, index) == Some(ours));
            let read = (sure || same).then(|| other.lane.body(group, index, None, 0..u64::from(length_bytes)))?;
            read.ok().filter(|content| content.len() == length_bytes as usize)
        });
        let Some(content) = found else {
            lost += 1;
            done.lost.push(format!("{group}/{index}"));
            continue;
        };
        done.copied.add(body);
        bytes += content.len() as u64;
        portion.push((index, content));
        if bytes >= PORTION_BYTES {
            bytes = 0;
            wait_for(|done| own.lane.append_blocks(group, std::mem::take(&mut portion), done))?;
        }
    }
    if !portion.is_empty() {
        wait_for(|done| own.lane.append_blocks(group, portion, done))?;
    }
    if lost == 0 {
        own.machine.set_complete(group)?;
    }
    Ok(())
}

/// A disk that is only read, whatever is asked of it: what a recovery of the lane would tidy up stays as it is (RC-1).
pub struct Frozen(pub Arc<dyn Disk>);

struct FrozenFile(Arc<dyn DiskFile>);

fn frozen() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this folder is only read")
}

impl Disk for Frozen {
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(frozen())
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FrozenFile(self.0.open(name)?)))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    /// An empty segment that a crash left stays; whoever opened the lane goes on without it.
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(frozen())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(frozen())
    }
    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
    fn space(&self) -> io::Result<DiskSpace> {
        self.0.space()
    }
}

impl DiskFile for FrozenFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<()> {
        Err(frozen())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(frozen())
    }
    /// The reserved rest of a segment stays.
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.0.forget_cached()
    }
    fn forget_cached_part(&self, offset: u64, length_bytes: u64) -> io::Result<()> {
        self.0.forget_cached_part(offset, length_bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}
