//! Storage commitment: asked for over an association, reported over the same one, or over one that we ask for.

use super::support::*;
use crate::{
    CommitmentReporter,
    association::Received,
    command::{self, field},
    scu::{Proposal, Requestor},
};
use archive_model::{
    DataSet, Element, Limits, VR, Value, read_data_set,
    sop_class::{STORAGE_COMMITMENT as CLASS, STORAGE_COMMITMENT_INSTANCE as INSTANCE},
    tags, transfer_syntax, write_data_set,
};
use archive_service::ServiceSettings;
use std::{sync::Arc, time::Duration};

/// A request for these instances of CT.
fn wanted(transaction: &str, instances: &[String]) -> DataSet {
    let item = |instance: &String| {
        let mut item = DataSet::new();
        item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, CT);
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance.clone());
        item
    };
    let mut set = DataSet::new();
    set.put_text(tags::TRANSACTION_UID, VR::UI, transaction);
    let value = Value::Items(instances.iter().map(item).collect());
    set.put(Element { tag: tags::REFERENCED_SOP_SEQUENCE, vr: VR::SQ, value });
    set
}

async fn action(requestor: &mut Requestor, class: &str, instance: &str, kind: u16, set: Option<&DataSet>) -> DataSet {
    let (context, syntax) = requestor.syntaxes_of(CLASS).next().map(|(id, syntax)| (id, syntax.to_owned())).unwrap();
    let id = requestor.association.message_id();
    let mut request = command::action_request(id, class, instance, kind);
    let bytes = set.map(|set| write_data_set(set, transfer_syntax(&syntax).encoding));
    if bytes.is_none() {
        let value = Value::Integers(vec![0x0101]);
        request.put(Element { tag: tags::COMMAND_DATA_SET_TYPE, vr: VR::US, value });
    }
    requestor.association.send(context, &request, bytes.as_deref()).await.unwrap();
    match requestor.association.next().await.unwrap() {
        Received::Command { set, data: false, .. } => {
            assert_eq!(command::command_field(&set), Some(field::ACTION_RQ | field::RESPONSE));
            assert_eq!(command::responded_id(&set), Some(id));
            set
        }
        other => panic!("an answer was expected: {other:?}"),
    }
}

async fn ask(requestor: &mut Requestor, set: &DataSet) -> u16 {
    let response = action(requestor, CLASS, INSTANCE, 1, Some(set)).await;
    assert_eq!(response.text(tags::AFFECTED_SOP_CLASS_UID), Some(CLASS));
    assert_eq!(response.text(tags::AFFECTED_SOP_INSTANCE_UID), Some(INSTANCE));
    assert_eq!(command::type_id(&response, tags::ACTION_TYPE_ID), Some(1));
    command::status_code(&response).unwrap()
}

/// Takes the report that comes next, and answers it: its event type and its data set.
async fn take_report(requestor: &mut Requestor, status: u16) -> (u16, DataSet) {
    let (context, request) = match requestor.association.next().await.unwrap() {
        Received::Command { context, set, data: true } => (context, set),
        other => panic!("a report was expected: {other:?}"),
    };
    assert_eq!(command::command_field(&request), Some(field::EVENT_REPORT_RQ));
    assert_eq!(request.text(tags::AFFECTED_SOP_INSTANCE_UID), Some(INSTANCE));
    let bytes = requestor.association.small_data(1 << 20).await.unwrap().unwrap();
    let syntax = requestor.association.contexts[&context].transfer_syntax.clone();
    let set = read_data_set(&bytes, &transfer_syntax(&syntax), &Limits::default()).unwrap();
    let answer = command::response(&request, &crate::status::Status::new(status, ""), false);
    requestor.association.send(context, &answer, None).await.unwrap();
    (command::type_id(&request, tags::EVENT_TYPE_ID).unwrap(), set)
}

fn proposal() -> Proposal {
    Proposal::new(CLASS, &[EXPLICIT, IMPLICIT])
}

