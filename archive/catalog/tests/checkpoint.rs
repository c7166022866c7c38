//! The write-ahead log stays small beside a writer that never rests.

mod support;

use archive_catalog::{Admission, Command, Outcome};
use bytes::Bytes;
use raft_types::{Committed, CommittedEntry, LogPosition, Versioned};
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Bench, group_of, head, instance};

/// What the catalogue promises of the log, and one transaction of the test more.
const LIMIT_BYTES: u64 = (128 << 20) + (1 << 20);
const HEADER_BYTES: usize = 256 << 10;
const INSTANCES: u64 = 1600; // 400 MiB of log

/// Commits 400 MiB, and tells how long the file of the log was at most.
fn longest_log_of_a_busy_writer(bench: &Bench) -> u64 {
    let wal = bench.folder.path().join("catalog.sqlite-wal");
    let mut longest = 0;
    for number in 1..=INSTANCES {
        let mut own = head(&instance("1.1", "1.2", &format!("1.3.{number}"), &[]), 10, 1);
        own.header = Bytes::from(vec![number as u8; HEADER_BYTES]);
        let position = LogPosition { term: 1, index: number };
        let entry = CommittedEntry::Command { head: Command::PutSmall { head: own }.encode(), body_len: 10 };
        let outcomes = bench.apply(&[Committed { group: group_of("1.1"), position, entry }]);
        assert_eq!(outcomes, [Outcome::Stored(Admission::New)]);
        longest = longest.max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()));
    }
    longest
}

/// It grew to 8 GiB in a minute and a half, and the next start took 8 s to read it: passes beside the writer always left the
/// newest transaction, and the file began never anew.
#[test]
fn the_log_begins_anew_beside_a_writer_that_never_rests() {
    let bench = Bench::new();
    let done = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                bench.catalog.checkpoint().expect("a checkpoint");
                std::thread::yield_now();
            }
        });
        let longest = longest_log_of_a_busy_writer(&bench);
        done.store(true, Ordering::SeqCst);
        checkpoints.join().expect("the checkpoints");
        longest
    });
    assert!(longest < LIMIT_BYTES, "{} MiB", longest >> 20);
}

/// A disk so slow that no pass ends while 400 MiB are written: without a limit of its own the log had 220 MiB on one such.
#[test]
fn the_writer_itself_keeps_the_log_short_when_no_pass_beside_it_comes_to_its_end() {
    let longest = longest_log_of_a_busy_writer(&Bench::new());
    assert!(longest < LIMIT_BYTES, "{} MiB", longest >> 20);
}

/// A reader of an old state keeps every later transaction in the log: the writer goes on, and the file is short again after it.
#[test]
fn a_reader_of_an_old_state_stops_nobody() {
    let bench = Bench::new();
    let reader = rusqlite::Connection::open(bench.folder.path().join("catalog.sqlite")).expect("a reader");
    reader.execute_batch("BEGIN; SELECT count(*) FROM instance;").expect("an old state");
    assert!(longest_log_of_a_busy_writer(&bench) > LIMIT_BYTES, "the reader kept nothing: the test shows nothing");
    reader.execute_batch("COMMIT").expect("the reader ends");
    bench.catalog.checkpoint().expect("a checkpoint");
    let next = Committed {
        group: group_of("1.1"),
        position: LogPosition { term: 1, index: INSTANCES + 1 },
        entry: CommittedEntry::Blank,
    };
    raft_types::StateMachine::apply(&bench.catalog, &[next]).expect("an applied batch");
    let wal = bench.folder.path().join("catalog.sqlite-wal");
    assert!(std::fs::metadata(wal).expect("the log").len() <= 64 << 20);
}
