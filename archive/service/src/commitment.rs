//! Storage commitment (PS3.4 Annex J, PS3.18 chapter 13): who asks is told what it may delete, because it is safe here.
//!
//! ```text
//!   ask ─► record {list} in the log ─► 0000 · 202                        one transaction UID, one record, on every node
//!            │ due: the leader of the record's group
//!            ▼
//!          read index of all groups ─► rows by SOP Instance UID ─► every content verified on the disks of a majority
//!            │ put by compare-and-set
//!            ▼
//!          record {list, reasons} ─► N-EVENT-REPORT: over the association that asked, if it is open; else over a new one,
//!            │                       again and again for days ─► record {…, sent}
//!            ▼
//!          removed 30 days later
//! ```
//!
//! - C-1 *Committed* is said of an instance only if a majority of its replicas has read all its bytes from their own disks
//!   and found their digest, after the request was recorded. Other contents under its UID are verified with it.
//! - C-2 What a transaction came to is recorded once and does not change; reports, answers to the same request, and the web
//!   say the same.
//! - C-3 A request that was answered with success is answered by a report, whichever node dies, while its requester can be
//!   reached within the days that are set.
//!
//! | a node dies… | and then |
//! |---|---|
//! | before the request is recorded | the requester has no answer, and asks again |
//! | after it, whatever has been verified | the next leader of the group verifies anew |
//! | after the result was recorded, before the report was answered | the report goes out (again): it names its transaction |
//! | with the association over which was asked | 5 s later a new association is made |

#[cfg(test)]
mod tests;
mod transaction;
mod work;

use crate::{Archive, Expect, Freshness, RecordError, Records, RemoteAe};
use archive_model::{DataSet, Element, Tag, Uid, VR, Value, tags};
use raft_types::BoxFuture;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use transaction::{Reporting, Transaction};

/// Instances of one request, at most.
const INSTANCES_MAX: usize = 50_000;
/// Characters of a UID as it is kept; those that are none are reported back as they came.
const UID_CHARS_MAX: usize = 64;
/// The kind of the records.
const KIND: &str = "commitment";
/// How often an open association looks whether the result is there, and how long it is idle before a report is sent over it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Failure reasons (PS3.3 C.14.1.1).
pub mod reason {
    /// Processing failure: it is damaged, and is being repaired.
    pub const PROCESSING: u16 = 0x0110;
    /// No such object instance: never stored, or deleted.
    pub const NO_SUCH_INSTANCE: u16 = 0x0112;
    /// The class is not that of the instance.
    pub const CLASS_CONFLICT: u16 = 0x0119;
    /// The class is none that is stored here.
    pub const CLASS_NOT_SUPPORTED: u16 = 0x0122;
    /// The transaction UID is in use with another list.
    pub const DUPLICATE_TRANSACTION: u16 = 0x0131;
    /// Too few replicas answered.
    pub const RESOURCES: u16 = 0x0213;

    /// Every reason that is given, and what it means.
    pub static MEANINGS: &[(u16, &str)] = &[
        (PROCESSING, "Processing failure: too many copies are damaged, and are being repaired; ask again"),
        (NO_SUCH_INSTANCE, "No such object instance: never stored here, or deleted"),
        (CLASS_CONFLICT, "Class / instance conflict"),
        (CLASS_NOT_SUPPORTED, "SOP class not supported: nothing of it is stored"),
        (DUPLICATE_TRANSACTION, "Duplicate transaction UID: it is in use with another list"),
        (RESOURCES, "Resource limitation: too few replicas could be asked; ask again"),
    ];
}

/// An instance as a requester names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// SOP Class UID.
    pub class: String,
    /// SOP Instance UID.
    pub instance: String,
}

/// Why a request is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A value that must be there is missing or no such value (0115).
    #[error("{tag} {why}")]
    Argument {
        /// The attribute.
        tag: Tag,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More instances than one request may have (0213).
    #[error("more than {INSTANCES_MAX} instances in one request: ask for them in several")]
    TooMany,
}

/// The Transaction UID (0008,1195) of a request.
///
/// # Errors
/// When it is missing or no UID.
pub fn transaction_uid(set: &DataSet) -> Result<Uid, BadRequest> {
    let tag = tags::TRANSACTION_UID;
    let text = set.text(tag).unwrap_or_default();
    Uid::parse(text).map_err(|_| BadRequest::Argument { tag, why: "is missing or no UID" })
}

