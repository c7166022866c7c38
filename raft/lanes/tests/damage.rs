//! Rot in closed segments: scrub finds every flipped bit, a rewrite mends it, and nothing is cut or called absent.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use common::{Chance, Model, Op, at, body, difference, entry, open, replay};
use raft_lanes::{
    Body, Finding, Head, Lane, LaneError, RewriteError, Scrubbed, Spent,
    crash::{CrashDisk, Faults, Unsynced},
};
use raft_types::{Disk, GroupId};
use std::collections::BTreeMap;

fn finish(lane: &Lane) {
    while lane.step() {}
}

fn turn(lane: &Lane) {
    lane.turn(Box::new(|result| result.unwrap())).unwrap();
    finish(lane);
}

/// Two groups over several segments: entries of all sizes, a truncation, a purge with live bodies behind it, votes, blocks.
fn filled() -> (CrashDisk, Lane, Vec<Op>) {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    let mut ops = Vec::new();
    let submit = |op: Op, ops: &mut Vec<Op>| {
        let done = Box::new(|result: std::io::Result<()>| result.unwrap());
        match op.clone() {
            Op::Append(group, entries) => lane.append(group, entries, done),
            Op::Vote(group, vote) => lane.save_vote(group, vote, done),
            Op::Truncate(group, keep) => lane.truncate_after(group, keep, done),
            Op::Purge(group, upto) => lane.purge(group, upto, done),
            Op::Blocks(group, blocks) => lane.append_blocks(group, blocks, done),
        }
        .unwrap();
        finish(&lane);
        ops.push(op);
    };
    for group in [GroupId(1), GroupId(2)] {
        for index in 0..12 {
            let length = [10, 3_000, 70_000, 0][index as usize % 4];
            submit(Op::Append(group, vec![entry(1, index, length)]), &mut ops);
        }
        submit(Op::Vote(group, "a vote".into()), &mut ops);
        submit(Op::Truncate(group, Some(9)), &mut ops);
        for index in 10..14 {
            submit(Op::Append(group, vec![entry(2, index, 40_000)]), &mut ops);
        }
    }
    submit(Op::Purge(GroupId(2), at(1, 6)), &mut ops);
    submit(Op::Blocks(GroupId(2), vec![(3, body(9, 3, 5_000))]), &mut ops);
    turn(&lane);
    assert!(lane.closed_segments().len() >= 3, "{:?}", lane.closed_segments());
    assert_eq!(difference(&lane, &replay(&ops)), None);
    (disk, lane, ops)
}

fn name(sequence: u64) -> String {
    format!("segment-{sequence:016x}.lane")
}

fn scrub_all(lane: &Lane) -> Vec<Scrubbed> {
    let scrubs = lane.closed_segments().into_iter().map(|closed| lane.scrub(closed.sequence).unwrap().run().unwrap());
    scrubs.collect()
}

/// What a peer would give: heads from the model, bodies as blocks; then the rewrite. What the driver in raft/groups does.
fn mend(lane: &Lane, model: &Model, found: &Scrubbed) {
    let mut heads = BTreeMap::new();
    let mut give = |finding: &Finding| {
        let (Finding::Head { group, index } | Finding::Body { group, index }) = *finding else { return };
        let own = &model[&group];
        let (known, bytes) = match own.entries.get(&index) {
            Some(entry) => {
                let (term, kind, head) = (entry.position.term, entry.kind, entry.head.clone());
                heads.insert((group, index), Head { term, kind, head, body_len: entry.body.len(), body: None });
                let Body::Here(body) = &entry.body else { return };
                (true, body.clone())
            }
            None => (false, own.bodies.get(&index).cloned().unwrap_or_default()),
        };
        if (known || !bytes.is_empty()) && !bytes.is_empty() {
            lane.append_blocks(group, vec![(index, bytes)], Box::new(|result| result.unwrap())).unwrap();
        }
    };
    found.findings.iter().for_each(&mut give);
    finish(lane);
    let spent = needed(model);
    match lane.rewrite(found.sequence, &spent, &heads, &mut |_| true) {
        Ok(_) => {}
        Err(RewriteError::Lost(lost)) => {
            let more = Scrubbed { findings: lost.into_iter().collect(), ..found.clone() };
            assert!(!more.findings.is_subset(&found.findings), "a peer gave all, and still lost: {:?}", more.findings);
            let findings = found.findings.union(&more.findings).copied().collect();
            mend(lane, model, &Scrubbed { findings, ..more });
        }
        Err(error) => panic!("{}: {error}", found.sequence),
    }
}

