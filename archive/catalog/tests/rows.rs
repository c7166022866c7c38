//! What the catalogue promises of its rows, one story a test.

mod support;

use archive_catalog::{Admission, Command, HeaderPages, Level, Outcome, RefusedWhy, Search, Selection};
use archive_model::{Element, Tag, Uid, VR, Value, json, tags};
use raft_types::GroupId;
use std::collections::BTreeSet;
use support::{Bench, ask, block, group_of, head, instance, query, text, upload};

const NEW: Outcome = Outcome::Stored(Admission::New);

fn texts(bench: &Bench, level: Level, keys: &[Element], tag: Tag) -> Vec<String> {
    let found = bench.find(&query(level, keys));
    found.iter().map(|answer| answer.text(tag).unwrap_or_default().to_owned()).collect()
}

/// A frame of zstd that says its size is decompressed to as much; the bound was 1 MiB whatever the frame said.
#[test]
fn a_header_of_more_than_1_mib_is_read_back() {
    let mut bench = Bench::new();
    let long = "x".repeat(60_000);
    let comments = (0..40).map(|number| text(Tag(0x0011, 0x1000 + number), VR::LT, &[&long]));
    let set = instance("1.1", "1.2", "1.3", &comments.collect::<Vec<_>>());
    assert_eq!(bench.put(&head(&set, 10, 1)), NEW);
    let selection = Selection { studies: vec![Uid::parse("1.1").expect("a UID")], ..Selection::default() };
    let mut pages = HeaderPages::of(&bench.catalog, &selection).expect("rows");
    let page = pages.page(&bench.catalog).expect("a header of 2.4 MB").expect("one page");
    assert_eq!(page[0].1, json::to_json(&set, &json::no_bulk));
    assert!(pages.page(&bench.catalog).expect("the end").is_none());
    let all =
        bench.find(&archive_catalog::Find { include: archive_catalog::Include::All, ..query(Level::Instance, &[]) });
    assert_eq!(all[0].text(Tag(0x0011, 0x1027)), Some(&*long));
}

/// Eight headers of 1.2 MB: a page ends behind 4 MiB, not behind 64 headers.
#[test]
fn pages_are_bounded_in_bytes() {
    let mut bench = Bench::new();
    let long = "x".repeat(60_000);
    for number in 0..8 {
        let comments = (0..20).map(|number| text(Tag(0x0011, 0x1000 + number), VR::LT, &[&long]));
        let set = instance("1.1", "1.2", &format!("1.3.{number}"), &comments.collect::<Vec<_>>());
        assert_eq!(bench.put(&head(&set, 10, 1)), NEW);
    }
    let selection = Selection { studies: vec![Uid::parse("1.1").expect("a UID")], ..Selection::default() };
    let mut headers = HeaderPages::of(&bench.catalog, &selection).expect("rows");
    let mut search =
        Search::of(query(Level::Instance, &[ask(Tag(0x0011, 0x1000), VR::LT)])).expect("a key of the header");
    let mut pages = Vec::new();
    while let Some(page) = headers.page(&bench.catalog).expect("headers") {
        let found = search.page(&bench.catalog).expect("answers").expect("as many pages");
        pages.push((page.len(), found.len()));
    }
    assert_eq!(pages, [(4, 4), (4, 4)]);
}

/// Pages were read by OFFSET: a study that came in front of the second page shifted a row of the first into it.
#[test]
fn a_study_that_comes_between_two_pages_repeats_and_loses_nothing() {
    let mut bench = Bench::new();
    let put = |bench: &mut Bench, number: u32, date: &str| {
        let date = text(tags::STUDY_DATE, VR::DA, &[date]);
        let series = format!("1.{number}.1");
        let set = instance(&format!("1.{number}"), &series, &format!("{series}.1"), &[date]);
        assert_eq!(bench.put(&head(&set, 10, 1)), NEW);
    };
    for number in 0..1200 {
        put(&mut bench, number, ["20200101", "20200102", "20200103"][number as usize % 3]);
    }
    for (level, tag) in [
        (Level::Study, tags::STUDY_INSTANCE_UID),
        (Level::Series, tags::SERIES_INSTANCE_UID),
        (Level::Instance, tags::SOP_INSTANCE_UID),
        (Level::Patient, tags::STUDY_INSTANCE_UID),
    ] {
        let first_new = 2000 + 10 * level as u32;
        let mut search = Search::of(query(level, &[ask(tag, VR::UI), ask(tags::PATIENT_ID, VR::LO)])).expect("good");
        let (mut pages, mut found) = (0, Vec::new());
        while let Some(page) = search.page(&bench.catalog).expect("a page") {
            // The newest, one among the others, and the oldest.
            for (number, date) in (first_new + 3 * pages..).zip(["20240101", "20200102", "19990101"]) {
                put(&mut bench, number, date);
            }
            pages += 1;
            found.extend(page.into_iter().map(|answer| answer.text(tag).unwrap_or_default().to_owned()));
        }
        assert!(pages >= 3, "one page proves nothing");
        if level != Level::Patient {
            let once: BTreeSet<&String> = found.iter().collect();
            assert_eq!(once.len(), found.len(), "a row was met twice at {level:?}");
            let lost = (0..1200).filter(|number| {
                let study = format!("1.{number}");
                !found.iter().any(|uid| *uid == study || uid.starts_with(&format!("{study}.")))
            });
            assert_eq!(lost.count(), 0, "{level:?}");
        } else {
            assert!(found.len() >= 1200);
        }
    }
}

