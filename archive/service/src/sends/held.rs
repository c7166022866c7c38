//! Jobs that this node holds: what has become of their instances, and how that gets into the record.

use super::{
    KIND,
    job::{self, Asker, Item, Job, State},
};
use crate::{Archive, Expect, Freshness, InstanceRow, Record, RecordError};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long a C-MOVE waits for its record before it goes on without.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);
/// Between two writes of progress, at least.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Bytes a second that progress writes, about: a long list is written less often.
const PROGRESS_BYTES_PER_SECOND: usize = 20 << 10;
/// How long the end of a job is tried to be written; later its lease runs out, and a peer finds nothing that harms.
const END_WITHIN: Duration = Duration::from_secs(60);
/// The same, when this node stops.
const END_OF_NODE_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to write it.
const END_AGAIN: Duration = Duration::from_millis(500);

/// What became of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it.
    Sent,
    /// The destination has it, with a warning.
    Warned,
    /// It was not taken, or could not be sent.
    Failed,
    /// It is not here any more.
    Gone,
}

/// What this node holds, and as whom.
pub(crate) struct Senders {
    epoch: u64,
    node: OnceLock<String>,
    held: Mutex<BTreeMap<String, Arc<Held>>>,
}

impl Default for Senders {
    fn default() -> Self {
        let epoch = uuid::Uuid::new_v4().as_u64_pair().0;
        Self { epoch, node: OnceLock::new(), held: Mutex::default() }
    }
}

impl Senders {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn node(&self, archive: &Archive) -> &str {
        self.node.get_or_init(|| archive.status().answered_by)
    }

    pub(super) fn holds(&self, key: &str) -> bool {
        self.held.lock().contains_key(key)
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        self.held.lock().values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.held.lock().len()
    }

    /// Waits until this node, which drains, has handed over what it holds; not for ever.
    pub(crate) async fn let_go(&self) {
        let free = async {
            while self.count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(END_OF_NODE_WITHIN + RECORDED_WITHIN, free).await.is_err() {
            tracing::warn!(
                sends = self.count(),
                "some sends could not be handed over: a peer notices that this node is gone"
            );
        }
    }
}

/// A name for a job: in order of time, and nobody else's.
pub(super) fn new_id(now_unix_ms: u64) -> String {
    format!("{now_unix_ms:012x}{:08x}", uuid::Uuid::new_v4().as_fields().0)
}

struct Progress {
    /// As it was when this node took it.
    job: Job,
    /// Of each of its list.
    outcomes: Vec<Option<Outcome>>,
    why: String,
    /// Whether something has come since the last write.
    changed: bool,
    written: Instant,
}

/// A job that this node works on.
pub(super) struct Held {
    pub(super) key: String,
    progress: Mutex<Progress>,
    /// The version of the record, if it is known; locked while one is written.
    version: Arc<tokio::sync::Mutex<Option<u64>>>,
    /// Another node has it, or it was cancelled: what is written by this one counts no more.
    lost: AtomicBool,
    cancelled: AtomicBool,
}

impl Held {
    pub(super) fn new(archive: &Archive, key: String, job: Job, version: Option<u64>) -> Arc<Self> {
        let outcomes = vec![None; job.left.0.len()];
        let progress = Progress { job, outcomes, why: String::new(), changed: false, written: Instant::now() };
        let held = Arc::new(Self {
            key: key.clone(),
            progress: Mutex::new(progress),
            version: Arc::new(tokio::sync::Mutex::new(version)),
            lost: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        });
        archive.senders().held.lock().insert(key, Arc::clone(&held));
        held
    }

    /// What is to be sent in this attempt.
    pub(super) fn items(&self) -> Vec<Item> {
        self.progress.lock().job.left.0.clone()
    }

    /// Where it goes, and who asked.
    pub(super) fn whom(&self) -> (String, Asker) {
        let progress = self.progress.lock();
        (progress.job.to.clone(), progress.job.asker.clone())
    }

    pub(super) fn done(&self, at: usize, outcome: Outcome, why: &str) {
        let mut progress = self.progress.lock();
        if let Some(own) = progress.outcomes.get_mut(at) {
            *own = Some(outcome);
            progress.changed = true;
        }
        if outcome == Outcome::Failed {
            why.clone_into(&mut progress.why);
        }
    }

