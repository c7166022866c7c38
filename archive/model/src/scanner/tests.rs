//! Tests of the pre-validator: what it accepts, what it refuses, and that pieces make no difference.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use super::*;
use crate::{Element, Encoding, Tag, VR, invalid::InvalidKind, transfer_syntax, write_data_set};
use bytes::Bytes;
use std::io::Write as _;

pub(super) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(super) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(super) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(super) const BIG: &str = "1.2.840.10008.1.2.2";
const JPEG: &str = "1.2.840.10008.1.2.4.50";
const RLE: &str = "1.2.840.10008.1.2.5";

pub(super) fn scan_with(uid: &str, bytes: &[u8], piece_bytes: usize, limits: &Limits) -> Result<Scanned, Invalid> {
    let mut scanner = Scanner::new(&transfer_syntax(uid), limits);
    for piece in bytes.chunks(piece_bytes) {
        scanner.push(piece)?;
    }
    scanner.finish()
}

/// Scans whole and byte by byte: both must say the same.
fn scan(uid: &str, bytes: &[u8]) -> Result<Scanned, Invalid> {
    let whole = scan_with(uid, bytes, usize::MAX, &Limits::default());
    let single = scan_with(uid, bytes, 1, &Limits::default());
    match (&whole, &single) {
        (Ok(a), Ok(b)) => assert_eq!((&a.header, &a.frames, &a.warnings), (&b.header, &b.frames, &b.warnings)),
        (a, b) => assert_eq!(a.as_ref().err(), b.as_ref().err()),
    }
    whole
}

fn kind(uid: &str, bytes: &[u8]) -> Option<InvalidKind> {
    scan(uid, bytes).err().map(|invalid| invalid.kind())
}

pub(super) fn set(elements: impl IntoIterator<Item = (Tag, VR, Value)>) -> DataSet {
    elements.into_iter().map(|(tag, vr, value)| Element { tag, vr, value }).collect()
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.split('\\').map(str::to_owned).collect())
}

/// Explicit little endian, short form.
fn short(group: u16, element: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), element.to_le_bytes()].concat();
    bytes.extend(vr.as_bytes());
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(value);
    bytes
}

/// Explicit little endian, long form, with any length.
fn long(group: u16, element: u16, vr: &str, length: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), element.to_le_bytes()].concat();
    bytes.extend(vr.as_bytes());
    bytes.extend([0, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(value);
    bytes
}

/// No VR: implicit elements, items, delimiters.
fn bare(group: u16, element: u16, length: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), element.to_le_bytes()].concat();
    bytes.extend(length.to_le_bytes());
    bytes.extend(value);
    bytes
}

fn item(value: &[u8]) -> Vec<u8> {
    bare(0xFFFE, 0xE000, value.len() as u32, value)
}

fn item_end() -> Vec<u8> {
    bare(0xFFFE, 0xE00D, 0, &[])
}

fn sequence_end() -> Vec<u8> {
    bare(0xFFFE, 0xE0DD, 0, &[])
}

fn native_image(rows: u16, columns: u16, frames: &str, bits: u16, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = short(0x28, 2, "US", &[1, 0]);
    bytes.extend(short(0x28, 8, "IS", frames.as_bytes()));
    bytes.extend(short(0x28, 0x10, "US", &rows.to_le_bytes()));
    bytes.extend(short(0x28, 0x11, "US", &columns.to_le_bytes()));
    bytes.extend(short(0x28, 0x100, "US", &bits.to_le_bytes()));
    bytes.extend(long(0x7FE0, 0x10, "OW", pixels.len() as u32, pixels));
    bytes
}

pub(super) fn encapsulated_image(frames: &str, table: &[u32], fragments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = short(0x28, 8, "IS", frames.as_bytes());
    bytes.extend(long(0x7FE0, 0x10, "OB", u32::MAX, &[]));
    bytes.extend(item(&table.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<_>>()));
    fragments.iter().for_each(|fragment| bytes.extend(item(fragment)));
    bytes.extend(sequence_end());
    bytes
}