/// Everything the model has is needed; what is purged may leave the log.
fn needed(model: &Model) -> BTreeMap<GroupId, Spent> {
    let spent = |own: &common::ModelGroup| {
        let upto = own.purged?.index;
        let live = own.bodies.iter().filter(|(index, body)| **index <= upto && !body.is_empty());
        Some(Spent { upto, live: live.map(|(index, _)| *index).collect(), alone: false })
    };
    model.iter().filter_map(|(group, own)| Some((*group, spent(own)?))).collect()
}

fn total_bytes(disk: &CrashDisk, lane: &Lane) -> Vec<(String, u64)> {
    let closed = lane.closed_segments().into_iter().map(|closed| name(closed.sequence));
    closed.map(|name| (name.clone(), disk.open(&name).unwrap().len().unwrap())).collect()
}

#[test]
fn a_sound_lane_has_no_findings_and_every_byte_of_it_is_read() {
    let (disk, lane, _) = filled();
    for (found, (name, length)) in scrub_all(&lane).into_iter().zip(total_bytes(&disk, &lane)) {
        assert!(found.findings.is_empty(), "{name}: {:?}", found.findings);
        assert!(found.bytes >= length, "{name}: {} of {length} bytes", found.bytes);
    }
}

#[test]
fn any_flipped_bit_is_found_and_mended_and_costs_no_answer() {
    let (disk, lane, ops) = filled();
    let model = replay(&ops);
    let chance = Chance::new(3);
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, _) in total_bytes(&disk, &lane) {
        let mut offset = 0;
        loop {
            let length = disk.open(&name).unwrap().len().unwrap();
            if offset >= length {
                break;
            }
            disk.rot(&name, offset, 1 << chance.below(8));
            let bad: Vec<_> = scrub_all(&lane).into_iter().filter(|found| !found.findings.is_empty()).collect();
            assert_eq!(bad.len(), 1, "{name} at {offset}: {bad:?}");
            for finding in &bad[0].findings {
                *kinds.entry(finding.kind()).or_default() += 1;
            }
            mend(&lane, &model, &bad[0]);
            assert_eq!(difference(&lane, &model), None, "{name} at {offset}: {bad:?}");
            offset += if offset < 100 { 7 } else { 611 };
        }
    }
    assert!(["header", "batch", "head", "body", "footer"].iter().all(|kind| kinds.contains_key(kind)), "{kinds:?}");
    assert!(scrub_all(&lane).iter().all(|found| found.findings.is_empty()));
    drop(lane);
    let lane = open(&disk.crash(Unsynced::Dropped, &chance)).unwrap();
    assert_eq!(difference(&lane, &model), None, "after a power cut");
}

#[test]
fn a_thousand_flips_at_once_are_mended_by_one_pass() {
    for seed in 0..3 {
        let (disk, lane, ops) = filled();
        let model = replay(&ops);
        let chance = Chance::new(seed);
        let places = total_bytes(&disk, &lane);
        let all: u64 = places.iter().map(|(_, length)| length).sum();
        for _ in 0..1_000 {
            let mut at = chance.below(all);
            let (name, _) =
                places.iter().find(|(_, length)| at.checked_sub(*length).map(|rest| at = rest).is_none()).unwrap();
            disk.rot(name, at, 1 << chance.below(8));
        }
        let found = scrub_all(&lane);
        assert!(found.iter().map(|found| found.findings.len()).sum::<usize>() > 30, "{found:?}");
        for found in found {
            mend(&lane, &model, &found);
        }
        let again = scrub_all(&lane);
        assert!(again.iter().all(|found| found.findings.is_empty()), "seed {seed}: {again:?}");
        assert_eq!(difference(&lane, &model), None, "seed {seed}");
        let lane = open(&disk.crash(Unsynced::Dropped, &chance)).unwrap();
        assert_eq!(difference(&lane, &model), None, "seed {seed}, after a power cut");
        assert!(lane.closed_segments().iter().all(|closed| closed.damaged.is_none()));
    }
}

