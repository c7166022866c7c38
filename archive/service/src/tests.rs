//! The use cases over a real catalogue and a log in memory. Time stands still and jumps when nobody can go on, so that a
//! wait without an end is a time-out at once.

#![allow(clippy::unwrap_used)]

use crate::{
    Admission, Archive, Find, Freshness, Include, Ingest, Level, Offer, OtherContent, Protocol, Selection,
    ServiceSettings, Source, StoreError, Stored,
    peers::Peer,
    testing::{LocalLog, archive},
};
use archive_model::{AeTitle, DataSet, Encoding, Invalid, Uid, VR, tags, write_data_set};
use bytes::Bytes;
use std::{future::Future, sync::Arc, time::Duration};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const MIB: usize = 1 << 20;
/// What a TCP read or a PDU gives.
const PIECE: usize = 64 << 10;

struct Bench {
    archive: Archive,
    log: Arc<LocalLog>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(settings: ServiceSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (archive, log) = archive(folder.path(), settings);
        Self { archive, log, _folder: folder }
    }

    /// One whose stores have `bytes` of memory.
    fn with_memory(bytes: usize) -> Self {
        Self::new(ServiceSettings { ingest_bytes_max: bytes as u64, ..ServiceSettings::default() })
    }

    async fn begin(&self) -> Ingest {
        self.archive.store(offer(EXPLICIT)).await.unwrap()
    }

    /// A store by the sender of that number, from a connection of its own.
    async fn begin_from(&self, sender: usize, port: usize) -> Ingest {
        let mut offer = offer(EXPLICIT);
        offer.source.peer = format!("10.0.0.{sender}:{port}");
        self.archive.store(offer).await.unwrap()
    }

    async fn store(&self, object: &Bytes) -> Result<Stored, StoreError> {
        let mut ingest = self.begin().await;
        push(&mut ingest, object).await?;
        ingest.finish().await
    }

    /// The bytes of all instances of a study.
    async fn bytes(&self, study: &str) -> Vec<Bytes> {
        let selection = Selection { studies: vec![Uid::parse(study).unwrap()], ..Selection::default() };
        let mut found = Vec::new();
        for row in self.archive.instances(selection, Freshness::ReadIndex).await.unwrap() {
            found.push(self.archive.read(&row, 0..u64::MAX).collect().await.unwrap());
        }
        found
    }

    fn memory(&self) -> u64 {
        self.archive.ingest_memory().used()
    }
}

fn offer(transfer_syntax: &str) -> Offer {
    let source = Source {
        protocol: Protocol::Dimse,
        calling_ae: "TEST".into(),
        called_ae: "TRIPTYCH".into(),
        peer: "127.0.0.1".into(),
    };
    Offer { sop_class: None, instance: None, study: None, transfer_syntax: transfer_syntax.into(), source }
}

async fn push(ingest: &mut Ingest, bytes: &Bytes) -> Result<(), StoreError> {
    for at in (0..bytes.len()).step_by(PIECE) {
        ingest.push(bytes.slice(at..bytes.len().min(at + PIECE))).await?;
    }
    Ok(())
}

/// Stores one instance.
pub(crate) async fn store_one(archive: &Archive) {
    let mut ingest = archive.store(offer(EXPLICIT)).await.unwrap();
    push(&mut ingest, &object("1.2.1", 1, 10, 1)).await.unwrap();
    ingest.finish().await.unwrap();
}

/// An object of a study, with so many bytes of pixels. Different `content`, different bytes.
fn object(study: &str, number: usize, pixels: usize, content: u8) -> Bytes {
    let mut set = DataSet::new();
    set.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2.840.10008.5.1.4.1.1.7");
    set.put_text(tags::SOP_INSTANCE_UID, VR::UI, format!("{study}.1.{number}"));
    set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, study);
    set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, format!("{study}.1"));
    [write_data_set(&set, Encoding::ExplicitLe), long(0x7FE0, 0x0010, "OW", &vec![content; pixels])].concat().into()
}

fn long(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let tag = [group.to_le_bytes(), number.to_le_bytes()].concat();
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    [&tag, vr.as_bytes(), &[0, 0], &length, value].concat()
}

/// A wait for memory that nobody gives back ends here.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), work).await.expect("somebody waits for ever")
}

