//! The catalogue against a list of instances that is searched by brute force: random commands, random queries, one seed.
//!
//! On the way the batches themselves are doubted: the same entries given twice, and cut otherwise, make the same rows.

mod support;

use archive_catalog::{
    Admission, BlockPart, Command, Find, Grounds, InstanceHead, KEYS, Level, OtherContent, Outcome, RefusedWhy,
    Selection, Target, sabotage::Sabotage,
};
use archive_model::{
    CanonicalDigest, DataSet, Element, Tag, Uid, VR, Value, json,
    matching::{Pattern, comparable, normal_date, normal_time},
    tags,
};
use raft_types::{Committed, GroupId};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{cmp::Reverse, collections::BTreeMap};
use support::{Bench, ask, block, group_of, head, instance, query, text, upload};

/// One content of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    number: u8,
    length_bytes: u64,
    received_ms: u64,
    /// What it has in common with those that differ in padding alone; none in what was stored before that was looked at.
    canonical: Option<u8>,
}

impl Content {
    fn is_alike(self, other: Self) -> bool {
        self.canonical.is_some() && self.canonical == other.canonical
    }
}

/// An instance as the model knows it.
struct Kept {
    study: String,
    series: String,
    instance: String,
    /// The attributes of what the UID answers.
    set: DataSet,
    /// What the UID answers, then its versions by number.
    contents: Vec<Content>,
}

#[derive(Default)]
struct Model {
    instances: Vec<Kept>,
    /// What a study is, and what a series is, its first instance said, also when that one is deleted: by study, and by
    /// study and series.
    firsts: BTreeMap<(String, Option<String>), DataSet>,
    /// Contents that were deleted: a copy of the store that brought one changes nothing.
    deleted: Vec<(GroupId, u8, u64)>,
    uploads: BTreeMap<u8, (GroupId, Vec<BlockPart>)>,
    ended: Vec<u8>,
}

/// By what a copy of a store is known.
fn deleted_key(study: &str, content: Content) -> (GroupId, u8, u64) {
    (group_of(study), content.number, content.received_ms)
}

impl Model {
    fn admit(&mut self, set: &DataSet, content: Content, policy: OtherContent) -> Outcome {
        let uid = |tag| set.text(tag).unwrap_or_default().to_owned();
        let (study, series) = (uid(tags::STUDY_INSTANCE_UID), uid(tags::SERIES_INSTANCE_UID));
        let instance = uid(tags::SOP_INSTANCE_UID);
        let known =
            self.instances.iter_mut().find(|k| (&k.study, &k.series, &k.instance) == (&study, &series, &instance));
        Outcome::Stored(match known {
            Some(known) if known.contents.iter().any(|kept| kept.number == content.number) => Admission::Same,
            Some(known) if known.contents.iter().any(|kept| kept.is_alike(content)) => Admission::Alike,
            _ if self.deleted.contains(&deleted_key(&study, content)) => {
                return Outcome::Refused(RefusedWhy::Deleted);
            }
            Some(_) if policy == OtherContent::Reject => return Outcome::Refused(RefusedWhy::OtherContent),
            Some(known) => {
                let number = u32::try_from(known.contents.len()).expect("few");
                if policy == OtherContent::Replace {
                    let before = std::mem::replace(&mut known.contents[0], content);
                    known.contents.push(before);
                    known.set = set.clone();
                    Admission::Replaced { number }
                } else {
                    known.contents.push(content);
                    Admission::Version { number }
                }
            }
            None => {
                self.firsts.entry((study.clone(), None)).or_insert_with(|| set.clone());
                self.firsts.entry((study.clone(), Some(series.clone()))).or_insert_with(|| set.clone());
                self.instances.push(Kept { study, series, instance, set: set.clone(), contents: vec![content] });
                Admission::New
            }
        })
    }

