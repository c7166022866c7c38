//! Padding makes no difference to the canonical digest, and everything else does.
#![allow(clippy::unwrap_used)]

use super::tests::{BIG, DEFLATED, EXPLICIT, IMPLICIT, encapsulated_image};
use super::*;
use crate::transfer_syntax;
use proptest::prelude::*;
use std::io::Write as _;

const JPEG: &str = "1.2.840.10008.1.2.4.50";

fn canonical_in(uid: &str, pieces: &[&[u8]]) -> CanonicalDigest {
    let limits = Limits { text_bulk_bytes_min: 40, bulk_bytes_min: 60, ..Limits::default() };
    let mut scanner = Scanner::new(&transfer_syntax(uid), &limits).comparing(uid);
    pieces.iter().for_each(|piece| scanner.push(piece).unwrap());
    scanner.finish().unwrap().canonical.expect("nothing had to be tolerated")
}

fn none_in(uid: &str, bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(&transfer_syntax(uid), &Limits::default()).comparing(uid);
    scanner.push(bytes).unwrap();
    scanner.finish().unwrap().canonical.is_none()
}

fn canonical(bytes: &[u8]) -> CanonicalDigest {
    canonical_in(EXPLICIT, &[bytes])
}

/// An element, as a test writes it in Explicit VR Little Endian.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(&'static str, Vec<u8>),
    Binary(&'static str, Vec<u8>),
    Sequence(Vec<Vec<Part>>),
    Fragments(Vec<Vec<u8>>),
}

/// How a part is padded and delimited: one number after the other decides.
struct Style<'a>(std::slice::Iter<'a, u8>);

impl Style<'_> {
    fn choose(&mut self, of: u8) -> u8 {
        self.0.next().copied().unwrap_or_default() % of
    }
}

fn header(out: &mut Vec<u8>, (group, element): (u16, u16), vr: &str, length: u32) {
    out.extend([group.to_le_bytes(), element.to_le_bytes()].concat());
    out.extend(vr.as_bytes());
    if matches!(vr, "OB" | "OW" | "UN" | "UT" | "UC" | "SQ") {
        out.extend([0, 0]);
        out.extend(length.to_le_bytes());
    } else {
        out.extend((length as u16).to_le_bytes());
    }
}

fn bare(out: &mut Vec<u8>, element: u16, length: u32) {
    out.extend([0xFE, 0xFF]);
    out.extend(element.to_le_bytes());
    out.extend(length.to_le_bytes());
}

fn write(parts: &[Part], style: &mut Style<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if style.choose(2) == 0 {
        header(&mut out, (0x11, 0), "UL", 4);
        out.extend([style.choose(250), 1, 0, 0]);
    }
    for (number, part) in (0x1001..).zip(parts) {
        let tag = (0x11, number);
        match part {
            Part::Text(vr, bytes) => {
                let mut bytes = bytes.clone();
                bytes.extend(vec![b' '; usize::from(style.choose(4))]);
                bytes.extend(vec![0; usize::from(style.choose(3))]);
                header(&mut out, tag, vr, bytes.len() as u32);
                out.extend(bytes);
            }
            Part::Binary(vr, bytes) => {
                header(&mut out, tag, vr, bytes.len() as u32);
                out.extend(bytes);
            }
            Part::Sequence(items) => {
                let mut inner = Vec::new();
                for item in items {
                    let bytes = write(item, style);
                    let defined = style.choose(2) == 0;
                    bare(&mut inner, 0xE000, if defined { bytes.len() as u32 } else { u32::MAX });
                    inner.extend(bytes);
                    if !defined {
                        bare(&mut inner, 0xE00D, 0);
                    }
                }
                let defined = style.choose(2) == 0;
                header(&mut out, tag, "SQ", if defined { inner.len() as u32 } else { u32::MAX });
                out.extend(inner);
                if !defined {
                    bare(&mut out, 0xE0DD, 0);
                }
            }
            Part::Fragments(fragments) => {
                header(&mut out, tag, "OB", u32::MAX);
                for fragment in fragments {
                    bare(&mut out, 0xE000, fragment.len() as u32);
                    out.extend(fragment);
                }
                bare(&mut out, 0xE0DD, 0);
            }
        }
    }
    if style.choose(2) == 0 {
        let length = style.choose(60);
        header(&mut out, (0xFFFC, 0xFFFC), "OB", length.into());
        out.extend(vec![7; length.into()]);
    }
    out
}

