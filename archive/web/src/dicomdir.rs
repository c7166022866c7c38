//! The directory of a file-set (PS3.10 §8, PS3.3 Annex F): a tree of records whose links are offsets within the file.
//!
//! ```text
//!   PATIENT ─► STUDY ─► SERIES ─► IMAGE, SR DOCUMENT, …
//!     lower      lower    lower     next ─► next
//!
//!   FFFE E000 │ length 4 │ (0004,1400) next 12 │ (0004,1410) in use 10 │ (0004,1420) lower 12 │ (0004,1430) type │ keys
//! ```
//!
//! Records are kept encoded; links have a fixed place in them, and are filled in at the end, when all places are known.
//! An instance of a class that no record type is made for is in the file-set, and not in the directory.

use archive_model::{
    AeTitle, DataSet, EXPLICIT_LE, Element, Encoding, Tag, VR, Value, tags, write_data_set, write_file_meta,
};
use archive_service::InstanceRow;

/// Records of one directory: at 400 bytes each, 8 MB.
pub(crate) const RECORDS_MAX: usize = 20_000;

const CLASS: &str = "1.2.840.10008.1.3.10";
const OFFSET_OF_REFERENCED_LOWER_LEVEL: Tag = Tag(0x0004, 0x1420);
const RECORD_IN_USE: Tag = Tag(0x0004, 0x1410);
/// Where the value of a link stands within the encoded record.
const NEXT_AT: usize = 8;
const LOWER_AT: usize = 12 + 10 + 8;
/// Tag and length of an item.
const ITEM_BYTES: usize = 8;

const PATIENT: &[Tag] = &[tags::PATIENT_NAME, tags::PATIENT_ID, tags::PATIENT_BIRTH_DATE, tags::PATIENT_SEX];
const STUDY: &[Tag] = &[
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::STUDY_DESCRIPTION,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
];
const SERIES: &[Tag] = &[
    tags::MODALITY,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::BODY_PART_EXAMINED,
];
/// What one of the record types of instances has, where the instance has it (PS3.3 F.5).
const INSTANCE: &[Tag] = &[
    tags::IMAGE_TYPE,
    tags::CONTENT_DATE,
    tags::CONTENT_TIME,
    tags::INSTANCE_NUMBER,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::CONCEPT_NAME_CODE_SEQUENCE,
    tags::COMPLETION_FLAG,
    tags::VERIFICATION_FLAG,
    tags::CONTENT_LABEL,
    tags::CONTENT_DESCRIPTION,
    tags::CONTENT_CREATOR_NAME,
    tags::PRESENTATION_CREATION_DATE,
    tags::PRESENTATION_CREATION_TIME,
    tags::DOCUMENT_TITLE,
    tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT,
    tags::STRUCTURE_SET_LABEL,
    tags::STRUCTURE_SET_DATE,
    tags::STRUCTURE_SET_TIME,
    tags::RT_PLAN_LABEL,
    tags::RT_PLAN_DATE,
    tags::RT_PLAN_TIME,
    tags::DOSE_SUMMATION_TYPE,
    tags::TREATMENT_DATE,
    tags::TREATMENT_TIME,
];

/// A directory that grows.
pub(crate) struct Dicomdir {
    records: Vec<Record>,
    /// Series and study of the last instance.
    last: Option<(String, String)>,
    /// The newest record of each level.
    newest: [Option<usize>; 4],
}

struct Record {
    bytes: Vec<u8>,
    next: Option<usize>,
    lower: Option<usize>,
}

