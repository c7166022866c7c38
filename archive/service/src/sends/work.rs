//! The work on jobs: beats of this node for those that it holds; attempts at those that are due, and at those whose node is
//! gone, in the groups that this node leads.

use super::{
    BEATS, KIND, Outcome, Sender,
    held::{Held, hand_over},
    job::{Asker, Item, Job, State},
};
use crate::{Archive, Expect, Freshness, InstanceRow, QueryError, RecordError, Selection, due};
use archive_model::Uid;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use raft_types::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// Between two beats of a node that holds jobs.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Without a beat and without progress for so long, a job's node is taken for gone.
const LEASE: Duration = Duration::from_secs(10);
/// Version of a beat's body.
const BEAT_VERSION: u8 = 1;
/// Jobs that are looked at at the same time, and attempts that this node makes at the same time.
const LOOKS_MAX: usize = 64;
const ATTEMPTS_MAX: usize = 4;
/// Instances that one association takes, and one look-up asks for.
const SENT_AT_ONCE: usize = 500;
/// After an attempt that did not reach its destination, before another job for the same one is tried from here.
const DESTINATION_REST: Duration = Duration::from_secs(5);
/// Watched jobs that are remembered; more are forgotten, which delays their taking over.
const WATCHED_MAX: usize = 4096;
/// Nobody hears of a failure of what was taken over: it is tried for so long at least.
pub(super) const TAKEN_OVER_FOR_MS: u64 = 3600 * 1000;
/// Between two counts of the jobs, and for how long those that have ended are listed, and how many.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const KEEP_MS: u64 = 3 * 24 * 3600 * 1000;
const ENDED_MAX: usize = 10_000;

/// What was seen of a job that another node holds: its version, that of the beat of its node, and since when.
type Watched = (u64, Option<u64>, Instant);

#[derive(Clone)]
struct Worker {
    archive: Archive,
    sender: Arc<dyn Sender>,
    attempts: Arc<Semaphore>,
    watched: Arc<Mutex<BTreeMap<String, Watched>>>,
    /// Destinations that an attempt is under way to, and those that were not reached of late.
    busy: Arc<Mutex<BTreeSet<String>>>,
    resting: Arc<Mutex<BTreeMap<String, Instant>>>,
}

/// Until this node drains, and holds nothing any more.
pub(super) async fn work(archive: Archive, sender: Arc<dyn Sender>) {
    let worker = Worker {
        archive,
        sender,
        attempts: Arc::new(Semaphore::new(ATTEMPTS_MAX)),
        watched: Arc::default(),
        busy: Arc::default(),
        resting: Arc::default(),
    };
    let bring_on = |key: String| {
        let worker = worker.clone();
        async move {
            if let Err(error) = worker.one(&key).await {
                tracing::info!(send = key, %error, "a send is worked on again");
            }
        }
    };
    let until_drained = async {
        tokio::select! {
            () = due::work(&worker.archive, KIND, LOOKS_MAX, bring_on) => {}
            () = worker.sweep() => {}
        }
        // C-MOVEs that run on while the node drains are still its own.
        while worker.archive.senders().count() > 0 {
            tokio::time::sleep(BEAT_EVERY / 10).await;
        }
    };
    tokio::select! {
        biased;
        () = until_drained => {}
        () = worker.beat() => {}
    }
}

impl Worker {
    /// Says that this node lives, while it holds jobs, and writes their progress down. Apart: a group without a leader keeps
    /// a record waiting for longer than the node may be silent.
    async fn beat(&self) {
        tokio::join!(self.say_alive(), self.keep_records());
    }

    async fn keep_records(&self) {
        loop {
            tokio::time::sleep(BEAT_EVERY).await;
            let held = self.archive.senders().all();
            let keep: Vec<BoxFuture<'_, ()>> =
                held.iter().map(|held| Box::pin(held.keep(&self.archive)) as _).collect();
            join_all(keep).await;
        }
    }

    async fn say_alive(&self) {
        let (archive, records) = (&self.archive, self.archive.records(BEATS));
        let mut expect = Expect::Absent;
        loop {
            tokio::time::sleep(BEAT_EVERY).await;
            let held = archive.senders().all();
            archive.metrics().sends_running.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
            if held.is_empty() {
                continue;
            }
            let mut body = vec![BEAT_VERSION];
            body.extend(archive.senders().epoch().to_le_bytes());
            match records.put(archive.senders().node(archive), expect, Bytes::from(body), None).await {
                Ok(version) => expect = Expect::Version(version),
                Err(RecordError::Conflict { current }) => {
                    // Of the process before, or of a write whose answer was lost: known for the next beat.
                    expect = current.map_or(Expect::Absent, Expect::Version);
                }
                Err(error) => tracing::debug!(%error, "this node could not say that it lives"),
            }
        }
    }

