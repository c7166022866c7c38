//! Failing syncs, full disks, rot, and disks of other nodes.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Chance, IDENTITY, Op, Still, at, body, difference, elided, entry, open, replay};
use raft_lanes::{
    Body, Identity, Lane, LaneError, LaneOptions, OpenError, Writer,
    crash::{CrashDisk, Faults, Unsynced},
};
use raft_types::{Disk, GroupId};
use std::sync::{Arc, mpsc};

const GROUP: GroupId = GroupId(1);

fn reporting() -> (raft_lanes::Done, mpsc::Receiver<bool>) {
    let (send, receive) = mpsc::channel();
    (Box::new(move |result| send.send(result.is_ok()).expect("the test waits")), receive)
}

#[test]
fn the_first_failed_sync_is_final() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 10)], Box::new(|result| result.unwrap())).unwrap();
    lane.step();
    disk.fail(Faults { syncs_left: Some(0), ..Faults::default() });
    let (done, failed) = reporting();
    lane.append(GROUP, vec![entry(1, 1, 10)], done).unwrap();
    lane.step();
    assert!(!failed.recv().unwrap());
    disk.fail(Faults::default());
    let later = lane.append(GROUP, vec![entry(1, 2, 10)], Box::new(|_| {}));
    assert!(matches!(later, Err(LaneError::Failed(_))), "{later:?}");
    assert_eq!(lane.durable(GROUP), Some(at(1, 0)));
}

#[test]
fn a_vote_is_durable_only_after_every_earlier_append() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 100_000)], Box::new(|_| {})).unwrap();
    let (done, saved) = reporting();
    lane.save_vote(GROUP, Bytes::from_static(b"vote"), done).unwrap();
    assert!(saved.try_recv().is_err(), "nothing was synced yet");
    while lane.step() {}
    assert!(saved.recv().unwrap());
    let after = open(&disk.crash(Unsynced::Dropped, &Chance::new(1))).unwrap();
    assert_eq!(after.state(GROUP).last, Some(at(1, 0)));
    assert_eq!(after.state(GROUP).vote.as_deref(), Some(&b"vote"[..]));
}

#[test]
fn a_rewritten_index_never_answers_with_its_old_bytes() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 10), entry(1, 1, 10)], Box::new(|_| {})).unwrap();
    lane.truncate_after(GROUP, Some(0), Box::new(|_| {})).unwrap();
    lane.append(GROUP, vec![entry(2, 1, 20)], Box::new(|_| {})).unwrap();
    for synced in [false, true] {
        if synced {
            while lane.step() {}
        }
        assert_eq!(lane.body(GROUP, 1, None, 0..20).unwrap(), body(2, 1, 20));
        let old = lane.body(GROUP, 1, Some(1), 0..10);
        assert_eq!(old, Err(LaneError::OtherTerm { group: GROUP, index: 1, found: 2 }));
    }
}

#[test]
fn waiters_for_durability_are_answered_after_the_sync_and_refused_after_a_truncation() {
    let lane = open(&CrashDisk::new()).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 1), entry(1, 1, 1)], Box::new(|_| {})).unwrap();
    let ((first, durable), (second, cut)) = (reporting(), reporting());
    lane.on_durable(GROUP, 0, first);
    lane.on_durable(GROUP, 1, second);
    lane.truncate_after(GROUP, Some(0), Box::new(|_| {})).unwrap();
    assert!(!cut.recv().unwrap());
    assert!(durable.try_recv().is_err());
    lane.step();
    assert!(durable.recv().unwrap());
}

#[test]
fn a_full_disk_takes_smaller_segments_and_then_fails_with_its_reason() {
    let disk = CrashDisk::new();
    disk.fail(Faults { capacity_bytes: Some(200 << 10), ..Faults::default() });
    let lane = open(&disk).unwrap();
    let (done, first) = reporting();
    lane.append(GROUP, vec![entry(1, 0, 10)], done).unwrap();
    lane.step();
    assert!(first.recv().unwrap(), "256 KiB do not fit, 64 KiB do");
    let (done, second) = reporting();
    lane.append(GROUP, vec![entry(1, 1, 400_000)], done).unwrap();
    lane.step();
    assert!(!second.recv().unwrap());
    assert!(lane.status().failed.is_some());
}