/// What is left of the parts without their padding: the rule, said a second time.
fn without_padding(parts: &[Part]) -> Vec<Part> {
    let bare = |part: &Part| match part {
        Part::Text(vr, bytes) => {
            let mut bytes = bytes.clone();
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            while bytes.last() == Some(&b' ') {
                bytes.pop();
            }
            Part::Text(vr, bytes)
        }
        Part::Sequence(items) => Part::Sequence(items.iter().map(|item| without_padding(item)).collect()),
        Part::Binary(..) | Part::Fragments(_) => part.clone(),
    };
    parts.iter().map(bare).collect()
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    // Spaces and NULs within, so that what may be an end is not.
    let text = || proptest::collection::vec(prop_oneof![Just(b' '), Just(0), b'A'..b'D'], 0..80);
    let bytes = || proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..90);
    let leaf = prop_oneof![
        (prop_oneof![Just("LO"), Just("UI"), Just("UT"), Just("PN")], text()).prop_map(|(vr, text)| {
            // The end of the text is the style's.
            let solid = text.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
            Part::Text(vr, text[..solid].to_vec())
        }),
        (prop_oneof![Just("OB"), Just("UN")], bytes()).prop_map(|(vr, bytes)| Part::Binary(vr, bytes)),
        proptest::collection::vec(bytes(), 1..4).prop_map(Part::Fragments),
    ];
    let nested = leaf.prop_recursive(3, 24, 4, |inner| {
        proptest::collection::vec(proptest::collection::vec(inner, 0..4), 0..3).prop_map(Part::Sequence)
    });
    proptest::collection::vec(nested, 1..6)
}

