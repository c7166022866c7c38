//! C-GET and C-MOVE.

use super::support::*;
use crate::{
    InstanceSender,
    association::{Association, Received},
    command::{self, field},
    scu::{Proposal, ScuError},
};
use archive_model::{Encoding, Limits, Uid, read_data_set, sop_class, tags, transfer_syntax, write_data_set};
use archive_service::{Archive, Selection, ServiceSettings, sends::Listed};
use archive_upper_layer::{
    End, Event,
    frame::Frame,
    negotiate::{self, Acceptor},
    pdu::Pdu,
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

fn objects() -> Vec<Object> {
    vec![
        Object::new(CT, 1, EXPLICIT, 64),
        Object::new(CT, 2, IMPLICIT, 200_000),
        Object::new(CT, 3, JPEG, 3_000_000),
        Object::new(PRIVATE, 4, EXPLICIT, 2_500_001 & !1),
    ]
}

fn by_name(object: &Object) -> (String, String, Vec<u8>) {
    (object.instance.clone(), object.syntax.to_owned(), object.bytes.clone())
}

#[tokio::test]
async fn what_was_stored_comes_back_byte_for_byte() {
    let face = Face::new().await;
    face.store(&objects()).await;
    let mut requestor = face.connect(&get_proposals(&[CT, PRIVATE], &[EXPLICIT, IMPLICIT, JPEG])).await.unwrap();
    let (received, end) = get(&mut requestor).await;
    end.unwrap();
    let sent: Vec<_> = objects().iter().map(by_name).collect();
    assert!(received == sent, "other bytes");
    requestor.release().await;
}

#[tokio::test]
async fn retrievals_larger_than_the_read_budget_do_not_wait_for_each_other_for_ever() {
    let service = ServiceSettings { read_bytes_max: 1 << 20, ..ServiceSettings::default() };
    let face = Face::with(service, settings()).await;
    face.store(&objects()).await;
    let fetch = async || {
        let mut requestor = face.connect(&get_proposals(&[CT, PRIVATE], &[IMPLICIT, JPEG])).await.unwrap();
        let (received, end) = get(&mut requestor).await;
        end.unwrap();
        requestor.release().await;
        received.len()
    };
    assert_eq!(tokio::join!(fetch(), fetch(), fetch(), fetch()), (4, 4, 4, 4));
}

#[tokio::test]
async fn uncompressed_objects_are_converted_for_who_takes_only_another_encoding() {
    let face = Face::new().await;
    let objects = objects();
    face.store(&objects).await;
    let mut requestor = face.connect(&get_proposals(&[CT, PRIVATE], &[IMPLICIT])).await.unwrap();
    let (received, end) = get(&mut requestor).await;
    assert!(matches!(end, Err(ScuError::Status { status: 0xB000, .. })), "the JPEG one fails, the others come");
    assert_eq!(received.len(), 3);
    for (instance, syntax, bytes) in received {
        let stored = objects.iter().find(|object| object.instance == instance).unwrap();
        let set = read_data_set(&stored.bytes, &transfer_syntax(stored.syntax), &Limits::default()).unwrap();
        assert_eq!(syntax, IMPLICIT);
        assert!(bytes == write_data_set(&set, Encoding::ImplicitLe));
    }
    requestor.release().await;
    let mut requestor = face.connect(&get_proposals(&[], &[])).await.unwrap();
    let (received, end) = get(&mut requestor).await;
    assert!(received.is_empty());
    assert!(matches!(end, Err(ScuError::Status { status: 0xA702, .. })), "no context for any");
    requestor.release().await;
}

#[tokio::test]
async fn what_only_looks_uncompressed_never_leaves_under_another_label() {
    const GE_SWAPPED: &str = "1.2.840.113619.5.2";
    let face = Face::new().await;
    let stored = Object::new(CT, 1, GE_SWAPPED, 64);
    face.store(std::slice::from_ref(&stored)).await;
    // Its pixels are big endian: in a plain syntax they would be other pixels.
    let mut requestor = face.connect(&get_proposals(&[CT], &[EXPLICIT, IMPLICIT])).await.unwrap();
    let (received, end) = get(&mut requestor).await;
    assert!(received.is_empty());
    assert!(matches!(end, Err(ScuError::Status { status: 0xA702, .. })), "{end:?}");
    requestor.release().await;
    let mut requestor = face.connect(&get_proposals(&[CT], &[GE_SWAPPED])).await.unwrap();
    let (received, end) = get(&mut requestor).await;
    end.unwrap();
    assert!(received == [by_name(&stored)], "as it is stored it goes to who knows the syntax");
    requestor.release().await;
}

#[tokio::test]
async fn a_get_that_is_cancelled_says_how_many_remain() {
    let face = Face::new().await;
    face.store(&(1..=5).map(|number| Object::new(CT, number, EXPLICIT, 64)).collect::<Vec<_>>()).await;
    let class = sop_class::STUDY_ROOT_GET;
    let mut requestor = face.connect(&get_proposals(&[CT], &[EXPLICIT])).await.unwrap();
    let own = &mut requestor.association;
    let bytes = write_data_set(&identifier("STUDY"), Encoding::ImplicitLe);
    own.send(1, &command::query_request(field::GET_RQ, 9, class), Some(&bytes)).await.unwrap();
    let Received::Command { context, set: request, .. } = own.next().await.unwrap() else { panic!("a command") };
    assert_eq!(command::command_field(&request), Some(field::STORE_RQ));
    own.drain_data().await.unwrap();
    own.send(1, &command::cancel_request(9), None).await.unwrap();
    let fine = crate::status::Status::new(0, "");
    own.send(context, &command::response(&request, &fine, false), None).await.unwrap();
    let Received::Command { set, data, .. } = own.next().await.unwrap() else { panic!("a command") };
    assert_eq!((command::status_code(&set), data), (Some(0xFE00), false));
    assert_eq!(set.integer(tags::NUMBER_OF_REMAINING_SUBOPERATIONS), Some(4));
    assert_eq!(set.integer(tags::NUMBER_OF_COMPLETED_SUBOPERATIONS), Some(1));
    requestor.release().await;
}

#[tokio::test]
async fn a_move_takes_everything_to_the_destination_unchanged() {
    let to = Face::with(ServiceSettings { ae_title: title("OTHER"), ..ServiceSettings::default() }, settings()).await;
    let face = Face::moving_to(&[("OTHER", to.server.local_address())]).await;
    face.store(&objects()).await;
    let class = sop_class::STUDY_ROOT_MOVE;
    let mut requestor = face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
    let mut remaining = Vec::new();
    let study = identifier("STUDY");
    requestor.move_to(class, &study, &title("OTHER"), |rest, _| remaining.push(rest)).await.unwrap();
    assert_eq!(remaining, [Some(3), Some(2), Some(1), Some(0), None]);
    requestor.release().await;
    let mut there = to.connect_as("OTHER", &get_proposals(&[CT, PRIVATE], &[EXPLICIT, IMPLICIT, JPEG])).await.unwrap();
    let (received, end) = get(&mut there).await;
    end.unwrap();
    assert!(received == objects().iter().map(by_name).collect::<Vec<_>>(), "other bytes");
    there.release().await;
}

#[tokio::test]
async fn a_move_is_in_the_log_before_its_first_sub_operation_and_gone_when_it_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let face = Face::moving_to(&[("SLOW", address)]).await;
    face.store(&objects()).await;
    let mut requestor = face.connect(&[Proposal::new(sop_class::STUDY_ROOT_MOVE, &[EXPLICIT])]).await.unwrap();
    let (archive, server) =
        (face.archive.clone(), tokio::spawn(never_released_while(listener, Some(face.archive.clone()))));
    let (study, slow) = (identifier("STUDY"), title("SLOW"));
    requestor.move_to(sop_class::STUDY_ROOT_MOVE, &study, &slow, |_, _| ()).await.unwrap();
    requestor.release().await;
    let (jobs, count) = server.await.unwrap();
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((job.state, job.to.as_str(), job.asked_by.as_deref()), ("running", "SLOW", Some("TEST")));
    assert_eq!((job.instances, job.sent, count), (4, 0, 4));
    let gone = async {
        while !archive.sends("", 10).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("removed");
}

#[tokio::test]
async fn what_is_queued_arrives_unchanged_and_what_is_not_taken_is_left() {
    let to = Face::with(ServiceSettings { ae_title: title("OTHER"), ..ServiceSettings::default() }, settings()).await;
    let face = Face::moving_to(&[("OTHER", to.server.local_address())]).await;
    face.store(&objects()).await;
    let work = tokio::spawn(face.archive.clone().work_on_sends(Arc::new(InstanceSender::new(deadlines()))));
    let studies = vec![Uid::parse(STUDY).unwrap()];
    let what = Selection { studies, ..Selection::default() };
    let (ids, count) = face.archive.queue_send(&title("OTHER"), what).await.unwrap();
    assert_eq!((ids.len(), count), (1, 4));
    let done = async {
        while !face.archive.send_of(&ids[0]).await.unwrap().has_ended() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done).await.expect("sent");
    let job = face.archive.send_of(&ids[0]).await.unwrap();
    assert_eq!((job.state, job.sent, job.left), ("done", 4, 0), "{job:?}");
    let mut there = to.connect_as("OTHER", &get_proposals(&[CT, PRIVATE], &[EXPLICIT, IMPLICIT, JPEG])).await.unwrap();
    let (received, end) = get(&mut there).await;
    end.unwrap();
    assert!(received == objects().iter().map(by_name).collect::<Vec<_>>(), "other bytes");
    there.release().await;
    face.archive.drain();
    tokio::time::timeout(Duration::from_secs(5), work).await.expect("the work ends").unwrap();
}

#[tokio::test]
async fn a_move_to_nobody_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let face = Face::moving_to(&[("GONE", closed)]).await;
    face.store(&objects()).await;
    let class = sop_class::STUDY_ROOT_MOVE;
    let mut requestor = face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
    let mut failed = 0;
    let gone = requestor.move_to(class, &identifier("STUDY"), &title("GONE"), |_, now| failed = now).await;
    assert!(matches!(gone, Err(ScuError::Status { status: 0xA702, .. })));
    assert_eq!(failed, 4);
    let unknown = requestor.move_to(class, &identifier("STUDY"), &title("NOBODY"), |_, _| ()).await;
    assert!(matches!(unknown, Err(ScuError::Status { status: 0xA801, .. })));
    let keyless = requestor.move_to(class, &identifier("SERIES"), &title("GONE"), |_, _| ()).await;
    assert!(matches!(keyless, Err(ScuError::Status { status: 0xA900, .. })));
    requestor.release().await;
}