    fn delete(&mut self, target: &Target) -> Outcome {
        let named = |kept: &Kept| {
            kept.study == target.study.as_str()
                && target.series.as_ref().is_none_or(|series| kept.series == series.as_str())
                && target.instance.as_ref().is_none_or(|instance| kept.instance == instance.as_str())
        };
        let gone: Vec<Kept> = self.instances.extract_if(.., |kept| named(kept)).collect();
        let left = &self.instances;
        self.firsts.retain(|(study, series), _| {
            left.iter().any(|kept| kept.study == *study && series.as_ref().is_none_or(|series| kept.series == *series))
        });
        let contents = || gone.iter().flat_map(|kept| kept.contents.iter().map(|content| (&kept.study, *content)));
        self.deleted.extend(contents().map(|(study, content)| deleted_key(study, content)));
        let bytes = contents().map(|(_, content)| content.length_bytes).sum();
        Outcome::Deleted { instances: gone.len() as u64, bytes }
    }

    /// The first instance of a study, which says what the study is.
    fn study(&self, uid: &str) -> &DataSet {
        &self.firsts[&(uid.to_owned(), None)]
    }

    fn first_of_series(&self, kept: &Kept) -> &DataSet {
        &self.firsts[&(kept.study.clone(), Some(kept.series.clone()))]
    }

    /// ID, issuer, and the study of those who have no ID.
    fn patient(&self, study: &str) -> (String, String, String) {
        let of = |tag| comparable(VR::LO, self.study(study).text(tag).unwrap_or_default());
        let id = of(tags::PATIENT_ID);
        let study = if id.is_empty() { study.to_owned() } else { String::new() };
        (id, of(tags::ISSUER_OF_PATIENT_ID), study)
    }

    /// Everything known of one row of `level`, made from an instance below it.
    fn row(&self, level: Level, kept: &Kept) -> DataSet {
        let own = self.patient(&kept.study);
        let of_patient: Vec<&Kept> = self.instances.iter().filter(|kept| self.patient(&kept.study) == own).collect();
        let of_study: Vec<&&Kept> = of_patient.iter().filter(|other| other.study == kept.study).collect();
        let of_series = of_study.iter().filter(|other| other.series == kept.series).count();
        // A patient is what its study with the least UID says.
        let least = of_patient.iter().map(|kept| &kept.study).min().expect("a study");
        let patient = self.study(if level == Level::Patient { least } else { &kept.study });
        let mut row = DataSet::new();
        for (own, source) in [
            (Level::Patient, patient),
            (Level::Study, self.study(&kept.study)),
            (Level::Series, self.first_of_series(kept)),
            (Level::Instance, &kept.set),
        ] {
            for key in KEYS.iter().filter(|key| key.level == own && own <= level) {
                if let Some(element) = source.get(key.tag) {
                    row.put(element.clone());
                }
            }
        }
        if level == Level::Instance {
            let indexed = |tag| KEYS.iter().any(|key| key.tag == tag);
            kept.set.iter().filter(|element| !indexed(element.tag)).for_each(|element| row.put(element.clone()));
        }
        let distinct = |uids: Vec<&String>| uids.into_iter().collect::<std::collections::BTreeSet<_>>().len();
        let mut count = |tag, number: usize| row.put(text(tag, VR::IS, &[&number.to_string()]));
        count(tags::NUMBER_OF_PATIENT_RELATED_STUDIES, distinct(of_patient.iter().map(|kept| &kept.study).collect()));
        let series = of_patient.iter().map(|kept| format!("{} {}", kept.study, kept.series)).collect::<Vec<_>>();
        count(tags::NUMBER_OF_PATIENT_RELATED_SERIES, distinct(series.iter().collect()));
        count(tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, of_patient.len());
        if level >= Level::Study {
            count(tags::NUMBER_OF_STUDY_RELATED_SERIES, distinct(of_study.iter().map(|kept| &kept.series).collect()));
            count(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, of_study.len());
            let mut modalities: Vec<String> = of_study
                .iter()
                .flat_map(|kept| self.first_of_series(kept).texts(tags::MODALITY))
                .map(|modality| modality.trim().to_owned())
                .filter(|modality| !modality.is_empty())
                .collect();
            modalities.sort_unstable();
            modalities.dedup();
            let value = if modalities.is_empty() { Value::Empty } else { Value::Text(modalities) };
            row.put(Element { tag: tags::MODALITIES_IN_STUDY, vr: VR::CS, value });
        }
        if level >= Level::Series {
            let count = of_series.to_string();
            row.put(text(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, &[&count]));
        }
        row
    }

