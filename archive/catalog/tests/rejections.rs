//! Rejections against a map: random stores, notes, restores and deletes, late copies of stores, rows that move to another
//! node; one seed a run. The map knows the rules of `reject.rs` and nothing of its tables.

mod support;

use archive_catalog::{
    Admission, Command, Grounds, InstanceHead, Level, OtherContent, Outcome, RefusedWhy, RejectAction, RejectedAgain,
    RejectedState, Rejection, Selection, Target, sabotage::Sabotage,
};
use archive_model::{CanonicalDigest, Uid, VR, tags};
use bytes::Bytes;
use raft_types::{Applied, BodyRef, Exported, GroupId, StateMachine};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};
use support::{Bench, group_of, head, instance, query, text};

const STUDY: &str = "1.1";

fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("a UID")
}

fn series_of(number: usize) -> String {
    format!("2.{}", number % 2)
}

fn name_of(number: usize) -> String {
    format!("3.{number}")
}

/// A content of instance `number`.
fn put(number: usize, content: u8, received_unix_ms: u64) -> InstanceHead {
    let modality = if number.is_multiple_of(2) { "CT" } else { "MR" };
    let more = [text(tags::PATIENT_ID, VR::LO, &["P"]), text(tags::MODALITY, VR::CS, &[modality])];
    let set = instance(STUDY, &series_of(number), &name_of(number), &more);
    InstanceHead { received_unix_ms, ..head(&set, 10 + u64::from(content), content) }
}

fn rejection(note: usize, action: RejectAction, again: RejectedAgain) -> Rejection {
    let note = [uid(STUDY), uid("2.9"), uid(&format!("9.{note}"))];
    Rejection { note, code: "113001".into(), action, again, source: "QA".into(), rejected_unix_ms: 5 }
}

fn reject(numbers: &[usize], rejection: Rejection) -> Command {
    let named = numbers.iter().map(|number| (uid(&series_of(*number)), vec![uid(&name_of(*number))])).collect();
    Command::Reject { rejection, study: uid(STUDY), named }
}

fn target(number: Option<usize>) -> Target {
    Target {
        study: uid(STUDY),
        series: number.map(|number| uid(&series_of(number))),
        instance: number.map(|number| uid(&name_of(number))),
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Content {
    digest: u8,
    received_ms: u64,
    index: u64,
    canonical: Option<u8>,
}

impl Content {
    fn bytes(&self) -> u64 {
        10 + u64::from(self.digest)
    }
}

/// What the UID answers, and the versions by number, from 1.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    answers: Content,
    versions: Vec<Content>,
}

impl Kept {
    fn all(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.answers).chain(&self.versions)
    }
}

#[derive(Debug, Default)]
struct One {
    shown: Option<Kept>,
    hidden: Option<Kept>,
    note: Option<(usize, RejectAction, RejectedAgain)>,
    state: Option<RejectedState>,
}

#[derive(Default)]
struct Model {
    instances: BTreeMap<usize, One>,
    deleted: BTreeSet<(u8, u64)>,
}

impl Model {
    fn store(&mut self, number: usize, new: Content, policy: OtherContent) -> Outcome {
        let deleted = self.deleted.contains(&(new.digest, new.received_ms));
        let one = self.instances.entry(number).or_default();
        let again = one.note.map(|(_, _, again)| again);
        match (one.state, again) {
            (Some(RejectedState::Awaited), _) => {
                let outcome = admit(&mut one.hidden, new, policy, deleted);
                if one.hidden.is_some() {
                    one.state = Some(RejectedState::Hidden);
                }
                outcome
            }
            (Some(RejectedState::Hidden), Some(again)) => {
                let kept = one.hidden.as_ref().expect("hidden");
                let same = |content: &Content| content.digest == new.digest;
                if kept.all().any(|content| {
                    same(content) && (again == RejectedAgain::Keep || content.received_ms == new.received_ms)
                }) {
                    return Outcome::Stored(Admission::Same);
                }
                if again == RejectedAgain::Refuse {
                    return Outcome::Refused(RefusedWhy::Rejected);
                }
                let outcome = admit(&mut one.hidden, new, policy, deleted);
                if again == RejectedAgain::Restore && matches!(outcome, Outcome::Stored(_)) {
                    one.shown = one.hidden.take();
                    one.state = Some(RejectedState::Restored);
                }
                outcome
            }
            (Some(RejectedState::Deleted), _) if deleted => Outcome::Refused(RefusedWhy::Deleted),
            (Some(RejectedState::Deleted), Some(RejectedAgain::Refuse)) => Outcome::Refused(RefusedWhy::Rejected),
            (Some(RejectedState::Deleted), Some(RejectedAgain::Keep)) => {
                one.state = Some(RejectedState::Hidden);
                admit(&mut one.hidden, new, policy, deleted)
            }
            (Some(RejectedState::Deleted), _) => {
                one.state = Some(RejectedState::Restored);
                admit(&mut one.shown, new, policy, deleted)
            }
            _ => admit(&mut one.shown, new, policy, deleted),
        }
    }

