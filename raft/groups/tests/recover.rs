//! What is left of a cluster becomes one of one: which log wins, whose bodies count, and that the work may be done again.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use bytes::Bytes;
use raft_groups::{
    Frozen, Identity, Survivor, Unfinished, plan, recover, refound_group, refound_meta,
    testing::{Journal, Remembered},
};
use raft_lanes::{Body, Done, Entry, Lane, LaneError, LaneOptions, crash::CrashDisk};
use raft_types::{
    Applied, Clock, Committed, CommittedEntry, Disk, GroupId, KeptDocument, LogPosition, Seed, StateMachine,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};
use uuid::Uuid;

struct Counting(AtomicU64);
impl Seed for Counting {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct Still;
impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn unix_ms(&self) -> u64 {
        0
    }
}

const G: GroupId = GroupId(1);
static SEED: Counting = Counting(AtomicU64::new(1));

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

fn wait(submit: impl FnOnce(Done) -> Result<(), LaneError>) {
    let (sender, receiver) = mpsc::channel();
    submit(Box::new(move |result| drop(sender.send(result)))).expect("taken");
    receiver.recv().expect("answered").expect("durable");
}

fn open(disk: Arc<dyn Disk>, identity: &Identity) -> Lane {
    let options = LaneOptions { segment_bytes: 1 << 20, ..LaneOptions::new(identity.of_lane()) };
    Lane::open(disk, Arc::new(Still), options).expect("opens")
}

/// A folder of node `name` in a cluster with one data group.
fn folder(name: &str) -> (CrashDisk, Survivor, Arc<Journal>) {
    let disk = CrashDisk::new();
    let identity = Identity::load_or_create(&disk, name, &SEED).expect("new");
    let lane = open(Arc::new(disk.clone()), &identity);
    let marker = Unfinished::new("test", "nothing".into(), name.into(), Uuid::from_u128(9));
    refound_meta(&lane, &identity, &marker, 1).expect("a meta log");
    let journal = Arc::new(Journal::default());
    let machine: Arc<dyn StateMachine> = Arc::<Journal>::clone(&journal);
    (disk, Survivor { folder: name.into(), identity, lane, machine }, journal)
}

fn body(text: &str) -> Bytes {
    Bytes::from(text.as_bytes().repeat(10))
}

fn put(to: &Survivor, position: LogPosition, text: &str) {
    let entry = Entry { position, kind: 1, head: Bytes::from(text.to_owned()), body: Body::Here(body(text)) };
    wait(|done| to.lane.append(G, vec![entry], done));
}

fn apply(to: &Survivor, position: LogPosition, text: &str) {
    let entry = CommittedEntry::Command { head: Bytes::from(text.to_owned()), body_len: body(text).len() as u64 };
    to.machine.apply(&[Committed { group: G, position, entry }]).expect("applied");
}

/// Rows of a snapshot: commands with bodies that are elsewhere.
fn import(to: &Survivor, applied: LogPosition, commands: &[(LogPosition, &str)]) {
    let rows: Vec<Remembered> = commands
        .iter()
        .map(|(position, text)| Remembered {
            position: *position,
            head: Bytes::from((*text).to_owned()),
            body_bytes: body(text).len() as u32,
        })
        .collect();
    let mut piece = Some(Bytes::from(postcard::to_allocvec(&rows).unwrap()));
    let applied = Applied { position: Some(applied), membership: None };
    to.machine.import(G, &applied, &mut || Ok(piece.take())).expect("imported");
}

fn heads(journal: &Journal) -> Vec<String> {
    journal.commands(G).iter().map(|command| String::from_utf8(command.head.to_vec()).unwrap()).collect()
}

fn read(from: &Survivor, index: u64, text: &str) {
    let held = from.lane.body(G, index, None, 0..body(text).len() as u64).expect("here");
    assert_eq!(held, body(text));
}

