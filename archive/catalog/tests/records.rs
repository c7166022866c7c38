//! Records against a map: random puts and removals, copies of them that come late, rows that move to another node; one seed.

mod support;

use archive_catalog::{Command, Expect, Outcome, Record, RecordName, RefusedWhy, sabotage::Sabotage};
use bytes::Bytes;
use raft_types::{Applied, Exported, GroupId, StateMachine};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};
use support::{Bench, group_of};

/// What the model knows of a record: which proposal wrote it, and as which version.
struct Known {
    version: u64,
    proposal: usize,
    created_ms: u64,
    changed_ms: u64,
    due: Option<u64>,
    body: Bytes,
}

#[derive(Default)]
struct Model {
    records: BTreeMap<RecordName, Known>,
    /// Proposals that took effect once: none of them does again.
    took_effect: BTreeSet<usize>,
}

impl Model {
    /// What proposal number `proposal` comes to at `index`.
    fn apply(&mut self, proposal: usize, command: &Command, index: u64) -> Outcome {
        match command {
            Command::PutRecord { name, expect, body, due_unix_ms, at_unix_ms } => {
                let known = self.records.get(name);
                let current = known.map(|known| known.version);
                if known.is_some_and(|known| known.proposal == proposal) {
                    return Outcome::Recorded { version: current.expect("known") };
                }
                let wanted = match expect {
                    Expect::Absent => None,
                    Expect::Version(version) => Some(*version),
                };
                if current != wanted || self.took_effect.contains(&proposal) {
                    return Outcome::Conflict { current };
                }
                let created_ms = known.map_or(*at_unix_ms, |known| known.created_ms);
                let (due, body, changed_ms) = (*due_unix_ms, body.clone(), *at_unix_ms);
                self.records
                    .insert(name.clone(), Known { version: index, proposal, created_ms, changed_ms, due, body });
                self.took_effect.insert(proposal);
                Outcome::Recorded { version: index }
            }
            Command::RemoveRecord { name, version } => {
                let current = self.records.get(name).map(|known| known.version);
                if current != Some(*version) {
                    return Outcome::Conflict { current };
                }
                self.records.remove(name);
                Outcome::RecordRemoved
            }
            other => unreachable!("{other:?} is not of this test"),
        }
    }
}

fn name(chance: &mut ChaCha8Rng) -> RecordName {
    let kind = ["a", "b"].choose(chance).expect("some");
    RecordName { kind: (*kind).into(), key: format!("1.{}", chance.random_range(0..6)) }
}

fn any_command(chance: &mut ChaCha8Rng, model: &Model, number: usize) -> Command {
    let name = name(chance);
    let current = model.records.get(&name).map(|known| known.version);
    // A version that was, one that is, or one that never will be.
    let version = match current {
        Some(version) if chance.random_ratio(3, 4) => version,
        _ => chance.random_range(0..20),
    };
    if chance.random_ratio(1, 5) {
        return Command::RemoveRecord { name, version };
    }
    let absent = current.is_none() && chance.random_ratio(3, 4) || chance.random_ratio(1, 8);
    Command::PutRecord {
        name,
        expect: if absent { Expect::Absent } else { Expect::Version(version) },
        body: Bytes::from(vec![chance.random_range(0..3_u8); chance.random_range(0..4)]),
        due_unix_ms: chance.random::<bool>().then(|| chance.random_range(0..100)),
        at_unix_ms: number as u64,
    }
}