    fn forget(&mut self, kept: &Kept) -> u64 {
        self.deleted.extend(kept.all().map(|content| (content.digest, content.received_ms)));
        kept.all().map(Content::bytes).sum()
    }

    fn reject(&mut self, numbers: &[usize], note: (usize, RejectAction, RejectedAgain)) -> Outcome {
        let (mut hidden, mut deleted, mut awaited) = (0, 0, 0);
        for number in numbers {
            let one = self.instances.entry(*number).or_default();
            if one.note.is_some_and(|(known, ..)| known == note.0) {
                continue;
            }
            one.note = Some(note);
            let gone = match (one.state, note.1) {
                (None | Some(RejectedState::Restored), action) => match (one.shown.take(), action) {
                    (None, _) => {
                        one.state = Some(RejectedState::Awaited);
                        awaited += 1;
                        None
                    }
                    (Some(kept), RejectAction::Hide) => {
                        (one.state, one.hidden) = (Some(RejectedState::Hidden), Some(kept));
                        hidden += 1;
                        None
                    }
                    (gone, RejectAction::Delete) => gone,
                },
                (Some(RejectedState::Hidden), RejectAction::Delete) => one.hidden.take(),
                _ => None,
            };
            if let Some(gone) = gone {
                one.state = Some(RejectedState::Deleted);
                deleted += 1;
                self.forget(&gone);
            }
        }
        Outcome::Rejected { hidden, deleted, awaited }
    }

    fn restore(&mut self, only: Option<usize>) -> Outcome {
        let (mut instances, mut lifted) = (0, 0);
        for (_, one) in self.instances.iter_mut().filter(|(number, _)| only.is_none_or(|only| only == **number)) {
            match one.state {
                Some(RejectedState::Hidden) => {
                    one.shown = one.hidden.take();
                    instances += 1;
                }
                Some(RejectedState::Awaited | RejectedState::Deleted) => lifted += 1,
                _ => continue,
            }
            one.state = Some(RejectedState::Restored);
        }
        Outcome::Restored { instances, lifted }
    }

    fn delete(&mut self, only: Option<usize>) -> Outcome {
        let mut gone = Vec::new();
        for (_, one) in self.instances.iter_mut().filter(|(number, _)| only.is_none_or(|only| only == **number)) {
            gone.extend(one.shown.take());
            if let Some(hidden) = one.hidden.take() {
                gone.push(hidden);
                one.state = Some(RejectedState::Deleted);
            }
        }
        let bytes = gone.iter().map(|kept| self.forget(kept)).sum();
        Outcome::Deleted { instances: gone.len() as u64, bytes }
    }
}

fn admit(place: &mut Option<Kept>, new: Content, policy: OtherContent, deleted: bool) -> Outcome {
    let Some(kept) = place else {
        if deleted {
            return Outcome::Refused(RefusedWhy::Deleted);
        }
        *place = Some(Kept { answers: new, versions: Vec::new() });
        return Outcome::Stored(Admission::New);
    };
    if kept.all().any(|content| content.digest == new.digest) {
        return Outcome::Stored(Admission::Same);
    }
    if new.canonical.is_some() && kept.all().any(|content| content.canonical == new.canonical) {
        return Outcome::Stored(Admission::Alike);
    }
    let number = u32::try_from(kept.versions.len() + 1).expect("few");
    match policy {
        _ if deleted => Outcome::Refused(RefusedWhy::Deleted),
        OtherContent::Reject => Outcome::Refused(RefusedWhy::OtherContent),
        OtherContent::Keep => {
            kept.versions.push(new);
            Outcome::Stored(Admission::Version { number })
        }
        OtherContent::Replace => {
            let before = std::mem::replace(&mut kept.answers, new);
            kept.versions.push(before);
            Outcome::Stored(Admission::Replaced { number })
        }
    }
}

