//! C-MOVE and queued sends to destinations that agree to several operations at a time: what they answer, in whatever order, is
//! what is counted.

use super::support::*;
use crate::{
    InstanceSender,
    association::{Association, Received},
    command,
    scu::{Proposal, ScuError},
    status::Status,
};
use archive_model::{DataSet, Uid, sop_class, tags};
use archive_service::{Selection, ServiceSettings};
use archive_upper_layer::{
    End, Event,
    frame::Frame,
    negotiate::{self, Acceptor, ITEM_ASYNC_WINDOW},
    pdu::{Pdu, UserVariableItem},
};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::timeout};

/// A request to store that is not answered yet.
type Asked = (u8, DataSet);

/// Accepts an association; answers what was asked for, and grants `granted` operations, or does not speak of them.
async fn accept(listener: &TcpListener, granted: Option<u16>) -> (Option<Vec<u8>>, Association) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut association = Association::over(stream, End::Acceptor, deadlines()).unwrap();
    association.event(Event::TransportIndication);
    let Frame::Other(Pdu::AssociationRQ(request)) = association.frame().await.unwrap() else { panic!("a request") };
    association.event(Event::AssociateRqPdu);
    let acceptor = Acceptor { any_called_title: true, ..Acceptor::new(title("WIDE")) };
    let mut agreed = negotiate::answer(&request, &acceptor, 0).unwrap();
    let is_window = |item: &UserVariableItem| matches!(item, UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, _));
    agreed.answer.user_variables.retain(|item| !is_window(item));
    let granted = granted.map(|granted| vec![(granted >> 8) as u8, granted as u8, 0, 1]);
    agreed.answer.user_variables.extend(granted.map(|window| UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, window)));
    association.event(Event::AssociateAccept);
    association.contexts = agreed.contexts;
    association.write_pdu(&Pdu::AssociationAC(agreed.answer)).await.unwrap();
    let asked = request.user_variables.into_iter().find_map(|item| match item {
        UserVariableItem::Unknown(ITEM_ASYNC_WINDOW, window) => Some(window),
        _ => None,
    });
    (asked, association)
}

/// The next object that has come whole; none when the sender wants no more.
async fn object(association: &mut Association) -> Option<Asked> {
    let mut asked = None;
    loop {
        match association.next().await {
            Ok(Received::Command { context, set, .. }) => asked = Some((context, set)),
            Ok(Received::Data { last, .. }) if last => return asked,
            Ok(Received::Data { .. }) => {}
            Ok(Received::Released) | Err(_) => return None,
        }
    }
}

async fn answer(association: &mut Association, (context, set): &Asked, status: u16) {
    association.send(*context, &command::response(set, &Status::new(status, ""), false), None).await.unwrap();
}

fn name(asked: &Asked) -> String {
    asked.1.text(tags::AFFECTED_SOP_INSTANCE_UID).unwrap().to_owned()
}

fn many(count: usize) -> Vec<Object> {
    (1..=count).map(|number| Object::new(CT, number, EXPLICIT, 640)).collect()
}

struct Bench {
    face: Face,
    listener: TcpListener,
    objects: Vec<Object>,
}

impl Bench {
    async fn with(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let face = Face::moving_to(&[("WIDE", listener.local_addr().unwrap())]).await;
        let objects = many(count);
        face.store(&objects).await;
        Self { face, listener, objects }
    }

