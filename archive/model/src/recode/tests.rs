//! Values that stay what they are, in every pair of encodings and in pieces of every size.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::{DataSet, Element, Encoding, TRANSFER_SYNTAXES, Value, read_data_set, write_data_set};
use proptest::prelude::*;
use std::io::Write;

fn recode(bytes: &[u8], from: &str, to: &str, step: usize) -> Result<Vec<u8>, RecodeError> {
    let mut recoder = Recoder::new(from, to, &Limits::default()).unwrap();
    let mut out = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        recoder.push(piece, &mut out)?;
    }
    recoder.finish(&mut out)?;
    Ok(out)
}

fn sample() -> DataSet {
    let mut item = DataSet::new();
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3");
    let mut set = DataSet::new();
    set.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
    set.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2.3");
    set.put_text(tags::PATIENT_NAME, VR::PN, "Müller^Jörg");
    set.put(Element { tag: tags::REFERENCED_IMAGE_SEQUENCE, vr: VR::SQ, value: Value::Items(vec![item; 2]) });
    set.put(Element { tag: tags::ROWS, vr: VR::US, value: Value::Integers(vec![0x0102]) });
    set.put(Element { tag: tags::PIXEL_REPRESENTATION, vr: VR::US, value: Value::Integers(vec![1]) });
    set.put(Element { tag: tags::SMALLEST_IMAGE_PIXEL_VALUE, vr: VR::SS, value: Value::Integers(vec![-2]) });
    set.put(Element { tag: tags::FRAME_INCREMENT_POINTER, vr: VR::AT, value: Value::Tags(vec![Tag(0x18, 0x1063)]) });
    set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value: Value::Bytes(vec![1, 0, 2, 0].into()) });
    set
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    let mut out = encoder.finish().unwrap();
    if out.len() % 2 == 1 {
        out.push(0);
    }
    out
}

#[test]
fn every_plain_encoding_becomes_every_other_with_the_same_values() {
    let set = sample();
    let explicit = write_data_set(&set, Encoding::ExplicitLe);
    let sources = [
        (IMPLICIT_LE, write_data_set(&set, Encoding::ImplicitLe)),
        (EXPLICIT_LE, explicit.clone()),
        (EXPLICIT_BE, write_data_set(&set, Encoding::ExplicitBe)),
        (DEFLATED_LE, deflated(&explicit)),
    ];
    for (from, bytes) in sources {
        for to in TARGETS {
            let whole = recode(&bytes, from, to, usize::MAX).unwrap();
            assert_eq!(read_data_set(&whole, &transfer_syntax(to), &Limits::default()).unwrap(), set, "{from} {to}");
            for step in [1, 3, 7, 64] {
                assert!(recode(&bytes, from, to, step).unwrap() == whole, "{from} {to} {step}");
            }
        }
    }
}

#[test]
fn only_plain_syntaxes_are_recoded() {
    let plain = [IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE];
    for row in TRANSFER_SYNTAXES {
        assert_eq!(can_recode(row.uid, EXPLICIT_LE), plain.contains(&row.uid), "{}", row.name);
        assert_eq!(can_recode(EXPLICIT_LE, row.uid), TARGETS.contains(&row.uid), "{}", row.name);
        let coded = row.encapsulated && !row.pixel.is_video() && !row.name.contains("Part 2");
        assert_eq!(can_decode(row.uid, IMPLICIT_LE), coded, "{}", row.name);
        assert!(!can_decode("1.2.840.10008.1.2.5", row.uid) || TARGETS.contains(&row.uid), "{}", row.name);
    }
    assert!(!can_recode("1.2.276.0.7230010.3.1.99", EXPLICIT_LE), "not in the table");
}

