//! A job as its record keeps it.
//!
//! ```text
//!   body = version 1 | postcard(Job)
//!     asker     Operator · Application{AE title, Message ID of its C-MOVE}
//!     to        AE title of the destination
//!     until     when retries end, Unix milliseconds
//!     total     instances of the job, sent, of these with a warning, gone (deleted meanwhile)
//!     failed    how many of `left` have failed in the last attempt
//!     tries     attempts that came to nothing, in a row
//!     state     Held{node, epoch, since} · Waiting{next} · Done · Failed · Cancelled
//!     why       the last failure, for the operator: no text of the destination, which may name a patient
//!     left      `packed.rs`: study and instance of each that is still to be sent
//! ```

use crate::packed::Packed;
use archive_catalog::InstanceRow;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// Instances of one job, at most, and bytes of their UIDs: it fits a record of 1 MiB, however little they have in common.
const INSTANCES_MAX: usize = 10_000;
const UID_BYTES_MAX: usize = 900 << 10;
/// Characters of the last failure, at most.
const WHY_CHARS_MAX: usize = 200;
/// Instances that a job that has failed still names.
const NAMED_MAX: usize = 1000;
/// Nobody looks for the node of a job that is younger.
const HELD_MS: u64 = 1000;
/// First pause between two attempts; it doubles.
const PAUSE_MIN_MS: u64 = 5_000;
/// Last pause between two attempts.
const PAUSE_MAX_MS: u64 = 3600 * 1000;

/// Who wants the instances sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Asker {
    /// An operator: `triptych send --to`, `POST /api/sends`.
    Operator,
    /// An application, by C-MOVE.
    Application { ae_title: String, message_id: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// A node works on it. The epoch is another one after each start of that node.
    Held { node: String, epoch: u64, since_unix_ms: u64 },
    /// For its next attempt.
    Waiting { next_unix_ms: u64 },
    /// Nothing is left.
    Done,
    /// Something is left, and given up.
    Failed,
    /// By an operator.
    Cancelled,
}

/// One instance of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) study: String,
    pub(super) instance: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub(super) struct List(pub(super) Vec<Item>);

impl From<List> for Packed {
    fn from(List(list): List) -> Self {
        Self::of(list.iter().map(|item| (&*item.study, &*item.instance)))
    }
}

impl From<Packed> for List {
    fn from(packed: Packed) -> Self {
        Self(packed.pairs().into_iter().map(|(study, instance)| Item { study, instance }).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) asker: Asker,
    pub(super) to: String,
    pub(super) until_unix_ms: u64,
    pub(super) total: u32,
    pub(super) sent: u32,
    pub(super) warned: u32,
    pub(super) gone: u32,
    pub(super) failed: u32,
    pub(super) tries: u32,
    pub(super) state: State,
    pub(super) why: String,
    pub(super) left: List,
}

impl Job {
    /// A job for `left`, of which nothing is sent.
    pub(super) fn new(asker: Asker, to: &str, until_unix_ms: u64, state: State, left: Vec<Item>) -> Self {
        Self {
            asker,
            to: to.to_owned(),
            until_unix_ms,
            total: u32::try_from(left.len()).unwrap_or(u32::MAX),
            sent: 0,
            warned: 0,
            gone: 0,
            failed: 0,
            tries: 0,
            state,
            why: String::new(),
            left: List(left),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        // Plain values: nothing here can fail to serialise.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default().into()
    }

    /// None for what a newer release wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then(|| postcard::from_bytes(rest).ok())?
    }