#[tokio::test]
async fn the_report_comes_over_the_association_that_asked() {
    let face = Face::new().await;
    let objects = [Object::new(CT, 1, EXPLICIT, 64), Object::new(CT, 2, EXPLICIT, 2_000_000)];
    face.store(&objects).await;
    let reporter = Arc::new(CommitmentReporter::new(title("TRIPTYCH")));
    let work = tokio::spawn(face.archive.clone().work_on_commitments(reporter));
    let mut requestor = face.connect(&[proposal()]).await.unwrap();
    let stored: Vec<String> = objects.iter().map(|object| object.instance.clone()).collect();
    assert_eq!(ask(&mut requestor, &wanted("1.9.1", &stored)).await, 0x0000);
    let (event, report) = take_report(&mut requestor, 0).await;
    assert_eq!((event, report.text(tags::TRANSACTION_UID)), (1, Some("1.9.1")));
    assert_eq!(report.text(tags::RETRIEVE_AE_TITLE), Some("TRIPTYCH"));
    assert_eq!((report.items(tags::REFERENCED_SOP_SEQUENCE).len(), report.get(tags::FAILED_SOP_SEQUENCE)), (2, None));
    // Another one on the same association, with a failure.
    let with_unknown = [stored[0].clone(), "1.2.99".into()];
    assert_eq!(ask(&mut requestor, &wanted("1.9.2", &with_unknown)).await, 0x0000);
    let (event, report) = take_report(&mut requestor, 0).await;
    let failed = report.items(tags::FAILED_SOP_SEQUENCE);
    assert_eq!((event, failed.len(), report.items(tags::REFERENCED_SOP_SEQUENCE).len()), (2, 1, 1));
    assert_eq!(failed[0].integer(tags::FAILURE_REASON), Some(0x0112));
    requestor.release().await;
    face.archive.drain();
    work.await.unwrap();
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_do_not_disturb_the_next() {
    let face = Face::new().await;
    let mut requestor = face.connect(&[proposal()]).await.unwrap();
    let good = wanted("1.9.1", &["1.2.3".into()]);
    let status = |set: DataSet| command::status_code(&set).unwrap();
    assert_eq!(status(action(&mut requestor, CT, INSTANCE, 1, Some(&good)).await), 0x0118);
    assert_eq!(status(action(&mut requestor, CLASS, "1.2.3", 1, Some(&good)).await), 0x0112);
    assert_eq!(status(action(&mut requestor, CLASS, INSTANCE, 2, Some(&good)).await), 0x0123);
    assert_eq!(status(action(&mut requestor, CLASS, INSTANCE, 1, None).await), 0x0115);
    assert_eq!(ask(&mut requestor, &wanted("1.9.1", &[])).await, 0x0115);
    let mut nameless = good.clone();
    nameless.remove(tags::TRANSACTION_UID);
    assert_eq!(ask(&mut requestor, &nameless).await, 0x0115);
    let mut listless = good.clone();
    listless.remove(tags::REFERENCED_SOP_SEQUENCE);
    assert_eq!(ask(&mut requestor, &listless).await, 0x0115);
    face.log.set_quorum(false);
    assert_eq!(ask(&mut requestor, &good).await, 0x0213, "nothing is recorded");
    face.log.set_quorum(true);
    assert_eq!(ask(&mut requestor, &good).await, 0x0000);
    requestor.release().await;
}

/// The requester has hung up: it is called, and we take the provider's role. It refuses first, and is called again.
#[tokio::test]
async fn the_report_comes_over_a_new_association_until_it_is_taken() {
    use crate::association::Association;
    use archive_upper_layer::{
        End, Event,
        frame::Frame,
        negotiate::{self, Acceptor},
        pdu::{Pdu, UserVariableItem},
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let remote = archive_service::RemoteAe { title: title("TEST"), address: address.to_string() };
    let service = ServiceSettings { remotes: [("TEST".to_owned(), remote)].into(), ..ServiceSettings::default() };
    let face = Face::ticking(service, settings()).await;
    face.store(&[Object::new(CT, 1, EXPLICIT, 64)]).await;
    let reporter = Arc::new(CommitmentReporter::new(title("TRIPTYCH")));
    let work = tokio::spawn(face.archive.clone().work_on_commitments(reporter));
    let mut requestor = face.connect(&[proposal()]).await.unwrap();
    assert_eq!(ask(&mut requestor, &wanted("1.9.1", &[format!("{SERIES}.1")])).await, 0x0000);
    requestor.release().await;
    for status in [0x0110, 0x0000] {
        let accepted = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await.expect("called");
        let mut association = Association::over(accepted.unwrap().0, End::Acceptor, deadlines()).unwrap();
        association.event(Event::TransportIndication);
        let Frame::Other(Pdu::AssociationRQ(request)) = association.frame().await.unwrap() else { panic!("a request") };
        association.event(Event::AssociateRqPdu);
        assert_eq!((request.calling_ae_title.trim(), request.called_ae_title.trim()), ("TRIPTYCH", "TEST"));
        let role = request.user_variables.iter().find_map(|item| match item {
            UserVariableItem::ScuScpRoleSelectionSubItem(class, roles) => Some((class.clone(), roles.scu, roles.scp)),
            _ => None,
        });
        assert_eq!(role, Some((CLASS.to_owned(), false, true)));
        let acceptor = Acceptor::new(title("TEST"));
        let agreed = negotiate::answer(&request, &acceptor, 16 << 10).unwrap();
        association.event(Event::AssociateAccept);
        association.contexts = agreed.contexts;
        association.pdu_bytes_max = agreed.pdu_bytes_max;
        association.write_pdu(&Pdu::AssociationAC(agreed.answer)).await.unwrap();
        let mut own = Requestor { association, operations_max: 1 };
        let (event, report) = take_report(&mut own, status).await;
        assert_eq!((event, report.text(tags::TRANSACTION_UID)), (1, Some("1.9.1")));
        assert!(matches!(own.association.next().await.unwrap(), Received::Released));
    }
    face.archive.drain();
    work.await.unwrap();
}
