//! The routes over a real catalogue and a log in memory.

#![allow(clippy::unwrap_used)]

mod commitment;
mod connections;
mod deletes;
mod encodings;
mod indexes;
mod peers;
mod rendered;
mod sends;

use crate::{
    router::{Shared, router},
    server::{Health, Web, WebSettings, share},
};
use archive_model::write_file_meta;
use archive_service::{ServiceSettings, testing::LocalLog};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value as Json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const CLASS: &str = "1.2.840.10008.5.1.4.1.1.7";
const STOW: &str = "multipart/related; type=\"application/dicom\"; boundary=B";

struct Fine;

impl Health for Fine {
    fn replace(&self, name: String) -> futures::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { if name == "n2" { Ok(()) } else { Err(format!("there is no node called {name}")) } })
    }

    fn scrub(&self) -> u64 {
        3
    }

    fn compact(&self) -> u64 {
        4
    }

    fn order(&self, name: String, order: crate::NodeOrder) -> futures::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { if name == "n2" { Ok(()) } else { Err(format!("{order:?} of {name} was refused")) } })
    }

    fn echo(
        &self,
        calling: archive_model::AeTitle,
        remote: archive_service::RemoteAe,
    ) -> futures::future::BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let good = remote.title.as_str() == "GOOD";
            if good { Ok(()) } else { Err(format!("{} does not answer {calling}", remote.title)) }
        })
    }

    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<(), String> {
        Err("waits for a majority".into())
    }
}

struct Face {
    router: Router,
    archive: archive_service::Archive,
    log: Arc<LocalLog>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Face {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (archive, log) = archive_service::testing::archive(folder.path(), ServiceSettings::default());
        let settings = WebSettings { parts_max: 20, query_rows_max: 5, ..WebSettings::new(([127, 0, 0, 1], 0).into()) };
        let (_, shared): (_, Shared) = share(archive.clone(), settings, Arc::new(Fine), prometheus::Registry::new());
        Self { router: router(shared), archive, log, _folder: folder }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path).header("host", "h");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        let request = Request::post(path).header("host", "h").header(header::CONTENT_TYPE, kind);
        self.ask(request.body(Body::from(body)).unwrap()).await
    }

    async fn store(&self, path: &str, files: &[Vec<u8>]) -> Answer {
        let mut body = Vec::new();
        for file in files {
            body.extend_from_slice(b"--B\r\nContent-Type: application/dicom; transfer-syntax=1.2\r\n\r\n");
            body.extend_from_slice(file);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--B--\r\n");
        self.post(path, STOW, body).await
    }
}

fn element(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == "UI" || vr == "OB" { 0 } else { b' ' });
    }
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend(vr.as_bytes());
    if matches!(vr, "OB" | "OW" | "UN") {
        bytes.extend([0, 0]);
        bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    } else {
        bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    }
    bytes.extend(value);
    bytes
}

/// A data set of `frames` frames of 64 × 64 bytes.
fn data_set(study: &str, instance: &str, name: &str, frames: u8) -> Vec<u8> {
    let number = |value: u16| value.to_le_bytes();
    let pixels: Vec<u8> = (0..frames).flat_map(|frame| vec![frame + 1; 4096]).collect();
    [
        element(0x0008, 0x0016, "UI", CLASS.as_bytes()),
        element(0x0008, 0x0018, "UI", instance.as_bytes()),
        element(0x0008, 0x0020, "DA", b"20240102"),
        element(0x0008, 0x0060, "CS", b"OT"),
        element(0x0010, 0x0010, "PN", name.as_bytes()),
        element(0x0010, 0x0020, "LO", b"7"),
        element(0x0020, 0x000D, "UI", study.as_bytes()),
        element(0x0020, 0x000E, "UI", format!("{study}.1").as_bytes()),
        element(0x0028, 0x0002, "US", &number(1)),
        element(0x0028, 0x0008, "IS", frames.to_string().as_bytes()),
        element(0x0028, 0x0010, "US", &number(64)),
        element(0x0028, 0x0011, "US", &number(64)),
        element(0x0028, 0x0100, "US", &number(8)),
        element(0x7FE0, 0x0010, "OB", &pixels),
    ]
    .concat()
}

fn file(study: &str, instance: &str) -> Vec<u8> {
    let data = data_set(study, instance, "DOE^JANE", 3);
    [write_file_meta(CLASS, instance, EXPLICIT, None), data].concat()
}

