//! Notifications over a real catalogue and a log in memory. Time stands still, and jumps when nobody can go on.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    Offer, Protocol, ServiceSettings, Source, Target,
    peers::Peer,
    testing::{LocalLog, TestClock, archive_at},
};
use archive_catalog::{RejectAction, RejectedAgain, Rejection};
use archive_model::{AeTitle, Encoding, write_data_set};
use raft_types::Clock;
use tokio::task::JoinHandle;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

/// Takes notifications, after so many refusals.
#[derive(Default)]
struct Listener {
    taken: Mutex<Vec<(String, Notification)>>,
    tried: Mutex<Vec<String>>,
    refusals: Mutex<usize>,
}

impl Notifier for Listener {
    fn notify<'a>(&'a self, to: &'a RemoteAe, notification: &'a Notification) -> BoxFuture<'a, Result<(), String>> {
        self.tried.lock().push(notification.instance.clone());
        let mut refusals = self.refusals.lock();
        let refused = *refusals > 0;
        *refusals = refusals.saturating_sub(1);
        if !refused {
            self.taken.lock().push((to.title.to_string(), notification.clone()));
        }
        Box::pin(async move { if refused { Err("nobody listens".into()) } else { Ok(()) } })
    }
}

struct Bench {
    archive: Archive,
    log: Arc<LocalLog>,
    listener: Arc<Listener>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(wanting: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = TestClock::new();
        let (archive, log) = archive_at(folder.path(), ServiceSettings::default(), clock);
        for ae in wanting {
            let address = Some("127.0.0.1:1".into());
            let peer = Peer { address, notify: true, ..Peer::new(AeTitle::parse(ae).unwrap()) };
            archive.peers().set(peer, None).await.unwrap();
        }
        Self { archive, log, listener: Arc::default(), _folder: folder }
    }

