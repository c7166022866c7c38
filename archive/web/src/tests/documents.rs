//! Data sets as XML, and instances that come as metadata with their bulk values beside.

use super::*;
use serde_json::json;

const SERIES: &str = "/dicom-web/studies/1.2.3/series/1.2.3.1";
const XML: &str = "multipart/related; type=\"application/dicom+xml\"";

fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap()
}

#[tokio::test]
async fn lists_metadata_and_the_answer_of_a_store_can_be_had_as_xml() {
    let face = Face::new();
    let mut body = b"--B\r\n\r\n".to_vec();
    body.extend(file("1.2.3", "1.2.3.4"));
    body.extend(b"\r\n--B--");
    let request = Request::post("/dicom-web/studies").header("host", "h").header(header::CONTENT_TYPE, STOW);
    let stored =
        face.ask(request.header(header::ACCEPT, "application/dicom+xml").body(Body::from(body)).unwrap()).await;
    assert_eq!(stored.headers[header::CONTENT_TYPE], "application/dicom+xml");
    assert!(text(&stored.body).contains("keyword=\"ReferencedSOPSequence\"><Item number=\"1\">"), "{:?}", stored.body);
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.5")]).await;

    let lists = face.get("/dicom-web/studies/1.2.3/instances", &[("accept", XML)]).await;
    let rows = parts(&lists);
    assert_eq!(rows.len(), 2);
    assert!(text(&rows[0]).contains(
        "<DicomAttribute tag=\"00080018\" vr=\"UI\" keyword=\"SOPInstanceUID\"><Value number=\"1\">1.2.3.4</Value>"
    ));
    assert!(text(&rows[0]).contains(&format!("http://h{SERIES}/instances/1.2.3.4</Value>")), "Retrieve URL");
    let none = face.get("/dicom-web/studies?PatientID=nobody", &[("accept", XML)]).await;
    assert_eq!((none.status, none.body.len()), (StatusCode::NO_CONTENT, 0), "a multipart body has a part");

    let metadata = face.get(&format!("{SERIES}/metadata"), &[("accept", XML)]).await;
    assert_eq!(metadata.status, StatusCode::OK);
    let parts = parts(&metadata);
    assert_eq!(parts.len(), 2);
    assert!(text(&parts[0]).contains("<FamilyName>DOE</FamilyName><GivenName>JANE</GivenName>"), "{}", text(&parts[0]));
    let (_, uri) = text(&parts[0]).split_once("<BulkData uri=\"http://h").unwrap();
    let bulk = face.get(uri.split_once('"').unwrap().0, &[]).await;
    assert_eq!((bulk.status, bulk.body.len()), (StatusCode::OK, 3 * 4096));
}

#[tokio::test]
async fn a_list_that_is_still_the_same_is_not_sent_again() {
    let face = Face::new();
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.4")]).await;
    let first = face.get("/dicom-web/studies", &[]).await;
    let etag = first.headers[header::ETAG].to_str().unwrap();
    assert!(etag.starts_with("W/"));
    let same = face.get("/dicom-web/studies", &[("if-none-match", etag)]).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    face.store("/dicom-web/studies", &[file("1.2.3", "1.2.3.5")]).await;
    let grown = face.get("/dicom-web/studies", &[("if-none-match", etag)]).await;
    assert_eq!(grown.status, StatusCode::OK, "the study has one instance more");
}

fn metadata(instance: &str, pixels: Json) -> Json {
    json!({
        "00020010": { "vr": "UI", "Value": ["1.2.840.10008.1.2"] },
        "00080016": { "vr": "UI", "Value": [CLASS] },
        "00080018": { "vr": "UI", "Value": [instance] },
        "00080060": { "vr": "CS", "Value": ["OT"] },
        "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Müller^Änne", "Ideographic": "山田" }] },
        "00100020": { "vr": "LO", "Value": ["7"] },
        "0020000D": { "vr": "UI", "Value": ["1.2.3"] },
        "0020000E": { "vr": "UI", "Value": ["1.2.3.1"] },
        "00280002": { "vr": "US", "Value": [1] },
        "00280004": { "vr": "CS", "Value": ["MONOCHROME2"] },
        "00280008": { "vr": "IS", "Value": [2] },
        "00280010": { "vr": "US", "Value": [3] },
        "00280011": { "vr": "US", "Value": [5] },
        "00280100": { "vr": "US", "Value": [8] },
        "00282000": { "vr": "OB", "BulkDataURI": "cid:profile@x" },
        "7FE00010": pixels,
        "FFFCFFFC": { "vr": "OB", "InlineBinary": "AAAA" },
    })
}

