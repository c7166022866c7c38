//! What keys mean, and what matches them.

use super::*;
use crate::tags;
use proptest::prelude::*;

const PLAIN: Meaning = Meaning {
    combined_date_time: false,
    fuzzy_names: false,
    empty_values: true,
    all_values: false,
    zone_minutes: None,
};

fn hit(vr: VR, key: &str, value: &str) -> bool {
    meant(&PLAIN, vr, key, value)
}

fn meant(meaning: &Meaning, vr: VR, key: &str, value: &str) -> bool {
    let pattern = Pattern::of_texts(tags::PATIENT_NAME, vr, &[key.to_owned()], meaning).expect("a good key");
    let value = if value.is_empty() { Value::Empty } else { Value::Text(vec![value.to_owned()]) };
    pattern.matches(Some(&Element { tag: tags::PATIENT_NAME, vr, value }))
}

#[test]
fn a_key_without_value_matches_everything_and_a_quoted_one_only_what_is_empty() {
    for key in ["", "*", "**", " "] {
        assert!(hit(VR::LO, key, "") && hit(VR::LO, key, "x"), "{key:?}");
    }
    assert!(hit(VR::LO, "\"\"", "") && !hit(VR::LO, "\"\"", "x"));
    let literal = Meaning::default();
    assert!(!meant(&literal, VR::LO, "\"\"", "") && meant(&literal, VR::LO, "\"\"", "\"\""), "not negotiated");
}

#[test]
fn single_values_match_exactly_but_for_padding() {
    assert!(hit(VR::LO, "HEAD ", "HEAD") && !hit(VR::LO, "head", "HEAD") && !hit(VR::LO, "HEAD", ""));
    assert!(hit(VR::IS, "7", " 07 ") && !hit(VR::IS, "7", "70"));
}

#[test]
fn names_match_without_case_and_accents_in_any_group() {
    assert!(hit(VR::PN, "muller^jorg", "Müller^Jörg"));
    assert!(hit(VR::PN, "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう"));
    assert!(hit(VR::PN, "YAMADA^*", "Yamada^Tarou=山田^太郎"));
    assert!(hit(VR::PN, "DOE^", "Doe") && !hit(VR::PN, "DOE", "Doe^Jane"));
}

#[test]
fn wildcards_in_keys_work_and_in_values_are_ordinary() {
    assert!(hit(VR::LO, "a?c*", "abcdef") && !hit(VR::LO, "a?c", "abcd"));
    assert!(hit(VR::LO, "a%b_*", "a%b_x") && !hit(VR::LO, "a%b_*", "axbyx"));
    assert!(hit(VR::LO, "*\\d", "c\\d") && !hit(VR::LO, "x", "*"));
}

#[test]
fn ranges_include_their_ends_and_know_partial_precision() {
    assert!(hit(VR::DA, "20200101-20200131", "20200131") && !hit(VR::DA, "20200101-20200131", "20200201"));
    assert!(hit(VR::DA, "-20200131", "19990101") && hit(VR::DA, "20200131-", "2020.02.01"));
    assert!(hit(VR::TM, "10", "105959.999") && !hit(VR::TM, "10", "110000") && hit(VR::TM, "0900-10", "1030"));
    assert!(hit(VR::DT, "2020-2021", "20211231235959+0100") && hit(VR::DT, "20200101120000-0500", "202001011200"));
    assert!(!hit(VR::DA, "20200101", "yesterday") && !hit(VR::DA, "20200101-", ""));
    for bad in ["2020", "20200101-2020", "x", "-"] {
        assert!(Pattern::of_texts(tags::STUDY_DATE, VR::DA, &[bad.to_owned()], &PLAIN).is_err(), "{bad}");
    }
}

#[test]
fn any_value_of_a_key_and_any_stored_value_is_enough() {
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let hit = |vr, key: &[&str], stored: &[&str]| {
        let pattern = Pattern::of_texts(tags::IMAGE_TYPE, vr, &texts(key), &PLAIN).expect("a good key");
        pattern.matches(Some(&Element { tag: tags::IMAGE_TYPE, vr, value: Value::Text(texts(stored)) }))
    };
    assert!(hit(VR::CS, &["A*", "B"], &["B"]) && hit(VR::CS, &["A", "B*"], &["X", "BC"]));
    assert!(!hit(VR::CS, &["A*", "B"], &["BC"]));
    assert!(hit(VR::DA, &["20200101", "20210101-"], &["19990101", "20220101"]));
    assert!(!hit(VR::DA, &["20200101", "20210101-"], &["20200102"]));
    assert!(hit(VR::PN, &["Doe^*", "Roe^Jane"], &["ROE^JANE"]) && hit(VR::PN, &["Roe"], &["Doe", "Roe"]));
    assert!(hit(VR::IS, &["1", "", "2"], &["2"]) && hit(VR::LO, &["x", "*"], &["y"]));
    // Outer spaces are padding, with wildcards as without.
    assert!(hit(VR::LO, &[" HE*"], &["HEAD "]) && hit(VR::LO, &["HE*"], &[" HEAD"]));
}