    /// When its record is to be looked at; never, once it has ended: then it is only forgotten some day. A job that is held is
    /// looked at all the time, by who leads its group: whether its node still lives, no clock says.
    pub(super) fn due(&self, now_unix_ms: u64) -> Option<u64> {
        match self.state {
            State::Held { .. } => Some(now_unix_ms + HELD_MS),
            State::Waiting { next_unix_ms } => Some(next_unix_ms),
            State::Done | State::Failed | State::Cancelled => None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        match self.state {
            State::Held { .. } | State::Waiting { .. } => false,
            State::Done | State::Failed | State::Cancelled => true,
        }
    }

    pub(super) fn say_why(&mut self, why: &str) {
        self.why = why.chars().take(WHY_CHARS_MAX).collect();
    }

    /// After an attempt: done, or what is left waits for the next one, or is given up. An attempt that sent something begins the
    /// pauses anew.
    pub(super) fn settle(&mut self, sent_something: bool, now_unix_ms: u64) {
        if self.left.0.is_empty() {
            self.state = State::Done;
            return;
        }
        if now_unix_ms >= self.until_unix_ms {
            self.state = State::Failed;
            self.failed = u32::try_from(self.left.0.len()).unwrap_or(u32::MAX);
            self.left.0.truncate(NAMED_MAX);
            return;
        }
        if sent_something {
            self.tries = 0;
        }
        self.state =
            State::Waiting { next_unix_ms: now_unix_ms + (PAUSE_MIN_MS << self.tries.min(12)).min(PAUSE_MAX_MS) };
        self.tries = self.tries.saturating_add(1);
    }

    /// Its node is gone: what was not known to be sent waits for another one, at once.
    pub(super) fn hand_over(&mut self, now_unix_ms: u64) {
        self.state = State::Waiting { next_unix_ms: now_unix_ms };
    }
}

/// The instances as lists that fit a record each, in order.
pub(super) fn lists(rows: &[InstanceRow]) -> Vec<Vec<Item>> {
    let mut lists: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let more = row.study.as_str().len() + row.instance.as_str().len() + 8;
        let item = Item { study: row.study.to_string(), instance: row.instance.to_string() };
        match lists.last_mut().filter(|list| list.len() < INSTANCES_MAX && bytes + more <= UID_BYTES_MAX) {
            Some(list) => {
                list.push(item);
                bytes += more;
            }
            None => {
                lists.push(vec![item]);
                bytes = more;
            }
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn item(study: &str, instance: &str) -> Item {
        Item { study: study.into(), instance: instance.into() }
    }

    fn job(count: usize) -> Job {
        let left = (0..count).map(|number| item("1.2", &format!("1.2.3.{number}"))).collect();
        Job::new(Asker::Operator, "WS1", 1_000_000, State::Waiting { next_unix_ms: 0 }, left)
    }

    #[test]
    fn the_bytes_of_a_job_are_those_of_version_1() {
        let asker = Asker::Application { ae_title: "WS2".into(), message_id: 300 };
        let state = State::Held { node: "n1".into(), epoch: 7, since_unix_ms: 5 };
        let mut own = Job::new(asker, "WS1", 200, state, vec![item("1.2", "1.2.30"), item("1.4", "1.2.31")]);
        (own.total, own.sent, own.warned, own.gone, own.failed, own.tries) = (5, 2, 1, 1, 1, 3);
        own.say_why("é");
        let hex = |job: &Job| job.encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // version, asker, to, until, total, sent, warned, gone, failed, tries, state, why, studies, instances
        let expected = "01 0103575332ac02 03575331 c801 05 02 01 01 01 03 00026e310705 02c3a9 \
                        0203312e3203312e34 02 000006312e322e3330 01050131";
        assert_eq!(hex(&own), expected.replace(' ', ""));
        assert_eq!(Job::decode(&own.encode()), Some(own.clone()));
        own.asker = Asker::Operator;
        own.left = List::default();
        for (state, bytes) in [
            (State::Waiting { next_unix_ms: 200 }, "01c801"),
            (State::Done, "02"),
            (State::Failed, "03"),
            (State::Cancelled, "04"),
        ] {
            own.state = state;
            let expected = format!("01 00 03575331 c801 05 02 01 01 01 03 {bytes} 02c3a9 00 00");
            assert_eq!(hex(&own), expected.replace(' ', ""));
            assert_eq!(Job::decode(&own.encode()), Some(own.clone()));
        }
        assert_eq!(Job::decode(b"\x02"), None);
    }

    #[test]
    fn what_is_left_is_tried_with_pauses_that_grow_and_given_up_at_its_time() {
        let mut own = job(2000);
        own.until_unix_ms = 3 * 24 * 3600 * 1000;
        let (mut now, mut tries) = (0, 0);
        loop {
            own.settle(false, now);
            let State::Waiting { next_unix_ms } = own.state else { break };
            assert!((5_000..=PAUSE_MAX_MS).contains(&(next_unix_ms - now)));
            now = next_unix_ms;
            tries += 1;
        }
        assert!((75..90).contains(&tries), "{tries} in three days");
        assert_eq!((&own.state, own.failed, own.left.0.len(), own.due(now)), (&State::Failed, 2000, NAMED_MAX, None));
        let mut own = job(1);
        own.tries = 9;
        own.settle(true, 10);
        assert_eq!(own.state, State::Waiting { next_unix_ms: 5_010 }, "what gets on begins with short pauses");
        own.left.0.clear();
        own.settle(true, 10);
        assert_eq!(own.state, State::Done);
    }

    #[test]
    fn the_largest_list_fits_a_record_and_longer_ones_are_several() {
        let long = |number: usize| format!("{number:05}.{}", "9".repeat(58));
        let row = |study: String, instance: String| {
            let uid = |text: &str| archive_model::Uid::parse(text).unwrap();
            InstanceRow {
                id: 0,
                study: uid(&study),
                series: uid("1.2"),
                instance: uid(&instance),
                sop_class: uid("1.2"),
                transfer_syntax: String::new(),
                length_bytes: 0,
                digest: [0; 32],
                group: raft_types::GroupId(1),
                blocks: Vec::new(),
                series_number: None,
                number: None,
                frame_count: 0,
                version: 0,
                versions: 0,
            }
        };
        let rows: Vec<_> = (10_000..35_000).map(|number| row(long(number), long(99_999 - number))).collect();
        let parts = lists(&rows);
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), rows.len());
        let all: Vec<&str> = parts.iter().flatten().map(|item| &*item.instance).collect();
        assert!(all.iter().zip(&rows).all(|(item, row)| *item == row.instance.as_str()), "in order");
        for part in parts {
            assert!(part.len() <= INSTANCES_MAX);
            let own = Job::new(Asker::Operator, "WS1", 0, State::Done, part);
            assert!(own.encode().len() <= raft_types::Command::BODY_BYTES_MAX, "{}", own.encode().len());
        }
    }
}