#[test]
fn values_that_no_reader_understands_stay_as_they_are() {
    // Bytes that are no text of any set, a number with a comma, a private element, and a length beyond 16 bits.
    let mut implicit =
        b"\x10\0\x10\0\x04\0\0\0\xFF\xFE\x81\x1B\x18\0\x50\0\x04\0\0\0 1,5\x29\0\x10\x10\x04\0\0\0\x01\xFF\x02\x03"
            .to_vec();
    implicit.extend(b"\x40\0\x04\xA3\x70\x11\x01\0");
    implicit.extend(vec![b'x'; 0x11170]);
    let explicit = recode(&implicit, IMPLICIT_LE, EXPLICIT_LE, 1000).unwrap();
    assert!(explicit.starts_with(
        b"\x10\0\x10\0PN\x04\0\xFF\xFE\x81\x1B\x18\0\x50\0DS\x04\0 1,5\x29\0\x10\x10UN\0\0\x04\0\0\0\x01\xFF\x02\x03"
    ));
    assert_eq!(recode(&explicit, EXPLICIT_LE, IMPLICIT_LE, 999), Ok(implicit));
}

#[test]
fn group_lengths_go_and_odd_values_are_padded() {
    let bytes = b"\x08\0\0\0\x04\0\0\0\x0E\0\0\0\x08\0\x60\0\x01\0\0\0M\x10\0\x20\0\x02\0\0\0ID";
    let expected = b"\x08\0\x60\0CS\x02\0M \x10\0\x20\0LO\x02\0ID";
    assert_eq!(recode(bytes, IMPLICIT_LE, EXPLICIT_LE, 5).unwrap(), expected);
}

#[test]
fn what_the_scanner_tolerates_is_tolerated() {
    let padded = b"\x08\0\x60\0\x01\0\0\0M \x10\0\x20\0\x02\0\0\0ID";
    let expected = b"\x08\0\x60\0CS\x02\0M \x10\0\x20\0LO\x02\0ID";
    for step in [1, 5, 99] {
        assert_eq!(recode(padded, IMPLICIT_LE, EXPLICIT_LE, step).unwrap(), expected);
    }
    // A delimiter in an item with a length, and an item without its delimiter.
    let known =
        b"\x08\0\x40\x11\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\x08\0\0\0\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
    let open = b"\x08\0\x40\x11\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\xFE\xFF\xDD\xE0\0\0\0\0";
    let both = b"\x08\0\x40\x11SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
    assert_eq!(recode(known, IMPLICIT_LE, EXPLICIT_LE, 99).unwrap(), both);
    assert_eq!(recode(open, IMPLICIT_LE, EXPLICIT_LE, 99).unwrap(), both);
}

#[test]
fn what_is_not_what_its_syntax_says_is_an_error() {
    let fragments = b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
    assert_eq!(recode(fragments, EXPLICIT_LE, IMPLICIT_LE, 99).unwrap_err().why, "its pixel data is encapsulated");
    let implicit = b"\xE0\x7F\x10\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0";
    assert!(recode(implicit, IMPLICIT_LE, EXPLICIT_LE, 99).is_err());
    assert!(recode(b"\x28\0\x10\0US\x02\0", EXPLICIT_LE, IMPLICIT_LE, 99).is_err(), "cut off");
    assert!(recode(b"\0\x28\0\x10US\0\x03abc", EXPLICIT_BE, EXPLICIT_LE, 99).is_err(), "half a word");
}

/// Elements, encapsulated pixel data of two fragments, and an element behind it.
fn encapsulated() -> (Vec<u8>, usize) {
    let mut bytes = b"\x08\0\x60\0CS\x02\0OT\x28\0\x02\0US\x02\0\x03\0\x28\0\x04\0CS\x0C\0YBR_FULL_422\x28\0\x10\0US\x02\0\x02\0\xE0\x7F\x01\0OV\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\xE0\x7F\x02\0OV\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    bytes.extend(b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\0\xE0\x04\0\0\0\xFE\xFF\xDD\xE0");
    let last = bytes.len();
    bytes.extend(b"\xFE\xFF\0\xE0\x02\0\0\0\xAA\xBB\xFE\xFF\xDD\xE0\0\0\0\0\xFC\xFF\xFC\xFFOB\0\0\x02\0\0\0\0\0");
    (bytes, last)
}

