//! The modality worklist (PS3.4 Annex K): scheduled procedure steps that others enter, and modalities ask for.
//!
//! ```text
//!   POST /api/worklist ─► put ─► record worklist/«Study Instance UID»/«Scheduled Procedure Step ID» ─► on every node
//!   C-FIND             ─► find: each entry against the keys, as they are read, with back-pressure
//!   MPPS               ─► follow: Scheduled Procedure Step Status (0040,0020) of the step that is performed
//! ```
//!
//! An entry is one scheduled step: one item in (0040,0100). What is COMPLETED or DISCONTINUED is kept and answered only to
//! who asks for that status: a modality lists what is still to be done.

use crate::{
    Archive, Freshness, QueryError, RecordError, Records,
    documents::{DocumentError, decode, update},
};
use archive_catalog::Record;
use archive_model::{
    DataSet, Element, Tag, VR, Value,
    matching::{Meaning, Pattern},
    tags,
};
use std::collections::VecDeque;

const KIND: &str = "worklist";
/// Entries that one query looks at, at most: more are history that somebody should delete.
const ENTRIES_MAX: u64 = 50_000;
/// Entries that are read at a time.
const PAGE: u32 = 200;
/// What is no work any more.
const DONE: [&str; 2] = ["COMPLETED", "DISCONTINUED"];

/// Why an entry was not kept.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// An attribute that a modality needs is missing or malformed.
    #[error("{tag} {why}")]
    Attribute {
        /// The attribute.
        tag: Tag,
        /// What is wrong and what would be right.
        why: &'static str,
    },
    /// It was not kept or read.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// What names an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryId {
    /// Study Instance UID.
    pub study: String,
    /// Scheduled Procedure Step ID.
    pub step: String,
}

impl EntryId {
    fn key(&self) -> String {
        format!("{}/{}", self.study, self.step)
    }

    /// The name of an entry, from what it says.
    ///
    /// # Errors
    /// For an entry that lacks what a modality needs (PS3.4 table K.6-1, type 1).
    pub fn of(entry: &DataSet) -> Result<Self, EntryError> {
        let [item] = entry.items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE) else {
            let why = "(Scheduled Procedure Step Sequence) needs exactly one item: one entry is one step";
            return Err(EntryError::Attribute { tag: tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, why });
        };
        let why = "is missing: a modality cannot work without it";
        for tag in [tags::PATIENT_NAME, tags::PATIENT_ID] {
            needed(entry, tag, why)?;
        }
        for tag in [
            tags::MODALITY,
            tags::SCHEDULED_STATION_AE_TITLE,
            tags::SCHEDULED_PROCEDURE_STEP_START_DATE,
            tags::SCHEDULED_PROCEDURE_STEP_START_TIME,
        ] {
            needed(item, tag, why)?;
        }
        let study = needed(entry, tags::STUDY_INSTANCE_UID, why)?;
        if archive_model::Uid::parse(study).is_err() {
            return Err(EntryError::Attribute { tag: tags::STUDY_INSTANCE_UID, why: "is no UID" });
        }
        let step = needed(item, tags::SCHEDULED_PROCEDURE_STEP_ID, why)?;
        if step.chars().count() > 16 {
            let why = "has more than 16 characters";
            return Err(EntryError::Attribute { tag: tags::SCHEDULED_PROCEDURE_STEP_ID, why });
        }
        Ok(Self { study: study.to_owned(), step: step.to_owned() })
    }
}

fn needed<'a>(set: &'a DataSet, tag: Tag, why: &'static str) -> Result<&'a str, EntryError> {
    let text = set.text(tag).unwrap_or_default().trim_matches([' ', '\0']);
    if text.is_empty() { Err(EntryError::Attribute { tag, why }) } else { Ok(text) }
}

/// The worklist.
#[derive(Clone)]
pub struct Worklist {
    records: Records,
}

impl Archive {
    /// The modality worklist.
    #[must_use]
    pub fn worklist(&self) -> Worklist {
        Worklist { records: self.records(KIND) }
    }
}