/// Raft §5.4.1: a log that ends in a newer term wins over a longer one; the own tail that contradicts it goes.
#[test]
fn the_log_of_the_newest_term_wins_and_all_of_it_is_applied() {
    let (_, own, journal) = folder("n3");
    let (_, other, _) = folder("n2");
    for survivor in [&own, &other] {
        put(survivor, at(1, 0), "a");
        put(survivor, at(1, 1), "b");
    }
    apply(&own, at(1, 0), "a");
    for (index, text) in [(2, "lost 1"), (3, "lost 2"), (4, "lost 3")] {
        put(&own, at(2, index), text);
    }
    put(&other, at(3, 2), "kept");
    let others = [other];
    let made = plan(&own, &others, None).expect("planned");
    let group = &made.groups[0];
    assert_eq!((group.best, group.held[1].last, group.may_appear), (1, Some(at(3, 2)), 2));
    assert!(!made.absent.contains(&"n3".to_owned()));
    let done = recover(&own, &others, &made, &mut |_| {}).expect("recovered");
    assert_eq!((done.entries, done.applied, done.lost.len()), (1, 2, 0));
    assert_eq!(heads(&journal), ["a", "b", "kept"]);
    read(&own, 2, "kept");
    assert_eq!(own.lane.state(G).last, Some(at(3, 2)));

    // And again, as after a crash at the end: nothing comes twice.
    let again = recover(&own, &others, &made, &mut |_| {}).expect("again");
    assert_eq!((again.entries, again.applied), (0, 0));
    refound_group(&own.lane, &*own.machine, G, "n3").expect("alone");
    refound_group(&own.lane, &*own.machine, G, "n3").expect("and once more");
    assert_eq!(heads(&journal), ["a", "b", "kept"]);
    let applied = own.machine.applied().unwrap()[0].1.position;
    assert_eq!(applied, own.lane.state(G).last);
    assert!(applied.expect("some").term > 3, "a newer term than any that was");
}

/// RC-2. Rows name the body of entry 1; n1 has another entry there, of the same length, that lost.
#[test]
fn the_body_of_an_entry_that_lost_never_stands_in_for_another() {
    let (_, own, journal) = folder("n3");
    let (_, liar, _) = folder("n1");
    let (_, honest, _) = folder("n2");
    import(&own, at(2, 4), &[(at(2, 1), "true body")]);
    wait(|done| own.lane.purge(G, at(2, 4), done));
    for (term, survivor, text) in [(1, &liar, "fake body"), (2, &honest, "true body")] {
        put(survivor, at(1, 0), "a");
        put(survivor, at(term, 1), text);
        apply(survivor, at(1, 0), "a");
    }
    let alone = std::slice::from_ref(&liar);
    let made = plan(&own, alone, None).expect("planned");
    let done = recover(&own, alone, &made, &mut |_| {}).expect("recovered");
    assert_eq!(
        (done.lost, done.copied.count),
        (vec!["g1/1".to_owned()], 0),
        "nobody knows that n1's entry 1 was committed"
    );
    assert_eq!(own.machine.incomplete().unwrap(), [G]);

    apply(&honest, at(2, 1), "true body");
    let both = [liar, honest];
    let done = recover(&own, &both, &made, &mut |_| {}).expect("recovered");
    assert_eq!((done.lost.len(), done.copied.count), (0, 1));
    read(&own, 1, "true body");
    assert!(own.machine.incomplete().unwrap().is_empty());
    assert_eq!(heads(&journal), ["true body"]);
}

/// The other log begins behind our rows: its rows take the place of ours, then its log goes on.
#[test]
fn rows_come_from_the_folder_whose_log_was_purged_beyond_ours() {
    let (_, own, journal) = folder("n3");
    let (_, other, _) = folder("n2");
    put(&own, at(1, 0), "a");
    put(&own, at(1, 1), "never committed");
    apply(&own, at(1, 0), "a");
    for (index, text) in [(0, "a"), (1, "b"), (2, "c"), (3, "d")] {
        put(&other, at(1 + u64::from(index > 0), index), text);
        if index < 3 {
            apply(&other, at(1 + u64::from(index > 0), index), text);
        }
    }
    wait(|done| other.lane.purge(G, at(2, 2), done));
    let others = [other];
    let made = plan(&own, &others, None).expect("planned");
    let done = recover(&own, &others, &made, &mut |_| {}).expect("recovered");
    assert_eq!(heads(&journal), ["a", "b", "c", "d"]);
    // Our own log never heard what was committed: no body of it is trusted, not even that of 0.
    assert_eq!((done.entries, done.copied.count, done.lost.len()), (1, 3, 0));
    for (index, text) in [(0, "a"), (1, "b"), (2, "c"), (3, "d")] {
        read(&own, index, text);
    }
}

