//! Damage and dead bytes on one node's disk: scrub mends, compaction gives back, and nothing that is needed is lost.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod world;

use raft_groups::Retention;
use raft_lanes::crash::{CrashDisk, Unsynced};
use raft_types::{Disk, GroupId, Propose, Seed};
use world::*;

/// Flips `count` random bits of the segments on a disk.
fn rot(world: &World, disk: &CrashDisk, count: u32) {
    let names: Vec<_> = disk.list().expect("names").into_iter().filter(|name| name.ends_with(".lane")).collect();
    let lengths: Vec<u64> = names.iter().map(|name| disk.open(name).expect("there").len().expect("length")).collect();
    for _ in 0..count {
        let mut at = world.seed.next() % lengths.iter().sum::<u64>();
        let which = lengths.iter().position(|length| at.checked_sub(*length).map(|rest| at = rest).is_none());
        disk.rot(&names[which.expect("within")], at, 1 << (world.seed.next() % 8));
    }
}

/// The segments of a disk, with what is in them.
fn segments(disk: &CrashDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().expect("names").into_iter().filter(|name| name.ends_with(".lane"));
    let read = |name: String| {
        let file = disk.open(&name).expect("there");
        let mut bytes = vec![0; file.len().expect("length") as usize];
        file.read_at(0, &mut bytes).expect("read");
        (name, bytes)
    };
    names.map(read).collect()
}

async fn scrub(world: &World, name: &str) -> raft_types::UpkeepStatus {
    let order = world.node(name).order_scrub();
    until("the scrub ends", world, |world| world.node(name).status().upkeep.scrub_orders_done >= order).await;
    world.node(name).status().upkeep
}

fn on_its_own_disk(world: &World, name: &str, written: &[(u32, u64, String)]) {
    for (group, index, text) in written {
        let body = world.running[name].lane.body(GroupId(*group), *index, None, 0..5_000);
        assert_eq!(body.expect("every body is on its disk")[..], [text.len() as u8; 5_000], "{group}/{index}");
    }
}

/// With the log kept and with all of it purged; while the node runs, and while it is stopped.
#[tokio::test(start_paused = true)]
async fn a_thousand_flipped_bits_on_one_of_three_nodes_are_mended_by_one_scrub() {
    for (seed, retention, running) in [
        (51, Retention::default(), true),
        (52, KEEP_NOTHING, true),
        (53, Retention::default(), false),
        (54, KEEP_NOTHING, false),
    ] {
        let mut world = World::new(seed, &NAMES);
        world.retention = retention;
        world.start_all().await;
        let mut written = Vec::new();
        for round in 0..8 {
            write_some(&world, "n1", &format!("before {round}"), &mut written).await;
        }
        world.holds("n2", &written).await;
        if retention == KEEP_NOTHING {
            let last = written.clone();
            until("the log is purged", &world, |world| {
                last.iter().all(|(group, index, _)| is_purged(world, "n2", *group, *index))
            })
            .await;
        }
        if running {
            rot(&world, &world.running["n2"].disk.clone(), 1_000);
        } else {
            let left = world.stop("n2").await;
            rot(&world, &left.disk, 1_000);
            world.start("n2", left).await;
            world.until_ready("n2").await;
        }
        // Served all the while, by peers where the own copy is damaged.
        world.holds("n2", &written).await;
        let first = scrub(&world, "n2").await;
        assert!(first.damaged_found > 20, "seed {seed}: {first:?}");
        assert_eq!(
            (first.damaged_left, first.damaged_found - first.damaged_repaired),
            (0, 0),
            "seed {seed}: {first:?}"
        );
        let second = scrub(&world, "n2").await;
        assert_eq!(second.damaged_found, first.damaged_found, "seed {seed}: the second scrub finds nothing");
        on_its_own_disk(&world, "n2", &written);
        // A power cut later all is there, and the node still counts.
        let left = world.kill("n2", Unsynced::Dropped).await;
        world.start("n2", left).await;
        world.until_ready("n2").await;
        on_its_own_disk(&world, "n2", &written);
        world.kill("n1", Unsynced::Dropped).await;
        write_some(&world, "n2", "after", &mut written).await;
        world.holds("n2", &written).await;
    }
}

/// Flips a bit in the head of a batch in the middle of the newest segment, as a crash left it.
fn hole(disk: &CrashDisk) {
    let (name, bytes) = segments(disk).into_iter().max().expect("a segment");
    let batches: Vec<usize> = (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"TRBA")).collect();
    assert!(batches.len() > 8, "{name}: {} batches", batches.len());
    disk.rot(&name, batches[batches.len() / 2] as u64 + 100, 1);
}

