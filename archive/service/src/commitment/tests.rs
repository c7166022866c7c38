//! Transactions over a real catalogue and a log in memory. Time stands still, and jumps when nobody can go on.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    Offer, Protocol, Selection, ServiceSettings, Source,
    testing::{LocalLog, TestClock, archive_at},
};
use archive_catalog::Target;
use archive_model::{AeTitle, DataSet, Encoding, write_data_set};
use parking_lot::Mutex;
use raft_types::{BlockAddress, Clock};
use tokio::task::JoinHandle;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const MR: &str = "1.2.840.10008.5.1.4.1.1.4";
const MIB: usize = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Takes reports, after so many refusals.
#[derive(Default)]
struct Listener {
    taken: Mutex<Vec<Report>>,
    refusals: Mutex<usize>,
}

impl Reporter for Listener {
    fn report<'a>(&'a self, to: &'a RemoteAe, report: &'a Report) -> BoxFuture<'a, Result<(), String>> {
        assert_eq!(to.title.as_str(), "CT1");
        let mut refusals = self.refusals.lock();
        let refused = *refusals > 0;
        *refusals = refusals.saturating_sub(1);
        if !refused {
            self.taken.lock().push(report.clone());
        }
        Box::pin(async move { if refused { Err("nobody listens".into()) } else { Ok(()) } })
    }
}

struct Bench {
    archive: Archive,
    log: Arc<LocalLog>,
    listener: Arc<Listener>,
    work: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let title = AeTitle::parse("CT1").unwrap();
        let remote = RemoteAe { title, address: "127.0.0.1:1".into() };
        let settings = ServiceSettings { remotes: [("CT1".to_owned(), remote)].into(), ..ServiceSettings::default() };
        let clock: Arc<dyn Clock> = TestClock::new();
        let (archive, log) = archive_at(folder.path(), settings, clock);
        let listener = Arc::new(Listener::default());
        let work = tokio::spawn(archive.clone().work_on_commitments(Arc::<Listener>::clone(&listener)));
        Self { archive, log, listener, work, _folder: folder }
    }

    async fn store(&self, instance: &str, pixels: usize) {
        let mut set = DataSet::new();
        set.put_text(tags::SOP_CLASS_UID, VR::UI, CT);
        set.put_text(tags::SOP_INSTANCE_UID, VR::UI, instance);
        set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3");
        set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.1");
        let value = Value::Bytes(vec![7; pixels].into());
        set.put(Element { tag: tags::PIXEL_DATA, vr: VR::OW, value });
        let source = Source {
            protocol: Protocol::Dimse,
            calling_ae: String::new(),
            called_ae: String::new(),
            peer: String::new(),
        };
        let transfer_syntax = "1.2.840.10008.1.2.1".into();
        let offer = Offer { sop_class: None, instance: None, study: None, transfer_syntax, source };
        let mut ingest = self.archive.store(offer).await.unwrap();
        ingest.push(write_data_set(&set, Encoding::ExplicitLe).into()).await.unwrap();
        ingest.finish().await.unwrap();
    }

    /// The last block of an instance.
    async fn block_of(&self, instance: &str) -> BlockAddress {
        let selection = Selection { instances: vec![Uid::parse(instance).unwrap()], ..Selection::default() };
        let row = self.archive.instances(selection, Freshness::Local).await.unwrap().swap_remove(0);
        BlockAddress { group: row.group, index: row.blocks.last().unwrap().index }
    }

    async fn ask(&self, transaction: &str, wanted: &[(&str, &str)]) -> Asked {
        let wanted = wanted.iter().map(|(class, instance)| reference(class, instance)).collect();
        let requester = Requester::Application { ae_title: "CT1".into() };
        self.archive.request_commitment(&Uid::parse(transaction).unwrap(), wanted, requester).await.unwrap()
    }

    /// Asks, hangs up, and waits for the report.
    async fn report(&self, transaction: &str, wanted: &[(&str, &str)]) -> Report {
        let before = self.listener.taken.lock().len();
        let asked = self.ask(transaction, wanted).await;
        let mut open = OpenCommitments::new(&self.archive);
        open.add(asked);
        drop(open);
        self.until(|| self.listener.taken.lock().len() > before).await;
        self.listener.taken.lock().last().unwrap().clone()
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(HOUR, wait).await.expect("not in an hour");
    }

    async fn known(&self, key: &str) -> Transaction {
        let record = self.archive.records(KIND).get(key, Freshness::Local).await.unwrap().unwrap();
        Transaction::decode(&record.body).unwrap()
    }

    async fn end(self) {
        self.archive.drain();
        tokio::time::timeout(Duration::from_secs(5), self.work).await.expect("the work ends").unwrap();
        self.archive.shutdown().await;
    }
}

