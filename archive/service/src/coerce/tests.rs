//! Objects and queries of peers with rules: what changes, what is recorded, and what stays.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Freshness, Offer, Protocol, Selection, ServiceSettings, Source, testing};
use archive_model::{EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Limits, Uid, matching::Meaning, read_data_set};

const JPEG: &str = "1.2.840.10008.1.2.4.70";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const ACCESSION: Tag = tags::ACCESSION_NUMBER;

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What every object has; its text is in Latin 1.
fn plain() -> DataSet {
    let mut set = DataSet::new();
    for (tag, uid) in [
        (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.7"),
        (tags::SOP_INSTANCE_UID, "1.2.3.1"),
        (tags::STUDY_INSTANCE_UID, "1.2.3"),
        (tags::SERIES_INSTANCE_UID, "1.2.3.9"),
    ] {
        set.put_text(tag, VR::UI, uid);
    }
    set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
    set.put_text(ACCESSION, VR::SH, "A1");
    set.put_text(tags::PATIENT_NAME, VR::PN, "Müller^Jörg");
    set.put_text(tags::PATIENT_ID, VR::LO, "P1");
    set
}

fn with_pixels(mut set: DataSet, pixel_bytes: usize) -> DataSet {
    let pixels: Vec<u8> = (0..pixel_bytes).map(|at| (at * 7) as u8).collect();
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(pixels.into()) });
    set
}

struct Bench {
    archive: Archive,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = ServiceSettings { read_bytes_max: 2 << 20, ..ServiceSettings::default() };
        Self { archive: testing::archive(folder.path(), service).0, _folder: folder }
    }

    async fn store(&self, bytes: Vec<u8>, syntax: &str) -> InstanceRow {
        let source = Source {
            protocol: Protocol::Dimse,
            calling_ae: "CT1".into(),
            called_ae: String::new(),
            peer: String::new(),
        };
        let offer = Offer { sop_class: None, instance: None, study: None, transfer_syntax: syntax.into(), source };
        let mut ingest = self.archive.store(offer).await.unwrap();
        ingest.push(bytes.into()).await.unwrap();
        ingest.finish().await.unwrap();
        let selection = Selection { studies: vec![Uid::parse("1.2.3").unwrap()], ..Selection::default() };
        self.archive.instances(selection, Freshness::Local).await.unwrap().remove(0)
    }

    /// The object as a peer with these rules gets it.
    async fn sent(&self, row: &InstanceRow, to: &str, texts: &[&str]) -> Vec<u8> {
        let coerced = self.archive.coerced(row, &rules(texts)).await.unwrap().expect("something is changed");
        let mut converting = self.archive.convert_coerced(row, to, &coerced).await.unwrap();
        let (length_bytes, mut bytes) = (converting.length_bytes(), Vec::new());
        while let Some(piece) = converting.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(bytes.len() as u64, length_bytes, "the last piece is told by this");
        bytes
    }

    async fn stored(&self, row: &InstanceRow) -> Vec<u8> {
        let (mut reading, mut bytes) = (self.archive.read(row, 0..u64::MAX), Vec::new());
        while let Some(piece) = reading.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        bytes
    }
}

fn read(bytes: &[u8], syntax: &str) -> DataSet {
    read_data_set(bytes, &transfer_syntax(syntax), &Limits::default()).unwrap()
}

/// Everything but the record, which is taken out.
fn apart(mut set: DataSet) -> (DataSet, Vec<DataSet>) {
    let records = set.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).to_vec();
    set.remove(tags::ORIGINAL_ATTRIBUTES_SEQUENCE);
    (set, records)
}