/// A destination that takes every object, and never answers a release. Answers how many came.
async fn never_released(listener: TcpListener) -> usize {
    never_released_while(listener, None).await.1
}

/// The same; also what jobs there are when its first object comes.
async fn never_released_while(listener: TcpListener, sender: Option<Archive>) -> (Vec<Listed>, usize) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut association = Association::over(stream, End::Acceptor, deadlines()).unwrap();
    association.event(Event::TransportIndication);
    let Frame::Other(Pdu::AssociationRQ(request)) = association.frame().await.unwrap() else { panic!("a request") };
    association.event(Event::AssociateRqPdu);
    let acceptor = Acceptor { any_called_title: true, ..Acceptor::new(title("DEAF")) };
    let agreed = negotiate::answer(&request, &acceptor, 0).unwrap();
    association.event(Event::AssociateAccept);
    association.contexts = agreed.contexts;
    association.write_pdu(&Pdu::AssociationAC(agreed.answer)).await.unwrap();
    let (mut count, mut last, mut seen) = (0, None, Vec::new());
    loop {
        // Any more frames are not answered, but read: a connection that is closed would be an answer too.
        match association.frame().await {
            Ok(Frame::Data(pdvs)) => {
                for pdv in pdvs {
                    let Some(piece) = association.piece(pdv).await.unwrap() else { continue };
                    match piece {
                        Received::Command { context, set, .. } => {
                            if let Some(sender) = sender.as_ref().filter(|_| count == 0) {
                                seen = sender.sends("", 10).await.unwrap();
                            }
                            last = Some((context, set));
                        }
                        Received::Data { last: true, .. } => {
                            let (context, set) = last.take().unwrap();
                            let fine = crate::status::Status::new(0, "");
                            association.send(context, &command::response(&set, &fine, false), None).await.unwrap();
                            count += 1;
                        }
                        _ => {}
                    }
                }
            }
            Ok(Frame::Other(Pdu::ReleaseRQ)) => {}
            _ => return (seen, count),
        }
    }
}

