//! Requestors that do not wait for one answer before they ask the next.

use super::support::*;
use crate::{
    association::{Ended, Received},
    command::{self, field},
    scu::{Proposal, Requestor, request},
};
use archive_model::{DataSet, VR, sop_class, tags, transfer_syntax, write_command_set, write_data_set};
use archive_upper_layer::{frame::put_data, negotiate::ITEM_ASYNC_WINDOW, pdu::UserVariableItem};

/// One that was granted `operations` at a time.
async fn connect(face: &Face, operations: u8, proposals: &[Proposal]) -> Requestor {
    let mut asked = request(&title("TEST"), &title("TRIPTYCH"), proposals);
    asked.user_variables.push(UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, vec![0, operations, 0, 1]));
    Requestor::ask(&face.server.local_address().to_string(), asked, proposals, deadlines()).await.unwrap()
}

/// Sends an object, and leaves its answer on its way.
async fn send(object: &Object, requestor: &mut Requestor) {
    let context = object.begin(requestor).await.unwrap();
    requestor.store_piece(context, &object.bytes, true).await.unwrap();
}

async fn echo(requestor: &mut Requestor) -> u16 {
    let id = requestor.association.message_id();
    let context = requestor.context(sop_class::VERIFICATION, IMPLICIT).unwrap();
    requestor.association.send(context, &command::echo_request(id), None).await.unwrap();
    id
}

async fn find(requestor: &mut Requestor, keys: &DataSet) -> u16 {
    let id = requestor.association.message_id();
    let context = requestor.context(sop_class::STUDY_ROOT_FIND, EXPLICIT).unwrap();
    let set = command::query_request(field::FIND_RQ, id, sop_class::STUDY_ROOT_FIND);
    let keys = write_data_set(keys, transfer_syntax(EXPLICIT).encoding);
    requestor.association.send(context, &set, Some(&keys)).await.unwrap();
    id
}

