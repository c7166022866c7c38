//! Pictures, by a worker of shell that paints the same one for all.

use super::*;
use archive_service::CodecSettings;
use std::{fs, os::unix::fs::PermissionsExt};

const IMAGE: &str = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.4";
const PAINTER: &str = r"while true; do head -c 24 >/dev/null; r=$(head -c 4 | od -An -tu4); s=$(head -c 4 | od -An -tu4)
head -c $((r+s)) >/dev/null; printf 'TA\002\000\002\000\000\000\007\000\000\000PICTURE'; done";
const DAMAGED: &str = r"while true; do head -c 24 >/dev/null; r=$(head -c 4 | od -An -tu4); s=$(head -c 4 | od -An -tu4)
head -c $((r+s)) >/dev/null; printf 'TA\002\001\000\000\000\000\003\000\000\000why'; done";

fn number(value: u16) -> [u8; 2] {
    value.to_le_bytes()
}

/// Two frames of 2 × 2, or none.
fn image(instance: &str, class: &str, frames: bool) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(element(0x0008, 0x0016, "UI", class.as_bytes()));
    data.extend(element(0x0008, 0x0018, "UI", instance.as_bytes()));
    data.extend(element(0x0020, 0x000D, "UI", b"1.2.3"));
    data.extend(element(0x0020, 0x000E, "UI", b"1.2.3.1"));
    if frames {
        data.extend(element(0x0028, 0x0002, "US", &number(1)));
        data.extend(element(0x0028, 0x0004, "CS", b"MONOCHROME2 "));
        data.extend(element(0x0028, 0x0008, "IS", b"2 "));
        for (tag, value) in [(0x0010, 2), (0x0011, 2), (0x0100, 8), (0x0101, 8), (0x0102, 7), (0x0103, 0)] {
            data.extend(element(0x0028, tag, "US", &number(value)));
        }
        data.extend(element(0x7FE0, 0x0010, "OB", &[1, 2, 3, 4, 5, 6, 7, 8]));
    }
    [&write_file_meta(class, instance, EXPLICIT, None), &data[..]].concat()
}

async fn face(script: Option<&str>) -> Face {
    let folder = tempfile::tempdir().unwrap();
    let program = script.map(|script| {
        let program = folder.path().join("worker");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    });
    let codec = CodecSettings { program, ..CodecSettings::default() };
    let service = ServiceSettings { codec, ..ServiceSettings::default() };
    let (archive, log) = archive_service::testing::archive(folder.path(), service);
    let settings = WebSettings { parts_max: 20, query_rows_max: 5, ..WebSettings::new(([127, 0, 0, 1], 0).into()) };
    let (_, shared): (_, Shared) = share(archive.clone(), settings, Arc::new(Fine), prometheus::Registry::new());
    let face = Face { router: router(shared), archive, log, _folder: folder };
    let files = [image("1.2.3.4", CLASS, true), image("1.2.3.5", CLASS, false)];
    assert_eq!(face.store("/dicom-web/studies", &files).await.status, StatusCode::OK);
    face
}