    /// C-MOVE of all; answers how it ended, and what failed last of all was said to have failed and to remain.
    async fn moved(&self) -> (Result<(), ScuError>, Option<u64>, u64) {
        let class = sop_class::STUDY_ROOT_MOVE;
        let mut requestor = self.face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
        let (mut left, mut failed) = (None, 0);
        let each = |remaining, now| (left, failed) = (remaining, now);
        let ended = requestor.move_to(class, &identifier("STUDY"), &title("WIDE"), each).await;
        requestor.release().await;
        (ended, left, failed)
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.expect("somebody waits for ever")
}

/// It waits until as many have come as it granted: a sender that waited for each answer would wait for ever.
#[tokio::test]
async fn as_many_are_under_way_as_were_granted_and_each_answer_counts_for_the_object_that_it_names() {
    let bench = Bench::with(20).await;
    let destination = async {
        let (asked, mut association) = accept(&bench.listener, Some(5)).await;
        assert_eq!(asked, Some(vec![0, 8, 0, 1]));
        let (mut held, mut came) = (Vec::new(), Vec::new());
        while came.len() < 20 {
            while held.len() < 5 && came.len() < 20 {
                let one = object(&mut association).await.expect("an object");
                came.push(name(&one));
                held.push(one);
            }
            let more = timeout(Duration::from_millis(20), object(&mut association)).await;
            assert!(more.is_err(), "more than the five that were granted");
            // The newest first; of each five one is refused and one is warned of.
            for (number, one) in held.drain(..).enumerate().collect::<Vec<_>>().into_iter().rev() {
                answer(&mut association, &one, [0, 0xA700, 0, 0xB000, 0][number]).await;
            }
        }
        assert!(object(&mut association).await.is_none());
        came
    };
    let ((ended, left, failed), came) = in_time(async { tokio::join!(bench.moved(), destination) }).await;
    assert_eq!(came, bench.objects.iter().map(|object| object.instance.clone()).collect::<Vec<_>>());
    assert!(matches!(ended, Err(ScuError::Status { status: 0xB000, .. })), "{ended:?}");
    assert_eq!((left, failed), (None, 4));
}

/// What was never answered is not sent, though another answer came once too often.
#[tokio::test]
async fn an_answer_that_is_given_twice_counts_for_one() {
    let bench = Bench::with(2).await;
    let destination = async {
        let (_, mut association) = accept(&bench.listener, Some(2)).await;
        let (first, second) = (object(&mut association).await.unwrap(), object(&mut association).await.unwrap());
        answer(&mut association, &first, 0).await;
        answer(&mut association, &first, 0).await;
        assert!(object(&mut association).await.is_none(), "the association is given up");
        name(&second)
    };
    let ((ended, _, failed), _) = in_time(async { tokio::join!(bench.moved(), destination) }).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(failed, 1);
}

/// The identifier of the final response, which the requestor above does not show.
#[tokio::test]
async fn the_failed_list_names_those_whose_answers_said_so() {
    let bench = Bench::with(8).await;
    let destination = async {
        let (_, mut association) = accept(&bench.listener, Some(0)).await; // as many as it likes
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(object(&mut association).await.expect("eight come without an answer"));
        }
        for one in held.iter().rev() {
            let bad = [2, 7].iter().any(|number| name(one) == bench.objects[*number].instance);
            answer(&mut association, one, if bad { 0xC000 } else { 0 }).await;
        }
        assert!(object(&mut association).await.is_none());
    };
    let asker = async {
        let class = sop_class::STUDY_ROOT_MOVE;
        let mut requestor = bench.face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
        let own = &mut requestor.association;
        let set = command::move_request(7, class, &title("WIDE"));
        let bytes = archive_model::write_data_set(&identifier("STUDY"), archive_model::Encoding::ExplicitLe);
        own.send(1, &set, Some(&bytes)).await.unwrap();
        loop {
            let Received::Command { set, data, .. } = own.next().await.unwrap() else { panic!("a response") };
            if data {
                let bytes = own.small_data(1 << 20).await.unwrap().unwrap();
                let syntax = archive_model::transfer_syntax(EXPLICIT);
                let limits = archive_model::Limits::default();
                let identifier = archive_model::read_data_set(&bytes, &syntax, &limits).unwrap();
                requestor.release().await;
                return (set, identifier.texts(tags::FAILED_SOP_INSTANCE_UID_LIST).to_vec());
            }
        }
    };
    let ((last, mut failed), ()) = in_time(async { tokio::join!(asker, destination) }).await;
    failed.sort();
    assert_eq!(failed, [2, 7].map(|number| bench.objects[number].instance.clone()));
    let number = |tag| last.integer(tag).unwrap();
    assert_eq!(number(tags::NUMBER_OF_COMPLETED_SUBOPERATIONS), 6);
    assert_eq!(number(tags::NUMBER_OF_FAILED_SUBOPERATIONS), 2);
}