/// It was an error of `apply`, which stops a node: all of them, for the log gives them all the same entry.
#[test]
fn an_instance_beyond_the_last_of_a_series_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.put(&head(&instance("1.1", "1.2", "1.3", &[]), 10, 1)), NEW);
    bench.sql().execute("UPDATE series SET n_ever = 1 << 24", []).expect("a full series");
    let (before, more) = (bench.catalog.totals().expect("totals"), head(&instance("1.1", "1.2", "1.4", &[]), 10, 1));
    assert_eq!(bench.put(&more), Outcome::Refused(RefusedWhy::SeriesFull));
    assert_eq!(bench.catalog.totals().expect("totals"), before);
    assert_eq!(bench.put(&head(&instance("1.1", "1.2", "1.3", &[]), 10, 1)), Outcome::Stored(Admission::Same));
    assert_eq!(bench.put(&head(&instance("1.1", "1.9", "1.4", &[]), 10, 1)), NEW);
}

/// They shared one row: one name for all of them, and the counts of all together.
#[test]
fn patients_without_an_id_stay_apart() {
    let mut bench = Bench::new();
    for (study, name, id) in [("1.1", "Doe", ""), ("1.2", "Roe", " "), ("1.3", "Poe", "7"), ("1.4", "Poe", "7")] {
        let more = [text(tags::PATIENT_NAME, VR::PN, &[name]), text(tags::PATIENT_ID, VR::LO, &[id])];
        for number in 0..2 {
            let set = instance(study, &format!("{study}.1"), &format!("{study}.1.{number}"), &more);
            assert_eq!(bench.put(&head(&set, 10, 1)), NEW);
        }
    }
    let count = tags::NUMBER_OF_PATIENT_RELATED_INSTANCES;
    let keys = [ask(tags::PATIENT_NAME, VR::PN), ask(count, VR::IS)];
    assert_eq!(texts(&bench, Level::Patient, &keys, tags::PATIENT_NAME), ["Doe", "Roe", "Poe"]);
    assert_eq!(texts(&bench, Level::Patient, &keys, count), ["2", "2", "4"]);
    assert_eq!(bench.catalog.totals().expect("totals").patients, 3);
    let nobody = Selection { patient: Some(String::new()), ..Selection::default() };
    assert_eq!(bench.catalog.instances(&nobody).expect("rows"), []);
    let one = Selection { studies: vec![Uid::parse("1.1").expect("a UID")], ..nobody };
    assert_eq!(bench.catalog.instances(&one).expect("rows").len(), 2);
}