/// Of two batches in a row whose headers are lost the records of the second are found by way of the footer alone. Where that is
/// damaged too they are still served by it, but the rewrite believes it not, and has head and body from a peer.
#[tokio::test(start_paused = true)]
async fn what_only_a_damaged_footer_finds_is_mended_by_one_scrub() {
    let mut world = World::new(56, &NAMES);
    world.start_all().await;
    let mut written = Vec::new();
    for round in 0..4 {
        write_some(&world, "n1", &format!("before {round}"), &mut written).await;
    }
    world.holds("n2", &written).await;
    assert_eq!(scrub(&world, "n2").await.damaged_found, 0); // ends the open segment
    let disk = world.running["n2"].disk.clone();
    let closed = world.running["n2"].lane.closed_segments();
    let is_closed = |name: &str| closed.iter().any(|own| name == format!("segment-{:016x}.lane", own.sequence));
    for (name, bytes) in segments(&disk).into_iter().filter(|(name, _)| is_closed(name)) {
        let batches = (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"TRBA"));
        for (_, at) in batches.enumerate().filter(|(number, _)| number % 4 >= 2) {
            disk.rot(&name, at as u64 + 1, 1);
        }
        disk.rot(&name, bytes.len() as u64 - 20, 1);
    }
    let found = scrub(&world, "n2").await;
    assert!(found.damaged_found > 10, "{found:?}");
    assert_eq!((found.damaged_left, found.damaged_repaired), (0, found.damaged_found), "{found:?}");
    on_its_own_disk(&world, "n2", &written);
    assert_eq!(scrub(&world, "n2").await.damaged_found, found.damaged_found, "the second finds nothing");
}

/// A deleted image's body is still in the log: damaged, it helps nobody, and nobody need have it.
#[tokio::test(start_paused = true)]
async fn a_damaged_body_that_no_row_names_goes() {
    let mut world = World::new(58, &NAMES);
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    let text = "spent with a text of a length that no other has";
    let index = world.write("n1", 1, text).await.expect("kept");
    written.push((1, index, text.into()));
    world.holds("n2", &written).await;
    written.pop();
    assert_eq!(scrub(&world, "n2").await.damaged_found, 0); // ends the open segment
    let (disk, whole) = (world.running["n2"].disk.clone(), vec![text.len() as u8; 5_000]);
    let mut hit = 0;
    for (name, bytes) in segments(&disk) {
        if let Some(at) = bytes.windows(5_000).position(|window| window == whole) {
            disk.rot(&name, at as u64 + 2_500, 1);
            hit += 1;
        }
    }
    assert_eq!(hit, 1);
    let found = scrub(&world, "n2").await;
    assert_eq!((found.damaged_found, found.damaged_left), (1, 0), "{found:?}");
    assert_eq!(scrub(&world, "n2").await.damaged_found, 1, "the second finds nothing");
    on_its_own_disk(&world, "n2", &written);
    // Its entry stays in the log: the node restarts, leads and writes.
    let left = world.kill("n2", Unsynced::Dropped).await;
    world.start("n2", left).await;
    world.until_ready("n2").await;
    world.node("n1").drain().await;
    write_some(&world, "n2", "after", &mut written).await;
    world.holds("n3", &written).await;
}

