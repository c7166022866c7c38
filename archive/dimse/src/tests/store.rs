//! C-ECHO, C-STORE, C-FIND.

use super::support::*;
use crate::{
    DimseSettings,
    association::{Ended, Received},
    command::{self, field},
    scu::{Proposal, ScuError},
};
use archive_model::{DataSet, Element, VR, Value, sop_class, tags, transfer_syntax, write_data_set};
use archive_service::ServiceSettings;

#[tokio::test]
async fn an_echo_is_answered() {
    let face = Face::new().await;
    let mut requestor = face.connect(&[Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])]).await.unwrap();
    requestor.echo().await.unwrap();
    requestor.echo().await.unwrap();
    requestor.release().await;
    face.server.shutdown().await;
    assert_eq!(face.counted("archive_dimse_responses_total"), 2.0);
}

#[tokio::test]
async fn what_was_stored_is_found_at_once_at_every_level() {
    let face = Face::new().await;
    face.store(&[Object::new(CT, 1, EXPLICIT, 64), Object::new(PRIVATE, 2, IMPLICIT, 64)]).await;
    let find = sop_class::STUDY_ROOT_FIND;
    let mut requestor = face.connect(&[Proposal::new(find, &[EXPLICIT])]).await.unwrap();
    for (level, count) in [("STUDY", 1), ("SERIES", 1), ("IMAGE", 2)] {
        let mut keys = identifier(level);
        keys.put_text(tags::PATIENT_NAME, VR::PN, "müller*");
        keys.put_text(tags::SERIES_INSTANCE_UID, VR::UI, if level == "IMAGE" { SERIES } else { "" });
        keys.put_text(tags::SOP_INSTANCE_UID, VR::UI, "");
        let mut answers = Vec::new();
        requestor.find(find, &keys, |answer| answers.push(answer)).await.unwrap();
        assert_eq!(answers.len(), count, "{level}");
        for answer in answers {
            assert_eq!(answer.text(tags::PATIENT_NAME), Some("Müller^Jörg"));
            assert_eq!(answer.text(tags::SPECIFIC_CHARACTER_SET), Some("ISO_IR 192"));
            assert_eq!(answer.text(tags::QUERY_RETRIEVE_LEVEL), Some(level));
            assert_eq!(answer.text(tags::RETRIEVE_AE_TITLE), Some("TRIPTYCH"));
            assert_eq!(answer.text(tags::INSTANCE_AVAILABILITY), Some("ONLINE"));
            assert_eq!(answer.get(tags::MODALITY), None, "not asked for");
        }
    }
    let mut keys = identifier("SERIES");
    keys.remove(tags::STUDY_INSTANCE_UID);
    let wrong = requestor.find(find, &keys, |_| ()).await;
    assert!(matches!(wrong, Err(ScuError::Status { status: 0xA900, .. })), "a key above the level is missing");
    let wrong = requestor.find(find, &identifier("PATIENT"), |_| ()).await;
    assert!(matches!(wrong, Err(ScuError::Status { status: 0xA900, .. })), "no patients below the study root");
    requestor.release().await;
}

#[tokio::test]
async fn answers_come_in_the_character_sets_of_the_requestor_where_they_hold_every_letter() {
    let face = Face::new().await;
    let japanese = "Yamada^Tarou=山田^太郎=やまだ^たろう";
    face.store(&[Object::new(CT, 1, EXPLICIT, 64)]).await;
    let other = Face::new().await;
    other.store(&[Object::of(japanese, CT, 1, EXPLICIT, 64)]).await;
    let find = sop_class::STUDY_ROOT_FIND;
    let latin: &[&str] = &["ISO_IR 100"];
    let kanji: &[&str] = &["", "ISO 2022 IR 87"];
    let utf: &[&str] = &["ISO_IR 192"];
    for (face, name, asked, answered) in [
        (&face, "Müller^Jörg", latin, latin),
        (&face, "Müller^Jörg", kanji, utf),
        (&face, "Müller^Jörg", &[], utf),
        (&other, japanese, kanji, kanji),
        (&other, japanese, latin, utf),
        (&other, japanese, &["GB18030"], &["GB18030"]),
    ] {
        let mut requestor = face.connect(&[Proposal::new(find, &[EXPLICIT])]).await.unwrap();
        let mut keys = identifier("STUDY");
        keys.put_text(tags::PATIENT_NAME, VR::PN, "");
        let words: Vec<String> = asked.iter().map(|word| (*word).to_owned()).collect();
        keys.put(Element { tag: tags::SPECIFIC_CHARACTER_SET, vr: VR::CS, value: Value::Text(words) });
        let mut answers = Vec::new();
        requestor.find(find, &keys, |answer| answers.push(answer)).await.unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].text(tags::PATIENT_NAME), Some(name), "{asked:?}");
        assert_eq!(answers[0].texts(tags::SPECIFIC_CHARACTER_SET), answered, "{asked:?}");
        requestor.release().await;
    }
}

