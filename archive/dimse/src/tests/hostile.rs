//! Peers that lie, trickle, or talk out of turn: each is hung up on, and the next one is served.

use super::support::*;
use crate::{
    association::Ended,
    scu::{Proposal, Requestor},
};
use archive_model::sop_class;
use archive_upper_layer::frame;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
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
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1], &p_data, &huge, &release] {
        assert_eq!(answered(&face, bytes).await.first(), Some(&A_ABORT), "{bytes:?}");
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
    settings.timeouts.progress = Duration::from_millis(200);
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

async fn echoing(face: &Face) -> Requestor {
    face.connect(&[Proposal::new(sop_class::VERIFICATION, &[IMPLICIT])]).await.unwrap()
}
