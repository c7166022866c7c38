//! One and three nodes over disks that forget and a wire that loses: what is acknowledged stays, whatever stops.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod world;

use raft_groups::testing::Journal;
use raft_lanes::crash::Unsynced;
use raft_types::{GroupId, NodeHealth, Propose, StateMachine};
use std::time::Duration;
use tokio::time::Instant;
use world::*;

#[tokio::test(start_paused = true)]
async fn a_single_node_keeps_what_it_acknowledged_across_kills() {
    let mut world = World::new(1, &["n1"]);
    world.start_all().await;
    let mut written = Vec::new();
    for (life, unsynced) in [Unsynced::Dropped, Unsynced::Torn, Unsynced::Kept].into_iter().enumerate() {
        for number in 0..20u32 {
            let (group, text) = (number % 4 + 1, format!("{life}-{number}"));
            written.push((group, world.write("n1", group, &text).await.expect("a majority of one"), text));
        }
        let disk = world.kill("n1", unsynced).await;
        world.start("n1", disk).await;
        world.until_ready("n1").await;
        world.holds("n1", &written).await;
    }
    assert_eq!(world.node("n1").status().replication_factor, 1);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_form_one_cluster_and_each_takes_writes_for_every_group() {
    let mut world = World::new(2, &NAMES);
    world.start_all().await;
    let mut written = Vec::new();
    for (turn, name) in NAMES.iter().cycle().take(12).enumerate() {
        let (group, text) = (turn as u32 % 4 + 1, format!("w{turn}"));
        written.push((group, world.write(name, group, &text).await.expect("all are up"), text));
    }
    for name in NAMES {
        world.holds(name, &written).await;
        let status = world.node(name).status();
        assert_eq!((status.survives_failures, status.replication_factor), (1, 3), "{name}");
        assert!(status.nodes.iter().all(|node| node.health == NodeHealth::Up), "{status:#?}");
    }
    let ids: Vec<_> = world.node("n1").status().nodes.iter().map(|node| node.id.expect("registered").0).collect();
    assert_eq!(ids[0], 1);
    assert!(ids[1] > 1 && ids[2] > 1 && ids[1] != ids[2], "raft ids are meta log indices: {ids:?}");
}

#[tokio::test(start_paused = true)]
async fn writes_go_on_without_a_killed_leader_and_it_catches_up_when_it_is_back() {
    for seed in 3..8 {
        let mut world = World::new(seed, &NAMES);
        world.start_all().await;
        let mut written = Vec::new();
        for round in 0..3u32 {
            let group = round % 4 + 1;
            let victim = world.leader(group).expect("led");
            let victim = *NAMES.iter().find(|name| **name == victim).expect("one of ours");
            let disk = world.kill(victim, [Unsynced::Dropped, Unsynced::Torn][round as usize % 2]).await;
            let survivor = *NAMES.iter().find(|name| **name != victim).expect("two are left");
            let began = Instant::now();
            for number in 0..4u32 {
                let (group, text) = (number + 1, format!("{seed}-{round}-{number}"));
                written.push((group, world.write(survivor, group, &text).await.expect("two of three are up"), text));
            }
            assert!(began.elapsed() < Duration::from_secs(8), "the gap was {:?}", began.elapsed());
            world.start(victim, disk).await;
            world.until_ready(victim).await;
            for name in NAMES {
                world.holds(name, &written).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_serves_no_stale_read_and_acknowledges_nothing() {
    let mut world = World::new(9, &NAMES);
    world.start_all().await;
    world.write("n1", 1, "before").await.expect("all are up");
    let alone = world.leader(1).expect("led");
    for other in NAMES.iter().filter(|name| **name != alone) {
        world.hub.cut(&alone, other);
        world.hub.cut(other, &alone);
    }
    let (read, write) =
        tokio::join!(world.node(&alone).read_index(vec![GroupId(1)]), world.write(&alone, 1, "cut off"));
    assert!(read.is_err(), "a read index without a majority");
    assert!(write.is_err(), "an acknowledgement without a majority");
    let other = *NAMES.iter().find(|name| **name != alone).expect("two");
    world.write(other, 1, "majority").await.expect("two of three");
    world.hub.heal();
    let index = world.write(&alone, 1, "after").await.expect("healed");
    for name in NAMES {
        world.holds(name, &[(1, index, "after".to_owned())]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_node_initialises_while_one_expected_peer_is_silent() {
    let mut world = World::new(10, &NAMES);
    world.start("n1", Left::default()).await;
    world.start("n2", Left::default()).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    for name in ["n1", "n2"] {
        let status = world.node(name).status();
        assert!(status.cluster_id.is_none() && !status.ready, "{status:#?}");
        assert!(status.phase.contains("n3"), "it says who is missing: {}", status.phase);
    }
    world.start("n3", Left::default()).await;
    for name in NAMES {
        world.until_ready(name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_leads_nothing_and_the_others_go_on_at_once() {
    let mut world = World::new(11, &NAMES);
    world.start_all().await;
    world.node("n2").drain().await;
    let status = world.node("n2").status();
    assert!(!status.ready);
    let leads = world.node("n1").status().groups.iter().filter(|group| group.leader.as_deref() == Some("n2")).count();
    assert_eq!(leads, 0);
    for group in 1..=4 {
        world.write("n1", group, "drained").await.expect("led by another");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_after_the_log_was_purged_gets_rows_by_snapshot_and_pulls_what_it_misses() {
    for unsynced in [Unsynced::Kept, Unsynced::Dropped] {
        let mut world = World::new(21, &NAMES);
        world.retention = KEEP_NOTHING;
        world.start_all().await;
        let mut written = Vec::new();
        write_some(&world, "n1", "before", &mut written).await;
        let left = world.kill("n3", unsynced).await;
        write_some(&world, "n1", "while away", &mut written).await;
        let last = written.clone();
        until("the log is purged", &world, |world| {
            last.iter().all(|(group, index, _)| {
                is_purged(world, "n1", *group, *index) && is_purged(world, "n2", *group, *index)
            })
        })
        .await;
        world.start("n3", left).await;
        world.until_ready("n3").await;
        until("n3 misses nothing", &world, |world| {
            let incomplete = world.running["n3"].journal.incomplete().expect("in memory");
            incomplete.is_empty() && world.running["n3"].journal.commands(GroupId(1)).len() >= 12
        })
        .await;
        // The others stop: what n3 serves now lies on its own disk.
        world.holds("n3", &written).await;
        for (group, index, text) in &written {
            let body = world.running["n3"].lane.body(GroupId(*group), *index, None, 0..5_000).expect("here");
            assert_eq!(body[0], text.len() as u8);
        }
        // And it counts: with it, one of the others may go.
        world.kill("n2", Unsynced::Dropped).await;
        write_some(&world, "n3", "after", &mut written).await;
        world.holds("n3", &written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_disk_replaces_a_lost_one_and_becomes_a_voter_only_with_every_body() {
    for (seed, by_itself) in [(31, false), (32, true)] {
        let mut world = World::new(seed, &NAMES);
        world.retention = KEEP_NOTHING;
        world.replace_after = Duration::from_secs(if by_itself { 20 } else { 100_000 });
        world.start_all().await;
        let mut written = Vec::new();
        write_some(&world, "n1", "before", &mut written).await;
        let last = written.clone();
        until("the log is purged", &world, |world| {
            last.iter().all(|(group, index, _)| is_purged(world, "n1", *group, *index))
        })
        .await;
        let old_id = world.node("n1").status().nodes[1].id;
        let old = world.kill("n2", Unsynced::Kept).await;
        world.start("n2", Left::default()).await;
        if !by_itself {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(!world.node("n2").status().ready, "nobody has given the old disk up");
            world.node("n3").replace("n2").await.expect("a majority is up");
        }
        world.until_ready("n2").await;
        let is_member = |world: &World| {
            let groups = world.node("n1").status().groups;
            let journal = &world.running["n2"].journal;
            let id = world.node("n2").status().nodes[1].id;
            let is_voter = |group: &raft_types::GroupStatus| {
                group.leader.is_some() && group.voter_ids.contains(&id.expect("registered"))
            };
            id.is_some()
                && id != old_id
                && groups.iter().all(is_voter)
                && journal.incomplete().expect("in memory").is_empty()
        };
        // Writes go on all the while, whoever is asked.
        for round in 0.. {
            assert!(round < 200, "n2 is not a voter everywhere: {:#?}", world.node("n1").status());
            write_some(&world, NAMES[round % 3], &format!("meanwhile {round}"), &mut written).await;
            if is_member(&world) {
                break;
            }
        }
        write_some(&world, "n2", "after", &mut written).await;
        world.holds("n2", &written).await;
        // A voter that holds everything: n1 may go for good.
        world.kill("n1", Unsynced::Dropped).await;
        write_some(&world, "n2", "without n1", &mut written).await;
        for (group, index, _) in &written {
            world.running["n2"].lane.body(GroupId(*group), *index, None, 0..5_000).expect("every body is on its disk");
        }
        // The old disk turns up again: it is told that it was replaced, and goes.
        world.kill("n2", Unsynced::Kept).await;
        world.start("n2", old).await;
        let mut fatal = world.node("n2").fatal();
        let told = tokio::time::timeout(Duration::from_secs(60), fatal.wait_for(Option::is_some)).await;
        let why = told.expect("it is told").expect("the node lives").clone().expect("some");
        assert!(why.contains("was replaced"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_rows_gets_them_from_a_peer_and_pulls_no_body_again() {
    let mut world = World::new(41, &NAMES);
    world.retention = KEEP_NOTHING;
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    let last = written.clone();
    until("the log is purged", &world, |world| {
        last.iter().all(|(group, index, _)| is_purged(world, "n3", *group, *index))
    })
    .await;
    let left = world.kill("n3", Unsynced::Dropped).await;
    world.start("n3", Left { journal: Journal::default(), ..left }).await;
    world.until_ready("n3").await;
    world.holds("n3", &written).await;
    until("n3 is complete", &world, |world| world.running["n3"].journal.incomplete().expect("in memory").is_empty())
        .await;
    write_some(&world, "n3", "after", &mut written).await;
    world.holds("n3", &written).await;
}