impl Worklist {
    /// Enters a step, or changes it as a whole. A step that has no status is SCHEDULED.
    ///
    /// # Errors
    /// See [`EntryError`].
    pub async fn put(&self, mut entry: DataSet) -> Result<EntryId, EntryError> {
        let id = EntryId::of(&entry)?;
        let item = entry.items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE);
        if item.iter().all(|item| item.text(tags::SCHEDULED_PROCEDURE_STEP_STATUS).is_none()) {
            set_status(&mut entry, "SCHEDULED");
        }
        update(&self.records, &id.key(), |_| Ok::<_, EntryError>(entry.clone())).await?;
        Ok(id)
    }

    /// One entry.
    ///
    /// # Errors
    /// When a fresh answer cannot be had.
    pub async fn get(&self, id: &EntryId) -> Result<Option<DataSet>, DocumentError> {
        self.records.get(&id.key(), Freshness::ReadIndex).await?.as_ref().map(decode).transpose()
    }

    /// Entries by key, those behind `after`; at most `limit`.
    ///
    /// # Errors
    /// When a fresh answer cannot be had.
    pub async fn list(&self, after: &str, limit: u32) -> Result<Vec<(String, DataSet)>, DocumentError> {
        let page = self.records.list(after, limit, Freshness::ReadIndex).await?;
        page.iter().map(|record| Ok((record.name.key.clone(), decode(record)?))).collect()
    }

    /// Takes an entry off the list; false if there is none.
    ///
    /// # Errors
    /// When it is not known whether it is gone.
    pub async fn remove(&self, id: &EntryId) -> Result<bool, DocumentError> {
        let Some(found) = self.records.get(&id.key(), Freshness::ReadIndex).await? else { return Ok(false) };
        match self.records.remove(&id.key(), found.version).await {
            Ok(()) => Ok(true),
            Err(RecordError::Conflict { current: None }) => Ok(false),
            Err(RecordError::Conflict { .. }) => Err(DocumentError::Busy),
            Err(error) => Err(error.into()),
        }
    }

    /// Entries that match `keys` (PS3.4 K.2.2.2): every attribute can be a key and is returned if it is one.
    ///
    /// # Errors
    /// For keys that mean nothing.
    pub fn find(&self, keys: DataSet) -> Result<WorklistMatches, QueryError> {
        let patterns = keys.iter().filter(|key| key.tag != tags::SPECIFIC_CHARACTER_SET);
        let patterns = patterns.map(|key| Ok((key.tag, Pattern::of(key, &Meaning::default())?)));
        let patterns: Result<_, archive_model::matching::BadPattern> = patterns.collect();
        let patterns = patterns.map_err(|bad| QueryError::Invalid { why: bad.to_string() })?;
        let asks_status = keys
            .items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE)
            .iter()
            .any(|item| item.texts(tags::SCHEDULED_PROCEDURE_STEP_STATUS).iter().any(|text| !text.trim().is_empty()));
        Ok(WorklistMatches {
            records: self.records.clone(),
            freshness: Freshness::ReadIndex,
            page: VecDeque::new(),
            last: Some(String::new()),
            looked_at: 0,
            keys,
            patterns,
            asks_status,
        })
    }

    /// Says on the steps that `performed` names how far they are: a performed procedure step with its Scheduled Step
    /// Attributes Sequence. Steps that nobody entered are nothing to say of.
    ///
    /// # Errors
    /// When an entry could not be changed.
    pub(crate) async fn follow(&self, performed: &DataSet) -> Result<(), DocumentError> {
        let status = match performed.text(tags::PERFORMED_PROCEDURE_STEP_STATUS).map(str::trim) {
            Some("IN PROGRESS") => "STARTED",
            Some("COMPLETED") => "COMPLETED",
            Some("DISCONTINUED") => "DISCONTINUED",
            _ => return Ok(()),
        };
        for item in performed.items(tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE) {
            let text = |tag| item.text(tag).unwrap_or_default().trim_matches([' ', '\0']).to_owned();
            let id = EntryId { study: text(tags::STUDY_INSTANCE_UID), step: text(tags::SCHEDULED_PROCEDURE_STEP_ID) };
            if id.study.is_empty() || id.step.is_empty() || self.get(&id).await?.is_none() {
                continue;
            }
            let key = id.key();
            let said = update(&self.records, &key, |entry| {
                let mut entry = entry.ok_or(Followed::Gone)?;
                set_status(&mut entry, status);
                Ok::<_, Followed>(entry)
            });
            match said.await {
                Ok(_) | Err(Followed::Gone) => {}
                Err(Followed::Document(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Why a step was not followed.
enum Followed {
    /// Its entry was removed meanwhile.
    Gone,
    Document(DocumentError),
}

impl From<DocumentError> for Followed {
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

fn set_status(entry: &mut DataSet, status: &str) {
    let mut items = entry.items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE).to_vec();
    for item in &mut items {
        item.put_text(tags::SCHEDULED_PROCEDURE_STEP_STATUS, VR::CS, status);
    }
    entry.put(Element { tag: tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, vr: VR::SQ, value: Value::Items(items) });
}

/// Entries that match, as they are found.
pub struct WorklistMatches {
    records: Records,
    freshness: Freshness,
    page: VecDeque<Record>,
    /// The key behind which the next page begins; none after the last.
    last: Option<String>,
    looked_at: u64,
    keys: DataSet,
    patterns: Vec<(Tag, Pattern)>,
    asks_status: bool,
}

impl WorklistMatches {
    /// The next answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<DataSet, QueryError>> {
        loop {
            let record = match self.page.pop_front() {
                Some(record) => record,
                None => match self.turn().await {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                },
            };
            self.looked_at += 1;
            if self.looked_at > ENTRIES_MAX {
                let why = "the worklist has more than 50000 entries: delete what is done";
                return Some(Err(QueryError::Invalid { why: why.into() }));
            }
            let entry = match decode(&record) {
                Ok(entry) => entry,
                Err(error) => return Some(Err(QueryError::Invalid { why: error.to_string() })),
            };
            if self.matches(&entry) {
                return Some(Ok(answer(&self.keys, &entry)));
            }
        }
    }

    fn matches(&self, entry: &DataSet) -> bool {
        let is_done = || {
            entry.items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE).iter().any(|item| {
                item.text(tags::SCHEDULED_PROCEDURE_STEP_STATUS).is_some_and(|status| DONE.contains(&status.trim()))
            })
        };
        self.patterns.iter().all(|(tag, pattern)| pattern.matches(entry.get(*tag))) && (self.asks_status || !is_done())
    }

    /// Reads the next page; false when there is none.
    async fn turn(&mut self) -> Result<bool, QueryError> {
        let Some(after) = self.last.take() else { return Ok(false) };
        let page = match self.records.list(&after, PAGE, self.freshness).await {
            Ok(page) => page,
            Err(RecordError::Query(error)) => return Err(error),
            Err(error) => return Err(QueryError::Invalid { why: error.to_string() }),
        };
        self.freshness = Freshness::Local; // the first page has waited for what was acknowledged before
        self.last = page.last().map(|record| record.name.key.clone());
        let some = !page.is_empty();
        self.page = page.into();
        Ok(some)
    }
}

/// What is returned of `entry`: the attributes of `keys`, empty where it has none; of a sequence the items that match, each
/// with what the key's item asks for, or whole if it asks for nothing.
fn answer(keys: &DataSet, entry: &DataSet) -> DataSet {
    let of = |key: &Element| {
        let value = match (&key.value, entry.get(key.tag).map(|own| &own.value)) {
            (_, None) => Value::Empty,
            (Value::Items(asked), Some(Value::Items(own))) if asked.first().is_some_and(|item| !item.is_empty()) => {
                let pattern = Pattern::of(key, &Meaning::default()).unwrap_or(Pattern::Universal);
                let one =
                    |item: &DataSet| Element { tag: key.tag, vr: key.vr, value: Value::Items(vec![item.clone()]) };
                let matching = own.iter().filter(|item| pattern.matches(Some(&one(item))));
                Value::Items(matching.map(|item| answer(&asked[0], item)).collect())
            }
            (_, Some(own)) => own.clone(),
        };
        let vr = entry.get(key.tag).map_or(key.vr, |own| own.vr);
        Element { tag: key.tag, vr, value }
    };
    keys.iter().filter(|key| key.tag != tags::SPECIFIC_CHARACTER_SET).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tag: Tag, vr: VR, value: &str) -> Element {
        let value = if value.is_empty() { Value::Empty } else { Value::Text(vec![value.into()]) };
        Element { tag, vr, value }
    }

    fn sequence(item: DataSet) -> Element {
        Element { tag: tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, vr: VR::SQ, value: Value::Items(vec![item]) }
    }

    fn entry() -> DataSet {
        let item = [
            text(tags::MODALITY, VR::CS, "CT"),
            text(tags::SCHEDULED_STATION_AE_TITLE, VR::AE, "CT1"),
            text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, VR::DA, "20261126"),
            text(tags::SCHEDULED_PROCEDURE_STEP_START_TIME, VR::TM, "0930"),
            text(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, "S1"),
        ];
        [
            text(tags::PATIENT_NAME, VR::PN, "Doe^Jane"),
            text(tags::PATIENT_ID, VR::LO, "P1"),
            text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3"),
            sequence(item.into_iter().collect()),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn an_entry_is_named_by_study_and_step_and_says_what_it_lacks() {
        let id = EntryId::of(&entry()).expect("an entry");
        assert_eq!(id.key(), "1.2.3/S1");
        for tag in [tags::PATIENT_ID, tags::STUDY_INSTANCE_UID, tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE] {
            let mut less = entry();
            less.remove(tag);
            assert!(matches!(EntryId::of(&less), Err(EntryError::Attribute { tag: said, .. }) if said == tag), "{tag}");
        }
    }

    #[test]
    fn an_answer_has_what_was_asked_and_nothing_else() {
        let asked_item = [text(tags::MODALITY, VR::CS, "CT"), text(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, "")];
        let keys: DataSet = [
            text(tags::PATIENT_NAME, VR::PN, ""),
            text(tags::ACCESSION_NUMBER, VR::SH, ""),
            sequence(asked_item.into_iter().collect()),
        ]
        .into_iter()
        .collect();
        let found = answer(&keys, &entry());
        assert_eq!(found.text(tags::PATIENT_NAME), Some("Doe^Jane"));
        assert!(found.get(tags::ACCESSION_NUMBER).is_some_and(|element| element.value == Value::Empty));
        assert!(found.get(tags::PATIENT_ID).is_none());
        let [item] = found.items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE) else { panic!("one item") };
        assert_eq!((item.text(tags::SCHEDULED_PROCEDURE_STEP_ID), item.len()), (Some("S1"), 2));
    }
}