/// W-2. Nobody can say which of the four ended the association; it is the third, and it is told of alone.
#[tokio::test]
async fn what_was_unanswered_when_an_association_ended_goes_again_one_at_a_time() {
    let bench = Bench::with(10).await;
    let bad = bench.objects[2].instance.clone();
    let destination = async {
        let (mut taken, mut associations) = (Vec::new(), 0);
        while taken.len() < 9 {
            let (_, mut association) = accept(&bench.listener, Some(4)).await;
            associations += 1;
            let mut held = Vec::new();
            loop {
                let Some(one) = object(&mut association).await else { break };
                if associations == 1 {
                    held.push(one);
                    if held.len() == 4 {
                        association.abort().await;
                        break;
                    }
                    continue;
                }
                let more = timeout(Duration::from_millis(5), object(&mut association)).await;
                assert!(more.is_err(), "one at a time from now on");
                if name(&one) == bad {
                    association.abort().await;
                    break;
                }
                taken.push(name(&one));
                answer(&mut association, &one, 0).await;
            }
        }
        (taken, associations)
    };
    let ((ended, left, failed), (taken, associations)) =
        in_time(async { tokio::join!(bench.moved(), destination) }).await;
    let all: Vec<_> = bench.objects.iter().map(|object| object.instance.clone()).filter(|one| *one != bad).collect();
    assert_eq!((taken, associations), (all, 3));
    assert!(matches!(ended, Err(ScuError::Status { status: 0xB000, .. })), "{ended:?}");
    assert_eq!((left, failed), (None, 1), "the one that ended an association alone");
}

#[tokio::test]
async fn who_does_not_speak_of_a_window_gets_one_after_the_other() {
    let bench = Bench::with(5).await;
    for granted in [None, Some(1)] {
        let destination = async {
            let (_, mut association) = accept(&bench.listener, granted).await;
            let mut count = 0;
            while let Some(one) = object(&mut association).await {
                let more = timeout(Duration::from_millis(20), object(&mut association)).await;
                assert!(more.is_err(), "{granted:?}: more than one");
                count += 1;
                answer(&mut association, &one, 0).await;
            }
            count
        };
        let ((ended, ..), count) = in_time(async { tokio::join!(bench.moved(), destination) }).await;
        ended.unwrap();
        assert_eq!(count, 5);
    }
}

/// The same by a queued send: the association ends with five unanswered, and then the destination takes everything.
#[tokio::test]
async fn a_queued_send_counts_each_object_once_though_it_went_twice() {
    let bench = Bench::with(12).await;
    let archive = &bench.face.archive;
    let work = tokio::spawn(archive.clone().work_on_sends(Arc::new(InstanceSender::new(deadlines()).ahead(5))));
    let what = Selection { studies: vec![Uid::parse(STUDY).unwrap()], ..Selection::default() };
    let (ids, _) = archive.queue_send(&title("WIDE"), what).await.unwrap();
    let destination = async {
        let (asked, mut association) = accept(&bench.listener, Some(8)).await;
        assert_eq!(asked, Some(vec![0, 5, 0, 1]));
        for _ in 0..5 {
            object(&mut association).await.expect("an object");
        }
        association.abort().await;
        let (_, mut association) = accept(&bench.listener, Some(8)).await;
        let mut taken = Vec::new();
        while let Some(one) = object(&mut association).await {
            taken.push(name(&one));
            answer(&mut association, &one, 0).await;
        }
        taken
    };
    let taken = in_time(destination).await;
    assert_eq!(taken, bench.objects.iter().map(|object| object.instance.clone()).collect::<Vec<_>>());
    let done = async {
        while !archive.send_of(&ids[0]).await.unwrap().has_ended() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(done).await;
    let job = archive.send_of(&ids[0]).await.unwrap();
    assert_eq!((job.state, job.sent, job.left, job.failed), ("done", 12, 0, 0), "{job:?}");
    archive.drain();
    in_time(work).await.unwrap();
}

/// Our own side grants eight, answers as disks let it, and loses none.
#[tokio::test]
async fn our_own_side_takes_what_comes_ahead() {
    let to = Face::with(ServiceSettings { ae_title: title("OTHER"), ..ServiceSettings::default() }, settings()).await;
    let face = Face::moving_to(&[("OTHER", to.server.local_address())]).await;
    face.store(&many(60)).await;
    let class = sop_class::STUDY_ROOT_MOVE;
    let mut requestor = face.connect(&[Proposal::new(class, &[EXPLICIT])]).await.unwrap();
    in_time(requestor.move_to(class, &identifier("STUDY"), &title("OTHER"), |_, _| ())).await.unwrap();
    requestor.release().await;
    let mut there = to.instances().await;
    let mut all: Vec<_> = many(60).into_iter().map(|object| object.instance).collect();
    there.sort();
    all.sort();
    assert_eq!(there, all);
}