fn decoded(to: &str, pixels: NativePixels, frames: &[u8], step: usize) -> Result<Vec<u8>, RecodeError> {
    let (bytes, last) = encapsulated();
    let from = "1.2.840.10008.1.2.4.50";
    let mut recoder = Recoder::decoding(from, to, Some(pixels), &Limits::default()).unwrap();
    let mut out = Vec::new();
    for piece in bytes[..last].chunks(step) {
        recoder.push(piece, &mut out)?;
    }
    assert!(recoder.wants_frames());
    for piece in frames.chunks(3) {
        recoder.frame(piece, &mut out)?;
    }
    recoder.resume(last as u64, &mut out)?;
    for piece in bytes[last..].chunks(step) {
        recoder.push(piece, &mut out)?;
    }
    recoder.finish(&mut out)?;
    Ok(out)
}

#[test]
fn encapsulated_pixel_data_becomes_native_and_the_attributes_follow() {
    let pixels = NativePixels { length: 5, allocated: 8, photometric: Some("RGB"), planar: Some(false) };
    let explicit = b"\x08\0\x60\0CS\x02\0OT\x28\0\x02\0US\x02\0\x03\0\x28\0\x04\0CS\x04\0RGB \x28\0\x06\0US\x02\0\0\0\x28\0\x10\0US\x02\0\x02\0\xE0\x7F\x10\0OB\0\0\x06\0\0\0\x01\x02\x03\x04\x05\0\xFC\xFF\xFC\xFFOB\0\0\x02\0\0\0\0\0";
    for step in [1, 7, 1000] {
        assert_eq!(decoded(EXPLICIT_LE, pixels.clone(), &[1, 2, 3, 4, 5], step).unwrap(), explicit);
    }
    assert!(decoded(EXPLICIT_LE, pixels.clone(), &[1, 2, 3, 4], 9).is_err(), "too few");
    assert!(decoded(EXPLICIT_LE, pixels.clone(), &[1; 6], 9).is_err(), "too many");
    // Words are turned for big endian, bytes are not.
    let big = decoded(EXPLICIT_BE, pixels.clone(), &[1, 2, 3, 4, 5], 9).unwrap();
    assert!(big.starts_with(b"\0\x08\0\x60CS\0\x02OT\0\x28\0\x02US\0\x02\0\x03\0\x28\0\x04CS\0\x04RGB \0\x28\0\x06US\0\x02\0\0\0\x28\0\x10US\0\x02\0\x02\x7F\xE0\0\x10OB\0\0\0\0\0\x06\x01\x02\x03\x04\x05\0"));
    let words = NativePixels { length: 4, allocated: 16, photometric: None, planar: None };
    let big = decoded(EXPLICIT_BE, words.clone(), &[1, 2, 3, 4], 9).unwrap();
    assert!(big.windows(16).any(|bytes| bytes == b"\x7F\xE0\0\x10OW\0\0\0\0\0\x04\x02\x01\x04\x03"));
    let implicit = decoded(IMPLICIT_LE, words, &[1, 2, 3, 4], 9).unwrap();
    assert!(implicit.windows(12).any(|bytes| bytes == b"\xE0\x7F\x10\0\x04\0\0\0\x01\x02\x03\x04"));
    assert!(!implicit.windows(4).any(|bytes| bytes == b"\xE0\x7F\x01\0"), "offsets of fragments that are gone");
}