#[tokio::test]
async fn the_same_again_is_nothing_new_and_other_content_a_version() {
    let bench = Bench::new(ServiceSettings::default());
    let (small, large) = (object("1.2", 1, 1000, 7), object("1.2", 1, 3 * MIB, 8));
    assert_eq!(bench.store(&small).await.unwrap().admission, Admission::New);
    assert_eq!(bench.store(&small).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.store(&large).await.unwrap().admission, Admission::Version { number: 1 });
    assert_eq!(bench.store(&large).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.bytes("1.2").await, [small]);
    let totals = bench.archive.totals().await.unwrap();
    assert_eq!((totals.instances, totals.versions), (1, 1));
}

/// What DCMTK's `storescu` leaves out on its way, a sender that pads otherwise puts in. Also of large objects.
#[tokio::test]
async fn the_same_in_another_padding_is_nothing_new_under_every_policy_and_the_first_stays() {
    let bench = Bench::new(ServiceSettings::default());
    for (number, pixels) in [(1, 1000), (2, 3 * MIB)] {
        let first = object("1.2", number, pixels, 7);
        let padded: Bytes = [&first[..], &long(0xFFFC, 0xFFFC, "OB", &[0; 126])].concat().into();
        let other: Bytes = [&first[..], &long(0xFFFC, 0xFFFD, "OB", &[0; 126])].concat().into();
        assert_eq!(bench.store(&first).await.unwrap().admission, Admission::New);
        for policy in [OtherContent::Keep, OtherContent::Reject, OtherContent::Replace] {
            let peer = Peer { other_content: policy, ..Peer::new(AeTitle::parse("TEST").unwrap()) };
            bench.archive.peers().set(peer, None).await.unwrap();
            assert_eq!(bench.store(&padded).await.unwrap().admission, Admission::Alike, "{policy:?}");
        }
        assert_eq!(bench.store(&other).await.unwrap().admission, Admission::Replaced { number: 1 });
        assert_eq!(bench.store(&padded).await.unwrap().admission, Admission::Alike, "to a version");
    }
    let mut kept = Vec::new();
    for version in bench.archive.versions(Uid::parse("1.2").unwrap(), None, 10).await.unwrap() {
        kept.push(bench.archive.read(&version.row, 0..u64::MAX).collect().await.unwrap());
    }
    assert_eq!(kept, [object("1.2", 1, 1000, 7), object("1.2", 2, 3 * MIB, 7)]);
}

/// As a node says it while others are of an older release, which know neither the digest nor the command with it.
#[tokio::test]
async fn without_comparing_padding_is_content_and_what_was_stored_so_stays() {
    let bench = Bench::new(ServiceSettings { compare_padding: false, ..ServiceSettings::default() });
    let first = object("1.2", 1, 1000, 7);
    let padded: Bytes = [&first[..], &long(0xFFFC, 0xFFFC, "OB", &[0; 126])].concat().into();
    assert_eq!(bench.store(&first).await.unwrap().admission, Admission::New);
    assert_eq!(bench.store(&padded).await.unwrap().admission, Admission::Version { number: 1 });
    assert_eq!(bench.store(&padded).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.bytes("1.2").await, [first]);
}

#[tokio::test]
async fn other_content_of_a_sender_whose_policy_is_to_reject_is_refused_and_nothing_of_it_is_kept() {
    let bench = Bench::new(ServiceSettings::default());
    let reject = Peer { other_content: OtherContent::Reject, ..Peer::new(AeTitle::parse("TEST").unwrap()) };
    bench.archive.peers().set(reject, None).await.unwrap();
    let (first, small, large) = (object("1.2", 1, 1000, 7), object("1.2", 1, 1000, 8), object("1.2", 1, 3 * MIB, 9));
    assert_eq!(bench.store(&first).await.unwrap().admission, Admission::New);
    let before = bench.archive.totals().await.unwrap();
    for other in [&small, &large] {
        assert!(matches!(bench.store(other).await, Err(StoreError::OtherContent)));
    }
    assert_eq!(bench.store(&first).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.archive.totals().await.unwrap(), before);
    assert_eq!(bench.bytes("1.2").await, [first]);
}

