//! The work on transactions: what is due in the groups that this node leads is verified, then reported.

use super::{INSTANCES_MAX, KIND, Reference, Reporter, reason, transaction::Transaction};
use crate::{Archive, Expect, Freshness, InstanceRow, QueryError, RecordError, Selection, due};
use archive_model::{Uid, may_be_storage};
use futures::{StreamExt, TryStreamExt, stream};
use raft_types::{BodyRef, StoredObject, Verdict};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Between two looks at how many transactions wait.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Milliseconds within which every transaction that waits is due: its last pause and some more.
const WAITING_WITHIN_MS: u64 = 2 * 3600 * 1000;
/// Transactions that this node works on at the same time.
const TRANSACTIONS_MAX: usize = 8;
/// Contents that are verified at the same time, of all transactions; a replica reads two (`raft/groups`).
const VERIFIED_AT_ONCE: usize = 4;
/// SOP Instance UIDs that one look-up asks for.
const LOOKED_UP_AT_ONCE: usize = 500;
/// Milliseconds within which too few replicas may answer, before that is what is reported.
const PATIENCE_MS: u64 = 10 * 60 * 1000;

#[derive(Clone)]
struct Worker {
    archive: Archive,
    reporter: Arc<dyn Reporter>,
    verifying: Arc<Semaphore>,
}

/// Until this node drains.
pub(super) async fn work(archive: Archive, reporter: Arc<dyn Reporter>) {
    let worker = Worker { archive, reporter, verifying: Arc::new(Semaphore::new(VERIFIED_AT_ONCE)) };
    let bring_on = |key: String| {
        let worker = worker.clone();
        async move {
            if let Err(error) = worker.one(&key).await {
                tracing::info!(transaction = key, %error, "a storage commitment is worked on again");
            }
        }
    };
    tokio::select! {
        () = due::work(&worker.archive, KIND, TRANSACTIONS_MAX, bring_on) => {}
        () = worker.count() => {}
    }
}

