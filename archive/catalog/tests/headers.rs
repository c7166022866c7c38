//! Keys that the index does not know, one story a test.

mod support;

use archive_catalog::{Admission, CatalogError, CatalogOptions, Find, Include, Level, Outcome, Search};
use archive_model::{DataSet, Element, Tag, VR, Value, matching::Meaning, tags};
use std::collections::BTreeSet;
use support::{Bench, ask, head, instance, query, text};

fn put(bench: &mut Bench, uid: &str, more: &[Element]) {
    let (series, _) = uid.rsplit_once('.').expect("a series");
    let (study, _) = series.rsplit_once('.').expect("a study");
    let set = instance(study, series, uid, more);
    assert_eq!(bench.put(&head(&set, 10, 1)), Outcome::Stored(Admission::New));
}

fn comments(text_of: &str) -> Element {
    text(tags::IMAGE_COMMENTS, VR::LT, &[text_of])
}

fn kvp(value: &str) -> Element {
    text(tags::KVP, VR::DS, &[value])
}

fn texts(answers: &[DataSet], tag: Tag) -> Vec<String> {
    answers.iter().map(|answer| answer.text(tag).unwrap_or_default().to_owned()).collect()
}

/// At each level: any image is enough, one for all keys, and the answer has its values.
#[test]
fn a_row_matches_if_one_image_below_it_does_and_has_its_values() {
    let mut bench = Bench::new();
    let id = text(tags::PATIENT_ID, VR::LO, &["7"]);
    put(&mut bench, "1.1.1.1", &[id.clone(), comments("bad"), kvp("80")]);
    put(&mut bench, "1.1.2.1", &[id.clone(), comments("good"), kvp("120")]);
    put(&mut bench, "1.1.2.2", &[id.clone(), comments("good and sharp"), kvp("80")]);
    put(&mut bench, "1.2.1.1", &[id, comments("bad"), kvp("140")]);
    let uid = ask(tags::STUDY_INSTANCE_UID, VR::UI);
    for (level, rows) in [(Level::Patient, 1), (Level::Study, 1), (Level::Series, 1), (Level::Instance, 1)] {
        let found = bench.find(&query(level, &[comments("good*"), kvp("80"), uid.clone()]));
        assert_eq!(found.len(), rows, "{level:?}");
        assert_eq!(texts(&found, tags::IMAGE_COMMENTS), ["good and sharp"], "{level:?}");
        assert_eq!(bench.find(&query(level, &[comments("bad"), kvp("120")])), [], "two images do not make one");
    }
    // Without a key that must match: the first image by series and arrival.
    let found = bench.find(&query(Level::Study, &[ask(tags::IMAGE_COMMENTS, VR::LT), ask(tags::KVP, VR::DS), uid]));
    assert_eq!(texts(&found, tags::IMAGE_COMMENTS), ["bad", "bad"]);
    assert_eq!(texts(&found, tags::KVP), ["80", "140"]);
    // What nobody has is of zero length, and what is asked for to be empty is found.
    let nobody = query(Level::Study, &[ask(tags::CONTRAST_BOLUS_AGENT, VR::LO)]);
    assert!(bench.find(&nobody).iter().all(|answer| answer.len() == 1) && nobody.unsupported().is_empty());
    assert_eq!(bench.find(&query(Level::Series, &[text(tags::CONTRAST_BOLUS_AGENT, VR::LO, &["\"\""])])).len(), 3);
    let below = query(Level::Study, &[ask(tags::SERIES_DESCRIPTION, VR::LO), ask(tags::PIXEL_DATA, VR::OW)]);
    assert_eq!(below.unsupported(), [tags::SERIES_DESCRIPTION, tags::PIXEL_DATA]);
}

