//! A log with a hole: what is certain of it is read, the rest says "damaged", and no index answers with bytes of another entry.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use common::{Chance, IDENTITY, Op, Still, at, entry, open, open_around, replay};
use raft_lanes::{
    Body, Identity, Lane, LaneError, LaneOptions, OnHole, OpenError, Spent, Writer,
    crash::{CrashDisk, Unsynced},
};
use raft_types::{Disk, GroupId};
use std::{collections::BTreeMap, sync::Arc};

const GROUP: GroupId = GroupId(1);

fn finish(lane: &Lane) {
    while lane.step() {}
}

/// Two lives, each of which ends in a crash; the first truncates what it wrote, and writes it anew.
fn filled() -> (CrashDisk, Vec<Op>) {
    let mut disk = CrashDisk::new();
    let mut ops = Vec::new();
    for life in 0..2u64 {
        let lane = open(&disk).unwrap();
        let append = |term, index, ops: &mut Vec<Op>| {
            let entries = vec![entry(term, index, 9_000)];
            lane.append(GROUP, entries.clone(), Box::new(|result| result.unwrap())).unwrap();
            lane.step();
            ops.push(Op::Append(GROUP, entries));
        };
        let base = life * 8;
        (base..base + 6).for_each(|index| append(1 + 2 * life, index, &mut ops));
        lane.save_committed(GROUP, at(1 + 2 * life, base + 2)).unwrap();
        lane.truncate_after(GROUP, Some(base + 3), Box::new(|result| result.unwrap())).unwrap();
        lane.step();
        ops.push(Op::Truncate(GROUP, Some(base + 3)));
        (base + 4..base + 8).for_each(|index| append(2 + 2 * life, index, &mut ops));
        disk = disk.crash(Unsynced::Dropped, &Chance::new(life));
    }
    (disk, ops)
}

/// Where batches start in a file.
fn batches(disk: &CrashDisk, name: &str) -> Vec<u64> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    (0..bytes.len() as u64).step_by(4096).filter(|at| bytes[*at as usize..].starts_with(b"TRBA")).collect()
}

#[test]
fn around_a_hole_every_index_answers_with_its_own_bytes_or_says_damaged() {
    let (disk, ops) = filled();
    let model = &replay(&ops)[&GROUP];
    let chance = Chance::new(2);
    let (mut whole, mut damaged, mut suspects) = (0, 0, 0);
    for name in disk.list().unwrap() {
        for batch in batches(&disk, &name) {
            for offset in [1, 20, 61, 70, 100, 140, 200] {
                let rotten = disk.crash(Unsynced::Kept, &chance);
                rotten.rot(&name, batch + offset, 1 << chance.below(8));
                let Ok(lane) = open_around(&rotten, OnHole::Suspect) else { panic!("{name} at {batch} + {offset}") };
                if lane.suspect().is_none() {
                    continue; // the last batch of all: torn
                }
                suspects += 1;
                for (index, entry) in &model.entries {
                    match lane.body(GROUP, *index, None, 0..9_000) {
                        Ok(body) => {
                            whole += 1;
                            assert_eq!(Body::Here(body), entry.body, "{name} at {batch} + {offset}: {index}");
                        }
                        Err(LaneError::Damaged(_)) => damaged += 1,
                        // Behind the end of what is certain, when nothing comes behind the hole.
                        Err(LaneError::Absent { .. }) => assert!(lane.state(GROUP).last.unwrap().index < *index),
                        Err(error) => panic!("{name} at {batch} + {offset}: {index}: {error}"),
                    }
                }
                // What raft/groups then does: the log is given up beyond the rows, and the hole rewritten away.
                let rows = lane.state(GROUP).last.unwrap();
                lane.purge(GROUP, rows, Box::new(|result| result.unwrap())).unwrap();
                lane.turn(Box::new(|result| result.unwrap())).unwrap();
                finish(&lane);
                let live = (0..=rows.index).filter(|index| lane.holds(GROUP, *index, 9_000)).collect();
                let spent = BTreeMap::from([(GROUP, Spent { upto: rows.index, live, alone: false })]);
                for closed in lane.closed_segments().into_iter().filter(|own| own.damaged.is_some()) {
                    lane.rewrite(closed.sequence, &spent, &BTreeMap::new(), &mut |_| true)
                        .unwrap_or_else(|error| panic!("{name} at {batch} + {offset}: {error}"));
                }
                drop(lane);
                let lane = open(&rotten).unwrap_or_else(|error| panic!("{name} at {batch} + {offset}: {error}"));
                assert_eq!(lane.state(GROUP).last, Some(rows));
                for (index, entry) in model.entries.iter().filter(|(index, _)| **index <= rows.index) {
                    if let Ok(body) = lane.body(GROUP, *index, None, 0..9_000) {
                        assert_eq!(Body::Here(body), entry.body, "{name} at {batch} + {offset}: {index}, later");
                    }
                }
            }
        }
    }
    assert!(suspects > 50 && whole > damaged, "suspects {suspects}, whole {whole}, damaged {damaged}");
}

/// Alone nothing is in doubt but what the flipped bit hit, and nothing is cut.
#[test]
fn a_lane_without_peers_keeps_all_but_the_record_that_was_hit() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    for index in 0..10 {
        lane.append(GROUP, vec![entry(1, index, 9_000)], Box::new(|result| result.unwrap())).unwrap();
        lane.step();
    }
    let disk = disk.crash(Unsynced::Dropped, &Chance::new(1));
    let name = disk.list().unwrap().remove(0);
    let hit = batches(&disk, &name)[5]; // the checkpoint is the first one
    disk.rot(&name, hit + 70, 1);
    assert!(matches!(open(&disk), Err(OpenError::Damaged(_))), "by default it does not open");
    let lane = open_around(&disk, OnHole::SuspectAlone).unwrap();
    assert!(lane.suspect().is_some());
    assert_eq!(lane.state(GROUP).last, Some(at(1, 9)));
    for index in 0..10 {
        let read = lane.body(GROUP, index, None, 0..9_000);
        match index {
            4 => assert!(matches!(read, Err(LaneError::Damaged(_))), "{read:?}"),
            _ => assert_eq!(Body::Here(read.unwrap()), entry(1, index, 9_000).body),
        }
    }
}

/// A node that was given a new uuid still has its old segments; one that was not has them no more.
#[test]
fn segments_of_a_former_uuid_of_the_node_are_its_own() {
    let disk = CrashDisk::new();
    let lane = open(&disk).unwrap();
    lane.append(GROUP, vec![entry(1, 0, 10)], Box::new(|result| result.unwrap())).unwrap();
    lane.shutdown();
    let identity = Identity { node_uuid: [9; 16], ..IDENTITY };
    let options =
        |former| LaneOptions { writer: Writer::Stepped, former_node_uuids: former, ..LaneOptions::new(identity) };
    let open = |options| Lane::open(Arc::new(disk.clone()), Arc::new(Still), options);
    assert!(matches!(open(options(Vec::new())), Err(OpenError::Foreign { .. })));
    let lane = open(options(vec![IDENTITY.node_uuid])).unwrap();
    assert_eq!(lane.state(GROUP).last, Some(at(1, 0)));
}