/// RF-2: it dies between the end of the old meta log and the new one.
#[test]
fn a_meta_log_that_is_gone_half_way_is_made_from_what_the_marker_says() {
    let (_, own, _) = folder("n3");
    wait(|done| own.lane.truncate_after(GroupId::META, None, done));
    assert!(plan(&own, &[], None).is_err(), "nobody knows how many groups there were");
    let mut marker = Unfinished::new("recover", "a cluster".into(), "n3".into(), Uuid::from_u128(8));
    marker.group_count = 1;
    assert_eq!(plan(&own, &[], Some(&marker)).expect("known").group_count, 1);
    refound_meta(&own.lane, &own.identity, &marker, 1).expect("made anew");
    assert_eq!(plan(&own, &[], None).expect("known").nodes, ["n3"]);
}

/// Whom an operator shut out does not come in because the nodes were lost.
#[test]
fn the_documents_of_the_old_cluster_are_those_of_the_new_one() {
    let (_, own, _) = folder("n3");
    let documents = vec![KeptDocument { key: "k".into(), bytes: Bytes::from_static(b"closed") }];
    let mut marker = Unfinished::new("recover", "a cluster".into(), "n3".into(), Uuid::from_u128(8));
    (marker.group_count, marker.documents) = (1, documents.clone());
    refound_meta(&own.lane, &own.identity, &marker, 1).expect("made anew");
    assert_eq!(plan(&own, &[], None).expect("planned").documents, documents, "as the log says");
    wait(|done| own.lane.truncate_after(GroupId::META, None, done));
    let again = plan(&own, &[], Some(&marker)).expect("planned");
    assert_eq!(again.documents, documents, "as the marker says, when the log is gone half way");
}

/// RC-1.
#[test]
fn a_frozen_disk_opens_after_a_crash_and_stays_as_it_is() {
    let (disk, survivor, _) = folder("n2");
    put(&survivor, at(1, 0), "a");
    // As a crash leaves it: not sealed, with its reserved rest.
    let look = |disk: &CrashDisk| {
        let names = disk.list().unwrap();
        names.into_iter().map(|name| (disk.open(&name).unwrap().len().unwrap(), name)).collect::<Vec<_>>()
    };
    let before = look(&disk);
    let frozen: Arc<dyn Disk> = Arc::new(Frozen(Arc::new(disk.clone())));
    let lane = open(frozen, &survivor.identity);
    assert_eq!(lane.body(G, 0, None, 0..10).expect("read"), body("a"));
    assert_eq!(look(&disk), before);
}

/// RF-1: the marker stands until the identity is that of the new cluster.
#[test]
fn an_unfinished_folder_says_so_until_it_is_done() {
    let disk = CrashDisk::new();
    let identity = Identity::load_or_create(&disk, "n3", &SEED).expect("new");
    assert_eq!(Unfinished::load(&disk).expect("none"), None);
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut marker = Unfinished::new("recover", format!("cluster {old}"), "n1".into(), new);
    marker.former_cluster_ids = vec![old];
    marker.save(&disk).expect("saved");
    assert_eq!(Unfinished::load(&disk).expect("there"), Some(marker.clone()));
    assert!(marker.advice().contains("run the same `triptych recover` again"));
    marker.finish(&disk, identity).expect("done");
    assert_eq!(Unfinished::load(&disk).expect("gone"), None);
    let now = Identity::load(&disk).expect("read").expect("there");
    assert_eq!((now.name.as_str(), now.cluster_id, now.former_cluster_ids), ("n1", Some(new), vec![old]));
}