/// Changes one thing: the byte `at` of the value that `which` leads to, or what stands around it.
fn changed(parts: &[Part], which: usize, at: usize, how: u8) -> Vec<Part> {
    let mut parts = parts.to_vec();
    let which_of = which % parts.len();
    let change = |bytes: &mut Vec<u8>| match how % 3 {
        0 if !bytes.is_empty() => {
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(how | 1);
        }
        1 if !bytes.is_empty() => {
            bytes.remove(at % bytes.len());
        }
        _ => bytes.insert(at % (bytes.len() + 1), how),
    };
    match &mut parts[which_of] {
        Part::Text(_, bytes) | Part::Binary(_, bytes) => change(bytes),
        Part::Fragments(fragments) if how.is_multiple_of(2) => {
            let one = at % fragments.len();
            change(&mut fragments[one]);
        }
        // The same stream in other pieces.
        Part::Fragments(fragments) => {
            let cut = at % (fragments[0].len() + 1);
            let rest = fragments[0].split_off(cut);
            fragments.insert(1, rest);
        }
        Part::Sequence(items) if how.is_multiple_of(3) => items.push(Vec::new()),
        Part::Sequence(items) => {
            let filled: Vec<usize> = (0..items.len()).filter(|&item| !items[item].is_empty()).collect();
            match filled.get(at % filled.len().max(1)) {
                Some(&item) => items[item] = changed(&items[item], which / 7, at / 3, how),
                None => items.push(vec![Part::Text("LO", b"A".to_vec())]),
            }
        }
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn two_ways_to_pad_and_delimit_the_same_are_equal(
        parts in parts(),
        one in proptest::collection::vec(any::<u8>(), 0..120),
        two in proptest::collection::vec(any::<u8>(), 0..120),
        piece in 1_usize..40,
    ) {
        let (a, b) = (write(&parts, &mut Style(one.iter())), write(&parts, &mut Style(two.iter())));
        let pieces: Vec<&[u8]> = b.chunks(piece).collect();
        prop_assert_eq!(canonical(&a), canonical_in(EXPLICIT, &pieces));
    }

    #[test]
    fn a_change_of_anything_else_is_seen(
        parts in parts(),
        (which, at, how) in any::<(usize, usize, u8)>(),
        one in proptest::collection::vec(any::<u8>(), 0..120),
        two in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        // What a change puts at the end of a text must not be taken for what the style puts there.
        let other = without_padding(&changed(&parts, which, at, how));
        let equal = without_padding(&parts) == without_padding(&other);
        let (a, b) = (write(&parts, &mut Style(one.iter())), write(&other, &mut Style(two.iter())));
        prop_assert_eq!(canonical(&a) == canonical(&b), equal);
    }
}

#[test]
fn the_syntax_the_vr_and_the_order_count() {
    let one = write(&[Part::Text("LO", b"A".to_vec())], &mut Style([1, 0, 0, 1].iter()));
    let vr = write(&[Part::Text("PN", b"A".to_vec())], &mut Style([1, 0, 0, 1].iter()));
    let none = write(&[Part::Text("LO", Vec::new())], &mut Style([1, 0, 0, 1].iter()));
    let blank = write(&[Part::Text("LO", Vec::new())], &mut Style([1, 3, 1, 1].iter()));
    assert_ne!(canonical(&one), canonical(&vr));
    assert_ne!(canonical(&one), canonical(&none));
    assert_ne!(canonical(&none), canonical(&[]), "an empty element is not an absent one");
    assert_eq!(canonical(&none), canonical(&blank));
    assert_ne!(canonical(&one), canonical_in(JPEG, &[&one]), "bytes under another syntax mean something else");
    assert_eq!(canonical(&one), canonical_in("1.2.840.10008.1.2.1\0", &[&one]));
    let two = write(
        &[Part::Text("LO", b"A".to_vec()), Part::Text("LO", b"B".to_vec())],
        &mut Style([1, 0, 0, 0, 0, 1].iter()),
    );
    let (first, second) = two.split_at(two.len() / 2);
    assert_ne!(canonical(&two), canonical(&[second, first].concat()));
    // In implicit syntaxes the dictionary says what is text: an ID is, a private value may be anything.
    let implicit = |tag: [u8; 4], value: &[u8]| {
        canonical_in(IMPLICIT, &[&[&tag[..], &(value.len() as u32).to_le_bytes(), value].concat()])
    };
    assert_eq!(implicit([0x10, 0, 0x20, 0], b"ID"), implicit([0x10, 0, 0x20, 0], b"ID  "));
    assert_ne!(implicit([0x11, 0, 0x20, 0x10], b"ID"), implicit([0x11, 0, 0x20, 0x10], b"ID  "));
}

#[test]
fn fragments_and_offset_tables_count_and_so_does_the_pad_byte_of_a_fragment() {
    let of = |table: &[u32], fragments: &[&[u8]]| canonical_in(JPEG, &[&encapsulated_image("2 ", table, fragments)]);
    assert_ne!(of(&[], &[b"abc", b"de"]), of(&[], &[b"abc\0", b"de"]), "an offset table counts it, too");
    assert_ne!(of(&[], &[b"abc\xFF", b"de"]), of(&[], &[b"abc\0", b"de"]));
    assert_ne!(of(&[], &[b"ab", b"cd"]), of(&[], &[b"abcd"]));
    assert_ne!(of(&[0, 10], &[b"ab", b"cd"]), of(&[], &[b"ab", b"cd"]));
}

#[test]
fn a_deflated_data_set_is_what_it_inflates_to() {
    let deflated = |bytes: &[u8], level| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let with = |style: &[u8]| write(&[Part::Binary("OB", vec![3; 3000])], &mut Style(style.iter()));
    let (one, two) = (deflated(&with(&[1, 1, 1]), 1), [deflated(&with(&[0, 5, 1, 0, 9]), 9), vec![0]].concat());
    assert!(none_in(DEFLATED, &[&one[..], &[7]].concat()) && none_in(DEFLATED, &[&one[..], &[0, 0]].concat()));
    assert_ne!(one, two);
    assert_eq!(canonical_in(DEFLATED, &[&one]), canonical_in(DEFLATED, &[&two]));
    assert_ne!(canonical_in(DEFLATED, &[&one]), canonical(&with(&[1, 1, 1])));
}

/// Once zeros at the end of a number or a pixel were taken for a pad byte: 5 and 1280 of Big Endian were alike.
#[test]
fn a_number_or_a_pixel_that_ends_with_zero_is_not_one_byte_shorter() {
    for vr in ["US", "FL", "OW", "OB", "UN"] {
        let of = |bytes: &[u8]| canonical(&write(&[Part::Binary(vr, bytes.to_vec())], &mut Style([1, 1].iter())));
        assert_ne!(of(&[5]), of(&[5, 0]), "{vr}");
    }
    // Of a group length, too, only what is one.
    let group = |vr: &str| {
        let mut bytes = Vec::new();
        header(&mut bytes, (0x11, 0), vr, 4);
        canonical(&[&bytes[..], b"ABCD"].concat())
    };
    assert_eq!(group("UL"), canonical(&[]));
    assert_ne!(group("LO"), canonical(&[]));
}

#[test]
fn what_had_to_be_tolerated_is_like_nothing() {
    let item = |inside: &[u8], defined: bool| {
        let mut bytes = Vec::new();
        header(&mut bytes, (0x11, 0x1001), "SQ", u32::MAX);
        bare(&mut bytes, 0xE000, if defined { inside.len() as u32 } else { u32::MAX });
        bytes.extend(inside);
        bytes
    };
    let end = |element, length| {
        let mut bytes = Vec::new();
        bare(&mut bytes, element, length);
        bytes
    };
    let of_odd_length = |number| {
        let mut bytes = Vec::new();
        header(&mut bytes, (0x11, number), "UI", 3);
        [&bytes[..], b"1.2"].concat()
    };
    let (odd, later) = (of_odd_length(0x1002), of_odd_length(0x1003));
    let sound = [item(&odd, true), end(0xE0DD, 0)].concat();
    assert!(!none_in(EXPLICIT, &sound));
    for tolerated in [
        [item(&[&odd[..], b"X"].concat(), true), end(0xE0DD, 0)].concat(), // any byte behind an odd value, at the item's end
        [&odd[..], &[0], &later[..]].concat(),                             // in the midst of a level
        [item(&[&odd[..], &end(0xE00D, 0)].concat(), true), end(0xE0DD, 0)].concat(), // a delimiter where a length ends it
        [item(&odd, false), end(0xE0DD, 0)].concat(),                                 // none where there must be one
        [item(&odd, true), end(0xE0DD, 4)].concat(),                                  // one with a length
        [&odd[..], &[0]].concat(),                                                    // a byte behind the data set
    ] {
        assert!(none_in(EXPLICIT, &tolerated), "{tolerated:02x?}");
    }
}

/// Rows keep them for ever: what they are made of never changes under one rule.
#[test]
fn the_digests_of_rule_1_never_change() {
    let hex = |digest: CanonicalDigest| digest.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [
        Part::Text("LO", b"A \\B".to_vec()),
        Part::Sequence(vec![vec![Part::Binary("OB", vec![1, 2, 3])], vec![]]),
        Part::Fragments(vec![vec![], vec![4, 5, 6]]),
    ];
    let plain = canonical(&write(&parts, &mut Style([0, 3, 1, 2, 0, 1, 0, 1, 0, 1, 0, 0].iter())));
    assert_eq!(hex(plain), "018b68555f0f7a956c6992375842f975273bd830c69a0421157bf46d7a3b76b7f4");
    assert_eq!(hex(canonical_in(BIG, &[])), "01b63ddbdd335d63f03b3fe1205449fa852e61f2a63a941fb241636457b5aba45f");
    assert_eq!(CanonicalDigest::from_bytes(&plain.to_bytes()), Some(plain));
    assert_eq!(CanonicalDigest::from_bytes(&[1; 32]), None);
    let newer = CanonicalDigest::from_bytes(&[9; 33]).unwrap();
    assert_ne!(newer, CanonicalDigest::of_digest([9; 32]), "digests of different rules are never equal");
}

/// What it costs: CPU of one core, by the clock of a machine that does nothing else.
/// `cargo test -p archive-model --lib what_comparing_costs -- --ignored --nocapture`
#[test]
#[ignore = "it measures"]
fn what_comparing_costs() {
    let texts: Vec<Part> = (0..120).map(|number| Part::Text("LO", vec![b'A' + number as u8 % 20; 14])).collect();
    for (name, pixel_bytes, rounds) in [("8 x 8", 128, 20_000), ("CT", 512 << 10, 400), ("64 MiB", 64 << 20, 4)] {
        let mut bytes = write(&texts, &mut Style([1; 200].iter()));
        header(&mut bytes, (0x7FE0, 0x10), "OW", pixel_bytes);
        bytes.extend((0..pixel_bytes).map(|at| (at % 251) as u8));
        for (what, scanned, digested) in
            [("scan", true, false), ("scan and compare", true, true), ("BLAKE3 alone", false, true)]
        {
            let started = std::time::Instant::now();
            for _ in 0..rounds {
                let mut scanner = Scanner::new(&transfer_syntax(EXPLICIT), &Limits::default());
                if digested {
                    scanner = scanner.comparing(EXPLICIT);
                }
                let mut hasher = blake3::Hasher::new();
                for piece in bytes.chunks(32 << 10) {
                    if scanned {
                        scanner.push(piece).unwrap();
                    } else {
                        hasher.update(piece);
                    }
                }
                if scanned {
                    std::hint::black_box(scanner.finish().unwrap());
                } else {
                    std::hint::black_box(hasher.finalize());
                }
            }
            let micros = started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
            println!("{name:8} {what:18} {micros:10.1} us each, {:.2} GB/s", bytes.len() as f64 / micros / 1e3);
        }
    }
}
