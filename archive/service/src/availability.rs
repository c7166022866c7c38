//! Instance Availability Notification as user (PS3.4 Annex R): whoever wants it is told what of a study may be had, when the
//! study has become quiet, and at once when a rejection note has taken something away.
//!
//! ```text
//!   Stored · a note took effect ─► record availability/STUDY {Waiting}, before success is answered
//!                                    │ due, and nothing came for a while (or at once): the leader of the record's group
//!                                    ▼
//!                                  {Telling: to whom} ─► N-CREATE to each who wants it, again with back-off for days
//!                                    │ what is sent is what the index says at that moment: ONLINE, or UNAVAILABLE
//!                                    ▼ everybody was told, or given up
//!                                  removed; or {Waiting} again, if something came meanwhile
//! ```
//!
//! - A-1 A study of which something was stored with success, or taken away by a note, while somebody wants to be told, has a
//!   record until everybody who wanted it was told of a state that includes it, or could not be reached for days.
//! - A-2 A notification says what the index says after everything that was acknowledged before it.
//! - A-3 The same notification has the same SOP Instance UID, whichever node sends it again.
//!
//! | a node dies… | and then |
//! |---|---|
//! | between a store and its record | the sender has no answer, and sends the instance again: that makes the record |
//! | with the record there, whatever was done | the leader of the record's group goes on; who was told and not written down is told again (A-3) |
//! | between the effect of a note and its record | the note's own record is still there (`rejection.rs`): it is done again |
//!
//! *Cost*: nothing while nobody wants it, else one record a study, and none for each instance: a node remembers for half of the
//! quiet time that a study's record waits, and nobody works on one before the whole has passed. Clocks of nodes may differ by
//! the other half.

mod work;

#[cfg(test)]
mod tests;

pub use archive_catalog::Availability;

use crate::{Archive, Expect, Freshness, RecordError, RemoteAe};
use archive_model::{DataSet, Element, Uid, VR, Value, tags};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_types::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The kind of the records.
const KIND: &str = "availability";
/// The version of their bodies.
const VERSION: u8 = 1;
/// Studies of which a node remembers that their record waits; more are looked up.
const REMEMBERED_MAX: usize = 10_000;

/// A notification.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// SOP Instance UID of the notification.
    pub instance: String,
    /// Its attributes (PS3.4 Table R.3.2-1).
    pub data_set: DataSet,
}

/// Sends notifications to applications, over associations of its own.
pub trait Notifier: Send + Sync + 'static {
    /// Sends `notification` to `to`; returns once it was answered with success.
    fn notify<'a>(&'a self, to: &'a RemoteAe, notification: &'a Notification) -> BoxFuture<'a, Result<(), String>>;
}

/// Who has not been told yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    ae_title: String,
    tries: u32,
    next_unix_ms: u64,
}

/// The body of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// The study may grow; or not, if it is to be told at once.
    Waiting { at_once: bool },
    /// Being told.
    Telling { instance: String, since_unix_ms: u64, left: Vec<Left>, again: bool },
}

impl State {
    fn encode(&self) -> Bytes {
        // Plain values: nothing here can fail to serialise.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default().into()
    }

    /// None for what a newer release wrote.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then(|| postcard::from_bytes(rest).ok())?
    }

    /// When its record is to be looked at next, while somebody is left.
    fn next_unix_ms(&self, now_unix_ms: u64) -> u64 {
        match self {
            Self::Waiting { .. } => now_unix_ms,
            Self::Telling { left, .. } => left.iter().map(|left| left.next_unix_ms).min().unwrap_or(now_unix_ms),
        }
    }
}

/// Studies whose record waits, as this node knows, and until when that is sure.
#[derive(Default)]
pub(crate) struct Remembered(Mutex<BTreeMap<Uid, Instant>>);

impl Remembered {
    fn has(&self, study: &Uid) -> bool {
        self.0.lock().get(study).is_some_and(|until| *until > Instant::now())
    }