fn export(bench: &Bench, group: GroupId) -> (Applied, Vec<Bytes>) {
    let (mut at, mut pieces) = (None, Vec::new());
    let mut sink = |exported| {
        match exported {
            Exported::At(applied) => at = Some(applied),
            Exported::Piece(piece) => pieces.push(piece),
        }
        ControlFlow::Continue(())
    };
    bench.catalog.export(group, &mut sink).expect("exported");
    (at.expect("the moment comes first"), pieces)
}

/// Everything that a catalogue answers is what the map says.
fn compare(bench: &Bench, model: &Model) {
    let shown: Vec<(usize, &Kept)> =
        model.instances.iter().filter_map(|(number, one)| Some((*number, one.shown.as_ref()?))).collect();
    let hidden: Vec<&Kept> = model.instances.values().filter_map(|one| one.hidden.as_ref()).collect();

    let rows = bench.catalog.instances(&Selection { studies: vec![uid(STUDY)], ..Selection::default() });
    let mut rows = rows.expect("rows");
    rows.sort_by(|a, b| a.instance.cmp(&b.instance));
    let found: Vec<_> = rows.iter().map(|row| (row.instance.to_string(), row.digest[0], row.blocks[0].index)).collect();
    let wanted: Vec<_> =
        shown.iter().map(|(number, kept)| (name_of(*number), kept.answers.digest, kept.answers.index)).collect();
    assert_eq!(found, wanted);

    let versions = bench.catalog.versions(&uid(STUDY), None, 1000).expect("versions");
    let found: BTreeSet<_> = versions
        .iter()
        .map(|version| (version.row.instance.to_string(), version.row.version, version.row.digest[0]))
        .collect();
    let wanted: BTreeSet<_> = shown
        .iter()
        .flat_map(|(number, kept)| {
            kept.versions.iter().enumerate().map(|(at, content)| (name_of(*number), at as u32 + 1, content.digest))
        })
        .collect();
    assert_eq!(found, wanted);

    let study = bench.find(&query(
        Level::Study,
        &[
            text(tags::STUDY_INSTANCE_UID, VR::UI, &[STUDY]),
            support::ask(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS),
            support::ask(tags::MODALITIES_IN_STUDY, VR::CS),
        ],
    ));
    let counted = study.first().and_then(|study| study.text(tags::NUMBER_OF_STUDY_RELATED_INSTANCES)).unwrap_or("0");
    assert_eq!(counted, shown.len().to_string());
    let modalities: BTreeSet<_> =
        shown.iter().map(|(number, _)| if number.is_multiple_of(2) { "CT" } else { "MR" }).collect();
    let found = study.first().map(|study| study.texts(tags::MODALITIES_IN_STUDY).to_vec()).unwrap_or_default();
    assert_eq!(found, modalities.into_iter().collect::<Vec<_>>());

    let totals = bench.catalog.totals().expect("totals");
    assert_eq!(totals.instances, shown.len() as u64);
    assert_eq!(totals.versions, shown.iter().map(|(_, kept)| kept.versions.len() as u64).sum::<u64>());
    assert_eq!(totals.bytes, shown.iter().flat_map(|(_, kept)| kept.all()).map(Content::bytes).sum::<u64>());
    assert_eq!(totals.studies, u64::from(!shown.is_empty()));

    // J-2: no body of what is shown or hidden is unnamed, and none of what went is named.
    let kept = shown.iter().map(|(_, kept)| *kept).chain(hidden);
    let mut wanted: Vec<BodyRef> = kept
        .flat_map(Kept::all)
        .map(|content| BodyRef { index: content.index, length_bytes: u32::try_from(content.bytes()).expect("few") })
        .collect();
    wanted.sort_unstable();
    let group = group_of(STUDY);
    assert_eq!(bench.catalog.bodies(group).expect("bodies"), wanted);
    let mut named: Vec<BodyRef> = export(bench, group)
        .1
        .iter()
        .flat_map(|piece| bench.catalog.bodies_of(piece).expect("bodies of a piece"))
        .collect();
    named.sort_unstable();
    assert_eq!(named, wanted);

    let mut available: Vec<_> = bench
        .catalog
        .availability(&uid(STUDY))
        .expect("availability")
        .into_iter()
        .map(|one| (one.instance.to_string(), one.online))
        .collect();
    available.sort();
    let gone = |one: &One| matches!(one.state, Some(RejectedState::Hidden | RejectedState::Deleted));
    let wanted: Vec<_> = model
        .instances
        .iter()
        .filter(|(_, one)| one.shown.is_some() || gone(one))
        .map(|(number, one)| (name_of(*number), one.shown.is_some()))
        .collect();
    assert_eq!(available, wanted);

    let found: BTreeMap<_, _> = bench
        .catalog
        .rejections(Some(&uid(STUDY)), true, 1000)
        .expect("rejections")
        .into_iter()
        .map(|one| (one.instance.to_string(), (one.state, one.rejection)))
        .collect();
    let wanted: BTreeMap<_, _> = model
        .instances
        .iter()
        .filter_map(|(number, one)| {
            let (note, action, again) = one.note?;
            Some((name_of(*number), (one.state?, rejection(note, action, again))))
        })
        .collect();
    assert_eq!(found, wanted);
}