    /// All rows of a level in order, each once.
    fn rows(&self, level: Level) -> Vec<DataSet> {
        let number = |set: &DataSet, tag| {
            let number: Option<i64> = set.text(tag).and_then(|text| text.trim().parse().ok());
            (number.is_none(), number)
        };
        let series = |kept: &Kept| {
            let number = number(self.first_of_series(kept), tags::SERIES_NUMBER);
            format!("{:?}", (&kept.study, number.0, 5000 + number.1.unwrap_or_default(), &kept.series))
        };
        let mut rows: BTreeMap<(Reverse<String>, String), DataSet> = BTreeMap::new();
        for kept in &self.instances {
            let study = self.study(&kept.study);
            let moment = |tag, normal: fn(&str) -> Option<String>| {
                format!("{:<12}", study.text(tag).and_then(normal).unwrap_or_default())
            };
            let key = match level {
                Level::Patient => (Reverse(String::new()), format!("{:?}", self.patient(&kept.study))),
                Level::Study => {
                    let date = moment(tags::STUDY_DATE, normal_date) + &moment(tags::STUDY_TIME, normal_time);
                    (Reverse(date), kept.study.clone())
                }
                Level::Series => (Reverse(String::new()), series(kept)),
                Level::Instance => {
                    let number = number(&kept.set, tags::INSTANCE_NUMBER);
                    let own = (number.0, 5000 + number.1.unwrap_or_default(), &kept.instance);
                    (Reverse(String::new()), format!("{}{own:?}", series(kept)))
                }
            };
            rows.entry(key).or_insert_with(|| self.row(level, kept));
        }
        rows.into_values().collect()
    }

    fn find(&self, find: &Find) -> Vec<DataSet> {
        let matches = |row: &DataSet| {
            find.keys.iter().all(|key| Pattern::of(key, &find.meaning).expect("a good key").matches(row.get(key.tag)))
        };
        let answer = |row: DataSet| -> DataSet {
            let known = |key: &Element| row.get(key.tag).cloned();
            find.keys.iter().map(|key| known(key).unwrap_or_else(|| ask(key.tag, key.vr))).collect()
        };
        let all = self.rows(find.level).into_iter().filter(matches);
        let some = all.skip(usize::try_from(find.offset).expect("small"));
        some.take(find.limit.map_or(usize::MAX, |limit| usize::try_from(limit).expect("small"))).map(answer).collect()
    }
}