/// The Referenced SOP Sequence (0008,1199) of a request. A missing or empty one is refused, and never looked for.
///
/// # Errors
/// When it is missing or empty, or an item names no instance.
pub fn references(set: &DataSet) -> Result<Vec<Reference>, BadRequest> {
    let tag = tags::REFERENCED_SOP_SEQUENCE;
    let items = set.items(tag);
    if items.is_empty() {
        return Err(BadRequest::Argument { tag, why: "is missing or empty" });
    }
    if items.len() > INSTANCES_MAX {
        return Err(BadRequest::TooMany);
    }
    let uid = |item: &DataSet, tag| {
        let text = item.text(tag).unwrap_or_default().trim_matches([' ', '\0']).to_owned();
        if text.is_empty() || text.len() > UID_CHARS_MAX {
            return Err(BadRequest::Argument { tag, why: "of an item is missing or too long" });
        }
        Ok(text)
    };
    let reference = |item| {
        let class = uid(item, tags::REFERENCED_SOP_CLASS_UID)?;
        Ok(Reference { class, instance: uid(item, tags::REFERENCED_SOP_INSTANCE_UID)? })
    };
    items.iter().map(reference).collect()
}

/// Who asks, and so where the report goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requester {
    /// An application, by an association that is open now.
    Application {
        /// Its AE title.
        ae_title: String,
    },
    /// A client of the web, who looks for the result itself.
    Web,
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its UID.
    pub transaction: String,
    /// Instances that are committed.
    pub committed: Vec<Reference>,
    /// Instances that are not, and why.
    pub failed: Vec<(Reference, u16)>,
}

impl Report {
    /// Event Type ID (PS3.4 J.3.3): 1 if all are committed, 2 if there are failures.
    #[must_use]
    pub fn event_type(&self) -> u16 {
        if self.failed.is_empty() { 1 } else { 2 }
    }

    /// Its attributes (PS3.4 Table J.3-2, PS3.18 Table J.2-1) but the Transaction UID, which the web leaves out.
    #[must_use]
    pub fn data_set(&self, retrieve_ae: &str) -> DataSet {
        let item = |reference: &Reference| {
            let mut item = DataSet::new();
            item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, reference.class.clone());
            item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, reference.instance.clone());
            item
        };
        let mut set = DataSet::new();
        set.put_text(tags::RETRIEVE_AE_TITLE, VR::AE, retrieve_ae);
        let mut sequence = |tag, items: Vec<DataSet>| {
            if !items.is_empty() {
                set.put(Element { tag, vr: VR::SQ, value: Value::Items(items) });
            }
        };
        sequence(tags::REFERENCED_SOP_SEQUENCE, self.committed.iter().map(item).collect());
        let failed = self.failed.iter().map(|(reference, reason)| {
            let mut item = item(reference);
            let value = Value::Integers(vec![i128::from(*reason)]);
            item.put(Element { tag: tags::FAILURE_REASON, vr: VR::US, value });
            item
        });
        sequence(tags::FAILED_SOP_SEQUENCE, failed.collect());
        set
    }
}

/// Sends reports to applications, over associations of its own.
pub trait Reporter: Send + Sync + 'static {
    /// Sends `report` to `to`; returns once it was answered with success.
    fn report<'a>(&'a self, to: &'a RemoteAe, report: &'a Report) -> BoxFuture<'a, Result<(), String>>;
}

/// A request that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    key: String,
}

