//! Notes over a real catalogue and a log in memory. Time stands still, and jumps when nobody can go on.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    Admission, Find, Include, Level, Offer, Protocol, ServiceSettings, Stored,
    testing::{LocalLog, TestClock, archive_at},
};
use archive_model::{DataSet, Element, Encoding, Tag, VR, Value, tags, write_data_set};
use raft_types::Clock;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const KOS: &str = "1.2.840.10008.5.1.4.1.1.88.59";

struct Bench {
    archive: Archive,
    log: Arc<LocalLog>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(rejections: RejectionPolicies) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = TestClock::new();
        let settings = ServiceSettings { rejections, ..ServiceSettings::default() };
        let (archive, log) = archive_at(folder.path(), settings, clock);
        Self { archive, log, _folder: folder }
    }

    async fn store(&self, set: &DataSet) -> Result<Stored, StoreError> {
        let source = Source {
            protocol: Protocol::Dimse,
            calling_ae: "QA".into(),
            called_ae: String::new(),
            peer: String::new(),
        };
        let transfer_syntax = "1.2.840.10008.1.2.1".into();
        let offer = Offer { sop_class: None, instance: None, study: None, transfer_syntax, source };
        let mut ingest = self.archive.store(offer).await.unwrap();
        ingest.push(write_data_set(set, Encoding::ExplicitLe).into()).await?;
        ingest.finish().await
    }

    /// SOP Instance UIDs that answer in a study.
    async fn shown(&self, study: &str) -> Vec<String> {
        let selection = Selection { studies: vec![uid(study)], ..Selection::default() };
        let rows = self.archive.instances(selection, Freshness::ReadIndex).await.unwrap();
        rows.iter().map(|row| row.instance.to_string()).collect()
    }

    /// SOP Instance UID and state of what notes name.
    async fn rejected(&self) -> Vec<(String, RejectedState)> {
        let found = self.archive.rejections(None, true, 1000).await.unwrap();
        found.into_iter().map(|one| (one.instance.to_string(), one.state)).collect()
    }

    async fn pending(&self) -> usize {
        self.archive.records(KIND).list("", 10, Freshness::Local).await.unwrap().len()
    }

    /// The work of a node for so long.
    async fn work_for(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.archive.clone().work_on_rejections()).await;
    }
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn image(study: &str, number: u8) -> DataSet {
    let mut set = DataSet::new();
    set.put_text(tags::SOP_CLASS_UID, VR::UI, CT);
    set.put_text(tags::SOP_INSTANCE_UID, VR::UI, format!("{study}.1.{number}"));
    set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, study);
    set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, format!("{study}.1"));
    set
}

fn sequence(tag: Tag, items: Vec<DataSet>) -> Element {
    Element { tag, vr: VR::SQ, value: Value::Items(items) }
}

fn titled(uid: &str, code: &str, scheme: &str, named: &[(&str, &[u8])]) -> DataSet {
    let mut title = DataSet::new();
    title.put_text(tags::CODE_VALUE, VR::SH, code);
    title.put_text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme);
    let studies = named.iter().map(|(study, numbers)| {
        let references = numbers.iter().map(|number| {
            let mut item = DataSet::new();
            item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, CT);
            item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, format!("{study}.1.{number}"));
            item
        });
        let mut series = DataSet::new();
        series.put_text(tags::SERIES_INSTANCE_UID, VR::UI, format!("{study}.1"));
        series.put(sequence(tags::REFERENCED_SOP_SEQUENCE, references.collect()));
        let mut item = DataSet::new();
        item.put_text(tags::STUDY_INSTANCE_UID, VR::UI, *study);
        item.put(sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![series]));
        item
    });
    let mut set = DataSet::new();
    set.put_text(tags::SOP_CLASS_UID, VR::UI, KOS);
    set.put_text(tags::SOP_INSTANCE_UID, VR::UI, uid);
    set.put_text(tags::STUDY_INSTANCE_UID, VR::UI, named.first().map_or("1.9", |(study, _)| study));
    set.put_text(tags::SERIES_INSTANCE_UID, VR::UI, "9.1");
    set.put(sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![title]));
    set.put(sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, studies.collect()));
    set
}

fn note(uid: &str, code: &str, named: &[(&str, &[u8])]) -> DataSet {
    titled(uid, code, "DCM", named)
}

/// What a node that dies leaves: the record, and the note or not.
async fn die_after(bench: &Bench, set: &DataSet, stored: bool) {
    let note = note_of(set).unwrap();
    let text = |tag| uid(set.text(tag).unwrap());
    let rejection = Rejection {
        note: [text(tags::STUDY_INSTANCE_UID), text(tags::SERIES_INSTANCE_UID), text(tags::SOP_INSTANCE_UID)],
        code: note.title.code().into(),
        action: RejectAction::Hide,
        again: RejectedAgain::Keep,
        source: "QA".into(),
        rejected_unix_ms: bench.archive.clock().unix_ms(),
    };
    if stored {
        // By a node whose policy is to do nothing, so that nothing is done.
        bench.store(set).await.unwrap();
    }
    let body = Body { rejection, studies: note.studies };
    let due = bench.archive.clock().unix_ms() + OWN_MS;
    let key = set.text(tags::SOP_INSTANCE_UID).unwrap();
    bench.archive.records(KIND).put(key, Expect::Absent, body.encode(), Some(due)).await.unwrap();
}