#[test]
fn native_pixel_data_becomes_fragments() {
    let implicit = b"\x28\0\x04\0\x04\0\0\0RGB \xE0\x7F\x10\0\x04\0\0\0abcd\xFC\xFF\xFC\xFF\x02\0\0\0\0\0";
    let to = "1.2.840.10008.1.2.4.201";
    let mut recoder = Recoder::encoding(IMPLICIT_LE, to, Some("YBR_RCT"), None, &Limits::default()).unwrap();
    let mut out = Vec::new();
    recoder.push(implicit, &mut out).unwrap();
    assert!(recoder.wants_frames());
    assert_eq!(recoder.native_value(), Some(20..24));
    recoder.fragment(b"", &mut out).unwrap();
    recoder.fragment(b"xyz", &mut out).unwrap();
    recoder.resume(24, &mut out).unwrap();
    recoder.push(&implicit[24..], &mut out).unwrap();
    recoder.finish(&mut out).unwrap();
    assert_eq!(out, b"\x28\0\x04\0CS\x08\0YBR_RCT \xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\0\xE0\x04\0\0\0xyz\0\xFE\xFF\xDD\xE0\0\0\0\0\xFC\xFF\xFC\xFFOB\0\0\x02\0\0\0\0\0");
    assert!(!can_encode(DEFLATED_LE, to) && !can_encode(EXPLICIT_LE, "1.2.840.10008.1.2.4.50"));
}

#[test]
fn big_endian_pixel_data_becomes_fragments_in_a_little_endian_data_set() {
    let big = b"\0\x28\0\x06US\0\x02\0\x01\0\x28\0\x10US\0\x02\0\x02\x7F\xE0\0\x10OW\0\0\0\0\0\x04abcd";
    let mut recoder =
        Recoder::encoding(EXPLICIT_BE, "1.2.840.10008.1.2.5", None, Some(false), &Limits::default()).unwrap();
    let mut out = Vec::new();
    recoder.push(big, &mut out).unwrap();
    assert_eq!(recoder.native_value(), Some(32..36));
    recoder.fragment(b"", &mut out).unwrap();
    recoder.fragment(b"xyzw", &mut out).unwrap();
    recoder.resume(36, &mut out).unwrap();
    recoder.finish(&mut out).unwrap();
    assert_eq!(out, b"\x28\0\x06\0US\x02\0\0\0\x28\0\x10\0US\x02\0\x02\0\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\0\xE0\x04\0\0\0xyzw\xFE\xFF\xDD\xE0\0\0\0\0");
}

#[test]
fn a_data_set_without_the_pixel_data_that_was_promised_is_an_error() {
    let pixels = NativePixels { length: 4, allocated: 8, photometric: None, planar: None };
    let mut recoder = Recoder::decoding("1.2.840.10008.1.2.5", EXPLICIT_LE, Some(pixels), &Limits::default()).unwrap();
    let mut out = Vec::new();
    recoder.push(b"\x08\0\x60\0CS\x02\0OT", &mut out).unwrap();
    assert!(recoder.finish(&mut out).is_err());
}

#[test]
fn an_unknown_sequence_is_written_as_one() {
    let bytes =
        b"\x29\0\x10\x10UN\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\x0A\0\0\0\x08\0\x60\0\x02\0\0\0MR\xFE\xFF\xDD\xE0\0\0\0\0";
    let expected = b"\x29\0\x10\x10SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\x08\0\x60\0CS\x02\0MR\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0";
    assert_eq!(recode(bytes, EXPLICIT_LE, EXPLICIT_LE, 99).unwrap(), expected);
}