    pub(super) fn say_why(&self, why: &str) {
        why.clone_into(&mut self.progress.lock().why);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// The job as it stands, and whether this attempt has sent something.
    fn standing(&self) -> (Job, bool) {
        let progress = self.progress.lock();
        let count = |wanted: Outcome| {
            let some = progress.outcomes.iter().filter(|own| **own == Some(wanted)).count();
            u32::try_from(some).unwrap_or(u32::MAX)
        };
        let mut job = progress.job.clone();
        let both = std::mem::take(&mut job.left.0).into_iter().zip(&progress.outcomes);
        //
        let is_left = |own: &Option<Outcome>| matches!(own, None | Some(Outcome::Failed));
        job.left.0 = both.filter(|(_, own)| is_left(own)).map(|(item, _)| item).collect();
        let sent = count(Outcome::Sent) + count(Outcome::Warned);
        job.sent += sent;
        job.warned += count(Outcome::Warned);
        job.gone += count(Outcome::Gone);
        job.failed = count(Outcome::Failed);
        if !progress.why.is_empty() {
            job.say_why(&progress.why);
        } else if sent > 0 {
            job.say_why("");
        }
        (job, sent > 0)
    }

    /// Notices that the record is not this node's any more, as far as it has applied; writes down what is new, if it is time.
    pub(super) async fn keep(&self, archive: &Archive) {
        let records = archive.records(KIND);
        // While something is written, that finds out.
        let Ok(mut version) = self.version.try_lock() else { return };
        let Some(mut own) = *version else { return };
        if let Ok(found) = records.get(&self.key, Freshness::Local).await
            && found.is_none_or(|record| record.version != own)
            // What is seen here may lag behind.
            && let Ok(found) = records.get(&self.key, Freshness::ReadIndex).await
            && found.as_ref().is_none_or(|record| record.version != own)
        {
            match ours(archive, found.as_ref()) {
                Some(newer) => (own, *version) = (newer, Some(newer)),
                None => return self.lose(found.and_then(|record| Job::decode(&record.body)).as_ref()),
            }
        }
        let due = {
            let progress = self.progress.lock();
            let bytes = progress.job.left.0.len() * 16;
            let seconds = u64::try_from(bytes / PROGRESS_BYTES_PER_SECOND).unwrap_or(u64::MAX);
            progress.changed && progress.written.elapsed() >= PROGRESS_EVERY.max(Duration::from_secs(seconds))
        };
        if !due {
            return;
        }
        {
            let mut progress = self.progress.lock();
            (progress.changed, progress.written) = (false, Instant::now());
        }
        let (job, _) = self.standing();
        let due = job.due(archive.clock().unix_ms());
        match records.put(&self.key, Expect::Version(own), job.encode(), due).await {
            Ok(newer) => *version = Some(newer),
            Err(RecordError::Conflict { .. }) => {
                self.progress.lock().changed = true;
                let Ok(found) = records.get(&self.key, Freshness::ReadIndex).await else { return };
                match ours(archive, found.as_ref()) {
                    Some(newer) => *version = Some(newer),
                    None => {
                        drop(version);
                        self.lose(found.and_then(|record| Job::decode(&record.body)).as_ref());
                    }
                }
            }
            Err(error) => {
                self.progress.lock().changed = true;
                tracing::debug!(send = self.key, %error, "the progress of a send is not written");
            }
        }
    }

    fn lose(&self, now: Option<&Job>) {
        self.lost.store(true, Ordering::SeqCst);
        if now.is_none_or(|job| job.state == State::Cancelled) {
            self.cancelled.store(true, Ordering::SeqCst);
        } else {
            tracing::info!(send = self.key, "another node has taken a send over");
        }
    }

    /// Writes what it has come to, and gives it out of hand: `decide` makes of the job as it stands what is to be kept; none: it
    /// is removed.
    pub(super) async fn end(&self, archive: &Archive, decide: impl FnOnce(Job, bool) -> Option<Job>) -> Option<Job> {
        // Behind the first write, and any of progress.
        let mut version = self.version.lock().await;
        let (job, sent_something) = self.standing();
        let kept = decide(job, sent_something);
        if !self.is_lost() {
            self.write_end(archive, &mut version, kept.as_ref()).await;
        }
        archive.senders().held.lock().remove(&self.key);
        kept
    }

    async fn write_end(&self, archive: &Archive, version: &mut Option<u64>, kept: Option<&Job>) {
        let records = archive.records(KIND);
        let begun = Instant::now();
        let until = begun + END_WITHIN;
        loop {
            if version.is_none() {
                // What became of the first write, or of one since, is not known.
                *version = match records.get(&self.key, Freshness::ReadIndex).await {
                    Ok(found) => match ours(archive, found.as_ref()) {
                        Some(own) => Some(own),
                        None => return,
                    },
                    Err(_) if archive.draining().is_cancelled() => return,
                    Err(_) => None,
                };
            }
            if let Some(own) = *version {
                let written = match kept {
                    None => records.remove(&self.key, own).await,
                    Some(job) => {
                        let due = job.due(archive.clock().unix_ms());
                        records.put(&self.key, Expect::Version(own), job.encode(), due).await.map(|_| ())
                    }
                };
                match written {
                    Ok(()) => return,
                    // This was written already, and nobody was told; or somebody has cancelled it; or progress was written of
                    // which nobody was told: then it is still to be ended.
                    Err(RecordError::Conflict { .. }) => *version = None,
                    Err(error) => tracing::debug!(send = self.key, %error, "the end of a send is not written yet"),
                }
            }
            let now = Instant::now();
            if now >= until || (archive.draining().is_cancelled() && now >= begun + END_OF_NODE_WITHIN) {
                tracing::warn!(
                    send = self.key,
                    "the end of a send could not be written: a peer will send what it thinks is left"
                );
                return;
            }
            tokio::time::sleep(END_AGAIN).await;
        }
    }
}

/// The jobs of one C-MOVE. Dropped without an end it is cut off by the stop of this node: a peer goes on with it.
pub struct Moving {
    archive: Archive,
    jobs: Vec<Arc<Held>>,
    ended: bool,
}

impl Moving {
    pub(super) fn begin(archive: &Archive, asker: &Asker, to: &str, until_unix_ms: u64, rows: &[InstanceRow]) -> Self {
        let (senders, now) = (archive.senders(), archive.clock().unix_ms());
        let (node, epoch) = (senders.node(archive).to_owned(), senders.epoch());
        let mut jobs = Vec::new();
        for list in job::lists(rows) {
            let state = State::Held { node: node.clone(), epoch, since_unix_ms: now };
            let job = Job::new(asker.clone(), to, until_unix_ms, state, list);
            let (body, due) = (job.encode(), job.due(now));
            let held = Held::new(archive, new_id(now), job, None);
            // Nobody has it yet: whoever writes later waits for this.
            if let Ok(mut version) = Arc::clone(&held.version).try_lock_owned() {
                let (records, key, archive) = (archive.records(KIND), held.key.clone(), archive.clone());
                archive.tasks().clone().spawn(async move {
                    match records.put(&key, Expect::Absent, body, due).await {
                        Ok(own) => *version = Some(own),
                        Err(error) => {
                            archive.metrics().sends.with_label_values(&["not_recorded"]).inc();
                            tracing::warn!(send = key, %error, "a C-MOVE is not recorded: nobody goes on if this node dies");
                        }
                    }
                });
            }
            jobs.push(held);
        }
        Self { archive: archive.clone(), jobs, ended: false }
    }