impl Archive {
    /// Records that `wanted` is to be committed under `transaction`. When this returns, the request survives any minority.
    ///
    /// The same list again is answered from the record; for an application another list is a transaction of its own, all
    /// of which fails ([`reason::DUPLICATE_TRANSACTION`]); for the web it is a conflict.
    ///
    /// # Errors
    /// Like a store. `TooLarge` for a list that does not fit a record.
    pub async fn request_commitment(
        &self,
        transaction: &Uid,
        wanted: Vec<Reference>,
        requester: Requester,
    ) -> Result<Asked, RecordError> {
        let records = self.records(KIND);
        let (mut key, mut duplicate) = (transaction.as_str().to_owned(), false);
        loop {
            let now = self.clock().unix_ms();
            let found = records.get(&key, Freshness::ReadIndex).await?;
            let Some(record) = found else {
                let mut asked = Transaction::new(wanted.clone(), &requester, now);
                if duplicate {
                    asked.find((0..wanted.len()).map(|at| (at, reason::DUPLICATE_TRANSACTION)).collect(), now);
                }
                match records.put(&key, Expect::Absent, asked.encode(), Some(asked.due(now))).await {
                    Ok(_) => return Ok(Asked { key }),
                    Err(RecordError::Conflict { .. }) => continue,
                    Err(error) => return Err(error),
                }
            };
            let Some(mut known) = Transaction::decode(&record.body) else {
                return Err(RecordError::Conflict { current: Some(record.version) });
            };
            if !known.is_for(&wanted) {
                if requester == Requester::Web || duplicate {
                    return Err(RecordError::Conflict { current: Some(record.version) });
                }
                tracing::warn!(%transaction, "a transaction UID is used again with another list: all of it fails");
                (key, duplicate) = (transaction::other_key(transaction, &wanted), true);
                continue;
            }
            if requester == Requester::Web {
                return Ok(Asked { key });
            }
            known.ask_again(&requester, now);
            let due = known.due(now);
            match records.put(&key, Expect::Version(record.version), known.encode(), Some(due)).await {
                Ok(_) => return Ok(Asked { key }),
                Err(RecordError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What is known of a transaction: nothing, that it is being worked on, or its result.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn commitment(
        &self,
        transaction: &Uid,
        freshness: Freshness,
    ) -> Result<Option<Option<Report>>, RecordError> {
        let record = self.records(KIND).get(transaction.as_str(), freshness).await?;
        let known = record.and_then(|record| Some((Transaction::decode(&record.body)?, record)));
        Ok(known.map(|(known, record)| known.report(&record.name.key)))
    }

    /// Waits until the result of a request is there, as far as this node has applied, for so long.
    pub async fn commitment_within(&self, asked: &Asked, within: Duration) -> Option<Report> {
        let mut open = OpenCommitments::new(self);
        open.quiet = true;
        open.asked.insert(asked.key.clone());
        tokio::time::timeout(within, open.next()).await.ok().map(|(_, report)| report)
    }

    fn commitments(&self) -> Records {
        self.records(KIND)
    }
}

/// The transactions that were asked for over one association while that is open: their reports go out over it. Dropped, it
/// leaves those that were not sent to whoever leads.
pub struct OpenCommitments {
    archive: Archive,
    asked: BTreeSet<String>,
    /// For looking only: nothing is left to anybody.
    quiet: bool,
}

impl OpenCommitments {
    /// None yet.
    #[must_use]
    pub fn new(archive: &Archive) -> Self {
        Self { archive: archive.clone(), asked: BTreeSet::new(), quiet: false }
    }

    /// One more.
    pub fn add(&mut self, asked: Asked) {
        self.asked.insert(asked.key);
    }

    /// The next report that is to be sent over this association; never, while there is none. Cancel safe: dropped and called
    /// again behind each message, it answers only once the association has been idle for a while.
    pub async fn next(&mut self) -> (Asked, Report) {
        if self.asked.is_empty() {
            return std::future::pending().await;
        }
        let records = self.archive.commitments();
        loop {
            // Who sends on is not spoken into: begun anew behind each message, this waits until nothing has come for a while.
            if !self.quiet {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            for key in self.asked.clone() {
                // What is not to be read now, or not applied here yet, is looked for again.
                let Ok(Some(record)) = records.get(&key, Freshness::Local).await else { continue };
                let Some(known) = Transaction::decode(&record.body) else { continue };
                match known.report(&key) {
                    Some(report) if self.quiet || known.is_unsent() => return (Asked { key }, report),
                    Some(_) => _ = self.asked.remove(&key), // another one was faster
                    None => {}
                }
            }
            if self.asked.is_empty() {
                return std::future::pending().await;
            }
            if self.quiet {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// The report was sent, and answered with success if `taken`; else it is tried again over a new association.
    pub async fn sent(&mut self, asked: &Asked, taken: bool) {
        if !self.asked.remove(&asked.key) {
            return;
        }
        let how = if taken { Reporting::Sent } else { Reporting::Waiting };
        settle(self.archive.clone(), asked.key.clone(), how).await;
    }
}

impl Drop for OpenCommitments {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.asked);
        if self.quiet || left.is_empty() {
            return;
        }
        // Best effort: if it is lost, the leader makes a new association some seconds later.
        let (archive, tasks) = (self.archive.clone(), self.archive.tasks().clone());
        tasks.spawn(async move {
            for key in left {
                settle(archive.clone(), key, Reporting::Waiting).await;
            }
        });
    }
}

/// Records that a report was sent over the association that asked, or that there is no such association any more.
async fn settle(archive: Archive, key: String, how: Reporting) {
    let records = archive.commitments();
    loop {
        let now = archive.clock().unix_ms();
        // Fresh: who asks and hangs up at once is faster than the rows of this node may be.
        let Ok(Some(record)) = records.get(&key, Freshness::ReadIndex).await else { return };
        let Some(mut known) = Transaction::decode(&record.body) else { return };
        if !known.leave_association(how, now) {
            return;
        }
        match records.put(&key, Expect::Version(record.version), known.encode(), Some(known.due(now))).await {
            Ok(_) => {
                if how == Reporting::Sent {
                    archive.metrics().commitment_reports.with_label_values(&["sent_same_association"]).inc();
                    tracing::info!(
                        transaction = key,
                        "a report of storage commitment was sent over the open association"
                    );
                }
                return;
            }
            // Somebody has found the result meanwhile, or sent it.
            Err(RecordError::Conflict { .. }) => {}
            Err(error) => {
                tracing::info!(transaction = key, %error, "what became of a report is not recorded: it is sent again");
                return;
            }
        }
    }
}

impl Archive {
    /// Works on transactions in the groups that this node leads, until it drains: one task of the node.
    pub async fn work_on_commitments(self, reporter: Arc<dyn Reporter>) {
        work::work(self, reporter).await;
    }
}