/// The bytes of every frame, cut out of the data set by the frame map.
fn frames_of(uid: &str, bytes: &[u8]) -> Vec<Vec<u8>> {
    let map = scan(uid, bytes).unwrap().frames.unwrap();
    let bytes_of = |range: std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    (1..=map.frames())
        .map(|frame| map.ranges(frame).unwrap().into_iter().flat_map(bytes_of).copied().collect())
        .collect()
}

#[test]
fn a_header_is_read_in_each_encoding() {
    let header = set([
        (Tag(0x8, 0x16), VR::UI, text("1.2.840.10008.5.1.4.1.1.2")),
        (
            Tag(0x8, 0x1140),
            VR::SQ,
            Value::Items(vec![set([(Tag(0x8, 0x1155), VR::UI, text("1.2.3"))]), DataSet::new()]),
        ),
        (Tag(0x10, 0x10), VR::PN, text("DOE^JANE")),
        (Tag(0x20, 0x13), VR::IS, text("7")),
        (Tag(0x28, 0x9), VR::AT, Value::Tags(vec![Tag(0x18, 0x1063)])),
        (Tag(0x28, 0x10), VR::US, Value::Integers(vec![512])),
    ]);
    for (uid, encoding) in
        [(IMPLICIT, Encoding::ImplicitLe), (EXPLICIT, Encoding::ExplicitLe), (BIG, Encoding::ExplicitBe)]
    {
        let bytes = write_data_set(&header, encoding);
        let scanned = scan(uid, &bytes).unwrap();
        assert_eq!(scanned.header, header, "{uid}");
        assert_eq!((scanned.length_bytes, scanned.warnings.len()), (bytes.len() as u64, 0));
    }
}

#[test]
fn undefined_lengths_mean_what_defined_ones_mean() {
    let inner = short(0x8, 0x1155, "UI", b"1.2.3\0");
    let mut bytes = long(0x8, 0x1140, "SQ", u32::MAX, &[]);
    bytes.extend(bare(0xFFFE, 0xE000, u32::MAX, &inner));
    bytes.extend(item_end());
    bytes.extend(item(&inner));
    bytes.extend(sequence_end());
    bytes.extend(short(0x10, 0x20, "LO", b"ID"));
    let scanned = scan(EXPLICIT, &bytes).unwrap();
    let expected = set([(Tag(0x8, 0x1155), VR::UI, text("1.2.3"))]);
    assert_eq!(scanned.header.items(Tag(0x8, 0x1140)), [expected.clone(), expected]);
    assert_eq!(scanned.header.text(tags::PATIENT_ID), Some("ID"));
}

#[test]
fn unknown_of_undefined_length_is_an_implicit_sequence() {
    let mut bytes = long(0x9, 0x1010, "UN", u32::MAX, &[]);
    bytes.extend(item(&bare(0x8, 0x1155, 6, b"1.2.3\0")));
    bytes.extend(sequence_end());
    bytes.extend(short(0x10, 0x20, "LO", b"ID"));
    let header = scan(EXPLICIT, &bytes).unwrap().header;
    assert_eq!(header.items(Tag(0x9, 0x1010))[0].text(Tag(0x8, 0x1155)), Some("1.2.3"));
    assert_eq!(header.text(tags::PATIENT_ID), Some("ID"));
}

#[test]
fn unknown_of_a_standard_element_is_read_by_the_dictionary() {
    let header = scan(EXPLICIT, &long(0x10, 0x20, "UN", 4, b"ID12")).unwrap().header;
    assert_eq!(header.text(tags::PATIENT_ID), Some("ID12"));
    let private = scan(EXPLICIT, &long(0x11, 0x1020, "UN", 4, b"ID12")).unwrap().header;
    assert_eq!(private.get(Tag(0x11, 0x1020)).unwrap().value, Value::Bytes(Bytes::from_static(b"ID12")));
}

