//! What the registry of peers allows, and what it does not.

use super::support::*;
use crate::{
    association::Received,
    command::{self, field},
    scu::{Proposal, Requestor, ScuError},
};
use archive_model::{DataSet, sop_class, tags};
use archive_service::{
    OtherContent, ServiceSettings,
    peers::{ANYBODY, Hierarchy, Peer, Right, UnknownClasses},
};

async fn set(face: &Face, peer: Peer) {
    face.archive.peers().set(peer, None).await.unwrap();
}

/// The caller of these tests, with all but these rights.
fn without(denied: &[Right]) -> Peer {
    let rights = Right::ALL.into_iter().filter(|right| !denied.contains(right)).collect();
    Peer { rights, ..Peer::new(title("TEST")) }
}

fn rejected_for_good(answer: Result<Requestor, ScuError>) -> bool {
    let reason = "CallingAETitleNotRecognized";
    matches!(answer, Err(ScuError::Rejected { result: "for good", reason: said }) if said.contains(reason))
}

const ECHO: &[&str] = &[IMPLICIT];

fn everything() -> Vec<Proposal> {
    vec![
        Proposal::new(sop_class::VERIFICATION, ECHO),
        Proposal::new(CT, &[EXPLICIT]),
        Proposal::new(sop_class::STUDY_ROOT_FIND, &[IMPLICIT]),
        Proposal::new(sop_class::STUDY_ROOT_MOVE, &[IMPLICIT]),
        Proposal::new(sop_class::STUDY_ROOT_GET, &[IMPLICIT]),
    ]
}