fn group(command: &Command) -> GroupId {
    match command {
        Command::PutRecord { name, .. } | Command::RemoveRecord { name, .. } => group_of(&name.key),
        other => unreachable!("{other:?} is not of this test"),
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

fn compare(bench: &Bench, model: &Model, now: u64) {
    for kind in ["a", "b"] {
        let wanted: Vec<Record> = model
            .records
            .iter()
            .filter(|(name, _)| name.kind == kind)
            .map(|(name, known)| Record {
                name: name.clone(),
                group: group_of(&name.key),
                version: known.version,
                created_unix_ms: known.created_ms,
                changed_unix_ms: known.changed_ms,
                due_unix_ms: known.due,
                body: known.body.clone(),
            })
            .collect();
        let mut found: Vec<Record> = Vec::new();
        loop {
            let after = found.last().map_or("", |last| &last.name.key).to_owned();
            let page = bench.catalog.records(kind, &after, 2).expect("a page");
            assert!(page.len() <= 2);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, wanted);
        for record in &wanted {
            assert_eq!(bench.catalog.record(record.group, &record.name).expect("read").as_ref(), Some(record));
        }
        let due = |groups: &[GroupId]| {
            let found = bench.catalog.due_records(kind, groups, now, 100).expect("read");
            found.into_iter().map(|due| due.key).collect::<BTreeSet<_>>()
        };
        let wanted_due = |groups: &[GroupId]| {
            let is_due = |record: &&Record| record.due_unix_ms.is_some_and(|due| due <= now);
            let own = wanted.iter().filter(is_due).filter(|record| groups.contains(&record.group));
            own.map(|record| record.name.key.clone()).collect::<BTreeSet<_>>()
        };
        for groups in [&[][..], &[GroupId(1)], &[GroupId(1), GroupId(2)]] {
            assert_eq!(due(groups), wanted_due(groups));
        }
        let any = !wanted_due(&[GroupId(1), GroupId(2)]).is_empty();
        assert_eq!(bench.catalog.has_due_records(kind, now).expect("read"), any);
    }
}

fn run(seed: u64, sabotage: Option<Sabotage>) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let (mut bench, mut model) = (Bench::with(sabotage), Model::default());
    let (mut proposals, mut all) = (Vec::<Command>::new(), Vec::new());
    for _ in 0..80 {
        let again = !proposals.is_empty() && chance.random_ratio(1, 4);
        let proposal = if again { chance.random_range(0..proposals.len()) } else { proposals.len() };
        if !again {
            proposals.push(any_command(&mut chance, &model, proposal));
        }
        let (command, own) = (proposals[proposal].clone(), group(&proposals[proposal]));
        let expected = model.apply(proposal, &command, bench.next_index(own));
        let entry = bench.entry(own, &command, 0);
        all.push(entry.clone());
        assert_eq!(bench.apply(&[entry]), [expected], "{command:?}");
        if chance.random_ratio(1, 10) {
            compare(&bench, &model, chance.random_range(0..120));
        }
    }
    // Other nodes: the same entries in batches, and the rows as they are.
    let (other, fresh) = (Bench::with(sabotage), Bench::with(sabotage));
    all.chunks(7).for_each(|batch| drop(other.apply(batch)));
    assert_eq!(other.dump(), bench.dump(), "two nodes that applied the same entries");
    for group in [GroupId(1), GroupId(2)] {
        let (at, pieces) = export(&bench, group);
        let mut sent = pieces.iter().cloned();
        fresh.catalog.import(group, &at, &mut || Ok(sent.next())).expect("imported");
        assert_eq!(export(&fresh, group), (at, pieces), "the same rows make the same bytes");
    }
    compare(&fresh, &model, 50);
}

#[test]
fn records_answer_as_a_map_does() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or(0..40, |seed| seed..seed + 1) {
        if let Err(failure) = std::panic::catch_unwind(|| run(seed, None)) {
            eprintln!("REPRODUCE: SEED={seed} cargo nextest run -p archive-catalog --test records");
            std::panic::resume_unwind(failure);
        }
    }
}

