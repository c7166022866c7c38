//! Indexes that an operator adds, against the same catalogue without any: random stores, replaces, deletes, rejections, restores,
//! imports, crashes, definitions that come and go, and steps of the fill in between. After each of them the rows are what follows
//! from the headers (X-1), and a query is answered as without an index (X-4).

mod support;

use archive_catalog::{
    Catalog, CatalogError, CatalogOptions, Command, ExtraIndex, FillStep, Find, Grounds, Level, OtherContent,
    RejectAction, RejectedAgain, Rejection, Search, Target,
};
use archive_model::{
    DataSet, Element, Limits, Tag, Uid, VR, Value, json,
    matching::{Meaning, normal_date, normal_time},
    tags,
};
use bytes::Bytes;
use raft_types::{Applied, Exported, GroupId, StateMachine};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path};
use support::{Bench, ask, group_of, head, instance, query, text};

const ACME: Tag = Tag(0x0009, 0x1001);

fn index(attribute: &str, vr: VR, level: Level) -> ExtraIndex {
    let index = ExtraIndex { attribute: attribute.parse().expect("an attribute"), vr, level };
    index.check().expect("good");
    index
}

/// What may be defined; of one attribute one at a time would do, but nothing breaks with two.
fn pool() -> Vec<ExtraIndex> {
    vec![
        index("(0009,\"ACME\",01)", VR::LO, Level::Instance),
        index("(0009,\"ACME\",01)", VR::IS, Level::Study),
        index("KVP", VR::DS, Level::Series),
        index("ImageComments", VR::LT, Level::Instance),
        index("ResponsiblePerson", VR::PN, Level::Patient),
        index("DateOfSecondaryCapture", VR::DA, Level::Series),
        index("TimeOfSecondaryCapture", VR::TM, Level::Instance),
    ]
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("a UID")
}

/// The attributes of a content: equal bytes have an equal digest.
fn attributes(content: u8) -> Vec<Element> {
    let mut chance = ChaCha8Rng::seed_from_u64(u64::from(content));
    let mut more = Vec::new();
    let block: u16 = chance.random_range(0x10..0x12);
    let named = |block: u16, name| text(Tag(0x0009, block), VR::LO, &[name]);
    let at = Tag(0x0009, block << 8 | 1);
    let bytes = |value: &'static [u8]| Element { tag: at, vr: VR::UN, value: Value::Bytes(Bytes::from_static(value)) };
    match chance.random_range(0..7) {
        0 => more.push(text(at, VR::LO, &["7"])),
        1 => more.push(text(at, VR::LO, &["Head", "7 "])),
        2 => more.push(text(at, VR::SH, &["Head"])),
        3 => more.push(bytes(b"7 ")),
        4 => more.push(bytes(b" Heel\\8")),
        5 => more.push(text(at, VR::IS, &["7"])),
        _ => {}
    }
    if chance.random_ratio(5, 6) {
        more.extend([named(block, "ACME"), named(block ^ 1, "OTHER")]);
    }
    let mut some = |tag, vr, values: &[&[&str]]| {
        let values = values.choose(&mut chance).expect("some");
        if !values.is_empty() {
            more.push(text(tag, vr, values));
        }
    };
    some(tags::KVP, VR::DS, &[&["120"], &["120.0 "], &["80", "1.2e2"], &["soft"], &[]]);
    some(tags::IMAGE_COMMENTS, VR::LT, &[&["good"], &["bad \\ worse"], &[" good"], &[]]);
    some(tags::RESPONSIBLE_PERSON, VR::PN, &[&["Doe^Jane"], &["Müller^Jörg=山田"], &["=山田"], &["Doe", "Roe"], &[]]);
    some(
        tags::DATE_OF_SECONDARY_CAPTURE,
        VR::DA,
        &[&["20200101"], &["2020.02.01"], &["20210101", "20220101"], &["soon"], &[]],
    );
    some(tags::TIME_OF_SECONDARY_CAPTURE, VR::TM, &[&["0030"], &["10", "123000.5"], &["noon"], &[]]);
    some(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, &[&["+0100"], &[]]);
    more
}

