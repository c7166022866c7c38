//! Sends: instances that go to another application, also when the node that sends them dies. C-MOVE writes a job before its
//! first sub-operation; operators queue others (`triptych send --to`, `POST /api/sends`).
//!
//! ```text
//!   C-MOVE ─► record send/ID {Held by n1, list} ─► sub-operations ─► removed: it is answered
//!               │ beside: n1 beats (record sender/n1) every 3 s while it holds jobs, and writes down what is sent every 10 s
//!               │ no beat and no progress for 10 s, as the leader of the record's group sees it by its own monotonic clock
//!               ▼
//!             {Held by n2, what is left} ─► C-STORE of the rest ─► {Done}, forgotten after days
//!               │ unreachable, or some failed
//!               ▼
//!             {Waiting until} ─► {Held by who leads} ─► …again with back-off, until {Done} or, after its days, {Failed}
//!   operator ─► {Waiting now, list} ─► the same
//! ```
//!
//! *Why a list, and not the query?* What a job owes is fixed when it begins: its counts mean something, and what comes to the
//! study later is no part of it. A list of 10,000 instances of a study takes about 100 KiB, a long one is several jobs. What is
//! deleted meanwhile is not owed any more.
//!
//! *Why a beat of the node, and not of each job?* It is 30 bytes, whatever the node sends: the list is not written again only to
//! say that its node lives. What lasts less than 3 s costs no beat: two log writes a C-MOVE, of which the second is waited for by
//! nobody, and the first goes out beside the association to the destination.
//!
//! - Q-1 Of every instance of a job, its destination's success was seen, or it is `left`, or it was deleted: at every crash
//!   point. `left` is only made smaller after the answer of the destination.
//! - Q-2 What was sent and not yet written down is sent again by the next node. Progress is written every 10 s, of a long list
//!   less often (20 KiB of list a second), and whenever an attempt ends. A C-STORE of the same UID and bytes changes nothing
//!   where it is stored already (PS3.4 B.2.3), so that the effect is that of one.
//! - Q-3 One node works on a job, as long as its beats come through. Two that overlap do harm to nobody (Q-2), and the second to
//!   write is told by compare-and-set, and stops.
//! - Q-4 A job ends: by success, by its asker (C-CANCEL, an abort of its association, `DELETE`), or at its time. A C-MOVE that was
//!   answered owes nothing more, unless its destination's entry says `retry_days`.
//! - Q-5 No clock decides who works on a job: a wrong one delays attempts, and makes no two nodes send.
//!
//! | a node dies… | and then |
//! |---|---|
//! | before the job of a C-MOVE is committed | nothing was sent: its asker sees the association end, and asks again |
//! | after it, before the first write of progress | a peer sends all of the list (Q-2) |
//! | between two writes of progress | a peer sends what was left at the last one |
//! | after the last sub-operation, before the record is removed | the same; the destination has it already |
//! | with the final answer under way | its asker does not know, and asks again: another job |
//! | between two records of one long C-MOVE | those that are committed are sent; nothing was, before all are |
//! | while it takes a job over | the record says who holds it: the next leader waits for *its* beats |
//! | as a single node | at its next start it goes on at once with what its last process held |
//!
//! A node that is asked to stop hands over at once what its drain time cuts off. The abort of the association by its asker
//! ends the job, as it has always ended the C-MOVE: PS3.4 says nothing, and who asks again must not get it twice at the same time.
//! Without a majority a C-MOVE goes on without a job, counted as `not_recorded`: what can be read can be sent.

mod held;
mod job;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use held::Senders;
pub use held::{Moving, Outcome};

use crate::{Archive, Expect, Freshness, InstanceRow, QueryError, RecordError, Selection, peers::Destination};
use archive_catalog::Record;
use archive_model::AeTitle;
use job::{Asker, Job, State};
use raft_types::BoxFuture;
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// The kind of the records of jobs.
const KIND: &str = "send";
/// The kind of the beats, by name of node.
const BEATS: &str = "sender";
/// Jobs that are not ended and bytes of their lists, at most; nodes that queue at the same time may exceed it by some.
const WORKING_MAX: u64 = 1000;
const WORKING_BYTES_MAX: u64 = 256 << 20;
/// Jobs that one order may make.
const JOBS_OF_ONE_ORDER_MAX: usize = 20;
/// For how long an operator's job is tried, unless its destination's entry says otherwise.
const SEND_FOR: Duration = Duration::from_secs(3 * 24 * 3600);
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Instances that one look at a job names.
const NAMED_MAX: usize = 1000;