#[test]
fn a_list_of_uids_matches_each_of_them() {
    let uids = ["1.2.3".to_owned(), "4.5 ".to_owned()];
    let pattern = Pattern::of_texts(tags::STUDY_INSTANCE_UID, VR::UI, &uids, &PLAIN).expect("good");
    assert!(pattern.matches_text(VR::UI, "4.5\0") && !pattern.matches_text(VR::UI, "4.5.6"));
}

#[test]
fn a_sequence_matches_if_one_item_matches_all_its_keys() {
    let item = |code: &str, meaning: &str| {
        let mut item = DataSet::new();
        item.put_text(tags::CODE_VALUE, VR::SH, code);
        item.put_text(tags::CODE_MEANING, VR::LO, meaning);
        item
    };
    let sequence = |items| Element { tag: tags::PROCEDURE_CODE_SEQUENCE, vr: VR::SQ, value: Value::Items(items) };
    let stored = sequence(vec![item("A", "one"), item("B", "two")]);
    let key = |code, meaning| Pattern::of(&sequence(vec![item(code, meaning)]), &PLAIN).expect("good");
    assert!(key("B", "t*").matches(Some(&stored)) && !key("A", "t*").matches(Some(&stored)));
    assert!(key("", "").matches(None));
}

/// Tries every way, in exponential time.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
        Some((char, rest)) => {
            text.split_first().is_some_and(|(first, text)| (*char == '?' || char == first) && naive(rest, text))
        }
    }
}

proptest! {
    #[test]
    fn the_wildcard_matcher_agrees_with_the_naive_one(pattern in "[ab*?]{0,7}", text in "[ab]{0,7}") {
        let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        prop_assert_eq!(wildcard(&pattern, &text), naive(&p, &t));
    }

    #[test]
    fn no_key_panics(key in ".{0,30}", value in ".{0,30}") {
        for vr in [VR::DA, VR::TM, VR::DT, VR::PN, VR::LO, VR::IS, VR::UI] {
            if let Ok(pattern) = Pattern::of_texts(tags::STUDY_DATE, vr, std::slice::from_ref(&key), &PLAIN) {
                let _ = pattern.matches_text(vr, &value);
            }
        }
    }
}

#[test]
fn offsets_count_where_both_say_one() {
    assert!(hit(VR::DT, "202001011200+0000", "202001010900-0300") && !hit(VR::DT, "202001011200+0000", "202001010900"));
    assert!(hit(VR::DT, "20200101+0000-20200101+0000", "20200102003000+0100"), "still the first in UTC");
    assert!(!hit(VR::DT, "20200101+0000-20200101+0000", "20200101003000+0100"), "the last of the year before in UTC");
    // A key without one is as its zone says, and as written where there is none.
    let zone = Meaning { zone_minutes: Some(-180), ..PLAIN };
    assert!(meant(&zone, VR::DT, "202001010900", "202001011200+0000"));
    assert!(hit(VR::DT, "202001010900", "202001010900+0500"));
}

#[test]
fn a_range_across_midnight_is_refused_with_what_to_do() {
    let wrong = patterns(&moments(&[(tags::STUDY_TIME, VR::TM, "2200-0200")]), &PLAIN).expect_err("refused");
    assert!(wrong.why.contains("two ranges"), "{wrong}");
    let wrong = patterns(&moments(&[(tags::STUDY_DATE, VR::DA, "20200102-20200101")]), &PLAIN).expect_err("refused");
    assert!(wrong.why.contains("before it begins"), "{wrong}");
}

fn moments(pairs: &[(Tag, VR, &str)]) -> DataSet {
    let mut set = DataSet::new();
    pairs.iter().for_each(|(tag, vr, text)| set.put_text(*tag, *vr, *text));
    set
}

#[test]
fn a_date_range_and_a_time_range_of_one_form_are_one_range_if_negotiated() {
    let study = |date: &str, time: &str| moments(&[(tags::STUDY_DATE, VR::DA, date), (tags::STUDY_TIME, VR::TM, time)]);
    let hit = |combined, date: &str, time: &str, stored: (&str, &str)| {
        let meaning = Meaning { combined_date_time: combined, ..PLAIN };
        let keys = patterns(&study(date, time), &meaning).expect("good keys");
        all_match(&keys, &study(stored.0, stored.1))
    };
    // The example of C.2.2.2.5.4.
    let night = ("20060706", "0300");
    assert!(hit(true, "20060705-20060707", "1000-1800", night) && !hit(false, "20060705-20060707", "1000-1800", night));
    assert!(!hit(true, "20060705-20060707", "1000-1800", ("20060705", "0959")));
    assert!(hit(true, "20060705-20060707", "1000-1800", ("20060707", "180059")));
    assert!(hit(true, "20060705-", "10-", ("20060706", "09")) && !hit(true, "20060705-", "10-", ("20060705", "09")));
    assert!(hit(true, "-20060705", "-10", ("20060704", "23")) && !hit(true, "-20060705", "-10", ("20060705", "11")));
    // Across midnight.
    let (dates, times) = ("20060705-20060706", "2200-0200");
    assert!(hit(true, dates, times, ("20060705", "23")) && hit(true, dates, times, ("20060706", "0159")));
    assert!(!hit(true, dates, times, ("20060705", "21")) && !hit(true, dates, times, ("20060706", "0301")));
    // Forms that differ stay apart; a day without a time is some moment of it.
    assert!(!hit(true, "20060705-", "-10", ("20060706", "11")) && hit(true, "20060705-", "-10", ("20060706", "09")));
    assert!(!hit(true, "20060706", "10-", ("20060707", "11")) && hit(true, "20060706", "10-", ("20060706", "11")));
    assert!(hit(true, "20060705-", "10-", ("20060705", "")) && !hit(true, "20060705-", "10-", ("", "11")));
}

