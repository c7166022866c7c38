//! The write-ahead log stays small beside a writer that never rests.

mod support;

use archive_catalog::{Admission, Command, Outcome};
use bytes::Bytes;
use raft_types::{Committed, CommittedEntry, LogPosition, Versioned};
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Bench, group_of, head, instance};

/// It grew to 8 GiB in a minute and a half, and the next start took 8 s to read it: passes beside the writer always left the
/// newest transaction, and the file began never anew.
#[test]
fn the_log_begins_anew_beside_a_writer_that_never_rests() {
    const HEADER_BYTES: usize = 256 << 10;
    const INSTANCES: u64 = 1600; // 400 MiB of log
    let bench = Bench::new();
    let wal = bench.folder.path().join("catalog.sqlite-wal");
    let done = AtomicBool::new(false);
    let mut longest = 0;
    std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                bench.catalog.checkpoint().expect("a checkpoint");
                std::thread::yield_now();
            }
        });
        for number in 1..=INSTANCES {
            let mut own = head(&instance("1.1", "1.2", &format!("1.3.{number}"), &[]), 10, 1);
            own.header = Bytes::from(vec![number as u8; HEADER_BYTES]);
            let position = LogPosition { term: 1, index: number };
            let entry = CommittedEntry::Command { head: Command::PutSmall { head: own }.encode(), body_len: 10 };
            let outcomes = bench.apply(&[Committed { group: group_of("1.1"), position, entry }]);
            assert_eq!(outcomes, [Outcome::Stored(Admission::New)]);
            longest = longest.max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()));
        }
        done.store(true, Ordering::SeqCst);
        checkpoints.join().expect("the checkpoints");
    });
    assert!(longest < 192 << 20, "{} MiB", longest >> 20);
}