/// What a leader has damaged of its log, it has from a third node when a peer needs it.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_log_is_damaged_catches_a_peer_up_all_the_same() {
    let mut world = World::new(57, &NAMES);
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "all have it", &mut written).await;
    world.holds("n3", &written).await;
    let behind = world.kill("n3", Unsynced::Dropped).await;
    let from = written.len();
    for round in 0..3 {
        write_some(&world, "n1", &format!("n3 lacks it {round}"), &mut written).await;
    }
    world.holds("n2", &written).await;
    let left = world.stop("n2").await;
    let mut hit = 0;
    for (name, bytes) in segments(&left.disk) {
        for (number, (_, _, text)) in written.iter().enumerate().skip(from).step_by(2) {
            let text = text.as_bytes();
            if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
                left.disk.rot(&name, at as u64, 1 << (number % 8));
                hit += 1;
            }
        }
    }
    assert!(hit > 30, "{hit} heads are damaged");
    world.start("n2", left).await;
    world.until_ready("n2").await;
    world.node("n1").drain().await;
    until("n2 leads all groups", &world, |world| {
        let groups = world.node("n2").status().groups;
        groups.iter().all(|own| own.leader.as_deref() == Some("n2"))
    })
    .await;
    world.start("n3", behind).await;
    world.until_ready("n3").await;
    write_some(&world, "n2", "after", &mut written).await;
    world.holds("n3", &written).await;
    world.holds("n2", &written).await;
    assert_eq!(*world.node("n2").fatal().borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_log_has_a_hole_never_acts_under_its_raft_id_again_and_loses_nothing() {
    for (seed, retention) in [(71, Retention::default()), (72, KEEP_NOTHING)] {
        let mut world = World::new(seed, &NAMES);
        world.retention = retention;
        world.start_all().await;
        let mut written = Vec::new();
        for round in 0..3 {
            write_some(&world, "n1", &format!("before {round}"), &mut written).await;
        }
        world.holds("n2", &written).await;
        let id = |world: &World| world.node("n1").status().nodes[1].id.expect("registered");
        let before = id(&world);
        let left = world.kill("n2", Unsynced::Dropped).await;
        hole(&left.disk);
        // It dies again and again on its way: nothing of that is under the old id.
        let mut left = Some(left);
        for moment in [0, 20, 200, 2_000] {
            world.start("n2", left.take().expect("stopped")).await;
            let acts_as = world.node("n2").identity().borrow().raft_id;
            assert!(acts_as.is_none_or(|own| own != before), "seed {seed}: it acts as {acts_as:?}");
            tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
            left = Some(world.kill("n2", Unsynced::Dropped).await);
        }
        world.start("n2", left.take().expect("stopped")).await;
        world.until_ready("n2").await;
        write_some(&world, "n1", "meanwhile", &mut written).await;
        until("n2 is a voter under another id", &world, |world| {
            let (own, groups) = (id(world), world.node("n1").status().groups);
            own != before && groups.iter().all(|group| group.voter_ids.contains(&own) && group.leader.is_some())
        })
        .await;
        world.holds("n2", &written).await;
        on_its_own_disk(&world, "n2", &written);
        assert_eq!(scrub(&world, "n2").await.damaged_left, 0, "seed {seed}");
        world.kill("n3", Unsynced::Dropped).await;
        write_some(&world, "n2", "after", &mut written).await;
        world.holds("n2", &written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_node_with_a_hole_in_its_log_starts_and_serves_what_verifies() {
    let mut world = World::new(73, &["n1"]);
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    let left = world.kill("n1", Unsynced::Kept).await;
    hole(&left.disk);
    world.start("n1", left).await;
    world.until_ready("n1").await;
    let status = world.node("n1").status();
    assert!(status.upkeep.hole.is_some(), "{status:?}");
    let lane = &world.running["n1"].lane;
    let reads = written.iter().map(|(group, index, text)| (text, lane.body(GroupId(*group), *index, None, 0..5_000)));
    let mut damaged = 0;
    for (text, read) in reads {
        match read {
            Ok(body) => assert_eq!(body[..], [text.len() as u8; 5_000]),
            Err(raft_lanes::LaneError::Damaged(_)) => damaged += 1,
            Err(error) => panic!("{text}: {error}"),
        }
    }
    assert!(damaged <= 1, "{damaged}: one record was hit");
    write_some(&world, "n1", "after", &mut written).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_on_a_single_node_is_said_and_never_dropped() {
    let mut world = World::new(55, &["n1"]);
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    assert_eq!(scrub(&world, "n1").await.damaged_found, 0);
    let disk = world.running["n1"].disk.clone();
    let whole = vec![written[0].2.len() as u8; 5_000];
    for (name, bytes) in segments(&disk) {
        if let Some(at) = bytes.windows(5_000).position(|window| window == whole) {
            disk.rot(&name, at as u64 + 2_500, 1);
            break;
        }
    }
    for _ in 0..2 {
        let found = scrub(&world, "n1").await;
        assert_eq!((found.damaged_left, found.damaged_repaired), (1, 0), "{found:?}");
    }
    let left = world.stop("n1").await;
    world.start("n1", left).await;
    world.until_ready("n1").await;
    assert_eq!(scrub(&world, "n1").await.damaged_left, 1, "after a restart too");
    let lane = &world.running["n1"].lane;
    let damaged: Vec<_> =
        written.iter().map(|(group, index, _)| lane.body(GroupId(*group), *index, None, 0..5_000)).collect();
    let errors: Vec<_> = damaged.iter().filter_map(|read| read.as_ref().err()).collect();
    assert!(matches!(errors[..], [raft_lanes::LaneError::Damaged(_)]), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn what_no_row_names_gives_its_space_back_and_the_rest_stays() {
    for (seed, names) in [(61, &NAMES[..]), (62, &["n1"])] {
        let mut world = World::new(seed, names);
        world.retention = KEEP_NOTHING;
        world.start_all().await;
        let (mut written, mut spent) = (Vec::new(), Vec::new());
        for round in 0..20 {
            write_some(&world, "n1", &format!("spent {round}"), &mut spent).await;
            if round % 4 == 0 {
                write_some(&world, "n1", &format!("kept {round}"), &mut written).await;
            }
        }
        world.holds(names[names.len() - 1], &written).await;
        let all = written.clone();
        until("the log is purged", &world, |world| {
            names.len() == 1
                || names.iter().all(|name| all.iter().all(|(group, index, _)| is_purged(world, name, *group, *index)))
        })
        .await;
        for name in names.iter().copied() {
            scrub(&world, name).await; // ends the open segment
            let used = world.running[name].disk.used_bytes();
            let order = world.node(name).order_compaction();
            until("the compaction ends", &world, |world| world.node(name).status().upkeep.compact_orders_done >= order)
                .await;
            let status = world.node(name).status().upkeep;
            let left = world.running[name].disk.used_bytes();
            assert!(
                status.reclaimed_bytes > 1_000_000 && left + 1_000_000 < used,
                "{name}: {used} → {left}, {status:?}"
            );
            on_its_own_disk(&world, name, &written);
            assert_eq!(scrub(&world, name).await.damaged_found, 0);
            let dead = world.kill(name, Unsynced::Dropped).await;
            world.start(name, dead).await;
            world.until_ready(name).await;
            on_its_own_disk(&world, name, &written);
            world.holds(name, &written).await;
            write_some(&world, name, "after", &mut written).await;
        }
    }
}