#[test]
fn odd_lengths_do_not_shift_the_stream() {
    let next = short(0x10, 0x30, "DA", b"19700101");
    let plain = [short(0x10, 0x20, "LO", b"ID1"), next.clone()].concat();
    let padded = [short(0x10, 0x20, "LO", b"ID1"), vec![0], next.clone()].concat();
    let implicit = [bare(0x10, 0x20, 3, b"ID1"), vec![b' '], bare(0x10, 0x30, 8, b"19700101")].concat();
    let mut inside = long(0x8, 0x1140, "SQ", 8 + 12, &[]);
    inside.extend(item(&[short(0x8, 0x1155, "UI", b"1.2"), vec![0]].concat()));
    inside.extend(&plain);
    for (uid, bytes) in [(EXPLICIT, plain), (EXPLICIT, padded), (IMPLICIT, implicit), (EXPLICIT, inside)] {
        let header = scan(uid, &bytes).unwrap().header;
        assert_eq!(header.text(tags::PATIENT_ID), Some("ID1"));
        assert_eq!(header.text(tags::PATIENT_BIRTH_DATE), Some("19700101"));
    }
}

#[test]
fn wrong_vrs_are_read_by_length() {
    for vr in ["??", "  ", "--"] {
        let bytes = [short(0x10, 0x20, vr, b"ID"), short(0x10, 0x30, "DA", b"19700101")].concat();
        let scanned = scan(EXPLICIT, &bytes).unwrap();
        assert_eq!(scanned.header.text(tags::PATIENT_ID), Some("ID"));
        assert_eq!(scanned.warnings.len(), 1);
    }
    let bytes = [bare(0x10, 0x20, 2, b"ID"), short(0x10, 0x30, "DA", b"19700101")].concat();
    // Its length 2 looks like a VR of two bytes with a length of 0 only if the high bytes are letters.
    assert_eq!(scan(EXPLICIT, &bytes).unwrap().header.text(tags::PATIENT_ID), Some("ID"));
    let future = [long(0x10, 0x20, "ZZ", 2, b"ID"), short(0x10, 0x30, "DA", b"19700101")].concat();
    assert_eq!(scan(EXPLICIT, &future).unwrap().header.text(tags::PATIENT_BIRTH_DATE), Some("19700101"));
}

#[test]
fn elements_out_of_order_and_twice_are_told_and_the_first_is_taken() {
    let bytes = [
        short(0x10, 0x20, "LO", b"ID"),
        short(0x8, 0x60, "CS", b"CT"),
        short(0x8, 0x60, "CS", b"MR"),
        short(0x20, 0x10, "SH", b"S1"),
    ]
    .concat();
    let scanned = scan(EXPLICIT, &bytes).unwrap();
    assert_eq!(scanned.header.text(tags::MODALITY), Some("CT"));
    assert_eq!(scanned.header.len(), 3);
    assert!(!scanned.warnings.is_empty());
}

#[test]
fn group_lengths_padding_and_foreign_groups_carry_no_meaning() {
    let bytes = [
        short(0x0, 0x2, "UI", b"1.2\0"),
        short(0x2, 0x10, "UI", b"1.2.840.10008.1.2\0"),
        short(0x8, 0x0, "UL", &[0xFF; 4]),
        short(0x10, 0x20, "LO", b"ID"),
        long(0xFFFC, 0xFFFC, "OB", 4, &[0; 4]),
    ]
    .concat();
    let scanned = scan(EXPLICIT, &bytes).unwrap();
    assert_eq!(scanned.header.iter().map(|element| element.tag).collect::<Vec<_>>(), [tags::PATIENT_ID]);
    assert_eq!(scanned.warnings.len(), 2);
}

#[test]
fn large_values_stay_in_the_body_and_long_texts_do_not() {
    let private = vec![7; 5000];
    let comments = vec![b'x'; 5000];
    let bytes = [long(0x9, 0x1001, "OB", 5000, &private), long(0x40, 0xA160, "UT", 5000, &comments)].concat();
    let header = scan(EXPLICIT, &bytes).unwrap().header;
    assert_eq!(header.get(Tag(0x9, 0x1001)).unwrap().value, Value::Bulk { offset: 12, length: 5000 });
    assert_eq!(header.text(Tag(0x40, 0xA160)).map(str::len), Some(5000));
}

