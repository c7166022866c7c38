//! What peers with rules are shown by C-FIND, C-GET and C-MOVE, and what all others get.

use super::support::*;
use crate::scu::{Proposal, ScuError};
use archive_model::{DataSet, Limits, VR, read_data_set, sop_class, tags, transfer_syntax};
use archive_service::{
    ServiceSettings,
    peers::{ANYBODY, Peer},
};

async fn set(face: &Face, ae: &str, address: Option<String>, rules: &[&str]) {
    let coerce = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let peer = Peer { address, coerce, ..Peer::new(title(ae)) };
    face.archive.peers().set(peer, None).await.unwrap();
}

fn objects() -> Vec<Object> {
    vec![Object::new(CT, 1, EXPLICIT, 64), Object::new(CT, 2, IMPLICIT, 200_000), Object::new(CT, 3, JPEG, 3_000_000)]
}

const RULES: &[&str] = &["both PatientID prefix H-", "retrieve PatientName set DOE^J", "find PatientName clear"];

fn read(bytes: &[u8], syntax: &str) -> DataSet {
    read_data_set(bytes, &transfer_syntax(syntax), &Limits::default()).unwrap()
}

/// What stands before the pixel data of an object.
fn header(bytes: &[u8], syntax: &str) -> DataSet {
    let at = bytes.windows(4).position(|tag| tag == b"\xE0\x7F\x10\0").unwrap();
    read(&bytes[..at], syntax)
}

async fn find(face: &Face, keys: &DataSet) -> Vec<DataSet> {
    let mut requestor = face.connect(&[Proposal::new(sop_class::PATIENT_ROOT_FIND, &[IMPLICIT])]).await.unwrap();
    let mut answers = Vec::new();
    requestor.find(sop_class::PATIENT_ROOT_FIND, keys, |answer| answers.push(answer)).await.unwrap();
    requestor.release().await;
    answers
}

fn patient(id: &str) -> DataSet {
    let mut keys = DataSet::new();
    keys.put_text(tags::QUERY_RETRIEVE_LEVEL, VR::CS, "PATIENT");
    keys.put_text(tags::PATIENT_ID, VR::LO, id);
    keys.put_text(tags::PATIENT_NAME, VR::PN, "");
    keys
}