#[tokio::test]
async fn an_object_is_sent_as_its_rules_say_in_every_encoding_and_stays_what_it_is() {
    let set = with_pixels(plain(), 3 << 20);
    let texts = &[
        "retrieve AccessionNumber prefix H-",
        "both PatientID map P1=Q77,P2=Q78",
        "retrieve PatientName suffix ^Dr",
        "retrieve InstitutionName set Elsewhere",
        "find PatientID set never",
    ];
    let mut expected = set.clone();
    expected.put_text(ACCESSION, VR::SH, "H-A1");
    expected.put_text(tags::PATIENT_ID, VR::LO, "Q77");
    expected.put_text(tags::PATIENT_NAME, VR::PN, "Müller^Jörg^Dr");
    expected.put_text(tags::INSTITUTION_NAME, VR::LO, "Elsewhere");
    for from in [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE] {
        let bench = Bench::new();
        let bytes = write_data_set(&set, transfer_syntax(from).encoding);
        let row = bench.store(bytes.clone(), from).await;
        for to in [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE] {
            let (sent, records) = apart(read(&bench.sent(&row, to, texts).await, to));
            assert!(sent == expected, "{from} {to}");
            assert_eq!(records.len(), 1);
            let record = &records[0];
            let text = |tag| record.text(tag).unwrap_or_default();
            assert_eq!(text(tags::MODIFYING_SYSTEM), "TRIPTYCH");
            assert_eq!(text(tags::SOURCE_OF_PREVIOUS_VALUES), "CT1");
            assert_eq!(text(tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION), "COERCE");
            assert_eq!(text(tags::ATTRIBUTE_MODIFICATION_DATE_TIME), "20231114221320.000+0000");
            let [former] = record.items(tags::MODIFIED_ATTRIBUTES_SEQUENCE) else { panic!("one item") };
            let mut was: DataSet = DataSet::new();
            was.put_text(ACCESSION, VR::SH, "A1");
            was.put_text(tags::PATIENT_ID, VR::LO, "P1");
            was.put_text(tags::PATIENT_NAME, VR::PN, "Müller^Jörg");
            was.put_text(tags::INSTITUTION_NAME, VR::LO, "");
            assert_eq!(*former, was, "{from} {to}");
        }
        assert!(bench.stored(&row).await == bytes, "what is stored stays (CO-1)");
    }
}

#[tokio::test]
async fn of_a_compressed_object_the_pixel_data_and_all_behind_it_stay_byte_for_byte() {
    let bench = Bench::new();
    let mut bytes = write_data_set(&plain(), Encoding::ExplicitLe);
    let mut tail =
        b"\xE0\x7F\x01\0OV\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\xE0\x7F\x02\0OV\0\0\x08\0\0\0\0\0\x10\0\0\0\0\0".to_vec();
    tail.extend(b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\0\xE0\0\0\x10\0");
    tail.extend((0..1 << 20).map(|at| (at * 3) as u8));
    tail.extend(b"\xFE\xFF\xDD\xE0\0\0\0\0\xFC\xFF\xFC\xFFOB\0\0\x04\0\0\0\0\0\0\0");
    bytes.extend(&tail);
    let row = bench.store(bytes.clone(), JPEG).await;
    let sent = bench.sent(&row, JPEG, &["retrieve PatientID clear", "retrieve AccessionNumber remove"]).await;
    assert!(sent.ends_with(&tail), "the pixel data is another");
    let (header, records) = apart(read(&sent[..sent.len() - tail.len()], EXPLICIT_LE));
    let mut expected = plain();
    expected.put_text(tags::PATIENT_ID, VR::LO, "");
    expected.remove(ACCESSION);
    assert_eq!(header, expected);
    assert_eq!(records[0].items(tags::MODIFIED_ATTRIBUTES_SEQUENCE)[0].len(), 2);
    assert!(bench.stored(&row).await == bytes);
}

#[tokio::test]
async fn records_of_earlier_changes_stay_before_the_new_one() {
    let mut earlier = DataSet::new();
    earlier.put_text(tags::MODIFYING_SYSTEM, VR::LO, "Röntgen");
    let mut set = plain();
    let value = Value::Items(vec![earlier.clone(), earlier.clone()]);
    set.put(Element { tag: tags::ORIGINAL_ATTRIBUTES_SEQUENCE, vr: VR::SQ, value });
    for syntax in [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE] {
        let bench = Bench::new();
        let row = bench.store(write_data_set(&set, transfer_syntax(syntax).encoding), syntax).await;
        for to in [IMPLICIT_LE, EXPLICIT_LE] {
            let sent = read(&bench.sent(&row, to, &["retrieve PatientID set X"]).await, to);
            let records = sent.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE);
            assert_eq!(records[..2], [earlier.clone(), earlier.clone()]);
            assert_eq!((records.len(), records[2].text(tags::MODIFYING_SYSTEM)), (3, Some("TRIPTYCH")));
        }
    }
    let bench = Bench::new();
    set.put(Element { tag: tags::ORIGINAL_ATTRIBUTES_SEQUENCE, vr: VR::SQ, value: Value::Empty });
    let row = bench.store(write_data_set(&set, Encoding::ExplicitLe), EXPLICIT_LE).await;
    let sent = read(&bench.sent(&row, EXPLICIT_LE, &["retrieve PatientID set X"]).await, EXPLICIT_LE);
    assert_eq!(sent.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).len(), 1, "one that is empty too");
}