/// Lets much time pass, and then what was due happen.
async fn jump(time: Duration) {
    tokio::time::advance(time).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
}

fn reference(class: &str, instance: &str) -> Reference {
    Reference { class: class.into(), instance: instance.into() }
}

fn reasons(report: &Report) -> Vec<u16> {
    report.failed.iter().map(|(_, reason)| *reason).collect()
}

#[tokio::test(start_paused = true)]
async fn only_what_is_here_of_its_class_and_whole_is_committed() {
    let bench = Bench::new();
    for (instance, pixels) in [("1.2.3.1.1", 100), ("1.2.3.1.2", 3 * MIB), ("1.2.3.1.3", 100), ("1.2.3.1.4", 2 * MIB)] {
        bench.store(instance, pixels).await;
    }
    let uid = |text| Uid::parse(text).unwrap();
    let target = Target { study: uid("1.2.3"), series: Some(uid("1.2.3.1")), instance: Some(uid("1.2.3.1.3")) };
    bench.archive.delete(target, "test", "here").await.unwrap();
    bench.log.damage(bench.block_of("1.2.3.1.4").await);
    let report = bench
        .report(
            "1.9",
            &[
                (CT, "1.2.3.1.1"),
                (CT, "1.2.3.1.2"),
                (CT, "1.2.3.1.3"),
                (CT, "1.2.3.1.4"),
                (MR, "1.2.3.1.1"),
                (CT, "1.2.3.1.99"),
                (CT, "no UID"),
                ("1.2.840.10008.1.1", "1.2.3.1.1"),
            ],
        )
        .await;
    assert_eq!(report.transaction, "1.9");
    assert_eq!(report.committed, [reference(CT, "1.2.3.1.1"), reference(CT, "1.2.3.1.2")]);
    assert_eq!(reasons(&report), [0x0112, 0x0110, 0x0119, 0x0112, 0x0112, 0x0122]);
    assert_eq!(report.event_type(), 2);
    let all = bench.report("1.10", &[(CT, "1.2.3.1.1")]).await;
    assert_eq!((all.event_type(), all.failed.len()), (1, 0));
    bench.end().await;
}