/// The texts of an element, by rules of their own.
fn texts_of(vr: VR, element: &Element) -> Vec<String> {
    let mut found = Vec::new();
    let mut put = |vr: VR, value: &str| match vr {
        VR::DS | VR::IS => found.extend(value.trim().parse::<f64>().ok().map(|number| format!("n{number:?}"))),
        VR::DA => found.extend(normal_date(value).map(|date| format!("d{date}"))),
        VR::TM => found.extend(normal_time(value).map(|time| format!("m{time}"))),
        VR::PN => {
            let folded = value.to_lowercase().replace('ü', "u").replace('ö', "o");
            found.extend(folded.split('=').filter(|group| !group.is_empty()).map(|group| format!("p{group}")));
            found.push(format!("p{folded}"));
        }
        VR::LT => found.push(format!("t{}", value.trim_end())),
        _ => found.push(format!("t{}", value.trim())),
    };
    match &element.value {
        Value::Text(values) if element.vr == vr => values.iter().for_each(|value| put(vr, value)),
        Value::Bytes(bytes) => {
            let words = std::str::from_utf8(bytes).expect("ASCII");
            words.split('\\').for_each(|value| {
                put(VR::LO, value);
                put(vr, value);
            });
        }
        _ => return vec!["?".into()],
    }
    found.sort();
    found.dedup();
    found
}

type Rows = BTreeMap<(String, i64, String), i64>;

/// X-1: the rows of every index are those of the instances up to where it is filled.
fn check_rows(folder: &Path) {
    let sql = rusqlite::Connection::open(folder.join("catalog.sqlite")).expect("the database");
    let _moment = sql.unchecked_transaction().expect("a moment");
    let mut found = Rows::new();
    let rows = "SELECT i.spec, r.owner, r.value, r.n FROM extra_row r JOIN extra_index i ON i.id = r.idx WHERE i.spec IS NOT NULL";
    let mut rows = sql.prepare(rows).expect("rows");
    let mut rows = rows.query([]).expect("rows");
    while let Some(row) = rows.next().expect("a row") {
        found.insert(
            (row.get(0).expect("spec"), row.get(1).expect("owner"), row.get(2).expect("value")),
            row.get(3).expect("n"),
        );
    }
    let mut wanted = Rows::new();
    for own in pool() {
        let level = own.level.name();
        let filled = "SELECT spec, filled FROM extra_index WHERE spec LIKE '1|' || ?1 || '|' || ?2 || '|%'";
        let Ok((spec, filled)) = sql.query_row(filled, [level, own.vr.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        }) else {
            continue;
        };
        let all =
            "SELECT i.id, e.id, e.study, i.header FROM instance i JOIN series e ON e.id = i.id >> 24 WHERE i.id <= ?1";
        let mut all = sql.prepare(all).expect("instances");
        let mut all = all.query([filled]).expect("instances");
        while let Some(row) = all.next().expect("an instance") {
            let header: Vec<u8> = row.get(3).expect("a header");
            let header = zstd::bulk::decompress(&header, 1 << 20).expect("a header");
            let header = json::from_json(&header, &Limits::default()).expect("a header");
            let element = match own.attribute.to_string().as_str() {
                "KVP" => header.get(tags::KVP),
                "ImageComments" => header.get(tags::IMAGE_COMMENTS),
                "ResponsiblePerson" => header.get(tags::RESPONSIBLE_PERSON),
                "TimeOfSecondaryCapture" => header.get(tags::TIME_OF_SECONDARY_CAPTURE),
                "DateOfSecondaryCapture" => header.get(tags::DATE_OF_SECONDARY_CAPTURE),
                _ => [0x10, 0x11].into_iter().find_map(|block| {
                    let own = header.text(Tag(0x0009, block)) == Some("ACME");
                    header.get(Tag(0x0009, block << 8 | 1)).filter(|_| own)
                }),
            };
            let column = match own.level {
                Level::Instance => 0,
                Level::Series => 1,
                Level::Study | Level::Patient => 2,
            };
            let owner: i64 = row.get(column).expect("an owner");
            for text in element.map(|element| texts_of(own.vr, element)).unwrap_or_default() {
                *wanted.entry((spec.clone(), owner, text)).or_default() += 1;
            }
        }
    }
    assert_eq!(found, wanted);
}