/// Some segments, sealed and unsealed, and the operations that made them.
fn filled() -> (CrashDisk, Vec<Op>) {
    let mut disk = CrashDisk::new();
    let mut ops = Vec::new();
    for life in 0..3 {
        let lane = open(&disk).unwrap();
        for index in life * 4..life * 4 + 4 {
            let entries = vec![entry(life + 1, index, 70_000)];
            ops.push(Op::Append(GROUP, entries.clone()));
            lane.append(GROUP, entries, Box::new(|result| result.unwrap())).unwrap();
            lane.step();
        }
        disk = disk.crash(Unsynced::Dropped, &Chance::new(life));
    }
    (disk, ops)
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_or_a_torn_tail_but_never_other_bytes() {
    let (disk, ops) = filled();
    assert_eq!(difference(&open(&disk).unwrap(), &replay(&ops)), None);
    let chance = Chance::new(7);
    let (mut refused, mut damaged, mut torn) = (0, 0, 0);
    for name in disk.list().unwrap() {
        let file = disk.open(&name).unwrap();
        let length = file.len().unwrap();
        let mut bytes = vec![0; length as usize];
        file.read_at(0, &mut bytes).unwrap();
        let pages = (0..length).step_by(4096);
        let batches = pages.filter(|at| bytes[*at as usize..].starts_with(b"TRBA")).map(|at| at + 20);
        for offset in (0..length).step_by(997).chain(batches) {
            let rotten = disk.crash(Unsynced::Kept, &chance);
            rotten.rot(&name, offset, 1 << chance.below(8));
            let lane = match open(&rotten) {
                Err(OpenError::Damaged(_) | OpenError::Newer { .. } | OpenError::Foreign { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("{name} at {offset}: {other}"),
                Ok(lane) => lane,
            };
            let last = lane.state(GROUP).last.map_or(0, |last| last.index + 1) as usize;
            // Only the very last batch may be taken for torn: nothing proves that it was durable.
            assert!(last >= ops.len() - 1, "{name} at {offset}: {last} entries are left");
            torn += usize::from(last < ops.len());
            for op in &ops[..last] {
                let Op::Append(_, entries) = op else { unreachable!() };
                let entry = &entries[0];
                match lane.body(GROUP, entry.position.index, None, 0..u64::from(entry.body.len())) {
                    Ok(body) => assert_eq!(Body::Here(body), entry.body, "{name} at {offset}"),
                    Err(LaneError::Damaged(_)) => damaged += 1,
                    Err(other) => panic!("{name} at {offset}: {other}"),
                }
            }
        }
    }
    assert!(refused > 0 && damaged > 0 && torn > 0, "refused {refused}, damaged {damaged}, torn {torn}");
}

#[test]
fn a_disk_of_another_node_is_refused_with_what_to_do() {
    let (disk, _) = filled();
    let identity = Identity { node_uuid: [9; 16], ..IDENTITY };
    let options = LaneOptions { writer: Writer::Stepped, ..LaneOptions::new(identity) };
    let error = Lane::open(Arc::new(disk), Arc::new(Still), options).expect_err("another node's");
    assert!(error.to_string().contains("belongs to another node"), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
}

#[test]
fn a_log_read_is_complete_and_bounded_and_never_empty() {
    let lane = open(&CrashDisk::new()).unwrap();
    lane.append(GROUP, (0..200).map(|index| entry(1, index, 100)).collect(), Box::new(|_| {})).unwrap();
    assert_eq!(lane.entries(GROUP, 0..200, u64::MAX).unwrap().len(), 200);
    assert_eq!(lane.entries(GROUP, 5..200, 0).unwrap().len(), 1);
    let some = lane.entries(GROUP, 0..200, 1_000).unwrap().len();
    assert!((2..=10).contains(&some), "{some}");
    assert!(lane.entries(GROUP, 199..201, u64::MAX).is_err(), "never short because of an absent entry");
}

fn golden(version: u8) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/segment-v{version}.bin"))
}

#[test]
fn the_bytes_of_a_segment_are_those_of_version_3() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 5), entry(1, 1, 66_000)], Box::new(|_| {})).unwrap();
    lane.save_vote(GROUP, Bytes::from_static(b"vote of 1"), Box::new(|_| {})).unwrap();
    lane.step();
    lane.save_committed(GROUP, at(1, 1)).unwrap();
    lane.truncate_after(GROUP, Some(0), Box::new(|_| {})).unwrap();
    lane.step();
    lane.append(GroupId(2), vec![entry(3, 0, 0)], Box::new(|_| {})).unwrap();
    lane.append_blocks(GroupId(3), vec![(4, body(1, 4, 9)), (2, body(1, 2, 7))], Box::new(|_| {})).unwrap();
    lane.append(GroupId(4), vec![elided(2, 0, 70_000)], Box::new(|_| {})).unwrap();
    lane.shutdown();
    let file = disk.open("segment-0000000000000001.lane").unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(golden(3), &bytes).unwrap();
    }
    assert!(bytes == std::fs::read(golden(3)).unwrap(), "the format changed: raise VERSION, keep reading the old one");
}