    /// Waits until the jobs are durable on a majority; without one, a while. Before the first sub-operation.
    pub async fn recorded(&self) {
        let all = async {
            for job in &self.jobs {
                drop(job.version.lock().await);
            }
        };
        // What cannot be recorded is sent all the same: to read is not to write.
        let _ = tokio::time::timeout(RECORDED_WITHIN, all).await;
    }

    /// What became of an instance: its place is that among those that were given.
    pub fn done(&self, mut at: usize, outcome: Outcome, why: &str) {
        for job in &self.jobs {
            let own = job.progress.lock().outcomes.len();
            if at < own {
                return job.done(at, outcome, why);
            }
            at -= own;
        }
    }

    /// Whether an operator has cancelled it.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.jobs.iter().any(|job| job.cancelled.load(Ordering::SeqCst))
    }

    /// The last sub-operation is over: what has failed is queued, if its destination's entry says so.
    pub fn finish(mut self) {
        self.end(|archive, job, _| {
            let now = archive.clock().unix_ms();
            if job.left.0.is_empty() || job.until_unix_ms <= now {
                return None;
            }
            let mut job = job;
            // The attempt was this one: a pause comes first.
            job.settle(false, now);
            archive.metrics().sends.with_label_values(&["queued"]).inc();
            tracing::info!(to = job.to, left = job.left.0.len(), "what a C-MOVE could not send is queued");
            Some(job)
        });
    }

    /// Its asker wants no more of it.
    pub fn give_up(mut self) {
        self.end(|_, _, _| None);
    }

    fn end(&mut self, decide: fn(&Archive, Job, bool) -> Option<Job>) {
        self.ended = true;
        for job in std::mem::take(&mut self.jobs) {
            // Its asker does not wait for this.
            let archive = self.archive.clone();
            self.archive.tasks().spawn(async move {
                job.end(&archive, |standing, sent| decide(&archive, standing, sent)).await;
            });
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if !self.ended {
            self.end(hand_over);
        }
    }
}

/// This node stops: what is left waits for a peer, at once.
pub(super) fn hand_over(archive: &Archive, mut job: Job, _: bool) -> Option<Job> {
    let now = archive.clock().unix_ms();
    if job.left.0.is_empty() {
        // An operator's is listed as done; a C-MOVE is over.
        job.state = State::Done;
        return (job.asker == Asker::Operator).then_some(job);
    }
    job.until_unix_ms = job.until_unix_ms.max(now + super::work::TAKEN_OVER_FOR_MS);
    job.hand_over(now);
    archive.metrics().sends.with_label_values(&["handed_over"]).inc();
    tracing::info!(to = job.to, left = job.left.0.len(), "a send is handed over");
    Some(job)
}

/// The version of a record that is this node's own: of a write, then, whose answer was lost.
fn ours(archive: &Archive, found: Option<&Record>) -> Option<u64> {
    let record = found?;
    match Job::decode(&record.body)?.state {
        State::Held { epoch, .. } if epoch == archive.senders().epoch() => Some(record.version),
        _ => None,
    }
}
