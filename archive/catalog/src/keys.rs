//! Which attributes are indexed, at which level: one table for C-FIND, QIDO and what they return.
//!
//! Every attribute of a stored header can be asked for at every level (`witness.rs`); the rows here are those that need
//! no look into headers, each with the one level it belongs to.

use crate::find::Level;
use archive_model::{Tag, VR, tags};

/// One indexed attribute.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The attribute.
    pub tag: Tag,
    /// Its value representation.
    pub vr: VR,
    /// The level it belongs to (PS3.3 C.7; PS3.4 C.6.1.1).
    pub level: Level,
    /// Whether QIDO returns it unasked (PS3.18 Tables 10.6.3-3 to -5).
    pub default: bool,
    /// The column that narrows a search for it.
    pub(crate) column: Option<Column>,
}

/// A column that narrows a search; what it finds is matched once more in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Text as compared; NULL when there are several values.
    Text(&'static str),
    /// A UID.
    Uid(&'static str),
    /// A date in normal form; the first where there are several, and `study.several` is 1.
    Moment(&'static str),
    /// The patient's name: three folded groups, of the first name as above.
    Name,
}

const fn key(tag: Tag, vr: VR, level: Level, default: bool, column: Option<Column>) -> Key {
    Key { tag, vr, level, default, column }
}

use Column::{Moment, Name, Text, Uid};
use Level::{Instance, Patient, Series, Study};

/// All rows.
pub static KEYS: &[Key] = &[
    key(tags::PATIENT_NAME, VR::PN, Patient, true, Some(Name)),
    key(tags::PATIENT_ID, VR::LO, Patient, true, Some(Text("t.pid"))),
    key(tags::ISSUER_OF_PATIENT_ID, VR::LO, Patient, false, None),
    key(tags::PATIENT_BIRTH_DATE, VR::DA, Patient, true, Some(Moment("t.birth_date"))),
    key(tags::PATIENT_BIRTH_TIME, VR::TM, Patient, false, None),
    key(tags::PATIENT_SEX, VR::CS, Patient, true, None),
    key(Tag(0x0010, 0x1000), VR::LO, Patient, false, None),
    key(tags::OTHER_PATIENT_NAMES, VR::PN, Patient, false, None),
    key(tags::PATIENT_COMMENTS, VR::LT, Patient, false, None),
    key(tags::STUDY_INSTANCE_UID, VR::UI, Study, true, Some(Uid("t.uid"))),
    key(tags::STUDY_DATE, VR::DA, Study, true, Some(Moment("t.date"))),
    key(tags::STUDY_TIME, VR::TM, Study, true, None),
    key(tags::ACCESSION_NUMBER, VR::SH, Study, true, Some(Text("t.accession"))),
    key(tags::STUDY_ID, VR::SH, Study, true, Some(Text("t.study_id"))),
    key(tags::STUDY_DESCRIPTION, VR::LO, Study, true, None),
    key(tags::REFERRING_PHYSICIAN_NAME, VR::PN, Study, true, None),
    key(tags::NAME_OF_PHYSICIANS_READING_STUDY, VR::PN, Study, false, None),
    key(tags::ADMITTING_DIAGNOSES_DESCRIPTION, VR::LO, Study, false, None),
    key(tags::PATIENT_AGE, VR::AS, Study, false, None),
    key(tags::PATIENT_SIZE, VR::DS, Study, false, None),
    key(tags::PATIENT_WEIGHT, VR::DS, Study, false, None),
    key(tags::OCCUPATION, VR::SH, Study, false, None),
    key(tags::ADDITIONAL_PATIENT_HISTORY, VR::LT, Study, false, None),
    key(tags::PROCEDURE_CODE_SEQUENCE, VR::SQ, Study, false, None),
    key(tags::SERIES_INSTANCE_UID, VR::UI, Series, true, Some(Uid("e.uid"))),
    key(tags::MODALITY, VR::CS, Series, true, Some(Text("e.modality"))),
    key(tags::SERIES_NUMBER, VR::IS, Series, true, None),
    key(tags::SERIES_DESCRIPTION, VR::LO, Series, true, None),
    key(tags::SERIES_DATE, VR::DA, Series, false, None),
    key(tags::SERIES_TIME, VR::TM, Series, false, None),
    key(tags::BODY_PART_EXAMINED, VR::CS, Series, false, None),
    key(tags::LATERALITY, VR::CS, Series, false, None),
    key(tags::PROTOCOL_NAME, VR::LO, Series, false, None),
    key(tags::OPERATORS_NAME, VR::PN, Series, false, None),
    key(tags::PERFORMING_PHYSICIAN_NAME, VR::PN, Series, false, None),
    key(tags::MANUFACTURER, VR::LO, Series, false, None),
    key(tags::MANUFACTURER_MODEL_NAME, VR::LO, Series, false, None),
    key(tags::STATION_NAME, VR::SH, Series, false, None),
    key(tags::INSTITUTION_NAME, VR::LO, Series, false, None),
    key(tags::INSTITUTIONAL_DEPARTMENT_NAME, VR::LO, Series, false, None),
    key(tags::PERFORMED_PROCEDURE_STEP_START_DATE, VR::DA, Series, true, None),
    key(tags::PERFORMED_PROCEDURE_STEP_START_TIME, VR::TM, Series, true, None),
    key(tags::PERFORMED_PROCEDURE_STEP_ID, VR::SH, Series, false, None),
    key(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, Series, true, None),
    key(tags::FRAME_OF_REFERENCE_UID, VR::UI, Series, false, None),
    key(tags::SOP_INSTANCE_UID, VR::UI, Instance, true, Some(Uid("i.uid"))),
    key(tags::SOP_CLASS_UID, VR::UI, Instance, true, Some(Uid("i.sop_class"))),
    key(tags::INSTANCE_NUMBER, VR::IS, Instance, true, None),
    key(tags::NUMBER_OF_FRAMES, VR::IS, Instance, true, None),
    key(tags::ROWS, VR::US, Instance, true, None),
    key(tags::COLUMNS, VR::US, Instance, true, None),
    key(tags::BITS_ALLOCATED, VR::US, Instance, true, None),
    key(tags::CONTENT_DATE, VR::DA, Instance, false, None),
    key(tags::CONTENT_TIME, VR::TM, Instance, false, None),
    key(tags::ACQUISITION_DATE, VR::DA, Instance, false, None),
    key(tags::ACQUISITION_TIME, VR::TM, Instance, false, None),
    key(tags::ACQUISITION_NUMBER, VR::IS, Instance, false, None),
    key(tags::IMAGE_TYPE, VR::CS, Instance, false, None),
    key(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, Instance, true, None),
];

/// Attributes that the catalogue computes: counts and summaries (PS3.4 C.3.4).
pub static COMPUTED: &[Key] = &[
    key(tags::NUMBER_OF_PATIENT_RELATED_STUDIES, VR::IS, Patient, false, None),
    key(tags::NUMBER_OF_PATIENT_RELATED_SERIES, VR::IS, Patient, false, None),
    key(tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, VR::IS, Patient, false, None),
    key(tags::MODALITIES_IN_STUDY, VR::CS, Study, true, None),
    key(tags::SOP_CLASSES_IN_STUDY, VR::UI, Study, false, None),
    key(tags::NUMBER_OF_STUDY_RELATED_SERIES, VR::IS, Study, true, None),
    key(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, Study, true, None),
    key(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, Series, true, None),
];

/// The row of an attribute, indexed or computed.
pub(crate) fn key_of(tag: Tag) -> Option<&'static Key> {
    KEYS.iter().chain(COMPUTED).find(|key| key.tag == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_attribute_has_one_row() {
        let tags: BTreeSet<Tag> = KEYS.iter().chain(COMPUTED).map(|key| key.tag).collect();
        assert_eq!(tags.len(), KEYS.len() + COMPUTED.len());
    }
}