#[test]
fn what_is_decoded_or_encoded_may_be_edited_as_well() {
    let mut edits = Edits::default();
    edits.put(tags::PATIENT_ID, VR::LO, b"X ".to_vec());
    edits.remove(tags::MODALITY);
    // What the pixels become is nobody else's to say.
    edits.put(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, b"NO".to_vec());
    let (bytes, last) = encapsulated();
    let pixels = NativePixels { length: 4, allocated: 8, photometric: Some("RGB"), planar: None };
    let from = "1.2.840.10008.1.2.4.50";
    let recoder = Recoder::decoding(from, EXPLICIT_LE, Some(pixels), &Limits::default());
    let (mut recoder, mut out) = (recoder.unwrap().edited(&edits), Vec::new());
    recoder.push(&bytes[..last], &mut out).unwrap();
    recoder.frame(b"abcd", &mut out).unwrap();
    recoder.resume(last as u64, &mut out).unwrap();
    recoder.push(&bytes[last..], &mut out).unwrap();
    recoder.finish(&mut out).unwrap();
    assert!(out.starts_with(
        b"\x10\0\x20\0LO\x02\0X \x28\0\x02\0US\x02\0\x03\0\x28\0\x04\0CS\x04\0RGB \x28\0\x10\0US\x02\0\x02\0\xE0\x7F\x10\0OB"
    ));

    let native = b"\x08\0\x60\0CS\x02\0OT\x28\0\x04\0CS\x04\0RGB \xE0\x7F\x10\0OB\0\0\x04\0\0\0abcd";
    let recoder =
        Recoder::encoding(EXPLICIT_LE, "1.2.840.10008.1.2.5", Some("YBR_RCT"), None, &Limits::default()).unwrap();
    let (mut recoder, mut out) = (recoder.edited(&edits), Vec::new());
    recoder.push(native, &mut out).unwrap();
    recoder.fragment(b"", &mut out).unwrap();
    recoder.fragment(b"xyzw", &mut out).unwrap();
    recoder.resume(native.len() as u64, &mut out).unwrap();
    recoder.finish(&mut out).unwrap();
    assert!(out.starts_with(b"\x10\0\x20\0LO\x02\0X \x28\0\x04\0CS\x08\0YBR_RCT \xE0\x7F\x10\0OB\0\0\xFF"));
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..50) {
        let mut edits = Edits::default();
        edits.put(tags::PATIENT_ID, VR::LO, b"X ".to_vec());
        edits.remove(Tag(u16::from(*bytes.first().unwrap_or(&8)), 0x0010));
        edits.append(tags::REFERENCED_IMAGE_SEQUENCE, vec![0; 8]);
        for syntax in [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE] {
            let _ = patch(&bytes, syntax, &edits, step);
        }
        for from in [IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE] {
            let _ = recode(&bytes, from, EXPLICIT_LE, step);
            let _ = recode(&bytes, from, EXPLICIT_BE, step);
        }
    }
}

/// In the encoding that it has, with `edits`.
fn patch(bytes: &[u8], syntax: &str, edits: &Edits, step: usize) -> Result<Vec<u8>, RecodeError> {
    let mut recoder = Recoder::patching(syntax, edits, &Limits::default()).unwrap();
    let mut out = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        recoder.push(piece, &mut out)?;
    }
    recoder.finish(&mut out)?;
    Ok(out)
}

#[test]
fn elements_are_put_changed_and_left_out_in_every_encoding_and_in_pieces_of_every_size() {
    let set = sample();
    let mut edits = Edits::default();
    edits.put(tags::PATIENT_NAME, VR::PN, b"DOE^J ".to_vec());
    edits.put(tags::ACCESSION_NUMBER, VR::SH, b"A1".to_vec());
    edits.put(tags::SMALLEST_IMAGE_PIXEL_VALUE, VR::SS, vec![5, 0]);
    edits.remove(tags::REFERENCED_IMAGE_SEQUENCE);
    edits.remove(tags::PATIENT_ID);
    let mut expected = set.clone();
    expected.put_text(tags::PATIENT_NAME, VR::PN, "DOE^J");
    expected.put_text(tags::ACCESSION_NUMBER, VR::SH, "A1");
    let five = Value::Integers(vec![5]);
    expected.put(Element { tag: tags::SMALLEST_IMAGE_PIXEL_VALUE, vr: VR::SS, value: five });
    expected.remove(tags::REFERENCED_IMAGE_SEQUENCE);
    for syntax in TARGETS {
        let bytes = write_data_set(&set, transfer_syntax(syntax).encoding);
        // Sequences of undefined length as well.
        for bytes in [recode(&bytes, syntax, syntax, 99).unwrap(), bytes] {
            for step in [1, 3, 7, 64, usize::MAX] {
                let patched = patch(&bytes, syntax, &edits, step).unwrap();
                let read = read_data_set(&patched, &transfer_syntax(syntax), &Limits::default()).unwrap();
                assert_eq!(read, expected, "{syntax} {step}");
            }
        }
    }
}