    async fn store(&self, number: u8) {
        let mut set = DataSet::new();
        set.put_text(tags::SOP_CLASS_UID, VR::UI, CT);
        set.put_text(tags::SOP_INSTANCE_UID, VR::UI, format!("1.2.1.{number}"));
        set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2");
        set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.1");
        let source = Source {
            protocol: Protocol::Stow,
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

    fn work(&self) -> JoinHandle<()> {
        tokio::spawn(self.archive.clone().work_on_availability(Arc::<Listener>::clone(&self.listener)))
    }

    /// To whom, and what of which instance, by notification.
    fn told(&self) -> Vec<(String, Vec<(String, String)>)> {
        let text = |set: &DataSet, tag| set.text(tag).unwrap_or_default().to_owned();
        let taken = self.listener.taken.lock();
        taken
            .iter()
            .map(|(to, notification)| {
                let set = &notification.data_set;
                assert_eq!(text(set, tags::STUDY_INSTANCE_UID), "1.2");
                let series = set.items(tags::REFERENCED_SERIES_SEQUENCE);
                assert_eq!(series.len(), 1);
                let items = series[0].items(tags::REFERENCED_SOP_SEQUENCE).iter();
                let of =
                    |item| (text(item, tags::REFERENCED_SOP_INSTANCE_UID), text(item, tags::INSTANCE_AVAILABILITY));
                (to.clone(), items.map(of).collect())
            })
            .collect()
    }

    async fn records(&self) -> usize {
        self.archive.records(KIND).list("", 10, Freshness::Local).await.unwrap().len()
    }

    async fn end(self, work: JoinHandle<()>) {
        self.archive.drain();
        tokio::time::timeout(Duration::from_secs(5), work).await.expect("the work ends").unwrap();
        self.archive.shutdown().await;
    }
}

fn online(numbers: &[u8]) -> Vec<(String, String)> {
    numbers.iter().map(|number| (format!("1.2.1.{number}"), "ONLINE".to_owned())).collect()
}

/// A sleep in which what is due happens.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_study_is_told_once_when_it_is_quiet_and_again_when_it_grows() {
    let bench = Bench::new(&["A", "B"]).await;
    let work = bench.work();
    for number in 1..=3 {
        bench.store(number).await;
        pass(40).await;
        assert_eq!(bench.told(), [], "it still grows");
    }
    pass(30).await;
    let both = |numbers: &[u8]| [("A".to_owned(), online(numbers)), ("B".to_owned(), online(numbers))];
    assert_eq!(bench.told(), both(&[1, 2, 3]));
    assert_eq!(bench.records().await, 0);
    pass(600).await;
    assert_eq!(bench.told().len(), 2, "nothing new");
    bench.store(4).await;
    pass(70).await;
    assert_eq!(bench.told()[2..], both(&[1, 2, 3, 4]));
    bench.end(work).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_who_does_not_want_it_and_nothing_is_written_then() {
    let bench = Bench::new(&[]).await;
    bench.store(1).await;
    assert_eq!(bench.records().await, 0);
    bench.archive.shutdown().await;
}

/// the next leader goes on, with the same notification; and what came meanwhile is told too.
#[tokio::test(start_paused = true)]
async fn it_is_tried_again_under_the_same_uid_by_whoever_leads() {
    let bench = Bench::new(&["A"]).await;
    *bench.listener.refusals.lock() = 3;
    let work = bench.work();
    bench.store(1).await;
    pass(62).await;
    assert_eq!(bench.listener.tried.lock().len(), 1);
    work.abort();
    bench.store(2).await; // while it is being told
    bench.log.set_leads(false);
    let other = bench.work();
    pass(300).await;
    assert_eq!(bench.listener.tried.lock().len(), 1, "another node leads");
    bench.log.set_leads(true);
    pass(300).await;
    let tried = bench.listener.tried.lock().clone();
    assert!(tried.len() >= 4 && tried[..4].iter().all(|uid| *uid == tried[0]), "{tried:?}");
    assert_eq!(bench.told()[0], ("A".to_owned(), online(&[1, 2])));
    assert_eq!(bench.records().await, 0);
    bench.end(other).await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_for_days_is_given_up() {
    let bench = Bench::new(&["A"]).await;
    *bench.listener.refusals.lock() = usize::MAX;
    let work = bench.work();
    bench.store(1).await;
    pass(70).await;
    // Time jumps from attempt to attempt: a look every 250 ms for three days takes a minute.
    for _ in 0..(3 * 24) {
        assert_eq!(bench.records().await, 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        pass(3).await;
    }
    tokio::time::advance(Duration::from_secs(3600)).await;
    pass(3).await;
    assert_eq!(bench.records().await, 0);
    let tried = bench.listener.tried.lock().len();
    assert!((60..80).contains(&tried), "{tried} attempts");
    bench.end(work).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_rejected_is_told_at_once_as_unavailable() {
    let bench = Bench::new(&["A"]).await;
    let work = bench.work();
    bench.store(1).await;
    bench.store(2).await;
    pass(70).await;
    assert_eq!(bench.told(), [("A".to_owned(), online(&[1, 2]))]);
    let uid = |text: &str| Uid::parse(text).unwrap();
    let rejection = Rejection {
        note: [uid("1.2"), uid("9"), uid("9.9")],
        code: "113037".into(),
        action: RejectAction::Hide,
        again: RejectedAgain::Keep,
        source: String::new(),
        rejected_unix_ms: 1,
    };
    let named = vec![(uid("1.2.1"), vec![uid("1.2.1.2")])];
    let command = archive_catalog::Command::Reject { rejection, study: uid("1.2"), named };
    let group = bench.archive.group_of(&uid("1.2")).unwrap();
    bench.archive.propose(group, &command, Bytes::new()).await.unwrap();
    bench.archive.study_changed(&uid("1.2"), true).await.unwrap();
    pass(3).await;
    let (one, gone) = (online(&[1]).swap_remove(0), ("1.2.1.2".to_owned(), "UNAVAILABLE".to_owned()));
    assert_eq!(bench.told()[1], ("A".to_owned(), vec![one, gone]));
    let target = Target { study: uid("1.2"), series: None, instance: None };
    bench.archive.restore_rejected(target, "me").await.unwrap();
    pass(3).await;
    assert_eq!(bench.told()[2], ("A".to_owned(), online(&[1, 2])));
    bench.end(work).await;
}

#[test]
fn a_record_is_these_bytes_for_ever() {
    let waiting = State::Waiting { at_once: true };
    assert_eq!(waiting.encode(), &b"\x01\x00\x01"[..]);
    let left = vec![Left { ae_title: "A".into(), tries: 2, next_unix_ms: 300 }];
    let telling = State::Telling { instance: "2.25.1".into(), since_unix_ms: 5, left, again: true };
    assert_eq!(telling.encode(), &b"\x01\x01\x062.25.1\x05\x01\x01A\x02\xac\x02\x01"[..]);
    for state in [waiting, telling] {
        assert_eq!(State::decode(&state.encode()), Some(state));
    }
    assert_eq!(State::decode(b"\x02\x00\x01"), None, "a newer release");
}
