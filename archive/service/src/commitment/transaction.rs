//! A transaction as its record keeps it.
//!
//! ```text
//!   body = version 1 | postcard(Transaction)
//!     wanted   `packed.rs`: classes, each once; of each instance: class, bytes in common with the one before, the rest
//!     found    none yet, or when, and of what failed: place in the list and reason
//!     report   None (the web) · Open (over the association that asked) · Waiting{tries} · Sent · GivenUp
//! ```

use super::{Reference, Report, Requester};
use crate::packed::Packed;
use archive_model::Uid;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// For how long the result of a transaction is kept: milliseconds of 30 days.
const KEEP_MS: u64 = 30 * 24 * 3600 * 1000;
/// For how long a new association waits for the one over which was asked, once the result is there.
const GRACE_MS: u64 = 5_000;
/// First pause between two attempts to report; it doubles.
const PAUSE_MIN_MS: u64 = 5_000;
/// Last pause between two attempts.
const PAUSE_MAX_MS: u64 = 3600 * 1000;

/// What became of a report, from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reporting {
    /// It is to be sent over a new association.
    Waiting,
    /// It was sent.
    Sent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// Nobody waits for a report.
    None,
    /// Over the association that asked.
    Open,
    /// Over a new one, after so many attempts.
    Waiting { tries: u32 },
    /// Answered with success.
    Sent,
    /// Nobody could be reached for days.
    GivenUp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    at_unix_ms: u64,
    failed: Vec<(u32, u16)>,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transaction {
    /// AE title of who asked last; empty for the web.
    pub(super) requester: String,
    /// When it was asked for, the last time.
    pub(super) asked_unix_ms: u64,
    wanted: Wanted,
    found: Option<Found>,
    report: State,
    /// When it is next worked on.
    next_unix_ms: u64,
    /// Attempts to find the result that found too few replicas.
    looked: u32,
}

/// The list, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
struct Wanted(Vec<Reference>);

impl From<Wanted> for Packed {
    fn from(Wanted(list): Wanted) -> Self {
        Self::of(list.iter().map(|reference| (&*reference.class, &*reference.instance)))
    }
}

impl From<Packed> for Wanted {
    fn from(packed: Packed) -> Self {
        Self(packed.pairs().into_iter().map(|(class, instance)| Reference { class, instance }).collect())
    }
}

/// The key of a transaction whose UID is in use with another list: the report carries the UID all the same.
pub(super) fn other_key(transaction: &Uid, wanted: &[Reference]) -> String {
    let mut sorted: Vec<&Reference> = wanted.iter().collect();
    sorted.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for Reference { class, instance } in sorted {
        hasher.update(class.as_bytes()).update(b"\0").update(instance.as_bytes()).update(b"\0");
    }
    format!("{transaction}#{}", hasher.finalize().to_hex())
}

impl Transaction {
    pub(super) fn new(wanted: Vec<Reference>, requester: &Requester, now_unix_ms: u64) -> Self {
        let (requester, report) = match requester {
            Requester::Application { ae_title } => (ae_title.clone(), State::Open),
            Requester::Web => (String::new(), State::None),
        };
        Self {
            requester,
            asked_unix_ms: now_unix_ms,
            wanted: Wanted(wanted),
            found: None,
            report,
            next_unix_ms: now_unix_ms,
            looked: 0,
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

    /// When its record is to be looked at again.
    pub(super) fn due(&self, now_unix_ms: u64) -> u64 {
        self.next_unix_ms.max(now_unix_ms)
    }

    pub(super) fn is_due(&self, now_unix_ms: u64) -> bool {
        self.next_unix_ms <= now_unix_ms
    }

    pub(super) fn wanted(&self) -> &[Reference] {
        &self.wanted.0
    }

    /// Whether this is the same list, in whatever order.
    pub(super) fn is_for(&self, wanted: &[Reference]) -> bool {
        let sorted = |list: &[Reference]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        self.wanted.0.len() == wanted.len() && sorted(&self.wanted.0) == sorted(wanted)
    }

    /// The same request again: the report is for who asked now, and goes out again.
    pub(super) fn ask_again(&mut self, requester: &Requester, now_unix_ms: u64) {
        if let Requester::Application { ae_title } = requester {
            self.requester = ae_title.clone();
            self.report = State::Open;
            self.asked_unix_ms = now_unix_ms;
            self.next_unix_ms = if self.found.is_some() { now_unix_ms + GRACE_MS } else { self.next_unix_ms };
        }
    }

    /// The result, once.
    pub(super) fn find(&mut self, failed: Vec<(usize, u16)>, now_unix_ms: u64) {
        let failed = failed.into_iter().map(|(at, reason)| (u32::try_from(at).unwrap_or(u32::MAX), reason)).collect();
        self.found = Some(Found { at_unix_ms: now_unix_ms, failed });
        self.next_unix_ms = match self.report {
            State::None | State::Sent | State::GivenUp => now_unix_ms + KEEP_MS,
            State::Open => now_unix_ms + GRACE_MS,
            State::Waiting { .. } => now_unix_ms,
        };
    }

    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// How many of the list failed.
    pub(super) fn failures(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.failed.len())
    }

    /// Too few replicas have answered: later again.
    pub(super) fn look_again(&mut self, now_unix_ms: u64) {
        self.looked += 1;
        self.next_unix_ms = now_unix_ms + (1_000_u64 << self.looked.min(6)).min(60_000);
    }

    /// The report of what was found.
    pub(super) fn report(&self, key: &str) -> Option<Report> {
        let found = self.found.as_ref()?;
        let transaction = key.split('#').next().unwrap_or(key).to_owned();
        let mut failures = found.failed.iter().peekable();
        let (mut committed, mut failed) = (Vec::new(), Vec::new());
        for (at, reference) in self.wanted.0.iter().enumerate() {
            match failures.next_if(|(place, _)| *place as usize == at) {
                Some((_, reason)) => failed.push((reference.clone(), *reason)),
                None => committed.push(reference.clone()),
            }
        }
        Some(Report { transaction, committed, failed })
    }

    /// Whether a report is still to be sent.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self.report, State::Open | State::Waiting { .. })
    }