#[test]
fn a_hundred_thousand_nested_sequences_are_refused_without_a_stack() {
    let explicit = [long(0x8, 0x1140, "SQ", u32::MAX, &[]), bare(0xFFFE, 0xE000, u32::MAX, &[])].concat();
    let implicit = [bare(0x8, 0x1140, u32::MAX, &[]), bare(0xFFFE, 0xE000, u32::MAX, &[])].concat().repeat(100_000);
    let unknown = [long(0x9, 0x1010, "UN", u32::MAX, &[]), bare(0xFFFE, 0xE000, u32::MAX, &implicit)].concat();
    for bytes in [explicit.repeat(100_000), unknown] {
        let error = scan_with(EXPLICIT, &bytes, 4096, &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), InvalidKind::TooDeep);
    }
    let small = crate::read_data_set(&implicit, &transfer_syntax(IMPLICIT), &Limits::default());
    assert_eq!(small.err().map(|e| e.kind()), Some(InvalidKind::TooDeep));
    assert!(crate::read_command_set(&implicit, &Limits::default()).is_err());
}

#[test]
fn sixty_four_levels_are_accepted() {
    let mut bytes = short(0x8, 0x1155, "UI", b"1.2\0");
    for _ in 0..64 {
        let item = item(&bytes);
        bytes = long(0x8, 0x1140, "SQ", item.len() as u32, &item);
    }
    assert!(scan(EXPLICIT, &bytes).is_ok());
    let item = item(&bytes);
    assert_eq!(kind(EXPLICIT, &long(0x8, 0x1140, "SQ", item.len() as u32, &item)), Some(InvalidKind::TooDeep));
}

#[test]
fn a_declared_length_allocates_nothing_and_is_refused_at_the_end() {
    for vr in ["OB", "OW", "UN", "UT", "UC", "SQ", "SV"] {
        for length in [0x7FFF_FFFF, 0xFFFF_FFFC, 0xFFFF_FFFE] {
            assert_eq!(kind(EXPLICIT, &long(0x9, 0x1001, vr, length, b"abcd")), Some(InvalidKind::Truncated), "{vr}");
        }
    }
    for length in [0x7FFF_FFFF, 0xFFFF_FFFC] {
        assert_eq!(kind(IMPLICIT, &bare(0x10, 0x10, length, b"abcd")), Some(InvalidKind::Truncated));
    }
}

#[test]
fn a_length_beyond_what_encloses_it_is_refused_at_once() {
    let inside = item(&short(0x8, 0x1155, "UI", b"1.2\0")[..10]);
    let sequence = long(0x8, 0x1140, "SQ", inside.len() as u32, &inside);
    let error = scan(EXPLICIT, &sequence).unwrap_err();
    assert_eq!(error.kind(), InvalidKind::TooLong);
    assert_eq!(error.place().tag, Some(Tag(0x8, 0x1155)));
    assert!(error.comment().starts_with("(0008,1155) at byte 28"), "{}", error.comment());
    let item_too_long = [long(0x8, 0x1140, "SQ", 8, &[]), bare(0xFFFE, 0xE000, 4, b"abcd")].concat();
    assert_eq!(kind(EXPLICIT, &item_too_long), Some(InvalidKind::TooLong));
    let little_room = long(0x8, 0x1140, "SQ", 4, b"abcd");
    assert_eq!(kind(EXPLICIT, &little_room), Some(InvalidKind::TooLong));
}

#[test]
fn an_explicit_data_set_in_an_implicit_syntax_is_refused_at_its_first_element() {
    let mut scanner = Scanner::new(&transfer_syntax(IMPLICIT), &Limits::default());
    let error = scanner.push(&short(0x8, 0x16, "UI", b"1.2.3\0")).unwrap_err();
    assert_eq!(error.kind(), InvalidKind::Malformed);
}

#[test]
fn an_extended_offset_table_is_bounded() {
    let limits = Limits { fragments_max: 2, ..Limits::default() };
    let bytes = long(0x7FE0, 0x1, "OV", 24, &[0; 24]);
    let error = scan_with(JPEG, &bytes, 64, &limits).unwrap_err();
    assert_eq!(error.kind(), InvalidKind::TooMany);
}