fn any_query(chance: &mut ChaCha8Rng) -> Find {
    let level = *[Level::Patient, Level::Study, Level::Series, Level::Instance].choose(chance).expect("some");
    let mut keys = vec![ask(tags::PATIENT_ID, VR::LO)];
    for (tag, least) in [
        (tags::STUDY_INSTANCE_UID, Level::Study),
        (tags::SERIES_INSTANCE_UID, Level::Series),
        (tags::SOP_INSTANCE_UID, Level::Instance),
    ] {
        if level >= least {
            keys.push(ask(tag, VR::UI));
        }
    }
    let words: &[(Tag, VR, &[&[&str]])] = &[
        (ACME, VR::UN, &[&["7"], &["07"], &["He*"], &["Head", "8"], &["*"], &["Heel\\8"], &["7*"], &[""]]),
        (ACME, VR::LO, &[&["7"], &["He?d"], &["Head", "8"], &["*8"]]),
        (ACME, VR::IS, &[&["7"], &["8"]]),
        (tags::KVP, VR::DS, &[&["120"], &["80"], &["1.2E2", "5"], &["0080.0"]]),
        (tags::IMAGE_COMMENTS, VR::LT, &[&["good"], &["bad*"], &[" g*"], &["\"\""], &["b*", "g*"]]),
        (
            tags::RESPONSIBLE_PERSON,
            VR::PN,
            &[&["doe^jane"], &["MULLER*"], &["山田"], &["=山田"], &["Doe", "X"], &["m*=山*"], &["*e"], &["Mueller"]],
        ),
        (
            tags::DATE_OF_SECONDARY_CAPTURE,
            VR::DA,
            &[&["20200101"], &["20200102-"], &["-20201231"], &["20211231-20220101"], &["20191231"], &["20191231"]],
        ),
        (tags::TIME_OF_SECONDARY_CAPTURE, VR::TM, &[&["0030"], &["10-11"], &["-1230"], &["1430"], &["0000"]]),
    ];
    for _ in 0..chance.random_range(1..=2) {
        let (tag, vr, values) = words.choose(chance).expect("some");
        let values = values.choose(chance).expect("some");
        let key = match vr {
            VR::UN => Element { tag: *tag, vr: *vr, value: Value::Bytes(values.join("\\").into_bytes().into()) },
            _ => text(*tag, *vr, values),
        };
        keys.retain(|own| own.tag != *tag);
        keys.push(key);
    }
    if chance.random_ratio(3, 4) {
        let creator = *["ACME", "ACME", "OTHER", "AC*"].choose(chance).expect("some");
        keys.push(text(Tag(0x0009, 0x0010), VR::LO, &[creator]));
    }
    let meaning = Meaning {
        empty_values: chance.random(),
        all_values: chance.random(),
        fuzzy_names: chance.random_ratio(1, 4),
        combined_date_time: chance.random(),
        zone_minutes: chance.random_ratio(1, 5).then_some(-540),
    };
    let limit = chance.random_ratio(1, 4).then(|| chance.random_range(0..8));
    let offset = if chance.random_ratio(1, 4) { chance.random_range(0..4) } else { 0 };
    Find { meaning, limit, offset, ..query(level, &keys) }
}

fn answers(catalog: &Catalog, find: &Find) -> Vec<DataSet> {
    let mut search = Search::of(find.clone()).expect("good keys");
    let mut found = Vec::new();
    while let Some(mut page) = search.page(catalog).expect("a page") {
        found.append(&mut page);
    }
    found
}