#[tokio::test]
async fn a_peer_with_rules_finds_what_it_is_shown_and_nothing_by_what_is_stored() {
    let face = Face::new().await;
    face.store(&objects()).await;
    let ids = |answers: &[DataSet]| -> Vec<String> {
        answers.iter().map(|answer| answer.text(tags::PATIENT_ID).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(ids(&find(&face, &patient("P1")).await), ["P1"]);
    set(&face, "TEST", None, RULES).await;
    let shown = find(&face, &patient("H-P1")).await;
    assert_eq!(ids(&shown), ["H-P1"]);
    assert_eq!(shown[0].text(tags::PATIENT_NAME), None, "cleared");
    assert!(find(&face, &patient("P1")).await.is_empty(), "by what is stored nothing is found");
    assert_eq!(ids(&find(&face, &patient("H*")).await), ["H-P1"]);
    let mut named = patient("");
    named.put_text(tags::PATIENT_NAME, VR::PN, "M*");
    assert!(find(&face, &named).await.is_empty(), "nor by a name that is not shown");
}

#[tokio::test]
async fn c_get_gives_a_peer_with_rules_what_they_make_and_others_every_byte() {
    let face = Face::new().await;
    let objects = objects();
    face.store(&objects).await;
    let received = async || {
        let mut requestor = face.connect(&get_proposals(&[CT], &[EXPLICIT, IMPLICIT, JPEG])).await.unwrap();
        let (received, end) = get(&mut requestor).await;
        end.unwrap();
        requestor.release().await;
        received
    };
    set(&face, "TEST", None, RULES).await;
    let coerced = received().await;
    assert_eq!(coerced.len(), 3);
    for ((_, syntax, bytes), object) in coerced.iter().zip(&objects) {
        assert_eq!(syntax, object.syntax);
        let header = header(bytes, syntax);
        assert_eq!((header.text(tags::PATIENT_ID), header.text(tags::PATIENT_NAME)), (Some("H-P1"), Some("DOE^J")));
        let record = &header.items(tags::ORIGINAL_ATTRIBUTES_SEQUENCE)[0];
        let former = &record.items(tags::MODIFIED_ATTRIBUTES_SEQUENCE)[0];
        assert_eq!((former.text(tags::PATIENT_ID), former.text(tags::PATIENT_NAME)), (Some("P1"), Some("Müller^Jörg")));
        assert_eq!(record.text(tags::SOURCE_OF_PREVIOUS_VALUES), Some("TEST"), "who sent it");
        let pixels =
            |bytes: &[u8]| bytes[bytes.windows(4).position(|tag| tag == b"\xE0\x7F\x10\0").unwrap()..].to_vec();
        assert!(pixels(bytes) == pixels(&object.bytes), "pixel data");
    }
    // Of an open association too, from the next request on.
    set(&face, "TEST", None, &[]).await;
    let plain: Vec<_> = received().await.into_iter().map(|(_, _, bytes)| bytes).collect();
    assert!(plain == objects.iter().map(|object| object.bytes.clone()).collect::<Vec<_>>(), "CO-1");
    set(&face, "TEST", None, &["retrieve PatientID map P2=X"]).await;
    let same: Vec<_> = received().await.into_iter().map(|(_, _, bytes)| bytes).collect();
    assert!(same == plain, "CO-3");
}

#[tokio::test]
async fn c_move_coerces_by_the_rules_of_the_destination_and_understands_the_keys_of_who_asks() {
    let to = Face::with(ServiceSettings { ae_title: title("OTHER"), ..ServiceSettings::default() }, settings()).await;
    let face = Face::moving_to(&[("OTHER", to.server.local_address())]).await;
    face.store(&objects()[..2]).await;
    let class = sop_class::PATIENT_ROOT_MOVE;
    let moved = async |id: &str| {
        let mut requestor = face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
        let mut last = None;
        let end = requestor.move_to(class, &patient(id), &title("OTHER"), |counts, _| last = Some(counts)).await;
        requestor.release().await;
        (end, last)
    };
    // Who asks is shown other ids than the destination, which is not listed.
    set(&face, "TEST", None, &["find PatientID prefix Q-"]).await;
    set(&face, ANYBODY, None, &["retrieve PatientID set ANON"]).await;
    assert!(moved("P1").await.0.is_ok());
    assert!(to.instances().await.is_empty(), "nobody is shown so");
    moved("Q-P1").await.0.unwrap();
    let mut there = to.connect_as("OTHER", &get_proposals(&[CT], &[EXPLICIT, IMPLICIT])).await.unwrap();
    let (received, _) = get(&mut there).await;
    there.release().await;
    let ids: Vec<_> = received.iter().map(|(_, syntax, bytes)| header(bytes, syntax)).collect();
    assert_eq!(ids.iter().map(|set| set.text(tags::PATIENT_ID)).collect::<Vec<_>>(), [Some("ANON"); 2]);
    set(&face, "TEST", None, &["find PatientID set SAME"]).await;
    let untold = moved("SAME").await.0;
    assert!(matches!(untold, Err(ScuError::Status { status: 0xA900, .. })), "many are shown so: {untold:?}");
}

#[tokio::test]
async fn an_object_whose_rules_cannot_be_applied_is_not_sent_and_the_others_are() {
    let face = Face::new().await;
    let good = Object::new(CT, 1, EXPLICIT, 64);
    let mut bad = Object::new(CT, 2, EXPLICIT, 64);
    // The name of the second is no text in the character set that it declares.
    let at = bad.bytes.windows(6).position(|name| name == "Müller".as_bytes()[..6].as_ref()).unwrap();
    bad.bytes[at + 1] = 0xFF;
    face.store(&[good.clone(), bad]).await;
    set(&face, "TEST", None, &["retrieve PatientName suffix ^Dr"]).await;
    let mut requestor = face.connect(&get_proposals(&[CT], &[EXPLICIT])).await.unwrap();
    let (received, end) = get(&mut requestor).await;
    assert!(matches!(end, Err(ScuError::Status { status: 0xB000, .. })), "{end:?}");
    assert_eq!(received.iter().map(|(instance, ..)| instance).collect::<Vec<_>>(), [&good.instance]);
    requestor.release().await;
}
