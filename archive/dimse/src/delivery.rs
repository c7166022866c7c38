//! Instances on their way to a destination: C-STORE sub-operations over associations of our own, several of them under way where
//! the destination agrees to that (PS3.7 D.3.3.3).
//!
//! ```text
//!   to be sent ──► C-STORE-RQ ──► unanswered, at most `ahead` and IN_FLIGHT_BYTES_MAX ──► answered: completed, warning, failed
//!       ▲                              │
//!       └── one at a time from now on ─┘ the association ended while several were unanswered
//! ```
//!
//! - W-1 Each instance is told of once: by the answer that names its message, or as failed because its association ended while
//!   it was the only one unanswered. Nothing is guessed from the order of answers, which is the destination's choice.
//! - W-2 When an association ends with several unanswered, nobody knows which of them ended it, or what became of them. None is
//!   told of: they go once more, one at a time, and so does everything behind them. To send an instance twice is harmless.
//! - W-3 What is unanswered is bounded by number and bytes; an object that is larger than that goes alone.
//! - W-4 Who wants no more gets no more, and hears of all that went: a stop waits for the answers that are owed.
//! - W-5 A destination that is not there, or that ends [`LOSSES_MAX`] associations in a row, is given up; what was not told of then
//!   is [`Delivery::rest`].
//!
//! Without agreement, and with `ahead` 1, it is one instance after the other.

use crate::{
    association::{Deadlines, Ended},
    command,
    retrieve::{LOSSES_MAX, Ready, Sub, by_contexts, coerced, fitting, judged, proposals, reason, send_object},
    scu::{Proposal, Requestor, ScuError},
};
use archive_service::{Archive, InstanceRow, peers::Destination};
use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_util::task::TaskTracker;

/// Objects that go before answers come, unless a setting says otherwise: what our own side grants, and enough to hide that a
/// destination waits for its disk.
pub(crate) const SEND_AHEAD: u16 = 8;
/// Bytes of objects that are unanswered at a time, at most; they are what goes again when an association ends.
const IN_FLIGHT_BYTES_MAX: u64 = 64 << 20;

/// What became of an instance.
pub(crate) struct Told {
    /// Its place among those that were given.
    pub(crate) at: usize,
    pub(crate) sub: Sub,
    /// Why it failed: in our words, for the destination's may name a patient.
    pub(crate) why: String,
}

struct Unanswered {
    at: usize,
    message: u16,
    bytes: u64,
}

/// Instances on their way to a destination.
pub(crate) struct Delivery<'a> {
    archive: &'a Archive,
    to: &'a Destination,
    originator: Option<(&'a str, u16)>,
    rows: &'a [InstanceRow],
    deadlines: Deadlines,
    ahead: u16,
    /// Where associations end in the background; none where there is time for it.
    closing: Option<&'a TaskTracker>,
    /// Parts for which one association has enough contexts, that have not begun.
    parts: VecDeque<Range<usize>>,
    proposals: Vec<Proposal>,
    todo: VecDeque<usize>,
    unanswered: Vec<Unanswered>,
    told: VecDeque<Told>,
    untold: BTreeSet<usize>,
    open: Option<Requestor>,
    losses: u32,
    given_up: Option<String>,
    stop: Arc<AtomicBool>,
}

