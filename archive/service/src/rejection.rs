//! Rejection notes (IHE IOCM, RAD-66): a Key Object Selection document with one of four titles takes the instances that it
//! names out of every answer.
//!
//! ```text
//!   note ─► Ingest: its title and its references are read before it is stored
//!             │ 1  record rejection/NOTE {what was decided, what it names}      due 5 s later
//!             │ 2  the note itself, as any instance
//!             │ 3  Reject for each study that it names (archive_catalog: reject.rs, J-1…J-6)
//!             │ 4  the record is removed
//!             ▼ success
//!           who leads the record's group does 3 and 4 of what is still there when it is due
//! ```
//!
//! - N-1 A note that was answered with success has taken effect, or is recorded and takes effect whichever node dies.
//! - N-2 What it does was decided when it came, by the settings of the node that took it, and is in the log: every node does
//!   the same, and a setting that is changed changes nothing that was decided.
//! - N-3 Nothing is rejected by a note that is not stored.
//! - N-4 A note acts once: one that is stored already, and not recorded any more, does nothing when it comes again.
//! - N-5 The note itself is an instance as any other: it is found and retrieved, and it does not reject itself.
//!
//! | a node dies… | and then |
//! |---|---|
//! | before the record | nothing is there; the sender has no answer, and sends the note again |
//! | between the record and the note | nothing is rejected. The record waits for the note for a day and goes; the note sent again finds it |
//! | after the note, whatever studies were done | the leader of the record's group does them all: those that were done count as done (J-4) |
//! | before the record is removed | the same, with nothing left to do |
//!
//! *Who may send one* is who may store: the registry of peers has no right of its own for it.

mod note;
#[cfg(test)]
mod tests;

pub use archive_catalog::{RejectAction, Rejected, RejectedAgain, RejectedState, Rejection};
pub use note::RejectionTitle;
pub(crate) use note::{Note, note_of};

use crate::{Archive, Expect, Freshness, QueryError, RecordError, Selection, StoreError};
use archive_catalog::{Command, InstanceHead, Outcome, Record, Source, Target};
use archive_model::Uid;
use bytes::Bytes;
use note::Studies;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc, time::Duration};

/// The kind of the records.
const KIND: &str = "rejection";
/// The version of their bodies.
const VERSION: u8 = 1;
/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Before what could not be done is tried again.
const REST: Duration = Duration::from_secs(1);
/// Milliseconds that who took a note has for it, before others look after it.
const OWN_MS: u64 = 5_000;
/// Milliseconds between two looks whether a note has come after all.
const AGAIN_MS: u64 = 60_000;
/// Milliseconds for which a record waits for its note: a day, as blocks that nobody goes on with (`orphans.rs`).
const WAIT_MS: u64 = 24 * 3600 * 1000;
/// Instances of one command: each takes some 0.2 ms to apply, and other groups wait for the transaction.
const AT_ONCE: usize = 250;

/// What becomes of the instances that a note of one title names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionPolicy {
    /// None: they stay visible, and the note is only kept.
    pub action: Option<RejectAction>,
    /// What becomes of one that is stored again.
    pub again: RejectedAgain,
}

impl FromStr for RejectionPolicy {
    type Err = String;

    /// `show`, `hide`, `delete`, and behind a colon `keep`, `refuse` or `restore`; `keep` without it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (action, again) = text.split_once(':').unwrap_or((text, "keep"));
        let action = match action {
            "show" => None,
            "hide" => Some(RejectAction::Hide),
            "delete" => Some(RejectAction::Delete),
            other => return Err(format!("`{other}`: `show`, `hide` or `delete`")),
        };
        let again = match again {
            "keep" => RejectedAgain::Keep,
            "refuse" => RejectedAgain::Refuse,
            "restore" => RejectedAgain::Restore,
            other => return Err(format!("`{other}`: `keep`, `refuse` or `restore` behind the colon")),
        };
        Ok(Self { action, again })
    }
}

impl fmt::Display for RejectionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            None => return f.write_str("show"),
            Some(RejectAction::Hide) => "hide",
            Some(RejectAction::Delete) => "delete",
        };
        let again = match self.again {
            RejectedAgain::Keep => "keep",
            RejectedAgain::Refuse => "refuse",
            RejectedAgain::Restore => "restore",
        };
        write!(f, "{action}:{again}")
    }
}

/// The policy of each title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionPolicies {
    /// 113001, Rejected for Quality Reasons. Default `hide:keep`.
    pub quality: RejectionPolicy,
    /// 113037, Rejected for Patient Safety Reasons. Default `hide:keep`.
    pub patient_safety: RejectionPolicy,
    /// 113038, Incorrect Modality Worklist Entry. Default `hide:keep`.
    pub wrong_worklist_entry: RejectionPolicy,
    /// 113039, Data Retention Policy Expired. Default `delete:restore`: what is brought back later is wanted again.
    pub retention_expired: RejectionPolicy,
}