#[test]
fn an_undefined_length_must_end_within_a_defined_one() {
    let open = bare(0xFFFE, 0xE000, u32::MAX, &short(0x8, 0x1155, "UI", b"1.2\0"));
    let bytes = [long(0x8, 0x1140, "SQ", open.len() as u32, &open), short(0x10, 0x20, "LO", b"ID")].concat();
    assert_eq!(kind(EXPLICIT, &bytes), Some(InvalidKind::Malformed));
}

#[test]
fn stray_and_forgotten_delimiters_are_tolerated() {
    let mut bytes = long(0x8, 0x1140, "SQ", u32::MAX, &[]);
    bytes.extend(bare(0xFFFE, 0xE000, u32::MAX, &short(0x8, 0x1155, "UI", b"1.2\0")));
    bytes.extend([sequence_end(), sequence_end(), item_end(), short(0x10, 0x20, "LO", b"ID")].concat());
    let scanned = scan(EXPLICIT, &bytes).unwrap();
    assert_eq!(scanned.header.text(tags::PATIENT_ID), Some("ID"));
    assert_eq!((scanned.header.items(Tag(0x8, 0x1140)).len(), scanned.warnings.len()), (1, 3));
}

#[test]
fn truncation_at_every_byte_is_an_error_or_a_shorter_data_set() {
    let mut bytes = short(0x8, 0x60, "CS", b"CT");
    bytes.extend(long(0x8, 0x1140, "SQ", u32::MAX, &[]));
    bytes.extend(bare(0xFFFE, 0xE000, u32::MAX, &short(0x8, 0x1155, "UI", b"1.2\0")));
    bytes.extend([item_end(), sequence_end()].concat());
    bytes.extend(encapsulated_image("2", &[0, 12], &[b"abcd", b"efgh"]));
    scan(JPEG, &bytes).unwrap();
    let whole = [0, 10, 50 + 8, bytes.len()];
    for length in 0..bytes.len() {
        match scan(JPEG, &bytes[..length]) {
            Ok(scanned) => assert!(scanned.header.len() < 4, "{length} {whole:?}"),
            Err(error) => assert_eq!(error.kind(), InvalidKind::Truncated, "{length}"),
        }
    }
}

#[test]
fn limits_of_elements_header_and_instance_are_kept() {
    let limits = Limits { elements_max: 10, header_bytes_max: 1000, instance_bytes_max: 3000, ..Limits::default() };
    let refused = |bytes: &[u8]| scan_with(EXPLICIT, bytes, 64, &limits).err().map(|error| error.kind());
    let ten: Vec<u8> = (0..10).flat_map(|n| short(0x9, 0x1000 + n, "UN", &[])).collect();
    let eleven: Vec<u8> = (0..11).flat_map(|n| short(0x9, 0x1000 + n, "US", &[])).collect();
    assert_eq!(refused(&ten[..0]), None);
    assert_eq!(refused(&eleven), Some(InvalidKind::TooMany));
    assert_eq!(refused(&long(0x9, 0x1000, "OB", 1000, &[0; 1000])), Some(InvalidKind::TooLong));
    let limits = Limits { bulk_bytes_min: 100, ..limits };
    let refused = |bytes: &[u8]| scan_with(EXPLICIT, bytes, 64, &limits).err().map(|error| error.kind());
    assert_eq!(refused(&long(0x9, 0x1000, "OB", 2988, &[0; 2988])), None);
    assert_eq!(refused(&long(0x9, 0x1000, "OB", 2990, &[0; 2990])), Some(InvalidKind::TooLong));
}

