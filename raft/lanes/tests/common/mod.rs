//! What the lane's tests share: a clock that stands, chance from a seed, and the reference model.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::unwrap_used)]

use bytes::Bytes;
use parking_lot::Mutex;
use raft_lanes::{
    Body, Entry, Identity, Lane, LaneError, LaneOptions, OnHole, OpenError, Sabotage, Writer, crash::CrashDisk,
};
use raft_types::{Clock, GroupId, LogPosition, Seed};
use rand::{RngCore, SeedableRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub struct Still;
impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

pub struct Chance(Mutex<rand_chacha::ChaCha8Rng>);
impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed)))
    }
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }
}
impl Seed for Chance {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

pub const IDENTITY: Identity = Identity { cluster_id: [1; 16], node_uuid: [2; 16], disk_uuid: [3; 16], lane: 0 };

pub fn open(disk: &CrashDisk) -> Result<Lane, OpenError> {
    open_with(disk, None)
}

/// Opens it around a hole.
pub fn open_around(disk: &CrashDisk, on_hole: OnHole) -> Result<Lane, OpenError> {
    open_as(disk, on_hole, None)
}

/// Opens it with a bug on purpose.
pub fn open_with(disk: &CrashDisk, sabotage: Option<Sabotage>) -> Result<Lane, OpenError> {
    open_as(disk, OnHole::Refuse, sabotage)
}

fn open_as(disk: &CrashDisk, on_hole: OnHole, sabotage: Option<Sabotage>) -> Result<Lane, OpenError> {
    let options = LaneOptions {
        on_hole,
        sabotage,
        segment_bytes: 256 << 10,
        cache_bytes: 200_000,
        writer: Writer::Stepped,
        ..LaneOptions::new(IDENTITY)
    };
    Lane::open(Arc::new(disk.clone()), Arc::new(Still), options)
}

pub fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

/// The body that [`entry`] makes.
pub fn body(term: u64, index: u64, body_len: usize) -> Bytes {
    let byte = (term * 31 + index * 7) as u8;
    (0..body_len).map(|n| byte.wrapping_add((n / 977) as u8)).collect()
}

pub fn entry(term: u64, index: u64, body_len: usize) -> Entry {
    Entry {
        position: at(term, index),
        kind: 1,
        head: Bytes::from(format!("head {index}@{term}")),
        body: body(term, index, body_len).into(),
    }
}

/// An entry whose body is kept elsewhere.
pub fn elided(term: u64, index: u64, body_len: u32) -> Entry {
    Entry { body: Body::Elided(body_len), ..entry(term, index, 0) }
}

/// One submission to the lane.
#[derive(Debug, Clone)]
pub enum Op {
    Append(GroupId, Vec<Entry>),
    Vote(GroupId, Bytes),
    Truncate(GroupId, Option<u64>),
    Purge(GroupId, LogPosition),
    Blocks(GroupId, Vec<(u64, Bytes)>),
}

/// One group of the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelGroup {
    pub vote: Option<Bytes>,
    pub purged: Option<LogPosition>,
    pub entries: BTreeMap<u64, Entry>,
    /// Bodies that are kept apart from the log: of purged entries, and blocks.
    pub bodies: BTreeMap<u64, Bytes>,
}

impl ModelGroup {
    pub fn last(&self) -> Option<LogPosition> {
        self.entries.values().next_back().map(|entry| entry.position).max(self.purged)
    }
}

pub type Model = BTreeMap<GroupId, ModelGroup>;

/// The state after `ops`.
pub fn replay(ops: &[Op]) -> Model {
    let mut model = Model::new();
    for op in ops {
        match op {
            Op::Append(group, entries) => {
                let own = model.entry(*group).or_default();
                own.entries.extend(entries.iter().map(|entry| (entry.position.index, entry.clone())));
            }
            Op::Vote(group, vote) => model.entry(*group).or_default().vote = Some(vote.clone()),
            Op::Truncate(group, keep) => {
                let own = model.entry(*group).or_default();
                own.entries.retain(|index, _| keep.is_some_and(|keep| *index <= keep));
            }
            Op::Purge(group, upto) => {
                let own = model.entry(*group).or_default();
                // Beyond the end: nobody knows what was committed of the rest, so it goes.
                let beyond = own.last().is_none_or(|last| last.index < upto.index);
                let rest = own.entries.split_off(&(upto.index + 1));
                let purged = std::mem::replace(&mut own.entries, rest);
                if !beyond {
                    let here = purged.into_iter().filter_map(|(index, entry)| match entry.body {
                        Body::Here(body) => Some((index, body)),
                        Body::Elided(_) => None,
                    });
                    for (index, body) in here {
                        own.bodies.entry(index).or_insert(body);
                    }
                }
                own.purged = own.purged.max(Some(*upto));
            }
            Op::Blocks(group, blocks) => model.entry(*group).or_default().bodies.extend(blocks.iter().cloned()),
        }
    }
    model
}

/// The first difference between the lane and the model.
pub fn difference(lane: &Lane, model: &Model) -> Option<String> {
    for group in (0..4).map(GroupId) {
        let (state, own) = (lane.state(group), model.get(&group).cloned().unwrap_or_default());
        if (&state.vote, state.purged, state.last) != (&own.vote, own.purged, own.last()) {
            return Some(format!(
                "{group}: lane {state:?}, model vote {:?} purged {:?} last {:?}",
                own.vote,
                own.purged,
                own.last()
            ));
        }
        for (index, entry) in &own.entries {
            let thin = match lane.entries(group, *index..index + 1, 0) {
                Ok(thin) => thin[0].clone(),
                Err(error) => return Some(format!("{group}/{index}: {error}")),
            };
            if (thin.position, &thin.head, thin.body_len) != (entry.position, &entry.head, entry.body.len()) {
                return Some(format!("{group}/{index}: {thin:?}"));
            }
            let read = lane.body(group, *index, Some(entry.position.term), 0..u64::from(entry.body.len()));
            match read {
                Err(LaneError::Elided { .. }) if entry.body.is_elided() && !own.bodies.contains_key(index) => {}
                Ok(_) if entry.body.is_elided() && own.bodies.contains_key(index) => {} // a block; compared below
                Ok(body) if entry.body == Body::Here(body.clone()) => {}
                Ok(_) => return Some(format!("{group}/{index}: another body")),
                Err(error) => return Some(format!("{group}/{index}: {error}")),
            }
        }
        // No row names an empty body: compaction keeps none.
        for (index, body) in own.bodies.iter().filter(|(_, body)| !body.is_empty()) {
            match lane.body(group, *index, None, 0..body.len() as u64) {
                Ok(found) if found == *body => {}
                Ok(_) => return Some(format!("{group}/{index}: another kept body")),
                Err(error) => return Some(format!("{group}/{index}, kept apart from the log: {error}")),
            }
        }
        if let Some(last) = own.last()
            && lane.entries(group, last.index + 1..last.index + 2, 0).is_ok()
        {
            return Some(format!("{group}: an entry behind the last"));
        }
    }
    None
}