    fn put(&self, study: &Uid, until: Instant) {
        let mut held = self.0.lock();
        if held.len() >= REMEMBERED_MAX {
            let now = Instant::now();
            held.retain(|_, until| *until > now);
            if held.len() >= REMEMBERED_MAX {
                held.clear();
            }
        }
        held.insert(study.clone(), until);
    }

    fn forget(&self, study: &Uid) {
        self.0.lock().remove(study);
    }
}

impl Archive {
    /// Records that a study has changed, if somebody wants to be told: when it is quiet, or at once.
    pub(crate) async fn study_changed(&self, study: &Uid, at_once: bool) -> Result<(), RecordError> {
        if !self.peers().anybody_wants_availability() || (!at_once && self.remembered().has(study)) {
            return Ok(());
        }
        let (records, key) = (self.records(KIND), study.as_str());
        let quiet = self.settings().study_quiet;
        let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        loop {
            let (looked, now) = (Instant::now(), self.clock().unix_ms());
            let found = records.get(key, Freshness::ReadIndex).await?;
            let (expect, state, due) = match &found {
                None => (Expect::Absent, State::Waiting { at_once }, now + if at_once { 0 } else { quiet_ms }),
                Some(record) => {
                    let expect = Expect::Version(record.version);
                    match State::decode(&record.body) {
                        Some(State::Waiting { at_once: false }) if at_once => (expect, State::Waiting { at_once }, now),
                        // It waits, and what was stored before this look is seen when its time has come (A-2).
                        Some(State::Waiting { .. }) => {
                            let left_ms = record.due_unix_ms.unwrap_or(now).saturating_sub(now).min(quiet_ms);
                            let sure = Duration::from_millis(left_ms).saturating_sub(quiet / 2);
                            self.remembered().put(study, looked + sure);
                            return Ok(());
                        }
                        Some(State::Telling { again: true, .. }) | None => return Ok(()),
                        Some(State::Telling { instance, since_unix_ms, left, again: false }) => {
                            let state = State::Telling { instance, since_unix_ms, left, again: true };
                            (expect, state, record.due_unix_ms.unwrap_or(now))
                        }
                    }
                }
            };
            match records.put(key, expect, state.encode(), Some(due)).await {
                Ok(_) => {
                    match state {
                        State::Waiting { at_once: false } => self.remembered().put(study, looked + quiet / 2),
                        State::Waiting { at_once: true } | State::Telling { .. } => self.remembered().forget(study),
                    }
                    return Ok(());
                }
                Err(RecordError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells who wants to be told, in the groups that this node leads, until it drains: one task of the node.
    pub async fn work_on_availability(self, notifier: Arc<dyn Notifier>) {
        work::work(self, notifier).await;
    }
}

/// The attributes of a notification (PS3.4 Table R.3.2-1); none when there is nothing to tell.
fn data_set(study: &Uid, all: &[Availability], retrieve_ae: &str) -> Option<DataSet> {
    let mut series: BTreeMap<&Uid, Vec<DataSet>> = BTreeMap::new();
    for one in all {
        let mut item = DataSet::new();
        item.put_text(tags::INSTANCE_AVAILABILITY, VR::CS, if one.online { "ONLINE" } else { "UNAVAILABLE" });
        item.put_text(tags::RETRIEVE_AE_TITLE, VR::AE, retrieve_ae);
        item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, one.sop_class.as_str());
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, one.instance.as_str());
        series.entry(&one.series).or_default().push(item);
    }
    if series.is_empty() {
        return None;
    }
    let sequence = |tag, items| Element { tag, vr: VR::SQ, value: Value::Items(items) };
    let items = series.into_iter().map(|(uid, references)| {
        let mut item = DataSet::new();
        item.put_text(tags::SERIES_INSTANCE_UID, VR::UI, uid.as_str());
        item.put(sequence(tags::REFERENCED_SOP_SEQUENCE, references));
        item
    });
    let mut set = DataSet::new();
    // Type 2: which step the instances are of is not kept apart from them.
    set.put(sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new()));
    set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, study.as_str());
    set.put(sequence(tags::REFERENCED_SERIES_SEQUENCE, items.collect()));
    Some(set)
}