/// Flips a bit of the first place where `bytes` lie.
fn rot_in(disk: &CrashDisk, name: &str, bytes: &[u8]) {
    let file = disk.open(name).unwrap();
    let mut all = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut all).unwrap();
    let at = all.windows(bytes.len()).position(|window| window == bytes).expect("they are there");
    disk.rot(name, at as u64, 1);
}

/// Footer and entry are damaged; what lies sound at the same index was cut before that entry came.
#[test]
fn what_was_cut_never_takes_the_place_of_what_came_after_it() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    let group = GroupId(1);
    let done = || Box::new(|result: std::io::Result<()>| result.unwrap());
    let ops = [
        Op::Append(group, (0..4).map(|index| entry(1, index, 3_000)).collect()),
        Op::Truncate(group, Some(1)),
        Op::Append(group, vec![entry(2, 2, 3_000)]),
    ];
    for op in ops.clone() {
        match op {
            Op::Append(group, entries) => lane.append(group, entries, done()),
            Op::Truncate(group, keep) => lane.truncate_after(group, keep, done()),
            _ => unreachable!(),
        }
        .unwrap();
        finish(&lane);
    }
    turn(&lane);
    let first = name(lane.closed_segments()[0].sequence);
    rot_in(&disk, &first, b"head 2@2");
    let length = disk.open(&first).unwrap().len().unwrap();
    disk.rot(&first, length - 20, 1);
    let model = replay(&ops);
    for found in scrub_all(&lane) {
        mend(&lane, &model, &found);
    }
    assert_eq!(difference(&lane, &model), None);
    assert!(scrub_all(&lane).iter().all(|found| found.findings.is_empty()));
    let lane = open(&disk.crash(Unsynced::Dropped, &Chance::new(1))).unwrap();
    assert_eq!(difference(&lane, &model), None, "after a power cut");
}

#[test]
fn a_damaged_footer_or_header_is_no_reason_not_to_start() {
    let (disk, lane, ops) = filled();
    lane.shutdown();
    let model = replay(&ops);
    let chance = Chance::new(5);
    let mut noted = 0;
    for name in disk.list().unwrap() {
        let length = disk.open(&name).unwrap().len().unwrap();
        for offset in [0, 5, 9, 30, 75].into_iter().chain((length - 700..length).step_by(9)) {
            let rotten = disk.crash(Unsynced::Kept, &chance);
            rotten.rot(&name, offset, 1 << chance.below(8));
            let lane = open(&rotten).unwrap_or_else(|error| panic!("{name} at {offset} of {length}: {error}"));
            assert_eq!(difference(&lane, &model), None, "{name} at {offset} of {length}");
            let damaged: Vec<_> = lane.closed_segments().into_iter().filter(|own| own.damaged.is_some()).collect();
            noted += damaged.len();
            turn(&lane);
            for closed in damaged {
                lane.rewrite(closed.sequence, &needed(&model), &BTreeMap::new(), &mut |_| true).unwrap();
            }
            assert_eq!(difference(&lane, &model), None, "{name} at {offset} of {length}, mended");
            let after = open(&rotten).unwrap();
            assert!(after.closed_segments().iter().all(|closed| closed.damaged.is_none()), "{name} at {offset}");
        }
    }
    assert!(noted > 100, "{noted}");
}

#[test]
fn a_damaged_body_that_nobody_has_stays_known_as_damaged() {
    let (disk, lane, _) = filled();
    let (name, _) = total_bytes(&disk, &lane)[0].clone();
    let file = disk.open(&name).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let whole = body(1, 2, 70_000);
    let offset = bytes.windows(64).position(|window| window == &whole[30_000..30_064]).unwrap() as u64;
    disk.rot(&name, offset, 4);
    let found = scrub_all(&lane).remove(0);
    let finding = Finding::Body { group: GroupId(1), index: 2 };
    assert_eq!(found.findings.iter().copied().collect::<Vec<_>>(), [finding]);
    let rewrote = lane.rewrite(found.sequence, &BTreeMap::new(), &BTreeMap::new(), &mut |_| true).unwrap();
    assert_eq!(rewrote.damaged, 1);
    let read = lane.body(GroupId(1), 2, None, 0..70_000);
    assert!(matches!(read, Err(LaneError::Damaged(_))), "{read:?}");
    assert_eq!(lane.body(GroupId(1), 2, None, 66_000..70_000).unwrap(), whole[66_000..], "what holds is still read");
    assert_eq!(scrub_all(&lane).remove(0).findings, found.findings, "and found again");
}

