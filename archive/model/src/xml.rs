//! The Native DICOM Model (PS3.19 §A.1): data sets to XML and back.
//!
//! ```xml
//! <NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">
//!   <DicomAttribute tag="00100010" vr="PN" keyword="PatientName">
//!     <PersonName number="1"><Alphabetic><FamilyName>Doe</FamilyName><GivenName>Jane</GivenName></Alphabetic></PersonName>
//!   </DicomAttribute>
//!   <DicomAttribute tag="7FE00010" vr="OW" keyword="PixelData"><BulkData uri="…"/></DicomAttribute>
//! </NativeDicomModel>
//! ```
//!
//! - X-1 A private attribute is named by its creator: `tag` has 00 where the data set has the block, which its reader chooses.
//!   Without a creator the tag is written as it is.
//! - X-2 An empty value among others is left out; the numbers of the others say where it was.
//! - X-3 A character that XML has no room for (most of those below 20H) becomes U+FFFD; all others come back.
//! - X-4 What is read has no document type and no entities but the five of XML: nothing is fetched, nothing multiplies.

mod lex;
mod read;

use crate::{
    DataSet, Element, Tag, VR, Value,
    json::{BulkUri, PathStep, tag_key},
    tags,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;
use std::io::{self, Write};

pub use read::{Foreign, data_set_from_xml};

/// Levels of sequences that are written and read.
const DEPTH_MAX: usize = 64;
const GROUPS: [&str; 3] = ["Alphabetic", "Ideographic", "Phonetic"];
const COMPONENTS: [&str; 5] = ["FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"];

/// XML that is no data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", tag.map(|tag| format!("{}: ", tag_key(tag))).unwrap_or_default())]
pub struct XmlError {
    /// The attribute, if it is known.
    pub tag: Option<Tag>,
    /// What is wrong and what would be right.
    pub why: String,
}

/// The XML of `set`, a document of its own.
#[must_use]
pub fn to_xml(set: &DataSet, bulk: &BulkUri<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match write_xml(&mut out, set, bulk) {
        Ok(()) => out,
        Err(_) => Vec::new(), // into memory nothing fails
    }
}

/// Writes the XML of `set` as it goes.
///
/// # Errors
/// Those of `out`.
pub fn write_xml(out: &mut dyn Write, set: &DataSet, bulk: &BulkUri<'_>) -> io::Result<()> {
    out.write_all(
        b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<NativeDicomModel \
          xmlns=\"http://dicom.nema.org/PS3.19/models/NativeDICOM\" xml:space=\"preserve\">\n",
    )?;
    write_set(out, set, bulk, &mut Vec::new())?;
    out.write_all(b"</NativeDicomModel>\n")
}

fn write_set(out: &mut dyn Write, set: &DataSet, bulk: &BulkUri<'_>, path: &mut Vec<PathStep>) -> io::Result<()> {
    // Group lengths say nothing about another encoding.
    for element in set.iter().filter(|element| element.tag.element() != 0) {
        let Tag(group, number) = element.tag;
        let private = group % 2 == 1 && number >= 0x1000;
        let creator = private.then(|| set.text(Tag(group, number >> 8))).flatten();
        let tag = if creator.is_some() { Tag(group, number & 0xFF) } else { element.tag };
        write!(out, "<DicomAttribute tag=\"{}\" vr=\"{}\"", tag_key(tag), element.vr)?;
        if let Some(known) = StandardDataDictionary.by_tag(element.tag).filter(|_| group % 2 == 0) {
            write!(out, " keyword=\"{}\"", known.alias())?;
        }
        if let Some(creator) = creator {
            out.write_all(b" privateCreator=\"")?;
            write_escaped(out, creator)?;
            out.write_all(b"\"")?;
        }
        out.write_all(b">")?;
        write_value(out, element, bulk, path)?;
        out.write_all(b"</DicomAttribute>\n")?;
    }
    Ok(())
}

fn write_value(out: &mut dyn Write, element: &Element, bulk: &BulkUri<'_>, path: &mut Vec<PathStep>) -> io::Result<()> {
    match &element.value {
        // The document is UTF-8 whatever the data set was.
        Value::Text(_) if element.tag == tags::SPECIFIC_CHARACTER_SET => write_number(out, 0, "ISO_IR 192"),
        Value::Text(texts) if element.vr == VR::PN => {
            let names = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
            names.into_iter().try_for_each(|(at, text)| write_name(out, at, text))
        }
        Value::Text(texts) => {
            let texts = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
            texts.into_iter().try_for_each(|(at, text)| write_number(out, at, text))
        }
        Value::Integers(numbers) => each(out, numbers, ToString::to_string),
        Value::Floats(numbers) => each(out, numbers, ToString::to_string),
        Value::Tags(tags) => each(out, tags, |tag| tag_key(*tag)),
        Value::Bytes(bytes) => {
            out.write_all(b"<InlineBinary>")?;
            // Three bytes make four characters, so that the pieces join without padding.
            bytes.chunks(3 << 10).try_for_each(|piece| out.write_all(BASE64.encode(piece).as_bytes()))?;
            out.write_all(b"</InlineBinary>")
        }
        Value::Bulk { .. } => match bulk(path, element) {
            Some(uri) => {
                out.write_all(b"<BulkData uri=\"")?;
                write_escaped(out, &uri)?;
                out.write_all(b"\"/>")
            }
            None => Ok(()),
        },
        Value::Items(items) if path.len() < DEPTH_MAX => {
            path.push(PathStep { tag: element.tag, item: 0 });
            let written = items.iter().enumerate().try_for_each(|(at, item)| {
                writeln!(out, "<Item number=\"{}\">", at + 1)?;
                path.iter_mut().next_back().into_iter().for_each(|step| step.item = at);
                write_set(out, item, bulk, path)?;
                out.write_all(b"</Item>")
            });
            path.pop();
            written
        }
        Value::Empty | Value::Items(_) => Ok(()),
    }
}

fn each<T>(out: &mut dyn Write, values: &[T], text: impl Fn(&T) -> String) -> io::Result<()> {
    values.iter().enumerate().try_for_each(|(at, value)| write_number(out, at, &text(value)))
}

fn write_number(out: &mut dyn Write, at: usize, text: &str) -> io::Result<()> {
    write!(out, "<Value number=\"{}\">", at + 1)?;
    write_escaped(out, text)?;
    out.write_all(b"</Value>")
}

fn write_name(out: &mut dyn Write, at: usize, text: &str) -> io::Result<()> {
    write!(out, "<PersonName number=\"{}\">", at + 1)?;
    for (group, text) in GROUPS.iter().zip(text.splitn(3, '=')).filter(|(_, text)| !text.is_empty()) {
        write!(out, "<{group}>")?;
        for (component, text) in COMPONENTS.iter().zip(text.splitn(5, '^')).filter(|(_, text)| !text.is_empty()) {
            write!(out, "<{component}>")?;
            write_escaped(out, text)?;
            write!(out, "</{component}>")?;
        }
        write!(out, "</{group}>")?;
    }
    out.write_all(b"</PersonName>")
}

fn write_escaped(out: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut plain = 0;
    for (at, char) in text.char_indices() {
        let instead = match char {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            // Readers make a line feed of it, or a space where they stand in an attribute.
            '\r' => "&#13;",
            '\n' => "&#10;",
            '\t' => "&#9;",
            '\0'..' ' | '\u{FFFE}' | '\u{FFFF}' => "\u{FFFD}",
            _ => continue,
        };
        out.write_all(&text.as_bytes()[plain..at])?;
        out.write_all(instead.as_bytes())?;
        plain = at + char.len_utf8();
    }
    out.write_all(&text.as_bytes()[plain..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, json::no_bulk};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn texts(values: &[&str]) -> Value {
        Value::Text(values.iter().map(|text| (*text).to_owned()).collect())
    }

    fn shown(elements: Vec<Element>) -> String {
        let set: DataSet = elements.into_iter().collect();
        let xml = String::from_utf8(to_xml(&set, &|_, _| Some("http://h/a?b&c".into()))).expect("UTF-8");
        let (_, rest) = xml.split_once("xml:space=\"preserve\">\n").expect("a head");
        rest.strip_suffix("</NativeDicomModel>\n").expect("an end").replace('\n', "")
    }

    fn read(xml: &str) -> Result<(DataSet, Vec<Foreign>), XmlError> {
        data_set_from_xml(xml.as_bytes(), &Limits::default())
    }

    #[test]
    fn each_kind_of_value_has_its_form() {
        let one = |tag, vr, value| shown(vec![Element { tag, vr, value }]);
        assert_eq!(
            one(tags::PATIENT_NAME, VR::PN, texts(&["Yamada^Tarou^^Dr=山田^太郎"])),
            "<DicomAttribute tag=\"00100010\" vr=\"PN\" keyword=\"PatientName\"><PersonName number=\"1\"><Alphabetic>\
             <FamilyName>Yamada</FamilyName><GivenName>Tarou</GivenName><NamePrefix>Dr</NamePrefix></Alphabetic>\
             <Ideographic><FamilyName>山田</FamilyName><GivenName>太郎</GivenName></Ideographic></PersonName>\
             </DicomAttribute>"
        );
        assert!(
            one(tags::IMAGE_TYPE, VR::CS, texts(&["A", "", "B"]))
                .contains("<Value number=\"1\">A</Value><Value number=\"3\">B</Value>")
        );
        assert!(one(tags::ROWS, VR::US, Value::Integers(vec![512])).contains("<Value number=\"1\">512</Value>"));
        assert!(
            one(tags::PIXEL_DATA, VR::OW, Value::Bulk { offset: 1, length: 2 })
                .contains("<BulkData uri=\"http://h/a?b&amp;c\"/>")
        );
        assert!(
            one(tags::PIXEL_DATA, VR::OB, Value::Bytes(Bytes::from_static(b"abc")))
                .contains("<InlineBinary>YWJj</InlineBinary>")
        );
        assert!(one(tags::PATIENT_ID, VR::LO, texts(&["<b>&\"\u{1b}"])).contains("&lt;b&gt;&amp;&quot;\u{FFFD}"));
        let item = [Element { tag: tags::PATIENT_ID, vr: VR::LO, value: Value::Empty }].into_iter().collect();
        let sequence = one(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, Value::Items(vec![item]));
        assert!(sequence.contains("<Item number=\"1\"><DicomAttribute tag=\"00100020\" vr=\"LO\" keyword=\"PatientID\"></DicomAttribute></Item>"));
        let private = shown(vec![
            Element { tag: Tag(9, 0x11), vr: VR::LO, value: texts(&["ACME"]) },
            Element { tag: Tag(9, 0x1102), vr: VR::SH, value: texts(&["x"]) },
            Element { tag: Tag(9, 0x1202), vr: VR::SH, value: texts(&["y"]) },
        ]);
        assert!(private.contains("tag=\"00090002\" vr=\"SH\" privateCreator=\"ACME\""), "{private}");
        assert!(private.contains("tag=\"00091202\" vr=\"SH\">"), "{private}");
    }

    #[test]
    fn what_others_write_is_read() {
        let (set, foreign) = read(
            r#"<?xml version="1.0" encoding="utf-8"?><!-- a comment > -->
            <d:NativeDicomModel xmlns:d="http://dicom.nema.org/PS3.19/models/NativeDICOM">
              <d:DicomAttribute keyword="PatientID" vr='LO' tag="00100020"><d:Value number="1"><![CDATA[a<b]]>&#x41;&amp;</d:Value></d:DicomAttribute>
              <d:DicomAttribute tag="00090002" vr="SH" privateCreator="ACME"><d:Value>x</d:Value></d:DicomAttribute>
              <d:DicomAttribute tag="7FE00010" vr="OW"><d:BulkData uri="cid:1"/></d:DicomAttribute>
              <d:DicomAttribute tag="00280010" vr="US"><d:Value number="1"> 512 </d:Value></d:DicomAttribute>
              <d:DicomAttribute tag="00081140" vr="SQ"><d:Item number="1"/></d:DicomAttribute>
            </d:NativeDicomModel>"#,
        )
        .expect("a data set");
        assert_eq!(set.text(tags::PATIENT_ID), Some("a<bA&"));
        assert_eq!((set.text(Tag(9, 0x10)), set.text(Tag(9, 0x1002))), (Some("ACME"), Some("x")));
        assert_eq!(
            set.get(tags::PIXEL_DATA).map(|element| &element.value),
            Some(&Value::Bulk { offset: 0, length: 0 })
        );
        assert_eq!(foreign, [Foreign("cid:1".into())]);
        assert_eq!(set.integer(tags::ROWS), Some(512));
        assert_eq!(set.items(tags::REFERENCED_IMAGE_SEQUENCE).len(), 1);
    }

    #[test]
    fn attributes_are_counted_and_may_come_in_any_order() {
        let attributes = |count: u32| {
            let each = (0..count).map(|at| format!("<DicomAttribute tag=\"{:08X}\" vr=\"LO\"/>", 0x7000_0000 - at));
            format!("<NativeDicomModel>{}</NativeDicomModel>", each.collect::<String>())
        };
        let limits = Limits { elements_max: 5, ..Limits::default() };
        assert!(data_set_from_xml(attributes(4).as_bytes(), &limits).is_ok());
        assert!(data_set_from_xml(attributes(5).as_bytes(), &limits).is_err(), "and the data set itself");
        let (set, _) = data_set_from_xml(attributes(300_000).as_bytes(), &Limits::default()).expect("a data set");
        assert_eq!(set.iter().count(), 300_000);
        assert!(set.iter().is_sorted_by_key(|element| element.tag));
    }

    #[test]
    fn what_is_no_data_set_is_refused_without_its_values() {
        let wrapped = |inner: &str| format!("<NativeDicomModel>{inner}</NativeDicomModel>");
        let attribute =
            |inner: &str| wrapped(&format!("<DicomAttribute tag=\"00280010\" vr=\"US\">{inner}</DicomAttribute>"));
        for (xml, why) in [
            ("SECRET".to_owned(), "NativeDicomModel"),
            ("<SECRET/>".into(), "NativeDicomModel"),
            ("<!DOCTYPE SECRET [<!ENTITY a \"b\">]><NativeDicomModel/>".into(), "document type"),
            (wrapped("&SECRET;"), "entity"),
            (attribute("<Value number=\"1\">SECRET</Value>"), "00280010"),
            (attribute("<Value number=\"4000000000\">1</Value>"), "00280010"),
            (attribute("<InlineBinary>SECRET!</InlineBinary>"), "Base64"),
            (wrapped("<DicomAttribute tag=\"SECRET\" vr=\"US\"/>"), "tag"),
            (wrapped("<DicomAttribute tag=\"00280010\" vr=\"SECRET\"/>"), "vr"),
            ("<NativeDicomModel>".into(), "ends"),
            (wrapped("</DicomAttribute>"), "end"),
            ("<NativeDicomModel a=\"SECRET/>".into(), "attribute"),
            (format!("<NativeDicomModel {}/>", "a=\"1\" ".repeat(1000)), "attributes"),
        ] {
            let error = read(&xml).expect_err(&xml).to_string();
            assert!(error.contains(why) && !error.contains("SECRET"), "{xml}: {error}");
        }
        let open = "<DicomAttribute tag=\"00081115\" vr=\"SQ\"><Item number=\"1\">";
        let deep = wrapped(&open.repeat(100_000));
        assert!(read(&deep).expect_err("deep").why.contains("64 deep"), "100,000 levels do not exhaust the stack");
        assert!(!read(&"<a>".repeat(100_000)).expect_err("deep").why.is_empty());
        assert!(!read(&attribute(&"<x>".repeat(100_000))).expect_err("deep").why.is_empty());
        // Gaps between the numbers of values are made, and so bounded.
        let gap = "<DicomAttribute tag=\"00080008\" vr=\"CS\"><Value number=\"60000\">A</Value></DicomAttribute>";
        assert!(read(&wrapped(gap)).is_ok() && read(&wrapped(&gap.repeat(3))).is_err());
    }

    fn element() -> impl Strategy<Value = Element> {
        let text = "[A-Za-zäö山 <>&\"'\r\n\t]{1,12}"
            .prop_map(|text| text.trim().to_owned())
            .prop_filter("not empty", |text| !text.is_empty());
        prop_oneof![
            prop::collection::vec(text.clone(), 1..3).prop_map(|values| (
                tags::IMAGE_COMMENTS,
                VR::LO,
                Value::Text(values)
            )),
            "[A-Za-z]{1,5}\\^[a-z]{0,3}\\^[a-z]{1,3}(=[山田]{1,2}\\^[太]{1,2})?".prop_map(|name| (
                tags::PATIENT_NAME,
                VR::PN,
                Value::Text(vec![name])
            )),
            prop::collection::vec(any::<u16>(), 1..4).prop_map(|values| (
                tags::ROWS,
                VR::US,
                Value::Integers(values.into_iter().map(i128::from).collect())
            )),
            prop::collection::vec(-1e9..1e9_f64, 1..4).prop_map(|values| (
                Tag(0x18, 0x6030),
                VR::FD,
                Value::Floats(values)
            )),
            prop::collection::vec(any::<u8>(), 1..40).prop_map(|bytes| (
                tags::ICC_PROFILE,
                VR::OB,
                Value::Bytes(bytes.into())
            )),
            Just((tags::PATIENT_ID, VR::LO, Value::Empty)),
        ]
        .prop_map(|(tag, vr, value)| Element { tag, vr, value })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(elements in prop::collection::vec(element(), 0..6), nested in prop::collection::vec(element(), 0..3)) {
            let mut set: DataSet = elements.into_iter().collect();
            let items = Value::Items(vec![nested.into_iter().collect(), DataSet::new()]);
            set.put(Element { tag: tags::REQUEST_ATTRIBUTES_SEQUENCE, vr: VR::SQ, value: items });
            let xml = to_xml(&set, &no_bulk);
            prop_assert_eq!(data_set_from_xml(&xml, &Limits::default()), Ok((set, vec![])));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[<>/&;!\\[\\]#=\"a-zA-Z0-9 ]{0,80}") {
            let _ = data_set_from_xml(text.as_bytes(), &Limits::default());
            let _ = data_set_from_xml(format!("<NativeDicomModel>{text}").as_bytes(), &Limits::default());
        }
    }
}