/// The data of each part of a multipart answer.
fn parts(answer: &Answer) -> Vec<Vec<u8>> {
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
    let boundary = kind.rsplit_once("boundary=").unwrap().1;
    let mut splitter = crate::multipart::Splitter::new(boundary, 100).unwrap();
    splitter.push(&answer.body);
    let mut parts: Vec<Vec<u8>> = Vec::new();
    loop {
        match splitter.next().unwrap() {
            crate::multipart::Event::Part(_) => parts.push(Vec::new()),
            crate::multipart::Event::Data(data) => parts.last_mut().unwrap().extend(data),
            crate::multipart::Event::PartEnd => {}
            crate::multipart::Event::End => return parts,
            crate::multipart::Event::More => panic!("the last boundary is missing"),
        }
    }
}

#[tokio::test]
async fn what_is_stored_is_found_and_comes_back_byte_for_byte() {
    let face = Face::new();
    let answer = face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4"), file("1.2.3", "1.2.3.5")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let json = answer.json();
    assert_eq!(json["00081190"]["Value"][0], "http://h/dicom-web/studies/1.2.3");
    assert_eq!(json["00081199"]["Value"].as_array().unwrap().len(), 2);
    assert!(json["00081198"].is_null());

    let found = face.get("/dicom-web/studies?PatientName=doe*&includefield=all", &[]).await;
    assert_eq!(found.status, StatusCode::OK);
    let rows = found.json();
    assert_eq!(rows[0]["0020000D"]["Value"][0], "1.2.3");
    assert_eq!(rows[0]["00081190"]["Value"][0], "http://h/dicom-web/studies/1.2.3");
    let none = face.get("/dicom-web/studies?PatientID=8", &[]).await;
    assert_eq!((none.status, &none.body[..]), (StatusCode::OK, &b"[]"[..]));
    for path in [
        "studies/1.2.3/series",
        "studies/1.2.3/instances",
        "studies/1.2.3/series/1.2.3.1/instances",
        "series",
        "instances",
    ] {
        let rows = face.get(&format!("/dicom-web/{path}"), &[]).await.json();
        assert!(!rows.as_array().unwrap().is_empty(), "{path}");
        assert!(
            rows[0]["00081190"]["Value"][0].as_str().unwrap().starts_with("http://h/dicom-web/studies/1.2.3/series/")
        );
    }

    for path in ["/dicom-web/studies/1.2.3", "/dicom-web/studies/1.2.3/series/1.2.3.1"] {
        let whole = face.get(path, &[("accept", "multipart/related; type=application/dicom; transfer-syntax=*")]).await;
        assert_eq!(whole.status, StatusCode::OK);
        let files = parts(&whole);
        assert_eq!(files.len(), 2);
        for (file, instance) in files.iter().zip(["1.2.3.4", "1.2.3.5"]) {
            assert!(file.ends_with(&data_set("1.2.3", instance, "DOE^JANE", 3)));
        }
    }
    let one = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4";
    let single = face.get(one, &[("accept", "application/dicom")]).await;
    assert_eq!(single.headers[header::CONTENT_TYPE], format!("application/dicom; transfer-syntax={EXPLICIT}"));
    assert!(
        single.body[128..].starts_with(b"DICM") && single.body.ends_with(&data_set("1.2.3", "1.2.3.4", "DOE^JANE", 3))
    );
    let again = face.get(one, &[("if-none-match", single.headers[header::ETAG].to_str().unwrap())]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
}

/// Fuzzy, empty and header keys, as web clients ask for them; a warning is an admission that is not needed any more.
#[tokio::test]
async fn clients_choose_how_their_keys_are_read() {
    let face = Face::new();
    let named = |study: &str, name: &str| {
        let data = data_set(study, &format!("{study}.2"), name, 1);
        [write_file_meta(CLASS, &format!("{study}.2"), EXPLICIT, None), data].concat()
    };
    let files = [named("1.2.3", "MEYER^JOSEF"), named("1.2.4", "DOE^JANE"), named("1.2.5", "")];
    assert_eq!(face.store("/dicom-web/studies", &files).await.status, StatusCode::OK);
    let found = async |query: &str| {
        let answer = face.get(&format!("/dicom-web/studies?{query}"), &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {:?}", answer.body);
        let warned = answer.headers.get_all(header::WARNING).iter().count();
        let rows = answer.json();
        let uids = rows.as_array().unwrap().iter().map(|row| row["0020000D"]["Value"][0].as_str().unwrap().to_owned());
        let mut uids: Vec<String> = uids.collect();
        uids.sort();
        (uids.join(" "), warned)
    };
    let answer = |uids: &str| (uids.to_owned(), 0);
    assert_eq!(found("PatientName=maier&fuzzymatching=true").await, answer("1.2.3"));
    assert_eq!(found("PatientName=jo+meir&fuzzymatching=true").await, answer("1.2.3"));
    assert_eq!(found("PatientName=maier").await, answer(""));
    assert_eq!(found("PatientName=%22%22&emptyvaluematching=true").await, answer("1.2.5"));
    assert_eq!(found("PatientName=%22%22").await, answer(""));
    // Not in the index: the header says it.
    assert_eq!(found("SamplesPerPixel=1").await, answer("1.2.3 1.2.4 1.2.5"));
    assert_eq!(found("SamplesPerPixel=3").await, answer(""));
    assert_eq!(found("includefield=SamplesPerPixel&PatientID=7").await, answer("1.2.3 1.2.4 1.2.5"));
    let row = face.get("/dicom-web/studies?SamplesPerPixel=1&limit=1", &[]).await.json();
    assert_eq!((&row[0]["00280002"]["Value"][0], &row[0]["00080056"]["Value"][0]), (&1.into(), &"ONLINE".into()));
    // Of a level below: neither matched nor returned, which is said.
    assert_eq!(found("SeriesDescription=x").await, ("1.2.3 1.2.4 1.2.5".to_owned(), 1));
}

#[tokio::test]
async fn metadata_names_bulk_values_that_can_be_fetched_whole_and_in_part() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    let one = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4";
    for path in ["/dicom-web/studies/1.2.3", "/dicom-web/studies/1.2.3/series/1.2.3.1", one] {
        let metadata = face.get(&format!("{path}/metadata"), &[("x-forwarded-proto", "https")]).await.json();
        let uri = metadata[0]["7FE00010"]["BulkDataURI"].as_str().unwrap().to_owned();
        let local = uri.strip_prefix("https://h").unwrap();
        let bulk = face.get(local, &[]).await;
        assert_eq!((bulk.status, bulk.body.len()), (StatusCode::OK, 3 * 4096));
        let part = face.get(local, &[("range", "bytes=4095-4096")]).await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &[1, 2][..]));
        assert_eq!(part.headers[header::CONTENT_RANGE], "bytes 4095-4096/12288");
        let beyond = face.get(local, &[("range", "bytes=12288-")]).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    }
    let packed = face.get(&format!("{one}/metadata"), &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.headers[header::CONTENT_ENCODING], "gzip");
}