#[test]
fn a_lost_head_is_never_left_out() {
    let (disk, lane, _) = filled();
    let (name, _) = total_bytes(&disk, &lane)[0].clone();
    let file = disk.open(&name).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let offset = bytes.windows(8).position(|window| window == b"head 2@1").unwrap() as u64;
    disk.rot(&name, offset, 1);
    let found = scrub_all(&lane).remove(0);
    assert!(found.findings.contains(&Finding::Head { group: GroupId(1), index: 2 }), "{:?}", found.findings);
    let refused = lane.rewrite(found.sequence, &BTreeMap::new(), &BTreeMap::new(), &mut |_| true);
    assert!(matches!(refused, Err(RewriteError::Lost(_))), "{refused:?}");
    let read = lane.entries(GroupId(1), 2..3, 0);
    assert!(matches!(read, Err(LaneError::Damaged(_))), "damaged, not absent: {read:?}");
}

/// A crash at every step of a rewrite, and a failing sync at each: old or new, and both say the same.
#[test]
fn a_crash_anywhere_in_a_rewrite_leaves_a_whole_segment() {
    let (disk, lane, ops) = filled();
    let model = replay(&ops);
    let chance = Chance::new(11);
    let sequence = lane.closed_segments()[1].sequence;
    let images = std::cell::RefCell::new(Vec::new());
    let mut pace = |_| {
        for unsynced in [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept] {
            images.borrow_mut().push(disk.crash(unsynced, &chance));
        }
        true
    };
    lane.rewrite(sequence, &needed(&model), &BTreeMap::new(), &mut pace).unwrap();
    for unsynced in [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept] {
        images.borrow_mut().push(disk.crash(unsynced, &chance));
    }
    let images = images.into_inner();
    assert!(images.len() >= 12, "{}", images.len());
    for (number, image) in images.into_iter().enumerate() {
        let lane = open(&image).unwrap_or_else(|error| panic!("image {number}: {error}"));
        assert_eq!(difference(&lane, &model), None, "image {number}");
        assert!(image.list().unwrap().iter().all(|name| !name.ends_with(".new")), "image {number}");
    }
    for syncs in 0..2 {
        let (disk, lane, _) = filled();
        disk.fail(Faults { syncs_left: Some(syncs), ..Faults::default() });
        let failed = lane.rewrite(sequence, &needed(&model), &BTreeMap::new(), &mut |_| true);
        assert!(matches!(failed, Err(RewriteError::Io { .. })), "{failed:?}");
        assert_eq!(lane.status().failed.is_some(), syncs == 1, "only a folder that was not synced is the end");
        assert_eq!(difference(&lane, &model), None);
        for unsynced in [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept] {
            let lane = open(&disk.crash(unsynced, &chance)).unwrap();
            assert_eq!(difference(&lane, &model), None, "sync {syncs}, {unsynced:?}");
        }
    }
}

#[test]
fn a_full_disk_stops_a_rewrite_and_nothing_else() {
    let (disk, lane, ops) = filled();
    disk.fail(Faults { writes_left: Some(2), ..Faults::default() });
    let sequence = lane.closed_segments()[0].sequence;
    let failed = lane.rewrite(sequence, &BTreeMap::new(), &BTreeMap::new(), &mut |_| true);
    assert!(matches!(failed, Err(RewriteError::Io { .. })), "{failed:?}");
    disk.fail(Faults::default());
    assert!(lane.status().failed.is_none());
    assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(".new")));
    lane.rewrite(sequence, &BTreeMap::new(), &BTreeMap::new(), &mut |_| true).unwrap();
    assert_eq!(difference(&lane, &replay(&ops)), None);
}