#[test]
fn elements_and_items_count_as_memory_although_they_are_empty() {
    // 8 bytes each in the data set, 64 and more in memory: a million of them were 8 MB that took 900.
    let limits = Limits { header_bytes_max: 1000, ..Limits::default() };
    let refused = |bytes: &[u8]| scan_with(EXPLICIT, bytes, 64, &limits).err().map(|error| error.kind());
    let empty: Vec<u8> = (0..32).flat_map(|n| short(0x9, 0x1000 + n, "US", &[])).collect();
    assert_eq!((refused(&empty[8..]), refused(&empty)), (None, Some(InvalidKind::TooLong)));
    let items = item(&[]).repeat(31);
    assert_eq!(refused(&long(0x8, 0x1140, "SQ", items.len() as u32, &items)), Some(InvalidKind::TooLong));
}

#[test]
fn after_an_error_every_call_repeats_it() {
    let mut scanner = Scanner::new(&transfer_syntax(EXPLICIT), &Limits::default());
    let error = scanner.push(&bare(0xFFFE, 0xE000, 0, &[])).unwrap_err();
    assert_eq!(scanner.push(b"more"), Err(error.clone()));
    assert_eq!(scanner.finish().err(), Some(error));
}

#[test]
fn the_study_is_known_before_the_pixels_have_come() {
    let mut scanner = Scanner::new(&transfer_syntax(EXPLICIT), &Limits::default());
    scanner.push(&short(0x20, 0xD, "UI", b"1.2.3\0")).unwrap();
    assert_eq!(scanner.so_far().text(tags::STUDY_INSTANCE_UID), Some("1.2.3"));
    scanner.push(&long(0x7FE0, 0x10, "OW", 1 << 30, &[0; 100])).unwrap();
    assert_eq!(scanner.so_far().text(tags::STUDY_INSTANCE_UID), Some("1.2.3"));
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_deflated_data_set_is_read_through_its_padding() {
    let bytes = [short(0x10, 0x20, "LO", b"ID"), native_image(4, 4, "1 ", 8, &[9; 16])].concat();
    let mut deflated = deflate(&bytes);
    for _ in 0..2 {
        let scanned = scan(DEFLATED, &deflated).unwrap();
        assert_eq!(scanned.header.text(tags::PATIENT_ID), Some("ID"));
        assert!(scanned.inflated);
        assert_eq!(scanned.length_bytes, deflated.len() as u64);
        let end = bytes.len() as u64;
        assert_eq!(scanned.frames.unwrap().ranges(1).unwrap(), [end - 16..end]);
        deflated.push(0);
    }
    assert_eq!(kind(DEFLATED, &deflate(&bytes)[..20]), Some(InvalidKind::Truncated));
    deflated.extend(b"a checksum");
    assert!(scan(DEFLATED, &deflated).is_ok(), "some writers leave a checksum behind the stream");
    deflated.extend([1; 5000]);
    assert_eq!(kind(DEFLATED, &deflated), Some(InvalidKind::Inflate));
}

#[test]
fn a_deflate_bomb_is_stopped_at_the_ratio() {
    let bytes = long(0x7FE0, 0x10, "OW", 256 << 20, &vec![0; 256 << 20]);
    let bomb = deflate(&bytes);
    let error = scan_with(DEFLATED, &bomb, 4096, &Limits::default()).unwrap_err();
    assert_eq!(error.kind(), InvalidKind::Inflate);
    // Early: within the first pieces.
    assert!(error.place().offset < 16 << 10, "{error}");
}

#[test]
fn native_frames_are_found() {
    let pixels: Vec<u8> = (0..48).collect();
    let frames = frames_of(EXPLICIT, &native_image(2, 4, "3 ", 16, &pixels));
    assert_eq!(frames, [&pixels[..16], &pixels[16..32], &pixels[32..]]);
    // One bit a sample: 2 × 4 bits are a byte.
    assert_eq!(frames_of(EXPLICIT, &native_image(2, 4, "2 ", 1, &[1, 2])), [[1], [2]]);
    let float = native_image(1, 2, "1 ", 32, &[]);
    let float = [float[..float.len() - 12].to_vec(), long(0x7FE0, 0x8, "OF", 8, &[1; 8])].concat();
    assert_eq!(frames_of(EXPLICIT, &float), [[1; 8]]);
}

#[test]
fn impossible_and_short_native_pixel_data_has_no_frames_or_fewer() {
    let scanned = scan(EXPLICIT, &native_image(u16::MAX, u16::MAX, "2147483647", 16, &[0; 16])).unwrap();
    assert_eq!((scanned.frames, scanned.warnings.len()), (None, 1));
    let scanned = scan(EXPLICIT, &native_image(2, 4, "3 ", 16, &[0; 40])).unwrap();
    assert_eq!((scanned.frames.map(|map| map.frames()), scanned.warnings.len()), (Some(2), 1));
}

#[test]
fn subsampled_native_colour_has_smaller_frames() {
    let mut bytes = short(0x28, 2, "US", &[3, 0]);
    bytes.extend(short(0x28, 4, "CS", b"YBR_FULL_422"));
    bytes.extend(&native_image(2, 2, "2 ", 8, &(0..16).collect::<Vec<_>>())[10..]);
    assert_eq!(frames_of(EXPLICIT, &bytes), [(0..8).collect::<Vec<u8>>(), (8..16).collect()]);
}

#[test]
fn fragments_become_frames_by_their_number_or_their_table() {
    let (a, b, c): (&[u8], &[u8], &[u8]) = (b"\xFF\xD8\xFF1", b"22", b"\xFF\xD8\xFF333");
    assert_eq!(frames_of(JPEG, &encapsulated_image("2 ", &[], &[a, b])), [a, b]);
    assert_eq!(frames_of(JPEG, &encapsulated_image("1 ", &[], &[a, b])), [[a, b].concat()]);
    assert_eq!(frames_of(JPEG, &encapsulated_image("2 ", &[0, 22], &[a, b, c])), [[a, b].concat(), c.to_vec()]);
    // Empty table, a frame over two fragments: the markers tell.
    assert_eq!(frames_of(JPEG, &encapsulated_image("2 ", &[], &[a, b, c])), [[a, b].concat(), c.to_vec()]);
    // Nothing tells: the whole stream.
    assert_eq!(frames_of(JPEG, &encapsulated_image("2 ", &[], &[b, b, b])), [b.repeat(3)]);
    // Each fragment of RLE is a frame.
    assert_eq!(frames_of(RLE, &encapsulated_image("2 ", &[], &[b, b, b])), [b, b, b]);
}

#[test]
fn an_unknown_syntax_is_told_by_the_pixel_data_itself() {
    assert_eq!(frames_of("1.2.3.4", &encapsulated_image("2 ", &[], &[b"abcd", b"ef"])), [&b"abcd"[..], b"ef"]);
    assert_eq!(frames_of("1.2.3.4", &native_image(1, 2, "2 ", 8, b"abcd")), [b"ab", b"cd"]);
}

#[test]
fn the_icon_of_an_image_is_not_its_pixel_data() {
    let icon = native_image(1, 2, "1 ", 8, b"ab");
    let mut bytes = long(0x88, 0x200, "SQ", icon.len() as u32 + 8, &item(&icon));
    let scanned = scan(EXPLICIT, &bytes).unwrap();
    assert_eq!(scanned.frames, None);
    let pixels = scanned.header.items(tags::ICON_IMAGE_SEQUENCE)[0].get(tags::PIXEL_DATA).unwrap();
    assert_eq!(pixels.value, Value::Bytes(Bytes::from_static(b"ab")));
    bytes.extend(&encapsulated_image("1 ", &[], &[b"wxyz"])[10..]);
    assert_eq!(frames_of(JPEG, &bytes), [b"wxyz"]);
}

#[test]
fn a_lying_offset_table_is_disregarded() {
    for table in [&[0, 1][..], &[0, 0xFFFF_FFF0], &[12, 0], &[0, 0], &[12], &[0, 12, 24, 36, 48]] {
        let bytes = encapsulated_image("2 ", table, &[b"abcd", b"efgh"]);
        let scanned = scan(JPEG, &bytes).unwrap();
        assert_eq!(scanned.warnings.len(), 1, "{table:?}");
        assert_eq!(frames_of(JPEG, &bytes), [b"abcd", b"efgh"]);
    }
}

#[test]
fn an_extended_offset_table_is_obeyed_and_tells_the_pad_byte() {
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let mut bytes = short(0x28, 8, "IS", b"2 ");
    bytes.extend(long(0x7FE0, 0x1, "OV", 16, &numbers(&[0, 12])));
    bytes.extend(long(0x7FE0, 0x2, "OV", 16, &numbers(&[3, 4])));
    bytes.extend(&encapsulated_image("2 ", &[], &[b"abc\0", b"efgh"])[10..]);
    assert_eq!(frames_of(JPEG, &bytes), [&b"abc"[..], b"efgh"]);
}

#[test]
fn a_video_is_one_stream() {
    let bytes = encapsulated_image("300 ", &[], &[b"abcd", b"efgh"]);
    assert_eq!(frames_of("1.2.840.10008.1.2.4.100.1", &bytes), [b"abcdefgh"]);
}

#[test]
fn encapsulated_pixel_data_is_bounded_and_well_formed() {
    let limits = Limits { fragments_max: 3, ..Limits::default() };
    let refused = |bytes: &[u8]| scan_with(JPEG, bytes, 64, &limits).err().map(|error| error.kind());
    assert_eq!(refused(&encapsulated_image("1 ", &[], &[&[][..]; 3])), None);
    assert_eq!(refused(&encapsulated_image("1 ", &[], &[&[][..]; 4])), Some(InvalidKind::TooMany));
    assert_eq!(refused(&encapsulated_image("1 ", &[0; 4], &[b""])), Some(InvalidKind::TooMany));
    let start = long(0x7FE0, 0x10, "OB", u32::MAX, &[]);
    assert_eq!(refused(&[start.clone(), bare(0xFFFE, 0xE000, u32::MAX, &[])].concat()), Some(InvalidKind::Malformed));
    assert_eq!(refused(&[start.clone(), short(0x10, 0x10, "PN", b"")].concat()), Some(InvalidKind::Malformed));
    assert_eq!(refused(&[start, item(&[])].concat()), Some(InvalidKind::Truncated));
}

#[test]
fn many_values_take_bounded_memory() {
    // A backslash a value: 4,000 values of 4,000 bytes, 100 times.
    let limits = Limits { header_bytes_max: 500_000, ..Limits::default() };
    let values = vec![b'\\'; 4000];
    let bytes: Vec<u8> = (0..100).flat_map(|n| short(0x9, 0x1000 + n, "LO", &values)).collect();
    let header = scan_with(EXPLICIT, &bytes, 4096, &limits).unwrap().header;
    let bulk = header.iter().filter(|element| matches!(element.value, Value::Bulk { .. })).count();
    assert_eq!((header.len(), bulk), (100, 95));
}

#[test]
fn dicom_rs_reads_the_same_values() {
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject, mem::InMemElement};
    let object = InMemDicomObject::from_element_iter([
        InMemElement::new(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.7"),
        InMemElement::new(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.4"),
        InMemElement::new(tags::PATIENT_NAME, VR::PN, "DOE^JOHN"),
        InMemElement::new(tags::ROWS, VR::US, dicom_core::PrimitiveValue::from(2_u16)),
        InMemElement::new(tags::PIXEL_SPACING, VR::DS, dicom_core::PrimitiveValue::from("0.5\\0.25")),
    ]);
    for uid in [IMPLICIT, EXPLICIT, BIG] {
        let mut file = Vec::new();
        let meta = FileMetaTableBuilder::new().transfer_syntax(uid);
        object.clone().with_meta(meta).unwrap().write_all(&mut file).unwrap();
        let mut reader = crate::FileReader::new(&Limits::default());
        let mut bytes = reader.push(file.into()).unwrap().to_vec();
        bytes.extend(reader.finish().unwrap());
        let header = scan(&reader.meta().unwrap().transfer_syntax, &bytes).unwrap().header;
        assert_eq!(header.text(tags::PATIENT_NAME), Some("DOE^JOHN"));
        assert_eq!(header.integer(tags::ROWS), Some(2));
        assert_eq!(header.texts(tags::PIXEL_SPACING), ["0.5", "0.25"]);
    }
}