impl RejectionPolicies {
    /// The policy of a title.
    #[must_use]
    pub fn of(&self, title: RejectionTitle) -> RejectionPolicy {
        match title {
            RejectionTitle::Quality => self.quality,
            RejectionTitle::PatientSafety => self.patient_safety,
            RejectionTitle::WrongWorklistEntry => self.wrong_worklist_entry,
            RejectionTitle::RetentionExpired => self.retention_expired,
        }
    }
}

impl Default for RejectionPolicies {
    fn default() -> Self {
        let hide = RejectionPolicy { action: Some(RejectAction::Hide), again: RejectedAgain::Keep };
        let delete = RejectionPolicy { action: Some(RejectAction::Delete), again: RejectedAgain::Restore };
        Self { quality: hide, patient_safety: hide, wrong_worklist_entry: hide, retention_expired: delete }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Instances that answer again.
    pub instances: u64,
    /// Instances that are not there, and will not be hidden when they come.
    pub lifted: u64,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    rejection: Rejection,
    studies: Studies,
}

impl Body {
    fn encode(&self) -> Bytes {
        // Plain values: nothing here can fail to serialise.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default().into()
    }

    /// None for what a newer release wrote.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then(|| postcard::from_bytes(rest).ok())?
    }
}

/// A note that is recorded, and to be stored.
#[derive(Debug)]
pub(crate) struct Pending {
    key: String,
}

impl Archive {
    /// Before a note is stored: records what it is to do. None when it does nothing: by its policy, or because it did it before.
    pub(crate) async fn begin_rejection(
        &self,
        head: &InstanceHead,
        note: Note,
        source: &Source,
    ) -> Result<Option<Pending>, StoreError> {
        let policy = self.settings().rejections.of(note.title);
        let Some(action) = policy.action else { return Ok(None) };
        let (records, key) = (self.records(KIND), head.instance.as_str().to_owned());
        let name = [head.study.clone(), head.series.clone(), head.instance.clone()];
        // The record first: who finds neither has not met the moment between the note and the removal of its record.
        let known = records.get(&key, Freshness::ReadIndex).await.map_err(not_recorded)?;
        let is_held = self.is_held(&name).await.map_err(|error| not_recorded(error.into()))?;
        match (&known, is_held) {
            // It is stored, and has not taken effect yet.
            (Some(_), true) => return Ok(Some(Pending { key })),
            (None, true) => {
                tracing::info!(note = key, "a rejection note that was stored before has come again: it does nothing");
                return Ok(None);
            }
            // One of a note that was not stored says what that one said, and this one may say something else.
            (_, false) => {}
        }
        let now = self.clock().unix_ms();
        let rejection = Rejection {
            note: name,
            code: note.title.code().to_owned(),
            action,
            again: policy.again,
            source: if source.calling_ae.is_empty() { source.peer.clone() } else { source.calling_ae.clone() },
            rejected_unix_ms: now,
        };
        let body = Body { rejection, studies: note.studies };
        let expect = known.map_or(Expect::Absent, |record| Expect::Version(record.version));
        match records.put(&key, expect, body.encode(), Some(now + OWN_MS)).await {
            // Somebody sends the same note at the same time: whose record it is does not matter.
            Ok(_) | Err(RecordError::Conflict { .. }) => Ok(Some(Pending { key })),
            Err(error) => Err(not_recorded(error)),
        }
    }

    /// After the note was stored: does what it says. What cannot be done now is done later (N-1).
    pub(crate) async fn finish_rejection(&self, pending: Pending) {
        if let Err(error) = self.work_on_rejection(&pending.key).await {
            tracing::warn!(note = pending.key, %error, "a rejection note is stored, and takes effect later");
        }
    }

