//! The published examples (PS3.5 annexes H to K), what peers send instead, and that nothing is lost.

use super::*;
use proptest::prelude::*;

fn charset(values: &[&str]) -> Charset {
    Charset::of(&values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>())
}

fn name(values: &[&str], bytes: &[u8]) -> String {
    charset(values).decode(bytes, VR::PN)
}

/// Read as `text`, and `text` written as these bytes.
#[track_caller]
fn both_ways(values: &[&str], bytes: &[u8], text: &str) {
    assert_eq!(name(values, bytes), text);
    assert_eq!(charset(values).encode(text, VR::PN).as_deref(), Some(bytes));
}

const YAMADA: &str = "Yamada^Tarou=山田^太郎=やまだ^たろう";

#[test]
fn japanese_names_of_annex_h_are_read_and_written() {
    let bytes = b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B";
    both_ways(&["", "ISO 2022 IR 87"], bytes, YAMADA);
    let bytes =
        b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3=\x1B$B;3ED\x1B(J^\x1B$BB@O:\x1B(J=\x1B$B$d$^$@\x1B(J^\x1B$B$?$m$&\x1B(J";
    both_ways(&["ISO 2022 IR 13", "ISO 2022 IR 87"], bytes, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう");
    both_ways(&["ISO_IR 13"], b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3", "ﾔﾏﾀﾞ^ﾀﾛｳ");
}

#[test]
fn korean_names_of_annex_i_are_read_and_written() {
    let bytes = b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF";
    both_ways(&["", "ISO 2022 IR 149"], bytes, "Hong^Gildong=洪^吉洞=홍^길동");
}

#[test]
fn chinese_names_of_annexes_j_and_k_are_read_and_written() {
    both_ways(&["ISO_IR 192"], "Wang^XiaoDong=王^小东".as_bytes(), "Wang^XiaoDong=王^小东");
    let bytes = b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB";
    both_ways(&["GB18030"], bytes, "Wang^XiaoDong=王^小东");
    both_ways(&["GBK"], bytes, "Wang^XiaoDong=王^小东");
    let bytes = b"Zhang^XiaoDong=\x1B$)A\xD5\xC5^\x1B$)A\xD0\xA1\xB6\xAB=";
    both_ways(&["", "ISO 2022 IR 58"], bytes, "Zhang^XiaoDong=张^小东=");
    let lines = b"1. \x1B$)A\xB5\xDA\xD2\xBB\xD0\xD0\r\n2. \x1B$)A\xB5\xDA\xB6\xFE\xD0\xD0\r\n";
    let charset = charset(&["", "ISO 2022 IR 58"]);
    assert_eq!(charset.decode(lines, VR::LT), "1. 第一行\r\n2. 第二行\r\n");
    assert_eq!(charset.encode("1. 第一行\r\n2. 第二行\r\n", VR::LT).as_deref(), Some(&lines[..]));
}

#[test]
fn names_in_the_sets_of_one_byte_are_read_and_written() {
    both_ways(&["ISO_IR 100"], b"Buc^J\xE9r\xF4me", "Buc^Jérôme");
    both_ways(&["ISO_IR 101"], b"Wa\xB3\xEAsa", "Wałęsa");
    both_ways(&["ISO_IR 109"], b"\xB1amrun", "Ħamrun".replace('Ħ', "ħ").as_str());
    both_ways(&["ISO_IR 110"], b"B\xE7rzi\xF1\xB9", "Bįrziņš");
    both_ways(&["ISO_IR 144"], b"\xBB\xEE\xDAce\xDC\xD1yp\xD3", "Люкceмбypг");
    both_ways(&["ISO_IR 127"], b"\xE2\xC8\xC7\xE6\xEA^\xE4\xE6\xD2\xC7\xD1", "قباني^لنزار");
    both_ways(&["ISO_IR 126"], b"\xC4\xE9\xEF\xED\xF5\xF3\xE9\xEF\xF2", "Διονυσιος");
    both_ways(&["ISO_IR 138"], b"\xF9\xF8\xE5\xEF^\xE3\xE1\xE5\xF8\xE4", "שרון^דבורה");
    both_ways(&["ISO_IR 148"], b"\xC7avu\xFEo\xF0lu", "Çavuşoğlu");
    both_ways(&["ISO_IR 203"], b"C\xBDur \xA4", "Cœur €");
    both_ways(&["ISO_IR 166"], b"\xA1\xD2\xC3", "การ");
}

#[test]
fn a_second_set_of_one_byte_is_reached_by_its_escape_and_left_again() {
    let values = ["ISO 2022 IR 100", "ISO 2022 IR 144", "ISO 2022 IR 126"];
    both_ways(&values, b"J\xE9r\xF4me^\x1B-L\xBB\xEE\x1B-A^\x1B-F\xC4\x1B-A", "Jérôme^Лю^Δ");
    // Left by the delimiter alone, too.
    assert_eq!(name(&values, b"\x1B-L\xBB^\xE9"), "Л^é");
}

#[test]
fn jis_x_0212_is_read_and_not_written() {
    let values = ["", "ISO 2022 IR 87", "ISO 2022 IR 159"];
    assert_eq!(name(&values, b"\x1B$(D0!\x1B(B^\x1B$B;3\x1B(B"), "丂^山");
    assert_eq!(charset(&values).encode("丂", VR::PN), None);
}

#[test]
fn other_spellings_of_a_set_are_understood() {
    let same = |one: &[&str], other: &[&str]| assert_eq!(charset(one), charset(other), "{one:?} {other:?}");
    for spelling in ["ISO-IR 192", "iso_ir 192", "ISO_IR_192", "ISO IR 192", "ISO_IR192 ", "UTF-8", "utf8"] {
        same(&[spelling], &["ISO_IR 192"]);
    }
    same(&["", "ISO 2020 IR 87"], &["", "ISO 2022 IR 87"]);
    same(&["", "iso-2022-ir-87"], &["", "ISO 2022 IR 87"]);
    same(&["ISO 2022 IR 100"], &["ISO_IR 100"]);
    same(&["ISO_IR 6"], &["ISO 2022 IR 6"]);
    same(&["", "ISO_IR 192"], &["ISO_IR 192"]);
    same(&["LATIN-5000", "x"], &[]);
    let korean = b"\xC8\xAB^\xB1\xE6\xB5\xBF";
    for values in [&["ISO_IR 149"][..], &["ISO 2022 IR 149"], &["", "ISO 2022 IR 149"]] {
        assert_eq!(name(values, korean), "홍^길동");
    }
    assert_eq!(name(&["ISO 2022 IR 87"], b"\x1B$B;3ED\x1B(B"), "山田");
}

#[test]
fn undeclared_bytes_are_utf_8_or_latin_1_and_undeclared_escapes_are_followed() {
    assert_eq!(name(&[], "Müller^山".as_bytes()), "Müller^山");
    assert_eq!(name(&[], b"M\xFCller"), "Müller");
    assert_eq!(name(&["ISO_IR 100"], b"M\xFCller=\x1B$B;3ED\x1B(B"), "Müller=山田");
}

#[test]
fn the_first_sets_are_back_after_a_delimiter_of_the_vr() {
    let charset = charset(&["", "ISO 2022 IR 87"]);
    let decoded = |bytes: &[u8], vr| charset.decode(bytes, vr);
    assert_eq!(decoded(b"\x1B$B;3\r\nED", VR::LT), "山\r\nED");
    assert_eq!(decoded(b"\x1B$B;3\tED", VR::LO), "山\tED");
    // The escape back was forgotten before the delimiter, which begins no character here.
    assert_eq!(decoded(b"\x1B$B;3^\x1B$BED", VR::PN), "山^田");
    assert_eq!(decoded(b"\x1B)I\xD4^\xD4", VR::PN), "ﾔ^ﾔ");
    let mixed = Charset::of(&["ISO 2022 IR 100".into(), "ISO 2022 IR 149".into()]);
    assert_eq!(mixed.decode(b"\x1B$)C\xC8\xAB\\\xE9", VR::LO), "홍\\é");
    assert_eq!(mixed.decode(b"\x1B$)C\xC8\xAB\\\xC8\xAB", VR::ST), "홍\\홍");
    assert_eq!(mixed.decode(b"\x1B$)C\xC8\xAB^\xC8\xAB", VR::LO), "홍^홍");
}

#[test]
fn the_byte_5c_within_a_character_separates_nothing() {
    let split = |values: &[&str], bytes: &[u8], vr| charset(values).split_and_decode(bytes, vr);
    // GB18030 81 5C; JIS X 0208 3F 5C; Shift JIS 95 5C, declared as ISO_IR 13.
    assert_eq!(split(&["GB18030"], b"\x81\x5C\\A", VR::LO), ["乗", "A"]);
    assert_eq!(split(&["", "ISO 2022 IR 87"], b"\x1B$B?\\\x1B(B\\A", VR::LO), ["須", "A"]);
    assert_eq!(split(&["ISO_IR 13"], b"\x95\x5C\\\xD4", VR::LO), ["表", "ﾔ"]);
    assert_eq!(split(&["ISO_IR 13"], b"\xD4\\\xD4", VR::LO), ["ﾔ", "ﾔ"]);
    assert_eq!(split(&["ISO_IR 192"], b" A \\\xC3\xA9 ", VR::SH), ["A", "é"]);
    assert_eq!(split(&["ISO_IR 100"], b" C:\\\xE9 ", VR::LT), [" C:\\é"]);
}

#[test]
fn what_is_no_character_is_shown_as_such_and_hides_nothing_else() {
    assert_eq!(name(&["ISO_IR 192"], b"A\xFF^B"), "A\u{FFFD}^B");
    assert_eq!(name(&["ISO_IR 149"], b"A\xC8^B"), "A\u{FFFD}^B");
    assert_eq!(name(&["ISO_IR 13"], b"\xFF^B"), "\u{FFFD}^B");
    assert_eq!(name(&["", "ISO 2022 IR 87"], b"\x1B$B//;3\x1B(B^B"), "\u{FFFD}山^B");
    assert_eq!(name(&[], b"\x1B(!A^B\x1B"), "\u{FFFD}^B\u{1B}");
}

#[test]
fn a_text_is_encoded_only_if_every_character_can_be() {
    let encoded = |values: &[&str], text: &str| charset(values).encode(text, VR::LO);
    assert_eq!(encoded(&["ISO_IR 100"], "山"), None);
    assert_eq!(encoded(&["ISO_IR 100"], "€"), None);
    assert_eq!(encoded(&["ISO_IR 148"], "€"), None);
    assert_eq!(encoded(&["GBK"], "€"), None);
    assert_eq!(encoded(&["GBK"], "😀"), None);
    assert!(encoded(&["GB18030"], "😀€").is_some());
    assert_eq!(encoded(&[], "é"), None);
    assert_eq!(encoded(&["ISO_IR 13"], "¥"), None);
    assert_eq!(encoded(&["", "ISO 2022 IR 87"], "①"), None);
    // An escape in a text would be followed by whoever reads it.
    assert_eq!(encoded(&["ISO_IR 100"], "\u{1B}(B"), None);
    assert_eq!(encoded(&["ISO_IR 192"], "\u{1B}(B").as_deref(), Some(&b"\x1B(B"[..]));
}

#[test]
fn every_character_that_is_written_is_read_back_as_one_value() {
    let mut counts = Vec::new();
    for values in [&["", "ISO 2022 IR 87"][..], &["", "ISO 2022 IR 149"], &["", "ISO 2022 IR 58"], &["GBK"]] {
        let charset = charset(values);
        let written = ('\u{A1}'..='\u{FFFD}').filter_map(|char| {
            let text = format!("{char}^{char}");
            let bytes = charset.encode(&text, VR::PN)?;
            assert_eq!(charset.split_and_decode(&bytes, VR::PN), [text]);
            Some(char)
        });
        counts.push(written.count());
    }
    // Of 6879, 8227 and 7445 characters in JIS X 0208, KS X 1001 (with the euro and registered signs) and GB 2312.
    assert!(counts[0] > 6_850 && counts[0] <= 6_879, "{counts:?}");
    assert!(counts[1] > 8_200 && counts[1] <= 8_229, "{counts:?}");
    assert!(counts[2] > 7_400, "{counts:?}");
    assert!(counts[3] > 20_000, "{counts:?}");
}

fn any_charset() -> impl Strategy<Value = Charset> {
    let term = prop::sample::select(vec![
        "",
        "ISO_IR 100",
        "ISO_IR 144",
        "ISO_IR 148",
        "ISO 2022 IR 13",
        "ISO 2022 IR 87",
        "ISO 2022 IR 159",
        "ISO 2022 IR 149",
        "ISO 2022 IR 58",
        "ISO 2022 IR 166",
        "GB18030",
        "GBK",
        "ISO_IR 192",
    ]);
    prop::collection::vec(term.prop_map(str::to_owned), 0..4).prop_map(|values| Charset::of(&values))
}

proptest! {
    #[test]
    fn any_text_that_is_written_is_read_back(
        charset in any_charset(),
        text in "[a-z^=\\r山田ﾔé홍길Лю小东𝄞 ]{0,12}",
        vr in prop::sample::select(vec![VR::PN, VR::LO, VR::UT]),
    ) {
        if let Some(bytes) = charset.encode(&text, vr) {
            prop_assert_eq!(charset.decode(&bytes, vr), text.clone());
            // Another value may follow.
            let after = charset.decode(&[bytes.as_slice(), &b"\\A"[..]].concat(), vr);
            prop_assert_eq!(after, format!("{text}\\A"));
        }
    }

    #[test]
    fn any_bytes_are_decoded_to_a_text_of_bounded_length(
        charset in any_charset(),
        bytes in prop::collection::vec(prop_oneof![Just(0x1B), Just(b'$'), Just(b'('), Just(b')'), any::<u8>()], 0..64),
    ) {
        prop_assert!(charset.decode(&bytes, VR::PN).len() <= bytes.len() * 3);
    }
}