/// Sends instances to applications, over associations of its own.
pub trait Sender: Send + Sync + 'static {
    /// Sends `rows` to `to` in order, and says what became of each by its place. Returns when all were tried, when `each` answers
    /// that nobody wants the rest, or with why, once the destination cannot be reached: the rest was not tried.
    fn send<'a>(
        &'a self,
        archive: &'a Archive,
        to: &'a Destination,
        originator: Option<(&'a str, u16)>,
        rows: &'a [InstanceRow],
        each: &'a (dyn Fn(usize, Outcome, &str) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// A job as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// AE title of who asked by C-MOVE; none for an operator.
    pub asked_by: Option<String>,
    /// AE title of the destination.
    pub to: String,
    /// `running`, `waiting`, `done`, `failed` or `cancelled`.
    pub state: &'static str,
    /// The node that works on it.
    pub node: Option<String>,
    /// Instances of the job.
    pub instances: u32,
    /// Of these, how many are sent.
    pub sent: u32,
    /// Of the sent ones, how many were answered with a warning.
    pub warnings: u32,
    /// How many are to be sent yet.
    pub left: u32,
    /// How many of the last attempt failed, or, of a job that has failed, for good.
    pub failed: u32,
    /// How many were deleted meanwhile.
    pub gone: u32,
    /// Attempts in a row that came to nothing.
    pub tries: u32,
    /// When it was asked for.
    pub created_unix_ms: u64,
    /// When it was written last.
    pub changed_unix_ms: u64,
    /// When it is tried next.
    pub next_unix_ms: Option<u64>,
    /// When it is given up.
    pub until_unix_ms: u64,
    /// The last failure.
    pub why: Option<String>,
    /// SOP Instance UIDs of what is left, at most 1000; only of one job that is asked for by its name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_instances: Vec<String>,
}

impl Listed {
    fn of(record: &Record, named: bool) -> Option<Self> {
        let job = Job::decode(&record.body)?;
        let (state, node, next_unix_ms) = match job.state {
            State::Held { node, .. } => ("running", Some(node), None),
            State::Waiting { next_unix_ms } => ("waiting", None, Some(next_unix_ms)),
            State::Done => ("done", None, None),
            State::Failed => ("failed", None, None),
            State::Cancelled => ("cancelled", None, None),
        };
        let left = if state == "failed" || state == "cancelled" { 0 } else { job.left.0.len() };
        let named = if named { NAMED_MAX } else { 0 };
        Some(Self {
            id: record.name.key.clone(),
            asked_by: match job.asker {
                Asker::Operator => None,
                Asker::Application { ae_title, .. } => Some(ae_title),
            },
            to: job.to,
            state,
            node,
            instances: job.total,
            sent: job.sent,
            warnings: job.warned,
            left: u32::try_from(left).unwrap_or(u32::MAX),
            failed: job.failed,
            gone: job.gone,
            tries: job.tries,
            created_unix_ms: record.created_unix_ms,
            changed_unix_ms: record.changed_unix_ms,
            next_unix_ms,
            until_unix_ms: job.until_unix_ms,
            why: Some(job.why).filter(|why| !why.is_empty()),
            left_instances: job.left.0.into_iter().take(named).map(|item| item.instance).collect(),
        })
    }

    /// Whether nothing more is done for it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(self.state, "running" | "waiting")
    }
}