#[tokio::test]
async fn a_right_that_is_missing_takes_its_contexts_and_no_others() {
    let face = Face::new().await;
    let rights = [Right::Echo, Right::Store, Right::Find, Right::Move, Right::Get];
    for (at, right) in rights.into_iter().enumerate() {
        set(&face, without(&[right])).await;
        let requestor = face.connect(&everything()).await.unwrap();
        let accepted: Vec<usize> = requestor.association.contexts.keys().map(|id| usize::from(*id) / 2).collect();
        let expected: Vec<usize> = (0..5).filter(|number| *number != at).collect();
        assert_eq!(accepted, expected, "without {}", right.name());
        requestor.release().await;
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_missed_by_the_next_request_of_an_open_association() {
    let face = Face::new().await;
    let object = Object::new(CT, 1, EXPLICIT, 64);
    let mut requestor = face.connect(&everything()).await.unwrap();
    requestor.echo().await.unwrap();
    assert_eq!(object.send(&mut requestor).await.unwrap().0, 0x0000);
    set(&face, without(&[Right::Echo, Right::Store, Right::Find, Right::Move, Right::Get])).await;
    let refused = |answer: Result<(), ScuError>| matches!(answer, Err(ScuError::Status { status: 0x0124, .. }));
    assert!(refused(requestor.echo().await));
    let (status, comment) = Object::new(CT, 2, EXPLICIT, 300_000).send(&mut requestor).await.unwrap();
    assert_eq!((status, comment.is_empty()), (0x0124, false));
    assert!(refused(requestor.find(sop_class::STUDY_ROOT_FIND, &identifier("STUDY"), |_| ()).await));
    let (class, study) = (sop_class::STUDY_ROOT_MOVE, identifier("STUDY"));
    assert!(refused(requestor.move_to(class, &study, &title("X"), |_, _| ()).await));
    assert!(refused(requestor.get(sop_class::STUDY_ROOT_GET, &study, async |_| 0).await));
    set(&face, without(&[])).await;
    requestor.echo().await.unwrap();
    requestor.release().await;
    assert_eq!(face.instances().await, [object.instance], "nothing of what was refused");
}

#[tokio::test]
async fn who_is_not_listed_is_rejected_when_that_is_closed_and_who_comes_from_elsewhere_always() {
    let face = Face::new().await;
    let echo = [Proposal::new(sop_class::VERIFICATION, ECHO)];
    face.connect(&echo).await.unwrap().release().await;
    let closed = Peer { rights: [].into(), ..Peer::new(title(ANYBODY)) };
    set(&face, closed).await;
    assert!(rejected_for_good(face.connect(&echo).await));
    let elsewhere = Peer { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Peer::new(title("TEST")) };
    set(&face, elsewhere).await;
    assert!(rejected_for_good(face.connect(&echo).await));
    let here = Peer { networks: vec!["127.0.0.0/8".parse().unwrap()], ..Peer::new(title("TEST")) };
    set(&face, here).await;
    face.connect(&echo).await.unwrap().release().await;
}

#[tokio::test]
async fn who_has_too_many_associations_is_put_off_and_others_are_not() {
    let face = Face::new().await;
    let echo = [Proposal::new(sop_class::VERIFICATION, ECHO)];
    set(&face, Peer { associations_max: Some(2), ..Peer::new(title("TEST")) }).await;
    let first = face.connect(&echo).await.unwrap();
    let second = face.connect(&echo).await.unwrap();
    let third = face.connect(&echo).await;
    assert!(matches!(third, Err(ScuError::Rejected { result: "for now", .. })));
    let address = face.server.local_address().to_string();
    let other = Requestor::connect(&address, &title("OTHER"), &title("TRIPTYCH"), &echo, deadlines()).await.unwrap();
    other.release().await;
    first.release().await;
    // The place is free once the server has seen the end of it.
    let again = async {
        loop {
            if let Ok(again) = face.connect(&echo).await {
                return again.release().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), again).await.unwrap();
    second.release().await;
}

#[tokio::test]
async fn other_content_is_rejected_with_0111_where_that_is_the_policy() {
    let face = Face::new().await;
    let first = Object::new(CT, 1, EXPLICIT, 64);
    let other = Object { bytes: Object::of("Other^Name", CT, 1, EXPLICIT, 64).bytes, ..first.clone() };
    set(&face, Peer { other_content: OtherContent::Reject, ..Peer::new(title("TEST")) }).await;
    let mut requestor = face.connect(&[first.proposal()]).await.unwrap();
    assert_eq!(first.send(&mut requestor).await.unwrap().0, 0x0000);
    let (status, comment) = other.send(&mut requestor).await.unwrap();
    assert_eq!((status, comment.as_str()), (0x0111, "other content is stored under this SOP Instance UID"));
    assert_eq!(first.send(&mut requestor).await.unwrap().0, 0x0000, "the same again is success");
    set(&face, Peer::new(title("TEST"))).await;
    assert_eq!(other.send(&mut requestor).await.unwrap().0, 0x0000, "both are kept where that is the policy");
    requestor.release().await;
    assert_eq!(face.archive.totals().await.unwrap().versions, 1);
}

#[tokio::test]
async fn a_lenient_query_needs_neither_level_nor_upper_keys() {
    let face = Face::new().await;
    face.store(&[Object::new(CT, 1, EXPLICIT, 64), Object::new(CT, 2, EXPLICIT, 64)]).await;
    let find = sop_class::STUDY_ROOT_FIND;
    let mut requestor = face.connect(&everything()).await.unwrap();
    let mut keys = DataSet::new();
    keys.put_text(tags::SOP_INSTANCE_UID, archive_model::VR::UI, "");
    let strict = requestor.find(find, &keys, |_| ()).await;
    assert!(matches!(strict, Err(ScuError::Status { status: 0xA900, .. })));
    set(&face, Peer { hierarchy: Hierarchy::Lenient, ..Peer::new(title("TEST")) }).await;
    let mut answers = Vec::new();
    requestor.find(find, &keys, |answer| answers.push(answer)).await.unwrap();
    let levels: Vec<_> = answers.iter().map(|answer| answer.text(tags::QUERY_RETRIEVE_LEVEL)).collect();
    assert_eq!(levels, [Some("IMAGE"), Some("IMAGE")]);
    let mut keys = DataSet::new();
    keys.put_text(tags::PATIENT_ID, archive_model::VR::LO, "P1");
    answers = Vec::new();
    requestor.find(find, &keys, |answer| answers.push(answer)).await.unwrap();
    assert_eq!(answers.len(), 1, "the study, which is the highest level of this model");
    requestor.release().await;
}

#[tokio::test]
async fn classes_that_are_not_known_are_refused_to_who_may_not_send_them() {
    let face = Face::new().await;
    let proposals = [Proposal::new(PRIVATE, &[IMPLICIT]), Proposal::new(CT, &[EXPLICIT])];
    set(&face, Peer { unknown_classes: UnknownClasses::Refuse, ..Peer::new(title("TEST")) }).await;
    let requestor = face.connect(&proposals).await.unwrap();
    assert_eq!((requestor.context(PRIVATE, IMPLICIT), requestor.context(CT, EXPLICIT)), (None, Some(3)));
    requestor.release().await;
}

#[tokio::test]
async fn a_destination_of_the_registry_is_sent_what_it_may_be_sent() {
    let to = Face::with(ServiceSettings { ae_title: title("OTHER"), ..ServiceSettings::default() }, settings()).await;
    let face = Face::new().await;
    let objects = [Object::new(CT, 1, EXPLICIT, 64), Object::new(CT, 2, JPEG, 64)];
    face.store(&objects).await;
    let class = sop_class::STUDY_ROOT_MOVE;
    let mut requestor = face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
    let study = identifier("STUDY");
    let unknown = requestor.move_to(class, &study, &title("OTHER"), |_, _| ()).await;
    assert!(matches!(unknown, Err(ScuError::Status { status: 0xA801, .. })));
    let entry = |syntaxes: &[&str]| Peer {
        address: Some(to.server.local_address().to_string()),
        transfer_syntaxes: syntaxes.iter().map(|syntax| archive_model::Uid::parse(syntax).unwrap()).collect(),
        ..Peer::new(title("OTHER"))
    };
    set(&face, entry(&[IMPLICIT])).await;
    let some = requestor.move_to(class, &study, &title("OTHER"), |_, _| ()).await;
    assert!(matches!(some, Err(ScuError::Status { status: 0xB000, .. })), "the JPEG may not be sent: {some:?}");
    let mut there = to.connect_as("OTHER", &get_proposals(&[CT], &[IMPLICIT, JPEG])).await.unwrap();
    let (received, _) = get(&mut there).await;
    let syntaxes: Vec<&str> = received.iter().map(|(_, syntax, _)| syntax.as_str()).collect();
    assert_eq!(syntaxes, [IMPLICIT]);
    set(&face, entry(&[IMPLICIT, JPEG])).await;
    requestor.move_to(class, &study, &title("OTHER"), |_, _| ()).await.unwrap();
    let mut again = to.connect_as("OTHER", &get_proposals(&[CT], &[IMPLICIT, JPEG])).await.unwrap();
    let (received, _) = get(&mut again).await;
    assert_eq!(received.len(), 2);
    for requestor in [requestor, there, again] {
        requestor.release().await;
    }
}

#[tokio::test]
async fn a_context_that_is_shared_with_c_get_takes_no_stores_of_who_may_not() {
    let face = Face::new().await;
    let object = Object::new(CT, 1, EXPLICIT, 64);
    set(&face, without(&[Right::Store])).await;
    // The role of the provider is for C-GET: the context is accepted, and is none to store in.
    let proposal = Proposal { provider: true, ..object.proposal() };
    let mut requestor = face.connect(&[proposal]).await.unwrap();
    let own = &mut requestor.association;
    let request = command::store_request(7, CT, &object.instance, None);
    own.send(1, &request, Some(&object.bytes)).await.unwrap();
    let Received::Command { set, .. } = own.next().await.unwrap() else { panic!("a command") };
    assert_eq!(command::command_field(&set), Some(field::STORE_RQ | field::RESPONSE));
    assert_eq!(command::status_code(&set), Some(0x0124));
    requestor.release().await;
    assert!(face.instances().await.is_empty());
}