#[tokio::test]
async fn a_destination_that_never_answers_a_release_does_not_hold_up_the_final_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let face = Face::moving_to(&[("DEAF", listener.local_addr().unwrap())]).await;
    face.store(&objects()).await;
    let destination = tokio::spawn(never_released(listener));
    let class = sop_class::STUDY_ROOT_MOVE;
    let mut requestor = face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
    let (study, deaf) = (identifier("STUDY"), title("DEAF"));
    let moving = requestor.move_to(class, &study, &deaf, |_, _| ());
    tokio::time::timeout(Duration::from_secs(5), moving).await.expect("answered at once").unwrap();
    requestor.release().await;
    // ARTIM: then the association to the destination is given up too.
    let count = tokio::time::timeout(Duration::from_secs(20), destination).await.expect("hung up").unwrap();
    assert_eq!(count, objects().len());
}

#[tokio::test]
async fn a_move_that_is_cancelled_ends_with_fe00_and_what_remains() {
    let to = Face::with(ServiceSettings { ae_title: title("OTHER"), ..ServiceSettings::default() }, settings()).await;
    let face = Face::moving_to(&[("OTHER", to.server.local_address())]).await;
    face.store(&(1..=50).map(|number| Object::new(CT, number, EXPLICIT, 64)).collect::<Vec<_>>()[..1]).await;
    let mut sender = face.connect(&[Object::new(CT, 1, EXPLICIT, 64).proposal()]).await.unwrap();
    for number in 2..=50 {
        assert_eq!(Object::new(CT, number, EXPLICIT, 64).send(&mut sender).await.unwrap().0, 0);
    }
    sender.release().await;
    let class = sop_class::STUDY_ROOT_MOVE;
    let mut requestor = face.connect(&[Proposal::new(class, &[IMPLICIT])]).await.unwrap();
    let own = &mut requestor.association;
    let bytes = write_data_set(&identifier("STUDY"), Encoding::ImplicitLe);
    // Both in one write: the cancel is there before the first sub-operation ends.
    let mut out = Vec::new();
    let set = archive_model::write_command_set(&command::move_request(9, class, &title("OTHER")));
    archive_upper_layer::frame::put_data(&mut out, 1, true, true, &set, 0);
    archive_upper_layer::frame::put_data(&mut out, 1, false, true, &bytes, 0);
    let set = archive_model::write_command_set(&command::cancel_request(9));
    archive_upper_layer::frame::put_data(&mut out, 1, true, true, &set, 0);
    own.write_all(&out).await.unwrap();
    let last = loop {
        let Received::Command { set, data, .. } = own.next().await.unwrap() else { panic!("a command") };
        assert!(!data);
        if command::status_code(&set) != Some(0xFF00) {
            break set;
        }
    };
    assert_eq!(command::status_code(&last), Some(0xFE00));
    let number = |tag| last.integer(tag).unwrap();
    let (done, rest) =
        (number(tags::NUMBER_OF_COMPLETED_SUBOPERATIONS), number(tags::NUMBER_OF_REMAINING_SUBOPERATIONS));
    assert!(done + rest == 50 && rest > 0, "{done} {rest}");
    assert_eq!(to.instances().await.len() as i128, done);
    requestor.release().await;
}