    /// Brings one job as far as it comes now.
    async fn one(&self, key: &str) -> Result<(), RecordError> {
        let (archive, records) = (&self.archive, self.archive.records(KIND));
        let Some(record) = records.get(key, Freshness::Local).await? else { return Ok(()) };
        let Some(job) = Job::decode(&record.body) else {
            tracing::warn!(send = key, "a send of a newer release: upgrade this node");
            return Ok(());
        };
        let taken_over = match &job.state {
            State::Done | State::Failed | State::Cancelled => return Ok(()),
            State::Waiting { next_unix_ms } if *next_unix_ms > archive.clock().unix_ms() => return Ok(()),
            State::Waiting { .. } => false,
            State::Held { epoch, .. } if *epoch == archive.senders().epoch() && archive.senders().holds(key) => {
                return Ok(());
            }
            State::Held { node, .. } => {
                // A process of this node that is gone: its folder is this one's now.
                let own = node == archive.senders().node(archive);
                if !own && self.may_live(key, record.version, node).await? {
                    return Ok(());
                }
                true
            }
        };
        let Some(_turn) = Turn::take(self, &job.to) else { return Ok(()) };
        let Ok(_permit) = Arc::clone(&self.attempts).try_acquire_owned() else { return Ok(()) };
        // Of a record that is read here fresh: whoever led before may have got further.
        let Some(fresh) = records.get(key, Freshness::ReadIndex).await?.filter(|fresh| fresh.version == record.version)
        else {
            return Ok(());
        };
        let mut job = job;
        let now = archive.clock().unix_ms();
        if taken_over {
            job.until_unix_ms = job.until_unix_ms.max(now + TAKEN_OVER_FOR_MS);
        }
        let senders = archive.senders();
        job.state = State::Held { node: senders.node(archive).to_owned(), epoch: senders.epoch(), since_unix_ms: now };
        let version = match records.put(key, Expect::Version(fresh.version), job.encode(), job.due(now)).await {
            Ok(version) => version,
            Err(RecordError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.watched.lock().remove(key);
        if taken_over {
            archive.metrics().sends.with_label_values(&["taken_over"]).inc();
            tracing::warn!(
                send = key,
                to = job.to,
                left = job.left.0.len(),
                "the node of a send is gone: this one goes on"
            );
        }
        let attempt =
            Attempt { archive: archive.clone(), held: Some(Held::new(archive, key.to_owned(), job, Some(version))) };
        let ended = self.attempt(&attempt).await;
        attempt.settle(ended).await;
        Ok(())
    }

    /// Whether the node of a job may still work on it: not, once neither its beats nor the job have moved for a while, by the
    /// clock of this node alone.
    async fn may_live(&self, key: &str, version: u64, node: &str) -> Result<bool, RecordError> {
        let beats = self.archive.records(BEATS);
        let beat = beats.get(node, Freshness::Local).await?.map(|record| record.version);
        let still = {
            let mut watched = self.watched.lock();
            if watched.len() >= WATCHED_MAX {
                watched.clear();
            }
            let own = watched.entry(key.to_owned()).or_insert((version, beat, Instant::now()));
            if (own.0, own.1) != (version, beat) {
                *own = (version, beat, Instant::now());
            }
            own.2.elapsed() >= LEASE
        };
        if !still {
            return Ok(true);
        }
        // The beats are of another group: that it has not moved here says nothing, if this node lags there.
        let fresh = beats.get(node, Freshness::ReadIndex).await?.map(|record| record.version);
        if fresh != beat {
            self.watched.lock().insert(key.to_owned(), (version, fresh, Instant::now()));
        }
        Ok(fresh != beat)
    }

    /// Tries all that is left, once.
    async fn attempt(&self, attempt: &Attempt) -> Result<(), String> {
        let Some(held) = &attempt.held else { return Ok(()) };
        let archive = &self.archive;
        let (to, asker) = held.whom();
        let destination = archive.peers().destination(&to);
        let destination =
            destination.ok_or_else(|| "its address is not known: give it by `triptych peer set`".to_owned())?;
        let originator = match &asker {
            Asker::Operator => None,
            Asker::Application { ae_title, message_id } => Some((&**ae_title, *message_id)),
        };
        let items = held.items();
        for (number, part) in items.chunks(SENT_AT_ONCE).enumerate() {
            let first = number * SENT_AT_ONCE;
            let found = self.rows(part).await.map_err(|error| error.to_string())?;
            let (mut places, mut rows) = (Vec::new(), Vec::new());
            for (at, row) in found.into_iter().enumerate() {
                match row {
                    Some(row) => {
                        places.push(first + at);
                        rows.push(row);
                    }
                    None => held.done(first + at, Outcome::Gone, ""),
                }
            }
            let each = |at: usize, outcome: Outcome, why: &str| {
                if let Some(place) = places.get(at) {
                    held.done(*place, outcome, why);
                }
                !held.is_lost()
            };
            if !rows.is_empty() {
                let sent = self.sender.send(archive, &destination, originator, &rows, &each).await;
                if sent.is_err() {
                    self.resting.lock().insert(to.clone(), Instant::now() + DESTINATION_REST);
                }
                sent?;
            }
            if held.is_lost() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The rows of some instances, in order; none for what was deleted.
    async fn rows(&self, part: &[Item]) -> Result<Vec<Option<InstanceRow>>, QueryError> {
        let uids = |text: fn(&Item) -> &String| {
            let all: BTreeSet<&String> = part.iter().map(text).collect();
            all.into_iter().filter_map(|text| Uid::parse(text).ok()).collect::<Vec<_>>()
        };
        let (studies, instances) = (uids(|item| &item.study), uids(|item| &item.instance));
        // What has no row is not owed any more: that must be certain.
        let listing = self
            .archive
            .listing(Selection { studies, instances, ..Selection::default() }, Freshness::ReadIndex)
            .await?;
        if listing.may_be_stale {
            return Err(QueryError::NoQuorum);
        }
        let mut rows: HashMap<(String, String), InstanceRow> =
            listing.rows.into_iter().map(|row| ((row.study.to_string(), row.instance.to_string()), row)).collect();
        Ok(part.iter().map(|item| rows.remove(&(item.study.clone(), item.instance.clone()))).collect())
    }

    /// Counts the jobs in the groups that this node leads, and forgets those that have ended long ago.
    async fn sweep(&self) {
        loop {
            if let Err(error) = self.sweep_once().await {
                tracing::debug!(%error, "the sends could not be counted");
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    async fn sweep_once(&self) -> Result<(), RecordError> {
        let (archive, records) = (&self.archive, self.archive.records(KIND));
        let led: BTreeSet<_> = archive.led_groups().into_iter().collect();
        let (mut waiting, mut failed, mut ended) = (0, 0, Vec::new());
        let (mut after, now) = (String::new(), archive.clock().unix_ms());
        if !archive.log().groups().is_empty() {
            loop {
                let page = records.list(&after, 1000, Freshness::Local).await?;
                let Some(last) = page.last() else { break };
                after.clone_from(&last.name.key);
                for record in page.iter().filter(|record| led.contains(&record.group)) {
                    match Job::decode(&record.body).map(|job| job.state) {
                        Some(State::Waiting { .. }) => waiting += 1,
                        Some(State::Failed) => failed += 1,
                        Some(State::Held { .. } | State::Done | State::Cancelled) | None => {}
                    }
                    if record.due_unix_ms.is_none() {
                        ended.push((record.changed_unix_ms, record.name.key.clone(), record.version));
                    }
                }
            }
        }
        archive.metrics().sends_waiting.set(waiting);
        archive.metrics().sends_failed.set(failed);
        ended.sort_unstable();
        let too_many = ended.len().saturating_sub(ENDED_MAX);
        for (number, (changed, key, version)) in ended.into_iter().enumerate() {
            if number >= too_many && now < changed.saturating_add(KEEP_MS) {
                break;
            }
            match records.remove(&key, version).await {
                Ok(()) | Err(RecordError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The turn of one job to its destination: jobs for one go one after the other from here.
struct Turn<'a> {
    busy: &'a Mutex<BTreeSet<String>>,
    to: String,
}

impl<'a> Turn<'a> {
    fn take(worker: &'a Worker, to: &str) -> Option<Self> {
        let now = Instant::now();
        let mut resting = worker.resting.lock();
        resting.retain(|_, until| *until > now);
        if resting.contains_key(to) || !worker.busy.lock().insert(to.to_owned()) {
            return None;
        }
        Some(Self { busy: &worker.busy, to: to.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.to);
    }
}

/// An attempt under way. Dropped before it is settled it is cut off by the stop of this node: a peer goes on.
struct Attempt {
    archive: Archive,
    held: Option<Arc<Held>>,
}

impl Attempt {
    async fn settle(mut self, ended: Result<(), String>) {
        let Some(held) = self.held.clone() else { return };
        if let Err(why) = &ended {
            held.say_why(why);
        }
        let now = self.archive.clock().unix_ms();
        let kept = held.end(&self.archive, |mut job, sent_something| {
            job.settle(sent_something, now);
            Some(job)
        });
        let kept = kept.await;
        self.held = None;
        let Some(job) = kept.filter(|_| !held.is_lost()) else { return };
        let (result, send, to) = (&self.archive.metrics().sends, &held.key, &job.to);
        match job.state {
            State::Done => {
                result.with_label_values(&["done"]).inc();
                tracing::info!(send, to, sent = job.sent, gone = job.gone, "a send is done");
            }
            State::Failed => {
                result.with_label_values(&["failed"]).inc();
                tracing::warn!(send, to, sent = job.sent, failed = job.failed, why = job.why, "a send is given up");
            }
            State::Waiting { .. } if job.tries <= 1 => {
                result.with_label_values(&["retried"]).inc();
                tracing::warn!(send, to, left = job.left.0.len(), why = job.why, "a send is tried again later");
            }
            State::Waiting { .. } => {
                result.with_label_values(&["retried"]).inc();
                tracing::debug!(send, to, left = job.left.0.len(), why = job.why, "a send is tried again later");
            }
            State::Held { .. } | State::Cancelled => {}
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let archive = self.archive.clone();
        self.archive.tasks().spawn(async move {
            held.end(&archive, |job, sent| hand_over(&archive, job, sent)).await;
        });
    }
}