#[tokio::test]
async fn a_refused_object_does_not_disturb_the_next_one() {
    let face = Face::new().await;
    let good = Object::new(CT, 1, EXPLICIT, 64);
    let mut requestor = face.connect(&[good.proposal()]).await.unwrap();
    let other = Object { instance: "1.2.999".into(), ..Object::new(CT, 2, EXPLICIT, 3 << 20) };
    let garbage = Object { bytes: vec![0xA5; 300_000], ..Object::new(CT, 3, EXPLICIT, 64) };
    let torn = Object::new(CT, 4, EXPLICIT, 5_000);
    let torn = Object { bytes: torn.bytes[..4_000].to_vec(), ..torn };
    let nameless = Object { instance: "a/b".into(), ..good.clone() };
    for (object, expected) in [(&other, 0xA900), (&garbage, 0xC000), (&torn, 0xC000), (&nameless, 0x0117)] {
        let (status, comment) = object.send(&mut requestor).await.unwrap();
        assert_eq!(status, expected, "{comment}");
        assert!(!comment.is_empty() && comment.len() <= 64, "{comment}");
    }
    assert_eq!(face.instances().await, Vec::<String>::new());
    assert_eq!(good.send(&mut requestor).await.unwrap().0, 0x0000);
    assert_eq!(good.send(&mut requestor).await.unwrap().0, 0x0000, "sending again is normal");
    assert_eq!(face.instances().await, [good.instance]);
    requestor.release().await;
}

#[tokio::test]
async fn an_association_that_ends_inside_an_object_leaves_nothing_of_it() {
    let face = Face::new().await;
    let whole = Object::new(CT, 1, EXPLICIT, 64);
    let broken = Object::new(CT, 2, EXPLICIT, 4 << 20);
    for by_abort in [true, false] {
        let mut requestor = face.connect(&[whole.proposal()]).await.unwrap();
        assert_eq!(whole.send(&mut requestor).await.unwrap().0, 0x0000);
        let context = broken.begin(&mut requestor).await.unwrap();
        requestor.store_piece(context, &broken.bytes[..3 << 20], false).await.unwrap();
        if by_abort { requestor.abort().await } else { drop(requestor) }
    }
    face.server.shutdown().await;
    assert_eq!(face.instances().await, [whole.instance]);
}

#[tokio::test]
async fn without_a_majority_stores_are_put_off_and_what_can_be_answered_is() {
    let face = Face::new().await;
    let object = Object::new(CT, 1, EXPLICIT, 64);
    let mut early = face.connect(&[object.proposal()]).await.unwrap();
    face.log.set_quorum(false);
    let (status, comment) = object.send(&mut early).await.unwrap();
    assert_eq!(status, 0xA700, "{comment}");
    let late = face.connect(&[object.proposal()]).await;
    assert!(matches!(late, Err(ScuError::Rejected { result: "for now", .. })));
    let mut echo = face.connect(&[Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])]).await.unwrap();
    echo.echo().await.unwrap();
    face.log.set_quorum(true);
    assert_eq!(object.send(&mut early).await.unwrap().0, 0x0000, "the association outlived it");
    early.release().await;
    echo.release().await;
}

#[tokio::test]
async fn a_wrong_title_is_rejected_for_good_unless_told_otherwise() {
    let echo = [Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])];
    let face = Face::new().await;
    let wrong = face.connect_as("OTHER", &echo).await;
    assert!(matches!(wrong, Err(ScuError::Rejected { result: "for good", .. })));
    let lenient = DimseSettings { check_called_ae: false, ..settings() };
    let face = Face::with(ServiceSettings::default(), lenient).await;
    face.connect_as("OTHER", &echo).await.unwrap().release().await;
}

#[tokio::test]
async fn associations_beyond_the_limit_are_put_off() {
    let echo = [Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])];
    let settings = DimseSettings { associations_per_peer_max: 1, ..settings() };
    let face = Face::with(ServiceSettings::default(), settings).await;
    let mut first = face.connect(&echo).await.unwrap();
    assert!(matches!(face.connect(&echo).await, Err(ScuError::Rejected { result: "for now", .. })));
    first.echo().await.unwrap();
    first.release().await;
}

