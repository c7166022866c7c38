//! Nodes come and go while images are written: nothing acknowledged is lost, whoever votes has every body, and every node
//! answers every question all the while.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod world;

use raft_groups::{Retention, testing::Journal};
use raft_lanes::crash::Unsynced;
use raft_types::{ClusterStatus, GroupId, NodeState, Propose, StateMachine};
use std::{collections::BTreeSet, time::Duration};
use world::*;

const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

type Written = Vec<(u32, u64, String)>;

/// Writes at every running node in turn until the condition holds.
async fn write_until(what: &str, world: &World, tag: &str, written: &mut Written, holds: impl Fn(&World) -> bool) {
    let names: Vec<&str> = world.running.keys().copied().collect();
    for round in 0..400 {
        write_some(world, names[round % names.len()], &format!("{tag} {round}"), written).await;
        if holds(world) {
            return;
        }
    }
    let status: Vec<_> = world.running.values().map(|running| running.node.status()).collect();
    panic!("{what}: not within 400 rounds: {status:#?}");
}

fn status(world: &World, name: &str) -> ClusterStatus {
    world.node(name).status()
}

/// On every running node: `members` keep everything, with this many copies, and nothing is under way.
fn is_settled(world: &World, members: usize, copies: u32) -> bool {
    world.running.values().all(|running| {
        let status = running.node.status();
        let stay: Vec<_> = status.nodes.iter().filter(|node| node.state == NodeState::Member).collect();
        let counts: Vec<u32> = stay.iter().map(|node| node.copies).collect();
        status.moving_groups == 0
            && status.replication_factor == copies
            && stay.len() == members
            && counts.iter().sum::<u32>() == copies * 4
            && counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0) <= 1
            && stay.iter().all(|node| node.missing_bytes.is_none())
            && status.groups.iter().all(|group| group.leader.is_some())
    })
}

/// Who votes has every body that its rows name, on its own disk; who does not was sent none since it was settled.
fn check_bodies(world: &World) {
    for (name, running) in &world.running {
        let status = running.node.status();
        for group in status.groups.iter().filter(|group| group.id != GroupId::META) {
            let votes = group.voters.iter().any(|voter| voter == name);
            let bodies = running.journal.bodies(group.id).expect("in memory");
            let missing = bodies.iter().filter(|body| !running.lane.holds(group.id, body.index, body.length_bytes));
            let missing: Vec<_> = missing.collect();
            assert!(!votes || missing.is_empty(), "{name} votes in {} without {missing:?}", group.id);
        }
    }
}

fn bodies_held(world: &World, name: &str) -> usize {
    let running = &world.running[name];
    let held = |group: u32| {
        let bodies = running.journal.bodies(GroupId(group)).expect("in memory");
        bodies.iter().filter(|body| running.lane.holds(GroupId(group), body.index, body.length_bytes)).count()
    };
    (1..=4).map(held).sum()
}

async fn all_hold(world: &World, written: &Written) {
    for name in world.running.keys() {
        world.holds(name, written).await;
    }
}

async fn restart(world: &mut World, name: &'static str) {
    let left = world.kill(name, Unsynced::Dropped).await;
    world.start(name, left).await;
    world.until_ready(name).await;
}

/// Everything of `written` is in the rows of the only node left, and on its disk.
fn alone_holds(world: &World, name: &str, written: &Written) {
    for (group, index, text) in written {
        let body = world.running[name].lane.body(GroupId(*group), *index, None, 0..5_000).expect("every body is here");
        assert_eq!(body[0], text.len() as u8);
    }
}