#[test]
fn segments_of_every_version_are_read() {
    for version in [1, 2, 3] {
        let disk = CrashDisk::new();
        let file = disk.create("segment-0000000000000001.lane").unwrap();
        let bytes = std::fs::read(golden(version)).unwrap();
        file.write_at(0, &[std::io::IoSlice::new(&bytes)]).unwrap();
        let lane = open(&disk).unwrap_or_else(|error| panic!("version {version}: {error}"));
        assert_eq!(lane.state(GROUP).last, Some(at(1, 0)), "version {version}");
        assert_eq!(lane.state(GROUP).vote.as_deref(), Some(&b"vote of 1"[..]));
        assert_eq!(lane.body(GROUP, 0, Some(1), 0..5).unwrap(), body(1, 0, 5));
        assert_eq!(lane.state(GroupId(2)).last, Some(at(3, 0)));
        if version >= 2 {
            assert_eq!(lane.body(GroupId(3), 2, None, 0..7).unwrap(), body(1, 2, 7));
            assert_eq!(lane.body(GroupId(3), 3, None, 0..7), Err(LaneError::Absent { group: GroupId(3), index: 3 }));
            assert!(lane.holds(GroupId(3), 4, 9) && !lane.holds(GroupId(3), 4, 8));
        }
        if version >= 3 {
            let (group, index) = (GroupId(4), 0);
            assert_eq!(lane.body(group, index, Some(2), 0..70_000), Err(LaneError::Elided { group, index }));
            let thin = lane.entries(group, 0..1, 0).unwrap();
            assert!(thin[0].elided && thin[0].body_len == 70_000 && !lane.holds(group, index, 70_000));
        }
    }
}

#[test]
fn a_block_repairs_a_damaged_entry() {
    let (disk, _) = filled();
    let lane = open(&disk).unwrap();
    let whole = body(1, 1, 66_000);
    lane.append(GroupId(9), vec![entry(1, 1, 66_000)], Box::new(|_| {})).unwrap();
    while lane.step() {}
    lane.shutdown();
    let name = disk.list().unwrap().pop().unwrap();
    let file = disk.open(&name).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let at = bytes.windows(64).position(|window| window == &whole[30_000..30_064]).unwrap() as u64;
    file.write_at(at, &[std::io::IoSlice::new(&[whole[30_000] ^ 1])]).unwrap();
    let lane = open(&disk).unwrap();
    let read = |lane: &Lane| lane.body(GroupId(9), 1, Some(1), 0..66_000);
    assert!(matches!(read(&lane), Err(LaneError::Damaged(_))));
    lane.append_blocks(GroupId(9), vec![(1, whole.clone())], Box::new(|_| {})).unwrap();
    while lane.step() {}
    assert_eq!(read(&lane).unwrap(), whole);
    lane.shutdown();
    assert_eq!(read(&open(&disk).unwrap()).unwrap(), whole, "after a restart too");
}

#[test]
fn a_crash_gives_back_the_space_that_was_reserved() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 10)], Box::new(|_| {})).unwrap();
    while lane.step() {}
    let after = disk.crash(Unsynced::Kept, &Chance::new(1));
    let length = |disk: &CrashDisk| disk.open(&disk.list().unwrap()[0]).unwrap().len().unwrap();
    assert_eq!(length(&after), 256 << 10, "the whole segment was reserved");
    let lane = open(&after).unwrap();
    assert!(length(&after) < 32 << 10, "{} bytes are kept", length(&after));
    assert_eq!(lane.body(GROUP, 0, None, 0..10).unwrap(), body(1, 0, 10));
    // A second start finds the same, and a torn batch behind the last good one is not cut away.
    drop(lane);
    assert_eq!(open(&after).unwrap().state(GROUP).last, Some(at(1, 0)));
}

#[test]
fn a_log_that_was_founded_is_never_without_a_segment() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    assert_eq!(lane.status().segments, 0);
    let (done, founded) = reporting();
    lane.found(done).unwrap();
    while lane.step() {}
    assert!(founded.recv().unwrap());
    let after = open(&disk.crash(Unsynced::Dropped, &Chance::new(1))).unwrap();
    assert_eq!(after.status().segments, 1);
}
