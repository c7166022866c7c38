//! Jobs of nodes over one catalogue and one log in memory. Time stands still, and jumps when nobody can go on.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    Offer, Protocol, RemoteAe, ServiceSettings, Source, Target,
    peers::Peer,
    testing::{LocalLog, LocalNode, TestClock, archive_at, archive_beside},
};
use archive_model::{DataSet, Encoding, Uid, VR, tags, write_data_set};
use parking_lot::Mutex;
use raft_types::Clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{task::JoinHandle, time::Instant};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const STUDY: &str = "1.2.3";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The destination, however it is reached.
#[derive(Default)]
struct Receiver {
    /// How often each instance came.
    came: Mutex<BTreeMap<String, usize>>,
    /// So many attempts do not reach it.
    away: AtomicUsize,
    /// It takes none of these.
    refused: Mutex<BTreeSet<String>>,
    /// Time for each instance.
    slow: Mutex<Duration>,
    attempts: Mutex<Vec<Instant>>,
}

impl Sender for Receiver {
    fn send<'a>(
        &'a self,
        _: &'a Archive,
        to: &'a Destination,
        _: Option<(&'a str, u16)>,
        rows: &'a [InstanceRow],
        each: &'a (dyn Fn(usize, Outcome, &str) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<(), String>> {
        assert_eq!(to.remote.title.as_str(), "WS1");
        self.attempts.lock().push(Instant::now());
        Box::pin(async move {
            if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err("nobody listens".into());
            }
            for (at, row) in rows.iter().enumerate() {
                let slow = *self.slow.lock();
                tokio::time::sleep(slow).await;
                let instance = row.instance.to_string();
                let wanted = if self.refused.lock().contains(&instance) {
                    each(at, Outcome::Failed, "status A700")
                } else {
                    *self.came.lock().entry(instance).or_default() += 1;
                    each(at, Outcome::Sent, "")
                };
                if !wanted {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// A node with its work.
struct Own {
    archive: Archive,
    node: Arc<LocalNode>,
    work: JoinHandle<()>,
}

impl Own {
    /// As by kill -9: nothing of it is heard any more, not even an end.
    fn die(&self) {
        self.node.die();
        self.work.abort();
    }
}

struct Bench {
    first: Archive,
    log: Arc<LocalLog>,
    receiver: Arc<Receiver>,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// One with so many instances.
    async fn with(instances: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let title = AeTitle::parse("WS1").unwrap();
        let remote = RemoteAe { title, address: "127.0.0.1:1".into() };
        let settings = ServiceSettings { remotes: [("WS1".to_owned(), remote)].into(), ..ServiceSettings::default() };
        let clock: Arc<dyn Clock> = TestClock::new();
        let (first, log) = archive_at(folder.path(), settings, clock);
        let bench = Self { first, log, receiver: Arc::default(), _folder: folder };
        for number in 0..instances {
            bench.store(&uid(number)).await;
        }
        bench
    }

    /// A node that works on sends.
    fn node(&self, name: &'static str, leads: bool) -> Own {
        let (archive, node) = archive_beside(&self.first, &self.log, name);
        node.set_leads(leads);
        let receiver: Arc<dyn Sender> = Arc::<Receiver>::clone(&self.receiver);
        let work = tokio::spawn(archive.clone().work_on_sends(receiver));
        Own { archive, node, work }
    }

    async fn store(&self, instance: &str) {
        let mut set = DataSet::new();
        set.put_text(tags::SOP_CLASS_UID, VR::UI, CT);
        set.put_text(tags::SOP_INSTANCE_UID, VR::UI, instance);
        set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, STUDY);
        set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.1");
        let source = Source {
            protocol: Protocol::Dimse,
            calling_ae: String::new(),
            called_ae: String::new(),
            peer: String::new(),
        };
        let transfer_syntax = "1.2.840.10008.1.2.1".into();
        let offer = Offer { sop_class: None, instance: None, study: None, transfer_syntax, source };
        let mut ingest = self.first.store(offer).await.unwrap();
        ingest.push(write_data_set(&set, Encoding::ExplicitLe).into()).await.unwrap();
        ingest.finish().await.unwrap();
    }

    /// How often each instance came, in order.
    fn came(&self) -> Vec<usize> {
        self.receiver.came.lock().values().copied().collect()
    }

    async fn jobs(&self) -> Vec<Listed> {
        self.first.sends("", 1000).await.unwrap()
    }

    /// The one job that there is.
    async fn job(&self) -> Listed {
        let mut jobs = self.jobs().await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    async fn until_all(&self, state: &str) {
        let all = async {
            loop {
                let jobs = self.jobs().await;
                if !jobs.is_empty() && jobs.iter().all(|job| job.state == state) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        if tokio::time::timeout(HOUR, all).await.is_err() {
            panic!("never {state}: {:?}", self.jobs().await);
        }
    }

    /// Begins a C-MOVE at a node.
    async fn begin(&self, at: &Own) -> Moving {
        let rows = at.archive.instances(study(), Freshness::Local).await.unwrap();
        let to = at.archive.peers().destination("WS1").unwrap();
        let moving = at.archive.begin_move("WS2", 7, &to, &rows);
        moving.recorded().await;
        moving
    }

    async fn queue(&self) -> String {
        let (mut ids, _) = self.first.queue_send(&ws1(), study()).await.unwrap();
        ids.remove(0)
    }
}

fn uid(number: usize) -> String {
    format!("1.2.3.1.{}", 100 + number)
}

fn ws1() -> AeTitle {
    AeTitle::parse("WS1").unwrap()
}

fn study() -> Selection {
    Selection { studies: vec![Uid::parse(STUDY).unwrap()], ..Selection::default() }
}

/// Lets much time pass, and then what was due happen.
async fn jump(time: Duration) {
    tokio::time::advance(time).await;
    tokio::time::sleep(61 * SECOND).await;
}

fn sent(moving: &Moving, count: usize) {
    (0..count).for_each(|at| moving.done(at, Outcome::Sent, ""));
}

#[tokio::test(start_paused = true)]
async fn a_move_that_is_answered_leaves_nothing() {
    let bench = Bench::with(3).await;
    let (n1, _n2) = (bench.node("n1", false), bench.node("n2", true));
    let moving = bench.begin(&n1).await;
    let job = bench.job().await;
    assert_eq!((job.state, job.node.as_deref(), job.asked_by.as_deref()), ("running", Some("n1"), Some("WS2")));
    assert_eq!((job.instances, job.left, job.sent), (3, 3, 0));
    sent(&moving, 2);
    moving.done(2, Outcome::Failed, "status A700");
    moving.finish();
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.jobs().await, [], "its asker was told of the failure");
    bench.begin(&n1).await.give_up();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(bench.jobs().await, [], "nobody wants the rest");
    assert_eq!(bench.came(), [0_usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn when_the_node_of_a_move_dies_its_peer_sends_the_rest() {
    let bench = Bench::with(6).await;
    let (n1, _n2) = (bench.node("n1", false), bench.node("n2", true));
    let moving = bench.begin(&n1).await;
    sent(&moving, 2);
    // A slow destination: while its node lives, nobody else sends.
    tokio::time::sleep(301 * SECOND).await;
    sent(&moving, 1);
    assert_eq!((bench.job().await.sent, bench.came().len()), (2, 0));
    n1.die();
    std::mem::forget(moving);
    let died = Instant::now();
    bench.until_all("done").await;
    assert!((8..20).contains(&died.elapsed().as_secs()), "{:?}", died.elapsed());
    let job = bench.job().await;
    assert_eq!((job.sent, job.left, job.failed, job.instances), (6, 0, 0, 6));
    // The third was sent and not written down: it comes again. The first two do not.
    assert_eq!(bench.receiver.came.lock().keys().cloned().collect::<Vec<_>>(), [uid(2), uid(3), uid(4), uid(5)]);
    assert_eq!(bench.came(), [1, 1, 1, 1]);
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(bench.came(), [1, 1, 1, 1], "once");
}

#[tokio::test(start_paused = true)]
async fn a_queued_send_goes_on_at_a_peer_when_its_node_dies_and_at_once_when_it_stops() {
    let bench = Bench::with(20).await;
    *bench.receiver.slow.lock() = SECOND;
    let n1 = bench.node("n1", true);
    bench.queue().await;
    tokio::time::sleep(13 * SECOND + SECOND / 2).await;
    let before = bench.job().await;
    assert_eq!((before.state, before.node.as_deref()), ("running", Some("n1")));
    assert!((8..=12).contains(&before.sent), "progress is written: {before:?}");
    n1.die();
    let n2 = bench.node("n2", true);
    tokio::time::sleep(15 * SECOND).await;
    let job = bench.job().await;
    assert_eq!((job.state, job.node.as_deref()), ("running", Some("n2")));
    // A stop is said: nobody waits for beats.
    let came = bench.receiver.came.lock().len();
    n2.archive.drain();
    n2.archive.shutdown().await;
    let stopped = bench.job().await;
    assert_eq!(stopped.state, "waiting");
    assert_eq!(usize::try_from(stopped.sent).unwrap(), came, "all that came is written down");
    let since = Instant::now();
    let _n3 = bench.node("n3", true);
    bench.until_all("done").await;
    assert!(since.elapsed().as_secs() < 15, "{:?}", since.elapsed());
    assert_eq!(bench.job().await.sent, 20);
    let came = bench.came();
    assert_eq!(came.len(), 20);
    assert!(came.iter().all(|times| *times <= 2) && came.iter().filter(|times| **times == 2).count() <= 5, "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_move_that_a_stop_cuts_off_is_handed_over_at_once() {
    let bench = Bench::with(4).await;
    let (n1, _n2) = (bench.node("n1", false), bench.node("n2", true));
    let moving = bench.begin(&n1).await;
    sent(&moving, 3);
    n1.archive.drain();
    // While the node drains it is still its own.
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(bench.came(), [0_usize; 0]);
    drop(moving);
    let since = Instant::now();
    n1.archive.shutdown().await;
    bench.until_all("done").await;
    assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
    assert_eq!(bench.receiver.came.lock().keys().cloned().collect::<Vec<_>>(), [uid(3)]);
    tokio::time::timeout(5 * SECOND, n1.work).await.expect("its work ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_single_node_goes_on_after_its_restart() {
    let bench = Bench::with(3).await;
    let n1 = bench.node("n1", true);
    let moving = bench.begin(&n1).await;
    n1.die();
    std::mem::forget(moving);
    let since = Instant::now();
    let _again = bench.node("n1", true);
    bench.until_all("done").await;
    assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
    assert_eq!(bench.came(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_with_pauses_that_grow_and_given_up_after_days() {
    let bench = Bench::with(3).await;
    let _n1 = bench.node("n1", true);
    bench.receiver.away.store(4, Ordering::SeqCst);
    bench.queue().await;
    bench.until_all("done").await;
    let attempts = std::mem::take(&mut *bench.receiver.attempts.lock());
    let pauses: Vec<_> = attempts.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert!(pauses.len() == 4 && pauses.is_sorted() && pauses[0] >= 5 && pauses[3] >= 40, "{pauses:?}");
    assert_eq!(bench.came(), [1, 1, 1]);
    let done = bench.job().await;
    assert_eq!((done.why, done.tries), (None, 4), "what went well in the end has no failure");
    bench.first.cancel_send(&done.id).await.unwrap();
    // One that it never takes.
    bench.receiver.refused.lock().insert(uid(1));
    let (id, since) = (bench.queue().await, Instant::now());
    tokio::time::sleep(60 * SECOND).await;
    let job = bench.job().await;
    assert_eq!((job.state, job.sent, job.left, job.failed), ("waiting", 2, 1, 1));
    assert_eq!(job.why.as_deref(), Some("status A700"));
    while bench.job().await.state != "failed" {
        jump(HOUR).await;
    }
    assert!((72..75).contains(&(since.elapsed().as_secs() / 3600)), "{:?}", since.elapsed());
    let job = bench.first.send_of(&id).await.unwrap();
    assert_eq!((job.sent, job.failed, job.left_instances), (2, 1, vec![uid(1)]));
    assert_eq!(bench.came(), [2, 1, 2], "what was taken is not sent again");
    // And forgotten some days later.
    jump(71 * HOUR).await;
    assert_eq!(bench.jobs().await.len(), 1);
    jump(2 * HOUR).await;
    assert_eq!(bench.jobs().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_a_move_could_not_send_is_queued_if_its_destination_says_so() {
    let bench = Bench::with(3).await;
    let n1 = bench.node("n1", true);
    let again = Peer { address: Some("127.0.0.1:1".into()), retry_days: 2, ..Peer::new(ws1()) };
    n1.archive.peers().set(again, None).await.unwrap();
    let moving = bench.begin(&n1).await;
    sent(&moving, 1);
    // In whatever order.
    moving.done(2, Outcome::Failed, "status A700");
    moving.done(1, Outcome::Failed, "status A700");
    moving.finish();
    tokio::time::sleep(SECOND).await;
    let job = bench.job().await;
    assert_eq!((job.state, job.sent, job.left, job.why.as_deref()), ("waiting", 1, 2, Some("status A700")));
    assert_eq!(job.until_unix_ms - job.created_unix_ms, 2 * DAY_MS);
    bench.until_all("done").await;
    assert_eq!(bench.receiver.came.lock().keys().cloned().collect::<Vec<_>>(), [uid(1), uid(2)]);
    // Whom nobody wants any more is not sent for, policy or not.
    let moving = bench.begin(&n1).await;
    moving.done(0, Outcome::Failed, "status A700");
    moving.give_up();
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.jobs().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_send_is_cancelled_wherever_it_is() {
    let bench = Bench::with(20).await;
    *bench.receiver.slow.lock() = SECOND;
    let n1 = bench.node("n1", true);
    let id = bench.queue().await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(bench.first.cancel_send(&id).await.unwrap().state, "running");
    tokio::time::sleep(60 * SECOND).await;
    let came = bench.came().len();
    assert!(came < 8, "{came} came");
    assert_eq!(bench.job().await.state, "cancelled");
    bench.first.cancel_send(&id).await.unwrap();
    assert_eq!(bench.jobs().await, [], "one that has ended is forgotten");
    assert!(matches!(bench.first.cancel_send(&id).await, Err(SendError::UnknownJob(_))));
    // A C-MOVE is told.
    let moving = bench.begin(&n1).await;
    assert!(!moving.is_cancelled());
    bench.first.cancel_send(&bench.job().await.id).await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    assert!(moving.is_cancelled());
    moving.give_up();
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.job().await.state, "cancelled");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_not_owed_and_what_comes_later_is_no_part() {
    let bench = Bench::with(3).await;
    bench.queue().await;
    let parse = |text: &str| Uid::parse(text).unwrap();
    let target = Target { study: parse(STUDY), series: Some(parse("1.2.3.1")), instance: Some(parse(&uid(1))) };
    bench.first.delete(target, "test", "here").await.unwrap();
    bench.store(&uid(9)).await;
    let _n1 = bench.node("n1", true);
    bench.until_all("done").await;
    let job = bench.job().await;
    assert_eq!((job.sent, job.gone, job.instances), (2, 1, 3));
    assert_eq!(bench.receiver.came.lock().keys().cloned().collect::<Vec<_>>(), [uid(0), uid(2)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_a_move_goes_on_and_nothing_is_queued() {
    let bench = Bench::with(2).await;
    let n1 = bench.node("n1", true);
    bench.log.set_quorum(false);
    let since = Instant::now();
    let moving = bench.begin(&n1).await;
    assert!(since.elapsed() <= Duration::from_secs(2));
    sent(&moving, 2);
    moving.finish();
    assert!(matches!(bench.first.queue_send(&ws1(), study()).await, Err(SendError::Query(QueryError::NoQuorum))));
    bench.log.set_quorum(true);
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.jobs().await, []);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((bench.came().len(), n1.archive.senders().count()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_queued_says_why() {
    let bench = Bench::with(1).await;
    let nobody = AeTitle::parse("NOBODY").unwrap();
    let refused = bench.first.queue_send(&nobody, study()).await;
    assert!(matches!(refused, Err(SendError::UnknownDestination(_))), "{refused:?}");
    let nothing = Selection { studies: vec![Uid::parse("1.9").unwrap()], ..Selection::default() };
    assert!(matches!(bench.first.queue_send(&ws1(), nothing).await, Err(SendError::NothingToSend)));
    for _ in 0..WORKING_MAX {
        bench.queue().await;
    }
    let full = bench.first.queue_send(&ws1(), study()).await;
    assert!(matches!(full, Err(SendError::Full(WORKING_MAX))), "{full:?}");
    let id = bench.jobs().await.remove(0).id;
    bench.first.cancel_send(&id).await.unwrap();
    bench.queue().await;
}