#[tokio::test(start_paused = true)]
async fn one_node_becomes_three_becomes_five_becomes_three_while_images_are_written() {
    for (seed, purges) in [(51, false), (52, true)] {
        let mut world = World::new(seed, &FIVE[..1]);
        if purges {
            world.retention = KEEP_NOTHING;
        }
        world.start_all().await;
        let mut written = Vec::new();
        write_some(&world, "n1", "alone", &mut written).await;

        // The single node is told who its peers are; they start empty.
        world.names = FIVE[..3].to_vec();
        restart(&mut world, "n1").await;
        for name in &FIVE[1..3] {
            world.start(name, Left::default()).await;
        }
        write_until("three copies", &world, "grow", &mut written, |world| is_settled(world, 3, 3)).await;
        assert_eq!(status(&world, "n2").survives_failures, 1);
        all_hold(&world, &written).await;
        check_bodies(&world);

        world.names = FIVE.to_vec();
        for name in &FIVE[3..] {
            world.start(name, Left::default()).await;
        }
        write_until("five nodes", &world, "five", &mut written, |world| is_settled(world, 5, 3)).await;
        all_hold(&world, &written).await; // what was written before is applied everywhere
        let (began, before) = (written.len(), FIVE.map(|name| bodies_held(&world, name)));
        write_some(&world, "n5", "on five", &mut written).await;
        all_hold(&world, &written).await;
        check_bodies(&world);
        let after = FIVE.map(|name| bodies_held(&world, name));
        let came: usize = after.iter().zip(before).map(|(after, before)| after - before).sum();
        assert_eq!(came, 3 * (written.len() - began), "three bodies for each image, and not five");
        let meta = &status(&world, "n1").groups[0];
        assert_eq!(meta.voters.len(), 5);

        for gone in ["n5", "n4"] {
            world.node("n2").drain_node(gone, false).await.expect("enough others");
            write_until("drained", &world, "drain", &mut written, |world| {
                let status = status(world, "n1");
                status.nodes.iter().any(|node| node.name == gone && node.state == NodeState::Drained)
            })
            .await;
            all_hold(&world, &written).await;
            check_bodies(&world);
            world.node("n3").remove_node(gone).await.expect("it keeps nothing");
            let mut fatal = world.node(gone).fatal();
            let told = tokio::time::timeout(Duration::from_secs(60), fatal.wait_for(Option::is_some)).await;
            let why = told.expect("it is told").expect("the node lives").clone().expect("some");
            assert!(why.contains("removed from the cluster"), "{why}");
            let left = world.kill(gone, Unsynced::Kept).await;
            // Started again, it does not take part, and says why.
            world.start(gone, left).await;
            let mut fatal = world.node(gone).fatal();
            let told = tokio::time::timeout(Duration::from_secs(60), fatal.wait_for(Option::is_some)).await;
            assert!(told.is_ok(), "it was not told again");
            world.kill(gone, Unsynced::Kept).await;
        }
        // The nodes that left are forgotten last: that moves no copy, and is not waited for by whoever drains.
        let forgotten = |world: &World| {
            let groups = status(world, "n1").groups;
            groups.iter().all(|group| group.learners.is_empty() && group.voters.len() == 3)
        };
        write_until("three again", &world, "three", &mut written, |world| is_settled(world, 3, 3) && forgotten(world))
            .await;
        all_hold(&world, &written).await;
        check_bodies(&world);
        for name in &FIVE[..3] {
            alone_holds(&world, name, &written);
        }
        // It counts: any of the three may go.
        world.kill("n1", Unsynced::Dropped).await;
        write_some(&world, "n3", "without n1", &mut written).await;
        all_hold(&world, &written).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_killed_while_copies_move_lose_nothing_and_the_moves_go_on() {
    for seed in 61..65 {
        let mut world = World::new(seed, &FIVE[..3]);
        if seed % 2 == 0 {
            world.retention = KEEP_NOTHING;
        }
        world.start_all().await;
        let mut written = Vec::new();
        write_some(&world, "n1", "before", &mut written).await;
        world.names = FIVE.to_vec();
        for name in &FIVE[3..] {
            world.start(name, Left::default()).await;
        }
        for turn in 0..10 {
            let victim = FIVE[(seed as usize + turn * 2) % 5];
            let left = world.kill(victim, [Unsynced::Dropped, Unsynced::Torn][turn % 2]).await;
            let asked = *FIVE.iter().find(|name| **name != victim && world.running.contains_key(*name)).expect("four");
            write_some(&world, asked, &format!("turn {turn}"), &mut written).await;
            world.start(victim, left).await;
            if turn == 5 {
                world.until_ready("n1").await;
                world.node("n1").drain_node("n2", false).await.expect("four are left");
            }
        }
        for name in FIVE {
            world.until_ready(name).await;
        }
        write_until("settled", &world, "after", &mut written, |world| is_settled(world, 4, 3)).await;
        all_hold(&world, &written).await;
        check_bodies(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn three_nodes_become_one_only_when_that_is_said_and_a_drained_node_may_stay_after_all() {
    let mut world = World::new(71, &FIVE[..3]);
    world.start_all().await;
    let mut written = Vec::new();
    write_some(&world, "n1", "before", &mut written).await;
    let why = world.node("n1").drain_node("n3", false).await.expect_err("two are too few").to_string();
    assert!(why.contains("--reduce"), "{why}");
    let why = world.node("n1").remove_node("n3").await.expect_err("in use").to_string();
    assert!(why.contains("triptych node drain n3"), "{why}");
    world.node("n1").drain_node("n3", true).await.expect("that was said");
    write_until("two copies", &world, "two", &mut written, |world| is_settled(world, 2, 2)).await;
    all_hold(&world, &written).await;
    world.node("n2").undrain_node("n3").await.expect("known");
    write_until("three copies again", &world, "again", &mut written, |world| is_settled(world, 3, 3)).await;
    check_bodies(&world);
    alone_holds(&world, "n3", &written);
    // The founder goes as well.
    for gone in ["n1", "n2"] {
        world.node("n3").drain_node(gone, true).await.expect("that was said");
        write_until("drained", &world, "to one", &mut written, |world| {
            let nodes = status(world, "n3").nodes;
            nodes.iter().any(|node| node.name == gone && node.state == NodeState::Drained)
        })
        .await;
        world.node("n3").remove_node(gone).await.expect("it keeps nothing");
        world.kill(gone, Unsynced::Kept).await;
    }
    assert!(world.node("n3").drain_node("n3", true).await.is_err(), "the last one");
    write_some(&world, "n3", "alone", &mut written).await;
    world.holds("n3", &written).await;
    alone_holds(&world, "n3", &written);
    assert_eq!(status(&world, "n3").replication_factor, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_drained_and_removed_and_its_copies_are_made_anew() {
    let mut world = World::new(81, &FIVE[..4]);
    world.retention = Retention { every: Duration::from_secs(2), keep_bytes: 0, keep_for: Duration::ZERO };
    world.start_all().await;
    let mut written = Vec::new();
    write_until("settled", &world, "before", &mut written, |world| is_settled(world, 4, 3)).await;
    world.kill("n2", Unsynced::Dropped).await;
    write_some(&world, "n1", "without n2", &mut written).await;
    world.node("n4").drain_node("n2", false).await.expect("three are left");
    write_until("its copies are elsewhere", &world, "moving", &mut written, |world| is_settled(world, 3, 3)).await;
    world.node("n4").remove_node("n2").await.expect("it keeps nothing");
    write_until("three nodes", &world, "three", &mut written, |world| {
        status(world, "n1").groups.iter().all(|group| group.voters.len() == 3 && group.learners.is_empty())
    })
    .await;
    assert_eq!(status(&world, "n1").survives_failures, 1);
    all_hold(&world, &written).await;
    check_bodies(&world);
    // An empty disk under the old name is a new node.
    world.start("n2", Left::default()).await;
    write_until("four nodes", &world, "four", &mut written, |world| is_settled(world, 4, 3)).await;
    let ids: BTreeSet<_> = status(&world, "n1").nodes.iter().filter_map(|node| node.id).collect();
    assert_eq!(ids.len(), 4);
    all_hold(&world, &written).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_no_copy_and_lost_its_rows_gets_them_from_others_and_serves_them() {
    let mut world = World::new(91, &FIVE);
    world.retention = KEEP_NOTHING;
    world.start_all().await;
    let mut written = Vec::new();
    write_until("settled", &world, "before", &mut written, |world| is_settled(world, 5, 3)).await;
    let left = world.kill("n4", Unsynced::Dropped).await;
    write_some(&world, "n1", "while away", &mut written).await;
    world.start("n4", Left { journal: Journal::default(), ..left }).await;
    world.until_ready("n4").await;
    write_until("settled again", &world, "after", &mut written, |world| is_settled(world, 5, 3)).await;
    all_hold(&world, &written).await;
    check_bodies(&world);
}