/// Who sent the second content is told of a commitment too: it is verified as well.
#[tokio::test(start_paused = true)]
async fn other_contents_of_a_uid_are_verified_with_it() {
    let bench = Bench::new();
    bench.store("1.2.3.1.1", 100).await;
    let first = bench.block_of("1.2.3.1.1").await;
    bench.store("1.2.3.1.1", 200).await;
    let before = bench.log.verified();
    assert_eq!(bench.report("1.9", &[(CT, "1.2.3.1.1")]).await.event_type(), 1);
    assert_eq!(bench.log.verified() - before, 2);
    bench.log.damage(BlockAddress { index: first.index + 1, ..first });
    assert_eq!(reasons(&bench.report("1.10", &[(CT, "1.2.3.1.1")]).await), [0x0110]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_list_again_is_answered_from_the_record_and_another_one_fails() {
    let bench = Bench::new();
    bench.store("1.2.3.1.1", 100).await;
    let list = [(CT, "1.2.3.1.1"), (CT, "1.2.3.1.2")];
    let first = bench.report("1.9", &list).await;
    assert_eq!(reasons(&first), [0x0112]);
    let verified = bench.log.verified();
    bench.store("1.2.3.1.2", 100).await;
    let turned = [list[1], list[0]];
    assert_eq!(bench.report("1.9", &turned).await, first, "it does not change");
    assert_eq!(bench.log.verified(), verified);
    let other = bench.report("1.9", &list[..1]).await;
    assert_eq!((other.transaction.as_str(), reasons(&other)), ("1.9", vec![0x0131]));
    assert_eq!(bench.log.verified(), verified);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_too_few_replicas_answer_nothing_is_said_and_after_ten_minutes_that() {
    let bench = Bench::new();
    bench.store("1.2.3.1.1", 100).await;
    bench.log.set_silent(true);
    let since = tokio::time::Instant::now();
    assert_eq!(reasons(&bench.report("1.9", &[(CT, "1.2.3.1.1")]).await), [0x0213]);
    assert!((600..700).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    let asked = bench.ask("1.10", &[(CT, "1.2.3.1.1")]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.log.set_silent(false);
    let report = bench.archive.commitment_within(&asked, Duration::from_secs(120)).await.expect("a result");
    assert_eq!(report.event_type(), 1);
    bench.end().await;
}

/// A node that dies is a leader that does nothing more: its peer goes on from the record.
#[tokio::test(start_paused = true)]
async fn whoever_leads_goes_on() {
    let bench = Bench::new();
    bench.store("1.2.3.1.1", 100).await;
    bench.log.set_leads(false);
    let asked = bench.ask("1.9", &[(CT, "1.2.3.1.1")]).await;
    assert_eq!(bench.archive.commitment_within(&asked, MINUTE).await, None, "another node leads");
    bench.log.set_leads(true);
    *bench.listener.refusals.lock() = 6;
    bench.until(|| bench.listener.taken.lock().len() == 1).await;
    assert_eq!(*bench.listener.refusals.lock(), 0);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_given_up_after_days_and_sent_when_it_is_asked_for_again() {
    let bench = Bench::new();
    bench.store("1.2.3.1.1", 100).await;
    *bench.listener.refusals.lock() = usize::MAX;
    let since = tokio::time::Instant::now();
    bench.ask("1.9", &[(CT, "1.2.3.1.1")]).await;
    loop {
        jump(HOUR).await;
        let known = bench.known("1.9").await;
        if known.is_found() && !known.is_unsent() {
            break;
        }
    }
    assert!((72..75).contains(&(since.elapsed().as_secs() / 3600)), "{:?}", since.elapsed());
    *bench.listener.refusals.lock() = 0;
    assert_eq!(bench.report("1.9", &[(CT, "1.2.3.1.1")]).await.event_type(), 1);
    // A month later nobody knows of it any more.
    jump(31 * 24 * HOUR).await;
    let known = bench.archive.commitment(&Uid::parse("1.9").unwrap(), Freshness::Local).await.unwrap();
    assert_eq!(known, None);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_association_takes_its_report_and_a_closed_one_leaves_it() {
    let bench = Bench::new();
    bench.store("1.2.3.1.1", 100).await;
    let mut open = OpenCommitments::new(&bench.archive);
    open.add(bench.ask("1.9", &[(CT, "1.2.3.1.1")]).await);
    let (asked, report) = tokio::time::timeout(Duration::from_secs(2), open.next()).await.expect("soon");
    assert_eq!((report.transaction.as_str(), report.event_type()), ("1.9", 1));
    open.sent(&asked, true).await;
    assert!(!bench.known("1.9").await.is_unsent());
    assert!(tokio::time::timeout(MINUTE, open.next()).await.is_err(), "once");
    assert!(bench.listener.taken.lock().is_empty());
    // Not taken there: over another one.
    let asked = bench.ask("1.10", &[(CT, "1.2.3.1.1")]).await;
    open.add(asked.clone());
    let (asked, _) = open.next().await;
    open.sent(&asked, false).await;
    bench.until(|| bench.listener.taken.lock().len() == 1).await;
    // An association that neither takes it nor closes: some seconds later a new one is made.
    open.add(bench.ask("1.11", &[(CT, "1.2.3.1.1")]).await);
    let since = tokio::time::Instant::now();
    bench.until(|| bench.listener.taken.lock().len() == 2).await;
    assert!((5..8).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_is_promised() {
    let bench = Bench::new();
    bench.log.set_quorum(false);
    let wanted = vec![reference(CT, "1.2.3.1.1")];
    let requester = Requester::Application { ae_title: "CT1".into() };
    let refused = bench.archive.request_commitment(&Uid::parse("1.9").unwrap(), wanted, requester).await;
    assert!(matches!(refused, Err(RecordError::Query(_))), "{refused:?}");
    bench.end().await;
}

#[test]
fn requests_are_validated() {
    let mut set = DataSet::new();
    assert!(matches!(transaction_uid(&set), Err(BadRequest::Argument { tag: tags::TRANSACTION_UID, .. })));
    let sequence = tags::REFERENCED_SOP_SEQUENCE;
    assert!(matches!(references(&set), Err(BadRequest::Argument { tag, .. }) if tag == sequence));
    set.put(Element { tag: sequence, vr: VR::SQ, value: Value::Items(Vec::new()) });
    assert!(matches!(references(&set), Err(BadRequest::Argument { tag, .. }) if tag == sequence));
    let mut item = DataSet::new();
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3\0");
    set.put(Element { tag: sequence, vr: VR::SQ, value: Value::Items(vec![item.clone()]) });
    let class = tags::REFERENCED_SOP_CLASS_UID;
    assert!(matches!(references(&set), Err(BadRequest::Argument { tag, .. }) if tag == class));
    item.put_text(class, VR::UI, CT);
    set.put(Element { tag: sequence, vr: VR::SQ, value: Value::Items(vec![item; 2]) });
    assert_eq!(references(&set).unwrap(), [reference(CT, "1.2.3"), reference(CT, "1.2.3")]);
}