#[tokio::test]
async fn a_picture_is_answered_in_the_form_that_is_liked_best() {
    let face = face(Some(PAINTER)).await;
    for (end, accept, kind) in [
        ("/rendered", "*/*", "image/jpeg"),
        ("/rendered", "image/png", "image/png"),
        ("/frames/2/rendered", "image/png;q=0.1, image/jpeg;q=0.05", "image/png"),
        ("/thumbnail", "image/*", "image/jpeg"),
        ("/frames/1/thumbnail", "image/png", "image/png"),
    ] {
        let answer = face.get(&format!("{IMAGE}{end}"), &[("accept", accept)]).await;
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"PICTURE"[..]), "{end}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], kind);
        assert_eq!(answer.headers[header::CACHE_CONTROL], "private, max-age=60");
    }
    for (path, accept, status) in [
        (format!("{IMAGE}/rendered"), "image/gif", StatusCode::NOT_ACCEPTABLE),
        (format!("{IMAGE}/frames/3/rendered"), "*/*", StatusCode::NOT_FOUND),
        (format!("{IMAGE}/frames/0/rendered"), "*/*", StatusCode::NOT_FOUND),
        (format!("{IMAGE}/frames/1,2/thumbnail"), "*/*", StatusCode::BAD_REQUEST),
        (format!("{IMAGE}/rendered?viewport=0,0"), "*/*", StatusCode::BAD_REQUEST),
        (format!("{IMAGE}/rendered?viewport=9,9,1,1,9,9"), "*/*", StatusCode::BAD_REQUEST),
        ("/dicom-web/studies/1.2.9/rendered".into(), "*/*", StatusCode::NOT_FOUND),
        // It has no frames.
        (IMAGE.replace(".4", ".5") + "/rendered", "*/*", StatusCode::NOT_ACCEPTABLE),
        (IMAGE.replace(".4", ".5") + "/thumbnail", "*/*", StatusCode::NOT_ACCEPTABLE),
        ("/dicom-web/studies/1.2.3/rendered".into(), "image/jpeg", StatusCode::NOT_ACCEPTABLE),
    ] {
        assert_eq!(face.get(&path, &[("accept", accept)]).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_known_picture_is_304_and_a_tag_is_of_one_request() {
    let face = face(Some(PAINTER)).await;
    let tag = async |query: &str, accept: &str| {
        let answer = face.get(&format!("{IMAGE}/rendered{query}"), &[("accept", accept)]).await;
        answer.headers[header::ETAG].to_str().unwrap().to_owned()
    };
    let plain = tag("", "image/png").await;
    assert!(plain.starts_with('"'), "a strong one");
    assert_eq!(plain, tag("?annotation=patient", "image/png").await);
    for (query, accept) in [("", "image/jpeg"), ("?window=1,2,linear", "image/png"), ("?viewport=3,3", "image/png")] {
        assert!(tag(query, accept).await != plain);
    }
    let again = face.get(&format!("{IMAGE}/rendered"), &[("accept", "image/png"), ("if-none-match", &plain)]).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[tokio::test]
async fn several_pictures_are_parts_and_what_has_none_is_said() {
    let face = face(Some(PAINTER)).await;
    let answer = face.get("/dicom-web/studies/1.2.3/rendered", &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("multipart/related; type=\"image/jpeg\""), "{kind}");
    assert!(answer.headers[header::WARNING].to_str().unwrap().contains("left out"));
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(body.matches("PICTURE").count(), 2);
    assert!(body.contains(&format!("http://h{IMAGE}/frames/2/rendered\r\n")) && body.ends_with("--\r\n"));
    let warned = face.get(&format!("{IMAGE}/rendered?annotation=patient"), &[]).await;
    assert!(warned.headers[header::WARNING].to_str().unwrap().starts_with("299 "));
}

#[tokio::test]
async fn what_the_worker_says_is_the_reason() {
    let damaged = face(Some(DAMAGED)).await.get(&format!("{IMAGE}/rendered"), &[]).await;
    assert_eq!(damaged.status, StatusCode::NOT_ACCEPTABLE);
    assert!(String::from_utf8_lossy(&damaged.body).contains("why"));
    // A series fails before its head is sent.
    assert_eq!(
        face(Some(DAMAGED)).await.get("/dicom-web/studies/1.2.3/rendered", &[]).await.status,
        StatusCode::NOT_ACCEPTABLE
    );
    let missing = face(None).await.get(&format!("{IMAGE}/thumbnail"), &[]).await;
    assert_eq!(missing.status, StatusCode::NOT_IMPLEMENTED);
    assert!(String::from_utf8_lossy(&missing.body).contains("triptych-codec"));
    let ended = face(Some("exit 3")).await.get(&format!("{IMAGE}/rendered"), &[]).await;
    assert_eq!(ended.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_document_is_an_attachment() {
    let face = face(None).await;
    let mut file = image("1.2.3.6", "1.2.840.10008.5.1.4.1.1.104.1", false);
    file.extend(element(0x0042, 0x0011, "OB", b"%PDF-1.7 "));
    file.extend(element(0x0042, 0x0012, "LO", b"application/pdf "));
    file.extend(element(0x0042, 0x0015, "UL", &9_u32.to_le_bytes()));
    assert_eq!(face.store("/dicom-web/studies", &[file]).await.status, StatusCode::OK);
    let path = IMAGE.replace(".4", ".6") + "/rendered";
    let answer = face.get(&path, &[("accept", "*/*")]).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"%PDF-1.7 "[..]));
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/pdf");
    assert_eq!(answer.headers[header::CONTENT_DISPOSITION], "attachment; filename=\"1.2.3.6.pdf\"");
    assert_eq!(face.get(&path, &[("accept", "image/png")]).await.status, StatusCode::NOT_ACCEPTABLE);
}