impl Dicomdir {
    pub(crate) fn new() -> Self {
        Self { records: Vec::new(), last: None, newest: [None; 4] }
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// An instance, which lies in the folder DICOM under `file`. Instances of a series come one after another.
    pub(crate) fn add(&mut self, row: &InstanceRow, header: &DataSet, syntax: &str, file: [String; 2]) {
        let Some(kind) = record_type(row) else { return };
        let (study, series) = (row.study.to_string(), row.series.to_string());
        let last = self.last.replace((study.clone(), series.clone()));
        if last.as_ref().is_none_or(|(known, _)| *known != study) {
            self.put(0, keys("PATIENT", header, PATIENT));
            let mut record = keys("STUDY", header, STUDY);
            record.put_text(tags::STUDY_INSTANCE_UID, VR::UI, study);
            self.put(1, record);
        }
        if last.is_none_or(|(_, known)| known != series) {
            let mut record = keys("SERIES", header, SERIES);
            record.put_text(tags::SERIES_INSTANCE_UID, VR::UI, series);
            self.put(2, record);
        }
        let mut record = keys(kind, header, INSTANCE);
        let [folder, name] = file;
        let path = Value::Text(vec!["DICOM".into(), folder, name]);
        record.put(Element { tag: tags::REFERENCED_FILE_ID, vr: VR::CS, value: path });
        record.put_text(tags::REFERENCED_SOP_CLASS_UID_IN_FILE, VR::UI, row.sop_class.as_str());
        record.put_text(tags::REFERENCED_SOP_INSTANCE_UID_IN_FILE, VR::UI, row.instance.as_str());
        record.put_text(tags::REFERENCED_TRANSFER_SYNTAX_UID_IN_FILE, VR::UI, syntax);
        self.put(3, record);
    }

    fn put(&mut self, level: usize, record: DataSet) {
        let number = self.records.len();
        let bytes = write_data_set(&record, Encoding::ExplicitLe);
        self.records.push(Record { bytes, next: None, lower: None });
        match self.newest[level].replace(number) {
            Some(before) => self.records[before].next = Some(number),
            None => {
                if let Some(above) = level.checked_sub(1).and_then(|above| self.newest[above]) {
                    self.records[above].lower = Some(number);
                }
            }
        }
        // What is below belongs to the new one.
        self.newest[level + 1..].fill(None);
    }

    /// The file.
    pub(crate) fn finish(mut self, ae_title: &AeTitle) -> Vec<u8> {
        let uid = format!("2.25.{}", uuid::Uuid::new_v4().as_u128());
        let mut out = write_file_meta(CLASS, &uid, EXPLICIT_LE, Some(ae_title));
        let number = |vr, value: u64| Element { tag: Tag(0, 0), vr, value: Value::Integers(vec![value.into()]) };
        let root = |first: u64, last: u64| -> DataSet {
            let mut root = DataSet::new();
            root.put_text(tags::FILE_SET_ID, VR::CS, "TRIPTYCH");
            root.put(Element { tag: Tag(0x0004, 0x1200), ..number(VR::UL, first) });
            root.put(Element { tag: Tag(0x0004, 0x1202), ..number(VR::UL, last) });
            root.put(Element { tag: Tag(0x0004, 0x1212), ..number(VR::US, 0) });
            root
        };
        let sequence_bytes = 12;
        let start = out.len() + write_data_set(&root(0, 0), Encoding::ExplicitLe).len() + sequence_bytes;
        let mut offsets = Vec::with_capacity(self.records.len());
        let mut end = start;
        for record in &self.records {
            offsets.push(u32::try_from(end).unwrap_or(0));
            end += ITEM_BYTES + record.bytes.len();
        }
        let (first, last) = match self.newest[0] {
            Some(last) => (offsets.first().copied().unwrap_or(0), offsets[last]),
            None => (0, 0),
        };
        out.extend(write_data_set(&root(first.into(), last.into()), Encoding::ExplicitLe));
        out.extend([0x04, 0, 0x20, 0x12, b'S', b'Q', 0, 0]);
        out.extend(u32::try_from(end - start).unwrap_or(u32::MAX).to_le_bytes());
        for record in &mut self.records {
            for (at, link) in [(NEXT_AT, record.next), (LOWER_AT, record.lower)] {
                let offset = link.map_or(0, |link| offsets[link]);
                record.bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            }
            out.extend([0xFE, 0xFF, 0, 0xE0]);
            out.extend(u32::try_from(record.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(&record.bytes);
        }
        out
    }
}

/// A record without links: what the header has of `wanted`.
fn keys(kind: &str, header: &DataSet, wanted: &[Tag]) -> DataSet {
    let mut record: DataSet = header
        .iter()
        .filter(|element| wanted.contains(&element.tag) && !matches!(element.value, Value::Bulk { .. }))
        .cloned()
        .collect();
    let number = |tag, vr, value: u16| Element { tag, vr, value: Value::Integers(vec![value.into()]) };
    record.put(number(tags::OFFSET_OF_THE_NEXT_DIRECTORY_RECORD, VR::UL, 0));
    record.put(number(RECORD_IN_USE, VR::US, 0xFFFF));
    record.put(number(OFFSET_OF_REFERENCED_LOWER_LEVEL, VR::UL, 0));
    record.put_text(tags::DIRECTORY_RECORD_TYPE, VR::CS, kind);
    record
}

/// The record type of an instance (PS3.3 table F.4-1).
fn record_type(row: &InstanceRow) -> Option<&'static str> {
    let class = row.sop_class.as_str();
    let storage = class.strip_prefix("1.2.840.10008.5.1.4.1.1.")?;
    let (family, rest) = storage.split_once('.').unwrap_or((storage, ""));
    Some(match (family, rest) {
        ("88", "59") => "KEY OBJECT DOC",
        ("88", _) => "SR DOCUMENT",
        ("11", _) => "PRESENTATION",
        ("104", _) => "ENCAP DOC",
        ("9", _) => "WAVEFORM",
        ("481", "2") => "RT DOSE",
        ("481", "3") => "RT STRUCTURE SET",
        ("481", "5" | "8") => "RT PLAN",
        ("481", "4" | "6" | "7" | "9") => "RT TREAT RECORD",
        ("66", "1" | "3") => "REGISTRATION",
        ("66", "2") => "FIDUCIAL",
        ("66", "") => "RAW DATA",
        ("67", _) => "VALUE MAP",
        _ if row.frame_count > 0 => "IMAGE",
        _ => return None,
    })
}