    /// The association that asked has sent the report, or is closed. Whether that changes anything.
    pub(super) fn leave_association(&mut self, how: Reporting, now_unix_ms: u64) -> bool {
        match (how, &self.report) {
            (Reporting::Sent, State::Open | State::Waiting { .. }) if self.found.is_some() => {
                self.sent(now_unix_ms);
                true
            }
            (Reporting::Waiting, State::Open) => {
                self.report = State::Waiting { tries: 0 };
                if self.found.is_some() {
                    self.next_unix_ms = now_unix_ms;
                }
                true
            }
            _ => false,
        }
    }

    /// The report was answered with success.
    pub(super) fn sent(&mut self, now_unix_ms: u64) {
        self.report = State::Sent;
        self.next_unix_ms = now_unix_ms + KEEP_MS;
    }

    /// How often its report was tried in vain.
    pub(super) fn tries(&self) -> u32 {
        match self.report {
            State::Waiting { tries } => tries,
            State::None | State::Open | State::Sent | State::GivenUp => 0,
        }
    }

    /// The report did not get through: later again, or, after `for_ms`, never. Whether it is given up.
    pub(super) fn try_again(&mut self, now_unix_ms: u64, for_ms: u64) -> bool {
        let tries = self.tries();
        if now_unix_ms >= self.asked_unix_ms.saturating_add(for_ms) {
            self.report = State::GivenUp;
            self.next_unix_ms = now_unix_ms + KEEP_MS;
            return true;
        }
        self.report = State::Waiting { tries: tries + 1 };
        self.next_unix_ms = now_unix_ms + (PAUSE_MIN_MS << tries.min(12)).min(PAUSE_MAX_MS);
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reference(class: &str, instance: &str) -> Reference {
        Reference { class: class.into(), instance: instance.into() }
    }

    fn application() -> Requester {
        Requester::Application { ae_title: "CT1".into() }
    }

    #[test]
    fn the_bytes_of_a_transaction_are_those_of_version_1() {
        let wanted = vec![reference("1.5", "1.2.30"), reference("1.4", "1.2.31"), reference("1.5", "é")];
        let mut asked = Transaction::new(wanted.clone(), &application(), 5);
        asked.find(vec![(1, 0x0112)], 7);
        let hex: String = asked.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        // version, requester, asked, classes, instances, found at 7: 1 has 0112, Open, next, looked
        let expected =
            "01 03435431 05 0203312e3403312e35 03 010006312e322e3330 00050131 010002c3a9 01070101 9202 01 8f27 00";
        assert_eq!(hex, expected.replace(' ', ""));
        let back = Transaction::decode(&asked.encode()).unwrap();
        assert_eq!((back.wanted(), &back), (&wanted[..], &asked));
        assert_eq!(Transaction::decode(b"\x02"), None);
    }

    #[test]
    fn a_long_list_fits_a_record() {
        let instance =
            |number| format!("1.2.840.113619.2.55.3.604688119.868.1249343483.{number}.{}", number * 7919 % 997);
        let wanted: Vec<_> =
            (0..50_000).map(|number| reference("1.2.840.10008.5.1.4.1.1.2", &instance(number))).collect();
        let asked = Transaction::new(wanted, &application(), 5);
        assert!(asked.encode().len() < 700 << 10, "{}", asked.encode().len());
    }

    #[test]
    fn a_report_is_tried_for_days_with_pauses_that_grow() {
        let mut asked = Transaction::new(vec![reference("1.4", "1.2")], &application(), 0);
        asked.find(Vec::new(), 0);
        assert!(asked.leave_association(Reporting::Waiting, 10));
        let (mut now, mut tries) = (10, 0);
        while !asked.try_again(now, 3 * 24 * 3600 * 1000) {
            assert!(asked.next_unix_ms - now <= PAUSE_MAX_MS);
            now = asked.next_unix_ms;
            tries += 1;
        }
        assert!((75..90).contains(&tries), "{tries} in three days");
        assert!(!asked.is_unsent());
        asked.ask_again(&application(), now);
        assert!(asked.is_unsent(), "it may ask again");
    }
}