#[test]
fn each_value_of_a_key_must_be_found_if_negotiated() {
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let hit = |all_values, vr, key: &[&str], stored: &[&str]| {
        let meaning = Meaning { all_values, ..PLAIN };
        let pattern = Pattern::of_texts(tags::MODALITIES_IN_STUDY, vr, &texts(key), &meaning).expect("good");
        pattern.matches(Some(&Element { tag: tags::MODALITIES_IN_STUDY, vr, value: Value::Text(texts(stored)) }))
    };
    assert!(hit(true, VR::CS, &["PT", "CT"], &["CT", "OT", "PT"]) && !hit(true, VR::CS, &["PT", "CT"], &["CT"]));
    assert!(hit(false, VR::CS, &["PT", "CT"], &["CT"]));
    assert!(hit(true, VR::UI, &["1.2", "1.3"], &["1.3"]), "a list of UIDs is another thing");
    assert!(hit(true, VR::PN, &["doe^*", "roe"], &["Roe", "Doe^Jane"]) && hit(true, VR::CS, &["*", "CT"], &["CT"]));
}

#[test]
fn a_key_of_unknown_vr_is_read_as_what_is_stored() {
    let tag = Tag(0x0011, 0x1001);
    let hit = |key: &[u8], vr, value| {
        let key = Element { tag, vr: VR::UN, value: Value::Bytes(key.to_vec().into()) };
        Pattern::of(&key, &PLAIN).expect("good").matches(Some(&Element { tag, vr, value }))
    };
    let text = |text: &str| Value::Text(vec![text.to_owned()]);
    assert!(hit(b"HE* ", VR::LO, text("HEAD")) && !hit(b"HE", VR::LO, text("HEAD")));
    assert!(hit(b"20200101-", VR::DA, text("20200202")) && hit(b"7 ", VR::IS, text(" 07")));
    assert!(hit(b"muller^*", VR::PN, text("Müller^Jörg")));
    assert!(hit(&[5, 0], VR::US, Value::Integers(vec![5])) && hit(b"5 ", VR::US, Value::Integers(vec![5])));
    assert!(hit(&[0xFE, 0xFF], VR::SS, Value::Integers(vec![-2])) && !hit(&[6, 0], VR::US, Value::Integers(vec![5])));
    assert!(hit(b"HE*", VR::UN, Value::Bytes("HEAD ".into())) && hit(b"\"\"", VR::LO, Value::Empty));
    assert!(hit(b"", VR::LO, text("x")) && hit(b"* ", VR::LO, text("x")) && !hit(b"x", VR::LO, Value::Empty));
}

#[test]
fn items_are_answered_with_what_was_asked_for() {
    let item = |code: &str, meaning: &str| {
        let mut item = DataSet::new();
        item.put_text(tags::CODE_VALUE, VR::SH, code);
        item.put_text(tags::CODE_MEANING, VR::LO, meaning);
        item
    };
    let stored = [item("A", "one"), item("B", "two"), item("B", "three")];
    let mut key = DataSet::new();
    key.put_text(tags::CODE_VALUE, VR::SH, "B");
    key.put_text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "");
    let found = matching_items(&[key], &stored, &PLAIN);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].text(tags::CODE_VALUE), found[0].get(tags::CODE_MEANING)), (Some("B"), None));
    assert!(found[0].get(tags::CODING_SCHEME_DESIGNATOR).is_some_and(|element| element.value == Value::Empty));
    assert_eq!(matching_items(&[], &stored, &PLAIN), stored);
    assert_eq!(matching_items(&[DataSet::new()], &stored, &PLAIN), stored);
}

#[test]
fn fuzzy_names_match_by_sound_and_all_that_matched_before() {
    let fuzzy = Meaning { fuzzy_names: true, ..PLAIN };
    assert!(meant(&fuzzy, VR::PN, "Maier^Jo", "Meyer^Josef") && !hit(VR::PN, "Maier^Jo", "Meyer^Josef"));
    assert!(meant(&fuzzy, VR::PN, "*eyer*", "Meyer^Josef") && meant(&fuzzy, VR::PN, "=山田", "Yamada=山田"));
    assert!(!meant(&fuzzy, VR::LO, "Maier", "Meyer"), "names only");
}