fn export(bench: &Bench, group: GroupId) -> (Applied, Vec<Bytes>) {
    let (mut at, mut pieces) = (Applied::default(), Vec::new());
    let mut sink = |exported| {
        match exported {
            Exported::At(applied) => at = applied,
            Exported::Piece(piece) => pieces.push(piece),
        }
        ControlFlow::Continue(())
    };
    bench.catalog.export(group, &mut sink).expect("exported");
    (at, pieces)
}

fn options() -> CatalogOptions {
    CatalogOptions { fill_headers: 4, ..CatalogOptions::default() }
}

/// The files of a catalogue as a power loss leaves them: of its write-ahead log `keep` of a thousand.
fn crash_image(from: &Path, to: &Path, keep: u64) {
    fs::copy(from.join("catalog.sqlite"), to.join("catalog.sqlite")).expect("copied");
    let log = to.join("catalog.sqlite-wal");
    if fs::copy(from.join("catalog.sqlite-wal"), &log).is_ok() {
        let file = fs::OpenOptions::new().write(true).open(&log).expect("the log");
        let length = file.metadata().expect("its length").len();
        file.set_len(length * keep / 1000).expect("cut");
    }
}

/// What a crash left opens, keeps X-1, is filled to the end, and answers as without indexes.
fn check_crash(bench: &Bench, chance: &mut ChaCha8Rng) {
    let (own, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let keep = if chance.random() { 1000 } else { chance.random_range(0..1000) };
    // The log alone is cut: what was moved into the database was synced before.
    crash_image(bench.folder.path(), own.path(), keep);
    crash_image(bench.folder.path(), other.path(), keep);
    let catalog = Catalog::open(own.path(), options()).expect("opened");
    let plain = Catalog::open(other.path(), options()).expect("opened");
    plain.set_extra(&[]).expect("none");
    check_rows(own.path());
    while catalog.fill_extra().expect("filled") == FillStep::Done {
        check_rows(own.path());
    }
    assert!(catalog.extra().expect("states").iter().all(|own| own.complete && own.instances_left == 0));
    for _ in 0..4 {
        let find = any_query(chance);
        assert_eq!(answers(&catalog, &find), answers(&plain, &find), "{find:?}");
    }
}

fn any_command(chance: &mut ChaCha8Rng, at: u64) -> (GroupId, Command, u64) {
    let study = format!("1.{}", chance.random_range(0..5));
    let series = format!("{study}.{}", chance.random_range(0..3));
    let image = format!("{series}.{}", chance.random_range(0..6));
    let group = group_of(&study);
    let depth = chance.random_range(0..8);
    let target = Target {
        study: uid(&study),
        series: (depth > 0).then(|| uid(&series)),
        instance: (depth > 1).then(|| uid(&image)),
    };
    let named = || vec![(uid(&series), (0..6).map(|at| uid(&format!("{series}.{at}"))).take(1 + depth % 3).collect())];
    let command = match chance.random_range(0..20) {
        0..13 => {
            let content = chance.random();
            let set = instance(&study, &series, &image, &attributes(content));
            let mut head = head(&set, 10, content);
            head.received_unix_ms = at;
            let policy = [OtherContent::Keep, OtherContent::Reject, OtherContent::Replace, OtherContent::Replace];
            let other_content = *policy.choose(chance).expect("some");
            return (group, Command::PutSmallUnder { head, other_content }, 10);
        }
        13..16 => {
            let grounds = Grounds { reason: "r".into(), source: "s".into(), deleted_unix_ms: at };
            Command::Delete { target, grounds }
        }
        16..18 => {
            let action = if chance.random() { RejectAction::Hide } else { RejectAction::Delete };
            let again = [RejectedAgain::Keep, RejectedAgain::Refuse, RejectedAgain::Restore];
            let rejection = Rejection {
                note: [uid(&study), uid("2.9"), uid(&format!("9.{at}"))],
                code: "113001".into(),
                action,
                again: *again.choose(chance).expect("some"),
                source: "QA".into(),
                rejected_unix_ms: at,
            };
            Command::Reject { rejection, study: uid(&study), named: named() }
        }
        _ => Command::Restore { target: Target { instance: None, ..target } },
    };
    (group, command, 0)
}

fn run(seed: u64, rounds: u64) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let (mut own, mut plain) = (Bench::of(options()), Bench::of(options()));
    let mut defined: Vec<ExtraIndex> = Vec::new();
    let mut used = 0;
    for at in 0..rounds {
        match chance.random_range(0..40) {
            0..24 => {
                let (group, command, length) = any_command(&mut chance, at);
                assert_eq!(
                    own.run(group, &command, length),
                    plain.run(group, &command, length),
                    "REPRODUCE: seed {seed}"
                );
            }
            24..34 => {
                // What comes between what a step reads and what it writes.
                let late: Vec<_> = (0..chance.random_range(0..3))
                    .map(|more| any_command(&mut chance, 1_000_000 + 3 * at + more))
                    .collect();
                let late: Vec<_> = late
                    .iter()
                    .map(|(group, command, length)| {
                        plain.run(*group, command, *length);
                        own.entry(*group, command, *length)
                    })
                    .collect();
                let mut late = Some(late);
                let mut between = || drop(own.apply(&late.take().expect("once")));
                own.catalog.fill_extra_with(&mut between).expect("a step");
                if let Some(late) = late {
                    own.apply(&late);
                }
            }
            34..36 => {
                let one = pool().choose(&mut chance).expect("some").clone();
                match defined.iter().position(|own| *own == one) {
                    Some(at) => _ = defined.remove(at),
                    None => defined.push(one),
                }
                own.catalog.set_extra(&defined).expect("set");
            }
            36 => {
                let group = GroupId(chance.random_range(1..=2));
                let (at, pieces) = export(&plain, group);
                let mut pieces = pieces.into_iter();
                if at.position.is_some() {
                    own.catalog.import(group, &at, &mut || Ok(pieces.next())).expect("imported");
                    assert_eq!(export(&own, group), export(&plain, group), "no index is in what is sent");
                }
            }
            37 => own.catalog.checkpoint().expect("moved"),
            38 => own.catalog = Catalog::open(own.folder.path(), options()).expect("opened again"),
            _ => check_crash(&own, &mut chance),
        }
        check_rows(own.folder.path());
        used += own.catalog.extra().expect("states").iter().filter(|one| one.complete).count();
        let find = any_query(&mut chance);
        assert_eq!(own.find(&find), plain.find(&find), "REPRODUCE: seed {seed}, round {at}: {find:?}");
    }
    assert!(used > 0, "no index was ever complete");
}