#[test]
fn an_edit_behind_the_last_element_is_written_and_one_without_a_place_is_an_error() {
    let mut set = sample();
    set.remove(tags::PIXEL_DATA);
    let bytes = write_data_set(&set, Encoding::ExplicitLe);
    let mut edits = Edits::default();
    edits.put(Tag(0x0040, 0xA493), VR::CS, b"VERIFIED".to_vec());
    let patched = patch(&bytes, EXPLICIT_LE, &edits, 7).unwrap();
    assert!(patched.ends_with(b"\x40\0\x93\xA4CS\x08\0VERIFIED"));
    for set in [set, sample()] {
        let mut edits = Edits::default();
        edits.append(tags::ORIGINAL_ATTRIBUTES_SEQUENCE, b"\xFE\xFF\0\xE0\0\0\0\0".to_vec());
        let error = patch(&write_data_set(&set, Encoding::ExplicitLe), EXPLICIT_LE, &edits, 7).unwrap_err();
        assert_eq!(error.why, "a sequence that is to have one item more is not there", "RE-3");
    }
    assert!(Recoder::patching(DEFLATED_LE, &edits, &Limits::default()).is_none());
}

#[test]
fn an_item_is_appended_behind_those_that_are_there() {
    let sequence = tags::REFERENCED_IMAGE_SEQUENCE;
    let mut item = DataSet::new();
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "9.9");
    for syntax in TARGETS {
        let encoding = transfer_syntax(syntax).encoding;
        let whole = Element { tag: sequence, vr: VR::SQ, value: Value::Items(vec![item.clone()]) };
        let header_bytes = if encoding == Encoding::ImplicitLe { 8 } else { 12 };
        let mut edits = Edits::default();
        edits.append(sequence, write_data_set(&[whole].into_iter().collect(), encoding)[header_bytes..].to_vec());
        let bytes = write_data_set(&sample(), encoding);
        for bytes in [recode(&bytes, syntax, syntax, 99).unwrap(), bytes] {
            for step in [1, 7, 1000] {
                let patched = patch(&bytes, syntax, &edits, step).unwrap();
                let read = read_data_set(&patched, &transfer_syntax(syntax), &Limits::default()).unwrap();
                let items = read.items(sequence);
                assert_eq!((items.len(), &items[2], &items[..2]), (3, &item, sample().items(sequence)), "{syntax}");
            }
        }
    }
}

#[test]
fn compressed_pixel_data_and_the_icon_inside_of_a_sequence_are_passed_on() {
    let fragments =
        b"OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\0\xE0\x04\0\0\0\xFE\xFF\xDD\xE0\xFE\xFF\xDD\xE0\0\0\0\0";
    let icon = [
        b"\x88\0\0\x02SQ\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\xFF\xFF\xFF\xFF\xE0\x7F\x10\0",
        &fragments[..],
        b"\xFE\xFF\x0D\xE0\0\0\0\0\xFE\xFF\xDD\xE0\0\0\0\0",
    ]
    .concat();
    let pixels = [b"\xE0\x7F\x10\0", &fragments[..], b"\xFC\xFF\xFC\xFFOB\0\0\x02\0\0\0\0\0"].concat();
    let bytes = [b"\x10\0\x20\0LO\x02\0P1", &icon[..], &pixels].concat();
    let mut edits = Edits::default();
    edits.put(tags::PATIENT_ID, VR::LO, b"X ".to_vec());
    for step in [1, 3, 5, 1000] {
        let patched = patch(&bytes, "1.2.840.10008.1.2.4.70", &edits, step).unwrap();
        assert!(patched == [b"\x10\0\x20\0LO\x02\0X ", &icon[..], &pixels].concat(), "{step}");
    }
    edits.remove(Tag(0x0088, 0x0200));
    let patched = patch(&bytes, "1.2.840.10008.1.2.4.70", &edits, 3).unwrap();
    assert!(patched == [b"\x10\0\x20\0LO\x02\0X ", &pixels[..]].concat());
}