/// A study of more images than a page reads: the query goes on inside of it, also when another study comes in between.
#[test]
fn a_study_of_many_images_is_looked_through_in_several_pages() {
    let mut bench = Bench::new();
    for number in 0..700 {
        let comment = if number == 698 { "here" } else { "not here" };
        put(&mut bench, &format!("1.5.{}.{number}", number % 3), &[comments(comment)]);
    }
    for study in [4, 6] {
        put(&mut bench, &format!("1.{study}.1.1"), &[comments("here")]);
    }
    for level in [Level::Study, Level::Series, Level::Instance] {
        let mut search =
            Search::of(query(level, &[comments("here"), ask(tags::STUDY_INSTANCE_UID, VR::UI)])).expect("good");
        let (mut found, mut empty, mut pages) = (Vec::new(), 0, 0);
        while let Some(page) = search.page(&bench.catalog).expect("a page") {
            // In front of what is being looked through.
            put(&mut bench, &format!("1.3{pages}.{}.1", level as u8), &[comments("elsewhere")]);
            empty += usize::from(page.is_empty());
            pages += 1;
            found.extend(texts(&page, tags::STUDY_INSTANCE_UID));
        }
        let distinct: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!((found.len(), distinct), (3, BTreeSet::from(["1.4", "1.5", "1.6"])), "{level:?}");
        assert!(empty > 0 && pages >= 3, "{level:?}: {pages} pages");
    }
}

/// The bound is on what is read to match, not on what is answered; columns and attributes of the index come first.
#[test]
fn a_query_that_would_look_into_too_many_images_is_refused() {
    let mut bench = Bench::of(CatalogOptions { query_headers_max: 20, ..CatalogOptions::default() });
    for number in 0..30 {
        let sex = text(tags::PATIENT_SEX, VR::CS, &[if number < 10 { "F" } else { "M" }]);
        put(&mut bench, &format!("1.{number}.1.1"), &[comments("x"), sex]);
    }
    let find = |bench: &Bench, level, keys: &[Element]| -> Result<usize, CatalogError> {
        let mut search = Search::of(query(level, keys)).expect("good keys");
        let mut found = 0;
        while let Some(page) = search.page(&bench.catalog)? {
            found += page.len();
        }
        Ok(found)
    };
    for level in [Level::Study, Level::Series, Level::Instance] {
        let refused = find(&bench, level, &[comments("y")]);
        assert!(matches!(refused, Err(CatalogError::TooManyHeaders { max: 20 })), "{refused:?}");
        assert_eq!(find(&bench, level, &[ask(tags::IMAGE_COMMENTS, VR::LT)]).expect("only returned"), 30);
        let narrow = text(tags::PATIENT_SEX, VR::CS, &["F"]);
        assert_eq!(find(&bench, level, &[comments("x"), narrow]).expect("ten images"), 10);
    }
    let few = Find { limit: Some(5), ..query(Level::Study, &[comments("x")]) };
    assert_eq!(bench.find(&few).len(), 5, "a limit bounds it too");
}

/// PS3.5 §7.8.1: the block of a private attribute is where its creator is.
#[test]
fn a_private_attribute_is_found_in_the_block_of_its_creator() {
    let mut bench = Bench::new();
    let private = |block: u16, creator: &str, value: &str| {
        [text(Tag(0x0011, block), VR::LO, &[creator]), text(Tag(0x0011, block << 8 | 1), VR::LO, &[value])]
    };
    put(&mut bench, "1.1.1.1", &private(0x10, "ACME", "x"));
    put(&mut bench, "1.2.1.1", &private(0x11, "ACME", "x"));
    put(&mut bench, "1.3.1.1", &private(0x10, "OTHER", "x"));
    put(&mut bench, "1.4.1.1", &private(0x10, "ACME", "y"));
    let uid = ask(tags::STUDY_INSTANCE_UID, VR::UI);
    let key = |value: &str| [private(0x10, "ACME", value).to_vec(), vec![uid.clone()]].concat();
    let found = bench.find(&query(Level::Study, &key("x")));
    assert_eq!(texts(&found, tags::STUDY_INSTANCE_UID), ["1.1", "1.2"]);
    assert_eq!(texts(&found, Tag(0x0011, 0x1001)), ["x", "x"]);
    assert_eq!(texts(&found, Tag(0x0011, 0x0010)), ["ACME", "ACME"]);
    // Implicit VR says no VR, and without a creator the block is as it is written.
    let unknown = Element { tag: Tag(0x0011, 0x1001), vr: VR::UN, value: Value::Bytes("x ".into()) };
    assert_eq!(
        texts(&bench.find(&query(Level::Study, &[unknown, uid.clone()])), tags::STUDY_INSTANCE_UID),
        ["1.1", "1.3"]
    );
    // Stored without its VR.
    put(
        &mut bench,
        "1.5.1.1",
        &[
            text(Tag(0x0011, 0x0010), VR::LO, &["ACME"]),
            Element { tag: Tag(0x0011, 0x1001), vr: VR::UN, value: Value::Bytes("x ".into()) },
        ],
    );
    assert_eq!(bench.find(&query(Level::Study, &key("x"))).len(), 3);
}