#[tokio::test]
async fn other_content_of_a_sender_whose_policy_is_to_replace_answers_and_the_first_is_kept() {
    let bench = Bench::new(ServiceSettings::default());
    let replace = Peer { other_content: OtherContent::Replace, ..Peer::new(AeTitle::parse("TEST").unwrap()) };
    bench.archive.peers().set(replace, None).await.unwrap();
    let (first, second, third) = (object("1.2", 1, 1000, 7), object("1.2", 1, 3 * MIB, 8), object("1.2", 1, 2000, 9));
    assert_eq!(bench.store(&first).await.unwrap().admission, Admission::New);
    assert_eq!(bench.store(&second).await.unwrap().admission, Admission::Replaced { number: 1 });
    assert_eq!(bench.bytes("1.2").await, std::slice::from_ref(&second));
    assert_eq!(bench.store(&third).await.unwrap().admission, Admission::Replaced { number: 2 });
    assert_eq!(bench.bytes("1.2").await, std::slice::from_ref(&third));
    // What is known already changes nothing, however late it comes (V-1).
    assert_eq!(bench.store(&first).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.bytes("1.2").await, std::slice::from_ref(&third));
    let mut kept = Vec::new();
    for version in bench.archive.versions(Uid::parse("1.2").unwrap(), None, 10).await.unwrap() {
        let bytes = bench.archive.read(&version.row, 0..u64::MAX).collect().await.unwrap();
        kept.push((version.row.version, version.source.calling_ae, bytes));
    }
    assert_eq!(kept, [(1, "TEST".to_owned(), first), (2, "TEST".to_owned(), second)]);
    let totals = bench.archive.totals().await.unwrap();
    assert_eq!((totals.instances, totals.versions), (1, 2));
}

/// The log keeps every body it was given, as its cache does for a while: permits inside of them were never given back.
#[tokio::test]
async fn a_large_object_is_read_back_whole_and_its_memory_is_free_when_the_log_has_answered() {
    let bench = Bench::with_memory(2 * MIB);
    let sizes = [0, 1, MIB - 200, MIB, 5 * MIB, 5 * MIB + 300];
    for (number, size) in sizes.into_iter().enumerate() {
        let sent = object(&format!("1.2.{number}"), 1, size & !1, 7);
        assert_eq!(in_time(bench.store(&sent)).await.unwrap().admission, Admission::New);
        assert_eq!(bench.bytes(&format!("1.2.{number}")).await, [sent]);
        assert_eq!(bench.memory(), 0);
    }
    assert!(bench.log.bodies() > 12);
}

/// B1: proposals were futures that nobody polled while their sender waited for memory, and they held what it waited for.
#[tokio::test(start_paused = true)]
async fn many_large_senders_finish_in_little_memory() {
    let bench = Bench::with_memory(8 * MIB);
    let objects = (0..40).map(|number| object("1.2", number, 5 * MIB, number as u8)).collect::<Vec<_>>();
    let stored = in_time(futures::future::join_all(objects.iter().map(|object| bench.store(object)))).await;
    assert!(stored.into_iter().all(|stored| stored.is_ok_and(|stored| stored.admission == Admission::New)));
    assert_eq!((bench.bytes("1.2").await.len(), bench.memory()), (40, 0));
}

/// B7: a store took 1 MiB before its first byte, so that 128 objects of which one byte had come blocked all others.
#[tokio::test(start_paused = true)]
async fn half_sent_objects_leave_room_for_others() {
    let bench = Bench::with_memory(16 * MIB);
    let slow = object("1.3", 1, 1000, 7);
    let mut half = Vec::new();
    for number in 0..200 {
        let mut ingest = bench.begin_from(number, 1).await;
        in_time(ingest.push(slow.slice(..40))).await.unwrap();
        half.push(ingest);
    }
    for (number, size) in [1000, 700_000, 3 * MIB].into_iter().enumerate() {
        in_time(bench.store(&object("1.2", number, size, 7))).await.unwrap();
    }
    assert_eq!(bench.bytes("1.2").await.len(), 3);
    drop(half);
    assert_eq!(bench.memory(), 0);
}

