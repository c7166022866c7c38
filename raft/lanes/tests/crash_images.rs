//! A reference model and random operations; at every `fdatasync` and between them a crash, which must leave the state
//! after some prefix of the submissions that holds at least all acknowledged ones (L1–L4).
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Chance, Model, Op, at, body, difference, elided, entry, open, open_with, replay};
use raft_lanes::{
    Lane, RewriteError, Sabotage, Spent,
    crash::{CrashDisk, Unsynced},
};
use raft_types::GroupId;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Submits one random operation that the lane must accept.
fn random_op(chance: &Chance, ops: &[Op], term: &mut u64) -> Op {
    let model = replay(ops);
    let group = GroupId(chance.below(4) as u32);
    let own = model.get(&group).cloned().unwrap_or_default();
    let next = own.last().map_or(0, |last| last.index + 1);
    let first = own.entries.keys().next().copied().unwrap_or(next);
    match chance.below(12) {
        0 => Op::Vote(group, Bytes::from(chance.below(1_000_000).to_string())),
        1 if next > first => {
            *term += 1;
            let keep = first + chance.below(next - first);
            Op::Truncate(group, keep.checked_sub(1).filter(|_| keep > 0))
        }
        2 if next > first && chance.below(4) == 0 => {
            let index = first + chance.below(next - first);
            Op::Purge(group, own.entries[&index].position)
        }
        3 if chance.below(8) == 0 => Op::Purge(group, at(*term, next + 5)),
        4 => match own.purged {
            // Only bodies of purged entries are kept apart, and whatever was here before is the same.
            Some(purged) => {
                let index = chance.below(purged.index + 1);
                let body = own.bodies.get(&index).cloned().unwrap_or_else(|| body(7, index, 70_000));
                Op::Blocks(group, vec![(index, body)])
            }
            None => Op::Vote(group, Bytes::from_static(b"v")),
        },
        _ => {
            let sizes = [0, 10, 5_000, 65_536, 70_000, 140_000];
            let count = 1 + chance.below(3);
            let one = |index| match sizes[chance.below(sizes.len() as u64) as usize] {
                length if length > 0 && chance.below(6) == 0 => elided(*term, index, length as u32),
                length => entry(*term, index, length),
            };
            Op::Append(group, (next..next + count).map(one).collect())
        }
    }
}

fn submit(lane: &Lane, op: &Op, order: usize, acked: &Arc<AtomicUsize>) {
    let acked = Arc::clone(acked);
    let done = Box::new(move |result: std::io::Result<()>| {
        result.expect("this disk does not fail");
        // L1: in the order of submission, each once.
        assert_eq!(acked.swap(order + 1, Ordering::SeqCst), order, "a callback out of order");
    });
    match op.clone() {
        Op::Append(group, entries) => lane.append(group, entries, done),
        Op::Vote(group, vote) => lane.save_vote(group, vote, done),
        Op::Truncate(group, keep) => lane.truncate_after(group, keep, done),
        Op::Purge(group, upto) => lane.purge(group, upto, done),
        Op::Blocks(group, blocks) => lane.append_blocks(group, blocks, done),
    }
    .expect("accepted");
}

/// Compacts a random segment; some of the bodies that are kept apart from the log are needed no more.
fn compact(lane: &Lane, model: &Model, dead: &mut BTreeSet<(GroupId, u64)>, chance: &Chance) {
    if chance.below(3) == 0 {
        lane.turn(Box::new(|_| {})).expect("accepted");
        while lane.step() {}
    }
    let closed = lane.closed_segments();
    if closed.is_empty() {
        return;
    }
    let sequence = closed[chance.below(closed.len() as u64) as usize].sequence;
    let mut spent = BTreeMap::new();
    for (group, own) in model {
        let Some(upto) = own.purged.map(|purged| purged.index) else { continue };
        for index in own.bodies.range(..=upto).map(|(index, _)| *index) {
            if chance.below(4) == 0 {
                dead.insert((*group, index));
            }
        }
        let live = own.bodies.range(..=upto).map(|(index, _)| *index);
        let live = live.filter(|index| !dead.contains(&(*group, *index))).collect();
        spent.insert(*group, Spent { upto, live, alone: false });
    }
    match lane.rewrite(sequence, &spent, &BTreeMap::new(), &mut |_| true) {
        Ok(_) => {
            if let Some(scrub) = lane.scrub(sequence) {
                let found = scrub.run().expect("readable");
                assert!(found.findings.is_empty(), "{found:?}");
            }
        }
        Err(RewriteError::Newest(_)) => {}
        Err(error) => panic!("segment {sequence}: {error}"),
    }
}

