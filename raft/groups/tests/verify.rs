//! What is said to be safe was read from the disks of a majority, and nothing that memory or a peer knows counts.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod world;

use bytes::Bytes;
use raft_lanes::Sabotage;
use raft_types::{BodyRef, Command, Disk, GroupId, Propose, Seed, StoredObject, Verdict};
use world::*;

const GROUP: GroupId = GroupId(1);

/// An object of several bodies of chance.
async fn store(world: &World, lengths: &[usize]) -> (StoredObject, Vec<Bytes>) {
    let (mut bodies, mut pieces, mut hasher) = (Vec::new(), Vec::new(), blake3::Hasher::new());
    for length in lengths {
        let body: Bytes = (0..*length).map(|_| world.seed.next() as u8).collect::<Vec<_>>().into();
        let command = Command { head: Bytes::from_static(b"piece"), body: body.clone() };
        let proposed = world.node("n1").propose(GROUP, command, SOON).await.expect("committed");
        hasher.update(&body);
        bodies.push(BodyRef { index: proposed.address.index, length_bytes: u32::try_from(*length).expect("small") });
        pieces.push(body);
    }
    (StoredObject { group: GROUP, bodies, digest: *hasher.finalize().as_bytes() }, pieces)
}

/// Flips a bit of these bytes, wherever they lie on a node's disk.
fn damage(world: &World, name: &str, bytes: &[u8]) {
    let disk = &world.running[name].disk;
    let mut found = 0;
    for segment in disk.list().expect("names").into_iter().filter(|name| name.ends_with(".lane")) {
        let file = disk.open(&segment).expect("there");
        let mut contents = vec![0; file.len().expect("length") as usize];
        file.read_at(0, &mut contents).expect("read");
        // By its first bytes: they are of chance.
        let mut at = 0;
        while let Some(place) = contents[at..].windows(64).position(|window| window == &bytes[..64]) {
            disk.rot(&segment, (at + place + 70) as u64, 1);
            found += 1;
            at += place + 64;
        }
    }
    assert!(found > 0, "the body is not on the disk of {name}");
}

async fn verdict(world: &World, name: &str, object: &StoredObject) -> Verdict {
    let node = world.node(name);
    node.read_index(vec![object.group]).await.expect("a majority is up");
    node.verify(object.clone()).await.verdict
}

/// Every replica has written all of it.
async fn everywhere(world: &World, object: &StoredObject) {
    until("every disk has every body", world, |world| {
        let on_disk = |body: &BodyRef| {
            world.running.values().all(|running| running.lane.body_on_disk(object.group, body.index).is_ok())
        };
        object.bodies.iter().all(on_disk)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_verified_on_a_majority_at_once_and_by_whoever_asks() {
    let mut world = World::new(101, &NAMES);
    world.start_all().await;
    let (object, _) = store(&world, &[5_000, 300_000, 1]).await;
    for name in NAMES {
        assert_eq!(verdict(&world, name, &object).await, Verdict::Quorum, "{name}");
    }
    let other = StoredObject { digest: [7; 32], ..object.clone() };
    assert_eq!(verdict(&world, "n2", &other).await, Verdict::Damaged, "another content");
    let mut longer = object.clone();
    longer.bodies[0].index += 1_000;
    assert_eq!(verdict(&world, "n3", &longer).await, Verdict::Unknown, "a body that nobody has");
    everywhere(&world, &object).await;
    world.kill("n3", raft_lanes::crash::Unsynced::Dropped).await;
    assert_eq!(verdict(&world, "n1", &object).await, Verdict::Quorum, "two of three");
    world.kill("n2", raft_lanes::crash::Unsynced::Dropped).await;
    let alone = world.node("n1").verify(object).await;
    assert_eq!((alone.verdict, alone.sound, alone.silent), (Verdict::Unknown, 1, 2), "one of three is no majority");
}

/// What a damaged copy on one and on two of three disks comes to.
async fn damaged(sabotage: Option<Sabotage>) -> (Verdict, Verdict) {
    let mut world = World::new(102, &NAMES);
    world.sabotage = sabotage;
    world.start_all().await;
    let (object, pieces) = store(&world, &[5_000, 40_000]).await;
    everywhere(&world, &object).await;
    // The bodies are in the memory of all nodes still; it does not count.
    damage(&world, "n2", &pieces[1]);
    let one = verdict(&world, "n1", &object).await;
    let (second, pieces) = store(&world, &[5_000, 40_000]).await;
    everywhere(&world, &second).await;
    damage(&world, "n2", &pieces[1]);
    damage(&world, "n3", &pieces[1]);
    let two = verdict(&world, "n1", &second).await;
    if sabotage.is_none() {
        // What was found is repaired from the one that is left.
        everywhere(&world, &second).await;
        assert_eq!(verdict(&world, "n3", &second).await, Verdict::Quorum, "repaired");
    }
    (one, two)
}

#[tokio::test(start_paused = true)]
async fn damage_on_one_disk_leaves_a_majority_and_on_two_it_does_not() {
    assert_eq!(damaged(None).await, (Verdict::Quorum, Verdict::Damaged));
}

/// The test above is worth something only if it sees the bug.
#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_read_what_it_verifies_is_seen() {
    assert_eq!(damaged(Some(Sabotage::VerifiedUnread)).await.1, Verdict::Quorum);
}