/// An attribute, values that instances have, and values that keys have.
type Words = (Tag, VR, &'static [&'static [&'static str]], &'static [&'static str]);

const WORDS: &[Words] = &[
    (tags::PATIENT_ID, VR::LO, &[&[], &["7"], &[" 7"], &["70"], &["7", "8"]], &["7", "7*", "?", "8", "\"\""]),
    (
        tags::PATIENT_NAME,
        VR::PN,
        &[&["Doe^Jane"], &["Müller^Jörg"], &["Doe^Jane", "Roe"], &["Yamada=山田"], &[]],
        &["doe*", "DOE^JANE", "Muller*", "roe", "山田", "*e", "\"\""],
    ),
    (
        tags::STUDY_DATE,
        VR::DA,
        &[&["20200101"], &["20210101"], &["20200101", "20220101"], &["2020.01.02"], &[], &["soon"]],
        &["20200101", "20210101-", "-20200102", "20200102-20211231", "\"\""],
    ),
    (tags::STUDY_TIME, VR::TM, &[&["10"], &["101500.5"], &[]], &["10", "1000-1100", "11-"]),
    (tags::ACCESSION_NUMBER, VR::SH, &[&["A1"], &["A2 "], &["A1", "B"], &[]], &["A1", "A*", "B", "*1"]),
    (tags::MODALITY, VR::CS, &[&["CT"], &["MR"], &["PT", "CT"], &[]], &["CT", "M?", "PT"]),
    (tags::SERIES_NUMBER, VR::IS, &[&["1"], &["2"], &["10"], &["-1"], &[]], &["1", "10"]),
    (tags::INSTANCE_NUMBER, VR::IS, &[&["1"], &["2"], &[" 3"], &[]], &["1", "3"]),
    (tags::IMAGE_TYPE, VR::CS, &[&["ORIGINAL", "AXIAL"], &["DERIVED"], &[]], &["AXIAL", "D*", "\"\""]),
    // Not in the index: looked for in the header.
    (tags::IMAGE_COMMENTS, VR::LT, &[&["good"], &["bad"], &[]], &["good", "b*"]),
];

fn data_set(chance: &mut ChaCha8Rng) -> DataSet {
    let mut more = Vec::new();
    for (tag, vr, values, _) in WORDS {
        let values = values.choose(chance).expect("some");
        if !values.is_empty() {
            more.push(text(*tag, *vr, values));
        } else if chance.random() {
            more.push(ask(*tag, *vr));
        }
    }
    let study = chance.random_range(0..9);
    let series = format!("1.{study}.{}", chance.random_range(0..3));
    let uid = format!("{series}.{}", chance.random_range(0..6));
    instance(&format!("1.{study}"), &series, &uid, &more)
}

fn any_query(chance: &mut ChaCha8Rng) -> Find {
    let level = [Level::Patient, Level::Study, Level::Series, Level::Instance][chance.random_range(0..4)];
    let level_of = |tag| KEYS.iter().find(|key| key.tag == tag).map_or(Level::Instance, |key| key.level);
    let mut keys = Vec::new();
    for (tag, vr, _, values) in WORDS.iter().filter(|(tag, ..)| level_of(*tag) <= level) {
        match chance.random_range(0..8) {
            0 => keys.push(text(*tag, *vr, &[values.choose(chance).expect("some")])),
            1 if !values.contains(&"\"\"") => {
                keys.push(text(
                    *tag,
                    *vr,
                    &[values.choose(chance).expect("some"), values.choose(chance).expect("some")],
                ));
            }
            _ => keys.push(ask(*tag, *vr)),
        }
    }
    for (tag, vr, least) in [
        (tags::NUMBER_OF_PATIENT_RELATED_STUDIES, VR::IS, Level::Patient),
        (tags::NUMBER_OF_PATIENT_RELATED_SERIES, VR::IS, Level::Patient),
        (tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, VR::IS, Level::Patient),
        (tags::STUDY_INSTANCE_UID, VR::UI, Level::Study),
        (tags::NUMBER_OF_STUDY_RELATED_SERIES, VR::IS, Level::Study),
        (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, Level::Study),
        (tags::SERIES_INSTANCE_UID, VR::UI, Level::Series),
        (tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, Level::Series),
        (tags::SOP_INSTANCE_UID, VR::UI, Level::Instance),
    ] {
        if least <= level {
            keys.push(ask(tag, vr));
        }
    }
    if level >= Level::Study {
        let wanted = ["CT", "PT", "M*"].choose(chance).expect("some");
        let modalities = if chance.random_ratio(1, 4) {
            text(tags::MODALITIES_IN_STUDY, VR::CS, &[wanted])
        } else {
            ask(tags::MODALITIES_IN_STUDY, VR::CS)
        };
        keys.push(modalities);
        if chance.random_ratio(1, 6) {
            let uids = [chance.random_range(0..9), chance.random_range(0..9)].map(|study| format!("1.{study}"));
            keys.retain(|key| key.tag != tags::STUDY_INSTANCE_UID);
            keys.push(text(tags::STUDY_INSTANCE_UID, VR::UI, &[&uids[0], &uids[1]]));
        }
    }
    let limit = chance.random::<bool>().then(|| chance.random_range(0..6));
    Find { limit, offset: chance.random_range(0..3), ..query(level, &keys) }
}

/// The next command with what the model answers; the entry is already numbered.
fn any_command(chance: &mut ChaCha8Rng, bench: &mut Bench, model: &mut Model) -> (Committed, Outcome) {
    let number: u8 = chance.random_range(0..4);
    // 0 and 1 are alike, and so are 2 and 3; each comes with and without its canonical digest.
    let canonical = chance.random_ratio(2, 3).then_some(number / 2);
    let content = Content { number, length_bytes: 10, received_ms: chance.random_range(0..2), canonical };
    let set = data_set(chance);
    let group = group_of(set.text(tags::STUDY_INSTANCE_UID).expect("a study"));
    let known = model.instances.choose(chance).map(|kept| kept.set.clone());
    let policies = [OtherContent::Keep, OtherContent::Keep, OtherContent::Reject, OtherContent::Replace];
    let policy = *policies.choose(chance).expect("some");
    match chance.random_range(0..14) {
        12 => {
            let Some(set) = known else { return (bench.entry(group, &Command::Noop, 0), Outcome::Nothing) };
            let depth = chance.random_range(0..3);
            // Sometimes one that is not there.
            let absent = chance.random_ratio(1, 6);
            let uid = |tag, depth_of| {
                let text = if absent && depth == depth_of { "1.99" } else { set.text(tag).unwrap_or_default() };
                Uid::parse(text).expect("a UID")
            };
            let study = uid(tags::STUDY_INSTANCE_UID, 0);
            let series = (depth > 0).then(|| uid(tags::SERIES_INSTANCE_UID, 1));
            let instance = (depth > 1).then(|| uid(tags::SOP_INSTANCE_UID, 2));
            let target = Target { study, series, instance };
            let group = group_of(target.study.as_str());
            let outcome = model.delete(&target);
            let grounds = Grounds { reason: "test".into(), source: "here".into(), deleted_unix_ms: 1 };
            (bench.entry(group, &Command::Delete { target, grounds }, 0), outcome)
        }
        0..=4 => put(bench, group, (head_of(&set, content), policy), model.admit(&set, content, policy)),
        // The same UIDs again, with a content that may be the same.
        5..=6 => {
            let mut set = known.unwrap_or(set);
            set.put(text(tags::IMAGE_COMMENTS, VR::LT, &[["good", "bad"][usize::from(content.number) % 2]]));
            let group = group_of(set.text(tags::STUDY_INSTANCE_UID).expect("a study"));
            put(bench, group, (head_of(&set, content), policy), model.admit(&set, content, policy))
        }
        7 => {
            let entry = bench.entry(group, &Command::PutSmall { head: head(&set, 11, content.number) }, 10);
            (entry, Outcome::Refused(RefusedWhy::LengthMismatch))
        }
        8..=9 => {
            let number = chance.random_range(0..40);
            let own = model.uploads.get(&number).map_or(group, |(group, _)| *group);
            let (index, (_, held)) = (bench.next_index(own), model.uploads.entry(number).or_insert((own, Vec::new())));
            let again = !held.is_empty() && chance.random();
            let seq = if again { 0 } else { held.len() };
            let command = Command::Block { upload: upload(number), seq: u32::try_from(seq).expect("few") };
            let outcome = if model.ended.contains(&number) {
                Outcome::Refused(RefusedWhy::BlockMissing)
            } else if again {
                Outcome::Held { index: held[0].index }
            } else {
                held.push(block(index, 5));
                Outcome::Held { index }
            };
            (bench.entry(own, &command, 5), outcome)
        }
        10 => {
            let Some((&number, (group, held))) = model.uploads.iter().next() else {
                return (bench.entry(group, &Command::Noop, 0), Outcome::Nothing);
            };
            let (group, mut blocks) = (*group, held.clone());
            // A study of the group in which the blocks lie.
            let set = (0..).map(|_| data_set(chance));
            let study = |set: &DataSet| set.text(tags::STUDY_INSTANCE_UID).map(group_of);
            let set = set.into_iter().find(|set| study(set) == Some(group)).expect("one of two groups");
            let whole = model.ended.contains(&number) || chance.random_ratio(1, 4);
            if whole {
                blocks.push(block(1, 5));
            }
            let missing = *held != blocks || (model.ended.contains(&number) && !blocks.is_empty());
            let content = Content { length_bytes: 5 * blocks.len() as u64, ..content };
            let head = head_of(&set, content);
            let outcome = match model.would_be(&set, content) {
                Some(same) => same,
                None if model.deleted.contains(&deleted_key(head.study.as_str(), content)) => {
                    Outcome::Refused(RefusedWhy::Deleted)
                }
                None if policy == OtherContent::Reject && model.knows(&set) => {
                    Outcome::Refused(RefusedWhy::OtherContent)
                }
                None if missing => Outcome::Refused(RefusedWhy::BlockMissing),
                None => model.admit(&set, content, policy),
            };
            model.end(number);
            (bench.entry(group, &Command::commit(upload(number), head, blocks, policy), 0), outcome)
        }
        _ => {
            let number = chance.random_range(0..40);
            let own = model.uploads.get(&number).map_or(group, |(group, _)| *group);
            // Also uploads that were never begun: a block of theirs may be behind.
            model.uploads.entry(number).or_insert((own, Vec::new()));
            model.end(number);
            (bench.entry(own, &Command::Abort { uploads: vec![upload(number)] }, 0), Outcome::Aborted)
        }
    }
}

fn head_of(set: &DataSet, content: Content) -> InstanceHead {
    let canonical = content.canonical.map(|number| CanonicalDigest::of_digest([number; 32]));
    let head = head(set, content.length_bytes, content.number);
    InstanceHead { received_unix_ms: content.received_ms, canonical, ..head }
}

fn put(
    bench: &mut Bench,
    group: GroupId,
    (head, policy): (InstanceHead, OtherContent),
    outcome: Outcome,
) -> (Committed, Outcome) {
    (bench.entry(group, &Command::put_small(head, policy), 10), outcome)
}

impl Model {
    /// `Same`, if that is what it is: then the blocks are not asked for.
    fn would_be(&self, set: &DataSet, content: Content) -> Option<Outcome> {
        let uid = set.text(tags::SOP_INSTANCE_UID);
        let known = self.instances.iter().find(|kept| Some(&*kept.instance) == uid)?;
        if known.contents.iter().any(|kept| kept.number == content.number) {
            return Some(Outcome::Stored(Admission::Same));
        }
        known.contents.iter().any(|kept| kept.is_alike(content)).then_some(Outcome::Stored(Admission::Alike))
    }

    fn knows(&self, set: &DataSet) -> bool {
        let uid = set.text(tags::SOP_INSTANCE_UID);
        self.instances.iter().any(|kept| Some(&*kept.instance) == uid)
    }

    /// Every content is where its UID and number say, and all of them are counted.
    fn holds_in(&self, bench: &Bench) {
        for kept in &self.instances {
            let uid = |text: &str| Uid::parse(text).expect("a UID");
            let selection = Selection {
                studies: vec![uid(&kept.study)],
                instances: vec![uid(&kept.instance)],
                ..Selection::default()
            };
            let rows = bench.catalog.instances(&selection).expect("rows");
            let [row] = rows.as_slice() else { panic!("{}: {} rows", kept.instance, rows.len()) };
            let versions = bench.catalog.versions(&uid(&kept.study), None, 1000).expect("versions");
            let versions: Vec<_> = versions.iter().map(|version| &version.row).filter(|own| own.id == row.id).collect();
            let numbers: Vec<u32> = versions.iter().map(|row| row.version).collect();
            let all = std::iter::once(row).chain(versions);
            let found: Vec<(u8, u64)> = all.map(|row| (row.digest[0], row.length_bytes)).collect();
            let wanted: Vec<_> = kept.contents.iter().map(|content| (content.number, content.length_bytes)).collect();
            assert_eq!(found, wanted, "the contents of {}", kept.instance);
            assert_eq!(numbers, (1..=row.versions).collect::<Vec<_>>(), "the numbers of the versions");
        }
        let current = self.instances.iter().map(|kept| kept.contents[0].length_bytes).sum::<u64>();
        let all =
            self.instances.iter().flat_map(|kept| &kept.contents).map(|content| content.length_bytes).sum::<u64>();
        let sum = |sql: &str| -> i64 { bench.sql().query_row(sql, [], |row| row.get(0)).expect("a sum") };
        assert_eq!(sum("SELECT coalesce(sum(bytes), 0) FROM study").unsigned_abs(), current, "bytes of all studies");
        assert_eq!(bench.catalog.totals().expect("totals").bytes, all, "bytes of all contents");
    }

    fn end(&mut self, number: u8) {
        self.ended.push(number);
        if let Some((_, held)) = self.uploads.get_mut(&number) {
            held.clear();
        }
    }
}

fn run(seed: u64, sabotage: Option<Sabotage>) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let (mut bench, mut model) = (Bench::with(sabotage), Model::default());
    let (mut all, mut batch, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..120 {
        let (entry, outcome) = any_command(&mut chance, &mut bench, &mut model);
        all.push(entry.clone());
        batch.push(entry);
        expected.push(outcome);
        if chance.random_ratio(2, 3) {
            continue;
        }
        assert_eq!(bench.apply(&batch), expected, "outcomes of a batch");
        if chance.random_ratio(1, 4) {
            let before = bench.dump();
            assert!(bench.apply(&batch).iter().all(|outcome| *outcome == Outcome::Nothing));
            assert_eq!(bench.dump(), before, "what was applied twice counts once");
        }
        (batch, expected) = (Vec::new(), Vec::new());
        let find = any_query(&mut chance);
        let (found, wanted) = (bench.find(&find), model.find(&find));
        let keys = String::from_utf8_lossy(&json::to_json(&find.keys, &json::no_bulk)).into_owned();
        assert!(found == wanted, "{:?} {keys}: {}", find.level, shown(&found, &wanted));
    }
    assert_eq!(bench.apply(&batch), expected, "outcomes of the last batch");
    model.holds_in(&bench);
    let totals = bench.catalog.totals().expect("totals");
    let versions: usize = model.instances.iter().map(|kept| kept.contents.len() - 1).sum();
    let counts = [totals.studies, totals.series, totals.instances, totals.patients, totals.versions];
    let rows = |level| model.rows(level).len();
    let wanted = [rows(Level::Study), rows(Level::Series), rows(Level::Instance), rows(Level::Patient), versions];
    assert_eq!(counts.map(|count| usize::try_from(count).expect("small")), wanted);

    // Another node: the same entries, cut otherwise.
    let other = Bench::with(sabotage);
    while !all.is_empty() {
        let rest = all.split_off(chance.random_range(1..=all.len().min(40)));
        other.apply(&all);
        all = rest;
    }
    assert_eq!(other.dump(), bench.dump(), "two nodes that applied the same entries");
}

/// The first answers that differ.
fn shown(found: &[DataSet], wanted: &[DataSet]) -> String {
    let at = found.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
    let json = |answers: &[DataSet]| {
        let json = answers.get(at).map(|answer| json::to_json(answer, &json::no_bulk));
        json.map_or_else(|| "nothing".into(), |json| String::from_utf8_lossy(&json).into_owned())
    };
    format!("{} and {} answers, number {at} is\n  {}\n  {}", found.len(), wanted.len(), json(found), json(wanted))
}

/// Each seed: 120 commands in random batches, a query behind each batch.
#[test]
fn the_catalogue_answers_as_a_list_of_instances_does() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..30, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(failure) = std::panic::catch_unwind(|| run(seed, None)) {
            eprintln!("REPRODUCE: SEED={seed} cargo nextest run -p archive-catalog --test model");
            std::panic::resume_unwind(failure);
        }
    }
}

/// The model is worth something only if it sees bugs.
#[test]
fn planted_bugs_are_caught() {
    std::panic::set_hook(Box::new(|_| {})); // the panics here are wanted
    for bug in [
        Sabotage::NoDuplicateCheck,
        Sabotage::VersionReplaces,
        Sabotage::ReplacedIsLost,
        Sabotage::DeletedComesBack,
        Sabotage::AppliedTwice,
        Sabotage::PaddingIsContent,
    ] {
        let caught = (0..10).find(|seed| std::panic::catch_unwind(|| run(*seed, Some(bug))).is_err());
        println!("{bug:?}: caught by seed {caught:?}");
        if caught.is_none() {
            let _ = std::panic::take_hook();
            panic!("{bug:?} was not caught by 10 seeds");
        }
    }
}
