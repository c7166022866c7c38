//! What holds for every data set and for all bytes.
#![allow(clippy::unwrap_used)]

use super::tests::{BIG, DEFLATED, EXPLICIT, IMPLICIT, encapsulated_image, scan_with, set, text};
use super::*;
use crate::{Element, Encoding, Tag, VR, transfer_syntax, write_data_set};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
use proptest::prelude::*;

/// A value that its VR can hold.
fn element() -> impl Strategy<Value = (VR, Value)> {
    let words = || proptest::collection::vec("[A-Za-z0-9^]{1,20}", 1..4).prop_map(Value::Text);
    let word = || "[A-Za-z0-9\\\\ ]{0,40}[a-z]".prop_map(|text| Value::Text(vec![text]));
    let integers = |min: i128, max: i128| proptest::collection::vec(min..=max, 1..5).prop_map(Value::Integers);
    let bytes = |chunk: usize| {
        proptest::collection::vec(any::<u8>(), 1..20)
            .prop_map(move |bytes| Value::Bytes(bytes.repeat(8)[..bytes.len() * chunk].to_vec().into()))
    };
    prop_oneof![
        words().prop_map(|value| (VR::LO, value)),
        words().prop_map(|value| (VR::PN, value)),
        words().prop_map(|value| (VR::UC, value)),
        word().prop_map(|value| (VR::UT, value)),
        word().prop_map(|value| (VR::ST, value)),
        "[0-9]{1,9}(\\.[1-9]{1,9}){1,4}".prop_map(|uid| (VR::UI, Value::Text(vec![uid]))),
        integers(0, 65_535).prop_map(|value| (VR::US, value)),
        integers(-32_768, 32_767).prop_map(|value| (VR::SS, value)),
        integers(0, i128::from(u32::MAX)).prop_map(|value| (VR::UL, value)),
        integers(i128::from(i32::MIN), i128::from(i32::MAX)).prop_map(|value| (VR::SL, value)),
        integers(0, i128::from(u64::MAX)).prop_map(|value| (VR::UV, value)),
        integers(i128::from(i64::MIN), i128::from(i64::MAX)).prop_map(|value| (VR::SV, value)),
        proptest::collection::vec(any::<f32>().prop_filter("a number", |n| n.is_finite()), 1..4)
            .prop_map(|n| (VR::FL, Value::Floats(n.into_iter().map(f64::from).collect()))),
        proptest::collection::vec(any::<f64>().prop_filter("a number", |n| n.is_finite()), 1..4)
            .prop_map(|n| (VR::FD, Value::Floats(n))),
        proptest::collection::vec((any::<u16>(), any::<u16>()).prop_map(|(g, e)| Tag(g, e)), 1..4)
            .prop_map(|tags| (VR::AT, Value::Tags(tags))),
        bytes(2).prop_map(|value| (VR::OB, value)),
        bytes(2).prop_map(|value| (VR::OW, value)),
        bytes(4).prop_map(|value| (VR::OF, value)),
        bytes(8).prop_map(|value| (VR::OD, value)),
        bytes(2).prop_map(|value| (VR::UN, value)),
        Just((VR::DA, Value::Empty)),
    ]
}

/// Elements of the standard, for syntaxes without VR.
fn standard_data_set() -> impl Strategy<Value = DataSet> {
    let word = "[A-Z][A-Z0-9]{0,15}";
    let leaf = (proptest::option::of(word), proptest::option::of(word), proptest::option::of(0_i128..=65_535))
        .prop_map(|(name, id, rows)| {
            let name = name.map(|name| (tags::PATIENT_NAME, VR::PN, text(&name)));
            let id = id.map(|id| (tags::PATIENT_ID, VR::LO, text(&id)));
            let rows = rows.map(|rows| (tags::ROWS, VR::US, Value::Integers(vec![rows])));
            set(name.into_iter().chain(id).chain(rows))
        });
    leaf.prop_recursive(5, 40, 4, |inner| {
        (inner.clone(), proptest::collection::vec(inner, 1..4)).prop_map(|(mut outer, items)| {
            outer.put(Element { tag: tags::REFERENCED_IMAGE_SEQUENCE, vr: VR::SQ, value: Value::Items(items) });
            outer
        })
    })
}