impl<'a> Delivery<'a> {
    pub(crate) fn new(
        archive: &'a Archive,
        to: &'a Destination,
        originator: Option<(&'a str, u16)>,
        rows: &'a [InstanceRow],
        (deadlines, ahead): (Deadlines, u16),
        closing: Option<&'a TaskTracker>,
    ) -> Self {
        let mut parts = VecDeque::new();
        let mut begin = 0;
        for part in by_contexts(rows) {
            parts.push_back(begin..begin + part.len());
            begin += part.len();
        }
        Self {
            archive,
            to,
            originator,
            rows,
            deadlines,
            ahead,
            closing,
            parts,
            proposals: Vec::new(),
            todo: VecDeque::new(),
            unanswered: Vec::new(),
            told: VecDeque::new(),
            untold: (0..rows.len()).collect(),
            open: None,
            losses: 0,
            given_up: None,
            stop: Arc::default(),
        }
    }

    /// Once it is true, nothing more is sent.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Why the destination was given up.
    pub(crate) fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// The places of those that were not told of.
    pub(crate) fn rest(&self) -> impl Iterator<Item = usize> + use<> {
        self.untold.clone().into_iter()
    }

    /// Connects, if there is something to send and no association yet; `false` when the destination was given up for it.
    pub(crate) async fn connect(&mut self) -> bool {
        if self.todo.is_empty() && !self.next_part() {
            return true;
        }
        self.opened().await
    }

    /// What became of the next instance; none when all that went has been told of. Not to be dropped while it goes on.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.told.pop_front() {
                self.untold.remove(&told.at);
                return Some(told);
            }
            if self.stop.load(Ordering::SeqCst) || self.given_up.is_some() {
                self.todo.clear();
                self.parts.clear();
            }
            match self.todo.front().copied() {
                Some(at) if self.has_room_for(at) => {
                    if self.opened().await {
                        self.todo.pop_front();
                        self.send(at).await;
                    }
                }
                _ if !self.unanswered.is_empty() => self.hear().await,
                _ => {
                    self.close().await;
                    if !self.next_part() {
                        return None;
                    }
                }
            }
        }
    }

    fn next_part(&mut self) -> bool {
        let Some(part) = self.parts.pop_front() else { return false };
        self.proposals = proposals(self.archive, &self.rows[part.clone()], &self.to.transfer_syntaxes);
        self.todo = part.collect();
        true
    }

    /// W-3.
    fn has_room_for(&self, at: usize) -> bool {
        let agreed = self.open.as_ref().map_or(1, |open| open.operations_max.min(self.ahead));
        let bytes: u64 = self.unanswered.iter().map(|one| one.bytes).sum();
        self.unanswered.is_empty()
            || (self.unanswered.len() < usize::from(agreed)
                && bytes + self.rows[at].length_bytes <= IN_FLIGHT_BYTES_MAX)
    }

    async fn opened(&mut self) -> bool {
        if self.open.is_some() {
            return true;
        }
        let (remote, ours) = (&self.to.remote, self.archive.ae_title());
        let made =
            Requestor::connect_ahead(&remote.address, ours, &remote.title, &self.proposals, self.deadlines, self.ahead);
        match made.await {
            Ok(open) => {
                self.open = Some(open);
                true
            }
            Err(error) => {
                tracing::warn!(destination = remote.title.as_str(), %error, "a destination could not be reached");
                self.given_up = Some(reason(&error));
                false
            }
        }
    }

    /// Sends one instance, or tells why it cannot be sent.
    async fn send(&mut self, at: usize) {
        let row = &self.rows[at];
        let Some(open) = &mut self.open else { return };
        let Ok(coerced) = coerced(self.archive, row, &self.to.coerce).await else {
            return self
                .failed(at, "the coercion rules of the destination cannot be applied to it: see the log of the node");
        };
        let accepted = open.syntaxes_of(row.sop_class.as_str());
        let Some(way) = fitting(self.archive, row, coerced.is_some(), accepted) else {
            tracing::info!(instance = %row.instance, syntax = row.transfer_syntax, "the destination does not take an instance");
            return self.failed(at, "the destination does not take its SOP class, or no syntax of it");
        };
        let message = open.association.message_id();
        let set = command::store_request(message, row.sop_class.as_str(), row.instance.as_str(), self.originator);
        let ready = Ready { begun: None, coerced };
        match send_object(self.archive, &mut open.association, way, &set, row, ready).await {
            Ok(true) => self.unanswered.push(Unanswered { at, message, bytes: row.length_bytes }),
            Ok(false) => self.failed(at, "it could not be read or converted: see the log of the node"),
            Err(ended) => {
                self.unanswered.push(Unanswered { at, message, bytes: row.length_bytes });
                self.lost(&ended.into());
            }
        }
    }

    /// Waits for an answer.
    async fn hear(&mut self) {
        let Some(open) = &mut self.open else { return };
        let (message, status) = match open.store_answer().await {
            Ok(answer) => answer,
            Err(error) => return self.lost(&error),
        };
        let named = self.unanswered.iter().position(|one| Some(one.message) == message);
        // Where there is but one question at a time, its answer need not name it well. Where there are several, an answer that is
        // given twice must not be taken for that of another.
        let only = self.unanswered.len() == 1 && open.operations_max == 1;
        let Some(at) = named.or(only.then_some(0)) else {
            open.association.abort().await;
            return self.lost(&Ended::Broken("an answer to what was not asked".into()).into());
        };
        let Unanswered { at, .. } = self.unanswered.remove(at);
        self.losses = 0;
        let sub = judged(status);
        let why = if sub == Sub::Failed { format!("status {status:04X}") } else { String::new() };
        self.told.push_back(Told { at, sub, why });
    }

    fn failed(&mut self, at: usize, why: &str) {
        self.told.push_back(Told { at, sub: Sub::Failed, why: why.to_owned() });
    }

    /// The association ended (W-1, W-2).
    fn lost(&mut self, error: &ScuError) {
        let destination = self.to.remote.title.as_str();
        tracing::warn!(destination, %error, unanswered = self.unanswered.len(), "the association to a destination ended");
        self.open = None;
        self.losses += 1;
        let why = reason(error);
        match &self.unanswered[..] {
            [only] => {
                let at = only.at;
                self.failed(at, &why);
            }
            several => {
                let mut again: Vec<usize> = several.iter().map(|one| one.at).collect();
                again.sort_unstable();
                again.into_iter().rev().for_each(|at| self.todo.push_front(at));
                self.ahead = 1;
            }
        }
        self.unanswered.clear();
        if self.losses >= LOSSES_MAX {
            self.given_up = Some(why);
        }
    }

    /// Ends the association in order.
    async fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        match self.closing {
            Some(tasks) => {
                tasks.spawn(open.release());
            }
            None => open.release().await,
        }
    }
}