/// The items that match, with the attributes that were asked for; QIDO gets all of a sequence.
#[test]
fn sequences_are_matched_item_by_item_in_the_index_and_in_headers() {
    let mut bench = Bench::new();
    let item = |pairs: &[(Tag, VR, &str)]| -> DataSet {
        pairs.iter().map(|(tag, vr, value)| text(*tag, *vr, &[*value])).collect()
    };
    let image = |class: &str, uid: &str| {
        item(&[(tags::REFERENCED_SOP_CLASS_UID, VR::UI, class), (tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, uid)])
    };
    let step = |id: &str, what: &str| {
        item(&[
            (tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, id),
            (tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION, VR::LO, what),
        ])
    };
    let sequence = |tag, items: &[DataSet]| Element { tag, vr: VR::SQ, value: Value::Items(items.to_vec()) };
    let referenced = |items: &[DataSet]| sequence(tags::REFERENCED_IMAGE_SEQUENCE, items);
    let requested = |items: &[DataSet]| sequence(tags::REQUEST_ATTRIBUTES_SEQUENCE, items);
    put(
        &mut bench,
        "1.1.1.1",
        &[referenced(&[image("1.9", "1.7.1"), image("1.8", "1.7.2")]), requested(&[step("A", "x")])],
    );
    put(&mut bench, "1.2.1.1", &[referenced(&[image("1.8", "1.7.1")]), requested(&[step("B", "x"), step("A", "y")])]);
    let uid = ask(tags::STUDY_INSTANCE_UID, VR::UI);
    let found = |key: Element| bench.find(&query(Level::Series, &[key, uid.clone()]));
    let both = found(referenced(&[image("1.9", "1.7.1")]));
    assert_eq!(texts(&both, tags::STUDY_INSTANCE_UID), ["1.1"], "one item for all keys");
    let list = item(&[(tags::REFERENCED_SOP_CLASS_UID, VR::UI, "")]).into_iter().map(|e| ask(e.tag, e.vr));
    let mut list: DataSet = list.collect();
    list.put(text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &["1.7.2", "1.7.3"]));
    let answers = found(referenced(&[list]));
    assert_eq!(texts(&answers, tags::STUDY_INSTANCE_UID), ["1.1"]);
    assert_eq!(answers[0].items(tags::REFERENCED_IMAGE_SEQUENCE), [image("1.8", "1.7.2")]);
    let answers = found(requested(&[item(&[(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, "A")])]));
    let left = |answer: &DataSet| answer.items(tags::REQUEST_ATTRIBUTES_SEQUENCE).to_vec();
    let only_id = [item(&[(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, "A")])];
    assert_eq!((answers.len(), left(&answers[0]), left(&answers[1])), (2, only_id.to_vec(), only_id.to_vec()));
    let web = Find { include: Include::Default, ..query(Level::Series, &[requested(&only_id)]) };
    assert_eq!(left(&bench.find(&web)[1]).len(), 2);
}