/// The next response: (what it answers, status); its data set is dropped.
async fn answer(requestor: &mut Requestor) -> Result<(u16, u16), Ended> {
    match requestor.association.next().await? {
        Received::Command { set, data, .. } => {
            if data {
                requestor.association.drain_data().await?;
            }
            Ok((command::responded_id(&set).unwrap(), command::status_code(&set).unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

fn everything() -> Vec<Proposal> {
    vec![
        Proposal::new(CT, &[EXPLICIT]),
        Proposal::new(sop_class::VERIFICATION, &[IMPLICIT]),
        Proposal::new(sop_class::STUDY_ROOT_FIND, &[EXPLICIT]),
    ]
}

fn images() -> DataSet {
    let mut keys = identifier("IMAGE");
    keys.put_text(tags::SERIES_INSTANCE_UID, VR::UI, SERIES);
    keys
}

/// The log commits nothing before eight proposals wait for it: whoever waits for the first answer waits for ever.
#[tokio::test]
async fn eight_objects_are_made_durable_at_the_same_time_and_each_is_answered() {
    let face = Face::new().await;
    face.log.set_commits_together(8);
    let mut requestor = connect(&face, 8, &everything()).await;
    let objects: Vec<Object> = (1..=16).map(|number| Object::new(CT, number, EXPLICIT, 64)).collect();
    for eight in objects.chunks(8) {
        for object in eight {
            send(object, &mut requestor).await;
        }
        let mut answered = Vec::new();
        for _ in eight {
            answered.push(answer(&mut requestor).await.unwrap());
        }
        answered.sort_unstable();
        let first = answered[0].0;
        assert_eq!(answered, (first..first + 8).map(|id| (id, 0)).collect::<Vec<_>>());
    }
    assert_eq!(face.instances().await.len(), 16);
    requestor.release().await;
    assert_eq!(face.counted("archive_dimse_responses_total"), 16.0);
}

#[tokio::test]
async fn objects_are_answered_while_a_later_one_is_still_on_its_way() {
    let face = Face::new().await;
    let mut requestor = connect(&face, 2, &everything()).await;
    let (first, slow) = (Object::new(CT, 1, EXPLICIT, 64), Object::new(CT, 2, EXPLICIT, 3 << 20));
    send(&first, &mut requestor).await;
    let context = slow.begin(&mut requestor).await.unwrap();
    requestor.store_piece(context, &slow.bytes[..2 << 20], false).await.unwrap();
    assert_eq!(answer(&mut requestor).await.unwrap(), (1, 0));
    requestor.store_piece(context, &slow.bytes[2 << 20..], true).await.unwrap();
    assert_eq!(answer(&mut requestor).await.unwrap(), (2, 0));
    requestor.release().await;
}

#[tokio::test]
async fn a_query_behind_objects_finds_them_and_is_answered_behind_them() {
    let face = Face::new().await;
    face.log.set_commits_together(2);
    let mut requestor = connect(&face, 8, &everything()).await;
    for number in 1..=2 {
        send(&Object::new(CT, number, EXPLICIT, 64), &mut requestor).await;
    }
    let asked = find(&mut requestor, &images()).await;
    let mut answered = Vec::new();
    for _ in 0..5 {
        answered.push(answer(&mut requestor).await.unwrap());
    }
    answered[..2].sort_unstable();
    assert_eq!(answered, [(1, 0), (2, 0), (asked, 0xFF00), (asked, 0xFF00), (asked, 0)]);
    requestor.release().await;
}

/// Requests during a query, an object among them that is more than can be held: each is answered after it, in its order.
#[tokio::test]
async fn what_is_asked_during_a_query_is_answered_after_it() {
    let face = Face::new().await;
    face.store(&[Object::new(CT, 1, EXPLICIT, 64)]).await;
    let mut requestor = connect(&face, 8, &everything()).await;
    let big = Object::new(CT, 2, EXPLICIT, 4 << 20);
    let mut asked = vec![find(&mut requestor, &images()).await, echo(&mut requestor).await];
    asked.push(find(&mut requestor, &images()).await);
    send(&big, &mut requestor).await;
    asked.extend([asked[2] + 1, echo(&mut requestor).await]);
    let mut answered = Vec::new();
    while answered.len() < asked.len() {
        match answer(&mut requestor).await.unwrap() {
            (_, 0xFF00) => {}
            (id, status) => {
                assert_eq!(status, 0);
                answered.push(id);
            }
        }
    }
    assert_eq!(answered, asked);
    assert!(face.instances().await.contains(&big.instance));
    requestor.release().await;
}

/// Without a window a second request during an operation is an error of the peer, as ever.
#[tokio::test]
async fn more_than_was_agreed_on_during_an_operation_ends_the_association() {
    let face = Face::new().await;
    face.store(&[Object::new(CT, 1, EXPLICIT, 64)]).await;
    let query = write_command_set(&command::query_request(field::FIND_RQ, 100, sop_class::STUDY_ROOT_FIND));
    let keys = write_data_set(&images(), transfer_syntax(EXPLICIT).encoding);
    for (operations, more, ends) in [(1, 1, true), (3, 2, false), (3, 3, true)] {
        let mut requestor = connect(&face, operations, &everything()).await;
        let to_find = requestor.context(sop_class::STUDY_ROOT_FIND, EXPLICIT).unwrap();
        let to_echo = requestor.context(sop_class::VERIFICATION, IMPLICIT).unwrap();
        // All in one write: the others are there before the first answer is.
        let mut out = Vec::new();
        put_data(&mut out, to_find, true, true, &query, 0);
        put_data(&mut out, to_find, false, true, &keys, 0);
        for id in 1..=more {
            put_data(&mut out, to_echo, true, true, &write_command_set(&command::echo_request(id)), 0);
        }
        requestor.association.write_all(&out).await.unwrap();
        let mut finals = 0;
        let ended = loop {
            match answer(&mut requestor).await {
                Ok((_, status)) => finals += u16::from(status == 0),
                Err(ended) => break Some(ended),
            }
            if finals == 1 + more {
                break None;
            }
        };
        assert_eq!(matches!(ended, Some(Ended::Aborted | Ended::Lost(_))), ends, "{operations}, {more}: {ended:?}");
        assert_eq!(ended.is_some(), ends);
    }
}