/// A body of parts with these headers.
fn body(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, data) in parts {
        body.extend(format!("--B\r\n{head}\r\n\r\n").into_bytes());
        body.extend_from_slice(data);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

const JSON_STOW: &str = "multipart/related; type=\"application/dicom+json\"; boundary=B";
const JSON_PART: &str = "Content-Type: application/dicom+json; charset=utf-8";
const PROFILE: &str = "Content-Type: application/octet-stream\r\nContent-ID: <profile@x>";

#[tokio::test]
async fn an_instance_is_made_of_metadata_and_its_bulk_values() {
    let face = Face::new();
    let pixels: Vec<u8> = (0..30).collect();
    let at = |name: &str| format!("Content-Type: application/octet-stream\r\nContent-Location: {name}");
    let sets = json!([
        metadata("1.2.3.4", json!({ "vr": "OW", "BulkDataURI": "http://client/a" })),
        metadata("1.2.3.5", json!({ "vr": "OB", "InlineBinary": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd" })),
        metadata("1.2.3.6", json!({ "vr": "OB", "BulkDataURI": "http://elsewhere/never" })),
    ]);
    let sets = serde_json::to_vec(&sets).unwrap();
    let answer = face
        .post(
            "/dicom-web/studies/1.2.3",
            JSON_STOW,
            body(&[(JSON_PART, &sets), (&at("http://client/a"), &pixels), (PROFILE, b"odd")]),
        )
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
    let json = answer.json();
    assert_eq!(json["00081199"]["Value"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(json["00081198"]["Value"][0]["00081155"]["Value"][0], "1.2.3.6");
    assert_eq!(json["00081198"]["Value"][0]["00081197"]["Value"][0], 49152);
    for instance in ["1.2.3.4", "1.2.3.5"] {
        let url = format!("{SERIES}/instances/{instance}");
        let frame = face.get(&format!("{url}/frames/2"), &[("accept", "application/octet-stream")]).await;
        assert_eq!(frame.body[..], pixels[15..], "{:?}", frame.body);
        let stored = face.get(&format!("{url}/metadata"), &[]).await.json();
        assert_eq!(stored[0]["00100010"]["Value"][0], json!({ "Alphabetic": "Müller^Änne", "Ideographic": "山田" }));
        assert!(stored[0]["00020010"].is_null());
        let whole = face.get(&url, &[("accept", "application/dicom")]).await;
        assert!(whole.body[132..].windows(16).any(|bytes| bytes == b"\x28\0\0\x20OB\0\0\x04\0\0\0odd\0"));
    }
    let again = face.post("/dicom-web/studies", JSON_STOW, body(&[(JSON_PART, b"{")])).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn compressed_frames_come_one_a_part() {
    let face = Face::new();
    let jls = |name: &str| format!("Content-Type: image/jls\r\nContent-Location: {name}");
    let set = metadata("1.2.3.4", json!({ "vr": "OB", "BulkDataURI": "pixels" }));
    let set = serde_json::to_vec(&json!([set])).unwrap();
    let answer = face
        .post(
            "/dicom-web/studies",
            JSON_STOW,
            body(&[(JSON_PART, &set), (PROFILE, b"p"), (&jls("pixels"), b"first frame"), (&jls("pixels"), b"second")]),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let frames = format!("{SERIES}/instances/1.2.3.4/frames");
    let one = face.get(&format!("{frames}/2"), &[("accept", "image/jls")]).await;
    assert_eq!(one.headers[header::CONTENT_TYPE], "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80");
    assert_eq!(&one.body[..], b"second");
}

#[tokio::test]
async fn metadata_may_come_as_xml() {
    let face = Face::new();
    let set = archive_model::json::from_json(
        &serde_json::to_vec(&metadata("1.2.3.4", json!({ "vr": "OB", "InlineBinary": "AAEC" }))).unwrap(),
        &archive_model::Limits::default(),
    );
    // A place that is none in a body: only what stores reads it.
    assert!(set.is_err());
    let data = data_set("1.2.3", "1.2.3.4", "DOE^JANE", 1);
    let set = archive_model::read_data_set(
        &data,
        &archive_model::transfer_syntax(EXPLICIT),
        &archive_model::Limits::default(),
    )
    .unwrap();
    let xml = archive_model::xml::to_xml(&set, &archive_model::json::no_bulk);
    let kind = "multipart/related; type=\"application/dicom+xml\"; boundary=B";
    let answer = face.post("/dicom-web/studies", kind, body(&[("Content-Type: application/dicom+xml", &xml)])).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let whole = face.get(&format!("{SERIES}/instances/1.2.3.4"), &[("accept", "application/dicom")]).await;
    assert!(whole.body.ends_with(&data), "the same data set");
    let bomb = b"<!DOCTYPE a [<!ENTITY b \"c\">]><NativeDicomModel/>";
    let refused = face.post("/dicom-web/studies", kind, body(&[("Content-Type: application/dicom+xml", bomb)])).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn values_beside_metadata_are_bounded() {
    let face = Face::with(|settings| settings.bulk_held_bytes_max = 256 << 10);
    let set = metadata("1.2.3.4", json!({ "vr": "OB", "BulkDataURI": "pixels" }));
    let set = serde_json::to_vec(&json!([set])).unwrap();
    let large = vec![0; 200 << 10];
    let at = "Content-Type: application/octet-stream\r\nContent-Location: pixels";
    let answer = face.post("/dicom-web/studies", JSON_STOW, body(&[(JSON_PART, &set), (at, &large)])).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text(&answer.body).contains("application/dicom"), "says what to do");
}

#[tokio::test]
async fn what_is_not_stored_is_never_answered_with_success() {
    let face = Face::new();
    let kind = "multipart/related; type=\"application/dicom+json\"; boundary=b";
    let part = |head: &str, body: &[u8]| [format!("--b\r\n{head}\r\n\r\n").as_bytes(), body, b"\r\n"].concat();
    let json = |set: &Json| part("Content-Type: application/dicom+json", &serde_json::to_vec(set).unwrap());
    let pixels = |more: &str| {
        part(&format!("Content-Type: application/octet-stream{more}\r\nContent-Location: p"), b"\0\x01\x02\x03")
    };
    let with_pixels = |uid: &str| metadata(uid, json!({ "vr": "OW", "BulkDataURI": "p" }));
    // What each of them names beside the pixels.
    let profile = part(PROFILE, b"odd");
    let requests = [
        ("no instance", vec![json(&json!([]))], 400),
        ("a file among metadata", vec![part("Content-Type: application/dicom", &file("1.2.3", "1.2.9"))], 400),
        (
            "metadata that does not say so",
            vec![part("X-Nothing: 1", &serde_json::to_vec(&with_pixels("1.2.8")).unwrap())],
            400,
        ),
        (
            "a part that nobody named",
            vec![
                json(&with_pixels("1.2.7")),
                pixels(""),
                part("Content-Type: image/jls\r\nContent-Location: q", b"\xFF\xD8"),
            ],
            400,
        ),
        ("a part too many", vec![json(&with_pixels("1.2.6")), pixels(""), pixels("")], 409),
        ("big endian", vec![json(&with_pixels("1.2.5")), pixels("; transfer-syntax=1.2.840.10008.1.2.2")], 409),
        ("deflated", vec![json(&with_pixels("1.2.51")), pixels("; transfer-syntax=1.2.840.10008.1.2.1.99")], 409),
        ("a number that does not fit", vec![json(&metadata("1.2.4", json!({ "vr": "US", "Value": [65_538] })))], 400),
        ("a value that did not come", vec![json(&with_pixels("1.2.41"))], 409),
    ];
    for (what, parts, status) in requests {
        let named = if status == 409 { &profile[..] } else { &[] };
        let body = [&parts.concat(), named, b"--b--\r\n"].concat();
        let request =
            Request::post("/dicom-web/studies").header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
        let answer = face.ask(request).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {:?}", answer.body);
    }
    assert_eq!(face.archive.totals().await.unwrap().instances, 0, "and nothing of them is there");
    // The same, whole.
    let plain = pixels("; transfer-syntax=1.2.840.10008.1.2.1");
    let body = [json(&with_pixels("1.2.31")), plain, profile, b"--b--\r\n".to_vec()].concat();
    let request =
        Request::post("/dicom-web/studies").header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
    assert_eq!(face.ask(request).await.status, StatusCode::OK);
}