#[tokio::test]
async fn an_object_that_no_rule_changes_is_none_that_is_changed() {
    let bench = Bench::new();
    let row = bench.store(write_data_set(&plain(), Encoding::ExplicitLe), EXPLICIT_LE).await;
    for same in [
        &[][..],
        &["retrieve PatientID map P2=X", "retrieve AccessionNumber set A1", "retrieve InstitutionName remove"],
        &["find PatientID set X", "retrieve InstitutionName prefix X", "retrieve StudyTime clear"],
        &["retrieve PatientID set X", "retrieve PatientID map X=P1"],
        &["retrieve (0009,\"ACME\",01) remove"],
    ] {
        assert_eq!(bench.archive.coerced(&row, &rules(same)).await.unwrap(), None, "{same:?}");
    }
}

#[tokio::test]
async fn sequences_and_private_attributes_are_removed_wherever_their_block_lies() {
    let mut item = DataSet::new();
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3");
    item.put_text(tags::PATIENT_ID, VR::LO, "inside");
    let mut set = plain();
    let sequence = |items: usize| Value::Items(vec![item.clone(); items]);
    set.put(Element { tag: tags::REFERENCED_STUDY_SEQUENCE, vr: VR::SQ, value: sequence(2) });
    set.put(Element { tag: tags::REFERENCED_IMAGE_SEQUENCE, vr: VR::SQ, value: sequence(1) });
    set.put_text(Tag(0x0009, 0x0010), VR::LO, "OTHER");
    set.put_text(Tag(0x0009, 0x0012), VR::LO, "ACME 1.0");
    set.put_text(Tag(0x0009, 0x1001), VR::LO, "theirs");
    set.put_text(Tag(0x0009, 0x1201), VR::LO, "goes");
    let large = Value::Bytes(vec![7; 100_000].into());
    set.put(Element { tag: Tag(0x0009, 0x1202), vr: VR::OB, value: large.clone() });
    let texts = &[
        "retrieve ReferencedStudySequence remove",
        "retrieve PatientID remove",
        "retrieve (0009,\"ACME 1.0\",01) remove",
        "retrieve (0009,\"ACME 1.0\",02) clear",
    ];
    // Of undefined length, as what is recoded is.
    let undefined = {
        let mut out = Vec::new();
        let mut recoder = archive_model::Recoder::new(EXPLICIT_LE, EXPLICIT_LE, &lenient()).unwrap();
        recoder.push(&write_data_set(&set, Encoding::ExplicitLe), &mut out).unwrap();
        recoder.finish(&mut out).unwrap();
        out
    };
    for bytes in [write_data_set(&set, Encoding::ExplicitLe), undefined] {
        let bench = Bench::new();
        let row = bench.store(bytes, EXPLICIT_LE).await;
        let (sent, records) = apart(read(&bench.sent(&row, EXPLICIT_LE, texts).await, EXPLICIT_LE));
        let mut expected = set.clone();
        for gone in [tags::REFERENCED_STUDY_SEQUENCE, tags::PATIENT_ID, Tag(0x0009, 0x1201)] {
            expected.remove(gone);
        }
        expected.put(Element { tag: Tag(0x0009, 0x1202), vr: VR::OB, value: Value::Empty });
        assert_eq!(sent, expected, "what is inside of sequences stays, and what another creator has");
        let former = &records[0].items(tags::MODIFIED_ATTRIBUTES_SEQUENCE)[0];
        assert_eq!(former.items(tags::REFERENCED_STUDY_SEQUENCE).len(), 2);
        assert_eq!(former.text(Tag(0x0009, 0x0012)), Some("ACME 1.0"), "without it they mean nothing");
        assert_eq!(former.text(Tag(0x0009, 0x1201)), Some("goes"));
        assert_eq!(former.get(Tag(0x0009, 0x1202)).map(|own| &own.value), Some(&large), "from the body");
    }
}