#[test]
fn an_index_changes_no_answer_whatever_happens_while_it_is_filled() {
    for seed in 0..5 {
        run(seed, 300);
    }
}

/// One study an instance, `KVP` and a private attribute of their number.
fn studies(count: u32, options: CatalogOptions) -> Bench {
    let mut bench = Bench::of(options);
    for number in 0..count {
        let (study, series) = (format!("1.{number}"), format!("1.{number}.1"));
        let more = [
            text(tags::KVP, VR::DS, &[&(number % 500).to_string()]),
            text(Tag(0x0009, 0x0010), VR::LO, &["ACME"]),
            text(ACME, VR::LO, &[if number == 77 { "rare" } else { "often" }]),
        ];
        bench.put(&head(&instance(&study, &series, &format!("{series}.1"), &more), 10, 1));
    }
    bench
}

fn fill(bench: &Bench) -> u32 {
    let mut steps = 0;
    while bench.catalog.fill_extra().expect("a step") == FillStep::Done {
        steps += 1;
    }
    steps
}

/// 600 headers, of which a query may look into 100: without the index it is refused, and with one that is not yet full, too.
#[test]
fn a_query_beyond_the_bound_is_answered_once_its_index_is_full() {
    let bench = studies(600, CatalogOptions { query_headers_max: 100, fill_headers: 500, ..CatalogOptions::default() });
    let by = |keys: &[Element], level| {
        let mut keys = keys.to_vec();
        keys.push(ask(tags::STUDY_INSTANCE_UID, VR::UI));
        let mut search = Search::of(query(level, &keys)).expect("good keys");
        let mut found = 0;
        loop {
            match search.page(&bench.catalog) {
                Ok(Some(page)) => found += page.len(),
                Ok(None) => return Some(found),
                Err(CatalogError::TooManyHeaders { .. }) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let kvp = [text(tags::KVP, VR::DS, &["42.0"])];
    let private = |value: &str| {
        let value = Value::Bytes(value.as_bytes().to_vec().into());
        [text(Tag(0x0009, 0x0010), VR::LO, &["ACME"]), Element { tag: ACME, vr: VR::UN, value }]
    };
    let levels = [Level::Study, Level::Series, Level::Instance];
    assert!(levels.iter().all(|level| by(&kvp, *level).is_none()));
    let both = [index("KVP", VR::DS, Level::Series), index("(0009,\"ACME\",01)", VR::LO, Level::Study)];
    bench.catalog.set_extra(&both).expect("set");
    let left = |bench: &Bench| bench.catalog.extra().expect("states")[0].instances_left;
    assert_eq!(left(&bench), 600);
    bench.catalog.fill_extra().expect("a step");
    assert_eq!((left(&bench), by(&kvp, Level::Study)), (350, None), "not full");
    assert_eq!(fill(&bench), 2);
    assert_eq!(left(&bench), 0);
    assert!(levels.iter().all(|level| by(&kvp, *level) == Some(2)));
    assert!(levels.iter().all(|level| by(&private("rare"), *level) == Some(1)));
    assert!(levels.iter().all(|level| by(&private("often"), *level) == Some(599)), "answers are no look in vain");
    assert!(levels.iter().all(|level| by(&private("no*ne"), *level) == Some(0)));
    assert_eq!(by(&kvp, Level::Patient), Some(2), "each without an ID is one");
    bench.catalog.set_extra(&both[1..]).expect("set");
    assert_eq!(by(&kvp, Level::Study), None, "it is removed");
    fill(&bench);
    check_removed(&bench);
}

fn check_removed(bench: &Bench) {
    let count = |sql: &str| -> i64 { bench.sql().query_row(sql, [], |row| row.get(0)).expect("a count") };
    assert_eq!(count("SELECT count(*) FROM extra_index"), 1);
    assert_eq!(count("SELECT count(*) FROM extra_row WHERE value LIKE 'n%'"), 0);
    assert_eq!(count("SELECT count(*) FROM extra_row"), 600);
}

/// Each step is a crash point: from what was on the disk there, the next start ends the fill.
#[test]
fn a_crash_in_the_midst_of_the_fill_loses_and_doubles_nothing() {
    let bench = studies(40, CatalogOptions { fill_headers: 7, ..CatalogOptions::default() });
    bench.catalog.set_extra(&[index("KVP", VR::DS, Level::Series)]).expect("set");
    let mut images = Vec::new();
    loop {
        for keep in [1000, 995, 900, 500] {
            let folder = tempfile::tempdir().expect("a folder");
            crash_image(bench.folder.path(), folder.path(), keep);
            images.push((keep, folder));
        }
        if bench.catalog.fill_extra().expect("a step") == FillStep::Idle {
            break;
        }
    }
    assert_eq!(images.len(), 4 * 7);
    let mut midst = 0;
    for (keep, folder) in images {
        let catalog = Catalog::open(folder.path(), options()).expect("opened");
        check_rows(folder.path());
        let states = catalog.extra().expect("states");
        midst += usize::from(states.iter().any(|state| (1..40).contains(&state.instances_left)));
        while catalog.fill_extra().expect("a step") == FillStep::Done {}
        check_rows(folder.path());
        if keep == 1000 {
            let sql = rusqlite::Connection::open(folder.path().join("catalog.sqlite")).expect("the database");
            let rows: (i64, i64) = sql
                .query_row("SELECT count(*), sum(n) FROM extra_row", [], |row| Ok((row.get(0)?, row.get(1)?)))
                .expect("rows");
            assert_eq!(rows, (40, 40));
        }
    }
    assert!(midst > 5, "{midst} images of a fill under way");
}