/// Private elements: the dictionary knows none of them, so that each VR may occur in each.
fn data_set() -> impl Strategy<Value = DataSet> {
    let leaf = proptest::collection::vec((0x1000_u16..0x1FFF, element()), 0..8)
        .prop_map(|elements| set(elements.into_iter().map(|(number, (vr, value))| (Tag(0x11, number), vr, value))));
    leaf.prop_recursive(4, 40, 4, |inner| {
        let sequences = proptest::collection::vec((0x2000_u16..0x20FF, proptest::collection::vec(inner, 1..4)), 0..3);
        (sequences, proptest::collection::vec((0x1000_u16..0x1FFF, element()), 0..6)).prop_map(
            |(sequences, elements)| {
                let elements = elements.into_iter().map(|(number, (vr, value))| (Tag(0x11, number), vr, value));
                let items = sequences.into_iter().map(|(n, items)| (Tag(0x11, n), VR::SQ, Value::Items(items)));
                set(elements.chain(items))
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_scanned_in_either_byte_order(written in data_set()) {
        for (uid, encoding) in [(EXPLICIT, Encoding::ExplicitLe), (BIG, Encoding::ExplicitBe)] {
            let bytes = write_data_set(&written, encoding);
            prop_assert!(bytes.len().is_multiple_of(2));
            let scanned = scan_with(uid, &bytes, usize::MAX, &Limits::default());
            prop_assert_eq!(&scanned.unwrap().header, &written);
            let parsed = crate::read_data_set(&bytes, &transfer_syntax(uid), &Limits::default());
            prop_assert_eq!(&parsed.unwrap(), &written);
        }
    }

    #[test]
    fn the_dictionary_gives_back_the_vrs(written in standard_data_set()) {
        let bytes = write_data_set(&written, Encoding::ImplicitLe);
        prop_assert_eq!(&scan_with(IMPLICIT, &bytes, 3, &Limits::default()).unwrap().header, &written);
    }

    #[test]
    fn dicom_rs_reads_what_is_written(written in data_set()) {
        for uid in [IMPLICIT, EXPLICIT] {
            let bytes = write_data_set(&written, transfer_syntax(uid).encoding);
            let syntax = dicom_transfer_syntax_registry::TransferSyntaxRegistry.get(uid).unwrap();
            let object = dicom_object::InMemDicomObject::read_dataset_with_ts(&bytes[..], syntax).unwrap();
            prop_assert_eq!(object.iter().count(), written.len());
            for (theirs, ours) in object.iter().zip(&written) {
                prop_assert_eq!(theirs.header().tag, ours.tag);
                if let (Value::Text(texts), EXPLICIT) = (&ours.value, uid) {
                    let theirs = theirs.to_str().unwrap();
                    prop_assert_eq!(theirs.trim_end_matches([' ', '\0']), texts.join("\\"));
                }
            }
        }
    }

    #[test]
    fn pieces_make_no_difference(written in data_set(), cuts in proptest::collection::vec(1_usize..40, 1..50), damage in any::<Option<(u16, u8)>>()) {
        let mut bytes = write_data_set(&written, Encoding::ExplicitLe);
        bytes.extend(encapsulated_image("2 ", &[], &[b"abcd", b"ef"]));
        if let Some((at, byte)) = damage {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        let whole = scan_with(EXPLICIT, &bytes, usize::MAX, &Limits::default());
        let mut scanner = Scanner::new(&transfer_syntax(EXPLICIT), &Limits::default());
        let (mut rest, mut result) = (&bytes[..], Ok(()));
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() || result.is_err() {
                break;
            }
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            result = scanner.push(piece);
            rest = more;
        }
        let pieces = scanner.finish();
        prop_assert_eq!(whole.as_ref().err(), pieces.as_ref().err());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            // Compared as text: a damaged float may be NaN, which is not equal to itself.
            prop_assert_eq!(format!("{:?}", whole.header), format!("{:?}", pieces.header));
            prop_assert_eq!(whole.frames, pieces.frames);
            prop_assert_eq!(whole.warnings, pieces.warnings);
        }
    }

    #[test]
    fn any_bytes_are_a_data_set_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for uid in [IMPLICIT, EXPLICIT, BIG, DEFLATED] {
            let _ = scan_with(uid, &bytes, 7, &Limits::default());
        }
    }
}