/// It stops at three quarters of the memory, over all its connections.
#[tokio::test(start_paused = true)]
async fn a_sender_that_ends_nothing_stops_only_itself() {
    let bench = Bench::with_memory(16 * MIB);
    let whole = object("1.3", 1, 5 * MIB, 7);
    let mut sender = Box::pin(async {
        let mut half = Vec::new();
        for port in 1.. {
            let mut ingest = bench.begin_from(1, port).await;
            for at in (0..2 * MIB - PIECE).step_by(PIECE) {
                ingest.push(whole.slice(at..at + PIECE)).await.unwrap();
            }
            half.push(ingest);
        }
    });
    // An hour of waiting, which passes at once when nobody can go on.
    assert!(tokio::time::timeout(Duration::from_secs(3600), &mut sender).await.is_err());
    assert!(bench.memory() <= 12 * MIB as u64);
    for number in 0..5 {
        in_time(bench.store(&object("1.2", number, 5 * MIB, 7))).await.unwrap();
    }
    assert_eq!(bench.bytes("1.2").await.len(), 5);
}

/// All memory but that for one beginning is held by senders that say no more.
#[tokio::test(start_paused = true)]
async fn a_block_that_cannot_grow_is_sent_as_it_is() {
    let bench = Bench::with_memory(2 * MIB);
    let slow = object("1.3", 1, 1000, 7);
    let mut half = Vec::new();
    for number in 0..31 {
        let mut ingest = bench.begin_from(number, 1).await;
        ingest.push(slow.slice(..40)).await.unwrap();
        half.push(ingest);
    }
    let sent = object("1.2", 1, 600_000, 9);
    assert_eq!(in_time(bench.store(&sent)).await.unwrap().admission, Admission::New);
    assert_eq!(bench.bytes("1.2").await, [sent]);
    assert!(bench.log.bodies() >= 9, "in blocks of 64 KiB");
    // What does not say its study in that much cannot be sent in pieces.
    let mut late = bench.begin().await;
    let early = long(0x0009, 0x1010, "OB", &[0; 200_000]);
    assert!(matches!(in_time(push(&mut late, &early.into())).await, Err(StoreError::Overloaded)));
}

#[tokio::test]
async fn an_object_that_ends_too_early_leaves_nothing() {
    let bench = Bench::new(ServiceSettings::default());
    for size in [1000, 3 * MIB] {
        let whole = object("1.2", 1, size, 7);
        let refused = bench.store(&whole.slice(..whole.len() - 1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Invalid(Invalid::Truncated { .. })), "{refused}");
    }
    bench.archive.shutdown().await;
    assert_eq!((bench.log.aborts(), bench.memory()), (1, 0));
    assert_eq!(bench.archive.catalog().totals().unwrap().instances, 0);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_nothing() {
    let bench = Bench::new(ServiceSettings::default());
    let whole = object("1.2", 1, 5 * MIB, 7);
    let mut ingest = bench.begin().await;
    push(&mut ingest, &whole.slice(..3 * MIB)).await.unwrap();
    drop(ingest);
    bench.archive.shutdown().await;
    assert_eq!((bench.log.aborts(), bench.memory()), (1, 0));
    assert_eq!(bench.archive.catalog().totals().unwrap().instances, 0);
    assert!(matches!(bench.archive.store(offer(EXPLICIT)).await, Err(StoreError::Stopping)));
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_with_its_reason() {
    let bench = Bench::new(ServiceSettings::default());
    // B10: it came back in the headers of an answer.
    for syntax in ["1.2.840\r\nX-Evil: 1", "", "implicit", "1..2"] {
        let refused = bench.archive.store(offer(syntax)).await.err();
        assert!(matches!(refused, Some(StoreError::TransferSyntax(_))), "{syntax:?}");
    }
    let padded = bench.archive.store(offer("1.2.840.10008.1.2.1\0")).await;
    assert!(padded.is_ok());
    let mut other = offer(EXPLICIT);
    other.study = Some(Uid::parse("1.9").unwrap());
    let mut ingest = bench.archive.store(other).await.unwrap();
    push(&mut ingest, &object("1.2", 1, 10, 7)).await.unwrap();
    assert!(matches!(ingest.finish().await, Err(StoreError::StudyMismatch)));
    bench.log.set_quorum(false);
    for size in [1000, 3 * MIB] {
        assert!(matches!(bench.store(&object("1.2", 1, size, 7)).await, Err(StoreError::NoQuorum)));
    }
    assert_eq!(bench.memory(), 0);
}

/// B15: the study decides which group takes the first block.
#[tokio::test]
async fn a_large_object_names_its_study_within_its_first_block() {
    let bench = Bench::new(ServiceSettings::default());
    let front = long(0x0009, 0x1010, "OB", &vec![0; 2 * MIB]);
    let refused = bench.store(&[front, object("1.2", 1, 10, 7).to_vec()].concat().into()).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, StoreError::BadUid { tag: tags::STUDY_INSTANCE_UID, .. }), "{text}");
    assert!(text.contains("within") || text.contains("first 1 MiB"), "{text}");
}