#[tokio::test]
async fn an_attribute_that_stands_twice_or_out_of_order_leaves_no_former_value() {
    let bench = Bench::new();
    let mut bytes = write_data_set(&with_pixels(plain(), 64), Encoding::ExplicitLe);
    let at = bytes.windows(4).position(|tag| tag == b"\xE0\x7F\x10\0").unwrap();
    // Patient ID once more, behind what is greater than it.
    bytes.splice(at..at, b"\x28\0\x10\0US\x02\0\x01\0\x10\0\x20\0LO\x06\0SECRET".iter().copied());
    let row = bench.store(bytes, EXPLICIT_LE).await;
    let sent = bench.sent(&row, EXPLICIT_LE, &["retrieve PatientID set X"]).await;
    let elsewhere = sent.windows(6).filter(|window| window == b"SECRET").count();
    assert_eq!(elsewhere, 0, "the second one is not even in the record");
    assert_eq!(read(&sent, EXPLICIT_LE).text(tags::PATIENT_ID), Some("X"));
}

#[tokio::test]
async fn what_cannot_be_made_sure_is_an_error_and_no_object() {
    let bench = Bench::new();
    let mut set = plain();
    let bad = Value::Bytes(vec![0xFF, 0xFE].into());
    set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    set.put(Element { tag: tags::INSTITUTION_NAME, vr: VR::LO, value: bad });
    let number = Value::Integers(vec![1]);
    set.put(Element { tag: tags::STATION_NAME, vr: VR::SQ, value: Value::Items(vec![DataSet::new()]) });
    set.put(Element { tag: tags::SMALLEST_IMAGE_PIXEL_VALUE, vr: VR::US, value: number });
    let row = bench.store(write_data_set(&set, Encoding::ExplicitLe), EXPLICIT_LE).await;
    for text in ["retrieve StationName map A=B", "retrieve StationName prefix A", "retrieve InstitutionName suffix A"] {
        let error = bench.archive.coerced(&row, &rules(&[text])).await.unwrap_err();
        assert!(matches!(error, ConvertError::Coerce(_)), "{text}: {error}");
    }
    // What can be replaced whole is.
    for text in
        ["retrieve StationName set A", "retrieve InstitutionName set A", "retrieve SmallestImagePixelValue clear"]
    {
        assert!(bench.archive.coerced(&row, &rules(&[text])).await.unwrap().is_some(), "{text}");
    }
    let deflated = {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&write_data_set(&plain(), Encoding::ExplicitLe)).unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes
    };
    let bench = Bench::new();
    let row = bench.store(deflated, DEFLATED).await;
    // All of it is inflated, and deflated again for who takes nothing else.
    let mut made = Vec::new();
    for to in [DEFLATED, EXPLICIT_LE] {
        let sent = bench.sent(&row, to, &["retrieve PatientID set X"]).await;
        assert!(sent.len().is_multiple_of(2));
        let (set, records) = apart(read(&sent, to));
        assert_eq!((set.text(tags::PATIENT_ID), records.len()), (Some("X"), 1));
        made.push(set);
    }
    assert_eq!(made[0], made[1]);
}

fn key(tag: Tag, vr: VR, text: &str) -> DataSet {
    let mut keys = DataSet::new();
    keys.put_text(tag, vr, text);
    keys
}