fn run(seed: u64, steps: usize, sabotage: Option<Sabotage>) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let (mut bench, mut model) = (Bench::with(sabotage), Model::default());
    let group = group_of(STUDY);
    let mut stores: Vec<(usize, u8, u64, OtherContent, Option<u8>)> = Vec::new();
    for step in 0..steps {
        let number = chance.random_range(0..6);
        let index = bench.next_index(group);
        match chance.random_range(0..10) {
            0..5 => {
                let policies = [OtherContent::Keep, OtherContent::Reject, OtherContent::Replace];
                let content = chance.random_range(1..5_u8);
                // 2 and 3 are alike; each comes with and without its canonical digest.
                let canonical = chance.random_ratio(2, 3).then_some(content / 2);
                let new = (number, content, step as u64, policies[chance.random_range(0..3)], canonical);
                // Sometimes the copy of a proposal that was made before.
                let copy = chance.random_ratio(1, 3).then(|| stores.get(chance.random_range(0..stores.len().max(1))));
                let (number, content, received_ms, policy, canonical) = copy.flatten().copied().unwrap_or(new);
                stores.push((number, content, received_ms, policy, canonical));
                let head = InstanceHead {
                    canonical: canonical.map(|number| CanonicalDigest::of_digest([number; 32])),
                    ..put(number, content, received_ms)
                };
                let command = Command::put_small(head, policy);
                let found = bench.run(group, &command, 10 + u64::from(content));
                let wanted = model.store(number, Content { digest: content, received_ms, index, canonical }, policy);
                assert_eq!(found, wanted, "seed {seed}, step {step}");
            }
            5..8 => {
                let numbers: Vec<usize> = (0..6).filter(|_| chance.random_ratio(1, 3)).collect();
                // A note says the same whenever it comes.
                let note = chance.random_range(0..12);
                let action = if note % 3 == 0 { RejectAction::Delete } else { RejectAction::Hide };
                let again = [RejectedAgain::Keep, RejectedAgain::Refuse, RejectedAgain::Restore][note % 4 % 3];
                let found = bench.run(group, &reject(&numbers, rejection(note, action, again)), 0);
                assert_eq!(found, model.reject(&numbers, (note, action, again)), "seed {seed}, step {step}");
            }
            8 => {
                let only = chance.random::<bool>().then_some(number);
                let found = bench.run(group, &Command::Restore { target: target(only) }, 0);
                assert_eq!(found, model.restore(only), "seed {seed}, step {step}");
            }
            _ => {
                let only = chance.random_ratio(4, 5).then_some(number);
                let grounds = Grounds { reason: "r".into(), source: "s".into(), deleted_unix_ms: 1 };
                let found = bench.run(group, &Command::Delete { target: target(only), grounds }, 0);
                assert_eq!(found, model.delete(only), "seed {seed}, step {step}");
            }
        }
        compare(&bench, &model);
        if step % 16 == 15 {
            // J-1, J-2: another node that gets the rows is the same, and goes on from there.
            let rows = export(&bench, group);
            let mut other = Bench::with(sabotage);
            let mut pieces = rows.1.iter().cloned();
            other.catalog.import(group, &rows.0, &mut || Ok(pieces.next())).expect("imported");
            other.skip(group, bench.next_index(group) - 1);
            compare(&other, &model);
            assert_eq!(export(&other, group), rows, "seed {seed}, step {step}");
            bench = other;
        }
    }
}