/// B6: its header is made beside the async threads, and read back.
#[tokio::test]
async fn a_header_of_many_empty_elements_is_kept_and_read() {
    let bench = Bench::new(ServiceSettings::default());
    let uids = object("1.2", 1, 2, 7);
    let (front, pixels) = uids.split_at(uids.len() - 14);
    let empty = (0..200_000_u32).flat_map(|at| {
        let (group, number) = (0x0031 + 2 * (at / 60_000) as u16, (at % 60_000) as u16 + 1);
        [&group.to_le_bytes()[..], &number.to_le_bytes(), b"US\0\0"].concat()
    });
    let sent = [front, &empty.collect::<Vec<_>>(), pixels].concat().into();
    assert_eq!(bench.store(&sent).await.unwrap().admission, Admission::New);
    let selection = Selection { studies: vec![Uid::parse("1.2").unwrap()], ..Selection::default() };
    let mut headers = bench.archive.headers(selection, Freshness::ReadIndex).await.unwrap();
    let (_, header) = headers.next().await.unwrap().unwrap();
    assert!(header.len() > 4 * MIB && header.ends_with(b"}"));
    assert!(headers.next().await.is_none());
}

fn studies() -> Find {
    let mut keys = DataSet::new();
    keys.put_text(tags::STUDY_INSTANCE_UID, VR::UI, "");
    keys.put_text(tags::SERIES_DESCRIPTION, VR::LO, ""); // of a level below
    let meaning = archive_model::matching::Meaning::default();
    Find { level: Level::Study, keys, include: Include::Requested, limit: None, offset: 0, meaning }
}

/// B5: each held one of the permits that every query and look-up needs, for as long as it did not read.
/// Found by chaos: a node that had just started guessed a group, and a moment later that guess was committed.
#[tokio::test(start_paused = true)]
async fn before_the_groups_are_known_nothing_is_stored_or_deleted_by_a_guess() {
    let bench = Bench::new(ServiceSettings::default());
    bench.log.set_knows_groups(false);
    let stored = bench.store(&object("1.2.3", 1, 100, 1)).await;
    assert!(matches!(stored, Err(StoreError::NoQuorum)), "{stored:?}");
    let large = bench.store(&object("1.2.3", 1, 3 * MIB, 1)).await;
    assert!(matches!(large, Err(StoreError::NoQuorum)), "{large:?}");
    let target = crate::Target { study: Uid::parse("1.2.3").unwrap(), series: None, instance: None };
    let deleted = bench.archive.delete(target, "test", "here").await;
    assert!(matches!(deleted, Err(StoreError::NoQuorum)), "{deleted:?}");
    assert_eq!(bench.log.bodies(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_readers_stop_nobody() {
    let bench = Bench::new(ServiceSettings { queries_max: 2, ..ServiceSettings::default() });
    for number in 0..1700 {
        bench.store(&object(&format!("1.2.{number}"), 1, 10, 7)).await.unwrap();
    }
    let mut slow = Vec::new();
    for _ in 0..6 {
        let mut matches = in_time(bench.archive.find(studies(), Freshness::ReadIndex)).await.unwrap();
        assert_eq!(matches.unsupported(), [tags::SERIES_DESCRIPTION]);
        in_time(matches.next()).await.unwrap().unwrap();
        slow.push(matches);
    }
    assert_eq!(in_time(bench.archive.totals()).await.unwrap().studies, 1700);
    let mut quick = in_time(bench.archive.find(studies(), Freshness::ReadIndex)).await.unwrap();
    let mut found = 0;
    while let Some(row) = in_time(quick.next()).await {
        row.unwrap();
        found += 1;
    }
    assert_eq!(found, 1700);
    for mut matches in slow {
        while let Some(row) = in_time(matches.next()).await {
            row.unwrap();
            found += 1;
        }
    }
    assert_eq!(found, 7 * 1700 - 6);
}