    /// Does what recorded notes say, in the groups that this node leads, until it drains: one task of the node.
    pub async fn work_on_rejections(self) {
        let records = self.records(KIND);
        let work = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let due = records.due(self.clock().unix_ms(), 1000).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "what is due is not known");
                    Vec::new()
                });
                for key in due {
                    if let Err(error) = self.work_on_rejection(&key).await {
                        tracing::info!(note = key, %error, "a rejection note is worked on again");
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.draining().cancelled() => {}
            () = work => {}
        }
    }

    /// Does what one recorded note says, if it is stored.
    async fn work_on_rejection(&self, key: &str) -> Result<(), RecordError> {
        let records = self.records(KIND);
        let Some(record) = records.get(key, Freshness::ReadIndex).await? else { return Ok(()) };
        let Some(body) = Body::decode(&record.body) else {
            tracing::warn!(note = key, "a rejection note was recorded by a newer release: upgrade this node");
            return self.look_later(&record).await;
        };
        // N-3.
        if !self.is_held(&body.rejection.note).await? {
            let now = self.clock().unix_ms();
            if now < record.created_unix_ms.saturating_add(WAIT_MS) {
                return self.look_later(&record).await;
            }
            tracing::info!(
                note = key,
                "a rejection note that was announced has not come within a day: it is forgotten"
            );
            return removed(records.remove(key, record.version).await);
        }
        let (mut hidden, mut deleted, mut awaited) = (0, 0, 0);
        let parts = body.studies.in_parts(AT_ONCE, &body.rejection.note[2]);
        let studies: BTreeSet<Uid> = parts.iter().map(|(study, _)| study.clone()).collect();
        for (study, named) in parts {
            let group = self.group_of(&study)?;
            let command = Command::Reject { rejection: body.rejection.clone(), study: study.clone(), named };
            match self.propose(group, &command, Bytes::new()).await?.0 {
                Outcome::Rejected { hidden: more_hidden, deleted: more_deleted, awaited: more_awaited } => {
                    hidden += more_hidden;
                    deleted += more_deleted;
                    awaited += more_awaited;
                }
                other => return Err(StoreError::Refused { why: format!("{other:?}") }.into()),
            }
        }
        // Before the record goes, so that whoever must do this again tells of it too.
        for study in &studies {
            self.study_changed(study, true).await?;
        }
        self.metrics().rejected.with_label_values(&["hidden"]).inc_by(hidden);
        self.metrics().rejected.with_label_values(&["deleted"]).inc_by(deleted);
        self.metrics().rejected.with_label_values(&["awaited"]).inc_by(awaited);
        let Rejection { code, source, .. } = &body.rejection;
        tracing::warn!(note = key, code, source, hidden, deleted, awaited, "a rejection note took effect");
        removed(records.remove(key, record.version).await)
    }

    /// Looks at a record again in a while.
    async fn look_later(&self, record: &Record) -> Result<(), RecordError> {
        let due = self.clock().unix_ms().saturating_add(AGAIN_MS);
        let records = self.records(KIND);
        let put = records.put(&record.name.key, Expect::Version(record.version), record.body.clone(), Some(due)).await;
        removed(put.map(|_| ()))
    }

    /// Whether an instance is in the index of this node, which has what was acknowledged.
    async fn is_held(&self, [study, series, instance]: &[Uid; 3]) -> Result<bool, QueryError> {
        let group = self.log().group_of(study.as_str().as_bytes()).ok_or(QueryError::Starting)?;
        self.read_index(vec![group]).await?;
        let selection = Selection {
            studies: vec![study.clone()],
            series: vec![series.clone()],
            instances: vec![instance.clone()],
            ..Selection::default()
        };
        Ok(!self.instances(selection, Freshness::Local).await?.is_empty())
    }

    /// What rejection notes name, the newest notes first: of one study or of all, with those that were restored if
    /// `also_restored`.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn rejections(
        &self,
        study: Option<Uid>,
        also_restored: bool,
        limit: u32,
    ) -> Result<Vec<Rejected>, QueryError> {
        let groups = match &study {
            Some(study) => vec![self.log().group_of(study.as_str().as_bytes()).ok_or(QueryError::Starting)?],
            None => self.log().groups(),
        };
        self.read_index(groups).await?;
        let catalog = Arc::clone(self.catalog());
        self.look_up(move || catalog.rejections(study.as_ref(), also_restored, limit)).await
    }

    /// Takes back what notes did to `target`: what is hidden answers again, on every node.
    ///
    /// # Errors
    /// Like a store; to repeat it is harmless.
    pub async fn restore_rejected(&self, target: Target, source: &str) -> Result<Restored, StoreError> {
        let group = self.group_of(&target.study)?;
        match self.propose(group, &Command::Restore { target: target.clone() }, Bytes::new()).await?.0 {
            Outcome::Restored { instances, lifted } => {
                if instances > 0
                    && let Err(error) = self.study_changed(&target.study, true).await
                {
                    tracing::info!(study = %target.study, %error, "rejected instances are restored, and nobody is told");
                }
                if instances + lifted > 0 {
                    let Target { study, series, instance } = &target;
                    let (series, instance) = (series.as_ref().map(Uid::as_str), instance.as_ref().map(Uid::as_str));
                    tracing::warn!(%study, series, instance, instances, lifted, source, "rejected instances are restored");
                }
                Ok(Restored { instances, lifted })
            }
            other => Err(StoreError::Refused { why: format!("{other:?}") }),
        }
    }
}

/// Another node was faster, or the same one: what it did is what there was to do.
fn removed(result: Result<(), RecordError>) -> Result<(), RecordError> {
    match result {
        Err(RecordError::Conflict { .. }) => Ok(()),
        other => other,
    }
}

/// Without its record a note is not stored.
fn not_recorded(error: RecordError) -> StoreError {
    match error {
        RecordError::Store(error) => error,
        RecordError::Query(QueryError::Stopping) => StoreError::Stopping,
        RecordError::Query(QueryError::NoQuorum | QueryError::Starting) => StoreError::NoQuorum,
        RecordError::TooLarge => {
            StoreError::Refused { why: "it rejects too many instances: send several notes".into() }
        }
        RecordError::Conflict { .. } | RecordError::Query(_) => StoreError::Refused { why: error.to_string() },
    }
}
