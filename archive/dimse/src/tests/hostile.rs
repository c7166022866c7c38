//! Peers that lie, trickle, or talk out of turn: each is hung up on, and the next one is served.

use super::support::*;
use crate::{
    DimseSettings,
    association::Ended,
    scu::{Proposal, Requestor, request},
};
use archive_model::sop_class;
use archive_upper_layer::frame;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

const A_ABORT: u8 = 7;

/// What the server says to `bytes`, until it closes.
async fn answered(face: &Face, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(face.server.local_address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    let reading = async {
        // A reset is an end too: bytes of ours were left unread.
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
            if answer.first() == Some(&A_ABORT) && answer.len() >= 10 {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("hung up");
    answer
}

async fn lives(face: &Face) {
    let mut echo = face.connect(&[Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])]).await.unwrap();
    echo.echo().await.unwrap();
    echo.release().await;
}

#[tokio::test]
async fn what_is_no_association_request_is_aborted_at_once() {
    let face = Face::new().await;
    let p_data = [4, 0, 0, 0, 0, 8, 0, 0, 0, 4, 1, 3, 0, 0];
    let huge = [1, 0, 0xff, 0xff, 0xff, 0xff];
    let release = [5, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    // In Sta2 all of these are AA-1: A-ABORT of the service user (PS3.8 Table 9-10).
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1], &p_data, &huge, &release] {
        assert_eq!(answered(&face, bytes).await, [A_ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0], "{bytes:?}");
    }
    lives(&face).await;
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_in_time_is_hung_up_on() {
    let face = Face::new().await;
    assert_eq!(answered(&face, &[1, 0, 0, 0, 0, 200, 0, 1]).await, Vec::<u8>::new());
    lives(&face).await;
}

#[tokio::test]
async fn a_message_that_trickles_is_cut() {
    let mut settings = settings();
    settings.deadlines.progress = Duration::from_millis(200);
    let face = Face::with(archive_service::ServiceSettings::default(), settings).await;
    let object = Object::new(CT, 1, EXPLICIT, 64);
    let mut requestor = face.connect(&[object.proposal()]).await.unwrap();
    let context = object.begin(&mut requestor).await.unwrap();
    requestor.association.flush().await.unwrap();
    let mut byte = Vec::new();
    frame::put_data(&mut byte, context, false, false, &object.bytes[..1], 0);
    // One byte at a time, each within the deadline: for ever, if only silence were counted.
    let cut = timeout(Duration::from_secs(20), async {
        while requestor.association.write_all(&byte).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    cut.await.expect("cut");
    lives(&face).await;
}

#[tokio::test]
async fn who_breaks_the_protocol_inside_an_association_is_aborted() {
    let face = Face::new().await;
    let put = |context, command, last, bytes: &[u8]| {
        let mut out = Vec::new();
        frame::put_data(&mut out, context, command, last, bytes, 0);
        out
    };
    let association_again = {
        let mut bytes = vec![1, 0, 0, 0, 0, 68, 0, 1, 0, 0];
        bytes.resize(74, b' ');
        bytes
    };
    let mut endless = Vec::new();
    for _ in 0..100 {
        endless.extend(put(1, true, false, &[0; 1000]));
    }
    let attacks = [
        ("a data set without its command", put(1, false, true, b"x")),
        ("a context that was not agreed on", put(3, true, true, b"")),
        ("an even context", put(2, true, true, b"")),
        ("a command set of garbage", put(1, true, true, &[0xA5; 99])),
        ("a command set without its field", put(1, true, true, b"")),
        ("an endless command set", endless),
        ("mixed messages", [put(1, true, false, b"ab"), put(1, false, true, b"cd")].concat()),
        ("a P-DATA without fragments", vec![4, 0, 0, 0, 0, 0]),
        ("a fragment longer than its PDU", vec![4, 0, 0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 1, 3]),
        ("a PDU of 4 GiB", vec![4, 0, 0xff, 0xff, 0xff, 0xfe]),
        ("a PDU of no type", vec![9, 0, 0, 0, 0, 0]),
        ("a second request", association_again),
        ("an answer to no request", vec![6, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
    ];
    for (what, bytes) in attacks {
        let mut requestor = echoing(&face).await;
        requestor.association.write_all(&bytes).await.unwrap();
        let end = timeout(Duration::from_secs(20), requestor.association.next()).await.expect(what);
        assert!(matches!(end, Err(Ended::Aborted | Ended::Lost(_))), "{what}: {end:?}");
        lives(&face).await;
    }
}

#[tokio::test]
async fn who_only_opens_connections_takes_no_place_from_others() {
    let settings = DimseSettings { associations_max: 8, associations_per_peer_max: 4, ..settings() };
    let settings = DimseSettings { deadlines: deadlines(), ..settings };
    let face = Face::with(archive_service::ServiceSettings::default(), settings).await;
    let at = face.server.local_address();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    // The last of them is closed: by then the server has seen them all.
    let mut buffer = [0; 16];
    let last = silent.last_mut().unwrap().read(&mut buffer);
    assert!(matches!(timeout(Duration::from_secs(20), last).await.expect("hung up"), Ok(0) | Err(_)));
    let request = request(&title("OTHER"), &title("TRIPTYCH"), &[Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])]);
    let request = frame::encode(&request.into()).unwrap();
    let mut open = Vec::new();
    for number in 0..5 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(at).await.unwrap();
        other.write_all(&request).await.unwrap();
        let kind = timeout(Duration::from_secs(20), other.read_u8()).await.expect("answered").unwrap();
        // 2 is A-ASSOCIATE-AC, 3 is A-ASSOCIATE-RJ: beyond the limit of an address it is told so.
        assert_eq!(kind, if number < 4 { 2 } else { 3 });
        open.push(other);
    }
}

async fn echoing(face: &Face) -> Requestor {
    face.connect(&[Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])]).await.unwrap()
}