/// The model without the bodies that are needed no more.
fn without(mut model: Model, dead: &BTreeSet<(GroupId, u64)>) -> Model {
    for (group, own) in &mut model {
        own.bodies.retain(|index, _| !dead.contains(&(*group, *index)));
    }
    model
}

fn run(seed: u64, sabotage: Option<Sabotage>) {
    let chance = Chance::new(seed);
    let mut disk = CrashDisk::new();
    let mut lane = open_with(&disk, sabotage).expect("empty disk");
    let (mut ops, acked, mut term) = (Vec::new(), Arc::new(AtomicUsize::new(0)), 1);
    let mut dead = BTreeSet::new();
    for step in 0..60 {
        match chance.below(6) {
            5 => {
                compact(&lane, &replay(&ops), &mut dead, &chance);
                assert_eq!(
                    difference(&lane, &without(replay(&ops), &dead)),
                    None,
                    "compacted, seed {seed} step {step}"
                );
            }
            0..3 => {
                let op = random_op(&chance, &ops, &mut term);
                submit(&lane, &op, ops.len(), &acked);
                ops.push(op);
                // Blocks alone are not readable before they are durable.
                if matches!(ops.last(), Some(Op::Blocks(..))) {
                    while lane.step() {}
                }
                assert_eq!(difference(&lane, &without(replay(&ops), &dead)), None, "L2, seed {seed} step {step}");
            }
            3 => {
                lane.step();
            }
            _ => {
                let unsynced = [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept][chance.below(3) as usize];
                let after = disk.crash(unsynced, &chance);
                let recovered =
                    open_with(&after, sabotage).unwrap_or_else(|error| panic!("seed {seed} step {step}: {error}"));
                let least = acked.load(Ordering::SeqCst);
                let differences: Vec<_> = (least..=ops.len())
                    .map(|count| difference(&recovered, &without(replay(&ops[..count]), &dead)))
                    .collect();
                let Some(kept) = differences.iter().position(Option::is_none) else {
                    panic!("seed {seed} step {step}: no prefix from {least} of {} fits: {differences:?}", ops.len());
                };
                ops.truncate(least + kept);
                // The old process goes on with the old disk and is never seen again.
                acked.store(ops.len(), Ordering::SeqCst);
                (disk, lane) = (after, recovered);
            }
        }
    }
    while lane.step() {}
    assert_eq!(acked.load(Ordering::SeqCst), ops.len());
    lane.shutdown();
    let lane = open(&disk).expect("after a clean end");
    assert_eq!(difference(&lane, &without(replay(&ops), &dead)), None, "after a clean end, seed {seed}");
}

#[test]
fn a_crash_anywhere_keeps_all_that_was_acknowledged() {
    for seed in 0..150 {
        run(seed, None);
    }
}

/// The crash images are worth something only if they see bugs.
#[test]
fn planted_bugs_are_caught() {
    std::panic::set_hook(Box::new(|_| {})); // the panics here are wanted
    for bug in [Sabotage::EvictBeforeVerify, Sabotage::AnswerBeforeFsync] {
        let caught = (0..60).find(|seed| std::panic::catch_unwind(|| run(*seed, Some(bug))).is_err());
        println!("{bug:?}: caught by seed {caught:?}");
        if caught.is_none() {
            let _ = std::panic::take_hook();
            panic!("{bug:?} was not caught by 60 seeds");
        }
    }
}