#[test]
fn spent_bodies_give_their_space_back_and_a_segment_of_nothing_else_goes() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    let group = GroupId(1);
    for index in 0..12 {
        lane.append(group, vec![entry(1, index, 60_000)], Box::new(|result| result.unwrap())).unwrap();
        finish(&lane);
    }
    turn(&lane);
    let used = disk.used_bytes();
    let keep = |upto, live: &[u64], alone| BTreeMap::from([(group, Spent { upto, live: live.to_vec(), alone })]);
    let first = lane.closed_segments()[0].sequence;
    // In a cluster nothing of the log goes before it is purged.
    let rewrote = lane.rewrite(first, &keep(11, &[], false), &BTreeMap::new(), &mut |_| true).unwrap();
    assert!(rewrote.bytes_after + 20_000 > rewrote.bytes_before, "{rewrote:?}");
    // On a single node the head stays: a lost catalogue is made again from it.
    let rewrote = lane.rewrite(first, &keep(11, &[1], true), &BTreeMap::new(), &mut |_| true).unwrap();
    assert!(rewrote.bytes_after < 100_000, "{rewrote:?}");
    assert_eq!(lane.entries(group, 0..12, u64::MAX).unwrap().len(), 12);
    assert_eq!(lane.body(group, 1, Some(1), 0..60_000).unwrap(), body(1, 1, 60_000));
    assert_eq!(lane.body(group, 0, Some(1), 0..60_000), Err(LaneError::Elided { group, index: 0 }));
    lane.purge(group, at(1, 11), Box::new(|result| result.unwrap())).unwrap();
    let early = lane.rewrite(first, &keep(11, &[], false), &BTreeMap::new(), &mut |_| true).unwrap();
    assert!(early.bytes_after > 0, "the purge is not durable yet");
    finish(&lane);
    for closed in lane.closed_segments() {
        let rewrote = lane.rewrite(closed.sequence, &keep(11, &[], false), &BTreeMap::new(), &mut |_| true).unwrap();
        assert_eq!(rewrote.bytes_after, 0, "{rewrote:?}");
    }
    assert!(disk.used_bytes() < used / 2, "{} of {used}", disk.used_bytes());
    lane.append(group, vec![entry(1, 12, 10)], Box::new(|result| result.unwrap())).unwrap();
    finish(&lane);
    for unsynced in [Unsynced::Dropped, Unsynced::Kept] {
        let after = open(&disk.crash(unsynced, &Chance::new(1))).unwrap();
        assert_eq!(after.state(group).last, Some(at(1, 12)));
        assert_eq!(after.state(group).first, 12);
    }
}

#[test]
fn the_newest_segment_is_not_rewritten() {
    let (_, lane, _) = filled();
    let newest = lane.closed_segments().last().unwrap().sequence + 1;
    let refused = lane.rewrite(newest, &BTreeMap::new(), &BTreeMap::new(), &mut |_| true);
    assert!(matches!(refused, Err(RewriteError::Gone(_) | RewriteError::Newest(_))), "{refused:?}");
}

/// L4 through compaction: an entry that was cut in a later segment must not come back as a block.
#[test]
fn compaction_never_brings_a_rewritten_index_back() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    let group = GroupId(1);
    let append = |term, index| {
        lane.append(group, vec![entry(term, index, 9_000)], Box::new(|result| result.unwrap())).unwrap();
        finish(&lane);
    };
    (0..4).for_each(|index| append(1, index));
    turn(&lane);
    lane.truncate_after(group, Some(1), Box::new(|result| result.unwrap())).unwrap();
    (2..6).for_each(|index| append(2, index));
    lane.purge(group, at(2, 5), Box::new(|result| result.unwrap())).unwrap();
    finish(&lane);
    turn(&lane);
    let spent = BTreeMap::from([(group, Spent { upto: 5, live: (0..6).collect(), alone: false })]);
    for closed in lane.closed_segments().into_iter().rev().skip(1) {
        lane.rewrite(closed.sequence, &spent, &BTreeMap::new(), &mut |_| true).unwrap();
    }
    let holds = |lane: &Lane| {
        for index in 0..6 {
            let term = if index < 2 { 1 } else { 2 };
            assert_eq!(lane.body(group, index, None, 0..9_000).unwrap(), body(term, index, 9_000), "{index}");
        }
    };
    holds(&lane);
    holds(&open(&disk.crash(Unsynced::Dropped, &Chance::new(1))).unwrap());
}