impl Worker {
    /// Says now and then how many transactions wait.
    async fn count(&self) {
        let records = self.archive.records(KIND);
        loop {
            let until_ms = self.archive.clock().unix_ms().saturating_add(WAITING_WITHIN_MS);
            let waiting = records.due(until_ms, due::DUE_MAX).await.map_or(0, |due| due.len());
            self.archive.metrics().commitments_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    /// Brings one transaction as far as it comes now.
    async fn one(&self, key: &str) -> Result<(), RecordError> {
        let records = self.archive.records(KIND);
        // What was verified stays so when the record changes on the way: its requester has hung up, mostly. The list does not.
        let mut verified = None;
        // Of a record that is read here fresh: whoever led before may have found the result.
        while let Some(record) = records.get(key, Freshness::ReadIndex).await? {
            let now = self.archive.clock().unix_ms();
            let Some(mut own) = Transaction::decode(&record.body) else {
                tracing::warn!(transaction = key, "a storage commitment of a newer release: upgrade this node");
                return Ok(());
            };
            if !own.is_due(now) {
                return Ok(());
            }
            let mut count = None;
            if !own.is_found() {
                if verified.is_none() {
                    verified = self.failures(key, &own).await?;
                }
                match verified.clone() {
                    Some(failed) => {
                        own.find(failed, self.archive.clock().unix_ms());
                        count = Some(match own.failures() {
                            0 => "committed",
                            failures if failures == own.wanted().len() => "failed",
                            _ => "partly",
                        });
                    }
                    None => own.look_again(self.archive.clock().unix_ms()),
                }
            } else if own.is_unsent() {
                self.report(key, &mut own).await;
            } else {
                match records.remove(key, record.version).await {
                    Ok(()) | Err(RecordError::Conflict { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            let due = own.due(self.archive.clock().unix_ms());
            match records.put(key, Expect::Version(record.version), own.encode(), Some(due)).await {
                Ok(_) => {
                    if let Some(result) = count {
                        self.archive.metrics().commitments.with_label_values(&[result]).inc();
                        let (instances, failed) = (own.wanted().len(), own.failures());
                        tracing::info!(transaction = key, instances, failed, "the result of a storage commitment");
                    }
                }
                // Another node, or an association, was faster: what it wrote is what counts (C-2).
                Err(RecordError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Which instances of the list are not committed, and why; none while too few replicas answer.
    async fn failures(&self, key: &str, own: &Transaction) -> Result<Option<Vec<(usize, u16)>>, RecordError> {
        let patient = self.archive.clock().unix_ms() < own.asked_unix_ms.saturating_add(PATIENCE_MS);
        let (list, archive) = (own.wanted(), &self.archive);
        // C4: what was acknowledged before this is seen.
        match archive.read_index(archive.log().groups()).await {
            Ok(()) => {}
            Err(error) if patient => return Err(error.into()),
            Err(error) => {
                tracing::warn!(transaction = key, %error, "a storage commitment fails: its groups could not be reached");
                return Ok(Some((0..list.len().min(INSTANCES_MAX)).map(|at| (at, reason::RESOURCES)).collect()));
            }
        }
        let mut failed = Vec::new();
        for (number, part) in list.chunks(LOOKED_UP_AT_ONCE).enumerate() {
            let rows = Arc::new(self.rows(part).await?);
            let verdicts: Vec<Option<u16>> = stream::iter(part.to_vec())
                .map(|reference| {
                    let rows = Arc::clone(&rows);
                    async move { self.judge(&reference, rows.get(&reference.instance)).await }
                })
                .buffered(VERIFIED_AT_ONCE)
                .try_collect()
                .await?;
            let first = number * LOOKED_UP_AT_ONCE;
            failed.extend(verdicts.into_iter().enumerate().filter_map(|(at, why)| Some((first + at, why?))));
            // No use in the rest before these have been answered for.
            if patient && failed.iter().any(|(_, why)| *why == reason::RESOURCES) {
                return Ok(None);
            }
        }
        Ok(Some(failed))
    }

    /// The rows of some instances, by SOP Instance UID.
    async fn rows(&self, part: &[Reference]) -> Result<HashMap<String, Vec<InstanceRow>>, QueryError> {
        let instances: Vec<Uid> = part.iter().filter_map(|reference| Uid::parse(&reference.instance).ok()).collect();
        let catalog = Arc::clone(self.archive.catalog());
        let selection = Selection { instances, ..Selection::default() };
        let found = self.archive.look_up(move || catalog.instances(&selection)).await?;
        let mut rows = HashMap::<String, Vec<InstanceRow>>::new();
        for row in found {
            rows.entry(row.instance.to_string()).or_default().push(row);
        }
        Ok(rows)
    }

    /// Why an instance is not committed; none if it is (C-1).
    async fn judge(&self, wanted: &Reference, rows: Option<&Vec<InstanceRow>>) -> Result<Option<u16>, QueryError> {
        if !may_be_storage(&wanted.class) {
            return Ok(Some(reason::CLASS_NOT_SUPPORTED));
        }
        let Some(rows) = rows else { return Ok(Some(reason::NO_SUCH_INSTANCE)) };
        let mut contents = Vec::new();
        for row in rows {
            let (catalog, row) = (Arc::clone(self.archive.catalog()), row.clone());
            contents.extend(
                self.archive
                    .look_up(move || {
                        let others = catalog.other_contents(&row)?;
                        Ok(std::iter::once(row).chain(others).collect::<Vec<_>>())
                    })
                    .await?,
            );
        }
        contents.retain(|content| content.sop_class.as_str() == wanted.class);
        if contents.is_empty() {
            return Ok(Some(reason::CLASS_CONFLICT));
        }
        let mut why = None;
        for content in &contents {
            match self.verdict(content).await? {
                Verdict::Quorum => {}
                Verdict::Damaged => {
                    tracing::warn!(study = %content.study, instance = %content.instance,
                        "an instance is damaged on too many disks to be committed: it is being repaired");
                    return Ok(Some(reason::PROCESSING));
                }
                Verdict::Unknown => why = Some(reason::RESOURCES),
            }
        }
        Ok(why)
    }

    async fn verdict(&self, content: &InstanceRow) -> Result<Verdict, QueryError> {
        let _turn = self.verifying.acquire().await.map_err(|_| QueryError::Stopping)?;
        let body = |part: &archive_catalog::BlockPart| BodyRef { index: part.index, length_bytes: part.length_bytes };
        let bodies = content.blocks.iter().map(body).collect();
        let object = StoredObject { group: content.group, bodies, digest: content.digest };
        Ok(self.archive.log().verify(object).await.verdict)
    }

    /// Tries to report once.
    async fn report(&self, key: &str, own: &mut Transaction) {
        let Some(report) = own.report(key) else { return };
        let requester = own.requester.clone();
        let sent = match self.archive.remote(&requester) {
            Some(remote) => self.reporter.report(&remote, &report).await,
            None => Err("its address is not known: give it by --remote-ae".into()),
        };
        let now = self.archive.clock().unix_ms();
        let for_ms = u64::try_from(self.archive.settings().commitment_report_for.as_millis()).unwrap_or(u64::MAX);
        let result = match sent {
            Ok(()) => {
                own.sent(now);
                tracing::info!(transaction = key, calling_ae = requester, "a report of storage commitment was sent");
                "sent"
            }
            Err(why) => {
                let first = own.tries() == 0;
                if own.try_again(now, for_ms) {
                    tracing::warn!(
                        transaction = key,
                        calling_ae = requester,
                        why,
                        "the report of a storage commitment is given up: its requester may ask again"
                    );
                    "given_up"
                } else {
                    if first {
                        tracing::warn!(
                            transaction = key,
                            calling_ae = requester,
                            why,
                            "the report of a storage commitment was not sent: it is tried again for days"
                        );
                    } else {
                        tracing::debug!(transaction = key, why, "the report of a storage commitment was not sent");
                    }
                    "failed"
                }
            }
        };
        self.archive.metrics().commitment_reports.with_label_values(&[result]).inc();
    }
}
