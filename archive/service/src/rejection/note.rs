//! What makes a data set a rejection note (PS3.3 C.17.3, PS3.16 CID 7011), and what it names.

use archive_model::{DataSet, Uid, tags};
use serde::{Deserialize, Serialize};

/// Key Object Selection Document Storage.
const KEY_OBJECT_SELECTION: &str = "1.2.840.10008.5.1.4.1.1.88.59";
/// The coding scheme of the titles.
const DCM: &str = "DCM";

/// The four titles of rejection notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionTitle {
    /// Rejected for Quality Reasons.
    Quality,
    /// Rejected for Patient Safety Reasons.
    PatientSafety,
    /// Incorrect Modality Worklist Entry.
    WrongWorklistEntry,
    /// Data Retention Policy Expired.
    RetentionExpired,
}

impl RejectionTitle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Quality, Self::PatientSafety, Self::WrongWorklistEntry, Self::RetentionExpired];

    /// Its code value, of DCM.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Quality => "113001",
            Self::PatientSafety => "113037",
            Self::WrongWorklistEntry => "113038",
            Self::RetentionExpired => "113039",
        }
    }

    /// Its code meaning.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Quality => "Rejected for Quality Reasons",
            Self::PatientSafety => "Rejected for Patient Safety Reasons",
            Self::WrongWorklistEntry => "Incorrect Modality Worklist Entry",
            Self::RetentionExpired => "Data Retention Policy Expired",
        }
    }
}

/// A rejection note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) title: RejectionTitle,
    pub(crate) studies: Studies,
}

/// The instances that a note names, by study and series, as it has them. UIDs of a series have most of their bytes in common,
/// and are kept as how many of the one before, and the rest: 50,000 take about half a MiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Studies(Vec<(Uid, Vec<(Uid, Packed)>)>);

/// The instances of a series.
type Packed = Vec<(u8, String)>;

/// One command's share: a study, its series and their instances.
type Part = (Uid, Vec<(Uid, Vec<Uid>)>);

/// The note that `header` is, if it is one. What names no instance, or by a UID that is none, names nothing that is here.
pub(crate) fn note_of(header: &DataSet) -> Option<Note> {
    if header.text(tags::SOP_CLASS_UID) != Some(KEY_OBJECT_SELECTION) {
        return None;
    }
    let title = header.items(tags::CONCEPT_NAME_CODE_SEQUENCE).iter().find_map(|item| {
        let is_dcm = item.text(tags::CODING_SCHEME_DESIGNATOR).is_some_and(|scheme| scheme.trim() == DCM);
        let code = item.text(tags::CODE_VALUE).map(str::trim).filter(|_| is_dcm)?;
        RejectionTitle::ALL.into_iter().find(|title| title.code() == code)
    })?;
    let uid = |item: &DataSet, tag| item.text(tag).and_then(|text| Uid::parse(text).ok());
    let mut studies = Vec::new();
    for study in header.items(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE) {
        let Some(study_uid) = uid(study, tags::STUDY_INSTANCE_UID) else { continue };
        let mut all_series = Vec::new();
        for series in study.items(tags::REFERENCED_SERIES_SEQUENCE) {
            let Some(series_uid) = uid(series, tags::SERIES_INSTANCE_UID) else { continue };
            let items = series.items(tags::REFERENCED_SOP_SEQUENCE).iter();
            let instances: Vec<Uid> = items.filter_map(|item| uid(item, tags::REFERENCED_SOP_INSTANCE_UID)).collect();
            all_series.push((series_uid, packed(&instances)));
        }
        studies.push((study_uid, all_series));
    }
    Some(Note { title, studies: Studies(studies) })
}

fn packed(instances: &[Uid]) -> Packed {
    let mut before = "";
    let mut found = Vec::with_capacity(instances.len());
    for instance in instances {
        let text = instance.as_str();
        // UIDs are ASCII, of 64 characters at most.
        let shared = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        found.push((u8::try_from(shared).unwrap_or(0), text[shared..].to_owned()));
        before = text;
    }
    found
}

impl Studies {
    /// In parts of at most `at_once` instances of one study, without `but`.
    pub(crate) fn in_parts(&self, at_once: usize, but: &Uid) -> Vec<Part> {
        let mut parts = Vec::new();
        for (study, all_series) in &self.0 {
            let (mut part, mut count) = (Vec::new(), 0);
            for (series, packed) in all_series {
                let (mut instances, mut before) = (Vec::new(), String::new());
                for (shared, rest) in packed {
                    let text = before.get(..usize::from(*shared)).unwrap_or_default().to_owned() + rest;
                    // What was parsed before it was packed.
                    if let Ok(uid) = Uid::parse(&text)
                        && uid != *but
                    {
                        instances.push(uid);
                        count += 1;
                    }
                    before = text;
                    if count == at_once {
                        part.push((series.clone(), std::mem::take(&mut instances)));
                        parts.push((study.clone(), std::mem::take(&mut part)));
                        count = 0;
                    }
                }
                if !instances.is_empty() {
                    part.push((series.clone(), instances));
                }
            }
            if !part.is_empty() {
                parts.push((study.clone(), part));
            }
        }
        parts
    }
}