/// The model is worth something only if it sees bugs.
#[test]
fn planted_bugs_are_caught() {
    std::panic::set_hook(Box::new(|_| {})); // the panics here are wanted
    for bug in [Sabotage::ExpectIgnored, Sabotage::RemovedRecordComesBack] {
        let caught = (0..20).find(|seed| std::panic::catch_unwind(|| run(*seed, Some(bug))).is_err());
        println!("{bug:?}: caught by seed {caught:?}");
        if caught.is_none() {
            let _ = std::panic::take_hook();
            panic!("{bug:?} was not caught by 20 seeds");
        }
    }
}

///
#[test]
fn what_is_too_large_is_refused_and_stops_nothing() {
    let mut bench = Bench::new();
    let refused = Outcome::Refused(RefusedWhy::RecordTooLarge);
    let put = |kind: &str, key: &str, bytes: usize| Command::PutRecord {
        name: RecordName { kind: kind.into(), key: key.into() },
        expect: Expect::Absent,
        body: vec![0; bytes].into(),
        due_unix_ms: None,
        at_unix_ms: 1,
    };
    let group = GroupId(1);
    for (kind, key, bytes) in
        [("", "k", 0), ("k", "", 0), (&*"k".repeat(33), "k", 0), ("k", &*"k".repeat(257), 0), ("k", "k", (1 << 20) + 1)]
    {
        assert_eq!(bench.run(group, &put(kind, key, bytes), 0), refused);
    }
    let largest = bench.run(group, &put(&"k".repeat(32), &"k".repeat(256), 1 << 20), 0);
    assert_eq!(largest, Outcome::Recorded { version: 6 });
}

/// A page ends behind 4 MiB: records of 1 MiB are no reason to hold a gigabyte.
#[test]
fn pages_are_bounded_in_bytes() {
    let mut bench = Bench::new();
    for number in 0..6 {
        let put = Command::PutRecord {
            name: RecordName { kind: "k".into(), key: number.to_string() },
            expect: Expect::Absent,
            body: vec![0; 1 << 20].into(),
            due_unix_ms: None,
            at_unix_ms: 1,
        };
        bench.run(GroupId(1), &put, 0);
    }
    assert_eq!(bench.catalog.records("k", "", 1000).expect("a page").len(), 4);
    assert_eq!(bench.catalog.records("k", "3", 1000).expect("a page").len(), 2);
}

/// What nodes and backups of this release write; older rows, which have no records, are still read.
#[test]
fn the_bytes_of_exported_records_are_those_of_version_3() {
    let mut bench = Bench::new();
    let name = RecordName { kind: "k".into(), key: "1".into() };
    let put = |expect, due_unix_ms| Command::PutRecord {
        name: name.clone(),
        expect,
        body: Bytes::from_static(b"body"),
        due_unix_ms,
        at_unix_ms: 5,
    };
    bench.run(GroupId(1), &put(Expect::Absent, Some(7)), 0);
    bench.run(GroupId(1), &Command::RemoveRecord { name: name.clone(), version: 1 }, 0);
    let again = Command::PutRecord {
        name: name.clone(),
        expect: Expect::Absent,
        body: Bytes::from_static(b"body"),
        due_unix_ms: Some(7),
        at_unix_ms: 6,
    };
    bench.run(GroupId(1), &again, 0);
    let (at, pieces) = export(&bench, GroupId(1));
    // Two rows: 9 = Record{kind, key, version 3, before 0, created 6, changed 6, due 7, body}, 10 = RemovedRecord{idx 2, …, created 5}.
    let expected =
        [&b"\x03\x02"[..], b"\x09\x01k\x011\x06\x00\x0c\x0c\x01\x0e\x04body", b"\x0a\x04\x01k\x011\x0a"].concat();
    assert_eq!(pieces, [Bytes::from(expected)]);
    let mut old = Some(Bytes::from_static(b"\x02\x01\x08\x04\x01d\x0a"));
    let other = Bench::new();
    other.catalog.import(GroupId(1), &at, &mut || Ok(old.take())).expect("a deleted store of version 2");
    assert_eq!(other.catalog.record(GroupId(1), &name).expect("read"), None);
}