/// Why nothing was queued.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody knows where it is.
    #[error("{0} is no destination: give its address by `triptych peer set {0} --address HOST:PORT`")]
    UnknownDestination(AeTitle),
    /// There is nothing of that name.
    #[error("nothing of that is held here: look for it with `triptych find` or GET /dicom-web/studies")]
    NothingToSend,
    /// More than one order may be.
    #[error("these are {0} instances, too many for one order: send them by series, or by instance")]
    TooMany(usize),
    /// The list is full.
    #[error("{0} sends are not done yet, and more are not kept: see `triptych sends`; wait, or cancel some")]
    Full(u64),
    /// There is no such job.
    #[error("there is no send {0}: `triptych sends` lists them; those that have ended are forgotten after three days")]
    UnknownJob(String),
    /// It was not written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It was not found out.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Archive {
    /// Records that a C-MOVE by `calling` begins to send `rows` to `to`; the record is on its way when this returns, and there
    /// once [`Moving::recorded`] does.
    #[must_use]
    pub fn begin_move(&self, calling: &str, message_id: u16, to: &Destination, rows: &[InstanceRow]) -> Moving {
        let asker = Asker::Application { ae_title: calling.to_owned(), message_id };
        let until_unix_ms = self.clock().unix_ms() + u64::from(to.retry_days) * DAY_MS;
        Moving::begin(self, &asker, to.remote.title.as_str(), until_unix_ms, rows)
    }

    /// Queues what `what` names for `to`, as it is now; when this returns the order survives any minority. Answers the names of
    /// the jobs, and how many instances they have.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn queue_send(&self, to: &AeTitle, what: Selection) -> Result<(Vec<String>, usize), SendError> {
        let known = self.peers().destination(to.as_str());
        let destination = known.ok_or_else(|| SendError::UnknownDestination(to.clone()))?;
        let listing = self.listing(what, Freshness::ReadIndex).await?;
        if listing.may_be_stale {
            return Err(QueryError::NoQuorum.into());
        }
        let count = listing.rows.len();
        if count == 0 {
            return Err(SendError::NothingToSend);
        }
        let lists = job::lists(&listing.rows);
        if lists.len() > JOBS_OF_ONE_ORDER_MAX {
            return Err(SendError::TooMany(count));
        }
        let catalog = Arc::clone(self.catalog());
        let (working, bytes) = self.look_up(move || catalog.working_records(KIND)).await?;
        if working + lists.len() as u64 > WORKING_MAX || bytes > WORKING_BYTES_MAX {
            return Err(SendError::Full(working));
        }
        let for_ms = match destination.retry_days {
            0 => u64::try_from(SEND_FOR.as_millis()).unwrap_or(u64::MAX),
            days => u64::from(days) * DAY_MS,
        };
        let (records, mut ids) = (self.records(KIND), Vec::new());
        for list in lists {
            let now = self.clock().unix_ms();
            let job = Job::new(Asker::Operator, to.as_str(), now + for_ms, State::Waiting { next_unix_ms: now }, list);
            let id = held::new_id(now);
            records.put(&id, Expect::Absent, job.encode(), job.due(now)).await?;
            ids.push(id);
        }
        tracing::info!(to = %to, jobs = ids.len(), instances = count, "a send is queued");
        Ok((ids, count))
    }

    /// Jobs by age, those behind `after`, at most `limit`; none only behind the last.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn sends(&self, after: &str, limit: u32) -> Result<Vec<Listed>, SendError> {
        let records = self.records(KIND).list(after, limit, Freshness::ReadIndex).await?;
        Ok(records.iter().filter_map(|record| Listed::of(record, false)).collect())
    }

    /// One job, with what is left of it.
    ///
    /// # Errors
    /// `UnknownJob`; `NoQuorum` when a fresh answer cannot be had.
    pub async fn send_of(&self, id: &str) -> Result<Listed, SendError> {
        let record = self.records(KIND).get(id, Freshness::ReadIndex).await?;
        record.and_then(|record| Listed::of(&record, true)).ok_or_else(|| SendError::UnknownJob(id.to_owned()))
    }

    /// Cancels a job: what is under way ends within seconds, the rest is not sent. One that has ended is forgotten. Answers
    /// what it was.
    ///
    /// # Errors
    /// `UnknownJob`; like a store.
    pub async fn cancel_send(&self, id: &str) -> Result<Listed, SendError> {
        let records = self.records(KIND);
        loop {
            let record = records.get(id, Freshness::ReadIndex).await?;
            let found =
                record.and_then(|record| Some((Job::decode(&record.body)?, Listed::of(&record, false)?, record)));
            let Some((mut job, listed, record)) = found else { return Err(SendError::UnknownJob(id.to_owned())) };
            let done = if job.has_ended() {
                records.remove(id, record.version).await
            } else {
                job.state = State::Cancelled;
                job.left.0.clear();
                records.put(id, Expect::Version(record.version), job.encode(), None).await.map(|_| ())
            };
            match done {
                Ok(()) => {
                    tracing::info!(send = id, to = listed.to, was = listed.state, "a send is cancelled or forgotten");
                    return Ok(listed);
                }
                Err(RecordError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Works on jobs in the groups that this node leads, and says for those that it holds that it lives, until it drains and
    /// holds none: one task of the node.
    pub async fn work_on_sends(self, sender: Arc<dyn Sender>) {
        work::work(self, sender).await;
    }
}