#[test]
fn a_peer_asks_for_what_it_is_shown_and_never_for_what_is_stored() {
    let asked = |texts: &[&str], text: &str| {
        let asked = Asked::of(key(ACCESSION, VR::SH, text), &rules(texts), &Meaning::default()).unwrap();
        let narrowed = asked.keys.texts(ACCESSION).to_vec();
        let matches = |stored: &str| {
            let mut answer = key(ACCESSION, VR::SH, stored);
            shown(&mut answer, &rules(texts));
            asked.matches(&answer)
        };
        (narrowed, ["A1", "H-A1", "B", ""].map(matches))
    };
    let prefix = &["find AccessionNumber prefix H-"][..];
    assert_eq!(asked(prefix, "H-A1"), (vec!["A1".into()], [true, false, false, false]));
    assert_eq!(asked(prefix, "A1"), (vec![], [false; 4]));
    assert_eq!(asked(prefix, "H-*"), (vec![], [true, true, true, false]));
    assert_eq!(asked(prefix, ""), (vec![], [true; 4]), "only returned");
    let map = &["both AccessionNumber map A1=B,B=C"][..];
    assert_eq!(asked(map, "B"), (vec!["A1".into(), "B".into()], [true, false, false, false]));
    assert_eq!(asked(map, "A1"), (vec!["A1".into()], [false; 4]));
    let set = &["both AccessionNumber set X"][..];
    assert_eq!(asked(set, "X"), (vec![], [true; 4]));
    assert_eq!(asked(set, "A1"), (vec![], [false; 4]));
    assert_eq!(asked(&["both AccessionNumber clear"], "A1"), (vec![], [false; 4]));
    assert_eq!(
        asked(&["retrieve AccessionNumber set X"], "A1"),
        (vec!["A1".into()], [true; 4]),
        "the index matches it"
    );
    let both = &["find AccessionNumber map B=B2", "find AccessionNumber suffix -S"][..];
    assert_eq!(asked(both, "B2-S"), (vec!["B".into(), "B2".into()], [false, false, true, false]));
}

#[test]
fn answers_show_what_the_rules_make_and_keep_what_was_asked_for() {
    let mut answer = plain();
    let texts = [
        "find PatientID remove",
        "both PatientName map Müller^Jörg=DOE^J",
        "find StudyTime set 12",
        "find ImageType clear",
    ];
    shown(&mut answer, &rules(&texts));
    assert_eq!(answer.get(tags::PATIENT_ID).map(|own| &own.value), Some(&Value::Empty), "asked for, and has no value");
    assert_eq!(answer.text(tags::PATIENT_NAME), Some("DOE^J"));
    assert_eq!((answer.get(tags::STUDY_TIME), answer.get(tags::IMAGE_TYPE)), (None, None), "not asked for");
}

#[test]
fn a_date_and_its_time_that_are_one_range_are_matched_with_what_is_shown() {
    let mut keys = key(tags::STUDY_DATE, VR::DA, "20260101-20260102");
    keys.put_text(tags::STUDY_TIME, VR::TM, "2200-0200");
    let meaning = Meaning { combined_date_time: true, ..Meaning::default() };
    let asked = Asked::of(keys, &rules(&["find StudyDate map 19990101=20260101"]), &meaning).unwrap();
    assert!([tags::STUDY_DATE, tags::STUDY_TIME].iter().all(|tag| asked.keys.text(*tag).is_none()));
    let mut answer = key(tags::STUDY_DATE, VR::DA, "20260101");
    answer.put_text(tags::STUDY_TIME, VR::TM, "23");
    assert!(asked.matches(&answer));
    answer.put_text(tags::STUDY_TIME, VR::TM, "21");
    assert!(!asked.matches(&answer));
}

#[test]
fn a_patient_is_retrieved_by_the_id_that_is_shown() {
    let of = |id: &str, texts: &[&str]| patients(id, &rules(texts));
    let these = |ids: &[&str]| Patients::These(ids.iter().map(|id| (*id).to_owned()).collect());
    assert_eq!(of("P1", &[]), these(&["P1"]));
    assert_eq!(of("H-P1", &["both PatientID prefix H-"]), these(&["P1"]));
    assert_eq!(of("P1", &["both PatientID prefix H-"]), these(&[]), "nobody is shown so");
    assert_eq!(of("X", &["find PatientID map A=X,B=X"]), these(&["A", "B", "X"]));
    assert_eq!(of("A", &["find PatientID map A=X"]), these(&[]));
    assert_eq!(of("X", &["find PatientID set X"]), Patients::Untold);
    assert_eq!(of("P1", &["retrieve PatientID set X"]), these(&["P1"]), "that is not what it was shown");
}
