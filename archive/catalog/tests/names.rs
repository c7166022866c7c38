//! Fuzzy matching of person names adds to what matches without, and takes nothing away; and what it costs.

mod support;

use archive_catalog::{CatalogOptions, ExtraIndex, FillStep, Find, Level};
use archive_model::{
    VR,
    matching::{Meaning, sound},
    tags,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use support::{Bench, ask, head, instance, query, text};

const SYLLABLES: &[&str] = &[
    "mei", "mai", "er", "schm", "idt", "itt", "ph", "il", "ip", "wla", "di", "mir", "Mü", "lle", "r", "ò", "ss", "kn",
    "ut", "zei", "ce",
];

fn word(chance: &mut ChaCha8Rng) -> String {
    let count = chance.random_range(1..=3);
    let parts: Vec<&str> = (0..count).map(|_| *SYLLABLES.choose(chance).expect("some")).collect();
    parts.concat()
}

fn name(chance: &mut ChaCha8Rng) -> String {
    let mut name = word(chance);
    if chance.random_ratio(2, 3) {
        name += &format!("^{}", word(chance));
    }
    if chance.random_ratio(1, 6) {
        name += *["=山田^太郎", "==やまだ", "=山田=やまだ^たろう"].choose(chance).expect("some");
    }
    name
}

/// A name, a part of one, or a pattern.
fn key(chance: &mut ChaCha8Rng) -> String {
    let whole = name(chance);
    match chance.random_range(0..8) {
        0..3 => whole,
        3 => format!("{}*", whole.chars().take(2).collect::<String>()),
        4 => format!("*{}", whole.chars().skip(2).collect::<String>()),
        5 => whole.chars().enumerate().map(|(at, char)| if at == 1 { '?' } else { char }).collect(),
        6 => whole.replace('^', " "),
        _ => (*["山田", "=山田", "*=*", "山*", "やまだ^た*", "*"].choose(chance).expect("some")).to_owned(),
    }
}

#[test]
fn what_matches_without_fuzzy_matches_with_it() {
    let mut chance = ChaCha8Rng::seed_from_u64(20);
    let mut bench = Bench::new();
    for number in 0..400 {
        let study = format!("1.{number}");
        let names: Vec<String> =
            (0..if chance.random_ratio(1, 9) { 2 } else { 1 }).map(|_| name(&mut chance)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let operator = name(&mut chance);
        let more = [
            text(tags::PATIENT_NAME, VR::PN, &names),
            text(tags::OPERATORS_NAME, VR::PN, &[&operator]),
            text(tags::RESPONSIBLE_PERSON, VR::PN, &[&operator]),
        ];
        bench.put(&head(&instance(&study, &format!("{study}.1"), &format!("{study}.1.1"), &more), 10, 1));
    }
    let (mut same, mut more) = (0, 0);
    for _ in 0..400 {
        let levels = [Level::Patient, Level::Study, Level::Series, Level::Instance];
        let level = *levels.choose(&mut chance).expect("some");
        let tag = match level {
            Level::Patient | Level::Study => tags::PATIENT_NAME,
            _ => {
                *[tags::PATIENT_NAME, tags::OPERATORS_NAME, tags::RESPONSIBLE_PERSON].choose(&mut chance).expect("some")
            }
        };
        let words: Vec<String> = (0..if chance.random_ratio(1, 5) { 2 } else { 1 }).map(|_| key(&mut chance)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let all_values = chance.random();
        let find = |fuzzy_names| {
            let meaning = Meaning { fuzzy_names, all_values, ..Meaning::default() };
            let keys =
                [text(tag, VR::PN, &words), ask(tags::STUDY_INSTANCE_UID, VR::UI), ask(tags::PATIENT_NAME, VR::PN)];
            let own = keys.iter().filter(|key| key.tag != tag || key.value != archive_model::Value::Empty);
            let find = Find { meaning, ..query(level, &own.cloned().collect::<Vec<_>>()) };
            let found = bench.find(&find);
            found.iter().map(|answer| format!("{answer:?}")).collect::<BTreeSet<_>>()
        };
        let (without, with) = (find(false), find(true));
        assert!(
            without.is_subset(&with),
            "{words:?} at {level:?}: {} of {} are lost",
            without.difference(&with).count(),
            without.len()
        );
        same += usize::from(!without.is_empty());
        more += usize::from(with.len() > without.len());
    }
    assert!(same > 50 && more > 50, "{same} keys found something, {more} more of it by sound");
    assert_eq!(sound("meier"), sound("mayr"));
}

/// Nanoseconds that this thread has run.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|text| text.parse().ok()).expect("a number")
}

/// `cargo test -p archive-catalog --test names -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: 20,000 studies"]
fn what_names_and_indexes_cost_over_20_000_studies() {
    let mut chance = ChaCha8Rng::seed_from_u64(1);
    let mut bench = Bench::of(CatalogOptions { query_headers_max: 1_000_000, ..CatalogOptions::default() });
    let mut put = |bench: &mut Bench, first: u32, count: u32| {
        let heads: Vec<_> = (first..first + count)
            .map(|number| {
                let study = format!("1.2.840.999.{number}");
                let mut more = vec![
                    text(tags::PATIENT_NAME, VR::PN, &[&format!("{}{}", name(&mut chance), word(&mut chance))]),
                    text(tags::PATIENT_ID, VR::LO, &[&format!("P{number}")]),
                    text(tags::STUDY_DATE, VR::DA, &["20240101"]),
                    text(tags::KVP, VR::DS, &[&(number % 5_000).to_string()]),
                ];
                // A header of about 3 KB, as those of a CT.
                more.extend((0..40).map(|at| {
                    text(archive_model::Tag(0x0011, 0x1000 + at), VR::LO, &[&format!("value {at} of {number}")])
                }));
                head(&instance(&study, &format!("{study}.1"), &format!("{study}.1.1"), &more), 10, 1)
            })
            .collect();
        let begun = cpu_ns();
        heads.iter().for_each(|head| _ = bench.put(head));
        (cpu_ns() - begun) as f64 / 1e3 / f64::from(count)
    };
    let plain = put(&mut bench, 0, 20_000);
    let cost = |bench: &Bench, tag, vr, value: &str, fuzzy_names| {
        let keys = [text(tag, vr, &[value]), ask(tags::STUDY_INSTANCE_UID, VR::UI)];
        let find = Find { meaning: Meaning { fuzzy_names, ..Meaning::default() }, ..query(Level::Study, &keys) };
        let found = bench.find(&find).len();
        let begun = cpu_ns();
        (0..10).for_each(|_| drop(bench.find(&find)));
        (found, (cpu_ns() - begun) as f64 / 1e7)
    };
    for (value, fuzzy) in
        [("meier^schmidt", false), ("meier^schmidt", true), ("mei*", false), ("mei*", true), ("phil wladimir", true)]
    {
        let (found, ms) = cost(&bench, tags::PATIENT_NAME, VR::PN, value, fuzzy);
        println!("PatientName={value} fuzzy={fuzzy}: {found} answers, {ms:.2} ms of CPU");
    }
    let (found, ms) = cost(&bench, tags::KVP, VR::DS, "77", false);
    println!("KVP=77 without an index: {found} answers, {ms:.2} ms of CPU");
    let kvp = ExtraIndex { attribute: "KVP".parse().expect("known"), vr: VR::DS, level: Level::Series };
    bench.catalog.set_extra(&[kvp]).expect("set");
    let (begun, mut steps) = (cpu_ns(), 0);
    while bench.catalog.fill_extra().expect("a step") == FillStep::Done {
        steps += 1;
    }
    let fill_ms = (cpu_ns() - begun) as f64 / 1e6;
    println!("fill: {steps} steps, {:.2} ms each, {:.1} us an instance", fill_ms / f64::from(steps), fill_ms / 20.0);
    let (found, ms) = cost(&bench, tags::KVP, VR::DS, "77", false);
    println!("KVP=77 by the index: {found} answers, {ms:.2} ms of CPU");
    let indexed = put(&mut bench, 20_000, 5_000);
    println!("apply of one instance: {plain:.0} us without an index, {indexed:.0} us with one");
}