/// C.2.2.2.1.3: what a clock showed elsewhere is looked for, and shown, as a clock of the requestor shows it.
#[test]
fn times_are_in_the_zone_of_the_query_if_they_say_where_they_were_written() {
    let mut bench = Bench::new();
    let study = |date: &str, time: &str, zone: &str| {
        [
            text(tags::STUDY_DATE, VR::DA, &[date]),
            text(tags::STUDY_TIME, VR::TM, &[time]),
            text(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, &[zone]),
        ]
    };
    put(&mut bench, "1.1.1.1", &study("20200101", "2330", "-0500"));
    put(&mut bench, "1.2.1.1", &study("20200102", "0430", "+0000"));
    put(&mut bench, "1.3.1.1", &study("20200101", "2330", "+0100"));
    put(&mut bench, "1.4.1.1", &study("20200101", "2330", "")[..2]);
    let find = |zone_minutes, date: &str, time: &str| {
        let keys = [
            text(tags::STUDY_DATE, VR::DA, &[date]),
            text(tags::STUDY_TIME, VR::TM, &[time]),
            ask(tags::STUDY_INSTANCE_UID, VR::UI),
        ];
        let meaning = Meaning { zone_minutes, ..Meaning::default() };
        let mut found = bench.find(&Find { meaning, ..query(Level::Study, &keys) });
        found.sort_by_key(|answer| answer.text(tags::STUDY_INSTANCE_UID).map(str::to_owned));
        found
    };
    assert_eq!(texts(&find(None, "20200101", "2330"), tags::STUDY_INSTANCE_UID), ["1.1", "1.3", "1.4"]);
    let found = find(Some(0), "20200102", "0430");
    assert_eq!(texts(&found, tags::STUDY_INSTANCE_UID), ["1.1", "1.2"]);
    assert_eq!(texts(&found, tags::STUDY_DATE), ["20200102", "20200102"]);
    assert_eq!(texts(&found, tags::TIMEZONE_OFFSET_FROM_UTC), ["+0000", "+0000"]);
    // Where nobody said, it is as it was written, and nothing is said.
    let found = find(Some(0), "20200101", "2330");
    assert_eq!(
        (texts(&found, tags::STUDY_INSTANCE_UID), found[0].get(tags::TIMEZONE_OFFSET_FROM_UTC)),
        (vec!["1.4".into()], None)
    );
    assert_eq!(texts(&find(Some(60), "20200102", "0530"), tags::STUDY_INSTANCE_UID), ["1.1", "1.2"]);
}

/// The index finds the names that sound alike before any row is looked at; the full match says the same without it.
#[test]
fn names_that_sound_alike_are_found_by_the_index() {
    let mut bench = Bench::new();
    let people: &[&[&str]] =
        &[&["Meyer^Josef"], &["Maier^Jo"], &["Mueller^Jo"], &["Doe", "Mayr^Johann"], &["Yamada^Tarou=山田^太郎"], &[]];
    for (number, names) in people.iter().enumerate() {
        let name =
            if names.is_empty() { ask(tags::PATIENT_NAME, VR::PN) } else { text(tags::PATIENT_NAME, VR::PN, names) };
        put(&mut bench, &format!("1.{number}.1.1"), &[name]);
    }
    let find = |level, key: &[&str]| {
        let keys = [text(tags::PATIENT_NAME, VR::PN, key), ask(tags::STUDY_INSTANCE_UID, VR::UI)];
        let meaning = Meaning { fuzzy_names: true, ..Meaning::default() };
        let mut found = texts(&bench.find(&Find { meaning, ..query(level, &keys) }), tags::STUDY_INSTANCE_UID);
        found.sort();
        found
    };
    for level in [Level::Study, Level::Series, Level::Instance] {
        assert_eq!(find(level, &["meier^jo"]), ["1.0", "1.1", "1.3"]);
        assert_eq!(find(level, &["Jo Miller"]), ["1.2"]);
        assert_eq!((find(level, &["山"]), find(level, &["tar"])), (vec!["1.4".to_owned()], vec!["1.4".to_owned()]));
        assert_eq!(find(level, &["m*r^jo*"]), ["1.0", "1.1", "1.2", "1.3"]);
        assert_eq!(find(level, &["yam*=山*"]), ["1.4"], "a wildcard over two groups");
        assert_eq!(find(level, &["*"]).len(), 6);
        assert_eq!(find(level, &["nobody"]), Vec::<String>::new());
    }
}
