//! Peers that say nothing or take nothing, over a real socket.

use super::*;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn settings() -> WebSettings {
    let short = Duration::from_millis(300);
    WebSettings { head_timeout: short, write_timeout: short, ..WebSettings::new(([127, 0, 0, 1], 0).into()) }
}

async fn start(settings: WebSettings, service: ServiceSettings) -> (Web, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = archive_service::testing::archive(folder.path(), service);
    (Web::start(archive, settings, Arc::new(Fine), prometheus::Registry::new()).await.unwrap(), folder)
}

/// Waits until the server has hung up; answers what it said.
async fn hung_up(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut seen).await, Ok(count) if count > 0) {} };
    timeout(PATIENCE, reading).await.expect("hung up");
    seen
}

async fn lives(web: &Web) {
    let mut stream = TcpStream::connect(web.local_address()).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(hung_up(&mut stream).await.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn who_sends_no_request_is_hung_up_on() {
    let (web, _folder) = start(settings(), ServiceSettings::default()).await;
    // Nothing; the beginning of a head; and of the preface of HTTP/2, which looks like neither version yet.
    for begin in [&b""[..], b"GET / HTTP/1.1\r\nHo", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(web.local_address()).await.unwrap();
        stream.write_all(begin).await.unwrap();
        hung_up(&mut stream).await;
    }
    lives(&web).await;
    web.shutdown().await;
}

#[tokio::test]
async fn a_head_that_drips_is_hung_up_on() {
    let (web, _folder) = start(settings(), ServiceSettings::default()).await;
    let mut stream = TcpStream::connect(web.local_address()).await.unwrap();
    let dripping = async {
        while stream.write_all(b"P").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, dripping).await.expect("hung up");
    web.shutdown().await;
}

/// Asks for what [`store_large`] has stored.
const ASK: &[u8] = b"GET /dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4 HTTP/1.1\r\nHost: h\r\nAccept: application/dicom\r\nConnection: close\r\n\r\n";

/// Stores an instance of 32 MiB; answers its length.
async fn store_large(web: &Web) -> usize {
    let large = {
        let mut data = data_set("1.2.3", "1.2.3.4", "DOE^JANE", 1);
        data.truncate(data.len() - 4096 - 12);
        data.extend(element(0x7FE0, 0x0010, "OB", &vec![7; 32 << 20]));
        [write_file_meta(CLASS, "1.2.3.4", EXPLICIT, None), data].concat()
    };
    let mut sender = TcpStream::connect(web.local_address()).await.unwrap();
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: h\r\nContent-Type: application/dicom\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        large.len()
    );
    sender.write_all(head.as_bytes()).await.unwrap();
    sender.write_all(&large).await.unwrap();
    assert!(hung_up(&mut sender).await.starts_with(b"HTTP/1.1 200"));
    large.len()
}

#[tokio::test]
async fn who_does_not_read_an_answer_does_not_keep_others_from_theirs() {
    // Room for one reader: whoever stalls would hold it for ever.
    let service = ServiceSettings { read_bytes_max: 2 << 20, ..ServiceSettings::default() };
    let (web, _folder) = start(settings(), service).await;
    let length = store_large(&web).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(web.local_address()).await.unwrap();
        stream.write_all(ASK).await.unwrap();
        stalled.push(stream);
    }
    let mut reader = TcpStream::connect(web.local_address()).await.unwrap();
    reader.write_all(ASK).await.unwrap();
    assert!(hung_up(&mut reader).await.len() > length, "the whole instance came");
    web.shutdown().await;
}

#[tokio::test]
async fn who_does_not_read_waits_behind_himself() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    let ask = |host: u8| {
        let mut request = Request::get("/dicom-web/studies/1.2.3").header("host", "h").body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer(([127, 0, 0, host], 1000).into()));
        face.router.clone().oneshot(request)
    };
    // The default: ten answers that are not read.
    let mut unread = Vec::new();
    for _ in 0..10 {
        unread.push(ask(1).await.unwrap());
    }
    let mut eleventh = Box::pin(ask(1));
    assert!(timeout(Duration::from_millis(300), &mut eleventh).await.is_err(), "its own line is full");
    assert_eq!(timeout(PATIENCE, ask(2)).await.expect("another has its own").unwrap().status(), StatusCode::OK);
    drop(unread.pop());
    assert_eq!(timeout(PATIENCE, eleventh).await.expect("its turn").unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let settings = WebSettings { connections_per_peer_max: 2, head_timeout: PATIENCE, ..settings() };
    let (web, _folder) = start(settings, ServiceSettings::default()).await;
    let first = TcpStream::connect(web.local_address()).await.unwrap();
    let _second = TcpStream::connect(web.local_address()).await.unwrap();
    let mut third = TcpStream::connect(web.local_address()).await.unwrap();
    assert_eq!(hung_up(&mut third).await, b"");
    drop(first);
    // The server sees that it is gone a little later.
    let free = async {
        loop {
            let mut stream = TcpStream::connect(web.local_address()).await.unwrap();
            let ask = b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            if stream.write_all(ask).await.is_ok() && !hung_up(&mut stream).await.is_empty() {
                break;
            }
        }
    };
    timeout(PATIENCE, free).await.expect("a place is free again");
    web.shutdown().await;
}
