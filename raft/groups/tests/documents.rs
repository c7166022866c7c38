//! Documents of the meta group: set at one node, in force at all, and there again after all have stopped.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod world;

use bytes::Bytes;
use raft_lanes::crash::Unsynced;
use raft_types::{Document, DocumentError, Documents};
use std::{sync::Arc, time::Duration};
use world::*;

const KEY: &str = "test";

fn document(version: u64, text: &'static str) -> Document {
    Document { version, bytes: Bytes::from_static(text.as_bytes()) }
}

async fn next(world: &World, name: &str, seen: Option<u64>) -> Document {
    let node = Arc::clone(world.node(name));
    tokio::time::timeout(SOON, node.next(KEY, seen)).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_set_at_one_node_is_known_at_all_and_survives_a_restart_of_all() {
    let mut world = World::new(71, &NAMES);
    world.start_all().await;
    for name in NAMES {
        assert_eq!(next(&world, name, None).await, Document::default(), "none was set");
    }
    let watching: Vec<_> = NAMES
        .map(|name| {
            let node = Arc::clone(world.node(name));
            tokio::spawn(async move { node.next(KEY, Some(0)).await })
        })
        .into();
    let put = |name: &str, expected, text: &'static str| {
        let node = Arc::clone(world.node(name));
        async move { node.put(KEY, expected, Bytes::from_static(text.as_bytes())).await }
    };
    assert_eq!(put("n2", 0, "one").await, Ok(1));
    assert_eq!(next(&world, "n2", None).await, document(1, "one"), "who set it knows it at once");
    for watcher in watching {
        let seen = tokio::time::timeout(SOON, watcher).await.expect("in time").expect("an answer");
        assert_eq!(seen, document(1, "one"));
    }
    assert_eq!(put("n3", 0, "other").await, Err(DocumentError::Changed { version: 1 }));
    assert_eq!(put("n3", 1, "two").await, Ok(2));
    let long = Bytes::from(vec![0; (256 << 10) + 1]);
    let refused = world.node("n1").put(KEY, 2, long).await;
    assert!(matches!(refused, Err(DocumentError::Refused(_))), "{refused:?}");

    let mut left = Vec::new();
    for name in NAMES {
        left.push((name, world.kill(name, Unsynced::Dropped).await));
    }
    for (name, left) in left {
        world.start(name, left).await;
    }
    for name in NAMES {
        world.until_ready(name).await;
        assert_eq!(next(&world, name, None).await, document(2, "two"), "{name}");
    }
}

/// An empty answer would open what an operator has closed.
#[tokio::test(start_paused = true)]
async fn a_node_that_starts_without_its_peers_says_nothing_of_a_document_until_it_knows() {
    let mut world = World::new(72, &NAMES);
    world.start_all().await;
    world.node("n1").put(KEY, 0, Bytes::from_static(b"one")).await.expect("set");
    let mut left = Vec::new();
    for name in NAMES {
        left.push((name, world.kill(name, Unsynced::Dropped).await));
    }
    let (name, alone) = left.pop().expect("three");
    world.start(name, alone).await;
    let node = Arc::clone(world.node(name));
    let early = tokio::time::timeout(Duration::from_secs(30), node.next(KEY, None)).await;
    assert!(early.is_err(), "no majority has said what is set: {early:?}");
    for (name, left) in left {
        world.start(name, left).await;
    }
    assert_eq!(next(&world, name, None).await, document(1, "one"));
}