#[test]
fn random_notes_do_what_the_rules_say() {
    for seed in 0..24 {
        run(seed, 80, None);
    }
}

/// The test above is worth its name.
#[test]
fn planted_bugs_are_found() {
    for bug in [Sabotage::LateCopyRestores, Sabotage::CanonicalIsForgotten] {
        let found = (0..24).any(|seed| std::panic::catch_unwind(|| run(seed, 80, Some(bug))).is_err());
        assert!(found, "the planted bug was not found: {bug:?}");
    }
}

/// The rows of a snapshot, and what a hidden instance is kept as, for ever.
#[test]
fn the_bytes_of_exported_rejections_are_those_of_version_4() {
    let mut bench = Bench::new();
    let group = group_of(STUDY);
    let note = rejection(1, RejectAction::Hide, RejectedAgain::Keep);
    bench.put(&put(1, 1, 0));
    bench.run(group, &reject(&[1, 2], note), 0);
    let rows = export(&bench, group).1;
    let [piece] = &rows[..] else { panic!("one piece") };
    let facts = b"\x19\x031.1\x032.9\x039.1\x06113001\x00\x00\x02QA\x05";
    // 11 = Rejection{study, series, instance, state, class, bytes, rejected, note, facts, blocks, content}.
    let awaited = [&b"\x0b\x031.1\x032.0\x033.2\x00\x00\x00\x0a\x039.1"[..], facts, b"\x01\x00\x00"].concat();
    assert_eq!(piece[..2], b"\x04\x02"[..], "version 4, two rows");
    assert!(piece[2..].starts_with(&awaited), "{:02x?}", &piece[..80]);
    let hidden = [
        &b"\x0b\x031.1\x032.1\x033.1\x02\x191.2.840.10008.5.1.4.1.1.2\x16\x0a\x039.1"[..],
        facts,
        b"\x03\x01\x01\x0b\x01",
    ]
    .concat();
    assert!(piece[2 + awaited.len()..].starts_with(&hidden), "{:02x?}", &piece[2 + awaited.len()..]);
    // content: its length, version 1, attributes of patient, study and series, the instance, its versions.
    let content = &piece[2 + awaited.len() + hidden.len()..];
    let start = content.iter().position(|byte| *byte == 1).expect("version 1");
    let patient = b"\x07\x01\xa0\x80\x40\x01\x01P";
    assert!(content[start + 1..].starts_with(patient), "{:02x?}", &content[..40]);
}

/// J-4: who restores by hand is not overruled by the same note, but by another.
#[test]
fn a_note_acts_once_on_an_instance() {
    let mut bench = Bench::new();
    let group = group_of(STUDY);
    bench.put(&put(1, 1, 0));
    let note = |number| reject(&[1], rejection(number, RejectAction::Hide, RejectedAgain::Keep));
    let rejected = |hidden| Outcome::Rejected { hidden, deleted: 0, awaited: 0 };
    assert_eq!(bench.run(group, &note(1), 0), rejected(1));
    assert_eq!(bench.run(group, &note(1), 0), rejected(0), "a copy");
    let restore = Command::Restore { target: target(Some(1)) };
    assert_eq!(bench.run(group, &restore, 0), Outcome::Restored { instances: 1, lifted: 0 });
    assert_eq!(bench.run(group, &restore, 0), Outcome::Restored { instances: 0, lifted: 0 });
    assert_eq!(bench.run(group, &note(1), 0), rejected(0), "the same note again");
    assert_eq!(bench.catalog.totals().expect("totals").instances, 1);
    assert_eq!(bench.run(group, &note(2), 0), rejected(1), "another note");
    assert_eq!(bench.catalog.totals().expect("totals").instances, 0);
}