#[tokio::test]
async fn a_find_that_is_cancelled_ends_with_fe00() {
    let face = Face::new().await;
    let objects: Vec<Object> = (1..=200).map(|number| Object::new(CT, number, EXPLICIT, 2)).collect();
    face.store(&objects[..1]).await;
    let mut requestor = face.connect(&[objects[0].proposal()]).await.unwrap();
    for object in &objects[1..] {
        assert_eq!(object.send(&mut requestor).await.unwrap().0, 0x0000);
    }
    requestor.release().await;
    let class = sop_class::STUDY_ROOT_FIND;
    let mut images = identifier("IMAGE");
    images.put_text(tags::SERIES_INSTANCE_UID, VR::UI, SERIES);
    // What only headers know, and none of them has: the cancel is heard while nothing is answered.
    let mut headers = identifier("STUDY");
    headers.put_text(tags::KVP, VR::DS, "80");
    for keys in [images, headers] {
        cancelled(&face, class, &keys).await;
    }
}

async fn cancelled(face: &Face, class: &str, keys: &DataSet) {
    let mut requestor = face.connect(&[Proposal::new(class, &[IMPLICIT])]).await.unwrap();
    let bytes = write_data_set(keys, transfer_syntax(IMPLICIT).encoding);
    // Both in one write: the cancel is there before the first answer is.
    let mut out = Vec::new();
    let set = archive_model::write_command_set(&command::query_request(field::FIND_RQ, 7, class));
    archive_upper_layer::frame::put_data(&mut out, 1, true, true, &set, 0);
    archive_upper_layer::frame::put_data(&mut out, 1, false, true, &bytes, 0);
    let set = archive_model::write_command_set(&command::cancel_request(7));
    archive_upper_layer::frame::put_data(&mut out, 1, true, true, &set, 0);
    requestor.association.write_all(&out).await.unwrap();
    let mut answers = 0;
    let last = loop {
        let Received::Command { set, data, .. } = requestor.association.next().await.unwrap() else {
            panic!("a command")
        };
        if !data {
            break set;
        }
        requestor.association.drain_data().await.unwrap();
        answers += 1;
    };
    assert_eq!(command::status_code(&last), Some(0xFE00));
    assert!(answers < 200, "{answers}");
    requestor.release().await;
}

#[tokio::test]
async fn a_service_that_has_no_place_in_its_context_is_refused_and_the_association_lives() {
    let face = Face::new().await;
    let class = sop_class::STUDY_ROOT_FIND;
    let mut requestor = face.connect(&[Proposal::new(class, &[IMPLICIT])]).await.unwrap();
    let set = command::query_request(field::GET_RQ, 3, class);
    requestor.association.send(1, &set, Some(&[0; 300_000])).await.unwrap();
    let Received::Command { set, .. } = requestor.association.next().await.unwrap() else { panic!("a command") };
    assert_eq!(command::status_code(&set), Some(0x0211));
    requestor.find(class, &identifier("STUDY"), |_: DataSet| ()).await.unwrap();
    requestor.release().await;
}

#[tokio::test]
async fn a_stop_hangs_up_between_messages_and_lets_a_running_one_end() {
    let face = Face::new().await;
    let object = Object::new(CT, 1, EXPLICIT, 64);
    let mut idle = face.connect(&[object.proposal()]).await.unwrap();
    let mut busy = face.connect(&[object.proposal()]).await.unwrap();
    let context = object.begin(&mut busy).await.unwrap();
    busy.store_piece(context, &object.bytes, false).await.unwrap();
    busy.association.flush().await.unwrap();
    while face.counted("archive_dimse_accepted_total") < 2.0 {
        tokio::task::yield_now().await;
    }
    let ((), ended) = tokio::join!(face.server.shutdown(), async {
        assert!(matches!(idle.association.next().await, Err(Ended::Aborted)), "hung up");
        busy.store_piece(context, &[], true).await?;
        busy.store_end().await
    });
    // Taken before the stop: answered. Not yet taken: hung up. Never an answer without the object.
    match ended {
        Ok((0x0000, _)) => assert_eq!(face.instances().await, [object.instance]),
        Ok((status, comment)) => panic!("{status:04x} {comment}"),
        Err(_) => assert_eq!(face.instances().await, Vec::<String>::new()),
    }
}