fn showing() -> RejectionPolicies {
    let show = RejectionPolicy { action: None, again: RejectedAgain::Keep };
    RejectionPolicies { quality: show, patient_safety: show, wrong_worklist_entry: show, retention_expired: show }
}

#[tokio::test(start_paused = true)]
async fn what_a_note_names_is_hidden_in_every_study_and_the_note_stays() {
    let bench = Bench::new(RejectionPolicies::default());
    for number in 1..=3 {
        bench.store(&image("1.1", number)).await.unwrap();
        bench.store(&image("1.2", number)).await.unwrap();
    }
    bench.store(&note("9.9", "113037", &[("1.1", &[1, 2]), ("1.2", &[3])])).await.unwrap();
    assert_eq!(bench.shown("1.1").await, ["1.1.1.3", "9.9"], "N-5");
    assert_eq!(bench.shown("1.2").await, ["1.2.1.1", "1.2.1.2"]);
    assert_eq!(bench.pending().await, 0, "its record is gone");
    let keys = [Element { tag: tags::SOP_INSTANCE_UID, vr: VR::UI, value: Value::Empty }].into_iter().collect();
    let find = Find {
        level: Level::Instance,
        keys,
        include: Include::Requested,
        limit: None,
        offset: 0,
        meaning: archive_model::matching::Meaning::default(),
    };
    let mut matches = bench.archive.find(find, Freshness::ReadIndex).await.unwrap();
    let mut found = 0;
    while let Some(one) = matches.next().await {
        one.unwrap();
        found += 1;
    }
    assert_eq!(found, 4);
    // Again, by the default: success, and still hidden.
    assert_eq!(bench.store(&image("1.1", 1)).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.shown("1.1").await, ["1.1.1.3", "9.9"]);
    // Restored by hand; the same note again does not overrule that (N-4).
    let target = Target { study: uid("1.1"), series: None, instance: None };
    let restored = bench.archive.restore_rejected(target, "me").await.unwrap();
    assert_eq!(restored, Restored { instances: 2, lifted: 0 });
    bench.store(&note("9.9", "113037", &[("1.1", &[1, 2]), ("1.2", &[3])])).await.unwrap();
    assert_eq!(bench.shown("1.1").await.len(), 4);
    bench.archive.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_comes_after_its_note_is_hidden() {
    let bench = Bench::new(RejectionPolicies::default());
    bench.store(&note("9.9", "113001", &[("1.1", &[1])])).await.unwrap();
    assert_eq!(bench.rejected().await, [("1.1.1.1".to_owned(), RejectedState::Awaited)]);
    assert_eq!(bench.store(&image("1.1", 1)).await.unwrap().admission, Admission::New);
    assert_eq!(bench.shown("1.1").await, ["9.9"]);
    assert_eq!(bench.rejected().await, [("1.1.1.1".to_owned(), RejectedState::Hidden)]);
    bench.archive.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_title_has_its_policy() {
    let bench = Bench::new(RejectionPolicies {
        quality: "show".parse().unwrap(),
        patient_safety: "hide:refuse".parse().unwrap(),
        wrong_worklist_entry: "hide:restore".parse().unwrap(),
        ..RejectionPolicies::default()
    });
    for number in 1..=5 {
        bench.store(&image("1.1", number)).await.unwrap();
    }
    for (at, code) in ["113001", "113037", "113038", "113039"].into_iter().enumerate() {
        let number = u8::try_from(at).unwrap() + 1;
        bench.store(&note(&format!("9.{number}"), code, &[("1.1", &[number])])).await.unwrap();
    }
    // A title of another scheme, or another title, is no rejection.
    bench.store(&titled("9.5", "113001", "99X", &[("1.1", &[5])])).await.unwrap();
    bench.store(&note("9.6", "113000", &[("1.1", &[5])])).await.unwrap();
    let images = async || {
        let shown = bench.shown("1.1").await;
        shown.into_iter().filter(|one| one.starts_with("1.1.1.")).collect::<Vec<_>>()
    };
    assert_eq!(images().await, ["1.1.1.1", "1.1.1.5"]);
    assert_eq!(bench.archive.rejections(Some(uid("1.1")), false, 9).await.unwrap().len(), 3);
    // A moment later each is sent again.
    tokio::time::advance(Duration::from_millis(5)).await;
    assert!(matches!(bench.store(&image("1.1", 2)).await, Err(StoreError::Rejected)));
    assert_eq!(bench.store(&image("1.1", 3)).await.unwrap().admission, Admission::Same);
    assert_eq!(bench.store(&image("1.1", 4)).await.unwrap().admission, Admission::New, "it was deleted");
    assert_eq!(images().await, ["1.1.1.1", "1.1.1.3", "1.1.1.4", "1.1.1.5"]);
    bench.archive.shutdown().await;
}

/// The second row of the table of `rejection.rs`, then the third.
#[tokio::test(start_paused = true)]
async fn whoever_leads_finishes_what_a_dead_node_began() {
    let bench = Bench::new(showing());
    bench.store(&image("1.1", 1)).await.unwrap();
    let (lost, kept) = (note("9.1", "113001", &[("1.1", &[1])]), note("9.2", "113001", &[("1.1", &[1])]));
    die_after(&bench, &lost, false).await;
    bench.work_for(Duration::from_secs(3600)).await;
    assert_eq!(bench.shown("1.1").await, ["1.1.1.1"], "N-3: the note is not there");
    assert_eq!(bench.pending().await, 1);
    bench.work_for(Duration::from_secs(24 * 3600)).await;
    assert_eq!(bench.pending().await, 0, "it has not come within a day");

    die_after(&bench, &kept, true).await;
    assert_eq!(bench.shown("1.1").await, ["1.1.1.1", "9.2"]);
    bench.log.set_leads(false);
    bench.work_for(Duration::from_secs(60)).await;
    assert_eq!(bench.pending().await, 1, "another node leads");
    bench.log.set_leads(true);
    bench.work_for(Duration::from_secs(60)).await;
    assert_eq!(bench.shown("1.1").await, ["9.2"], "N-1");
    assert_eq!(bench.pending().await, 0);
    bench.archive.shutdown().await;
}

/// Without a majority nothing of a note is done, and its sender is told to try again.
#[tokio::test(start_paused = true)]
async fn a_note_is_recorded_or_refused() {
    let bench = Bench::new(RejectionPolicies::default());
    bench.store(&image("1.1", 1)).await.unwrap();
    bench.log.set_quorum(false);
    let refused = bench.store(&note("9.1", "113001", &[("1.1", &[1])])).await;
    assert!(matches!(refused, Err(StoreError::NoQuorum)), "{refused:?}");
    bench.log.set_quorum(true);
    assert_eq!(bench.shown("1.1").await, ["1.1.1.1"]);
    assert_eq!(bench.pending().await, 0);
    // A record of a note that was not stored says what that said: the note that comes says something else.
    die_after(&bench, &note("9.1", "113001", &[("1.1", &[7])]), false).await;
    bench.store(&note("9.1", "113001", &[("1.1", &[1])])).await.unwrap();
    assert_eq!(bench.shown("1.1").await, ["9.1"]);
    bench.archive.shutdown().await;
}

#[test]
fn a_note_is_packed_and_cut_into_parts_without_itself() {
    let numbers: Vec<u8> = (1..=5).collect();
    let read = note_of(&note("1.1.1.2", "113039", &[("1.1", &numbers), ("1.2", &[1])])).unwrap();
    assert_eq!(read.title, RejectionTitle::RetentionExpired);
    let parts = read.studies.in_parts(3, &uid("1.1.1.2"));
    let named = |study: &str, numbers: &[u8]| {
        let instances = numbers.iter().map(|number| uid(&format!("{study}.1.{number}"))).collect();
        (uid(study), vec![(uid(&format!("{study}.1")), instances)])
    };
    assert_eq!(parts, [named("1.1", &[1, 3, 4]), named("1.1", &[5]), named("1.2", &[1])]);
    assert!(note_of(&image("1.1", 1)).is_none());
}

#[test]
fn a_record_is_these_bytes_for_ever() {
    let rejection = Rejection {
        note: [uid("1.2"), uid("1.3"), uid("1.4")],
        code: "113001".into(),
        action: RejectAction::Hide,
        again: RejectedAgain::Keep,
        source: "s".into(),
        rejected_unix_ms: 5,
    };
    let read = note_of(&note("1.4", "113001", &[("1.2", &[1, 2])])).unwrap();
    let body = Body { rejection, studies: read.studies };
    let golden =
        b"\x01\x031.2\x031.3\x031.4\x06113001\x00\x00\x01s\x05\x01\x031.2\x01\x051.2.1\x02\x00\x071.2.1.1\x06\x012";
    assert_eq!(body.encode(), &golden[..]);
    assert_eq!(Body::decode(golden), Some(body));
    assert_eq!(Body::decode(b"\x02"), None, "a newer release");
}

#[test]
fn policies_are_said_as_they_are_read() {
    for text in ["show", "hide:keep", "hide:refuse", "delete:restore", "delete:keep"] {
        assert_eq!(text.parse::<RejectionPolicy>().unwrap().to_string(), text);
    }
    assert_eq!("hide".parse::<RejectionPolicy>().unwrap().to_string(), "hide:keep");
    assert!("drop".parse::<RejectionPolicy>().is_err() && "hide:later".parse::<RejectionPolicy>().is_err());
}