#[tokio::test]
async fn frames_are_counted_from_one() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    let frames = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4/frames";
    let two = face.get(&format!("{frames}/3,1"), &[]).await;
    assert_eq!(parts(&two), [vec![3; 4096], vec![1; 4096]]);
    let one = face.get(&format!("{frames}/2"), &[("accept", "application/octet-stream")]).await;
    assert_eq!(&one.body[..], [2; 4096]);
    for (path, status) in [("0", 404), ("4", 404), ("x", 400), ("1,99", 404)] {
        assert_eq!(face.get(&format!("{frames}/{path}"), &[]).await.status.as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn each_hostile_request_has_its_status() {
    let face = Face::new();
    let good = file("1.2.3", "1.2.3.4");
    face.store("/dicom-web/studies", std::slice::from_ref(&good)).await;
    let one = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4";
    let jpeg = "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50";
    for (path, accept, status) in [
        ("/nowhere", "*/*", 404),
        ("/dicom-web/studies/1.2.9", "*/*", 404),
        ("/dicom-web/studies/1.2.9/metadata", "*/*", 404),
        ("/dicom-web/studies/not-a-uid", "*/*", 400),
        ("/dicom-web/studies?Nonsense=1", "*/*", 400),
        ("/dicom-web/studies?StudyDate=tomorrow", "*/*", 400),
        ("/dicom-web/studies", "image/png", 406),
        (one, "image/png", 406),
        (one, jpeg, 406),
        ("/dicom-web/studies/1.2.3/metadata", "application/dicom+xml", 406),
        (&format!("{one}/bulkdata/0-18446744073709551615"), "*/*", 404),
        (&format!("{one}/bulkdata/1-18446744073709551615"), "*/*", 404),
        (&format!("{one}/bulkdata/nonsense"), "*/*", 400),
        (&format!("/dicom-web/studies?PatientID={}", "x".repeat(9000)), "*/*", 414),
    ] {
        let answer = face.get(path, &[("accept", accept)]).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.body.len() > 20, "{path} says what to do");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    let wrapped = |file: &[u8]| [b"--B\r\n\r\n", file, b"\r\n--B--"].concat();
    for (kind, body, status) in [
        ("text/plain", vec![], 415),
        ("multipart/related; type=\"application/dicom+json\"; boundary=B", wrapped(&good), 415),
        ("multipart/related; type=\"application/dicom\"", wrapped(&good), 400),
        (&format!("multipart/related; boundary={}", "B".repeat(71)), wrapped(&good), 400),
        (STOW, vec![], 400),
        (STOW, b"nonsense".to_vec(), 400),
        (STOW, wrapped(b"nonsense"), 409),
        (STOW, wrapped(&good[..good.len() - 9]), 409),
        (STOW, b"--B\r\nContent-Type: text/html\r\n\r\n<b>\r\n--B--".to_vec(), 415),
        (STOW, b"--B\r\n\r\n\r\n".repeat(30), 413),
        (STOW, wrapped(&good), 200),
        (STOW, [b"--B\r\n\r\n", &good[..]].concat(), 200),
        ("application/dicom", good.clone(), 200),
    ] {
        let answer = face.post("/dicom-web/studies", kind, body).await;
        assert_eq!(answer.status.as_u16(), status, "{kind}: {:?}", answer.body);
    }
    let put = Request::put("/dicom-web/studies/1.2.3").body(Body::empty()).unwrap();
    assert_eq!(face.ask(put).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn one_refused_part_does_not_stop_the_others() {
    let face = Face::new();
    let answer = face.store("/dicom-web/studies/1.2.3", &[file("1.2.3", "1.2.3.4"), file("1.9", "1.9.4")]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let json = answer.json();
    assert_eq!(json["00081198"]["Value"][0]["00081197"]["Value"][0], 43265);
    assert_eq!(json["00081198"]["Value"][0]["00081155"]["Value"][0], "1.9.4");
    assert_eq!(json["00081199"]["Value"][0]["00081155"]["Value"][0], "1.2.3.4");
    let alone = face.store("/dicom-web/studies/1.2.3", &[file("1.9", "1.9.4")]).await;
    assert_eq!(alone.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn without_a_majority_a_store_is_refused_before_its_body_is_read() {
    let face = Face::new();
    face.log.set_quorum(false);
    let answer = face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(face.get("/dicom-web/studies", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_list_that_our_limit_cuts_says_so() {
    let face = Face::new();
    let files: Vec<_> = (1..8).map(|number| file(&format!("1.2.{number}"), &format!("1.2.{number}.4"))).collect();
    assert_eq!(face.store("/dicom-web/studies", &files).await.status, StatusCode::OK);
    for (query, count, warned) in [("", 5, true), ("limit=9", 5, true), ("limit=3", 3, false), ("offset=4", 3, false)] {
        let answer = face.get(&format!("/dicom-web/studies?{query}"), &[]).await;
        assert_eq!(answer.json().as_array().unwrap().len(), count, "{query}");
        assert_eq!(answer.headers.contains_key(header::WARNING), warned, "{query}");
    }
}

#[tokio::test]
async fn operators_see_health_metrics_cluster_and_totals() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    assert_eq!(face.get("/health/live", &[]).await.status, StatusCode::OK);
    let ready = face.get("/health/ready", &[]).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.body.ends_with(b"waits for a majority\n"));
    let metrics = face.get("/metrics", &[]).await;
    let text = std::str::from_utf8(&metrics.body).unwrap();
    assert!(
        text.contains(r#"archive_web_request_seconds_count{method="POST",route="/dicom-web/studies",status="200"} 1"#),
        "{text}"
    );
    assert_eq!(face.get("/api/cluster", &[]).await.json()["answered_by"], "n1");
    assert_eq!(face.get("/api/totals", &[]).await.json()["instances"], 1);
    let page = face.get("/", &[]).await;
    assert!(page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'self'"));
    let events = face.router.clone().oneshot(Request::get("/api/events").body(Body::empty()).unwrap()).await.unwrap();
    let first = events.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"event: state\ndata: {\"cluster\":"), "{first:?}");
}

#[tokio::test]
async fn viewers_on_other_hosts_are_allowed() {
    let face = Face::new();
    let answer = face.get("/dicom-web/studies", &[("origin", "https://viewer.example")]).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
}

#[tokio::test]
async fn it_listens_answers_and_stops_while_a_page_still_listens() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, _log) = archive_service::testing::archive(folder.path(), ServiceSettings::default());
    let settings = WebSettings::new(([127, 0, 0, 1], 0).into());
    let web = Web::start(archive, settings, Arc::new(Fine), prometheus::Registry::new()).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(web.local_address()).await.unwrap();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(7).any(|window| window == b"cluster") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "the stream goes on");
    }
    web.shutdown().await;
    while stream.read_buf(&mut seen).await.unwrap() > 0 {}
}