/// A column has the first value only; it must not hide a row whose second value matches.
#[test]
fn a_column_never_hides_a_row_that_matches() {
    let mut bench = Bench::new();
    let put = |bench: &mut Bench, study: &str, more: &[Element]| {
        assert_eq!(bench.put(&head(&instance(study, &format!("{study}.1"), &format!("{study}.2"), more), 10, 1)), NEW);
    };
    let date = |dates| text(tags::STUDY_DATE, VR::DA, dates);
    let found = |bench: &Bench, key| {
        texts(bench, Level::Study, &[key, ask(tags::STUDY_INSTANCE_UID, VR::UI)], tags::STUDY_INSTANCE_UID)
    };
    put(&mut bench, "1.1", &[date(&["20200101"]), text(tags::PATIENT_NAME, VR::PN, &["Doe"])]);
    assert_eq!(found(&bench, date(&["20210101-"])), Vec::<String>::new());
    put(&mut bench, "1.2", &[date(&["20200101", "20220101"]), text(tags::PATIENT_NAME, VR::PN, &["Doe", "Roe^A"])]);
    put(&mut bench, "1.3", &[date(&["20230101"]), text(tags::STUDY_ID, VR::SH, &[" HEAD"])]);
    assert_eq!(found(&bench, date(&["20210101-"])), ["1.3", "1.2"]);
    assert_eq!(found(&bench, date(&["20190101", "20220101"])), ["1.2"]);
    assert_eq!(found(&bench, text(tags::PATIENT_NAME, VR::PN, &["roe*"])), ["1.2"]);
    assert_eq!(found(&bench, text(tags::PATIENT_NAME, VR::PN, &["ROE^A"])), ["1.2"]);
    assert_eq!(found(&bench, text(tags::STUDY_ID, VR::SH, &[" HE*"])), ["1.3"]);
}

/// Copies of blocks can be committed behind the end of their upload: each made a row that nothing would ever forget.
#[test]
fn a_block_behind_the_end_of_its_upload_leaves_nothing() {
    let mut bench = Bench::new();
    let group = group_of("1.1");
    let blocks = |bench: &Bench| -> (i64, i64) {
        let count = "SELECT (SELECT count(*) FROM upload), (SELECT count(*) FROM ended_upload)";
        bench.sql().query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("counts")
    };
    let late = Outcome::Refused(RefusedWhy::BlockMissing);
    let piece = |number, seq| Command::Block { upload: upload(number), seq };
    let index = bench.next_index(group);
    assert_eq!(bench.run(group, &piece(1, 0), 10), Outcome::Held { index });
    assert_eq!(bench.run(group, &piece(1, 0), 10), Outcome::Held { index }, "the first copy counts");
    let whole = head(&instance("1.1", "1.2", "1.3", &[]), 10, 1);
    let commit = Command::Commit { upload: upload(1), head: whole, blocks: vec![block(index, 10)] };
    assert_eq!(bench.run(group, &commit, 0), NEW);
    assert_eq!(bench.run(group, &piece(1, 0), 10), late);
    assert_eq!(bench.run(group, &Command::Abort { uploads: vec![upload(2)] }, 0), Outcome::Aborted);
    assert_eq!(bench.run(group, &piece(2, 0), 10), late);
    assert_eq!(blocks(&bench), (0, 2));
    // A commit that does not fit its head ends the upload too.
    bench.run(group, &piece(3, 0), 10);
    let wrong = head(&instance("1.1", "1.2", "1.4", &[]), 11, 1);
    let commit = Command::Commit { upload: upload(3), head: wrong, blocks: vec![block(index, 10)] };
    assert_eq!(bench.run(group, &commit, 0), Outcome::Refused(RefusedWhy::LengthMismatch));
    assert_eq!(blocks(&bench), (0, 3));
    // What has ended is remembered as long as the group's log says, on every node alike.
    bench.skip(group, 1 << 16);
    bench.run(group, &Command::Abort { uploads: vec![upload(4)] }, 0);
    assert_eq!(blocks(&bench), (0, 1));
    assert_eq!(bench.run(GroupId(9), &piece(4, 0), 10), Outcome::Held { index: 1 }, "each group has its own");
}

#[test]
fn attributes_of_several_values_are_returned_as_they_came() {
    let mut bench = Bench::new();
    let more = [
        text(tags::IMAGE_TYPE, VR::CS, &["ORIGINAL", "PRIMARY", "AXIAL"]),
        text(tags::MODALITY, VR::CS, &["PT", "CT"]),
        Element { tag: tags::ROWS, vr: VR::US, value: Value::Integers(vec![512]) },
    ];
    assert_eq!(bench.put(&head(&instance("1.1", "1.2", "1.3", &more), 10, 1)), NEW);
    let keys = [ask(tags::IMAGE_TYPE, VR::CS), ask(tags::ROWS, VR::US), ask(tags::MODALITIES_IN_STUDY, VR::CS)];
    let found = bench.find(&query(Level::Instance, &keys));
    assert_eq!(found[0].texts(tags::IMAGE_TYPE), ["ORIGINAL", "PRIMARY", "AXIAL"]);
    assert_eq!((found[0].integer(tags::ROWS), found[0].len()), (Some(512), 3));
    assert_eq!(found[0].texts(tags::MODALITIES_IN_STUDY), ["CT", "PT"]);
}
